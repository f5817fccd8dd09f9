//! Changes as entries of the ledger, and jobs as images of a checkpoint.
//!
//! All numbers are little-endian, times are nanoseconds on the mesh's time line. An entry that carries content (a
//! payload, a result) begins with it, so that it is found again without reading the rest:
//!
//!   offset size  content
//!        0    4  bytes of the payload
//!        4    4  bytes of the head: 0, or content type and headers
//!        8       head, payload
//!
//!   head:     u8 bytes of the content type, content type, then each header: u16 and u32 bytes, name, value
//!   enqueue:  content, u8 flags, u8 priority, id, u64 at, u64 seq, and by its flags u64 due, u64 wall,
//!             extra
//!             flags: 1 starts later, 2 at a time of day, 4 held by its unique key, 8 extra
//!   extra:    u16 mask, then what it names: 1 group, 2 unique key, 4 expires, 8 attempts, 16 backoff, 32 lease,
//!             64 deadline, 128 result ttl, 256 failures
//!
//! `FORMAT.md` beside this draws the others, and the images. Bytes after what is known belong to newer versions and
//! are passed over; a flag or kind that is not known is refused, as what it says would be lost.
#![forbid(unsafe_code)]

use super::{
    change::{Body, Cause, Change, Extra, FailureRef, Fate, New, Own, Start, Target},
    cron::Schedule,
    job::{JobId, WorkerId},
    options::{Backoff, EnqueueOptions, QueueConfig, Scope},
    state::{JobImage, LeaseImage, MoreImage, QueueImage, ScheduleImage},
};
use crate::{
    clock::{Moment, Timestamp},
    error::{Error, ErrorKind, Result},
    ledger::Place,
};
use serde::{Serialize, de::DeserializeOwned};
use std::{borrow::Cow, time::Duration};

/// The kinds of entries that are a queue's, from the first to the last.
pub const KINDS: std::ops::RangeInclusive<u8> = DECLARE..=CLOCK;

const DECLARE: u8 = 16;
const ENQUEUE: u8 = 17;
const CONTENT: u8 = 18;
const RESULT: u8 = 19;
const RESERVE: u8 = 20;
const EXTEND: u8 = 21;
const DONE: u8 = 22;
const DONE_WITH_RESULT: u8 = 23;
const RETURN: u8 = 24;
const ASK: u8 = 25;
const END: u8 = 26;
const RESCHEDULE: u8 = 27;
const REDRIVE: u8 = 28;
const FORGET: u8 = 29;
const MODE: u8 = 30;
const REDRIVING: u8 = 31;
const SCHEDULE: u8 = 32;
const UNSCHEDULE: u8 = 33;
const FIRED: u8 = 34;
/// What the clocks show, for all queues: not a change of one.
pub(super) const CLOCK: u8 = 35;

/// What an entry was encoded as.
#[derive(Clone, Copy, Debug)]
pub(super) struct Encoded {
    pub(super) kind: u8,
    /// Whether the job goes on referring to it.
    pub(super) kept: bool,
}

