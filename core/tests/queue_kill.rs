//! SIGKILL of hosts and workers at random moments, with an outside ledger of what each meant to do and was told.
//!
//! Every process writes down what it is about to do, and what came of it, in a file of its own: what is handed to the
//! kernel outlives it. Afterwards: whatever was acknowledged is there or finished, what was acked never comes back, and
//! all that is left can be worked on.
//!
//! `FLOWMESH_MESH_KILL_ROUNDS` (60) says how often, `FLOWMESH_SEED` repeats the choices of a run.
#![forbid(unsafe_code)]

mod support;

use flowmesh::{
    Durability, ErrorKind, Mesh, Queue, Wait,
    queue::{Backoff, EnqueueOptions, JobId, JobState, QueueConfig},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{File, OpenOptions},
    io::Write as _,
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};
use support::{Dice, Dir, Process, WATCHDOG, number, seed};

fn config() -> QueueConfig {
    QueueConfig {
        durability: Durability::Os,
        backoff: Backoff::Fixed(Duration::ZERO),
        max_attempts: 1000,
        ..QueueConfig::default()
    }
}

/// What a process writes down, in a file of its own: one write a line.
#[derive(Clone)]
struct Notes(Arc<Mutex<File>>);

impl Notes {
    fn new(directory: &Path) -> Self {
        let path = directory.join(format!("notes.{}", std::process::id()));
        Self(Arc::new(Mutex::new(OpenOptions::new().create(true).append(true).open(path).unwrap())))
    }

    /// `+` to be enqueued, `=` enqueued, `r` reserved, `-` to be acked, `x` acked.
    fn write(&self, what: char, id: JobId) {
        // Within one machine all processes read the same clock.
        let now = flowmesh::os::time::boot_ns();
        let line = format!("{now} {what} {id}\n");
        self.0.lock().unwrap().write_all(line.as_bytes()).unwrap();
    }
}

fn produce(queue: &Queue, notes: &Notes, dice: &mut Dice) -> flowmesh::Result<()> {
    loop {
        let id = JobId(u128::from(dice.next()) << 64 | u128::from(dice.next()));
        let payload = dice.roll(2000) as usize;
        let options = EnqueueOptions { id: Some(id), ..EnqueueOptions::default() };
        notes.write('+', id);
        queue.enqueue(&vec![id.0 as u8; payload], &options)?;
        notes.write('=', id);
        if dice.roll(20) == 0 {
            thread::sleep(Duration::from_micros(dice.roll(2000)));
        }
    }
}

fn work(queue: &Queue, notes: &Notes, dice: &mut Dice) -> flowmesh::Result<()> {
    loop {
        let most = 1 + dice.roll(5) as usize;
        for job in queue.reserve(most, None, &mut Wait::timeout(Duration::from_millis(200)))? {
            notes.write('r', job.id());
            assert!(job.payload().iter().all(|byte| *byte == job.id().0 as u8), "another's payload");
            match dice.roll(10) {
                0 => drop(job.nack("no")?),
                1 => drop(job.release()?),
                _ => {
                    notes.write('-', job.id());
                    job.ack(if dice.roll(2) == 0 { Some(b"result") } else { None })?;
                    notes.write('x', job.id());
                }
            }
        }
    }
}

fn run(mesh: &Mesh, notes: &Notes, seed: u64) {
    let queue = mesh.declare_queue("jobs", &config()).unwrap();
    thread::scope(|scope| {
        let producer = scope.spawn(|| produce(&queue, notes, &mut Dice(seed ^ 1)));
        let worker = scope.spawn(|| work(&queue, notes, &mut Dice(seed ^ 2)));
        for ended in [producer.join().unwrap(), worker.join().unwrap()] {
            let error = ended.unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Disconnected | ErrorKind::Closed), "{error}");
        }
    });
}

#[test]
fn programs() {
    support::programs(&[
        ("host", |arguments| {
            let mesh = Mesh::open(arguments[0]).unwrap();
            run(&mesh, &Notes::new(Path::new(arguments[1])), arguments[2].parse().unwrap());
        }),
        ("client", |arguments| {
            let begun = Instant::now();
            let mesh = loop {
                match Mesh::connect(arguments[0]) {
                    Ok(mesh) => break mesh,
                    Err(error) => assert!(begun.elapsed() < WATCHDOG, "{error}"),
                }
                thread::sleep(Duration::from_millis(1));
            };
            run(&mesh, &Notes::new(Path::new(arguments[1])), arguments[2].parse().unwrap());
        }),
        ("sleeper", |arguments| {
            let mesh = Mesh::connect(arguments[0]).unwrap();
            let queue = mesh.queue("jobs").unwrap();
            let lease = Some(Duration::from_secs(1));
            let job = queue.reserve(1, lease, &mut Wait::timeout(WATCHDOG)).unwrap().remove(0);
            let notes = Path::new(arguments[1]);
            std::fs::write(notes.join("has"), job.id().to_string()).unwrap();
            support::until("it may go on", || notes.join("go").exists());
            let error = job.ack(None).unwrap_err();
            std::fs::write(notes.join("error.new"), error.kind().code()).unwrap();
            std::fs::rename(notes.join("error.new"), notes.join("error")).unwrap();
        }),
    ]);
}

