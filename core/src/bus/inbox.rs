//! The events that wait for one subscription.
//!
//! The same in the subscriber's process and, for a subscriber elsewhere, at the host while its ring is
//! full. Ten lanes by priority, first in first out within a lane, bounded; what is lost is counted and
//! told with the next delivery, so that at any time
//!
//!   pushed and gaps told from outside = delivered + gaps told + expired + waiting + gaps not told yet
//!
//! Wakes nobody and asks no clock.
#![forbid(unsafe_code)]

use super::options::{OnSlow, Retry};
use crate::{
    clock::{Moment, Timestamp},
    name::Subject,
    wire::{Batch, Draft, HEADER_BLOCK_BYTES_MAX, HEADER_COUNT_MAX, Message},
};
use std::{
    cmp::{Ordering, Reverse},
    collections::{BinaryHeap, VecDeque},
};

/// The events that wait for one subscription.
#[derive(Debug)]
pub struct Inbox {
    /// By priority; bit `p` of `occupied` says that lane `p` is not empty.
    lanes: [VecDeque<Delivery>; LANES],
    occupied: u16,
    len: usize,
    capacity: usize,
    on_slow: OnSlow,
    retry: Option<Retry>,
    retries: BinaryHeap<Reverse<Due>>,
    retry_seq: u64,
    /// Events lost that no delivery has told of yet.
    untold: u64,
    stats: InboxStats,
}

/// An event as its subscriber gets it.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The event.
    pub message: Message,
    /// Events lost between the delivery before this one and this one.
    pub gap: u64,
    /// 1 the first time, more when the handler failed before.
    pub attempt: u32,
}

/// What became of a pushed event.
#[derive(Debug)]
pub enum Pushed {
    /// It waits.
    Queued {
        /// Nothing waited before it: wake the subscriber.
        was_empty: bool,
    },
    /// It was full: the oldest event of the lowest priority was dropped. That is the pushed one when all
    /// that waited stand higher.
    DroppedOldest {
        /// How many events were lost by this push.
        count: u64,
    },
    /// It is full and its policy is to block or to disconnect: nothing has changed, the caller decides.
    /// A gap that came with the event was not taken either.
    Overflow(Message),
}

/// What becomes of an event whose handler failed.
#[derive(Debug)]
pub enum Failed {
    /// It will be delivered again at this moment.
    RetryAt(Moment),
    /// Its attempts are used up: publish it here.
    DeadLetter {
        /// The dead-letter subject.
        subject: Subject,
        /// The event's headers and the reason, laid out for [`Draft::headers`].
        headers: Vec<u8>,
        /// The event; its payload is to be published.
        message: Message,
    },
    /// Its attempts are used up and no dead-letter subject was named: how many events ended so by now.
    GivenUp(u64),
}

/// What one inbox has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InboxStats {
    /// Events handed over, first attempts only.
    pub delivered: u64,
    /// Their payload bytes.
    pub delivered_bytes: u64,
    /// Further attempts handed over.
    pub retried: u64,
    /// Events dropped here because the subscriber was slow.
    pub dropped: u64,
    /// Events lost before they came here, as the caller told.
    pub missed: u64,
    /// Events that came too late for their time to live.
    pub expired: u64,
    /// Events that failed and whose time to live passed before they could be tried again.
    pub retries_expired: u64,
    /// Events that became dead letters.
    pub dead_lettered: u64,
    /// Events that failed for good without a dead-letter subject.
    pub given_up: u64,
}

#[derive(Debug)]
struct Due {
    at: Moment,
    seq: u64,
    delivery: Delivery,
}

const LANES: usize = 10;
/// The longest text of an error that a dead letter carries.
const ERROR_BYTES_MAX: usize = 1024;
const DEAD_LETTER_HEADERS: [&str; 4] =
    ["x-flowmesh-error-type", "x-flowmesh-error", "x-flowmesh-attempts", "x-flowmesh-subject"];

impl Inbox {
    /// An empty one for at most `capacity` waiting events (at least one), and as many retries.
    pub fn new(capacity: usize, on_slow: OnSlow, retry: Option<Retry>) -> Self {
        Self {
            lanes: Default::default(),
            occupied: 0,
            len: 0,
            capacity: capacity.max(1),
            on_slow,
            retry,
            retries: BinaryHeap::new(),
            retry_seq: 0,
            untold: 0,
            stats: InboxStats::default(),
        }
    }

