//! The one error type callers see, and the one list of kinds every language's errors are made from.
//!
//! Imports no other module: it is the floor everybody stands on. The table in `kinds!` is the only
//! place where a kind, its number, its meaning and its advice are written; `tools/generate` turns it
//! into the C codes, the Python classes, the Node codes and `docs/errors.md`.
#![forbid(unsafe_code)]

use std::fmt;

/// The result of every fallible FlowMesh call.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, where, with which values.
///
/// The kind says how to act on it, the operation which call failed, the context which value met which
/// limit. One pointer wide, so `Result` stays small on hot paths.
///
/// ```
/// use flowmesh::{ErrorKind, Subject};
/// let error = Subject::parse("orders..created").unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::InvalidArgument);
/// assert!(error.to_string().contains("orders..created"));
/// assert!(!error.is_retryable());
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    operation: std::borrow::Cow<'static, str>,
    context: Vec<(std::borrow::Cow<'static, str>, String)>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind` met while doing `operation` (`"mesh.open"`, `"queue.ack"`).
    pub fn new(kind: ErrorKind, operation: impl Into<std::borrow::Cow<'static, str>>) -> Self {
        Self(Box::new(Inner { kind, operation: operation.into(), context: Vec::new(), source: None }))
    }

    /// Adds a named value: the argument that was refused, the limit it met, the peer that went away.
    #[must_use]
    pub fn with(mut self, name: impl Into<std::borrow::Cow<'static, str>>, value: impl fmt::Display) -> Self {
        self.0.context.push((name.into(), value.to_string()));
        self
    }

    /// Adds the error underneath.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// How a caller should act on it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The call that failed.
    pub fn operation(&self) -> &str {
        &self.0.operation
    }

    /// The named values, in the order they were added.
    pub fn context(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.context.iter().map(|(name, value)| (name.as_ref(), value.as_str()))
    }

    /// One named value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.context().find(|(found, _)| *found == name).map(|(_, value)| value)
    }

    /// Whether the same call may succeed later without being changed.
    pub fn is_retryable(&self) -> bool {
        self.0.kind.is_retryable()
    }

    /// An `Io` error, or the kind that the operating system's reason stands for.
    pub fn from_io(operation: &'static str, error: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match (error.kind(), error.raw_os_error()) {
            (Io::NotFound, _) => ErrorKind::NotFound,
            (Io::PermissionDenied, _) => ErrorKind::PermissionDenied,
            (Io::Interrupted, _) => ErrorKind::Interrupted,
            (Io::BrokenPipe | Io::ConnectionReset | Io::ConnectionRefused | Io::UnexpectedEof, _) => {
                ErrorKind::Disconnected
            }
            // EMFILE, ENFILE, ENOMEM, ENOSPC: the machine or the process ran out of something.
            (_, Some(24 | 23 | 12 | 28)) => ErrorKind::ResourceExhausted,
            _ => ErrorKind::Io,
        };
        Self::new(kind, operation).because(error)
    }

    /// The same error, so that several waiters can each be given it. The source becomes its text.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        let mut copy = Self::new(self.0.kind, self.0.operation.clone());
        copy.0.context.clone_from(&self.0.context);
        if let Some(source) = &self.0.source {
            copy = copy.because(source.to_string());
        }
        copy
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.operation, self.0.kind.meaning())?;
        for (index, (name, value)) in self.context().enumerate() {
            write!(f, "{}{name}={value}", if index == 0 { " (" } else { ", " })?;
        }
        if !self.0.context.is_empty() {
            f.write_str(")")?;
        }
        match &self.0.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({self})", self.0.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

macro_rules! kinds {
    ($($name:ident = $number:literal, $code:literal, $retryable:literal, $meaning:literal, $advice:literal;)*) => {
        /// How a caller should act on an [`Error`].
        ///
        /// Numbers are stable and never reused; the C code of a kind is its number negated.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(i32)]
        #[non_exhaustive]
        pub enum ErrorKind {
            $(#[doc = concat!($meaning, ". ", $advice)] $name = $number,)*
        }

        impl ErrorKind {
            /// Every kind, by number.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name in upper snake case, as C and Node spell it.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// The name in camel case, as Rust and Python spell it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// What it means, in a few words.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)* }
            }

            /// What the caller should do.
            pub const fn advice(self) -> &'static str {
                match self { $(Self::$name => $advice,)* }
            }

            /// Whether the same call may succeed later without being changed.
            pub const fn is_retryable(self) -> bool {
                match self { $(Self::$name => $retryable,)* }
            }

            /// The stable number, 1 and up.
            pub const fn number(self) -> i32 {
                self as i32
            }

            /// The kind with this number. A number from a newer peer is `Internal`.
            pub const fn from_number(number: i32) -> Self {
                match number { $($number => Self::$name,)* _ => Self::Internal }
            }
        }
    };
}

