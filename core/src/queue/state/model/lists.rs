//! A queue in plain lists: the rules and no index. It looks through all jobs each time.
#![forbid(unsafe_code)]

use super::{GROUPS, schedules::Planned};
use crate::{
    error::ErrorKind,
    queue::{
        change::{Cause, Now},
        job::{Enqueued, JobId, JobState, Token, Totals},
        options::{Backoff, EnqueueOptions, Keep, OnConflict, QueueConfig, RESULT_TTL_DEFAULT, Rate, Scope},
        state::Cancelled,
    },
};
use std::{collections::BTreeMap, time::Duration};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    Dated,
    Delayed,
    Ready,
    Held,
    Leased,
    Retry,
    Over(JobState),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Holds,
    Follows,
    Past,
}

/// Where a job differs from its queue.
#[derive(Clone, Debug, Default)]
pub(super) struct Own {
    max_attempts: Option<u16>,
    backoff: Option<Backoff>,
    lease: Option<Duration>,
    deadline: Option<Duration>,
    result_ttl: Option<Duration>,
}

#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) id: JobId,
    pub(super) seq: u64,
    pub(super) priority: u8,
    pub(super) group: Option<u64>,
    pub(super) unique: Option<(u64, Scope, Role)>,
    pub(super) bytes: usize,
    pub(super) stage: At,
    /// When it became ready.
    pub(super) at: u64,
    pub(super) due: u64,
    pub(super) attempt: u16,
    pub(super) own: Own,
    pub(super) expires: u64,
    pub(super) worker: u64,
    pub(super) deadline: u64,
    pub(super) asked: u64,
    pub(super) token: Token,
    pub(super) progress: Option<u8>,
    pub(super) has_result: bool,
    /// Attempt, and whether there is a stack trace.
    pub(super) failures: Vec<(u16, bool)>,
    pub(super) redrives: u32,
    /// Whether it was given a time of day.
    pub(super) dated: bool,
}

impl Job {
    pub(super) fn waits(&self) -> bool {
        matches!(self.stage, At::Dated | At::Delayed | At::Ready | At::Held | At::Retry)
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.stage, At::Over(_))
    }

    fn fail(&mut self, attempt: u16, has_detail: bool) {
        if let Some(last) = self.failures.last_mut() {
            last.1 = false;
        }
        self.failures.push((attempt, has_detail));
        self.failures.drain(..self.failures.len().saturating_sub(10));
    }
}

/// What time does to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    LeaseExpired,
    Cancelled,
    Expired,
    Forgotten,
    Redriven,
}

#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) config: QueueConfig,
    pub(super) now: Now,
    pub(super) jobs: Vec<Job>,
    pub(super) seq: u64,
    pub(super) bucket: u64,
    pub(super) buckets: BTreeMap<u64, u64>,
    /// Key, job, until when.
    pub(super) windows: Vec<(u64, JobId, u64)>,
    /// Group (0 for none): whether it may have a turn, and its mark.
    pub(super) turns: BTreeMap<u64, (bool, u64)>,
    pub(super) virtual_clock: u64,
    pub(super) acked: Vec<(Token, u64)>,
    pub(super) lost: Vec<Token>,
    pub(super) paused: bool,
    pub(super) draining: bool,
    /// How many are left, how long between two, and when the next comes.
    pub(super) redriving: Option<(u64, u64, u64)>,
    pub(super) totals: Totals,
    pub(super) schedules: BTreeMap<String, Planned>,
    /// Where dead jobs go.
    pub(super) dead: Option<Box<Model>>,
}

