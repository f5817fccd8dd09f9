//! A forked child that uses its parent's handles is told `Forked`, never hangs, and disturbs nobody.

mod support;

use flowmesh::{
    queue::{EnqueueOptions, QueueConfig},
    *,
};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};
use support::*;

/// Runs `act` in a forked child; whether it came to its end without a panic.
fn forked(act: impl FnOnce()) {
    // SAFETY: the child runs `act` alone, whose handles do not touch what threads of the parent may hold,
    // and ends without running the parent's exit handlers. The allocator is usable after fork.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
        // SAFETY: plain call.
        unsafe { libc::_exit(i32::from(done.is_err())) }
    }
    let deadline = Instant::now() + WATCHDOG;
    let mut status = 0;
    // SAFETY: our own child; `status` outlives the call.
    while unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) } == 0 {
        if Instant::now() > deadline {
            // SAFETY: our own child, not yet waited for.
            unsafe { libc::kill(pid, libc::SIGKILL) };
            panic!("the forked child hangs");
        }
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(status, 0, "the forked child failed");
}

#[test]
fn programs() {
    support::programs(&[
        ("every_handle", |_| over_all(every_handle)),
        ("while_threads_wait", |_| over_all(while_threads_wait)),
        ("opens_anew", |_| opens_anew()),
        ("child_outlives", |_| child_outlives()),
        ("sleeping_parent", |_| sleeping_parent()),
        ("busy_parent", |_| busy_parent()),
    ]);
}

/// Each in a process of its own: a child inherits whatever its whole process holds.
#[test]
fn a_forked_child_is_told_by_every_handle() {
    Process::run("every_handle", &[]);
}

#[test]
fn a_forked_child_does_not_wait_for_threads_it_does_not_have() {
    Process::run("while_threads_wait", &[]);
}

#[test]
fn a_forked_child_can_open_and_connect_anew() {
    Process::run("opens_anew", &[]);
}

#[test]
fn a_forked_child_neither_keeps_the_directory_nor_the_session() {
    Process::run("child_outlives", &[]);
}

/// A lock library with one table of sleeping threads for the whole process crashed such children where it was loaded at
/// run time (the Python tests see that): the table named threads of the parent, whose memory was somebody else's.
#[test]
fn a_child_forked_while_threads_sleep_opens_meshes_of_its_own() {
    Process::run("sleeping_parent", &[]);
}

#[test]
fn a_child_forked_while_threads_contend_opens_meshes_of_its_own() {
    Process::run("busy_parent", &[]);
}

fn is_forked<T: std::fmt::Debug>(result: Result<T>) {
    assert_error(result, ErrorKind::Forked, &[("pid", &std::process::id().to_string())]);
}

fn is_readable(fd: i32) -> bool {
    let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, which outlives the call.
    unsafe { libc::poll(&raw mut entry, 1, 0) == 1 }
}

fn every_handle(host: &Mesh, client: &Mesh) {
    let echo = |request: &Request| Ok(Reply::from(request.payload()));
    for (mesh, other) in [(client, host), (host, client)] {
        let subscription = mesh.subscribe("a.>").unwrap();
        let service = mesh.service("s", ServeOptions::default()).unwrap();
        let served = mesh.serve("echo", ServeOptions::default(), echo).unwrap();
        let pending = mesh.start_call("s", b"1", &CallOptions::default()).unwrap();
        let request = service.next(&mut Wait::from(SOON)).unwrap();
        let set = ReadySet::with_fd().unwrap();
        subscription.watch(&set, 1);
        assert!(service.try_next().unwrap().is_none());
        let shown = [subscription.fd().unwrap(), service.fd().unwrap(), set.fd().unwrap()];
        let inherited = (subscription.clone(), service.clone(), served.clone());
        forked(|| {
            is_forked(mesh.publish("a.b", b""));
            is_forked(mesh.publish_many(&[("a.b", b"")], &PublishOptions::default()));
            is_forked(mesh.subscribe("a"));
            is_forked(mesh.service("t", ServeOptions::default()));
            is_forked(mesh.call("echo", b"", WATCHDOG));
            is_forked(mesh.start_call("echo", b"", &CallOptions::default()));
            is_forked(mesh.services());
            is_forked(mesh.stats());
            is_forked(subscription.receive(SOON));
            is_forked(subscription.receive(Some(Duration::ZERO)));
            is_forked(subscription.try_receive());
            is_forked(subscription.fd());
            is_forked(service.next(&mut Wait::from(SOON)));
            is_forked(service.try_next());
            is_forked(service.fd());
            is_forked(pending.wait(&mut Wait::from(SOON)));
            is_forked(pending.fd());
            pending.cancel();
            drop(request);
            drop((pending, inherited, set));
            subscription.close();
            service.close();
            served.close();
            mesh.close();
        });
        // The parent goes on as if nothing had happened; what it lent to the child it still has.
        assert_eq!(shown.map(is_readable), [false; 3], "the child woke an event loop of its parent");
        other.publish("a.b", b"1").unwrap();
        assert_eq!(subscription.receive(SOON).unwrap().message.payload(), b"1");
        assert_eq!(other.call("echo", b"x", WATCHDOG).unwrap().payload(), b"x");
    }
    assert_eq!(host.stats().unwrap().sessions.len(), 1);
}

