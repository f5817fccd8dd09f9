//! How queues and jobs are set up: the core's settings as structs of C, in both directions.

use super::worker::flowmesh_worker_options;
use crate::{
    error::c_string,
    flowmesh_header, flowmesh_status,
    guard::{Call, guard},
    options::{SizedStruct, sized},
};
use flowmesh::{
    Durability, Name, Result, Timestamp,
    queue::{
        Backoff, EnqueueOptions, GroupLimits, JobId, Keep, OnConflict, QueueConfig, Rate, Retention, Scope,
        Unique,
    },
};
use std::{
    ffi::{CString, c_char},
    ptr,
    time::Duration,
};

/// How safe a change is when the function that made it returns: the fields named `durability`, and what was reached.
/// Higher is safer.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum flowmesh_durability {
    /// As the queue is set up. Only asked for, never reached.
    FLOWMESH_DURABILITY_DEFAULT = 0,
    /// In the host's memory alone. Only reached, never asked for.
    FLOWMESH_DURABILITY_MEMORY = 1,
    /// Handed to the kernel: it survives the death of any process.
    FLOWMESH_DURABILITY_OS = 2,
    /// As `OS`, and flushed to the disk at most `durability_interval_ms` later.
    FLOWMESH_DURABILITY_INTERVAL = 3,
    /// Flushed to the disk: it survives a power cut. What queues do unless they are set up otherwise.
    FLOWMESH_DURABILITY_FSYNC = 4,
}

/// How long a job waits after a failed attempt: the field `kind` of `flowmesh_backoff`.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum flowmesh_backoff_kind {
    /// As the queue says; of a queue, `EXPONENTIAL`.
    FLOWMESH_BACKOFF_DEFAULT = 0,
    /// `initial_ms`, times `factor` after each further failure, at most `max_ms`.
    FLOWMESH_BACKOFF_EXPONENTIAL = 1,
    /// Always `initial_ms`.
    FLOWMESH_BACKOFF_FIXED = 2,
    /// One of `list_ms` after the other, the last again and again.
    FLOWMESH_BACKOFF_LIST = 3,
}

/// How long a job has its unique key: the field `unique_scope` of `flowmesh_enqueue_options`.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum flowmesh_unique_scope {
    /// Until it is done, dead, cancelled or expired. The default.
    FLOWMESH_UNIQUE_ACTIVE = 0,
    /// Until it is first handed to a worker.
    FLOWMESH_UNIQUE_WAITING = 1,
    /// As `ACTIVE`, and `unique_window_ms` longer.
    FLOWMESH_UNIQUE_WINDOW = 2,
}

/// What happens to a job whose unique key another job has: the field `unique_conflict` of
/// `flowmesh_enqueue_options`.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum flowmesh_unique_conflict {
    /// It is not enqueued; the receipt names the other. The default.
    FLOWMESH_CONFLICT_RETURN_EXISTING = 0,
    /// The other is cancelled if it still waits, and this one enqueued; one being worked on stays, as above.
    FLOWMESH_CONFLICT_REPLACE = 1,
    /// The other, if it still waits, waits anew for as long as this one would, which is not enqueued. Without `delay_ms`
    /// or `run_at_ms` the other stays as it is.
    FLOWMESH_CONFLICT_EXTEND = 2,
    /// As `REPLACE`; while the other is being worked on, the newest waits until it is finished.
    FLOWMESH_CONFLICT_KEEP_LAST = 3,
}

/// How long a job waits after a failed attempt. The `_INIT` macros of the structs it is in fill it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct flowmesh_backoff {
    /// One of `enum flowmesh_backoff_kind`.
    pub kind: i32,
    /// `EXPONENTIAL`: 1 to choose each wait anew between nothing and the full one, so that what failed together does
    /// not come back together; 0 not to. 1 in `INIT`.
    pub jitter: i32,
    /// `EXPONENTIAL`: the wait after the first failure; `FIXED`: every wait. 1000 in `INIT`.
    pub initial_ms: i64,
    /// `EXPONENTIAL`: the longest wait. 600000 in `INIT`.
    pub max_ms: i64,
    /// `EXPONENTIAL`: what each further failure multiplies the wait by, 1 to 1000. 2 in `INIT`.
    pub factor: f64,
    /// `LIST`: the waits, `list_count` of them.
    pub list_ms: *const i64,
    /// `LIST`: 1 to 100.
    pub list_count: usize,
}

