//! Queues of jobs: durable work, handed to one worker at a time, until somebody says that it is done.
//!
//! [`Queues`] is the handle: it locks, plans, writes, applies, and says whom to wake. What may happen to a job is
//! decided in [`state`](QueueState) alone, which knows no file, clock or thread; time comes in with each call.
//!
//! - Nothing is seen before it is written: the lock is held over planning, the ledger's write and applying. A write
//!   that fails changes nothing. Waiting for the disk is the caller's, outside the lock: [`Outcome::lsn`].
//! - There is one lock for all queues. The ledger takes one write at a time anyway, and that is most of the work;
//!   and what spans queues (a dead job that moves to another one, a worker whose process ends) is one batch without
//!   an order of locks to get wrong.
//! - Payloads are not kept in memory: a job knows the place of its entry. What was enqueued lately is, within bounds.
//! - Nobody is woken from here: a worker who finds nothing leaves a number under the very lock under which he
//!   looked, and [`Outcome::wakes`] gives it back when there may be work.
#![forbid(unsafe_code)]

mod acked;
mod change;
mod content;
pub mod cron;
pub mod entry;
mod fold;
mod groups;
mod job;
mod keys;
mod options;
mod order;
mod request;
mod slab;
mod state;
mod time;

#[cfg(test)]
mod tests;

pub use acked::ACK_REMEMBERED;
pub use change::{Body, Cause, Change, Changes, Extra, FailureRef, Fate, New, Now, Own, Start, Target};
pub use content::Content;
pub use cron::{Misfire, Overlap, Schedule};
pub use fold::QueuesFold;
pub use job::{Enqueued, Failure, JobId, JobInfo, JobState, QueueStats, Token, Totals, WorkerId};
pub use options::{
    ATTEMPTS_MAX, BACKOFF_LIST_MAX, Backoff, CONTENT_TYPE_BYTES_MAX, ENQUEUE_COUNT_MAX, EnqueueOptions,
    GroupLimits, HEADER_BYTES_MAX, HEADER_COUNT_MAX, KEY_BYTES_MAX, Keep, LEASE_MAX, LEASE_MIN, OnConflict,
    PAYLOAD_BYTES_LIMIT, PROGRESS_BYTES_MAX, QueueConfig, RESERVE_COUNT_MAX, RESULT_TTL_DEFAULT, Rate,
    ReserveOptions, Retention, Scope, TIME_MAX, Unique, WEIGHT_COUNT_MAX, WEIGHT_MAX,
};
pub use request::{AckRequest, Answered, NewJobRequest, QueueReply, QueueRequest, Refused, Sent};
pub use state::{Cancelled, Cursor, Delivery, Effects, Event, EventKind, Listed, Nack, NewJob, QueueState};
pub use time::Times;

use crate::sync::lock::{Mutex, MutexGuard};
use crate::{
    clock::Moment,
    error::{Error, ErrorKind, Result},
    ledger::{Batch, Checkpoint, Durability, Entry, Ledger, Lsn, Owner, Place},
    name::Name,
};
use content::Recent;
use hashbrown::HashMap;
use job::IdSource;
use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::Arc,
    time::Duration,
};
use time::Line;

/// A queue, once it was found by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct QueueId(u32);

impl QueueId {
    /// As a number, to be sent.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// From a number. Of a queue that is not there calls say so.
    pub const fn from_number(number: u32) -> Self {
        Self(number)
    }
}

/// A worker who waits, by a number that the mesh gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaiterId(pub u64);

/// What a call gives, and what is to be done now that the lock is free.
#[derive(Debug)]
#[must_use = "it says what is to be flushed and who is to be woken"]
pub struct Outcome<T> {
    /// What was asked for.
    pub value: T,
    /// The batch to wait for before the caller hears of it; [`Lsn::NONE`] if nothing was written.
    pub lsn: Lsn,
    /// How far it is to get, by the queue's settings; `Os` where several queues are concerned.
    pub durability: Durability,
    /// When [`Queues::tick`] is to be called, on the boot-time clock, if that is sooner than it was told before.
    pub due: Option<Moment>,
    /// Who waits for work and may find some. Each was taken off the list.
    pub wakes: Vec<WaiterId>,
    /// Leases that are to be given back: tell their workers.
    pub asked: Vec<(QueueId, WorkerId, Token)>,
    /// What happened, if [`Queues::watch`] was told that somebody listens.
    pub events: Vec<QueueEvent>,
}

impl<T> Outcome<T> {
    /// Nothing is left to be done.
    pub fn of(value: T) -> Self {
        Self {
            value,
            lsn: Lsn::NONE,
            durability: Durability::Os,
            due: None,
            wakes: Vec::new(),
            asked: Vec::new(),
            events: Vec::new(),
        }
    }

    /// The same with another value.
    pub fn map<U>(self, to: impl FnOnce(T) -> U) -> Outcome<U> {
        let Self { value, lsn, durability, due, wakes, asked, events } = self;
        Outcome { value: to(value), lsn, durability, due, wakes, asked, events }
    }

    /// Whether somebody is to be woken or told.
    fn is_to_be_followed(&self) -> bool {
        !(self.wakes.is_empty() && self.asked.is_empty() && self.events.is_empty())
    }

    /// Adds what is to be done after `other`, later, too; gives its value.
    pub fn absorb<U>(&mut self, other: Outcome<U>) -> U {
        self.lsn = self.lsn.max(other.lsn);
        self.due = [self.due, other.due].into_iter().flatten().min();
        self.wakes.extend(other.wakes);
        self.asked.extend(other.asked);
        self.events.extend(other.events);
        other.value
    }
}

/// Something that happened to a job; it is published as `$queue.<queue>.<event>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueEvent {
    /// The queue's name.
    pub queue: Arc<str>,
    /// What happened, to which job.
    pub event: Event,
}

impl QueueEvent {
    /// Where it is published.
    pub fn subject(&self) -> String {
        format!("$queue.{}.{}", self.queue, self.event.kind.name())
    }
}

/// A job as a worker gets it.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Job {
    /// Its queue.
    pub queue: QueueId,
    /// What proves that the job is the worker's.
    pub token: Token,
    /// Attempts it may have; `token.attempt` is this one.
    pub max_attempts: u16,
    /// 0 to 255.
    pub priority: u8,
    /// How often it was redriven.
    pub redrives: u32,
    /// Its group.
    pub group: Option<String>,
    /// How long the worker has it before it must extend.
    pub lease: Duration,
    /// How long it can have it, however often it extends.
    pub deadline: Option<Duration>,
    /// Content type, headers and payload.
    pub content: Content,
}

/// What each ack gives, and the jobs that were handed out.
pub type AckedAndReserved = (Vec<Result<()>>, Vec<Job>);

/// All queues of a mesh. Any thread may call it.
pub struct Queues {
    ledger: Ledger,
    inner: Mutex<Inner>,
}

impl fmt::Debug for Queues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queues").field("count", &self.inner.lock().queues.len()).finish_non_exhaustive()
    }
}

struct Inner {
    queues: Vec<Queue>,
    names: HashMap<Arc<str>, QueueId>,
    line: Line,
    /// The last batch that was applied.
    last: Lsn,
    ids: IdSource,
    recent: Recent,
    /// When the mesh knows that it is to call `tick`.
    due: Moment,
    seed: u64,
    batch: Batch,
    effects: Effects,
    /// Room for what one call enqueued.
    enqueued: Vec<Enqueued>,
}

