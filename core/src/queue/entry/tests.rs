use super::*;
use crate::queue::options::{Keep, OnConflict, Rate, Retention, Unique};
use proptest::prelude::*;

fn moment() -> impl Strategy<Value = Moment> {
    any::<u64>().prop_map(Moment)
}

fn target() -> impl Strategy<Value = Target> {
    any::<u128>().prop_map(|id| Target::of(JobId(id)))
}

fn time() -> impl Strategy<Value = Duration> {
    any::<u64>().prop_map(Duration::from_nanos)
}

fn text() -> impl Strategy<Value = String> {
    "[a-zü ]{0,20}"
}

fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

fn failure() -> impl Strategy<Value = FailureRef<'static>> {
    (any::<u16>(), any::<u64>(), text(), text()).prop_map(|(attempt, at, message, detail)| FailureRef {
        attempt,
        at: Timestamp(at),
        message: leak(message),
        detail: leak(detail),
    })
}

fn scope() -> impl Strategy<Value = Scope> {
    prop_oneof![Just(Scope::Waiting), Just(Scope::Active), time().prop_map(Scope::Window)]
}

fn start() -> impl Strategy<Value = Start> {
    prop_oneof![
        Just(Start::Now),
        moment().prop_map(Start::After),
        (any::<u64>(), moment()).prop_map(|(wall, due)| Start::At(Timestamp(wall), due)),
    ]
}

fn own_settings() -> impl Strategy<Value = Own> {
    let backoff = prop_oneof![
        Just(Backoff::default()),
        (0u64..1000).prop_map(|secs| Backoff::Fixed(Duration::from_secs(secs))),
        Just(Backoff::List(vec![Duration::from_secs(1), Duration::from_millis(5)])),
    ];
    let times = (proptest::option::of(time()), proptest::option::of(time()), proptest::option::of(time()));
    (proptest::option::of(any::<u16>()), proptest::option::of(backoff), times).prop_map(
        |(max_attempts, backoff, (lease, deadline, result_ttl))| Own {
            max_attempts,
            backoff,
            lease,
            deadline,
            result_ttl,
        },
    )
}

fn body() -> impl Strategy<Value = Body<'static>> {
    let head =
        prop_oneof![Just(Vec::new()), Just(vec![0]), Just(b"\x01a\x01\x00\x02\x00\x00\x00bcd".to_vec())];
    (head, proptest::collection::vec(any::<u8>(), 0..100))
        .prop_map(|(head, payload)| Body { head: head.into(), payload: payload.leak() })
}

fn new_job() -> impl Strategy<Value = New<'static>> {
    let unique = proptest::option::of((text(), scope()));
    let extra = (
        proptest::option::of(text()),
        unique,
        proptest::option::of(moment()),
        own_settings(),
        proptest::collection::vec(failure(), 0..3),
    )
        .prop_map(|(group, unique, expires, own, failures)| {
            Box::new(Extra {
                group: group.map(Cow::Owned),
                unique: unique.map(|(key, scope)| (Cow::Owned(key), scope)),
                expires,
                own,
                failures,
            })
        });
    let plain = (any::<u128>(), moment(), 0..SEQ_MAX, any::<u8>(), start(), any::<bool>());
    (plain, proptest::option::of(extra), body()).prop_map(
        |((id, at, seq, priority, start, held), extra, body)| New {
            id: JobId(id),
            at,
            seq,
            priority,
            start,
            held,
            extra,
            body,
        },
    )
}

fn config() -> QueueConfig {
    QueueConfig {
        rate: Some(Rate { count: 3, per: Duration::from_secs(1), burst: 2 }),
        backoff: Backoff::List(vec![Duration::from_secs(3)]),
        retention: Retention { dead: Keep { age: Duration::from_secs(1), count: 5 }, ..Retention::default() },
        dead_letter_to: Some(crate::name::Name::parse("dead.letters").unwrap()),
        durability: crate::ledger::Durability::Interval(Duration::from_millis(10)),
        ..QueueConfig::default()
    }
}

fn schedule() -> Schedule {
    Schedule {
        cron: "*/5 * * * *".to_owned(),
        zone: "Europe/Berlin".to_owned(),
        payload: vec![1, 2, 3],
        options: EnqueueOptions {
            priority: 9,
            headers: vec![("a".to_owned(), "b".to_owned())],
            unique: Some(Unique {
                key: "k".to_owned(),
                scope: Scope::Window(Duration::from_secs(1)),
                conflict: OnConflict::Replace,
            }),
            ..EnqueueOptions::default()
        },
        ..Schedule::new("s")
    }
}

