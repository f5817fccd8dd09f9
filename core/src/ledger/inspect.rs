//! A look at a ledger that changes nothing and tells everything that is wrong.

use super::{DIRECTORY, Damage, Lsn, SegmentReport, checkpoint, each_entry};
use crate::{
    error::{Error, ErrorKind, Result},
    journal::{self, Cut, Expected},
    storage::{FileStorage, Open, Storage, uninterrupted},
};
use std::path::Path;

/// What a data directory holds, and where it is not what was written.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Inspection {
    /// Every segment of the journal, oldest first.
    pub segments: Vec<SegmentReport>,
    /// Every sound checkpoint, oldest first.
    pub checkpoints: Vec<CheckpointReport>,
    /// How many batches are whole.
    pub batches: u64,
    /// How many entries they have.
    pub entries: u64,
    /// The first and last batch that are there.
    pub range: Option<(Lsn, Lsn)>,
    /// What a crash left of batches that were never flushed: opening would cut it. No damage.
    pub tail: Option<Cut>,
    /// Everything that is damaged.
    pub damages: Vec<Damage>,
}

/// One checkpoint.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CheckpointReport {
    /// Its file.
    pub file: String,
    /// Replay begins with the batch after this one.
    pub begin: Lsn,
    /// Its images have seen no batch after this one.
    pub end: Lsn,
    /// How many images it has.
    pub images: u64,
    /// The size of its file.
    pub bytes: u64,
}

/// Verifies what a data directory holds without opening it for writing; nobody need hold it, its host may.
///
/// While its host writes, what is being written shows as `tail`.
///
/// ```
/// # let dir = std::env::temp_dir().join(format!("flowmesh-doc-inspect-{}", std::process::id()));
/// # std::fs::create_dir_all(dir.join("ledger"))?;
/// let found = flowmesh::inspect(&dir)?;
/// for damage in &found.damages {
///     println!("{} at {}: {}", damage.file, damage.offset, damage.what);
/// }
/// assert!(found.damages.is_empty());
/// # std::fs::remove_dir_all(dir)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// - [`ErrorKind::NotFound`]: there is no such directory, or no ledger in it.
/// - [`ErrorKind::Unsupported`]: a newer version wrote it.
/// - `Io`, `PermissionDenied`: it cannot be read.
pub fn inspect(directory: impl AsRef<Path>) -> Result<Inspection> {
    let directory = directory.as_ref();
    inspect_storage(&FileStorage::existing(directory.join(DIRECTORY)))
        .map_err(|error| error.with("directory", directory.display()))
}

/// As [`inspect`], in any storage.
///
/// # Errors
/// As for [`inspect`].
#[doc(hidden)]
pub fn inspect_storage(storage: &dyn Storage) -> Result<Inspection> {
    let mut found = Inspection::default();
    let names = storage.list("").map_err(|error| Error::from_io("ledger.inspect", error))?;
    let mut begins: Vec<Lsn> = names.iter().filter_map(|name| checkpoint::begin_of(name)).collect();
    begins.sort_unstable();
    let mut expected = Expected::default();
    for begin in begins {
        let file = checkpoint::file_name(begin);
        let opened = uninterrupted(|| storage.open(&file, Open::ReadOnly))
            .map_err(|error| checkpoint::failed(error, &file))?;
        match checkpoint::read(&*opened, &file, &mut |_, _, _| Ok(())) {
            Ok(sound) if sound.begin == begin => {
                expected = Expected { from: begin, flushed: sound.end, id: Some(sound.journal) };
                let (end, images, bytes) = (sound.end, sound.images, sound.bytes);
                found.checkpoints.push(CheckpointReport { file, begin, end, images, bytes });
            }
            Ok(_) => {
                let what = "another checkpoint's name".into();
                found.damages.push(Damage { file, offset: 0, what });
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                let offset = error.get("offset").and_then(|offset| offset.parse().ok()).unwrap_or(0);
                let what = error.get("what").unwrap_or("damaged").to_owned();
                found.damages.push(Damage { file, offset, what });
            }
            Err(error) => return Err(error),
        }
    }
    let entries = &mut found.entries;
    let mut see = |payload: &[u8]| {
        let counted = each_entry(payload, |_, _| {
            *entries += 1;
            Ok(())
        });
        counted.err().map(|error| error.get("what").unwrap_or("a bad entry").to_owned())
    };
    let is_fresh = expected.id.is_none() && !names.iter().any(|name| name.ends_with(".fmj"));
    if is_fresh {
        return Ok(found);
    }
    let report = journal::inspect(storage, expected, &mut see)?;
    for (first, last) in report.segments.iter().filter_map(|segment| segment.batches) {
        found.range = Some((found.range.map_or(first, |(lowest, _)| lowest.min(first)), last));
    }
    found.batches = report.segments.iter().map(|segment| segment.batch_count).sum();
    (found.segments, found.tail) = (report.segments, report.tail);
    found.damages.extend(report.damages);
    Ok(found)
}