struct Queue {
    name: Arc<str>,
    owner: Owner,
    state: QueueState,
    waiters: VecDeque<WaiterId>,
}

impl Queues {
    /// Makes whole what was read back: leases of the host before are void, and that is written.
    ///
    /// `seed` is any number that cannot be guessed; `recent_bytes` is what may be kept in memory of content that was
    /// written lately.
    ///
    /// # Errors
    /// Those of [`Ledger::write`].
    pub fn open(
        fold: QueuesFold,
        ledger: Ledger,
        times: Times,
        seed: u64,
        recent_bytes: usize,
    ) -> Result<(Self, Outcome<()>)> {
        let mut line = Line::new(times, fold.last_seen());
        let now = line.now(times);
        let mut queues = Vec::new();
        let mut names = HashMap::new();
        for (owner, (name, mut state)) in fold.queues {
            state.recovered(now.at);
            names.insert(Arc::clone(&name), QueueId(queues.len() as u32));
            queues.push(Queue { name, owner: Owner(owner), state, waiters: VecDeque::new() });
        }
        let inner = Inner {
            queues,
            names,
            line,
            last: fold.last,
            ids: IdSource::new(seed),
            recent: Recent::new(recent_bytes),
            due: Moment::NEVER,
            seed,
            batch: Batch::new(),
            effects: Effects::default(),
            enqueued: Vec::new(),
        };
        let queues = Self { ledger, inner: Mutex::new(inner) };
        let mut outcome = Outcome::of(());
        for id in queues.ids() {
            loop {
                let part = queues.change_divided(times, id, |state, now, changes| {
                    Ok(state.restart(now, SLICE, changes))
                })?;
                // Until there is none: what did not fit into one write may be left after a full slice.
                if outcome.absorb(part) == 0 {
                    break;
                }
            }
        }
        Ok((queues, outcome))
    }

    /// Makes sure that a queue is there. Whether it was made, and its id.
    ///
    /// # Errors
    /// - [`ErrorKind::Conflict`]: it is there with other settings; names the first field that differs, and both values.
    /// - [`ErrorKind::InvalidArgument`]: the settings are not valid, or it would be its own dead-letter queue.
    /// - Those of [`Ledger::write`].
    pub fn declare(
        &self,
        times: Times,
        name: &Name,
        config: &QueueConfig,
    ) -> Result<Outcome<(QueueId, bool)>> {
        const OPERATION: &str = "queue.declare";
        check_config(name, config, OPERATION)?;
        let mut inner = self.inner.lock();
        let now = inner.line.now(times);
        if let Some(&id) = inner.names.get(name.as_str()) {
            if let Some((field, is, wanted)) = inner.queue(id).state.config().difference(config) {
                let error = Error::new(ErrorKind::Conflict, OPERATION).with("queue", name);
                return Err(error.with("field", field).with("is", is).with("wanted", wanted));
            }
            return Ok(Outcome::of((id, false)));
        }
        let last = inner.queues.last().map_or(fold::CLOCK_OWNER.0, |queue| queue.owner.0);
        let owner = Owner(last + 1);
        let id = QueueId(inner.queues.len() as u32);
        let shared: Arc<str> = name.as_str().into();
        let seed = JobId(u128::from(inner.seed)).mix(u64::from(owner.0));
        // There before its entry is written, so that it can be written like any other; gone again if it cannot.
        let state = QueueState::new(config.clone(), seed);
        let secret = state.secret();
        inner.queues.push(Queue { name: Arc::clone(&shared), owner, state, waiters: VecDeque::new() });
        let change = Change::Declare { name: name.as_str().into(), config: Box::new(config.clone()), secret };
        match self.commit(&mut inner, now, &[(id, &change)]) {
            Ok(outcome) => {
                inner.names.insert(shared, id);
                Ok(outcome.map(|()| (id, true)))
            }
            Err(error) => {
                inner.queues.pop();
                Err(error)
            }
        }
    }

    /// Gives a queue other settings. They hold for jobs that are there too, from now on.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidArgument`]: the settings are not valid.
    /// - [`ErrorKind::NotFound`]: there is no such queue.
    /// - Those of [`Ledger::write`].
    pub fn configure(&self, times: Times, queue: QueueId, config: &QueueConfig) -> Result<Outcome<()>> {
        const OPERATION: &str = "queue.configure";
        let mut inner = self.inner.lock();
        let now = inner.start(times, queue, OPERATION)?;
        let name = Arc::clone(&inner.queue(queue).name);
        check_config(&Name::parse(&name)?, config, OPERATION)?;
        let secret = inner.queue(queue).state.secret();
        let change = Change::Declare { name: (&*name).into(), config: Box::new(config.clone()), secret };
        self.commit(&mut inner, now, &[(queue, &change)])
    }

    /// The queue of this name.
    ///
    /// # Errors
    /// - [`ErrorKind::NotFound`]: there is none.
    pub fn find(&self, name: &str) -> Result<QueueId> {
        let found = self.inner.lock().names.get(name).copied();
        found.ok_or_else(|| {
            let shown: String = name.chars().take(64).collect();
            Error::new(ErrorKind::NotFound, "queue.find").with("queue", format_args!("{shown:?}"))
        })
    }

    /// All queues, by name.
    pub fn names(&self) -> BTreeMap<Arc<str>, QueueId> {
        self.inner.lock().names.iter().map(|(name, id)| (Arc::clone(name), *id)).collect()
    }

    fn ids(&self) -> impl Iterator<Item = QueueId> + use<> {
        (0..self.inner.lock().queues.len() as u32).map(QueueId)
    }

    /// The settings of a queue.
    ///
    /// # Errors
    /// - [`ErrorKind::NotFound`]: there is no such queue.
    pub fn config(&self, queue: QueueId) -> Result<QueueConfig> {
        let inner = self.inner.lock();
        inner.check(queue, "queue.config")?;
        Ok(inner.queue(queue).state.config().clone())
    }

    /// Whether somebody listens for events: while nobody does, they cost nothing.
    pub fn watch(&self, watched: bool) {
        self.inner.lock().effects.watched = watched;
    }

    /// Enqueues a job.
    ///
    /// # Errors
    /// As for [`Queues::enqueue_many`].
    pub fn enqueue(
        &self,
        times: Times,
        queue: QueueId,
        payload: &[u8],
        options: &EnqueueOptions,
    ) -> Result<Outcome<Enqueued>> {
        options.validate()?;
        let mut inner = self.inner.lock();
        let now = inner.start(times, queue, "queue.enqueue")?;
        let new = [inner.new_job(times, queue, payload, options)];
        let mut enqueued = std::mem::take(&mut inner.enqueued);
        enqueued.clear();
        let outcome = self.enqueue_jobs(&mut inner, now, queue, &new, &mut enqueued);
        let first = enqueued.first().copied();
        inner.enqueued = enqueued;
        Ok(outcome?.map(|()| first.expect("what was enqueued without an error was told of")))
    }

