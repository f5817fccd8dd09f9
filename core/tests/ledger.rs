//! The ledger as what stands on it sees it: durability, damage and repair, bounded disk, settings, kill -9, and a real
//! file system that is shut down while it is written to.

#[path = "support/store.rs"]
mod store;
mod support;

use flowmesh::{
    Durability, ErrorKind, Lsn,
    clock::{Clock, Moment, SystemClock, Timestamp},
    inspect,
    ledger::{Batch, Ledger, LedgerConfig, Planted, inspect_storage},
    storage::{
        FileStorage, MemoryStorage, Storage,
        sim::{Disk, SimStorage},
    },
};
use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};
use store::{Change, Held, History, OWNER, State, Store, apply, bytes_of, config, states};
use support::{Dice, Dir, Over, Process, assert_error, let_it_work, number, seed};

#[test]
fn programs() {
    support::programs(&[("writer", |arguments| {
        writer(Path::new(arguments[0]), arguments[1].parse().unwrap());
    })]);
}

fn put(key: u64, value: u64) -> [Change; 1] {
    [Change::Put { key, value }]
}

// ---------- durability

/// A clock that stands until it is moved.
#[derive(Default)]
struct Still(AtomicU64);

impl Clock for Still {
    fn now(&self) -> Moment {
        Moment(self.0.load(SeqCst))
    }

    fn wall(&self) -> Timestamp {
        Timestamp(self.0.load(SeqCst))
    }
}

#[test]
fn the_reply_says_how_far_a_batch_has_got() {
    let clock = Arc::new(Still::default());
    let config = LedgerConfig { clock: clock.clone(), ..LedgerConfig::default() };
    let storage = SimStorage::new();
    let (store, _) = Store::open(Arc::new(storage.clone()), &config, &[]).unwrap();
    let woken = Arc::new(AtomicU64::new(0));
    let wake = woken.clone();
    store.ledger.on_due(move || _ = wake.fetch_add(1, SeqCst));
    let interval = Durability::Interval(Duration::from_millis(10));

    let lsn = store.write(&put(1, 1)).unwrap();
    assert_eq!(store.ledger.sync(lsn, Durability::Os).unwrap(), Durability::Os);
    assert_eq!(store.ledger.tend(Moment(0)), None, "nobody asked for a flush");
    assert_eq!(store.ledger.sync(lsn, interval).unwrap(), interval);
    assert_eq!(store.ledger.sync(lsn, interval).unwrap(), interval);
    assert_eq!(woken.load(SeqCst), 1, "told once, when it became due");
    let due = Moment(10_000_000);
    assert_eq!(store.ledger.tend(Moment(9_999_999)), Some(due), "not yet");
    assert_eq!(store.ledger.status().flushed, Lsn::NONE);
    assert_eq!(store.ledger.tend(due), None);
    assert_eq!(store.ledger.status().flushed, lsn);
    assert_eq!(
        store.ledger.sync(lsn, Durability::Os).unwrap(),
        Durability::Fsync,
        "it is further than asked"
    );

    let lsn = store.write(&put(1, 2)).unwrap();
    assert_eq!(store.ledger.sync(lsn, Durability::Fsync).unwrap(), Durability::Fsync);
    assert_error(store.ledger.sync(Lsn(9), Durability::Fsync), ErrorKind::InvalidArgument, &[("lsn", "9")]);

    let (store, _) = Store::open(Arc::new(MemoryStorage::default()), &config, &[]).unwrap();
    let lsn = store.write(&put(1, 1)).unwrap();
    assert_eq!(store.ledger.sync(lsn, Durability::Fsync).unwrap(), Durability::Memory);
}

#[test]
fn one_flush_serves_all_who_wait() {
    let dir = Dir::new();
    let storage = Arc::new(FileStorage::new(dir.path()).unwrap());
    let (store, _) = Store::open(storage.clone(), &config(1 << 20, None), &[]).unwrap();
    thread::scope(|scope| {
        for writer in 0..16 {
            let store = &store;
            scope.spawn(move || {
                for value in 0..50 {
                    let lsn = store.write(&put(writer, writer * 1000 + value)).unwrap();
                    store.sync(lsn).unwrap();
                    assert!(store.ledger.status().flushed >= lsn);
                }
            });
        }
    });
    let history = store.history();
    drop(store);
    let (again, recovery) = Store::open(storage, &config(1 << 20, None), &history).unwrap();
    assert_eq!(recovery.last, Lsn(800));
    assert_eq!(again.differs(states(&history).last().unwrap()), None);
}