#[test]
fn a_worker_that_was_stopped_past_its_lease_changes_nothing() {
    let (dir, notes) = (Dir::new(), Dir::new());
    let host = Mesh::open(&dir).unwrap();
    let queue = host.declare_queue("jobs", &config()).unwrap();
    let id = queue.enqueue(b"x", &EnqueueOptions::default()).unwrap().id();
    let sleeper = Process::start("sleeper", &[dir.path().to_str().unwrap(), notes.path().to_str().unwrap()]);
    support::until("the other has it", || notes.path().join("has").exists());
    signal("STOP", sleeper.pid());
    let job = queue.reserve_one(&mut Wait::timeout(WATCHDOG)).unwrap().expect("the lease ends");
    assert_eq!((job.id(), job.attempt()), (id, 2));
    std::fs::write(notes.path().join("go"), "").unwrap();
    signal("CONT", sleeper.pid());
    support::until("it has tried", || notes.path().join("error").exists());
    assert_eq!(std::fs::read_to_string(notes.path().join("error")).unwrap(), "LEASE_LOST");
    assert_eq!(queue.peek(id).unwrap().state, JobState::Leased);
    job.ack(None).unwrap();
    assert_eq!(queue.stats().unwrap().totals.lease_expired, 1);
    sleeper.join();
}

fn signal(name: &str, pid: u32) {
    let sent = std::process::Command::new("kill").args([format!("-{name}"), pid.to_string()]).status();
    assert!(sent.unwrap().success());
}

#[test]
fn what_was_acknowledged_outlives_every_process() {
    let rounds = number("FLOWMESH_MESH_KILL_ROUNDS").unwrap_or(60);
    let mut dice = Dice(seed("queue_kill"));
    let (mesh, notes) = (Dir::new(), Dir::new());
    let (at, to) = (mesh.path().to_str().unwrap(), notes.path().to_str().unwrap());
    let mut kills = 0;
    for _ in 0..rounds {
        let start =
            |name: &str, dice: &mut Dice| Process::start(name, &[at, to, dice.next().to_string().as_str()]);
        let mut host = start("host", &mut dice);
        let mut clients = [start("client", &mut dice)];
        // One of four dies at any moment after its start, the others once they have worked: opening alone may take
        // longer than any time that was thought of.
        if dice.roll(4) > 0 {
            let victims = [host.pid(), clients[0].pid()];
            support::until("the victims work", || acks_of(notes.path(), &victims) >= 4);
        }
        thread::sleep(Duration::from_millis(dice.roll(120)));
        // A worker alone may go first: the host gives what it had to others.
        while dice.roll(2) == 0 {
            clients[0].kill();
            kills += 1;
            clients[0] = start("client", &mut dice);
            thread::sleep(Duration::from_millis(dice.roll(60)));
        }
        host.kill();
        kills += 1;
    }
    let story = Story::read(notes.path());
    story.check_order();

    let mesh = Mesh::open(&mesh).unwrap();
    let queue = mesh.declare_queue("jobs", &config()).unwrap();
    let mut left = BTreeSet::new();
    while let Some(job) = queue.reserve_one(&mut Wait::timeout(Duration::from_millis(300))).unwrap() {
        assert!(left.insert(job.id()), "{} came twice", job.id());
        assert!(!story.acked.contains_key(&job.id()), "{} was acked and came back", job.id());
        assert!(story.meant.contains(&job.id()), "{} was never enqueued", job.id());
        job.ack(None).unwrap();
    }
    let stats = queue.stats().unwrap();
    for state in [JobState::Ready, JobState::Leased, JobState::RetryWait, JobState::Scheduled, JobState::Dead]
    {
        assert_eq!(stats.count(state), 0, "{state:?}");
    }
    let lost: Vec<_> = story
        .enqueued
        .iter()
        .filter(|id| !left.contains(id) && !story.acked.contains_key(id) && !story.acking.contains(id))
        .collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
    println!(
        "queues, kill -9: {kills} of hosts and workers, {} jobs acknowledged, {} acked, {} left, 0 lost",
        story.enqueued.len(),
        story.acked.len(),
        left.len()
    );
    assert!(story.acked.len() as u64 > rounds, "hardly anything was done");
}

/// How many jobs these processes have acked.
fn acks_of(notes: &Path, processes: &[u32]) -> usize {
    let written = |pid: &u32| std::fs::read_to_string(notes.join(format!("notes.{pid}"))).unwrap_or_default();
    processes.iter().map(|pid| written(pid).matches(" x ").count()).sum()
}

/// What all processes wrote down.
struct Story {
    meant: BTreeSet<JobId>,
    enqueued: BTreeSet<JobId>,
    acking: BTreeSet<JobId>,
    acked: BTreeMap<JobId, u64>,
    reserved: Vec<(u64, JobId)>,
}

impl Story {
    fn read(directory: &Path) -> Self {
        let mut story = Self {
            meant: BTreeSet::new(),
            enqueued: BTreeSet::new(),
            acking: BTreeSet::new(),
            acked: BTreeMap::new(),
            reserved: Vec::new(),
        };
        for file in std::fs::read_dir(directory).unwrap() {
            for line in std::fs::read_to_string(file.unwrap().path()).unwrap().lines() {
                let mut parts = line.split(' ');
                let mut part = || parts.next().unwrap();
                let (at, what, id) = (part().parse().unwrap(), part(), JobId::parse(part()).unwrap());
                match what {
                    "+" => drop(story.meant.insert(id)),
                    "=" => drop(story.enqueued.insert(id)),
                    "-" => drop(story.acking.insert(id)),
                    "x" => drop(story.acked.insert(id, at)),
                    _ => story.reserved.push((at, id)),
                }
            }
        }
        story
    }

    /// No job was handed out after somebody was told that it is done.
    fn check_order(&self) {
        for (at, id) in &self.reserved {
            if let Some(acked) = self.acked.get(id) {
                assert!(at < acked, "{id} was acked at {acked} and reserved again at {at}");
            }
        }
    }
}