/// So many in each stretch of time, evenly, after so many at once.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct flowmesh_rate {
    /// How many in each `per_ms`, 1 to 1000000000.
    pub count: u32,
    /// How many may go at once after a rest, 1 to 1000000000.
    pub burst: u32,
    /// The stretch of time, 1 to 31536000000 (365 days).
    pub per_ms: i64,
}

/// How long finished jobs are kept to be looked at, and how many.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct flowmesh_keep {
    /// How long; 0: not at all.
    pub age_ms: i64,
    /// At most so many: the oldest go when there are more.
    pub count: u32,
    /// 0.
    pub reserved: u32,
}

/// The share of a group of jobs.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct flowmesh_group_weight {
    /// Its key.
    pub group: *const c_char,
    /// Its share, 1 to 1000; groups that are not named have 1.
    pub weight: u32,
    /// 0.
    pub reserved: u32,
}

/// How a queue treats its jobs; what a job says for itself goes first. Begin with `FLOWMESH_QUEUE_CONFIG_INIT`, in
/// which -1 and NULL stand for what is not limited. Where no other limit is named, times are at most ten years.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct flowmesh_queue_config {
    /// `sizeof` of this struct.
    pub struct_size: usize,
    /// How long a worker has a job before it must extend, 1000 to 43200000 (12 hours). 30000 in `INIT`.
    pub lease_ms: i64,
    /// How long one attempt may take however often it is extended. -1 in `INIT`.
    pub deadline_ms: i64,
    /// How long a job may wait before it expires. -1 in `INIT`: for ever.
    pub ttl_ms: i64,
    /// A waiting job gains one priority each time this passes. -1 in `INIT`: never.
    pub aging_ms: i64,
    /// How long a worker whose job is cancelled has to give it back before it is taken. 30000 in `INIT`.
    pub cancel_grace_ms: i64,
    /// Jobs that may wait, at least 1; more are `FLOWMESH_ERR_FULL`. -1 in `INIT`.
    pub max_length: i64,
    /// How often a job is handed out before it is dead, 1 to 1000. 5 in `INIT`.
    pub max_attempts: u32,
    /// The largest payload or result, 1 to 67108864 (64 MiB). 8388608 (8 MiB) in `INIT`.
    pub payload_bytes_max: u32,
    /// Jobs that may be leased at once, at least 1. -1 in `INIT`.
    pub concurrency: i32,
    /// Jobs of one group that may be leased at once, at least 1, which is strict order within a group. -1 in `INIT`.
    pub group_concurrency: i32,
    /// How long a job waits after a failed attempt.
    pub backoff: flowmesh_backoff,
    /// How often jobs are handed out; NULL: no limit.
    pub rate: *const flowmesh_rate,
    /// How often jobs of one group are handed out; NULL: no limit.
    pub group_rate: *const flowmesh_rate,
    /// Shares of groups, `group_weight_count` of them; NULL: all are equal.
    pub group_weights: *const flowmesh_group_weight,
    /// At most 10000.
    pub group_weight_count: usize,
    /// Done jobs; one with a result is kept for its `result_ttl_ms` instead. Not at all in `INIT`.
    pub keep_done: flowmesh_keep,
    /// Dead jobs. 7 days and 100000 in `INIT`.
    pub keep_dead: flowmesh_keep,
    /// Cancelled jobs. 1 hour and 1000 in `INIT`.
    pub keep_cancelled: flowmesh_keep,
    /// Expired jobs. 1 hour and 1000 in `INIT`.
    pub keep_expired: flowmesh_keep,
    /// The queue that jobs out of attempts move to; NULL: they stay here as dead.
    pub dead_letter_to: *const c_char,
    /// How safe a change is before its caller hears of it, one of `enum flowmesh_durability`.
    /// `FLOWMESH_DURABILITY_FSYNC` in `INIT`.
    pub durability: i32,
    /// 1: an attempt that ends with its worker's process does not count; 0: it counts.
    pub uncounted_on_crash: i32,
    /// With `FLOWMESH_DURABILITY_INTERVAL`: how much later the disk has it, at most.
    pub durability_interval_ms: i64,
}

