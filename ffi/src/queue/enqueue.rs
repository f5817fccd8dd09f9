//! Enqueueing jobs.

use super::{
    QueueHandle, flowmesh_queue,
    options::{durability_of, flowmesh_enqueue_options},
};
use crate::{
    flowmesh_status,
    guard::{Call, guard},
};
use flowmesh::{
    Queue, Receipt, Result, Wait,
    queue::{ENQUEUE_COUNT_MAX, EnqueueOptions, Enqueued, JobId, NewJobRequest},
};
use std::ffi::{c_char, c_void};

/// What became of a job that was to be enqueued: the field `outcome` of `flowmesh_receipt`.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum flowmesh_enqueued {
    /// It was enqueued.
    FLOWMESH_ENQUEUED_NEW = 0,
    /// It was enqueued in the place of `replaced`, which had its unique key and is cancelled.
    FLOWMESH_ENQUEUED_REPLACED = 1,
    /// It was not: the job `id` has the same id or unique key.
    FLOWMESH_ENQUEUED_EXISTING = 2,
    /// It was not: the job `id` has the same unique key, and waits anew if this one had a delay.
    FLOWMESH_ENQUEUED_EXTENDED = 3,
}

/// What enqueueing a job gave.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct flowmesh_receipt {
    /// The job that will be worked on: its UUID, NUL-terminated.
    pub id: [c_char; 40],
    /// With `FLOWMESH_ENQUEUED_REPLACED` the cancelled job, else empty.
    pub replaced: [c_char; 40],
    /// One of `enum flowmesh_enqueued`.
    pub outcome: i32,
    /// How safe it is, one of `enum flowmesh_durability`.
    pub durability: i32,
}

/// A job for `flowmesh_queue_enqueue_many`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct flowmesh_new_job {
    /// Its bytes; NULL when `payload_bytes` is 0.
    pub payload: *const c_void,
    /// How many there are.
    pub payload_bytes: usize,
    /// What it wants; NULL: what the call says. `durability` is of the call alone.
    pub options: *const flowmesh_enqueue_options,
}

/// § Enqueueing jobs
///
/// Enqueues a job. `payload` is copied. `options` may be NULL; `receipt`, unless NULL, gets its id, what became of it,
/// and how safe it is.
///
/// # Errors
/// `INVALID_ARGUMENT`, `TOO_LARGE`: the message names value and limit. `FULL`: the queue's `max_length` is reached.
/// `DRAINING`: it takes nothing new. `STORAGE_FULL`: the disk is full, nothing was written; retry when there is room.
/// `FROZEN`: the disk failed; whether the job is there after a restart is unknown. `TIMEOUT`: the host did not answer;
/// the job may be there: with an `id` of its own it can be enqueued again. `CLOSED`, `DISCONNECTED`, `FORKED`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_queue_enqueue(
    queue: *mut flowmesh_queue,
    payload: *const c_void,
    payload_bytes: usize,
    options: *const flowmesh_enqueue_options,
    receipt: *mut flowmesh_receipt,
) -> flowmesh_status {
    guard("flowmesh_queue_enqueue", |call| {
        // SAFETY: NULL is nowhere to write, anything else is as the manual asks.
        let out = unsafe { call.optional_out(receipt, flowmesh_receipt::NONE, "receipt") }?;
        let handle = call.live::<QueueHandle>(queue)?;
        // SAFETY: the arguments are as the manual asks.
        let (payload, options) =
            unsafe { (call.bytes(payload, payload_bytes, "payload")?, Read::of(call, options)?) };
        let given = options.through(handle.queue(), |queue| queue.enqueue(payload, &options.job))?;
        if let Some(out) = out {
            out.set(flowmesh_receipt::of(&given));
        }
        Ok(())
    })
}

