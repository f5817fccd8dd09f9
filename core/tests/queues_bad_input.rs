//! What is not valid is refused by queues with an error that names value and limit, and changes nothing; whoever asks
//! through a raw session for what no client sends harms nobody but itself.
#![forbid(unsafe_code)]

mod support;

use ErrorKind::{InvalidArgument, LeaseLost, NotFound, TooLarge};
use flowmesh::{
    Durability, Error, ErrorKind, Job, Mesh, Message, Name, Queue, Settle, Timestamp, Wait,
    queue::{
        AckRequest, Answered, Backoff, EnqueueOptions, JobId, JobState, Keep, NewJobRequest, OnConflict,
        QueueConfig, QueueId, QueueReply, QueueRequest, Rate, Retention, Schedule, Scope,
        Sent as SentRequest, Token, Unique,
    },
    session::{ConnectConfig, Connected, Sent, bodies, connect_unix},
    wire::{CHUNK_BYTES, Chunk, Draft, Kind},
};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use support::*;

const SECOND: Duration = Duration::from_secs(1);
const TEN_YEARS: Duration = Duration::from_secs(10 * 365 * 86_400);
const OVER_TEN_YEARS: Duration = Duration::from_millis(315_360_000_001);

fn plain() -> EnqueueOptions {
    EnqueueOptions::default()
}

fn quick() -> QueueConfig {
    QueueConfig { durability: Durability::Os, ..QueueConfig::default() }
}

/// In the host, and from a client over each transport.
fn everywhere(test: impl Fn(&Mesh)) {
    over_all(|host, client| {
        test(client);
        for name in host.queues().unwrap() {
            let queue = host.queue(&name).unwrap();
            let other = QueueConfig { lease: Duration::from_secs(31), ..quick() };
            queue.configure(&other).unwrap();
        }
        assert_eq!(host.stats().unwrap().protocol_violations, 0, "bad input is no broken protocol");
    });
    let dir = Dir::new();
    test(&Mesh::open(&dir).unwrap());
}

fn refused<T: std::fmt::Debug>(result: flowmesh::Result<T>, values: &[(&str, &str)]) {
    assert_error(result, ErrorKind::InvalidArgument, values);
}

fn too_large<T: std::fmt::Debug>(result: flowmesh::Result<T>, field: &str, is: usize, limit: usize) {
    let values = [(field, &*is.to_string()), ("limit", &*limit.to_string())];
    assert_error(result, ErrorKind::TooLarge, &values);
}

fn next(queue: &Queue) -> Job {
    queue.reserve_one(&mut Wait::timeout(WATCHDOG)).unwrap().expect("a job in time")
}

// ---- limits

#[test]
fn payloads_keys_names_and_headers() {
    everywhere(|mesh| {
        let queue = mesh.declare_queue("q", &QueueConfig { payload_bytes_max: 1000, ..quick() }).unwrap();
        too_large(queue.enqueue(&[0; 1001], &plain()), "payload_bytes", 1001, 1000);
        let text = |count| "k".repeat(count);
        let unique = |key: String| {
            let unique = Unique { key, scope: Scope::Active, conflict: OnConflict::ReturnExisting };
            EnqueueOptions { unique: Some(unique), ..plain() }
        };
        let group = |group: String| EnqueueOptions { group: Some(group), ..plain() };
        too_large(queue.enqueue(b"", &unique(text(1025))), "unique.key", 1025, 1024);
        too_large(queue.enqueue(b"", &group(text(1025))), "group", 1025, 1024);
        refused(queue.enqueue(b"", &unique(text(0))), &[("unique.key", ""), ("limit", "1 to 1024 bytes")]);
        refused(queue.enqueue(b"", &group(text(0))), &[("group", ""), ("limit", "1 to 1024 bytes")]);
        let headers = |headers: Vec<(String, String)>| EnqueueOptions { headers, ..plain() };
        let many = |count| headers(vec![("n".to_owned(), "v".to_owned()); count]);
        let long = |bytes: usize| headers(vec![("n".to_owned(), text(bytes - 1))]);
        too_large(queue.enqueue(b"", &many(257)), "header_count", 257, 256);
        too_large(queue.enqueue(b"", &long(65_537)), "header_bytes", 65_537, 65_536);
        refused(queue.enqueue(b"", &headers(vec![(text(0), text(1))])), &[("header", "")]);
        let content_type = |count| EnqueueOptions { content_type: Some(text(count)), ..plain() };
        too_large(queue.enqueue(b"", &content_type(256)), "content_type", 256, 255);
        assert_eq!(queue.stats().unwrap().totals.enqueued, 0);

        // What is just within each limit comes through whole.
        for options in [unique(text(1024)), group(text(1024)), many(256), long(65_536), content_type(255)] {
            queue.enqueue(&[7; 1000], &options).unwrap();
            let job = next(&queue);
            assert_eq!(job.payload(), [7; 1000]);
            assert_eq!(job.headers().len(), options.headers.len());
            assert_eq!(job.group(), options.group.as_deref());
            too_large(job.ack(Some(&[0; 1001])), "result_bytes", 1001, 1000);
            too_large(job.progress(&[0; 4097]), "progress_bytes", 4097, 4096);
            job.progress(&[0; 4096]).unwrap();
            job.ack(Some(&[0; 1000])).unwrap();
        }
        for name in ["", " ", "a b", "a/b", "a*", ">", "ü", &text(256)] {
            refused(mesh.declare_queue(name, &quick()), &[("name", "")]);
        }
        assert_eq!(mesh.queues().unwrap(), ["q"]);
    });
}

