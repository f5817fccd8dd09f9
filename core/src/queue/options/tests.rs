use super::*;

fn field(error: &Error) -> (ErrorKind, String) {
    let name = error.context().map(|(name, _)| name).find(|name| *name != "limit").unwrap_or("").to_owned();
    assert!(error.get("limit").is_some(), "{error}");
    (error.kind(), name)
}

#[test]
fn every_setting_out_of_bounds_is_refused_by_name() {
    let good = QueueConfig::default();
    good.validate().unwrap();
    let rate = Rate { count: 1, per: Duration::from_secs(1), burst: 1 };
    let groups = |groups: GroupLimits| QueueConfig { groups, ..QueueConfig::default() };
    let weight = |weight: u32| {
        groups(GroupLimits { weights: [("g".to_owned(), weight)].into(), ..GroupLimits::default() })
    };
    let exponential =
        |factor, max| Backoff::Exponential { initial: Duration::from_secs(2), factor, max, jitter: true };
    let long = TIME_MAX + Duration::from_secs(1);
    for (bad, name) in [
        (QueueConfig { lease: Duration::ZERO, ..good.clone() }, "lease"),
        (QueueConfig { lease: LEASE_MIN - Duration::from_nanos(1), ..good.clone() }, "lease"),
        (QueueConfig { lease: LEASE_MAX + Duration::from_nanos(1), ..good.clone() }, "lease"),
        (QueueConfig { max_attempts: 0, ..good.clone() }, "max_attempts"),
        (QueueConfig { max_attempts: ATTEMPTS_MAX + 1, ..good.clone() }, "max_attempts"),
        (QueueConfig { backoff: Backoff::Fixed(long), ..good.clone() }, "backoff"),
        (QueueConfig { backoff: Backoff::List(vec![]), ..good.clone() }, "backoff"),
        (QueueConfig { backoff: Backoff::List(vec![Duration::ZERO; 101]), ..good.clone() }, "backoff"),
        (QueueConfig { backoff: exponential(0.5, long), ..good.clone() }, "backoff.factor"),
        (QueueConfig { backoff: exponential(f64::NAN, TIME_MAX), ..good.clone() }, "backoff.factor"),
        (QueueConfig { backoff: exponential(2.0, Duration::from_secs(1)), ..good.clone() }, "backoff.max"),
        (QueueConfig { deadline: Some(Duration::ZERO), ..good.clone() }, "deadline"),
        (QueueConfig { ttl: Some(Duration::ZERO), ..good.clone() }, "ttl"),
        (QueueConfig { ttl: Some(long), ..good.clone() }, "ttl"),
        (QueueConfig { aging: Some(Duration::ZERO), ..good.clone() }, "aging"),
        (QueueConfig { max_length: Some(0), ..good.clone() }, "max_length"),
        (QueueConfig { concurrency: Some(0), ..good.clone() }, "concurrency"),
        (QueueConfig { payload_bytes_max: 0, ..good.clone() }, "payload_bytes_max"),
        (
            QueueConfig { payload_bytes_max: PAYLOAD_BYTES_LIMIT as u32 + 1, ..good.clone() },
            "payload_bytes_max",
        ),
        (QueueConfig { rate: Some(Rate { count: 0, ..rate }), ..good.clone() }, "rate"),
        (QueueConfig { rate: Some(Rate { burst: 0, ..rate }), ..good.clone() }, "rate"),
        (QueueConfig { rate: Some(Rate { per: Duration::ZERO, ..rate }), ..good.clone() }, "rate"),
        (
            groups(GroupLimits { rate: Some(Rate { count: 0, ..rate }), ..GroupLimits::default() }),
            "groups.rate",
        ),
        (groups(GroupLimits { concurrency: Some(0), ..GroupLimits::default() }), "groups.concurrency"),
        (weight(0), "groups.weights"),
        (weight(WEIGHT_MAX + 1), "groups.weights"),
        (QueueConfig { cancel_grace: long, ..good.clone() }, "cancel_grace"),
        (
            QueueConfig { durability: Durability::Interval(Duration::ZERO), ..good.clone() },
            "durability.interval",
        ),
        (
            QueueConfig {
                retention: Retention { dead: Keep { age: long, count: 1 }, ..Retention::default() },
                ..good.clone()
            },
            "retention.dead",
        ),
    ] {
        let error = bad.validate().unwrap_err();
        assert_eq!(field(&error), (ErrorKind::InvalidArgument, name.to_owned()), "{error}");
    }
    QueueConfig { lease: LEASE_MAX, max_attempts: ATTEMPTS_MAX, rate: Some(rate), ..good }
        .validate()
        .unwrap();
}

