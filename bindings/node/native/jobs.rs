//! Threads for what may wait for another process: opening, connecting, subscribing, asking the host.
//!
//! None until needed, at most [`THREADS_MAX`] at once, gone when idle. libuv's pool is left to the
//! program. A job that ends rings the environment's bell; its result stays here until it is taken.
#![forbid(unsafe_code)]

use crate::js::{Wake, panicked};
use flowmesh::{Error, Mesh, PendingCall, PendingReply, Result, Service, Subscription};
use std::{
    collections::{HashMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// What a job made.
pub(crate) enum Made {
    Mesh(Mesh),
    Subscription(Subscription),
    Service(Service),
    Call(PendingCall),
    Reply(PendingReply),
    Text(String),
    Nothing,
}

type Work = Box<dyn FnOnce() -> Result<Made> + Send>;

/// The jobs of one environment.
pub(crate) struct Jobs(Arc<Shared>);

struct Shared {
    inner: Mutex<Inner>,
    queued: Condvar,
    ended: Condvar,
    wake: Wake,
}

#[derive(Default)]
struct Inner {
    queue: VecDeque<(u64, Work)>,
    results: HashMap<u64, Result<Made>>,
    /// Jobs that ended since the last [`Jobs::take_ended`].
    ended: Vec<u64>,
    threads: usize,
    idle: usize,
    closed: bool,
}

impl Jobs {
    pub(crate) fn new(wake: Wake) -> Self {
        let inner = Mutex::new(Inner::default());
        Self(Arc::new(Shared { inner, queued: Condvar::new(), ended: Condvar::new(), wake }))
    }

    /// Runs `work` on a thread, as job `id`.
    pub(crate) fn start(&self, id: u64, work: impl FnOnce() -> Result<Made> + Send + 'static) -> Result<()> {
        let mut inner = self.0.lock();
        if inner.idle <= inner.queue.len() && inner.threads < THREADS_MAX {
            let shared = Arc::clone(&self.0);
            let started = std::thread::Builder::new().name("flowmesh-job".into()).spawn(move || shared.run());
            match started {
                Ok(_) => inner.threads += 1,
                // With a thread at work the job waits for it; without one nobody would ever come.
                Err(error) if inner.threads == 0 => return Err(Error::from_io("node.job", error)),
                Err(_) => {}
            }
        }
        inner.queue.push_back((id, Box::new(work)));
        drop(inner);
        self.0.queued.notify_one();
        Ok(())
    }

    /// Waits at most `timeout` for the end of job `id`.
    pub(crate) fn wait(&self, id: u64, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut inner = self.0.lock();
        while !inner.results.contains_key(&id) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            inner = self.0.ended.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// The result of a job that ended, once.
    pub(crate) fn take(&self, id: u64) -> Option<Result<Made>> {
        self.0.lock().results.remove(&id)
    }

    /// Adds the jobs that ended since the last time.
    pub(crate) fn take_ended(&self, out: &mut Vec<u64>) {
        out.append(&mut self.0.lock().ended);
    }

    /// Forgets what waits, and undoes what is still being made when it is done. Joins nothing.
    pub(crate) fn close(&self) {
        let mut inner = self.0.lock();
        inner.closed = true;
        let dropped = (std::mem::take(&mut inner.queue), std::mem::take(&mut inner.results));
        drop(inner);
        self.0.queued.notify_all();
        dropped.1.into_values().for_each(undo);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        while let Some((id, work)) = self.next() {
            let result = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(panicked(&*panic)));
            let mut inner = self.lock();
            if inner.closed {
                drop(inner);
                undo(result);
                continue;
            }
            inner.results.insert(id, result);
            inner.ended.push(id);
            drop(inner);
            self.ended.notify_all();
            self.wake.ring();
        }
    }

    fn next(&self) -> Option<(u64, Work)> {
        let mut inner = self.lock();
        let deadline = Instant::now() + IDLE;
        loop {
            if let Some(job) = inner.queue.pop_front() {
                return Some(job);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if inner.closed || left.is_zero() {
                inner.threads -= 1;
                return None;
            }
            inner.idle += 1;
            inner = self.queued.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
            inner.idle -= 1;
        }
    }
}

/// Nobody will take it: a mesh must not stay open because its environment ended while it was opened.
fn undo(result: Result<Made>) {
    if let Ok(Made::Mesh(mesh)) = result {
        mesh.close();
    }
}

const THREADS_MAX: usize = 8;
const IDLE: Duration = Duration::from_secs(5);
