//! Calls from Rust into Python code.
//!
//! Before Python 3.14 a daemon thread that wants the GIL while the interpreter ends is ended by unwinding its stack.
//! Python code may let the GIL go and want it back at any time, and an unwinding that meets Rust frames aborts the
//! process. So code that may be Python's is called from here only: a thread that is unwound stays here for ever.
//! Pyo3 does the same for its own ways to the GIL. What it calls for an argument's `__index__` or `__float__` and when
//! it drops a reference is not guarded; neither runs Python code of ours.

use pyo3::{
    BoundObject,
    ffi::PyObject,
    prelude::*,
    sync::PyOnceLock,
    types::{PyList, PyString, PyTuple},
};
use std::ptr;

/// Calls it.
pub(crate) fn call<'py, A>(callable: &Bound<'py, PyAny>, arguments: A) -> PyResult<Bound<'py, PyAny>>
where
    A: IntoPyObject<'py, Target = PyTuple>,
    PyErr: From<A::Error>,
{
    let py = callable.py();
    let arguments = arguments.into_pyobject(py).map_err(PyErr::from)?.into_bound();
    // SAFETY: a live object and a live tuple; no keywords.
    guarded(py, || unsafe {
        unwinding(PyObject_Call as Three)(callable.as_ptr(), arguments.as_ptr(), ptr::null_mut())
    })
}

/// Looks up a method and calls it.
pub(crate) fn call_method<'py, A>(
    object: &Bound<'py, PyAny>,
    name: &str,
    arguments: A,
) -> PyResult<Bound<'py, PyAny>>
where
    A: IntoPyObject<'py, Target = PyTuple>,
    PyErr: From<A::Error>,
{
    call(&attribute(object, name)?, arguments)
}

/// Looks it up.
pub(crate) fn attribute<'py>(object: &Bound<'py, PyAny>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    let name = PyString::new(object.py(), name);
    // SAFETY: live objects.
    guarded(object.py(), || unsafe { unwinding(PyObject_GetAttr as Two)(object.as_ptr(), name.as_ptr()) })
}

/// What is to be imported: `(module, name in it)`.
pub(crate) fn import<'py>(py: Python<'py>, module: &str, name: &str) -> PyResult<Bound<'py, PyAny>> {
    let module = PyString::new(py, module);
    // SAFETY: a live object.
    attribute(&guarded(py, || unsafe { unwinding(PyImport_Import as One)(module.as_ptr()) })?, name)
}

/// `str(object)`.
pub(crate) fn text<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyString>> {
    // SAFETY: a live object.
    let text = guarded(object.py(), || unsafe { unwinding(PyObject_Str as One)(object.as_ptr()) })?;
    Ok(text.cast_into()?)
}

/// `repr(object)`.
pub(crate) fn shown<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyString>> {
    // SAFETY: a live object.
    let text = guarded(object.py(), || unsafe { unwinding(PyObject_Repr as One)(object.as_ptr()) })?;
    Ok(text.cast_into()?)
}

/// What an iterable gives.
pub(crate) fn items<'py>(iterable: &Bound<'py, PyAny>) -> PyResult<Vec<Bound<'py, PyAny>>> {
    if let Ok(list) = iterable.cast_exact::<PyList>() {
        return Ok(list.iter().collect());
    }
    if let Ok(tuple) = iterable.cast_exact::<PyTuple>() {
        return Ok(tuple.iter().collect());
    }
    let list = call(iterable.py().get_type::<PyList>().as_any(), (iterable,))?;
    Ok(list.cast::<PyList>()?.iter().collect())
}

/// What is in `cell`, made if nothing is. Not made by the cell: a thread that stays for ever would keep all others
/// waiting for it.
pub(crate) fn once<'a, T, E>(
    py: Python<'_>,
    cell: &'a PyOnceLock<T>,
    make: impl FnOnce() -> Result<T, E>,
) -> Result<&'a T, E> {
    if let Some(made) = cell.get(py) {
        return Ok(made);
    }
    let made = make()?;
    // Another thread may have been quicker.
    Ok(cell.get_or_init(py, || made))
}

/// Runs `run`, which does nothing but call C, and takes the new reference that it gives, or the exception.
fn guarded(py: Python<'_>, run: impl FnOnce() -> *mut PyObject) -> PyResult<Bound<'_, PyAny>> {
    let stays = Stays;
    let found = run();
    std::mem::forget(stays);
    // SAFETY: the functions below give a new reference, or null and an exception.
    unsafe { Bound::from_owned_ptr_or_err(py, found) }
}

/// Is dropped only when the stack is unwound. The GIL is not held then.
struct Stays;

impl Drop for Stays {
    fn drop(&mut self) {
        loop {
            std::thread::park();
        }
    }
}

/// The function, but so that the compiler does not know which. It would know from Pyo3, which declares the same ones,
/// that they never unwind, and leave out what runs when they do.
fn unwinding<F: Copy>(function: F) -> F {
    // SAFETY: a reference is valid to read.
    unsafe { ptr::read_volatile(&raw const function) }
}

type One = unsafe extern "C-unwind" fn(*mut PyObject) -> *mut PyObject;
type Two = unsafe extern "C-unwind" fn(*mut PyObject, *mut PyObject) -> *mut PyObject;
type Three = unsafe extern "C-unwind" fn(*mut PyObject, *mut PyObject, *mut PyObject) -> *mut PyObject;

unsafe extern "C-unwind" {
    fn PyObject_Call(
        callable: *mut PyObject,
        arguments: *mut PyObject,
        keywords: *mut PyObject,
    ) -> *mut PyObject;
    fn PyObject_GetAttr(object: *mut PyObject, name: *mut PyObject) -> *mut PyObject;
    fn PyObject_Repr(object: *mut PyObject) -> *mut PyObject;
    fn PyObject_Str(object: *mut PyObject) -> *mut PyObject;
    fn PyImport_Import(name: *mut PyObject) -> *mut PyObject;
}
