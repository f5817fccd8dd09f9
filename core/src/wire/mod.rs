//! The byte format of frames, the same over every transport.
//!
//! Knows no transport, no file and no process: bytes come in, typed values go out, and the other way
//! round. Everything that decodes bytes of a peer is total: any input gives a value or a
//! [`Protocol`](crate::ErrorKind::Protocol) error, and nothing is allocated to a size the peer chose.
//!
//! A frame is `u32 length` (added by the transport) followed by a body whose first byte is its [`Kind`].
#![forbid(unsafe_code)]

mod batch;
pub mod control;
pub mod frame;
pub mod handshake;
mod message;

pub use batch::{BATCH_BYTES, BATCH_EVENTS_MAX, Batch, BatchWriter};
pub use control::{Control, ControlReply};
pub use frame::{Cancel, CancelJob, Chunk, Credit, Kind, Target};
pub use message::{Draft, HEADER_BYTES, Headers, Message, MessageHeader, PRIORITY_DEFAULT, encode_targets};

use crate::error::{Error, ErrorKind};

/// The oldest wire version this build speaks.
pub const WIRE_MIN: u32 = 1;
/// The newest wire version this build speaks.
pub const WIRE_MAX: u32 = 1;
/// Large frames travel in chunks of at most this many bytes.
pub const CHUNK_BYTES: usize = 64 * 1024;
/// Default of `max_message_bytes`.
pub const MESSAGE_BYTES_DEFAULT: usize = 64 * 1024 * 1024;
/// The most that `max_message_bytes` can be set to.
pub const MESSAGE_BYTES_LIMIT: usize = 1024 * 1024 * 1024;
/// The most headers a message may carry.
pub const HEADER_COUNT_MAX: usize = 64;
/// The most bytes all names and values of a message's headers may take together.
pub const HEADER_BLOCK_BYTES_MAX: usize = 16 * 1024;
/// The most targets one event frame names.
pub const TARGETS_MAX: usize = 4096;

pub(crate) fn protocol(what: &'static str) -> Error {
    Error::new(ErrorKind::Protocol, "wire.decode").with("violation", what)
}

/// Reads little-endian fields from the front of a slice, refusing to read past its end.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, count: usize, what: &'static str) -> crate::Result<&'a [u8]> {
        if self.0.len() < count {
            return Err(protocol(what));
        }
        let (front, rest) = self.0.split_at(count);
        self.0 = rest;
        Ok(front)
    }

    pub(crate) fn array<const N: usize>(&mut self, what: &'static str) -> crate::Result<[u8; N]> {
        self.take(N, what)?.try_into().map_err(|_| protocol(what))
    }

    pub(crate) fn u16(&mut self, what: &'static str) -> crate::Result<u16> {
        Ok(u16::from_le_bytes(self.array(what)?))
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> crate::Result<u32> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(crate) fn u64(&mut self, what: &'static str) -> crate::Result<u64> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }
}
