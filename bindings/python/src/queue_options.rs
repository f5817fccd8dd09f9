//! The settings of queues, jobs and schedules: from keyword arguments to the core's types, and back.
//!
//! `None` is the default everywhere, as if the argument were left out.

use crate::{
    args::{self, Text, Whole, seconds, type_error, type_name},
    errors::{Result, invalid},
    options::Backoff,
    payload::Encoded,
    python,
};
use flowmesh::{
    Durability, Name, Timestamp,
    queue::{
        self, EnqueueOptions, JobId, Keep, Misfire, OnConflict, Overlap, QueueConfig, Retention, Schedule,
        Scope,
    },
};
use pyo3::{
    prelude::*,
    types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString},
};
use std::time::Duration;

/// So many in each `per` seconds, evenly, after `burst` at once.
#[pyclass(frozen, eq, module = "flowmesh", from_py_object)]
#[derive(Clone, PartialEq)]
pub(crate) struct Rate {
    pub(crate) inner: queue::Rate,
}

#[pymethods]
impl Rate {
    #[new]
    #[pyo3(
        signature = (count, per=1.0, burst=None),
        text_signature = "(count, per=1.0, burst=None)"
    )]
    fn new(count: Whole, per: f64, burst: Option<Whole>) -> Result<Self> {
        let operation = "rate";
        let burst = burst.unwrap_or(count);
        // Its bounds are checked where it is used, by who knows for what.
        let inner = queue::Rate {
            count: count.fitting(operation, "count")?,
            per: seconds(operation, "per", per)?,
            burst: burst.fitting(operation, "burst")?,
        };
        Ok(Self { inner })
    }

    /// How many come back in each `per`.
    #[getter]
    fn count(&self) -> u32 {
        self.inner.count
    }

    /// Seconds.
    #[getter]
    fn per(&self) -> f64 {
        self.inner.per.as_secs_f64()
    }

    /// How many may go at once after a rest.
    #[getter]
    fn burst(&self) -> u32 {
        self.inner.burst
    }

    fn __repr__(&self) -> String {
        format!("Rate(count={}, per={:?}, burst={})", self.inner.count, self.per(), self.inner.burst)
    }
}

/// A key that at most one job of a queue has at a time, for as long as `scope` says: "waiting" is until it is first
/// handed to a worker, "active" until it is finished, a number so many seconds longer. `on_conflict` is what happens to
/// a new job whose key another has: "return_existing" gives the other's id; "replace" cancels the other if it still waits;
/// "extend" has the other, if it still waits, wait anew for as long as the new one would, and without a delay leaves it as
/// it is; "keep_last" is as "replace", and behind one that is being worked on the newest waits.
#[pyclass(frozen, eq, module = "flowmesh", from_py_object)]
#[derive(Clone, PartialEq)]
pub(crate) struct Unique {
    inner: queue::Unique,
}

