//! Queues as programs hold them: enqueue, reserve, and what a worker does with a job.
#![forbid(unsafe_code)]

use super::{
    backend::Backend,
    call::{CallState, complete},
    keeper::Held,
    wait::{Mailbox, ReadySet, Wait},
};
use crate::{
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
    ledger::Durability,
    queue::{
        self, AckRequest, Answered, Cancelled, Cursor, EnqueueOptions, Enqueued, JobId, JobInfo, JobState,
        Listed, NewJobRequest, QueueConfig, QueueId, QueueReply, QueueRequest, QueueStats, Rate, Schedule,
        Token,
    },
    sync::{AtomicBool, AtomicU32, Ordering},
    wire::Message,
};
use std::{fmt, os::fd::RawFd, sync::Arc, time::Duration};

/// A queue of jobs. Cheap to clone; any thread may call it, in the host and in clients.
///
/// Every call that changes something says how safe the change is when it returns: as the queue is set up, or as
/// [`Queue::durable`] says. Calls wait for the host at most 30 s, unless they are given a [`Wait`].
///
/// ```
/// # let dir = std::env::temp_dir().join(format!("flowmesh-doc-queue-{}", std::process::id()));
/// use flowmesh::{Mesh, Wait, queue::{EnqueueOptions, QueueConfig}};
///
/// let mesh = Mesh::open(&dir)?;
/// let mail = mesh.declare_queue("mail", &QueueConfig::default())?;
/// mail.enqueue(b"to: ann", &EnqueueOptions::default())?;
/// let job = mail.reserve_one(&mut Wait::forever())?.expect("there is one");
/// assert_eq!(job.payload(), b"to: ann");
/// job.ack(None)?;
/// # drop((job, mail, mesh)); std::fs::remove_dir_all(dir).ok();
/// # Ok::<(), flowmesh::Error>(())
/// ```
#[derive(Clone)]
pub struct Queue {
    backend: Arc<dyn Backend>,
    id: QueueId,
    name: Arc<str>,
    durability: Option<Durability>,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What became of a job that was to be enqueued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Which job, and whether it is a new one.
    pub enqueued: Enqueued,
    /// How safe it is.
    pub durability: Durability,
}

impl Receipt {
    /// The job that will be worked on.
    pub fn id(&self) -> JobId {
        self.enqueued.id()
    }
}

impl Queue {
    pub(super) fn new(backend: Arc<dyn Backend>, id: QueueId, name: &str) -> Self {
        Self { backend, id, name: name.into(), durability: None }
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its number, which [`QueueRequest`]s carry. Good for as long as the host lives.
    pub fn id(&self) -> QueueId {
        self.id
    }

    /// The same queue; what is done through this handle gets as far as `durability` before it returns, whatever the
    /// queue is set up to. Jobs that are reserved through it are settled so, too.
    #[must_use]
    pub fn durable(&self, durability: Durability) -> Self {
        Self { durability: Some(durability), ..self.clone() }
    }

    /// Enqueues a job.
    ///
    /// # Errors
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument), [`TooLarge`](ErrorKind::TooLarge): names value and limit.
    /// - [`Full`](ErrorKind::Full): the queue's `max_length` is reached.
    /// - [`Draining`](ErrorKind::Draining): the queue takes nothing new.
    /// - [`StorageFull`](ErrorKind::StorageFull): nothing was written; retry when there is room.
    /// - [`Frozen`](ErrorKind::Frozen): the disk failed. Whether the job is there after a restart is unknown.
    /// - [`Timeout`](ErrorKind::Timeout), [`Disconnected`](ErrorKind::Disconnected), [`Closed`](ErrorKind::Closed),
    ///   [`Forked`](ErrorKind::Forked).
    pub fn enqueue(&self, payload: &[u8], options: &EnqueueOptions) -> Result<Receipt> {
        let all = self.enqueue_all(vec![NewJobRequest::new(payload, options)], &mut Wait::forever())?;
        all.into_iter().next().ok_or_else(|| unexpected("queue.enqueue"))
    }

    /// Enqueues jobs in one write: all or none. At most [`queue::ENQUEUE_COUNT_MAX`].
    ///
    /// # Errors
    /// Those of [`enqueue`](Self::enqueue); [`Interrupted`](ErrorKind::Interrupted).
    pub fn enqueue_many(&self, jobs: &[NewJobRequest<'_>], wait: &mut Wait<'_>) -> Result<Vec<Receipt>> {
        self.enqueue_all(jobs.to_vec(), wait)
    }

    fn enqueue_all(&self, jobs: Vec<NewJobRequest<'_>>, wait: &mut Wait<'_>) -> Result<Vec<Receipt>> {
        let request = QueueRequest::Enqueue { queue: self.id, jobs };
        let Answered { reply, reached } = self.request(request, wait)?;
        let QueueReply::Enqueued(all) = reply else { return Err(unexpected("queue.enqueue")) };
        let durability = reached.unwrap_or(Durability::Os);
        Ok(all.into_iter().map(|enqueued| Receipt { enqueued, durability }).collect())
    }

    /// Takes up to `most` jobs, 1 to [`queue::RESERVE_COUNT_MAX`], and waits for the first as long as `wait` says;
    /// none if there was none in time. Each is ours for `lease`, or as it or the queue says.
    ///
    /// # Errors
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument), [`TooLarge`](ErrorKind::TooLarge): lease or count are out of
    ///   bounds.
    /// - [`Interrupted`](ErrorKind::Interrupted): jobs that were given meanwhile go back.
    /// - Those of [`enqueue`](Self::enqueue) that are not about a job.
    pub fn reserve(&self, most: usize, lease: Option<Duration>, wait: &mut Wait<'_>) -> Result<Vec<Job>> {
        let answered = self.request(self.reservation(most, lease), wait)?;
        self.jobs(answered)
    }