    /// Adds an event before which `gap` events were lost on the way here.
    #[inline]
    pub fn push(&mut self, message: Message, gap: u32) -> Pushed {
        if self.len >= self.capacity {
            return self.push_full(message, gap);
        }
        let was_empty = self.len == 0;
        self.enqueue(message, gap);
        Pushed::Queued { was_empty }
    }

    /// Adds the events of a batch, before the first of which `gap` events were lost; false on overflow, where
    /// those that fit were taken.
    pub fn push_batch(&mut self, batch: &Batch, gap: u32) -> bool {
        let mut gap = gap;
        if self.len + batch.len() > self.capacity {
            return batch
                .events()
                .all(|message| !matches!(self.push(message, std::mem::take(&mut gap)), Pushed::Overflow(_)));
        }
        let lane = usize::from(batch.priority()).min(LANES - 1);
        self.stats.missed += u64::from(gap);
        let arrive = |message| Delivery { message, gap: std::mem::take(&mut gap).into(), attempt: 1 };
        self.lanes[lane].extend(batch.events().map(arrive));
        self.occupied |= 1 << lane;
        self.len += batch.len();
        true
    }

    #[inline]
    fn enqueue(&mut self, message: Message, gap: u32) {
        let lane = usize::from(message.priority()).min(LANES - 1);
        self.stats.missed += u64::from(gap);
        self.lanes[lane].push_back(Delivery { message, gap: gap.into(), attempt: 1 });
        self.occupied |= 1 << lane;
        self.len += 1;
    }

    #[cold]
    fn push_full(&mut self, message: Message, gap: u32) -> Pushed {
        if self.on_slow != OnSlow::DropOldest {
            return Pushed::Overflow(message);
        }
        self.stats.dropped += 1;
        let lowest = self.occupied.trailing_zeros() as usize;
        if usize::from(message.priority()) < lowest {
            self.stats.missed += u64::from(gap);
            self.untold += 1 + u64::from(gap);
        } else {
            if let Some(oldest) = self.take(lowest) {
                self.untold += 1 + oldest.gap;
            }
            self.enqueue(message, gap);
        }
        Pushed::DroppedOldest { count: 1 }
    }

    /// Takes note of events that were lost elsewhere, for instance because blocking took too long.
    pub fn add_gap(&mut self, count: u64) {
        self.stats.missed += count;
        self.untold += count;
    }

    /// Takes the next event: a retry that is due, else the oldest of the highest priority.
    ///
    /// Expired events are skipped and counted, not told as gaps. `None` does not mean that nothing was
    /// lost: a gap stays until there is a delivery to tell it with.
    #[inline]
    pub fn pop(&mut self, wall: Timestamp, now: Moment) -> Option<Delivery> {
        if !self.retries.is_empty()
            && let Some(delivery) = self.pop_retry(wall, now)
        {
            return Some(delivery);
        }
        while self.occupied != 0 {
            let lane = self.occupied.ilog2() as usize;
            let delivery = self.take(lane)?;
            let delivered = hand_out(delivery, wall, &mut self.stats, &mut self.untold);
            if delivered.is_some() {
                return delivered;
            }
        }
        None
    }

    /// Moves at most `max` events to `out`, in the order of [`pop`](Self::pop); returns how many.
    pub fn pop_many(&mut self, max: usize, wall: Timestamp, now: Moment, out: &mut Vec<Delivery>) -> usize {
        let before = out.len();
        let limit = before.saturating_add(max);
        while out.len() < limit {
            if self.occupied == 0 || !self.retries.is_empty() {
                let Some(delivery) = self.pop(wall, now) else { break };
                out.push(delivery);
                continue;
            }
            let lane = self.occupied.ilog2() as usize;
            let waiting = &mut self.lanes[lane];
            let count = waiting.len().min(limit - out.len());
            self.len -= count;
            for delivery in waiting.drain(..count) {
                if let Some(delivered) = hand_out(delivery, wall, &mut self.stats, &mut self.untold) {
                    out.push(delivered);
                }
            }
            if waiting.is_empty() {
                self.occupied &= !(1 << lane);
            }
        }
        out.len() - before
    }

