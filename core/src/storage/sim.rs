//! A disk that fails on purpose, for tests: its power can be cut between any two operations, and any call can fail.
//!
//! [`SimStorage`] records every operation. [`Timeline`] goes through the record again and at each boundary tells
//! what the disk could hold if the power went right then ([`Timeline::cut`]): of what was not synced each sector of
//! 512 bytes is lost or kept, whole writes or torn, in order or not; names that were not synced come, go or stay;
//! lengths are old or new. [`SimStorage::fail`] makes a call fail. A failed sync is as bad as on Linux: what was to
//! be flushed may be lost although it is still read from the cache, and the next sync says that all is well.

use super::{File, Open, Storage, memory};
use crate::sync::lock::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
};

/// What lies on a disk: everything as it is after a power cut, or at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// Contents by name.
    pub files: BTreeMap<String, Arc<Vec<u8>>>,
    /// Names of directories.
    pub directories: BTreeSet<String>,
}

/// A simulated directory; clones are the same one.
#[derive(Clone, Default)]
pub struct SimStorage {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    start: Disk,
    world: World,
    operations: Vec<Operation>,
    faults: Vec<Fault>,
    /// Calls that each error could have befallen, by [`Failure`].
    calls: [u64; FAILURES],
    fired: u64,
}

/// What befalls a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// EIO: of a write any part may have been done, of a sync too.
    Io,
    /// ENOSPC: what would take room fails; of a write half is done.
    Full,
    /// A read or write does half of what was asked.
    Short,
    /// EINTR, and nothing is done.
    Interrupted,
}

const FAILURES: usize = 4;

/// A failure to come.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// What happens.
    pub failure: Failure,
    /// The call it happens to, counted from 0 among the calls it could happen to ([`SimStorage::calls`]).
    pub at: u64,
    /// Whether it happens to all calls after it too.
    pub for_ever: bool,
}

/// What a call does, as far as failures care.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    Look,
    Read,
    Write,
    Grow,
    Change,
    Sync,
}

impl Failure {
    fn befalls(self, call: Call) -> bool {
        match self {
            Self::Io => true,
            Self::Full => matches!(call, Call::Write | Call::Grow),
            Self::Short => matches!(call, Call::Read | Call::Write),
            Self::Interrupted => call != Call::Look,
        }
    }

    fn error(self) -> io::Error {
        io::Error::from_raw_os_error(match self {
            Self::Io | Self::Short => libc::EIO,
            Self::Full => libc::ENOSPC,
            Self::Interrupted => libc::EINTR,
        })
    }
}

type Inode = usize;

#[derive(Clone, Debug)]
enum Operation {
    Create {
        name: String,
    },
    Write {
        inode: Inode,
        offset: u64,
        bytes: Arc<[u8]>,
    },
    Allocate {
        inode: Inode,
        bytes: u64,
    },
    SyncFile {
        inode: Inode,
    },
    /// What was pending is kept or lost for good, by the seed.
    SyncFileFailed {
        inode: Inode,
        seed: u64,
    },
    DropCache {
        inode: Inode,
    },
    Rename {
        from: String,
        to: String,
    },
    Remove {
        name: String,
    },
    MakeDirectory {
        name: String,
    },
    SyncDirectory {
        name: String,
    },
    SyncDirectoryFailed {
        name: String,
        seed: u64,
    },
}

/// The disk, and what is on its way there.
#[derive(Clone, Default)]
struct World {
    inodes: Vec<Node>,
    /// As calls see it.
    names: BTreeMap<String, Inode>,
    directories: BTreeSet<String>,
    /// As the disk has it.
    durable_names: BTreeMap<String, Inode>,
    durable_directories: BTreeSet<String>,
    pending_names: Vec<NameChange>,
}

#[derive(Clone, Default)]
struct Node {
    /// As calls see it.
    cache: Arc<Vec<u8>>,
    /// As the disk has it.
    durable: Arc<Vec<u8>>,
    pending: Vec<Pending>,
    /// A flush failed, so the cache may have bytes that are never written.
    lies: bool,
}

