//! A request to answer, and the answer.

use crate::{
    args::{self, Headers, type_error, type_name},
    errors::{Result, handler_error},
    message::Message,
    payload::{Encoded, Payload},
    python,
    ready::ReadySet,
};
use flowmesh::{Error, ErrorKind, HandlerError};
use pyo3::{
    exceptions::PyBaseException,
    prelude::*,
    types::{PyDict, PyString},
};
use std::sync::{Mutex, PoisonError};

/// A request: a message, and the means to answer it. One that is dropped unanswered fails the call.
#[pyclass(frozen, extends = Message, freelist = 64, module = "flowmesh")]
pub(crate) struct Request {
    open: Mutex<Option<flowmesh::Request>>,
}

impl Request {
    pub(crate) fn new(py: Python<'_>, request: flowmesh::Request) -> PyResult<Bound<'_, Self>> {
        let message = Message::once(request.message().clone());
        let initializer =
            PyClassInitializer::from(message).add_subclass(Self { open: Mutex::new(Some(request)) });
        Bound::new(py, initializer)
    }

    fn with<T>(&self, read: impl FnOnce(&flowmesh::Request) -> T) -> Option<T> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(read)
    }

    /// The request itself, for the one answer it may get.
    fn take(&self) -> Option<flowmesh::Request> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn take_for(&self, operation: &'static str) -> Result<flowmesh::Request> {
        self.take().ok_or_else(|| {
            Error::new(ErrorKind::Closed, operation).with("reason", "the request was answered").into()
        })
    }
}

#[pymethods]
impl Request {
    /// The service's name.
    #[getter]
    fn service(slf: &Bound<'_, Self>) -> String {
        slf.as_super().get().delivery().message.subject().to_owned()
    }

    /// Seconds until the caller's deadline; 0.0 once answered.
    #[getter]
    fn remaining(&self) -> f64 {
        self.with(|request| request.remaining().as_secs_f64()).unwrap_or_default()
    }

    /// Whether the caller gave up, died, or its deadline passed. A handler that works long looks from time to time.
    #[getter]
    fn cancelled(&self) -> bool {
        self.with(flowmesh::Request::is_cancelled).unwrap_or_default()
    }

    /// Whether it has its answer.
    #[getter]
    fn answered(&self) -> bool {
        self.with(|_| ()).is_none()
    }

    /// Answers the call.
    #[pyo3(
        signature = (payload=Payload::NONE, *, headers=None),
        text_signature = "($self, payload=b'', *, headers=None)"
    )]
    fn reply(&self, py: Python<'_>, payload: Payload<'_>, headers: Option<&Bound<'_, PyAny>>) -> Result<()> {
        let answer = Answer::new(Encoded::given(payload)?, args::headers(headers)?);
        let request = self.take_for("request.reply")?;
        answer.send(py, request)
    }

    /// Fails the call: the caller gets HandlerFailedError with the type and text of `error`.
    fn fail(&self, py: Python<'_>, error: &Bound<'_, PyAny>) -> Result<()> {
        let error = failure(error)?;
        let request = self.take_for("request.fail")?;
        Ok(py.detach(|| request.fail(&error))?)
    }

    /// Answers with what a handler returned, unless the handler has answered.
    fn _answer(&self, py: Python<'_>, returned: &Bound<'_, PyAny>) -> Result<()> {
        if self.answered() {
            return Ok(());
        }
        let answer = Answer::of(returned)?;
        match self.take() {
            Some(request) => answer.send(py, request),
            None => Ok(()),
        }
    }

    fn _watch_cancel(&self, ready: &ReadySet, token: u64) {
        self.with(|request| request.watch_cancel(ready.inner(), token));
    }
}

/// What the failure of a handler is to the other side: an exception, or a text.
pub(crate) fn failure(error: &Bound<'_, PyAny>) -> Result<HandlerError> {
    if let Ok(text) = error.cast::<PyString>() {
        return Ok(HandlerError { kind: "Error".to_owned(), message: text.to_string_lossy().into_owned() });
    }
    if !error.is_instance_of::<PyBaseException>() {
        return Err(type_error(format!("error must be an exception or str, not {}", type_name(error))).into());
    }
    Ok(handler_error(error.py(), &PyErr::from_value(error.clone())))
}

/// An answer with headers. A handler returns it where the payload alone is not enough.
#[pyclass(frozen, module = "flowmesh")]
pub(crate) struct Reply {
    payload: Py<PyAny>,
    headers: Headers,
}

#[pymethods]
impl Reply {
    #[new]
    #[pyo3(signature = (payload, headers=None))]
    fn new(payload: Bound<'_, PyAny>, headers: Option<&Bound<'_, PyAny>>) -> Result<Self> {
        Ok(Self { headers: args::headers(headers)?, payload: payload.unbind() })
    }

    /// What is sent.
    #[getter]
    fn payload(&self, py: Python<'_>) -> Py<PyAny> {
        self.payload.clone_ref(py)
    }

    /// Its headers.
    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let headers = PyDict::new(py);
        for (name, value) in &self.headers {
            headers.set_item(name, value)?;
        }
        Ok(headers)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!(
            "Reply({}, headers={})",
            python::shown(self.payload.bind(py))?,
            python::shown(self.headers(py)?.as_any())?
        ))
    }
}

/// An encoded answer.
struct Answer<'py> {
    payload: Encoded<'py>,
    headers: Headers,
}

impl<'py> Answer<'py> {
    fn new(payload: Encoded<'py>, mut headers: Headers) -> Self {
        payload.describe(&mut headers);
        Self { payload, headers }
    }

    /// What a handler returned: a `Reply`, or a payload.
    fn of(returned: &Bound<'py, PyAny>) -> Result<Self> {
        let Ok(reply) = returned.cast::<Reply>() else {
            return Ok(Self::new(Encoded::new(returned)?, Vec::new()));
        };
        let reply = reply.get();
        Ok(Self::new(Encoded::new(reply.payload.bind(returned.py()))?, reply.headers.clone()))
    }

    fn send(&self, py: Python<'_>, request: flowmesh::Request) -> Result<()> {
        let (payload, headers) = (self.payload.as_bytes(), &self.headers);
        Ok(py.detach(|| request.reply(payload, headers))?)
    }
}
