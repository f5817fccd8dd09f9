//! The smallest thing that stands on a ledger as queues do: numbered values, put and deleted in batches. What it must
//! hold after any crash is known from the history of batches alone.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part")]

use flowmesh::{
    Durability, Error, ErrorKind, Lsn, Result,
    ledger::{Batch, Entry, Fold, Ledger, LedgerConfig, Owner, Place, Planted, Recovery},
    storage::Storage,
};
use std::{collections::BTreeMap, sync::Arc, sync::Mutex};

pub type Key = u64;

/// One change. A value is known by the number it was put under, which is never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Put { key: Key, value: u64 },
    Delete { key: Key },
}

/// Every batch in the order of LSNs.
pub type History = Vec<Vec<Change>>;

/// What is held after so many batches: values by key.
pub type Held = BTreeMap<Key, u64>;

/// After each batch of a history, the first being none.
pub fn states(history: &[Vec<Change>]) -> Vec<Held> {
    let mut state = Held::new();
    let mut states = vec![state.clone()];
    for batch in history {
        apply(&mut state, batch);
        states.push(state.clone());
    }
    states
}

pub fn apply(state: &mut Held, batch: &[Change]) {
    for change in batch {
        match *change {
            Change::Put { key, value } => drop(state.insert(key, value)),
            Change::Delete { key } => drop(state.remove(&key)),
        }
    }
}

/// The bytes of a value: of any length, and often with zeros at the end, which is what lost bytes look like.
pub fn bytes_of(value: u64) -> Vec<u8> {
    let mixed = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let length = match mixed >> 61 {
        0 => 0,
        1 => 700 + (mixed >> 32 & 0x1ff) as usize,
        _ => (mixed >> 40 & 0x7f) as usize,
    };
    let fill = if mixed >> 20 & 1 == 0 { 0 } else { mixed as u8 };
    let mut bytes = vec![fill; length];
    for (byte, by) in bytes.iter_mut().zip(value.to_le_bytes()) {
        *byte = by;
    }
    bytes
}

pub const OWNER: Owner = Owner(7);
const PUT: u8 = 1;
const DELETE: u8 = 2;
/// Put again by cleaning.
const MOVE: u8 = 3;

#[derive(Clone, Copy, Debug)]
pub struct Slot {
    pub value: u64,
    pub place: Place,
    /// Of its last change.
    pub lsn: Lsn,
}

/// What is held, and where.
#[derive(Default)]
pub struct State {
    pub slots: BTreeMap<Key, Slot>,
    /// The last batch seen.
    pub last: Lsn,
    /// The first entry that was replayed.
    pub replayed_from: Option<Lsn>,
    /// Batches that repair left out.
    pub gaps: Vec<Lsn>,
}

impl Fold for State {
    fn image(&mut self, owner: Owner, lsn: Lsn, bytes: &[u8]) -> Result<()> {
        assert_eq!(owner, OWNER);
        for slot in bytes.chunks_exact(32) {
            let word = |at: usize| u64::from_le_bytes(slot[at..at + 8].try_into().unwrap());
            let found = Slot { value: word(8), place: Place::from_bits(word(16)), lsn: Lsn(word(24)) };
            assert!(found.lsn <= lsn);
            self.slots.insert(word(0), found);
        }
        Ok(())
    }

    fn entry(&mut self, lsn: Lsn, place: Place, entry: Entry<'_>) -> Result<()> {
        assert_eq!(entry.owner, OWNER);
        match self.replayed_from {
            None => self.replayed_from = Some(lsn),
            Some(_) => {
                assert!(lsn >= self.last, "{lsn} after {}", self.last);
                self.gaps.extend((self.last.0 + 1..lsn.0).map(Lsn));
            }
        }
        self.last = lsn;
        let key = u64::from_le_bytes(entry.bytes[..8].try_into().unwrap());
        // A batch may change a key more than once; all of it again comes to the same.
        if self.slots.get(&key).is_some_and(|slot| slot.lsn > lsn) {
            return Ok(());
        }
        if entry.kind == DELETE {
            self.slots.remove(&key);
        } else {
            let value = u64::from_le_bytes(entry.bytes[8..16].try_into().unwrap());
            // A move may come again though its key is gone: deleted before the image was taken, which comes next.
            self.slots.insert(key, Slot { value, place, lsn });
        }
        Ok(())
    }

