//! How long to look before sleeping.
//!
//! A wake-up costs about 6 µs on each side, a look 0.1 µs: spinning pays if the answer usually comes within
//! a few µs and the processor is ours. On a busy machine it takes time from the very peer it waits for, so
//! the budget goes to nothing when spins failed lately, and is tried again now and then.

use crate::os::cpu;
use std::time::{Duration, Instant};

/// How a thread waits for events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitStrategy {
    /// Look for `spin` while that tends to succeed, then sleep until woken. The default, with 5 µs. After an
    /// accident, a failure among successes, it looks up to eight times longer once.
    Adaptive {
        /// How long to look before sleeping.
        spin: Duration,
    },
    /// Sleep at once, until woken.
    Block,
    /// Never sleep: the lowest latency, for a processor of one's own.
    Spin,
    /// Sleep and look every `interval`, without being woken: for peers in no hurry.
    Timed {
        /// Time between two looks.
        interval: Duration,
    },
}

impl Default for WaitStrategy {
    fn default() -> Self {
        Self::Adaptive { spin: SPIN_DEFAULT }
    }
}

/// Decides how long the next wait may spin, from how the last ones went.
#[derive(Clone, Debug)]
pub struct Spin {
    strategy: WaitStrategy,
    /// Share of spins that succeeded lately, of `SCORE_MAX`.
    score: u32,
    /// Waits without a spin since the last one with.
    skipped: u32,
    /// The spin under way is such a trial.
    probing: bool,
    /// The last spin failed after many that did not.
    slipped: bool,
    alone: bool,
}

impl Spin {
    /// For this process: spins only if it may use more than one processor.
    pub fn new(strategy: WaitStrategy) -> Self {
        Self::with_processors(strategy, cpu::available())
    }

    /// As if `processors` were available.
    pub fn with_processors(strategy: WaitStrategy, processors: u32) -> Self {
        let alone = processors <= 1;
        Self { strategy, score: SCORE_MAX / 2, skipped: 0, probing: false, slipped: false, alone }
    }

    /// How long to look before the sleep that is about to come. `Duration::MAX` means: do not sleep at all.
    pub fn budget(&mut self) -> Duration {
        match self.strategy {
            WaitStrategy::Spin => Duration::MAX,
            WaitStrategy::Block | WaitStrategy::Timed { .. } => Duration::ZERO,
            WaitStrategy::Adaptive { .. } if self.alone => Duration::ZERO,
            WaitStrategy::Adaptive { spin } => {
                if self.score < SCORE_WORTH && self.skipped < SKIPS_MAX {
                    self.skipped += 1;
                    return Duration::ZERO;
                }
                // Two sides that both sleep answer each other a wake-up late, so a short spin would fail for
                // ever: one that is tried again, or the first after a slip, looks longer than a wake-up takes.
                self.probing = std::mem::take(&mut self.skipped) > 0 || self.slipped;
                if self.probing { spin.saturating_mul(PROBE_FACTOR) } else { spin }
            }
        }
    }

    /// Notes how a spin within a budget above zero ended.
    pub fn record(&mut self, found: bool) {
        let was_slipped = std::mem::take(&mut self.slipped);
        if std::mem::take(&mut self.probing) {
            if found {
                // Worth it again at once, for a few spins in a row.
                self.score = self.score.max(SCORE_MAX * 3 / 4);
                return;
            }
            if was_slipped {
                // The peer is not late but done.
                self.score = 0;
            }
        }
        self.slipped = !found && !was_slipped && self.score > SCORE_SURE;
        let target = if found { SCORE_MAX } else { 0 };
        // An eighth of the way to the target, rounded towards it so that it is reached.
        self.score = (self.score * 7 + target) / 8 + u32::from(found);
        self.score = self.score.min(SCORE_MAX);
    }

    /// The longest sleep this strategy wants, if it sets one.
    pub fn sleep_limit(&self) -> Option<Duration> {
        match self.strategy {
            WaitStrategy::Timed { interval } => Some(interval),
            _ => None,
        }
    }

    /// Whether the peer should be asked to wake us.
    pub fn wants_wake(&self) -> bool {
        !matches!(self.strategy, WaitStrategy::Timed { .. } | WaitStrategy::Spin)
    }

    /// Looks until `look` says yes or the budget is used up, and learns from it. False means: sleep now.
    pub fn run(&mut self, look: impl FnMut() -> bool) -> bool {
        let budget = self.budget();
        if budget.is_zero() {
            return false;
        }
        let found = spin_until(budget, look);
        self.record(found);
        found
    }
}

