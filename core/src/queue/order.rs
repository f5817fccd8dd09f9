//! Slots in order of a key: the index of which job is first, at four bytes a job.
//!
//! A run of sorted blocks. A block holds slots alone; keys are asked of whoever keeps the jobs, so a search costs
//! as many looks at jobs as a block takes halvings. Adding behind everything else, which is what a queue does,
//! takes one look and leaves blocks full; taking the first takes none.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

/// What slots are ordered by, word by word. No two slots of one order have the same.
pub(super) type Key = [u64; 3];

/// Slots in order of their keys.
#[derive(Debug, Default)]
pub(super) struct Order {
    blocks: VecDeque<Block>,
    len: usize,
}

#[derive(Debug)]
struct Block {
    /// No key of this block is below, none of the blocks before is at or above.
    least: Key,
    /// What lies before was taken.
    head: u32,
    slots: Vec<u32>,
}

impl Block {
    fn live(&self) -> &[u32] {
        &self.slots[self.head as usize..]
    }

    fn is_full(&self) -> bool {
        self.live().len() >= BLOCK_SLOTS
    }

    /// Makes room at the end by giving up what was taken at the front.
    fn settle(&mut self) {
        self.slots.drain(..self.head as usize);
        self.head = 0;
    }

    fn push(&mut self, slot: u32) {
        if self.slots.len() >= BLOCK_SLOTS {
            self.settle();
        }
        self.slots.push(slot);
    }

    fn insert(&mut self, index: usize, slot: u32) {
        if index == 0 && self.head > 0 {
            self.head -= 1;
            self.slots[self.head as usize] = slot;
            return;
        }
        if self.slots.len() >= BLOCK_SLOTS {
            self.settle();
        }
        self.slots.insert(self.head as usize + index, slot);
    }
}

impl Order {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The one with the least key.
    #[inline]
    pub(super) fn first(&self) -> Option<u32> {
        self.blocks.front().and_then(|block| block.live().first().copied())
    }

    /// Adds a slot that is not there.
    #[inline]
    pub(super) fn insert(&mut self, slot: u32, key: Key, key_of: impl Fn(u32) -> Key) {
        self.len += 1;
        let behind = match self.blocks.back_mut() {
            None => true,
            Some(last) => {
                let after = last.live().last().is_none_or(|found| key_of(*found) < key);
                if after && !last.is_full() {
                    last.push(slot);
                    return;
                }
                after
            }
        };
        if behind {
            self.blocks.push_back(Block { least: key, head: 0, slots: vec![slot] });
        } else {
            self.insert_within(slot, key, key_of);
        }
    }

    fn insert_within(&mut self, slot: u32, key: Key, key_of: impl Fn(u32) -> Key) {
        let index = self.blocks.partition_point(|block| block.least <= key).saturating_sub(1);
        let block = &mut self.blocks[index];
        let at = block.live().partition_point(|found| key_of(*found) < key);
        if !block.is_full() {
            block.least = block.least.min(key);
            block.insert(at, slot);
            return;
        }
        if at == block.live().len() {
            // Behind a full block: the next one takes it, or a new one, so that runs leave full blocks behind.
            match self.blocks.get_mut(index + 1) {
                Some(next) if !next.is_full() => {
                    next.least = key;
                    next.insert(0, slot);
                }
                _ => self.blocks.insert(index + 1, Block { least: key, head: 0, slots: vec![slot] }),
            }
            return;
        }
        block.settle();
        let mut upper = Vec::with_capacity(BLOCK_SLOTS);
        upper.extend_from_slice(&block.slots[BLOCK_SLOTS / 2..]);
        block.slots.truncate(BLOCK_SLOTS / 2);
        let mut upper = Block { least: key_of(upper[0]), head: 0, slots: upper };
        if at > BLOCK_SLOTS / 2 {
            upper.insert(at - BLOCK_SLOTS / 2, slot);
        } else {
            block.least = block.least.min(key);
            block.insert(at, slot);
        }
        self.blocks.insert(index + 1, upper);
    }

    /// Takes a slot out; whether it was there.
    #[inline]
    pub(super) fn remove(&mut self, slot: u32, key: Key, key_of: impl Fn(u32) -> Key) -> bool {
        let Some(front) = self.blocks.front_mut() else { return false };
        if front.live().first() == Some(&slot) {
            front.head += 1;
            self.len -= 1;
            if front.live().is_empty() {
                self.blocks.pop_front();
            }
            return true;
        }
        self.remove_within(slot, key, key_of)
    }

    fn remove_within(&mut self, slot: u32, key: Key, key_of: impl Fn(u32) -> Key) -> bool {
        let index = self.blocks.partition_point(|block| block.least <= key).saturating_sub(1);
        let block = &mut self.blocks[index];
        let at = block.live().partition_point(|found| key_of(*found) < key);
        if block.live().get(at) != Some(&slot) {
            return false;
        }
        if at == 0 {
            block.head += 1;
        } else {
            let at = block.head as usize + at;
            block.slots.remove(at);
        }
        self.len -= 1;
        if block.live().is_empty() {
            self.blocks.remove(index);
        } else if block.live().len() <= BLOCK_SLOTS / 8 {
            self.join(index);
        }
        true
    }