    /// Enqueues several jobs in one write: all or none.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidArgument`], [`ErrorKind::TooLarge`]: a job breaks a limit; names it and the value.
    /// - [`ErrorKind::Full`]: `max_length` is reached. Nothing was enqueued.
    /// - [`ErrorKind::Draining`]: the queue takes nothing new.
    /// - [`ErrorKind::NotFound`]: there is no such queue.
    /// - Those of [`Ledger::write`].
    pub fn enqueue_many(
        &self,
        times: Times,
        queue: QueueId,
        jobs: &[(&[u8], &EnqueueOptions)],
    ) -> Result<Outcome<Vec<Enqueued>>> {
        options::Check("queue.enqueue").bytes("job_count", jobs.len(), ENQUEUE_COUNT_MAX)?;
        for (_, options) in jobs {
            options.validate()?;
        }
        let mut inner = self.inner.lock();
        let now = inner.start(times, queue, "queue.enqueue")?;
        let new: Vec<NewJob<'_>> =
            jobs.iter().map(|(payload, options)| inner.new_job(times, queue, payload, options)).collect();
        let mut enqueued = Vec::with_capacity(jobs.len());
        let outcome = self.enqueue_jobs(&mut inner, now, queue, &new, &mut enqueued)?;
        Ok(outcome.map(|()| enqueued))
    }

