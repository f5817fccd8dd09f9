//! The worker runtime: C functions that are called with jobs.

use super::{
    QueueHandle, flowmesh_queue,
    job::{JobHandle, flowmesh_job},
};
use crate::{
    callback::{Context, failure, flowmesh_drop},
    flowmesh_status,
    guard::{Call, guard, guard_number},
    handle::{Live, take_back},
    options::{SizedStruct, sized},
    wait::Interrupt,
};
use flowmesh::{ErrorKind, Job, JobError, Result, Worker, WorkerOptions, WorkerStats};
use std::{
    cell::RefCell,
    ffi::{c_char, c_void},
    ptr,
    sync::Arc,
    time::Duration,
};

/// What a job's handler returns beside `FLOWMESH_OK` and the codes of `enum flowmesh_code`.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum flowmesh_handled {
    /// No attempt can succeed: the job is dead. See `flowmesh_handler_reject`.
    FLOWMESH_HANDLER_REJECT = 1,
    /// Later; the attempt does not count. See `flowmesh_handler_snooze`.
    FLOWMESH_HANDLER_SNOOZE = 2,
    /// For another worker; the attempt does not count.
    FLOWMESH_HANDLER_RELEASE = 3,
}

/// Works on one job, which is lent until it returns. What it returns settles the job, unless the handler did so itself:
///
/// - `FLOWMESH_OK`: it is done, with the result of `flowmesh_job_set_result` if there is one.
/// - `flowmesh_handler_reject(...)`, `flowmesh_handler_snooze(...)` or `FLOWMESH_HANDLER_RELEASE`.
/// - Anything else, most easily `flowmesh_handler_error(...)`: the attempt failed.
pub type flowmesh_job_handler =
    Option<unsafe extern "C" fn(context: *mut c_void, job: *mut flowmesh_job) -> flowmesh_status>;

/// A worker: threads that take jobs of a queue and have a handler called for each.
pub struct flowmesh_worker {
    _opaque: (),
}

/// How a worker works. Begin with `FLOWMESH_WORKER_OPTIONS_INIT`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct flowmesh_worker_options {
    /// `sizeof` of this struct.
    pub struct_size: usize,
    /// How long each job is the worker's before its lease must be extended, which the library does: 1000 to 43200000
    /// (12 hours). -1 in `INIT`: as the job or the queue says. When the process dies, its jobs are another's at once; when it hangs,
    /// after this time.
    pub lease_ms: i64,
    /// Jobs at once, each in a thread of its own, 1 to 1024. 1 in `INIT`.
    pub concurrency: u32,
    /// 0.
    pub reserved: u32,
}

/// What a worker has done. Begin with `FLOWMESH_WORKER_STATS_INIT`. Jobs that the handler settled itself count nowhere.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct flowmesh_worker_stats {
    /// `sizeof` of this struct.
    pub struct_size: usize,
    /// Jobs that are being worked on now.
    pub running: u64,
    /// Jobs acked.
    pub done: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Jobs rejected.
    pub rejected: u64,
    /// Jobs released or put off.
    pub released: u64,
    /// Jobs whose lease was lost before their outcome could be told: another worker has them.
    pub lost: u64,
}

sized! {
    flowmesh_worker_options = { lease_ms: -1, concurrency: 1 };
    flowmesh_worker_stats = {};
}

pub(crate) struct WorkerHandle {
    worker: Worker,
    /// A forked child has the handle, but not the threads.
    pid: u32,
}

