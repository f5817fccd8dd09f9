//! Handshakes leave nothing behind, and those that get stuck keep nobody else out.
//!
//! `FLOWMESH_HANDSHAKES` (10,000) says how many clients come and go.

mod support;

use flowmesh::{
    session::SOCKET_FILE,
    wire::handshake::{self, Welcome},
    *,
};
use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::net::UnixStream,
    thread,
    time::{Duration, Instant},
};
use support::*;

/// Each in a process of its own, so that what it holds can be counted and limited.
#[test]
fn thousands_of_handshakes_leak_nothing() {
    Process::run("thousands", &[]);
}

#[test]
fn handshakes_that_get_stuck_are_bounded_and_timed_out() {
    Process::run("stuck", &[]);
}

#[test]
fn a_host_without_descriptors_says_so_and_recovers() {
    Process::run("host_without_descriptors", &[]);
}

#[test]
fn a_client_without_descriptors_is_told_so_and_recovers() {
    Process::run("client_without_descriptors", &[]);
}

#[test]
fn programs() {
    support::programs(&[
        ("thousands", |_| thousands()),
        ("stuck", |_| stuck()),
        ("host_without_descriptors", |_| host_without_descriptors()),
        ("serves", |arguments| {
            let host = Mesh::open(arguments[0]).unwrap();
            let echo = |request: &Request| Ok(Reply::from(request.payload()));
            let _echo = host.serve("echo", ServeOptions::default(), echo).unwrap();
            loop {
                thread::sleep(WATCHDOG);
            }
        }),
        ("connects", |arguments| connects(arguments[0])),
        ("client_without_descriptors", |_| client_without_descriptors()),
    ]);
}

fn thousands() {
    let count = number("FLOWMESH_HANDSHAKES").unwrap_or(10_000);
    let dir = Dir::new();
    let host = Mesh::builder().ring_bytes(64 << 10).open(&dir).unwrap();
    let round = |number: u64| {
        let client = Mesh::builder().shared_memory(!number.is_multiple_of(8)).connect(&dir).unwrap();
        if number.is_multiple_of(16) {
            // One that hangs up in the middle.
            let mut stream = UnixStream::connect(dir.path().join(SOCKET_FILE)).unwrap();
            stream.write_all(&handshake::encode(&hello())[..20]).unwrap();
        }
        if number.is_multiple_of(4) {
            let sub = client.subscribe("a").unwrap();
            client.publish("a", b"").unwrap();
            sub.receive(SOON).unwrap();
        }
    };
    let rest = || {
        until("the sessions are gone", || host.stats().unwrap().sessions.is_empty());
        // Those that hung up are gone as soon as a later one has been taken in.
        thread::sleep(Duration::from_millis(20));
    };
    (0..64).for_each(round);
    rest();
    let resting = Held::now();
    // The client's half and the host's half both live here.
    (0..count).for_each(round);
    rest();
    resting.until_at_rest();
    let stats = host.stats().unwrap();
    assert_eq!((stats.protocol_violations, stats.subscriptions.len()), (0, 0));
}

fn hello() -> handshake::Hello {
    handshake::Hello {
        wire_min: 1,
        wire_max: 1,
        name: "test".into(),
        version: String::new(),
        language: String::new(),
        pid: 0,
        shared_memory: true,
        capabilities: Vec::new(),
        challenge: Vec::new(),
    }
}

/// Processor time of this process's threads of this name.
fn busy(name: &str) -> Duration {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let named = tasks.filter(|task| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim_end() == name)
    });
    named
        .map(|task| {
            let stat = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            Duration::from_nanos(stat.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0))
        })
        .sum()
}