    /// Takes one job.
    ///
    /// # Errors
    /// Those of [`reserve`](Self::reserve).
    pub fn reserve_one(&self, wait: &mut Wait<'_>) -> Result<Option<Job>> {
        Ok(self.reserve(1, None, wait)?.into_iter().next())
    }

    /// Starts waiting for jobs; [`Queue::jobs`] makes handles of what comes. `timeout`: as for [`Wait::timeout`].
    ///
    /// # Errors
    /// Those of [`reserve`](Self::reserve) that are known at once.
    pub fn start_reserve(
        &self,
        most: usize,
        lease: Option<Duration>,
        timeout: Option<Duration>,
    ) -> Result<PendingReply> {
        self.start(self.reservation(most, lease), timeout)
    }

    fn reservation(&self, most: usize, lease: Option<Duration>) -> QueueRequest<'static> {
        QueueRequest::Reserve { queue: self.id, most: u32::try_from(most).unwrap_or(u32::MAX), lease }
    }

    /// The jobs of a reservation's answer.
    ///
    /// # Errors
    /// [`Protocol`](ErrorKind::Protocol): it is another answer.
    pub fn jobs(&self, answered: Answered) -> Result<Vec<Job>> {
        let QueueReply::Jobs(jobs) = answered.reply else { return Err(unexpected("queue.reserve")) };
        Ok(self.begin(jobs))
    }

    fn begin(&self, jobs: Vec<queue::Job>) -> Vec<Job> {
        let held = self.backend.jobs().begin(jobs.iter().map(|job| (job.token.nonce, job.lease)));
        jobs.into_iter().zip(held).map(|(job, held)| Job::new(self.clone(), job, held)).collect()
    }

    /// Asks for anything and waits for the answer: what all the others are made of.
    ///
    /// # Errors
    /// Those of what is asked; [`Timeout`](ErrorKind::Timeout), [`Interrupted`](ErrorKind::Interrupted).
    pub fn request(&self, request: QueueRequest<'_>, wait: &mut Wait<'_>) -> Result<Answered> {
        self.backend.queue_request(request, self.durability, wait)
    }

    /// Asks for anything; the answer is taken later. A reservation waits as long as `timeout` says, `None` for ever;
    /// the others 30 s at most.
    ///
    /// # Errors
    /// Those that are known at once.
    pub fn start(&self, request: QueueRequest<'_>, timeout: Option<Duration>) -> Result<PendingReply> {
        start(&self.backend, request, self.durability, timeout)
    }

    /// Whether this process opened the mesh, rather than its parent.
    pub(super) fn is_here(&self) -> bool {
        self.backend.engine().origin.is_here()
    }

    pub(super) fn check_open(&self, operation: &'static str) -> Result<()> {
        self.backend.engine().check_open(operation)
    }

    fn ask(&self, request: QueueRequest<'_>) -> Result<Answered> {
        self.request(request, &mut Wait::forever())
    }

    /// Acks jobs in one write; what each of them gives. At most [`queue::RESERVE_COUNT_MAX`].
    ///
    /// # Errors
    /// Those of [`Job::ack`] that are about all of them; none is settled then, and all may be tried again. A job that
    /// was settled before is [`LeaseLost`](ErrorKind::LeaseLost) by itself.
    pub fn ack_many<'a>(&self, jobs: impl IntoIterator<Item = &'a Job>) -> Result<Vec<Result<()>>> {
        let jobs: Vec<_> = jobs.into_iter().collect();
        let answered = self.ask(self.acking(&jobs));
        acked(&jobs, answered)
    }

    /// As [`ack_many`](Self::ack_many), to be waited for later; [`Queue::acked`] reads the answer.
    ///
    /// # Errors
    /// Those that are known at once.
    pub fn start_ack_many<'a>(&self, jobs: impl IntoIterator<Item = &'a Job>) -> Result<PendingReply> {
        let jobs: Vec<_> = jobs.into_iter().collect();
        let started = self.start(self.acking(&jobs), None);
        if started.is_err() {
            jobs.iter().filter(|job| job.is_settling()).for_each(|job| job.unsettled());
        }
        started
    }

    /// What came of [`start_ack_many`](Self::start_ack_many) of the same jobs, in order.
    ///
    /// # Errors
    /// Those of [`ack_many`](Self::ack_many).
    pub fn acked<'a>(
        &self,
        jobs: impl IntoIterator<Item = &'a Job>,
        answered: Result<Answered>,
    ) -> Result<Vec<Result<()>>> {
        acked(&jobs.into_iter().collect::<Vec<_>>(), answered)
    }

    /// Acks jobs with their results, and takes up to `most` others if they are there, without waiting for one: one
    /// request, and one write as a rule, instead of two. What workers do from job to job. `lease`: as for
    /// [`reserve`](Self::reserve). What each ack gives, and the jobs.
    ///
    /// # Errors
    /// Those of [`ack_many`](Self::ack_many); no job was taken then. [`Interrupted`](ErrorKind::Interrupted): jobs that
    /// were given meanwhile go back.
    pub fn ack_and_reserve(
        &self,
        acks: &[(&Job, Option<&[u8]>)],
        most: usize,
        lease: Option<Duration>,
        wait: &mut Wait<'_>,
    ) -> Result<(Vec<Result<()>>, Vec<Job>)> {
        let answered = self.request(self.acking_and_reserving(acks, most, lease), wait);
        self.acked_and_reserved(acks.iter().map(|(job, _)| *job), answered)
    }

    /// As [`ack_and_reserve`](Self::ack_and_reserve), to be waited for later; [`Queue::acked_and_reserved`] reads the
    /// answer.
    ///
    /// # Errors
    /// Those that are known at once.
    pub fn start_ack_and_reserve(
        &self,
        acks: &[(&Job, Option<&[u8]>)],
        most: usize,
        lease: Option<Duration>,
    ) -> Result<PendingReply> {
        let started = self.start(self.acking_and_reserving(acks, most, lease), None);
        if started.is_err() {
            acks.iter().filter(|(job, _)| job.is_settling()).for_each(|(job, _)| job.unsettled());
        }
        started
    }

    fn acking_and_reserving<'a>(
        &self,
        acks: &[(&Job, Option<&'a [u8]>)],
        most: usize,
        lease: Option<Duration>,
    ) -> QueueRequest<'a> {
        let free = acks.iter().filter(|(job, _)| job.settling().is_ok());
        QueueRequest::AckAndReserve {
            queue: self.id,
            acks: free.map(|(job, result)| AckRequest { token: job.token(), result: *result }).collect(),
            most: u32::try_from(most).unwrap_or(u32::MAX),
            lease,
        }
    }

    /// What came of [`start_ack_and_reserve`](Self::start_ack_and_reserve) of the same jobs, in order, and the jobs
    /// that are ours now.
    ///
    /// # Errors
    /// Those of [`ack_many`](Self::ack_many).
    pub fn acked_and_reserved<'a>(
        &self,
        acks: impl IntoIterator<Item = &'a Job>,
        answered: Result<Answered>,
    ) -> Result<(Vec<Result<()>>, Vec<Job>)> {
        let mut jobs = Vec::new();
        let answered = answered.and_then(|Answered { reply, reached }| match reply {
            QueueReply::Next { each, jobs: next } => {
                jobs = self.begin(next);
                Ok(Answered { reply: QueueReply::Each(each), reached })
            }
            _ => Err(unexpected("queue.ack")),
        });
        let acks: Vec<_> = acks.into_iter().collect();
        Ok((acked(&acks, answered)?, jobs))
    }

    /// The tokens of those that were not settled before, which are marked.
    fn acking(&self, jobs: &[&Job]) -> QueueRequest<'static> {
        let free = jobs.iter().filter(|job| job.settling().is_ok());
        QueueRequest::AckMany { queue: self.id, tokens: free.map(|job| job.token()).collect() }
    }

    /// Cancels a job: at once if it waits; by asking its worker if one has it, and after the queue's `cancel_grace`
    /// without. `why` is kept with it.
    ///
    /// # Errors
    /// - [`NotFound`](ErrorKind::NotFound): there is no such job.
    pub fn cancel(&self, job: JobId, why: &str) -> Result<Cancelled> {
        match self.ask(QueueRequest::Cancel { queue: self.id, job, why: why.into() })?.reply {
            QueueReply::Cancelled(cancelled) => Ok(cancelled),
            _ => Err(unexpected("queue.cancel")),
        }
    }

    /// Makes these finished jobs ready again, as if they were new; all or none.
    ///
    /// # Errors
    /// - [`NotFound`](ErrorKind::NotFound), [`InvalidArgument`](ErrorKind::InvalidArgument): one is not there, or not
    ///   finished.
    pub fn redrive(&self, jobs: &[JobId]) -> Result<()> {
        self.done(QueueRequest::Redrive { queue: self.id, jobs: jobs.to_vec() })
    }

    /// Makes up to `most` dead jobs ready again, those that have been dead longest first; how many.
    ///
    /// # Errors
    /// Those of [`enqueue`](Self::enqueue) that are not about a job.
    pub fn redrive_dead(&self, most: u64) -> Result<u64> {
        self.count(QueueRequest::RedriveDead { queue: self.id, most })
    }

    /// Makes `count` dead jobs ready again at `rate`, from now on; 0 ends it.
    ///
    /// # Errors
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): the rate is out of bounds.
    pub fn redrive_at(&self, count: u64, rate: Rate) -> Result<()> {
        self.done(QueueRequest::RedriveAt { queue: self.id, count, rate })
    }

    /// Removes all jobs in `state`; how many.
    ///
    /// # Errors
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): leased jobs are cancelled, not purged.
    pub fn purge(&self, state: JobState) -> Result<u64> {
        self.count(QueueRequest::Purge { queue: self.id, state })
    }

    /// Removes one job.
    ///
    /// # Errors
    /// - [`NotFound`](ErrorKind::NotFound): there is no such job.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): a worker has it: cancel it.
    pub fn remove(&self, job: JobId) -> Result<()> {
        self.done(QueueRequest::Remove { queue: self.id, job })
    }

    /// Hands out nothing until [`resume`](Self::resume); what workers have they keep.
    ///
    /// # Errors
    /// Those of [`enqueue`](Self::enqueue) that are not about a job.
    pub fn pause(&self) -> Result<()> {
        self.done(QueueRequest::Pause { queue: self.id })
    }

    /// Ends pausing and draining.
    ///
    /// # Errors
    /// Those of [`enqueue`](Self::enqueue) that are not about a job.
    pub fn resume(&self) -> Result<()> {
        self.done(QueueRequest::Resume { queue: self.id })
    }

    /// Takes nothing new until [`resume`](Self::resume); whether all that was there is finished.
    ///
    /// # Errors
    /// Those of [`enqueue`](Self::enqueue) that are not about a job.
    pub fn drain(&self) -> Result<bool> {
        match self.ask(QueueRequest::Drain { queue: self.id })?.reply {
            QueueReply::Drained(idle) => Ok(idle),
            _ => Err(unexpected("queue.drain")),
        }
    }

    /// Puts a schedule in the place of the one of its name, if there is one.
    ///
    /// # Errors
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): names what is not valid, in an expression the column.
    pub fn schedule(&self, schedule: &Schedule) -> Result<()> {
        self.done(QueueRequest::Schedule { queue: self.id, schedule: Box::new(schedule.clone()) })
    }

    /// Removes a schedule; jobs that it enqueued stay.
    ///
    /// # Errors
    /// - [`NotFound`](ErrorKind::NotFound): there is none of this name.
    pub fn unschedule(&self, name: &str) -> Result<()> {
        self.done(QueueRequest::Unschedule { queue: self.id, name: name.into() })
    }

    /// All schedules, and when each fires next.
    ///
    /// # Errors
    /// Those of [`stats`](Self::stats).
    pub fn schedules(&self) -> Result<Vec<(Schedule, Timestamp)>> {
        match self.ask(QueueRequest::Schedules { queue: self.id })?.reply {
            QueueReply::Schedules(all) => Ok(all),
            _ => Err(unexpected("queue.schedules")),
        }
    }

    /// Up to `most` (1 to 1000) jobs in `state`, and where to go on: waiting ones in the order in which they will be
    /// handed out, finished ones as they were finished.
    ///
    /// # Errors
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): `most` is out of bounds.
    pub fn list(&self, state: JobState, cursor: Option<Cursor>, most: usize) -> Result<Listed> {
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        match self.ask(QueueRequest::List { queue: self.id, state, cursor, most })?.reply {
            QueueReply::Listed(listed) => Ok(listed),
            _ => Err(unexpected("queue.list")),
        }
    }

    /// A job, without taking it.
    ///
    /// # Errors
    /// - [`NotFound`](ErrorKind::NotFound): there is no such job, or not any more.
    pub fn peek(&self, job: JobId) -> Result<JobInfo> {
        match self.ask(QueueRequest::Info { queue: self.id, job })?.reply {
            QueueReply::Info(info) => Ok(*info),
            _ => Err(unexpected("queue.peek")),
        }
    }

    /// What a job carries.
    ///
    /// # Errors
    /// Those of [`peek`](Self::peek).
    pub fn content(&self, job: JobId) -> Result<queue::Content> {
        match self.ask(QueueRequest::Content { queue: self.id, job })?.reply {
            QueueReply::Content(Some(content)) => Ok(content),
            _ => Err(unexpected("queue.content")),
        }
    }

    /// What a job was acked with, if it was acked with something and that is still kept.
    ///
    /// # Errors
    /// Those of [`peek`](Self::peek).
    pub fn result(&self, job: JobId) -> Result<Option<Vec<u8>>> {
        match self.ask(QueueRequest::Outcome { queue: self.id, job })?.reply {
            QueueReply::Content(content) => Ok(content.map(|content| content.payload().to_vec())),
            _ => Err(unexpected("queue.result")),
        }
    }

    /// Numbers of the queue; taking them costs the same however long it is.
    ///
    /// # Errors
    /// [`Disconnected`](ErrorKind::Disconnected), [`Closed`](ErrorKind::Closed), [`Timeout`](ErrorKind::Timeout).
    pub fn stats(&self) -> Result<QueueStats> {
        match self.ask(QueueRequest::Stats { queue: self.id })?.reply {
            QueueReply::Stats(stats) => Ok(*stats),
            _ => Err(unexpected("queue.stats")),
        }
    }

    /// How it is set up.
    ///
    /// # Errors
    /// Those of [`stats`](Self::stats).
    pub fn config(&self) -> Result<QueueConfig> {
        match self.ask(QueueRequest::Config { queue: self.id })?.reply {
            QueueReply::Config(config) => Ok(*config),
            _ => Err(unexpected("queue.config")),
        }
    }

    /// Sets it up otherwise, for jobs that are there too, from now on.
    ///
    /// # Errors
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): names the field, its value and the limit.
    pub fn configure(&self, config: &QueueConfig) -> Result<()> {
        self.done(QueueRequest::Configure { queue: self.id, config: Box::new(config.clone()) })
    }

    fn done(&self, request: QueueRequest<'_>) -> Result<()> {
        match self.ask(request)?.reply {
            QueueReply::Done => Ok(()),
            _ => Err(unexpected("queue.request")),
        }
    }

    fn count(&self, request: QueueRequest<'_>) -> Result<u64> {
        match self.ask(request)?.reply {
            QueueReply::Count(count) => Ok(count),
            _ => Err(unexpected("queue.request")),
        }
    }
}