/// § Workers
///
/// Works on jobs of `queue`: calls `handler` for each, in `concurrency` threads of the library, so in several at once when
/// that is more than 1. Leases are extended for as long as the handler takes. What the handler returns settles the job, as
/// durably as the handle `queue` says. `options`, `context` and `drop` may be NULL.
///
/// A job that is cancelled meanwhile, or that is not this worker's any more, says so: long handlers look at
/// `flowmesh_job_is_cancelled`.
///
/// The worker in `*out` is the caller's to free; `queue` may be freed before. `drop(context)` is called exactly once, also
/// when this function fails.
///
/// Threads: any. Does not block.
///
/// # Errors
/// `INVALID_ARGUMENT`: an option is out of its range. `RESOURCE_EXHAUSTED`: the system gives no more threads. `CLOSED`,
/// `DISCONNECTED`, `FORKED`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_worker_start(
    queue: *mut flowmesh_queue,
    options: *const flowmesh_worker_options,
    handler: flowmesh_job_handler,
    context: *mut c_void,
    drop: flowmesh_drop,
    out: *mut *mut flowmesh_worker,
) -> flowmesh_status {
    let context = Context::new(context, drop);
    guard("flowmesh_worker_start", move |call| {
        // SAFETY: the arguments are as the manual asks.
        let out = unsafe { call.out(out, ptr::null_mut(), "out") }?;
        let queue = call.live::<QueueHandle>(queue)?;
        // SAFETY: the arguments are as the manual asks.
        let options = unsafe { call.options(options) }?;
        let options = WorkerOptions {
            concurrency: options.concurrency as usize,
            lease: call.given_time(options.lease_ms, "lease_ms")?,
        };
        let handler = handler.ok_or_else(|| call.null("handler"))?;
        let interrupt = queue.0.interrupt;
        let work = move |job: &Arc<Job>| -> std::result::Result<Option<Vec<u8>>, JobError> {
            let loan = Loan::new(call, job, interrupt)?;
            SAID.take();
            // SAFETY: the manual asks for a function that takes this context and a job.
            let status = unsafe { handler(context.pointer(), loan.handle) };
            match (status, SAID.take()) {
                (0, _) => Ok(loan.result()),
                (1, Some(said @ JobError::Reject(_))) | (2, Some(said @ JobError::Snooze(_))) => Err(said),
                (1, _) => Err(JobError::Reject("the handler rejected it".to_owned())),
                (2, _) => Err(JobError::Snooze(Duration::ZERO)),
                (3, _) => Err(JobError::Release),
                (status, _) => {
                    let failed = failure(status);
                    let message = format!("{}: {}", failed.kind, failed.message);
                    Err(JobError::Failed { message, detail: String::new() })
                }
            }
        };
        let worker = queue.queue().process_shared(options, work)?;
        out.set(call.give(WorkerHandle { worker, pid: std::process::id() })?);
        Ok(())
    })
}

/// Takes no more jobs, waits at most `timeout_ms` (below 0 for ever) for the handlers that are running, and then gives the
/// jobs of the others back: their attempt does not count, and they are cancelled for their handlers. The worker is still to
/// be freed.
///
/// Threads: any but its own handlers, which would wait for themselves: `flowmesh_worker_free` is for these. Signals do not
/// end the wait.
///
/// # Errors
/// `TIMEOUT`: some handlers had not returned; their jobs were given back. `FORKED`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_worker_stop(
    worker: *mut flowmesh_worker,
    timeout_ms: i64,
) -> flowmesh_status {
    guard("flowmesh_worker_stop", |call| {
        let handle = call.live::<WorkerHandle>(worker)?;
        handle.check_here(call)?;
        let timeout = u64::try_from(timeout_ms).map_or(Duration::MAX, Duration::from_millis);
        if handle.worker.stop(timeout) {
            return Ok(());
        }
        let running = handle.worker.stats().running;
        Err(call.error(ErrorKind::Timeout).with("timeout_ms", timeout_ms).with("running", running))
    })
}

/// What it has done, into `*out`, which begins with its size (`FLOWMESH_WORKER_STATS_INIT`).
///
/// Threads: any. Does not block.
///
/// # Errors
/// `FORKED`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_worker_get_stats(
    worker: *const flowmesh_worker,
    out: *mut flowmesh_worker_stats,
) -> flowmesh_status {
    guard("flowmesh_worker_get_stats", |call| {
        let handle = call.live::<WorkerHandle>(worker)?;
        handle.check_here(call)?;
        let WorkerStats { running, done, failed, rejected, released, lost } = handle.worker.stats();
        let filled =
            flowmesh_worker_stats { struct_size: 0, running, done, failed, rejected, released, lost };
        // SAFETY: the manual asks for a struct that begins with its size.
        unsafe { call.fill(out, &filled) }
    })
}

/// 1 while it takes jobs; 0 once it was stopped, or ended by itself (`flowmesh_worker_error`); or a negative status.
///
/// Threads: any. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_worker_is_running(worker: *const flowmesh_worker) -> i32 {
    guard_number("flowmesh_worker_is_running", |call| {
        let handle = call.live::<WorkerHandle>(worker)?;
        handle.check_here(call)?;
        Ok(i32::from(handle.worker.is_running()))
    })
}

