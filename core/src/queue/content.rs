//! What a job carries, and what was written lately of it.
#![forbid(unsafe_code)]

use super::{change::Body, entry};
use crate::{error::Result, ledger::Place};
use std::{collections::VecDeque, fmt, sync::Arc};

/// Content type, headers and payload of a job, or its result. Cheap to clone.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Content {
    bytes: Arc<[u8]>,
    head_bytes: u32,
}

impl Content {
    pub(super) fn of(body: &Body<'_>) -> Self {
        // Most have no head, and are copied once.
        let bytes = match &*body.head {
            [] => Arc::from(body.payload),
            head => [head, body.payload].concat().into(),
        };
        Self { bytes, head_bytes: body.head.len() as u32 }
    }

    /// What an entry read back carries; checked.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`]: it carries none, or one that makes no sense.
    pub(super) fn read(entry: &[u8]) -> Result<Self> {
        let body = entry::content(entry)?;
        entry::decode_head(&body.head)?;
        Ok(Self::of(&body))
    }

    /// From what was sent.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`]: the head makes no sense.
    pub(super) fn of_parts(head: &[u8], payload: &[u8]) -> Result<Self> {
        entry::decode_head(head)?;
        Ok(Self::of(&Body { head: head.into(), payload }))
    }

    /// The payload.
    pub fn payload(&self) -> &[u8] {
        &self.bytes[self.head_bytes as usize..]
    }

    /// Content type and headers, encoded.
    pub(super) fn head(&self) -> &[u8] {
        &self.bytes[..self.head_bytes as usize]
    }

    /// How the payload is encoded; empty if nobody said.
    pub fn content_type(&self) -> &str {
        entry::decode_head(self.head()).map_or("", |(content_type, _)| content_type)
    }

    /// Headers by name and value, in order.
    pub fn headers(&self) -> Vec<(&str, &str)> {
        entry::decode_head(self.head()).map(|(_, headers)| headers).unwrap_or_default()
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Content({:?}, {} bytes)", self.content_type(), self.payload().len())
    }
}

/// Content that was written lately, by place: what is handed out soon after it came in is not read from the disk.
#[derive(Debug)]
pub(super) struct Recent {
    /// Places go up.
    all: VecDeque<(Place, Content)>,
    bytes: usize,
    bytes_max: usize,
}

impl Recent {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { all: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// Keeps content until it is taken or newer content needs the room.
    pub(super) fn put(&mut self, place: Place, body: &Body<'_>) {
        let bytes = body.head.len() + body.payload.len() + OVERHEAD_BYTES;
        // A large one is read back quickly, for its size; and it would push out many.
        if bytes > self.bytes_max / 16 || self.all.back().is_some_and(|(last, _)| *last >= place) {
            return;
        }
        self.bytes += bytes;
        self.all.push_back((place, Content::of(body)));
        while self.bytes > self.bytes_max {
            self.pop();
        }
    }

    fn pop(&mut self) -> Option<Content> {
        let (_, content) = self.all.pop_front()?;
        self.bytes -= content.bytes.len() + OVERHEAD_BYTES;
        Some(content)
    }

    /// What lies at `place`, if it is still here. The oldest goes when it is asked for: it is on its way to a worker.
    pub(super) fn get(&mut self, place: Place) -> Option<Content> {
        if self.all.front()?.0 == place {
            return self.pop();
        }
        let index = self.all.binary_search_by_key(&place, |(place, _)| *place).ok()?;
        Some(self.all[index].1.clone())
    }
}

/// What an entry takes besides its bytes.
const OVERHEAD_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::EnqueueOptions;

    fn place(number: u64) -> Place {
        Place::from_bits(number << 8)
    }

    #[test]
    fn content_keeps_type_headers_and_payload() {
        let options = EnqueueOptions {
            content_type: Some("application/json".to_owned()),
            headers: vec![("a".to_owned(), "1".to_owned()), ("b".to_owned(), String::new())],
            ..EnqueueOptions::default()
        };
        let body = Body { head: entry::encode_head(&options).into(), payload: b"{}" };
        let content = Content::of(&body);
        assert_eq!((content.content_type(), content.payload()), ("application/json", &b"{}"[..]));
        assert_eq!(content.headers(), [("a", "1"), ("b", "")]);
        let plain =
            Content::of(&Body { head: entry::encode_head(&EnqueueOptions::default()).into(), payload: b"x" });
        assert_eq!((plain.content_type(), plain.headers().len(), plain.payload()), ("", 0, &b"x"[..]));
    }

    #[test]
    fn what_was_written_lately_is_found_until_the_room_is_needed() {
        let mut recent = Recent::new(100 * (OVERHEAD_BYTES + 8));
        for number in 0..200u64 {
            recent.put(place(number), &Body { payload: &number.to_le_bytes(), ..Body::default() });
        }
        assert!(recent.bytes <= recent.bytes_max);
        for number in 0..200u64 {
            let found = recent.get(place(number)).map(|content| content.payload().to_vec());
            assert_eq!(found, (number >= 100).then(|| number.to_le_bytes().to_vec()), "{number}");
        }
        assert_eq!((recent.bytes, recent.all.len()), (0, 0), "in order, each goes as it is taken");
        recent.put(place(300), &Body { payload: &[0; 1000], ..Body::default() });
        assert_eq!(recent.get(place(300)), None, "too large to keep");
    }
}
