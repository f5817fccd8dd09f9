//! The sending side of a session: frames go straight out, large ones in chunks, and what finds no
//! room waits in a bounded backlog.
#![forbid(unsafe_code)]

use super::{FrameSender, Sent};
use crate::{
    error::{Error, ErrorKind, Result},
    wire::{CHUNK_BYTES, Chunk, Message, MessageHeader},
};
use std::{collections::VecDeque, time::Duration};

/// Sends frames of one session, in order.
///
/// Order: a frame never overtakes one that was accepted before it. A large frame counts as sent from
/// its first chunk on; small frames may then lie between its chunks only if they came from
/// [`send_waiting`](Self::send_waiting) of another thread, never out of the backlog.
pub struct Outbox {
    sender: Box<dyn FrameSender>,
    backlog: VecDeque<Waiting>,
    backlog_bytes: usize,
    backlog_bytes_max: usize,
    next_flow: u32,
    /// Frames accepted.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A frame that waits for room, or the rest of one.
struct Waiting {
    head: Vec<u8>,
    tail: Option<Message>,
    /// The flow and how many bytes of the body went, once the first chunk went.
    flow: Option<(u32, usize)>,
}

impl Waiting {
    fn parts(&self) -> [&[u8]; 3] {
        let [front, payload] = self.tail.as_ref().map_or([&[][..]; 2], Message::tail);
        [&self.head, front, payload]
    }

    fn body_bytes(&self) -> usize {
        self.head.len() + self.tail.as_ref().map_or(0, Message::tail_bytes)
    }
}

impl Outbox {
    /// Sends through `sender`; at most `backlog_bytes_max` bytes wait.
    pub fn new(sender: Box<dyn FrameSender>, backlog_bytes_max: usize) -> Self {
        Self {
            sender,
            backlog: VecDeque::new(),
            backlog_bytes: 0,
            backlog_bytes_max,
            next_flow: 1,
            frames: 0,
            bytes: 0,
        }
    }

    /// Whether nothing waits.
    pub fn is_clear(&self) -> bool {
        self.backlog.is_empty()
    }

    /// Bytes that wait.
    pub fn backlog_bytes(&self) -> usize {
        self.backlog_bytes
    }

    /// Sends a small frame if there is room now and nothing waits before it.
    ///
    /// # Errors
    /// Those of [`FrameSender::push`].
    pub fn send(&mut self, parts: &[&[u8]]) -> Result<Sent> {
        if !self.backlog.is_empty() {
            return Ok(Sent::Full);
        }
        let sent = self.sender.push(parts)?;
        if sent == Sent::Done {
            self.count(parts.iter().map(|part| part.len()).sum());
        }
        Ok(sent)
    }

    /// Sends a message under another header (`head`: its fixed part and targets) if there is room now.
    /// A large message is accepted when nothing waits; what does not fit at once follows by itself.
    ///
    /// # Errors
    /// Those of [`FrameSender::push`].
    pub fn send_message(&mut self, head: &[u8], message: &Message) -> Result<Sent> {
        let body_bytes = head.len() + message.tail_bytes();
        if body_bytes <= self.sender.frame_bytes_max().min(CHUNK_BYTES) {
            let [front, payload] = message.tail();
            return self.send(&[head, front, payload]);
        }
        if !self.backlog.is_empty() {
            return Ok(Sent::Full);
        }
        self.keep(Waiting { head: head.to_vec(), tail: Some(message.clone()), flow: None });
        self.pump()?;
        Ok(Sent::Done)
    }

    /// Sends a message, or keeps it until there is room.
    ///
    /// # Errors
    /// [`ErrorKind::Full`] when the backlog is over its limit: the peer does not read.
    pub fn queue_message(&mut self, header: &MessageHeader, targets: &[u8], message: &Message) -> Result<()> {
        let mut head = [0; crate::wire::HEADER_BYTES + 8];
        let fixed = header.encode();
        head[..fixed.len()].copy_from_slice(&fixed);
        let used = fixed.len() + targets.len();
        let (small, large);
        let head: &[u8] = if let Some(room) = head.get_mut(fixed.len()..used) {
            room.copy_from_slice(targets);
            small = head;
            &small[..used]
        } else {
            large = [&fixed, targets].concat();
            &large
        };
        if self.send_message(head, message)? == Sent::Full {
            self.check_room(head.len() + message.tail_bytes())?;
            self.keep(Waiting { head: head.to_vec(), tail: Some(message.clone()), flow: None });
        }
        Ok(())
    }