/// Why it ended by itself, as the status and last error of a function that fails; `FLOWMESH_OK` when it did not.
///
/// Threads: any. Does not block.
///
/// # Errors
/// `CLOSED`: the mesh was closed. `DISCONNECTED`: the host is gone. `FROZEN`: its disk failed. `FORKED`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_worker_error(worker: *const flowmesh_worker) -> flowmesh_status {
    guard("flowmesh_worker_error", |call| {
        let handle = call.live::<WorkerHandle>(worker)?;
        handle.check_here(call)?;
        handle.worker.error().map_or(Ok(()), Err)
    })
}

/// Frees it. It takes no more jobs; handlers that are running finish, and settle their jobs, without being waited for: stop
/// it before to wait. NULL is fine.
///
/// Threads: any, its own handlers included.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_worker_free(worker: *mut flowmesh_worker) -> flowmesh_status {
    guard("flowmesh_worker_free", |call| call.free::<WorkerHandle>(worker, |_| ()))
}

/// Says what the job's result is to be when its handler returns `FLOWMESH_OK`; it is copied. For jobs that a worker lent to
/// its handler.
///
/// Threads: any. Does not block.
///
/// # Errors
/// `UNSUPPORTED`: the job was reserved: give the result to `flowmesh_job_ack`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_set_result(
    job: *mut flowmesh_job,
    result: *const c_void,
    result_bytes: usize,
) -> flowmesh_status {
    guard("flowmesh_job_set_result", |call| {
        let job = call.live::<JobHandle>(job)?;
        // SAFETY: the arguments are as the manual asks.
        job.set_result(call, unsafe { call.bytes(result, result_bytes, "result") }?)
    })
}

/// What a job's handler returns when no attempt can succeed: says why, and returns `FLOWMESH_HANDLER_REJECT`.
///
///     return flowmesh_handler_reject("there is no such address");
///
/// # Errors
/// `NULL_ARGUMENT`, `INVALID_ARGUMENT`: `message` is NULL or not UTF-8. Returned from the handler, the attempt fails so.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_handler_reject(message: *const c_char) -> flowmesh_status {
    guard_number("flowmesh_handler_reject", |call| {
        // SAFETY: the arguments are as the manual asks.
        let message = unsafe { call.text(message, "message") }?;
        SAID.replace(Some(JobError::Reject(message.to_owned())));
        Ok(flowmesh_handled::FLOWMESH_HANDLER_REJECT as i32)
    })
}

/// What a job's handler returns to put the job off by `delay_ms`, at most ten years: the attempt does not count. Returns
/// `FLOWMESH_HANDLER_SNOOZE`.
///
/// # Errors
/// `INVALID_ARGUMENT`: the delay is below 0. Returned from the handler, the attempt fails so.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_handler_snooze(delay_ms: i64) -> flowmesh_status {
    guard_number("flowmesh_handler_snooze", |call| {
        let delay = call.milliseconds(delay_ms, "delay_ms")?;
        SAID.replace(Some(JobError::Snooze(delay)));
        Ok(flowmesh_handled::FLOWMESH_HANDLER_SNOOZE as i32)
    })
}

thread_local! {
    /// What the handler that runs in this thread said of its job.
    static SAID: RefCell<Option<JobError>> = const { RefCell::new(None) };
}

impl WorkerHandle {
    fn check_here(&self, call: Call) -> Result<()> {
        if self.pid != std::process::id() {
            return Err(call.error(ErrorKind::Forked).with("worker", "its threads are the parent's"));
        }
        Ok(())
    }
}

/// A job lent to a C handler by a handle that ends with the handler.
struct Loan {
    handle: *mut flowmesh_job,
    /// Keeps the handle's value when the handler frees the handle.
    live: Live<JobHandle>,
}

impl Loan {
    fn new(call: Call, job: &Arc<Job>, interrupt: Interrupt) -> Result<Self> {
        let handle = call.give(JobHandle::lent(Arc::clone(job), interrupt))?;
        Ok(Self { handle, live: call.live(handle)? })
    }

    fn result(&self) -> Option<Vec<u8>> {
        self.live.take_result()
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        take_back(self.handle);
    }
}
