//! Opening: finds the last whole frame, tells a torn tail from damage, and cuts the tail.
//!
//! Frames are followed in order of their LSNs, through segments that say which batch they follow. Where that ends,
//! everything behind is looked at for whole frames. If one of them, a header or the checkpoint knows that the missing
//! batch was flushed, it is damage, which only repair gets past. Otherwise it is what a crash left of batches that were
//! never flushed: it is overwritten with zeros, so that nothing of it can be found behind later frames, and segments
//! behind it go.
//!
//! What was read may be in the cache alone: it is flushed before anything builds on it, and clean pages are dropped
//! before it is read, because after a failed flush they are not what the disk has. Each step can be cut short by a
//! crash and taken again.

use super::{
    Journal, JournalConfig, JournalId, Lsn, NOTE_BYTES, Planted, Prepared, SEGMENT_HEADER_BYTES, Segment,
    Writer,
    commit::Commit,
    format::{self, FrameHeader, FrameKind, SegmentHeader, filler, segment_name, segment_of},
    make_segment,
};
use crate::sync::lock::{Mutex, RwLock};
use crate::{
    error::{Error, ErrorKind, Result},
    os,
    storage::{self, File, Open, Storage, read_full, uninterrupted, write_full},
};
use std::{
    io,
    sync::{Arc, OnceLock, atomic::Ordering},
};

/// What opening found.
#[derive(Clone, Debug, Default)]
pub struct Opened {
    /// The last batch.
    pub last: Lsn,
    /// Batches that were shown.
    pub batches: u64,
    /// What was left of batches that were never flushed, if anything.
    pub cut: Option<Cut>,
    /// What repair moved into quarantine.
    pub repaired: Vec<Damage>,
}

/// A torn tail that was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The file whose frames end here.
    pub file: String,
    /// Right behind the last whole frame.
    pub offset: u64,
    /// From there to the last byte that was not zero, in all files.
    pub bytes: u64,
    /// Whole batches among it, which came after one that is missing.
    pub batches: u64,
}

/// Where stored data is not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: String,
    /// The first bad byte's frame or header.
    pub offset: u64,
    /// What is wrong there.
    pub what: String,
}

impl Damage {
    /// As an error.
    pub fn error(&self, operation: &'static str) -> Error {
        Error::new(ErrorKind::Corrupt, operation)
            .with("what", &self.what)
            .with("file", &self.file)
            .with("offset", self.offset)
    }
}

/// Where damage goes.
pub const QUARANTINE: &str = "quarantine";

/// Shown each batch: its LSN, its segment, the offset of its payload there, the payload.
pub(super) type Visit<'a> = &'a mut dyn FnMut(Lsn, u32, u32, &[u8]) -> Result<()>;

/// What is known before a journal is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expected {
    /// Batches up to this one are not needed.
    pub from: Lsn,
    /// Batches up to this one were flushed.
    pub flushed: Lsn,
    /// The journal it is.
    pub id: Option<JournalId>,
}

