//! The power goes between any two operations of a workload on a simulated disk, which records what they do: at each
//! boundary many ways are taken in which the disk may be left, and each is opened and checked.
//!
//! What a workload does, and what must be there after a cut, its test says ([`Work`]).
#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part")]

use super::support::{Dice, seed};
use flowmesh::{
    Lsn,
    ledger::Planted,
    storage::sim::{Disk, SimStorage, Timeline},
};
use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
    time::Instant,
};

/// A workload that was run.
pub trait Work: Sized {
    /// Runs the one of this number.
    fn run(seed: u64, planted: Option<Planted>) -> Self;

    /// What it did to the disk.
    fn record(&self) -> &Record;

    /// Opens what a cut left, with more cuts on the way if `depth` allows; compares with the history.
    ///
    /// # Errors
    /// What is wrong, in words.
    fn check(
        &self,
        disk: &Disk,
        promised: Lsn,
        dice: &mut Dice,
        found: &mut Found,
        depth: u32,
    ) -> Result<(), String>;
}

/// By boundary: from there on the batches up to an LSN are promised.
pub type Promises = Vec<(usize, Lsn)>;

/// What a workload did, and what it was told.
#[derive(Clone)]
pub struct Record {
    pub timeline: Timeline,
    /// What is promised to survive a power cut.
    pub flushed: Promises,
    /// What is promised to survive the death of the process.
    pub written: Promises,
}

/// What came of the cuts.
#[derive(Default)]
pub struct Found {
    pub cuts: u64,
    pub nested: u64,
    pub fault: Option<String>,
}

/// How often the power goes again while it is being opened.
const DEPTH: u32 = 3;

/// Runs workloads until there were so many cuts, with `images` ways at each boundary.
pub fn nothing_is_lost<W: Work>(test: &str, wanted: u64, images: u64) {
    let seed = seed(test);
    let start = Instant::now();
    let (cuts, nested, workload) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while cuts.load(Relaxed) < wanted {
                    let number = workload.fetch_add(1, Relaxed);
                    let found = cut_everywhere::<W>(seed.wrapping_add(number), None, images);
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
        "{test}: {} in {} workloads ({} of them while opening), 0 acknowledged lost, 0 unopenable, {:.1} s",
        cuts.load(Relaxed),
        workload.load(Relaxed),
        nested.load(Relaxed),
        start.elapsed().as_secs_f64()
    );
}

/// Each planted mistake is found out by one of so many workloads.
pub fn mistakes_are_noticed<W: Work>(workloads: u64) {
    for planted in [Planted::AckBeforeFlush, Planted::CutOneTooMany] {
        let noticed = (0..workloads).find_map(|number| cut_everywhere::<W>(number, Some(planted), 4).fault);
        let fault = noticed.unwrap_or_else(|| panic!("{planted:?} was not noticed"));
        println!("{planted:?}: {fault}");
    }
}

fn cut_everywhere<W: Work>(seed: u64, planted: Option<Planted>, images: u64) -> Found {
    let run = W::run(seed, planted);
    let Record { timeline, flushed, written } = run.record();
    let (mut timeline, mut dice, mut found) = (timeline.clone(), Dice(seed ^ 0x5eed), Found::default());
    loop {
        let boundary = timeline.boundary();
        let (flushed, written) = (promised(flushed, boundary), promised(written, boundary));
        if let Err(fault) = run.check(&timeline.seen(), written, &mut dice, &mut found, 0) {
            found.fault = Some(format!("killed at boundary {boundary}: {fault}"));
            return found;
        }
        // Where nothing is on its way there is one way only.
        let images = if timeline.is_uncertain() { images } else { 1 };
        for _ in 0..images {
            let way = dice.next();
            if let Err(fault) = run.check(&timeline.cut(way), flushed, &mut dice, &mut found, DEPTH) {
                found.fault = Some(format!("cut at boundary {boundary} in way {way}: {fault}"));
                return found;
            }
        }
        if !timeline.advance() {
            return found;
        }
    }
}

/// The last batch that was promised by a boundary.
fn promised(promises: &[(usize, Lsn)], boundary: usize) -> Lsn {
    promises.iter().filter(|(at, _)| *at <= boundary).map(|(_, lsn)| *lsn).max().unwrap_or(Lsn::NONE)
}

/// Once in a while the power goes again while it is being opened; `opening` is the record of that.
///
/// # Errors
/// Those of `check`.
pub fn cut_again(
    mut opening: Timeline,
    dice: &mut Dice,
    found: &mut Found,
    check: impl FnOnce(&Disk, &mut Dice, &mut Found) -> Result<(), String>,
) -> Result<(), String> {
    if dice.roll(4) != 0 {
        return Ok(());
    }
    for _ in 0..dice.roll(opening.len() as u64 + 1) {
        opening.advance();
    }
    found.nested += 1;
    check(&opening.cut(dice.next()), dice, found)
        .map_err(|fault| format!("cut again at {} while opening: {fault}", opening.boundary()))
}

/// The power goes somewhere in what `further` did to `storage` since `boundary`.
///
/// # Errors
/// Those of [`Work::check`].
pub fn cut_after<W: Work>(
    further: &W,
    storage: &SimStorage,
    boundary: usize,
    dice: &mut Dice,
    found: &mut Found,
) -> Result<(), String> {
    let mut timeline = storage.timeline();
    let most = (timeline.len() - boundary) as u64 + 1;
    for _ in 0..boundary as u64 + dice.roll(most) {
        timeline.advance();
    }
    let promised = promised(&further.record().flushed, timeline.boundary());
    further
        .check(&timeline.cut(dice.next()), promised, dice, found, 0)
        .map_err(|fault| format!("went on and was cut again at {}: {fault}", timeline.boundary()))
}
