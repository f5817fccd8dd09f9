//! The tables themselves: what is counted and changed in one place.
#![forbid(unsafe_code)]

use super::*;

impl Outlet {
    pub(super) fn lose(&mut self, count: u32) {
        self.dropped += u64::from(count);
        self.gap = self.gap.saturating_add(count);
        // A local subscriber hears of it with its next event.
    }
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            bus: Bus::default(),
            rpc: Rpc::new(RpcLimits::default()),
            delayed: Delayed::new(crate::bus::COUNT_MAX_DEFAULT, crate::bus::BYTES_MAX_DEFAULT),
            slots: Vec::new(),
            stalled_slots: Vec::new(),
            patience_over: false,
            blocking: 0,
            stalled_count: HashMap::new(),
            stalled_bytes: 0,
            sessions: HashMap::new(),
            inlets: HashMap::new(),
            services: HashMap::new(),
            calls: HashMap::new(),
            requests: HashMap::new(),
            asked: Vec::new(),
            queue_watchers: 0,
            touched: Vec::new(),
            effects: Vec::new(),
            fan: Vec::new(),
            scratch: Vec::new(),
            batch: Vec::new(),
            counts: BusStats::default(),
            gone_expired: 0,
            protocol_violations: 0,
            handshakes_refused: 0,
            closing: false,
        }
    }

    /// How long a publisher is to wait for subscribers that block and have no room for this event now.
    pub(super) fn blocks_for(&mut self, draft: &Draft<'_>) -> Option<Duration> {
        if self.blocking == 0 || draft.delay_ms > 0 {
            return None;
        }
        let Self { bus, slots, .. } = self;
        let bytes = (HEADER_BYTES + draft.subject.len() + draft.headers.len() + draft.payload.len() + 8)
            .min(crate::wire::CHUNK_BYTES);
        let full = bus.route(draft.subject).iter().filter_map(|slot| {
            let outlet = slots.get(slot.index())?.as_ref()?;
            let OnSlow::Block { timeout } = outlet.on_slow else { return None };
            let fits = outlet.stalled.is_empty()
                && match &outlet.sink {
                    Sink::Local(inlet) => !inlet.mailbox.lock().queue.is_full(),
                    Sink::Remote { session, in_flight, .. } => {
                        *in_flight < outlet.capacity && {
                            let mut outbox = session.outbox.lock();
                            // Without room, the client is asked to tell when there is some.
                            outbox.has_room(bytes).unwrap_or(true)
                                || outbox.flush().and_then(|()| outbox.want_room()).unwrap_or(true)
                                    && outbox.has_room(bytes).unwrap_or(true)
                        }
                    }
                };
            (!fits).then_some(timeout)
        });
        full.max()
    }

    /// The one remote subscription that gets this event and has room for it now, as far as the tables tell:
    /// by far the commonest case, which needs no message of its own.
    pub(super) fn direct(&mut self, draft: &Draft<'_>) -> Option<(Slot, Arc<Session>)> {
        if draft.delay_ms > 0 { None } else { self.direct_for(draft.subject) }
    }

    fn direct_for(&mut self, subject: &str) -> Option<(Slot, Arc<Session>)> {
        let &[slot] = self.bus.route(subject) else { return None };
        let outlet = self.slots.get(slot.index())?.as_ref()?;
        let Sink::Remote { session, backlog, in_flight, .. } = &outlet.sink else { return None };
        let blocked = matches!(outlet.on_slow, OnSlow::Block { .. }) && *in_flight >= outlet.capacity;
        if blocked || !backlog.is_empty() || !outlet.stalled.is_empty() {
            return None;
        }
        Some((slot, Arc::clone(session)))
    }

    /// Like [`direct`](Self::direct), for events in a row: also where the first stands, and how many of them
    /// there is room for. Members of a queue group take turns, so they get no runs.
    pub(super) fn direct_run(&mut self, subject: &str) -> Option<(Slot, Arc<Session>, Target, usize)> {
        let (slot, session) = self.direct_for(subject)?;
        let outlet = self.slots.get(slot.index())?.as_ref()?;
        let Sink::Remote { in_flight, .. } = &outlet.sink else { return None };
        let blocks = matches!(outlet.on_slow, OnSlow::Block { .. });
        let room = if blocks { outlet.capacity - in_flight } else { usize::MAX };
        let target = Target { id: outlet.key.id, gap: outlet.gap };
        (!outlet.grouped).then_some((slot, session, target, room))
    }

    /// The fixed part and target of an event for one remote subscription.
    pub(super) fn head_of(&self, slot: Slot, draft: &Draft<'_>) -> Option<[u8; HEADER_BYTES + 8]> {
        let outlet = self.slots.get(slot.index())?.as_ref()?;
        let mut head = [0; HEADER_BYTES + 8];
        let header = crate::wire::MessageHeader { target_count: 1, ..draft.header() };
        head[..HEADER_BYTES].copy_from_slice(&header.encode());
        head[HEADER_BYTES..HEADER_BYTES + 4].copy_from_slice(&outlet.key.id.to_le_bytes());
        head[HEADER_BYTES + 4..].copy_from_slice(&outlet.gap.to_le_bytes());
        Some(head)
    }

    /// Sends an event straight from its publisher's memory; false when the ring has no room.
    pub(super) fn send_direct(&mut self, slot: Slot, outbox: &mut Outbox, draft: &Draft<'_>) -> Result<bool> {
        if draft.payload.len() > DIRECT_BYTES_MAX {
            return Ok(false);
        }
        let Some(head) = self.head_of(slot, draft) else { return Ok(false) };
        if !outbox.fits(head.len() + draft.subject.len() + draft.headers.len() + draft.payload.len()) {
            return Ok(false);
        }
        if outbox.send(&[&head, draft.subject.as_bytes(), draft.headers, draft.payload])? == Sent::Full {
            return Ok(false);
        }
        self.note_direct(slot, 1, draft.payload.len());
        Ok(true)
    }

    /// Counts events that went to one remote subscription and nowhere else.
    pub(super) fn note_direct(&mut self, slot: Slot, count: usize, payload_bytes: usize) {
        let Some(Some(outlet)) = self.slots.get_mut(slot.index()) else { return };
        let (events, bytes) = (count as u64, payload_bytes as u64);
        outlet.gap = 0;
        outlet.delivered += events;
        outlet.delivered_bytes += bytes;
        let mut credited = false;
        if let Sink::Remote { in_flight, credited: true, .. } = &mut outlet.sink {
            *in_flight += count;
            credited = true;
        }
        self.counts.published += events;
        self.counts.published_bytes += bytes;
        self.counts.delivered += events;
        self.counts.delivered_bytes += bytes;
        if credited {
            self.update_depth(slot);
        }
    }

    pub(super) fn touch(&mut self, session: &Arc<Session>) {
        if !session.touched.swap(true, Ordering::Relaxed) {
            self.touched.push(Arc::clone(session));
        }
    }

    pub(super) fn count_delivery(&mut self, message: &Message) {
        self.counts.delivered += 1;
        self.counts.delivered_bytes += message.payload().len() as u64;
    }

    pub(super) fn note_sent(&mut self, slot: Slot, message: &Message) {
        if let Some(Some(outlet)) = self.slots.get_mut(slot.index()) {
            outlet.gap = 0;
            outlet.delivered += 1;
            outlet.delivered_bytes += message.payload().len() as u64;
            if let Sink::Remote { in_flight, credited: true, .. } = &mut outlet.sink {
                *in_flight += 1;
            }
        }
        self.count_delivery(message);
        self.update_depth(slot);
    }

    pub(super) fn update_depth(&mut self, slot: Slot) {
        let Some(Some(outlet)) = self.slots.get(slot.index()) else { return };
        let depth = match &outlet.sink {
            Sink::Local(inlet) if inlet.credited => inlet.mailbox.lock().queue.len(),
            Sink::Remote { backlog, in_flight, credited: true, .. } => backlog.len() + in_flight,
            _ => return,
        };
        let depth = depth + outlet.stalled.len();
        let full = depth >= outlet.capacity;
        self.bus.set_depth(slot, depth as u64, full);
    }

    pub(super) fn pop_stalled(&mut self, slot: Slot) {
        let Some(Some(outlet)) = self.slots.get_mut(slot.index()) else { return };
        let Some(gone) = outlet.stalled.pop_front() else { return };
        self.stalled_bytes -= gone.message.weight();
        if outlet.stalled.is_empty() {
            self.stalled_slots.retain(|&other| other != slot);
        }
        if let Some(count) = self.stalled_count.get_mut(&gone.from) {
            *count = count.saturating_sub(1);
        }
    }

    pub(super) fn forget_stalled_from(&mut self, from: u32) {
        // What a publisher handed over before it ended is still delivered; nobody waits for it any more.
        self.stalled_count.remove(&from);
    }
}
