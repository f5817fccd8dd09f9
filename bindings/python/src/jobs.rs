//! A job that a worker has, and one that is to be enqueued.

use crate::{
    args::{not_picklable, seconds},
    errors::{Failure, Result},
    payload::{self, Encoded, Payload},
    pending::Pending,
    python,
    queue::Queue,
    queue_options::{self, durability_value},
    ready::ReadySet,
    wait::waiting,
};
use flowmesh::{
    Settle,
    queue::{Content, EnqueueOptions, Enqueued, JobId, QueueRequest},
};
use pyo3::{
    exceptions::PyBaseException,
    prelude::*,
    sync::PyOnceLock,
    types::{PyBytes, PyDict, PyFloat, PyString},
};
use std::sync::Arc;

/// A job that this worker has, until it is settled or its lease ends. A context manager: leaving it acks the job, or
/// nacks it when an exception leaves.
///
/// Its attributes are decoded when they are asked for. One that is dropped unsettled stays leased until its lease ends.
#[pyclass(frozen, freelist = 1024, module = "flowmesh")]
pub(crate) struct Job {
    inner: Arc<flowmesh::Job>,
    queue: Py<Queue>,
    value: PyOnceLock<Py<PyAny>>,
}

impl Job {
    pub(crate) fn new(queue: &Bound<'_, Queue>, inner: Arc<flowmesh::Job>) -> Self {
        Self { inner, queue: queue.clone().unbind(), value: PyOnceLock::new() }
    }

    pub(crate) fn inner(&self) -> &Arc<flowmesh::Job> {
        &self.inner
    }

    /// Says what is to be done with it; how safe that is.
    fn settle<'py>(&self, py: Python<'py>, settle: Settle<'_>) -> Result<Bound<'py, PyAny>> {
        if self.queue.get().is_later() {
            let pending = py.detach(|| self.inner.start_settle(settle))?;
            let job = Arc::clone(&self.inner);
            return Pending::of(py, pending, move |py, answered| {
                durability_value(py, job.settled(answered)?)
            });
        }
        durability_value(py, waiting(py, None, |wait| self.inner.settle(settle, wait))?)
    }
}

#[pymethods]
impl Job {
    /// Its id, a UUID as text.
    #[getter]
    fn id(&self) -> String {
        self.inner.id().to_string()
    }

    /// The name of its queue.
    #[getter]
    fn queue(&self) -> &str {
        self.inner.queue().name()
    }

    /// Which attempt this is, 1 and up.
    #[getter]
    fn attempt(&self) -> u16 {
        self.inner.attempt()
    }

    /// Attempts it may have.
    #[getter]
    fn max_attempts(&self) -> u16 {
        self.inner.max_attempts()
    }

    /// 0 to 255; higher goes first.
    #[getter]
    fn priority(&self) -> u8 {
        self.inner.priority()
    }

    /// How often it was redriven.
    #[getter]
    fn redrives(&self) -> u32 {
        self.inner.redrives()
    }

    /// Its group, or None.
    #[getter]
    fn group(&self) -> Option<&str> {
        self.inner.group()
    }

