//! Queues as JavaScript calls them; the other half of [`calls`](crate::calls).
//!
//! Whatever is asked is answered at once when the core can, in the same call: so it is in the host unless the disk is
//! to be waited for. Else the answer is pending under a number, which is announced when `takeReply` will find it.
//! Answers of both kinds look the same. Below zero: the number of a pending answer, negated. From zero on: a count of
//! bytes in the scratch memory, or what came of settling, a [`durability_code`]. Text is JSON, and a buffer holds what
//! the scratch memory has no room for.
//!
//! A job as it lies in the scratch memory (`src/job.ts`), from a multiple of 8 on:
//!
//!   offset size  field            (little-endian)
//!        0    4  record bytes     the padding to a multiple of 8 included
//!        4    2  attempt
//!        6    2  attempts it may have
//!        8    4  redrives
//!       12    1  priority
//!       13    1  flags            1: it has a group
//!       14    2  content type bytes
//!       16    4  group bytes
//!       20    4  header bytes     (u32 name bytes, u32 value bytes, name, value) for each
//!       24    4  payload bytes
//!       28    4  reserved
//!       32    8  lease            ms, a double
//!       40    8  key              what `settle` and the like name it by, a double
//!       48   36  id               as text
//!       84    4  reserved
//!       88       payload, content type, group, headers
//!
//! Jobs on their way in (`enqueueJobs`): u32 payload bytes, u32 option bytes * 4 + type (0 bytes, 1 text, 2 JSON),
//! payload, options as JSON, without padding.
#![forbid(unsafe_code)]

use crate::{
    calls::{job, mesh, text},
    jobs::Made,
    js::{Answer, Call, TextBuffer},
    options::{millis, parse},
    queue_options::{
        Config, Enqueueing, ID_BYTES, RateFields, Safety, Scheduling, durability_code, id_text, info_json,
        inspection_json, ms, pack_receipts, schedule_json, stats_json,
    },
    state::State,
};
use flowmesh::{
    Durability, Error, ErrorKind, Job, Name, PendingReply, Queue, Result, Wait,
    queue::{
        AckRequest, Answered, Cancelled, Content, Cursor, EnqueueOptions, JobId, JobState, Listed,
        NewJobRequest, QueueReply, QueueRequest, Refused, ReserveOptions, Token,
    },
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{borrow::Cow, sync::LazyLock, time::Duration};

/// An answer that is not there yet, and what to do with it.
pub(crate) struct Pending {
    reply: PendingReply,
    asked: Asked,
}

/// What an answer is for.
pub(crate) enum Asked {
    /// A queue, to be known by this number.
    Queue { mesh: u64, name: String, id: u64 },
    /// Anything that is told as it is.
    Told,
    /// Jobs of this queue, whose leases are to be kept alive or not.
    Jobs { queue: Queue, keep: bool },
    /// The end of jobs, among which those at these places were left out.
    Settled { jobs: Vec<(u64, Job)>, spared: Vec<usize> },
    /// The same of acks, and the jobs that come after them, whose leases are to be kept alive or not.
    Next { queue: Queue, jobs: Vec<(u64, Job)>, spared: Vec<usize>, keep: bool },
    /// A longer lease of this job.
    Extended(u64),
    /// That it was told how far this job has come.
    Progress(u64),
}

/// What is asked of a queue as JSON.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "ask", deny_unknown_fields)]
enum Asking {
    Stats {},
    Config {},
    Configure { config: Box<Config> },
    Cancel { job: String, why: String },
    Redrive { jobs: Vec<String> },
    RedriveDead { most: u64 },
    RedriveAt { count: u64, rate: RateFields },
    Purge { state: String },
    Remove { job: String },
    Pause {},
    Resume {},
    Drain {},
    Unschedule { name: String },
    Schedules {},
    List { state: String, cursor: Option<String>, most: u32 },
    Peek { job: String },
    Content { job: String },
    Result { job: String },
}

impl Asking {
    fn request(self, queue: &Queue) -> Result<QueueRequest<'static>> {
        let queue = queue.id();
        let id = |text: &str| JobId::parse(text);
        Ok(match self {
            Self::Stats {} => QueueRequest::Stats { queue },
            Self::Config {} => QueueRequest::Config { queue },
            Self::Configure { config } => {
                QueueRequest::Configure { queue, config: Box::new(config.config()?) }
            }
            Self::Cancel { job, why } => QueueRequest::Cancel { queue, job: id(&job)?, why: why.into() },
            Self::Redrive { jobs } => {
                let jobs = jobs.iter().map(|job| id(job)).collect::<Result<_>>()?;
                QueueRequest::Redrive { queue, jobs }
            }
            Self::RedriveDead { most } => QueueRequest::RedriveDead { queue, most },
            Self::RedriveAt { count, rate } => QueueRequest::RedriveAt { queue, count, rate: rate.rate() },
            Self::Purge { state } => QueueRequest::Purge { queue, state: JobState::parse(&state)? },
            Self::Remove { job } => QueueRequest::Remove { queue, job: id(&job)? },
            Self::Pause {} => QueueRequest::Pause { queue },
            Self::Resume {} => QueueRequest::Resume { queue },
            Self::Drain {} => QueueRequest::Drain { queue },
            Self::Unschedule { name } => QueueRequest::Unschedule { queue, name: name.into() },
            Self::Schedules {} => QueueRequest::Schedules { queue },
            Self::List { state, cursor, most } => {
                let cursor = cursor.as_deref().map(read_cursor).transpose()?;
                QueueRequest::List { queue, state: JobState::parse(&state)?, cursor, most }
            }
            Self::Peek { job } => QueueRequest::Info { queue, job: id(&job)? },
            Self::Content { job } => QueueRequest::Content { queue, job: id(&job)? },
            Self::Result { job } => QueueRequest::Outcome { queue, job: id(&job)? },
        })
    }
}

