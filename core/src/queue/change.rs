//! What can happen to a queue, as plain data: planned, written, applied; and read back, applied again.
#![forbid(unsafe_code)]

use super::{
    cron::Schedule,
    job::{Failure, JobId, WorkerId},
    options::{Backoff, QueueConfig, Scope},
    slab::NONE,
};
use crate::clock::{Moment, Timestamp};
use std::{borrow::Cow, time::Duration};

/// The time, twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// The mesh's own time line, in nanoseconds: it runs with the boot-time clock, goes on where it stood when the
    /// mesh is opened again, and never goes back. Everything but a given time of day is reckoned on it.
    pub at: Moment,
    /// The wall clock, which may jump.
    pub wall: Timestamp,
}

/// A job, and where it was found a moment ago.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The job.
    pub id: JobId,
    /// A guess at its slot; [`NONE`] in what was read back.
    pub(super) slot: u32,
}

impl Target {
    /// A job to be found by its id alone.
    pub fn of(id: JobId) -> Self {
        Self { id, slot: NONE }
    }
}

impl PartialEq for Target {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

/// One change of one queue. What is large and rare is boxed: a batch of jobs moves many of these about.
#[derive(Clone, Debug, PartialEq)]
pub enum Change<'a> {
    /// The queue is there, with these settings.
    Declare {
        /// Its name.
        name: Cow<'a, str>,
        /// Its settings.
        config: Box<QueueConfig>,
        /// What makes its tokens its own: so that an ack is known again after a restart.
        secret: u64,
    },
    /// A job is there.
    Enqueue(New<'a>),
    /// The same job's content is written again, further on.
    Content {
        /// The job.
        id: JobId,
        /// What it was enqueued with.
        body: Body<'a>,
    },
    /// The same job's result is written again, further on.
    Result {
        /// The job.
        id: JobId,
        /// What came of it.
        result: &'a [u8],
    },
    /// A worker has it.
    Reserve {
        /// The job.
        job: Target,
        /// The lease.
        nonce: u64,
        /// Who has it.
        worker: WorkerId,
        /// Since when.
        at: Moment,
        /// Until when.
        until: Moment,
        /// Until when at the latest, however often it is extended.
        deadline: Moment,
    },
    /// The worker has it longer.
    Extend {
        /// The job.
        job: Target,
        /// Until when.
        until: Moment,
    },
    /// It is done.
    Done {
        /// The job.
        job: Target,
        /// The lease that did it.
        nonce: u64,
        /// When.
        at: Moment,
        /// Until when it is kept; not at all if that is `at`.
        keep: Moment,
        /// What came of it.
        result: Option<&'a [u8]>,
    },
    /// The worker has it no more, and it is not done.
    Return {
        /// The job.
        job: Target,
        /// When.
        at: Moment,
        /// Why.
        cause: Cause,
        /// What becomes of it.
        to: Fate,
        /// Whether the attempt counts.
        counted: bool,
        /// What went wrong.
        failure: Option<FailureRef<'a>>,
    },
    /// Its worker is to give it back.
    Ask {
        /// The job.
        job: Target,
        /// When the lease is taken otherwise.
        by: Moment,
        /// Why, if that was said.
        failure: Option<FailureRef<'a>>,
    },
    /// It waits no more: cancelled or expired.
    End {
        /// The job.
        job: Target,
        /// When.
        at: Moment,
        /// Until when it is kept; not at all if that is `at`.
        keep: Moment,
        /// Whether it expired; it was cancelled otherwise.
        expired: bool,
        /// Why.
        failure: Option<FailureRef<'a>>,
    },
    /// It waits anew.
    Reschedule {
        /// The job.
        job: Target,
        /// When.
        at: Moment,
        /// How long.
        start: Start,
    },
    /// It was finished and is ready again.
    Redrive {
        /// The job.
        job: Target,
        /// When.
        at: Moment,
        /// Whether it is one of those that a rate was asked for.
        paced: bool,
    },
    /// It is gone.
    Forget {
        /// The job.
        job: Target,
        /// When.
        at: Moment,
        /// Whether it went to another queue.
        moved: bool,
    },
    /// What the queue does as a whole.
    Mode {
        /// It hands out nothing.
        paused: bool,
        /// It takes nothing new.
        draining: bool,
    },
    /// So many dead jobs are to be redriven, one each interval.
    Redriving {
        /// How many; 0 ends it.
        count: u64,
        /// How long between two.
        interval: Duration,
    },
    /// A schedule is there.
    Schedule {
        /// What it is.
        schedule: Box<Schedule>,
        /// When it fires next.
        next: Timestamp,
    },
    /// A schedule is gone.
    Unschedule {
        /// Its name.
        name: Cow<'a, str>,
    },
    /// A schedule has fired, or let its time pass.
    Fired {
        /// Its name.
        name: Cow<'a, str>,
        /// The time it fired for.
        tick: Timestamp,
        /// When it fires next.
        next: Timestamp,
        /// The job it enqueued, if it did.
        job: Option<JobId>,
    },
}

const _: () = assert!(size_of::<Change<'_>>() <= 144);

/// A new job.
#[derive(Clone, Debug, PartialEq)]
pub struct New<'a> {
    /// Its id.
    pub id: JobId,
    /// When it was enqueued.
    pub at: Moment,
    /// Its number in the order of enqueueing.
    pub seq: u64,
    /// 0 to 255.
    pub priority: u8,
    /// When it may begin.
    pub start: Start,
    /// Whether it waits until the job that has its unique key is finished.
    pub held: bool,
    /// What most jobs do not have.
    pub extra: Option<Box<Extra<'a>>>,
    /// Content type, headers and payload.
    pub body: Body<'a>,
}

/// What most jobs do not have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extra<'a> {
    /// Its group.
    pub group: Option<Cow<'a, str>>,
    /// Its unique key, and how long it has it.
    pub unique: Option<(Cow<'a, str>, Scope)>,
    /// When it expires.
    pub expires: Option<Moment>,
    /// What it says for itself.
    pub own: Own,
    /// What went wrong in the queue it comes from.
    pub failures: Vec<FailureRef<'a>>,
}

/// Where a job differs from its queue.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Own {
    /// Attempts it may have.
    pub max_attempts: Option<u16>,
    /// How long after a failed attempt.
    pub backoff: Option<Backoff>,
    /// How long a worker has it.
    pub lease: Option<Duration>,
    /// How long one attempt may take.
    pub deadline: Option<Duration>,
    /// How long its result is kept.
    pub result_ttl: Option<Duration>,
}

