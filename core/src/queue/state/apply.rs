//! What has happened: changes are applied, just planned or read back.
#![forbid(unsafe_code)]

use super::{
    super::{
        change::{Cause, Change, FailureRef, Fate, New, Start, Target},
        groups::NO_GROUP,
        job::{JobId, Token},
        keys::Keys,
        options::{QueueConfig, Scope},
    },
    Cell, Effects, EventKind, FAILURES_MAX, KeyRole, KeyUse, Lease, NEVER, NONE, Planned, QueueState,
    Redriving, Stage, own,
};
use crate::{
    clock::{Moment, Timestamp},
    error::{Error, ErrorKind, Result},
    ledger::{Lsn, Place},
};
use std::sync::Arc;

impl QueueState {
    /// Applies a change that was written as `lsn`, its entry at `place`.
    ///
    /// A change that was just planned always applies. One that was read back does not if it names a job that is
    /// not there; then nothing is changed.
    ///
    /// # Errors
    /// - [`ErrorKind::Corrupt`]: the change cannot follow those before it.
    pub fn apply(
        &mut self,
        lsn: Lsn,
        place: Place,
        change: &Change<'_>,
        effects: &mut Effects,
    ) -> Result<()> {
        match *change {
            Change::Enqueue(ref new) => self.apply_new(lsn, place, new, effects),
            Change::Reserve { job, nonce, worker, at, until, deadline } => {
                self.leases = self.leases.max(super::super::acked::number(nonce) + 1);
                self.tick_clock(at);
                let Some(slot) = self.subject(lsn, job, "reserve")? else { return Ok(()) };
                self.not_finished(slot, "reserve")?;
                self.apply_reserve(lsn, slot, nonce, (at, until, deadline), effects);
                self.more_mut(slot).lease.worker = worker;
                Ok(())
            }
            Change::Done { job, nonce, at, keep, result } => {
                self.acked.add(nonce, at.0);
                self.tick_clock(at);
                let Some(slot) = self.subject(lsn, job, "done")? else {
                    return Ok(());
                };
                self.only_leased(slot, "done")?;
                self.totals.done += 1;
                effects.event(EventKind::Done, job.id, self.cells.get(slot).attempt);
                self.end_lease(slot, effects);
                if result.is_some() {
                    self.more_mut(slot).result = Some(place);
                }
                self.finish(slot, Stage::Done, at, keep, effects);
                Ok(())
            }
            Change::Extend { job, until } => {
                let Some(slot) = self.subject(lsn, job, "extend")? else { return Ok(()) };
                self.only_leased(slot, "extend")?;
                self.leave(slot);
                self.cells.get_mut(slot).due = until.0;
                self.enter(slot, Stage::Leased);
                Ok(())
            }
            Change::Return { job, at, cause, to, counted, ref failure } => {
                self.tick_clock(at);
                let Some(slot) = self.subject(lsn, job, "return")? else { return Ok(()) };
                self.only_leased(slot, "return")?;
                self.apply_return(slot, at, cause, to, counted, failure.as_ref(), effects);
                Ok(())
            }
            Change::Ask { job, by, ref failure } => {
                let Some(slot) = self.subject(lsn, job, "ask")? else { return Ok(()) };
                self.only_leased(slot, "ask")?;
                if let Some(failure) = failure {
                    self.add_failure(slot, failure);
                }
                let more = self.more_mut(slot);
                more.lease.asked = by.0.max(1);
                let (worker, nonce) = (more.lease.worker, more.lease.nonce);
                let attempt = self.cells.get(slot).attempt;
                if self.recovery.is_none() {
                    self.asked.insert((by.0.max(1), slot));
                }
                effects.asked.push((worker, Token { job: job.id, attempt, nonce }));
                effects.event(EventKind::Cancelling, job.id, attempt);
                Ok(())
            }
            Change::End { job, at, keep, expired, ref failure } => {
                self.tick_clock(at);
                let Some(slot) = self.subject(lsn, job, "end")? else { return Ok(()) };
                self.only_waiting(slot, "end")?;
                let attempt = self.cells.get(slot).attempt;
                self.leave(slot);
                if let Some(failure) = failure {
                    self.add_failure(slot, failure);
                }
                let (stage, kind, total) = if expired {
                    (Stage::Expired, EventKind::Expired, &mut self.totals.expired)
                } else {
                    (Stage::Cancelled, EventKind::Cancelled, &mut self.totals.cancelled)
                };
                *total += 1;
                effects.event(kind, job.id, attempt);
                self.finish(slot, stage, at, keep, effects);
                self.wake_if_ready(effects);
                Ok(())
            }
            Change::Reschedule { job, at, start } => {
                self.tick_clock(at);
                let Some(slot) = self.subject(lsn, job, "reschedule")? else { return Ok(()) };
                self.only_waiting(slot, "reschedule")?;
                if self.recovery.is_some() {
                    self.promote_on_paper(slot);
                }
                self.leave(slot);
                let stage = self.begin(slot, at, start);
                self.enter(slot, stage);
                self.wake_if_ready(effects);
                Ok(())
            }
            Change::Redrive { job, at, paced } => {
                self.tick_clock(at);
                if paced
                    && self.recovery.as_ref().is_none_or(|recovery| !recovery.queue_has_seen(lsn))
                    && let Some(run) = &mut self.redriving
                {
                    run.left = run.left.saturating_sub(1);
                    run.next = run.next.max(at.0.saturating_sub(run.interval)).saturating_add(run.interval);
                }
                let Some(slot) = self.subject(lsn, job, "redrive")? else { return Ok(()) };
                if !self.cells.get(slot).stage.is_terminal() {
                    return Err(self.misplaced(slot, "redrive"));
                }
                self.apply_redrive(slot, at, effects);
                Ok(())
            }
            Change::Forget { job, at, moved } => {
                self.tick_clock(at);
                let Some(slot) = self.subject(lsn, job, "forget")? else { return Ok(()) };
                if self.cells.get(slot).stage == Stage::Leased && !moved {
                    return Err(self.misplaced(slot, "forget"));
                }
                self.leave(slot);
                self.drop_lease(slot);
                if moved {
                    // By an attempt that failed.
                    self.totals.failed += 1;
                    self.totals.dead += 1;
                    effects.event(EventKind::Dead, job.id, self.cells.get(slot).attempt);
                } else {
                    self.totals.removed += 1;
                }
                self.give_up_key(slot, at, effects);
                self.remove(slot, effects);
                self.wake_if_ready(effects);
                Ok(())
            }
            Change::Content { id, ref body } => {
                let Some(slot) = self.subject(lsn, Target::of(id), "content")? else { return Ok(()) };
                if body.payload.len() as u32 != self.cells.get(slot).payload_bytes {
                    return Err(self.misplaced(slot, "other content"));
                }
                let cell = self.cells.get_mut(slot);
                effects.freed.push(Place::from_bits(cell.place));
                cell.place = place.to_bits();
                Ok(())
            }
            Change::Result { id, .. } => {
                let Some(slot) = self.subject(lsn, Target::of(id), "result")? else { return Ok(()) };
                effects.freed.extend(self.more_mut(slot).result.replace(place));
                Ok(())
            }
            Change::Declare { .. } | Change::Mode { .. } | Change::Redriving { .. } => {
                self.apply_to_queue(lsn, change, effects);
                Ok(())
            }
            Change::Schedule { .. } | Change::Unschedule { .. } | Change::Fired { .. } => {
                self.apply_to_schedule(lsn, change);
                Ok(())
            }
        }
    }

