//! Operations on queues as values, and what they give: to be sent, or to be waited for later.
//!
//! A client sends them to its host as MessagePack, structures as arrays; fields that are added later come last. What
//! is decoded was written by a peer: lists end at their limits, and what they hold is checked where it is carried out.
#![forbid(unsafe_code)]

use super::{
    Cancelled, Content, Cursor, ENQUEUE_COUNT_MAX, EnqueueOptions, Enqueued, Job, JobId, JobInfo, JobState,
    Listed, QueueConfig, QueueId, QueueStats, RESERVE_COUNT_MAX, Rate, ReserveOptions, Schedule, Token,
    options::Check,
};
use crate::{
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
    ledger::Durability,
};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, SeqAccess, Visitor},
};
use std::{borrow::Cow, collections::BTreeMap, fmt, marker::PhantomData, time::Duration};

/// Something that is asked of the queues of a mesh. Its answer is the [`QueueReply`] that each one names.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum QueueRequest<'a> {
    /// Makes sure that a queue is there: [`QueueReply::Queue`].
    Declare {
        /// What it is called.
        name: Cow<'a, str>,
        /// How it is to treat its jobs.
        config: Box<QueueConfig>,
    },
    /// Looks a queue up: [`QueueReply::Queue`].
    Find {
        /// What it is called.
        name: Cow<'a, str>,
    },
    /// All queues: [`QueueReply::Names`].
    Names,
    /// The settings of a queue: [`QueueReply::Config`].
    Config {
        /// Which.
        queue: QueueId,
    },
    /// Gives it others: [`QueueReply::Done`].
    Configure {
        /// Which.
        queue: QueueId,
        /// The settings.
        config: Box<QueueConfig>,
    },
    /// Enqueues jobs, all or none: [`QueueReply::Enqueued`].
    Enqueue {
        /// Where.
        queue: QueueId,
        /// What.
        #[serde(borrow, deserialize_with = "few::<_, _, ENQUEUE_COUNT_MAX>")]
        jobs: Vec<NewJobRequest<'a>>,
    },
    /// Waits for jobs and takes them: [`QueueReply::Jobs`], none if there was none in time.
    Reserve {
        /// Where.
        queue: QueueId,
        /// At most so many.
        most: u32,
        /// How long each is to be ours. Default: the job's, or the queue's.
        lease: Option<Duration>,
    },
    /// More time for a job: [`QueueReply::Lease`].
    Extend {
        /// Where.
        queue: QueueId,
        /// Which.
        token: Token,
        /// How long from now. Default: as it was reserved.
        lease: Option<Duration>,
    },
    /// A job is done: [`QueueReply::Done`].
    Ack {
        /// Where.
        queue: QueueId,
        /// Which.
        token: Token,
        /// What came of it.
        #[serde(borrow, with = "bytes_option")]
        result: Option<&'a [u8]>,
    },
    /// Jobs are done: [`QueueReply::Each`].
    AckMany {
        /// Where.
        queue: QueueId,
        /// Which.
        #[serde(deserialize_with = "few::<_, _, RESERVE_COUNT_MAX>")]
        tokens: Vec<Token>,
    },
    /// Jobs are done, and others are taken if there are any, without waiting: [`QueueReply::Next`].
    AckAndReserve {
        /// Where.
        queue: QueueId,
        /// What is done.
        #[serde(borrow, deserialize_with = "few::<_, _, RESERVE_COUNT_MAX>")]
        acks: Vec<AckRequest<'a>>,
        /// At most so many are taken.
        most: u32,
        /// How long each is to be ours. Default: the job's, or the queue's.
        lease: Option<Duration>,
    },
    /// An attempt failed: [`QueueReply::Done`].
    Nack {
        /// Where.
        queue: QueueId,
        /// Which.
        token: Token,
        /// What went wrong, in a few words.
        message: Cow<'a, str>,
        /// A stack trace or the like.
        detail: Cow<'a, str>,
        /// How long until the next. Default: the job's backoff.
        delay: Option<Duration>,
    },
    /// No attempt can succeed: [`QueueReply::Done`].
    Reject {
        /// Where.
        queue: QueueId,
        /// Which.
        token: Token,
        /// What went wrong, in a few words.
        message: Cow<'a, str>,
        /// A stack trace or the like.
        detail: Cow<'a, str>,
    },
    /// Jobs are given back as if they had not been taken: [`QueueReply::Each`].
    Release {
        /// Where.
        queue: QueueId,
        /// Which.
        #[serde(deserialize_with = "few::<_, _, RESERVE_COUNT_MAX>")]
        tokens: Vec<Token>,
    },
    /// A job is put off: [`QueueReply::Done`].
    Snooze {
        /// Where.
        queue: QueueId,
        /// Which.
        token: Token,
        /// For how long.
        delay: Duration,
    },
    /// How far a worker has come: [`QueueReply::Lease`], with what is left of it.
    Progress {
        /// Where.
        queue: QueueId,
        /// Which.
        token: Token,
        /// What it tells.
        #[serde(borrow, serialize_with = "bytes")]
        progress: &'a [u8],
    },
    /// Cancels a job: [`QueueReply::Cancelled`].
    Cancel {
        /// Where.
        queue: QueueId,
        /// Which.
        job: JobId,
        /// Why, in a few words.
        why: Cow<'a, str>,
    },
    /// Makes finished jobs ready again: [`QueueReply::Done`].
    Redrive {
        /// Where.
        queue: QueueId,
        /// Which.
        #[serde(deserialize_with = "few::<_, _, ENQUEUE_COUNT_MAX>")]
        jobs: Vec<JobId>,
    },
    /// Makes dead jobs ready again, the longest dead first: [`QueueReply::Count`].
    RedriveDead {
        /// Where.
        queue: QueueId,
        /// At most so many.
        most: u64,
    },
    /// Makes dead jobs ready again evenly, as time goes by: [`QueueReply::Done`].
    RedriveAt {
        /// Where.
        queue: QueueId,
        /// So many; 0 ends it.
        count: u64,
        /// How fast.
        rate: Rate,
    },
    /// Removes jobs in a state: [`QueueReply::Count`].
    Purge {
        /// Where.
        queue: QueueId,
        /// In which.
        state: JobState,
    },
    /// Removes a job: [`QueueReply::Done`].
    Remove {
        /// Where.
        queue: QueueId,
        /// Which.
        job: JobId,
    },
    /// Hands out nothing: [`QueueReply::Done`].
    Pause {
        /// Which.
        queue: QueueId,
    },
    /// Ends pausing and draining: [`QueueReply::Done`].
    Resume {
        /// Which.
        queue: QueueId,
    },
    /// Takes nothing new: [`QueueReply::Drained`].
    Drain {
        /// Which.
        queue: QueueId,
    },
    /// Puts a schedule in the place of the one of its name: [`QueueReply::Done`].
    Schedule {
        /// Where.
        queue: QueueId,
        /// What.
        schedule: Box<Schedule>,
    },
    /// Removes a schedule: [`QueueReply::Done`].
    Unschedule {
        /// Where.
        queue: QueueId,
        /// Which.
        name: Cow<'a, str>,
    },
    /// All schedules: [`QueueReply::Schedules`].
    Schedules {
        /// Where.
        queue: QueueId,
    },
    /// Jobs in a state: [`QueueReply::Listed`].
    List {
        /// Where.
        queue: QueueId,
        /// Which.
        state: JobState,
        /// Where to go on.
        cursor: Option<Cursor>,
        /// At most so many.
        most: u32,
    },
    /// One job: [`QueueReply::Info`].
    Info {
        /// Where.
        queue: QueueId,
        /// Which.
        job: JobId,
    },
    /// What a job carries: [`QueueReply::Content`].
    Content {
        /// Where.
        queue: QueueId,
        /// Which.
        job: JobId,
    },
    /// What a job was acked with: [`QueueReply::Content`].
    Outcome {
        /// Where.
        queue: QueueId,
        /// Which.
        job: JobId,
    },
    /// Numbers of a queue: [`QueueReply::Stats`].
    Stats {
        /// Which.
        queue: QueueId,
    },
}

