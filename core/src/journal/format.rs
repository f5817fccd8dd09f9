//! How segments and frames lie in files: `FORMAT.md` beside this draws them.

use super::Lsn;
use crate::error::{Error, ErrorKind, Result};

/// What every frame begins with.
pub const FRAME_HEADER_BYTES: usize = 40;
/// The header of a segment has a sector of its own, so that it is written whole or not at all.
pub const SEGMENT_HEADER_BYTES: usize = 512;
/// The version written here, and the newest that is read.
pub const VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"FMJRNL\r\n";
const SEGMENT_FIELDS_BYTES: usize = 64;

/// The random number that tells the frames of one journal from those of any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalId(pub [u8; 16]);

impl JournalId {
    /// What every checksum of this journal begins with.
    fn seed(self) -> u32 {
        crc32c::crc32c(&self.0)
    }
}

/// What a segment's file begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Of the journal.
    pub journal: JournalId,
    /// Its number; 1 is the first.
    pub segment: u32,
    /// The size of its file, this header included.
    pub bytes: u32,
    /// The batch that its first one follows.
    pub after: Lsn,
    /// Its first batch: the one after `after`, unless repair left a gap.
    pub first: Lsn,
    /// The last batch known to be flushed when it was begun.
    pub flushed: Lsn,
}

impl SegmentHeader {
    /// As written.
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.segment.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.journal.0);
        bytes[32..36].copy_from_slice(&self.bytes.to_le_bytes());
        bytes[36..44].copy_from_slice(&self.after.0.to_le_bytes());
        bytes[44..52].copy_from_slice(&self.first.0.to_le_bytes());
        bytes[52..60].copy_from_slice(&self.flushed.0.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..SEGMENT_FIELDS_BYTES].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header that `bytes` begin with. None where nothing was ever written.
    ///
    /// # Errors
    /// - [`ErrorKind::Corrupt`]: it is damaged, or no segment.
    /// - [`ErrorKind::Unsupported`]: a newer version wrote it.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>> {
        let bytes = &bytes[..bytes.len().min(SEGMENT_HEADER_BYTES)];
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let corrupt = |what: &str| Error::new(ErrorKind::Corrupt, OPERATION).with("what", what);
        let fields: &[u8; SEGMENT_FIELDS_BYTES] =
            bytes.first_chunk().ok_or_else(|| corrupt("a cut segment header"))?;
        if fields[..8] != MAGIC {
            return Err(corrupt("not a segment"));
        }
        if crc32c::crc32c(&fields[..60]) != word(fields, 60) {
            return Err(corrupt("a segment header whose checksum does not match"));
        }
        let version = word(fields, 8);
        if version > VERSION {
            let error = Error::new(ErrorKind::Unsupported, OPERATION);
            return Err(error.with("version", version).with("supported", VERSION));
        }
        let header = Self {
            journal: JournalId(fields[16..32].try_into().expect("sixteen bytes")),
            segment: word(fields, 12),
            bytes: word(fields, 32),
            after: Lsn(long(fields, 36)),
            first: Lsn(long(fields, 44)),
            flushed: Lsn(long(fields, 52)),
        };
        let sound = version > 0
            && header.after < header.first
            && header.flushed <= header.after
            && header.bytes as usize > SEGMENT_HEADER_BYTES;
        if sound { Ok(Some(header)) } else { Err(corrupt("a segment header that contradicts itself")) }
    }
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// A batch; its LSN is its own.
    Batch,
    /// Says how far the journal is flushed; its LSN is that of the batch before it.
    Mark,
    /// Stands where repair took damage away: batches up to its LSN are gone.
    Hole,
    /// Nothing follows in this segment; its LSN is that of the batch before it.
    End,
}

impl FrameKind {
    fn of(number: u8) -> Option<Self> {
        [Self::Batch, Self::Mark, Self::Hole, Self::End].into_iter().find(|kind| kind.number() == number)
    }

    const fn number(self) -> u8 {
        match self {
            Self::Batch => 1,
            Self::Mark => 2,
            Self::Hole => 3,
            Self::End => 4,
        }
    }
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What it is.
    pub kind: FrameKind,
    /// Its LSN.
    pub lsn: Lsn,
    /// The last batch known to be flushed when it was written.
    pub flushed: Lsn,
    /// When it was written, in nanoseconds since 1970.
    pub time: u64,
}