// ---------- settings, limits

#[test]
fn bad_settings_and_batches_are_refused_by_value_and_limit() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
    let open = |config: LedgerConfig| {
        Ledger::open(storage.clone(), &config, &mut State::default()).map(|(ledger, _)| ledger.status().last)
    };
    for segment_bytes in [0, 512, 1023, 1028, (1 << 30) + 8, u32::MAX] {
        let config = LedgerConfig { segment_bytes, ..LedgerConfig::default() };
        assert_error(
            open(config),
            ErrorKind::InvalidArgument,
            &[("segment_bytes", &segment_bytes.to_string())],
        );
    }
    let config = LedgerConfig { clean_percent: 91, ..LedgerConfig::default() };
    assert_error(open(config), ErrorKind::InvalidArgument, &[("clean_percent", "91")]);

    let config = LedgerConfig { segment_bytes: 4096, ..LedgerConfig::default() };
    let (ledger, _) = Ledger::open(storage.clone(), &config, &mut State::default()).unwrap();
    let mut batch = Batch::new();
    let word = 1_u64.to_le_bytes();
    // Header and end of the segment, headers of the frame and the entry, and at least one byte of padding.
    let most = 4096 - 512 - 48 - 40 - 16 - 1;
    batch.push_kept(OWNER, 1, &[&word, &word, &vec![7; most - 16 + 1]]);
    assert_error(
        ledger.write(&mut batch).map(|written| written.lsn),
        ErrorKind::TooLarge,
        &[("limit", "3536")],
    );
    batch.clear();
    for _ in 0..3 {
        batch.clear();
        batch.push_kept(OWNER, 1, &[&word, &word, &vec![7; most - 16]]);
        let place = ledger.write(&mut batch).unwrap().place(&batch, 0);
        let mut bytes = Vec::new();
        ledger.read(place, &mut bytes).unwrap();
        assert!(bytes.len() == most && bytes[16..].iter().all(|byte| *byte == 7));
    }
    assert_eq!(ledger.status().segments, 4, "each fills one, and the first has a mark in it");
    let checkpoint = ledger.checkpoint().unwrap();
    assert_error(ledger.checkpoint().map(drop), ErrorKind::AlreadyExists, &[]);
    drop(checkpoint);
    ledger.checkpoint().unwrap().finish().unwrap();
    assert!(storage.list("").unwrap().iter().all(|name| !name.ends_with(".tmp")));
}

#[test]
fn the_disk_stays_bounded_while_things_come_and_go() {
    let storage = SimStorage::new();
    let (store, _) = Store::open(Arc::new(storage.clone()), &config(4096, None), &[]).unwrap();
    let mut most = 0;
    for value in 1..6000_u64 {
        // Some stay for long, so that segments become nearly empty and no more.
        let key = if value % 40 == 0 { 1000 + value % 7 } else { value % 11 };
        store.write(&put(key, value)).unwrap();
        if store.ledger.status().checkpoint_due {
            store.checkpoint(|_| ()).unwrap();
            while store.clean().unwrap() {}
        }
        if value % 50 == 0 {
            store.ledger.tend(Moment(0));
        }
        if value > 1000 {
            most = most.max(store.ledger.status().disk_bytes);
        }
    }
    // Two checkpoints' worth of journal, what lives, and segments of which half lives.
    assert!(most < 100 << 10, "{most} bytes");
    let on_disk: usize = storage.disk().files.values().map(|bytes| bytes.len()).sum();
    assert!(on_disk < 110 << 10, "{on_disk} bytes");
    assert_eq!(store.differs(states(&store.history()).last().unwrap()), None);
}

#[test]
fn a_newer_version_is_refused_by_name() {
    let (disk, history) = sample(false);
    let newer = |extension: &str| {
        let mut disk = disk.clone();
        let (name, bytes) =
            disk.files.iter_mut().rev().find(|(name, _)| name.ends_with(extension)).expect("there is one");
        let bytes = Arc::make_mut(bytes);
        bytes[8] = 2;
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        (name.clone(), disk)
    };
    for extension in [".fmj", ".ckpt"] {
        let (name, disk) = newer(extension);
        let storage = SimStorage::with(&disk);
        for repair in [false, true] {
            let config = LedgerConfig { repair, ..config(2048, None) };
            let opened = Store::open(Arc::new(storage.clone()), &config, &history).map(|_| ());
            assert_error(
                opened,
                ErrorKind::Unsupported,
                &[("file", &name), ("version", "2"), ("supported", "1")],
            );
        }
        assert_error(inspect_storage(&storage), ErrorKind::Unsupported, &[("version", "2")]);
        assert_eq!(storage.disk(), disk, "nothing was changed");
    }
}

