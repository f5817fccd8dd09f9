//! Queues as the crash tests drive them: random operations of every kind, and what must be there after a crash.
//!
//! What a crash may leave is known from the order of batches alone: after each operation everything is looked at
//! from outside ([`Seen`]), and noted under the batch that it wrote ([`History`]). What is opened later and ends with
//! that batch must look the same, but for leases: they end with their host.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part")]

use super::support::Dice;
use flowmesh::{
    Durability, Error, ErrorKind, Lsn, Name, Result,
    clock::{Moment, Timestamp},
    ledger::{Checkpoint, Entry, Fold, Ledger, LedgerConfig, Owner, Place, Planted, Recovery},
    queue::{
        Backoff, EnqueueOptions, GroupLimits, Imaging, JobId, JobInfo, JobState, Keep, Nack, OnConflict,
        Outcome, QueueConfig, QueueId, Queues, QueuesFold, ReserveOptions, Retention, Schedule, Scope, Times,
        Token, Unique, WorkerId,
    },
    storage::Storage,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// Queues over a ledger, and what their workers hold.
pub struct Host {
    pub ledger: Ledger,
    pub queues: Queues,
    pub times: Times,
    ids: Vec<QueueId>,
    /// Tokens that were handed out, those of leases that are over too.
    tokens: Vec<(QueueId, Token)>,
    known: Vec<(QueueId, JobId)>,
    taking: Option<(Checkpoint, Imaging)>,
    next_payload: u64,
}

/// What a mesh does with entries.
struct Mesh(QueuesFold);

impl Fold for Mesh {
    fn image(&mut self, owner: Owner, lsn: Lsn, bytes: &[u8]) -> Result<()> {
        self.0.image(owner, lsn, bytes)
    }

    fn entry(&mut self, lsn: Lsn, place: Place, entry: Entry<'_>) -> Result<()> {
        self.0.entry(lsn, place, entry)
    }

    fn kept(&mut self, keep: &mut dyn FnMut(Place)) {
        self.0.kept(keep);
    }
}

pub fn config(segment_bytes: u32, planted: Option<Planted>) -> LedgerConfig {
    LedgerConfig { segment_bytes, checkpoint_bytes: 8 << 10, planted, ..LedgerConfig::default() }
}

/// The clocks of a machine that was just started, some time after `before`.
pub fn later(before: Times, dice: &mut Dice) -> Times {
    let wall = before.wall.0;
    // In between somebody may have set the clock.
    let wall = match dice.roll(6) {
        0 => wall + TEN_YEARS,
        1 => wall.saturating_sub(TEN_YEARS).max(START.wall.0 - TEN_YEARS),
        _ => wall + dice.roll(60) * SECOND,
    };
    Times { boot: Moment(1 + dice.roll(SECOND)), wall: Timestamp(wall.min(START.wall.0 + 2 * TEN_YEARS)) }
}

impl Host {
    /// Opens what `storage` holds.
    ///
    /// No two hosts are given the same `seed`: their ids would be the same. `recent_bytes` is what is kept of content in memory.
    pub fn open(
        storage: Arc<dyn Storage>,
        config: &LedgerConfig,
        times: Times,
        seed: u64,
        recent_bytes: usize,
    ) -> Result<(Self, Recovery)> {
        let mut mesh = Mesh(QueuesFold::new(5));
        let (ledger, recovery) = Ledger::open(storage, config, &mut mesh)?;
        let (queues, _) = Queues::open(mesh.0, ledger.clone(), times, seed, recent_bytes)?;
        let ids = queues.names().into_values().collect();
        let mut host = Self {
            ledger,
            queues,
            times,
            ids,
            tokens: Vec::new(),
            known: Vec::new(),
            taking: None,
            next_payload: 1,
        };
        host.known = host.all_jobs()?.into_iter().map(|(queue, info)| (queue, info.id)).collect();
        Ok((host, recovery))
    }

    /// The last batch that was written.
    pub fn last(&self) -> Lsn {
        self.ledger.status().last
    }

    pub fn queue(&self, name: &str) -> QueueId {
        self.queues.find(name).unwrap()
    }

    /// Makes sure that the queues are there.
    pub fn declare(&mut self) -> Result<()> {
        for (name, config) in queues() {
            match self.queues.declare(self.times, &name, &config) {
                Err(error) if error.kind() != ErrorKind::Conflict => return Err(error),
                // One that was configured otherwise is there.
                _ => {}
            }
        }
        self.ids = self.queues.names().into_values().collect();
        Ok(())
    }

    /// Waits until everything is on the disk.
    pub fn sync(&self) -> Result<Lsn> {
        let last = self.last();
        self.ledger.sync(last, Durability::Fsync)?;
        Ok(last)
    }

    /// One operation, whatever the dice say. Refusals are no errors, failures of the disk are.
    pub fn step(&mut self, dice: &mut Dice) -> Result<()> {
        match self.operate(dice) {
            Err(error) if is_failure(&error) => Err(error),
            _ => Ok(()),
        }
    }

    fn tokens_of(&self, queue: QueueId, most: usize) -> Vec<Token> {
        let of_one = self.tokens.iter().filter(|(of, _)| *of == queue);
        of_one.map(|(_, token)| *token).take(most).collect()
    }

    fn operate(&mut self, dice: &mut Dice) -> Result<()> {
        if self.ids.is_empty() {
            return self.declare();
        }
        let times = self.times;
        let queue = self.ids[dice.roll(self.ids.len() as u64) as usize];
        let job = match dice.roll(self.known.len() as u64 + 1) as usize {
            0 => (queue, JobId(dice.roll(3).into())),
            nth => self.known[nth - 1],
        };
        let held = match dice.roll(self.tokens.len() as u64 + 1) as usize {
            0 => (queue, Token { job: job.1, attempt: 1, nonce: dice.next() }),
            nth => self.tokens[nth - 1],
        };
        match dice.roll(44) {
            0..12 => self.enqueue(queue, 1 + dice.roll(6).saturating_sub(3), dice)?,
            12..20 => {
                let worker = WorkerId(1 + dice.roll(2));
                let (most, bytes_max) = (1 + dice.roll(3) as usize, dice.roll(300) as usize);
                let options = ReserveOptions::default();
                let given = if dice.roll(3) == 0 {
                    let payload = self.payload();
                    let done = self.tokens_of(queue, 2);
                    let acks = done.iter().map(|token| (*token, Some(&*payload)));
                    let turn =
                        self.queues.ack_and_reserve(times, queue, acks, worker, options, most, bytes_max)?;
                    turn.value.1
                } else {
                    self.queues.reserve(times, queue, worker, options, most, bytes_max, None)?.value
                };
                for job in given {
                    assert!(is_payload(job.content.payload()), "{job:?} has other bytes");
                    self.tokens.push((queue, job.token));
                }
                if self.tokens.len() > 20 {
                    self.tokens.drain(..5);
                }
            }
            20..25 => {
                let payload = self.payload();
                let result = (dice.roll(3) == 0).then_some(&*payload);
                done(self.queues.ack(times, held.0, held.1, result)?);
            }
            25 => {
                let tokens = self.tokens_of(held.0, 4);
                done(self.queues.ack_many(times, held.0, &tokens)?);
            }
            26..29 => {
                let nack = Nack { message: "it failed", detail: "in a test", delay: None };
                done(self.queues.nack(times, held.0, held.1, nack)?);
            }
            29 => {
                let nack = Nack { message: "no", ..Nack::default() };
                done(self.queues.reject(times, held.0, held.1, nack)?);
            }
            30 => done(self.queues.release(times, held.0, held.1)?),
            31 => done(self.queues.snooze(times, held.0, held.1, Duration::from_secs(dice.roll(9)))?),
            32 => {
                let lease = Some(Duration::from_secs(1 + dice.roll(100)));
                done(self.queues.extend(times, held.0, held.1, lease)?);
            }
            33..35 => done(self.queues.cancel(times, job.0, job.1, "by a test")?),
            35 => match dice.roll(2) {
                0 => done(self.queues.redrive(times, job.0, &[job.1])?),
                _ => done(self.queues.redrive_dead(times, queue, 2)?),
            },
            36 => match dice.roll(3) {
                0 => {
                    let state = JobState::ALL[dice.roll(9) as usize];
                    done(self.queues.purge(times, queue, state)?);
                }
                _ => done(self.queues.remove(times, job.0, job.1)?),
            },
            37 => match dice.roll(4) {
                0 => done(self.queues.pause(times, queue)?),
                1 => done(self.queues.drain(times, queue)?),
                _ => done(self.queues.resume(times, queue)?),
            },
            38 => {
                let name = ["hourly", "daily"][dice.roll(2) as usize];
                if dice.roll(3) == 0 {
                    done(self.queues.unschedule(times, queue, name)?);
                } else {
                    let (cron, payload) = (format!("@{name}"), self.payload());
                    let schedule = Schedule { cron, payload, ..Schedule::new(name) };
                    done(self.queues.schedule(times, queue, &schedule)?);
                }
            }
            39 => {
                let by = dice.roll(3) * dice.roll(4000) * SECOND;
                self.times.boot.0 += by;
                self.times.wall.0 += by;
                done(self.queues.tick(self.times)?);
                self.note_jobs()?;
            }
            40 => match dice.roll(2) {
                0 => done(self.queues.worker_gone(times, WorkerId(1 + dice.roll(2)))?),
                _ => {
                    let mut config = self.queues.config(queue)?;
                    config.max_attempts = 1 + dice.roll(3) as u16;
                    done(self.queues.configure(times, queue, &config)?);
                }
            },
            41 => self.clean()?,
            42 => drop(self.ledger.tend(Moment(0))),
            _ => self.checkpoint()?,
        }
        Ok(())
    }

    fn enqueue(&mut self, queue: QueueId, count: u64, dice: &mut Dice) -> Result<()> {
        if self.known.len() > 24 {
            self.note_jobs()?;
            if self.known.len() > 24 {
                return Ok(());
            }
        }
        let jobs: Vec<(Vec<u8>, EnqueueOptions)> =
            (0..count).map(|_| (self.payload(), options(dice))).collect();
        let jobs: Vec<(&[u8], &EnqueueOptions)> =
            jobs.iter().map(|(payload, options)| (&payload[..], options)).collect();
        let enqueued = match &jobs[..] {
            [(payload, options)] => {
                vec![self.queues.enqueue(self.times, queue, payload, options)?.value]
            }
            many => self.queues.enqueue_many(self.times, queue, many)?.value,
        };
        self.known.extend(enqueued.into_iter().map(|enqueued| (queue, enqueued.id())));
        Ok(())
    }

    /// The bytes of a payload that no other job has.
    fn payload(&mut self) -> Vec<u8> {
        self.next_payload += 1;
        payload_of(self.next_payload << 32 | self.times.wall.0 >> 32)
    }

    fn note_jobs(&mut self) -> Result<()> {
        self.known = self.all_jobs()?.into_iter().map(|(queue, info)| (queue, info.id)).collect();
        Ok(())
    }

    /// Begins a checkpoint, or goes on with the one that was begun.
    fn checkpoint(&mut self) -> Result<()> {
        let (mut checkpoint, mut imaging) = match self.taking.take() {
            Some(taking) => taking,
            None => (self.ledger.checkpoint()?, Imaging::default()),
        };
        if self.queues.image(self.times, &mut imaging, &mut checkpoint)? {
            return checkpoint.finish();
        }
        self.taking = Some((checkpoint, imaging));
        Ok(())
    }

    fn clean(&mut self) -> Result<()> {
        let Some(cleanable) = self.ledger.cleanable() else { return Ok(()) };
        let mut kept = Vec::new();
        cleanable.entries(|place, entry| {
            kept.push((place, entry.owner, entry.kind, entry.bytes.to_vec()));
            Ok(())
        })?;
        for (place, owner, kind, bytes) in kept {
            done(self.queues.rewrite(self.times, place, Entry { owner, kind, bytes: &bytes })?);
        }
        Ok(())
    }

    fn all_jobs(&self) -> Result<Vec<(QueueId, JobInfo)>> {
        let mut all = Vec::new();
        for queue in &self.ids {
            for state in JobState::ALL {
                let mut cursor = None;
                loop {
                    let part = self.queues.list(self.times, *queue, state, cursor, 1000)?;
                    all.extend(part.jobs.into_iter().map(|info| (*queue, info)));
                    cursor = part.next;
                    if cursor.is_none() {
                        break;
                    }
                }
            }
        }
        Ok(all)
    }

    /// Everything, looked at from outside; and whether the numbers agree with it.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn look(&self) -> std::result::Result<Seen, String> {
        self.look_at(true)
    }

    fn look_at(&self, with_content: bool) -> std::result::Result<Seen, String> {
        let told = |error: Error| error.to_string();
        let mut seen = Seen { tokens: self.tokens.clone(), queues: Vec::new() };
        for (name, queue) in self.queues.names() {
            let stats = self.queues.stats(self.times, queue).map_err(told)?;
            let config = self.queues.config(queue).map_err(told)?;
            let schedules = self.queues.schedules(queue).map_err(told)?;
            let schedules = schedules.into_iter().map(|(schedule, _)| schedule.name).collect();
            seen.queues.push(SeenQueue {
                id: queue,
                name,
                config,
                mode: (stats.paused, stats.draining),
                schedules,
                jobs: BTreeMap::new(),
            });
        }
        let mut counts = BTreeMap::new();
        for (queue, info) in self.all_jobs().map_err(told)? {
            *counts.entry((queue, info.state)).or_insert(0u64) += 1;
            let content = if with_content { Some(self.content(queue, &info)?) } else { None };
            let job = SeenJob { info, content };
            let found = seen.queues.iter_mut().find(|found| found.id == queue).expect("it has a name");
            let id = job.info.id;
            if let Some(twice) = found.jobs.insert(id, job) {
                return Err(format!("{id} is {:?} too", twice.info.state));
            }
        }
        for queue in &self.ids {
            let stats = self.queues.stats(self.times, *queue).map_err(told)?;
            for state in JobState::ALL {
                let listed = counts.get(&(*queue, state)).copied().unwrap_or(0);
                if stats.count(state) != listed {
                    return Err(format!("{listed} are {state:?}, counted {}", stats.count(state)));
                }
            }
        }
        Ok(seen)
    }

    fn content(&self, queue: QueueId, info: &JobInfo) -> std::result::Result<SeenContent, String> {
        let content = self.queues.content(queue, info.id);
        let content = content.map_err(|error| format!("content of {}: {error}", info.id))?;
        if content.payload().len() != info.payload_bytes as usize || !is_payload(content.payload()) {
            return Err(format!("{} has other bytes", info.id));
        }
        let result = self.queues.result(queue, info.id);
        let result = result.map_err(|error| format!("result of {}: {error}", info.id))?;
        let result = result.map(|result| result.payload().to_vec());
        if result.is_some() != info.has_result || !result.as_deref().is_none_or(is_payload) {
            return Err(format!("{} has another result", info.id));
        }
        let headers = content.headers().into_iter();
        Ok(SeenContent {
            headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            payload: content.payload().to_vec(),
            result,
        })
    }

    /// Whether what was just opened is what `was` became when its host died; and no lease of before is worth anything.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self, was: &Seen, or: Option<&Seen>) -> std::result::Result<(), String> {
        let is = self.look()?;
        let (one, other) = (is.follows(was), or.map(|or| is.follows(or)));
        match (one, other) {
            (Err(_), Some(Ok(()))) | (Ok(()), _) => {}
            // An operation of several batches, cut between two of them: job by job it is one or the other.
            (Err(_), Some(Err(_))) => is.is_between(was, or.expect("it was compared"))?,
            (Err(fault), None) => return Err(fault),
        }
        for (queue, token) in &was.tokens {
            let found = is.queues.iter().find(|found| found.id == *queue);
            let before = found.and_then(|found| found.jobs.get(&token.job)).map(|job| job.info.clone());
            let told = self.queues.ack(self.times, *queue, *token, None).map_err(|error| error.kind());
            // One that was acked in time hears so again, and nothing is changed.
            match told {
                Err(ErrorKind::LeaseLost | ErrorKind::NotFound) => {}
                Ok(outcome) if outcome.lsn == Lsn::NONE => {}
                other => return Err(format!("{token:?} of the host before: {other:?}")),
            }
            let after = self.queues.info(self.times, *queue, token.job).ok();
            if before != after {
                return Err(format!("{token:?} of the host before changed its job"));
            }
        }
        Ok(())
    }
}

