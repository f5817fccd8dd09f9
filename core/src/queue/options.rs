//! What a queue, a job and a reservation may be told: plain data, each field with its default and its limits.
#![forbid(unsafe_code)]

use super::{job::JobId, request::few};
use crate::{
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
    ledger::Durability,
    name::Name,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, time::Duration};

/// The shortest lease.
pub const LEASE_MIN: Duration = Duration::from_secs(1);
/// The longest lease.
pub const LEASE_MAX: Duration = Duration::from_secs(12 * 3600);
/// The most attempts a job may have.
pub const ATTEMPTS_MAX: u16 = 1000;
/// The longest of any other time: delay, ttl, backoff, retention, window, deadline. Ten years.
pub const TIME_MAX: Duration = Duration::from_secs(10 * 365 * 86_400);
/// The most that [`QueueConfig::payload_bytes_max`] can be set to.
pub const PAYLOAD_BYTES_LIMIT: usize = 64 << 20;
/// Names and values of all headers of a job together.
pub const HEADER_BYTES_MAX: usize = 64 << 10;
/// Headers of a job.
pub const HEADER_COUNT_MAX: usize = 256;
/// A group key or unique key.
pub const KEY_BYTES_MAX: usize = 1 << 10;
/// A content type.
pub const CONTENT_TYPE_BYTES_MAX: usize = 255;
/// Jobs in one call of enqueue.
pub const ENQUEUE_COUNT_MAX: usize = 10_000;
/// Jobs in one call of reserve, ack and the like.
pub const RESERVE_COUNT_MAX: usize = 1000;
/// What a job's progress may take.
pub const PROGRESS_BYTES_MAX: usize = 4 << 10;
/// The largest weight of a group.
pub const WEIGHT_MAX: u32 = 1000;
/// Groups that may be given a weight.
pub const WEIGHT_COUNT_MAX: usize = 10_000;
/// The longest backoff list.
pub const BACKOFF_LIST_MAX: usize = 100;

/// How a queue treats its jobs. What a job says for itself in [`EnqueueOptions`] goes first.
///
/// ```
/// use flowmesh::queue::{Backoff, QueueConfig, Rate};
/// use std::time::Duration;
///
/// let config = QueueConfig {
///     max_attempts: 10,
///     backoff: Backoff::Fixed(Duration::from_secs(5)),
///     rate: Some(Rate { count: 100, per: Duration::from_secs(1), burst: 20 }),
///     ..QueueConfig::default()
/// };
/// config.validate()?;
/// # Ok::<(), flowmesh::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct QueueConfig {
    /// How long a worker has a job before it must extend: [`LEASE_MIN`] to [`LEASE_MAX`]. Default: 30 s.
    pub lease: Duration,
    /// How often a job is handed out before it is dead: 1 to [`ATTEMPTS_MAX`]. Default: 5.
    pub max_attempts: u16,
    /// How long after a failed attempt the next may begin. Default: exponential, 1 s doubling to 10 min, full jitter.
    pub backoff: Backoff,
    /// How long one attempt may take however often it is extended. Default: no limit.
    pub deadline: Option<Duration>,
    /// How long a job may wait before it expires. Default: for ever.
    pub ttl: Option<Duration>,
    /// Jobs that may wait; more are [`ErrorKind::Full`]. Default: no limit.
    pub max_length: Option<u64>,
    /// The largest payload or result, up to [`PAYLOAD_BYTES_LIMIT`]. Default: 8 MiB.
    pub payload_bytes_max: u32,
    /// Jobs that may be leased at once, at least 1. Default: no limit.
    pub concurrency: Option<u32>,
    /// How often jobs are handed out. Default: no limit.
    pub rate: Option<Rate>,
    /// What holds for each group of jobs.
    pub groups: GroupLimits,
    /// A waiting job gains one priority each time this passes, 1 ms to [`TIME_MAX`]. Default: never.
    pub aging: Option<Duration>,
    /// How long finished jobs are kept.
    pub retention: Retention,
    /// The queue that jobs out of attempts move to, in the same write. Default: they stay here as `dead`.
    #[serde(with = "name_text")]
    pub dead_letter_to: Option<Name>,
    /// How long a worker whose job is cancelled has to give it back before the lease is taken. Default: 30 s.
    pub cancel_grace: Duration,
    /// Whether an attempt that ends with its worker's process does not count. Default: it counts.
    pub uncounted_on_crash: bool,
    /// How safe a change is before its caller hears of it. Default: [`Durability::Fsync`].
    #[serde(with = "durability_number")]
    pub durability: Durability,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(30),
            max_attempts: 5,
            backoff: Backoff::default(),
            deadline: None,
            ttl: None,
            max_length: None,
            payload_bytes_max: 8 << 20,
            concurrency: None,
            rate: None,
            groups: GroupLimits::default(),
            aging: None,
            retention: Retention::default(),
            dead_letter_to: None,
            cancel_grace: Duration::from_secs(30),
            uncounted_on_crash: false,
            durability: Durability::Fsync,
        }
    }
}

