//! A short hash for short text: a few multiplications, seeded.
//!
//! Without the seed nobody can choose texts that collide, and the seed never shows in a result: what is
//! found in a table does not depend on where it lies.
#![forbid(unsafe_code)]

use std::hash::{BuildHasher, RandomState};

/// The secret of one table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seed {
    start: u64,
    factor: u64,
}

impl Default for Seed {
    fn default() -> Self {
        let random = RandomState::new();
        // Odd, so that multiplying by it loses nothing.
        Self { start: random.hash_one(0), factor: random.hash_one(1) | 1 }
    }
}

impl Seed {
    /// The worst secret: everything collides.
    #[cfg(test)]
    pub(super) fn colliding() -> Self {
        Self { start: 0, factor: 0 }
    }

    /// The hash of `text` under `parent`.
    ///
    /// `parent` goes through a round of its own: mixed into the first word it could be cancelled out by a
    /// token that is chosen for it.
    #[inline]
    pub(super) fn hash(self, parent: u32, text: &[u8]) -> u64 {
        let mut state = fold(self.start ^ u64::from(parent), self.factor) ^ text.len() as u64;
        let (words, rest) = text.as_chunks();
        for word in words {
            state = fold(state ^ u64::from_le_bytes(*word), self.factor);
        }
        fold(state ^ short_word(rest), self.factor)
    }
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// At most seven bytes as one word; texts of one length never share a word.
#[inline]
fn short_word(text: &[u8]) -> u64 {
    match *text {
        [] => 0,
        [a] => u64::from(a),
        [a, b] => u64::from(a) | u64::from(b) << 8,
        [a, b, c] => u64::from(a) | u64::from(b) << 8 | u64::from(c) << 16,
        [a, b, c, d, ref rest @ ..] => u64::from(u32::from_le_bytes([a, b, c, d])) | short_word(rest) << 32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn texts_parents_and_seeds_are_told_apart() {
        let (seed, other) = (Seed::default(), Seed::default());
        let mut seen = HashSet::new();
        for number in 0..50_000 {
            for parent in [0, 1] {
                assert!(seen.insert(seed.hash(parent, format!("t{number}").as_bytes())));
            }
        }
        for length in 0..20 {
            assert!(seen.insert(seed.hash(2, &vec![0; length])), "zeros of length {length}");
        }
        assert_ne!(seed.hash(0, b"orders"), other.hash(0, b"orders"));
    }

    #[test]
    fn low_bits_spread() {
        let seed = Seed::default();
        let mut buckets = [0u32; 64];
        for number in 0..64_000 {
            buckets[seed.hash(7, format!("sensor{number}").as_bytes()) as usize % 64] += 1;
        }
        assert!(buckets.iter().all(|&count| (800..1200).contains(&count)), "{seed:?} {buckets:?}");
    }
}
