//! The table of live handles: what C holds is a number in the shape of a pointer, never an address.
//!
//! Knows nothing of C types or errors. A handle names a slot and the generation of its use:
//!
//! ```text
//!   63..60  0xF         no pointer of a user process looks like this
//!   59..24  generation  goes up each time the slot is used again
//!   23..0   slot index
//! ```
//!
//! so a handle that was freed, a pointer to something else and a made-up number are all told apart from a
//! live handle without reading memory that is not ours. A slot whose generations are used up is retired.
//!
//! A slot's state is one word: generation, whether the handle is live, and how many calls are using it.
//! Looking up is one compare-and-swap and letting go one subtraction; freeing clears the live bit, and
//! whoever lets go last drops the value, so a handle may be freed while another thread's call uses it. No
//! lock is taken anywhere: a forked child may free what it inherited.
//!
//! Slots lie in chunks that double in size and are never given back: a program keeps the memory of as many
//! as were ever live at the same time.

use std::{
    cell::UnsafeCell,
    mem::MaybeUninit,
    ops::Deref,
    ptr,
    sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

/// Values of type `T`, each found by a handle.
pub(crate) struct Registry<T: 'static> {
    chunks: [AtomicPtr<Slot<T>>; CHUNKS],
    /// The slots never used begin here.
    fresh: AtomicU32,
    /// The free slots, as a stack: a tag against reuse between load and swap, then index + 1.
    free: AtomicU64,
    live: AtomicUsize,
}

struct Slot<T> {
    state: AtomicU64,
    next_free: AtomicU32,
    value: UnsafeCell<MaybeUninit<T>>,
}

/// A share of a live value, for the time of a call.
pub(crate) struct Ref<T: Send + Sync + 'static> {
    registry: &'static Registry<T>,
    index: u32,
    slot: &'static Slot<T>,
}

const TAG: u64 = 0xF << 60;
const INDEX_BITS: u32 = 24;
const INDEX_MASK: u64 = (1 << INDEX_BITS) - 1;
const GENERATION_MAX: u64 = (1 << 36) - 1;

const REFS: u64 = LIVE - 1;
const LIVE: u64 = 1 << 27;
const GENERATION_SHIFT: u32 = 28;

/// The first chunk's slots; each further chunk holds twice as many.
const CHUNK_SLOTS: u32 = 256;
const CHUNKS: usize = 16;
/// The most handles that can be live at once.
pub(crate) const HANDLES_MAX: u32 = CHUNK_SLOTS * ((1 << CHUNKS) - 1);
const _: () = assert!((HANDLES_MAX as u64) <= INDEX_MASK);
const _: () = assert!(size_of::<usize>() == 8, "handles are 64-bit numbers in the shape of pointers");

// SAFETY: values are only handed out as shared references and dropped by one thread, which `T: Send + Sync`
// permits; everything else in it is atomic.
unsafe impl<T: Send + Sync> Sync for Registry<T> {}

impl<T: Send + Sync> Registry<T> {
    pub(crate) const fn new() -> Self {
        Self {
            chunks: [const { AtomicPtr::new(ptr::null_mut()) }; CHUNKS],
            fresh: AtomicU32::new(0),
            free: AtomicU64::new(0),
            live: AtomicUsize::new(0),
        }
    }

    /// Keeps `value` and returns its handle, or gives it back when [`HANDLES_MAX`] are live.
    pub(crate) fn insert(&'static self, value: T) -> Result<u64, T> {
        let Some((index, slot)) = self.pop_free().or_else(|| self.take_fresh()) else {
            return Err(value);
        };
        // Relaxed: the slot is ours alone since it was popped or taken, which acquired it.
        let generation = slot.state.load(Ordering::Relaxed) >> GENERATION_SHIFT;
        // SAFETY: the slot is free, so nobody reads its value, and it was popped by this thread alone.
        unsafe { (*slot.value.get()).write(value) };
        // Release: pairs with the Acquire in `get`, so who finds the handle sees the value.
        slot.state.store(generation << GENERATION_SHIFT | LIVE | 1, Ordering::Release);
        self.live.fetch_add(1, Ordering::Relaxed);
        Ok(TAG | generation << INDEX_BITS | u64::from(index))
    }

    /// The value behind a live handle; `None` for anything else.
    #[inline]
    pub(crate) fn get(&'static self, handle: u64) -> Option<Ref<T>> {
        let (index, slot) = self.slot_of(handle)?;
        let generation = generation_of(handle);
        let mut state = slot.state.load(Ordering::Relaxed);
        loop {
            if state >> GENERATION_SHIFT != generation || state & LIVE == 0 {
                return None;
            }
            // Acquire: pairs with the Release in `insert`.
            match slot.state.compare_exchange_weak(state, state + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Some(Ref { registry: self, index, slot }),
                Err(found) => state = found,
            }
        }
    }

