//! What events and calls can be asked for, over every transport; and bugs that were, by what went wrong.

mod support;

use flowmesh::*;
use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};
use support::*;

#[allow(clippy::needless_pass_by_value)] // the options read best where they are used
fn publish(mesh: &Mesh, subject: &str, payload: &[u8], options: PublishOptions) {
    mesh.publish_with(subject, payload, &options).unwrap();
}

fn take(sub: &Subscription) -> Delivery {
    sub.receive(SOON).unwrap()
}

fn text(delivery: &Delivery) -> &str {
    std::str::from_utf8(delivery.message.payload()).unwrap()
}

/// Publisher and subscriber, each way round and in one process.
fn ways<'a>(host: &'a Mesh, client: &'a Mesh) -> [(&'a Mesh, &'a Mesh); 4] {
    [(host, client), (client, host), (client, client), (host, host)]
}

/// Waits until everything published before is where it belongs: events of one publisher come in order.
fn settle(publisher: &Mesh, subscriber: &Mesh) {
    let sub = subscriber.subscribe("settle").unwrap();
    publisher.publish("settle", b"").unwrap();
    take(&sub);
}

// ---- events

#[test]
fn higher_priorities_come_first() {
    over_all(|host, client| {
        for (publisher, subscriber) in ways(host, client) {
            let sub = subscriber.subscribe("p").unwrap();
            for (payload, priority) in [("a", 0), ("b", 9), ("c", 4), ("d", 9), ("e", 0)] {
                let options = PublishOptions { priority, ..PublishOptions::default() };
                publish(publisher, "p", payload.as_bytes(), options);
            }
            settle(publisher, subscriber);
            let got: Vec<_> = (0..5).map(|_| take(&sub)).collect();
            assert_eq!(got.iter().map(text).collect::<String>(), "bdcae");
            assert_eq!(got.iter().map(|got| got.message.priority()).collect::<Vec<_>>(), [9, 9, 4, 0, 0]);
        }
    });
}

#[test]
fn events_that_come_too_late_do_not_come() {
    over_all(|host, client| {
        for (publisher, subscriber) in ways(host, client) {
            let sub = subscriber.subscribe("t").unwrap();
            let ttl = Some(Duration::from_millis(1));
            publish(publisher, "t", b"late", PublishOptions { ttl, ..PublishOptions::default() });
            let ttl = Some(WATCHDOG);
            publish(publisher, "t", b"in time", PublishOptions { ttl, ..PublishOptions::default() });
            settle(publisher, subscriber);
            thread::sleep(Duration::from_millis(5));
            let got = take(&sub);
            assert_eq!((text(&got), got.gap, got.message.ttl()), ("in time", 0, Some(WATCHDOG)));
            assert!(sub.try_receive().unwrap().is_none());
        }
    });
}

#[test]
fn expired_events_make_room_for_others() {
    // Once they took their place for ever: a subscriber that blocks was full of events it never saw.
    over_all(|host, client| {
        for (publisher, subscriber) in ways(host, client) {
            let on_slow = OnSlow::Block { timeout: WATCHDOG };
            let options = SubscribeOptions { on_slow, capacity: 8, ..SubscribeOptions::default() };
            let sub = subscriber.subscribe_with("t", options).unwrap();
            for _ in 0..10 {
                // Room is told in lots of a quarter of the capacity.
                for _ in 0..6 {
                    let ttl = Some(Duration::from_millis(1));
                    publish(publisher, "t", b"late", PublishOptions { ttl, ..PublishOptions::default() });
                }
                settle(publisher, subscriber);
                thread::sleep(Duration::from_millis(3));
                thread::scope(|scope| {
                    let got = scope.spawn(|| take(&sub));
                    publish(publisher, "t", b"in time", PublishOptions::default());
                    let got = got.join().unwrap();
                    assert_eq!((text(&got), got.gap), ("in time", 0));
                });
            }
        }
    });
}

#[test]
fn delayed_events_come_after_their_delay_in_order() {
    over_all(|host, client| {
        for (publisher, subscriber) in ways(host, client) {
            let sub = subscriber.subscribe("d").unwrap();
            let began = Instant::now();
            for delay_ms in [60, 20, 40] {
                let delay = Some(Duration::from_millis(delay_ms));
                let payload = delay_ms.to_string();
                publish(
                    publisher,
                    "d",
                    payload.as_bytes(),
                    PublishOptions { delay, ..PublishOptions::default() },
                );
            }
            publish(publisher, "d", b"0", PublishOptions::default());
            for delay_ms in [0, 20, 40, 60] {
                let got = take(&sub);
                assert_eq!(text(&got), delay_ms.to_string());
                assert!(began.elapsed() >= Duration::from_millis(delay_ms), "{:?}", began.elapsed());
            }
        }
        assert_eq!(host.stats().unwrap().bus.delayed, 0);
    });
}