#[test]
fn every_wish_of_a_job_out_of_bounds_is_refused_by_name() {
    let good = EnqueueOptions::default();
    good.validate().unwrap();
    let unique =
        |key: &str, scope| Some(Unique { key: key.to_owned(), scope, conflict: OnConflict::default() });
    let long_key = "k".repeat(KEY_BYTES_MAX + 1);
    let header = |name: &str, bytes: usize| (name.to_owned(), "v".repeat(bytes));
    use ErrorKind::{InvalidArgument, TooLarge};
    for (bad, kind, name) in [
        (
            EnqueueOptions { delay: TIME_MAX + Duration::from_nanos(1), ..good.clone() },
            InvalidArgument,
            "delay",
        ),
        (
            EnqueueOptions { delay: Duration::from_secs(1), run_at: Some(Timestamp(1)), ..good.clone() },
            InvalidArgument,
            "run_at",
        ),
        (EnqueueOptions { ttl: Some(Duration::ZERO), ..good.clone() }, InvalidArgument, "ttl"),
        (EnqueueOptions { deadline: Some(Duration::ZERO), ..good.clone() }, InvalidArgument, "deadline"),
        (EnqueueOptions { result_ttl: Some(Duration::ZERO), ..good.clone() }, InvalidArgument, "result_ttl"),
        (EnqueueOptions { max_attempts: Some(0), ..good.clone() }, InvalidArgument, "max_attempts"),
        (EnqueueOptions { lease: Some(Duration::ZERO), ..good.clone() }, InvalidArgument, "lease"),
        (EnqueueOptions { lease: Some(LEASE_MAX * 2), ..good.clone() }, InvalidArgument, "lease"),
        (EnqueueOptions { backoff: Some(Backoff::List(vec![])), ..good.clone() }, InvalidArgument, "backoff"),
        (EnqueueOptions { group: Some(String::new()), ..good.clone() }, InvalidArgument, "group"),
        (EnqueueOptions { group: Some(long_key.clone()), ..good.clone() }, TooLarge, "group"),
        (EnqueueOptions { unique: unique("", Scope::Active), ..good.clone() }, InvalidArgument, "unique.key"),
        (EnqueueOptions { unique: unique(&long_key, Scope::Active), ..good.clone() }, TooLarge, "unique.key"),
        (
            EnqueueOptions { unique: unique("k", Scope::Window(Duration::ZERO)), ..good.clone() },
            InvalidArgument,
            "unique.window",
        ),
        (
            EnqueueOptions { content_type: Some("c".repeat(CONTENT_TYPE_BYTES_MAX + 1)), ..good.clone() },
            TooLarge,
            "content_type",
        ),
        (
            EnqueueOptions { headers: vec![header("h", HEADER_BYTES_MAX)], ..good.clone() },
            TooLarge,
            "header_bytes",
        ),
        (
            EnqueueOptions { headers: vec![header("h", 1); HEADER_COUNT_MAX + 1], ..good.clone() },
            TooLarge,
            "header_count",
        ),
        (EnqueueOptions { headers: vec![header("", 1)], ..good.clone() }, InvalidArgument, "header"),
    ] {
        let error = bad.validate().unwrap_err();
        assert_eq!(field(&error), (kind, name.to_owned()), "{error}");
    }
    EnqueueOptions { headers: vec![header("h", HEADER_BYTES_MAX - 1)], ..good }.validate().unwrap();
    let error = ReserveOptions { lease: Some(Duration::ZERO) }.validate().unwrap_err();
    assert_eq!(error.get("lease"), Some("0ns"));
}

#[test]
fn a_difference_names_the_field_and_both_values() {
    let one = QueueConfig::default();
    assert_eq!(one.difference(&one), None);
    let two = QueueConfig { max_attempts: 7, ..one.clone() };
    assert_eq!(one.difference(&two), Some(("max_attempts", "5".to_owned(), "7".to_owned())));
}

#[test]
fn backoffs_grow_to_their_maximum_and_jitter_stays_within() {
    let job = JobId(7);
    let plain = Backoff::Exponential {
        initial: Duration::from_secs(1),
        factor: 2.0,
        max: Duration::from_secs(600),
        jitter: false,
    };
    let waits: Vec<u64> = [1, 2, 3, 10, 11, 1000].map(|attempt| plain.after(job, attempt).as_secs()).to_vec();
    assert_eq!(waits, [1, 2, 4, 512, 600, 600]);
    let list = Backoff::List(vec![Duration::from_secs(1), Duration::from_secs(5)]);
    assert_eq!([1, 2, 3].map(|attempt| list.after(job, attempt).as_secs()), [1, 5, 5]);
    let jittered = Backoff::default();
    let mut sum = Duration::ZERO;
    for id in 0..1000 {
        let wait = jittered.after(JobId(id), 4);
        assert!(wait <= Duration::from_secs(8));
        assert_eq!(wait, jittered.after(JobId(id), 4), "the same for the same job and attempt");
        sum += wait;
    }
    assert!((3500..4500).contains(&(sum / 1000).as_millis()), "{sum:?}");
}