    /// The payload's bytes, copied.
    #[getter]
    fn payload<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.inner.payload())
    }

    /// The payload as its content type says: JSON decoded, text as str, anything else as bytes. Decoded once.
    #[getter]
    fn value<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyAny>> {
        let value = python::once(py, &self.value, || {
            payload::decode(py, self.inner.payload(), self.content_type()).map(Bound::unbind)
        })?;
        Ok(value.bind(py).clone())
    }

    /// How the payload is encoded, or None.
    #[getter]
    fn content_type(&self) -> Option<&str> {
        Some(self.inner.content_type()).filter(|text| !text.is_empty())
    }

    /// The headers. Of two with one name the first counts.
    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        headers(py, self.inner.headers())
    }

    /// Seconds it was reserved for, when it was.
    #[getter]
    fn lease(&self) -> f64 {
        self.inner.lease().as_secs_f64()
    }

    /// Seconds it is still ours, as far as this process knows.
    #[getter]
    fn remaining(&self) -> f64 {
        self.inner.remaining().as_secs_f64()
    }

    /// Whether it is to be given back: somebody cancelled it, its lease is over, or the mesh was closed.
    #[getter]
    fn is_cancelled(&self) -> bool {
        self.inner.is_cancelled()
    }

    /// Whether it was settled here.
    #[getter]
    fn settled(&self) -> bool {
        self.inner.is_settled()
    }

    /// It is done, with this result unless it is None. Returns how safe that is.
    #[pyo3(signature = (result=None))]
    fn ack<'py>(&self, py: Python<'py>, result: Option<&Bound<'py, PyAny>>) -> Result<Bound<'py, PyAny>> {
        let result = result.map(Encoded::new).transpose()?;
        self.settle(py, Settle::Ack(result.as_ref().map(Encoded::as_bytes)))
    }

    /// Acks it, and takes the next job of its queue if one is there, without waiting for one: one request, and as a rule
    /// one write, instead of two. Returns that job, ours for `lease` seconds or as it or the queue says; or None.
    #[pyo3(signature = (result=None, *, lease=None))]
    fn ack_and_reserve<'py>(
        &self,
        py: Python<'py>,
        result: Option<&Bound<'py, PyAny>>,
        lease: Option<f64>,
    ) -> Result<Bound<'py, PyAny>> {
        let result = result.map(Encoded::new).transpose()?;
        let result = result.as_ref().map(Encoded::as_bytes);
        let lease = lease.map(|lease| seconds("job.ack", "lease", lease)).transpose()?;
        if self.queue.get().is_later() {
            let pending = py.detach(|| self.inner.start_ack_and_reserve(result, lease))?;
            let (job, queue) = (Arc::clone(&self.inner), self.queue.clone_ref(py));
            return Pending::of(py, pending, move |py, answered| {
                let (_, next) = job.acked_and_reserved(answered)?;
                one_or_none(queue.bind(py), next)
            });
        }
        let (_, next) = waiting(py, None, |wait| self.inner.ack_and_reserve(result, lease, wait))?;
        one_or_none(self.queue.bind(py), next)
    }

    /// The attempt failed: the job waits for the next, `delay` seconds or as its backoff says, or is dead. `error` is
    /// an exception, kept with its traceback, or a text; `detail` goes in the traceback's place.
    #[pyo3(signature = (error=None, detail=None, *, delay=None))]
    fn nack<'py>(
        &self,
        py: Python<'py>,
        error: Option<&Bound<'py, PyAny>>,
        detail: Option<&Bound<'py, PyString>>,
        delay: Option<f64>,
    ) -> Result<Bound<'py, PyAny>> {
        let said = Said::of(error, detail, "error")?;
        let delay = delay.map(|delay| seconds("job.nack", "delay", delay)).transpose()?;
        self.settle(py, Settle::Nack { message: &said.message, detail: &said.detail, delay })
    }

    /// No attempt can succeed: the job is dead. `error` and `detail` are as for `nack`.
    #[pyo3(signature = (error=None, detail=None))]
    fn reject<'py>(
        &self,
        py: Python<'py>,
        error: Option<&Bound<'py, PyAny>>,
        detail: Option<&Bound<'py, PyString>>,
    ) -> Result<Bound<'py, PyAny>> {
        let said = Said::of(error, detail, "error")?;
        self.settle(py, Settle::Reject { message: &said.message, detail: &said.detail })
    }

    /// Gives it back as if it had not been taken.
    fn release<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyAny>> {
        self.settle(py, Settle::Release)
    }

    /// Puts it off by `delay` seconds; the attempt does not count.
    fn snooze<'py>(&self, py: Python<'py>, delay: f64) -> Result<Bound<'py, PyAny>> {
        self.settle(py, Settle::Snooze(seconds("job.snooze", "delay", delay)?))
    }

    /// More time: `lease` seconds from now, or as it was reserved; never less than it has. Returns how many it is ours
    /// now.
    #[pyo3(signature = (lease=None))]
    fn extend<'py>(&self, py: Python<'py>, lease: Option<f64>) -> Result<Bound<'py, PyAny>> {
        let lease = lease.map(|lease| seconds("job.extend", "lease", lease)).transpose()?;
        let core = self.inner.queue();
        let request = QueueRequest::Extend { queue: core.id(), token: self.inner.token(), lease };
        let job = Arc::clone(&self.inner);
        self.queue.get().ask(py, request, move |py, answered| {
            Ok(PyFloat::new(py, job.extended(answered)?.as_secs_f64()).into_any())
        })
    }

    /// Tells how far it has come: any value of up to 4 KiB, shown to who looks at the job. Kept in memory only.
    fn progress<'py>(&self, py: Python<'py>, value: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>> {
        let value = Encoded::new(value)?;
        let request = QueueRequest::Progress {
            queue: self.inner.queue().id(),
            token: self.inner.token(),
            progress: value.as_bytes(),
        };
        let job = Arc::clone(&self.inner);
        self.queue.get().ask(py, request, move |py, answered| {
            job.told(answered)?;
            Ok(py.None().into_bound(py))
        })
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (_kind, error, _traceback))]
    fn __exit__(
        &self,
        py: Python<'_>,
        _kind: &Bound<'_, PyAny>,
        error: Option<&Bound<'_, PyAny>>,
        _traceback: &Bound<'_, PyAny>,
    ) -> Result<()> {
        if self.settled() {
            return Ok(());
        }
        match error {
            None => self.settle(py, Settle::Ack(None))?,
            Some(_) => self.nack(py, error, None, None)?,
        };
        Ok(())
    }

    fn __repr__(&self) -> String {
        let job = &self.inner;
        format!("<Job {} of {:?} attempt={}>", job.id(), job.queue().name(), job.attempt())
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(not_picklable("Job", "pickle its .value, or its .payload and .headers"))
    }

    fn _watch_cancel(&self, ready: &ReadySet, token: u64) {
        self.inner.watch_cancel(ready.inner(), token);
    }
}

