//! What a forked child must not inherit: descriptors are closed in it, handles notice that they are not its own.
//!
//! One `pthread_atfork` child handler per copy of the library bumps a process-wide generation and closes
//! every guarded descriptor, so a child holds neither the directory lock nor a session's sockets: the
//! parent's death frees the lock and hangs up the socket although the child lives on.
//!
//! The handler runs between `fork` and its return in a copy of a many-threaded process, so it only loads
//! and swaps atomics and calls `close`. The registry is therefore a list of leaked chunks that only grows
//! (4 bytes per descriptor ever held at the same time). A thread that forks between the making of a
//! descriptor and its [`guard`] gives the child that one descriptor, until the child execs.

use crate::error::{Error, ErrorKind, Result};
use crate::sync::{AtomicI32, AtomicPtr, AtomicU32, Ordering};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Once;

/// How many forks lie between the process that loaded the library and this one.
#[inline]
pub fn generation() -> u32 {
    // Relaxed: it changes only inside `fork`, when the process has a single thread.
    GENERATION.load(Ordering::Relaxed)
}

/// The process a handle was made in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    generation: u32,
}

impl Origin {
    /// This process.
    pub fn here() -> Self {
        watch_forks();
        Self { generation: generation() }
    }

    /// Whether this is still the process the handle was made in.
    #[inline]
    pub fn is_here(&self) -> bool {
        self.generation == generation()
    }

    /// Refuses `operation` in a forked child. One relaxed load.
    ///
    /// # Errors
    /// - [`ErrorKind::Forked`]: the handle belongs to the parent. Open or connect again.
    #[inline]
    pub fn check(&self, operation: &'static str) -> Result<()> {
        if self.is_here() { Ok(()) } else { Err(forked(operation)) }
    }
}

#[cold]
fn forked(operation: &'static str) -> Error {
    Error::new(ErrorKind::Forked, operation).with("pid", std::process::id())
}

/// A descriptor that a forked child does not keep. Closed on drop.
///
/// In a forked child it is closed already and its number may name something else: check the handle's
/// [`Origin`] before using it there. Dropping it there closes nothing.
#[derive(Debug)]
pub struct GuardedFd {
    fd: ManuallyDrop<OwnedFd>,
    slot: &'static AtomicI32,
    origin: Origin,
}

/// Hands `fd` to the registry of descriptors that are closed in a forked child.
pub fn guard(fd: OwnedFd) -> GuardedFd {
    let origin = Origin::here();
    let slot = claim_slot(fd.as_raw_fd());
    GuardedFd { fd: ManuallyDrop::new(fd), slot, origin }
}

impl GuardedFd {
    /// Whether the descriptor is open here: false in a forked child.
    pub fn is_here(&self) -> bool {
        self.origin.is_here()
    }
}

impl AsFd for GuardedFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for GuardedFd {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Drop for GuardedFd {
    fn drop(&mut self) {
        if self.origin.is_here() {
            // Unregistered before it is closed: the other way round a child forked in between could
            // close a number that another thread has just been given.
            self.slot.store(FREE, Ordering::Release);
            // SAFETY: dropped once, here, and not used again.
            unsafe { ManuallyDrop::drop(&mut self.fd) };
        }
    }
}

static GENERATION: AtomicU32 = AtomicU32::new(0);
static CHUNKS: AtomicPtr<Chunk> = AtomicPtr::new(std::ptr::null_mut());
static WATCH: Once = Once::new();

const FREE: i32 = -1;
const CHUNK_SLOTS: usize = 255;

struct Chunk {
    slots: [AtomicI32; CHUNK_SLOTS],
    next: *const Chunk,
}

/// The chunks, newest first. Never freed, so a reference to one lives for ever.
fn chunks() -> impl Iterator<Item = &'static Chunk> {
    // Acquire: pairs with the Release that pushed the chunk, so its slots and `next` are written.
    let mut chunk = CHUNKS.load(Ordering::Acquire).cast_const();
    std::iter::from_fn(move || {
        // SAFETY: null or a leaked chunk that was whole before it was pushed and never changes its `next`.
        let found = unsafe { chunk.as_ref() }?;
        chunk = found.next;
        Some(found)
    })
}

