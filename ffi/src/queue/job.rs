//! Jobs that a worker has.

use super::options::{durability_of, ms};
use crate::{
    flowmesh_bytes, flowmesh_status, flowmesh_text,
    guard::{Call, guard, guard_number, guard_value},
    queue::{QueueHandle, flowmesh_queue},
    text::Texts,
    wait::Interrupt,
};
use flowmesh::lock::Mutex;
use flowmesh::{Durability, ErrorKind, Job, ReadySet, Result, Settle, Wait, queue::Content};
use std::{
    collections::HashSet,
    ffi::{c_char, c_void},
    ptr,
    sync::{Arc, OnceLock},
};

/// A job that this worker has, until it is settled or its lease ends.
pub struct flowmesh_job {
    _opaque: (),
}

/// What a job carries, or was acked with. It never changes.
pub struct flowmesh_content {
    _opaque: (),
}

pub(crate) struct JobHandle(Box<Held>);

struct Held {
    /// A worker has a share, too, while its handler runs.
    job: Arc<Job>,
    /// What may end the waits for what is said of it.
    interrupt: Interrupt,
    /// What the worker that lent the job is to ack it with; `None` when nobody lent it.
    result: Option<Mutex<Option<Vec<u8>>>>,
    texts: OnceLock<Texts>,
    /// Becomes readable when the job is cancelled; made when it is asked for.
    cancelled: OnceLock<Result<ReadySet>>,
}

pub(crate) struct ContentHandle {
    content: Content,
    texts: OnceLock<Texts>,
}

/// § Jobs
///
/// Its payload, lent until the job is freed; so is all that these functions lend. With a bad handle they return an empty
/// value, or a negative status where they return a number, and `flowmesh_error_code` says which error it was.
///
/// Threads: any, as for all functions of a job. Those that read never block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_payload(job: *const flowmesh_job) -> flowmesh_bytes {
    guard_value("flowmesh_job_payload", flowmesh_bytes::NONE, |call| {
        Ok(flowmesh_bytes::of(call.live::<JobHandle>(job)?.0.job.payload()))
    })
}

/// Its id, a UUID.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_id(job: *const flowmesh_job) -> flowmesh_text {
    guard_value("flowmesh_job_id", flowmesh_text::NONE, |call| {
        Ok(call.live::<JobHandle>(job)?.0.texts().fixed(ID))
    })
}

/// The name of its queue.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_queue(job: *const flowmesh_job) -> flowmesh_text {
    guard_value("flowmesh_job_queue", flowmesh_text::NONE, |call| {
        Ok(call.live::<JobHandle>(job)?.0.texts().fixed(QUEUE))
    })
}

/// Its group; no text (`data` is NULL) when it has none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_group(job: *const flowmesh_job) -> flowmesh_text {
    guard_value("flowmesh_job_group", flowmesh_text::NONE, |call| {
        Ok(call.live::<JobHandle>(job)?.0.texts().optional(GROUP))
    })
}

/// How its payload is encoded; no text when nobody said.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_content_type(job: *const flowmesh_job) -> flowmesh_text {
    guard_value("flowmesh_job_content_type", flowmesh_text::NONE, |call| {
        Ok(call.live::<JobHandle>(job)?.0.texts().optional(CONTENT_TYPE))
    })
}

/// The value of its first header of that name; no text when it has none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_header(job: *const flowmesh_job, name: *const c_char) -> flowmesh_text {
    guard_value("flowmesh_job_header", flowmesh_text::NONE, |call| {
        // SAFETY: the arguments are as the manual asks.
        unsafe { call.live::<JobHandle>(job)?.0.texts().header(call, name) }
    })
}

/// How many headers it has.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_header_count(job: *const flowmesh_job) -> usize {
    guard_value("flowmesh_job_header_count", 0, |call| {
        Ok(call.live::<JobHandle>(job)?.0.texts().header_count())
    })
}

