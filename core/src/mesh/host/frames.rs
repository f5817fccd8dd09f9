//! What clients send: each frame is checked, then done.
#![forbid(unsafe_code)]

use super::{super::queue::SERVICE, *};

impl Host {
    pub(super) fn frame(
        &self,
        state: &mut State,
        session: &Arc<Session>,
        block: &Arc<Vec<u8>>,
        start: usize,
        end: usize,
        now: Moment,
    ) -> Result<()> {
        let body = block.get(start..end).unwrap_or_default();
        let violation =
            |what: &'static str| Error::new(ErrorKind::Protocol, "session.receive").with("violation", what);
        match Kind::of(body)? {
            Kind::Event => {
                let message = Message::decode(block, start, end)?;
                name::check_publishable(message.subject(), "session.receive")
                    .map_err(|error| violation("an event with an invalid subject").because(error))?;
                self.check_size(&message)?;
                if self.accept_event(state, message, session.id).is_err() {
                    // Too many delayed events: the publisher is told by the counter and by its own stats.
                    state.counts.dropped += 1;
                }
                Ok(())
            }
            Kind::Events => {
                let batch = Batch::decode(block, start, end)?;
                name::check_publishable(batch.subject(), "session.receive")
                    .map_err(|error| violation("an event with an invalid subject").because(error))?;
                batch.events().try_for_each(|message| self.check_size(&message))?;
                self.accept_batch(state, &batch, session.id);
                Ok(())
            }
            Kind::Request => {
                let message = Message::decode(block, start, end)?;
                self.check_size(&message)?;
                if message.subject() == SERVICE {
                    state.asked.push(Asked::Request(Arc::clone(session), message));
                    return Ok(());
                }
                let caller = CallerKey { owner: session.id, call: message.id() };
                let timeout = Duration::from_millis(message.aux().into());
                let mut effects = std::mem::take(&mut state.effects);
                let service = message.subject().to_owned();
                state.rpc.request(caller, &service, message, timeout, now, &mut effects);
                self.run(state, &mut effects, now);
                state.effects = effects;
                Ok(())
            }
            kind @ (Kind::Response | Kind::Failure) => {
                let message = Message::decode(block, start, end)?;
                self.check_size(&message)?;
                let call = message.id();
                let result = if kind == Kind::Response { Ok(message) } else { Err(message.to_error()) };
                let mut effects = std::mem::take(&mut state.effects);
                state.rpc.respond(session.id, call, result, now, &mut effects);
                self.run(state, &mut effects, now);
                state.effects = effects;
                Ok(())
            }
            Kind::Cancel => {
                let Cancel { call } = Cancel::decode(body)?;
                state.asked.push(Asked::GiveUp(session.id, call));
                let mut effects = std::mem::take(&mut state.effects);
                state.rpc.cancel(CallerKey { owner: session.id, call }, now, &mut effects);
                self.run(state, &mut effects, now);
                state.effects = effects;
                Ok(())
            }
            Kind::Credit => {
                let credit = Credit::decode(body)?;
                let key = SubscriptionKey { owner: session.id, id: credit.subscription };
                // A subscription that is over may still be credited by frames under way.
                let Some(slot) = state.bus.slot(key) else { return Ok(()) };
                if let Some(Some(Outlet { sink: Sink::Remote { in_flight, .. }, .. })) =
                    state.slots.get_mut(slot.index())
                {
                    let count = credit.count as usize;
                    if count > *in_flight {
                        return Err(violation("credit for more events than were sent"));
                    }
                    *in_flight -= count;
                }
                self.unstall(state, slot);
                Ok(())
            }
            Kind::Control => {
                let reply = match Control::decode(body) {
                    Ok(control) => self.control(state, session, control, now),
                    Err(error) if error.kind() == ErrorKind::Unsupported => ControlReply {
                        seq: error.get("seq").and_then(|seq| seq.parse().ok()).unwrap_or(0),
                        error: Some(Refusal::of(&error)),
                        ..ControlReply::default()
                    },
                    Err(error) => return Err(error),
                };
                let body = reply.encode();
                self.queue(state, session, &body);
                Ok(())
            }
            Kind::Bye => Err(Error::new(ErrorKind::Disconnected, "session.receive")),
            Kind::CancelJob | Kind::Chunk | Kind::Pause | Kind::Resume | Kind::ControlReply => {
                Err(violation("a frame only a host sends"))
            }
        }
    }

    pub(super) fn check_size(&self, message: &Message) -> Result<()> {
        let limit = self.config.max_message_bytes;
        if message.payload().len() > limit {
            return Err(Error::new(ErrorKind::Protocol, "session.receive")
                .with("payload_bytes", message.payload().len())
                .with("limit_bytes", limit));
        }
        Ok(())
    }

    pub(super) fn control(
        &self,
        state: &mut State,
        session: &Arc<Session>,
        control: Control,
        now: Moment,
    ) -> ControlReply {
        let mut reply = ControlReply { seq: control.seq, ..ControlReply::default() };
        if let Err(error) = self.try_control(state, session, control.request, now, &mut reply) {
            reply.error = Some(Refusal::of(&error));
        }
        reply
    }

