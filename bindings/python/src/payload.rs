//! Payloads: from Python values to bytes with a content type, and back.

use crate::{
    args::{Headers, type_error, type_name},
    errors::{Failure, Result, message},
    python,
};
use flowmesh::{Error, ErrorKind};
use pyo3::{
    exceptions::{PyStopIteration, PyTypeError, PyValueError},
    prelude::*,
    sync::PyOnceLock,
    types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyMemoryView, PyString, PyTuple},
};

pub(crate) const CONTENT_TYPE: &str = "content-type";
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// A payload argument. `None` given is a value (JSON null), only an argument left out is no payload.
pub(crate) struct Payload<'py>(pub(crate) Option<Bound<'py, PyAny>>);

impl Payload<'_> {
    pub(crate) const NONE: Self = Self(None);
}

impl<'py> FromPyObject<'_, 'py> for Payload<'py> {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        Ok(Self(Some(object.to_owned())))
    }
}

/// Bytes ready to be sent. They lie in a `bytes` object, so they cannot change while the GIL is let go.
pub(crate) struct Encoded<'py> {
    bytes: Option<Bound<'py, PyBytes>>,
    content_type: Option<&'static str>,
}

impl<'py> Encoded<'py> {
    /// The argument; left out it is no bytes.
    pub(crate) fn given(payload: Payload<'py>) -> Result<Self> {
        match payload {
            Payload(Some(payload)) => Self::new(&payload),
            Payload(None) => Ok(Self { bytes: None, content_type: None }),
        }
    }

    /// Bytes and buffers as they are, `str` as text, the values that JSON knows as JSON.
    pub(crate) fn new(payload: &Bound<'py, PyAny>) -> Result<Self> {
        if let Ok(bytes) = payload.cast::<PyBytes>() {
            return Ok(Self { bytes: Some(bytes.clone()), content_type: None });
        }
        if let Ok(text) = payload.cast::<PyString>() {
            return Ok(Self { bytes: Some(utf8(text)?), content_type: Some(TEXT) });
        }
        if is_json(payload) {
            return Ok(Self { bytes: Some(to_json(payload)?), content_type: Some(JSON) });
        }
        let bytes = contiguous(payload).map_err(|error| {
            if !error.is_instance_of::<PyTypeError>(payload.py()) {
                return error;
            }
            type_error(format!(
                "payload must be bytes, a buffer, str, or a value that JSON knows (dict, list, int, float, bool, \
                 None), not {}",
                type_name(payload)
            ))
        })?;
        Ok(Self { bytes: Some(bytes), content_type: None })
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.as_ref().map_or(&[], |bytes| bytes.as_bytes())
    }

    /// Adds the content type to `headers`, unless they name one.
    pub(crate) fn describe(&self, headers: &mut Headers) {
        if let Some(content_type) = self.content_type
            && !headers.iter().any(|(name, _)| name == CONTENT_TYPE)
        {
            headers.push((CONTENT_TYPE.to_owned(), content_type.to_owned()));
        }
    }

    pub(crate) fn into_bytes(self) -> Option<Bound<'py, PyBytes>> {
        self.bytes
    }

    pub(crate) fn content_type(&self) -> Option<&'static str> {
        self.content_type
    }
}

fn is_json(payload: &Bound<'_, PyAny>) -> bool {
    payload.is_none()
        || payload.is_instance_of::<PyDict>()
        || payload.is_instance_of::<PyList>()
        || payload.is_instance_of::<PyTuple>()
        || payload.is_instance_of::<PyBool>()
        || payload.is_instance_of::<PyInt>()
        || payload.is_instance_of::<PyFloat>()
}

fn utf8<'py>(text: &Bound<'py, PyString>) -> Result<Bound<'py, PyBytes>> {
    text.encode_utf8().map_err(|error| refused(text.py(), &error))
}

/// The bytes of any buffer, in C order. Copied: its owner may change them while they are sent.
fn contiguous<'py>(buffer: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let view = PyMemoryView::from(buffer)?;
    Ok(python::call_method(view.as_any(), "tobytes", ())?.cast_into::<PyBytes>()?)
}

/// Encodes with the C half of Python's own encoder, which runs no Python code.
fn to_json<'py>(value: &Bound<'py, PyAny>) -> Result<Bound<'py, PyBytes>> {
    static ENCODER: PyOnceLock<[Py<PyAny>; 3]> = PyOnceLock::new();
    let py = value.py();
    let [make, default, text] = python::once(py, &ENCODER, || {
        let found = |name| python::import(py, "json.encoder", name);
        let default = python::attribute(&python::call(&found("JSONEncoder")?, ())?, "default")?;
        let parts = [found("c_make_encoder")?, default, found("encode_basestring")?];
        Ok::<_, PyErr>(parts.map(Bound::unbind))
    })?;
    // Who is being encoded (to notice cycles), other types, texts, indent, separators, sort_keys, skipkeys, allow_nan.
    let options = (PyDict::new(py), default, text, py.None(), ":", ",", false, false, false);
    let chunks = python::call(&python::call(make.bind(py), options)?, (value, 0));
    match chunks {
        Ok(chunks) => {
            let text = python::call_method(PyString::new(py, "").as_any(), "join", (chunks,))?;
            utf8(text.cast().map_err(PyErr::from)?)
        }
        // A cycle, NaN or infinity.
        Err(error) if error.is_instance_of::<PyValueError>(py) => Err(refused(py, &error)),
        Err(error) => Err(error.into()),
    }
}

fn refused(py: Python<'_>, error: &PyErr) -> Failure {
    Error::new(ErrorKind::InvalidArgument, "payload.encode").with("reason", message(py, error)).into()
}

/// The value a payload stands for: JSON and text decoded, anything else as bytes.
pub(crate) fn decode<'py>(
    py: Python<'py>,
    payload: &[u8],
    content_type: Option<&str>,
) -> Result<Bound<'py, PyAny>> {
    static SCAN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let is_json = essence.eq_ignore_ascii_case(JSON) || essence.to_ascii_lowercase().ends_with("+json");
    if !is_json && !essence.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("text/")) {
        return Ok(PyBytes::new(py, payload).into_any());
    }
    let broken = |reason: &dyn std::fmt::Display| {
        Error::new(ErrorKind::InvalidArgument, "message.value")
            .with("content_type", essence)
            .with("reason", reason)
    };
    let text = std::str::from_utf8(payload).map_err(|error| broken(&error))?;
    if !is_json {
        return Ok(PyString::new(py, text).into_any());
    }
    // What `json.loads` does, without its Python code around the scanner.
    let scan = python::once(py, &SCAN, || {
        let decoder = python::call(&python::import(py, "json.decoder", "JSONDecoder")?, ())?;
        Ok::<_, PyErr>(python::attribute(&decoder, "scan_once")?.unbind())
    })?;
    let text = PyString::new(py, text.trim_matches([' ', '\t', '\n', '\r']));
    match python::call(scan.bind(py), (&text, 0)) {
        Ok(found) => {
            let (value, end) = found.extract::<(Bound<'py, PyAny>, usize)>()?;
            if end == text.len()? { Ok(value) } else { Err(broken(&"more than one value").into()) }
        }
        Err(error) if error.is_instance_of::<PyStopIteration>(py) => Err(broken(&"not a value").into()),
        Err(error) if error.is_instance_of::<PyValueError>(py) => Err(broken(&message(py, &error)).into()),
        Err(error) => Err(error.into()),
    }
}
