//! FlowMesh's side of the table of queues, and what its contenders share.
//!
//! | name | figure |
//! | --- | --- |
//! | `ours.local.…`, `.batch.…` | jobs enqueued, reserved and acked per second by one thread of the host |
//! | `ours.enqueue.N`, `ours.cycle.N` | flushed records per second of N threads: one an enqueue, two a whole job |
//! | `ours.session.…` | the first, by a client that has several requests under way, or one |
//! | `ours.fifty.…` | jobs per second of 50 threads that enqueue and 50 that work, everything flushed |
//! | `ours.waiting.…` | bytes a waiting job takes; seconds to open a directory with 10 M of them |
//! | `ours.latency.…` | from before the enqueue until the handler has the payload |
//! | `ours.python.…`, `ours.node.…` | jobs per second of a worker whose handler does nothing |

mod fifty;
mod latency;
mod local;
mod session;
mod threads;
mod waiting;

use flowmesh::queue::{EnqueueOptions, NewJobRequest, QueueConfig};
use flowmesh::{Durability, Job, Mesh, Queue, Wait, WaitStrategy};

use super::{Host, ours, script};
use crate::contender::{Contender, Interpreter, Result, directory, is_quick};
use crate::payload::{check_bytes, fill};

pub(super) const CONTENDERS: &[Contender] = &[
    ours("ours.local.none", local::in_memory, None),
    ours("ours.local.os", local::os, None),
    ours("ours.local.fsync", local::fsync, None),
    ours("ours.local.next.os", local::next_os, None),
    ours("ours.local.batch.none", local::batches_in_memory, None),
    ours("ours.local.batch.os", local::batches_os, None),
    ours("ours.local.batch.fsync", local::batches_fsync, None),
    ours("ours.enqueue.16", threads::enqueue_16, None),
    ours("ours.enqueue.64", threads::enqueue_64, None),
    ours("ours.cycle.16", threads::cycle_16, None),
    ours("ours.cycle.64", threads::cycle_64, None),
    ours("ours.session.os", session::pipelined_os, Some(session::pipelined_os_child)),
    ours("ours.session.fsync", session::pipelined_fsync, Some(session::pipelined_fsync_child)),
    ours("ours.session.single.os", session::single_os, Some(session::single_os_child)),
    ours("ours.session.single.fsync", session::single_fsync, Some(session::single_fsync_child)),
    ours("ours.fifty.local", fifty::local, None),
    ours("ours.fifty.session", fifty::session, Some(fifty::workers)),
    ours("ours.waiting.memory", waiting::memory, None),
    ours("ours.waiting.recovery", waiting::recovery, Some(waiting::fill)),
    ours("ours.latency.local", latency::local, None),
    ours("ours.latency.session", latency::session, Some(latency::worker)),
    ours("ours.latency.clients", latency::clients, Some(latency::client)),
    script("ours.python.local", Interpreter::Python, "python/queues_ours.py", &["local"]),
    script("ours.python.session", Interpreter::Python, "python/queues_ours.py", &["session"]),
    script("ours.node.local.1", Interpreter::Node, "node/queues/ours.mjs", &["local", "1"]),
    script("ours.node.local.50", Interpreter::Node, "node/queues/ours.mjs", &["local", "50"]),
    script("ours.node.session.1", Interpreter::Node, "node/queues/ours.mjs", &["session", "1"]),
    script("ours.node.session.50", Interpreter::Node, "node/queues/ours.mjs", &["session", "50"]),
];

const QUEUE: &str = "compare";
const BATCH: u64 = 100;

/// A host with a queue that is as safe as `durability`.
fn host(durability: Durability) -> Result<(Host, Queue)> {
    let host = Host::open_in(directory()?, WaitStrategy::default())?;
    let config = QueueConfig { durability, ..QueueConfig::default() };
    let queue = host.mesh.declare_queue(QUEUE, &config)?;
    Ok((host, queue))
}

fn connect(directory: &str) -> Result<(Mesh, Queue)> {
    let mesh = Mesh::connect(directory)?;
    let queue = mesh.queue(QUEUE)?;
    Ok((mesh, queue))
}

/// 128 bytes, each of them written.
type Payload = [u64; 16];

fn payload(seed: u64) -> Payload {
    let mut words = [0; 16];
    fill(&mut words, seed);
    words
}

fn enqueue(queue: &Queue, seed: u64) -> Result<()> {
    queue.enqueue(bytemuck::bytes_of(&payload(seed)), &EnqueueOptions::default())?;
    Ok(())
}

/// Enqueues a batch, the first of which carries `seed`.
fn enqueue_batch(queue: &Queue, seed: u64) -> Result<()> {
    let options = EnqueueOptions::default();
    let payloads: Vec<Payload> = (seed..seed + BATCH).map(payload).collect();
    queue.enqueue_many(&new_jobs(&payloads, &options), &mut Wait::forever())?;
    Ok(())
}

fn new_jobs<'a>(payloads: &'a [Payload], options: &'a EnqueueOptions) -> Vec<NewJobRequest<'a>> {
    payloads.iter().map(|payload| NewJobRequest::new(bytemuck::bytes_of(payload), options)).collect()
}

fn reserve_one(queue: &Queue) -> Result<Job> {
    Ok(queue.reserve_one(&mut Wait::forever())?.ok_or("a wait without end came to one")?)
}

/// Every byte of a job's payload, read.
fn read(job: &Job) -> u64 {
    check_bytes(job.payload())
}

/// As much work as asked for, or a tenth of it.
fn amount(full: u64) -> u64 {
    if is_quick() { full / 10 } else { full }
}
