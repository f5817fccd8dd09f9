//! Looking at a queue: jobs by state, one job, what a worker is told.
#![forbid(unsafe_code)]

use super::{
    super::{
        change::{Now, Target},
        cron::Schedule,
        job::{JobId, JobInfo, JobState, Token, WorkerId},
        options::Check,
        order::Key,
    },
    KeyRole, NEVER, QueueState, Stage,
};
use crate::{
    clock::{Moment, Timestamp},
    error::{Error, ErrorKind, Result},
    ledger::Place,
};
use std::time::Duration;

/// Where a listing goes on. Opaque; good for as long as the queue is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    stage: u8,
    from: Key,
}

impl Cursor {
    /// As numbers, to be sent.
    pub fn to_words(self) -> [u64; 4] {
        let [a, b, c] = self.from;
        [u64::from(self.stage), a, b, c]
    }

    /// From what was sent. Any numbers are a cursor; the listing then goes on somewhere.
    pub fn from_words([stage, a, b, c]: [u64; 4]) -> Self {
        Self { stage: stage.min(u64::from(u8::MAX)) as u8, from: [a, b, c] }
    }
}

/// A part of a listing.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Listed {
    /// The jobs.
    pub jobs: Vec<JobInfo>,
    /// Where to go on; none at the end.
    pub next: Option<Cursor>,
}

/// What a worker is told with a job; its content is read apart.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// What proves that the job is its own.
    pub token: Token,
    /// Attempts it may have.
    pub max_attempts: u16,
    /// 0 to 255.
    pub priority: u8,
    /// How often it was redriven.
    pub redrives: u32,
    /// Its group.
    pub group: Option<String>,
    /// When the lease ends.
    pub until: Moment,
    /// When it ends however often it is extended.
    pub deadline: Moment,
    /// Where its content lies.
    pub place: Place,
}

impl QueueState {
    /// Jobs in `state`, in the order in which something happens to them: ready ones as they would be handed out,
    /// group by group; others by what they wait for; finished ones by when they are forgotten. At most `most`
    /// (1 to 1000), and fewer before the end if many others had to be passed over.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidArgument`]: `most` is out of bounds.
    pub fn list(&self, now: Now, state: JobState, cursor: Option<Cursor>, most: usize) -> Result<Listed> {
        if !(1..=LIST_MAX).contains(&most) {
            return Err(Check("queue.list").refuse("count", most, format_args!("1 to {LIST_MAX}")));
        }
        let mut listed = Listed::default();
        let cursor = cursor.unwrap_or_default();
        let mut looks = 0;
        for stage in stages(state).iter().filter(|stage| **stage as u8 >= cursor.stage) {
            let from = if *stage as u8 == cursor.stage { cursor.from } else { [0; 3] };
            let key_of = |slot: u32| self.cells.get(slot).key(self.aging_ns);
            for slot in self.orders[*stage as usize].from(from, key_of) {
                if listed.jobs.len() == most || looks == LOOKS_MAX {
                    listed.next = Some(Cursor { stage: *stage as u8, from: key_of(slot) });
                    return Ok(listed);
                }
                looks += 1;
                if self.state_of(slot) == state {
                    listed.jobs.push(self.info_at(now, slot));
                }
            }
        }
        Ok(listed)
    }

    /// The slots of all jobs in `state`, in order.
    pub(super) fn in_state(&self, state: JobState) -> impl Iterator<Item = u32> {
        let orders = stages(state).iter().map(|stage| &self.orders[*stage as usize]);
        orders.flat_map(super::Order::iter).filter(move |slot| self.state_of(*slot) == state)
    }

    /// Whether a job of this id is there, whatever its state.
    pub(in super::super) fn has(&self, id: JobId) -> bool {
        self.find(Target::of(id)).is_some()
    }

    /// One job.
    ///
    /// # Errors
    /// - [`ErrorKind::NotFound`]: there is none of this id.
    pub fn info(&self, now: Now, id: JobId) -> Result<JobInfo> {
        match self.find(Target::of(id)) {
            Some(slot) => Ok(self.info_at(now, slot)),
            None => Err(Error::new(ErrorKind::NotFound, "queue.get").with("job", id)),
        }
    }

