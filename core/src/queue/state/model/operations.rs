//! One operation after the other, on the state machine and on the lists; what it gives must be the same.
#![forbid(unsafe_code)]

use super::{
    WORKERS,
    dice::Dice,
    lists::{At, Due, Model, ns},
};
use crate::{
    clock::Moment,
    error::ErrorKind,
    queue::{
        change::{Body, Cause, Change, Changes, Target},
        job::{JobId, JobState, Token, WorkerId},
        options::{EnqueueOptions, QueueConfig, Rate, ReserveOptions, Unique},
        state::{Effects, Nack, NewJob, QueueState, tests::Rig},
    },
};
use std::time::Duration;

/// A queue, and the one that its dead jobs move to.
pub(super) struct Side<'a> {
    pub(super) dice: &'a mut Dice,
    pub(super) rig: &'a mut Rig,
    pub(super) model: &'a mut Model,
    pub(super) dead: Option<&'a mut Rig>,
    /// Ids that jobs have or had.
    pub(super) known: &'a mut Vec<JobId>,
    pub(super) is_grouped: bool,
}

impl Side<'_> {
    pub(super) fn operate(&mut self) {
        match self.dice.roll(62) {
            0..12 => self.enqueue(),
            12..20 => self.reserve(),
            20..25 => self.ack(),
            25..30 => self.give_back(),
            30 => self.extend(),
            31 | 32 => self.cancel(),
            33 => self.worker_gone(),
            34 | 35 => self.redrive(),
            36 => self.redrive_dead(),
            37 => self.redrive_at(),
            38 => self.mode(),
            39 => self.purge(),
            40 => self.remove(),
            41 | 42 => self.ack_many(),
            43..46 => self.ack_and_reserve(),
            46 => self.progress(),
            47 if self.dice.one_in(2) => self.configure(),
            48 => self.schedule(),
            49 | 50 => self.rewrite(),
            _ => self.tick(),
        }
    }

    /// As the driver does: jobs that become dead move where they are taken.
    fn commit(&mut self, changes: &Changes<'_>) {
        let moves = self.rig.state.config().dead_letter_to.is_some();
        match &mut self.dead {
            Some(dead) if moves => commit_moving(self.rig, dead, changes),
            _ => self.rig.commit(changes),
        }
    }

    fn any(&mut self) -> Option<JobId> {
        let any: Vec<JobId> = self.model.jobs.iter().map(|job| job.id).collect();
        self.dice.pick(&any).copied()
    }

    fn enqueue(&mut self) {
        let count = if self.dice.one_in(2) { 1 } else { self.dice.roll(8) };
        let mut all: Vec<(JobId, EnqueueOptions, &'static [u8])> = Vec::new();
        let mut own = Vec::new();
        // Some batches are all about one key.
        let key = self.dice.one_in(3).then(|| self.dice.unique().key);
        for _ in 0..count {
            // Ids that a caller chose may come twice in one call.
            let ids = if own.is_empty() || self.dice.one_in(2) { &*self.known } else { &own };
            let mut options = self.dice.options(self.rig.now, ids, self.is_grouped);
            if self.dice.one_in(8) {
                options.id = Some(self.rig.new_id());
            }
            if let Some(key) = key.clone()
                && self.dice.one_in(2)
            {
                options.unique = Some(Unique { key, ..self.dice.unique() });
            }
            options.validate().unwrap();
            own.extend(options.id);
            let id = options.id.unwrap_or_else(|| self.rig.new_id());
            all.push((id, options, self.dice.payload()));
        }
        let jobs: Vec<NewJob<'_>> = all
            .iter()
            .map(|(id, options, payload)| NewJob {
                id: *id,
                options,
                body: Body { payload, ..Body::default() },
            })
            .collect();
        let listed: Vec<_> = all.iter().map(|(id, options, payload)| (*id, options, payload.len())).collect();
        let (mut changes, mut outcomes) = (Changes::new(), Vec::new());
        let planned = self.rig.state.enqueue(self.rig.now, &jobs, &mut changes, &mut outcomes);
        match self.model.enqueue_all(&listed) {
            Err(kind) => assert_eq!(planned.unwrap_err().kind(), kind),
            Ok(expected) => {
                planned.unwrap();
                assert_eq!(outcomes, expected);
                self.commit(&changes);
                self.known.extend(all.iter().map(|(id, ..)| *id));
                let old = self.known.len().saturating_sub(50);
                self.known.drain(..old);
            }
        }
    }

    /// Whom, for how long, how many, and how much of it.
    fn reservation(&mut self) -> (u64, Option<Duration>, usize, usize) {
        let (worker, most) = (1 + self.dice.roll(WORKERS), 1 + self.dice.roll(4) as usize);
        let lease = self.dice.one_in(4).then(|| Duration::from_secs(1 + self.dice.roll(5)));
        let bytes_max = if self.dice.one_in(3) { self.dice.roll(20) as usize } else { usize::MAX };
        (worker, lease, most, bytes_max)
    }

    fn reserve(&mut self) {
        let (worker, lease, most, bytes_max) = self.reservation();
        let (now, options) = (self.rig.now, ReserveOptions { lease });
        let mut changes = Changes::new();
        let state = &self.rig.state;
        assert!(self.model.next().is_none() || state.available(now) > 0);
        let given = state.reserve(now, WorkerId(worker), options, most, bytes_max, &mut changes).unwrap();
        let expected = self.model.reserve(worker, lease, most, bytes_max);
        assert_eq!((given, targets(&changes)), (expected.len(), expected));
        self.commit(&changes);
        self.note_tokens(&targets(&changes));
    }

    fn note_tokens(&mut self, leased: &[JobId]) {
        for id in leased {
            let (worker, token) = self.rig.state.token_of(*id).expect("it was just leased");
            let delivery = self.rig.state.delivery(Target::of(*id)).expect("it was just leased");
            let index = self.model.index(*id).expect("it is there");
            let most = self.model.max_attempts(&self.model.jobs[index]);
            let job = &mut self.model.jobs[index];
            job.token = token;
            assert_eq!((token.attempt, worker), (job.attempt, WorkerId(job.worker)));
            assert_eq!((delivery.token, delivery.max_attempts), (token, most));
            assert_eq!((delivery.until, delivery.deadline), (Moment(job.due), Moment(job.deadline)));
        }
    }

    fn ack(&mut self) {
        let Some(token) = self.dice.token(self.model) else { return };
        let done = self.dice.one_in(3).then(|| self.dice.payload());
        let mut changes = Changes::new();
        let result =
            self.rig.state.ack(self.rig.now, token, done, &mut changes).map_err(|error| error.kind());
        if done.is_some_and(|done| done.len() > self.model.config.payload_bytes_max as usize) {
            assert_eq!(result, Err(ErrorKind::TooLarge));
            return;
        }
        assert_eq!(result, self.model.ack(token, done.is_some(), result), "{token:?}");
        self.commit(&changes);
        if self.dice.one_in(3) {
            self.model.lost.push(token);
        }
    }

    fn tokens(&mut self) -> Vec<Token> {
        (0..4).filter_map(|_| self.dice.token(self.model)).collect()
    }

    fn ack_many(&mut self) {
        let tokens = self.tokens();
        let mut changes = Changes::new();
        let results = self
            .rig
            .state
            .ack_many(self.rig.now, tokens.iter().map(|token| (*token, None)), &mut changes)
            .unwrap();
        self.compare_acks(&tokens, results);
        self.commit(&changes);
    }

    fn compare_acks(&mut self, tokens: &[Token], results: Vec<crate::Result<()>>) {
        assert_eq!(results.len(), tokens.len());
        for (token, result) in tokens.iter().zip(results) {
            let result = result.map_err(|error| error.kind());
            assert_eq!(result, self.model.ack(*token, false, result), "{token:?}");
        }
    }

    /// Both planned on what is there, the acks first; as if they came after what is reserved.
    fn ack_and_reserve(&mut self) {
        if self.model.groups() > 0 || self.model.config.concurrency.is_some() {
            return self.ack_many();
        }
        let tokens = self.tokens();
        let (worker, lease, most, bytes_max) = self.reservation();
        let (now, options) = (self.rig.now, ReserveOptions { lease });
        let mut changes = Changes::new();
        let results =
            self.rig.state.ack_many(now, tokens.iter().map(|token| (*token, None)), &mut changes).unwrap();
        let acks = changes.len();
        let state = &self.rig.state;
        let given = state.reserve(now, WorkerId(worker), options, most, bytes_max, &mut changes).unwrap();
        let expected = self.model.reserve(worker, lease, most, bytes_max);
        let found: Vec<JobId> = changes.iter().skip(acks).map(target).collect();
        assert_eq!((given, &found), (expected.len(), &expected));
        self.compare_acks(&tokens, results);
        self.commit(&changes);
        self.note_tokens(&found);
    }

    fn give_back(&mut self) {
        let Some(token) = self.dice.token(self.model) else { return };
        let (now, delay) =
            (self.rig.now, self.dice.one_in(3).then(|| Duration::from_millis(self.dice.roll(5000))));
        let cause =
            [Cause::Released, Cause::Snoozed, Cause::Rejected, Cause::Nacked][self.dice.roll(4) as usize];
        let nack = Nack { message: "it failed", detail: "somewhere", delay };
        let put_off = delay.unwrap_or(Duration::from_secs(1));
        let mut changes = Changes::new();
        let state = &self.rig.state;
        let (result, delay) = match cause {
            Cause::Released => (state.release(now, token, &mut changes), None),
            Cause::Snoozed => (state.snooze(now, token, put_off, &mut changes), Some(ns(put_off))),
            Cause::Rejected => (state.reject(now, token, nack, &mut changes), None),
            _ => (state.nack(now, token, nack, &mut changes), delay.map(ns)),
        };
        match self.model.held(token) {
            None => assert_eq!(result.unwrap_err().kind(), ErrorKind::LeaseLost),
            Some(index) => {
                result.unwrap();
                self.model.give_back(index, cause, delay, true);
                self.model.settle();
                self.model.lost.push(token);
            }
        }
        self.commit(&changes);
    }

    fn extend(&mut self) {
        let Some(token) = self.dice.token(self.model) else { return };
        let lease = self.dice.one_in(2).then(|| Duration::from_secs(1 + self.dice.roll(9)));
        let mut changes = Changes::new();
        let result = self.rig.state.extend(self.rig.now, token, lease, &mut changes);
        let is_cancelling = self.rig.state.is_cancelling(self.rig.now, token).ok();
        match self.model.held(token) {
            None => {
                assert_eq!(result.unwrap_err().kind(), ErrorKind::LeaseLost);
                assert_eq!(is_cancelling, None);
            }
            Some(index) => {
                let usual = self.model.usual_lease(&self.model.jobs[index]);
                let job = &mut self.model.jobs[index];
                assert_eq!(is_cancelling, Some(job.asked > 0));
                if job.asked == 0 {
                    let until = (self.rig.now.at.0 + ns(lease.unwrap_or(usual))).min(job.deadline);
                    job.due = job.due.max(until);
                }
                assert_eq!(result.unwrap(), Moment(job.due));
            }
        }
        self.commit(&changes);
    }

    fn progress(&mut self) {
        let Some(token) = self.dice.token(self.model) else { return };
        let percent = self.dice.roll(100) as u8;
        let job = self.rig.state.progress(self.rig.now, token, &[percent]);
        match self.model.held(token) {
            None => assert_eq!(job.unwrap_err().kind(), ErrorKind::LeaseLost),
            Some(index) => {
                self.rig.state.note_progress(job.unwrap(), &[percent], &mut Effects::default());
                self.model.jobs[index].progress = Some(percent);
            }
        }
    }

    fn cancel(&mut self) {
        let Some(id) = self.any() else { return };
        let mut changes = Changes::new();
        let outcome = self.rig.state.cancel(self.rig.now, id, "", &mut changes).unwrap();
        assert_eq!(outcome, self.model.cancel(id));
        self.commit(&changes);
    }

    fn worker_gone(&mut self) {
        let (worker, most) = (1 + self.dice.roll(WORKERS), 1 + self.dice.roll(3) as usize);
        self.end_leases(Cause::WorkerGone, most, Some(worker));
    }

    /// Ends the leases of one worker, or all, so many at a time.
    pub(super) fn end_leases(&mut self, cause: Cause, most: usize, worker: Option<u64>) {
        loop {
            let mut changes = Changes::new();
            let (now, state) = (self.rig.now, &self.rig.state);
            let count = match worker {
                Some(worker) => state.worker_gone(now, WorkerId(worker), most, &mut changes),
                None => state.restart(now, most, &mut changes),
            };
            let leased = self.model.jobs.iter().filter(|job| job.stage == At::Leased);
            let his = leased.filter(|job| worker.is_none_or(|worker| job.worker == worker));
            let mut gone: Vec<_> = his.map(|job| (job.due, job.seq, job.id)).collect();
            gone.sort_unstable();
            let ids: Vec<JobId> = gone.into_iter().take(most).map(|(_, _, id)| id).collect();
            assert_eq!((count, targets(&changes)), (ids.len(), ids.clone()));
            for id in ids {
                let index = self.model.index(id).expect("it is there");
                let delay = (cause == Cause::Restarted).then_some(0);
                self.model.give_back(index, cause, delay, false);
                self.model.settle();
            }
            self.commit(&changes);
            self.rig.advance();
            self.model.advance();
            if count < most {
                return;
            }
        }
    }

    fn redrive(&mut self) {
        let over: Vec<JobId> = self.model.jobs.iter().filter(|job| job.is_over()).map(|job| job.id).collect();
        let mut ids: Vec<JobId> =
            (0..=self.dice.roll(3)).filter_map(|_| self.dice.pick(&over).copied()).collect();
        let mut expected = Ok(());
        if self.dice.one_in(6)
            && let Some(id) = self.any()
            && !over.contains(&id)
        {
            ids.push(id);
            expected = Err(ErrorKind::InvalidArgument);
        } else if self.dice.one_in(6) {
            ids.push(JobId(1));
            expected = Err(ErrorKind::NotFound);
        }
        let mut changes = Changes::new();
        let result = self.rig.state.redrive(self.rig.now, &ids, &mut changes).map_err(|error| error.kind());
        assert_eq!(result, expected);
        if expected.is_ok() {
            for (nth, id) in ids.iter().enumerate() {
                if !ids[..nth].contains(id) {
                    self.model.redrive(*id);
                }
            }
            self.commit(&changes);
        }
    }

    fn redrive_dead(&mut self) {
        let most = 1 + self.dice.roll(3) as usize;
        let dead = self.model.in_state(JobState::Dead);
        let dead: Vec<JobId> = dead.iter().take(most).map(|job| job.id).collect();
        let mut changes = Changes::new();
        assert_eq!(self.rig.state.redrive_dead(self.rig.now, most, &mut changes), dead.len());
        dead.into_iter().for_each(|id| self.model.redrive(id));
        self.commit(&changes);
    }

    fn redrive_at(&mut self) {
        let rate = Rate { count: 1 + self.dice.roll(3) as u32, per: Duration::from_secs(2), burst: 1 };
        let dead = self.model.in_state(JobState::Dead).len() as u64;
        let count = self.dice.roll(5);
        let mut changes = Changes::new();
        self.rig.state.redrive_at(count, rate, &mut changes).unwrap();
        let (count, interval) = (count.min(dead), ns(rate.per).div_ceil(u64::from(rate.count)));
        self.model.redriving = (count > 0).then_some((count, interval, self.rig.now.at.0));
        self.commit(&changes);
    }

    fn mode(&mut self) {
        (self.model.paused, self.model.draining) = (self.dice.one_in(3), self.dice.one_in(4));
        let mut changes = Changes::new();
        self.rig.state.mode(self.model.paused, self.model.draining, &mut changes);
        self.commit(&changes);
    }

    fn purge(&mut self) {
        let state = JobState::ALL[self.dice.roll(9) as usize];
        let most = if self.dice.one_in(3) { 1000 } else { 1 + self.dice.roll(3) as usize };
        let mut changes = Changes::new();
        let result = self.rig.state.purge(self.rig.now, state, most, &mut changes);
        if state == JobState::Leased {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidArgument);
            return;
        }
        let gone = targets(&changes);
        assert_eq!((result.unwrap(), gone.len()), (gone.len(), self.model.in_state(state).len().min(most)));
        for id in &gone {
            assert_eq!(self.model.state(&self.model.jobs[self.model.index(*id).unwrap()]), state);
        }
        for id in gone {
            self.model.remove(self.model.index(id).expect("it is there"));
        }
        self.commit(&changes);
    }

    fn remove(&mut self) {
        let Some(id) = self.any() else { return };
        let index = self.model.index(id).expect("it is there");
        let mut changes = Changes::new();
        let removed = self.rig.state.forget(self.rig.now, id, &mut changes);
        if self.model.jobs[index].stage == At::Leased {
            assert_eq!(removed.unwrap_err().kind(), ErrorKind::InvalidArgument);
            return;
        }
        removed.unwrap();
        self.model.remove(index);
        self.commit(&changes);
    }

    /// All settings anew, or some.
    fn configure(&mut self) {
        let (old, new) = (self.model.config.clone(), self.dice.config());
        let config = match self.dice.roll(6) {
            0 => new,
            1 => QueueConfig { rate: new.rate, concurrency: new.concurrency, ..old },
            2 => QueueConfig { groups: new.groups, ..old },
            3 => QueueConfig { retention: new.retention, max_length: new.max_length, ttl: new.ttl, ..old },
            4 => QueueConfig {
                lease: new.lease,
                deadline: new.deadline,
                backoff: new.backoff,
                max_attempts: new.max_attempts,
                ..old
            },
            _ => QueueConfig { aging: new.aging, dead_letter_to: new.dead_letter_to, ..old },
        };
        let was = self.model.config.clone();
        self.rig.configure(config.clone());
        self.model.configure(&config);
        if self.dice.one_in(3) {
            // Somebody thinks better of it.
            self.rig.configure(was.clone());
            self.model.configure(&was);
        }
    }

    fn schedule(&mut self) {
        let (now, mut planned) = (self.rig.now, self.dice.schedule(self.is_grouped));
        let name = planned.schedule.name.clone();
        let mut changes = Changes::new();
        if self.dice.one_in(3) {
            let result = self.rig.state.unschedule(&name, &mut changes).map_err(|error| error.kind());
            let removed = self.model.schedules.remove(&name).map(|_| ());
            assert_eq!(result, removed.ok_or(ErrorKind::NotFound));
            return self.commit(&changes);
        }
        planned.schedule.validate().unwrap();
        self.rig.state.schedule(now, &planned.schedule, &mut changes).unwrap();
        self.commit(&changes);
        planned.next = planned.after(now.wall.0);
        self.model.schedules.insert(name, planned);
    }

    /// Content or a result moves on, and nothing else is to be seen of it.
    fn rewrite(&mut self) {
        let places: Vec<u64> = self.rig.kept.keys().copied().collect();
        if let Some(place) = self.dice.pick(&places) {
            self.rig.rewrite(*place);
        }
    }

    /// What time makes necessary: so much at a time, and one schedule.
    fn tick(&mut self) {
        let most = if self.dice.one_in(3) { 1 + self.dice.roll(4) as usize } else { 1000 };
        let mut changes = Changes::new();
        assert_eq!(self.rig.state.tick(self.rig.now, most, &mut changes), changes.len());
        let expected = self.model.due(most);
        let found: Vec<(Due, JobId)> = changes.iter().map(|change| (due(change), target(change))).collect();
        for ((what, at, id), (found, job)) in expected.iter().zip(&found) {
            assert_eq!(what, found, "{expected:?} {changes:?}");
            // Of those asked at one time any may be first.
            let asked = self.model.index(*job).map(|index| self.model.jobs[index].asked);
            assert!(id == job || *found == Due::Cancelled && asked == Some(*at), "{expected:?} {changes:?}");
        }
        assert_eq!(expected.len(), found.len(), "{expected:?} {changes:?}");
        self.commit(&changes);
        for (what, id) in found {
            self.model.let_pass(what, id);
        }
        let due = self.rig.state.due_schedule(self.rig.now);
        assert_eq!(due, self.model.due_schedule());
        let Some((name, ticks)) = due else { return };
        // The host may end in between.
        let count = if self.dice.one_in(8) { self.dice.roll(3) as usize } else { usize::MAX };
        for tick in ticks.into_iter().take(count) {
            assert_eq!(self.rig.fire_tick(&name, tick), self.model.fire(&name, tick), "{tick:?}");
        }
    }
}

