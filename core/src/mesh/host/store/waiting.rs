//! Who waits: for jobs, for the disk, for something long.
#![forbid(unsafe_code)]

use super::*;

pub(super) struct Work {
    pub(super) waiters: HashMap<u64, Waiter>,
    /// The waiters of calls, by session and call.
    pub(super) by_call: HashMap<(u32, u64), u64>,
    /// How many of them each client has.
    pub(super) by_session: HashMap<u32, usize>,
    /// When waiters give up, on the boot-time clock.
    pub(super) deadlines: BTreeSet<(Moment, u64)>,
    pub(super) next_waiter: u64,
    pub(super) parked: Vec<Parked>,
    pub(super) chores: VecDeque<Chore>,
    /// When the queues are to be ticked.
    pub(super) due: Moment,
    pub(super) closing: bool,
}

/// Who waits for jobs.
#[derive(Clone)]
pub(super) struct Waiter {
    pub(super) queue: QueueId,
    pub(super) options: ReserveOptions,
    pub(super) most: usize,
    pub(super) until: Moment,
    pub(super) who: Who,
}

#[derive(Clone)]
pub(super) enum Who {
    /// A thread of this process, which takes the jobs itself.
    Thread(Arc<Mailbox<bool>>),
    /// An answer is to be sent.
    Call(ReplyTo),
}

/// Whom an answer goes to.
#[derive(Clone)]
pub(super) struct ReplyTo {
    pub(super) party: Party,
    pub(super) call: u64,
    pub(super) durability: Option<Durability>,
}

#[derive(Clone)]
pub(super) enum Party {
    Session(Arc<Session>),
    Here(Arc<Mailbox<CallState>>),
}

impl ReplyTo {
    pub(super) fn session(&self) -> u32 {
        match &self.party {
            Party::Session(session) => session.id,
            Party::Here(_) => 0,
        }
    }
}

/// An answer that waits for the disk.
pub(super) struct Parked {
    pub(super) lsn: Lsn,
    pub(super) to: ReplyTo,
    pub(super) reply: QueueReply,
}

/// Something long that is done in slices between others.
pub(super) struct Chore {
    pub(super) to: ReplyTo,
    pub(super) queue: QueueId,
    pub(super) what: Errand,
    pub(super) done: u64,
    pub(super) lsn: Lsn,
}

#[derive(Clone, Copy)]
pub(super) enum Errand {
    Purge(JobState),
    RedriveDead(u64),
}

/// What clients asked of the queues in frames that were just read.
pub(in super::super) enum Asked {
    Request(Arc<Session>, Message),
    GiveUp(u32, u64),
}

impl Work {
    /// Nobody waits; the queues are to be ticked at `due`.
    pub(super) fn new(due: Moment) -> Self {
        Self {
            waiters: HashMap::new(),
            by_call: HashMap::new(),
            by_session: HashMap::new(),
            deadlines: BTreeSet::new(),
            next_waiter: 1,
            parked: Vec::new(),
            chores: VecDeque::new(),
            due,
            closing: false,
        }
    }

    /// Whether one more reservation of a session may wait. This process may do as it likes with its memory.
    pub(super) fn check_room(&self, session: u32) -> Result<()> {
        let waiting = self.by_session.get(&session).copied().unwrap_or(0);
        if session == 0 || waiting < WAITERS_MAX {
            return Ok(());
        }
        let error = Error::new(ErrorKind::Full, "queue.reserve").with("reservations", waiting);
        Err(error.with("limit", WAITERS_MAX))
    }

    pub(super) fn add(&mut self, waiter: Waiter) -> u64 {
        let id = self.next_waiter;
        self.next_waiter += 1;
        if let Who::Call(to) = &waiter.who {
            self.by_call.insert((to.session(), to.call), id);
            *self.by_session.entry(to.session()).or_default() += 1;
            if waiter.until != Moment::NEVER {
                self.deadlines.insert((waiter.until, id));
            }
        }
        self.waiters.insert(id, waiter);
        id
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, id: u64) -> bool {
        let Some(waiter) = self.waiters.remove(&id) else { return false };
        if let Who::Call(to) = &waiter.who {
            self.by_call.remove(&(to.session(), to.call));
            if let Some(count) = self.by_session.get_mut(&to.session()) {
                *count -= 1;
                if *count == 0 {
                    self.by_session.remove(&to.session());
                }
            }
            self.deadlines.remove(&(waiter.until, id));
        }
        true
    }
}

/// Reservations of one client that may wait at once: what they take here is memory of the host.
const WAITERS_MAX: usize = 4096;
