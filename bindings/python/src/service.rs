//! A service instance: requests one by one, by iteration, or through a handler.

use crate::{
    args::{self, not_picklable},
    errors::{Result, exception, handler_error},
    handler::{self, Threads},
    mesh::Mesh,
    ready::ReadySet,
    request::Request,
    wait::waiting,
};
use flowmesh::Wait;
use pyo3::prelude::*;
use std::os::fd::RawFd;

/// One instance of a service. A context manager; without a handler, an iterator over requests.
#[pyclass(frozen, weakref, module = "flowmesh")]
pub(crate) struct Service {
    inner: flowmesh::Service,
    threads: Threads,
    /// Keeps the mesh open for as long as somebody serves.
    _mesh: Py<Mesh>,
}

impl Service {
    pub(crate) fn new(inner: flowmesh::Service, mesh: Py<Mesh>) -> Self {
        Self { inner, threads: Threads::default(), _mesh: mesh }
    }

    /// Lets `concurrency` new Python threads run `handler`.
    pub(crate) fn start(slf: &Bound<'_, Self>, handler: &Bound<'_, PyAny>, concurrency: u32) -> PyResult<()> {
        let this = slf.get();
        let name = format!("flowmesh serve {}", this.inner.name());
        this.threads.start(&slf.getattr("_run")?, handler, &name, concurrency)
    }

    fn handle(&self, py: Python<'_>, handler: &Bound<'_, PyAny>, request: flowmesh::Request) -> PyResult<()> {
        let request = Request::new(py, request)?;
        let answered = match handler.call1((&request,)) {
            Ok(returned) => request.get().answer(py, &returned).map_err(PyErr::from),
            Err(error) => Err(error),
        };
        let Err(error) = answered else { return Ok(()) };
        handler::log(py, "error", &format!("the handler of {:?} failed", self.inner.name()), &error);
        // It may have answered before it failed, or its answer may have been refused on the way.
        if let Some(open) = request.get().take() {
            let failure = handler_error(py, &error);
            if let Err(error) = py.detach(|| open.fail(&failure)) {
                let text = format!("the failure of {:?} did not reach its caller", self.inner.name());
                handler::log(py, "warning", &text, &exception(py, &error));
            }
        }
        Ok(())
    }
}

#[pymethods]
impl Service {
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

    /// Waits until the threads of the handler have ended, because it was closed or cut off; the latter raises.
    /// False when `timeout` seconds passed first.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> Result<bool> {
        args::timeout("service.wait", timeout)?;
        self.threads.wait(py, timeout)
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

    /// Runs `handler` for each request, until the service ends. Each of its threads runs this.
    fn _run(&self, py: Python<'_>, handler: &Bound<'_, PyAny>) -> PyResult<()> {
        loop {
            match py.detach(|| self.inner.next(&mut Wait::forever())) {
                Ok(request) => self.handle(py, handler, request)?,
                Err(error) => {
                    self.threads.end(py, &format!("the service {:?}", self.inner.name()), error);
                    return Ok(());
                }
            }
        }
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