#[derive(Clone)]
enum Pending {
    Write { offset: u64, bytes: Arc<[u8]> },
    Grow { bytes: u64 },
}

#[derive(Clone)]
enum NameChange {
    Create(String, Inode),
    Rename(String, String),
    Remove(String),
    Directory(String),
}

impl SimStorage {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is left on `disk`, after the machine has started again.
    pub fn with(disk: &Disk) -> Self {
        let shared = Shared { start: disk.clone(), world: World::of(disk), ..Shared::default() };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }

    /// Operations recorded so far: the number of the boundary of now.
    pub fn boundary(&self) -> usize {
        self.shared.lock().operations.len()
    }

    /// What calls see now, as if everything were flushed.
    pub fn disk(&self) -> Disk {
        self.shared.lock().world.seen()
    }

    /// The record so far, from its beginning.
    pub fn timeline(&self) -> Timeline {
        let shared = self.shared.lock();
        Timeline { world: World::of(&shared.start), operations: shared.operations.clone(), next: 0 }
    }

    /// Plans a failure.
    pub fn fail(&self, fault: Fault) {
        self.shared.lock().faults.push(fault);
    }

    /// No more failures.
    pub fn heal(&self) {
        self.shared.lock().faults.clear();
    }

    /// How many calls there were that `failure` could have befallen.
    pub fn calls(&self, failure: Failure) -> u64 {
        self.shared.lock().calls[failure as usize]
    }

    /// How many calls failed.
    pub fn fired(&self) -> u64 {
        self.shared.lock().fired
    }
}

impl Shared {
    /// The failure that befalls this call, if any.
    fn failure(&mut self, call: Call) -> Option<Failure> {
        let mut found = None;
        for failure in [Failure::Io, Failure::Full, Failure::Short, Failure::Interrupted] {
            if !failure.befalls(call) {
                continue;
            }
            let number = self.calls[failure as usize];
            self.calls[failure as usize] += 1;
            let hit = |fault: &Fault| {
                fault.failure == failure && (fault.at == number || fault.for_ever && fault.at < number)
            };
            if self.faults.iter().any(hit) {
                found = Some(failure);
            }
        }
        self.fired += u64::from(found.is_some());
        found
    }

    fn check(&mut self, call: Call) -> io::Result<()> {
        self.failure(call).map_or(Ok(()), |failure| Err(failure.error()))
    }

    fn act(&mut self, operation: Operation) {
        self.world.act(&operation);
        self.operations.push(operation);
    }
}