// ---------- queues

/// Arguments: the mesh, the queue's name, its settings. The number the queue will be known by is that of the answer.
pub(crate) fn declare_queue(state: &State, call: &Call) -> Result<Answer> {
    let (name, config) = (text(call, 1)?, parse::<Config>(&text(call, 2)?)?.config()?);
    // In a directory without queues the first one makes files: not for one that is refused.
    Name::parse(&name)?;
    config.validate()?;
    let request = QueueRequest::Declare { name: name.clone().into(), config: Box::new(config) };
    look_up(state, call, name, request)
}

/// Arguments: the mesh, the queue's name.
pub(crate) fn find_queue(state: &State, call: &Call) -> Result<Answer> {
    let name = text(call, 1)?;
    let request = QueueRequest::Find { name: name.clone().into() };
    look_up(state, call, name, request)
}

fn look_up(state: &State, call: &Call, name: String, request: QueueRequest<'static>) -> Result<Answer> {
    let asked = Asked::Queue { mesh: call.id(0)?, name, id: state.new_id() };
    let reply = mesh(state, call, "mesh.queue")?.start_request_queues(request)?;
    state.ask(reply, asked)
}

pub(crate) fn queue_names(state: &State, call: &Call) -> Result<Answer> {
    let reply = mesh(state, call, "mesh.queues")?.start_request_queues(QueueRequest::Names)?;
    state.ask(reply, Asked::Told)
}

pub(crate) fn forget_queue(state: &State, call: &Call) -> Result<Answer> {
    drop(state.queues.take(call.id(0)?));
    Ok(Answer::Nothing)
}

fn queue(state: &State, call: &Call, durability: Option<Durability>) -> Result<Queue> {
    state.queues.with(call.id(0)?, "queue.request", |queue| {
        Ok(durability.map_or_else(|| queue.clone(), |wanted| queue.durable(wanted)))
    })
}

/// How safe a call wants to be: 0 for what the queue says, -1 os, -2 fsync, above 0 an interval in ms.
fn durability(call: &Call, index: usize) -> Result<Option<Durability>> {
    let number = call.number(index)?;
    Ok(match number {
        0.0 => None,
        -1.0 => Some(Durability::Os),
        -2.0 => Some(Durability::Fsync),
        interval => Some(Durability::Interval(millis(interval))),
    })
}

/// Arguments: the queue, what is asked as JSON, how safe it is to be.
pub(crate) fn ask_queue(state: &State, call: &Call) -> Result<Answer> {
    let queue = queue(state, call, durability(call, 2)?)?;
    let request = parse::<Asking>(&text(call, 1)?)?.request(&queue)?;
    state.ask(queue.start(request, None)?, Asked::Told)
}

/// Arguments: the queue, the schedule as JSON, its payload, how safe it is to be.
pub(crate) fn schedule(state: &State, call: &Call) -> Result<Answer> {
    let queue = queue(state, call, durability(call, 3)?)?;
    let mut buffer = TextBuffer::default();
    let schedule = parse::<Scheduling>(&text(call, 1)?)?.schedule(call.payload(2, &mut buffer)?)?;
    schedule.validate()?;
    let request = QueueRequest::Schedule { queue: queue.id(), schedule: Box::new(schedule) };
    state.ask(queue.start(request, None)?, Asked::Told)
}