    fn enqueue_jobs(
        &self,
        inner: &mut Inner,
        now: Now,
        queue: QueueId,
        new: &[NewJob<'_>],
        enqueued: &mut Vec<Enqueued>,
    ) -> Result<Outcome<()>> {
        let mut changes = Changes::new();
        changes.reserve(new.len());
        inner.queue(queue).state.enqueue(now, new, &mut changes, enqueued)?;
        let duplicates = enqueued
            .iter()
            .filter(|outcome| matches!(outcome, Enqueued::Existing(_) | Enqueued::Extended(_)));
        let duplicates = duplicates.count() as u64;
        let outcome = self.commit_changes(inner, now, queue, &changes)?;
        inner.queue_mut(queue).state.count_duplicates(duplicates);
        Ok(outcome)
    }

    /// Hands out up to `most` jobs (1 to [`RESERVE_COUNT_MAX`]) whose payloads have `bytes_max` bytes together, or one
    /// that has more; the attempt is written before the worker has them.
    ///
    /// If there is none and `waiter` is given, that number is put on the queue's list, under the same lock, and
    /// comes back in [`Outcome::wakes`] when there may be one. It then has to ask again: another may have been
    /// quicker.
    ///
    /// A job whose content cannot be read is not handed out. That is a failed attempt, as the next may find it; if the
    /// content is damaged the job is dead.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidArgument`], [`ErrorKind::TooLarge`]: the lease or the count is out of bounds.
    /// - [`ErrorKind::NotFound`]: there is no such queue.
    /// - Those of [`Ledger::write`].
    #[expect(clippy::too_many_arguments, reason = "who asks, for what, and how much of it")]
    pub fn reserve(
        &self,
        times: Times,
        queue: QueueId,
        worker: WorkerId,
        options: ReserveOptions,
        most: usize,
        bytes_max: usize,
        waiter: Option<WaiterId>,
    ) -> Result<Outcome<Vec<Job>>> {
        options.validate()?;
        let mut inner = self.inner.lock();
        let now = inner.start(times, queue, "queue.reserve")?;
        let mut changes = Changes::new();
        let given = inner.queue(queue).state.reserve(now, worker, options, most, bytes_max, &mut changes)?;
        if given == 0 {
            if let Some(waiter) = waiter {
                inner.queue_mut(queue).waiters.push_back(waiter);
            }
            return Ok(Outcome::of(Vec::new()));
        }
        let mut outcome = self.hand_out(inner, times, now, queue, &changes)?;
        if outcome.value.is_empty()
            && let Some(waiter) = waiter
        {
            // As if nothing had been found, but that there may be more: then it is woken at once.
            let mut inner = self.inner.lock();
            inner.queue_mut(queue).waiters.push_back(waiter);
            inner.wake(queue, now, &mut outcome.wakes);
        }
        Ok(outcome)
    }

    /// Acks jobs, and hands out up to `most` others as [`Queues::reserve`] does, in one write where that makes no
    /// difference: what each ack gives, as [`Queues::ack`] would, and the jobs. When jobs cannot be handed out, there
    /// are none; what was acked stays so.
    ///
    /// # Errors
    /// - [`ErrorKind::TooLarge`]: more than [`RESERVE_COUNT_MAX`] at once.
    /// - [`ErrorKind::InvalidArgument`]: the lease or the count is out of bounds.
    /// - [`ErrorKind::NotFound`]: there is no such queue.
    /// - Those of [`Ledger::write`]; nothing is acked then.
    #[expect(clippy::too_many_arguments, reason = "what is done, who asks, for what, and how much of it")]
    pub fn ack_and_reserve<'a>(
        &self,
        times: Times,
        queue: QueueId,
        acks: impl ExactSizeIterator<Item = (Token, Option<&'a [u8]>)> + Clone,
        worker: WorkerId,
        options: ReserveOptions,
        most: usize,
        bytes_max: usize,
    ) -> Result<Outcome<AckedAndReserved>> {
        options.validate()?;
        options::Check("queue.reserve").count(most)?;
        let mut inner = self.inner.lock();
        let now = inner.start(times, queue, "queue.ack")?;
        let mut changes = Changes::new();
        let state = &inner.queue(queue).state;
        let each = state.ack_many(now, acks, &mut changes)?;
        if state.can_ack_and_reserve()
            && state.reserve(now, worker, options, most, bytes_max, &mut changes)? > 0
        {
            return Ok(self.hand_out(inner, times, now, queue, &changes)?.map(|jobs| (each, jobs)));
        }
        let mut outcome = self.commit_changes(&mut inner, now, queue, &changes)?;
        drop(inner);
        let jobs = self.reserve(times, queue, worker, options, most, bytes_max, None);
        let jobs = jobs.map_or_else(|_| Vec::new(), |more| outcome.absorb(more));
        Ok(outcome.map(|()| (each, jobs)))
    }

    /// Commits changes, and makes jobs of those that reserve one.
    fn hand_out(
        &self,
        mut inner: MutexGuard<'_, Inner>,
        times: Times,
        now: Now,
        queue: QueueId,
        changes: &Changes<'_>,
    ) -> Result<Outcome<Vec<Job>>> {
        let mut outcome = self.commit_changes(&mut inner, now, queue, changes)?;
        let (mut jobs, mut unread) = (Vec::with_capacity(changes.len()), Vec::new());
        let Inner { queues, recent, .. } = &mut *inner;
        let state = &queues[queue.0 as usize].state;
        for change in changes.iter() {
            if let Change::Reserve { job: leased, .. } = change
                && let Some(delivery) = state.delivery(*leased)
            {
                let (place, content) = (delivery.place, recent.get(delivery.place));
                if content.is_none() {
                    unread.push((jobs.len(), place));
                }
                jobs.push(job(queue, now, delivery, content.unwrap_or_default()));
            }
        }
        // Whoever waits may find what this worker left.
        inner.wake(queue, now, &mut outcome.wakes);
        drop(inner);
        // From the last, so that what cannot be read goes without moving the others' places.
        for (index, place) in unread.into_iter().rev() {
            let id = jobs[index].token.job;
            let read = self.read(place).or_else(|error| match error.kind() {
                // Cleaning has just moved it.
                ErrorKind::NotFound => self.content(queue, id),
                _ => Err(error),
            });
            match read {
                Ok(content) => jobs[index].content = content,
                Err(error) => {
                    let token = jobs.remove(index).token;
                    let message = format!("its content cannot be read: {error}");
                    let nack = Nack { message: &message, ..Nack::default() };
                    let given_back = match error.kind() {
                        // It cannot be worked on, now or later; what is left of it is kept to be looked at.
                        ErrorKind::Corrupt => self.reject(times, queue, token, nack),
                        _ => self.nack(times, queue, token, nack),
                    };
                    // If that cannot be written its lease runs out; the others are handed out all the same.
                    if let Ok(part) = given_back {
                        outcome.absorb(part);
                    }
                }
            }
        }
        Ok(outcome.map(|()| jobs))
    }

    /// Takes a waiter off the list: it gave up. If it was woken already the wake goes to the next.
    pub fn leave(&self, times: Times, queue: QueueId, waiter: WaiterId) -> Result<Outcome<()>> {
        let mut inner = self.inner.lock();
        let now = inner.start(times, queue, "queue.reserve")?;
        let waiters = &mut inner.queue_mut(queue).waiters;
        let before = waiters.len();
        waiters.retain(|found| *found != waiter);
        let mut outcome = Outcome::of(());
        if waiters.len() == before {
            inner.wake(queue, now, &mut outcome.wakes);
        }
        Ok(outcome)
    }

    /// Gives a worker more time, never less than it has. How long it has the job now, and whether it is to give it back.
    ///
    /// # Errors
    /// - [`ErrorKind::LeaseLost`]: the job is not the worker's any more; nothing is changed.
    /// - [`ErrorKind::InvalidArgument`]: `lease` is out of bounds.
    /// - Those of [`Ledger::write`].
    pub fn extend(
        &self,
        times: Times,
        queue: QueueId,
        token: Token,
        lease: Option<Duration>,
    ) -> Result<Outcome<(Duration, bool)>> {
        self.change(times, queue, |state, now, changes| {
            let until = state.extend(now, token, lease, changes)?;
            Ok((until.since(now.at), state.is_cancelling(now, token)?))
        })
    }

    /// Says that a job is done. The same again, within [`ACK_REMEMBERED`], does nothing and is no error.
    ///
    /// # Errors
    /// - [`ErrorKind::LeaseLost`]: the job is not the worker's any more; nothing is changed.
    /// - [`ErrorKind::TooLarge`]: the result is over `payload_bytes_max`.
    /// - Those of [`Ledger::write`].
    pub fn ack(
        &self,
        times: Times,
        queue: QueueId,
        token: Token,
        result: Option<&[u8]>,
    ) -> Result<Outcome<()>> {
        let mut inner = self.inner.lock();
        let now = inner.start(times, queue, "queue.ack")?;
        let mut changes = Changes::new();
        inner.queue(queue).state.ack(now, token, result, &mut changes)?;
        self.commit_changes(&mut inner, now, queue, &changes)
    }

    /// Acks several in one write. What each of them gives, as [`Queues::ack`] would.
    ///
    /// # Errors
    /// - [`ErrorKind::TooLarge`]: more than [`RESERVE_COUNT_MAX`] at once.
    /// - Those of [`Ledger::write`].
    pub fn ack_many(
        &self,
        times: Times,
        queue: QueueId,
        tokens: &[Token],
    ) -> Result<Outcome<Vec<Result<()>>>> {
        self.change(times, queue, |state, now, changes| {
            state.ack_many(now, tokens.iter().map(|token| (*token, None)), changes)
        })
    }

    /// Says that an attempt failed: the job waits for the next, or is dead.
    ///
    /// # Errors
    /// - [`ErrorKind::LeaseLost`]: the job is not the worker's any more; nothing is changed.
    /// - [`ErrorKind::InvalidArgument`]: the delay is out of bounds.
    /// - Those of [`Ledger::write`].
    pub fn nack(&self, times: Times, queue: QueueId, token: Token, nack: Nack<'_>) -> Result<Outcome<()>> {
        let mut inner = self.inner.lock();
        let now = inner.start(times, queue, "queue.nack")?;
        let mut changes = Changes::new();
        inner.queue(queue).state.nack(now, token, nack, &mut changes)?;
        self.commit_changes(&mut inner, now, queue, &changes)
    }

    /// Says that no attempt can succeed: the job is dead.
    ///
    /// # Errors
    /// As for [`Queues::nack`].
    pub fn reject(&self, times: Times, queue: QueueId, token: Token, nack: Nack<'_>) -> Result<Outcome<()>> {
        let mut inner = self.inner.lock();
        let now = inner.start(times, queue, "queue.reject")?;
        let mut changes = Changes::new();
        inner.queue(queue).state.reject(now, token, nack, &mut changes)?;
        self.commit_changes(&mut inner, now, queue, &changes)
    }

    /// Gives a job back as if it had not been taken.
    ///
    /// # Errors
    /// As for [`Queues::nack`].
    pub fn release(&self, times: Times, queue: QueueId, token: Token) -> Result<Outcome<()>> {
        self.change(times, queue, |state, now, changes| state.release(now, token, changes))
    }

    /// Puts a job off; the attempt does not count.
    ///
    /// # Errors
    /// As for [`Queues::nack`].
    pub fn snooze(&self, times: Times, queue: QueueId, token: Token, delay: Duration) -> Result<Outcome<()>> {
        self.change(times, queue, |state, now, changes| state.snooze(now, token, delay, changes))
    }

    /// Notes how far a worker has come, in memory; whether it is to give the job back.
    ///
    /// # Errors
    /// - [`ErrorKind::LeaseLost`]: the job is not the worker's any more; nothing is changed.
    /// - [`ErrorKind::TooLarge`]: more than [`PROGRESS_BYTES_MAX`].
    pub fn progress(
        &self,
        times: Times,
        queue: QueueId,
        token: Token,
        progress: &[u8],
    ) -> Result<Outcome<bool>> {
        let mut inner = self.inner.lock();
        let now = inner.start(times, queue, "queue.progress")?;
        let Inner { queues, effects, .. } = &mut *inner;
        let found = &mut queues[queue.0 as usize];
        let job = found.state.progress(now, token, progress)?;
        let cancelling = found.state.is_cancelling(now, token)?;
        found.state.note_progress(job, progress, effects);
        let mut outcome = Outcome::of(cancelling);
        collect(queue, found, effects, &mut outcome);
        Ok(outcome)
    }

    /// Cancels a job: at once if it waits; by asking its worker, and after `cancel_grace` without, if it is leased.
    ///
    /// # Errors
    /// - [`ErrorKind::NotFound`]: there is no such job.
    /// - Those of [`Ledger::write`].
    pub fn cancel(&self, times: Times, queue: QueueId, job: JobId, why: &str) -> Result<Outcome<Cancelled>> {
        let mut inner = self.inner.lock();
        let now = inner.start(times, queue, "queue.cancel")?;
        let mut changes = Changes::new();
        let cancelled = inner.queue(queue).state.cancel(now, job, why, &mut changes)?;
        Ok(self.commit_changes(&mut inner, now, queue, &changes)?.map(|()| cancelled))
    }

    /// Makes these finished jobs ready again, as if they were new.
    ///
    /// # Errors
    /// - [`ErrorKind::NotFound`], [`ErrorKind::InvalidArgument`]: one is not there, or not finished. Nothing is changed.
    /// - Those of [`Ledger::write`].
    pub fn redrive(&self, times: Times, queue: QueueId, jobs: &[JobId]) -> Result<Outcome<()>> {
        self.change(times, queue, |state, now, changes| state.redrive(now, jobs, changes))
    }

    /// Makes the dead jobs that have been so longest ready again, up to `most` (at most 1000 in one call); how many.
    ///
    /// # Errors
    /// Those of [`Ledger::write`].
    pub fn redrive_dead(&self, times: Times, queue: QueueId, most: usize) -> Result<Outcome<usize>> {
        self.change_divided(times, queue, |state, now, changes| {
            Ok(state.redrive_dead(now, most.min(SLICE), changes))
        })
    }

    /// Makes `count` dead jobs ready again, evenly at `rate`; [`Queues::tick`] does it. A count of 0 ends it.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidArgument`]: the rate is out of bounds.
    /// - Those of [`Ledger::write`].
    pub fn redrive_at(&self, times: Times, queue: QueueId, count: u64, rate: Rate) -> Result<Outcome<()>> {
        self.change(times, queue, |state, _, changes| state.redrive_at(count, rate, changes))
    }

    /// Removes jobs in `state`, up to 1000 in one call; how many. Call it until it gives 0.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidArgument`]: leased jobs are cancelled, not purged.
    /// - Those of [`Ledger::write`].
    pub fn purge(&self, times: Times, queue: QueueId, state: JobState) -> Result<Outcome<usize>> {
        self.change_divided(times, queue, |found, now, changes| found.purge(now, state, SLICE, changes))
    }

    /// Removes one job.
    ///
    /// # Errors
    /// - [`ErrorKind::NotFound`]: there is no such job.
    /// - [`ErrorKind::InvalidArgument`]: it is leased: cancel it.
    /// - Those of [`Ledger::write`].
    pub fn remove(&self, times: Times, queue: QueueId, job: JobId) -> Result<Outcome<()>> {
        self.change(times, queue, |state, now, changes| state.forget(now, job, changes))
    }

    /// Hands out nothing until [`Queues::resume`]; leases go on.
    ///
    /// # Errors
    /// Those of [`Ledger::write`].
    pub fn pause(&self, times: Times, queue: QueueId) -> Result<Outcome<()>> {
        self.change(times, queue, |state, _, changes| {
            let (_, draining) = state.is_paused();
            state.mode(true, draining, changes);
            Ok(())
        })
    }

    /// Ends pausing and draining.
    ///
    /// # Errors
    /// Those of [`Ledger::write`].
    pub fn resume(&self, times: Times, queue: QueueId) -> Result<Outcome<()>> {
        self.change(times, queue, |state, _, changes| {
            state.mode(false, false, changes);
            Ok(())
        })
    }

    /// Takes nothing new until [`Queues::resume`]; what is there is worked on. Whether there is nothing left.
    ///
    /// # Errors
    /// Those of [`Ledger::write`].
    pub fn drain(&self, times: Times, queue: QueueId) -> Result<Outcome<bool>> {
        self.change(times, queue, |state, _, changes| {
            let (paused, _) = state.is_paused();
            state.mode(paused, true, changes);
            Ok(state.is_idle())
        })
    }

    /// Puts a schedule in the place of the one of its name, if there is one.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidArgument`], [`ErrorKind::TooLarge`]: names what is not valid, in an expression the column.
    /// - Those of [`Ledger::write`].
    pub fn schedule(&self, times: Times, queue: QueueId, schedule: &Schedule) -> Result<Outcome<()>> {
        schedule.validate()?;
        let mut inner = self.inner.lock();
        let now = inner.start(times, queue, "queue.schedule")?;
        let most = inner.queue(queue).state.config().payload_bytes_max as usize;
        options::Check("queue.schedule").bytes("payload_bytes", schedule.payload.len(), most)?;
        let mut changes = Changes::new();
        inner.queue(queue).state.schedule(now, schedule, &mut changes)?;
        self.commit_changes(&mut inner, now, queue, &changes)
    }

    /// Removes a schedule; jobs that it enqueued stay.
    ///
    /// # Errors
    /// - [`ErrorKind::NotFound`]: there is none of this name.
    /// - Those of [`Ledger::write`].
    pub fn unschedule(&self, times: Times, queue: QueueId, name: &str) -> Result<Outcome<()>> {
        let mut inner = self.inner.lock();
        let now = inner.start(times, queue, "queue.unschedule")?;
        let mut changes = Changes::new();
        inner.queue(queue).state.unschedule(name, &mut changes)?;
        self.commit_changes(&mut inner, now, queue, &changes)
    }

    /// The schedules of a queue, and when each fires next.
    ///
    /// # Errors
    /// - [`ErrorKind::NotFound`]: there is no such queue.
    pub fn schedules(&self, queue: QueueId) -> Result<Vec<(Schedule, crate::clock::Timestamp)>> {
        let inner = self.inner.lock();
        inner.check(queue, "queue.schedules")?;
        Ok(inner.queue(queue).state.schedules().map(|(schedule, next)| (schedule.clone(), next)).collect())
    }

    /// Jobs in `state`, as [`QueueState::list`] orders them.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidArgument`]: `most` is not 1 to 1000.
    /// - [`ErrorKind::NotFound`]: there is no such queue.
    pub fn list(
        &self,
        times: Times,
        queue: QueueId,
        state: JobState,
        cursor: Option<Cursor>,
        most: usize,
    ) -> Result<Listed> {
        let mut inner = self.inner.lock();
        let now = inner.start(times, queue, "queue.list")?;
        inner.queue(queue).state.list(now, state, cursor, most)
    }

    /// One job.
    ///
    /// # Errors
    /// - [`ErrorKind::NotFound`]: there is no such queue or job.
    pub fn info(&self, times: Times, queue: QueueId, job: JobId) -> Result<JobInfo> {
        let mut inner = self.inner.lock();
        let now = inner.start(times, queue, "queue.get")?;
        inner.queue(queue).state.info(now, job)
    }

    /// Content type, headers and payload of a job, read back.
    ///
    /// # Errors
    /// - [`ErrorKind::NotFound`]: there is no such queue or job, or it has just gone.
    /// - Those of [`Ledger::read`].
    pub fn content(&self, queue: QueueId, job: JobId) -> Result<Content> {
        let place = || {
            let inner = self.inner.lock();
            inner.check(queue, "queue.content")?;
            Ok(Some(inner.queue(queue).state.places_of(job)?.0))
        };
        let content = self.read_where_it_is(place)?;
        content.ok_or_else(|| Error::new(ErrorKind::Internal, "queue.content").with("job", job))
    }

    /// What lies where `place` says. Cleaning may move it between the question and the read: then it is asked again.
    fn read_where_it_is(&self, place: impl Fn() -> Result<Option<Place>>) -> Result<Option<Content>> {
        let mut asked = place()?;
        while let Some(there) = asked {
            match self.read(there) {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    asked = place()?;
                    if asked == Some(there) {
                        return Err(error);
                    }
                }
                read => return read.map(Some),
            }
        }
        Ok(None)
    }

