//! Looking at queues and jobs without taking any.

use super::{
    QueueHandle, flowmesh_queue,
    job::{ContentHandle, flowmesh_content},
    options::{ms, wall_ms},
};
use crate::{
    error::c_string,
    flowmesh_bytes, flowmesh_status,
    guard::{guard, guard_number, guard_value},
    options::{SizedStruct, sized},
};
use flowmesh::{
    ErrorKind, Wait,
    queue::{Cursor, JobInfo, JobState, QueueReply, QueueRequest, QueueStats},
};
use std::{
    ffi::{CString, c_char},
    ptr,
};

/// A job is in exactly one of these.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum flowmesh_job_state {
    /// Waits for its time.
    FLOWMESH_JOB_SCHEDULED = 0,
    /// Could be handed out now.
    FLOWMESH_JOB_READY = 1,
    /// Could be handed out but for its group's limits, or the job that has its unique key.
    FLOWMESH_JOB_BLOCKED = 2,
    /// A worker has it.
    FLOWMESH_JOB_LEASED = 3,
    /// An attempt has failed; the next one waits for its time.
    FLOWMESH_JOB_RETRY_WAIT = 4,
    /// Acknowledged.
    FLOWMESH_JOB_DONE = 5,
    /// Out of attempts, or rejected.
    FLOWMESH_JOB_DEAD = 6,
    /// Cancelled.
    FLOWMESH_JOB_CANCELLED = 7,
    /// Waited longer than its time to live.
    FLOWMESH_JOB_EXPIRED = 8,
}

/// Jobs as they were when they were asked for.
pub struct flowmesh_job_list {
    _opaque: (),
}

/// Numbers of one queue. Begin with `FLOWMESH_QUEUE_STATS_INIT`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct flowmesh_queue_stats {
    /// `sizeof` of this struct.
    pub struct_size: usize,
    /// Jobs that wait for their time.
    pub scheduled: u64,
    /// Jobs that could be handed out now.
    pub ready: u64,
    /// Jobs that wait for their group's limits, or for the job that has their unique key.
    pub blocked: u64,
    /// Jobs that workers have.
    pub leased: u64,
    /// Jobs that wait for their next attempt.
    pub retry_wait: u64,
    /// Jobs that are done and kept.
    pub done: u64,
    /// Dead jobs.
    pub dead: u64,
    /// Cancelled jobs that are kept.
    pub cancelled: u64,
    /// Expired jobs that are kept.
    pub expired: u64,
    /// Payload bytes of all jobs that are not finished.
    pub payload_bytes: u64,
    /// How long the first of the ready jobs has been ready; -1 when none is.
    pub oldest_ready_ms: i64,
    /// Groups with jobs.
    pub groups: u64,
    /// Dead jobs still to be redriven at the rate that was asked for.
    pub redriving: u64,
    /// Since the host opened: jobs enqueued.
    pub total_enqueued: u64,
    /// Since then: jobs not enqueued because of their id or unique key.
    pub total_duplicates: u64,
    /// Since then: leases given.
    pub total_reserved: u64,
    /// Since then: jobs done.
    pub total_done: u64,
    /// Since then: attempts that failed: nacked, expired, or ended with their worker.
    pub total_failed: u64,
    /// Of these, leases that expired.
    pub total_lease_expired: u64,
    /// Of these, leases that ended with their worker's process.
    pub total_worker_gone: u64,
    /// Since then: jobs given back: released or snoozed.
    pub total_released: u64,
    /// Since then: jobs that became dead.
    pub total_dead: u64,
    /// Since then: jobs cancelled.
    pub total_cancelled: u64,
    /// Since then: jobs expired.
    pub total_expired: u64,
    /// Since then: jobs redriven.
    pub total_redriven: u64,
    /// Since then: jobs removed by purging or retention.
    pub total_removed: u64,
    /// 1 when it hands out nothing.
    pub paused: i32,
    /// 1 when it takes nothing new.
    pub draining: i32,
}

