//! The one log of all small state: batches of entries, folded again when it is opened.
//!
//! Knows owners by number and entries as bytes; never jobs, keys or topics, and starts no thread. A batch is one
//! frame of the journal, so a change of many things at once is one write and all or nothing. Checkpoints bound
//! what is replayed; segments of which little is still needed are cleaned and go.
#![forbid(unsafe_code)]

mod batch;
pub mod checkpoint;
mod clean;
mod inspect;

pub use crate::journal::{Cut, Damage, Lsn, Place, Planted, SegmentReport};
pub use batch::{Batch, each_entry};
pub use clean::Cleanable;
pub use inspect::{CheckpointReport, Inspection, inspect, inspect_storage};

use crate::sync::lock::Mutex;
use crate::{
    clock::{Clock, Moment, SystemClock},
    error::{Error, ErrorKind, Result},
    journal::{Expected, Journal, JournalConfig, set_aside},
    storage::{Open, Storage, uninterrupted},
};
use batch::ENTRY_HEADER_BYTES;
use checkpoint::{Out, Summary};
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

/// The folder of a data directory that holds the ledger.
pub const DIRECTORY: &str = "ledger";

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

    /// Every entry after the checkpoint's begin, in order.
    ///
    /// Images are taken while writes go on, so what an image has seen already comes again: an entry whose LSN is at
    /// most that of the image of its owner may name things that the image does not have any more, and the entry that
    /// removed them follows.
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
    /// A mistake planted by a test that is to notice it.
    #[doc(hidden)]
    pub planted: Option<Planted>,
}

impl Default for LedgerConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            checkpoint_bytes: 256 << 20,
            clean_percent: 50,
            repair: false,
            clock: Arc::new(SystemClock::default()),
            planted: None,
        }
    }
}

/// What opening found.
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    /// Where replay began: the checkpoint's begin, or none.
    pub checkpoint: Lsn,
    /// The last batch.
    pub last: Lsn,
    /// Images that were fed.
    pub images: u64,
    /// Entries that were replayed.
    pub entries: u64,
    /// What a crash left of batches that nobody was told of as flushed; it was cut.
    pub cut: Option<Cut>,
    /// Damage that was got past: repaired, or a checkpoint in whose place the one before it was taken.
    pub damages: Vec<Damage>,
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
    journal: Journal,
    config: LedgerConfig,
    /// Checkpoints that count, oldest first.
    checkpoints: Mutex<Vec<Summary>>,
    /// Whether one is being written.
    checkpointing: AtomicBool,
    /// Bytes of batches since the last checkpoint began.
    since_checkpoint: AtomicU64,
    /// Segments that are being cleaned.
    cleaning: Mutex<BTreeSet<u32>>,
}

impl Ledger {
    /// Opens the ledger of `storage`, an empty directory or one with a ledger, and feeds `fold` what it holds.
    ///
    /// # Errors
    /// - [`ErrorKind::Corrupt`]: what was on the disk is damaged; `file` and `offset` say where.
    /// - [`ErrorKind::Unsupported`]: written by a newer version.
    /// - `Io`, `StorageFull`: the storage failed.
    /// - What `fold` gives.
    pub fn open(
        storage: Arc<dyn Storage>,
        config: &LedgerConfig,
        fold: &mut dyn Fold,
    ) -> Result<(Self, Recovery)> {
        check_config(config)?;
        let mut recovery = Recovery::default();
        let checkpoints = load(&*storage, config.repair, fold, &mut recovery)?;
        let newest = checkpoints.last();
        let expected = Expected {
            from: newest.map_or(Lsn::NONE, |newest| newest.begin),
            flushed: newest.map_or(Lsn::NONE, |newest| newest.end),
            id: newest.map(|newest| newest.journal),
        };
        let mut since_checkpoint = 0;
        let mut visit = |lsn, segment, offset, payload: &[u8]| {
            since_checkpoint += payload.len() as u64;
            each_entry(payload, |at, found| {
                recovery.entries += 1;
                fold.entry(lsn, Place::new(segment, offset + at, found.size), found.entry)
            })
            .map_err(|error| error.with("segment", segment).with("offset", offset).with("lsn", lsn))
        };
        let journal_config = JournalConfig {
            segment_bytes: config.segment_bytes,
            repair: config.repair,
            clock: config.clock.clone(),
            planted: config.planted,
        };
        let (journal, opened) = Journal::open(&storage, journal_config, expected, &mut visit)?;
        (recovery.checkpoint, recovery.last, recovery.cut) = (expected.from, opened.last, opened.cut);
        recovery.damages.extend(opened.repaired);
        let mut missing = Vec::new();
        fold.kept(&mut |place| {
            if !journal.keep(place.segment(), u64::from(place.bytes_max())) {
                missing.push(place);
            }
        });
        for place in missing {
            let file = crate::journal::format::segment_name(place.segment());
            let what = "a segment is missing that is still referred to".to_owned();
            let damage = Damage { file, offset: u64::from(place.offset()), what };
            if !config.repair {
                return Err(damage.error("ledger.open"));
            }
            if !journal.keep(place.segment(), u64::from(place.bytes_max())) {
                journal.stand_in(place.segment())?;
                journal.keep(place.segment(), u64::from(place.bytes_max()));
                recovery.damages.push(damage);
            }
        }
        let shared = Shared {
            storage,
            journal,
            config: config.clone(),
            checkpoints: Mutex::new(checkpoints),
            checkpointing: AtomicBool::new(false),
            since_checkpoint: AtomicU64::new(since_checkpoint),
            cleaning: Mutex::new(BTreeSet::new()),
        };
        Ok((Self { shared: Arc::new(shared) }, recovery))
    }

