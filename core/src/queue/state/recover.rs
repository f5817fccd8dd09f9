//! After a crash: images of a checkpoint, changes read back, and indexes built anew.
//!
//! A checkpoint is taken while changes go on, job by job; what was written after it began is read back in order.
//! So a change may meet an image that has seen it, or miss a job that was gone before its turn came: both are
//! passed over. While changes are read back only jobs, groups' names and counters are kept; orders, limits and
//! keys are built once, at the end.
#![forbid(unsafe_code)]

use super::{
    super::{
        change::{FailureRef, Own},
        cron::Schedule,
        groups::Bucket,
        job::{JobId, Totals, WorkerId},
        keys::Keys,
        options::Scope,
        order::Order,
    },
    Cell, KeyRole, KeyUse, Lease, More, NEVER, NONE, Planned, QueueState, Redriving, STAGES, Stage,
    apply::follow_or_take,
    expiry_key, own,
};
use crate::{
    clock::{Moment, Timestamp},
    ledger::{Lsn, Place},
};
use std::{borrow::Cow, collections::HashMap, sync::Arc, time::Duration};

/// What is known only while changes are read back.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    /// By slot: what the image of its job has seen; none if it came by a change.
    seen: Vec<Lsn>,
    /// What the last image has seen.
    last_image: Lsn,
    /// What the queue's own image has seen.
    queue: Lsn,
    /// What is being read back.
    current: Lsn,
    /// Keys that were given up last, and since the queue's image: by whom, and until when they are held.
    given_up: HashMap<Arc<str>, (JobId, u64)>,
}

impl Recovery {
    /// The slot that a change of `lsn` is about, if it is to be applied.
    pub(super) fn admits(&mut self, slot: Option<u32>, lsn: Lsn) -> Result<Option<u32>, ()> {
        self.current = lsn;
        match slot {
            Some(slot) if self.has_seen(slot, lsn) => Ok(None),
            Some(slot) => Ok(Some(slot)),
            // It was gone before its image was to be taken.
            None if lsn <= self.last_image => Ok(None),
            None => Err(()),
        }
    }

    pub(super) fn has_seen(&self, slot: u32, lsn: Lsn) -> bool {
        self.seen.get(slot as usize).is_some_and(|seen| lsn <= *seen)
    }

    pub(super) fn queue_has_seen(&self, lsn: Lsn) -> bool {
        lsn <= self.queue
    }

    /// A job came by a change.
    pub(super) fn appeared(&mut self, slot: u32) {
        self.note(slot, Lsn::NONE);
    }

    fn note(&mut self, slot: u32, lsn: Lsn) {
        if self.seen.len() <= slot as usize {
            self.seen.resize(slot as usize + 1, Lsn::NONE);
        }
        self.seen[slot as usize] = lsn;
    }

    pub(super) fn gave_up(&mut self, key: Arc<str>, id: JobId, until: u64) {
        if !self.queue_has_seen(self.current) {
            self.given_up.insert(key, (id, until));
        }
    }
}

/// A job as a checkpoint keeps it.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) struct JobImage<'a> {
    pub(in super::super) id: JobId,
    pub(in super::super) place: Place,
    pub(in super::super) at: Moment,
    pub(in super::super) due: u64,
    pub(in super::super) seq: u64,
    pub(in super::super) payload_bytes: u32,
    pub(in super::super) attempt: u16,
    pub(in super::super) priority: u8,
    pub(in super::super) stage: u8,
    pub(in super::super) more: Option<Box<MoreImage<'a>>>,
}

