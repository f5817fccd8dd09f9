//! How threads and event loops wait: signals, mailboxes, ready sets.
#![forbid(unsafe_code)]

use super::engine::Engine;
use crate::sync::lock::{Mutex, MutexGuard};
use crate::{
    error::{Error, ErrorKind, Result},
    os::{
        eventfd::EventFd,
        fork::{GuardedFd, guard},
        futex::{self, Wait as Slept},
    },
    sync::{AtomicBool, AtomicU32, Ordering, fence},
};
use std::{
    cell::OnceCell,
    fmt,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a call may wait, and what may end the waiting early.
#[derive(Default)]
pub struct Wait<'a> {
    /// `None` waits for ever, zero only looks.
    pub timeout: Option<Duration>,
    /// Asked when a signal arrives and at least once a second; true ends the wait with
    /// [`ErrorKind::Interrupted`].
    pub interrupt: Option<&'a mut dyn FnMut() -> bool>,
}

thread_local! {
    static SIGNALLED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

impl Wait<'_> {
    /// Until it happens.
    pub fn forever() -> Self {
        Self::default()
    }

    /// At most this long.
    pub fn timeout(timeout: Duration) -> Self {
        Self { timeout: Some(timeout), interrupt: None }
    }

    /// Not at all: only what is there.
    pub fn poll() -> Self {
        Self::timeout(Duration::ZERO)
    }

    /// For `interrupt` while it is being asked: whether because a signal ended a sleep of this thread, rather
    /// than because some time has passed.
    pub fn is_signalled() -> bool {
        SIGNALLED.get()
    }

    pub(super) fn interrupted(&mut self) -> bool {
        self.interrupt.as_mut().is_some_and(|interrupt| interrupt())
    }

    /// Asks after a sleep that ended so.
    pub(super) fn interrupted_after(&mut self, slept: Slept) -> bool {
        SIGNALLED.set(slept == Slept::Interrupted);
        let interrupted = self.interrupted();
        SIGNALLED.set(false);
        interrupted
    }
}

impl From<Option<Duration>> for Wait<'_> {
    fn from(timeout: Option<Duration>) -> Self {
        Self { timeout, interrupt: None }
    }
}

impl fmt::Debug for Wait<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wait").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// When a wait ends. The clock is first read when the wait cannot end at once: most answers come before.
#[derive(Clone, Debug)]
pub(super) struct Deadline {
    timeout: Option<Duration>,
    at: OnceCell<Option<Instant>>,
}

/// No sleep is longer, so that a signal handled by another thread is noticed in time.
const SLICE: Duration = Duration::from_secs(1);

impl Deadline {
    pub(super) fn of(wait: &Wait<'_>) -> Self {
        Self { timeout: wait.timeout, at: OnceCell::new() }
    }

    fn at(&self) -> Option<Instant> {
        *self.at.get_or_init(|| self.timeout.and_then(|timeout| Instant::now().checked_add(timeout)))
    }

    pub(super) fn has_passed(&self) -> bool {
        self.at().is_some_and(|at| Instant::now() >= at)
    }

    /// The next sleep's length.
    pub(super) fn slice(&self) -> Duration {
        self.at().map_or(SLICE, |at| at.saturating_duration_since(Instant::now()).min(SLICE))
    }
}

/// Wakes threads that wait for one thing.
#[derive(Debug, Default)]
pub(super) struct Signal {
    epoch: AtomicU32,
    sleepers: AtomicU32,
    /// The waiting thread leads: it sleeps where the engine can reach it, not here.
    leading: AtomicBool,
}

impl Signal {
    pub(super) fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Sleeps until the signal fires, unless it did since `epoch` was read.
    pub(super) fn park(&self, epoch: u32, timeout: Duration) -> Slept {
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let slept = futex::wait(&self.epoch, epoch, Some(timeout), true);
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        slept
    }

    pub(super) fn set_leading(&self, leading: bool) {
        self.leading.store(leading, Ordering::SeqCst);
    }

