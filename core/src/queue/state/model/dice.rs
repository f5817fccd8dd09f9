//! What is chosen at random: settings, jobs, schedules.
#![forbid(unsafe_code)]

use super::{
    GROUPS, KEYS, PAYLOAD, SECOND, TEN_YEARS,
    lists::Model,
    schedules::{CRONS, Planned},
};
use crate::{
    clock::Timestamp,
    name::Name,
    queue::{
        change::Now,
        cron::{Misfire, Overlap, Schedule},
        job::{JobId, Token},
        options::{
            Backoff, EnqueueOptions, GroupLimits, Keep, OnConflict, QueueConfig, Rate, Retention, Scope,
            Unique,
        },
    },
};
use std::time::Duration;

/// A small generator: the same numbers for the same seed everywhere.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        JobId(u128::from(self.0)).mix(3) % sides.max(1)
    }

    pub(super) fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }

    pub(super) fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        let nth = self.roll(from.len() as u64) as usize;
        from.get(nth)
    }

    fn some_time(&mut self) -> Duration {
        Duration::from_millis(1 + self.roll(8000))
    }

    fn backoff(&mut self) -> Backoff {
        match self.roll(3) {
            0 => Backoff::default(),
            1 => Backoff::Fixed(Duration::from_millis(self.roll(3000))),
            _ => Backoff::List(vec![Duration::ZERO, Duration::from_secs(2), Duration::from_secs(1)]),
        }
    }

    fn rate(&mut self) -> Rate {
        Rate {
            count: 1 + self.roll(5) as u32,
            per: Duration::from_secs(1 + self.roll(3)),
            burst: 1 + self.roll(3) as u32,
        }
    }

    pub(super) fn config(&mut self) -> QueueConfig {
        let keep = |dice: &mut Self| Keep {
            age: Duration::from_secs(dice.roll(3) * 20),
            count: dice.roll(4) as u32 * 2,
        };
        let mut weights = std::collections::BTreeMap::new();
        for group in (1..=GROUPS).filter(|group| group % 2 == 0) {
            weights.insert(format!("g{group}"), 1 + self.roll(4) as u32);
        }
        QueueConfig {
            lease: Duration::from_secs(1 + self.roll(10)),
            max_attempts: 1 + self.roll(3) as u16,
            backoff: self.backoff(),
            deadline: self.one_in(4).then(|| Duration::from_secs(1 + self.roll(8))),
            ttl: self.one_in(4).then(|| Duration::from_secs(1 + self.roll(30))),
            max_length: (!self.one_in(20)).then(|| 5 + self.roll(20)),
            payload_bytes_max: if self.one_in(4) { 6 } else { 100 },
            concurrency: self.one_in(3).then(|| 1 + self.roll(5) as u32),
            rate: self.one_in(4).then(|| self.rate()),
            groups: GroupLimits {
                concurrency: (!self.one_in(3)).then(|| 1 + self.roll(3) as u32),
                rate: self.one_in(3).then(|| self.rate()),
                weights,
            },
            aging: self.one_in(4).then(|| Duration::from_millis(1 + self.roll(2000))),
            retention: Retention {
                done: keep(self),
                dead: keep(self),
                cancelled: keep(self),
                expired: keep(self),
            },
            dead_letter_to: self.one_in(2).then(|| Name::parse("dead").unwrap()),
            cancel_grace: Duration::from_secs(self.roll(6)),
            uncounted_on_crash: self.one_in(2),
            ..QueueConfig::default()
        }
    }

    pub(super) fn unique(&mut self) -> Unique {
        let window = self.some_time();
        Unique {
            key: format!("k{}", self.roll(KEYS)),
            scope: [Scope::Waiting, Scope::Active, Scope::Window(window)][self.roll(3) as usize],
            conflict: [
                OnConflict::ReturnExisting,
                OnConflict::Replace,
                OnConflict::Extend,
                OnConflict::KeepLast,
            ][self.roll(4) as usize],
        }
    }

    /// What one job wants; some have an id that there is, or was.
    pub(super) fn options(&mut self, now: Now, known: &[JobId], is_grouped: bool) -> EnqueueOptions {
        let delayed = self.one_in(4);
        EnqueueOptions {
            id: if self.one_in(8) { self.pick(known).copied() } else { None },
            delay: if delayed { self.some_time() } else { Duration::ZERO },
            run_at: (!delayed && self.one_in(8)).then(|| self.time_of_day(now)),
            lease: self.one_in(6).then(|| Duration::from_secs(1 + self.roll(20))),
            deadline: self.one_in(8).then(|| self.some_time()),
            ..self.options_of_schedule(is_grouped)
        }
    }

    /// A little before or after now; or so far off that only a jump of the clock gets there.
    fn time_of_day(&mut self, now: Now) -> Timestamp {
        let ahead = if self.one_in(4) { self.roll(TEN_YEARS) } else { self.roll(12) * SECOND };
        Timestamp((now.wall.0 + ahead).saturating_sub(2 * SECOND))
    }

    fn options_of_schedule(&mut self, is_grouped: bool) -> EnqueueOptions {
        EnqueueOptions {
            priority: if self.one_in(2) { 0 } else { self.roll(3) as u8 * 7 },
            ttl: self.one_in(5).then(|| self.some_time()),
            unique: self.one_in(4).then(|| self.unique()),
            group: (is_grouped && self.one_in(2)).then(|| format!("g{}", 1 + self.roll(GROUPS))),
            max_attempts: self.one_in(6).then(|| 1 + self.roll(4) as u16),
            backoff: self.one_in(8).then(|| self.backoff()),
            result_ttl: self.one_in(8).then(|| self.some_time()),
            ..EnqueueOptions::default()
        }
    }

    pub(super) fn payload(&mut self) -> &'static [u8] {
        &PAYLOAD[..self.roll(PAYLOAD.len() as u64 + 1) as usize]
    }

    pub(super) fn schedule(&mut self, is_grouped: bool) -> Planned {
        let cron = *self.pick(&CRONS).unwrap();
        let schedule = Schedule {
            cron: cron.expression.to_owned(),
            zone: cron.zone.to_owned(),
            misfire: [Misfire::Skip, Misfire::RunOnce, Misfire::RunAll][self.roll(3) as usize],
            overlap: [Overlap::Allow, Overlap::Skip, Overlap::Replace][self.roll(3) as usize],
            jitter: if self.one_in(3) { self.some_time() } else { Duration::ZERO },
            options: self.options_of_schedule(is_grouped),
            payload: self.payload().to_vec(),
            ..Schedule::new(format!("s{}", self.roll(3)))
        };
        Planned { schedule, cron, next: 0, fired: 0, job: None }
    }

    /// A token of a leased job, or one that is of no use any more.
    pub(super) fn token(&mut self, model: &Model) -> Option<Token> {
        if self.one_in(6) {
            let stale: Vec<Token> = model.lost.iter().rev().take(20).copied().collect();
            return self.pick(&stale).copied();
        }
        let token = self.pick(&model.leased()).copied()?;
        match self.roll(20) {
            0 => Some(Token { nonce: token.nonce ^ 1 << 50, ..token }),
            1 => Some(Token { attempt: token.attempt + 1, ..token }),
            _ => Some(token),
        }
    }
}