pub(super) fn ns(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

fn interval(rate: Rate) -> u64 {
    ns(rate.per).div_ceil(u64::from(rate.count))
}

/// When a bucket has a token.
pub(super) fn ready_at(full_at: u64, rate: Rate) -> u64 {
    full_at.saturating_sub(interval(rate) * u64::from(rate.burst - 1))
}

fn take_token(full_at: &mut u64, rate: Rate, now: u64) {
    *full_at = (*full_at).max(now) + interval(rate);
}

impl Model {
    pub(super) fn new(config: &QueueConfig, now: Now) -> Self {
        Self {
            config: config.clone(),
            now,
            jobs: Vec::new(),
            seq: 0,
            bucket: 0,
            buckets: BTreeMap::new(),
            windows: Vec::new(),
            turns: (0..=GROUPS).map(|group| (group, (false, 0))).collect(),
            virtual_clock: 0,
            acked: Vec::new(),
            lost: Vec::new(),
            paused: false,
            draining: false,
            redriving: None,
            totals: Totals::default(),
            schedules: BTreeMap::new(),
            dead: None,
        }
    }

    fn share(&self, group: u64) -> u64 {
        let weight = self.config.groups.weights.get(&format!("g{group}")).copied().unwrap_or(1);
        (1 << 20) / u64::from(if group == 0 { 1 } else { weight })
    }

    pub(super) fn of(&self, group: u64, stage: At) -> usize {
        self.jobs.iter().filter(|job| job.group.unwrap_or(0) == group && job.stage == stage).count()
    }

    /// When the rate of `group` lets it go on.
    pub(super) fn group_ready_at(&self, group: u64) -> u64 {
        let bucket = self.buckets.get(&group).copied().unwrap_or(0);
        self.config.groups.rate.map_or(0, |rate| ready_at(bucket, rate))
    }

    pub(super) fn room(&self, group: u64) -> bool {
        if group == 0 {
            return true;
        }
        let limit = self.config.groups.concurrency.map_or(usize::MAX, |limit| limit as usize);
        let held = if limit == 1 { self.of(group, At::Retry) } else { 0 };
        self.of(group, At::Leased) + held < limit && self.group_ready_at(group) <= self.now.at.0
    }

    /// Groups that have a job, or a bucket that is not full.
    pub(super) fn groups(&self) -> usize {
        let is_there = |group: &u64| {
            self.jobs.iter().any(|job| job.group == Some(*group))
                || self.buckets.get(group).is_some_and(|full_at| *full_at > self.now.at.0)
        };
        (1..=GROUPS).filter(is_there).count()
    }

    pub(super) fn settle(&mut self) {
        let mut ready = [false; GROUPS as usize + 1];
        for job in self.jobs.iter().filter(|job| job.stage == At::Ready) {
            ready[job.group.unwrap_or(0) as usize] = true;
        }
        for group in 0..=GROUPS {
            let turning = ready[group as usize] && self.room(group);
            let mark = self.virtual_clock + self.share(group);
            let turn = self.turns.entry(group).or_default();
            *turn = (turning, if turning && !turn.0 { mark } else { turn.1 });
        }
    }

    /// Turns are given anew: other settings, or read back.
    pub(super) fn begin_turns(&mut self) {
        self.virtual_clock = 0;
        self.turns = (0..=GROUPS).map(|group| (group, (false, 0))).collect();
        self.settle();
    }

    pub(super) fn configure(&mut self, config: &QueueConfig) {
        if self.config == *config {
            return;
        }
        self.config = config.clone();
        if config.groups.rate.is_none() {
            self.buckets.clear();
        }
        self.begin_turns();
    }

    fn rank(&self, job: &Job) -> (u64, u64, u64) {
        let below = u64::from(255 - job.priority);
        match self.config.aging {
            None => (below, job.at, job.seq),
            Some(step) => (0, job.at + below * ns(step), job.seq),
        }
    }

    pub(super) fn advance(&mut self) {
        let now = self.now;
        self.windows.retain(|(_, _, until)| *until > now.at.0);
        for job in &mut self.jobs {
            let due = match job.stage {
                At::Delayed | At::Retry => job.due <= now.at.0,
                At::Dated => job.due <= now.wall.0,
                _ => false,
            };
            if due {
                job.stage = At::Ready;
                job.at = job.at.min(now.at.0);
            }
        }
        self.settle();
    }

    pub(super) fn index(&self, id: JobId) -> Option<usize> {
        self.jobs.iter().position(|job| job.id == id)
    }

    pub(super) fn leased(&self) -> Vec<Token> {
        self.jobs.iter().filter(|job| job.stage == At::Leased).map(|job| job.token).collect()
    }

    fn with_key(&self, key: u64, role: Role) -> Option<usize> {
        self.jobs.iter().position(|job| job.unique.is_some_and(|(of, _, is)| (of, is) == (key, role)))
    }

    fn give_up_key(&mut self, index: usize) {
        let Some((key, scope, role)) = self.jobs[index].unique else { return };
        self.jobs[index].unique = Some((key, scope, Role::Past));
        if role != Role::Holds {
            return;
        }
        if let Some(next) = self.with_key(key, Role::Follows) {
            let (now, job) = (self.now.at.0, &mut self.jobs[next]);
            job.unique = job.unique.map(|(key, scope, _)| (key, scope, Role::Holds));
            job.stage = if job.due > now { At::Delayed } else { At::Ready };
        } else if let Scope::Window(window) = scope {
            self.windows.push((key, self.jobs[index].id, self.now.at.0 + ns(window)));
        }
    }

    fn finish(&mut self, index: usize, state: JobState, keep: Duration) {
        match state {
            JobState::Dead => self.totals.dead += 1,
            JobState::Cancelled => self.totals.cancelled += 1,
            JobState::Expired => self.totals.expired += 1,
            _ => self.totals.done += 1,
        }
        self.jobs[index].stage = At::Over(state);
        self.settle();
        self.give_up_key(index);
        let job = &mut self.jobs[index];
        job.progress = None;
        job.at = self.now.at.0;
        job.due = self.now.at.0 + ns(keep);
        let has_moved = state == JobState::Dead && self.config.dead_letter_to.is_some() && {
            let job = self.jobs[index].clone();
            self.dead.as_mut().is_some_and(|dead| dead.take_letter(&job))
        };
        if keep.is_zero() || has_moved {
            self.jobs.remove(index);
        }
    }

    /// A dead job of another queue, if there is room.
    fn take_letter(&mut self, job: &Job) -> bool {
        let options = EnqueueOptions {
            id: Some(job.id),
            priority: job.priority,
            group: job.group.map(|group| format!("g{group}")),
            ..EnqueueOptions::default()
        };
        match self.enqueue_all(&[(job.id, &options, job.bytes)]).as_deref() {
            Ok([Enqueued::New(_)]) => {
                self.jobs.last_mut().expect("it has just come").failures.clone_from(&job.failures);
                true
            }
            _ => false,
        }
    }

    pub(super) fn end(&mut self, id: JobId, state: JobState) {
        let index = self.index(id).expect("it is there");
        let keep = if state == JobState::Expired {
            self.config.retention.expired
        } else {
            self.jobs[index].fail(0, false);
            self.config.retention.cancelled
        };
        self.finish(index, state, keep.age);
        self.settle();
    }

    pub(super) fn cancel(&mut self, id: JobId) -> Cancelled {
        let index = self.index(id).expect("it is there");
        match self.jobs[index].stage {
            At::Leased => {
                if self.jobs[index].asked == 0 {
                    self.jobs[index].asked = (self.now.at.0 + ns(self.config.cancel_grace)).max(1);
                }
                Cancelled::Asked
            }
            At::Over(state) => Cancelled::Finished(state),
            _ => {
                self.end(id, JobState::Cancelled);
                Cancelled::Now
            }
        }
    }

    /// One after the other, and all or none.
    pub(super) fn enqueue_all(
        &mut self,
        jobs: &[(JobId, &EnqueueOptions, usize)],
    ) -> Result<Vec<Enqueued>, ErrorKind> {
        if self.draining {
            return Err(ErrorKind::Draining);
        }
        if jobs.iter().any(|(_, _, bytes)| *bytes > self.config.payload_bytes_max as usize) {
            return Err(ErrorKind::TooLarge);
        }
        let before =
            (self.jobs.clone(), self.seq, self.windows.clone(), self.turns.clone(), self.totals.clone());
        let outcomes = jobs.iter().map(|(id, options, bytes)| self.enqueue(*id, options, *bytes)).collect();
        if self.seq > before.1 && self.config.max_length.is_some_and(|most| self.waiting() as u64 > most) {
            (self.jobs, self.seq, self.windows, self.turns, self.totals) = before;
            return Err(ErrorKind::Full);
        }
        Ok(outcomes)
    }

    fn enqueue(&mut self, id: JobId, options: &EnqueueOptions, bytes: usize) -> Enqueued {
        if options.id.is_some() && self.index(id).is_some() {
            return Enqueued::Existing(id);
        }
        let now = self.now;
        let (stage, at, due) = match options.run_at {
            Some(wall) if wall > now.wall => (At::Dated, now.at.0 + (wall.0 - now.wall.0), wall.0),
            _ if options.delay.is_zero() => (At::Ready, now.at.0, now.at.0),
            _ => {
                let due = now.at.0 + ns(options.delay);
                (At::Delayed, due, due)
            }
        };
        let key =
            options.unique.as_ref().map(|unique| unique.key[1..].parse::<u64>().expect("a key of ours"));
        let (mut outcome, mut stage, mut due, mut role) = (Enqueued::New(id), stage, due, Role::Holds);
        if let (Some(key), Some(unique)) = (key, &options.unique) {
            if let Some(index) = self.with_key(key, Role::Holds) {
                let holder = self.jobs[index].id;
                let follower = self.with_key(key, Role::Follows).map(|index| self.jobs[index].id);
                match (unique.conflict, self.jobs[index].waits()) {
                    (OnConflict::KeepLast, waits) if follower.is_some() || !waits => {
                        role = Role::Follows;
                        due = if stage == At::Dated { at } else { due };
                        stage = At::Held;
                        if let Some(follower) = follower {
                            self.end(follower, JobState::Cancelled);
                            outcome = Enqueued::Replaced { id, replaced: follower };
                        }
                    }
                    (OnConflict::Replace | OnConflict::KeepLast, true) => {
                        for old in follower.into_iter().chain([holder]) {
                            self.end(old, JobState::Cancelled);
                        }
                        outcome = Enqueued::Replaced { id, replaced: holder };
                    }
                    (OnConflict::Extend, true) => {
                        if stage != At::Ready {
                            let job = &mut self.jobs[index];
                            (job.stage, job.at, job.due) = (stage, at, due);
                            job.dated |= stage == At::Dated;
                            self.settle();
                        }
                        return Enqueued::Extended(holder);
                    }
                    _ => return Enqueued::Existing(holder),
                }
            } else if let Some((_, holder, _)) = self.windows.iter().find(|window| window.0 == key) {
                return Enqueued::Existing(*holder);
            }
        }
        if let Some(key) = key {
            self.windows.retain(|window| window.0 != key);
        }
        let ttl = options.ttl.or(self.config.ttl);
        self.jobs.push(Job {
            id,
            seq: self.seq,
            priority: options.priority,
            group: options.group.as_ref().map(|group| group[1..].parse().expect("a group of ours")),
            unique: key.map(|key| (key, options.unique.as_ref().expect("it has a key").scope, role)),
            bytes,
            stage,
            at,
            due,
            attempt: 0,
            own: Own {
                max_attempts: options.max_attempts,
                backoff: options.backoff.clone(),
                lease: options.lease,
                deadline: options.deadline,
                result_ttl: options.result_ttl,
            },
            expires: ttl.map_or(u64::MAX, |ttl| now.at.0 + ns(ttl)),
            worker: 0,
            deadline: u64::MAX,
            asked: 0,
            token: Token::default(),
            progress: None,
            has_result: false,
            failures: Vec::new(),
            redrives: 0,
            dated: options.run_at.is_some(),
        });
        self.seq += 1;
        self.totals.enqueued += 1;
        self.settle();
        outcome
    }

    pub(super) fn waiting(&self) -> usize {
        self.jobs.iter().filter(|job| job.waits()).count()
    }

    pub(super) fn max_attempts(&self, job: &Job) -> u16 {
        job.own.max_attempts.unwrap_or(self.config.max_attempts)
    }

    /// How long a worker has a job.
    pub(super) fn usual_lease(&self, job: &Job) -> Duration {
        job.own.lease.unwrap_or(self.config.lease)
    }

    /// The job to be handed out next.
    pub(super) fn next(&self) -> Option<usize> {
        let leased = self.jobs.iter().filter(|job| job.stage == At::Leased).count();
        if self.paused
            || self.config.concurrency.is_some_and(|limit| leased >= limit as usize)
            || self.config.rate.is_some_and(|rate| ready_at(self.bucket, rate) > self.now.at.0)
        {
            return None;
        }
        // Of each group whose turn it may be the first job that has not expired.
        let heads = (0..=GROUPS).filter(|group| self.turns[group].0).filter_map(|group| {
            let jobs = self.jobs.iter().enumerate();
            jobs.filter(|(_, job)| job.group.unwrap_or(0) == group && job.stage == At::Ready)
                .filter(|(_, job)| job.expires > self.now.at.0)
                .min_by_key(|(_, job)| self.rank(job))
        });
        heads
            .min_by_key(|(_, job)| {
                let (rank, at, seq) = self.rank(job);
                (rank, self.turns[&job.group.unwrap_or(0)].1, at, seq)
            })
            .map(|(index, _)| index)
    }

    /// Hands out as much as is asked for.
    pub(super) fn reserve(
        &mut self,
        worker: u64,
        lease: Option<Duration>,
        most: usize,
        bytes_max: usize,
    ) -> Vec<JobId> {
        let (mut given, mut room) = (Vec::new(), bytes_max);
        while given.len() < most
            && let Some(index) = self.next()
            && (given.is_empty() || self.jobs[index].bytes <= room)
        {
            room = room.saturating_sub(self.jobs[index].bytes);
            given.push(self.lease(index, worker, lease));
        }
        given
    }

    fn lease(&mut self, index: usize, worker: u64, lease: Option<Duration>) -> JobId {
        let now = self.now.at.0;
        let lease = lease.unwrap_or_else(|| self.usual_lease(&self.jobs[index]));
        let longest = self.jobs[index].own.deadline.or(self.config.deadline);
        let job = &mut self.jobs[index];
        let (group, id) = (job.group.unwrap_or(0), job.id);
        job.stage = At::Leased;
        job.attempt += 1;
        job.worker = worker;
        job.token = Token::default();
        job.asked = 0;
        job.deadline = longest.map_or(u64::MAX, |longest| now + ns(longest));
        job.due = (now + ns(lease)).min(job.deadline);
        if job.unique.is_some_and(|(_, scope, role)| scope == Scope::Waiting && role == Role::Holds) {
            self.give_up_key(index);
        }
        self.totals.reserved += 1;
        self.virtual_clock = self.virtual_clock.max(self.turns[&group].1);
        let mark = self.virtual_clock + self.share(group);
        self.turns.get_mut(&group).expect("all groups are there").1 = mark;
        if let Some(rate) = self.config.rate {
            take_token(&mut self.bucket, rate, now);
        }
        if group != 0
            && let Some(rate) = self.config.groups.rate
        {
            take_token(self.buckets.entry(group).or_default(), rate, now);
        }
        self.settle();
        id
    }

    pub(super) fn held(&self, token: Token) -> Option<usize> {
        let index = self.index(token.job)?;
        let job = &self.jobs[index];
        (job.stage == At::Leased && job.token == token && job.due > self.now.at.0).then_some(index)
    }

    /// What an ack gives, and does; after five minutes what was acked may be forgotten, or not, as `result` says.
    pub(super) fn ack(
        &mut self,
        token: Token,
        has_result: bool,
        result: Result<(), ErrorKind>,
    ) -> Result<(), ErrorKind> {
        let now = self.now.at.0;
        if let Some(index) = self.held(token) {
            let keep = match self.config.retention.done {
                Keep { count: 0, .. } => Duration::ZERO,
                _ if has_result => self.jobs[index].own.result_ttl.unwrap_or(RESULT_TTL_DEFAULT),
                keep => keep.age,
            };
            self.jobs[index].has_result |= has_result;
            self.finish(index, JobState::Done, keep);
            self.acked.push((token, now));
            self.settle();
            return Ok(());
        }
        match self.acked.iter().find(|(acked, _)| *acked == token) {
            Some((_, at)) if now - at > 300 * super::SECOND => result,
            Some(_) => Ok(()),
            None => Err(ErrorKind::LeaseLost),
        }
    }

    /// Whether the attempt, if it failed, was the last; what the job becomes.
    pub(super) fn give_back(&mut self, index: usize, cause: Cause, delay: Option<u64>, has_detail: bool) {
        let now = self.now.at.0;
        let failed = !matches!(cause, Cause::Released | Cause::Snoozed);
        let counted = failed && !(cause == Cause::WorkerGone && self.config.uncounted_on_crash);
        let most = self.max_attempts(&self.jobs[index]);
        let job = &mut self.jobs[index];
        let last = cause == Cause::Rejected || failed && counted && job.attempt >= most;
        let (id, attempt, asked) = (job.id, job.attempt, std::mem::take(&mut job.asked));
        if failed {
            job.fail(attempt, has_detail);
        }
        job.progress = None;
        job.attempt -= u16::from(!counted);
        if cause != Cause::Cancelled {
            self.totals.failed += u64::from(failed);
            self.totals.released += u64::from(!failed);
        }
        let jobs = self.jobs.len();
        let counts = (self.totals.lease_expired, self.totals.worker_gone);
        self.totals.lease_expired += u64::from(cause == Cause::LeaseExpired);
        self.totals.worker_gone += u64::from(cause == Cause::WorkerGone);
        let retention = self.config.retention;
        if asked > 0 {
            return self.finish(index, JobState::Cancelled, retention.cancelled.age);
        }
        if last {
            let keep = retention.dead.age;
            let moved = self.dead.as_ref().map_or(0, |dead| dead.seq);
            self.finish(index, JobState::Dead, keep);
            if self.jobs.len() < jobs && self.dead.as_ref().is_some_and(|dead| dead.seq > moved) {
                // The queue that it left does not tell how.
                (self.totals.lease_expired, self.totals.worker_gone) = counts;
            }
            return;
        }
        let backoff = self.jobs[index].own.backoff.as_ref().unwrap_or(&self.config.backoff);
        let backoff = ns(backoff.after(id, attempt));
        let job = &mut self.jobs[index];
        if failed && counted {
            job.stage = At::Retry;
            job.due = now + delay.unwrap_or(backoff);
        } else if let (false, Some(delay)) = (failed, delay) {
            (job.stage, job.at, job.due) = (At::Delayed, now + delay, now + delay);
        } else {
            (job.stage, job.due) = (At::Ready, now);
        }
    }

    /// What time makes necessary, at most `most`, in order: what it is, when it was due, which job.
    pub(super) fn due(&self, most: usize) -> Vec<(Due, u64, JobId)> {
        let now = self.now.at.0;
        let mut all = Vec::new();
        let mut add = |what: Due, mut jobs: Vec<(u64, u64, JobId)>, most: usize| {
            jobs.sort_unstable();
            all.extend(jobs.into_iter().take(most).map(|(due, _, id)| (what, due, id)));
        };
        let listed = |when: &dyn Fn(&Job) -> Option<u64>| -> Vec<(u64, u64, JobId)> {
            self.jobs.iter().filter_map(|job| Some((when(job)?, job.seq, job.id))).collect()
        };
        let leased = |job: &Job| job.stage == At::Leased;
        let late = listed(&|job| (leased(job) && job.due <= now).then_some(job.due));
        add(Due::LeaseExpired, late, usize::MAX);
        let is_late = |job: &Job| leased(job) && job.due > now && job.asked > 0 && job.asked <= now;
        add(Due::Cancelled, listed(&|job| is_late(job).then_some(job.asked)), usize::MAX);
        let expired = listed(&|job| (job.waits() && job.expires <= now).then_some(job.expires));
        add(Due::Expired, expired, usize::MAX);
        let keep = self.config.retention;
        let dead = |job: &Job| job.stage == At::Over(JobState::Dead);
        for (state, keep) in [
            (JobState::Done, keep.done),
            (JobState::Dead, keep.dead),
            (JobState::Cancelled, keep.cancelled),
            (JobState::Expired, keep.expired),
        ] {
            let jobs = listed(&|job| (job.stage == At::Over(state)).then_some(job.due));
            let over = jobs.len().saturating_sub(keep.count as usize);
            let old = jobs.iter().filter(|(due, ..)| *due <= now).count();
            add(Due::Forgotten, jobs, over.max(old));
        }
        all.truncate(most);
        if let Some((left, interval, next)) = self.redriving
            && next <= now
        {
            let mut jobs = listed(&|job| dead(job).then_some(job.due));
            jobs.sort_unstable();
            jobs.drain(..jobs.len().saturating_sub(keep.dead.count as usize));
            jobs.retain(|(due, ..)| *due > now);
            let count = left.min(1 + (now - next) / interval) as usize;
            let room = most - all.len();
            let jobs = jobs.into_iter().take(count.min(room));
            all.extend(jobs.map(|(due, _, id)| (Due::Redriven, due, id)));
        }
        all
    }

    pub(super) fn let_pass(&mut self, what: Due, id: JobId) {
        let now = self.now.at.0;
        let index = self.index(id).expect("it is there");
        match what {
            Due::LeaseExpired => self.give_back(index, Cause::LeaseExpired, None, false),
            Due::Cancelled => self.give_back(index, Cause::Cancelled, None, false),
            Due::Expired => self.end(id, JobState::Expired),
            Due::Forgotten => self.remove(index),
            Due::Redriven => {
                self.redrive(id);
                let (left, interval, next) = self.redriving.expect("that is why it is redriven");
                self.redriving =
                    Some((left - 1, interval, next.max(now.saturating_sub(interval)) + interval));
            }
        }
        self.settle();
    }

    pub(super) fn redrive(&mut self, id: JobId) {
        let (now, index) = (self.now.at.0, self.index(id).expect("it is there"));
        let job = &mut self.jobs[index];
        (job.stage, job.at, job.due, job.attempt, job.expires) = (At::Ready, now, now, 0, u64::MAX);
        job.redrives += 1;
        job.has_result = false;
        self.totals.redriven += 1;
        self.settle();
    }

    /// Purged, or kept long enough.
    pub(super) fn remove(&mut self, index: usize) {
        self.totals.removed += 1;
        // One that waits had no end that a window could begin at but its going.
        if self.jobs[index].waits() {
            self.jobs[index].stage = At::Over(JobState::Done);
            self.settle();
            self.give_up_key(index);
        }
        self.jobs.remove(index);
        self.settle();
    }

    pub(super) fn state(&self, job: &Job) -> JobState {
        match job.stage {
            At::Dated | At::Delayed => JobState::Scheduled,
            At::Ready if !self.room(job.group.unwrap_or(0)) => JobState::Blocked,
            At::Ready => JobState::Ready,
            At::Held => JobState::Blocked,
            At::Leased => JobState::Leased,
            At::Retry => JobState::RetryWait,
            At::Over(state) => state,
        }
    }

    pub(super) fn in_state(&self, state: JobState) -> Vec<&Job> {
        let mut jobs: Vec<&Job> = self.jobs.iter().filter(|job| self.state(job) == state).collect();
        jobs.sort_by_key(|job| (job.due, job.seq));
        jobs
    }
}