// ---------- jobs on their way in

/// Arguments: the queue, the memory with the packed jobs, how many bytes they take, how safe they are to be.
pub(crate) fn enqueue_jobs(state: &State, call: &Call) -> Result<Answer> {
    let queue = queue(state, call, durability(call, 3)?)?;
    let packed = call.bytes(1)?.get(..call.id(2)? as usize).unwrap_or_default();
    state.ask(start_enqueue(&queue, packed)?, Asked::Told)
}

/// The same on a thread, for jobs that may have to wait for room on their way to the host.
pub(crate) fn start_enqueue_jobs(state: &State, call: &Call) -> Result<Answer> {
    let queue = queue(state, call, durability(call, 3)?)?;
    let packed = call.bytes(1)?.get(..call.id(2)? as usize).unwrap_or_default().to_vec();
    job(state, move || start_enqueue(&queue, &packed).map(Made::Reply))
}

fn start_enqueue(queue: &Queue, packed: &[u8]) -> Result<PendingReply> {
    let packed = read_jobs(packed)?;
    let jobs = packed.iter().map(|(payload, options)| NewJobRequest::new(payload, options)).collect();
    queue.start(QueueRequest::Enqueue { queue: queue.id(), jobs }, None)
}

type NewJob<'a> = (&'a [u8], Cow<'static, EnqueueOptions>);

fn read_jobs(mut packed: &[u8]) -> Result<Vec<NewJob<'_>>> {
    let mut jobs = Vec::with_capacity(packed.len() / 64);
    while !packed.is_empty() {
        let (payload_bytes, rest) = split_word(packed)?;
        let (word, rest) = split_word(rest)?;
        let (payload, rest) = rest.split_at_checked(payload_bytes).ok_or_else(cut_short)?;
        let (json, rest) = rest.split_at_checked(word >> 2).ok_or_else(cut_short)?;
        let kind = KINDS.get(word & 3).ok_or_else(cut_short)?;
        let options = if json.is_empty() {
            Cow::Borrowed(kind)
        } else {
            let mut options =
                parse::<Enqueueing>(std::str::from_utf8(json).map_err(|_| cut_short())?)?.options()?;
            if options.content_type.is_none() {
                options.content_type.clone_from(&kind.content_type);
            }
            Cow::Owned(options)
        };
        jobs.push((payload, options));
        packed = rest;
    }
    Ok(jobs)
}

/// What plain jobs of each kind want.
static KINDS: LazyLock<[EnqueueOptions; 3]> = LazyLock::new(|| {
    [None, Some("text/plain; charset=utf-8"), Some("application/json")].map(|content_type| EnqueueOptions {
        content_type: content_type.map(str::to_owned),
        ..EnqueueOptions::default()
    })
});

fn split_word(bytes: &[u8]) -> Result<(usize, &[u8])> {
    let (word, rest) = bytes.split_first_chunk::<4>().ok_or_else(cut_short)?;
    Ok((u32::from_le_bytes(*word) as usize, rest))
}

fn cut_short() -> Error {
    Error::new(ErrorKind::Internal, "node.native").with("packed_jobs", "cut short")
}

// ---------- jobs on their way out

/// Arguments: the queue, the most jobs, the lease in ms (below 0 for theirs), the timeout in ms (below 0 for ever), how
/// safe leasing and settling them is to be, whether the leases are to be extended until the jobs are settled.
pub(crate) fn reserve(state: &State, call: &Call) -> Result<Answer> {
    let queue = queue(state, call, durability(call, 4)?)?;
    let (most, lease, timeout) = (call.number(1)? as usize, lease(call, 2)?, call.number(3)?);
    let (timeout, keep) = ((timeout >= 0.0).then(|| millis(timeout)), call.flag(5)?);
    let reply = queue.start_reserve(most, lease, timeout)?;
    state.ask(reply, Asked::Jobs { queue, keep })
}

/// Argument: the lease in ms, below 0 for none.
pub(crate) fn check_lease(_: &State, call: &Call) -> Result<Answer> {
    ReserveOptions { lease: lease(call, 0)? }.validate()?;
    Ok(Answer::Nothing)
}

fn lease(call: &Call, index: usize) -> Result<Option<Duration>> {
    let lease = call.number(index)?;
    Ok((lease >= 0.0).then(|| millis(lease)))
}