/// An answer that does not belong to what was asked: the other side breaks the rules.
pub(super) fn unexpected(operation: &'static str) -> Error {
    Error::new(ErrorKind::Protocol, operation).with("violation", "another answer than was asked for")
}

/// A job that this worker has, until it is settled or its lease ends.
///
/// Settling (ack, nack, reject, release, snooze) can be done once. A job that is dropped without stays leased until its
/// lease ends, and is then tried again with the attempt counted.
pub struct Job {
    queue: Queue,
    job: queue::Job,
    held: Arc<Held>,
    /// [`FREE`], [`SETTLING`] or [`SETTLED`].
    settled: AtomicU32,
}

/// Nothing was said of it.
const FREE: u32 = 0;
/// It was said what is to be done with it.
const SETTLING: u32 = 1;
/// That is done, or it is not ours any more.
const SETTLED: u32 = 2;

/// What a worker says of a job, to be done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settle<'a> {
    /// It is done, with this result if there is one.
    Ack(Option<&'a [u8]>),
    /// The attempt failed: the job waits for the next, or is dead.
    Nack {
        /// What went wrong, in a few words: at most 1 KiB is kept.
        message: &'a str,
        /// A stack trace or the like: at most 4 KiB is kept.
        detail: &'a str,
        /// How long until the next attempt. Default: the job's backoff.
        delay: Option<Duration>,
    },
    /// No attempt can succeed: the job is dead.
    Reject {
        /// As for `Nack`.
        message: &'a str,
        /// As for `Nack`.
        detail: &'a str,
    },
    /// Back into the queue as if it had not been taken.
    Release,
    /// Put off by this time; the attempt does not count.
    Snooze(Duration),
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("queue", &self.queue.name)
            .field("id", &self.id())
            .field("attempt", &self.attempt())
            .finish_non_exhaustive()
    }
}