/// What one job wants. Begin with `FLOWMESH_ENQUEUE_OPTIONS_INIT`, in which -1 and NULL stand for what the queue says, or
/// for none.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct flowmesh_enqueue_options {
    /// `sizeof` of this struct.
    pub struct_size: usize,
    /// Its id: a UUID, or 32 hexadecimal digits. A job that is there already with this id is not enqueued again. NULL:
    /// a new one, ordered by time.
    pub id: *const c_char,
    /// Headers, `header_count` of them; at most 256, 64 KiB in all.
    pub headers: *const flowmesh_header,
    /// How many headers there are.
    pub header_count: usize,
    /// How the payload is encoded, at most 255 bytes; NULL: not said.
    pub content_type: *const c_char,
    /// Its group, at most 1 KiB.
    pub group: *const c_char,
    /// A key that at most one job of the queue has at a time, at most 1 KiB.
    pub unique_key: *const c_char,
    /// With `FLOWMESH_UNIQUE_WINDOW`: how much longer.
    pub unique_window_ms: i64,
    /// How long it waits first, at most ten years. 0 in `INIT`.
    pub delay_ms: i64,
    /// Until when it waits, in milliseconds since 1970-01-01 UTC; what has passed is now. Not both with `delay_ms`.
    /// -1 in `INIT`.
    pub run_at_ms: i64,
    /// How long it may wait before it expires. -1 in `INIT`.
    pub ttl_ms: i64,
    /// How long a worker has it before it must extend, 1000 to 43200000 (12 hours). -1 in `INIT`.
    pub lease_ms: i64,
    /// How long one attempt may take however often it is extended. -1 in `INIT`.
    pub deadline_ms: i64,
    /// How long its result is kept. -1 in `INIT`: an hour.
    pub result_ttl_ms: i64,
    /// How long it waits after a failed attempt.
    pub backoff: flowmesh_backoff,
    /// One of `enum flowmesh_unique_scope`.
    pub unique_scope: i32,
    /// One of `enum flowmesh_unique_conflict`.
    pub unique_conflict: i32,
    /// 0 to 255, higher goes first.
    pub priority: i32,
    /// How often it is handed out before it is dead, 1 to 1000. -1 in `INIT`.
    pub max_attempts: i32,
    /// How safe it is when enqueueing returns, one of `enum flowmesh_durability`.
    pub durability: i32,
    /// 0.
    pub reserved: i32,
    /// With `FLOWMESH_DURABILITY_INTERVAL`: how much later the disk has it, at most.
    pub durability_interval_ms: i64,
}

/// § Settings of queues without macros
///
/// Sets `config` to what `FLOWMESH_QUEUE_CONFIG_INIT` says, for languages that have no C macros. `size` is the size of the
/// struct as the caller knows it.
///
/// # Errors
/// `INVALID_ARGUMENT`: `size` is not that of any version of the struct.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_queue_config_init(
    config: *mut flowmesh_queue_config,
    size: usize,
) -> flowmesh_status {
    // SAFETY: the manual asks for a struct of `size` bytes.
    guard("flowmesh_queue_config_init", |call| unsafe { call.init(config, size) })
}

/// The same as `FLOWMESH_ENQUEUE_OPTIONS_INIT`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_enqueue_options_init(
    options: *mut flowmesh_enqueue_options,
    size: usize,
) -> flowmesh_status {
    // SAFETY: the manual asks for a struct of `size` bytes.
    guard("flowmesh_enqueue_options_init", |call| unsafe { call.init(options, size) })
}

/// The same as `FLOWMESH_WORKER_OPTIONS_INIT`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_worker_options_init(
    options: *mut flowmesh_worker_options,
    size: usize,
) -> flowmesh_status {
    // SAFETY: the manual asks for a struct of `size` bytes.
    guard("flowmesh_worker_options_init", |call| unsafe { call.init(options, size) })
}

const BACKOFF: flowmesh_backoff = flowmesh_backoff {
    kind: flowmesh_backoff_kind::FLOWMESH_BACKOFF_DEFAULT as i32,
    jitter: 1,
    initial_ms: 1000,
    max_ms: 600_000,
    factor: 2.0,
    list_ms: ptr::null(),
    list_count: 0,
};

const fn keep(age_ms: i64, count: u32) -> flowmesh_keep {
    flowmesh_keep { age_ms, count, reserved: 0 }
}

sized! {
    flowmesh_queue_config = {
        lease_ms: 30_000,
        deadline_ms: -1,
        ttl_ms: -1,
        aging_ms: -1,
        max_length: -1,
        concurrency: -1,
        group_concurrency: -1,
        cancel_grace_ms: 30_000,
        max_attempts: 5,
        payload_bytes_max: 8 << 20,
        backoff: BACKOFF,
        keep_done: keep(0, 1000),
        keep_dead: keep(7 * 86_400_000, 100_000),
        keep_cancelled: keep(3_600_000, 1000),
        keep_expired: keep(3_600_000, 1000),
        durability: flowmesh_durability::FLOWMESH_DURABILITY_FSYNC as i32,
    };
    flowmesh_enqueue_options = {
        run_at_ms: -1,
        ttl_ms: -1,
        lease_ms: -1,
        deadline_ms: -1,
        result_ttl_ms: -1,
        backoff: BACKOFF,
        max_attempts: -1,
    };
}

