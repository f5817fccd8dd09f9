//! The worker runtime: threads that take jobs, run a handler, and say what came of it.
#![forbid(unsafe_code)]

use super::{
    guarded_job,
    options::shorten,
    queue::{Job, PendingReply, Queue, Settle},
    wait::Wait,
};
use crate::sync::lock::{Condvar, Mutex};
use crate::{
    error::{Error, ErrorKind, Result},
    os,
    sync::{AtomicBool, AtomicU64, Ordering},
};
use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

/// How a worker works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerOptions {
    /// Jobs at once, each on a thread of its own: 1 to 1024. Default: 1.
    pub concurrency: usize,
    /// How long each job is ours before the runtime must extend, which it does: 1 s to 12 h. Default: the job's, or the
    /// queue's.
    pub lease: Option<Duration>,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self { concurrency: 1, lease: None }
    }
}

/// The most threads of one worker.
const CONCURRENCY_MAX: usize = 1024;

/// Why a handler did not finish a job, and so what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobError {
    /// It failed: tried again as its backoff says, or dead.
    Failed {
        /// What went wrong, in a few words: at most 1 KiB is kept.
        message: String,
        /// A stack trace or the like: at most 4 KiB is kept.
        detail: String,
    },
    /// No attempt can succeed: dead.
    Reject(String),
    /// Later; the attempt does not count.
    Snooze(Duration),
    /// For another worker; the attempt does not count.
    Release,
}

impl<E: std::error::Error> From<E> for JobError {
    fn from(error: E) -> Self {
        Self::Failed { message: error.to_string(), detail: std::any::type_name::<E>().to_owned() }
    }
}

/// What a worker has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerStats {
    /// Jobs that are being worked on now.
    pub running: u64,
    /// Jobs acked.
    pub done: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Jobs rejected.
    pub rejected: u64,
    /// Jobs released or put off.
    pub released: u64,
    /// Jobs whose lease was lost before their outcome could be told: another worker has them.
    pub lost: u64,
}

/// A worker that runs. Dropping it lets it finish what it has begun, and take nothing more.
pub struct Worker(Arc<Shared>);

struct Shared {
    queue: Queue,
    options: WorkerOptions,
    stopping: AtomicBool,
    state: Mutex<State>,
    /// A thread has ended.
    ended: Condvar,
    counts: Counts,
}

struct State {
    threads: usize,
    /// By thread: what it has, or waits for.
    turns: Vec<Turn>,
    error: Option<Error>,
}

#[derive(Clone)]
enum Turn {
    Idle,
    Waits(Arc<PendingReply>),
    Works(Arc<Job>),
}

/// What a thread knows of the next job.
#[derive(Default)]
enum Next {
    #[default]
    Unknown,
    NoneThere,
    Taken(Arc<Job>),
}

#[derive(Default)]
struct Counts {
    done: AtomicU64,
    failed: AtomicU64,
    rejected: AtomicU64,
    released: AtomicU64,
    lost: AtomicU64,
}

/// How long a worker rests when the disk is full.
const REST: Duration = Duration::from_millis(200);

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("queue", &self.0.queue.name()).finish_non_exhaustive()
    }
}

