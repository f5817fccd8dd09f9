//! Arguments: numbers, seconds, texts and headers, checked and turned into the core's types.

use crate::{
    errors::{Failure, Result, invalid},
    python,
};
use pyo3::{
    exceptions::{PyOverflowError, PyTypeError, PyUnicodeEncodeError},
    prelude::*,
    types::{PyBytes, PyDict, PyString},
};
use std::{fmt::Display, ops::RangeInclusive, time::Duration};

pub(crate) type Headers = Vec<(String, String)>;

/// A Python int. One that does not fit is the nearest that does, so that its range check names the limit.
#[derive(Clone, Copy)]
pub(crate) struct Whole(pub(crate) i64);

impl<'py> FromPyObject<'_, 'py> for Whole {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        match object.extract::<i64>() {
            Ok(value) => Ok(Self(value)),
            Err(error) if error.is_instance_of::<PyOverflowError>(object.py()) => {
                Ok(Self(if object.lt(0)? { i64::MIN } else { i64::MAX }))
            }
            Err(error) => Err(error),
        }
    }
}

impl Whole {
    /// The value as `T`, or `InvalidArgument` with the limits.
    pub(crate) fn within<T: TryFrom<i64>>(
        self,
        operation: &'static str,
        argument: &'static str,
        range: RangeInclusive<i64>,
    ) -> Result<T> {
        let limit = || format!("{} to {}", range.start(), range.end());
        if !range.contains(&self.0) {
            return Err(invalid(operation, argument, self.0, limit()));
        }
        T::try_from(self.0).map_err(|_| invalid(operation, argument, self.0, limit()))
    }

    /// The value as `T`, whose own range is the limit.
    pub(crate) fn fitting<T: TryFrom<i64>>(
        self,
        operation: &'static str,
        argument: &'static str,
    ) -> Result<T> {
        T::try_from(self.0)
            .map_err(|_| invalid(operation, argument, self.0, "not negative, and of sensible size"))
    }
}

/// A `str`, borrowed. One with lone surrogates has no UTF-8 and is `InvalidArgument`.
#[derive(Clone, Copy)]
pub(crate) struct Text<'a>(pub(crate) &'a str);

impl<'a, 'py> FromPyObject<'a, 'py> for Text<'a> {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        match object.extract::<&'a str>() {
            Ok(text) => Ok(Self(text)),
            Err(error) => Err(text_error(object.py(), error)),
        }
    }
}

fn text_error(py: Python<'_>, error: impl Into<PyErr>) -> PyErr {
    let error = error.into();
    if error.is_instance_of::<PyUnicodeEncodeError>(py) {
        return invalid("text.encode", "text", error.value(py), "text that UTF-8 can hold").into();
    }
    error
}

/// Seconds as a duration. Refuses negative values and NaN; one too long for the clock is the longest.
pub(crate) fn seconds(operation: &'static str, argument: &'static str, value: f64) -> Result<Duration> {
    if value.is_nan() || value < 0.0 {
        return Err(invalid(operation, argument, value, "seconds, zero or more"));
    }
    let Ok(time) = Duration::try_from_secs_f64(value) else { return Ok(Duration::MAX) };
    if value < 3600.0 {
        return Ok(time);
    }
    // Of long times a float does not tell the nanoseconds any more: 315360000.001 has 999987 of them.
    Ok(Duration::new(time.as_secs(), (time.subsec_nanos() + 500) / 1000 * 1000))
}

/// How long to wait: `None` and infinity are for ever.
pub(crate) fn timeout(operation: &'static str, value: Option<f64>) -> Result<Option<Duration>> {
    match value {
        None => Ok(None),
        Some(value) if value == f64::INFINITY => Ok(None),
        Some(value) => seconds(operation, "timeout", value).map(Some),
    }
}

/// A deadline that must be a duration for the core: `None` and infinity are the longest it takes.
pub(crate) fn deadline(operation: &'static str, value: Option<f64>) -> Result<Duration> {
    Ok(timeout(operation, value)?.unwrap_or(FOREVER))
}

/// 49 days, the most that fits in the wire's 32 bits of milliseconds.
const FOREVER: Duration = Duration::from_secs(49 * 24 * 60 * 60);

/// A mapping of `str` to `str`, in its order.
pub(crate) fn headers(headers: Option<&Bound<'_, PyAny>>) -> Result<Headers> {
    let Some(headers) = headers.filter(|headers| !headers.is_none()) else { return Ok(Vec::new()) };
    let pair = |name: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>| -> Result<(String, String)> {
        Ok((header_text(name, "name")?, header_text(value, &format!("value of {name}"))?))
    };
    if let Ok(dict) = headers.cast::<PyDict>() {
        return dict.iter().map(|(name, value)| pair(&name, &value)).collect();
    }
    let not_mapping = || type_error(format!("headers must map str to str, not {}", type_name(headers)));
    let items = python::call_method(headers, "items", ()).map_err(|_| not_mapping())?;
    python::items(&items)?
        .into_iter()
        .map(|item| {
            let (name, value) =
                item.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>().map_err(|_| not_mapping())?;
            pair(&name, &value)
        })
        .collect()
}

fn header_text(text: &Bound<'_, PyAny>, what: &str) -> Result<String> {
    let string = text
        .cast::<PyString>()
        .map_err(|_| type_error(format!("headers: the {what} must be str, not {}", type_name(text))))?;
    Ok(string.to_str().map_err(|error| text_error(text.py(), error))?.to_owned())
}

/// A secret: `bytes`, or `str` for its UTF-8.
pub(crate) fn secret(secret: &Bound<'_, PyAny>) -> Result<Vec<u8>> {
    if let Ok(text) = secret.cast::<PyString>() {
        return Ok(text.to_str().map_err(|error| text_error(secret.py(), error))?.as_bytes().to_vec());
    }
    match secret.cast::<PyBytes>() {
        Ok(bytes) => Ok(bytes.as_bytes().to_vec()),
        Err(_) => Err(type_error(format!("secret must be bytes or str, not {}", type_name(secret))).into()),
    }
}

pub(crate) fn type_error(text: impl Display) -> PyErr {
    PyTypeError::new_err(text.to_string())
}

pub(crate) fn type_name(object: &Bound<'_, PyAny>) -> String {
    object.get_type().qualname().map_or_else(|_| "this object".into(), |name| name.to_string())
}

/// Refuses to be pickled: a handle means nothing in another process.
pub(crate) fn not_picklable(what: &str, instead: &str) -> PyErr {
    type_error(format!("cannot pickle a {what}: {instead}"))
}

impl Failure {
    /// Only `Closed`: the normal end of a loop over a handle.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self, Self::Core(error) if error.kind() == flowmesh::ErrorKind::Closed)
    }
}