/// Arguments: how many keys lie in the scratch memory, as doubles; how safe it is to be; whether jobs that were
/// cancelled are left out, and told as refused. All are of one queue.
pub(crate) fn ack_jobs(state: &State, call: &Call) -> Result<Answer> {
    let (count, wanted, sparing) = (call.id(0)? as usize, durability(call, 1)?, call.flag(2)?);
    let (jobs, spared) = take_jobs(state, count, sparing)?;
    let tokens = jobs.iter().map(|(_, job)| job.token()).collect();
    settle_all(state, jobs, spared, wanted, |queue| QueueRequest::AckMany { queue: queue.id(), tokens })
}

/// Arguments: the queue, how many keys of its jobs lie in the scratch memory, as doubles, the most jobs to be taken
/// after they are acked, their lease in ms (below 0 for theirs), how safe it is to be. Jobs that were cancelled are left
/// out, and told as refused. The leases of those that are taken are extended until they are settled.
///
/// The answer begins with the bytes of what was refused (u64), and that as JSON, padded to a multiple
/// of 8; the jobs follow.
pub(crate) fn ack_and_reserve(state: &State, call: &Call) -> Result<Answer> {
    let queue = queue(state, call, durability(call, 4)?)?;
    let (count, most, lease) = (call.id(1)? as usize, call.number(2)? as u32, lease(call, 3)?);
    let (jobs, spared) = take_jobs(state, count, true)?;
    let acks = jobs.iter().map(|(_, job)| AckRequest { token: job.token(), result: None }).collect();
    match queue.start(QueueRequest::AckAndReserve { queue: queue.id(), acks, most, lease }, None) {
        Ok(reply) => state.ask(reply, Asked::Next { queue, jobs, spared, keep: true }),
        Err(error) => {
            state.lease_again(jobs);
            Err(error)
        }
    }
}

/// Arguments: the job's key, its result, the lease in ms of the job to be taken then (below 0 for its own), how safe it
/// is to be. The answer is as of `ackAndReserve`.
pub(crate) fn ack_and_reserve_one(state: &State, call: &Call) -> Result<Answer> {
    let (key, lease, wanted) = (call.id(0)?, lease(call, 2)?, durability(call, 3)?);
    let mut buffer = TextBuffer::default();
    let result = if call.is_missing(1) { None } else { Some(call.payload(1, &mut buffer)?) };
    let job = state.leases.take(key).ok_or_else(settled_before)?;
    let queue = wanted.map_or_else(|| job.queue().clone(), |wanted| job.queue().durable(wanted));
    let acks = vec![AckRequest { token: job.token(), result }];
    let jobs = vec![(key, job)];
    match queue.start(QueueRequest::AckAndReserve { queue: queue.id(), acks, most: 1, lease }, None) {
        Ok(reply) => state.ask(reply, Asked::Next { queue, jobs, spared: Vec::new(), keep: false }),
        Err(error) => {
            state.lease_again(jobs);
            Err(error)
        }
    }
}

type Taken = (Vec<(u64, Job)>, Vec<usize>);

/// The jobs whose keys lie in the scratch memory, and the places of those that were left there.
fn take_jobs(state: &State, count: usize, sparing: bool) -> Result<Taken> {
    let keys: Vec<u64> = {
        let mut scratch = state.scratch()?;
        let (doubles, _) = scratch.bytes().as_chunks::<8>();
        doubles.iter().take(count).map(|double| f64::from_le_bytes(*double) as u64).collect()
    };
    let mut jobs = Vec::with_capacity(keys.len());
    let mut spared = Vec::new();
    for (index, key) in keys.into_iter().enumerate() {
        match state.leases.take(key) {
            Some(job) if sparing && job.is_cancelled() => {
                spared.push(index);
                state.leases.insert(key, job);
            }
            Some(job) => jobs.push((key, job)),
            None => {
                state.lease_again(jobs);
                return Err(settled_before());
            }
        }
    }
    Ok((jobs, spared))
}

/// Arguments: the job's key, how it ends, the result or message, the detail, the delay in ms (below 0 for none), how
/// safe it is to be.
pub(crate) fn settle(state: &State, call: &Call) -> Result<Answer> {
    let (key, how, wanted) = (call.id(0)?, call.id(1)?, durability(call, 5)?);
    let (mut first, mut second) = (TextBuffer::default(), TextBuffer::default());
    let result = if call.is_missing(2) { None } else { Some(call.payload(2, &mut first)?) };
    let words = || String::from_utf8_lossy(result.unwrap_or_default()).into_owned().into();
    let detail = if call.is_missing(3) { "" } else { call.text(3, &mut second)? };
    let delay = call.number(4)?;
    let job = state.leases.take(key).ok_or_else(settled_before)?;
    let token = job.token();
    settle_all(state, vec![(key, job)], Vec::new(), wanted, |queue| {
        let queue = queue.id();
        match how {
            ACK => QueueRequest::Ack { queue, token, result },
            NACK => {
                let delay = (delay >= 0.0).then(|| millis(delay));
                QueueRequest::Nack { queue, token, message: words(), detail: detail.into(), delay }
            }
            REJECT => QueueRequest::Reject { queue, token, message: words(), detail: detail.into() },
            RELEASE => QueueRequest::Release { queue, tokens: vec![token] },
            _ => QueueRequest::Snooze { queue, token, delay: millis(delay) },
        }
    })
}

