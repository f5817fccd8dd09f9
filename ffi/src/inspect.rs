//! A look at what a directory stores.

use crate::{
    error::c_string,
    flowmesh_status,
    guard::guard,
    options::{SizedStruct, sized},
};
use flowmesh::{Inspection, inspect};
use std::{
    ffi::{CStr, CString, OsStr, c_char},
    os::unix::ffi::OsStrExt,
    path::Path,
    ptr,
};

/// What a directory stores, and where that is not what was written.
pub struct flowmesh_inspection {
    _opaque: (),
}

/// A directory's store in numbers. Begin with `FLOWMESH_INSPECTED_INIT`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct flowmesh_inspected {
    /// `sizeof` of this struct.
    pub struct_size: usize,
    /// Places that are damaged: see `flowmesh_inspection_damage`. 0: it is sound.
    pub damage_count: usize,
    /// Segments of its journal.
    pub segment_count: usize,
    /// Checkpoints that are whole.
    pub checkpoint_count: usize,
    /// Batches that are whole.
    pub batches: u64,
    /// Entries in these.
    pub entries: u64,
    /// The number of the first batch that is there; 0: none is.
    pub first_batch: u64,
    /// The number of the last.
    pub last_batch: u64,
    /// The file in which a crash left something of batches that were never flushed, which opening cuts: no damage. NULL:
    /// there is none.
    pub tail_file: *const c_char,
    /// Where that begins.
    pub tail_offset: u64,
    /// How much it is.
    pub tail_bytes: u64,
    /// How many whole batches it has.
    pub tail_batches: u64,
}

/// A place where stored data is not what was written. Begin with `FLOWMESH_DAMAGE_INIT`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct flowmesh_damage {
    /// `sizeof` of this struct.
    pub struct_size: usize,
    /// The file.
    pub file: *const c_char,
    /// What is wrong there.
    pub what: *const c_char,
    /// Where in the file.
    pub offset: u64,
}

/// A segment of the journal. Begin with `FLOWMESH_SEGMENT_INIT`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct flowmesh_segment {
    /// `sizeof` of this struct.
    pub struct_size: usize,
    /// Its file.
    pub file: *const c_char,
    /// The size of the file.
    pub bytes: u64,
    /// Where what was written ends.
    pub end: u64,
    /// Batches that are whole.
    pub batches: u64,
    /// The number of the first of these; 0: there is none.
    pub first_batch: u64,
    /// The number of the last.
    pub last_batch: u64,
}

/// A checkpoint. Begin with `FLOWMESH_CHECKPOINT_INIT`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct flowmesh_checkpoint {
    /// `sizeof` of this struct.
    pub struct_size: usize,
    /// Its file.
    pub file: *const c_char,
    /// The size of the file.
    pub bytes: u64,
    /// Reading on begins with the batch after this one.
    pub begin: u64,
    /// It has seen no batch after this one.
    pub end: u64,
    /// How many images it has.
    pub images: u64,
}

sized! {
    flowmesh_inspected = {};
    flowmesh_damage = {};
    flowmesh_segment = {};
    flowmesh_checkpoint = {};
}

pub(crate) struct InspectionHandle(Box<Held>);

struct Held {
    found: Inspection,
    tail: Option<CString>,
    damages: Vec<[CString; 2]>,
    segments: Vec<CString>,
    checkpoints: Vec<CString>,
}

/// § Inspecting a directory
///
/// Verifies what `directory` stores without changing anything; nobody need have it open, its host may. While the host
/// writes, what is being written shows as the tail. The inspection in `*out` is the caller's to free; it does not change.
///
/// Damage is no error but in the inspection. Opening such a directory fails with `CORRUPT`, unless `repair` of the open
/// options says to move what is damaged aside.
///
/// Threads: any. Blocks while the files are read.
///
/// # Errors
/// `NOT_FOUND`: there is no such directory, or nothing was ever stored in it. `UNSUPPORTED`: a newer version wrote it. `IO`,
/// `PERMISSION_DENIED`: it cannot be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_inspect(
    directory: *const c_char,
    out: *mut *mut flowmesh_inspection,
) -> flowmesh_status {
    guard("flowmesh_inspect", |call| {
        // SAFETY: the arguments are as the manual asks.
        let out = unsafe { call.out(out, ptr::null_mut(), "out") }?;
        if directory.is_null() {
            return Err(call.null("directory"));
        }
        // SAFETY: not NULL, and the manual asks for a C string. A path is bytes: it need not be UTF-8.
        let path = Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(directory) }.to_bytes()));
        out.set(call.give(InspectionHandle(Box::new(Held::of(inspect(path)?))))?);
        Ok(())
    })
}