// ---------- damage

/// A ledger of several segments, with two checkpoints or none.
fn sample(bare: bool) -> (Disk, History) {
    let storage = SimStorage::new();
    let (store, _) = Store::open(Arc::new(storage.clone()), &config(2048, None), &[]).unwrap();
    for value in 1..50 {
        store.write(&put(value % 12, value * 3)).unwrap();
        if value % 5 == 0 {
            store.write(&[Change::Delete { key: value % 12 }]).unwrap();
        }
        if value % 16 == 0 && !bare {
            store.checkpoint(|_| ()).unwrap();
        }
    }
    store.ledger.close().unwrap();
    (storage.disk(), store.history())
}

#[test]
fn any_flipped_bit_is_named_and_repair_keeps_what_is_sound() {
    let mut dice = Dice(seed("damage"));
    let (mut refused, mut passed, mut repaired) = (0, 0, 0);
    for bare in [true, false] {
        let (disk, history) = sample(bare);
        let states = states(&history);
        assert!(inspect_storage(&SimStorage::with(&disk)).unwrap().damages.is_empty());
        for (name, bytes) in &disk.files {
            for at in (0..bytes.len()).step_by(3) {
                let mut disk = disk.clone();
                Arc::make_mut(disk.files.get_mut(name).unwrap())[at] ^= 1 << dice.roll(8);
                let what = format!("{name} at {at}, bare: {bare}");
                let storage = SimStorage::with(&disk);
                let found = inspect_storage(&storage).unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!(storage.disk(), disk, "inspecting changes nothing");
                assert!(found.damages.len() <= 1, "{what}, told twice: {:?}", found.damages);
                let is_room = found.damages.is_empty();
                if is_room {
                    // Behind the frames there is nothing to be damaged.
                    let segment = found.segments.iter().find(|segment| segment.file == *name);
                    assert!(
                        segment.is_some_and(|segment| at as u64 >= segment.end) || (64..512).contains(&at),
                        "{what}"
                    );
                }
                let near = |damage: &flowmesh::Damage| damage.file == *name && damage.offset <= at as u64;
                assert!(is_room || found.damages.iter().any(near), "{what}: {:?}", found.damages);

                match Store::open(Arc::new(SimStorage::with(&disk)), &config(2048, None), &history) {
                    Ok((store, recovery)) => {
                        // Not in the way: an old segment, room, or a checkpoint that another stands for.
                        assert_eq!(recovery.last.0 as usize, history.len(), "{what}");
                        assert_eq!(store.held(), states[history.len()], "{what}");
                        assert!(is_room || name.ends_with(".fmj") || !recovery.damages.is_empty(), "{what}");
                        let mut bytes = Vec::new();
                        for slot in store.slots() {
                            match store.ledger.read(slot.place, &mut bytes) {
                                Ok(()) => assert_eq!(bytes[16..], bytes_of(slot.value)),
                                Err(error) => drop(assert_error(
                                    Err::<(), _>(error),
                                    ErrorKind::Corrupt,
                                    &[("file", name)],
                                )),
                            }
                        }
                        passed += 1;
                    }
                    Err(error) => {
                        let offset =
                            error.get("offset").unwrap_or_else(|| panic!("{what}: {error}")).to_owned();
                        assert_error(Err::<(), _>(error), ErrorKind::Corrupt, &[("file", name)]);
                        assert!(offset.parse::<usize>().unwrap() <= at, "{what}: {offset}");
                        refused += 1;
                        repaired += u32::from(repair(&disk, &history, &what));
                    }
                }
            }
        }
    }
    println!("damage: {refused} refused, {passed} not in the way, {repaired} repaired");
    assert!(refused > 1000 && passed > 100 && repaired == refused);
}

