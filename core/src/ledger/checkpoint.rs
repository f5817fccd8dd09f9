//! Checkpoints: images of everybody's state, so that recovery need not begin at the beginning.
//!
//! Written beside the others under a name of its own, and counting only once it is whole, flushed and renamed. Two
//! are kept: should the newest be damaged, the one before it leads to the same state, because what it needs of the
//! journal is kept as long. `FORMAT.md` beside this draws the file.

use super::{Lsn, Owner};
use crate::{
    error::{Error, ErrorKind, Result},
    journal::JournalId,
    storage::{self, File, Open, Storage, read_full, uninterrupted, write_full},
};
use std::{io, sync::Arc};

/// What the end of a checkpoint says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Of the journal it belongs to.
    pub journal: JournalId,
    /// Replay begins with the batch after this one.
    pub begin: Lsn,
    /// The images have seen no batch after this one; it was flushed before the checkpoint counted.
    pub end: Lsn,
    /// How many images there are.
    pub images: u64,
    /// The size of the file.
    pub bytes: u64,
}

/// A checkpoint being written.
pub(super) struct Out {
    storage: Arc<dyn Storage>,
    file: Arc<dyn File>,
    name: String,
    buffer: Vec<u8>,
    at: u64,
    images: u64,
    journal: JournalId,
}

impl Out {
    pub(super) fn new(storage: Arc<dyn Storage>, journal: JournalId, begin: Lsn, time: u64) -> Result<Self> {
        let name = format!("{}{UNFINISHED}", file_name(begin));
        let open = || uninterrupted(|| storage.open(&name, Open::New));
        let file = match open() {
            // Left by one that failed.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                uninterrupted(|| storage.remove(&name)).and_then(|()| open())
            }
            opened => opened,
        };
        let file = file.map_err(|error| failed(error, &name))?;
        let mut header = vec![0; HEADER_BYTES];
        header[..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        header[16..32].copy_from_slice(&journal.0);
        header[32..40].copy_from_slice(&begin.0.to_le_bytes());
        header[40..48].copy_from_slice(&time.to_le_bytes());
        let crc = crc32c::crc32c(&header[..60]);
        header[60..64].copy_from_slice(&crc.to_le_bytes());
        Ok(Self { storage, file, name, buffer: header, at: 0, images: 0, journal })
    }

    pub(super) fn image(&mut self, owner: Owner, lsn: Lsn, bytes: &[u8]) -> Result<()> {
        if bytes.len() > CHUNK_BYTES_MAX {
            let error = Error::new(ErrorKind::TooLarge, OPERATION);
            return Err(error.with("bytes", bytes.len()).with("limit", CHUNK_BYTES_MAX));
        }
        self.images += 1;
        self.chunk(IMAGE, owner, lsn, bytes)
    }

    fn chunk(&mut self, kind: u32, owner: Owner, lsn: Lsn, bytes: &[u8]) -> Result<()> {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0; 4]);
        self.buffer.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        self.buffer.extend_from_slice(&owner.0.to_le_bytes());
        self.buffer.extend_from_slice(&kind.to_le_bytes());
        self.buffer.extend_from_slice(&lsn.0.to_le_bytes());
        self.buffer.extend_from_slice(bytes);
        self.buffer.resize(start + chunk_size(bytes.len()), 0);
        let crc = crc32c::crc32c_append(seed(self.journal), &self.buffer[start + 4..]);
        self.buffer[start..start + 4].copy_from_slice(&crc.to_le_bytes());
        if self.buffer.len() >= BUFFER_BYTES { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<()> {
        write_full(&*self.file, self.at, &self.buffer).map_err(|error| failed(error, &self.name))?;
        self.at += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Writes the end and waits for the disk; it does not count yet.
    pub(super) fn complete(&mut self, end: Lsn) -> Result<()> {
        let images = self.images;
        self.chunk(END, Owner(0), end, &images.to_le_bytes())?;
        self.write()?;
        uninterrupted(|| self.file.sync()).map_err(|error| failed(error, &self.name))
    }

    /// How many images there are.
    pub(super) fn images(&self) -> u64 {
        self.images
    }

    /// Gives it its name. The directory is to be flushed afterwards.
    pub(super) fn publish(&mut self, begin: Lsn) -> Result<u64> {
        uninterrupted(|| self.storage.rename(&self.name, &file_name(begin)))
            .map_err(|error| failed(error, &self.name))?;
        self.name.clear();
        Ok(self.at)
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        if !self.name.is_empty() {
            // What cannot be removed is removed by the next opening.
            let _ = self.storage.remove(&self.name);
        }
    }
}

/// Shown each image: whose it is, the last batch it has seen, its bytes.
pub type See<'a> = &'a mut dyn FnMut(Owner, Lsn, &[u8]) -> Result<()>;

/// Reads a checkpoint from its beginning to its end, checks everything, and shows `see` each image.
///
/// # Errors
/// - [`ErrorKind::Corrupt`]: `offset` says where. What was shown until then was sound.
/// - [`ErrorKind::Unsupported`]: a newer version wrote it.
/// - `Io`, and what `see` gives.
pub fn read(file: &dyn File, name: &str, see: See<'_>) -> Result<Summary> {
    let length = file.len().map_err(|error| failed(error, name))?;
    let mut source = Source { file, name, length, at: 0, buffer: Vec::new(), taken: 0 };
    let header = source.take(HEADER_BYTES)?;
    if header[..8] != MAGIC {
        return Err(corrupt("not a checkpoint", name, 0));
    }
    if crc32c::crc32c(&header[..60]) != word(header, 60) {
        return Err(corrupt("a checkpoint's header whose checksum does not match", name, 0));
    }
    let version = word(header, 8);
    if version > VERSION {
        let error = Error::new(ErrorKind::Unsupported, OPERATION).with("file", name);
        return Err(error.with("version", version).with("supported", VERSION));
    }
    let journal = JournalId(header[16..32].try_into().expect("sixteen bytes"));
    let begin = Lsn(long(header, 32));
    let seed = seed(journal);
    let mut images = 0;
    loop {
        let offset = source.offset();
        let length = word(source.peek(CHUNK_HEADER_BYTES)?, 4) as usize;
        if length > CHUNK_BYTES_MAX {
            return Err(corrupt("a chunk that is too long", name, offset));
        }
        let chunk = source.take(chunk_size(length))?;
        if crc32c::crc32c_append(seed, &chunk[4..]) != word(chunk, 0) {
            return Err(corrupt("a chunk whose checksum does not match", name, offset));
        }
        let (owner, lsn) = (Owner(word(chunk, 8)), Lsn(long(chunk, 16)));
        let bytes = &chunk[CHUNK_HEADER_BYTES..][..length];
        match word(chunk, 12) {
            IMAGE => see(owner, lsn, bytes)?,
            END if bytes == u64::to_le_bytes(images) && lsn >= begin => {
                let bytes = source.offset();
                return Ok(Summary { journal, begin, end: lsn, images, bytes });
            }
            _ => return Err(corrupt("a chunk of no known kind", name, offset)),
        }
        images += 1;
    }
}

/// A file read from front to back.
struct Source<'a> {
    file: &'a dyn File,
    name: &'a str,
    length: u64,
    /// What was read of the file.
    at: u64,
    buffer: Vec<u8>,
    taken: usize,
}

