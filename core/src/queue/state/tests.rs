//! One behaviour a test, and what the model test stands on.
#![forbid(unsafe_code)]

use super::{
    super::{
        change::{Body, Change, Changes, Now, Target},
        cron::{Overlap, Schedule, Tick},
        entry,
        job::{Enqueued, JobId, JobState, Token, WorkerId},
        options::{
            Backoff, EnqueueOptions, GroupLimits, Keep, OnConflict, QueueConfig, Rate, ReserveOptions,
            Retention, Scope, Unique,
        },
    },
    Cancelled, Cursor, Effects, Listed, Nack, NewJob, QueueState, Stage,
};
use crate::{
    clock::{Moment, Timestamp},
    error::ErrorKind,
    ledger::{Lsn, Place},
};
use std::{collections::BTreeMap, time::Duration};

/// A queue with a journal in memory, clocks that are moved, and checkpoints in slices.
pub(super) struct Rig {
    pub(super) state: QueueState,
    pub(super) now: Now,
    pub(super) effects: Effects,
    seed: u64,
    lsn: Lsn,
    places: u64,
    /// What a job goes on referring to, by its place.
    pub(super) kept: BTreeMap<u64, Kept>,
    /// Entries since the last checkpoint began: kind and bytes.
    log: Vec<(Lsn, Place, u8, Vec<u8>)>,
    /// The last whole checkpoint.
    images: Vec<(Lsn, Vec<u8>)>,
    /// The one that is being taken.
    taking: Option<Taking>,
    ids: u128,
}

/// What an entry carries that is kept for its job.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) job: JobId,
    pub(super) is_result: bool,
    pub(super) bytes: Vec<u8>,
}

impl Kept {
    fn of(change: &Change<'_>) -> Option<Self> {
        let (job, is_result, bytes) = match change {
            Change::Enqueue(new) => (new.id, false, new.body.payload),
            Change::Content { id, body } => (*id, false, body.payload),
            Change::Done { job, result: Some(result), .. } => (job.id, true, *result),
            Change::Result { id, result } => (*id, true, *result),
            _ => return None,
        };
        Some(Self { job, is_result, bytes: bytes.to_vec() })
    }
}

struct Taking {
    begin: Lsn,
    next: u32,
    images: Vec<(Lsn, Vec<u8>)>,
}

impl Rig {
    pub(super) fn new(config: QueueConfig, seed: u64) -> Self {
        config.validate().unwrap();
        let start = 1_700_000_000_000_000_000;
        let images = vec![(Lsn::NONE, settings(&config))];
        Self {
            state: QueueState::new(config, seed),
            now: Now { at: Moment(start), wall: Timestamp(start) },
            effects: Effects::default(),
            seed,
            lsn: Lsn::NONE,
            places: 0,
            kept: BTreeMap::new(),
            log: Vec::new(),
            images,
            taking: None,
            ids: 0,
        }
    }

    pub(super) fn new_id(&mut self) -> JobId {
        self.ids += 1;
        JobId(self.ids << 64 | u128::from(JobId(self.ids).mix(self.seed)))
    }

    pub(super) fn advance(&mut self) {
        self.state.advance(self.now, &mut self.effects);
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now.at = self.now.at + time;
        self.now.wall.0 += time.as_nanos() as u64;
        self.advance();
    }

    /// Writes changes as one batch, and applies them.
    pub(super) fn commit(&mut self, changes: &Changes<'_>) {
        self.commit_keeping(changes);
        self.effects.clear();
    }

    fn commit_keeping(&mut self, changes: &Changes<'_>) {
        if changes.is_empty() {
            return;
        }
        self.lsn = self.lsn.next();
        let before = self.state.available(self.now);
        self.effects.wake = false;
        for change in changes.iter() {
            self.places += 1;
            let place = Place::from_bits(self.places);
            let mut bytes = Vec::new();
            let encoded = entry::encode(change, &mut bytes);
            let decoded = entry::decode(encoded.kind, &bytes).unwrap();
            assert_eq!(decoded, *change);
            // With a guess at the job's slot, and without.
            let change = if self.places.is_multiple_of(2) { change } else { &decoded };
            self.state.apply(self.lsn, place, change, &mut self.effects).unwrap();
            let kept = Kept::of(change);
            assert_eq!(kept.is_some(), encoded.kept);
            self.kept.extend(kept.map(|kept| (self.places, kept)));
            for freed in self.effects.freed.drain(..) {
                assert!(self.kept.remove(&freed.to_bits()).is_some(), "{freed:?} was not kept any more");
            }
            self.log.push((self.lsn, place, encoded.kind, bytes));
        }
        let is_work_new = before == 0 && self.state.available(self.now) > 0;
        assert!(self.effects.wake || !is_work_new, "nobody is woken: {changes:?}");
    }

    /// Writes again what lies at `place`, as cleaning does.
    pub(super) fn rewrite(&mut self, place: u64) {
        let kept = self.kept[&place].clone();
        let (content, result) = self.state.places_of(kept.job).unwrap();
        let found = if kept.is_result { result } else { Some(content) };
        assert_eq!(found, Some(Place::from_bits(place)));
        let mut changes = Changes::new();
        changes.push(if kept.is_result {
            Change::Result { id: kept.job, result: &kept.bytes }
        } else {
            Change::Content { id: kept.job, body: Body { payload: &kept.bytes, ..Body::default() } }
        });
        self.commit(&changes);
        assert!(!self.kept.contains_key(&place) && self.kept.contains_key(&self.places));
    }

    /// What is referred to is what is kept, no more and no less.
    pub(super) fn check_places(&self) {
        let mut places = Vec::new();
        self.state.places(&mut |place| places.push(place.to_bits()));
        places.sort_unstable();
        assert!(places.iter().eq(self.kept.keys()), "{places:?} {:?}", self.kept);
    }

    /// Takes the images of a few more slots; the last slice makes the checkpoint count.
    pub(super) fn checkpoint_slice(&mut self, slots: u32) {
        let (lsn, end) = (self.lsn, self.state.slot_count());
        let taking = self.taking.get_or_insert_with(|| {
            let images = vec![(lsn, settings(self.state.config()))];
            Taking { begin: lsn, next: 0, images }
        });
        let to = end.min(taking.next + slots);
        let mut bytes = Vec::new();
        entry::begin_image_of_jobs(&mut bytes);
        for slot in taking.next..to {
            if let Some(image) = self.state.image(slot) {
                entry::encode_image_of_job(&image, &mut bytes);
            }
        }
        taking.images.push((lsn, std::mem::take(&mut bytes)));
        taking.next = to;
        if to >= end {
            // Last, so that every lease given after it is given to a job that it knows.
            entry::encode_image_of_queue(&self.state.image_of_queue(), &mut bytes);
            taking.images.push((lsn, bytes));
            let taken = self.taking.take().unwrap();
            self.images = taken.images;
            self.log.retain(|(lsn, ..)| *lsn > taken.begin);
        }
    }

    pub(super) fn finish_checkpoint(&mut self) {
        self.checkpoint_slice(u32::MAX / 2);
    }

    /// Whether a job waits for a time of day, since or from when it may begin, and when that ends.
    pub(super) fn times(&self, id: JobId) -> (bool, u64, u64) {
        let cell = self.state.cells.get(self.state.find(Target::of(id)).unwrap());
        (cell.stage == Stage::Dated, cell.at, cell.due)
    }

    /// When the next dead job is redriven.
    pub(super) fn redriving_next(&self) -> u64 {
        self.state.redriving.unwrap().next
    }

