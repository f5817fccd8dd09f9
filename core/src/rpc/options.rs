//! What an instance of a service tells about itself.
#![forbid(unsafe_code)]

use crate::error::{Error, ErrorKind, Result};
use std::fmt;

/// The most calls an instance may take at once.
pub const CONCURRENCY_MAX: u32 = 65_536;
/// The most calls that may wait for an instance.
pub const QUEUE_MAX: u32 = 1_048_576;
/// The longest version text, in bytes.
pub const VERSION_BYTES_MAX: usize = 255;

/// How an instance serves.
///
/// ```
/// use flowmesh::rpc::{RateLimit, ServeOptions};
/// let options = ServeOptions {
///     version: "1.4.0".into(),
///     concurrency: 8,
///     rate: Some(RateLimit { per_second: 500.0, burst: 50 }),
///     ..ServeOptions::default()
/// };
/// options.validate()?;
/// # Ok::<(), flowmesh::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct ServeOptions {
    /// Free text that discovery shows, at most [`VERSION_BYTES_MAX`] bytes. Default: empty.
    pub version: String,
    /// Calls it takes at once, 1 to [`CONCURRENCY_MAX`]. Default: 1.
    pub concurrency: u32,
    /// Calls that may wait for it at the host, at most [`QUEUE_MAX`]. Default: 1024.
    pub queue: u32,
    /// The most calls of the service, all its instances together. Default: no limit. When instances name
    /// different limits, the one that joined last decides.
    pub rate: Option<RateLimit>,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self { version: String::new(), concurrency: 1, queue: 1024, rate: None }
    }
}

/// A token bucket's two numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateLimit {
    /// Calls a second in the long run, a millionth to ten million.
    pub per_second: f64,
    /// Calls at once after a rest, 1 to a million.
    pub burst: u32,
}

impl ServeOptions {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`], naming the field, its value and the limit.
    pub fn validate(&self) -> Result<()> {
        if self.version.len() > VERSION_BYTES_MAX {
            return Err(invalid("version_bytes", self.version.len(), format_args!("{VERSION_BYTES_MAX}")));
        }
        if !(1..=CONCURRENCY_MAX).contains(&self.concurrency) {
            return Err(invalid("concurrency", self.concurrency, format_args!("1 to {CONCURRENCY_MAX}")));
        }
        if self.queue > QUEUE_MAX {
            return Err(invalid("queue", self.queue, QUEUE_MAX));
        }
        if let Some(rate) = self.rate {
            if !(1e-6..=1e7).contains(&rate.per_second) {
                return Err(invalid("rate.per_second", rate.per_second, "0.000001 to 10000000"));
            }
            if !(1..=1_000_000).contains(&rate.burst) {
                return Err(invalid("rate.burst", rate.burst, "1 to 1000000"));
            }
        }
        Ok(())
    }
}

fn invalid(field: &'static str, value: impl fmt::Display, limit: impl fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidArgument, "mesh.serve").with(field, value).with("limit", limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_field_value_and_limit() {
        let default = ServeOptions::default;
        let error = ServeOptions { concurrency: 0, ..default() }.validate().unwrap_err();
        assert_eq!((error.get("concurrency"), error.get("limit")), (Some("0"), Some("1 to 65536")));
        let rate = |per_second, burst| Some(RateLimit { per_second, burst });
        for bad in [
            ServeOptions { version: "v".repeat(256), ..default() },
            ServeOptions { concurrency: 65_537, ..default() },
            ServeOptions { queue: QUEUE_MAX + 1, ..default() },
            ServeOptions { rate: rate(0.0, 1), ..default() },
            ServeOptions { rate: rate(f64::NAN, 1), ..default() },
            ServeOptions { rate: rate(f64::INFINITY, 1), ..default() },
            ServeOptions { rate: rate(1.0, 0), ..default() },
        ] {
            assert_eq!(bad.validate().unwrap_err().kind(), ErrorKind::InvalidArgument, "{bad:?}");
        }
        default().validate().unwrap();
        ServeOptions { queue: 0, rate: rate(1e7, 1), ..default() }.validate().unwrap();
    }
}
