//! What a ring promises over real maps: the model's bytes, and no harm from a peer that writes anything.

use super::ring::Region;
use super::*;
use crate::error::ErrorKind;
use crate::os::futex::Wait;
use crate::os::test_child::exit_code_of_fork;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// One side of a session.
struct Side {
    producer: Producer,
    consumer: Consumer,
    waiting: WaitingWriter,
    own: Arc<WriterMap>,
}

/// Host and client of a session, in one process.
fn session(ring_bytes: usize, start: u64) -> (Side, Side) {
    let host_region = RegionFd::create("flowmesh-test", 7, ring_bytes, start).unwrap();
    let client_region = RegionFd::create("flowmesh-test", 7, ring_bytes, start).unwrap();
    let page = AttentionPage::create("flowmesh-test").unwrap();
    let host_own = WriterMap::map(host_region.fd(), &host_region.params()).unwrap();
    let client_own = WriterMap::map(client_region.fd(), &client_region.params()).unwrap();
    seal(host_region.fd()).unwrap();
    seal(client_region.fd()).unwrap();
    let host_peer = ReaderMap::map(client_region.fd(), &client_region.params()).unwrap();
    let client_peer = ReaderMap::map(host_region.fd(), &host_region.params()).unwrap();
    let attention = WaitingWord::Attention(AttentionMap::map(page.fd()).unwrap());
    let side = |own: &Arc<WriterMap>, peer: &Arc<ReaderMap>, bell, waiting| Side {
        producer: Producer::attach(Arc::clone(own), Arc::clone(peer), bell),
        consumer: Consumer::attach(Arc::clone(own), Arc::clone(peer)),
        waiting,
        own: Arc::clone(own),
    };
    (
        side(&host_own, &host_peer, WaitingWord::Region(Arc::clone(&host_peer)), page.waiting_writer()),
        side(&client_own, &client_peer, attention, client_own.waiting_writer()),
    )
}

const RING: usize = RING_BYTES_MIN;
/// The ring wraps, the event word wraps and the cursor wraps soon after these.
const STARTS: [u64; 4] = [0, (RING as u64) - 64, (u32::MAX as u64 + 1) * 8 - 1024, u64::MAX - 1023];

#[derive(Clone, Debug)]
enum Act {
    Push(usize),
    Publish,
    Drain(usize),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (0_usize..200).prop_map(Act::Push),
        1 => (0_usize..20_000).prop_map(Act::Push),
        2 => Just(Act::Publish),
        2 => (0_usize..100_000).prop_map(Act::Drain),
    ];
    proptest::collection::vec(act, 1..300)
}

fn body(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|index| (index.wrapping_mul(31) ^ number.wrapping_mul(101)) as u8).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_ring_is_a_queue_of_whole_frames(acts in acts(), start in proptest::sample::select(&STARTS[..])) {
        let (mut host, mut client) = session(RING, start);
        let (mut written, mut visible) = (VecDeque::<Vec<u8>>::new(), VecDeque::<Vec<u8>>::new());
        let mut used = 0;
        for (number, act) in acts.into_iter().enumerate() {
            match act {
                Act::Push(len) => {
                    let whole = body(number, len);
                    let (one, two) = whole.split_at(len / 3);
                    let frame_bytes = len + 4;
                    let padded = frame_bytes.next_multiple_of(8);
                    match host.producer.try_push(&[one, two]) {
                        Ok(Push::Written) => {
                            written.push_back(whole);
                            used += padded;
                            prop_assert!(used <= RING);
                        }
                        Ok(Push::Full) => prop_assert!(used + padded > RING, "full at {used}"),
                        Err(error) => {
                            prop_assert_eq!(error.kind(), ErrorKind::TooLarge);
                            prop_assert!(frame_bytes > host.producer.frame_bytes_max());
                        }
                    }
                }
                Act::Publish => {
                    prop_assert_eq!(host.producer.publish(), Ring::None);
                    visible.append(&mut written);
                }
                Act::Drain(bytes_max) => {
                    let mut out = vec![9; 3];
                    let drained = client.consumer.drain(&mut out, bytes_max).unwrap();
                    prop_assert_eq!(&out[..3], &[9; 3]);
                    prop_assert_eq!(out.len(), 3 + drained.bytes);
                    prop_assert!(drained.frames > 0 || visible.is_empty());
                    let mut count = 0;
                    for frame in frames(&out[3..]) {
                        let expected = visible.pop_front().unwrap();
                        prop_assert_eq!(frame, expected);
                        count += 1;
                    }
                    prop_assert_eq!(count, drained.frames);
                    used -= drained.bytes;
                }
            }
            prop_assert_eq!(host.producer.free_bytes().unwrap(), RING - used);
        }
    }
}

