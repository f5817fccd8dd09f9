//! Groups: which one's turn it is, and which have reached a limit.
//!
//! Turns are given by self-clocked fair queueing: a group that gets its turn is marked with the time of the
//! virtual clock plus its share, the smallest mark goes first, and the clock moves on to it. Shares are in
//! proportion to weights, a group that has nothing to do loses nothing to the others and saves nothing up, and a
//! group that is gone leaves nothing behind. Of different priorities the highest goes first, whosever it is.
//!
//! Group 0 is the jobs without a group: one among the others, without limits. While there is no other, turns
//! cost a comparison.
#![forbid(unsafe_code)]

use super::{
    options::{QueueConfig, Rate},
    order::Key,
};
use hashbrown::HashMap;
use std::{collections::BTreeSet, sync::Arc};

/// The group of jobs that have none.
pub(super) const NO_GROUP: u32 = 0;
/// How far the virtual clock moves for a turn of weight 1.
const TURN: u64 = 1 << 20;

/// A token bucket in one number: when it is full again, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bucket {
    pub(super) full_at: u64,
}

/// How a bucket fills.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    interval: u64,
    /// In which all but one come back.
    slack: u64,
}

impl Flow {
    pub(super) fn of(rate: Rate) -> Self {
        let interval = rate.interval_ns();
        Self { interval, slack: interval.saturating_mul(u64::from(rate.burst.max(1) - 1)) }
    }
}

impl Bucket {
    /// When it has a token.
    pub(super) fn ready_at(self, flow: Flow) -> u64 {
        self.full_at.saturating_sub(flow.slack)
    }

    /// Takes a token that is there.
    pub(super) fn take(&mut self, flow: Flow, now: u64) {
        self.full_at = self.full_at.max(now).saturating_add(flow.interval);
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    pub(super) name: Option<Arc<str>>,
    /// Jobs in any state.
    jobs: u32,
    /// Ready ones.
    pub(super) waiting: u32,
    pub(super) leased: u32,
    pub(super) retrying: u32,
    weight: u32,
    pub(super) bucket: Bucket,
    /// Its mark, while it is `turning`.
    pub(super) mark: u64,
    /// Whether it may be given a turn: it has a ready job and no limit is reached.
    turning: bool,
    /// As it stands in `Groups::turns`.
    turn: Option<Turn>,
    /// What it adds to `Groups::blocked`.
    blocked: u32,
    /// When it stands in `Groups::pauses`.
    pause: Option<u64>,
}

/// Rank of its first job (least first), mark, that job's ready time and number, group.
pub(super) type Turn = (u64, u64, u64, u64, u32);

#[derive(Debug)]
pub(super) struct Groups {
    all: Vec<Group>,
    free: Vec<u32>,
    names: HashMap<Arc<str>, u32>,
    turns: BTreeSet<Turn>,
    /// Groups whose rate is reached, by when it is not; and groups without jobs whose bucket is not full.
    pauses: BTreeSet<(u64, u32)>,
    /// The virtual clock.
    clock: u64,
    /// Ready jobs of groups that have reached a limit.
    blocked: u64,
    concurrency: u32,
    flow: Option<Flow>,
    weights: HashMap<Box<str>, u32>,
}

impl Groups {
    pub(super) fn new(config: &QueueConfig) -> Self {
        let weights = &config.groups.weights;
        Self {
            all: vec![Group { weight: 1, ..Group::default() }],
            free: Vec::new(),
            names: HashMap::new(),
            turns: BTreeSet::new(),
            pauses: BTreeSet::new(),
            clock: 0,
            blocked: 0,
            concurrency: config.groups.concurrency.unwrap_or(u32::MAX),
            flow: config.groups.rate.map(Flow::of),
            weights: weights.iter().map(|(name, weight)| (name.as_str().into(), *weight)).collect(),
        }
    }

    /// Whether there is none but [`NO_GROUP`].
    #[inline]
    pub(super) fn is_alone(&self) -> bool {
        self.names.is_empty()
    }

    /// Groups with jobs, [`NO_GROUP`] not counted.
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// Ready jobs that must wait for their group.
    pub(super) fn blocked(&self) -> u64 {
        self.blocked
    }

    #[inline]
    pub(super) fn get(&self, group: u32) -> &Group {
        &self.all[group as usize]
    }