fn done<T>(outcome: Outcome<T>) {
    drop(outcome);
}

/// Whether the disk is to blame.
pub fn is_failure(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Frozen
            | ErrorKind::StorageFull
            | ErrorKind::Io
            | ErrorKind::Interrupted
            | ErrorKind::Corrupt
    )
}

/// Everything that can be seen of all queues.
#[derive(Clone, Debug)]
pub struct Seen {
    queues: Vec<SeenQueue>,
    tokens: Vec<(QueueId, Token)>,
}

#[derive(Clone, Debug)]
struct SeenQueue {
    id: QueueId,
    name: Arc<str>,
    config: QueueConfig,
    mode: (bool, bool),
    schedules: BTreeSet<String>,
    jobs: BTreeMap<JobId, SeenJob>,
}

#[derive(Clone, Debug)]
struct SeenJob {
    info: JobInfo,
    /// None where the disk could not be asked.
    content: Option<SeenContent>,
}

#[derive(Clone, Debug, PartialEq)]
struct SeenContent {
    headers: Vec<(String, String)>,
    payload: Vec<u8>,
    result: Option<Vec<u8>>,
}

/// What a job is, whatever time does to it.
#[derive(Clone, Debug, PartialEq)]
struct Kept {
    /// None: it waits.
    over: Option<JobState>,
    attempt: u16,
    priority: u8,
    group: Option<String>,
    unique_key: Option<String>,
    redrives: u32,
    failures: usize,
    content: Option<SeenContent>,
}