impl Journal {
    /// Opens the journal of `storage`, or makes one where there is nothing, and shows `visit` every batch after
    /// `expected.from`.
    ///
    /// # Errors
    /// - [`ErrorKind::Corrupt`]: damage; `file` and `offset` say where.
    /// - [`ErrorKind::Unsupported`]: written by a newer version.
    /// - `Io`, `StorageFull`: the storage failed.
    pub fn open(
        storage: &Arc<dyn Storage>,
        config: JournalConfig,
        expected: Expected,
        visit: Visit<'_>,
    ) -> Result<(Self, Opened)> {
        let mut opening = Opening::new(&**storage, Open::Existing, config.segment_bytes, expected);
        opening.list()?;
        let mut opened = Opened::default();
        let id = match opening.id()? {
            Some(id) => id,
            None => opening.make()?,
        };
        if config.repair {
            opening.repair(id, &mut opened.repaired)?;
        }
        let survey = opening.survey(id, visit)?;
        if let Some(damage) = survey.damage {
            return Err(damage.error(OPERATION).with("lsn", survey.next).with("flushed", survey.flushed));
        }
        opened.last = Lsn(survey.next.0 - 1);
        opened.batches = survey.batches;
        let end = opening.settle(id, &survey, config.planted, &mut opened)?;
        let segments = opening.segments(&survey, end);
        let active = segments[segments.len() - 1].clone();
        let journal = Self {
            prepared: Mutex::new(Prepared { number: active.number + 1, file: None }),
            writer: Mutex::new(Writer {
                unflushed: vec![active.clone()],
                active,
                last: opened.last,
                garbage_end: 0,
            }),
            commit: Commit::new(opened.last),
            segments: RwLock::new(segments.into_iter().map(|segment| (segment.number, segment)).collect()),
            frozen: OnceLock::new(),
            id,
            config,
            storage: storage.clone(),
        };
        journal.mark()?;
        Ok((journal, opened))
    }
}

pub(super) struct Opening<'a> {
    pub(super) storage: &'a dyn Storage,
    how: Open,
    /// The size of a segment that is made.
    pub(super) segment_bytes: u32,
    pub(super) expected: Expected,
    /// By number.
    pub(super) files: Vec<Candidate>,
    pub(super) buffer: Vec<u8>,
}

pub(super) struct Candidate {
    pub(super) number: u32,
    pub(super) name: String,
    pub(super) file: Arc<dyn File>,
    pub(super) header: Result<Option<SegmentHeader>>,
}

impl Candidate {
    pub(super) fn header(&self) -> Option<&SegmentHeader> {
        self.header.as_ref().ok().and_then(Option::as_ref)
    }
}

/// Where following the frames ended.
#[derive(Default)]
pub(super) struct Survey {
    /// Whether there was something to begin with.
    pub(super) started: bool,
    /// The file it began with.
    pub(super) start: usize,
    /// The file it ended in, and where.
    pub(super) stop: usize,
    pub(super) offset: usize,
    /// The batch that is not there.
    pub(super) next: Lsn,
    pub(super) flushed: Lsn,
    pub(super) batches: u64,
    /// Files from `start` on that lack their end frame, and where it belongs.
    pub(super) endless: Vec<(usize, usize)>,
    /// The file it ended in says that nothing follows there.
    pub(super) ended: bool,
    /// The last batch's frame in the file it ended in.
    pub(super) last_frame: Option<usize>,
    /// Behind the end of the frames in that file: up to where anything lies.
    pub(super) dirty_end: usize,
    /// Whole batches behind.
    pub(super) stray_batches: u64,
    pub(super) damage: Option<Damage>,
}

impl<'a> Opening<'a> {
    pub(super) fn new(storage: &'a dyn Storage, how: Open, segment_bytes: u32, expected: Expected) -> Self {
        Self { storage, how, segment_bytes, expected, files: Vec::new(), buffer: Vec::new() }
    }
}