impl Job {
    fn new(queue: Queue, job: queue::Job, held: Arc<Held>) -> Self {
        Self { queue, job, held, settled: AtomicU32::new(FREE) }
    }

    /// Its queue; settling through it is as durable as the handle it was reserved with.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// What names it.
    pub fn id(&self) -> JobId {
        self.job.token.job
    }

    /// What proves that it is this worker's.
    pub fn token(&self) -> Token {
        self.job.token
    }

    /// Which attempt this is, 1 and up.
    pub fn attempt(&self) -> u16 {
        self.job.token.attempt
    }

    /// Attempts it may have.
    pub fn max_attempts(&self) -> u16 {
        self.job.max_attempts
    }

    /// 0 to 255.
    pub fn priority(&self) -> u8 {
        self.job.priority
    }

    /// How often it was redriven.
    pub fn redrives(&self) -> u32 {
        self.job.redrives
    }

    /// Its group.
    pub fn group(&self) -> Option<&str> {
        self.job.group.as_deref()
    }

    /// What it carries.
    pub fn payload(&self) -> &[u8] {
        self.job.content.payload()
    }

    /// How the payload is encoded; empty if nobody said.
    pub fn content_type(&self) -> &str {
        self.job.content.content_type()
    }

    /// Names and values, in order.
    pub fn headers(&self) -> Vec<(&str, &str)> {
        self.job.content.headers()
    }

