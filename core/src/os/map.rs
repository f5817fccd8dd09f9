//! Shared maps of memory files: plain, or with the tail of the file mapped twice back to back.
//!
//! Knows nothing of what lies in them. A forked child does not inherit a map (`MADV_DONTFORK`), so a
//! child can never become a second writer.

use super::fork::Origin;
use super::last_error;
use crate::error::Result;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

/// What this process may do with a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Loads only; a store would be a fault.
    ReadOnly,
    /// Loads and stores.
    ReadWrite,
}

/// A range of address space backed by a memory file, unmapped on drop.
#[derive(Debug)]
pub struct Map {
    base: NonNull<u8>,
    len: usize,
    origin: Origin,
}

// SAFETY: a `Map` is an address range and hands out only raw pointers; who uses them answers for it.
unsafe impl Send for Map {}
// SAFETY: as above: no method reads or writes through the pointer.
unsafe impl Sync for Map {}

impl Map {
    /// Maps the first `len` bytes of `fd`, all pages present. `len` is a multiple of the page size.
    ///
    /// # Errors
    /// - `PermissionDenied`: a seal of the file refuses this access.
    /// - `ResourceExhausted`: no address space or memory.
    pub fn plain(fd: BorrowedFd<'_>, len: usize, access: Access) -> Result<Self> {
        Self::mirrored(fd, len, 0, access)
    }

    /// Maps the first `head + ring` bytes of `fd`, then its last `ring` bytes once more right after.
    ///
    /// Byte `head + i` and byte `head + ring + i` are the same memory, so a run of up to `ring` bytes
    /// that starts anywhere in the first copy is contiguous. Both sizes are multiples of the page size.
    ///
    /// # Errors
    /// As for [`Map::plain`].
    pub fn mirrored(fd: BorrowedFd<'_>, head: usize, ring: usize, access: Access) -> Result<Self> {
        const OPERATION: &str = "os.map";
        let len = head + 2 * ring;
        // SAFETY: reserves fresh address space chosen by the kernel; nothing else lies there.
        let reserved = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if reserved == libc::MAP_FAILED {
            return Err(last_error(OPERATION).with("bytes", len));
        }
        let base = NonNull::new(reserved.cast::<u8>()).expect("mmap gives no null page");
        let map = Self { base, len, origin: Origin::here() };
        let mut parts = vec![(0, head + ring, 0)];
        if ring > 0 {
            parts.push((head + ring, ring, head));
        }
        let protection = match access {
            Access::ReadOnly => libc::PROT_READ,
            Access::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
        };
        for (at, bytes, offset) in parts {
            // SAFETY: `at + bytes <= len`, so this replaces only pages of the reservation made above,
            // which `map` alone owns and nobody has used yet.
            let mapped = unsafe {
                libc::mmap(
                    base.as_ptr().add(at).cast(),
                    bytes,
                    protection,
                    libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_POPULATE,
                    fd.as_raw_fd(),
                    offset as libc::off_t,
                )
            };
            if mapped == libc::MAP_FAILED {
                return Err(last_error(OPERATION)
                    .with("bytes", bytes)
                    .with("access", format_args!("{access:?}")));
            }
        }
        // SAFETY: the range is ours; the advice changes nothing in this process.
        if unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_DONTFORK) } == -1 {
            return Err(last_error(OPERATION).with("advice", "MADV_DONTFORK"));
        }
        Ok(map)
    }

    /// The first byte.
    #[inline]
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// The length of the address range; a mirrored part counts twice.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // A forked child has no such map; by now the addresses may hold something of its own.
        if self.origin.is_here() {
            // SAFETY: `mirrored` mapped the range in this process and it is unmapped once.
            unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
        }
    }
}