    /// Hands `batch` to the kernel as one frame: durability [`Durability::Os`]. The order of calls is the order
    /// of LSNs. The batch can be asked for places afterwards, and is to be cleared before it is used again.
    ///
    /// # Errors
    /// - [`ErrorKind::StorageFull`]: nothing was written; retry when there is room.
    /// - [`ErrorKind::TooLarge`]: the batch is larger than a segment.
    /// - [`ErrorKind::Frozen`]: a write or flush failed. If it was this one, whether the batch will be there when the
    ///   ledger is opened again is unknown. Reads go on.
    pub fn write(&self, batch: &mut Batch) -> Result<Written> {
        let (kept, bytes) = (batch.kept_bytes(), batch.bytes() as u64);
        let time = batch.time().unwrap_or_else(|| self.shared.config.clock.wall());
        let appended = self.shared.journal.append(batch.frame(), kept, time)?;
        self.shared.since_checkpoint.fetch_add(bytes, Ordering::Relaxed);
        Ok(Written { lsn: appended.lsn, segment: appended.segment, offset: appended.offset })
    }

    /// Waits until the batch of `lsn` has got as far as `wanted`, and says how far it has got.
    ///
    /// # Errors
    /// - [`ErrorKind::Frozen`]: a write or flush failed; whether the batch survives a power cut is unknown.
    pub fn sync(&self, lsn: Lsn, wanted: Durability) -> Result<Durability> {
        let journal = &self.shared.journal;
        if self.shared.storage.is_volatile() {
            return Ok(Durability::Memory);
        }
        if journal.flushed() >= lsn {
            return Ok(Durability::Fsync);
        }
        match wanted {
            Durability::Memory | Durability::Os => Ok(Durability::Os),
            Durability::Interval(at_most) => {
                if let Some(error) = self.frozen() {
                    return Err(error);
                }
                journal.flush_by(self.shared.config.clock.now() + at_most);
                Ok(wanted)
            }
            Durability::Fsync => journal.flush(lsn).map(|()| Durability::Fsync),
        }
    }

    /// The bytes of the entry at `place` again, checked; they replace what is in `bytes`.
    ///
    /// # Errors
    /// - [`ErrorKind::Corrupt`]: what lies there is not what was written.
    /// - [`ErrorKind::NotFound`]: it was released, and its segment is gone.
    /// - `Io`: the storage failed.
    pub fn read(&self, place: Place, bytes: &mut Vec<u8>) -> Result<()> {
        // The place knows the size but for an eighth: one read gets it all.
        bytes.resize(place.bytes_max() as usize, 0);
        let read = self.shared.journal.read(place.segment(), place.offset(), bytes)?;
        let size = batch::decode(&bytes[..read])
            .map_err(|error| {
                let file = crate::journal::format::segment_name(place.segment());
                error.with("file", file).with("offset", place.offset())
            })?
            .size as usize;
        bytes.truncate(size);
        bytes.drain(..ENTRY_HEADER_BYTES);
        Ok(())
    }

    /// Says that the entry at `place`, written as kept, is no longer referred to: after the batch that says why was
    /// written. Once for each.
    pub fn release(&self, place: Place) {
        self.shared.journal.release(place.segment(), u64::from(place.bytes_max()));
    }

    /// The last batch that was written.
    pub fn last(&self) -> Lsn {
        self.shared.journal.last()
    }