/// Where a listing goes on: `flowmesh_cursor cursor = FLOWMESH_CURSOR_INIT;` is its begin.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct flowmesh_cursor {
    /// The library's own.
    pub position: [u64; 4],
    /// 0: at the begin; 1: there is more; 2: at the end.
    pub state: i32,
    /// 0.
    pub reserved: i32,
}

/// What is known of one job. Begin with `FLOWMESH_JOB_INFO_INIT`. Points in time are milliseconds since 1970-01-01 UTC.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct flowmesh_job_info {
    /// `sizeof` of this struct.
    pub struct_size: usize,
    /// Its id, a UUID.
    pub id: *const c_char,
    /// Its group; NULL when it has none.
    pub group: *const c_char,
    /// Its unique key; NULL when it has none.
    pub unique_key: *const c_char,
    /// What its worker last told (`flowmesh_job_progress`).
    pub progress: flowmesh_bytes,
    /// When it became ready; of a finished job, when it was finished.
    pub since_ms: i64,
    /// Scheduled and waiting for the next attempt: when it is ready. Leased: when the lease ends. Finished: until when it
    /// is kept. -1: none.
    pub due_ms: i64,
    /// When it expires if it still waits then; -1: never.
    pub expires_ms: i64,
    /// The number of the process that has it, its session; 0 is the host itself. -1: none has.
    pub worker: i64,
    /// Bytes of its payload.
    pub payload_bytes: u64,
    /// How many of its failures are kept, at most ten: see `flowmesh_job_list_failure`.
    pub failure_count: usize,
    /// One of `enum flowmesh_job_state`.
    pub state: i32,
    /// 0 to 255.
    pub priority: i32,
    /// Attempts begun since it was enqueued or redriven.
    pub attempt: u32,
    /// Attempts it may have.
    pub max_attempts: u32,
    /// How often it was redriven.
    pub redrives: u32,
    /// 1 when it is to be given back.
    pub cancelling: i32,
    /// 1 when there is a result.
    pub has_result: i32,
    /// 0.
    pub reserved: i32,
}

/// What went wrong in one attempt, or ended a job otherwise. Begin with `FLOWMESH_FAILURE_INIT`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct flowmesh_failure {
    /// `sizeof` of this struct.
    pub struct_size: usize,
    /// In a few words.
    pub message: *const c_char,
    /// A stack trace or the like; empty when there is none. Of the last failure only.
    pub detail: *const c_char,
    /// When, in milliseconds since 1970-01-01 UTC.
    pub at_ms: i64,
    /// Which attempt; 0 when there was none.
    pub attempt: u32,
    /// 0.
    pub reserved: u32,
}

sized! {
    flowmesh_queue_stats = {};
    flowmesh_job_info = { progress: flowmesh_bytes::NONE };
    flowmesh_failure = {};
}

pub(crate) struct JobsHandle(Vec<Listed>);

struct Listed {
    info: JobInfo,
    id: CString,
    group: Option<CString>,
    unique_key: Option<CString>,
    failures: Vec<[CString; 2]>,
}

/// § Looking at queues and jobs
///
/// The queue's numbers, into `*out`, which begins with its size (`FLOWMESH_QUEUE_STATS_INIT`). It takes as long for a queue
/// of millions as for an empty one.
///
/// Threads: any, as for all these functions. They block until the host has answered, at most 30 s.
///
/// # Errors
/// `TIMEOUT`, `CLOSED`, `DISCONNECTED`, `FORKED`; so for all these functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_queue_get_stats(
    queue: *const flowmesh_queue,
    out: *mut flowmesh_queue_stats,
) -> flowmesh_status {
    guard("flowmesh_queue_get_stats", |call| {
        let stats = call.live::<QueueHandle>(queue)?.queue().stats()?;
        // SAFETY: the manual asks for a struct that begins with its size.
        unsafe { call.fill(out, &flowmesh_queue_stats::of(&stats)) }
    })
}