impl Source<'_> {
    fn offset(&self) -> u64 {
        self.at - (self.buffer.len() - self.taken) as u64
    }

    fn peek(&mut self, bytes: usize) -> Result<&[u8]> {
        if self.buffer.len() - self.taken < bytes {
            let missing = bytes - (self.buffer.len() - self.taken);
            if self.length.saturating_sub(self.at) < missing as u64 {
                return Err(corrupt("it ends too early", self.name, self.offset()));
            }
            self.buffer.drain(..self.taken);
            self.taken = 0;
            let held = self.buffer.len();
            let more = (missing.max(BUFFER_BYTES) as u64).min(self.length - self.at) as usize;
            self.buffer.resize(held + more, 0);
            let read = read_full(self.file, self.at, &mut self.buffer[held..])
                .map_err(|error| failed(error, self.name))?;
            self.buffer.truncate(held + read);
            self.at += read as u64;
            if read < missing {
                return Err(corrupt("it ends too early", self.name, self.offset()));
            }
        }
        Ok(&self.buffer[self.taken..][..bytes])
    }

    fn take(&mut self, bytes: usize) -> Result<&[u8]> {
        self.peek(bytes)?;
        self.taken += bytes;
        Ok(&self.buffer[self.taken - bytes..self.taken])
    }
}

/// The name of the checkpoint that begins after a batch.
pub(super) fn file_name(begin: Lsn) -> String {
    format!("{:016x}.ckpt", begin.0)
}

/// Where the checkpoint in a file of this name begins.
pub(super) fn begin_of(name: &str) -> Option<Lsn> {
    let begin = Lsn(u64::from_str_radix(name.strip_suffix(".ckpt")?, 16).ok()?);
    (file_name(begin) == name).then_some(begin)
}

/// Whether a file of this name was being written when the process ended.
pub(super) fn is_unfinished(name: &str) -> bool {
    name.strip_suffix(UNFINISHED).is_some_and(|name| begin_of(name).is_some())
}

const fn chunk_size(bytes: usize) -> usize {
    (CHUNK_HEADER_BYTES + bytes).next_multiple_of(8)
}

fn seed(journal: JournalId) -> u32 {
    crc32c::crc32c(&journal.0)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn corrupt(what: &str, name: &str, offset: u64) -> Error {
    let error = Error::new(ErrorKind::Corrupt, OPERATION).with("what", what);
    error.with("file", name).with("offset", offset)
}

pub(super) fn failed(error: io::Error, file: &str) -> Error {
    if storage::is_full(&error) {
        return Error::new(ErrorKind::StorageFull, OPERATION).with("file", file).because(error);
    }
    Error::from_io(OPERATION, error).with("file", file)
}

const OPERATION: &str = "ledger.checkpoint";
const MAGIC: [u8; 8] = *b"FMCKPT\r\n";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 64;
const CHUNK_HEADER_BYTES: usize = 24;
const IMAGE: u32 = 1;
const END: u32 = 2;
/// An image is a slice of a state, not all of it.
const CHUNK_BYTES_MAX: usize = 64 << 20;
const BUFFER_BYTES: usize = 256 << 10;
const UNFINISHED: &str = ".tmp";

// What FORMAT.md draws.
const _: () = assert!(HEADER_BYTES == 8 + 4 + 4 + 16 + 8 + 8 + 12 + 4);
const _: () = assert!(CHUNK_HEADER_BYTES == 4 + 4 + 4 + 4 + 8);