#[test]
fn one_member_of_a_queue_group_gets_each_event() {
    over_all(|host, client| {
        for publisher in [host, client] {
            let options =
                SubscribeOptions { group: Some(Name::parse("g").unwrap()), ..SubscribeOptions::default() };
            let members =
                [host, client, client].map(|mesh| mesh.subscribe_with("q", options.clone()).unwrap());
            let everything = client.subscribe("q").unwrap();
            for number in 0..300u32 {
                publisher.publish("q", &number.to_le_bytes()).unwrap();
            }
            let mut seen = Vec::new();
            until("each has come once", || {
                for member in &members {
                    seen.extend(member.try_receive().unwrap().map(|got| got.message.payload().to_vec()));
                }
                seen.len() == 300
            });
            seen.sort_by_key(|number| u32::from_le_bytes(number[..].try_into().unwrap()));
            assert!(seen.iter().enumerate().all(|(index, number)| *number == (index as u32).to_le_bytes()));
            (0..300).for_each(|_| drop(take(&everything)));
        }
    });
}

#[test]
fn a_member_that_dropped_events_is_not_full_for_ever() {
    // Once the host never learned of events that a member's own queue had dropped.
    over_all(|host, client| {
        let options = SubscribeOptions {
            group: Some(Name::parse("g").unwrap()),
            capacity: 10,
            ..SubscribeOptions::default()
        };
        let [slow, other] = [client, client].map(|mesh| mesh.subscribe_with("q", options.clone()).unwrap());
        for _ in 0..100 {
            host.publish("q", b"").unwrap();
        }
        settle(host, client);
        let mut out = Vec::new();
        for member in [&slow, &other] {
            while member.receive_many(100, &mut Wait::poll(), &mut out).is_ok() {}
        }
        let lost: u64 = out.iter().map(|got| got.gap + 1).sum();
        assert_eq!(lost, 100);
        client.services().unwrap();
        let depth =
            |host: &Mesh| host.stats().unwrap().subscriptions.iter().map(|sub| sub.depth).sum::<u64>();
        until("the host knows that they are empty", || depth(host) < 8);
    });
}

#[test]
fn failed_events_come_again_then_become_dead_letters() {
    over_all(|host, client| {
        for (publisher, subscriber) in ways(host, client) {
            let dead = host.subscribe("dead").unwrap();
            let retry = Retry {
                max_attempts: 3,
                backoff: Backoff { initial: Duration::from_millis(2), factor: 2.0, max: WATCHDOG },
                dead_letter: Some(Subject::parse("dead").unwrap()),
            };
            let options = SubscribeOptions { retry: Some(retry), ..SubscribeOptions::default() };
            let (tell, told) = mpsc::channel();
            let _on = subscriber
                .on("r", options, move |got: &Delivery| {
                    tell.send((text(got).to_owned(), got.attempt)).unwrap();
                    match (text(got), got.attempt) {
                        ("panics", _) => panic!("oh no"),
                        ("second", 1) | ("never", _) => Err(HandlerError::new("E", "not now")),
                        _ => Ok(()),
                    }
                })
                .unwrap();
            let options =
                PublishOptions { headers: vec![("k".into(), "v".into())], ..PublishOptions::default() };
            publish(publisher, "r", b"never", options);
            let letter = take(&dead);
            let header = |name: &str| letter.message.header_value(name).map(str::to_owned);
            assert_eq!((text(&letter), header("k").as_deref()), ("never", Some("v")));
            assert_eq!(header("x-flowmesh-error-type").as_deref(), Some("E"));
            assert_eq!(header("x-flowmesh-error").as_deref(), Some("not now"));
            assert_eq!(header("x-flowmesh-attempts").as_deref(), Some("3"));
            assert_eq!(header("x-flowmesh-subject").as_deref(), Some("r"));
            for attempt in 1..=3 {
                assert_eq!(told.recv().unwrap(), ("never".to_owned(), attempt));
            }
            publish(publisher, "r", b"panics", PublishOptions::default());
            assert_eq!(take(&dead).message.header_value("x-flowmesh-error"), Some("oh no"));
            (0..3).for_each(|_| drop(told.recv().unwrap()));
            publish(publisher, "r", b"second", PublishOptions::default());
            for attempt in 1..=2 {
                assert_eq!(told.recv().unwrap(), ("second".to_owned(), attempt));
            }
            assert!(dead.try_receive().unwrap().is_none());
        }
    });
}

