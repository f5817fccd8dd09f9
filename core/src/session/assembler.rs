//! Large frames put together from their chunks.
#![forbid(unsafe_code)]

use super::SpareBlocks;
use crate::{
    error::{Error, ErrorKind, Result},
    wire::Chunk,
};
use std::{collections::HashMap, sync::Arc};

/// The large frames under way from one peer.
///
/// Bounded whatever the peer sends: at most `FLOWS_MAX` frames at once, none larger than the limit,
/// and memory grows with the bytes that came, not with the size that was announced: a spare block, whose
/// memory is there already, goes only to a frame that is alone.
#[derive(Debug)]
pub struct Assembler {
    flows: HashMap<u32, Flow>,
    frame_bytes_max: usize,
    spare: Arc<SpareBlocks>,
}

#[derive(Debug)]
struct Flow {
    bytes: Vec<u8>,
    total: usize,
}

/// How many large frames one peer may have under way.
const FLOWS_MAX: usize = 16;
/// Up to this size, room for the whole frame is made at its first chunk.
const PREALLOCATE_BYTES: usize = 4 * 1024 * 1024;

impl Assembler {
    /// Takes frames of at most `frame_bytes_max` bytes.
    pub fn new(frame_bytes_max: usize) -> Self {
        Self::with_spare(frame_bytes_max, Arc::default())
    }

    /// The same, with spare blocks that it shares with others.
    pub fn with_spare(frame_bytes_max: usize, spare: Arc<SpareBlocks>) -> Self {
        Self { flows: HashMap::new(), frame_bytes_max, spare }
    }

    /// Adds a chunk; returns the whole frame's body when it was the last.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`] for chunks out of order, too many flows or a frame over the limit.
    pub fn add(&mut self, chunk: &Chunk<'_>) -> Result<Option<Arc<Vec<u8>>>> {
        let Some(room) = self.room(chunk, chunk.bytes.len())? else { return Ok(None) };
        room.extend_from_slice(chunk.bytes);
        Ok(self.finish(chunk.flow))
    }

