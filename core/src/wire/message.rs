//! Messages: events, requests, responses and failures share one layout.
//!
//!   offset size  field            (little-endian; offsets within the frame's body)
//!        0    1  kind
//!        1    1  flags            none yet
//!        2    1  priority         0 to 9, 4 unless set
//!        3    1  reserved
//!        4    8  id               message id; in requests and answers the call's number
//!       12    8  timestamp        ns since 1970 UTC, when it was published
//!       20    4  ttl_ms           0: never expires
//!       24    4  delay_ms         0: at once
//!       28    2  target count
//!       30    2  subject bytes
//!       32    4  header bytes
//!       36    4  payload bytes
//!       40    4  aux              request: time left in ms; failure: the kind's number
//!       44       targets (u32 id, u32 gap), subject, headers (u16 name bytes, u16 value bytes,
//!                name, value), payload
#![forbid(unsafe_code)]

use super::{HEADER_BLOCK_BYTES_MAX, HEADER_COUNT_MAX, Kind, Reader, TARGETS_MAX, Target, protocol};
use crate::{
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
};
use std::{fmt, sync::Arc, time::Duration};

/// Bytes before the targets.
pub const HEADER_BYTES: usize = 44;
const TARGET_BYTES: usize = 8;
/// The priority of a message that names none.
pub const PRIORITY_DEFAULT: u8 = 4;

/// The fixed part of a message, decoded and checked against the length of its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageHeader {
    /// Event, request, response or failure.
    pub kind: Kind,
    /// 0 to 9; higher is delivered first.
    pub priority: u8,
    /// Message id, or the call's number.
    pub id: u64,
    /// When it was published.
    pub timestamp: Timestamp,
    /// Milliseconds after which it is not delivered any more; 0 for never.
    pub ttl_ms: u32,
    /// Milliseconds before it is delivered.
    pub delay_ms: u32,
    /// How many targets follow.
    pub target_count: u16,
    /// Length of the subject.
    pub subject_bytes: u16,
    /// Length of the headers.
    pub header_bytes: u32,
    /// Length of the payload.
    pub payload_bytes: u32,
    /// Request: time left in ms; failure: the kind's number.
    pub aux: u32,
}

impl MessageHeader {
    /// The bytes as they lie in a frame.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[0] = self.kind as u8;
        out[2] = self.priority;
        out[4..12].copy_from_slice(&self.id.to_le_bytes());
        out[12..20].copy_from_slice(&self.timestamp.0.to_le_bytes());
        out[20..24].copy_from_slice(&self.ttl_ms.to_le_bytes());
        out[24..28].copy_from_slice(&self.delay_ms.to_le_bytes());
        out[28..30].copy_from_slice(&self.target_count.to_le_bytes());
        out[30..32].copy_from_slice(&self.subject_bytes.to_le_bytes());
        out[32..36].copy_from_slice(&self.header_bytes.to_le_bytes());
        out[36..40].copy_from_slice(&self.payload_bytes.to_le_bytes());
        out[40..44].copy_from_slice(&self.aux.to_le_bytes());
        out
    }

    /// Reads the fixed part alone.
    fn read(fixed: &[u8; HEADER_BYTES]) -> Result<Self> {
        let u16_at = |at: usize| u16::from_le_bytes([fixed[at], fixed[at + 1]]);
        let u64_at = |at: usize| u64::from(u32_of(fixed, at)) | u64::from(u32_of(fixed, at + 4)) << 32;
        Ok(Self {
            kind: Kind::of(fixed)?,
            priority: fixed[2],
            id: u64_at(4),
            timestamp: Timestamp(u64_at(12)),
            ttl_ms: u32_of(fixed, 20),
            delay_ms: u32_of(fixed, 24),
            target_count: u16_at(28),
            subject_bytes: u16_at(30),
            header_bytes: u32_of(fixed, 32),
            payload_bytes: u32_of(fixed, 36),
            aux: u32_of(fixed, 40),
        })
    }

    /// Reads the front of a body and checks that its parts fill the body exactly.
    pub fn decode(body: &[u8]) -> Result<Self> {
        let header = Self::decode_any(body)?;
        if !matches!(header.kind, Kind::Event | Kind::Request | Kind::Response | Kind::Failure) {
            return Err(protocol("message: not a kind of message"));
        }
        Ok(header)
    }

    /// Like [`decode`](Self::decode), of whatever kind the frame is.
    pub(super) fn decode_any(body: &[u8]) -> Result<Self> {
        let header =
            Self::read(body.first_chunk().ok_or_else(|| protocol("message: shorter than its header"))?)?;
        if header.priority > 9 {
            return Err(protocol("message: priority over 9"));
        }
        if usize::from(header.target_count) > TARGETS_MAX {
            return Err(protocol("message: too many targets"));
        }
        if header.header_bytes as usize > HEADER_BLOCK_BYTES_MAX {
            return Err(protocol("message: headers over the limit"));
        }
        if header.body_bytes() != body.len() {
            return Err(protocol("message: parts do not fill the frame"));
        }
        Ok(header)
    }

    /// The whole body's length.
    pub fn body_bytes(&self) -> usize {
        self.subject_at()
            + usize::from(self.subject_bytes)
            + self.header_bytes as usize
            + self.payload_bytes as usize
    }

    fn subject_at(&self) -> usize {
        HEADER_BYTES + usize::from(self.target_count) * TARGET_BYTES
    }

    /// Where the payload begins.
    pub(super) fn payload_at(&self) -> usize {
        self.subject_at() + usize::from(self.subject_bytes) + self.header_bytes as usize
    }
}

