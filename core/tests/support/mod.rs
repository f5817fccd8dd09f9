//! What several test programs share: directories, dice, watchdogs, processes, and what a process holds.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part")]

use flowmesh::*;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    sync::mpsc,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// A fresh directory, removed on drop.
pub struct Dir(PathBuf);

impl Dir {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("flowmesh-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl AsRef<Path> for Dir {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Long enough for anything that happens at all.
pub const WATCHDOG: Duration = Duration::from_secs(20);
pub const SOON: Option<Duration> = Some(WATCHDOG);
pub const SECRET: &[u8] = b"a shared secret of some length";

/// Waits until something is so.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + WATCHDOG;
    while !done() {
        assert!(Instant::now() < deadline, "waited too long until {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Runs `act` and ends the whole process with a word on what hung if it takes longer than `limit`.
pub fn within<T>(limit: Duration, what: &str, act: impl FnOnce() -> T) -> T {
    let (done, waits) = mpsc::channel::<()>();
    let (what, pid) = (what.to_owned(), std::process::id());
    let watch = thread::spawn(move || {
        if waits.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("process {pid} hangs: {what} took longer than {limit:?}");
            std::process::abort();
        }
    });
    let result = act();
    drop(done);
    watch.join().unwrap();
    result
}

/// Says that something is over when it is dropped, so that a failing test ends its own threads.
pub struct Over<'a>(pub &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// The seed of this run: `FLOWMESH_SEED`, or a new one. Printed, so that a failure can be repeated.
pub fn seed(test: &str) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = number("FLOWMESH_SEED").unwrap_or(now);
    println!("{test}: FLOWMESH_SEED={seed}");
    seed
}

/// A number from the environment.
pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// splitmix64: the same choices for the same seed, whatever the seed.
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to `sides` - 1.
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.next() % sides.max(1)
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

/// A host and a client over each transport.
pub fn over_all(test: impl Fn(&Mesh, &Mesh)) {
    over_all_with(|builder| builder, test);
}

/// A host and a client over each transport, with other settings.
pub fn over_all_with(settings: impl Fn(MeshBuilder) -> MeshBuilder, test: impl Fn(&Mesh, &Mesh)) {
    for transport in ["shm", "unix", "tcp"] {
        let dir = Dir::new();
        let host = settings(Mesh::builder()).open(&dir).unwrap();
        let builder = settings(Mesh::builder());
        let client = match transport {
            "shm" => builder.connect(&dir).unwrap(),
            "unix" => builder.shared_memory(false).connect(&dir).unwrap(),
            _ => {
                let address = host.listen_tcp("127.0.0.1:0", SECRET).unwrap();
                builder.connect_tcp(&address.to_string(), SECRET).unwrap()
            }
        };
        assert_eq!(host.stats().unwrap().sessions[0].transport, transport);
        test(&host, &client);
    }
}

/// Another run of this test program, killed and waited for on drop.
pub struct Process(std::process::Child);

const PROGRAM: &str = "FLOWMESH_TEST_PROGRAM";

/// Until a process that records what it does in `record`, which had `before` bytes, is to be killed: one of four dies at
/// any moment after its start, the others once they have recorded something.
pub fn let_it_work(record: &Path, before: u64, dice: &mut Dice) {
    if dice.roll(4) > 0 {
        until("the victim works", || bytes_of(record) > before);
    }
    thread::sleep(Duration::from_micros(dice.roll(10_000)));
}

/// The size of a file, 0 if there is none.
pub fn bytes_of(file: &Path) -> u64 {
    fs::metadata(file).map_or(0, |found| found.len())
}

impl Process {
    /// Starts the program `name` of [`programs`].
    pub fn start(name: &str, arguments: &[&str]) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "programs", "--nocapture", "--test-threads=1"])
            .env(PROGRAM, std::iter::once(&name).chain(arguments).copied().collect::<Vec<_>>().join("\n"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Kills it with SIGKILL; does not wait for its end.
    pub fn kill(&mut self) {
        let _ = self.0.kill();
    }

    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    /// Waits for its end, which must be a good one.
    pub fn join(mut self) {
        let deadline = Instant::now() + 3 * WATCHDOG;
        let status = loop {
            match self.0.try_wait().unwrap() {
                Some(status) => break status,
                None => assert!(Instant::now() < deadline, "process {} hangs", self.pid()),
            }
            thread::sleep(Duration::from_millis(1));
        };
        assert!(status.success(), "process {} failed: {status}", self.pid());
    }

    /// Runs the program `name` to its good end.
    pub fn run(name: &str, arguments: &[&str]) {
        Self::start(name, arguments).join();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        let _ = self.0.wait();
    }
}

/// What a child process runs, with its arguments.
pub type Program = fn(&[&str]);

/// What a test program runs as when [`Process::start`] started it; false when `cargo test` did.
///
/// To be called by a test named `programs`.
pub fn programs(known: &[(&str, Program)]) -> bool {
    let Ok(asked) = std::env::var(PROGRAM) else { return false };
    let arguments: Vec<&str> = asked.split('\n').collect();
    let (_, program) = known.iter().find(|(name, _)| *name == arguments[0]).unwrap();
    program(&arguments[1..]);
    true
}

/// What this process holds of the things that leak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub descriptors: usize,
    pub maps: usize,
    pub threads: usize,
}

impl Held {
    pub fn now() -> Self {
        let count = |path| fs::read_dir(path).unwrap().count();
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        Self {
            descriptors: count("/proc/self/fd"),
            maps: maps.lines().filter(|line| line.contains("memfd:flowmesh")).count(),
            threads: count("/proc/self/task"),
        }
    }

    /// Waits until no more is held than was at rest.
    pub fn until_at_rest(self) {
        let deadline = Instant::now() + WATCHDOG;
        loop {
            let now = Self::now();
            let fits = now.descriptors <= self.descriptors && now.maps <= self.maps;
            if fits && now.threads <= self.threads {
                return;
            }
            assert!(Instant::now() < deadline, "leaked: {now:?}, at rest {self:?}, {:?}", descriptors());
            thread::sleep(Duration::from_millis(2));
        }
    }
}

fn descriptors() -> Vec<String> {
    let links =
        fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
    links.map(|link| link.display().to_string()).collect()
}

/// The kind of an error, and the values of it that a test names.
#[track_caller]
pub fn assert_error<T: std::fmt::Debug>(
    result: Result<T>,
    kind: ErrorKind,
    values: &[(&str, &str)],
) -> Error {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    for (name, value) in values {
        let found = error.get(name).unwrap_or_else(|| panic!("no {name} in: {error}"));
        assert!(found.contains(value), "{name}={found}, expected {value}: {error}");
    }
    error
}
