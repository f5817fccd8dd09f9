//! The kernel, one small file per thing asked of it. Linux only.
//!
//! Knows descriptors, memory, sleeping and peers; never rings, messages or sessions. Every descriptor
//! made here is close-on-exec, every failure is a [`crate::Error`] with the values that met it, and
//! nothing here keeps a thread. Atomics in this row are the standard ones: it is not modelled by loom.

pub mod cpu;
pub mod epoll;
pub mod eventfd;
pub mod file;
pub mod fork;
pub mod futex;
pub mod lock;
pub mod map;
pub mod memfd;
pub mod parker;
pub mod pidfd;
mod random;
pub mod socket;
pub mod thread;
pub mod time;

#[cfg(test)]
pub(crate) mod test_child;

pub use random::random;

use crate::error::{Error, Result};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// The error of the system call that just failed on this thread.
#[cold]
fn last_error(operation: &'static str) -> Error {
    Error::from_io(operation, std::io::Error::last_os_error())
}

/// The number of the error of the system call that just failed on this thread.
fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// The value a system call returned, or its error.
fn check(operation: &'static str, returned: impl Into<i64>) -> Result<i64> {
    match returned.into() {
        -1 => Err(last_error(operation)),
        value => Ok(value),
    }
}

/// The descriptor a system call returned, or its error.
fn check_fd(operation: &'static str, returned: impl Into<i64>) -> Result<OwnedFd> {
    let fd = check(operation, returned)? as RawFd;
    // SAFETY: the kernel just made this descriptor for this call, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `timeout` as the kernel wants it. The longest it takes stands for anything longer.
fn timespec(timeout: std::time::Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX >> 1),
        tv_nsec: i64::from(timeout.subsec_nanos()),
    }
}