    /// What was waited for may have happened.
    pub(super) fn fire(&self, engine: &Engine) {
        // Release: pairs with the Acquire in `epoch`.
        self.epoch.fetch_add(1, Ordering::Release);
        // Partner of the SeqCst accesses in `park` and `set_leading`: either they see the new state, or
        // this sees them.
        fence(Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            futex::wake(&self.epoch, u32::MAX, true);
        }
        if self.leading.load(Ordering::SeqCst) {
            engine.kick_leader();
        }
    }
}

/// Collects the tokens of waitables that became ready, for event loops.
///
/// One wake for each time the set goes from empty to non-empty: a loop drains all tokens in one turn.
#[derive(Clone)]
pub struct ReadySet(Arc<ReadyInner>);

struct ReadyInner {
    tokens: Mutex<Vec<u64>>,
    wake: Wake,
}

enum Wake {
    Call(Box<dyn Fn() + Send + Sync>),
    Fd(EventFd, GuardedFd),
}

impl ReadySet {
    /// Calls `wake` when tokens wait. It is called from any thread; it must neither block nor call back
    /// into FlowMesh.
    pub fn with_wake(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self::new(Wake::Call(Box::new(wake)))
    }

    /// Makes a descriptor readable while tokens wait.
    ///
    /// # Errors
    /// [`ErrorKind::ResourceExhausted`] when the descriptor table is full.
    pub fn with_fd() -> Result<Self> {
        let (event, shown) = shared_eventfd()?;
        Ok(Self::new(Wake::Fd(event, shown)))
    }

    fn new(wake: Wake) -> Self {
        Self(Arc::new(ReadyInner { tokens: Mutex::default(), wake }))
    }

    /// The descriptor of [`with_fd`](Self::with_fd): poll it, do not read it.
    pub fn fd(&self) -> Option<RawFd> {
        match &self.0.wake {
            Wake::Fd(_, shown) => Some(shown.as_raw_fd()),
            Wake::Call(_) => None,
        }
    }

    /// Moves all waiting tokens to `out`.
    pub fn drain(&self, out: &mut Vec<u64>) {
        let mut tokens = self.0.tokens.lock();
        if let Wake::Fd(event, _) = &self.0.wake {
            let _ = event.drain();
        }
        out.append(&mut tokens);
    }

    pub(super) fn push(&self, token: u64) {
        let mut tokens = self.0.tokens.lock();
        tokens.push(token);
        if tokens.len() == 1 {
            match &self.0.wake {
                // A full counter is readable all the same.
                Wake::Fd(event, _) => drop(event.signal()),
                Wake::Call(wake) => {
                    drop(tokens);
                    wake();
                }
            }
        }
    }
}

impl fmt::Debug for ReadySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadySet").field("fd", &self.fd()).finish_non_exhaustive()
    }
}

/// An eventfd, and a second descriptor of it that a forked child closes.
fn shared_eventfd() -> Result<(EventFd, GuardedFd)> {
    use std::os::fd::AsFd;
    let event = EventFd::new()?;
    let shown: OwnedFd =
        event.as_fd().try_clone_to_owned().map_err(|error| Error::from_io("mesh.fd", error))?;
    Ok((event, guard(shown)))
}

/// What a mailbox tells beside waking threads.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    fd: Option<(EventFd, GuardedFd)>,
    watch: Option<(ReadySet, u64)>,
    /// Told since the last time it was found empty.
    told: bool,
}

impl Hooks {
    fn ready(&mut self) {
        if self.told {
            return;
        }
        self.told = true;
        if let Some((event, _)) = &self.fd {
            let _ = event.signal();
        }
        if let Some((set, token)) = &self.watch {
            set.push(*token);
        }
    }

    fn empty(&mut self) {
        if self.told {
            self.told = false;
            if let Some((event, _)) = &self.fd {
                let _ = event.drain();
            }
        }
    }
}

/// What waits for a handle, and everybody who waits for it.
#[derive(Debug)]
pub(super) struct Mailbox<Q> {
    inner: Mutex<Inner<Q>>,
    pub(super) signal: Signal,
    pub(super) engine: Arc<Engine>,
}

#[derive(Debug)]
pub(super) struct Inner<Q> {
    pub(super) queue: Q,
    /// Why nothing will come any more.
    pub(super) closed: Option<Error>,
    hooks: Hooks,
}