impl Kept {
    fn content_fits(&self, expected: &Self) -> bool {
        expected.content.is_none() || self.content == expected.content
    }

    fn fits(&self, expected: &Self) -> bool {
        match &expected.content {
            Some(_) => self == expected,
            None => Self { content: None, ..self.clone() } == *expected,
        }
    }
}

impl SeenJob {
    fn kept(&self) -> Kept {
        let Self { info, content } = self;
        let over = info.state.is_terminal().then_some(info.state);
        Kept {
            over,
            attempt: info.attempt,
            priority: info.priority,
            group: info.group.clone(),
            unique_key: info.unique_key.clone().filter(|_| over.is_none()),
            redrives: info.redrives,
            failures: info.failures.len(),
            content: content.clone(),
        }
    }
}

impl Seen {
    /// By queue and id, what must be there when the host of this has died.
    fn left(&self) -> BTreeMap<(Arc<str>, JobId), Kept> {
        let mut left = BTreeMap::new();
        let mut letters = Vec::new();
        for queue in &self.queues {
            for (id, job) in &queue.jobs {
                let mut kept = job.kept();
                if job.info.state == JobState::Leased {
                    kept.failures = (kept.failures + 1).min(10);
                    if job.info.cancelling {
                        kept.over = Some(JobState::Cancelled);
                        kept.unique_key = None;
                        if queue.config.retention.cancelled.age.is_zero() {
                            continue;
                        }
                    } else if job.info.attempt >= job.info.max_attempts {
                        kept.over = Some(JobState::Dead);
                        kept.unique_key = None;
                        if let Some(to) = &queue.config.dead_letter_to {
                            letters.push((Arc::clone(&queue.name), to.as_str(), *id, kept));
                            continue;
                        }
                    }
                }
                left.insert((Arc::clone(&queue.name), *id), kept);
            }
        }
        for (from, to, id, mut kept) in letters {
            let target = self.queues.iter().find(|queue| &*queue.name == to);
            match target.filter(|target| !target.mode.1 && !target.jobs.contains_key(&id)) {
                Some(target) => {
                    kept.over = None;
                    (kept.attempt, kept.redrives) = (0, 0);
                    if let Some(content) = &mut kept.content {
                        content.headers.push((flowmesh::queue::DEAD_FROM.to_owned(), from.to_string()));
                    }
                    left.insert((Arc::clone(&target.name), id), kept);
                }
                // Nobody takes it: it is dead where it was.
                None => drop(left.insert((from, id), kept)),
            }
        }
        left
    }

