//! Subscriptions: where events arrive.
#![forbid(unsafe_code)]

use super::{
    backend::Backend,
    engine::Engine,
    options::{HandlerError, PublishOptions},
    wait::{Mailbox, ReadySet, Wait},
};
use crate::{
    bus::{Delivery, Failed, Inbox, OnSlow, SubscribeOptions},
    clock::{Clock, Moment, SystemClock},
    error::{Error, Result},
    name::Pattern,
    stats::SubscriptionStats,
    sync::{AtomicBool, AtomicU64, Ordering},
    wire::{Draft, Kind},
};
use std::{os::fd::RawFd, sync::Arc, time::Duration};

/// What both ends of a subscription in this process share: the side puts events in, the handle takes them.
pub(super) struct Inlet {
    pub(super) id: u32,
    pub(super) pattern: Pattern,
    pub(super) mailbox: Mailbox<Inbox>,
    /// Room must be told to the side when events are taken.
    pub(super) credited: bool,
    /// Events that left the inbox of which the host was told, and how many more are told at once.
    pub(super) credit_told: AtomicU64,
    pub(super) credit_lot: u64,
    /// Events left it by expiring, and nobody has told.
    pub(super) credit_stale: AtomicBool,
    pub(super) over: AtomicBool,
    group: String,
    /// Kept so that the engine's timers, which hold it weakly, live as long as the inlet.
    retry_timer: crate::sync::lock::Mutex<Option<Arc<dyn Fn() + Send + Sync>>>,
}

impl std::fmt::Debug for Inlet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inlet").field("id", &self.id).field("pattern", &self.pattern).finish_non_exhaustive()
    }
}

impl Inlet {
    /// Events that made room so far: handed over for the first time, expired, or dropped.
    pub(super) fn departed(&self) -> u64 {
        let inner = self.mailbox.lock();
        let counted = inner.queue.stats();
        counted.delivered + counted.expired + counted.dropped
    }

    /// The next event; the clocks are read only when there may be one.
    fn pop(&self, inbox: &mut Inbox, clock: &SystemClock) -> Option<Delivery> {
        if inbox.is_empty() && inbox.retry_count() == 0 {
            return None;
        }
        // Only a retry is due at a moment.
        let now = if inbox.retry_count() > 0 { clock.now() } else { Moment::default() };
        let expired = inbox.stats().expired;
        let delivery = inbox.pop(clock.wall(), now);
        if self.credited && delivery.is_none() && inbox.stats().expired > expired {
            // All that waited has expired: the poller tells of the room, as no receiver will.
            self.credit_stale.store(true, Ordering::Release);
            self.mailbox.engine.wake_poller();
        }
        delivery
    }

    pub(super) fn new(
        engine: &Arc<Engine>,
        id: u32,
        pattern: &Pattern,
        options: &SubscribeOptions,
    ) -> Arc<Self> {
        let inbox = Inbox::new(options.capacity, options.on_slow, options.retry.clone());
        let inlet = Arc::new(Self {
            id,
            pattern: pattern.clone(),
            mailbox: Mailbox::new(engine, inbox),
            credited: matches!(options.on_slow, OnSlow::Block { .. }) || options.group.is_some(),
            credit_told: AtomicU64::new(0),
            credit_lot: (options.capacity / 4).clamp(1, 1024) as u64,
            credit_stale: AtomicBool::new(false),
            over: AtomicBool::new(false),
            group: options.group.as_ref().map_or_else(String::new, |group| group.as_str().to_owned()),
            retry_timer: crate::sync::lock::Mutex::new(None),
        });
        let weak = Arc::downgrade(&inlet);
        *inlet.retry_timer.lock() = Some(Arc::new(move || {
            if let Some(inlet) = weak.upgrade() {
                inlet.mailbox.put(|_| true);
            }
        }));
        inlet
    }
}

/// Events that match a pattern. Dropping it ends the subscription.
///
/// Any number of threads may take from one subscription; each event goes to one of them.
///
/// ```
/// # let dir = std::env::temp_dir().join(format!("flowmesh-doc-sub-{}", std::process::id()));
/// let mesh = flowmesh::Mesh::open(&dir)?;
/// let orders = mesh.subscribe("orders.*")?;
/// mesh.publish("orders.created", b"42")?;
/// let delivery = orders.receive(None)?;
/// assert_eq!((delivery.message.subject(), delivery.message.payload()), ("orders.created", &b"42"[..]));
/// # drop(mesh); std::fs::remove_dir_all(dir).ok();
/// # Ok::<(), flowmesh::Error>(())
/// ```
#[derive(Clone)]
pub struct Subscription(Arc<Owned>);