    /// Joins a small block with the one behind it if both fit one easily.
    fn join(&mut self, index: usize) {
        let Some(next) = self.blocks.get(index + 1) else { return };
        if self.blocks[index].live().len() + next.live().len() > BLOCK_SLOTS / 2 {
            return;
        }
        let next = self.blocks.remove(index + 1).expect("it was just looked at");
        let block = &mut self.blocks[index];
        block.settle();
        block.slots.extend_from_slice(next.live());
    }

    /// All from the first whose key is at or above `from`, in order.
    pub(super) fn from(&self, from: Key, key_of: impl Fn(u32) -> Key) -> impl Iterator<Item = u32> {
        let index = self.blocks.partition_point(|block| block.least <= from).saturating_sub(1);
        let skip = self
            .blocks
            .get(index)
            .map_or(0, |block| block.live().partition_point(|found| key_of(*found) < from));
        let first = self.blocks.get(index).into_iter().flat_map(move |block| &block.live()[skip..]);
        first.chain(self.blocks.iter().skip(index + 1).flat_map(Block::live)).copied()
    }

    /// All, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        self.blocks.iter().flat_map(Block::live).copied()
    }

    /// One of these slots, in any order.
    pub(super) fn build(mut slots: Vec<u32>, key_of: impl Fn(u32) -> Key) -> Self {
        if !slots.is_sorted_by_key(|slot| key_of(*slot)) {
            // With their keys beside them: each job is looked at once.
            let mut keyed: Vec<(Key, u32)> = slots.iter().map(|slot| (key_of(*slot), *slot)).collect();
            keyed.sort_unstable();
            slots.clear();
            slots.extend(keyed.into_iter().map(|(_, slot)| slot));
        }
        let blocks = slots.chunks(BLOCK_SLOTS).map(|slots| Block {
            least: key_of(slots[0]),
            head: 0,
            slots: slots.to_vec(),
        });
        Self { blocks: blocks.collect(), len: slots.len() }
    }

    /// What it takes in memory.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let slots: usize = self.blocks.iter().map(|block| block.slots.capacity() * size_of::<u32>()).sum();
        self.blocks.capacity() * size_of::<Block>() + slots
    }
}

/// Slots of a full block: what moves when one is added in the middle takes one kibibyte.
const BLOCK_SLOTS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn check(order: &Order, model: &BTreeMap<Key, u32>, keys: &[Key]) {
        assert_eq!(order.len(), model.len());
        assert!(order.iter().eq(model.values().copied()));
        assert_eq!(order.first(), model.values().next().copied());
        for pair in order.blocks.iter().zip(order.blocks.iter().skip(1)) {
            assert!(!pair.0.live().is_empty() && !pair.1.live().is_empty());
            assert!(keys[*pair.0.live().last().unwrap() as usize] < pair.1.least);
            assert!(pair.1.least <= keys[pair.1.live()[0] as usize]);
        }
    }

    proptest! {
        #[test]
        fn behaves_like_a_sorted_map(
            steps in proptest::collection::vec((0u8..10, any::<u32>()), 1..1500), spread in 1u64..4000,
        ) {
            let (mut order, mut model, mut keys) = (Order::default(), BTreeMap::new(), Vec::<Key>::new());
            for (step, (kind, number)) in steps.into_iter().enumerate() {
                match kind {
                    0..2 if !model.is_empty() => {
                        let nth = number as usize % model.len();
                        let (&key, &slot) = model.iter().nth(nth).unwrap();
                        prop_assert!(order.remove(slot, key, |slot| keys[slot as usize]));
                        model.remove(&key);
                        prop_assert!(!order.remove(slot, key, |slot| keys[slot as usize]));
                    }
                    2 if !model.is_empty() => {
                        let slot = order.first().unwrap();
                        prop_assert!(order.remove(slot, keys[slot as usize], |slot| keys[slot as usize]));
                        model.pop_first();
                    }
                    _ => {
                        // Runs at several ends, as several priorities make them, and some anywhere.
                        let lane = u64::from(number) % 3;
                        let key = [lane, if kind < 8 { step as u64 } else { u64::from(number) % spread }, step as u64];
                        let slot = keys.len() as u32;
                        keys.push(key);
                        order.insert(slot, key, |slot| keys[slot as usize]);
                        model.insert(key, slot);
                    }
                }
            }
            check(&order, &model, &keys);
            let from = [1, spread / 2, 0];
            let wanted: Vec<u32> = model.range(from..).map(|(_, slot)| *slot).collect();
            prop_assert!(order.from(from, |slot| keys[slot as usize]).eq(wanted));
            let mut slots: Vec<u32> = model.values().copied().collect();
            slots.sort_unstable();
            check(&Order::build(slots, |slot| keys[slot as usize]), &model, &keys);
        }
    }

    #[test]
    fn a_run_leaves_full_blocks_and_little_memory() {
        let mut order = Order::default();
        for slot in 0..1_000_000u32 {
            // Four priorities in turn: four runs, three of which are not at the end.
            order.insert(slot, [u64::from(slot % 4), u64::from(slot), 0], |slot| {
                [u64::from(slot % 4), u64::from(slot), 0]
            });
        }
        assert!(order.bytes() < 5_000_000, "{}", order.bytes());
        assert!(order.iter().is_sorted_by_key(|slot| (slot % 4, slot)));
    }
}