/// A received message: its header, and a share of the private block its bytes lie in.
///
/// Cheap to clone. The block of a message that came in a burst holds its neighbours too (at most
/// 64 KiB), so copy the payload out of a message that is kept for long.
#[derive(Clone)]
pub struct Message {
    block: Arc<Vec<u8>>,
    /// Where its fixed part lies; those of a batch share one.
    start: u32,
    /// Counted from `start`.
    payload_at: u32,
    payload_bytes: u32,
    target_count: u16,
    subject_bytes: u16,
    header_bytes: u16,
    /// Its place in its batch.
    index: u16,
    priority: u8,
    expires: bool,
}

// It is moved several times on its way to a handler.
const _: () = assert!(size_of::<Message>() <= 32);
const _: () = assert!(HEADER_BLOCK_BYTES_MAX <= u16::MAX as usize);

impl Message {
    /// The message whose body is `block[start..end]`, checked.
    pub fn decode(block: &Arc<Vec<u8>>, start: usize, end: usize) -> Result<Self> {
        let body = block.get(start..end).ok_or_else(|| protocol("message: outside its block"))?;
        let header = MessageHeader::decode(body)?;
        Self::checked(block, start, &header)
    }

    /// The message with this header, once its subject and headers are found to be text.
    pub(super) fn checked(block: &Arc<Vec<u8>>, start: usize, header: &MessageHeader) -> Result<Self> {
        let start = u32::try_from(start).map_err(|_| protocol("message: block too large"))?;
        let message = Self::of(Arc::clone(block), start, header);
        if !is_text(message.subject_bytes()) {
            return Err(protocol("message: subject is not UTF-8"));
        }
        if header.header_bytes > 0 {
            check_headers(message.header_block())?;
        }
        Ok(message)
    }

    /// The event at `index` of the batch that `self` stands for, its payload at `payload_at` of the body.
    pub(super) fn member(&self, index: u16, payload_at: u32, payload_bytes: u32) -> Self {
        Self { index, payload_at, payload_bytes, ..self.clone() }
    }

    /// The frame's bytes from the subject on, of which a batch's events are the payload.
    pub(super) fn frame_tail(&self) -> &[u8] {
        self.bytes(self.subject_at(), self.weight() - self.subject_at())
    }

