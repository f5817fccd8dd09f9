//! Queues whose process is killed, and queues on a disk that fails: what was acknowledged is kept, nothing is acknowledged
//! after an error, and what is opened again is what was written, job by job.
#![forbid(unsafe_code)]

#[path = "support/faults.rs"]
mod faults;
#[path = "support/jobs.rs"]
mod jobs;
mod support;

use faults::{AtLeast, Ended, Work};
use flowmesh::{
    ErrorKind, Lsn,
    clock::{Moment, Timestamp},
    queue::{EnqueueOptions, Times},
    storage::{
        FileStorage,
        sim::{Disk, Failure, Fault, SimStorage},
    },
};
use jobs::{History, Host, START, config, is_failure, later};
use std::{fs, io::Write, path::Path, sync::Arc};
use support::{Dice, Dir, Process, bytes_of, let_it_work, number, seed};

#[test]
fn programs() {
    support::programs(&[("jobs", |arguments| {
        let number = |nth: usize| arguments[nth].parse().unwrap();
        let times = Times { boot: Moment(number(2)), wall: Timestamp(number(3)) };
        work(Path::new(arguments[0]), number(1), times);
    })]);
}

const SEGMENT_BYTES: u32 = 8192;

// ---------- kill -9

/// What one process does from its beginning on: the same for the same seed, times, and directory.
struct Script {
    host: Host,
    dice: Dice,
}

impl Script {
    fn new(storage: Arc<dyn flowmesh::storage::Storage>, seed: u64, times: Times) -> Self {
        let mut dice = Dice(seed);
        let opened = Host::open(storage, &config(SEGMENT_BYTES, None), times, dice.next(), 4096);
        let (mut host, _) = opened.unwrap();
        host.declare().unwrap();
        Self { host, dice }
    }

    fn step(&mut self) {
        self.host.step(&mut self.dice).unwrap();
    }
}

/// Works until it is killed. What it was promised goes to a file of its own.
fn work(dir: &Path, seed: u64, times: Times) {
    let mut record = fs::OpenOptions::new().append(true).create(true).open(dir.join("record")).unwrap();
    let mut script = Script::new(Arc::new(FileStorage::new(dir.join("ledger")).unwrap()), seed, times);
    loop {
        record.write_all(&script.host.last().0.to_le_bytes()).unwrap();
        script.step();
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let rounds = number("FLOWMESH_QUEUE_KILL_ROUNDS").unwrap_or(250);
    let seed = seed("queue kill");
    let mut dice = Dice(seed);
    let (dir, mut times, mut batches, mut before) = (Dir::new(), START, 0, Lsn::NONE);
    for round in 0..rounds {
        let what = format!("round {round} of FLOWMESH_SEED={seed}");
        // The same is done once more on a copy, to know what each batch led to.
        let copy = SimStorage::with(&disk_of(&dir.path().join("ledger")));
        let seed = dice.next();
        let arguments = [seed, times.boot.0, times.wall.0].map(|number| number.to_string());
        let path = dir.path().display().to_string();
        let record = dir.path().join("record");
        let before_bytes = bytes_of(&record);
        let mut victim = Process::start("jobs", &[&path, &arguments[0], &arguments[1], &arguments[2]]);
        let_it_work(&record, before_bytes, &mut dice);
        victim.kill();
        drop(victim);

        let record = fs::read(&record).unwrap_or_default();
        let acknowledged = record.as_chunks::<8>().0.last().map_or(0, |lsn| u64::from_le_bytes(*lsn));
        let storage = Arc::new(FileStorage::new(dir.path().join("ledger")).unwrap());
        let after = later(times, &mut dice);
        let opened = Host::open(storage, &config(SEGMENT_BYTES, None), after, dice.next(), 0);
        let (host, recovery) = opened.unwrap_or_else(|error| panic!("does not open: {error}: {what}"));
        let last = recovery.last;
        assert!(last.0 >= acknowledged, "{acknowledged} was acknowledged, ends with {last}: {what}");

        let mut history = History::default();
        if last > before {
            let mut script = Script::new(Arc::new(copy), seed, times);
            history.note(&script.host);
            while history.last() < last {
                script.step();
                history.note(&script.host);
            }
            history.check(&host, last).unwrap_or_else(|fault| panic!("after batch {last}: {fault}: {what}"));
        }
        batches += last.0 - before.0;
        (times, before) = (later(after, &mut dice), host.last());
    }
    println!(
        "queue kill -9: {rounds} rounds, {batches} batches of the victims looked at, 0 lost, 0 done twice"
    );
    assert!(batches > rounds, "the victims hardly got to work");
}

/// The files of a directory as they are, none if it is not there.
fn disk_of(directory: &Path) -> Disk {
    let mut disk = Disk::default();
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let entry = entry.unwrap();
        let name = entry.file_name().to_string_lossy().into_owned();
        disk.files.insert(name, Arc::new(fs::read(entry.path()).unwrap()));
    }
    disk
}

// ---------- a disk that fails

#[test]
fn every_call_fails_once_and_for_ever() {
    let workloads = number("FLOWMESH_QUEUE_FAULT_WORKLOADS").unwrap_or(3);
    let least = AtLeast { frozen: 50, full: 5, unopened: 5 };
    faults::every_call_fails::<Run>("queue faults", workloads, 6, least);
}