/// Appends the entry for `change` to `buffer`.
pub(super) fn encode(change: &Change<'_>, buffer: &mut Vec<u8>) -> Encoded {
    let mut out = Out(buffer);
    let kind = match change {
        Change::Declare { name, config, secret } => {
            out.text(name);
            out.u64(*secret);
            out.packed(&**config);
            DECLARE
        }
        Change::Enqueue(new) => {
            out.content(&new.body.head, new.body.payload);
            out.new_job(new);
            ENQUEUE
        }
        Change::Content { id, body } => {
            out.content(&body.head, body.payload);
            out.id(*id);
            CONTENT
        }
        Change::Result { id, result } => {
            out.content(&[], result);
            out.id(*id);
            RESULT
        }
        Change::Reserve { job, nonce, worker, at, until, deadline } => {
            out.id(job.id);
            for word in [*nonce, worker.0, at.0, until.0, deadline.0] {
                out.u64(word);
            }
            RESERVE
        }
        Change::Extend { job, until } => {
            out.id(job.id);
            out.u64(until.0);
            EXTEND
        }
        Change::Done { job, nonce, at, keep, result } => {
            if let Some(result) = result {
                out.content(&[], result);
            }
            out.id(job.id);
            for word in [*nonce, at.0, keep.0] {
                out.u64(word);
            }
            if result.is_some() { DONE_WITH_RESULT } else { DONE }
        }
        Change::Return { job, at, cause, to, counted, failure } => {
            out.id(job.id);
            let (fate, due) = match to {
                Fate::Ready => (0, 0),
                Fate::Scheduled(due) => (1, due.0),
                Fate::Retry(due) => (2, due.0),
                Fate::Dead(keep) => (3, keep.0),
                Fate::Cancelled(keep) => (4, keep.0),
            };
            out.bytes(&[*cause as u8, fate, u8::from(*counted)]);
            out.u64(at.0);
            out.u64(due);
            out.failures(failure.as_slice());
            RETURN
        }
        Change::Ask { job, by, failure } => {
            out.id(job.id);
            out.u64(by.0);
            out.failures(failure.as_slice());
            ASK
        }
        Change::End { job, at, keep, expired, failure } => {
            out.id(job.id);
            out.bytes(&[u8::from(*expired)]);
            out.u64(at.0);
            out.u64(keep.0);
            out.failures(failure.as_slice());
            END
        }
        Change::Reschedule { job, at, start } => {
            out.id(job.id);
            out.u64(at.0);
            out.bytes(&[start_flags(*start)]);
            out.start(*start);
            RESCHEDULE
        }
        Change::Redrive { job, at, paced } => {
            out.id(job.id);
            out.u64(at.0);
            out.bytes(&[u8::from(*paced)]);
            REDRIVE
        }
        Change::Forget { job, at, moved } => {
            out.id(job.id);
            out.u64(at.0);
            out.bytes(&[u8::from(*moved)]);
            FORGET
        }
        Change::Mode { paused, draining } => {
            out.bytes(&[u8::from(*paused), u8::from(*draining)]);
            MODE
        }
        Change::Redriving { count, interval } => {
            out.u64(*count);
            out.time(*interval);
            REDRIVING
        }
        Change::Schedule { schedule, next } => {
            out.u64(next.0);
            out.packed(&**schedule);
            SCHEDULE
        }
        Change::Unschedule { name } => {
            out.text(name);
            UNSCHEDULE
        }
        Change::Fired { name, tick, next, job } => {
            out.text(name);
            out.u64(tick.0);
            out.u64(next.0);
            out.bytes(&[u8::from(job.is_some())]);
            out.id(job.unwrap_or_default());
            FIRED
        }
    };
    Encoded { kind, kept: matches!(kind, ENQUEUE | CONTENT | RESULT | DONE_WITH_RESULT) }
}