    /// A message at `start` of `block` whose header was checked.
    fn of(block: Arc<Vec<u8>>, start: u32, header: &MessageHeader) -> Self {
        Self {
            block,
            start,
            payload_at: header.payload_at() as u32,
            payload_bytes: header.payload_bytes,
            target_count: header.target_count,
            subject_bytes: header.subject_bytes,
            header_bytes: header.header_bytes as u16,
            index: 0,
            priority: header.priority,
            expires: header.ttl_ms > 0,
        }
    }

    fn bytes(&self, at: usize, count: usize) -> &[u8] {
        let from = self.start as usize + at;
        self.block.get(from..from + count).unwrap_or_default()
    }

    fn fixed(&self) -> &[u8; HEADER_BYTES] {
        self.bytes(0, HEADER_BYTES)
            .first_chunk()
            .expect("decode checked that the fixed part lies in the block")
    }

    fn u64_at(&self, at: usize) -> u64 {
        let fixed = self.fixed();
        u64::from(u32_of(fixed, at)) | u64::from(u32_of(fixed, at + 4)) << 32
    }

    /// The fixed part of its frame, which may be a batch's.
    pub(super) fn frame_header(&self) -> MessageHeader {
        MessageHeader::read(self.fixed()).expect("decode checked the kind")
    }

    /// The fixed part, as the frame carried it or, of one in a batch, would have.
    pub fn header(&self) -> MessageHeader {
        let header = self.frame_header();
        if header.kind != Kind::Events {
            return header;
        }
        MessageHeader {
            kind: Kind::Event,
            id: self.id(),
            payload_bytes: self.payload_bytes,
            aux: 0,
            ..header
        }
    }

    fn subject_at(&self) -> usize {
        HEADER_BYTES + usize::from(self.target_count) * TARGET_BYTES
    }

    fn headers_at(&self) -> usize {
        self.subject_at() + usize::from(self.subject_bytes)
    }

    fn subject_bytes(&self) -> &[u8] {
        self.bytes(self.subject_at(), self.subject_bytes.into())
    }

    /// Where it was published; of a request, the service's name.
    pub fn subject(&self) -> &str {
        std::str::from_utf8(self.subject_bytes()).unwrap_or_default()
    }

    /// The payload's bytes.
    pub fn payload(&self) -> &[u8] {
        self.bytes(self.payload_at as usize, self.payload_bytes as usize)
    }

    /// How long the payload is.
    pub fn payload_len(&self) -> usize {
        self.payload_bytes as usize
    }

    fn header_block(&self) -> &[u8] {
        self.bytes(self.headers_at(), self.header_bytes.into())
    }