    #[inline]
    fn take(&mut self, lane: usize) -> Option<Delivery> {
        let delivery = self.lanes[lane].pop_front()?;
        if self.lanes[lane].is_empty() {
            self.occupied &= !(1 << lane);
        }
        self.len -= 1;
        Some(delivery)
    }

    fn pop_retry(&mut self, wall: Timestamp, now: Moment) -> Option<Delivery> {
        while self.next_due()? <= now {
            let Reverse(Due { mut delivery, .. }) = self.retries.pop()?;
            if delivery.message.is_expired(wall) {
                self.stats.retries_expired += 1;
                continue;
            }
            self.stats.retried += 1;
            delivery.gap = std::mem::take(&mut self.untold);
            return Some(delivery);
        }
        None
    }

    /// Decides what becomes of an event whose handler failed.
    ///
    /// As many events may wait for a retry as for a first delivery; one over that ends as if its attempts
    /// were used up.
    pub fn fail(&mut self, delivery: Delivery, error_type: &str, error_message: &str, now: Moment) -> Failed {
        let Delivery { message, attempt, .. } = delivery;
        if let Some(retry) = &self.retry {
            if attempt < retry.max_attempts && self.retries.len() < self.capacity {
                let at = now + retry.backoff.after(attempt);
                self.retry_seq += 1;
                let delivery = Delivery { message, gap: 0, attempt: attempt + 1 };
                self.retries.push(Reverse(Due { at, seq: self.retry_seq, delivery }));
                return Failed::RetryAt(at);
            }
            if let Some(subject) = &retry.dead_letter {
                self.stats.dead_lettered += 1;
                let headers = dead_letter_headers(&message, error_type, error_message, attempt);
                return Failed::DeadLetter { subject: subject.clone(), headers, message };
            }
        }
        self.stats.given_up += 1;
        Failed::GivenUp(self.stats.given_up)
    }

    /// When the first retry is due; those of [`len`](Self::len) are due at once.
    pub fn next_due(&self) -> Option<Moment> {
        self.retries.peek().map(|Reverse(due)| due.at)
    }

    /// Events that wait for their first delivery.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none waits for its first delivery; retries may.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the next push would drop or overflow.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.len >= self.capacity
    }

    /// The most events that may wait.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Events that wait to be delivered again.
    pub fn retry_count(&self) -> usize {
        self.retries.len()
    }

    /// Events lost that no delivery has told of yet.
    pub fn untold_gap(&self) -> u64 {
        self.untold + self.lanes.iter().flatten().map(|waiting| waiting.gap).sum::<u64>()
    }

    /// The counters.
    pub fn stats(&self) -> &InboxStats {
        &self.stats
    }
}

/// The event's own headers, as many as fit, and behind them the four that say why it is here.
fn dead_letter_headers(message: &Message, error_type: &str, error_message: &str, attempts: u32) -> Vec<u8> {
    let attempts = attempts.to_string();
    let reasons = [shorten(error_type), shorten(error_message), attempts.as_str(), message.subject()];
    let added: Vec<(&str, &str)> = DEAD_LETTER_HEADERS.into_iter().zip(reasons).collect();
    let mut room = HEADER_BLOCK_BYTES_MAX - added.iter().map(header_bytes).sum::<usize>();
    let kept = message
        .headers()
        .filter(|(name, _)| !name.is_empty() && !DEAD_LETTER_HEADERS.contains(name))
        .take(HEADER_COUNT_MAX - added.len())
        .take_while(|header| {
            let fits = header_bytes(header) <= room;
            room -= if fits { header_bytes(header) } else { 0 };
            fits
        });
    let all: Vec<(&str, &str)> = kept.chain(added).collect();
    Draft::encode_headers(all, "bus.dead_letter").expect("count, bytes and names were made to fit above")
}

/// Counts an event that leaves its lane, and tells with it what was lost; none if it has expired.
#[inline]
fn hand_out(
    mut delivery: Delivery,
    wall: Timestamp,
    stats: &mut InboxStats,
    untold: &mut u64,
) -> Option<Delivery> {
    if delivery.message.is_expired(wall) {
        stats.expired += 1;
        *untold += delivery.gap;
        return None;
    }
    stats.delivered += 1;
    stats.delivered_bytes += delivery.message.payload_len() as u64;
    delivery.gap += std::mem::take(untold);
    Some(delivery)
}

