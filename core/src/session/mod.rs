//! Framed conversations between a host and one client.
//!
//! A session carries frames in both directions over a [`Transport`]: shared memory (rings and
//! doorbells), or a Unix or TCP socket with the very same frames. This module knows how frames are
//! sent, received, cut into chunks and put together again, and how two processes meet (the
//! handshake). It knows no subject, no service and no job, and starts no thread.
//!
//! What both halves hand over and take is one format: `u32 length` (of itself and the body), body,
//! padding to eight bytes. Receivers copy whole frames into private memory before anything looks at
//! them, so nothing above this module ever reads bytes that a peer could still change.
#![forbid(unsafe_code)]

mod accept;
mod assembler;
mod connect;
mod outbox;
mod secret;
mod shm_link;
mod socket_link;
mod spare;

pub use accept::{Accepted, HandshakeConfig, PendingSession, Step};
pub use assembler::Assembler;
pub use connect::{ConnectConfig, Connected, connect_tcp, connect_unix};
pub use outbox::Outbox;
pub use secret::{SECRET_BYTES_MIN, check_secret};
pub use shm_link::{ShmReceiver, ShmSender};
pub use socket_link::{Socket, SocketReceiver, SocketSender};
pub use spare::SpareBlocks;

use crate::error::Result;
use std::time::Duration;

/// The socket a host listens on, inside its data directory.
pub const SOCKET_FILE: &str = "flowmesh.sock";

/// Whether a frame went out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is on its way, or waits in the sender's own bounded buffer.
    Done,
    /// There is no room now. Nothing was sent.
    Full,
}

/// The sending half of a transport.
pub trait FrameSender: Send {
    /// Adds one frame whose body is `parts` put together. The peer sees it after [`flush`](Self::flush).
    ///
    /// # Errors
    /// `Protocol` when the peer broke the rules, `Disconnected` when it is gone, `TooLarge` over
    /// [`frame_bytes_max`](Self::frame_bytes_max).
    fn push(&mut self, parts: &[&[u8]]) -> Result<Sent>;

    /// Shows the peer all frames pushed so far, and wakes it if it sleeps. Never waits.
    fn flush(&mut self) -> Result<()>;

    /// Asks the peer to tell when it made room; true when there may be room already.
    ///
    /// # Errors
    /// `Protocol` when the peer broke the rules.
    fn want_room(&mut self) -> Result<bool>;

    /// Whether a frame with a body of this length would go out now.
    ///
    /// # Errors
    /// `Protocol` when the peer broke the rules.
    fn has_room(&mut self, body_bytes: usize) -> Result<bool>;

    /// Whether nothing is left here that a flush could not pass on.
    fn is_flushed(&self) -> bool {
        true
    }

    /// Sleeps until there may be room, at most `timeout`. Only a client may: a host waits for nobody.
    fn wait_room(&mut self, timeout: Duration) -> Result<()>;

    /// The largest body one frame can carry.
    fn frame_bytes_max(&self) -> usize;
}

/// The receiving half of a transport.
pub trait FrameReceiver: Send {
    /// Appends whole frames, at most about `bytes_max` bytes of them, to `out`; returns how many. Never waits.
    ///
    /// # Errors
    /// `Protocol` when the peer broke the rules, `Disconnected` when it is gone.
    fn drain(&mut self, out: &mut Vec<u8>, bytes_max: usize) -> Result<usize>;

    /// How many bytes wait, as far as can be told without a system call.
    fn waiting_bytes(&mut self) -> Result<usize>;

    /// Copies the front of the next frame's body to `front` and returns the body's length, if this transport
    /// can and the body is long enough.
    ///
    /// # Errors
    /// `Protocol` when the peer broke the rules.
    fn peek(&mut self, _front: &mut [u8]) -> Result<Option<usize>> {
        Ok(None)
    }

    /// Appends the body of the frame that was peeked at, from `skip` on, to `out`.
    ///
    /// # Errors
    /// `Disconnected` when the peer is gone.
    fn take(&mut self, _body_bytes: usize, _skip: usize, _out: &mut Vec<u8>) -> Result<()> {
        Ok(())
    }

    /// Sleeps until a frame may have come, the time is up or a signal arrives: the leader's sleep of a
    /// client over shared memory. Other transports return `None` at once.
    fn sleep(&mut self, _timeout: Option<Duration>) -> Option<crate::os::futex::Wait> {
        None
    }

    /// A handle that ends such a sleep from another thread.
    fn waker(&self) -> Option<std::sync::Arc<dyn Fn() + Send + Sync>> {
        None
    }
}

/// Both halves.
pub struct Transport {
    /// `shm`, `unix` or `tcp`.
    pub name: &'static str,
    /// Frames out.
    pub sender: Box<dyn FrameSender>,
    /// Frames in.
    pub receiver: Box<dyn FrameReceiver>,
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Bytes a frame with a body of this length takes in a drained block.
pub const fn framed_bytes(body_bytes: usize) -> usize {
    (body_bytes + 4 + 7) & !7
}

/// The bodies in a drained block, as ranges into it.
pub fn bodies(block: &[u8]) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let length = block.get(at..at + 4)?;
        let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
        if length < 4 || at + length > block.len() {
            return None;
        }
        let body = at + 4..at + length;
        at += framed_bytes(length - 4);
        Some(body)
    })
}
