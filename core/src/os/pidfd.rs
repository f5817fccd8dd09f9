//! Who the other side is, and whether it lives.
//!
//! A pid alone never identifies anybody: it may be given to another process. A pidfd cannot.

use super::{check, check_fd, errno, last_error};
use crate::error::{Error, ErrorKind, Result};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// What the kernel said of the process that connected, at the time it connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cred {
    /// Process id in our namespace; 0 if it has none here.
    pub pid: i32,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// The credentials of the peer of a Unix socket.
///
/// # Errors
/// - [`ErrorKind::Io`]: `socket` is no Unix socket.
pub fn peer_cred(socket: BorrowedFd<'_>) -> Result<Cred> {
    let mut cred = libc::ucred { pid: 0, uid: 0, gid: 0 };
    socket_option("os.peer_cred", socket, libc::SO_PEERCRED, &mut cred)?;
    Ok(Cred { pid: cred.pid, uid: cred.uid, gid: cred.gid })
}

/// A pidfd of the process that connected the other end of `socket`.
///
/// Where the kernel cannot give it (before 6.5) it is opened by pid, and a process that ended and whose
/// pid was taken meanwhile goes unnoticed.
///
/// # Errors
/// - [`ErrorKind::PeerGone`]: the process has ended and was waited for.
pub fn of_socket_peer(socket: BorrowedFd<'_>) -> Result<OwnedFd> {
    const OPERATION: &str = "os.pidfd.of_socket_peer";
    let mut number: libc::c_int = -1;
    match raw_socket_option(socket, SO_PEERPIDFD, &mut number) {
        0 => check_fd(OPERATION, number),
        _ => match errno() {
            libc::ENOPROTOOPT => open(peer_cred(socket)?.pid),
            libc::ESRCH | libc::EINVAL | libc::ENODATA => Err(Error::new(ErrorKind::PeerGone, OPERATION)),
            _ => Err(last_error(OPERATION)),
        },
    }
}

/// A pidfd of process `pid`.
///
/// # Errors
/// - [`ErrorKind::PeerGone`]: there is no such process.
pub fn open(pid: i32) -> Result<OwnedFd> {
    const OPERATION: &str = "os.pidfd.open";
    // SAFETY: plain call. The kernel makes every pidfd close-on-exec.
    let made = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if made == -1 && matches!(errno(), libc::ESRCH | libc::EINVAL) {
        return Err(Error::new(ErrorKind::PeerGone, OPERATION).with("pid", pid));
    }
    check_fd(OPERATION, made).map_err(|error| error.with("pid", pid))
}

/// Whether the process behind `pidfd` has ended, waited for or not.
pub fn is_dead(pidfd: BorrowedFd<'_>) -> bool {
    let mut entry = libc::pollfd { fd: pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, which outlives the call.
    let ready = unsafe { libc::poll(&raw mut entry, 1, 0) };
    ready == 1 && entry.revents & (libc::POLLIN | libc::POLLHUP) != 0
}

fn socket_option<T>(
    operation: &'static str,
    socket: BorrowedFd<'_>,
    option: i32,
    value: &mut T,
) -> Result<()> {
    check(operation, raw_socket_option(socket, option, value)).map(drop)
}

fn raw_socket_option<T>(socket: BorrowedFd<'_>, option: i32, value: &mut T) -> i32 {
    let mut len = size_of::<T>() as libc::socklen_t;
    let place = std::ptr::from_mut(value).cast();
    // SAFETY: the kernel writes at most `len` bytes, the size of `value`, which is plain integers.
    unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, place, &raw mut len) }
}

// The libc crate names it for few targets. The number is that of every architecture but MIPS, PA-RISC and SPARC.
const SO_PEERPIDFD: libc::c_int = 77;

#[cfg(test)]
mod tests {
    use super::super::test_child::{Child, alone};
    use super::*;
    use std::os::fd::AsFd;
    use std::time::Duration;

    #[test]
    fn the_peer_of_a_socketpair_is_ourselves_and_alive() {
        let (mine, _theirs) = super::super::socket::socketpair().unwrap();
        let cred = peer_cred(mine.as_fd()).unwrap();
        assert_eq!(cred.pid as u32, std::process::id());
        assert!(!is_dead(of_socket_peer(mine.as_fd()).unwrap().as_fd()));
    }

    #[test]
    fn a_killed_process_is_dead_before_it_is_waited_for() {
        let _alone = alone();
        let child = Child::fork(|| {
            loop {
                std::thread::sleep(Duration::from_secs(1));
            }
        });
        let pidfd = open(child.pid()).unwrap();
        assert!(!is_dead(pidfd.as_fd()));
        child.kill();
        assert!(super::super::socket::wait_readable(pidfd.as_fd(), Some(Duration::from_secs(10))).unwrap());
        assert!(is_dead(pidfd.as_fd()));
        let pid = child.pid();
        drop(child);
        assert!(is_dead(pidfd.as_fd()));
        assert_eq!(open(pid).unwrap_err().kind(), ErrorKind::PeerGone);
    }
}