fn header_bytes((name, value): &(&str, &str)) -> usize {
    4 + name.len() + value.len()
}

fn shorten(text: &str) -> &str {
    &text[..text.floor_char_boundary(ERROR_BYTES_MAX)]
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.seq).cmp(&(other.at, other.seq))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Due {}

#[cfg(test)]
mod tests {
    use super::super::options::Backoff;
    use super::*;
    use crate::wire::Kind;
    use proptest::prelude::*;
    use std::time::Duration;

    fn event(id: u64, priority: u8) -> Message {
        Draft { priority, ..Draft::new(Kind::Event, id, "orders.created", b"payload") }.to_message()
    }

    fn dropping(capacity: usize) -> Inbox {
        Inbox::new(capacity, OnSlow::DropOldest, None)
    }

    fn pop(inbox: &mut Inbox) -> Option<(u64, u64)> {
        inbox.pop(Timestamp(0), Moment(0)).map(|delivery| (delivery.message.id(), delivery.gap))
    }

    #[test]
    fn higher_priority_first_then_in_order() {
        let mut inbox = dropping(10);
        for (id, priority) in [(1, 4), (2, 9), (3, 4), (4, 0), (5, 9)] {
            assert!(
                matches!(inbox.push(event(id, priority), 0), Pushed::Queued { was_empty } if was_empty == (id == 1))
            );
        }
        let order: Vec<u64> = std::iter::from_fn(|| pop(&mut inbox)).map(|(id, _)| id).collect();
        assert_eq!(order, [2, 5, 1, 3, 4]);
    }

    #[test]
    fn the_oldest_of_the_lowest_priority_goes_and_the_gap_is_told_next() {
        let mut inbox = dropping(3);
        for (id, priority) in [(1, 4), (2, 2), (3, 2)] {
            inbox.push(event(id, priority), 0);
        }
        assert!(matches!(inbox.push(event(4, 9), 0), Pushed::DroppedOldest { count: 1 }));
        assert!(
            matches!(inbox.push(event(5, 1), 2), Pushed::DroppedOldest { count: 1 }),
            "lower than all that wait"
        );
        assert_eq!(pop(&mut inbox), Some((4, 4)), "2 and 5 were dropped, 2 were lost before 5");
        assert_eq!((pop(&mut inbox), pop(&mut inbox), pop(&mut inbox)), (Some((1, 0)), Some((3, 0)), None));
        assert_eq!((inbox.stats().dropped, inbox.stats().missed), (2, 2));
    }

    #[test]
    fn blocking_and_disconnecting_hand_the_event_back() {
        for on_slow in [OnSlow::Block { timeout: Duration::from_secs(1) }, OnSlow::Disconnect] {
            let mut inbox = Inbox::new(1, on_slow, None);
            inbox.push(event(1, 4), 0);
            assert!(inbox.is_full());
            assert!(matches!(inbox.push(event(2, 4), 7), Pushed::Overflow(message) if message.id() == 2));
            inbox.add_gap(1);
            assert_eq!(pop(&mut inbox), Some((1, 1)));
        }
    }