    /// All headers, in the order they were given.
    pub fn headers(&self) -> Headers<'_> {
        Headers(self.header_block())
    }

    /// The first header of this name.
    pub fn header_value(&self, name: &str) -> Option<&str> {
        self.headers().find(|(found, _)| *found == name).map(|(_, value)| value)
    }

    /// How the payload is encoded, as the `content-type` header says.
    pub fn content_type(&self) -> Option<&str> {
        self.header_value("content-type")
    }

    /// The id its publisher gave it, unique on this mesh; in requests, the call's number.
    pub fn id(&self) -> u64 {
        self.u64_at(4).wrapping_add(u64::from(self.index))
    }

    /// When it was published. Requests and answers carry it to within a few milliseconds.
    pub fn timestamp(&self) -> Timestamp {
        Timestamp(self.u64_at(12))
    }

    /// 0 to 9; higher is delivered first.
    pub fn priority(&self) -> u8 {
        self.priority
    }

    /// How long after publishing it is still delivered; `None` for ever.
    pub fn ttl(&self) -> Option<Duration> {
        self.expires.then(|| Duration::from_millis(self.ttl_ms().into()))
    }

    fn ttl_ms(&self) -> u32 {
        u32_of(self.fixed(), 20)
    }

    /// Milliseconds it is to be held back before it is delivered.
    pub fn delay_ms(&self) -> u32 {
        u32_of(self.fixed(), 24)
    }

    /// Request: the time left in ms; failure: the kind's number.
    pub fn aux(&self) -> u32 {
        if self.fixed()[0] == Kind::Events as u8 { 0 } else { u32_of(self.fixed(), 40) }
    }

    /// Whether its time to live has passed.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires && now.0.saturating_sub(self.timestamp().0) >= u64::from(self.ttl_ms()) * 1_000_000
    }

    /// The targets the frame named.
    pub fn targets(&self) -> impl Iterator<Item = Target> + '_ {
        self.bytes(HEADER_BYTES, usize::from(self.target_count) * TARGET_BYTES)
            .chunks_exact(TARGET_BYTES)
            .map(|b| Target {
                id: u32::from_le_bytes([b[0], b[1], b[2], b[3]]),
                gap: u32::from_le_bytes([b[4], b[5], b[6], b[7]]),
            })
    }

    /// The only target, if there is just one.
    pub fn only_target(&self) -> Option<Target> {
        if self.target_count == 1 { self.targets().next() } else { None }
    }

    /// Subject with headers, and payload: what stays the same when it is forwarded.
    pub fn tail(&self) -> [&[u8]; 2] {
        let at = self.subject_at();
        let head_bytes = usize::from(self.subject_bytes) + usize::from(self.header_bytes);
        [self.bytes(at, head_bytes), self.payload()]
    }

    /// The length of both parts of [`tail`](Self::tail).
    pub fn tail_bytes(&self) -> usize {
        self.weight() - self.subject_at()
    }

    /// Bytes of memory it stands for, when queues are bounded by size.
    pub fn weight(&self) -> usize {
        self.headers_at() + usize::from(self.header_bytes) + self.payload_bytes as usize
    }

    /// The same message with another fixed part (its lengths are kept) and no targets, for forwarding.
    pub fn forward_header(&self, kind: Kind, id: u64, aux: u32, targets: u16) -> MessageHeader {
        MessageHeader { kind, id, aux, target_count: targets, delay_ms: 0, ..self.header() }
    }

    /// The error that a failure message carries.
    pub fn to_error(&self) -> Error {
        let kind = ErrorKind::from_number(i32::try_from(self.aux()).unwrap_or(0));
        let mut error = Error::new(kind, self.subject().to_owned());
        for (name, value) in self.headers() {
            error = error.with(name.to_owned(), value);
        }
        error
    }
}

fn u32_of(fixed: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]])
}

/// Whether bytes are UTF-8; short plain text, by far the commonest, is told by one pass.
fn is_text(bytes: &[u8]) -> bool {
    bytes.is_ascii() || std::str::from_utf8(bytes).is_ok()
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("subject", &self.subject())
            .field("id", &self.id())
            .field("payload_bytes", &self.payload_bytes)
            .finish_non_exhaustive()
    }
}

/// The headers of a message, as pairs of name and value.
#[derive(Clone, Debug)]
pub struct Headers<'a>(&'a [u8]);

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let mut reader = Reader(self.0);
        let pair = next_header(&mut reader).ok()?;
        self.0 = reader.0;
        Some(pair)
    }
}

fn next_header<'a>(reader: &mut Reader<'a>) -> Result<(&'a str, &'a str)> {
    let name_bytes = reader.u16("message: header cut short")?;
    let value_bytes = reader.u16("message: header cut short")?;
    let name = reader.take(name_bytes.into(), "message: header cut short")?;
    let value = reader.take(value_bytes.into(), "message: header cut short")?;
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| protocol("message: header is not UTF-8"));
    Ok((text(name)?, text(value)?))
}

fn check_headers(block: &[u8]) -> Result<()> {
    let mut reader = Reader(block);
    let mut count = 0;
    while !reader.0.is_empty() {
        next_header(&mut reader)?;
        count += 1;
        if count > HEADER_COUNT_MAX {
            return Err(protocol("message: too many headers"));
        }
    }
    Ok(())
}

