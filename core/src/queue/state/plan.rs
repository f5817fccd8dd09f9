//! What may happen: every call checks, and gives changes or a refusal. Nothing is changed here.
#![forbid(unsafe_code)]

use super::{
    super::{
        acked,
        change::{Body, Cause, Change, Changes, Extra, FailureRef, Fate, New, Now, Own, Start, Target},
        cron::{Overlap, Schedule, Tick},
        groups::Turn,
        job::{Enqueued, Failure, JobId, JobState, Token, WorkerId},
        options::{
            Check, ENQUEUE_COUNT_MAX, EnqueueOptions, OnConflict, PROGRESS_BYTES_MAX, RESERVE_COUNT_MAX,
            RESULT_TTL_DEFAULT, Rate, ReserveOptions, Scope, TIME_MAX,
        },
    },
    Cell, KeyRole, KeyUse, NEVER, NONE, QueueState, Stage, ns,
};
use crate::{
    clock::{Moment, Timestamp},
    error::{Error, ErrorKind, Result},
    ledger::Place,
};
use hashbrown::{HashMap, HashSet};
use std::{borrow::Cow, collections::BTreeSet, time::Duration};

/// A job to be enqueued.
#[derive(Clone, Debug)]
pub struct NewJob<'a> {
    /// Its id: the one in the options, or a new one.
    pub id: JobId,
    /// What it wants; checked by [`EnqueueOptions::validate`].
    pub options: &'a EnqueueOptions,
    /// Content type, headers and payload.
    pub body: Body<'a>,
}

/// How a worker gives up an attempt.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nack<'a> {
    /// What went wrong, in a few words: at most 1 KiB is kept.
    pub message: &'a str,
    /// A stack trace or the like: at most 4 KiB is kept.
    pub detail: &'a str,
    /// How long until the next attempt. Default: the job's backoff.
    pub delay: Option<Duration>,
}

/// What became of a job that was to be cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Cancelled {
    /// It is cancelled.
    Now,
    /// A worker has it, and is asked to give it back.
    Asked,
    /// It was finished before.
    Finished(JobState),
}

/// Jobs and keys of one call that the state does not know yet.
#[derive(Default)]
struct Overlay<'a> {
    /// Ids that have a job now, or have none any more.
    ids: HashMap<JobId, bool>,
    /// None of a key that is free now.
    keys: HashMap<&'a str, Option<Holder>>,
    enqueued: u64,
    ended: u64,
}

/// Who has a key, what the job does with it, and who has it next.
type Holder = (JobId, Hold, Option<JobId>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    Waits,
    IsWorkedOn,
    /// It is over; what it does now, if it was redriven, has nothing to do with the key.
    Over,
}

impl QueueState {
    /// Enqueues all of `jobs` or none.
    ///
    /// # Errors
    /// - [`ErrorKind::TooLarge`]: a payload, or the number of jobs, is over its limit.
    /// - [`ErrorKind::Full`]: `max_length` is reached.
    /// - [`ErrorKind::Draining`]: the queue takes nothing new.
    pub fn enqueue<'a>(
        &self,
        now: Now,
        jobs: &[NewJob<'a>],
        changes: &mut Changes<'a>,
        outcomes: &mut Vec<Enqueued>,
    ) -> Result<()> {
        self.enqueue_over(&mut Overlay::default(), now, jobs, changes, outcomes)
    }

    /// As [`QueueState::enqueue`], after what `overlay` says of this call.
    fn enqueue_over<'a>(
        &self,
        overlay: &mut Overlay<'a>,
        now: Now,
        jobs: &[NewJob<'a>],
        changes: &mut Changes<'a>,
        outcomes: &mut Vec<Enqueued>,
    ) -> Result<()> {
        let check = Check("queue.enqueue");
        check.bytes("job_count", jobs.len(), ENQUEUE_COUNT_MAX)?;
        if self.draining {
            return Err(Error::new(ErrorKind::Draining, check.0));
        }
        for job in jobs {
            check.bytes("payload_bytes", job.body.payload.len(), self.config.payload_bytes_max as usize)?;
            outcomes.push(self.enqueue_one(now, job, jobs.len() > 1, overlay, changes));
        }
        if let Some(most) = self.config.max_length
            && overlay.enqueued > 0
        {
            let length = (self.waiting() + overlay.enqueued).saturating_sub(overlay.ended);
            if length > most {
                let error = Error::new(ErrorKind::Full, check.0).with("waiting", self.waiting());
                return Err(error.with("new", overlay.enqueued).with("max_length", most));
            }
        }
        Ok(())
    }