impl QueueRequest<'_> {
    /// Checks all that can be checked without the queue. A client does so before it sends: to a host a list over its limit is
    /// a peer that breaks the protocol, and ends the session.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidArgument`], [`ErrorKind::TooLarge`]: names value and limit.
    pub fn check(&self) -> Result<()> {
        let many = |operation, jobs: usize| Check(operation).bytes("job_count", jobs, RESERVE_COUNT_MAX);
        match self {
            Self::Declare { config, .. } | Self::Configure { config, .. } => config.validate(),
            Self::Enqueue { jobs, .. } => {
                Check("queue.enqueue").bytes("job_count", jobs.len(), ENQUEUE_COUNT_MAX)?;
                jobs.iter().filter(|job| job.options.is_some()).try_for_each(|job| job.options().validate())
            }
            Self::Reserve { most, lease, .. } => {
                Check("queue.reserve").count(*most as usize)?;
                ReserveOptions { lease: *lease }.validate()
            }
            Self::AckMany { tokens, .. } => many("queue.ack", tokens.len()),
            Self::AckAndReserve { acks, most, lease, .. } => {
                many("queue.ack", acks.len())?;
                Check("queue.reserve").count(*most as usize)?;
                ReserveOptions { lease: *lease }.validate()
            }
            Self::Release { tokens, .. } => many("queue.release", tokens.len()),
            Self::Redrive { jobs, .. } => many("queue.redrive", jobs.len()),
            Self::Schedule { schedule, .. } => schedule.validate(),
            _ => Ok(()),
        }
    }
}

