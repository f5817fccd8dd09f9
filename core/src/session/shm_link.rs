//! Frames over shared memory: a ring in each direction, and the bells that wake a sleeping peer.
//!
//! The host is woken by an eventfd of this session alone (one for its poller, one for a user thread
//! that leads); it is only ever polled edge-triggered, never read, so nothing a client does to it can
//! stop the host. The client is woken by a futex word in the host's own memory when a thread of it
//! leads, and by one byte on the control socket, sent without waiting, when its poller sleeps.
#![forbid(unsafe_code)]

use super::{FrameReceiver, FrameSender, Sent, Socket, framed_bytes};
use crate::{
    error::Result,
    os::{self, eventfd::EventFd, futex::Wait},
    shm::{Consumer, Producer, Push, Ring},
};
use std::{os::fd::AsFd, sync::Arc, time::Duration};

/// How this side wakes the other.
#[derive(Clone, Debug)]
pub(super) enum Bell {
    /// This is the client: the host's eventfds.
    ToHost { poller: Arc<EventFd>, leader: Arc<EventFd> },
    /// This is the host: the control socket.
    ToClient(Socket),
}

impl Bell {
    fn ring_poller(&self) -> Result<()> {
        match self {
            Self::ToHost { poller, .. } => poller.signal(),
            // No room means that bells wait unread: the client will wake.
            Self::ToClient(socket) => os::socket::send_nowait(socket.as_fd(), &[1]).map(drop),
        }
    }
}

/// The sending half.
#[derive(Debug)]
pub struct ShmSender {
    producer: Producer,
    bell: Bell,
    /// The peer was asked to tell about room, and has not been told that it is not wanted any more.
    wanting: bool,
}

impl ShmSender {
    pub(super) fn new(producer: Producer, bell: Bell) -> Self {
        Self { producer, bell, wanting: false }
    }
}

impl FrameSender for ShmSender {
    fn push(&mut self, parts: &[&[u8]]) -> Result<Sent> {
        Ok(match self.producer.try_push(parts)? {
            Push::Written => {
                // At a host, others than this frame's sender may wait for more room than it took: their wish
                // stays until the client has answered it.
                if std::mem::take(&mut self.wanting) && matches!(self.bell, Bell::ToHost { .. }) {
                    self.producer.clear_want();
                }
                Sent::Done
            }
            Push::Full => Sent::Full,
        })
    }

    fn flush(&mut self) -> Result<()> {
        match (self.producer.publish(), &self.bell) {
            (Ring::None, _) => Ok(()),
            (Ring::Leader, Bell::ToHost { leader, .. }) => leader.signal(),
            (Ring::Leader, Bell::ToClient(_)) => {
                self.producer.wake_leader();
                Ok(())
            }
            (Ring::Poller, bell) => bell.ring_poller(),
        }
    }

    fn want_room(&mut self) -> Result<bool> {
        self.wanting = true;
        self.producer.want_space()
    }

    fn has_room(&mut self, body_bytes: usize) -> Result<bool> {
        Ok(self.producer.free_bytes()? >= framed_bytes(body_bytes))
    }

    fn wait_room(&mut self, timeout: Duration) -> Result<()> {
        // Interrupted or not, the caller looks again and asks its own conditions.
        self.producer.wait_space(Some(timeout));
        Ok(())
    }

    fn frame_bytes_max(&self) -> usize {
        self.producer.frame_bytes_max() - 4
    }
}

/// The receiving half.
#[derive(Debug)]
pub struct ShmReceiver {
    consumer: Consumer,
    bell: Bell,
}

impl ShmReceiver {
    pub(super) fn new(consumer: Consumer, bell: Bell) -> Self {
        Self { consumer, bell }
    }

    /// Wakes the peer if it waits for the room that was just made.
    fn tell_of_room(&mut self) -> Result<()> {
        if !self.consumer.space_ring() {
            return Ok(());
        }
        match &self.bell {
            Bell::ToHost { poller, .. } => poller.signal(),
            // Either a thread of the client sleeps for room, or its poller has a backlog to send.
            bell @ Bell::ToClient(_) => {
                if self.consumer.wake_space() {
                    Ok(())
                } else {
                    bell.ring_poller()
                }
            }
        }
    }
}

impl FrameReceiver for ShmReceiver {
    fn drain(&mut self, out: &mut Vec<u8>, bytes_max: usize) -> Result<usize> {
        let drained = self.consumer.drain(out, bytes_max)?;
        if drained.frames > 0 {
            self.tell_of_room()?;
        }
        Ok(drained.frames)
    }

    fn peek(&mut self, front: &mut [u8]) -> Result<Option<usize>> {
        self.consumer.peek(front)
    }

    fn take(&mut self, body_bytes: usize, skip: usize, out: &mut Vec<u8>) -> Result<()> {
        self.consumer.take(body_bytes, skip, out);
        self.tell_of_room()
    }

    fn waiting_bytes(&mut self) -> Result<usize> {
        self.consumer.available()
    }

    fn sleep(&mut self, timeout: Option<Duration>) -> Option<Wait> {
        Some(self.consumer.sleep(timeout))
    }

    fn waker(&self) -> Option<Arc<dyn Fn() + Send + Sync>> {
        let waker = self.consumer.waker();
        Some(Arc::new(move || {
            waker.wake();
        }))
    }
}
