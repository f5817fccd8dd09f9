//! The handle over a ledger: what is written, what comes back, who is woken.
#![forbid(unsafe_code)]
#![expect(unused_must_use, reason = "nobody is there to be woken")]

use super::*;
use crate::{
    clock::Timestamp,
    ledger::{Fold, LedgerConfig},
    storage::{
        Storage,
        sim::{Failure, Fault, SimStorage},
    },
};

/// What a mesh does: hands the fold what is its own.
struct Mesh(QueuesFold);

impl Fold for Mesh {
    fn image(&mut self, owner: Owner, lsn: Lsn, bytes: &[u8]) -> Result<()> {
        assert!(QueuesFold::owns(owner));
        self.0.image(owner, lsn, bytes)
    }

    fn entry(&mut self, lsn: Lsn, place: Place, entry: Entry<'_>) -> Result<()> {
        assert!(QueuesFold::owns(entry.owner));
        self.0.entry(lsn, place, entry)
    }

    fn kept(&mut self, keep: &mut dyn FnMut(Place)) {
        self.0.kept(keep);
    }
}

struct Host {
    storage: Arc<dyn Storage>,
    ledger: Ledger,
    queues: Queues,
    times: Times,
    recent_bytes: usize,
}

const WORKER: WorkerId = WorkerId(1);

impl Host {
    fn new() -> Self {
        Self::over(Arc::new(crate::storage::MemoryStorage::default()), 1 << 20)
    }

    fn over(storage: Arc<dyn Storage>, recent_bytes: usize) -> Self {
        let second = 1_000_000_000;
        let times = Times { boot: Moment(100 * second), wall: Timestamp(1_700_000_000 * second) };
        let (ledger, queues) = open(&storage, times, recent_bytes).unwrap();
        Self { storage, ledger, queues, times, recent_bytes }
    }

    /// The process ends, and another opens what is left.
    fn reopen(&mut self) {
        let dead = std::mem::take(&mut self.times);
        // The machine was started anew meanwhile.
        self.times = Times { boot: Moment(5), wall: Timestamp(dead.wall.0 + 1) };
        (self.ledger, self.queues) = open(&self.storage, self.times, self.recent_bytes).unwrap();
    }

    fn pass(&mut self, seconds: u64) {
        self.times.boot.0 += seconds * 1_000_000_000;
        self.times.wall.0 += seconds * 1_000_000_000;
    }

    fn declare(&self, name: &str, config: &QueueConfig) -> QueueId {
        self.queues.declare(self.times, &Name::parse(name).unwrap(), config).unwrap().value.0
    }

    fn enqueue(&self, queue: QueueId, payload: &[u8]) -> JobId {
        self.queues.enqueue(self.times, queue, payload, &EnqueueOptions::default()).unwrap().value.id()
    }

    fn reserve(&self, queue: QueueId, most: usize) -> Vec<Job> {
        self.queues
            .reserve(self.times, queue, WORKER, ReserveOptions::default(), most, usize::MAX, None)
            .unwrap()
            .value
    }

    fn count(&self, queue: QueueId, state: JobState) -> u64 {
        self.queues.stats(self.times, queue).unwrap().count(state)
    }

    fn checkpoint(&self) {
        let mut checkpoint = self.ledger.checkpoint().unwrap();
        let mut imaging = Imaging::default();
        while !self.queues.image(self.times, &mut imaging, &mut checkpoint).unwrap() {}
        checkpoint.finish().unwrap();
    }
}

fn open(storage: &Arc<dyn Storage>, times: Times, recent_bytes: usize) -> Result<(Ledger, Queues)> {
    let config = LedgerConfig { segment_bytes: 1 << 20, ..LedgerConfig::default() };
    let mut mesh = Mesh(QueuesFold::new(7));
    let (ledger, _) = Ledger::open(Arc::clone(storage), &config, &mut mesh)?;
    let (queues, _) = Queues::open(mesh.0, ledger.clone(), times, 9, recent_bytes)?;
    Ok((ledger, queues))
}

