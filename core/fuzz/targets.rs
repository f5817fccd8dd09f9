//! What the fuzzers run, and what `core/tests/fuzz_corpus.rs` runs over every input they found worth keeping.
//!
//! Each target takes bytes as a peer could send them. None may panic, and what decodes keeps its promises.

#![allow(dead_code, reason = "a fuzz target uses one of them")]

use flowmesh::{
    ErrorKind, Lsn, Message, Pattern, Result, Subject,
    bus::trie::Trie,
    journal::{
        FRAME_HEADER_BYTES, FrameHeader, FrameKind, JournalId, SEGMENT_HEADER_BYTES,
        format::{self, SegmentHeader, seal},
    },
    ledger::{
        Batch, Entry, Fold, Ledger, LedgerConfig, Owner, Place, checkpoint, each_entry, inspect_storage,
    },
    queue::{Answered, QueueReply, Sent as SentRequest},
    session::Assembler,
    shm,
    stats::{ServiceInfo, Stats},
    storage::{
        Open, Storage,
        sim::{Disk, SimStorage},
    },
    wire::{
        BATCH_EVENTS_MAX, Batch as EventBatch, Cancel, Chunk, Control, ControlReply, Credit,
        HEADER_COUNT_MAX, Kind, TARGETS_MAX, Target as Subscriber,
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
    ("frame", frame),
    ("segment", segment),
    ("checkpoint", checkpoint),
    ("queue", queue),
    ("request", request),
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
    let Ok(batch) = EventBatch::decode(&block, 0, data.len()) else { return };
    assert!((1..=BATCH_EVENTS_MAX).contains(&batch.len()));
    let (head, tail) = batch.forward(Subscriber { id: 7, gap: 0 });
    let forwarded = Arc::new([&head, tail].concat());
    let again =
        EventBatch::decode(&forwarded, 0, forwarded.len()).expect("what was decoded is valid when forwarded");
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

/// An entry of a queue, its kind first; or a part of a checkpoint.
pub(crate) fn queue(data: &[u8]) {
    flowmesh::queue::entry::fuzz(data);
}

/// What a client asks of the queues, and what a host answers.
pub(crate) fn request(data: &[u8]) {
    if let Ok(sent) = SentRequest::decode(data) {
        let encoded = sent.encode();
        let again = SentRequest::decode(&encoded).expect("what was decoded encodes");
        assert_eq!(format!("{again:?}"), format!("{sent:?}"));
        if let Err(error) = sent.request.check() {
            assert!(matches!(error.kind(), ErrorKind::InvalidArgument | ErrorKind::TooLarge), "{error}");
        }
    }
    if let Ok(answered) = Answered::decode(data) {
        let again = Answered::decode(&answered.encode()).expect("what was decoded encodes");
        assert_eq!(format!("{again:?}"), format!("{answered:?}"));
        for job in answered.reply.jobs() {
            let content = &job.content;
            let _ = (content.payload(), content.content_type(), content.headers());
        }
        match &answered.reply {
            QueueReply::Each(each) | QueueReply::Next { each, .. } => {
                for refused in each.iter().filter_map(|one| one.as_ref().err()) {
                    assert!(!refused.to_error().to_string().is_empty());
                }
            }
            _ => {}
        }
    }
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

const JOURNAL: JournalId = JournalId(*b"fuzzed and found");

/// A run of journal frames, and the entries in them.
pub(crate) fn frame(data: &[u8]) {
    for (at, found) in format::search(data, JOURNAL) {
        assert!(at % 8 == 0 && at + found.size <= data.len() && found.header.flushed <= found.header.lsn);
        let mut again = vec![0; FRAME_HEADER_BYTES];
        again.extend_from_slice(found.payload);
        seal(&mut again, JOURNAL, &found.header);
        let again = format::decode(&again, JOURNAL).expect("what was sealed is whole");
        assert_eq!((again.header, again.payload), (found.header, found.payload));
    }
    // As the payload of a frame whose checksum is right.
    let mut sealed = vec![0; FRAME_HEADER_BYTES];
    sealed.extend_from_slice(data);
    let header = FrameHeader { kind: FrameKind::Batch, lsn: Lsn(1), flushed: Lsn(0), time: 0 };
    seal(&mut sealed, JOURNAL, &header);
    assert_eq!(format::decode(&sealed, JOURNAL).expect("it was sealed").payload, data);
    let mut end = 0;
    let _ = each_entry(data, |at, found| {
        assert!(at >= end && at as usize + found.size as usize <= data.len());
        assert!(found.entry.bytes.len() < found.size as usize);
        end = at + found.size;
        Ok(())
    });
}

/// A ledger's directory with one segment: the bytes as they are, or a script of frames with right checksums, of which
/// some bytes are changed afterwards. It opens or says where it is damaged, and repair gets past that.
pub(crate) fn segment(data: &[u8]) {
    let Some((mode, data)) = data.split_first() else { return };
    let bytes = if mode % 2 == 0 { data.to_vec() } else { scripted(data) };
    let disk = Disk { files: [("00000001.fmj".to_owned(), Arc::new(bytes))].into(), ..Disk::default() };
    opens(&disk);
}

/// Four bytes a frame: kind, steps of the LSN, of what is flushed, length of the payload. From a kind of 255 on, three
/// bytes a change: where, and which bits.
fn scripted(data: &[u8]) -> Vec<u8> {
    let bytes = 4096;
    let header =
        SegmentHeader { journal: JOURNAL, segment: 1, bytes, after: Lsn(0), first: Lsn(1), flushed: Lsn(0) };
    let mut file = header.encode().to_vec();
    let (mut rest, mut lsn) = (data, 0_u64);
    while let [kind @ 0..=254, step, flushed, length, more @ ..] = rest {
        rest = more;
        lsn += u64::from(step % 4);
        let kind =
            [FrameKind::Batch, FrameKind::Mark, FrameKind::Hole, FrameKind::End][usize::from(kind % 4)];
        let mut batch = Batch::new();
        for _ in 0..length % 3 {
            batch.push_kept(Owner(1), 1, &[&vec![*length; usize::from(*length)]]);
        }
        let mut frame = batch.into_frame();
        let flushed = Lsn(lsn.saturating_sub(u64::from(*flushed)));
        seal(&mut frame, JOURNAL, &FrameHeader { kind, lsn: Lsn(lsn), flushed, time: 0 });
        file.extend_from_slice(&frame);
    }
    file.truncate(bytes as usize);
    for change in rest.get(1..).unwrap_or(&[]).chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % file.len();
        file[at] ^= change[2];
    }
    if let Some(bytes) = file.get_mut(SEGMENT_HEADER_BYTES..) {
        assert!(format::search(bytes, JOURNAL).count() <= data.len() / 4 + 1);
    }
    file
}

/// A checkpoint's file: the bytes as they are; and beside a journal that it does not belong to.
pub(crate) fn checkpoint(data: &[u8]) {
    let name = "0000000000000001.ckpt";
    let disk = Disk { files: [(name.to_owned(), Arc::new(data.to_vec()))].into(), ..Disk::default() };
    let storage = SimStorage::with(&disk);
    let file = storage.open(name, Open::ReadOnly).expect("it is there");
    let mut images = 0;
    let read = checkpoint::read(&*file, name, &mut |_, _, bytes| {
        assert!(bytes.len() < data.len());
        images += 1;
        Ok(())
    });
    if let Ok(summary) = read {
        assert!(
            summary.images == images && summary.begin <= summary.end && summary.bytes <= data.len() as u64
        );
    }
    opens(&disk);
    let mut disk = disk;
    disk.files.insert("00000001.fmj".to_owned(), Arc::new(scripted(&[0, 1, 0, 9, 0, 1, 0, 8])));
    opens(&disk);
}

/// Whatever lies there: it opens, or the error says where the damage is; inspecting agrees, and changes nothing.
fn opens(disk: &Disk) {
    let config = LedgerConfig { segment_bytes: 4096, ..LedgerConfig::default() };
    let found = inspect_storage(&SimStorage::with(disk));
    let opened = Ledger::open(Arc::new(SimStorage::with(disk)), &config, &mut Anything);
    let Err(error) = opened else { return };
    match error.kind() {
        ErrorKind::Corrupt => {
            assert!(error.get("file").is_some(), "{error}");
            assert!(
                found.is_ok_and(|found| !found.damages.is_empty()),
                "{error}, but inspecting finds nothing"
            );
        }
        ErrorKind::Unsupported => return,
        _ => panic!("{error}"),
    }
    let storage = SimStorage::with(disk);
    let repairing = LedgerConfig { repair: true, ..config.clone() };
    // Where no segment says which journal it is there is nothing to begin with.
    if Ledger::open(Arc::new(storage.clone()), &repairing, &mut Anything).is_ok() {
        let again = Ledger::open(Arc::new(storage), &config, &mut Anything);
        again.unwrap_or_else(|error| panic!("after repair: {error}"));
    }
}

/// Takes whatever comes.
struct Anything;

impl Fold for Anything {
    fn image(&mut self, _: Owner, _: Lsn, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn entry(&mut self, _: Lsn, _: Place, _: Entry<'_>) -> Result<()> {
        Ok(())
    }

    fn kept(&mut self, _: &mut dyn FnMut(Place)) {}
}
