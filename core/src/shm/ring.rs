//! The ring: a producer and a consumer of frames, and when either must wake the other.
//!
//! Decides nothing about memory or sleeping: regions come in as traits, sleeping is in `endpoint`, so loom
//! runs this file as it is.
//!
//! # Frames
//!
//!   offset size  field        (little-endian)
//!        0    4  frame bytes  these four and the body, not the padding
//!        4    n  body
//!             p  padding      up to a multiple of 8; whatever lay there
//!
//! Cursors count bytes since the ring was made, start anywhere, wrap at 2^64 and are multiples of 8. A frame
//! never wraps because the data is mapped twice. `head <= tail <= head + ring_bytes` in wrapping arithmetic.
//!
//! # Who wakes whom
//!
//! A cursor tells what happened; the 32-bit event word beside it, `cursor / 8`, is what a futex can sleep
//! on. It is stored after the cursor and read before it. Two hand-shakes of the same shape keep wake-ups
//! from being lost:
//!
//!   waiter    `waiting` = (new sequence, mode); fence; read `tail_event`; is there a new `tail`? If not,
//!             sleep while `tail_event` holds what was read
//!   producer  `tail`; `tail_event`; fence; read `waiting`; ring if it is armed and this sequence has not
//!             been rung yet
//!
//! Both fences are sequentially consistent, so at least one side sees the other's store: the waiter finds
//! the frames, or the producer finds it armed. A waiter arms anew before every sleep, so one ring per
//! sequence is enough, and a burst costs one system call. The full producer and the consumer do the same
//! with `space_wanted`, `head` and `head_event`.
//!
//! A ring through a descriptor stays until it is read. A futex wake does not: one that finds nobody asleep
//! is forgotten, and the waiter may yet go to sleep if the event word has not changed since *it* looked
//! (the producer rang for frames that the waiter had seen before it armed). So a wake that woke nobody does
//! not count as a ring of that sequence: the next publish rings again.
//!
//! Sequences and event words wrap. A waiter whose wake-up is lost that way (2^30 arms without one publish,
//! or 32 GiB published between its last look and its sleep) is woken by the limit that every sleep has.

use crate::error::{Error, ErrorKind, Result};
use crate::sync::{AtomicU32, AtomicU64, Ordering, Step, fence, fence_seq_cst, load_acquire_u32, ordering};
use std::sync::Arc;

/// The words of a region that change. Written by the region's owner alone, read by both.
///
/// One line of 128 bytes for each kind of use: processors fetch lines of 64 bytes in pairs.
#[repr(C)]
#[derive(Debug)]
pub struct Words {
    pub(super) produced: Cursor,
    pub(super) consumed: Cursor,
    pub(super) waiting: Word,
    pub(super) space_wanted: Word,
}

/// How far a side has got, and the word to sleep on until it gets further.
#[repr(C, align(128))]
#[derive(Debug)]
pub(super) struct Cursor {
    pub(super) position: AtomicU64,
    pub(super) event: AtomicU32,
}

impl Cursor {
    /// The event word, read before it was seen that the cursor still is at `position`.
    fn event_beside(&self, position: u64) -> Option<u32> {
        // Acquire: pairs with the Release of the event word; who reads a new one sees its cursor too.
        let event = load_acquire_u32(&self.event, Step::LoadEvent);
        (self.position.load(Ordering::Relaxed) == position).then_some(event)
    }
}

#[repr(C, align(128))]
#[derive(Debug)]
pub(super) struct Word(pub(super) AtomicU32);

/// A mapped region, seen by the ring.
pub trait Region {
    /// Its words.
    fn words(&self) -> &Words;
    /// The size of its ring: a power of two.
    fn ring_bytes(&self) -> usize;
}

/// The region this side writes.
pub trait OwnRegion: Region {
    /// Copies `bytes` into the ring at `cursor`.
    ///
    /// # Safety
    /// `bytes` is not longer than the ring.
    unsafe fn write(&self, cursor: u64, bytes: &[u8]);
}

