//! SIGKILL of either side at random moments: the survivor hears of it soon, and nothing is left behind.
//!
//! `FLOWMESH_KILL_ROUNDS` (2,000) says how often, `FLOWMESH_SEED` repeats the choices of a run.

mod support;

use flowmesh::*;
use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};
use support::*;

/// Children at once: they spend most of their time starting.
const WORKERS: u32 = 4;
/// By when a survivor reports, but for a few reports on a machine that is busy with other things.
const REPORT_MAX: Duration = Duration::from_millis(100);
const ENDLESS: Duration = Duration::from_secs(3600);

#[test]
fn a_survivor_reports_a_killed_peer_and_leaks_nothing() {
    let rounds = number("FLOWMESH_KILL_ROUNDS").unwrap_or(2000) as u32;
    let seed = seed("kill");
    // What is made once for a process, and the harness's own threads, count as resting.
    killed_clients(seed, 20);
    killed_hosts(seed, 20);
    thread::sleep(Duration::from_millis(50));
    let resting = Held::now();
    report("client", killed_clients(seed ^ 1, rounds / 2));
    resting.until_at_rest();
    report("host", killed_hosts(seed ^ 2, rounds / 2));
    resting.until_at_rest();
}

#[test]
fn programs() {
    support::programs(&[
        ("client", |arguments| {
            let mut dice = Dice(arguments[2].parse().unwrap());
            let mesh = Mesh::connect(arguments[0]).unwrap();
            traffic(&mesh, &format!("client.{}", arguments[1]), "host", &mut dice);
        }),
        ("host", |arguments| {
            let mut dice = Dice(arguments[1].parse().unwrap());
            let mesh = builder(&mut dice).open(arguments[0]).unwrap();
            traffic(&mesh, "host", "client", &mut dice);
        }),
    ]);
}

fn builder(dice: &mut Dice) -> MeshBuilder {
    Mesh::builder().ring_bytes(64 << 10 << (2 * dice.roll(3))).max_message_bytes(1 << 20)
}

/// Everything at once, until the process is killed or the other side is.
fn traffic(mesh: &Mesh, name: &str, other: &str, dice: &mut Dice) {
    let options = ServeOptions { concurrency: 2, ..ServeOptions::default() };
    let echo = |request: &Request| Ok(Reply::from(checked(request.payload())));
    let Ok(_echo) = mesh.serve(&format!("{name}.echo"), options, echo) else { return };
    let block = OnSlow::Block { timeout: Duration::from_millis(5) };
    let options = SubscribeOptions { on_slow: block, capacity: 64, ..SubscribeOptions::default() };
    let subscriptions = [mesh.subscribe("events.>"), mesh.subscribe_with("events.>", options)];
    // The last to come: who sees it knows that all the rest stands.
    let Ok(_hold) =
        mesh.service(&format!("{name}.hold"), ServeOptions { queue: 8, ..ServeOptions::default() })
    else {
        return;
    };
    let callee = format!("{other}.echo");
    let (mut pending, mut out) = (Vec::new(), Vec::new());
    while !mesh.is_closed() {
        let payload = payload(dice);
        let options = PublishOptions { timeout: Duration::from_millis(20), ..PublishOptions::default() };
        let _ = match dice.roll(4) {
            0 => mesh.publish_with("events.one", &payload, &options).map(drop),
            1 => mesh.publish_many(&[("events.a", &payload), ("events.b", &payload)], &options),
            2 => mesh.call(&callee, &payload, Duration::from_millis(20)).map(drop),
            _ => {
                pending.extend(mesh.start_call(&callee, &payload, &CallOptions::default()));
                Ok(())
            }
        };
        if pending.len() > 8 {
            pending.clear();
        }
        for subscription in subscriptions.iter().flatten() {
            let _ = subscription.receive_many(100, &mut Wait::poll(), &mut out);
            check(&mut out);
        }
    }
}

