//! The power goes between any two operations on the disk while queues are at work, and goes again while they are
//! being opened: every acknowledged change is there, no job is there twice or by half, none that was done comes back,
//! all content is what was enqueued, no lease of before is worth anything, and the queues always open.
//!
//! As `power_cuts.rs` does it with the ledger alone. `FLOWMESH_QUEUE_CUTS` sets how many, `FLOWMESH_SEED` repeats the
//! choices of a run.
#![forbid(unsafe_code)]

#[path = "support/jobs.rs"]
mod jobs;
mod support;

use flowmesh::{
    Lsn,
    ledger::Planted,
    queue::Times,
    storage::sim::{Disk, SimStorage, Timeline},
};
use jobs::{History, Host, START, config, later};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Instant,
};
use support::{Dice, number, seed};

/// With those of `power_cuts.rs` half a million.
const CUTS: u64 = 60_000;
/// How often the power goes again while the queues are being opened.
const DEPTH: u32 = 3;
/// Ways taken at each boundary.
const IMAGES: u64 = 12;

#[test]
fn no_acknowledged_job_is_lost_or_done_twice() {
    let seed = seed("queue power cuts");
    let wanted = number("FLOWMESH_QUEUE_CUTS").unwrap_or(CUTS);
    let start = Instant::now();
    let (cuts, nested, workload) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while cuts.load(Relaxed) < wanted {
                    let number = workload.fetch_add(1, Relaxed);
                    let run = Run::new(seed.wrapping_add(number), None);
                    let found = run.cut_everywhere(seed.wrapping_add(number), IMAGES);
                    if let Some(fault) = found.fault {
                        panic!("workload {number} of FLOWMESH_SEED={seed}: {fault}");
                    }
                    cuts.fetch_add(found.cuts, Relaxed);
                    nested.fetch_add(found.nested, Relaxed);
                }
            });
        }
    });
    println!(
        "queue power cuts: {} in {} workloads ({} of them while opening), 0 acknowledged lost, 0 unopenable, {:.1} s",
        cuts.load(Relaxed),
        workload.load(Relaxed),
        nested.load(Relaxed),
        start.elapsed().as_secs_f64()
    );
}

#[test]
fn planted_mistakes_are_noticed() {
    for planted in [Planted::AckBeforeFlush, Planted::CutOneTooMany] {
        let noticed =
            (0..100).find_map(|number| Run::new(number, Some(planted)).cut_everywhere(number, 4).fault);
        let fault = noticed.unwrap_or_else(|| panic!("{planted:?} was not noticed"));
        println!("{planted:?}: {fault}");
    }
}

/// A workload that was run, and what it was told.
struct Run {
    timeline: Timeline,
    history: History,
    /// By boundary: from there on the batches up to an LSN are promised, to survive a power cut.
    flushed: Vec<(usize, Lsn)>,
    /// The same, to survive the death of the process.
    written: Vec<(usize, Lsn)>,
    times: Times,
    segment_bytes: u32,
    planted: Option<Planted>,
}

#[derive(Default)]
struct Found {
    cuts: u64,
    nested: u64,
    fault: Option<String>,
}

/// What an opened disk may hold: the batches up to `limit` are those of the history; what comes after was written when
/// it was opened before, which changed nothing that can be told from opening it now.
#[derive(Clone, Copy)]
struct Expected {
    promised: Lsn,
    limit: Lsn,
}

impl Run {
    fn new(seed: u64, planted: Option<Planted>) -> Self {
        let mut dice = Dice(seed);
        let storage = SimStorage::new();
        let mut run = Self {
            timeline: storage.timeline(),
            history: History::default(),
            flushed: Vec::new(),
            written: Vec::new(),
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
        run.timeline = storage.timeline();
        run
    }

    fn work(&mut self, host: &mut Host, storage: &SimStorage, dice: &mut Dice, steps: u64) {
        for _ in 0..steps {
            host.step(dice).unwrap();
            self.note(host, storage, dice);
        }
    }

    fn note(&mut self, host: &Host, storage: &SimStorage, dice: &mut Dice) {
        self.history.note(host);
        self.written.push((storage.boundary(), host.last()));
        if dice.roll(3) == 0 {
            let lsn = host.sync().unwrap();
            self.flushed.push((storage.boundary(), lsn));
        }
    }

    /// The last batch that was promised by a boundary.
    fn promised(promises: &[(usize, Lsn)], boundary: usize) -> Lsn {
        promises.iter().filter(|(at, _)| *at <= boundary).map(|(_, lsn)| *lsn).max().unwrap_or(Lsn::NONE)
    }

    fn cut_everywhere(&self, seed: u64, images: u64) -> Found {
        let (mut timeline, mut dice, mut found) =
            (self.timeline.clone(), Dice(seed ^ 0x5eed), Found::default());
        loop {
            let boundary = timeline.boundary();
            let expected =
                |promises| Expected { promised: Self::promised(promises, boundary), limit: Lsn(u64::MAX) };
            let killed = self.check(&timeline.seen(), expected(&self.written), &mut dice, &mut found, 0);
            if let Err(fault) = killed {
                found.fault = Some(format!("killed at boundary {boundary}: {fault}"));
                return found;
            }
            // Where nothing is on its way there is one way only.
            let images = if timeline.is_uncertain() { images } else { 1 };
            for _ in 0..images {
                let way = dice.next();
                let cut =
                    self.check(&timeline.cut(way), expected(&self.flushed), &mut dice, &mut found, DEPTH);
                if let Err(fault) = cut {
                    found.fault = Some(format!("cut at boundary {boundary} in way {way}: {fault}"));
                    return found;
                }
            }
            if !timeline.advance() {
                return found;
            }
        }
    }

    /// Opens what a cut left, with more cuts on the way; compares with the history.
    fn check(
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
        // Once in a while the power goes again while they are being opened.
        if dice.roll(4) == 0 {
            let mut timeline = opened;
            for _ in 0..dice.roll(timeline.len() as u64 + 1) {
                timeline.advance();
            }
            found.nested += 1;
            self.check(&timeline.cut(dice.next()), Expected { promised, limit }, dice, found, depth - 1)
                .map_err(|fault| format!("cut again at {} while opening: {fault}", timeline.boundary()))?;
        }
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
            timeline: self.timeline.clone(),
            history: self.history.until(host, limit),
            flushed: vec![(0, promised)],
            written: Vec::new(),
            times: host.times,
            segment_bytes: self.segment_bytes,
            planted: self.planted,
        };
        further.work(host, storage, dice, 4);
        further.times = host.times;
        let mut timeline = storage.timeline();
        let most = (timeline.len() - boundary) as u64 + 1;
        for _ in 0..boundary as u64 + dice.roll(most) {
            timeline.advance();
        }
        let promised = Self::promised(&further.flushed, timeline.boundary());
        let expected = Expected { promised, limit: Lsn(u64::MAX) };
        further
            .check(&timeline.cut(dice.next()), expected, dice, found, 0)
            .map_err(|fault| format!("went on and was cut again at {}: {fault}", timeline.boundary()))
    }
}