#[test]
fn retries_take_no_credit_twice() {
    // Once each retry told the host of one more event taken than was sent, which it took for a violation.
    over_all(|host, client| {
        let retry = Retry {
            max_attempts: 50,
            backoff: Backoff { initial: Duration::ZERO, factor: 1.0, max: Duration::ZERO },
            dead_letter: None,
        };
        let on_slow = OnSlow::Block { timeout: WATCHDOG };
        let options =
            SubscribeOptions { on_slow, capacity: 4, retry: Some(retry), ..SubscribeOptions::default() };
        for (publisher, subscriber) in ways(host, client) {
            let sub = subscriber.subscribe_with("r", options.clone()).unwrap();
            for _ in 0..5 {
                publish(publisher, "r", b"x", PublishOptions::default());
                for attempt in 1..50 {
                    let got = take(&sub);
                    assert_eq!(got.attempt, attempt);
                    sub.fail(got, &HandlerError::new("E", "again")).unwrap();
                }
                assert_eq!(take(&sub).attempt, 50);
            }
        }
        assert_eq!(host.stats().unwrap().protocol_violations, 0);
    });
}

#[test]
fn a_slow_subscriber_drops_the_oldest_or_ends() {
    over_all(|host, client| {
        for (publisher, subscriber) in ways(host, client) {
            let options = SubscribeOptions { capacity: 10, ..SubscribeOptions::default() };
            let lossy = subscriber.subscribe_with("s", options.clone()).unwrap();
            let options = SubscribeOptions { on_slow: OnSlow::Disconnect, ..options };
            let strict = subscriber.subscribe_with("s", options).unwrap();
            for number in 0..30u8 {
                publisher.publish("s", &[number]).unwrap();
            }
            settle(publisher, subscriber);
            let mut gaps = 0;
            for number in 20..30u8 {
                let got = take(&lossy);
                gaps += got.gap;
                assert_eq!(got.message.payload(), [number]);
            }
            assert_eq!(gaps, 20);
            for number in 0..10u8 {
                assert_eq!(take(&strict).message.payload(), [number], "what waits can still be taken");
            }
            assert_error(strict.receive(SOON), ErrorKind::SlowConsumer, &[("capacity", "10")]);
            assert!(strict.is_closed() && !lossy.is_closed());
            settle(publisher, subscriber);
        }
    });
}

#[test]
fn a_publisher_waits_for_a_subscriber_that_blocks_and_can_be_interrupted() {
    over_all(|host, client| {
        for (publisher, subscriber) in [(host, client), (client, host)] {
            let on_slow = OnSlow::Block { timeout: Duration::from_secs(3600) };
            let options = SubscribeOptions { on_slow, capacity: 4, ..SubscribeOptions::default() };
            let sub = subscriber.subscribe_with("b", options).unwrap();
            let options = PublishOptions { timeout: Duration::from_secs(3600), ..PublishOptions::default() };
            let mut sent = 0u64;
            let error = loop {
                // Asked whenever it waits, be it for a moment.
                let began = Instant::now();
                let mut interrupt = || began.elapsed() > Duration::from_millis(500);
                let mut wait = Wait { timeout: None, interrupt: Some(&mut interrupt) };
                match publisher.publish_wait("b", &[], &options, &mut wait) {
                    Ok(_) => sent += 1,
                    Err(error) => break error,
                }
                assert!(sent < 100_000);
            };
            assert_eq!(error.kind(), ErrorKind::Interrupted, "{error}");
            assert!(sent >= 4, "{sent} sent");
            // One that waits less gives up by itself.
            let options = PublishOptions { timeout: Duration::from_millis(20), ..options };
            assert_error(publisher.publish_with("b", b"", &options), ErrorKind::Timeout, &[]);
            // Nothing that was sent is lost.
            (0..sent).for_each(|_| assert_eq!(take(&sub).gap, 0));
            sub.close();
            publisher.publish("b", b"").unwrap();
            settle(publisher, subscriber);
        }
    });
}