/// A job that is done.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct AckRequest<'a> {
    /// Which.
    pub token: Token,
    /// What came of it.
    #[serde(borrow, with = "bytes_option")]
    pub result: Option<&'a [u8]>,
}

/// A job that is to be enqueued.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct NewJobRequest<'a> {
    /// What it carries.
    #[serde(borrow, serialize_with = "bytes")]
    pub payload: &'a [u8],
    /// What it wants; `None` for a plain job.
    pub options: Option<Cow<'a, EnqueueOptions>>,
    /// [`EnqueueOptions::id`]: its own field, as options are also kept, and an id is not.
    pub id: Option<JobId>,
    /// [`EnqueueOptions::run_at`].
    pub run_at: Option<Timestamp>,
}

impl<'a> NewJobRequest<'a> {
    /// A job with these options.
    pub fn new(payload: &'a [u8], options: &'a EnqueueOptions) -> Self {
        let plain = *options == EnqueueOptions::default();
        let kept = if plain { None } else { Some(Cow::Borrowed(options)) };
        Self { payload, options: kept, id: options.id, run_at: options.run_at }
    }

    /// Its options, whole.
    pub fn options(&self) -> Cow<'_, EnqueueOptions> {
        self.whole_options().map_or_else(
            || {
                let kept = self.options.as_deref().cloned().unwrap_or_default();
                Cow::Owned(EnqueueOptions { id: self.id, run_at: self.run_at, ..kept })
            },
            Cow::Borrowed,
        )
    }

    /// [`options`](Self::options) where they need not be put together: of plain jobs, and before they were sent.
    pub fn whole_options(&self) -> Option<&EnqueueOptions> {
        // Made by the compiler: a lazy value could be caught half-way by a fork.
        static PLAIN: EnqueueOptions = EnqueueOptions::PLAIN;
        let kept = self.options.as_deref().unwrap_or(&PLAIN);
        (kept.id == self.id && kept.run_at == self.run_at).then_some(kept)
    }
}

/// What a [`QueueRequest`] gives.
#[derive(Debug, Serialize, Deserialize)]
pub enum QueueReply {
    /// It is done.
    Done,
    /// The queue.
    Queue {
        /// Its number, while the host lives.
        id: QueueId,
        /// Whether it was made.
        created: bool,
    },
    /// All queues by name.
    Names(Vec<String>),
    /// Settings.
    Config(Box<QueueConfig>),
    /// What became of each job, in order.
    Enqueued(Vec<Enqueued>),
    /// Jobs that are now the worker's.
    Jobs(#[serde(deserialize_with = "few::<_, _, RESERVE_COUNT_MAX>")] Vec<Job>),
    /// How long a job is still the worker's.
    Lease {
        /// How long; zero if that was not asked for.
        left: Duration,
        /// Whether it is to be given back.
        cancelling: bool,
    },
    /// What became of each, in order.
    Each(Vec<std::result::Result<(), Refused>>),
    /// What became of each ack, in order, and the jobs that are now the worker's.
    Next {
        /// What became of each.
        each: Vec<std::result::Result<(), Refused>>,
        /// The jobs.
        #[serde(deserialize_with = "few::<_, _, RESERVE_COUNT_MAX>")]
        jobs: Vec<Job>,
    },
    /// What became of a job that was to be cancelled.
    Cancelled(Cancelled),
    /// How many.
    Count(u64),
    /// Whether there is nothing left.
    Drained(bool),
    /// Schedules, and when each fires next.
    Schedules(Vec<(Schedule, Timestamp)>),
    /// A part of a listing.
    Listed(Listed),
    /// A job.
    Info(Box<JobInfo>),
    /// What a job carries, or was acked with.
    Content(Option<Content>),
    /// Numbers.
    Stats(Box<QueueStats>),
}

impl QueueReply {
    /// The jobs that it gives.
    pub fn jobs(&self) -> &[Job] {
        match self {
            Self::Jobs(jobs) | Self::Next { jobs, .. } => jobs,
            _ => &[],
        }
    }
}

/// Why one of several was refused: an [`Error`] to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    kind: i32,
    operation: String,
    context: BTreeMap<String, String>,
}

