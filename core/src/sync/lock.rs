//! The locks of the core: the standard library's futex locks, without poisoning.
//!
//! A thread that waits for one of these sleeps on the lock's own word. A lock library that keeps its sleepers in
//! one table of the process leaves entries of threads in a forked child that the child does not have, and the
//! child crashes when the table grows. So nothing here has state outside the lock itself.
//!
//! A panic while a lock is held unwinds and lets go of it; what it guards is as the panic left it.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::{self, PoisonError, TryLockError},
    time::{Duration, Instant},
};

/// Mutual exclusion around a value.
#[derive(Default)]
pub struct Mutex<T: ?Sized>(sync::Mutex<T>);

/// Access to the value of a [`Mutex`], until dropped.
pub struct MutexGuard<'a, T: ?Sized> {
    mutex: &'a sync::Mutex<T>,
    /// `None` only while [`Condvar`] or [`MutexGuard::unlocked`] has let go of it.
    held: Option<sync::MutexGuard<'a, T>>,
}

/// How many times a timed attempt looks again at once, and how many times after others had the processor.
const SPINS: u32 = 32;
const YIELDS: u32 = 32;
/// The first nap of a timed attempt and the longest.
const NAP_MIN: Duration = Duration::from_micros(20);
const NAP_MAX: Duration = Duration::from_micros(500);

impl<T> Mutex<T> {
    /// An unlocked mutex around `value`.
    pub const fn new(value: T) -> Self {
        Self(sync::Mutex::new(value))
    }

    /// The value, once nobody shares the mutex.
    pub fn into_inner(self) -> T {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Waits for the lock.
    #[inline]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.guard(self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The lock, if nobody holds it now.
    #[inline]
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(held) => Some(self.guard(held)),
            Err(TryLockError::Poisoned(held)) => Some(self.guard(held.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// The lock, if it is free within `timeout`. It looks again and again with short naps in between, since the
    /// standard lock has no timed wait; for locks that are held for microseconds.
    pub fn try_lock_for(&self, timeout: Duration) -> Option<MutexGuard<'_, T>> {
        for _ in 0..SPINS {
            if let Some(guard) = self.try_lock() {
                return Some(guard);
            }
            std::hint::spin_loop();
        }
        let begun = Instant::now();
        let (mut looks, mut nap) = (0, NAP_MIN);
        loop {
            if let Some(guard) = self.try_lock() {
                return Some(guard);
            }
            let left = timeout.checked_sub(begun.elapsed()).filter(|left| !left.is_zero())?;
            if looks < YIELDS {
                looks += 1;
                std::thread::yield_now();
            } else {
                std::thread::sleep(nap.min(left));
                nap = (nap * 2).min(NAP_MAX);
            }
        }
    }

    /// The value, which nobody else can reach.
    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    fn guard<'a>(&'a self, held: sync::MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        MutexGuard { mutex: &self.0, held: Some(held) }
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

const HELD: &str = "a guard holds its lock whenever it can be reached";

impl<T: ?Sized> MutexGuard<'_, T> {
    /// Lets go of the lock while `act` runs, and takes it again.
    pub fn unlocked<R>(guard: &mut Self, act: impl FnOnce() -> R) -> R {
        guard.held = None;
        let again = Relock(guard);
        let done = act();
        drop(again);
        done
    }
}

/// Takes the lock of a guard again, also when a panic unwinds.
struct Relock<'g, 'a, T: ?Sized>(&'g mut MutexGuard<'a, T>);

impl<T: ?Sized> Drop for Relock<'_, '_, T> {
    fn drop(&mut self) {
        self.0.held = Some(self.0.mutex.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.held.as_ref().expect(HELD)
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.held.as_mut().expect(HELD)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// A place to wait, with a [`Mutex`] held, for a change that another thread makes under it.
#[derive(Debug, Default)]
pub struct Condvar(sync::Condvar);

impl Condvar {
    /// Nobody waits.
    pub const fn new() -> Self {
        Self(sync::Condvar::new())
    }

    /// Waits to be notified, without the lock. It may return early: look again.
    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let held = guard.held.take().expect(HELD);
        guard.held = Some(self.0.wait(held).unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits at most `timeout`; true when it passed.
    pub fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, timeout: Duration) -> bool {
        let held = guard.held.take().expect(HELD);
        let (held, waited) = self.0.wait_timeout(held, timeout).unwrap_or_else(PoisonError::into_inner);
        guard.held = Some(held);
        waited.timed_out()
    }

    /// Waits until `deadline` at most; true when it passed.
    pub fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, deadline: Instant) -> bool {
        self.wait_for(guard, deadline.saturating_duration_since(Instant::now()))
    }

    /// Wakes one thread that waits.
    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Wakes all threads that wait.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// Many readers or one writer around a value.
#[derive(Debug, Default)]
pub struct RwLock<T: ?Sized>(sync::RwLock<T>);

impl<T> RwLock<T> {
    /// An unlocked lock around `value`.
    pub const fn new(value: T) -> Self {
        Self(sync::RwLock::new(value))
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Waits until no writer has it.
    #[inline]
    pub fn read(&self) -> sync::RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody has it.
    #[inline]
    pub fn write(&self) -> sync::RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{panic::AssertUnwindSafe, sync::mpsc, thread};

    #[test]
    fn a_panic_neither_keeps_nor_poisons_a_lock() {
        let mutex = Mutex::new(1);
        let panicked = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let mut guard = mutex.lock();
            *guard = 2;
            MutexGuard::unlocked(&mut guard, || panic!("on purpose"));
        }));
        panicked.unwrap_err();
        assert_eq!(*mutex.lock(), 2);
        assert_eq!(mutex.try_lock().as_deref(), Some(&2));
    }

    #[test]
    fn a_timed_attempt_ends_and_takes_a_lock_that_is_let_go() {
        let mutex = Mutex::new(0);
        let guard = mutex.lock();
        thread::scope(|scope| {
            let (tell, told) = mpsc::channel();
            let mutex = &mutex;
            let other = scope.spawn(move || {
                let first = mutex.try_lock_for(Duration::from_millis(2)).is_some();
                tell.send(()).unwrap();
                (first, mutex.try_lock_for(Duration::from_secs(60)).is_some())
            });
            told.recv().unwrap();
            drop(guard);
            assert_eq!(other.join().unwrap(), (false, true));
        });
    }

    #[test]
    fn an_unlocked_guard_lets_others_in() {
        let mutex = Mutex::new(0);
        let mut guard = mutex.lock();
        MutexGuard::unlocked(&mut guard, || *mutex.lock() += 1);
        assert_eq!(*guard, 1);
        assert!(mutex.try_lock().is_none());
    }

    #[test]
    fn a_condition_is_seen_and_a_wait_for_it_ends() {
        let (mutex, changed) = (Mutex::new(false), Condvar::new());
        thread::scope(|scope| {
            let mut guard = mutex.lock();
            assert!(changed.wait_for(&mut guard, Duration::from_millis(1)));
            scope.spawn(|| {
                *mutex.lock() = true;
                changed.notify_all();
            });
            while !*guard {
                changed.wait(&mut guard);
            }
        });
    }
}
