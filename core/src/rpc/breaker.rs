//! Keeps a caller from calling a service that cannot answer.
//!
//!   closed ──too many failures──▶ open ──its time has passed──▶ half open ──probe succeeds──▶ closed
//!                                  ▲                                │
//!                                  └────probe fails, twice as long──┘
//!
//! A failure is a call that got no answer: [`Timeout`](ErrorKind::Timeout),
//! [`PeerGone`](ErrorKind::PeerGone), [`Full`](ErrorKind::Full). A handler's error is an answer. All other
//! errors say nothing of the service's health, so they count neither way.
#![forbid(unsafe_code)]

use crate::{
    clock::Moment,
    error::{Error, ErrorKind, Result},
    name::Name,
};
use std::{fmt, time::Duration};

/// When a breaker opens and for how long.
///
/// ```
/// use flowmesh::rpc::breaker::BreakerOptions;
/// let options = BreakerOptions { min_calls: 20, ..BreakerOptions::default() };
/// options.validate()?;
/// # Ok::<(), flowmesh::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakerOptions {
    /// Calls are looked at for this long. Default: 10 s.
    pub window: Duration,
    /// Fewer calls in the window than this open nothing. Default: 10.
    pub min_calls: u32,
    /// The share of failures among them that opens it, above 0 to 1. Default: 0.5.
    pub failure_ratio: f64,
    /// How long it stays open the first time; doubles with each failed probe. Default: 1 s.
    pub open_for: Duration,
    /// The longest it stays open. Default: 30 s.
    pub open_for_max: Duration,
    /// Calls let through at once while half open. Default: 1.
    pub probes: u32,
}

impl Default for BreakerOptions {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(10),
            min_calls: 10,
            failure_ratio: 0.5,
            open_for: Duration::from_secs(1),
            open_for_max: Duration::from_secs(30),
            probes: 1,
        }
    }
}

