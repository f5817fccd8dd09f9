//! Options of the mesh's own calls.
#![forbid(unsafe_code)]

use crate::error::{Error, ErrorKind, Result};
use std::{fmt, time::Duration};

/// How an event is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishOptions {
    /// Names and values that travel with it. At most 64, 16 KiB together. `content-type` says how the
    /// payload is encoded; `traceparent` passes through.
    pub headers: Vec<(String, String)>,
    /// 0 to 9; among the events that wait for a subscriber, higher ones are delivered first. Default: 4.
    pub priority: u8,
    /// It is not delivered any more after this time. Millisecond steps, at most 49 days. Default: never expires.
    pub ttl: Option<Duration>,
    /// It is delivered after this time. Millisecond steps, at most 49 days. Default: at once.
    pub delay: Option<Duration>,
    /// How long publishing may wait for room, or for subscribers that block. Default: 30 s.
    pub timeout: Duration,
}

impl Default for PublishOptions {
    fn default() -> Self {
        Self {
            headers: Vec::new(),
            priority: crate::wire::PRIORITY_DEFAULT,
            ttl: None,
            delay: None,
            timeout: Duration::from_secs(30),
        }
    }
}

/// How a service is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallOptions {
    /// The call's deadline, counted from now; it travels with the call. Default: 30 s.
    pub timeout: Duration,
    /// Names and values that travel with the request. At most 64, 16 KiB together.
    pub headers: Vec<(String, String)>,
}

impl Default for CallOptions {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30), headers: Vec::new() }
    }
}

/// Why a handler failed, as its caller will see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandlerError {
    /// The error's type: `ValueError`, `std::io::Error`.
    pub kind: String,
    /// What it says.
    pub message: String,
}

impl HandlerError {
    /// An error of this type and text.
    pub fn new(kind: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind: kind.into(), message: message.into() }
    }

    pub(super) fn to_error(&self) -> Error {
        Error::new(ErrorKind::HandlerFailed, "mesh.call")
            .with("type", shorten(&self.kind, 256))
            .with("message", shorten(&self.message, 4096))
    }
}

pub(super) fn shorten(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)
    }
}

impl<E: std::error::Error> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self::new(std::any::type_name::<E>(), error.to_string())
    }
}

/// What a handler answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// The payload.
    pub payload: Vec<u8>,
    /// Names and values that travel with it.
    pub headers: Vec<(String, String)>,
}

impl From<Vec<u8>> for Reply {
    fn from(payload: Vec<u8>) -> Self {
        Self { payload, headers: Vec::new() }
    }
}

impl From<&[u8]> for Reply {
    fn from(payload: &[u8]) -> Self {
        payload.to_vec().into()
    }
}

impl From<&str> for Reply {
    fn from(payload: &str) -> Self {
        payload.as_bytes().into()
    }
}

/// A duration in the wire's milliseconds; anything above zero is at least one.
pub(super) fn millis(value: Option<Duration>, name: &'static str, operation: &'static str) -> Result<u32> {
    let Some(value) = value else { return Ok(0) };
    let millis = value.as_nanos().div_ceil(1_000_000);
    u32::try_from(millis).map_err(|_| {
        Error::new(ErrorKind::InvalidArgument, operation)
            .with(name, format!("{millis} ms"))
            .with("limit_ms", u32::MAX)
    })
}
