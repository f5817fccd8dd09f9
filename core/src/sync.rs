//! The atomics everything shared is built on: the standard ones, or loom's under `cfg(loom)`; and [`lock`].
//!
//! Knows nothing of the kernel. Every ordering and fence of a lock-free protocol names itself with a
//! [`Step`], so that the loom models can weaken exactly one of them and prove that they would notice.
#![forbid(unsafe_code)]

#[cfg(not(loom))]
pub mod lock;

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicUsize};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

#[cfg(not(loom))]
pub(crate) use std::hint::spin_loop;

/// One ordering or fence that a protocol in `shm` depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Producer: the frames are written before the cursor that shows them.
    PublishTail,
    /// Consumer: the frames are copied out before the cursor that frees them.
    ConsumeHead,
    /// Producer: the new tail is visible before it asks whether the peer waits.
    PublishFence,
    /// Waiter: "I wait" is visible before the last look at the tail.
    ArmFence,
    /// Producer: "I want space" is visible before the last look at the peer's head.
    WantFence,
    /// Consumer: the new head is visible before it asks whether the peer wants space.
    FreedFence,
    /// Either side: who sees the event word sees the cursor that it stands for.
    StoreEvent,
    /// Sleeper: the event word is read before the last look at the cursor.
    LoadEvent,
}

/// `order`, unless the running loom model weakened `step`.
#[cfg(not(loom))]
#[inline(always)]
pub(crate) const fn ordering(_step: Step, order: Ordering) -> Ordering {
    order
}

/// A sequentially consistent fence, unless the running loom model removed `step`.
#[cfg(not(loom))]
#[inline(always)]
pub(crate) fn fence_seq_cst(_step: Step) {
    fence(Ordering::SeqCst);
}

/// An acquire load of a word that may lie in read-only memory, where only relaxed loads are promised to be
/// plain loads.
#[inline(always)]
pub(crate) fn load_acquire_u32(word: &AtomicU32, step: Step) -> u32 {
    let value = word.load(Ordering::Relaxed);
    if matches!(ordering(step, Ordering::Acquire), Ordering::Acquire) {
        fence(Ordering::Acquire);
    }
    value
}

#[cfg(loom)]
pub(crate) use planted::{fence_seq_cst, ordering};

/// Planted mutants: the model that is weakened at one step must fail.
#[cfg(loom)]
pub(crate) mod planted {
    use super::{Ordering, Step, fence};
    use std::cell::Cell;

    std::thread_local! {
        // loom runs all threads of a model on the thread that called it, so this reaches them all.
        static WEAKENED: Cell<Option<Step>> = const { Cell::new(None) };
    }

    /// Runs `model` with `step` made useless.
    pub(crate) fn with_weakened(step: Step, model: impl FnOnce()) {
        WEAKENED.set(Some(step));
        model();
        WEAKENED.set(None);
    }

    pub(crate) fn ordering(step: Step, order: Ordering) -> Ordering {
        if WEAKENED.get() == Some(step) { Ordering::Relaxed } else { order }
    }

    pub(crate) fn fence_seq_cst(step: Step) {
        if WEAKENED.get() != Some(step) {
            fence(Ordering::SeqCst);
        }
    }
}