    /// Whether this is what `was` became when its host died.
    fn follows(&self, was: &Self) -> std::result::Result<(), String> {
        if self.queues.len() != was.queues.len() {
            return Err(format!("{} queues, {} were there", self.queues.len(), was.queues.len()));
        }
        for (is, was) in self.queues.iter().zip(&was.queues) {
            let (name, config) = (is.name == was.name, is.config.difference(&was.config).is_none());
            if !name || !config || is.mode != was.mode || is.schedules != was.schedules {
                let shown = |of: &SeenQueue| format!("{}: {:?} {:?}", of.name, of.mode, of.schedules);
                return Err(format!("queue {}, but was {}; same settings: {config}", shown(is), shown(was)));
            }
        }
        let (is, left) = (self.left(), was.left());
        for (job, expected) in &left {
            match is.get(job) {
                None => return Err(format!("{job:?} is gone, expected {expected:?}")),
                Some(found) if !found.fits(expected) => {
                    return Err(format!("{job:?} is {found:?}, expected {expected:?}"));
                }
                Some(_) => {}
            }
        }
        match is.iter().find(|(job, _)| !left.contains_key(*job)) {
            Some((job, found)) => Err(format!("{job:?} was not there: {found:?}")),
            None => Ok(()),
        }
    }

    /// Whether each job is as it was before an operation, or as it was after.
    fn is_between(&self, before: &Self, after: &Self) -> std::result::Result<(), String> {
        let (is, before, after) = (self.left(), before.left(), after.left());
        for job in is.keys().chain(before.keys()).chain(after.keys()) {
            let found = is.get(job);
            let fits = |expected: Option<&Kept>| match (found, expected) {
                (Some(found), Some(expected)) => found.fits(expected),
                (found, expected) => found.is_none() && expected.is_none(),
            };
            // One that was handed out and given back in one operation may have been cut while it was leased.
            let leased = match (found, before.get(job), after.get(job)) {
                (Some(found), Some(before), after) if after.is_none_or(|after| !before.fits(after)) => {
                    let over = found.over.is_none() || after.is_some_and(|after| found.over == after.over);
                    over && found.attempt == before.attempt + 1 && found.content_fits(before)
                }
                _ => false,
            };
            if !leased && !fits(before.get(job)) && !fits(after.get(job)) {
                return Err(format!(
                    "{job:?} is {found:?}, neither {:?} nor {:?}",
                    before.get(job),
                    after.get(job)
                ));
            }
        }
        Ok(())
    }
}

