//! Queues through a mesh: in the host's process, and from clients over shared memory and sockets.
#![forbid(unsafe_code)]

mod support;

use flowmesh::{
    Durability, ErrorKind, Mesh, Queue, ReadySet, Settle, Wait,
    queue::{Backoff, EnqueueOptions, Enqueued, JobState, NewJobRequest, QueueConfig, QueueRequest},
};
use std::{
    thread,
    time::{Duration, Instant},
};
use support::Dir;

const WATCHDOG: Duration = Duration::from_secs(30);

fn plain() -> EnqueueOptions {
    EnqueueOptions::default()
}

fn quick() -> QueueConfig {
    QueueConfig { durability: Durability::Os, ..QueueConfig::default() }
}

/// The host, and everything that can be a queue's user.
fn everywhere(test: impl Fn(&Mesh, &Mesh)) {
    for shared_memory in [None, Some(true), Some(false)] {
        let dir = Dir::new();
        let host = Mesh::open(dir.path()).unwrap();
        match shared_memory {
            None => test(&host, &host),
            Some(shared) => {
                let client = Mesh::builder().shared_memory(shared).connect(dir.path()).unwrap();
                test(&host, &client);
            }
        }
    }
}

fn next(queue: &Queue) -> flowmesh::Job {
    queue.reserve_one(&mut Wait::timeout(WATCHDOG)).unwrap().expect("a job in time")
}

#[test]
fn a_job_is_enqueued_reserved_and_acked() {
    everywhere(|_, mesh| {
        assert_eq!(mesh.queue("mail").unwrap_err().kind(), ErrorKind::NotFound);
        assert!(mesh.queues().unwrap().is_empty());
        let mail = mesh.declare_queue("mail", &QueueConfig::default()).unwrap();
        let options = EnqueueOptions {
            headers: vec![("to".to_owned(), "ann".to_owned())],
            content_type: Some("text/plain".to_owned()),
            ..plain()
        };
        let receipt = mail.enqueue(b"hello", &options).unwrap();
        assert_eq!(receipt.durability, Durability::Fsync);
        assert!(matches!(receipt.enqueued, Enqueued::New(_)));
        let job = next(&mail);
        assert_eq!((job.id(), job.attempt(), job.payload()), (receipt.id(), 1, &b"hello"[..]));
        assert_eq!((job.content_type(), job.headers()), ("text/plain", vec![("to", "ann")]));
        assert_eq!(job.ack(Some(b"done")).unwrap(), Durability::Fsync);
        assert_eq!(mail.result(receipt.id()).unwrap().as_deref(), Some(&b"done"[..]));
        let stats = mesh.queue("mail").unwrap().stats().unwrap();
        assert_eq!((stats.count(JobState::Done), stats.totals.enqueued), (1, 1));
        assert_eq!(mesh.queues().unwrap(), ["mail"]);
        let os = mail.durable(Durability::Os).enqueue(b"x", &plain()).unwrap();
        assert!(os.durability >= Durability::Os);
    });
}

#[test]
fn a_worker_that_waits_is_woken() {
    everywhere(|host, mesh| {
        let queue = mesh.declare_queue("q", &quick()).unwrap();
        let there = host.queue("q").unwrap();
        let worker = thread::spawn(move || next(&queue).payload().to_vec());
        thread::sleep(Duration::from_millis(20));
        there.enqueue(b"1", &plain()).unwrap();
        assert_eq!(worker.join().unwrap(), b"1");
        // And the other way round.
        let queue = mesh.queue("q").unwrap();
        let worker = thread::spawn(move || next(&there).payload().to_vec());
        thread::sleep(Duration::from_millis(20));
        queue.enqueue(b"2", &plain()).unwrap();
        assert_eq!(worker.join().unwrap(), b"2");
    });
}

#[test]
fn a_reservation_ends_with_its_time_and_loses_nothing() {
    everywhere(|_, mesh| {
        let queue = mesh.declare_queue("q", &quick()).unwrap();
        assert!(queue.reserve(1, None, &mut Wait::poll()).unwrap().is_empty());
        let begun = Instant::now();
        assert!(queue.reserve(1, None, &mut Wait::timeout(Duration::from_millis(30))).unwrap().is_empty());
        assert!(begun.elapsed() >= Duration::from_millis(30));
        queue.enqueue(b"1", &plain()).unwrap();
        assert_eq!(next(&queue).attempt(), 1);
    });
}