/// The change that an entry stands for. Any bytes give one or an error.
///
/// # Errors
/// - [`ErrorKind::Corrupt`]: the bytes are not an entry of this kind.
/// - [`ErrorKind::Unsupported`]: a newer version wrote it.
pub fn decode(kind: u8, bytes: &[u8]) -> Result<Change<'_>> {
    let mut from = In { kind, rest: bytes };
    let change = match kind {
        DECLARE => {
            let (name, secret) = (Cow::Borrowed(from.text()?), from.u64()?);
            let config: QueueConfig = from.packed()?;
            config.validate().map_err(|error| from.corrupt("settings").because(error))?;
            Change::Declare { name, config: Box::new(config), secret }
        }
        ENQUEUE => Change::Enqueue(from.new_job()?),
        CONTENT => {
            let body = from.content()?;
            Change::Content { id: from.id()?, body }
        }
        RESULT => {
            let result = from.content()?.payload;
            Change::Result { id: from.id()?, result }
        }
        RESERVE => Change::Reserve {
            job: from.target()?,
            nonce: from.u64()?,
            worker: WorkerId(from.u64()?),
            at: from.moment()?,
            until: from.moment()?,
            deadline: from.moment()?,
        },
        EXTEND => Change::Extend { job: from.target()?, until: from.moment()? },
        DONE | DONE_WITH_RESULT => {
            let result = if kind == DONE { None } else { Some(from.content()?.payload) };
            let (job, nonce) = (from.target()?, from.u64()?);
            Change::Done { job, nonce, at: from.moment()?, keep: from.moment()?, result }
        }
        RETURN => {
            let (job, cause, fate, counted) = (from.target()?, from.u8()?, from.u8()?, from.flag()?);
            let cause =
                Cause::ALL.get(usize::from(cause)).copied().ok_or_else(|| from.newer("cause", cause))?;
            let (at, due) = (from.moment()?, from.moment()?);
            let to = match fate {
                0 => Fate::Ready,
                1 => Fate::Scheduled(due),
                2 => Fate::Retry(due),
                3 => Fate::Dead(due),
                4 => Fate::Cancelled(due),
                other => return Err(from.newer("fate", other)),
            };
            Change::Return { job, at, cause, to, counted, failure: from.failures()?.pop() }
        }
        ASK => {
            let (job, by) = (from.target()?, from.moment()?);
            // Before, nothing told why.
            let failure = if from.rest.is_empty() { None } else { from.failures()?.pop() };
            Change::Ask { job, by, failure }
        }
        END => {
            let (job, expired) = (from.target()?, from.flag()?);
            let (at, keep) = (from.moment()?, from.moment()?);
            Change::End { job, at, keep, expired, failure: from.failures()?.pop() }
        }
        RESCHEDULE => {
            let (job, at, flags) = (from.target()?, from.moment()?, from.u8()?);
            Change::Reschedule { job, at, start: from.start(flags)? }
        }
        REDRIVE => Change::Redrive { job: from.target()?, at: from.moment()?, paced: from.flag()? },
        FORGET => Change::Forget { job: from.target()?, at: from.moment()?, moved: from.flag()? },
        MODE => Change::Mode { paused: from.flag()?, draining: from.flag()? },
        REDRIVING => Change::Redriving { count: from.u64()?, interval: from.time()? },
        SCHEDULE => {
            let next = Timestamp(from.u64()?);
            Change::Schedule { schedule: Box::new(from.schedule()?), next }
        }
        UNSCHEDULE => Change::Unschedule { name: from.text()?.into() },
        FIRED => {
            let name = from.text()?.into();
            let (tick, next) = (Timestamp(from.u64()?), Timestamp(from.u64()?));
            let (has_job, id) = (from.flag()?, from.id()?);
            Change::Fired { name, tick, next, job: has_job.then_some(id) }
        }
        other => return Err(from.newer("kind of entry", other)),
    };
    Ok(change)
}

/// The content that an entry carries, of those that carry one.
///
/// # Errors
/// - [`ErrorKind::Corrupt`]: it carries none.
pub(super) fn content(bytes: &[u8]) -> Result<Body<'_>> {
    In { kind: CONTENT, rest: bytes }.content()
}

/// Content type and headers as they are stored; empty if there are none.
pub(super) fn encode_head(options: &EnqueueOptions) -> Vec<u8> {
    let mut bytes = Vec::new();
    if options.content_type.is_none() && options.headers.is_empty() {
        return bytes;
    }
    let mut out = Out(&mut bytes);
    // Lengths were checked by `EnqueueOptions::validate`.
    let content_type = options.content_type.as_deref().unwrap_or("");
    out.bytes(&[content_type.len() as u8]);
    out.bytes(content_type.as_bytes());
    for (name, value) in &options.headers {
        push_header(out.0, name, value);
    }
    bytes
}

/// Adds one header to an encoded head that is not empty.
pub(super) fn push_header(head: &mut Vec<u8>, name: &str, value: &str) {
    let mut out = Out(head);
    out.bytes(&(name.len() as u16).to_le_bytes());
    out.u32(value.len() as u32);
    out.bytes(name.as_bytes());
    out.bytes(value.as_bytes());
}

/// The content type, and each header, of an encoded head.
pub(super) fn decode_head(head: &[u8]) -> Result<(&str, Vec<(&str, &str)>)> {
    let mut from = In { kind: CONTENT, rest: head };
    if head.is_empty() {
        return Ok(("", Vec::new()));
    }
    let bytes = from.u8()?;
    let content_type = from.str(usize::from(bytes))?;
    let mut headers = Vec::new();
    while !from.rest.is_empty() {
        let (name, value) = (from.u16()?, from.u32()?);
        headers.push((from.str(usize::from(name))?, from.str(value as usize)?));
    }
    Ok((content_type, headers))
}

/// What the clocks show: the mesh's time line, and the wall clock.
pub(super) fn encode_clock(at: Moment, wall: Timestamp) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&at.0.to_le_bytes());
    bytes[8..].copy_from_slice(&wall.0.to_le_bytes());
    bytes
}

pub(super) fn decode_clock(bytes: &[u8]) -> Result<(Moment, Timestamp)> {
    let mut from = In { kind: CLOCK, rest: bytes };
    Ok((from.moment()?, Timestamp(from.u64()?)))
}