impl flowmesh_queue_config {
    /// # Safety
    /// Its pointers are NULL, C strings, or as many values as it says.
    pub(crate) unsafe fn read(&self, call: Call) -> Result<QueueConfig> {
        // SAFETY: the caller's duty, passed on.
        let (backoff, rate, group_rate, weights, dead_letter_to) = unsafe {
            (
                self.backoff.read(call)?.unwrap_or_default(),
                call.rate(self.rate, "rate")?,
                call.rate(self.group_rate, "group_rate")?,
                call.slice(self.group_weights, self.group_weight_count, "group_weights")?,
                call.optional_text(self.dead_letter_to, "dead_letter_to")?,
            )
        };
        let weights = weights.iter().map(|weight| {
            // SAFETY: the caller's duty, passed on.
            let group = unsafe { call.text(weight.group, "group_weights.group") }?;
            Ok((group.to_owned(), weight.weight))
        });
        Ok(QueueConfig {
            lease: call.milliseconds(self.lease_ms, "lease_ms")?,
            max_attempts: call.attempts(self.max_attempts.into())?,
            backoff,
            deadline: call.given_time(self.deadline_ms, "deadline_ms")?,
            ttl: call.given_time(self.ttl_ms, "ttl_ms")?,
            max_length: call.given(self.max_length, "max_length")?,
            payload_bytes_max: self.payload_bytes_max,
            concurrency: call.given(self.concurrency, "concurrency")?,
            rate,
            groups: GroupLimits {
                concurrency: call.given(self.group_concurrency, "group_concurrency")?,
                rate: group_rate,
                weights: weights.collect::<Result<_>>()?,
            },
            aging: call.given_time(self.aging_ms, "aging_ms")?,
            retention: Retention {
                done: self.keep_done.read(call, "keep_done.age_ms")?,
                dead: self.keep_dead.read(call, "keep_dead.age_ms")?,
                cancelled: self.keep_cancelled.read(call, "keep_cancelled.age_ms")?,
                expired: self.keep_expired.read(call, "keep_expired.age_ms")?,
            },
            dead_letter_to: dead_letter_to.map(Name::parse).transpose()?,
            cancel_grace: call.milliseconds(self.cancel_grace_ms, "cancel_grace_ms")?,
            uncounted_on_crash: call.truth(self.uncounted_on_crash, "uncounted_on_crash")?,
            durability: call
                .durability(self.durability, self.durability_interval_ms)?
                .unwrap_or(Durability::Fsync),
        })
    }
}

impl flowmesh_enqueue_options {
    /// # Safety
    /// Its pointers are NULL, C strings, or as many values as it says.
    pub(crate) unsafe fn read(&self, call: Call) -> Result<EnqueueOptions> {
        // SAFETY: the caller's duty, passed on.
        let (id, content_type, group, unique_key, headers, backoff) = unsafe {
            (
                call.optional_text(self.id, "id")?,
                call.optional_text(self.content_type, "content_type")?,
                call.optional_text(self.group, "group")?,
                call.optional_text(self.unique_key, "unique_key")?,
                call.headers(self.headers, self.header_count)?,
                self.backoff.read(call)?,
            )
        };
        let priority =
            u8::try_from(self.priority).map_err(|_| call.limited("priority", self.priority, "0 to 255"))?;
        let max_attempts = call.given::<i64, i64>(self.max_attempts.into(), "max_attempts")?;
        let max_attempts = max_attempts.map(|given| call.attempts(given)).transpose()?;
        Ok(EnqueueOptions {
            id: id.map(JobId::parse).transpose()?,
            priority,
            delay: call.milliseconds(self.delay_ms, "delay_ms")?,
            run_at: call.given_time(self.run_at_ms, "run_at_ms")?.map(timestamp),
            ttl: call.given_time(self.ttl_ms, "ttl_ms")?,
            unique: self.unique(call, unique_key)?,
            group: group.map(str::to_owned),
            headers,
            content_type: content_type.map(str::to_owned),
            max_attempts,
            backoff,
            lease: call.given_time(self.lease_ms, "lease_ms")?,
            deadline: call.given_time(self.deadline_ms, "deadline_ms")?,
            result_ttl: call.given_time(self.result_ttl_ms, "result_ttl_ms")?,
        })
    }

