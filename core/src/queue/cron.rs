//! Times of day that come again: cron expressions in a time zone, and schedules that enqueue jobs by them.
//!
//! An expression has five fields (minute, hour, day of month, month, day of week) or six, seconds first. A field
//! is `*` or a list of values, ranges and steps (`5`, `1-5`, `*/10`, `8-18/2`, `mon-fri`); `@hourly`, `@daily`,
//! `@midnight`, `@weekly`, `@monthly`, `@yearly` and `@annually` stand for the usual ones. When day of month and
//! day of week are both given, either will do, as in every cron; 0 and 7 are Sunday.
//!
//! Where a clock change skips a time, it fires once, right after the gap, however many of its times were skipped.
//! Where a clock change repeats a time, it fires the first time only.
#![forbid(unsafe_code)]

use super::{
    job::JobId,
    options::{Check, EnqueueOptions, TIME_MAX},
};
use crate::{
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
    name::Name,
};
use jiff::{
    civil::DateTime,
    tz::{AmbiguousOffset, TimeZone},
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The largest payload of a schedule's jobs: it is kept in memory.
pub const SCHEDULE_PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// The longest cron expression.
pub const CRON_BYTES_MAX: usize = 1 << 10;
/// The most that a schedule's times may be spread.
pub const JITTER_MAX: Duration = Duration::from_secs(86_400);

/// A job that is enqueued again and again.
///
/// ```
/// use flowmesh::queue::{Overlap, Schedule};
///
/// let schedule = Schedule {
///     cron: "30 6 * * mon-fri".to_owned(),
///     zone: "Europe/Berlin".to_owned(),
///     overlap: Overlap::Skip,
///     ..Schedule::new("report")
/// };
/// schedule.validate()?;
/// # Ok::<(), flowmesh::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// What it is called: a [`Name`], its own in its queue.
    pub name: String,
    /// When: see the head of the module. Default: `@daily`.
    pub cron: String,
    /// The IANA name of its time zone. Default: `UTC`.
    pub zone: String,
    /// What happens to times that were missed by more than a minute. Default: [`Misfire::RunOnce`].
    pub misfire: Misfire,
    /// What happens when its last job is not finished. Default: [`Overlap::Allow`].
    pub overlap: Overlap,
    /// Each job waits a little, up to so long, never the same: up to [`JITTER_MAX`]. Default: not at all.
    pub jitter: Duration,
    /// What its jobs want; neither `id`, `delay` nor `run_at`.
    pub options: EnqueueOptions,
    /// Their payload, up to [`SCHEDULE_PAYLOAD_BYTES_MAX`].
    pub payload: Vec<u8>,
}

/// What happens to times that were missed: the host was not open, or the machine slept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Misfire {
    /// They are let pass.
    Skip,
    /// One job stands for all of them.
    #[default]
    RunOnce,
    /// Each is made up for, the first 100.
    RunAll,
}

/// What happens when a schedule fires while its last job is not finished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Overlap {
    /// Another job is enqueued.
    #[default]
    Allow,
    /// This time is let pass.
    Skip,
    /// The last job is cancelled and another enqueued.
    Replace,
}

/// One time that a schedule's turn came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick {
    /// The time it was due.
    pub at: Timestamp,
    /// Whether it fires, or passes.
    pub fires: bool,
    /// The time after it.
    pub next: Timestamp,
}

