//! Who reads the transports, and where threads sleep.
//!
//! A blocked thread does not wait for another thread to fetch its answer: it *leads*. The leader polls
//! every link itself, hands what it finds to its owners, and returns as soon as its own mailbox has
//! something: one wake-up a message instead of two. One thread leads at a time; the others sleep on
//! their mailbox's signal. When no thread waits, the poller (one thread of each mesh) does the same work
//! after being rung.
//!
//! The process says where it sleeps in its `waiting` word: not at all (nobody needs to ring), its leader,
//! or its poller. Each change is followed by another look at the links, so a frame that came between
//! the last look and the change is never left lying.
//!
//! ```text
//!             ┌────────── awake: a thread looks at the links ─────────┐
//!   frames or │                     │ nothing for a while             │ took its own
//!   a bell    │                     ▼                                 ▼
//!             ├───────── Leader: sleeps, rings wake it     Poller: rings wake the poller
//!             └───────────────────────────────────────────────────────┘
//! ```
//!
//! Locks, outermost first: `lead`, `io`, the side's state, an outbox, a mailbox.
#![forbid(unsafe_code)]

use super::wait::{Deadline, Signal, Wait, timed_out};
use crate::sync::lock::{Mutex, MutexGuard};
use crate::{
    clock::{Clock, Moment, SystemClock},
    error::{Error, ErrorKind, Result},
    os::{
        self,
        epoll::{Epoll, Event},
        eventfd::EventFd,
        fork::Origin,
        futex::{self, Wait as Slept},
    },
    session::{Assembler, FrameReceiver, SpareBlocks, bodies},
    shm::{Mode, Spin, WaitStrategy, WaitingWriter},
    sync::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence, spin_loop},
    wire::{CHUNK_BYTES, Chunk, Kind},
};
use std::{
    collections::BinaryHeap,
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, OnceLock, Weak},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// What the engine drives: a host or a client.
pub(super) trait Side: Send + Sync {
    /// Handles the frames of one link, whose bodies lie in `block`.
    fn frames(
        &self,
        session: u32,
        block: &Arc<Vec<u8>>,
        ranges: &mut dyn Iterator<Item = (usize, usize)>,
    ) -> Result<()>;
    /// A link failed or its peer ended it.
    fn link_failed(&self, session: u32, error: &Error);
    /// All links were looked at: send what was produced.
    fn settle(&self);
    /// Does what is due and returns when something is due next.
    fn tick(&self, now: Moment) -> Moment;
    /// A descriptor of [`Engine::watch_fd`] is ready.
    fn event(&self, token: u64, event: &Event);
}

/// One peer's frames.
pub(super) struct Link {
    pub(super) session: u32,
    pub(super) receiver: Box<dyn FrameReceiver>,
    pub(super) assembler: Assembler,
    pub(super) counters: Arc<LinkCounters>,
    /// A socket: looked at when the poller says that it is readable, not before.
    pub(super) socket: bool,
    pub(super) readable: bool,
}

/// What came over a link.
#[derive(Debug, Default)]
pub(super) struct LinkCounters {
    pub(super) frames: AtomicU64,
    pub(super) bytes: AtomicU64,
}

/// The reading side of all links.
pub(super) struct Io {
    pub(super) links: Vec<Link>,
    waiting: Option<WaitingWriter>,
    /// Who sleeps, as the peers were told; nobody when this is none.
    armed: Option<Mode>,
    block: Arc<Vec<u8>>,
}

/// See the module's documentation.
pub(super) struct Engine {
    pub(super) origin: Origin,
    pub(super) clock: SystemClock,
    lead: Mutex<Spin>,
    io: Mutex<Io>,
    poller_spin: Mutex<Spin>,
    io_wanted: AtomicU32,
    lead_wanted: AtomicU32,
    poller_leads: AtomicBool,
    leader_asleep: AtomicBool,
    /// What a leader sleeps on that peers do not wake.
    nap: AtomicU32,
    kicked: AtomicBool,
    strategy: WaitStrategy,
    epoll: Epoll,
    wake: EventFd,
    /// When the sleeping poller wakes by itself; zero while it is awake.
    poller_due: AtomicU64,
    /// Threads and event loops beside the leader that wait for something.
    others: AtomicU32,
    /// Turns of leading that ended, and when the current stretch of them began.
    leads: AtomicU32,
    stretch_begun: AtomicU64,
    /// The poller looks every millisecond, so that the leader need not say that it sleeps.
    tending: AtomicBool,
    /// Host: where its leader sleeps. A client's leader sleeps on a futex of its one link.
    lead_epoll: Option<(Epoll, EventFd)>,
    leader_waker: OnceLock<Arc<dyn Fn() + Send + Sync>>,
    timers: Mutex<BinaryHeap<Timer>>,
    spare: Arc<SpareBlocks>,
    /// When the poller gives back spare blocks that nobody used; zero while there are none.
    spare_due: AtomicU64,
    /// What the coarse clock shows beyond the exact one's moments.
    coarse_origin: u64,
    closed: AtomicBool,
    close_reason: Mutex<Option<Error>>,
    side: OnceLock<Weak<dyn Side>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("closed", &self.closed).finish_non_exhaustive()
    }
}

