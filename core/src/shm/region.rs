//! A region: the memory that one process writes and its peer reads.
//!
//!   offset  size  field           (little-endian)
//!        0     8  magic           "FLOWMESH"
//!        8     4  layout version  1
//!       12     4  header bytes    4096
//!       16     8  ring bytes      power of two, 64 KiB to 64 MiB
//!       24     8  generation      which session: given by the host
//!       32     8  start cursor    where all cursors begin
//!      128     8  tail            how far the owner has produced
//!      136     4  tail event      tail / 8; the peer sleeps on it
//!      256     8  head            how far the owner has consumed the peer's ring
//!      264     4  head event      head / 8; the peer sleeps on it
//!      384     4  waiting         sequence << 2 | 0 awake, 1 poller sleeps, 2 leader sleeps
//!      512     4  space wanted    not 0: the owner waits for the peer to free space
//!     4096     r  ring            mapped twice, back to back
//!
//! The host makes both regions of a session. The file is allocated and its size sealed at once; the owner
//! maps it read-write; then it is sealed against any further writer and the peer maps it read-only. What a
//! map was checked against stays in private memory and is never read from the region again.

use super::copy::copy;
use super::ring::{ALIGN, OwnRegion, PeerRegion, Region, Words};
use crate::error::{Error, ErrorKind, Result};
use crate::os::map::{Access, Map};
use crate::os::memfd;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// A new region's memory file, before anybody has mapped it. Only the host makes these.
#[derive(Debug)]
pub struct RegionFd {
    fd: OwnedFd,
    params: RegionParams,
}

/// What both sides agreed on by message before they map a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionParams {
    /// The size of the ring.
    pub ring_bytes: usize,
    /// Which session the region belongs to.
    pub generation: u64,
}

impl RegionFd {
    /// Makes a region of `ring_bytes`, all pages present, its size sealed.
    ///
    /// All cursors begin at `start_cursor`, a multiple of 8; both regions of a session take the same.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidArgument`]: `ring_bytes` is no power of two from 64 KiB to 64 MiB, or the
    ///   cursor no multiple of 8.
    /// - [`ErrorKind::ResourceExhausted`]: no memory or no descriptor for it.
    pub fn create(name: &str, generation: u64, ring_bytes: usize, start_cursor: u64) -> Result<Self> {
        const OPERATION: &str = "shm.create";
        let params = RegionParams { ring_bytes, generation };
        params.check(OPERATION)?;
        if !start_cursor.is_multiple_of(ALIGN as u64) {
            return Err(Error::new(ErrorKind::InvalidArgument, OPERATION).with("start_cursor", start_cursor));
        }
        let fd = memfd::create(name, params.file_bytes() as u64)?;
        memfd::add_seals(fd.as_fd(), memfd::SIZE_SEALS)?;
        let file = File::from(fd);
        let header = Header { params, start_cursor };
        let event = super::ring::event_of(start_cursor).to_le_bytes();
        let cursor = start_cursor.to_le_bytes();
        let writes: [(usize, &[u8]); 5] = [
            (0, &header.encode()),
            (TAIL_AT, &cursor),
            (TAIL_AT + 8, &event),
            (HEAD_AT, &cursor),
            (HEAD_AT + 8, &event),
        ];
        for (at, bytes) in writes {
            file.write_all_at(bytes, at as u64).map_err(|error| Error::from_io(OPERATION, error))?;
        }
        Ok(Self { fd: OwnedFd::from(file), params })
    }

    /// The descriptor to map and to send.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// What a map of it will be checked against.
    pub fn params(&self) -> RegionParams {
        self.params
    }
}

/// Refuses every writer but the maps that exist: the owner has mapped the region, now the peer may have it.
///
/// # Errors
/// - [`ErrorKind::Protocol`]: the owner has sealed the seals, so the region cannot be made safe.
pub fn seal(fd: BorrowedFd<'_>) -> Result<()> {
    match memfd::seal_writer(fd) {
        // An owner that added the very same seals has done no harm.
        Err(_) if memfd::seals(fd)? & memfd::WRITER_SEALS == memfd::WRITER_SEALS => Ok(()),
        Err(error) => Err(Error::new(ErrorKind::Protocol, "shm.seal").because(error)),
        Ok(()) => Ok(()),
    }
}