/// What was seen after each batch.
#[derive(Clone, Default)]
pub struct History {
    /// By LSN; none between the batches of one operation.
    seen: Vec<Option<Arc<Seen>>>,
}

impl History {
    /// Notes what is there after an operation, if it wrote anything.
    pub fn note(&mut self, host: &Host) {
        self.note_with(host, true);
    }

    /// The same without the content of jobs, which lies on a disk that may fail.
    pub fn note_states(&mut self, host: &Host) {
        self.note_with(host, false);
    }

    fn note_with(&mut self, host: &Host, with_content: bool) {
        let last = host.last().0 as usize;
        if self.seen.len() <= last {
            self.seen.resize(last, None);
            self.seen.push(Some(Arc::new(host.look_at(with_content).expect("nothing happened to it"))));
        }
    }

    /// The last batch that was noted.
    pub fn last(&self) -> Lsn {
        Lsn((self.seen.len() as u64).saturating_sub(1))
    }

    /// What is there before a host that was just opened goes on: up to where it was cut all is as it was, and what
    /// opening wrote is seen with it.
    pub fn until(&self, host: &Host, cut: Lsn) -> Self {
        let mut seen = self.seen[..=cut.0 as usize].to_vec();
        let is = Arc::new(host.look().expect("it was just compared"));
        // It may have been cut between two batches of one operation.
        seen[cut.0 as usize].get_or_insert_with(|| Arc::clone(&is));
        seen.resize(host.last().0 as usize + 1, Some(is));
        Self { seen }
    }