    /// What a job was acked with, if it was acked with something and that is still kept.
    ///
    /// # Errors
    /// As for [`Queues::content`].
    pub fn result(&self, queue: QueueId, job: JobId) -> Result<Option<Content>> {
        self.read_where_it_is(|| {
            let inner = self.inner.lock();
            inner.check(queue, "queue.result")?;
            Ok(inner.queue(queue).state.places_of(job)?.1)
        })
    }

    /// Numbers of a queue.
    ///
    /// # Errors
    /// - [`ErrorKind::NotFound`]: there is no such queue.
    pub fn stats(&self, times: Times, queue: QueueId) -> Result<QueueStats> {
        let mut inner = self.inner.lock();
        let now = inner.start(times, queue, "queue.stats")?;
        Ok(inner.queue(queue).state.stats(now))
    }

    /// Ends all leases of a worker whose process has ended.
    ///
    /// # Errors
    /// Those of [`Ledger::write`], if nothing was done before; those that are left end in their time.
    pub fn worker_gone(&self, times: Times, worker: WorkerId) -> Result<Outcome<()>> {
        let mut outcome = Outcome::of(());
        let mut failed = None;
        for queue in self.ids() {
            loop {
                let part = self.change_divided(times, queue, |state, now, changes| {
                    Ok(state.worker_gone(now, worker, SLICE, changes))
                });
                match part {
                    Ok(part) => {
                        if outcome.absorb(part) == 0 {
                            break;
                        }
                    }
                    // What one queue cannot do is no reason for the others.
                    Err(error) => {
                        failed = failed.or(Some(error));
                        break;
                    }
                }
            }
        }
        match failed {
            // What was done is not to be forgotten: who was taken off a list is woken by nobody else.
            Some(error) if outcome.lsn == Lsn::NONE => Err(error),
            _ => Ok(outcome),
        }
    }

