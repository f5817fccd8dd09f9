//! Putting one thread to sleep and waking it, inside one process.

use super::futex::{self, Wait};
use crate::sync::{AtomicU32, Ordering};
use std::time::Duration;

/// A token and a place to wait for it. One thread parks at a time; any thread unparks.
#[derive(Debug, Default)]
pub struct Parker {
    state: AtomicU32,
}

const EMPTY: u32 = 0;
const TOKEN: u32 = 1;
const ASLEEP: u32 = 2;

impl Parker {
    /// A parker without a token.
    pub const fn new() -> Self {
        Self { state: AtomicU32::new(EMPTY) }
    }

    /// Takes the token, sleeping up to `timeout` for it.
    ///
    /// `Woken` means that the token was taken; what was written before [`Parker::unpark`] is then
    /// visible. `Interrupted` means that a signal came; the token, if any came too, stays.
    pub fn park(&self, timeout: Option<Duration>) -> Wait {
        // Acquire, here and below: pairs with the Release in `unpark`.
        if self.take(TOKEN) {
            return Wait::Woken;
        }
        if self.state.compare_exchange(EMPTY, ASLEEP, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            self.take(TOKEN);
            return Wait::Woken;
        }
        let ended = futex::wait(&self.state, ASLEEP, timeout, true);
        if self.take(ASLEEP) {
            // Nobody gave a token. A wake without one came from a stray waker: the caller looks again.
            return if ended == Wait::Woken { Wait::Interrupted } else { ended };
        }
        if ended == Wait::Interrupted {
            return Wait::Interrupted;
        }
        self.take(TOKEN);
        Wait::Woken
    }

    /// Gives the token; a second one has no effect. A system call only if someone sleeps.
    pub fn unpark(&self) {
        // Release: what was done before is visible to the thread that takes the token.
        if self.state.swap(TOKEN, Ordering::Release) == ASLEEP {
            futex::wake(&self.state, 1, true);
        }
    }

    fn take(&self, state: u32) -> bool {
        self.state.compare_exchange(state, EMPTY, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn a_token_given_first_is_kept_and_counts_once() {
        let parker = Parker::new();
        parker.unpark();
        parker.unpark();
        assert_eq!(parker.park(None), Wait::Woken);
        assert_eq!(parker.park(Some(Duration::from_millis(1))), Wait::TimedOut);
    }

    #[test]
    fn no_token_is_lost_between_two_threads() {
        let pair = Arc::new((Parker::new(), Parker::new(), AtomicUsize::new(0)));
        let other = Arc::clone(&pair);
        let rounds = 20_000;
        let echo = std::thread::spawn(move || {
            for _ in 0..rounds {
                while other.0.park(None) != Wait::Woken {}
                other.2.fetch_add(1, Ordering::Relaxed);
                other.1.unpark();
            }
        });
        for round in 0..rounds {
            pair.0.unpark();
            while pair.1.park(None) != Wait::Woken {}
            assert_eq!(pair.2.load(Ordering::Relaxed), round + 1);
        }
        echo.join().unwrap();
    }
}