/// Its header number `index`, from 0, in the order they were given. `name` and `value` may be NULL.
///
/// # Errors
/// `NOT_FOUND`: it has fewer headers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_header_at(
    job: *const flowmesh_job,
    index: usize,
    name: *mut flowmesh_text,
    value: *mut flowmesh_text,
) -> flowmesh_status {
    guard("flowmesh_job_header_at", |call| {
        // SAFETY: the arguments are as the manual asks.
        unsafe { call.live::<JobHandle>(job)?.0.texts().header_at(call, index, name, value) }
    })
}

/// Which attempt this is, 1 and up.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_attempt(job: *const flowmesh_job) -> u32 {
    guard_value("flowmesh_job_attempt", 0, |call| Ok(call.live::<JobHandle>(job)?.0.job.attempt().into()))
}

/// Attempts it may have.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_max_attempts(job: *const flowmesh_job) -> u32 {
    guard_value("flowmesh_job_max_attempts", 0, |call| {
        Ok(call.live::<JobHandle>(job)?.0.job.max_attempts().into())
    })
}

/// How often it was redriven: made ready again after it was finished.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_redrives(job: *const flowmesh_job) -> u32 {
    guard_value("flowmesh_job_redrives", 0, |call| Ok(call.live::<JobHandle>(job)?.0.job.redrives()))
}

/// 0 to 255, higher goes first; or a negative status.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_priority(job: *const flowmesh_job) -> i32 {
    guard_number("flowmesh_job_priority", |call| Ok(call.live::<JobHandle>(job)?.0.job.priority().into()))
}

/// How long it was reserved for, when it was; or a negative status.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_lease_ms(job: *const flowmesh_job) -> i64 {
    guard_number("flowmesh_job_lease_ms", |call| Ok(ms(call.live::<JobHandle>(job)?.0.job.lease())))
}

/// How long it is still this worker's, as far as this process knows, 0 when it is not any more; or a negative status.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_remaining_ms(job: *const flowmesh_job) -> i64 {
    guard_number("flowmesh_job_remaining_ms", |call| Ok(ms(call.live::<JobHandle>(job)?.0.job.remaining())))
}

/// 1 when it is to be given back: somebody cancelled it, its lease is over, or the mesh was closed. 0 when not, or a
/// negative status.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_is_cancelled(job: *const flowmesh_job) -> i32 {
    guard_number("flowmesh_job_is_cancelled", |call| {
        Ok(i32::from(call.live::<JobHandle>(job)?.0.job.is_cancelled()))
    })
}

/// A descriptor that is readable once the job is to be given back (`flowmesh_job_is_cancelled`), or a negative status.
/// For `poll` and its like: do not read, write or close it. It lives until the job is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_cancel_fd(job: *mut flowmesh_job) -> i32 {
    guard_number("flowmesh_job_cancel_fd", |call| call.live::<JobHandle>(job)?.0.cancel_fd(call))
}

/// 1 when it was settled through this handle or is being settled, 0 when not, or a negative status.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_is_settled(job: *const flowmesh_job) -> i32 {
    guard_number("flowmesh_job_is_settled", |call| {
        Ok(i32::from(call.live::<JobHandle>(job)?.0.job.is_settled()))
    })
}

/// § Settling jobs
///
/// The job is done. `result`, unless NULL, is kept for whoever asks with `flowmesh_queue_result`. `reached`, unless NULL,
/// gets how safe that is, one of `enum flowmesh_durability`. A job is settled once, by this or one of the next
/// functions; it is still to be freed.
///
/// Threads: any. Blocks until the host has answered and the disk has what the durability asks for, at most 30 s; signals
/// do not end that wait.
///
/// # Errors
/// `LEASE_LOST`: the job is not this worker's any more, or was settled before; nothing is changed. `TOO_LARGE`: the
/// result is over the queue's `payload_bytes_max`. `STORAGE_FULL`: the disk is full, nothing was written. `FROZEN`: the
/// disk failed. `TIMEOUT`, `CLOSED`, `DISCONNECTED`, `FORKED`. After any but `LEASE_LOST` it may be settled again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_ack(
    job: *mut flowmesh_job,
    result: *const c_void,
    result_bytes: usize,
    reached: *mut i32,
) -> flowmesh_status {
    guard("flowmesh_job_ack", |call| {
        // SAFETY: the arguments are as the manual asks.
        unsafe {
            let given = call.bytes(result, result_bytes, "result")?;
            settle(call, job, Settle::Ack((!result.is_null()).then_some(given)), reached)
        }
    })
}