fn plain() -> QueueConfig {
    QueueConfig { backoff: Backoff::Fixed(Duration::ZERO), ..QueueConfig::default() }
}

#[test]
fn what_is_handed_out_at_once_is_bounded_by_its_bytes_too() {
    let mut host = Host::new();
    let mail = host.declare("mail", &plain());
    let reserve = |host: &Host, most, bytes_max| -> Vec<usize> {
        let reserved =
            host.queues.reserve(host.times, mail, WORKER, ReserveOptions::default(), most, bytes_max, None);
        reserved.unwrap().value.iter().map(|job| job.content.payload().len()).collect()
    };
    for bytes in [5000, 10, 20, 30, 0, 0, 1] {
        host.enqueue(mail, &vec![7; bytes]);
    }
    host.pass(1);
    assert_eq!(reserve(&host, 10, 100), [5000], "one is handed out however large it is");
    assert_eq!(reserve(&host, 10, 59), [10, 20], "in order: a smaller one behind it does not go first");
    assert_eq!(reserve(&host, 10, 30), [30, 0, 0]);
    assert_eq!(reserve(&host, 10, 0), [1]);
}

#[test]
fn jobs_come_back_with_all_they_were_given() {
    let mut host = Host::new();
    let mail = host.declare("mail", &plain());
    let options = EnqueueOptions {
        priority: 7,
        group: Some("g".to_owned()),
        content_type: Some("text/plain".to_owned()),
        headers: vec![("traceparent".to_owned(), "00-1".to_owned())],
        ..EnqueueOptions::default()
    };
    let outcome = host.queues.enqueue(host.times, mail, b"hello", &options).unwrap();
    assert_eq!((outcome.lsn, outcome.durability), (Lsn(2), Durability::Fsync));
    // Once from memory, once from the disk, once after a checkpoint.
    for round in 1..=3u16 {
        let jobs = host.reserve(mail, 10);
        let job = &jobs[0];
        assert_eq!((jobs.len(), job.token.attempt, job.priority), (1, round, 7));
        assert_eq!((job.content.payload(), job.content.content_type()), (&b"hello"[..], "text/plain"));
        assert_eq!(job.content.headers(), [("traceparent", "00-1")]);
        assert_eq!((job.group.as_deref(), job.lease), (Some("g"), Duration::from_secs(30)));
        if round == 2 {
            host.checkpoint();
        }
        host.reopen();
        assert_eq!(host.queues.find("mail").unwrap(), mail);
        let lost = host.queues.ack(host.times, mail, job.token, None).unwrap_err();
        assert_eq!(lost.kind(), ErrorKind::LeaseLost, "the host that gave the lease is gone");
    }
    let job = host.reserve(mail, 1).pop().unwrap();
    assert_eq!(host.queues.content(mail, job.token.job).unwrap(), job.content);
    host.queues.ack(host.times, mail, job.token, Some(b"done")).unwrap();
    host.reopen();
    assert_eq!(host.queues.result(mail, job.token.job).unwrap().unwrap().payload(), b"done");
    assert_eq!(host.count(mail, JobState::Done), 1);
}

#[test]
fn declaring_again_is_fine_unless_something_differs() {
    let mut host = Host::new();
    let config = QueueConfig { max_attempts: 7, ..plain() };
    let name = Name::parse("mail").unwrap();
    assert!(host.queues.declare(host.times, &name, &config).unwrap().value.1);
    host.reopen();
    assert!(!host.queues.declare(host.times, &name, &config).unwrap().value.1);
    let error = host.queues.declare(host.times, &name, &plain()).unwrap_err();
    assert_eq!((error.kind(), error.get("field")), (ErrorKind::Conflict, Some("max_attempts")));
    assert_eq!((error.get("is"), error.get("wanted")), (Some("7"), Some("5")));
    let mail = host.queues.find("mail").unwrap();
    host.queues.configure(host.times, mail, &plain()).unwrap();
    host.reopen();
    assert_eq!(host.queues.config(mail).unwrap(), plain());
    let own = QueueConfig { dead_letter_to: Some(name.clone()), ..plain() };
    assert!(host.queues.configure(host.times, mail, &own).unwrap_err().get("dead_letter_to").is_some());
    let error = host.queues.find("nobody").unwrap_err();
    assert_eq!((error.kind(), error.get("queue")), (ErrorKind::NotFound, Some("\"nobody\"")));
    let nowhere = QueueId::from_number(99);
    let error = host.queues.enqueue(host.times, nowhere, b"", &EnqueueOptions::default()).unwrap_err();
    assert_eq!((error.kind(), error.get("queue")), (ErrorKind::NotFound, Some("99")));
    assert_eq!(host.queues.names().len(), 1);
}