fn one_or_none<'py>(queue: &Bound<'py, Queue>, job: Option<flowmesh::Job>) -> Result<Bound<'py, PyAny>> {
    let py = queue.py();
    Ok(match job {
        Some(job) => Bound::new(py, Job::new(queue, Arc::new(job)))?.into_any(),
        None => py.None().into_bound(py),
    })
}

/// What is kept of a failure: a few words, and a trace.
pub(crate) struct Said {
    pub(crate) message: String,
    pub(crate) detail: String,
}

impl Said {
    pub(crate) fn of(
        error: Option<&Bound<'_, PyAny>>,
        detail: Option<&Bound<'_, PyString>>,
        argument: &'static str,
    ) -> Result<Self> {
        let detail = detail.map(|detail| detail.to_string_lossy().into_owned());
        let Some(error) = error else {
            return Ok(Self { message: String::new(), detail: detail.unwrap_or_default() });
        };
        if let Ok(text) = error.cast::<PyString>() {
            let message = text.to_string_lossy().into_owned();
            return Ok(Self { message, detail: detail.unwrap_or_default() });
        }
        if !error.is_instance_of::<PyBaseException>() {
            let found = crate::args::type_name(error);
            let text = format!("{argument} must be an exception or str, not {found}");
            return Err(crate::args::type_error(text).into());
        }
        let handler = crate::errors::handler_error(error.py(), &PyErr::from_value(error.clone()));
        let message = format!("{}: {}", handler.kind, handler.message);
        let detail = match detail {
            Some(detail) => detail,
            None => trace(error).unwrap_or_default(),
        };
        Ok(Self { message, detail })
    }
}

/// What a traceback says last is what is kept of it.
const DETAIL_BYTES_MAX: usize = 4 << 10;

fn trace(error: &Bound<'_, PyAny>) -> PyResult<String> {
    let lines = python::call(&python::import(error.py(), "traceback", "format_exception")?, (error,))?;
    let text = python::call_method(PyString::new(error.py(), "").as_any(), "join", (lines,))?;
    let text = text.cast::<PyString>().map_err(PyErr::from)?.to_string_lossy().into_owned();
    let mut from = text.len().saturating_sub(DETAIL_BYTES_MAX);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    Ok(text[from..].to_owned())
}