    fn enqueue_one<'a>(
        &self,
        now: Now,
        job: &NewJob<'a>,
        of_many: bool,
        overlay: &mut Overlay<'a>,
        changes: &mut Changes<'a>,
    ) -> Enqueued {
        let options = job.options;
        // Ids of our own differ.
        if options.id.is_some() {
            let known = overlay.ids.get(&job.id).copied();
            if known.unwrap_or_else(|| self.find(Target::of(job.id)).is_some()) {
                return Enqueued::Existing(job.id);
            }
        }
        let start = match options.run_at {
            Some(wall) if wall > now.wall => {
                Start::At(wall, now.at + Duration::from_nanos(wall.0 - now.wall.0))
            }
            _ if options.delay.is_zero() => Start::Now,
            _ => Start::After(now.at + options.delay),
        };
        let (mut outcome, mut held) = (Enqueued::New(job.id), false);
        if let Some(unique) = &options.unique {
            let holder = overlay.keys.get(unique.key.as_str()).copied();
            let holder = holder.unwrap_or_else(|| self.holder(&unique.key, now));
            const WHY: &str = "replaced by a job with the same unique key";
            let keeps_last = unique.conflict == OnConflict::KeepLast;
            match holder {
                None => {}
                // Behind one that is being worked on; the one that was behind it so far goes.
                Some((holder, hold, follower))
                    if keeps_last && (follower.is_some() || hold == Hold::IsWorkedOn) =>
                {
                    held = true;
                    if let Some(follower) = follower {
                        self.end(now, follower, WHY, overlay, changes);
                        outcome = Enqueued::Replaced { id: job.id, replaced: follower };
                    }
                    if of_many {
                        overlay.keys.insert(&unique.key, Some((holder, hold, Some(job.id))));
                    }
                }
                Some((holder, Hold::Waits, follower))
                    if keeps_last || unique.conflict == OnConflict::Replace =>
                {
                    // First the one behind it, which would have the key otherwise.
                    for old in follower.into_iter().chain([holder]) {
                        self.end(now, old, WHY, overlay, changes);
                    }
                    outcome = Enqueued::Replaced { id: job.id, replaced: holder };
                }
                Some((holder, Hold::Waits, _)) if unique.conflict == OnConflict::Extend => {
                    if start != Start::Now {
                        changes.push(Change::Reschedule { job: self.target(holder), at: now.at, start });
                    }
                    return Enqueued::Extended(holder);
                }
                Some((holder, ..)) => return Enqueued::Existing(holder),
            }
            if of_many && !held {
                overlay.keys.insert(&unique.key, Some((job.id, Hold::Waits, None)));
            }
        }
        if of_many && options.id.is_some() {
            overlay.ids.insert(job.id, true);
        }
        let seq = self.seq + overlay.enqueued;
        overlay.enqueued += 1;
        let start = match start {
            // Once the key is free it waits for what is left, whatever clock it was given on.
            Start::At(_, at) if held => Start::After(at),
            start => start,
        };
        changes.push(Change::Enqueue(New {
            id: job.id,
            at: now.at,
            seq,
            priority: options.priority,
            start,
            held,
            extra: self.extra(now, options),
            body: job.body.clone(),
        }));
        outcome
    }

    fn extra<'a>(&self, now: Now, options: &'a EnqueueOptions) -> Option<Box<Extra<'a>>> {
        let EnqueueOptions { ttl, unique, group, max_attempts, backoff, lease, deadline, result_ttl, .. } =
            options;
        let expires = ttl.or(self.config.ttl).map(|ttl| now.at + ttl);
        let plain = expires.is_none()
            && unique.is_none()
            && group.is_none()
            && max_attempts.is_none()
            && backoff.is_none()
            && lease.is_none()
            && deadline.is_none()
            && result_ttl.is_none();
        (!plain).then(|| {
            Box::new(Extra {
                group: group.as_deref().map(Cow::Borrowed),
                unique: unique.as_ref().map(|unique| (Cow::Borrowed(unique.key.as_str()), unique.scope)),
                expires,
                own: Own {
                    max_attempts: *max_attempts,
                    backoff: backoff.clone(),
                    lease: *lease,
                    deadline: *deadline,
                    result_ttl: *result_ttl,
                },
                failures: Vec::new(),
            })
        })
    }

    fn holder(&self, key: &str, now: Now) -> Option<Holder> {
        let found = self.keys.find(key, now.at.0)?;
        let hold = match found.holder {
            NONE => Hold::Over,
            slot if self.cells.get(slot).stage.is_waiting() => Hold::Waits,
            _ => Hold::IsWorkedOn,
        };
        Some((found.id, hold, (found.next != NONE).then(|| self.cells.get(found.next).id())))
    }

    fn target(&self, id: JobId) -> Target {
        Target { id, slot: self.find(Target::of(id)).unwrap_or(NONE) }
    }

    fn at_slot(&self, slot: u32) -> Target {
        Target { id: self.cells.get(slot).id(), slot }
    }

    fn end<'a>(
        &self,
        now: Now,
        id: JobId,
        why: &'static str,
        overlay: &mut Overlay<'_>,
        changes: &mut Changes<'a>,
    ) {
        overlay.ended += 1;
        let failure = said(why, 0, now);
        let keep = now.at + self.config.retention.cancelled.age;
        if keep == now.at {
            overlay.ids.insert(id, false);
        }
        changes.push(Change::End {
            job: self.target(id),
            at: now.at,
            keep,
            expired: false,
            failure: Some(failure),
        });
    }

    /// Hands out up to `most` jobs whose payloads have `bytes_max` bytes together, or one that has more; how many.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidArgument`]: none at all are asked for.
    /// - [`ErrorKind::TooLarge`]: more than [`RESERVE_COUNT_MAX`] at once.
    pub fn reserve(
        &self,
        now: Now,
        worker: WorkerId,
        options: ReserveOptions,
        most: usize,
        bytes_max: usize,
        changes: &mut Changes<'_>,
    ) -> Result<usize> {
        Check("queue.reserve").count(most)?;
        if self.paused {
            return Ok(0);
        }
        let leased = self.orders[Stage::Leased as usize].len();
        let most =
            self.config.concurrency.map_or(most, |limit| most.min((limit as usize).saturating_sub(leased)));
        let mut bucket = self.bucket;
        let mut may = || {
            let Some(flow) = self.flow else { return true };
            let ready = bucket.ready_at(flow) <= now.at.0;
            if ready {
                bucket.take(flow, now.at.0);
            }
            ready
        };
        changes.reserve(most.min(self.orders[Stage::Ready as usize].len()));
        let (mut given, mut room) = (0, bytes_max);
        // The order is kept: a job that does not fit is not passed over for a smaller one.
        let mut fits = |cell: &Cell, given: usize| {
            let left = room.checked_sub(cell.payload_bytes as usize);
            room = left.unwrap_or(0);
            given == 0 || left.is_some()
        };
        if self.groups.is_alone() {
            for slot in self.orders[Stage::Ready as usize].iter() {
                let cell = self.cells.get(slot);
                if given == most {
                    break;
                }
                if self.has_expired(cell, now) {
                    continue;
                }
                if !fits(cell, given) || !may() {
                    break;
                }
                changes.push(self.lease(slot, cell, now, worker, options, given));
                given += 1;
            }
            return Ok(given);
        }
        let mut turns = self.turns(now);
        while given < most
            && let Some(slot) = turns.peek()
            && let cell = self.cells.get(slot)
            && fits(cell, given)
            && may()
        {
            turns.take(slot);
            changes.push(self.lease(slot, cell, now, worker, options, given));
            given += 1;
        }
        Ok(given)
    }

    fn has_expired(&self, cell: &Cell, now: Now) -> bool {
        cell.more != NONE && self.mores.get(cell.more).expires <= now.at.0
    }

    fn lease<'a>(
        &self,
        slot: u32,
        cell: &Cell,
        now: Now,
        worker: WorkerId,
        options: ReserveOptions,
        index: usize,
    ) -> Change<'a> {
        let own = if cell.more == NONE { None } else { self.mores.get(cell.more).own.as_deref() };
        let lease = options.lease.or(own.and_then(|own| own.lease)).unwrap_or(self.config.lease);
        let longest = own.and_then(|own| own.deadline).or(self.config.deadline);
        let deadline = longest.map_or(Moment::NEVER, |longest| now.at + longest);
        Change::Reserve {
            job: Target { id: cell.id(), slot },
            nonce: acked::nonce(
                self.secret,
                cell.id(),
                cell.attempt.saturating_add(1),
                self.leases + index as u64,
            ),
            worker,
            at: now.at,
            until: deadline.min(now.at + lease),
            deadline,
        }
    }

    fn turns(&self, now: Now) -> Turns<'_> {
        Turns {
            state: self,
            now,
            clock: self.groups.clock(),
            untouched: Box::new(self.groups.turns().copied()),
            next: None,
            touched: HashMap::new(),
            again: BTreeSet::new(),
        }
    }

    /// The slot of a job whose lease `token` proves.
    fn held(&self, now: Now, token: Token, operation: &'static str) -> Result<u32> {
        let slot = self.find(Target::of(token.job));
        let lost = |reason: &str| {
            let error = Error::new(ErrorKind::LeaseLost, operation).with("job", token.job);
            Err(error.with("attempt", token.attempt).with("reason", reason))
        };
        let Some(slot) = slot else { return lost("the job is gone") };
        let cell = self.cells.get(slot);
        match self.more(slot) {
            _ if cell.stage != Stage::Leased => lost("the job is not leased any more"),
            Some(more) if more.lease.nonce != token.nonce || cell.attempt != token.attempt => {
                lost("another worker has the job")
            }
            _ if cell.due <= now.at.0 => lost("the lease has expired"),
            _ => Ok(slot),
        }
    }

    /// Gives a worker more time: the job's lease again, or `lease`, from now. Gives the end of the lease.
    ///
    /// # Errors
    /// - [`ErrorKind::LeaseLost`]: the job is not the worker's any more; nothing is changed.
    /// - [`ErrorKind::InvalidArgument`]: `lease` is out of bounds.
    pub fn extend(
        &self,
        now: Now,
        token: Token,
        lease: Option<Duration>,
        changes: &mut Changes<'_>,
    ) -> Result<Moment> {
        if let Some(lease) = lease {
            Check("queue.extend").lease("lease", lease)?;
        }
        let slot = self.held(now, token, "queue.extend")?;
        let more = self.more(slot).expect("a leased job has a lease");
        let usual = more.own.as_ref().and_then(|own| own.lease).unwrap_or(self.config.lease);
        let until = (now.at + lease.unwrap_or(usual)).min(Moment(more.lease.deadline));
        // Only ever later, and a job that is to be given back keeps the end that it has.
        let until = if more.lease.asked > 0 { Moment(self.cells.get(slot).due) } else { until };
        if until.0 > self.cells.get(slot).due {
            changes.push(Change::Extend { job: self.at_slot(slot), until });
        }
        Ok(until.max(Moment(self.cells.get(slot).due)))
    }

    /// Says that a job is done. The same again, within five minutes, does nothing and is no error.
    ///
    /// # Errors
    /// - [`ErrorKind::LeaseLost`]: the job is not the worker's any more; nothing is changed.
    /// - [`ErrorKind::TooLarge`]: the result is over `payload_bytes_max`.
    pub fn ack<'a>(
        &self,
        now: Now,
        token: Token,
        result: Option<&'a [u8]>,
        changes: &mut Changes<'a>,
    ) -> Result<()> {
        const OPERATION: &str = "queue.ack";
        let most = self.config.payload_bytes_max as usize;
        Check(OPERATION).bytes("result_bytes", result.map_or(0, <[u8]>::len), most)?;
        let slot = match self.held(now, token, OPERATION) {
            Ok(slot) => slot,
            Err(_) if self.acked.has(self.secret, token) => return Ok(()),
            Err(error) => return Err(error),
        };
        let own = self.more(slot).and_then(|more| more.own.as_ref()?.result_ttl);
        let kept = match result {
            Some(_) => own.unwrap_or(RESULT_TTL_DEFAULT),
            None => self.config.retention.done.age,
        };
        let kept = if self.config.retention.done.count == 0 { Duration::ZERO } else { kept };
        changes.push(Change::Done {
            job: self.at_slot(slot),
            nonce: token.nonce,
            at: now.at,
            keep: now.at + kept,
            result: result.filter(|_| !kept.is_zero()),
        });
        Ok(())
    }

    /// Acks several, each with its result; what each of them gives.
    ///
    /// # Errors
    /// - [`ErrorKind::TooLarge`]: more than [`RESERVE_COUNT_MAX`] at once.
    pub fn ack_many<'a>(
        &self,
        now: Now,
        acks: impl ExactSizeIterator<Item = (Token, Option<&'a [u8]>)> + Clone,
        changes: &mut Changes<'a>,
    ) -> Result<Vec<Result<()>>> {
        Check("queue.ack").bytes("job_count", acks.len(), RESERVE_COUNT_MAX)?;
        changes.reserve(acks.len());
        // As they were handed out, as a rule: then no two are the same.
        if acks.clone().map(|(token, _)| token).is_sorted_by(|one, next| one.job < next.job) {
            return Ok(acks.map(|(token, result)| self.ack(now, token, result, changes)).collect());
        }
        let mut seen = HashSet::with_capacity(acks.len());
        // The second of two that are the same repeats the first.
        Ok(acks
            .map(|(token, result)| {
                let mut planned = Changes::new();
                let to = if seen.insert(token) { &mut *changes } else { &mut planned };
                self.ack(now, token, result, to)
            })
            .collect())
    }

    /// Whether acks and a reservation may be planned together: then what is reserved is what would have been before the
    /// acks. Not where an ack makes room that the reservation could not see: in a group, or under a limit.
    pub fn can_ack_and_reserve(&self) -> bool {
        self.groups.is_alone() && self.config.concurrency.is_none()
    }

    /// Says that an attempt failed: the job waits for the next, or is dead.
    ///
    /// # Errors
    /// - [`ErrorKind::LeaseLost`]: the job is not the worker's any more; nothing is changed.
    /// - [`ErrorKind::InvalidArgument`]: the delay is over [`TIME_MAX`].
    pub fn nack<'a>(&self, now: Now, token: Token, nack: Nack<'a>, changes: &mut Changes<'a>) -> Result<()> {
        check_delay("queue.nack", nack.delay.unwrap_or_default())?;
        let slot = self.held(now, token, "queue.nack")?;
        let fate = self.after_failure(slot, now, nack.delay);
        changes.push(self.give_back(slot, now, Cause::Nacked, fate, failure(&nack, token.attempt, now)));
        Ok(())
    }

    /// Says that no attempt can succeed: the job is dead.
    ///
    /// # Errors
    /// - [`ErrorKind::LeaseLost`]: the job is not the worker's any more; nothing is changed.
    pub fn reject<'a>(
        &self,
        now: Now,
        token: Token,
        nack: Nack<'a>,
        changes: &mut Changes<'a>,
    ) -> Result<()> {
        let slot = self.held(now, token, "queue.reject")?;
        let fate = self.unless_cancelled(slot, now, Fate::Dead(now.at + self.config.retention.dead.age));
        changes.push(self.give_back(slot, now, Cause::Rejected, fate, failure(&nack, token.attempt, now)));
        Ok(())
    }

    /// Gives a job back as if it had not been taken: it keeps its place, and the attempt does not count.
    ///
    /// # Errors
    /// - [`ErrorKind::LeaseLost`]: the job is not the worker's any more; nothing is changed.
    pub fn release(&self, now: Now, token: Token, changes: &mut Changes<'_>) -> Result<()> {
        let slot = self.held(now, token, "queue.release")?;
        let fate = self.unless_cancelled(slot, now, Fate::Ready);
        changes.push(self.give_back(slot, now, Cause::Released, fate, None));
        Ok(())
    }

    /// Puts a job off; the attempt does not count.
    ///
    /// # Errors
    /// - [`ErrorKind::LeaseLost`]: the job is not the worker's any more; nothing is changed.
    /// - [`ErrorKind::InvalidArgument`]: the delay is over [`TIME_MAX`].
    pub fn snooze(&self, now: Now, token: Token, delay: Duration, changes: &mut Changes<'_>) -> Result<()> {
        check_delay("queue.snooze", delay)?;
        let slot = self.held(now, token, "queue.snooze")?;
        let fate = self.unless_cancelled(slot, now, Fate::Scheduled(now.at + delay));
        changes.push(self.give_back(slot, now, Cause::Snoozed, fate, None));
        Ok(())
    }

    /// Checks what a worker tells about how far it has come; [`QueueState::note_progress`] keeps it.
    ///
    /// # Errors
    /// - [`ErrorKind::LeaseLost`]: the job is not the worker's any more; nothing is changed.
    /// - [`ErrorKind::TooLarge`]: more than [`PROGRESS_BYTES_MAX`].
    pub fn progress(&self, now: Now, token: Token, progress: &[u8]) -> Result<Target> {
        Check("queue.progress").bytes("progress_bytes", progress.len(), PROGRESS_BYTES_MAX)?;
        Ok(self.at_slot(self.held(now, token, "queue.progress")?))
    }

    /// Whether the worker is asked to give the job back.
    ///
    /// # Errors
    /// - [`ErrorKind::LeaseLost`]: the job is not the worker's any more.
    pub fn is_cancelling(&self, now: Now, token: Token) -> Result<bool> {
        let slot = self.held(now, token, "queue.is_cancelling")?;
        Ok(self.more(slot).is_some_and(|more| more.lease.asked > 0))
    }

    /// What becomes of a job whose attempt failed.
    fn after_failure(&self, slot: u32, now: Now, delay: Option<Duration>) -> Fate {
        let cell = self.cells.get(slot);
        let fate = if cell.attempt >= self.max_attempts(slot) {
            Fate::Dead(now.at + self.config.retention.dead.age)
        } else {
            let own = self.more(slot).and_then(|more| more.own.as_ref()?.backoff.as_ref());
            let backoff = own.unwrap_or(&self.config.backoff);
            Fate::Retry(now.at + delay.unwrap_or_else(|| backoff.after(cell.id(), cell.attempt)))
        };
        self.unless_cancelled(slot, now, fate)
    }

    fn unless_cancelled(&self, slot: u32, now: Now, fate: Fate) -> Fate {
        match self.more(slot) {
            Some(more) if more.lease.asked > 0 => {
                Fate::Cancelled(now.at + self.config.retention.cancelled.age)
            }
            _ => fate,
        }
    }

    fn give_back<'a>(
        &self,
        slot: u32,
        now: Now,
        cause: Cause,
        to: Fate,
        failure: Option<FailureRef<'a>>,
    ) -> Change<'a> {
        let uncounted = cause == Cause::WorkerGone && self.config.uncounted_on_crash;
        let counted = !uncounted && !matches!(cause, Cause::Released | Cause::Snoozed);
        Change::Return { job: self.at_slot(slot), at: now.at, cause, to, counted, failure }
    }

    /// Ends the leases of a worker whose process has ended, at most `most` of them; how many.
    pub fn worker_gone(&self, now: Now, worker: WorkerId, most: usize, changes: &mut Changes<'_>) -> usize {
        let leases = self.orders[Stage::Leased as usize].iter();
        let his = |slot: &u32| self.more(*slot).is_some_and(|more| more.lease.worker == worker);
        self.end_leases(now, leases.filter(his).take(most), Cause::WorkerGone, changes)
    }

    /// Ends all leases, as the host that gave them is gone, at most `most` of them; how many.
    pub fn restart(&self, now: Now, most: usize, changes: &mut Changes<'_>) -> usize {
        let leases = self.orders[Stage::Leased as usize].iter();
        self.end_leases(now, leases.take(most), Cause::Restarted, changes)
    }

    fn end_leases(
        &self,
        now: Now,
        slots: impl Iterator<Item = u32>,
        cause: Cause,
        changes: &mut Changes<'_>,
    ) -> usize {
        let mut count = 0;
        for slot in slots {
            count += 1;
            let (delay, message) = match cause {
                Cause::Restarted => (Some(Duration::ZERO), "the host was restarted"),
                Cause::WorkerGone => (None, "the worker's process ended"),
                _ => (None, "the lease expired"),
            };
            let uncounted = cause == Cause::WorkerGone && self.config.uncounted_on_crash;
            let fate = if uncounted {
                self.unless_cancelled(slot, now, Fate::Ready)
            } else {
                self.after_failure(slot, now, delay)
            };
            let failure = said(message, self.cells.get(slot).attempt, now);
            changes.push(self.give_back(slot, now, cause, fate, Some(failure)));
        }
        count
    }

    /// Cancels a job: at once if it waits, by asking its worker if it is leased. `why` is kept among its
    /// failures, also if the worker is done with it before it hears of this.
    ///
    /// # Errors
    /// - [`ErrorKind::NotFound`]: there is no such job.
    pub fn cancel<'a>(
        &self,
        now: Now,
        id: JobId,
        why: &'a str,
        changes: &mut Changes<'a>,
    ) -> Result<Cancelled> {
        let Some(slot) = self.find(Target::of(id)) else { return Err(no_job("queue.cancel", id)) };
        let job = self.at_slot(slot);
        match self.cells.get(slot).stage {
            Stage::Leased => {
                if self.more(slot).is_some_and(|more| more.lease.asked == 0) {
                    let by = now.at + self.config.cancel_grace;
                    let failure = (!why.is_empty()).then(|| said(why, self.cells.get(slot).attempt, now));
                    changes.push(Change::Ask { job, by, failure });
                }
                Ok(Cancelled::Asked)
            }
            stage if stage.is_waiting() => {
                let failure = Some(said(if why.is_empty() { "cancelled" } else { why }, 0, now));
                let keep = now.at + self.config.retention.cancelled.age;
                changes.push(Change::End { job, at: now.at, keep, expired: false, failure });
                Ok(Cancelled::Now)
            }
            _ => Ok(Cancelled::Finished(self.state_of(slot))),
        }
    }

    /// Makes finished jobs ready again, as if they were new: those named, of which others than dead ones too.
    ///
    /// # Errors
    /// - [`ErrorKind::NotFound`]: one of them is not there. Nothing is changed.
    /// - [`ErrorKind::InvalidArgument`]: one of them is not finished. Nothing is changed.
    /// - [`ErrorKind::TooLarge`]: more than [`RESERVE_COUNT_MAX`] at once.
    pub fn redrive(&self, now: Now, ids: &[JobId], changes: &mut Changes<'_>) -> Result<()> {
        const OPERATION: &str = "queue.redrive";
        Check(OPERATION).bytes("job_count", ids.len(), RESERVE_COUNT_MAX)?;
        let mut slots = Vec::with_capacity(ids.len());
        for id in ids {
            let Some(slot) = self.find(Target::of(*id)) else { return Err(no_job(OPERATION, *id)) };
            if !self.cells.get(slot).stage.is_terminal() {
                let error = Error::new(ErrorKind::InvalidArgument, OPERATION).with("job", id);
                let error = error.with("state", self.state_of(slot).name());
                return Err(error.with("rule", "only a finished job is redriven"));
            }
            if !slots.contains(&slot) {
                slots.push(slot);
            }
        }
        for slot in slots {
            changes.push(Change::Redrive { job: self.at_slot(slot), at: now.at, paced: false });
        }
        Ok(())
    }

    /// Makes the dead jobs that have been so longest ready again, at most `most`; how many.
    pub fn redrive_dead(&self, now: Now, most: usize, changes: &mut Changes<'_>) -> usize {
        let mut count = 0;
        for slot in self.orders[Stage::Dead as usize].iter().take(most) {
            changes.push(Change::Redrive { job: self.at_slot(slot), at: now.at, paced: false });
            count += 1;
        }
        count
    }

    /// Makes `count` dead jobs ready again, evenly at `rate`. A count of 0 ends what is under way.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidArgument`]: the rate is out of bounds.
    pub fn redrive_at(&self, count: u64, rate: Rate, changes: &mut Changes<'_>) -> Result<()> {
        if rate.count == 0 || rate.per.is_zero() || rate.per > TIME_MAX {
            let value = format_args!("{} per {:?}", rate.count, rate.per);
            return Err(Check("queue.redrive").refuse("rate", value, "at least 1 in 1 ns to 10 years"));
        }
        let count = count.min(self.orders[Stage::Dead as usize].len() as u64);
        changes.push(Change::Redriving { count, interval: Duration::from_nanos(rate.interval_ns()) });
        Ok(())
    }

    /// Removes jobs in `state`, first ones first, at most `most`; how many.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidArgument`]: leased jobs are cancelled, not purged.
    pub fn purge(&self, now: Now, state: JobState, most: usize, changes: &mut Changes<'_>) -> Result<usize> {
        if state == JobState::Leased {
            return Err(Check("queue.purge").refuse("state", "leased", "any other: cancel leased jobs"));
        }
        let before = changes.len();
        for slot in self.in_state(state).take(most) {
            changes.push(Change::Forget { job: self.at_slot(slot), at: now.at, moved: false });
        }
        Ok(changes.len() - before)
    }

    /// Removes one job.
    ///
    /// # Errors
    /// - [`ErrorKind::NotFound`]: there is no such job.
    /// - [`ErrorKind::InvalidArgument`]: it is leased: cancel it.
    pub fn forget(&self, now: Now, id: JobId, changes: &mut Changes<'_>) -> Result<()> {
        let Some(slot) = self.find(Target::of(id)) else { return Err(no_job("queue.remove", id)) };
        if self.cells.get(slot).stage == Stage::Leased {
            return Err(Check("queue.remove").refuse("state", "leased", "any other: cancel leased jobs"));
        }
        changes.push(Change::Forget { job: self.at_slot(slot), at: now.at, moved: false });
        Ok(())
    }

    /// Pauses, resumes, drains. No change if it is so already.
    pub fn mode(&self, paused: bool, draining: bool, changes: &mut Changes<'_>) {
        if (paused, draining) != (self.paused, self.draining) {
            changes.push(Change::Mode { paused, draining });
        }
    }

    /// What it does as a whole: paused, draining.
    pub fn is_paused(&self) -> (bool, bool) {
        (self.paused, self.draining)
    }

    /// Puts a schedule in the place of the one of its name, if there is one.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidArgument`]: something about it is not valid, or it never fires.
    pub fn schedule<'a>(&self, now: Now, schedule: &'a Schedule, changes: &mut Changes<'a>) -> Result<()> {
        let plan = schedule.plan()?;
        let Some(next) = plan.after(now.wall) else {
            let check = Check("queue.schedule");
            return Err(check.refuse(
                "cron",
                &schedule.cron,
                "an expression that matches within the next 100 years",
            ));
        };
        changes.push(Change::Schedule { schedule: Box::new(schedule.clone()), next });
        Ok(())
    }

    /// Removes a schedule.
    ///
    /// # Errors
    /// - [`ErrorKind::NotFound`]: there is none of this name.
    pub fn unschedule<'a>(&self, name: &'a str, changes: &mut Changes<'a>) -> Result<()> {
        if !self.schedules.contains_key(name) {
            let shown: String = name.chars().take(64).collect();
            return Err(Error::new(ErrorKind::NotFound, "queue.unschedule").with("schedule", shown));
        }
        changes.push(Change::Unschedule { name: name.into() });
        Ok(())
    }

    /// What time makes necessary: leases that ran out, jobs that expired or were kept long enough, the next to be
    /// redriven. At most `most` changes; how many. What schedules do is told by [`QueueState::due_schedule`].
    pub fn tick(&self, now: Now, most: usize, changes: &mut Changes<'_>) -> usize {
        if self.tick_due(now) > now.at.0 {
            return 0;
        }
        let before = changes.len();
        let left = |changes: &Changes<'_>| most.saturating_sub(changes.len() - before);
        let due = |stage: Stage| {
            let slots = self.orders[stage as usize].iter();
            slots.take_while(move |slot| self.cells.get(*slot).due <= now.at.0)
        };
        self.end_leases(now, due(Stage::Leased).take(left(changes)), Cause::LeaseExpired, changes);
        let asked = self.asked.iter().take_while(|(by, _)| *by <= now.at.0).map(|(_, slot)| *slot);
        let asked = asked.filter(|slot| self.cells.get(*slot).due > now.at.0);
        for slot in asked.take(left(changes)) {
            let message = "cancelled; the worker did not give it back in time";
            let failure = said(message, self.cells.get(slot).attempt, now);
            let fate = self.unless_cancelled(slot, now, Fate::Ready);
            changes.push(self.give_back(slot, now, Cause::Cancelled, fate, Some(failure)));
        }
        let keep = now.at + self.config.retention.expired.age;
        let expired = self.expiry.iter().take_while(|slot| self.expires(*slot) <= now.at.0);
        for slot in expired.take(left(changes)) {
            let failure = None;
            changes.push(Change::End { job: self.at_slot(slot), at: now.at, keep, expired: true, failure });
        }
        for (stage, most_kept) in self.kept() {
            let order = &self.orders[stage as usize];
            let over = order.len().saturating_sub(most_kept as usize);
            let gone = order
                .iter()
                .enumerate()
                .take_while(|(index, slot)| *index < over || self.cells.get(*slot).due <= now.at.0);
            for (_, slot) in gone.take(left(changes)) {
                changes.push(Change::Forget { job: self.at_slot(slot), at: now.at, moved: false });
            }
        }
        if let Some(run) = self.redriving
            && run.next <= now.at.0
        {
            let due = 1 + (now.at.0 - run.next) / run.interval;
            let count = usize::try_from(due.min(run.left)).unwrap_or(usize::MAX).min(left(changes));
            let dead = self.orders[Stage::Dead as usize].iter();
            // What is forgotten above is not redriven too.
            let over = self.orders[Stage::Dead as usize]
                .len()
                .saturating_sub(self.config.retention.dead.count as usize);
            let dead = dead.skip(over).filter(|slot| self.cells.get(*slot).due > now.at.0);
            for slot in dead.take(count) {
                changes.push(Change::Redrive { job: self.at_slot(slot), at: now.at, paced: true });
            }
        }
        changes.len() - before
    }

    /// A schedule whose time has come, with the times it is to fire for and what comes after each. Every one is
    /// planned by [`QueueState::fire`], written and applied before the next.
    pub fn due_schedule(&self, now: Now) -> Option<(String, Vec<Tick>)> {
        self.schedules.iter().find_map(|(name, planned)| {
            let ahead = now.wall.0.saturating_add(CLOCK_SET_NS);
            let has_fired = planned.tick != Timestamp(0);
            let is_far = planned.next.0 > ahead;
            if planned.next > now.wall && planned.tick.0 <= ahead && (has_fired || !is_far) {
                return None;
            }
            // What was stored was checked before.
            let plan = planned.schedule.plan().ok()?;
            let next = plan.after(now.wall).unwrap_or(Timestamp(NEVER));
            let ticks = if planned.tick.0 > ahead || !has_fired && is_far && next < planned.next {
                // The clock was wrong before: what it fired for then, or was to wait for, says nothing about now.
                vec![Tick { at: now.wall, fires: false, next }]
            } else if planned.next > now.wall {
                return None;
            } else {
                planned.schedule.ticks(&plan, planned.next, now.wall)
            };
            Some((name.to_string(), ticks))
        })
    }

    /// What one tick of a schedule does: `new` is its job, and is enqueued unless the time passes.
    pub fn fire<'a>(&self, now: Now, name: &'a str, tick: Tick, new: &NewJob<'a>, changes: &mut Changes<'a>) {
        let Some(planned) = self.schedules.get(name) else { return };
        let last = planned.job.filter(|job| self.is_unfinished(*job));
        let replaced = last.filter(|_| planned.schedule.overlap == Overlap::Replace);
        let is_let_pass = !tick.fires || last.is_some() && planned.schedule.overlap == Overlap::Skip;
        let mut fired = None;
        // Where the last one's going makes no room for its key, it is replaced by its key or not at all.
        for replaced in [replaced, None] {
            let enqueued = if is_let_pass { None } else { self.fire_over(now, new, replaced) };
            // A queue that is full or drained lets the time pass.
            let Some((outcome, enqueued)) = enqueued else { break };
            let is_new = matches!(outcome, Enqueued::New(_) | Enqueued::Replaced { .. });
            if is_new || replaced.is_none() {
                fired = Some(new.id).filter(|id| outcome.id() == *id);
                enqueued.into_iter().for_each(|change| changes.push(change));
                break;
            }
        }
        changes.push(Change::Fired { name: name.into(), tick: tick.at, next: tick.next, job: fired });
    }

    /// Enqueues `new` after `replaced` was cancelled, if it takes it.
    fn fire_over<'a>(
        &self,
        now: Now,
        new: &NewJob<'a>,
        replaced: Option<JobId>,
    ) -> Option<(Enqueued, Changes<'a>)> {
        let (mut overlay, mut changes, mut outcomes) = (Overlay::default(), Changes::new(), Vec::new());
        if let Some(slot) = replaced.and_then(|id| self.find(Target::of(id))) {
            let cell = self.cells.get(slot);
            if cell.stage.is_waiting() {
                let unique = self.more(slot).and_then(|more| more.unique.as_deref());
                if let Some(wanted) = &new.options.unique
                    && let Some(unique) = unique.filter(|unique| *unique.key == *wanted.key)
                {
                    overlay.keys.insert(&wanted.key, self.holder_without(unique, cell.id(), now));
                }
                self.end(now, cell.id(), "replaced by the next of its schedule", &mut overlay, &mut changes);
            } else {
                self.cancel(now, cell.id(), "", &mut changes).ok()?;
            }
        }
        self.enqueue_over(&mut overlay, now, std::slice::from_ref(new), &mut changes, &mut outcomes).ok()?;
        Some((*outcomes.first()?, changes))
    }

    /// Who has a key once a waiting job, which has it or follows, is ended.
    fn holder_without(&self, unique: &KeyUse, id: JobId, now: Now) -> Option<Holder> {
        let holder = self.holder(&unique.key, now);
        match (unique.role, holder?) {
            (KeyRole::Follows, (holder, hold, _)) => Some((holder, hold, None)),
            (KeyRole::Holds, (_, _, Some(follower))) => Some((follower, Hold::Waits, None)),
            (KeyRole::Holds, _) => (Self::window_of(unique.scope) > 0).then_some((id, Hold::Over, None)),
            (KeyRole::Past, holder) => Some(holder),
        }
    }

    fn is_unfinished(&self, id: JobId) -> bool {
        self.find(Target::of(id)).is_some_and(|slot| !self.cells.get(slot).stage.is_terminal())
    }

    /// The schedule of this name.
    pub fn schedule_named(&self, name: &str) -> Option<&Schedule> {
        self.schedules.get(name).map(|planned| &planned.schedule)
    }

    /// Whether a failed job goes to another queue, and which: the target of a planned change.
    pub(in super::super) fn becomes_dead<'a>(change: &'a Change<'a>) -> Option<Target> {
        match change {
            Change::Return { job, to: Fate::Dead(_), .. } => Some(*job),
            _ => None,
        }
    }

    /// What a dead job takes with it to another queue: the place of its content, what it wants, what went wrong.
    pub(in super::super) fn letter(
        &self,
        job: Target,
        change: &Change<'_>,
    ) -> Option<(Place, EnqueueOptions, Vec<Failure>)> {
        let slot = self.find(job)?;
        let cell = self.cells.get(slot);
        let options = EnqueueOptions {
            id: Some(job.id),
            priority: cell.priority,
            group: self.groups.get(cell.group).name.as_deref().map(str::to_owned),
            ..EnqueueOptions::default()
        };
        let mut failures = self.more(slot).map(|more| more.failures.clone()).unwrap_or_default();
        if let Change::Return { failure: Some(failure), .. } = change {
            if let Some(last) = failures.last_mut() {
                last.detail = String::new();
            }
            failures.push(super::own(failure));
            failures.drain(..failures.len().saturating_sub(super::FAILURES_MAX));
        }
        Some((Place::from_bits(cell.place), options, failures))
    }

    /// Enqueues a dead job of another queue, the one after `before` others of the same batch.
    pub(in super::super) fn letter_in<'a>(
        &self,
        now: Now,
        job: &NewJob<'a>,
        before: u64,
        failures: &'a [Failure],
        changes: &mut Changes<'a>,
    ) -> Result<()> {
        let mut planned = Changes::new();
        self.enqueue(now, std::slice::from_ref(job), &mut planned, &mut Vec::new())?;
        let full = self.config.max_length.is_some_and(|most| self.waiting() + before >= most);
        let Some(Change::Enqueue(mut new)) = planned.into_first().filter(|_| !full) else { return Ok(()) };
        new.seq += before;
        let extra = new.extra.get_or_insert_default();
        extra.failures = failures.iter().map(FailureRef::from).collect();
        changes.push(Change::Enqueue(new));
        Ok(())
    }

    /// How long a key is held after its job.
    pub(super) fn window_of(scope: Scope) -> u64 {
        match scope {
            Scope::Window(window) => ns(window),
            _ => 0,
        }
    }
}

