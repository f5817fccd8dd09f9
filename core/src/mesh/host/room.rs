//! What happens when there is no room: publishers that wait, backlogs that go on, sockets that are full.
#![forbid(unsafe_code)]

use super::*;

impl Host {
    pub(super) fn stall(&self, state: &mut State, slot: Slot, message: &Message, from: u32) {
        let Some(Some(outlet)) = state.slots.get_mut(slot.index()) else { return };
        let OnSlow::Block { timeout } = outlet.on_slow else { return };
        if from == 0 && state.patience_over {
            outlet.lose(1);
            state.counts.dropped += 1;
            return;
        }
        let count = state.stalled_count.entry(from).or_default();
        let bytes = state.stalled_bytes + message.weight();
        // A publisher that is asked to wait may have a ring full of the smallest events on their way, or a few
        // of the largest.
        let count_max = STALLED_MAX + self.config.ring_bytes / 32;
        let bytes_max = STALLED_BYTES_MAX.max(4 * self.config.max_message_bytes);
        if *count >= count_max || bytes > bytes_max {
            outlet.lose(1);
            state.counts.dropped += 1;
            return;
        }
        *count += 1;
        state.stalled_bytes = bytes;
        let first = *count == 1;
        state.counts.blocked += 1;
        let until = self.engine.now() + timeout;
        if outlet.stalled.is_empty() {
            state.stalled_slots.push(slot);
        }
        outlet.stalled.push_back(Stalled { message: message.clone(), from, until });
        self.engine.due_changed(until);
        if first
            && from > 0
            && let Some(session) = state.sessions.get(&from).cloned()
        {
            session.paused.store(true, Ordering::Relaxed);
            self.queue(state, &session, &[Kind::Pause as u8]);
        }
    }

    /// A subscription made room: the events that wait for it go on.
    pub(super) fn unstall(&self, state: &mut State, slot: Slot) {
        let mut released = false;
        loop {
            let Some(Some(outlet)) = state.slots.get_mut(slot.index()) else { return };
            let Some(front) = outlet.stalled.front() else { break };
            let message = front.message.clone();
            let sent = match &mut outlet.sink {
                Sink::Local(inlet) => {
                    let inlet = Arc::clone(inlet);
                    let gap = outlet.gap;
                    let mut fits = false;
                    inlet.mailbox.put(|inbox| {
                        fits = !matches!(inbox.push(message.clone(), gap), Pushed::Overflow(_));
                        fits
                    });
                    if fits {
                        outlet.gap = 0;
                        outlet.delivered += 1;
                        outlet.delivered_bytes += message.payload().len() as u64;
                        state.count_delivery(&message);
                    }
                    fits
                }
                Sink::Remote { session, in_flight, .. } => {
                    if *in_flight >= outlet.capacity {
                        false
                    } else {
                        let mut head =
                            message.forward_header(Kind::Event, message.id(), 0, 1).encode().to_vec();
                        encode_targets([Target { id: outlet.key.id, gap: outlet.gap }], &mut head);
                        let session = Arc::clone(session);
                        let sent = session.outbox.lock().send_message(&head, &message);
                        match sent {
                            Ok(Sent::Done) => {
                                state.note_sent(slot, &message);
                                state.touch(&session);
                                true
                            }
                            Ok(Sent::Full) => {
                                self.want_room(&session);
                                false
                            }
                            Err(error) => {
                                self.doom(session.id, error);
                                false
                            }
                        }
                    }
                }
            };
            if !sent {
                break;
            }
            released = true;
            state.pop_stalled(slot);
        }
        state.update_depth(slot);
        if released {
            self.resume_publishers(state);
        } else if state.blocking > 0 {
            self.room.fire(&self.engine);
        }
    }

    /// Lets publishers go on of which nothing waits any more.
    pub(super) fn resume_publishers(&self, state: &mut State) {
        let free: Vec<u32> =
            state.stalled_count.iter().filter(|(_, count)| **count == 0).map(|(from, _)| *from).collect();
        for from in free {
            state.stalled_count.remove(&from);
            if let Some(session) = state.sessions.get(&from).cloned()
                && session.paused.swap(false, Ordering::Relaxed)
            {
                self.queue(state, &session, &[Kind::Resume as u8]);
            }
        }
        self.room.fire(&self.engine);
    }

    pub(super) fn drop_stalled_overdue(&self, state: &mut State, now: Moment) {
        let slots = std::mem::take(&mut state.stalled_slots);
        let mut any = false;
        for slot in slots {
            while let Some(Some(outlet)) = state.slots.get_mut(slot.index())
                && outlet.stalled.front().is_some_and(|front| front.until <= now)
            {
                outlet.lose(1);
                state.counts.dropped += 1;
                state.pop_stalled(slot);
                any = true;
            }
            if let Some(Some(outlet)) = state.slots.get(slot.index())
                && !outlet.stalled.is_empty()
                && !state.stalled_slots.contains(&slot)
            {
                state.stalled_slots.push(slot);
            }
        }
        if any {
            self.resume_publishers(state);
        }
    }

