//! Segments that are hardly needed any more, and those that are not needed at all.
//!
//! A segment goes when no checkpoint that counts needs it for replay, nothing in it is referred to, and the batches
//! that made it so are flushed: after a power cut nobody may want it again.

use super::{Entry, Ledger, Lsn, Place, Shared, each_entry};
use crate::{error::Result, journal::Segment};
use std::sync::Arc;

/// A segment with little that is kept, to be cleaned by one at a time.
pub struct Cleanable {
    ledger: Ledger,
    segment: Arc<Segment>,
}

impl Cleanable {
    /// The number of the segment.
    pub fn segment(&self) -> u32 {
        self.segment.number
    }

    /// Shows every entry that was written as kept, whether it is still referred to or not: who refers to it
    /// writes it again and releases this place.
    ///
    /// # Errors
    /// `Corrupt`, `Io`, and what `see` gives.
    pub fn entries(&self, mut see: impl FnMut(Place, Entry<'_>) -> Result<()>) -> Result<()> {
        let number = self.segment.number;
        self.ledger.shared.journal.batches(&self.segment, |offset, payload| {
            each_entry(payload, |at, found| {
                if found.kept {
                    see(Place::new(number, offset + at, found.size), found.entry)
                } else {
                    Ok(())
                }
            })
        })
    }
}

impl Drop for Cleanable {
    fn drop(&mut self) {
        self.ledger.shared.cleaning.lock().remove(&self.segment.number);
    }
}

/// The segment of which the least is kept, if that is little enough and replay does not need it.
pub(super) fn choose(ledger: &Ledger) -> Option<Cleanable> {
    let shared = &ledger.shared;
    let begin = shared.checkpoints.lock().last()?.begin;
    let mut cleaning = shared.cleaning.lock();
    let percent = u64::from(shared.config.clean_percent);
    let segment = shared
        .journal
        .segments()
        .into_iter()
        .filter(|segment| segment.last().is_some_and(|last| last <= begin))
        .filter(|segment| segment.kept() > 0 && segment.kept() * 100 <= u64::from(segment.bytes) * percent)
        .filter(|segment| !cleaning.contains(&segment.number))
        .min_by_key(|segment| segment.kept())?;
    cleaning.insert(segment.number);
    Some(Cleanable { ledger: ledger.clone(), segment })
}

/// Removes the segments that nothing needs.
pub(super) fn sweep(shared: &Shared) {
    let Some(oldest) = oldest_begin(shared) else { return };
    let dead: Vec<u32> = shared
        .journal
        .segments()
        .iter()
        .filter(|segment| segment.last().is_some_and(|last| last <= oldest) && segment.kept() == 0)
        .map(|segment| segment.number)
        .collect();
    // What was written until now is why they are dead.
    if dead.is_empty() || shared.journal.flush(shared.journal.last()).is_err() {
        return;
    }
    for number in dead {
        // One that cannot be removed now is dead the next time too.
        let _ = shared.journal.remove(number);
    }
}

/// Where replay from the oldest checkpoint that counts begins, once there are two.
fn oldest_begin(shared: &Shared) -> Option<Lsn> {
    let checkpoints = shared.checkpoints.lock();
    (checkpoints.len() >= super::CHECKPOINTS_KEPT).then(|| checkpoints[0].begin)
}