/// A message on its way out: borrowed parts, checked limits, no copy yet.
#[derive(Clone, Debug)]
pub struct Draft<'a> {
    /// Event, request, response or failure.
    pub kind: Kind,
    /// Subject, service name, or the operation that failed.
    pub subject: &'a str,
    /// Headers as [`encode_headers`](Draft::encode_headers) made them.
    pub headers: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
    /// 0 to 9.
    pub priority: u8,
    /// Message id or call number.
    pub id: u64,
    /// When it was published.
    pub timestamp: Timestamp,
    /// 0 for never.
    pub ttl_ms: u32,
    /// 0 for at once.
    pub delay_ms: u32,
    /// Request: time left; failure: the kind's number.
    pub aux: u32,
}

impl<'a> Draft<'a> {
    /// A draft with defaults for all but these.
    pub fn new(kind: Kind, id: u64, subject: &'a str, payload: &'a [u8]) -> Self {
        Self {
            kind,
            subject,
            headers: &[],
            payload,
            priority: PRIORITY_DEFAULT,
            id,
            timestamp: Timestamp(0),
            ttl_ms: 0,
            delay_ms: 0,
            aux: 0,
        }
    }

    /// The fixed part.
    ///
    /// The caller has checked subject, headers and payload against their limits.
    pub fn header(&self) -> MessageHeader {
        MessageHeader {
            kind: self.kind,
            priority: self.priority.min(9),
            id: self.id,
            timestamp: self.timestamp,
            ttl_ms: self.ttl_ms,
            delay_ms: self.delay_ms,
            target_count: 0,
            subject_bytes: self.subject.len() as u16,
            header_bytes: self.headers.len() as u32,
            payload_bytes: self.payload.len() as u32,
            aux: self.aux,
        }
    }

    /// The frame's body in one piece.
    pub fn encode(&self) -> Vec<u8> {
        let fixed = self.header().encode();
        let parts: [&[u8]; 4] = [&fixed, self.subject.as_bytes(), self.headers, self.payload];
        parts.concat()
    }

    /// As a [`Message`] of this process, for subscribers in the same process.
    pub fn to_message(&self) -> Message {
        Message::of(Arc::new(self.encode()), 0, &self.header())
    }

    /// Lays headers out as they lie in a frame.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] over [`HEADER_COUNT_MAX`] or [`HEADER_BLOCK_BYTES_MAX`],
    /// [`ErrorKind::InvalidArgument`] for an empty name.
    pub fn encode_headers<K: AsRef<str>, V: AsRef<str>>(
        headers: impl IntoIterator<Item = (K, V)>,
        operation: &'static str,
    ) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        for (count, (name, value)) in headers.into_iter().enumerate() {
            let (name, value) = (name.as_ref(), value.as_ref());
            if count >= HEADER_COUNT_MAX {
                return Err(Error::new(ErrorKind::TooLarge, operation)
                    .with("headers", format!("more than {count}"))
                    .with("limit", HEADER_COUNT_MAX));
            }
            if name.is_empty() {
                return Err(Error::new(ErrorKind::InvalidArgument, operation).with("header", "an empty name"));
            }
            let bytes = out.len() + 4 + name.len() + value.len();
            if bytes > HEADER_BLOCK_BYTES_MAX {
                return Err(Error::new(ErrorKind::TooLarge, operation)
                    .with("header", name.chars().take(64).collect::<String>())
                    .with("header_bytes", bytes)
                    .with("limit_bytes", HEADER_BLOCK_BYTES_MAX));
            }
            out.extend_from_slice(&(name.len() as u16).to_le_bytes());
            out.extend_from_slice(&(value.len() as u16).to_le_bytes());
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(value.as_bytes());
        }
        Ok(out)
    }
}

