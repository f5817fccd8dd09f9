//! Traffic in all directions while processes are killed: nothing may be lost in silence, hang, or be left behind.
//!
//! The host publishes ticks, answers calls, and kills a client with SIGKILL a few times a second; clients check the
//! ticks, publish, serve, and call each other and the host. `cargo test` runs five seconds of it,
//! `make soak MINUTES=…` as many minutes. `FLOWMESH_SOAK_SEED` repeats the choices of a run.
#![forbid(unsafe_code)]

use flowmesh::{
    CallOptions, ErrorKind, HandlerError, Mesh, OnSlow, PublishOptions, Reply, Request, ServeOptions,
    SubscribeOptions, Wait,
};
use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

const CLIENTS: usize = 4;
/// Between two kills.
const KILL_EVERY: Duration = Duration::from_millis(250);
const REPORT_EVERY: Duration = Duration::from_secs(10);
const PAYLOAD_BYTES_MAX: u64 = 200_000;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("client") => {
            client(Path::new(&arguments[2]), &arguments[3], arguments[4].parse().expect("a seed"));
        }
        _ => host(),
    }
}

fn host() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let duration = Duration::from_secs(number("FLOWMESH_SOAK_SECONDS").unwrap_or(5));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    let seed = number("FLOWMESH_SOAK_SEED").unwrap_or(now.as_nanos() as u64);
    println!("soak: {} s, FLOWMESH_SOAK_SEED={seed}", duration.as_secs());
    let mut dice = Dice(seed | 1);

    let directory = std::env::temp_dir().join(format!("fm-soak-{}", std::process::id()));
    let mesh = Mesh::builder().name("host").open(&directory).expect("a fresh directory opens");
    let answered = Arc::new(AtomicU64::new(0));
    let count = answered.clone();
    let service = mesh
        .serve(
            "soak.sum",
            ServeOptions { concurrency: 2, ..ServeOptions::default() },
            move |request: &Request| {
                count.fetch_add(1, SeqCst);
                Ok(Reply::from(sum(request.payload()).to_le_bytes().to_vec()))
            },
        )
        .expect("the host serves");
    let ticking = Arc::new(AtomicBool::new(true));
    let ticker = tick(mesh.clone(), ticking.clone());
    let checker = check_events(&mesh);
    // A first session, so that what the host makes for its first client counts as resting.
    Mesh::connect(&directory).expect("a client connects").close();
    until("the first session is gone", || mesh.stats().expect("stats").sessions.is_empty());
    let resting = Resources::now();

    let mut fleet = Fleet { directory: directory.clone(), clients: Vec::new(), started: 0, killed: 0 };
    let (start, mut reported) = (Instant::now(), Instant::now());
    while start.elapsed() < duration {
        fleet.fill(&mut dice);
        thread::sleep(KILL_EVERY);
        fleet.kill_one(&mut dice);
        if reported.elapsed() > REPORT_EVERY {
            reported = Instant::now();
            report(&mesh, &answered, &fleet);
        }
    }
    fleet.fill(&mut dice);
    // The last ones live long enough to do some work, then end by themselves.
    until("every client has joined", || mesh.services().expect("discovery").len() == CLIENTS + 1);
    thread::sleep(Duration::from_millis(200));
    ticking.store(false, SeqCst);
    ticker.join().expect("the ticker does not panic");
    mesh.publish("ticks.end", b"").expect("the end is published");
    fleet.join();
    report(&mesh, &answered, &fleet);

    // Nothing of the dead and the gone is left behind.
    until("every session is gone", || mesh.stats().expect("stats").sessions.is_empty());
    until("only the host serves", || mesh.services().expect("discovery").len() == 1);
    let stats = mesh.stats().expect("stats");
    assert_eq!(stats.protocol_violations, 0, "a killed client is not a broken one");
    assert_eq!(stats.subscriptions.len(), 1, "{:?}", stats.subscriptions);
    until("descriptors and threads are back", || Resources::now().fits(&resting));
    let grown = Resources::now().rss_kib.saturating_sub(resting.rss_kib);
    assert!(grown < 128 * 1024, "the host grew by {grown} KiB");

    service.close();
    mesh.close();
    checker.join().expect("events of each client came in order");
    drop(mesh);
    fs::remove_dir_all(&directory).expect("the directory is ours");
    println!("soak: ok, {} clients, {} of them killed", fleet.started, fleet.killed);
}