/// Asks for the end of jobs, which are taken from the table until it is known.
fn settle_all<'a>(
    state: &State,
    jobs: Vec<(u64, Job)>,
    spared: Vec<usize>,
    wanted: Option<Durability>,
    request: impl FnOnce(&Queue) -> QueueRequest<'a>,
) -> Result<Answer> {
    let Some((_, first)) = jobs.first() else {
        let answered = Answered { reply: QueueReply::Done, reached: None };
        return state.settled(jobs, &spared, Ok(answered));
    };
    let queue = wanted.map_or_else(|| first.queue().clone(), |wanted| first.queue().durable(wanted));
    match queue.start(request(&queue), None) {
        Ok(reply) => state.ask(reply, Asked::Settled { jobs, spared }),
        Err(error) => {
            state.lease_again(jobs);
            Err(error)
        }
    }
}

fn settled_before() -> Error {
    Error::new(ErrorKind::LeaseLost, "job.settle").with("reason", "it was settled before")
}

/// Arguments: the job's key, the lease in ms (below 0 for what it was reserved for).
pub(crate) fn extend(state: &State, call: &Call) -> Result<Answer> {
    let (key, lease) = (call.id(0)?, lease(call, 1)?);
    let reply = with_lease(state, key, |job| job.start_extend(lease))?;
    state.ask(reply, Asked::Extended(key))
}

/// Arguments: the job's key, what it tells.
pub(crate) fn progress(state: &State, call: &Call) -> Result<Answer> {
    let (key, mut buffer) = (call.id(0)?, TextBuffer::default());
    let told = call.payload(1, &mut buffer)?;
    let reply = with_lease(state, key, |job| job.start_progress(told))?;
    state.ask(reply, Asked::Progress(key))
}

fn with_lease<R>(state: &State, key: u64, act: impl FnOnce(&Job) -> Result<R>) -> Result<R> {
    let found = state.leases.with(key, "job", |job| act(job).map(Some)).or_else(|error| match error.kind() {
        ErrorKind::Closed if error.operation() == "job" => Ok(None),
        _ => Err(error),
    });
    found?.ok_or_else(settled_before)
}

/// How long the job is still ours, in ms.
pub(crate) fn remaining(state: &State, call: &Call) -> Result<Answer> {
    let left = state.leases.with(call.id(0)?, "job", |job| Ok(job.remaining())).unwrap_or_default();
    Ok(Answer::Number(ms(left)))
}

/// Whether the job is to be given back.
pub(crate) fn is_cancelled(state: &State, call: &Call) -> Result<Answer> {
    Ok(Answer::Flag(state.leases.with(call.id(0)?, "job", |job| Ok(job.is_cancelled())).unwrap_or(true)))
}

/// From now on the job's key is announced when it is to be given back.
pub(crate) fn watch_job(state: &State, call: &Call) -> Result<Answer> {
    let (key, ready) = (call.id(0)?, state.ready()?);
    with_lease(state, key, |job| {
        job.watch_cancel(ready, key);
        Ok(Answer::Nothing)
    })
}

/// The program has forgotten the job; its lease ends by itself.
pub(crate) fn forget_job(state: &State, call: &Call) -> Result<Answer> {
    drop(state.leases.take(call.id(0)?));
    Ok(Answer::Nothing)
}

// ---------- answers

/// The answer that was announced.
pub(crate) fn take_reply(state: &State, call: &Call) -> Result<Answer> {
    let id = call.id(0)?;
    let pending = state.replies.take(id).ok_or_else(|| Error::new(ErrorKind::Closed, "queue.request"))?;
    match pending.reply.try_take() {
        Some(answered) => state.answer(pending.asked, answered),
        None => {
            state.replies.insert(id, pending);
            Ok(Answer::Number(-(id as f64)))
        }
    }
}