impl QueueConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`], naming the field, its value and the limit.
    pub fn validate(&self) -> Result<()> {
        let check = Check("queue.declare");
        check.lease("lease", self.lease)?;
        check.attempts("max_attempts", self.max_attempts)?;
        self.backoff.validate(check)?;
        check.time("deadline", self.deadline)?;
        check.time("ttl", self.ttl)?;
        check.time("aging", self.aging)?;
        check.at_least_one("max_length", self.max_length)?;
        check.at_least_one("concurrency", self.concurrency.map(u64::from))?;
        check.at_least_one("groups.concurrency", self.groups.concurrency.map(u64::from))?;
        if self.payload_bytes_max == 0 || self.payload_bytes_max as usize > PAYLOAD_BYTES_LIMIT {
            let limit = format_args!("1 to {PAYLOAD_BYTES_LIMIT}");
            return Err(check.refuse("payload_bytes_max", self.payload_bytes_max, limit));
        }
        if let Some(rate) = self.rate {
            rate.validate("rate", check)?;
        }
        if let Some(rate) = self.groups.rate {
            rate.validate("groups.rate", check)?;
        }
        if self.groups.weights.len() > WEIGHT_COUNT_MAX {
            return Err(check.refuse("groups.weights", self.groups.weights.len(), WEIGHT_COUNT_MAX));
        }
        for (group, weight) in &self.groups.weights {
            check.key("groups.weights", group.as_bytes())?;
            if !(1..=WEIGHT_MAX).contains(weight) {
                let limit = format_args!("1 to {WEIGHT_MAX}");
                return Err(check.refuse("groups.weights", format_args!("{group}: {weight}"), limit));
            }
        }
        for (field, keep) in self.retention.each() {
            if keep.age > TIME_MAX {
                return Err(check.refuse(
                    field,
                    format_args!("{:?}", keep.age),
                    format_args!("{TIME_MAX:?}"),
                ));
            }
        }
        check.time("cancel_grace", Some(self.cancel_grace).filter(|grace| !grace.is_zero()))?;
        if let Durability::Interval(every) = self.durability {
            check.time("durability.interval", Some(every))?;
        }
        Ok(())
    }

    /// The first field in which `self` and `other` differ, with both values.
    pub fn difference(&self, other: &Self) -> Option<(&'static str, String, String)> {
        macro_rules! compare {
            ($($field:ident)*) => {{
                // Without `..`, so that a new field cannot be forgotten here.
                let Self { $($field),* } = self;
                $(if *$field != other.$field {
                    return Some((stringify!($field), format!("{:?}", $field), format!("{:?}", other.$field)));
                })*
            }};
        }
        compare!(lease max_attempts backoff deadline ttl max_length payload_bytes_max concurrency rate groups
            aging retention dead_letter_to cancel_grace uncounted_on_crash durability);
        None
    }
}

/// What holds for each group: the jobs that were enqueued with one group key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupLimits {
    /// Jobs of one group that may be leased at once. 1 is strict order: a job that waits for its next attempt
    /// holds up those behind it. Default: no limit.
    pub concurrency: Option<u32>,
    /// How often jobs of one group are handed out. Default: no limit.
    pub rate: Option<Rate>,
    /// Shares by group key, 1 to [`WEIGHT_MAX`]; a group not named has 1. Default: all are equal.
    pub weights: BTreeMap<String, u32>,
}

/// So many in each stretch of time, evenly, after so many at once: a token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// How many come back in each `per`, 1 to 1,000,000,000.
    pub count: u32,
    /// The stretch of time, 1 ms to 365 days.
    pub per: Duration,
    /// How many may go at once after a rest, 1 to 1,000,000,000.
    pub burst: u32,
}

impl Rate {
    /// How long one takes to come back, in nanoseconds, rounded up: the rate is never exceeded.
    pub(super) fn interval_ns(self) -> u64 {
        u64::try_from(self.per.as_nanos().div_ceil(u128::from(self.count.max(1)))).unwrap_or(u64::MAX).max(1)
    }

    fn validate(self, field: &'static str, check: Check) -> Result<()> {
        let (least, most) = (Duration::from_millis(1), Duration::from_secs(365 * 86_400));
        if !(1..=COUNT_MAX).contains(&self.count) || !(1..=COUNT_MAX).contains(&self.burst) {
            let value = format_args!("count {}, burst {}", self.count, self.burst);
            return Err(check.refuse(field, value, format_args!("1 to {COUNT_MAX}")));
        }
        if !(least..=most).contains(&self.per) {
            let value = format_args!("per {:?}", self.per);
            return Err(check.refuse(field, value, format_args!("{least:?} to {most:?}")));
        }
        Ok(())
    }
}

/// How long after a failed attempt the next may begin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Backoff {
    /// `initial`, times `factor` after each further failure, at most `max`.
    Exponential {
        /// After the first failure.
        initial: Duration,
        /// 1 to 1000.
        factor: f64,
        /// The longest.
        max: Duration,
        /// Whether the wait is chosen anew, between nothing and the above: what failed together does not come
        /// back together.
        jitter: bool,
    },
    /// Always this long.
    Fixed(Duration),
    /// One after the other, the last again and again: 1 to [`BACKOFF_LIST_MAX`] of them.
    List(#[serde(deserialize_with = "few::<_, _, BACKOFF_LIST_MAX>")] Vec<Duration>),
}

impl Default for Backoff {
    fn default() -> Self {
        Self::Exponential {
            initial: Duration::from_secs(1),
            factor: 2.0,
            max: Duration::from_secs(600),
            jitter: true,
        }
    }
}

impl Backoff {
    /// The wait after attempt `attempt` (1 and up) of `job` has failed. The same for the same job and attempt.
    pub fn after(&self, job: JobId, attempt: u16) -> Duration {
        let failures = usize::from(attempt.max(1)) - 1;
        match self {
            Self::Fixed(wait) => *wait,
            Self::List(waits) => waits.get(failures).or(waits.last()).copied().unwrap_or_default(),
            Self::Exponential { initial, factor, max, jitter } => {
                let grown = initial.as_secs_f64() * factor.powi(failures as i32);
                let wait = Duration::try_from_secs_f64(grown).unwrap_or(*max).min(*max);
                if !jitter {
                    return wait;
                }
                // 53 bits: as many as fit the fraction exactly.
                let share = (job.mix(u64::from(attempt)) >> 11) as f64 / (1u64 << 53) as f64;
                wait.mul_f64(share)
            }
        }
    }

    fn validate(&self, check: Check) -> Result<()> {
        let time = |wait: &Duration| {
            if *wait > TIME_MAX {
                return Err(check.refuse("backoff", format_args!("{wait:?}"), format_args!("{TIME_MAX:?}")));
            }
            Ok(())
        };
        match self {
            Self::Fixed(wait) => time(wait),
            Self::List(waits) if waits.is_empty() || waits.len() > BACKOFF_LIST_MAX => {
                let (found, limit) = (waits.len(), format_args!("1 to {BACKOFF_LIST_MAX} waits"));
                Err(check.refuse("backoff", found, limit))
            }
            Self::List(waits) => waits.iter().try_for_each(time),
            Self::Exponential { initial, factor, max, .. } => {
                if !(1.0..=1000.0).contains(factor) {
                    return Err(check.refuse("backoff.factor", factor, "1 to 1000"));
                }
                time(max)?;
                if max < initial {
                    let limit = format_args!("at least backoff.initial, {initial:?}");
                    return Err(check.refuse("backoff.max", format_args!("{max:?}"), limit));
                }
                Ok(())
            }
        }
    }
}

/// How long and how many finished jobs are kept to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Retention {
    /// Done. One with a result is kept for its `result_ttl` instead, within the count. Default: none, 1000.
    pub done: Keep,
    /// Dead. Default: 7 days, 100,000.
    pub dead: Keep,
    /// Cancelled. Default: 1 hour, 1000.
    pub cancelled: Keep,
    /// Expired. Default: 1 hour, 1000.
    pub expired: Keep,
}

impl Default for Retention {
    fn default() -> Self {
        let hour = Keep { age: Duration::from_secs(3600), count: 1000 };
        Self {
            done: Keep { age: Duration::ZERO, count: 1000 },
            dead: Keep { age: Duration::from_secs(7 * 86_400), count: 100_000 },
            cancelled: hour,
            expired: hour,
        }
    }
}

impl Retention {
    fn each(&self) -> [(&'static str, Keep); 4] {
        let Self { done, dead, cancelled, expired } = *self;
        [
            ("retention.done", done),
            ("retention.dead", dead),
            ("retention.cancelled", cancelled),
            ("retention.expired", expired),
        ]
    }
}

/// How long, and at most how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    /// How long; zero for not at all.
    pub age: Duration,
    /// The oldest go when there are more.
    pub count: u32,
}

/// How a result is kept unless its job says otherwise.
pub const RESULT_TTL_DEFAULT: Duration = Duration::from_secs(3600);

/// What one job wants. The default is a plain job for now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EnqueueOptions {
    /// Its id. A job there is already with this id is not enqueued again. Default: a new one, ordered by time.
    #[serde(skip)]
    pub id: Option<JobId>,
    /// 0 to 255; higher goes first. Default: 0.
    pub priority: u8,
    /// How long it waits first, up to [`TIME_MAX`]. Default: not at all.
    pub delay: Duration,
    /// Until when it waits, on the wall clock; what has passed is now. Default: not at all. Not both with `delay`.
    #[serde(skip)]
    pub run_at: Option<Timestamp>,
    /// How long it may wait before it expires. Default: the queue's.
    pub ttl: Option<Duration>,
    /// What other jobs it must not meet. Default: none.
    pub unique: Option<Unique>,
    /// Its group: 1 to [`KEY_BYTES_MAX`] bytes. Default: none.
    pub group: Option<String>,
    /// Names and values: at most [`HEADER_COUNT_MAX`], [`HEADER_BYTES_MAX`] in all. Default: none.
    #[serde(deserialize_with = "few::<_, _, HEADER_COUNT_MAX>")]
    pub headers: Vec<(String, String)>,
    /// How the payload is encoded, up to [`CONTENT_TYPE_BYTES_MAX`]. Default: not said.
    pub content_type: Option<String>,
    /// Default: the queue's.
    pub max_attempts: Option<u16>,
    /// Default: the queue's.
    pub backoff: Option<Backoff>,
    /// Default: the queue's.
    pub lease: Option<Duration>,
    /// How long one attempt may take however often it is extended. Default: the queue's.
    pub deadline: Option<Duration>,
    /// How long its result is kept. Default: [`RESULT_TTL_DEFAULT`] when there is a result.
    pub result_ttl: Option<Duration>,
}

impl Default for EnqueueOptions {
    fn default() -> Self {
        Self::PLAIN
    }
}

impl EnqueueOptions {
    /// A plain job for now.
    pub(super) const PLAIN: Self = Self {
        id: None,
        priority: 0,
        delay: Duration::ZERO,
        run_at: None,
        ttl: None,
        unique: None,
        group: None,
        headers: Vec::new(),
        content_type: None,
        max_attempts: None,
        backoff: None,
        lease: None,
        deadline: None,
        result_ttl: None,
    };

    /// Checks every field; the payload meets the queue's own limit.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidArgument`]: names the field, its value and the limit.
    /// - [`ErrorKind::TooLarge`]: a key, the content type or the headers are over their limit.
    pub fn validate(&self) -> Result<()> {
        let check = Check("queue.enqueue");
        if self.delay > TIME_MAX {
            return Err(check.refuse(
                "delay",
                format_args!("{:?}", self.delay),
                format_args!("{TIME_MAX:?}"),
            ));
        }
        if let Some(run_at) = self.run_at
            && !self.delay.is_zero()
        {
            let value = format_args!("{} with delay {:?}", run_at.0, self.delay);
            return Err(check.refuse("run_at", value, "one of the two"));
        }
        check.time("ttl", self.ttl)?;
        check.time("deadline", self.deadline)?;
        check.time("result_ttl", self.result_ttl)?;
        if let Some(attempts) = self.max_attempts {
            check.attempts("max_attempts", attempts)?;
        }
        if let Some(lease) = self.lease {
            check.lease("lease", lease)?;
        }
        if let Some(backoff) = &self.backoff {
            backoff.validate(check)?;
        }
        if let Some(group) = &self.group {
            check.key("group", group.as_bytes())?;
        }
        if let Some(unique) = &self.unique {
            check.key("unique.key", unique.key.as_bytes())?;
            if let Scope::Window(window) = unique.scope {
                check.time("unique.window", Some(window))?;
            }
        }
        if let Some(content_type) = &self.content_type {
            check.bytes("content_type", content_type.len(), CONTENT_TYPE_BYTES_MAX)?;
        }
        if !self.headers.is_empty() {
            check.bytes("header_count", self.headers.len(), HEADER_COUNT_MAX)?;
            let bytes = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
            check.bytes("header_bytes", bytes, HEADER_BYTES_MAX)?;
            if self.headers.iter().any(|(name, _)| name.is_empty()) {
                return Err(check.refuse("header", "\"\"", "a name has at least one byte"));
            }
        }
        Ok(())
    }
}

