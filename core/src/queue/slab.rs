//! Values in places that stay put, and jobs' places by id.
//!
//! Both grow in steps that cost little at a time however much there is: places come in chunks, so nothing is
//! ever copied to a larger room, and ids are spread over tables that grow one by one.
#![forbid(unsafe_code)]

use super::job::JobId;
use hashbrown::{
    HashTable,
    hash_table::{Entry, VacantEntry},
};

/// Values by a number that is theirs while they are here.
#[derive(Debug)]
pub(super) struct Slab<T> {
    chunks: Vec<Vec<T>>,
    free: Vec<u32>,
    len: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), free: Vec::new(), len: 0 }
    }
}

/// No place.
pub(super) const NONE: u32 = u32::MAX;
const CHUNK_BITS: u32 = 12;
const CHUNK: usize = 1 << CHUNK_BITS;

impl<T: Default> Slab<T> {
    /// How many values are here.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Places that were ever used: all numbers are below.
    pub(super) fn end(&self) -> u32 {
        match self.chunks.split_last() {
            Some((last, full)) => (full.len() * CHUNK + last.len()) as u32,
            None => 0,
        }
    }

    /// The number of a place that is free, for `value`.
    #[inline]
    pub(super) fn insert(&mut self, value: T) -> u32 {
        self.len += 1;
        if let Some(slot) = self.free.pop() {
            *self.get_mut(slot) = value;
            return slot;
        }
        if self.chunks.last().is_none_or(|last| last.len() == CHUNK) {
            // The first chunk grows as it fills: a small queue is small.
            let room = if self.chunks.is_empty() { 0 } else { CHUNK };
            self.chunks.push(Vec::with_capacity(room));
        }
        let slot = self.end();
        assert!(slot < NONE, "four billion jobs do not fit in memory");
        self.chunks.last_mut().expect("one was just made sure of").push(value);
        slot
    }

    /// The value at a place in use; its place is free then.
    #[inline]
    pub(super) fn remove(&mut self, slot: u32) -> T {
        self.len -= 1;
        let value = std::mem::take(self.get_mut(slot));
        self.free.push(slot);
        if self.len == 0 && self.chunks.len() > 1 {
            // A burst is over: its memory is given back.
            *self = Self::default();
        }
        value
    }

    #[inline]
    pub(super) fn get(&self, slot: u32) -> &T {
        &self.chunks[slot as usize >> CHUNK_BITS][slot as usize & (CHUNK - 1)]
    }

    #[inline]
    pub(super) fn get_mut(&mut self, slot: u32) -> &mut T {
        &mut self.chunks[slot as usize >> CHUNK_BITS][slot as usize & (CHUNK - 1)]
    }

    /// What it takes in memory.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let values: usize = self.chunks.iter().map(|chunk| chunk.capacity() * size_of::<T>()).sum();
        values + self.chunks.capacity() * size_of::<Vec<T>>() + self.free.capacity() * size_of::<u32>()
    }
}

/// Slots by job id.
#[derive(Debug)]
pub(super) struct Ids {
    tables: Box<[HashTable<Known>; TABLES]>,
    seed: u64,
}

/// A slot, and half of its id's hash: tables grow, and other ids are passed over, without a look at jobs, which lie
/// anywhere in memory.
#[derive(Clone, Copy, Debug)]
struct Known {
    slot: u32,
    hash: u32,
}

impl Known {
    /// What its table goes by: the low bits for the place, the high ones for the tag.
    #[inline]
    fn spread(hash: u32) -> u64 {
        u64::from(hash) << 32 | u64::from(hash)
    }
}

/// Where an id is to be noted.
pub(super) struct Vacancy<'a> {
    place: VacantEntry<'a, Known>,
    hash: u32,
}

impl Vacancy<'_> {
    /// Notes it.
    #[inline]
    pub(super) fn fill(self, slot: u32) {
        self.place.insert(Known { slot, hash: self.hash });
    }
}

/// A table of ten million ids grows for half a second, one of so many for a millisecond.
const TABLES: usize = 256;

impl Ids {
    /// Empty. The seed keeps chosen ids from meeting in one place.
    pub(super) fn new(seed: u64) -> Self {
        Self { tables: Box::new(std::array::from_fn(|_| HashTable::new())), seed }
    }