/// Acks the job as `flowmesh_job_ack` does, and takes the next one of its queue if one is there, without waiting for one:
/// one request, and as a rule one write, instead of two. `*next` is NULL when none is there; else it is the caller's for
/// `lease_ms`, or with -1 for as long as it or the queue says, and to be freed. So is the job that was acked, still.
///
/// Threads: any. Blocks as `flowmesh_job_ack`.
///
/// # Errors
/// As `flowmesh_job_ack`; no job was taken then. `INVALID_ARGUMENT`: the lease is neither -1 nor 1000 to 43200000 (12
/// hours).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_ack_and_reserve(
    job: *mut flowmesh_job,
    result: *const c_void,
    result_bytes: usize,
    lease_ms: i64,
    next: *mut *mut flowmesh_job,
    reached: *mut i32,
) -> flowmesh_status {
    guard("flowmesh_job_ack_and_reserve", |call| {
        // SAFETY: the arguments are as the manual asks.
        let (next, reached, given) = unsafe {
            let next = call.out(next, ptr::null_mut(), "next")?;
            (next, call.optional_out(reached, 0, "reached")?, call.bytes(result, result_bytes, "result")?)
        };
        let handle = call.live::<JobHandle>(job)?;
        let (result, lease) = ((!result.is_null()).then_some(given), call.given_time(lease_ms, "lease_ms")?);
        let (durability, taken) = handle.0.job.ack_and_reserve(result, lease, &mut Wait::forever())?;
        if let Some(reached) = reached {
            reached.set(durability_of(durability).0);
        }
        if let Some(taken) = taken {
            next.set(call.give_job(taken, handle.0.interrupt)?);
        }
        Ok(())
    })
}

/// The attempt failed: the job waits for the next, or is dead if this was its last. `message` says why in a few words,
/// of which 1 KiB is kept; `detail` is a stack trace or the like, of which 4 KiB are kept, or NULL. The next attempt
/// comes after `delay_ms`, or, with -1, as the job's backoff says. `reached` as for `flowmesh_job_ack`.
///
/// # Errors
/// As `flowmesh_job_ack`. `INVALID_ARGUMENT`: the delay is below -1 or over ten years.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_nack(
    job: *mut flowmesh_job,
    message: *const c_char,
    detail: *const c_char,
    delay_ms: i64,
    reached: *mut i32,
) -> flowmesh_status {
    guard("flowmesh_job_nack", |call| {
        let delay = call.given_time(delay_ms, "delay_ms")?;
        // SAFETY: the arguments are as the manual asks.
        unsafe {
            let message = call.text(message, "message")?;
            let detail = call.optional_text(detail, "detail")?.unwrap_or_default();
            settle(call, job, Settle::Nack { message, detail, delay }, reached)
        }
    })
}

/// No attempt can succeed: the job is dead. `message`, `detail` and `reached` as for `flowmesh_job_nack`.
///
/// # Errors
/// As `flowmesh_job_ack`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_reject(
    job: *mut flowmesh_job,
    message: *const c_char,
    detail: *const c_char,
    reached: *mut i32,
) -> flowmesh_status {
    guard("flowmesh_job_reject", |call| {
        // SAFETY: the arguments are as the manual asks.
        unsafe {
            let message = call.text(message, "message")?;
            let detail = call.optional_text(detail, "detail")?.unwrap_or_default();
            settle(call, job, Settle::Reject { message, detail }, reached)
        }
    })
}

