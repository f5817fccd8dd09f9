//! Discovery and statistics.

use crate::{
    error::{c_string, give_string},
    flowmesh_status,
    guard::{Call, guard, guard_value},
    mesh::{MeshHandle, flowmesh_mesh},
    options::{SizedStruct, sized},
};
use flowmesh::{ErrorKind, InstanceInfo, Result, ServiceStats, SessionStats, Stats, SubscriptionStats};
use std::{
    ffi::{CString, c_char},
    ptr,
    sync::OnceLock,
    time::Duration,
};

/// Who serves what, as it was when it was asked for.
pub struct flowmesh_instance_list {
    _opaque: (),
}

/// All counters of a mesh at one moment.
pub struct flowmesh_snapshot {
    _opaque: (),
}

/// One instance of a service. Begin with `FLOWMESH_INSTANCE_INIT`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct flowmesh_instance {
    /// `sizeof` of this struct.
    pub struct_size: usize,
    /// The service's name.
    pub service: *const c_char,
    /// The service version it announced; empty for none.
    pub version: *const c_char,
    /// The name its process opened or connected with.
    pub client: *const c_char,
    /// Its number, unique on the mesh.
    pub instance: u64,
    /// Median time from accepting a call to its answer.
    pub latency_p50_ns: u64,
    /// The 99th percentile of the same.
    pub latency_p99_ns: u64,
    /// Its session; 0 is the host itself.
    pub session: u32,
    /// Its process.
    pub pid: u32,
    /// Calls it is working on.
    pub outstanding: u32,
    /// Calls it takes at once.
    pub concurrency: u32,
}

/// Counts over the whole mesh since its host opened. Begin with `FLOWMESH_TOTALS_INIT`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct flowmesh_totals {
    /// `sizeof` of this struct.
    pub struct_size: usize,
    /// How long the host has been open.
    pub uptime_ms: u64,
    /// Events accepted from publishers.
    pub published: u64,
    /// Their payload bytes.
    pub published_bytes: u64,
    /// Deliveries to subscriptions: one event to three subscriptions counts three.
    pub delivered: u64,
    /// Their payload bytes.
    pub delivered_bytes: u64,
    /// Deliveries lost because a subscription was slow.
    pub dropped: u64,
    /// Deliveries that came too late for their time to live.
    pub expired: u64,
    /// Events that no subscription matched.
    pub unmatched: u64,
    /// Events waiting for their delay to pass.
    pub delayed: u64,
    /// Times a publisher had to wait for a subscriber that blocks.
    pub blocked: u64,
    /// Sessions ended because the peer broke the protocol.
    pub protocol_violations: u64,
    /// Handshakes refused.
    pub handshakes_refused: u64,
}

/// One subscription's counts. Begin with `FLOWMESH_SUBSCRIPTION_STATS_INIT`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct flowmesh_subscription_stats {
    /// `sizeof` of this struct.
    pub struct_size: usize,
    /// Its pattern.
    pub pattern: *const c_char,
    /// Its queue group; empty for none.
    pub group: *const c_char,
    /// Events handed over.
    pub delivered: u64,
    /// Their payload bytes.
    pub delivered_bytes: u64,
    /// Events lost.
    pub dropped: u64,
    /// Events waiting now.
    pub depth: u64,
    /// The session it belongs to; 0 is the host itself.
    pub session: u32,
    /// 0.
    pub reserved: u32,
}

/// One service's counts, over all its instances. Begin with `FLOWMESH_SERVICE_STATS_INIT`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct flowmesh_service_stats {
    /// `sizeof` of this struct.
    pub struct_size: usize,
    /// Its name.
    pub name: *const c_char,
    /// Calls accepted.
    pub calls: u64,
    /// Calls that ended in a handler's failure.
    pub failed: u64,
    /// Calls whose deadline passed.
    pub timed_out: u64,
    /// Calls the caller cancelled.
    pub cancelled: u64,
    /// Calls whose instance died.
    pub peer_gone: u64,
    /// Calls refused by the rate limit.
    pub rate_limited: u64,
    /// Calls refused because too many were waiting.
    pub refused: u64,
    /// Calls an instance is working on now.
    pub in_flight: u64,
    /// Calls waiting for an instance now.
    pub depth: u64,
    /// Payload bytes of requests.
    pub request_bytes: u64,
    /// Payload bytes of responses.
    pub response_bytes: u64,
    /// Calls whose time was taken, from the host's accepting the call to its answer.
    pub latency_count: u64,
    /// Their mean.
    pub latency_mean_ns: u64,
    /// Their median, at most 12.5 % too large; so are the others.
    pub latency_p50_ns: u64,
    /// Their 99th percentile.
    pub latency_p99_ns: u64,
    /// The slowest.
    pub latency_max_ns: u64,
    /// Instances now.
    pub instances: u32,
    /// 0.
    pub reserved: u32,
}