    /// Compares what was opened and ends with `last`.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self, host: &Host, last: Lsn) -> std::result::Result<(), String> {
        let last = last.0 as usize;
        if last >= self.seen.len() {
            return Err(format!("batch {last} was never written"));
        }
        match &self.seen[last] {
            Some(seen) => host.check(seen, None),
            None => {
                let before = self.seen[..last].iter().rev().find_map(Option::as_deref);
                let after = self.seen[last..].iter().find_map(Option::as_deref);
                match (before, after) {
                    (Some(before), after) => host.check(before, after),
                    // While the queues were being declared for the first time.
                    (None, _) => host.look().map(drop),
                }
            }
        }
    }
}

/// The queues of all crash tests.
fn queues() -> Vec<(Name, QueueConfig)> {
    let keep = |age: u64| Keep { age: Duration::from_secs(age), count: 1000 };
    let retention =
        Retention { done: keep(3600), dead: keep(7 * 86_400), cancelled: keep(3600), expired: keep(60) };
    let mail = QueueConfig {
        max_attempts: 2,
        backoff: Backoff::Fixed(Duration::from_secs(2)),
        dead_letter_to: Some(Name::parse("graves").unwrap()),
        retention,
        durability: Durability::Os,
        ..QueueConfig::default()
    };
    let strict = QueueConfig {
        max_attempts: 3,
        lease: Duration::from_secs(100),
        groups: GroupLimits { concurrency: Some(1), ..GroupLimits::default() },
        cancel_grace: Duration::from_secs(5),
        durability: Durability::Os,
        ..QueueConfig::default()
    };
    let graves = QueueConfig { retention, durability: Durability::Os, ..QueueConfig::default() };
    let named = |name: &str, config| (Name::parse(name).unwrap(), config);
    vec![named("mail", mail), named("strict", strict), named("graves", graves)]
}

