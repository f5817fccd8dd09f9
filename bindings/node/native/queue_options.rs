//! What queues are told and tell, as JSON: the TypeScript layer writes and reads it. Times are milliseconds.
#![forbid(unsafe_code)]

use crate::options::millis;
use flowmesh::{
    CheckpointReport, Damage, Durability, Inspection, Name, Result, SegmentReport, Timestamp,
    queue::{
        Backoff, EnqueueOptions, Enqueued, Failure, GroupLimits, JobId, JobInfo, JobState, Keep, Misfire,
        OnConflict, Overlap, QueueConfig, QueueStats, Rate, Retention, Schedule, Scope, Unique,
    },
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

/// Settings of a queue. What is left out is as by default.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Config {
    lease_ms: Option<f64>,
    max_attempts: Option<u16>,
    backoff: Option<Waits>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_length: Option<u64>,
    payload_bytes_max: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrency: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<RateFields>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group_concurrency: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group_rate: Option<RateFields>,
    group_weights: BTreeMap<String, u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aging_ms: Option<f64>,
    retention: Option<RetentionFields>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letter_to: Option<String>,
    cancel_grace_ms: Option<f64>,
    uncounted_on_crash: Option<bool>,
    durability: Option<Safety>,
}

/// A backoff: always the same, one after the other, or growing.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Waits {
    Fixed(f64),
    List(Vec<f64>),
    #[serde(rename_all = "camelCase")]
    Exponential {
        initial_ms: Option<f64>,
        factor: Option<f64>,
        max_ms: Option<f64>,
        jitter: Option<bool>,
    },
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RateFields {
    count: u32,
    per_ms: f64,
    burst: Option<u32>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RetentionFields {
    done: Option<KeepFields>,
    dead: Option<KeepFields>,
    cancelled: Option<KeepFields>,
    expired: Option<KeepFields>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct KeepFields {
    age_ms: Option<f64>,
    count: Option<u32>,
}

/// A durability: a name, or `{ intervalMs }`.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Safety {
    Memory,
    Os,
    Fsync,
    #[serde(untagged)]
    Interval {
        #[serde(rename = "intervalMs")]
        interval_ms: f64,
    },
}

impl Config {
    pub(crate) fn config(self) -> Result<QueueConfig> {
        let default = QueueConfig::default();
        Ok(QueueConfig {
            lease: self.lease_ms.map_or(default.lease, millis),
            max_attempts: self.max_attempts.unwrap_or(default.max_attempts),
            backoff: self.backoff.map_or(default.backoff, Waits::backoff),
            deadline: self.deadline_ms.map(millis),
            ttl: self.ttl_ms.map(millis),
            max_length: self.max_length,
            payload_bytes_max: self.payload_bytes_max.unwrap_or(default.payload_bytes_max),
            concurrency: self.concurrency,
            rate: self.rate.map(RateFields::rate),
            groups: GroupLimits {
                concurrency: self.group_concurrency,
                rate: self.group_rate.map(RateFields::rate),
                weights: self.group_weights,
            },
            aging: self.aging_ms.map(millis),
            retention: self.retention.unwrap_or_default().retention(),
            dead_letter_to: self.dead_letter_to.as_deref().map(Name::parse).transpose()?,
            cancel_grace: self.cancel_grace_ms.map_or(default.cancel_grace, millis),
            uncounted_on_crash: self.uncounted_on_crash.unwrap_or(default.uncounted_on_crash),
            durability: self.durability.map_or(default.durability, Safety::durability),
        })
    }

    pub(crate) fn of(config: &QueueConfig) -> Self {
        // Without `..`, so that a new field cannot be forgotten here.
        let QueueConfig {
            lease,
            max_attempts,
            backoff,
            deadline,
            ttl,
            max_length,
            payload_bytes_max,
            concurrency,
            rate,
            groups: GroupLimits { concurrency: group_concurrency, rate: group_rate, weights },
            aging,
            retention,
            dead_letter_to,
            cancel_grace,
            uncounted_on_crash,
            durability,
        } = config;
        Self {
            lease_ms: Some(ms(*lease)),
            max_attempts: Some(*max_attempts),
            backoff: Some(Waits::of(backoff)),
            deadline_ms: deadline.map(ms),
            ttl_ms: ttl.map(ms),
            max_length: *max_length,
            payload_bytes_max: Some(*payload_bytes_max),
            concurrency: *concurrency,
            rate: rate.map(RateFields::of),
            group_concurrency: *group_concurrency,
            group_rate: group_rate.map(RateFields::of),
            group_weights: weights.clone(),
            aging_ms: aging.map(ms),
            retention: Some(RetentionFields::of(retention)),
            dead_letter_to: dead_letter_to.as_ref().map(|name| name.as_str().to_owned()),
            cancel_grace_ms: Some(ms(*cancel_grace)),
            uncounted_on_crash: Some(*uncounted_on_crash),
            durability: Some(Safety::of(*durability)),
        }
    }
}

impl Waits {
    fn backoff(self) -> Backoff {
        match self {
            Self::Fixed(wait) => Backoff::Fixed(millis(wait)),
            Self::List(waits) => Backoff::List(waits.into_iter().map(millis).collect()),
            Self::Exponential { initial_ms, factor, max_ms, jitter } => {
                let Backoff::Exponential { initial, factor: by, max, jitter: spread } = Backoff::default()
                else {
                    return Backoff::default();
                };
                let initial = initial_ms.map_or(initial, millis);
                Backoff::Exponential {
                    initial,
                    factor: factor.unwrap_or(by),
                    max: max_ms.map_or(max.max(initial), millis),
                    jitter: jitter.unwrap_or(spread),
                }
            }
        }
    }

    fn of(backoff: &Backoff) -> Self {
        match backoff {
            Backoff::Fixed(wait) => Self::Fixed(ms(*wait)),
            Backoff::List(waits) => Self::List(waits.iter().map(|wait| ms(*wait)).collect()),
            Backoff::Exponential { initial, factor, max, jitter } => Self::Exponential {
                initial_ms: Some(ms(*initial)),
                factor: Some(*factor),
                max_ms: Some(ms(*max)),
                jitter: Some(*jitter),
            },
        }
    }
}

impl RateFields {
    pub(crate) fn rate(self) -> Rate {
        Rate { count: self.count, per: millis(self.per_ms), burst: self.burst.unwrap_or(self.count) }
    }

    fn of(rate: Rate) -> Self {
        Self { count: rate.count, per_ms: ms(rate.per), burst: Some(rate.burst) }
    }
}

impl RetentionFields {
    fn retention(self) -> Retention {
        let default = Retention::default();
        let keep = |fields: Option<KeepFields>, default: Keep| {
            fields.map_or(default, |fields| Keep {
                age: fields.age_ms.map_or(default.age, millis),
                count: fields.count.unwrap_or(default.count),
            })
        };
        Retention {
            done: keep(self.done, default.done),
            dead: keep(self.dead, default.dead),
            cancelled: keep(self.cancelled, default.cancelled),
            expired: keep(self.expired, default.expired),
        }
    }

    fn of(retention: &Retention) -> Self {
        let fields = |keep: Keep| Some(KeepFields { age_ms: Some(ms(keep.age)), count: Some(keep.count) });
        let Retention { done, dead, cancelled, expired } = *retention;
        Self {
            done: fields(done),
            dead: fields(dead),
            cancelled: fields(cancelled),
            expired: fields(expired),
        }
    }
}

impl Safety {
    pub(crate) fn durability(self) -> Durability {
        match self {
            Self::Memory => Durability::Memory,
            Self::Os => Durability::Os,
            Self::Fsync => Durability::Fsync,
            Self::Interval { interval_ms } => Durability::Interval(millis(interval_ms)),
        }
    }

    pub(crate) fn of(durability: Durability) -> Self {
        match durability {
            Durability::Memory => Self::Memory,
            Durability::Os => Self::Os,
            Durability::Fsync => Self::Fsync,
            Durability::Interval(every) => Self::Interval { interval_ms: ms(every) },
        }
    }
}

/// What one job wants.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Enqueueing {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    priority: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_at: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unique: Option<UniqueFields>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<(String, String)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_attempts: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backoff: Option<Waits>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result_ttl_ms: Option<f64>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct UniqueFields {
    key: String,
    scope: Option<ScopeFields>,
    on_conflict: Option<Conflict>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum ScopeFields {
    Waiting,
    Active,
    #[serde(untagged)]
    Window {
        #[serde(rename = "windowMs")]
        window_ms: f64,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Conflict {
    ReturnExisting,
    Replace,
    Extend,
    KeepLast,
}

impl Enqueueing {
    pub(crate) fn options(self) -> Result<EnqueueOptions> {
        Ok(EnqueueOptions {
            id: self.id.as_deref().map(JobId::parse).transpose()?,
            priority: self.priority,
            delay: self.delay_ms.map_or(Duration::ZERO, millis),
            run_at: self.run_at.map(|ms| Timestamp((ms * 1e6) as u64)),
            ttl: self.ttl_ms.map(millis),
            unique: self.unique.map(UniqueFields::unique),
            group: self.group,
            headers: self.headers,
            content_type: self.content_type,
            max_attempts: self.max_attempts,
            backoff: self.backoff.map(Waits::backoff),
            lease: self.lease_ms.map(millis),
            deadline: self.deadline_ms.map(millis),
            result_ttl: self.result_ttl_ms.map(millis),
        })
    }

    fn of(options: &EnqueueOptions) -> Self {
        let EnqueueOptions {
            id,
            priority,
            delay,
            run_at,
            ttl,
            unique,
            group,
            headers,
            content_type,
            max_attempts,
            backoff,
            lease,
            deadline,
            result_ttl,
        } = options.clone();
        Self {
            id: id.map(|id| id.to_string()),
            priority,
            delay_ms: (!delay.is_zero()).then(|| ms(delay)),
            run_at: run_at.map(at),
            ttl_ms: ttl.map(ms),
            unique: unique.map(UniqueFields::of),
            group,
            headers,
            content_type,
            max_attempts,
            backoff: backoff.as_ref().map(Waits::of),
            lease_ms: lease.map(ms),
            deadline_ms: deadline.map(ms),
            result_ttl_ms: result_ttl.map(ms),
        }
    }
}

impl UniqueFields {
    fn unique(self) -> Unique {
        Unique {
            key: self.key,
            scope: match self.scope {
                Some(ScopeFields::Waiting) => Scope::Waiting,
                Some(ScopeFields::Active) | None => Scope::Active,
                Some(ScopeFields::Window { window_ms }) => Scope::Window(millis(window_ms)),
            },
            conflict: match self.on_conflict {
                Some(Conflict::ReturnExisting) | None => OnConflict::ReturnExisting,
                Some(Conflict::Replace) => OnConflict::Replace,
                Some(Conflict::Extend) => OnConflict::Extend,
                Some(Conflict::KeepLast) => OnConflict::KeepLast,
            },
        }
    }

    fn of(unique: Unique) -> Self {
        Self {
            key: unique.key,
            scope: Some(match unique.scope {
                Scope::Waiting => ScopeFields::Waiting,
                Scope::Active => ScopeFields::Active,
                Scope::Window(window) => ScopeFields::Window { window_ms: ms(window) },
            }),
            on_conflict: Some(match unique.conflict {
                OnConflict::ReturnExisting => Conflict::ReturnExisting,
                OnConflict::Replace => Conflict::Replace,
                OnConflict::Extend => Conflict::Extend,
                OnConflict::KeepLast => Conflict::KeepLast,
            }),
        }
    }
}

/// A schedule without its payload, which travels as bytes.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Scheduling {
    name: String,
    cron: String,
    zone: Option<String>,
    misfire: Option<MisfireFields>,
    overlap: Option<OverlapFields>,
    jitter_ms: Option<f64>,
    #[serde(default)]
    options: Enqueueing,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum MisfireFields {
    Skip,
    RunOnce,
    RunAll,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum OverlapFields {
    Allow,
    Skip,
    Replace,
}

impl Scheduling {
    pub(crate) fn schedule(self, payload: &[u8]) -> Result<Schedule> {
        let default = Schedule::new(self.name);
        Ok(Schedule {
            cron: self.cron,
            zone: self.zone.unwrap_or(default.zone),
            misfire: match self.misfire {
                Some(MisfireFields::Skip) => Misfire::Skip,
                Some(MisfireFields::RunOnce) | None => Misfire::RunOnce,
                Some(MisfireFields::RunAll) => Misfire::RunAll,
            },
            overlap: match self.overlap {
                Some(OverlapFields::Allow) | None => Overlap::Allow,
                Some(OverlapFields::Skip) => Overlap::Skip,
                Some(OverlapFields::Replace) => Overlap::Replace,
            },
            jitter: self.jitter_ms.map_or(Duration::ZERO, millis),
            options: self.options.options()?,
            payload: payload.to_vec(),
            ..Schedule::new(default.name)
        })
    }
}

/// A schedule and when it fires next; the payload in hexadecimal.
pub(crate) fn schedule_json((schedule, next): &(Schedule, Timestamp)) -> Value {
    let misfire = match schedule.misfire {
        Misfire::Skip => MisfireFields::Skip,
        Misfire::RunOnce => MisfireFields::RunOnce,
        Misfire::RunAll => MisfireFields::RunAll,
    };
    let overlap = match schedule.overlap {
        Overlap::Allow => OverlapFields::Allow,
        Overlap::Skip => OverlapFields::Skip,
        Overlap::Replace => OverlapFields::Replace,
    };
    json!({
        "name": schedule.name, "cron": schedule.cron, "zone": schedule.zone, "misfire": misfire, "overlap": overlap,
        "jitterMs": ms(schedule.jitter), "options": Enqueueing::of(&schedule.options),
        "payload": hex(&schedule.payload), "next": at(*next),
    })
}

/// What became of jobs, as one buffer: see `readReceipts` in src/enqueue.ts.
///
///   offset size  field        (little-endian)
///        0    4  count
///        4    4  durability   0 memory, 1 os, 2 interval, 3 fsync
///        8    8  interval     ms, a double
///       16   80  for each: u32 what (0 new, 1 replaced, 2 existing, 3 extended), id as text, the replaced job's
///                id as text, 4 unused
pub(crate) fn pack_receipts(all: &[Enqueued], reached: Durability) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 + RECEIPT_BYTES * all.len());
    let (code, interval) = durability_code(reached);
    out.extend((all.len() as u32).to_le_bytes());
    out.extend(code.to_le_bytes());
    out.extend(interval.to_le_bytes());
    for enqueued in all {
        let what: u32 = match enqueued {
            Enqueued::New(_) => 0,
            Enqueued::Replaced { .. } => 1,
            Enqueued::Existing(_) => 2,
            Enqueued::Extended(_) => 3,
        };
        out.extend(what.to_le_bytes());
        out.extend(id_text(enqueued.id()));
        match enqueued {
            Enqueued::Replaced { replaced, .. } => out.extend(id_text(*replaced)),
            _ => out.extend([0; ID_BYTES]),
        }
        out.extend([0; 4]);
    }
    out
}

/// The number that JavaScript knows a durability by, and its interval.
pub(crate) fn durability_code(durability: Durability) -> (u32, f64) {
    match durability {
        Durability::Memory => (0, 0.0),
        Durability::Os => (1, 0.0),
        Durability::Interval(every) => (2, ms(every)),
        Durability::Fsync => (3, 0.0),
    }
}

/// An id as a UUID's text, without a formatter: there is one for each job.
pub(crate) fn id_text(id: JobId) -> [u8; ID_BYTES] {
    let mut text = [b'-'; ID_BYTES];
    let mut at = 0;
    for (index, byte) in id.0.to_be_bytes().into_iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            at += 1;
        }
        text[at] = DIGITS[usize::from(byte >> 4)];
        text[at + 1] = DIGITS[usize::from(byte & 15)];
        at += 2;
    }
    text
}