fn while_threads_wait(host: &Mesh, client: &Mesh) {
    let _held = host.service("held", ServeOptions::default()).unwrap();
    let subscription = client.subscribe("never").unwrap();
    let service = client.service("unused", ServeOptions::default()).unwrap();
    let local = host.subscribe("never").unwrap();
    thread::scope(|scope| {
        // One of these leads and sleeps on the ring while the child is made.
        let receive = [
            scope.spawn(|| subscription.receive(None).map(drop)),
            scope.spawn(|| local.receive(None).map(drop)),
        ];
        let serve = scope.spawn(|| service.next(&mut Wait::forever()).map(drop));
        let call = scope.spawn(|| client.call("held", b"", Duration::from_secs(600)).map(drop));
        for round in 0..10 {
            thread::sleep(Duration::from_millis(round));
            forked(|| {
                is_forked(client.publish("a", b""));
                is_forked(host.publish("a", b""));
                is_forked(subscription.receive(SOON));
                subscription.close();
                service.close();
                local.close();
                client.close();
                host.close();
            });
        }
        client.publish("never", b"").unwrap();
        for wait in receive {
            wait.join().unwrap().unwrap();
        }
        host.close();
        assert_error(serve.join().unwrap(), ErrorKind::Disconnected, &[]);
        assert_error(call.join().unwrap(), ErrorKind::Disconnected, &[]);
    });
}

fn opens_anew() {
    let (dir, other) = (Dir::new(), Dir::new());
    let host = Mesh::open(&dir).unwrap();
    let client = Mesh::connect(&dir).unwrap();
    let _echo =
        host.serve("echo", ServeOptions::default(), |request: &Request| Ok(Reply::from(request.payload())));
    let inherited = client.clone();
    forked(|| {
        drop(inherited);
        let own = Mesh::connect(&dir).unwrap();
        assert_eq!(own.call("echo", b"from the child", WATCHDOG).unwrap().payload(), b"from the child");
        assert_eq!(Mesh::open(&dir).unwrap_err().kind(), ErrorKind::AlreadyOpen);
        let second = Mesh::open(&other).unwrap();
        let sub = second.subscribe("x").unwrap();
        second.publish("x", b"1").unwrap();
        sub.receive(SOON).unwrap();
        // The same once more: a child of a child.
        forked(|| {
            is_forked(own.publish("x", b""));
            is_forked(sub.receive(SOON));
            Mesh::connect(&other).unwrap().publish("x", b"2").unwrap();
        });
        assert_eq!(sub.receive(SOON).unwrap().message.payload(), b"2");
    });
    until("the child's sessions are gone", || host.stats().unwrap().sessions.len() == 1);
}

/// The parent's end is seen although a child of it lives on.
fn child_outlives() {
    let dir = Dir::new();
    let host = Mesh::open(&dir).unwrap();
    let client = Mesh::connect(&dir).unwrap();
    // SAFETY: the child only sleeps and ends.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        thread::sleep(WATCHDOG);
        // SAFETY: plain call.
        unsafe { libc::_exit(0) };
    }
    drop(client);
    until("the session is gone", || host.stats().unwrap().sessions.is_empty());
    drop(host);
    let again = Mesh::open(&dir).unwrap();
    let client = Mesh::connect(&dir).unwrap();
    client.publish("x", b"").unwrap();
    drop((client, again));
    let mut status = 0;
    // SAFETY: our own child, not yet waited for; `status` outlives the call.
    unsafe {
        libc::kill(pid, libc::SIGKILL);
        libc::waitpid(pid, &raw mut status, 0);
    }
}

/// Opens meshes with threads of their own.
fn open_meshes(dirs: &[Dir]) {
    let meshes: Vec<_> = dirs.iter().map(|dir| Mesh::open(dir).unwrap()).collect();
    for mesh in &meshes {
        let own = mesh.declare_queue("q", &QueueConfig::default()).unwrap();
        own.enqueue(b"y", &EnqueueOptions::default()).unwrap();
    }
}

/// The host's own threads sleep, for their work and for a flush to come.
fn sleeping_parent() {
    let dir = Dir::new();
    let host = Mesh::open(&dir).unwrap();
    let queue = host.declare_queue("jobs", &QueueConfig::default()).unwrap();
    queue.enqueue(b"x", &EnqueueOptions::default()).unwrap();
    thread::sleep(Duration::from_millis(100));
    for _ in 0..FORKS {
        let dirs = [Dir::new(), Dir::new()];
        forked(|| open_meshes(&dirs));
        queue.enqueue(b"x", &EnqueueOptions::default()).unwrap();
    }
}

/// Threads of the parent sleep in queues and flushes and contend for locks while children are made, each of which
/// opens meshes of its own.
fn busy_parent() {
    let dir = Dir::new();
    let host = Mesh::open(&dir).unwrap();
    let client = Mesh::connect(&dir).unwrap();
    let queue = host.declare_queue("jobs", &QueueConfig::default()).unwrap();
    let _workers: Vec<_> =
        (0..4).map(|_| queue.process(WorkerOptions::default(), |_: &Job| Ok(None)).unwrap()).collect();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    queue.enqueue(b"x", &EnqueueOptions::default()).unwrap();
                    client.publish("busy", b"x").unwrap();
                }
            });
        }
        for _ in 0..FORKS {
            let dirs = [Dir::new(), Dir::new()];
            forked(|| {
                open_meshes(&dirs);
                Mesh::connect(&dir).unwrap().publish("busy", b"from the child").unwrap();
            });
        }
        over.store(true, Ordering::Relaxed);
    });
}

const FORKS: u32 = 20;
