//! The one log of all small state: batches of entries, folded again when it is opened.
//!
//! Knows owners by number and entries as bytes; never jobs, keys or topics, and starts no thread. A batch is one
//! frame of the journal, so a change of many things at once is one write and all or nothing. Checkpoints bound
//! what is replayed; segments of which little is still needed are cleaned and go.
#![forbid(unsafe_code)]

mod batch;

pub use crate::journal::{Lsn, Place};
pub use batch::Batch;

use crate::{
    clock::{Clock, Moment, SystemClock},
    error::{Error, ErrorKind, Result},
    storage::Storage,
};
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};

/// Whose an entry is. 0 is the mesh's own catalogue of resources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner(pub u32);

/// One change, as its owner wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Whose it is.
    pub owner: Owner,
    /// What it means to its owner.
    pub kind: u8,
    /// What it carries.
    pub bytes: &'a [u8],
}

/// How far a write has got, or is to get. Ordered: more is later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Durability {
    /// In this process alone: the mesh has no directory.
    Memory,
    /// Handed to the kernel: it survives the death of any process.
    Os,
    /// As `Os`, and flushed to the disk at most so much later.
    Interval(Duration),
    /// Flushed to the disk: it survives a power cut.
    Fsync,
}

/// What recovery feeds: the state that the entries are a history of.
pub trait Fold {
    /// A part of the checkpoint, with what its owner had seen when it was taken.
    ///
    /// # Errors
    /// What makes the ledger unreadable; opening fails with it.
    fn image(&mut self, owner: Owner, lsn: Lsn, bytes: &[u8]) -> Result<()>;

    /// Every entry after the checkpoint's begin, in order. What an image has seen already comes again.
    ///
    /// # Errors
    /// What makes the ledger unreadable; opening fails with it.
    fn entry(&mut self, lsn: Lsn, place: Place, entry: Entry<'_>) -> Result<()>;

    /// Names every place that is still referred to, once each, when all has been fed. What is not named may go.
    fn kept(&mut self, keep: &mut dyn FnMut(Place));
}

/// Settings of a ledger.
#[derive(Clone)]
pub struct LedgerConfig {
    /// The size of a segment's file, and so of the largest batch. Default 64 MiB.
    pub segment_bytes: u32,
    /// A checkpoint is due after so many bytes of entries. Default 256 MiB.
    pub checkpoint_bytes: u64,
    /// A segment is to be cleaned when no more than this part of it is still needed, in percent. Default 50.
    pub clean_percent: u32,
    /// Whether damage is moved into `quarantine/` instead of being refused. Default no.
    pub repair: bool,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
}

impl Default for LedgerConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            checkpoint_bytes: 256 << 20,
            clean_percent: 50,
            repair: false,
            clock: Arc::new(SystemClock::default()),
        }
    }
}

/// What opening found.
#[derive(Debug, Default)]
pub struct Recovery {
    /// Where replay began: the checkpoint's begin, or none.
    pub checkpoint: Lsn,
    /// The last batch.
    pub last: Lsn,
    /// Entries that were replayed.
    pub entries: u64,
}

/// A batch that was handed to the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// Its place in the order of all.
    pub lsn: Lsn,
    segment: u32,
    offset: u32,
}

impl Written {
    /// Where entry `index` of `batch`, the batch that was written, lies.
    pub fn place(&self, batch: &Batch, index: usize) -> Place {
        batch.place(self.segment, self.offset, index)
    }
}

/// How a ledger is doing.
#[derive(Clone, Debug, Default)]
pub struct LedgerStatus {
    /// The last batch that was written.
    pub last: Lsn,
    /// The last batch known to be on the disk.
    pub flushed: Lsn,
    /// Where replay would begin.
    pub checkpoint: Lsn,
    /// Whether so much was written since that a checkpoint is due.
    pub checkpoint_due: bool,
    /// Segments there are.
    pub segments: usize,
    /// What their files take.
    pub disk_bytes: u64,
    /// What of it is still referred to.
    pub kept_bytes: u64,
}

/// The ledger of one directory. Any thread may call it; clones are the same ledger.
#[derive(Clone)]
pub struct Ledger {
    shared: Arc<Shared>,
}

struct Shared {
    storage: Arc<dyn Storage>,
    segment_bytes: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last: Lsn,
    frames: Vec<Vec<u8>>,
    kept_bytes: u64,
}

impl Ledger {
    /// Opens the ledger of `storage`, an empty directory or one with a ledger, and feeds `fold` what it holds.
    ///
    /// # Errors
    /// - [`ErrorKind::Corrupt`]: what was on the disk is damaged; `file` and `offset` say where.
    /// - [`ErrorKind::Unsupported`]: written by a newer version.
    /// - `Io`, `StorageFull`: the storage failed.
    pub fn open(
        storage: Arc<dyn Storage>,
        config: &LedgerConfig,
        fold: &mut dyn Fold,
    ) -> Result<(Self, Recovery)> {
        fold.kept(&mut |_| {});
        let shared = Arc::new(Shared {
            storage,
            segment_bytes: config.segment_bytes,
            state: Mutex::new(State::default()),
        });
        Ok((Self { shared }, Recovery::default()))
    }