/// Gives the job back as if it had not been taken: the attempt does not count. `reached` as for `flowmesh_job_ack`.
///
/// # Errors
/// As `flowmesh_job_ack`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_release(job: *mut flowmesh_job, reached: *mut i32) -> flowmesh_status {
    // SAFETY: the arguments are as the manual asks.
    guard("flowmesh_job_release", |call| unsafe { settle(call, job, Settle::Release, reached) })
}

/// Puts the job off by `delay_ms`; the attempt does not count. `reached` as for `flowmesh_job_ack`.
///
/// # Errors
/// As `flowmesh_job_ack`. `INVALID_ARGUMENT`: the delay is below 0 or over ten years.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_snooze(
    job: *mut flowmesh_job,
    delay_ms: i64,
    reached: *mut i32,
) -> flowmesh_status {
    guard("flowmesh_job_snooze", |call| {
        let delay = call.milliseconds(delay_ms, "delay_ms")?;
        // SAFETY: the arguments are as the manual asks.
        unsafe { settle(call, job, Settle::Snooze(delay), reached) }
    })
}

/// Acks jobs of this queue, at most 1000, in one write. `outcomes`, unless NULL, has room for a status of each job, in
/// their order. Returns `FLOWMESH_OK` when all were acked, else the error of the first that was not.
///
/// # Errors
/// As `flowmesh_job_ack`: with `LEASE_LOST`, `outcomes` say which were acked. When one is of another queue or there twice
/// (`INVALID_ARGUMENT`), or they are too many (`TOO_LARGE`), nothing is acked.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_queue_ack_many(
    queue: *mut flowmesh_queue,
    jobs: *const *mut flowmesh_job,
    job_count: usize,
    outcomes: *mut flowmesh_status,
) -> flowmesh_status {
    guard("flowmesh_queue_ack_many", |call| {
        let handle = call.live::<QueueHandle>(queue)?;
        // SAFETY: the arguments are as the manual asks.
        let jobs = unsafe { call.slice(jobs, job_count, "jobs") }?;
        let mut room: &mut [_] = &mut [];
        if !outcomes.is_null() {
            // SAFETY: the manual asks for room for as many outcomes as jobs.
            room = unsafe { call.room(outcomes, job_count, "outcomes") }?;
        }
        let jobs = jobs.iter().map(|job| call.live::<JobHandle>(*job)).collect::<Result<Vec<_>>>()?;
        if let Some(job) = jobs.iter().find(|job| job.0.job.queue().id() != handle.queue().id()) {
            return Err(call.invalid("job", job.0.job.id(), "it is of another queue"));
        }
        let mut seen = HashSet::new();
        if let Some(job) = jobs.iter().find(|job| !seen.insert(Arc::as_ptr(&job.0.job))) {
            return Err(call.invalid("job", job.0.job.id(), "it is there twice"));
        }
        let acked = handle.queue().ack_many(jobs.iter().map(|job| &*job.0.job));
        let each = match acked {
            Ok(each) => each,
            Err(error) => {
                room.iter_mut().for_each(|place| _ = place.write(-error.kind().number()));
                return Err(error);
            }
        };
        for (place, one) in room.iter_mut().zip(&each) {
            place.write(one.as_ref().map_or_else(|error| -error.kind().number(), |()| 0));
        }
        each.into_iter().collect()
    })
}

/// Extends the lease from now on by itself, whenever a third of it has passed, until the job is settled or freed. If that
/// fails because the job is not this worker's any more, the job is cancelled (`flowmesh_job_is_cancelled`). Workers do so
/// for the jobs that they lend.
///
/// Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_keep(job: *mut flowmesh_job) -> flowmesh_status {
    guard("flowmesh_job_keep", |call| {
        call.live::<JobHandle>(job)?.0.job.keep();
        Ok(())
    })
}