    fn unique(&self, call: Call, key: Option<&str>) -> Result<Option<Unique>> {
        let scope = match self.unique_scope {
            0 => Scope::Active,
            1 => Scope::Waiting,
            2 => Scope::Window(call.milliseconds(self.unique_window_ms, "unique_window_ms")?),
            other => {
                return Err(call.invalid("unique_scope", other, "it is not of enum flowmesh_unique_scope"));
            }
        };
        let conflict = match self.unique_conflict {
            0 => OnConflict::ReturnExisting,
            1 => OnConflict::Replace,
            2 => OnConflict::Extend,
            3 => OnConflict::KeepLast,
            other => {
                let rule = "it is not of enum flowmesh_unique_conflict";
                return Err(call.invalid("unique_conflict", other, rule));
            }
        };
        if key.is_none() && (self.unique_scope, self.unique_conflict) != (0, 0) {
            return Err(call.invalid("unique_key", "NULL", "unique_scope and unique_conflict need it"));
        }
        Ok(key.map(|key| Unique { key: key.to_owned(), scope, conflict }))
    }
}

impl flowmesh_backoff {
    /// `None` for the default.
    ///
    /// # Safety
    /// Its list is NULL or as long as it says.
    unsafe fn read(&self, call: Call) -> Result<Option<Backoff>> {
        Ok(Some(match self.kind {
            0 => return Ok(None),
            1 => Backoff::Exponential {
                initial: call.milliseconds(self.initial_ms, "backoff.initial_ms")?,
                factor: self.factor,
                max: call.milliseconds(self.max_ms, "backoff.max_ms")?,
                jitter: call.truth(self.jitter, "backoff.jitter")?,
            },
            2 => Backoff::Fixed(call.milliseconds(self.initial_ms, "backoff.initial_ms")?),
            3 => {
                // SAFETY: the caller's duty, passed on.
                let list = unsafe { call.slice(self.list_ms, self.list_count, "backoff.list_ms") }?;
                let waits = list.iter().map(|wait| call.milliseconds(*wait, "backoff.list_ms"));
                Backoff::List(waits.collect::<Result<_>>()?)
            }
            other => {
                return Err(call.invalid("backoff.kind", other, "it is not of enum flowmesh_backoff_kind"));
            }
        }))
    }

    /// As C sees it; a list is lent by `list`.
    fn of(backoff: &Backoff, list: &mut Vec<i64>) -> Self {
        match backoff {
            Backoff::Exponential { initial, factor, max, jitter } => Self {
                kind: flowmesh_backoff_kind::FLOWMESH_BACKOFF_EXPONENTIAL as i32,
                jitter: i32::from(*jitter),
                initial_ms: ms(*initial),
                max_ms: ms(*max),
                factor: *factor,
                ..BACKOFF
            },
            Backoff::Fixed(wait) => Self {
                kind: flowmesh_backoff_kind::FLOWMESH_BACKOFF_FIXED as i32,
                initial_ms: ms(*wait),
                ..BACKOFF
            },
            Backoff::List(waits) => {
                *list = waits.iter().copied().map(ms).collect();
                let kind = flowmesh_backoff_kind::FLOWMESH_BACKOFF_LIST as i32;
                Self { kind, list_ms: list.as_ptr(), list_count: list.len(), ..BACKOFF }
            }
        }
    }
}

impl flowmesh_rate {
    fn of(rate: Rate) -> Self {
        Self { count: rate.count, burst: rate.burst, per_ms: ms(rate.per) }
    }
}

impl flowmesh_keep {
    fn read(&self, call: Call, argument: &'static str) -> Result<Keep> {
        Ok(Keep { age: call.milliseconds(self.age_ms, argument)?, count: self.count })
    }

    fn of(kept: Keep) -> Self {
        keep(ms(kept.age), kept.count)
    }
}

/// A queue's settings as C sees them, with what they lend.
pub(crate) struct LentConfig {
    filled: flowmesh_queue_config,
    _texts: Vec<CString>,
    _weights: Vec<flowmesh_group_weight>,
    _rates: [Option<Box<flowmesh_rate>>; 2],
    _backoff: Vec<i64>,
}

// SAFETY: its pointers point into what it owns, which nobody changes.
unsafe impl Send for LentConfig {}
// SAFETY: as above.
unsafe impl Sync for LentConfig {}