    /// Sends a frame of any size, or keeps it until there is room.
    ///
    /// # Errors
    /// [`ErrorKind::Full`] when the backlog is over its limit: the peer does not read.
    pub fn queue(&mut self, body: &[u8]) -> Result<()> {
        let large = body.len() > self.sender.frame_bytes_max().min(CHUNK_BYTES);
        if large || self.send(&[body])? == Sent::Full {
            self.check_room(body.len())?;
            self.keep(Waiting { head: body.to_vec(), tail: None, flow: None });
            self.pump()?;
        }
        Ok(())
    }

    /// Moves what waits as far as there is room; true when nothing waits any more.
    ///
    /// # Errors
    /// Those of [`FrameSender::push`].
    pub fn pump(&mut self) -> Result<bool> {
        loop {
            while let Some(front) = self.backlog.front_mut() {
                let total = front.body_bytes();
                let sent = if total <= self.sender.frame_bytes_max().min(CHUNK_BYTES) {
                    self.sender.push(&front.parts())?
                } else {
                    let (flow, offset) = *front.flow.get_or_insert_with(|| {
                        self.next_flow = self.next_flow.wrapping_add(1);
                        (self.next_flow, 0)
                    });
                    let end = (offset + chunk_bytes(self.sender.as_ref())).min(total);
                    let sent = push_chunk(self.sender.as_mut(), flow, &front.parts(), offset, end)?;
                    if sent == Sent::Done {
                        front.flow = Some((flow, end));
                        if end < total {
                            continue;
                        }
                    }
                    sent
                };
                if sent == Sent::Full {
                    break;
                }
                self.backlog_bytes -= total;
                self.backlog.pop_front();
                self.count(total);
            }
            if self.backlog.is_empty() {
                return Ok(true);
            }
            self.flush()?;
            if !self.sender.want_room()? {
                return Ok(false);
            }
        }
    }

    /// Begins a large frame that its owner sends with [`push_chunk`](Self::push_chunk).
    pub fn begin_flow(&mut self) -> u32 {
        self.next_flow = self.next_flow.wrapping_add(1);
        self.next_flow
    }

    /// Sends bytes `from..to` of the large frame made of `parts`, if there is room.
    ///
    /// # Errors
    /// Those of [`FrameSender::push`].
    pub fn push_chunk(&mut self, flow: u32, parts: &[&[u8]], from: usize, to: usize) -> Result<Sent> {
        push_chunk(self.sender.as_mut(), flow, parts, from, to)
    }

    /// Leaves the rest of a large frame, from `sent` on, to the backlog.
    pub fn keep_rest(&mut self, flow: u32, sent: usize, body: Vec<u8>) {
        self.keep(Waiting { head: body, tail: None, flow: Some((flow, sent)) });
    }

    /// Whether a frame with a body of this length goes in one piece.
    pub fn fits(&self, body_bytes: usize) -> bool {
        body_bytes <= self.sender.frame_bytes_max().min(CHUNK_BYTES)
    }

    /// How much of a large frame one chunk may carry.
    pub fn chunk_bytes(&self) -> usize {
        chunk_bytes(self.sender.as_ref())
    }

    /// Shows the peer what was sent. Never waits.
    ///
    /// # Errors
    /// `Disconnected` when the peer is gone.
    pub fn flush(&mut self) -> Result<()> {
        self.sender.flush()
    }

    /// Asks to be told about room; true when there may be some already.
    ///
    /// # Errors
    /// `Protocol` when the peer broke the rules.
    pub fn want_room(&mut self) -> Result<bool> {
        self.sender.want_room()
    }

    /// Whether a frame with a body of this length would go out now; of one that goes in chunks, the first.
    ///
    /// # Errors
    /// `Protocol` when the peer broke the rules.
    pub fn has_room(&mut self, body_bytes: usize) -> Result<bool> {
        // More than the largest frame is never free in the smallest ring.
        let body_bytes = body_bytes.min(self.sender.frame_bytes_max());
        Ok(self.backlog.is_empty() && self.sender.has_room(body_bytes)?)
    }

    /// Whether all that was sent has left this process.
    pub fn is_flushed(&self) -> bool {
        self.sender.is_flushed()
    }

