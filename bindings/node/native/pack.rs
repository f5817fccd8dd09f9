//! How messages lie in the memory that the TypeScript layer reads (`src/message.ts`).
//!
//!   offset size  field            (little-endian; a record starts on a multiple of 8)
//!        0    4  record bytes     the padding to a multiple of 8 included
//!        4    1  flags            1: the subject is that of the record before
//!        5    1  priority
//!        6    2  subject bytes
//!        8    4  header bytes     (u16 name bytes, u16 value bytes, name, value) for each
//!       12    4  payload bytes
//!       16    8  id
//!       24    8  timestamp        ns since 1970 UTC
//!       32    8  gap              events lost before this one
//!       40    4  count            events: attempt; requests: time left in ms
//!       44    4  reserved
//!       48    8  key              what `fail`, `reply` and `watchCancel` name it by; 0 for none
//!       56       subject, headers, payload
//!
//! Events on their way out (`publishMany`): u32 subject bytes (0: as before), u32 payload bytes, subject,
//! payload, without padding.

use flowmesh::{Error, ErrorKind, Message, Result};

/// What a record tells beside the message.
#[derive(Clone, Copy, Default)]
pub(crate) struct Extra {
    pub(crate) same_subject: bool,
    pub(crate) gap: u64,
    pub(crate) count: u32,
    pub(crate) key: u64,
}

/// Bytes the record of `message` takes.
pub(crate) fn record_bytes(message: &Message, extra: Extra) -> usize {
    let subject = if extra.same_subject { 0 } else { message.subject().len() };
    let headers: usize = message.headers().map(|(name, value)| 4 + name.len() + value.len()).sum();
    (RECORD_HEADER_BYTES + subject + headers + message.payload().len()).next_multiple_of(8)
}

/// Writes the record of `message` at the front of `out`, which has room for it, and returns its bytes.
pub(crate) fn write(message: &Message, extra: Extra, out: &mut [u8]) -> usize {
    let subject = if extra.same_subject { "" } else { message.subject() };
    let payload = message.payload();
    let mut end = RECORD_HEADER_BYTES;
    let mut append = |bytes: &[u8]| {
        out[end..end + bytes.len()].copy_from_slice(bytes);
        end += bytes.len();
    };
    append(subject.as_bytes());
    let mut header_bytes = 0;
    for (name, value) in message.headers() {
        append(&(name.len() as u16).to_le_bytes());
        append(&(value.len() as u16).to_le_bytes());
        append(name.as_bytes());
        append(value.as_bytes());
        header_bytes += 4 + name.len() + value.len();
    }
    append(payload);
    let bytes = end.next_multiple_of(8);
    out[0..4].copy_from_slice(&(bytes as u32).to_le_bytes());
    out[4] = u8::from(extra.same_subject);
    out[5] = message.priority();
    out[6..8].copy_from_slice(&(subject.len() as u16).to_le_bytes());
    out[8..12].copy_from_slice(&(header_bytes as u32).to_le_bytes());
    out[12..16].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    out[16..24].copy_from_slice(&message.id().to_le_bytes());
    out[24..32].copy_from_slice(&message.timestamp().0.to_le_bytes());
    out[32..40].copy_from_slice(&extra.gap.to_le_bytes());
    out[40..44].copy_from_slice(&extra.count.to_le_bytes());
    out[44..48].fill(0);
    out[48..56].copy_from_slice(&extra.key.to_le_bytes());
    bytes
}

/// Subjects and payloads of `publishMany`.
pub(crate) fn read_events(mut packed: &[u8]) -> Result<Vec<(&str, &[u8])>> {
    let mut events = Vec::new();
    let mut subject = "";
    while !packed.is_empty() {
        let (subject_bytes, rest) = split_length(packed)?;
        let (payload_bytes, rest) = split_length(rest)?;
        let (text, rest) = rest.split_at_checked(subject_bytes).ok_or_else(cut_short)?;
        let (payload, rest) = rest.split_at_checked(payload_bytes).ok_or_else(cut_short)?;
        if !text.is_empty() {
            subject = std::str::from_utf8(text).map_err(|_| cut_short())?;
        }
        events.push((subject, payload));
        packed = rest;
    }
    Ok(events)
}

fn split_length(bytes: &[u8]) -> Result<(usize, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(cut_short)?;
    Ok((u32::from_le_bytes(*length) as usize, rest))
}

fn cut_short() -> Error {
    Error::new(ErrorKind::Internal, "node.native").with("packed_events", "cut short")
}

const RECORD_HEADER_BYTES: usize = 56;
