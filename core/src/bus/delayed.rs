//! What is to happen later: a heap by due moment, bounded in count and in bytes.
#![forbid(unsafe_code)]

use crate::{
    clock::Moment,
    error::{Error, ErrorKind, Result},
};
use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
};

/// Values that wait for their moment, first due first, first come first among equals.
#[derive(Debug)]
pub struct Delayed<T> {
    heap: BinaryHeap<Reverse<Entry<T>>>,
    count_max: usize,
    bytes_max: usize,
    bytes: usize,
    seq: u64,
}

#[derive(Debug)]
struct Entry<T> {
    due: Moment,
    seq: u64,
    bytes: usize,
    value: T,
}

/// Values that may wait, unless the caller says otherwise.
pub const COUNT_MAX_DEFAULT: usize = 100_000;
/// Bytes they may take, unless the caller says otherwise.
pub const BYTES_MAX_DEFAULT: usize = 64 * 1024 * 1024;

impl<T> Default for Delayed<T> {
    fn default() -> Self {
        Self::new(COUNT_MAX_DEFAULT, BYTES_MAX_DEFAULT)
    }
}

impl<T> Delayed<T> {
    /// Room for this many values, of this many bytes together.
    pub fn new(count_max: usize, bytes_max: usize) -> Self {
        Self { heap: BinaryHeap::new(), count_max, bytes_max, bytes: 0, seq: 0 }
    }

    /// Keeps `value`, which stands for `bytes`, until `due`.
    ///
    /// # Errors
    /// [`ErrorKind::Full`], naming the limit that is reached; `value` is dropped.
    pub fn push(&mut self, due: Moment, bytes: usize, value: T) -> Result<()> {
        let full = || Error::new(ErrorKind::Full, "mesh.publish");
        if self.heap.len() >= self.count_max {
            return Err(full().with("delayed", self.heap.len()).with("limit", self.count_max));
        }
        if bytes > self.bytes_max.saturating_sub(self.bytes) {
            return Err(full()
                .with("message_bytes", bytes)
                .with("delayed_bytes", self.bytes)
                .with("limit_bytes", self.bytes_max));
        }
        self.bytes += bytes;
        self.seq += 1;
        self.heap.push(Reverse(Entry { due, seq: self.seq, bytes, value }));
        Ok(())
    }

    /// Takes the first value that is due, `None` when none is.
    pub fn pop_due(&mut self, now: Moment) -> Option<T> {
        if self.next_due()? > now {
            return None;
        }
        let Reverse(entry) = self.heap.pop()?;
        self.bytes -= entry.bytes;
        Some(entry.value)
    }

    /// When the first value is due.
    pub fn next_due(&self) -> Option<Moment> {
        self.heap.peek().map(|Reverse(entry)| entry.due)
    }

    /// Drops every value `gone` says yes to, those of an owner that went away; returns how many.
    pub fn drop_where(&mut self, mut gone: impl FnMut(&T) -> bool) -> usize {
        let before = self.heap.len();
        let mut freed = 0;
        self.heap.retain(|Reverse(entry)| {
            let drop = gone(&entry.value);
            freed += if drop { entry.bytes } else { 0 };
            !drop
        });
        self.bytes -= freed;
        before - self.heap.len()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// The bytes they stand for.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.due, self.seq).cmp(&(other.due, other.seq))
    }
}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Entry<T> {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refusals_name_the_limit() {
        let mut delayed = Delayed::new(2, 100);
        delayed.push(Moment(1), 60, 'a').unwrap();
        let error = delayed.push(Moment(1), 41, 'b').unwrap_err();
        assert_eq!((error.kind(), error.get("limit_bytes")), (ErrorKind::Full, Some("100")));
        delayed.push(Moment(1), 40, 'b').unwrap();
        assert_eq!(delayed.push(Moment(1), 0, 'c').unwrap_err().get("limit"), Some("2"));
        assert_eq!(delayed.pop_due(Moment(1)), Some('a'));
        delayed.push(Moment(1), 60, 'c').unwrap();
    }

    proptest! {
        #[test]
        fn values_come_by_moment_then_by_arrival(
            dues in proptest::collection::vec(0u64..20, 0..60), gone in 0usize..5, now in 0u64..25,
        ) {
            let mut delayed = Delayed::default();
            let mut model: Vec<(u64, usize)> = dues.iter().copied().zip(0..).collect();
            for &(due, index) in &model { delayed.push(Moment(due), index, index).unwrap(); }
            let dropped = delayed.drop_where(|index| index % 5 == gone);
            prop_assert_eq!(dropped, dues.len() - model.iter().filter(|(_, index)| index % 5 != gone).count());
            model.retain(|(_, index)| index % 5 != gone);
            model.sort_unstable();
            prop_assert_eq!(delayed.next_due(), model.first().map(|(due, _)| Moment(*due)));
            let mut due = model.iter().filter(|(due, _)| *due <= now).map(|(_, index)| *index);
            while let Some(index) = delayed.pop_due(Moment(now)) { prop_assert_eq!(Some(index), due.next()); }
            prop_assert_eq!(due.next(), None);
            let left = model.iter().filter(|(due, _)| *due > now);
            prop_assert_eq!((delayed.len(), delayed.bytes()), (left.clone().count(), left.map(|(_, index)| index).sum()));
        }
    }
}