/// The jobs as turns of groups give them, none of them taken yet.
struct Turns<'a> {
    state: &'a QueueState,
    now: Now,
    clock: u64,
    untouched: Box<dyn Iterator<Item = Turn> + 'a>,
    /// The first of `untouched`.
    next: Option<Turn>,
    touched: HashMap<u32, Touched>,
    /// Turns of touched groups.
    again: BTreeSet<Turn>,
}

/// A group as it will be once what was planned is applied.
struct Touched {
    leased: u32,
    bucket: super::super::groups::Bucket,
    mark: u64,
    /// Jobs before it are taken, or have expired.
    from: super::super::order::Key,
}

impl Turns<'_> {
    /// The slot whose turn it is.
    fn peek(&mut self) -> Option<u32> {
        loop {
            if self.next.is_none() {
                self.next = self.untouched.find(|turn| !self.touched.contains_key(&turn.4));
            }
            let turn = match (self.next, self.again.first().copied()) {
                (Some(new), Some(old)) if old < new => old,
                (Some(new), _) => {
                    self.next = None;
                    self.touch(new.4);
                    self.again.insert(new);
                    new
                }
                (None, old) => old?,
            };
            // Its first job may have expired: then the turn stands elsewhere.
            self.again.remove(&turn);
            let Some(slot) = self.first_of(turn.4) else { continue };
            let found = self.turn_of(turn.4, slot);
            self.again.insert(found);
            if found == turn {
                return Some(slot);
            }
        }
    }

    /// Takes the slot that was just looked at.
    fn take(&mut self, slot: u32) {
        let group = self.state.cells.get(slot).group;
        let turn = self.turn_of(group, slot);
        self.again.remove(&turn);
        let (state, now) = (self.state, self.now);
        let [lane, at, seq] = state.cells.get(slot).key(state.aging_ns);
        let touched = self.touched.get_mut(&group).expect("looking at a job touches its group");
        self.clock = self.clock.max(touched.mark);
        touched.mark = self.clock + state.groups.share(group);
        touched.leased += 1;
        touched.from = [lane, at, seq + 1];
        if let Some(flow) = state.groups.flow() {
            touched.bucket.take(flow, now.at.0);
        }
        if state.groups.has_room(group, touched.leased, touched.bucket, now.at.0)
            && let Some(slot) = self.first_of(group)
        {
            let turn = self.turn_of(group, slot);
            self.again.insert(turn);
        }
    }

    fn touch(&mut self, group: u32) {
        let found = self.state.groups.get(group);
        self.touched.insert(
            group,
            Touched {
                leased: found.leased,
                bucket: found.bucket,
                mark: found.mark,
                from: [u64::from(group) << 8, 0, 0],
            },
        );
    }

    fn first_of(&self, group: u32) -> Option<u32> {
        let state = self.state;
        let ready = &state.orders[Stage::Ready as usize];
        let slots = ready.from(self.touched[&group].from, |slot| state.cells.get(slot).key(state.aging_ns));
        let mut slots = slots.take_while(|slot| state.cells.get(*slot).group == group);
        slots.find(|slot| !state.has_expired(state.cells.get(*slot), self.now))
    }

    fn turn_of(&self, group: u32, slot: u32) -> Turn {
        let [lane, at, seq] = self.state.cells.get(slot).key(self.state.aging_ns);
        (lane & 0xff, self.touched[&group].mark, at, seq, group)
    }
}

