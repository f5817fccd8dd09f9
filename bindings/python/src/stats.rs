//! Statistics and discovery as dictionaries, under the field names that every language shows.
//!
//! Each struct is taken apart in full, so a new counter does not compile until it is shown here.

use crate::queue_options::epoch;
use flowmesh::{
    BusStats, Histogram, InstanceInfo, ServiceInfo, ServiceStats, SessionStats, Stats, SubscriptionStats,
    queue::{Failure, JobInfo, JobState, QueueStats, Totals},
};
use pyo3::{
    prelude::*,
    types::{PyBytes, PyDict, PyList},
};

macro_rules! dict {
    ($py:expr, $type:ident { $($field:ident),* $(; $($nested:ident = $made:expr),*)? } = $from:expr) => {{
        let $type { $($field,)* $($($nested,)*)? } = $from;
        let dict = PyDict::new($py);
        $(dict.set_item(stringify!($field), $field)?;)*
        $($(dict.set_item(stringify!($nested), $made)?;)*)?
        Ok(dict)
    }};
}

pub(crate) fn mesh<'py>(py: Python<'py>, stats: &Stats) -> PyResult<Bound<'py, PyDict>> {
    dict!(py, Stats {
        uptime_ms, protocol_violations, handshakes_refused;
        bus = bus_counts(py, bus)?,
        subscriptions = list(py, subscriptions, subscription)?,
        services = list(py, services, service)?,
        sessions = list(py, sessions, session)?
    } = stats)
}

fn bus_counts<'py>(py: Python<'py>, stats: &BusStats) -> PyResult<Bound<'py, PyDict>> {
    dict!(
        py,
        BusStats {
            published,
            published_bytes,
            delivered,
            delivered_bytes,
            dropped,
            expired,
            unmatched,
            delayed,
            blocked
        } = stats
    )
}

pub(crate) fn subscription<'py>(py: Python<'py>, stats: &SubscriptionStats) -> PyResult<Bound<'py, PyDict>> {
    dict!(
        py,
        SubscriptionStats { pattern, group, session, delivered, delivered_bytes, dropped, depth } = stats
    )
}

fn service<'py>(py: Python<'py>, stats: &ServiceStats) -> PyResult<Bound<'py, PyDict>> {
    dict!(py, ServiceStats {
        name, instances, calls, failed, timed_out, cancelled, peer_gone, rate_limited, refused, in_flight, depth,
        request_bytes, response_bytes;
        latency = latencies(py, latency)?
    } = stats)
}

fn session<'py>(py: Python<'py>, stats: &SessionStats) -> PyResult<Bound<'py, PyDict>> {
    dict!(
        py,
        SessionStats {
            session,
            name,
            language,
            version,
            pid,
            transport,
            frames_in,
            bytes_in,
            frames_out,
            bytes_out,
            backlog_bytes
        } = stats
    )
}

fn latencies<'py>(py: Python<'py>, latency: &Histogram) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("count", latency.count())?;
    for (name, value) in [
        ("mean_ns", latency.mean()),
        ("p50_ns", latency.quantile(0.5)),
        ("p90_ns", latency.quantile(0.9)),
        ("p99_ns", latency.quantile(0.99)),
        ("max_ns", latency.max()),
    ] {
        dict.set_item(name, value.as_nanos())?;
    }
    Ok(dict)
}

/// Numbers of a queue.
pub(crate) fn queue<'py>(py: Python<'py>, stats: &QueueStats) -> PyResult<Bound<'py, PyDict>> {
    dict!(py, QueueStats {
        payload_bytes, paused, draining, groups, redriving;
        jobs = by_state(py, jobs)?,
        oldest_ready = oldest_ready.map(|age| age.as_secs_f64()),
        totals = totals_dict(py, totals)?
    } = stats)
}

fn by_state<'py>(py: Python<'py>, jobs: &[u64; 9]) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (state, count) in JobState::ALL.into_iter().zip(jobs) {
        dict.set_item(state.name(), count)?;
    }
    Ok(dict)
}

fn totals_dict<'py>(py: Python<'py>, totals: &Totals) -> PyResult<Bound<'py, PyDict>> {
    dict!(
        py,
        Totals {
            enqueued,
            duplicates,
            reserved,
            done,
            failed,
            lease_expired,
            worker_gone,
            released,
            dead,
            cancelled,
            expired,
            redriven,
            removed
        } = totals
    )
}

/// What listing and looking tell about a job. Times are seconds since 1970 UTC.
pub(crate) fn job<'py>(py: Python<'py>, info: &JobInfo) -> PyResult<Bound<'py, PyDict>> {
    dict!(py, JobInfo {
        priority, attempt, max_attempts, group, unique_key, payload_bytes, redrives, cancelling, has_result;
        id = id.to_string(),
        state = state.name(),
        since = epoch(*since),
        due = due.map(epoch),
        expires = expires.map(epoch),
        worker = worker.map(|worker| worker.0),
        progress = progress.as_ref().map(|bytes| PyBytes::new(py, bytes)),
        failures = list(py, failures, failure)?
    } = info)
}

fn failure<'py>(py: Python<'py>, failure: &Failure) -> PyResult<Bound<'py, PyDict>> {
    dict!(py, Failure { attempt, message, detail; at = epoch(*at) } = failure)
}

pub(crate) fn services<'py>(py: Python<'py>, services: &[ServiceInfo]) -> PyResult<Bound<'py, PyList>> {
    list(
        py,
        services,
        |py, info| dict!(py, ServiceInfo { name; instances = list(py, instances, instance)? } = info),
    )
}

fn instance<'py>(py: Python<'py>, info: &InstanceInfo) -> PyResult<Bound<'py, PyDict>> {
    dict!(
        py,
        InstanceInfo {
            instance,
            version,
            session,
            pid,
            client,
            outstanding,
            concurrency,
            latency_p50_ns,
            latency_p99_ns
        } = info
    )
}

pub(crate) fn list<'py, T>(
    py: Python<'py>,
    items: &[T],
    dict: impl Fn(Python<'py>, &T) -> PyResult<Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyList>> {
    PyList::new(py, items.iter().map(|item| dict(py, item)).collect::<PyResult<Vec<_>>>()?)
}