#[test]
fn each_damage_is_told_once_and_nothing_else_is() {
    let storage = SimStorage::new();
    let (store, _) = Store::open(Arc::new(storage.clone()), &config(2048, None), &[]).unwrap();
    let is_ahead = |disk: &Disk| disk.files.values().any(|bytes| bytes.iter().all(|byte| *byte == 0));
    // One segment lies ready for what comes, and half a frame was never flushed.
    let mut value = 0;
    while value < 60 || !is_ahead(&storage.disk()) {
        value += 1;
        let lsn = store.write(&put(value % 12, value)).unwrap();
        store.sync(lsn).unwrap();
        store.ledger.tend(Moment(0));
    }
    let mut disk = storage.disk();
    let sound = inspect_storage(&SimStorage::with(&disk)).unwrap();
    let written: Vec<_> = sound.segments.iter().filter(|segment| segment.batch_count > 1).collect();
    assert!(written.len() > 4 && sound.segments.last().unwrap().batches.is_none() && sound.tail.is_none());
    let last = written[written.len() - 1];
    Arc::make_mut(disk.files.get_mut(&last.file).unwrap())[last.end as usize..][..100].fill(7);
    for (one, other) in (0..written.len()).flat_map(|one| (0..=one).map(move |other| (one, other))) {
        let mut disk = disk.clone();
        let mut expected = std::collections::BTreeSet::new();
        for segment in [written[one], written[other]] {
            // In the first frame.
            Arc::make_mut(disk.files.get_mut(&segment.file).unwrap())[520] = 0xee;
            expected.insert((segment.file.clone(), 512));
        }
        let damages = inspect_storage(&SimStorage::with(&disk)).unwrap().damages;
        let told: Vec<_> = damages.iter().map(|damage| (damage.file.clone(), damage.offset)).collect();
        assert_eq!(told, Vec::from_iter(expected), "{damages:?}");
    }
}

/// Repairs, and finds all there that the damage did not hit.
fn repair(disk: &Disk, history: &[Vec<Change>], what: &str) -> bool {
    let storage = SimStorage::with(disk);
    let repairing = LedgerConfig { repair: true, ..config(2048, None) };
    let opened = Store::open(Arc::new(storage.clone()), &repairing, history);
    let (store, recovery) = opened.unwrap_or_else(|error| panic!("repair of {what}: {error}"));
    assert!(!recovery.damages.is_empty(), "{what}");
    let quarantined = storage.list("quarantine").unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(!quarantined.is_empty(), "{what}");
    let gaps = store.gaps();
    assert!(gaps.len() <= 2, "one frame was hit, gone are {gaps:?}: {what}");
    let mut expected = Held::new();
    for (batch, lsn) in history.iter().zip(1..) {
        if !gaps.contains(&Lsn(lsn)) {
            apply(&mut expected, batch);
        }
    }
    assert_eq!(store.held(), expected, "{what}: {recovery:?}, gone: {gaps:?}");
    let lsn = store.write(&put(1, 1 << 41)).unwrap();
    assert!(lsn.0 as usize > history.len(), "no number is used twice: {lsn}, {what}");
    store.sync(lsn).unwrap();
    drop(store);
    // It is sound now, as far as it goes.
    let found = inspect_storage(&storage).unwrap();
    assert!(found.damages.is_empty(), "{what}: {:?}", found.damages);
    let opened = Ledger::open(Arc::new(storage), &config(2048, None), &mut State::default());
    let (_, recovery) = opened.unwrap_or_else(|error| panic!("after repair of {what}: {error}"));
    assert_eq!((recovery.last, recovery.damages.len()), (lsn, 0));
    true
}

