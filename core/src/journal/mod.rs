//! An append-only log of frames, split into segments.
//!
//! Knows payloads as bytes; never what they mean, and starts no thread: who appends writes, who flushes leads for
//! all who wait. A frame counts once it is whole; [`Journal::open`] cuts exactly after the last whole one, and
//! refuses a journal in which a frame is bad that is known to have been flushed.
//!
//! After any failed write or flush the journal is frozen: nothing is acknowledged any more, reads go on. A full
//! disk is no failure: nothing was written then, and writing resumes when there is room.
//!
//! `FORMAT.md` beside this draws the files.
#![forbid(unsafe_code)]

mod commit;
pub mod format;
mod inspect;
mod place;
mod recovery;
mod repair;

pub use format::{FRAME_HEADER_BYTES, FrameHeader, FrameKind, JournalId, SEGMENT_HEADER_BYTES};
pub use inspect::{JournalReport, SegmentReport, inspect};
use place::SEGMENT_MAX;
pub use place::{Lsn, Place};
pub use recovery::{Cut, Damage, Expected, Opened, QUARANTINE};
pub use repair::set_aside;

use crate::sync::lock::{Mutex, RwLock};
use crate::{
    clock::{Clock, Moment, Timestamp},
    error::{Error, ErrorKind, Result},
    storage::{self, File, Open, Storage, read_full, uninterrupted, write_full},
};
use commit::Commit;
use format::{SegmentHeader, padded, seal, segment_name};
use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

/// Settings of a journal.
#[derive(Clone)]
pub struct JournalConfig {
    /// The size of a segment's file.
    pub segment_bytes: u32,
    /// Whether damage is moved into quarantine instead of being refused.
    pub repair: bool,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// A mistake planted by a test that is to notice it.
    pub planted: Option<Planted>,
}

/// Mistakes that the tests plant, to see that they would notice them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// A flush is reported that was not done.
    AckBeforeFlush,
    /// Recovery cuts the last whole frame too.
    CutOneTooMany,
}

/// The journal in one directory. Any thread may call it.
pub struct Journal {
    storage: Arc<dyn Storage>,
    config: JournalConfig,
    id: JournalId,
    writer: Mutex<Writer>,
    /// The next segment, made ahead of its need. Locked after `writer`.
    prepared: Mutex<Prepared>,
    commit: Commit,
    segments: RwLock<BTreeMap<u32, Arc<Segment>>>,
    frozen: OnceLock<Error>,
}

/// One segment's file.
pub struct Segment {
    /// Its number.
    pub number: u32,
    /// The batch that its first one follows.
    pub after: Lsn,
    /// The size of the file.
    pub bytes: u32,
    file: Arc<dyn File>,
    /// Its last batch, once another segment has followed.
    last: AtomicU64,
    /// What the layer above says that is still referred to.
    kept: AtomicU64,
    /// Where the frames end.
    end: AtomicU32,
}

struct Writer {
    active: Arc<Segment>,
    /// The last batch.
    last: Lsn,
    /// Where a failed write may have left something, beyond the end of the frames.
    garbage_end: u32,
    /// Segments with frames that may not be on the disk, oldest first; the active one is the last.
    unflushed: Vec<Arc<Segment>>,
}

struct Prepared {
    /// The number of the next segment.
    number: u32,
    file: Option<Arc<dyn File>>,
}

/// Where an appended frame lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its place in the order of all.
    pub lsn: Lsn,
    /// The number of its segment.
    pub segment: u32,
    /// Its offset there.
    pub offset: u32,
}

impl Segment {
    /// Its last batch, if another segment has followed.
    pub fn last(&self) -> Option<Lsn> {
        // Acquire: pairs with the release when the segment is left, so that its end is seen too.
        let last = self.last.load(Ordering::Acquire);
        (last != OPEN).then_some(Lsn(last))
    }

    /// Where its frames end.
    pub fn end(&self) -> u32 {
        self.end.load(Ordering::Relaxed)
    }

    fn read(&self, offset: u32, into: &mut [u8]) -> Result<usize> {
        read_full(&*self.file, u64::from(offset), into).map_err(|error| {
            Error::from_io("journal.read", error)
                .with("file", segment_name(self.number))
                .with("offset", offset)
        })
    }

    fn room(&self) -> usize {
        self.bytes.saturating_sub(self.end()) as usize
    }

    /// What is kept of it.
    pub fn kept(&self) -> u64 {
        self.kept.load(Ordering::Relaxed)
    }
}