    /// Forgets the state and reads it back.
    pub(super) fn reopen(&mut self) {
        self.taking = None;
        // What was configured since then is read back as well.
        let mut state = QueueState::new(QueueConfig::default(), self.seed);
        for (lsn, bytes) in &self.images {
            match entry::decode_image(bytes).unwrap() {
                entry::Image::Declare(_, config) => {
                    state = QueueState::new(*config, self.seed);
                    state.recover();
                }
                entry::Image::Queue(image) => state.restore_queue(*lsn, &image),
                entry::Image::Jobs(images) => state.restore(*lsn, &images),
                entry::Image::Clock(..) => panic!("it was not stored"),
            }
        }
        for (lsn, place, kind, bytes) in &self.log {
            let change = entry::decode(*kind, bytes).unwrap();
            state.apply(*lsn, *place, &change, &mut self.effects).unwrap();
        }
        self.effects.clear();
        state.recovered(self.now.at);
        self.state = state;
    }
}

/// The image of a queue's settings.
fn settings(config: &QueueConfig) -> Vec<u8> {
    let mut bytes = Vec::new();
    entry::encode_image_of_settings("q", config, &mut bytes);
    bytes
}

const MINUTE: u64 = 60_000_000_000;

fn second(count: u64) -> Duration {
    Duration::from_secs(count)
}

impl Rig {
    fn enqueue(&mut self, options: &EnqueueOptions) -> Enqueued {
        self.try_enqueue(options).unwrap()
    }

    fn try_enqueue(&mut self, options: &EnqueueOptions) -> crate::Result<Enqueued> {
        options.validate()?;
        let id = options.id.unwrap_or_else(|| self.new_id());
        let (mut changes, mut outcomes) = (Changes::new(), Vec::new());
        let body = Body { payload: b"work", ..Body::default() };
        self.state.enqueue(self.now, &[NewJob { id, options, body }], &mut changes, &mut outcomes)?;
        self.commit(&changes);
        Ok(outcomes[0])
    }

    fn plain(&mut self) -> JobId {
        self.enqueue(&EnqueueOptions::default()).id()
    }

    fn reserve(&mut self, most: usize) -> Vec<Token> {
        let mut changes = Changes::new();
        self.state
            .reserve(self.now, WorkerId(1), ReserveOptions::default(), most, usize::MAX, &mut changes)
            .unwrap();
        self.commit(&changes);
        let ids = changes.iter().map(|change| match change {
            Change::Reserve { job, .. } => job.id,
            other => panic!("{other:?}"),
        });
        ids.map(|id| self.state.token_of(id).unwrap().1).collect()
    }

    /// One job, by its id.
    fn next(&mut self) -> Option<JobId> {
        self.reserve(1).first().map(|token| token.job)
    }

