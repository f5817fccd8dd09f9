//! Payloads that are really written and really read, and the clock the samples use.
//!
//! A payload is a run of words counting up from a seed. The receiver adds all of them up and compares, so a
//! benchmark that lost, tore or skipped bytes fails instead of looking fast.

use std::time::Duration;

/// 64 bytes, the small message of the table.
pub(crate) const SMALL_WORDS: usize = 8;
pub(crate) type Small = [u64; SMALL_WORDS];

/// 1 MiB, the large one.
pub(crate) const LARGE_BYTES: usize = 1 << 20;

/// The seed that tells the receiver that nothing follows.
pub(crate) const STOP: u64 = u64::MAX / 2;

/// Writes every word.
#[inline]
pub(crate) fn fill(words: &mut [u64], seed: u64) {
    for (step, word) in words.iter_mut().enumerate() {
        *word = seed + step as u64;
    }
}

#[inline]
pub(crate) fn small(seed: u64) -> Small {
    let mut words = [0; SMALL_WORDS];
    fill(&mut words, seed);
    words
}

/// Reads every word and returns the seed; panics unless all follow from it.
#[inline]
pub(crate) fn check(words: &[u64]) -> u64 {
    let count = words.len() as u64;
    let seed = words[0];
    let sum = words.iter().fold(0_u64, |sum, word| sum.wrapping_add(*word));
    let expected = seed.wrapping_mul(count).wrapping_add(count * (count - 1) / 2);
    assert_eq!(sum, expected, "a payload arrived damaged");
    seed
}

/// [`check`] of a byte payload, read in place: what follows a message's header need not be aligned.
#[inline]
pub(crate) fn check_bytes(bytes: &[u8]) -> u64 {
    let words = bytes.as_chunks::<8>().0;
    let count = words.len() as u64;
    let seed = u64::from_ne_bytes(words[0]);
    let sum = words.iter().fold(0_u64, |sum, word| sum.wrapping_add(u64::from_ne_bytes(*word)));
    let expected = seed.wrapping_mul(count).wrapping_add(count * (count - 1) / 2);
    assert_eq!(sum, expected, "a payload arrived damaged");
    seed
}

/// Words of a byte payload, copied, because bytes from a socket or stream need not be aligned.
#[inline]
pub(crate) fn small_from(bytes: &[u8]) -> Small {
    bytemuck::pod_read_unaligned(bytes)
}

/// Nanoseconds of the clock that all processes of the machine share.
#[inline]
pub(crate) fn now_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec; CLOCK_MONOTONIC always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Times `rounds` calls of `call`, after a tenth as many to warm up. One clock reading per call: the end of
/// one is the start of the next.
pub(crate) fn time_each(
    rounds: u64,
    mut call: impl FnMut(u64) -> crate::contender::Result<()>,
) -> crate::contender::Result<Vec<u64>> {
    for seed in 0..rounds / 10 {
        call(seed)?;
    }
    let mut samples = Vec::with_capacity(rounds as usize);
    let mut start = now_ns();
    for seed in 0..rounds {
        call(seed)?;
        let end = now_ns();
        samples.push(end - start);
        start = end;
    }
    Ok(samples)
}

/// Sends `rounds` timestamped events (and a tenth as many before, to warm up) far enough apart that the
/// receiver sleeps again before each; stays awake itself.
pub(crate) fn pace_events(
    rounds: u64,
    mut publish: impl FnMut(u64) -> crate::contender::Result<()>,
) -> crate::contender::Result<()> {
    for _ in 0..rounds + rounds / 10 {
        let quiet_until = now_ns() + EVENT_GAP.as_nanos() as u64;
        while now_ns() < quiet_until {
            std::hint::spin_loop();
        }
        publish(now_ns())?;
    }
    Ok(())
}

/// The receiver's side of [`pace_events`]: one call of `receive` per event, which returns its seed.
pub(crate) fn time_events(
    rounds: u64,
    mut receive: impl FnMut() -> crate::contender::Result<u64>,
) -> crate::contender::Result<Vec<u64>> {
    for _ in 0..rounds / 10 {
        receive()?;
    }
    let mut samples = Vec::with_capacity(rounds as usize);
    for _ in 0..rounds {
        let sent = receive()?;
        samples.push(now_ns().saturating_sub(sent));
    }
    Ok(samples)
}

/// Round trips per round of a contender that spins, and of one that sleeps.
pub(crate) const SPINNING_CALLS: u64 = 100_000;
pub(crate) const BLOCKING_CALLS: u64 = 20_000;
/// Events per round of the one-way latency.
pub(crate) const PACED_EVENTS: u64 = 5_000;
/// Messages per round of the small-message rate, and of the bulk one.
pub(crate) const RATE_MESSAGES: u64 = 2_000_000;
pub(crate) const LARGE_MESSAGES: u64 = 2_000;
/// Events per round of the fan-out.
pub(crate) const FANOUT_EVENTS: u64 = 50_000;
/// Longer than any waiter spins by default, so every event pays for a wake-up.
const EVENT_GAP: Duration = Duration::from_micros(50);
