//! The native half of the Python package `flowmesh`: the core's handles as Python classes.
//!
//! Knows nothing of defaults that the pure-Python half or the core decides, and starts no thread of its own:
//! handlers run on threads that Python created, in loops that Python runs. The GIL is let go only around calls
//! that may block. Payloads are borrowed from `bytes` objects, which cannot change, and copied once from every
//! other buffer.
//!
//! Python code is not called from here where it can be helped: a daemon thread that is in Python code when the
//! interpreter ends is ended by unwinding its stack, and that must not meet a Rust frame.

mod args;
mod call;
mod errors;
mod mesh;
mod message;
mod options;
mod payload;
mod ready;
mod request;
mod service;
mod stats;
mod subscription;
mod wait;

/// The native half of `flowmesh`; use the package, not this module.
#[pyo3::pymodule(name = "_native")]
mod native {
    #[pymodule_export]
    use crate::{
        call::PendingCall,
        errors::kinds,
        mesh::Mesh,
        message::Message,
        options::{Backoff, Breaker, Retry},
        ready::ReadySet,
        request::{Reply, Request},
        service::Service,
        subscription::Subscription,
    };

    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "Python's name for it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
