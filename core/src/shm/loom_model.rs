//! The ring and its doorbells under loom: every interleaving that matters, and every reordering that the
//! orderings allow.
//!
//! What runs is `ring.rs` itself over a region made of loom's atomics; the data is cells that report a race.
//! A futex is modelled by what the kernel promises: compare and go to sleep in one step as a wake sees it.
//! Each model is also run with one ordering or fence made useless, and must fail then.

use super::ring::{self, Cursor, OwnRegion, PeerRegion, Region, Waiting, Word, Words, event_of};
use super::{Mode, Push, Ring, frames};
use crate::sync::planted::with_weakened;
use crate::sync::{AtomicU32, AtomicU64, Ordering, Step};
use loom::cell::UnsafeCell;
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Four slots: the longest frame is one slot, and a ring wraps after four.
const RING_BYTES: usize = 32;
const SLOTS: usize = RING_BYTES / 8;
/// The third frame is behind the wrap of the ring and of the cursor.
const START: u64 = u64::MAX - 15;

struct Model {
    words: Words,
    slots: [UnsafeCell<[u8; 8]>; SLOTS],
    /// The kernel's queues of sleepers on `tail_event` and on `head_event`.
    tail_futex: Futex,
    head_futex: Futex,
}

// SAFETY: loom checks every access to the cells and fails the model on a race.
unsafe impl Sync for Model {}
// SAFETY: as above.
unsafe impl Send for Model {}

impl Model {
    fn new() -> std::sync::Arc<Self> {
        let cursor = || Cursor { position: AtomicU64::new(START), event: AtomicU32::new(event_of(START)) };
        std::sync::Arc::new(Self {
            words: Words {
                produced: cursor(),
                consumed: cursor(),
                waiting: Word(AtomicU32::new(0)),
                space_wanted: Word(AtomicU32::new(0)),
            },
            slots: std::array::from_fn(|_| UnsafeCell::new([0; 8])),
            tail_futex: Futex::new(),
            head_futex: Futex::new(),
        })
    }
}

impl Region for Model {
    fn words(&self) -> &Words {
        &self.words
    }

    fn ring_bytes(&self) -> usize {
        RING_BYTES
    }
}

impl OwnRegion for Model {
    unsafe fn write(&self, cursor: u64, bytes: &[u8]) {
        for (index, byte) in bytes.iter().enumerate() {
            let at = cursor.wrapping_add(index as u64) as usize % RING_BYTES;
            // SAFETY: loom fails the model if another thread touches the slot meanwhile.
            self.slots[at / 8].with_mut(|slot| unsafe { (*slot)[at % 8] = *byte });
        }
    }
}

impl PeerRegion for Model {
    unsafe fn read(&self, cursor: u64, len: usize, into: *mut u8) {
        for index in 0..len {
            let at = cursor.wrapping_add(index as u64) as usize % RING_BYTES;
            // SAFETY: loom fails the model if another thread writes the slot meanwhile; `into` has `len` bytes.
            self.slots[at / 8].with(|slot| unsafe { into.add(index).write((*slot)[at % 8]) });
        }
    }
}

impl Waiting for std::sync::Arc<Model> {
    fn waiting(&self) -> &AtomicU32 {
        &self.words.waiting.0
    }
}

/// The kernel's side of a futex, for one sleeper.
struct Futex {
    asleep: Mutex<bool>,
    woken: Condvar,
}

impl Futex {
    fn new() -> Self {
        Self { asleep: Mutex::new(false), woken: Condvar::new() }
    }

    fn wait(&self, word: &AtomicU32, expected: u32) {
        let mut asleep = self.asleep.lock().unwrap();
        if word.load(Ordering::Relaxed) == expected {
            *asleep = true;
            while *asleep {
                asleep = self.woken.wait(asleep).unwrap();
            }
        }
    }

    /// Whether it woke somebody.
    fn wake(&self) -> bool {
        let woke = std::mem::take(&mut *self.asleep.lock().unwrap());
        self.woken.notify_one();
        woke
    }
}

type Region_ = std::sync::Arc<Model>;
type Producer = ring::Producer<Model, Model, Region_>;
type Consumer = ring::Consumer<Model, Model>;

/// The ring of `writer`, read by `reader`.
fn ring_of(writer: &Region_, reader: &Region_) -> (Producer, Consumer) {
    (
        Producer::new(writer.clone(), reader.clone(), reader.clone(), START),
        Consumer::new(reader.clone(), writer.clone(), START),
    )
}

