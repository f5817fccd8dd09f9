//! Jobs as callers see them: ids, states, tokens, and what listing tells.
#![forbid(unsafe_code)]

use crate::{
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{fmt, time::Duration};

/// What names a job in its queue: 128 bits. Those that the mesh chooses are UUIDs of version 7, so they sort by
/// the time of enqueueing; a caller may choose any.
///
/// ```
/// use flowmesh::queue::JobId;
/// let id = JobId::parse("01890a5d-ac96-774b-bcce-b302099a8057")?;
/// assert_eq!(id.to_string(), "01890a5d-ac96-774b-bcce-b302099a8057");
/// # Ok::<(), flowmesh::Error>(())
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobId(pub u128);

impl JobId {
    /// Reads 32 hexadecimal digits, with or without the dashes of a UUID.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`], naming the text.
    pub fn parse(text: &str) -> Result<Self> {
        let dashed = text.len() == 36 && [8, 13, 18, 23].iter().all(|at| text.as_bytes()[*at] == b'-');
        if !dashed && text.len() != 32 {
            return Err(Self::invalid(text));
        }
        let mut id = 0u128;
        for (at, byte) in text.bytes().enumerate() {
            if dashed && [8, 13, 18, 23].contains(&at) {
                continue;
            }
            let digit = (byte as char).to_digit(16).ok_or_else(|| Self::invalid(text))?;
            id = id << 4 | u128::from(digit);
        }
        Ok(Self(id))
    }

    fn invalid(text: &str) -> Error {
        let shown: String = text.chars().take(64).collect();
        Error::new(ErrorKind::InvalidArgument, "queue.job_id")
            .with("id", format!("{shown:?}"))
            .with("rule", "32 hexadecimal digits, or a UUID")
    }

    /// A number that looks random and is the same for the same id and `salt`.
    pub(super) fn mix(self, salt: u64) -> u64 {
        let mut state =
            fold(self.0 as u64 ^ 0x9e37_79b9_7f4a_7c15, (self.0 >> 64) as u64 ^ 0xe703_7ed1_a0b4_28db);
        state = fold(state ^ salt, 0x8ebc_6af0_9c88_c6e3);
        fold(state ^ 0x5899_65cc_7537_4cc3, 0x1d8e_4e27_c47d_124f)
    }
}

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.0;
        let (a, b, c) = ((id >> 96) as u32, (id >> 80) as u16, (id >> 64) as u16);
        let (d, e) = ((id >> 48) as u16, id as u64 & 0xffff_ffff_ffff);
        write!(f, "{a:08x}-{b:04x}-{c:04x}-{d:04x}-{e:012x}")
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Makes ids: ever larger, and nobody who sees some can tell the next.
#[derive(Debug)]
pub(super) struct IdSource {
    last: u128,
    random: Randoms,
}

impl IdSource {
    pub(super) fn new(seed: u64) -> Self {
        Self { last: 0, random: Randoms::new(seed) }
    }

    /// The next id, at `wall`. A clock that goes back does not make ids go back.
    pub(super) fn next(&mut self, wall: Timestamp) -> JobId {
        // 48 bits of milliseconds, then 74 free bits: see `spread` for where version and variant go.
        let ms = u128::from(wall.0 / 1_000_000) & ((1 << 48) - 1);
        let random = self.random.next();
        let fresh = ms << 74 | u128::from(random) << 9;
        // Within one millisecond ids go up by a random step, so that one does not give away the next.
        let stepped = self.last + 1 + u128::from(random >> 32);
        self.last = if self.last >> 74 >= ms { stepped } else { fresh };
        JobId(spread(self.last))
    }
}

/// Random numbers from a seed that they do not give away: SHA-256 over the seed and a counter, four numbers a block.
#[derive(Debug)]
struct Randoms {
    seed: u64,
    counter: u64,
    block: [u64; 4],
    left: usize,
}

impl Randoms {
    fn new(seed: u64) -> Self {
        Self { seed, counter: 0, block: [0; 4], left: 0 }
    }

    fn next(&mut self) -> u64 {
        if self.left == 0 {
            let hash = Sha256::new()
                .chain_update(b"flowmesh job ids")
                .chain_update(self.seed.to_le_bytes())
                .chain_update(self.counter.to_le_bytes())
                .finalize();
            for (number, bytes) in self.block.iter_mut().zip(hash.chunks_exact(8)) {
                *number = u64::from_le_bytes(bytes.try_into().expect("a chunk has eight bytes"));
            }
            self.counter += 1;
            self.left = self.block.len();
        }
        self.left -= 1;
        self.block[self.left]
    }
}

/// Puts the version (7) and variant (2) bits of a UUID between 122 bits, keeping their order.
fn spread(bits: u128) -> u128 {
    let (ms, a, b) = (bits >> 74, bits >> 62 & 0xfff, bits & ((1 << 62) - 1));
    ms << 80 | 7 << 76 | a << 64 | 2 << 62 | b
}

/// Who reserves: the number that the mesh gave a worker. When its process dies, its leases end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkerId(pub u64);

/// What a worker shows to prove that the job is still its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Token {
    /// The job.
    pub job: JobId,
    /// Which attempt this is, 1 and up.
    pub attempt: u16,
    /// No two leases of a queue have the same.
    pub nonce: u64,
}

