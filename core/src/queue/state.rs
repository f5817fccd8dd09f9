//! One queue: what its jobs are and what may happen to them.
//!
//! No file, clock, lock or thread. [`plan`] looks at the state and gives [`Change`](super::Change)s or a refusal; [`apply`]
//! changes the state by them. In between whoever owns the queue writes them down, so that nothing is seen that a
//! crash could undo; after a crash the same changes are read back and applied again ([`recover`]). What time alone
//! does without a decision (a job's time comes, a rate lets the next one go) is not written: [`QueueState::advance`]
//! does it, again after a crash.
//!
//! A job is a [`Cell`] of 64 bytes in a slab, a place in the order of its state, and an entry in the table of ids.
//! What most jobs do not have (a lease, failures, a unique key) is a [`More`] beside it.
#![forbid(unsafe_code)]

mod apply;
mod list;
mod plan;
mod recover;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

pub use list::{Cursor, Delivery, Listed};
pub use plan::{Cancelled, Nack, NewJob};
pub(super) use recover::{JobImage, LeaseImage, MoreImage, QueueImage, ScheduleImage};

use super::{
    acked::Acked,
    change::{FailureRef, Now, Own, Target},
    cron::Schedule,
    groups::{Bucket, Flow, Groups, NO_GROUP},
    job::{Failure, JobId, JobState, QueueStats, Token, Totals, WorkerId},
    keys::Keys,
    options::{QueueConfig, Scope},
    order::{Key, Order},
    slab::{Ids, NONE, Slab},
};
use crate::{
    clock::{Moment, Timestamp},
    ledger::Place,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// Everything about one queue.
#[derive(Debug)]
pub struct QueueState {
    config: QueueConfig,
    aging_ns: u64,
    flow: Option<Flow>,
    cells: Slab<Cell>,
    mores: Slab<More>,
    ids: Ids,
    /// By [`Stage`].
    orders: [Order; STAGES],
    /// Waiting jobs that expire, by when.
    expiry: Order,
    /// Leased jobs that are to be given back, by when the lease is taken otherwise.
    asked: BTreeSet<(u64, u32)>,
    keys: Keys,
    groups: Groups,
    bucket: Bucket,
    acked: Acked,
    /// What makes this queue's tokens its own.
    secret: u64,
    /// Jobs that were ever enqueued.
    seq: u64,
    /// Leases that were ever given, and some that were skipped.
    leases: u64,
    paused: bool,
    draining: bool,
    redriving: Option<Redriving>,
    schedules: BTreeMap<Arc<str>, Planned>,
    /// When the first of them fires, on the wall clock.
    fires: u64,
    /// The latest time that was seen on each clock.
    clock: u64,
    wall: u64,
    payload_bytes: u64,
    totals: Totals,
    /// While changes are read back.
    recovery: Option<Box<recover::Recovery>>,
}

/// A job.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    id: [u64; 2],
    /// Where its content lies.
    place: u64,
    /// When it became ready or will; when finished, when that was.
    at: u64,
    /// When its stage ends: its time comes, the lease runs out, it is forgotten. On the wall clock in
    /// [`Stage::Dated`], on the mesh's time line elsewhere.
    due: u64,
    seq: u64,
    more: u32,
    group: u32,
    payload_bytes: u32,
    attempt: u16,
    priority: u8,
    stage: Stage,
}

const _: () = assert!(size_of::<Cell>() == 64);

impl Cell {
    fn id(&self) -> JobId {
        JobId(u128::from(self.id[0]) << 64 | u128::from(self.id[1]))
    }

    /// Its place in the order of its stage.
    #[inline]
    fn key(&self, aging_ns: u64) -> Key {
        if self.stage != Stage::Ready {
            return [self.due, self.seq, 0];
        }
        let (lane, below) = (u64::from(self.group) << 8, u64::from(255 - self.priority));
        if aging_ns == 0 {
            return [lane | below, self.at, self.seq];
        }
        // A priority is a head start: who waits longest, its own start counted, goes first.
        [lane, self.at.saturating_add(below.saturating_mul(aging_ns)), self.seq]
    }
}

