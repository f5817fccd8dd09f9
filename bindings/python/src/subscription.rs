//! A subscription: receiving events one by one, in lots, or by iteration.

use crate::{
    args::{self, Text, Whole, not_picklable},
    errors::{Failure, Result},
    mesh::Mesh,
    message::Message,
    options::{self, Retry},
    ready::ReadySet,
    request::failure,
    stats,
    wait::waiting,
};
use flowmesh::{Delivery, Wait};
use pyo3::{
    prelude::*,
    types::{PyDict, PyList},
};
use std::{os::fd::RawFd, time::Duration};

/// Receives the events that match a pattern. A context manager and an iterator; dropping it unsubscribes.
#[pyclass(frozen, subclass, module = "flowmesh._native")]
pub(crate) struct Subscription {
    inner: flowmesh::Subscription,
    /// Keeps the mesh open for as long as somebody receives.
    _mesh: Py<Mesh>,
}

impl Subscription {
    fn next(&self, py: Python<'_>, timeout: Option<Duration>) -> Result<Delivery> {
        // What waits already needs no sleep, so the GIL is kept.
        if let Some(delivery) = self.inner.try_receive()? {
            return Ok(delivery);
        }
        waiting(py, timeout, |wait| self.inner.receive_wait(wait))
    }
}

#[pymethods]
impl Subscription {
    #[new]
    #[expect(clippy::too_many_arguments, reason = "the options of Mesh.subscribe")]
    fn new(
        mesh: &Bound<'_, Mesh>,
        pattern: Text<'_>,
        group: Option<Text<'_>>,
        priority: Whole,
        capacity: Whole,
        on_slow: Text<'_>,
        block_timeout: f64,
        retry: Option<Retry>,
    ) -> Result<Self> {
        let options = options::subscribe(group, priority, capacity, on_slow, block_timeout, retry)?;
        let inner = mesh.get().subscribe(mesh.py(), pattern.0, options)?;
        Ok(Self { inner, _mesh: mesh.clone().unbind() })
    }

    /// What it asks for.
    #[getter]
    fn pattern(&self) -> &str {
        self.inner.pattern()
    }

    /// Whether it has ended.
    #[getter]
    fn closed(&self) -> bool {
        self.inner.is_closed()
    }

    /// Takes the next event, waiting for it at most `timeout` seconds (None: for ever).
    #[pyo3(signature = (timeout=None))]
    fn receive(&self, py: Python<'_>, timeout: Option<f64>) -> Result<Message> {
        let timeout = args::timeout("subscription.receive", timeout)?;
        Ok(Message::new(self.next(py, timeout)?))
    }

    /// Waits for the first event, then takes those that are there, at most `max`.
    #[pyo3(signature = (max=Whole(256), timeout=None), text_signature = "($self, max=256, timeout=None)")]
    fn receive_many<'py>(
        &self,
        py: Python<'py>,
        max: Whole,
        timeout: Option<f64>,
    ) -> Result<Bound<'py, PyList>> {
        let operation = "subscription.receive_many";
        let max: usize = max.within(operation, "max", 1..=1 << 20)?;
        let timeout = args::timeout(operation, timeout)?;
        let batch = waiting(py, timeout, |wait| {
            let mut batch = Vec::with_capacity(max.min(1024));
            self.inner.receive_many(max, wait, &mut batch)?;
            Ok(batch)
        })?;
        Ok(messages(py, batch)?)
    }

    /// Says that handling `message` failed: it is delivered again or goes to the dead letters, as `retry` says.
    fn fail(&self, py: Python<'_>, message: &Bound<'_, Message>, error: &Bound<'_, PyAny>) -> Result<()> {
        let (delivery, error) = (message.get().delivery().clone(), failure(error)?);
        Ok(py.detach(|| self.inner.fail(delivery, &error))?)
    }

    /// This subscription's own counts.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        stats::subscription(py, &self.inner.stats())
    }

    /// A descriptor that is readable while an event waits or the subscription has ended. Only poll it.
    fn fileno(&self) -> Result<RawFd> {
        Ok(self.inner.fd()?)
    }

    /// Ends it. Who waits for it gets ClosedError. Closing twice is fine.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.inner.close());
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> Result<Option<Message>> {
        match self.next(py, None) {
            Ok(delivery) => Ok(Some(Message::new(delivery))),
            Err(failure) if failure.is_closed() => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyAny>) {
        self.close(py);
    }

    fn __repr__(&self) -> String {
        let state = if self.inner.is_closed() { " closed" } else { "" };
        format!("<Subscription {:?}{state}>", self.inner.pattern())
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(not_picklable("Subscription", "subscribe in the other process"))
    }

    fn _try_receive(&self) -> Result<Option<Message>> {
        Ok(self.inner.try_receive()?.map(Message::new))
    }

    fn _try_receive_many<'py>(&self, py: Python<'py>, max: Whole) -> Result<Bound<'py, PyList>> {
        let max: usize = max.within("subscription.receive_many", "max", 1..=1 << 20)?;
        let mut batch = Vec::new();
        match self.inner.receive_many(max, &mut Wait::poll(), &mut batch) {
            Err(error) if error.kind() != flowmesh::ErrorKind::Timeout => Err(Failure::Core(error)),
            _ => Ok(messages(py, batch)?),
        }
    }

    fn _watch(&self, ready: &ReadySet, token: u64) {
        self.inner.watch(ready.inner(), token);
    }

    fn _unwatch(&self) {
        self.inner.unwatch();
    }
}

fn messages(py: Python<'_>, batch: Vec<Delivery>) -> PyResult<Bound<'_, PyList>> {
    let messages = batch.into_iter().map(|delivery| Bound::new(py, Message::new(delivery)));
    PyList::new(py, messages.collect::<PyResult<Vec<_>>>()?)
}