fn options(dice: &mut Dice) -> EnqueueOptions {
    let mut some = |one_in: u64| dice.roll(one_in) == 0;
    let (delayed, unique, grouped, titled, mortal, own) =
        (some(4), some(4), some(3), some(3), some(5), some(4));
    EnqueueOptions {
        priority: dice.roll(3) as u8,
        delay: Duration::from_secs(if delayed { dice.roll(100) } else { 0 }),
        ttl: mortal.then(|| Duration::from_secs(1 + dice.roll(5000))),
        unique: unique.then(|| Unique {
            key: format!("k{}", dice.roll(3)),
            scope: [Scope::Waiting, Scope::Active, Scope::Window(Duration::from_secs(50))]
                [dice.roll(3) as usize],
            conflict: [
                OnConflict::ReturnExisting,
                OnConflict::Replace,
                OnConflict::Extend,
                OnConflict::KeepLast,
            ][dice.roll(4) as usize],
        }),
        group: grouped.then(|| format!("g{}", dice.roll(2))),
        headers: if titled { vec![("title".to_owned(), format!("{}", dice.roll(1000)))] } else { Vec::new() },
        content_type: titled.then(|| "text/plain".to_owned()),
        max_attempts: own.then(|| 1 + dice.roll(3) as u16),
        ..EnqueueOptions::default()
    }
}

/// The bytes of payload `number`: of any length, and often with zeros at the end, which is what lost bytes look like.
pub fn payload_of(number: u64) -> Vec<u8> {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let length = match mixed >> 61 {
        0 => 8,
        1 => 400 + (mixed >> 32 & 0x1ff) as usize,
        _ => 8 + (mixed >> 40 & 0x7f) as usize,
    };
    let fill = if mixed >> 20 & 1 == 0 { 0 } else { mixed as u8 };
    let mut bytes = vec![fill; length];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// Whether these are the bytes of a payload, all of them.
pub fn is_payload(bytes: &[u8]) -> bool {
    bytes.first_chunk().is_some_and(|number| payload_of(u64::from_le_bytes(*number)) == bytes)
}

pub const SECOND: u64 = 1_000_000_000;
const TEN_YEARS: u64 = 10 * 365 * 86_400 * SECOND;
pub const START: Times = Times { boot: Moment(100 * SECOND), wall: Timestamp(1_700_000_000 * SECOND) };
