//! Who matches the subjects that were asked for lately.
//!
//! One cell per hash of a subject: a colliding subject takes the cell over, its memory included. A cell
//! counts only while the table it was made from has not changed.
#![forbid(unsafe_code)]

use super::{Slot, hash::Seed};

/// The matches of hot subjects.
#[derive(Debug, Default)]
pub(super) struct Routes {
    seed: Seed,
    /// Empty until first used, then [`CELLS`].
    cells: Vec<Option<Box<Route>>>,
    last: usize,
    /// Slots all cells have room for.
    slot_count: usize,
}

/// Everyone who matches one subject.
#[derive(Debug, Default)]
pub(super) struct Route {
    version: u64,
    subject: String,
    /// Those without a group, in the order they are served.
    pub(super) alone: Vec<Slot>,
    /// Those in groups, one group behind the other.
    pub(super) members: Vec<Slot>,
    /// Where each group ends in `members`.
    pub(super) group_ends: Vec<usize>,
}

pub(super) const CELLS: usize = 4096;
/// Room for this many slots may be kept; beyond it the cache starts anew.
const SLOTS_MAX: usize = 1 << 20;

impl Routes {
    /// The route of `subject`, found or made by `fill`.
    #[inline]
    pub(super) fn get(&mut self, subject: &str, version: u64, fill: impl FnOnce(&mut Route)) -> &Route {
        if !self.is(self.last, subject, version) {
            self.last = self.seed.hash(subject.as_bytes()) as usize % CELLS;
            if !self.is(self.last, subject, version) {
                self.refill(subject, version, fill);
            }
        }
        self.cells[self.last].as_ref().expect("the cell was compared or filled just now")
    }

    #[inline]
    fn is(&self, cell: usize, subject: &str, version: u64) -> bool {
        matches!(self.cells.get(cell), Some(Some(route)) if route.version == version && route.subject == subject)
    }

    fn refill(&mut self, subject: &str, version: u64, fill: impl FnOnce(&mut Route)) {
        if self.cells.is_empty() || self.slot_count > SLOTS_MAX {
            self.cells.clear();
            self.cells.resize_with(CELLS, || None);
            self.slot_count = 0;
        }
        let route = self.cells[self.last].get_or_insert_default();
        self.slot_count -= route.room();
        route.version = version;
        route.subject.clear();
        route.subject.push_str(subject);
        route.alone.clear();
        route.members.clear();
        route.group_ends.clear();
        fill(route);
        self.slot_count += route.room();
    }
}

impl Route {
    fn room(&self) -> usize {
        self.alone.capacity() + self.members.capacity()
    }
}