impl Queue {
    /// Works on jobs of this queue: calls `handler` for each, on `options.concurrency` threads, and acks it with what the
    /// handler returns. Leases are extended for as long as the handler takes. A handler that fails or panics fails the
    /// attempt. One that settles the job itself may return anything. A job that was cancelled meanwhile is given back,
    /// whatever its handler returns. What [`Queue::durable`] says holds for the acks.
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("flowmesh-doc-worker-{}", std::process::id()));
    /// use flowmesh::{Mesh, WorkerOptions, queue::{EnqueueOptions, QueueConfig}};
    /// use std::time::Duration;
    ///
    /// let mesh = Mesh::open(&dir)?;
    /// let mail = mesh.declare_queue("mail", &QueueConfig::default())?;
    /// let worker = mail.process(WorkerOptions::default(), |job| {
    ///     Ok(Some(job.payload().to_ascii_uppercase()))
    /// })?;
    /// let id = mail.enqueue(b"hello", &EnqueueOptions::default())?.id();
    /// # while mail.peek(id)?.state != flowmesh::queue::JobState::Done {}
    /// assert!(worker.stop(Duration::from_secs(5)));
    /// assert_eq!(mail.result(id)?.as_deref(), Some(&b"HELLO"[..]));
    /// # drop((mail, mesh)); std::fs::remove_dir_all(dir).ok();
    /// # Ok::<(), flowmesh::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): an option is out of its range; names value and limit.
    /// - [`ResourceExhausted`](ErrorKind::ResourceExhausted): the system gives no more threads.
    /// - [`Closed`](ErrorKind::Closed), [`Disconnected`](ErrorKind::Disconnected), [`Forked`](ErrorKind::Forked).
    pub fn process(
        &self,
        options: WorkerOptions,
        handler: impl Fn(&Job) -> std::result::Result<Option<Vec<u8>>, JobError> + Send + Sync + 'static,
    ) -> Result<Worker> {
        self.process_shared(options, move |job| handler(job))
    }

    /// As [`process`](Self::process), for bindings: a handle of theirs may outlive the handler's call.
    #[doc(hidden)]
    pub fn process_shared(
        &self,
        options: WorkerOptions,
        handler: impl Fn(&Arc<Job>) -> std::result::Result<Option<Vec<u8>>, JobError> + Send + Sync + 'static,
    ) -> Result<Worker> {
        const OPERATION: &str = "queue.process";
        if !(1..=CONCURRENCY_MAX).contains(&options.concurrency) {
            return Err(Error::new(ErrorKind::InvalidArgument, OPERATION)
                .with("concurrency", options.concurrency)
                .with("limit", format_args!("1 to {CONCURRENCY_MAX}")));
        }
        crate::queue::ReserveOptions { lease: options.lease }.validate()?;
        self.check_open(OPERATION)?;
        let threads = options.concurrency;
        let turns = vec![Turn::Idle; threads];
        let shared = Arc::new(Shared {
            queue: self.clone(),
            options,
            stopping: AtomicBool::new(false),
            state: Mutex::new(State { threads, turns, error: None }),
            ended: Condvar::new(),
            counts: Counts::default(),
        });
        let (worker, handler) = (Worker(Arc::clone(&shared)), Arc::new(handler));
        for index in 0..threads {
            let (own, handler) = (Arc::clone(&shared), Arc::clone(&handler));
            let started = os::thread::spawn("flowmesh-work", move || own.run(index, &*handler));
            if let Err(error) = started {
                shared.state.lock().threads -= threads - index;
                worker.stop(Duration::ZERO);
                return Err(error);
            }
        }
        Ok(worker)
    }
}

impl Worker {
    /// Takes no more jobs, waits at most `timeout` for those that are being worked on, and then gives the others back:
    /// their attempt does not count, and their handlers see that they are cancelled. Whether all had finished.
    pub fn stop(&self, timeout: Duration) -> bool {
        if !self.0.queue.is_here() {
            return true;
        }
        self.0.begin_stop();
        let deadline = Instant::now().checked_add(timeout);
        let mut state = self.0.state.lock();
        while state.threads > 0 {
            match deadline {
                Some(deadline) => {
                    if self.0.ended.wait_until(&mut state, deadline) {
                        break;
                    }
                }
                None => self.0.ended.wait(&mut state),
            }
        }
        if state.threads == 0 {
            return true;
        }
        let left: Vec<Arc<Job>> = state
            .turns
            .iter()
            .filter_map(|turn| if let Turn::Works(job) = turn { Some(Arc::clone(job)) } else { None })
            .collect();
        drop(state);
        for job in left {
            job.mark_cancelled();
            if job.release().is_ok() {
                // Relaxed: counters.
                self.0.counts.released.fetch_add(1, Ordering::Relaxed);
            }
        }
        false
    }

    /// What it has done.
    pub fn stats(&self) -> WorkerStats {
        let counts = &self.0.counts;
        let state = self.0.state.lock();
        let running = state.turns.iter().filter(|turn| matches!(turn, Turn::Works(_))).count() as u64;
        WorkerStats {
            running,
            // Relaxed: counters.
            done: counts.done.load(Ordering::Relaxed),
            failed: counts.failed.load(Ordering::Relaxed),
            rejected: counts.rejected.load(Ordering::Relaxed),
            released: counts.released.load(Ordering::Relaxed),
            lost: counts.lost.load(Ordering::Relaxed),
        }
    }

    /// Whether it still takes jobs.
    pub fn is_running(&self) -> bool {
        self.0.state.lock().threads > 0 && !self.0.stopping.load(Ordering::Acquire)
    }

    /// Why it ended by itself, if it did: the mesh was closed, the host has gone, the disk failed.
    pub fn error(&self) -> Option<Error> {
        self.0.state.lock().error.as_ref().map(Error::duplicate)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.0.begin_stop();
    }
}

impl Shared {
    fn begin_stop(&self) {
        // A forked child has neither the threads nor, maybe, whoever held the lock.
        if !self.queue.is_here() {
            return;
        }
        self.stopping.store(true, Ordering::Release);
        let waits: Vec<Arc<PendingReply>> = self
            .state
            .lock()
            .turns
            .iter()
            .filter_map(|turn| if let Turn::Waits(pending) = turn { Some(Arc::clone(pending)) } else { None })
            .collect();
        waits.iter().for_each(|pending| pending.cancel());
    }