impl LentConfig {
    pub(crate) fn of(config: &QueueConfig) -> Self {
        let (mut texts, mut backoff) = (Vec::new(), Vec::new());
        let weights: Vec<_> = config
            .groups
            .weights
            .iter()
            .map(|(group, weight)| {
                let group = lend(&mut texts, Some(group));
                flowmesh_group_weight { group, weight: *weight, reserved: 0 }
            })
            .collect();
        let dead_letter_to = lend(&mut texts, config.dead_letter_to.as_ref().map(Name::as_str));
        let (durability, durability_interval_ms) = durability_of(config.durability);
        let rates =
            [config.rate, config.groups.rate].map(|rate| rate.map(|rate| Box::new(flowmesh_rate::of(rate))));
        let [rate, group_rate] =
            [0, 1].map(|index| rates[index].as_deref().map_or(ptr::null(), ptr::from_ref));
        let Retention { done, dead, cancelled, expired } = config.retention;
        let filled = flowmesh_queue_config {
            struct_size: 0,
            lease_ms: ms(config.lease),
            deadline_ms: ms_or_none(config.deadline),
            ttl_ms: ms_or_none(config.ttl),
            aging_ms: ms_or_none(config.aging),
            cancel_grace_ms: ms(config.cancel_grace),
            max_length: config.max_length.map_or(-1, |length| i64::try_from(length).unwrap_or(i64::MAX)),
            max_attempts: config.max_attempts.into(),
            payload_bytes_max: config.payload_bytes_max,
            concurrency: count_or_none(config.concurrency),
            group_concurrency: count_or_none(config.groups.concurrency),
            backoff: flowmesh_backoff::of(&config.backoff, &mut backoff),
            rate,
            group_rate,
            group_weights: pointer(&weights),
            group_weight_count: weights.len(),
            keep_done: flowmesh_keep::of(done),
            keep_dead: flowmesh_keep::of(dead),
            keep_cancelled: flowmesh_keep::of(cancelled),
            keep_expired: flowmesh_keep::of(expired),
            dead_letter_to,
            durability,
            uncounted_on_crash: i32::from(config.uncounted_on_crash),
            durability_interval_ms,
        };
        Self { filled, _texts: texts, _weights: weights, _rates: rates, _backoff: backoff }
    }

    pub(crate) fn filled(&self) -> &flowmesh_queue_config {
        &self.filled
    }
}

/// What a job wants as C sees it, with what it lends.
pub(crate) struct LentOptions {
    filled: flowmesh_enqueue_options,
    _texts: Vec<CString>,
    _headers: Vec<flowmesh_header>,
    _backoff: Vec<i64>,
}

// SAFETY: its pointers point into what it owns, which nobody changes.
unsafe impl Send for LentOptions {}
// SAFETY: as above.
unsafe impl Sync for LentOptions {}

impl LentOptions {
    pub(crate) fn of(options: &EnqueueOptions) -> Self {
        let (mut texts, mut backoff) = (Vec::new(), Vec::new());
        let headers: Vec<_> = options
            .headers
            .iter()
            .map(|(name, value)| flowmesh_header {
                name: lend(&mut texts, Some(name)),
                value: lend(&mut texts, Some(value)),
            })
            .collect();
        let (unique_scope, unique_window_ms) = match options.unique.as_ref().map(|unique| unique.scope) {
            None | Some(Scope::Active) => (0, 0),
            Some(Scope::Waiting) => (1, 0),
            Some(Scope::Window(window)) => (2, ms(window)),
        };
        let unique_conflict = match options.unique.as_ref().map(|unique| unique.conflict).unwrap_or_default()
        {
            OnConflict::ReturnExisting => 0,
            OnConflict::Replace => 1,
            OnConflict::Extend => 2,
            OnConflict::KeepLast => 3,
        };
        let id = options.id.map(|id| id.to_string());
        let filled = flowmesh_enqueue_options {
            struct_size: size_of::<flowmesh_enqueue_options>(),
            id: lend(&mut texts, id.as_deref()),
            headers: pointer(&headers),
            header_count: headers.len(),
            content_type: lend(&mut texts, options.content_type.as_deref()),
            group: lend(&mut texts, options.group.as_deref()),
            unique_key: lend(&mut texts, options.unique.as_ref().map(|unique| &*unique.key)),
            unique_window_ms,
            delay_ms: ms(options.delay),
            run_at_ms: options.run_at.map_or(-1, wall_ms),
            ttl_ms: ms_or_none(options.ttl),
            lease_ms: ms_or_none(options.lease),
            deadline_ms: ms_or_none(options.deadline),
            result_ttl_ms: ms_or_none(options.result_ttl),
            backoff: options
                .backoff
                .as_ref()
                .map_or(BACKOFF, |given| flowmesh_backoff::of(given, &mut backoff)),
            unique_scope,
            unique_conflict,
            priority: options.priority.into(),
            max_attempts: options.max_attempts.map_or(-1, i32::from),
            durability: flowmesh_durability::FLOWMESH_DURABILITY_DEFAULT as i32,
            reserved: 0,
            durability_interval_ms: 0,
        };
        Self { filled, _texts: texts, _headers: headers, _backoff: backoff }
    }