#[test]
fn a_delayed_job_comes_in_time() {
    everywhere(|_, mesh| {
        let queue = mesh.declare_queue("q", &quick()).unwrap();
        let delay = Duration::from_millis(50);
        queue.enqueue(b"later", &EnqueueOptions { delay, ..plain() }).unwrap();
        assert_eq!(queue.stats().unwrap().count(JobState::Scheduled), 1);
        assert_eq!(next(&queue).payload(), b"later");
    });
}

#[test]
fn an_answer_can_be_taken_later_and_given_up() {
    everywhere(|_, mesh| {
        let queue = mesh.declare_queue("q", &quick()).unwrap();
        let set = ReadySet::with_fd().unwrap();
        let pending = queue.start_reserve(10, None, None).unwrap();
        pending.watch(&set, 7);
        assert!(pending.try_take().is_none());
        let jobs: Vec<_> = (0..3u8).map(|n| [n]).collect();
        let options = plain();
        let jobs: Vec<_> = jobs.iter().map(|payload| NewJobRequest::new(payload, &options)).collect();
        assert_eq!(queue.enqueue_many(&jobs, &mut Wait::forever()).unwrap().len(), 3);
        let jobs = queue.jobs(pending.wait(&mut Wait::timeout(WATCHDOG)).unwrap()).unwrap();
        assert_eq!(jobs.len(), 3);
        let mut tokens = Vec::new();
        set.drain(&mut tokens);
        assert_eq!(tokens, [7]);
        assert!(queue.ack_many(&jobs).unwrap().iter().all(Result::is_ok));

        // Dropped while it waits, and dropped when the jobs are there: either way they are free again.
        drop(queue.start_reserve(1, None, None).unwrap());
        let pending = queue.start_reserve(1, None, None).unwrap();
        queue.enqueue(b"x", &options).unwrap();
        drop(pending);
        let job = next(&queue);
        assert_eq!((job.attempt(), job.payload()), (1, &b"x"[..]));
    });
}

#[test]
fn of_jobs_acked_together_each_is_settled_or_says_why_not() {
    everywhere(|_, mesh| {
        let queue = mesh.declare_queue("q", &quick()).unwrap();
        let options = plain();
        let new = NewJobRequest::new(b"x", &options);
        queue.enqueue_many(&vec![new; 1004], &mut Wait::forever()).unwrap();
        let mut jobs = queue.reserve(1000, None, &mut Wait::poll()).unwrap();
        jobs.extend(queue.reserve(4, None, &mut Wait::poll()).unwrap());
        let error = queue.ack_many(&jobs).unwrap_err();
        assert_eq!((error.kind(), error.get("job_count")), (ErrorKind::TooLarge, Some("1004")));
        // Nothing has come of that.
        assert!(!jobs.iter().any(flowmesh::Job::is_settled));
        jobs[1].release().unwrap();
        let found = queue.ack_many(&jobs[..3]).unwrap();
        let kinds: Vec<_> = found.iter().map(|one| one.as_ref().err().map(flowmesh::Error::kind)).collect();
        assert_eq!(kinds, [None, Some(ErrorKind::LeaseLost), None]);
        assert!(jobs[..3].iter().all(flowmesh::Job::is_settled));
        let stats = queue.stats().unwrap();
        assert_eq!((stats.totals.done, stats.count(JobState::Leased)), (2, 1001));
        assert!(queue.ack_many([]).unwrap().is_empty());
    });
}

#[test]
fn who_asks_for_no_job_takes_no_wake_up() {
    everywhere(|_, mesh| {
        let queue = mesh.declare_queue("q", &quick()).unwrap();
        for (most, kind) in [(0, ErrorKind::InvalidArgument), (1001, ErrorKind::TooLarge)] {
            let error = queue.reserve(most, None, &mut Wait::timeout(WATCHDOG)).unwrap_err();
            assert_eq!((error.kind(), error.get("job_count")), (kind, Some(most.to_string().as_str())));
        }
    });
}