#[pymethods]
impl Unique {
    #[new]
    #[pyo3(
        signature = (key, scope=None, on_conflict=None),
        text_signature = "(key, scope='active', on_conflict='return_existing')"
    )]
    fn new(key: Text<'_>, scope: Option<&Bound<'_, PyAny>>, on_conflict: Option<Text<'_>>) -> Result<Self> {
        let operation = "unique";
        let scope = match scope {
            None => Scope::Active,
            Some(scope) => match scope.cast::<PyString>() {
                Ok(_) => match scope.extract::<Text<'_>>()?.0 {
                    "waiting" => Scope::Waiting,
                    "active" => Scope::Active,
                    other => {
                        return Err(invalid(operation, "scope", shown(other), "waiting, active, or seconds"));
                    }
                },
                Err(_) => Scope::Window(seconds(operation, "scope", number(scope, "scope")?)?),
            },
        };
        let conflict = match on_conflict.map_or("return_existing", |text| text.0) {
            "return_existing" => OnConflict::ReturnExisting,
            "replace" => OnConflict::Replace,
            "extend" => OnConflict::Extend,
            "keep_last" => OnConflict::KeepLast,
            other => {
                let known = "return_existing, replace, extend or keep_last";
                return Err(invalid(operation, "on_conflict", shown(other), known));
            }
        };
        let inner = queue::Unique { key: key.0.to_owned(), scope, conflict };
        EnqueueOptions { unique: Some(inner.clone()), ..EnqueueOptions::default() }.validate()?;
        Ok(Self { inner })
    }

    /// The key.
    #[getter]
    fn key(&self) -> &str {
        &self.inner.key
    }

    /// "waiting", "active", or seconds.
    #[getter]
    fn scope<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(match self.inner.scope {
            Scope::Waiting => PyString::new(py, "waiting").into_any(),
            Scope::Active => PyString::new(py, "active").into_any(),
            Scope::Window(window) => PyFloat::new(py, window.as_secs_f64()).into_any(),
        })
    }

    /// What happens to a new job whose key another has.
    #[getter]
    fn on_conflict(&self) -> &'static str {
        match self.inner.conflict {
            OnConflict::ReturnExisting => "return_existing",
            OnConflict::Replace => "replace",
            OnConflict::Extend => "extend",
            OnConflict::KeepLast => "keep_last",
        }
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let scope = python::shown(&self.scope(py)?)?;
        Ok(format!("Unique({:?}, scope={scope}, on_conflict={:?})", self.inner.key, self.on_conflict()))
    }
}

/// Sets the fields of `config` that are given.
pub(crate) fn configure(config: &mut QueueConfig, given: Option<&Bound<'_, PyDict>>) -> Result<()> {
    const OPERATION: &str = "queue.declare";
    let default = QueueConfig::default();
    for (name, value) in given.into_iter().flatten() {
        let name = name.extract::<Text<'_>>()?.0.to_owned();
        let value = Some(value).filter(|value| !value.is_none());
        macro_rules! time {
            ($field:ident) => {
                value
                    .map(|value| seconds(OPERATION, stringify!($field), number(&value, stringify!($field))?))
                    .transpose()?
            };
        }
        macro_rules! whole {
            ($field:ident) => {
                value.map(|value| whole(OPERATION, stringify!($field), &value)).transpose()?
            };
        }
        match name.as_str() {
            "lease" => config.lease = time!(lease).unwrap_or(default.lease),
            "max_attempts" => config.max_attempts = whole!(max_attempts).unwrap_or(default.max_attempts),
            "backoff" => {
                let backoff = value.map(|value| backoff(OPERATION, &value)).transpose()?;
                config.backoff = backoff.unwrap_or_default();
            }
            "deadline" => config.deadline = time!(deadline),
            "ttl" => config.ttl = time!(ttl),
            "max_length" => config.max_length = whole!(max_length),
            "payload_bytes_max" => {
                config.payload_bytes_max = whole!(payload_bytes_max).unwrap_or(default.payload_bytes_max);
            }
            "concurrency" => config.concurrency = whole!(concurrency),
            "rate" => config.rate = value.map(|value| rate(OPERATION, "rate", &value)).transpose()?,
            "group_concurrency" => config.groups.concurrency = whole!(group_concurrency),
            "group_rate" => {
                config.groups.rate = value.map(|value| rate(OPERATION, "group_rate", &value)).transpose()?;
            }
            "group_weights" => {
                config.groups.weights = match value {
                    None => default.groups.weights.clone(),
                    Some(weights) => pairs("group_weights", &weights)?
                        .into_iter()
                        .map(|(group, weight)| Ok((group, whole(OPERATION, "group_weights", &weight)?)))
                        .collect::<Result<_>>()?,
                }
            }
            "aging" => config.aging = time!(aging),
            "retention" => match value {
                None => config.retention = default.retention,
                Some(value) => retention(&mut config.retention, &value)?,
            },
            "dead_letter_to" => {
                config.dead_letter_to = match value {
                    None => None,
                    Some(value) => Some(Name::parse(text("dead_letter_to", &value)?)?),
                }
            }
            "cancel_grace" => config.cancel_grace = time!(cancel_grace).unwrap_or(default.cancel_grace),
            "uncounted_on_crash" => {
                config.uncounted_on_crash = match value {
                    None => default.uncounted_on_crash,
                    Some(value) => truth("uncounted_on_crash", &value)?,
                }
            }
            "durability" => {
                let durability = value.map(|value| durability(OPERATION, &value)).transpose()?;
                config.durability = durability.unwrap_or(default.durability);
            }
            other => return Err(unexpected(other, CONFIG_NAMES)),
        }
    }
    Ok(())
}