impl Own {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// When a job may begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// At once.
    #[default]
    Now,
    /// On the mesh's time line.
    After(Moment),
    /// On the wall clock; and where that lay on the mesh's time line when it was planned, for its place among others.
    At(Timestamp, Moment),
}

/// What becomes of a job that a worker has no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is ready.
    Ready,
    /// It waits; this is no failure.
    Scheduled(Moment),
    /// It waits for its next attempt.
    Retry(Moment),
    /// It is dead, and kept so long.
    Dead(Moment),
    /// It is cancelled, and kept so long.
    Cancelled(Moment),
}

/// Why a worker has a job no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Cause {
    /// It said that the attempt failed.
    Nacked = 0,
    /// The lease ran out.
    LeaseExpired = 1,
    /// Its process ended.
    WorkerGone = 2,
    /// It gave the job back.
    Released = 3,
    /// It put the job off.
    Snoozed = 4,
    /// It said that no attempt can succeed.
    Rejected = 5,
    /// The job was cancelled.
    Cancelled = 6,
    /// The host was restarted.
    Restarted = 7,
}

impl Cause {
    /// Every cause, by number.
    pub const ALL: [Self; 8] = [
        Self::Nacked,
        Self::LeaseExpired,
        Self::WorkerGone,
        Self::Released,
        Self::Snoozed,
        Self::Rejected,
        Self::Cancelled,
        Self::Restarted,
    ];
}

/// [`Failure`](super::Failure), borrowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FailureRef<'a> {
    /// Which attempt; 0 when there was none.
    pub attempt: u16,
    /// When, on the wall clock.
    pub at: Timestamp,
    /// In a few words.
    pub message: &'a str,
    /// A stack trace or the like.
    pub detail: &'a str,
}

impl<'a> From<&'a Failure> for FailureRef<'a> {
    fn from(Failure { attempt, at, message, detail }: &'a Failure) -> Self {
        Self { attempt: *attempt, at: *at, message, detail }
    }
}

/// Content type, headers and payload as they are stored: `head`, then the payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body<'a> {
    /// Content type and headers, encoded.
    pub head: Cow<'a, [u8]>,
    /// The payload.
    pub payload: &'a [u8],
}

/// Changes in order; the first lies in place, as there is often just one.
#[derive(Debug, Default)]
pub struct Changes<'a> {
    first: Option<Change<'a>>,
    more: Vec<Change<'a>>,
}

impl<'a> Changes<'a> {
    /// None.
    pub fn new() -> Self {
        Self { first: None, more: Vec::new() }
    }

    /// Adds one.
    #[inline]
    pub fn push(&mut self, change: Change<'a>) {
        if self.first.is_none() {
            self.first = Some(change);
        } else {
            self.more.push(change);
        }
    }

    /// Makes room for so many more.
    pub fn reserve(&mut self, more: usize) {
        self.more.reserve(more.saturating_sub(usize::from(self.first.is_none())));
    }

    /// How many.
    pub fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.more.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// The first.
    pub(super) fn into_first(self) -> Option<Change<'a>> {
        self.first
    }

    /// All, in order, one by one.
    pub(super) fn into_iter(self) -> impl Iterator<Item = Change<'a>> {
        self.first.into_iter().chain(self.more)
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Change<'a>> {
        self.first.iter().chain(&self.more)
    }
}