impl Schedule {
    /// A schedule with this name and every default.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            cron: "@daily".to_owned(),
            zone: "UTC".to_owned(),
            misfire: Misfire::default(),
            overlap: Overlap::default(),
            jitter: Duration::ZERO,
            options: EnqueueOptions::default(),
            payload: Vec::new(),
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidArgument`]: names the field, its value and the rule; for the expression, the column too.
    /// - [`ErrorKind::TooLarge`]: the payload, or something of the options, is over its limit.
    pub fn validate(&self) -> Result<()> {
        let check = Check(OPERATION);
        Name::parse(&self.name)?;
        self.plan()?;
        if self.jitter > JITTER_MAX {
            let limit = format_args!("{JITTER_MAX:?}");
            return Err(check.refuse("jitter", format_args!("{:?}", self.jitter), limit));
        }
        self.options.validate()?;
        if self.options.id.is_some() || self.options.run_at.is_some() || !self.options.delay.is_zero() {
            return Err(check.refuse(
                "options",
                "id, delay or run_at",
                "none of them: the schedule says when",
            ));
        }
        check.bytes("payload_bytes", self.payload.len(), SCHEDULE_PAYLOAD_BYTES_MAX)
    }

    /// The times it stands for.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidArgument`]: the expression or the zone is not valid.
    pub fn plan(&self) -> Result<Plan> {
        Plan::parse(&self.cron, &self.zone)
    }

    /// The times from `next` on that are due at `now`.
    pub(super) fn ticks(&self, plan: &Plan, next: Timestamp, now: Timestamp) -> Vec<Tick> {
        let on_time = Timestamp(now.0.saturating_sub(MISFIRE_NS));
        let after = |at: Timestamp| plan.after(at).unwrap_or(Timestamp(u64::MAX));
        let (mut times, mut time) = (Vec::new(), next);
        if time < on_time {
            match self.misfire {
                Misfire::Skip => {}
                Misfire::RunOnce => times.push(time),
                Misfire::RunAll => {
                    while time < on_time && times.len() < RUN_ALL_MAX {
                        times.push(time);
                        time = after(time);
                    }
                }
            }
            // Years of missed minutes are stepped over, not walked.
            time = after(Timestamp(on_time.0.saturating_sub(1)));
        }
        while time <= now && times.len() < TICKS_MAX {
            times.push(time);
            time = after(time);
        }
        if times.is_empty() {
            return vec![Tick { at: next, fires: false, next: time }];
        }
        let nexts: Vec<Timestamp> = times[1..].iter().copied().chain([time]).collect();
        times.into_iter().zip(nexts).map(|(at, next)| Tick { at, fires: true, next }).collect()
    }

    /// The id of the job for `tick`: always the same, so one time makes one job.
    pub(super) fn job_id(&self, tick: Timestamp) -> JobId {
        let name = self.name.bytes().fold(JobId(0), |id, byte| JobId(u128::from(id.mix(u64::from(byte)))));
        let ms = u128::from(tick.0 / 1_000_000) & ((1 << 48) - 1);
        let (a, b) = (name.mix(tick.0) & 0xfff, name.mix(tick.0 ^ 1) >> 2);
        JobId(ms << 80 | 7 << 76 | u128::from(a) << 64 | 2 << 62 | u128::from(b))
    }

    /// What the job for `tick` wants.
    pub(super) fn options_for(&self, tick: Timestamp) -> EnqueueOptions {
        let id = self.job_id(tick);
        let jitter = u64::try_from(self.jitter.as_nanos()).unwrap_or(u64::MAX);
        let delay = Duration::from_nanos(id.mix(2).checked_rem(jitter).unwrap_or(0));
        EnqueueOptions { id: Some(id), delay, ..self.options.clone() }
    }
}

/// An expression in its zone, read.
#[derive(Clone, Debug)]
pub struct Plan {
    fields: Fields,
    zone: TimeZone,
}

impl Plan {
    /// Reads an expression and finds its zone.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidArgument`]: names the column (1 and up) and the rule, or the zone.
    pub fn parse(cron: &str, zone: &str) -> Result<Self> {
        let fields = Fields::parse(cron)?;
        let known = (!zone.is_empty() && zone.len() <= 255).then(|| TimeZone::get(zone).ok()).flatten();
        let zone = known.ok_or_else(|| {
            let shown: String = zone.chars().take(64).collect();
            Error::new(ErrorKind::InvalidArgument, OPERATION)
                .with("zone", format_args!("{shown:?}"))
                .with("rule", "a name of the IANA time zone database, such as Europe/Berlin")
        })?;
        Ok(Self { fields, zone })
    }

    /// The first time after `at`; none within a hundred years if there is none.
    pub fn after(&self, at: Timestamp) -> Option<Timestamp> {
        let start = jiff::Timestamp::from_nanosecond(i128::from(at.0)).ok()?;
        let mut civil = self.zone.to_datetime(start);
        let years = civil.year().saturating_add(YEARS_MAX);
        loop {
            civil = self.fields.after(civil, years)?;
            let time = self.time_of(civil)?;
            // Of a repeated time the first is meant, which may have been before.
            if time > start {
                return u64::try_from(time.as_nanosecond()).ok().map(Timestamp);
            }
        }
    }