const CONFIG_NAMES: &str = "lease, max_attempts, backoff, deadline, ttl, max_length, payload_bytes_max, concurrency, \
    rate, group_concurrency, group_rate, group_weights, aging, retention, dead_letter_to, cancel_grace, \
    uncounted_on_crash, durability";

/// As the keyword arguments that would give it.
pub(crate) fn config_dict<'py>(py: Python<'py>, config: &QueueConfig) -> Result<Bound<'py, PyDict>> {
    // Taken apart in full, so a new setting does not compile until it is shown here.
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
        groups,
        aging,
        retention,
        dead_letter_to,
        cancel_grace,
        uncounted_on_crash,
        durability,
    } = config;
    let seconds = |time: &Option<Duration>| time.map(|time| time.as_secs_f64());
    let dict = PyDict::new(py);
    dict.set_item("lease", lease.as_secs_f64())?;
    dict.set_item("max_attempts", max_attempts)?;
    dict.set_item("backoff", backoff_value(py, backoff)?)?;
    dict.set_item("deadline", seconds(deadline))?;
    dict.set_item("ttl", seconds(ttl))?;
    dict.set_item("max_length", max_length)?;
    dict.set_item("payload_bytes_max", payload_bytes_max)?;
    dict.set_item("concurrency", concurrency)?;
    dict.set_item("rate", rate.map(|inner| Rate { inner }))?;
    dict.set_item("group_concurrency", groups.concurrency)?;
    dict.set_item("group_rate", groups.rate.map(|inner| Rate { inner }))?;
    dict.set_item("group_weights", &groups.weights)?;
    dict.set_item("aging", seconds(aging))?;
    let Retention { done, dead, cancelled, expired } = retention;
    let kept = PyDict::new(py);
    for (state, keep) in [("done", done), ("dead", dead), ("cancelled", cancelled), ("expired", expired)] {
        let shown = PyDict::new(py);
        shown.set_item("age", keep.age.as_secs_f64())?;
        shown.set_item("count", keep.count)?;
        kept.set_item(state, shown)?;
    }
    dict.set_item("retention", kept)?;
    dict.set_item("dead_letter_to", dead_letter_to.as_ref().map(Name::as_str))?;
    dict.set_item("cancel_grace", cancel_grace.as_secs_f64())?;
    dict.set_item("uncounted_on_crash", uncounted_on_crash)?;
    dict.set_item("durability", durability_value(py, *durability)?)?;
    Ok(dict)
}

fn retention(kept: &mut Retention, given: &Bound<'_, PyAny>) -> Result<()> {
    for (state, value) in pairs("retention", given)? {
        let (keep, age, count): (&mut Keep, _, _) = match state.as_str() {
            "done" => (&mut kept.done, "retention.done.age", "retention.done.count"),
            "dead" => (&mut kept.dead, "retention.dead.age", "retention.dead.count"),
            "cancelled" => (&mut kept.cancelled, "retention.cancelled.age", "retention.cancelled.count"),
            "expired" => (&mut kept.expired, "retention.expired.age", "retention.expired.count"),
            other => return Err(unexpected(&format!("retention.{other}"), "done, dead, cancelled, expired")),
        };
        for (field, value) in pairs("retention", &value)? {
            match field.as_str() {
                "age" => keep.age = seconds("queue.declare", age, number(&value, age)?)?,
                "count" => keep.count = whole("queue.declare", count, &value)?,
                other => return Err(unexpected(&format!("retention.{state}.{other}"), "age, count")),
            }
        }
    }
    Ok(())
}

