//! What queues cost in process: `cargo bench -p flowmesh-benches --bench queues -- PART [COUNT [ONLY]]`.
//!
//! | part | what it tells |
//! | --- | --- |
//! | `speed` | a job enqueued, reserved and acked, handed to the kernel each time: one by one, and a hundred at a time |
//! | `memory` | what a waiting job takes beside its payload |
//! | `recovery` | how long `COUNT` waiting jobs take to be read back, from entries and from a checkpoint |
//!
//! The directory is made anew beside the build and removed at the end.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use flowmesh::clock::{Moment, Timestamp};
use flowmesh::ledger::{Entry, Fold, Ledger, LedgerConfig, Lsn, Owner, Place};
use flowmesh::queue::{
    EnqueueOptions, Imaging, QueueConfig, QueueId, Queues, QueuesFold, ReserveOptions, Times, Token, WorkerId,
};
use flowmesh::storage::{FileStorage, MemoryStorage, Storage};
use flowmesh::{Name, Result};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let count = arguments.get(1).map(|count| count.parse().expect("COUNT is a number"));
    let only = arguments.get(2).map_or("", String::as_str);
    match arguments.first().map(String::as_str) {
        Some("speed") => speed(count.unwrap_or(1_000_000), only),
        Some("memory") => memory(count.unwrap_or(1_000_000)),
        Some("recovery") => recovery(count.unwrap_or(10_000_000)),
        _ => eprintln!("which part: speed, memory or recovery?"),
    }
}

fn speed(count: u64, only: &str) {
    let directory = Directory::new();
    let over: [(&str, Arc<dyn Storage>); 2] =
        [("memory", Arc::new(MemoryStorage::default())), ("a file", directory.storage())];
    for (name, storage) in over {
        let host = Host::open(&storage);
        let tending = Tending::of(&host);
        let how: [(&str, Step, u64); 2] =
            [("one by one", Host::one_by_one, 1), ("a hundred at once", Host::many, MANY)];
        for (how, run, step) in how {
            let what = format!("over {name}, {how}");
            if !what.contains(only) {
                continue;
            }
            let mut rounds: Vec<f64> = (0..ROUNDS)
                .map(|_| {
                    let begin = Instant::now();
                    (0..count / step).for_each(|turn| run(&host, turn * step));
                    begin.elapsed().as_nanos() as f64 / count as f64 / 1000.0
                })
                .collect();
            rounds.sort_by(f64::total_cmp);
            let (least, median) = (rounds[0], rounds[ROUNDS / 2]);
            println!("{what}: {median:.2} us a job ({least:.2} in the best of {ROUNDS} rounds)");
        }
        drop(tending);
    }
}

/// One round of work, at a turn.
type Step = fn(&Host, u64);

fn memory(count: u64) {
    let directory = Directory::new();
    let host = Host::open(&directory.storage());
    let before = resident_bytes();
    host.fill(count);
    let bytes = resident_bytes() - before;
    println!("{count} waiting jobs: {:.1} B each beside the payload", bytes as f64 / count as f64);
}

fn recovery(count: u64) {
    let directory = Directory::new();
    let storage = directory.storage();
    let host = Host::open(&storage);
    host.fill(count);
    host.ledger.close().unwrap();
    drop(host);
    for what in ["entries", "a checkpoint"] {
        if what == "a checkpoint" {
            let host = Host::open(&storage);
            host.checkpoint();
            host.ledger.close().unwrap();
        }
        let begin = Instant::now();
        let host = Host::open(&storage);
        let took = begin.elapsed();
        let waiting = host.queues.stats(TIMES, host.queue).unwrap().jobs.iter().sum::<u64>();
        assert_eq!(waiting, count);
        println!("{count} waiting jobs from {what}: {:.2} s", took.as_secs_f64());
    }
}

#[derive(Clone)]
struct Host {
    ledger: Ledger,
    queues: Arc<Queues>,
    queue: QueueId,
}