    /// A client freed room in its ring: what waits for it goes on.
    pub(super) fn pump(&self, session: &Arc<Session>) {
        let pumped = session.outbox.lock().pump();
        match pumped {
            Err(error) => return self.doom(session.id, error),
            Ok(false) => {
                self.watch_writable(session, true);
                let _ = session.outbox.lock().flush();
                return;
            }
            Ok(true) => {}
        }
        let mut state = self.state.lock();
        let slots: Vec<Slot> = state
            .slots
            .iter()
            .enumerate()
            .filter(|(_, outlet)| {
                outlet.as_ref().is_some_and(|outlet| {
                    matches!(&outlet.sink, Sink::Remote { session: owner, backlog, .. }
                        if owner.id == session.id && (!backlog.is_empty() || !outlet.stalled.is_empty()))
                })
            })
            .map(|(index, _)| Slot(index as u32))
            .collect();
        let mut waits = false;
        for slot in slots {
            self.unstall(&mut state, slot);
            waits |= !self.pump_backlog(&mut state, session, slot);
        }
        drop(state);
        let mut outbox = session.outbox.lock();
        let flushed = outbox.flush();
        waits |= !outbox.is_flushed();
        drop(outbox);
        if let Err(error) = flushed {
            self.doom(session.id, error);
        }
        self.watch_writable(session, waits);
        self.settle();
        self.room.fire(&self.engine);
    }

    /// Sends a subscription's backlog as far as there is room; true when nothing is left of it.
    pub(super) fn pump_backlog(&self, state: &mut State, session: &Arc<Session>, slot: Slot) -> bool {
        let clock = &self.engine.clock;
        let mut outbox = session.outbox.lock();
        loop {
            let Some(Some(outlet)) = state.slots.get_mut(slot.index()) else { return true };
            let Sink::Remote { backlog, .. } = &mut outlet.sink else { return true };
            if !outbox.is_clear() || backlog.is_empty() {
                break;
            }
            // Room for one event of usual size is made sure of first: what is popped cannot be put back.
            match outbox.has_room(HEADER_BYTES + 8 + crate::wire::CHUNK_BYTES) {
                Ok(true) => {}
                Ok(false) => {
                    if outbox.want_room().unwrap_or(false) {
                        continue;
                    }
                    break;
                }
                Err(error) => {
                    self.doom(session.id, error);
                    return true;
                }
            }
            let Some(delivery) = backlog.pop(clock.wall(), clock.now()) else { break };
            let message = delivery.message;
            let gap = u32::try_from(delivery.gap)
                .unwrap_or(u32::MAX)
                .saturating_add(std::mem::take(&mut outlet.gap));
            let mut head = message.forward_header(Kind::Event, message.id(), 0, 1).encode().to_vec();
            encode_targets([Target { id: outlet.key.id, gap }], &mut head);
            if let Err(error) = outbox.send_message(&head, &message) {
                self.doom(session.id, error);
                return true;
            }
            outlet.delivered += 1;
            outlet.delivered_bytes += message.payload().len() as u64;
            state.counts.delivered += 1;
            state.counts.delivered_bytes += message.payload().len() as u64;
        }
        drop(outbox);
        state.update_depth(slot);
        matches!(&state.slots.get(slot.index()), Some(Some(Outlet { sink: Sink::Remote { backlog, .. }, .. })) if backlog.is_empty())
    }

    pub(super) fn watch_writable(&self, session: &Session, on: bool) {
        if session.transport != "shm" && session.wants_writable.swap(on, Ordering::Relaxed) != on {
            let token = KIND_SOCKET | u64::from(session.id);
            let _ = self.engine.watch_writable(session.socket.as_fd(), token, on);
        }
    }

    /// Something waits for room in this session's ring: the client tells when there is some.
    pub(super) fn want_room(&self, session: &Arc<Session>) {
        let mut outbox = session.outbox.lock();
        // What the client cannot see it cannot take.
        let wanted = outbox.flush().and_then(|()| outbox.want_room());
        drop(outbox);
        match wanted {
            Ok(false) => {}
            // Room came meanwhile: the poller goes on with it.
            Ok(true) => {
                self.retry.lock().push(session.id);
                self.engine.wake_poller();
            }
            Err(error) => self.doom(session.id, error),
        }
    }

    /// Sends a small frame, or keeps it within the session's backlog.
    pub(super) fn queue(&self, state: &mut State, session: &Arc<Session>, body: &[u8]) {
        let queued = session.outbox.lock().queue(body);
        match queued {
            Ok(()) => state.touch(session),
            Err(error) => self.doom(session.id, error),
        }
    }

    /// Whether something went out to a client. An error is that client's, never its publisher's.
    pub(super) fn sent_or_doomed(&self, session: &Session, sent: Result<bool>) -> bool {
        sent.unwrap_or_else(|error| {
            self.doom(session.id, error);
            false
        })
    }

    /// Waits while a subscriber that blocks has no room for an event with this subject, at most as long as
    /// it asked publishers to wait. True when that time is over: the event is then lost for that subscriber.
    ///
    /// # Errors
    /// `Timeout` when the publisher's own patience ends first: the event was not sent to anybody.
    pub(super) fn wait_for_room(
        &self,
        operation: &'static str,
        draft: &Draft<'_>,
        options: &PublishOptions,
        wait: &mut Wait<'_>,
    ) -> Result<bool> {
        let Some(block) = ({
            let mut state = self.state.lock();
            let block = state.blocks_for(draft);
            state.counts.blocked += u64::from(block.is_some());
            block
        }) else {
            return Ok(false);
        };
        let interrupt = wait.interrupt.as_deref_mut().map(|hook| hook as _);
        let mut wait = Wait { timeout: Some(options.timeout.min(block)), interrupt };
        let waited = self.engine.wait_until(operation, &self.room, &mut wait, &mut || {
            if self.engine.is_closed() {
                Some(Err(self.engine.closed_error(operation)))
            } else {
                self.state.lock().blocks_for(draft).is_none().then_some(Ok(()))
            }
        });
        match waited {
            Err(error) if error.kind() == ErrorKind::Timeout && block <= options.timeout => Ok(true),
            other => other.map(|()| false),
        }
    }
}
