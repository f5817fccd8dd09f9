//! Queues of jobs. The header has what is below in the order of these modules.

pub mod enqueue;

pub mod reserve;

pub mod job;

pub mod answer;

pub mod worker;

pub mod look;
pub mod manage;
pub mod schedule;

pub mod options;

use crate::{
    error::c_string,
    flowmesh_status, flowmesh_text,
    guard::{Call, guard, guard_value, timeout},
    mesh::{MeshHandle, flowmesh_mesh},
    wait::Interrupt,
};
use flowmesh::lock::Mutex;
use flowmesh::{
    ErrorKind, Job, PendingReply, Queue, Result, Wait,
    queue::{JobId, JobState, QueueConfig},
};
use options::{LentConfig, flowmesh_queue_config};
use std::{
    ffi::{CString, c_char},
    ptr,
    sync::Arc,
    time::Duration,
};

/// A queue of jobs.
pub struct flowmesh_queue {
    _opaque: (),
}

/// The names of queues, as they were when they were asked for.
pub struct flowmesh_name_list {
    _opaque: (),
}

/// How a queue is set up, as it was when it was asked for.
pub struct flowmesh_queue_settings {
    _opaque: (),
}

pub(crate) struct QueueHandle(Box<Held>);

struct Held {
    queue: Queue,
    interrupt: Interrupt,
    name: CString,
    /// A forked child has the handle, but not who holds the lock below.
    pid: u32,
    /// Who waits for jobs through this handle; `None` once it was freed.
    waits: Mutex<Option<Vec<Arc<PendingReply>>>>,
}

pub(crate) struct NamesHandle(Vec<CString>);

pub(crate) struct SettingsHandle(Box<LentConfig>);

/// § Queues
///
/// Makes sure that there is a queue of this name: makes it, or finds it as it was made. `name` is letters, digits, `_`,
/// `-` and dots, at most 255 bytes. `config` may be NULL. The queue in `*out` is the caller's to free; its jobs are
/// stored in the mesh's directory and stay there.
///
/// Threads: any, as for all functions of a queue. Those that ask the host for something block until it has answered and
/// the disk has what the durability asks for, at most 30 s; signals do not end that wait.
///
/// # Errors
/// `INVALID_ARGUMENT`: the name, or a setting; the message names value and limit. `CONFLICT`: the queue is there with
/// other settings; the message names the first that differs: see `flowmesh_queue_configure`. `STORAGE_FULL`: the disk is
/// full, nothing was written. `FROZEN`: the disk failed before, nothing is written any more. `TIMEOUT`: the host did not
/// answer. `CLOSED`, `DISCONNECTED`, `FORKED`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_queue_declare(
    mesh: *mut flowmesh_mesh,
    name: *const c_char,
    config: *const flowmesh_queue_config,
    out: *mut *mut flowmesh_queue,
) -> flowmesh_status {
    guard("flowmesh_queue_declare", |call| {
        // SAFETY: the arguments are as the manual asks.
        let out = unsafe { call.out(out, ptr::null_mut(), "out") }?;
        let mesh = call.live::<MeshHandle>(mesh)?;
        // SAFETY: the arguments are as the manual asks.
        let (name, config) = unsafe { (call.text(name, "name")?, call.options(config)?.read(call)?) };
        let queue = mesh.mesh.declare_queue(name, &config)?;
        out.set(call.give(QueueHandle::new(queue, mesh.interrupt))?);
        Ok(())
    })
}

/// Finds the queue of this name. The queue in `*out` is the caller's to free.
///
/// # Errors
/// `NOT_FOUND`: nobody declared it. `TIMEOUT`, `CLOSED`, `DISCONNECTED`, `FORKED`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_queue_open(
    mesh: *mut flowmesh_mesh,
    name: *const c_char,
    out: *mut *mut flowmesh_queue,
) -> flowmesh_status {
    guard("flowmesh_queue_open", |call| {
        // SAFETY: the arguments are as the manual asks.
        let (out, name) = unsafe { (call.out(out, ptr::null_mut(), "out")?, call.text(name, "name")?) };
        let mesh = call.live::<MeshHandle>(mesh)?;
        let queue = mesh.mesh.queue(name)?;
        out.set(call.give(QueueHandle::new(queue, mesh.interrupt))?);
        Ok(())
    })
}