    /// Says the same of several.
    pub fn release_all(&self, places: impl IntoIterator<Item = Place>) {
        // Neighbours lie in one segment as a rule.
        let (mut segment, mut bytes) = (0, 0);
        for place in places {
            if place.segment() != segment && bytes > 0 {
                self.shared.journal.release(segment, std::mem::take(&mut bytes));
            }
            segment = place.segment();
            bytes += u64::from(place.bytes_max());
        }
        if bytes > 0 {
            self.shared.journal.release(segment, bytes);
        }
    }

    /// Why nothing is written any more, if so.
    pub fn frozen(&self) -> Option<Error> {
        self.shared.journal.frozen().map(Error::duplicate)
    }

    /// How it is doing.
    pub fn status(&self) -> LedgerStatus {
        let Shared { journal, checkpoints, config, since_checkpoint, .. } = &*self.shared;
        let (segments, checkpoints) = (journal.segments(), checkpoints.lock());
        LedgerStatus {
            last: journal.last(),
            flushed: journal.flushed(),
            checkpoint: checkpoints.last().map_or(Lsn::NONE, |newest| newest.begin),
            checkpoint_due: since_checkpoint.load(Ordering::Relaxed) >= config.checkpoint_bytes,
            segments: segments.len(),
            disk_bytes: segments.iter().map(|segment| u64::from(segment.bytes)).sum::<u64>()
                + checkpoints.iter().map(|checkpoint| checkpoint.bytes).sum::<u64>(),
            kept_bytes: segments.iter().map(|segment| segment.kept()).sum(),
        }
    }

    /// Begins a checkpoint: replay will start after the last batch of now. Images may come in slices while
    /// writes go on; only [`Checkpoint::finish`] makes it count.
    ///
    /// # Errors
    /// - [`ErrorKind::AlreadyExists`]: one is under way.
    /// - [`ErrorKind::Frozen`]: a write or flush failed.
    /// - `Io`, `StorageFull`: the storage failed. Nothing is changed.
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        if let Some(error) = self.frozen() {
            return Err(error);
        }
        if self.shared.checkpointing.swap(true, Ordering::AcqRel) {
            return Err(Error::new(ErrorKind::AlreadyExists, "ledger.checkpoint"));
        }
        let turn = Turn(self.clone());
        let since = self.shared.since_checkpoint.load(Ordering::Relaxed);
        let begin = self.shared.journal.last();
        let time = self.shared.config.clock.wall().0;
        let out = Out::new(self.shared.storage.clone(), self.shared.journal.id(), begin, time)?;
        Ok(Checkpoint { out, turn, begin, since })
    }

    /// A segment that is worth cleaning, if there is one: its kept entries are to be written again by their
    /// owners, and released; then it goes by itself.
    pub fn cleanable(&self) -> Option<Cleanable> {
        clean::choose(self)
    }

    /// Does what is due: flushes, the next segment, removals. Says when to call again at the latest.
    pub fn tend(&self, now: Moment) -> Option<Moment> {
        let due = self.shared.journal.tend(now);
        clean::sweep(&self.shared);
        due
    }

    /// Calls `wake` when something is due earlier than [`Ledger::tend`] last said.
    pub fn on_due(&self, wake: impl Fn() + Send + Sync + 'static) {
        self.shared.journal.on_due(wake);
    }

    /// Flushes everything and says so in the journal. Writing afterwards is possible; opening again is quicker and
    /// knows all damage for what it is.
    ///
    /// # Errors
    /// - [`ErrorKind::Frozen`]: a write or flush failed, now or before.
    pub fn close(&self) -> Result<()> {
        let journal = &self.shared.journal;
        journal.flush(journal.last())?;
        journal.mark()
    }
}

/// A checkpoint under way. Dropped before it is finished, it never was.
pub struct Checkpoint {
    out: Out,
    turn: Turn,
    begin: Lsn,
    since: u64,
}

/// The right to write a checkpoint.
struct Turn(Ledger);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.shared.checkpointing.store(false, Ordering::Release);
    }
}

impl Checkpoint {
    /// Where replay will begin: with the batch after this one.
    pub fn begin(&self) -> Lsn {
        self.begin
    }

    /// Adds a part of `owner`'s state that has seen all batches up to `lsn`.
    ///
    /// # Errors
    /// - [`ErrorKind::TooLarge`]: more than 64 MiB. Give it in slices.
    /// - `Io`, `StorageFull`: the storage failed. Drop the checkpoint.
    pub fn image(&mut self, owner: Owner, lsn: Lsn, bytes: &[u8]) -> Result<()> {
        self.out.image(owner, lsn, bytes)
    }

