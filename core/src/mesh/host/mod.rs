//! The host: routes events, brings calls to instances, and takes clients in.
//!
//! One lock guards the routing tables; nothing waits while it is held. What a slow client has no room
//! for is kept per subscription, within its capacity, or in the session's bounded backlog.
#![forbid(unsafe_code)]

mod calls;
mod events;
mod frames;
mod meeting;
mod room;
mod state;
mod store;

use super::{
    backend::{Answer, Backend, Started},
    call::{CallState, complete},
    engine::{Engine, Link, LinkCounters, Side},
    keeper::Jobs,
    options::PublishOptions,
    service::{Arrived, CancelFlag, ServiceInbox},
    subscription::Inlet,
    wait::{Mailbox, Signal, Wait},
};
use crate::sync::lock::Mutex;
use crate::{
    bus::{Bus, Delayed, Inbox, OnSlow, Pushed, Slot, SubscribeOptions, SubscriptionKey},
    clock::{Clock, Moment, Timestamp},
    error::{Error, ErrorKind, Result},
    ledger::Durability,
    name::{self, Name, Pattern},
    os::{self, epoll::Event, fork::GuardedFd, lock::DirLock},
    queue::{Answered, QueueRequest},
    rpc::{CallerKey, Effect, InstanceKey, InstanceWho, Rpc, RpcLimits, ServeOptions},
    session::{
        Accepted, Assembler, HandshakeConfig, Outbox, PendingSession, SOCKET_FILE, Sent, Socket, Step,
        check_secret,
    },
    shm::{AttentionPage, WaitStrategy},
    stats::{BusStats, ServiceInfo, SessionStats, Stats, SubscriptionStats},
    sync::{AtomicBool, AtomicU32, AtomicU64, Ordering, spin_loop},
    wire::{
        BATCH_BYTES, Batch, BatchWriter, Cancel, CancelJob, Control, ControlReply, Credit, Draft,
        HEADER_BYTES, Kind, Message, Target, control::Request as ControlRequest, encode_targets,
        handshake::Refusal,
    },
};
use hashbrown::HashMap;
use std::{
    collections::VecDeque,
    net::{SocketAddr, TcpListener},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::{Arc, Weak},
    time::Duration,
};

use store::{Asked, Store};

/// How a host is set up.
#[derive(Clone, Debug)]
pub(super) struct HostConfig {
    pub(super) name: String,
    pub(super) language: &'static str,
    pub(super) ring_bytes: usize,
    pub(super) max_message_bytes: usize,
    pub(super) max_sessions: usize,
    pub(super) strategy: WaitStrategy,
    pub(super) repair: bool,
}