    #[test]
    fn a_failed_event_is_tried_again_and_ends_as_a_dead_letter() {
        let backoff =
            Backoff { initial: Duration::from_nanos(10), factor: 3.0, max: Duration::from_nanos(20) };
        let dead_letter = Some(Subject::parse("orders.dead").unwrap());
        let mut inbox =
            Inbox::new(4, OnSlow::DropOldest, Some(Retry { max_attempts: 3, backoff, dead_letter }));
        let headers =
            Draft::encode_headers([("trace", "t"), ("x-flowmesh-error", "of an earlier life")], "t").unwrap();
        inbox.push(
            Draft { headers: &headers, ..Draft::new(Kind::Event, 1, "orders.created", b"p") }.to_message(),
            0,
        );
        inbox.push(event(2, 9), 0);
        for (attempt, now, due) in [(1, 100, 110), (2, 110, 130)] {
            let delivery = match attempt {
                1 => (inbox.pop(Timestamp(0), Moment(now)), inbox.pop(Timestamp(0), Moment(now))).1,
                _ => inbox.pop(Timestamp(0), Moment(now)),
            };
            let delivery = delivery.unwrap();
            assert_eq!((delivery.message.id(), delivery.attempt), (1, attempt));
            assert!(
                matches!(inbox.fail(delivery, "E", "no", Moment(now)), Failed::RetryAt(at) if at == Moment(due))
            );
            assert_eq!(inbox.next_due(), Some(Moment(due)));
            assert!(inbox.pop(Timestamp(0), Moment(due - 1)).is_none());
        }
        inbox.push(event(3, 9), 0);
        let last = inbox.pop(Timestamp(0), Moment(130)).unwrap();
        assert_eq!((last.message.id(), last.attempt), (1, 3), "a retry that is due comes first");
        let Failed::DeadLetter { subject, headers, message } =
            inbox.fail(last, "ValueError", "bad", Moment(130))
        else {
            panic!("its attempts are used up")
        };
        assert_eq!((subject.as_str(), message.payload()), ("orders.dead", b"p".as_slice()));
        let letter =
            Draft { headers: &headers, ..Draft::new(Kind::Event, 9, "orders.dead", b"p") }.to_message();
        let found: Vec<(&str, &str)> = letter.headers().collect();
        assert_eq!(
            found,
            [
                ("trace", "t"),
                ("x-flowmesh-error-type", "ValueError"),
                ("x-flowmesh-error", "bad"),
                ("x-flowmesh-attempts", "3"),
                ("x-flowmesh-subject", "orders.created"),
            ]
        );
        let stats = inbox.stats();
        assert_eq!((stats.delivered, stats.retried, stats.dead_lettered), (2, 2, 1));
    }

    #[test]
    fn dead_letter_headers_fit_whatever_the_event_and_the_error_bring() {
        let value = "v".repeat(248);
        for count in [0, 59, 60, 61, 64] {
            let names: Vec<String> = (0..count).map(|n| format!("h{n}")).collect();
            let headers = Draft::encode_headers(names.iter().map(|name| (name, &value)), "t").unwrap();
            let draft = Draft { headers: &headers, ..Draft::new(Kind::Event, 1, "s", b"") };
            let mut inbox = Inbox::new(
                1,
                OnSlow::DropOldest,
                Some(Retry {
                    max_attempts: 1,
                    dead_letter: Some(Subject::parse("d").unwrap()),
                    ..Retry::default()
                }),
            );
            inbox.push(draft.to_message(), 0);
            let delivery = inbox.pop(Timestamp(0), Moment(0)).unwrap();
            let error = "ü".repeat(5000);
            let Failed::DeadLetter { headers, .. } = inbox.fail(delivery, &error, &error, Moment(0)) else {
                panic!("one attempt was allowed")
            };
            let letter = Draft { headers: &headers, ..Draft::new(Kind::Event, 1, "d", b"") }.to_message();
            assert_eq!(letter.header_value("x-flowmesh-attempts"), Some("1"));
            assert!(letter.headers().count() <= HEADER_COUNT_MAX && headers.len() <= HEADER_BLOCK_BYTES_MAX);
        }
    }

