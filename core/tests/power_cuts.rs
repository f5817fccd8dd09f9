//! The power goes between any two operations on the disk, and goes again while the ledger is being opened: every
//! acknowledged batch is there with the same bytes, none is there by half, and the ledger always opens.
//!
//! Workloads of several kinds run on a simulated disk that records what they do. At each boundary many ways are taken
//! in which the disk may be left; each is opened and compared with the history. `FLOWMESH_CUTS` sets how many,
//! `FLOWMESH_SEED` repeats the choices of a run.
#![forbid(unsafe_code)]

#[path = "support/store.rs"]
mod store;
mod support;

use flowmesh::{
    ErrorKind, Lsn,
    clock::Moment,
    ledger::Planted,
    storage::sim::{Disk, SimStorage, Timeline},
};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Instant,
};
use store::{Change, Held, History, Store, config, states};
use support::{Dice, number, seed};

/// With those of `queue_power_cuts.rs` half a million.
const CUTS: u64 = 450_000;
/// How often the power goes again while the ledger is being opened.
const DEPTH: u32 = 3;

#[test]
fn nothing_acknowledged_is_lost_and_every_cut_opens() {
    let seed = seed("power cuts");
    let wanted = number("FLOWMESH_CUTS").unwrap_or(CUTS);
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
        "power cuts: {} in {} workloads ({} of them while opening), 0 acknowledged lost, 0 unopenable, {:.1} s",
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
            (0..200).find_map(|number| Run::new(number, Some(planted)).cut_everywhere(number, 4).fault);
        let fault = noticed.unwrap_or_else(|| panic!("{planted:?} was not noticed"));
        println!("{planted:?}: {fault}");
    }
}

/// Ways taken at each boundary.
const IMAGES: u64 = 24;

/// A workload that was run, and what it was told.
struct Run {
    timeline: Timeline,
    history: History,
    states: Vec<Held>,
    /// By boundary: from there on the batches up to an LSN are promised, to survive a power cut.
    flushed: Vec<(usize, Lsn)>,
    /// The same, to survive the death of the process.
    written: Vec<(usize, Lsn)>,
    segment_bytes: u32,
    planted: Option<Planted>,
}

#[derive(Default)]
struct Found {
    cuts: u64,
    nested: u64,
    fault: Option<String>,
}