    #[inline]
    fn tick_clock(&mut self, at: Moment) {
        self.clock = self.clock.max(at.0);
    }

    /// The slot of the job that a change is about; none if the change is to be passed over.
    #[inline]
    fn subject(&mut self, lsn: Lsn, job: Target, what: &'static str) -> Result<Option<u32>> {
        let slot = self.find(job);
        match &mut self.recovery {
            None if slot.is_some() => Ok(slot),
            None => Err(unknown(job.id, lsn, what)),
            Some(recovery) => recovery.admits(slot, lsn).map_err(|()| unknown(job.id, lsn, what)),
        }
    }

    fn apply_new(&mut self, lsn: Lsn, place: Place, new: &New<'_>, effects: &mut Effects) -> Result<()> {
        self.seq = self.seq.max(new.seq + 1);
        self.tick_clock(new.at);
        let vacancy = match self.ids.entry(new.id, |slot| self.cells.get(slot).id()) {
            Err(vacancy) => vacancy,
            Ok(slot) => {
                return match &mut self.recovery {
                    // Its image has seen this.
                    Some(recovery) if recovery.has_seen(slot, lsn) => Ok(()),
                    _ => Err(Error::new(ErrorKind::Corrupt, "queue.apply")
                        .with("what", "enqueue of a job that is there")
                        .with("job", new.id)
                        .with("lsn", lsn)),
                };
            }
        };
        let extra = new.extra.as_deref();
        let group = self.groups.join(extra.and_then(|extra| extra.group.as_deref()));
        let slot = self.cells.insert(Cell {
            id: [(new.id.0 >> 64) as u64, new.id.0 as u64],
            place: place.to_bits(),
            at: new.at.0,
            due: 0,
            seq: new.seq,
            more: NONE,
            group,
            payload_bytes: new.body.payload.len() as u32,
            attempt: 0,
            priority: new.priority,
            stage: Stage::None,
        });
        vacancy.fill(slot);
        if self.groups.wants_settling() {
            self.settle(NO_GROUP);
        }
        if let Some(recovery) = &mut self.recovery {
            recovery.appeared(slot);
        }
        if let Some(extra) = extra {
            let unique = extra.unique.as_ref().map(|(key, scope)| {
                let role = if new.held { KeyRole::Follows } else { KeyRole::Holds };
                Box::new(KeyUse { key: Arc::from(&**key), scope: *scope, role })
            });
            if let Some(unique) = unique.as_deref().filter(|_| self.recovery.is_none()) {
                follow_or_take(&mut self.keys, unique, slot, new.id);
            }
            if extra.expires.is_some()
                || unique.is_some()
                || !extra.own.is_empty()
                || !extra.failures.is_empty()
            {
                let more = self.more_mut(slot);
                more.expires = extra.expires.map_or(NEVER, |expires| expires.0);
                more.unique = unique;
                more.own = (!extra.own.is_empty()).then(|| Box::new(extra.own.clone()));
                more.failures = extra.failures.iter().map(own).collect();
            }
        }
        let stage = self.begin(slot, new.at, new.start);
        let stage = if new.held { Stage::Held } else { stage };
        self.enter(slot, stage);
        self.totals.enqueued += 1;
        effects.wake |= stage == Stage::Ready;
        effects.event(EventKind::Enqueued, new.id, 0);
        Ok(())
    }

