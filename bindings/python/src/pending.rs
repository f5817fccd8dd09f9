//! An answer of the queues that an event loop waits for.

use crate::{errors::Result, ready::ReadySet};
use flowmesh::{PendingReply, queue::Answered};
use pyo3::{prelude::*, types::PyTuple};
use std::sync::{Mutex, PoisonError};

type Read = dyn for<'py> FnOnce(Python<'py>, flowmesh::Result<Answered>) -> Result<Bound<'py, PyAny>> + Send;

/// An answer that has not been taken yet. Dropping it gives up waiting; jobs that were given meanwhile go back.
#[pyclass(frozen, module = "flowmesh._native")]
pub(crate) struct Pending {
    inner: PendingReply,
    read: Mutex<Option<Box<Read>>>,
}

impl Pending {
    /// `read` makes of the answer what is given for it. It is called when the waiting is given up, too, with the error
    /// or with the answer that had come, without its jobs: a job that was to be settled then learns whether it may be
    /// settled again.
    pub(crate) fn of<'py>(
        py: Python<'py>,
        inner: PendingReply,
        read: impl for<'p> FnOnce(Python<'p>, flowmesh::Result<Answered>) -> Result<Bound<'p, PyAny>>
        + Send
        + 'static,
    ) -> Result<Bound<'py, PyAny>> {
        Ok(Bound::new(py, Self { inner, read: Mutex::new(Some(Box::new(read))) })?.into_any())
    }

    fn take_read(&self) -> Option<Box<Read>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[pymethods]
impl Pending {
    /// A tuple of what was asked for, or None while it is not there. It can be taken once.
    fn _try_take<'py>(&self, py: Python<'py>) -> Result<Option<Bound<'py, PyTuple>>> {
        let Some(answered) = self.inner.try_take() else { return Ok(None) };
        let Some(read) = self.take_read() else { return Ok(None) };
        Ok(Some(PyTuple::new(py, [read(py, answered)?])?))
    }

    fn _watch(&self, ready: &ReadySet, token: u64) {
        self.inner.watch(ready.inner(), token);
    }

    fn _unwatch(&self) {
        self.inner.unwatch();
    }

    /// Gives up; jobs that were given meanwhile go back.
    fn cancel(&self, py: Python<'_>) {
        if let Some(answered) = py.detach(|| self.inner.give_up())
            && let Some(read) = self.take_read()
        {
            // Nobody is there to hear of it.
            let _ = read(py, answered);
        }
    }
}