/// Publishes numbered ticks as fast as it can for a while, then rests.
fn tick(mesh: Mesh, ticking: Arc<AtomicBool>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut next = 0u64;
        while ticking.load(SeqCst) {
            for _ in 0..200 {
                mesh.publish("ticks.now", &next.to_le_bytes()).expect("a tick is published");
                next += 1;
            }
            thread::sleep(Duration::from_millis(2));
        }
    })
}

/// Events of one client come in order and undamaged; numbers that are missing were told as gaps.
fn check_events(mesh: &Mesh) -> thread::JoinHandle<()> {
    let events = mesh.subscribe("soak.*").expect("the host subscribes");
    thread::spawn(move || {
        let mut last: HashMap<String, u64> = HashMap::new();
        let (mut missing, mut gaps) = (0, 0);
        loop {
            let delivery = match events.receive(None) {
                Ok(delivery) => delivery,
                Err(error) if error.kind() == ErrorKind::Closed => return,
                Err(error) => panic!("{error}"),
            };
            let (subject, payload) = (delivery.message.subject(), delivery.message.payload());
            let number = undamaged(payload).unwrap_or_else(|| panic!("a damaged event of {subject}"));
            gaps += delivery.gap;
            let before = last.insert(subject.to_owned(), number);
            let expected = before.map_or(0, |before| before + 1);
            assert!(number >= expected, "{subject}: {number} came after {before:?}");
            missing += number - expected;
            assert!(missing <= gaps, "{missing} events are missing and {gaps} were told");
        }
    })
}

struct Fleet {
    directory: PathBuf,
    clients: Vec<Child>,
    started: u64,
    killed: u64,
}

impl Fleet {
    fn fill(&mut self, dice: &mut Dice) {
        while self.clients.len() < CLIENTS {
            let child = Command::new(std::env::current_exe().expect("this program"))
                .arg("client")
                .arg(&self.directory)
                .arg(format!("c{}", self.started))
                .arg(dice.roll(u64::MAX).to_string())
                .spawn()
                .expect("this program starts again");
            self.started += 1;
            self.clients.push(child);
        }
    }

    fn kill_one(&mut self, dice: &mut Dice) {
        let index = dice.roll(self.clients.len() as u64) as usize;
        let mut child = self.clients.swap_remove(index);
        if let Some(status) = child.try_wait().expect("the child is ours") {
            panic!("a client ended by itself: {status}");
        }
        child.kill().expect("the child is ours");
        child.wait().expect("the child is ours");
        self.killed += 1;
    }