#[test]
fn a_frame_over_the_limit_is_refused_and_one_at_the_limit_fits() {
    let (mut host, mut client) = session(1 << 20, u64::MAX - 7);
    let most = host.producer.frame_bytes_max();
    assert_eq!(most, (64 << 10) + (1 << 10));
    let bytes = body(1, most);
    assert_eq!(host.producer.try_push(&[&bytes[..most - 3]]).unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(host.producer.try_push(&[&bytes[..most - 4]]).unwrap(), Push::Written);
    let _ = host.producer.publish();
    let mut out = Vec::new();
    assert_eq!(client.consumer.drain(&mut out, 0).unwrap().frames, 1);
    assert_eq!(frames(&out).next().unwrap(), &bytes[..most - 4]);
}

#[test]
fn a_sleeper_is_rung_once_per_arming_and_an_awake_one_never() {
    let (mut host, mut client) = session(RING, 0);
    let send = |side: &mut Side| {
        assert_eq!(side.producer.try_push(&[b"x"]).unwrap(), Push::Written);
        side.producer.publish()
    };
    assert_eq!(send(&mut client), Ring::None);
    host.waiting.arm(Mode::Poller);
    assert_eq!(send(&mut client), Ring::Poller);
    assert_eq!(send(&mut client), Ring::None, "rung for this arming already");
    assert_eq!(client.producer.publish(), Ring::None, "nothing new");
    host.waiting.arm(Mode::Poller);
    assert_eq!(send(&mut client), Ring::Poller);
    host.waiting.disarm();
    assert_eq!(send(&mut client), Ring::None);
    client.waiting.arm(Mode::Leader);
    assert_eq!(send(&mut host), Ring::Leader);
}

#[test]
fn sleeping_threads_lose_no_wake_up() {
    let (mut host, mut client) = session(RING, STARTS[2]);
    let rounds = 5_000;
    let answer = std::thread::spawn(move || {
        let mut out = Vec::new();
        for _ in 0..rounds {
            while client.consumer.drain(&mut out, 1 << 16).unwrap().frames == 0 {
                client.waiting.arm(Mode::Leader);
                assert_ne!(client.consumer.sleep(Some(Duration::from_secs(20))), Wait::TimedOut);
                client.waiting.disarm();
            }
            out.clear();
            assert_eq!(client.producer.try_push(&[b"pong"]).unwrap(), Push::Written);
            if client.producer.publish() != Ring::None {
                client.producer.wake_leader();
            }
        }
    });
    let mut out = Vec::new();
    for _ in 0..rounds {
        assert_eq!(host.producer.try_push(&[b"ping"]).unwrap(), Push::Written);
        if host.producer.publish() == Ring::Leader {
            host.producer.wake_leader();
        }
        while host.consumer.drain(&mut out, 1 << 16).unwrap().frames == 0 {
            host.waiting.arm(Mode::Leader);
            assert_ne!(host.consumer.sleep(Some(Duration::from_secs(20))), Wait::TimedOut);
            host.waiting.disarm();
        }
    }
    answer.join().unwrap();
    assert_eq!(frames(&out).filter(|frame| *frame == b"pong").count(), rounds);
}

#[test]
fn a_full_producer_sleeps_until_space_is_freed() {
    let (mut host, mut client) = session(RING, STARTS[3]);
    let total = 20_000_usize;
    let reader = std::thread::spawn(move || {
        let (mut out, mut next) = (Vec::new(), 0_usize);
        while next < total {
            out.clear();
            host.consumer.drain(&mut out, 8 << 10).unwrap();
            for frame in frames(&out) {
                assert_eq!(frame, body(next, 100));
                next += 1;
            }
            if host.consumer.space_ring() {
                host.consumer.wake_space();
            }
        }
    });
    for number in 0..total {
        let body = body(number, 100);
        while client.producer.try_push(&[&body]).unwrap() == Push::Full {
            let _ = client.producer.publish();
            if !client.producer.want_space().unwrap() {
                assert_ne!(client.producer.wait_space(Some(Duration::from_secs(20))), Wait::TimedOut);
            }
            client.producer.clear_want();
        }
    }
    let _ = client.producer.publish();
    reader.join().unwrap();
}

#[test]
fn a_local_thread_can_end_the_sleep() {
    let (_host, mut client) = session(RING, 0);
    let waker = client.consumer.waker();
    let sleeper = std::thread::spawn(move || {
        client.waiting.arm(Mode::Leader);
        client.consumer.sleep(Some(Duration::from_secs(20)))
    });
    while !waker.wake() {
        std::thread::yield_now();
    }
    assert_eq!(sleeper.join().unwrap(), Wait::Woken);
}

#[test]
fn the_peer_cannot_write_or_reshape_a_sealed_region() {
    let region = RegionFd::create("flowmesh-test", 1, RING, 0).unwrap();
    let own = WriterMap::map(region.fd(), &region.params()).unwrap();
    let unsealed = ReaderMap::map(region.fd(), &region.params()).unwrap_err();
    assert_eq!((unsealed.kind(), unsealed.get("rule")), (ErrorKind::Protocol, Some("sealed")));
    seal(region.fd()).unwrap();
    seal(region.fd()).unwrap();
    let fd = region.fd().as_raw_fd();
    let len = 4096 + RING;
    let map = |protection| {
        // SAFETY: a fresh map at an address the kernel chooses.
        unsafe { libc::mmap(std::ptr::null_mut(), len, protection, libc::MAP_SHARED, fd, 0) }
    };
    assert_eq!(map(libc::PROT_READ | libc::PROT_WRITE), libc::MAP_FAILED);
    let read_only = map(libc::PROT_READ);
    assert_ne!(read_only, libc::MAP_FAILED);
    let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: plain calls on a descriptor and on a map of our own; all are to be refused.
    unsafe {
        assert_eq!(libc::mprotect(read_only, len, libc::PROT_READ | libc::PROT_WRITE), -1, "mprotect");
        assert_eq!(libc::ftruncate(fd, 0), -1, "truncate");
        assert_eq!(libc::ftruncate(fd, 1 << 30), -1, "grow");
        assert_eq!(libc::fallocate(fd, punch, 0, 4096), -1, "punch a hole");
        assert_eq!(libc::pwrite(fd, [0_u8; 8].as_ptr().cast(), 8, 0), -1, "write");
        assert_eq!(libc::madvise(read_only, len, libc::MADV_REMOVE), -1, "remove by advice");
        libc::munmap(read_only, len);
    }
    assert_eq!(
        WriterMap::map(region.fd(), &region.params()).unwrap_err().kind(),
        ErrorKind::PermissionDenied
    );
    own.words().waiting.0.store(5, Relaxed);
    let peer = ReaderMap::map(region.fd(), &region.params()).unwrap();
    assert_eq!(peer.words().waiting.0.load(Relaxed), 5, "the owner's map still writes");
}

#[test]
fn a_region_other_than_agreed_is_refused() {
    let region = RegionFd::create("flowmesh-test", 1, RING, 0).unwrap();
    let _own = WriterMap::map(region.fd(), &region.params()).unwrap();
    seal(region.fd()).unwrap();
    let kind = |fd: BorrowedFd<'_>, params| ReaderMap::map(fd, &params).unwrap_err().kind();
    let agreed = region.params();
    assert_eq!(kind(region.fd(), RegionParams { generation: 2, ..agreed }), ErrorKind::Protocol);
    assert_eq!(kind(region.fd(), RegionParams { ring_bytes: 2 * RING, ..agreed }), ErrorKind::Protocol);
    assert_eq!(
        kind(region.fd(), RegionParams { ring_bytes: RING + 8, ..agreed }),
        ErrorKind::InvalidArgument
    );
    let file = std::fs::File::open("/proc/self/status").unwrap();
    assert_eq!(kind(std::os::fd::AsFd::as_fd(&file), agreed), ErrorKind::Protocol);
    let page = AttentionPage::create("flowmesh-test").unwrap();
    assert_eq!(kind(page.fd(), agreed), ErrorKind::Protocol);
    assert_eq!(AttentionMap::map(region.fd()).unwrap_err().kind(), ErrorKind::Protocol);
    for ring_bytes in [0, 4096, RING + 1, RING_BYTES_MAX * 2, usize::MAX] {
        let error = RegionFd::create("flowmesh-test", 1, ring_bytes, 0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{ring_bytes}");
    }
    assert_eq!(RegionFd::create("flowmesh-test", 1, RING, 4).unwrap_err().kind(), ErrorKind::InvalidArgument);
}

#[test]
fn every_single_byte_of_the_header_is_checked() {
    for at in 0..40 {
        let region = RegionFd::create("flowmesh-test", 1, RING, 0).unwrap();
        let fd = region.fd().as_raw_fd();
        // SAFETY: writes one byte of a local to a descriptor we own.
        assert_eq!(unsafe { libc::pwrite(fd, [0x55_u8].as_ptr().cast(), 1, at) }, 1);
        let refused = WriterMap::map(region.fd(), &region.params());
        // Any multiple of 8 is a start cursor.
        let allowed = (33..40).contains(&at);
        assert_eq!(refused.is_ok(), allowed, "byte {at}");
    }
}

#[test]
fn a_hole_punched_before_the_seal_is_filled_again() {
    let region = RegionFd::create("flowmesh-test", 1, RING, 0).unwrap();
    let _own = WriterMap::map(region.fd(), &region.params()).unwrap();
    let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: plain call on a descriptor we own.
    assert_eq!(unsafe { libc::fallocate(region.fd().as_raw_fd(), punch, 8192, 8192) }, 0);
    seal(region.fd()).unwrap();
    let _peer = ReaderMap::map(region.fd(), &region.params()).unwrap();
    // SAFETY: an all-zero `stat` is a valid value of that plain struct, and a place for the answer.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` outlives the call.
    assert_eq!(unsafe { libc::fstat(region.fd().as_raw_fd(), &raw mut stat) }, 0);
    assert_eq!(stat.st_blocks * 512, (4096 + RING) as i64);
}

/// Small, seeded and good enough to be hostile with.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[test]
fn a_peer_that_writes_anything_causes_only_protocol_errors() {
    let mut seed = [0; 8];
    crate::os::random(&mut seed).unwrap();
    let seed = u64::from_le_bytes(seed) | 1;
    println!("seed {seed}");
    let mut random = Random(seed);
    let (mut errors, mut successes) = (0_u32, 0_u32);
    let allowed = |result: &crate::Result<()>| match result {
        Ok(()) => true,
        Err(error) => error.kind() == ErrorKind::Protocol,
    };
    let (host, client) = session(RING, STARTS[3]);
    let params = (Arc::clone(&host.own), Arc::clone(&client.own));
    for _ in 0..20_000 {
        // A fresh host end over the same maps, so that a session that was given up does not hide more.
        let mut producer = Producer::attach(
            Arc::clone(&params.0),
            Arc::clone(&host.producer.peer),
            WaitingWord::Region(Arc::clone(&host.producer.peer)),
        );
        let mut consumer = Consumer::attach(Arc::clone(&params.0), Arc::clone(&host.consumer.peer));
        let words = client.own.words();
        let near = STARTS[3].wrapping_add(random.next() % (2 * RING as u64));
        for round in 0..8 {
            let value = match random.next() % 4 {
                0 => random.next(),
                1 => near & !7,
                2 => near.wrapping_add(8 * round) & !7,
                _ => STARTS[3].wrapping_add(8 * (random.next() % 64)),
            };
            words.produced.position.store(value, Relaxed);
            words.produced.event.store(random.next() as u32, Relaxed);
            words
                .consumed
                .position
                .store(if random.next().is_multiple_of(2) { STARTS[3] } else { value }, Relaxed);
            words.waiting.0.store(random.next() as u32, Relaxed);
            words.space_wanted.0.store(random.next() as u32, Relaxed);
            for _ in 0..4 {
                let length = if random.next().is_multiple_of(4) {
                    random.next() as u32
                } else {
                    (random.next() % 64) as u32
                };
                let at = STARTS[3].wrapping_add(8 * (random.next() % 64));
                // SAFETY: four bytes are no longer than the ring.
                unsafe { ring::OwnRegion::write(&*client.own, at, &length.to_le_bytes()) };
            }
            let mut out = Vec::new();
            let drained = consumer.drain(&mut out, 4096).map(|drained| {
                assert_eq!((out.len(), frames(&out).count()), (drained.bytes, drained.frames));
            });
            assert!(out.len() <= RING);
            let _ = consumer.space_ring();
            let pushed = producer.try_push(&[&[1; 3000]]).map(|_| ());
            let _ = producer.publish();
            let looked = producer.want_space().map(|_| ());
            let free = producer.free_bytes().map(|free| assert!(free <= RING));
            assert_ne!(consumer.sleep(Some(Duration::ZERO)), Wait::Woken);
            for result in [drained, pushed, looked, free] {
                assert!(allowed(&result), "{result:?}");
                if result.is_ok() { successes += 1 } else { errors += 1 }
            }
        }
    }
    println!("{successes} calls went well, {errors} were protocol errors");
    assert!(successes > 1000 && errors > 1000);
}

#[test]
fn cursors_that_go_back_or_too_far_are_protocol_errors() {
    let start = u64::MAX - 1023;
    for (tail, refused) in [(0, false), (8, false), (12, true), (RING as u64 - 8, true), (start - 8, true)] {
        let (mut host, client) = session(RING, start);
        client.own.words().produced.position.store(tail, Relaxed);
        assert_eq!(host.consumer.available().is_err(), refused, "tail {tail}");
    }
    let (mut host, client) = session(RING, start);
    client.own.words().consumed.position.store(start.wrapping_add(8), Relaxed);
    assert!(host.producer.free_bytes().is_err(), "consumed what was not published");
    let (mut host, client) = session(RING, 0);
    client.own.words().produced.position.store(64, Relaxed);
    assert_eq!(host.consumer.available().unwrap(), 64);
    client.own.words().produced.position.store(56, Relaxed);
    assert!(host.consumer.available().is_err(), "went back");
}

#[test]
fn a_forked_child_has_no_map_and_unmaps_nothing_of_its_own() {
    let _alone = crate::os::test_child::alone();
    let (host, client) = session(RING, 0);
    let origin = crate::os::fork::Origin::here();
    let code = exit_code_of_fork(move || {
        let base = host.own.words() as *const _ as usize & !4095;
        // SAFETY: asks for the child's own page at an address that must be free there.
        let mine = unsafe {
            libc::mmap(
                base as *mut _,
                4096,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE,
                -1,
                0,
            )
        };
        if mine == libc::MAP_FAILED || origin.check("test").is_ok() {
            return 1;
        }
        drop((host, client));
        // SAFETY: our own page, unless the drop above unmapped it; then this child dies and the test fails.
        unsafe { mine.cast::<u8>().write_volatile(1) };
        0
    });
    assert_eq!(code, 0);
}
