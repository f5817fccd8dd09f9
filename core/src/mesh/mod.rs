//! The mesh: what programs hold. A host or a client, with the same operations.
//!
//! All threads of the core are born and joined here: one poller for each mesh, and those that
//! [`Mesh::serve`] and [`Mesh::on`] start for their handlers.
#![forbid(unsafe_code)]

mod backend;
mod call;
mod client;
mod engine;
mod host;
mod keeper;
mod options;
mod queue;
mod service;
mod subscription;
mod wait;
mod worker;

pub use crate::shm::WaitStrategy;
pub use call::PendingCall;
pub use options::{CallOptions, HandlerError, PublishOptions, Reply};
pub use queue::{Job, PendingReply, Queue, Receipt, Settle};
pub use service::{Request, Service};
pub use subscription::Subscription;
pub use wait::{ReadySet, Wait};
pub use worker::{JobError, Worker, WorkerOptions, WorkerStats};

use crate::sync::lock::Mutex;
use crate::{
    bus::{Delivery, SubscribeOptions},
    error::{Error, ErrorKind, Result},
    name::{self, Name, Pattern},
    os,
    queue::{Answered, QueueConfig, QueueId, QueueReply, QueueRequest},
    rpc::{Breaker, BreakerOptions, ServeOptions},
    session::{ConnectConfig, connect_tcp, connect_unix},
    stats::{ServiceInfo, Stats},
    wire::{self, Draft, Kind, Message},
};
use backend::Backend;
use call::CallFlags;
use hashbrown::HashMap;
use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Whether this process is the host of its directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It holds the directory; clients connect to it.
    Host,
    /// It is attached to a host.
    Client,
}

/// A host or a client of one mesh. Cheap to clone; the last clone closes it.
///
/// Every method may be called from any thread. What does not say that it waits returns at once.
///
/// ```
/// # let dir = std::env::temp_dir().join(format!("flowmesh-doc-mesh-{}", std::process::id()));
/// use flowmesh::{Mesh, Reply, ServeOptions};
/// use std::time::Duration;
///
/// let host = Mesh::open(&dir)?;
/// let client = Mesh::connect(&dir)?; // usually in another process
/// let upper = client.serve("text.upper", ServeOptions::default(), |request| {
///     Ok(Reply::from(request.payload().to_ascii_uppercase()))
/// })?;
/// let answer = host.call("text.upper", b"hello", Duration::from_secs(5))?;
/// assert_eq!(answer.payload(), b"HELLO");
/// # drop((upper, client, host)); std::fs::remove_dir_all(dir).ok();
/// # Ok::<(), flowmesh::Error>(())
/// ```
#[derive(Clone)]
pub struct Mesh(Arc<Open>);

struct Open {
    backend: Arc<dyn Backend>,
    role: Role,
    directory: Option<PathBuf>,
    breaker: Option<BreakerOptions>,
    breakers: Mutex<HashMap<String, Arc<Mutex<Breaker>>>>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.backend.close(Error::new(ErrorKind::Closed, "mesh.close"));
    }
}

impl fmt::Debug for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mesh")
            .field("role", &self.0.role)
            .field("session", &self.session())
            .finish_non_exhaustive()
    }
}

/// Settings of a mesh; all have defaults.
#[derive(Clone, Debug)]
pub struct MeshBuilder {
    name: Option<String>,
    language: &'static str,
    max_message_bytes: usize,
    ring_bytes: usize,
    max_sessions: usize,
    strategy: WaitStrategy,
    connect_timeout: Duration,
    shared_memory: bool,
    breaker: Option<BreakerOptions>,
    repair: bool,
}

impl Default for MeshBuilder {
    fn default() -> Self {
        Self {
            name: None,
            language: "rust",
            max_message_bytes: wire::MESSAGE_BYTES_DEFAULT,
            ring_bytes: 1024 * 1024,
            max_sessions: 1024,
            strategy: WaitStrategy::default(),
            connect_timeout: Duration::from_secs(5),
            shared_memory: true,
            breaker: Some(BreakerOptions::default()),
            repair: false,
        }
    }
}

