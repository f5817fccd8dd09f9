//! Jobs: `queues`. Payloads are 128 B. The column says how safe a change is before its caller hears of it.

use std::time::Duration;

use crate::table::{Columns, Line, Ours, Reach, Table, Unit};

pub(crate) const TABLE: Table = Table {
    name: "queues",
    lines: LINES,
    columns: Columns::ByDurability,
    rounds: 5,
    few_rounds: &[("waiting", 1)],
    round_limit: Duration::from_secs(120),
};

const OS: usize = 1;
const FSYNC: usize = 2;

const IN_PROCESS: &str = "in process";
const SESSION: &str = "session";

const LINES: &[Line] = {
    use Reach::{AtLeast, Ceiling, Floor, Shown};
    use Unit::{BytesEach, Nanoseconds, PerSecond, Seconds};

    const fn line(
        group: &'static str,
        title: &'static str,
        place: &'static str,
        unit: Unit,
        ours: Ours,
        against: Option<&'static str>,
        reach: Reach,
    ) -> Line {
        Line { group, title, place, unit, ours, against, reach }
    }

    const fn all(none: &'static str, os: &'static str, fsync: &'static str, held: usize) -> Ours {
        Ours::By { figures: [Some(none), Some(os), Some(fsync)], held }
    }

    const fn one(held: usize, name: &'static str) -> Ours {
        let mut figures = [None; 3];
        figures[held] = Some(name);
        Ours::By { figures, held }
    }

    const fn flushed(os: &'static str, fsync: &'static str, held: usize) -> Ours {
        Ours::By { figures: [None, Some(os), Some(fsync)], held }
    }

    &[
        line(
            "local",
            "enqueue → reserve → ack, one by one, one thread",
            IN_PROCESS,
            PerSecond,
            all("ours.local.none", "ours.local.os", "ours.local.fsync", OS),
            None,
            Floor(400e3),
        ),
        line(
            "local",
            "  beside three bare writes of 256 B",
            IN_PROCESS,
            PerSecond,
            one(OS, "ours.local.os"),
            Some("raw.writes"),
            Shown,
        ),
        line(
            "local",
            "  as workers do it: acking one takes the next",
            IN_PROCESS,
            PerSecond,
            one(OS, "ours.local.next.os"),
            Some("raw.writes"),
            Shown,
        ),
        line(
            "local",
            "enqueue → reserve → ack, batches of 100, one thread",
            IN_PROCESS,
            PerSecond,
            all("ours.local.batch.none", "ours.local.batch.os", "ours.local.batch.fsync", OS),
            None,
            Floor(1.5e6),
        ),
        line(
            "commit",
            "16 producers, flushed records (enqueue)",
            IN_PROCESS,
            PerSecond,
            one(FSYNC, "ours.enqueue.16"),
            Some("raw.commit.16"),
            AtLeast(0.8),
        ),
        line(
            "commit",
            "  beside records of 128 B",
            IN_PROCESS,
            PerSecond,
            one(FSYNC, "ours.enqueue.16"),
            Some("raw.commit.16.small"),
            Shown,
        ),
        line(
            "commit",
            "16 × enqueue → reserve → ack, flushed records (2 a job)",
            IN_PROCESS,
            PerSecond,
            one(FSYNC, "ours.cycle.16"),
            Some("raw.commit.16"),
            AtLeast(0.8),
        ),
        line(
            "commit",
            "64 producers, flushed records (enqueue)",
            IN_PROCESS,
            PerSecond,
            one(FSYNC, "ours.enqueue.64"),
            Some("raw.commit.64"),
            AtLeast(0.8),
        ),
        line(
            "commit",
            "  beside records of 128 B",
            IN_PROCESS,
            PerSecond,
            one(FSYNC, "ours.enqueue.64"),
            Some("raw.commit.64.small"),
            Shown,
        ),
        line(
            "commit",
            "64 × enqueue → reserve → ack, flushed records (2 a job)",
            IN_PROCESS,
            PerSecond,
            one(FSYNC, "ours.cycle.64"),
            Some("raw.commit.64"),
            AtLeast(0.8),
        ),
        line(
            "session",
            "one client, pipelined by 100",
            SESSION,
            PerSecond,
            flushed("ours.session.os", "ours.session.fsync", OS),
            None,
            Floor(250e3),
        ),
        line(
            "session",
            "one client, one call after the other",
            SESSION,
            PerSecond,
            flushed("ours.session.single.os", "ours.session.single.fsync", OS),
            None,
            Shown,
        ),
        line(
            "python",
            "Python worker, no-op jobs; RQ, SimpleWorker",
            SESSION,
            PerSecond,
            one(OS, "ours.python.session"),
            Some("python.rq.simple"),
            AtLeast(30.0),
        ),
        line(
            "python",
            "  RQ, default worker (forks)",
            SESSION,
            PerSecond,
            one(OS, "ours.python.session"),
            Some("python.rq"),
            AtLeast(30.0),
        ),
        line(
            "python",
            "  huey on Redis",
            SESSION,
            PerSecond,
            one(OS, "ours.python.session"),
            Some("python.huey"),
            AtLeast(10.0),
        ),
        line(
            "python",
            "  litequeue (SQLite in its process)",
            IN_PROCESS,
            PerSecond,
            one(OS, "ours.python.local"),
            Some("python.litequeue"),
            AtLeast(3.0),
        ),
        line(
            "python",
            "  litequeue",
            SESSION,
            PerSecond,
            one(OS, "ours.python.session"),
            Some("python.litequeue"),
            Shown,
        ),
        line(
            "node",
            "Node worker, no-op jobs, concurrency 1; BullMQ",
            SESSION,
            PerSecond,
            one(OS, "ours.node.session.1"),
            Some("node.bullmq.1"),
            AtLeast(10.0),
        ),
        line(
            "node",
            "Node worker, no-op jobs, concurrency 50; BullMQ",
            SESSION,
            PerSecond,
            one(OS, "ours.node.session.50"),
            Some("node.bullmq.50"),
            AtLeast(10.0),
        ),
        line(
            "node",
            "  concurrency 1",
            IN_PROCESS,
            PerSecond,
            one(OS, "ours.node.local.1"),
            Some("node.bullmq.1"),
            Shown,
        ),
        line(
            "node",
            "  concurrency 50",
            IN_PROCESS,
            PerSecond,
            one(OS, "ours.node.local.50"),
            Some("node.bullmq.50"),
            Shown,
        ),
        line(
            "redis",
            "50 producers and 50 workers; Redis, 50 clients",
            IN_PROCESS,
            PerSecond,
            one(FSYNC, "ours.fifty.local"),
            Some("redis.always"),
            AtLeast(2.0),
        ),
        line(
            "redis",
            "  the workers in a client",
            SESSION,
            PerSecond,
            one(FSYNC, "ours.fifty.session"),
            Some("redis.always"),
            Shown,
        ),
        line(
            "waiting",
            "memory of a waiting job beside its payload",
            IN_PROCESS,
            BytesEach,
            one(OS, "ours.waiting.memory"),
            None,
            Ceiling(100.0),
        ),
        line(
            "waiting",
            "opening with 10 M waiting jobs",
            IN_PROCESS,
            Seconds,
            one(OS, "ours.waiting.recovery"),
            None,
            Ceiling(5.0),
        ),
        line(
            "latency",
            "enqueue → handler start, idle; a futex there and back",
            IN_PROCESS,
            Nanoseconds,
            one(OS, "ours.latency.local"),
            Some("raw.futex"),
            Ceiling(20e3),
        ),
        line(
            "latency",
            "  host → worker in a client",
            SESSION,
            Nanoseconds,
            one(OS, "ours.latency.session"),
            Some("raw.futex"),
            Ceiling(60e3),
        ),
        line(
            "latency",
            "  client → worker in another client",
            SESSION,
            Nanoseconds,
            one(OS, "ours.latency.clients"),
            Some("raw.futex"),
            Ceiling(60e3),
        ),
    ]
};
