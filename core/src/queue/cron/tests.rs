use super::*;
use jiff::{Span, civil};
use proptest::prelude::*;

fn at(text: &str) -> Timestamp {
    let zoned: jiff::Zoned = text.parse().unwrap();
    Timestamp(zoned.timestamp().as_nanosecond() as u64)
}

fn shown(time: Timestamp, zone: &str) -> String {
    let zone = TimeZone::get(zone).unwrap();
    let time = jiff::Timestamp::from_nanosecond(i128::from(time.0)).unwrap();
    zone.to_datetime(time).to_string()
}

fn next_times(cron: &str, start: &str, count: usize) -> Vec<String> {
    let zone = start.split(['[', ']']).nth(1).unwrap();
    let plan = Plan::parse(cron, zone).unwrap();
    let mut time = at(start);
    (0..count)
        .map(|_| {
            time = plan.after(time).unwrap();
            shown(time, zone)
        })
        .collect()
}

#[test]
fn fields_ranges_steps_lists_names_and_aliases() {
    let start = "2026-01-01T00:00:00+00:00[UTC]";
    for (cron, expected) in [
        ("* * * * *", ["2026-01-01T00:01:00", "2026-01-01T00:02:00", "2026-01-01T00:03:00"]),
        ("*/20 * * * *", ["2026-01-01T00:20:00", "2026-01-01T00:40:00", "2026-01-01T01:00:00"]),
        ("5,35-36 3 * * *", ["2026-01-01T03:05:00", "2026-01-01T03:35:00", "2026-01-01T03:36:00"]),
        ("10/20 8-18/5 * * *", ["2026-01-01T08:10:00", "2026-01-01T08:30:00", "2026-01-01T08:50:00"]),
        ("15,45 30 6 * * mon-fri", ["2026-01-01T06:30:15", "2026-01-01T06:30:45", "2026-01-02T06:30:15"]),
        ("0 0 29 2 *", ["2028-02-29T00:00:00", "2032-02-29T00:00:00", "2036-02-29T00:00:00"]),
        ("0 12 * FEB,mar Sun", ["2026-02-01T12:00:00", "2026-02-08T12:00:00", "2026-02-15T12:00:00"]),
        ("0 0 * * 7", ["2026-01-04T00:00:00", "2026-01-11T00:00:00", "2026-01-18T00:00:00"]),
        // Either kind of day will do when both are given.
        ("0 0 13 * fri", ["2026-01-02T00:00:00", "2026-01-09T00:00:00", "2026-01-13T00:00:00"]),
        ("0 0 ? * 1-2", ["2026-01-05T00:00:00", "2026-01-06T00:00:00", "2026-01-12T00:00:00"]),
        ("@hourly", ["2026-01-01T01:00:00", "2026-01-01T02:00:00", "2026-01-01T03:00:00"]),
        ("@daily", ["2026-01-02T00:00:00", "2026-01-03T00:00:00", "2026-01-04T00:00:00"]),
        ("@Weekly", ["2026-01-04T00:00:00", "2026-01-11T00:00:00", "2026-01-18T00:00:00"]),
        ("@monthly", ["2026-02-01T00:00:00", "2026-03-01T00:00:00", "2026-04-01T00:00:00"]),
        ("@yearly", ["2027-01-01T00:00:00", "2028-01-01T00:00:00", "2029-01-01T00:00:00"]),
    ] {
        assert_eq!(next_times(cron, start, 3), expected, "{cron}");
    }
}

#[test]
fn a_skipped_time_fires_once_after_the_gap() {
    let start = "2026-03-29T01:50:00+01:00[Europe/Berlin]";
    assert_eq!(next_times("30 2 * * *", start, 2), ["2026-03-29T03:00:00", "2026-03-30T02:30:00"]);
    // Four were skipped; the one at three o'clock is at the same time.
    let expected = ["2026-03-29T03:00:00", "2026-03-29T03:15:00", "2026-03-29T03:30:00"];
    assert_eq!(next_times("*/15 * * * *", start, 3), expected);
    // A whole day was skipped.
    let start = "2011-12-29T13:00:00-10:00[Pacific/Apia]";
    assert_eq!(next_times("0 12 * * *", start, 2), ["2011-12-31T00:00:00", "2011-12-31T12:00:00"]);
}

#[test]
fn a_repeated_time_fires_the_first_time_only() {
    let plan = Plan::parse("30 2 * * *", "Europe/Berlin").unwrap();
    let first = plan.after(at("2026-10-25T01:00:00+02:00[Europe/Berlin]")).unwrap();
    assert_eq!(first, at("2026-10-25T02:30:00+02:00[Europe/Berlin]"));
    assert_eq!(plan.after(first).unwrap(), at("2026-10-26T02:30:00+01:00[Europe/Berlin]"));
    let plan = Plan::parse("*/20 * * * *", "America/New_York").unwrap();
    let last = at("2026-11-01T01:40:00-04:00[America/New_York]");
    assert_eq!(plan.after(last).unwrap(), at("2026-11-01T02:00:00-05:00[America/New_York]"));
    // From within the repeated hour too.
    let within = at("2026-11-01T01:10:00-05:00[America/New_York]");
    assert_eq!(plan.after(within).unwrap(), at("2026-11-01T02:00:00-05:00[America/New_York]"));
}