/// Where a job is. A [`JobState`], told apart by what ends it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
enum Stage {
    /// Nowhere: the slot is free.
    #[default]
    None = 0,
    /// Scheduled, for a time of day.
    Dated = 1,
    /// Scheduled, for some time from then.
    Delayed = 2,
    Ready = 3,
    /// Blocked by the job that has its unique key.
    Held = 4,
    Leased = 5,
    Retry = 6,
    Done = 7,
    Dead = 8,
    Cancelled = 9,
    Expired = 10,
}

const STAGES: usize = 11;

impl Stage {
    const ALL: [Self; STAGES] = [
        Self::None,
        Self::Dated,
        Self::Delayed,
        Self::Ready,
        Self::Held,
        Self::Leased,
        Self::Retry,
        Self::Done,
        Self::Dead,
        Self::Cancelled,
        Self::Expired,
    ];

    fn is_waiting(self) -> bool {
        matches!(self, Self::Dated | Self::Delayed | Self::Ready | Self::Held | Self::Retry)
    }

    fn is_terminal(self) -> bool {
        self as u8 >= Self::Done as u8
    }
}

/// What most jobs do not have.
#[derive(Debug)]
struct More {
    /// When it expires; [`NEVER`] if it does not.
    expires: u64,
    lease: Lease,
    unique: Option<Box<KeyUse>>,
    own: Option<Box<Own>>,
    failures: Vec<Failure>,
    progress: Option<Box<[u8]>>,
    result: Option<Place>,
    redrives: u32,
}

impl Default for More {
    fn default() -> Self {
        Self {
            expires: NEVER,
            lease: Lease::default(),
            unique: None,
            own: None,
            failures: Vec::new(),
            progress: None,
            result: None,
            redrives: 0,
        }
    }
}

impl More {
    /// Whether it says anything about a job that nobody has.
    fn is_idle(&self) -> bool {
        self.expires == NEVER
            && self.unique.is_none()
            && self.own.is_none()
            && self.failures.is_empty()
            && self.result.is_none()
            && self.redrives == 0
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Lease {
    nonce: u64,
    worker: WorkerId,
    deadline: u64,
    /// When it is taken because the job is cancelled; 0 if it is not.
    asked: u64,
}

/// A unique key, as its job has it.
#[derive(Clone, Debug, PartialEq)]
struct KeyUse {
    key: Arc<str>,
    scope: Scope,
    role: KeyRole,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum KeyRole {
    /// It has it.
    Holds = 0,
    /// It has it next.
    Follows = 1,
    /// It had it.
    Past = 2,
}

/// Dead jobs being redriven at a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Redriving {
    left: u64,
    interval: u64,
    next: u64,
}

/// A schedule and where it stands.
#[derive(Clone, Debug)]
struct Planned {
    schedule: Schedule,
    next: Timestamp,
    tick: Timestamp,
    job: Option<JobId>,
}

/// Later than anything.
const NEVER: u64 = u64::MAX;
/// Jobs moved on by one call of [`QueueState::advance`].
const ADVANCE_MAX: usize = 1024;
/// Failures that a job keeps.
const FAILURES_MAX: usize = 10;

/// What is to be done after changes were applied.
#[derive(Debug, Default)]
pub struct Effects {
    /// Whether anybody listens for [`Effects::events`]; set by the caller.
    pub watched: bool,
    /// Content that nobody will ask for again.
    pub freed: Vec<Place>,
    /// Whether there may be work for a worker who waits.
    pub wake: bool,
    /// Leases whose workers are to be told to give the job back.
    pub asked: Vec<(WorkerId, Token)>,
    /// What happened.
    pub events: Vec<Event>,
}

impl Effects {
    /// Forgets all and keeps the memory.
    pub fn clear(&mut self) {
        self.freed.clear();
        self.wake = false;
        self.asked.clear();
        self.events.clear();
    }

    #[inline]
    fn event(&mut self, kind: EventKind, job: JobId, attempt: u16) {
        if self.watched {
            self.events.push(Event { kind, job, attempt });
        }
    }
}

/// Something that happened to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What.
    pub kind: EventKind,
    /// To which job.
    pub job: JobId,
    /// At which attempt; 0 before the first.
    pub attempt: u16,
}

/// What may happen to a job; the last token of `$queue.<queue>.<event>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// It is in the queue.
    Enqueued,
    /// A worker has it.
    Leased,
    /// It is done.
    Done,
    /// An attempt failed; another follows.
    Failed,
    /// A worker gave it back, or put it off.
    Released,
    /// No further attempt will be made.
    Dead,
    /// It is cancelled.
    Cancelled,
    /// Its worker is to give it back.
    Cancelling,
    /// It waited too long.
    Expired,
    /// It was finished and is ready again.
    Redriven,
    /// Its worker told how far it has come.
    Progress,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::Enqueued,
        Self::Leased,
        Self::Done,
        Self::Failed,
        Self::Released,
        Self::Dead,
        Self::Cancelled,
        Self::Cancelling,
        Self::Expired,
        Self::Redriven,
        Self::Progress,
    ];

    /// The name as it stands in the subject.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enqueued => "enqueued",
            Self::Leased => "leased",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Released => "released",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
            Self::Cancelling => "cancelling",
            Self::Expired => "expired",
            Self::Redriven => "redriven",
            Self::Progress => "progress",
        }
    }
}