    pub(crate) fn filled(&self) -> &flowmesh_enqueue_options {
        &self.filled
    }
}

/// A C string that `texts` keeps: its bytes do not move with the list.
fn lend(texts: &mut Vec<CString>, text: Option<&(impl AsRef<str> + ?Sized)>) -> *const c_char {
    text.map_or(ptr::null(), |text| {
        texts.push(c_string(text.as_ref()));
        texts.last().map_or(ptr::null(), |text| text.as_ptr())
    })
}

fn pointer<T>(list: &[T]) -> *const T {
    if list.is_empty() { ptr::null() } else { list.as_ptr() }
}

impl Call {
    #[cold]
    pub(crate) fn limited(
        self,
        argument: &'static str,
        value: impl std::fmt::Display,
        limit: &str,
    ) -> flowmesh::Error {
        self.error(flowmesh::ErrorKind::InvalidArgument).with(argument, value).with("limit", limit)
    }

    /// A number for which -1 says that it is not given.
    fn given<N: Into<i64>, T: TryFrom<i64>>(self, value: N, argument: &'static str) -> Result<Option<T>> {
        match value.into() {
            -1 => Ok(None),
            value => T::try_from(value).map(Some).map_err(|_| self.invalid(argument, value, BELOW)),
        }
    }

    /// A time for which -1 says that it is not given.
    pub(crate) fn given_time(self, value: i64, argument: &'static str) -> Result<Option<Duration>> {
        let given = self.given::<i64, u64>(value, argument)?;
        Ok(given.map(Duration::from_millis))
    }

    /// A rate; NULL stands for none.
    ///
    /// # Safety
    /// `rate` is NULL or points to one.
    pub(super) unsafe fn rate(
        self,
        rate: *const flowmesh_rate,
        argument: &'static str,
    ) -> Result<Option<Rate>> {
        if rate.is_null() {
            return Ok(None);
        }
        // SAFETY: the caller's duty, passed on.
        let rate = unsafe { self.slice(rate, 1, argument) }?[0];
        let per = self.milliseconds(rate.per_ms, "rate.per_ms")?;
        Ok(Some(Rate { count: rate.count, per, burst: rate.burst }))
    }

    /// `None` for what the queue says.
    pub(crate) fn durability(self, durability: i32, interval_ms: i64) -> Result<Option<Durability>> {
        if interval_ms != 0 && durability != flowmesh_durability::FLOWMESH_DURABILITY_INTERVAL as i32 {
            let rule = "it goes with FLOWMESH_DURABILITY_INTERVAL";
            return Err(self.invalid("durability_interval_ms", interval_ms, rule));
        }
        match durability {
            0 => Ok(None),
            1 => Err(self.invalid("durability", "MEMORY", "it is only reached, never asked for")),
            2 => Ok(Some(Durability::Os)),
            3 => Ok(Some(Durability::Interval(self.milliseconds(interval_ms, "durability_interval_ms")?))),
            4 => Ok(Some(Durability::Fsync)),
            other => Err(self.invalid("durability", other, "it is not of enum flowmesh_durability")),
        }
    }

    /// As [`Call::durability`], for a queue that is set up already.
    pub(crate) fn own_durability(self, durability: i32, interval_ms: i64) -> Result<Option<Durability>> {
        let own = self.durability(durability, interval_ms)?;
        if own == Some(Durability::Interval(Duration::ZERO)) {
            return Err(self.limited("durability_interval_ms", interval_ms, "at least 1"));
        }
        Ok(own)
    }

    fn attempts(self, value: i64) -> Result<u16> {
        u16::try_from(value).map_err(|_| self.limited("max_attempts", value, "1 to 1000"))
    }
}

const BELOW: &str = "it is below 0, and not -1, which stands for none";

fn count_or_none(count: Option<u32>) -> i32 {
    count.map_or(-1, |count| i32::try_from(count).unwrap_or(i32::MAX))
}