/// A part of a checkpoint: a kind, then what it holds.
pub(super) enum Image<'a> {
    /// What the clocks showed.
    Clock(Moment, Timestamp),
    /// A queue is there, with these settings.
    Declare(Cow<'a, str>, Box<QueueConfig>),
    /// The queue itself.
    Queue(Box<QueueImage<'a>>),
    /// Some of its jobs.
    Jobs(Vec<JobImage<'a>>),
}

const IMAGE_CLOCK: u8 = 1;
const IMAGE_DECLARE: u8 = 2;
const IMAGE_QUEUE: u8 = 3;
const IMAGE_JOBS: u8 = 4;

/// Whether an image of a checkpoint is one of a queue's.
pub fn is_image(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|kind| (IMAGE_CLOCK..=IMAGE_JOBS).contains(kind))
}

pub(super) fn encode_image_of_clock(at: Moment, wall: Timestamp, to: &mut Vec<u8>) {
    to.push(IMAGE_CLOCK);
    to.extend_from_slice(&encode_clock(at, wall));
}

pub(super) fn encode_image_of_settings(name: &str, config: &QueueConfig, to: &mut Vec<u8>) {
    to.push(IMAGE_DECLARE);
    let mut out = Out(to);
    out.text(name);
    out.packed(config);
}

pub(super) fn encode_image_of_queue(image: &QueueImage<'_>, to: &mut Vec<u8>) {
    to.push(IMAGE_QUEUE);
    let mut out = Out(to);
    let flags =
        u8::from(image.paused) | u8::from(image.draining) << 1 | u8::from(image.redriving.is_some()) << 2;
    out.bytes(&[flags]);
    for word in [image.seq, image.leases, image.secret, image.bucket] {
        out.u64(word);
    }
    if let Some((left, interval)) = image.redriving {
        out.u64(left);
        out.time(interval);
    }
    out.u32(image.buckets.len() as u32);
    for (name, full_at) in &image.buckets {
        out.text(name);
        out.u64(*full_at);
    }
    out.u32(image.windows.len() as u32);
    for (key, id, until) in &image.windows {
        out.text(key);
        out.id(*id);
        out.u64(*until);
    }
    out.u32(image.acked.len() as u32);
    for (index, last, bits) in &image.acked {
        out.u64(*index);
        out.u64(*last);
        bits.iter().for_each(|word| out.u64(*word));
    }
    out.u32(image.schedules.len() as u32);
    for image in &image.schedules {
        out.u64(image.next.0);
        out.u64(image.tick.0);
        out.bytes(&[u8::from(image.job.is_some())]);
        out.id(image.job.unwrap_or_default());
        out.packed(&*image.schedule);
    }
}

/// Begins an image of jobs; [`encode_image_of_job`] adds them.
pub(super) fn begin_image_of_jobs(to: &mut Vec<u8>) {
    to.push(IMAGE_JOBS);
}

pub(super) fn encode_image_of_job(image: &JobImage<'_>, to: &mut Vec<u8>) {
    let start = to.len();
    to.extend_from_slice(&[0; 4]);
    let mut out = Out(to);
    out.bytes(&[image.stage, image.priority]);
    out.bytes(&image.attempt.to_le_bytes());
    out.u32(image.payload_bytes);
    out.id(image.id);
    for word in [image.place.to_bits(), image.at.0, image.due, image.seq] {
        out.u64(word);
    }
    if let Some(more) = image.more.as_deref() {
        out.more(more);
    }
    let bytes = (to.len() - start - 4) as u32;
    to[start..start + 4].copy_from_slice(&bytes.to_le_bytes());
}

/// What a part of a checkpoint holds. Any bytes give it or an error.
///
/// # Errors
/// - [`ErrorKind::Corrupt`]: the bytes are not an image.
/// - [`ErrorKind::Unsupported`]: a newer version wrote it.
pub(super) fn decode_image(bytes: &[u8]) -> Result<Image<'_>> {
    let mut from = In { kind: 0, rest: bytes };
    match from.u8()? {
        IMAGE_CLOCK => Ok(Image::Clock(from.moment()?, Timestamp(from.u64()?))),
        IMAGE_DECLARE => {
            let name = from.text()?.into();
            let config: QueueConfig = from.packed()?;
            config.validate().map_err(|error| from.corrupt("settings").because(error))?;
            Ok(Image::Declare(name, Box::new(config)))
        }
        IMAGE_QUEUE => Ok(Image::Queue(Box::new(from.queue()?))),
        IMAGE_JOBS => {
            let mut jobs = Vec::new();
            while !from.rest.is_empty() {
                let bytes = from.u32()? as usize;
                let mut job = In { kind: 0, rest: from.take(bytes)? };
                jobs.push(job.job()?);
            }
            Ok(Image::Jobs(jobs))
        }
        other => Err(from.newer("kind of image", other)),
    }
}