pub(super) struct Host {
    me: Weak<Self>,
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
    store: Store,
    jobs: Jobs,
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
    /// What all that is stalled takes up.
    stalled_bytes: usize,
    sessions: HashMap<u32, Arc<Session>>,
    inlets: HashMap<u32, Arc<Inlet>>,
    services: HashMap<u32, Arc<ServiceInbox>>,
    calls: HashMap<u64, Arc<Mailbox<CallState>>>,
    requests: HashMap<u64, Arc<CancelFlag>>,
    /// What the frames being read ask of the queues; done when this lock is free.
    asked: Vec<Asked>,
    /// Subscriptions that what happens in queues may reach.
    queue_watchers: usize,
    touched: Vec<Arc<Session>>,
    effects: Vec<Effect>,
    fan: Vec<Fan>,
    scratch: Vec<Slot>,
    /// Where batches are laid out.
    batch: Vec<u8>,
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
    /// It shares its events with the other members of a queue group.
    grouped: bool,
    /// What happens in queues may reach it.
    watches_queues: bool,
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
/// Bytes of all of them that may wait, at least.
const STALLED_BYTES_MAX: usize = 64 * 1024 * 1024;

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
        let host = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            store: Store::new(directory, config.repair),
            jobs: Jobs::default(),
            opened: engine.now(),
            engine,
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
        let started = host.start(directory);
        if started.is_err() {
            // Its threads must not outlive the right to the directory.
            host.close_store();
        }
        started.map(|()| host)
    }

    fn start(self: &Arc<Self>, directory: &Path) -> Result<()> {
        self.open_existing_store()?;
        // We hold the directory, so a socket that lies there belongs to a host that is gone.
        let _ = std::fs::remove_file(directory.join(SOCKET_FILE));
        let listener = os::socket::listen_unix(directory, SOCKET_FILE)?;
        listener.set_nonblocking(true).map_err(|error| Error::from_io("mesh.open", error))?;
        self.add_listener(listener.into(), None, false)?;
        self.engine.start(Arc::clone(self) as Arc<dyn Side>, "flowmesh-host")
    }

    fn frame_bytes_max(&self) -> usize {
        self.config.max_message_bytes + 64 * 1024
    }

    fn number(&self) -> u32 {
        // Relaxed: only uniqueness matters.
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    fn stamp(&self, draft: &mut Draft<'_>) {
        draft.id = self.next_message.fetch_add(1, Ordering::Relaxed);
        draft.timestamp = self.engine.clock.wall();
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
        let mut ranges = ranges;
        let framed = (&mut ranges)
            .try_for_each(|(start, end)| self.frame(&mut state, &session, block, start, end, now));
        if state.asked.is_empty() {
            return framed;
        }
        let mut asked = std::mem::take(&mut state.asked);
        drop(state);
        let done = self.do_asked(&mut asked);
        asked.clear();
        self.state.lock().asked = asked;
        framed.and(done)
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
        let stale = |inlet: &&Arc<Inlet>| inlet.credit_stale.swap(false, Ordering::AcqRel);
        let stale: Vec<u32> = state.inlets.values().filter(stale).map(|inlet| inlet.id).collect();
        for id in stale {
            if let Some(slot) = state.bus.slot(SubscriptionKey { owner: 0, id }) {
                self.unstall(&mut state, slot);
            }
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
        let mut published = 0;
        while let Some((subject, payload)) = next {
            let event = Draft { subject, payload, ..draft.clone() };
            let patience_over = self
                .wait_for_room("mesh.publish_many", &event, options, wait)
                .map_err(|error| error.with("published", published))?;
            {
                let mut state = self.state.lock();
                let mut ids = self.next_message.fetch_add(BATCH as u64, Ordering::Relaxed)..;
                // Others get their turn between batches, and subscribers see events while more are routed.
                let batch_end = published + BATCH;
                while published < batch_end
                    && let Some((subject, payload)) = next
                {
                    let event = Draft { subject, payload, id: ids.start, ..draft.clone() };
                    let sent = self.send_run(&mut state, &event, &mut next, events, batch_end - published);
                    if sent > 0 {
                        ids.start += sent as u64;
                        published += sent;
                        continue;
                    }
                    let first = published + BATCH == batch_end;
                    if !first && state.blocks_for(&event).is_some() {
                        break;
                    }
                    next = events.next();
                    ids.start += 1;
                    published += 1;
                    if let Some((slot, session)) = state.direct(&event) {
                        let mut outbox = session.outbox.lock();
                        if self.sent_or_doomed(&session, state.send_direct(slot, &mut outbox, &event)) {
                            drop(outbox);
                            state.touch(&session);
                            continue;
                        }
                    }
                    state.patience_over = patience_over && first;
                    let accepted = self.accept_event(&mut state, event.to_message(), 0);
                    state.patience_over = false;
                    accepted.map_err(|error| error.with("published", published - 1))?;
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

    fn taken(&self, inlet: &Inlet) {
        let mut state = self.state.lock();
        if let Some(slot) = state.bus.slot(SubscriptionKey { owner: 0, id: inlet.id }) {
            self.unstall(&mut state, slot);
        }
        drop(state);
        self.settle();
    }

    fn serve(&self, name: &Name, options: ServeOptions) -> Result<Arc<ServiceInbox>> {
        self.engine.check_open("mesh.serve")?;
        let inbox = ServiceInbox::new(&self.engine, self.number(), name, &options);
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

    fn queue_request(
        &self,
        request: QueueRequest<'_>,
        durability: Option<Durability>,
        wait: &mut Wait<'_>,
    ) -> Result<Answered> {
        self.request_here(request, durability, wait)
    }

    fn start_queue_request(
        &self,
        request: QueueRequest<'_>,
        durability: Option<Durability>,
        timeout: Option<Duration>,
    ) -> Result<Started> {
        self.start_here(request, durability, timeout)
    }

    fn cancel_queue_request(&self, call: u64) {
        self.give_up(0, call);
    }

    fn jobs(&self) -> &Jobs {
        &self.jobs
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
        self.jobs.close();
        self.engine.join();
        self.close_store();
        self.jobs.join();
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