impl QueueState {
    /// An empty queue. `seed` is any number that cannot be guessed.
    pub fn new(config: QueueConfig, seed: u64) -> Self {
        let secret = JobId(u128::from(seed)).mix(1);
        let mut state = Self {
            aging_ns: 0,
            flow: None,
            cells: Slab::default(),
            mores: Slab::default(),
            ids: Ids::new(JobId(u128::from(seed)).mix(2)),
            orders: Default::default(),
            expiry: Order::default(),
            asked: BTreeSet::new(),
            keys: Keys::default(),
            groups: Groups::new(&config),
            bucket: Bucket::default(),
            acked: Acked::default(),
            secret,
            seq: 0,
            leases: 0,
            paused: false,
            draining: false,
            redriving: None,
            schedules: BTreeMap::new(),
            fires: NEVER,
            clock: 0,
            wall: 0,
            payload_bytes: 0,
            totals: Totals::default(),
            recovery: None,
            config,
        };
        state.read_config();
        state
    }

    fn read_config(&mut self) {
        self.aging_ns = self.config.aging.map_or(0, |step| ns(step).max(1));
        self.flow = self.config.rate.map(Flow::of);
    }

    /// What makes its tokens its own.
    pub(super) fn secret(&self) -> u64 {
        self.secret
    }

    /// Its settings.
    pub fn config(&self) -> &QueueConfig {
        &self.config
    }

    /// Its numbers.
    pub fn stats(&self, now: Now) -> QueueStats {
        let count = |stage: Stage| self.orders[stage as usize].len() as u64;
        let blocked = self.groups.blocked();
        let first = self.orders[Stage::Ready as usize].first();
        QueueStats {
            jobs: [
                count(Stage::Dated) + count(Stage::Delayed),
                count(Stage::Ready) - blocked,
                blocked + count(Stage::Held),
                count(Stage::Leased),
                count(Stage::Retry),
                count(Stage::Done),
                count(Stage::Dead),
                count(Stage::Cancelled),
                count(Stage::Expired),
            ],
            payload_bytes: self.payload_bytes,
            oldest_ready: first.map(|slot| now.at.since(Moment(self.cells.get(slot).at))),
            paused: self.paused,
            draining: self.draining,
            groups: self.groups.len() as u64,
            redriving: self.redriving.map_or(0, |run| run.left),
            totals: self.totals.clone(),
        }
    }