/// Decodes, encodes, and decodes again whatever `bytes` are: for fuzzers and property tests. Neither panics; what
/// decodes comes out again as it went in.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    if let Ok(change) = decode(*kind, rest) {
        let mut whole = Vec::new();
        let encoded = encode(&change, &mut whole);
        let again = decode(encoded.kind, &whole).expect("what was encoded decodes");
        assert_eq!(again, change);
        if encoded.kept {
            let content = content(&whole).expect("what is kept carries content");
            let _ = decode_head(&content.head);
        }
    }
    if let Ok(image) = decode_image(bytes) {
        let mut buffer = Vec::new();
        match &image {
            Image::Clock(at, wall) => encode_image_of_clock(*at, *wall, &mut buffer),
            Image::Declare(name, config) => encode_image_of_settings(name, config, &mut buffer),
            Image::Queue(queue) => encode_image_of_queue(queue, &mut buffer),
            Image::Jobs(jobs) => {
                begin_image_of_jobs(&mut buffer);
                jobs.iter().for_each(|job| encode_image_of_job(job, &mut buffer));
            }
        }
        match (image, decode_image(&buffer).expect("what was encoded decodes")) {
            (Image::Jobs(one), Image::Jobs(two)) => assert_eq!(one, two),
            (Image::Queue(one), Image::Queue(two)) => assert_eq!(one, two),
            (one, two) => assert_eq!(std::mem::discriminant(&one), std::mem::discriminant(&two)),
        }
    }
}

/// Writes fields behind each other.
struct Out<'a>(&'a mut Vec<u8>);

