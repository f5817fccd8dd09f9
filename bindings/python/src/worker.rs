//! What the threads or tasks of one worker share: jobs on their way to a handler, and outcomes on their way back.
//!
//! Calls no handler and starts no thread; Python does. Of the threads that have nothing to do one reserves, at most as
//! many jobs as threads are free, so that no job waits behind a handler. Jobs that are done without a result are acked
//! together: at the latest when a thread that has finished one finds no other to begin, and then in the request that
//! brings the next. Where acks reach the disk nobody waits for them; what came of it is looked at when it is there.

use crate::{
    args::{Whole, not_picklable, seconds},
    errors::Result,
    jobs::{Job, Said},
    payload::Encoded,
    pending::Pending,
    queue::Queue,
};
use flowmesh::{
    Durability, Error, ErrorKind, PendingReply, Settle, Wait,
    queue::{Answered, QueueReply, QueueRequest, RESERVE_COUNT_MAX},
};
use pyo3::{
    prelude::*,
    types::{PyDict, PyList, PyString},
};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Hands the jobs of a queue to the threads that iterate over it, or to the tasks of an event loop.
#[pyclass(frozen, module = "flowmesh._native")]
pub(crate) struct Intake {
    queue: Py<Queue>,
    core: flowmesh::Queue,
    lease: Option<Duration>,
    is_host: bool,
    /// Whether acking takes no longer than a system call: it is done in this process and not waited for by a disk.
    acks_at_once: bool,
    /// Whether jobs are acked with the request that brings the next: no disk is waited for.
    acks_and_reserves: bool,
    inner: Mutex<Inner>,
    /// Sleepers have something to do.
    changed: Condvar,
    /// It stops: who rests is to look.
    stops: Condvar,
}

#[derive(Default)]
struct Inner {
    /// Reserved, not begun: never more than there are threads asleep.
    ready: VecDeque<Arc<flowmesh::Job>>,
    /// By the lease's nonce: what handlers have.
    running: HashMap<u64, Arc<flowmesh::Job>>,
    /// Done, not acked.
    done: Vec<Arc<flowmesh::Job>>,
    /// Told, not answered.
    sent: VecDeque<Sent>,
    /// Not told, as the disk was full or the like.
    unsent: Vec<Telling>,
    /// Threads asleep.
    idle: usize,
    /// One of them has been woken and is not up yet.
    waking: bool,
    /// A thread reserves; this is what it waits for.
    is_reserving: bool,
    waits_for: Option<Arc<PendingReply>>,
    stopping: bool,
    counts: Counts,
}

/// What is to be said of jobs; of more than one only that they are done.
struct Telling {
    jobs: Vec<Arc<flowmesh::Job>>,
    outcome: Outcome,
}

struct Sent {
    telling: Telling,
    pending: PendingReply,
}

enum Outcome {
    Done(Option<Vec<u8>>),
    Failed(Said),
    Rejected(Said),
    Snoozed(Duration),
    Released,
}

impl Outcome {
    fn settle(&self) -> Settle<'_> {
        match self {
            Self::Done(result) => Settle::Ack(result.as_deref()),
            Self::Failed(Said { message, detail }) => Settle::Nack { message, detail, delay: None },
            Self::Rejected(Said { message, detail }) => Settle::Reject { message, detail },
            Self::Snoozed(delay) => Settle::Snooze(*delay),
            Self::Released => Settle::Release,
        }
    }
}

#[derive(Clone, Copy, Default)]
struct Counts {
    done: u64,
    failed: u64,
    rejected: u64,
    released: u64,
    lost: u64,
}

impl Counts {
    fn add(&mut self, outcome: &Outcome) {
        let count = match outcome {
            Outcome::Done(_) => &mut self.done,
            Outcome::Failed(_) => &mut self.failed,
            Outcome::Rejected(_) => &mut self.rejected,
            Outcome::Snoozed(_) | Outcome::Released => &mut self.released,
        };
        *count += 1;
    }
}

/// The most handlers of one worker at once.
const CONCURRENCY_MAX: i64 = 1024;
/// Jobs acked at once.
const ACKS_MAX: usize = 100;
/// Outcomes that may wait for their answers before the next job is reserved.
const SENT_MAX: usize = 256;
/// How long a worker rests when the disk is full.
const REST: Duration = Duration::from_millis(200);

impl Intake {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what is ready. The next sleeper is woken for what is left, or to reserve more.
    fn pop(&self, inner: &mut Inner) -> Option<Arc<flowmesh::Job>> {
        let job = inner.ready.pop_front()?;
        inner.running.insert(job.token().nonce, Arc::clone(&job));
        self.wake_one(inner);
        Some(job)
    }

