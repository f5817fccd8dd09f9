//! How clients come and go: accepting, handshakes, and the end of a session.
#![forbid(unsafe_code)]

use super::*;

impl Host {
    pub(super) fn add_listener(&self, socket: OwnedFd, secret: Option<Arc<[u8]>>, tcp: bool) -> Result<()> {
        let socket = os::fork::guard(socket);
        let mut meeting = self.meeting.lock();
        meeting.next += 1;
        let number = meeting.next;
        self.engine.watch_fd(socket.as_fd(), KIND_LISTENER | u64::from(number), false)?;
        meeting.listeners.insert(number, Listener { socket, secret, tcp });
        Ok(())
    }

    pub(super) fn accept_all(&self, number: u32) {
        let mut meeting = self.meeting.lock();
        let meeting = &mut *meeting;
        while meeting.pending.len() < PENDING_MAX {
            let Some(listener) = meeting.listeners.get(&number) else { return };
            match os::socket::accept(listener.socket.as_fd()) {
                Ok(None) => return,
                Ok(Some(socket)) => {
                    if listener.tcp {
                        let _ = os::socket::tune_tcp(socket.as_fd());
                    }
                    let pending = PendingSession::new(socket, listener.secret.clone(), self.engine.now());
                    meeting.next = meeting.next.wrapping_add(1);
                    let token = meeting.next;
                    if self
                        .engine
                        .watch_fd(pending.socket().as_fd(), KIND_PENDING | u64::from(token), false)
                        .is_ok()
                    {
                        self.engine.due_changed(pending.deadline);
                        meeting.pending.insert(token, pending);
                    }
                }
                Err(error) if error.kind() == ErrorKind::ResourceExhausted => {
                    // Take the client in on the spare descriptor just to tell it why it must go.
                    meeting.spare = None;
                    let refused = os::socket::accept(listener.socket.as_fd());
                    if let Ok(Some(socket)) = refused {
                        PendingSession::new(socket, None, self.engine.now()).refuse(&error);
                        self.state.lock().handshakes_refused += 1;
                    } else {
                        // Another thread was quicker to take it: whoever knocks will go on knocking.
                        self.rest(meeting, self.engine.now() + ACCEPT_REST);
                    }
                    meeting.spare = spare_descriptor();
                    return;
                }
                Err(_) => return,
            }
        }
        self.rest(meeting, Moment(0));
    }

    /// Lets new connections wait in the kernel: a listener that is looked at would not let the poller sleep.
    pub(super) fn rest(&self, meeting: &mut Meeting, until: Moment) {
        for listener in meeting.listeners.values() {
            self.engine.forget_fd(listener.socket.as_fd());
        }
        meeting.rests_until = Some(until);
        self.engine.due_changed(until);
    }

    /// Looks at the listeners again when there is room for another handshake.
    pub(super) fn end_rest(&self, meeting: &mut Meeting, now: Moment) {
        if meeting.rests_until.is_some_and(|until| until <= now) && meeting.pending.len() < PENDING_MAX {
            meeting.rests_until = None;
            for (number, listener) in &meeting.listeners {
                // Fails for one that was added meanwhile and is watched already.
                let _ =
                    self.engine.watch_fd(listener.socket.as_fd(), KIND_LISTENER | u64::from(*number), false);
            }
        }
    }

    pub(super) fn advance(&self, token: u32) {
        let step = {
            let mut meeting = self.meeting.lock();
            let Some(mut pending) = meeting.pending.remove(&token) else { return };
            let sessions = self.state.lock().sessions.len();
            let limit = self.config.max_sessions;
            let next = &mut meeting.next_session;
            let step = pending.advance(&self.handshake, &mut || {
                if sessions >= limit {
                    return Err(Error::new(ErrorKind::ResourceExhausted, "session.handshake")
                        .with("sessions", sessions)
                        .with("limit", limit));
                }
                *next += 1;
                Ok(*next)
            });
            if let Step::Wait = step {
                meeting.pending.insert(token, pending);
            } else {
                self.end_rest(&mut meeting, self.engine.now());
            }
            step
        };
        match step {
            Step::Wait => {}
            Step::Done(accepted) => {
                if self.take_in(*accepted).is_err() {
                    self.state.lock().handshakes_refused += 1;
                }
            }
            Step::Failed(_) => self.state.lock().handshakes_refused += 1,
        }
    }