struct Timer {
    due: Moment,
    fire: Weak<dyn Fn() + Send + Sync>,
}

impl PartialEq for Timer {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}
impl Eq for Timer {}
impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Timer {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.due.cmp(&self.due)
    }
}

/// The token of the poller's own wake-up.
const WAKE: u64 = u64::MAX;
/// The token of the leader's kick.
const KICK: u64 = u64::MAX - 1;
/// How often the poller looks after a busy leader; how many turns, and how long each at the most, make it busy.
const TEND_INTERVAL: Duration = Duration::from_millis(1);
const LEADS_A_STRETCH: u32 = 64;
const BUSY_TURN: Duration = Duration::from_micros(100);
/// Looks without a turn of leading in between after which the poller sleeps for good.
const QUIET_TICKS: u32 = 8;
/// How often the poller finds frames before it looks at descriptors and timers again.
const FINDS_A_TURN: usize = 64;
/// Spare blocks that nobody used for about so long are given back.
const SPARE_REST: Duration = Duration::from_secs(1);
/// Bytes taken from one link before the next has its turn.
const DRAIN_BYTES: usize = CHUNK_BYTES + 4096;

impl Engine {
    pub(super) fn new(
        host: bool,
        strategy: WaitStrategy,
        waiting: Option<WaitingWriter>,
    ) -> Result<Arc<Self>> {
        let epoll = Epoll::new()?;
        let wake = EventFd::new()?;
        epoll.add(wake.as_fd(), WAKE, false)?;
        let lead_epoll = if host {
            let (epoll, kick) = (Epoll::new()?, EventFd::new()?);
            epoll.add(kick.as_fd(), KICK, false)?;
            Some((epoll, kick))
        } else {
            None
        };
        let clock = SystemClock::default();
        let coarse_origin = os::time::coarse_monotonic_ns().wrapping_sub(clock.now().0);
        Ok(Arc::new(Self {
            origin: Origin::here(),
            clock,
            coarse_origin,
            lead: Mutex::new(Spin::new(strategy)),
            poller_spin: Mutex::new(Spin::new(match strategy {
                // Only a thread that waits may spin for ever.
                WaitStrategy::Spin => WaitStrategy::default(),
                other => other,
            })),
            io: Mutex::new(Io { links: Vec::new(), waiting, armed: None, block: Arc::default() }),
            io_wanted: AtomicU32::new(0),
            lead_wanted: AtomicU32::new(0),
            poller_leads: AtomicBool::new(false),
            leader_asleep: AtomicBool::new(false),
            nap: AtomicU32::new(0),
            kicked: AtomicBool::new(false),
            strategy,
            epoll,
            wake,
            poller_due: AtomicU64::new(0),
            others: AtomicU32::new(0),
            leads: AtomicU32::new(0),
            stretch_begun: AtomicU64::new(0),
            tending: AtomicBool::new(false),
            lead_epoll,
            leader_waker: OnceLock::new(),
            timers: Mutex::default(),
            spare: Arc::default(),
            spare_due: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            close_reason: Mutex::new(None),
            side: OnceLock::new(),
            thread: Mutex::new(None),
        }))
    }

    /// Starts the poller.
    pub(super) fn start(self: &Arc<Self>, side: Arc<dyn Side>, name: &str) -> Result<()> {
        let _ = self.side.set(Arc::downgrade(&side));
        let engine = Arc::clone(self);
        *self.thread.lock() = Some(os::thread::spawn(name, move || engine.poll_loop(side.as_ref()))?);
        Ok(())
    }

    pub(super) fn now(&self) -> Moment {
        self.clock.now()
    }

    /// The moment to within a few milliseconds, for what is asked at every call.
    pub(super) fn coarse_now(&self) -> Moment {
        Moment(os::time::coarse_monotonic_ns().wrapping_sub(self.coarse_origin))
    }

    /// Adds a peer's frames.
    pub(super) fn add_link(&self, link: Link) {
        if self.lead_epoll.is_none()
            && let Some(waker) = link.receiver.waker()
        {
            let _ = self.leader_waker.set(waker);
        }
        self.lock_io().links.push(link);
        self.wake_poller();
    }

    pub(super) fn remove_link(&self, session: u32) {
        self.lock_io().links.retain(|link| link.session != session);
    }

    /// The poller tells the side when `fd` is ready.
    pub(super) fn watch_fd(&self, fd: BorrowedFd<'_>, token: u64, edge: bool) -> Result<()> {
        self.epoll.add(fd, token, edge)
    }