struct Owned {
    inlet: Arc<Inlet>,
    backend: Arc<dyn Backend>,
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").field("pattern", &self.0.inlet.pattern).finish_non_exhaustive()
    }
}

impl Subscription {
    pub(super) fn new(backend: Arc<dyn Backend>, inlet: Arc<Inlet>) -> Self {
        Self(Arc::new(Owned { inlet, backend }))
    }

    /// The pattern it was made with.
    pub fn pattern(&self) -> &str {
        self.0.inlet.pattern.as_str()
    }

    /// Waits for the next event, for ever without a timeout.
    ///
    /// # Errors
    /// - [`Timeout`](crate::ErrorKind::Timeout): nothing came in time.
    /// - [`Closed`](crate::ErrorKind::Closed): the subscription or the mesh was closed.
    /// - [`Disconnected`](crate::ErrorKind::Disconnected): the host is gone. Connect again.
    /// - [`SlowConsumer`](crate::ErrorKind::SlowConsumer): it fell behind, with [`OnSlow::Disconnect`].
    /// - [`Forked`](crate::ErrorKind::Forked): this is a forked child.
    pub fn receive(&self, timeout: Option<Duration>) -> Result<Delivery> {
        self.receive_wait(&mut Wait::from(timeout))
    }

    /// Like [`receive`](Self::receive), with a wait that can be interrupted.
    ///
    /// # Errors
    /// Those of [`receive`](Self::receive), and [`Interrupted`](crate::ErrorKind::Interrupted).
    pub fn receive_wait(&self, wait: &mut Wait<'_>) -> Result<Delivery> {
        let clock = &self.engine().clock;
        let delivery = self
            .0
            .inlet
            .mailbox
            .wait("subscription.receive", wait, |inbox| self.0.inlet.pop(inbox, clock))?;
        self.taken();
        Ok(delivery)
    }

    /// The next event, if one waits.
    ///
    /// # Errors
    /// Those of [`receive`](Self::receive) but for the timeout.
    pub fn try_receive(&self) -> Result<Option<Delivery>> {
        let engine = self.engine();
        engine.origin.check("subscription.receive")?;
        let clock = &engine.clock;
        let taken = self.0.inlet.mailbox.take(|inbox| self.0.inlet.pop(inbox, clock)).transpose()?;
        if taken.is_some() {
            self.taken();
        }
        Ok(taken)
    }

    /// Waits for an event, then moves all that wait, at most `max`, to `out`; returns how many.
    ///
    /// # Errors
    /// Those of [`receive_wait`](Self::receive_wait); `out` is then unchanged.
    pub fn receive_many(&self, max: usize, wait: &mut Wait<'_>, out: &mut Vec<Delivery>) -> Result<usize> {
        if max == 0 {
            return Ok(0);
        }
        let clock = &self.engine().clock;
        let count = self.0.inlet.mailbox.wait("subscription.receive_many", wait, |inbox| {
            if inbox.is_empty() && inbox.retry_count() == 0 {
                return None;
            }
            let (wall, now) = (clock.wall(), clock.now());
            let count = inbox.pop_many(max, wall, now, out);
            (count > 0).then_some(count)
        })?;
        self.taken();
        Ok(count)
    }

    /// The handler failed on this event: it is delivered again after a backoff, and after the last attempt
    /// published to the dead-letter subject, as the subscription's [`retry`](SubscribeOptions::retry) says.
    /// Without one the failure is counted.
    ///
    /// # Errors
    /// Those of publishing the dead letter.
    pub fn fail(&self, delivery: Delivery, error: &HandlerError) -> Result<()> {
        fail(self.0.backend.as_ref(), &self.0.inlet, delivery, error)
    }

