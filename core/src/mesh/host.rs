//! The host: routes events, brings calls to instances, and takes clients in.
//!
//! One lock guards the routing tables; nothing waits while it is held. What a slow client has no room
//! for is kept per subscription, within its capacity, or in the session's bounded backlog.
#![forbid(unsafe_code)]

use super::{
    backend::{Answer, Backend, Started},
    call::{CallState, complete},
    engine::{Engine, Link, LinkCounters, Side},
    options::PublishOptions,
    service::{Arrived, CancelFlag, ServiceInbox},
    subscription::Inlet,
    wait::{Mailbox, Signal, Wait},
};
use crate::{
    bus::{Bus, Delayed, Inbox, OnSlow, Pushed, Slot, SubscribeOptions, SubscriptionKey},
    clock::{Clock, Moment, Timestamp},
    error::{Error, ErrorKind, Result},
    name::{self, Name, Pattern},
    os::{self, epoll::Event, fork::GuardedFd, lock::DirLock},
    rpc::{CallerKey, Effect, InstanceKey, InstanceWho, Rpc, RpcLimits, ServeOptions},
    session::{
        Accepted, Assembler, HandshakeConfig, Outbox, PendingSession, SOCKET_FILE, Sent, Socket, Step,
        check_secret,
    },
    shm::{AttentionPage, WaitStrategy},
    stats::{BusStats, ServiceInfo, SessionStats, Stats, SubscriptionStats},
    sync::{AtomicBool, AtomicU32, AtomicU64, Ordering, spin_loop},
    wire::{
        Cancel, Control, ControlReply, Credit, Draft, HEADER_BYTES, Kind, Message, Target,
        control::Request as ControlRequest, encode_targets, handshake::Refusal,
    },
};
use hashbrown::HashMap;
use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    net::{SocketAddr, TcpListener},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::Arc,
    time::Duration,
};

/// How a host is set up.
#[derive(Clone, Debug)]
pub(super) struct HostConfig {
    pub(super) name: String,
    pub(super) language: &'static str,
    pub(super) ring_bytes: usize,
    pub(super) max_message_bytes: usize,
    pub(super) max_sessions: usize,
    pub(super) strategy: WaitStrategy,
}

pub(super) struct Host {
    engine: Arc<Engine>,
    config: HostConfig,
    handshake: HandshakeConfig,
    state: Mutex<State>,
    /// Fires when a subscriber that blocked made room.
    room: Signal,
    meeting: Mutex<Meeting>,
    doomed: Mutex<Vec<(u32, Error)>>,
    /// Sessions whose backlogs the poller should try again.
    retry: Mutex<Vec<u32>>,
    next_message: AtomicU64,
    next_number: AtomicU32,
    opened: Moment,
    /// Held while the host lives; its file names this process.
    lock: Mutex<Option<DirLock>>,
}

/// Connections on their way to becoming sessions.
#[derive(Default)]
struct Meeting {
    listeners: HashMap<u32, Listener>,
    pending: HashMap<u32, PendingSession>,
    next: u32,
    next_session: u32,
    /// Listeners are not looked at before this: too many handshakes are under way, or no descriptor is left.
    rests_until: Option<Moment>,
    /// Given up for a moment to accept and refuse a client when the descriptor table is full.
    spare: Option<OwnedFd>,
}

struct Listener {
    socket: GuardedFd,
    secret: Option<Arc<[u8]>>,
    tcp: bool,
}

struct State {
    bus: Bus,
    rpc: Rpc,
    delayed: Delayed<(Message, u32)>,
    slots: Vec<Option<Outlet>>,
    stalled_slots: Vec<Slot>,
    /// The local publisher of the event at hand has waited for room as long as it should.
    patience_over: bool,
    /// Subscriptions that block; while there are none, nobody asks.
    blocking: usize,
    stalled_count: HashMap<u32, usize>,
    sessions: HashMap<u32, Arc<Session>>,
    inlets: HashMap<u32, Arc<Inlet>>,
    services: HashMap<u32, Arc<ServiceInbox>>,
    calls: HashMap<u64, Arc<Mailbox<CallState>>>,
    requests: HashMap<u64, Arc<CancelFlag>>,
    touched: Vec<Arc<Session>>,
    effects: Vec<Effect>,
    fan: Vec<Fan>,
    scratch: Vec<Slot>,
    counts: BusStats,
    /// Counts of subscriptions that are over, so that totals never fall.
    gone_expired: u64,
    protocol_violations: u64,
    handshakes_refused: u64,
    closing: bool,
}

/// The targets of one event in one session.
struct Fan {
    session: Arc<Session>,
    slots: Vec<Slot>,
}