impl Out<'_> {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    fn id(&mut self, id: JobId) {
        self.bytes(&id.0.to_le_bytes());
    }

    fn content(&mut self, head: &[u8], payload: &[u8]) {
        // An entry is rarely much more than its content.
        self.0.reserve(payload.len() + head.len() + 128);
        self.u32(payload.len() as u32);
        self.u32(head.len() as u32);
        self.bytes(head);
        self.bytes(payload);
    }

    fn time(&mut self, time: Duration) {
        self.u64(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    fn text(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.bytes(text.as_bytes());
    }

    /// As a MessagePack map, so that fields may be added.
    fn packed(&mut self, value: &impl Serialize) {
        let packed = rmp_serde::to_vec_named(value).expect("plain data serializes");
        self.u32(packed.len() as u32);
        self.bytes(&packed);
    }

    fn start(&mut self, start: Start) {
        match start {
            Start::Now => {}
            Start::After(due) => self.u64(due.0),
            Start::At(wall, due) => {
                self.u64(due.0);
                self.u64(wall.0);
            }
        }
    }

    fn new_job(&mut self, new: &New<'_>) {
        let flags = start_flags(new.start)
            | if new.held { HELD } else { 0 }
            | if new.extra.is_some() { EXTRA } else { 0 };
        self.bytes(&[flags, new.priority]);
        self.id(new.id);
        self.u64(new.at.0);
        self.u64(new.seq);
        self.start(new.start);
        if let Some(extra) = new.extra.as_deref() {
            let mut mask = own_mask(&extra.own);
            mask |= mask_if(GROUP, extra.group.is_some()) | mask_if(UNIQUE, extra.unique.is_some());
            mask |= mask_if(EXPIRES, extra.expires.is_some()) | mask_if(FAILURES, !extra.failures.is_empty());
            self.bytes(&mask.to_le_bytes());
            if let Some(group) = &extra.group {
                self.text(group);
            }
            if let Some((key, scope)) = &extra.unique {
                self.text(key);
                self.scope(*scope);
            }
            if let Some(expires) = extra.expires {
                self.u64(expires.0);
            }
            self.own(&extra.own);
            if !extra.failures.is_empty() {
                self.failures(&extra.failures);
            }
        }
    }

    fn scope(&mut self, scope: Scope) {
        let (kind, window) = match scope {
            Scope::Waiting => (0, Duration::ZERO),
            Scope::Active => (1, Duration::ZERO),
            Scope::Window(window) => (2, window),
        };
        self.bytes(&[kind]);
        self.time(window);
    }

    fn own(&mut self, own: &Own) {
        if let Some(attempts) = own.max_attempts {
            self.bytes(&attempts.to_le_bytes());
        }
        if let Some(backoff) = &own.backoff {
            self.packed(backoff);
        }
        for time in [own.lease, own.deadline, own.result_ttl].into_iter().flatten() {
            self.time(time);
        }
    }

    fn failures(&mut self, failures: &[FailureRef<'_>]) {
        self.bytes(&[failures.len() as u8]);
        for failure in failures {
            self.bytes(&failure.attempt.to_le_bytes());
            self.u64(failure.at.0);
            self.text(failure.message);
            self.text(failure.detail);
        }
    }

    fn more(&mut self, more: &MoreImage<'_>) {
        let mut mask = own_mask(&more.own);
        mask |= mask_if(GROUP, more.group.is_some()) | mask_if(UNIQUE, more.unique.is_some());
        mask |= mask_if(EXPIRES, more.expires.is_some()) | mask_if(FAILURES, !more.failures.is_empty());
        mask |= mask_if(REDRIVES, more.redrives > 0) | mask_if(RESULT_PLACE, more.result.is_some());
        mask |= mask_if(LEASE, more.lease.is_some());
        self.bytes(&mask.to_le_bytes());
        if let Some(group) = &more.group {
            self.text(group);
        }
        if let Some((key, scope, role)) = &more.unique {
            self.text(key);
            self.scope(*scope);
            self.bytes(&[*role]);
        }
        if let Some(expires) = more.expires {
            self.u64(expires.0);
        }
        self.own(&more.own);
        if !more.failures.is_empty() {
            self.failures(&more.failures);
        }
        if more.redrives > 0 {
            self.u32(more.redrives);
        }
        if let Some(result) = more.result {
            self.u64(result.to_bits());
        }
        if let Some(lease) = more.lease {
            for word in [lease.nonce, lease.worker.0, lease.deadline.0, lease.asked.0] {
                self.u64(word);
            }
        }
    }
}

/// Reads fields one after the other; never beyond the end.
struct In<'a> {
    kind: u8,
    rest: &'a [u8],
}

impl<'a> In<'a> {
    #[cold]
    fn corrupt(&self, what: &str) -> Error {
        Error::new(ErrorKind::Corrupt, "queue.decode").with("what", what).with("kind", self.kind)
    }

    #[cold]
    fn newer(&self, what: &str, found: impl std::fmt::Display) -> Error {
        Error::new(ErrorKind::Unsupported, "queue.decode")
            .with("what", format_args!("a {what} that this version does not know"))
            .with("found", found)
            .with("kind", self.kind)
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8]> {
        let (front, rest) =
            self.rest.split_at_checked(bytes).ok_or_else(|| self.corrupt("a field cut short"))?;
        self.rest = rest;
        Ok(front)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.take(N)?;
        bytes.try_into().map_err(|_| self.corrupt("a field cut short"))
    }

    fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    fn flag(&mut self) -> Result<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.newer("flag", other)),
        }
    }

    fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn id(&mut self) -> Result<JobId> {
        Ok(JobId(u128::from_le_bytes(self.array()?)))
    }

    fn target(&mut self) -> Result<Target> {
        self.id().map(Target::of)
    }

    fn moment(&mut self) -> Result<Moment> {
        self.u64().map(Moment)
    }

    fn time(&mut self) -> Result<Duration> {
        self.u64().map(Duration::from_nanos)
    }

    fn str(&mut self, bytes: usize) -> Result<&'a str> {
        let bytes = self.take(bytes)?;
        std::str::from_utf8(bytes).map_err(|_| self.corrupt("text that is not UTF-8"))
    }

    fn text(&mut self) -> Result<&'a str> {
        let bytes = self.u32()?;
        self.str(bytes as usize)
    }

    fn packed<T: DeserializeOwned>(&mut self) -> Result<T> {
        let bytes = self.u32()?;
        let packed = self.take(bytes as usize)?;
        rmp_serde::from_slice(packed)
            .map_err(|error| self.corrupt("a map that is not as it should be").because(error))
    }

    fn schedule(&mut self) -> Result<Schedule> {
        let schedule: Schedule = self.packed()?;
        schedule.validate().map_err(|error| self.corrupt("a schedule").because(error))?;
        Ok(schedule)
    }

    fn content(&mut self) -> Result<Body<'a>> {
        let (payload, head) = (self.u32()?, self.u32()?);
        let head = Cow::Borrowed(self.take(head as usize)?);
        Ok(Body { head, payload: self.take(payload as usize)? })
    }

    fn start(&mut self, flags: u8) -> Result<Start> {
        match flags & (AFTER | DATED) {
            0 => Ok(Start::Now),
            AFTER => self.moment().map(Start::After),
            DATED => {
                let due = self.moment()?;
                Ok(Start::At(Timestamp(self.u64()?), due))
            }
            _ => Err(self.corrupt("a start both later and at a time")),
        }
    }

    fn new_job(&mut self) -> Result<New<'a>> {
        let body = self.content()?;
        let (flags, priority) = (self.u8()?, self.u8()?);
        if flags & !(AFTER | DATED | HELD | EXTRA) != 0 {
            return Err(self.newer("flag", flags));
        }
        let (id, at, seq) = (self.id()?, self.moment()?, self.u64()?);
        if seq >= SEQ_MAX {
            return Err(self.corrupt("a number that no queue reaches"));
        }
        let start = self.start(flags)?;
        let extra = if flags & EXTRA == 0 { None } else { Some(Box::new(self.extra()?)) };
        Ok(New { id, at, seq, priority, start, held: flags & HELD != 0, extra, body })
    }

    fn extra(&mut self) -> Result<Extra<'a>> {
        let mask = self.u16()?;
        if mask & !EXTRA_MASK != 0 {
            return Err(self.newer("field", mask));
        }
        let mut extra = Extra::default();
        if mask & GROUP != 0 {
            extra.group = Some(self.text()?.into());
        }
        if mask & UNIQUE != 0 {
            extra.unique = Some((self.text()?.into(), self.scope()?));
        }
        if mask & EXPIRES != 0 {
            extra.expires = Some(self.moment()?);
        }
        extra.own = self.own(mask)?;
        if mask & FAILURES != 0 {
            extra.failures = self.failures()?;
        }
        Ok(extra)
    }

    fn scope(&mut self) -> Result<Scope> {
        let (kind, window) = (self.u8()?, self.time()?);
        match kind {
            0 => Ok(Scope::Waiting),
            1 => Ok(Scope::Active),
            2 => Ok(Scope::Window(window)),
            other => Err(self.newer("scope", other)),
        }
    }

    fn own(&mut self, mask: u16) -> Result<Own> {
        let mut own = Own::default();
        if mask & ATTEMPTS != 0 {
            own.max_attempts = Some(self.u16()?);
        }
        if mask & BACKOFF != 0 {
            let backoff: Backoff = self.packed()?;
            let options = EnqueueOptions { backoff: Some(backoff), ..EnqueueOptions::default() };
            options.validate().map_err(|error| self.corrupt("a backoff").because(error))?;
            own.backoff = options.backoff;
        }
        for (bit, time) in
            [(LEASE_TIME, &mut own.lease), (DEADLINE, &mut own.deadline), (RESULT_TTL, &mut own.result_ttl)]
        {
            if mask & bit != 0 {
                *time = Some(self.time()?);
            }
        }
        Ok(own)
    }

    fn failures(&mut self) -> Result<Vec<FailureRef<'a>>> {
        let count = self.u8()?;
        (0..count)
            .map(|_| {
                Ok(FailureRef {
                    attempt: self.u16()?,
                    at: Timestamp(self.u64()?),
                    message: self.text()?,
                    detail: self.text()?,
                })
            })
            .collect()
    }

    fn job(&mut self) -> Result<JobImage<'a>> {
        let (stage, priority, attempt, payload_bytes) = (self.u8()?, self.u8()?, self.u16()?, self.u32()?);
        if !(1..=10).contains(&stage) {
            return Err(self.newer("stage", stage));
        }
        let id = self.id()?;
        let place = Place::from_bits(self.u64()?);
        let (at, due, seq) = (self.moment()?, self.u64()?, self.u64()?);
        let more = if self.rest.is_empty() { None } else { Some(Box::new(self.more()?)) };
        Ok(JobImage { id, place, at, due, seq, payload_bytes, attempt, priority, stage, more })
    }

    fn more(&mut self) -> Result<MoreImage<'a>> {
        let mask = self.u16()?;
        if mask & !MORE_MASK != 0 {
            return Err(self.newer("field", mask));
        }
        let mut more = MoreImage::default();
        if mask & GROUP != 0 {
            more.group = Some(self.text()?.into());
        }
        if mask & UNIQUE != 0 {
            more.unique = Some((self.text()?.into(), self.scope()?, self.u8()?));
        }
        if mask & EXPIRES != 0 {
            more.expires = Some(self.moment()?);
        }
        more.own = self.own(mask)?;
        if mask & FAILURES != 0 {
            more.failures = self.failures()?;
        }
        if mask & REDRIVES != 0 {
            more.redrives = self.u32()?;
        }
        if mask & RESULT_PLACE != 0 {
            more.result = Some(Place::from_bits(self.u64()?));
        }
        if mask & LEASE != 0 {
            let (nonce, worker) = (self.u64()?, WorkerId(self.u64()?));
            more.lease = Some(LeaseImage { nonce, worker, deadline: self.moment()?, asked: self.moment()? });
        }
        Ok(more)
    }

    fn queue(&mut self) -> Result<QueueImage<'a>> {
        let flags = self.u8()?;
        if flags & !7 != 0 {
            return Err(self.newer("flag", flags));
        }
        let (seq, leases, secret, bucket) = (self.u64()?, self.u64()?, self.u64()?, self.u64()?);
        let redriving = if flags & 4 == 0 { None } else { Some((self.u64()?, self.time()?)) };
        let mut image = QueueImage {
            seq: seq.min(SEQ_MAX),
            leases,
            secret,
            paused: flags & 1 != 0,
            draining: flags & 2 != 0,
            redriving,
            bucket,
            ..QueueImage::default()
        };
        // Each is read before room is made for the next: a count cannot ask for more than there is.
        for _ in 0..self.u32()? {
            image.buckets.push((self.text()?.into(), self.u64()?));
        }
        for _ in 0..self.u32()? {
            image.windows.push((self.text()?.into(), self.id()?, self.u64()?));
        }
        for _ in 0..self.u32()? {
            let (index, last) = (self.u64()?, self.u64()?);
            let mut bits = [0; 64];
            for word in &mut bits {
                *word = self.u64()?;
            }
            image.acked.push((index, last, Cow::Owned(bits)));
        }
        for _ in 0..self.u32()? {
            let (next, tick) = (Timestamp(self.u64()?), Timestamp(self.u64()?));
            let (has_job, id) = (self.flag()?, self.id()?);
            let schedule = Cow::Owned(self.schedule()?);
            image.schedules.push(ScheduleImage { schedule, next, tick, job: has_job.then_some(id) });
        }
        Ok(image)
    }
}

