//! Events and calls between processes: `ipc`.

use std::time::Duration;

use crate::table::{Columns, Line, Ours, Reach, Table, Unit};

pub(crate) const TABLE: Table = Table {
    name: "ipc",
    lines: LINES,
    columns: Columns::Plain,
    rounds: 7,
    few_rounds: &[],
    round_limit: Duration::from_secs(30),
};

const LINES: &[Line] = {
    use Ours::{Of, PerStep};
    use Reach::{AtLeast, AtMost, Below, Ceiling, Floor, Shown};
    use Unit::{Bytes, BytesPerSecond, FanOut, Nanoseconds, PerSecond, Percent};

    const fn line(
        group: &'static str,
        title: &'static str,
        unit: Unit,
        ours: Ours,
        against: Option<&'static str>,
        reach: Reach,
    ) -> Line {
        Line { group, title, place: "", unit, ours, against, reach }
    }

    &[
        line(
            "rpc-block",
            "RPC round trip 64 B, spinning off",
            Nanoseconds,
            Of("ours.rpc.block"),
            Some("raw.futex"),
            AtMost(1.3),
        ),
        line("rpc-block", "  beside a Unix socket", Nanoseconds, Of("ours.rpc.block"), Some("uds"), Shown),
        line(
            "rpc-spin",
            "RPC round trip 64 B, default, back to back",
            Nanoseconds,
            Of("ours.rpc"),
            Some("raw.spin"),
            AtMost(2.5),
        ),
        line(
            "rpc-spin",
            "  beside request-response",
            Nanoseconds,
            Of("ours.rpc"),
            Some("iceoryx2.rpc"),
            Below(1.0),
        ),
        line(
            "rpc-spin",
            "  beside its own benchmark's shape",
            Nanoseconds,
            Of("ours.rpc"),
            Some("iceoryx2.requests"),
            Shown,
        ),
        line("rpc-spin", "  beside a Unix socket", Nanoseconds, Of("ours.rpc"), Some("uds"), AtMost(0.125)),
        line(
            "event",
            "event one way, blocking, host→client",
            Nanoseconds,
            Of("ours.event"),
            Some("iceoryx2.event"),
            AtMost(0.75),
        ),
        line("rate", "events 64 B, batched", PerSecond, Of("ours.rate.batched"), None, Floor(10e6)),
        line("rate", "  beside shmipc", PerSecond, Of("ours.rate.batched"), Some("shmipc"), AtLeast(5.0)),
        line("rate", "  beside ZeroMQ", PerSecond, Of("ours.rate.batched"), Some("zeromq"), AtLeast(5.0)),
        line(
            "rate",
            "  beside shmipc, 32 to a flush",
            PerSecond,
            Of("ours.rate.batched"),
            Some("shmipc.batched"),
            Shown,
        ),
        line("rate", "events 64 B, singly", PerSecond, Of("ours.rate.single"), None, Floor(3e6)),
        line("rate", "  beside shmipc", PerSecond, Of("ours.rate.single"), Some("shmipc"), Shown),
        line("rate", "  beside ZeroMQ", PerSecond, Of("ours.rate.single"), Some("zeromq"), Shown),
        line("bulk", "1 MiB messages", BytesPerSecond, Of("ours.bulk"), Some("uds.bulk"), AtLeast(1.5)),
        line(
            "fanout",
            "fan-out to 1, publishing one event",
            FanOut,
            Of("ours.fanout.1"),
            Some("zeromq.fanout.1"),
            Shown,
        ),
        line("fanout", "fan-out to 8", FanOut, Of("ours.fanout.8"), Some("zeromq.fanout.8"), Shown),
        line("fanout", "fan-out to 32", FanOut, Of("ours.fanout.32"), Some("zeromq.fanout.32"), Shown),
        line(
            "fanout",
            "  one more subscriber costs",
            FanOut,
            PerStep { low: "ours.fanout.1", high: "ours.fanout.32", steps: 31.0 },
            None,
            Shown,
        ),
        line("match", "match against 100,000 patterns", PerSecond, Of("ours.match.100000"), None, Floor(1e6)),
        line(
            "match",
            "  beside 1,000, the others match nothing",
            PerSecond,
            Of("ours.match.100000"),
            Some("ours.match.1000"),
            AtLeast(0.8),
        ),
        line(
            "match",
            "  any of the 100,000 may match",
            PerSecond,
            Of("ours.match.100000.any"),
            Some("ours.match.1000"),
            Shown,
        ),
        line(
            "python",
            "Python RPC round trip 64 B",
            Nanoseconds,
            Of("ours.python.rpc"),
            Some("python.pipe"),
            AtMost(0.6),
        ),
        line(
            "python",
            "Python events one way",
            PerSecond,
            Of("ours.python.rate"),
            Some("python.pyzmq"),
            AtLeast(3.0),
        ),
        line(
            "node",
            "Node RPC round trip 64 B",
            Nanoseconds,
            Of("ours.node.rpc"),
            Some("node.fork.rpc"),
            AtMost(0.8),
        ),
        line(
            "node",
            "Node events one way",
            PerSecond,
            Of("ours.node.rate"),
            Some("node.fork.rate"),
            AtLeast(5.0),
        ),
        line("idle", "idle host with 50 sessions, CPU", Percent, Of("ours.idle.cpu"), None, Ceiling(0.0)),
        line(
            "idle",
            "  memory beside mapped rings",
            Bytes,
            Of("ours.idle.rss"),
            None,
            Ceiling(10.0 * 1024.0 * 1024.0),
        ),
    ]
};
