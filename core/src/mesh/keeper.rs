//! The jobs that workers of this process have: where a wish to cancel one finds it, and who keeps its lease alive.
//!
//! One thread for all jobs of a mesh, born with the first that asks for it, extends each lease when a third of it has
//! passed. It sleeps until the first is due; jobs that are settled sooner never wake it.
#![forbid(unsafe_code)]

use super::{
    backend::Backend,
    call::CallState,
    service::CancelFlag,
    wait::{Mailbox, Wait},
};
use crate::sync::lock::{Condvar, Mutex};
use crate::{
    error::ErrorKind,
    os,
    queue::{Answered, QueueId, QueueReply, QueueRequest, Token},
};
use hashbrown::HashMap;
use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// A lease as its worker's process knows it.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) cancelled: CancelFlag,
    /// When it ends.
    until: Mutex<Instant>,
}

impl Held {
    pub(super) fn remaining(&self) -> Duration {
        self.until.lock().saturating_duration_since(Instant::now())
    }

    /// It was extended by so much from now on.
    pub(super) fn extended(&self, left: Duration) {
        *self.until.lock() = Instant::now() + left;
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    /// By the lease's nonce.
    running: HashMap<u64, Running>,
    /// Cancelled before their handle was made.
    early: VecDeque<u64>,
    /// When the keeper looks next; `None` while it has nothing to keep.
    looks: Option<Instant>,
    keeper: Option<JoinHandle<()>>,
    closed: bool,
}

#[derive(Debug)]
struct Running {
    held: Arc<Held>,
    kept: Option<Kept>,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    queue: QueueId,
    token: Token,
    lease: Duration,
    due: Instant,
}

/// A wish that came before its job is remembered; of so many that never found one the oldest is forgotten. The next
/// extension tells of it then.
const EARLY_MAX: usize = 1024;
/// How long the host may take to extend a lease before it is asked again.
const EXTEND_TIMEOUT: Duration = Duration::from_secs(5);

impl Jobs {
    /// Jobs that were just handed out, by nonce and lease.
    pub(super) fn begin(&self, jobs: impl IntoIterator<Item = (u64, Duration)>) -> Vec<Arc<Held>> {
        let now = Instant::now();
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let begin = |(nonce, lease)| {
            let held = Arc::new(Held { cancelled: CancelFlag::default(), until: Mutex::new(now + lease) });
            if let Some(at) = inner.early.iter().position(|early| *early == nonce) {
                inner.early.remove(at);
                held.cancelled.cancel();
            }
            inner.running.insert(nonce, Running { held: Arc::clone(&held), kept: None });
            held
        };
        jobs.into_iter().map(begin).collect()
    }

    pub(super) fn end(&self, nonce: u64) {
        self.inner.lock().running.remove(&nonce);
    }

    /// Somebody wants a job back.
    pub(super) fn cancel(&self, nonce: u64) {
        let mut inner = self.inner.lock();
        if let Some(running) = inner.running.get(&nonce) {
            let held = Arc::clone(&running.held);
            drop(inner);
            held.cancelled.cancel();
            return;
        }
        if inner.early.len() == EARLY_MAX {
            inner.early.pop_front();
        }
        inner.early.push_back(nonce);
    }

    /// Extends a lease from now on whenever a third of it has passed, until the job has ended.
    pub(super) fn keep(&self, backend: &Arc<dyn Backend>, queue: QueueId, token: Token, lease: Duration) {
        let mut inner = self.inner.lock();
        let Some(running) = inner.running.get_mut(&token.nonce) else { return };
        let due = *running.held.until.lock() - lease * 2 / 3;
        running.kept = Some(Kept { queue, token, lease, due });
        if inner.looks.is_some_and(|looks| looks <= due) || inner.closed {
            return;
        }
        inner.looks = Some(due);
        if inner.keeper.is_none() {
            let backend = Arc::downgrade(backend);
            // Without a thread the lease ends in its time, as if nobody had asked.
            inner.keeper = os::thread::spawn("flowmesh-leases", move || keep_leases(&backend)).ok();
        }
        self.changed.notify_one();
    }