#[test]
fn large_events_go_through_the_smallest_ring() {
    // Once a chunk was larger than a small ring takes, and a backlog waited for more room than it has.
    over_all_with(
        |builder| builder.ring_bytes(64 << 10).max_message_bytes(1 << 20),
        |host, client| {
            let echo = |request: &Request| Ok(Reply::from(request.payload()));
            let _echo = client.serve("echo", ServeOptions::default(), echo).unwrap();
            for (publisher, subscriber) in ways(host, client) {
                let sub = subscriber.subscribe("l").unwrap();
                for size in [10_000, 16_384, 20_000, 32_768, 40_000, 65_536, 70_000, 1 << 20] {
                    let payload: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
                    publisher.publish("l", &payload).unwrap();
                    publisher.publish_many(&[("l", &payload)], &PublishOptions::default()).unwrap();
                    assert!(take(&sub).message.payload() == payload, "{size}");
                    assert!(take(&sub).message.payload() == payload, "{size}");
                    assert!(
                        publisher.call("echo", &payload, WATCHDOG).unwrap().payload() == payload,
                        "{size}"
                    );
                }
            }
            assert_eq!(host.stats().unwrap().sessions.len(), 1);
        },
    );
}

#[test]
fn events_published_together_are_events_like_others() {
    over_all_with(
        |builder| builder.ring_bytes(128 << 10),
        |host, client| {
            for (publisher, subscriber) in ways(host, client) {
                let on_slow = OnSlow::Block { timeout: WATCHDOG };
                let block = SubscribeOptions { on_slow, capacity: 100, ..SubscribeOptions::default() };
                let blocking = subscriber.subscribe_with("many.*", block.clone()).unwrap();
                // Subjects in rows of different lengths, payloads of none, some, and more than a batch takes.
                let events: Vec<(&str, Vec<u8>)> = (0..3000_u32)
                    .map(|number| {
                        let subject =
                            ["many.a", "many.b", "many.c"][(number / 700 + number / 1999) as usize % 3];
                        let size = if number % 500 == 499 { 40_000 } else { 4 + (number as usize * 7) % 90 };
                        let mut payload = number.to_le_bytes().to_vec();
                        payload.resize(size, number as u8);
                        (subject, payload)
                    })
                    .collect();
                let headers = vec![("trace".to_owned(), "t".to_owned())];
                let options = PublishOptions {
                    priority: 6,
                    headers,
                    ttl: Some(Duration::from_secs(3600)),
                    ..PublishOptions::default()
                };
                let before = host.stats().unwrap().bus;
                let mut ids = std::collections::HashSet::new();
                thread::scope(|scope| {
                    scope.spawn(|| publisher.publish_many(&events, &options).unwrap());
                    let mut got = Vec::new();
                    for (subject, payload) in &events {
                        if got.is_empty() {
                            blocking.receive_many(64, &mut Wait::from(SOON), &mut got).unwrap();
                        }
                        let Delivery { message, gap, attempt } = got.remove(0);
                        assert_eq!((message.subject(), gap, attempt), (*subject, 0, 1));
                        assert!(message.payload() == payload, "{message:?}");
                        assert_eq!((message.priority(), message.header_value("trace")), (6, Some("t")));
                        assert_eq!(message.ttl(), Some(Duration::from_secs(3600)));
                        assert!(ids.insert(message.id()), "an id twice");
                    }
                    assert!(got.is_empty());
                });
                drop(blocking);
                let after = host.stats().unwrap().bus;
                let bytes: usize = events.iter().map(|(_, payload)| payload.len()).sum();
                assert_eq!(after.published - before.published, 3000);
                assert_eq!(after.published_bytes - before.published_bytes, bytes as u64);
                assert_eq!(after.delivered - before.delivered, 3000);
                assert_eq!(after.delivered_bytes - before.delivered_bytes, bytes as u64);

                // What does not fit is dropped and told, or ends the subscription, in the middle of a batch too.
                let few = SubscribeOptions { capacity: 10, ..SubscribeOptions::default() };
                let lossy = subscriber.subscribe_with("few", few.clone()).unwrap();
                let numbers: Vec<(&str, [u8; 1])> = (0..200).map(|number| ("few", [number])).collect();
                publisher.publish_many(&numbers, &options).unwrap();
                settle(publisher, subscriber);
                let mut seen = 0;
                while seen < 200 {
                    let got = take(&lossy);
                    seen += 1 + got.gap;
                    assert_eq!(u64::from(got.message.payload()[0]) + 1, seen);
                }
                drop(lossy);
                let strict = SubscribeOptions { on_slow: OnSlow::Disconnect, ..few };
                let strict = subscriber.subscribe_with("few", strict).unwrap();
                publisher.publish_many(&numbers, &options).unwrap();
                settle(publisher, subscriber);
                for number in 0..10 {
                    assert_eq!(take(&strict).message.payload(), [number]);
                }
                assert_error(strict.receive(SOON), ErrorKind::SlowConsumer, &[("capacity", "10")]);

                // Members of a group take turns within a batch.
                let group = SubscribeOptions { group: Some(Name::parse("g").unwrap()), ..block };
                let members = [0, 1].map(|_| subscriber.subscribe_with("few", group.clone()).unwrap());
                publisher.publish_many(&numbers[..100], &options).unwrap();
                for member in &members {
                    (0..50).for_each(|_| drop(take(member)));
                    assert!(member.try_receive().unwrap().is_none());
                }
            }
        },
    );
}