    fn wake_one(&self, inner: &mut Inner) {
        if inner.idle > 0 && !inner.waking && (!inner.ready.is_empty() || !inner.is_reserving) {
            inner.waking = true;
            self.changed.notify_one();
        }
    }

    /// Reserves, or sleeps while another does. Returns when there may be a job, or the worker stops.
    fn fill(&self) -> flowmesh::Result<()> {
        if !self.acks_and_reserves {
            self.flush();
        }
        self.tell_again();
        while self.lock().sent.len() > SENT_MAX {
            self.await_answer(None);
        }
        let (most, done) = {
            let mut inner = self.lock();
            let reserves = !inner.stopping && inner.ready.is_empty() && !inner.is_reserving;
            if !reserves && !inner.done.is_empty() {
                drop(inner);
                self.flush();
                return Ok(());
            }
            if inner.stopping || !inner.ready.is_empty() {
                return Ok(());
            }
            if inner.is_reserving {
                inner.idle += 1;
                let mut inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
                inner.idle -= 1;
                inner.waking = false;
                return Ok(());
            }
            inner.is_reserving = true;
            ((1 + inner.idle).min(RESERVE_COUNT_MAX), std::mem::take(&mut inner.done))
        };
        let reserved = self.reserve(most, done);
        let mut inner = self.lock();
        inner.is_reserving = false;
        inner.waits_for = None;
        let error = match reserved {
            Ok(jobs) => {
                for job in jobs {
                    job.keep();
                    inner.ready.push_back(Arc::new(job));
                }
                if inner.stopping {
                    let unwanted = std::mem::take(&mut inner.ready);
                    drop(inner);
                    self.give_back(unwanted);
                }
                return Ok(());
            }
            Err(error) if error.kind() == ErrorKind::Cancelled => return Ok(()),
            Err(error) => error,
        };
        // Another thread may have more luck, and is to hear of it otherwise.
        self.wake_one(&mut inner);
        if error.is_retryable() && error.kind() != ErrorKind::Disconnected {
            self.rest(inner);
            return Ok(());
        }
        Err(error)
    }

    /// Acks what is done, and waits for jobs.
    fn reserve(&self, most: usize, done: Vec<Arc<flowmesh::Job>>) -> flowmesh::Result<Vec<flowmesh::Job>> {
        if !done.is_empty() {
            let jobs = self.ack_and_reserve(most, done)?;
            if !jobs.is_empty() {
                return Ok(jobs);
            }
        } else if self.is_host {
            // What is there is had without the detour that makes waiting cancellable.
            let jobs = self.core.reserve(most, self.lease, &mut Wait::poll())?;
            if !jobs.is_empty() {
                return Ok(jobs);
            }
        }
        let pending = Arc::new(self.core.start_reserve(most, self.lease, None)?);
        {
            let mut inner = self.lock();
            inner.waits_for = Some(Arc::clone(&pending));
            if inner.stopping {
                pending.cancel();
            }
        }
        loop {
            // While outcomes are on their way somebody has to look what came of them.
            let looks = {
                let inner = self.lock();
                !inner.sent.is_empty() || !inner.unsent.is_empty()
            };
            match pending.wait(&mut Wait::from(looks.then_some(REST))) {
                Err(error) if looks && error.kind() == ErrorKind::Timeout => {
                    self.collect();
                    self.tell_unsent();
                }
                answered => return self.core.jobs(answered?),
            }
        }
    }

    fn ack_and_reserve(
        &self,
        most: usize,
        done: Vec<Arc<flowmesh::Job>>,
    ) -> flowmesh::Result<Vec<flowmesh::Job>> {
        let acks: Vec<_> = done.iter().map(|job| (&**job, None)).collect();
        let answered = self.core.ack_and_reserve(&acks, most, self.lease, &mut Wait::forever());
        let telling = Telling { jobs: done, outcome: Outcome::Done(None) };
        match answered {
            Ok((each, jobs)) => {
                self.note_each(telling, Ok(each));
                Ok(jobs)
            }
            Err(error) => {
                self.note_each(telling, Err(error.duplicate()));
                Err(error)
            }
        }
    }

    fn rest(&self, inner: MutexGuard<'_, Inner>) {
        let _ = self.stops.wait_timeout_while(inner, REST, |inner| !inner.stopping);
    }