/// The names of all queues. The list in `*out` is the caller's to free; it does not change.
///
/// # Errors
/// `TIMEOUT`, `CLOSED`, `DISCONNECTED`, `FORKED`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_queues(
    mesh: *mut flowmesh_mesh,
    out: *mut *mut flowmesh_name_list,
) -> flowmesh_status {
    guard("flowmesh_queues", |call| {
        // SAFETY: the arguments are as the manual asks.
        let out = unsafe { call.out(out, ptr::null_mut(), "out") }?;
        let names = call.live::<MeshHandle>(mesh)?.mesh.queues()?;
        out.set(call.give(NamesHandle(names.iter().map(|name| c_string(name)).collect()))?);
        Ok(())
    })
}

/// How many names it has.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_name_list_count(list: *const flowmesh_name_list) -> usize {
    guard_value("flowmesh_name_list_count", 0, |call| Ok(call.live::<NamesHandle>(list)?.0.len()))
}

/// Name number `index`, from 0, lent until the list is freed; no text (`data` is NULL) when it has fewer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_name_list_get(
    list: *const flowmesh_name_list,
    index: usize,
) -> flowmesh_text {
    guard_value("flowmesh_name_list_get", flowmesh_text::NONE, |call| {
        let list = call.live::<NamesHandle>(list)?;
        Ok(lent(call.pick(&list.0, index)?))
    })
}

/// Frees it. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_name_list_free(list: *mut flowmesh_name_list) -> flowmesh_status {
    guard("flowmesh_name_list_free", |call| call.free::<NamesHandle>(list, |_| ()))
}

/// Its name, lent until it is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_queue_name(queue: *const flowmesh_queue) -> flowmesh_text {
    guard_value("flowmesh_queue_name", flowmesh_text::NONE, |call| {
        Ok(lent(&call.live::<QueueHandle>(queue)?.0.name))
    })
}

/// Another handle of the same queue: what is done through it gets as far as `durability`, one of
/// `enum flowmesh_durability`, before it returns, whatever the queue is set up to; jobs that are reserved through it are
/// settled so, too. `interval_ms` goes with `FLOWMESH_DURABILITY_INTERVAL` and is 0 otherwise. The queue in `*out` is the
/// caller's to free; the first handle stays as it is.
///
/// Does not block.
///
/// # Errors
/// `INVALID_ARGUMENT`: it is none that can be asked for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_queue_durable(
    queue: *const flowmesh_queue,
    durability: i32,
    interval_ms: i64,
    out: *mut *mut flowmesh_queue,
) -> flowmesh_status {
    guard("flowmesh_queue_durable", |call| {
        // SAFETY: the arguments are as the manual asks.
        let out = unsafe { call.out(out, ptr::null_mut(), "out") }?;
        let handle = call.live::<QueueHandle>(queue)?;
        let rule = "FLOWMESH_DURABILITY_OS, INTERVAL or FSYNC";
        let durability = call.own_durability(durability, interval_ms)?;
        let durability = durability.ok_or_else(|| call.limited("durability", 0, rule))?;
        let durable = handle.queue().durable(durability);
        out.set(call.give(QueueHandle::new(durable, handle.0.interrupt))?);
        Ok(())
    })
}

/// How it is set up. The settings in `*out` are the caller's to free; they do not change.
///
/// # Errors
/// `TIMEOUT`, `CLOSED`, `DISCONNECTED`, `FORKED`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_queue_get_settings(
    queue: *const flowmesh_queue,
    out: *mut *mut flowmesh_queue_settings,
) -> flowmesh_status {
    guard("flowmesh_queue_get_settings", |call| {
        // SAFETY: the arguments are as the manual asks.
        let out = unsafe { call.out(out, ptr::null_mut(), "out") }?;
        let config = call.live::<QueueHandle>(queue)?.queue().config()?;
        out.set(call.give(SettingsHandle(Box::new(LentConfig::of(&config))))?);
        Ok(())
    })
}

