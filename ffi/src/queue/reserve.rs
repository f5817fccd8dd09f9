//! Reserving jobs.

use super::{
    QueueHandle, flowmesh_queue,
    job::{JobHandle, flowmesh_job},
};
use crate::{
    flowmesh_status,
    guard::{Call, guard, guard_number, timeout},
    handle::take_back,
    wait::Interrupt,
};
use flowmesh::{ErrorKind, Job, PendingReply, Queue, Result, queue::Answered};
use std::{mem::MaybeUninit, ptr};

/// A wait for jobs that was started.
pub struct flowmesh_reservation {
    _opaque: (),
}

pub(crate) struct ReservationHandle(Box<Held>);

struct Held {
    queue: Queue,
    pending: PendingReply,
    interrupt: Interrupt,
    most: usize,
}

/// § Reserving jobs
///
/// Takes the next job, waiting at most `timeout_ms`: below 0 for ever, 0 only looks. The job in `*out` is the caller's for
/// as long as it or the queue says: to be settled, by `flowmesh_job_ack` and its like, and to be freed.
///
/// Threads: any; several may take jobs of one queue.
///
/// # Errors
/// `TIMEOUT`: there was none. `INTERRUPTED`: a signal came (see `on_signal`); a job that came meanwhile goes back.
/// `CLOSED`: the queue's handle was freed, or the mesh closed, also while this waited. `DISCONNECTED`, `FORKED`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_queue_next(
    queue: *mut flowmesh_queue,
    timeout_ms: i64,
    out: *mut *mut flowmesh_job,
) -> flowmesh_status {
    guard("flowmesh_queue_next", |call| {
        // SAFETY: the arguments are as the manual asks.
        let out = unsafe { call.out(out, ptr::null_mut(), "out") }?;
        let handle = call.live::<QueueHandle>(queue)?;
        let taken = handle.reserve(call, 1, None, timeout_ms)?.into_iter().next();
        let job = taken.ok_or_else(|| call.error(ErrorKind::Timeout).with("timeout_ms", timeout_ms))?;
        out.set(call.give_job(job, handle.0.interrupt)?);
        Ok(())
    })
}

/// Waits for a job as `flowmesh_queue_next` does, then takes all that are there, up to `capacity`, at most 1000, into
/// `jobs`; `*count` says how many. Each is the caller's for `lease_ms`, 1000 to 43200000 (12 hours), or with -1 for as
/// long as it or the queue says; and is the caller's to free (`flowmesh_job_free_many`).
///
/// Threads: any; several may take jobs of one queue.
///
/// # Errors
/// As `flowmesh_queue_next`. `INVALID_ARGUMENT`, `TOO_LARGE`: `lease_ms` or `capacity` is out of bounds. `*count` is 0
/// then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_queue_reserve(
    queue: *mut flowmesh_queue,
    lease_ms: i64,
    timeout_ms: i64,
    jobs: *mut *mut flowmesh_job,
    capacity: usize,
    count: *mut usize,
) -> flowmesh_status {
    guard("flowmesh_queue_reserve", |call| {
        // SAFETY: the arguments are as the manual asks.
        let (count, room) = unsafe { (call.out(count, 0, "count")?, call.room(jobs, capacity, "jobs")?) };
        let handle = call.live::<QueueHandle>(queue)?;
        let lease = call.given_time(lease_ms, "lease_ms")?;
        let taken = handle.reserve(call, capacity, lease, timeout_ms)?;
        count.set(call.give_jobs(taken, handle.0.interrupt, room)?);
        Ok(())
    })
}

/// Starts waiting for up to `most` jobs and returns at once: for event loops. `lease_ms` as for
/// `flowmesh_queue_reserve`; the wait ends by itself after `timeout_ms`, below 0 never. The reservation in `*out` is the
/// caller's to free, which gives up waiting; jobs that came meanwhile and were not taken go back.
///
/// Threads: any. Does not block for long: only while there is no room for the request.
///
/// # Errors
/// `INVALID_ARGUMENT`, `TOO_LARGE`: `lease_ms` or `most` is out of bounds; may also come with the answer. `CLOSED`,
/// `DISCONNECTED`, `FORKED`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_queue_reserve_start(
    queue: *mut flowmesh_queue,
    lease_ms: i64,
    timeout_ms: i64,
    most: usize,
    out: *mut *mut flowmesh_reservation,
) -> flowmesh_status {
    guard("flowmesh_queue_reserve_start", |call| {
        // SAFETY: the arguments are as the manual asks.
        let out = unsafe { call.out(out, ptr::null_mut(), "out") }?;
        let handle = call.live::<QueueHandle>(queue)?;
        let lease = call.given_time(lease_ms, "lease_ms")?;
        let pending = handle.queue().start_reserve(most, lease, timeout(timeout_ms))?;
        let (queue, interrupt) = (handle.queue().clone(), handle.0.interrupt);
        out.set(call.give(ReservationHandle(Box::new(Held { queue, pending, interrupt, most })))?);
        Ok(())
    })
}