    /// Acks what is done.
    fn flush(&self) {
        let jobs = std::mem::take(&mut self.lock().done);
        if !jobs.is_empty() {
            self.tell(Telling { jobs, outcome: Outcome::Done(None) });
        }
    }

    /// Says what came of jobs, and does not wait for the answer.
    fn tell(&self, telling: Telling) {
        let Telling { jobs, outcome, .. } = &telling;
        let [job] = &**jobs else {
            if self.acks_at_once {
                let each = self.core.ack_many(jobs.iter().map(|job| &**job));
                return self.note_each(telling, each);
            }
            match self.core.start_ack_many(jobs.iter().map(|job| &**job)) {
                Ok(pending) => self.sent(Sent { telling, pending }),
                Err(error) => self.note_each(telling, Err(error)),
            }
            return;
        };
        if self.acks_at_once {
            let told = job.settle(outcome.settle(), &mut Wait::forever());
            return self.note_each(telling, Ok(vec![told.map(drop)]));
        }
        match job.start_settle(outcome.settle()) {
            Ok(pending) => self.sent(Sent { telling, pending }),
            Err(error) => self.note_each(telling, Err(error)),
        }
    }

    fn sent(&self, sent: Sent) {
        if let Some(sent) = self.take_answer(sent) {
            self.lock().sent.push_back(sent);
        }
    }

    /// Looks at the answer; gives it back if it is not there.
    fn take_answer(&self, sent: Sent) -> Option<Sent> {
        match sent.pending.try_take() {
            Some(answered) => {
                self.note_answer(sent.telling, answered);
                None
            }
            None => Some(sent),
        }
    }

    fn note_answer(&self, telling: Telling, answered: flowmesh::Result<Answered>) {
        let each = match &*telling.jobs {
            [job] => Ok(vec![job.settled(answered).map(drop)]),
            jobs => self.core.acked(jobs.iter().map(|job| &**job), answered),
        };
        self.note_each(telling, each);
    }

    /// Looks at the answers that are there, in their order.
    fn collect(&self) {
        loop {
            let Some(sent) = self.lock().sent.pop_front() else { return };
            if let Some(sent) = self.take_answer(sent) {
                self.lock().sent.push_front(sent);
                return;
            }
        }
    }

    /// Waits for the first of the answers; whether there was one in time.
    fn await_answer(&self, timeout: Option<Duration>) -> bool {
        let Some(sent) = self.lock().sent.pop_front() else { return true };
        let answered = sent.pending.wait(&mut Wait::from(timeout));
        if let Err(error) = &answered
            && error.kind() == ErrorKind::Timeout
            && timeout.is_some()
        {
            self.lock().sent.push_front(sent);
            return false;
        }
        self.note_answer(sent.telling, answered);
        true
    }

    fn note_each(&self, telling: Telling, each: flowmesh::Result<Vec<flowmesh::Result<()>>>) {
        let Telling { jobs, outcome } = telling;
        match each {
            Ok(each) => {
                let mut again = Vec::new();
                {
                    let mut inner = self.lock();
                    for (job, one) in jobs.into_iter().zip(each) {
                        match one {
                            Ok(()) => inner.counts.add(&outcome),
                            Err(error) => again.push((job, error)),
                        }
                    }
                }
                if let Some((_, error)) = again.first() {
                    let error = error.duplicate();
                    let jobs = again.into_iter().map(|(job, _)| job).collect();
                    self.untold(Telling { jobs, outcome }, &error);
                }
            }
            Err(error) => self.untold(Telling { jobs, outcome }, &error),
        }
    }

    /// It could not be told; it is again for as long as the job is ours.
    fn untold(&self, telling: Telling, error: &Error) {
        let is_ours = error.kind() != ErrorKind::LeaseLost;
        if is_ours
            && error.is_retryable()
            && error.kind() != ErrorKind::Disconnected
            && telling.jobs.iter().any(|job| !job.is_cancelled() && !job.remaining().is_zero())
        {
            self.lock().unsent.push(telling);
            return;
        }
        // What the handler made cannot be kept; the job must not be lost for it.
        if matches!(error.kind(), ErrorKind::TooLarge | ErrorKind::InvalidArgument)
            && !matches!(telling.outcome, Outcome::Failed(_))
        {
            let said = Said { message: error.to_string(), detail: String::new() };
            return self.tell(Telling { outcome: Outcome::Failed(said), ..telling });
        }
        self.lock().counts.lost += telling.jobs.len() as u64;
    }

