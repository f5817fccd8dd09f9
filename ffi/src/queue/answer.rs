//! What a worker says of a job without waiting for the host's answer.

use super::{
    job::{JobHandle, flowmesh_job},
    options::{durability_of, ms},
};
use crate::{
    flowmesh_status,
    guard::{Call, guard, guard_number},
    wait::Interrupt,
};
use flowmesh::lock::Mutex;
use flowmesh::{ErrorKind, Job, PendingReply, Result, Settle, queue::Answered};
use std::{
    ffi::{c_char, c_void},
    ptr,
    sync::Arc,
};

/// The host's answer to what was said of a job, on its way.
pub struct flowmesh_job_answer {
    _opaque: (),
}

pub(crate) struct AnswerHandle(Box<Held>);

struct Held {
    job: Arc<Job>,
    said: Said,
    pending: PendingReply,
    interrupt: Interrupt,
    /// The job knows its answer. Held while it is told, so that what is known is not unsaid by who came too late.
    told: Mutex<bool>,
}

/// What the answer is about.
#[derive(Clone, Copy)]
enum Said {
    Settle,
    Extend,
    Progress,
}

/// § Settling jobs without waiting
///
/// Starts to ack a job, as `flowmesh_job_ack` does, and returns at once: for event loops. What is passed in is copied. The
/// answer in `*out` is the caller's to free; the job may be freed before.
///
/// Until the answer was taken the job counts as settled, and nothing else can settle it. In a worker's handler, take the
/// answer before you return: what the handler returns settles a job only if it was not settled before.
///
/// Threads: any. Does not block for long: only while there is no room for the request.
///
/// # Errors
/// `LEASE_LOST`: the job was settled before. `TOO_LARGE`, `CLOSED`, `DISCONNECTED`, `FORKED`; the other failures of
/// `flowmesh_job_ack` come with the answer. The job may be settled again then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_ack_start(
    job: *mut flowmesh_job,
    result: *const c_void,
    result_bytes: usize,
    out: *mut *mut flowmesh_job_answer,
) -> flowmesh_status {
    guard("flowmesh_job_ack_start", |call| {
        // SAFETY: the arguments are as the manual asks.
        unsafe {
            let given = call.bytes(result, result_bytes, "result")?;
            start_settle(call, job, Settle::Ack((!result.is_null()).then_some(given)), out)
        }
    })
}

/// Starts to nack a job, as `flowmesh_job_nack` does, and returns at once. All else as for `flowmesh_job_ack_start`.
///
/// # Errors
/// As `flowmesh_job_ack_start`. `INVALID_ARGUMENT`: the delay is below -1 or over ten years.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_nack_start(
    job: *mut flowmesh_job,
    message: *const c_char,
    detail: *const c_char,
    delay_ms: i64,
    out: *mut *mut flowmesh_job_answer,
) -> flowmesh_status {
    guard("flowmesh_job_nack_start", |call| {
        let delay = call.given_time(delay_ms, "delay_ms")?;
        // SAFETY: the arguments are as the manual asks.
        unsafe {
            let message = call.text(message, "message")?;
            let detail = call.optional_text(detail, "detail")?.unwrap_or_default();
            start_settle(call, job, Settle::Nack { message, detail, delay }, out)
        }
    })
}

/// Starts to reject a job, as `flowmesh_job_reject` does, and returns at once. All else as for `flowmesh_job_ack_start`.
///
/// # Errors
/// As `flowmesh_job_ack_start`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_reject_start(
    job: *mut flowmesh_job,
    message: *const c_char,
    detail: *const c_char,
    out: *mut *mut flowmesh_job_answer,
) -> flowmesh_status {
    guard("flowmesh_job_reject_start", |call| {
        // SAFETY: the arguments are as the manual asks.
        unsafe {
            let message = call.text(message, "message")?;
            let detail = call.optional_text(detail, "detail")?.unwrap_or_default();
            start_settle(call, job, Settle::Reject { message, detail }, out)
        }
    })
}

/// Starts to give a job back, as `flowmesh_job_release` does, and returns at once. All else as for
/// `flowmesh_job_ack_start`.
///
/// # Errors
/// As `flowmesh_job_ack_start`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_release_start(
    job: *mut flowmesh_job,
    out: *mut *mut flowmesh_job_answer,
) -> flowmesh_status {
    // SAFETY: the arguments are as the manual asks.
    guard("flowmesh_job_release_start", |call| unsafe { start_settle(call, job, Settle::Release, out) })
}

