//! The machine's limits: a ping-pong over one shared page, woken by futex or by spinning.
//!
//!   offset size  field
//!        0    4  request sequence    the client stores, the server waits for it
//!      128   64  request payload
//!      256    4  response sequence
//!      384   64  response payload

use std::hint::spin_loop;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::contender::{Figure, Peer, Result, argument, say_ready};
use crate::payload::{BLOCKING_CALLS, SPINNING_CALLS, STOP, Small, check, small, time_each};
use crate::pin::{self, Side};

pub(crate) fn futex() -> Result<Figure> {
    client("raw.futex", BLOCKING_CALLS, wait_asleep, wake)
}

pub(crate) fn futex_child(args: &[String]) -> Result<()> {
    server(args, wait_asleep, wake)
}

pub(crate) fn spin() -> Result<Figure> {
    client("raw.spin", SPINNING_CALLS, wait_spinning, |_| {})
}

pub(crate) fn spin_child(args: &[String]) -> Result<()> {
    server(args, wait_spinning, |_| {})
}

fn client(name: &str, calls: u64, wait: fn(&AtomicU32, u32), wake: fn(&AtomicU32)) -> Result<Figure> {
    // SAFETY: the name is a C string; without MFD_CLOEXEC the child inherits the descriptor.
    let fd = unsafe { libc::memfd_create(c"flowmesh-compare".as_ptr(), 0) };
    // SAFETY: plain system call on a number.
    if fd < 0 || unsafe { libc::ftruncate(fd, PAGE_BYTES as i64) } != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    let page = Page::map(fd)?;
    let mut peer = Peer::spawn(name, &[fd.to_string()])?;
    peer.wait_ready()?;
    pin::caller(Side::Parent);
    let mut sequence = 0;
    let mut call = |seed: u64| {
        sequence += 1;
        page.write(REQUEST, small(seed), sequence);
        wake(page.sequence(REQUEST));
        wait(page.sequence(RESPONSE), sequence);
        check(&page.read(RESPONSE))
    };
    let samples = time_each(calls, |seed| {
        assert_eq!(call(seed), seed + 1);
        Ok(())
    })?;
    call(STOP);
    peer.finish()?;
    Ok(Figure::latency(samples))
}

fn server(args: &[String], wait: fn(&AtomicU32, u32), wake: fn(&AtomicU32)) -> Result<()> {
    let page = Page::map(argument(args, 0)?)?;
    say_ready()?;
    pin::caller(Side::Child);
    for sequence in 1.. {
        wait(page.sequence(REQUEST), sequence);
        let seed = check(&page.read(REQUEST));
        page.write(RESPONSE, small(seed + 1), sequence);
        wake(page.sequence(RESPONSE));
        if seed == STOP {
            break;
        }
    }
    Ok(())
}

fn wait_spinning(word: &AtomicU32, sequence: u32) {
    // Acquire: pairs with the Release store in `Page::write`.
    while word.load(Ordering::Acquire) != sequence {
        spin_loop();
    }
}

fn wait_asleep(word: &AtomicU32, sequence: u32) {
    loop {
        // Acquire: pairs with the Release store in `Page::write`.
        let seen = word.load(Ordering::Acquire);
        if seen == sequence {
            return;
        }
        // SAFETY: the word outlives the call; a null timeout means for ever.
        unsafe {
            libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, seen, std::ptr::null::<()>());
        }
    }
}

fn wake(word: &AtomicU32) {
    // SAFETY: the word outlives the call.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1) };
}

/// The shared page. Mapped for the life of the process.
struct Page(NonNull<u8>);

impl Page {
    fn map(fd: i32) -> Result<Self> {
        // SAFETY: a fresh shared mapping at an address of the kernel's choice.
        let address = unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(
                std::ptr::null_mut(),
                PAGE_BYTES,
                protection,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                fd,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error().into());
        }
        Ok(Self(NonNull::new(address.cast()).ok_or("mapped at null")?))
    }

    fn sequence(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: within the page, aligned, and only ever accessed as an atomic.
        unsafe { AtomicU32::from_ptr(self.0.as_ptr().add(offset).cast()) }
    }

    fn write(&self, offset: usize, payload: Small, sequence: u32) {
        // SAFETY: within the page and aligned; the other side reads only after it saw the sequence below.
        unsafe { self.0.as_ptr().add(offset + PAYLOAD).cast::<Small>().write_volatile(payload) };
        self.sequence(offset).store(sequence, Ordering::Release);
    }

    fn read(&self, offset: usize) -> Small {
        // SAFETY: within the page and aligned; the caller has waited for the sequence that published it.
        unsafe { self.0.as_ptr().add(offset + PAYLOAD).cast::<Small>().read_volatile() }
    }
}

const PAGE_BYTES: usize = 4096;
const REQUEST: usize = 0;
const RESPONSE: usize = 256;
const PAYLOAD: usize = 128;