    /// Sends a frame of any size, waiting for room: the way of a client's calling thread.
    ///
    /// `pause` is asked before each wait and gives its length; its error ends the waiting. A frame that
    /// was begun and is given up is taken back, so that nothing of it arrives.
    ///
    /// # Errors
    /// Those of `pause` and of [`FrameSender::push`].
    pub fn send_waiting(
        &mut self,
        parts: &[&[u8]],
        pause: &mut dyn FnMut() -> Result<Duration>,
    ) -> Result<()> {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        while !self.backlog.is_empty() && !self.pump()? {
            self.wait_for_room(pause)?;
        }
        if total <= self.sender.frame_bytes_max().min(CHUNK_BYTES) {
            while self.sender.push(parts)? == Sent::Full {
                self.wait_for_room(pause)?;
            }
            self.count(total);
            return Ok(());
        }
        self.next_flow = self.next_flow.wrapping_add(1);
        let flow = self.next_flow;
        let mut offset = 0;
        while offset < total {
            let end = (offset + chunk_bytes(self.sender.as_ref())).min(total);
            if push_chunk(self.sender.as_mut(), flow, parts, offset, end)? == Sent::Done {
                // The peer copies this chunk out while the next is copied in.
                self.sender.flush()?;
                offset = end;
            } else if let Err(error) = self.wait_for_room(pause) {
                if offset > 0 {
                    let abort =
                        Chunk { flow, total: total as u32, offset: offset as u32, abort: true, bytes: &[] };
                    // Small enough to be kept until there is room, and sent before anything else.
                    self.keep(Waiting { head: abort.prefix().to_vec(), tail: None, flow: None });
                }
                return Err(error);
            }
        }
        self.count(total);
        Ok(())
    }

    fn wait_for_room(&mut self, pause: &mut dyn FnMut() -> Result<Duration>) -> Result<()> {
        self.sender.flush()?;
        if self.sender.want_room()? {
            return Ok(());
        }
        let wait = pause()?;
        self.sender.wait_room(wait)
    }

    /// Counts a frame that was sent by [`push_chunk`](Self::push_chunk).
    pub fn count(&mut self, bytes: usize) {
        self.frames += 1;
        self.bytes += bytes as u64;
    }

    fn keep(&mut self, waiting: Waiting) {
        self.backlog_bytes += waiting.body_bytes();
        self.backlog.push_back(waiting);
    }

    fn check_room(&self, bytes: usize) -> Result<()> {
        // A single frame is always let in, or a limit below one message would block it for ever.
        if self.backlog.is_empty() || self.backlog_bytes + bytes <= self.backlog_bytes_max {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Full, "session.send")
            .with("backlog_bytes", self.backlog_bytes + bytes)
            .with("limit_bytes", self.backlog_bytes_max))
    }
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox").field("backlog_bytes", &self.backlog_bytes).finish_non_exhaustive()
    }
}

/// Bytes of a large frame that one chunk carries: in a small ring less than [`CHUNK_BYTES`].
fn chunk_bytes(sender: &dyn FrameSender) -> usize {
    CHUNK_BYTES.min(sender.frame_bytes_max() - Chunk::PREFIX_BYTES)
}

