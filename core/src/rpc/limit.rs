//! A token bucket in one number: the moment at which it will be full again.
#![forbid(unsafe_code)]

use super::RateLimit;
use crate::clock::Moment;
use std::time::Duration;

/// Lets `burst` calls through at once and `per_second` in the long run.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    /// Nanoseconds in which one token comes.
    interval_ns: u64,
    /// Nanoseconds in which all but one come.
    burst_ns: u64,
    full_at: Moment,
}

impl TokenBucket {
    /// A full one. `limit` was checked by [`ServeOptions::validate`](super::ServeOptions::validate).
    pub fn new(limit: RateLimit) -> Self {
        let interval_ns = (1e9 / limit.per_second) as u64;
        let burst_ns = interval_ns.saturating_mul(u64::from(limit.burst.saturating_sub(1)));
        Self { interval_ns, burst_ns, full_at: Moment(0) }
    }

    /// Takes a token.
    ///
    /// # Errors
    /// How long until there is one.
    pub fn take(&mut self, now: Moment) -> Result<(), Duration> {
        let earliest = Moment(self.full_at.0.saturating_sub(self.burst_ns));
        if now < earliest {
            return Err(earliest.since(now));
        }
        self.full_at = self.full_at.max(now) + Duration::from_nanos(self.interval_ns);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_burst_then_the_rate() {
        let mut bucket = TokenBucket::new(RateLimit { per_second: 10.0, burst: 3 });
        let start = Moment(1_000_000_000);
        for _ in 0..3 {
            bucket.take(start).unwrap();
        }
        assert_eq!(bucket.take(start), Err(Duration::from_millis(100)));
        assert_eq!(bucket.take(start + Duration::from_millis(99)), Err(Duration::from_millis(1)));
        bucket.take(start + Duration::from_millis(100)).unwrap();
        // After a long rest there are three again, not more.
        let later = start + Duration::from_secs(3600);
        assert_eq!((0..10).filter(|_| bucket.take(later).is_ok()).count(), 3);
    }

    proptest! {
        #[test]
        fn no_stretch_of_time_lets_more_through_than_rate_and_burst(
            per_second in 1.0f64..10_000.0, burst in 1u32..20,
            pauses in proptest::collection::vec(0u64..3_000_000, 1..300),
        ) {
            let mut bucket = TokenBucket::new(RateLimit { per_second, burst });
            let (mut now, mut taken) = (Moment(5), Vec::new());
            for pause in pauses {
                now = now + Duration::from_nanos(pause);
                match bucket.take(now) {
                    Ok(()) => taken.push(now),
                    Err(wait) => prop_assert!(bucket.clone().take(now + wait).is_ok()),
                }
            }
            for (index, first) in taken.iter().enumerate() {
                for (count, last) in taken[index..].iter().enumerate() {
                    let allowed = f64::from(burst) + last.since(*first).as_secs_f64() * per_second * 1.00001;
                    prop_assert!((count + 1) as f64 <= allowed + 1e-6);
                }
            }
        }
    }
}
