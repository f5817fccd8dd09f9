//! Handlers: loops that Python threads run, and what becomes of what a handler raises.

use crate::{
    args::{type_error, type_name},
    errors::{Result, exception},
};
use flowmesh::{Error, ErrorKind};
use pyo3::{prelude::*, types::{IntoPyDict, PyDict, PyInt}};
use std::sync::{Mutex, PoisonError};

/// The threads that run one handle's handlers, and why their loops ended.
#[derive(Default)]
pub(crate) struct Threads {
    threads: Mutex<Vec<Py<PyAny>>>,
    ended: Mutex<Option<Error>>,
}

impl Threads {
    /// Starts `count` daemon threads that each call `run(handler)`.
    pub(crate) fn start(&self, run: &Bound<'_, PyAny>, handler: &Bound<'_, PyAny>, name: &str, count: u32) -> PyResult<()> {
        let py = run.py();
        let class = py.import("threading")?.getattr("Thread")?;
        for _ in 0..count {
            let options = [("target", run), ("args", (handler,).into_pyobject(py)?.as_any())].into_py_dict(py)?;
            options.set_item("name", name)?;
            options.set_item("daemon", true)?;
            let thread = class.call((), Some(&options))?;
            thread.call_method0("start")?;
            lock(&self.threads).push(thread.unbind());
        }
        Ok(())
    }

    /// Waits until every thread has ended; false when `seconds` passed first.
    pub(crate) fn wait(&self, py: Python<'_>, seconds: Option<f64>) -> Result<bool> {
        let clock = py.import("time")?.getattr("monotonic")?;
        let now = || clock.call0()?.extract::<f64>();
        let deadline = seconds.map(|seconds| now().map(|now| now + seconds)).transpose()?;
        let threads: Vec<_> = lock(&self.threads).iter().map(|thread| thread.clone_ref(py)).collect();
        for thread in threads {
            let left = deadline.map(|deadline| now().map(|now| (deadline - now).max(0.0))).transpose()?;
            thread.call_method1(py, "join", (left,))?;
            if thread.call_method0(py, "is_alive")?.extract(py)? {
                return Ok(false);
            }
        }
        match &*lock(&self.ended) {
            Some(error) if error.kind() != ErrorKind::Closed => Err(error.duplicate().into()),
            _ => Ok(true),
        }
    }

    /// Notes why a loop ended, and says so in the log when nobody asked for it.
    pub(crate) fn end(&self, py: Python<'_>, what: &str, error: Error) {
        let first = lock(&self.ended).is_none();
        if first && error.kind() != ErrorKind::Closed {
            log(py, "error", &format!("{what} has ended"), &exception(py, &error));
        }
        *lock(&self.ended) = Some(error);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Refuses what cannot be a handler here. A coroutine function would never run.
pub(crate) fn check(handler: &Bound<'_, PyAny>) -> Result<()> {
    if !handler.is_callable() {
        return Err(type_error(format!("handler must be callable, not {}", type_name(handler))).into());
    }
    const CO_COROUTINE: i64 = 0x80;
    let flags = handler.getattr("__code__").and_then(|code| code.getattr("co_flags"));
    if let Ok(flags) = flags
        && let Ok(flags) = flags.cast::<PyInt>()
        && flags.extract::<i64>()? & CO_COROUTINE != 0
    {
        return Err(type_error("handler is a coroutine function: use flowmesh.aio for those").into());
    }
    Ok(())
}

/// Writes to the logger `flowmesh`, with the exception's traceback. A broken logging setup is left alone.
pub(crate) fn log(py: Python<'_>, level: &str, text: &str, error: &PyErr) {
    let write = || -> PyResult<()> {
        let logger = py.import("logging")?.call_method1("getLogger", ("flowmesh",))?;
        let options = PyDict::new(py);
        options.set_item("exc_info", error.value(py))?;
        logger.call_method(level, ("%s", text), Some(&options))?;
        Ok(())
    };
    if let Err(error) = write() {
        error.write_unraisable(py, None);
    }
}