#[test]
fn what_a_worker_may_say() {
    everywhere(|_, mesh| {
        let queue = mesh.declare_queue("q", &quick()).unwrap();
        let id = queue.enqueue(b"x", &plain()).unwrap().id();
        let job = next(&queue);
        job.release().unwrap();
        let job = next(&queue);
        assert_eq!(job.attempt(), 1);
        let nack = Settle::Nack { message: "no", detail: "at line 1", delay: Some(Duration::ZERO) };
        job.settle(nack, &mut Wait::forever()).unwrap();
        assert_eq!(job.ack(None).unwrap_err().kind(), ErrorKind::LeaseLost);
        let job = next(&queue);
        assert_eq!(job.attempt(), 2);
        job.progress(b"half").unwrap();
        let info = queue.peek(id).unwrap();
        assert_eq!((info.state, info.progress.as_deref()), (JobState::Leased, Some(&b"half"[..])));
        assert_eq!(info.failures[0].message, "no");
        assert!(job.extend(Some(Duration::from_secs(60))).unwrap() > Duration::from_secs(59));
        job.snooze(Duration::from_millis(1)).unwrap();
        let job = next(&queue);
        assert_eq!(job.attempt(), 2);
        job.reject("never").unwrap();
        assert_eq!(queue.list(JobState::Dead, None, 10).unwrap().jobs[0].id, id);
        queue.redrive(&[id]).unwrap();
        let job = next(&queue);
        assert_eq!((job.attempt(), job.redrives()), (1, 1));
        job.ack(None).unwrap();
        assert_eq!(queue.purge(JobState::Dead).unwrap(), 0);
    });
}

#[test]
fn of_jobs_acked_together_each_has_its_own_answer() {
    everywhere(|_, mesh| {
        let queue = mesh.declare_queue("q", &quick()).unwrap();
        let options = plain();
        for later in [false, true] {
            let new: Vec<_> = (0..3).map(|_| NewJobRequest::new(b"x", &options)).collect();
            queue.enqueue_many(&new, &mut Wait::forever()).unwrap();
            let jobs = queue.reserve(3, None, &mut Wait::timeout(WATCHDOG)).unwrap();
            jobs[1].reject("no").unwrap();
            let each = if later {
                let pending = queue.start_ack_many(&jobs).unwrap();
                assert!(jobs[0].is_settled());
                queue.acked(&jobs, pending.wait(&mut Wait::timeout(WATCHDOG))).unwrap()
            } else {
                queue.ack_many(&jobs).unwrap()
            };
            assert!(each[0].is_ok() && each[2].is_ok(), "{each:?}");
            assert_eq!(each[1].as_ref().unwrap_err().kind(), ErrorKind::LeaseLost);
            assert_eq!(jobs[0].ack(None).unwrap_err().kind(), ErrorKind::LeaseLost);
        }
        queue.enqueue(b"twice", &options).unwrap();
        let job = next(&queue);
        let each = queue.ack_many([&job, &job]).unwrap();
        assert!(each[0].is_ok(), "{each:?}");
        assert_eq!(each[1].as_ref().unwrap_err().kind(), ErrorKind::LeaseLost);
        let stats = queue.stats().unwrap();
        assert_eq!((stats.totals.done, stats.count(JobState::Dead)), (5, 2));
    });
}