    fn time_of(&self, civil: DateTime) -> Option<jiff::Timestamp> {
        let ambiguous = self.zone.to_ambiguous_timestamp(civil);
        match ambiguous.offset() {
            AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(civil).ok(),
            AmbiguousOffset::Fold { before, .. } => before.to_timestamp(civil).ok(),
            AmbiguousOffset::Gap { after, .. } => {
                // Read with the later offset it lies before the change that skipped it.
                let before = after.to_timestamp(civil).ok()?;
                self.zone.following(before).next().map(|change| change.timestamp())
            }
        }
    }
}

/// The values that each field allows, a bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fields {
    seconds: u64,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether either kind of day will do.
    either_day: bool,
}

/// What a field is called, its values, and their names.
struct Kind {
    name: &'static str,
    least: u8,
    most: u8,
    names: &'static [&'static str],
}

const SECOND: Kind = Kind { name: "second", least: 0, most: 59, names: &[] };
const MINUTE: Kind = Kind { name: "minute", least: 0, most: 59, names: &[] };
const HOUR: Kind = Kind { name: "hour", least: 0, most: 23, names: &[] };
const DAY: Kind = Kind { name: "day of month", least: 1, most: 31, names: &[] };
const MONTH: Kind = Kind {
    name: "month",
    least: 1,
    most: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const WEEKDAY: Kind = Kind {
    name: "day of week",
    least: 0,
    most: 7,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
};

impl Fields {
    fn parse(cron: &str) -> Result<Self> {
        if cron.len() > CRON_BYTES_MAX {
            return Err(Check(OPERATION).bytes("cron_bytes", cron.len(), CRON_BYTES_MAX).unwrap_err());
        }
        let text = Text { cron };
        let trimmed = cron.trim();
        if let Some(alias) = trimmed.strip_prefix('@') {
            let cron = match alias.to_ascii_lowercase().as_str() {
                "yearly" | "annually" => "0 0 1 1 *",
                "monthly" => "0 0 1 * *",
                "weekly" => "0 0 * * 0",
                "daily" | "midnight" => "0 0 * * *",
                "hourly" => "0 * * * *",
                _ => {
                    let rule = "@yearly, @annually, @monthly, @weekly, @daily, @midnight or @hourly";
                    return Err(text.error(trimmed, rule));
                }
            };
            return Self::parse(cron);
        }
        let words: Vec<&str> = cron.split_whitespace().collect();
        let (second, rest) = match words.len() {
            5 => (None, &words[..]),
            6 => (Some(words[0]), &words[1..]),
            0..5 => return Err(text.error(&cron[cron.len()..], "five fields, or six with seconds")),
            _ => return Err(text.error(words[6], "five fields, or six with seconds")),
        };
        let mut weekdays = text.field(rest[4], &WEEKDAY)?;
        // 7 is Sunday too.
        weekdays = (weekdays | weekdays >> 7) & 0x7f;
        let is_any = |word: &str| word.starts_with(['*', '?']);
        Ok(Self {
            seconds: second.map_or(Ok(1), |word| text.field(word, &SECOND))?,
            minutes: text.field(rest[0], &MINUTE)?,
            hours: text.field(rest[1], &HOUR)?,
            days: text.field(rest[2], &DAY)?,
            months: text.field(rest[3], &MONTH)?,
            weekdays,
            either_day: !is_any(rest[2]) && !is_any(rest[4]),
        })
    }

    /// The first time that matches after `civil`, before year `years`.
    fn after(&self, civil: DateTime, years: i16) -> Option<DateTime> {
        let civil = civil.with().subsec_nanosecond(0).build().ok()?;
        let mut at = civil.checked_add(jiff::Span::new().seconds(1)).ok()?;
        loop {
            if at.year() > years {
                return None;
            }
            let midnight = |at: DateTime| at.date().to_datetime(jiff::civil::Time::midnight());
            if !has(self.months, at.month()) {
                let first = at.with().day(1).build().ok()?;
                at = midnight(first.checked_add(jiff::Span::new().months(1)).ok()?);
                continue;
            }
            if !self.allows_day(at) {
                at = midnight(at.checked_add(jiff::Span::new().days(1)).ok()?);
                continue;
            }
            let (hour, minute, second) = (at.hour(), at.minute(), at.second());
            // The least allowed time of day that is not before: each field either stays or starts anew.
            let later = next(self.seconds, second)
                .filter(|_| has(self.hours, hour) && has(self.minutes, minute))
                .map(|second| (hour, minute, second))
                .or_else(|| {
                    let minute = next(self.minutes, minute + 1).filter(|_| has(self.hours, hour))?;
                    Some((hour, minute, next(self.seconds, 0)?))
                })
                .or_else(|| {
                    Some((next(self.hours, hour + 1)?, next(self.minutes, 0)?, next(self.seconds, 0)?))
                });
            match later {
                Some((hour, minute, second)) => return Some(at.date().at(hour, minute, second, 0)),
                None => at = midnight(at.checked_add(jiff::Span::new().days(1)).ok()?),
            }
        }
    }

    fn allows_day(&self, at: DateTime) -> bool {
        let day = has(self.days, at.day());
        let weekday = has(self.weekdays, at.weekday().to_sunday_zero_offset());
        if self.either_day { day || weekday } else { day && weekday }
    }
}

fn has(bits: u64, value: i8) -> bool {
    bits >> value & 1 == 1
}

/// The least value at or above `from`.
fn next(bits: u64, from: i8) -> Option<i8> {
    let left = bits >> from << from;
    (left != 0).then(|| left.trailing_zeros() as i8)
}

/// The expression, so that an error can say where.
struct Text<'a> {
    cron: &'a str,
}