    /// Stops telling about `fd`.
    pub(super) fn forget_fd(&self, fd: BorrowedFd<'_>) {
        let _ = self.epoll.remove(fd);
    }

    /// Changes the token of a descriptor that is watched already.
    pub(super) fn rewatch_fd(&self, fd: BorrowedFd<'_>, token: u64) -> Result<()> {
        self.epoll.watch_writable(fd, token, false)
    }

    /// Takes what a peer that is gone has still sent, then forgets its link.
    pub(super) fn finish_link(&self, session: u32) {
        let Some(side) = self.side() else { return };
        let mut io = self.lock_io();
        let Io { links, block, .. } = &mut *io;
        if let Some(index) = links.iter().position(|link| link.session == session) {
            let mut link = links.swap_remove(index);
            link.readable = link.socket;
            // A dead peer adds nothing, so this ends with what its ring holds. What it left half-written or
            // broken changes nothing any more.
            for _ in 0..4096 {
                if !matches!(drain(&mut link, block, side.as_ref()), Ok(true)) {
                    break;
                }
            }
            side.settle();
        }
    }

    pub(super) fn watch_writable(&self, fd: BorrowedFd<'_>, token: u64, on: bool) -> Result<()> {
        self.epoll.watch_writable(fd, token, on)
    }

    /// Rings of `fd` wake the host's leader.
    pub(super) fn watch_leader_bell(&self, fd: BorrowedFd<'_>, token: u64) -> Result<()> {
        match &self.lead_epoll {
            Some((epoll, _)) => epoll.add(fd, token, true),
            None => Ok(()),
        }
    }

    /// Ends [`watch_leader_bell`](Self::watch_leader_bell).
    pub(super) fn forget_leader_bell(&self, fd: BorrowedFd<'_>) {
        if let Some((epoll, _)) = &self.lead_epoll {
            let _ = epoll.remove(fd);
        }
    }

    /// The socket link of this session has bytes, or ended.
    pub(super) fn set_readable(&self, session: u32) {
        let mut io = self.lock_io();
        if let Some(link) = io.links.iter_mut().find(|link| link.session == session) {
            link.readable = true;
        }
    }