#[test]
fn publishing_many_says_how_many_were_published() {
    over_all(|host, client| {
        for (publisher, subscriber) in ways(host, client) {
            let on_slow = OnSlow::Block { timeout: Duration::from_secs(3600) };
            let options = SubscribeOptions { on_slow, capacity: 5, ..SubscribeOptions::default() };
            let sub = subscriber.subscribe_with("m", options).unwrap();
            let options = PublishOptions { timeout: Duration::from_millis(20), ..PublishOptions::default() };
            let mut published = 0_u64;
            // A client hears after its first batch that it is to wait.
            let error = loop {
                let events = vec![("m", b"payload"); 7];
                match publisher.publish_many(&events, &options) {
                    Ok(()) => published += 7,
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
            published += error.get("published").unwrap().parse::<u64>().unwrap();
            let mut taken = 0;
            while taken < published {
                taken += 1;
                assert_eq!(take(&sub).gap, 0);
            }
            settle(publisher, subscriber);
            assert!(sub.try_receive().unwrap().is_none(), "{published} of them were published");
        }
    });
}

#[test]
fn small_events_leave_no_backlog_behind() {
    // Once a small event that found room took back the wish for room of a backlog, which then lay for ever.
    over_all_with(
        |builder| builder.ring_bytes(64 << 10),
        |host, client| {
            for _ in 0..20 {
                let large = client.subscribe("large").unwrap();
                let on_slow = OnSlow::Block { timeout: Duration::from_millis(1) };
                let options = SubscribeOptions { on_slow, capacity: 4, ..SubscribeOptions::default() };
                let _full = client.subscribe_with("small", options).unwrap();
                for _ in 0..200 {
                    host.publish("large", &[7; 10_000]).unwrap();
                }
                for _ in 0..6 {
                    host.publish("small", b"").unwrap();
                }
                let mut seen = 0;
                while seen < 200 {
                    seen += 1 + take(&large).gap;
                }
            }
        },
    );
}

#[test]
fn a_flood_of_events_keeps_nothing_else_waiting() {
    // Once the poller went on reading as long as there was anything to read: no timer fired, nobody was taken in.
    let dir = Dir::new();
    let host = Mesh::open(&dir).unwrap();
    let over = AtomicBool::new(false);
    let _hold = host.service("hold", ServeOptions::default()).unwrap();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let client = Mesh::connect(&dir).unwrap();
                while !over.load(SeqCst) {
                    let events = [("flood", &b""[..]); 64];
                    client.publish_many(&events, &PublishOptions::default()).unwrap();
                }
            });
        }
        let _over = Over(&over);
        within(2 * WATCHDOG, "what is to happen beside a flood", || {
            until("it floods", || host.stats().unwrap().bus.published > 10_000);
            for _ in 0..5 {
                let client = Mesh::connect(&dir).unwrap();
                let sub = client.subscribe("d").unwrap();
                let delay = Some(Duration::from_millis(5));
                publish(&client, "d", b"", PublishOptions { delay, ..PublishOptions::default() });
                take(&sub);
                let pending = client
                    .start_call(
                        "hold",
                        b"",
                        &CallOptions { timeout: Duration::from_millis(5), ..CallOptions::default() },
                    )
                    .unwrap();
                assert_error(pending.wait(&mut Wait::from(SOON)), ErrorKind::Timeout, &[]);
            }
        });
    });
}

// ---- calls

