//! The way of an event from its publisher to the subscriptions that match.
#![forbid(unsafe_code)]

use super::*;

impl Host {
    /// Takes an event in: routes it, or keeps it until its delay has passed.
    pub(super) fn accept_event(&self, state: &mut State, message: Message, from: u32) -> Result<()> {
        let delay = message.delay_ms();
        if delay > 0 {
            let due = self.engine.now() + Duration::from_millis(delay.into());
            let bytes = message.weight();
            state.delayed.push(due, bytes, (message, from))?;
            state.counts.published += 1;
            self.engine.due_changed(due);
            return Ok(());
        }
        state.counts.published += 1;
        state.counts.published_bytes += message.payload().len() as u64;
        self.route(state, &message, from);
        Ok(())
    }

    pub(super) fn route(&self, state: &mut State, message: &Message, from: u32) {
        let State { bus, scratch, .. } = state;
        let slots = bus.route(message.subject());
        match slots {
            [] => state.counts.unmatched += 1,
            &[slot] => self.offer(state, slot, message, from),
            many => {
                scratch.clear();
                scratch.extend_from_slice(many);
                let slots = std::mem::take(scratch);
                for &slot in &slots {
                    if !self.gather(state, slot) {
                        self.offer(state, slot, message, from);
                    }
                }
                state.scratch = slots;
                self.send_fans(state, message, from);
            }
        }
    }

    /// Puts a remote subscription that can take the event at once together with others of its session.
    pub(super) fn gather(&self, state: &mut State, slot: Slot) -> bool {
        let Some(Some(outlet)) = state.slots.get(slot.index()) else { return true };
        let Sink::Remote { session, backlog, in_flight, .. } = &outlet.sink else { return false };
        if !backlog.is_empty() || !outlet.stalled.is_empty() {
            return false;
        }
        if matches!(outlet.on_slow, OnSlow::Block { .. }) && *in_flight >= outlet.capacity {
            return false;
        }
        match state.fan.iter_mut().find(|fan| fan.session.id == session.id) {
            Some(fan) => fan.slots.push(slot),
            None => {
                let session = Arc::clone(session);
                state.fan.push(Fan { session, slots: vec![slot] });
            }
        }
        true
    }

    pub(super) fn send_fans(&self, state: &mut State, message: &Message, from: u32) {
        let fans = std::mem::take(&mut state.fan);
        for fan in &fans {
            for slots in fan.slots.chunks(crate::wire::TARGETS_MAX) {
                let header = message.forward_header(Kind::Event, message.id(), 0, slots.len() as u16);
                let mut head = header.encode().to_vec();
                let targets = slots.iter().filter_map(|slot| {
                    let outlet = state.slots.get(slot.index())?.as_ref()?;
                    Some(Target { id: outlet.key.id, gap: outlet.gap })
                });
                encode_targets(targets, &mut head);
                let sent = fan.session.outbox.lock().send_message(&head, message);
                match sent {
                    Ok(Sent::Done) => {
                        for &slot in slots {
                            state.note_sent(slot, message);
                        }
                        state.touch(&fan.session);
                    }
                    Ok(Sent::Full) => {
                        for &slot in slots {
                            self.offer(state, slot, message, from);
                        }
                    }
                    Err(error) => self.doom(fan.session.id, error),
                }
            }
        }
        state.fan = fans;
        state.fan.clear();
    }