/// Up to `most` jobs, 1 to 1000, in `state`, one of `enum flowmesh_job_state`: waiting ones in the order in which they will
/// be handed out, finished ones as they were finished. `cursor` says where to begin, and gets where to go on; NULL lists
/// from the begin. The list in `*out` is the caller's to free; it does not change.
///
///     flowmesh_cursor cursor = FLOWMESH_CURSOR_INIT;
///     while (cursor.state != 2 && flowmesh_queue_list(queue, FLOWMESH_JOB_DEAD, &cursor, 100, &list) == FLOWMESH_OK)
///
/// # Errors
/// `INVALID_ARGUMENT`: the state, the cursor, or `most`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_queue_list(
    queue: *const flowmesh_queue,
    state: i32,
    cursor: *mut flowmesh_cursor,
    most: usize,
    out: *mut *mut flowmesh_job_list,
) -> flowmesh_status {
    guard("flowmesh_queue_list", |call| {
        // SAFETY: the arguments are as the manual asks.
        let out = unsafe { call.out(out, ptr::null_mut(), "out") }?;
        let handle = call.live::<QueueHandle>(queue)?;
        let state = call.state(state)?;
        let begin = flowmesh_cursor { position: [0; 4], state: 0, reserved: 0 };
        // SAFETY: the arguments are as the manual asks.
        let given = if cursor.is_null() { begin } else { unsafe { call.slice(cursor, 1, "cursor") }?[0] };
        let from = match given.state {
            0 => None,
            1 => Some(Cursor::from_words(given.position)),
            2 => {
                out.set(call.give(JobsHandle(Vec::new()))?);
                return Ok(());
            }
            other => return Err(call.invalid("cursor.state", other, "it is 0, 1 or 2")),
        };
        let listed = handle.queue().list(state, from, most)?;
        let next = listed.next.map_or(flowmesh_cursor { state: 2, ..begin }, |next| flowmesh_cursor {
            position: next.to_words(),
            state: 1,
            reserved: 0,
        });
        out.set(call.give(JobsHandle(listed.jobs.into_iter().map(Listed::new).collect()))?);
        // SAFETY: the arguments are as the manual asks.
        if let Some(cursor) = unsafe { call.optional_out(cursor, begin, "cursor") }? {
            cursor.set(next);
        }
        Ok(())
    })
}

/// The job of this id, without taking it, as a list of one that is the caller's to free.
///
/// # Errors
/// `NOT_FOUND`: there is no such job, or not any more. `INVALID_ARGUMENT`: `job` is no id.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_queue_peek(
    queue: *const flowmesh_queue,
    job: *const c_char,
    out: *mut *mut flowmesh_job_list,
) -> flowmesh_status {
    guard("flowmesh_queue_peek", |call| {
        // SAFETY: the arguments are as the manual asks.
        let out = unsafe { call.out(out, ptr::null_mut(), "out") }?;
        let handle = call.live::<QueueHandle>(queue)?;
        // SAFETY: the arguments are as the manual asks.
        let info = handle.queue().peek(unsafe { call.job_id(job) }?)?;
        out.set(call.give(JobsHandle(vec![Listed::new(info)]))?);
        Ok(())
    })
}

/// How many jobs it lists.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_list_count(list: *const flowmesh_job_list) -> usize {
    guard_value("flowmesh_job_list_count", 0, |call| Ok(call.live::<JobsHandle>(list)?.0.len()))
}

/// Job number `index`, from 0, into `*out`, which begins with its size (`FLOWMESH_JOB_INFO_INIT`). Its texts and bytes are
/// lent until the list is freed. Does not block.
///
/// # Errors
/// `NOT_FOUND`: it lists fewer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_list_get(
    list: *const flowmesh_job_list,
    index: usize,
    out: *mut flowmesh_job_info,
) -> flowmesh_status {
    guard("flowmesh_job_list_get", |call| {
        let list = call.live::<JobsHandle>(list)?;
        let filled = call.pick(&list.0, index)?.filled();
        // SAFETY: the manual asks for a struct that begins with its size.
        unsafe { call.fill(out, &filled) }
    })
}