/// Looks until `look` says yes or `budget` is over. Asks the clock every 16 looks.
pub fn spin_until(budget: Duration, mut look: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    loop {
        for _ in 0..LOOKS_PER_CLOCK {
            if look() {
                return true;
            }
            crate::sync::spin_loop();
        }
        if begun.elapsed() >= budget {
            return false;
        }
    }
}

const SPIN_DEFAULT: Duration = Duration::from_micros(5);
const LOOKS_PER_CLOCK: u32 = 16;
const SCORE_MAX: u32 = 1024;
/// A 5 µs spin saves a wake-up of about 12 µs or is lost: worth it above a third.
const SCORE_WORTH: u32 = SCORE_MAX / 3;
/// From here on a spin that fails is taken for an accident.
const SCORE_SURE: u32 = SCORE_MAX * 3 / 4;
/// How much longer a spin is that is tried again: 40 µs instead of 5.
const PROBE_FACTOR: u32 = 8;
/// Waits without a spin before one is tried again.
const SKIPS_MAX: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failing_spins_stop_and_are_tried_again_until_they_succeed() {
        let mut spin = Spin::with_processors(WaitStrategy::default(), 2);
        let mut tries = 0;
        while !spin.budget().is_zero() {
            spin.record(false);
            tries += 1;
        }
        assert!((1..10).contains(&tries), "{tries}");
        let skipped = 1 + (0..1000).take_while(|_| spin.budget().is_zero()).count();
        assert_eq!(skipped, SKIPS_MAX as usize);
        (0..10).for_each(|_| spin.record(true));
        assert!((0..100).all(|_| spin.budget() == SPIN_DEFAULT));
    }

    #[test]
    fn one_failure_after_many_finds_is_an_accident_two_are_the_end() {
        let mut spin = Spin::with_processors(WaitStrategy::default(), 2);
        let turn = |spin: &mut Spin, found| {
            let budget = spin.budget();
            if !budget.is_zero() {
                spin.record(found);
            }
            budget
        };
        (0..100).for_each(|_| assert_eq!(turn(&mut spin, true), SPIN_DEFAULT));
        assert_eq!(turn(&mut spin, false), SPIN_DEFAULT);
        assert_eq!(turn(&mut spin, true), SPIN_DEFAULT * PROBE_FACTOR, "longer than a wake-up takes");
        assert_eq!(turn(&mut spin, true), SPIN_DEFAULT, "and all is as before");
        (0..20).for_each(|_| assert_eq!(turn(&mut spin, true), SPIN_DEFAULT));
        assert_eq!(turn(&mut spin, false), SPIN_DEFAULT);
        assert_eq!(turn(&mut spin, false), SPIN_DEFAULT * PROBE_FACTOR);
        assert_eq!(turn(&mut spin, false), Duration::ZERO, "it is over");
    }

    #[test]
    fn the_score_reaches_both_ends_and_stays_within() {
        let mut spin = Spin::with_processors(WaitStrategy::default(), 2);
        (0..200).for_each(|_| spin.record(true));
        assert!(spin.score > SCORE_MAX * 9 / 10 && spin.score <= SCORE_MAX);
        (0..200).for_each(|_| spin.record(false));
        assert_eq!(spin.score, 0);
    }

    #[test]
    fn one_processor_and_the_other_strategies_do_as_they_say() {
        let budget = |strategy, processors| Spin::with_processors(strategy, processors).budget();
        assert_eq!(budget(WaitStrategy::default(), 1), Duration::ZERO);
        assert_eq!(budget(WaitStrategy::default(), 2), SPIN_DEFAULT);
        assert_eq!(budget(WaitStrategy::Block, 8), Duration::ZERO);
        assert_eq!(budget(WaitStrategy::Spin, 1), Duration::MAX);
        let timed = Spin::with_processors(WaitStrategy::Timed { interval: Duration::from_millis(2) }, 8);
        assert_eq!(timed.sleep_limit(), Some(Duration::from_millis(2)));
        assert!(!timed.wants_wake());
    }

    #[test]
    fn looks_at_least_once_and_stops_in_time() {
        let mut looks = 0;
        assert!(spin_until(Duration::ZERO, || {
            looks += 1;
            looks == 3
        }));
        assert!(!spin_until(Duration::from_micros(50), || false));
    }
}
