//! Keeps the two sides of a latency measurement on two cores.
//!
//! Left alone, the scheduler puts a sleeping pair now on one core, now on two, and which it did decides the
//! figure. Only the calling thread is pinned, after it has started what threads it needs: a peer's own
//! threads stay free, and rates are never pinned.

/// Sides of a measurement: each gets a core of its own when there are two.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    Parent = 0,
    Child = 1,
}

/// Pins the calling thread, unless `--no-pin` was given. Threads it starts later inherit the pin.
pub(crate) fn caller(side: Side) {
    if std::env::var_os(NO_PIN).is_some() {
        return;
    }
    // SAFETY: an all-zero cpu_set_t is the empty set; both calls get a live set and its true size, and
    // CPU_SET is given a cpu that CPU_ISSET found within the set.
    unsafe {
        let mut allowed: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, size_of_val(&allowed), &mut allowed) != 0 {
            return;
        }
        let cpus: Vec<usize> =
            (0..libc::CPU_SETSIZE as usize).filter(|cpu| libc::CPU_ISSET(*cpu, &allowed)).collect();
        let Some(cpu) = cpus.get(side as usize) else { return };
        let mut only: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(*cpu, &mut only);
        libc::sched_setaffinity(0, size_of_val(&only), &only);
    }
}

/// Set for every process of a run with `--no-pin`.
pub(crate) const NO_PIN: &str = "FLOWMESH_COMPARE_NO_PIN";
