//! Group commit: of all who wait for the disk one leads, and its flush serves everybody whose batch was written
//! before it began. The next leader is one of those who came later.

use super::Lsn;
use crate::{
    clock::Moment,
    error::{Error, ErrorKind, Result},
};
use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicU64, Ordering};

/// How far the journal is flushed, and who sees to it.
pub(super) struct Commit {
    flushed: AtomicU64,
    leading: Mutex<bool>,
    moved: Condvar,
    /// When a flush is due whoever waits.
    due: AtomicU64,
    wake: Mutex<Option<Box<dyn Fn() + Send + Sync>>>,
}

impl Commit {
    pub(super) fn new(flushed: Lsn) -> Self {
        Self {
            flushed: AtomicU64::new(flushed.0),
            leading: Mutex::new(false),
            moved: Condvar::new(),
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
    /// good, `flush` flushes what was written until now and says how far that is.
    pub(super) fn reach(
        &self,
        lsn: Lsn,
        check: impl Fn() -> Result<()>,
        flush: impl FnOnce() -> Result<Lsn>,
    ) -> Result<()> {
        if self.flushed() >= lsn {
            return Ok(());
        }
        let mut leading = self.leading.lock();
        loop {
            if self.flushed() >= lsn {
                return Ok(());
            }
            check()?;
            if !*leading {
                break;
            }
            self.moved.wait(&mut leading);
        }
        *leading = true;
        drop(leading);
        let lead = Lead(self);
        let reached = flush()?;
        self.flushed.fetch_max(reached.0, Ordering::AcqRel);
        drop(lead);
        if reached < lsn {
            let error = Error::new(ErrorKind::InvalidArgument, "journal.flush");
            return Err(error.with("lsn", lsn).with("written", reached));
        }
        Ok(())
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
struct Lead<'a>(&'a Commit);

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        *self.0.leading.lock() = false;
        self.0.moved.notify_all();
    }
}