pub(crate) fn headers<'py>(py: Python<'py>, all: Vec<(&str, &str)>) -> PyResult<Bound<'py, PyDict>> {
    let headers = PyDict::new(py);
    for (name, value) in all {
        if !headers.contains(name)? {
            headers.set_item(name, value)?;
        }
    }
    Ok(headers)
}

/// A job that is to be enqueued with options of its own, one of many.
#[pyclass(frozen, module = "flowmesh")]
pub(crate) struct NewJob {
    payload: Py<PyBytes>,
    pub(crate) options: EnqueueOptions,
}

#[pymethods]
impl NewJob {
    #[new]
    #[pyo3(signature = (payload=Payload::NONE, **options), text_signature = "(payload=b'', **options)")]
    fn new(py: Python<'_>, payload: Payload<'_>, options: Option<&Bound<'_, PyDict>>) -> Result<Self> {
        let payload = Encoded::given(payload)?;
        let options = queue_options::enqueue(options, payload.content_type())?;
        let payload = payload.into_bytes().unwrap_or_else(|| PyBytes::new(py, b"")).unbind();
        Ok(Self { payload, options })
    }

    /// Its bytes.
    #[getter]
    fn payload(&self, py: Python<'_>) -> Py<PyBytes> {
        self.payload.clone_ref(py)
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        format!("<NewJob payload_bytes={}>", self.payload.bind(py).as_bytes().len())
    }
}

impl NewJob {
    pub(crate) fn bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        self.payload.bind(py).clone()
    }
}

/// What became of a job that was to be enqueued.
#[pyclass(frozen, freelist = 1024, module = "flowmesh")]
pub(crate) struct Receipt {
    inner: flowmesh::Receipt,
}

impl Receipt {
    pub(crate) fn new(inner: flowmesh::Receipt) -> Self {
        Self { inner }
    }

    pub(crate) fn job(&self) -> JobId {
        self.inner.id()
    }
}

#[pymethods]
impl Receipt {
    /// The id of the job that will be worked on, a UUID as text.
    #[getter]
    fn id(&self) -> String {
        self.inner.id().to_string()
    }

    /// "new", "replaced" (it took the place of another), "existing" or "extended" (another stands for it).
    #[getter]
    fn outcome(&self) -> &'static str {
        match self.inner.enqueued {
            Enqueued::New(_) => "new",
            Enqueued::Replaced { .. } => "replaced",
            Enqueued::Existing(_) => "existing",
            Enqueued::Extended(_) => "extended",
        }
    }

    /// The id of the job whose place it took and which is now cancelled, or None.
    #[getter]
    fn replaced(&self) -> Option<String> {
        match self.inner.enqueued {
            Enqueued::Replaced { replaced, .. } => Some(replaced.to_string()),
            _ => None,
        }
    }

    /// How safe it is: "os", "fsync", or within how many seconds it will be flushed.
    #[getter]
    fn durability<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyAny>> {
        durability_value(py, self.inner.durability)
    }

    fn __repr__(&self) -> String {
        format!("<Receipt {} {}>", self.outcome(), self.inner.id())
    }
}

/// What a job carries.
pub(crate) fn content<'py>(py: Python<'py>, content: &Content) -> Result<Bound<'py, PyDict>> {
    let content_type = Some(content.content_type()).filter(|text| !text.is_empty());
    let dict = PyDict::new(py);
    dict.set_item("payload", PyBytes::new(py, content.payload()))?;
    // Shown all the same when it is not what its content type says.
    let value = match payload::decode(py, content.payload(), content_type) {
        Ok(value) => value,
        Err(Failure::Core(_)) => PyBytes::new(py, content.payload()).into_any(),
        Err(other) => return Err(other),
    };
    dict.set_item("value", value)?;
    dict.set_item("content_type", content_type)?;
    dict.set_item("headers", headers(py, content.headers())?)?;
    Ok(dict)
}
