//! What whoever runs a queue does with it and its jobs.

use super::{QueueHandle, flowmesh_queue, options::flowmesh_rate};
use crate::{flowmesh_status, guard::guard};
use flowmesh::{
    ErrorKind, Result,
    queue::{Cancelled, RESERVE_COUNT_MAX, Rate},
};
use std::{ffi::c_char, time::Duration};

/// What became of a job that was to be cancelled.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum flowmesh_cancelled {
    /// It is cancelled.
    FLOWMESH_CANCELLED_NOW = 0,
    /// A worker has it, and is asked to give it back; after the queue's `cancel_grace_ms` it is taken.
    FLOWMESH_CANCELLED_ASKED = 1,
    /// It was finished before.
    FLOWMESH_CANCELLED_FINISHED = 2,
}

/// § Managing queues and their jobs
///
/// Cancels the job of this id: at once if it waits; by asking its worker if one has it. `why`, which may be NULL, is kept
/// with it. `outcome`, unless NULL, gets one of `enum flowmesh_cancelled`.
///
/// Threads: any, as for all these functions. They block until the host has answered, at most 30 s.
///
/// # Errors
/// `NOT_FOUND`: there is no such job, or not any more. `INVALID_ARGUMENT`: `job` is no id. `STORAGE_FULL`, `FROZEN`,
/// `TIMEOUT`, `CLOSED`, `DISCONNECTED`, `FORKED`, as for `flowmesh_queue_enqueue`; so for all these functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_queue_cancel(
    queue: *mut flowmesh_queue,
    job: *const c_char,
    why: *const c_char,
    outcome: *mut i32,
) -> flowmesh_status {
    guard("flowmesh_queue_cancel", |call| {
        let handle = call.live::<QueueHandle>(queue)?;
        // SAFETY: the arguments are as the manual asks.
        let (out, job, why) = unsafe {
            (
                call.optional_out(outcome, 0, "outcome")?,
                call.job_id(job)?,
                call.optional_text(why, "why")?.unwrap_or_default(),
            )
        };
        let cancelled = match handle.queue().cancel(job, why)? {
            Cancelled::Now => flowmesh_cancelled::FLOWMESH_CANCELLED_NOW,
            Cancelled::Asked => flowmesh_cancelled::FLOWMESH_CANCELLED_ASKED,
            Cancelled::Finished(_) => flowmesh_cancelled::FLOWMESH_CANCELLED_FINISHED,
        };
        if let Some(out) = out {
            out.set(cancelled as i32);
        }
        Ok(())
    })
}

/// Makes the finished jobs of these ids, at most 1000, ready again as if they were new; all or none.
///
/// # Errors
/// `NOT_FOUND`: one is not there. `INVALID_ARGUMENT`: one is no id, or not finished. `TOO_LARGE`: there are too many.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_queue_redrive(
    queue: *mut flowmesh_queue,
    jobs: *const *const c_char,
    job_count: usize,
) -> flowmesh_status {
    guard("flowmesh_queue_redrive", |call| {
        let handle = call.live::<QueueHandle>(queue)?;
        if job_count > RESERVE_COUNT_MAX {
            let error = call.error(ErrorKind::TooLarge);
            return Err(error.with("job_count", job_count).with("limit", RESERVE_COUNT_MAX));
        }
        // SAFETY: the arguments are as the manual asks.
        let jobs = unsafe {
            call.slice(jobs, job_count, "jobs")?
                .iter()
                .map(|job| call.job_id(*job))
                .collect::<Result<Vec<_>>>()
        }?;
        handle.queue().redrive(&jobs)
    })
}

/// Makes up to `most` dead jobs ready again, those that have been dead longest first. `count`, unless NULL, gets how many.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_queue_redrive_dead(
    queue: *mut flowmesh_queue,
    most: u64,
    count: *mut u64,
) -> flowmesh_status {
    guard("flowmesh_queue_redrive_dead", |call| {
        // SAFETY: the arguments are as the manual asks.
        let out = unsafe { call.optional_out(count, 0, "count") }?;
        let redriven = call.live::<QueueHandle>(queue)?.queue().redrive_dead(most)?;
        if let Some(out) = out {
            out.set(redriven);
        }
        Ok(())
    })
}

/// Makes `count` dead jobs ready again at `rate`, from now on, in the place of what was asked for before; 0 ends it, and
/// `rate` may be NULL then.
///
/// # Errors
/// `INVALID_ARGUMENT`: the rate is out of bounds.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_queue_redrive_at(
    queue: *mut flowmesh_queue,
    count: u64,
    rate: *const flowmesh_rate,
) -> flowmesh_status {
    guard("flowmesh_queue_redrive_at", |call| {
        let handle = call.live::<QueueHandle>(queue)?;
        // SAFETY: the arguments are as the manual asks.
        let rate = match unsafe { call.rate(rate, "rate") }? {
            Some(rate) => rate,
            None if count == 0 => Rate { count: 1, per: Duration::from_secs(1), burst: 1 },
            None => return Err(call.null("rate")),
        };
        handle.queue().redrive_at(count, rate)
    })
}

/// Removes all jobs in `state`, one of `enum flowmesh_job_state`. `count`, unless NULL, gets how many.
///
/// # Errors
/// `INVALID_ARGUMENT`: it is no state; or leased, whose jobs are cancelled, not purged.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_queue_purge(
    queue: *mut flowmesh_queue,
    state: i32,
    count: *mut u64,
) -> flowmesh_status {
    guard("flowmesh_queue_purge", |call| {
        // SAFETY: the arguments are as the manual asks.
        let out = unsafe { call.optional_out(count, 0, "count") }?;
        let purged = call.live::<QueueHandle>(queue)?.queue().purge(call.state(state)?)?;
        if let Some(out) = out {
            out.set(purged);
        }
        Ok(())
    })
}

/// Removes the job of this id.
///
/// # Errors
/// `NOT_FOUND`: there is no such job. `INVALID_ARGUMENT`: `job` is no id, or a worker has it: cancel it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_queue_remove(
    queue: *mut flowmesh_queue,
    job: *const c_char,
) -> flowmesh_status {
    guard("flowmesh_queue_remove", |call| {
        let handle = call.live::<QueueHandle>(queue)?;
        // SAFETY: the arguments are as the manual asks.
        handle.queue().remove(unsafe { call.job_id(job) }?)
    })
}

/// Hands out nothing until `flowmesh_queue_resume`; what workers have they keep.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_queue_pause(queue: *mut flowmesh_queue) -> flowmesh_status {
    guard("flowmesh_queue_pause", |call| call.live::<QueueHandle>(queue)?.queue().pause())
}

/// Ends pausing and draining.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_queue_resume(queue: *mut flowmesh_queue) -> flowmesh_status {
    guard("flowmesh_queue_resume", |call| call.live::<QueueHandle>(queue)?.queue().resume())
}

/// Takes nothing new until `flowmesh_queue_resume`: enqueueing is `FLOWMESH_ERR_DRAINING`. `idle`, unless NULL, gets 1
/// when all that was there is finished, else 0: ask again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_queue_drain(queue: *mut flowmesh_queue, idle: *mut i32) -> flowmesh_status {
    guard("flowmesh_queue_drain", |call| {
        // SAFETY: the arguments are as the manual asks.
        let out = unsafe { call.optional_out(idle, 0, "idle") }?;
        let drained = call.live::<QueueHandle>(queue)?.queue().drain()?;
        if let Some(out) = out {
            out.set(i32::from(drained));
        }
        Ok(())
    })
}
