//! What a subscriber may ask for.
#![forbid(unsafe_code)]

use crate::{
    error::{Error, ErrorKind, Result},
    name::{Name, Subject},
};
use std::{fmt, time::Duration};

/// The most events that may wait for one subscription.
pub const CAPACITY_MAX: usize = 1_048_576;
/// Events that may wait for one subscription unless it says otherwise.
pub const CAPACITY_DEFAULT: usize = 1024;
/// The most attempts a [`Retry`] may name.
pub const ATTEMPTS_MAX: u32 = 1000;

/// What happens to an event whose subscriber already has `capacity` events waiting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnSlow {
    /// The oldest waiting event of the lowest priority is dropped; the next delivery tells how many were lost.
    #[default]
    DropOldest,
    /// The publisher waits for room, at most this long; then the event is dropped for this subscriber.
    Block {
        /// The longest a publisher waits.
        timeout: Duration,
    },
    /// The subscription ends with [`ErrorKind::SlowConsumer`].
    Disconnect,
}

/// How a subscription receives its events.
///
/// ```
/// use flowmesh::{Name, Subject, bus::{OnSlow, Retry, SubscribeOptions}};
/// use std::time::Duration;
///
/// let options = SubscribeOptions {
///     group: Some(Name::parse("mailers")?),
///     on_slow: OnSlow::Block { timeout: Duration::from_millis(100) },
///     retry: Some(Retry { max_attempts: 5, dead_letter: Some(Subject::parse("mail.dead")?), ..Retry::default() }),
///     ..SubscribeOptions::default()
/// };
/// options.validate()?;
/// # Ok::<(), flowmesh::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct SubscribeOptions {
    /// Of all subscriptions with this group that match an event, one gets it. Default: none.
    pub group: Option<Name>,
    /// Among the subscriptions that match, higher ones are handed the event first. Default: 0.
    pub priority: i32,
    /// What happens when it falls behind. Default: [`OnSlow::DropOldest`].
    pub on_slow: OnSlow,
    /// Events that may wait for it, 1 to [`CAPACITY_MAX`]. Default: [`CAPACITY_DEFAULT`].
    pub capacity: usize,
    /// What happens when its handler fails. Default: the failure is counted, the event is not delivered again.
    pub retry: Option<Retry>,
}

impl Default for SubscribeOptions {
    fn default() -> Self {
        Self {
            group: None,
            priority: 0,
            on_slow: OnSlow::DropOldest,
            capacity: CAPACITY_DEFAULT,
            retry: None,
        }
    }
}

impl SubscribeOptions {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`], naming the field, its value and the limit.
    pub fn validate(&self) -> Result<()> {
        if !(1..=CAPACITY_MAX).contains(&self.capacity) {
            return Err(invalid("capacity", self.capacity, format_args!("1 to {CAPACITY_MAX}")));
        }
        if let OnSlow::Block { timeout } = self.on_slow
            && timeout.is_zero()
        {
            return Err(invalid("on_slow.timeout", "0", "more than zero"));
        }
        self.retry.as_ref().map_or(Ok(()), Retry::validate)
    }
}

/// How often and when an event is delivered again to a handler that failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// Deliveries in all, the first included: 1 to [`ATTEMPTS_MAX`]. Default: 3.
    pub max_attempts: u32,
    /// How long after a failure. Default: 100 ms, doubling, at most 30 s.
    pub backoff: Backoff,
    /// Where an event goes that failed `max_attempts` times, with headers that say why. Default: nowhere, it is counted.
    pub dead_letter: Option<Subject>,
}

impl Default for Retry {
    fn default() -> Self {
        Self { max_attempts: 3, backoff: Backoff::default(), dead_letter: None }
    }
}

impl Retry {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`], naming the field, its value and the limit.
    pub fn validate(&self) -> Result<()> {
        if !(1..=ATTEMPTS_MAX).contains(&self.max_attempts) {
            return Err(invalid(
                "retry.max_attempts",
                self.max_attempts,
                format_args!("1 to {ATTEMPTS_MAX}"),
            ));
        }
        if !(1.0..=1000.0).contains(&self.backoff.factor) {
            return Err(invalid("retry.backoff.factor", self.backoff.factor, "1 to 1000"));
        }
        if self.backoff.max < self.backoff.initial {
            return Err(invalid(
                "retry.backoff.max",
                format_args!("{:?}", self.backoff.max),
                format_args!("at least retry.backoff.initial, {:?}", self.backoff.initial),
            ));
        }
        if let Some(subject) = &self.dead_letter
            && subject.as_str().starts_with('$')
        {
            return Err(invalid(
                "retry.dead_letter",
                subject,
                "subjects that start with $ belong to FlowMesh",
            ));
        }
        Ok(())
    }
}

/// A wait that grows with each failure: `initial`, `initial × factor`, … up to `max`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// After the first failure.
    pub initial: Duration,
    /// What each further failure multiplies it by, 1 to 1000.
    pub factor: f64,
    /// The longest.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { initial: Duration::from_millis(100), factor: 2.0, max: Duration::from_secs(30) }
    }
}

impl Backoff {
    /// The wait after `failures` failures in a row.
    pub fn after(&self, failures: u32) -> Duration {
        let grown = self.initial.as_secs_f64() * self.factor.powf(f64::from(failures.saturating_sub(1)));
        Duration::try_from_secs_f64(grown).unwrap_or(self.max).min(self.max)
    }
}

fn invalid(field: &'static str, value: impl fmt::Display, limit: impl fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidArgument, "mesh.subscribe").with(field, value).with("limit", limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_field_value_and_limit() {
        let options = SubscribeOptions { capacity: 0, ..SubscribeOptions::default() };
        let error = options.validate().unwrap_err();
        assert_eq!((error.get("capacity"), error.get("limit")), (Some("0"), Some("1 to 1048576")));
        for retry in [
            Retry { max_attempts: 0, ..Retry::default() },
            Retry { backoff: Backoff { factor: f64::NAN, ..Backoff::default() }, ..Retry::default() },
            Retry { backoff: Backoff { max: Duration::ZERO, ..Backoff::default() }, ..Retry::default() },
            Retry { dead_letter: Some(Subject::parse("$sys.dead").unwrap()), ..Retry::default() },
        ] {
            let options = SubscribeOptions { retry: Some(retry), ..SubscribeOptions::default() };
            assert_eq!(options.validate().unwrap_err().kind(), ErrorKind::InvalidArgument, "{options:?}");
        }
        let block = OnSlow::Block { timeout: Duration::ZERO };
        assert!(SubscribeOptions { on_slow: block, ..SubscribeOptions::default() }.validate().is_err());
        SubscribeOptions::default().validate().unwrap();
        Retry::default().validate().unwrap();
    }

    #[test]
    fn backoff_grows_to_its_maximum() {
        let backoff = Backoff::default();
        let waits: Vec<u128> = [1, 2, 3, 9, 10, 1000].map(|n| backoff.after(n).as_millis()).to_vec();
        assert_eq!(waits, [100, 200, 400, 25_600, 30_000, 30_000]);
    }
}
