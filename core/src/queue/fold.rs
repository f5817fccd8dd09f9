//! What is read back when a directory is opened, until all of it is there.
#![forbid(unsafe_code)]

use super::{
    change::Change,
    entry::{self, Image},
    state::{Effects, QueueState},
    time::wall_at,
};
use crate::{
    clock::{Moment, Timestamp},
    error::{Error, ErrorKind, Result},
    ledger::{Entry, Lsn, Owner, Place},
};
use std::{collections::BTreeMap, sync::Arc};

/// The owners of entries that are queues'.
const OWNERS: std::ops::RangeInclusive<u32> = CLOCK_OWNER.0..=0x01ff_ffff;
/// Whose entries tell what the clocks showed.
pub(super) const CLOCK_OWNER: Owner = Owner(0x0100_0000);

/// Queues as they are read back; [`super::Queues::open`] makes them whole.
///
/// The mesh hands it what [`QueuesFold::owns`] says is ours, in the order in which the ledger feeds it.
#[derive(Debug)]
pub struct QueuesFold {
    /// By owner.
    pub(super) queues: BTreeMap<u32, (Arc<str>, QueueState)>,
    pub(super) last: Lsn,
    /// What the clocks showed when that was last written down.
    seen: Option<(Moment, Timestamp)>,
    seed: u64,
    effects: Effects,
    /// What does not follow is passed over; how often it was.
    passed_over: Option<u64>,
}

impl QueuesFold {
    /// Nothing yet. `seed` is any number that cannot be guessed.
    pub fn new(seed: u64) -> Self {
        Self {
            queues: BTreeMap::new(),
            last: Lsn::NONE,
            seen: None,
            seed,
            effects: Effects::default(),
            passed_over: None,
        }
    }

    /// As [`QueuesFold::new`], of a ledger that is repaired: batches before the ones that are fed may be missing. A queue
    /// whose declaration is among them is called `recovered-` and its owner's number, with settings as they are by
    /// default; a change of a job that is not there is passed over.
    pub fn repairing(seed: u64) -> Self {
        Self { passed_over: Some(0), ..Self::new(seed) }
    }

    /// Whether anything was passed over or made up, so that the entries as they are say something else.
    pub fn has_gaps(&self) -> bool {
        self.passed_over.is_some_and(|count| count > 0)
    }

    /// Whether entries and images of `owner` are queues'.
    pub fn owns(owner: Owner) -> bool {
        OWNERS.contains(&owner.0)
    }

    /// Takes a part of the checkpoint.
    ///
    /// # Errors
    /// - [`ErrorKind::Corrupt`]: it makes no sense.
    /// - [`ErrorKind::Unsupported`]: a newer version wrote it.
    pub fn image(&mut self, owner: Owner, lsn: Lsn, bytes: &[u8]) -> Result<()> {
        self.last = self.last.max(lsn);
        match entry::decode_image(bytes)? {
            Image::Clock(at, wall) => self.seen = Some((at, wall)),
            Image::Declare(name, config) => self.declare(owner, &name, *config),
            Image::Queue(image) => self.queue(owner, lsn)?.restore_queue(lsn, &image),
            Image::Jobs(images) => self.queue(owner, lsn)?.restore(lsn, &images),
        }
        Ok(())
    }

    /// Takes an entry.
    ///
    /// # Errors
    /// - [`ErrorKind::Corrupt`]: it makes no sense, or does not follow what was before it.
    /// - [`ErrorKind::Unsupported`]: a newer version wrote it.
    pub fn entry(&mut self, lsn: Lsn, place: Place, entry: Entry<'_>) -> Result<()> {
        self.last = self.last.max(lsn);
        let located = |error: Error| error.with("lsn", lsn).with("place", place).with("owner", entry.owner.0);
        if entry.kind == entry::CLOCK {
            self.seen = Some(entry::decode_clock(entry.bytes).map_err(located)?);
            return Ok(());
        }
        let change = entry::decode(entry.kind, entry.bytes).map_err(located)?;
        if let Change::Declare { name, config, .. } = &change {
            self.declare(entry.owner, name, (**config).clone());
        }
        let mut effects = std::mem::take(&mut self.effects);
        let applied = self.queue(entry.owner, lsn)?.apply(lsn, place, &change, &mut effects).map_err(located);
        effects.clear();
        self.effects = effects;
        match (applied, &mut self.passed_over) {
            (Err(error), Some(count)) if error.kind() == ErrorKind::Corrupt => {
                *count += 1;
                Ok(())
            }
            (applied, _) => applied,
        }
    }

    /// Names every place that is still referred to.
    pub fn kept(&mut self, keep: &mut dyn FnMut(Place)) {
        for (_, state) in self.queues.values() {
            state.places(keep);
        }
    }

    fn declare(&mut self, owner: Owner, name: &str, config: super::QueueConfig) {
        let seed = super::JobId(u128::from(self.seed)).mix(u64::from(owner.0));
        self.queues.entry(owner.0).or_insert_with(|| {
            let mut state = QueueState::new(config, seed);
            state.recover();
            (name.into(), state)
        });
    }

    fn queue(&mut self, owner: Owner, lsn: Lsn) -> Result<&mut QueueState> {
        if let Some(count) = &mut self.passed_over
            && !self.queues.contains_key(&owner.0)
        {
            *count += 1;
            self.declare(owner, &format!("recovered-{}", owner.0), super::QueueConfig::default());
        }
        match self.queues.get_mut(&owner.0) {
            Some((_, state)) => Ok(state),
            None => Err(Error::new(ErrorKind::Corrupt, "queue.recover")
                .with("what", "something of a queue that was not declared")
                .with("owner", owner.0)
                .with("lsn", lsn)),
        }
    }

    /// The latest times that were written: on the mesh's time line, and what the wall clock showed then.
    pub(super) fn last_seen(&self) -> Option<(Moment, Timestamp)> {
        let seen = self.seen?;
        let at = self.queues.values().map(|(_, state)| state.last_seen()).max().unwrap_or(seen.0).max(seen.0);
        Some((at, wall_at(at, seen)))
    }
}