/// The same, waiting at most so many microseconds. Meanwhile it is not announced.
pub(crate) fn await_reply(state: &State, call: &Call) -> Result<Answer> {
    let (id, moment) = (call.id(0)?, millis(call.number(1)? / 1000.0));
    let ready = state.ready()?;
    let pending = state.replies.take(id).ok_or_else(|| Error::new(ErrorKind::Closed, "queue.request"))?;
    pending.reply.unwatch();
    match pending.reply.wait(&mut Wait::timeout(moment)) {
        Err(error) if error.kind() == ErrorKind::Timeout && error.operation() == "queue.wait" => {
            pending.reply.watch(ready, id);
            state.replies.insert(id, pending);
            Ok(Answer::Number(-(id as f64)))
        }
        answered => state.answer(pending.asked, answered),
    }
}

/// Nobody waits for it any more; jobs that came go back.
pub(crate) fn cancel_reply(state: &State, call: &Call) -> Result<Answer> {
    drop(state.replies.take(call.id(0)?));
    Ok(Answer::Nothing)
}

/// Follows `startEnqueueJobs`: the answer that its thread began to wait for.
pub(crate) fn watch_reply(state: &State, call: &Call) -> Result<Answer> {
    let (id, ready) = (call.id(0)?, state.ready()?);
    state.replies.with(id, "queue.request", |pending| {
        pending.reply.watch(ready, id);
        Ok(Answer::Nothing)
    })
}

impl Pending {
    pub(crate) fn told(reply: PendingReply) -> Self {
        Self { reply, asked: Asked::Told }
    }
}

impl State {
    /// Gives the answer if it is there; else its number, under which it is announced.
    fn ask(&self, reply: PendingReply, asked: Asked) -> Result<Answer> {
        if let Some(answered) = reply.try_take() {
            return self.answer(asked, answered);
        }
        let id = self.new_id();
        reply.watch(self.ready()?, id);
        self.replies.insert(id, Pending { reply, asked });
        Ok(Answer::Number(-(id as f64)))
    }

    fn answer(&self, asked: Asked, answered: Result<Answered>) -> Result<Answer> {
        match asked {
            Asked::Told => self.tell(answered?),
            Asked::Queue { mesh, name, id } => {
                let QueueReply::Queue { id: number, .. } = answered?.reply else { return Err(unexpected()) };
                let queue =
                    self.meshes.with(mesh, "mesh.queue", |mesh| Ok(mesh.queue_with(number, &name)))?;
                self.queues.insert(id, queue);
                Ok(Answer::Text(json!(id).to_string()))
            }
            Asked::Jobs { queue, keep } => {
                let jobs = queue.jobs(answered?)?;
                let mut packed = Vec::with_capacity(jobs.len() * 256);
                self.lease_all(jobs, keep, &mut packed);
                self.deliver(packed)
            }
            Asked::Next { queue, jobs, spared, keep } => {
                let (Answered { reply, reached }, jobs) = self.unless_failed(answered, jobs)?;
                let QueueReply::Next { each, jobs: next } = reply else { return Err(unexpected()) };
                let refused = self.refused(jobs, &spared, each);
                let next = queue.jobs(Answered { reply: QueueReply::Jobs(next), reached })?;
                let mut packed = Vec::with_capacity(8 + next.len() * 256);
                pack_refused(&refused, &mut packed);
                self.lease_all(next, keep, &mut packed);
                self.deliver(packed)
            }
            Asked::Extended(key) => {
                let left = with_lease(self, key, |job| job.extended(answered))?;
                Ok(Answer::Text(json!(ms(left)).to_string()))
            }
            Asked::Progress(key) => {
                with_lease(self, key, |job| job.told(answered))?;
                Ok(Answer::Text(Value::Null.to_string()))
            }
            Asked::Settled { jobs, spared } => self.settled(jobs, &spared, answered),
        }
    }

    /// What became of jobs that were to end; those that have not ended can be ended again.
    fn settled(&self, jobs: Vec<(u64, Job)>, spared: &[usize], answered: Result<Answered>) -> Result<Answer> {
        let (Answered { reply, reached }, jobs) = self.unless_failed(answered, jobs)?;
        let each = match reply {
            QueueReply::Done => Vec::new(),
            QueueReply::Each(each) => each,
            _ => return Err(unexpected()),
        };
        let refused = self.refused(jobs, spared, each);
        let reached = reached.unwrap_or(Durability::Os);
        let (code, interval) = durability_code(reached);
        if refused.is_empty() && interval == 0.0 {
            return Ok(Answer::Number(f64::from(code)));
        }
        let refused: Value = refused.iter().map(refused_json).collect();
        Ok(Answer::Text(json!({ "reached": Safety::of(reached), "refused": refused }).to_string()))
    }

