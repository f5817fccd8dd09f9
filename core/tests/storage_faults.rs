//! Every call on the disk fails, once and for ever, in every way: nothing is acknowledged that is not kept, an error
//! freezes the ledger or, where the disk is full, goes away with its cause; and what was acknowledged is there when
//! the ledger is opened again, with the cache of before or after a power cut.
#![forbid(unsafe_code)]

#[path = "support/faults.rs"]
mod faults;
#[path = "support/store.rs"]
mod store;
mod support;

use faults::{AtLeast, Ended, Work};
use flowmesh::{
    ErrorKind, Lsn,
    clock::Moment,
    storage::sim::{Failure, Fault, SimStorage},
};
use std::sync::Arc;
use store::{Change, Held, History, Store, apply, config, states};
use support::Dice;

const SEGMENT_BYTES: u32 = 2048;

#[test]
fn every_call_fails_once_and_for_ever() {
    let least = AtLeast { frozen: 100, full: 10, unopened: 10 };
    faults::every_call_fails::<Run>("storage faults", 3, 8, least);
}

#[test]
fn writing_resumes_when_there_is_room_again() {
    for at in 0..40 {
        let storage = SimStorage::new();
        let (store, _) = Store::open(Arc::new(storage.clone()), &config(SEGMENT_BYTES, None), &[]).unwrap();
        let put = |value| [Change::Put { key: value % 5, value }];
        let from = storage.calls(Failure::Full) + at;
        storage.fail(Fault { failure: Failure::Full, at: from, for_ever: true });
        let (mut value, mut refused) = (1, 0);
        while refused < 3 {
            match store.write(&put(value)) {
                Ok(lsn) => store.sync(lsn).unwrap(),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
                    assert!(error.is_retryable());
                    refused += 1;
                }
            }
            value += 1;
        }
        assert_eq!(store.differs(states(&store.history()).last().unwrap()), None, "reads go on");
        storage.heal();
        for value in value..value + 40 {
            let lsn = store.write(&put(value)).unwrap();
            store.sync(lsn).unwrap();
        }
        let history = store.history();
        drop(store);
        let (again, recovery) =
            Store::open(Arc::new(storage.clone()), &config(SEGMENT_BYTES, None), &history).unwrap();
        assert_eq!((recovery.last.0 as usize, recovery.cut), (history.len(), None));
        assert_eq!(again.differs(states(&history).last().unwrap()), None);
    }
}

/// One workload on a disk that may fail, until something is wrong.
#[derive(Default)]
struct Run {
    ended: Ended,
    history: History,
    /// The batch whose writing failed, so that nobody knows whether it is there.
    unknown: Option<Vec<Change>>,
}

impl Work for Run {
    fn run(storage: &SimStorage, seed: u64) -> Self {
        let mut run = Self::default();
        let mut dice = Dice(seed);
        let mut value = 0;
        for _ in 0..2 {
            let opened = Store::open(Arc::new(storage.clone()), &config(SEGMENT_BYTES, None), &run.history);
            let store = match opened {
                Ok((store, recovery)) => {
                    assert_eq!(recovery.last.0, run.history.len() as u64, "{recovery:?}");
                    store
                }
                Err(error) => {
                    run.ended.error = Some(error);
                    return run;
                }
            };
            run.ended.opened = true;
            for _ in 0..30 {
                run.step(&store, &mut dice, &mut value);
                run.history = store.history();
                if run.ended.error.is_some() {
                    run.is_over(&store);
                    return run;
                }
            }
        }
        run
    }

    fn ended(&self) -> &Ended {
        &self.ended
    }

    fn opens(&self, storage: &SimStorage, what: &str) {
        let opened = Store::open(Arc::new(storage.clone()), &config(SEGMENT_BYTES, None), &self.history);
        let (store, recovery) = opened.unwrap_or_else(|error| panic!("does not open after {what}: {error}"));
        let last = recovery.last;
        self.ended.is_kept(last, what);
        let states = states(&self.history);
        let expected: Held = match states.get(last.0 as usize) {
            Some(state) => state.clone(),
            None => {
                // Only the batch of which nobody knows may be there on top.
                assert_eq!(last.0 as usize, states.len(), "{what}");
                let mut state = states[states.len() - 1].clone();
                apply(&mut state, self.unknown.as_ref().unwrap_or_else(|| panic!("a phantom: {what}")));
                state
            }
        };
        if let Some(difference) = store.differs(&expected) {
            panic!("after batch {last}: {difference}: {what}");
        }
        let lsn = store.write(&[Change::Put { key: 1, value: 1 << 50 }]).expect("it is sound again");
        store.sync(lsn).expect("it is sound again");
    }
}

impl Run {
    fn step(&mut self, store: &Store, dice: &mut Dice, value: &mut u64) {
        let roll = dice.roll(12);
        let done = match roll {
            0 => store.checkpoint(|_| ()),
            1 => store.clean().map(drop),
            2 => {
                store.ledger.tend(Moment(0));
                // What it flushes for nobody has nobody to tell of a failure.
                store.ledger.frozen().map_or(Ok(()), Err)
            }
            _ => {
                *value += 1;
                let key = dice.roll(6);
                let change = if dice.roll(3) == 0 {
                    Change::Delete { key }
                } else {
                    Change::Put { key, value: *value }
                };
                match store.write(&[change]) {
                    Ok(lsn) if dice.roll(2) == 0 => {
                        let synced = store.sync(lsn);
                        if synced.is_ok() {
                            self.ended.acknowledged = lsn;
                        }
                        synced
                    }
                    Err(error) if error.kind() == ErrorKind::Frozen => {
                        self.unknown = Some(vec![change]);
                        Err(error)
                    }
                    written => written.map(drop),
                }
            }
        };
        let Err(error) = done else { return };
        match error.kind() {
            ErrorKind::StorageFull => self.ended.refused += 1,
            // What a checkpoint or cleaning could not read or write hurts nobody; the ledger is as it was.
            ErrorKind::Io | ErrorKind::Interrupted if roll < 2 => {}
            _ => {
                // Cleaning writes batches too; they change nothing that can be seen.
                self.unknown = self.unknown.take().or((roll == 1).then(Vec::new));
                self.ended.error = Some(error);
            }
        }
    }

    /// Once it is frozen it is for good; reads go on as far as the disk lets them.
    fn is_over(&self, store: &Store) {
        let error = self.ended.error.as_ref().expect("it was found");
        assert_eq!(error.kind(), ErrorKind::Frozen, "{error}");
        assert_eq!(store.ledger.frozen().expect("it stays frozen").kind(), ErrorKind::Frozen);
        for _ in 0..3 {
            let refused =
                store.write(&[Change::Delete { key: 1 }]).expect_err("nothing is acknowledged any more");
            assert_eq!(refused.kind(), ErrorKind::Frozen);
        }
        let last = Lsn(store.history().len() as u64);
        assert!(
            store.sync(last).is_err()
                || self.ended.acknowledged >= last
                || store.ledger.status().flushed >= last
        );
        assert_eq!(store.checkpoint(|_| ()).unwrap_err().kind(), ErrorKind::Frozen);
    }
}