/// Starts to put a job off, as `flowmesh_job_snooze` does, and returns at once. All else as for `flowmesh_job_ack_start`.
///
/// # Errors
/// As `flowmesh_job_ack_start`. `INVALID_ARGUMENT`: the delay is below 0 or over ten years.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_snooze_start(
    job: *mut flowmesh_job,
    delay_ms: i64,
    out: *mut *mut flowmesh_job_answer,
) -> flowmesh_status {
    guard("flowmesh_job_snooze_start", |call| {
        let delay = call.milliseconds(delay_ms, "delay_ms")?;
        // SAFETY: the arguments are as the manual asks.
        unsafe { start_settle(call, job, Settle::Snooze(delay), out) }
    })
}

/// Starts to extend the lease of a job, as `flowmesh_job_extend` does, and returns at once. The answer in `*out` is the
/// caller's to free; the job may be freed before. It does not count as settled.
///
/// Threads: any. Does not block for long: only while there is no room for the request.
///
/// # Errors
/// `INVALID_ARGUMENT`: the lease is not 1000 to 43200000 (12 hours); may also come with the answer. `CLOSED`,
/// `DISCONNECTED`, `FORKED`; the other failures of `flowmesh_job_extend` come with the answer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_extend_start(
    job: *mut flowmesh_job,
    lease_ms: i64,
    out: *mut *mut flowmesh_job_answer,
) -> flowmesh_status {
    guard("flowmesh_job_extend_start", |call| {
        let lease = call.given_time(lease_ms, "lease_ms")?;
        // SAFETY: the arguments are as the manual asks.
        unsafe { start(call, job, Said::Extend, out, |job| job.start_extend(lease)) }
    })
}

/// Starts to tell how far a job has come, as `flowmesh_job_progress` does, and returns at once. All else as for
/// `flowmesh_job_extend_start`.
///
/// # Errors
/// `TOO_LARGE`: it is longer than 4 KiB; may also come with the answer. As `flowmesh_job_extend_start`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_progress_start(
    job: *mut flowmesh_job,
    progress: *const c_void,
    progress_bytes: usize,
    out: *mut *mut flowmesh_job_answer,
) -> flowmesh_status {
    guard("flowmesh_job_progress_start", |call| {
        // SAFETY: the arguments are as the manual asks.
        unsafe {
            let progress = call.bytes(progress, progress_bytes, "progress")?;
            start(call, job, Said::Progress, out, |job| job.start_progress(progress))
        }
    })
}

/// Waits for the answer, at most `timeout_ms`: below 0 for ever, which ends after 30 s when the host does not answer.
/// `value`, unless NULL, gets what the function without `_start` gives: how safe it is, one of
/// `enum flowmesh_durability`; of an extension, how many ms the job is the worker's now; of progress, 0. An answer is
/// given out once; afterwards comes `CLOSED`.
///
/// Threads: any.
///
/// # Errors
/// Those of the function without `_start`; after any but `LEASE_LOST` the job may be settled again. `TIMEOUT` is also
/// returned when this wait ended before the answer came, which is still to come then: `flowmesh_job_answer_try` tells the
/// two apart. `CANCELLED`: somebody cancelled it. `INTERRUPTED`: a signal came (see `on_signal`); the answer is still to
/// come.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_answer_wait(
    answer: *mut flowmesh_job_answer,
    timeout_ms: i64,
    value: *mut i64,
) -> flowmesh_status {
    guard("flowmesh_job_answer_wait", |call| {
        // SAFETY: the arguments are as the manual asks.
        let value = unsafe { call.optional_out(value, 0, "value") }?;
        let answered = call.live::<AnswerHandle>(answer)?.0.wait(timeout_ms)?;
        if let Some(value) = value {
            value.set(answered);
        }
        Ok(())
    })
}

/// Takes the answer if it is there. `*done` becomes 1 when it is, good or not, and 0 while it is still to come. `value` as
/// for `flowmesh_job_answer_wait`.
///
/// Threads: any. Does not block.
///
/// # Errors
/// Those of the function without `_start`, with `*done` 1: `TIMEOUT` when the host did not answer. As
/// `flowmesh_job_answer_wait`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_answer_try(
    answer: *mut flowmesh_job_answer,
    done: *mut i32,
    value: *mut i64,
) -> flowmesh_status {
    guard("flowmesh_job_answer_try", |call| {
        // SAFETY: the arguments are as the manual asks.
        let (done, value) = unsafe { (call.out(done, 0, "done")?, call.optional_out(value, 0, "value")?) };
        let handle = call.live::<AnswerHandle>(answer)?;
        if let Some(answered) = handle.0.pending.try_take() {
            done.set(1);
            let answered = handle.0.tell(answered)?;
            if let Some(value) = value {
                value.set(answered);
            }
        }
        Ok(())
    })
}