/// One session: a client of the host. Begin with `FLOWMESH_SESSION_STATS_INIT`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct flowmesh_session_stats {
    /// `sizeof` of this struct.
    pub struct_size: usize,
    /// The name the client gave.
    pub name: *const c_char,
    /// The client's language: `c`, `python`, `node`, `rust`.
    pub language: *const c_char,
    /// The client's FlowMesh version.
    pub version: *const c_char,
    /// `shm`, `unix` or `tcp`.
    pub transport: *const c_char,
    /// Frames received from the client.
    pub frames_in: u64,
    /// Bytes received from the client.
    pub bytes_in: u64,
    /// Frames sent to the client.
    pub frames_out: u64,
    /// Bytes sent to the client.
    pub bytes_out: u64,
    /// Bytes waiting at the host for room in the ring.
    pub backlog_bytes: u64,
    /// Its number.
    pub session: u32,
    /// The client's process.
    pub pid: u32,
}

sized! {
    flowmesh_instance = {};
    flowmesh_totals = {};
    flowmesh_subscription_stats = {};
    flowmesh_service_stats = {};
    flowmesh_session_stats = {};
}

/// A value and its texts as C strings, which C is lent.
struct Named<T, const N: usize> {
    value: T,
    texts: [CString; N],
}

pub(crate) struct InstancesHandle(Vec<Named<InstanceInfo, 3>>);

pub(crate) struct SnapshotHandle {
    totals: flowmesh_totals,
    subscriptions: Vec<Named<SubscriptionStats, 2>>,
    services: Vec<Named<ServiceStats, 1>>,
    sessions: Vec<Named<SessionStats, 4>>,
}

/// § Discovery
///
/// Asks the host who serves what. The list in `*out` is the caller's to free; it does not change.
///
/// Threads: any. Blocks until the host has answered.
///
/// # Errors
/// `CLOSED`, `DISCONNECTED`, `FORKED`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_services(
    mesh: *mut flowmesh_mesh,
    out: *mut *mut flowmesh_instance_list,
) -> flowmesh_status {
    guard("flowmesh_services", |call| {
        // SAFETY: the arguments are as the manual asks.
        let out = unsafe { call.out(out, ptr::null_mut(), "out") }?;
        let services = call.live::<MeshHandle>(mesh)?.mesh.services()?;
        let named = services.into_iter().flat_map(|service| {
            let instances = service.instances.into_iter();
            instances.map(move |value| {
                let texts = [c_string(&service.name), c_string(&value.version), c_string(&value.client)];
                Named { value, texts }
            })
        });
        out.set(call.give(InstancesHandle(named.collect()))?);
        Ok(())
    })
}

/// How many instances it lists; those of one service stand together.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_instance_list_count(list: *const flowmesh_instance_list) -> usize {
    guard_value("flowmesh_instance_list_count", 0, |call| Ok(call.live::<InstancesHandle>(list)?.0.len()))
}

/// Instance number `index`, from 0, into `*out`, which begins with its size (`FLOWMESH_INSTANCE_INIT`). Its texts are
/// lent until the list is freed.
///
/// # Errors
/// `NOT_FOUND`: it lists fewer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_instance_list_get(
    list: *const flowmesh_instance_list,
    index: usize,
    out: *mut flowmesh_instance,
) -> flowmesh_status {
    guard("flowmesh_instance_list_get", |call| {
        let list = call.live::<InstancesHandle>(list)?;
        let Named { value, texts: [service, version, client] } = call.pick(&list.0, index)?;
        let filled = flowmesh_instance {
            struct_size: 0,
            service: service.as_ptr(),
            version: version.as_ptr(),
            client: client.as_ptr(),
            instance: value.instance,
            latency_p50_ns: value.latency_p50_ns,
            latency_p99_ns: value.latency_p99_ns,
            session: value.session,
            pid: value.pid,
            outstanding: value.outstanding,
            concurrency: value.concurrency,
        };
        // SAFETY: the manual asks for a struct that begins with its size.
        unsafe { call.fill(out, &filled) }
    })
}

/// Frees it. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_instance_list_free(list: *mut flowmesh_instance_list) -> flowmesh_status {
    guard("flowmesh_instance_list_free", |call| call.free::<InstancesHandle>(list, |_| ()))
}