/// Enqueues `job_count` jobs, at most 10000, in one write: all or none. `options` may be NULL and count for the jobs that
/// have none of their own. `receipts`, unless NULL, has room for one of each job, in their order.
///
/// # Errors
/// As `flowmesh_queue_enqueue`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_queue_enqueue_many(
    queue: *mut flowmesh_queue,
    jobs: *const flowmesh_new_job,
    job_count: usize,
    options: *const flowmesh_enqueue_options,
    receipts: *mut flowmesh_receipt,
) -> flowmesh_status {
    guard("flowmesh_queue_enqueue_many", |call| {
        let handle = call.live::<QueueHandle>(queue)?;
        if job_count > ENQUEUE_COUNT_MAX {
            let error = call.error(flowmesh::ErrorKind::TooLarge);
            return Err(error.with("job_count", job_count).with("limit", ENQUEUE_COUNT_MAX));
        }
        // SAFETY: the arguments are as the manual asks.
        let (jobs, common) = unsafe { (call.slice(jobs, job_count, "jobs")?, Read::of(call, options)?) };
        let mut room: &mut [_] = &mut [];
        if !receipts.is_null() {
            // SAFETY: the manual asks for room for as many receipts as jobs.
            room = unsafe { call.room(receipts, job_count, "receipts") }?;
        }
        for place in &mut *room {
            place.write(flowmesh_receipt::NONE);
        }
        let own = jobs.iter().map(|job| {
            if job.options.is_null() {
                return Ok(None);
            }
            // SAFETY: the arguments are as the manual asks.
            let own = unsafe { Read::of(call, job.options) }?;
            if own.durability.is_some() {
                let rule = "it counts for the call: set it in the call's options";
                return Err(call.invalid("job.options.durability", "not 0", rule));
            }
            Ok(Some(own.job))
        });
        let own = own.collect::<Result<Vec<_>>>()?;
        let requests = jobs.iter().zip(&own).map(|(job, own)| {
            // SAFETY: the arguments are as the manual asks.
            let payload = unsafe { call.bytes(job.payload, job.payload_bytes, "job.payload") }?;
            Ok(NewJobRequest::new(payload, own.as_ref().unwrap_or(&common.job)))
        });
        let requests = requests.collect::<Result<Vec<_>>>()?;
        if requests.is_empty() {
            return Ok(());
        }
        let given =
            common.through(handle.queue(), |queue| queue.enqueue_many(&requests, &mut Wait::forever()))?;
        for (place, given) in room.iter_mut().zip(&given) {
            place.write(flowmesh_receipt::of(given));
        }
        Ok(())
    })
}

/// Options as the core takes them.
struct Read {
    job: EnqueueOptions,
    durability: Option<flowmesh::Durability>,
}

impl Read {
    /// # Safety
    /// `options` is NULL or as the manual asks.
    unsafe fn of(call: Call, options: *const flowmesh_enqueue_options) -> Result<Self> {
        if options.is_null() {
            return Ok(Self { job: EnqueueOptions::default(), durability: None });
        }
        // SAFETY: the caller's duty, passed on.
        let options = unsafe { call.options(options) }?;
        let durability = call.own_durability(options.durability, options.durability_interval_ms)?;
        // SAFETY: the caller's duty, passed on.
        Ok(Self { job: unsafe { options.read(call) }?, durability })
    }

    /// Uses the queue as durably as was asked for.
    fn through<R>(&self, queue: &Queue, usage: impl FnOnce(&Queue) -> R) -> R {
        match self.durability {
            None => usage(queue),
            Some(durability) => usage(&queue.durable(durability)),
        }
    }
}

impl flowmesh_receipt {
    const NONE: Self = Self { id: [0; 40], replaced: [0; 40], outcome: 0, durability: 0 };

    fn of(receipt: &Receipt) -> Self {
        let (outcome, replaced) = match receipt.enqueued {
            Enqueued::New(_) => (flowmesh_enqueued::FLOWMESH_ENQUEUED_NEW, None),
            Enqueued::Replaced { replaced, .. } => {
                (flowmesh_enqueued::FLOWMESH_ENQUEUED_REPLACED, Some(replaced))
            }
            Enqueued::Existing(_) => (flowmesh_enqueued::FLOWMESH_ENQUEUED_EXISTING, None),
            Enqueued::Extended(_) => (flowmesh_enqueued::FLOWMESH_ENQUEUED_EXTENDED, None),
        };
        Self {
            id: uuid(receipt.id()),
            replaced: replaced.map_or([0; 40], uuid),
            outcome: outcome as i32,
            durability: durability_of(receipt.durability).0,
        }
    }
}

/// An id as text with NULs behind it. Written out: it is done for every job, and `Display` takes ten times as long.
pub(super) fn uuid(id: JobId) -> [c_char; 40] {
    let mut text = [0; 40];
    let mut at = 0;
    for (index, byte) in id.0.to_be_bytes().into_iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text[at] = b'-' as c_char;
            at += 1;
        }
        for digit in [byte >> 4, byte & 15] {
            text[at] = b"0123456789abcdef"[usize::from(digit)] as c_char;
            at += 1;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    #[test]
    fn ids_as_text_are_those_of_the_core() {
        for id in [0, 1, u128::MAX, 0x0123_4567_89ab_cdef_0011_2233_4455_6677] {
            let text = uuid(JobId(id));
            // SAFETY: it ends with NULs.
            let text = unsafe { CStr::from_ptr(text.as_ptr()) };
            assert_eq!(text.to_str().unwrap(), JobId(id).to_string());
        }
    }
}