    fn info_at(&self, now: Now, slot: u32) -> JobInfo {
        let (cell, more, state) = (self.cells.get(slot), self.more(slot), self.state_of(slot));
        let wall = |at: u64| wall_of(now, at);
        let lease = more.filter(|_| cell.stage == Stage::Leased).map(|more| more.lease);
        let due = match cell.stage {
            Stage::Dated => Some(Timestamp(cell.due)),
            Stage::Ready | Stage::Held | Stage::None => None,
            _ => Some(wall(cell.due)),
        };
        let unique = more.and_then(|more| more.unique.as_deref());
        JobInfo {
            id: cell.id(),
            state,
            priority: cell.priority,
            attempt: cell.attempt,
            max_attempts: self.max_attempts(slot),
            group: self.groups.get(cell.group).name.as_deref().map(str::to_owned),
            unique_key: unique
                .filter(|unique| unique.role != KeyRole::Past)
                .map(|unique| unique.key.to_string()),
            since: wall(cell.at),
            due,
            expires: more.filter(|more| more.expires != NEVER).map(|more| wall(more.expires)),
            payload_bytes: cell.payload_bytes,
            redrives: more.map_or(0, |more| more.redrives),
            worker: lease.map(|lease| lease.worker),
            cancelling: lease.is_some_and(|lease| lease.asked > 0),
            progress: more.and_then(|more| more.progress.clone()),
            has_result: more.is_some_and(|more| more.result.is_some()),
            failures: more.map(|more| more.failures.clone()).unwrap_or_default(),
        }
    }

    /// What its worker is told about a leased job.
    pub(in super::super) fn delivery(&self, job: Target) -> Option<Delivery> {
        let slot = self.find(job)?;
        let (cell, more) = (self.cells.get(slot), self.more(slot)?);
        Some(Delivery {
            token: Token { job: cell.id(), attempt: cell.attempt, nonce: more.lease.nonce },
            max_attempts: self.max_attempts(slot),
            priority: cell.priority,
            redrives: more.redrives,
            group: self.groups.get(cell.group).name.as_deref().map(str::to_owned),
            until: Moment(cell.due),
            deadline: Moment(more.lease.deadline),
            place: Place::from_bits(cell.place),
        })
    }

    /// Where a job's content lies, and its result.
    ///
    /// # Errors
    /// - [`ErrorKind::NotFound`]: there is none of this id.
    pub fn places_of(&self, id: JobId) -> Result<(Place, Option<Place>)> {
        match self.find(Target::of(id)) {
            Some(slot) => {
                let result = self.more(slot).and_then(|more| more.result);
                Ok((Place::from_bits(self.cells.get(slot).place), result))
            }
            None => Err(Error::new(ErrorKind::NotFound, "queue.get").with("job", id)),
        }
    }

    /// The token of a leased job, for who may see everything.
    pub fn token_of(&self, id: JobId) -> Option<(WorkerId, Token)> {
        let slot = self.find(Target::of(id))?;
        let (cell, more) = (self.cells.get(slot), self.more(slot)?);
        let token = Token { job: id, attempt: cell.attempt, nonce: more.lease.nonce };
        (cell.stage == Stage::Leased).then_some((more.lease.worker, token))
    }

    /// Its schedules by name, and when each fires next.
    pub fn schedules(&self) -> impl Iterator<Item = (&Schedule, Timestamp)> {
        self.schedules.values().map(|planned| (&planned.schedule, planned.next))
    }
}

/// A time on the mesh's time line, on the wall clock as it stands.
fn wall_of(now: Now, at: u64) -> Timestamp {
    let ahead = Moment(at).since(now.at);
    let wall = now.wall.0.saturating_sub(super::ns(now.at.since(Moment(at))));
    Timestamp(wall.saturating_add(super::ns(ahead.max(Duration::ZERO))))
}

fn stages(state: JobState) -> &'static [Stage] {
    match state {
        JobState::Scheduled => &[Stage::Dated, Stage::Delayed],
        JobState::Ready => &[Stage::Ready],
        JobState::Blocked => &[Stage::Ready, Stage::Held],
        JobState::Leased => &[Stage::Leased],
        JobState::RetryWait => &[Stage::Retry],
        JobState::Done => &[Stage::Done],
        JobState::Dead => &[Stage::Dead],
        JobState::Cancelled => &[Stage::Cancelled],
        JobState::Expired => &[Stage::Expired],
    }
}

/// Jobs in one part of a listing.
const LIST_MAX: usize = 1000;
/// Jobs that one part of a listing looks at.
const LOOKS_MAX: usize = 10_000;