/// A job is in exactly one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum JobState {
    /// Waits for its time.
    Scheduled = 0,
    /// Could be handed out now.
    Ready = 1,
    /// Could be handed out but for its group's limits, or the job that has its unique key.
    Blocked = 2,
    /// A worker has it.
    Leased = 3,
    /// An attempt has failed; the next one waits for its time.
    RetryWait = 4,
    /// Acknowledged.
    Done = 5,
    /// Out of attempts, or rejected.
    Dead = 6,
    /// Cancelled.
    Cancelled = 7,
    /// Waited longer than its time to live.
    Expired = 8,
}

impl JobState {
    /// Every state, by number.
    pub const ALL: [Self; 9] = [
        Self::Scheduled,
        Self::Ready,
        Self::Blocked,
        Self::Leased,
        Self::RetryWait,
        Self::Done,
        Self::Dead,
        Self::Cancelled,
        Self::Expired,
    ];

    /// The name as all languages spell it.
    pub const fn name(self) -> &'static str {
        ["scheduled", "ready", "blocked", "leased", "retry_wait", "done", "dead", "cancelled", "expired"]
            [self as usize]
    }

    /// Reads a name.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`], naming the text.
    pub fn parse(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|state| state.name() == text).ok_or_else(|| {
            let shown: String = text.chars().take(64).collect();
            let names = Self::ALL.map(Self::name).join(", ");
            Error::new(ErrorKind::InvalidArgument, "queue.state")
                .with("state", format!("{shown:?}"))
                .with("known", names)
        })
    }

    /// Whether it is over: nothing happens to the job any more unless it is redriven.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Done | Self::Dead | Self::Cancelled | Self::Expired)
    }
}

/// What became of one job that was to be enqueued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Enqueued {
    /// It was enqueued.
    New(JobId),
    /// It was enqueued in the place of one that had its unique key and is now cancelled.
    Replaced {
        /// The new job.
        id: JobId,
        /// The cancelled one.
        replaced: JobId,
    },
    /// It was not: this one has the same id or unique key.
    Existing(JobId),
    /// It was not: this one has the same unique key, and waits anew if the new one had a delay.
    Extended(JobId),
}

impl Enqueued {
    /// The job that will be worked on.
    pub fn id(self) -> JobId {
        match self {
            Self::New(id) | Self::Existing(id) | Self::Extended(id) | Self::Replaced { id, .. } => id,
        }
    }
}

/// What went wrong in one attempt, or ended a job otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Which attempt; 0 when there was none.
    pub attempt: u16,
    /// When, on the wall clock.
    pub at: Timestamp,
    /// In a few words: at most 1 KiB is kept.
    pub message: String,
    /// A stack trace or the like: at most 4 KiB is kept, of the last failure only.
    pub detail: String,
}

/// What listing and looking tell about a job. Its payload is read apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobInfo {
    /// Its id.
    pub id: JobId,
    /// Where it is.
    pub state: JobState,
    /// 0 to 255.
    pub priority: u8,
    /// Attempts begun since it was enqueued or redriven.
    pub attempt: u16,
    /// Attempts it may have.
    pub max_attempts: u16,
    /// Its group.
    pub group: Option<String>,
    /// Its unique key.
    pub unique_key: Option<String>,
    /// When it became ready; for a finished job, when it was finished.
    pub since: Timestamp,
    /// Scheduled and retry_wait: when it is ready. Leased: when the lease ends. Finished: until when it is kept.
    pub due: Option<Timestamp>,
    /// When it expires if it still waits then.
    pub expires: Option<Timestamp>,
    /// Bytes of its payload.
    pub payload_bytes: u32,
    /// How often it was redriven.
    pub redrives: u32,
    /// Who has it.
    pub worker: Option<WorkerId>,
    /// Whether it is to be given back.
    pub cancelling: bool,
    /// What its worker last told.
    pub progress: Option<Box<[u8]>>,
    /// Whether there is a result.
    pub has_result: bool,
    /// The last ten failures, oldest first.
    pub failures: Vec<Failure>,
}

