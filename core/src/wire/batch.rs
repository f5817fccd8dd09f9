//! Batches: events in a row with one subject, as one frame.
//!
//! The front is that of a [message](super::MessageHeader), whose fields hold for all of them: `id` is the first
//! one's, each next one's is one more; a gap stands before the first; `aux` is how many there are. The payload is,
//! for each, `u32 bytes` and its payload. What a frame, a route and a wake-up cost is paid once for all.
#![forbid(unsafe_code)]

use super::{Draft, Kind, Message, MessageHeader, Reader, Target, encode_targets, protocol};
use crate::error::Result;
use std::sync::Arc;

/// Senders keep batches below this, so that receivers work on the first while later ones are written.
pub const BATCH_BYTES: usize = 16 * 1024;
/// The most events one batch holds.
pub const BATCH_EVENTS_MAX: usize = 4096;

/// A received batch, checked as a whole.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The frame read as one message.
    frame: Message,
    count: u16,
}

impl Batch {
    /// The batch whose body is `block[start..end]`.
    ///
    /// # Errors
    /// `Protocol` when any of its events is not as it should be.
    pub fn decode(block: &Arc<Vec<u8>>, start: usize, end: usize) -> Result<Self> {
        let body = block.get(start..end).ok_or_else(|| protocol("batch: outside its block"))?;
        let header = MessageHeader::decode_any(body)?;
        if header.kind != Kind::Events {
            return Err(protocol("batch: not a batch"));
        }
        let count = header.aux;
        if count == 0 || count as usize > BATCH_EVENTS_MAX {
            return Err(protocol("batch: no events or too many"));
        }
        let mut events = Reader(body.get(header.payload_at()..).unwrap_or_default());
        for _ in 0..count {
            let bytes = events.u32("batch: event cut short")?;
            events.take(bytes as usize, "batch: event cut short")?;
        }
        if !events.0.is_empty() {
            return Err(protocol("batch: more than its events"));
        }
        Ok(Self { frame: Message::checked(block, start, &header)?, count: count as u16 })
    }

    /// How many events there are, at least one.
    #[allow(clippy::len_without_is_empty)] // never empty
    pub fn len(&self) -> usize {
        self.count.into()
    }

    /// The subject of all of them.
    pub fn subject(&self) -> &str {
        self.frame.subject()
    }

    /// The priority of all of them.
    pub fn priority(&self) -> u8 {
        self.frame.priority()
    }

    /// Milliseconds they are to be held back.
    pub fn delay_ms(&self) -> u32 {
        self.frame.delay_ms()
    }

    /// The subscription they are for, with what it lost before the first; `None` when not just one is named.
    pub fn target(&self) -> Option<Target> {
        self.frame.only_target()
    }

    /// Bytes of all payloads together.
    pub fn payload_bytes(&self) -> usize {
        self.frame.payload().len() - 4 * self.len()
    }

    /// The events in order.
    pub fn events(&self) -> impl ExactSizeIterator<Item = Message> + '_ {
        let first_at = self.frame.weight() - self.frame.payload().len();
        let events = self.frame.payload();
        let mut at = 0;
        (0..self.count).map(move |index| {
            let bytes =
                events.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
            let bytes = bytes.expect("decode found so many events");
            let payload_at = (first_at + at + 4) as u32;
            at += 4 + bytes as usize;
            self.frame.member(index, payload_at, bytes)
        })
    }

    /// The frame again, for this one subscription.
    pub fn forward(&self, target: Target) -> (Vec<u8>, &[u8]) {
        let fixed = MessageHeader { target_count: 1, ..self.frame.frame_header() };
        let mut head = fixed.encode().to_vec();
        encode_targets([target], &mut head);
        (head, self.frame.frame_tail())
    }
}

/// Lays a batch out, event by event.
#[derive(Debug)]
pub struct BatchWriter<'a> {
    body: &'a mut Vec<u8>,
    header: MessageHeader,
    payload_at: usize,
}

impl<'a> BatchWriter<'a> {
    /// Begins one in `body`, which is emptied first. All of `draft` holds but its payload.
    pub fn begin(draft: &Draft<'_>, target: Option<Target>, body: &'a mut Vec<u8>) -> Self {
        let target_count = u16::from(target.is_some());
        let header = MessageHeader { kind: Kind::Events, target_count, aux: 0, ..draft.header() };
        body.clear();
        body.extend_from_slice(&header.encode());
        encode_targets(target, body);
        body.extend_from_slice(draft.subject.as_bytes());
        body.extend_from_slice(draft.headers);
        Self { payload_at: body.len(), body, header }
    }

    /// How many events it holds.
    pub fn count(&self) -> usize {
        self.header.aux as usize
    }