#[test]
fn an_error_says_at_which_column() {
    for (cron, column, rule) in [
        ("", 1, "five fields"),
        ("* * * *", 8, "five fields"),
        ("* * * * * * *", 13, "five fields"),
        ("60 * * * *", 1, "minute: 0 to 59"),
        ("* 24 * * *", 3, "hour: 0 to 23"),
        ("* * 0 * *", 5, "day of month: 1 to 31"),
        ("* * * 13 *", 7, "month: 1 to 12, or jan to dec"),
        ("* * * * 8", 9, "day of week: 0 to 7, or sun to sat"),
        ("* * * * mon-xyz", 13, "day of week"),
        ("1,2,x * * * *", 5, "minute"),
        ("30-10 * * * *", 1, "the range goes down"),
        ("*/0 * * * *", 3, "a step is 1 to 59"),
        ("*/ * * * *", 3, "a step"),
        ("*/61 * * * *", 3, "a step"),
        ("? * * * *", 1, "minute"),
        ("* * 5- * *", 7, "day of month"),
        ("* *  ü * *", 6, "day of month"),
        ("-1 * * * *", 1, "minute"),
        ("+1 * * * *", 1, "minute"),
        ("@dayly", 1, "@daily"),
        ("0 61 * * * *", 3, "minute"),
    ] {
        let error = Plan::parse(cron, "UTC").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{cron}");
        assert_eq!(error.get("column"), Some(&*column.to_string()), "{cron}: {error}");
        assert!(error.get("rule").unwrap().contains(rule), "{cron}: {error}");
    }
    let long = "* ".repeat(1000);
    assert_eq!(Plan::parse(&long, "UTC").unwrap_err().kind(), ErrorKind::TooLarge);
    for zone in ["", "Mars/Olympus", "Europe/", "../../etc/passwd", "UTC\0", &"a".repeat(5000)] {
        let error = Plan::parse("@daily", zone).unwrap_err();
        assert!(error.get("zone").is_some() && error.to_string().len() < 400, "{error}");
    }
}

#[test]
fn what_never_comes_is_none() {
    assert_eq!(Plan::parse("0 0 30 2 *", "UTC").unwrap().after(Timestamp(0)), None);
    assert!(
        Plan::parse("* * * * *", "UTC").unwrap().after(Timestamp(u64::MAX)).is_none_or(|at| at.0 > 1 << 63)
    );
}

#[test]
fn a_schedule_checks_its_fields() {
    let good = Schedule::new("report");
    good.validate().unwrap();
    let with_id = EnqueueOptions { id: Some(JobId(1)), ..EnqueueOptions::default() };
    let delayed = EnqueueOptions { delay: Duration::from_secs(1), ..EnqueueOptions::default() };
    for (bad, field) in [
        (Schedule { name: "a b".to_owned(), ..good.clone() }, "name"),
        (Schedule { cron: "x".to_owned(), ..good.clone() }, "column"),
        (Schedule { zone: "x".to_owned(), ..good.clone() }, "zone"),
        (Schedule { jitter: JITTER_MAX + Duration::from_secs(1), ..good.clone() }, "jitter"),
        (Schedule { options: with_id, ..good.clone() }, "options"),
        (Schedule { options: delayed, ..good.clone() }, "options"),
        (Schedule { payload: vec![0; SCHEDULE_PAYLOAD_BYTES_MAX + 1], ..good.clone() }, "payload_bytes"),
    ] {
        assert!(bad.validate().unwrap_err().get(field).is_some(), "{field}");
    }
}