    fn join(&mut self) {
        for mut child in self.clients.drain(..) {
            let deadline = Instant::now() + Duration::from_secs(20);
            let status = loop {
                match child.try_wait().expect("the child is ours") {
                    Some(status) => break status,
                    None if Instant::now() > deadline => {
                        let _ = child.kill();
                        panic!("a client hangs");
                    }
                    None => thread::sleep(Duration::from_millis(5)),
                }
            };
            assert!(status.success(), "a client failed: {status}");
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for child in &mut self.clients {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn client(directory: &Path, name: &str, seed: u64) {
    let mut dice = Dice(seed | 1);
    let mesh = Mesh::builder().name(name).connect(directory).expect("the host is there");
    let serve = ServeOptions { concurrency: 2, ..ServeOptions::default() };
    let _shared = mesh.serve(&format!("soak.{name}"), serve, answer).expect("a client serves");

    let ended = Arc::new(AtomicBool::new(false));
    let options =
        SubscribeOptions { on_slow: OnSlow::DropOldest, capacity: 512, ..SubscribeOptions::default() };
    let ticks = mesh.subscribe_with("ticks.*", options).expect("a client subscribes");
    let end = ended.clone();
    let listener = thread::spawn(move || {
        let mut last = None;
        loop {
            let delivery = ticks.receive(None).expect("a tick comes, or the end");
            if delivery.message.subject() == "ticks.end" {
                end.store(true, SeqCst);
                return;
            }
            let number = delivery.message.payload().try_into().map(u64::from_le_bytes).expect("eight bytes");
            if let Some(last) = last {
                assert_eq!(number, last + 1 + delivery.gap, "after {last} with a gap of {}", delivery.gap);
            }
            last = Some(number);
        }
    });

    let subject = format!("soak.{name}");
    let mut number = 0u64;
    while !ended.load(SeqCst) {
        for _ in 0..dice.roll(40) {
            let event = packed(number, dice.roll(2000));
            let options = PublishOptions { priority: 4, ..PublishOptions::default() };
            mesh.publish_with(&subject, &event, &options).expect("an event is published");
            number += 1;
        }
        let peers = mesh.services().expect("discovery");
        let service = &peers[dice.roll(peers.len() as u64) as usize].name;
        let request = packed(number, dice.roll(PAYLOAD_BYTES_MAX));
        let options = CallOptions { timeout: Duration::from_secs(10), ..CallOptions::default() };
        if dice.roll(8) == 0 {
            // Given up at once: nothing may come of it.
            drop(mesh.start_call(service, &request, &options));
            continue;
        }
        match mesh.call_with(service, &request, &options, &mut Wait::forever()) {
            Ok(answer) => assert_eq!(answer.payload(), sum(&request).to_le_bytes(), "{service}"),
            // Whoever was to answer has just been killed.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::PeerGone | ErrorKind::NoService | ErrorKind::CircuitOpen
                ) => {}
            Err(error) => panic!("{name} called {service}: {error}"),
        }
    }
    listener.join().expect("ticks came in order, gaps were told");
    mesh.close();
}

fn answer(request: &Request) -> Result<Reply, HandlerError> {
    Ok(Reply::from(sum(request.payload()).to_le_bytes().to_vec()))
}

fn report(mesh: &Mesh, answered: &AtomicU64, fleet: &Fleet) {
    let stats = mesh.stats().expect("stats");
    let now = Resources::now();
    println!(
        "soak: {} events in, {} deliveries, {} dropped and told, {} calls answered by the host, {} clients killed, \
         {} MiB, {} descriptors, {} threads",
        stats.bus.published,
        stats.bus.delivered,
        stats.bus.dropped,
        answered.load(SeqCst),
        fleet.killed,
        now.rss_kib / 1024,
        now.descriptors,
        now.threads,
    );
}

fn until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "waited too long until {what}: {:?}", Resources::now());
        thread::sleep(Duration::from_millis(5));
    }
}

/// What this process holds.
#[derive(Debug)]
struct Resources {
    descriptors: usize,
    threads: usize,
    rss_kib: u64,
}

impl Resources {
    fn now() -> Self {
        let count = |path| fs::read_dir(path).map_or(0, Iterator::count);
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("");
        let digits: String = rss.chars().filter(char::is_ascii_digit).collect();
        Self {
            descriptors: count("/proc/self/fd"),
            threads: count("/proc/self/task"),
            rss_kib: digits.parse().unwrap_or(0),
        }
    }

    fn fits(&self, resting: &Self) -> bool {
        self.descriptors <= resting.descriptors && self.threads <= resting.threads
    }
}

/// A number, `size` bytes that follow from it, and their sum.
fn packed(number: u64, size: u64) -> Vec<u8> {
    let mut dice = Dice(number | 1);
    let mut payload = number.to_le_bytes().to_vec();
    payload.extend((0..size / 8).flat_map(|_| dice.next().to_le_bytes()));
    payload.extend_from_slice(&sum(&payload).to_le_bytes());
    payload
}

fn undamaged(payload: &[u8]) -> Option<u64> {
    let (body, tail) = payload.split_last_chunk()?;
    (sum(body) == u64::from_le_bytes(*tail)).then_some(u64::from_le_bytes(*body.first_chunk()?))
}

/// FNV-1a, eight bytes at a time: notices torn and swapped parts.
fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(0xcbf2_9ce4_8422_2325, |sum, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        (sum ^ u64::from_le_bytes(word)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// xorshift: the same choices for the same seed.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// 0 to `sides` - 1.
    fn roll(&mut self, sides: u64) -> u64 {
        self.next() % sides.max(1)
    }
}