impl Journal {
    /// Hands `frame`, room for a header and then the payload, to the kernel as the next batch, at `time`; `kept` is
    /// what the layer above keeps of it. `frame` is the same afterwards but for the header.
    ///
    /// # Errors
    /// - [`ErrorKind::TooLarge`], [`ErrorKind::StorageFull`]: nothing was written.
    /// - [`ErrorKind::Frozen`]: a write or flush failed, now or before.
    pub fn append(&self, frame: &mut Vec<u8>, kept: u64, time: Timestamp) -> Result<Appended> {
        let size = padded(frame.len());
        let limit = self.config.segment_bytes as usize - SEGMENT_HEADER_BYTES - NOTE_BYTES;
        if size > limit {
            let error = Error::new(ErrorKind::TooLarge, "journal.append");
            return Err(error.with("bytes", size).with("limit", limit));
        }
        let mut writer = self.writer.lock();
        self.check()?;
        if size + NOTE_BYTES > writer.active.room() {
            self.roll(&mut writer)?;
        }
        let lsn = writer.last.next();
        let offset = writer.active.end();
        self.put(&mut writer, frame, FrameKind::Batch, lsn, time)?;
        writer.active.kept.fetch_add(kept, Ordering::Relaxed);
        writer.last = lsn;
        let (segment, half, end) = (writer.active.number, writer.active.bytes / 2, writer.active.end());
        drop(writer);
        if offset <= half && end > half {
            // The next segment is to be made before it is needed.
            self.commit.poke();
        }
        Ok(Appended { lsn, segment, offset })
    }

    /// Says in the journal itself how far it is flushed, so that recovery can tell damage there from a torn tail: in a
    /// frame, or where there is no room for it in the header of the next segment. Left out when the disk is full.
    ///
    /// # Errors
    /// - [`ErrorKind::Frozen`]: a write or flush failed, now or before.
    pub fn mark(&self) -> Result<()> {
        let mut writer = self.writer.lock();
        self.check()?;
        let marked = if writer.active.room() < 2 * NOTE_BYTES {
            self.roll(&mut writer)
        } else {
            self.note(&mut writer, FrameKind::Mark)
        };
        match marked {
            Err(error) if error.kind() == ErrorKind::StorageFull => Ok(()),
            marked => marked,
        }
    }

    /// A frame without payload, unless the segment is left already.
    fn note(&self, writer: &mut Writer, kind: FrameKind) -> Result<()> {
        if writer.active.room() < NOTE_BYTES {
            return Ok(());
        }
        let lsn = writer.last;
        self.put(writer, &mut vec![0; FRAME_HEADER_BYTES], kind, lsn, self.config.clock.wall())
    }

    /// Writes a frame at the end of the active segment, where there is room for it.
    fn put(
        &self,
        writer: &mut Writer,
        frame: &mut Vec<u8>,
        kind: FrameKind,
        lsn: Lsn,
        time: Timestamp,
    ) -> Result<()> {
        let (bytes, offset) = (frame.len(), writer.active.end());
        seal(frame, self.id, &FrameHeader { kind, lsn, flushed: self.flushed(), time: time.0 });
        let end = offset + frame.len() as u32;
        let (file, garbage_end) = (&*writer.active.file, writer.garbage_end);
        // What a failed write left behind must not be found behind this frame. It goes first: zeros and frame in one
        // write, cut short between the two, would be an error that leaves a whole frame.
        let scrubbed = match garbage_end.checked_sub(end) {
            Some(garbage @ 1..) => write_full(file, u64::from(end), &vec![0; garbage as usize]),
            _ => Ok(()),
        };
        let written = scrubbed.and_then(|()| write_full(file, u64::from(offset), frame));
        frame.truncate(bytes);
        match written {
            Ok(()) => {
                writer.active.end.store(end, Ordering::Relaxed);
                writer.garbage_end = 0;
                Ok(())
            }
            Err(error) => {
                writer.garbage_end = garbage_end.max(end);
                Err(self.failed("journal.append", &segment_name(writer.active.number), error))
            }
        }
    }