/// Waits for the jobs, at most `timeout_ms`: below 0 for ever, which the reservation's own timeout ends. They are given
/// out once, into `jobs`, which has room for `capacity`, at least as many as were asked for; `*count` says how many.
/// Afterwards comes `CLOSED`.
///
/// Threads: any.
///
/// # Errors
/// `TIMEOUT`: there was none, or this wait ended before the reservation's, which goes on then: `flowmesh_reservation_try`
/// tells the two apart. `CANCELLED`: somebody cancelled it. `INTERRUPTED`: a signal came; the reservation goes on. As
/// `flowmesh_queue_reserve`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_reservation_wait(
    reservation: *mut flowmesh_reservation,
    timeout_ms: i64,
    jobs: *mut *mut flowmesh_job,
    capacity: usize,
    count: *mut usize,
) -> flowmesh_status {
    guard("flowmesh_reservation_wait", |call| {
        // SAFETY: the arguments are as the manual asks.
        let (count, room) = unsafe { (call.out(count, 0, "count")?, call.room(jobs, capacity, "jobs")?) };
        let handle = call.live::<ReservationHandle>(reservation)?;
        handle.0.check_room(call, capacity)?;
        let answered = handle.0.interrupt.waiting(timeout_ms, |wait| handle.0.pending.wait(wait))?;
        count.set(handle.0.give(call, answered, room)?);
        Ok(())
    })
}

/// Takes the jobs if they are there. `*done` becomes 1 when the reservation has ended, well or not, and 0 while it goes
/// on. `jobs`, `capacity` and `*count` as for `flowmesh_reservation_wait`.
///
/// Threads: any. Does not block.
///
/// # Errors
/// The reservation's failure, with `*done` 1: `TIMEOUT` when there was none in time. As `flowmesh_reservation_wait`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_reservation_try(
    reservation: *mut flowmesh_reservation,
    done: *mut i32,
    jobs: *mut *mut flowmesh_job,
    capacity: usize,
    count: *mut usize,
) -> flowmesh_status {
    guard("flowmesh_reservation_try", |call| {
        // SAFETY: the arguments are as the manual asks.
        let (done, count, room) = unsafe {
            (call.out(done, 0, "done")?, call.out(count, 0, "count")?, call.room(jobs, capacity, "jobs")?)
        };
        let handle = call.live::<ReservationHandle>(reservation)?;
        handle.0.check_room(call, capacity)?;
        if let Some(ended) = handle.0.pending.try_take() {
            done.set(1);
            count.set(handle.0.give(call, ended?, room)?);
        }
        Ok(())
    })
}

/// Gives up waiting: whoever waits gets `CANCELLED`, and jobs that came meanwhile go back. Does nothing when the
/// reservation has ended.
///
/// Threads: any. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_reservation_cancel(
    reservation: *mut flowmesh_reservation,
) -> flowmesh_status {
    guard("flowmesh_reservation_cancel", |call| {
        call.live::<ReservationHandle>(reservation)?.0.pending.cancel();
        Ok(())
    })
}

/// A descriptor that is readable once the reservation has ended, or a negative status. For `poll` and its like: do not
/// read, write or close it. It lives until the reservation is freed.
///
/// Threads: any. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_reservation_fd(reservation: *const flowmesh_reservation) -> i32 {
    guard_number("flowmesh_reservation_fd", |call| {
        call.live::<ReservationHandle>(reservation)?.0.pending.fd()
    })
}

/// Frees it, giving up waiting when it has not ended; jobs that were not taken go back. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_reservation_free(
    reservation: *mut flowmesh_reservation,
) -> flowmesh_status {
    guard("flowmesh_reservation_free", |call| {
        // Whoever waits in it is woken, before the last share of it goes.
        call.free::<ReservationHandle>(reservation, |handle| handle.0.pending.cancel())
    })
}

impl Held {
    fn check_room(&self, call: Call, capacity: usize) -> Result<()> {
        if capacity < self.most {
            let limit = format!("at least {}, as many as were asked for", self.most);
            return Err(call.limited("capacity", capacity, &limit));
        }
        Ok(())
    }

    fn give(
        &self,
        call: Call,
        answered: Answered,
        room: &mut [MaybeUninit<*mut flowmesh_job>],
    ) -> Result<usize> {
        call.give_jobs(self.queue.jobs(answered)?, self.interrupt, room)
    }
}

impl Call {
    pub(super) fn give_job(self, job: Job, interrupt: Interrupt) -> Result<*mut flowmesh_job> {
        self.give(JobHandle::new(job, interrupt))
    }

    /// Handles of jobs, into room for as many; how many they are, at least one.
    fn give_jobs(
        self,
        jobs: Vec<Job>,
        interrupt: Interrupt,
        room: &mut [MaybeUninit<*mut flowmesh_job>],
    ) -> Result<usize> {
        if jobs.is_empty() {
            return Err(self.error(ErrorKind::Timeout).with("jobs", "none in time"));
        }
        let count = jobs.len();
        for (index, job) in jobs.into_iter().enumerate() {
            let given = self.give_job(job, interrupt).inspect_err(|_| {
                // No handles are left: what was given is ended, and its leases end by themselves.
                // SAFETY: the places before this one were written.
                room[..index].iter().for_each(|place| take_back(unsafe { place.assume_init() }));
            })?;
            room[index].write(given);
        }
        Ok(count)
    }
}