    fn unless_failed(
        &self,
        answered: Result<Answered>,
        jobs: Vec<(u64, Job)>,
    ) -> Result<(Answered, Vec<(u64, Job)>)> {
        match answered {
            Ok(answered) => Ok((answered, jobs)),
            Err(error) => {
                if error.kind() != ErrorKind::LeaseLost {
                    self.lease_again(jobs);
                }
                Err(error)
            }
        }
    }

    /// Those that did not end, by their places, with the reasons.
    fn refused(
        &self,
        jobs: Vec<(u64, Job)>,
        spared: &[usize],
        each: Vec<std::result::Result<(), Refused>>,
    ) -> Vec<(usize, Error)> {
        let cancelled = |at: &usize| (*at, Error::new(ErrorKind::Cancelled, "job.settle"));
        let mut refused: Vec<(usize, Error)> = spared.iter().map(cancelled).collect();
        let places = (0..jobs.len() + spared.len()).filter(|at| !spared.contains(at));
        for ((job, at), one) in jobs.into_iter().zip(places).zip(each) {
            if let Err(error) = one {
                let error = error.to_error();
                if error.kind() != ErrorKind::LeaseLost {
                    self.lease_again(vec![job]);
                }
                refused.push((at, error));
            }
        }
        refused
    }

    /// Jobs that are this environment's from now on.
    fn lease_all(&self, jobs: Vec<Job>, keep: bool, packed: &mut Vec<u8>) {
        for job in jobs {
            let key = self.new_id();
            if keep {
                job.keep();
            }
            pack_job(&job, key, packed);
            self.leases.insert(key, job);
        }
    }

    fn lease_again(&self, jobs: Vec<(u64, Job)>) {
        for (key, job) in jobs {
            self.leases.insert(key, job);
        }
    }

    fn tell(&self, Answered { reply, reached }: Answered) -> Result<Answer> {
        let value = match reply {
            QueueReply::Enqueued(all) => {
                return self.deliver(pack_receipts(&all, reached.unwrap_or(Durability::Os)));
            }
            QueueReply::Content(Some(content)) => {
                let mut packed = Vec::with_capacity(RECORD_HEADER_BYTES + content.payload().len() + 256);
                pack(&Record::of(&content), &mut packed);
                return self.deliver(packed);
            }
            QueueReply::Done | QueueReply::Content(None) => Value::Null,
            QueueReply::Names(names) => json!(names),
            QueueReply::Config(config) => json!(Config::of(&config)),
            QueueReply::Cancelled(cancelled) => match cancelled {
                Cancelled::Now => json!("now"),
                Cancelled::Asked => json!("asked"),
                Cancelled::Finished(_) => json!("finished"),
            },
            QueueReply::Count(count) => json!(count),
            QueueReply::Drained(idle) => json!(idle),
            QueueReply::Schedules(all) => all.iter().map(schedule_json).collect(),
            QueueReply::Listed(Listed { jobs, next }) => {
                let jobs: Value = jobs.iter().map(info_json).collect();
                json!({ "jobs": jobs, "next": next.map(cursor_text) })
            }
            QueueReply::Info(info) => info_json(&info),
            QueueReply::Stats(stats) => stats_json(&stats),
            _ => return Err(unexpected()),
        };
        Ok(Answer::Text(value.to_string()))
    }

    /// Hands bytes over through the scratch memory, or in a buffer of their own.
    fn deliver(&self, packed: Vec<u8>) -> Result<Answer> {
        let mut scratch = self.scratch()?;
        match scratch.bytes().get_mut(..packed.len()) {
            Some(place) => {
                place.copy_from_slice(&packed);
                Ok(Answer::Number(packed.len() as f64))
            }
            None => Ok(Answer::Bytes(packed)),
        }
    }
}

fn unexpected() -> Error {
    Error::new(ErrorKind::Protocol, "queue.request").with("violation", "another answer than was asked for")
}

fn pack_refused(refused: &[(usize, Error)], packed: &mut Vec<u8>) {
    let json = match refused {
        [] => String::new(),
        refused => Value::from_iter(refused.iter().map(refused_json)).to_string(),
    };
    packed.extend_from_slice(&(json.len() as u64).to_le_bytes());
    packed.extend_from_slice(json.as_bytes());
    packed.resize(packed.len().next_multiple_of(8), 0);
}