/// The region the peer writes.
pub trait PeerRegion: Region {
    /// Copies `len` bytes at `cursor` of the ring to `into`. They are any bytes at all.
    ///
    /// # Safety
    /// `len` is not more than the ring holds, and `into` is valid for that many writes.
    unsafe fn read(&self, cursor: u64, len: usize, into: *mut u8);
}

/// Where a `waiting` word lives.
pub trait Waiting {
    /// The word: `sequence << 2 | mode`.
    fn waiting(&self) -> &AtomicU32;
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Push {
    /// It is in the ring and shows with the next publish.
    Written,
    /// There is no room for it now. Publish what was written, then wait for space.
    Full,
}

/// Whom to wake after a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Ring {
    /// Nobody: the peer is awake, or is being woken already.
    None,
    /// The peer's poller thread sleeps: ring it through its descriptor.
    Poller,
    /// One of the peer's own threads sleeps on the ring: `wake_leader`.
    Leader,
}

/// Who of a process sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Its poller thread, in epoll.
    Poller = 1,
    /// A user's thread, on the futex of the ring.
    Leader = 2,
}

/// What a drain moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Bytes appended to the buffer, lengths and padding included.
    pub bytes: usize,
    /// Whole frames among them: all of them.
    pub frames: usize,
}

/// The writing end of a ring. One per ring.
#[derive(Debug)]
pub struct Producer<Own, Peer, Bell> {
    pub(super) own: Arc<Own>,
    pub(super) peer: Arc<Peer>,
    bell: Bell,
    /// Where the next frame goes.
    tail: u64,
    /// The tail that the peer sees.
    published: u64,
    /// The peer's head when we last looked.
    head: u64,
    ring_bytes: u64,
    frame_bytes_max: usize,
    last_rung: u32,
    last_want: u32,
}

impl<Own: OwnRegion, Peer: Region, Bell: Waiting> Producer<Own, Peer, Bell> {
    /// The producer of `own`'s ring, whose cursors stand at `start`.
    pub(super) fn new(own: Arc<Own>, peer: Arc<Peer>, bell: Bell, start: u64) -> Self {
        let ring_bytes = own.ring_bytes();
        Self {
            own,
            peer,
            bell,
            tail: start,
            published: start,
            head: start,
            ring_bytes: ring_bytes as u64,
            frame_bytes_max: frame_bytes_max(ring_bytes),
            last_rung: 0,
            last_want: 0,
        }
    }

    /// Writes a frame whose body is `parts` one after the other. The peer sees it after [`Self::publish`].
    ///
    /// # Errors
    /// - [`ErrorKind::TooLarge`]: the frame is over [`Self::frame_bytes_max`].
    /// - [`ErrorKind::Protocol`]: the peer's cursor is impossible. Close the session.
    #[inline]
    pub fn try_push(&mut self, parts: &[&[u8]]) -> Result<Push> {
        let frame_bytes = parts.iter().fold(LENGTH_BYTES, |sum, part| sum.saturating_add(part.len()));
        if frame_bytes > self.frame_bytes_max {
            return Err(too_large(frame_bytes, self.frame_bytes_max));
        }
        let end = self.tail.wrapping_add(padded(frame_bytes) as u64);
        if end.wrapping_sub(self.head) > self.ring_bytes {
            self.look_at_head()?;
            if end.wrapping_sub(self.head) > self.ring_bytes {
                return Ok(Push::Full);
            }
        }
        let mut at = self.tail;
        // SAFETY: `frame_bytes <= frame_bytes_max`, which is at most a quarter of the ring.
        unsafe { self.own.write(at, &(frame_bytes as u32).to_le_bytes()) };
        at = at.wrapping_add(LENGTH_BYTES as u64);
        for part in parts {
            // SAFETY: as above: a part is no longer than its frame.
            unsafe { self.own.write(at, part) };
            at = at.wrapping_add(part.len() as u64);
        }
        self.tail = end;
        Ok(Push::Written)
    }