impl Host {
    fn open(storage: &Arc<dyn Storage>) -> Self {
        let mut mesh = Mesh(QueuesFold::new(1));
        let (ledger, _) = Ledger::open(Arc::clone(storage), &LedgerConfig::default(), &mut mesh).unwrap();
        let (queues, _) = Queues::open(mesh.0, ledger.clone(), TIMES, 1, RECENT_BYTES).unwrap();
        let name = Name::parse("mail").unwrap();
        let queue = queues.declare(TIMES, &name, &QueueConfig::default()).unwrap().value.0;
        Self { ledger, queues: Arc::new(queues), queue }
    }

    fn one_by_one(&self, turn: u64) {
        let Self { queues, queue, .. } = self;
        let times = at(turn);
        let _ = queues.enqueue(times, *queue, black_box(&JOB), &EnqueueOptions::default()).unwrap();
        let options = ReserveOptions::default();
        let jobs = queues.reserve(times, *queue, WorkerId(1), options, 1, usize::MAX, None).unwrap().value;
        let _ = queues.ack(times, *queue, jobs[0].token, None).unwrap();
    }

    fn many(&self, turn: u64) {
        let Self { queues, queue, .. } = self;
        let (times, options) = (at(turn), EnqueueOptions::default());
        let many = vec![(black_box(&JOB[..]), &options); MANY as usize];
        let _ = queues.enqueue_many(times, *queue, &many).unwrap();
        let (options, most) = (ReserveOptions::default(), MANY as usize);
        let jobs = queues.reserve(times, *queue, WorkerId(1), options, most, usize::MAX, None).unwrap().value;
        let tokens: Vec<Token> = jobs.iter().map(|job| job.token).collect();
        let _ = queues.ack_many(times, *queue, &tokens).unwrap();
    }

    fn checkpoint(&self) {
        let mut checkpoint = self.ledger.checkpoint().unwrap();
        let mut imaging = Imaging::default();
        while !self.queues.image(TIMES, &mut imaging, &mut checkpoint).unwrap() {}
        checkpoint.finish().unwrap();
    }

    fn fill(&self, count: u64) {
        let options = EnqueueOptions::default();
        let many = vec![(&JOB[..], &options); MANY as usize];
        for turn in 0..count / MANY {
            let _ = self.queues.enqueue_many(at(turn * MANY), self.queue, &many).unwrap();
        }
    }
}

/// A thread that does what a mesh does now and then.
struct Tending(Arc<AtomicBool>, Option<JoinHandle<()>>);

impl Tending {
    fn of(host: &Host) -> Self {
        let (host, over) = (host.clone(), Arc::new(AtomicBool::new(false)));
        let is_over = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(2));
                host.ledger.tend(Moment(0));
                if host.ledger.status().checkpoint_due {
                    host.checkpoint();
                }
            }
        });
        Self(over, Some(thread))
    }
}

impl Drop for Tending {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        self.1.take().expect("it is joined once").join().unwrap();
    }
}

fn at(turn: u64) -> Times {
    let times = TIMES;
    Times { boot: Moment(times.boot.0 + turn * 1000), wall: Timestamp(times.wall.0 + turn * 1000) }
}

/// What a mesh does with entries.
struct Mesh(QueuesFold);

impl Fold for Mesh {
    fn image(&mut self, owner: Owner, lsn: Lsn, bytes: &[u8]) -> Result<()> {
        self.0.image(owner, lsn, bytes)
    }

    fn entry(&mut self, lsn: Lsn, place: Place, entry: Entry<'_>) -> Result<()> {
        self.0.entry(lsn, place, entry)
    }

    fn kept(&mut self, keep: &mut dyn FnMut(Place)) {
        self.0.kept(keep);
    }
}

/// A directory that goes with its value.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("queues-{}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        Self(root)
    }

    fn storage(&self) -> Arc<dyn Storage> {
        Arc::new(FileStorage::new(self.0.join("ledger")).unwrap())
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let resident: u64 = pages.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap();
    resident * 4096
}

const JOB: [u8; 128] = [7; 128];
const MANY: u64 = 100;
const ROUNDS: usize = 5;
const RECENT_BYTES: usize = 1 << 20;
const TIMES: Times = Times { boot: Moment(1_000_000_000), wall: Timestamp(1_700_000_000_000_000_000) };