/// What most jobs do not have, as a checkpoint keeps it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in super::super) struct MoreImage<'a> {
    pub(in super::super) group: Option<Cow<'a, str>>,
    /// Key, scope, and whether the job has it, follows, or had it.
    pub(in super::super) unique: Option<(Cow<'a, str>, Scope, u8)>,
    pub(in super::super) expires: Option<Moment>,
    pub(in super::super) own: Own,
    pub(in super::super) failures: Vec<FailureRef<'a>>,
    pub(in super::super) redrives: u32,
    pub(in super::super) result: Option<Place>,
    pub(in super::super) lease: Option<LeaseImage>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct LeaseImage {
    pub(in super::super) nonce: u64,
    pub(in super::super) worker: WorkerId,
    pub(in super::super) deadline: Moment,
    pub(in super::super) asked: Moment,
}

/// The queue itself as a checkpoint keeps it; settings apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in super::super) struct QueueImage<'a> {
    pub(in super::super) seq: u64,
    pub(in super::super) leases: u64,
    pub(in super::super) secret: u64,
    pub(in super::super) paused: bool,
    pub(in super::super) draining: bool,
    /// How many are left, and the interval.
    pub(in super::super) redriving: Option<(u64, Duration)>,
    /// When the queue's bucket is full.
    pub(in super::super) bucket: u64,
    /// The same of groups.
    pub(in super::super) buckets: Vec<(Cow<'a, str>, u64)>,
    pub(in super::super) windows: Vec<(Cow<'a, str>, JobId, u64)>,
    /// Index, last ack, bits.
    pub(in super::super) acked: Vec<(u64, u64, Cow<'a, [u64; 64]>)>,
    pub(in super::super) schedules: Vec<ScheduleImage<'a>>,
}

#[derive(Clone, Debug, PartialEq)]
pub(in super::super) struct ScheduleImage<'a> {
    pub(in super::super) schedule: Cow<'a, Schedule>,
    pub(in super::super) next: Timestamp,
    pub(in super::super) tick: Timestamp,
    pub(in super::super) job: Option<JobId>,
}

impl QueueState {
    /// Expects images and changes to be read back, until [`QueueState::recovered`].
    pub fn recover(&mut self) {
        self.recovery = Some(Box::default());
    }

    /// Slots there are, in use or not: images are taken of all of them, in slices.
    pub fn slot_count(&self) -> u32 {
        self.cells.end()
    }

    /// The job at `slot`, to be stored.
    pub(in super::super) fn image(&self, slot: u32) -> Option<JobImage<'_>> {
        let cell = self.cells.get(slot);
        if cell.stage == Stage::None {
            return None;
        }
        let group = self.groups.get(cell.group).name.as_deref().map(Cow::Borrowed);
        let mut more = self.more(slot).map(|more| {
            let lease = Some(more.lease).filter(|_| cell.stage == Stage::Leased).map(|lease| LeaseImage {
                nonce: lease.nonce,
                worker: lease.worker,
                deadline: Moment(lease.deadline),
                asked: Moment(lease.asked),
            });
            let unique = more.unique.as_deref();
            Box::new(MoreImage {
                group: None,
                unique: unique.map(|unique| (Cow::Borrowed(&*unique.key), unique.scope, unique.role as u8)),
                expires: (more.expires != NEVER).then_some(Moment(more.expires)),
                own: more.own.as_deref().cloned().unwrap_or_default(),
                failures: more.failures.iter().map(FailureRef::from).collect(),
                redrives: more.redrives,
                result: more.result,
                lease,
            })
        });
        if group.is_some() {
            more.get_or_insert_default().group = group;
        }
        Some(JobImage {
            id: cell.id(),
            place: Place::from_bits(cell.place),
            at: Moment(cell.at),
            due: cell.due,
            seq: cell.seq,
            payload_bytes: cell.payload_bytes,
            attempt: cell.attempt,
            priority: cell.priority,
            stage: cell.stage as u8,
            more,
        })
    }

    /// The queue itself, to be stored when all its jobs are.
    pub(in super::super) fn image_of_queue(&self) -> QueueImage<'_> {
        let schedules = self.schedules.values().map(|planned| ScheduleImage {
            schedule: Cow::Borrowed(&planned.schedule),
            next: planned.next,
            tick: planned.tick,
            job: planned.job,
        });
        let buckets = self.groups.buckets(self.clock);
        let acked = self.acked.blocks();
        QueueImage {
            seq: self.seq,
            leases: self.leases,
            secret: self.secret,
            paused: self.paused,
            draining: self.draining,
            redriving: self.redriving.map(|run| (run.left, Duration::from_nanos(run.interval))),
            bucket: self.bucket.full_at,
            buckets: buckets.map(|(name, bucket)| (Cow::Borrowed(name), bucket.full_at)).collect(),
            windows: self.keys.windows().map(|(key, id, until)| (Cow::Borrowed(&**key), id, until)).collect(),
            acked: acked.map(|(index, block)| (index, block.last, Cow::Borrowed(&*block.bits))).collect(),
            schedules: schedules.collect(),
        }
    }

    /// Takes the images of jobs that had seen all up to `lsn`, or of none: their slots were free by then.
    pub(in super::super) fn restore(&mut self, lsn: Lsn, images: &[JobImage<'_>]) {
        let recovery = self.recovery.get_or_insert_default();
        recovery.last_image = recovery.last_image.max(lsn);
        for image in images {
            self.restore_job(lsn, image);
        }
    }

    /// An older image of the same job is forgotten.
    fn restore_job(&mut self, lsn: Lsn, image: &JobImage<'_>) {
        let target = super::super::change::Target::of(image.id);
        if let Some(slot) = self.find(target) {
            if self.recovery.as_ref().is_some_and(|recovery| recovery.has_seen(slot, lsn)) {
                return;
            }
            self.remove(slot, &mut super::Effects::default());
        }
        let group = image.more.as_ref().and_then(|more| more.group.as_deref());
        let group = group.map_or(super::NO_GROUP, |name| self.groups.named(name));
        let stage = Stage::ALL.get(usize::from(image.stage)).copied().unwrap_or_default();
        let slot = self.cells.insert(Cell {
            id: [(image.id.0 >> 64) as u64, image.id.0 as u64],
            place: image.place.to_bits(),
            at: image.at.0,
            due: image.due,
            seq: image.seq,
            more: NONE,
            group,
            payload_bytes: image.payload_bytes,
            attempt: image.attempt,
            priority: image.priority,
            stage,
        });
        self.ids.insert(image.id, slot);
        if let Some(recovery) = &mut self.recovery {
            recovery.note(slot, lsn);
        }
        let Some(image) = image.more.as_deref() else { return };
        let roles = [KeyRole::Holds, KeyRole::Follows, KeyRole::Past];
        let unique = image.unique.as_ref().map(|(key, scope, role)| {
            let role = roles.get(usize::from(*role)).copied().unwrap_or(KeyRole::Past);
            Box::new(KeyUse { key: Arc::from(&**key), scope: *scope, role })
        });
        *self.more_mut(slot) = More {
            expires: image.expires.map_or(NEVER, |expires| expires.0),
            lease: image.lease.map_or(Lease::default(), |lease| Lease {
                nonce: lease.nonce,
                worker: lease.worker,
                deadline: lease.deadline.0,
                asked: lease.asked.0,
            }),
            unique,
            own: (!image.own.is_empty()).then(|| Box::new(image.own.clone())),
            failures: image.failures.iter().map(own).collect(),
            progress: None,
            result: image.result,
            redrives: image.redrives,
        };
        if stage != Stage::Leased {
            self.trim(slot);
        }
    }

    /// Takes the image of the queue itself, which had seen all up to `lsn`. It is taken after those of all jobs, so
    /// that every lease written after it is one of a job that is there, and rates can be counted on.
    pub(in super::super) fn restore_queue(&mut self, lsn: Lsn, image: &QueueImage<'_>) {
        let recovery = self.recovery.get_or_insert_default();
        recovery.last_image = recovery.last_image.max(lsn);
        recovery.queue = recovery.queue.max(lsn);
        let windows = image.windows.iter().map(|(key, id, until)| (Arc::from(&**key), (*id, *until)));
        recovery.given_up = windows.collect();
        self.seq = self.seq.max(image.seq);
        self.leases = self.leases.max(super::super::acked::number(image.leases));
        self.secret = image.secret;
        (self.paused, self.draining) = (image.paused, image.draining);
        self.redriving = image.redriving.map(|(left, interval)| Redriving {
            left,
            interval: super::ns(interval).max(1),
            next: 0,
        });
        self.bucket = Bucket { full_at: image.bucket };
        for (name, full_at) in &image.buckets {
            let group = self.groups.named(name);
            self.groups.get_mut(group).bucket = Bucket { full_at: *full_at };
        }
        for (index, last, bits) in &image.acked {
            let block = super::super::acked::Block { last: *last, bits: Box::new(**bits) };
            self.acked.merge(*index, &block);
        }
        for image in &image.schedules {
            let planned = Planned {
                schedule: image.schedule.clone().into_owned(),
                next: image.next,
                tick: image.tick,
                job: image.job,
            };
            self.schedules.insert(image.schedule.name.as_str().into(), planned);
        }
        self.look_at_schedules();
    }

    /// All has been read back: builds what was left out. `at` is the mesh's time now.
    pub fn recovered(&mut self, at: Moment) {
        let Some(recovery) = self.recovery.take() else { return };
        self.clock = self.clock.max(at.0);
        self.rebuild();
        self.rebuild_keys(&recovery);
        self.groups.sweep(self.clock);
        // A power cut may have taken the last leases: their numbers are not given again.
        self.leases += LEASES_SKIPPED;
        self.totals = Totals::default();
    }

    /// The latest time that it was told of.
    pub(in super::super) fn last_seen(&self) -> Moment {
        Moment(self.clock)
    }

    /// Builds orders, limits and sums from the jobs alone.
    pub(super) fn rebuild(&mut self) {
        self.groups.reset(&self.config);
        self.asked.clear();
        self.payload_bytes = 0;
        let mut slots: [Vec<u32>; STAGES] = Default::default();
        let mut expiring = Vec::new();
        for slot in 0..self.cells.end() {
            let cell = *self.cells.get(slot);
            if cell.stage == Stage::None {
                continue;
            }
            slots[cell.stage as usize].push(slot);
            if !cell.stage.is_terminal() {
                self.payload_bytes += u64::from(cell.payload_bytes);
            }
            if cell.group != super::NO_GROUP {
                self.groups.count(cell.group);
            }
            let group = self.groups.get_mut(cell.group);
            match cell.stage {
                Stage::Ready => group.waiting += 1,
                Stage::Leased => group.leased += 1,
                Stage::Retry => group.retrying += 1,
                _ => {}
            }
            if cell.more != NONE {
                let more = self.mores.get(cell.more);
                if more.expires != NEVER && cell.stage.is_waiting() {
                    expiring.push(slot);
                }
                if more.lease.asked > 0 && cell.stage == Stage::Leased {
                    self.asked.insert((more.lease.asked, slot));
                }
            }
        }
        let (cells, mores, aging) = (&self.cells, &self.mores, self.aging_ns);
        self.orders = slots.map(|slots| Order::build(slots, |slot| cells.get(slot).key(aging)));
        self.expiry = Order::build(expiring, |slot| expiry_key(cells, mores, slot));
        for group in 0..self.groups.end() {
            if self.groups.exists(group) {
                self.settle(group);
            }
        }
    }

    fn rebuild_keys(&mut self, recovery: &Recovery) {
        self.keys = Keys::default();
        let mut followers = Vec::new();
        for slot in 0..self.cells.end() {
            let cell = self.cells.get(slot);
            if cell.stage == Stage::None || cell.stage.is_terminal() || cell.more == NONE {
                continue;
            }
            let (id, more) = (cell.id(), self.mores.get(cell.more));
            match more.unique.as_deref() {
                Some(unique) if unique.role == KeyRole::Holds => {
                    follow_or_take(&mut self.keys, unique, slot, id);
                }
                Some(unique) if unique.role == KeyRole::Follows => {
                    followers.push((Arc::clone(&unique.key), slot));
                }
                _ => {}
            }
        }
        for (key, slot) in followers {
            if self.keys.find(&key, self.clock).is_some() {
                self.keys.follow(&key, slot);
            } else {
                let at = Moment(self.clock);
                self.promote(slot, &key, at, &mut super::Effects::default());
            }
        }
        for (key, (id, until)) in &recovery.given_up {
            if *until > self.clock {
                self.keys.hold_until(key, *id, *until);
            }
        }
    }

    /// Every place that is still referred to.
    pub fn places(&self, keep: &mut dyn FnMut(Place)) {
        for slot in 0..self.cells.end() {
            let cell = self.cells.get(slot);
            if cell.stage != Stage::None {
                keep(Place::from_bits(cell.place));
                if let Some(result) = self.more(slot).and_then(|more| more.result) {
                    keep(result);
                }
            }
        }
    }
}

/// More than can be given between two flushes to the disk.
const LEASES_SKIPPED: u64 = 1 << 24;