/// Pushes bytes `from..to` of the frame made of `parts` as one chunk.
fn push_chunk(
    sender: &mut dyn FrameSender,
    flow: u32,
    parts: &[&[u8]],
    from: usize,
    to: usize,
) -> Result<Sent> {
    let total = parts.iter().map(|part| part.len()).sum::<usize>() as u32;
    let prefix = Chunk { flow, total, offset: from as u32, abort: false, bytes: &[] }.prefix();
    let mut slices: [&[u8]; 6] = [&[]; 6];
    slices[0] = &prefix;
    let mut used = 1;
    let mut start = 0;
    for part in parts {
        let (low, high) = (from.max(start), to.min(start + part.len()));
        if low < high {
            slices[used] = &part[low - start..high - start];
            used += 1;
        }
        start += part.len();
    }
    sender.push(&slices[..used])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Draft, Kind};
    use std::sync::{Arc, Mutex};

    /// A sender with room for a number of bytes, which the test gives back.
    struct Narrow {
        room: Arc<Mutex<usize>>,
        bodies: Arc<Mutex<Vec<Vec<u8>>>>,
    }

    impl FrameSender for Narrow {
        fn push(&mut self, parts: &[&[u8]]) -> Result<Sent> {
            let body = parts.concat();
            let mut room = self.room.lock().unwrap();
            if body.len() > *room {
                return Ok(Sent::Full);
            }
            *room -= body.len();
            self.bodies.lock().unwrap().push(body);
            Ok(Sent::Done)
        }
        fn flush(&mut self) -> Result<()> {
            Ok(())
        }
        fn want_room(&mut self) -> Result<bool> {
            Ok(false)
        }
        fn has_room(&mut self, body_bytes: usize) -> Result<bool> {
            Ok(body_bytes <= *self.room.lock().unwrap())
        }
        fn wait_room(&mut self, _: Duration) -> Result<()> {
            Ok(())
        }
        fn frame_bytes_max(&self) -> usize {
            CHUNK_BYTES + 1024
        }
    }

    type Shared<T> = Arc<Mutex<T>>;

    fn narrow(room: usize) -> (Outbox, Shared<usize>, Shared<Vec<Vec<u8>>>) {
        let (room, bodies) = (Arc::new(Mutex::new(room)), Shared::default());
        let sender = Narrow { room: Arc::clone(&room), bodies: Arc::clone(&bodies) };
        (Outbox::new(Box::new(sender), 300_000), room, bodies)
    }

    fn assemble(bodies: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut assembler = super::super::Assembler::new(1 << 20);
        let mut out = Vec::new();
        for body in bodies {
            if body[0] == Kind::Chunk as u8 {
                out.extend(assembler.add(&Chunk::decode(body).unwrap()).unwrap().map(|frame| frame.to_vec()));
            } else {
                out.push(body.clone());
            }
        }
        out
    }

    #[test]
    fn order_is_kept_when_room_is_short() {
        let (mut outbox, room, bodies) = narrow(10);
        let large = vec![1u8; 200_000];
        let mut expected = vec![vec![10u8; 8], large.clone(), vec![12u8; 9]];
        outbox.queue(&expected[0].clone()).unwrap();
        outbox.queue(&large).unwrap();
        outbox.queue(&expected[2].clone()).unwrap();
        assert_eq!(outbox.send(&[b"x"]).unwrap(), Sent::Full, "nothing overtakes the backlog");
        let error = outbox.queue(&large).unwrap_err();
        assert_eq!((error.kind(), error.get("limit_bytes")), (ErrorKind::Full, Some("300000")));
        while !outbox.pump().unwrap() {
            *room.lock().unwrap() += 70_000;
        }
        outbox.queue(b"y").unwrap_or(());
        assert_eq!(outbox.backlog_bytes(), 0);
        expected.push(b"y".to_vec());
        *room.lock().unwrap() += 1000;
        outbox.pump().unwrap();
        assert_eq!(assemble(&bodies.lock().unwrap())[..3], expected[..3]);
    }

    #[test]
    fn a_large_message_is_the_same_after_its_journey() {
        let (mut outbox, room, bodies) = narrow(100_000);
        let payload: Vec<u8> = (0..250_000u32).map(|i| i as u8).collect();
        let message = Draft::new(Kind::Event, 9, "a.b", &payload).to_message();
        let header = message.forward_header(Kind::Event, 9, 0, 0);
        outbox.queue_message(&header, &[], &message).unwrap();
        while !outbox.pump().unwrap() {
            *room.lock().unwrap() += 70_000;
        }
        let frames = assemble(&bodies.lock().unwrap());
        let again = Message::decode(&Arc::new(frames[0].clone()), 0, frames[0].len()).unwrap();
        assert_eq!((again.subject(), again.payload()), ("a.b", payload.as_slice()));
    }

    #[test]
    fn a_large_frame_given_up_is_taken_back() {
        let (mut outbox, room, bodies) = narrow(70_000);
        let large = vec![1u8; 200_000];
        let mut patience = 3;
        let error = outbox.send_waiting(&[&large], &mut || {
            patience -= 1;
            if patience > 0 { Ok(Duration::ZERO) } else { Err(Error::new(ErrorKind::Timeout, "t")) }
        });
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Timeout);
        *room.lock().unwrap() += 300_000;
        assert!(outbox.pump().unwrap());
        outbox.send_waiting(&[&large], &mut || Ok(Duration::ZERO)).unwrap();
        assert_eq!(assemble(&bodies.lock().unwrap()), vec![large]);
    }
}
