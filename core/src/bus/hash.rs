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

    /// The hash of `text`.
    ///
    /// The length goes through a round of its own: mixed into the first word it could be cancelled out by a
    /// text that is chosen for it.
    #[inline]
    pub(super) fn hash(self, text: &[u8]) -> u64 {
        let state = fold(self.start ^ text.len() as u64, self.factor);
        let Some(last) = text.last_chunk() else { return fold(state ^ short_word(text), self.factor) };
        // Whole words from the front, then the last eight bytes, which may overlap them.
        let (words, _) = text[..text.len() - 1].as_chunks();
        let state =
            words.iter().fold(state, |state, word| fold(state ^ u64::from_le_bytes(*word), self.factor));
        fold(state ^ u64::from_le_bytes(*last), self.factor)
    }

    /// The hash of no tokens, for [`join`](Self::join) to start from.
    #[inline]
    pub(super) fn root(self) -> u64 {
        self.start
    }

    /// The hash of a path of tokens, from that of the path before its last token and that of this token.
    ///
    /// Both are secret, so nobody can choose a token that cancels a path out.
    #[inline]
    pub(super) fn join(self, path: u64, token: u64) -> u64 {
        fold(path ^ token, self.factor)
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
    match (text.first_chunk(), text.last_chunk()) {
        (Some(first), Some(last)) => {
            u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << 32
        }
        _ => match *text {
            [first, .., last] => {
                u64::from(first) | u64::from(text[text.len() / 2]) << 8 | u64::from(last) << 16
            }
            [only] => u64::from(only),
            [] => 0,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn texts_paths_and_seeds_are_told_apart() {
        let (seed, other) = (Seed::default(), Seed::default());
        let mut seen = HashSet::new();
        for number in 0..50_000 {
            let token = seed.hash(format!("t{number}").as_bytes());
            let path = seed.join(seed.root(), token);
            assert!(seen.insert(token) && seen.insert(path) && seen.insert(seed.join(path, token)));
        }
        for length in 0..40 {
            assert!(seen.insert(seed.hash(&vec![0; length])), "zeros of length {length}");
        }
        assert_ne!(seed.hash(b"orders"), other.hash(b"orders"));
    }

    #[test]
    fn every_byte_counts_wherever_it_lies() {
        let seed = Seed::default();
        for length in 1..40 {
            let mut seen = HashSet::from([seed.hash(&vec![b'a'; length])]);
            for place in 0..length {
                let mut text = vec![b'a'; length];
                text[place] = b'b';
                assert!(seen.insert(seed.hash(&text)), "byte {place} of {length}");
            }
        }
        assert_ne!(seed.hash(b"a"), seed.hash(b"ba"), "a length is no letter");
    }

    #[test]
    fn low_bits_spread() {
        let seed = Seed::default();
        let mut buckets = [0u32; 64];
        for number in 0..64_000 {
            buckets[seed.hash(format!("sensor{number}").as_bytes()) as usize % 64] += 1;
        }
        assert!(buckets.iter().all(|&count| (800..1200).contains(&count)), "{seed:?} {buckets:?}");
    }
}
