//! What the fuzzers run, and what `core/tests/fuzz_corpus.rs` runs over every input they found worth keeping.
//!
//! Each target takes bytes as a peer could send them. None may panic, and what decodes keeps its promises.

#![allow(dead_code, reason = "a fuzz target uses one of them")]

use flowmesh::{
    Message, Pattern, Subject,
    bus::trie::Trie,
    session::Assembler,
    shm,
    stats::{ServiceInfo, Stats},
    wire::{
        BATCH_EVENTS_MAX, Batch, Cancel, Chunk, Control, ControlReply, Credit, HEADER_COUNT_MAX, Kind,
        TARGETS_MAX, Target as Subscriber,
        handshake::{self, Attached, Hello, Ready, Refusal, Welcome},
    },
};
use std::sync::Arc;

type Target = fn(&[u8]);

/// Every target by name; its inputs lie in `corpus/NAME`.
pub(crate) const TARGETS: &[(&str, Target)] = &[
    ("message", message),
    ("batch", batch),
    ("control", control),
    ("handshake", handshake),
    ("frames", frames),
    ("patterns", patterns),
];

/// One message frame.
pub(crate) fn message(data: &[u8]) {
    let block = Arc::new(data.to_vec());
    let Ok(message) = Message::decode(&block, 0, data.len()) else { return };
    assert_eq!(message.weight(), data.len());
    assert!(message.headers().count() <= HEADER_COUNT_MAX);
    assert!(message.targets().count() <= TARGETS_MAX);
    assert!(message.priority() <= 9);
    assert!(message.subject().len() + message.payload().len() <= data.len());
    let _ = (message.content_type(), message.ttl(), message.to_error(), message.tail_bytes());
    // Forwarded without targets it is the same message.
    let header = message.forward_header(message.header().kind, message.id(), message.header().aux, 0);
    let forwarded = Arc::new([&header.encode()[..], &message.tail().concat()].concat());
    let again =
        Message::decode(&forwarded, 0, forwarded.len()).expect("what was decoded is valid when forwarded");
    assert_eq!((again.subject(), again.payload()), (message.subject(), message.payload()));
    assert!(again.headers().eq(message.headers()));
}

/// One frame of events in a row.
pub(crate) fn batch(data: &[u8]) {
    let block = Arc::new(data.to_vec());
    let Ok(batch) = Batch::decode(&block, 0, data.len()) else { return };
    assert!((1..=BATCH_EVENTS_MAX).contains(&batch.len()));
    let (head, tail) = batch.forward(Subscriber { id: 7, gap: 0 });
    let forwarded = Arc::new([&head, tail].concat());
    let again =
        Batch::decode(&forwarded, 0, forwarded.len()).expect("what was decoded is valid when forwarded");
    assert_eq!(again.len(), batch.len());
    let mut bytes = 0;
    for (event, other) in batch.events().zip(again.events()) {
        assert_eq!((event.id(), event.tail()), (other.id(), other.tail()));
        // One of them with a frame of its own is the same message.
        let header = event.forward_header(Kind::Event, event.id(), 0, 0);
        message(&[&header.encode()[..], &event.tail().concat()].concat());
        bytes += event.payload().len();
    }
    assert_eq!(bytes, batch.payload_bytes());
}

/// Requests to a host, and its answers.
pub(crate) fn control(data: &[u8]) {
    if let Ok(request) = Control::decode(data) {
        let again = Control::decode(&request.encode()).expect("what was decoded encodes");
        // A rate that is no number is not equal to itself.
        assert_eq!(format!("{again:?}"), format!("{request:?}"));
    }
    if let Ok(reply) = ControlReply::decode(data) {
        let _: (&Option<Stats>, &Vec<ServiceInfo>) = (&reply.stats, &reply.services);
        ControlReply::decode(&reply.encode()).expect("what was decoded encodes");
    }
}

/// The first bytes on a socket.
pub(crate) fn handshake(data: &[u8]) {
    if let Ok(Some(end)) = handshake::message_bytes(data) {
        assert!(end <= data.len());
    }
    if let Ok(hello) = handshake::decode::<Hello>(data) {
        let _ = handshake::agree(hello.wire_min, hello.wire_max);
        assert_eq!(handshake::decode::<Hello>(&handshake::encode(&hello)).expect("it encodes"), hello);
    }
    if let Ok(welcome) = handshake::decode::<Welcome>(data) {
        assert_eq!(handshake::decode::<Welcome>(&handshake::encode(&welcome)).expect("it encodes"), welcome);
    }
    let _ = (
        handshake::decode::<Attached>(data),
        handshake::decode::<Ready>(data),
        handshake::decode::<Refusal>(data),
    );
}

/// A run of frames as a ring hands them over, chunks put together as a session does.
pub(crate) fn frames(data: &[u8]) {
    const FRAME_BYTES_MAX: usize = 4096;
    let mut assembler = Assembler::new(FRAME_BYTES_MAX);
    for body in shm::frames(data) {
        match Kind::of(body) {
            Ok(Kind::Cancel) => {
                if let Ok(cancel) = Cancel::decode(body) {
                    assert_eq!(Cancel::decode(&cancel.encode()).expect("it encodes"), cancel);
                }
            }
            Ok(Kind::Credit) => {
                if let Ok(credit) = Credit::decode(body) {
                    assert_eq!(Credit::decode(&credit.encode()).expect("it encodes"), credit);
                }
            }
            Ok(Kind::Chunk) => {
                let Ok(chunk) = Chunk::decode(body) else { return };
                match assembler.add(&chunk) {
                    Ok(Some(whole)) => {
                        assert!(whole.len() <= FRAME_BYTES_MAX);
                        message(&whole);
                    }
                    Ok(None) => {}
                    // The session would end here.
                    Err(_) => return,
                }
            }
            Ok(Kind::Events) => batch(body),
            Ok(_) => message(body),
            Err(_) => return,
        }
    }
}

/// A subject on the first line, patterns on the others: the trie finds what comparing token by token finds.
pub(crate) fn patterns(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.split('\n');
    let Ok(subject) = Subject::parse(lines.next().unwrap_or("")) else { return };
    let patterns: Vec<Pattern> = lines.take(64).filter_map(|line| Pattern::parse(line).ok()).collect();
    let mut trie = Trie::new();
    for (number, pattern) in patterns.iter().enumerate() {
        trie.insert(pattern, number);
    }
    let mut found = Vec::new();
    trie.matches(subject.as_str(), &mut found);
    found.sort_unstable();
    let wanted: Vec<usize> =
        (0..patterns.len()).filter(|number| matches(patterns[*number].as_str(), subject.as_str())).collect();
    assert_eq!(found, wanted, "{subject} among {patterns:?}");
    for (number, pattern) in patterns.iter().enumerate() {
        assert!(trie.remove(pattern, number));
    }
    assert!(trie.is_empty());
}

fn matches(pattern: &str, subject: &str) -> bool {
    let (mut pattern, mut subject) = (pattern.split('.'), subject.split('.'));
    loop {
        match (pattern.next(), subject.next()) {
            (Some(">"), Some(_)) => return true,
            (Some("*"), Some(_)) => {}
            (Some(wanted), Some(token)) if wanted == token => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}