    /// What this subscription counted so far, without asking the host.
    pub fn stats(&self) -> SubscriptionStats {
        let inlet = &self.0.inlet;
        let inner = inlet.mailbox.lock();
        let counted = inner.queue.stats();
        SubscriptionStats {
            pattern: inlet.pattern.as_str().to_owned(),
            group: inlet.group.clone(),
            session: self.0.backend.session(),
            delivered: counted.delivered,
            delivered_bytes: counted.delivered_bytes,
            dropped: counted.dropped + counted.missed,
            depth: inner.queue.len() as u64,
        }
    }

    /// A descriptor that is readable while an event waits or the subscription is over. Poll it; never read,
    /// write or close it.
    ///
    /// # Errors
    /// [`ResourceExhausted`](crate::ErrorKind::ResourceExhausted) when the descriptor table is full.
    pub fn fd(&self) -> Result<RawFd> {
        self.engine().origin.check("subscription.fd")?;
        self.0.inlet.mailbox.fd(|inbox| !inbox.is_empty())
    }

    /// Queues `token` in `set` each time events begin to wait. After a token, take until nothing is left.
    pub fn watch(&self, set: &ReadySet, token: u64) {
        self.0.inlet.mailbox.watch(set, token, |inbox| !inbox.is_empty());
    }

    /// Ends [`watch`](Self::watch).
    pub fn unwatch(&self) {
        self.0.inlet.mailbox.unwatch();
    }

    /// Ends it: waiting threads get [`Closed`](crate::ErrorKind::Closed) once they have taken what waits.
    pub fn close(&self) {
        self.0.close();
    }

    /// Whether it is over.
    pub fn is_closed(&self) -> bool {
        self.0.inlet.mailbox.is_closed()
    }

    fn engine(&self) -> &Engine {
        self.0.backend.engine()
    }

    fn taken(&self) {
        if self.0.inlet.credited {
            self.0.backend.taken(&self.0.inlet);
        }
    }
}

impl Subscription {
    /// For a handler's thread: does not keep the subscription open.
    pub(super) fn feed(&self) -> Feed {
        Feed { inlet: Arc::clone(&self.0.inlet), backend: Arc::clone(&self.0.backend) }
    }
}

/// The events of a subscription, for the thread of its handler.
pub(super) struct Feed {
    inlet: Arc<Inlet>,
    backend: Arc<dyn Backend>,
}

impl Feed {
    /// Waits for the next event; `None` when the subscription is over.
    pub(super) fn next(&self) -> Option<Delivery> {
        let clock = &self.backend.engine().clock;
        let pop = |inbox: &mut Inbox| self.inlet.pop(inbox, clock);
        let delivery = self.inlet.mailbox.wait("subscription.receive", &mut Wait::forever(), pop).ok()?;
        if self.inlet.credited {
            self.backend.taken(&self.inlet);
        }
        Some(delivery)
    }

    /// See [`Subscription::fail`].
    pub(super) fn fail(&self, delivery: Delivery, error: &HandlerError) -> Result<()> {
        fail(self.backend.as_ref(), &self.inlet, delivery, error)
    }
}

impl Owned {
    fn close(&self) {
        // Relaxed: a flag that only keeps the second closer from asking again.
        if !self.inlet.over.swap(true, Ordering::Relaxed) {
            if self.backend.engine().check_open("subscription.close").is_ok() {
                self.backend.unsubscribe(&self.inlet);
            }
            self.inlet.mailbox.close(&Error::new(crate::ErrorKind::Closed, "subscription.receive"));
        }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.close();
    }
}

fn fail(backend: &dyn Backend, inlet: &Inlet, delivery: Delivery, error: &HandlerError) -> Result<()> {
    let engine = backend.engine();
    engine.origin.check("subscription.fail")?;
    let failed = inlet.mailbox.lock().queue.fail(delivery, &error.kind, &error.message, engine.now());
    match failed {
        Failed::RetryAt(due) => {
            if let Some(timer) = &*inlet.retry_timer.lock() {
                engine.schedule(due, timer);
            }
            Ok(())
        }
        Failed::DeadLetter { subject, headers, message } => {
            let mut draft = Draft::new(Kind::Event, 0, subject.as_str(), message.payload());
            draft.headers = &headers;
            draft.priority = message.priority();
            backend.publish(&mut draft, &PublishOptions::default(), &mut Wait::forever()).map(drop)
        }
        Failed::GivenUp(_) => Ok(()),
    }
}