/// A key that at most one job of a queue has at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unique {
    /// 1 to [`KEY_BYTES_MAX`] bytes.
    pub key: String,
    /// How long the job has it.
    pub scope: Scope,
    /// What happens when another job has it.
    pub conflict: OnConflict,
}

/// How long a job has its unique key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// Until it is first handed to a worker.
    Waiting,
    /// Until it is done, dead, cancelled or expired.
    Active,
    /// As `Active`, and so much longer.
    Window(Duration),
}

/// What happens to a new job whose unique key another job has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnConflict {
    /// The new one is not enqueued; the caller gets the other's id.
    #[default]
    ReturnExisting,
    /// The other is cancelled if it still waits, and the new one enqueued; one being worked on stays, as above.
    Replace,
    /// The other, if it still waits, waits anew for as long as the new one would; the new one is not enqueued. If that
    /// has no delay the other stays as it is.
    Extend,
    /// As `Replace`; while the other is being worked on, the newest waits until it is finished.
    KeepLast,
}

/// What a worker asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReserveOptions {
    /// How long it has each job before it must extend. Default: the job's, or the queue's.
    pub lease: Option<Duration>,
}

impl ReserveOptions {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`], naming the field, its value and the limit.
    pub fn validate(&self) -> Result<()> {
        self.lease.map_or(Ok(()), |lease| Check("queue.reserve").lease("lease", lease))
    }
}

/// The checks that several calls share, each in the name of one.
#[derive(Clone, Copy)]
pub(super) struct Check(pub(super) &'static str);

impl Check {
    pub(super) fn refuse(
        self,
        field: &'static str,
        value: impl fmt::Display,
        limit: impl fmt::Display,
    ) -> Error {
        Error::new(ErrorKind::InvalidArgument, self.0).with(field, value).with("limit", limit)
    }

    pub(super) fn lease(self, field: &'static str, lease: Duration) -> Result<()> {
        if !(LEASE_MIN..=LEASE_MAX).contains(&lease) {
            let limit = format_args!("{LEASE_MIN:?} to {LEASE_MAX:?}");
            return Err(self.refuse(field, format_args!("{lease:?}"), limit));
        }
        Ok(())
    }

    pub(super) fn attempts(self, field: &'static str, attempts: u16) -> Result<()> {
        if !(1..=ATTEMPTS_MAX).contains(&attempts) {
            return Err(self.refuse(field, attempts, format_args!("1 to {ATTEMPTS_MAX}")));
        }
        Ok(())
    }

    /// A time that, if given, is at least 1 ms and at most [`TIME_MAX`].
    pub(super) fn time(self, field: &'static str, time: Option<Duration>) -> Result<()> {
        let least = Duration::from_millis(1);
        match time {
            Some(time) if !(least..=TIME_MAX).contains(&time) => {
                let limit = format_args!("{least:?} to {TIME_MAX:?}");
                Err(self.refuse(field, format_args!("{time:?}"), limit))
            }
            _ => Ok(()),
        }
    }

    fn at_least_one(self, field: &'static str, count: Option<u64>) -> Result<()> {
        if count == Some(0) {
            return Err(self.refuse(field, 0, "at least 1"));
        }
        Ok(())
    }

    /// Jobs to be reserved at once. Who asked for none would wait for ever, and take the wake-ups of others.
    pub(super) fn count(self, jobs: usize) -> Result<()> {
        if jobs == 0 {
            return Err(self.refuse("job_count", 0, format_args!("1 to {RESERVE_COUNT_MAX}")));
        }
        self.bytes("job_count", jobs, RESERVE_COUNT_MAX)
    }

    pub(super) fn bytes(self, field: &'static str, bytes: usize, limit: usize) -> Result<()> {
        if bytes > limit {
            return Err(Error::new(ErrorKind::TooLarge, self.0).with(field, bytes).with("limit", limit));
        }
        Ok(())
    }

    pub(super) fn key(self, field: &'static str, key: &[u8]) -> Result<()> {
        if key.is_empty() {
            return Err(self.refuse(field, "\"\"", format_args!("1 to {KEY_BYTES_MAX} bytes")));
        }
        self.bytes(field, key.len(), KEY_BYTES_MAX)
    }
}

const COUNT_MAX: u32 = 1_000_000_000;

/// A name as its text.
mod name_text {
    use crate::name::Name;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(name: &Option<Name>, to: S) -> Result<S::Ok, S::Error> {
        name.as_ref().map(Name::as_str).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Name>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| Name::parse(&text).map_err(D::Error::custom)).transpose()
    }
}

/// A durability as two numbers: which, and how many nanoseconds.
pub(super) mod durability_number {
    use crate::ledger::Durability;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
    use std::time::Duration;

    pub(in super::super) fn serialize<S: Serializer>(
        durability: &Durability,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let pair: (u8, u64) = match *durability {
            Durability::Memory => (0, 0),
            Durability::Os => (1, 0),
            Durability::Interval(every) => (2, u64::try_from(every.as_nanos()).unwrap_or(u64::MAX)),
            Durability::Fsync => (3, 0),
        };
        pair.serialize(to)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Durability, D::Error> {
        match <(u8, u64)>::deserialize(from)? {
            (0, _) => Ok(Durability::Memory),
            (1, _) => Ok(Durability::Os),
            (2, ns) => Ok(Durability::Interval(Duration::from_nanos(ns))),
            (3, _) => Ok(Durability::Fsync),
            (other, _) => Err(D::Error::custom(format_args!("durability {other} is not known"))),
        }
    }
}

#[cfg(test)]
mod tests;