#[test]
fn a_missing_segment_is_named_and_repair_goes_on_behind_it() {
    let (mut refused, mut named) = (0, 0);
    for bare in [true, false] {
        let (disk, history) = sample(bare);
        let segments: Vec<_> = disk.files.keys().filter(|name| name.ends_with(".fmj")).cloned().collect();
        for name in &segments {
            let mut disk = disk.clone();
            disk.files.remove(name);
            let what = format!("{name}, bare: {bare}");
            let opened = Store::open(Arc::new(SimStorage::with(&disk)), &config(2048, None), &history);
            match opened {
                // One that nothing needs any more.
                Ok((store, recovery)) => {
                    assert_eq!(recovery.last.0 as usize, history.len(), "{what}");
                    assert_eq!(store.differs(states(&history).last().unwrap()), None, "{what}");
                    continue;
                }
                Err(error) => {
                    let error = assert_error(
                        Err::<(), _>(error),
                        ErrorKind::Corrupt,
                        &[("file", ".fmj"), ("offset", "")],
                    );
                    let damages = inspect_storage(&SimStorage::with(&disk)).unwrap().damages;
                    let told: Vec<_> = damages.iter().map(|damage| damage.file.as_str()).collect();
                    // What only checkpoints refer to is not known to be missing until it is opened.
                    let is_old = error.get("what").is_some_and(|what| what.contains("still referred to"));
                    let expected = error.get("file").filter(|_| !is_old);
                    assert_eq!(told, Vec::from_iter(expected), "{what}: {error}: {damages:?}");
                    named += u32::from(!is_old);
                }
            }
            let repairing = LedgerConfig { repair: true, ..config(2048, None) };
            let storage = SimStorage::with(&disk);
            let (store, _) = Store::open(Arc::new(storage.clone()), &repairing, &history).unwrap();
            let lsn = store.write(&put(1, 1 << 41)).unwrap();
            store.sync(lsn).unwrap();
            // How many batches a lost last segment had nobody knows.
            drop(store);
            assert_eq!(inspect_storage(&storage).unwrap().damages, [], "{what}");
            let sound = Ledger::open(Arc::new(storage), &config(2048, None), &mut State::default());
            assert_eq!(sound.unwrap_or_else(|error| panic!("after repair of {what}: {error}")).1.last, lsn);
            refused += 1;
            let is_last = *name == segments[segments.len() - 1];
            assert!(lsn.0 as usize == history.len() + 1 || is_last && bare, "{what}: {lsn}");
        }
    }
    assert!(refused > 10 && named > 10, "{refused}, {named}");
}

#[test]
fn inspect_tells_what_a_directory_holds() {
    let dir = Dir::new();
    assert_error(inspect(dir.path()), ErrorKind::NotFound, &[("directory", "")]);
    let storage = Arc::new(FileStorage::new(dir.path().join("ledger")).unwrap());
    let (store, _) = Store::open(storage.clone(), &config(4096, None), &[]).unwrap();
    for value in 1..100 {
        store.write(&put(value % 9, value)).unwrap();
    }
    store.checkpoint(|_| ()).unwrap();
    store.write(&put(1, 100)).unwrap();
    let found = inspect(dir.path()).unwrap();
    assert_eq!((found.batches, found.entries, found.range), (100, 100, Some((Lsn(1), Lsn(100)))));
    assert_eq!((found.checkpoints.len(), found.checkpoints[0].begin), (1, Lsn(99)));
    assert!(found.damages.is_empty() && found.tail.is_none() && found.segments.len() > 2);
    // Half a frame at the end is a tail, a flipped byte before it is damage.
    let last = found.segments.last().unwrap();
    let path = dir.path().join("ledger").join(&last.file);
    let mut bytes = fs::read(&path).unwrap();
    bytes[last.end as usize..][..100].fill(7);
    fs::write(&path, &bytes).unwrap();
    let tail = inspect(dir.path()).unwrap().tail.expect("a tail");
    assert_eq!((tail.file.clone(), tail.offset, tail.bytes), (last.file.clone(), last.end, 100));
    let first = dir.path().join("ledger").join(&found.segments[0].file);
    let mut bytes = fs::read(&first).unwrap();
    bytes[600] ^= 1;
    fs::write(&first, &bytes).unwrap();
    let damages = inspect(dir.path()).unwrap().damages;
    assert_eq!(damages.len(), 1, "{damages:?}");
    assert!(damages[0].file == found.segments[0].file && damages[0].offset <= 600);
    drop(store);
    let (_, recovery) = Store::open(storage, &config(4096, None), &[]).unwrap();
    assert_eq!(
        recovery.cut.map(|cut| (cut.file, cut.offset, cut.bytes)),
        Some((tail.file, tail.offset, 100))
    );
}

// ---------- kill -9

