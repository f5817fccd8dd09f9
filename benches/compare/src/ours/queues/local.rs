//! One thread of the host enqueues, reserves and acks: job by job, and batch by batch.

use std::sync::Arc;
use std::time::Instant;

use flowmesh::clock::{Moment, Timestamp};
use flowmesh::ledger::{Entry, Fold, Ledger, LedgerConfig, Lsn, Owner, Place};
use flowmesh::queue::{
    EnqueueOptions, QueueConfig, QueueId, Queues, QueuesFold, ReserveOptions, Times, WorkerId,
};
use flowmesh::storage::MemoryStorage;
use flowmesh::{Durability, Name, Queue, Wait};

use super::{BATCH, amount, enqueue, enqueue_batch, host, payload, read, reserve_one};
use crate::contender::{Figure, Result};
use crate::payload::check_bytes;

pub(crate) fn os() -> Result<Figure> {
    one_by_one(Durability::Os, amount(400_000))
}

pub(crate) fn fsync() -> Result<Figure> {
    one_by_one(Durability::Fsync, amount(6_000))
}

pub(crate) fn batches_os() -> Result<Figure> {
    batches(Durability::Os, amount(1_000_000))
}

pub(crate) fn batches_fsync() -> Result<Figure> {
    batches(Durability::Fsync, amount(400_000))
}

fn one_by_one(durability: Durability, count: u64) -> Result<Figure> {
    let (_host, queue) = host(durability)?;
    time(count, 1, |seed| {
        enqueue(&queue, seed)?;
        let job = reserve_one(&queue)?;
        assert_eq!(read(&job), seed);
        job.ack(None)?;
        Ok(())
    })
}

/// As a worker goes from job to job: acking one takes the next.
pub(crate) fn next_os() -> Result<Figure> {
    let (_host, queue) = host(Durability::Os)?;
    enqueue(&queue, u64::MAX)?;
    let mut job = reserve_one(&queue)?;
    let figure = time(amount(400_000), 1, |seed| {
        enqueue(&queue, seed)?;
        let (_, next) = job.ack_and_reserve(None, None, &mut Wait::forever())?;
        job = next.ok_or("the queue has no other job")?;
        assert_eq!(read(&job), seed);
        Ok(())
    })?;
    job.ack(None)?;
    Ok(figure)
}

fn batches(durability: Durability, count: u64) -> Result<Figure> {
    let (_host, queue) = host(durability)?;
    time(count, BATCH, |seed| {
        enqueue_batch(&queue, seed)?;
        take_batch(&queue, seed)
    })
}

fn take_batch(queue: &Queue, first: u64) -> Result<()> {
    let jobs = queue.reserve(BATCH as usize, None, &mut Wait::forever())?;
    assert_eq!(jobs.len() as u64, BATCH);
    for (seed, job) in (first..).zip(&jobs) {
        assert_eq!(read(job), seed);
    }
    for acked in queue.ack_many(&jobs)? {
        acked?;
    }
    Ok(())
}

/// The queues alone, over storage in memory: what is left when nothing leaves the process.
pub(crate) fn in_memory() -> Result<Figure> {
    let (queues, queue) = queues_in_memory()?;
    let options = EnqueueOptions::default();
    time(amount(400_000), 1, |seed| {
        let now = now(seed);
        drop(queues.enqueue(now, queue, bytemuck::bytes_of(&payload(seed)), &options)?);
        let jobs = queues.reserve(now, queue, WORKER, ReserveOptions::default(), 1, usize::MAX, None)?.value;
        assert_eq!(check_bytes(jobs[0].content.payload()), seed);
        drop(queues.ack(now, queue, jobs[0].token, None)?);
        Ok(())
    })
}

pub(crate) fn batches_in_memory() -> Result<Figure> {
    let (queues, queue) = queues_in_memory()?;
    let options = EnqueueOptions::default();
    time(amount(1_000_000), BATCH, |first| {
        let now = now(first);
        let payloads: Vec<_> = (first..first + BATCH).map(payload).collect();
        let jobs: Vec<_> = payloads.iter().map(|payload| (bytemuck::bytes_of(payload), &options)).collect();
        drop(queues.enqueue_many(now, queue, &jobs)?);
        let options = ReserveOptions::default();
        let jobs = queues.reserve(now, queue, WORKER, options, BATCH as usize, usize::MAX, None)?.value;
        for (seed, job) in (first..).zip(&jobs) {
            assert_eq!(check_bytes(job.content.payload()), seed);
        }
        let tokens: Vec<_> = jobs.iter().map(|job| job.token).collect();
        drop(queues.ack_many(now, queue, &tokens)?);
        Ok(())
    })
}

/// `count` jobs, so many at each step, after a twentieth as many to warm up.
fn time(count: u64, step: u64, mut work: impl FnMut(u64) -> Result<()>) -> Result<Figure> {
    let warm = (count / 20).next_multiple_of(step);
    for seed in (0..warm).step_by(step as usize) {
        work(seed)?;
    }
    let begun = Instant::now();
    for seed in (warm..warm + count).step_by(step as usize) {
        work(seed)?;
    }
    Ok(Figure::rate(count, begun.elapsed()))
}

fn queues_in_memory() -> Result<(Queues, QueueId)> {
    let mut fold = Folding(QueuesFold::new(1));
    let (ledger, _) = Ledger::open(Arc::new(MemoryStorage::default()), &LedgerConfig::default(), &mut fold)?;
    let (queues, _) = Queues::open(fold.0, ledger, now(0), 1, RECENT_BYTES)?;
    let queue = queues.declare(now(0), &Name::parse(super::QUEUE)?, &QueueConfig::default())?.value.0;
    Ok((queues, queue))
}

struct Folding(QueuesFold);

impl Fold for Folding {
    fn image(&mut self, owner: Owner, lsn: Lsn, bytes: &[u8]) -> flowmesh::Result<()> {
        self.0.image(owner, lsn, bytes)
    }

    fn entry(&mut self, lsn: Lsn, place: Place, entry: Entry<'_>) -> flowmesh::Result<()> {
        self.0.entry(lsn, place, entry)
    }

    fn kept(&mut self, keep: &mut dyn FnMut(Place)) {
        self.0.kept(keep);
    }
}

fn now(turn: u64) -> Times {
    Times { boot: Moment(1_000_000_000 + turn), wall: Timestamp(1_700_000_000_000_000_000 + turn) }
}

const WORKER: WorkerId = WorkerId(1);
const RECENT_BYTES: usize = 32 << 20;