/// The options of a job; its payload says the content type unless they do.
pub(crate) fn enqueue(
    given: Option<&Bound<'_, PyDict>>,
    content_type: Option<&'static str>,
) -> Result<EnqueueOptions> {
    let mut options =
        EnqueueOptions { content_type: content_type.map(str::to_owned), ..EnqueueOptions::default() };
    for (name, value) in given.into_iter().flatten() {
        if !value.is_none() {
            enqueue_option(&mut options, name.extract::<Text<'_>>()?.0, &value)?;
        }
    }
    if given.is_some() {
        options.validate()?;
    }
    Ok(options)
}

fn enqueue_option(options: &mut EnqueueOptions, name: &str, value: &Bound<'_, PyAny>) -> Result<()> {
    const OPERATION: &str = "queue.enqueue";
    let time = |argument| seconds(OPERATION, argument, number(value, argument)?);
    match name {
        "id" => options.id = Some(job_id(value)?),
        "priority" => options.priority = whole_within(OPERATION, "priority", value, 0..=255)?,
        "delay" => options.delay = time("delay")?,
        "run_at" => options.run_at = Some(wall(OPERATION, "run_at", value)?),
        "ttl" => options.ttl = Some(time("ttl")?),
        "unique" => {
            options.unique = Some(match value.cast::<PyString>() {
                Ok(_) => queue::Unique {
                    key: text("unique", value)?.to_owned(),
                    scope: Scope::Active,
                    conflict: OnConflict::default(),
                },
                Err(_) => match value.extract::<Unique>() {
                    Ok(unique) => unique.inner,
                    Err(_) => return Err(wrong_type("unique", "str or flowmesh.Unique", value)),
                },
            });
        }
        "group" => options.group = Some(text("group", value)?.to_owned()),
        "headers" => options.headers = args::headers(Some(value))?,
        "content_type" => options.content_type = Some(text("content_type", value)?.to_owned()),
        "max_attempts" => options.max_attempts = Some(whole(OPERATION, "max_attempts", value)?),
        "backoff" => options.backoff = Some(backoff(OPERATION, value)?),
        "lease" => options.lease = Some(time("lease")?),
        "deadline" => options.deadline = Some(time("deadline")?),
        "result_ttl" => options.result_ttl = Some(time("result_ttl")?),
        other => return Err(unexpected(other, ENQUEUE_NAMES)),
    }
    Ok(())
}

const ENQUEUE_NAMES: &str = "id, priority, delay, run_at, ttl, unique, group, headers, content_type, max_attempts, \
    backoff, lease, deadline, result_ttl";

/// As the keyword arguments that would give them: those that are not the default.
fn enqueue_dict<'py>(py: Python<'py>, options: &EnqueueOptions) -> Result<Bound<'py, PyDict>> {
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
    } = options;
    let dict = PyDict::new(py);
    if let Some(id) = id {
        dict.set_item("id", id.to_string())?;
    }
    if *priority != 0 {
        dict.set_item("priority", priority)?;
    }
    if !delay.is_zero() {
        dict.set_item("delay", delay.as_secs_f64())?;
    }
    if let Some(run_at) = run_at {
        dict.set_item("run_at", epoch(*run_at))?;
    }
    for (name, time) in [("ttl", ttl), ("lease", lease), ("deadline", deadline), ("result_ttl", result_ttl)] {
        if let Some(time) = time {
            dict.set_item(name, time.as_secs_f64())?;
        }
    }
    if let Some(inner) = unique {
        dict.set_item("unique", Unique { inner: inner.clone() })?;
    }
    if let Some(group) = group {
        dict.set_item("group", group)?;
    }
    if !headers.is_empty() {
        let shown = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        dict.set_item("headers", crate::jobs::headers(py, shown)?)?;
    }
    if let Some(content_type) = content_type {
        dict.set_item("content_type", content_type)?;
    }
    if let Some(attempts) = max_attempts {
        dict.set_item("max_attempts", attempts)?;
    }
    if let Some(backoff) = backoff {
        dict.set_item("backoff", backoff_value(py, backoff)?)?;
    }
    Ok(dict)
}

