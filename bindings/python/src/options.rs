//! Options that are values of their own: retries, backoff, the circuit breaker.

use crate::{
    args::{Text, Whole, seconds},
    errors::{Result, invalid},
};
use flowmesh::{BreakerOptions, Name, OnSlow, RateLimit, ServeOptions, Subject, SubscribeOptions};
use pyo3::prelude::*;
use std::time::Duration;

/// A wait that grows with each failure: `initial` seconds, times `factor` each time, at most `max`. With `jitter` each
/// wait is anything up to that, so what failed together does not come back together: jobs have it unless it is
/// False, events never.
#[pyclass(frozen, eq, module = "flowmesh", from_py_object)]
#[derive(Clone, PartialEq)]
pub(crate) struct Backoff {
    inner: flowmesh::Backoff,
    jitter: Option<bool>,
}

#[pymethods]
impl Backoff {
    #[new]
    #[pyo3(signature = (initial=0.1, factor=2.0, max=30.0, jitter=None))]
    fn new(initial: f64, factor: f64, max: f64, jitter: Option<bool>) -> Result<Self> {
        let inner = flowmesh::Backoff {
            initial: seconds("backoff", "initial", initial)?,
            factor,
            max: seconds("backoff", "max", max)?,
        };
        validate(flowmesh::Retry { backoff: inner, ..flowmesh::Retry::default() })?;
        Ok(Self { inner, jitter })
    }

    /// Seconds after the first failure.
    #[getter]
    fn initial(&self) -> f64 {
        self.inner.initial.as_secs_f64()
    }

    /// What each further failure multiplies the wait by.
    #[getter]
    fn factor(&self) -> f64 {
        self.inner.factor
    }

    /// The longest wait, in seconds.
    #[getter]
    fn max(&self) -> f64 {
        self.inner.max.as_secs_f64()
    }

    /// Whether each wait is chosen anew; None if nobody said.
    #[getter]
    fn jitter(&self) -> Option<bool> {
        self.jitter
    }

    fn __repr__(&self) -> String {
        let jitter = match self.jitter {
            None => "",
            Some(true) => ", jitter=True",
            Some(false) => ", jitter=False",
        };
        format!(
            "Backoff(initial={:?}, factor={:?}, max={:?}{jitter})",
            self.initial(),
            self.factor(),
            self.max()
        )
    }
}

impl Backoff {
    pub(crate) fn of_queue(&self) -> flowmesh::queue::Backoff {
        let flowmesh::Backoff { initial, factor, max } = self.inner;
        flowmesh::queue::Backoff::Exponential { initial, factor, max, jitter: self.jitter.unwrap_or(true) }
    }

    pub(crate) fn shown(initial: Duration, factor: f64, max: Duration, jitter: bool) -> Self {
        Self { inner: flowmesh::Backoff { initial, factor, max }, jitter: Some(jitter) }
    }
}

/// How often and when an event is delivered again to a handler that failed.
#[pyclass(frozen, eq, module = "flowmesh", from_py_object)]
#[derive(Clone, PartialEq)]
pub(crate) struct Retry {
    inner: flowmesh::Retry,
}

#[pymethods]
impl Retry {
    #[new]
    #[pyo3(
        signature = (max_attempts=Whole(3), backoff=None, dead_letter=None),
        text_signature = "(max_attempts=3, backoff=None, dead_letter=None)"
    )]
    fn new(max_attempts: Whole, backoff: Option<Backoff>, dead_letter: Option<Text<'_>>) -> Result<Self> {
        if backoff.as_ref().is_some_and(|backoff| backoff.jitter == Some(true)) {
            return Err(invalid("retry", "backoff.jitter", true, "for jobs only"));
        }
        let inner = flowmesh::Retry {
            max_attempts: max_attempts.within(
                "retry",
                "max_attempts",
                1..=flowmesh::bus::ATTEMPTS_MAX.into(),
            )?,
            backoff: backoff.map_or_else(flowmesh::Backoff::default, |backoff| backoff.inner),
            dead_letter: dead_letter.map(|Text(subject)| Subject::parse(subject)).transpose()?,
        };
        validate(inner.clone())?;
        Ok(Self { inner })
    }

    /// Deliveries in all, the first included.
    #[getter]
    fn max_attempts(&self) -> u32 {
        self.inner.max_attempts
    }

    /// How long after a failure.
    #[getter]
    fn backoff(&self) -> Backoff {
        Backoff { inner: self.inner.backoff, jitter: None }
    }

    /// The subject that events go to which failed every time, or None.
    #[getter]
    fn dead_letter(&self) -> Option<&str> {
        self.inner.dead_letter.as_ref().map(Subject::as_str)
    }

    fn __repr__(&self) -> String {
        let dead_letter =
            self.dead_letter().map_or_else(|| "None".to_owned(), |subject| format!("{subject:?}"));
        format!(
            "Retry(max_attempts={}, backoff={}, dead_letter={dead_letter})",
            self.inner.max_attempts,
            self.backoff().__repr__()
        )
    }
}

