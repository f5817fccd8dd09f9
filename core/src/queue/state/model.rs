//! Random operations against the same queue in plain lists; restarts by reading everything back.
//!
//! The model knows the rules and no index: it looks through all jobs each time. After every operation the outcome
//! is compared, after every few all lists and numbers. Every change goes through its bytes.
#![forbid(unsafe_code)]

use super::{
    super::{
        change::{Body, Change, Changes, Now},
        entry,
        job::{Enqueued, JobId, JobState, Token, WorkerId},
        options::{
            Backoff, EnqueueOptions, GroupLimits, Keep, OnConflict, QueueConfig, RESULT_TTL_DEFAULT, Rate,
            ReserveOptions, Retention, Scope, Unique,
        },
    },
    Cancelled, Nack, NewJob,
    tests::Rig,
};
use crate::{
    clock::{Moment, Timestamp},
    error::ErrorKind,
};
use std::{collections::BTreeMap, time::Duration};

/// A small generator: the same numbers for the same seed everywhere.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        JobId(u128::from(self.0)).mix(3) % sides.max(1)
    }

    fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        let nth = self.roll(from.len() as u64) as usize;
        from.get(nth)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Dated,
    Delayed,
    Ready,
    Held,
    Leased,
    Retry,
    Over(JobState),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Holds,
    Follows,
    Past,
}

#[derive(Clone, Debug)]
struct Job {
    id: JobId,
    seq: u64,
    priority: u8,
    group: Option<u64>,
    unique: Option<(u64, Scope, Role)>,
    stage: At,
    /// When it became ready.
    at: u64,
    due: u64,
    attempt: u16,
    max_attempts: u16,
    lease: u64,
    expires: u64,
    worker: u64,
    deadline: u64,
    longest: Option<u64>,
    asked: u64,
    token: Token,
    failures: usize,
    redrives: u32,
    /// Whether it was given a time of day.
    dated: bool,
}

impl Job {
    fn waits(&self) -> bool {
        matches!(self.stage, At::Dated | At::Delayed | At::Ready | At::Held | At::Retry)
    }
}

struct Model {
    config: QueueConfig,
    now: Now,
    /// The time that groups were last looked at.
    jobs: Vec<Job>,
    seq: u64,
    bucket: u64,
    buckets: BTreeMap<u64, u64>,
    /// Key, job, until when.
    windows: Vec<(u64, JobId, u64)>,
    /// Group (0 for none): whether it may have a turn, and its mark.
    turns: BTreeMap<u64, (bool, u64)>,
    virtual_clock: u64,
    acked: Vec<(Token, u64)>,
    lost: Vec<Token>,
    paused: bool,
    draining: bool,
    redriving: Option<(u64, u64, u64)>,
}

const SECOND: u64 = 1_000_000_000;