    fn run(
        &self,
        index: usize,
        handler: &impl Fn(&Arc<Job>) -> std::result::Result<Option<Vec<u8>>, JobError>,
    ) {
        let mut next = Next::Unknown;
        while !self.stopping.load(Ordering::Acquire) {
            match self.take(index, std::mem::take(&mut next)) {
                Ok(Some(job)) => {
                    self.state.lock().turns[index] = Turn::Works(Arc::clone(&job));
                    job.keep();
                    let outcome = guarded_job(|| handler(&job));
                    next = self.settle(&job, &outcome);
                    self.state.lock().turns[index] = Turn::Idle;
                }
                Ok(None) => {}
                Err(error) if error.kind() == ErrorKind::Cancelled => {}
                Err(error) if error.is_retryable() && error.kind() != ErrorKind::Disconnected => self.rest(),
                Err(error) => {
                    self.state.lock().error.get_or_insert(error);
                    break;
                }
            }
        }
        if let Next::Taken(job) = next
            && job.release().is_ok()
        {
            // Relaxed: a counter.
            self.counts.released.fetch_add(1, Ordering::Relaxed);
        }
        let mut state = self.state.lock();
        state.turns[index] = Turn::Idle;
        state.threads -= 1;
        drop(state);
        self.ended.notify_all();
    }

    fn take(&self, index: usize, next: Next) -> Result<Option<Arc<Job>>> {
        let lease = self.options.lease;
        match next {
            Next::Taken(job) => return Ok(Some(job)),
            Next::NoneThere => {}
            // What is there is had without the detour that makes waiting cancellable.
            Next::Unknown => {
                if let Some(job) = self.queue.reserve(1, lease, &mut Wait::poll())?.into_iter().next() {
                    return Ok(Some(Arc::new(job)));
                }
            }
        }
        let pending = Arc::new(self.queue.start_reserve(1, lease, None)?);
        self.state.lock().turns[index] = Turn::Waits(Arc::clone(&pending));
        // Whoever stops us has set the flag before it looked for what we wait for.
        if self.stopping.load(Ordering::Acquire) {
            pending.cancel();
        }
        let answered = pending.wait(&mut Wait::forever());
        self.state.lock().turns[index] = Turn::Idle;
        Ok(self.queue.jobs(answered?)?.into_iter().next().map(Arc::new))
    }

    /// Says what came of a job. One that is done makes room for the next, which is had in the same request.
    fn settle(&self, job: &Job, outcome: &std::result::Result<Option<Vec<u8>>, JobError>) -> Next {
        let counts = &self.counts;
        let (settle, count) = match outcome {
            // What a handler returns that was told to stop is not the whole of its work.
            _ if job.is_cancelled() => (Settle::Release, &counts.released),
            Ok(result) => (Settle::Ack(result.as_deref()), &counts.done),
            Err(JobError::Release) => (Settle::Release, &counts.released),
            Err(JobError::Failed { message, detail }) => (
                Settle::Nack { message: shorten(message, 1024), detail: shorten(detail, 4096), delay: None },
                &counts.failed,
            ),
            Err(JobError::Reject(message)) => {
                (Settle::Reject { message: shorten(message, 1024), detail: "" }, &counts.rejected)
            }
            Err(JobError::Snooze(delay)) => (Settle::Snooze(*delay), &counts.released),
        };
        while !job.is_settled() {
            let settled = match settle {
                Settle::Ack(result) if !self.stopping.load(Ordering::Acquire) => {
                    let acked = job.ack_and_reserve(result, self.options.lease, &mut Wait::forever());
                    acked.map(|(_, next)| next.map_or(Next::NoneThere, |next| Next::Taken(Arc::new(next))))
                }
                settle => job.settle(settle, &mut Wait::forever()).map(|_| Next::Unknown),
            };
            match settled {
                Ok(next) => {
                    // Relaxed: counters.
                    count.fetch_add(1, Ordering::Relaxed);
                    return next;
                }
                // The disk is full, the host is busy. Told again for as long as the job is ours.
                Err(error) if error.is_retryable() && !job.is_cancelled() && !job.remaining().is_zero() => {
                    self.rest();
                }
                Err(error) => {
                    // What the handler made cannot be kept; the job must not be lost for it.
                    if matches!(error.kind(), ErrorKind::TooLarge | ErrorKind::InvalidArgument) {
                        let message = error.to_string();
                        let nack = Settle::Nack { message: shorten(&message, 1024), detail: "", delay: None };
                        if job.settle(nack, &mut Wait::forever()).is_ok() {
                            counts.failed.fetch_add(1, Ordering::Relaxed);
                            return Next::Unknown;
                        }
                    }
                    counts.lost.fetch_add(1, Ordering::Relaxed);
                    break;
                }
            }
        }
        Next::Unknown
    }

    fn rest(&self) {
        let mut state = self.state.lock();
        // Woken early by whoever ends, which does no harm.
        self.ended.wait_for(&mut state, REST);
    }
}
