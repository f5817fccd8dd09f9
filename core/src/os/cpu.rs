//! How many processors this process may use, and which it is on.

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

#[cfg(test)]
mod tests {
    #[test]
    fn there_is_at_least_one() {
        assert!(super::available() >= 1);
        assert!(super::current() < 4096);
    }
}