/// Writes until it is killed. What it intends and what it was promised goes to a file of its own.
fn writer(dir: &Path, seed: u64) {
    let record = fs::OpenOptions::new().append(true).create(true).open(dir.join("record")).unwrap();
    let mut dice = Dice(seed);
    let storage = Arc::new(FileStorage::new(dir.join("ledger")).unwrap());
    let segment_bytes = [8 << 10, 32 << 10][dice.roll(2) as usize];
    let (store, _) = Store::open(storage, &config(segment_bytes, None), &[]).unwrap();
    let note = |line: [u64; 4]| (&record).write_all(line.map(u64::to_le_bytes).as_flattened()).unwrap();
    let intents = record.try_clone().unwrap();
    store.on_intent(move |lsn, change| {
        let line = match change {
            None => [INTENT, lsn.0, 0, 0],
            Some(Change::Put { key, value }) => [INTENT, lsn.0, key, value],
            Some(Change::Delete { key }) => [INTENT, lsn.0, key, DELETE],
        };
        (&intents).write_all(line.map(u64::to_le_bytes).as_flattened()).unwrap();
    });
    loop {
        let key = dice.roll(12);
        let change = if dice.roll(4) == 0 {
            Change::Delete { key }
        } else {
            Change::Put { key, value: 1 + dice.next() / 4 }
        };
        let lsn = store.write(&[change]).unwrap();
        if dice.roll(8) == 0 {
            store.sync(lsn).unwrap();
        }
        note([ACK, lsn.0, 0, 0]);
        match dice.roll(64) {
            0 => store.checkpoint(|_| ()).unwrap(),
            1 => drop(store.clean().unwrap()),
            2 => drop(store.ledger.tend(SystemClock::default().now())),
            _ => {}
        }
    }
}

const INTENT: u64 = 1;
const ACK: u64 = 2;
const DELETE: u64 = u64::MAX;

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let rounds = number("FLOWMESH_LEDGER_KILL_ROUNDS").unwrap_or(500);
    let seed = seed("ledger kill");
    let mut dice = Dice(seed);
    let (dir, mut acknowledged, mut cuts) = (Dir::new(), 0, 0);
    // What the batches up to `seen` led to, which was looked at.
    let (mut expected, mut seen) = (Held::new(), 0);
    for round in 0..rounds {
        let path = dir.path().display().to_string();
        let record = dir.path().join("record");
        let mut victim = Process::start("writer", &[&path, &dice.next().to_string()]);
        let_it_work(&record, 0, &mut dice);
        victim.kill();
        drop(victim);
        let what = format!("round {round} of FLOWMESH_SEED={seed}");
        let (mut intents, mut acked) = (BTreeMap::new(), seen);
        for line in fs::read(&record).unwrap_or_default().chunks_exact(32) {
            let word = |at: usize| u64::from_le_bytes(line[at * 8..][..8].try_into().unwrap());
            match word(0) {
                // The last one to intend a number is the one who wrote it.
                INTENT => drop(intents.insert(word(1), (word(2), word(3)))),
                ACK => {
                    acked = acked.max(word(1));
                    acknowledged += 1;
                }
                other => panic!("a record of kind {other}"),
            }
        }
        fs::remove_file(&record).ok();
        let storage = Arc::new(FileStorage::new(dir.path().join("ledger")).unwrap());
        let (store, recovery) = Store::open(storage, &config(8 << 10, None), &[]).unwrap();
        cuts += u32::from(recovery.cut.is_some());
        assert!(recovery.last.0 >= acked, "{acked} was acknowledged, ends with {}: {what}", recovery.last);
        for lsn in seen + 1..=recovery.last.0 {
            match *intents.get(&lsn).unwrap_or_else(|| panic!("batch {lsn} was never meant: {what}")) {
                (_, 0) => {}
                (key, DELETE) => apply(&mut expected, &[Change::Delete { key }]),
                (key, value) => apply(&mut expected, &put(key, value)),
            }
        }
        assert_eq!(store.differs(&expected), None, "{what}");
        seen = recovery.last.0;
    }
    println!("kill -9: {rounds} rounds, {acknowledged} batches acknowledged, 0 lost, {cuts} torn tails cut");
    assert!(acknowledged > rounds, "the victims hardly got to write");
}

// ---------- a real file system