/// One client.
pub(super) struct Session {
    id: u32,
    outbox: Mutex<Outbox>,
    socket: Socket,
    pidfd: Option<GuardedFd>,
    bells: Option<(Arc<os::eventfd::EventFd>, Arc<os::eventfd::EventFd>)>,
    name: String,
    language: String,
    version: String,
    pid: u32,
    transport: &'static str,
    counters: Arc<LinkCounters>,
    touched: AtomicBool,
    paused: AtomicBool,
    dead: AtomicBool,
    wants_writable: AtomicBool,
}

/// Where a subscription's events go.
struct Outlet {
    key: SubscriptionKey,
    on_slow: OnSlow,
    capacity: usize,
    sink: Sink,
    stalled: VecDeque<Stalled>,
    delivered: u64,
    delivered_bytes: u64,
    dropped: u64,
    /// Events lost that the client has not been told of.
    gap: u32,
}

enum Sink {
    Local(Arc<Inlet>),
    Remote { session: Arc<Session>, backlog: Box<Inbox>, in_flight: usize, credited: bool },
}

/// An event a blocking subscriber has no room for; its publisher waits.
struct Stalled {
    message: Message,
    from: u32,
    until: Moment,
}

const KIND_SOCKET: u64 = 1 << 32;
const KIND_PIDFD: u64 = 2 << 32;
const KIND_BELL: u64 = 3 << 32;
const KIND_PENDING: u64 = 4 << 32;
const KIND_LISTENER: u64 = 5 << 32;
const KIND_MASK: u64 = !0 << 32;

/// Handshakes under way at once; further connections wait in the kernel's queue.
const PENDING_MAX: usize = 64;
/// How long nobody is taken in when the descriptor table is full.
const ACCEPT_REST: Duration = Duration::from_millis(10);
/// Events routed before others get their turn at the tables.
const BATCH: usize = 256;
/// Larger payloads go in chunks, or through a message that several subscriptions share.
const DIRECT_BYTES_MAX: usize = 32 * 1024;
/// How often a publisher of a large event looks for room, about a microsecond apart, before it leaves the
/// rest to the poller.
const ROOM_LOOKS: u32 = 200;
/// Events of one publisher that may wait for subscribers that block, whatever the publisher does.
const STALLED_MAX: usize = 65_536;