#[test]
fn a_write_that_fails_changes_nothing() {
    let storage = Arc::new(SimStorage::new());
    let host = Host::over(Arc::clone(&storage) as Arc<dyn Storage>, 1 << 20);
    let mail = host.declare("mail", &plain());
    host.enqueue(mail, b"one");
    let before = host.queues.stats(host.times, mail).unwrap();
    let at = storage.calls(Failure::Io);
    storage.fail(Fault { failure: Failure::Io, at, for_ever: true });
    let options = EnqueueOptions::default();
    assert!(host.queues.enqueue(host.times, mail, b"two", &options).is_err());
    let reserve =
        host.queues.reserve(host.times, mail, WORKER, ReserveOptions::default(), 1, usize::MAX, None);
    assert!(reserve.is_err());
    assert!(host.queues.declare(host.times, &Name::parse("other").unwrap(), &plain()).is_err());
    assert_eq!(host.queues.find("other").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(host.queues.stats(host.times, mail).unwrap(), before);
}

#[test]
fn whoever_waits_is_woken_when_there_is_work_and_no_sooner() {
    let mut host = Host::new();
    let mail = host.declare("mail", &plain());
    let wait = |host: &Host, waiter: u64| {
        let waiter = Some(WaiterId(waiter));
        let jobs = host
            .queues
            .reserve(host.times, mail, WORKER, ReserveOptions::default(), 1, usize::MAX, waiter)
            .unwrap();
        assert!(jobs.value.is_empty() && jobs.wakes.is_empty());
    };
    (1..=3).for_each(|waiter| wait(&host, waiter));
    let options = EnqueueOptions::default();
    let outcome = host.queues.enqueue(host.times, mail, b"a", &options).unwrap();
    assert_eq!(outcome.wakes, [WaiterId(1)], "one job wakes one");
    // It is gone; the wake goes to the next.
    assert_eq!(host.queues.leave(host.times, mail, WaiterId(1)).unwrap().wakes, [WaiterId(2)]);
    assert_eq!(host.reserve(mail, 1).len(), 1);
    assert!(host.queues.leave(host.times, mail, WaiterId(3)).unwrap().wakes.is_empty());
    // What time brings wakes too.
    wait(&host, 4);
    let later = EnqueueOptions { delay: Duration::from_secs(5), ..EnqueueOptions::default() };
    let outcome = host.queues.enqueue(host.times, mail, b"b", &later).unwrap();
    let due = host.times.boot + Duration::from_secs(5);
    assert_eq!((outcome.wakes.len(), outcome.due), (0, Some(due)));
    assert_eq!(host.queues.tick(host.times).unwrap().value, Some(due));
    host.pass(5);
    let ticked = host.queues.tick(host.times).unwrap();
    assert_eq!(ticked.wakes, [WaiterId(4)]);
}

#[test]
fn a_lease_that_runs_out_wakes_the_next_worker() {
    let mut host = Host::new();
    let mail = host.declare("mail", &plain());
    host.enqueue(mail, b"a");
    let lost = host.reserve(mail, 1).pop().unwrap();
    host.queues
        .reserve(host.times, mail, WORKER, ReserveOptions::default(), 1, usize::MAX, Some(WaiterId(8)))
        .unwrap()
        .wakes
        .clear();
    host.pass(30);
    let ticked = host.queues.tick(host.times).unwrap();
    let ticked = if ticked.wakes.is_empty() { host.queues.tick(host.times).unwrap() } else { ticked };
    assert_eq!(ticked.wakes, [WaiterId(8)]);
    let error = host.queues.ack(host.times, mail, lost.token, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LeaseLost);
    assert_eq!(host.reserve(mail, 1)[0].token.attempt, 2);
}

/// Reserves one job, and the call of the storage that reads its content fails.
fn reserve_unread(
    host: &Host,
    storage: &SimStorage,
    queue: QueueId,
    waiter: Option<WaiterId>,
) -> Vec<WaiterId> {
    // The batch is written in one call, and the content comes with the next.
    let at = storage.calls(Failure::Io) + 1;
    storage.fail(Fault { failure: Failure::Io, at, for_ever: false });
    let options = ReserveOptions::default();
    let reserved = host.queues.reserve(host.times, queue, WORKER, options, 1, usize::MAX, waiter).unwrap();
    assert!(reserved.value.is_empty(), "it was read: {:?}", reserved.value);
    assert!(host.ledger.frozen().is_none(), "the wrong call failed");
    storage.heal();
    reserved.wakes
}

#[test]
fn a_read_error_that_passes_costs_an_attempt_and_one_that_lasts_the_job() {
    let storage = Arc::new(SimStorage::new());
    let mut host = Host::over(Arc::clone(&storage) as Arc<dyn Storage>, 0);
    let backoff = Backoff::Fixed(Duration::from_secs(5));
    let mail = host.declare("mail", &QueueConfig { backoff, max_attempts: 3, ..plain() });
    let id = host.enqueue(mail, b"letter");
    reserve_unread(&host, &storage, mail, None);
    let info = host.queues.info(host.times, mail, id).unwrap();
    assert_eq!((info.state, info.attempt, info.failures.len()), (JobState::RetryWait, 1, 1));
    assert!(info.failures[0].message.starts_with("its content cannot be read: "), "{:?}", info.failures);
    assert!(host.reserve(mail, 1).is_empty(), "it waits for its backoff");
    host.pass(5);
    let job = host.reserve(mail, 1).pop().expect("the error has passed");
    assert_eq!((job.token.job, job.token.attempt, job.content.payload()), (id, 2, &b"letter"[..]));
    host.queues.nack(host.times, mail, job.token, Nack::default()).unwrap();
    host.pass(5);
    reserve_unread(&host, &storage, mail, None);
    let info = host.queues.info(host.times, mail, id).unwrap();
    assert_eq!((info.state, info.attempt, info.failures.len()), (JobState::Dead, 3, 3));
    assert_eq!(info.failures[0].message, info.failures[2].message);
}

#[test]
fn a_job_whose_content_is_damaged_is_dead_at_once() {
    let storage = Arc::new(SimStorage::new());
    let host = Host::over(Arc::clone(&storage) as Arc<dyn Storage>, 0);
    let mail = host.declare("mail", &QueueConfig { max_attempts: 3, ..plain() });
    let (damaged, sound) = (host.enqueue(mail, b"the first letter"), host.enqueue(mail, b"another"));
    let disk = storage.disk();
    let found = disk.files.iter().find_map(|(file, bytes)| {
        let at = bytes.windows(16).position(|window| window == b"the first letter")?;
        Some((file, at as u64))
    });
    let (file, at) = found.expect("it was written");
    storage.open(file, crate::storage::Open::Existing).unwrap().write_at(at, b"T").unwrap();
    let jobs = host.reserve(mail, 2);
    assert_eq!((jobs.len(), jobs[0].token.job), (1, sound), "the other one is none the worse");
    assert_eq!(jobs[0].content.payload(), b"another");
    let info = host.queues.info(host.times, mail, damaged).unwrap();
    assert_eq!((info.state, info.attempt, info.failures.len()), (JobState::Dead, 1, 1));
    let message = &info.failures[0].message;
    assert!(
        message.starts_with("its content cannot be read: ") && message.contains(file.as_str()),
        "{message}"
    );
}

#[test]
fn whoever_gets_nothing_because_it_cannot_be_read_is_woken_for_the_next() {
    let storage = Arc::new(SimStorage::new());
    let mut host = Host::over(Arc::clone(&storage) as Arc<dyn Storage>, 0);
    let mail =
        host.declare("mail", &QueueConfig { backoff: Backoff::Fixed(Duration::from_secs(5)), ..plain() });
    host.enqueue(mail, b"one");
    assert!(reserve_unread(&host, &storage, mail, Some(WaiterId(8))).is_empty());
    host.pass(5);
    assert_eq!(host.queues.tick(host.times).unwrap().wakes, [WaiterId(8)], "its backoff is over");
    host.enqueue(mail, b"two");
    let wakes = reserve_unread(&host, &storage, mail, Some(WaiterId(9)));
    assert_eq!(wakes, [WaiterId(9)], "there is another one");
}

#[test]
fn dead_jobs_move_to_the_queue_named_for_them_in_one_write() {
    let mut host = Host::new();
    let dead = host.declare("dead", &QueueConfig { max_length: Some(2), ..plain() });
    let config =
        QueueConfig { max_attempts: 1, dead_letter_to: Some(Name::parse("dead").unwrap()), ..plain() };
    let mail = host.declare("mail", &config);
    let options = EnqueueOptions {
        priority: 3,
        headers: vec![("a".to_owned(), "1".to_owned())],
        ..EnqueueOptions::default()
    };
    for _ in 0..4 {
        host.queues.enqueue(host.times, mail, b"letter", &options).unwrap();
    }
    let jobs = host.reserve(mail, 4);
    let nack = Nack { message: "no", ..Nack::default() };
    let before = host.ledger.status().last;
    let outcome = host.queues.nack(host.times, mail, jobs[0].token, nack).unwrap();
    assert_eq!(outcome.lsn, before.next(), "one batch");
    assert_eq!((host.count(mail, JobState::Dead), host.count(dead, JobState::Ready)), (0, 1));
    host.reopen();
    // The others died with the host: one more has room, two stay where they are.
    assert_eq!((host.count(mail, JobState::Dead), host.count(dead, JobState::Ready)), (2, 2));
    let letter = host.reserve(dead, 1).pop().unwrap();
    assert_eq!((letter.token.job, letter.priority), (jobs[0].token.job, 3));
    assert_eq!(
        (letter.content.payload(), letter.content.headers()),
        (&b"letter"[..], vec![("a", "1"), (DEAD_FROM, "mail")])
    );
    let info = host.queues.info(host.times, dead, letter.token.job).unwrap();
    assert_eq!(info.failures[0].message, "no", "what went wrong goes with it");
}

#[test]
fn events_are_given_while_somebody_listens() {
    let host = Host::new();
    let mail = host.declare("mail", &plain());
    let options = EnqueueOptions::default();
    assert!(host.queues.enqueue(host.times, mail, b"", &options).unwrap().events.is_empty());
    host.queues.watch(true);
    let outcome = host.queues.enqueue(host.times, mail, b"", &options).unwrap();
    assert_eq!(outcome.events[0].subject(), "$queue.mail.enqueued");
    let token = host.reserve(mail, 1)[0].token;
    let acked = host.queues.ack(host.times, mail, token, None).unwrap();
    let event = Event { kind: EventKind::Done, job: token.job, attempt: 1 };
    assert_eq!(acked.events, [QueueEvent { queue: "mail".into(), event }]);
    let token = host.reserve(mail, 1)[0].token;
    assert!(!host.queues.progress(host.times, mail, token, b"50").unwrap().value);
    let outcome = host.queues.cancel(host.times, mail, token.job, "").unwrap();
    assert_eq!((outcome.value, outcome.asked), (Cancelled::Asked, vec![(mail, WORKER, token)]));
    assert!(host.queues.progress(host.times, mail, token, b"60").unwrap().value, "its worker hears of it");
    assert!(host.queues.extend(host.times, mail, token, None).unwrap().value.1);
}

#[test]
fn schedules_enqueue_one_job_for_each_time() {
    let mut host = Host::new();
    let reports = host.declare("reports", &plain());
    let schedule = Schedule {
        cron: "*/10 * * * * *".to_owned(),
        payload: b"now".to_vec(),
        overlap: Overlap::Replace,
        ..Schedule::new("every.ten")
    };
    host.queues.schedule(host.times, reports, &schedule).unwrap();
    assert_eq!(host.queues.schedules(reports).unwrap()[0].0, schedule);
    for _ in 0..3 {
        host.pass(10);
        host.queues.tick(host.times).unwrap();
        host.queues.tick(host.times).unwrap();
        assert_eq!(host.count(reports, JobState::Ready), 1, "the one before was replaced");
    }
    host.reopen();
    host.queues.tick(host.times).unwrap();
    assert_eq!(host.count(reports, JobState::Ready), 1);
    let report = host.reserve(reports, 5).pop().unwrap();
    assert_eq!(report.content.payload(), b"now");
    host.queues.ack(host.times, reports, report.token, None).unwrap();
    host.queues.unschedule(host.times, reports, "every.ten").unwrap();
    host.pass(100);
    host.queues.tick(host.times).unwrap();
    assert_eq!(host.count(reports, JobState::Ready), 0);
    let bad = Schedule { cron: "* * x * *".to_owned(), ..schedule };
    let error = host.queues.schedule(host.times, reports, &bad).unwrap_err();
    assert_eq!((error.kind(), error.get("column")), (ErrorKind::InvalidArgument, Some("5")));
}

#[test]
fn the_worker_of_several_queues_ends() {
    let host = Host::new();
    let queues = ["a", "b"].map(|name| host.declare(name, &plain()));
    for queue in queues {
        for _ in 0..3 {
            host.enqueue(queue, b"");
        }
        assert_eq!(host.reserve(queue, 2).len(), 2);
    }
    host.queues.worker_gone(host.times, WORKER).unwrap();
    for queue in queues {
        assert_eq!(host.count(queue, JobState::Leased), 0);
        assert_eq!(host.queues.stats(host.times, queue).unwrap().totals.worker_gone, 2);
    }
}

#[test]
fn segments_are_cleaned_and_what_is_still_needed_moves_on() {
    // Nothing is kept in memory, so everything is read from where it lies.
    let mut host = Host::over(Arc::new(crate::storage::MemoryStorage::default()), 0);
    let mail = host.declare("mail", &plain());
    let mut kept = BTreeMap::new();
    for number in 0..6000u32 {
        let payload = [&number.to_le_bytes()[..], &[7; 1000]].concat();
        let id = host.enqueue(mail, &payload);
        let job = host.reserve(mail, 1).pop().unwrap();
        if number % 20 == 0 {
            let result = number.to_le_bytes();
            host.queues.ack(host.times, mail, job.token, Some(&result)).unwrap();
            kept.insert(id, (payload, result));
        } else {
            host.queues.ack(host.times, mail, job.token, None).unwrap();
        }
    }
    let before = host.ledger.status();
    for _ in 0..20 {
        host.checkpoint();
        while let Some(segment) = host.ledger.cleanable() {
            segment.entries(|place, entry| host.queues.rewrite(host.times, place, entry).map(drop)).unwrap();
        }
        host.ledger.tend(host.times.boot);
    }
    let after = host.ledger.status();
    assert!(after.disk_bytes * 2 < before.disk_bytes, "{before:?} {after:?}");
    for reopened in [false, true] {
        if reopened {
            host.reopen();
        }
        assert_eq!(host.count(mail, JobState::Done), kept.len() as u64);
        for (id, (payload, result)) in &kept {
            assert_eq!(host.queues.content(mail, *id).unwrap().payload(), payload);
            assert_eq!(host.queues.result(mail, *id).unwrap().unwrap().payload(), result);
        }
    }
}

#[test]
fn images_are_taken_while_jobs_come_and_go() {
    let mut host = Host::new();
    let mail = host.declare("mail", &plain());
    let ids: Vec<JobId> = (0..20_000).map(|_| host.enqueue(mail, b"x")).collect();
    let mut checkpoint = host.ledger.checkpoint().unwrap();
    let mut imaging = Imaging::default();
    let mut slices = 0;
    while !host.queues.image(host.times, &mut imaging, &mut checkpoint).unwrap() {
        slices += 1;
        for job in host.reserve(mail, 100) {
            host.queues.ack(host.times, mail, job.token, None).unwrap();
        }
        if slices < 3 {
            host.declare(&format!("late{slices}"), &plain());
        }
        host.enqueue(mail, b"x");
    }
    checkpoint.finish().unwrap();
    assert!(slices >= 2);
    let before: Vec<u64> =
        host.queues.names().values().map(|queue| host.count(*queue, JobState::Ready)).collect();
    host.reopen();
    let after: Vec<u64> =
        host.queues.names().values().map(|queue| host.count(*queue, JobState::Ready)).collect();
    assert_eq!(before, after);
    assert_eq!(host.reserve(mail, 1)[0].token.job, ids[slices * 100]);
}

#[test]
fn many_go_in_one_write() {
    let host = Host::new();
    let mail = host.declare("mail", &plain());
    let options = EnqueueOptions::default();
    let jobs: Vec<(&[u8], &EnqueueOptions)> = (0..100).map(|_| (&b"x"[..], &options)).collect();
    let before = host.ledger.status().last;
    let outcome = host.queues.enqueue_many(host.times, mail, &jobs).unwrap();
    assert_eq!((outcome.value.len(), outcome.lsn), (100, before.next()));
    let tokens: Vec<Token> = host.reserve(mail, 100).iter().map(|job| job.token).collect();
    let twice = [&tokens[..], &tokens[..1]].concat();
    let acked = host.queues.ack_many(host.times, mail, &twice).unwrap();
    assert_eq!(acked.lsn, Lsn(before.0 + 3));
    assert!(acked.value.iter().all(Result::is_ok), "the second of two alike repeats the first");
    let again = host.queues.ack_many(host.times, mail, &tokens).unwrap();
    assert_eq!((again.lsn, again.value.iter().filter(|acked| acked.is_ok()).count()), (Lsn::NONE, 100));
    let none = host.queues.enqueue_many(host.times, mail, &[]).unwrap();
    assert_eq!((none.value.len(), none.lsn), (0, Lsn::NONE));
}

#[test]
fn acks_and_reservations_share_a_write() {
    let storage = Arc::new(SimStorage::new());
    let host = Host::over(Arc::clone(&storage) as Arc<dyn Storage>, 1 << 20);
    let turn = |queue, done: &[Token]| {
        let acks = done.iter().map(|token| (*token, Some(&b"r"[..])));
        let options = ReserveOptions::default();
        host.queues.ack_and_reserve(host.times, queue, acks, WORKER, options, 2, usize::MAX)
    };
    let limited = QueueConfig { concurrency: Some(1), ..plain() };
    let grouped = EnqueueOptions { group: Some("g".to_owned()), ..EnqueueOptions::default() };
    let one_each = GroupLimits { concurrency: Some(1), ..GroupLimits::default() };
    let in_groups = QueueConfig { groups: one_each, ..plain() };
    let plain_job = EnqueueOptions::default();
    // Where an ack makes room for the next job two writes are needed, and one job is had at a time.
    for (name, config, options, writes, given) in [
        ("plain", plain(), &plain_job, 1, 2),
        ("limited", limited, &plain_job, 2, 1),
        ("grouped", in_groups, &grouped, 2, 1),
    ] {
        let queue = host.declare(name, &config);
        let ids: Vec<JobId> = (0..5)
            .map(|_| host.queues.enqueue(host.times, queue, b"x", options).unwrap().value.id())
            .collect();
        let mut done: Vec<Token> = Vec::new();
        let mut handed = Vec::new();
        loop {
            let before = host.ledger.status().last;
            let outcome = turn(queue, &done).unwrap();
            let (each, jobs) = outcome.value;
            assert!(each.len() == done.len() && each.iter().all(Result::is_ok), "{name}: {each:?}");
            if !done.is_empty() && !jobs.is_empty() {
                assert_eq!(outcome.lsn, Lsn(before.0 + writes), "{name}");
                assert_eq!(outcome.durability, Durability::Fsync);
            }
            done = jobs.iter().map(|job| job.token).collect();
            handed.extend(done.iter().map(|token| token.job));
            if jobs.is_empty() {
                break;
            }
            assert!(jobs.len() == given || handed.len() == 5, "{name}: {}", jobs.len());
        }
        assert_eq!(handed, ids, "{name}");
        assert_eq!(host.count(queue, JobState::Done), 5, "{name}");
        assert_eq!(host.queues.result(queue, ids[4]).unwrap().unwrap().payload(), b"r");
    }
    // A token that is stale is refused by itself, and a job is had all the same.
    let queue = host.declare("other", &plain());
    let [first, second] = [host.enqueue(queue, b"1"), host.enqueue(queue, b"2")];
    let stale = Token { nonce: 1, ..Token::default() };
    let (each, jobs) = turn(queue, &[stale]).unwrap().value;
    assert_eq!(each[0].as_ref().unwrap_err().kind(), ErrorKind::LeaseLost);
    assert_eq!(jobs.iter().map(|job| job.token.job).collect::<Vec<_>>(), [first, second]);
    // What cannot be written is neither acked nor handed out.
    let third = host.enqueue(queue, b"3");
    let at = storage.calls(Failure::Io);
    storage.fail(Fault { failure: Failure::Io, at, for_ever: true });
    turn(queue, &[jobs[0].token]).unwrap_err();
    assert_eq!((host.count(queue, JobState::Leased), host.count(queue, JobState::Ready)), (2, 1));
    assert_eq!(host.queues.info(host.times, queue, third).unwrap().state, JobState::Ready);
}

#[test]
fn what_one_queue_leaves_to_be_done_outlives_the_failure_of_another() {
    let storage = Arc::new(SimStorage::new());
    let mut host = Host::over(Arc::clone(&storage) as Arc<dyn Storage>, 1 << 20);
    let [first, second] = ["first", "second"].map(|name| host.declare(name, &plain()));
    let later = EnqueueOptions { delay: Duration::from_secs(10), ..EnqueueOptions::default() };
    host.queues.enqueue(host.times, first, b"x", &later).unwrap();
    host.enqueue(second, b"y");
    assert_eq!(host.reserve(second, 1).len(), 1);
    let waits = |host: &Host| {
        let options = ReserveOptions::default();
        host.queues.reserve(host.times, first, WORKER, options, 1, usize::MAX, Some(WaiterId(7))).unwrap()
    };
    assert!(waits(&host).value.is_empty());
    // The lease in the second queue runs out, which cannot be written.
    host.pass(3600);
    let at = storage.calls(Failure::Full);
    storage.fail(Fault { failure: Failure::Full, at, for_ever: true });
    let outcome = host.queues.tick(host.times).unwrap();
    assert_eq!((outcome.wakes, outcome.value), (vec![WaiterId(7)], Some(host.times.boot)));
    assert_eq!(host.queues.tick(host.times).unwrap_err().kind(), ErrorKind::StorageFull);
    storage.heal();
    host.queues.tick(host.times).unwrap();
    assert_eq!(host.count(second, JobState::Leased), 0);
}

#[test]
fn draining_says_when_nothing_is_left() {
    let host = Host::new();
    let mail = host.declare("mail", &plain());
    host.enqueue(mail, b"");
    assert!(!host.queues.drain(host.times, mail).unwrap().value);
    let error = host.queues.enqueue(host.times, mail, b"", &EnqueueOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Draining);
    let token = host.reserve(mail, 1)[0].token;
    host.queues.ack(host.times, mail, token, None).unwrap();
    assert!(host.queues.drain(host.times, mail).unwrap().value);
    host.queues.resume(host.times, mail).unwrap();
    host.queues.pause(host.times, mail).unwrap();
    host.enqueue(mail, b"");
    assert!(host.reserve(mail, 1).is_empty());
    host.queues.resume(host.times, mail).unwrap();
    assert_eq!(host.reserve(mail, 1).len(), 1);
}