/// The region this process writes. Gone from a forked child.
#[derive(Debug)]
pub struct WriterMap {
    map: Map,
    params: RegionParams,
    start_cursor: u64,
}

impl WriterMap {
    /// Maps the own region read-write, all pages present. Before it is sealed against writers.
    ///
    /// # Errors
    /// - [`ErrorKind::Protocol`]: the file is not such a region.
    /// - [`ErrorKind::PermissionDenied`]: it is sealed against writers already.
    /// - [`ErrorKind::ResourceExhausted`]: no address space or memory.
    pub fn map(fd: BorrowedFd<'_>, params: &RegionParams) -> Result<Arc<Self>> {
        let (map, start_cursor) = map_checked(fd, params, memfd::SIZE_SEALS, Access::ReadWrite)?;
        Ok(Arc::new(Self { map, params: *params, start_cursor }))
    }

    /// Where all cursors began.
    pub(super) fn start_cursor(&self) -> u64 {
        self.start_cursor
    }
}

/// The peer's region, mapped read-only. Gone from a forked child.
#[derive(Debug)]
pub struct ReaderMap {
    map: Map,
    params: RegionParams,
}

impl ReaderMap {
    /// Maps the peer's region read-only, all pages present, once it is sealed against writers.
    ///
    /// # Errors
    /// - [`ErrorKind::Protocol`]: the file is not such a region, or lacks a seal.
    /// - [`ErrorKind::ResourceExhausted`]: no address space or memory.
    pub fn map(fd: BorrowedFd<'_>, params: &RegionParams) -> Result<Arc<Self>> {
        let (map, _) = map_checked(fd, params, memfd::WRITER_SEALS, Access::ReadOnly)?;
        Ok(Arc::new(Self { map, params: *params }))
    }
}

impl Region for WriterMap {
    #[inline]
    fn words(&self) -> &Words {
        words(&self.map)
    }

    #[inline]
    fn ring_bytes(&self) -> usize {
        self.params.ring_bytes
    }
}

impl OwnRegion for WriterMap {
    #[inline]
    unsafe fn write(&self, cursor: u64, bytes: &[u8]) {
        let to = ring_at(&self.map, self.params.ring_bytes, cursor);
        // SAFETY: `to` is in the first copy of the ring and `bytes` no longer than the ring (the caller's
        // promise), so all of it lies in the two copies, which are mapped read-write as long as `self`.
        // `bytes` is private, hence elsewhere.
        unsafe { copy(to, bytes.as_ptr(), bytes.len()) };
    }
}

impl Region for ReaderMap {
    #[inline]
    fn words(&self) -> &Words {
        words(&self.map)
    }

    #[inline]
    fn ring_bytes(&self) -> usize {
        self.params.ring_bytes
    }
}

impl PeerRegion for ReaderMap {
    #[inline]
    unsafe fn read(&self, cursor: u64, len: usize, into: *mut u8) {
        let from = ring_at(&self.map, self.params.ring_bytes, cursor);
        // SAFETY: `from` is in the first copy of the ring and `len` at most the ring (the caller's
        // promise), so all of it lies in the two copies, which are mapped as long as `self`; `into` is
        // valid for `len` writes (the caller's promise) and private, hence elsewhere.
        unsafe { copy(into, from, len) };
    }
}

impl RegionParams {
    /// The size of the file.
    fn file_bytes(&self) -> usize {
        HEADER_BYTES + self.ring_bytes
    }

    fn check(&self, operation: &'static str) -> Result<()> {
        if self.ring_bytes.is_power_of_two() && (RING_BYTES_MIN..=RING_BYTES_MAX).contains(&self.ring_bytes) {
            return Ok(());
        }
        let error = Error::new(ErrorKind::InvalidArgument, operation).with("ring_bytes", self.ring_bytes);
        Err(error.with("least", RING_BYTES_MIN).with("most", RING_BYTES_MAX).with("rule", "a power of two"))
    }
}

/// The smallest ring.
pub const RING_BYTES_MIN: usize = 64 << 10;
/// The largest ring.
pub const RING_BYTES_MAX: usize = 64 << 20;

const MAGIC: [u8; 8] = *b"FLOWMESH";
const LAYOUT_VERSION: u32 = 1;
const HEADER_BYTES: usize = 4096;
const IDENTITY_BYTES: usize = 40;
const WORDS_AT: usize = 128;
const TAIL_AT: usize = WORDS_AT + std::mem::offset_of!(Words, produced);
const HEAD_AT: usize = WORDS_AT + std::mem::offset_of!(Words, consumed);