#[test]
fn a_job_that_is_done_brings_the_next() {
    everywhere(|_, mesh| {
        let queue = mesh.declare_queue("q", &quick()).unwrap();
        let ids: Vec<_> = (0..4_u8).map(|number| queue.enqueue(&[number], &plain()).unwrap().id()).collect();
        let mut job = next(&queue);
        for (number, id) in ids.iter().enumerate().take(3) {
            assert_eq!((job.id(), job.payload()), (*id, &[number as u8][..]));
            let (reached, next) = job.ack_and_reserve(Some(b"r"), None, &mut Wait::forever()).unwrap();
            assert_eq!(reached, Durability::Os);
            let again = job.ack_and_reserve(None, None, &mut Wait::forever()).unwrap_err();
            assert_eq!(again.kind(), ErrorKind::LeaseLost);
            job = next.expect("there is one more");
        }
        // With a lease of its own, and where nothing is left.
        let bad = job.ack_and_reserve(None, Some(Duration::ZERO), &mut Wait::forever()).unwrap_err();
        assert_eq!(bad.kind(), ErrorKind::InvalidArgument);
        assert!(!job.is_settled());
        let (_, none) = job.ack_and_reserve(None, None, &mut Wait::forever()).unwrap();
        assert!(none.is_none());
        assert_eq!(queue.result(ids[0]).unwrap().as_deref(), Some(&b"r"[..]));
        assert_eq!(queue.stats().unwrap().totals.done, 4);

        // Who lost his job gets no other with the error.
        let lost = queue.enqueue(b"lost", &plain()).unwrap().id();
        let job = next(&queue);
        let nack = QueueRequest::Nack {
            queue: queue.id(),
            token: job.token(),
            message: "".into(),
            detail: "".into(),
            delay: Some(Duration::from_secs(60)),
        };
        queue.request(nack, &mut Wait::forever()).unwrap();
        let other = queue.enqueue(b"other", &plain()).unwrap().id();
        let error = job.ack_and_reserve(None, None, &mut Wait::forever()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LeaseLost);
        assert_eq!(queue.peek(lost).unwrap().state, JobState::RetryWait);
        let left = queue.peek(other).unwrap();
        assert_eq!((left.state, left.attempt), (JobState::Ready, 0));

        // Several at once, later; given up, what was taken goes back.
        let mine = next(&queue);
        let pending = queue.start_ack_and_reserve(&[(&mine, None), (&job, None)], 2, None).unwrap();
        let answered = pending.wait(&mut Wait::timeout(WATCHDOG));
        let (each, jobs) = queue.acked_and_reserved([&mine, &job], answered).unwrap();
        assert!(each[0].is_ok() && jobs.is_empty(), "{each:?}");
        assert_eq!(each[1].as_ref().unwrap_err().kind(), ErrorKind::LeaseLost);
        let [one, two] = [(); 2].map(|()| queue.enqueue(b"", &plain()).unwrap().id());
        let (each, jobs) = queue.ack_and_reserve(&[], 1, None, &mut Wait::forever()).unwrap();
        assert!(each.is_empty() && jobs.len() == 1 && jobs[0].id() == one);
        let acks = [(&jobs[0], Some(&b"1"[..])), (&mine, None)];
        let (each, jobs) = queue.ack_and_reserve(&acks, 9, None, &mut Wait::forever()).unwrap();
        assert!(each[0].is_ok() && jobs.len() == 1 && jobs[0].id() == two, "{each:?}");
        assert_eq!(each[1].as_ref().unwrap_err().kind(), ErrorKind::LeaseLost);
        assert_eq!(queue.result(one).unwrap().as_deref(), Some(&b"1"[..]));
        jobs[0].ack(None).unwrap();
        let back = queue.enqueue(b"back", &plain()).unwrap().id();
        let pending = queue.start_ack_and_reserve(&[], 2, None).unwrap();
        drop(pending);
        let job = next(&queue);
        assert_eq!((job.id(), job.attempt()), (back, 1));
    });
}

