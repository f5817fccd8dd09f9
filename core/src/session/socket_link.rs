//! Frames over a stream socket, Unix or TCP: the transport where memory cannot be shared.
#![forbid(unsafe_code)]

use super::{FrameReceiver, FrameSender, Sent, framed_bytes};
use crate::{
    error::{Error, ErrorKind, Result},
    os,
    wire::CHUNK_BYTES,
};
use std::{os::fd::AsFd, sync::Arc, time::Duration};

/// The socket both halves share; closed in a forked child.
pub type Socket = Arc<os::fork::GuardedFd>;

/// Bytes a sender holds for the socket before it says `Full`.
const BUFFER_BYTES_MAX: usize = 1024 * 1024;

/// The sending half.
#[derive(Debug)]
pub struct SocketSender {
    socket: Socket,
    buffer: Vec<u8>,
    sent: usize,
}

impl SocketSender {
    /// Sends on `socket`.
    pub fn new(socket: Socket) -> Self {
        Self { socket, buffer: Vec::new(), sent: 0 }
    }

    fn waiting(&self) -> usize {
        self.buffer.len() - self.sent
    }
}

impl FrameSender for SocketSender {
    fn push(&mut self, parts: &[&[u8]]) -> Result<Sent> {
        let body: usize = parts.iter().map(|part| part.len()).sum();
        if body > self.frame_bytes_max() {
            return Err(Error::new(ErrorKind::TooLarge, "session.send")
                .with("frame_bytes", body)
                .with("limit_bytes", self.frame_bytes_max()));
        }
        if self.waiting() > 0 && self.waiting() + framed_bytes(body) > BUFFER_BYTES_MAX {
            return Ok(Sent::Full);
        }
        if self.sent > 0 {
            self.buffer.drain(..self.sent);
            self.sent = 0;
        }
        self.buffer.extend_from_slice(&(body as u32 + 4).to_le_bytes());
        for part in parts {
            self.buffer.extend_from_slice(part);
        }
        self.buffer.resize(self.buffer.len() + framed_bytes(body) - body - 4, 0);
        Ok(Sent::Done)
    }

    fn flush(&mut self) -> Result<()> {
        while self.waiting() > 0 {
            match os::socket::send_some(self.socket.as_fd(), &self.buffer[self.sent..])? {
                Some(count) => self.sent += count,
                None => return Ok(()),
            }
        }
        self.buffer.clear();
        self.sent = 0;
        Ok(())
    }

    fn want_room(&mut self) -> Result<bool> {
        // Room comes by flushing, which the poller does when the socket becomes writable.
        Ok(self.waiting() <= BUFFER_BYTES_MAX / 2)
    }

    fn has_room(&mut self, body_bytes: usize) -> Result<bool> {
        Ok(self.waiting() == 0 || self.waiting() + framed_bytes(body_bytes) <= BUFFER_BYTES_MAX)
    }

    fn is_flushed(&self) -> bool {
        self.waiting() == 0
    }

    fn wait_room(&mut self, timeout: Duration) -> Result<()> {
        os::socket::wait_writable(self.socket.as_fd(), Some(timeout))?;
        self.flush()
    }

    fn frame_bytes_max(&self) -> usize {
        CHUNK_BYTES + 1024
    }
}

/// The receiving half.
#[derive(Debug)]
pub struct SocketReceiver {
    socket: Socket,
    buffer: Vec<u8>,
}

impl SocketReceiver {
    /// Receives from `socket`; `early` are bytes that came with the handshake.
    pub fn new(socket: Socket, early: Vec<u8>) -> Self {
        Self { socket, buffer: early }
    }

    fn fill(&mut self, bytes_max: usize) -> Result<bool> {
        let mut ended = false;
        while self.buffer.len() < bytes_max {
            let old = self.buffer.len();
            self.buffer.resize(old + 64 * 1024, 0);
            let came = os::socket::recv_nowait(self.socket.as_fd(), &mut self.buffer[old..]);
            self.buffer.truncate(old + came.as_ref().ok().and_then(|came| *came).unwrap_or(0));
            match came? {
                None => break,
                Some(0) => {
                    ended = true;
                    break;
                }
                Some(_) => {}
            }
        }
        Ok(ended)
    }

    fn whole_frames(&self) -> Result<(usize, usize)> {
        let (mut at, mut count) = (0, 0);
        while let Some(length) = self.buffer.get(at..at + 4) {
            let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
            if !(5..=CHUNK_BYTES + 1024 + 4).contains(&length) {
                return Err(Error::new(ErrorKind::Protocol, "session.receive")
                    .with("frame_bytes", length)
                    .with("limit_bytes", CHUNK_BYTES + 1024));
            }
            let end = at + framed_bytes(length - 4);
            if end > self.buffer.len() {
                break;
            }
            at = end;
            count += 1;
        }
        Ok((at, count))
    }
}

impl FrameReceiver for SocketReceiver {
    fn drain(&mut self, out: &mut Vec<u8>, bytes_max: usize) -> Result<usize> {
        let ended = self.fill(bytes_max.max(CHUNK_BYTES + 4096))?;
        let (bytes, count) = self.whole_frames()?;
        out.extend_from_slice(&self.buffer[..bytes]);
        self.buffer.drain(..bytes);
        if ended && count == 0 {
            return Err(Error::new(ErrorKind::Disconnected, "session.receive"));
        }
        Ok(count)
    }

    fn waiting_bytes(&mut self) -> Result<usize> {
        Ok(self.whole_frames()?.0)
    }
}
