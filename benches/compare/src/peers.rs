//! The peers and the machine's own limits, one module each.

mod commit;
mod iceoryx;
mod raw;
mod redis;
mod shmipc;
mod uds;
mod zeromq;

use crate::contender::{Contender, Interpreter, Run};

pub(crate) const CONTENDERS: &[Contender] = &[
    Contender { name: "raw.futex", run: Run::Rust { round: raw::futex, child: Some(raw::futex_child) } },
    Contender { name: "raw.spin", run: Run::Rust { round: raw::spin, child: Some(raw::spin_child) } },
    Contender { name: "uds", run: Run::Rust { round: uds::round_trip, child: Some(uds::round_trip_child) } },
    Contender { name: "uds.bulk", run: Run::Rust { round: uds::bulk, child: Some(uds::bulk_child) } },
    Contender {
        name: "iceoryx2.rpc",
        run: Run::Rust { round: iceoryx::rpc, child: Some(iceoryx::rpc_child) },
    },
    Contender {
        name: "iceoryx2.requests",
        run: Run::Rust { round: iceoryx::requests, child: Some(iceoryx::requests_child) },
    },
    Contender {
        name: "iceoryx2.event",
        run: Run::Rust { round: iceoryx::event, child: Some(iceoryx::event_child) },
    },
    Contender { name: "shmipc", run: Run::Rust { round: shmipc::single, child: Some(shmipc::child) } },
    Contender {
        name: "shmipc.batched",
        run: Run::Rust { round: shmipc::batched, child: Some(shmipc::child) },
    },
    Contender { name: "zeromq", run: Run::Rust { round: zeromq::rate, child: Some(zeromq::rate_child) } },
    Contender {
        name: "zeromq.fanout.1",
        run: Run::Rust { round: zeromq::fanout_1, child: Some(zeromq::fanout_child) },
    },
    Contender {
        name: "zeromq.fanout.8",
        run: Run::Rust { round: zeromq::fanout_8, child: Some(zeromq::fanout_child) },
    },
    Contender {
        name: "zeromq.fanout.32",
        run: Run::Rust { round: zeromq::fanout_32, child: Some(zeromq::fanout_child) },
    },
    Contender { name: "raw.writes", run: Run::Rust { round: commit::writes, child: None } },
    Contender { name: "raw.commit.16", run: Run::Rust { round: commit::group_of_16, child: None } },
    Contender { name: "raw.commit.64", run: Run::Rust { round: commit::group_of_64, child: None } },
    Contender {
        name: "raw.commit.16.small",
        run: Run::Rust { round: commit::small_group_of_16, child: None },
    },
    Contender {
        name: "raw.commit.64.small",
        run: Run::Rust { round: commit::small_group_of_64, child: None },
    },
    Contender { name: "redis.always", run: Run::Rust { round: redis::always, child: None } },
    Contender {
        name: "python.rq.simple",
        run: script(Interpreter::PeersPython, "python/queues_peers.py", &["rq.simple"]),
    },
    Contender { name: "python.rq", run: script(Interpreter::PeersPython, "python/queues_peers.py", &["rq"]) },
    Contender {
        name: "python.huey",
        run: script(Interpreter::PeersPython, "python/queues_peers.py", &["huey"]),
    },
    Contender {
        name: "python.litequeue",
        run: script(Interpreter::PeersPython, "python/queues_peers.py", &["litequeue"]),
    },
    Contender { name: "node.bullmq.1", run: script(Interpreter::Node, "node/queues/peers.mjs", &["1"]) },
    Contender { name: "node.bullmq.50", run: script(Interpreter::Node, "node/queues/peers.mjs", &["50"]) },
    Contender { name: "python.pipe", run: script(Interpreter::Python, "python/peers.py", &["pipe"]) },
    Contender { name: "python.pyzmq", run: script(Interpreter::Python, "python/peers.py", &["pyzmq"]) },
    Contender { name: "node.fork.rpc", run: script(Interpreter::Node, "node/peers.mjs", &["rpc"]) },
    Contender { name: "node.fork.rate", run: script(Interpreter::Node, "node/peers.mjs", &["rate"]) },
];

const fn script(interpreter: Interpreter, file: &'static str, args: &'static [&'static str]) -> Run {
    Run::Script { interpreter, file, args }
}