fn claim_slot(fd: RawFd) -> &'static AtomicI32 {
    let claim = |slot: &&'static AtomicI32| {
        slot.load(Ordering::Relaxed) == FREE
            && slot.compare_exchange(FREE, fd, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    };
    loop {
        if let Some(slot) = chunks().flat_map(|chunk| &chunk.slots).find(claim) {
            return slot;
        }
        let newest = CHUNKS.load(Ordering::Acquire);
        let chunk = Box::new(Chunk { slots: [const { AtomicI32::new(FREE) }; CHUNK_SLOTS], next: newest });
        let pushed = Box::into_raw(chunk);
        // Release: the chunk is whole before a child handler or another thread can find it.
        if CHUNKS.compare_exchange(newest, pushed, Ordering::Release, Ordering::Relaxed).is_err() {
            // SAFETY: the push failed, so nobody else has seen this box.
            drop(unsafe { Box::from_raw(pushed) });
        }
    }
}

fn watch_forks() {
    WATCH.call_once(|| {
        // SAFETY: the handler is async-signal-safe, as it must be: atomics and `close` alone. The C
        // library forgets it when the shared object that holds it is unloaded.
        let failed = unsafe { pthread_atfork(None, None, Some(in_child)) };
        assert_eq!(failed, 0, "no memory to watch forks");
    });
}

/// Registers the handler while the library is loaded, before the program can have a thread that forks: a child
/// made while another thread is inside [`WATCH`] would wait for it for ever. Where a linker drops this entry,
/// the first [`Origin`] registers.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = at_load;

extern "C" fn at_load() {
    watch_forks();
}

extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    for slot in chunks().flat_map(|chunk| &chunk.slots) {
        let fd = slot.swap(FREE, Ordering::Relaxed);
        if fd != FREE {
            // SAFETY: a guarded descriptor; its `GuardedFd` sees the new generation and lets go of it.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
}

unsafe extern "C" {
    fn pthread_atfork(
        prepare: Option<unsafe extern "C" fn()>,
        parent: Option<unsafe extern "C" fn()>,
        child: Option<extern "C" fn()>,
    ) -> libc::c_int;
}

#[cfg(test)]
mod tests {
    use super::super::test_child::{alone, exit_code_of_fork, is_open};
    use super::*;

    fn some_fd() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn a_forked_child_holds_no_guarded_descriptor_and_is_told_so() {
        let _alone = alone();
        let plain = some_fd();
        let guarded: Vec<_> = (0..600).map(|_| guard(some_fd())).collect();
        let origin = Origin::here();
        let numbers: Vec<_> = guarded.iter().map(AsRawFd::as_raw_fd).collect();
        let plain_number = plain.as_raw_fd();
        let before = generation();
        let code = exit_code_of_fork(move || {
            let closed = numbers.iter().all(|fd| !is_open(*fd));
            let refused = origin.check("test").is_err_and(|error| error.kind() == ErrorKind::Forked);
            // Numbers are used again at once: dropping the guards must not close the new owner's.
            let reused = some_fd();
            let taken = numbers.contains(&reused.as_raw_fd());
            drop(guarded);
            let kept = is_open(reused.as_raw_fd()) && is_open(plain_number);
            i32::from(!(closed && refused && taken && kept && generation() == before + 1))
        });
        assert_eq!(code, 0);
        assert_eq!(generation(), before);
        origin.check("test").unwrap();
    }

    #[test]
    fn a_dropped_guard_closes_and_frees_its_slot() {
        let guarded = guard(some_fd());
        let slot: *const AtomicI32 = guarded.slot;
        drop(guarded);
        let known = chunks().flat_map(|chunk| &chunk.slots).any(|found| std::ptr::eq(found, slot));
        assert!(known);
    }
}