impl<Q> Mailbox<Q> {
    pub(super) fn new(engine: &Arc<Engine>, queue: Q) -> Self {
        let inner = Inner { queue, closed: None, hooks: Hooks::default() };
        Self { inner: Mutex::new(inner), signal: Signal::default(), engine: Arc::clone(engine) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner<Q>> {
        self.inner.lock()
    }

    /// Changes the queue; `true` from `put` means that something can be taken now.
    pub(super) fn put(&self, put: impl FnOnce(&mut Q) -> bool) {
        let mut inner = self.inner.lock();
        if put(&mut inner.queue) {
            inner.hooks.ready();
            drop(inner);
            self.signal.fire(&self.engine);
        }
    }

    /// Ends it: what waits can still be taken, then `error` is what every taker gets.
    pub(super) fn close(&self, error: &Error) {
        // A forked child shares the descriptors that tell of it, and nobody waits in it.
        if !self.engine.origin.is_here() {
            return;
        }
        let mut inner = self.inner.lock();
        if inner.closed.is_none() {
            inner.closed = Some(error.duplicate());
            inner.hooks.ready();
            drop(inner);
            self.signal.fire(&self.engine);
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        !self.engine.origin.is_here() || self.inner.lock().closed.is_some()
    }

    /// Takes with `take`; when it finds nothing, the hooks are armed again, or the closing error comes.
    pub(super) fn take<T>(&self, take: impl FnOnce(&mut Q) -> Option<T>) -> Option<Result<T>> {
        let mut inner = self.inner.lock();
        if let Some(found) = take(&mut inner.queue) {
            return Some(Ok(found));
        }
        if let Some(error) = &inner.closed {
            return Some(Err(error.duplicate()));
        }
        inner.hooks.empty();
        None
    }

    /// Waits until `take` finds something.
    pub(super) fn wait<T>(
        &self,
        operation: &'static str,
        wait: &mut Wait<'_>,
        mut take: impl FnMut(&mut Q) -> Option<T>,
    ) -> Result<T> {
        self.engine.origin.check(operation)?;
        self.engine.wait_until(operation, &self.signal, wait, &mut || self.take(&mut take))
    }

    pub(super) fn fd(&self, is_ready: impl FnOnce(&Q) -> bool) -> Result<RawFd> {
        let mut inner = self.inner.lock();
        if let Some((_, shown)) = &inner.hooks.fd {
            return Ok(shown.as_raw_fd());
        }
        let (event, shown) = shared_eventfd()?;
        let number = shown.as_raw_fd();
        if inner.hooks.told || inner.closed.is_some() || is_ready(&inner.queue) {
            let _ = event.signal();
            inner.hooks.told = true;
        }
        inner.hooks.fd = Some((event, shown));
        drop(inner);
        self.engine.add_waiter();
        Ok(number)
    }

    pub(super) fn watch(&self, set: &ReadySet, token: u64, is_ready: impl FnOnce(&Q) -> bool) {
        if !self.engine.origin.is_here() {
            return;
        }
        let mut inner = self.inner.lock();
        if inner.hooks.watch.replace((set.clone(), token)).is_none() {
            self.engine.add_waiter();
        }
        if inner.closed.is_some() || is_ready(&inner.queue) {
            inner.hooks.told = true;
            set.push(token);
        }
    }

    pub(super) fn unwatch(&self) {
        if self.engine.origin.is_here() && self.inner.lock().hooks.watch.take().is_some() {
            self.engine.remove_waiter();
        }
    }
}

impl<Q> Drop for Mailbox<Q> {
    fn drop(&mut self) {
        let hooks = &self.inner.get_mut().hooks;
        for _ in 0..u32::from(hooks.fd.is_some()) + u32::from(hooks.watch.is_some()) {
            self.engine.remove_waiter();
        }
    }
}

/// The error of a wait whose time was up.
pub(super) fn timed_out(operation: &'static str, wait: &Wait<'_>) -> Error {
    let error = Error::new(ErrorKind::Timeout, operation);
    match wait.timeout {
        Some(timeout) => error.with("timeout_ms", timeout.as_millis()),
        None => error,
    }
}
