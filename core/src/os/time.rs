//! Clocks that the standard library does not read: the coarse ones, a tick old (1 to 4 ms) and five times cheaper
//! than the exact ones, and the one that counts the time a machine sleeps.

/// Nanoseconds on the monotonic clock as of the last tick.
pub fn coarse_monotonic_ns() -> u64 {
    read(libc::CLOCK_MONOTONIC_COARSE)
}

/// Nanoseconds since 1970 as of the last tick.
pub fn coarse_wall_ns() -> u64 {
    read(libc::CLOCK_REALTIME_COARSE)
}

/// Nanoseconds since the machine was started, exactly; the time it slept counts, and nobody sets it.
pub fn boot_ns() -> u64 {
    read(libc::CLOCK_BOOTTIME)
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec; the clock exists on every Linux since 2.6.32.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    #[test]
    fn coarse_clocks_move_and_agree_with_the_exact_one() {
        let before = coarse_monotonic_ns();
        while coarse_monotonic_ns() == before {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(coarse_monotonic_ns() > before);
        assert!(boot_ns() >= coarse_monotonic_ns());
        let exact = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        assert!(exact.abs_diff(coarse_wall_ns()) < 1_000_000_000);
    }
}