    pub(super) fn try_control(
        &self,
        state: &mut State,
        session: &Arc<Session>,
        request: ControlRequest,
        now: Moment,
        reply: &mut ControlReply,
    ) -> Result<()> {
        match request {
            ControlRequest::Subscribe {
                subscription,
                pattern,
                group,
                priority,
                policy,
                capacity,
                block_ms,
            } => {
                let pattern = Pattern::parse(&pattern)?;
                let options = SubscribeOptions {
                    group: if group.is_empty() { None } else { Some(Name::parse(&group)?) },
                    priority,
                    on_slow: match policy {
                        1 => OnSlow::Block { timeout: Duration::from_millis(block_ms.into()) },
                        2 => OnSlow::Disconnect,
                        _ => OnSlow::DropOldest,
                    },
                    capacity: capacity as usize,
                    retry: None,
                };
                let backlog = Box::new(Inbox::new(options.capacity.max(1), options.on_slow, None));
                let credited = policy == 1 || options.group.is_some();
                let sink = Sink::Remote { session: Arc::clone(session), backlog, in_flight: 0, credited };
                let key = SubscriptionKey { owner: session.id, id: subscription };
                self.subscribe_outlet(state, key, &pattern, &options, sink)
            }
            ControlRequest::Unsubscribe { subscription } => {
                let key = SubscriptionKey { owner: session.id, id: subscription };
                if let Some(slot) = state.bus.unsubscribe(key) {
                    self.drop_outlet(state, slot);
                }
                Ok(())
            }
            ControlRequest::Serve { instance, name, version, concurrency, queue, rate, burst } => {
                let name = Name::parse(&name)?;
                let options = ServeOptions {
                    version,
                    concurrency,
                    queue,
                    rate: (rate > 0.0).then_some(crate::rpc::RateLimit { per_second: rate, burst }),
                };
                let key = InstanceKey { owner: session.id, id: instance };
                let who = InstanceWho { pid: session.pid, client: session.name.clone() };
                let mut effects = std::mem::take(&mut state.effects);
                let served = state.rpc.serve(key, &name, options, who, now, &mut effects);
                self.run(state, &mut effects, now);
                state.effects = effects;
                served
            }
            ControlRequest::Unserve { instance } => {
                let mut effects = std::mem::take(&mut state.effects);
                state.rpc.unserve(InstanceKey { owner: session.id, id: instance }, now, &mut effects);
                self.run(state, &mut effects, now);
                state.effects = effects;
                Ok(())
            }
            ControlRequest::Services => {
                reply.services = state.rpc.services();
                self.name_sessions(state, &mut reply.services);
                Ok(())
            }
            ControlRequest::Stats => {
                reply.stats = Some(self.collect(state));
                Ok(())
            }
            ControlRequest::Ping => Ok(()),
        }
    }

    pub(super) fn name_sessions(&self, _state: &State, services: &mut [ServiceInfo]) {
        for instance in services.iter_mut().flat_map(|service| &mut service.instances) {
            if instance.session == 0 {
                instance.pid = std::process::id();
                instance.client.clone_from(&self.config.name);
            }
        }
    }

    pub(super) fn collect(&self, state: &State) -> Stats {
        let mut counts = state.counts.clone();
        counts.delayed = state.delayed.len() as u64;
        counts.expired += state.gone_expired;
        let mut subscriptions = Vec::new();
        for (slot, subscription) in state.bus.iter() {
            let Some(Some(outlet)) = state.slots.get(slot.index()) else { continue };
            let depth = match &outlet.sink {
                Sink::Local(inlet) => {
                    let inner = inlet.mailbox.lock();
                    counts.expired += inner.queue.stats().expired;
                    inner.queue.len()
                }
                Sink::Remote { backlog, in_flight, .. } => {
                    counts.expired += backlog.stats().expired;
                    backlog.len() + in_flight
                }
            };
            subscriptions.push(SubscriptionStats {
                pattern: subscription.pattern.as_str().to_owned(),
                group: subscription
                    .options
                    .group
                    .as_ref()
                    .map_or_else(String::new, |group| group.as_str().to_owned()),
                session: subscription.key.owner,
                delivered: outlet.delivered,
                delivered_bytes: outlet.delivered_bytes,
                dropped: outlet.dropped,
                depth: (depth + outlet.stalled.len()) as u64,
            });
        }
        let mut sessions: Vec<SessionStats> = state
            .sessions
            .values()
            .map(|session| {
                let outbox = session.outbox.lock();
                SessionStats {
                    session: session.id,
                    name: session.name.clone(),
                    language: session.language.clone(),
                    version: session.version.clone(),
                    pid: session.pid,
                    transport: session.transport.to_owned(),
                    // Relaxed: counters.
                    frames_in: session.counters.frames.load(Ordering::Relaxed),
                    bytes_in: session.counters.bytes.load(Ordering::Relaxed),
                    frames_out: outbox.frames,
                    bytes_out: outbox.bytes,
                    backlog_bytes: outbox.backlog_bytes() as u64,
                }
            })
            .collect();
        sessions.sort_by_key(|session| session.session);
        Stats {
            uptime_ms: u64::try_from(self.engine.now().since(self.opened).as_millis()).unwrap_or(u64::MAX),
            bus: counts,
            subscriptions,
            services: state.rpc.stats(),
            sessions,
            protocol_violations: state.protocol_violations,
            handshakes_refused: state.handshakes_refused,
        }
    }
}