    /// Which table, and the hash in it: different bits.
    ///
    /// Ids that a clock made within 32 ms share a table: who comes and goes in order, as jobs do, then stays in a
    /// part of memory that the processor's cache holds, be there ten million.
    #[inline]
    fn locate(&self, id: JobId) -> (usize, u32) {
        let hash = id.mix(self.seed);
        let is_timed = id.0 >> 76 & 15 == 7;
        let table = if is_timed { (id.0 >> 85) as u64 } else { hash >> 40 };
        (table as usize % TABLES, hash as u32)
    }

    /// The slot of `id`.
    #[inline]
    pub(super) fn find(&self, id: JobId, id_of: impl Fn(u32) -> JobId) -> Option<u32> {
        let (table, hash) = self.locate(id);
        let is_it = |known: &Known| known.hash == hash && id_of(known.slot) == id;
        self.tables[table].find(Known::spread(hash), is_it).map(|known| known.slot)
    }

    /// The slot of an id, or where it is to be noted.
    #[inline]
    pub(super) fn entry(&mut self, id: JobId, id_of: impl Fn(u32) -> JobId) -> Result<u32, Vacancy<'_>> {
        let (table, hash) = self.locate(id);
        let is_it = |known: &Known| known.hash == hash && id_of(known.slot) == id;
        let rehash = |known: &Known| Known::spread(known.hash);
        match self.tables[table].entry(Known::spread(hash), is_it, rehash) {
            Entry::Occupied(known) => Ok(known.get().slot),
            Entry::Vacant(place) => Err(Vacancy { place, hash }),
        }
    }

    /// Adds an id that is not there.
    #[inline]
    pub(super) fn insert(&mut self, id: JobId, slot: u32) {
        let (table, hash) = self.locate(id);
        let rehash = |known: &Known| Known::spread(known.hash);
        self.tables[table].insert_unique(Known::spread(hash), Known { slot, hash }, rehash);
    }

    /// Takes an id out.
    #[inline]
    pub(super) fn remove(&mut self, id: JobId, slot: u32) {
        let (table, hash) = self.locate(id);
        let table = &mut self.tables[table];
        if let Ok(entry) = table.find_entry(Known::spread(hash), |known| known.slot == slot) {
            entry.remove();
        }
        if table.is_empty() && table.capacity() > 1024 {
            *table = HashTable::new();
        }
    }

    /// What it takes in memory.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let tables: usize = self.tables.iter().map(HashTable::allocation_size).sum();
        tables + size_of_val(&*self.tables)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_stay_and_are_used_again() {
        let mut slab = Slab::default();
        let slots: Vec<u32> = (0..10_000u64).map(|value| slab.insert(value)).collect();
        assert_eq!((slab.len(), slab.end()), (10_000, 10_000));
        for (value, slot) in (0..).zip(&slots) {
            assert_eq!(*slab.get(*slot), value);
        }
        assert_eq!(slab.remove(17), 17);
        assert_eq!(slab.insert(99), 17);
        assert_eq!(slab.end(), 10_000);
        for slot in slots {
            slab.remove(slot);
        }
        assert_eq!((slab.len(), slab.end()), (0, 0), "memory is given back");
        assert_eq!(slab.insert(1), 0);
    }

    #[test]
    fn ids_are_found_until_they_are_removed() {
        let ids_of: Vec<JobId> = (0..50_000u128).map(|id| JobId((id * id) << 40)).collect();
        let id_of = |slot: u32| ids_of[slot as usize];
        let mut ids = Ids::new(3);
        for (slot, id) in (0..).zip(&ids_of) {
            assert_eq!(ids.find(*id, id_of), None);
            ids.insert(*id, slot);
        }
        for (slot, id) in (0..).zip(&ids_of) {
            assert_eq!(ids.find(*id, id_of), Some(slot));
            if slot % 2 == 0 {
                ids.remove(*id, slot);
            }
        }
        for (slot, id) in (0..).zip(&ids_of) {
            assert_eq!(ids.find(*id, id_of), (slot % 2 == 1).then_some(slot));
        }
        assert!(ids.bytes() < 50_000 * 23);
    }
}