/// Numbers of one queue; taking them costs the same however long it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueStats {
    /// Jobs in each state, as [`JobState::ALL`] orders them.
    pub jobs: [u64; 9],
    /// Payload bytes of all jobs that are not finished.
    pub payload_bytes: u64,
    /// How long the first of the ready jobs has been ready.
    pub oldest_ready: Option<Duration>,
    /// Whether it hands out nothing.
    pub paused: bool,
    /// Whether it takes nothing new.
    pub draining: bool,
    /// Groups with jobs.
    pub groups: u64,
    /// Dead jobs still to be redriven at the rate that was asked for.
    pub redriving: u64,
    /// What happened since the mesh was opened.
    pub totals: Totals,
}

impl QueueStats {
    /// Jobs in one state.
    pub fn count(&self, state: JobState) -> u64 {
        self.jobs[state as usize]
    }
}

/// What happened to jobs since the mesh was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Jobs enqueued.
    pub enqueued: u64,
    /// Jobs not enqueued because of their id or unique key.
    pub duplicates: u64,
    /// Leases given.
    pub reserved: u64,
    /// Jobs done.
    pub done: u64,
    /// Attempts that failed: nacked, expired, or ended with their worker.
    pub failed: u64,
    /// Of these, leases that expired.
    pub lease_expired: u64,
    /// Of these, leases that ended with their worker's process.
    pub worker_gone: u64,
    /// Jobs given back: released or snoozed.
    pub released: u64,
    /// Jobs that became dead.
    pub dead: u64,
    /// Jobs cancelled.
    pub cancelled: u64,
    /// Jobs expired.
    pub expired: u64,
    /// Jobs redriven.
    pub redriven: u64,
    /// Jobs removed by purging or retention.
    pub removed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_go_up_whatever_the_clock_does_and_are_uuids_of_version_7() {
        let mut source = IdSource::new(7);
        let mut last = JobId::default();
        let ms = |ms: u64| Timestamp(ms * 1_000_000);
        let start = 1_700_000_000_000;
        for step in 0..10_000u64 {
            let wall = match step {
                0..3000 => ms(start + step / 10),
                3000..6000 => ms(start - 315_360_000_000),
                6000..6001 => ms(start + 315_360_000_000),
                _ => ms(start + step),
            };
            let id = source.next(wall);
            assert!(id > last, "{last} {id}");
            assert_eq!((id.0 >> 76 & 15, id.0 >> 62 & 3), (7, 2), "{id}");
            last = id;
        }
        let mut source = IdSource::new(1);
        assert_eq!(source.next(ms(start)).0 >> 80, u128::from(start));
    }

    #[test]
    fn random_numbers_are_those_of_sha_256() {
        // Of "flowmesh job ids", the seed 7 and the counters 0 and 1, computed apart; each block from its end.
        let mut randoms = Randoms::new(7);
        let numbers: Vec<u64> = (0..5).map(|_| randoms.next()).collect();
        let expected: [u64; 5] = [
            0x8c3d_a2db_9c32_69a8,
            0xa9fe_0976_108d_ed9e,
            0xa87b_00d5_4b6a_4393,
            0x9987_0646_a694_a9c9,
            0x246f_6ef7_5d66_fd1e,
        ];
        assert_eq!(numbers, expected);
    }

    #[test]
    fn ids_as_text() {
        let id = JobId(0x0123_4567_89ab_cdef_0011_2233_4455_6677);
        assert_eq!(id.to_string(), "01234567-89ab-cdef-0011-223344556677");
        assert_eq!(JobId::parse(&id.to_string()).unwrap(), id);
        assert_eq!(JobId::parse("0123456789ABCDEF0011223344556677").unwrap(), id);
        let long = "0".repeat(5000);
        for bad in
            ["", "x", "0123456789abcdef001122334455667g", "01234567+89ab-cdef-0011-223344556677", "é", &long]
        {
            let error = JobId::parse(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{bad}");
            assert!(error.to_string().len() < 300);
        }
    }

    #[test]
    fn mixing_differs_by_id_and_salt() {
        let mut seen = HashSet::new();
        for id in 0..1000 {
            for salt in 0..10 {
                assert!(seen.insert(JobId(id).mix(salt)) && seen.insert(JobId(id << 64 | 1 << 40).mix(salt)));
            }
        }
    }

    #[test]
    fn states_by_name() {
        for state in JobState::ALL {
            assert_eq!(JobState::parse(state.name()).unwrap(), state);
            assert_eq!(JobState::ALL[state as usize], state);
        }
        assert_eq!(JobState::parse("running").unwrap_err().get("state"), Some("\"running\""));
    }
}
