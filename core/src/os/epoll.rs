//! Waiting for many descriptors at once.

use super::{check, check_fd, errno, last_error, timespec};
use crate::error::{Error, Result};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// A set of descriptors and who asked for them.
#[derive(Debug)]
pub struct Epoll(OwnedFd);

/// One descriptor that has something to say.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Event(libc::epoll_event);

impl Event {
    /// A place for [`Epoll::wait`] to write to.
    pub const EMPTY: Self = Self(libc::epoll_event { events: 0, u64: 0 });

    /// The token given to [`Epoll::add`].
    pub fn token(&self) -> u64 {
        self.0.u64
    }

    /// Whether a read will not block; true for hang-ups and errors, which a read then reports.
    pub fn is_readable(&self) -> bool {
        self.has(libc::EPOLLIN) || self.is_closed()
    }

    /// Whether a write will not block; true for hang-ups and errors, which a write then reports.
    pub fn is_writable(&self) -> bool {
        self.has(libc::EPOLLOUT) || self.is_closed()
    }

    /// Whether the other side is gone or has stopped sending. Unread bytes may be left.
    pub fn is_closed(&self) -> bool {
        self.has(libc::EPOLLHUP | libc::EPOLLERR | libc::EPOLLRDHUP)
    }

    fn has(&self, flags: i32) -> bool {
        self.0.events & flags as u32 != 0
    }
}

impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Event")
            .field("token", &self.token())
            .field("readable", &self.is_readable())
            .field("writable", &self.is_writable())
            .field("closed", &self.is_closed())
            .finish()
    }
}

impl Epoll {
    /// An empty set.
    ///
    /// # Errors
    /// - `ResourceExhausted`: the descriptor table is full.
    pub fn new() -> Result<Self> {
        // SAFETY: plain call.
        check_fd("os.epoll.new", unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }).map(Self)
    }

    /// Reports `fd` under `token` when it can be read or is hung up: as long as that holds, or only when
    /// it begins to (`edge`).
    ///
    /// # Errors
    /// - `ResourceExhausted`: the user's limit of watches is reached.
    pub fn add(&self, fd: BorrowedFd<'_>, token: u64, edge: bool) -> Result<()> {
        let edge = if edge { libc::EPOLLET } else { 0 };
        self.control(libc::EPOLL_CTL_ADD, fd, token, libc::EPOLLIN | libc::EPOLLRDHUP | edge)
    }

    /// Reports a level-triggered `fd` also when it can be written, or no longer.
    ///
    /// # Errors
    /// - `NotFound`: `fd` was not added.
    pub fn watch_writable(&self, fd: BorrowedFd<'_>, token: u64, on: bool) -> Result<()> {
        let writable = if on { libc::EPOLLOUT } else { 0 };
        self.control(libc::EPOLL_CTL_MOD, fd, token, libc::EPOLLIN | libc::EPOLLRDHUP | writable)
    }

    /// Forgets `fd`.
    ///
    /// # Errors
    /// - `NotFound`: `fd` was not added.
    pub fn remove(&self, fd: BorrowedFd<'_>) -> Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd, 0, 0)
    }

    /// Waits up to `timeout` for events, writes them to the front of `events` and returns their count.
    ///
    /// # Errors
    /// - `Interrupted`: a signal was handled on this thread. Call again.
    pub fn wait(&self, events: &mut [Event], timeout: Option<Duration>) -> Result<usize> {
        const OPERATION: &str = "os.epoll.wait";
        let count = i32::try_from(events.len()).unwrap_or(i32::MAX);
        let buffer = events.as_mut_ptr().cast::<libc::epoll_event>();
        let limit = timeout.map(timespec);
        let limit_pointer = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: `Event` is a transparent `epoll_event` and `events` holds `count` of them; the limit
        // outlives the call and there is no signal mask.
        let ready = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.0.as_raw_fd(),
                buffer,
                count,
                limit_pointer,
                std::ptr::null::<libc::sigset_t>(),
                0_usize,
            )
        };
        if ready >= 0 {
            return Ok(ready as usize);
        }
        if errno() != libc::ENOSYS {
            return Err(last_error(OPERATION));
        }
        // Kernels before 5.11: milliseconds, rounded up so that a short wait is not a busy loop.
        let millis =
            timeout.map_or(-1, |timeout| timeout.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128) as i32);
        // SAFETY: as above.
        let ready = unsafe { libc::epoll_wait(self.0.as_raw_fd(), buffer, count, millis) };
        check(OPERATION, ready).map(|ready| ready as usize)
    }

    fn control(&self, action: i32, fd: BorrowedFd<'_>, token: u64, flags: i32) -> Result<()> {
        let mut event = libc::epoll_event { events: flags as u32, u64: token };
        // SAFETY: both descriptors are open and the event outlives the call.
        let done = unsafe { libc::epoll_ctl(self.0.as_raw_fd(), action, fd.as_raw_fd(), &raw mut event) };
        let described = |error: Error| error.with("fd", fd.as_raw_fd());
        check("os.epoll.control", done).map(drop).map_err(described)
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Epoll> for OwnedFd {
    fn from(epoll: Epoll) -> Self {
        epoll.0
    }
}

#[cfg(test)]
mod tests {
    use super::super::eventfd::EventFd;
    use super::*;

    #[test]
    fn reports_what_became_readable_and_times_out_otherwise() {
        let epoll = Epoll::new().unwrap();
        let (level, edge) = (EventFd::new().unwrap(), EventFd::new().unwrap());
        epoll.add(level.as_fd(), 1, false).unwrap();
        epoll.add(edge.as_fd(), 2, true).unwrap();
        let mut events = [Event::EMPTY; 4];
        assert_eq!(epoll.wait(&mut events, Some(Duration::from_micros(50))).unwrap(), 0);
        level.signal().unwrap();
        edge.signal().unwrap();
        assert_eq!(epoll.wait(&mut events, None).unwrap(), 2);
        assert_eq!(epoll.wait(&mut events, Some(Duration::ZERO)).unwrap(), 1, "only the level stays");
        assert_eq!((events[0].token(), events[0].is_readable(), events[0].is_closed()), (1, true, false));
        edge.signal().unwrap();
        assert_eq!(epoll.wait(&mut events, None).unwrap(), 2, "a write to an undrained eventfd is an edge");
        epoll.remove(level.as_fd()).unwrap();
        assert_eq!(epoll.remove(level.as_fd()).unwrap_err().kind(), crate::ErrorKind::NotFound);
    }

    #[test]
    fn reports_hang_up() {
        let _alone = super::super::test_child::alone();
        let epoll = Epoll::new().unwrap();
        let (mine, theirs) = super::super::socket::socketpair().unwrap();
        epoll.add(mine.as_fd(), 9, false).unwrap();
        epoll.watch_writable(mine.as_fd(), 9, true).unwrap();
        let mut events = [Event::EMPTY; 4];
        assert_eq!(epoll.wait(&mut events, None).unwrap(), 1);
        assert!(events[0].is_writable() && !events[0].is_closed());
        drop(theirs);
        assert_eq!(epoll.wait(&mut events, None).unwrap(), 1);
        assert!(events[0].is_closed());
    }
}
