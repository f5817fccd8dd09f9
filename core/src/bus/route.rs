//! Who matches the subjects that were asked for lately.
//!
//! One cell per hash of a subject. A subject that is asked for twice before another of its cell takes the
//! cell over, its memory included; what is asked for once leaves all the others in their cells, and in the
//! processor's caches. A cell counts only while the table it was made from has not changed.
#![forbid(unsafe_code)]

use super::{Slot, hash::Seed};

/// The matches of hot subjects.
#[derive(Debug, Default)]
pub(super) struct Routes {
    seed: Seed,
    /// Empty until first used, then [`CELLS`].
    cells: Vec<Cell>,
    last: usize,
    /// Slots all cells have room for.
    slot_count: usize,
    /// The route of a subject that has no cell.
    passing: Route,
}

#[derive(Debug, Default)]
struct Cell {
    /// From the hash of the subject that this cell is of, and from that of the last one without a cell.
    held: u32,
    asked: u32,
    route: Option<Box<Route>>,
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
            let hash = self.seed.hash(subject.as_bytes());
            let (index, tag) = (hash as usize % CELLS, (hash >> 32) as u32);
            if self.cells.is_empty() || self.slot_count > SLOTS_MAX {
                self.cells.clear();
                self.cells.resize_with(CELLS, Cell::default);
                self.slot_count = 0;
            }
            if self.cells[index].held != tag || !self.is(index, subject, version) {
                let cell = &mut self.cells[index];
                if cell.asked != tag {
                    cell.asked = tag;
                    self.passing.clear();
                    fill(&mut self.passing);
                    return &self.passing;
                }
                cell.held = tag;
                let route = cell.route.get_or_insert_default();
                self.slot_count -= route.room();
                route.clear();
                route.version = version;
                route.subject.push_str(subject);
                fill(route);
                self.slot_count += route.room();
            }
            self.last = index;
        }
        self.cells[self.last].route.as_ref().expect("the cell was compared or filled just now")
    }

    #[inline]
    fn is(&self, cell: usize, subject: &str, version: u64) -> bool {
        matches!(self.cells.get(cell), Some(Cell { route: Some(route), .. })
            if route.version == version && route.subject == subject)
    }
}

impl Route {
    fn clear(&mut self) {
        self.subject.clear();
        self.alone.clear();
        self.members.clear();
        self.group_ends.clear();
    }

    fn room(&self) -> usize {
        self.alone.capacity() + self.members.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks for `subject` and says whether it had to be filled.
    fn asked(routes: &mut Routes, subject: &str, version: u64) -> bool {
        let mut filled = false;
        let route = routes.get(subject, version, |route| {
            filled = true;
            route.alone.push(Slot(subject.len() as u32));
        });
        assert_eq!(route.alone, [Slot(subject.len() as u32)]);
        filled
    }

    #[test]
    fn what_is_asked_for_once_displaces_nothing() {
        let mut routes = Routes::default();
        let cell = |subject: &str| routes.seed.hash(subject.as_bytes()) as usize % CELLS;
        let passing =
            (0..).map(|n| format!("passing{n}")).find(|passing| cell(passing) == cell("hot")).unwrap();
        assert_eq!([0; 4].map(|_| asked(&mut routes, "hot", 1)), [true, true, false, false]);
        assert!(asked(&mut routes, &passing, 1), "never asked for before");
        assert!(!asked(&mut routes, "hot", 1), "still there");
        assert!(asked(&mut routes, &passing, 1), "the second time it takes the cell over");
        assert!(!asked(&mut routes, &passing, 1) && asked(&mut routes, "hot", 1));
        assert!(asked(&mut routes, &passing, 2), "of another version nothing counts");
    }
}