#[test]
fn a_payload_over_what_a_message_may_be() {
    over_all_with(
        |builder| builder.max_message_bytes(100_000),
        |host, client| {
            let queue = client.declare_queue("q", &quick()).unwrap();
            let error = queue.enqueue(&[0; 100_001], &plain()).unwrap_err();
            assert_eq!((error.kind(), error.get("limit_bytes")), (ErrorKind::TooLarge, Some("100000")));
            queue.enqueue(&[0; 90_000], &plain()).unwrap();
            next(&queue).ack(None).unwrap();
            // The host's own job is too large for the client: it says so, and the host still has the job.
            let here = host.queue("q").unwrap();
            here.enqueue(&[0; 200_000], &plain()).unwrap();
            let error = queue.reserve_one(&mut Wait::timeout(WATCHDOG)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
            let job = next(&here);
            assert_eq!((job.payload().len(), job.attempt()), (200_000, 1));
        },
    );
}

#[test]
fn times_and_counts_of_a_job() {
    everywhere(|mesh| {
        let queue = mesh.declare_queue("q", &quick()).unwrap();
        let over = "315360000.001s";
        type Set = fn(&mut EnqueueOptions, Duration);
        let times: [(&str, Set); 4] = [
            ("ttl", |options, time| options.ttl = Some(time)),
            ("deadline", |options, time| options.deadline = Some(time)),
            ("result_ttl", |options, time| options.result_ttl = Some(time)),
            ("unique.window", |options, time| {
                let scope = Scope::Window(time);
                options.unique = Some(Unique { key: "k".to_owned(), scope, conflict: OnConflict::Replace });
            }),
        ];
        for (field, set) in times {
            for (time, shown) in [(Duration::ZERO, "0ns"), (OVER_TEN_YEARS, over), (Duration::MAX, "s")] {
                let mut options = plain();
                set(&mut options, time);
                refused(queue.enqueue(b"", &options), &[(field, shown), ("limit", "1ms to 315360000s")]);
            }
        }
        for delay in [OVER_TEN_YEARS, Duration::MAX] {
            let options = EnqueueOptions { delay, ..plain() };
            refused(queue.enqueue(b"", &options), &[("delay", "s"), ("limit", "315360000s")]);
        }
        let both = EnqueueOptions { delay: SECOND, run_at: Some(Timestamp(1)), ..plain() };
        refused(queue.enqueue(b"", &both), &[("run_at", "1 with delay 1s"), ("limit", "one of the two")]);
        for (lease, shown) in [
            (Duration::ZERO, "0ns"),
            (Duration::from_millis(999), "999ms"),
            (Duration::from_millis(43_200_001), "43200.001s"),
            (Duration::MAX, "s"),
        ] {
            let values = [("lease", shown), ("limit", "1s to 43200s")];
            refused(queue.enqueue(b"", &EnqueueOptions { lease: Some(lease), ..plain() }), &values);
            refused(queue.reserve(1, Some(lease), &mut Wait::poll()), &values);
            refused(
                queue.start_reserve(1, Some(lease), None).and_then(|p| p.wait(&mut Wait::timeout(WATCHDOG))),
                &values,
            );
            refused(mesh.declare_queue("other", &QueueConfig { lease, ..quick() }), &values);
        }
        for attempts in [0, 1001, u16::MAX] {
            let values = [("max_attempts", &*attempts.to_string()), ("limit", "1 to 1000")];
            refused(queue.enqueue(b"", &EnqueueOptions { max_attempts: Some(attempts), ..plain() }), &values);
        }
        for backoff in bad_backoffs() {
            let options = EnqueueOptions { backoff: Some(backoff.clone()), ..plain() };
            let error = assert_error(queue.enqueue(b"", &options), ErrorKind::InvalidArgument, &[]);
            assert!(error.to_string().contains("backoff"), "{backoff:?}: {error}");
        }
        for most in [0, 1001, usize::MAX] {
            let kind = if most == 0 { ErrorKind::InvalidArgument } else { ErrorKind::TooLarge };
            assert_error(
                queue.reserve(most, None, &mut Wait::poll()),
                kind,
                &[("job_count", ""), ("limit", "1000")],
            );
        }
        let options = plain();
        let new = NewJobRequest::new(b"", &options);
        let enqueued = queue.enqueue_many(&vec![new; 10_001], &mut Wait::forever());
        too_large(enqueued, "job_count", 10_001, 10_000);
        too_large(queue.redrive(&vec![JobId(1); 1001]), "job_count", 1001, 1000);
        for most in [0, 1001, usize::MAX] {
            refused(queue.list(JobState::Ready, None, most), &[("count", ""), ("limit", "1 to 1000")]);
        }
        assert_eq!(queue.stats().unwrap(), flowmesh::queue::QueueStats::default());

        // The longest of all is within reach of every clock.
        let far =
            EnqueueOptions { delay: TEN_YEARS, ttl: Some(TEN_YEARS), deadline: Some(TEN_YEARS), ..plain() };
        let id = queue.enqueue(b"", &far).unwrap().id();
        assert_eq!(queue.peek(id).unwrap().state, JobState::Scheduled);
        let last = EnqueueOptions { run_at: Some(Timestamp(u64::MAX)), ..plain() };
        let id = queue.enqueue(b"", &last).unwrap().id();
        assert_eq!(queue.peek(id).unwrap().due, Some(Timestamp(u64::MAX)));
        let past = EnqueueOptions { run_at: Some(Timestamp(0)), ..plain() };
        let id = queue.enqueue(b"", &past).unwrap().id();
        assert_eq!(next(&queue).id(), id);
    });
}

fn bad_backoffs() -> Vec<Backoff> {
    let (initial, max, jitter) = (SECOND, Duration::from_secs(60), false);
    let factors = [0.0, 0.999, -1.0, 1000.1, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
    let mut all: Vec<Backoff> =
        factors.map(|factor| Backoff::Exponential { initial, factor, max, jitter }).to_vec();
    all.extend([
        Backoff::Exponential { initial, factor: 2.0, max: Duration::from_millis(1), jitter },
        Backoff::Exponential { initial, factor: 2.0, max: OVER_TEN_YEARS, jitter },
        Backoff::Fixed(OVER_TEN_YEARS),
        Backoff::Fixed(Duration::MAX),
        Backoff::List(Vec::new()),
        Backoff::List(vec![SECOND; 101]),
        Backoff::List(vec![SECOND, OVER_TEN_YEARS]),
    ]);
    all
}

#[test]
fn settings_of_a_queue() {
    let weights = |group: String, weight| {
        let mut config = quick();
        config.groups.weights = BTreeMap::from([(group, weight)]);
        config
    };
    let rate = |count, per, burst| Some(Rate { count, per, burst });
    let day = Duration::from_secs(86_400);
    let keep = Keep { age: OVER_TEN_YEARS, count: 1 };
    let many = (0..10_001).map(|n| (n.to_string(), 1)).collect();
    let bad: Vec<(&str, &str, QueueConfig)> = vec![
        ("max_attempts", "0", QueueConfig { max_attempts: 0, ..quick() }),
        ("deadline", "0ns", QueueConfig { deadline: Some(Duration::ZERO), ..quick() }),
        ("ttl", "315360000.001s", QueueConfig { ttl: Some(OVER_TEN_YEARS), ..quick() }),
        ("aging", "1ns", QueueConfig { aging: Some(Duration::from_nanos(1)), ..quick() }),
        ("max_length", "0", QueueConfig { max_length: Some(0), ..quick() }),
        ("concurrency", "0", QueueConfig { concurrency: Some(0), ..quick() }),
        ("payload_bytes_max", "0", QueueConfig { payload_bytes_max: 0, ..quick() }),
        ("payload_bytes_max", "67108865", QueueConfig { payload_bytes_max: (64 << 20) + 1, ..quick() }),
        ("rate", "count 0", QueueConfig { rate: rate(0, SECOND, 1), ..quick() }),
        ("rate", "burst 0", QueueConfig { rate: rate(1, SECOND, 0), ..quick() }),
        ("rate", "count 1000000001", QueueConfig { rate: rate(1_000_000_001, SECOND, 1), ..quick() }),
        ("rate", "per 0ns", QueueConfig { rate: rate(1, Duration::ZERO, 1), ..quick() }),
        ("rate", "per 31622400s", QueueConfig { rate: rate(1, 366 * day, 1), ..quick() }),
        ("groups.concurrency", "0", {
            let mut config = quick();
            config.groups.concurrency = Some(0);
            config
        }),
        ("groups.rate", "count 0", {
            let mut config = quick();
            config.groups.rate = rate(0, SECOND, 1);
            config
        }),
        ("groups.weights", "a: 0", weights("a".to_owned(), 0)),
        ("groups.weights", "a: 1001", weights("a".to_owned(), 1001)),
        ("groups.weights", "", weights(String::new(), 1)),
        ("groups.weights", "10001", {
            let mut config = quick();
            config.groups.weights = many;
            config
        }),
        (
            "retention.done",
            "s",
            QueueConfig { retention: Retention { done: keep, ..Retention::default() }, ..quick() },
        ),
        (
            "retention.expired",
            "s",
            QueueConfig { retention: Retention { expired: keep, ..Retention::default() }, ..quick() },
        ),
        ("cancel_grace", "s", QueueConfig { cancel_grace: OVER_TEN_YEARS, ..quick() }),
        (
            "durability.interval",
            "0ns",
            QueueConfig { durability: Durability::Interval(Duration::ZERO), ..quick() },
        ),
        ("dead_letter_to", "q", QueueConfig { dead_letter_to: Some(name("q")), ..quick() }),
    ];
    everywhere(|mesh| {
        for (field, shown, config) in &bad {
            refused(mesh.declare_queue("q", config), &[(field, shown), ("limit", "")]);
        }
        let long = weights("k".repeat(1025), 1);
        too_large(mesh.declare_queue("q", &long), "groups.weights", 1025, 1024);
        for backoff in bad_backoffs() {
            let config = QueueConfig { backoff, ..quick() };
            assert_error(mesh.declare_queue("q", &config), ErrorKind::InvalidArgument, &[]);
        }
        assert!(mesh.queues().unwrap().is_empty());
        let queue = mesh.declare_queue("q", &quick()).unwrap();
        for (field, shown, config) in &bad {
            refused(queue.configure(config), &[(field, shown), ("limit", "")]);
        }
        assert_eq!(queue.config().unwrap(), quick());
        for rate in
            [Rate { count: 0, per: SECOND, burst: 1 }, Rate { count: 1, per: Duration::ZERO, burst: 1 }]
        {
            refused(queue.redrive_at(1, rate), &[("rate", "per"), ("limit", "")]);
        }
    });
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

#[test]
fn a_queue_that_is_there_and_differs() {
    everywhere(|mesh| {
        let config = QueueConfig { max_length: Some(7), ..quick() };
        let queue = mesh.declare_queue("q", &config).unwrap();
        for (field, is, wanted, other) in [
            ("lease", "30s", "31s", QueueConfig { lease: Duration::from_secs(31), ..config.clone() }),
            ("max_length", "Some(7)", "None", QueueConfig { max_length: None, ..config.clone() }),
            ("durability", "Os", "Fsync", QueueConfig { durability: Durability::Fsync, ..config.clone() }),
            (
                "rate",
                "None",
                "count: 5",
                QueueConfig { rate: Some(Rate { count: 5, per: SECOND, burst: 1 }), ..config.clone() },
            ),
        ] {
            let values = [("queue", "q"), ("field", field), ("is", is), ("wanted", wanted)];
            assert_error(mesh.declare_queue("q", &other), ErrorKind::Conflict, &values);
        }
        assert_eq!(mesh.declare_queue("q", &config).unwrap().id(), queue.id());
        assert_eq!(queue.config().unwrap(), config);
    });
}

#[test]
fn a_queue_that_nobody_declared() {
    everywhere(|mesh| {
        let long = "x".repeat(100_000);
        for declared in [false, true] {
            if declared {
                mesh.declare_queue("other", &quick()).unwrap();
            }
            assert_error(mesh.queue("mail"), ErrorKind::NotFound, &[("queue", "mail")]);
            let error = assert_error(mesh.queue(&long), ErrorKind::NotFound, &[("queue", "xxx")]);
            assert!(error.to_string().len() < 300, "a long name is shortened");
            for number in [1, 77, u32::MAX] {
                let queue = mesh.queue_with(QueueId::from_number(number), "made up");
                for request in all_requests(queue.id()) {
                    let asked = queue.request(request, &mut Wait::timeout(Duration::from_millis(50)));
                    assert_error(asked, ErrorKind::NotFound, &[("queue", "")]);
                }
            }
        }
    });
}

/// One of each that is about a queue, well made.
fn all_requests(queue: QueueId) -> Vec<QueueRequest<'static>> {
    let token = Token { job: JobId(1), attempt: 1, nonce: 7 };
    let job = JobId(1);
    let rate = Rate { count: 1, per: SECOND, burst: 1 };
    vec![
        QueueRequest::Config { queue },
        QueueRequest::Configure { queue, config: Box::default() },
        QueueRequest::Enqueue { queue, jobs: vec![NewJobRequest::default()] },
        QueueRequest::Reserve { queue, most: 1, lease: None },
        QueueRequest::Extend { queue, token, lease: None },
        QueueRequest::Ack { queue, token, result: None },
        QueueRequest::AckMany { queue, tokens: vec![token] },
        QueueRequest::AckAndReserve {
            queue,
            acks: vec![AckRequest { token, result: None }],
            most: 1,
            lease: None,
        },
        QueueRequest::Nack { queue, token, message: "".into(), detail: "".into(), delay: None },
        QueueRequest::Reject { queue, token, message: "".into(), detail: "".into() },
        QueueRequest::Snooze { queue, token, delay: SECOND },
        QueueRequest::Progress { queue, token, progress: b"" },
        QueueRequest::Cancel { queue, job, why: "".into() },
        QueueRequest::Redrive { queue, jobs: vec![job] },
        QueueRequest::RedriveDead { queue, most: 1 },
        QueueRequest::RedriveAt { queue, count: 1, rate },
        QueueRequest::Purge { queue, state: JobState::Dead },
        QueueRequest::Remove { queue, job },
        QueueRequest::Pause { queue },
        QueueRequest::Resume { queue },
        QueueRequest::Drain { queue },
        QueueRequest::Schedule { queue, schedule: Box::new(Schedule::new("s")) },
        QueueRequest::Unschedule { queue, name: "s".into() },
        QueueRequest::Schedules { queue },
        QueueRequest::List { queue, state: JobState::Ready, cursor: None, most: 1 },
        QueueRequest::Info { queue, job },
        QueueRequest::Content { queue, job },
        QueueRequest::Outcome { queue, job },
        QueueRequest::Stats { queue },
    ]
}

#[test]
fn a_stale_token_changes_nothing() {
    everywhere(|mesh| {
        let queue = mesh.declare_queue("q", &quick()).unwrap();
        let id = queue.enqueue(b"x", &plain()).unwrap().id();
        let first = next(&queue);
        let stale = first.token();
        first
            .settle(
                Settle::Nack { message: "", detail: "", delay: Some(Duration::ZERO) },
                &mut Wait::forever(),
            )
            .unwrap();
        let second = next(&queue);
        let good = second.token();
        let forged = [
            stale,
            Token { nonce: good.nonce ^ 1, ..good },
            Token { attempt: 1, ..good },
            Token { job: JobId(9), ..good },
            Token { attempt: u16::MAX, nonce: u64::MAX, ..good },
            Token::default(),
        ];
        let before = (queue.stats().unwrap(), queue.peek(id).unwrap());
        for token in forged {
            let queue_id = queue.id();
            for request in [
                QueueRequest::Extend { queue: queue_id, token, lease: Some(Duration::from_secs(3600)) },
                QueueRequest::Ack { queue: queue_id, token, result: Some(b"forged") },
                QueueRequest::Nack {
                    queue: queue_id,
                    token,
                    message: "".into(),
                    detail: "".into(),
                    delay: None,
                },
                QueueRequest::Reject { queue: queue_id, token, message: "".into(), detail: "".into() },
                QueueRequest::Snooze { queue: queue_id, token, delay: SECOND },
                QueueRequest::Progress { queue: queue_id, token, progress: b"forged" },
            ] {
                let asked = queue.request(request, &mut Wait::timeout(WATCHDOG));
                assert_error(asked, ErrorKind::LeaseLost, &[("job", &token.job.to_string()), ("reason", "")]);
            }
            for request in [
                QueueRequest::AckMany { queue: queue_id, tokens: vec![token] },
                QueueRequest::Release { queue: queue_id, tokens: vec![token] },
                QueueRequest::AckAndReserve {
                    queue: queue_id,
                    acks: vec![AckRequest { token, result: Some(b"forged") }],
                    most: 1,
                    lease: None,
                },
            ] {
                let answered = queue.request(request, &mut Wait::timeout(WATCHDOG)).unwrap();
                let (QueueReply::Each(each) | QueueReply::Next { each, .. }) = answered.reply else {
                    panic!("another answer")
                };
                assert_eq!(each[0].as_ref().unwrap_err().to_error().kind(), ErrorKind::LeaseLost);
            }
        }
        let after = (queue.stats().unwrap(), queue.peek(id).unwrap());
        assert_eq!(before.0, after.0);
        assert_eq!(
            (before.1.state, before.1.attempt, &before.1.progress),
            (after.1.state, after.1.attempt, &after.1.progress)
        );
        assert!(before.1.due.zip(after.1.due).is_some_and(|(a, b)| a.0.abs_diff(b.0) < 1_000_000_000));
        // Times that are out of bounds are told before the token is looked at, and the job can be settled after.
        let over = Settle::Nack { message: "", detail: "", delay: Some(OVER_TEN_YEARS) };
        refused(
            second.settle(over, &mut Wait::forever()),
            &[("delay", "315360000.001s"), ("limit", "315360000s")],
        );
        refused(second.snooze(Duration::MAX), &[("delay", "s"), ("limit", "315360000s")]);
        refused(second.extend(Some(Duration::ZERO)), &[("lease", "0ns"), ("limit", "1s to 43200s")]);
        refused(second.extend(Some(Duration::MAX)), &[("lease", "s"), ("limit", "1s to 43200s")]);
        second.ack(None).unwrap();
        assert_eq!(second.ack(None).unwrap_err().kind(), ErrorKind::LeaseLost);
    });
}

#[test]
fn texts_of_any_length() {
    everywhere(|mesh| {
        let queue = mesh.declare_queue("q", &quick()).unwrap();
        let id = queue.enqueue(b"x", &EnqueueOptions { max_attempts: Some(1), ..plain() }).unwrap().id();
        let job = next(&queue);
        let long = "é".repeat(50_000);
        let nack = Settle::Nack { message: &long, detail: &long, delay: None };
        job.settle(nack, &mut Wait::forever()).unwrap();
        let failure = queue.peek(id).unwrap().failures.remove(0);
        assert_eq!((failure.message.len(), failure.detail.len()), (1024, 4096), "as much as is kept");
        let id = queue.enqueue(b"x", &plain()).unwrap().id();
        queue.cancel(id, &long).unwrap();
        assert_eq!(queue.peek(id).unwrap().failures[0].message.len(), 1024);
        assert_error(queue.unschedule(&long), ErrorKind::NotFound, &[("schedule", "é")]);
    });
}

#[test]
fn a_queue_that_is_full_or_drained() {
    everywhere(|mesh| {
        let queue = mesh.declare_queue("q", &QueueConfig { max_length: Some(2), ..quick() }).unwrap();
        let options = plain();
        let three = vec![NewJobRequest::new(b"", &options); 3];
        let values = [("waiting", "0"), ("new", "3"), ("max_length", "2")];
        assert_error(queue.enqueue_many(&three, &mut Wait::forever()), ErrorKind::Full, &values);
        queue.enqueue_many(&three[..2], &mut Wait::forever()).unwrap();
        let values = [("waiting", "2"), ("new", "1"), ("max_length", "2")];
        let error = assert_error(queue.enqueue(b"", &options), ErrorKind::Full, &values);
        assert!(error.is_retryable());
        next(&queue).ack(None).unwrap();
        queue.enqueue(b"", &options).unwrap();
        queue.drain().unwrap();
        assert_error(queue.enqueue(b"", &options), ErrorKind::Draining, &[]);
    });
}

#[test]
fn expressions_and_zones() {
    everywhere(|mesh| {
        let queue = mesh.declare_queue("q", &quick()).unwrap();
        let cron = |cron: &str| Schedule { cron: cron.to_owned(), ..Schedule::new("s") };
        for (text, column, rule) in [
            ("", "1", "five fields"),
            ("* * * *", "8", "five fields"),
            ("* * * * * * *", "13", "five fields"),
            ("60 * * * *", "1", "minute: 0 to 59"),
            ("* 24 * * *", "3", "hour: 0 to 23"),
            ("* * 0 * *", "5", "day of month: 1 to 31"),
            ("* * * 13 *", "7", "month: 1 to 12, or jan to dec"),
            ("* * * * 8", "9", "day of week: 0 to 7, or sun to sat"),
            ("61 * * * * *", "1", "second: 0 to 59"),
            ("* 1,2,x * * *", "7", "hour: 0 to 23"),
            ("* 9-5 * * *", "3", "goes down"),
            ("*/0 * * * *", "3", "a step is 1 to 59"),
            ("*/x * * * *", "3", "a step is 1 to 59"),
            ("-1 * * * *", "1", "minute: 0 to 59"),
            ("é * * * *", "1", "minute: 0 to 59"),
            ("* é * * *", "3", "hour: 0 to 23"),
            ("99999999999999999999 * * * *", "1", "minute: 0 to 59"),
            ("@never", "1", "@hourly"),
            ("@", "1", "@hourly"),
        ] {
            refused(queue.schedule(&cron(text)), &[("cron", text), ("column", column), ("rule", rule)]);
        }
        refused(queue.schedule(&cron("0 0 31 2 *")), &[("cron", "0 0 31 2 *"), ("limit", "100 years")]);
        too_large(queue.schedule(&cron(&"*".repeat(1025))), "cron_bytes", 1025, 1024);
        for zone in ["", "Nowhere", "Europe/Atlantis", "../../etc/passwd", "UTC\0", &"x".repeat(5000)] {
            let schedule = Schedule { zone: zone.to_owned(), ..Schedule::new("s") };
            refused(queue.schedule(&schedule), &[("zone", ""), ("rule", "IANA")]);
        }
        for name in ["", "a b", &"x".repeat(256)] {
            refused(queue.schedule(&Schedule::new(name)), &[("name", "")]);
        }
        let jitter = Duration::from_millis(86_400_001);
        let schedule = Schedule { jitter, ..Schedule::new("s") };
        refused(queue.schedule(&schedule), &[("jitter", "86400.001s"), ("limit", "86400s")]);
        for options in [
            EnqueueOptions { id: Some(JobId(1)), ..plain() },
            EnqueueOptions { delay: SECOND, ..plain() },
            EnqueueOptions { run_at: Some(Timestamp(1)), ..plain() },
        ] {
            let schedule = Schedule { options, ..Schedule::new("s") };
            // What a job is not given with its options is not sent either.
            if mesh.role() == flowmesh::Role::Host || !schedule.options.delay.is_zero() {
                refused(queue.schedule(&schedule), &[("options", "id, delay or run_at"), ("limit", "")]);
            }
        }
        let schedule = Schedule { payload: vec![0; (1 << 20) + 1], ..Schedule::new("s") };
        too_large(queue.schedule(&schedule), "payload_bytes", (1 << 20) + 1, 1 << 20);
        let options = EnqueueOptions { lease: Some(Duration::ZERO), ..plain() };
        refused(queue.schedule(&Schedule { options, ..Schedule::new("s") }), &[("lease", "0ns")]);
        assert!(queue.schedules().unwrap().is_empty());
        assert_error(queue.unschedule("s"), ErrorKind::NotFound, &[("schedule", "s")]);
    });
}

// ---- directories

/// A directory with a queue `q`, whose jobs are in its first segment.
fn filled() -> (Dir, PathBuf, Vec<JobId>) {
    let dir = Dir::new();
    let host = Mesh::open(&dir).unwrap();
    let queue = host.declare_queue("q", &QueueConfig::default()).unwrap();
    let ids = (0..20u8).map(|n| queue.enqueue(&[n; 1000], &plain()).unwrap().id()).collect();
    host.close();
    let segment = dir.path().join("ledger/00000001.fmj");
    (dir, segment, ids)
}

#[test]
fn a_directory_of_a_newer_version() {
    let (dir, segment, ids) = filled();
    let mut bytes = fs::read(&segment).unwrap();
    let old = bytes.clone();
    bytes[8] = 2;
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    fs::write(&segment, &bytes).unwrap();
    for repair in [false, true] {
        let opened = Mesh::builder().repair(repair).open(&dir);
        let values = [("file", "00000001.fmj"), ("version", "2"), ("supported", "1")];
        assert_error(opened, ErrorKind::Unsupported, &values);
    }
    assert_error(flowmesh::inspect(&dir), ErrorKind::Unsupported, &[("version", "2")]);
    assert_eq!(fs::read(&segment).unwrap(), bytes, "nothing was changed");
    fs::write(&segment, old).unwrap();
    let host = Mesh::open(&dir).unwrap();
    assert_eq!(host.queue("q").unwrap().peek(ids[0]).unwrap().state, JobState::Ready);
}

#[test]
fn a_damaged_ledger_says_where_and_opens_with_repair_only() {
    let mut dice = Dice(seed("damaged ledger"));
    for _ in 0..8 {
        let (dir, segment, ids) = filled();
        let sound = fs::read(&segment).unwrap();
        // Somewhere in the jobs, which are about 20 KiB.
        let at = 2048 + dice.roll(16 << 10) as usize;
        let mut bytes = sound.clone();
        bytes[at] ^= 1 << dice.roll(8);
        fs::write(&segment, &bytes).unwrap();
        let found = flowmesh::inspect(&dir).unwrap();
        assert_eq!(found.damages.len(), 1, "at {at}: {:?}", found.damages);
        assert!(found.damages[0].file.contains("00000001.fmj") && found.damages[0].offset <= at as u64);
        for _ in 0..2 {
            let error = assert_error(Mesh::open(&dir), ErrorKind::Corrupt, &[("file", "00000001.fmj")]);
            let offset: usize = error.get("offset").expect("it says where").parse().unwrap();
            assert!(offset <= at && at < offset + 2048, "damaged at {at}, said {offset}");
        }
        assert_eq!(fs::read(&segment).unwrap(), bytes, "nothing was changed");
        let host = Mesh::builder().repair(true).open(&dir).unwrap();
        let queue = host.queue("q").unwrap();
        let left: BTreeSet<JobId> =
            queue.list(JobState::Ready, None, 100).unwrap().jobs.iter().map(|job| job.id).collect();
        let gone: Vec<_> = ids.iter().filter(|id| !left.contains(id)).collect();
        assert!(gone.len() <= 2, "of 20 jobs {} are gone, damaged at {at}", gone.len());
        for id in &left {
            let index = ids.iter().position(|known| known == id).unwrap();
            assert_eq!(queue.content(*id).unwrap().payload(), [index as u8; 1000]);
        }
        host.close();
        assert!(quarantined(dir.path()) > 0, "what was damaged is kept");
        // Sound from now on.
        assert!(flowmesh::inspect(&dir).unwrap().damages.is_empty());
        let host = Mesh::open(&dir).unwrap();
        host.queue("q").unwrap().enqueue(b"new", &plain()).unwrap();
    }
}

#[test]
fn whatever_batch_is_lost_repair_makes_the_rest_whole() {
    let mut dice = Dice(seed("lost batches"));
    for round in 0..8 {
        let dir = Dir::new();
        {
            let host = Mesh::open(&dir).unwrap();
            let queue = host.declare_queue("q", &quick()).unwrap();
            for index in 0..20u8 {
                queue.enqueue(&[index; 100], &plain()).unwrap();
            }
            for (index, job) in queue.reserve(12, None, &mut Wait::poll()).unwrap().iter().enumerate() {
                match index % 4 {
                    0 => drop(job.ack(Some(b"result")).unwrap()),
                    1 => drop(job.nack("no").unwrap()),
                    2 => drop(job.release().unwrap()),
                    _ => {}
                }
            }
        }
        let segment = dir.path().join("ledger/00000001.fmj");
        let mut bytes = fs::read(&segment).unwrap();
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        // The first rounds meet the declaration, which all that follows stands on.
        let span = if round < 3 { 300 } else { used - 128 };
        let at = 128 + dice.roll(span as u64) as usize;
        bytes[at] ^= 1 << dice.roll(8);
        fs::write(&segment, &bytes).unwrap();
        let look = |host: &Mesh| {
            let mut jobs = 0;
            for name in host.queues().unwrap() {
                let queue = host.queue(&name).unwrap();
                assert!(name == "q" || name.starts_with("recovered-"), "{name}");
                for state in JobState::ALL {
                    for job in queue.list(state, None, 100).unwrap().jobs {
                        let content = queue.content(job.id).unwrap();
                        let payload = content.payload();
                        assert!(payload.len() == 100 && payload.iter().all(|byte| *byte == payload[0]));
                        jobs += 1;
                    }
                }
            }
            jobs
        };
        let jobs = {
            let host = Mesh::builder().repair(true).open(&dir).unwrap();
            look(&host)
        };
        assert!(jobs >= 10, "of 20 jobs {jobs} are left, damaged at {at}");
        let host = Mesh::open(&dir).unwrap();
        assert_eq!(look(&host), jobs, "damaged at {at}");
        host.declare_queue("q", &quick()).unwrap().enqueue(b"new", &plain()).unwrap();
    }
}

fn quarantined(dir: &Path) -> usize {
    fs::read_dir(dir.join("ledger/quarantine")).map_or(0, Iterator::count)
}

// ---- raw sessions

/// A client that speaks the handshake, and then asks the queues for whatever it likes.
struct Rogue {
    session: Connected,
    calls: u64,
}

impl Rogue {
    fn connect(directory: &Path, shared_memory: bool) -> Self {
        let config =
            ConnectConfig { name: "rogue".into(), language: "rust", shared_memory, timeout: WATCHDOG };
        Self { session: connect_unix(directory, &config).unwrap(), calls: 0 }
    }

    /// False when the session is over.
    fn send(&mut self, aux: u32, payload: &[u8]) -> bool {
        self.calls += 1;
        let body = Draft { aux, ..Draft::new(Kind::Request, self.calls, "$queue", payload) }.encode();
        if body.len() <= CHUNK_BYTES {
            return self.push(&body);
        }
        (0..body.len()).step_by(CHUNK_BYTES / 2).all(|offset| {
            let end = body.len().min(offset + CHUNK_BYTES / 2);
            let (total, at) = (body.len() as u32, offset as u32);
            let chunk = Chunk { flow: 1, total, offset: at, abort: false, bytes: &[] };
            self.push(&[&chunk.prefix()[..], &body[offset..end]].concat())
        })
    }

    fn push(&mut self, body: &[u8]) -> bool {
        loop {
            match self.session.transport.sender.push(&[body]) {
                Ok(Sent::Done) => return self.session.transport.sender.flush().is_ok(),
                Ok(Sent::Full) if self.session.transport.sender.flush().is_err() => return false,
                Ok(Sent::Full) => thread::yield_now(),
                Err(error) => {
                    assert_ne!(error.kind(), TooLarge, "{error}");
                    return false;
                }
            }
        }
    }

    /// What its last request gives; nothing if the session ended for it.
    fn ask(&mut self, aux: u32, payload: &[u8]) -> Option<Result<Answered, Error>> {
        if !self.send(aux, payload) {
            return None;
        }
        let deadline = Instant::now() + WATCHDOG;
        loop {
            let mut block = Vec::new();
            if self.session.transport.receiver.drain(&mut block, 1 << 20).is_err() {
                return None;
            }
            let block = Arc::new(block);
            for body in bodies(&block) {
                let message = match Kind::of(&block[body.clone()]) {
                    Ok(Kind::Response | Kind::Failure) => {
                        Message::decode(&block, body.start, body.end).unwrap()
                    }
                    Ok(Kind::Bye) => return None,
                    _ => continue,
                };
                if message.id() == self.calls {
                    return Some(if block[body.start] == Kind::Failure as u8 {
                        Err(message.to_error())
                    } else {
                        Ok(Answered::decode(message.payload()).unwrap())
                    });
                }
            }
            assert!(Instant::now() < deadline, "no answer");
            thread::yield_now();
        }
    }
}

fn sent(request: QueueRequest<'_>) -> Vec<u8> {
    SentRequest { request, durability: None }.encode()
}

/// MessagePack with other shapes than a request has.
fn packed(value: &impl Serialize) -> Vec<u8> {
    rmp_serde::to_vec(value).unwrap()
}

#[test]
fn what_is_no_request_ends_its_session_alone() {
    let dir = Dir::new();
    let host = Mesh::open(&dir).unwrap();
    let honest = Mesh::connect(&dir).unwrap();
    let queue = honest.declare_queue("q", &quick()).unwrap();
    let id = queue.id();
    let whole = sent(QueueRequest::Enqueue { queue: id, jobs: vec![NewJobRequest::default()] });
    let token = Token { job: JobId(1), attempt: 1, nonce: 1 };
    let mut huge_list = packed(&("x",));
    // [{"Release": [0, an array of 2^32 - 1
    huge_list.clear();
    huge_list.extend([0x92, 0x81, 0xa7]);
    huge_list.extend(b"Release");
    huge_list.extend([0x92, 0x00, 0xdd, 0xff, 0xff, 0xff, 0xff]);
    let bad: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("a byte that MessagePack does not have", vec![0xc1]),
        ("a request cut short", whole[..whole.len() / 2].to_vec()),
        ("arrays in arrays", vec![0x91; 100_000]),
        ("maps in maps", vec![0x81; 100_000]),
        ("a text", packed(&"Stats")),
        ("an unknown request", packed(&(BTreeMap::from([("Format", (0u32,))]), ()))),
        ("a request with a field too few", packed(&(BTreeMap::from([("List", (0u32, 1u8))]), ()))),
        ("a queue of another type", packed(&(BTreeMap::from([("Stats", ("q",))]), ()))),
        ("a state that there is not", packed(&(BTreeMap::from([("Purge", (0u32, 9u8))]), ()))),
        ("a state below zero", packed(&(BTreeMap::from([("Purge", (0u32, -1i8))]), ()))),
        ("a durability that there is not", packed(&(BTreeMap::from([("Stats", (0u32,))]), ((9u8, 0u64),)))),
        ("a list that says it is huge", huge_list),
        ("1001 tokens", sent(QueueRequest::AckMany { queue: id, tokens: vec![token; 1001] })),
        ("1001 tokens to release", sent(QueueRequest::Release { queue: id, tokens: vec![token; 1001] })),
        (
            "10,001 jobs",
            sent(QueueRequest::Enqueue { queue: id, jobs: vec![NewJobRequest::default(); 10_001] }),
        ),
        ("10,001 ids", sent(QueueRequest::Redrive { queue: id, jobs: vec![JobId(1); 10_001] })),
        ("257 headers", {
            let options = EnqueueOptions { headers: vec![("n".into(), "v".into()); 257], ..plain() };
            sent(QueueRequest::Enqueue { queue: id, jobs: vec![NewJobRequest::new(b"", &options)] })
        }),
        ("a name that is none, within settings", {
            let config = QueueConfig { dead_letter_to: Some(name("zzz")), ..quick() };
            let mut bytes = sent(QueueRequest::Declare { name: "x".into(), config: Box::new(config) });
            let at = bytes.windows(3).position(|part| part == b"zzz").unwrap();
            bytes[at] = b' ';
            bytes
        }),
    ];
    let mut expected = 0;
    for (what, bytes) in &bad {
        for shared_memory in [true, false] {
            let mut rogue = Rogue::connect(dir.path(), shared_memory);
            rogue.send(u32::MAX, bytes);
            expected += 1;
            until(what, || host.stats().unwrap().protocol_violations == expected);
        }
    }
    until("they are gone", || host.stats().unwrap().sessions.len() == 1);
    // Nobody else has noticed.
    assert_eq!(queue.stats().unwrap(), flowmesh::queue::QueueStats::default());
    queue.enqueue(b"x", &plain()).unwrap();
    next(&queue).ack(None).unwrap();
}

#[test]
fn what_a_client_made_up_is_answered_with_the_kind_that_it_is() {
    let dir = Dir::new();
    let host = Mesh::open(&dir).unwrap();
    let here = host.declare_queue("q", &quick()).unwrap();
    let queue = here.id();
    let over = Duration::MAX;
    let far = QueueId::from_number(u32::MAX);
    let token = Token { job: JobId(u128::MAX), attempt: u16::MAX, nonce: u64::MAX };
    let job = JobId(u128::MAX);
    let cursor = Some(flowmesh::queue::Cursor::from_words([u64::MAX; 4]));
    let with = |options: EnqueueOptions| {
        let jobs = [NewJobRequest::new(b"", &options)];
        sent(QueueRequest::Enqueue { queue, jobs: jobs.to_vec() })
    };
    let bad: Vec<(ErrorKind, Vec<u8>)> = vec![
        (NotFound, sent(QueueRequest::Stats { queue: far })),
        (NotFound, sent(QueueRequest::Find { name: "x".repeat(10_000).into() })),
        (InvalidArgument, sent(QueueRequest::Declare { name: "a b".into(), config: Box::default() })),
        (InvalidArgument, sent(QueueRequest::Reserve { queue, most: 0, lease: None })),
        (TooLarge, sent(QueueRequest::Reserve { queue, most: u32::MAX, lease: None })),
        (InvalidArgument, sent(QueueRequest::Reserve { queue, most: 1, lease: Some(over) })),
        (InvalidArgument, sent(QueueRequest::AckAndReserve { queue, acks: vec![], most: 0, lease: None })),
        (TooLarge, sent(QueueRequest::AckAndReserve { queue, acks: vec![], most: 1001, lease: None })),
        (
            InvalidArgument,
            sent(QueueRequest::AckAndReserve { queue, acks: vec![], most: 1, lease: Some(over) }),
        ),
        (NotFound, sent(QueueRequest::AckAndReserve { queue: far, acks: vec![], most: 1, lease: None })),
        (LeaseLost, sent(QueueRequest::Ack { queue, token, result: Some(b"x") })),
        (LeaseLost, sent(QueueRequest::Extend { queue, token, lease: None })),
        (InvalidArgument, sent(QueueRequest::Extend { queue, token, lease: Some(over) })),
        (InvalidArgument, sent(QueueRequest::Snooze { queue, token, delay: over })),
        (
            InvalidArgument,
            sent(QueueRequest::Nack {
                queue,
                token,
                message: "".into(),
                detail: "".into(),
                delay: Some(over),
            }),
        ),
        (TooLarge, sent(QueueRequest::Progress { queue, token, progress: &[0; 5000] })),
        (NotFound, sent(QueueRequest::Cancel { queue, job, why: "".into() })),
        (NotFound, sent(QueueRequest::Redrive { queue, jobs: vec![job; 1000] })),
        (TooLarge, sent(QueueRequest::Redrive { queue, jobs: vec![job; 1001] })),
        (InvalidArgument, sent(QueueRequest::List { queue, state: JobState::Ready, cursor, most: u32::MAX })),
        (InvalidArgument, sent(QueueRequest::Purge { queue, state: JobState::Leased })),
        (
            InvalidArgument,
            sent(QueueRequest::RedriveAt {
                queue,
                count: u64::MAX,
                rate: Rate { count: 1, per: over, burst: 0 },
            }),
        ),
        (InvalidArgument, with(EnqueueOptions { delay: over, ..plain() })),
        (InvalidArgument, with(EnqueueOptions { ttl: Some(over), ..plain() })),
        (InvalidArgument, with(EnqueueOptions { lease: Some(over), ..plain() })),
        (InvalidArgument, with(EnqueueOptions { deadline: Some(over), ..plain() })),
        (InvalidArgument, with(EnqueueOptions { backoff: Some(Backoff::Fixed(over)), ..plain() })),
        (TooLarge, with(EnqueueOptions { group: Some("g".repeat(10_000)), ..plain() })),
        (
            InvalidArgument,
            sent(QueueRequest::Configure {
                queue,
                config: Box::new(QueueConfig { cancel_grace: over, ..quick() }),
            }),
        ),
        (
            InvalidArgument,
            sent(QueueRequest::Schedule {
                queue,
                schedule: Box::new(Schedule { jitter: over, ..Schedule::new("s") }),
            }),
        ),
        (NotFound, sent(QueueRequest::Unschedule { queue, name: "x".repeat(10_000).into() })),
        (NotFound, sent(QueueRequest::Content { queue, job })),
        (NotFound, sent(QueueRequest::Outcome { queue, job })),
    ];
    for shared_memory in [true, false] {
        let mut rogue = Rogue::connect(dir.path(), shared_memory);
        for (index, (kind, bytes)) in bad.iter().enumerate() {
            let error =
                rogue.ask(100, bytes).unwrap_or_else(|| panic!("{index} ended the session")).unwrap_err();
            assert_eq!(error.kind(), *kind, "{index}: {error}");
        }
        // And what is only odd is carried out.
        let listed = sent(QueueRequest::List { queue, state: JobState::Ready, cursor, most: 1000 });
        assert!(rogue.ask(0, &listed).unwrap().is_ok());
        let none =
            rogue.ask(0, &sent(QueueRequest::Reserve { queue, most: 1, lease: None })).unwrap().unwrap();
        assert!(matches!(none.reply, QueueReply::Jobs(jobs) if jobs.is_empty()));
    }
    assert_eq!(host.stats().unwrap().protocol_violations, 0);
    assert_eq!(here.stats().unwrap(), flowmesh::queue::QueueStats::default());
    assert_eq!(here.config().unwrap(), quick());
}

#[test]
fn a_client_that_waits_too_often_fills_no_memory() {
    const LIMIT: usize = 4096;
    let dir = Dir::new();
    let host = Mesh::open(&dir).unwrap();
    let here = host.declare_queue("q", &quick()).unwrap();
    for shared_memory in [true, false] {
        let client = Mesh::builder().shared_memory(shared_memory).connect(&dir).unwrap();
        let queue = client.queue("q").unwrap();
        let waiting: Vec<_> = (0..LIMIT).map(|_| queue.start_reserve(1, None, None).unwrap()).collect();
        let error = queue.reserve(1, None, &mut Wait::timeout(WATCHDOG)).unwrap_err();
        let shown = LIMIT.to_string();
        assert_eq!((error.kind(), error.get("limit")), (ErrorKind::Full, Some(shown.as_str())));
        // One that does not wait is answered, and room comes back.
        assert!(queue.reserve(1, None, &mut Wait::poll()).unwrap().is_empty());
        waiting[0].cancel();
        assert!(queue.reserve(1, None, &mut Wait::timeout(Duration::from_millis(1))).unwrap().is_empty());
        client.close();
        drop((waiting, client));
        until("it is gone", || host.stats().unwrap().sessions.is_empty());
        // Nothing is left of them: a job goes to whoever is there.
        here.enqueue(b"x", &plain()).unwrap();
        next(&here).ack(None).unwrap();
    }
}

#[test]
fn requests_of_noise_harm_nobody() {
    let mut dice = Dice(seed("noise for queues"));
    let dir = Dir::new();
    let host = Mesh::open(&dir).unwrap();
    let queue = host.declare_queue("q", &quick()).unwrap();
    let good: Vec<Vec<u8>> = all_requests(queue.id()).into_iter().map(sent).collect();
    let rounds = number("FLOWMESH_HOSTILE_ROUNDS").unwrap_or(60);
    for round in 0..rounds {
        let mut rogue = Rogue::connect(dir.path(), round % 2 == 0);
        for _ in 0..50 {
            let mut bytes = good[dice.roll(good.len() as u64) as usize].clone();
            for _ in 0..dice.roll(4) {
                let at = dice.roll(bytes.len() as u64) as usize;
                bytes[at] = dice.next() as u8;
            }
            if dice.roll(10) == 0 {
                bytes = dice.bytes(40);
            }
            if !rogue.send(dice.roll(3) as u32, &bytes) {
                break;
            }
        }
    }
    until("they are gone", || host.stats().unwrap().sessions.is_empty());
    queue.resume().unwrap();
    queue.configure(&quick()).unwrap();
    for state in [JobState::Ready, JobState::RetryWait, JobState::Blocked, JobState::Scheduled] {
        queue.purge(state).unwrap();
    }
    queue.enqueue(b"mine", &EnqueueOptions { priority: 255, ..plain() }).unwrap();
    assert_eq!(next(&queue).payload(), b"mine");
    drop(queue);
    host.close();
    assert!(flowmesh::inspect(&dir).unwrap().damages.is_empty());
    Mesh::open(&dir).unwrap();
}