    fn kept(&mut self, keep: &mut dyn FnMut(Place)) {
        self.slots.values().for_each(|slot| keep(slot.place));
    }
}

/// A ledger with what stands on it.
pub struct Store {
    pub ledger: Ledger,
    inner: Mutex<Inner>,
}

struct Inner {
    state: State,
    batch: Batch,
    history: History,
    /// Told before each batch is written, with its first change; none for what cleaning moves.
    intend: Box<dyn FnMut(Lsn, Option<Change>) + Send>,
}

pub fn config(segment_bytes: u32, planted: Option<Planted>) -> LedgerConfig {
    LedgerConfig { segment_bytes, checkpoint_bytes: 8 << 10, planted, ..LedgerConfig::default() }
}

impl Store {
    /// Opens what `storage` holds; `history` is what was written before, as far as it is still there.
    pub fn open(
        storage: Arc<dyn Storage>,
        config: &LedgerConfig,
        history: &[Vec<Change>],
    ) -> Result<(Self, Recovery)> {
        let mut state = State::default();
        let (ledger, recovery) = Ledger::open(storage, config, &mut state)?;
        // Replay begins right after the checkpoint and ends with the last batch.
        let replayed = state.replayed_from.map(|first| (first, state.last));
        let expected =
            (recovery.last > recovery.checkpoint).then(|| (recovery.checkpoint.next(), recovery.last));
        if config.repair {
            // What is missing before the first and after the last that is there.
            let (first, last) = replayed.unwrap_or((recovery.last.next(), recovery.checkpoint));
            state.gaps.extend((recovery.checkpoint.0 + 1..first.0).map(Lsn));
            state.gaps.extend((last.0 + 1..=recovery.last.0).filter(|_| replayed.is_some()).map(Lsn));
        } else if (replayed != expected || !state.gaps.is_empty()) && config.planted.is_none() {
            let error =
                Error::new(ErrorKind::Internal, "store.open").with("gaps", format!("{:?}", state.gaps));
            let error = error.with("replayed", format!("{replayed:?}"));
            return Err(error.with("expected", format!("{expected:?}")));
        }
        state.last = recovery.last;
        let kept = history.get(..recovery.last.0 as usize).unwrap_or(history).to_vec();
        let intend = Box::new(|_: Lsn, _: Option<Change>| ());
        let inner = Inner { state, batch: Batch::new(), history: kept, intend };
        Ok((Self { ledger, inner: Mutex::new(inner) }, recovery))
    }

    /// Writes one batch and applies it, as one step.
    pub fn write(&self, changes: &[Change]) -> Result<Lsn> {
        let mut inner = self.inner.lock().unwrap();
        let Inner { state, batch, history, intend } = &mut *inner;
        intend(state.last.next(), changes.first().copied());
        batch.clear();
        for change in changes {
            match *change {
                Change::Put { key, value } => {
                    let parts = [&key.to_le_bytes()[..], &value.to_le_bytes(), &bytes_of(value)];
                    batch.push_kept(OWNER, PUT, &parts);
                }
                Change::Delete { key } => batch.push(OWNER, DELETE, &[&key.to_le_bytes()]),
            }
        }
        let written = self.ledger.write(batch)?;
        assert_eq!(written.lsn, state.last.next());
        state.last = written.lsn;
        history.push(changes.to_vec());
        for (index, change) in changes.iter().enumerate() {
            let gone = match *change {
                Change::Put { key, value } => {
                    let slot = Slot { value, place: written.place(batch, index), lsn: written.lsn };
                    state.slots.insert(key, slot)
                }
                Change::Delete { key } => state.slots.remove(&key),
            };
            if let Some(slot) = gone {
                self.ledger.release(slot.place);
            }
        }
        Ok(written.lsn)
    }