/// What the driver writes for jobs that become dead where others are to have them.
fn commit_moving(from: &mut Rig, to: &mut Rig, changes: &Changes<'_>) {
    let letter = |change| {
        let job = QueueState::becomes_dead(change)?;
        let (place, options, failures) = from.state.letter(job, change)?;
        Some((job, from.kept[&place.to_bits()].bytes.clone(), options, failures))
    };
    let letters: Vec<_> = changes.iter().map(letter).collect();
    let (mut here, mut there) = (Changes::new(), Changes::new());
    for (change, letter) in changes.iter().zip(&letters) {
        let before = there.len();
        if let Some((job, payload, options, failures)) = letter {
            let new = NewJob { id: job.id, options, body: Body { payload, ..Body::default() } };
            // One that is not taken gives an error, or nothing.
            let _ = to.state.letter_in(to.now, &new, before as u64, failures, &mut there);
        }
        here.push(match letter {
            Some((job, ..)) if there.len() > before => {
                Change::Forget { job: *job, at: from.now.at, moved: true }
            }
            _ => change.clone(),
        });
    }
    from.commit(&here);
    to.commit(&there);
}

fn due(change: &Change<'_>) -> Due {
    match change {
        Change::Return { cause: Cause::LeaseExpired, .. } => Due::LeaseExpired,
        Change::Return { cause: Cause::Cancelled, .. } => Due::Cancelled,
        Change::End { expired: true, .. } => Due::Expired,
        Change::Forget { moved: false, .. } => Due::Forgotten,
        Change::Redrive { paced: true, .. } => Due::Redriven,
        other => panic!("{other:?}"),
    }
}

fn target(change: &Change<'_>) -> JobId {
    match change {
        Change::Reserve { job, .. }
        | Change::Return { job, .. }
        | Change::End { job, .. }
        | Change::Forget { job, .. }
        | Change::Redrive { job, .. } => job.id,
        other => panic!("{other:?}"),
    }
}

fn targets(changes: &Changes<'_>) -> Vec<JobId> {
    changes.iter().map(target).collect()
}