impl Opening<'_> {
    /// Finds the segments and reads their headers.
    pub(super) fn list(&mut self) -> Result<()> {
        self.files.clear();
        let names = self.storage.list("").map_err(|error| failed(error, "."))?;
        let mut numbers: Vec<u32> = names.iter().filter_map(|name| segment_of(name)).collect();
        numbers.sort_unstable();
        for number in numbers {
            let name = segment_name(number);
            let io = |error| failed(error, &name);
            let file = uninterrupted(|| self.storage.open(&name, self.how)).map_err(io)?;
            file.distrust_cache();
            let mut bytes = [0; SEGMENT_HEADER_BYTES];
            let read = read_full(&*file, 0, &mut bytes).map_err(io)?;
            let header = SegmentHeader::decode(&bytes[..read]).and_then(|header| match header {
                Some(header) if header.segment != number => {
                    Err(Error::new(ErrorKind::Corrupt, OPERATION)
                        .with("what", "the header of another segment"))
                }
                header => Ok(header),
            });
            match header {
                Err(error) if error.kind() == ErrorKind::Unsupported => return Err(error.with("file", &name)),
                header => self.files.push(Candidate { number, name, file, header }),
            }
        }
        Ok(())
    }

    /// The journal that the segments belong to. None: there is no journal yet.
    pub(super) fn id(&mut self) -> Result<Option<JournalId>> {
        let first = self.files.iter().find_map(Candidate::header).map(|header| header.journal);
        if let Some(id) = self.expected.id.or(first) {
            return Ok(Some(id));
        }
        // A crash while it was made leaves an empty first segment.
        for index in 0..self.files.len() {
            self.read(index)?;
            let candidate = &self.files[index];
            if candidate.number != 1 || candidate.header.is_err() || self.buffer.iter().any(|byte| *byte != 0)
            {
                let what = "a segment without a sound header".into();
                return Err(Damage { file: candidate.name.clone(), offset: 0, what }.error(OPERATION));
            }
        }
        Ok(None)
    }

    /// A new journal with an empty first segment.
    fn make(&mut self) -> Result<JournalId> {
        let (mut id, bytes) = (JournalId([0; 16]), self.segment_bytes);
        os::random(&mut id.0)?;
        let name = segment_name(1);
        let io = |error| failed(error, &name);
        let file = make_segment(self.storage, &name, bytes).map_err(io)?;
        let header =
            SegmentHeader { journal: id, segment: 1, bytes, after: Lsn(0), first: Lsn(1), flushed: Lsn(0) };
        write(&*file, &name, 0, &header.encode())?;
        self.files = vec![Candidate { number: 1, name, file, header: Ok(Some(header)) }];
        Ok(id)
    }

    /// Follows the frames from the first that is needed to the end.
    pub(super) fn survey(&mut self, id: JournalId, visit: Visit<'_>) -> Result<Survey> {
        let wanted = self.expected.from.next();
        let mut survey = Survey { next: wanted, flushed: self.expected.flushed, ..Survey::default() };
        let start =
            self.files.iter().rposition(|file| file.header().is_some_and(|header| header.after < wanted));
        let Some(start) = start else {
            let (file, what) = match self.files.first() {
                Some(first) => (first.name.clone(), format!("batches {wanted} and on are missing before it")),
                None => (segment_name(1), "all segments are missing".to_owned()),
            };
            survey.damage = Some(Damage { file, offset: 0, what });
            return Ok(survey);
        };
        if let Some(damage) = self.files[..start].iter().find_map(|file| bad_header(file, id)) {
            survey.damage = Some(damage);
            return Ok(survey);
        }
        (survey.start, survey.started) = (start, true);
        let first = self.files[start].header().expect("it was looked for");
        survey.next = first.after.next();
        for index in start..self.files.len() {
            let Some(header) = self.files[index].header().copied() else { break };
            if header.journal != id || header.after.next() != survey.next {
                break;
            }
            if index > start && !survey.ended {
                survey.endless.push((survey.stop, survey.offset));
            }
            survey.flushed = survey.flushed.max(header.flushed);
            (survey.next, survey.stop) = (header.first, index);
            self.follow(id, &mut survey, visit)?;
        }
        self.look_behind(id, &mut survey)?;
        if survey.next <= survey.flushed {
            let Candidate { name, .. } = &self.files[survey.stop];
            let what = format!("batch {} was flushed and is damaged or missing", survey.next);
            survey.damage = Some(Damage { file: name.clone(), offset: survey.offset as u64, what });
            if survey.dirty_end == survey.offset {
                // Nothing of the segment it ended in is bad; the next one's header may be.
                let behind = self.files.get(survey.stop + 1).and_then(|file| bad_header(file, id));
                survey.damage = behind.or(survey.damage);
            }
        }
        let next_number = self.files[survey.stop].number + 1;
        if survey.ended && self.files.get(survey.stop + 1).is_none_or(|file| file.number != next_number) {
            // Its name was durable before the end was written.
            let what = format!("the segment of batch {} is missing", survey.next);
            survey.damage = Some(Damage { file: segment_name(next_number), offset: 0, what });
        }
        if survey.damage.is_none() {
            // A header lies in one sector: a crash leaves it whole or zero, so this is no crash's work.
            let behind = &self.files[survey.stop + 1..];
            let bad = behind.iter().filter(|file| !matches!(file.header, Ok(None)));
            survey.damage = bad.filter_map(|file| bad_header(file, id)).next();
        }
        Ok(survey)
    }

    /// Goes through the frames of file `survey.stop`.
    fn follow(&mut self, id: JournalId, survey: &mut Survey, visit: Visit<'_>) -> Result<()> {
        if let Some(next) = self.files.get(survey.stop + 1) {
            // The disk is at work while the frames of this one are.
            next.file.read_ahead();
        }
        self.read(survey.stop)?;
        let number = self.files[survey.stop].number;
        (survey.offset, survey.ended, survey.last_frame) = (SEGMENT_HEADER_BYTES, false, None);
        while let Some(frame) = self.buffer.get(survey.offset..).and_then(|bytes| format::decode(bytes, id)) {
            let FrameHeader { kind, lsn, flushed, .. } = frame.header;
            let fits = match kind {
                FrameKind::Batch => lsn == survey.next,
                FrameKind::Mark | FrameKind::End => lsn.next() == survey.next,
                FrameKind::Hole => lsn.next() >= survey.next,
            };
            if !fits {
                break;
            }
            if kind == FrameKind::Batch && lsn > self.expected.from {
                let payload = survey.offset + format::FRAME_HEADER_BYTES;
                visit(lsn, number, payload as u32, frame.payload)?;
                survey.batches += 1;
            }
            if kind == FrameKind::Batch {
                survey.last_frame = Some(survey.offset);
            }
            survey.next = lsn.next();
            survey.flushed = survey.flushed.max(flushed);
            survey.offset += frame.size;
            if kind == FrameKind::End {
                survey.ended = true;
                break;
            }
        }
        Ok(())
    }

    /// Looks for what lies behind the end of the frames, and what it knows of flushes.
    fn look_behind(&mut self, id: JournalId, survey: &mut Survey) -> Result<()> {
        for index in survey.stop..self.files.len() {
            self.read(index)?;
            let from = if index == survey.stop { survey.offset } else { SEGMENT_HEADER_BYTES };
            let behind = self.buffer.get(from..).unwrap_or(&[]);
            if index == survey.stop {
                survey.dirty_end = from + used(behind);
            }
            if let Some(header) = self.files[index].header()
                && header.journal == id
                && index > survey.stop
            {
                survey.flushed = survey.flushed.max(header.flushed);
            }
            for (_, frame) in format::search(behind, id) {
                survey.stray_batches += u64::from(frame.header.kind == FrameKind::Batch);
                survey.flushed = survey.flushed.max(frame.header.flushed);
            }
        }
        Ok(())
    }

    /// Cuts the tail and makes what was read durable. Returns where the last segment's frames end.
    fn settle(
        &mut self,
        id: JournalId,
        survey: &Survey,
        planted: Option<Planted>,
        opened: &mut Opened,
    ) -> Result<usize> {
        let stop = &self.files[survey.stop];
        // A segment that is gone on with has no end any more.
        let mut end = if survey.ended { survey.offset - NOTE_BYTES } else { survey.offset };
        let mut bytes = (survey.dirty_end - survey.offset) as u64;
        if let (Some(Planted::CutOneTooMany), true, Some(last)) = (planted, bytes > 0, survey.last_frame) {
            (end, opened.last) = (last, Lsn(opened.last.0 - 1));
        }
        if end < survey.dirty_end {
            write(&*stop.file, &stop.name, end as u64, &vec![0; survey.dirty_end - end])?;
        }
        for behind in self.files[survey.stop + 1..].iter().rev() {
            let length = behind.file.len().map_err(|error| failed(error, &behind.name))?;
            bytes += if behind.header().is_some() { length } else { 0 };
            uninterrupted(|| self.storage.remove(&behind.name))
                .map_err(|error| failed(error, &behind.name))?;
        }
        if self.files.len() > survey.stop + 1 {
            uninterrupted(|| self.storage.sync_directory("")).map_err(|error| failed(error, "."))?;
        }
        opened.cut = (bytes > 0).then(|| Cut {
            file: stop.name.clone(),
            offset: end as u64,
            bytes,
            batches: survey.stray_batches,
        });
        for (index, at) in &survey.endless {
            let Candidate { file, name, header, .. } = &self.files[*index];
            let next = self.files[*index + 1].header().expect("it was followed");
            let room =
                header.as_ref().ok().and_then(Option::as_ref).map_or(0, |header| header.bytes) as usize;
            if room.saturating_sub(*at) >= NOTE_BYTES {
                let frame = filler(format::FRAME_HEADER_BYTES, id, FrameKind::End, next.after);
                write_full(&**file, *at as u64, &frame).map_err(|error| failed(error, name))?;
            }
        }
        for Candidate { file, name, .. } in &self.files[survey.start..=survey.stop] {
            uninterrupted(|| file.sync()).map_err(|error| failed(error, name))?;
        }
        // Read whole, the file lies in the cache in large pieces, and the kernel goes through all of a piece for each
        // small write into it.
        stop.file.distrust_cache();
        Ok(end)
    }

    /// The segments as the journal keeps them; the last one's frames end at `end`.
    fn segments(&self, survey: &Survey, end: usize) -> Vec<Arc<Segment>> {
        let files = &self.files[..=survey.stop];
        let segment = |file: &Candidate| {
            let header = file.header().expect("its header was sound");
            Arc::new(Segment::new(header, file.file.clone(), end as u32))
        };
        let segments: Vec<_> = files.iter().map(segment).collect();
        for pair in segments.windows(2) {
            pair[0].end.store(pair[0].bytes, Ordering::Relaxed);
            pair[0].last.store(pair[1].after.0, Ordering::Release);
        }
        segments
    }

    /// Reads a file into the buffer.
    pub(super) fn read(&mut self, index: usize) -> Result<()> {
        let Candidate { file, name, .. } = &self.files[index];
        let length = file.len().map_err(|error| failed(error, name))?.min(u64::from(u32::MAX));
        self.buffer.resize(length as usize, 0);
        let read = read_full(&**file, 0, &mut self.buffer).map_err(|error| failed(error, name))?;
        self.buffer.truncate(read);
        Ok(())
    }
}

/// What is wrong with the header of a file that is there.
pub(super) fn bad_header(file: &Candidate, id: JournalId) -> Option<Damage> {
    let what = match &file.header {
        Err(error) => error.get("what").unwrap_or("a bad segment header").to_owned(),
        Ok(None) => "a segment without a header".to_owned(),
        Ok(Some(header)) if header.journal != id => "a segment of another journal".to_owned(),
        Ok(Some(_)) => return None,
    };
    Some(Damage { file: file.name.clone(), offset: 0, what })
}

/// The length without the zeros at the end.
fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// Writes what is on the disk before this returns.
pub(super) fn write(file: &dyn File, name: &str, offset: u64, bytes: &[u8]) -> Result<()> {
    write_full(file, offset, bytes)
        .and_then(|()| uninterrupted(|| file.sync()))
        .map_err(|error| failed(error, name))
}

pub(super) fn failed(error: io::Error, file: &str) -> Error {
    if storage::is_full(&error) {
        return Error::new(ErrorKind::StorageFull, OPERATION).with("file", file).because(error);
    }
    Error::from_io(OPERATION, error).with("file", file)
}

pub(super) const OPERATION: &str = "journal.open";