#[test]
fn a_cancelled_call_reaches_its_handler() {
    over_all(|host, client| {
        for (caller, server) in ways(host, client) {
            let service = server.service("c", ServeOptions::default()).unwrap();
            let pending = caller.start_call("c", b"", &CallOptions::default()).unwrap();
            let request = service.next(&mut Wait::from(SOON)).unwrap();
            let set = ReadySet::with_fd().unwrap();
            request.watch_cancel(&set, 7);
            assert!(!request.is_cancelled());
            pending.cancel();
            assert_error(pending.wait(&mut Wait::from(SOON)), ErrorKind::Cancelled, &[]);
            until("the handler sees it", || request.is_cancelled());
            let mut tokens = Vec::new();
            until("the token comes", || {
                set.drain(&mut tokens);
                !tokens.is_empty()
            });
            assert_eq!(tokens, [7]);
            request.reply(b"for nobody", &[]).unwrap();
            // Dropping one cancels it too, and a deadline does.
            let pending = caller.start_call("c", b"", &CallOptions::default()).unwrap();
            let request = service.next(&mut Wait::from(SOON)).unwrap();
            drop(pending);
            until("the handler sees it", || request.is_cancelled());
            drop(request);
            let options = CallOptions { timeout: Duration::from_millis(20), ..CallOptions::default() };
            let pending = caller.start_call("c", b"", &options).unwrap();
            let request = service.next(&mut Wait::from(SOON)).unwrap();
            assert!(request.remaining() <= Duration::from_millis(20));
            assert_error(pending.wait(&mut Wait::from(SOON)), ErrorKind::Timeout, &[("service", "c")]);
            until("the handler sees it", || request.is_cancelled());
            drop(request);
            // And the service is as good as new.
            let pending = caller.start_call("c", b"1", &CallOptions::default()).unwrap();
            service.next(&mut Wait::from(SOON)).unwrap().reply(b"2", &[]).unwrap();
            assert_eq!(pending.wait(&mut Wait::from(SOON)).unwrap().payload(), b"2");
            service.close();
        }
    });
}

#[test]
fn a_pending_call_can_be_waited_for_in_pieces_and_taken_once() {
    over_all(|host, client| {
        for (caller, server) in [(host, client), (client, host)] {
            let service = server.service("w", ServeOptions::default()).unwrap();
            let pending = caller.start_call("w", b"", &CallOptions::default()).unwrap();
            assert!(pending.try_take().is_none());
            let short = pending.wait(&mut Wait::timeout(Duration::from_millis(2)));
            assert_error(short, ErrorKind::Timeout, &[("timeout_ms", "2")]);
            let mut interrupt = || true;
            let mut wait = Wait { timeout: None, interrupt: Some(&mut interrupt) };
            assert_error(pending.wait(&mut wait), ErrorKind::Interrupted, &[]);
            service.next(&mut Wait::from(SOON)).unwrap().reply(b"x", &[]).unwrap();
            assert_eq!(pending.wait(&mut Wait::from(SOON)).unwrap().payload(), b"x");
            assert_error(pending.wait(&mut Wait::from(SOON)), ErrorKind::Closed, &[]);
            pending.cancel();
            service.close();
        }
    });
}

#[test]
fn services_are_discovered_with_their_instances() {
    over_all(|host, client| {
        let options = ServeOptions { version: "1.2".into(), concurrency: 3, ..ServeOptions::default() };
        let _one = host.service("disc", options.clone()).unwrap();
        let two = client.service("disc", ServeOptions { version: "1.3".into(), ..options }).unwrap();
        for mesh in [host, client] {
            let services = mesh.services().unwrap();
            assert_eq!((services.len(), services[0].name.as_str()), (1, "disc"));
            let mut found: Vec<_> = services[0]
                .instances
                .iter()
                .map(|one| (one.session, one.version.as_str(), one.pid, one.concurrency, one.outstanding))
                .collect();
            found.sort_unstable();
            let pid = std::process::id();
            assert_eq!(found, [(0, "1.2", pid, 3, 0), (client.session(), "1.3", pid, 3, 0)]);
        }
        two.close();
        assert_eq!(client.services().unwrap()[0].instances.len(), 1);
    });
}

#[test]
fn a_rate_limit_refuses_and_says_when_to_come_again() {
    over_all(|host, client| {
        for (caller, server) in ways(host, client) {
            let rate = Some(RateLimit { per_second: 0.001, burst: 3 });
            let options = ServeOptions { rate, ..ServeOptions::default() };
            let service = server.serve("rated", options, |_: &Request| Ok(Reply::default())).unwrap();
            for _ in 0..3 {
                caller.call("rated", b"", WATCHDOG).unwrap();
            }
            let error = assert_error(
                caller.call("rated", b"", WATCHDOG),
                ErrorKind::RateLimited,
                &[("service", "rated"), ("retry_after_ms", "")],
            );
            assert!(error.get("retry_after_ms").unwrap().parse::<u64>().unwrap() > 900_000, "{error}");
            service.close();
        }
    });
}

