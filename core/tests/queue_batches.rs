//! What the queues write by themselves fits into the ledger, whatever the jobs carry; and ids that are taken.
#![forbid(unsafe_code)]

use flowmesh::{
    Name, Result,
    clock::{Moment, Timestamp},
    ledger::{Entry, Fold, Ledger, LedgerConfig, Owner, Place},
    queue::{
        EnqueueOptions, Job, JobId, JobState, QueueConfig, QueueId, Queues, QueuesFold, ReserveOptions,
        Times, WorkerId,
    },
    storage::{MemoryStorage, Storage},
};
use std::{sync::Arc, time::Duration};

const SECOND: u64 = 1_000_000_000;
const WORKER: WorkerId = WorkerId(1);

struct Folded(QueuesFold);

impl Fold for Folded {
    fn image(&mut self, owner: Owner, lsn: flowmesh::Lsn, bytes: &[u8]) -> Result<()> {
        self.0.image(owner, lsn, bytes)
    }

    fn entry(&mut self, lsn: flowmesh::Lsn, place: Place, entry: Entry<'_>) -> Result<()> {
        self.0.entry(lsn, place, entry)
    }

    fn kept(&mut self, keep: &mut dyn FnMut(Place)) {
        self.0.kept(keep);
    }
}

struct Rig {
    storage: Arc<dyn Storage>,
    ledger: Ledger,
    queues: Queues,
    times: Times,
    config: LedgerConfig,
}

fn open(storage: &Arc<dyn Storage>, config: &LedgerConfig, times: Times) -> Result<(Ledger, Queues)> {
    let mut fold = Folded(QueuesFold::new(7));
    let (ledger, _) = Ledger::open(Arc::clone(storage), config, &mut fold)?;
    let (queues, _) = Queues::open(fold.0, ledger.clone(), times, 9, 1 << 20)?;
    Ok((ledger, queues))
}

impl Rig {
    fn new() -> Self {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
        let config =
            LedgerConfig { segment_bytes: 64 << 10, checkpoint_bytes: 128 << 10, ..LedgerConfig::default() };
        let times = Times { boot: Moment(100 * SECOND), wall: Timestamp(1_700_000_000 * SECOND) };
        let (ledger, queues) = open(&storage, &config, times).unwrap();
        Self { storage, ledger, queues, times, config }
    }

    fn reopen(&mut self) -> Result<()> {
        self.times = Times { boot: Moment(5), wall: Timestamp(self.times.wall.0 + SECOND) };
        (self.ledger, self.queues) = open(&self.storage, &self.config, self.times)?;
        Ok(())
    }

    fn declare(&self, name: &str, config: &QueueConfig) -> QueueId {
        self.queues.declare(self.times, &Name::parse(name).unwrap(), config).unwrap().value.0
    }

    fn enqueue(&self, queue: QueueId, payload: &[u8]) -> JobId {
        let enqueued = self.queues.enqueue(self.times, queue, payload, &EnqueueOptions::default());
        enqueued.unwrap().value.id()
    }

    fn reserve(&self, queue: QueueId, most: usize) -> Vec<Job> {
        let options = ReserveOptions::default();
        self.queues.reserve(self.times, queue, WORKER, options, most, usize::MAX, None).unwrap().value
    }

    fn count(&self, queue: QueueId, state: JobState) -> u64 {
        self.queues.stats(self.times, queue).unwrap().count(state)
    }

    /// A queue whose jobs die at their first failure and go to another, that other, and one beside them.
    fn with_letters(&self) -> [QueueId; 3] {
        let lease = Duration::from_secs(5);
        let dead = self.declare("dead", &QueueConfig::default());
        let dead_letter_to = Some(Name::parse("dead").unwrap());
        let config = QueueConfig { max_attempts: 1, lease, dead_letter_to, ..QueueConfig::default() };
        let other = QueueConfig { lease, ..QueueConfig::default() };
        [self.declare("work", &config), dead, self.declare("other", &other)]
    }
}

/// Together they are larger than a segment.
const LETTERS: usize = 9;
const LETTER_BYTES: usize = 8 << 10;