impl Refused {
    /// The error to be sent.
    pub fn of(error: &Error) -> Self {
        Self {
            kind: error.kind().number(),
            operation: error.operation().to_owned(),
            context: error.context().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        }
    }

    /// The error that was sent.
    pub fn to_error(&self) -> Error {
        let error = Error::new(ErrorKind::from_number(self.kind), self.operation.clone());
        self.context.iter().fold(error, |error, (name, value)| error.with(name.clone(), value))
    }
}

/// A request as a client sends it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Sent<'a> {
    /// What is asked.
    #[serde(borrow)]
    pub request: QueueRequest<'a>,
    /// How safe it is to be before the answer; `None` for what the queue says.
    #[serde(with = "durability_option")]
    pub durability: Option<Durability>,
}

/// An answer as a host sends it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answered {
    /// What it gives.
    pub reply: QueueReply,
    /// How safe it is now; `None` if nothing was changed.
    #[serde(with = "durability_option")]
    pub reached: Option<Durability>,
}

impl Sent<'_> {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }
}

impl<'a> Sent<'a> {
    /// Reads what a client sent.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`]: it makes no sense, or a list is longer than it may be.
    pub fn decode(bytes: &'a [u8]) -> Result<Self> {
        decode(bytes)
    }
}

impl Answered {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads what a host sent.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`]: it makes no sense, or a list is longer than it may be.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        decode(bytes)
    }
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    rmp_serde::to_vec(value).expect("requests hold only numbers, text, bytes, lists and maps")
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T> {
    rmp_serde::from_slice(bytes).map_err(|error| {
        let shown: String = error.to_string().chars().take(200).collect();
        Error::new(ErrorKind::Protocol, "queue.decode").with("violation", shown)
    })
}

/// A list that ends at its limit: nothing is allocated to a size that a peer chose.
pub(super) fn few<'de, D: Deserializer<'de>, T: Deserialize<'de>, const MOST: usize>(
    from: D,
) -> std::result::Result<Vec<T>, D::Error> {
    struct Few<T, const MOST: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for Few<T, MOST> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {MOST} elements")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Vec<T>, A::Error> {
            let mut all = Vec::with_capacity(seq.size_hint().unwrap_or(0).min(MOST.min(1024)));
            while let Some(one) = seq.next_element()? {
                if all.len() == MOST {
                    return Err(A::Error::invalid_length(MOST + 1, &self));
                }
                all.push(one);
            }
            Ok(all)
        }
    }

    from.deserialize_seq(Few::<T, MOST>(PhantomData))
}

fn bytes<S: Serializer>(bytes: &[u8], to: S) -> std::result::Result<S::Ok, S::Error> {
    to.serialize_bytes(bytes)
}

/// Bytes, or none.
mod bytes_option {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    struct Bytes<'a>(&'a [u8]);

    impl Serialize for Bytes<'_> {
        fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            to.serialize_bytes(self.0)
        }
    }

    #[allow(clippy::ref_option)] // what serde hands over
    pub(super) fn serialize<S: Serializer>(bytes: &Option<&[u8]>, to: S) -> Result<S::Ok, S::Error> {
        bytes.map(Bytes).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'de [u8]>, D::Error> {
        Option::deserialize(from)
    }
}

/// A durability, or none.
mod durability_option {
    use super::super::options::durability_number;
    use crate::ledger::Durability;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Number(#[serde(with = "durability_number")] Durability);

    #[allow(clippy::trivially_copy_pass_by_ref, clippy::ref_option)] // what serde hands over
    pub(super) fn serialize<S: Serializer>(
        durability: &Option<Durability>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        durability.map(Number).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Durability>, D::Error> {
        Ok(Option::<Number>::deserialize(from)?.map(|number| number.0))
    }
}

impl Serialize for Content {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        struct Bytes<'a>(&'a [u8]);
        impl Serialize for Bytes<'_> {
            fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
                to.serialize_bytes(self.0)
            }
        }
        (Bytes(self.head()), Bytes(self.payload())).serialize(to)
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        let (head, payload) = <(&[u8], &[u8])>::deserialize(from)?;
        Self::of_parts(head, payload).map_err(D::Error::custom)
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        self.to_words().serialize(to)
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        <[u64; 4]>::deserialize(from).map(Self::from_words)
    }
}

impl Serialize for JobState {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.serialize_u8(*self as u8)
    }
}

impl<'de> Deserialize<'de> for JobState {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        let number = u8::deserialize(from)?;
        Self::ALL
            .get(usize::from(number))
            .copied()
            .ok_or_else(|| D::Error::custom(format_args!("job state {number} is not known")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_through() {
        let options = EnqueueOptions {
            id: Some(JobId(7)),
            run_at: Some(Timestamp(9)),
            priority: 3,
            headers: vec![("a".to_owned(), "b".to_owned())],
            ..EnqueueOptions::default()
        };
        let plain = EnqueueOptions::default();
        let jobs = vec![NewJobRequest::new(b"one", &options), NewJobRequest::new(b"", &plain)];
        let request = QueueRequest::Enqueue { queue: QueueId(3), jobs };
        let sent =
            Sent { request, durability: Some(Durability::Interval(Duration::from_millis(5))) }.encode();
        let back = Sent::decode(&sent).unwrap();
        assert_eq!(back.durability, Some(Durability::Interval(Duration::from_millis(5))));
        let QueueRequest::Enqueue { queue: QueueId(3), jobs } = back.request else { panic!("another") };
        assert_eq!((jobs[0].payload, jobs[0].options().into_owned()), (&b"one"[..], options));
        assert_eq!((jobs[1].payload, jobs[1].options().into_owned()), (&b""[..], plain));

        let token = Token { job: JobId(u128::MAX), attempt: 2, nonce: 5 };
        for result in [None, Some(&b"42"[..])] {
            let request = QueueRequest::Ack { queue: QueueId(0), token, result };
            let sent = Sent { request, durability: None }.encode();
            match Sent::decode(&sent).unwrap().request {
                QueueRequest::Ack { token: found, result: back, .. } => {
                    assert_eq!((found, back), (token, result));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn answers_come_through() {
        let content = Content::of_parts(b"", b"payload").unwrap();
        let job = Job {
            queue: QueueId(1),
            token: Token { job: JobId(1), attempt: 1, nonce: 2 },
            max_attempts: 3,
            priority: 4,
            redrives: 5,
            group: Some("g".to_owned()),
            lease: Duration::from_secs(30),
            deadline: None,
            content,
        };
        let answer = Answered { reply: QueueReply::Jobs(vec![job]), reached: Some(Durability::Fsync) };
        match Answered::decode(&answer.encode()).unwrap() {
            Answered { reply: QueueReply::Jobs(jobs), reached: Some(Durability::Fsync) } => {
                assert_eq!(
                    (jobs[0].content.payload(), jobs[0].group.as_deref()),
                    (&b"payload"[..], Some("g"))
                );
            }
            other => panic!("{other:?}"),
        }
        let error = Error::new(ErrorKind::LeaseLost, "queue.ack").with("job", "x");
        let answer = QueueReply::Each(vec![Ok(()), Err(Refused::of(&error))]);
        match Answered::decode(&Answered { reply: answer, reached: None }.encode()).unwrap().reply {
            QueueReply::Each(each) => {
                let back = each[1].as_ref().unwrap_err().to_error();
                assert_eq!((each[0].is_ok(), back.to_string()), (true, error.to_string()));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn lists_end_at_their_limit() {
        let tokens = vec![Token::default(); RESERVE_COUNT_MAX + 1];
        let request = QueueRequest::AckMany { queue: QueueId(0), tokens };
        let error = Sent::decode(&Sent { request, durability: None }.encode()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol);
        assert!(error.to_string().contains("1000"), "{error}");
    }

    #[test]
    fn what_a_peer_makes_up_is_refused() {
        for bytes in [&b""[..], b"\xc1", b"\x92\x81\xa7Unknown\x90\xc0", &[0xff; 100], &[0x81; 3000]] {
            assert_eq!(Sent::decode(bytes).unwrap_err().kind(), ErrorKind::Protocol);
            assert_eq!(Answered::decode(bytes).unwrap_err().kind(), ErrorKind::Protocol);
        }
    }
}