#[test]
fn a_breaker_opens_and_lets_a_probe_through() {
    let breaker =
        BreakerOptions { min_calls: 4, open_for: Duration::from_millis(50), ..BreakerOptions::default() };
    over_all_with(
        |builder| builder.breaker(Some(breaker)),
        |host, client| {
            for (caller, server) in ways(host, client) {
                let name = format!("broken-{}-{}", caller.session(), server.session());
                let service = server.service(&name, ServeOptions::default()).unwrap();
                for _ in 0..4 {
                    let call = caller.call(&name, b"", Duration::from_millis(5));
                    assert_error(call, ErrorKind::Timeout, &[("service", &name)]);
                }
                let calls = |host: &Mesh| {
                    let stats = host.stats().unwrap();
                    stats.services.iter().find(|service| service.name == name).unwrap().calls
                };
                let error = assert_error(
                    caller.call(&name, b"", WATCHDOG),
                    ErrorKind::CircuitOpen,
                    &[("service", &name), ("retry_after_ms", "")],
                );
                assert!(error.is_retryable());
                settle(caller, host);
                assert!(calls(host) <= 4, "it was sent");
                // Healthy again: it answers all it is given.
                let answers = thread::spawn(move || {
                    while let Ok(request) = service.next(&mut Wait::from(SOON)) {
                        let last = request.payload() == b"last";
                        let _ = request.reply(b"", &[]);
                        if last {
                            return;
                        }
                    }
                });
                until("a probe closes it", || caller.call(&name, b"", WATCHDOG).is_ok());
                caller.call(&name, b"last", WATCHDOG).unwrap();
                answers.join().unwrap();
            }
        },
    );
}

#[test]
fn calls_spread_over_instances_and_go_on_when_one_leaves() {
    over_all(|host, client| {
        let serve = |mesh: &Mesh, name: &'static str| {
            mesh.serve("many", ServeOptions::default(), move |_: &Request| Ok(Reply::from(name))).unwrap()
        };
        let (_one, two) = (serve(host, "one"), serve(client, "two"));
        for caller in [host, client] {
            let answers: Vec<_> = (0..20).map(|_| caller.call("many", b"", WATCHDOG).unwrap()).collect();
            let ones = answers.iter().filter(|answer| answer.payload() == b"one").count();
            assert_eq!(ones, 10);
        }
        two.close();
        for caller in [host, client] {
            assert_eq!(caller.call("many", b"", WATCHDOG).unwrap().payload(), b"one");
        }
    });
}

// ---- waiting

fn is_readable(fd: i32) -> bool {
    let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, which outlives the call.
    unsafe { libc::poll(&raw mut entry, 1, 0) == 1 }
}

#[test]
fn descriptors_are_readable_while_there_is_something_to_take() {
    over_all(|host, client| {
        for (other, mesh) in ways(host, client) {
            let sub = mesh.subscribe("f").unwrap();
            let service = mesh.service("f", ServeOptions::default()).unwrap();
            let (sub_fd, service_fd) = (sub.fd().unwrap(), service.fd().unwrap());
            assert_eq!(sub.fd().unwrap(), sub_fd);
            for _ in 0..3 {
                assert!(!is_readable(sub_fd) && !is_readable(service_fd));
                other.publish("f", b"1").unwrap();
                other.publish("f", b"2").unwrap();
                let pending = other.start_call("f", b"", &CallOptions::default()).unwrap();
                let pending_fd = pending.fd().unwrap();
                until("both are readable", || is_readable(sub_fd) && is_readable(service_fd));
                settle(other, mesh);
                assert!(sub.try_receive().unwrap().is_some());
                assert!(is_readable(sub_fd), "one more waits");
                assert!(sub.try_receive().unwrap().is_some());
                assert!(sub.try_receive().unwrap().is_none());
                assert!(!is_readable(sub_fd));
                assert!(!is_readable(pending_fd));
                service.try_next().unwrap().unwrap().reply(b"", &[]).unwrap();
                assert!(service.try_next().unwrap().is_none());
                until("the answer is there", || is_readable(pending_fd));
                pending.try_take().unwrap().unwrap();
            }
            service.close();
            assert!(is_readable(service_fd), "it is over");
            sub.close();
            assert!(is_readable(sub_fd), "it is over");
        }
    });
}