/// Failure number `failure`, from 0, the oldest first, of job number `index`, into `*out`, which begins with its size
/// (`FLOWMESH_FAILURE_INIT`). Its texts are lent until the list is freed. Does not block.
///
/// # Errors
/// `NOT_FOUND`: there are fewer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_list_failure(
    list: *const flowmesh_job_list,
    index: usize,
    failure: usize,
    out: *mut flowmesh_failure,
) -> flowmesh_status {
    guard("flowmesh_job_list_failure", |call| {
        let list = call.live::<JobsHandle>(list)?;
        let job = call.pick(&list.0, index)?;
        let [message, detail] = call.pick(&job.failures, failure)?;
        let kept = call.pick(&job.info.failures, failure)?;
        let filled = flowmesh_failure {
            struct_size: 0,
            message: message.as_ptr(),
            detail: detail.as_ptr(),
            at_ms: wall_ms(kept.at),
            attempt: kept.attempt.into(),
            reserved: 0,
        };
        // SAFETY: the manual asks for a struct that begins with its size.
        unsafe { call.fill(out, &filled) }
    })
}

/// Frees it. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_list_free(list: *mut flowmesh_job_list) -> flowmesh_status {
    guard("flowmesh_job_list_free", |call| call.free::<JobsHandle>(list, |_| ()))
}

/// What the job of this id carries. The content in `*out` is the caller's to free.
///
/// # Errors
/// `NOT_FOUND`: there is no such job, or not any more. `INVALID_ARGUMENT`: `job` is no id.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_queue_content(
    queue: *const flowmesh_queue,
    job: *const c_char,
    out: *mut *mut flowmesh_content,
) -> flowmesh_status {
    guard("flowmesh_queue_content", |call| {
        // SAFETY: the arguments are as the manual asks.
        let out = unsafe { call.out(out, ptr::null_mut(), "out") }?;
        let handle = call.live::<QueueHandle>(queue)?;
        // SAFETY: the arguments are as the manual asks.
        let content = handle.queue().content(unsafe { call.job_id(job) }?)?;
        out.set(call.give(ContentHandle::new(content))?);
        Ok(())
    })
}

/// What the job of this id was acked with. The content in `*out` is the caller's to free; it is NULL, without an error, when
/// the job has no result, or not yet, or not any more.
///
/// # Errors
/// `NOT_FOUND`: there is no such job, or not any more. `INVALID_ARGUMENT`: `job` is no id.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_queue_result(
    queue: *const flowmesh_queue,
    job: *const c_char,
    out: *mut *mut flowmesh_content,
) -> flowmesh_status {
    guard("flowmesh_queue_result", |call| {
        // SAFETY: the arguments are as the manual asks.
        let out = unsafe { call.out(out, ptr::null_mut(), "out") }?;
        let handle = call.live::<QueueHandle>(queue)?;
        let queue = handle.queue();
        // SAFETY: the arguments are as the manual asks.
        let request = QueueRequest::Outcome { queue: queue.id(), job: unsafe { call.job_id(job) }? };
        let QueueReply::Content(content) = queue.request(request, &mut Wait::forever())?.reply else {
            return Err(call.error(ErrorKind::Protocol).with("violation", "another answer"));
        };
        if let Some(content) = content {
            out.set(call.give(ContentHandle::new(content))?);
        }
        Ok(())
    })
}

/// The name of a state, `"ready"` and so on, as all languages spell it. Static text; `"unknown"` for what is no state.
#[unsafe(no_mangle)]
pub extern "C" fn flowmesh_job_state_name(state: i32) -> *const c_char {
    let name = match state {
        0 => c"scheduled",
        1 => c"ready",
        2 => c"blocked",
        3 => c"leased",
        4 => c"retry_wait",
        5 => c"done",
        6 => c"dead",
        7 => c"cancelled",
        8 => c"expired",
        _ => c"unknown",
    };
    name.as_ptr()
}