/// More time: the job is this worker's for `lease_ms` from now, or with -1 for as long as it was reserved. A lease never
/// gets shorter: what would end it sooner changes nothing. `left_ms`, unless NULL, gets how long it is the worker's now:
/// more than was asked for when it had more already, less when its deadline is near.
///
/// Blocks until the host has answered.
///
/// # Errors
/// As `flowmesh_job_ack`. `INVALID_ARGUMENT`: the lease is not 1000 to 43200000 (12 hours).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_extend(
    job: *mut flowmesh_job,
    lease_ms: i64,
    left_ms: *mut i64,
) -> flowmesh_status {
    guard("flowmesh_job_extend", |call| {
        // SAFETY: NULL is nowhere to write, anything else is as the manual asks.
        let out = unsafe { call.optional_out(left_ms, 0, "left_ms") }?;
        let job = call.live::<JobHandle>(job)?;
        let left = job.0.job.extend(call.given_time(lease_ms, "lease_ms")?)?;
        if let Some(out) = out {
            out.set(ms(left));
        }
        Ok(())
    })
}

/// Tells how far it has come: anything up to 4 KiB, shown to who looks at the job. Kept in memory only.
///
/// Blocks until the host has answered.
///
/// # Errors
/// As `flowmesh_job_ack`. `TOO_LARGE`: it is longer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_progress(
    job: *mut flowmesh_job,
    progress: *const c_void,
    progress_bytes: usize,
) -> flowmesh_status {
    guard("flowmesh_job_progress", |call| {
        let job = call.live::<JobHandle>(job)?;
        // SAFETY: the arguments are as the manual asks.
        job.0.job.progress(unsafe { call.bytes(progress, progress_bytes, "progress") }?)
    })
}

/// Frees a job, and with it all that it lent. One that was not settled stays leased until its lease ends, and is then
/// tried again with the attempt counted: give it back with `flowmesh_job_release`. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_free(job: *mut flowmesh_job) -> flowmesh_status {
    guard("flowmesh_job_free", |call| call.free::<JobHandle>(job, |_| ()))
}

/// Frees `count` jobs and sets their places to NULL; places that are NULL already are fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_free_many(
    jobs: *mut *mut flowmesh_job,
    count: usize,
) -> flowmesh_status {
    // SAFETY: the manual asks for `count` places.
    guard("flowmesh_job_free_many", |call| unsafe { call.free_many::<JobHandle>(jobs, count, "jobs") })
}

/// § What jobs carry
///
/// The payload, lent until the content is freed; so is all that these functions lend. Contents come of
/// `flowmesh_queue_content` and `flowmesh_queue_result`.
///
/// Threads: any. They never block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_content_payload(content: *const flowmesh_content) -> flowmesh_bytes {
    guard_value("flowmesh_content_payload", flowmesh_bytes::NONE, |call| {
        Ok(flowmesh_bytes::of(call.live::<ContentHandle>(content)?.content.payload()))
    })
}

/// How the payload is encoded; no text (`data` is NULL) when nobody said.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_content_type(content: *const flowmesh_content) -> flowmesh_text {
    guard_value("flowmesh_content_type", flowmesh_text::NONE, |call| {
        Ok(call.live::<ContentHandle>(content)?.texts().optional(0))
    })
}

/// The value of the first header of that name; no text when there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_content_header(
    content: *const flowmesh_content,
    name: *const c_char,
) -> flowmesh_text {
    guard_value("flowmesh_content_header", flowmesh_text::NONE, |call| {
        // SAFETY: the arguments are as the manual asks.
        unsafe { call.live::<ContentHandle>(content)?.texts().header(call, name) }
    })
}

/// How many headers there are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_content_header_count(content: *const flowmesh_content) -> usize {
    guard_value("flowmesh_content_header_count", 0, |call| {
        Ok(call.live::<ContentHandle>(content)?.texts().header_count())
    })
}