/// The arguments of `Queue.schedule`.
#[expect(clippy::too_many_arguments, reason = "they are Python's keyword arguments")]
pub(crate) fn schedule(
    name: &str,
    cron: &str,
    payload: &Encoded<'_>,
    zone: &str,
    misfire: &str,
    overlap: &str,
    jitter: f64,
    options: Option<&Bound<'_, PyAny>>,
) -> Result<Schedule> {
    const OPERATION: &str = "queue.schedule";
    let options = match options {
        None => None,
        Some(options) => {
            let dict = PyDict::new(options.py());
            for (name, value) in pairs("options", options)? {
                dict.set_item(name, value)?;
            }
            Some(dict)
        }
    };
    let schedule = Schedule {
        cron: cron.to_owned(),
        zone: zone.to_owned(),
        misfire: match misfire {
            "skip" => Misfire::Skip,
            "run_once" => Misfire::RunOnce,
            "run_all" => Misfire::RunAll,
            other => return Err(invalid(OPERATION, "misfire", shown(other), "skip, run_once or run_all")),
        },
        overlap: match overlap {
            "allow" => Overlap::Allow,
            "skip" => Overlap::Skip,
            "replace" => Overlap::Replace,
            other => return Err(invalid(OPERATION, "overlap", shown(other), "allow, skip or replace")),
        },
        jitter: seconds(OPERATION, "jitter", jitter)?,
        options: enqueue(options.as_ref(), payload.content_type())?,
        payload: payload.as_bytes().to_vec(),
        ..Schedule::new(name)
    };
    Ok(schedule)
}

pub(crate) fn schedule_dict<'py>(
    py: Python<'py>,
    schedule: &Schedule,
    next: Timestamp,
) -> Result<Bound<'py, PyDict>> {
    let Schedule { name, cron, zone, misfire, overlap, jitter, options, payload } = schedule;
    let dict = PyDict::new(py);
    dict.set_item("name", name)?;
    dict.set_item("cron", cron)?;
    dict.set_item("zone", zone)?;
    let misfire = match misfire {
        Misfire::Skip => "skip",
        Misfire::RunOnce => "run_once",
        Misfire::RunAll => "run_all",
    };
    dict.set_item("misfire", misfire)?;
    let overlap = match overlap {
        Overlap::Allow => "allow",
        Overlap::Skip => "skip",
        Overlap::Replace => "replace",
    };
    dict.set_item("overlap", overlap)?;
    dict.set_item("jitter", jitter.as_secs_f64())?;
    dict.set_item("options", enqueue_dict(py, options)?)?;
    dict.set_item("payload", pyo3::types::PyBytes::new(py, payload))?;
    dict.set_item("next", epoch(next))?;
    Ok(dict)
}

/// "os", "fsync", or the seconds within which it is flushed.
pub(crate) fn durability(operation: &'static str, value: &Bound<'_, PyAny>) -> Result<Durability> {
    const KNOWN: &str = "os, fsync, or seconds";
    if value.is_instance_of::<PyString>() {
        return match value.extract::<Text<'_>>()?.0 {
            "os" => Ok(Durability::Os),
            "fsync" => Ok(Durability::Fsync),
            other => Err(invalid(operation, "durability", shown(other), KNOWN)),
        };
    }
    let every = seconds(operation, "durability", number(value, "durability")?)?;
    let durability = Durability::Interval(every);
    QueueConfig { durability, ..QueueConfig::default() }.validate()?;
    Ok(durability)
}

