//! Schedules, by division: every expression here stands for times that are evenly spread.
#![forbid(unsafe_code)]

use super::{SECOND, lists::Model};
use crate::{
    clock::Timestamp,
    queue::{
        cron::{Misfire, Overlap, Schedule, Tick},
        job::{Enqueued, JobId},
    },
};

/// An expression, and what it comes to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cron {
    pub(super) expression: &'static str,
    pub(super) zone: &'static str,
    /// In seconds: how far apart, and the first since 1970 in UTC.
    every: u64,
    first: u64,
}

pub(super) const CRONS: [Cron; 6] = [
    Cron { expression: "*/10 * * * * *", zone: "UTC", every: 10, first: 0 },
    Cron { expression: "5,25,45 * * * * *", zone: "UTC", every: 20, first: 5 },
    Cron { expression: "* * * * *", zone: "Asia/Kolkata", every: 60, first: 0 },
    Cron { expression: "*/15 * * * *", zone: "UTC", every: 900, first: 0 },
    // Five and a half hours ahead, all year.
    Cron { expression: "30 6 * * *", zone: "Asia/Kolkata", every: 86_400, first: 3600 },
    // The first of 1970 was a Thursday.
    Cron { expression: "0 0 * * thu", zone: "UTC", every: 604_800, first: 0 },
];

#[derive(Clone, Debug)]
pub(super) struct Planned {
    pub(super) schedule: Schedule,
    pub(super) cron: Cron,
    pub(super) next: u64,
    /// The time it fired for last; 0 for never.
    pub(super) fired: u64,
    pub(super) job: Option<JobId>,
}

const MINUTE: u64 = 60 * SECOND;
const DAY: u64 = 86_400 * SECOND;

impl Planned {
    pub(super) fn after(&self, at: u64) -> u64 {
        let (every, first) = (self.cron.every * SECOND, self.cron.first * SECOND);
        if at < first { first } else { first + ((at - first) / every + 1) * every }
    }

    /// What is to happen at `wall`.
    fn ticks(&self, wall: u64) -> Vec<Tick> {
        let next = self.after(wall);
        let pass = |at, next| vec![Tick { at: Timestamp(at), fires: false, next: Timestamp(next) }];
        // The clock was more than a day ahead.
        let had_fired = self.fired > wall + DAY;
        if had_fired || self.fired == 0 && self.next > wall + DAY && next < self.next {
            return pass(wall, next);
        }
        if self.next > wall {
            return Vec::new();
        }
        let mut times = Vec::new();
        let most = match self.schedule.misfire {
            Misfire::Skip => 0,
            Misfire::RunOnce => 1,
            Misfire::RunAll => 100,
        };
        let mut time = self.next;
        while time < wall - MINUTE && times.len() < most {
            times.push(time);
            time = self.after(time);
        }
        time = self.next.max(self.after(wall - MINUTE - 1));
        while time <= wall {
            times.push(time);
            time = self.after(time);
        }
        if times.is_empty() {
            return pass(self.next, next);
        }
        times.push(next);
        let pairs = times.windows(2);
        pairs.map(|pair| Tick { at: Timestamp(pair[0]), fires: true, next: Timestamp(pair[1]) }).collect()
    }
}

impl Model {
    pub(super) fn due_schedule(&self) -> Option<(String, Vec<Tick>)> {
        self.schedules.iter().find_map(|(name, planned)| {
            let ticks = planned.ticks(self.now.wall.0);
            (!ticks.is_empty()).then(|| (name.clone(), ticks))
        })
    }

    /// Gives the job, if there is one for this time.
    pub(super) fn fire(&mut self, name: &str, tick: Tick) -> Option<JobId> {
        let planned = self.schedules[name].clone();
        let last = planned.job.filter(|id| self.index(*id).is_some_and(|index| !self.jobs[index].is_over()));
        let passes = !tick.fires || planned.schedule.overlap == Overlap::Skip && last.is_some();
        let mut job = None;
        if !passes {
            let (id, options) = (planned.schedule.job_id(tick.at), planned.schedule.options_for(tick.at));
            assert!(options.delay <= planned.schedule.jitter);
            let bytes = planned.schedule.payload.len();
            // First with the last one cancelled; if that gives no new job, as if it were not to be replaced.
            let replaced = last.filter(|_| planned.schedule.overlap == Overlap::Replace);
            for replaced in [replaced, None] {
                let mut trial = self.clone();
                if let Some(id) = replaced {
                    trial.cancel(id);
                }
                let Ok(outcomes) = trial.enqueue_all(&[(id, &options, bytes)]) else { break };
                let is_new = matches!(outcomes[0], Enqueued::New(_) | Enqueued::Replaced { .. });
                if is_new || replaced.is_none() {
                    *self = trial;
                    job = (outcomes[0].id() == id).then_some(id);
                    break;
                }
            }
        }
        let planned = self.schedules.get_mut(name).expect("it is there");
        (planned.fired, planned.next) = (tick.at.0, tick.next.0);
        planned.job = job.or(planned.job);
        job
    }
}
