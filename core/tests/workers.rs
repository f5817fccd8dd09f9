//! The worker runtime: handlers, leases that are kept, stopping.
#![forbid(unsafe_code)]

mod support;

use flowmesh::{
    Durability, ErrorKind, JobError, Mesh, Queue, Wait, WorkerOptions,
    queue::{Backoff, EnqueueOptions, JobId, JobState, QueueConfig},
};
use std::{
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use support::{Dir, WATCHDOG, until};

fn quick() -> QueueConfig {
    QueueConfig {
        durability: Durability::Os,
        backoff: Backoff::Fixed(Duration::ZERO),
        ..QueueConfig::default()
    }
}

/// In the host, and in a client.
fn both(test: impl Fn(&Mesh, &Queue)) {
    for client in [false, true] {
        let dir = Dir::new();
        let host = Mesh::open(dir.path()).unwrap();
        host.declare_queue("q", &quick()).unwrap();
        let mesh = if client { Mesh::connect(dir.path()).unwrap() } else { host.clone() };
        test(&host, &mesh.queue("q").unwrap());
    }
}

fn enqueue(queue: &Queue, payload: &[u8]) -> JobId {
    queue.enqueue(payload, &EnqueueOptions::default()).unwrap().id()
}

fn options(concurrency: usize) -> WorkerOptions {
    WorkerOptions { concurrency, lease: None }
}

/// Opened once.
#[derive(Default)]
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    fn open(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }

    fn pass(&self) {
        let mut open = self.0.lock().unwrap();
        while !*open {
            open = self.1.wait(open).unwrap();
        }
    }
}

#[test]
fn jobs_are_worked_on_and_results_kept() {
    both(|_, queue| {
        let worker = queue.process(options(3), |job| Ok(Some(job.payload().to_ascii_uppercase()))).unwrap();
        let ids: Vec<_> = (0..50).map(|n| (n, enqueue(queue, format!("n{n}").as_bytes()))).collect();
        until("all are done", || worker.stats().done == 50);
        for (n, id) in ids {
            assert_eq!(queue.result(id).unwrap().unwrap(), format!("N{n}").into_bytes());
        }
        assert!(worker.stop(WATCHDOG));
        assert!(!worker.is_running() && worker.error().is_none());
    });
}

#[test]
fn failures_are_tried_again_and_told() {
    both(|_, queue| {
        let worker = queue
            .process(options(1), |job| match (job.payload(), job.attempt()) {
                (b"fails", 1) => Err(std::io::Error::other("first").into()),
                (b"fails", 2) => panic!("second"),
                (b"never", _) => Err(JobError::Reject("bad input".to_owned())),
                _ => Ok(None),
            })
            .unwrap();
        let (fails, never) = (enqueue(queue, b"fails"), enqueue(queue, b"never"));
        until("both are finished", || {
            queue.peek(fails).is_err() && queue.peek(never).unwrap().state == JobState::Dead
        });
        let stats = worker.stats();
        assert_eq!((stats.done, stats.failed, stats.rejected), (1, 2, 1));
        assert_eq!(queue.peek(never).unwrap().failures[0].message, "bad input");
    });
}

#[test]
fn a_lease_is_kept_while_the_handler_works() {
    both(|_, queue| {
        let worker = queue
            .process(WorkerOptions { concurrency: 1, lease: Some(Duration::from_secs(1)) }, |job| {
                std::thread::sleep(Duration::from_millis(2500));
                assert!(!job.is_cancelled());
                Ok(None)
            })
            .unwrap();
        enqueue(queue, b"slow");
        until("it is done", || worker.stats().done + worker.stats().lost + worker.stats().failed == 1);
        assert_eq!(worker.stats().done, 1);
        assert_eq!(queue.stats().unwrap().totals.lease_expired, 0);
    });
}

#[test]
fn stopping_waits_for_handlers() {
    both(|_, queue| {
        let gate = Arc::new(Gate::default());
        let inside = Arc::clone(&gate);
        let worker = queue
            .process(options(2), move |_| {
                inside.pass();
                Ok(None)
            })
            .unwrap();
        enqueue(queue, b"1");
        until("it has begun", || worker.stats().running == 1);
        gate.open();
        assert!(worker.stop(WATCHDOG));
        enqueue(queue, b"2");
        assert_eq!((worker.stats().done, queue.stats().unwrap().count(JobState::Ready)), (1, 1));
    });
}

#[test]
fn stopping_gives_back_what_is_not_finished_in_time() {
    both(|_, queue| {
        let gate = Arc::new(Gate::default());
        let inside = Arc::clone(&gate);
        let seen = Arc::new(AtomicU32::new(0));
        let sees = Arc::clone(&seen);
        let worker = queue
            .process(options(1), move |job| {
                inside.pass();
                sees.store(1 + u32::from(job.is_cancelled()), Ordering::Release);
                Ok(None)
            })
            .unwrap();
        enqueue(queue, b"1");
        until("it has begun", || worker.stats().running == 1);
        assert!(!worker.stop(Duration::from_millis(10)));
        let again = queue.reserve_one(&mut Wait::timeout(WATCHDOG)).unwrap().unwrap();
        assert_eq!(again.attempt(), 1, "a job that was given back does not count");
        gate.open();
        until("the handler has ended", || seen.load(Ordering::Acquire) > 0);
        assert_eq!(seen.load(Ordering::Acquire), 2, "the handler was told");
        again.ack(None).unwrap();
    });
}

#[test]
fn a_cancelled_job_is_given_up() {
    both(|host, queue| {
        let worker = queue
            .process(options(1), |job| {
                until("it is cancelled", || job.is_cancelled());
                if job.payload() == b"fails" {
                    return Err(JobError::Failed { message: "stopped".to_owned(), detail: String::new() });
                }
                Ok(Some(b"half of it".to_vec()))
            })
            .unwrap();
        for payload in [&b"fails"[..], b"returns"] {
            let id = enqueue(queue, payload);
            until("it has begun", || queue.peek(id).unwrap().state == JobState::Leased);
            host.queue("q").unwrap().cancel(id, "not needed").unwrap();
            until("it is cancelled", || queue.peek(id).unwrap().state == JobState::Cancelled);
        }
        assert_eq!((worker.stats().done, worker.stats().failed), (0, 0));
    });
}

#[test]
fn a_worker_ends_with_its_mesh() {
    both(|host, queue| {
        let worker = queue.process(options(2), |_| Ok(None)).unwrap();
        host.close();
        until("it has ended", || !worker.is_running());
        let kind = worker.error().unwrap().kind();
        assert!(matches!(kind, ErrorKind::Closed | ErrorKind::Disconnected), "{kind:?}");
    });
}

#[test]
fn options_have_limits() {
    both(|_, queue| {
        for concurrency in [0, 1025] {
            let error = queue.process(options(concurrency), |_| Ok(None)).unwrap_err();
            assert_eq!(error.get("concurrency"), Some(concurrency.to_string().as_str()));
        }
        let lease = Some(Duration::from_millis(999));
        let error = queue.process(WorkerOptions { concurrency: 1, lease }, |_| Ok(None)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    });
}