fn failure<'a>(nack: &Nack<'a>, attempt: u16, now: Now) -> Option<FailureRef<'a>> {
    let detail = cut(nack.detail, DETAIL_BYTES_MAX);
    Some(FailureRef { detail, ..said(nack.message, attempt, now) })
}

/// A failure of which no more is known than this.
fn said(message: &str, attempt: u16, now: Now) -> FailureRef<'_> {
    FailureRef { attempt, at: now.wall, message: cut(message, MESSAGE_BYTES_MAX), detail: "" }
}

/// As much of `text` as fits, whole characters.
fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

fn check_delay(operation: &'static str, delay: Duration) -> Result<()> {
    if delay > TIME_MAX {
        let limit = format_args!("{TIME_MAX:?}");
        return Err(Check(operation).refuse("delay", format_args!("{delay:?}"), limit));
    }
    Ok(())
}

fn no_job(operation: &'static str, id: JobId) -> Error {
    Error::new(ErrorKind::NotFound, operation).with("job", id)
}

/// What is kept of a failure's message.
const MESSAGE_BYTES_MAX: usize = 1 << 10;
/// What is kept of a failure's detail.
const DETAIL_BYTES_MAX: usize = 4 << 10;
/// A clock that goes back by so much was set.
const CLOCK_SET_NS: u64 = 86_400_000_000_000;
