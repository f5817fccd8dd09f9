//! The disk's limit: records appended to a preallocated file by many threads, one of which flushes for all who wait;
//! and the kernel's: three writes and nothing else.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::contender::{Figure, Result, directory, is_quick};

pub(crate) fn group_of_16() -> Result<Figure> {
    group_commit(16, RECORD_BYTES)
}

pub(crate) fn group_of_64() -> Result<Figure> {
    group_commit(64, RECORD_BYTES)
}

pub(crate) fn small_group_of_16() -> Result<Figure> {
    group_commit(16, RECORD_BYTES / 2)
}

pub(crate) fn small_group_of_64() -> Result<Figure> {
    group_commit(64, RECORD_BYTES / 2)
}

/// Jobs per second if a job were three writes of 256 B by one thread.
pub(crate) fn writes() -> Result<Figure> {
    let (file, record) = (preallocated()?, [7_u8; RECORD_BYTES]);
    let count = if is_quick() { 40_000 } else { 400_000 };
    let mut offset = 0;
    let begun = Instant::now();
    for _ in 0..3 * count {
        file.write_all_at(&record, offset)?;
        offset = (offset + RECORD_BYTES as u64) % FILE_BYTES;
    }
    Ok(Figure::rate(count, begun.elapsed()))
}

/// Flushed records per second.
fn group_commit(threads: u64, record_bytes: usize) -> Result<Figure> {
    let (file, end) = (preallocated()?, AtomicU64::new(0));
    let log = Log { file, end, state: Mutex::default(), moved: Condvar::new() };
    let (records, over) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let working: Vec<_> = (0..threads)
            .map(|_| {
                let (log, records, over) = (&log, &records, &over);
                scope.spawn(move || -> Result<()> {
                    let record = vec![7_u8; record_bytes];
                    // Relaxed: a flag and a count, nothing else hangs on them.
                    while !over.load(Ordering::Relaxed) {
                        log.append(&record)?;
                        records.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(())
                })
            })
            .collect();
        std::thread::sleep(WARM_UP);
        let (begun, before) = (Instant::now(), records.load(Ordering::Relaxed));
        std::thread::sleep(MEASURED);
        let (elapsed, after) = (begun.elapsed(), records.load(Ordering::Relaxed));
        over.store(true, Ordering::Relaxed);
        for thread in working {
            thread.join().map_err(|_| "a thread panicked")??;
        }
        Ok(Figure::rate(after - before, elapsed))
    })
}

struct Log {
    file: File,
    end: AtomicU64,
    state: Mutex<State>,
    moved: Condvar,
}

/// Counts of records.
#[derive(Default)]
struct State {
    written: u64,
    flushed: u64,
    flushing: bool,
}

impl Log {
    /// Writes the record, and returns once a flush that began afterwards has ended.
    fn append(&self, record: &[u8]) -> Result<()> {
        // Relaxed: it only keeps records apart.
        let offset = self.end.fetch_add(record.len() as u64, Ordering::Relaxed);
        self.file.write_all_at(record, offset % FILE_BYTES)?;
        let mut state = self.state.lock();
        state.written += 1;
        let own = state.written;
        while state.flushed < own {
            if state.flushing {
                self.moved.wait(&mut state);
                continue;
            }
            state.flushing = true;
            let written = state.written;
            drop(state);
            self.file.sync_data()?;
            state = self.state.lock();
            (state.flushed, state.flushing) = (written, false);
            self.moved.notify_all();
        }
        Ok(())
    }
}

fn preallocated() -> Result<File> {
    let path = directory()?.join("log");
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
    // SAFETY: plain system call on an open descriptor.
    if unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, FILE_BYTES as i64) } != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    file.sync_all()?;
    Ok(file)
}

const RECORD_BYTES: usize = 256;
/// Large enough not to come round in a round.
const FILE_BYTES: u64 = 1 << 30;
const WARM_UP: Duration = Duration::from_millis(200);
const MEASURED: Duration = Duration::from_millis(1_200);