#[test]
fn missed_times_pass_run_once_or_are_made_up_for() {
    let start = at("2026-01-01T00:00:00+00:00[UTC]");
    let minutes = |count: u64| Timestamp(start.0 + count * 60_000_000_000);
    let ticks = |misfire, now: Timestamp| {
        let schedule = Schedule { cron: "* * * * *".to_owned(), misfire, ..Schedule::new("s") };
        let ticks = schedule.ticks(&schedule.plan().unwrap(), minutes(1), now);
        let fired: Vec<u64> = ticks
            .iter()
            .filter(|tick| tick.fires)
            .map(|tick| (tick.at.0 - start.0) / 60_000_000_000)
            .collect();
        assert!(ticks.last().unwrap().next > now);
        fired
    };
    for misfire in [Misfire::Skip, Misfire::RunOnce, Misfire::RunAll] {
        assert_eq!(ticks(misfire, Timestamp(minutes(1).0 + 1)), [1], "in time");
        assert_eq!(ticks(misfire, minutes(2)), [1, 2], "a minute late is in time");
    }
    let late = Timestamp(minutes(10).0 + 1);
    assert_eq!(ticks(Misfire::Skip, late), [10]);
    assert_eq!(ticks(Misfire::RunOnce, late), [1, 10]);
    assert_eq!(ticks(Misfire::RunAll, late), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    assert_eq!(ticks(Misfire::RunAll, minutes(50_000)).len(), RUN_ALL_MAX + 2);
    // Ten years at once take no longer than a minute.
    assert_eq!(ticks(Misfire::RunOnce, minutes(5_000_000)).len(), 3);
}

#[test]
fn jitter_and_ids_are_the_same_for_the_same_time() {
    let schedule = Schedule { jitter: Duration::from_secs(10), ..Schedule::new("s") };
    let other = Schedule { name: "t".to_owned(), ..schedule.clone() };
    let mut delays = std::collections::HashSet::new();
    for tick in 0..100 {
        let tick = Timestamp(1_700_000_000_000_000_000 + tick * 60_000_000_000);
        let options = schedule.options_for(tick);
        assert_eq!(options, schedule.options_for(tick));
        assert!(options.delay < schedule.jitter);
        assert_ne!(schedule.job_id(tick), other.job_id(tick));
        delays.insert(options.delay);
    }
    assert!(delays.len() > 90);
}

/// The values of a field, and how they were written.
fn field(least: u8, most: u8) -> impl Strategy<Value = (String, Vec<u8>)> {
    let all: Vec<u8> = (least..=most).collect();
    let one = (least..=most).prop_map(|value| (value.to_string(), vec![value]));
    let range = (least..=most, least..=most).prop_map(|(a, b)| {
        let (low, high) = (a.min(b), a.max(b));
        (format!("{low}-{high}"), (low..=high).collect())
    });
    let steps = (1u8..=most).prop_map(move |step| {
        (format!("*/{step}"), (least..=most).step_by(usize::from(step)).collect::<Vec<u8>>())
    });
    let item = prop_oneof![3 => one, 2 => range, 2 => steps];
    let list = proptest::collection::vec(item, 1..4).prop_map(|items| {
        let text: Vec<String> = items.iter().map(|(text, _)| text.clone()).collect();
        (text.join(","), items.into_iter().flat_map(|(_, values)| values).collect())
    });
    prop_oneof![2 => Just(("*".to_owned(), all)), 3 => list]
}

/// Walks minute by minute. A time of day counts when it first shows, or should have been passed by now.
fn walk(
    zone: &TimeZone,
    from: Timestamp,
    minutes: usize,
    matches: impl Fn(DateTime) -> bool,
) -> Vec<Timestamp> {
    let local = |minute: usize| {
        let ns = i128::from(from.0) + minute as i128 * 60_000_000_000;
        (Timestamp(ns as u64), zone.to_datetime(jiff::Timestamp::from_nanosecond(ns).unwrap()))
    };
    let (_, mut latest) = local(0);
    let mut times = Vec::new();
    for minute in 1..minutes {
        let (time, civil) = local(minute);
        let mut fires = false;
        while latest < civil {
            latest = latest.checked_add(Span::new().minutes(1)).unwrap();
            fires |= matches(latest);
        }
        if fires {
            times.push(time);
        }
    }
    times
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 48 } else { 512 }))]
    #[test]
    fn agrees_with_walking_minute_by_minute(
        minute in field(0, 59), hour in field(0, 23), day in field(1, 31), month in field(1, 12), weekday in field(0, 7),
        zone in prop::sample::select(vec![
            "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Africa/Casablanca",
        ]),
        around in prop::sample::select(vec![
            civil::date(2026, 3, 27), civil::date(2026, 10, 24), civil::date(2026, 3, 7), civil::date(2026, 10, 31),
            civil::date(2026, 4, 4), civil::date(2024, 2, 28), civil::date(2026, 2, 14), civil::date(2025, 12, 30),
        ]),
    ) {
        let cron = format!("{} {} {} {} {}", minute.0, hour.0, day.0, month.0, weekday.0);
        let plan = Plan::parse(&cron, zone).unwrap();
        let time_zone = TimeZone::get(zone).unwrap();
        let either = !day.0.starts_with('*') && !weekday.0.starts_with('*');
        let matches = |at: DateTime| {
            let has = |values: &[u8], value: i8| values.contains(&(value as u8));
            let sunday_first = at.weekday().to_sunday_zero_offset();
            let on_weekday = has(&weekday.1, sunday_first) || sunday_first == 0 && has(&weekday.1, 7);
            let on_day = has(&day.1, at.day());
            has(&minute.1, at.minute()) && has(&hour.1, at.hour()) && has(&month.1, at.month())
                && if either { on_day || on_weekday } else { on_day && on_weekday }
        };
        let start = around.at(0, 0, 0, 0).to_zoned(time_zone.clone()).unwrap().timestamp();
        let start = Timestamp(start.as_nanosecond() as u64);
        let minutes = 6 * 24 * 60;
        let end = Timestamp(start.0 + (minutes as u64 - 1) * 60_000_000_000);
        let expected = walk(&time_zone, start, minutes, matches);
        let mut found = Vec::new();
        let mut time = start;
        while let Some(next) = plan.after(time).filter(|next| *next <= end) {
            found.push(next);
            time = next;
        }
        prop_assert_eq!(found, expected, "{} in {} from {}", cron, zone, around);
    }
}
