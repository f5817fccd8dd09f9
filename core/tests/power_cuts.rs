//! The power goes between any two operations on the disk, and goes again while the ledger is being opened: every
//! acknowledged batch is there with the same bytes, none is there by half, and the ledger always opens.
//!
//! Workloads of several kinds run on a simulated disk that records what they do. At each boundary many ways are taken
//! in which the disk may be left; each is opened and compared with the history. `FLOWMESH_CUTS` sets how many,
//! `FLOWMESH_SEED` repeats the choices of a run.
#![forbid(unsafe_code)]

#[path = "support/cuts.rs"]
mod cuts;
#[path = "support/store.rs"]
mod store;
mod support;

use cuts::{Found, Promises, Record, Work};
use flowmesh::{
    ErrorKind, Lsn,
    clock::Moment,
    ledger::Planted,
    storage::sim::{Disk, SimStorage},
};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
};
use store::{Change, Held, History, Store, config, states};
use support::{Dice, number};

/// With those of `queue_power_cuts.rs` half a million.
const CUTS: u64 = 450_000;
/// Ways taken at each boundary.
const IMAGES: u64 = 24;

#[test]
fn nothing_acknowledged_is_lost_and_every_cut_opens() {
    cuts::nothing_is_lost::<Run>("power cuts", number("FLOWMESH_CUTS").unwrap_or(CUTS), IMAGES);
}

#[test]
fn planted_mistakes_are_noticed() {
    cuts::mistakes_are_noticed::<Run>(200);
}

/// A workload that was run, and what it was told.
struct Run {
    record: Record,
    history: History,
    states: Vec<Held>,
    segment_bytes: u32,
    planted: Option<Planted>,
}

impl Work for Run {
    fn run(seed: u64, planted: Option<Planted>) -> Self {
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
        let (flushed, written) = (flushed.into_inner().unwrap(), written.into_inner().unwrap());
        Self {
            record: Record { timeline: storage.timeline(), flushed, written },
            states: states(&history),
            history,
            segment_bytes,
            planted,
        }
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
        cuts::cut_again(storage.timeline(), dice, found, |disk, dice, found| {
            self.check(disk, promised, dice, found, depth - 1)
        })?;
        // And sometimes it goes on, and nothing of what was cut may show behind what is written now.
        if dice.roll(8) == 0 {
            self.go_on(&store, &storage, promised, dice, found)?;
        }
        Ok(())
    }
}

impl Run {
    fn go_on(
        &self,
        store: &Store,
        storage: &SimStorage,
        promised: Lsn,
        dice: &mut Dice,
        found: &mut Found,
    ) -> Result<(), String> {
        let (mut flushed, opened) = (vec![(0, promised)], storage.boundary());
        for number in 0..1 + dice.roll(3) {
            let put = Change::Put { key: dice.roll(8), value: (1 << 40) + dice.roll(1 << 20) * 8 + number };
            let lsn = store.write(&[put]).map_err(|error| error.to_string())?;
            if dice.roll(2) == 0 {
                store.sync(lsn).map_err(|error| error.to_string())?;
                flushed.push((storage.boundary(), lsn));
            }
        }
        let history = store.history();
        let further = Self {
            record: Record { timeline: storage.timeline(), flushed, written: Promises::new() },
            states: states(&history),
            history,
            segment_bytes: self.segment_bytes,
            planted: self.planted,
        };
        cuts::cut_after(&further, storage, opened, dice, found)
    }
}

struct Worker<'a> {
    store: &'a Store,
    storage: &'a SimStorage,
    flushed: &'a Mutex<Promises>,
    written: &'a Mutex<Promises>,
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