impl MeshBuilder {
    /// The name shown in discovery and errors, at most 255 bytes. Default: the program's name.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// The language shown in statistics; bindings set it. Default: `rust`.
    #[must_use]
    pub fn language(mut self, language: &'static str) -> Self {
        self.language = language;
        self
    }

    /// Host: the largest payload, 1 KiB to 1 GiB. Default: 64 MiB.
    #[must_use]
    pub fn max_message_bytes(mut self, bytes: usize) -> Self {
        self.max_message_bytes = bytes;
        self
    }

    /// Host: bytes of the ring in each direction of a session, a power of two, 64 KiB to 64 MiB. Default: 1 MiB.
    #[must_use]
    pub fn ring_bytes(mut self, bytes: usize) -> Self {
        self.ring_bytes = bytes;
        self
    }

    /// Host: clients at once. Default: 1024.
    #[must_use]
    pub fn max_sessions(mut self, count: usize) -> Self {
        self.max_sessions = count;
        self
    }

    /// How waiting threads wait. Default: adaptive, spinning at most 5 µs.
    #[must_use]
    pub fn wait_strategy(mut self, strategy: WaitStrategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// Client: how long connecting may take. Default: 5 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Client: whether frames go through shared memory, or over the Unix socket. Default: true.
    #[must_use]
    pub fn shared_memory(mut self, yes: bool) -> Self {
        self.shared_memory = yes;
        self
    }

    /// When calls to a failing service are refused here, before they are sent; `None` for never.
    #[must_use]
    pub fn breaker(mut self, options: Option<BreakerOptions>) -> Self {
        self.breaker = options;
        self
    }

    /// Host: whether a damaged ledger is opened all the same. What is damaged is moved into `quarantine/` of the ledger's
    /// folder, never deleted; what was written after it stays. A queue whose declaration was lost is called `recovered-`
    /// and a number, with settings as they are by default. Default: no, opening is refused as
    /// [`Corrupt`](ErrorKind::Corrupt), naming file and offset.
    #[must_use]
    pub fn repair(mut self, yes: bool) -> Self {
        self.repair = yes;
        self
    }

    /// Opens `directory` as its host; makes it, for this user only, if it is not there.
    ///
    /// # Errors
    /// - [`AlreadyOpen`](ErrorKind::AlreadyOpen): another process is its host; `pid` names it.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): a setting is out of its range.
    /// - [`Corrupt`](ErrorKind::Corrupt): its ledger is damaged; names file and offset. See [`repair`](Self::repair).
    /// - [`Unsupported`](ErrorKind::Unsupported): a newer version wrote its ledger.
    /// - [`PermissionDenied`](ErrorKind::PermissionDenied), [`ResourceExhausted`](ErrorKind::ResourceExhausted),
    ///   [`StorageFull`](ErrorKind::StorageFull), [`Io`](ErrorKind::Io).
    pub fn open(self, directory: impl AsRef<Path>) -> Result<Mesh> {
        self.check("mesh.open")?;
        let directory = directory.as_ref();
        check_directory(directory, "mesh.open")?;
        let config = host::HostConfig {
            name: self.shown_name(),
            language: self.language,
            ring_bytes: self.ring_bytes,
            max_message_bytes: self.max_message_bytes,
            max_sessions: self.max_sessions,
            strategy: self.strategy,
            repair: self.repair,
        };
        let host = host::Host::open(directory, config)?;
        Ok(self.finish(host, Role::Host, Some(directory)))
    }

    /// Attaches to the host of `directory`. Waits for the handshake, at most the connect timeout.
    ///
    /// # Errors
    /// - [`NotFound`](ErrorKind::NotFound): no such directory, or no host has it open.
    /// - [`PermissionDenied`](ErrorKind::PermissionDenied): this user may not.
    /// - [`Protocol`](ErrorKind::Protocol): whoever listens there is not FlowMesh.
    /// - [`VersionMismatch`](ErrorKind::VersionMismatch): no common version; the message names both ranges.
    /// - [`Timeout`](ErrorKind::Timeout), [`ResourceExhausted`](ErrorKind::ResourceExhausted),
    ///   [`Disconnected`](ErrorKind::Disconnected).
    pub fn connect(self, directory: impl AsRef<Path>) -> Result<Mesh> {
        self.check("mesh.connect")?;
        let directory = directory.as_ref();
        check_directory(directory, "mesh.connect")?;
        let connected = connect_unix(directory, &self.connect_config())?;
        let client = client::Client::start(connected, self.strategy)?;
        Ok(self.finish(client, Role::Client, Some(directory)))
    }

    /// Attaches to a host that listens on TCP ([`Mesh::listen_tcp`]). Both sides prove that they know
    /// `secret`; what follows is not encrypted.
    ///
    /// # Errors
    /// Those of [`connect`](Self::connect), and [`Unauthenticated`](ErrorKind::Unauthenticated).
    pub fn connect_tcp(self, address: &str, secret: &[u8]) -> Result<Mesh> {
        self.check("mesh.connect_tcp")?;
        let connected = connect_tcp(address, secret, &self.connect_config())?;
        let client = client::Client::start(connected, self.strategy)?;
        Ok(self.finish(client, Role::Client, None))
    }

    fn connect_config(&self) -> ConnectConfig {
        ConnectConfig {
            name: self.shown_name(),
            language: self.language,
            shared_memory: self.shared_memory,
            timeout: self.connect_timeout,
        }
    }

    fn shown_name(&self) -> String {
        self.name.clone().unwrap_or_else(|| {
            let program = std::env::args_os().next().unwrap_or_default();
            Path::new(&program).file_name().unwrap_or_default().to_string_lossy().into_owned()
        })
    }

    fn finish(&self, backend: Arc<dyn Backend>, role: Role, directory: Option<&Path>) -> Mesh {
        Mesh(Arc::new(Open {
            backend,
            role,
            directory: directory.map(Path::to_path_buf),
            breaker: self.breaker,
            breakers: Mutex::default(),
        }))
    }

    fn check(&self, operation: &'static str) -> Result<()> {
        let range = |name: &'static str, value: usize, low: usize, high: usize| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            Err(Error::new(ErrorKind::InvalidArgument, operation)
                .with(name, value)
                .with("minimum", low)
                .with("limit", high))
        };
        range("max_message_bytes", self.max_message_bytes, 1024, wire::MESSAGE_BYTES_LIMIT)?;
        range("ring_bytes", self.ring_bytes, 64 * 1024, 64 * 1024 * 1024)?;
        range("max_sessions", self.max_sessions, 1, 65_536)?;
        if !self.ring_bytes.is_power_of_two() {
            return Err(Error::new(ErrorKind::InvalidArgument, operation)
                .with("ring_bytes", self.ring_bytes)
                .with("rule", "a power of two"));
        }
        if let Some(name) = &self.name
            && name.len() > 255
        {
            return Err(Error::new(ErrorKind::InvalidArgument, operation)
                .with("name_bytes", name.len())
                .with("limit_bytes", 255));
        }
        match self.strategy {
            WaitStrategy::Timed { interval } if interval.is_zero() => {
                return Err(Error::new(ErrorKind::InvalidArgument, operation)
                    .with("interval", "0")
                    .with("rule", "more than zero"));
            }
            WaitStrategy::Adaptive { spin } if spin > Duration::from_millis(1) => {
                return Err(Error::new(ErrorKind::InvalidArgument, operation)
                    .with("spin_us", spin.as_micros())
                    .with("limit_us", 1000));
            }
            _ => {}
        }
        self.breaker.as_ref().map_or(Ok(()), BreakerOptions::validate)
    }
}