    fn lock_io(&self) -> MutexGuard<'_, Io> {
        if let Some(io) = self.io.try_lock() {
            return io;
        }
        self.io_wanted.fetch_add(1, Ordering::SeqCst);
        // A client's leader may sleep with the lock held.
        self.kick_leader();
        let io = self.io.lock();
        self.io_wanted.fetch_sub(1, Ordering::Relaxed);
        io
    }

    // ---- timers

    /// Calls `fire` at `due`, from the poller, unless it is gone by then.
    pub(super) fn schedule(&self, due: Moment, fire: &Arc<dyn Fn() + Send + Sync>) {
        self.timers.lock().push(Timer { due, fire: Arc::downgrade(fire) });
        self.due_changed(due);
    }

    /// The side has something due at `due`: the poller must not sleep longer.
    pub(super) fn due_changed(&self, due: Moment) {
        if due.0 < self.poller_due.load(Ordering::SeqCst) {
            self.wake_poller();
        }
    }

    fn fire_timers(&self, now: Moment) -> Moment {
        loop {
            let mut timers = self.timers.lock();
            match timers.peek() {
                None => return Moment::NEVER,
                Some(timer) if timer.due > now => return timer.due,
                Some(_) => {}
            }
            let timer = timers.pop();
            drop(timers);
            if let Some(fire) = timer.and_then(|timer| timer.fire.upgrade()) {
                fire();
            }
        }
    }

    // ---- spare blocks

    /// Blocks of large frames, shared by all links.
    pub(super) fn spare(&self) -> Arc<SpareBlocks> {
        Arc::clone(&self.spare)
    }

    /// Has the poller look after the spare blocks, unless it does already.
    fn tend_spare(&self) {
        if self.spare.is_used() && self.spare_due.load(Ordering::SeqCst) == 0 {
            let due = self.now() + SPARE_REST;
            self.spare_due.store(due.0, Ordering::SeqCst);
            self.due_changed(due);
        }
    }

    /// Gives spare blocks back that nobody used for a while; returns when to look again.
    fn rest_spare(&self, now: Moment) -> Moment {
        match self.spare_due.load(Ordering::SeqCst) {
            0 => Moment::NEVER,
            due if due > now.0 => Moment(due),
            _ => {
                // Partner of `tend_spare`: what is lent from here on makes it due again, what was lent before
                // is seen by this rest.
                self.spare_due.store(0, Ordering::SeqCst);
                if self.spare.rest() {
                    return Moment::NEVER;
                }
                let due = now + SPARE_REST;
                self.spare_due.store(due.0, Ordering::SeqCst);
                due
            }
        }
    }

    // ---- closing

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Why it is closed, as an error of `operation`.
    pub(super) fn closed_error(&self, operation: &'static str) -> Error {
        let reason = self.close_reason.lock();
        let kind = reason.as_ref().map_or(ErrorKind::Closed, Error::kind);
        let mut error = Error::new(kind, operation);
        if let Some(reason) = &*reason {
            for (name, value) in reason.context() {
                error = error.with(name.to_owned(), value);
            }
        }
        error
    }

    pub(super) fn check_open(&self, operation: &'static str) -> Result<()> {
        self.origin.check(operation)?;
        if self.is_closed() { Err(self.closed_error(operation)) } else { Ok(()) }
    }

    /// Whether it is closed, or about to be.
    pub(super) fn has_close_reason(&self) -> bool {
        self.close_reason.lock().is_some()
    }

    /// Says why it is about to be closed, unless that is known already.
    pub(super) fn set_close_reason(&self, reason: &Error) {
        self.close_reason.lock().get_or_insert_with(|| reason.duplicate());
    }

    /// Marks it closed; true for the first caller.
    pub(super) fn set_closed(&self, reason: Error) -> bool {
        if !self.origin.is_here() {
            return false;
        }
        let mut slot = self.close_reason.lock();
        if slot.is_none() {
            *slot = Some(reason);
        }
        drop(slot);
        let first = !self.closed.swap(true, Ordering::AcqRel);
        self.wake_poller();
        self.kick_leader();
        first
    }

    /// Waits for the poller to end, unless this is the poller.
    pub(super) fn join(&self) {
        let thread = self.thread.lock().take();
        if let Some(thread) = thread
            && self.origin.is_here()
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }

    /// Forgets all links.
    pub(super) fn drop_links(&self) {
        self.lock_io().links.clear();
    }

    /// Something beside the leader waits: from now on the poller must be rung.
    pub(super) fn add_waiter(&self) {
        self.others.fetch_add(1, Ordering::SeqCst);
        if self.tending.load(Ordering::SeqCst) {
            self.wake_poller();
        }
    }

    pub(super) fn remove_waiter(&self) {
        self.others.fetch_sub(1, Ordering::SeqCst);
    }

    // ---- waking

    pub(super) fn wake_poller(&self) {
        // A forked child has the descriptor too, and a poller only in its parent.
        if self.origin.is_here() {
            let _ = self.wake.signal();
        }
    }

    /// Makes a sleeping leader look at its mailbox.
    pub(super) fn kick_leader(&self) {
        self.kicked.store(true, Ordering::SeqCst);
        // In a forked child the leader that slept in its parent never wakes.
        if !self.leader_asleep.load(Ordering::SeqCst) || !self.origin.is_here() {
            return;
        }
        if let WaitStrategy::Timed { .. } = self.strategy {
            self.nap.fetch_add(1, Ordering::SeqCst);
            futex::wake(&self.nap, 1, true);
        } else if let Some((_, kick)) = &self.lead_epoll {
            let _ = kick.signal();
        } else if let Some(waker) = self.leader_waker.get() {
            // The futex word is the host's and cannot be changed from here, so a wake-up can come just
            // before the sleep. Repeat until the leader is up.
            while self.leader_asleep.load(Ordering::SeqCst) && self.kicked.load(Ordering::SeqCst) {
                waker();
                std::thread::yield_now();
            }
        }
    }

    // ---- waiting

    /// Waits until `take` has something; leads meanwhile when nobody else does.
    pub(super) fn wait_until<T>(
        &self,
        operation: &'static str,
        signal: &Signal,
        wait: &mut Wait<'_>,
        take: &mut dyn FnMut() -> Option<Result<T>>,
    ) -> Result<T> {
        if let Some(taken) = take() {
            return taken;
        }
        if wait.timeout == Some(Duration::ZERO) {
            // One look at the links: what has come counts as there.
            if let Some(_lead) = self.lead.try_lock()
                && let Some(side) = self.side()
            {
                let mut io = self.lock_io();
                self.look(&mut io, side.as_ref());
            }
            return take().unwrap_or_else(|| Err(timed_out(operation, wait)));
        }
        let deadline = Deadline::of(wait);
        loop {
            self.origin.check(operation)?;
            let slept = match self.become_leader() {
                Some(mut spin) => {
                    signal.set_leading(true);
                    let led = self.lead(&mut spin, &deadline, take);
                    signal.set_leading(false);
                    match led {
                        Led::Took(taken) => return taken,
                        Led::Slept(slept) => slept,
                    }
                }
                None => {
                    let epoch = signal.epoch();
                    if let Some(taken) = take() {
                        return taken;
                    }
                    self.add_waiter();
                    let slept = signal.park(epoch, deadline.slice());
                    self.remove_waiter();
                    slept
                }
            };
            if let Some(taken) = take() {
                return taken;
            }
            if matches!(slept, Slept::Interrupted | Slept::TimedOut) && wait.interrupted_after(slept) {
                return Err(Error::new(ErrorKind::Interrupted, operation));
            }
            if deadline.has_passed() {
                return Err(timed_out(operation, wait));
            }
        }
    }

    /// Takes what has come, if nobody else is about to: for a thread that sends much and never waits.
    pub(super) fn glance(&self) {
        if let Some(_lead) = self.lead.try_lock()
            && let Some(mut io) = self.io.try_lock()
            && let Some(side) = self.side()
        {
            self.look(&mut io, side.as_ref());
        }
    }

    fn become_leader(&self) -> Option<MutexGuard<'_, Spin>> {
        // Once it is closed nothing is left to read, and only the poller reads a client's socket.
        if self.is_closed() || (self.lead_epoll.is_none() && self.leader_waker.get().is_none()) {
            return None;
        }
        if let Some(lead) = self.lead.try_lock() {
            return Some(lead);
        }
        if self.poller_leads.load(Ordering::Acquire) {
            // The poller only spins for a moment and makes way.
            self.lead_wanted.fetch_add(1, Ordering::AcqRel);
            let lead = self.lead.try_lock_for(Duration::from_micros(200));
            self.lead_wanted.fetch_sub(1, Ordering::AcqRel);
            return lead;
        }
        None
    }

    fn lead<T>(
        &self,
        spin: &mut Spin,
        deadline: &Deadline,
        take: &mut dyn FnMut() -> Option<Result<T>>,
    ) -> Led<T> {
        let Some(side) = self.side() else { return Led::Slept(Slept::Woken) };
        let side = side.as_ref();
        let mut io = self.lock_io();
        self.disarm(&mut io);
        let mut turn = Turn::new(spin);
        // What could be taken at first: after that, whoever adds something kicks.
        let mut fresh = true;
        // However busy or light a sleeper the leader is, it comes back once in a while to be asked whether to go on.
        let mut begun = None;
        let mut is_overdue = || begun.get_or_insert_with(Instant::now).elapsed() >= LEAD_MAX;
        let mut rounds = 0u32;
        loop {
            rounds = rounds.wrapping_add(1);
            if rounds.is_multiple_of(1024) && is_overdue() {
                self.leave(&mut io, side);
                return Led::Slept(Slept::TimedOut);
            }
            let found = self.look(&mut io, side);
            // Relaxed, then an exchange that synchronizes: a kick is seen now or by the next round.
            let kicked = self.kicked.load(Ordering::Relaxed) && self.kicked.swap(false, Ordering::SeqCst);
            if (kicked || std::mem::take(&mut fresh))
                && let Some(taken) = take()
            {
                turn.end(spin, true);
                self.leave(&mut io, side);
                return Led::Took(taken);
            }
            if self.is_closed() {
                return Led::Slept(Slept::Woken);
            }
            if self.io_wanted.load(Ordering::SeqCst) > 0 {
                // Whoever wants it may still be on the way to its lock, so it is left open until it was
                // taken: the next sleep would hold it for a second.
                MutexGuard::unlocked(&mut io, std::thread::yield_now);
                continue;
            }
            if found {
                turn = Turn::new(spin);
                continue;
            }
            if turn.spins_on() {
                if turn.is_endless() && deadline.has_passed() {
                    self.leave(&mut io, side);
                    return Led::Slept(Slept::TimedOut);
                }
                continue;
            }
            turn.end(spin, false);
            if spin.wants_wake() {
                self.arm(&mut io, Mode::Leader);
            }
            let mut slept = Slept::Woken;
            let mut taken = None;
            if !self.look(&mut io, side) {
                // From here on a fire kicks; what was fired before is found by this take.
                self.leader_asleep.store(true, Ordering::SeqCst);
                fence(Ordering::SeqCst);
                taken = take();
                if taken.is_none() && !self.kicked.load(Ordering::SeqCst) {
                    let slice = deadline.slice();
                    slept = self
                        .leader_sleep(&mut io, spin.sleep_limit().map_or(slice, |limit| limit.min(slice)));
                }
                self.leader_asleep.store(false, Ordering::SeqCst);
            }
            self.disarm(&mut io);
            self.look(&mut io, side);
            if let Some(taken) = taken.or_else(&mut *take) {
                self.leave(&mut io, side);
                return Led::Took(taken);
            }
            if matches!(slept, Slept::Interrupted | Slept::TimedOut) || deadline.has_passed() {
                self.leave(&mut io, side);
                return Led::Slept(slept);
            }
            if is_overdue() {
                self.leave(&mut io, side);
                return Led::Slept(Slept::TimedOut);
            }
            turn = Turn::new(spin);
        }
    }

    fn leader_sleep(&self, io: &mut MutexGuard<'_, Io>, slice: Duration) -> Slept {
        if let WaitStrategy::Timed { .. } = self.strategy {
            // Not woken by peers, but by signals and by this process.
            let nap = self.nap.load(Ordering::SeqCst);
            return match futex::wait(&self.nap, nap, Some(slice), true) {
                Slept::Interrupted => Slept::Interrupted,
                _ => Slept::Woken,
            };
        }
        if let Some((epoll, kick)) = &self.lead_epoll {
            return MutexGuard::unlocked(io, || {
                let mut events = [Event::EMPTY; 16];
                let slept = match epoll.wait(&mut events, Some(slice)) {
                    Ok(0) => Slept::TimedOut,
                    Err(error) if error.kind() == ErrorKind::Interrupted => Slept::Interrupted,
                    _ => Slept::Woken,
                };
                if events.iter().any(|event| event.token() == KICK) {
                    let _ = kick.drain();
                }
                slept
            });
        }
        // A client that leads has one link, over shared memory.
        io.links.first_mut().and_then(|link| link.receiver.sleep(Some(slice))).unwrap_or(Slept::Woken)
    }

    /// Says that the poller sleeps, and makes sure that nothing is left lying.
    ///
    /// When the only thread that waits leads again and again, the process stays awake instead: peers then
    /// need not ring. The poller looks after it every millisecond, and takes over again when it finds that
    /// the thread left something lying or stopped coming back.
    fn leave(&self, io: &mut Io, side: &dyn Side) {
        if matches!(self.strategy, WaitStrategy::Timed { .. }) {
            return;
        }
        if self.others.load(Ordering::Relaxed) == 0 {
            let leads = self.leads.load(Ordering::Relaxed).wrapping_add(1);
            // Partner of the poller's end of tending: either it sees this turn and goes on, or this thread
            // sees that it has ended.
            self.leads.store(leads, Ordering::SeqCst);
            if self.tending.load(Ordering::SeqCst) {
                return;
            }
            if leads.is_multiple_of(LEADS_A_STRETCH) {
                let now = self.now();
                let stretch = now.since(Moment(self.stretch_begun.swap(now.0, Ordering::Relaxed)));
                if stretch < BUSY_TURN * LEADS_A_STRETCH {
                    self.tending.store(true, Ordering::Release);
                    self.wake_poller();
                    return;
                }
            }
        }
        self.sleep_as_poller(io, side);
    }

    /// Says that the poller sleeps, then looks until nothing is left lying.
    fn sleep_as_poller(&self, io: &mut Io, side: &dyn Side) {
        self.arm(io, Mode::Poller);
        for _ in 0..8 {
            if !self.look(io, side) {
                return;
            }
        }
        self.wake_poller();
    }

    fn arm(&self, io: &mut Io, mode: Mode) {
        io.armed = Some(mode);
        if let Some(waiting) = &mut io.waiting {
            waiting.arm(mode);
        }
    }

    fn disarm(&self, io: &mut Io) {
        if io.armed.take().is_some()
            && let Some(waiting) = &mut io.waiting
        {
            waiting.disarm();
        }
    }

    // ---- looking

    fn side(&self) -> Option<Arc<dyn Side>> {
        self.side.get().and_then(Weak::upgrade)
    }

    /// Takes frames from every link and hands them to the side; true when there were any.
    fn look(&self, io: &mut Io, side: &dyn Side) -> bool {
        let mut found = false;
        let mut failed: Vec<(u32, Error)> = Vec::new();
        let Io { links, block, .. } = io;
        for link in links.iter_mut() {
            match drain(link, block, side) {
                Ok(any) => found |= any,
                Err(error) => failed.push((link.session, error)),
            }
        }
        for (session, error) in failed {
            links.retain(|link| link.session != session);
            side.link_failed(session, &error);
            found = true;
        }
        if found {
            side.settle();
            self.tend_spare();
        }
        found
    }

    fn poller_turn(&self, side: &dyn Side) {
        self.poller_leads.store(true, Ordering::Release);
        let mut io = self.lock_io();
        if self.tending.load(Ordering::SeqCst) && self.look(&mut io, side) {
            // It stays away longer than it used to.
            self.tending.store(false, Ordering::SeqCst);
        }
        if !self.tending.load(Ordering::SeqCst) {
            self.disarm(&mut io);
            let mut spin = self.poller_spin.lock();
            let mut turn = Turn::new(&mut spin);
            // However much comes, what is due, who knocks and who died have their turn too.
            let mut finds = 0;
            while finds < FINDS_A_TURN {
                if self.look(&mut io, side) {
                    finds += 1;
                    turn.end(&mut spin, true);
                    turn = Turn::new(&mut spin);
                } else if !turn.spins_on() {
                    turn.end(&mut spin, false);
                    break;
                }
                if self.lead_wanted.load(Ordering::Acquire) > 0 || self.is_closed() {
                    break;
                }
            }
            self.sleep_as_poller(&mut io, side);
        }
        drop(io);
        self.poller_leads.store(false, Ordering::Release);
    }

    fn poll_loop(&self, side: &dyn Side) {
        let mut events = [Event::EMPTY; 64];
        let mut rang = true;
        let mut seen = 0;
        let mut quiet = 0;
        while !self.is_closed() {
            let leads = self.leads.load(Ordering::Relaxed);
            quiet = if leads == seen { quiet + 1 } else { 0 };
            seen = leads;
            let ends = quiet > QUIET_TICKS || self.others.load(Ordering::SeqCst) > 0;
            if ends && self.tending.load(Ordering::Relaxed) {
                self.tending.store(false, Ordering::SeqCst);
                if self.leads.load(Ordering::SeqCst) != seen {
                    self.tending.store(true, Ordering::SeqCst);
                }
            }
            if let Some(_lead) = self.lead.try_lock() {
                self.poller_turn(side);
            } else if rang {
                // The leader may be on its way out: it said that the poller sleeps, and holds the lead for a
                // moment longer. Its last look came before the ring, so this one must be ours.
                // The ring is used up: say anew that the poller sleeps, unless somebody leads by now.
                let mut io = self.lock_io();
                self.look(&mut io, side);
                if io.armed == Some(Mode::Poller) {
                    self.sleep_as_poller(&mut io, side);
                }
            }
            let now = self.now();
            let due = side.tick(now).min(self.fire_timers(now)).min(self.rest_spare(now));
            let mut timeout = if due == Moment::NEVER { None } else { Some(due.since(self.now())) };
            if let WaitStrategy::Timed { interval } = self.strategy {
                timeout = Some(timeout.map_or(interval, |timeout| timeout.min(interval)));
            }
            if self.tending.load(Ordering::SeqCst) {
                timeout = Some(timeout.map_or(TEND_INTERVAL, |timeout| timeout.min(TEND_INTERVAL)));
            }
            self.poller_due.store(due.0, Ordering::SeqCst);
            // What became due before this store was seen is caught by one more look.
            let again = side
                .tick(self.now())
                .min(self.timers.lock().peek().map_or(Moment::NEVER, |timer| timer.due))
                .min(self.rest_spare(now));
            if again < due {
                timeout = Some(again.since(self.now()));
            }
            // An interrupted wait is one that found nothing.
            let count = self.epoll.wait(&mut events, timeout).unwrap_or_default();
            self.poller_due.store(0, Ordering::SeqCst);
            rang = count > 0;
            for event in &events[..count] {
                if event.token() == WAKE {
                    let _ = self.wake.drain();
                } else {
                    side.event(event.token(), event);
                }
            }
        }
    }
}

