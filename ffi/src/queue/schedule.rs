//! Jobs that are enqueued again and again.

use super::{
    QueueHandle, flowmesh_queue,
    options::{LentOptions, flowmesh_enqueue_options, ms, wall_ms},
};
use crate::{
    error::c_string,
    flowmesh_status,
    guard::{Call, guard, guard_value},
    options::{SizedStruct, sized},
};
use flowmesh::{
    Result, Timestamp,
    queue::{EnqueueOptions, Misfire, Overlap, Schedule},
};
use std::{
    ffi::{CString, c_char, c_void},
    ptr,
};

/// What happens to times that were missed by more than a minute: the field `misfire` of `flowmesh_schedule`.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum flowmesh_misfire {
    /// One job stands for all of them. The default.
    FLOWMESH_MISFIRE_RUN_ONCE = 0,
    /// They are let pass.
    FLOWMESH_MISFIRE_SKIP = 1,
    /// Each is made up for, the first 100.
    FLOWMESH_MISFIRE_RUN_ALL = 2,
}

/// What happens while the last job of a schedule is not finished: the field `overlap` of `flowmesh_schedule`.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum flowmesh_overlap {
    /// Another job is enqueued. The default.
    FLOWMESH_OVERLAP_ALLOW = 0,
    /// This time is let pass.
    FLOWMESH_OVERLAP_SKIP = 1,
    /// The last job is cancelled and another enqueued.
    FLOWMESH_OVERLAP_REPLACE = 2,
}

/// The schedules of a queue, as they were when they were asked for.
pub struct flowmesh_schedule_list {
    _opaque: (),
}

/// A job that is enqueued again and again. Begin with `FLOWMESH_SCHEDULE_INIT`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct flowmesh_schedule {
    /// `sizeof` of this struct.
    pub struct_size: usize,
    /// What it is called, its own in its queue: letters, digits, `_`, `-` and dots.
    pub name: *const c_char,
    /// When: five fields (minute, hour, day of month, month, day of week), or six, seconds first; or `@hourly`, `@daily`,
    /// `@weekly`, `@monthly`, `@yearly`.
    pub cron: *const c_char,
    /// The IANA name of its time zone, like `Europe/Berlin`; NULL: UTC.
    pub zone: *const c_char,
    /// The payload of its jobs, at most 1 MiB; NULL when `payload_bytes` is 0.
    pub payload: *const c_void,
    /// Its size.
    pub payload_bytes: usize,
    /// What its jobs want, without `id`, `delay_ms`, `run_at_ms` and `durability`; NULL: nothing special.
    pub options: *const flowmesh_enqueue_options,
    /// Each job waits a little, up to so long, never the same; at most a day.
    pub jitter_ms: i64,
    /// Only told: when it fires next, in milliseconds since 1970-01-01 UTC.
    pub next_ms: i64,
    /// One of `enum flowmesh_misfire`.
    pub misfire: i32,
    /// One of `enum flowmesh_overlap`.
    pub overlap: i32,
}

sized! {
    flowmesh_schedule = {};
}

pub(crate) struct SchedulesHandle(Vec<Listed>);

struct Listed {
    schedule: Schedule,
    next: Timestamp,
    texts: [CString; 3],
    options: LentOptions,
}

/// § Schedules
///
/// Enqueues a job at each of the times that `schedule` says, in the place of the schedule of its name if there is one. It is
/// stored with the queue: one time makes one job, however many processes set the schedule, also after a restart. Where a
/// clock change skips a time, it fires once, right after; of a repeated time, the first counts.
///
/// Threads: any. Blocks until the host has answered, at most 30 s.
///
/// # Errors
/// `INVALID_ARGUMENT`: what the message names; of `cron`, with the column. `TOO_LARGE`: the payload. As
/// `flowmesh_queue_enqueue`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_queue_schedule(
    queue: *mut flowmesh_queue,
    schedule: *const flowmesh_schedule,
) -> flowmesh_status {
    guard("flowmesh_queue_schedule", |call| {
        let handle = call.live::<QueueHandle>(queue)?;
        if schedule.is_null() {
            return Err(call.null("schedule"));
        }
        // SAFETY: the arguments are as the manual asks.
        let schedule = unsafe { call.options(schedule)?.read(call) }?;
        handle.queue().schedule(&schedule)
    })
}

/// Removes the schedule of this name; jobs that it enqueued stay.
///
/// # Errors
/// `NOT_FOUND`: there is none. As `flowmesh_queue_schedule`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_queue_unschedule(
    queue: *mut flowmesh_queue,
    name: *const c_char,
) -> flowmesh_status {
    guard("flowmesh_queue_unschedule", |call| {
        let handle = call.live::<QueueHandle>(queue)?;
        // SAFETY: the arguments are as the manual asks.
        handle.queue().unschedule(unsafe { call.text(name, "name") }?)
    })
}

