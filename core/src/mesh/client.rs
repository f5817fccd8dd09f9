//! The client: sends what it is asked to send, and hands what comes to its owners.
#![forbid(unsafe_code)]

use super::{
    backend::{Answer, Backend, REQUEST_TIMEOUT, Started},
    call::{CallState, complete},
    engine::{Engine, Link, LinkCounters, Side},
    host::{SUBSCRIPTION_ENDED, failure},
    keeper::Jobs,
    options::PublishOptions,
    queue::{self, SERVICE},
    service::{Arrived, CancelFlag, ServiceInbox},
    subscription::Inlet,
    wait::{Deadline, Mailbox, Signal, Wait},
};
use crate::sync::lock::Mutex;
use crate::{
    bus::{OnSlow, Pushed, SubscribeOptions},
    clock::{Clock, Moment, Timestamp},
    error::{Error, ErrorKind, Result},
    ledger::Durability,
    name::{Name, Pattern},
    os::{self, epoll::Event, fork::GuardedFd},
    queue::{Answered, QueueRequest, Sent},
    rpc::ServeOptions,
    session::{Assembler, Connected, Outbox, Socket},
    shm::WaitStrategy,
    stats::{ServiceInfo, Stats},
    sync::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    wire::{
        BATCH_BYTES, Batch, BatchWriter, Cancel, CancelJob, Control, ControlReply, Credit, Draft, Kind,
        Message,
        control::Request as ControlRequest,
        handshake::{self, Refusal},
    },
};
use hashbrown::HashMap;
use std::{net::SocketAddr, os::fd::AsFd, sync::Arc, time::Duration};

pub(super) struct Client {
    engine: Arc<Engine>,
    outbox: Mutex<Outbox>,
    socket: Socket,
    _pidfd: Option<GuardedFd>,
    shm: bool,
    session: u32,
    host_pid: u32,
    max_message_bytes: usize,
    tables: Mutex<Tables>,
    /// Small frames that wait for the poller to send them.
    posted: Mutex<Vec<Vec<u8>>>,
    /// About how much was published since a publisher looked for the host's request to wait.
    unseen_bytes: AtomicUsize,
    /// The host asked publishers of this process to wait.
    paused: AtomicBool,
    resumed: Signal,
    /// The poller is asked to tell when the socket takes bytes.
    wants_writable: AtomicBool,
    next_number: AtomicU32,
    next_message: AtomicU64,
    jobs: Jobs,
}

#[derive(Default)]
struct Tables {
    inlets: HashMap<u32, Arc<Inlet>>,
    services: HashMap<u32, Arc<ServiceInbox>>,
    /// Each with the moment after which no answer of the host is waited for any more.
    calls: HashMap<u64, (Arc<Mailbox<CallState>>, Moment)>,
    requests: HashMap<u64, Arc<CancelFlag>>,
    controls: HashMap<u64, Arc<Mailbox<Option<ControlReply>>>>,
    /// What is to be sent once the tables are free: a frame that cannot be ends the session, which takes them.
    posts: Vec<Vec<u8>>,
    run: Run,
}

/// Events in a row for one subscription.
#[derive(Default)]
struct Run {
    inlet: Option<Arc<Inlet>>,
    events: Vec<(Message, u32)>,
}

const SOCKET: u64 = 1;
const PIDFD: u64 = 2;
/// How long a control request may take: the host answers from memory.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(30);
/// How much is published before a publisher looks, and what an event counts beside its payload.
const GLANCE_BYTES: usize = 32 * 1024;
const EVENT_BYTES: usize = 64;
/// How long after a call's deadline its host may still answer.
const CALL_GRACE: Duration = Duration::from_millis(250);
/// How long after a reservation's time a host that is busy may still answer.
const ANSWER_GRACE: Duration = Duration::from_secs(5);
/// A publisher that waits for room looks this often whether the host still lives.
const ROOM_SLICE: Duration = Duration::from_millis(50);

impl Client {
    pub(super) fn start(connected: Connected, strategy: WaitStrategy) -> Result<Arc<Self>> {
        let Connected { welcome, socket, pidfd, waiting, transport } = connected;
        let shm = waiting.is_some();
        let engine = Engine::new(false, strategy, waiting)?;
        engine.watch_fd(socket.as_fd(), SOCKET, false)?;
        if let Some(pidfd) = &pidfd {
            engine.watch_fd(pidfd.as_fd(), PIDFD, false)?;
        }
        let max_message_bytes = welcome.max_message_bytes as usize;
        let client = Arc::new(Self {
            engine: Arc::clone(&engine),
            // A client's own frames wait in its calling threads, so its backlog holds small frames only.
            outbox: Mutex::new(Outbox::new(transport.sender, 16 * 1024 * 1024)),
            socket,
            _pidfd: pidfd,
            shm,
            session: welcome.session,
            host_pid: welcome.pid,
            max_message_bytes,
            tables: Mutex::default(),
            posted: Mutex::default(),
            unseen_bytes: AtomicUsize::new(0),
            paused: AtomicBool::new(false),
            resumed: Signal::default(),
            wants_writable: AtomicBool::new(false),
            next_number: AtomicU32::new(1),
            jobs: Jobs::default(),
            next_message: AtomicU64::new(u64::from(welcome.session) << 40 | 1),
        });
        engine.start(Arc::clone(&client) as Arc<dyn Side>, "flowmesh-client")?;
        engine.add_link(Link {
            session: 0,
            receiver: transport.receiver,
            assembler: Assembler::with_spare(max_message_bytes + 64 * 1024, engine.spare()),
            counters: Arc::new(LinkCounters::default()),
            socket: !shm,
            readable: !shm,
        });
        Ok(client)
    }