/// The settings into `*out`, which begins with its size (`FLOWMESH_QUEUE_CONFIG_INIT`). Its texts and lists are lent
/// until `settings` are freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_queue_settings_get(
    settings: *const flowmesh_queue_settings,
    out: *mut flowmesh_queue_config,
) -> flowmesh_status {
    guard("flowmesh_queue_settings_get", |call| {
        let settings = call.live::<SettingsHandle>(settings)?;
        // SAFETY: the manual asks for a struct that begins with its size.
        unsafe { call.fill(out, settings.0.filled()) }
    })
}

/// Frees them. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_queue_settings_free(
    settings: *mut flowmesh_queue_settings,
) -> flowmesh_status {
    guard("flowmesh_queue_settings_free", |call| call.free::<SettingsHandle>(settings, |_| ()))
}

/// Sets the queue up anew, for the jobs that are there too, from now on. `config` holds every setting: begin with those
/// of `flowmesh_queue_settings_get` to change some; NULL stands for the defaults.
///
/// # Errors
/// `INVALID_ARGUMENT`: the message names the setting, its value and the limit. As `flowmesh_queue_declare`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_queue_configure(
    queue: *mut flowmesh_queue,
    config: *const flowmesh_queue_config,
) -> flowmesh_status {
    guard("flowmesh_queue_configure", |call| {
        let handle = call.live::<QueueHandle>(queue)?;
        // SAFETY: the arguments are as the manual asks.
        let config: QueueConfig = unsafe { call.options(config)?.read(call) }?;
        handle.queue().configure(&config)
    })
}

/// Frees the handle; who waits for jobs through it gets `CLOSED`. The queue and its jobs stay, and so do jobs and workers that came of it. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_queue_free(queue: *mut flowmesh_queue) -> flowmesh_status {
    guard("flowmesh_queue_free", |call| call.free::<QueueHandle>(queue, QueueHandle::end_waits))
}

impl QueueHandle {
    fn new(queue: Queue, interrupt: Interrupt) -> Self {
        let name = c_string(queue.name());
        let (pid, waits) = (std::process::id(), Mutex::new(Some(Vec::new())));
        Self(Box::new(Held { queue, interrupt, name, pid, waits }))
    }

    fn queue(&self) -> &Queue {
        &self.0.queue
    }

    /// Reserves as [`Queue::reserve`] does, and ends when the handle is freed.
    fn reserve(&self, call: Call, most: usize, lease: Option<Duration>, timeout_ms: i64) -> Result<Vec<Job>> {
        let queue = &self.0.queue;
        // What is there is had without the detour that makes waiting end.
        let taken = queue.reserve(most, lease, &mut Wait::poll())?;
        if !taken.is_empty() || timeout_ms == 0 {
            return Ok(taken);
        }
        let freed = || call.error(ErrorKind::Closed).with("queue", "its handle was freed");
        let pending = Arc::new(queue.start_reserve(most, lease, timeout(timeout_ms))?);
        self.0.waits.lock().as_mut().ok_or_else(freed)?.push(Arc::clone(&pending));
        let answered = self.0.interrupt.waiting(-1, |wait| pending.wait(wait));
        if let Some(waits) = self.0.waits.lock().as_mut() {
            waits.retain(|other| !Arc::ptr_eq(other, &pending));
        }
        match answered {
            Err(error) if error.kind() == ErrorKind::Cancelled => Err(freed()),
            answered => queue.jobs(answered?),
        }
    }

    fn end_waits(&self) {
        if self.0.pid != std::process::id() {
            return;
        }
        let waits = self.0.waits.lock().take();
        waits.into_iter().flatten().for_each(|pending| pending.cancel());
    }
}

impl Call {
    /// A job's id as text.
    ///
    /// # Safety
    /// `text` is NULL or a C string.
    unsafe fn job_id(self, text: *const c_char) -> Result<JobId> {
        // SAFETY: the caller's duty, passed on.
        JobId::parse(unsafe { self.text(text, "job") }?)
    }

    /// One of `enum flowmesh_job_state`.
    fn state(self, state: i32) -> Result<JobState> {
        let found = usize::try_from(state).ok().and_then(|number| JobState::ALL.get(number).copied());
        found.ok_or_else(|| self.invalid("state", state, "it is not of enum flowmesh_job_state"))
    }
}

fn lent(text: &CString) -> flowmesh_text {
    flowmesh_text { data: text.as_ptr(), size: text.count_bytes() }
}