/// A whole frame as it was found.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Its header.
    pub header: FrameHeader,
    /// What it carries.
    pub payload: &'a [u8],
    /// What it takes, padding included.
    pub size: usize,
}

/// What a frame of so many bytes, header included, takes with its padding.
pub const fn padded(bytes: usize) -> usize {
    (bytes / 8 + 1) * 8
}

/// Completes a frame: `frame` is room for the header, then the payload. Padding is appended.
///
/// The last byte is never zero, so a frame of which anything is missing at the end is never taken for whole, whatever
/// its payload ends with.
pub fn seal(frame: &mut Vec<u8>, journal: JournalId, header: &FrameHeader) {
    let bytes = frame.len();
    let padding = padded(bytes) - bytes;
    frame.resize(bytes + padding, padding as u8);
    let fields: &mut [u8; FRAME_HEADER_BYTES] = frame.first_chunk_mut().expect("room for the header");
    fields[4..8].copy_from_slice(&(bytes as u32).to_le_bytes());
    fields[8..16].copy_from_slice(&header.lsn.0.to_le_bytes());
    fields[16..24].copy_from_slice(&header.flushed.0.to_le_bytes());
    fields[24..32].copy_from_slice(&header.time.to_le_bytes());
    fields[32..36].copy_from_slice(&[header.kind.number(), 0, 0, 0]);
    let seed = journal.seed();
    let header_crc = crc32c::crc32c_append(seed, &fields[4..36]);
    fields[36..40].copy_from_slice(&header_crc.to_le_bytes());
    let crc = crc32c::crc32c_append(seed, &frame[4..]);
    frame[..4].copy_from_slice(&crc.to_le_bytes());
}

/// A frame of `bytes` bytes, padding apart, that was not there when `lsn` was written: opening or repair puts it.
pub fn filler(bytes: usize, journal: JournalId, kind: FrameKind, lsn: Lsn) -> Vec<u8> {
    let mut frame = vec![0; bytes];
    seal(&mut frame, journal, &FrameHeader { kind, lsn, flushed: Lsn(0), time: 0 });
    frame
}

/// The whole frame that `bytes` begin with. None: there is none, or not all of it.
pub fn decode(bytes: &[u8], journal: JournalId) -> Option<Frame<'_>> {
    let fields: &[u8; FRAME_HEADER_BYTES] = bytes.first_chunk()?;
    let size = padded(word(fields, 4) as usize);
    let length = word(fields, 4) as usize;
    // The header has a checksum of its own, so that no run of bytes makes a search for frames expensive.
    let seed = journal.seed();
    if length < FRAME_HEADER_BYTES || crc32c::crc32c_append(seed, &fields[4..36]) != word(fields, 36) {
        return None;
    }
    let whole = bytes.get(..size)?;
    if crc32c::crc32c_append(seed, &whole[4..]) != word(fields, 0) {
        return None;
    }
    let kind = FrameKind::of(fields[32])?;
    let header = FrameHeader {
        kind,
        lsn: Lsn(long(fields, 8)),
        flushed: Lsn(long(fields, 16)),
        time: long(fields, 24),
    };
    let sound = header.flushed <= header.lsn && whole[size - 1] as usize == size - length;
    sound.then_some(Frame { header, payload: &whole[FRAME_HEADER_BYTES..length], size })
}

/// The whole frames anywhere in `bytes`, which begin at a multiple of 8 of their file; damage between them is skipped.
pub fn search(bytes: &[u8], journal: JournalId) -> impl Iterator<Item = (usize, Frame<'_>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        while at + FRAME_HEADER_BYTES <= bytes.len() {
            let here = at;
            // Where nothing was written there is nothing to look at closely.
            if bytes[here..here + 8] != [0; 8]
                && let Some(frame) = decode(&bytes[here..], journal)
            {
                at += frame.size;
                return Some((here, frame));
            }
            at += 8;
        }
        None
    })
}

/// The name of a segment's file.
pub fn segment_name(segment: u32) -> String {
    format!("{segment:08x}.fmj")
}

/// The number of the segment in a file of this name.
pub fn segment_of(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".fmj")?;
    let number = u32::from_str_radix(digits, 16).ok()?;
    (segment_name(number) == name && number > 0).then_some(number)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