    /// How long it was reserved for, when it was.
    pub fn lease(&self) -> Duration {
        self.job.lease
    }

    /// How long it is still ours, as far as this process knows.
    pub fn remaining(&self) -> Duration {
        self.held.remaining()
    }

    /// Whether it is to be given back: somebody cancelled it, its lease is over, or the mesh was closed.
    pub fn is_cancelled(&self) -> bool {
        self.held.cancelled.is_cancelled() || self.queue.backend.engine().is_closed()
    }

    /// Queues `token` in `set` when it is cancelled.
    pub fn watch_cancel(&self, set: &ReadySet, token: u64) {
        self.held.cancelled.watch(set, token);
    }

    /// Extends the lease from now on whenever a third of it has passed, until the job is settled or dropped. If that
    /// fails because the job is not ours any more, it is [cancelled](Self::is_cancelled).
    pub fn keep(&self) {
        if !self.queue.backend.engine().origin.is_here() {
            return;
        }
        self.queue.backend.jobs().keep(&self.queue.backend, self.queue.id, self.job.token, self.job.lease);
    }

    /// Makes [`is_cancelled`](Self::is_cancelled) true: a worker that stops says so to handlers that are still at work.
    pub fn mark_cancelled(&self) {
        self.held.cancelled.cancel();
    }