    /// Ends the handle; the value is dropped by whoever uses it last. False when it was not live.
    pub(crate) fn remove(&'static self, handle: u64) -> bool {
        let Some((index, slot)) = self.slot_of(handle) else { return false };
        let generation = generation_of(handle);
        let ended = slot.state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |state| {
            (state >> GENERATION_SHIFT == generation && state & LIVE != 0).then_some(state & !LIVE)
        });
        if ended.is_ok() {
            self.live.fetch_sub(1, Ordering::Relaxed);
            self.release(index, slot);
        }
        ended.is_ok()
    }

    /// Handles that are live.
    pub(crate) fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    fn release(&'static self, index: u32, slot: &'static Slot<T>) {
        // AcqRel: what every user did with the value comes before its drop, below.
        let before = slot.state.fetch_sub(1, Ordering::AcqRel);
        if before & REFS != 1 {
            return;
        }
        // SAFETY: the last share is gone, and the live bit was cleared before the handle's own share was let
        // go, so no thread can take another: the value is this thread's to move out, once.
        let value = unsafe { (*slot.value.get()).assume_init_read() };
        let generation = before >> GENERATION_SHIFT;
        if generation < GENERATION_MAX {
            slot.state.store((generation + 1) << GENERATION_SHIFT, Ordering::Relaxed);
            self.push_free(index, slot);
        }
        // Last, with the slot back in order: a value's drop may run code that makes and frees handles.
        drop(value);
    }

    fn pop_free(&'static self) -> Option<(u32, &'static Slot<T>)> {
        let mut head = self.free.load(Ordering::Acquire);
        loop {
            let index = (head as u32).checked_sub(1)?;
            let slot = self.slot_at(index)?;
            let next = slot.next_free.load(Ordering::Relaxed);
            // Acquire: pairs with the Release in `push_free`. The tag makes the swap fail when the slot was
            // popped and pushed again in between, with another `next_free`.
            match self.free.compare_exchange_weak(
                head,
                retag(head, next),
                Ordering::Acquire,
                Ordering::Acquire,
            ) {
                Ok(_) => return Some((index, slot)),
                Err(found) => head = found,
            }
        }
    }

    fn push_free(&self, index: u32, slot: &Slot<T>) {
        let mut head = self.free.load(Ordering::Relaxed);
        loop {
            slot.next_free.store(head as u32, Ordering::Relaxed);
            // Release: the slot's new state is there before it can be popped.
            match self.free.compare_exchange_weak(
                head,
                retag(head, index + 1),
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(found) => head = found,
            }
        }
    }

    fn take_fresh(&'static self) -> Option<(u32, &'static Slot<T>)> {
        let taken = self.fresh.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |index| {
            (index < HANDLES_MAX).then_some(index + 1)
        });
        let index = taken.ok()?;
        let (chunk, _) = place(index);
        if self.chunks[chunk].load(Ordering::Acquire).is_null() {
            self.add_chunk(chunk);
        }
        Some((index, self.slot_at(index)?))
    }

    fn add_chunk(&'static self, chunk: usize) {
        let slots: Box<[Slot<T>]> = (0..(CHUNK_SLOTS as usize) << chunk).map(|_| Slot::new()).collect();
        let made = Box::into_raw(slots);
        // Release: pairs with the Acquire in `slot_at`, so the slots are whole.
        let added = self.chunks[chunk].compare_exchange(
            ptr::null_mut(),
            made.cast(),
            Ordering::Release,
            Ordering::Relaxed,
        );
        if added.is_err() {
            // SAFETY: another thread's chunk was first, so nobody has seen this box.
            drop(unsafe { Box::from_raw(made) });
        }
    }

    fn slot_of(&'static self, handle: u64) -> Option<(u32, &'static Slot<T>)> {
        if handle & TAG != TAG {
            return None;
        }
        let index = (handle & INDEX_MASK) as u32;
        Some((index, self.slot_at(index)?))
    }

    #[inline]
    fn slot_at(&'static self, index: u32) -> Option<&'static Slot<T>> {
        if index >= HANDLES_MAX {
            return None;
        }
        let (chunk, offset) = place(index);
        let slots = self.chunks[chunk].load(Ordering::Acquire);
        if slots.is_null() {
            return None;
        }
        // SAFETY: chunk `chunk` is `CHUNK_SLOTS << chunk` slots, `place` keeps `offset` below that, and chunks
        // are never given back.
        Some(unsafe { &*slots.add(offset) })
    }
}

impl<T> Slot<T> {
    fn new() -> Self {
        Self {
            state: AtomicU64::new(0),
            next_free: AtomicU32::new(0),
            value: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }
}

impl<T: Send + Sync> Deref for Ref<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: `get` found the slot live, so its value is initialised, and this share keeps it so.
        unsafe { (*self.slot.value.get()).assume_init_ref() }
    }
}

impl<T: Send + Sync> Drop for Ref<T> {
    fn drop(&mut self) {
        self.registry.release(self.index, self.slot);
    }
}