impl Storage for SimStorage {
    fn open(&self, name: &str, how: Open) -> io::Result<Arc<dyn File>> {
        let mut shared = self.shared.lock();
        shared.check(if how == Open::New { Call::Grow } else { Call::Change })?;
        match (shared.world.names.contains_key(name), how) {
            (true, Open::New) => return Err(io::ErrorKind::AlreadyExists.into()),
            (false, Open::New) => shared.act(Operation::Create { name: name.to_owned() }),
            (false, _) => return Err(io::ErrorKind::NotFound.into()),
            (true, _) => {}
        }
        let inode = shared.world.names[name];
        Ok(Arc::new(SimFile { shared: self.shared.clone(), inode, writable: how != Open::ReadOnly }))
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let mut shared = self.shared.lock();
        shared.check(Call::Look)?;
        let world = &shared.world;
        if !directory.is_empty() && !world.directories.contains(directory) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(memory::children(directory, world.names.keys().chain(&world.directories)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut shared = self.shared.lock();
        shared.check(Call::Grow)?;
        if !shared.world.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        shared.act(Operation::Rename { from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut shared = self.shared.lock();
        shared.check(Call::Change)?;
        if !shared.world.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        shared.act(Operation::Remove { name: name.to_owned() });
        Ok(())
    }

    fn make_directory(&self, directory: &str) -> io::Result<()> {
        let mut shared = self.shared.lock();
        shared.check(Call::Grow)?;
        if !shared.world.directories.contains(directory) {
            shared.act(Operation::MakeDirectory { name: directory.to_owned() });
        }
        Ok(())
    }

    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        let mut shared = self.shared.lock();
        let failure = shared.failure(Call::Sync);
        match failure {
            None => shared.act(Operation::SyncDirectory { name: directory.to_owned() }),
            Some(Failure::Io) => {
                let seed = shared.operations.len() as u64;
                shared.act(Operation::SyncDirectoryFailed { name: directory.to_owned(), seed });
            }
            Some(_) => {}
        }
        failure.map_or(Ok(()), |failure| Err(failure.error()))
    }
}

struct SimFile {
    shared: Arc<Mutex<Shared>>,
    inode: Inode,
    writable: bool,
}

impl File for SimFile {
    fn len(&self) -> io::Result<u64> {
        let mut shared = self.shared.lock();
        shared.check(Call::Look)?;
        Ok(shared.world.inodes[self.inode].cache.len() as u64)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut shared = self.shared.lock();
        let count = match shared.failure(Call::Read) {
            None => into.len(),
            Some(Failure::Short) => into.len().div_ceil(2),
            Some(failure) => return Err(failure.error()),
        };
        Ok(memory::read(&shared.world.inodes[self.inode].cache, offset, &mut into[..count]))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        if !self.writable {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        let mut shared = self.shared.lock();
        let failure = shared.failure(Call::Write);
        let count = match failure {
            None => bytes.len(),
            Some(Failure::Short) => bytes.len().div_ceil(2),
            Some(Failure::Full) => bytes.len() / 2,
            // All of it, none, or a part.
            Some(Failure::Io) => bytes.len() * (shared.operations.len() % 3) / 2,
            Some(Failure::Interrupted) => 0,
        };
        if count > 0 {
            let bytes = Arc::from(&bytes[..count]);
            shared.act(Operation::Write { inode: self.inode, offset, bytes });
        }
        match failure {
            None | Some(Failure::Short) => Ok(count),
            Some(failure) => Err(failure.error()),
        }
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let mut shared = self.shared.lock();
        shared.check(Call::Grow)?;
        shared.act(Operation::Allocate { inode: self.inode, bytes });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut shared = self.shared.lock();
        let failure = shared.failure(Call::Sync);
        match failure {
            None => shared.act(Operation::SyncFile { inode: self.inode }),
            Some(Failure::Io) => {
                let seed = shared.operations.len() as u64;
                shared.act(Operation::SyncFileFailed { inode: self.inode, seed });
            }
            Some(_) => {}
        }
        failure.map_or(Ok(()), |failure| Err(failure.error()))
    }

    fn distrust_cache(&self) {
        self.shared.lock().act(Operation::DropCache { inode: self.inode });
    }
}

/// The record of a [`SimStorage`], gone through once more.
#[derive(Clone)]
pub struct Timeline {
    world: World,
    operations: Vec<Operation>,
    next: usize,
}

impl Timeline {
    /// How many operations lie before this moment.
    pub fn boundary(&self) -> usize {
        self.next
    }

    /// How many operations there are in all.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Goes on by one operation. False at the end.
    pub fn advance(&mut self) -> bool {
        let Some(operation) = self.operations.get(self.next) else { return false };
        self.world.act(operation);
        self.next += 1;
        true
    }

    /// Whether a cut now could leave the disk in more than one way.
    pub fn is_uncertain(&self) -> bool {
        !self.world.pending_names.is_empty() || self.world.inodes.iter().any(|node| !node.pending.is_empty())
    }

    /// What calls see now: what is left when only the process dies.
    pub fn seen(&self) -> Disk {
        self.world.seen()
    }

    /// What is on the disk if the power goes now: one of the possible ways, chosen by `seed`.
    pub fn cut(&self, seed: u64) -> Disk {
        self.world.cut(&mut Chance(seed))
    }
}

impl World {
    fn of(disk: &Disk) -> Self {
        let nodes = disk.files.values();
        let inodes: Vec<Node> = nodes
            .map(|bytes| Node {
                cache: bytes.clone(),
                durable: bytes.clone(),
                pending: Vec::new(),
                lies: false,
            })
            .collect();
        let names: BTreeMap<_, _> = disk.files.keys().cloned().zip(0..).collect();
        let directories = disk.directories.clone();
        Self {
            inodes,
            durable_names: names.clone(),
            names,
            durable_directories: directories.clone(),
            directories,
            pending_names: Vec::new(),
        }
    }

    fn seen(&self) -> Disk {
        let files = self.names.iter().map(|(name, inode)| (name.clone(), self.inodes[*inode].cache.clone()));
        Disk { files: files.collect(), directories: self.directories.clone() }
    }

    fn act(&mut self, operation: &Operation) {
        match operation {
            Operation::Create { name } => {
                let inode = self.inodes.len();
                self.inodes.push(Node::default());
                self.change(NameChange::Create(name.clone(), inode));
            }
            Operation::Write { inode, offset, bytes } => {
                let node = &mut self.inodes[*inode];
                memory::write(Arc::make_mut(&mut node.cache), *offset, bytes);
                node.pending.push(Pending::Write { offset: *offset, bytes: bytes.clone() });
            }
            Operation::Allocate { inode, bytes } => {
                let node = &mut self.inodes[*inode];
                if (node.cache.len() as u64) < *bytes {
                    Arc::make_mut(&mut node.cache).resize(*bytes as usize, 0);
                    node.pending.push(Pending::Grow { bytes: *bytes });
                }
            }
            Operation::SyncFile { inode } => self.inodes[*inode].settle(None),
            Operation::SyncFileFailed { inode, seed } => self.inodes[*inode].settle(Some(&mut Chance(*seed))),
            Operation::DropCache { inode } => {
                let node = &mut self.inodes[*inode];
                // Pages that wait to be written stay; what a failed flush left behind goes.
                node.lies = false;
                node.cache = node.durable.clone();
                for pending in &node.pending {
                    pending.apply(Arc::make_mut(&mut node.cache));
                }
            }
            Operation::Rename { from, to } => self.change(NameChange::Rename(from.clone(), to.clone())),
            Operation::Remove { name } => self.change(NameChange::Remove(name.clone())),
            Operation::MakeDirectory { name } => self.change(NameChange::Directory(name.clone())),
            Operation::SyncDirectory { name } => self.settle_names(name, None),
            Operation::SyncDirectoryFailed { name, seed } => {
                self.settle_names(name, Some(&mut Chance(*seed)));
            }
        }
    }

    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.names, &mut self.directories);
        self.pending_names.push(change);
    }

    /// What is pending in `directory` gets to the disk, or a part of it.
    fn settle_names(&mut self, directory: &str, mut failed: Option<&mut Chance>) {
        for change in std::mem::take(&mut self.pending_names) {
            if change.directory() != directory {
                self.pending_names.push(change);
            } else if failed.as_mut().is_none_or(|chance| chance.of(2) == 0) {
                change.apply(&mut self.durable_names, &mut self.durable_directories);
            }
        }
    }

    fn cut(&self, chance: &mut Chance) -> Disk {
        let (names, directories) = self.surviving_names(chance);
        let weather = Weather::of(chance);
        let mut files = BTreeMap::new();
        for (name, inode) in names {
            files.insert(name, self.inodes[inode].after_cut(weather, chance));
        }
        Disk { files, directories }
    }

    fn surviving_names(&self, chance: &mut Chance) -> (BTreeMap<String, Inode>, BTreeSet<String>) {
        let (mut names, mut directories) = (self.durable_names.clone(), self.durable_directories.clone());
        let (count, in_order) = (self.pending_names.len() as u64, chance.of(2) == 0);
        let first = chance.of(count + 1);
        for (index, change) in (0..).zip(&self.pending_names) {
            if if in_order { index < first } else { chance.of(2) == 0 } {
                change.apply(&mut names, &mut directories);
            }
        }
        (names, directories)
    }
}

impl NameChange {
    /// Whose flush makes it durable.
    fn directory(&self) -> &str {
        let (Self::Create(name, _) | Self::Rename(_, name) | Self::Remove(name) | Self::Directory(name)) =
            self;
        name.rsplit_once('/').map_or("", |(directory, _)| directory)
    }

    fn apply(&self, names: &mut BTreeMap<String, Inode>, directories: &mut BTreeSet<String>) {
        match self {
            Self::Create(name, inode) => drop(names.insert(name.clone(), *inode)),
            Self::Remove(name) => drop(names.remove(name)),
            Self::Directory(name) => drop(directories.insert(name.clone())),
            Self::Rename(from, to) => {
                // Its creation may have been lost.
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
        }
    }
}

impl Pending {
    fn apply(&self, file: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => memory::write(file, *offset, bytes),
            Self::Grow { bytes } => file.resize(file.len().max(*bytes as usize), 0),
        }
    }
}

impl Node {
    /// Everything pending gets to the disk, or what a failed flush leaves of it.
    fn settle(&mut self, failed: Option<&mut Chance>) {
        if self.pending.is_empty() {
            return;
        }
        self.durable = match failed {
            None if !self.lies => self.cache.clone(),
            None => {
                // After a failed flush the cache has more than is ever written.
                let mut durable = self.durable.clone();
                for pending in &self.pending {
                    pending.apply(Arc::make_mut(&mut durable));
                }
                durable
            }
            Some(chance) => {
                self.lies = true;
                self.after_cut(Weather::of(chance), chance)
            }
        };
        self.pending.clear();
    }

    fn after_cut(&self, weather: Weather, chance: &mut Chance) -> Arc<Vec<u8>> {
        if self.pending.is_empty() || weather == Weather::Lost {
            return self.durable.clone();
        }
        let mut cache = self.durable.as_ref().clone();
        let mut disk = cache.clone();
        let first = chance.of(self.pending.len() as u64 + 1);
        for (index, pending) in (0..).zip(&self.pending) {
            let kept = match weather {
                Weather::Lost => Kept::Lost,
                Weather::Kept => Kept::Whole,
                Weather::InOrder if index == first => Kept::Torn,
                Weather::InOrder if index < first => Kept::Whole,
                Weather::InOrder => Kept::Lost,
                Weather::Any => [Kept::Lost, Kept::Whole, Kept::Torn][chance.of(3) as usize],
            };
            pending.apply(&mut cache);
            let Pending::Write { offset, bytes } = pending else { continue };
            if kept == Kept::Lost {
                continue;
            }
            let (start, end) = (*offset as usize, *offset as usize + bytes.len());
            let mut sector = start / SECTOR * SECTOR;
            while sector < end {
                // What the disk gets is the sector as the cache has it.
                if kept == Kept::Whole || chance.of(2) == 0 {
                    let until = (sector + SECTOR).min(cache.len());
                    memory::write(&mut disk, sector as u64, &cache[sector..until]);
                }
                sector += SECTOR;
            }
        }
        // A length is old, new, or what was written so far.
        match chance.of(3) {
            0 => disk.truncate(self.durable.len()),
            1 => disk.resize(cache.len(), 0),
            _ => {}
        }
        Arc::new(disk)
    }
}

/// How a cut treats what was not synced.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Weather {
    Lost,
    Kept,
    /// The first of it is kept, one write torn, the rest lost.
    InOrder,
    Any,
}

impl Weather {
    fn of(chance: &mut Chance) -> Self {
        [Self::Lost, Self::Kept, Self::InOrder, Self::InOrder, Self::Any, Self::Any, Self::Any, Self::Any]
            [chance.of(8) as usize]
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    Lost,
    Whole,
    Torn,
}

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// splitmix64: the same choices for the same seed.
struct Chance(u64);

impl Chance {
    fn of(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

#[cfg(test)]
mod tests {
    use super::super::{read_full, write_full};
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn what_was_synced_stays_and_what_was_not_may_go_in_parts() {
        let storage = SimStorage::new();
        let file = storage.open("a", Open::New).unwrap();
        write_full(&*file, 0, &[1; 2048]).unwrap();
        file.sync().unwrap();
        storage.sync_directory("").unwrap();
        let safe = storage.boundary();
        write_full(&*file, 512, &[2; 1024]).unwrap();
        write_full(&*file, 1536, &[3; 1024]).unwrap();
        storage.rename("a", "b").unwrap();
        let mut timeline = storage.timeline();
        assert!(!timeline.is_uncertain());
        while timeline.boundary() < safe {
            timeline.advance();
        }
        assert_eq!(timeline.cut(1).files["a"][..], [1; 2048]);
        while timeline.advance() {}
        let mut ways = HashSet::new();
        for seed in 0..2000 {
            let disk = timeline.cut(seed);
            let (name, bytes) = disk.files.iter().next().expect("the file is there under one name");
            assert!(name == "a" || name == "b");
            assert!(bytes[..512] == [1; 512] && bytes.len() >= 2048);
            let sectors: Vec<u8> = bytes.chunks(512).map(|sector| sector[0]).collect();
            assert!(
                bytes.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])),
                "torn in a sector"
            );
            ways.insert((name.clone(), sectors));
        }
        assert!(ways.len() > 30, "{ways:?}");
        assert!(ways.contains(&("a".into(), vec![1; 4])), "all lost");
        assert!(ways.contains(&("b".into(), vec![1, 2, 2, 3, 3])), "all kept");
        assert!(
            ways.contains(&("a".into(), vec![1, 1, 2, 3, 0]))
                || ways.contains(&("a".into(), vec![1, 1, 2, 3]))
        );
    }