impl Text<'_> {
    /// `part` is a piece of the expression.
    fn error(&self, part: &str, rule: impl std::fmt::Display) -> Error {
        let at = (part.as_ptr() as usize).saturating_sub(self.cron.as_ptr() as usize).min(self.cron.len());
        let column = self.cron.get(..at).map_or(0, |before| before.chars().count()) + 1;
        Error::new(ErrorKind::InvalidArgument, OPERATION)
            .with("cron", format_args!("{:?}", self.cron))
            .with("column", column)
            .with("rule", rule)
    }

    fn field(&self, word: &str, kind: &Kind) -> Result<u64> {
        let mut bits = 0;
        for item in word.split(',') {
            bits |= self.item(item, kind)?;
        }
        Ok(bits)
    }

    fn item(&self, item: &str, kind: &Kind) -> Result<u64> {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (item, None),
        };
        let (first, last) =
            if range == "*" || range == "?" && matches!(kind.name, "day of month" | "day of week") {
                (kind.least, if kind.name == WEEKDAY.name { 6 } else { kind.most })
            } else if let Some((first, last)) = range.split_once('-') {
                let (low, high) = (self.value(first, kind)?, self.value(last, kind)?);
                if low > high {
                    return Err(self.error(range, format_args!("{}: the range goes down", kind.name)));
                }
                (low, high)
            } else {
                let value = self.value(range, kind)?;
                (value, if step.is_some() { kind.most } else { value })
            };
        let step = match step {
            None => 1,
            Some(text) => {
                let step: Option<u8> =
                    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
                step.filter(|step| (1..=kind.most.max(1)).contains(step)).ok_or_else(|| {
                    self.error(text, format_args!("{}: a step is 1 to {}", kind.name, kind.most))
                })?
            }
        };
        Ok((first..=last).step_by(usize::from(step)).fold(0, |bits, value| bits | 1 << value))
    }

    fn value(&self, text: &str, kind: &Kind) -> Result<u8> {
        let named = kind.names.iter().position(|name| name.eq_ignore_ascii_case(text));
        if let Some(index) = named {
            return Ok(index as u8 + kind.least);
        }
        let number =
            text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u8>().ok()).flatten();
        number.filter(|number| (kind.least..=kind.most).contains(number)).ok_or_else(|| {
            let names = match kind.names {
                [] => String::new(),
                [first, .., last] => format!(", or {first} to {last}"),
                [one] => format!(", or {one}"),
            };
            self.error(text, format_args!("{}: {} to {}{names}", kind.name, kind.least, kind.most))
        })
    }
}

const OPERATION: &str = "queue.schedule";
/// A time that is later than this was missed.
const MISFIRE_NS: u64 = 60_000_000_000;
/// What [`Misfire::RunAll`] makes up for.
const RUN_ALL_MAX: usize = 100;
/// Times that are given at once.
const TICKS_MAX: usize = 200;
/// How far ahead a time is looked for.
const YEARS_MAX: i16 = 100;

const _: () = assert!(JITTER_MAX.as_secs() <= TIME_MAX.as_secs());

#[cfg(test)]
mod tests;