fn push(producer: &mut Producer, number: u8) -> Push {
    producer.try_push(&[&[number; 2], &[number; 2]]).unwrap()
}

/// Drains what is there and checks that it goes on from `next`.
fn drain(consumer: &mut Consumer, next: &mut u8) {
    let mut out = Vec::new();
    consumer.drain(&mut out, RING_BYTES).unwrap();
    for frame in frames(&out) {
        assert_eq!(frame, [*next; 4]);
        *next += 1;
    }
}

/// Three frames, two published at once, into a ring that the consumer has room in; looks a few times.
fn frames_arrive_whole_and_in_order() {
    let (writer, reader) = (Model::new(), Model::new());
    let (mut producer, mut consumer) = ring_of(&writer, &reader);
    let producing = thread::spawn(move || {
        assert_eq!(push(&mut producer, 0), Push::Written);
        let _ = producer.publish();
        assert_eq!(push(&mut producer, 1), Push::Written);
        assert_eq!(push(&mut producer, 2), Push::Written);
        let _ = producer.publish();
    });
    let mut next = 0;
    drain(&mut consumer, &mut next);
    drain(&mut consumer, &mut next);
    producing.join().unwrap();
    drain(&mut consumer, &mut next);
    assert_eq!(next, 3);
}

/// A full ring: the fifth frame overwrites the slot of the first, once it has been read.
fn slots_are_reused_only_when_read() {
    let (writer, reader) = (Model::new(), Model::new());
    let (mut producer, mut consumer) = ring_of(&writer, &reader);
    for number in 0..4 {
        assert_eq!(push(&mut producer, number), Push::Written);
    }
    let _ = producer.publish();
    let consuming = thread::spawn(move || {
        let mut next = 0;
        drain(&mut consumer, &mut next);
        assert_eq!(next, 4);
    });
    let _ = push(&mut producer, 4);
    let _ = push(&mut producer, 5);
    let _ = producer.publish();
    consuming.join().unwrap();
}

/// The consumer goes through `arm`, looks once more and sleeps without a limit: loom reports a deadlock if a
/// wake-up is lost. The mode tells the producer whom to wake.
fn a_waiter_is_always_woken(frames_sent: u8) {
    let (writer, reader) = (Model::new(), Model::new());
    let (mut producer, mut consumer) = ring_of(&writer, &reader);
    let mut waiting = ring::WaitingWriter::new(reader.clone());
    let bell = writer.clone();
    let producing = thread::spawn(move || {
        for number in 0..frames_sent {
            assert_eq!(push(&mut producer, number), Push::Written);
            match producer.publish() {
                Ring::None => {}
                Ring::Leader => {
                    if !bell.tail_futex.wake() && !MUTANT.get() {
                        producer.rang_in_vain();
                    }
                }
                Ring::Poller => unreachable!("nobody armed that"),
            }
        }
    });
    let mut next = 0;
    while next < frames_sent {
        waiting.arm(Mode::Leader);
        if let Some(event) = consumer.event_to_sleep_on() {
            writer.tail_futex.wait(&writer.words.produced.event, event);
        }
        waiting.disarm();
        drain(&mut consumer, &mut next);
    }
    producing.join().unwrap();
}

/// The poller sleeps in epoll, not on the event word: only a ring ends its sleep, as a counter that stays up.
fn a_poller_is_always_rung() {
    let (writer, reader) = (Model::new(), Model::new());
    let (mut producer, mut consumer) = ring_of(&writer, &reader);
    let mut waiting = ring::WaitingWriter::new(reader.clone());
    let eventfd = Arc::new((Mutex::new(0), Condvar::new()));
    let bell = eventfd.clone();
    let producing = thread::spawn(move || {
        assert_eq!(push(&mut producer, 0), Push::Written);
        if producer.publish() == Ring::Poller {
            *bell.0.lock().unwrap() += 1;
            bell.1.notify_one();
        }
    });
    let mut next = 0;
    waiting.arm(Mode::Poller);
    if consumer.available().unwrap() == 0 {
        let mut count = eventfd.0.lock().unwrap();
        while *count == 0 {
            count = eventfd.1.wait(count).unwrap();
        }
    }
    waiting.disarm();
    drain(&mut consumer, &mut next);
    assert_eq!(next, 1);
    producing.join().unwrap();
}