/// All schedules of the queue. The list in `*out` is the caller's to free; it does not change.
///
/// # Errors
/// `TIMEOUT`, `CLOSED`, `DISCONNECTED`, `FORKED`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_queue_schedules(
    queue: *const flowmesh_queue,
    out: *mut *mut flowmesh_schedule_list,
) -> flowmesh_status {
    guard("flowmesh_queue_schedules", |call| {
        // SAFETY: the arguments are as the manual asks.
        let out = unsafe { call.out(out, ptr::null_mut(), "out") }?;
        let schedules = call.live::<QueueHandle>(queue)?.queue().schedules()?;
        let listed = schedules.into_iter().map(|(schedule, next)| Listed::new(schedule, next));
        out.set(call.give(SchedulesHandle(listed.collect()))?);
        Ok(())
    })
}

/// How many schedules it lists.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_schedule_list_count(list: *const flowmesh_schedule_list) -> usize {
    guard_value("flowmesh_schedule_list_count", 0, |call| Ok(call.live::<SchedulesHandle>(list)?.0.len()))
}

/// Schedule number `index`, from 0, into `*out`, which begins with its size (`FLOWMESH_SCHEDULE_INIT`). What it points to is
/// lent until the list is freed. Does not block.
///
/// # Errors
/// `NOT_FOUND`: it lists fewer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_schedule_list_get(
    list: *const flowmesh_schedule_list,
    index: usize,
    out: *mut flowmesh_schedule,
) -> flowmesh_status {
    guard("flowmesh_schedule_list_get", |call| {
        let list = call.live::<SchedulesHandle>(list)?;
        let filled = call.pick(&list.0, index)?.filled();
        // SAFETY: the manual asks for a struct that begins with its size.
        unsafe { call.fill(out, &filled) }
    })
}

/// Frees it. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_schedule_list_free(list: *mut flowmesh_schedule_list) -> flowmesh_status {
    guard("flowmesh_schedule_list_free", |call| call.free::<SchedulesHandle>(list, |_| ()))
}

impl flowmesh_schedule {
    /// # Safety
    /// Its pointers are NULL or as its fields say.
    unsafe fn read(&self, call: Call) -> Result<Schedule> {
        // SAFETY: the caller's duty, passed on.
        let (name, cron, zone, payload) = unsafe {
            (
                call.text(self.name, "schedule.name")?,
                call.text(self.cron, "schedule.cron")?,
                call.optional_text(self.zone, "schedule.zone")?.unwrap_or("UTC"),
                call.bytes(self.payload, self.payload_bytes, "schedule.payload")?,
            )
        };
        let options = if self.options.is_null() {
            EnqueueOptions::default()
        } else {
            // SAFETY: the caller's duty, passed on.
            let options = unsafe { call.options(self.options) }?;
            if options.durability != 0 {
                let rule = "the queue's counts for scheduled jobs";
                return Err(call.invalid("schedule.options.durability", options.durability, rule));
            }
            // SAFETY: the caller's duty, passed on.
            unsafe { options.read(call) }?
        };
        Ok(Schedule {
            cron: cron.to_owned(),
            zone: zone.to_owned(),
            misfire: match self.misfire {
                0 => Misfire::RunOnce,
                1 => Misfire::Skip,
                2 => Misfire::RunAll,
                other => return Err(call.invalid("misfire", other, "it is not of enum flowmesh_misfire")),
            },
            overlap: match self.overlap {
                0 => Overlap::Allow,
                1 => Overlap::Skip,
                2 => Overlap::Replace,
                other => return Err(call.invalid("overlap", other, "it is not of enum flowmesh_overlap")),
            },
            jitter: call.milliseconds(self.jitter_ms, "jitter_ms")?,
            options,
            payload: payload.to_vec(),
            ..Schedule::new(name)
        })
    }
}

impl Listed {
    fn new(schedule: Schedule, next: Timestamp) -> Self {
        let texts = [&schedule.name, &schedule.cron, &schedule.zone].map(|text| c_string(text));
        let options = LentOptions::of(&schedule.options);
        Self { schedule, next, texts, options }
    }

    fn filled(&self) -> flowmesh_schedule {
        let [name, cron, zone] = &self.texts;
        let payload = &self.schedule.payload;
        flowmesh_schedule {
            struct_size: 0,
            name: name.as_ptr(),
            cron: cron.as_ptr(),
            zone: zone.as_ptr(),
            payload: if payload.is_empty() { ptr::null() } else { payload.as_ptr().cast() },
            payload_bytes: payload.len(),
            options: self.options.filled(),
            jitter_ms: ms(self.schedule.jitter),
            next_ms: wall_ms(self.next),
            misfire: match self.schedule.misfire {
                Misfire::RunOnce => flowmesh_misfire::FLOWMESH_MISFIRE_RUN_ONCE,
                Misfire::Skip => flowmesh_misfire::FLOWMESH_MISFIRE_SKIP,
                Misfire::RunAll => flowmesh_misfire::FLOWMESH_MISFIRE_RUN_ALL,
            } as i32,
            overlap: match self.schedule.overlap {
                Overlap::Allow => flowmesh_overlap::FLOWMESH_OVERLAP_ALLOW,
                Overlap::Skip => flowmesh_overlap::FLOWMESH_OVERLAP_SKIP,
                Overlap::Replace => flowmesh_overlap::FLOWMESH_OVERLAP_REPLACE,
            } as i32,
        }
    }
}
