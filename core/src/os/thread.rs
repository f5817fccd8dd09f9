//! Threads that no signal of the program is delivered to.

use crate::error::{Error, Result};
use std::thread::JoinHandle;

/// Starts a thread named `name` that never runs the program's signal handlers.
///
/// The signals are blocked here before the thread exists and restored afterwards, so there is no moment
/// in which it could take one. Faults (`SIGSEGV` and its like) stay unblocked: they belong to the thread
/// that caused them, and a crash reporter should see them.
///
/// # Errors
/// - `ResourceExhausted` or `Io`: the system gives no more threads.
pub fn spawn<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>> {
    let before = Blocked::new();
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    drop(before);
    started.map_err(|error| Error::from_io("os.thread.spawn", error).with("name", name))
}

/// The calling thread takes no signals while this lives.
struct Blocked {
    before: libc::sigset_t,
}

impl Blocked {
    fn new() -> Self {
        // SAFETY: `sigset_t` is plain bits, `sigfillset` writes all of it, and both outlive the calls.
        unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            let mut before: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            for fault in
                [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS]
            {
                libc::sigdelset(&raw mut all, fault);
            }
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
            Self { before }
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: restores the mask that `new` read on this same thread: `Blocked` is a local of `spawn`.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(signal: i32) -> bool {
        // SAFETY: reads this thread's mask into a local.
        unsafe {
            let mut now: libc::sigset_t = std::mem::zeroed();
            libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut now);
            libc::sigismember(&raw const now, signal) == 1
        }
    }

    #[test]
    fn signals_are_blocked_there_and_as_before_here() {
        let before = blocks(libc::SIGUSR1);
        let seen = spawn("fm-test", || {
            let name = std::thread::current().name().map(str::to_owned);
            (blocks(libc::SIGINT), blocks(libc::SIGTERM), blocks(libc::SIGSEGV), name)
        });
        assert_eq!(seen.unwrap().join().unwrap(), (true, true, false, Some("fm-test".to_owned())));
        assert_eq!(blocks(libc::SIGUSR1), before);
    }
}