    /// How many jobs could be handed out at `now`, about: never 0 when there is one.
    pub fn available(&self, now: Now) -> usize {
        let ready = self.orders[Stage::Ready as usize].len() as u64 - self.groups.blocked();
        if self.paused || ready == 0 || self.flow.is_some_and(|flow| self.bucket.ready_at(flow) > now.at.0) {
            return 0;
        }
        let leased = self.orders[Stage::Leased as usize].len();
        let room = self.config.concurrency.map_or(usize::MAX, |most| (most as usize).saturating_sub(leased));
        room.min(usize::try_from(ready).unwrap_or(usize::MAX))
    }

    /// Whether there is nothing left to do: no job waits and none is leased.
    pub fn is_idle(&self) -> bool {
        self.waiting() == 0 && self.orders[Stage::Leased as usize].is_empty()
    }

    /// Jobs that wait.
    fn waiting(&self) -> u64 {
        [Stage::Dated, Stage::Delayed, Stage::Ready, Stage::Held, Stage::Retry]
            .iter()
            .map(|stage| self.orders[*stage as usize].len() as u64)
            .sum()
    }

    /// Does what time alone does, at most a thousand jobs at once, and notes the time.
    #[inline]
    pub fn advance(&mut self, now: Now, effects: &mut Effects) {
        self.clock = self.clock.max(now.at.0);
        self.wall = now.wall.0;
        let (delayed, retry) = (self.due(Stage::Delayed), self.due(Stage::Retry));
        if self.due(Stage::Dated) <= now.wall.0
            || delayed.min(retry) <= now.at.0
            || self.keys.next_due().is_some_and(|due| due <= now.at.0)
            || self.groups.next_due().is_some_and(|due| due <= now.at.0)
        {
            self.advance_due(now, effects);
        }
    }

    #[cold]
    fn advance_due(&mut self, now: Now, effects: &mut Effects) {
        self.keys.advance(now.at.0);
        while let Some(group) = self.groups.resume(now.at.0) {
            if self.groups.exists(group) {
                self.settle(group);
                effects.wake = true;
            }
        }
        for _ in 0..ADVANCE_MAX {
            let stage = if self.due(Stage::Retry) <= now.at.0 {
                Stage::Retry
            } else if self.due(Stage::Delayed) <= now.at.0 {
                Stage::Delayed
            } else if self.due(Stage::Dated) <= now.wall.0 {
                Stage::Dated
            } else {
                return;
            };
            // At the very end of time even what never comes is due.
            let Some(slot) = self.orders[stage as usize].first() else { return };
            self.leave(slot);
            // The wall clock may have jumped: a job is not ready in the future.
            let cell = self.cells.get_mut(slot);
            cell.at = cell.at.min(now.at.0);
            self.enter(slot, Stage::Ready);
            effects.wake = true;
        }
    }

    /// When time alone changes something next; [`QueueState::advance`] and [`QueueState::tick`] are to be called then.
    pub fn next_due(&self, now: Now) -> Option<Moment> {
        let mut due = self.tick_due(now).min(self.due(Stage::Delayed)).min(self.due(Stage::Retry));
        due = due.min(self.keys.next_due().unwrap_or(NEVER)).min(self.groups.next_due().unwrap_or(NEVER));
        if let Some(flow) = self.flow
            && !self.orders[Stage::Ready as usize].is_empty()
        {
            let ready_at = self.bucket.ready_at(flow);
            due = due.min(if ready_at > now.at.0 { ready_at } else { NEVER });
        }
        let wall = self.due(Stage::Dated).min(self.fires);
        if wall != NEVER {
            // The wall clock may be set: it is looked at now and then.
            let wait = wall.saturating_sub(now.wall.0).min(WALL_LOOK_NS);
            due = due.min(now.at.0.saturating_add(wait));
        }
        (due != NEVER).then_some(Moment(due))
    }