    #[test]
    fn retries_are_bounded_and_giving_up_is_counted() {
        let backoff = Backoff { initial: Duration::from_secs(1), ..Backoff::default() };
        let mut inbox = Inbox::new(2, OnSlow::DropOldest, Some(Retry { backoff, ..Retry::default() }));
        for id in 1..=4 {
            inbox.push(event(id, 4), 0);
            let delivery = inbox.pop(Timestamp(0), Moment(0)).unwrap();
            match inbox.fail(delivery, "E", "no", Moment(0)) {
                Failed::RetryAt(_) => assert!(id <= 2),
                Failed::GivenUp(count) => assert_eq!(count, id - 2),
                Failed::DeadLetter { .. } => panic!("no subject was named"),
            }
        }
        assert_eq!(inbox.retry_count(), 2);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push { priority: u8, gap: u32, ttl_ms: u32 },
        AddGap(u64),
        Pop,
        PopAndFail,
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0u8..10, prop_oneof![3 => Just(0u32), 1 => 1u32..4], prop_oneof![2 => Just(0u32), 1 => 1u32..4])
                .prop_map(|(priority, gap, ttl_ms)| Step::Push { priority, gap, ttl_ms }),
            1 => (0u64..4).prop_map(Step::AddGap),
            4 => Just(Step::Pop),
            1 => Just(Step::PopAndFail),
            1 => (0u64..3).prop_map(Step::Wait),
        ]
    }

    /// What waits, as a plain list searched from the front.
    #[derive(Default)]
    struct Model {
        waiting: Vec<Message>,
        retries: Vec<(u64, Message, u32)>,
        /// Events that came, lost ones included, and where they went.
        came: u64,
        told: u64,
        delivered: u64,
        expired: u64,
    }

    proptest! {
        #[test]
        fn order_matches_a_plain_list_and_every_event_is_accounted_for(
            capacity in 1usize..6, steps in proptest::collection::vec(step(), 1..120),
        ) {
            let backoff = Backoff { initial: Duration::from_millis(2), factor: 1.0, max: Duration::from_millis(2) };
            let retry = Retry { max_attempts: 3, backoff, dead_letter: None };
            let mut inbox = Inbox::new(capacity, OnSlow::DropOldest, Some(retry));
            let mut model = Model::default();
            let (mut ms, mut id) = (1u64, 0);
            for step in steps {
                let (wall, now) = (Timestamp(ms * 1_000_000), Moment(ms * 1_000_000));
                match step {
                    Step::Push { priority, gap, ttl_ms } => {
                        id += 1;
                        let draft = Draft::new(Kind::Event, id, "s", b"p");
                        let message = Draft { priority, ttl_ms, timestamp: wall, ..draft }.to_message();
                        model.came += 1 + u64::from(gap);
                        model.waiting.push(message.clone());
                        inbox.push(message, gap);
                        if model.waiting.len() > capacity {
                            let lowest = model.waiting.iter().map(Message::priority).min().unwrap();
                            let oldest = model.waiting.iter().position(|m| m.priority() == lowest).unwrap();
                            model.waiting.remove(oldest);
                        }
                    }
                    Step::AddGap(count) => {
                        model.came += count;
                        inbox.add_gap(count);
                    }
                    Step::Wait(by) => ms += by,
                    Step::Pop | Step::PopAndFail => {
                        let due = model.retries.iter().filter(|(at, _, _)| *at <= ms).map(|(at, _, _)| *at).min();
                        let mut expected = None;
                        if let Some(due) = due {
                            // No retry expires here: those with a time to live do not fail below.
                            let at = model.retries.iter().position(|(at, _, _)| *at == due).unwrap();
                            let (_, message, attempt) = model.retries.remove(at);
                            expected = Some((message.id(), attempt));
                        }
                        while expected.is_none() && !model.waiting.is_empty() {
                            let highest = model.waiting.iter().map(Message::priority).max().unwrap();
                            let oldest = model.waiting.iter().position(|m| m.priority() == highest).unwrap();
                            let message = model.waiting.remove(oldest);
                            if message.is_expired(wall) {
                                model.expired += 1;
                            } else {
                                model.delivered += 1;
                                expected = Some((message.id(), 1));
                            }
                        }
                        let delivery = inbox.pop(wall, now);
                        prop_assert_eq!(delivery.as_ref().map(|d| (d.message.id(), d.attempt)), expected);
                        model.told += delivery.as_ref().map_or(0, |d| d.gap);
                        if let (Step::PopAndFail, Some(delivery)) = (step, delivery)
                            && delivery.message.ttl().is_none()
                        {
                            let (message, attempt) = (delivery.message.clone(), delivery.attempt);
                            if attempt < 3 && model.retries.len() < capacity {
                                model.retries.push((ms + 2, message, attempt + 1));
                            }
                            inbox.fail(delivery, "E", "no", now);
                        }
                    }
                }
                let stats = *inbox.stats();
                prop_assert_eq!((stats.delivered, stats.expired), (model.delivered, model.expired));
                prop_assert_eq!((inbox.len(), inbox.retry_count()), (model.waiting.len(), model.retries.len()));
                prop_assert_eq!(inbox.is_full(), inbox.len() == capacity);
                prop_assert_eq!(
                    model.came,
                    stats.delivered + model.told + stats.expired + inbox.len() as u64 + inbox.untold_gap()
                );
            }
        }
    }
}