#[test]
fn a_directory_opens_however_much_dead_jobs_carry() {
    let mut rig = Rig::new();
    let [work, dead, _] = rig.with_letters();
    for _ in 0..LETTERS {
        rig.enqueue(work, &[7; LETTER_BYTES]);
    }
    assert_eq!(rig.reserve(work, LETTERS).len(), LETTERS);
    rig.reopen().expect("nine leased jobs are no reason");
    assert_eq!(rig.count(dead, JobState::Ready), LETTERS as u64);
    rig.reopen().unwrap();
    assert_eq!(rig.count(dead, JobState::Ready), LETTERS as u64, "once each");
}

#[test]
fn leases_end_in_every_queue_whatever_one_of_them_cannot() {
    let mut rig = Rig::new();
    let [work, dead, other] = rig.with_letters();
    for _ in 0..LETTERS {
        rig.enqueue(work, &[7; LETTER_BYTES]);
    }
    rig.enqueue(other, b"x");
    assert_eq!((rig.reserve(work, LETTERS).len(), rig.reserve(other, 1).len()), (LETTERS, 1));
    (rig.times.boot.0, rig.times.wall.0) = (rig.times.boot.0 + 60 * SECOND, rig.times.wall.0 + 60 * SECOND);
    let _ = rig.queues.tick(rig.times).unwrap();
    assert_eq!((rig.count(work, JobState::Leased), rig.count(other, JobState::Leased)), (0, 0));
    assert_eq!(
        (rig.count(dead, JobState::Ready), rig.count(other, JobState::RetryWait)),
        (LETTERS as u64, 1)
    );
}

#[test]
fn jobs_of_a_worker_that_died_go_to_the_dead_letter_queue_however_many_bytes_they_are() {
    let rig = Rig::new();
    let [work, dead, _] = rig.with_letters();
    for _ in 0..LETTERS {
        rig.enqueue(work, &[7; LETTER_BYTES]);
    }
    assert_eq!(rig.reserve(work, LETTERS).len(), LETTERS);
    let _ = rig.queues.worker_gone(rig.times, WORKER).unwrap();
    assert_eq!((rig.count(work, JobState::Leased), rig.count(dead, JobState::Ready)), (0, LETTERS as u64));
}

#[test]
fn leases_end_at_opening_although_no_segment_holds_all_that_is_written_of_them() {
    const JOBS: usize = 1000;
    let mut rig = Rig::new();
    let queue = rig.declare("q", &QueueConfig::default());
    for _ in 0..JOBS {
        rig.enqueue(queue, b"x");
    }
    while !rig.reserve(queue, 100).is_empty() {}
    assert_eq!(rig.count(queue, JobState::Leased), JOBS as u64);
    rig.reopen().unwrap();
    assert_eq!(rig.count(queue, JobState::Leased), 0);
    let mut purged = 0;
    for state in [JobState::Ready, JobState::RetryWait] {
        purged += rig.queues.purge(rig.times, queue, state).unwrap().value;
    }
    assert_eq!(purged, JOBS);
}

#[test]
fn a_dead_job_that_cannot_move_stays_dead_where_it_is() {
    let mut rig = Rig::new();
    let [work, dead, _] = rig.with_letters();
    // The largest that fits into a segment as it is enqueued, so not with what a dead letter says beside.
    let options = EnqueueOptions::default();
    let fits = |bytes: &usize| rig.queues.enqueue(rig.times, work, &vec![7; *bytes], &options).is_ok();
    assert!((0..=64 << 10).rev().step_by(8).any(|bytes| fits(&bytes)));
    rig.enqueue(work, b"small");
    assert_eq!(rig.reserve(work, 2).len(), 2);
    rig.reopen().unwrap();
    assert_eq!((rig.count(work, JobState::Dead), rig.count(dead, JobState::Ready)), (1, 1));
}

#[test]
fn an_id_that_is_there_is_not_given_again() {
    // The same seed chooses the same ids.
    let next = {
        let other = Rig::new();
        let queue = other.declare("q", &QueueConfig::default());
        other.enqueue(queue, b"x")
    };
    let mut rig = Rig::new();
    let queue = rig.declare("q", &QueueConfig::default());
    let mine = EnqueueOptions { id: Some(next), ..EnqueueOptions::default() };
    let _ = rig.queues.enqueue(rig.times, queue, b"mine", &mine).unwrap();
    let second = rig.enqueue(queue, b"x");
    assert_ne!(second, next);
    rig.reopen().expect("it opens");
    assert_eq!(rig.count(queue, JobState::Ready), 2);
    assert_eq!(rig.queues.content(queue, next).unwrap().payload(), b"mine");
}