fn stuck() {
    let dir = Dir::new();
    let host = Mesh::builder().ring_bytes(64 << 10).open(&dir).unwrap();
    let before = Mesh::connect(&dir).unwrap();
    let resting = Held::now();
    // Many that say nothing, half a hello, or a hello and no more.
    let began = Instant::now();
    let stuck: Vec<UnixStream> = (0..120)
        .map(|number| {
            let mut stream = UnixStream::connect(dir.path().join(SOCKET_FILE)).unwrap();
            let hello = handshake::encode(&hello());
            stream.write_all(&hello[..[0, 10, hello.len()][number % 3]]).unwrap();
            stream
        })
        .collect();
    let ours = resting.descriptors + stuck.len();
    thread::sleep(Duration::from_millis(200));
    // Those under way are few, whatever each costs (up to six descriptors); the others wait in the kernel.
    let held = Held::now().descriptors - ours;
    assert!(held <= 64 * 6, "{held} descriptors for stuck handshakes");
    // Meanwhile the host sleeps, and those it has go on.
    let asleep = busy("flowmesh-host");
    thread::sleep(Duration::from_millis(400));
    let spent = busy("flowmesh-host") - asleep;
    assert!(spent < Duration::from_millis(100), "the host spent {spent:?} of 400 ms on stuck handshakes");
    let sub = before.subscribe("a").unwrap();
    host.publish("a", b"").unwrap();
    sub.receive(SOON).unwrap();
    // A client that comes now is taken in once the first of them have had their time.
    let client = Mesh::builder().connect_timeout(WATCHDOG).connect(&dir).unwrap();
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    // Each is told why, but for those that are still waiting their turn.
    let mut first = &stuck[0];
    let mut answer = Vec::new();
    first.set_read_timeout(SOON).unwrap();
    first.read_to_end(&mut answer).unwrap();
    assert_error(handshake::decode::<Welcome>(&answer), ErrorKind::Timeout, &[]);
    drop((stuck, client));
    resting.until_at_rest();
}

/// Takes all descriptors but this many.
fn leave_descriptors(free: usize) -> Vec<File> {
    let used = fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes and reads a local.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
        limit.rlim_cur = used + 300;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
    }
    let mut taken = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }
    taken.truncate(taken.len() - free);
    taken
}

fn host_without_descriptors() {
    let dir = Dir::new();
    let host = Mesh::builder().ring_bytes(64 << 10).open(&dir).unwrap();
    let echo = |request: &Request| Ok(Reply::from(request.payload()));
    let _echo = host.serve("echo", ServeOptions::default(), echo).unwrap();
    // Not one too many for any step of the handshake, and none at all.
    for free in (0..14).rev() {
        let mut client = Process::start("connects", &[&dir.path().display().to_string()]);
        until("it has connected once", || host.services().unwrap().len() == 2);
        let taken = leave_descriptors(free);
        // It goes on connecting: refused by name, or taken in where there is room for it.
        host.publish("connect", b"").unwrap();
        until("it has tried", || client.has_ended());
        drop(taken);
        client.join();
        until("it is gone", || host.services().unwrap().len() == 1);
        // Room again: the next one is taken in.
        assert_eq!(Mesh::connect(&dir).unwrap().call("echo", b"x", WATCHDOG).unwrap().payload(), b"x");
    }
}

/// Connects, says so, waits for the word, connects again a few times: it works or says what is missing.
fn connects(directory: &str) {
    let first = Mesh::connect(directory).unwrap();
    let word = first.subscribe("connect").unwrap();
    let _here = first.service("here", ServeOptions::default()).unwrap();
    word.receive(SOON).unwrap();
    for _ in 0..5 {
        match Mesh::connect(directory) {
            Ok(client) => assert_eq!(client.call("echo", b"y", WATCHDOG).unwrap().payload(), b"y"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error}");
                assert!(error.is_retryable());
            }
        }
    }
    // The first session never noticed.
    assert_eq!(first.call("echo", b"z", WATCHDOG).unwrap().payload(), b"z");
}

fn client_without_descriptors() {
    let dir = Dir::new();
    let path = dir.path().display().to_string();
    let _host = Process::start("serves", &[&path]);
    until("the host is there", || Mesh::connect(&dir).is_ok());
    for free in 0..16 {
        let taken = leave_descriptors(free);
        for shared_memory in [true, false] {
            let connected = Mesh::builder().shared_memory(shared_memory).connect(&dir);
            match connected {
                Ok(client) => drop(client),
                Err(error) => assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{free} free: {error}"),
            }
        }
        drop(taken);
        let client = Mesh::connect(&dir).unwrap();
        assert_eq!(client.call("echo", b"x", WATCHDOG).unwrap().payload(), b"x");
        // Handles that want a descriptor of their own say so too, and work without it.
        let sub = client.subscribe("a").unwrap();
        let taken = leave_descriptors(0);
        assert_error(sub.fd(), ErrorKind::ResourceExhausted, &[]);
        assert_error(ReadySet::with_fd(), ErrorKind::ResourceExhausted, &[]);
        client.publish("a", b"").unwrap();
        sub.receive(SOON).unwrap();
        drop(taken);
        sub.fd().unwrap();
    }
}