fn refused_json((index, error): &(usize, Error)) -> Value {
    let context: Vec<_> = error.context().flat_map(|(name, value)| [name, value]).collect();
    json!([index, error.kind().code(), error.operation(), error.to_string(), context])
}

fn cursor_text(cursor: Cursor) -> String {
    cursor.to_words().map(|word| format!("{word:x}")).join("-")
}

fn read_cursor(text: &str) -> Result<Cursor> {
    let words: Option<Vec<u64>> = text.split('-').map(|word| u64::from_str_radix(word, 16).ok()).collect();
    let words: Option<[u64; 4]> = words.and_then(|words| words.try_into().ok());
    words.map(Cursor::from_words).ok_or_else(|| {
        let shown: String = text.chars().take(64).collect();
        Error::new(ErrorKind::InvalidArgument, "queue.list")
            .with("cursor", format!("{shown:?}"))
            .with("rule", "the `next` of a listing")
    })
}

/// What a record tells of a job.
struct Record<'a> {
    token: Token,
    max_attempts: u16,
    redrives: u32,
    priority: u8,
    lease: Duration,
    key: u64,
    group: Option<&'a str>,
    payload: &'a [u8],
    content_type: &'a str,
    headers: Vec<(&'a str, &'a str)>,
}

impl<'a> Record<'a> {
    /// A content without its job.
    fn of(content: &'a Content) -> Self {
        Self {
            token: Token::default(),
            max_attempts: 0,
            redrives: 0,
            priority: 0,
            lease: Duration::ZERO,
            key: 0,
            group: None,
            payload: content.payload(),
            content_type: content.content_type(),
            headers: content.headers(),
        }
    }
}

fn pack_job(job: &Job, key: u64, out: &mut Vec<u8>) {
    let record = Record {
        token: job.token(),
        max_attempts: job.max_attempts(),
        redrives: job.redrives(),
        priority: job.priority(),
        lease: job.lease(),
        key,
        group: job.group(),
        payload: job.payload(),
        content_type: job.content_type(),
        headers: job.headers(),
    };
    pack(&record, out);
}

fn pack(record: &Record<'_>, out: &mut Vec<u8>) {
    let begin = out.len();
    let group = record.group.unwrap_or_default();
    let header_bytes: usize =
        record.headers.iter().map(|(name, value)| HEADER_LENGTHS_BYTES + name.len() + value.len()).sum();
    let content = record.payload.len() + record.content_type.len() + group.len() + header_bytes;
    let bytes = (RECORD_HEADER_BYTES + content).next_multiple_of(8);
    let mut head = [0; RECORD_HEADER_BYTES];
    head[0..4].copy_from_slice(&(bytes as u32).to_le_bytes());
    head[4..6].copy_from_slice(&record.token.attempt.to_le_bytes());
    head[6..8].copy_from_slice(&record.max_attempts.to_le_bytes());
    head[8..12].copy_from_slice(&record.redrives.to_le_bytes());
    head[12] = record.priority;
    head[13] = u8::from(record.group.is_some());
    head[14..16].copy_from_slice(&(record.content_type.len() as u16).to_le_bytes());
    head[16..20].copy_from_slice(&(group.len() as u32).to_le_bytes());
    head[20..24].copy_from_slice(&(header_bytes as u32).to_le_bytes());
    head[24..28].copy_from_slice(&(record.payload.len() as u32).to_le_bytes());
    head[32..40].copy_from_slice(&(record.lease.as_secs_f64() * 1e3).to_le_bytes());
    head[40..48].copy_from_slice(&(record.key as f64).to_le_bytes());
    head[48..48 + ID_BYTES].copy_from_slice(&id_text(record.token.job));
    out.extend_from_slice(&head);
    out.extend_from_slice(record.payload);
    out.extend_from_slice(record.content_type.as_bytes());
    out.extend_from_slice(group.as_bytes());
    for (name, value) in &record.headers {
        out.extend_from_slice(&(name.len() as u32).to_le_bytes());
        out.extend_from_slice(&(value.len() as u32).to_le_bytes());
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(value.as_bytes());
    }
    out.resize(begin + bytes, 0);
}

// ---------- data directories

pub(crate) fn inspect(state: &State, call: &Call) -> Result<Answer> {
    let directory = text(call, 0)?;
    job(state, move || Ok(Made::Text(inspection_json(&flowmesh::inspect(directory)?).to_string())))
}

const RECORD_HEADER_BYTES: usize = 88;
const HEADER_LENGTHS_BYTES: usize = 8;
const ACK: u64 = 0;
const NACK: u64 = 1;
const REJECT: u64 = 2;
const RELEASE: u64 = 3;