    /// Hands `batch` to the kernel as one frame: durability [`Durability::Os`]. The order of calls is the order
    /// of LSNs. The batch can be asked for places afterwards, and is to be cleared before it is used again.
    ///
    /// # Errors
    /// - [`ErrorKind::StorageFull`]: nothing was written; retry when there is room.
    /// - [`ErrorKind::TooLarge`]: the batch is larger than a segment.
    /// - [`ErrorKind::Frozen`]: a write or flush failed before. Reads go on.
    pub fn write(&self, batch: &mut Batch) -> Result<Written> {
        let limit = self.shared.segment_bytes as usize;
        if batch.bytes() > limit {
            let error = Error::new(ErrorKind::TooLarge, "ledger.write");
            return Err(error.with("bytes", batch.bytes()).with("limit", limit));
        }
        let mut state = self.shared.state.lock();
        state.last = state.last.next();
        let frame = batch.frame().clone();
        let segment = state.frames.len() as u32;
        state.frames.push(frame);
        let written = Written { lsn: state.last, segment, offset: 0 };
        for index in batch.kept() {
            state.kept_bytes += u64::from(written.place(batch, *index as usize).bytes_max());
        }
        Ok(written)
    }

    /// Waits until the batch of `lsn` has got as far as `wanted`, and says how far it has got.
    ///
    /// # Errors
    /// - [`ErrorKind::Frozen`]: a write or flush failed; whether the batch survives a power cut is unknown.
    pub fn sync(&self, lsn: Lsn, wanted: Durability) -> Result<Durability> {
        let _ = (lsn, wanted, self.shared.storage.is_volatile());
        Ok(Durability::Memory)
    }

    /// The bytes of the entry at `place` again, checked; they replace what is in `bytes`.
    ///
    /// # Errors
    /// - [`ErrorKind::Corrupt`]: what lies there is not what was written.
    /// - `Io`: the storage failed.
    pub fn read(&self, place: Place, bytes: &mut Vec<u8>) -> Result<()> {
        let state = self.shared.state.lock();
        let frame =
            state.frames.get(place.segment() as usize).and_then(|frame| frame.get(place.offset() as usize..));
        let found = batch::decode(frame.unwrap_or(&[])).map_err(|error| error.with("place", place))?;
        bytes.clear();
        bytes.extend_from_slice(found.entry.bytes);
        Ok(())
    }

    /// Says that the entry at `place`, written as kept, is no longer referred to. Once for each.
    pub fn release(&self, place: Place) {
        let mut state = self.shared.state.lock();
        state.kept_bytes = state.kept_bytes.saturating_sub(u64::from(place.bytes_max()));
    }

    /// Why nothing is written any more, if so.
    pub fn frozen(&self) -> Option<Error> {
        None
    }

    /// How it is doing.
    pub fn status(&self) -> LedgerStatus {
        let state = self.shared.state.lock();
        LedgerStatus { last: state.last, kept_bytes: state.kept_bytes, ..LedgerStatus::default() }
    }

    /// Begins a checkpoint: replay will start after the last batch of now. Images may come in slices while
    /// writes go on; only [`Checkpoint::finish`] makes it count.
    ///
    /// # Errors
    /// - [`ErrorKind::AlreadyExists`]: one is under way.
    /// - `Io`, `StorageFull`: the storage failed. Nothing is changed.
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        Ok(Checkpoint { _ledger: self.clone(), begin: self.status().last })
    }

    /// A segment that is worth cleaning, if there is one: its kept entries are to be written again by their
    /// owners and released here; then it goes by itself.
    pub fn cleanable(&self) -> Option<Cleanable> {
        None
    }

    /// Does what is due: flushes, the next segment, removals. Says when to call again at the latest.
    pub fn tend(&self, now: Moment) -> Option<Moment> {
        let _ = now;
        None
    }

    /// Calls `wake` when something is due earlier than [`Ledger::tend`] last said.
    pub fn on_due(&self, wake: impl Fn() + Send + Sync + 'static) {
        let _ = wake;
    }
}

/// A checkpoint under way. Dropped before it is finished, it never was.
pub struct Checkpoint {
    _ledger: Ledger,
    begin: Lsn,
}

impl Checkpoint {
    /// Where replay will begin: with the batch after this one.
    pub fn begin(&self) -> Lsn {
        self.begin
    }

    /// Adds a part of `owner`'s state that has seen all batches up to `lsn`.
    ///
    /// # Errors
    /// `Io`, `StorageFull`: the storage failed. Drop the checkpoint.
    pub fn image(&mut self, owner: Owner, lsn: Lsn, bytes: &[u8]) -> Result<()> {
        let _ = (owner, lsn, bytes);
        Ok(())
    }

    /// Makes the checkpoint count. Waits for the disk.
    ///
    /// # Errors
    /// As for [`Checkpoint::image`]; the checkpoint before it counts then.
    pub fn finish(self) -> Result<()> {
        Ok(())
    }
}

/// A segment with few kept entries.
pub struct Cleanable {
    _ledger: Ledger,
}

impl Cleanable {
    /// Shows every entry that was written as kept, whether it is still referred to or not.
    ///
    /// # Errors
    /// `Corrupt`, `Io`, and what `see` gives.
    pub fn entries(&self, see: impl FnMut(Place, Entry<'_>) -> Result<()>) -> Result<()> {
        let mut see = see;
        for (segment, frame) in self._ledger.shared.state.lock().frames.iter().enumerate() {
            batch::each(&frame[crate::journal::FRAME_HEADER_BYTES..], |at, found| {
                let place =
                    Place::new(segment as u32, at + crate::journal::FRAME_HEADER_BYTES as u32, found.size);
                if found.kept { see(place, found.entry) } else { Ok(()) }
            })?;
        }
        Ok(())
    }
}
