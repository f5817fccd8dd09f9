//! Files behind a small trait, so that the machine's disk, plain memory and a disk that fails on purpose are one
//! thing to what stands above.
//!
//! Knows names and bytes; never what lies in them. A [`Storage`] is one directory: names are relative to it,
//! parts separated by `/`. Calls answer as the kernel does: a read or write may do less than was asked or be
//! interrupted, and the error is the kernel's ([`read_full`] and [`write_full`] go on until it is done). Nothing
//! is durable before [`File::sync`], no name before [`Storage::sync_directory`].
#![forbid(unsafe_code)]

mod file;
mod memory;
pub mod sim;

pub use file::FileStorage;
pub use memory::MemoryStorage;

use std::{io, sync::Arc};

/// One directory of files.
pub trait Storage: Send + Sync {
    /// Opens a file.
    ///
    /// # Errors
    /// `NotFound` where it is to exist, `AlreadyExists` where it is to be made.
    fn open(&self, name: &str, how: Open) -> io::Result<Arc<dyn File>>;

    /// The names of files and directories in `directory` (`""` is the root), in no order.
    ///
    /// # Errors
    /// `NotFound`: there is no such directory.
    fn list(&self, directory: &str) -> io::Result<Vec<String>>;

    /// Gives a file another name, in the same directory or another one; what had that name is gone.
    ///
    /// # Errors
    /// The kernel's.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// `NotFound`: there is no such file.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes a directory; one that exists is fine.
    ///
    /// # Errors
    /// The kernel's.
    fn make_directory(&self, directory: &str) -> io::Result<()>;

    /// Makes the names in `directory` durable: what was created, renamed and removed there.
    ///
    /// # Errors
    /// The kernel's. Names may be lost from then on: a second call that succeeds proves nothing.
    fn sync_directory(&self, directory: &str) -> io::Result<()>;

    /// Whether nothing outlives the process, whatever is synced.
    fn is_volatile(&self) -> bool {
        false
    }
}

/// One open file.
pub trait File: Send + Sync {
    /// The length in bytes.
    ///
    /// # Errors
    /// The kernel's.
    fn len(&self) -> io::Result<u64>;

    /// Whether it has no bytes.
    ///
    /// # Errors
    /// The kernel's.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads some of the bytes from `offset` on; 0 is the end of the file.
    ///
    /// # Errors
    /// The kernel's.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;

    /// Writes some of `bytes` at `offset`; the file grows as needed.
    ///
    /// # Errors
    /// The kernel's; what lies in the range then is unknown.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize>;

    /// Gives the file room for `bytes` bytes, zero where nothing was written. It may be that long afterwards.
    ///
    /// # Errors
    /// `StorageFull` (ENOSPC): there is no such room.
    fn allocate(&self, bytes: u64) -> io::Result<()>;

    /// Returns once everything written before the call is on the disk.
    ///
    /// # Errors
    /// The kernel's. What was not yet on the disk may never get there, whatever a second call says.
    fn sync(&self) -> io::Result<()>;

    /// Lets go of cached pages that are not waiting to be written, so that the next read sees the disk's truth:
    /// after a failed flush the cache has bytes that the disk does not.
    fn distrust_cache(&self) {}

    /// Says that all of it will be read soon: the disk may begin meanwhile.
    fn read_ahead(&self) {}
}

/// What [`Storage::open`] is to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// A file that exists, to be looked at.
    ReadOnly,
    /// A file that exists.
    Existing,
    /// No such file: an empty one is made.
    New,
}

/// Fills `into` from `offset` on. Less than its length is read only at the end of the file.
///
/// # Errors
/// The kernel's; `Interrupted` only when it never stops.
pub fn read_full(file: &dyn File, offset: u64, into: &mut [u8]) -> io::Result<usize> {
    let (mut done, mut patience) = (0, INTERRUPTIONS_MAX);
    while done < into.len() {
        match file.read_at(offset + done as u64, &mut into[done..]) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) => forgive(error, &mut patience)?,
        }
    }
    Ok(done)
}

/// Writes all of `bytes` at `offset`.
///
/// # Errors
/// The kernel's, `Interrupted` only when it never stops, `WriteZero` when nothing more is taken. Any part may
/// have been written.
pub fn write_full(file: &dyn File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let (mut done, mut patience) = (0, INTERRUPTIONS_MAX);
    while done < bytes.len() {
        match file.write_at(offset + done as u64, &bytes[done..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => done += written,
            Err(error) => forgive(error, &mut patience)?,
        }
    }
    Ok(())
}

/// Calls again what a signal interrupted.
///
/// # Errors
/// What `call` gives; `Interrupted` only when it never stops.
pub fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut patience = INTERRUPTIONS_MAX;
    loop {
        match call() {
            Err(error) => forgive(error, &mut patience)?,
            done => return done,
        }
    }
}

/// Whether the disk, a quota or a file's size limit has no room for it.
pub fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind as Io;
    matches!(error.kind(), Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge)
}

fn forgive(error: io::Error, patience: &mut u32) -> io::Result<()> {
    if error.kind() == io::ErrorKind::Interrupted && *patience > 0 {
        *patience -= 1;
        return Ok(());
    }
    Err(error)
}

/// A call that is interrupted this often in a row is not being interrupted by signals.
const INTERRUPTIONS_MAX: u32 = 1000;