/// Header number `index`, from 0, in the order they were given. `name` and `value` may be NULL.
///
/// # Errors
/// `NOT_FOUND`: there are fewer headers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_content_header_at(
    content: *const flowmesh_content,
    index: usize,
    name: *mut flowmesh_text,
    value: *mut flowmesh_text,
) -> flowmesh_status {
    guard("flowmesh_content_header_at", |call| {
        // SAFETY: the arguments are as the manual asks.
        unsafe { call.live::<ContentHandle>(content)?.texts().header_at(call, index, name, value) }
    })
}

/// Frees it. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_content_free(content: *mut flowmesh_content) -> flowmesh_status {
    guard("flowmesh_content_free", |call| call.free::<ContentHandle>(content, |_| ()))
}

impl JobHandle {
    pub(crate) fn new(job: Job, interrupt: Interrupt) -> Self {
        Self::of(Arc::new(job), interrupt, None)
    }

    /// Of a worker, for the time that its handler runs.
    pub(super) fn lent(job: Arc<Job>, interrupt: Interrupt) -> Self {
        Self::of(job, interrupt, Some(Mutex::new(None)))
    }

    fn of(job: Arc<Job>, interrupt: Interrupt, result: Option<Mutex<Option<Vec<u8>>>>) -> Self {
        Self(Box::new(Held { job, interrupt, result, texts: OnceLock::new(), cancelled: OnceLock::new() }))
    }

    pub(super) fn job(&self) -> &Arc<Job> {
        &self.0.job
    }

    pub(super) fn interrupt(&self) -> Interrupt {
        self.0.interrupt
    }

    pub(super) fn set_result(&self, call: Call, result: &[u8]) -> Result<()> {
        let place = self.0.result.as_ref().ok_or_else(|| {
            call.error(ErrorKind::Unsupported)
                .with("rule", "a job that was reserved is acked with its result")
        })?;
        *place.lock() = Some(result.to_vec());
        Ok(())
    }

    pub(super) fn take_result(&self) -> Option<Vec<u8>> {
        self.0.result.as_ref()?.lock().take()
    }
}

/// The fixed texts of a job.
const ID: usize = 0;
const QUEUE: usize = 1;
const GROUP: usize = 2;
const CONTENT_TYPE: usize = 3;

impl Held {
    fn texts(&self) -> &Texts {
        self.texts.get_or_init(|| {
            let (job, id) = (&self.job, self.job.id().to_string());
            let group = job.group().unwrap_or_default();
            Texts::of([&id, job.queue().name(), group, job.content_type()], job.headers())
        })
    }

    fn cancel_fd(&self, call: Call) -> Result<i32> {
        let set = self.cancelled.get_or_init(|| {
            let set = ReadySet::with_fd()?;
            self.job.watch_cancel(&set, 0);
            Ok(set)
        });
        match set {
            Ok(set) => {
                set.fd().ok_or_else(|| call.error(ErrorKind::Internal).with("set", "without descriptor"))
            }
            Err(error) => Err(call.error(error.kind()).with("why", error)),
        }
    }
}

impl ContentHandle {
    pub(super) fn new(content: Content) -> Self {
        Self { content, texts: OnceLock::new() }
    }

    fn texts(&self) -> &Texts {
        self.texts.get_or_init(|| Texts::of([self.content.content_type()], self.content.headers()))
    }
}

/// # Safety
/// `reached` is NULL or room for a number.
unsafe fn settle(call: Call, job: *mut flowmesh_job, settle: Settle<'_>, reached: *mut i32) -> Result<()> {
    // SAFETY: the caller's duty, passed on.
    let out = unsafe { call.optional_out(reached, 0, "reached") }?;
    let durability: Durability = call.live::<JobHandle>(job)?.0.job.settle(settle, &mut Wait::forever())?;
    if let Some(out) = out {
        out.set(durability_of(durability).0);
    }
    Ok(())
}