/// A producer before a full ring sleeps without a limit until the consumer, which frees one frame at a time,
/// has freed `frames_wanted`.
fn a_full_producer_is_always_woken(frames_wanted: usize) {
    let (writer, reader) = (Model::new(), Model::new());
    let (mut producer, mut consumer) = ring_of(&writer, &reader);
    for number in 0..4 {
        assert_eq!(push(&mut producer, number), Push::Written);
    }
    let _ = producer.publish();
    let freed = reader.clone();
    let consuming = thread::spawn(move || {
        for number in 0..frames_wanted {
            let mut out = Vec::new();
            assert_eq!(consumer.drain(&mut out, 0).unwrap().frames, 1);
            assert_eq!(frames(&out).next().unwrap(), [number as u8; 4]);
            if consumer.space_ring() && !freed.head_futex.wake() && !MUTANT.get() {
                consumer.answered_in_vain();
            }
        }
    });
    while producer.free_bytes().unwrap() < 8 * frames_wanted {
        if !producer.want_space().unwrap() {
            if let Some(event) = producer.event_to_sleep_on() {
                reader.head_futex.wait(&reader.words.consumed.event, event);
            }
        }
        producer.clear_want();
    }
    consuming.join().unwrap();
}

std::thread_local! {
    /// A wake that woke nobody counts as a ring: the mutant of the one rule that is no ordering.
    static MUTANT: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

fn check(model: fn()) {
    let mut builder = loom::model::Builder::new();
    // Without a bound the models with two rounds take many minutes. Every mutant shows within it.
    builder.preemption_bound = Some(4);
    builder.check(model);
}

/// Fails unless the model fails in the way that is a `symptom` of `step` being useless.
fn notices(step: Step, symptom: &str, model: fn()) {
    fails_with(symptom, || with_weakened(step, || check(model)));
}

fn fails_with(symptom: &str, run: impl FnOnce()) {
    let failure = catch_unwind(AssertUnwindSafe(run)).expect_err("the model does not notice the mutant");
    let text = failure.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| failure.downcast_ref::<&str>().copied()).unwrap_or_default();
    assert!(text.contains(symptom), "the model fails for another reason: {text}");
}

const RACE: &str = "Causality violation";
const LOST_WAKE_UP: &str = "deadlock";

#[test]
fn loom_frames_arrive_whole_and_in_order() {
    check(frames_arrive_whole_and_in_order);
}

#[test]
fn loom_slots_are_reused_only_when_read() {
    check(slots_are_reused_only_when_read);
}

#[test]
fn loom_a_waiter_is_always_woken() {
    check(|| a_waiter_is_always_woken(1));
    check(|| a_waiter_is_always_woken(2));
}

#[test]
fn loom_a_poller_is_always_rung() {
    check(a_poller_is_always_rung);
}

#[test]
fn loom_a_full_producer_is_always_woken() {
    check(|| a_full_producer_is_always_woken(1));
    check(|| a_full_producer_is_always_woken(2));
}

#[test]
fn loom_mutant_publish_without_release_is_noticed() {
    notices(Step::PublishTail, RACE, frames_arrive_whole_and_in_order);
}

#[test]
fn loom_mutant_consume_without_release_is_noticed() {
    notices(Step::ConsumeHead, RACE, slots_are_reused_only_when_read);
}

#[test]
fn loom_mutant_publish_without_fence_is_noticed() {
    notices(Step::PublishFence, LOST_WAKE_UP, || a_waiter_is_always_woken(1));
}

#[test]
fn loom_mutant_arm_without_fence_is_noticed() {
    notices(Step::ArmFence, LOST_WAKE_UP, || a_waiter_is_always_woken(1));
}

#[test]
fn loom_mutant_event_without_release_is_noticed() {
    notices(Step::StoreEvent, LOST_WAKE_UP, || a_waiter_is_always_woken(1));
}

#[test]
fn loom_mutant_event_without_acquire_is_noticed() {
    notices(Step::LoadEvent, LOST_WAKE_UP, || a_waiter_is_always_woken(1));
}

#[test]
fn loom_mutant_want_without_fence_is_noticed() {
    notices(Step::WantFence, LOST_WAKE_UP, || a_full_producer_is_always_woken(1));
}

#[test]
fn loom_mutant_freed_without_fence_is_noticed() {
    notices(Step::FreedFence, LOST_WAKE_UP, || a_full_producer_is_always_woken(1));
}

#[test]
fn loom_mutant_wake_of_nobody_counted_as_a_ring_is_noticed() {
    for model in [|| a_waiter_is_always_woken(2), || a_full_producer_is_always_woken(2)] {
        MUTANT.set(true);
        fails_with(LOST_WAKE_UP, || check(model));
    }
}