impl Run {
    fn new(seed: u64, planted: Option<Planted>) -> Self {
        let mut dice = Dice(seed);
        let segment_bytes = [2048, 4096, 8192][dice.roll(3) as usize];
        let storage = SimStorage::new();
        let (flushed, written) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
        let mut history = History::new();
        let next_value = AtomicU64::new(1);
        for _ in 0..1 + dice.roll(3) {
            let (store, recovery) =
                Store::open(Arc::new(storage.clone()), &config(segment_bytes, planted), &history).unwrap();
            assert_eq!(recovery.last.0, history.len() as u64, "nothing happened to what was written");
            let writers = [1, 1, 3][dice.roll(3) as usize];
            let steps = 40 / writers;
            thread::scope(|scope| {
                for writer in 0..writers {
                    let mut dice = Dice(dice.next());
                    let (store, storage, flushed, written, next_value) =
                        (&store, &storage, &flushed, &written, &next_value);
                    scope.spawn(move || {
                        let mut worker =
                            Worker { store, storage, flushed, written, next_value, writer, writers };
                        (0..steps).for_each(|_| worker.step(&mut dice));
                    });
                }
            });
            if dice.roll(2) == 0 {
                store.ledger.close().unwrap();
            }
            history = store.history();
        }
        Self {
            timeline: storage.timeline(),
            states: states(&history),
            history,
            flushed: flushed.into_inner().unwrap(),
            written: written.into_inner().unwrap(),
            segment_bytes,
            planted,
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
            let (flushed, written) =
                (Self::promised(&self.flushed, boundary), Self::promised(&self.written, boundary));
            if let Err(fault) = self.check(&timeline.seen(), written, &mut dice, &mut found, 0) {
                found.fault = Some(format!("killed at boundary {boundary}: {fault}"));
                return found;
            }
            // Where nothing is on its way there is one way only.
            let images = if timeline.is_uncertain() { images } else { 1 };
            for _ in 0..images {
                let way = dice.next();
                if let Err(fault) = self.check(&timeline.cut(way), flushed, &mut dice, &mut found, DEPTH) {
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
        promised: Lsn,
        dice: &mut Dice,
        found: &mut Found,
        depth: u32,
    ) -> Result<(), String> {
        found.cuts += 1;
        let storage = SimStorage::with(disk);
        let config = config(self.segment_bytes, self.planted);
        let opened = Store::open(Arc::new(storage.clone()), &config, &self.history);
        let (store, recovery) = opened.map_err(|error| format!("does not open: {error}"))?;
        let last = recovery.last;
        if last < promised {
            return Err(format!("ends with batch {last}, {promised} was acknowledged"));
        }
        let expected =
            self.states.get(last.0 as usize).ok_or_else(|| format!("batch {last} was never written"))?;
        if let Some(difference) = store.differs(expected) {
            return Err(format!("after batch {last}: {difference}"));
        }
        if depth == 0 {
            return Ok(());
        }
        // Once in a while the power goes again while it is being opened.
        if dice.roll(4) == 0 {
            let mut timeline = storage.timeline();
            for _ in 0..dice.roll(timeline.len() as u64 + 1) {
                timeline.advance();
            }
            found.nested += 1;
            self.check(&timeline.cut(dice.next()), promised, dice, found, depth - 1)
                .map_err(|fault| format!("cut again at {} while opening: {fault}", timeline.boundary()))?;
        }
        // And sometimes it goes on, and nothing of what was cut may show behind what is written now.
        if dice.roll(8) == 0 {
            self.go_on(&store, &storage, promised, dice, found)?;
        }
        Ok(())
    }

    fn go_on(
        &self,
        store: &Store,
        storage: &SimStorage,
        promised: Lsn,
        dice: &mut Dice,
        found: &mut Found,
    ) -> Result<(), String> {
        let (mut acknowledged, opened) = (vec![(0, promised)], storage.boundary());
        for number in 0..1 + dice.roll(3) {
            let put = Change::Put { key: dice.roll(8), value: (1 << 40) + dice.roll(1 << 20) * 8 + number };
            let lsn = store.write(&[put]).map_err(|error| error.to_string())?;
            if dice.roll(2) == 0 {
                store.sync(lsn).map_err(|error| error.to_string())?;
                acknowledged.push((storage.boundary(), lsn));
            }
        }
        let mut timeline = storage.timeline();
        while timeline.boundary() < opened {
            timeline.advance();
        }
        for _ in 0..dice.roll((timeline.len() - opened) as u64 + 1) {
            timeline.advance();
        }
        let promised = Self::promised(&acknowledged, timeline.boundary());
        let disk = timeline.cut(dice.next());
        let history = store.history();
        let further = Self {
            timeline,
            states: states(&history),
            history,
            flushed: Vec::new(),
            written: Vec::new(),
            segment_bytes: self.segment_bytes,
            planted: self.planted,
        };
        further
            .check(&disk, promised, dice, found, 0)
            .map_err(|fault| format!("went on and was cut again at {}: {fault}", further.timeline.boundary()))
    }
}

struct Worker<'a> {
    store: &'a Store,
    storage: &'a SimStorage,
    flushed: &'a Mutex<Vec<(usize, Lsn)>>,
    written: &'a Mutex<Vec<(usize, Lsn)>>,
    next_value: &'a AtomicU64,
    writer: u64,
    writers: u64,
}

impl Worker<'_> {
    fn step(&mut self, dice: &mut Dice) {
        match dice.roll(20) {
            0 => {
                let made = self.store.checkpoint(|_| {
                    if dice.roll(2) == 0 {
                        self.write(dice);
                    }
                });
                assert!(made.is_ok() || made.is_err_and(|error| error.kind() == ErrorKind::AlreadyExists));
            }
            1 => drop(self.store.clean().unwrap()),
            2 => drop(self.store.ledger.tend(Moment(0))),
            _ => self.write(dice),
        }
    }

    fn write(&self, dice: &mut Dice) {
        let changes: Vec<Change> = (0..1 + dice.roll(3))
            .map(|_| {
                let key = dice.roll(6) * self.writers + self.writer;
                let value = self.next_value.fetch_add(1, Relaxed);
                if dice.roll(3) == 0 { Change::Delete { key } } else { Change::Put { key, value } }
            })
            .collect();
        let lsn = match self.store.write(&changes) {
            // Three large values are more than a small segment holds.
            Err(error) if error.kind() == ErrorKind::TooLarge => return,
            written => written.unwrap(),
        };
        self.written.lock().unwrap().push((self.storage.boundary(), lsn));
        if dice.roll(2) == 0 {
            self.store.sync(lsn).unwrap();
            self.flushed.lock().unwrap().push((self.storage.boundary(), lsn));
        }
    }
}
