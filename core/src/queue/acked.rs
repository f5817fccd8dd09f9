//! Which leases ended with an ack lately: one bit for each lease.
//!
//! A worker whose ack got no answer asks again, and is to hear that all is well. Leases are numbered in the order
//! they were given, so their acks lie close together: blocks of 4096 bits, each forgotten a while after its last.
#![forbid(unsafe_code)]

use super::job::{JobId, Token};
use std::{collections::BTreeMap, time::Duration};

/// How long at least an ack is remembered.
pub const ACK_REMEMBERED: Duration = Duration::from_secs(300);

const NUMBER_BITS: u32 = 48;
const BLOCK_BITS: u32 = 12;

/// The nonce of lease `number`, attempt `attempt` of `job`: the number, and 16 bits that only this queue can tell.
pub(super) fn nonce(secret: u64, job: JobId, attempt: u16, number: u64) -> u64 {
    let number = number & ((1 << NUMBER_BITS) - 1);
    job.mix(secret ^ number ^ u64::from(attempt) << NUMBER_BITS) << NUMBER_BITS | number
}

/// The number of the lease with this nonce.
pub(super) fn number(nonce: u64) -> u64 {
    nonce & ((1 << NUMBER_BITS) - 1)
}

#[derive(Clone, Debug, Default)]
pub(super) struct Acked {
    blocks: BTreeMap<u64, Block>,
}

#[derive(Clone, Debug)]
pub(super) struct Block {
    /// When the last of them was acked.
    pub(super) last: u64,
    pub(super) bits: Box<[u64; 64]>,
}

impl Acked {
    #[inline]
    pub(super) fn add(&mut self, nonce: u64, at: u64) {
        let number = number(nonce);
        let block = match self.blocks.get_mut(&(number >> BLOCK_BITS)) {
            Some(block) => block,
            None => self.open(number >> BLOCK_BITS, at),
        };
        block.last = block.last.max(at);
        block.bits[number as usize >> 6 & 63] |= 1 << (number & 63);
    }

    #[cold]
    fn open(&mut self, index: u64, at: u64) -> &mut Block {
        let old = at.saturating_sub(ACK_REMEMBERED.as_nanos() as u64);
        while let Some(first) = self.blocks.first_entry()
            && first.get().last < old
        {
            first.remove();
        }
        self.blocks.entry(index).or_insert_with(|| Block { last: at, bits: Box::new([0; 64]) })
    }

    /// Whether this lease ended with an ack that is still remembered.
    pub(super) fn has(&self, secret: u64, token: Token) -> bool {
        let number = number(token.nonce);
        nonce(secret, token.job, token.attempt, number) == token.nonce
            && self
                .blocks
                .get(&(number >> BLOCK_BITS))
                .is_some_and(|block| block.bits[number as usize >> 6 & 63] & 1 << (number & 63) != 0)
    }

    /// Every block, to be stored.
    pub(super) fn blocks(&self) -> impl Iterator<Item = (u64, &Block)> {
        self.blocks.iter().map(|(index, block)| (*index, block))
    }

    /// Adds what was stored.
    pub(super) fn merge(&mut self, index: u64, stored: &Block) {
        let block = self.blocks.entry(index).or_insert_with(|| Block { last: 0, bits: Box::new([0; 64]) });
        block.last = block.last.max(stored.last);
        for (mine, theirs) in block.bits.iter_mut().zip(&*stored.bits) {
            *mine |= theirs;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000_000_000;

    fn token(job: u128, number: u64) -> Token {
        Token { job: JobId(job), attempt: 1, nonce: nonce(9, JobId(job), 1, number) }
    }

    #[test]
    fn an_ack_is_remembered_five_minutes_and_only_for_its_job() {
        let mut acked = Acked::default();
        for number in (0..20_000).step_by(2) {
            acked.add(token(u128::from(number), number).nonce, 0);
        }
        for number in 0..20_000 {
            assert_eq!(acked.has(9, token(u128::from(number), number)), number % 2 == 0);
        }
        let foreign =
            (0..1000).filter(|job| acked.has(9, Token { job: JobId(*job), ..token(5000, 4000) })).count();
        assert!(foreign < 3, "{foreign} of 1000 other jobs pass for this one");
        acked.add(token(1, 1 << 40).nonce, 4 * MINUTE);
        assert!(acked.has(9, token(2, 2)));
        acked.add(token(1, 1 << 41).nonce, 6 * MINUTE);
        assert!(!acked.has(9, token(2, 2)) && acked.has(9, token(1, 1 << 40)));
        assert_eq!(acked.blocks.len(), 2);
    }

    #[test]
    fn what_is_stored_comes_back() {
        let (mut one, mut two) = (Acked::default(), Acked::default());
        one.add(token(1, 1).nonce, 5);
        two.add(token(2, 2).nonce, 6);
        for (index, block) in one.clone().blocks() {
            two.merge(index, block);
        }
        assert!(two.has(9, token(1, 1)) && two.has(9, token(2, 2)) && !two.has(9, token(3, 3)));
    }
}