    /// Cleans one segment, if one is worth it. The batches it writes change nothing that can be seen.
    pub fn clean(&self) -> Result<bool> {
        let Some(cleanable) = self.ledger.cleanable() else { return Ok(false) };
        let mut moved = Vec::new();
        cleanable.entries(|place, entry| {
            moved.push((place, entry.kind, entry.bytes.to_vec()));
            Ok(())
        })?;
        for (place, _, bytes) in moved {
            let mut inner = self.inner.lock().unwrap();
            let Inner { state, batch, history, intend } = &mut *inner;
            let key = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            let Some(slot) = state.slots.get_mut(&key).filter(|slot| slot.place == place) else { continue };
            intend(state.last.next(), None);
            batch.clear();
            batch.push_kept(OWNER, MOVE, &[&bytes]);
            let written = self.ledger.write(batch)?;
            state.last = written.lsn;
            history.push(Vec::new());
            (slot.place, slot.lsn) = (written.place(batch, 0), written.lsn);
            self.ledger.release(place);
        }
        Ok(true)
    }

    /// Writes a checkpoint in slices, calling `between` while it goes on.
    pub fn checkpoint(&self, mut between: impl FnMut(&Self)) -> Result<()> {
        let mut checkpoint = self.ledger.checkpoint()?;
        let mut from = 0;
        loop {
            let (lsn, bytes, next) = {
                let inner = self.inner.lock().unwrap();
                let slice: Vec<_> = inner.state.slots.range(from..).take(5).collect();
                let mut bytes = Vec::new();
                for (key, slot) in &slice {
                    for word in [**key, slot.value, slot.place.to_bits(), slot.lsn.0] {
                        bytes.extend_from_slice(&word.to_le_bytes());
                    }
                }
                (inner.state.last, bytes, slice.last().map(|(key, _)| **key + 1))
            };
            let Some(next) = next else { break };
            checkpoint.image(OWNER, lsn, &bytes)?;
            from = next;
            between(self);
        }
        checkpoint.finish()
    }

    pub fn sync(&self, lsn: Lsn) -> Result<()> {
        let reached = self.ledger.sync(lsn, Durability::Fsync)?;
        assert!(reached == Durability::Fsync || reached == Durability::Memory);
        Ok(())
    }

    /// Has every batch told before it is written.
    pub fn on_intent(&self, intend: impl FnMut(Lsn, Option<Change>) + Send + 'static) {
        self.inner.lock().unwrap().intend = Box::new(intend);
    }

    /// Batches that repair left out.
    pub fn gaps(&self) -> Vec<Lsn> {
        self.inner.lock().unwrap().state.gaps.clone()
    }

    /// What is held, whether it can be read or not.
    pub fn held(&self) -> Held {
        self.inner.lock().unwrap().state.slots.iter().map(|(key, slot)| (*key, slot.value)).collect()
    }

    pub fn slots(&self) -> Vec<Slot> {
        self.inner.lock().unwrap().state.slots.values().copied().collect()
    }

    pub fn history(&self) -> History {
        self.inner.lock().unwrap().history.clone()
    }

    pub fn keys(&self) -> Vec<Key> {
        self.inner.lock().unwrap().state.slots.keys().copied().collect()
    }

    /// Says what is wrong, if what is held is not `expected`, byte for byte.
    pub fn differs(&self, expected: &Held) -> Option<String> {
        let inner = self.inner.lock().unwrap();
        let slots = &inner.state.slots;
        let held: Held = slots.iter().map(|(key, slot)| (*key, slot.value)).collect();
        if held != *expected {
            return Some(format!("holds {held:?}, expected {expected:?}"));
        }
        let mut bytes = Vec::new();
        for (key, slot) in slots {
            if let Err(error) = self.ledger.read(slot.place, &mut bytes) {
                return Some(format!("value {} of key {key} cannot be read: {error}", slot.value));
            }
            if bytes[..8] != key.to_le_bytes()
                || bytes[8..16] != slot.value.to_le_bytes()
                || bytes[16..] != bytes_of(slot.value)
            {
                return Some(format!("value {} of key {key} has other bytes", slot.value));
            }
        }
        None
    }
}

/// Whether an error says that nothing was written.
pub fn is_refusal(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::TooLarge)
}
