//! Every call of a workload on a simulated disk fails, once and for ever, in every way; the machine is sound again
//! then, and what is left is opened: as it is, and as a power cut leaves it.
//!
//! What a workload does, and what must be there afterwards, its test says ([`Work`]).
#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part")]

use super::support::seed;
use flowmesh::{
    Error, ErrorKind, Lsn,
    storage::sim::{Failure, Fault, SimStorage},
};

const FAILURES: [Failure; 4] = [Failure::Io, Failure::Full, Failure::Short, Failure::Interrupted];

/// A workload that was run on a disk that may fail, until something was wrong.
pub trait Work {
    /// Runs it.
    fn run(storage: &SimStorage, seed: u64) -> Self;

    /// How it ended.
    fn ended(&self) -> &Ended;

    /// Opens what is there, and panics if it is not what it should be.
    fn opens(&self, storage: &SimStorage, what: &str);
}

/// How a workload ended.
#[derive(Default)]
pub struct Ended {
    /// Whether it could be opened at all.
    pub opened: bool,
    /// The last batch that was acknowledged.
    pub acknowledged: Lsn,
    /// What ended it.
    pub error: Option<Error>,
    /// How often there was no room.
    pub refused: u32,
}

impl Ended {
    /// What was acknowledged is there if all up to `last` is.
    pub fn is_kept(&self, last: Lsn, what: &str) {
        assert!(
            last >= self.acknowledged,
            "{} was acknowledged, ends with {last}: {what}",
            self.acknowledged
        );
    }
}

/// How many runs must at least have ended so, for the test to be one.
#[derive(Clone, Copy)]
pub struct AtLeast {
    pub frozen: u32,
    pub full: u32,
    pub unopened: u32,
}

/// Runs so many workloads for each call that can fail; opens what each left as it is, and cut in `ways`.
pub fn every_call_fails<W: Work>(test: &str, workloads: u64, ways: u64, least: AtLeast) {
    let seed = seed(test);
    let (mut runs, mut frozen, mut full, mut unopened) = (0, 0, 0, 0);
    for workload in 0..workloads {
        let seed = seed.wrapping_add(workload);
        for failure in FAILURES {
            let calls = {
                let storage = SimStorage::new();
                let run = W::run(&storage, seed);
                let error = &run.ended().error;
                assert!(error.is_none(), "without a failure there is no error: {error:?}");
                storage.calls(failure)
            };
            assert!(calls > 20, "{failure:?} could befall {calls} calls only");
            for at in 0..calls {
                for for_ever in [false, true] {
                    let storage = SimStorage::new();
                    storage.fail(Fault { failure, at, for_ever });
                    let run = W::run(&storage, seed);
                    let what =
                        format!("{failure:?} at call {at}, for ever: {for_ever}, FLOWMESH_SEED={seed}");
                    assert!(storage.fired() > 0, "nothing failed: {what}");
                    check(&run, &storage, failure, for_ever, ways, &what);
                    let Ended { error, refused, opened, .. } = run.ended();
                    runs += 1;
                    frozen +=
                        u32::from(error.as_ref().is_some_and(|error| error.kind() == ErrorKind::Frozen));
                    full += u32::from(*refused > 0);
                    unopened += u32::from(!opened);
                }
            }
        }
    }
    println!(
        "{test}: {runs} runs, {frozen} froze, {full} were full, {unopened} could not open; 0 acknowledged lost"
    );
    assert!(frozen > least.frozen && full > least.full && unopened > least.unopened);
}

/// The machine is sound again: opens what is there, as it is and after a power cut.
fn check<W: Work>(run: &W, storage: &SimStorage, failure: Failure, for_ever: bool, ways: u64, what: &str) {
    let Ended { error, refused, .. } = run.ended();
    if matches!(failure, Failure::Short) || failure == Failure::Interrupted && !for_ever {
        assert!(error.is_none() && *refused == 0, "no error but to go on: {what}: {error:?}");
    }
    storage.heal();
    let mut timeline = storage.timeline();
    while timeline.advance() {}
    run.opens(storage, what);
    for way in 0..ways {
        run.opens(&SimStorage::with(&timeline.cut(way)), &format!("{what}, cut in way {way}"));
    }
}