    /// Says again what could not be told, after a rest.
    fn tell_again(&self) {
        let inner = self.lock();
        if !inner.unsent.is_empty() {
            self.rest(inner);
            self.tell_unsent();
        }
    }

    fn tell_unsent(&self) {
        let unsent = std::mem::take(&mut self.lock().unsent);
        unsent.into_iter().for_each(|telling| self.tell(telling));
    }

    /// Jobs that no handler has begun.
    fn give_back(&self, jobs: impl IntoIterator<Item = Arc<flowmesh::Job>>) {
        for job in jobs {
            // If it cannot be sent, the lease ends by itself.
            let _ = job.start_settle(Settle::Release);
        }
    }

    /// What a handler made of a job, unless it settled it itself.
    fn finish(&self, py: Python<'_>, job: &Bound<'_, Job>, outcome: Outcome) {
        let job = job.get().inner();
        let (outcome, flushes) = {
            let mut inner = self.lock();
            inner.running.remove(&job.token().nonce);
            if job.is_settled() {
                return;
            }
            let outcome = if job.is_cancelled() { Outcome::Released } else { outcome };
            if matches!(outcome, Outcome::Done(None)) {
                inner.done.push(Arc::clone(job));
                (None, inner.done.len() >= ACKS_MAX)
            } else {
                (Some(outcome), false)
            }
        };
        if let Some(outcome) = outcome {
            py.detach(|| self.tell(Telling { jobs: vec![Arc::clone(job)], outcome }));
        } else if flushes {
            py.detach(|| self.flush());
        }
    }
}