    fn change<T>(
        &mut self,
        plan: impl FnOnce(&QueueState, Now, &mut Changes<'_>) -> crate::Result<T>,
    ) -> crate::Result<T> {
        let mut changes = Changes::new();
        let value = plan(&self.state, self.now, &mut changes)?;
        self.commit(&changes);
        Ok(value)
    }

    pub(super) fn configure(&mut self, config: QueueConfig) {
        config.validate().unwrap();
        let mut changes = Changes::new();
        let secret = self.state.secret();
        changes.push(Change::Declare { name: "q".into(), config: Box::new(config), secret });
        self.commit(&changes);
    }

    fn change_schedule(&mut self, schedule: &Schedule) {
        schedule.validate().unwrap();
        let mut changes = Changes::new();
        self.state.schedule(self.now, schedule, &mut changes).unwrap();
        self.commit(&changes);
    }

    /// What a schedule that is due does, one tick after the other: the job of each.
    fn fire(&mut self) -> Vec<Option<JobId>> {
        let (name, ticks) = self.state.due_schedule(self.now).unwrap();
        ticks.into_iter().map(|tick| self.fire_tick(&name, tick)).collect()
    }

    /// One tick of a schedule, in a batch of its own; its job.
    pub(super) fn fire_tick(&mut self, name: &str, tick: Tick) -> Option<JobId> {
        let schedule = self.state.schedule_named(name).unwrap().clone();
        let options = schedule.options_for(tick.at);
        let body = Body { head: Vec::new().into(), payload: &schedule.payload };
        let new = NewJob { id: schedule.job_id(tick.at), options: &options, body };
        let mut changes = Changes::new();
        self.state.fire(self.now, name, tick, &new, &mut changes);
        self.commit(&changes);
        changes.iter().find_map(|change| match change {
            Change::Fired { job, .. } => *job,
            _ => None,
        })
    }

    fn ack(&mut self, token: Token) -> crate::Result<()> {
        self.change(|state, now, changes| state.ack(now, token, None, changes))
    }

    fn nack(&mut self, token: Token) -> crate::Result<()> {
        let nack = Nack { message: "it failed", detail: "line 1", delay: None };
        self.change(|state, now, changes| state.nack(now, token, nack, changes))
    }

    fn tick(&mut self) -> usize {
        self.change(|state, now, changes| Ok(state.tick(now, 1000, changes))).unwrap()
    }

    fn count(&self, state: JobState) -> u64 {
        self.state.stats(self.now).count(state)
    }

    fn state_of(&self, id: JobId) -> Option<JobState> {
        self.state.info(self.now, id).ok().map(|info| info.state)
    }
}

fn grouped(group: &str) -> EnqueueOptions {
    EnqueueOptions { group: Some(group.to_owned()), ..EnqueueOptions::default() }
}

fn rig(config: QueueConfig) -> Rig {
    Rig::new(config, 1)
}

#[test]
fn higher_priorities_go_first_then_who_was_ready_first() {
    let mut rig = rig(QueueConfig::default());
    let with = |priority: u8| EnqueueOptions { priority, ..EnqueueOptions::default() };
    let low = rig.enqueue(&with(0)).id();
    let late = rig.enqueue(&EnqueueOptions { delay: second(5), ..with(9) }).id();
    let high = rig.enqueue(&with(255)).id();
    rig.pass(second(10));
    let new = rig.enqueue(&with(9)).id();
    assert_eq!([0; 4].map(|_| rig.next()), [Some(high), Some(late), Some(new), Some(low)]);
    assert_eq!(rig.next(), None);
}

#[test]
fn with_aging_who_waits_long_overtakes() {
    let mut rig = rig(QueueConfig { aging: Some(second(1)), ..QueueConfig::default() });
    let old = rig.plain();
    rig.pass(second(10));
    let with = |priority: u8| EnqueueOptions { priority, ..EnqueueOptions::default() };
    let five = rig.enqueue(&with(5)).id();
    let fifty = rig.enqueue(&with(50)).id();
    assert_eq!([0; 3].map(|_| rig.next()), [Some(fifty), Some(old), Some(five)]);
}

#[test]
fn a_job_given_a_time_waits_for_the_wall_clock_and_a_delay_does_not_care() {
    let mut rig = rig(QueueConfig::default());
    let run_at = Some(Timestamp(rig.now.wall.0 + 3_600_000_000_000));
    let dated = rig.enqueue(&EnqueueOptions { run_at, ..EnqueueOptions::default() }).id();
    let delayed = rig.enqueue(&EnqueueOptions { delay: second(3600), ..EnqueueOptions::default() }).id();
    assert_eq!(rig.count(JobState::Scheduled), 2);
    // Somebody sets the clock two hours ahead.
    rig.now.wall.0 += 7_200_000_000_000;
    rig.pass(second(1));
    assert_eq!((rig.next(), rig.next()), (Some(dated), None));
    rig.now.wall.0 -= 900_000_000_000_000_000;
    rig.pass(second(3599));
    assert_eq!(rig.next(), Some(delayed));
    // What has passed is now.
    let past = rig.enqueue(&EnqueueOptions { run_at: Some(Timestamp(5)), ..EnqueueOptions::default() }).id();
    assert_eq!(rig.next(), Some(past));
}

#[test]
fn a_failed_job_waits_longer_each_time_and_is_dead_in_the_end() {
    let backoff = Backoff::List(vec![second(1), second(10)]);
    let mut rig = rig(QueueConfig { max_attempts: 3, backoff, ..QueueConfig::default() });
    let id = rig.plain();
    for wait in [1, 10] {
        let token = rig.reserve(1)[0];
        rig.nack(token).unwrap();
        assert_eq!(rig.state_of(id), Some(JobState::RetryWait));
        rig.pass(second(wait) - Duration::from_nanos(1));
        assert_eq!(rig.next(), None);
        rig.pass(Duration::from_nanos(1));
    }
    let token = rig.reserve(1)[0];
    assert_eq!(token.attempt, 3);
    rig.nack(token).unwrap();
    let info = rig.state.info(rig.now, id).unwrap();
    assert_eq!((info.state, info.attempt, info.failures.len()), (JobState::Dead, 3, 3));
    assert_eq!(info.failures.iter().map(|failure| failure.attempt).collect::<Vec<_>>(), [1, 2, 3]);
    let details: Vec<&str> = info.failures.iter().map(|failure| &*failure.detail).collect();
    assert_eq!(details, ["", "", "line 1"], "one stack trace is kept");
}

#[test]
fn a_job_keeps_its_last_ten_failures_cut_to_size() {
    let backoff = Backoff::Fixed(Duration::ZERO);
    let mut rig = rig(QueueConfig { max_attempts: 20, backoff, ..QueueConfig::default() });
    let id = rig.plain();
    let long = "ü".repeat(5000);
    for attempt in 1..=15u16 {
        rig.advance();
        let token = rig.reserve(1)[0];
        rig.nack(token).unwrap();
        rig.pass(second(600));
        assert_eq!(rig.state.info(rig.now, id).unwrap().failures.len(), usize::from(attempt.min(10)));
    }
    let failures = rig.state.info(rig.now, id).unwrap().failures;
    assert_eq!((failures[0].attempt, failures[9].attempt), (6, 15));
    let token = rig.reserve(1)[0];
    let mut changes = Changes::new();
    rig.state
        .nack(rig.now, token, Nack { message: &long, detail: &long, delay: None }, &mut changes)
        .unwrap();
    rig.commit(&changes);
    let last = rig.state.info(rig.now, id).unwrap().failures.pop().unwrap();
    assert_eq!((last.message.len(), last.detail.len()), (1024, 4096));
}

#[test]
fn a_token_is_worth_nothing_once_another_worker_has_the_job() {
    let mut rig = rig(QueueConfig { backoff: Backoff::Fixed(Duration::ZERO), ..QueueConfig::default() });
    let id = rig.plain();
    let stopped = rig.reserve(1)[0];
    rig.pass(second(30));
    let lost = |error: crate::Error| error.kind() == ErrorKind::LeaseLost;
    assert!(lost(rig.ack(stopped).unwrap_err()), "it has run out, whether or not anybody has noticed");
    assert_eq!(rig.tick(), 1);
    rig.pass(Duration::ZERO);
    let second_token = rig.reserve(1)[0];
    assert_eq!((second_token.job, second_token.attempt), (id, 2));
    assert!(lost(rig.ack(stopped).unwrap_err()) && lost(rig.nack(stopped).unwrap_err()));
    assert!(lost(rig.change(|state, now, changes| state.extend(now, stopped, None, changes)).unwrap_err()));
    assert!(lost(rig.change(|state, now, changes| state.release(now, stopped, changes)).unwrap_err()));
    assert!(lost(rig.state.progress(rig.now, stopped, b"half").unwrap_err()));
    rig.ack(second_token).unwrap();
    assert_eq!(rig.state_of(id), None);
}

#[test]
fn the_same_ack_again_is_fine_for_five_minutes_and_through_a_restart() {
    let mut rig = rig(QueueConfig::default());
    rig.plain();
    let token = rig.reserve(1)[0];
    rig.ack(token).unwrap();
    rig.ack(token).unwrap();
    assert_eq!(rig.state.stats(rig.now).totals.done, 1);
    rig.reopen();
    rig.ack(token).unwrap();
    rig.finish_checkpoint();
    rig.reopen();
    rig.ack(token).unwrap();
    assert_eq!(rig.nack(token).unwrap_err().kind(), ErrorKind::LeaseLost);
    let other = Token { attempt: 2, ..token };
    assert_eq!(rig.ack(other).unwrap_err().kind(), ErrorKind::LeaseLost);
}

#[test]
fn extending_is_bounded_by_the_deadline_and_follows_no_wall_clock() {
    let mut rig = rig(QueueConfig { deadline: Some(second(100)), ..QueueConfig::default() });
    rig.plain();
    let token = rig.reserve(1)[0];
    for _ in 0..4 {
        rig.pass(second(20));
        rig.now.wall.0 -= 315_360_000_000_000_000;
        let until = rig.change(|state, now, changes| state.extend(now, token, None, changes)).unwrap();
        assert!(until.since(rig.now.at) <= second(30));
    }
    let until =
        rig.change(|state, now, changes| state.extend(now, token, Some(second(3600)), changes)).unwrap();
    assert_eq!(until.since(rig.now.at), second(20), "a hundred seconds after it began");
    for bad in [Duration::ZERO, second(12 * 3600 + 1)] {
        let error =
            rig.change(|state, now, changes| state.extend(now, token, Some(bad), changes)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
}

#[test]
fn released_and_snoozed_attempts_do_not_count() {
    let mut rig = rig(QueueConfig { max_attempts: 1, ..QueueConfig::default() });
    let (first, other) = (rig.plain(), rig.plain());
    let token = rig.reserve(1)[0];
    rig.change(|state, now, changes| state.release(now, token, changes)).unwrap();
    let again = rig.reserve(1)[0];
    assert_eq!((again.job, again.attempt), (first, 1), "it keeps its place");
    assert_ne!(again.nonce, token.nonce);
    rig.change(|state, now, changes| state.snooze(now, again, second(5), changes)).unwrap();
    assert_eq!(rig.state_of(first), Some(JobState::Scheduled));
    assert_eq!((rig.next(), rig.next()), (Some(other), None));
    rig.pass(second(5));
    assert_eq!(rig.reserve(1)[0].attempt, 1);
}

#[test]
fn a_rejected_job_is_dead_and_can_be_redriven() {
    let mut rig = rig(QueueConfig { max_attempts: 2, ..QueueConfig::default() });
    let id = rig.plain();
    let token = rig.reserve(1)[0];
    rig.change(|state, now, changes| {
        state.reject(now, token, Nack { message: "bad", ..Nack::default() }, changes)
    })
    .unwrap();
    assert_eq!(rig.state_of(id), Some(JobState::Dead));
    rig.change(|state, now, changes| state.redrive(now, &[id], changes)).unwrap();
    let info = rig.state.info(rig.now, id).unwrap();
    assert_eq!((info.state, info.attempt, info.redrives), (JobState::Ready, 0, 1));
    assert_eq!(info.failures[0].message, "bad", "what went wrong is not forgotten");
    let error = rig.change(|state, now, changes| state.redrive(now, &[id], changes)).unwrap_err();
    assert_eq!((error.kind(), error.get("state")), (ErrorKind::InvalidArgument, Some("ready")));
    let error = rig.change(|state, now, changes| state.redrive(now, &[JobId(5)], changes)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn dead_jobs_come_back_at_the_rate_that_was_asked_for() {
    let mut rig = rig(QueueConfig { max_attempts: 1, ..QueueConfig::default() });
    for _ in 0..10 {
        rig.plain();
    }
    for token in rig.reserve(10) {
        rig.nack(token).unwrap();
    }
    let rate = Rate { count: 2, per: second(1), burst: 1 };
    rig.change(|state, _, changes| state.redrive_at(5, rate, changes)).unwrap();
    rig.tick();
    assert_eq!(rig.count(JobState::Ready), 1);
    rig.pass(second(1));
    rig.tick();
    assert_eq!((rig.count(JobState::Ready), rig.state.stats(rig.now).redriving), (3, 2));
    rig.pass(second(100));
    rig.tick();
    assert_eq!((rig.count(JobState::Ready), rig.count(JobState::Dead)), (5, 5));
}

#[test]
fn a_group_of_one_at_a_time_keeps_strict_order_through_failures() {
    let groups = GroupLimits { concurrency: Some(1), ..GroupLimits::default() };
    let mut rig = rig(QueueConfig { groups, backoff: Backoff::Fixed(second(10)), ..QueueConfig::default() });
    let a: Vec<JobId> = (0..3).map(|_| rig.enqueue(&grouped("a")).id()).collect();
    let b = rig.enqueue(&grouped("b")).id();
    assert_eq!((rig.count(JobState::Ready), rig.count(JobState::Blocked)), (4, 0));
    let tokens = rig.reserve(10);
    assert_eq!(tokens.iter().map(|token| token.job).collect::<Vec<_>>(), [a[0], b]);
    assert_eq!((rig.count(JobState::Ready), rig.count(JobState::Blocked)), (0, 2));
    rig.nack(tokens[0]).unwrap();
    assert_eq!(rig.next(), None, "the first of the group is not done");
    rig.pass(second(10));
    for expected in &a {
        let token = rig.reserve(1)[0];
        assert_eq!(token.job, *expected);
        rig.ack(token).unwrap();
    }
}

#[test]
fn groups_share_by_weight_and_none_starves() {
    let weights = [("heavy".to_owned(), 3)].into();
    let groups = GroupLimits { weights, ..GroupLimits::default() };
    let mut rig = rig(QueueConfig { groups, ..QueueConfig::default() });
    for _ in 0..300 {
        rig.enqueue(&grouped("heavy"));
    }
    for _ in 0..300 {
        rig.enqueue(&grouped("light"));
        rig.plain();
    }
    let mut counts = [0; 3];
    for _ in 0..50 {
        for token in rig.reserve(4) {
            let group = rig.state.info(rig.now, token.job).unwrap().group;
            counts[match group.as_deref() {
                Some("heavy") => 0,
                Some("light") => 1,
                _ => 2,
            }] += 1;
        }
    }
    assert_eq!(counts.iter().sum::<i32>(), 200);
    assert!((118..=122).contains(&counts[0]) && (38..=42).contains(&counts[1]), "{counts:?}");
    // Who comes late waits for a turn, not for all who were there.
    rig.enqueue(&grouped("new"));
    let next = rig
        .reserve(7)
        .iter()
        .any(|token| rig.state.info(rig.now, token.job).unwrap().group.as_deref() == Some("new"));
    assert!(next);
}

#[test]
fn rates_are_kept_exactly_and_through_a_restart() {
    let rate = Rate { count: 1, per: second(1), burst: 2 };
    let mut rig = rig(QueueConfig { rate: Some(rate), ..QueueConfig::default() });
    for _ in 0..10 {
        rig.plain();
    }
    assert_eq!(rig.reserve(10).len(), 2);
    assert_eq!(rig.state.available(rig.now), 0);
    assert_eq!(rig.state.next_due(rig.now), Some(rig.now.at + second(1)));
    rig.pass(second(1));
    assert_eq!(rig.reserve(10).len(), 1);
    rig.reopen();
    assert_eq!(rig.reserve(10).len(), 0);
    rig.pass(second(1));
    assert_eq!(rig.reserve(10).len(), 1);
    let groups = GroupLimits { rate: Some(rate), ..GroupLimits::default() };
    let mut rig = Rig::new(QueueConfig { groups, ..QueueConfig::default() }, 1);
    for group in ["a", "b", "a", "b", "a", "b"] {
        rig.enqueue(&grouped(group));
    }
    assert_eq!(rig.reserve(10).len(), 4);
    assert_eq!(rig.count(JobState::Blocked), 2);
    rig.pass(second(1));
    assert_eq!(rig.reserve(10).len(), 2);
}

#[test]
fn no_more_are_leased_than_concurrency_allows() {
    let mut rig = rig(QueueConfig { concurrency: Some(2), ..QueueConfig::default() });
    for _ in 0..5 {
        rig.plain();
    }
    let tokens = rig.reserve(5);
    assert_eq!((tokens.len(), rig.reserve(5).len()), (2, 0));
    rig.ack(tokens[0]).unwrap();
    assert_eq!(rig.reserve(5).len(), 1);
}

fn unique(scope: Scope, conflict: OnConflict) -> EnqueueOptions {
    EnqueueOptions {
        unique: Some(Unique { key: "k".to_owned(), scope, conflict }),
        ..EnqueueOptions::default()
    }
}

#[test]
fn a_unique_key_is_held_while_its_scope_lasts() {
    let mut waiting = rig(QueueConfig::default());
    let options = unique(Scope::Waiting, OnConflict::ReturnExisting);
    let first = waiting.enqueue(&options).id();
    assert_eq!(waiting.enqueue(&options), Enqueued::Existing(first));
    waiting.reserve(1);
    assert!(matches!(waiting.enqueue(&options), Enqueued::New(_)));

    let mut active = rig(QueueConfig::default());
    let options = unique(Scope::Active, OnConflict::ReturnExisting);
    let first = active.enqueue(&options).id();
    let token = active.reserve(1)[0];
    assert_eq!(active.enqueue(&options), Enqueued::Existing(first));
    active.ack(token).unwrap();
    assert!(matches!(active.enqueue(&options), Enqueued::New(_)));

    let mut window = rig(QueueConfig::default());
    let options = unique(Scope::Window(second(60)), OnConflict::ReturnExisting);
    let first = window.enqueue(&options).id();
    let token = window.reserve(1)[0];
    window.ack(token).unwrap();
    window.pass(second(59));
    assert_eq!(window.enqueue(&options), Enqueued::Existing(first), "a minute after it was done");
    window.reopen();
    assert_eq!(window.enqueue(&options), Enqueued::Existing(first), "through a restart too");
    window.pass(second(1));
    assert!(matches!(window.enqueue(&options), Enqueued::New(_)));
}

#[test]
fn a_conflict_ends_as_the_new_job_asks() {
    let mut rig = rig(QueueConfig::default());
    let first = rig.enqueue(&unique(Scope::Active, OnConflict::ReturnExisting)).id();
    let replaced = rig.enqueue(&unique(Scope::Active, OnConflict::Replace));
    assert_eq!(replaced, Enqueued::Replaced { id: replaced.id(), replaced: first });
    assert_eq!(rig.state_of(first), Some(JobState::Cancelled));
    let later = EnqueueOptions { delay: second(10), ..unique(Scope::Active, OnConflict::Extend) };
    assert_eq!(rig.enqueue(&later), Enqueued::Extended(replaced.id()));
    assert_eq!(rig.next(), None, "it waits anew");
    rig.pass(second(10));
    let token = rig.reserve(1)[0];
    assert_eq!(token.job, replaced.id());
    // While it is worked on: the last one waits.
    assert_eq!(rig.enqueue(&unique(Scope::Active, OnConflict::Replace)), Enqueued::Existing(token.job));
    let kept = rig.enqueue(&unique(Scope::Active, OnConflict::KeepLast)).id();
    let last = rig.enqueue(&unique(Scope::Active, OnConflict::KeepLast));
    assert_eq!(last, Enqueued::Replaced { id: last.id(), replaced: kept });
    assert_eq!((rig.state_of(last.id()), rig.next()), (Some(JobState::Blocked), None));
    rig.reopen();
    assert_eq!(rig.state_of(last.id()), Some(JobState::Blocked), "through a restart too");
    rig.ack(token).unwrap();
    assert_eq!(rig.next(), Some(last.id()));
}

#[test]
fn conflicts_within_one_batch_are_seen() {
    let mut rig = rig(QueueConfig::default());
    let options = [
        unique(Scope::Active, OnConflict::ReturnExisting),
        unique(Scope::Active, OnConflict::ReturnExisting),
        unique(Scope::Active, OnConflict::Replace),
        EnqueueOptions { id: Some(JobId(77)), ..EnqueueOptions::default() },
        EnqueueOptions { id: Some(JobId(77)), ..EnqueueOptions::default() },
    ];
    let jobs: Vec<NewJob<'_>> = options
        .iter()
        .enumerate()
        .map(|(index, options)| NewJob {
            id: options.id.unwrap_or(JobId(index as u128 + 1)),
            options,
            body: Body::default(),
        })
        .collect();
    let (mut changes, mut outcomes) = (Changes::new(), Vec::new());
    rig.state.enqueue(rig.now, &jobs, &mut changes, &mut outcomes).unwrap();
    rig.commit(&changes);
    let replaced = Enqueued::Replaced { id: JobId(3), replaced: JobId(1) };
    let expected = [
        Enqueued::New(JobId(1)),
        Enqueued::Existing(JobId(1)),
        replaced,
        Enqueued::New(JobId(77)),
        Enqueued::Existing(JobId(77)),
    ];
    assert_eq!(outcomes, expected);
    assert_eq!((rig.next(), rig.next(), rig.next()), (Some(JobId(3)), Some(JobId(77)), None));
}

#[test]
fn a_batch_is_enqueued_whole_or_not_at_all() {
    let mut rig = rig(QueueConfig { max_length: Some(3), ..QueueConfig::default() });
    rig.plain();
    let options = EnqueueOptions::default();
    let jobs = |count: usize| -> Vec<NewJob<'_>> {
        (0..count)
            .map(|index| NewJob { id: JobId(index as u128 + 100), options: &options, body: Body::default() })
            .collect()
    };
    let plan = |count: usize| rig.state.enqueue(rig.now, &jobs(count), &mut Changes::new(), &mut Vec::new());
    let error = plan(3).unwrap_err();
    assert_eq!(
        (error.kind(), error.get("max_length"), error.get("waiting")),
        (ErrorKind::Full, Some("3"), Some("1"))
    );
    plan(2).unwrap();
    let error = plan(10_001).unwrap_err();
    assert_eq!((error.kind(), error.get("limit")), (ErrorKind::TooLarge, Some("10000")));
    assert_eq!(rig.count(JobState::Ready), 1);
}

#[test]
fn payloads_results_and_progress_have_limits() {
    let mut rig = rig(QueueConfig { payload_bytes_max: 10, ..QueueConfig::default() });
    let options = EnqueueOptions::default();
    let body = Body { payload: &[0; 11], ..Body::default() };
    let job = NewJob { id: JobId(1), options: &options, body };
    let error = rig.state.enqueue(rig.now, &[job], &mut Changes::new(), &mut Vec::new()).unwrap_err();
    assert_eq!(
        (error.kind(), error.get("payload_bytes"), error.get("limit")),
        (ErrorKind::TooLarge, Some("11"), Some("10"))
    );
    rig.plain();
    let token = rig.reserve(1)[0];
    let error = rig.state.ack(rig.now, token, Some(&[0; 11]), &mut Changes::new()).unwrap_err();
    assert_eq!((error.kind(), error.get("result_bytes")), (ErrorKind::TooLarge, Some("11")));
    let error = rig.state.progress(rig.now, token, &[0; 4097]).unwrap_err();
    assert_eq!((error.kind(), error.get("progress_bytes")), (ErrorKind::TooLarge, Some("4097")));
    let target = rig.state.progress(rig.now, token, b"50 %").unwrap();
    rig.state.note_progress(target, b"50 %", &mut Effects::default());
    assert_eq!(rig.state.info(rig.now, token.job).unwrap().progress.as_deref(), Some(&b"50 %"[..]));
    let error = rig.state.reserve(
        rig.now,
        WorkerId(1),
        ReserveOptions::default(),
        1001,
        usize::MAX,
        &mut Changes::new(),
    );
    assert_eq!(error.unwrap_err().get("job_count"), Some("1001"));
    let delay = crate::queue::TIME_MAX + second(1);
    let error = rig.change(|state, now, changes| state.snooze(now, token, delay, changes)).unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::InvalidArgument, "queue.snooze"));
}

#[test]
fn what_waits_too_long_expires_and_is_never_handed_out() {
    let mut rig = rig(QueueConfig::default());
    let brief = rig.enqueue(&EnqueueOptions { ttl: Some(second(5)), ..EnqueueOptions::default() }).id();
    let lasting = rig.plain();
    rig.pass(second(5));
    // Nobody has looked yet.
    assert_eq!((rig.next(), rig.next()), (Some(lasting), None));
    assert_eq!(rig.tick(), 1);
    assert_eq!(rig.state_of(brief), Some(JobState::Expired));
}

#[test]
fn cancelling_reaches_a_worker_and_is_forced_in_the_end() {
    let mut rig = rig(QueueConfig::default());
    let waiting = rig.enqueue(&EnqueueOptions { delay: second(9), ..EnqueueOptions::default() }).id();
    let cancel =
        |rig: &mut Rig, id| rig.change(|state, now, changes| state.cancel(now, id, "", changes)).unwrap();
    assert_eq!(cancel(&mut rig, waiting), Cancelled::Now);
    assert_eq!(cancel(&mut rig, waiting), Cancelled::Finished(JobState::Cancelled));
    let ids: Vec<JobId> = (0..3).map(|_| rig.plain()).collect();
    let tokens = rig.reserve(3);
    rig.effects.watched = true;
    for id in &ids {
        let mut changes = Changes::new();
        let cancelled = rig.state.cancel(rig.now, *id, "not wanted", &mut changes).unwrap();
        assert_eq!(cancelled, Cancelled::Asked);
        rig.commit_keeping(&changes);
        assert_eq!(
            rig.effects.asked.pop().map(|(worker, token)| (worker, token.job)),
            Some((WorkerId(1), *id))
        );
        assert_eq!(cancel(&mut rig, *id), Cancelled::Asked, "once is enough");
    }
    assert!(rig.state.is_cancelling(rig.now, tokens[0]).unwrap());
    // One gives it back, one was just done, one does not answer.
    rig.change(|state, now, changes| state.release(now, tokens[0], changes)).unwrap();
    rig.ack(tokens[1]).unwrap();
    assert_eq!((rig.state_of(ids[0]), rig.state_of(ids[1])), (Some(JobState::Cancelled), None));
    rig.pass(second(10));
    let until = rig.change(|state, now, changes| state.extend(now, tokens[2], None, changes)).unwrap();
    assert_eq!(until.since(rig.now.at), second(20), "it is not given more time");
    rig.pass(second(20));
    rig.tick();
    assert_eq!(rig.state_of(ids[2]), Some(JobState::Cancelled));
    let told = |id: JobId| -> Vec<(u16, String)> {
        let failures = rig.state.info(rig.now, id).unwrap().failures;
        failures.into_iter().map(|failure| (failure.attempt, failure.message)).collect()
    };
    assert_eq!(told(ids[0]), [(1, "not wanted".to_owned())], "why is kept");
    assert_eq!(told(ids[2])[0], (1, "not wanted".to_owned()));
    assert_eq!((told(ids[2]).len(), told(waiting)), (2, vec![(0, "cancelled".to_owned())]));
    assert_eq!(rig.ack(tokens[2]).unwrap_err().kind(), ErrorKind::LeaseLost);
}

#[test]
fn leases_end_with_their_worker() {
    let mut counted = rig(QueueConfig { max_attempts: 1, ..QueueConfig::default() });
    let id = counted.plain();
    counted.reserve(1);
    let gone =
        counted.change(|state, now, changes| Ok(state.worker_gone(now, WorkerId(2), 10, changes))).unwrap();
    assert_eq!(gone, 0, "another's");
    counted.change(|state, now, changes| Ok(state.worker_gone(now, WorkerId(1), 10, changes))).unwrap();
    assert_eq!(counted.state_of(id), Some(JobState::Dead), "a job that kills its workers is dead in the end");

    let mut uncounted =
        rig(QueueConfig { max_attempts: 1, uncounted_on_crash: true, ..QueueConfig::default() });
    let id = uncounted.plain();
    uncounted.reserve(1);
    uncounted.change(|state, now, changes| Ok(state.worker_gone(now, WorkerId(1), 10, changes))).unwrap();
    assert_eq!((uncounted.state_of(id), uncounted.next()), (Some(JobState::Ready), Some(id)));
}

#[test]
fn a_restart_voids_leases_and_counts_their_attempts() {
    let mut rig = rig(QueueConfig { max_attempts: 2, ..QueueConfig::default() });
    let id = rig.plain();
    for attempt in 1..=2 {
        let token = rig.reserve(1)[0];
        assert_eq!(token.attempt, attempt);
        rig.reopen();
        rig.change(|state, now, changes| Ok(state.restart(now, 10, changes))).unwrap();
        rig.advance();
        assert_eq!(rig.ack(token).unwrap_err().kind(), ErrorKind::LeaseLost);
    }
    assert_eq!(rig.state_of(id), Some(JobState::Dead), "each delivery killed the host");
}

#[test]
fn finished_jobs_are_kept_as_long_and_as_many_as_was_said() {
    let keep = Keep { age: second(60), count: 3 };
    let retention = Retention { done: keep, ..Retention::default() };
    let mut rig = rig(QueueConfig { retention, ..QueueConfig::default() });
    let ids: Vec<JobId> = (0..5).map(|_| rig.plain()).collect();
    for token in rig.reserve(5) {
        rig.ack(token).unwrap();
        rig.pass(second(1));
    }
    assert_eq!(rig.state.next_due(rig.now), Some(rig.now.at), "two are too many");
    rig.tick();
    assert_eq!(rig.count(JobState::Done), 3);
    assert_eq!((rig.state_of(ids[1]), rig.state_of(ids[2])), (None, Some(JobState::Done)));
    rig.pass(second(60));
    rig.tick();
    assert_eq!(rig.count(JobState::Done), 0);
}

#[test]
fn a_result_is_kept_although_done_jobs_are_not() {
    let mut rig = rig(QueueConfig::default());
    let id = rig.plain();
    let token = rig.reserve(1)[0];
    let mut changes = Changes::new();
    rig.state.ack(rig.now, token, Some(b"42"), &mut changes).unwrap();
    rig.commit(&changes);
    assert!(rig.state.info(rig.now, id).unwrap().has_result);
    assert!(rig.state.places_of(id).unwrap().1.is_some());
    rig.reopen();
    assert!(rig.state.places_of(id).unwrap().1.is_some());
    rig.pass(second(3600));
    rig.tick();
    assert_eq!(rig.state_of(id), None);
}

#[test]
fn pausing_stops_handing_out_and_draining_stops_taking_in() {
    let mut rig = rig(QueueConfig::default());
    let id = rig.plain();
    let mode = |rig: &mut Rig, paused, draining| {
        rig.change(|state, _, changes| {
            state.mode(paused, draining, changes);
            Ok(())
        })
        .unwrap();
    };
    mode(&mut rig, true, false);
    assert_eq!((rig.next(), rig.state.available(rig.now)), (None, 0));
    rig.plain();
    rig.reopen();
    assert_eq!(rig.next(), None, "through a restart too");
    mode(&mut rig, false, true);
    let error = rig.try_enqueue(&EnqueueOptions::default()).unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Draining, true));
    assert_eq!(rig.next(), Some(id));
    assert!(!rig.state.is_idle());
}

