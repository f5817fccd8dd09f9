//! FlowMesh's side of the tables; of queues in `queues`.
//!
//! Each entry of [`CONTENDERS`] fills the lines of the table that name it; a line whose contender is missing
//! prints `-`. An entry is `Contender { name, run }`. `round` runs in a fresh process, is the **host**, starts
//! the client with `Peer::spawn(name, &args)`, waits for `wait_ready`, and returns the [`Figure`]. `child` is
//! that client: it connects, says `say_ready()`, does its part and returns. Sizes of the work and the loops
//! that time it are in `payload`, so that ours and the peers' are the same:
//!
//! | name | figure | made with |
//! | --- | --- | --- |
//! | `ours.rpc.block` | latency of a call, wait strategy `block` on both sides | `time_each(BLOCKING_CALLS, …)` |
//! | `ours.rpc` | the same with default settings | `time_each(SPINNING_CALLS, …)` |
//! | `ours.event` | latency, host publishes and client receives, `block` | `pace_events` / `time_events`, `PACED_EVENTS` |
//! | `ours.rate.batched`, `ours.rate.single` | events per second, none lost | `RATE_MESSAGES` |
//! | `ours.bulk` | **bytes** per second | `LARGE_MESSAGES` of `LARGE_BYTES` |
//! | `ours.fanout.1`, `.8`, `.32` | nanoseconds per event: publishing, and until all have read it; none lost | `Figure::fan_out`, `FANOUT_EVENTS` |
//! | `ours.match.1000`, `.100000`, `.100000.any` | subjects matched per second, one thread | no child |
//! | `ours.idle.cpu`, `ours.idle.rss` | percent of a core over 5 s; bytes | `usage` |
//! | `ours.python.rpc`, `.rate`, `ours.node.rpc`, `.rate` | as above | `Run::Script`, `python/` and `node/` |
//!
//! Payloads are written with `fill` or `small` and read with `check`, on both sides. Latency sides call
//! `pin::caller(Side::Parent)` or `(Side::Child)` after they have connected, in the thread that waits.

mod bulk;
mod event;
mod fanout;
mod idle;
mod matching;
mod queues;
mod rate;
mod rpc;

use std::path::{Path, PathBuf};
use std::time::Duration;

use flowmesh::{Delivery, Mesh, OnSlow, SubscribeOptions, Subscription, WaitStrategy};

use crate::contender::{ChildMain, Contender, Figure, Interpreter, Result, Run};

pub(crate) const CONTENDERS: &[&[Contender]] = &[IPC, queues::CONTENDERS];

const IPC: &[Contender] = &[
    ours("ours.rpc.block", rpc::blocking, Some(rpc::blocking_child)),
    ours("ours.rpc", rpc::spinning, Some(rpc::spinning_child)),
    ours("ours.event", event::round, Some(event::child)),
    ours("ours.rate.batched", rate::batched, Some(rate::batched_child)),
    ours("ours.rate.single", rate::single, Some(rate::single_child)),
    ours("ours.bulk", bulk::round, Some(bulk::child)),
    ours("ours.fanout.1", fanout::to_1, Some(fanout::child)),
    ours("ours.fanout.8", fanout::to_8, Some(fanout::child)),
    ours("ours.fanout.32", fanout::to_32, Some(fanout::child)),
    ours("ours.match.1000", matching::against_1000, None),
    ours("ours.match.100000", matching::against_100000, None),
    ours("ours.match.100000.any", matching::any_of_100000, None),
    ours("ours.idle.cpu", idle::cpu, Some(idle::child)),
    ours("ours.idle.rss", idle::rss, Some(idle::child)),
    script("ours.python.rpc", Interpreter::Python, "python/ours.py", &["rpc"]),
    script("ours.python.rate", Interpreter::Python, "python/ours.py", &["rate"]),
    script("ours.node.rpc", Interpreter::Node, "node/ours.mjs", &["rpc"]),
    script("ours.node.rate", Interpreter::Node, "node/ours.mjs", &["rate"]),
];

const fn ours(name: &'static str, round: fn() -> Result<Figure>, child: Option<ChildMain>) -> Contender {
    Contender { name, run: Run::Rust { round, child } }
}

const fn script(
    name: &'static str,
    interpreter: Interpreter,
    file: &'static str,
    args: &'static [&'static str],
) -> Contender {
    Contender { name, run: Run::Script { interpreter, file, args } }
}

/// A host and its directory, which goes with it.
struct Host {
    mesh: Mesh,
    directory: PathBuf,
}

impl Host {
    fn open(strategy: WaitStrategy) -> Result<Self> {
        Self::open_in(std::env::temp_dir().join(format!("flowmesh-compare-{}", std::process::id())), strategy)
    }

    fn open_in(directory: PathBuf, strategy: WaitStrategy) -> Result<Self> {
        let mesh = Mesh::builder().wait_strategy(strategy).open(&directory)?;
        Ok(Self { mesh, directory })
    }

    /// What a child needs to connect.
    fn argument(&self) -> Result<String> {
        path_text(&self.directory)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.mesh.close();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn path_text(path: &Path) -> Result<String> {
    Ok(path.to_str().ok_or("the directory for temporary files is not named in UTF-8")?.to_owned())
}

const SUBJECT: &str = "compare.event";

/// Subscribes without loss: the publisher waits for a subscriber that is this many events behind.
fn subscribe(mesh: &Mesh, capacity: usize) -> Result<Subscription> {
    let on_slow = OnSlow::Block { timeout: Duration::from_secs(20) };
    Ok(mesh.subscribe_with(SUBJECT, SubscribeOptions { on_slow, capacity, ..SubscribeOptions::default() })?)
}

/// The payload, once nothing was lost before it.
fn whole(delivery: &Delivery) -> &[u8] {
    assert_eq!(delivery.gap, 0, "events were lost");
    delivery.message.payload()
}
