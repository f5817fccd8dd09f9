//! Many threads of the host, each of which waits for the disk: how much one flush serves.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use flowmesh::{Durability, Queue};

use super::{enqueue, host, read, reserve_one};
use crate::contender::{Figure, Result};

pub(crate) fn enqueue_16() -> Result<Figure> {
    enqueue_from(16)
}

pub(crate) fn enqueue_64() -> Result<Figure> {
    enqueue_from(64)
}

pub(crate) fn cycle_16() -> Result<Figure> {
    cycle_on(16)
}

pub(crate) fn cycle_64() -> Result<Figure> {
    cycle_on(64)
}

fn enqueue_from(threads: u64) -> Result<Figure> {
    let (_host, queue) = host(Durability::Fsync)?;
    flushed_records(threads, |seed| enqueue(&queue, seed).map(|()| 1))
}

/// What a reservation writes is not flushed, so a job is two flushed records.
fn cycle_on(threads: u64) -> Result<Figure> {
    let (_host, queue) = host(Durability::Fsync)?;
    flushed_records(threads, |seed| cycle(&queue, seed).map(|()| 2))
}

fn cycle(queue: &Queue, seed: u64) -> Result<()> {
    enqueue(queue, seed)?;
    let job = reserve_one(queue)?;
    read(&job);
    job.ack(None)?;
    Ok(())
}

/// What all threads together do in a while, once all of them are under way. `work` says how many records it wrote.
pub(crate) fn flushed_records(threads: u64, work: impl Fn(u64) -> Result<u64> + Sync) -> Result<Figure> {
    let (records, over) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let working: Vec<_> = (0..threads)
            .map(|thread| {
                let (records, over, work) = (&records, &over, &work);
                scope.spawn(move || -> Result<()> {
                    let mut seed = thread << 32;
                    // Relaxed: a flag and a count, nothing else hangs on them.
                    while !over.load(Ordering::Relaxed) {
                        records.fetch_add(work(seed)?, Ordering::Relaxed);
                        seed += 1;
                    }
                    Ok(())
                })
            })
            .collect();
        std::thread::sleep(WARM_UP);
        let (begun, before) = (Instant::now(), records.load(Ordering::Relaxed));
        std::thread::sleep(MEASURED);
        let (elapsed, after) = (begun.elapsed(), records.load(Ordering::Relaxed));
        over.store(true, Ordering::Relaxed);
        for thread in working {
            thread.join().map_err(|_| "a thread panicked")??;
        }
        Ok(Figure::rate(after - before, elapsed))
    })
}

const WARM_UP: Duration = Duration::from_millis(200);
const MEASURED: Duration = Duration::from_millis(1_200);