    /// Where the `count` bytes of a chunk are to be appended; `None` when it ended its flow.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`] for chunks out of order, too many flows or a frame over the limit.
    pub fn room(&mut self, chunk: &Chunk<'_>, count: usize) -> Result<Option<&mut Vec<u8>>> {
        let violation = |what: &'static str| {
            Error::new(ErrorKind::Protocol, "session.assemble")
                .with("violation", what)
                .with("flow", chunk.flow)
        };
        if chunk.abort {
            self.flows.remove(&chunk.flow);
            return Ok(None);
        }
        let total = chunk.total as usize;
        if total > self.frame_bytes_max {
            return Err(violation("frame over the limit")
                .with("bytes", total)
                .with("limit_bytes", self.frame_bytes_max));
        }
        if count == 0 {
            return Err(violation("empty chunk"));
        }
        if chunk.offset == 0 {
            if self.flows.len() >= FLOWS_MAX {
                return Err(violation("too many large frames at once").with("limit", FLOWS_MAX));
            }
            let spare = if self.flows.is_empty() { self.spare.take(total) } else { None };
            let bytes = spare.unwrap_or_else(|| Vec::with_capacity(total.min(PREALLOCATE_BYTES)));
            let flow = Flow { bytes, total };
            if self.flows.insert(chunk.flow, flow).is_some() {
                return Err(violation("flow begun twice"));
            }
        }
        let flow = self.flows.get_mut(&chunk.flow).ok_or_else(|| violation("chunk of no flow"))?;
        if flow.bytes.len() != chunk.offset as usize || flow.total != total {
            return Err(violation("chunk out of order")
                .with("offset", chunk.offset)
                .with("expected", flow.bytes.len()));
        }
        Ok(Some(&mut flow.bytes))
    }

    /// The frame of this flow, once all its bytes were appended.
    pub fn finish(&mut self, flow: u32) -> Option<Arc<Vec<u8>>> {
        let held = self.flows.get(&flow)?;
        if held.bytes.len() < held.total {
            return None;
        }
        let block = Arc::new(self.flows.remove(&flow)?.bytes);
        self.spare.lend(&block);
        Some(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chunk(flow: u32, total: u32, offset: u32, bytes: &[u8]) -> Chunk<'_> {
        Chunk { flow, total, offset, abort: false, bytes }
    }

    #[test]
    fn flows_interleave_and_abort() {
        let mut assembler = Assembler::new(100);
        assert!(assembler.add(&chunk(1, 6, 0, b"abc")).unwrap().is_none());
        assert!(assembler.add(&chunk(2, 4, 0, b"12")).unwrap().is_none());
        assert!(assembler.add(&chunk(3, 4, 0, b"xx")).unwrap().is_none());
        assembler.add(&Chunk { abort: true, ..chunk(3, 4, 2, b"") }).unwrap();
        assert_eq!(**assembler.add(&chunk(1, 6, 3, b"def")).unwrap().unwrap(), b"abcdef".to_vec());
        assert_eq!(**assembler.add(&chunk(2, 4, 2, b"34")).unwrap().unwrap(), b"1234".to_vec());
        assert!(assembler.flows.is_empty());
    }

    #[test]
    fn violations_are_refused() {
        let mut assembler = Assembler::new(100);
        assert_eq!(assembler.add(&chunk(1, 101, 0, b"a")).unwrap_err().get("limit_bytes"), Some("100"));
        assert!(assembler.add(&chunk(1, 10, 5, b"a")).is_err(), "no beginning");
        assembler.add(&chunk(1, 10, 0, b"a")).unwrap();
        assert!(assembler.add(&chunk(1, 10, 2, b"a")).is_err(), "gap");
        assert!(assembler.add(&chunk(1, 9, 1, b"a")).is_err(), "another total");
        assert!(assembler.add(&chunk(2, 10, 0, b"")).is_err(), "endless empty chunks");
        let mut assembler = Assembler::new(100);
        for flow in 0..FLOWS_MAX as u32 {
            assembler.add(&chunk(flow, 10, 0, b"a")).unwrap();
        }
        assert!(assembler.add(&chunk(99, 10, 0, b"a")).is_err());
    }

    #[test]
    fn only_a_frame_that_is_alone_gets_a_spare_block() {
        let mut assembler = Assembler::new(100);
        let whole = assembler.add(&chunk(1, 3, 0, b"abc")).unwrap().unwrap();
        let at = whole.as_ptr();
        assert!(assembler.add(&chunk(2, 3, 0, b"d")).unwrap().is_none());
        assert_eq!(**whole, *b"abc", "a message that is held keeps its bytes");
        drop(whole);
        assembler.add(&chunk(3, 3, 0, b"e")).unwrap();
        assert!(assembler.flows.values().all(|flow| flow.bytes.as_ptr() != at));
        assembler.flows.clear();
        assembler.add(&chunk(4, 3, 0, b"f")).unwrap();
        assert_eq!(assembler.flows[&4].bytes.as_ptr(), at);
        assert_eq!(assembler.flows[&4].bytes, b"f", "nothing of the message before is left");
    }

    proptest! {
        #[test]
        fn any_chunks_are_bounded(chunks in proptest::collection::vec((0u32..4, 0u32..200, 0u32..200, 0usize..50, any::<bool>()), 0..100)) {
            let mut assembler = Assembler::new(150);
            for (flow, total, offset, bytes, abort) in chunks {
                let bytes = vec![7; bytes];
                if let Ok(Some(frame)) = assembler.add(&Chunk { flow, total, offset, abort, bytes: &bytes }) {
                    prop_assert!(frame.len() <= 150);
                }
            }
            prop_assert!(assembler.flows.len() <= FLOWS_MAX);
        }
    }
}
