//! The power goes between any two operations on the disk while queues are at work, and goes again while they are
//! being opened: every acknowledged change is there, no job is there twice or by half, none that was done comes back,
//! all content is what was enqueued, no lease of before is worth anything, and the queues always open.
//!
//! As `power_cuts.rs` does it with the ledger alone. `FLOWMESH_QUEUE_CUTS` sets how many, `FLOWMESH_SEED` repeats the
//! choices of a run.
#![forbid(unsafe_code)]

#[path = "support/cuts.rs"]
mod cuts;
#[path = "support/jobs.rs"]
mod jobs;
mod support;

use cuts::{Found, Promises, Record, Work};
use flowmesh::{
    Lsn,
    ledger::Planted,
    queue::Times,
    storage::sim::{Disk, SimStorage},
};
use jobs::{History, Host, START, config, later};
use std::sync::Arc;
use support::{Dice, number};

/// With those of `power_cuts.rs` half a million.
const CUTS: u64 = 60_000;
/// Ways taken at each boundary.
const IMAGES: u64 = 12;

#[test]
fn no_acknowledged_job_is_lost_or_done_twice() {
    let wanted = number("FLOWMESH_QUEUE_CUTS").unwrap_or(CUTS);
    cuts::nothing_is_lost::<Run>("queue power cuts", wanted, IMAGES);
}

#[test]
fn planted_mistakes_are_noticed() {
    cuts::mistakes_are_noticed::<Run>(100);
}

/// A workload that was run, and what it was told.
struct Run {
    record: Record,
    history: History,
    times: Times,
    segment_bytes: u32,
    planted: Option<Planted>,
}

/// What an opened disk may hold: the batches up to `limit` are those of the history; what comes after was written when
/// it was opened before, which changed nothing that can be told from opening it now.
#[derive(Clone, Copy)]
struct Expected {
    promised: Lsn,
    limit: Lsn,
}

impl Work for Run {
    fn run(seed: u64, planted: Option<Planted>) -> Self {
        let mut dice = Dice(seed);
        let storage = SimStorage::new();
        let mut run = Self {
            record: Record {
                timeline: storage.timeline(),
                flushed: Promises::new(),
                written: Promises::new(),
            },
            history: History::default(),
            times: START,
            segment_bytes: [4096, 8192, 16_384][dice.roll(3) as usize],
            planted,
        };
        for _ in 0..1 + dice.roll(3) {
            let (config, recent) = (config(run.segment_bytes, planted), dice.roll(2) as usize * (16 << 10));
            let opened = Host::open(Arc::new(storage.clone()), &config, run.times, dice.next(), recent);
            let (mut host, _) = opened.unwrap();
            host.declare().unwrap();
            run.note(&host, &storage, &mut dice);
            run.work(&mut host, &storage, &mut dice, 40);
            if dice.roll(2) == 0 {
                host.ledger.close().unwrap();
            }
            run.times = later(host.times, &mut dice);
        }
        run.record.timeline = storage.timeline();
        run
    }

    fn record(&self) -> &Record {
        &self.record
    }

    fn check(
        &self,
        disk: &Disk,
        promised: Lsn,
        dice: &mut Dice,
        found: &mut Found,
        depth: u32,
    ) -> Result<(), String> {
        self.check_until(disk, Expected { promised, limit: Lsn(u64::MAX) }, dice, found, depth)
    }
}

impl Run {
    fn work(&mut self, host: &mut Host, storage: &SimStorage, dice: &mut Dice, steps: u64) {
        for _ in 0..steps {
            host.step(dice).unwrap();
            self.note(host, storage, dice);
        }
    }

    fn note(&mut self, host: &Host, storage: &SimStorage, dice: &mut Dice) {
        self.history.note(host);
        self.record.written.push((storage.boundary(), host.last()));
        if dice.roll(3) == 0 {
            let lsn = host.sync().unwrap();
            self.record.flushed.push((storage.boundary(), lsn));
        }
    }

    /// As [`Work::check`].
    fn check_until(
        &self,
        disk: &Disk,
        expected: Expected,
        dice: &mut Dice,
        found: &mut Found,
        depth: u32,
    ) -> Result<(), String> {
        found.cuts += 1;
        let storage = SimStorage::with(disk);
        let (config, times) = (config(self.segment_bytes, self.planted), later(self.times, dice));
        let opened = Host::open(Arc::new(storage.clone()), &config, times, dice.next(), 0);
        let (mut host, recovery) = opened.map_err(|error| format!("does not open: {error}"))?;
        let opened = storage.timeline();
        let (last, Expected { promised, limit }) = (recovery.last, expected);
        if last < promised {
            return Err(format!("ends with batch {last}, {promised} was acknowledged"));
        }
        let limit = limit.min(last);
        self.history.check(&host, limit).map_err(|fault| format!("after batch {limit}: {fault}"))?;
        if depth == 0 {
            return Ok(());
        }
        cuts::cut_again(opened, dice, found, |disk, dice, found| {
            self.check_until(disk, Expected { promised, limit }, dice, found, depth - 1)
        })?;
        // And sometimes they go on, and nothing of what was cut may show behind what is written now.
        if dice.roll(8) == 0 && host.queues.names().len() == 3 {
            self.go_on(&mut host, &storage, Expected { promised, limit }, dice, found)?;
        }
        Ok(())
    }

    fn go_on(
        &self,
        host: &mut Host,
        storage: &SimStorage,
        Expected { promised, limit }: Expected,
        dice: &mut Dice,
        found: &mut Found,
    ) -> Result<(), String> {
        let boundary = storage.boundary();
        let mut further = Self {
            record: Record { flushed: vec![(0, promised)], written: Promises::new(), ..self.record.clone() },
            history: self.history.until(host, limit),
            times: host.times,
            segment_bytes: self.segment_bytes,
            planted: self.planted,
        };
        further.work(host, storage, dice, 4);
        further.times = host.times;
        cuts::cut_after(&further, storage, boundary, dice, found)
    }
}