#[pymethods]
impl Intake {
    #[new]
    fn new(queue: &Bound<'_, Queue>, concurrency: Whole, lease: Option<f64>) -> Result<Self> {
        let (py, operation) = (queue.py(), "queue.process");
        concurrency.within::<usize>(operation, "concurrency", 1..=CONCURRENCY_MAX)?;
        let lease = lease.map(|lease| seconds(operation, "lease", lease)).transpose()?;
        flowmesh::queue::ReserveOptions { lease }.validate()?;
        let core = queue.get().inner().clone();
        let answered = crate::wait::waiting(py, None, |wait| {
            core.request(QueueRequest::Config { queue: core.id() }, wait)
        })?;
        let QueueReply::Config(config) = answered.reply else {
            return Err(crate::queue::unexpected("queue.config"));
        };
        let is_host = queue.get().is_host();
        let durability = queue.get().durability().unwrap_or(config.durability);
        Ok(Self {
            queue: queue.clone().unbind(),
            core,
            lease,
            is_host,
            acks_at_once: is_host && durability != Durability::Fsync,
            acks_and_reserves: durability != Durability::Fsync,
            inner: Mutex::default(),
            changed: Condvar::new(),
            stops: Condvar::new(),
        })
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    /// The next job for this thread; the end when the worker stops.
    fn __next__<'py>(&self, py: Python<'py>) -> Result<Option<Bound<'py, Job>>> {
        let queue = self.queue.bind(py);
        loop {
            // Taken with the GIL held: whoever waits for it has taken nothing.
            let (job, stops, answers) = {
                let mut inner = self.lock();
                let job = if inner.stopping { None } else { self.pop(&mut inner) };
                (job, inner.stopping, !inner.sent.is_empty())
            };
            if answers {
                self.collect();
            }
            if let Some(job) = job {
                return Ok(Some(Bound::new(py, Job::new(queue, job))?));
            }
            if stops {
                py.detach(|| self.flush());
                return Ok(None);
            }
            py.detach(|| self.fill())?;
        }
    }

    /// The handler returned this.
    fn done(&self, py: Python<'_>, job: &Bound<'_, Job>, result: &Bound<'_, PyAny>) -> Result<()> {
        let result = match result.is_none() {
            true => None,
            false => Some(Encoded::new(result)?.as_bytes().to_vec()),
        };
        self.finish(py, job, Outcome::Done(result));
        Ok(())
    }

    /// The handler raised this.
    fn failed(&self, py: Python<'_>, job: &Bound<'_, Job>, error: &Bound<'_, PyAny>) -> Result<()> {
        let said = Said::of(Some(error), None, "error")?;
        self.finish(py, job, Outcome::Failed(said));
        Ok(())
    }

    /// The handler found that no attempt can succeed.
    fn rejected(
        &self,
        py: Python<'_>,
        job: &Bound<'_, Job>,
        message: &Bound<'_, PyString>,
        detail: &Bound<'_, PyString>,
    ) {
        let [message, detail] = [message, detail].map(|text| text.to_string_lossy().into_owned());
        self.finish(py, job, Outcome::Rejected(Said { message, detail }));
    }

    /// The handler put it off by `delay` seconds.
    fn snoozed(&self, py: Python<'_>, job: &Bound<'_, Job>, delay: f64) -> Result<()> {
        let delay = seconds("job.snooze", "delay", delay)?;
        self.finish(py, job, Outcome::Snoozed(delay));
        Ok(())
    }

    /// The handler is not to go on.
    fn released(&self, py: Python<'_>, job: &Bound<'_, Job>) {
        self.finish(py, job, Outcome::Released);
    }

    /// Starts reserving up to `most` jobs for tasks; what is given counts as begun.
    fn start_reserve<'py>(slf: &Bound<'py, Self>, most: usize) -> Result<Bound<'py, PyAny>> {
        let (py, this) = (slf.py(), slf.get());
        let pending =
            py.detach(|| this.core.start_reserve(most.clamp(1, RESERVE_COUNT_MAX), this.lease, None))?;
        let intake = slf.clone().unbind();
        Pending::of(py, pending, move |py, answered| {
            let this = intake.get();
            let (queue, mut jobs) = (this.queue.bind(py), Vec::new());
            for job in this.core.jobs(answered?)? {
                job.keep();
                let job = Arc::new(job);
                this.lock().running.insert(job.token().nonce, Arc::clone(&job));
                jobs.push(Bound::new(py, Job::new(queue, job))?);
            }
            Ok(PyList::new(py, jobs)?.into_any())
        })
    }

    /// Acks what is done, looks at answers, and says what could not be told if `again`. Whether somebody is to look
    /// again after a while.
    fn tend(&self, py: Python<'_>, again: bool) -> bool {
        py.detach(|| {
            self.flush();
            self.collect();
            if again {
                self.tell_unsent();
            }
        });
        let inner = self.lock();
        !inner.sent.is_empty() || !inner.unsent.is_empty()
    }

    /// No more jobs: who waits for one is woken, and what no handler has begun is given back.
    fn stop(&self, py: Python<'_>) {
        py.detach(|| {
            let (unbegun, waits_for) = {
                let mut inner = self.lock();
                inner.stopping = true;
                self.changed.notify_all();
                self.stops.notify_all();
                (std::mem::take(&mut inner.ready), inner.waits_for.clone())
            };
            if let Some(pending) = waits_for {
                pending.cancel();
            }
            self.give_back(unbegun);
        });
    }

    /// Gives back what handlers still have; they see it as cancelled. How many.
    fn give_up(&self, py: Python<'_>) -> usize {
        py.detach(|| {
            let running: Vec<_> = self.lock().running.drain().map(|(_, job)| job).collect();
            let open: Vec<_> = running.into_iter().filter(|job| !job.is_settled()).collect();
            let count = open.len();
            for job in open {
                job.mark_cancelled();
                self.tell(Telling { jobs: vec![job], outcome: Outcome::Released });
            }
            count
        })
    }

    /// Waits until everything that was told is answered, at most `timeout` seconds; whether it is.
    fn settle(&self, py: Python<'_>, timeout: f64) -> Result<bool> {
        let timeout = seconds("worker.stop", "timeout", timeout)?;
        Ok(py.detach(|| {
            let until = Instant::now().checked_add(timeout);
            loop {
                self.flush();
                let left = until.map(|until| until.saturating_duration_since(Instant::now()));
                if !self.await_answer(left) {
                    return false;
                }
                let inner = self.lock();
                if inner.sent.is_empty() && inner.unsent.is_empty() {
                    return true;
                }
                if !inner.unsent.is_empty() {
                    if left == Some(Duration::ZERO) {
                        return false;
                    }
                    drop(inner);
                    std::thread::sleep(REST.min(left.unwrap_or(REST)));
                    self.tell_unsent();
                }
            }
        }))
    }

    /// What came of the jobs so far.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        py.detach(|| self.collect());
        let (counts, running) = {
            let inner = self.lock();
            (inner.counts, inner.running.len())
        };
        let Counts { done, failed, rejected, released, lost } = counts;
        let dict = PyDict::new(py);
        dict.set_item("running", running)?;
        dict.set_item("done", done)?;
        dict.set_item("failed", failed)?;
        dict.set_item("rejected", rejected)?;
        dict.set_item("released", released)?;
        dict.set_item("lost", lost)?;
        Ok(dict)
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(not_picklable("Intake", "process in the other process"))
    }
}