    /// The host ended, or we end the session: everything that waits gets `reason`.
    fn end(&self, reason: Error) {
        if !self.engine.set_closed(reason) || !self.engine.origin.is_here() {
            return;
        }
        let tables = std::mem::take(&mut *self.tables.lock());
        for inlet in tables.inlets.values() {
            inlet.mailbox.close(&self.engine.closed_error("subscription.receive"));
        }
        for inbox in tables.services.values() {
            inbox.mailbox.close(&self.engine.closed_error("service.next"));
        }
        for (mailbox, _) in tables.calls.values() {
            complete(mailbox, Err(self.engine.closed_error("mesh.call")));
        }
        for mailbox in tables.controls.values() {
            mailbox.close(&self.engine.closed_error("mesh.control"));
        }
        for cancelled in tables.requests.values() {
            cancelled.cancel();
        }
        self.jobs.close();
        self.resumed.fire(&self.engine);
        os::socket::shut_down(self.socket.as_fd());
    }

    /// Sends a frame of any size, waiting for room at most until `deadline`.
    fn send(&self, operation: &'static str, parts: &[&[u8]], wait: &mut Wait<'_>) -> Result<()> {
        let mut outbox = self.lock_outbox(operation, wait)?;
        let sent =
            self.send_locked(&mut outbox, operation, parts, wait).and_then(|()| self.flush(&mut outbox));
        drop(outbox);
        match sent {
            // The host hangs up when it reads our good-bye: who was sending just then learns why.
            Err(error) if error.kind() == ErrorKind::Disconnected && self.engine.has_close_reason() => {
                Err(self.engine.closed_error(operation))
            }
            sent => sent,
        }
    }

    /// Shows the host what was sent; what a socket does not take now, the poller sends later.
    fn flush(&self, outbox: &mut Outbox) -> Result<()> {
        outbox.flush()?;
        if !outbox.is_flushed() && !self.wants_writable.swap(true, Ordering::Relaxed) {
            self.engine.watch_writable(self.socket.as_fd(), SOCKET, true)?;
        }
        Ok(())
    }