pub(crate) fn stats_json(stats: &QueueStats) -> Value {
    let jobs: serde_json::Map<_, _> =
        JobState::ALL.iter().map(|state| (state.name().to_owned(), stats.count(*state).into())).collect();
    json!({
        "jobs": jobs, "payload_bytes": stats.payload_bytes, "oldest_ready_ms": stats.oldest_ready.map(ms),
        "paused": stats.paused, "draining": stats.draining, "groups": stats.groups, "redriving": stats.redriving,
        "totals": stats.totals,
    })
}

pub(crate) fn info_json(info: &JobInfo) -> Value {
    json!({
        "id": info.id.to_string(), "state": info.state.name(), "priority": info.priority, "attempt": info.attempt,
        "maxAttempts": info.max_attempts, "group": info.group, "uniqueKey": info.unique_key,
        "since": at(info.since), "due": info.due.map(at), "expires": info.expires.map(at),
        "payloadBytes": info.payload_bytes, "redrives": info.redrives,
        "worker": info.worker.map(|worker| worker.0.to_string()), "cancelling": info.cancelling,
        "progress": info.progress.as_deref().map(hex), "hasResult": info.has_result,
        "failures": info.failures.iter().map(failure_json).collect::<Vec<_>>(),
    })
}

fn failure_json(failure: &Failure) -> Value {
    let Failure { attempt, at: time, message, detail } = failure;
    json!({ "attempt": attempt, "at": at(*time), "message": message, "detail": detail })
}