fn change() -> impl Strategy<Value = Change<'static>> {
    let fate = prop_oneof![
        Just(Fate::Ready),
        moment().prop_map(Fate::Scheduled),
        moment().prop_map(Fate::Retry),
        moment().prop_map(Fate::Dead),
        moment().prop_map(Fate::Cancelled),
    ];
    let result = proptest::option::of(body().prop_map(|body| body.payload));
    prop_oneof![
        new_job().prop_map(Change::Enqueue),
        (any::<u128>(), body()).prop_map(|(id, body)| Change::Content { id: JobId(id), body }),
        (any::<u128>(), body()).prop_map(|(id, body)| Change::Result { id: JobId(id), result: body.payload }),
        (target(), any::<u64>(), any::<u64>(), moment(), moment(), moment()).prop_map(
            |(job, nonce, worker, at, until, deadline)| {
                Change::Reserve { job, nonce, worker: WorkerId(worker), at, until, deadline }
            }
        ),
        (target(), moment()).prop_map(|(job, until)| Change::Extend { job, until }),
        (target(), any::<u64>(), moment(), moment(), result)
            .prop_map(|(job, nonce, at, keep, result)| Change::Done { job, nonce, at, keep, result }),
        (target(), moment(), 0..8usize, fate, any::<bool>(), proptest::option::of(failure())).prop_map(
            |(job, at, cause, to, counted, failure)| {
                Change::Return { job, at, cause: Cause::ALL[cause], to, counted, failure }
            }
        ),
        (target(), moment(), proptest::option::of(failure())).prop_map(|(job, by, failure)| Change::Ask {
            job,
            by,
            failure
        }),
        (target(), moment(), moment(), any::<bool>(), proptest::option::of(failure()))
            .prop_map(|(job, at, keep, expired, failure)| Change::End { job, at, keep, expired, failure }),
        (target(), moment(), start()).prop_map(|(job, at, start)| Change::Reschedule { job, at, start }),
        (target(), moment(), any::<bool>()).prop_map(|(job, at, paced)| Change::Redrive { job, at, paced }),
        (target(), moment(), any::<bool>()).prop_map(|(job, at, moved)| Change::Forget { job, at, moved }),
        any::<(bool, bool)>().prop_map(|(paused, draining)| Change::Mode { paused, draining }),
        (any::<u64>(), time()).prop_map(|(count, interval)| Change::Redriving { count, interval }),
        Just(Change::Declare { name: "mail".into(), config: Box::new(config()), secret: 5 }),
        any::<u64>()
            .prop_map(|next| Change::Schedule { schedule: Box::new(schedule()), next: Timestamp(next) }),
        text().prop_map(|name| Change::Unschedule { name: name.into() }),
        (text(), any::<u64>(), any::<u64>(), proptest::option::of(any::<u128>())).prop_map(
            |(name, tick, next, job)| Change::Fired {
                name: name.into(),
                tick: Timestamp(tick),
                next: Timestamp(next),
                job: job.map(JobId),
            }
        ),
    ]
}

/// An id and a moment.
const ASK_BYTES: usize = 24;

fn whole(change: &Change<'_>) -> (u8, Vec<u8>) {
    let mut buffer = Vec::new();
    let encoded = encode(change, &mut buffer);
    (encoded.kind, buffer)
}

fn more() -> impl Strategy<Value = MoreImage<'static>> {
    let lease =
        (any::<u64>(), any::<u64>(), moment(), moment()).prop_map(|(nonce, worker, deadline, asked)| {
            LeaseImage { nonce, worker: WorkerId(worker), deadline, asked }
        });
    let kept = (
        any::<u32>(),
        proptest::option::of(any::<u64>().prop_map(Place::from_bits)),
        proptest::option::of(lease),
    );
    let said = (
        proptest::option::of(text()),
        proptest::option::of((text(), scope(), 0u8..3)),
        proptest::option::of(moment()),
        own_settings(),
        proptest::collection::vec(failure(), 0..4),
    );
    (said, kept).prop_map(|((group, unique, expires, own, failures), (redrives, result, lease))| MoreImage {
        group: group.map(Cow::Owned),
        unique: unique.map(|(key, scope, role)| (Cow::Owned(key), scope, role)),
        expires,
        own,
        failures,
        redrives,
        result,
        lease,
    })
}

fn job_image() -> impl Strategy<Value = JobImage<'static>> {
    let words = (any::<u128>(), any::<u64>(), moment(), any::<u64>(), any::<u64>(), any::<u32>());
    let small = (any::<u16>(), any::<u8>(), 1u8..=10);
    (words, small, proptest::option::of(more())).prop_map(
        |((id, place, at, due, seq, payload_bytes), (attempt, priority, stage), more)| JobImage {
            id: JobId(id),
            place: Place::from_bits(place),
            at,
            due,
            seq,
            payload_bytes,
            attempt,
            priority,
            stage,
            more: more.map(Box::new),
        },
    )
}

