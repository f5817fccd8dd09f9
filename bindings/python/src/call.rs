//! A call under way.

use crate::{
    args::{self, not_picklable},
    errors::Result,
    message::Message,
    ready::ReadySet,
    wait::waiting,
};
use pyo3::prelude::*;
use std::os::fd::RawFd;

/// A call that was started and goes on by itself. Dropping it cancels the call.
#[pyclass(frozen, module = "flowmesh")]
pub(crate) struct PendingCall {
    inner: flowmesh::PendingCall,
}

impl PendingCall {
    pub(crate) fn new(inner: flowmesh::PendingCall) -> Self {
        Self { inner }
    }
}

#[pymethods]
impl PendingCall {
    /// Waits at most `timeout` seconds (None: until the call's own deadline) and takes the answer; once only.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> Result<Message> {
        let timeout = args::timeout("call.wait", timeout)?;
        Ok(Message::once(waiting(py, timeout, |wait| self.inner.wait(wait))?))
    }

    /// Gives up: the other side sees it, and wait() raises CancelledError.
    fn cancel(&self, py: Python<'_>) {
        py.detach(|| self.inner.cancel());
    }

    /// A descriptor that is readable once the answer is there. Only poll it.
    fn fileno(&self) -> Result<RawFd> {
        Ok(self.inner.fd()?)
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(not_picklable("PendingCall", "call in the other process"))
    }

    fn _try_take(&self) -> Result<Option<Message>> {
        Ok(self.inner.try_take().transpose()?.map(Message::once))
    }

    fn _watch(&self, ready: &ReadySet, token: u64) {
        self.inner.watch(ready.inner(), token);
    }

    fn _unwatch(&self) {
        self.inner.unwatch();
    }
}