    /// Gives an event to one subscription, or does what its policy says when it has no room.
    pub(super) fn offer(&self, state: &mut State, slot: Slot, message: &Message, from: u32) {
        let Some(Some(outlet)) = state.slots.get_mut(slot.index()) else { return };
        if !outlet.stalled.is_empty() {
            return self.stall(state, slot, message, from);
        }
        match &mut outlet.sink {
            Sink::Local(inlet) => {
                let mut pushed = None;
                let gap = std::mem::take(&mut outlet.gap);
                let inlet = Arc::clone(inlet);
                inlet.mailbox.put(|inbox| {
                    let result = inbox.push(message.clone(), gap);
                    let ready = !matches!(result, Pushed::Overflow(_));
                    pushed = Some(result);
                    ready
                });
                match pushed {
                    Some(Pushed::Overflow(_)) => {
                        outlet.gap = gap;
                        self.overflow(state, slot, message, from);
                    }
                    Some(Pushed::DroppedOldest { count }) => {
                        outlet.dropped += count;
                        outlet.delivered += 1;
                        outlet.delivered_bytes += message.payload().len() as u64;
                        state.counts.dropped += count;
                        state.count_delivery(message);
                    }
                    _ => {
                        outlet.delivered += 1;
                        outlet.delivered_bytes += message.payload().len() as u64;
                        state.count_delivery(message);
                    }
                }
                state.update_depth(slot);
            }
            Sink::Remote { session, backlog, in_flight, .. } => {
                let blocks = matches!(outlet.on_slow, OnSlow::Block { .. });
                if blocks && *in_flight >= outlet.capacity {
                    return self.overflow(state, slot, message, from);
                }
                if backlog.is_empty() {
                    let mut head = [0; HEADER_BYTES + 8];
                    let header = message.forward_header(Kind::Event, message.id(), 0, 1);
                    head[..HEADER_BYTES].copy_from_slice(&header.encode());
                    head[HEADER_BYTES..HEADER_BYTES + 4].copy_from_slice(&outlet.key.id.to_le_bytes());
                    head[HEADER_BYTES + 4..].copy_from_slice(&outlet.gap.to_le_bytes());
                    let session = Arc::clone(session);
                    let sent = session.outbox.lock().send_message(&head, message);
                    match sent {
                        Ok(Sent::Done) => {
                            state.note_sent(slot, message);
                            state.touch(&session);
                            return;
                        }
                        Ok(Sent::Full) => {}
                        Err(error) => return self.doom(session.id, error),
                    }
                }
                let Some(Some(outlet)) = state.slots.get_mut(slot.index()) else { return };
                let Sink::Remote { session, backlog, .. } = &mut outlet.sink else { return };
                if blocks {
                    let session = Arc::clone(session);
                    self.overflow(state, slot, message, from);
                    return self.want_room(&session);
                }
                let session = Arc::clone(session);
                match backlog.push(message.clone(), std::mem::take(&mut outlet.gap)) {
                    Pushed::Queued { .. } => {}
                    Pushed::DroppedOldest { count } => {
                        outlet.dropped += count;
                        state.counts.dropped += count;
                    }
                    Pushed::Overflow(_) => self.overflow(state, slot, message, from),
                }
                state.update_depth(slot);
                self.want_room(&session);
            }
        }
    }

    pub(super) fn overflow(&self, state: &mut State, slot: Slot, message: &Message, from: u32) {
        let Some(Some(outlet)) = state.slots.get(slot.index()) else { return };
        match outlet.on_slow {
            OnSlow::Block { .. } => self.stall(state, slot, message, from),
            _ => {
                let error = Error::new(ErrorKind::SlowConsumer, "subscription.receive")
                    .with("capacity", outlet.capacity);
                state.counts.dropped += 1;
                self.end_subscription(state, outlet.key, &error);
            }
        }
    }

    pub(super) fn end_subscription(&self, state: &mut State, key: SubscriptionKey, error: &Error) {
        let Some(slot) = state.bus.unsubscribe(key) else { return };
        if let Some(Some(outlet)) = state.slots.get(slot.index()) {
            match &outlet.sink {
                Sink::Local(inlet) => inlet.mailbox.close(error),
                Sink::Remote { session, .. } => {
                    // A failure whose number is a subscription's and which answers no call tells its end.
                    let mut body = failure(u64::from(key.id), error);
                    body[1] = SUBSCRIPTION_ENDED;
                    let session = Arc::clone(session);
                    self.queue(state, &session, &body);
                }
            }
        }
        self.drop_outlet(state, slot);
    }

    pub(super) fn drop_outlet(&self, state: &mut State, slot: Slot) {
        while state
            .slots
            .get(slot.index())
            .is_some_and(|outlet| outlet.as_ref().is_some_and(|o| !o.stalled.is_empty()))
        {
            state.pop_stalled(slot);
        }
        if let Some(place) = state.slots.get_mut(slot.index()) {
            if let Some(Outlet { on_slow: OnSlow::Block { .. }, .. }) = place {
                state.blocking -= 1;
            }
            if let Some(Outlet { watches_queues: true, .. }) = place {
                state.queue_watchers -= 1;
                if state.queue_watchers == 0 {
                    self.watch_queues(false);
                }
            }
            if let Some(Outlet { sink: Sink::Local(inlet), .. }) = place {
                state.gone_expired += inlet.mailbox.lock().queue.stats().expired;
                let id = inlet.id;
                state.inlets.remove(&id);
            }
            *place = None;
        }
        state.stalled_slots.retain(|&other| other != slot);
        self.resume_publishers(state);
    }

    pub(super) fn subscribe_outlet(
        &self,
        state: &mut State,
        key: SubscriptionKey,
        pattern: &Pattern,
        options: &SubscribeOptions,
        sink: Sink,
    ) -> Result<()> {
        let slot = state.bus.subscribe(key, pattern, options)?;
        let first = pattern.as_str().split('.').next().unwrap_or_default();
        let watches_queues = matches!(first, "$queue" | "*" | ">");
        if state.slots.len() <= slot.index() {
            state.slots.resize_with(slot.index() + 1, || None);
        }
        state.blocking += usize::from(matches!(options.on_slow, OnSlow::Block { .. }));
        state.slots[slot.index()] = Some(Outlet {
            key,
            on_slow: options.on_slow,
            capacity: options.capacity,
            sink,
            stalled: VecDeque::new(),
            delivered: 0,
            delivered_bytes: 0,
            dropped: 0,
            gap: 0,
            grouped: options.group.is_some(),
            watches_queues,
        });
        if watches_queues {
            state.queue_watchers += 1;
            self.watch_queues(true);
        }
        Ok(())
    }