const _: () = assert!(TAIL_AT == 128 && HEAD_AT == 256);
const _: () = assert!(WORDS_AT + std::mem::offset_of!(Words, waiting) == 384);
const _: () = assert!(WORDS_AT + std::mem::offset_of!(Words, space_wanted) == 512);
const _: () = assert!(WORDS_AT + size_of::<Words>() <= HEADER_BYTES && IDENTITY_BYTES <= WORDS_AT);
const _: () = assert!(std::mem::offset_of!(super::ring::Cursor, event) == 8);
// The words are drawn little-endian and read in place.
const _: () = assert!(cfg!(target_endian = "little") && size_of::<usize>() == 8);

/// The part of a region that is written once.
struct Header {
    params: RegionParams,
    start_cursor: u64,
}

impl Header {
    fn encode(&self) -> [u8; IDENTITY_BYTES] {
        let mut bytes = [0; IDENTITY_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&LAYOUT_VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&(HEADER_BYTES as u32).to_le_bytes());
        bytes[16..24].copy_from_slice(&(self.params.ring_bytes as u64).to_le_bytes());
        bytes[24..32].copy_from_slice(&self.params.generation.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.start_cursor.to_le_bytes());
        bytes
    }
}

/// The start cursor in `identity`, if all the rest is what `params` makes.
fn check_identity(identity: &[u8; IDENTITY_BYTES], params: &RegionParams) -> Result<u64> {
    let cursor_bytes = identity.last_chunk().expect("the identity is longer than a cursor");
    let start_cursor = u64::from_le_bytes(*cursor_bytes);
    if *identity != (Header { params: *params, start_cursor }).encode()
        || !start_cursor.is_multiple_of(ALIGN as u64)
    {
        let error = Error::new(ErrorKind::Protocol, "shm.map").with("rule", "the header that was agreed on");
        return Err(error.with("ring_bytes", params.ring_bytes).with("generation", params.generation));
    }
    Ok(start_cursor)
}

fn map_checked(fd: BorrowedFd<'_>, params: &RegionParams, seals: i32, access: Access) -> Result<(Map, u64)> {
    params.check("shm.map")?;
    check_file(fd, params.file_bytes(), seals)?;
    let map = Map::mirrored(fd, HEADER_BYTES, params.ring_bytes, access)?;
    let mut identity = [0; IDENTITY_BYTES];
    // SAFETY: the map begins with a header longer than the identity, which is private.
    unsafe { copy(identity.as_mut_ptr(), map.base().as_ptr(), IDENTITY_BYTES) };
    let start_cursor = check_identity(&identity, params)?;
    Ok((map, start_cursor))
}

/// Makes sure that a map of `fd` cannot become a fault: sealed as asked, of exactly this size, no page missing.
pub(super) fn check_file(fd: BorrowedFd<'_>, file_bytes: usize, seals: i32) -> Result<()> {
    const OPERATION: &str = "shm.map";
    let broken = |rule| Error::new(ErrorKind::Protocol, OPERATION).with("rule", rule);
    let found = memfd::seals(fd).map_err(|error| broken("a memory file").because(error))?;
    if found & seals != seals {
        return Err(broken("sealed").with("seals", found).with("needed", seals));
    }
    let len = memfd::len(fd)?;
    if len != file_bytes as u64 {
        return Err(broken("the size that was agreed on").with("bytes", len).with("needed", file_bytes));
    }
    // An owner may have punched holes before the seals forbade it.
    memfd::allocate(fd, len)
}

#[inline]
fn words(map: &Map) -> &Words {
    // SAFETY: every region is mapped with its whole header, at a page boundary, as long as `map`; the words
    // are atomics, which may change under a shared reference, and a read-only map is only loaded from:
    // `Producer` and `Consumer` store to their own region alone.
    unsafe { map.base().add(WORDS_AT).cast::<Words>().as_ref() }
}

#[inline]
fn ring_at(map: &Map, ring_bytes: usize, cursor: u64) -> *mut u8 {
    let offset = cursor as usize & (ring_bytes - 1);
    map.base().as_ptr().wrapping_add(HEADER_BYTES + offset)
}
