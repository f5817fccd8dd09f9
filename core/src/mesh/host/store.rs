//! The host's durable side: the ledger, the queues on it, who waits for jobs, and what waits for the disk.
//!
//! A request is carried out where it is read, at the cost of handing its batch to the kernel. What is to be flushed
//! first is parked: the thread `flowmesh-queue` flushes once for all that wait, then answers them. The same thread
//! does what time makes due. `flowmesh-store` prepares segments, takes checkpoints and cleans; both are born with the
//! first queue. Locks: the state's before the queues' before the work's; none is held while another thread is waited
//! for.
#![forbid(unsafe_code)]

mod requests;
mod threads;
mod waiting;

use super::*;
use crate::sync::lock::Condvar;
use crate::{
    ledger::{DIRECTORY, Entry, Fold, Ledger, LedgerConfig, Lsn, Owner, Place},
    mesh::queue::{JOBS_INSIDE, unexpected},
    queue::{
        Imaging, JobState, Outcome, QueueConfig, QueueEvent, QueueId, QueueReply, Queues, QueuesFold,
        Refused, ReserveOptions, Sent as SentRequest, Times, WaiterId, WorkerId,
    },
    storage::FileStorage,
};
use std::{collections::BTreeSet, path::PathBuf, sync::OnceLock, thread::JoinHandle};
use threads::{run_queues, run_store};
pub(super) use waiting::Asked;
use waiting::{Chore, Errand, Parked, Party, ReplyTo, Waiter, Who, Work};

/// What a host keeps on the disk, once something is to be kept.
pub(super) struct Store {
    directory: PathBuf,
    repair: bool,
    opened: OnceLock<Arc<Opened>>,
    opening: Mutex<()>,
}

pub(super) struct Opened {
    ledger: Ledger,
    clock: Arc<dyn Clock>,
    queues: Queues,
    work: Mutex<Work>,
    /// There is work for `flowmesh-queue`.
    changed: Condvar,
    /// There is work for `flowmesh-store`.
    tend: Mutex<Tend>,
    tend_changed: Condvar,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct Tend {
    wanted: bool,
    closing: bool,
}

fn times() -> Times {
    Times { boot: Moment(os::time::boot_ns()), wall: Timestamp(os::time::coarse_wall_ns()) }
}

impl Store {
    pub(super) fn new(directory: &Path, repair: bool) -> Self {
        Self {
            directory: directory.join(DIRECTORY),
            repair,
            opened: OnceLock::new(),
            opening: Mutex::new(()),
        }
    }

    fn get(&self) -> Option<&Arc<Opened>> {
        self.opened.get()
    }
}

/// Hands what is read back to whose it is.
struct MeshFold(QueuesFold);

impl MeshFold {
    fn check(owner: Owner) -> Result<()> {
        if QueuesFold::owns(owner) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Unsupported, "mesh.open")
            .with("owner", owner.0)
            .with("reason", "a newer version wrote it"))
    }
}

impl Fold for MeshFold {
    fn image(&mut self, owner: Owner, lsn: Lsn, bytes: &[u8]) -> Result<()> {
        Self::check(owner)?;
        self.0.image(owner, lsn, bytes)
    }

    fn entry(&mut self, lsn: Lsn, place: Place, entry: Entry<'_>) -> Result<()> {
        Self::check(entry.owner)?;
        self.0.entry(lsn, place, entry)
    }

    fn kept(&mut self, keep: &mut dyn FnMut(Place)) {
        self.0.kept(keep);
    }
}

impl Host {
    /// Opens the ledger if there is one.
    pub(super) fn open_existing_store(&self) -> Result<()> {
        if self.store.directory.exists() {
            self.open_store()?;
        }
        Ok(())
    }

    /// The ledger and its queues; made if they are not there.
    fn open_store(&self) -> Result<&Arc<Opened>> {
        if let Some(opened) = self.store.get() {
            return Ok(opened);
        }
        let _turn = self.store.opening.lock();
        if let Some(opened) = self.store.get() {
            return Ok(opened);
        }
        self.engine.check_open("mesh.open")?;
        let storage = Arc::new(FileStorage::new(&self.store.directory)?);
        let config = LedgerConfig { repair: self.store.repair, ..LedgerConfig::default() };
        let clock = Arc::clone(&config.clock);
        let seed = random_number()?;
        let mut fold =
            MeshFold(if self.store.repair { QueuesFold::repairing(seed) } else { QueuesFold::new(seed) });
        let (ledger, _) = Ledger::open(storage, &config, &mut fold)?;
        let has_gaps = fold.0.has_gaps();
        let (queues, outcome) = Queues::open(fold.0, ledger.clone(), times(), seed, RECENT_BYTES)?;
        queues.watch(self.state.lock().queue_watchers > 0);
        let opened = Arc::new(Opened {
            ledger,
            clock,
            queues,
            work: Mutex::new(Work::new(outcome.due.unwrap_or(Moment(0)))),
            changed: Condvar::new(),
            tend: Mutex::new(Tend { wanted: true, closing: false }),
            tend_changed: Condvar::new(),
            threads: Mutex::default(),
        });
        if has_gaps {
            // From now on the state as it was made whole counts, and opening needs no repair any more.
            self.checkpoint(&opened)?;
        }
        opened.ledger.on_due({
            let opened = Arc::downgrade(&opened);
            move || {
                if let Some(opened) = opened.upgrade() {
                    opened.tend.lock().wanted = true;
                    opened.tend_changed.notify_one();
                }
            }
        });
        let start = |name, run: fn(&Weak<Self>, &Arc<Opened>)| {
            let (host, opened) = (self.me.clone(), Arc::clone(&opened));
            os::thread::spawn(name, move || run(&host, &opened))
        };
        let threads = [start("flowmesh-queue", run_queues)?, start("flowmesh-store", run_store)?];
        opened.threads.lock().extend(threads);
        Ok(self.store.opened.get_or_init(|| opened))
    }

    /// Ends the threads, and says in the ledger that all is well.
    pub(super) fn close_store(&self) {
        // Whoever is just opening it sees that the mesh is closed, or is done when we have the turn.
        let _turn = self.store.opening.lock();
        let Some(opened) = self.store.get() else { return };
        let waiters: Vec<Waiter> = {
            let mut work = opened.work.lock();
            work.closing = true;
            work.by_call.clear();
            work.by_session.clear();
            work.deadlines.clear();
            work.waiters.drain().map(|(_, waiter)| waiter).collect()
        };
        opened.changed.notify_all();
        opened.tend.lock().closing = true;
        opened.tend_changed.notify_all();
        for thread in opened.threads.lock().drain(..) {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
        let closed = self.engine.closed_error("queue.reserve");
        for waiter in waiters {
            match waiter.who {
                Who::Thread(mailbox) => mailbox.close(&closed),
                Who::Call(ReplyTo { party: Party::Here(mailbox), .. }) => {
                    complete(&mailbox, Err(closed.duplicate()));
                }
                Who::Call(_) => {}
            }
        }
        // With a disk that failed, opening again says what is left.
        let _ = opened.ledger.close();
    }
}

fn random_number() -> Result<u64> {
    let mut bytes = [0; 8];
    os::random(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// What may be kept in memory of content that was written lately.
const RECENT_BYTES: usize = 32 << 20;
