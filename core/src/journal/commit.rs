//! Group commit: of all who wait for the disk one leads, and its flush serves everybody whose batch was written
//! before it began. The next leader is one of those who came later.
//!
//! Who is not served by the flush under way waits for the next one apart from those who are: when a flush ends it wakes
//! those it served, and of the others one, to lead. Waking all of them cost each a second wake-up for every batch.

use super::Lsn;
use crate::sync::lock::{Condvar, Mutex};
use crate::{
    clock::Moment,
    error::{Error, ErrorKind, Result},
};
use std::sync::atomic::{AtomicU64, Ordering};

/// How far the journal is flushed, and who sees to it.
pub(super) struct Commit {
    flushed: AtomicU64,
    turn: Mutex<Turn>,
    /// Who waits for flushes with an even number, and who for those with an odd one: no more than two groups wait.
    waiting: [Condvar; 2],
    /// When a flush is due whoever waits.
    due: AtomicU64,
    wake: Mutex<Option<Box<dyn Fn() + Send + Sync>>>,
}

struct Turn {
    /// A flush is under way.
    leading: bool,
    /// Its number, or that of the last one.
    number: u64,
    /// The last batch that it serves; none until it has begun.
    covers: Lsn,
}

impl Commit {
    pub(super) fn new(flushed: Lsn) -> Self {
        Self {
            flushed: AtomicU64::new(flushed.0),
            turn: Mutex::new(Turn { leading: false, number: 0, covers: Lsn::NONE }),
            waiting: [Condvar::new(), Condvar::new()],
            due: AtomicU64::new(Moment::NEVER.0),
            wake: Mutex::new(None),
        }
    }

    /// The last batch known to be flushed.
    pub(super) fn flushed(&self) -> Lsn {
        // Acquire: pairs with the leader's release; what it flushed happened before.
        Lsn(self.flushed.load(Ordering::Acquire))
    }

    /// Returns once the batch of `lsn`, which was written, is flushed. `check` says whether flushing is over for
    /// good; `flush` tells how far it will get, flushes what was written until then, and says how far that is.
    pub(super) fn reach(
        &self,
        lsn: Lsn,
        check: impl Fn() -> Result<()>,
        flush: impl FnOnce(&dyn Fn(Lsn)) -> Result<Lsn>,
    ) -> Result<()> {
        if self.flushed() >= lsn {
            return Ok(());
        }
        let mut turn = self.turn.lock();
        let mut waited_for = None;
        loop {
            if self.flushed() >= lsn {
                // Woken to lead, and need not: another has to, if there is one.
                if waited_for == Some(turn.number + 1) && !turn.leading {
                    self.waiting_for(turn.number + 1).notify_one();
                }
                return Ok(());
            }
            if let Err(error) = check() {
                // Nobody leads any more; all find the same.
                for waiting in &self.waiting {
                    waiting.notify_all();
                }
                return Err(error);
            }
            if !turn.leading {
                break;
            }
            let number = if lsn <= turn.covers { turn.number } else { turn.number + 1 };
            waited_for = Some(number);
            self.waiting_for(number).wait(&mut turn);
        }
        turn.leading = true;
        turn.number += 1;
        turn.covers = Lsn::NONE;
        drop(turn);
        let mut lead = Lead { commit: self, failed: true };
        let reached = flush(&|covers| self.turn.lock().covers = covers)?;
        self.flushed.fetch_max(reached.0, Ordering::AcqRel);
        lead.failed = false;
        drop(lead);
        if reached < lsn {
            let error = Error::new(ErrorKind::InvalidArgument, "journal.flush");
            return Err(error.with("lsn", lsn).with("written", reached));
        }
        Ok(())
    }

    fn waiting_for(&self, number: u64) -> &Condvar {
        &self.waiting[(number & 1) as usize]
    }

    /// A flush is wanted by `due`.
    pub(super) fn flush_by(&self, due: Moment) {
        if self.due.fetch_min(due.0, Ordering::AcqRel) > due.0
            && let Some(wake) = &*self.wake.lock()
        {
            wake();
        }
    }

    /// Something other than a flush is to be done.
    pub(super) fn poke(&self) {
        if let Some(wake) = &*self.wake.lock() {
            wake();
        }
    }

    pub(super) fn on_due(&self, wake: impl Fn() + Send + Sync + 'static) {
        *self.wake.lock() = Some(Box::new(wake));
    }

