//! Blocks of large frames that nobody holds any more, kept for the next ones.
//!
//! A new block of a megabyte comes from the kernel page by page, which takes several times as long as to fill
//! it. Knows nothing of time: its owner says when nothing came for a while.
#![forbid(unsafe_code)]

use crate::sync::lock::Mutex;
use crate::sync::{AtomicBool, Ordering};
use std::sync::Arc;

/// Blocks that went out with messages, each used again once its last message is dropped.
///
/// Never holds more than [`BYTES_MAX`](Self::BYTES_MAX), and nothing that did not arrive in full before.
#[derive(Debug, Default)]
pub struct SpareBlocks {
    /// The last one lent at the end: of those that came back its bytes are the likeliest to be cached.
    lent: Mutex<Vec<Arc<Vec<u8>>>>,
    /// Something was lent since the last [`rest`](Self::rest).
    used: AtomicBool,
}

impl SpareBlocks {
    /// What all blocks that are remembered may take up together.
    pub const BYTES_MAX: usize = 8 * 1024 * 1024;
    /// Larger blocks are not kept.
    pub const BLOCK_BYTES_MAX: usize = Self::BYTES_MAX / 2;

    /// An empty block with room for `bytes`, and not much more: a message that is kept for long holds all of it.
    pub(super) fn take(&self, bytes: usize) -> Option<Vec<u8>> {
        let mut lent = self.lent.lock();
        let fits = |block: &mut Arc<Vec<u8>>| {
            (bytes..=bytes.saturating_mul(2)).contains(&block.capacity()) && Arc::get_mut(block).is_some()
        };
        let index = lent.iter_mut().rposition(fits)?;
        let mut block = Arc::into_inner(lent.remove(index))?;
        block.clear();
        Some(block)
    }

    /// Remembers a block that goes out with a message, if there is room for it; the oldest make room.
    pub(super) fn lend(&self, block: &Arc<Vec<u8>>) {
        if block.capacity() > Self::BLOCK_BYTES_MAX {
            return;
        }
        let mut lent = self.lent.lock();
        let mut bytes = block.capacity() + lent.iter().map(|block| block.capacity()).sum::<usize>();
        while bytes > Self::BYTES_MAX {
            bytes -= lent.remove(0).capacity();
        }
        lent.push(Arc::clone(block));
        self.used.store(true, Ordering::SeqCst);
    }

    /// Whether something was lent since the last [`rest`](Self::rest). One load.
    pub fn is_used(&self) -> bool {
        self.used.load(Ordering::SeqCst)
    }

    /// Gives all memory back if nothing was lent since the last rest, and returns whether it did.
    pub fn rest(&self) -> bool {
        let rests = !self.used.swap(false, Ordering::SeqCst);
        if rests {
            *self.lent.lock() = Vec::new();
        }
        rests
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(bytes: usize) -> Arc<Vec<u8>> {
        Arc::new(Vec::with_capacity(bytes))
    }

    #[test]
    fn a_block_is_used_again_once_nobody_holds_it() {
        let spare = SpareBlocks::default();
        let (first, second) = (block(1000), block(1000));
        let (at_first, at_second) = (first.as_ptr(), second.as_ptr());
        spare.lend(&first);
        spare.lend(&second);
        assert!(spare.take(1000).is_none(), "both are held");
        drop(first);
        assert!(spare.take(1001).is_none() && spare.take(499).is_none(), "neither too small nor too large");
        let again = spare.take(600).unwrap();
        assert_eq!(again.as_ptr(), at_first);
        drop(second);
        let again = spare.take(1000).unwrap();
        assert_eq!(again.as_ptr(), at_second);
        assert!(spare.lent.lock().is_empty());
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let spare = SpareBlocks::default();
        spare.lend(&block(SpareBlocks::BLOCK_BYTES_MAX + 1));
        assert!(spare.lent.lock().is_empty());
        let oldest = block(SpareBlocks::BLOCK_BYTES_MAX);
        spare.lend(&oldest);
        for _ in 0..100 {
            spare.lend(&block(SpareBlocks::BLOCK_BYTES_MAX / 3));
            let kept: usize = spare.lent.lock().iter().map(|block| block.capacity()).sum();
            assert!(kept <= SpareBlocks::BYTES_MAX);
        }
        assert_eq!(Arc::strong_count(&oldest), 1, "the oldest made room");
    }

    #[test]
    fn memory_goes_back_after_a_rest() {
        let spare = SpareBlocks::default();
        let held = block(1000);
        spare.lend(&held);
        assert!(!spare.rest(), "used since the last one");
        assert!(spare.rest());
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
