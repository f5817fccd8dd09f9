//! From just before the enqueue until the worker's handler has read the payload, which carries when that was. The
//! worker sleeps before each job; whoever enqueues stays awake, but lets others have its core.

use std::io::BufRead;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use flowmesh::{Durability, Queue, WorkerOptions};

use super::{connect, enqueue, host, read};
use crate::contender::{Figure, Peer, Result, argument, say, say_ready};
use crate::payload::{PACED_EVENTS, now_ns};
use crate::pin::{self, Side};

pub(crate) fn local() -> Result<Figure> {
    let (_host, queue) = host(Durability::Os)?;
    // The thread that works inherits the pin.
    pin::caller(Side::Child);
    let worker = Working::start(&queue)?;
    pin::caller(Side::Parent);
    pace(&queue)?;
    worker.figure()
}

/// The host enqueues, a client works.
pub(crate) fn session() -> Result<Figure> {
    let (host, queue) = host(Durability::Os)?;
    let mut peer = Peer::spawn("ours.latency.session", &[host.argument()?])?;
    peer.wait_ready()?;
    pin::caller(Side::Parent);
    pace(&queue)?;
    let figure = peer.line()?.parse()?;
    peer.finish()?;
    Ok(figure)
}

pub(crate) fn worker(args: &[String]) -> Result<()> {
    let (_mesh, queue) = connect(&argument::<String>(args, 0)?)?;
    pin::caller(Side::Child);
    let worker = Working::start(&queue)?;
    say_ready()?;
    say(worker.figure()?)
}

/// One client enqueues, another works, a third process is the host.
pub(crate) fn clients() -> Result<Figure> {
    let (host, _queue) = host(Durability::Os)?;
    let mut worker = Peer::spawn("ours.latency.clients", &[host.argument()?, WORKS.to_owned()])?;
    worker.wait_ready()?;
    let mut producer = Peer::spawn("ours.latency.clients", &[host.argument()?, ENQUEUES.to_owned()])?;
    producer.wait_ready()?;
    producer.tell("go")?;
    let figure = worker.line()?.parse()?;
    worker.finish()?;
    producer.finish()?;
    Ok(figure)
}

pub(crate) fn client(args: &[String]) -> Result<()> {
    if argument::<String>(args, 1)? == WORKS {
        return worker(args);
    }
    let (_mesh, queue) = connect(&argument::<String>(args, 0)?)?;
    say_ready()?;
    std::io::stdin().lock().read_line(&mut String::new())?;
    pin::caller(Side::Parent);
    pace(&queue)
}

/// Enqueues jobs that say when, a tenth as many more to warm up.
fn pace(queue: &Queue) -> Result<()> {
    for _ in 0..PACED_EVENTS * 11 / 10 {
        let quiet_until = Instant::now() + GAP;
        while Instant::now() < quiet_until {
            std::thread::yield_now();
        }
        enqueue(queue, now_ns())?;
    }
    Ok(())
}

/// A worker, and the latencies that its handler tells.
struct Working {
    worker: flowmesh::Worker,
    samples: mpsc::Receiver<u64>,
}

impl Working {
    fn start(queue: &Queue) -> Result<Self> {
        let (sender, samples) = mpsc::channel();
        let worker = queue.process(WorkerOptions::default(), move |job| {
            // Whoever would receive it has enough.
            let _ = sender.send(now_ns().saturating_sub(read(job)));
            Ok(None)
        })?;
        Ok(Self { worker, samples })
    }

    fn figure(self) -> Result<Figure> {
        let (warm, all) = (PACED_EVENTS as usize / 10, PACED_EVENTS as usize * 11 / 10);
        let samples: Vec<u64> =
            (0..all).map(|_| self.samples.recv_timeout(PATIENCE)).collect::<std::result::Result<_, _>>()?;
        self.worker.stop(PATIENCE);
        Ok(Figure::latency(samples[warm..].to_vec()))
    }
}

const WORKS: &str = "works";
const ENQUEUES: &str = "enqueues";
/// For the worker to ack and to sleep again.
const GAP: Duration = Duration::from_micros(200);
const PATIENCE: Duration = Duration::from_secs(20);