/// Mostly small, sometimes in many chunks; the same byte all through, so that torn ones are noticed.
fn payload(dice: &mut Dice) -> Vec<u8> {
    let bytes = if dice.roll(8) == 0 { dice.roll(400_000) } else { dice.roll(2000) };
    vec![dice.next() as u8; bytes as usize]
}

fn checked(payload: &[u8]) -> &[u8] {
    assert!(payload.windows(2).all(|pair| pair[0] == pair[1]), "a torn payload of {} bytes", payload.len());
    payload
}

fn check(deliveries: &mut Vec<Delivery>) {
    for delivery in deliveries.drain(..) {
        checked(delivery.message.payload());
    }
}

/// One host, and clients that come and are killed.
fn killed_clients(seed: u64, rounds: u32) -> Vec<Duration> {
    let dir = Dir::new();
    let host = Mesh::builder().max_message_bytes(1 << 20).open(&dir).unwrap();
    let bystander = Mesh::connect(&dir).unwrap();
    let echo = |request: &Request| Ok(Reply::from(checked(request.payload())));
    let options = ServeOptions { concurrency: 2, ..ServeOptions::default() };
    let service = host.serve("host.echo", options, echo).unwrap();
    let (over, next, reports) = (AtomicBool::new(false), AtomicU32::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut dice = Dice(seed ^ 9);
            let events = host.subscribe("events.>").unwrap();
            let mut out = Vec::new();
            while !over.load(SeqCst) {
                host.publish("events.host", &payload(&mut dice)).unwrap();
                bystander.publish("events.bystander", &payload(&mut dice)).unwrap();
                let _ = events.receive_many(1000, &mut Wait::poll(), &mut out);
                check(&mut out);
                thread::sleep(Duration::from_micros(200));
            }
        });
        let stop = Over(&over);
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let (host, bystander, next, reports) = (&host, &bystander, &next, &reports);
                let directory = dir.path().display().to_string();
                scope.spawn(move || {
                    let mut dice = Dice(seed.wrapping_add(u64::from(worker)));
                    loop {
                        let round = next.fetch_add(1, SeqCst);
                        if round >= rounds {
                            return;
                        }
                        let number = round.to_string();
                        let mut client =
                            Process::start("client", &[&directory, &number, &dice.next().to_string()]);
                        if dice.roll(4) == 0 {
                            // While it starts, or shakes hands.
                            thread::sleep(Duration::from_micros(dice.roll(15_000)));
                            client.kill();
                            continue;
                        }
                        let hold = format!("client.{round}.hold");
                        until("the client serves", || {
                            assert!(!client.has_ended(), "client {round} ended by itself");
                            host.services().unwrap().iter().any(|service| service.name == hold)
                        });
                        let options = CallOptions { timeout: ENDLESS, ..CallOptions::default() };
                        let calls =
                            [host, bystander].map(|mesh| mesh.start_call(&hold, b"", &options).unwrap());
                        thread::sleep(Duration::from_micros(dice.roll(4000)));
                        let killed = Instant::now();
                        client.kill();
                        for call in calls {
                            let result = call.wait(&mut Wait::timeout(WATCHDOG));
                            // A call that was still on its way finds the service gone.
                            let kind = result.unwrap_err().kind();
                            assert!(matches!(kind, ErrorKind::PeerGone | ErrorKind::NoService), "{kind:?}");
                        }
                        reports.lock().unwrap().push(killed.elapsed());
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.join().unwrap();
        }
        drop(stop);
    });
    until("every session is gone", || host.stats().unwrap().sessions.len() == 1);
    let stats = host.stats().unwrap();
    assert_eq!(stats.protocol_violations, 0, "a killed client is not a broken one");
    assert_eq!(stats.subscriptions.len(), 0, "{:?}", stats.subscriptions);
    assert_eq!(host.services().unwrap().len(), 1);
    drop(service);
    reports.into_inner().unwrap()
}