/// § Statistics
///
/// Asks the host for all its counters, taken at one moment. The snapshot in `*out` is the caller's to free; it does
/// not change.
///
/// Threads: any. Blocks until the host has answered.
///
/// # Errors
/// `CLOSED`, `DISCONNECTED`, `FORKED`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_stats(
    mesh: *mut flowmesh_mesh,
    out: *mut *mut flowmesh_snapshot,
) -> flowmesh_status {
    guard("flowmesh_stats", |call| {
        // SAFETY: the arguments are as the manual asks.
        let out = unsafe { call.out(out, ptr::null_mut(), "out") }?;
        let stats = call.live::<MeshHandle>(mesh)?.mesh.stats()?;
        out.set(call.give(SnapshotHandle::of(stats))?);
        Ok(())
    })
}

/// The same as JSON, with the latency histograms' buckets. The text in `*out` is the caller's to free with
/// `flowmesh_string_free`.
///
/// Threads, blocking and errors: as `flowmesh_stats`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_stats_json(
    mesh: *mut flowmesh_mesh,
    out: *mut *mut c_char,
) -> flowmesh_status {
    guard("flowmesh_stats_json", |call| {
        // SAFETY: the arguments are as the manual asks.
        let out = unsafe { call.out(out, ptr::null_mut(), "out") }?;
        let stats = call.live::<MeshHandle>(mesh)?.mesh.stats()?;
        let json =
            serde_json::to_string(&stats).map_err(|error| call.error(ErrorKind::Internal).because(error))?;
        out.set(give_string(&json));
        Ok(())
    })
}

/// The counts over the whole mesh, into `*out`, which begins with its size (`FLOWMESH_TOTALS_INIT`).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_snapshot_totals(
    snapshot: *const flowmesh_snapshot,
    out: *mut flowmesh_totals,
) -> flowmesh_status {
    guard("flowmesh_snapshot_totals", |call| {
        let snapshot = call.live::<SnapshotHandle>(snapshot)?;
        // SAFETY: the manual asks for a struct that begins with its size.
        unsafe { call.fill(out, &snapshot.totals) }
    })
}

/// How many subscriptions it has.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_snapshot_subscription_count(snapshot: *const flowmesh_snapshot) -> usize {
    guard_value("flowmesh_snapshot_subscription_count", 0, |call| {
        Ok(call.live::<SnapshotHandle>(snapshot)?.subscriptions.len())
    })
}

/// Subscription number `index`, from 0, into `*out`, which begins with its size
/// (`FLOWMESH_SUBSCRIPTION_STATS_INIT`). Its texts are lent until the snapshot is freed.
///
/// # Errors
/// `NOT_FOUND`: there are fewer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_snapshot_subscription(
    snapshot: *const flowmesh_snapshot,
    index: usize,
    out: *mut flowmesh_subscription_stats,
) -> flowmesh_status {
    guard("flowmesh_snapshot_subscription", |call| {
        let snapshot = call.live::<SnapshotHandle>(snapshot)?;
        let Named { value, texts: [pattern, group] } = call.pick(&snapshot.subscriptions, index)?;
        // SAFETY: the manual asks for a struct that begins with its size.
        unsafe { call.fill(out, &subscription(value, pattern, group)) }
    })
}

/// How many services it has.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_snapshot_service_count(snapshot: *const flowmesh_snapshot) -> usize {
    guard_value("flowmesh_snapshot_service_count", 0, |call| {
        Ok(call.live::<SnapshotHandle>(snapshot)?.services.len())
    })
}

/// Service number `index`, from 0, into `*out`, which begins with its size (`FLOWMESH_SERVICE_STATS_INIT`). Its name is
/// lent until the snapshot is freed.
///
/// # Errors
/// `NOT_FOUND`: there are fewer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_snapshot_service(
    snapshot: *const flowmesh_snapshot,
    index: usize,
    out: *mut flowmesh_service_stats,
) -> flowmesh_status {
    guard("flowmesh_snapshot_service", |call| {
        let snapshot = call.live::<SnapshotHandle>(snapshot)?;
        let Named { value, texts: [name] } = call.pick(&snapshot.services, index)?;
        // SAFETY: the manual asks for a struct that begins with its size.
        unsafe { call.fill(out, &service(value, name)) }
    })
}

/// How many sessions it has: one for each client.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_snapshot_session_count(snapshot: *const flowmesh_snapshot) -> usize {
    guard_value("flowmesh_snapshot_session_count", 0, |call| {
        Ok(call.live::<SnapshotHandle>(snapshot)?.sessions.len())
    })
}

