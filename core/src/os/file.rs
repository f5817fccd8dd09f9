//! What files need beyond the standard library: room reserved ahead, and a page cache that is not believed.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Gives the first `bytes` bytes of a file room on the disk; it is at least that long afterwards.
///
/// The length changes at once, so that later writes into the room change nothing but data and a flush of them is
/// short.
///
/// # Errors
/// The kernel's; `StorageFull` (ENOSPC) when there is no such room.
pub fn allocate(fd: BorrowedFd<'_>, bytes: u64) -> io::Result<()> {
    let bytes = libc::off_t::try_from(bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
    // SAFETY: plain call on a descriptor that is borrowed for its length.
    match unsafe { libc::fallocate(fd.as_raw_fd(), 0, 0, bytes) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Drops the file's clean pages from the cache, so that the next read asks the disk.
///
/// # Errors
/// The kernel's.
pub fn drop_cache(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: plain call on a descriptor that is borrowed for its length.
    match unsafe { libc::posix_fadvise(fd.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Has the kernel read the file into the cache meanwhile.
///
/// # Errors
/// The kernel's.
pub fn read_ahead(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: plain call on a descriptor that is borrowed for its length.
    match unsafe { libc::posix_fadvise(fd.as_raw_fd(), 0, 0, libc::POSIX_FADV_WILLNEED) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_child::TempDir;
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;

    #[test]
    fn room_is_zero_and_counts_at_once() {
        let directory = TempDir::new("file");
        let file = std::fs::File::create_new(directory.path().join("room")).unwrap();
        super::allocate(file.as_fd(), 100_000).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 100_000);
        file.write_all_at(b"kept", 50_000).unwrap();
        super::allocate(file.as_fd(), 60_000).unwrap();
        super::drop_cache(file.as_fd()).unwrap();
        super::read_ahead(file.as_fd()).unwrap();
        let bytes = std::fs::read(directory.path().join("room")).unwrap();
        assert_eq!((bytes.len(), &bytes[50_000..50_004]), (100_000, &b"kept"[..]));
        assert_eq!(bytes.iter().filter(|byte| **byte != 0).count(), 4);
        assert_eq!(
            super::allocate(file.as_fd(), u64::MAX).unwrap_err().kind(),
            std::io::ErrorKind::FileTooLarge
        );
    }
}