    /// When [`QueueState::tick`] has something to plan, wall clock apart.
    fn tick_due(&self, now: Now) -> u64 {
        let first =
            |order: &Order, key: fn(&Self, u32) -> u64| order.first().map_or(NEVER, |slot| key(self, slot));
        let mut due = self.due(Stage::Leased).min(self.asked.first().map_or(NEVER, |(by, _)| *by));
        due = due.min(first(&self.expiry, Self::expires));
        for (stage, keep) in self.kept() {
            let over = self.orders[stage as usize].len() > keep as usize;
            due = due.min(if over { now.at.0 } else { self.due(stage) });
        }
        if let Some(run) = self.redriving {
            let idle = run.left == 0 || self.orders[Stage::Dead as usize].is_empty();
            due = due.min(if idle { NEVER } else { run.next });
        }
        due
    }

    /// The stages of finished jobs, and how many of each are kept.
    fn kept(&self) -> [(Stage, u32); 4] {
        let keep = &self.config.retention;
        [
            (Stage::Done, keep.done.count),
            (Stage::Dead, keep.dead.count),
            (Stage::Cancelled, keep.cancelled.count),
            (Stage::Expired, keep.expired.count),
        ]
    }

    /// When the first job of a stage is due.
    #[inline]
    fn due(&self, stage: Stage) -> u64 {
        self.orders[stage as usize].first().map_or(NEVER, |slot| self.cells.get(slot).due)
    }

    fn expires(&self, slot: u32) -> u64 {
        match self.cells.get(slot).more {
            NONE => NEVER,
            more => self.mores.get(more).expires,
        }
    }

    #[inline]
    fn find(&self, job: Target) -> Option<u32> {
        // The guess is right unless the job has gone.
        if job.slot < self.cells.end() {
            let cell = self.cells.get(job.slot);
            if cell.stage != Stage::None && cell.id() == job.id {
                return Some(job.slot);
            }
        }
        self.ids.find(job.id, |slot| self.cells.get(slot).id())
    }

    /// Puts a job where it belongs.
    #[inline]
    fn enter(&mut self, slot: u32, stage: Stage) {
        let cell = self.cells.get_mut(slot);
        cell.stage = stage;
        if self.recovery.is_some() {
            return;
        }
        let (cell, aging) = (*cell, self.aging_ns);
        if !stage.is_terminal() {
            self.payload_bytes += u64::from(cell.payload_bytes);
        }
        self.orders[stage as usize].insert(slot, cell.key(aging), |slot| self.cells.get(slot).key(aging));
        if cell.more != NONE && stage.is_waiting() {
            let expires = self.mores.get(cell.more).expires;
            if expires != NEVER {
                let key_of = |slot: u32| expiry_key(&self.cells, &self.mores, slot);
                self.expiry.insert(slot, [expires, cell.seq, 0], key_of);
            }
        }
        let group = self.groups.get_mut(cell.group);
        match stage {
            Stage::Ready => group.waiting += 1,
            Stage::Leased => group.leased += 1,
            Stage::Retry => group.retrying += 1,
            _ => return,
        }
        self.settle(cell.group);
    }

    /// Takes a job from where it is; the caller puts it elsewhere or removes it.
    #[inline]
    fn leave(&mut self, slot: u32) {
        if self.recovery.is_some() {
            return;
        }
        let (cell, aging) = (*self.cells.get(slot), self.aging_ns);
        if !cell.stage.is_terminal() {
            self.payload_bytes -= u64::from(cell.payload_bytes);
        }
        let order = &mut self.orders[cell.stage as usize];
        order.remove(slot, cell.key(aging), |slot| self.cells.get(slot).key(aging));
        if cell.more != NONE && cell.stage.is_waiting() {
            let expires = self.mores.get(cell.more).expires;
            if expires != NEVER {
                let key_of = |slot: u32| expiry_key(&self.cells, &self.mores, slot);
                self.expiry.remove(slot, [expires, cell.seq, 0], key_of);
            }
        }
        let group = self.groups.get_mut(cell.group);
        match cell.stage {
            Stage::Ready => group.waiting -= 1,
            Stage::Leased => group.leased -= 1,
            Stage::Retry => group.retrying -= 1,
            _ => return,
        }
        self.settle(cell.group);
    }

