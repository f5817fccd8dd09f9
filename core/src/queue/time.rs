//! The mesh's own time line: what queues reckon in.
#![forbid(unsafe_code)]

use super::change::Now;
use crate::clock::{Moment, Timestamp};
use std::time::Duration;

/// What the clocks show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// The boot-time clock: it runs on while the machine sleeps, and nobody sets it.
    pub boot: Moment,
    /// The wall clock.
    pub wall: Timestamp,
}

/// A line that runs with the boot-time clock and goes on, after the host was closed, where it stood.
///
/// How long the host was closed only the wall clock tells. A clock that was set back meanwhile counts as no time;
/// while the host is open it may do what it likes. One that is wrong again at each start could use up the line in a
/// few dozen starts: from [`CLOSED_UNTIL`] on the line runs only while the host is open.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    at: Moment,
    boot: Moment,
    /// The latest that was asked for.
    last: Moment,
    /// How far the wall clock was ahead when that was last written down.
    written: Option<i128>,
}

impl Line {
    /// Begins now, or goes on after `before`: what clock entries and changes showed last.
    pub(super) fn new(times: Times, before: Option<(Moment, Timestamp)>) -> Self {
        let at = match before {
            Some((at, wall)) => {
                let closed = Duration::from_nanos(times.wall.0.saturating_sub(wall.0));
                (at + closed).min(at.max(CLOSED_UNTIL))
            }
            // So that it is near the wall clock, which helps whoever reads it.
            None => Moment(times.wall.0),
        };
        Self { at, boot: times.boot, last: at, written: None }
    }

    pub(super) fn now(&mut self, times: Times) -> Now {
        self.last = self.last.max(self.at + times.boot.since(self.boot));
        Now { at: self.last, wall: times.wall }
    }

    /// When, on the boot-time clock, the line reaches `at`.
    pub(super) fn boot_of(&self, at: Moment) -> Moment {
        self.boot + at.since(self.at)
    }

    /// Whether the wall clock has moved against the line, so that this is to be written down.
    pub(super) fn wants_writing(&self, now: Now) -> bool {
        self.written.is_none_or(|written| (ahead(now) - written).unsigned_abs() > DRIFT_NS)
    }

    pub(super) fn was_written(&mut self, now: Now) {
        self.written = Some(ahead(now));
    }
}

fn ahead(now: Now) -> i128 {
    i128::from(now.wall.0) - i128::from(now.at.0)
}

/// What the wall clock was at `at`, when a clock entry showed `seen`.
pub(super) fn wall_at(at: Moment, seen: (Moment, Timestamp)) -> Timestamp {
    Timestamp(seen.1.0.saturating_add(at.0.saturating_sub(seen.0.0)))
}

/// The year 2116, if no clock was ever wrong. What is left of the line after it are four centuries.
const CLOSED_UNTIL: Moment = Moment(1 << 62);

/// The wall clock drifts, and is corrected: less than this is not worth an entry.
const DRIFT_NS: u128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn times(boot: u64, wall: u64) -> Times {
        Times { boot: Moment(boot * SECOND), wall: Timestamp(wall * SECOND) }
    }

    #[test]
    fn it_runs_with_the_boot_clock_whatever_the_wall_clock_does() {
        let mut line = Line::new(times(100, 5000), None);
        let start = line.now(times(100, 5000)).at;
        assert_eq!(start, Moment(5000 * SECOND));
        for (boot, wall) in [(110, 5010), (120, 900_000), (130, 3)] {
            let now = line.now(times(boot, wall));
            assert_eq!((now.at - start).as_secs(), boot - 100);
            assert_eq!(line.boot_of(now.at), times(boot, 0).boot);
        }
        assert_eq!(line.now(times(125, 3)).at, line.now(times(130, 3)).at, "never back");
    }

    #[test]
    fn after_a_restart_it_goes_on() {
        let before = Some((Moment(7000 * SECOND), Timestamp(8000 * SECOND)));
        let mut later = Line::new(times(3, 8060), before);
        assert_eq!(later.now(times(3, 8060)).at, Moment(7060 * SECOND));
        let mut set_back = Line::new(times(3, 10), before);
        assert_eq!(set_back.now(times(4, 11)).at, Moment(7001 * SECOND));
    }

    #[test]
    fn a_clock_that_is_wrong_at_each_start_does_not_use_it_up() {
        let (good, bad) = (1_800_000_000, 10);
        let mut before = (Moment(good * SECOND), Timestamp(good * SECOND));
        for start in 0..1000 {
            let times = times(1, if start % 2 == 0 { bad } else { good });
            let now = Line::new(times, Some(before)).now(times);
            assert!(now.at >= before.0 && now.at < Moment(u64::MAX / 2), "{now:?}");
            before = (now.at, now.wall);
        }
        let after = Moment(before.0.0 + SECOND);
        let mut line = Line::new(times(1, good), Some((after, Timestamp(0))));
        assert_eq!(line.now(times(2, good)).at, Moment(after.0 + SECOND), "it runs on, and never goes back");
    }

    #[test]
    fn it_is_written_down_when_the_wall_clock_jumps() {
        let mut line = Line::new(times(1, 1000), None);
        let now = line.now(times(1, 1000));
        assert!(line.wants_writing(now));
        line.was_written(now);
        let later = line.now(times(100, 1099));
        assert!(!line.wants_writing(later));
        let jumped = line.now(times(101, 5000));
        assert!(line.wants_writing(jumped));
        assert_eq!(wall_at(later.at, (now.at, now.wall)), Timestamp(1099 * SECOND));
    }
}
