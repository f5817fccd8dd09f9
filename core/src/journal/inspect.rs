//! A look at a journal that changes nothing and tells everything that is wrong.

use super::{
    FRAME_HEADER_BYTES, Lsn, NOTE_BYTES, SEGMENT_HEADER_BYTES,
    format::{self, FrameKind},
    recovery::{Cut, Damage, Expected, Opening, Survey, bad_header},
};
use crate::{
    error::Result,
    storage::{Open, Storage},
};

/// What a journal's directory holds.
#[derive(Clone, Debug, Default)]
pub struct JournalReport {
    /// Every segment, oldest first.
    pub segments: Vec<SegmentReport>,
    /// What opening would cut: left of batches that were never flushed.
    pub tail: Option<Cut>,
    /// Everything that is not what was written.
    pub damages: Vec<Damage>,
}

/// One segment.
#[derive(Clone, Debug, Default)]
pub struct SegmentReport {
    /// Its file.
    pub file: String,
    /// The size of the file.
    pub bytes: u64,
    /// Where its frames end.
    pub end: u64,
    /// Its first and last batch that are whole, if there is one.
    pub batches: Option<(Lsn, Lsn)>,
    /// How many batches are whole.
    pub batch_count: u64,
}

/// Looks at the journal of `storage` and shows `see` the payload of every whole batch, to say what is wrong with it.
///
/// # Errors
/// `Io`: it cannot be read. `Unsupported`: a newer version wrote it. Damage is no error but in the report.
pub fn inspect(
    storage: &dyn Storage,
    expected: Expected,
    see: &mut dyn FnMut(&[u8]) -> Option<String>,
) -> Result<JournalReport> {
    let mut opening = Opening::new(storage, Open::ReadOnly, 0, expected);
    opening.list()?;
    let mut report = JournalReport::default();
    let first = opening.files.iter().find_map(|file| file.header()).map(|header| header.journal);
    let Some(id) = expected.id.or(first) else {
        report.damages.extend(opening.files.iter().filter(|file| file.header.is_err()).map(|file| Damage {
            file: file.name.clone(),
            offset: 0,
            what: "a segment without a sound header".into(),
        }));
        return Ok(report);
    };
    let survey = opening.survey(id, &mut |_, _, _, _| Ok(()))?;
    let headers = opening.files.iter().filter_map(|file| file.header());
    let mut flushed = headers.map(|header| header.flushed).fold(survey.flushed, Lsn::max);
    let begun = opening.files.iter().rposition(|file| file.header().is_some()).map_or(0, |last| last + 1);
    // The batch that was come by so far, whole or known to be gone.
    let mut reached = None;
    for index in 0..opening.files.len() {
        opening.read(index)?;
        let file = &opening.files[index];
        let is_tail = survey.damage.is_none() && index >= survey.stop;
        // Made ahead and never written to: no damage, wherever there is some.
        let is_ahead = index >= begun
            && matches!(file.header, Ok(None))
            && format::search(&opening.buffer, id).next().is_none();
        if let Some(damage) = bad_header(file, id).filter(|_| !is_tail && !is_ahead) {
            report.damages.push(damage);
        }
        let mut segment = SegmentReport {
            file: file.name.clone(),
            bytes: opening.buffer.len() as u64,
            ..SegmentReport::default()
        };
        reached = file.header().map(|header| Lsn(header.first.0 - 1)).or(reached);
        let follower = opening.files.get(index + 1).and_then(|file| file.header()).map(|header| header.after);
        let end = if is_tail && index == survey.stop { survey.offset } else { opening.buffer.len() };
        let is_behind = is_tail && index > survey.stop;
        let frames =
            if is_behind || is_ahead { &[] } else { &opening.buffer[..end.min(opening.buffer.len())] };
        let mut at = SEGMENT_HEADER_BYTES;
        while at + NOTE_BYTES <= frames.len() {
            let Some(frame) = format::decode(&frames[at..], id) else {
                let next = format::search(&frames[at..], id).next().map(|(by, _)| at + by);
                if next.is_none() && reached.is_some() && reached == follower {
                    // Its end frame was lost in a crash; the next segment says the same.
                    break;
                }
                let behind = format::search(&frames[at..], id).map(|(_, frame)| frame.header.flushed);
                let known = behind.fold(flushed, Lsn::max);
                if follower.is_none() && reached.is_some_and(|reached| reached >= known) {
                    // All that was flushed is there. The survey did not come so far, as there is damage before.
                    break;
                }
                let what = "a bad frame".to_owned();
                report.damages.push(Damage { file: file.name.clone(), offset: at as u64, what });
                let Some(next) = next else { break };
                at = next;
                continue;
            };
            flushed = flushed.max(frame.header.flushed);
            reached = Some(frame.header.lsn);
            if frame.header.kind == FrameKind::Batch {
                let first = segment.batches.map_or(frame.header.lsn, |(first, _)| first);
                segment.batches = Some((first, frame.header.lsn));
                segment.batch_count += 1;
                if let Some(what) = see(frame.payload) {
                    let offset = (at + FRAME_HEADER_BYTES) as u64;
                    report.damages.push(Damage { file: file.name.clone(), offset, what });
                }
            }
            at += frame.size;
            if frame.header.kind == FrameKind::End {
                break;
            }
        }
        segment.end = at as u64;
        report.segments.push(segment);
    }
    if let Some(damage) = &survey.damage {
        // What is missing between sound frames shows only in their order.
        if !report.damages.iter().any(|found| (&found.file, found.offset) == (&damage.file, damage.offset)) {
            report.damages.push(damage.clone());
        }
    } else {
        report.tail = tail(&opening, &survey);
    }
    Ok(report)
}

/// What opening would cut.
fn tail(opening: &Opening<'_>, survey: &Survey) -> Option<Cut> {
    let behind = &opening.files[survey.stop + 1..];
    let headed = behind.iter().filter(|file| file.header().is_some()).count();
    let bytes = (survey.dirty_end - survey.offset) as u64;
    (bytes > 0 || headed > 0).then(|| Cut {
        file: opening.files[survey.stop].name.clone(),
        offset: survey.offset as u64,
        bytes,
        batches: survey.stray_batches,
    })
}