impl Mesh {
    /// Opens `directory` as its host, with default settings. See [`MeshBuilder::open`].
    ///
    /// # Errors
    /// Those of [`MeshBuilder::open`].
    pub fn open(directory: impl AsRef<Path>) -> Result<Self> {
        Self::builder().open(directory)
    }

    /// Attaches to the host of `directory`, with default settings. See [`MeshBuilder::connect`].
    ///
    /// # Errors
    /// Those of [`MeshBuilder::connect`].
    pub fn connect(directory: impl AsRef<Path>) -> Result<Self> {
        Self::builder().connect(directory)
    }

    /// Settings other than the defaults.
    pub fn builder() -> MeshBuilder {
        MeshBuilder::default()
    }

    /// Host or client.
    pub fn role(&self) -> Role {
        self.0.role
    }

    /// This session's number on the mesh; 0 is the host.
    pub fn session(&self) -> u32 {
        self.0.backend.session()
    }

    /// The data directory; `None` over TCP.
    pub fn directory(&self) -> Option<PathBuf> {
        self.0.directory.clone()
    }

    /// The host's process.
    pub fn host_pid(&self) -> u32 {
        self.0.backend.host_pid()
    }

    /// The largest payload this mesh takes.
    pub fn max_message_bytes(&self) -> usize {
        self.0.backend.max_message_bytes()
    }