#[test]
fn work_goes_on_when_there_is_room_again() {
    let seed = seed("queues on a full disk");
    for at in 0..60 {
        let (storage, mut dice, mut history) = (SimStorage::new(), Dice(seed + at), History::default());
        let open =
            |times, seed| Host::open(Arc::new(storage.clone()), &config(SEGMENT_BYTES, None), times, seed, 0);
        let (mut host, _) = open(START, 1).unwrap();
        host.declare().unwrap();
        history.note(&host);
        storage.fail(Fault { failure: Failure::Full, at: storage.calls(Failure::Full) + at, for_ever: true });
        let mut refused = 0;
        while refused < 3 {
            if let Err(error) = host.step(&mut dice) {
                assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
                assert!(error.is_retryable());
                refused += 1;
            }
            history.note(&host);
        }
        storage.heal();
        let resumed = host.last();
        while host.last().0 < resumed.0 + 20 {
            host.step(&mut dice).unwrap();
            history.note(&host);
        }
        let (last, times) = (host.sync().unwrap(), host.times);
        drop(host);
        let (host, recovery) = open(later(times, &mut dice), 2).unwrap();
        assert_eq!((recovery.last, recovery.cut), (last, None));
        history
            .check(&host, last)
            .unwrap_or_else(|fault| panic!("{fault}: full from call {at}, FLOWMESH_SEED={seed}"));
    }
}

/// One workload on a disk that may fail, until something is wrong.
struct Run {
    ended: Ended,
    history: History,
    times: Times,
}

impl Work for Run {
    fn run(storage: &SimStorage, seed: u64) -> Self {
        let mut run = Self { ended: Ended::default(), history: History::default(), times: START };
        let mut dice = Dice(seed);
        for _ in 0..2 {
            // What the dice say does not depend on what fails.
            let mut steps = Dice(dice.next());
            let opened = Host::open(
                Arc::new(storage.clone()),
                &config(SEGMENT_BYTES, None),
                run.times,
                dice.next(),
                4096,
            );
            let mut host = match opened {
                Ok((host, _)) => host,
                Err(error) => {
                    run.ended.error = Some(error);
                    return run;
                }
            };
            run.ended.opened = true;
            let declared = host.declare();
            run.after(&host, declared);
            for _ in 0..30 {
                if run.ended.error.is_some() {
                    break;
                }
                let done = host.step(&mut steps);
                run.after(&host, done);
                if steps.roll(3) == 0 && run.ended.error.is_none() {
                    let synced = host.sync();
                    run.ended.acknowledged = synced.as_ref().map_or(run.ended.acknowledged, |lsn| *lsn);
                    run.after(&host, synced.map(drop));
                }
            }
            if run.ended.error.is_some() {
                run.is_over(&host);
                return run;
            }
            run.times = later(host.times, &mut dice);
        }
        run
    }

    fn ended(&self) -> &Ended {
        &self.ended
    }

    fn opens(&self, storage: &SimStorage, what: &str) {
        let mut dice = Dice(self.times.wall.0);
        let times = later(self.times, &mut dice);
        let opened = Host::open(Arc::new(storage.clone()), &config(SEGMENT_BYTES, None), times, 1, 0);
        let (mut host, recovery) =
            opened.unwrap_or_else(|error| panic!("does not open after {what}: {error}"));
        let (last, noted) = (recovery.last, self.history.last());
        self.ended.is_kept(last, what);
        // A batch whose writing failed may be there; of a change nobody knows what it was. What the host wrote while it
        // was being opened, before that failed, changed nothing that can be told now.
        if last == noted.next() && self.ended.opened {
            host.look().unwrap_or_else(|fault| panic!("after batch {last}: {fault}: {what}"));
        } else if noted > Lsn::NONE {
            let checked = self.history.check(&host, last.min(noted));
            checked.unwrap_or_else(|fault| panic!("after batch {last}: {fault}: {what}"));
        }
        host.declare().expect("it is sound again");
        host.sync().expect("it is sound again");
    }
}

impl Run {
    fn after(&mut self, host: &Host, done: flowmesh::Result<()>) {
        self.history.note_states(host);
        let Err(error) = done else { return };
        match error.kind() {
            ErrorKind::StorageFull => self.ended.refused += 1,
            // What a checkpoint or cleaning could not read or write hurts nobody; the ledger is as it was, unless a flush
            // that was due had failed before.
            ErrorKind::Io | ErrorKind::Interrupted => self.ended.error = host.ledger.frozen(),
            _ => self.ended.error = Some(error),
        }
    }

    /// Once it is frozen it is for good: nothing is acknowledged; what is in memory can be looked at.
    fn is_over(&self, host: &Host) {
        let error = self.ended.error.as_ref().expect("it was found");
        assert_eq!(error.kind(), ErrorKind::Frozen, "{error}");
        for (name, queue) in host.queues.names() {
            let options = EnqueueOptions::default();
            let refused = host.queues.enqueue(host.times, queue, b"no", &options);
            let refused = refused.map(drop).expect_err("nothing is acknowledged any more");
            assert!(is_failure(&refused) || refused.kind() == ErrorKind::Draining, "{name}: {refused}");
            host.queues.stats(host.times, queue).expect("numbers are in memory");
        }
        let flushed = host.ledger.status().flushed;
        assert!(host.sync().is_err() || flushed >= host.last(), "flushed as if nothing had happened");
    }
}
