//! How many processors this process may use, which it is on, and what that one is to read ahead.

use crate::sync::{AtomicU32, Ordering};

/// How many processors this process may use at once: its affinity mask and its control group's quota,
/// whichever is less; at least 1. Asked once, then remembered.
pub fn available() -> u32 {
    static KNOWN: AtomicU32 = AtomicU32::new(0);
    // Relaxed: a plain number, and two threads that ask at once get the same one.
    let known = KNOWN.load(Ordering::Relaxed);
    if known != 0 {
        return known;
    }
    let asked = std::thread::available_parallelism().map_or(1, |count| count.get() as u32);
    KNOWN.store(asked, Ordering::Relaxed);
    asked
}

/// The processor this thread ran on a moment ago.
pub fn current() -> u32 {
    // SAFETY: plain call.
    unsafe { libc::sched_getcpu() }.max(0) as u32
}

/// Has the processor bring `value` near while other work goes on. Where it has no word for that, nothing.
#[inline]
pub fn prefetch<T>(value: &T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every x86-64 has the instruction; it reads nothing a program could see and never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = value;
}

#[cfg(test)]
mod tests {
    #[test]
    fn there_is_at_least_one() {
        assert!(super::available() >= 1);
        assert!(super::current() < 4096);
    }
}