/// What was found in numbers, into `*out`, which begins with its size (`FLOWMESH_INSPECTED_INIT`). Its text is lent until the
/// inspection is freed; so it is with the next functions.
///
/// Threads: any. These never block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_inspection_get(
    inspection: *const flowmesh_inspection,
    out: *mut flowmesh_inspected,
) -> flowmesh_status {
    guard("flowmesh_inspection_get", |call| {
        let inspection = call.live::<InspectionHandle>(inspection)?;
        // SAFETY: the manual asks for a struct that begins with its size.
        unsafe { call.fill(out, &inspection.0.filled()) }
    })
}

/// Damage number `index`, from 0, into `*out`, which begins with its size (`FLOWMESH_DAMAGE_INIT`).
///
/// # Errors
/// `NOT_FOUND`: there is less.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_inspection_damage(
    inspection: *const flowmesh_inspection,
    index: usize,
    out: *mut flowmesh_damage,
) -> flowmesh_status {
    guard("flowmesh_inspection_damage", |call| {
        let inspection = call.live::<InspectionHandle>(inspection)?;
        let [file, what] = call.pick(&inspection.0.damages, index)?;
        let offset = call.pick(&inspection.0.found.damages, index)?.offset;
        let filled = flowmesh_damage { struct_size: 0, file: file.as_ptr(), what: what.as_ptr(), offset };
        // SAFETY: the manual asks for a struct that begins with its size.
        unsafe { call.fill(out, &filled) }
    })
}

/// Segment number `index`, from 0, the oldest first, into `*out`, which begins with its size (`FLOWMESH_SEGMENT_INIT`).
///
/// # Errors
/// `NOT_FOUND`: there are fewer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_inspection_segment(
    inspection: *const flowmesh_inspection,
    index: usize,
    out: *mut flowmesh_segment,
) -> flowmesh_status {
    guard("flowmesh_inspection_segment", |call| {
        let inspection = call.live::<InspectionHandle>(inspection)?;
        let file = call.pick(&inspection.0.segments, index)?;
        let found = call.pick(&inspection.0.found.segments, index)?;
        let filled = flowmesh_segment {
            struct_size: 0,
            file: file.as_ptr(),
            bytes: found.bytes,
            end: found.end,
            batches: found.batch_count,
            first_batch: found.batches.map_or(0, |(first, _)| first.0),
            last_batch: found.batches.map_or(0, |(_, last)| last.0),
        };
        // SAFETY: the manual asks for a struct that begins with its size.
        unsafe { call.fill(out, &filled) }
    })
}

/// Checkpoint number `index`, from 0, the oldest first, into `*out`, which begins with its size
/// (`FLOWMESH_CHECKPOINT_INIT`).
///
/// # Errors
/// `NOT_FOUND`: there are fewer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_inspection_checkpoint(
    inspection: *const flowmesh_inspection,
    index: usize,
    out: *mut flowmesh_checkpoint,
) -> flowmesh_status {
    guard("flowmesh_inspection_checkpoint", |call| {
        let inspection = call.live::<InspectionHandle>(inspection)?;
        let file = call.pick(&inspection.0.checkpoints, index)?;
        let found = call.pick(&inspection.0.found.checkpoints, index)?;
        let filled = flowmesh_checkpoint {
            struct_size: 0,
            file: file.as_ptr(),
            bytes: found.bytes,
            begin: found.begin.0,
            end: found.end.0,
            images: found.images,
        };
        // SAFETY: the manual asks for a struct that begins with its size.
        unsafe { call.fill(out, &filled) }
    })
}

/// Frees it. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_inspection_free(inspection: *mut flowmesh_inspection) -> flowmesh_status {
    guard("flowmesh_inspection_free", |call| call.free::<InspectionHandle>(inspection, |_| ()))
}

impl Held {
    fn of(found: Inspection) -> Self {
        Self {
            tail: found.tail.as_ref().map(|tail| c_string(&tail.file)),
            damages: found.damages.iter().map(|one| [c_string(&one.file), c_string(&one.what)]).collect(),
            segments: found.segments.iter().map(|one| c_string(&one.file)).collect(),
            checkpoints: found.checkpoints.iter().map(|one| c_string(&one.file)).collect(),
            found,
        }
    }

    fn filled(&self) -> flowmesh_inspected {
        let Self { found, tail, .. } = self;
        let cut = found.tail.as_ref();
        flowmesh_inspected {
            struct_size: 0,
            damage_count: found.damages.len(),
            segment_count: found.segments.len(),
            checkpoint_count: found.checkpoints.len(),
            batches: found.batches,
            entries: found.entries,
            first_batch: found.range.map_or(0, |(first, _)| first.0),
            last_batch: found.range.map_or(0, |(_, last)| last.0),
            tail_file: tail.as_ref().map_or(ptr::null(), |file| file.as_ptr()),
            tail_offset: cut.map_or(0, |cut| cut.offset),
            tail_bytes: cut.map_or(0, |cut| cut.bytes),
            tail_batches: cut.map_or(0, |cut| cut.batches),
        }
    }
}
