//! A batch of entries, built in the very bytes that are written.
//!
//! ```text
//! offset size  entry          (little-endian; begins at a multiple of 8 of its frame)
//!      0    4  bytes          of what it carries
//!      4    4  crc32c         of everything after this field
//!      8    4  owner
//!     12    1  kind
//!     13    1  flags          bit 0: kept
//!     14    2  zero
//!     16       what it carries
//! ```

use super::{Entry, Owner};
use crate::{
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
    journal::{FRAME_HEADER_BYTES, Place},
};

/// Entries that are written together: after a crash all of them are there or none.
///
/// To be used again and again: what was written is cleared by [`Batch::clear`], its memory stays.
#[derive(Debug)]
pub struct Batch {
    /// Room for the frame's header, then the entries.
    frame: Vec<u8>,
    /// Where in `frame` each entry begins.
    starts: Vec<u32>,
    /// What the entries that are kept take, as their places round it.
    kept_bytes: u64,
    time: Option<Timestamp>,
}

impl Default for Batch {
    fn default() -> Self {
        Self { frame: vec![0; FRAME_HEADER_BYTES], starts: Vec::new(), kept_bytes: 0, time: None }
    }
}

impl Batch {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// What the entries take in the journal.
    pub fn bytes(&self) -> usize {
        self.frame.len()
    }

    /// Forgets the entries and keeps the memory, unless it is much.
    pub fn clear(&mut self) {
        self.frame.truncate(FRAME_HEADER_BYTES);
        self.frame.shrink_to(KEEP_BYTES_MAX);
        self.starts.clear();
        self.kept_bytes = 0;
        self.time = None;
    }

    /// When it is written, if whoever writes it has just looked at the clock; the ledger looks itself otherwise.
    pub fn set_time(&mut self, time: Timestamp) {
        self.time = Some(time);
    }

    pub(super) fn time(&self) -> Option<Timestamp> {
        self.time
    }

    /// Adds an entry whose bytes are `parts` one after the other. It is needed until the next checkpoint, whose
    /// images stand for it.
    pub fn push(&mut self, owner: Owner, kind: u8, parts: &[&[u8]]) {
        self.push_written(owner, |bytes| {
            parts.iter().for_each(|part| bytes.extend_from_slice(part));
            (kind, false)
        });
    }

    /// Adds an entry that its owner refers to by its place, checkpoint or not, until [`super::Ledger::release`].
    pub fn push_kept(&mut self, owner: Owner, kind: u8, parts: &[&[u8]]) {
        self.push_written(owner, |bytes| {
            parts.iter().for_each(|part| bytes.extend_from_slice(part));
            (kind, true)
        });
    }

    /// Adds an entry whose bytes `write` appends to what is there; it gives the kind, and whether it is kept.
    pub(crate) fn push_written(&mut self, owner: Owner, write: impl FnOnce(&mut Vec<u8>) -> (u8, bool)) {
        self.frame.resize(self.frame.len().next_multiple_of(8), 0);
        let start = self.frame.len();
        self.frame.extend_from_slice(&[0; ENTRY_HEADER_BYTES]);
        let (kind, kept) = write(&mut self.frame);
        let entry = &mut self.frame[start..];
        let bytes = entry.len() - ENTRY_HEADER_BYTES;
        // What does not fit a length fits no segment either: `Journal::append` refuses it.
        entry[..4].copy_from_slice(&(bytes as u32).to_le_bytes());
        entry[8..12].copy_from_slice(&owner.0.to_le_bytes());
        (entry[12], entry[13]) = (kind, if kept { KEPT } else { 0 });
        let crc = crc32c::crc32c(&entry[8..]);
        entry[4..8].copy_from_slice(&crc.to_le_bytes());
        self.starts.push(start.min(u32::MAX as usize) as u32);
        if kept {
            self.kept_bytes += u64::from(Place::rounded((ENTRY_HEADER_BYTES + bytes) as u32));
        }
    }

    /// The bytes it is built in: room for a frame's header, then the entries.
    #[doc(hidden)]
    pub fn into_frame(self) -> Vec<u8> {
        self.frame
    }

    /// The frame as it is to be written, with room for its header.
    pub(super) fn frame(&mut self) -> &mut Vec<u8> {
        &mut self.frame
    }

    /// The place of entry `index` of a frame that begins at `frame`.
    pub(super) fn place(&self, segment: u32, frame: u32, index: usize) -> Place {
        let start = self.starts[index];
        let bytes = u32::from_le_bytes(self.frame[start as usize..][..4].try_into().expect("four bytes"));
        Place::new(segment, frame + start, ENTRY_HEADER_BYTES as u32 + bytes)
    }

    /// What the entries that are kept take, as their places round it.
    pub(super) fn kept_bytes(&self) -> u64 {
        self.kept_bytes
    }
}

/// An entry found in a frame.
#[derive(Clone, Copy, Debug)]
pub struct FoundEntry<'a> {
    /// As it was written.
    pub entry: Entry<'a>,
    /// Whether its owner refers to it by its place.
    pub kept: bool,
    /// Of header and bytes.
    pub size: u32,
}

/// The entry that `bytes` begin with; checked.
///
/// # Errors
/// - [`ErrorKind::Corrupt`]: there is none.
pub(super) fn decode(bytes: &[u8]) -> Result<FoundEntry<'_>> {
    let corrupt = |what: &str| Error::new(ErrorKind::Corrupt, "ledger.entry").with("what", what);
    let header: &[u8; ENTRY_HEADER_BYTES] = bytes.first_chunk().ok_or_else(|| corrupt("a cut header"))?;
    let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    let size = ENTRY_HEADER_BYTES + word(0) as usize;
    let whole = bytes.get(..size).ok_or_else(|| corrupt("a length beyond the end").with("bytes", word(0)))?;
    if crc32c::crc32c(&whole[8..]) != word(4) {
        return Err(corrupt("a checksum that does not match"));
    }
    let entry = Entry { owner: Owner(word(8)), kind: header[12], bytes: &whole[ENTRY_HEADER_BYTES..] };
    Ok(FoundEntry { entry, kept: header[13] & KEPT != 0, size: size as u32 })
}

/// Every entry of a frame's payload, with its offset there.
///
/// # Errors
/// - [`ErrorKind::Corrupt`]: the payload is not a run of entries.
pub fn each_entry<'a>(
    payload: &'a [u8],
    mut see: impl FnMut(u32, FoundEntry<'a>) -> Result<()>,
) -> Result<()> {
    let mut at = 0;
    while at < payload.len() {
        let found = decode(&payload[at..]).map_err(|error| error.with("in_frame", at))?;
        see(at as u32, found)?;
        at = (at + found.size as usize).next_multiple_of(8);
    }
    Ok(())
}

pub(super) const ENTRY_HEADER_BYTES: usize = 16;
/// The owner refers to it by its place.
const KEPT: u8 = 1;
/// What an empty batch holds on to.
const KEEP_BYTES_MAX: usize = 1 << 20;

const _: () = assert!(FRAME_HEADER_BYTES.is_multiple_of(8));