    /// Whether it was settled through this handle.
    pub fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire) != FREE
    }

    /// It was said what is to be done with it, and the answer is not here yet.
    fn is_settling(&self) -> bool {
        self.settled.load(Ordering::Acquire) == SETTLING
    }

    /// It is done, with this result if there is one. How safe that is.
    ///
    /// # Errors
    /// - [`LeaseLost`](ErrorKind::LeaseLost): it is not ours any more; nothing is changed.
    /// - [`TooLarge`](ErrorKind::TooLarge): the result is over the queue's `payload_bytes_max`.
    /// - Those of [`Queue::enqueue`] that are not about a job.
    pub fn ack(&self, result: Option<&[u8]>) -> Result<Durability> {
        self.settle(Settle::Ack(result), &mut Wait::forever())
    }

    /// As [`ack`](Self::ack), and takes the next job of its queue if one is there: one request, and one write as a rule,
    /// instead of two. `lease`: as for [`Queue::reserve`].
    ///
    /// # Errors
    /// Those of [`ack`](Self::ack); no job was taken then. [`Interrupted`](ErrorKind::Interrupted): a job that was given
    /// meanwhile goes back.
    pub fn ack_and_reserve(
        &self,
        result: Option<&[u8]>,
        lease: Option<Duration>,
        wait: &mut Wait<'_>,
    ) -> Result<(Durability, Option<Self>)> {
        self.settling()?;
        let answered = self.queue.request(self.acking_and_reserving(result, lease), wait);
        self.acked_and_reserved(answered)
    }

    /// As [`ack_and_reserve`](Self::ack_and_reserve), to be waited for later; [`Job::acked_and_reserved`] reads the
    /// answer.
    ///
    /// # Errors
    /// Those that are known at once.
    pub fn start_ack_and_reserve(
        &self,
        result: Option<&[u8]>,
        lease: Option<Duration>,
    ) -> Result<PendingReply> {
        self.settling()?;
        let started = self.queue.start(self.acking_and_reserving(result, lease), None);
        if started.is_err() {
            self.unsettled();
        }
        started
    }

    fn acking_and_reserving<'a>(
        &self,
        result: Option<&'a [u8]>,
        lease: Option<Duration>,
    ) -> QueueRequest<'a> {
        let acks = vec![AckRequest { token: self.token(), result }];
        QueueRequest::AckAndReserve { queue: self.queue.id, acks, most: 1, lease }
    }

    /// What came of [`start_ack_and_reserve`](Self::start_ack_and_reserve), and the job that is ours now.
    ///
    /// # Errors
    /// Those of [`ack_and_reserve`](Self::ack_and_reserve).
    pub fn acked_and_reserved(&self, answered: Result<Answered>) -> Result<(Durability, Option<Self>)> {
        let reached = answered.as_ref().ok().and_then(|answered| answered.reached).unwrap_or(Durability::Os);
        let (acked, jobs) = self.queue.acked_and_reserved([self], answered)?;
        let next = jobs.into_iter().next();
        match acked.into_iter().next() {
            Some(Err(error)) => {
                // Who is told of an error is not given a job, too.
                release_all(&*self.queue.backend, next.iter().map(|next| &next.job));
                Err(error)
            }
            _ => Ok((reached, next)),
        }
    }

    /// The attempt failed. The job waits for the next as its backoff says, or is dead if this was the last.
    ///
    /// # Errors
    /// Those of [`ack`](Self::ack).
    pub fn nack(&self, message: &str) -> Result<Durability> {
        self.settle(Settle::Nack { message, detail: "", delay: None }, &mut Wait::forever())
    }

    /// No attempt can succeed: the job is dead.
    ///
    /// # Errors
    /// Those of [`ack`](Self::ack).
    pub fn reject(&self, message: &str) -> Result<Durability> {
        self.settle(Settle::Reject { message, detail: "" }, &mut Wait::forever())
    }

    /// Gives it back as if it had not been taken.
    ///
    /// # Errors
    /// Those of [`ack`](Self::ack).
    pub fn release(&self) -> Result<Durability> {
        self.settle(Settle::Release, &mut Wait::forever())
    }

    /// Puts it off; the attempt does not count.
    ///
    /// # Errors
    /// Those of [`ack`](Self::ack); [`InvalidArgument`](ErrorKind::InvalidArgument): the delay is over ten years.
    pub fn snooze(&self, delay: Duration) -> Result<Durability> {
        self.settle(Settle::Snooze(delay), &mut Wait::forever())
    }

    /// Says what is to be done with it. After an error of any kind but [`LeaseLost`](ErrorKind::LeaseLost) it may be
    /// said again.
    ///
    /// # Errors
    /// Those of [`ack`](Self::ack); [`Interrupted`](ErrorKind::Interrupted).
    pub fn settle(&self, settle: Settle<'_>, wait: &mut Wait<'_>) -> Result<Durability> {
        self.settling()?;
        self.settled(self.queue.request(self.request(settle), wait))
    }

    /// As [`settle`](Self::settle), to be waited for later; [`Job::settled`] reads the answer.
    ///
    /// # Errors
    /// Those that are known at once.
    pub fn start_settle(&self, settle: Settle<'_>) -> Result<PendingReply> {
        self.settling()?;
        let started = self.queue.start(self.request(settle), None);
        if started.is_err() {
            self.unsettled();
        }
        started
    }

    /// What came of [`start_settle`](Self::start_settle).
    ///
    /// # Errors
    /// Those of [`settle`](Self::settle).
    pub fn settled(&self, answered: Result<Answered>) -> Result<Durability> {
        let settled = answered.and_then(check_settled);
        self.note(&settled);
        settled
    }

    /// It is over, unless what was said did not come through.
    fn note<T>(&self, settled: &Result<T>) {
        match settled {
            Err(error) if error.kind() != ErrorKind::LeaseLost => self.unsettled(),
            _ => {
                self.settled.store(SETTLED, Ordering::Release);
                self.end();
            }
        }
    }

    /// It may be said again.
    fn unsettled(&self) {
        self.settled.store(FREE, Ordering::Release);
    }

    fn request<'a>(&self, settle: Settle<'a>) -> QueueRequest<'a> {
        let (queue, token) = (self.queue.id, self.job.token);
        match settle {
            Settle::Ack(result) => QueueRequest::Ack { queue, token, result },
            Settle::Nack { message, detail, delay } => {
                QueueRequest::Nack { queue, token, message: message.into(), detail: detail.into(), delay }
            }
            Settle::Reject { message, detail } => {
                QueueRequest::Reject { queue, token, message: message.into(), detail: detail.into() }
            }
            Settle::Release => QueueRequest::Release { queue, tokens: vec![token] },
            Settle::Snooze(delay) => QueueRequest::Snooze { queue, token, delay },
        }
    }

    /// Only one may settle it.
    fn settling(&self) -> Result<()> {
        let begun = self.settled.compare_exchange(FREE, SETTLING, Ordering::AcqRel, Ordering::Acquire);
        begun.map(drop).map_err(|_| self.settled_before())
    }

    fn settled_before(&self) -> Error {
        Error::new(ErrorKind::LeaseLost, "job.settle")
            .with("job", self.id())
            .with("reason", "it was settled before")
    }

    /// More time: `lease` from now, or as it was reserved; never less than is left. How long it is ours now.
    ///
    /// # Errors
    /// Those of [`ack`](Self::ack); [`InvalidArgument`](ErrorKind::InvalidArgument): the lease is out of bounds.
    pub fn extend(&self, lease: Option<Duration>) -> Result<Duration> {
        let (queue, token) = (self.queue.id, self.job.token);
        let request = QueueRequest::Extend { queue, token, lease };
        self.extended(self.queue.request(request, &mut Wait::forever()))
    }

    /// As [`extend`](Self::extend), to be waited for later; [`Job::extended`] reads the answer.
    ///
    /// # Errors
    /// Those that are known at once.
    pub fn start_extend(&self, lease: Option<Duration>) -> Result<PendingReply> {
        self.queue.start(QueueRequest::Extend { queue: self.queue.id, token: self.job.token, lease }, None)
    }

    /// What came of [`start_extend`](Self::start_extend).
    ///
    /// # Errors
    /// Those of [`extend`](Self::extend).
    pub fn extended(&self, answered: Result<Answered>) -> Result<Duration> {
        match answered {
            Ok(Answered { reply: QueueReply::Lease { left, cancelling }, .. }) => {
                self.held.extended(left);
                if cancelling {
                    self.held.cancelled.cancel();
                }
                Ok(left)
            }
            Ok(_) => Err(unexpected("job.extend")),
            Err(error) => {
                if error.kind() == ErrorKind::LeaseLost {
                    self.held.cancelled.cancel();
                }
                Err(error)
            }
        }
    }

    /// Tells how far it has come: anything up to 4 KiB, shown to who looks at the job. Kept in memory only.
    ///
    /// # Errors
    /// Those of [`ack`](Self::ack).
    pub fn progress(&self, progress: &[u8]) -> Result<()> {
        let answered = self.queue.ask(self.telling(progress))?;
        self.told(Ok(answered))
    }

    /// As [`progress`](Self::progress), to be waited for later; [`Job::told`] reads the answer.
    ///
    /// # Errors
    /// Those that are known at once.
    pub fn start_progress(&self, progress: &[u8]) -> Result<PendingReply> {
        self.queue.start(self.telling(progress), None)
    }

    /// What came of [`start_progress`](Self::start_progress).
    ///
    /// # Errors
    /// Those of [`progress`](Self::progress).
    pub fn told(&self, answered: Result<Answered>) -> Result<()> {
        match answered {
            Ok(Answered { reply: QueueReply::Lease { cancelling, .. }, .. }) => {
                if cancelling {
                    self.held.cancelled.cancel();
                }
                Ok(())
            }
            Ok(_) => Err(unexpected("job.progress")),
            Err(error) => Err(error),
        }
    }

    fn telling<'a>(&self, progress: &'a [u8]) -> QueueRequest<'a> {
        QueueRequest::Progress { queue: self.queue.id, token: self.job.token, progress }
    }

    /// Its lease is over, or nobody here needs to know of it any more.
    fn end(&self) {
        // In a forked child a thread that is not there may hold the table's lock.
        if self.queue.backend.engine().origin.is_here() {
            self.queue.backend.jobs().end(self.job.token.nonce);
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // What is settled was forgotten then.
        if self.settled.load(Ordering::Acquire) != SETTLED {
            self.end();
        }
    }
}

