//! Explicit repair: damage is copied into `quarantine/`, and what stands in its place says which batches are gone.
//!
//! Places of what is still sound stay the same: nothing is moved. A bad range between frames becomes a hole; a bad
//! header is made anew from the frames behind it; a file without one whole frame goes into quarantine as it is; where
//! whole segments are missing, the next one's header says so. After each step the journal is surveyed again.

use super::{
    FRAME_HEADER_BYTES, Journal, JournalId, Lsn, NOTE_BYTES, SEGMENT_HEADER_BYTES, Segment,
    format::{self, FrameKind, SegmentHeader, filler, segment_name},
    make_segment,
    recovery::{Damage, OPERATION, Opening, QUARANTINE, Survey, bad_header, failed, write},
};
use crate::{
    error::Result,
    storage::{File, Open, Storage, uninterrupted, write_full},
};
use std::{
    io,
    sync::{Arc, atomic::Ordering},
};

impl Opening<'_> {
    /// Repairs until a survey finds no damage.
    pub(super) fn repair(&mut self, id: JournalId, repaired: &mut Vec<Damage>) -> Result<()> {
        loop {
            let survey = self.survey(id, &mut |_, _, _, _| Ok(()))?;
            let Some(damage) = &survey.damage else { return Ok(()) };
            // Each step gets past what it repairs, or it never will.
            if repaired.len() >= REPAIRS_MAX || repaired.iter().filter(|known| *known == damage).count() > 1 {
                return Err(damage.error(OPERATION).with("repairs", repaired.len()));
            }
            repaired.push(damage.clone());
            self.fix(id, &survey, damage)?;
            self.list()?;
        }
    }

    fn fix(&mut self, id: JournalId, survey: &Survey, damage: &Damage) -> Result<()> {
        let bad =
            self.files.iter().position(|file| file.name == damage.file && bad_header(file, id).is_some());
        if let Some(index) = bad
            && damage.offset == 0
        {
            // What lies before replay begins only has to keep its place.
            let needed = survey.started && index > survey.start;
            return self.fix_header(id, index, needed.then_some(survey.next));
        }
        if !survey.started {
            // What replay would begin with is missing.
            return match self.files.iter().position(|file| file.header().is_some()) {
                Some(index) => self.bridge(index, Lsn(survey.next.0 - 1)),
                None => self.add_segment(id, survey),
            };
        }
        let stop = survey.stop;
        if !survey.ended && self.fix_frames(id, survey)? {
            return Ok(());
        }
        match self.files.get(stop + 1) {
            Some(file) if bad_header(file, id).is_some() => self.fix_header(id, stop + 1, Some(survey.next)),
            Some(file) if file.header().is_some_and(|header| header.first < survey.next) => {
                let name = file.name.clone();
                self.set_aside(&name)
            }
            Some(_) => self.bridge(stop + 1, Lsn(survey.next.0 - 1)),
            None => self.add_segment(id, survey),
        }
    }

    /// Makes a hole up to the next whole batch. False: there is none in this file, and the range is zero now.
    fn fix_frames(&mut self, id: JournalId, survey: &Survey) -> Result<bool> {
        self.read(survey.stop)?;
        let (name, from) = (self.files[survey.stop].name.clone(), survey.offset);
        let behind = self.buffer.get(from..).unwrap_or(&[]);
        let next = format::search(behind, id)
            .filter(|(at, frame)| *at >= NOTE_BYTES && frame.header.kind == FrameKind::Batch)
            .find(|(_, frame)| frame.header.lsn >= survey.next)
            .map(|(at, frame)| (at, frame.header.lsn));
        let until = next.map_or(survey.dirty_end, |(at, _)| from + at);
        let bytes = self.buffer.get(from..until).unwrap_or(&[]).to_vec();
        if !bytes.is_empty() {
            self.quarantine(&name, from, &bytes)?;
        }
        let patch = match next {
            Some((at, lsn)) => hole(id, at, Lsn(lsn.0 - 1)),
            None => vec![0; bytes.len()],
        };
        let file = &*self.files[survey.stop].file;
        write(file, &name, from as u64, &patch)?;
        Ok(next.is_some())
    }

    /// Makes the header of a file anew from its frames; `next` is the batch that should come first, if known.
    fn fix_header(&mut self, id: JournalId, index: usize, next: Option<Lsn>) -> Result<()> {
        self.read(index)?;
        let (name, number) = (self.files[index].name.clone(), self.files[index].number);
        let behind = self.buffer.get(SEGMENT_HEADER_BYTES..).unwrap_or(&[]);
        let found = format::search(behind, id)
            .filter(|(at, frame)| (*at == 0 || *at >= NOTE_BYTES) && frame.header.kind == FrameKind::Batch)
            .map(|(at, frame)| (at, frame.header.lsn))
            .find(|(_, lsn)| next.is_none_or(|next| *lsn >= next));
        let Some((at, lsn)) = found else { return self.set_aside(&name) };
        let bytes = std::mem::take(&mut self.buffer);
        self.quarantine(&name, 0, &bytes[..SEGMENT_HEADER_BYTES + at])?;
        let after = Lsn(next.unwrap_or(lsn).0 - 1);
        let first = if at == 0 { lsn } else { after.next() };
        let size = (bytes.len() as u32).max(SEGMENT_BYTES_MIN).next_multiple_of(8);
        let header =
            SegmentHeader { journal: id, segment: number, bytes: size, after, first, flushed: Lsn(0) };
        let file = &*self.files[index].file;
        if at > 0 {
            write(file, &name, SEGMENT_HEADER_BYTES as u64, &hole(id, at, Lsn(lsn.0 - 1)))?;
        }
        write(file, &name, 0, &header.encode())
    }

    /// Lets a segment follow the batch `after`, whatever is missing before it.
    fn bridge(&mut self, index: usize, after: Lsn) -> Result<()> {
        let file = &self.files[index];
        let mut header = *file.header().expect("its header is sound");
        (header.after, header.flushed) = (after, header.flushed.min(after));
        write(&*file.file, &file.name, 0, &header.encode())
    }

    /// An empty last segment that follows everything that is known to have been.
    fn add_segment(&mut self, id: JournalId, survey: &Survey) -> Result<()> {
        let number = self.files.last().map_or(0, |file| file.number) + 1;
        let bytes = self.segment_bytes;
        let name = segment_name(number);
        let file = make_segment(self.storage, &name, bytes).map_err(|error| failed(error, &name))?;
        let (after, first) = (Lsn(survey.next.0 - 1), survey.flushed.max(self.expected.from).next());
        let header = SegmentHeader { journal: id, segment: number, bytes, after, first, flushed: Lsn(0) };
        write(&*file, &name, 0, &header.encode())
    }

    /// Moves a whole file into quarantine.
    fn set_aside(&self, name: &str) -> Result<()> {
        set_aside(self.storage, name)
    }

    /// Keeps a copy of a damaged range.
    fn quarantine(&self, name: &str, offset: usize, bytes: &[u8]) -> Result<()> {
        let act = || -> io::Result<()> {
            let (file, _) = fresh(self.storage, &format!("{name}-{offset:08x}"))?;
            write_full(&*file, 0, bytes)?;
            uninterrupted(|| file.sync())?;
            sync_names(self.storage)
        };
        act().map_err(|error| failed(error, name))
    }
}