fn ns(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

impl Model {
    fn share(&self, group: u64) -> u64 {
        let weight = self.config.groups.weights.get(&format!("g{group}")).copied().unwrap_or(1);
        (1 << 20) / u64::from(if group == 0 { 1 } else { weight })
    }

    fn of(&self, group: u64, stage: At) -> usize {
        self.jobs.iter().filter(|job| job.group.unwrap_or(0) == group && job.stage == stage).count()
    }

    fn room(&self, group: u64) -> bool {
        if group == 0 {
            return true;
        }
        let limit = self.config.groups.concurrency.map_or(usize::MAX, |limit| limit as usize);
        let held = if limit == 1 { self.of(group, At::Retry) } else { 0 };
        let bucket = self.buckets.get(&group).copied().unwrap_or(0);
        self.of(group, At::Leased) + held < limit
            && self.config.groups.rate.is_none_or(|rate| has_token(bucket, rate, self.now.at.0))
    }

    fn settle(&mut self) {
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

    fn rank(&self, job: &Job) -> (u64, u64, u64) {
        let below = u64::from(255 - job.priority);
        match self.config.aging {
            None => (below, job.at, job.seq),
            Some(step) => (0, job.at + below * ns(step), job.seq),
        }
    }

    fn advance(&mut self) {
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

    fn index(&self, id: JobId) -> Option<usize> {
        self.jobs.iter().position(|job| job.id == id)
    }

    fn holder(&self, key: u64) -> Option<usize> {
        self.jobs
            .iter()
            .position(|job| job.unique.is_some_and(|(found, _, role)| found == key && role == Role::Holds))
    }

    fn follower(&self, key: u64) -> Option<usize> {
        self.jobs
            .iter()
            .position(|job| job.unique.is_some_and(|(found, _, role)| found == key && role == Role::Follows))
    }

    fn give_up_key(&mut self, index: usize) {
        let Some((key, scope, role)) = self.jobs[index].unique else { return };
        self.jobs[index].unique = Some((key, scope, Role::Past));
        if role != Role::Holds {
            return;
        }
        if let Some(next) = self.follower(key) {
            let (now, job) = (self.now.at.0, &mut self.jobs[next]);
            job.unique = job.unique.map(|(key, scope, _)| (key, scope, Role::Holds));
            job.stage = if job.due > now { At::Delayed } else { At::Ready };
        } else if let Scope::Window(window) = scope {
            self.windows.push((key, self.jobs[index].id, self.now.at.0 + ns(window)));
        }
    }

    fn finish(&mut self, index: usize, state: JobState, keep: Duration) {
        self.jobs[index].stage = At::Over(state);
        self.settle();
        self.give_up_key(index);
        let job = &mut self.jobs[index];
        job.at = self.now.at.0;
        job.due = self.now.at.0 + ns(keep);
        if keep.is_zero() {
            self.jobs.remove(index);
        }
    }

    fn end(&mut self, id: JobId, state: JobState) {
        let keep = if state == JobState::Expired {
            self.config.retention.expired
        } else {
            self.config.retention.cancelled
        };
        let index = self.index(id).expect("it is there");
        self.jobs[index].failures += usize::from(state == JobState::Cancelled);
        self.finish(index, state, keep.age);
        self.settle();
    }

    fn enqueue(&mut self, id: JobId, options: &EnqueueOptions) -> Enqueued {
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
            if let Some(index) = self.holder(key) {
                let holder = self.jobs[index].id;
                let follower = self.follower(key).map(|index| self.jobs[index].id);
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
            stage,
            at,
            due,
            attempt: 0,
            max_attempts: options.max_attempts.unwrap_or(self.config.max_attempts),
            lease: ns(options.lease.unwrap_or(self.config.lease)),
            expires: ttl.map_or(u64::MAX, |ttl| now.at.0 + ns(ttl)),
            worker: 0,
            deadline: u64::MAX,
            longest: options.deadline.or(self.config.deadline).map(ns),
            asked: 0,
            token: Token::default(),
            failures: 0,
            redrives: 0,
            dated: options.run_at.is_some(),
        });
        self.seq += 1;
        self.settle();
        outcome
    }

    fn waiting(&self) -> usize {
        self.jobs.iter().filter(|job| job.waits()).count()
    }

    /// The job to be handed out next.
    fn next(&self) -> Option<usize> {
        let leased = self.jobs.iter().filter(|job| job.stage == At::Leased).count();
        if self.paused
            || self.config.concurrency.is_some_and(|limit| leased >= limit as usize)
            || self.config.rate.is_some_and(|rate| !has_token(self.bucket, rate, self.now.at.0))
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

    fn lease(&mut self, index: usize, worker: u64, lease: Option<Duration>) -> JobId {
        let (now, job) = (self.now.at.0, &mut self.jobs[index]);
        let group = job.group.unwrap_or(0);
        let id = job.id;
        job.stage = At::Leased;
        job.attempt += 1;
        job.worker = worker;
        job.asked = 0;
        job.deadline = job.longest.map_or(u64::MAX, |longest| now + longest);
        job.due = (now + lease.map_or(job.lease, ns)).min(job.deadline);
        if job.unique.is_some_and(|(_, scope, role)| scope == Scope::Waiting && role == Role::Holds) {
            self.give_up_key(index);
        }
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

    fn held(&self, token: Token) -> Option<usize> {
        let index = self.index(token.job)?;
        let job = &self.jobs[index];
        (job.stage == At::Leased && job.token == token && job.due > self.now.at.0).then_some(index)
    }

    /// Whether the attempt, if it failed, was the last; what the job becomes.
    fn give_back(&mut self, index: usize, failed: bool, dead: bool, delay: Option<u64>, counted: bool) {
        let config = self.config.clone();
        let now = self.now.at.0;
        let job = &mut self.jobs[index];
        let last = dead || failed && counted && job.attempt >= job.max_attempts;
        let (id, attempt, asked) = (job.id, job.attempt, std::mem::take(&mut job.asked));
        job.failures = (job.failures + usize::from(failed)).min(10);
        job.attempt -= u16::from(!counted);
        if asked > 0 {
            return self.finish(index, JobState::Cancelled, config.retention.cancelled.age);
        }
        if last {
            return self.finish(index, JobState::Dead, config.retention.dead.age);
        }
        let job = &mut self.jobs[index];
        if failed && counted {
            job.stage = At::Retry;
            job.due = now + delay.unwrap_or_else(|| ns(config.backoff.after(id, attempt)));
        } else if let (false, Some(delay)) = (failed, delay) {
            (job.stage, job.at, job.due) = (At::Delayed, now + delay, now + delay);
        } else {
            (job.stage, job.due) = (At::Ready, now);
        }
    }

    fn tick(&mut self) {
        let now = self.now.at.0;
        let expired: Vec<JobId> =
            self.jobs.iter().filter(|job| job.waits() && job.expires <= now).map(|job| job.id).collect();
        let mut late: Vec<(u64, u64, JobId)> = Vec::new();
        for job in self.jobs.iter().filter(|job| job.stage == At::Leased && job.due <= now) {
            late.push((job.due, job.seq, job.id));
        }
        late.sort_unstable();
        for (_, _, id) in late {
            let index = self.index(id).expect("it is there");
            self.give_back(index, true, false, None, true);
            self.settle();
        }
        while let Some(index) =
            self.jobs.iter().position(|job| job.stage == At::Leased && job.asked > 0 && job.asked <= now)
        {
            self.give_back(index, true, false, None, true);
            self.settle();
        }
        for id in expired {
            self.end(id, JobState::Expired);
        }
    }

    /// What was kept long enough, or is too much, of what was there when the tick was planned.
    fn forget(&mut self, before: &[JobId]) {
        let now = self.now.at.0;
        let keep = self.config.retention;
        for (state, keep) in [
            (JobState::Done, keep.done),
            (JobState::Dead, keep.dead),
            (JobState::Cancelled, keep.cancelled),
            (JobState::Expired, keep.expired),
        ] {
            let mut jobs: Vec<(u64, u64, JobId)> = self
                .jobs
                .iter()
                .filter(|job| job.stage == At::Over(state) && before.contains(&job.id))
                .map(|job| (job.due, job.seq, job.id))
                .collect();
            jobs.sort_unstable();
            let over = jobs.len().saturating_sub(keep.count as usize);
            for (nth, (due, _, id)) in jobs.into_iter().enumerate() {
                if nth < over || due <= now {
                    let index = self.index(id).expect("it is there");
                    self.jobs.remove(index);
                }
            }
        }
    }

    fn redrive(&mut self, id: JobId) {
        let (now, index) = (self.now.at.0, self.index(id).expect("it is there"));
        let job = &mut self.jobs[index];
        (job.stage, job.at, job.due, job.attempt, job.expires) = (At::Ready, now, now, 0, u64::MAX);
        job.redrives += 1;
        self.settle();
    }

    fn state(&self, job: &Job) -> JobState {
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

    fn in_state(&self, state: JobState) -> Vec<&Job> {
        let mut jobs: Vec<&Job> = self.jobs.iter().filter(|job| self.state(job) == state).collect();
        jobs.sort_by_key(|job| (job.due, job.seq));
        jobs
    }
}

fn has_token(full_at: u64, rate: Rate, now: u64) -> bool {
    let interval = ns(rate.per).div_ceil(u64::from(rate.count));
    full_at.saturating_sub(interval * u64::from(rate.burst - 1)) <= now
}

fn take_token(full_at: &mut u64, rate: Rate, now: u64) {
    *full_at = (*full_at).max(now) + ns(rate.per).div_ceil(u64::from(rate.count));
}

const PAYLOAD: &[u8] = b"payload";
const GROUPS: u64 = 3;
const KEYS: u64 = 4;
const WORKERS: u64 = 3;

fn config(dice: &mut Dice) -> QueueConfig {
    let rate = |dice: &mut Dice| Rate {
        count: 1 + dice.roll(5) as u32,
        per: Duration::from_secs(1 + dice.roll(3)),
        burst: 1 + dice.roll(3) as u32,
    };
    let keep = |dice: &mut Dice| Keep {
        age: Duration::from_secs(dice.roll(3) * 20),
        count: dice.roll(4) as u32 * 2,
    };
    let weights =
        (1..=GROUPS).filter(|group| group % 2 == 0).map(|group| (format!("g{group}"), 1 + group as u32));
    QueueConfig {
        lease: Duration::from_secs(1 + dice.roll(10)),
        max_attempts: 1 + dice.roll(3) as u16,
        backoff: match dice.roll(3) {
            0 => Backoff::default(),
            1 => Backoff::Fixed(Duration::from_millis(dice.roll(3000))),
            _ => Backoff::List(vec![Duration::ZERO, Duration::from_secs(2), Duration::from_secs(1)]),
        },
        deadline: dice.one_in(4).then(|| Duration::from_secs(1 + dice.roll(8))),
        ttl: dice.one_in(4).then(|| Duration::from_secs(1 + dice.roll(30))),
        max_length: (!dice.one_in(20)).then(|| 5 + dice.roll(20)),
        concurrency: dice.one_in(3).then(|| 1 + dice.roll(5) as u32),
        rate: dice.one_in(4).then(|| rate(dice)),
        groups: GroupLimits {
            concurrency: (!dice.one_in(3)).then(|| 1 + dice.roll(3) as u32),
            rate: dice.one_in(3).then(|| rate(dice)),
            weights: weights.collect(),
        },
        aging: dice.one_in(4).then(|| Duration::from_millis(1 + dice.roll(2000))),
        retention: Retention {
            done: keep(dice),
            dead: keep(dice),
            cancelled: keep(dice),
            expired: keep(dice),
        },
        cancel_grace: Duration::from_secs(dice.roll(6)),
        uncounted_on_crash: dice.one_in(2),
        ..QueueConfig::default()
    }
}

fn options(dice: &mut Dice, now: Now, known: &[JobId]) -> EnqueueOptions {
    let some_time = |dice: &mut Dice| Duration::from_millis(1 + dice.roll(8000));
    let delayed = dice.one_in(4);
    let window = some_time(dice);
    EnqueueOptions {
        id: if dice.one_in(8) { dice.pick(known).copied() } else { None },
        priority: if dice.one_in(2) { 0 } else { dice.roll(3) as u8 * 7 },
        delay: if delayed { some_time(dice) } else { Duration::ZERO },
        run_at: (!delayed && dice.one_in(8))
            .then(|| Timestamp((now.wall.0 + dice.roll(12) * SECOND).saturating_sub(2 * SECOND))),
        ttl: dice.one_in(5).then(|| some_time(dice)),
        unique: dice.one_in(4).then(|| Unique {
            key: format!("k{}", dice.roll(KEYS)),
            scope: [Scope::Waiting, Scope::Active, Scope::Window(window)][dice.roll(3) as usize],
            conflict: [
                OnConflict::ReturnExisting,
                OnConflict::Replace,
                OnConflict::Extend,
                OnConflict::KeepLast,
            ][dice.roll(4) as usize],
        }),
        group: dice.one_in(2).then(|| format!("g{}", 1 + dice.roll(GROUPS))),
        max_attempts: dice.one_in(6).then(|| 1 + dice.roll(4) as u16),
        lease: dice.one_in(6).then(|| Duration::from_secs(1 + dice.roll(20))),
        deadline: dice.one_in(8).then(|| some_time(dice)),
        ..EnqueueOptions::default()
    }
}

/// Runs `count` operations with one configuration.
fn run(seed: u64, count: usize) {
    let mut dice = Dice(seed);
    let mut rig = Rig::new(config(&mut dice), seed);
    let mut model = Model {
        config: rig.state.config().clone(),
        now: rig.now,
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
    };
    let mut known: Vec<JobId> = Vec::new();
    for step in 0..count {
        move_time(&mut dice, &mut rig, &mut model);
        rig.advance();
        model.advance();
        operate(&mut dice, &mut rig, &mut model, &mut known);
        if dice.one_in(3) {
            rig.checkpoint_slice(dice.roll(20) as u32);
        }
        if dice.one_in(1000) {
            restart(&mut dice, &mut rig, &mut model);
        }
        if step % 8 == 0 {
            compare(&rig, &model);
        }
    }
}

fn move_time(dice: &mut Dice, rig: &mut Rig, model: &mut Model) {
    let by = match dice.roll(10) {
        0..5 => 0,
        5..8 => dice.roll(SECOND),
        8 => dice.roll(4 * SECOND),
        // The machine slept, or the process was stopped: all leases are long over.
        9 if dice.one_in(40) => dice.roll(40 * 86_400) * SECOND,
        _ => dice.roll(30 * SECOND),
    };
    rig.now.at.0 += by;
    rig.now.wall.0 += by;
    if dice.one_in(500) {
        let ten_years = 10 * 365 * 86_400 * SECOND;
        rig.now.wall.0 = if dice.one_in(2) { rig.now.wall.0 + ten_years } else { rig.now.wall.0 - ten_years };
        // Neither so far ahead nor so far back that a number would not hold it.
        rig.now.wall.0 = rig.now.wall.0.clamp(START_WALL - 3 * ten_years, START_WALL + 3 * ten_years);
    }
    model.now = rig.now;
}

const START_WALL: u64 = 1_700_000_000 * SECOND;

fn operate(dice: &mut Dice, rig: &mut Rig, model: &mut Model, known: &mut Vec<JobId>) {
    let now = rig.now;
    let leased: Vec<Token> =
        model.jobs.iter().filter(|job| job.stage == At::Leased).map(|job| job.token).collect();
    let any: Vec<JobId> = model.jobs.iter().map(|job| job.id).collect();
    let mut changes = Changes::new();
    match dice.roll(45) {
        0..10 => {
            let options = options(dice, now, known);
            let id = options.id.unwrap_or_else(|| rig.new_id());
            let mut outcomes = Vec::new();
            let job =
                NewJob { id, options: &options, body: Body { head: Vec::new().into(), payload: PAYLOAD } };
            let planned = rig.state.enqueue(now, &[job], &mut changes, &mut outcomes);
            let before = (model.jobs.clone(), model.seq, model.windows.clone(), model.turns.clone());
            let expected = model.enqueue(id, &options);
            let full = model.seq > before.1
                && model.config.max_length.is_some_and(|most| model.waiting() as u64 > most);
            if model.draining || full {
                let kind = if model.draining { ErrorKind::Draining } else { ErrorKind::Full };
                assert_eq!(planned.unwrap_err().kind(), kind);
                (model.jobs, model.seq, model.windows, model.turns) = before;
                return;
            }
            planned.unwrap();
            assert_eq!(outcomes, [expected]);
            changes.iter().for_each(check_bytes);
            rig.commit(&changes);
            known.push(id);
            if known.len() > 50 {
                known.remove(0);
            }
        }
        10..18 => {
            let (worker, most) = (1 + dice.roll(WORKERS), 1 + dice.roll(4) as usize);
            let lease = dice.one_in(4).then(|| Duration::from_secs(1 + dice.roll(5)));
            let bytes_max = if dice.one_in(3) { dice.roll(30) as usize } else { usize::MAX };
            let given = rig
                .state
                .reserve(now, WorkerId(worker), ReserveOptions { lease }, most, bytes_max, &mut changes)
                .unwrap();
            let mut expected = Vec::new();
            while expected.len() < most
                && (expected.is_empty() || (expected.len() + 1) * PAYLOAD.len() <= bytes_max)
                && let Some(index) = model.next()
            {
                expected.push(model.lease(index, worker, lease));
            }
            let found: Vec<JobId> = targets(&changes);
            assert_eq!((found.len(), &found), (given, &expected));
            rig.commit(&changes);
            for id in found {
                let (_, token) = rig.state.token_of(id).expect("it was just leased");
                let index = model.index(id).expect("it is there");
                model.jobs[index].token = token;
                assert_eq!(token.attempt, model.jobs[index].attempt);
            }
        }
        18..24 => {
            let Some(token) = pick_token(dice, &leased, model) else { return };
            let done = dice.one_in(3).then_some(PAYLOAD);
            let result = rig.state.ack(now, token, done, &mut changes).map_err(|error| error.kind());
            let expected = acked(model, token, done.is_some(), result);
            assert_eq!(result, expected, "{token:?} {:?}", model.index(token.job).map(|i| &model.jobs[i]));
            rig.commit(&changes);
            if dice.one_in(3) {
                model.lost.push(token);
            }
        }
        24..29 => {
            let Some(token) = pick_token(dice, &leased, model) else { return };
            let delay = dice.one_in(3).then(|| Duration::from_millis(dice.roll(5000)));
            let kind = dice.roll(4);
            let nack = Nack { message: "it failed", detail: "somewhere", delay };
            let put_off = delay.unwrap_or(Duration::from_secs(1));
            let result = match kind {
                0 => rig.state.release(now, token, &mut changes),
                1 => rig.state.snooze(now, token, put_off, &mut changes),
                2 => rig.state.reject(now, token, nack, &mut changes),
                _ => rig.state.nack(now, token, nack, &mut changes),
            };
            match model.held(token) {
                None => assert_eq!(result.unwrap_err().kind(), ErrorKind::LeaseLost),
                Some(index) => {
                    result.unwrap();
                    match kind {
                        0 => model.give_back(index, false, false, None, false),
                        1 => model.give_back(index, false, false, Some(ns(put_off)), false),
                        2 => model.give_back(index, true, true, None, true),
                        _ => model.give_back(index, true, false, delay.map(ns), true),
                    }
                    model.settle();
                    model.lost.push(token);
                }
            }
            rig.commit(&changes);
        }
        29 => {
            let Some(token) = pick_token(dice, &leased, model) else { return };
            let lease = dice.one_in(2).then(|| Duration::from_secs(1 + dice.roll(9)));
            let result = rig.state.extend(now, token, lease, &mut changes);
            match model.held(token) {
                None => assert_eq!(result.unwrap_err().kind(), ErrorKind::LeaseLost),
                Some(index) => {
                    let job = &mut model.jobs[index];
                    if job.asked == 0 {
                        let until = (now.at.0 + lease.map_or(job.lease, ns)).min(job.deadline);
                        job.due = job.due.max(until);
                    }
                    assert_eq!(result.unwrap(), Moment(job.due));
                }
            }
            rig.commit(&changes);
        }
        30 | 31 => {
            let Some(&id) = dice.pick(&any) else { return };
            let why = ["", "not wanted"][dice.roll(2) as usize];
            let outcome = rig.state.cancel(now, id, why, &mut changes).unwrap();
            let index = model.index(id).expect("it is there");
            let expected = match model.jobs[index].stage {
                At::Leased => {
                    if model.jobs[index].asked == 0 {
                        let job = &mut model.jobs[index];
                        job.asked = (now.at.0 + ns(model.config.cancel_grace)).max(1);
                        job.failures = (job.failures + usize::from(!why.is_empty())).min(10);
                    }
                    Cancelled::Asked
                }
                At::Over(state) => Cancelled::Finished(state),
                _ => {
                    model.end(id, JobState::Cancelled);
                    Cancelled::Now
                }
            };
            assert_eq!(outcome, expected);
            rig.commit(&changes);
        }
        32 => {
            let worker = 1 + dice.roll(WORKERS);
            rig.state.worker_gone(now, WorkerId(worker), 100, &mut changes);
            let mut gone: Vec<(u64, u64, JobId)> = model
                .jobs
                .iter()
                .filter(|job| job.stage == At::Leased && job.worker == worker)
                .map(|job| (job.due, job.seq, job.id))
                .collect();
            gone.sort_unstable();
            let ids: Vec<JobId> = gone.iter().map(|(_, _, id)| *id).collect();
            assert_eq!(targets(&changes), ids);
            for id in ids {
                let index = model.index(id).expect("it is there");
                let counted = !model.config.uncounted_on_crash;
                model.give_back(index, true, false, None, counted);
                model.settle();
            }
            rig.commit(&changes);
        }
        33 | 34 => {
            let over: Vec<JobId> =
                model.jobs.iter().filter(|job| matches!(job.stage, At::Over(_))).map(|job| job.id).collect();
            let Some(&id) = dice.pick(&over) else { return };
            rig.state.redrive(now, &[id], &mut changes).unwrap();
            model.redrive(id);
            rig.commit(&changes);
        }
        35 => {
            if dice.one_in(3) {
                (model.paused, model.draining) = (dice.one_in(3), dice.one_in(4));
                rig.state.mode(model.paused, model.draining, &mut changes);
            } else {
                let rate = Rate { count: 1 + dice.roll(3) as u32, per: Duration::from_secs(2), burst: 1 };
                let dead = model.in_state(JobState::Dead).len() as u64;
                let count = dice.roll(5).min(dead);
                rig.state.redrive_at(count, rate, &mut changes).unwrap();
                model.redriving =
                    (count > 0).then(|| (count, ns(rate.per).div_ceil(u64::from(rate.count)), now.at.0));
            }
            rig.commit(&changes);
        }
        36 => {
            let state = JobState::ALL[dice.roll(9) as usize];
            let most = 1 + dice.roll(3) as usize;
            if state == JobState::Leased {
                assert_eq!(
                    rig.state.purge(now, state, most, &mut changes).unwrap_err().kind(),
                    ErrorKind::InvalidArgument
                );
                return;
            }
            rig.state.purge(now, state, most, &mut changes).unwrap();
            let gone = targets(&changes);
            assert_eq!(gone.len(), model.in_state(state).len().min(most));
            for id in gone {
                let index = model.index(id).expect("it is there");
                assert_eq!(model.state(&model.jobs[index]), state);
                purge(model, index);
            }
            rig.commit(&changes);
        }
        40 | 41 => {
            let tokens: Vec<Token> = (0..4).filter_map(|_| pick_token(dice, &leased, model)).collect();
            let results =
                rig.state.ack_many(now, tokens.iter().map(|token| (*token, None)), &mut changes).unwrap();
            assert_eq!(results.len(), tokens.len());
            for (token, result) in tokens.into_iter().zip(results) {
                let result = result.map_err(|error| error.kind());
                assert_eq!(result, acked(model, token, false, result), "{token:?}");
            }
            rig.commit(&changes);
        }
        42 => {
            let Some(&id) = dice.pick(&any) else { return };
            let index = model.index(id).expect("it is there");
            let removed = rig.state.forget(now, id, &mut changes);
            if model.jobs[index].stage == At::Leased {
                assert_eq!(removed.unwrap_err().kind(), ErrorKind::InvalidArgument);
                return;
            }
            removed.unwrap();
            purge(model, index);
            rig.commit(&changes);
        }
        43 => {
            let most = 1 + dice.roll(3) as usize;
            let dead: Vec<JobId> =
                model.in_state(JobState::Dead).iter().take(most).map(|job| job.id).collect();
            assert_eq!(rig.state.redrive_dead(now, most, &mut changes), dead.len());
            dead.into_iter().for_each(|id| model.redrive(id));
            rig.commit(&changes);
        }
        _ => tick(rig, model),
    }
}

/// What an ack gives, and does; after five minutes what was acked may be forgotten, or not, as `result` says.
fn acked(
    model: &mut Model,
    token: Token,
    has_result: bool,
    result: Result<(), ErrorKind>,
) -> Result<(), ErrorKind> {
    let now = model.now.at.0;
    if let Some(index) = model.held(token) {
        let keep = match model.config.retention.done {
            Keep { count: 0, .. } => Duration::ZERO,
            _ if has_result => RESULT_TTL_DEFAULT,
            keep => keep.age,
        };
        model.finish(index, JobState::Done, keep);
        model.acked.push((token, now));
        model.settle();
        return Ok(());
    }
    match model.acked.iter().find(|(acked, _)| *acked == token) {
        Some((_, at)) if now - at > 300 * SECOND => result,
        Some(_) => Ok(()),
        None => Err(ErrorKind::LeaseLost),
    }
}

fn purge(model: &mut Model, index: usize) {
    // One that was purged had no end that a window could begin at but its going.
    let waits = model.jobs[index].waits();
    if waits {
        model.jobs[index].stage = At::Over(JobState::Done);
        model.settle();
        model.give_up_key(index);
    }
    model.jobs.remove(index);
    model.settle();
}

fn tick(rig: &mut Rig, model: &mut Model) {
    let now = rig.now;
    let mut changes = Changes::new();
    rig.state.tick(now, 1000, &mut changes);
    // All of it is planned on what is there before any of it happens.
    let before: Vec<JobId> =
        model.jobs.iter().filter(|job| matches!(job.stage, At::Over(_))).map(|job| job.id).collect();
    let mut dead: Vec<(u64, u64, JobId)> = model
        .jobs
        .iter()
        .filter(|job| job.stage == At::Over(JobState::Dead))
        .map(|job| (job.due, job.seq, job.id))
        .collect();
    dead.sort_unstable();
    rig.commit(&changes);
    model.tick();
    model.forget(&before);
    if let Some((left, interval, next)) = model.redriving
        && next <= now.at.0
    {
        let mut run = (left, next);
        let due = left.min(1 + (now.at.0 - next) / interval) as usize;
        let still = dead.iter().filter(|(_, _, id)| model.index(*id).is_some());
        for id in still.take(due).map(|(_, _, id)| *id).collect::<Vec<_>>() {
            model.redrive(id);
            run.0 -= 1;
            run.1 = run.1.max(now.at.0.saturating_sub(interval)) + interval;
        }
        model.redriving = Some((run.0, interval, run.1));
    }
    model.settle();
}

fn targets(changes: &Changes<'_>) -> Vec<JobId> {
    let target = |change: &Change<'_>| match change {
        Change::Reserve { job, .. } | Change::Return { job, .. } | Change::Forget { job, .. } => job.id,
        other => panic!("{other:?}"),
    };
    changes.iter().map(target).collect()
}

/// A token of a leased job, or one that is of no use any more.
fn pick_token(dice: &mut Dice, leased: &[Token], model: &Model) -> Option<Token> {
    if dice.one_in(6) {
        let stale: Vec<Token> = model.lost.iter().rev().take(20).copied().collect();
        return dice.pick(&stale).copied();
    }
    let token = dice.pick(leased).copied()?;
    match dice.roll(20) {
        0 => Some(Token { nonce: token.nonce ^ 1 << 50, ..token }),
        1 => Some(Token { attempt: token.attempt + 1, ..token }),
        _ => Some(token),
    }
}

fn restart(dice: &mut Dice, rig: &mut Rig, model: &mut Model) {
    if dice.one_in(2) {
        rig.finish_checkpoint();
    }
    rig.reopen();
    rig.advance();
    let mut changes = Changes::new();
    rig.state.restart(rig.now, 1000, &mut changes);
    rig.commit(&changes);
    model.virtual_clock = 0;
    model.turns = (0..=GROUPS).map(|group| (group, (false, 0))).collect();
    model.settle();
    // Where a jump of the wall clock made a job ready early its place was taken again.
    for job in &mut model.jobs {
        if job.stage == At::Ready
            && job.dated
            && let Some(at) = rig.ready_at(job.id)
        {
            assert!(at <= rig.now.at.0);
            job.at = at;
        }
        // One that had become ready may have to wait for its time again.
        if job.stage == At::Ready
            && rig.state.info(rig.now, job.id).is_ok_and(|info| info.state == JobState::Scheduled)
        {
            job.stage = At::Dated;
            (job.at, job.due) = rig.dated(job.id);
        }
    }
    let mut leased: Vec<(u64, u64, JobId)> = model
        .jobs
        .iter()
        .filter(|job| job.stage == At::Leased)
        .map(|job| (job.due, job.seq, job.id))
        .collect();
    leased.sort_unstable();
    for (_, _, id) in leased {
        let index = model.index(id).expect("it is there");
        model.lost.push(model.jobs[index].token);
        model.give_back(index, true, false, Some(0), true);
        model.settle();
    }
    if let Some(run) = &mut model.redriving {
        run.2 = rig.redriving_next();
    }
    rig.advance();
    model.advance();
    compare(rig, model);
}

fn compare(rig: &Rig, model: &Model) {
    let now = rig.now;
    let stats = rig.state.stats(now);
    let bytes: usize =
        model.jobs.iter().filter(|job| !matches!(job.stage, At::Over(_))).count() * PAYLOAD.len();
    assert_eq!(stats.payload_bytes, bytes as u64);
    assert_eq!((stats.paused, stats.draining), (model.paused, model.draining));
    assert_eq!(stats.redriving, model.redriving.map_or(0, |run| run.0));
    for state in JobState::ALL {
        let mut listed = Vec::new();
        let mut cursor = None;
        loop {
            let part = rig.state.list(now, state, cursor, 3).unwrap();
            listed.extend(part.jobs);
            cursor = part.next;
            if cursor.is_none() {
                break;
            }
        }
        let mut expected = model.in_state(state);
        assert_eq!(stats.count(state), expected.len() as u64, "{state:?}");
        assert_eq!(listed.len(), expected.len(), "{state:?}");
        let mut found: Vec<_> = listed.iter().collect();
        if matches!(state, JobState::Ready | JobState::Blocked | JobState::Scheduled) {
            // Ordered by group, or on two clocks: compared one by one, and in order where the model knows it.
            expected.sort_by_key(|job| job.id);
            found.sort_by_key(|job| job.id);
        }
        for (found, job) in found.into_iter().zip(expected) {
            assert_eq!(
                (found.id, found.attempt, found.max_attempts, found.priority, found.redrives),
                (job.id, job.attempt, job.max_attempts, job.priority, job.redrives),
                "{state:?}"
            );
            assert_eq!(found.group, job.group.map(|group| format!("g{group}")));
            assert_eq!(found.cancelling, job.stage == At::Leased && job.asked > 0);
            assert_eq!(found.failures.len(), job.failures.min(10), "{found:?}");
            assert_eq!(found.worker, (job.stage == At::Leased).then_some(WorkerId(job.worker)));
        }
    }
    let due = rig.state.next_due(now);
    let sleeping = model.jobs.iter().filter(|job| matches!(job.stage, At::Delayed | At::Retry | At::Leased));
    if let Some(first) = sleeping.map(|job| job.due).min() {
        assert!(due.is_some_and(|due| due.0 <= first.max(now.at.0)), "{due:?} {first}");
    }
}

/// Every change that decodes must encode to what it was decoded from.
fn check_bytes(change: &Change<'_>) {
    let mut whole = Vec::new();
    let encoded = entry::encode(change, &mut whole);
    assert_eq!(entry::decode(encoded.kind, &whole).unwrap(), *change);
}

#[test]
fn random_operations_agree_with_plain_lists() {
    let seed = std::env::var("FLOWMESH_SEED").ok().and_then(|seed| seed.parse().ok());
    let count: usize =
        std::env::var("FLOWMESH_STEPS").ok().and_then(|count| count.parse().ok()).unwrap_or(STEPS);
    let first = seed.unwrap_or_else(|| {
        let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        time.as_nanos() as u64
    });
    let rounds = if seed.is_some() { 1 } else { count.div_ceil(STEPS_OF_ROUND) };
    for round in 0..rounds as u64 {
        let seed = first.wrapping_add(round);
        let result = std::panic::catch_unwind(|| run(seed, STEPS_OF_ROUND));
        if let Err(reason) = result {
            eprintln!("again with FLOWMESH_SEED={seed}");
            std::panic::resume_unwind(reason);
        }
    }
}

const STEPS_OF_ROUND: usize = 5000;
/// A debug build takes ten times as long for each.
const STEPS: usize = if cfg!(debug_assertions) { 200_000 } else { 2_000_000 };