    #[test]
    fn after_a_failed_sync_the_cache_lies_until_it_is_dropped() {
        let mut lost = 0;
        for filler in 0..64_u64 {
            let storage = SimStorage::new();
            for _ in 0..filler {
                storage.make_directory(&format!("{}", storage.boundary())).unwrap();
            }
            let file = storage.open("a", Open::New).unwrap();
            write_full(&*file, 0, b"old").unwrap();
            file.sync().unwrap();
            write_full(&*file, 0, b"new").unwrap();
            storage.fail(Fault { failure: Failure::Io, at: storage.calls(Failure::Io), for_ever: false });
            file.sync().unwrap_err();
            file.sync().unwrap();
            let mut bytes = [0; 3];
            read_full(&*file, 0, &mut bytes).unwrap();
            assert_eq!(&bytes, b"new");
            file.distrust_cache();
            read_full(&*file, 0, &mut bytes).unwrap();
            lost += u32::from(&bytes == b"old");
        }
        assert!(lost > 10, "{lost} of 64 lost");
    }

    #[test]
    fn the_chosen_call_fails_once_or_for_ever() {
        let storage = SimStorage::new();
        let file = storage.open("a", Open::New).unwrap();
        storage.fail(Fault { failure: Failure::Short, at: 1, for_ever: false });
        assert_eq!(file.write_at(0, b"1234").unwrap(), 4);
        assert_eq!(file.write_at(0, b"1234").unwrap(), 2);
        assert_eq!(file.write_at(0, b"1234").unwrap(), 4);
        storage.fail(Fault { failure: Failure::Full, at: storage.calls(Failure::Full), for_ever: true });
        assert_eq!(file.write_at(0, b"1234").unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(file.allocate(1).unwrap_err().kind(), io::ErrorKind::StorageFull);
        file.sync().unwrap();
        storage.heal();
        file.write_at(0, b"1234").unwrap();
        storage.fail(Fault {
            failure: Failure::Interrupted,
            at: storage.calls(Failure::Interrupted),
            for_ever: false,
        });
        write_full(&*file, 0, b"1234").unwrap();
        assert_eq!(storage.fired(), 4);
    }
}