/// Hosts that are killed while a client waits for them in every way there is.
fn killed_hosts(seed: u64, rounds: u32) -> Vec<Duration> {
    let (next, reports) = (AtomicU32::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (next, reports) = (&next, &reports);
            scope.spawn(move || {
                let mut dice = Dice(seed.wrapping_add(u64::from(worker)));
                // One directory: each host finds what the one before it left behind.
                let dir = Dir::new();
                while next.fetch_add(1, SeqCst) < rounds {
                    reports.lock().unwrap().extend(one_killed_host(&dir, &mut dice));
                }
            });
        }
    });
    reports.into_inner().unwrap()
}

fn one_killed_host(dir: &Dir, dice: &mut Dice) -> Option<Duration> {
    let mut host = Process::start("host", &[&dir.path().display().to_string(), &dice.next().to_string()]);
    let early = (dice.roll(4) == 0).then(|| Duration::from_micros(dice.roll(15_000)));
    let started = Instant::now();
    let client = loop {
        if early.is_some_and(|early| started.elapsed() > early) {
            host.kill();
        }
        match Mesh::builder().shared_memory(dice.roll(8) > 0).connect(dir) {
            Ok(client) => break client,
            Err(error) => {
                // Not there yet, or killed in the middle of the handshake.
                let kind = error.kind();
                assert!(matches!(kind, ErrorKind::NotFound | ErrorKind::Disconnected), "{error}");
                if host.has_ended() {
                    return None;
                }
                assert!(started.elapsed() < WATCHDOG, "{error}");
                thread::sleep(Duration::from_micros(300));
            }
        }
    };
    let ended = |error: Error| assert_eq!(error.kind(), ErrorKind::Disconnected, "{error}");
    let killed = thread::scope(|scope| {
        let (client, host) = (&client, &mut host);
        let hold = scope.spawn(move || {
            let mut error;
            loop {
                error = client.call("host.hold", b"", ENDLESS).unwrap_err();
                // It serves only after it listens.
                if !matches!(error.kind(), ErrorKind::NoService | ErrorKind::CircuitOpen) {
                    break;
                }
                thread::yield_now();
            }
            ended(error);
        });
        let receives = scope.spawn(move || {
            let take = |events: Subscription| -> Result<()> {
                loop {
                    checked(events.receive(None)?.message.payload());
                }
            };
            ended(client.subscribe("events.>").and_then(take).unwrap_err());
        });
        let serves = scope.spawn(move || {
            let take = |service: Service| -> Result<()> {
                loop {
                    let request = service.next(&mut Wait::forever())?;
                    let payload = checked(request.payload()).to_vec();
                    request.reply(&payload, &[])?;
                }
            };
            ended(client.service("client.echo", ServeOptions::default()).and_then(take).unwrap_err());
        });
        let mut own = Dice(dice.next());
        let publishes = scope.spawn(move || {
            let options = PublishOptions { timeout: ENDLESS, ..PublishOptions::default() };
            loop {
                if let Err(error) = client.publish_with("events.x", &payload(&mut own), &options) {
                    return ended(error);
                }
                thread::sleep(Duration::from_micros(50));
            }
        });
        thread::sleep(Duration::from_micros(dice.roll(6000)));
        let killed = Instant::now();
        host.kill();
        within(WATCHDOG, "a client of a killed host", || {
            for thread in [hold, receives, serves, publishes] {
                thread.join().unwrap();
            }
        });
        killed
    });
    Some(killed.elapsed())
}

fn report(what: &str, mut reports: Vec<Duration>) {
    reports.sort_unstable();
    let quantile = |share: usize| reports[(reports.len() - 1) * share / 100];
    println!(
        "kill: {} killed {what}s reported after {:?}, 95 % of them within {:?}, all within {:?}",
        reports.len(),
        quantile(50),
        quantile(95),
        quantile(100),
    );
    assert!(quantile(95) < REPORT_MAX, "a killed {what} is reported too late");
}