    /// Whether a flush is due now; it is not any more then.
    pub(super) fn take_due(&self, now: Moment) -> bool {
        let due = self.due.load(Ordering::Acquire);
        // Another may have moved it earlier, and will be seen next time.
        due <= now.0
            && self.due.compare_exchange(due, Moment::NEVER.0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    pub(super) fn due(&self) -> Option<Moment> {
        let due = self.due.load(Ordering::Acquire);
        (due != Moment::NEVER.0).then_some(Moment(due))
    }
}

/// Lets the next one lead when it ends, however it ends.
struct Lead<'a> {
    commit: &'a Commit,
    failed: bool,
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        let mut turn = self.commit.turn.lock();
        turn.leading = false;
        // Who leads next goes first: the disk is not to wait until all the others are up.
        let next = self.commit.waiting_for(turn.number + 1);
        if self.failed {
            next.notify_all();
        } else {
            next.notify_one();
        }
        self.commit.waiting_for(turn.number).notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::{Arc, mpsc},
        thread,
        time::Duration,
    };

    fn broken<T>() -> Result<T> {
        Err(Error::new(ErrorKind::Frozen, "test"))
    }

    /// Many write and wait for the disk. Every flush is as slow as `slow` says; the one of number `fails` fails, and all
    /// after it. How many flushes there were, and how many waits ended well and with an error.
    fn many_wait(threads: u64, rounds: u64, slow: fn(u64), fails: u64) -> (u64, u64, u64) {
        let commit = Arc::new(Commit::new(Lsn::NONE));
        let [written, flushes] = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
        let (told, ended) = mpsc::channel();
        for _ in 0..threads {
            let (commit, written, flushes) = (commit.clone(), written.clone(), flushes.clone());
            let told = told.clone();
            thread::spawn(move || {
                let check = || if flushes.load(Ordering::SeqCst) > fails { broken() } else { Ok(()) };
                for _ in 0..rounds {
                    let lsn = Lsn(written.fetch_add(1, Ordering::SeqCst) + 1);
                    let reached = commit.reach(lsn, check, |began| {
                        let last = Lsn(written.load(Ordering::SeqCst));
                        began(last);
                        let number = flushes.fetch_add(1, Ordering::SeqCst);
                        slow(number);
                        if number >= fails { broken() } else { Ok(last) }
                    });
                    assert!(reached.is_err() || commit.flushed() >= lsn, "{lsn} is not flushed");
                    told.send(reached.is_ok()).unwrap();
                }
            });
        }
        let (mut well, mut ill) = (0, 0);
        for _ in 0..threads * rounds {
            match ended.recv_timeout(Duration::from_secs(60)).expect("somebody is never woken") {
                true => well += 1,
                false => ill += 1,
            }
        }
        (flushes.load(Ordering::SeqCst), well, ill)
    }

    #[test]
    fn everybody_is_served_and_flushes_are_shared() {
        for (threads, rounds, slow) in [
            (2, 2000, (|_| {}) as fn(u64)),
            (8, 1000, |_| thread::yield_now()),
            (32, 100, |_| thread::sleep(Duration::from_micros(50))),
            (16, 300, |number| {
                if number % 7 == 0 {
                    thread::sleep(Duration::from_micros(300));
                }
            }),
        ] {
            let (flushes, well, ill) = many_wait(threads, rounds, slow, u64::MAX);
            assert_eq!((well, ill), (threads * rounds, 0));
            assert!(flushes <= well, "{flushes} flushes for {well}");
        }
        // With slow flushes most are shared.
        let (flushes, well, _) = many_wait(16, 20, |_| thread::sleep(Duration::from_millis(5)), u64::MAX);
        assert!(flushes * 2 < well, "{flushes} flushes for {well}");
    }

    #[test]
    fn who_is_woken_to_lead_and_need_not_wakes_another() {
        let commit = Arc::new(Commit::new(Lsn::NONE));
        let (told, ended) = mpsc::channel();
        commit
            .reach(
                Lsn(9),
                || Ok(()),
                |began| {
                    // They come before the flush has said how far it gets, so they wait for the next; it serves them all.
                    for lsn in 1..=8 {
                        let (commit, told) = (commit.clone(), told.clone());
                        thread::spawn(move || {
                            let reached =
                                commit.reach(Lsn(lsn), || Ok(()), |_| panic!("there is nothing to flush"));
                            told.send(reached.is_ok()).unwrap();
                        });
                    }
                    thread::sleep(Duration::from_millis(100));
                    began(Lsn(9));
                    Ok(Lsn(9))
                },
            )
            .unwrap();
        for _ in 0..8 {
            assert!(ended.recv_timeout(Duration::from_secs(60)).expect("somebody is never woken"));
        }
    }

    #[test]
    fn a_flush_that_fails_is_told_to_everybody() {
        for fails in [0, 1, 5, 20] {
            let slow = |_| thread::sleep(Duration::from_micros(200));
            let (_, well, ill) = many_wait(16, 20, slow, fails);
            assert_eq!(well + ill, 320);
            assert!(ill > 0 && (fails > 0 || well == 0), "{fails}: {well} {ill}");
        }
    }
}