fn generation_of(handle: u64) -> u64 {
    (handle & !TAG) >> INDEX_BITS
}

fn retag(head: u64, index: u32) -> u64 {
    (head >> 32).wrapping_add(1) << 32 | u64::from(index)
}

/// The chunk of a slot, and the slot's place in it.
#[inline]
fn place(index: u32) -> (usize, usize) {
    let shifted = index + CHUNK_SLOTS;
    let chunk = shifted.ilog2() - CHUNK_SLOTS.ilog2();
    (chunk as usize, (shifted - (CHUNK_SLOTS << chunk)) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Barrier};

    fn registry<T: Send + Sync>() -> &'static Registry<T> {
        Box::leak(Box::new(Registry::new()))
    }

    #[test]
    fn every_slot_has_one_place() {
        let mut expected = (0, 0);
        for index in 0..CHUNK_SLOTS * 15 {
            assert_eq!(place(index), expected, "{index}");
            expected.1 += 1;
            if expected.1 == (CHUNK_SLOTS as usize) << expected.0 {
                expected = (expected.0 + 1, 0);
            }
        }
        assert_eq!(place(HANDLES_MAX - 1), (CHUNKS - 1, ((CHUNK_SLOTS as usize) << (CHUNKS - 1)) - 1));
    }

    #[test]
    fn a_freed_handle_is_not_the_next_one() {
        let registry = registry();
        let first = registry.insert("first").unwrap();
        assert_eq!(registry.get(first).as_deref(), Some(&"first"));
        assert!(registry.remove(first));
        let second = registry.insert("second").unwrap();
        assert_eq!(first & INDEX_MASK, second & INDEX_MASK, "the slot is used again");
        assert!(registry.get(first).is_none());
        assert!(!registry.remove(first));
        assert_eq!(registry.get(second).as_deref(), Some(&"second"));
        assert_eq!(registry.live(), 1);
    }

    #[test]
    fn what_is_no_handle_is_refused() {
        let registry = registry::<u32>();
        let handle = registry.insert(1).unwrap();
        let local = 0u32;
        for foreign in [
            0,
            1,
            u64::MAX,
            TAG,
            ptr::from_ref(&local) as u64,
            handle + 1,
            handle + (1 << INDEX_BITS),
            handle & !TAG,
        ] {
            assert!(foreign == handle || registry.get(foreign).is_none(), "{foreign:x}");
        }
    }

    #[test]
    fn a_value_freed_in_use_lives_until_the_use_ends() {
        let registry = registry();
        let value = Arc::new(());
        let handle = registry.insert(Arc::clone(&value)).unwrap();
        let used = registry.get(handle).unwrap();
        assert!(registry.remove(handle));
        assert!(registry.get(handle).is_none());
        assert_eq!(Arc::strong_count(&used), 2);
        drop(used);
        assert_eq!(Arc::strong_count(&value), 1);
    }

    #[test]
    fn a_slot_out_of_generations_is_retired() {
        let registry = registry();
        let handle = registry.insert(1).unwrap();
        let (_, slot) = registry.slot_of(handle).unwrap();
        slot.state.store(GENERATION_MAX << GENERATION_SHIFT | LIVE | 1, Ordering::Relaxed);
        let last = TAG | GENERATION_MAX << INDEX_BITS | (handle & INDEX_MASK);
        assert!(registry.remove(last));
        assert!(registry.get(last).is_none());
        assert_ne!(registry.insert(2).unwrap() & INDEX_MASK, last & INDEX_MASK);
    }

    #[test]
    fn threads_that_make_use_and_free_never_see_another_value() {
        let registry = registry::<(u64, Arc<()>)>();
        let (alive, start) = (Arc::new(()), Arc::new(Barrier::new(4)));
        let published: Arc<[AtomicU64; 8]> = Arc::default();
        let threads: Vec<_> = (0..4u64)
            .map(|thread| {
                let (alive, start, published) =
                    (Arc::clone(&alive), Arc::clone(&start), Arc::clone(&published));
                std::thread::spawn(move || {
                    start.wait();
                    for round in 0..20_000u64 {
                        let made = registry.insert((thread << 32 | round, Arc::clone(&alive))).unwrap();
                        assert_eq!(registry.get(made).unwrap().0, thread << 32 | round);
                        let other = published[(round % 8) as usize].swap(made, Ordering::AcqRel);
                        // A second look may race with the one who frees it; both see one whole value or none.
                        let seen = registry.get(other).map(|value| value.0);
                        if other != 0 {
                            assert!(registry.remove(other), "only who took it out frees it");
                            assert!(seen.is_some());
                        }
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        for handle in published.iter() {
            assert!(registry.remove(handle.load(Ordering::Relaxed)));
        }
        assert_eq!((registry.live(), Arc::strong_count(&alive)), (0, 1));
    }
}