/// Gives up waiting: whoever waits gets `CANCELLED`, and the job may be settled again. What was said is done all the same
/// when the host has read it: another ack changes nothing then, anything else gives `LEASE_LOST`. Does nothing when the
/// answer is there.
///
/// Threads: any. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_answer_cancel(answer: *mut flowmesh_job_answer) -> flowmesh_status {
    guard("flowmesh_job_answer_cancel", |call| {
        call.live::<AnswerHandle>(answer)?.0.pending.cancel();
        Ok(())
    })
}

/// A descriptor that is readable once the answer is there, or a negative status. For `poll` and its like: do not read,
/// write or close it. It lives until the answer is freed.
///
/// Threads: any. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_answer_fd(answer: *const flowmesh_job_answer) -> i32 {
    guard_number("flowmesh_job_answer_fd", |call| call.live::<AnswerHandle>(answer)?.0.pending.fd())
}

/// Frees it, giving up waiting when the answer was not taken, as `flowmesh_job_answer_cancel` does. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_answer_free(answer: *mut flowmesh_job_answer) -> flowmesh_status {
    guard("flowmesh_job_answer_free", |call| {
        call.free::<AnswerHandle>(answer, |handle| {
            // Whoever waits in it is woken, before the last share of it goes; and the job learns what there is to know.
            handle.0.pending.cancel();
            if let Some(answered) = handle.0.pending.try_take() {
                let _ = handle.0.tell(answered);
            }
        })
    })
}

impl Held {
    fn wait(&self, timeout_ms: i64) -> Result<i64> {
        match self.interrupt.waiting(timeout_ms, |wait| self.pending.wait(wait)) {
            // It may be the wait that ended so, and not what was waited for.
            Err(ended) if matches!(ended.kind(), ErrorKind::Timeout | ErrorKind::Interrupted) => {
                match self.pending.try_take() {
                    None => Err(ended),
                    Some(Err(error)) if error.kind() == ErrorKind::Closed => self.tell(Err(ended)),
                    Some(answered) => self.tell(answered),
                }
            }
            answered => self.tell(answered),
        }
    }

    /// Tells the job what came of it, and returns that.
    fn tell(&self, answered: Result<Answered>) -> Result<i64> {
        let kind = answered.as_ref().err().map(flowmesh::Error::kind);
        if kind == Some(ErrorKind::Forked) {
            // Another thread of the parent may have held the lock.
            return answered.map(|_| 0);
        }
        let mut told = self.told.lock();
        // So end, too, those who find that another has taken the answer.
        let vague = matches!(kind, Some(ErrorKind::Timeout | ErrorKind::Interrupted | ErrorKind::Closed));
        if vague && *told {
            return answered.map(|_| 0);
        }
        *told |= !vague;
        match self.said {
            Said::Settle => self.job.settled(answered).map(|reached| durability_of(reached).0.into()),
            Said::Extend => self.job.extended(answered).map(ms),
            Said::Progress => self.job.told(answered).map(|()| 0),
        }
    }
}

/// # Safety
/// `out` is NULL or room for a handle.
unsafe fn start_settle(
    call: Call,
    job: *mut flowmesh_job,
    settle: Settle<'_>,
    out: *mut *mut flowmesh_job_answer,
) -> Result<()> {
    // SAFETY: the caller's duty, passed on.
    unsafe { start(call, job, Said::Settle, out, |job| job.start_settle(settle)) }
}

/// # Safety
/// `out` is NULL or room for a handle.
unsafe fn start(
    call: Call,
    job: *mut flowmesh_job,
    said: Said,
    out: *mut *mut flowmesh_job_answer,
    say: impl FnOnce(&Job) -> Result<PendingReply>,
) -> Result<()> {
    // SAFETY: the caller's duty, passed on.
    let out = unsafe { call.out(out, ptr::null_mut(), "out") }?;
    let handle = call.live::<JobHandle>(job)?;
    let (job, interrupt) = (Arc::clone(handle.job()), handle.interrupt());
    let pending = say(&job)?;
    out.set(call.give(AnswerHandle(Box::new(Held {
        job,
        said,
        pending,
        interrupt,
        told: Mutex::new(false),
    })))?);
    Ok(())
}
