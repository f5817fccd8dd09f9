//! Sleeping on a 32-bit word until someone changes it and wakes the sleepers.
//!
//! Works on words in read-only maps, so a process can sleep on memory that only its peer may write.

use super::{errno, timespec};
use crate::sync::AtomicU32;
use std::time::Duration;

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Someone woke the word. Look again before you believe it.
    Woken,
    /// The word no longer held the expected value, so there was no sleep.
    Changed,
    /// The time was up.
    TimedOut,
    /// A signal was handled on this thread.
    Interrupted,
}

/// Sleeps while `word` holds `expected`, at most `timeout`.
///
/// The kernel compares and goes to sleep in one step as [`wake`] sees it: who changes the word and then
/// wakes it never misses a sleeper. `private` words are not shared between processes and are cheaper.
pub fn wait(word: &AtomicU32, expected: u32, timeout: Option<Duration>, private: bool) -> Wait {
    let limit = timeout.map(timespec);
    let limit_pointer = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the word is a valid aligned u32 that the kernel only reads, and the limit outlives the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT | flag(private),
            expected,
            limit_pointer,
        )
    };
    if done == 0 {
        return Wait::Woken;
    }
    match errno() {
        libc::ETIMEDOUT => Wait::TimedOut,
        libc::EINTR => Wait::Interrupted,
        _ => Wait::Changed,
    }
}

/// Wakes up to `count` sleepers of `word` and returns how many it woke.
///
/// Keep `count` small on a shared word: a peer may have put any number of its threads to sleep there.
pub fn wake(word: &AtomicU32, count: u32, private: bool) -> u32 {
    let count = count.min(i32::MAX as u32);
    // SAFETY: the kernel uses the address of the word as a key and does not follow it.
    let woken =
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE | flag(private), count) };
    woken.max(0) as u32
}

const fn flag(private: bool) -> i32 {
    if private { libc::FUTEX_PRIVATE_FLAG } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Ordering;

    #[test]
    fn ends_for_a_changed_word_and_for_the_time() {
        let word = AtomicU32::new(7);
        assert_eq!(wait(&word, 6, None, true), Wait::Changed);
        assert_eq!(wait(&word, 7, Some(Duration::from_millis(1)), true), Wait::TimedOut);
        assert_eq!(wait(&word, 7, Some(Duration::ZERO), false), Wait::TimedOut);
    }

    #[test]
    fn an_endless_limit_is_accepted() {
        let word = AtomicU32::new(0);
        assert_eq!(wait(&word, 1, Some(Duration::MAX), true), Wait::Changed);
        std::thread::scope(|scope| {
            scope.spawn(|| while wait(&word, 0, Some(Duration::MAX), true) != Wait::Changed {});
            std::thread::sleep(Duration::from_millis(5));
            word.store(1, Ordering::Release);
            wake(&word, 1, true);
        });
    }
}