/// Targets as they lie in a frame.
pub fn encode_targets(targets: impl IntoIterator<Item = Target>, out: &mut Vec<u8>) -> u16 {
    let mut count = 0;
    for target in targets.into_iter().take(TARGETS_MAX) {
        out.extend_from_slice(&target.id.to_le_bytes());
        out.extend_from_slice(&target.gap.to_le_bytes());
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn arc(bytes: Vec<u8>) -> (Arc<Vec<u8>>, usize) {
        let end = bytes.len();
        (Arc::new(bytes), end)
    }

    proptest! {
        #[test]
        fn a_message_survives_a_round_trip(
            subject in "[a-z.]{1,40}",
            headers in proptest::collection::vec(("[a-z-]{1,10}", "\\PC{0,20}"), 0..8),
            payload in proptest::collection::vec(any::<u8>(), 0..300),
            priority in 0u8..10, id: u64, ttl_ms: u32, delay_ms: u32, aux: u32,
        ) {
            let block = Draft::encode_headers(headers.iter().map(|(k, v)| (k, v)), "t").unwrap();
            let draft = Draft { headers: &block, priority, ttl_ms, delay_ms, aux,
                timestamp: Timestamp(id ^ 7), ..Draft::new(Kind::Event, id, &subject, &payload) };
            let (bytes, end) = arc(draft.encode());
            let message = Message::decode(&bytes, 0, end).unwrap();
            prop_assert_eq!(message.subject(), subject.as_str());
            prop_assert_eq!(message.payload(), payload.as_slice());
            let found: Vec<(String, String)> = message.headers().map(|(k, v)| (k.into(), v.into())).collect();
            prop_assert_eq!(found, headers);
            prop_assert_eq!(message.header(), draft.header());
            // Forwarded with targets, it is the same message.
            let mut forwarded = message.forward_header(Kind::Event, id, aux, 2).encode().to_vec();
            encode_targets([Target { id: 5, gap: 0 }, Target { id: 6, gap: 9 }], &mut forwarded);
            forwarded.extend(message.tail().concat());
            let (bytes, end) = arc(forwarded);
            let again = Message::decode(&bytes, 0, end).unwrap();
            prop_assert_eq!(again.payload(), payload.as_slice());
            prop_assert_eq!(again.targets().map(|t| (t.id, t.gap)).collect::<Vec<_>>(), vec![(5, 0), (6, 9)]);
        }

        #[test]
        fn any_bytes_decode_or_are_refused(mut body in proptest::collection::vec(any::<u8>(), 0..200), kind in 1u8..5) {
            if let Some(first) = body.first_mut() { *first = kind; }
            let (bytes, end) = arc(body);
            if let Ok(message) = Message::decode(&bytes, 0, end) {
                let _ = (message.subject().len(), message.payload().len(), message.headers().count(), message.targets().count());
            }
        }
    }

    #[test]
    fn header_limits_name_value_and_limit() {
        let many: Vec<(String, &str)> = (0..65).map(|i| (format!("h{i}"), "v")).collect();
        let error = Draft::encode_headers(many, "t").unwrap_err();
        assert_eq!((error.kind(), error.get("limit")), (ErrorKind::TooLarge, Some("64")));
        let big = "x".repeat(20_000);
        let error = Draft::encode_headers([("a", big.as_str())], "t").unwrap_err();
        assert_eq!((error.kind(), error.get("limit_bytes")), (ErrorKind::TooLarge, Some("16384")));
        assert!(Draft::encode_headers([("", "v")], "t").is_err());
    }

    #[test]
    fn expiry_counts_from_publishing() {
        let draft =
            Draft { ttl_ms: 10, timestamp: Timestamp(1_000_000_000), ..Draft::new(Kind::Event, 1, "a", b"") };
        let message = draft.to_message();
        assert!(!message.is_expired(Timestamp(1_009_999_999)));
        assert!(message.is_expired(Timestamp(1_010_000_000)));
    }

    #[test]
    fn a_failure_carries_its_error() {
        let headers = Draft::encode_headers([("type", "ValueError"), ("message", "bad")], "t").unwrap();
        let draft = Draft { headers: &headers, aux: 16, ..Draft::new(Kind::Failure, 1, "rpc.call", b"") };
        let error = draft.to_message().to_error();
        assert_eq!((error.kind(), error.get("type")), (ErrorKind::HandlerFailed, Some("ValueError")));
    }
}