    pub(super) fn take_in(&self, accepted: Accepted) -> Result<()> {
        let Accepted { session: id, hello, socket, pidfd, cred, bells, transport } = accepted;
        let counters = Arc::new(LinkCounters::default());
        let shm = bells.is_some();
        let backlog_bytes_max = 2 * self.config.max_message_bytes;
        let session = Arc::new(Session {
            id,
            outbox: Mutex::new(Outbox::new(transport.sender, backlog_bytes_max)),
            socket: Arc::clone(&socket),
            pidfd,
            bells: bells.clone(),
            name: hello.name.chars().filter(|c| !c.is_control()).take(255).collect(),
            language: hello.language.chars().filter(char::is_ascii_alphanumeric).take(32).collect(),
            version: hello.version.chars().filter(|c| !c.is_control()).take(64).collect(),
            // The kernel's word, not the client's, where there is one.
            pid: cred.map_or(hello.pid, |cred| cred.pid as u32),
            transport: transport.name,
            counters: Arc::clone(&counters),
            touched: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            dead: AtomicBool::new(false),
            wants_writable: AtomicBool::new(false),
        });
        {
            let mut state = self.state.lock();
            if state.closing {
                return Err(Error::new(ErrorKind::Closed, "session.handshake"));
            }
            state.sessions.insert(id, Arc::clone(&session));
        }
        self.engine.add_link(Link {
            session: id,
            receiver: transport.receiver,
            assembler: Assembler::with_spare(self.frame_bytes_max(), self.engine.spare()),
            counters,
            socket: !shm,
            readable: !shm,
        });
        // The socket is watched already, under the handshake's token.
        let watched = self.engine.rewatch_fd(socket.as_fd(), KIND_SOCKET | u64::from(id)).and_then(|()| {
            if let Some(pidfd) = &session.pidfd {
                self.engine.watch_fd(pidfd.as_fd(), KIND_PIDFD | u64::from(id), false)?;
            }
            if let Some((poller, leader)) = &bells {
                self.engine.watch_fd(poller.as_fd(), KIND_BELL | u64::from(id), true)?;
                self.engine.watch_leader_bell(leader.as_fd(), KIND_BELL | u64::from(id))?;
            }
            Ok(())
        });
        if let Err(error) = watched.and_then(|()| Accepted::announce(&session.socket)) {
            self.doom(id, error);
        }
        Ok(())
    }

    /// Marks a session for ending by the poller: for places that hold locks.
    pub(super) fn doom(&self, session: u32, error: Error) {
        self.doomed.lock().push((session, error));
        self.engine.wake_poller();
    }

    pub(super) fn end_doomed(&self) {
        let doomed = std::mem::take(&mut *self.doomed.lock());
        for (session, error) in doomed {
            self.engine.remove_link(session);
            self.end_session(session, &error);
        }
    }

    pub(super) fn end_session(&self, id: u32, error: &Error) {
        let mut state = self.state.lock();
        let Some(session) = state.sessions.remove(&id) else { return };
        session.dead.store(true, Ordering::Release);
        if error.kind() == ErrorKind::Protocol {
            state.protocol_violations += 1;
        }
        if matches!(error.kind(), ErrorKind::Protocol | ErrorKind::Full) {
            // The client lives and should know why; one that does not read will see the socket close.
            let _ = os::socket::send_some(
                session.socket.as_fd(),
                &crate::wire::handshake::encode(&Refusal::of(error)),
            );
        }
        os::socket::shut_down(session.socket.as_fd());
        if let Some((poller, leader)) = &session.bells {
            // The client has them too: as long as it lives, closing ours would not stop it from ringing.
            self.engine.forget_fd(poller.as_fd());
            self.engine.forget_leader_bell(leader.as_fd());
        }
        for (_, slot) in state.bus.owner_gone(id) {
            self.drop_outlet(&mut state, slot);
        }
        state.forget_stalled_from(id);
        let mut effects = std::mem::take(&mut state.effects);
        let now = self.engine.now();
        state.rpc.owner_gone(id, now, &mut effects);
        self.run(&mut state, &mut effects, now);
        state.effects = effects;
        drop(state);
        self.session_gone(id);
        self.room.fire(&self.engine);
        self.settle();
    }

    /// A client's process or socket ended: what it still sent is taken, then the session ends.
    pub(super) fn gone(&self, id: u32) {
        if let Some(session) = self.state.lock().sessions.get(&id)
            && let Some(pidfd) = &session.pidfd
        {
            self.engine.forget_fd(pidfd.as_fd());
        }
        self.engine.finish_link(id);
        let pid = self.state.lock().sessions.get(&id).map_or(0, |session| session.pid);
        self.end_session(id, &Error::new(ErrorKind::PeerGone, "session.receive").with("pid", pid));
    }
}
