//! A counter with a descriptor, so that an event loop can be woken.
//!
//! Share one with an untrusted peer in one direction only: the peer rings, this process drains. A peer
//! that holds it can clear `O_NONBLOCK` and fill the counter, which would block whoever rings it, so a
//! host wakes a client by [`super::socket::send_nowait`] instead, where not waiting is part of the call.

use super::{check_fd, errno, last_error};
use crate::error::Result;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// A non-blocking eventfd.
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// A counter at zero.
    ///
    /// # Errors
    /// - `ResourceExhausted`: the descriptor table is full.
    pub fn new() -> Result<Self> {
        // SAFETY: plain call.
        check_fd("os.eventfd.new", unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })
            .map(Self)
    }

    /// Makes it readable. Does nothing if the counter is full, since it is readable then.
    ///
    /// # Errors
    /// - `Io`: the descriptor is not an eventfd.
    pub fn signal(&self) -> Result<()> {
        let one = 1_u64;
        // SAFETY: writes the 8 bytes of `one`.
        let wrote = unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), 8) };
        if wrote == 8 || matches!(errno(), libc::EAGAIN | libc::EINTR) {
            return Ok(());
        }
        Err(last_error("os.eventfd.signal"))
    }

    /// Takes the count and makes it unreadable. Never blocks, whatever a peer did to the descriptor's flags.
    ///
    /// # Errors
    /// - `Io`: the descriptor is not an eventfd.
    pub fn drain(&self) -> Result<u64> {
        let mut count = 0_u64;
        let part = libc::iovec { iov_base: (&raw mut count).cast(), iov_len: 8 };
        // SAFETY: reads into the 8 bytes of `count`, which outlives the call.
        let read = unsafe { libc::preadv2(self.0.as_raw_fd(), &raw const part, 1, -1, libc::RWF_NOWAIT) };
        if read == 8 {
            return Ok(count);
        }
        match errno() {
            libc::EAGAIN | libc::EINTR => Ok(0),
            _ => Err(last_error("os.eventfd.drain")),
        }
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for EventFd {
    /// Takes a descriptor that came over a socket.
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl From<EventFd> for OwnedFd {
    fn from(event: EventFd) -> Self {
        event.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_empties() {
        let event = EventFd::new().unwrap();
        assert_eq!(event.drain().unwrap(), 0);
        event.signal().unwrap();
        event.signal().unwrap();
        assert_eq!(event.drain().unwrap(), 2);
        assert_eq!(event.drain().unwrap(), 0);
    }

    #[test]
    fn a_peer_that_clears_nonblock_cannot_hang_the_drain() {
        let event = EventFd::new().unwrap();
        // SAFETY: plain call on a descriptor we own.
        assert_eq!(unsafe { libc::fcntl(event.0.as_raw_fd(), libc::F_SETFL, 0) }, 0);
        assert_eq!(event.drain().unwrap(), 0);
    }

    #[test]
    fn other_descriptors_are_an_error() {
        let file = std::fs::File::open("/proc/self/status").unwrap();
        assert!(EventFd::from(OwnedFd::from(file)).signal().is_err());
    }
}