impl Journal {
    /// Lets an empty segment stand where one is missing that something is still kept of: it is gone, and known to be.
    ///
    /// # Errors
    /// `Io`, `StorageFull`: the storage failed.
    pub fn stand_in(&self, number: u32) -> Result<()> {
        let mut segments = self.segments.write();
        let Some(after) = segments.range(number..).next().map(|(_, next)| next.after) else { return Ok(()) };
        let (name, bytes) = (segment_name(number), (SEGMENT_HEADER_BYTES + NOTE_BYTES) as u32);
        let file = make_segment(&*self.storage, &name, bytes).map_err(|error| failed(error, &name))?;
        let header = SegmentHeader {
            journal: self.id,
            segment: number,
            bytes,
            after,
            first: after.next(),
            flushed: Lsn(0),
        };
        let end = filler(FRAME_HEADER_BYTES, self.id, FrameKind::End, after);
        write(&*file, &name, 0, &[&header.encode()[..], &end].concat())?;
        let segment = Segment::new(&header, file, bytes);
        segment.last.store(after.0, Ordering::Release);
        segments.insert(number, Arc::new(segment));
        Ok(())
    }
}

/// Moves a whole file into quarantine.
///
/// # Errors
/// `Io`, `StorageFull`: the storage failed.
pub fn set_aside(storage: &dyn Storage, name: &str) -> Result<()> {
    let act = || -> io::Result<()> {
        let (_, target) = fresh(storage, name)?;
        uninterrupted(|| storage.rename(name, &target))?;
        sync_names(storage)
    };
    act().map_err(|error| failed(error, name))
}

/// A new file in quarantine, under this name or one like it.
fn fresh(storage: &dyn Storage, name: &str) -> io::Result<(Arc<dyn File>, String)> {
    uninterrupted(|| storage.make_directory(QUARANTINE))?;
    let mut target = format!("{QUARANTINE}/{name}");
    let mut attempt = 0;
    loop {
        attempt += 1;
        match uninterrupted(|| storage.open(&target, Open::New)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt < REPAIRS_MAX => {
                target = format!("{QUARANTINE}/{name}.{attempt}");
            }
            opened => return Ok((opened?, target)),
        }
    }
}

fn sync_names(storage: &dyn Storage) -> io::Result<()> {
    uninterrupted(|| storage.sync_directory(QUARANTINE))?;
    uninterrupted(|| storage.sync_directory(""))
}

/// A frame of exactly `size` bytes, a multiple of 8, that stands for the batches up to `lsn`.
fn hole(id: JournalId, size: usize, lsn: Lsn) -> Vec<u8> {
    filler(size - 8, id, FrameKind::Hole, lsn)
}

/// Damage in more places is not repaired piece by piece.
const REPAIRS_MAX: usize = 1000;
/// What a segment takes at least.
const SEGMENT_BYTES_MIN: u32 = 1024;