    /// Shows the peer all that was written and says whom to wake for it.
    #[inline]
    pub fn publish(&mut self) -> Ring {
        if self.tail == self.published {
            return Ring::None;
        }
        self.published = self.tail;
        let produced = &self.own.words().produced;
        // Release: pairs with the Acquire in `Consumer::available`; the frames come with the cursor.
        produced.position.store(self.tail, ordering(Step::PublishTail, Ordering::Release));
        produced.event.store(event_of(self.tail), ordering(Step::StoreEvent, Ordering::Release));
        // Pairs with the fence in `WaitingWriter::arm`.
        fence_seq_cst(Step::PublishFence);
        let waiting = self.bell.waiting().load(Ordering::Relaxed);
        if waiting & MODE_MASK == AWAKE || waiting == self.last_rung {
            return Ring::None;
        }
        self.last_rung = waiting;
        match waiting & MODE_MASK {
            mode if mode == Mode::Poller as u32 => Ring::Poller,
            mode if mode == Mode::Leader as u32 => Ring::Leader,
            // A peer that writes nonsense there sleeps until its own limit.
            _ => Ring::None,
        }
    }

    /// The longest frame: its body and the 4 bytes of its length.
    #[inline]
    pub fn frame_bytes_max(&self) -> usize {
        self.frame_bytes_max
    }

    /// The size of the ring.
    #[inline]
    pub fn ring_bytes(&self) -> usize {
        self.ring_bytes as usize
    }

    /// How many bytes are free now. A frame takes its length rounded up to 8.
    ///
    /// # Errors
    /// - [`ErrorKind::Protocol`]: the peer's cursor is impossible.
    pub fn free_bytes(&mut self) -> Result<usize> {
        self.look_at_head()?;
        Ok((self.ring_bytes - self.tail.wrapping_sub(self.head)) as usize)
    }

    /// Whether something is written and not published.
    #[inline]
    pub fn has_unpublished(&self) -> bool {
        self.tail != self.published
    }

    /// Whether the peer has consumed all that was published.
    ///
    /// # Errors
    /// - [`ErrorKind::Protocol`]: the peer's cursor is impossible.
    pub fn is_consumed(&mut self) -> Result<bool> {
        self.look_at_head()?;
        Ok(self.head == self.published)
    }

    /// Asks the peer to wake us once it has freed space, and returns whether it has done so meanwhile: then
    /// push again. Otherwise sleep; ask anew before every sleep. Publish first: what the peer cannot see it
    /// cannot free.
    ///
    /// # Errors
    /// - [`ErrorKind::Protocol`]: the peer's cursor is impossible.
    pub fn want_space(&mut self) -> Result<bool> {
        self.last_want = self.last_want.wrapping_add(1).max(1);
        self.own.words().space_wanted.0.store(self.last_want, Ordering::Relaxed);
        // Pairs with the fence in `Consumer::space_ring`.
        fence_seq_cst(Step::WantFence);
        let before = self.head;
        self.look_at_head()?;
        Ok(self.head != before)
    }

    /// Takes the wish for space back.
    pub fn clear_want(&mut self) {
        self.own.words().space_wanted.0.store(0, Ordering::Relaxed);
    }

    /// The value of the peer's head event to sleep on, or `None` if the peer has freed space.
    pub(super) fn event_to_sleep_on(&self) -> Option<u32> {
        self.peer.words().consumed.event_beside(self.head)
    }

    /// Notes that the ring just asked for woke nobody, so that the next publish rings again.
    pub(super) fn rang_in_vain(&mut self) {
        self.last_rung = 0;
    }

    fn look_at_head(&mut self) -> Result<()> {
        // Acquire: pairs with the Release in `Consumer::drain`; what was there has been copied out.
        let head = load_acquire(&self.peer.words().consumed.position);
        // It moves forward only, and not beyond what was shown.
        let consumed = head.wrapping_sub(self.head);
        if consumed > self.published.wrapping_sub(self.head) || !head.is_multiple_of(ALIGN as u64) {
            return Err(impossible_cursor("shm.push", "head", head, self.head, self.published));
        }
        self.head = head;
        Ok(())
    }
}