    /// Whether it was closed, or lost its host.
    pub fn is_closed(&self) -> bool {
        self.0.backend.engine().is_closed()
    }

    /// Ends it: every wait ends with [`Closed`](ErrorKind::Closed), clients of a host see
    /// [`Disconnected`](ErrorKind::Disconnected). Does nothing the second time.
    pub fn close(&self) {
        self.0.backend.close(Error::new(ErrorKind::Closed, "mesh.close"));
    }

    /// Host: also takes clients in that connect to `address` (`"127.0.0.1:7000"`; port 0 picks one) and
    /// prove that they know `secret`, of at least 16 bytes. Frames over TCP are not encrypted: use it inside
    /// a network you trust, or through a tunnel. Returns the address it listens on.
    ///
    /// # Errors
    /// - [`Unauthenticated`](ErrorKind::Unauthenticated): no secret.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): the secret is too short.
    /// - [`Unsupported`](ErrorKind::Unsupported): this is a client.
    /// - [`Io`](ErrorKind::Io): the address cannot be listened on.
    pub fn listen_tcp(&self, address: &str, secret: &[u8]) -> Result<SocketAddr> {
        self.0.backend.listen_tcp(address, secret)
    }

    /// Publishes an event to all subscriptions that match `subject`. Returns its id.
    ///
    /// A host routes it before this returns; a client's is on its way. Waits only when the ring is full or a
    /// subscriber blocks, at most 30 s.
    ///
    /// # Errors
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): the subject is not valid, or begins with `$`.
    /// - [`TooLarge`](ErrorKind::TooLarge): the payload is over [`max_message_bytes`](Self::max_message_bytes).
    /// - [`Timeout`](ErrorKind::Timeout): no room in time. A client's event was not sent.
    /// - [`Closed`](ErrorKind::Closed), [`Disconnected`](ErrorKind::Disconnected), [`Forked`](ErrorKind::Forked).
    pub fn publish(&self, subject: &str, payload: &[u8]) -> Result<u64> {
        self.publish_with(subject, payload, &PublishOptions::default())
    }

    /// Publishes an event with headers, priority, time to live or delay.
    ///
    /// # Errors
    /// Those of [`publish`](Self::publish); [`TooLarge`](ErrorKind::TooLarge) also for headers;
    /// [`Full`](ErrorKind::Full) when too many events wait for their delay.
    pub fn publish_with(&self, subject: &str, payload: &[u8], options: &PublishOptions) -> Result<u64> {
        self.publish_wait(subject, payload, options, &mut Wait::forever())
    }

    /// Like [`publish_with`](Self::publish_with); `wait.interrupt` can end the waiting.
    ///
    /// # Errors
    /// Those of [`publish_with`](Self::publish_with), and [`Interrupted`](ErrorKind::Interrupted).
    pub fn publish_wait(
        &self,
        subject: &str,
        payload: &[u8],
        options: &PublishOptions,
        wait: &mut Wait<'_>,
    ) -> Result<u64> {
        const OPERATION: &str = "mesh.publish";
        name::check_publishable(subject, OPERATION)?;
        check_payload(payload, self.max_message_bytes(), OPERATION)?;
        let headers = check_publish(options, OPERATION)?;
        let mut draft = draft_of(subject, payload, &headers, options, OPERATION)?;
        self.0.backend.publish(&mut draft, options, wait)
    }

    /// Publishes many events in order: events in a row with one subject share a frame, a route and a wake-up.
    /// All are checked before the first is sent; `options` hold for each.
    ///
    /// # Errors
    /// Those of [`publish_with`](Self::publish_with). The error's context says under `published` how many, from
    /// the first on, were sent before it.
    pub fn publish_many<S: AsRef<str>, P: AsRef<[u8]>>(
        &self,
        events: &[(S, P)],
        options: &PublishOptions,
    ) -> Result<()> {
        self.publish_many_wait(
            events.iter().map(|(subject, payload)| (subject.as_ref(), payload.as_ref())),
            options,
            &mut Wait::forever(),
        )
    }

    /// Like [`publish_many`](Self::publish_many); `wait.interrupt` can end the waiting.
    ///
    /// # Errors
    /// Those of [`publish_many`](Self::publish_many), and [`Interrupted`](ErrorKind::Interrupted).
    pub fn publish_many_wait<'a>(
        &self,
        events: impl Iterator<Item = (&'a str, &'a [u8])> + Clone,
        options: &PublishOptions,
        wait: &mut Wait<'_>,
    ) -> Result<()> {
        const OPERATION: &str = "mesh.publish_many";
        let limit = self.max_message_bytes();
        let mut last = "";
        for (index, (subject, payload)) in events.clone().enumerate() {
            if !std::ptr::eq(last, subject) {
                name::check_publishable(subject, OPERATION).map_err(|error| error.with("index", index))?;
                last = subject;
            }
            check_payload(payload, limit, OPERATION).map_err(|error| error.with("index", index))?;
        }
        let headers = check_publish(options, OPERATION)?;
        let mut draft = draft_of("", b"", &headers, options, OPERATION)?;
        let mut events = events;
        self.0.backend.publish_many(&mut events, &mut draft, options, wait)
    }

    /// Receives events whose subject matches `pattern`: `*` is one token, `>` the rest.
    ///
    /// It holds when this returns: every event published from then on is seen.
    ///
    /// # Errors
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): the pattern is not valid.
    /// - [`ResourceExhausted`](ErrorKind::ResourceExhausted): too many subscriptions.
    /// - [`Closed`](ErrorKind::Closed), [`Disconnected`](ErrorKind::Disconnected), [`Forked`](ErrorKind::Forked).
    pub fn subscribe(&self, pattern: &str) -> Result<Subscription> {
        self.subscribe_with(pattern, SubscribeOptions::default())
    }

    /// Receives events with a queue group, a policy for slow subscribers, or retries.
    ///
    /// # Errors
    /// Those of [`subscribe`](Self::subscribe).
    #[allow(clippy::needless_pass_by_value)] // options read best as a value, like a builder's
    pub fn subscribe_with(&self, pattern: &str, options: SubscribeOptions) -> Result<Subscription> {
        let pattern = Pattern::parse(pattern)?;
        options.validate()?;
        let inlet = self.0.backend.subscribe(&pattern, &options)?;
        Ok(Subscription::new(Arc::clone(&self.0.backend), inlet))
    }

    /// Calls `handler` for each event that matches, on a thread of its own. A handler that fails or panics
    /// is tried again, and its event becomes a dead letter, as `options.retry` says.
    ///
    /// # Errors
    /// Those of [`subscribe`](Self::subscribe).
    pub fn on(
        &self,
        pattern: &str,
        options: SubscribeOptions,
        handler: impl Fn(&Delivery) -> std::result::Result<(), HandlerError> + Send + 'static,
    ) -> Result<Subscription> {
        let subscription = self.subscribe_with(pattern, options)?;
        let events = subscription.feed();
        os::thread::spawn("flowmesh-on", move || {
            while let Some(delivery) = events.next() {
                let outcome = guarded(|| handler(&delivery));
                if let Err(error) = outcome {
                    // A dead letter that cannot be published any more has nowhere to go.
                    let _ = events.fail(delivery, &error);
                }
            }
        })?;
        Ok(subscription)
    }

    /// Serves calls of `name` with `handler`, on `options.concurrency` threads. Serving ends when the
    /// service is dropped.
    ///
    /// A handler that fails, or panics, fails its call with
    /// [`HandlerFailed`](ErrorKind::HandlerFailed); one that never returns keeps one thread busy and its call
    /// ends at the caller's deadline.
    ///
    /// # Errors
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): the name or an option is not valid.
    /// - [`Closed`](ErrorKind::Closed), [`Disconnected`](ErrorKind::Disconnected), [`Forked`](ErrorKind::Forked).
    pub fn serve(
        &self,
        name: &str,
        options: ServeOptions,
        handler: impl Fn(&Request) -> std::result::Result<Reply, HandlerError> + Send + Sync + 'static,
    ) -> Result<Service> {
        let threads = options.concurrency;
        let service = self.service(name, options)?;
        let handler = Arc::new(handler);
        for _ in 0..threads {
            let (handler, calls) = (Arc::clone(&handler), service.feed());
            os::thread::spawn("flowmesh-serve", move || {
                while let Some(request) = calls.next() {
                    // An answer that cannot be sent any more has nobody who waits for it.
                    let _ = match guarded(|| handler(&request)) {
                        Ok(reply) => request.reply(&reply.payload, &reply.headers),
                        Err(error) => request.fail(&error),
                    };
                }
            })?;
        }
        Ok(service)
    }

    /// Serves calls of `name`, which the caller takes with [`Service::next`].
    ///
    /// # Errors
    /// Those of [`serve`](Self::serve).
    pub fn service(&self, name: &str, options: ServeOptions) -> Result<Service> {
        let name = Name::parse(name)?;
        options.validate()?;
        let inbox = self.0.backend.serve(&name, options)?;
        Ok(Service::new(Arc::clone(&self.0.backend), inbox))
    }

    /// Calls a service and waits for its answer, at most `timeout`.
    ///
    /// # Errors
    /// - [`NoService`](ErrorKind::NoService): nobody serves this name.
    /// - [`HandlerFailed`](ErrorKind::HandlerFailed): with the handler's `type` and `message`.
    /// - [`Timeout`](ErrorKind::Timeout): no answer in time; the handler is told.
    /// - [`PeerGone`](ErrorKind::PeerGone): the instance died.
    /// - [`RateLimited`](ErrorKind::RateLimited), [`CircuitOpen`](ErrorKind::CircuitOpen), [`Full`](ErrorKind::Full).
    /// - [`TooLarge`](ErrorKind::TooLarge), [`InvalidArgument`](ErrorKind::InvalidArgument).
    /// - [`Closed`](ErrorKind::Closed), [`Disconnected`](ErrorKind::Disconnected), [`Forked`](ErrorKind::Forked).
    pub fn call(&self, service: &str, payload: &[u8], timeout: Duration) -> Result<Message> {
        let options = CallOptions { timeout, ..CallOptions::default() };
        self.call_with(service, payload, &options, &mut Wait::forever())
    }

    /// Calls a service with headers; `wait.interrupt` can end the waiting, its timeout is not looked at.
    ///
    /// # Errors
    /// Those of [`call`](Self::call), and [`Interrupted`](ErrorKind::Interrupted).
    pub fn call_with(
        &self,
        service: &str,
        payload: &[u8],
        options: &CallOptions,
        wait: &mut Wait<'_>,
    ) -> Result<Message> {
        let pending = self.start(service, payload, options, wait)?;
        let mut wait = Wait { timeout: Some(options.timeout), interrupt: wait.interrupt.take() };
        let result = pending.wait(&mut wait);
        match result {
            // Our own wait ended first; the call is cancelled when `pending` is dropped.
            Err(error) if error.kind() == ErrorKind::Timeout && error.get("service").is_none() => {
                let timed_out = Err(error.with("service", service));
                pending.observe(&timed_out);
                timed_out
            }
            other => other,
        }
    }

    /// Starts a call whose result is taken later.
    ///
    /// # Errors
    /// Those of [`call`](Self::call) that are known before the call is sent.
    pub fn start_call(&self, service: &str, payload: &[u8], options: &CallOptions) -> Result<PendingCall> {
        self.start(service, payload, options, &mut Wait::forever())
    }

    fn start(
        &self,
        service: &str,
        payload: &[u8],
        options: &CallOptions,
        wait: &mut Wait<'_>,
    ) -> Result<PendingCall> {
        const OPERATION: &str = "mesh.call";
        self.0.backend.engine().origin.check(OPERATION)?;
        check_payload(payload, self.max_message_bytes(), OPERATION)?;
        let headers = if options.headers.is_empty() {
            Vec::new()
        } else {
            Draft::encode_headers(options.headers.iter().map(|(name, value)| (name, value)), OPERATION)?
        };
        let timeout_ms = options::millis(Some(options.timeout), "timeout", OPERATION)?;
        let breaker = self.breaker_of(service)?;
        if let Some(breaker) = &breaker {
            breaker.lock().admit(self.0.backend.engine().coarse_now())?;
        }
        let mut draft =
            Draft { headers: &headers, aux: timeout_ms, ..Draft::new(Kind::Request, 0, service, payload) };
        let (call, mailbox) = self.0.backend.start_call(service, &mut draft, options.timeout, wait)?;
        Ok(PendingCall {
            call,
            mailbox,
            backend: Arc::clone(&self.0.backend),
            breaker,
            flags: CallFlags::default(),
        })
    }

    /// The breaker of a service; a valid name has one from its first call on.
    fn breaker_of(&self, service: &str) -> Result<Option<Arc<Mutex<Breaker>>>> {
        let Some(options) = self.0.breaker else {
            Name::parse(service)?;
            return Ok(None);
        };
        let mut breakers = self.0.breakers.lock();
        if let Some(breaker) = breakers.get(service) {
            return Ok(Some(Arc::clone(breaker)));
        }
        let name = Name::parse(service)?;
        if breakers.len() >= BREAKERS_MAX {
            breakers.retain(|_, breaker| Arc::strong_count(breaker) > 1);
        }
        let breaker = Arc::new(Mutex::new(Breaker::new(&name, options)));
        breakers.insert(service.to_owned(), Arc::clone(&breaker));
        Ok(Some(breaker))
    }

    /// Makes sure that there is a queue of this name, and gives it. The first queue of a directory begins its ledger.
    ///
    /// # Errors
    /// - [`Conflict`](ErrorKind::Conflict): it is there with other settings; names the first field that differs, and
    ///   both values. [`Queue::configure`] changes them.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): the name or a setting is not valid; names value and limit.
    /// - [`StorageFull`](ErrorKind::StorageFull), [`Frozen`](ErrorKind::Frozen), [`Io`](ErrorKind::Io).
    /// - [`Timeout`](ErrorKind::Timeout), [`Closed`](ErrorKind::Closed), [`Disconnected`](ErrorKind::Disconnected),
    ///   [`Forked`](ErrorKind::Forked).
    pub fn declare_queue(&self, name: &str, config: &QueueConfig) -> Result<Queue> {
        let request = QueueRequest::Declare { name: name.into(), config: Box::new(config.clone()) };
        self.queue_of(name, request)
    }

    /// The queue of this name.
    ///
    /// # Errors
    /// - [`NotFound`](ErrorKind::NotFound): nobody declared it.
    /// - Those of [`declare_queue`](Self::declare_queue) that are not about settings.
    pub fn queue(&self, name: &str) -> Result<Queue> {
        self.queue_of(name, QueueRequest::Find { name: name.into() })
    }

    fn queue_of(&self, name: &str, request: QueueRequest<'_>) -> Result<Queue> {
        match self.request_queues(request, &mut Wait::forever())?.reply {
            QueueReply::Queue { id, .. } => Ok(self.queue_with(id, name)),
            _ => Err(queue::unexpected("mesh.queue")),
        }
    }

    /// The names of all queues.
    ///
    /// # Errors
    /// Those of [`queue`](Self::queue).
    pub fn queues(&self) -> Result<Vec<String>> {
        match self.request_queues(QueueRequest::Names, &mut Wait::forever())?.reply {
            QueueReply::Names(names) => Ok(names),
            _ => Err(queue::unexpected("mesh.queues")),
        }
    }

    /// Asks the queues for something that is not one queue's, and waits for the answer.
    ///
    /// # Errors
    /// Those of what is asked.
    pub fn request_queues(&self, request: QueueRequest<'_>, wait: &mut Wait<'_>) -> Result<Answered> {
        self.0.backend.queue_request(request, None, wait)
    }

    /// Asks the queues for something that is not one queue's; the answer is taken later.
    ///
    /// # Errors
    /// Those that are known at once.
    pub fn start_request_queues(&self, request: QueueRequest<'_>) -> Result<PendingReply> {
        queue::start(&self.0.backend, request, None, None)
    }

    /// The handle of a queue whose number is known from a [`QueueReply::Queue`].
    pub fn queue_with(&self, id: QueueId, name: &str) -> Queue {
        Queue::new(Arc::clone(&self.0.backend), id, name)
    }

    /// Lists the services of the mesh with their instances.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed), [`Disconnected`](ErrorKind::Disconnected), [`Forked`](ErrorKind::Forked).
    pub fn services(&self) -> Result<Vec<ServiceInfo>> {
        self.0.backend.services()
    }

    /// Everything the host counts, at one moment.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed), [`Disconnected`](ErrorKind::Disconnected), [`Forked`](ErrorKind::Forked).
    pub fn stats(&self) -> Result<Stats> {
        self.0.backend.stats()
    }
}