kinds! {
    InvalidArgument = 1, "INVALID_ARGUMENT", false, "an argument is not valid", "Fix the call: the message names the value and the rule.";
    Timeout = 2, "TIMEOUT", true, "the deadline passed", "Retry with a longer timeout, or find out why the other side is slow.";
    Interrupted = 3, "INTERRUPTED", true, "a signal interrupted the wait", "Handle the signal, then wait again.";
    Closed = 4, "CLOSED", false, "the handle is closed", "Open it again.";
    NotFound = 5, "NOT_FOUND", false, "it does not exist", "Check the name or the path; start the host first.";
    AlreadyExists = 6, "ALREADY_EXISTS", false, "it exists already", "Use another name, or the existing one.";
    AlreadyOpen = 7, "ALREADY_OPEN", true, "another process is the host of this directory", "Connect to it as a client, or wait until the process named in the message ends.";
    PermissionDenied = 8, "PERMISSION_DENIED", false, "permission denied", "Fix the permissions of the directory, or the grants.";
    TooLarge = 9, "TOO_LARGE", false, "a size is over its limit", "Send less at once, or raise the limit named in the message.";
    Full = 10, "FULL", true, "a bounded buffer is full", "Retry later: the receiver is slower than the sender.";
    PeerGone = 11, "PEER_GONE", true, "the process that was to answer is gone", "Retry: another instance may take the call.";
    Disconnected = 12, "DISCONNECTED", true, "the session with the host has ended", "Connect again.";
    Protocol = 13, "PROTOCOL", false, "the other side broke the protocol", "Check that both sides are FlowMesh and of sound builds.";
    VersionMismatch = 14, "VERSION_MISMATCH", false, "no common protocol version", "Upgrade the side with the older range.";
    Forked = 15, "FORKED", false, "the handle belongs to the parent process", "Open or connect again in the forked child.";
    HandlerFailed = 16, "HANDLER_FAILED", false, "the handler failed", "See `type` and `message` of the error: they come from the handler.";
    Cancelled = 17, "CANCELLED", false, "the operation was cancelled", "Nothing to do.";
    RateLimited = 18, "RATE_LIMITED", true, "the service's rate limit is reached", "Retry after `retry_after_ms`.";
    CircuitOpen = 19, "CIRCUIT_OPEN", true, "calls to this service failed too often lately", "Retry after `retry_after_ms`.";
    NoService = 20, "NO_SERVICE", true, "no instance serves this name", "Retry when an instance has joined.";
    ResourceExhausted = 21, "RESOURCE_EXHAUSTED", true, "the system is out of a resource", "Free memory, descriptors or disk space, then retry.";
    Unauthenticated = 22, "UNAUTHENTICATED", false, "the shared secret is missing or wrong", "Give both sides the same secret.";
    Unsupported = 23, "UNSUPPORTED", false, "not supported here", "Use another transport or a newer version.";
    SlowConsumer = 24, "SLOW_CONSUMER", false, "the subscription was ended because it fell behind", "Subscribe again; read faster or choose another policy.";
    Io = 25, "IO", false, "the operating system reported an error", "See the message.";
    Internal = 26, "INTERNAL", false, "an internal error", "Report it: this is a bug in FlowMesh.";
    NullArgument = 27, "NULL_ARGUMENT", false, "a pointer is NULL", "Fix the call: the message names the argument.";
    BadHandle = 28, "BAD_HANDLE", false, "the handle is not one of ours, or was freed", "Fix the call: use the handle before freeing it.";
    StorageFull = 29, "STORAGE_FULL", true, "the disk has no room left", "Nothing was written: free disk space, then retry.";
    Corrupt = 30, "CORRUPT", false, "stored data is damaged", "See `file` and `offset`; open with repair to move the damage into quarantine.";
    Frozen = 31, "FROZEN", false, "a write or flush failed, so nothing more is written", "Open the directory again once the disk is sound; reads go on.";
    LeaseLost = 32, "LEASE_LOST", false, "the job is not this worker's any more", "Stop working on it: it is done, or another worker has it.";
    Conflict = 33, "CONFLICT", false, "it is there already, and differs", "The message names what differs: change one of the two.";
    Draining = 34, "DRAINING", true, "the queue is being drained and takes nothing new", "Retry once it is resumed.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_dense_and_survive_a_round_trip() {
        for (index, kind) in ErrorKind::ALL.iter().enumerate() {
            assert_eq!(kind.number(), index as i32 + 1, "{kind:?}");
            assert_eq!(ErrorKind::from_number(kind.number()), *kind);
        }
        assert_eq!(ErrorKind::from_number(9999), ErrorKind::Internal);
    }

    #[test]
    fn display_names_operation_meaning_and_values() {
        let error = Error::new(ErrorKind::TooLarge, "mesh.publish").with("payload_bytes", 9).with("limit", 8);
        assert_eq!(error.to_string(), "mesh.publish: a size is over its limit (payload_bytes=9, limit=8)");
        assert_eq!(error.get("limit"), Some("8"));
        assert_eq!(error.duplicate().to_string(), error.to_string());
    }

    #[test]
    fn full_descriptor_table_is_resource_exhausted() {
        let error = Error::from_io("mesh.connect", std::io::Error::from_raw_os_error(24));
        assert_eq!(error.kind(), ErrorKind::ResourceExhausted);
        assert!(error.is_retryable());
    }
}