#[test]
fn the_next_job_may_be_waited_for_later_or_given_up() {
    everywhere(|_, mesh| {
        let queue = mesh.declare_queue("q", &quick()).unwrap();
        let ids = [(); 3].map(|()| queue.enqueue(b"x", &plain()).unwrap().id());
        let first = next(&queue);
        let pending = first.start_ack_and_reserve(Some(b"r"), None).unwrap();
        assert!(first.is_settled());
        let answered = pending.wait(&mut Wait::timeout(WATCHDOG));
        let second = first.acked_and_reserved(answered).unwrap().1.expect("there is one more");
        assert_eq!(second.id(), ids[1]);
        assert_eq!(first.start_ack_and_reserve(None, None).unwrap_err().kind(), ErrorKind::LeaseLost);
        let bad = second
            .start_ack_and_reserve(None, Some(Duration::ZERO))
            .and_then(|pending| second.acked_and_reserved(pending.wait(&mut Wait::timeout(WATCHDOG))));
        assert_eq!(bad.unwrap_err().kind(), ErrorKind::InvalidArgument);
        assert!(!second.is_settled());

        // Given up when the answer is there: the ack holds, and the job that came goes back.
        let pending = second.start_ack_and_reserve(None, None).unwrap();
        let deadline = Instant::now() + WATCHDOG;
        while queue.stats().unwrap().totals.done < 2 && Instant::now() < deadline {
            std::thread::yield_now();
        }
        let answered = pending.give_up().expect("nobody took it");
        match second.acked_and_reserved(answered) {
            Ok((_, none)) => assert!(none.is_none()),
            // Only its answer had not been read yet.
            Err(error) => assert_eq!(error.kind(), ErrorKind::Cancelled),
        }
        assert!(pending.give_up().is_none());
        let third = next(&queue);
        assert_eq!((third.id(), third.attempt()), (ids[2], 1));
        assert_eq!(queue.stats().unwrap().totals.released, 1);

        // The same of a reservation.
        third.release().unwrap();
        let pending = queue.start_reserve(1, None, None).unwrap();
        let answered = pending.give_up().expect("nobody took it");
        assert!(answered.is_err() || queue.jobs(answered.unwrap()).unwrap().is_empty());
        let third = next(&queue);
        assert_eq!((third.id(), third.attempt()), (ids[2], 1));
        // Before there is an answer nothing is known; it may be settled again.
        let pending = queue.start_reserve(1, None, None).unwrap();
        assert_eq!(pending.give_up().unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
        third.ack(None).unwrap();
    });
}

#[test]
fn lists_that_are_too_long_are_refused_and_end_no_session() {
    everywhere(|_, mesh| {
        let waits = vec![Duration::from_secs(1); 101];
        let config = QueueConfig { backoff: flowmesh::queue::Backoff::List(waits), ..quick() };
        assert_eq!(mesh.declare_queue("q", &config).unwrap_err().kind(), ErrorKind::InvalidArgument);
        let queue = mesh.declare_queue("q", &quick()).unwrap();
        let options = plain();
        let new = vec![NewJobRequest::new(b"x", &options); 10_001];
        let error = queue.enqueue_many(&new, &mut Wait::forever()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        assert!(error.to_string().contains("10000"), "{error}");
        let options = EnqueueOptions { headers: vec![("a".to_owned(), String::new()); 257], ..plain() };
        assert_eq!(queue.enqueue(b"x", &options).unwrap_err().kind(), ErrorKind::TooLarge);
        assert_eq!(queue.stats().unwrap().totals.enqueued, 0);
    });
}

#[test]
fn cancelling_reaches_the_worker() {
    everywhere(|host, mesh| {
        let queue = mesh.declare_queue("q", &quick()).unwrap();
        let id = queue.enqueue(b"x", &plain()).unwrap().id();
        let job = next(&queue);
        assert!(!job.is_cancelled());
        host.queue("q").unwrap().cancel(id, "not needed").unwrap();
        let begun = Instant::now();
        while !job.is_cancelled() {
            assert!(begun.elapsed() < WATCHDOG, "the worker does not hear of it");
            thread::sleep(Duration::from_millis(1));
        }
        job.release().unwrap();
        assert_eq!(queue.peek(id).unwrap().state, JobState::Cancelled);
    });
}

#[test]
fn what_a_client_had_is_anothers_when_it_ends() {
    let dir = Dir::new();
    let host = Mesh::open(dir.path()).unwrap();
    let queue = host.declare_queue("q", &quick()).unwrap();
    for (gone, shared) in [(1, true), (2, false)] {
        queue.enqueue(b"x", &plain()).unwrap();
        let client = Mesh::builder().shared_memory(shared).connect(dir.path()).unwrap();
        let job = next(&client.queue("q").unwrap());
        assert_eq!(job.attempt(), 1);
        drop((job, client));
        // The attempt counts, and the backoff holds; its time is not waited for here.
        let begun = Instant::now();
        while queue.stats().unwrap().totals.worker_gone < gone {
            assert!(begun.elapsed() < WATCHDOG);
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(queue.purge(JobState::RetryWait).unwrap() + queue.purge(JobState::Ready).unwrap(), 1);
        let client = Mesh::builder().shared_memory(shared).connect(dir.path()).unwrap();
        let waiting = client.queue("q").unwrap().start_reserve(1, None, None).unwrap();
        drop((waiting, client));
        // What is enqueued before the host has read that would be given to who is gone, and cost an attempt.
        while !host.stats().unwrap().sessions.is_empty() {
            assert!(begun.elapsed() < WATCHDOG);
            thread::sleep(Duration::from_millis(1));
        }
        queue.configure(&quick()).unwrap();
    }
}

#[test]
fn jobs_outlive_the_host() {
    let dir = Dir::new();
    let id = {
        let host = Mesh::open(dir.path()).unwrap();
        let queue = host.declare_queue("q", &quick()).unwrap();
        let taken = queue.enqueue(b"taken", &plain()).unwrap().id();
        let job = next(&queue);
        assert_eq!(job.id(), taken);
        queue.enqueue(b"left", &plain()).unwrap().id()
    };
    let host = Mesh::open(dir.path()).unwrap();
    let queue = host.queue("q").unwrap();
    let (first, second) = (next(&queue), next(&queue));
    let mut found = [(first.id() == id, first.attempt()), (second.id() == id, second.attempt())];
    found.sort_unstable();
    assert_eq!(found, [(false, 2), (true, 1)]);
    host.close();
    assert_eq!(first.ack(None).unwrap_err().kind(), ErrorKind::Closed);
    assert!(first.is_cancelled());
}

/// The thread that looks at the clock did so for the last time, now and then, when something was due as its host opened.
#[test]
fn time_goes_on_when_a_host_opens_again() {
    const ROUNDS: u32 = 12;
    let dir = Dir::new();
    let config = QueueConfig { backoff: Backoff::Fixed(Duration::ZERO), ..quick() };
    let later = EnqueueOptions { delay: Duration::from_millis(50), ..plain() };
    for round in 0..ROUNDS {
        let host = Mesh::open(dir.path()).unwrap();
        let queue = host.declare_queue("q", &config).unwrap();
        if round > 0 {
            next(&queue).ack(None).unwrap();
        }
        queue.enqueue(b"x", &later).unwrap();
        // Woken by nothing but time. Its lease ends with the host, and it is due at once when that opens again.
        assert_eq!(next(&queue).attempt(), 1, "round {round}");
    }
}

#[test]
fn what_happens_is_told() {
    everywhere(|_, mesh| {
        let queue = mesh.declare_queue("mail", &quick()).unwrap();
        let events = mesh.subscribe("$queue.mail.>").unwrap();
        let id = queue.enqueue(b"x", &plain()).unwrap().id();
        next(&queue).ack(None).unwrap();
        for kind in ["enqueued", "leased", "done"] {
            let event = events.receive(Some(WATCHDOG)).unwrap().message;
            assert_eq!(event.subject(), format!("$queue.mail.{kind}"));
            let text = std::str::from_utf8(event.payload()).unwrap();
            assert!(text.contains(&id.to_string()), "{text}");
        }
    });
}

#[test]
fn closing_ends_who_waits() {
    everywhere(|host, mesh| {
        let queue = mesh.declare_queue("q", &quick()).unwrap();
        let pending = queue.start_reserve(1, None, None).unwrap();
        let waits =
            thread::spawn(move || queue.reserve(1, None, &mut Wait::forever()).map(|jobs| jobs.len()));
        thread::sleep(Duration::from_millis(20));
        host.close();
        let kind = waits.join().unwrap().unwrap_err().kind();
        assert!(matches!(kind, ErrorKind::Closed | ErrorKind::Disconnected), "{kind:?}");
        let kind = pending.wait(&mut Wait::timeout(WATCHDOG)).unwrap_err().kind();
        assert!(matches!(kind, ErrorKind::Closed | ErrorKind::Disconnected), "{kind:?}");
    });
}