#[test]
fn a_ready_set_tells_of_each_edge_once() {
    over_all(|host, client| {
        for (other, mesh) in ways(host, client) {
            let set = ReadySet::with_fd().unwrap();
            let fd = set.fd().unwrap();
            let subs: Vec<_> = (0..3).map(|number| mesh.subscribe(&format!("r.{number}")).unwrap()).collect();
            for (token, sub) in subs.iter().enumerate() {
                sub.watch(&set, token as u64);
            }
            let mut tokens = Vec::new();
            for _ in 0..3 {
                assert!(!is_readable(fd));
                for subject in ["r.0", "r.0", "r.2", "r.0"] {
                    other.publish(subject, b"").unwrap();
                }
                settle(other, mesh);
                assert!(is_readable(fd));
                tokens.clear();
                set.drain(&mut tokens);
                assert_eq!(tokens, [0, 2]);
                assert!(!is_readable(fd), "drained");
                // Not told again before all was taken.
                other.publish("r.0", b"").unwrap();
                settle(other, mesh);
                tokens.clear();
                set.drain(&mut tokens);
                assert_eq!(tokens, []);
                for sub in &subs {
                    while sub.try_receive().unwrap().is_some() {}
                }
            }
            // What waits already is told at once, and so is the end; what is not watched is not told.
            other.publish("r.1", b"").unwrap();
            settle(other, mesh);
            tokens.clear();
            set.drain(&mut tokens);
            subs[1].unwatch();
            subs[1].watch(&set, 9);
            subs[2].unwatch();
            other.publish("r.2", b"").unwrap();
            settle(other, mesh);
            subs[0].close();
            set.drain(&mut tokens);
            assert_eq!(tokens, [1, 9, 0]);
        }
    });
}

#[test]
fn a_ready_sets_wake_is_called_on_the_edge() {
    over_all(|host, client| {
        let woken = std::sync::Arc::new(AtomicU64::new(0));
        let count = std::sync::Arc::clone(&woken);
        let set = ReadySet::with_wake(move || {
            count.fetch_add(1, SeqCst);
        });
        assert_eq!(set.fd(), None);
        let sub = client.subscribe("w").unwrap();
        sub.watch(&set, 1);
        for round in 1..=5 {
            for _ in 0..10 {
                host.publish("w", b"").unwrap();
            }
            settle(host, client);
            assert_eq!(woken.load(SeqCst), round);
            let mut tokens = Vec::new();
            set.drain(&mut tokens);
            assert_eq!(tokens, [1]);
            while sub.try_receive().unwrap().is_some() {}
        }
    });
}

#[test]
fn many_threads_wait_for_one_subscription_and_each_event_wakes_one() {
    over_all(|host, client| {
        for (publisher, subscriber) in ways(host, client) {
            let on_slow = OnSlow::Block { timeout: WATCHDOG };
            let options = SubscribeOptions { on_slow, ..SubscribeOptions::default() };
            let sub = subscriber.subscribe_with("m", options).unwrap();
            let seen = Mutex::new(Vec::new());
            thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        loop {
                            match sub.receive(SOON) {
                                Ok(got) => seen.lock().unwrap().push(got.message.payload()[0]),
                                Err(error) => return assert_eq!(error.kind(), ErrorKind::Closed, "{error}"),
                            }
                        }
                    });
                }
                for number in 0..200u8 {
                    publisher.publish("m", &[number]).unwrap();
                }
                until("all came", || seen.lock().unwrap().len() == 200);
                sub.close();
            });
            let mut seen = seen.into_inner().unwrap();
            seen.sort_unstable();
            assert!(seen.into_iter().eq(0..200));
        }
    });
}

#[test]
fn meshes_in_one_process_do_not_know_each_other() {
    let dirs: Vec<Dir> = (0..8).map(|_| Dir::new()).collect();
    let hosts: Vec<Mesh> = dirs.iter().map(|dir| Mesh::open(dir).unwrap()).collect();
    let clients: Vec<[Mesh; 3]> =
        dirs.iter().map(|dir| [(); 3].map(|()| Mesh::connect(dir).unwrap())).collect();
    let subs: Vec<_> = clients.iter().flatten().map(|client| client.subscribe(">").unwrap()).collect();
    let _services: Vec<_> = clients
        .iter()
        .enumerate()
        .map(|(number, clients)| {
            let answer = move |_: &Request| Ok(Reply::from(number.to_string().as_str()));
            clients[0].serve("which", ServeOptions::default(), answer).unwrap()
        })
        .collect();
    thread::scope(|scope| {
        for (number, (host, clients)) in hosts.iter().zip(&clients).enumerate() {
            scope.spawn(move || {
                for mesh in clients.iter().chain([host]) {
                    let answer = mesh.call("which", b"", WATCHDOG).unwrap();
                    assert_eq!(answer.payload(), number.to_string().as_bytes());
                    mesh.publish("mine", number.to_string().as_bytes()).unwrap();
                }
            });
        }
    });
    for (index, sub) in subs.iter().enumerate() {
        for _ in 0..4 {
            assert_eq!(text(&take(sub)), (index / 3).to_string());
        }
        assert!(sub.try_receive().unwrap().is_none());
    }
    // The end of one is not the end of others.
    hosts[0].close();
    until("its clients know", || clients[0].iter().all(Mesh::is_closed));
    assert!(clients[1..].iter().flatten().all(|client| client.publish("mine", b"").is_ok()));
}