#[test]
fn a_listing_goes_on_where_it_stopped_while_jobs_come_and_go() {
    let mut rig = rig(QueueConfig::default());
    let ids: Vec<JobId> = (0..100).map(|_| rig.plain()).collect();
    let part = rig.state.list(rig.now, JobState::Ready, None, 40).unwrap();
    rig.reserve(50);
    rig.plain();
    let cursor = Cursor::from_words(part.next.unwrap().to_words());
    let rest = rig.state.list(rig.now, JobState::Ready, Some(cursor), 1000).unwrap();
    assert_eq!(part.jobs.iter().map(|job| job.id).collect::<Vec<_>>(), ids[..40]);
    assert_eq!((rest.jobs[0].id, rest.jobs.len(), rest.next), (ids[50], 51, None));
    for bad in [0, 1001] {
        let error = rig.state.list(rig.now, JobState::Ready, None, bad).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
    let beyond = Cursor::from_words([u64::MAX; 4]);
    assert_eq!(rig.state.list(rig.now, JobState::Ready, Some(beyond), 10).unwrap(), Listed::default());
}

#[test]
fn purging_takes_what_is_asked_for_and_no_leased_job() {
    let mut rig = rig(QueueConfig::default());
    for _ in 0..5 {
        rig.plain();
    }
    rig.reserve(1);
    let error =
        rig.change(|state, now, changes| state.purge(now, JobState::Leased, 10, changes)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert_eq!(rig.change(|state, now, changes| state.purge(now, JobState::Ready, 3, changes)).unwrap(), 3);
    assert_eq!((rig.count(JobState::Ready), rig.count(JobState::Leased)), (1, 1));
}

#[test]
fn a_schedule_fires_moves_on_and_minds_its_last_job() {
    let mut rig = rig(QueueConfig::default());
    let schedule = Schedule { cron: "* * * * *".to_owned(), overlap: Overlap::Skip, ..Schedule::new("s") };
    rig.change_schedule(&schedule);
    assert!(rig.state.due_schedule(rig.now).is_none());
    rig.pass(second(60));
    assert_eq!(rig.fire(), [Some(schedule.job_id(Timestamp(rig.now.wall.0 / MINUTE * MINUTE)))]);
    assert!(rig.state.due_schedule(rig.now).is_none());
    rig.reopen();
    assert!(rig.state.due_schedule(rig.now).is_none(), "it has fired, crash or not");
    rig.pass(second(60));
    assert_eq!(rig.fire(), [None], "its last job is not done");
    let token = rig.reserve(1)[0];
    rig.ack(token).unwrap();
    rig.pass(second(60));
    assert!(matches!(rig.fire()[..], [Some(_)]));
    // The clock was ten years ahead when it last fired, and is set right.
    rig.now.wall.0 -= 315_360_000_000_000_000;
    let (_, ticks) = rig.state.due_schedule(rig.now).unwrap();
    assert!(!ticks[0].fires && ticks[0].next.0 <= rig.now.wall.0 + 60_000_000_000);
    let error = rig.state.unschedule("t", &mut Changes::new()).unwrap_err();
    assert_eq!((error.kind(), error.get("schedule")), (ErrorKind::NotFound, Some("t")));
    let never = Schedule { cron: "0 0 30 2 *".to_owned(), ..schedule };
    let error = rig.state.schedule(rig.now, &never, &mut Changes::new()).unwrap_err();
    assert_eq!((error.kind(), error.get("cron")), (ErrorKind::InvalidArgument, Some("0 0 30 2 *")));
}

#[test]
fn a_schedule_replaces_its_last_job_once_whatever_its_unique_key_does() {
    let window = Scope::Window(second(600));
    for (scope, conflict) in [
        (Scope::Active, OnConflict::ReturnExisting),
        (Scope::Active, OnConflict::Replace),
        (Scope::Active, OnConflict::Extend),
        (Scope::Active, OnConflict::KeepLast),
        (window, OnConflict::Replace),
        (window, OnConflict::KeepLast),
    ] {
        // There is room for one: the next of a schedule takes the place of the last.
        let mut rig = rig(QueueConfig { max_length: Some(1), ..QueueConfig::default() });
        let schedule = Schedule {
            cron: "* * * * *".to_owned(),
            overlap: Overlap::Replace,
            options: unique(scope, conflict),
            ..Schedule::new("s")
        };
        rig.change_schedule(&schedule);
        rig.pass(second(60));
        let first = rig.fire()[0].unwrap();
        rig.pass(second(60));
        let next = rig.fire()[0].unwrap();
        let states = (rig.state_of(first), rig.state_of(next));
        assert_eq!(states, (Some(JobState::Cancelled), Some(JobState::Ready)), "{scope:?} {conflict:?}");
        rig.reopen();
        assert_eq!((rig.next(), rig.next()), (Some(next), None));
    }
    // Its key is held although it is gone: then it stays.
    let mut rig = rig(QueueConfig::default());
    let options = unique(window, OnConflict::ReturnExisting);
    let cron = "* * * * *".to_owned();
    rig.change_schedule(&Schedule { cron, overlap: Overlap::Replace, options, ..Schedule::new("s") });
    rig.pass(second(60));
    let first = rig.fire()[0].unwrap();
    rig.pass(second(60));
    assert_eq!((rig.fire(), rig.state_of(first)), (vec![None], Some(JobState::Ready)));
}

#[test]
fn a_schedule_made_while_the_clock_was_ahead_fires_once_that_is_set_right() {
    let mut rig = rig(QueueConfig::default());
    let ten_years = 315_360_000_000_000_000;
    rig.now.wall.0 += ten_years;
    rig.change_schedule(&Schedule { cron: "* * * * *".to_owned(), ..Schedule::new("s") });
    rig.change_schedule(&Schedule { cron: "0 0 29 2 *".to_owned(), ..Schedule::new("rare") });
    rig.now.wall.0 -= ten_years;
    assert_eq!((rig.fire(), rig.fire()), (vec![None], vec![None]));
    assert!(rig.state.due_schedule(rig.now).is_none(), "both wait for their next time");
    rig.pass(second(60));
    assert!(matches!(rig.fire()[..], [Some(_)]));
}

#[test]
fn other_settings_hold_for_jobs_that_are_there() {
    let mut rig = rig(QueueConfig::default());
    for _ in 0..4 {
        rig.enqueue(&grouped("a"));
    }
    let groups = GroupLimits { concurrency: Some(1), ..GroupLimits::default() };
    rig.configure(QueueConfig { groups, ..QueueConfig::default() });
    assert_eq!(rig.reserve(4).len(), 1);
    assert_eq!(rig.count(JobState::Blocked), 3);
}

#[test]
fn settings_that_came_while_a_checkpoint_was_taken_are_read_back() {
    let mut rig = rig(QueueConfig::default());
    let config = QueueConfig { max_attempts: 9, ..QueueConfig::default() };
    rig.plain();
    rig.checkpoint_slice(0);
    rig.configure(config.clone());
    rig.finish_checkpoint();
    rig.reopen();
    assert_eq!(*rig.state.config(), config);
}

#[test]
fn a_rate_of_groups_that_was_configured_counts_through_a_restart() {
    let mut rig = rig(QueueConfig::default());
    let rate = Rate { count: 1, per: second(10), burst: 1 };
    let groups = GroupLimits { rate: Some(rate), ..GroupLimits::default() };
    rig.configure(QueueConfig { groups, ..QueueConfig::default() });
    for _ in 0..2 {
        rig.enqueue(&grouped("a"));
    }
    assert_eq!(rig.reserve(2).len(), 1);
    rig.reopen();
    assert_eq!(rig.reserve(2).len(), 0, "ten seconds have not passed");
    // Without a rate nothing is counted, and nothing is left to be counted on.
    rig.configure(QueueConfig::default());
    rig.configure(QueueConfig {
        groups: GroupLimits { rate: Some(rate), ..GroupLimits::default() },
        ..QueueConfig::default()
    });
    assert_eq!(rig.reserve(2).len(), 1);
}

#[test]
fn a_group_that_is_gone_is_forgotten_when_its_rate_is() {
    let rate = Rate { count: 1, per: second(10), burst: 1 };
    let groups = GroupLimits { rate: Some(rate), ..GroupLimits::default() };
    let mut rig = rig(QueueConfig { groups, ..QueueConfig::default() });
    rig.enqueue(&grouped("a"));
    let token = rig.reserve(1)[0];
    rig.ack(token).unwrap();
    assert_eq!(rig.state.stats(rig.now).groups, 1, "its bucket is not full");
    rig.configure(QueueConfig::default());
    assert_eq!(rig.state.stats(rig.now).groups, 0);
}

#[test]
fn a_waiting_job_takes_less_than_a_hundred_bytes() {
    let mut state = QueueState::new(QueueConfig::default(), 1);
    let options = EnqueueOptions::default();
    let (mut lsn, mut effects, mut most) = (0, Effects::default(), 0.0_f64);
    let count = 500_000u64;
    for index in 0..count {
        lsn += 1;
        let at = Now { at: Moment(index), wall: Timestamp(index) };
        let id = JobId(u128::from(JobId(u128::from(index)).mix(1)) << 64 | u128::from(index));
        let job = NewJob { id, options: &options, body: Body::default() };
        let mut changes = Changes::new();
        state.enqueue(at, &[job], &mut changes, &mut Vec::new()).unwrap();
        changes
            .iter()
            .for_each(|change| state.apply(Lsn(lsn), Place::from_bits(lsn), change, &mut effects).unwrap());
        effects.clear();
        if index >= 50_000 && index % 1000 == 0 {
            // Tables double as they grow: the worst moment counts.
            most = most.max(state.memory() as f64 / (index + 1) as f64);
        }
    }
    assert!(most < 100.0, "{most} bytes a job");
    assert!(most > 64.0, "{most} bytes a job: not all was counted");
}

#[test]
fn damage_is_named_and_changes_nothing() {
    let mut rig = rig(QueueConfig::default());
    let id = rig.plain();
    let at = rig.now.at;
    let unknown = Target::of(JobId(99));
    let job = Target::of(id);
    for change in [
        Change::Extend { job: unknown, until: at },
        Change::Extend { job, until: at },
        Change::Done { job, nonce: 1, at, keep: at, result: None },
        Change::Redrive { job, at, paced: false },
    ] {
        let error =
            rig.state.apply(Lsn(9), Place::from_bits(9), &change, &mut Effects::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{change:?}");
        assert!(error.get("job").is_some() && error.get("what").is_some(), "{error}");
    }
    assert_eq!(rig.next(), Some(id));
}

#[test]
fn an_id_of_a_batch_is_taken_only_while_its_job_is_there() {
    let keep = Keep { age: Duration::ZERO, count: 0 };
    let retention = Retention { cancelled: keep, ..Retention::default() };
    let mut rig = rig(QueueConfig { retention, ..QueueConfig::default() });
    let holder = rig.enqueue(&unique(Scope::Active, OnConflict::ReturnExisting)).id();
    let with_id = |options: EnqueueOptions| EnqueueOptions { id: Some(JobId(77)), ..options };
    let options = [
        // Not enqueued: the id is still free for the next.
        with_id(unique(Scope::Active, OnConflict::ReturnExisting)),
        with_id(EnqueueOptions::default()),
    ];
    let other = Unique { key: "other".to_owned(), scope: Scope::Active, conflict: OnConflict::Replace };
    let other = EnqueueOptions { unique: Some(other), ..EnqueueOptions::default() };
    let again = [
        EnqueueOptions { id: Some(JobId(78)), ..other.clone() },
        // Replaced, and nothing is kept of it: that id is free, too.
        other,
        EnqueueOptions { id: Some(JobId(78)), ..EnqueueOptions::default() },
    ];
    let mut enqueue = |all: &[EnqueueOptions]| {
        let ids: Vec<JobId> = all.iter().map(|options| options.id.unwrap_or(JobId(79))).collect();
        let jobs: Vec<NewJob<'_>> =
            all.iter().zip(ids).map(|(options, id)| NewJob { id, options, body: Body::default() }).collect();
        let (mut changes, mut outcomes) = (Changes::new(), Vec::new());
        rig.state.enqueue(rig.now, &jobs, &mut changes, &mut outcomes).unwrap();
        rig.commit(&changes);
        outcomes
    };
    assert_eq!(enqueue(&options), [Enqueued::Existing(holder), Enqueued::New(JobId(77))]);
    let replaced = Enqueued::Replaced { id: JobId(79), replaced: JobId(78) };
    assert_eq!(enqueue(&again), [Enqueued::New(JobId(78)), replaced, Enqueued::New(JobId(78))]);
    assert_eq!(rig.count(JobState::Ready), 4);
}

#[test]
fn a_job_that_a_wrong_clock_made_ready_keeps_its_place_through_a_restart() {
    let mut rig = rig(QueueConfig::default());
    let ten_years = 315_360_000_000_000_000;
    let run_at = Some(Timestamp(rig.now.wall.0 + ten_years));
    let dated = rig.enqueue(&EnqueueOptions { run_at, ..EnqueueOptions::default() }).id();
    rig.now.wall.0 += ten_years;
    rig.advance();
    let token = rig.reserve(1)[0];
    rig.now.wall.0 -= ten_years;
    rig.pass(second(1));
    let other = rig.plain();
    rig.reopen();
    rig.change(|state, now, changes| state.release(now, token, changes)).unwrap();
    assert_eq!((rig.next(), rig.next()), (Some(dated), Some(other)));
}

#[test]
fn a_dead_job_moves_with_all_its_failures_and_one_stack_trace() {
    let mut rig = rig(QueueConfig {
        max_attempts: 2,
        backoff: Backoff::Fixed(Duration::ZERO),
        ..QueueConfig::default()
    });
    rig.enqueue(&EnqueueOptions { priority: 3, ..grouped("a") });
    let token = rig.reserve(1)[0];
    rig.nack(token).unwrap();
    rig.pass(Duration::ZERO);
    let token = rig.reserve(1)[0];
    let nack = Nack { message: "it failed", detail: "line 2", delay: None };
    let mut changes = Changes::new();
    rig.state.nack(rig.now, token, nack, &mut changes).unwrap();
    let change = changes.iter().next().unwrap();
    let job = QueueState::becomes_dead(change).unwrap();
    let (_, options, failures) = rig.state.letter(job, change).unwrap();
    assert_eq!((options.priority, options.group.as_deref()), (3, Some("a")));
    let failures: Vec<_> = failures.iter().map(|failure| (failure.attempt, &*failure.detail)).collect();
    assert_eq!(failures, [(1, ""), (2, "line 2")]);
    let mut moved = Changes::new();
    moved.push(Change::Forget { job, at: rig.now.at, moved: true });
    rig.commit(&moved);
    let totals = rig.state.stats(rig.now).totals;
    assert_eq!((totals.failed, totals.dead, totals.removed), (2, 1, 0));
}

#[test]
fn whoever_waits_is_told_when_a_failed_job_holds_up_its_group_no_more() {
    let groups = GroupLimits { concurrency: Some(1), ..GroupLimits::default() };
    let config = QueueConfig { groups, backoff: Backoff::Fixed(second(10)), ..QueueConfig::default() };
    let options = EnqueueOptions { group: Some("a".to_owned()), ..unique(Scope::Active, OnConflict::Extend) };
    let later = EnqueueOptions { delay: second(60), ..options.clone() };
    for is_put_off in [false, true] {
        let mut rig = rig(config.clone());
        let first = rig.enqueue(&options).id();
        let second = rig.enqueue(&grouped("a")).id();
        let token = rig.reserve(1)[0];
        rig.nack(token).unwrap();
        assert_eq!(rig.state.available(rig.now), 0);
        let mut changes = Changes::new();
        if is_put_off {
            let new = NewJob { id: JobId(7), options: &later, body: Body::default() };
            rig.state.enqueue(rig.now, &[new], &mut changes, &mut Vec::new()).unwrap();
        } else {
            rig.state.cancel(rig.now, first, "", &mut changes).unwrap();
        }
        rig.effects.wake = false;
        rig.commit_keeping(&changes);
        assert!(rig.effects.wake, "there is work");
        assert_eq!(rig.next(), Some(second));
    }
}

#[test]
fn a_job_that_got_its_key_and_was_put_off_waits_for_its_time_of_day_through_a_restart() {
    let mut rig = rig(QueueConfig::default());
    let options = unique(Scope::Active, OnConflict::KeepLast);
    rig.enqueue(&options);
    let token = rig.reserve(1)[0];
    let next = rig.enqueue(&options).id();
    rig.ack(token).unwrap();
    let hour = 3_600_000_000_000;
    let run_at = Some(Timestamp(rig.now.wall.0 + hour));
    let later = EnqueueOptions { run_at, ..unique(Scope::Active, OnConflict::Extend) };
    assert_eq!(rig.enqueue(&later), Enqueued::Extended(next));
    rig.reopen();
    // Somebody sets the clock an hour ahead.
    rig.now.wall.0 += hour;
    rig.advance();
    assert_eq!(rig.next(), Some(next));
}