    /// Does what time makes necessary. When to call again at the latest, on the boot-time clock: at once if there
    /// was more to do than is done in one call.
    ///
    /// # Errors
    /// Those of [`Ledger::write`], of the first queue that failed; the others are done all the same. If there is something
    /// to be done after what was written, that is given, and the error the next time.
    pub fn tick(&self, times: Times) -> Result<Outcome<Option<Moment>>> {
        let mut outcome = Outcome::of(None);
        let mut next: Option<Moment> = None;
        let mut failed = None;
        // What others do meanwhile is noted from here on.
        self.inner.lock().due = Moment::NEVER;
        for queue in self.ids() {
            match self.tick_one(times, queue, &mut outcome) {
                Ok(due) => next = [next, due].into_iter().flatten().min(),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        let mut inner = self.inner.lock();
        if let Some(error) = failed {
            // Who was taken off a list is woken by nobody else.
            if !outcome.is_to_be_followed() {
                inner.due = inner.due.min(next.unwrap_or(Moment::NEVER));
                return Err(error);
            }
            next = Some(times.boot);
        }
        inner.due = inner.due.min(next.unwrap_or(Moment::NEVER));
        outcome.value = (inner.due != Moment::NEVER).then_some(inner.due);
        outcome.due = None;
        Ok(outcome)
    }

    /// Does what time makes necessary in one queue; when that is so again.
    fn tick_one<T>(&self, times: Times, queue: QueueId, outcome: &mut Outcome<T>) -> Result<Option<Moment>> {
        let mut inner = self.inner.lock();
        let now = inner.start(times, queue, "queue.tick")?;
        let mut changes = Changes::new();
        inner.queue(queue).state.tick(now, SLICE, &mut changes);
        let part = self.commit_divided(&mut inner, now, queue, &changes)?;
        outcome.absorb(part);
        let fired = self.fire(&mut inner, now, queue)?;
        outcome.absorb(fired);
        inner.wake(queue, now, &mut outcome.wakes);
        Ok(inner.queue(queue).state.next_due(now).map(|due| inner.line.boot_of(due)))
    }

    /// Fires one schedule whose time has come; each time in a write of its own.
    fn fire(&self, inner: &mut Inner, now: Now, queue: QueueId) -> Result<Outcome<()>> {
        let mut outcome = Outcome::of(());
        let Some((name, ticks)) = inner.queue(queue).state.due_schedule(now) else { return Ok(outcome) };
        for tick in ticks {
            let state = &inner.queue(queue).state;
            let Some(schedule) = state.schedule_named(&name).cloned() else { break };
            let options = schedule.options_for(tick.at);
            let head = entry::encode_head(&options).into();
            let body = Body { head, payload: &schedule.payload };
            let new = NewJob { id: schedule.job_id(tick.at), options: &options, body };
            let mut changes = Changes::new();
            state.fire(now, &name, tick, &new, &mut changes);
            let all: Vec<(QueueId, &Change<'_>)> = changes.iter().map(|change| (queue, change)).collect();
            let part = self.commit(inner, now, &all)?;
            outcome.absorb(part);
        }
        Ok(outcome)
    }

    /// Plans and commits in one go.
    fn change<T>(
        &self,
        times: Times,
        queue: QueueId,
        plan: impl FnOnce(&QueueState, Now, &mut Changes<'_>) -> Result<T>,
    ) -> Result<Outcome<T>> {
        let mut inner = self.inner.lock();
        let now = inner.start(times, queue, "queue.change")?;
        let mut changes = Changes::new();
        let value = plan(&inner.queue(queue).state, now, &mut changes)?;
        Ok(self.commit_changes(&mut inner, now, queue, &changes)?.map(|()| value))
    }

    /// As [`Queues::change`], for changes that need not be made together, one a job: in several writes where one cannot
    /// hold them. How many were made.
    fn change_divided(
        &self,
        times: Times,
        queue: QueueId,
        plan: impl FnOnce(&QueueState, Now, &mut Changes<'_>) -> Result<usize>,
    ) -> Result<Outcome<usize>> {
        let mut inner = self.inner.lock();
        let now = inner.start(times, queue, "queue.change")?;
        let mut changes = Changes::new();
        let planned = plan(&inner.queue(queue).state, now, &mut changes)?;
        debug_assert_eq!(planned, changes.len(), "one change a job");
        self.commit_divided(&mut inner, now, queue, &changes)
    }

    /// How many of `changes` were written; see [`Queues::commit_parts`].
    fn commit_divided(
        &self,
        inner: &mut Inner,
        now: Now,
        queue: QueueId,
        changes: &Changes<'_>,
    ) -> Result<Outcome<usize>> {
        let durability = inner.queue(queue).state.config().durability;
        let all: Vec<&Change<'_>> = changes.iter().collect();
        let outcome = self.commit_parts(inner, now, queue, &all)?;
        Ok(Outcome { durability, ..outcome })
    }

    /// Writes changes that stand alone in as many writes as they need, and returns how many were written. An error is
    /// given when none was; what was not written is found again by the caller that planned it.
    fn commit_parts(
        &self,
        inner: &mut Inner,
        now: Now,
        queue: QueueId,
        changes: &[&Change<'_>],
    ) -> Result<Outcome<usize>> {
        let mut outcome = Outcome::of(0);
        let mut rest = changes;
        // How many go into one write: the ledger says when they are too many.
        let mut most = changes.len();
        while !rest.is_empty() {
            let (part, others) =
                rest.split_at(self.letters_that_fit(inner, queue, &rest[..most.min(rest.len())]));
            let moves = inner.queue(queue).state.config().dead_letter_to.is_some();
            let written = if moves && part.iter().any(|change| QueueState::becomes_dead(change).is_some()) {
                self.commit_moving(inner, now, queue, part)
            } else {
                self.commit_here(inner, now, queue, part)
            };
            let written = match written {
                Err(error) if error.kind() == ErrorKind::TooLarge && part.len() > 1 => {
                    most = part.len() / 2;
                    continue;
                }
                // A letter that no segment can hold stays dead where it is.
                Err(error) if error.kind() == ErrorKind::TooLarge && moves => {
                    self.commit_here(inner, now, queue, part)
                }
                written => written,
            };
            match written {
                Ok(written) => {
                    outcome.absorb(written);
                    outcome.value += part.len();
                }
                Err(error) if outcome.lsn == Lsn::NONE => return Err(error),
                Err(_) => break,
            }
            rest = others;
            most = most.saturating_mul(2);
        }
        Ok(outcome)
    }

    /// How many of `changes`, at least one, are moved in one write: what they carry is read first, and is to stay small.
    fn letters_that_fit(&self, inner: &Inner, queue: QueueId, changes: &[&Change<'_>]) -> usize {
        let state = &inner.queue(queue).state;
        if state.config().dead_letter_to.is_none() {
            return changes.len();
        }
        let mut bytes = 0u64;
        for (index, change) in changes.iter().enumerate() {
            let letter = QueueState::becomes_dead(change).and_then(|job| state.letter(job, change));
            bytes += letter.map_or(0, |letter| u64::from(letter.0.bytes_max()));
            if bytes > LETTERS_BYTES && index > 0 {
                return index;
            }
        }
        changes.len()
    }

    fn commit_here(
        &self,
        inner: &mut Inner,
        now: Now,
        queue: QueueId,
        changes: &[&Change<'_>],
    ) -> Result<Outcome<()>> {
        let all: Vec<(QueueId, &Change<'_>)> = changes.iter().map(|change| (queue, *change)).collect();
        self.commit(inner, now, &all)
    }

    fn commit_changes(
        &self,
        inner: &mut Inner,
        now: Now,
        queue: QueueId,
        changes: &Changes<'_>,
    ) -> Result<Outcome<()>> {
        let durability = inner.queue(queue).state.config().durability;
        let moves = inner.queue(queue).state.config().dead_letter_to.is_some();
        let outcome = match changes.len() {
            0 => Ok(Outcome::of(())),
            1 if !moves => {
                let one = changes.iter().next().expect("there is one");
                self.commit(inner, now, &[(queue, one)])
            }
            _ if moves && changes.iter().any(|change| QueueState::becomes_dead(change).is_some()) => {
                return Ok(self.commit_divided(inner, now, queue, changes)?.map(drop));
            }
            _ => {
                let all: Vec<(QueueId, &Change<'_>)> = changes.iter().map(|change| (queue, change)).collect();
                self.commit(inner, now, &all)
            }
        };
        outcome.map(|outcome| Outcome { durability, ..outcome })
    }

    /// Writes changes, and applies them: all of them or, with an error, none.
    fn commit(&self, inner: &mut Inner, now: Now, all: &[(QueueId, &Change<'_>)]) -> Result<Outcome<()>> {
        let Inner { queues, line, batch, effects, recent, due: told, .. } = inner;
        batch.clear();
        batch.set_time(now.wall);
        let clock = usize::from(line.wants_writing(now));
        if clock > 0 {
            batch.push(fold::CLOCK_OWNER, entry::CLOCK, &[&entry::encode_clock(now.at, now.wall)]);
        }
        for (queue, change) in all {
            let owner = queues[queue.0 as usize].owner;
            batch.push_written(owner, |bytes| {
                let encoded = entry::encode(change, bytes);
                (encoded.kind, encoded.kept)
            });
        }
        let written = self.ledger.write(batch)?;
        if clock > 0 {
            line.was_written(now);
        }
        inner.last = written.lsn;
        let mut outcome = Outcome::of(());
        outcome.lsn = written.lsn;
        let mut wake = false;
        for (index, (queue, change)) in all.iter().enumerate() {
            let place = written.place(batch, clock + index);
            let found = &mut queues[queue.0 as usize];
            found.state.apply(written.lsn, place, change, effects).map_err(|error| {
                Error::new(ErrorKind::Internal, "queue.commit").with("queue", &found.name).because(error)
            })?;
            if let Change::Enqueue(new) = change {
                recent.put(place, &new.body);
            }
            wake |= effects.wake;
            collect(*queue, found, effects, &mut outcome);
            // Of a run of changes the last tells when time changes something next.
            if all.get(index + 1).is_none_or(|(next, _)| next != queue) {
                let due = found.state.next_due(now).map_or(Moment::NEVER, |due| line.boot_of(due));
                if due < *told {
                    *told = due;
                    outcome.due = Some(due);
                }
            }
        }
        self.ledger.release_all(effects.freed.drain(..));
        if wake {
            // Several queues at once are rare; whoever has no work finds nobody to wake.
            for (index, (queue, _)) in all.iter().enumerate() {
                if index == 0 || all[index - 1].0 != *queue {
                    inner.wake(*queue, now, &mut outcome.wakes);
                }
            }
        }
        Ok(outcome)
    }

    /// As [`Queues::commit`]; jobs that become dead move to the queue that was named for them, if it takes them.
    fn commit_moving(
        &self,
        inner: &mut Inner,
        now: Now,
        queue: QueueId,
        changes: &[&Change<'_>],
    ) -> Result<Outcome<()>> {
        let from = inner.queue(queue);
        let target = from.state.config().dead_letter_to.as_ref();
        let target = target.and_then(|name| inner.names.get(name.as_str()).copied());
        let Some(target) = target else {
            return self.commit_here(inner, now, queue, changes);
        };
        // What is to be written is gathered first: it must outlive the changes that refer to it.
        let mut letters: Vec<Option<Letter>> = Vec::new();
        for change in changes {
            let letter = QueueState::becomes_dead(change).and_then(|job| {
                let letter = from.state.letter(job, change)?;
                let content = self.read(letter.0).ok()?;
                let mut head = content.head().to_vec();
                if head.is_empty() {
                    head.push(0);
                }
                entry::push_header(&mut head, DEAD_FROM, &from.name);
                Some(Letter { job, head, content, options: letter.1, failures: letter.2 })
            });
            letters.push(letter);
        }
        let mut moved: Vec<(QueueId, Cow<'_, Change<'_>>)> = Vec::new();
        let mut seq = 0;
        for (change, letter) in changes.iter().zip(&letters) {
            let enqueue = letter.as_ref().and_then(|letter| {
                let body = Body { head: Cow::Borrowed(&letter.head), payload: letter.content.payload() };
                let id = letter.job.id;
                let new = NewJob { id, options: &letter.options, body };
                let mut planned = Changes::new();
                inner.queue(target).state.letter_in(now, &new, seq, &letter.failures, &mut planned).ok()?;
                planned.into_first()
            });
            match (enqueue, letter) {
                (Some(enqueue), Some(letter)) => {
                    seq += 1;
                    let forget = Change::Forget { job: letter.job, at: now.at, moved: true };
                    moved.push((queue, Cow::Owned(forget)));
                    moved.push((target, Cow::Owned(enqueue)));
                }
                // Full, drained, or one of that id is there: it is dead where it is.
                _ => moved.push((queue, Cow::Borrowed(change))),
            }
        }
        let all: Vec<(QueueId, &Change<'_>)> =
            moved.iter().map(|(queue, change)| (*queue, &**change)).collect();
        self.commit(inner, now, &all)
    }

    fn read(&self, place: Place) -> Result<Content> {
        let mut bytes = Vec::new();
        self.ledger.read(place, &mut bytes)?;
        Content::read(&bytes)
    }

    /// Adds the next part of all queues to a checkpoint; whether that was the last.
    ///
    /// # Errors
    /// Those of [`Checkpoint::image`].
    pub fn image(&self, times: Times, imaging: &mut Imaging, to: &mut Checkpoint) -> Result<bool> {
        let mut inner = self.inner.lock();
        let now = inner.line.now(times);
        let lsn = inner.last;
        let mut bytes = std::mem::take(&mut imaging.bytes);
        bytes.clear();
        if !imaging.begun {
            entry::encode_image_of_clock(now.at, now.wall, &mut bytes);
            to.image(fold::CLOCK_OWNER, lsn, &bytes)?;
            imaging.begun = true;
            bytes.clear();
        }
        let Some(queue) = inner.queues.get(imaging.queue) else { return Ok(true) };
        if imaging.slot == 0 {
            entry::encode_image_of_settings(&queue.name, queue.state.config(), &mut bytes);
            to.image(queue.owner, lsn, &bytes)?;
            bytes.clear();
        }
        let end = queue.state.slot_count();
        let until = end.min(imaging.slot.saturating_add(IMAGE_SLOTS));
        entry::begin_image_of_jobs(&mut bytes);
        while imaging.slot < until && bytes.len() < IMAGE_BYTES {
            if let Some(image) = queue.state.image(imaging.slot) {
                entry::encode_image_of_job(&image, &mut bytes);
            }
            imaging.slot += 1;
        }
        to.image(queue.owner, lsn, &bytes)?;
        if imaging.slot >= end {
            // Last, so that every lease given after it is one of a job that is there.
            bytes.clear();
            entry::encode_image_of_queue(&queue.state.image_of_queue(), &mut bytes);
            to.image(queue.owner, lsn, &bytes)?;
            imaging.queue += 1;
            imaging.slot = 0;
        }
        imaging.bytes = bytes;
        Ok(imaging.queue >= inner.queues.len())
    }

    /// Writes content again whose segment is to go, if a job still refers to it there; whether it did.
    ///
    /// # Errors
    /// - [`ErrorKind::Corrupt`]: the entry makes no sense.
    /// - Those of [`Ledger::write`].
    pub fn rewrite(&self, times: Times, place: Place, entry: Entry<'_>) -> Result<Outcome<bool>> {
        let mut inner = self.inner.lock();
        let now = inner.line.now(times);
        let index = inner.queues.iter().position(|queue| queue.owner == entry.owner);
        let Some(index) = index else { return Ok(Outcome::of(false)) };
        let queue = QueueId(index as u32);
        let change = entry::decode(entry.kind, entry.bytes)?;
        let (id, body) = match &change {
            Change::Enqueue(new) => (new.id, new.body.clone()),
            Change::Content { id, body } => (*id, body.clone()),
            Change::Done { job, result: Some(result), .. } => {
                (job.id, Body { payload: result, ..Body::default() })
            }
            Change::Result { id, result } => (*id, Body { payload: result, ..Body::default() }),
            _ => return Ok(Outcome::of(false)),
        };
        let again = match inner.queue(queue).state.places_of(id) {
            Ok((content, _)) if content == place => Change::Content { id, body },
            Ok((_, Some(result))) if result == place => Change::Result { id, result: body.payload },
            _ => return Ok(Outcome::of(false)),
        };
        Ok(self.commit(&mut inner, now, &[(queue, &again)])?.map(|()| true))
    }
}

/// How far a checkpoint has come.
#[derive(Debug, Default)]
pub struct Imaging {
    begun: bool,
    queue: usize,
    slot: u32,
    bytes: Vec<u8>,
}

/// A dead job on its way to another queue.
struct Letter {
    job: Target,
    head: Vec<u8>,
    content: Content,
    options: EnqueueOptions,
    failures: Vec<Failure>,
}

impl Inner {
    fn queue(&self, id: QueueId) -> &Queue {
        &self.queues[id.0 as usize]
    }

    fn queue_mut(&mut self, id: QueueId) -> &mut Queue {
        &mut self.queues[id.0 as usize]
    }

    fn check(&self, id: QueueId, operation: &'static str) -> Result<()> {
        if id.0 as usize >= self.queues.len() {
            return Err(Error::new(ErrorKind::NotFound, operation).with("queue", id.0));
        }
        Ok(())
    }

    /// Looks at the clocks, and lets a queue do what time alone does.
    fn start(&mut self, times: Times, queue: QueueId, operation: &'static str) -> Result<Now> {
        self.check(queue, operation)?;
        let now = self.line.now(times);
        let Self { queues, effects, .. } = self;
        queues[queue.0 as usize].state.advance(now, effects);
        effects.wake = false;
        Ok(now)
    }

    fn new_job<'a>(
        &mut self,
        times: Times,
        queue: QueueId,
        payload: &'a [u8],
        options: &'a EnqueueOptions,
    ) -> NewJob<'a> {
        let id = options.id.unwrap_or_else(|| {
            // A caller may have chosen the same.
            loop {
                let id = self.ids.next(times.wall);
                if !self.queue(queue).state.has(id) {
                    break id;
                }
            }
        });
        NewJob { id, options, body: Body { head: entry::encode_head(options).into(), payload } }
    }

    /// As many of those who wait for a queue as may find something.
    fn wake(&mut self, queue: QueueId, now: Now, wakes: &mut Vec<WaiterId>) {
        let found = self.queue_mut(queue);
        if !found.waiters.is_empty() {
            let count = found.state.available(now).min(found.waiters.len());
            wakes.extend(found.waiters.drain(..count));
        }
    }
}

/// Hands on what was left to be done.
fn collect<T>(queue: QueueId, found: &Queue, effects: &mut Effects, outcome: &mut Outcome<T>) {
    effects.wake = false;
    if !effects.asked.is_empty() {
        outcome.asked.extend(effects.asked.drain(..).map(|(worker, token)| (queue, worker, token)));
    }
    if !effects.events.is_empty() {
        let named = |event| QueueEvent { queue: Arc::clone(&found.name), event };
        outcome.events.extend(effects.events.drain(..).map(named));
    }
}

fn job(queue: QueueId, now: Now, delivery: Delivery, content: Content) -> Job {
    let Delivery { token, max_attempts, priority, redrives, group, until, deadline, .. } = delivery;
    let deadline = (deadline != Moment::NEVER).then(|| deadline.since(now.at));
    let lease = until.since(now.at);
    Job { queue, token, max_attempts, priority, redrives, group, lease, deadline, content }
}

fn check_config(name: &Name, config: &QueueConfig, operation: &'static str) -> Result<()> {
    config.validate()?;
    if config.dead_letter_to.as_ref() == Some(name) {
        return Err(options::Check(operation).refuse("dead_letter_to", name, "another queue"));
    }
    Ok(())
}

/// The header that says which queue a dead job comes from.
pub const DEAD_FROM: &str = "flowmesh-dead-from";
/// Changes planned in one go.
const SLICE: usize = 1000;

/// How much of dead jobs is read and written again in one go, unless one alone has more.
const LETTERS_BYTES: u64 = 4 << 20;
/// Slots that one part of a checkpoint looks at; the lock is held meanwhile.
const IMAGE_SLOTS: u32 = 8192;
/// Bytes of images in one part of a checkpoint, about.
const IMAGE_BYTES: usize = 1 << 20;