/// Session number `index`, from 0, into `*out`, which begins with its size (`FLOWMESH_SESSION_STATS_INIT`). Its texts
/// are lent until the snapshot is freed.
///
/// # Errors
/// `NOT_FOUND`: there are fewer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_snapshot_session(
    snapshot: *const flowmesh_snapshot,
    index: usize,
    out: *mut flowmesh_session_stats,
) -> flowmesh_status {
    guard("flowmesh_snapshot_session", |call| {
        let snapshot = call.live::<SnapshotHandle>(snapshot)?;
        let Named { value, texts } = call.pick(&snapshot.sessions, index)?;
        // SAFETY: the manual asks for a struct that begins with its size.
        unsafe { call.fill(out, &session(value, texts)) }
    })
}

/// Frees it. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_snapshot_free(snapshot: *mut flowmesh_snapshot) -> flowmesh_status {
    guard("flowmesh_snapshot_free", |call| call.free::<SnapshotHandle>(snapshot, |_| ()))
}

impl Call {
    pub(crate) fn pick<T>(self, list: &[T], index: usize) -> Result<&T> {
        let found = list.get(index);
        found.ok_or_else(|| self.error(ErrorKind::NotFound).with("index", index).with("count", list.len()))
    }
}

impl SnapshotHandle {
    fn of(stats: Stats) -> Self {
        let totals = totals(&stats);
        let subscriptions = stats.subscriptions.into_iter().map(|value| {
            let texts = [c_string(&value.pattern), c_string(&value.group)];
            Named { value, texts }
        });
        let services =
            stats.services.into_iter().map(|value| Named { texts: [c_string(&value.name)], value });
        let sessions = stats.sessions.into_iter().map(|value| {
            let texts =
                [&value.name, &value.language, &value.version, &value.transport].map(|text| c_string(text));
            Named { value, texts }
        });
        Self {
            totals,
            subscriptions: subscriptions.collect(),
            services: services.collect(),
            sessions: sessions.collect(),
        }
    }
}

/// The texts of one subscription's own counts, which never change.
#[derive(Default)]
pub(crate) struct SubscriptionTexts(OnceLock<[CString; 2]>);

impl SubscriptionTexts {
    pub(crate) fn fill(&self, value: &SubscriptionStats) -> flowmesh_subscription_stats {
        let [pattern, group] = self.0.get_or_init(|| [c_string(&value.pattern), c_string(&value.group)]);
        subscription(value, pattern, group)
    }
}

fn totals(stats: &Stats) -> flowmesh_totals {
    let bus = &stats.bus;
    flowmesh_totals {
        struct_size: 0,
        uptime_ms: stats.uptime_ms,
        published: bus.published,
        published_bytes: bus.published_bytes,
        delivered: bus.delivered,
        delivered_bytes: bus.delivered_bytes,
        dropped: bus.dropped,
        expired: bus.expired,
        unmatched: bus.unmatched,
        delayed: bus.delayed,
        blocked: bus.blocked,
        protocol_violations: stats.protocol_violations,
        handshakes_refused: stats.handshakes_refused,
    }
}

fn subscription(
    value: &SubscriptionStats,
    pattern: &CString,
    group: &CString,
) -> flowmesh_subscription_stats {
    flowmesh_subscription_stats {
        struct_size: 0,
        pattern: pattern.as_ptr(),
        group: group.as_ptr(),
        delivered: value.delivered,
        delivered_bytes: value.delivered_bytes,
        dropped: value.dropped,
        depth: value.depth,
        session: value.session,
        reserved: 0,
    }
}

fn service(value: &ServiceStats, name: &CString) -> flowmesh_service_stats {
    let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    flowmesh_service_stats {
        struct_size: 0,
        name: name.as_ptr(),
        calls: value.calls,
        failed: value.failed,
        timed_out: value.timed_out,
        cancelled: value.cancelled,
        peer_gone: value.peer_gone,
        rate_limited: value.rate_limited,
        refused: value.refused,
        in_flight: value.in_flight,
        depth: value.depth,
        request_bytes: value.request_bytes,
        response_bytes: value.response_bytes,
        latency_count: value.latency.count(),
        latency_mean_ns: ns(value.latency.mean()),
        latency_p50_ns: ns(value.latency.quantile(0.5)),
        latency_p99_ns: ns(value.latency.quantile(0.99)),
        latency_max_ns: ns(value.latency.max()),
        instances: value.instances,
        reserved: 0,
    }
}

fn session(value: &SessionStats, texts: &[CString; 4]) -> flowmesh_session_stats {
    let [name, language, version, transport] = texts.each_ref().map(|text| text.as_ptr());
    flowmesh_session_stats {
        struct_size: 0,
        name,
        language,
        version,
        transport,
        frames_in: value.frames_in,
        bytes_in: value.bytes_in,
        frames_out: value.frames_out,
        bytes_out: value.bytes_out,
        backlog_bytes: value.backlog_bytes,
        session: value.session,
        pid: value.pid,
    }
}
