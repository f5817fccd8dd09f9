//! A service instance: requests one by one, or by iteration.

use crate::{
    args::{self, Text, Whole, not_picklable},
    errors::Result,
    mesh::Mesh,
    options,
    ready::ReadySet,
    request::Request,
    wait::waiting,
};
use pyo3::prelude::*;
use std::os::fd::RawFd;

/// One instance of a service. A context manager; without a handler, an iterator over requests.
#[pyclass(frozen, subclass, module = "flowmesh._native")]
pub(crate) struct Service {
    inner: flowmesh::Service,
    /// Keeps the mesh open for as long as somebody serves.
    _mesh: Py<Mesh>,
}

#[pymethods]
impl Service {
    #[new]
    fn new(
        mesh: &Bound<'_, Mesh>,
        name: Text<'_>,
        concurrency: Whole,
        version: Text<'_>,
        queue: Whole,
        rate: Option<f64>,
        burst: Option<Whole>,
    ) -> Result<Self> {
        let options = options::serve(concurrency, version, queue, rate, burst)?;
        let inner = mesh.get().serve(mesh.py(), name.0, options)?;
        Ok(Self { inner, _mesh: mesh.clone().unbind() })
    }

    /// Its name.
    #[getter]
    fn name(&self) -> &str {
        self.inner.name()
    }

    /// Whether it has ended.
    #[getter]
    fn closed(&self) -> bool {
        self.inner.is_closed()
    }

    /// Takes the next request, waiting for it at most `timeout` seconds (None: for ever).
    #[pyo3(signature = (timeout=None))]
    fn next<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> Result<Bound<'py, Request>> {
        let timeout = args::timeout("service.next", timeout)?;
        Ok(Request::new(py, waiting(py, timeout, |wait| self.inner.next(wait))?)?)
    }

    /// A descriptor that is readable while a request waits or the service has ended. Only poll it.
    fn fileno(&self) -> Result<RawFd> {
        Ok(self.inner.fd()?)
    }

    /// Ends it: no further request comes. Who waits for one gets ClosedError. Closing twice is fine.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.inner.close());
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> Result<Option<Bound<'py, Request>>> {
        match self.next(py, None) {
            Ok(request) => Ok(Some(request)),
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
        format!("<Service {:?}{state}>", self.inner.name())
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(not_picklable("Service", "serve in the other process"))
    }

    fn _try_next<'py>(&self, py: Python<'py>) -> Result<Option<Bound<'py, Request>>> {
        Ok(self.inner.try_next()?.map(|request| Request::new(py, request)).transpose()?)
    }

    fn _watch(&self, ready: &ReadySet, token: u64) {
        self.inner.watch(ready.inner(), token);
    }

    fn _unwatch(&self) {
        self.inner.unwatch();
    }
}
