//! A client process does everything: batches of 100 with several requests under way, or one call after the other.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use flowmesh::queue::{EnqueueOptions, QueueReply, QueueRequest};
use flowmesh::{Durability, PendingReply, Queue, Wait};

use super::{BATCH, amount, connect, enqueue, host, new_jobs, payload, read, reserve_one};
use crate::contender::{Figure, Peer, Result, argument, say, say_ready};

pub(crate) fn pipelined_os() -> Result<Figure> {
    round("ours.session.os", Durability::Os)
}

pub(crate) fn pipelined_fsync() -> Result<Figure> {
    round("ours.session.fsync", Durability::Fsync)
}

pub(crate) fn single_os() -> Result<Figure> {
    round("ours.session.single.os", Durability::Os)
}

pub(crate) fn single_fsync() -> Result<Figure> {
    round("ours.session.single.fsync", Durability::Fsync)
}

pub(crate) fn pipelined_os_child(args: &[String]) -> Result<()> {
    child(args, amount(400_000), pipelined)
}

pub(crate) fn pipelined_fsync_child(args: &[String]) -> Result<()> {
    child(args, amount(200_000), pipelined)
}

pub(crate) fn single_os_child(args: &[String]) -> Result<()> {
    child(args, amount(20_000), one_by_one)
}

pub(crate) fn single_fsync_child(args: &[String]) -> Result<()> {
    child(args, amount(4_000), one_by_one)
}

fn round(name: &str, durability: Durability) -> Result<Figure> {
    let (host, _queue) = host(durability)?;
    let mut peer = Peer::spawn(name, &[host.argument()?])?;
    peer.wait_ready()?;
    let figure = peer.line()?.parse()?;
    peer.finish()?;
    Ok(figure)
}

fn child(args: &[String], count: u64, work: fn(&Queue, u64) -> Result<()>) -> Result<()> {
    let (_mesh, queue) = connect(&argument::<String>(args, 0)?)?;
    say_ready()?;
    work(&queue, count / 10)?;
    let begun = Instant::now();
    work(&queue, count)?;
    say(Figure::rate(count, begun.elapsed()))
}

fn one_by_one(queue: &Queue, count: u64) -> Result<()> {
    for seed in 0..count {
        enqueue(queue, seed)?;
        let job = reserve_one(queue)?;
        assert_eq!(read(&job), seed);
        job.ack(None)?;
    }
    Ok(())
}

/// One thread enqueues, one reserves and acks. Neither waits for an answer before it asks again, up to [`WINDOW`].
fn pipelined(queue: &Queue, count: u64) -> Result<()> {
    let acked = Acked::default();
    std::thread::scope(|scope| {
        let producer = scope.spawn(|| produce(queue, count, &acked));
        let worked = work(queue, count, &acked);
        producer.join().map_err(|_| "the producer panicked")??;
        worked
    })
}

fn produce(queue: &Queue, count: u64, acked: &Acked) -> Result<()> {
    let mut under_way = VecDeque::new();
    let options = EnqueueOptions::default();
    for first in (0..count).step_by(BATCH as usize) {
        acked.wait(first.saturating_sub(BACKLOG));
        let payloads: Vec<_> = (first..first + BATCH).map(payload).collect();
        let request = QueueRequest::Enqueue { queue: queue.id(), jobs: new_jobs(&payloads, &options) };
        under_way.push_back(queue.start(request, None)?);
        settle(&mut under_way, WINDOW)?;
    }
    settle(&mut under_way, 0)
}

fn work(queue: &Queue, count: u64, acked: &Acked) -> Result<()> {
    let (mut reserving, mut acking) = (VecDeque::new(), VecDeque::new());
    let mut taken = 0;
    while taken < count {
        while reserving.len() < WINDOW {
            reserving.push_back(queue.start_reserve(BATCH as usize, None, None)?);
        }
        let reserved: PendingReply = reserving.pop_front().ok_or("nothing is reserved")?;
        let jobs = queue.jobs(reserved.wait(&mut Wait::forever())?)?;
        for job in &jobs {
            read(job);
        }
        taken += jobs.len() as u64;
        let tokens = jobs.iter().map(flowmesh::Job::token).collect();
        acking.push_back(queue.start(QueueRequest::AckMany { queue: queue.id(), tokens }, None)?);
        settle(&mut acking, WINDOW)?;
        acked.say(taken);
    }
    settle(&mut acking, 0)
}

/// Waits for the oldest of them until no more than `left` are under way.
fn settle(under_way: &mut VecDeque<PendingReply>, left: usize) -> Result<()> {
    while under_way.len() > left
        && let Some(oldest) = under_way.pop_front()
    {
        if let QueueReply::Each(each) = oldest.wait(&mut Wait::forever())?.reply {
            assert!(each.iter().all(std::result::Result::is_ok), "a lease was lost");
        }
    }
    Ok(())
}

/// How far the worker has come, for the producer to be no further ahead than [`BACKLOG`].
#[derive(Default)]
struct Acked(Mutex<u64>, Condvar);

impl Acked {
    fn say(&self, count: u64) {
        *self.0.lock().expect("nobody panics with it") = count;
        self.1.notify_one();
    }

    fn wait(&self, count: u64) {
        let acked = self.0.lock().expect("nobody panics with it");
        let waited = self.1.wait_timeout_while(acked, PATIENCE, |acked| *acked < count);
        assert!(!waited.expect("nobody panics with it").1.timed_out(), "the worker has stopped");
    }
}

/// Requests of a kind under way, and jobs that may wait.
const WINDOW: usize = 8;
const BACKLOG: u64 = 4_000;
const PATIENCE: Duration = Duration::from_secs(20);
