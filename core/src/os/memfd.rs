//! Anonymous memory files: made at full size, then sealed so that no holder can change their shape.
//!
//! Never grows or shrinks one: a page that is missing later would be a signal instead of an error.

use super::{check, check_fd, errno, last_error};
use crate::error::{Error, ErrorKind, Result};
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Seals that fix the size. Nothing can be truncated under a map any more.
pub const SIZE_SEALS: i32 = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW;

/// Seals that fix the size, refuse every new writer and every further seal.
pub const WRITER_SEALS: i32 = SIZE_SEALS | libc::F_SEAL_FUTURE_WRITE | libc::F_SEAL_SEAL;

/// Makes a sealable memory file of `len` bytes, all zero, all allocated.
///
/// `name` shows in `/proc/self/maps` and need not be unique.
///
/// # Errors
/// - [`ErrorKind::ResourceExhausted`]: no memory or no descriptor for it. Free some, then retry.
pub fn create(name: &str, len: u64) -> Result<OwnedFd> {
    const OPERATION: &str = "os.memfd.create";
    let c_name = CString::new(name)
        .map_err(|_| Error::new(ErrorKind::InvalidArgument, OPERATION).with("name", name.escape_debug()))?;
    let size = libc::off_t::try_from(len)
        .map_err(|_| Error::new(ErrorKind::TooLarge, OPERATION).with("bytes", len))?;
    let make = |flags: libc::c_uint| {
        // SAFETY: `c_name` is a C string that outlives the call.
        unsafe { libc::memfd_create(c_name.as_ptr(), flags) }
    };
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    let mut made = make(flags | libc::MFD_NOEXEC_SEAL);
    if made == -1 && errno() == libc::EINVAL {
        // Kernels before 6.3 do not know the flag.
        made = make(flags);
    }
    let named = |error: Error| error.with("name", name).with("bytes", len);
    let fd = check_fd(OPERATION, made).map_err(named)?;
    // SAFETY: plain call on a descriptor we own.
    check(OPERATION, unsafe { libc::ftruncate(fd.as_raw_fd(), size) }).map_err(named)?;
    allocate(fd.as_fd(), len).map_err(named)?;
    Ok(fd)
}

/// Makes sure that each of the first `len` bytes has memory behind it, holes punched earlier included.
///
/// # Errors
/// - [`ErrorKind::ResourceExhausted`]: no memory for it.
pub fn allocate(fd: BorrowedFd<'_>, len: u64) -> Result<()> {
    loop {
        // SAFETY: plain call on an open descriptor.
        let done = unsafe { libc::fallocate(fd.as_raw_fd(), 0, 0, len as libc::off_t) };
        if done == 0 {
            return Ok(());
        }
        // A large allocation is undone by any signal, so this is not the caller's to see.
        if errno() != libc::EINTR {
            return Err(last_error("os.memfd.allocate"));
        }
    }
}

/// Adds `wanted` to the seals of `fd`.
///
/// # Errors
/// - [`ErrorKind::PermissionDenied`]: someone has sealed the seals.
pub fn add_seals(fd: BorrowedFd<'_>, wanted: i32) -> Result<()> {
    // SAFETY: F_ADD_SEALS takes an int.
    let done = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, wanted) };
    check("os.memfd.seal", done).map(drop).map_err(|error| error.with("seals", wanted))
}

/// Refuses every writer but the maps that exist already, and every further seal.
///
/// # Errors
/// - [`ErrorKind::PermissionDenied`]: someone has sealed the seals.
pub fn seal_writer(fd: BorrowedFd<'_>) -> Result<()> {
    add_seals(fd, WRITER_SEALS)
}

/// The seals of `fd`.
///
/// # Errors
/// - [`ErrorKind::Io`]: `fd` is not a memory file.
pub fn seals(fd: BorrowedFd<'_>) -> Result<i32> {
    // SAFETY: F_GET_SEALS takes no argument.
    check("os.memfd.seals", unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) })
        .map(|seals| seals as i32)
}

/// The size of the file behind `fd`.
///
/// # Errors
/// - [`ErrorKind::Io`]: the descriptor cannot be asked.
pub fn len(fd: BorrowedFd<'_>) -> Result<u64> {
    // SAFETY: an all-zero `stat` is a valid value of that plain struct.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is a valid place for the answer.
    check("os.memfd.len", unsafe { libc::fstat(fd.as_raw_fd(), &raw mut stat) })?;
    Ok(stat.st_size.max(0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn truncate(fd: &OwnedFd, len: i64) -> i32 {
        // SAFETY: plain call on a descriptor we own.
        unsafe { libc::ftruncate(fd.as_raw_fd(), len) }
    }

    #[test]
    fn size_seals_refuse_both_ways_and_writer_seals_are_final() {
        let fd = create("flowmesh-test", 8192).unwrap();
        assert_eq!(len(fd.as_fd()).unwrap(), 8192);
        add_seals(fd.as_fd(), SIZE_SEALS).unwrap();
        assert_eq!((truncate(&fd, 4096), truncate(&fd, 1 << 20)), (-1, -1));
        seal_writer(fd.as_fd()).unwrap();
        assert_eq!(seals(fd.as_fd()).unwrap() & WRITER_SEALS, WRITER_SEALS);
        let refused = add_seals(fd.as_fd(), libc::F_SEAL_WRITE).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
    }

    #[test]
    fn a_sealed_file_can_still_be_filled_up() {
        let fd = create("flowmesh-test", 8192).unwrap();
        seal_writer(fd.as_fd()).unwrap();
        allocate(fd.as_fd(), 8192).unwrap();
    }

    #[test]
    fn a_name_with_a_zero_byte_is_refused() {
        assert_eq!(create("a\0b", 4096).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }

    #[test]
    fn other_descriptors_have_no_seals() {
        let file = std::fs::File::open("/proc/self/status").unwrap();
        assert!(seals(file.as_fd()).is_err());
    }
}