    fn lock_outbox(
        &self,
        operation: &'static str,
        wait: &mut Wait<'_>,
    ) -> Result<crate::sync::lock::MutexGuard<'_, Outbox>> {
        if let Some(outbox) = self.outbox.try_lock() {
            return Ok(outbox);
        }
        let deadline = Deadline::of(wait);
        loop {
            if let Some(outbox) = self.outbox.try_lock_for(deadline.slice().min(ROOM_SLICE)) {
                return Ok(outbox);
            }
            self.engine.check_open(operation)?;
            if wait.interrupted() {
                return Err(Error::new(ErrorKind::Interrupted, operation));
            }
            if deadline.has_passed() {
                return Err(super::wait::timed_out(operation, wait));
            }
        }
    }

    fn send_locked(
        &self,
        outbox: &mut Outbox,
        operation: &'static str,
        parts: &[&[u8]],
        wait: &mut Wait<'_>,
    ) -> Result<()> {
        let mut deadline = None;
        let sent = outbox.send_waiting(parts, &mut || {
            self.engine.check_open(operation)?;
            let deadline = deadline.get_or_insert_with(|| Deadline::of(wait));
            if deadline.has_passed() {
                return Err(super::wait::timed_out(operation, wait));
            }
            if wait.interrupted() {
                return Err(Error::new(ErrorKind::Interrupted, operation));
            }
            Ok(deadline.slice().min(ROOM_SLICE))
        });
        self.checked(sent)
    }

    /// Sends the events in a row that have the subject of `next`, as one frame laid out in `body`, or one event that is
    /// too large for that. Returns how many.
    fn send_run<'s, 'p>(
        &self,
        outbox: &mut Outbox,
        draft: &Draft<'_>,
        next: &mut Option<(&'s str, &'p [u8])>,
        events: &mut dyn Iterator<Item = (&'s str, &'p [u8])>,
        body: &mut Vec<u8>,
        wait: &mut Wait<'_>,
    ) -> Result<usize> {
        const OPERATION: &str = "mesh.publish_many";
        let Some((subject, payload)) = *next else { return Ok(0) };
        let bytes_max = BATCH_BYTES.min(outbox.chunk_bytes());
        let mut event = Draft { subject, payload, ..draft.clone() };
        let mut writer = BatchWriter::begin(&event, None, body);
        while let Some((subject, payload)) = *next
            && subject == event.subject
            && writer.push(payload, bytes_max)
        {
            *next = events.next();
        }
        let count = writer.count();
        event.id = self.next_message.fetch_add(count.max(1) as u64, Ordering::Relaxed);
        if count == 0 {
            *next = events.next();
            let fixed = event.header().encode();
            let parts: [&[u8]; 4] = [&fixed, subject.as_bytes(), event.headers, payload];
            self.send_locked(outbox, OPERATION, &parts, wait)?;
        } else {
            writer.end(event.id);
            self.send_locked(outbox, OPERATION, &[body], wait)?;
        }
        Ok(count.max(1))
    }

    /// An error of the transport ends the session; one of the caller's own does not.
    fn checked<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result
            && matches!(error.kind(), ErrorKind::Protocol | ErrorKind::Io)
        {
            self.end(error.duplicate());
        }
        result
    }

    /// Sends a small frame without waiting; it is kept when there is no room, or when another thread is
    /// sending and may wait for room.
    fn post(&self, body: &[u8]) {
        let Some(mut outbox) = self.outbox.try_lock() else {
            self.posted.lock().push(body.to_vec());
            self.engine.wake_poller();
            return;
        };
        let sent = outbox.queue(body).and_then(|()| self.flush(&mut outbox));
        drop(outbox);
        if let Err(error) = sent {
            self.end(error);
        }
    }

    fn control(&self, operation: &'static str, request: ControlRequest) -> Result<ControlReply> {
        self.engine.check_open(operation)?;
        let seq = self.next_message.fetch_add(1, Ordering::Relaxed);
        let mailbox = Arc::new(Mailbox::new(&self.engine, None));
        self.tables.lock().controls.insert(seq, Arc::clone(&mailbox));
        let mut wait = Wait::timeout(CONTROL_TIMEOUT);
        let reply = self
            .check_still_open(operation)
            .and_then(|()| self.send(operation, &[&Control { seq, request }.encode()], &mut wait))
            .and_then(|()| mailbox.wait(operation, &mut wait, Option::take));
        self.tables.lock().controls.remove(&seq);
        let reply = reply?;
        match &reply.error {
            None => Ok(reply),
            Some(refusal) => Err(refusal.to_error()),
        }
    }

    /// The frame of a request whose answer nobody waits for.
    fn queue_frame(&self, request: &QueueRequest<'_>, durability: Option<Durability>) -> Vec<u8> {
        let payload = Sent { request: request.clone(), durability }.encode();
        let call = self.next_message.fetch_add(1, Ordering::Relaxed);
        let aux = u32::try_from(REQUEST_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
        Draft { aux, ..Draft::new(Kind::Request, call, SERVICE, &payload) }.encode()
    }

    /// After something was put into the tables: if the session ended just before, nobody would take it out.
    fn check_still_open(&self, operation: &'static str) -> Result<()> {
        self.engine.check_open(operation)
    }

    fn number(&self) -> u32 {
        // Relaxed: only uniqueness matters.
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    /// Waits while the host asks publishers to. A thread that publishes without end looks itself now and then,
    /// so that it sees the request however late the poller is.
    fn wait_while_paused(
        &self,
        operation: &'static str,
        bytes: usize,
        timeout: Duration,
        wait: &mut Wait<'_>,
    ) -> Result<()> {
        // Relaxed: a rough count.
        let unseen = self.unseen_bytes.fetch_add(bytes + EVENT_BYTES, Ordering::Relaxed);
        if unseen >= GLANCE_BYTES {
            self.unseen_bytes.store(0, Ordering::Relaxed);
            self.engine.glance();
        }
        if !self.paused.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut wait =
            Wait { timeout: Some(timeout), interrupt: wait.interrupt.as_deref_mut().map(|hook| hook as _) };
        self.engine.wait_until(operation, &self.resumed, &mut wait, &mut || {
            if self.engine.is_closed() {
                Some(Err(self.engine.closed_error(operation)))
            } else if self.paused.load(Ordering::Acquire) {
                None
            } else {
                Some(Ok(()))
            }
        })
    }

    /// Events in a row for one subscription are put into its inbox together.
    fn add_to_run(&self, tables: &mut Tables, id: u32, message: Message, gap: u32) {
        if tables.run.inlet.as_ref().is_none_or(|inlet| inlet.id != id) {
            self.end_run(tables);
            tables.run.inlet = tables.inlets.get(&id).cloned();
        }
        // A subscription that is over may still be sent events that were under way.
        if tables.run.inlet.is_some() {
            tables.run.events.push((message, gap));
        }
    }

    fn end_run(&self, tables: &mut Tables) {
        let Some(inlet) = tables.run.inlet.take() else { return };
        let mut overflow = false;
        let events = &mut tables.run.events;
        inlet.mailbox.put(|inbox| {
            let mut any = false;
            for (message, gap) in events.drain(..) {
                overflow |= matches!(inbox.push(message, gap), Pushed::Overflow(_));
                any |= !overflow;
            }
            any
        });
        if overflow {
            self.overflowed(tables, &inlet);
        }
    }

    fn add_batch(&self, tables: &mut Tables, batch: &Batch) -> Result<()> {
        let target = batch.target().ok_or_else(|| {
            Error::new(ErrorKind::Protocol, "session.receive").with("violation", "a batch for nobody")
        })?;
        // A subscription that is over may still be sent events that were under way.
        let Some(inlet) = tables.inlets.get(&target.id).cloned() else { return Ok(()) };
        let mut fits = false;
        inlet.mailbox.put(|inbox| {
            fits = inbox.push_batch(batch, target.gap);
            fits || !inbox.is_empty()
        });
        if !fits {
            self.overflowed(tables, &inlet);
        }
        Ok(())
    }

    /// Ends a subscription that fell behind.
    fn overflowed(&self, tables: &mut Tables, inlet: &Inlet) {
        // Only with the policy to disconnect: a host sends a subscriber that blocks no more than it has
        // room for.
        tables.inlets.remove(&inlet.id);
        let capacity = inlet.mailbox.lock().queue.capacity();
        let error = Error::new(ErrorKind::SlowConsumer, "subscription.receive").with("capacity", capacity);
        inlet.mailbox.close(&error);
        let seq = self.next_message.fetch_add(1, Ordering::Relaxed);
        tables
            .posts
            .push(Control { seq, request: ControlRequest::Unsubscribe { subscription: inlet.id } }.encode());
    }

    fn frame(&self, tables: &mut Tables, block: &Arc<Vec<u8>>, start: usize, end: usize) -> Result<()> {
        let body = block.get(start..end).unwrap_or_default();
        let kind = Kind::of(body)?;
        if kind != Kind::Event {
            self.end_run(tables);
        }
        match kind {
            Kind::Event => {
                let message = Message::decode(block, start, end)?;
                if let Some(target) = message.only_target() {
                    self.add_to_run(tables, target.id, message, target.gap);
                } else {
                    for target in message.targets() {
                        self.add_to_run(tables, target.id, message.clone(), target.gap);
                    }
                }
                Ok(())
            }
            Kind::Events => self.add_batch(tables, &Batch::decode(block, start, end)?),
            Kind::Request => {
                let message = Message::decode(block, start, end)?;
                let call = message.id();
                let inbox = message.targets().next().and_then(|target| tables.services.get(&target.id));
                let Some(inbox) = inbox else {
                    // It was closed while the call was under way.
                    let error =
                        Error::new(ErrorKind::PeerGone, "mesh.call").with("service", message.subject());
                    tables.posts.push(failure(call, &error));
                    return Ok(());
                };
                let cancelled = Arc::new(CancelFlag::default());
                let deadline = self.engine.now() + Duration::from_millis(message.aux().into());
                let arrived = Arrived { call, message, deadline, cancelled: Arc::clone(&cancelled) };
                let mut fits = false;
                inbox.mailbox.put(|calls| {
                    fits = calls.len() < inbox.concurrency;
                    if fits {
                        calls.push_back(arrived);
                    }
                    fits
                });
                if !fits {
                    return Err(Error::new(ErrorKind::Protocol, "session.receive")
                        .with("violation", "more calls than the instance takes at once")
                        .with("limit", inbox.concurrency));
                }
                tables.requests.insert(call, cancelled);
                Ok(())
            }
            kind @ (Kind::Response | Kind::Failure) => {
                let message = Message::decode(block, start, end)?;
                if kind == Kind::Failure && body.get(1) == Some(&SUBSCRIPTION_ENDED) {
                    if let Ok(id) = u32::try_from(message.id())
                        && let Some(inlet) = tables.inlets.remove(&id)
                    {
                        inlet.mailbox.close(&message.to_error());
                    }
                    return Ok(());
                }
                if let Some((mailbox, _)) = tables.calls.remove(&message.id()) {
                    let result = if kind == Kind::Response { Ok(message) } else { Err(message.to_error()) };
                    complete(&mailbox, result);
                } else if kind == Kind::Response
                    && let Some(request) = queue::release_of(&message)
                {
                    // Jobs for somebody who has just given up: nobody is to wait for their lease.
                    tables.posts.push(self.queue_frame(&request, Some(Durability::Os)));
                }
                Ok(())
            }
            Kind::Cancel => {
                if let Some(cancelled) = tables.requests.get(&Cancel::decode(body)?.call) {
                    cancelled.cancel();
                }
                Ok(())
            }
            Kind::CancelJob => {
                self.jobs.cancel(CancelJob::decode(body)?.nonce);
                Ok(())
            }
            Kind::ControlReply => {
                let reply = ControlReply::decode(body)?;
                if let Some(mailbox) = tables.controls.remove(&reply.seq) {
                    mailbox.put(|slot| {
                        *slot = Some(reply);
                        true
                    });
                }
                Ok(())
            }
            Kind::Pause => {
                self.paused.store(true, Ordering::Release);
                Ok(())
            }
            Kind::Resume => {
                self.paused.store(false, Ordering::Release);
                self.resumed.fire(&self.engine);
                Ok(())
            }
            Kind::Bye => {
                Err(Error::new(ErrorKind::Disconnected, "session.receive").with("reason", "the host closed"))
            }
            Kind::Credit | Kind::Chunk | Kind::Control => {
                Err(Error::new(ErrorKind::Protocol, "session.receive")
                    .with("violation", "a frame only a client sends"))
            }
        }
    }
}

impl Side for Client {
    fn frames(
        &self,
        _: u32,
        block: &Arc<Vec<u8>>,
        ranges: &mut dyn Iterator<Item = (usize, usize)>,
    ) -> Result<()> {
        let mut tables = self.tables.lock();
        let mut ranges = ranges;
        let handled = (&mut ranges).try_for_each(|(start, end)| self.frame(&mut tables, block, start, end));
        self.end_run(&mut tables);
        let posts = std::mem::take(&mut tables.posts);
        drop(tables);
        for body in posts {
            self.post(&body);
        }
        handled
    }

    fn link_failed(&self, _: u32, error: &Error) {
        self.end(
            Error::new(
                if error.kind() == ErrorKind::Protocol {
                    ErrorKind::Protocol
                } else {
                    ErrorKind::Disconnected
                },
                "mesh.session",
            )
            .because(error.to_string()),
        );
    }

    fn settle(&self) {}

    fn tick(&self, now: Moment) -> Moment {
        let stale: Vec<Arc<Inlet>> = {
            let tables = self.tables.lock();
            let stale = |inlet: &&Arc<Inlet>| inlet.credit_stale.swap(false, Ordering::AcqRel);
            tables.inlets.values().filter(stale).cloned().collect()
        };
        for inlet in stale {
            self.taken(&inlet);
        }
        self.send_posted().min(self.end_overdue(now))
    }

    fn event(&self, token: u64, event: &Event) {
        match token {
            SOCKET if self.shm => {
                // Bells, or the end and maybe why.
                let mut bells = [0; 1024];
                match os::socket::recv_nowait(self.socket.as_fd(), &mut bells) {
                    Ok(Some(0)) | Err(_) => self.gone(),
                    Ok(Some(count)) if bells[..count].contains(&handshake::MAGIC[0]) => {
                        self.thrown_out(&bells[..count]);
                    }
                    Ok(_) => self.pump(),
                }
            }
            SOCKET => {
                if event.is_readable() {
                    self.engine.set_readable(0);
                }
                if event.is_writable() {
                    self.pump();
                }
            }
            PIDFD => self.gone(),
            _ => {}
        }
    }
}

impl Client {
    fn pump(&self) {
        // A thread that waits for room holds the lock and looks by itself.
        let Some(mut outbox) = self.outbox.try_lock() else { return };
        if outbox.is_flushed() && self.wants_writable.swap(false, Ordering::Relaxed) {
            let _ = self.engine.watch_writable(self.socket.as_fd(), SOCKET, false);
        }
        let pumped = outbox.pump().and_then(|_| self.flush(&mut outbox));
        drop(outbox);
        if let Err(error) = pumped {
            self.end(error);
        }
    }

    /// The host ends the session and says why, behind the bells that nobody has read.
    fn thrown_out(&self, bytes: &[u8]) {
        let refusal = &bytes[bytes.iter().position(|byte| *byte == handshake::MAGIC[0]).unwrap_or(0)..];
        let error =
            handshake::decode(refusal).map_or_else(|error| error, |refusal: Refusal| refusal.to_error());
        self.engine.finish_link(0);
        self.end(error);
    }

    /// Sends the frames that were posted while somebody else was sending; the moment to try again.
    fn send_posted(&self) -> Moment {
        if self.posted.lock().is_empty() {
            return Moment::NEVER;
        }
        let Some(mut outbox) = self.outbox.try_lock_for(Duration::from_millis(1)) else {
            return self.engine.now() + Duration::from_millis(1);
        };
        let mut sent = Ok(());
        for body in std::mem::take(&mut *self.posted.lock()) {
            sent = sent.and_then(|()| outbox.queue(&body));
        }
        sent = sent.and_then(|()| self.flush(&mut outbox));
        drop(outbox);
        if let Err(error) = sent {
            self.end(error);
        }
        Moment::NEVER
    }

    /// Ends calls that the host should have ended: it hangs, or is stopped. Returns when to look again.
    fn end_overdue(&self, now: Moment) -> Moment {
        let mut next = Moment::NEVER;
        let mut overdue = Vec::new();
        self.tables.lock().calls.retain(|_, (mailbox, until)| {
            let ends = *until <= now;
            if ends {
                overdue.push(Arc::clone(mailbox));
            } else {
                next = next.min(*until);
            }
            !ends
        });
        for mailbox in overdue {
            let error =
                Error::new(ErrorKind::Timeout, "mesh.call").with("reason", "the host does not answer");
            complete(&mailbox, Err(error));
        }
        next
    }

    fn gone(&self) {
        // What the host sent before it ended is taken first.
        self.engine.finish_link(0);
        self.end(Error::new(ErrorKind::Disconnected, "mesh.session").with("host_pid", self.host_pid));
    }
}

impl Backend for Client {
    fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    fn session(&self) -> u32 {
        self.session
    }

    fn host_pid(&self) -> u32 {
        self.host_pid
    }

    fn max_message_bytes(&self) -> usize {
        self.max_message_bytes
    }

    fn publish(&self, draft: &mut Draft<'_>, options: &PublishOptions, wait: &mut Wait<'_>) -> Result<u64> {
        const OPERATION: &str = "mesh.publish";
        self.engine.check_open(OPERATION)?;
        self.wait_while_paused(OPERATION, draft.payload.len(), options.timeout, wait)?;
        draft.id = self.next_message.fetch_add(1, Ordering::Relaxed);
        draft.timestamp = self.engine.clock.wall();
        let fixed = draft.header().encode();
        let mut wait = Wait { timeout: Some(options.timeout), interrupt: wait.interrupt.take() };
        self.send(OPERATION, &[&fixed, draft.subject.as_bytes(), draft.headers, draft.payload], &mut wait)?;
        Ok(draft.id)
    }

    fn publish_many(
        &self,
        events: &mut dyn Iterator<Item = (&str, &[u8])>,
        draft: &mut Draft<'_>,
        options: &PublishOptions,
        wait: &mut Wait<'_>,
    ) -> Result<()> {
        const OPERATION: &str = "mesh.publish_many";
        self.engine.check_open(OPERATION)?;
        let mut wait = Wait { timeout: Some(options.timeout), interrupt: wait.interrupt.take() };
        draft.timestamp = self.engine.clock.wall();
        let mut body = Vec::new();
        let mut next = events.next();
        let mut published = 0;
        while next.is_some() {
            self.wait_while_paused(OPERATION, GLANCE_BYTES, options.timeout, &mut wait)
                .and_then(|()| {
                    let mut outbox = self.lock_outbox(OPERATION, &mut wait)?;
                    let (mut bytes, mut unseen) = (0, 0);
                    // Others get their turn after so much, and the receiver starts while more is written.
                    while bytes < GLANCE_BYTES
                        && let Some((_, first)) = next
                    {
                        let run =
                            self.send_run(&mut outbox, draft, &mut next, events, &mut body, &mut wait)?;
                        published += run;
                        unseen += run;
                        bytes += body.len().max(first.len()) + EVENT_BYTES;
                        if unseen >= 64 {
                            self.flush(&mut outbox)?;
                            unseen = 0;
                        }
                    }
                    self.flush(&mut outbox)
                })
                .map_err(|error| error.with("published", published))?;
        }
        Ok(())
    }

    fn subscribe(&self, pattern: &Pattern, options: &SubscribeOptions) -> Result<Arc<Inlet>> {
        // Before any lock: in a forked child a thread that is not there may hold it.
        self.engine.check_open("mesh.subscribe")?;
        options.validate()?;
        let inlet = Inlet::new(&self.engine, self.number(), pattern, options);
        self.tables.lock().inlets.insert(inlet.id, Arc::clone(&inlet));
        let (policy, block_ms) = match options.on_slow {
            OnSlow::DropOldest => (0, 0),
            OnSlow::Block { timeout } => {
                (1, u32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX))
            }
            OnSlow::Disconnect => (2, 0),
        };
        let request = ControlRequest::Subscribe {
            subscription: inlet.id,
            pattern: pattern.as_str().to_owned(),
            group: options.group.as_ref().map_or_else(String::new, |group| group.as_str().to_owned()),
            priority: options.priority,
            policy,
            capacity: options.capacity as u32,
            block_ms,
        };
        match self.control("mesh.subscribe", request) {
            Ok(_) => Ok(inlet),
            Err(error) => {
                self.tables.lock().inlets.remove(&inlet.id);
                Err(error)
            }
        }
    }

    fn unsubscribe(&self, inlet: &Inlet) {
        self.tables.lock().inlets.remove(&inlet.id);
        let seq = self.next_message.fetch_add(1, Ordering::Relaxed);
        self.post(&Control { seq, request: ControlRequest::Unsubscribe { subscription: inlet.id } }.encode());
    }

    fn taken(&self, inlet: &Inlet) {
        if self.engine.is_closed() {
            return;
        }
        // Told in lots of a quarter of the capacity, so that the host never runs dry.
        let departed = inlet.departed();
        let told = inlet.credit_told.load(Ordering::Acquire);
        if departed.saturating_sub(told) >= inlet.credit_lot
            && inlet.credit_told.compare_exchange(told, departed, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        {
            let count = u32::try_from(departed - told).unwrap_or(u32::MAX);
            self.post(&Credit { subscription: inlet.id, count }.encode());
        }
    }

    fn serve(&self, name: &Name, options: ServeOptions) -> Result<Arc<ServiceInbox>> {
        self.engine.check_open("mesh.serve")?;
        options.validate()?;
        let inbox = ServiceInbox::new(&self.engine, self.number(), name, &options);
        self.tables.lock().services.insert(inbox.id, Arc::clone(&inbox));
        let request = ControlRequest::Serve {
            instance: inbox.id,
            name: name.as_str().to_owned(),
            version: options.version,
            concurrency: options.concurrency,
            queue: options.queue,
            rate: options.rate.map_or(0.0, |rate| rate.per_second),
            burst: options.rate.map_or(0, |rate| rate.burst),
        };
        match self.control("mesh.serve", request) {
            Ok(_) => Ok(inbox),
            Err(error) => {
                self.tables.lock().services.remove(&inbox.id);
                Err(error)
            }
        }
    }

    fn unserve(&self, inbox: &ServiceInbox) {
        // Once the host has answered, no further call is under way to us.
        let _ = self.control("service.close", ControlRequest::Unserve { instance: inbox.id });
        self.tables.lock().services.remove(&inbox.id);
    }

    fn answer(&self, call: u64, answer: Answer<'_>) -> Result<()> {
        const OPERATION: &str = "request.reply";
        self.engine.check_open(OPERATION)?;
        self.tables.lock().requests.remove(&call);
        let mut wait = Wait::timeout(CONTROL_TIMEOUT);
        match answer {
            Answer::Reply { payload, headers } => {
                let mut draft = Draft { headers, ..Draft::new(Kind::Response, call, "", payload) };
                draft.timestamp = Timestamp(os::time::coarse_wall_ns());
                self.send(OPERATION, &[&draft.header().encode(), headers, payload], &mut wait)
            }
            Answer::Failure(error) => self.send(OPERATION, &[&failure(call, &error)], &mut wait),
        }
    }

    fn start_call(
        &self,
        service: &str,
        draft: &mut Draft<'_>,
        timeout: Duration,
        wait: &mut Wait<'_>,
    ) -> Result<Started> {
        const OPERATION: &str = "mesh.call";
        self.engine.check_open(OPERATION)?;
        let call = self.next_message.fetch_add(1, Ordering::Relaxed);
        draft.id = call;
        draft.timestamp = Timestamp(os::time::coarse_wall_ns());
        let mailbox = Arc::new(Mailbox::new(&self.engine, CallState::Waiting));
        let until = self.engine.coarse_now() + timeout + CALL_GRACE;
        self.tables.lock().calls.insert(call, (Arc::clone(&mailbox), until));
        self.engine.due_changed(until);
        let fixed = draft.header().encode();
        let mut wait =
            Wait { timeout: Some(timeout), interrupt: wait.interrupt.as_deref_mut().map(|hook| hook as _) };
        let sent = self.check_still_open(OPERATION).and_then(|()| {
            self.send(OPERATION, &[&fixed, service.as_bytes(), draft.headers, draft.payload], &mut wait)
        });
        if let Err(error) = sent {
            self.tables.lock().calls.remove(&call);
            return Err(error);
        }
        Ok((call, mailbox))
    }

    fn cancel_call(&self, call: u64) {
        let mailbox = self.tables.lock().calls.remove(&call);
        if let Some((mailbox, _)) = mailbox {
            complete(&mailbox, Err(Error::new(ErrorKind::Cancelled, "mesh.call")));
            if !self.engine.is_closed() {
                self.post(&Cancel { call }.encode());
            }
        }
    }

    fn queue_request(
        &self,
        request: QueueRequest<'_>,
        durability: Option<Durability>,
        wait: &mut Wait<'_>,
    ) -> Result<Answered> {
        const OPERATION: &str = "queue.request";
        let reserves = matches!(request, QueueRequest::Reserve { .. });
        let limit = match wait.timeout {
            None if reserves => None,
            None => Some(REQUEST_TIMEOUT),
            // The host says when a reservation's time is up; it must have the time to.
            Some(timeout) if reserves => Some(timeout.saturating_add(ANSWER_GRACE)),
            Some(timeout) => Some(timeout.min(REQUEST_TIMEOUT)),
        };
        let asked = if reserves { wait.timeout } else { limit };
        let (call, mailbox) = self.start_queue_request(request, durability, asked)?;
        let mut wait =
            Wait { timeout: limit, interrupt: wait.interrupt.as_deref_mut().map(|hook| hook as _) };
        let waited = mailbox.wait(OPERATION, &mut wait, CallState::take);
        match waited {
            Ok(result) => Answered::decode(result?.payload()),
            Err(error) => {
                self.cancel_queue_request(call);
                let mut left = None;
                mailbox.put(|state| {
                    left = state.take();
                    false
                });
                if let Some(Ok(message)) = left {
                    queue::release_untaken(self, &message);
                }
                Err(match error.kind() {
                    ErrorKind::Timeout => error.with("reason", "the host does not answer"),
                    _ => error,
                })
            }
        }
    }

    fn start_queue_request(
        &self,
        request: QueueRequest<'_>,
        durability: Option<Durability>,
        timeout: Option<Duration>,
    ) -> Result<Started> {
        const OPERATION: &str = "queue.request";
        self.engine.check_open(OPERATION)?;
        let timeout = match (timeout, &request) {
            (timeout, QueueRequest::Reserve { .. }) => timeout,
            (timeout, _) => Some(timeout.unwrap_or(REQUEST_TIMEOUT)),
        };
        request.check()?;
        let payload = Sent { request, durability }.encode();
        super::check_payload(&payload, self.max_message_bytes, OPERATION)?;
        let call = self.next_message.fetch_add(1, Ordering::Relaxed);
        // Rounded up; the longest is for ever.
        let aux = timeout.map_or(u32::MAX, |timeout| {
            u32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX)
        });
        let mut draft = Draft { aux, ..Draft::new(Kind::Request, call, SERVICE, &payload) };
        draft.timestamp = Timestamp(os::time::coarse_wall_ns());
        let mailbox = Arc::new(Mailbox::new(&self.engine, CallState::Waiting));
        let until = timeout
            .map_or(Moment::NEVER, |timeout| self.engine.coarse_now() + timeout + ANSWER_GRACE + CALL_GRACE);
        self.tables.lock().calls.insert(call, (Arc::clone(&mailbox), until));
        if until != Moment::NEVER {
            self.engine.due_changed(until);
        }
        let mut wait = Wait::timeout(REQUEST_TIMEOUT);
        let sent = self.check_still_open(OPERATION).and_then(|()| {
            self.send(OPERATION, &[&draft.header().encode(), SERVICE.as_bytes(), &payload], &mut wait)
        });
        if let Err(error) = sent {
            self.tables.lock().calls.remove(&call);
            return Err(error);
        }
        Ok((call, mailbox))
    }

    fn cancel_queue_request(&self, call: u64) {
        if self.tables.lock().calls.remove(&call).is_some() && !self.engine.is_closed() {
            self.post(&Cancel { call }.encode());
        }
    }

    fn jobs(&self) -> &Jobs {
        &self.jobs
    }

    fn services(&self) -> Result<Vec<ServiceInfo>> {
        Ok(self.control("mesh.services", ControlRequest::Services)?.services)
    }

    fn stats(&self) -> Result<Stats> {
        let reply = self.control("mesh.stats", ControlRequest::Stats)?;
        reply.stats.ok_or_else(|| {
            Error::new(ErrorKind::Protocol, "mesh.stats").with("violation", "no stats in the answer")
        })
    }

    fn listen_tcp(&self, _: &str, _: &[u8]) -> Result<SocketAddr> {
        Err(Error::new(ErrorKind::Unsupported, "mesh.listen_tcp").with("reason", "only a host listens"))
    }

    fn close(&self, reason: Error) {
        if self.engine.origin.is_here() && !self.engine.is_closed() {
            // The host hangs up when it reads this, maybe before we are done: that is not the reason.
            self.engine.set_close_reason(&reason);
            // A thread that waits for room holds it, maybe for long: then the host sees the socket close.
            if let Some(mut outbox) = self.outbox.try_lock_for(ROOM_SLICE) {
                let _ = outbox.queue(&[Kind::Bye as u8]).and_then(|()| outbox.flush());
            }
        }
        self.end(reason);
        if self.engine.origin.is_here() {
            self.engine.join();
            self.jobs.join();
            self.engine.drop_links();
        }
    }
}