/// As C sees it: which, and the interval.
pub(super) fn durability_of(durability: Durability) -> (i32, i64) {
    match durability {
        Durability::Memory => (flowmesh_durability::FLOWMESH_DURABILITY_MEMORY as i32, 0),
        Durability::Os => (flowmesh_durability::FLOWMESH_DURABILITY_OS as i32, 0),
        Durability::Interval(every) => (flowmesh_durability::FLOWMESH_DURABILITY_INTERVAL as i32, ms(every)),
        Durability::Fsync => (flowmesh_durability::FLOWMESH_DURABILITY_FSYNC as i32, 0),
    }
}

/// Whole milliseconds, rounded up: what is not nothing does not become it.
pub(super) fn ms(time: Duration) -> i64 {
    i64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)
}

fn ms_or_none(time: Option<Duration>) -> i64 {
    time.map_or(-1, ms)
}

fn timestamp(since_1970: Duration) -> Timestamp {
    Timestamp(u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX))
}

/// Milliseconds since 1970-01-01 UTC.
pub(super) fn wall_ms(at: Timestamp) -> i64 {
    i64::try_from(at.0 / 1_000_000).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: Call = Call("flowmesh_test");

    #[test]
    fn what_init_says_is_what_the_core_does() {
        // SAFETY: all pointers are NULL.
        unsafe {
            assert_eq!(flowmesh_queue_config::init().read(CALL).unwrap(), QueueConfig::default());
            assert_eq!(flowmesh_enqueue_options::init().read(CALL).unwrap(), EnqueueOptions::default());
            let exponential = flowmesh_backoff {
                kind: flowmesh_backoff_kind::FLOWMESH_BACKOFF_EXPONENTIAL as i32,
                ..BACKOFF
            };
            assert_eq!(exponential.read(CALL).unwrap(), Some(Backoff::default()));
        }
    }

    #[test]
    fn settings_come_back_as_they_were_given() {
        let seconds = Duration::from_secs;
        let config = QueueConfig {
            lease: seconds(7),
            max_attempts: 9,
            backoff: Backoff::List(vec![seconds(1), Duration::ZERO, seconds(5)]),
            deadline: Some(seconds(70)),
            ttl: Some(seconds(71)),
            max_length: Some(3),
            payload_bytes_max: 1000,
            concurrency: Some(4),
            rate: Some(Rate { count: 10, per: seconds(2), burst: 3 }),
            groups: GroupLimits {
                concurrency: Some(1),
                rate: Some(Rate { count: 1, per: seconds(3), burst: 1 }),
                weights: [("a".to_owned(), 2), ("b".to_owned(), 1000)].into(),
            },
            aging: Some(seconds(60)),
            retention: Retention {
                done: Keep { age: seconds(8), count: 1 },
                dead: Keep { age: seconds(9), count: 2 },
                cancelled: Keep { age: seconds(10), count: 3 },
                expired: Keep { age: seconds(11), count: 4 },
            },
            dead_letter_to: Some(Name::parse("dead").unwrap()),
            cancel_grace: seconds(12),
            uncounted_on_crash: true,
            durability: Durability::Interval(Duration::from_millis(20)),
        };
        let options = EnqueueOptions {
            id: Some(JobId(77)),
            priority: 200,
            run_at: Some(Timestamp(1_700_000_000_123_000_000)),
            ttl: Some(seconds(1)),
            unique: Some(Unique {
                key: "k".to_owned(),
                scope: Scope::Window(seconds(2)),
                conflict: OnConflict::Extend,
            }),
            group: Some("g".to_owned()),
            headers: vec![("a".to_owned(), "b".to_owned()), ("c".to_owned(), String::new())],
            content_type: Some("text/plain".to_owned()),
            max_attempts: Some(3),
            backoff: Some(Backoff::Fixed(seconds(4))),
            lease: Some(seconds(5)),
            deadline: Some(seconds(6)),
            result_ttl: Some(seconds(7)),
            ..EnqueueOptions::default()
        };
        // SAFETY: what is lent is still there.
        unsafe {
            let lent = LentConfig::of(&config);
            assert_eq!(lent.filled().read(CALL).unwrap(), config);
            assert_eq!(
                LentConfig::of(&QueueConfig::default()).filled().read(CALL).unwrap(),
                QueueConfig::default()
            );
            let lent = LentOptions::of(&options);
            assert_eq!(lent.filled().read(CALL).unwrap(), options);
            assert_eq!(
                LentOptions::of(&EnqueueOptions::default()).filled().read(CALL).unwrap(),
                EnqueueOptions::default()
            );
        }
    }
}
