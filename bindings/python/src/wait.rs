//! Waits that let the GIL go and that Ctrl-C ends.

use crate::errors::{Failure, Result};
use flowmesh::Wait;
use pyo3::prelude::*;
use std::time::Duration;

/// Runs `run` without the GIL. When a signal arrives its Python handler runs; what it raises ends the wait.
pub(crate) fn waiting<T: Send>(
    py: Python<'_>,
    timeout: Option<Duration>,
    run: impl FnOnce(&mut Wait<'_>) -> flowmesh::Result<T> + Send,
) -> Result<T> {
    let mut raised = None;
    let outcome = py.detach(|| {
        #[expect(
            clippy::redundant_closure_for_method_calls,
            reason = "the method itself is for one lifetime only"
        )]
        let mut interrupt = || match Python::try_attach(|py| py.check_signals()) {
            Some(Ok(())) => false,
            Some(Err(error)) => {
                raised = Some(error);
                true
            }
            // The interpreter is ending: there is nobody left to wait for.
            None => true,
        };
        run(&mut Wait { timeout, interrupt: Some(&mut interrupt) })
    });
    match raised {
        Some(error) => Err(Failure::Python(error)),
        None => Ok(outcome?),
    }
}