    /// Sends events in a row, from `next` on, as one frame while one remote subscription alone gets them and has
    /// room; returns how many of at most `max` it sent. `draft` is the first of them.
    pub(super) fn send_run<'s, 'p>(
        &self,
        state: &mut State,
        draft: &Draft<'_>,
        next: &mut Option<(&'s str, &'p [u8])>,
        events: &mut dyn Iterator<Item = (&'s str, &'p [u8])>,
        max: usize,
    ) -> usize {
        if draft.delay_ms > 0 {
            return 0;
        }
        let Some((slot, session, target, room)) = state.direct_run(draft.subject) else { return 0 };
        let mut outbox = session.outbox.lock();
        if !outbox.has_room(BATCH_BYTES).unwrap_or(false) {
            return 0;
        }
        let bytes_max = BATCH_BYTES.min(outbox.chunk_bytes());
        let mut body = std::mem::take(&mut state.batch);
        let mut writer = BatchWriter::begin(draft, Some(target), &mut body);
        while let Some((subject, payload)) = *next
            && writer.count() < max.min(room)
            && subject == draft.subject
            && writer.push(payload, bytes_max)
        {
            *next = events.next();
        }
        let count = writer.count();
        let payload_bytes = writer.end(draft.id);
        // There is room, so it goes; an error is the client's end, and what it was sent is gone with it.
        if count > 0 && self.sent_or_doomed(&session, outbox.send(&[&body]).map(|sent| sent == Sent::Done)) {
            state.note_direct(slot, count, payload_bytes);
            drop(outbox);
            state.touch(&session);
        }
        state.batch = body;
        count
    }

    /// Takes a client's batch in: on to the one remote subscription that gets it and has room, else event by
    /// event.
    pub(super) fn accept_batch(&self, state: &mut State, batch: &Batch, from: u32) {
        if batch.delay_ms() == 0
            && let Some((slot, session, target, room)) = state.direct_run(batch.subject())
            && batch.len() <= room
        {
            let (head, tail) = batch.forward(target);
            let mut outbox = session.outbox.lock();
            let sent = outbox.fits(head.len() + tail.len())
                && self.sent_or_doomed(&session, outbox.send(&[&head, tail]).map(|sent| sent == Sent::Done));
            drop(outbox);
            if sent {
                state.note_direct(slot, batch.len(), batch.payload_bytes());
                state.touch(&session);
                return;
            }
        }
        for message in batch.events() {
            if self.accept_event(state, message, from).is_err() {
                // Too many delayed events: the publisher is told by the counter and by its own stats.
                state.counts.dropped += 1;
            }
        }
    }

    /// Sends a large event chunk by chunk from its publisher's memory while the one subscriber takes it, if
    /// nothing stands in the way; what finds no room for a while is copied and follows by itself.
    pub(super) fn publish_large(&self, draft: &Draft<'_>) -> bool {
        let (session, head) = {
            let mut state = self.state.lock();
            let Some((slot, session)) = state.direct(draft) else { return false };
            if !session.outbox.lock().is_clear() {
                return false;
            }
            let Some(head) = state.head_of(slot, draft) else { return false };
            state.note_direct(slot, 1, draft.payload.len());
            (session, head)
        };
        let parts: [&[u8]; 4] = [&head, draft.subject.as_bytes(), draft.headers, draft.payload];
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let (mut sent, mut patience) = (0, ROOM_LOOKS);
        let flow = session.outbox.lock().begin_flow();
        while sent < total {
            // Held for one chunk only: others of this session have their turn in between.
            let mut outbox = session.outbox.lock();
            let end = (sent + outbox.chunk_bytes()).min(total);
            let pushed = outbox.push_chunk(flow, &parts, sent, end).and_then(|pushed| {
                outbox.flush()?;
                Ok(pushed)
            });
            match pushed {
                Ok(Sent::Done) => (sent, patience) = (end, ROOM_LOOKS),
                Ok(Sent::Full) if patience > 0 => {
                    drop(outbox);
                    patience -= 1;
                    for _ in 0..64 {
                        spin_loop();
                    }
                }
                Ok(Sent::Full) => {
                    outbox.keep_rest(flow, sent, parts.concat());
                    drop(outbox);
                    self.pump(&session);
                    return true;
                }
                Err(error) => {
                    drop(outbox);
                    self.doom(session.id, error);
                    return true;
                }
            }
        }
        let mut outbox = session.outbox.lock();
        outbox.count(total);
        if !outbox.is_flushed() {
            self.watch_writable(&session, true);
        }
        true
    }
}