    /// Goes on in the next segment.
    #[cold]
    fn roll(&self, writer: &mut Writer) -> Result<()> {
        let mut prepared = self.prepared.lock();
        let number = prepared.number;
        // In this order: where a segment says that it is left, the name of the next one is durable.
        let file = self.prepare(&mut prepared)?;
        self.note(writer, FrameKind::End)?;
        // Should the header fail, nothing is appended here any more: the next attempt comes back to this place.
        writer.active.end.store(writer.active.bytes, Ordering::Relaxed);
        let header = SegmentHeader {
            journal: self.id,
            segment: number,
            bytes: self.config.segment_bytes,
            after: writer.last,
            first: writer.last.next(),
            flushed: self.flushed(),
        };
        write_full(&*file, 0, &header.encode())
            .map_err(|error| self.failed("journal.append", &segment_name(number), error))?;
        let segment = Arc::new(Segment::new(&header, file, SEGMENT_HEADER_BYTES as u32));
        *prepared = Prepared { number: number + 1, file: None };
        self.segments.write().insert(number, segment.clone());
        // Release: who sees the last batch sees the end of its frames.
        writer.active.last.store(writer.last.0, Ordering::Release);
        writer.unflushed.push(segment.clone());
        writer.active = segment;
        writer.garbage_end = 0;
        Ok(())
    }

    /// The file of the next segment: allocated, empty, its name durable.
    fn prepare(&self, prepared: &mut Prepared) -> Result<Arc<dyn File>> {
        if let Some(file) = &prepared.file {
            return Ok(file.clone());
        }
        if prepared.number > SEGMENT_MAX {
            return Err(Error::new(ErrorKind::TooLarge, "journal.append").with("segment", prepared.number));
        }
        let name = segment_name(prepared.number);
        let file = make_segment(&*self.storage, &name, self.config.segment_bytes)
            .map_err(|error| self.failed("journal.prepare", &name, error))?;
        prepared.file = Some(file.clone());
        Ok(file)
    }

    /// Waits until the batch of `lsn` is on the disk.
    ///
    /// # Errors
    /// - [`ErrorKind::Frozen`]: a write or flush failed; whether it is there is unknown.
    pub fn flush(&self, lsn: Lsn) -> Result<()> {
        if self.config.planted == Some(Planted::AckBeforeFlush) {
            return Ok(());
        }
        self.commit.reach(lsn, || self.check(), |began| self.flush_once(began))
    }

    /// Flushes what was written until now, and says how far that is: before, and when it is done.
    fn flush_once(&self, began: &dyn Fn(Lsn)) -> Result<Lsn> {
        let (last, unflushed) = {
            let writer = self.writer.lock();
            (writer.last, writer.unflushed.clone())
        };
        began(last);
        self.check()?;
        for segment in &unflushed {
            uninterrupted(|| segment.file.sync())
                .map_err(|error| self.freeze("journal.flush", &segment_name(segment.number), error))?;
        }
        if unflushed.len() > 1 {
            let newest = unflushed[unflushed.len() - 1].number;
            self.writer.lock().unflushed.retain(|segment| segment.number >= newest);
        }
        Ok(last)
    }

    /// Asks for a flush by `due` at the latest, by [`Journal::tend`].
    pub fn flush_by(&self, due: Moment) {
        self.commit.flush_by(due);
    }

    /// Calls `wake` when something is due earlier than [`Journal::tend`] last said.
    pub fn on_due(&self, wake: impl Fn() + Send + Sync + 'static) {
        self.commit.on_due(wake);
    }

    /// Flushes when it is due or a segment was left, and makes the next segment ahead of its need. Says when to call again at the latest.
    pub fn tend(&self, now: Moment) -> Option<Moment> {
        if self.check().is_err() {
            return None;
        }
        let (active, left_unflushed) = {
            let writer = self.writer.lock();
            (writer.active.clone(), writer.unflushed.len() > 1)
        };
        if active.end() > active.bytes / 2
            && let Some(mut prepared) = self.prepared.try_lock()
            && prepared.number == active.number + 1
        {
            // Without room now, the appender that needs it is told.
            let _ = self.prepare(&mut prepared);
        }
        // What was left is flushed whoever waits: the less is unflushed, the more damage is known for what it is.
        if self.commit.take_due(now) || left_unflushed {
            // What fails freezes the journal: whoever writes next is told.
            let _ = self.flush(self.last());
        }
        self.commit.due()
    }