    /// The mesh is closed: no job is ours any more.
    pub(super) fn close(&self) {
        let mut inner = self.inner.lock();
        inner.closed = true;
        let running: Vec<_> = inner.running.values().map(|running| Arc::clone(&running.held)).collect();
        drop(inner);
        self.changed.notify_all();
        running.iter().for_each(|held| held.cancelled.cancel());
    }

    /// Waits until the keeper has ended, once the mesh is closed.
    pub(super) fn join(&self) {
        let keeper = self.inner.lock().keeper.take();
        if let Some(keeper) = keeper {
            // A keeper that panicked has said so.
            let _ = keeper.join();
        }
    }

    /// Waits until leases are due; `None` when it is over.
    fn due(&self) -> Option<Vec<(Kept, Arc<Held>)>> {
        let mut inner = self.inner.lock();
        loop {
            if inner.closed {
                return None;
            }
            let Some(looks) = inner.looks else {
                self.changed.wait(&mut inner);
                continue;
            };
            if self.changed.wait_until(&mut inner, looks) {
                break;
            }
        }
        let now = Instant::now();
        let mut due = Vec::new();
        let mut looks: Option<Instant> = None;
        for running in inner.running.values_mut() {
            let Some(kept) = &mut running.kept else { continue };
            if kept.due <= now {
                // Asked again soon unless the answer says how long it lasts.
                kept.due = now + (kept.lease / 6).min(EXTEND_TIMEOUT);
                due.push((*kept, Arc::clone(&running.held)));
            }
            looks = Some(looks.map_or(kept.due, |looks| looks.min(kept.due)));
        }
        inner.looks = looks;
        Some(due)
    }

    /// A lease lasts so long from now on, or is not ours any more.
    fn extended(&self, kept: &Kept, held: &Held, left: Option<Duration>) {
        let mut inner = self.inner.lock();
        let Some(running) = inner.running.get_mut(&kept.token.nonce) else { return };
        match left {
            Some(left) => {
                held.extended(left);
                if let Some(kept) = &mut running.kept {
                    kept.due = Instant::now() + left / 3;
                }
            }
            None => running.kept = None,
        }
    }
}

fn keep_leases(backend: &Weak<dyn Backend>) {
    loop {
        // The table lives in the backend, so it is held while the table is waited on. Closing ends that, and joins.
        let Some(backend) = backend.upgrade() else { return };
        let Some(due) = backend.jobs().due() else { return };
        let asked: Vec<_> = due
            .into_iter()
            .map(|(kept, held)| {
                let Kept { queue, token, lease, .. } = kept;
                let request = QueueRequest::Extend { queue, token, lease: Some(lease) };
                (kept, held, backend.start_queue_request(request, None, Some(EXTEND_TIMEOUT)))
            })
            .collect();
        for (kept, held, started) in asked {
            let Ok((_, mailbox)) = started else { continue };
            match answer(&mailbox) {
                Ok(QueueReply::Lease { left, cancelling }) => {
                    backend.jobs().extended(&kept, &held, Some(left));
                    if cancelling {
                        held.cancelled.cancel();
                    }
                }
                Err(ErrorKind::LeaseLost | ErrorKind::NotFound) => {
                    backend.jobs().extended(&kept, &held, None);
                    held.cancelled.cancel();
                }
                // It is asked again before the lease ends.
                _ => {}
            }
        }
    }
}

fn answer(mailbox: &Mailbox<CallState>) -> Result<QueueReply, ErrorKind> {
    let mut wait = Wait::timeout(EXTEND_TIMEOUT);
    let message = mailbox.wait("job.extend", &mut wait, CallState::take).and_then(|result| result);
    let answered = message.and_then(|message| Answered::decode(message.payload()));
    answered.map(|answered| answered.reply).map_err(|error| error.kind())
}
