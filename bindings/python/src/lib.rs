//! The native half of the Python package `flowmesh`: the core's handles as Python classes.
//!
//! Knows nothing of defaults that the pure-Python half or the core decides, and starts no thread of its own:
//! handlers run on threads that Python created, in loops that Python runs. The GIL is let go only around calls
//! that may block. Payloads are borrowed from `bytes` objects, which cannot change, and copied once from every
//! other buffer.
//!
//! Python code is called through `python` only: a daemon thread that is in Python code when the interpreter ends is
//! ended by unwinding its stack, and that must not meet a Rust frame.

mod args;
mod call;
mod errors;
mod inspect;
mod jobs;
mod mesh;
mod message;
mod options;
mod payload;
mod pending;
mod python;
mod queue;
mod queue_options;
mod ready;
mod request;
mod service;
mod stats;
mod subscription;
mod wait;
mod worker;

/// The native half of `flowmesh`; use the package, not this module.
#[pyo3::pymodule(name = "_native")]
mod native {
    #[pymodule_export]
    use crate::{
        call::PendingCall,
        errors::kinds,
        inspect::inspect,
        jobs::{Job, NewJob, Receipt},
        mesh::Mesh,
        message::Message,
        options::{Backoff, Breaker, Retry},
        pending::Pending,
        queue::Queue,
        queue_options::{Rate, Unique},
        ready::ReadySet,
        request::{Reply, Request},
        service::Service,
        subscription::Subscription,
        worker::Intake,
    };

    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "Python's name for it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