#[test]
fn what_was_flushed_survives_the_shutdown_of_a_real_file_system() {
    let Some(mount) = Mount::new() else {
        eprintln!("SKIPPED: shutting down a real ext4 needs root, mkfs.ext4 and a loop device");
        assert!(std::env::var_os("CI").is_none(), "where CI runs this must be possible");
        return;
    };
    let rounds = number("FLOWMESH_SHUTDOWN_ROUNDS").unwrap_or(20);
    let mut dice = Dice(seed("shutdown"));
    let lost = |planted, dice: &mut Dice, mount: &Mount| -> bool {
        let directory = mount.path().join(format!("ledger-{}", dice.next()));
        let over = AtomicBool::new(false);
        let acknowledged = AtomicU64::new(0);
        let open = |planted| {
            let storage = Arc::new(FileStorage::new(&directory).unwrap());
            Store::open(storage, &config(64 << 10, planted), &[])
        };
        let wait = Duration::from_micros(2000 + dice.roll(20_000));
        let (store, acknowledged) = thread::scope(|scope| {
            let over_at_end = Over(&over);
            let (store, _) = open(planted).unwrap();
            let store = Arc::new(store);
            for writer in 0..3 {
                let (store, over, acknowledged) = (store.clone(), &over, &acknowledged);
                scope.spawn(move || {
                    for value in 1.. {
                        if over.load(SeqCst) {
                            return;
                        }
                        let Ok(lsn) = store.write(&put(writer, writer << 32 | value)) else { return };
                        if store.sync(lsn).is_err() {
                            return;
                        }
                        acknowledged.fetch_max(lsn.0, SeqCst);
                        if value % 100 == 0 && store.checkpoint(|_| ()).is_ok() {
                            store.ledger.tend(Moment(0));
                        }
                    }
                });
            }
            support::until("something is acknowledged", || acknowledged.load(SeqCst) > 0);
            thread::sleep(wait);
            // A flush that is under way while the file system stops may be answered either way.
            let promised = acknowledged.load(SeqCst);
            mount.shut_down();
            drop(over_at_end);
            (store, promised)
        });
        let history = store.history();
        drop(store);
        mount.again();
        if !directory.exists() {
            return true;
        }
        let (store, recovery) = match open(None) {
            Ok(opened) => opened,
            Err(error) => {
                assert!(planted.is_some(), "{error}");
                return true;
            }
        };
        let lost = recovery.last.0 < acknowledged;
        if planted.is_none() {
            assert!(
                acknowledged > 0 && !lost,
                "{acknowledged} was acknowledged, ends with {}",
                recovery.last
            );
            // A write that failed at the end may be there too.
            let states = states(&history);
            if let Some(expected) = states.get(recovery.last.0 as usize) {
                assert_eq!(store.differs(expected), None);
            }
        }
        drop(store);
        let _ = fs::remove_dir_all(&directory);
        lost
    };
    for _ in 0..rounds {
        assert!(!lost(None, &mut dice, &mount));
    }
    let noticed = (0..5).filter(|_| lost(Some(Planted::AckBeforeFlush), &mut dice, &mount)).count();
    assert!(noticed > 0, "acknowledging before the flush must lose something, or this test sees nothing");
    println!(
        "shutdown of ext4: {rounds} rounds, 0 acknowledged lost; without flushing {noticed} of 5 rounds lost some"
    );
}

/// An ext4 in a file, mounted over a loop device until this is dropped.
struct Mount {
    dir: Dir,
}

impl Mount {
    fn new() -> Option<Self> {
        let mount = Self { dir: Dir::new() };
        let image = mount.image();
        fs::File::create(&image).ok()?.set_len(64 << 20).ok()?;
        fs::create_dir(mount.path()).ok()?;
        let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image).status().ok()?.success();
        (made && mount.mount()).then_some(mount)
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("mounted")
    }

    fn mount(&self) -> bool {
        let mounted = Command::new("mount").args(["-o", "loop"]).arg(self.image()).arg(self.path()).output();
        mounted.is_ok_and(|mounted| mounted.status.success())
    }

    fn unmount(&self) -> bool {
        Command::new("umount").arg(self.path()).output().is_ok_and(|unmounted| unmounted.status.success())
    }

    /// The file system stops right now; what it did not flush is gone.
    fn shut_down(&self) {
        use std::os::fd::AsRawFd;
        const FS_IOC_SHUTDOWN: libc::c_ulong = 0x8004_587d;
        let no_log_flush: u32 = 2;
        let directory = fs::File::open(self.path()).unwrap();
        // SAFETY: the call reads one number, which outlives it.
        let done = unsafe { libc::ioctl(directory.as_raw_fd(), FS_IOC_SHUTDOWN, &raw const no_log_flush) };
        assert_eq!(done, 0, "FS_IOC_SHUTDOWN: {}", std::io::Error::last_os_error());
    }

    /// Mounts it again, as after a power cut.
    fn again(&self) {
        support::until("it can be unmounted", || self.unmount());
        assert!(self.mount(), "it does not mount again");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        self.unmount();
    }
}