/// The reading end of a ring. One per ring.
#[derive(Debug)]
pub struct Consumer<Own, Peer> {
    pub(super) own: Arc<Own>,
    pub(super) peer: Arc<Peer>,
    /// Where the next frame is read. The peer sees it as ours, and it is never read back.
    head: u64,
    /// The peer's tail when we last looked.
    tail: u64,
    ring_bytes: u64,
    frame_bytes_max: usize,
    last_answered: u32,
}

impl<Own: Region, Peer: PeerRegion> Consumer<Own, Peer> {
    /// The consumer of `peer`'s ring, whose cursors stand at `start`.
    pub(super) fn new(own: Arc<Own>, peer: Arc<Peer>, start: u64) -> Self {
        let ring_bytes = peer.ring_bytes();
        Self {
            own,
            peer,
            head: start,
            tail: start,
            ring_bytes: ring_bytes as u64,
            frame_bytes_max: frame_bytes_max(ring_bytes),
            last_answered: 0,
        }
    }

    /// How many bytes of frames are there. One load.
    ///
    /// # Errors
    /// - [`ErrorKind::Protocol`]: the peer's cursor is impossible. Close the session.
    #[inline]
    pub fn available(&mut self) -> Result<usize> {
        // Acquire: pairs with the Release in `Producer::publish`; the frames come with the cursor.
        let tail = load_acquire(&self.peer.words().produced.position);
        let ahead = tail.wrapping_sub(self.head);
        // It moves forward only, and not beyond the ring.
        if ahead > self.ring_bytes
            || ahead < self.tail.wrapping_sub(self.head)
            || !tail.is_multiple_of(ALIGN as u64)
        {
            return Err(impossible_cursor(
                "shm.drain",
                "tail",
                tail,
                self.tail,
                self.head.wrapping_add(self.ring_bytes),
            ));
        }
        self.tail = tail;
        Ok(ahead as usize)
    }

    /// Appends whole frames to `out`, about `bytes_max` of them but at least one if there is one, and frees
    /// their space. Iterate over what was appended with [`frames`]; then ask [`Self::space_ring`].
    ///
    /// Copies once and checks the private copy, so it does not matter what the peer writes meanwhile.
    /// Appends nothing on error.
    ///
    /// # Errors
    /// - [`ErrorKind::Protocol`]: a cursor or a length is impossible. Close the session.
    #[inline]
    pub fn drain(&mut self, out: &mut Vec<u8>, bytes_max: usize) -> Result<Drained> {
        if self.tail == self.head && self.available()? == 0 {
            return Ok(Drained::default());
        }
        let seen = self.tail.wrapping_sub(self.head) as usize;
        let run = seen.min(bytes_max.max(padded(self.frame_bytes_max)));
        let start = out.len();
        out.reserve(run);
        // SAFETY: `run <= seen <= ring_bytes`, and `out` has room for `run` bytes after its end.
        unsafe { self.peer.read(self.head, run, out.as_mut_ptr().add(start)) };
        // SAFETY: `read` has just filled these `run` bytes.
        unsafe { out.set_len(start + run) };
        let drained = whole_frames(&out[start..], self.frame_bytes_max);
        // An honest producer publishes whole frames, so only a run that was cut short may end inside one.
        let drained = match drained {
            Some(drained) if drained.bytes == run || (run < seen && drained.bytes > 0) => drained,
            _ => {
                out.truncate(start);
                return Err(impossible_frame(self.head, run));
            }
        };
        out.truncate(start + drained.bytes);
        self.head = self.head.wrapping_add(drained.bytes as u64);
        self.show_head();
        Ok(drained)
    }