impl Host {
    pub(super) fn open(directory: &Path, config: HostConfig) -> Result<Arc<Self>> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .create(directory)
            .map_err(|error| Error::from_io("mesh.open", error).with("directory", directory.display()))?;
        let lock = DirLock::acquire(directory)?;
        let attention = AttentionPage::create("flowmesh-attention")?;
        let engine = Engine::new(true, config.strategy, Some(attention.waiting_writer()))?;
        let handshake = HandshakeConfig {
            language: config.language,
            ring_bytes: config.ring_bytes,
            max_message_bytes: config.max_message_bytes,
            attention,
        };
        let host = Arc::new(Self {
            opened: engine.now(),
            engine: Arc::clone(&engine),
            config,
            handshake,
            state: Mutex::new(State::new()),
            room: Signal::default(),
            meeting: Mutex::new(Meeting { spare: spare_descriptor(), ..Meeting::default() }),
            doomed: Mutex::default(),
            retry: Mutex::default(),
            next_message: AtomicU64::new(1),
            next_number: AtomicU32::new(1),
            lock: Mutex::new(Some(lock)),
        });
        // We hold the directory, so a socket that lies there belongs to a host that is gone.
        let _ = std::fs::remove_file(directory.join(SOCKET_FILE));
        let listener = os::socket::listen_unix(directory, SOCKET_FILE)?;
        listener.set_nonblocking(true).map_err(|error| Error::from_io("mesh.open", error))?;
        host.add_listener(listener.into(), None, false)?;
        engine.start(Arc::clone(&host) as Arc<dyn Side>, "flowmesh-host")?;
        Ok(host)
    }

    fn add_listener(&self, socket: OwnedFd, secret: Option<Arc<[u8]>>, tcp: bool) -> Result<()> {
        let socket = os::fork::guard(socket);
        let mut meeting = self.meeting.lock();
        meeting.next += 1;
        let number = meeting.next;
        self.engine.watch_fd(socket.as_fd(), KIND_LISTENER | u64::from(number), false)?;
        meeting.listeners.insert(number, Listener { socket, secret, tcp });
        Ok(())
    }

    // ---- meeting clients

    fn accept_all(&self, number: u32) {
        let mut meeting = self.meeting.lock();
        let meeting = &mut *meeting;
        while meeting.pending.len() < PENDING_MAX {
            let Some(listener) = meeting.listeners.get(&number) else { return };
            match os::socket::accept(listener.socket.as_fd()) {
                Ok(None) => return,
                Ok(Some(socket)) => {
                    if listener.tcp {
                        let _ = os::socket::set_nodelay(socket.as_fd());
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
    fn rest(&self, meeting: &mut Meeting, until: Moment) {
        for listener in meeting.listeners.values() {
            self.engine.forget_fd(listener.socket.as_fd());
        }
        meeting.rests_until = Some(until);
        self.engine.due_changed(until);
    }

    /// Looks at the listeners again when there is room for another handshake.
    fn end_rest(&self, meeting: &mut Meeting, now: Moment) {
        if meeting.rests_until.is_some_and(|until| until <= now) && meeting.pending.len() < PENDING_MAX {
            meeting.rests_until = None;
            for (number, listener) in &meeting.listeners {
                // Fails for one that was added meanwhile and is watched already.
                let _ =
                    self.engine.watch_fd(listener.socket.as_fd(), KIND_LISTENER | u64::from(*number), false);
            }
        }
    }

    fn advance(&self, token: u32) {
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

    fn take_in(&self, accepted: Accepted) -> Result<()> {
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
            assembler: Assembler::new(self.frame_bytes_max()),
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

    fn frame_bytes_max(&self) -> usize {
        self.config.max_message_bytes + 64 * 1024
    }

    // ---- the end of a session

    /// Marks a session for ending by the poller: for places that hold locks.
    fn doom(&self, session: u32, error: Error) {
        self.doomed.lock().push((session, error));
        self.engine.wake_poller();
    }

    /// Whether something went out to a client. An error is that client's, never its publisher's.
    fn sent_or_doomed(&self, session: &Session, sent: Result<bool>) -> bool {
        sent.unwrap_or_else(|error| {
            self.doom(session.id, error);
            false
        })
    }

    fn end_doomed(&self) {
        let doomed = std::mem::take(&mut *self.doomed.lock());
        for (session, error) in doomed {
            self.engine.remove_link(session);
            self.end_session(session, &error);
        }
    }

    fn end_session(&self, id: u32, error: &Error) {
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
        self.room.fire(&self.engine);
        self.settle();
    }

    // ---- events

    /// Takes an event in: routes it, or keeps it until its delay has passed.
    fn accept_event(&self, state: &mut State, message: Message, from: u32) -> Result<()> {
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

    fn route(&self, state: &mut State, message: &Message, from: u32) {
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
    fn gather(&self, state: &mut State, slot: Slot) -> bool {
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

    fn send_fans(&self, state: &mut State, message: &Message, from: u32) {
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
    fn offer(&self, state: &mut State, slot: Slot, message: &Message, from: u32) {
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

    fn overflow(&self, state: &mut State, slot: Slot, message: &Message, from: u32) {
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

    fn end_subscription(&self, state: &mut State, key: SubscriptionKey, error: &Error) {
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

    fn stall(&self, state: &mut State, slot: Slot, message: &Message, from: u32) {
        let Some(Some(outlet)) = state.slots.get_mut(slot.index()) else { return };
        let OnSlow::Block { timeout } = outlet.on_slow else { return };
        if from == 0 && state.patience_over {
            outlet.lose(1);
            state.counts.dropped += 1;
            return;
        }
        let count = state.stalled_count.entry(from).or_default();
        if *count >= STALLED_MAX {
            outlet.lose(1);
            state.counts.dropped += 1;
            return;
        }
        *count += 1;
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
    fn unstall(&self, state: &mut State, slot: Slot) {
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
    fn resume_publishers(&self, state: &mut State) {
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

    fn drop_stalled_overdue(&self, state: &mut State, now: Moment) {
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

    fn drop_outlet(&self, state: &mut State, slot: Slot) {
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

    fn subscribe_outlet(
        &self,
        state: &mut State,
        key: SubscriptionKey,
        pattern: &Pattern,
        options: &SubscribeOptions,
        sink: Sink,
    ) -> Result<()> {
        let slot = state.bus.subscribe(key, pattern, options)?;
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
        });
        Ok(())
    }

    /// A client freed room in its ring: what waits for it goes on.
    fn pump(&self, session: &Arc<Session>) {
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
    fn pump_backlog(&self, state: &mut State, session: &Arc<Session>, slot: Slot) -> bool {
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

    fn watch_writable(&self, session: &Session, on: bool) {
        if session.transport != "shm" && session.wants_writable.swap(on, Ordering::Relaxed) != on {
            let token = KIND_SOCKET | u64::from(session.id);
            let _ = self.engine.watch_writable(session.socket.as_fd(), token, on);
        }
    }

    /// Something waits for room in this session's ring: the client tells when there is some.
    fn want_room(&self, session: &Arc<Session>) {
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
    fn queue(&self, state: &mut State, session: &Arc<Session>, body: &[u8]) {
        let queued = session.outbox.lock().queue(body);
        match queued {
            Ok(()) => state.touch(session),
            Err(error) => self.doom(session.id, error),
        }
    }

    // ---- calls

    fn run(&self, state: &mut State, effects: &mut Vec<Effect>, now: Moment) {
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

    fn queue_message(
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

    fn with_rpc(&self, act: impl FnOnce(&mut Rpc, Moment, &mut Vec<Effect>)) {
        let mut state = self.state.lock();
        let now = self.engine.now();
        let mut effects = std::mem::take(&mut state.effects);
        act(&mut state.rpc, now, &mut effects);
        self.run(&mut state, &mut effects, now);
        state.effects = effects;
        drop(state);
        self.settle();
    }

    // ---- frames of clients

    fn frame(
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
                if let Err(error) = self.accept_event(state, message, session.id) {
                    // Too many delayed events: the publisher is told by the counter and by its own stats.
                    state.counts.dropped += 1;
                    let _ = error;
                }
                Ok(())
            }
            Kind::Request => {
                let message = Message::decode(block, start, end)?;
                self.check_size(&message)?;
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
            Kind::Chunk | Kind::Pause | Kind::Resume | Kind::ControlReply => {
                Err(violation("a frame only a host sends"))
            }
        }
    }

    fn check_size(&self, message: &Message) -> Result<()> {
        let limit = self.config.max_message_bytes;
        if message.payload().len() > limit {
            return Err(Error::new(ErrorKind::Protocol, "session.receive")
                .with("payload_bytes", message.payload().len())
                .with("limit_bytes", limit));
        }
        Ok(())
    }

    fn control(
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

    fn try_control(
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

    fn name_sessions(&self, _state: &State, services: &mut [ServiceInfo]) {
        for instance in services.iter_mut().flat_map(|service| &mut service.instances) {
            if instance.session == 0 {
                instance.pid = std::process::id();
                instance.client.clone_from(&self.config.name);
            }
        }
    }

    fn collect(&self, state: &State) -> Stats {
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

    /// Sends a large event chunk by chunk from its publisher's memory while the one subscriber takes it, if
    /// nothing stands in the way; what finds no room for a while is copied and follows by itself.
    fn publish_large(&self, draft: &Draft<'_>) -> bool {
        let (session, head) = {
            let mut state = self.state.lock();
            let Some((slot, session)) = state.direct(draft) else { return false };
            if !session.outbox.lock().is_clear() {
                return false;
            }
            let Some(head) = state.head_of(slot, draft) else { return false };
            state.note_direct(slot, draft);
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

    fn number(&self) -> u32 {
        // Relaxed: only uniqueness matters.
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    fn stamp(&self, draft: &mut Draft<'_>) {
        draft.id = self.next_message.fetch_add(1, Ordering::Relaxed);
        draft.timestamp = self.engine.clock.wall();
    }

    /// Waits while a subscriber that blocks has no room for an event with this subject, at most as long as
    /// it asked publishers to wait. True when that time is over: the event is then lost for that subscriber.
    ///
    /// # Errors
    /// `Timeout` when the publisher's own patience ends first: the event was not sent to anybody.
    fn wait_for_room(
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

/// In the flags of a failure frame: its number is a subscription's.
pub(super) const SUBSCRIPTION_ENDED: u8 = 1;

/// The frame that carries an error as a call's result.
pub(super) fn failure(call: u64, error: &Error) -> Vec<u8> {
    // An error's values are short; one that is not is left out rather than refused.
    let headers =
        Draft::encode_headers(error.context().filter(|(_, value)| value.len() <= 8192), "mesh.answer")
            .unwrap_or_default();
    let operation: String = error.operation().chars().take(64).collect();
    let draft = Draft {
        headers: &headers,
        aux: error.kind().number() as u32,
        ..Draft::new(Kind::Failure, call, &operation, b"")
    };
    draft.encode()
}

fn spare_descriptor() -> Option<OwnedFd> {
    std::fs::File::open("/dev/null").ok().map(OwnedFd::from)
}

impl Outlet {
    fn lose(&mut self, count: u32) {
        self.dropped += u64::from(count);
        self.gap = self.gap.saturating_add(count);
        // A local subscriber hears of it with its next event.
    }
}

impl State {
    fn new() -> Self {
        Self {
            bus: Bus::default(),
            rpc: Rpc::new(RpcLimits::default()),
            delayed: Delayed::new(crate::bus::COUNT_MAX_DEFAULT, crate::bus::BYTES_MAX_DEFAULT),
            slots: Vec::new(),
            stalled_slots: Vec::new(),
            patience_over: false,
            blocking: 0,
            stalled_count: HashMap::new(),
            sessions: HashMap::new(),
            inlets: HashMap::new(),
            services: HashMap::new(),
            calls: HashMap::new(),
            requests: HashMap::new(),
            touched: Vec::new(),
            effects: Vec::new(),
            fan: Vec::new(),
            scratch: Vec::new(),
            counts: BusStats::default(),
            gone_expired: 0,
            protocol_violations: 0,
            handshakes_refused: 0,
            closing: false,
        }
    }

    /// How long a publisher is to wait for subscribers that block and have no room for this event now.
    fn blocks_for(&mut self, draft: &Draft<'_>) -> Option<Duration> {
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
    fn direct(&mut self, draft: &Draft<'_>) -> Option<(Slot, Arc<Session>)> {
        if draft.delay_ms > 0 {
            return None;
        }
        let &[slot] = self.bus.route(draft.subject) else { return None };
        let outlet = self.slots.get(slot.index())?.as_ref()?;
        let Sink::Remote { session, backlog, in_flight, .. } = &outlet.sink else { return None };
        let blocked = matches!(outlet.on_slow, OnSlow::Block { .. }) && *in_flight >= outlet.capacity;
        if blocked || !backlog.is_empty() || !outlet.stalled.is_empty() {
            return None;
        }
        Some((slot, Arc::clone(session)))
    }

    /// The fixed part and target of an event for one remote subscription.
    fn head_of(&self, slot: Slot, draft: &Draft<'_>) -> Option<[u8; HEADER_BYTES + 8]> {
        let outlet = self.slots.get(slot.index())?.as_ref()?;
        let mut head = [0; HEADER_BYTES + 8];
        let header = crate::wire::MessageHeader { target_count: 1, ..draft.header() };
        head[..HEADER_BYTES].copy_from_slice(&header.encode());
        head[HEADER_BYTES..HEADER_BYTES + 4].copy_from_slice(&outlet.key.id.to_le_bytes());
        head[HEADER_BYTES + 4..].copy_from_slice(&outlet.gap.to_le_bytes());
        Some(head)
    }

    /// Sends an event straight from its publisher's memory; false when the ring has no room.
    fn send_direct(&mut self, slot: Slot, outbox: &mut Outbox, draft: &Draft<'_>) -> Result<bool> {
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
        self.note_direct(slot, draft);
        Ok(true)
    }

    fn note_direct(&mut self, slot: Slot, draft: &Draft<'_>) {
        let Some(Some(outlet)) = self.slots.get_mut(slot.index()) else { return };
        let bytes = draft.payload.len() as u64;
        outlet.gap = 0;
        outlet.delivered += 1;
        outlet.delivered_bytes += bytes;
        let mut credited = false;
        if let Sink::Remote { in_flight, credited: true, .. } = &mut outlet.sink {
            *in_flight += 1;
            credited = true;
        }
        self.counts.published += 1;
        self.counts.published_bytes += bytes;
        self.counts.delivered += 1;
        self.counts.delivered_bytes += bytes;
        if credited {
            self.update_depth(slot);
        }
    }

    fn touch(&mut self, session: &Arc<Session>) {
        if !session.touched.swap(true, Ordering::Relaxed) {
            self.touched.push(Arc::clone(session));
        }
    }

    fn count_delivery(&mut self, message: &Message) {
        self.counts.delivered += 1;
        self.counts.delivered_bytes += message.payload().len() as u64;
    }

    fn note_sent(&mut self, slot: Slot, message: &Message) {
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

    fn update_depth(&mut self, slot: Slot) {
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

    fn pop_stalled(&mut self, slot: Slot) {
        let Some(Some(outlet)) = self.slots.get_mut(slot.index()) else { return };
        let Some(gone) = outlet.stalled.pop_front() else { return };
        if outlet.stalled.is_empty() {
            self.stalled_slots.retain(|&other| other != slot);
        }
        if let Some(count) = self.stalled_count.get_mut(&gone.from) {
            *count = count.saturating_sub(1);
        }
    }

    fn forget_stalled_from(&mut self, from: u32) {
        // What a publisher handed over before it ended is still delivered; nobody waits for it any more.
        self.stalled_count.remove(&from);
    }
}

impl Side for Host {
    fn frames(
        &self,
        id: u32,
        block: &Arc<Vec<u8>>,
        ranges: &mut dyn Iterator<Item = (usize, usize)>,
    ) -> Result<()> {
        let mut state = self.state.lock();
        let Some(session) = state.sessions.get(&id).cloned() else { return Ok(()) };
        let now = self.engine.now();
        for (start, end) in ranges {
            self.frame(&mut state, &session, block, start, end, now)?;
        }
        Ok(())
    }

    fn link_failed(&self, session: u32, error: &Error) {
        self.end_session(session, error);
    }

    fn settle(&self) {
        let mut touched = {
            let mut state = self.state.lock();
            if state.touched.is_empty() {
                return;
            }
            std::mem::take(&mut state.touched)
        };
        for session in &touched {
            // Before the flush: what is queued from now on is flushed by who queued it.
            session.touched.store(false, Ordering::Relaxed);
            let mut outbox = session.outbox.lock();
            let flushed = outbox.flush();
            let waits = !outbox.is_clear() || !outbox.is_flushed();
            drop(outbox);
            if let Err(error) = flushed {
                self.doom(session.id, error);
            } else if waits {
                self.watch_writable(session, true);
            }
        }
        touched.clear();
        let mut state = self.state.lock();
        if state.touched.is_empty() {
            state.touched = touched;
        }
    }

    fn tick(&self, now: Moment) -> Moment {
        self.end_doomed();
        let retry = std::mem::take(&mut *self.retry.lock());
        for id in retry {
            let session = self.state.lock().sessions.get(&id).cloned();
            if let Some(session) = session {
                self.pump(&session);
            }
        }
        let mut due = Moment::NEVER;
        {
            let mut meeting = self.meeting.lock();
            let late: Vec<u32> =
                meeting.pending.iter().filter(|(_, p)| p.deadline <= now).map(|(token, _)| *token).collect();
            for token in late {
                if let Some(pending) = meeting.pending.remove(&token) {
                    pending.refuse(&Error::new(ErrorKind::Timeout, "session.handshake"));
                    self.state.lock().handshakes_refused += 1;
                }
            }
            self.end_rest(&mut meeting, now);
            due = due.min(meeting.rests_until.filter(|until| *until > now).unwrap_or(Moment::NEVER));
            for pending in meeting.pending.values() {
                due = due.min(pending.deadline);
            }
        }
        let mut state = self.state.lock();
        while let Some((message, from)) = state.delayed.pop_due(now) {
            state.counts.published_bytes += message.payload().len() as u64;
            self.route(&mut state, &message, from);
        }
        self.drop_stalled_overdue(&mut state, now);
        if state.rpc.next_due().is_some_and(|due| due <= now) {
            let mut effects = std::mem::take(&mut state.effects);
            state.rpc.tick(now, &mut effects);
            self.run(&mut state, &mut effects, now);
            state.effects = effects;
        }
        due = due.min(state.delayed.next_due().unwrap_or(Moment::NEVER));
        due = due.min(state.rpc.next_due().unwrap_or(Moment::NEVER));
        for &slot in &state.stalled_slots {
            if let Some(Some(outlet)) = state.slots.get(slot.index())
                && let Some(front) = outlet.stalled.front()
            {
                due = due.min(front.until);
            }
        }
        drop(state);
        self.settle();
        due
    }

    fn event(&self, token: u64, event: &Event) {
        let id = token as u32;
        match token & KIND_MASK {
            KIND_LISTENER => self.accept_all(id),
            KIND_PENDING => self.advance(id),
            KIND_PIDFD => self.gone(id),
            KIND_BELL => {
                let session = self.state.lock().sessions.get(&id).cloned();
                if let Some(session) = session {
                    self.pump(&session);
                }
            }
            KIND_SOCKET => {
                let session = self.state.lock().sessions.get(&id).cloned();
                let Some(session) = session else { return };
                if session.transport == "shm" {
                    // After the handshake a client says nothing here; hanging up ends the session.
                    self.gone(id);
                } else {
                    if event.is_readable() {
                        self.engine.set_readable(id);
                    }
                    if event.is_writable() {
                        self.pump(&session);
                    }
                }
            }
            _ => {}
        }
    }
}

impl Host {
    /// A client's process or socket ended: what it still sent is taken, then the session ends.
    fn gone(&self, id: u32) {
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

impl Backend for Host {
    fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    fn session(&self) -> u32 {
        0
    }

    fn host_pid(&self) -> u32 {
        std::process::id()
    }

    fn max_message_bytes(&self) -> usize {
        self.config.max_message_bytes
    }

    fn publish(&self, draft: &mut Draft<'_>, options: &PublishOptions, wait: &mut Wait<'_>) -> Result<u64> {
        self.engine.check_open("mesh.publish")?;
        let patience_over = self.wait_for_room("mesh.publish", draft, options, wait)?;
        self.stamp(draft);
        if draft.payload.len() > DIRECT_BYTES_MAX && self.publish_large(draft) {
            return Ok(draft.id);
        }
        {
            let mut state = self.state.lock();
            if let Some((slot, session)) = state.direct(draft) {
                let mut outbox = session.outbox.lock();
                if self.sent_or_doomed(&session, state.send_direct(slot, &mut outbox, draft)) {
                    drop(state);
                    return match outbox.flush() {
                        Ok(()) => {
                            if !outbox.is_flushed() {
                                self.watch_writable(&session, true);
                            }
                            Ok(draft.id)
                        }
                        Err(error) => {
                            self.doom(session.id, error);
                            Ok(draft.id)
                        }
                    };
                }
            }
            state.patience_over = patience_over;
            let accepted = self.accept_event(&mut state, draft.to_message(), 0);
            state.patience_over = false;
            accepted?;
        }
        self.settle();
        Ok(draft.id)
    }

    fn publish_many(
        &self,
        events: &mut dyn Iterator<Item = (&str, &[u8])>,
        draft: &mut Draft<'_>,
        options: &PublishOptions,
        wait: &mut Wait<'_>,
    ) -> Result<()> {
        self.engine.check_open("mesh.publish_many")?;
        draft.timestamp = self.engine.clock.wall();
        let mut next = events.next();
        while let Some((subject, payload)) = next {
            let event = Draft { subject, payload, ..draft.clone() };
            let patience_over = self.wait_for_room("mesh.publish_many", &event, options, wait)?;
            {
                let mut state = self.state.lock();
                let ids = self.next_message.fetch_add(BATCH as u64, Ordering::Relaxed)..;
                // Others get their turn between batches, and subscribers see events while more are routed.
                for (id, position) in ids.zip(0..BATCH) {
                    let Some((subject, payload)) = next else { break };
                    let event = Draft { subject, payload, id, ..draft.clone() };
                    if position > 0 && state.blocks_for(&event).is_some() {
                        break;
                    }
                    next = events.next();
                    if let Some((slot, session)) = state.direct(&event) {
                        let mut outbox = session.outbox.lock();
                        if self.sent_or_doomed(&session, state.send_direct(slot, &mut outbox, &event)) {
                            drop(outbox);
                            state.touch(&session);
                            continue;
                        }
                    }
                    state.patience_over = patience_over && position == 0;
                    let accepted = self.accept_event(&mut state, event.to_message(), 0);
                    state.patience_over = false;
                    accepted?;
                }
            }
            self.settle();
        }
        Ok(())
    }

    fn subscribe(&self, pattern: &Pattern, options: &SubscribeOptions) -> Result<Arc<Inlet>> {
        self.engine.check_open("mesh.subscribe")?;
        options.validate()?;
        let inlet = Inlet::new(&self.engine, self.number(), pattern, options);
        let mut state = self.state.lock();
        let key = SubscriptionKey { owner: 0, id: inlet.id };
        self.subscribe_outlet(&mut state, key, pattern, options, Sink::Local(Arc::clone(&inlet)))?;
        state.inlets.insert(inlet.id, Arc::clone(&inlet));
        Ok(inlet)
    }

    fn unsubscribe(&self, inlet: &Inlet) {
        let mut state = self.state.lock();
        if let Some(slot) = state.bus.unsubscribe(SubscriptionKey { owner: 0, id: inlet.id }) {
            self.drop_outlet(&mut state, slot);
        }
        drop(state);
        self.settle();
    }

    fn taken(&self, inlet: &Inlet, _count: u32) {
        let mut state = self.state.lock();
        if let Some(slot) = state.bus.slot(SubscriptionKey { owner: 0, id: inlet.id }) {
            self.unstall(&mut state, slot);
        }
        drop(state);
        self.settle();
    }

    fn serve(&self, name: &Name, options: ServeOptions) -> Result<Arc<ServiceInbox>> {
        self.engine.check_open("mesh.serve")?;
        let inbox = ServiceInbox::new(&self.engine, self.number(), name);
        let who = InstanceWho { pid: std::process::id(), client: self.config.name.clone() };
        let key = InstanceKey { owner: 0, id: inbox.id };
        self.state.lock().services.insert(inbox.id, Arc::clone(&inbox));
        let mut served = Ok(());
        self.with_rpc(|rpc, now, effects| served = rpc.serve(key, name, options, who, now, effects));
        if let Err(error) = served {
            self.state.lock().services.remove(&inbox.id);
            return Err(error);
        }
        Ok(inbox)
    }

    fn unserve(&self, inbox: &ServiceInbox) {
        let key = InstanceKey { owner: 0, id: inbox.id };
        self.with_rpc(|rpc, now, effects| rpc.unserve(key, now, effects));
        self.state.lock().services.remove(&inbox.id);
    }

    fn answer(&self, call: u64, answer: Answer<'_>) -> Result<()> {
        self.engine.check_open("request.reply")?;
        let result = match answer {
            Answer::Reply { payload, headers } => {
                let mut draft = Draft { headers, ..Draft::new(Kind::Response, call, "", payload) };
                draft.timestamp = Timestamp(os::time::coarse_wall_ns());
                Ok(draft.to_message())
            }
            Answer::Failure(error) => Err(error),
        };
        let mut state = self.state.lock();
        state.requests.remove(&call);
        let now = self.engine.now();
        let mut effects = std::mem::take(&mut state.effects);
        state.rpc.respond(0, call, result, now, &mut effects);
        self.run(&mut state, &mut effects, now);
        state.effects = effects;
        drop(state);
        self.settle();
        Ok(())
    }

    fn start_call(
        &self,
        service: &str,
        draft: &mut Draft<'_>,
        timeout: Duration,
        _wait: &mut Wait<'_>,
    ) -> Result<Started> {
        self.engine.check_open("mesh.call")?;
        self.stamp(draft);
        let call = draft.id;
        let message = draft.to_message();
        let mailbox = Arc::new(Mailbox::new(&self.engine, CallState::Waiting));
        self.state.lock().calls.insert(call, Arc::clone(&mailbox));
        self.with_rpc(|rpc, now, effects| {
            rpc.request(CallerKey { owner: 0, call }, service, message, timeout, now, effects);
        });
        Ok((call, mailbox))
    }

    fn cancel_call(&self, call: u64) {
        self.with_rpc(|rpc, now, effects| rpc.cancel(CallerKey { owner: 0, call }, now, effects));
    }

    fn services(&self) -> Result<Vec<ServiceInfo>> {
        self.engine.check_open("mesh.services")?;
        let state = self.state.lock();
        let mut services = state.rpc.services();
        self.name_sessions(&state, &mut services);
        Ok(services)
    }

    fn stats(&self) -> Result<Stats> {
        self.engine.check_open("mesh.stats")?;
        Ok(self.collect(&self.state.lock()))
    }

    fn listen_tcp(&self, address: &str, secret: &[u8]) -> Result<SocketAddr> {
        const OPERATION: &str = "mesh.listen_tcp";
        self.engine.check_open(OPERATION)?;
        check_secret(secret, OPERATION)?;
        let described = |error: std::io::Error| {
            let error = match error.kind() {
                std::io::ErrorKind::InvalidInput => {
                    Error::new(ErrorKind::InvalidArgument, OPERATION).because(error)
                }
                _ => Error::from_io(OPERATION, error),
            };
            error.with("address", address)
        };
        let listener = TcpListener::bind(address).map_err(described)?;
        listener.set_nonblocking(true).map_err(described)?;
        let bound = listener.local_addr().map_err(described)?;
        self.add_listener(listener.into(), Some(secret.into()), true)?;
        Ok(bound)
    }

    fn close(&self, reason: Error) {
        if !self.engine.set_closed(reason) {
            return;
        }
        if !self.engine.origin.is_here() {
            return;
        }
        self.engine.join();
        let mut meeting = std::mem::take(&mut *self.meeting.lock());
        meeting.pending.clear();
        let mut state = self.state.lock();
        state.closing = true;
        let sessions: Vec<_> = state.sessions.drain().map(|(_, session)| session).collect();
        let inlets: Vec<_> = state.inlets.drain().map(|(_, inlet)| inlet).collect();
        let services: Vec<_> = state.services.drain().map(|(_, inbox)| inbox).collect();
        let calls: Vec<_> = state.calls.drain().map(|(_, mailbox)| mailbox).collect();
        let requests: Vec<u64> = state.requests.keys().copied().collect();
        for call in requests {
            if let Some(cancelled) = state.requests.remove(&call) {
                cancelled.cancel();
            }
        }
        *state = State { closing: true, ..State::new() };
        drop(state);
        for session in sessions {
            let mut outbox = session.outbox.lock();
            let _ = outbox.queue(&[Kind::Bye as u8]).and_then(|()| outbox.flush());
            os::socket::shut_down(session.socket.as_fd());
        }
        self.engine.drop_links();
        for inlet in inlets {
            inlet.mailbox.close(&self.engine.closed_error("subscription.receive"));
        }
        for inbox in services {
            inbox.mailbox.close(&self.engine.closed_error("service.next"));
        }
        for mailbox in calls {
            complete(&mailbox, Err(self.engine.closed_error("mesh.call")));
        }
        self.room.fire(&self.engine);
        *self.lock.lock() = None;
    }
}