/// Hands each of those that were marked its own answer.
fn acked(jobs: &[&Job], answered: Result<Answered>) -> Result<Vec<Result<()>>> {
    let ours = || jobs.iter().filter(|job| job.is_settling());
    let each = answered.and_then(|answered| match answered.reply {
        // Who names a job twice has it acked once; the second is as if it had been settled before.
        QueueReply::Each(each) if each.len() == ours().count() || each.len() == distinct(ours()) => Ok(each),
        _ => Err(unexpected("queue.ack")),
    });
    let each = match each {
        Ok(each) => each,
        Err(error) => {
            ours().for_each(|job| job.unsettled());
            return Err(error);
        }
    };
    let mut each = each.into_iter();
    Ok(jobs
        .iter()
        .map(|job| match job.is_settling().then(|| each.next()).flatten() {
            Some(one) => {
                let one = one.map_err(|refused| refused.to_error());
                job.note(&one);
                one
            }
            None => Err(job.settled_before()),
        })
        .collect())
}

fn distinct<'a>(jobs: impl Iterator<Item = &'a &'a Job>) -> usize {
    jobs.map(|job| job.job.token.nonce).collect::<std::collections::BTreeSet<_>>().len()
}

fn check_settled(answered: Answered) -> Result<Durability> {
    let reached = answered.reached.unwrap_or(Durability::Os);
    match answered.reply {
        QueueReply::Done => Ok(reached),
        QueueReply::Each(each) => match each.into_iter().next() {
            Some(Ok(())) => Ok(reached),
            Some(Err(refused)) => Err(refused.to_error()),
            None => Err(unexpected("job.settle")),
        },
        _ => Err(unexpected("job.settle")),
    }
}

/// An answer that has not been taken yet. Dropping it gives up waiting; jobs that were given meanwhile go back.
pub struct PendingReply {
    call: u64,
    mailbox: Arc<Mailbox<CallState>>,
    backend: Arc<dyn Backend>,
    taken: AtomicBool,
}