    fn settle(&mut self, group: u32) {
        let (cells, aging, ready) = (&self.cells, self.aging_ns, &self.orders[Stage::Ready as usize]);
        let head = |group: u32| {
            let key_of = |slot: u32| cells.get(slot).key(aging);
            let slot = ready.from([u64::from(group) << 8, 0, 0], key_of).next()?;
            (cells.get(slot).group == group).then(|| key_of(slot))
        };
        self.groups.settle(group, || head(group), self.clock);
    }

    /// What the job at `slot` has beside its cell; made if there is nothing yet.
    fn more_mut(&mut self, slot: u32) -> &mut More {
        let cell = self.cells.get_mut(slot);
        if cell.more == NONE {
            cell.more = self.mores.insert(More::default());
        }
        self.mores.get_mut(cell.more)
    }

    fn more(&self, slot: u32) -> Option<&More> {
        match self.cells.get(slot).more {
            NONE => None,
            more => Some(self.mores.get(more)),
        }
    }

    /// Forgets what says nothing.
    fn trim(&mut self, slot: u32) {
        let cell = self.cells.get_mut(slot);
        if cell.more != NONE && self.mores.get(cell.more).is_idle() {
            self.mores.remove(cell.more);
            cell.more = NONE;
        }
    }

    /// Takes a job that is nowhere out of the tables.
    fn remove(&mut self, slot: u32, effects: &mut Effects) {
        let cell = self.cells.remove(slot);
        self.ids.remove(cell.id(), slot);
        if cell.more != NONE {
            let more = self.mores.remove(cell.more);
            effects.freed.extend(more.result);
        }
        effects.freed.push(Place::from_bits(cell.place));
        if self.recovery.is_none() {
            self.groups.part(cell.group, self.clock);
        }
    }

    fn max_attempts(&self, slot: u32) -> u16 {
        let own = self.more(slot).and_then(|more| more.own.as_ref()?.max_attempts);
        own.unwrap_or(self.config.max_attempts)
    }

    fn state_of(&self, slot: u32) -> JobState {
        let cell = self.cells.get(slot);
        match cell.stage {
            Stage::Dated | Stage::Delayed => JobState::Scheduled,
            Stage::Ready if self.groups.is_blocked(cell.group) => JobState::Blocked,
            Stage::Ready => JobState::Ready,
            Stage::Held => JobState::Blocked,
            Stage::Leased => JobState::Leased,
            Stage::Retry => JobState::RetryWait,
            Stage::Done => JobState::Done,
            Stage::Dead => JobState::Dead,
            Stage::Cancelled => JobState::Cancelled,
            // A free slot is never asked.
            Stage::Expired | Stage::None => JobState::Expired,
        }
    }

    /// What all indexes take in memory, payload, keys and headers apart.
    #[cfg(test)]
    fn memory(&self) -> usize {
        let orders: usize = self.orders.iter().map(Order::bytes).sum();
        self.cells.bytes() + self.mores.bytes() + self.ids.bytes() + orders + self.expiry.bytes()
    }
}

/// The longest time between two looks at the wall clock.
const WALL_LOOK_NS: u64 = 60_000_000_000;

fn expiry_key(cells: &Slab<Cell>, mores: &Slab<More>, slot: u32) -> Key {
    let cell = cells.get(slot);
    let expires = if cell.more == NONE { NEVER } else { mores.get(cell.more).expires };
    [expires, cell.seq, 0]
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(NEVER)
}

fn own(failure: &FailureRef<'_>) -> Failure {
    Failure {
        attempt: failure.attempt,
        at: failure.at,
        message: failure.message.to_owned(),
        detail: failure.detail.to_owned(),
    }
}