    #[inline]
    pub(super) fn get_mut(&mut self, group: u32) -> &mut Group {
        &mut self.all[group as usize]
    }

    pub(super) fn flow(&self) -> Option<Flow> {
        self.flow
    }

    /// The group of this name, for one more job.
    pub(super) fn join(&mut self, name: Option<&str>) -> u32 {
        let Some(name) = name else { return NO_GROUP };
        let group = self.named(name);
        self.all[group as usize].jobs += 1;
        group
    }

    /// The group of this name, made if it is not there.
    pub(super) fn named(&mut self, name: &str) -> u32 {
        if let Some(group) = self.names.get(name) {
            return *group;
        }
        if self.is_alone() && self.all[0].turning {
            // From now on it is one of several.
            self.all[0].turn = None;
        }
        let name: Arc<str> = name.into();
        let weight = self.weights.get(&*name).copied().unwrap_or(1);
        let group = Group { name: Some(Arc::clone(&name)), weight, ..Group::default() };
        let index = match self.free.pop() {
            Some(index) => {
                self.all[index as usize] = group;
                index
            }
            None => {
                self.all.push(group);
                (self.all.len() - 1) as u32
            }
        };
        self.names.insert(name, index);
        index
    }

    /// A job of `group` is gone.
    pub(super) fn part(&mut self, group: u32, now: u64) {
        if group != NO_GROUP {
            self.all[group as usize].jobs -= 1;
            self.forget_if_done(group, now);
        }
    }

    fn forget_if_done(&mut self, group: u32, now: u64) {
        let found = &mut self.all[group as usize];
        if found.jobs > 0 {
            return;
        }
        if self.flow.is_some() && found.bucket.full_at > now {
            // Its bucket is remembered until it is as good as new.
            if found.pause.is_none() {
                found.pause = Some(found.bucket.full_at);
                self.pauses.insert((found.bucket.full_at, group));
            }
            return;
        }
        let gone = std::mem::take(found);
        if let Some(turn) = gone.turn {
            self.turns.remove(&turn);
        }
        if let Some(pause) = gone.pause {
            self.pauses.remove(&(pause, group));
        }
        if let Some(name) = gone.name {
            self.names.remove(&name);
        }
        self.free.push(group);
        if self.is_alone() {
            self.turns.clear();
            self.all[0].turn = None;
            self.all.truncate(1);
            self.free.clear();
        }
    }

    /// Whether `group` could take so many leases and have this bucket, and still have one more turn.
    pub(super) fn has_room(&self, group: u32, leased: u32, bucket: Bucket, now: u64) -> bool {
        if group == NO_GROUP {
            return true;
        }
        let found = &self.all[group as usize];
        // In strict order a job that waits for its next attempt keeps its place.
        let held = if self.concurrency == 1 { found.retrying } else { 0 };
        leased.saturating_add(held) < self.concurrency
            && self.flow.is_none_or(|flow| bucket.ready_at(flow) <= now)
    }

    /// A turn was given to `group`.
    pub(super) fn serve(&mut self, group: u32, now: u64) {
        let flow = self.flow;
        let found = &mut self.all[group as usize];
        self.clock = self.clock.max(found.mark);
        found.mark = self.clock + TURN / u64::from(found.weight);
        if group != NO_GROUP
            && let Some(flow) = flow
        {
            found.bucket.take(flow, now);
        }
    }

    /// Brings everything up to date after a change to `group`, whose first ready job is `head`.
    pub(super) fn settle(&mut self, group: u32, head: impl FnOnce() -> Option<Key>, now: u64) {
        let found = &self.all[group as usize];
        let room = self.has_room(group, found.leased, found.bucket, now);
        let clock = self.clock;
        let found = &mut self.all[group as usize];
        let turning = room && found.waiting > 0;
        if turning && !found.turning {
            found.mark = clock + TURN / u64::from(found.weight);
        }
        found.turning = turning;
        if self.names.is_empty() {
            return;
        }
        let turn = if turning {
            head().map(|[lane, at, seq]| (lane & 0xff, found.mark, at, seq, group))
        } else {
            None
        };
        if turn != found.turn {
            if let Some(old) = found.turn {
                self.turns.remove(&old);
            }
            self.turns.extend(turn);
            found.turn = turn;
        }
        let blocked = if room { 0 } else { found.waiting };
        self.blocked = self.blocked - u64::from(found.blocked) + u64::from(blocked);
        found.blocked = blocked;
        let pause = self.flow.map(|flow| found.bucket.ready_at(flow));
        let pause = pause.filter(|at| *at > now && found.waiting > 0 && group != NO_GROUP);
        if pause != found.pause {
            if let Some(old) = found.pause {
                self.pauses.remove(&(old, group));
            }
            self.pauses.extend(pause.map(|at| (at, group)));
            found.pause = pause;
        }
    }

