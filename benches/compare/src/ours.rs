//! FlowMesh's side of the table.
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
//! | `ours.match.1000`, `ours.match.100000` | subjects matched per second, one thread | no child |
//! | `ours.idle.cpu`, `ours.idle.rss` | percent of a core over 5 s; bytes | `usage` |
//! | `ours.python.rpc`, `.rate`, `ours.node.rpc`, `.rate` | as above | `Run::Script`, `python/` and `node/` |
//!
//! Payloads are written with `fill` or `small` and read with `check`, on both sides. Latency sides call
//! `pin::caller(Side::Parent)` or `(Side::Child)` after they have connected, in the thread that waits.

use crate::contender::Contender;

pub(crate) const CONTENDERS: &[Contender] = &[];
