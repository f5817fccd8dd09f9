//! Carrying out what the table of services decided.
#![forbid(unsafe_code)]

use super::*;

impl Host {
    pub(super) fn run(&self, state: &mut State, effects: &mut Vec<Effect>, now: Moment) {
        // Running an effect never makes another, so one pass is enough.
        for effect in effects.drain(..) {
            match effect {
                Effect::Deliver { instance, call, message, remaining } => {
                    if instance.owner == 0 {
                        if let Some(inbox) = state.services.get(&instance.id) {
                            let cancelled = Arc::new(CancelFlag::default());
                            state.requests.insert(call, Arc::clone(&cancelled));
                            let arrived = Arrived { call, message, deadline: now + remaining, cancelled };
                            inbox.mailbox.put(|calls| {
                                calls.push_back(arrived);
                                true
                            });
                        }
                    } else if let Some(session) = state.sessions.get(&instance.owner).cloned() {
                        // Rounded up: an instance must not see the deadline pass before this host does.
                        let remaining_ms = remaining.as_nanos().div_ceil(1_000_000);
                        let aux = u32::try_from(remaining_ms).unwrap_or(u32::MAX).max(1);
                        let header = message.forward_header(Kind::Request, call, aux, 1);
                        let mut target = [0; 8];
                        target[..4].copy_from_slice(&instance.id.to_le_bytes());
                        self.queue_message(state, &session, &header, &target, &message);
                    }
                }
                Effect::Answer { caller, result } => {
                    if caller.owner == 0 {
                        if let Some(mailbox) = state.calls.remove(&caller.call) {
                            complete(&mailbox, result);
                        }
                    } else if let Some(session) = state.sessions.get(&caller.owner).cloned() {
                        match result {
                            Ok(message) => {
                                let header = message.forward_header(Kind::Response, caller.call, 0, 0);
                                self.queue_message(state, &session, &header, &[], &message);
                            }
                            Err(error) => self.queue(state, &session, &failure(caller.call, &error)),
                        }
                    }
                }
                Effect::Cancel { instance, call } => {
                    if instance.owner == 0 {
                        if let Some(cancelled) = state.requests.get(&call) {
                            cancelled.cancel();
                        }
                    } else if let Some(session) = state.sessions.get(&instance.owner).cloned() {
                        self.queue(state, &session, &Cancel { call }.encode());
                    }
                }
            }
        }
        if let Some(due) = state.rpc.next_due() {
            self.engine.due_changed(due);
        }
    }

    pub(super) fn queue_message(
        &self,
        state: &mut State,
        session: &Arc<Session>,
        header: &crate::wire::MessageHeader,
        targets: &[u8],
        message: &Message,
    ) {
        let queued = session.outbox.lock().queue_message(header, targets, message);
        match queued {
            Ok(()) => state.touch(session),
            Err(error) => self.doom(session.id, error),
        }
    }

    pub(super) fn with_rpc(&self, act: impl FnOnce(&mut Rpc, Moment, &mut Vec<Effect>)) {
        let mut state = self.state.lock();
        let now = self.engine.now();
        let mut effects = std::mem::take(&mut state.effects);
        act(&mut state.rpc, now, &mut effects);
        self.run(&mut state, &mut effects, now);
        state.effects = effects;
        drop(state);
        self.settle();
    }
}