/// A leader returns to its caller after this long, even if it never slept for so long at once.
const LEAD_MAX: Duration = Duration::from_millis(500);

/// One stretch of looking without a sleep.
struct Turn {
    budget: Duration,
    begun: Option<Instant>,
    looks: u32,
}

impl Turn {
    fn new(spin: &mut Spin) -> Self {
        Self { budget: spin.budget(), begun: None, looks: 0 }
    }

    /// Pauses for a moment, unless the budget is used up.
    fn spins_on(&mut self) -> bool {
        if self.budget.is_zero() {
            return false;
        }
        self.looks = self.looks.wrapping_add(1);
        // A clock costs as much as a look; what comes at once is found without one.
        if self.looks.is_multiple_of(16)
            && self.begun.get_or_insert_with(Instant::now).elapsed() >= self.budget
        {
            return false;
        }
        spin_loop();
        true
    }

    fn is_endless(&self) -> bool {
        self.budget == Duration::MAX && self.looks.is_multiple_of(1024)
    }

    fn end(&self, spin: &mut Spin, found: bool) {
        if !self.budget.is_zero() {
            spin.record(found);
        }
    }
}

/// How a leader's turn ended.
enum Led<T> {
    Took(Result<T>),
    Slept(Slept),
}

/// Takes what has come over one link and hands it on; true when there was anything.
fn drain(link: &mut Link, block: &mut Arc<Vec<u8>>, side: &dyn Side) -> Result<bool> {
    let expected = if link.socket {
        if !std::mem::take(&mut link.readable) {
            return Ok(false);
        }
        DRAIN_BYTES
    } else {
        match link.receiver.waiting_bytes()? {
            0 => return Ok(false),
            waiting => waiting.min(DRAIN_BYTES),
        }
    };
    if expected > CHUNK_BYTES / 2 && take_chunks(link, side)? {
        return Ok(true);
    }
    // The block is used again when nobody holds a message of it, and is never much larger than what
    // came: a message that is kept for long holds its whole block.
    match Arc::get_mut(block) {
        Some(bytes) if bytes.capacity() >= expected && bytes.capacity() <= 8 * expected.max(512) => {
            bytes.clear();
        }
        _ => *block = Arc::new(Vec::with_capacity(expected)),
    }
    let bytes =
        Arc::get_mut(block).expect("a block that was just made, or found to be unshared, is unshared");
    let frames = link.receiver.drain(bytes, DRAIN_BYTES)?;
    if frames == 0 {
        return Ok(false);
    }
    if link.socket && frames > 0 {
        // There may be more than one read's worth.
        link.readable = true;
    }
    // Relaxed: these are counters, read by `stats` alone.
    link.counters.frames.fetch_add(frames as u64, Ordering::Relaxed);
    link.counters.bytes.fetch_add(block.len() as u64, Ordering::Relaxed);
    let mut plain = Vec::new();
    let mut has_chunks = false;
    for body in bodies(block) {
        if Kind::of(&block[body.clone()])? == Kind::Chunk {
            has_chunks = true;
            break;
        }
    }
    if !has_chunks {
        side.frames(link.session, block, &mut bodies(block).map(|body| (body.start, body.end)))?;
        return Ok(true);
    }
    for body in bodies(block) {
        if Kind::of(&block[body.clone()])? == Kind::Chunk {
            side.frames(link.session, block, &mut plain.drain(..))?;
            let chunk = Chunk::decode(&block[body.clone()])?;
            if let Some(whole) = link.assembler.add(&chunk)? {
                if Kind::of(&whole)? == Kind::Chunk {
                    return Err(Error::new(ErrorKind::Protocol, "session.receive")
                        .with("violation", "a chunk of chunks"));
                }
                side.frames(link.session, &whole, &mut std::iter::once((0, whole.len())))?;
            }
        } else {
            plain.push((body.start, body.end));
        }
    }
    side.frames(link.session, block, &mut plain.drain(..))?;
    Ok(true)
}