impl BreakerOptions {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`], naming the field, its value and the limit.
    pub fn validate(&self) -> Result<()> {
        let invalid = |field: &'static str, value: &dyn fmt::Debug, limit: &'static str| {
            Err(Error::new(ErrorKind::InvalidArgument, "mesh.call")
                .with(field, format_args!("{value:?}"))
                .with("limit", limit))
        };
        if self.window < Duration::from_millis(1) {
            return invalid("breaker.window", &self.window, "at least 1 ms");
        }
        if self.min_calls == 0 {
            return invalid("breaker.min_calls", &self.min_calls, "at least 1");
        }
        if !(self.failure_ratio > 0.0 && self.failure_ratio <= 1.0) {
            return invalid("breaker.failure_ratio", &self.failure_ratio, "above 0 to 1");
        }
        if self.open_for.is_zero() {
            return invalid("breaker.open_for", &self.open_for, "more than zero");
        }
        if self.open_for_max < self.open_for {
            return invalid("breaker.open_for_max", &self.open_for_max, "at least breaker.open_for");
        }
        if self.probes == 0 {
            return invalid("breaker.probes", &self.probes, "at least 1");
        }
        Ok(())
    }
}

/// What a breaker does with the next call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Lets it through.
    Closed,
    /// Refuses it.
    Open,
    /// Lets a few through to find out.
    HalfOpen,
}

/// One caller's breaker for one service.
#[derive(Debug)]
pub struct Breaker {
    service: Name,
    options: BreakerOptions,
    phase: Phase,
    /// How long it was or will be open; doubles with each failed probe.
    open_for: Duration,
}

#[derive(Debug)]
enum Phase {
    Closed(Window),
    Open {
        until: Moment,
    },
    /// A probe that never tells its outcome is taken for lost at `give_up`.
    HalfOpen {
        probes: u32,
        give_up: Moment,
    },
}

impl Breaker {
    /// A closed one. Invalid options are for the caller to find: [`BreakerOptions::validate`].
    pub fn new(service: &Name, options: BreakerOptions) -> Self {
        let phase = Phase::Closed(Window::default());
        Self { service: service.clone(), options, phase, open_for: options.open_for }
    }

    /// Asks to make a call. Each admitted call's outcome is to be told with [`record`](Self::record) or
    /// [`observe`](Self::observe).
    ///
    /// # Errors
    /// [`ErrorKind::CircuitOpen`], naming the service and `retry_after_ms`.
    pub fn admit(&mut self, now: Moment) -> Result<()> {
        match &mut self.phase {
            Phase::Closed(_) => Ok(()),
            Phase::Open { until } if now < *until => Err(refusal(&self.service, until.since(now))),
            Phase::HalfOpen { probes, give_up } if now < *give_up => {
                if *probes >= self.options.probes {
                    return Err(refusal(&self.service, give_up.since(now)));
                }
                *probes += 1;
                Ok(())
            }
            Phase::Open { .. } | Phase::HalfOpen { .. } => {
                self.phase = Phase::HalfOpen { probes: 1, give_up: now + self.open_for };
                Ok(())
            }
        }
    }

    /// Tells whether an admitted call got an answer. What comes in while it is open belongs to the time
    /// before and changes nothing.
    pub fn record(&mut self, success: bool, now: Moment) {
        match &mut self.phase {
            Phase::Closed(window) => {
                let (calls, failures) = window.count(success, self.options.window, now);
                let share = f64::from(failures) / f64::from(calls);
                if calls >= self.options.min_calls && share >= self.options.failure_ratio {
                    self.phase = Phase::Open { until: now + self.open_for };
                }
            }
            Phase::Open { .. } => {}
            Phase::HalfOpen { .. } if success => {
                self.open_for = self.options.open_for;
                self.phase = Phase::Closed(Window::default());
            }
            Phase::HalfOpen { .. } => {
                self.open_for = self.open_for.saturating_mul(2).min(self.options.open_for_max);
                self.phase = Phase::Open { until: now + self.open_for };
            }
        }
    }

    /// [`record`](Self::record) by the result of the call, with the rule at the top of this module.
    pub fn observe<T>(&mut self, result: &Result<T>, now: Moment) {
        match result.as_ref().map_err(Error::kind) {
            Ok(_) | Err(ErrorKind::HandlerFailed) => self.record(true, now),
            Err(ErrorKind::Timeout | ErrorKind::PeerGone | ErrorKind::Full) => self.record(false, now),
            Err(_) => {
                // No evidence: another probe may go.
                if let Phase::HalfOpen { probes, .. } = &mut self.phase {
                    *probes = probes.saturating_sub(1);
                }
            }
        }
    }

    /// What it would do with a call now.
    pub fn state(&self, now: Moment) -> BreakerState {
        match self.phase {
            Phase::Closed(_) => BreakerState::Closed,
            Phase::Open { until } if now < until => BreakerState::Open,
            Phase::Open { .. } | Phase::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }
}

fn refusal(service: &Name, wait: Duration) -> Error {
    Error::new(ErrorKind::CircuitOpen, "mesh.call")
        .with("service", service)
        .with("retry_after_ms", super::millis_up(wait))
}

/// Calls and failures of the last while, in ten slices that are forgotten one by one.
#[derive(Debug, Default)]
struct Window {
    slices: [(u32, u32); SLICES as usize],
    /// Which slice of all time was written last.
    last: u64,
}

const SLICES: u64 = 10;

impl Window {
    /// Counts a call and returns calls and failures of the window.
    fn count(&mut self, success: bool, window: Duration, now: Moment) -> (u32, u32) {
        let slice_ns = u64::try_from(window.as_nanos() / u128::from(SLICES)).unwrap_or(u64::MAX).max(1);
        let current = (now.0 / slice_ns).max(self.last);
        for passed in (self.last + 1..=current).take(SLICES as usize) {
            self.slices[(passed % SLICES) as usize] = (0, 0);
        }
        self.last = current;
        let (calls, failures) = &mut self.slices[(current % SLICES) as usize];
        *calls = calls.saturating_add(1);
        *failures = failures.saturating_add(u32::from(!success));
        let add = |a: (u32, u32), b: &(u32, u32)| (a.0.saturating_add(b.0), a.1.saturating_add(b.1));
        self.slices.iter().fold((0, 0), add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> Breaker {
        Breaker::new(&Name::parse("images.resize").unwrap(), BreakerOptions::default())
    }

    fn at(ms: u64) -> Moment {
        Moment(1_000_000_000) + Duration::from_millis(ms)
    }

    fn call(breaker: &mut Breaker, success: bool, now: Moment) {
        breaker.admit(now).unwrap();
        breaker.record(success, now);
    }

    #[test]
    fn opens_at_the_ratio_and_not_before_enough_calls() {
        let mut breaker = breaker();
        for n in 0..9 {
            call(&mut breaker, false, at(n));
        }
        assert_eq!(breaker.state(at(9)), BreakerState::Closed);
        call(&mut breaker, true, at(9));
        assert_eq!(breaker.state(at(9)), BreakerState::Open);
        let error = breaker.admit(at(10)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CircuitOpen);
        assert_eq!((error.get("service"), error.get("retry_after_ms")), (Some("images.resize"), Some("999")));
    }

    #[test]
    fn old_failures_are_forgotten() {
        let mut breaker = breaker();
        for n in 0..9 {
            call(&mut breaker, false, at(n));
        }
        for n in 0..20 {
            call(&mut breaker, true, at(10_500 + n));
        }
        for n in 0..10 {
            call(&mut breaker, false, at(10_600 + n));
        }
        assert_eq!(breaker.state(at(10_700)), BreakerState::Closed, "10 of 30 in this window");
    }

    #[test]
    fn probes_close_it_or_double_the_wait() {
        let mut breaker = breaker();
        for _ in 0..10 {
            call(&mut breaker, false, at(0));
        }
        let (mut now, mut wait) = (at(0), 1000);
        for _ in 0..7 {
            assert!(breaker.admit(now + Duration::from_millis(wait - 1)).is_err());
            now = now + Duration::from_millis(wait);
            breaker.admit(now).unwrap();
            assert!(breaker.admit(now).is_err(), "one probe at a time");
            breaker.record(false, now);
            wait = (wait * 2).min(30_000);
        }
        now = now + Duration::from_millis(wait);
        call(&mut breaker, true, now);
        assert_eq!(breaker.state(now), BreakerState::Closed);
    }

    #[test]
    fn a_probe_without_evidence_or_without_outcome_blocks_nobody() {
        let mut breaker = breaker();
        for _ in 0..10 {
            call(&mut breaker, false, at(0));
        }
        breaker.admit(at(1000)).unwrap();
        breaker.observe(&Err::<(), _>(Error::new(ErrorKind::NoService, "t")), at(1000));
        breaker.admit(at(1001)).unwrap();
        assert!(breaker.admit(at(1002)).is_err());
        breaker.admit(at(2100)).unwrap();
        breaker.observe(&Err::<(), _>(Error::new(ErrorKind::HandlerFailed, "t")), at(2101));
        assert_eq!(breaker.state(at(2101)), BreakerState::Closed, "a handler's error is an answer");
    }

    #[test]
    fn refused_options_name_field_value_and_limit() {
        let options = BreakerOptions { failure_ratio: 1.5, ..BreakerOptions::default() };
        let error = options.validate().unwrap_err();
        assert_eq!(
            (error.get("breaker.failure_ratio"), error.get("limit")),
            (Some("1.5"), Some("above 0 to 1"))
        );
        for bad in [
            BreakerOptions { window: Duration::ZERO, ..options },
            BreakerOptions { failure_ratio: f64::NAN, ..options },
            BreakerOptions { min_calls: 0, failure_ratio: 0.5, ..options },
            BreakerOptions { probes: 0, failure_ratio: 0.5, ..options },
            BreakerOptions { open_for: Duration::from_secs(60), failure_ratio: 0.5, ..options },
        ] {
            assert!(bad.validate().is_err(), "{bad:?}");
        }
        BreakerOptions::default().validate().unwrap();
    }
}