const OPERATION: &str = "journal.open";

// What FORMAT.md draws.
const _: () =
    assert!(FRAME_HEADER_BYTES == 4 + 4 + 8 + 8 + 8 + 1 + 3 + 4 && FRAME_HEADER_BYTES.is_multiple_of(8));
const _: () = assert!(SEGMENT_FIELDS_BYTES == 8 + 4 + 4 + 16 + 4 + 8 + 8 + 8 + 4);
const _: () = assert!(SEGMENT_HEADER_BYTES == 512 && SEGMENT_FIELDS_BYTES <= SEGMENT_HEADER_BYTES);
const _: () = assert!(padded(40) == 48 && padded(47) == 48 && padded(48) == 56);

#[cfg(test)]
mod tests {
    use super::*;

    const JOURNAL: JournalId = JournalId(*b"sixteen bytes id");

    fn frame(payload: &[u8], lsn: u64) -> Vec<u8> {
        let mut frame = vec![0; FRAME_HEADER_BYTES];
        frame.extend_from_slice(payload);
        let header = FrameHeader { kind: FrameKind::Batch, lsn: Lsn(lsn), flushed: Lsn(lsn - 1), time: 5 };
        seal(&mut frame, JOURNAL, &header);
        frame
    }

    #[test]
    fn a_frame_comes_back_whole_or_not_at_all() {
        for bytes in 0..70 {
            // Zeros at the end are what a cut write looks like in a fresh file.
            let payload = vec![0; bytes];
            let written = frame(&payload, 7);
            assert!(written.len().is_multiple_of(8));
            let found = decode(&written, JOURNAL).unwrap();
            assert_eq!((found.payload, found.size, found.header.lsn), (&payload[..], written.len(), Lsn(7)));
            assert!(decode(&written, JournalId([0; 16])).is_none(), "of another journal");
            for cut in 0..written.len() {
                let mut room = written.clone();
                room[cut..].fill(0);
                assert!(decode(&room, JOURNAL).is_none(), "cut at {cut} of {}", written.len());
                assert!(decode(&written[..cut], JOURNAL).is_none());
                let mut flipped = written.clone();
                flipped[cut] ^= 4;
                assert!(decode(&flipped, JOURNAL).is_none(), "flipped at {cut}");
            }
        }
    }

    #[test]
    fn a_search_finds_what_lies_behind_damage() {
        let mut bytes = [frame(b"one", 1), frame(b"two", 2), frame(b"three", 3)].concat();
        bytes[60] ^= 1;
        let found: Vec<_> = search(&bytes, JOURNAL).map(|(at, frame)| (at, frame.payload)).collect();
        assert_eq!(found, [(0, &b"one"[..]), (96, b"three")]);
    }

    #[test]
    fn a_segment_header_comes_back_or_says_why_not() {
        let header = SegmentHeader {
            journal: JOURNAL,
            segment: 3,
            bytes: 1 << 20,
            after: Lsn(9),
            first: Lsn(10),
            flushed: Lsn(8),
        };
        let written = header.encode();
        assert_eq!(SegmentHeader::decode(&written).unwrap(), Some(header));
        assert_eq!(SegmentHeader::decode(&[0; 512]).unwrap(), None);
        assert_eq!(SegmentHeader::decode(&[]).unwrap(), None);
        for at in 0..64 {
            let mut flipped = written;
            flipped[at] ^= 1;
            assert_eq!(SegmentHeader::decode(&flipped).unwrap_err().kind(), ErrorKind::Corrupt);
        }
        let mut newer = written;
        newer[8] = 2;
        let crc = crc32c::crc32c(&newer[..60]);
        newer[60..64].copy_from_slice(&crc.to_le_bytes());
        let error = SegmentHeader::decode(&newer).unwrap_err();
        assert_eq!((error.kind(), error.get("version")), (ErrorKind::Unsupported, Some("2")));
    }

    #[test]
    fn names_of_segments_are_read_as_written_only() {
        assert_eq!(segment_of(&segment_name(0xabc)), Some(0xabc));
        for name in ["00000000.fmj", "1.fmj", "0000000G.fmj", "00000001.ckpt", "+0000001.fmj", "0000000A.fmj"]
        {
            assert_eq!(segment_of(name), None, "{name}");
        }
    }
}
