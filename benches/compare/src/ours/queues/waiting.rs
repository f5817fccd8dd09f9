//! What a waiting job costs: memory while it waits, time when the directory is opened again.

use std::time::Instant;

use flowmesh::queue::JobState;
use flowmesh::{Durability, Mesh};

use super::{BATCH, QUEUE, amount, enqueue_batch, host};
use crate::contender::{Figure, Peer, Result, argument, directory, say, say_ready};
use crate::ours::path_text;
use crate::usage::private_rss_bytes;

/// What the process has grown by, for each job. Payloads are on the disk, but for 32 MiB of the latest: they count.
pub(crate) fn memory() -> Result<Figure> {
    let (_host, queue) = host(Durability::Os)?;
    let count = amount(JOBS);
    let before = private_rss_bytes(std::process::id())?;
    for seed in (0..count).step_by(BATCH as usize) {
        enqueue_batch(&queue, seed)?;
    }
    let bytes = private_rss_bytes(std::process::id())? - before;
    Ok(Figure::plain(bytes as f64 / count as f64))
}

/// Another process fills the directory and ends, then this one opens it.
pub(crate) fn recovery() -> Result<Figure> {
    let (directory, count) = (directory()?, amount(JOBS));
    let mut peer = Peer::spawn("ours.waiting.recovery", &[path_text(&directory)?, count.to_string()])?;
    peer.wait_ready()?;
    peer.line()?;
    peer.finish()?;
    let begun = Instant::now();
    let mesh = Mesh::open(&directory)?;
    let waiting = mesh.queue(QUEUE)?.stats()?.count(JobState::Ready);
    let elapsed = begun.elapsed();
    assert_eq!(waiting, count);
    // A quick run has a tenth of the jobs, and tells what all of them would take.
    Ok(Figure::plain(elapsed.as_secs_f64() * JOBS as f64 / count as f64))
}

pub(crate) fn fill(args: &[String]) -> Result<()> {
    let mesh = Mesh::open(argument::<String>(args, 0)?)?;
    let queue = mesh.declare_queue(QUEUE, &Default::default())?.durable(Durability::Os);
    say_ready()?;
    for seed in (0..argument(args, 1)?).step_by(BATCH as usize) {
        enqueue_batch(&queue, seed)?;
    }
    mesh.close();
    say("filled")
}

const JOBS: u64 = 10_000_000;