    /// Makes the checkpoint count, and removes what nothing needs any more. Waits for the disk.
    ///
    /// # Errors
    /// As for [`Checkpoint::image`]; the checkpoint before it counts then. [`ErrorKind::Frozen`]: a flush failed.
    pub fn finish(mut self) -> Result<()> {
        let Self { turn: Turn(ledger), begin, .. } = &self;
        let (shared, begin) = (ledger.shared.clone(), *begin);
        // No image has seen more than was written until now. It must not count before the journal has that too.
        let end = shared.journal.last();
        self.out.complete(end)?;
        shared.journal.flush(end)?;
        let bytes = self.out.publish(begin)?;
        uninterrupted(|| shared.storage.sync_directory("")).map_err(|error| {
            // Nobody knows which checkpoint counts after a power cut, so nothing may build on it.
            shared.journal.freeze("ledger.checkpoint", &checkpoint::file_name(begin), error)
        })?;
        let journal = shared.journal.id();
        let mut checkpoints = shared.checkpoints.lock();
        checkpoints.retain(|older| older.begin != begin);
        checkpoints.push(Summary { journal, begin, end, images: self.out.images(), bytes });
        while checkpoints.len() > CHECKPOINTS_KEPT {
            // One that comes back or cannot be removed is only one more.
            let _ = shared.storage.remove(&checkpoint::file_name(checkpoints[0].begin));
            checkpoints.remove(0);
        }
        drop(checkpoints);
        shared.since_checkpoint.fetch_sub(self.since, Ordering::Relaxed);
        clean::sweep(&shared);
        Ok(())
    }
}

/// Finds the checkpoints, feeds the newest that is sound, and returns it and the one before it.
fn load(
    storage: &dyn Storage,
    repair: bool,
    fold: &mut dyn Fold,
    recovery: &mut Recovery,
) -> Result<Vec<Summary>> {
    let names = storage.list("").map_err(|error| checkpoint::failed(error, "."))?;
    let mut begins: Vec<Lsn> = names.iter().filter_map(|name| checkpoint::begin_of(name)).collect();
    begins.sort_unstable();
    for name in names.iter().filter(|name| checkpoint::is_unfinished(name)) {
        uninterrupted(|| storage.remove(name)).map_err(|error| checkpoint::failed(error, name))?;
    }
    let mut found: Vec<Summary> = Vec::new();
    while let Some(begin) = begins.pop() {
        let name = checkpoint::file_name(begin);
        let file = uninterrupted(|| storage.open(&name, Open::Existing))
            .map_err(|error| checkpoint::failed(error, &name))?;
        file.distrust_cache();
        // All of it is checked before any of it is believed.
        let summary = match checkpoint::read(&*file, &name, &mut |_, _, _| Ok(())) {
            Ok(summary) if summary.begin == begin => summary,
            Err(error) if error.kind() != ErrorKind::Corrupt => return Err(error),
            other => {
                let other = other.map(drop).map_err(|error| {
                    let what = error.get("what").unwrap_or_default().to_owned();
                    (error.get("offset").and_then(|offset| offset.parse().ok()).unwrap_or(0), what)
                });
                let (offset, what) = other.err().unwrap_or((0, "another checkpoint's name".to_owned()));
                recovery.damages.push(Damage { file: name.clone(), offset, what });
                if repair {
                    set_aside(storage, &name)?;
                }
                continue;
            }
        };
        if found.is_empty() {
            let mut see = |owner, lsn, bytes: &[u8]| fold.image(owner, lsn, bytes);
            checkpoint::read(&*file, &name, &mut see)?;
            recovery.images = summary.images;
        }
        found.insert(0, summary);
        if found.len() == CHECKPOINTS_KEPT {
            break;
        }
    }
    Ok(found)
}

fn check_config(config: &LedgerConfig) -> Result<()> {
    let refuse = |name: &'static str, value: u64, rule: &str| {
        Err(Error::new(ErrorKind::InvalidArgument, "ledger.open").with(name, value).with("rule", rule))
    };
    if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&config.segment_bytes) {
        return refuse("segment_bytes", config.segment_bytes.into(), "1 KiB to 1 GiB");
    }
    if !config.segment_bytes.is_multiple_of(8) {
        return refuse("segment_bytes", config.segment_bytes.into(), "a multiple of 8");
    }
    if config.clean_percent > 90 {
        return refuse("clean_percent", config.clean_percent.into(), "at most 90");
    }
    Ok(())
}

const SEGMENT_BYTES_MIN: u32 = 1 << 10;
const SEGMENT_BYTES_MAX: u32 = 1 << 30;
/// The newest, and the one before it for the case that the newest is damaged.
const CHECKPOINTS_KEPT: usize = 2;