pub(crate) fn durability_value(py: Python<'_>, durability: Durability) -> Result<Bound<'_, PyAny>> {
    Ok(match durability {
        Durability::Memory => pyo3::intern!(py, "memory").clone().into_any(),
        Durability::Os => pyo3::intern!(py, "os").clone().into_any(),
        Durability::Fsync => pyo3::intern!(py, "fsync").clone().into_any(),
        Durability::Interval(every) => PyFloat::new(py, every.as_secs_f64()).into_any(),
    })
}

/// A `Backoff`, a number of seconds, or a list of them.
fn backoff(operation: &'static str, value: &Bound<'_, PyAny>) -> Result<queue::Backoff> {
    if let Ok(backoff) = value.extract::<Backoff>() {
        return Ok(backoff.of_queue());
    }
    if is_number(value) {
        return Ok(queue::Backoff::Fixed(seconds(operation, "backoff", number(value, "backoff")?)?));
    }
    let wrong = || wrong_type("backoff", "flowmesh.Backoff, seconds, or a list of seconds", value);
    if value.is_instance_of::<PyString>() || value.is_instance_of::<PyDict>() {
        return Err(wrong());
    }
    let mut waits = Vec::new();
    // One more than there may be, however many it has.
    let islice = python::import(value.py(), "itertools", "islice")?;
    let first = python::call(&islice, (value, queue::BACKOFF_LIST_MAX + 1)).map_err(|_| wrong())?;
    for wait in python::items(&first)? {
        waits.push(seconds(operation, "backoff", number(&wait, "backoff")?)?);
    }
    Ok(queue::Backoff::List(waits))
}

fn backoff_value<'py>(py: Python<'py>, backoff: &queue::Backoff) -> Result<Bound<'py, PyAny>> {
    Ok(match backoff {
        queue::Backoff::Fixed(wait) => PyFloat::new(py, wait.as_secs_f64()).into_any(),
        queue::Backoff::List(waits) => PyList::new(py, waits.iter().map(Duration::as_secs_f64))?.into_any(),
        queue::Backoff::Exponential { initial, factor, max, jitter } => {
            Bound::new(py, Backoff::shown(*initial, *factor, *max, *jitter))?.into_any()
        }
    })
}

/// A `Rate`, or how many a second.
pub(crate) fn rate(
    operation: &'static str,
    argument: &'static str,
    value: &Bound<'_, PyAny>,
) -> Result<queue::Rate> {
    if let Ok(rate) = value.extract::<Rate>() {
        return Ok(rate.inner);
    }
    if value.is_instance_of::<PyInt>() && !value.is_instance_of::<PyBool>() {
        let count = whole(operation, argument, value)?;
        return Ok(queue::Rate { count, per: Duration::from_secs(1), burst: count });
    }
    Err(wrong_type(argument, "flowmesh.Rate, or int for so many a second", value))
}

