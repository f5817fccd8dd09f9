//! A received message as Python sees it.

use crate::{args::not_picklable, errors::Result, payload, python};
use flowmesh::Delivery;
use pyo3::{
    exceptions::PyBufferError,
    ffi,
    prelude::*,
    sync::PyOnceLock,
    types::{PyBytes, PyDict},
};
use std::{ffi::c_int, ptr};

/// A received event, request or answer. Its attributes are decoded when they are asked for.
///
/// `memoryview(message)` is its payload without a copy, read-only, and keeps the message alive.
//
// Their memory is used again: that halves what receiving a batch costs. A class that extends it needs a list of its
// own, as a list takes back objects of one class only.
#[pyclass(frozen, subclass, freelist = 1024, module = "flowmesh")]
pub(crate) struct Message {
    delivery: Delivery,
    value: PyOnceLock<Py<PyAny>>,
}

impl Message {
    pub(crate) fn new(delivery: Delivery) -> Self {
        Self { delivery, value: PyOnceLock::new() }
    }

    /// A request or an answer, which is delivered once.
    pub(crate) fn once(message: flowmesh::Message) -> Self {
        Self::new(Delivery { message, gap: 0, attempt: 1 })
    }

    pub(crate) fn delivery(&self) -> &Delivery {
        &self.delivery
    }

    fn message(&self) -> &flowmesh::Message {
        &self.delivery.message
    }
}

#[pymethods]
impl Message {
    /// Where it was published; of a request or an answer, the service's name.
    #[getter]
    fn subject(&self) -> &str {
        self.message().subject()
    }

    /// The payload's bytes, copied.
    #[getter]
    fn payload<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.message().payload())
    }

    /// The payload as its content type says: JSON decoded, text as str, anything else as bytes. Decoded once.
    #[getter]
    fn value<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyAny>> {
        let value = python::once(py, &self.value, || {
            payload::decode(py, self.message().payload(), self.message().content_type()).map(Bound::unbind)
        })?;
        Ok(value.bind(py).clone())
    }

    /// The headers. Of two with one name the first counts.
    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let headers = PyDict::new(py);
        for (name, value) in self.message().headers() {
            if !headers.contains(name)? {
                headers.set_item(name, value)?;
            }
        }
        Ok(headers)
    }

    /// How the payload is encoded, or None.
    #[getter]
    fn content_type(&self) -> Option<&str> {
        self.message().content_type()
    }

    /// The id that publish returned, unique on this mesh.
    #[getter]
    fn id(&self) -> u64 {
        self.message().id()
    }

    /// When it was published, in seconds since 1970 UTC.
    #[getter]
    fn timestamp(&self) -> f64 {
        self.message().timestamp().0 as f64 / 1e9
    }

    /// When it was published, in nanoseconds since 1970 UTC.
    #[getter]
    fn timestamp_ns(&self) -> u64 {
        self.message().timestamp().0
    }

    /// 0 to 9; higher is delivered first.
    #[getter]
    fn priority(&self) -> u8 {
        self.message().priority()
    }

    /// For how many seconds after publishing it is delivered, or None for ever.
    #[getter]
    fn ttl(&self) -> Option<f64> {
        self.message().ttl().map(|ttl| ttl.as_secs_f64())
    }

    /// How many events this subscription lost just before this one, because it was slow.
    #[getter]
    fn gap(&self) -> u64 {
        self.delivery.gap
    }

    /// 1 at the first delivery, 2 at the first retry, and so on.
    #[getter]
    fn attempt(&self) -> u32 {
        self.delivery.attempt
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let (name, message) = (slf.get_type().name()?, slf.get().message());
        Ok(format!(
            "<{name} subject={:?} id={} payload_bytes={}>",
            message.subject(),
            message.id(),
            message.payload().len()
        ))
    }

    fn __reduce__(slf: &Bound<'_, Self>) -> PyResult<()> {
        let name = slf.get_type().name()?;
        Err(not_picklable(&name.to_string(), "pickle its .value, or its .payload and .headers"))
    }

    /// # Safety
    /// Python calls it with a `view` it owns, which points to memory for one `Py_buffer`.
    unsafe fn __getbuffer__(slf: &Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("the view is NULL"));
        }
        let payload = slf.get().message().payload();
        let payload_bytes = payload.len() as ffi::Py_ssize_t; // A slice is never longer than isize::MAX.
        // SAFETY: `view` is Python's to fill. The payload lies in a block that the message shares and nobody
        // changes; `PyBuffer_FillInfo` takes a reference to the message, which therefore outlives the view,
        // and with `readonly` 1 it refuses a request for a writable buffer.
        let result = unsafe {
            ffi::PyBuffer_FillInfo(
                view,
                slf.as_ptr(),
                payload.as_ptr().cast_mut().cast(),
                payload_bytes,
                1,
                flags,
            )
        };
        if result == 0 {
            return Ok(());
        }
        // SAFETY: as above; the buffer protocol wants `obj` NULL after a failure.
        unsafe { (*view).obj = ptr::null_mut() };
        Err(PyErr::take(slf.py()).unwrap_or_else(|| PyBufferError::new_err("the buffer cannot be lent")))
    }
}