fn validate(retry: flowmesh::Retry) -> Result<()> {
    Ok(SubscribeOptions { retry: Some(retry), ..SubscribeOptions::default() }.validate()?)
}

/// When calls to a service that fails are refused at once, for a while.
#[pyclass(frozen, eq, module = "flowmesh", from_py_object)]
#[derive(Clone, PartialEq)]
pub(crate) struct Breaker {
    pub(crate) inner: BreakerOptions,
}

#[pymethods]
impl Breaker {
    #[new]
    #[pyo3(
        signature = (window=10.0, min_calls=Whole(10), failure_ratio=0.5, open_for=1.0, open_for_max=30.0, probes=Whole(1)),
        text_signature = "(window=10.0, min_calls=10, failure_ratio=0.5, open_for=1.0, open_for_max=30.0, probes=1)"
    )]
    fn new(
        window: f64,
        min_calls: Whole,
        failure_ratio: f64,
        open_for: f64,
        open_for_max: f64,
        probes: Whole,
    ) -> Result<Self> {
        let operation = "breaker";
        let inner = BreakerOptions {
            window: seconds(operation, "window", window)?,
            min_calls: min_calls.fitting(operation, "min_calls")?,
            failure_ratio,
            open_for: seconds(operation, "open_for", open_for)?,
            open_for_max: seconds(operation, "open_for_max", open_for_max)?,
            probes: probes.fitting(operation, "probes")?,
        };
        inner.validate()?;
        Ok(Self { inner })
    }

    /// Calls are looked at for this many seconds.
    #[getter]
    fn window(&self) -> f64 {
        self.inner.window.as_secs_f64()
    }

    /// Fewer calls in the window than this open nothing.
    #[getter]
    fn min_calls(&self) -> u32 {
        self.inner.min_calls
    }

    /// The share of failures among them that opens it.
    #[getter]
    fn failure_ratio(&self) -> f64 {
        self.inner.failure_ratio
    }

    /// Seconds it stays open the first time.
    #[getter]
    fn open_for(&self) -> f64 {
        self.inner.open_for.as_secs_f64()
    }

    /// The most seconds it stays open.
    #[getter]
    fn open_for_max(&self) -> f64 {
        self.inner.open_for_max.as_secs_f64()
    }

    /// Calls let through at once while half open.
    #[getter]
    fn probes(&self) -> u32 {
        self.inner.probes
    }

    fn __repr__(&self) -> String {
        format!(
            "Breaker(window={:?}, min_calls={}, failure_ratio={:?}, open_for={:?}, open_for_max={:?}, probes={})",
            self.window(),
            self.inner.min_calls,
            self.inner.failure_ratio,
            self.open_for(),
            self.open_for_max(),
            self.inner.probes
        )
    }
}

/// The options of `Mesh.subscribe`.
pub(crate) fn subscribe(
    group: Option<Text<'_>>,
    priority: Whole,
    capacity: Whole,
    on_slow: Text<'_>,
    block_timeout: f64,
    retry: Option<Retry>,
) -> Result<SubscribeOptions> {
    let operation = "mesh.subscribe";
    let on_slow = match on_slow.0 {
        "drop_oldest" => OnSlow::DropOldest,
        "block" => OnSlow::Block { timeout: seconds(operation, "block_timeout", block_timeout)? },
        "disconnect" => OnSlow::Disconnect,
        other => return Err(invalid(operation, "on_slow", other, "drop_oldest, block or disconnect")),
    };
    Ok(SubscribeOptions {
        group: group.map(|Text(name)| Name::parse(name)).transpose()?,
        priority: priority.fitting(operation, "priority")?,
        on_slow,
        capacity: capacity.fitting(operation, "capacity")?,
        retry: retry.map(|retry| retry.inner),
    })
}

/// The options of `Mesh.serve`.
pub(crate) fn serve(
    concurrency: Whole,
    version: Text<'_>,
    queue: Whole,
    rate: Option<f64>,
    burst: Option<Whole>,
) -> Result<ServeOptions> {
    let operation = "mesh.serve";
    let rate = match (rate, burst) {
        (None, None) => None,
        (None, Some(_)) => return Err(invalid(operation, "burst", "given", "only together with rate")),
        // A second's worth at once, if nothing else is said.
        (Some(per_second), None) => Some(RateLimit { per_second, burst: per_second.clamp(1.0, 1e6) as u32 }),
        (Some(per_second), Some(burst)) => {
            Some(RateLimit { per_second, burst: burst.fitting(operation, "burst")? })
        }
    };
    Ok(ServeOptions {
        version: version.0.to_owned(),
        concurrency: concurrency.fitting(operation, "concurrency")?,
        queue: queue.fitting(operation, "queue")?,
        rate,
    })
}