    /// Reads from a segment's file; less than asked at its end.
    ///
    /// # Errors
    /// - [`ErrorKind::NotFound`]: there is no such segment any more.
    /// - `Io`: the storage failed.
    pub fn read(&self, segment: u32, offset: u32, into: &mut [u8]) -> Result<usize> {
        let found = self.segments.read().get(&segment).cloned();
        let found = found.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "journal.read").with("file", segment_name(segment))
        })?;
        found.read(offset, into)
    }

    /// Shows every batch of a segment that was left: the offset of its payload, and that. It may have been removed.
    ///
    /// # Errors
    /// - [`ErrorKind::Corrupt`]: a frame is damaged.
    /// - `Io`: the storage failed; what `see` gives.
    pub fn batches(&self, segment: &Segment, mut see: impl FnMut(u32, &[u8]) -> Result<()>) -> Result<()> {
        let mut bytes = vec![0; segment.bytes as usize];
        let read = segment.read(0, &mut bytes)?;
        let (mut at, bytes) = (SEGMENT_HEADER_BYTES, &bytes[..read]);
        loop {
            let frame =
                bytes.get(at..).and_then(|bytes| format::decode(bytes, self.id)).ok_or_else(|| {
                    let error = Error::new(ErrorKind::Corrupt, "journal.read").with("what", "a bad frame");
                    error.with("file", segment_name(segment.number)).with("offset", at)
                })?;
            match frame.header.kind {
                FrameKind::Batch => see((at + FRAME_HEADER_BYTES) as u32, frame.payload)?,
                FrameKind::End => break,
                FrameKind::Mark | FrameKind::Hole => {}
            }
            at += frame.size;
        }
        Ok(())
    }

    /// The last batch that was written.
    pub fn last(&self) -> Lsn {
        self.writer.lock().last
    }

    /// The last batch known to be on the disk.
    pub fn flushed(&self) -> Lsn {
        self.commit.flushed()
    }

    /// The number that tells this journal from others.
    pub fn id(&self) -> JournalId {
        self.id
    }

    /// All segments, oldest first.
    pub fn segments(&self) -> Vec<Arc<Segment>> {
        self.segments.read().values().cloned().collect()
    }

    /// What is kept of a segment becomes more.
    pub fn keep(&self, segment: u32, bytes: u64) -> bool {
        self.segments
            .read()
            .get(&segment)
            .map(|found| found.kept.fetch_add(bytes, Ordering::Relaxed))
            .is_some()
    }

    /// What is kept of a segment becomes less.
    pub fn release(&self, segment: u32, bytes: u64) {
        if let Some(found) = self.segments.read().get(&segment) {
            let less = |kept: u64| Some(kept.saturating_sub(bytes));
            let _ = found.kept.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
    }

    /// Removes a segment that nothing needs any more. Its name may come back after a power cut.
    ///
    /// # Errors
    /// `Io`: the storage failed; it stays.
    pub fn remove(&self, segment: u32) -> Result<()> {
        let name = segment_name(segment);
        uninterrupted(|| self.storage.remove(&name))
            .map_err(|error| Error::from_io("journal.remove", error).with("file", &name))?;
        self.segments.write().remove(&segment);
        Ok(())
    }

    /// Why nothing is written any more, if so.
    pub fn frozen(&self) -> Option<&Error> {
        self.frozen.get()
    }

    fn check(&self) -> Result<()> {
        self.frozen.get().map_or(Ok(()), |error| Err(error.duplicate()))
    }

    /// A full disk is told; anything else freezes.
    fn failed(&self, operation: &'static str, file: &str, error: io::Error) -> Error {
        if storage::is_full(&error) {
            return Error::new(ErrorKind::StorageFull, operation).with("file", file).because(error);
        }
        self.freeze(operation, file, error)
    }

    /// Writes nothing any more, because `operation` on `file` failed.
    #[cold]
    pub fn freeze(&self, operation: &'static str, file: &str, error: io::Error) -> Error {
        let error = Error::new(ErrorKind::Frozen, operation).with("file", file).because(error);
        self.frozen.get_or_init(|| error).duplicate()
    }
}

impl Segment {
    fn new(header: &SegmentHeader, file: Arc<dyn File>, end: u32) -> Self {
        Self {
            number: header.segment,
            after: header.after,
            bytes: header.bytes,
            file,
            last: AtomicU64::new(OPEN),
            kept: AtomicU64::new(0),
            end: AtomicU32::new(end),
        }
    }
}

/// An allocated file whose name is durable; a leftover of an attempt that failed is made anew.
fn make_segment(storage: &dyn Storage, name: &str, bytes: u32) -> io::Result<Arc<dyn File>> {
    let open = || uninterrupted(|| storage.open(name, Open::New));
    let file = match open() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            uninterrupted(|| storage.remove(name))?;
            open()?
        }
        opened => opened?,
    };
    uninterrupted(|| file.allocate(u64::from(bytes)))?;
    uninterrupted(|| storage.sync_directory(""))?;
    Ok(file)
}

/// What a frame without payload takes.
const NOTE_BYTES: usize = padded(FRAME_HEADER_BYTES);
/// The last batch of a segment that may still get more.
const OPEN: u64 = u64::MAX;