    /// Copies the front of the next frame's body to `front` and returns the body's length, to be given to
    /// [`take`](Self::take); `None` when there is no frame, or when its body is shorter than `front`.
    ///
    /// # Errors
    /// - [`ErrorKind::Protocol`]: a cursor or the length is impossible. Close the session.
    pub fn peek(&mut self, front: &mut [u8]) -> Result<Option<usize>> {
        if self.tail == self.head && self.available()? == 0 {
            return Ok(None);
        }
        let seen = self.tail.wrapping_sub(self.head) as usize;
        let mut length = [0; LENGTH_BYTES];
        // SAFETY: frames lie at multiples of 8, so at least 8 bytes were seen; `length` has room for 4.
        unsafe { self.peer.read(self.head, LENGTH_BYTES, length.as_mut_ptr()) };
        let length = u32::from_le_bytes(length) as usize;
        if !(LENGTH_BYTES..=self.frame_bytes_max).contains(&length) || padded(length) > seen {
            return Err(impossible_frame(self.head, seen));
        }
        if length - LENGTH_BYTES < front.len() {
            return Ok(None);
        }
        let body = self.head.wrapping_add(LENGTH_BYTES as u64);
        // SAFETY: the frame was seen whole, and its body is at least as long as `front`.
        unsafe { self.peer.read(body, front.len(), front.as_mut_ptr()) };
        Ok(Some(length - LENGTH_BYTES))
    }

    /// Appends the body of the frame that [`peek`](Self::peek) found, from `skip` on, to `out`, and frees its
    /// space. `body_bytes` is what `peek` returned: the peer's length is not read again.
    ///
    /// # Panics
    /// When `body_bytes` or `skip` is more than `peek` returned.
    pub fn take(&mut self, body_bytes: usize, skip: usize, out: &mut Vec<u8>) {
        let frame = padded(body_bytes + LENGTH_BYTES);
        assert!(skip <= body_bytes && frame as u64 <= self.tail.wrapping_sub(self.head), "peek told of less");
        let (start, count) = (out.len(), body_bytes - skip);
        out.reserve(count);
        let from = self.head.wrapping_add((LENGTH_BYTES + skip) as u64);
        // SAFETY: these bytes lie in a frame that was seen whole, and `out` has room for `count` more.
        unsafe { self.peer.read(from, count, out.as_mut_ptr().add(start)) };
        // SAFETY: `read` has just filled these `count` bytes.
        unsafe { out.set_len(start + count) };
        self.head = self.head.wrapping_add(frame as u64);
        self.show_head();
    }

    fn show_head(&mut self) {
        let consumed = &self.own.words().consumed;
        // Release: pairs with the Acquire in `Producer::look_at_head`; the frames are copied out.
        consumed.position.store(self.head, ordering(Step::ConsumeHead, Ordering::Release));
        consumed.event.store(event_of(self.head), ordering(Step::StoreEvent, Ordering::Release));
    }

    /// Whether the peer waits for the space that drains have freed and has not been answered yet: then wake it.
    #[inline]
    pub fn space_ring(&mut self) -> bool {
        // Pairs with the fence in `Producer::want_space`.
        fence_seq_cst(Step::FreedFence);
        let wanted = self.peer.words().space_wanted.0.load(Ordering::Relaxed);
        if wanted == 0 || wanted == self.last_answered {
            return false;
        }
        self.last_answered = wanted;
        true
    }

    /// The value of the peer's tail event to sleep on, or `None` if there is something to drain.
    pub(super) fn event_to_sleep_on(&self) -> Option<u32> {
        self.peer.words().produced.event_beside(self.head)
    }

    /// Notes that the wake just asked for woke nobody, so that the next one is not held back.
    pub(super) fn answered_in_vain(&mut self) {
        self.last_answered = 0;
    }

    /// The size of the ring.
    #[inline]
    pub fn ring_bytes(&self) -> usize {
        self.ring_bytes as usize
    }
}

/// Says whether somebody here sleeps. One per word; whoever is about to sleep has it under a lock.
#[derive(Debug)]
pub struct WaitingWriter<W> {
    place: W,
    sequence: u32,
}

impl<W: Waiting> WaitingWriter<W> {
    pub(super) fn new(place: W) -> Self {
        Self { place, sequence: 0 }
    }

