//! The set of handles that became ready, as an event loop sees it: one file descriptor, many tokens.

use crate::errors::Result;
use pyo3::prelude::*;
use std::os::fd::RawFd;

/// Collects the tokens of handles that became ready; `flowmesh.aio` hangs it into the event loop.
#[pyclass(frozen, module = "flowmesh._native")]
pub(crate) struct ReadySet {
    inner: flowmesh::ReadySet,
}

#[pymethods]
impl ReadySet {
    #[new]
    fn new() -> Result<Self> {
        Ok(Self { inner: flowmesh::ReadySet::with_fd()? })
    }

    /// Readable while tokens wait.
    fn fileno(&self) -> RawFd {
        self.inner.fd().expect("made with a file descriptor in new()")
    }

    /// Takes all waiting tokens.
    fn drain(&self) -> Vec<u64> {
        let mut tokens = Vec::new();
        self.inner.drain(&mut tokens);
        tokens
    }
}

impl ReadySet {
    pub(crate) fn inner(&self) -> &flowmesh::ReadySet {
        &self.inner
    }
}