/// The state of this name: one of `enum flowmesh_job_state`, or a negative status.
///
/// # Errors
/// `INVALID_ARGUMENT`: there is no such state; the message lists them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_job_state_parse(name: *const c_char) -> i32 {
    guard_number("flowmesh_job_state_parse", |call| {
        // SAFETY: the arguments are as the manual asks.
        Ok(JobState::parse(unsafe { call.text(name, "name") }?)? as i32)
    })
}

impl flowmesh_queue_stats {
    fn of(stats: &QueueStats) -> Self {
        let totals = &stats.totals;
        Self {
            struct_size: 0,
            scheduled: stats.count(JobState::Scheduled),
            ready: stats.count(JobState::Ready),
            blocked: stats.count(JobState::Blocked),
            leased: stats.count(JobState::Leased),
            retry_wait: stats.count(JobState::RetryWait),
            done: stats.count(JobState::Done),
            dead: stats.count(JobState::Dead),
            cancelled: stats.count(JobState::Cancelled),
            expired: stats.count(JobState::Expired),
            payload_bytes: stats.payload_bytes,
            oldest_ready_ms: stats.oldest_ready.map_or(-1, ms),
            groups: stats.groups,
            redriving: stats.redriving,
            total_enqueued: totals.enqueued,
            total_duplicates: totals.duplicates,
            total_reserved: totals.reserved,
            total_done: totals.done,
            total_failed: totals.failed,
            total_lease_expired: totals.lease_expired,
            total_worker_gone: totals.worker_gone,
            total_released: totals.released,
            total_dead: totals.dead,
            total_cancelled: totals.cancelled,
            total_expired: totals.expired,
            total_redriven: totals.redriven,
            total_removed: totals.removed,
            paused: i32::from(stats.paused),
            draining: i32::from(stats.draining),
        }
    }
}

impl Listed {
    fn new(info: JobInfo) -> Self {
        Self {
            id: c_string(&info.id.to_string()),
            group: info.group.as_deref().map(c_string),
            unique_key: info.unique_key.as_deref().map(c_string),
            failures: info
                .failures
                .iter()
                .map(|failure| [c_string(&failure.message), c_string(&failure.detail)])
                .collect(),
            info,
        }
    }

    fn filled(&self) -> flowmesh_job_info {
        let info = &self.info;
        let text = |text: &Option<CString>| text.as_ref().map_or(ptr::null(), |text| text.as_ptr());
        flowmesh_job_info {
            struct_size: 0,
            id: self.id.as_ptr(),
            group: text(&self.group),
            unique_key: text(&self.unique_key),
            progress: info.progress.as_deref().map_or(flowmesh_bytes::NONE, flowmesh_bytes::of),
            since_ms: wall_ms(info.since),
            due_ms: info.due.map_or(-1, wall_ms),
            expires_ms: info.expires.map_or(-1, wall_ms),
            worker: info.worker.map_or(-1, |worker| i64::try_from(worker.0).unwrap_or(i64::MAX)),
            payload_bytes: info.payload_bytes.into(),
            failure_count: info.failures.len(),
            state: info.state as i32,
            priority: info.priority.into(),
            attempt: info.attempt.into(),
            max_attempts: info.max_attempts.into(),
            redrives: info.redrives,
            cancelling: i32::from(info.cancelling),
            has_result: i32::from(info.has_result),
            reserved: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    #[test]
    fn states_are_those_of_the_core() {
        for state in JobState::ALL {
            // SAFETY: static texts.
            let name = unsafe { CStr::from_ptr(flowmesh_job_state_name(state as i32)) };
            assert_eq!(name.to_str().unwrap(), state.name());
        }
        assert_eq!(flowmesh_job_state::FLOWMESH_JOB_EXPIRED as i32, JobState::Expired as i32);
        assert_eq!(flowmesh_job_state::FLOWMESH_JOB_LEASED as i32, JobState::Leased as i32);
    }
}
