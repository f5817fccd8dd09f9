//! Runs the scenarios of `tests/behaviour/` through the Rust API. What the steps mean is written in
//! `tests/behaviour/README.md`.
//!
//! `cargo test -p flowmesh --test behaviour -- [FILE…]`
#![forbid(unsafe_code)]

#[path = "behaviour/queues.rs"]
mod queues;

use flowmesh::{
    Backoff, BreakerOptions, CallOptions, Delivery, Error, ErrorKind, HandlerError, Mesh, Message, Name,
    OnSlow, PendingCall, PublishOptions, RateLimit, Reply, Request, Retry, Role, ServeOptions, Service,
    Subject, SubscribeOptions, Subscription, Wait,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::{Read, Write},
    os::unix::{fs::DirBuilderExt, net::UnixListener},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

const WATCHDOG: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(2);

fn main() -> ExitCode {
    let mut files: Vec<PathBuf> =
        std::env::args().skip(1).filter(|argument| argument.ends_with(".json")).map(PathBuf::from).collect();
    if files.is_empty() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/behaviour");
        let entries = fs::read_dir(&directory).expect("the scenarios lie beside the crate");
        files = entries.map(|entry| entry.expect("a directory entry").path()).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        files.sort();
    }
    let (mut passed, mut failed) = (0, 0);
    for file in files {
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let scenario: Scenario =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        for role in &scenario.on {
            let outcome = World::new(*role, &scenario.mesh).and_then(|mut world| world.run(&scenario.steps));
            let role = if *role == On::Host { "host" } else { "client" };
            match outcome {
                Ok(()) => {
                    passed += 1;
                    println!("ok {} on {role}", scenario.name);
                }
                Err(reason) => {
                    failed += 1;
                    println!("FAILED {} on {role}: {reason}", scenario.name);
                }
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    name: String,
    #[serde(rename = "why")]
    _why: String,
    #[serde(default = "both")]
    on: Vec<On>,
    #[serde(default)]
    mesh: MeshOptions,
    steps: Vec<Value>,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum On {
    Host,
    Client,
}

fn both() -> Vec<On> {
    vec![On::Host, On::Client]
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct MeshOptions {
    max_message_bytes: Option<usize>,
    ring_bytes: Option<usize>,
    max_sessions: Option<usize>,
    breaker: Option<BreakerSpec>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum BreakerSpec {
    Off(bool),
    On(BreakerFields),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BreakerFields {
    window_ms: Option<u64>,
    min_calls: Option<u32>,
    failure_ratio: Option<f64>,
    open_for_ms: Option<u64>,
    open_for_max_ms: Option<u64>,
    probes: Option<u32>,
}

#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Bytes {
    Text(String),
    Hex(Hex),
    Repeat(Repeat),
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hex {
    hex: String,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Repeat {
    repeat: String,
    count: usize,
}

impl Default for Bytes {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

impl Bytes {
    fn get(&self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.clone().into_bytes(),
            Self::Repeat(Repeat { repeat, count }) => repeat.repeat(*count).into_bytes(),
            Self::Hex(Hex { hex }) => (0..hex.len() / 2)
                .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("two hexadecimal digits"))
                .collect(),
        }
    }
}

type Headers = serde_json::Map<String, Value>;

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
enum Do {
    Open {
        r#as: String,
        dir: Option<String>,
        #[serde(default)]
        repair: bool,
    },
    Connect {
        r#as: String,
        dir: Option<String>,
        name: Option<String>,
        #[serde(default = "yes")]
        shared_memory: bool,
    },
    Impostor {
        dir: String,
        socket: String,
    },
    Close {
        what: String,
    },
    Subscribe {
        r#as: String,
        pattern: String,
        #[serde(default)]
        options: SubscribeFields,
    },
    Publish {
        subject: String,
        #[serde(default)]
        payload: Bytes,
        #[serde(default)]
        headers: Headers,
        priority: Option<u8>,
        ttl_ms: Option<u64>,
        delay_ms: Option<u64>,
        timeout_ms: Option<u64>,
    },
    PublishMany {
        events: Vec<(String, Bytes)>,
        priority: Option<u8>,
        #[serde(default)]
        headers: Headers,
    },
    Receive {
        from: String,
        timeout_ms: Option<u64>,
        #[serde(default)]
        expect: EventFields,
        after_ms: Option<u64>,
        fail: Option<FailFields>,
    },
    Gather {
        from: Vec<String>,
        payloads: Vec<String>,
        #[serde(default)]
        each_at_least: usize,
    },
    ExpectNothing {
        from: String,
        for_ms: Option<u64>,
    },
    Serve {
        r#as: String,
        service: String,
        handler: Handler,
        #[serde(default)]
        options: ServeFields,
    },
    Handled {
        of: String,
        started: Option<u64>,
        cancelled: Option<u64>,
    },
    Call {
        service: String,
        #[serde(default)]
        payload: Bytes,
        #[serde(default)]
        headers: Headers,
        timeout_ms: Option<u64>,
        #[serde(default)]
        expect: AnswerFields,
    },
    StartCall {
        r#as: String,
        service: String,
        #[serde(default)]
        payload: Bytes,
        #[serde(default)]
        headers: Headers,
        timeout_ms: Option<u64>,
    },
    Finish {
        call: String,
        #[serde(default)]
        expect: AnswerFields,
    },
    Cancel {
        call: String,
    },
    Services {
        expect: BTreeMap<String, ServiceFields>,
    },
    Stats {
        expect: BTreeMap<String, Value>,
    },
    SubscriptionStats {
        of: String,
        expect: BTreeMap<String, Value>,
    },
    Info {
        expect: BTreeMap<String, Value>,
    },
    Wait {
        ms: u64,
    },
    Mark {},
}

fn yes() -> bool {
    true
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SubscribeFields {
    priority: i32,
    group: Option<String>,
    capacity: Option<usize>,
    on_slow: Option<String>,
    block_ms: u64,
    retry: Option<RetryFields>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RetryFields {
    max_attempts: u32,
    #[serde(default)]
    backoff_ms: u64,
    dead_letter: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct EventFields {
    subject: Option<String>,
    payload: Option<EventPayload>,
    headers: Headers,
    #[serde(deserialize_with = "present")]
    content_type: Option<Option<String>>,
    priority: Option<u8>,
    gap: Option<u64>,
    attempt: Option<u32>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum EventPayload {
    Job(JobEvent),
    Bytes(Bytes),
}

/// What a queue tells of a job.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JobEvent {
    job: String,
    attempt: u64,
}

/// Tells `null` apart from a field that is not there.
fn present<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(input).map(Some)
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct AnswerFields {
    payload: Option<Bytes>,
    headers: Headers,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct FailFields {
    r#type: String,
    message: String,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ServeFields {
    version: String,
    concurrency: Option<u32>,
    queue: Option<u32>,
    rate: Option<f64>,
    burst: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceFields {
    instances: usize,
    versions: Option<Vec<String>>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Handler {
    Echo,
    Upper,
    Never,
    Reply(Bytes),
    Fail(FailFields),
    EchoAfter(u64),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedError {
    kind: String,
    #[serde(default)]
    contains: Vec<String>,
}

/// Why a step did not do what it says: the mesh refused, or what came was not what was expected.
enum Trouble {
    Mesh(Error),
    Mismatch(String),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Mesh(error)
    }
}

type Done = Result<(), Trouble>;

fn mismatch<T>(text: impl Into<String>) -> Result<T, Trouble> {
    Err(Trouble::Mismatch(text.into()))
}

#[derive(Default)]
struct Seen {
    started: AtomicU64,
    cancelled: AtomicU64,
    stop: AtomicBool,
}

/// Everything one run of a scenario has named so far. Fields are dropped from the top.
struct World<'a> {
    options: &'a MeshOptions,
    queues: queues::Queues,
    calls: HashMap<String, PendingCall>,
    subscriptions: HashMap<String, Subscription>,
    services: HashMap<String, (Service, Arc<Seen>)>,
    actors: HashMap<String, Mesh>,
    mark: Instant,
    directory: PathBuf,
}

impl Drop for World<'_> {
    fn drop(&mut self) {
        for (_, seen) in self.services.values() {
            seen.stop.store(true, SeqCst);
        }
        let host = self.actors.remove("host");
        self.actors.values().chain(&host).for_each(Mesh::close);
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl<'a> World<'a> {
    fn new(role: On, options: &'a MeshOptions) -> Result<Self, String> {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        let directory =
            std::env::temp_dir().join(format!("fm-{}-{}", std::process::id(), RUNS.fetch_add(1, SeqCst)));
        let mut world = Self {
            options,
            queues: queues::Queues::default(),
            calls: HashMap::new(),
            subscriptions: HashMap::new(),
            services: HashMap::new(),
            actors: HashMap::new(),
            mark: Instant::now(),
            directory,
        };
        let host = world.builder().name("host").open(&world.directory).map_err(|error| error.to_string())?;
        let me = match role {
            On::Host => host.clone(),
            On::Client => {
                world.builder().name("me").connect(&world.directory).map_err(|error| error.to_string())?
            }
        };
        world.actors.insert("host".into(), host);
        world.actors.insert("me".into(), me);
        Ok(world)
    }

    fn builder(&self) -> flowmesh::MeshBuilder {
        let MeshOptions { max_message_bytes, ring_bytes, max_sessions, breaker } = self.options;
        let mut builder = Mesh::builder();
        if let Some(bytes) = *max_message_bytes {
            builder = builder.max_message_bytes(bytes);
        }
        if let Some(bytes) = *ring_bytes {
            builder = builder.ring_bytes(bytes);
        }
        if let Some(count) = *max_sessions {
            builder = builder.max_sessions(count);
        }
        match breaker {
            None => builder,
            Some(BreakerSpec::Off(on)) => {
                assert!(!on, "breaker is false or an object");
                builder.breaker(None)
            }
            Some(BreakerSpec::On(fields)) => builder.breaker(Some(fields.options())),
        }
    }

    fn run(&mut self, steps: &[Value]) -> Result<(), String> {
        for (index, step) in steps.iter().enumerate() {
            let name = step["do"].as_str().unwrap_or("?");
            for turn in 0..step["times"].as_u64().unwrap_or(1) {
                let text = step.to_string();
                let text =
                    text.replace("{i}", &turn.to_string()).replace("{pid}", &std::process::id().to_string());
                self.step(&text).map_err(|reason| format!("step {} ({name}): {reason}", index + 1))?;
            }
        }
        Ok(())
    }

    fn step(&mut self, text: &str) -> Result<(), String> {
        let mut fields: Headers = serde_json::from_str(text).map_err(|error| error.to_string())?;
        fields.remove("times");
        let on = fields.remove("on").map_or("me".into(), |on| on.as_str().unwrap_or("?").to_owned());
        let wanted = fields.remove("error").map(serde_json::from_value::<ExpectedError>).transpose();
        let wanted = wanted.map_err(|error| error.to_string())?;
        match (self.perform(&on, fields)?, wanted) {
            (Ok(()), None) => Ok(()),
            (Ok(()), Some(wanted)) => Err(format!("it should have failed with {}", wanted.kind)),
            (Err(Trouble::Mismatch(text)), _) => Err(text),
            (Err(Trouble::Mesh(error)), None) => Err(format!("{}: {error}", error.kind().code())),
            (Err(Trouble::Mesh(error)), Some(wanted)) => {
                let message = error.to_string();
                let missing = wanted.contains.iter().find(|part| !message.contains(part.as_str()));
                if error.kind().code() != wanted.kind {
                    Err(format!("wanted {}, got {}: {message}", wanted.kind, error.kind().code()))
                } else if let Some(part) = missing {
                    Err(format!("{part:?} is not in {message:?}"))
                } else {
                    Ok(())
                }
            }
        }
    }

    fn perform(&mut self, on: &str, fields: Headers) -> Result<Done, String> {
        let name = fields.get("do").and_then(Value::as_str).unwrap_or("?").to_owned();
        let mesh = self.actors.get(on).ok_or_else(|| Trouble::Mismatch(format!("no mesh is named {on}")));
        if let Some(done) = self.queues.step(&name, &fields, mesh, &self.directory, self.mark) {
            return Ok(done);
        }
        let step = serde_json::from_value(fields.into()).map_err(|error| error.to_string())?;
        Ok(self.perform_other(on, step))
    }

    fn perform_other(&mut self, on: &str, step: Do) -> Done {
        match step {
            Do::Open { r#as, dir, repair } => {
                let mesh = self.builder().name(&r#as).repair(repair).open(self.path(dir.as_deref()))?;
                self.actors.insert(r#as, mesh);
            }
            Do::Connect { r#as, dir, name, shared_memory } => {
                let builder =
                    self.builder().name(name.as_ref().unwrap_or(&r#as)).shared_memory(shared_memory);
                let mesh = builder.connect(self.path(dir.as_deref()))?;
                self.actors.insert(r#as, mesh);
            }
            Do::Impostor { dir, socket } => impostor(&self.path(Some(&dir)), &socket),
            Do::Close { what } => self.close(&what)?,
            Do::Subscribe { r#as, pattern, options } => {
                let subscription = self.mesh(on)?.subscribe_with(&pattern, options.options()?)?;
                self.subscriptions.insert(r#as, subscription);
            }
            Do::Publish { subject, payload, headers, priority, ttl_ms, delay_ms, timeout_ms } => {
                let mut options = PublishOptions { headers: pairs(&headers), ..PublishOptions::default() };
                options.priority = priority.unwrap_or(options.priority);
                options.ttl = ttl_ms.map(Duration::from_millis);
                options.delay = delay_ms.map(Duration::from_millis);
                options.timeout = timeout_ms.map_or(options.timeout, Duration::from_millis);
                self.mesh(on)?.publish_with(&subject, &payload.get(), &options)?;
            }
            Do::PublishMany { events, priority, headers } => {
                let mut options = PublishOptions { headers: pairs(&headers), ..PublishOptions::default() };
                options.priority = priority.unwrap_or(options.priority);
                let events: Vec<_> =
                    events.iter().map(|(subject, payload)| (subject, payload.get())).collect();
                let events: Vec<_> =
                    events.iter().map(|(subject, payload)| (subject.as_str(), payload.as_slice())).collect();
                self.mesh(on)?.publish_many(&events, &options)?;
            }
            Do::Receive { from, timeout_ms, expect, after_ms, fail } => {
                let timeout = timeout_ms.map_or(WATCHDOG, Duration::from_millis);
                let subscription = self.subscription(&from)?;
                let delivery = subscription.receive(Some(timeout))?;
                expect.check(&delivery, &self.queues)?;
                if after_ms.is_some_and(|ms| self.mark.elapsed() < Duration::from_millis(ms)) {
                    return mismatch(format!("it came after {:?}", self.mark.elapsed()));
                }
                if let Some(FailFields { r#type, message }) = fail {
                    subscription.fail(delivery, &HandlerError { kind: r#type, message })?;
                }
            }
            Do::Gather { from, payloads, each_at_least } => self.gather(&from, payloads, each_at_least)?,
            Do::ExpectNothing { from, for_ms } => {
                match self.subscription(&from)?.receive(Some(Duration::from_millis(for_ms.unwrap_or(50)))) {
                    Err(error) if error.kind() == ErrorKind::Timeout => {}
                    Err(error) => return Err(error.into()),
                    Ok(delivery) => return mismatch(format!("there came {}", shown(&delivery.message))),
                }
            }
            Do::Serve { r#as, service, handler, options } => {
                let seen = Arc::new(Seen::default());
                let watched = seen.clone();
                let handle = move |request: &Request| handler.handle(request, &watched);
                let service = self.mesh(on)?.serve(&service, options.options(), handle)?;
                self.services.insert(r#as, (service, seen));
            }
            Do::Handled { of, started, cancelled } => {
                let Some((_, seen)) = self.services.get(&of) else {
                    return mismatch(format!("no service {of}"));
                };
                until(|| {
                    let now = (seen.started.load(SeqCst), seen.cancelled.load(SeqCst));
                    let right = started.is_none_or(|n| n == now.0) && cancelled.is_none_or(|n| n == now.1);
                    if right { Ok(()) } else { mismatch(format!("started {}, cancelled {}", now.0, now.1)) }
                })?;
            }
            Do::Call { service, payload, headers, timeout_ms, expect } => {
                let options = call_options(&headers, timeout_ms);
                let answer =
                    self.mesh(on)?.call_with(&service, &payload.get(), &options, &mut Wait::forever())?;
                expect.check(&answer)?;
            }
            Do::StartCall { r#as, service, payload, headers, timeout_ms } => {
                let options = call_options(&headers, timeout_ms);
                let call = self.mesh(on)?.start_call(&service, &payload.get(), &options)?;
                self.calls.insert(r#as, call);
            }
            Do::Finish { call, expect } => {
                expect.check(&self.call(&call)?.wait(&mut Wait::timeout(WATCHDOG))?)?;
            }
            Do::Cancel { call } => self.call(&call)?.cancel(),
            Do::Services { expect } => until(|| {
                let found: BTreeMap<_, _> =
                    self.mesh(on)?.services()?.into_iter().map(|s| (s.name.clone(), s)).collect();
                let right = found.len() == expect.len()
                    && expect.iter().all(|(name, wanted)| found.get(name).is_some_and(|s| wanted.matches(s)));
                if right { Ok(()) } else { mismatch(format!("there is {found:?}")) }
            })?,
            Do::Stats { expect } => until(|| {
                let stats = self.mesh(on)?.stats()?;
                compare(&expect, &serde_json::to_value(stats).expect("counters are numbers and text"))
            })?,
            Do::SubscriptionStats { of, expect } => until(|| {
                let stats = self.subscription(&of)?.stats();
                compare(&expect, &serde_json::to_value(stats).expect("counters are numbers and text"))
            })?,
            Do::Info { expect } => {
                let mesh = self.mesh(on)?;
                let role = if mesh.role() == Role::Host { "host" } else { "client" };
                compare(
                    &expect,
                    &json!({"role": role, "session": mesh.session(), "host_pid": mesh.host_pid().to_string(),
                        "max_message_bytes": mesh.max_message_bytes(), "closed": mesh.is_closed()}),
                )?;
            }
            Do::Wait { ms } => thread::sleep(Duration::from_millis(ms)),
            Do::Mark {} => self.mark = Instant::now(),
        }
        Ok(())
    }

    fn close(&mut self, what: &str) -> Done {
        if let Some(mesh) = self.actors.get(what) {
            mesh.close();
        } else if self.queues.close(what) {
        } else if let Some(subscription) = self.subscriptions.get(what) {
            subscription.close();
        } else if let Some((service, seen)) = self.services.get(what) {
            service.close();
            seen.stop.store(true, SeqCst);
        } else {
            return mismatch(format!("nothing is named {what}"));
        }
        Ok(())
    }

    fn gather(&self, from: &[String], mut payloads: Vec<String>, each_at_least: usize) -> Done {
        let (mut found, mut counts) = (Vec::new(), vec![0; from.len()]);
        let deadline = Instant::now() + WATCHDOG;
        while found.len() < payloads.len() && Instant::now() < deadline {
            let before = found.len();
            for (name, count) in from.iter().zip(&mut counts) {
                while let Some(delivery) = self.subscription(name)?.try_receive()? {
                    found.push(String::from_utf8_lossy(delivery.message.payload()).into_owned());
                    *count += 1;
                }
            }
            if found.len() == before {
                thread::sleep(PAUSE);
            }
        }
        found.sort();
        payloads.sort();
        if found != payloads {
            return mismatch(format!("there came {found:?}"));
        }
        match counts.iter().position(|count| *count < each_at_least) {
            Some(index) => mismatch(format!("{} got {}", from[index], counts[index])),
            None => Ok(()),
        }
    }

    fn path(&self, dir: Option<&str>) -> PathBuf {
        dir.map_or(self.directory.clone(), |dir| self.directory.join(dir))
    }

    fn mesh(&self, name: &str) -> Result<&Mesh, Trouble> {
        self.actors.get(name).ok_or_else(|| Trouble::Mismatch(format!("no mesh is named {name}")))
    }

    fn subscription(&self, name: &str) -> Result<&Subscription, Trouble> {
        self.subscriptions
            .get(name)
            .ok_or_else(|| Trouble::Mismatch(format!("no subscription is named {name}")))
    }

    fn call(&self, name: &str) -> Result<&PendingCall, Trouble> {
        self.calls.get(name).ok_or_else(|| Trouble::Mismatch(format!("no call is named {name}")))
    }
}

impl Handler {
    fn handle(&self, request: &Request, seen: &Seen) -> Result<Reply, HandlerError> {
        seen.started.fetch_add(1, SeqCst);
        let echo = || Reply {
            payload: request.payload().to_vec(),
            headers: request.message().headers().map(|(name, value)| (name.into(), value.into())).collect(),
        };
        match self {
            Self::Echo => Ok(echo()),
            Self::Upper => Ok(request.payload().to_ascii_uppercase().into()),
            Self::Reply(bytes) => Ok(bytes.get().into()),
            Self::Fail(FailFields { r#type, message }) => {
                Err(HandlerError { kind: r#type.clone(), message: message.clone() })
            }
            Self::EchoAfter(ms) => {
                seen.wait(request, Duration::from_millis(*ms));
                Ok(echo())
            }
            Self::Never => {
                seen.wait(request, Duration::MAX);
                Ok(Vec::new().into())
            }
        }
    }
}

impl Seen {
    fn wait(&self, request: &Request, longest: Duration) {
        let start = Instant::now();
        while start.elapsed() < longest && !self.stop.load(SeqCst) {
            if request.is_cancelled() {
                self.cancelled.fetch_add(1, SeqCst);
                return;
            }
            thread::sleep(PAUSE);
        }
    }
}

impl BreakerFields {
    fn options(&self) -> BreakerOptions {
        let default = BreakerOptions::default();
        BreakerOptions {
            window: self.window_ms.map_or(default.window, Duration::from_millis),
            min_calls: self.min_calls.unwrap_or(default.min_calls),
            failure_ratio: self.failure_ratio.unwrap_or(default.failure_ratio),
            open_for: self.open_for_ms.map_or(default.open_for, Duration::from_millis),
            open_for_max: self.open_for_max_ms.map_or(default.open_for_max, Duration::from_millis),
            probes: self.probes.unwrap_or(default.probes),
        }
    }
}

impl SubscribeFields {
    fn options(&self) -> Result<SubscribeOptions, Trouble> {
        let mut options = SubscribeOptions { priority: self.priority, ..SubscribeOptions::default() };
        options.group = self.group.as_deref().map(Name::parse).transpose()?;
        options.capacity = self.capacity.unwrap_or(options.capacity);
        options.on_slow = match self.on_slow.as_deref() {
            None | Some("drop_oldest") => OnSlow::DropOldest,
            Some("block") => OnSlow::Block { timeout: Duration::from_millis(self.block_ms) },
            Some("disconnect") => OnSlow::Disconnect,
            Some(other) => return mismatch(format!("on_slow cannot be {other}")),
        };
        if let Some(RetryFields { max_attempts, backoff_ms, dead_letter }) = &self.retry {
            let backoff =
                Backoff { initial: Duration::from_millis(*backoff_ms), factor: 1.0, ..Backoff::default() };
            let dead_letter = dead_letter.as_deref().map(Subject::parse).transpose()?;
            options.retry = Some(Retry { max_attempts: *max_attempts, backoff, dead_letter });
        }
        Ok(options)
    }
}

impl ServeFields {
    fn options(&self) -> ServeOptions {
        let default = ServeOptions::default();
        ServeOptions {
            version: self.version.clone(),
            concurrency: self.concurrency.unwrap_or(default.concurrency),
            queue: self.queue.unwrap_or(default.queue),
            rate: self.rate.map(|per_second| RateLimit { per_second, burst: self.burst.unwrap_or(1) }),
        }
    }
}

impl EventFields {
    fn check(&self, delivery: &Delivery, queues: &queues::Queues) -> Done {
        let message = &delivery.message;
        same("subject", self.subject.as_deref(), message.subject())?;
        match &self.payload {
            Some(EventPayload::Job(JobEvent { job, attempt })) => {
                let found: Value = serde_json::from_slice(message.payload()).unwrap_or_default();
                let id = queues.id(job)?.to_string();
                if found["job"] != id.as_str() || found["attempt"] != *attempt {
                    return mismatch(format!("it should be about {id}: {}", shown(message)));
                }
            }
            Some(EventPayload::Bytes(bytes)) => same_payload(Some(bytes), message)?,
            None => {}
        }
        same_headers(&self.headers, message)?;
        same("content_type", self.content_type.as_ref().map(Option::as_deref), message.content_type())?;
        same("priority", self.priority, message.priority())?;
        same("gap", self.gap, delivery.gap)?;
        same("attempt", self.attempt, delivery.attempt)
    }
}

impl AnswerFields {
    fn check(&self, message: &Message) -> Done {
        same_payload(self.payload.as_ref(), message)?;
        same_headers(&self.headers, message)
    }
}

impl ServiceFields {
    fn matches(&self, found: &flowmesh::ServiceInfo) -> bool {
        let mut versions: Vec<_> = found.instances.iter().map(|instance| instance.version.clone()).collect();
        versions.sort();
        versions.len() == self.instances && self.versions.as_ref().is_none_or(|wanted| *wanted == versions)
    }
}

fn same<T: Copy + PartialEq + std::fmt::Debug>(what: &str, wanted: Option<T>, found: T) -> Done {
    match wanted {
        Some(wanted) if wanted != found => mismatch(format!("{what} should be {wanted:?} and is {found:?}")),
        _ => Ok(()),
    }
}

fn same_payload(wanted: Option<&Bytes>, message: &Message) -> Done {
    match wanted.map(Bytes::get) {
        Some(wanted) if wanted != message.payload() => mismatch(format!(
            "payload should be {:?} ({} bytes) and is {}",
            String::from_utf8_lossy(&wanted[..wanted.len().min(40)]),
            wanted.len(),
            shown(message)
        )),
        _ => Ok(()),
    }
}

fn same_headers(wanted: &Headers, message: &Message) -> Done {
    wanted.iter().try_for_each(|(name, value)| same(name, Some(value.as_str()), message.header_value(name)))
}

fn shown(message: &Message) -> String {
    let payload = message.payload();
    let start = String::from_utf8_lossy(&payload[..payload.len().min(40)]);
    format!("{start:?} ({} bytes) of {}", payload.len(), message.subject())
}

fn pairs(headers: &Headers) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect()
}

fn call_options(headers: &Headers, timeout_ms: Option<u64>) -> CallOptions {
    CallOptions { timeout: timeout_ms.map_or(WATCHDOG, Duration::from_millis), headers: pairs(headers) }
}

/// Looks again until `check` passes. An error of the mesh ends it at once, a mismatch when the watchdog barks.
fn until(mut check: impl FnMut() -> Done) -> Done {
    let deadline = Instant::now() + WATCHDOG;
    loop {
        match check() {
            Err(Trouble::Mismatch(_)) if Instant::now() < deadline => thread::sleep(PAUSE),
            outcome => return outcome,
        }
    }
}

fn compare(wanted: &BTreeMap<String, Value>, found: &Value) -> Done {
    for (path, wanted) in wanted {
        let value = path.split('/').fold(found, |value, key| match value {
            Value::Array(items) => items
                .iter()
                .enumerate()
                .find(|(index, item)| {
                    item["name"] == key || item["pattern"] == key || index.to_string() == key
                })
                .map_or(&Value::Null, |(_, item)| item),
            _ => &value[key],
        });
        let right = match wanted.get("at_least") {
            Some(least) => value.as_f64().zip(least.as_f64()).is_some_and(|(value, least)| value >= least),
            None => value == wanted,
        };
        if !right {
            return mismatch(format!("{path} should be {wanted} and is {value}"));
        }
    }
    Ok(())
}

/// Whoever connects is told that this is something else.
fn impostor(directory: &Path, socket: &str) {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .expect("a directory in the temporary one");
    let listener = UnixListener::bind(directory.join(socket)).expect("a socket in a directory of our own");
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            // The peer may hang up at any point.
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read(&mut [0; 256]);
        }
    });
}