/// What `inspect` found; LSNs and offsets as numbers, exact up to 2^53.
pub(crate) fn inspection_json(found: &Inspection) -> Value {
    let range = |range: Option<(flowmesh::Lsn, flowmesh::Lsn)>| range.map(|(first, last)| [first.0, last.0]);
    let segment = |segment: &SegmentReport| {
        json!({
            "file": segment.file, "bytes": segment.bytes, "end": segment.end, "batches": range(segment.batches),
            "batchCount": segment.batch_count,
        })
    };
    let checkpoint = |report: &CheckpointReport| {
        let (begin, end) = (report.begin.0, report.end.0);
        json!({ "file": report.file, "begin": begin, "end": end, "images": report.images, "bytes": report.bytes })
    };
    let damage =
        |damage: &Damage| json!({ "file": damage.file, "offset": damage.offset, "what": damage.what });
    let tail = found.tail.as_ref().map(
        |cut| json!({ "file": cut.file, "offset": cut.offset, "bytes": cut.bytes, "batches": cut.batches }),
    );
    json!({
        "segments": found.segments.iter().map(segment).collect::<Vec<_>>(),
        "checkpoints": found.checkpoints.iter().map(checkpoint).collect::<Vec<_>>(),
        "batches": found.batches, "entries": found.entries, "range": range(found.range), "tail": tail,
        "damages": found.damages.iter().map(damage).collect::<Vec<_>>(),
    })
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let digits = |byte: &u8| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
    bytes.iter().flat_map(digits).map(char::from).collect()
}

pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Milliseconds since 1970, as JavaScript's dates count.
fn at(time: Timestamp) -> f64 {
    time.0 as f64 / 1e6
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";
pub(crate) const ID_BYTES: usize = 36;
const RECEIPT_BYTES: usize = 80;
