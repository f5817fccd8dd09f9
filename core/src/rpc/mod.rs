//! Calls: who serves them, who waits for them.
//!
//! [`Rpc`] is the host's table of services, instances and calls under way. It is plain state: it starts
//! no thread, takes no lock and asks no clock. Every change appends [`Effect`]s to a list, and `mesh`
//! does what they say, in their order. [`Breaker`](breaker::Breaker) belongs to the caller's side.
#![forbid(unsafe_code)]

pub mod breaker;
mod calls;
pub mod limit;
mod options;
mod slab;
mod state;

pub use breaker::{Breaker, BreakerOptions};
pub use options::{CONCURRENCY_MAX, QUEUE_MAX, RateLimit, ServeOptions, VERSION_BYTES_MAX};
pub use state::{Rpc, RpcCounters, RpcLimits};

use crate::{error::Result, wire::Message};
use std::time::Duration;

/// An instance as its owner names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceKey {
    /// The session; 0 is the host itself.
    pub owner: u32,
    /// The owner's number for it.
    pub id: u32,
}

/// A call as its caller names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallerKey {
    /// The session; 0 is the host itself.
    pub owner: u32,
    /// The caller's number for it, one it has no other call under way with.
    pub call: u64,
}

/// Whose process an instance is, for discovery and errors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstanceWho {
    /// The process.
    pub pid: u32,
    /// The name its client gave.
    pub client: String,
}

/// What is to be done.
#[derive(Debug)]
pub enum Effect {
    /// Give this call to this instance.
    Deliver {
        /// The instance.
        instance: InstanceKey,
        /// The host's number for the call, to be given back with the answer.
        call: u64,
        /// The request.
        message: Message,
        /// Time left until its deadline.
        remaining: Duration,
    },
    /// Give this answer to the caller. Every request gets exactly one, unless its owner is gone.
    Answer {
        /// The caller's name for the call.
        caller: CallerKey,
        /// The response or the error.
        result: Result<Message>,
    },
    /// Tell this instance that nobody waits for this call any more. It may still answer; that frees it for
    /// the next call.
    Cancel {
        /// The instance.
        instance: InstanceKey,
        /// The host's number for the call.
        call: u64,
    },
}

/// Whole milliseconds, rounded up: waiting that long is long enough.
fn millis_up(duration: Duration) -> u128 {
    duration.as_nanos().div_ceil(1_000_000)
}
