//! The exclusive lock of a data directory.
//!
//! `flowmesh.lock` holds the holder's pid as text, for people and for the message of the second opener;
//! what decides is an open-file-description lock. The kernel drops it with the last descriptor, so a
//! `kill -9` frees it, and a forked child does not prolong it because it does not keep the descriptor.
//! The file stays: removing it would let two processes lock two files of the same name.

use super::fork::{self, GuardedFd};
use super::{errno, last_error, pidfd};
use crate::error::{Error, ErrorKind, Result};
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

/// This process is the host of a directory until this is dropped.
#[derive(Debug)]
pub struct DirLock {
    fd: GuardedFd,
}

/// The name of the lock file in the directory.
pub const LOCK_FILE: &str = "flowmesh.lock";

impl DirLock {
    /// Makes this process the host of the existing `directory`.
    ///
    /// # Errors
    /// - [`ErrorKind::AlreadyOpen`]: another holder, in this process or another; `pid` in the context.
    /// - [`ErrorKind::NotFound`], [`ErrorKind::PermissionDenied`]: the directory cannot be used.
    pub fn acquire(directory: &Path) -> Result<Self> {
        const OPERATION: &str = "os.lock.acquire";
        let described = |error: Error| error.with("directory", directory.display());
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .custom_flags(libc::O_CLOEXEC | libc::O_NOFOLLOW)
            .open(directory.join(LOCK_FILE))
            .map_err(|error| described(Error::from_io(OPERATION, error)))?;
        let patience = Instant::now() + LINGER;
        while set_lock(file.as_raw_fd(), libc::F_WRLCK) == -1 {
            if !matches!(errno(), libc::EAGAIN | libc::EACCES) {
                return Err(described(last_error(OPERATION)));
            }
            let holder = holder(&file);
            if holder.is_some_and(is_alive) || Instant::now() >= patience {
                let error = described(Error::new(ErrorKind::AlreadyOpen, OPERATION));
                return Err(match holder {
                    Some(pid) => error.with("pid", pid),
                    None => error.with("pid", "unknown"),
                });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let text = format!("{}\n", std::process::id());
        let written = file.set_len(0).and_then(|()| file.write_all_at(text.as_bytes(), 0));
        written.map_err(|error| described(Error::from_io(OPERATION, error)))?;
        Ok(Self { fd: fork::guard(OwnedFd::from(file)) })
    }
}

impl Drop for DirLock {
    fn drop(&mut self) {
        if self.fd.is_here() {
            // An empty file says "nobody" to a person who looks. Unlocked by name, not by closing: a
            // child that is being forked right now still has the descriptor for a moment.
            // SAFETY: plain call on a descriptor we own.
            unsafe { libc::ftruncate(self.fd.as_raw_fd(), 0) };
            set_lock(self.fd.as_raw_fd(), libc::F_UNLCK);
        }
    }
}

/// How long a lock may outlive its holder, or stay without a name: a holder writes its pid right after it
/// has locked, and a child that was forked from a dying holder lets go as soon as it first runs.
const LINGER: Duration = Duration::from_millis(200);

fn set_lock(fd: RawFd, kind: i32) -> i32 {
    let whole = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    // SAFETY: `whole` outlives the call, which only reads it.
    unsafe { libc::fcntl(fd, libc::F_OFD_SETLK, &raw const whole) }
}

/// The pid in the lock file.
fn holder(file: &File) -> Option<i32> {
    let mut text = [0_u8; 16];
    let len = file.read_at(&mut text, 0).ok()?;
    std::str::from_utf8(&text[..len]).ok()?.trim_end().parse().ok()
}

fn is_alive(pid: i32) -> bool {
    pidfd::open(pid).is_ok_and(|process| !pidfd::is_dead(process.as_fd()))
}

#[cfg(test)]
mod tests {
    use super::super::test_child::{Child, TempDir, alone};
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn a_second_open_in_the_same_process_is_told_the_pid() {
        let directory = TempDir::new("lock");
        let held = DirLock::acquire(directory.path()).unwrap();
        let error = DirLock::acquire(directory.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyOpen);
        assert_eq!(error.get("pid"), Some(std::process::id().to_string().as_str()));
        assert_eq!(error.get("directory"), Some(directory.path().display().to_string().as_str()));
        drop(held);
        drop(DirLock::acquire(directory.path()).unwrap());
        assert!(directory.path().join(LOCK_FILE).exists());
    }

    #[test]
    fn a_missing_directory_is_not_made() {
        let directory = TempDir::new("lock-missing");
        let missing = directory.path().join("no");
        assert_eq!(DirLock::acquire(&missing).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn is_free_after_sigkill_of_the_holder_though_its_forked_child_lives() {
        let _alone = alone();
        let directory = TempDir::new("lock-kill");
        let path = directory.path().to_owned();
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        let holder = Child::fork(move || {
            let _lock = DirLock::acquire(&path).unwrap();
            let grandchild = Child::fork(|| {
                loop {
                    std::thread::sleep(Duration::from_secs(1));
                }
            });
            writer.write_all(&grandchild.pid().to_le_bytes()).unwrap();
            loop {
                std::thread::sleep(Duration::from_secs(1));
            }
        });
        let mut pid = [0; 4];
        reader.read_exact(&mut pid).unwrap();
        let grandchild = pidfd::open(i32::from_le_bytes(pid)).unwrap();

        let error = DirLock::acquire(directory.path()).unwrap_err();
        assert_eq!(error.get("pid"), Some(holder.pid().to_string().as_str()));
        holder.kill();
        drop(holder);
        assert!(!pidfd::is_dead(grandchild.as_fd()));
        drop(DirLock::acquire(directory.path()).expect("the child must not hold the lock"));
        // SAFETY: plain call on a pidfd we own.
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, grandchild.as_raw_fd(), libc::SIGKILL, 0, 0) };
    }
}
