//! Unique keys: which job has each, which one comes next, which are held a while longer.
#![forbid(unsafe_code)]

use super::{job::JobId, slab::NONE};
use hashbrown::HashMap;
use std::{collections::BTreeSet, sync::Arc};

#[derive(Debug, Default)]
pub(super) struct Keys {
    holds: HashMap<Arc<str>, Hold>,
    /// Keys held after their job, by when they are free.
    windows: BTreeSet<(u64, Arc<str>)>,
}

/// Who has a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hold {
    /// The job, or the finished one whose window this is.
    pub(super) id: JobId,
    /// Its slot; [`NONE`] when it is finished.
    pub(super) holder: u32,
    /// The job that has the key next, or [`NONE`].
    pub(super) next: u32,
    /// Until when a finished job's key is held.
    pub(super) until: u64,
}

impl Keys {
    /// Who has `key` at `now`.
    pub(super) fn find(&self, key: &str, now: u64) -> Option<Hold> {
        self.holds.get(key).copied().filter(|hold| hold.holder != NONE || hold.until > now)
    }

    /// Gives a free key to a job.
    pub(super) fn take(&mut self, key: &Arc<str>, slot: u32, id: JobId) {
        let hold = Hold { id, holder: slot, next: NONE, until: 0 };
        if let Some(old) = self.holds.insert(Arc::clone(key), hold)
            && old.holder == NONE
        {
            self.windows.remove(&(old.until, Arc::clone(key)));
        }
    }

    /// Puts a job behind the one that has `key`.
    pub(super) fn follow(&mut self, key: &str, slot: u32) {
        if let Some(hold) = self.holds.get_mut(key) {
            hold.next = slot;
        }
    }

    /// The job at `slot` waits for `key` no more.
    pub(super) fn unfollow(&mut self, key: &str, slot: u32) {
        if let Some(hold) = self.holds.get_mut(key)
            && hold.next == slot
        {
            hold.next = NONE;
        }
    }

    /// The job at `slot` gives `key` up; unless another follows, the key stays taken until `until`. Gives the slot
    /// of the one that follows: it is to [`Keys::take`] the key.
    pub(super) fn give_up(&mut self, key: &Arc<str>, slot: u32, until: u64, now: u64) -> Option<u32> {
        let hold = self.holds.get_mut(key).filter(|hold| hold.holder == slot)?;
        if hold.next != NONE {
            return Some(hold.next);
        }
        if until > now {
            (hold.holder, hold.until) = (NONE, until);
            self.windows.insert((until, Arc::clone(key)));
        } else {
            self.holds.remove(key);
        }
        None
    }

    /// Holds `key` for a job that is finished, if nobody has it.
    pub(super) fn hold_until(&mut self, key: &Arc<str>, id: JobId, until: u64) {
        if !self.holds.contains_key(key) {
            self.holds.insert(Arc::clone(key), Hold { id, holder: NONE, next: NONE, until });
            self.windows.insert((until, Arc::clone(key)));
        }
    }

    /// When the next window ends.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.windows.first().map(|(until, _)| *until)
    }

    /// Frees what is due.
    pub(super) fn advance(&mut self, now: u64) {
        while let Some((until, key)) = self.windows.first()
            && *until <= now
        {
            self.holds.remove(key);
            self.windows.pop_first();
        }
    }

    /// Keys held after their job: key, job, until when.
    pub(super) fn windows(&self) -> impl Iterator<Item = (&Arc<str>, JobId, u64)> {
        self.windows.iter().filter_map(|(until, key)| Some((key, self.holds.get(key)?.id, *until)))
    }
}