proptest! {
    #[test]
    fn changes_come_back_as_they_were(change in change()) {
        let (kind, bytes) = whole(&change);
        prop_assert!(KINDS.contains(&kind));
        prop_assert_eq!(&decode(kind, &bytes).unwrap(), &change);
        // What a newer version adds at the end is passed over.
        let longer = [&bytes[..], b"more"].concat();
        prop_assert_eq!(&decode(kind, &longer).unwrap(), &change);
        for end in 0..bytes.len() {
            let cut = decode(kind, &bytes[..end]);
            if let (Change::Ask { job, by, .. }, ASK_BYTES) = (&change, end) {
                // As it was written before it told why.
                prop_assert_eq!(cut.unwrap(), Change::Ask { job: *job, by: *by, failure: None });
                continue;
            }
            prop_assert!(cut.is_err(), "cut at {} of {}: {:?}", end, bytes.len(), cut);
        }
    }

    #[test]
    fn damaged_bytes_give_an_error_or_another_change(change in change(), at in any::<usize>(), bit in 0u8..8) {
        let (kind, mut bytes) = whole(&change);
        prop_assume!(!bytes.is_empty());
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        if let Err(error) = decode(kind, &bytes) {
            prop_assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported), "{}", error);
        }
        fuzz(&[&[kind], &bytes[..]].concat());
    }

    #[test]
    fn any_bytes_are_taken(kind in any::<u8>(), bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        fuzz(&[&[kind], &bytes[..]].concat());
        fuzz(&[&[16 + kind % 20], &bytes[..]].concat());
        fuzz(&[&[1 + kind % 4], &bytes[..]].concat());
        let _ = decode_head(&bytes);
    }

    #[test]
    fn images_come_back_as_they_were(images in proptest::collection::vec(job_image(), 0..5)) {
        let mut bytes = Vec::new();
        begin_image_of_jobs(&mut bytes);
        images.iter().for_each(|image| encode_image_of_job(image, &mut bytes));
        let Image::Jobs(found) = decode_image(&bytes).unwrap() else { panic!("another kind of image") };
        prop_assert_eq!(found, images);
        for end in 1..bytes.len() {
            // Cut between two jobs it is an image of fewer.
            if let Ok(Image::Jobs(found)) = decode_image(&bytes[..end]) {
                prop_assert!(found.len() < 5);
            }
        }
    }
}

#[test]
fn a_queue_s_image_comes_back_as_it_was() {
    let mut bits = [0; 64];
    bits[3] = 5;
    let image = QueueImage {
        seq: 7,
        leases: 8,
        secret: 9,
        paused: true,
        draining: true,
        redriving: Some((3, Duration::from_secs(2))),
        bucket: 10,
        buckets: vec![("g".into(), 11)],
        windows: vec![("k".into(), JobId(12), 13)],
        acked: vec![(14, 15, Cow::Owned(bits))],
        schedules: vec![ScheduleImage {
            schedule: Cow::Owned(schedule()),
            next: Timestamp(16),
            tick: Timestamp(17),
            job: Some(JobId(18)),
        }],
    };
    let mut bytes = Vec::new();
    encode_image_of_queue(&image, &mut bytes);
    match decode_image(&bytes).unwrap() {
        Image::Queue(found) => assert_eq!(*found, image),
        _ => panic!("another kind of image"),
    }
    (0..bytes.len()).for_each(|end| assert!(decode_image(&bytes[..end]).is_err(), "cut at {end}"));
}

#[test]
fn what_a_newer_version_wrote_is_refused_by_name() {
    let plain = New {
        id: JobId(1),
        at: Moment(2),
        seq: 3,
        priority: 0,
        start: Start::Now,
        held: false,
        extra: None,
        body: Body::default(),
    };
    let (kind, mut bytes) = whole(&Change::Enqueue(plain));
    bytes[8] |= 0x40;
    let error = decode(kind, &bytes).unwrap_err();
    assert_eq!((error.kind(), error.get("kind")), (ErrorKind::Unsupported, Some("17")));
    assert_eq!(decode(200, &[]).unwrap_err().kind(), ErrorKind::Unsupported);
    let Err(error) = decode_image(&[99]) else { panic!("a kind that is not known") };
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn settings_that_are_not_valid_are_damage() {
    let bad = QueueConfig { max_attempts: 0, ..QueueConfig::default() };
    let (kind, bytes) = whole(&Change::Declare { name: "q".into(), config: Box::new(bad), secret: 5 });
    assert_eq!(decode(kind, &bytes).unwrap_err().kind(), ErrorKind::Corrupt);
}