/// Breakers kept before those of names that are not being called are forgotten.
const BREAKERS_MAX: usize = 4096;

/// Runs a handler; its panic is a failure of type `panic`.
fn guarded<T>(
    handler: impl FnOnce() -> std::result::Result<T, HandlerError>,
) -> std::result::Result<T, HandlerError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(handler)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        Err(HandlerError::new("panic", text))
    })
}

/// Runs a worker's handler; its panic is a failure.
fn guarded_job<T>(
    handler: impl FnOnce() -> std::result::Result<T, JobError>,
) -> std::result::Result<T, JobError> {
    guarded(|| Ok(handler())).unwrap_or_else(|panic| {
        Err(JobError::Failed { message: format!("panic: {}", panic.message), detail: String::new() })
    })
}

fn check_directory(directory: &Path, operation: &'static str) -> Result<()> {
    let bytes = directory.as_os_str().as_encoded_bytes();
    let rule = match bytes {
        [] => "it is empty",
        _ if bytes.contains(&0) => "a path holds no NUL",
        _ => return Ok(()),
    };
    Err(Error::new(ErrorKind::InvalidArgument, operation)
        .with("directory", format!("{directory:?}"))
        .with("rule", rule))
}

fn check_payload(payload: &[u8], limit: usize, operation: &'static str) -> Result<()> {
    if payload.len() <= limit {
        return Ok(());
    }
    Err(Error::new(ErrorKind::TooLarge, operation)
        .with("payload_bytes", payload.len())
        .with("limit_bytes", limit))
}

fn check_publish(options: &PublishOptions, operation: &'static str) -> Result<Vec<u8>> {
    if options.priority > 9 {
        return Err(Error::new(ErrorKind::InvalidArgument, operation)
            .with("priority", options.priority)
            .with("limit", 9));
    }
    if options.headers.is_empty() {
        return Ok(Vec::new());
    }
    Draft::encode_headers(options.headers.iter().map(|(name, value)| (name, value)), operation)
}

fn draft_of<'a>(
    subject: &'a str,
    payload: &'a [u8],
    headers: &'a [u8],
    options: &PublishOptions,
    operation: &'static str,
) -> Result<Draft<'a>> {
    Ok(Draft {
        headers,
        priority: options.priority,
        ttl_ms: options::millis(options.ttl, "ttl", operation)?,
        delay_ms: options::millis(options.delay, "delay", operation)?,
        ..Draft::new(Kind::Event, 0, subject, payload)
    })
}