impl fmt::Debug for PendingReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingReply").field("call", &self.call).finish_non_exhaustive()
    }
}

pub(super) fn start(
    backend: &Arc<dyn Backend>,
    request: QueueRequest<'_>,
    durability: Option<Durability>,
    timeout: Option<Duration>,
) -> Result<PendingReply> {
    let (call, mailbox) = backend.start_queue_request(request, durability, timeout)?;
    Ok(PendingReply { call, mailbox, backend: Arc::clone(backend), taken: AtomicBool::new(false) })
}

impl PendingReply {
    /// Waits for the answer. It can be taken once.
    ///
    /// # Errors
    /// Those of what was asked; [`Timeout`](ErrorKind::Timeout) or [`Interrupted`](ErrorKind::Interrupted) when this
    /// wait ended first, which can then be waited for again.
    pub fn wait(&self, wait: &mut Wait<'_>) -> Result<Answered> {
        let message = self.mailbox.wait("queue.wait", wait, CallState::take)?;
        self.read(message)
    }

    /// The answer, if it is there.
    pub fn try_take(&self) -> Option<Result<Answered>> {
        if let Err(forked) = self.backend.engine().origin.check("queue.try_take") {
            return Some(Err(forked));
        }
        Some(match self.mailbox.take(CallState::take)? {
            Ok(message) => self.read(message),
            Err(error) => Err(error),
        })
    }

    fn read(&self, message: Result<Message>) -> Result<Answered> {
        // Relaxed: a flag of this handle alone.
        self.taken.store(true, Ordering::Relaxed);
        Answered::decode(message?.payload())
    }

    /// Gives up waiting: the answer becomes [`Cancelled`](ErrorKind::Cancelled), unless it is there. What was asked
    /// may have been done all the same; only a reservation is undone.
    pub fn cancel(&self) {
        if self.backend.engine().origin.is_here() {
            self.backend.cancel_queue_request(self.call);
            complete(&self.mailbox, Err(Error::new(ErrorKind::Cancelled, "queue.wait")));
        }
    }

    /// As [`cancel`](Self::cancel), and takes the answer: jobs that it gives go back, and it comes without them. So who
    /// asked for more than jobs learns what became of that. `None`: it was taken before.
    pub fn give_up(&self) -> Option<Result<Answered>> {
        // Relaxed: a flag of this handle alone.
        if self.taken.load(Ordering::Relaxed) {
            return None;
        }
        self.cancel();
        let mut answered = self.try_take()?;
        if let Ok(Answered { reply: QueueReply::Jobs(jobs) | QueueReply::Next { jobs, .. }, .. }) =
            &mut answered
        {
            release_all(&*self.backend, &std::mem::take(jobs));
        }
        Some(answered)
    }

    /// A descriptor that is readable when the answer is there. Poll it; never read, write or close it.
    ///
    /// # Errors
    /// [`ResourceExhausted`](ErrorKind::ResourceExhausted) when the descriptor table is full.
    pub fn fd(&self) -> Result<RawFd> {
        self.backend.engine().origin.check("queue.fd")?;
        self.mailbox.fd(|state| matches!(state, CallState::Done(_)))
    }

    /// Queues `token` in `set` when the answer is there.
    pub fn watch(&self, set: &ReadySet, token: u64) {
        self.mailbox.watch(set, token, |state| matches!(state, CallState::Done(_)));
    }

    /// Ends [`watch`](Self::watch).
    pub fn unwatch(&self) {
        self.mailbox.unwatch();
    }
}

impl Drop for PendingReply {
    fn drop(&mut self) {
        // Relaxed: a flag of this handle alone.
        if self.taken.load(Ordering::Relaxed) || !self.backend.engine().origin.is_here() {
            return;
        }
        self.backend.cancel_queue_request(self.call);
        let mut left = None;
        self.mailbox.put(|state| {
            left = state.take();
            false
        });
        if let Some(Ok(message)) = left {
            release_untaken(&*self.backend, &message);
        }
    }
}

/// Gives jobs back that came when nobody waited any more.
pub(super) fn release_untaken(backend: &dyn Backend, message: &Message) {
    if let Some(request) = release_of(message) {
        start_release(backend, request);
    }
}

/// The request that gives back the jobs of an answer, if it has any.
pub(super) fn release_of(message: &Message) -> Option<QueueRequest<'static>> {
    if message.aux() != JOBS_INSIDE {
        return None;
    }
    releasing(Answered::decode(message.payload()).ok()?.reply.jobs())
}

fn release_all<'a>(backend: &dyn Backend, jobs: impl IntoIterator<Item = &'a queue::Job>) {
    if let Some(request) = releasing(jobs) {
        start_release(backend, request);
    }
}

/// The request that gives back jobs of one queue, if there are any.
fn releasing<'a>(jobs: impl IntoIterator<Item = &'a queue::Job>) -> Option<QueueRequest<'static>> {
    let mut jobs = jobs.into_iter().peekable();
    let queue = jobs.peek()?.queue;
    Some(QueueRequest::Release { queue, tokens: jobs.map(|job| job.token).collect() })
}

fn start_release(backend: &dyn Backend, request: QueueRequest<'static>) {
    // If it cannot be sent the leases end by themselves.
    let _ = backend.start_queue_request(request, Some(Durability::Os), None);
}

/// In the header of an answer: it gives jobs, which must not be lost when nobody takes it.
pub(super) const JOBS_INSIDE: u32 = 1;
/// The service name under which requests to the queues travel; no program can serve it.
pub(super) const SERVICE: &str = "$queue";