    /// Asks to be woken by the next publish. After it look at every ring once more, then sleep; arm anew
    /// before the next sleep.
    #[inline]
    pub fn arm(&mut self, mode: Mode) {
        self.sequence = self.sequence.wrapping_add(1) & SEQUENCE_MASK;
        self.place.waiting().store(self.sequence << MODE_BITS | mode as u32, Ordering::Relaxed);
        // Pairs with the fence in `Producer::publish`.
        fence_seq_cst(Step::ArmFence);
    }

    /// Says that nobody sleeps, so that publishing costs no system call.
    #[inline]
    pub fn disarm(&mut self) {
        self.place.waiting().store(self.sequence << MODE_BITS | AWAKE, Ordering::Relaxed);
    }
}

/// The bodies of the frames in `bytes`, which a drain appended to a private buffer.
pub fn frames(bytes: &[u8]) -> Frames<'_> {
    Frames { rest: bytes }
}

/// Iterator of [`frames`]. Ends early if the bytes are not whole frames.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Frames<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let length = u32::from_le_bytes(*self.rest.first_chunk()?) as usize;
        let body = self.rest.get(LENGTH_BYTES..length)?;
        self.rest = self.rest.get(padded(length)..).unwrap_or_default();
        Some(body)
    }
}

/// Counts the whole frames at the front of `bytes`. `None` if a length is impossible.
#[inline]
fn whole_frames(bytes: &[u8], frame_bytes_max: usize) -> Option<Drained> {
    let mut drained = Drained::default();
    while let Some(length) = bytes[drained.bytes..].first_chunk() {
        let length = u32::from_le_bytes(*length) as usize;
        if !(LENGTH_BYTES..=frame_bytes_max).contains(&length) {
            return None;
        }
        if padded(length) > bytes.len() - drained.bytes {
            break;
        }
        drained.bytes += padded(length);
        drained.frames += 1;
    }
    Some(drained)
}

/// The longest frame of a ring: room for four, and for a payload chunk of 64 KiB with its header.
pub(super) fn frame_bytes_max(ring_bytes: usize) -> usize {
    (ring_bytes / 4).min(CHUNK_BYTES + CHUNK_HEADER_BYTES)
}

/// Cursors and frames are multiples of this.
pub(super) const ALIGN: usize = 8;
const LENGTH_BYTES: usize = 4;
const CHUNK_BYTES: usize = 64 << 10;
const CHUNK_HEADER_BYTES: usize = 1 << 10;

const MODE_BITS: u32 = 2;
const MODE_MASK: u32 = (1 << MODE_BITS) - 1;
const SEQUENCE_MASK: u32 = u32::MAX >> MODE_BITS;
const AWAKE: u32 = 0;

const _: () = assert!(CHUNK_HEADER_BYTES.is_multiple_of(ALIGN) && LENGTH_BYTES <= ALIGN);

#[inline]
const fn padded(bytes: usize) -> usize {
    (bytes + ALIGN - 1) & !(ALIGN - 1)
}

/// What the event word beside a cursor holds when the cursor is at `position`.
#[inline]
pub(super) const fn event_of(position: u64) -> u32 {
    (position / ALIGN as u64) as u32
}

/// An acquire load that may be made from read-only memory: only relaxed loads are promised to be plain ones.
#[inline]
fn load_acquire(word: &AtomicU64) -> u64 {
    let value = word.load(Ordering::Relaxed);
    fence(Ordering::Acquire);
    value
}

#[cold]
fn too_large(frame_bytes: usize, limit: usize) -> Error {
    Error::new(ErrorKind::TooLarge, "shm.push").with("frame_bytes", frame_bytes).with("limit", limit)
}

#[cold]
fn impossible_cursor(operation: &'static str, word: &'static str, found: u64, low: u64, high: u64) -> Error {
    Error::new(ErrorKind::Protocol, operation).with(word, found).with("low", low).with("high", high)
}

#[cold]
fn impossible_frame(head: u64, run_bytes: usize) -> Error {
    Error::new(ErrorKind::Protocol, "shm.drain")
        .with("rule", "whole frames within the limit")
        .with("head", head)
        .with("run_bytes", run_bytes)
}
