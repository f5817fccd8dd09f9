//! From the core's errors to the exceptions of `flowmesh._errors`, and from what a handler raised to the core.

use crate::python;
use flowmesh::{Error, ErrorKind, HandlerError};
use pyo3::{prelude::*, sync::PyOnceLock, types::PyDict};

/// Why a native function failed: in the core, or in Python code it called.
pub(crate) enum Failure {
    Core(Error),
    Python(PyErr),
}

pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Core(error)
    }
}

impl From<PyErr> for Failure {
    fn from(error: PyErr) -> Self {
        Self::Python(error)
    }
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Core(error) => Python::attach(|py| exception(py, &error)),
            Failure::Python(error) => error,
        }
    }
}

/// The Python exception that stands for `error`.
pub(crate) fn exception(py: Python<'_>, error: &Error) -> PyErr {
    build(py, error).unwrap_or_else(|broken| broken)
}

fn build(py: Python<'_>, error: &Error) -> PyResult<PyErr> {
    static CLASSES: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let classes = python::once(py, &CLASSES, || {
        python::import(py, "flowmesh._errors", "BY_NUMBER").map(Bound::unbind)
    })?;
    let context = PyDict::new(py);
    for (name, value) in error.context() {
        context.set_item(name, value)?;
    }
    let class = classes.bind(py).get_item(error.kind().number())?;
    let exception = python::call(&class, (error.to_string(),))?;
    exception.setattr("operation", error.operation())?;
    exception.setattr("context", context)?;
    Ok(PyErr::from_value(exception))
}

/// An `InvalidArgument` error of this wrapper's own.
pub(crate) fn invalid(
    operation: &'static str,
    argument: &'static str,
    value: impl std::fmt::Display,
    limit: impl std::fmt::Display,
) -> Failure {
    Error::new(ErrorKind::InvalidArgument, operation).with(argument, value).with("limit", limit).into()
}

/// What a handler's exception is to the caller: the name of its class and its text.
pub(crate) fn handler_error(py: Python<'_>, error: &PyErr) -> HandlerError {
    let kind = error
        .get_type(py)
        .qualname()
        .map_or_else(|_| "Exception".into(), |name| name.to_string_lossy().into());
    HandlerError { kind, message: message(py, error) }
}

/// What an exception says.
pub(crate) fn message(py: Python<'_>, error: &PyErr) -> String {
    match python::text(error.value(py)) {
        Ok(text) => text.to_string_lossy().into_owned(),
        Err(_) => "the exception has no text".to_owned(),
    }
}

/// Every error kind as `(number, name, code, retryable, meaning, advice)`, for the test that compares lists.
#[pyfunction]
#[pyo3(name = "_kinds")]
pub(crate) fn kinds() -> Vec<(i32, &'static str, &'static str, bool, &'static str, &'static str)> {
    ErrorKind::ALL
        .iter()
        .map(|kind| {
            (kind.number(), kind.name(), kind.code(), kind.is_retryable(), kind.meaning(), kind.advice())
        })
        .collect()
}