/// Takes the chunks at the front of a link straight into their frames; true when there were any.
fn take_chunks(link: &mut Link, side: &dyn Side) -> Result<bool> {
    let mut front = [0; Chunk::PREFIX_BYTES];
    let mut any = false;
    // A few at a time, so that other links have their turn.
    for _ in 0..16 {
        let Some(body_bytes) = link.receiver.peek(&mut front)? else { break };
        if Kind::of(&front)? != Kind::Chunk {
            break;
        }
        any = true;
        let count = body_bytes - front.len();
        let chunk = Chunk::decode_prefix(&front, count)?;
        let Some(room) = link.assembler.room(&chunk, count)? else {
            link.receiver.take(body_bytes, body_bytes, &mut Vec::new())?;
            continue;
        };
        link.receiver.take(body_bytes, front.len(), room)?;
        // Relaxed: counters, read by `stats` alone.
        link.counters.frames.fetch_add(1, Ordering::Relaxed);
        link.counters.bytes.fetch_add(body_bytes as u64, Ordering::Relaxed);
        if let Some(whole) = link.assembler.finish(chunk.flow) {
            if Kind::of(&whole)? == Kind::Chunk {
                return Err(
                    Error::new(ErrorKind::Protocol, "session.receive").with("violation", "a chunk of chunks")
                );
            }
            side.frames(link.session, &whole, &mut std::iter::once((0, whole.len())))?;
        }
    }
    Ok(any)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Quiet;

    impl Side for Quiet {
        fn frames(
            &self,
            _: u32,
            _: &Arc<Vec<u8>>,
            _: &mut dyn Iterator<Item = (usize, usize)>,
        ) -> Result<()> {
            Ok(())
        }
        fn link_failed(&self, _: u32, _: &Error) {}
        fn settle(&self) {}
        fn tick(&self, _: Moment) -> Moment {
            Moment::NEVER
        }
        fn event(&self, _: u64, _: &Event) {}
    }

    #[test]
    fn blocks_of_large_frames_are_given_back_when_no_more_come() {
        let engine = Engine::new(true, WaitStrategy::Block, None).unwrap();
        engine.start(Arc::new(Quiet), "flowmesh-test").unwrap();
        let mut assembler = Assembler::with_spare(100, engine.spare());
        let chunk = Chunk { flow: 1, total: 3, offset: 0, abort: false, bytes: b"abc" };
        let block = assembler.add(&chunk).unwrap().unwrap();
        assert_eq!(Arc::strong_count(&block), 2, "remembered for the next frame");
        engine.tend_spare();
        let begun = Instant::now();
        while Arc::strong_count(&block) > 1 {
            assert!(begun.elapsed() < Duration::from_secs(60), "never given back");
            std::thread::sleep(Duration::from_millis(10));
        }
        engine.set_closed(Error::new(ErrorKind::Closed, "test"));
        engine.join();
    }
}