    /// Whether [`NO_GROUP`] must be settled because it is not alone any more.
    pub(super) fn wants_settling(&self) -> bool {
        !self.is_alone() && self.all[0].turning && self.all[0].turn.is_none()
    }

    /// Whether ready jobs of `group` must wait for it.
    pub(super) fn is_blocked(&self, group: u32) -> bool {
        self.all[group as usize].blocked > 0
    }

    /// The turns as they would be given.
    pub(super) fn turns(&self) -> impl Iterator<Item = &Turn> {
        self.turns.iter()
    }

    /// The virtual clock.
    pub(super) fn clock(&self) -> u64 {
        self.clock
    }

    /// How far the clock moves for a turn of `group`.
    pub(super) fn share(&self, group: u32) -> u64 {
        TURN / u64::from(self.all[group as usize].weight)
    }

    /// When a rate next lets a group go on.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.pauses.first().map(|(at, _)| *at)
    }

    /// A group whose pause is over at `now`; it is to be settled if it has jobs.
    pub(super) fn resume(&mut self, now: u64) -> Option<u32> {
        let (at, group) = *self.pauses.first().filter(|(at, _)| *at <= now)?;
        self.pauses.remove(&(at, group));
        self.all[group as usize].pause = None;
        self.forget_if_done(group, now);
        Some(group)
    }

    /// All numbers of groups are below.
    pub(super) fn end(&self) -> u32 {
        self.all.len() as u32
    }

    /// Whether `group` is there.
    pub(super) fn exists(&self, group: u32) -> bool {
        self.all.get(group as usize).is_some_and(|found| group == NO_GROUP || found.name.is_some())
    }

    /// Buckets that are not full at `now`, by name.
    pub(super) fn buckets(&self, now: u64) -> impl Iterator<Item = (&str, Bucket)> {
        let named = self.names.iter().map(|(name, group)| (&**name, self.all[*group as usize].bucket));
        named.filter(move |(_, bucket)| bucket.full_at > now)
    }

    /// Takes other limits. Where there is no rate any more what was counted for it is forgotten, unless `is_counted`:
    /// then the counts come from later.
    pub(super) fn configure(&mut self, config: &QueueConfig, is_counted: bool) {
        self.concurrency = config.groups.concurrency.unwrap_or(u32::MAX);
        self.flow = config.groups.rate.map(Flow::of);
        if self.flow.is_none() && !is_counted {
            self.all.iter_mut().for_each(|group| group.bucket = Bucket::default());
        }
    }

    /// Forgets counts and turns, keeps names and buckets: before everything is counted anew.
    pub(super) fn reset(&mut self, config: &QueueConfig) {
        let mut fresh = Self::new(config);
        std::mem::swap(&mut fresh.all, &mut self.all);
        std::mem::swap(&mut fresh.names, &mut self.names);
        std::mem::swap(&mut fresh.free, &mut self.free);
        *self = fresh;
        for group in &mut self.all {
            let weight = group.name.as_ref().and_then(|name| self.weights.get(&**name)).copied().unwrap_or(1);
            *group =
                Group { name: group.name.take(), bucket: group.bucket, jobs: 0, weight, ..Group::default() };
        }
    }

    /// One more job of a group that is there.
    pub(super) fn count(&mut self, group: u32) {
        self.all[group as usize].jobs += 1;
    }

    /// Forgets groups that no job was counted for.
    pub(super) fn sweep(&mut self, now: u64) {
        for group in 1..self.all.len() as u32 {
            if (group as usize) < self.all.len() && self.exists(group) {
                self.forget_if_done(group, now);
            }
        }
    }
}
