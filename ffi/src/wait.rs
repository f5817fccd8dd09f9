//! How long a call waits, and what a signal does to it.

use crate::guard::timeout;
use flowmesh::Wait;

/// Runs `wait` with a timeout as C gives it: below 0 for ever, 0 polls.
pub(crate) fn waiting<R>(timeout_ms: i64, signals_interrupt: bool, wait: impl FnOnce(&mut Wait<'_>) -> R) -> R {
    let mut interrupt = || true;
    let mut how = Wait { timeout: timeout(timeout_ms), ..Wait::default() };
    if signals_interrupt {
        how.interrupt = Some(&mut interrupt);
    }
    wait(&mut how)
}