    /// Notes when a job may begin; where it waits for that.
    fn begin(&mut self, slot: u32, at: Moment, start: Start) -> Stage {
        let cell = self.cells.get_mut(slot);
        let stage;
        (stage, cell.at, cell.due) = match start {
            Start::Now => (Stage::Ready, at.0, at.0),
            Start::After(due) => (Stage::Delayed, due.0, due.0),
            Start::At(Timestamp(wall), due) => (Stage::Dated, due.0, wall),
        };
        stage
    }

    fn apply_reserve(
        &mut self,
        lsn: Lsn,
        slot: u32,
        nonce: u64,
        (at, until, deadline): (Moment, Moment, Moment),
        effects: &mut Effects,
    ) {
        let cell = *self.cells.get(slot);
        match &self.recovery {
            None => self.groups.serve(cell.group, at.0),
            Some(_) => self.promote_on_paper(slot),
        }
        if self.recovery.as_ref().is_none_or(|recovery| !recovery.queue_has_seen(lsn)) {
            if let Some(flow) = self.flow {
                self.bucket.take(flow, at.0);
            }
            if let Some(flow) =
                self.groups.flow().filter(|_| self.recovery.is_some() && cell.group != NO_GROUP)
            {
                self.groups.get_mut(cell.group).bucket.take(flow, at.0);
            }
        }
        self.leave(slot);
        if cell.more != NONE && self.mores.get(cell.more).unique.is_some() {
            self.give_up_key_if(slot, at, |scope| scope == Scope::Waiting, effects);
        }
        let more = self.more_mut(slot);
        more.lease = Lease { nonce, deadline: deadline.0, asked: 0, ..Lease::default() };
        let cell = self.cells.get_mut(slot);
        // The wall clock may have made it ready early, which is not written: it is not ready in the future.
        cell.at = cell.at.min(at.0);
        cell.due = until.0;
        cell.attempt = cell.attempt.saturating_add(1);
        let (id, attempt) = (cell.id(), cell.attempt);
        self.enter(slot, Stage::Leased);
        self.totals.reserved += 1;
        effects.event(EventKind::Leased, id, attempt);
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one change")]
    fn apply_return(
        &mut self,
        slot: u32,
        at: Moment,
        cause: Cause,
        to: Fate,
        counted: bool,
        failure: Option<&FailureRef<'_>>,
        effects: &mut Effects,
    ) {
        let (id, attempt) = (self.cells.get(slot).id(), self.cells.get(slot).attempt);
        self.end_lease(slot, effects);
        if let Some(failure) = failure {
            self.add_failure(slot, failure);
        }
        self.count_return(cause);
        let cell = self.cells.get_mut(slot);
        if !counted {
            cell.attempt = cell.attempt.saturating_sub(1);
        }
        let mut wait = |stage: Stage, due: Moment| {
            cell.due = due.0;
            stage
        };
        let (stage, kind) = match to {
            Fate::Ready => (wait(Stage::Ready, at), EventKind::Released),
            Fate::Retry(due) => (wait(Stage::Retry, due), EventKind::Failed),
            Fate::Scheduled(due) => {
                cell.at = due.0;
                cell.due = due.0;
                (Stage::Delayed, EventKind::Released)
            }
            Fate::Dead(keep) => {
                self.totals.dead += 1;
                effects.event(EventKind::Dead, id, attempt);
                return self.finish(slot, Stage::Dead, at, keep, effects);
            }
            Fate::Cancelled(keep) => {
                self.totals.cancelled += 1;
                effects.event(EventKind::Cancelled, id, attempt);
                return self.finish(slot, Stage::Cancelled, at, keep, effects);
            }
        };
        self.trim(slot);
        self.enter(slot, stage);
        effects.event(kind, id, attempt);
        effects.wake |= stage == Stage::Ready;
    }

    fn count_return(&mut self, cause: Cause) {
        let totals = &mut self.totals;
        match cause {
            Cause::Nacked | Cause::Rejected | Cause::Restarted => totals.failed += 1,
            Cause::LeaseExpired => {
                totals.failed += 1;
                totals.lease_expired += 1;
            }
            Cause::WorkerGone => {
                totals.failed += 1;
                totals.worker_gone += 1;
            }
            Cause::Released | Cause::Snoozed => totals.released += 1,
            Cause::Cancelled => {}
        }
    }

    fn apply_redrive(&mut self, slot: u32, at: Moment, effects: &mut Effects) {
        self.leave(slot);
        let result = {
            let more = self.more_mut(slot);
            more.expires = NEVER;
            more.redrives = more.redrives.saturating_add(1);
            more.result.take()
        };
        effects.freed.extend(result);
        let cell = self.cells.get_mut(slot);
        (cell.attempt, cell.at, cell.due) = (0, at.0, at.0);
        let id = cell.id();
        self.enter(slot, Stage::Ready);
        self.totals.redriven += 1;
        effects.wake = true;
        effects.event(EventKind::Redriven, id, 0);
    }

    fn apply_to_queue(&mut self, lsn: Lsn, change: &Change<'_>, effects: &mut Effects) {
        let has_seen = self.recovery.as_ref().is_some_and(|recovery| recovery.queue_has_seen(lsn));
        match change {
            // A checkpoint has the settings of its beginning: what its image of the queue, taken last, has seen may be
            // settings that came later.
            Change::Declare { config, secret, .. } => {
                self.secret = *secret;
                if self.config != **config {
                    self.configure(config, has_seen);
                    effects.wake = true;
                }
            }
            _ if has_seen => {}
            Change::Mode { paused, draining } => {
                effects.wake |= self.paused && !paused;
                (self.paused, self.draining) = (*paused, *draining);
            }
            Change::Redriving { count, interval } => {
                let run = Redriving { left: *count, interval: super::ns(*interval).max(1), next: self.clock };
                self.redriving = (*count > 0).then_some(run);
            }
            _ => {}
        }
    }

    /// Takes other settings. `is_counted` says that the rates' counts, as they were read back, come from later.
    fn configure(&mut self, config: &QueueConfig, is_counted: bool) {
        self.config = config.clone();
        self.read_config();
        self.groups.configure(config, is_counted);
        if self.recovery.is_none() {
            self.rebuild();
            self.groups.sweep(self.clock);
        }
    }

    fn apply_to_schedule(&mut self, lsn: Lsn, change: &Change<'_>) {
        if self.recovery.as_ref().is_some_and(|recovery| recovery.queue_has_seen(lsn)) {
            return;
        }
        match change {
            Change::Schedule { schedule, next } => {
                let planned =
                    Planned { schedule: (**schedule).clone(), next: *next, tick: Timestamp(0), job: None };
                self.schedules.insert(schedule.name.as_str().into(), planned);
            }
            Change::Unschedule { name } => {
                self.schedules.remove(&**name);
            }
            Change::Fired { name, tick, next, job } => {
                if let Some(planned) = self.schedules.get_mut(&**name) {
                    (planned.tick, planned.next) = (*tick, *next);
                    planned.job = job.or(planned.job);
                }
            }
            _ => {}
        }
        self.look_at_schedules();
    }

    pub(super) fn look_at_schedules(&mut self) {
        self.fires = self.schedules.values().map(|planned| planned.next.0).min().unwrap_or(NEVER);
    }

    /// Counts jobs that were not enqueued because they were there.
    pub(in super::super) fn count_duplicates(&mut self, count: u64) {
        self.totals.duplicates += count;
    }

    /// Keeps what a worker tells about how far it has come: in memory alone, as it says nothing once the lease ends.
    pub fn note_progress(&mut self, job: Target, progress: &[u8], effects: &mut Effects) {
        let Some(slot) = self.find(job) else { return };
        self.more_mut(slot).progress = Some(progress.into());
        effects.event(EventKind::Progress, job.id, self.cells.get(slot).attempt);
    }

    /// Takes a job from its worker.
    fn end_lease(&mut self, slot: u32, effects: &mut Effects) {
        self.leave(slot);
        self.drop_lease(slot);
        self.wake_if_ready(effects);
    }

    fn drop_lease(&mut self, slot: u32) {
        let more = self.cells.get(slot).more;
        if more == NONE {
            return;
        }
        let more = self.mores.get_mut(more);
        more.progress = None;
        let asked = std::mem::take(&mut more.lease).asked;
        if asked > 0 {
            self.asked.remove(&(asked, slot));
        }
    }

    /// Room under a limit may let another job go; in a group of one at a time that a failed job held up, too.
    #[inline]
    fn wake_if_ready(&mut self, effects: &mut Effects) {
        effects.wake |= (self.config.concurrency.is_some() || !self.groups.is_alone())
            && !self.orders[Stage::Ready as usize].is_empty();
    }

    /// While changes are read back nobody is told of keys: a job that was handed out, or put off, had its key.
    fn promote_on_paper(&mut self, slot: u32) {
        let more = self.cells.get(slot).more;
        if more != NONE
            && let Some(unique) = self.mores.get_mut(more).unique.as_deref_mut()
            && unique.role == KeyRole::Follows
        {
            unique.role = KeyRole::Holds;
        }
    }

    /// A job that is nowhere is over.
    fn finish(&mut self, slot: u32, stage: Stage, at: Moment, keep: Moment, effects: &mut Effects) {
        self.give_up_key(slot, at, effects);
        if keep <= at {
            return self.remove(slot, effects);
        }
        let cell = self.cells.get_mut(slot);
        (cell.at, cell.due) = (at.0, keep.0);
        self.trim(slot);
        self.enter(slot, stage);
    }

    #[inline]
    fn give_up_key(&mut self, slot: u32, at: Moment, effects: &mut Effects) {
        let more = self.cells.get(slot).more;
        if more != NONE && self.mores.get(more).unique.is_some() {
            self.give_up_key_if(slot, at, |_| true, effects);
        }
    }

    fn give_up_key_if(&mut self, slot: u32, at: Moment, when: impl Fn(Scope) -> bool, effects: &mut Effects) {
        let id = self.cells.get(slot).id();
        let Some(unique) = self.more_mut(slot).unique.as_deref_mut() else { return };
        if !when(unique.scope) || unique.role == KeyRole::Past {
            return;
        }
        let role = std::mem::replace(&mut unique.role, KeyRole::Past);
        let (key, until) = (Arc::clone(&unique.key), at.0.saturating_add(Self::window_of(unique.scope)));
        if let Some(recovery) = &mut self.recovery {
            return recovery.gave_up(key, id, until);
        }
        if role == KeyRole::Follows {
            return self.keys.unfollow(&key, slot);
        }
        let Some(next) = self.keys.give_up(&key, slot, until, at.0) else { return };
        self.promote(next, &key, at, effects);
    }

    /// The job that waited for `key` has it.
    pub(super) fn promote(&mut self, slot: u32, key: &Arc<str>, at: Moment, effects: &mut Effects) {
        let id = self.cells.get(slot).id();
        self.keys.take(key, slot, id);
        self.leave(slot);
        if let Some(unique) = self.more_mut(slot).unique.as_deref_mut() {
            unique.role = KeyRole::Holds;
        }
        let due = self.cells.get(slot).due;
        let stage = if due > at.0 { Stage::Delayed } else { Stage::Ready };
        self.enter(slot, stage);
        effects.wake |= stage == Stage::Ready;
    }

    fn add_failure(&mut self, slot: u32, failure: &FailureRef<'_>) {
        let failures = &mut self.more_mut(slot).failures;
        if let Some(last) = failures.last_mut() {
            // One stack trace is enough to find out; ten of a hundred thousand dead jobs would fill the memory.
            last.detail = String::new();
        }
        if failures.len() >= FAILURES_MAX {
            failures.drain(..=failures.len() - FAILURES_MAX);
        }
        failures.push(own(failure));
    }

    #[inline]
    fn only_leased(&self, slot: u32, what: &'static str) -> Result<()> {
        match self.cells.get(slot).stage {
            Stage::Leased => Ok(()),
            _ => Err(self.misplaced(slot, what)),
        }
    }

    fn only_waiting(&self, slot: u32, what: &'static str) -> Result<()> {
        if self.cells.get(slot).stage.is_waiting() { Ok(()) } else { Err(self.misplaced(slot, what)) }
    }

    /// A job that time has made ready may be on disk as one that waits.
    #[inline]
    fn not_finished(&self, slot: u32, what: &'static str) -> Result<()> {
        let stage = self.cells.get(slot).stage;
        if stage.is_waiting() { Ok(()) } else { Err(self.misplaced(slot, what)) }
    }

    #[cold]
    fn misplaced(&self, slot: u32, what: &'static str) -> Error {
        Error::new(ErrorKind::Corrupt, "queue.apply")
            .with("what", format_args!("{what} of a job that is {}", self.state_of(slot).name()))
            .with("job", self.cells.get(slot).id())
    }
}

/// Notes a unique key where its job comes in.
pub(super) fn follow_or_take(keys: &mut Keys, unique: &KeyUse, slot: u32, id: JobId) {
    match unique.role {
        KeyRole::Holds => keys.take(&unique.key, slot, id),
        KeyRole::Follows => keys.follow(&unique.key, slot),
        KeyRole::Past => {}
    }
}

#[cold]
fn unknown(id: JobId, lsn: Lsn, what: &'static str) -> Error {
    Error::new(ErrorKind::Corrupt, "queue.apply")
        .with("what", format_args!("{what} of a job that is not there"))
        .with("job", id)
        .with("lsn", lsn)
}