fn start_flags(start: Start) -> u8 {
    match start {
        Start::Now => 0,
        Start::After(_) => AFTER,
        Start::At(..) => DATED,
    }
}

fn mask_if(bit: u16, set: bool) -> u16 {
    if set { bit } else { 0 }
}

fn own_mask(own: &Own) -> u16 {
    mask_if(ATTEMPTS, own.max_attempts.is_some())
        | mask_if(BACKOFF, own.backoff.is_some())
        | mask_if(LEASE_TIME, own.lease.is_some())
        | mask_if(DEADLINE, own.deadline.is_some())
        | mask_if(RESULT_TTL, own.result_ttl.is_some())
}

const AFTER: u8 = 1;
const DATED: u8 = 2;
const HELD: u8 = 4;
const EXTRA: u8 = 8;

const GROUP: u16 = 1;
const UNIQUE: u16 = 2;
const EXPIRES: u16 = 4;
const ATTEMPTS: u16 = 8;
const BACKOFF: u16 = 16;
const LEASE_TIME: u16 = 32;
const DEADLINE: u16 = 64;
const RESULT_TTL: u16 = 128;
const FAILURES: u16 = 256;
const REDRIVES: u16 = 512;
const RESULT_PLACE: u16 = 1024;
const LEASE: u16 = 2048;
const EXTRA_MASK: u16 = 0x1ff;
const MORE_MASK: u16 = 0xfff;
/// A million jobs a second reach it in nine years.
const SEQ_MAX: u64 = 1 << 48;

#[cfg(test)]
mod tests;