    /// Adds an event unless the body would then exceed `bytes_max`, or the batch its number of events.
    pub fn push(&mut self, payload: &[u8], bytes_max: usize) -> bool {
        if self.body.len() + 4 + payload.len() > bytes_max || self.count() >= BATCH_EVENTS_MAX {
            return false;
        }
        self.body.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        self.body.extend_from_slice(payload);
        self.header.aux += 1;
        true
    }

    /// Completes it, the first event's id being `first_id`, and returns the bytes of all payloads together.
    pub fn end(mut self, first_id: u64) -> usize {
        let bytes = self.body.len() - self.payload_at;
        self.header.id = first_id;
        self.header.payload_bytes = bytes as u32;
        let fixed = self.header.encode();
        self.body[..fixed.len()].copy_from_slice(&fixed);
        bytes - 4 * self.count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use proptest::prelude::*;

    fn batch(draft: &Draft<'_>, target: Option<Target>, payloads: &[Vec<u8>]) -> Vec<u8> {
        let mut body = Vec::new();
        let mut writer = BatchWriter::begin(draft, target, &mut body);
        for payload in payloads {
            assert!(writer.push(payload, usize::MAX));
        }
        assert_eq!(writer.end(draft.id), payloads.iter().map(Vec::len).sum::<usize>());
        body
    }

    fn decode(body: &[u8]) -> Result<Batch> {
        Batch::decode(&Arc::new(body.to_vec()), 0, body.len())
    }

    proptest! {
        #[test]
        fn events_are_the_same_as_if_each_had_its_frame(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 1..20),
            id in 0..u64::MAX / 2, ttl_ms: u32, priority in 0u8..10, headers in 0usize..2, target in proptest::option::of(any::<u32>()),
        ) {
            let block = Draft::encode_headers([("a", "b")].into_iter().take(headers), "t").unwrap();
            let draft = Draft { headers: &block, priority, ttl_ms, timestamp: Timestamp(id ^ 7),
                ..Draft::new(Kind::Event, id, "orders.created", b"") };
            let target = target.map(|id| Target { id, gap: 3 });
            let batch = decode(&batch(&draft, target, &payloads)).unwrap();
            prop_assert_eq!((batch.len(), batch.target()), (payloads.len(), target));
            let (head, tail) = batch.forward(Target { id: 9, gap: 1 });
            let forwarded = decode(&[&head, tail].concat()).unwrap();
            prop_assert_eq!(forwarded.target(), Some(Target { id: 9, gap: 1 }));
            prop_assert_eq!(forwarded.payload_bytes(), payloads.iter().map(Vec::len).sum::<usize>());
            for (index, payload) in payloads.iter().enumerate() {
                let alone = Draft { id: id + index as u64, payload, ..draft.clone() }.to_message();
                for batch in [&batch, &forwarded] {
                    let event = batch.events().nth(index).unwrap();
                    prop_assert_eq!(event.forward_header(Kind::Event, event.id(), 0, 0), alone.header());
                    prop_assert_eq!(event.tail(), alone.tail());
                    prop_assert_eq!((event.subject(), event.payload(), event.ttl()), (alone.subject(), alone.payload(), alone.ttl()));
                    prop_assert_eq!(event.is_expired(Timestamp(u64::MAX)), alone.is_expired(Timestamp(u64::MAX)));
                    prop_assert_eq!(event.headers().count(), headers);
                }
            }
        }

        #[test]
        fn damaged_batches_decode_or_are_refused(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9), 1..5),
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut body = batch(&Draft::new(Kind::Event, 1, "a.b", b""), None, &payloads);
            for (place, byte) in damage {
                let place = place.index(body.len());
                body[place] = byte;
            }
            for length in [body.len(), cut.index(body.len())] {
                if let Ok(batch) = decode(&body[..length]) {
                    let bytes: usize = batch.events().map(|event| event.payload().len()).sum();
                    prop_assert_eq!(bytes, batch.payload_bytes());
                }
            }
        }
    }

    #[test]
    fn a_full_batch_takes_no_more() {
        let (draft, mut body) = (Draft::new(Kind::Event, 1, "a", b""), Vec::new());
        let mut writer = BatchWriter::begin(&draft, None, &mut body);
        assert!(writer.push(&[0; 7], 56) && !writer.push(&[0; 1], 60));
        while writer.push(b"", usize::MAX) {}
        assert_eq!(writer.count(), BATCH_EVENTS_MAX);
        writer.end(1);
        let batch = decode(&body).unwrap();
        assert_eq!(batch.events().last().unwrap().id(), BATCH_EVENTS_MAX as u64);
        body[40..44].copy_from_slice(&(BATCH_EVENTS_MAX as u32 + 1).to_le_bytes());
        assert!(decode(&body).is_err(), "one more than may be");
        body[40..44].copy_from_slice(&0_u32.to_le_bytes());
        assert!(decode(&body).is_err(), "none");
    }
}
