//! Frame kinds and the small fixed frames.
#![forbid(unsafe_code)]

use super::{Reader, protocol};
use crate::error::Result;

/// What a frame is: the first byte of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A message published (client to host) or delivered (host to client).
    Event = 1,
    /// A call.
    Request = 2,
    /// A call's result.
    Response = 3,
    /// A call's error.
    Failure = 4,
    /// The caller no longer wants the result.
    Cancel = 5,
    /// A subscriber has taken events and may be sent more.
    Credit = 6,
    /// Part of a frame larger than [`CHUNK_BYTES`](super::CHUNK_BYTES).
    Chunk = 7,
    /// The host asks this publisher to wait: a subscriber that blocks is full.
    Pause = 8,
    /// The publisher may go on.
    Resume = 9,
    /// A [`Control`](super::Control) request, a MessagePack map.
    Control = 10,
    /// The answer to a control request.
    ControlReply = 11,
    /// The orderly end of a session.
    Bye = 12,
    /// Events in a row with one subject: a [`Batch`](super::Batch).
    Events = 13,
    /// A worker is to give a job back.
    CancelJob = 14,
}

impl Kind {
    /// The kind of the frame with this body.
    pub fn of(body: &[u8]) -> Result<Self> {
        Ok(match body.first().ok_or_else(|| protocol("empty frame"))? {
            1 => Self::Event,
            2 => Self::Request,
            3 => Self::Response,
            4 => Self::Failure,
            5 => Self::Cancel,
            6 => Self::Credit,
            7 => Self::Chunk,
            8 => Self::Pause,
            9 => Self::Resume,
            10 => Self::Control,
            11 => Self::ControlReply,
            12 => Self::Bye,
            13 => Self::Events,
            14 => Self::CancelJob,
            _ => return Err(protocol("unknown frame kind")),
        })
    }
}

/// A subscription or instance a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The number its owner gave it.
    pub id: u32,
    /// How many events this subscription lost just before this one.
    pub gap: u32,
}

/// `u8 kind, u8 reserved ×3, u32 instance, u64 call`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancel {
    /// The call's number on this session.
    pub call: u64,
}

impl Cancel {
    /// The frame's body.
    pub fn encode(self) -> [u8; 12] {
        let mut out = [0; 12];
        out[0] = Kind::Cancel as u8;
        out[4..].copy_from_slice(&self.call.to_le_bytes());
        out
    }

    /// Reads a body.
    pub fn decode(body: &[u8]) -> Result<Self> {
        let mut reader = Reader(body);
        reader.take(4, "cancel: short")?;
        Ok(Self { call: reader.u64("cancel: short")? })
    }
}

/// `u8 kind, u8 reserved ×3, u64 nonce`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CancelJob {
    /// Which lease.
    pub nonce: u64,
}

impl CancelJob {
    /// The frame's body.
    pub fn encode(self) -> [u8; 12] {
        let mut out = [0; 12];
        out[0] = Kind::CancelJob as u8;
        out[4..].copy_from_slice(&self.nonce.to_le_bytes());
        out
    }

    /// Reads a body.
    pub fn decode(body: &[u8]) -> Result<Self> {
        let mut reader = Reader(body);
        reader.take(4, "cancel job: short")?;
        Ok(Self { nonce: reader.u64("cancel job: short")? })
    }
}

/// `u8 kind, u8 reserved ×3, u32 subscription, u32 count`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credit {
    /// The subscription that took events.
    pub subscription: u32,
    /// How many it took since the last credit.
    pub count: u32,
}

impl Credit {
    /// The frame's body.
    pub fn encode(self) -> [u8; 12] {
        let mut out = [0; 12];
        out[0] = Kind::Credit as u8;
        out[4..8].copy_from_slice(&self.subscription.to_le_bytes());
        out[8..].copy_from_slice(&self.count.to_le_bytes());
        out
    }

    /// Reads a body.
    pub fn decode(body: &[u8]) -> Result<Self> {
        let mut reader = Reader(body);
        reader.take(4, "credit: short")?;
        Ok(Self { subscription: reader.u32("credit: short")?, count: reader.u32("credit: short")? })
    }
}

/// A slice of a large frame: `u8 kind, u8 flags, u16 reserved, u32 flow, u32 total, u32 offset`, then bytes.
///
/// Chunks of one flow come in order and without gaps; chunks of several flows and other frames may
/// lie between them. A flow ends when `total` bytes have come, or by an aborting chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// Which large frame, among those under way in this direction.
    pub flow: u32,
    /// The whole frame's bytes.
    pub total: u32,
    /// Where these bytes belong.
    pub offset: u32,
    /// The sender gave up: forget the flow.
    pub abort: bool,
    /// The bytes.
    pub bytes: &'a [u8],
}

impl<'a> Chunk<'a> {
    /// What stands before the bytes.
    pub const PREFIX_BYTES: usize = 16;

    /// The frame's body up to its bytes.
    pub fn prefix(&self) -> [u8; 16] {
        let mut out = [0; 16];
        out[0] = Kind::Chunk as u8;
        out[1] = u8::from(self.abort);
        out[4..8].copy_from_slice(&self.flow.to_le_bytes());
        out[8..12].copy_from_slice(&self.total.to_le_bytes());
        out[12..].copy_from_slice(&self.offset.to_le_bytes());
        out
    }

    /// Reads a body.
    pub fn decode(body: &'a [u8]) -> Result<Self> {
        let (front, bytes) =
            body.split_first_chunk().ok_or_else(|| protocol("chunk: shorter than its prefix"))?;
        Ok(Self { bytes, ..Chunk::decode_prefix(front, bytes.len())? })
    }

    /// Reads what stands before the `count` bytes of a chunk.
    pub fn decode_prefix(front: &[u8; 16], count: usize) -> Result<Self> {
        let mut reader = Reader(front);
        let fixed: [u8; 4] = reader.array("chunk: short")?;
        let (flow, total, offset) =
            (reader.u32("chunk: short")?, reader.u32("chunk: short")?, reader.u32("chunk: short")?);
        if offset as usize + count > total as usize {
            return Err(protocol("chunk: bytes past the end of its frame"));
        }
        Ok(Self { flow, total, offset, abort: fixed[1] & 1 != 0, bytes: &[] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fixed_frames_survive_a_round_trip() {
        let cancel = Cancel { call: 1 << 40 };
        assert_eq!(Cancel::decode(&cancel.encode()).unwrap(), cancel);
        let credit = Credit { subscription: 7, count: 9 };
        assert_eq!(Credit::decode(&credit.encode()).unwrap(), credit);
        let chunk = Chunk { flow: 3, total: 100, offset: 97, abort: false, bytes: b"abc" };
        let mut body = chunk.prefix().to_vec();
        body.extend_from_slice(chunk.bytes);
        assert_eq!(Chunk::decode(&body).unwrap(), chunk);
        body.push(0);
        assert!(Chunk::decode(&body).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_are_refused(body in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = (Kind::of(&body), Cancel::decode(&body), Credit::decode(&body), Chunk::decode(&body));
        }
    }
}