/// A job's id: `str`, `uuid.UUID`, or the receipt of its enqueueing.
pub(crate) fn job_id(value: &Bound<'_, PyAny>) -> Result<JobId> {
    if value.is_instance_of::<PyString>() {
        return Ok(JobId::parse(value.extract::<Text<'_>>()?.0)?);
    }
    if let Ok(receipt) = value.cast::<crate::jobs::Receipt>() {
        return Ok(receipt.get().job());
    }
    if type_name(value) == "UUID"
        && let Ok(hex) = python::attribute(value, "hex")
        && let Ok(Text(hex)) = hex.extract::<Text<'_>>()
    {
        return Ok(JobId::parse(hex)?);
    }
    Err(wrong_type("id", "str, uuid.UUID or flowmesh.Receipt", value))
}

/// A moment: seconds since 1970 UTC, or a `datetime`.
fn wall(operation: &'static str, argument: &'static str, value: &Bound<'_, PyAny>) -> Result<Timestamp> {
    let stamp = match is_number(value) {
        true => number(value, argument)?,
        false => match python::call_method(value, "timestamp", ()) {
            Ok(stamp) => number(&stamp, argument)?,
            Err(_) => return Err(wrong_type(argument, "datetime, or seconds since 1970", value)),
        },
    };
    let ns = (stamp * 1e9).round();
    if !(ns >= 0.0 && ns < u64::MAX as f64) {
        return Err(invalid(operation, argument, stamp, "seconds since 1970, zero or more"));
    }
    Ok(Timestamp(ns as u64))
}

pub(crate) fn epoch(at: Timestamp) -> f64 {
    at.0 as f64 / 1e9
}

pub(crate) fn is_number(value: &Bound<'_, PyAny>) -> bool {
    (value.is_instance_of::<PyFloat>() || value.is_instance_of::<PyInt>())
        && !value.is_instance_of::<PyBool>()
}

/// A number of seconds, or the like. An int of any size is a float, the largest if it must.
pub(crate) fn number(value: &Bound<'_, PyAny>, argument: &str) -> Result<f64> {
    if !is_number(value) {
        return Err(wrong_type(argument, "a number of seconds", value));
    }
    if let Ok(number) = value.extract::<f64>() {
        return Ok(number);
    }
    Ok(if value.lt(0)? { f64::MIN } else { f64::MAX })
}

fn whole<T: TryFrom<i64>>(
    operation: &'static str,
    argument: &'static str,
    value: &Bound<'_, PyAny>,
) -> Result<T> {
    whole_type(argument, value)?.fitting(operation, argument)
}

fn whole_within<T: TryFrom<i64>>(
    operation: &'static str,
    argument: &'static str,
    value: &Bound<'_, PyAny>,
    range: std::ops::RangeInclusive<i64>,
) -> Result<T> {
    whole_type(argument, value)?.within(operation, argument, range)
}

fn whole_type(argument: &str, value: &Bound<'_, PyAny>) -> Result<Whole> {
    if value.is_instance_of::<PyBool>() || !value.is_instance_of::<PyInt>() {
        return Err(wrong_type(argument, "int", value));
    }
    Ok(value.extract::<Whole>()?)
}

fn text<'a>(argument: &str, value: &'a Bound<'_, PyAny>) -> Result<&'a str> {
    if !value.is_instance_of::<PyString>() {
        return Err(wrong_type(argument, "str", value));
    }
    Ok(value.extract::<Text<'_>>()?.0)
}

fn truth(argument: &str, value: &Bound<'_, PyAny>) -> Result<bool> {
    match value.cast::<PyBool>() {
        Ok(value) => Ok(value.is_true()),
        Err(_) => Err(wrong_type(argument, "bool", value)),
    }
}

/// The items of a mapping from `str`.
fn pairs<'py>(argument: &str, mapping: &Bound<'py, PyAny>) -> Result<Vec<(String, Bound<'py, PyAny>)>> {
    let wrong = || wrong_type(argument, "a mapping from str", mapping);
    let items = python::call_method(mapping, "items", ()).map_err(|_| wrong())?;
    let mut all = Vec::new();
    for item in python::items(&items)? {
        let (name, value) = item.extract::<(Bound<'py, PyAny>, Bound<'py, PyAny>)>().map_err(|_| wrong())?;
        if !name.is_instance_of::<PyString>() {
            return Err(wrong());
        }
        all.push((name.extract::<Text<'_>>()?.0.to_owned(), value));
    }
    Ok(all)
}

fn wrong_type(argument: &str, wanted: &str, value: &Bound<'_, PyAny>) -> crate::errors::Failure {
    type_error(format!("{argument} must be {wanted}, not {}", type_name(value))).into()
}

fn unexpected(name: &str, known: &str) -> crate::errors::Failure {
    type_error(format!("unexpected option {:?}; known are {known}", shown(name))).into()
}

/// What somebody else wrote, short enough for a message.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}
