//! 50 threads enqueue and 50 work, and every enqueue and every ack waits for the disk.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use flowmesh::{Durability, Queue, Wait};

use super::{amount, connect, enqueue, host, read};
use crate::contender::{Figure, Peer, Result, argument, say, say_ready};

pub(crate) fn local() -> Result<Figure> {
    let (_host, queue) = host(Durability::Fsync)?;
    let count = amount(JOBS);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let working = scope.spawn(|| work(&queue, count));
        produce(&queue, count)?;
        working.join().map_err(|_| "a worker panicked")?
    })?;
    Ok(Figure::rate(count, begun.elapsed()))
}

/// The producers in the host, the workers in a client.
pub(crate) fn session() -> Result<Figure> {
    let (host, queue) = host(Durability::Fsync)?;
    let count = amount(JOBS);
    let mut peer = Peer::spawn("ours.fifty.session", &[host.argument()?])?;
    peer.wait_ready()?;
    let begun = Instant::now();
    produce(&queue, count)?;
    peer.line()?;
    let elapsed = begun.elapsed();
    peer.finish()?;
    Ok(Figure::rate(count, elapsed))
}

pub(crate) fn workers(args: &[String]) -> Result<()> {
    let (_mesh, queue) = connect(&argument::<String>(args, 0)?)?;
    say_ready()?;
    work(&queue, amount(JOBS))?;
    say("acked")
}

fn produce(queue: &Queue, count: u64) -> Result<()> {
    on_all(|thread| (0..count / THREADS).try_for_each(|step| enqueue(queue, (thread << 32) + step)))
}

/// Takes and acks until all are acked.
fn work(queue: &Queue, count: u64) -> Result<()> {
    // Relaxed: only the count is shared.
    let left = AtomicU64::new(count);
    on_all(|_| {
        let take = |left: u64| left.checked_sub(1);
        while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
            let job = queue.reserve_one(&mut Wait::forever())?.ok_or("a wait without end came to one")?;
            read(&job);
            job.ack(None)?;
        }
        Ok(())
    })
}

fn on_all(work: impl Fn(u64) -> Result<()> + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let working: Vec<_> = (0..THREADS)
            .map(|thread| {
                let work = &work;
                scope.spawn(move || work(thread))
            })
            .collect();
        working.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a thread panicked")?)
    })
}

const THREADS: u64 = 50;
const JOBS: u64 = 50_000;
