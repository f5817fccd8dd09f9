//! What stands between C and Rust in every exported function: no panic out, no unchecked pointer in.

use crate::{codes::flowmesh_code, error, flowmesh_header, flowmesh_status};
use flowmesh::{Error, ErrorKind, Result};
use std::{
    any::Any,
    ffi::{CStr, c_char, c_void},
    mem::MaybeUninit,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

/// The function C called, by whose name errors about its arguments go.
#[derive(Clone, Copy)]
pub(crate) struct Call(pub(crate) &'static str);

/// Runs the body of a function that returns a status.
#[inline]
pub(crate) fn guard(name: &'static str, body: impl FnOnce(Call) -> Result<()>) -> flowmesh_status {
    match caught(name, body) {
        Ok(()) => flowmesh_code::FLOWMESH_OK as flowmesh_status,
        Err(error) => error::record(&error),
    }
}

/// Runs the body of a function that returns a value; `otherwise` stands for an error, which is recorded.
#[inline]
pub(crate) fn guard_value<R>(name: &'static str, otherwise: R, body: impl FnOnce(Call) -> Result<R>) -> R {
    caught(name, body).unwrap_or_else(|error| {
        error::record(&error);
        otherwise
    })
}

/// Runs the body of a function that returns a number of 0 and up, or a status below 0.
#[inline]
pub(crate) fn guard_number<N: From<i32>>(name: &'static str, body: impl FnOnce(Call) -> Result<N>) -> N {
    caught(name, body).unwrap_or_else(|error| error::record(&error).into())
}

#[inline]
fn caught<R>(name: &'static str, body: impl FnOnce(Call) -> Result<R>) -> Result<R> {
    // What a panic leaves half done stays behind atomics and locks of the core, which recover by themselves.
    catch_unwind(AssertUnwindSafe(|| body(Call(name)))).unwrap_or_else(|panic| Err(panicked(name, &*panic)))
}

#[cold]
fn panicked(name: &'static str, panic: &(dyn Any + Send)) -> Error {
    let said =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Error::new(ErrorKind::Internal, name).with("panic", said.unwrap_or("of an unknown type"))
}

/// A result's way out: a pointer that is not NULL.
pub(crate) struct Out<'a, T>(&'a mut MaybeUninit<T>);

impl<T> Out<'_, T> {
    pub(crate) fn set(self, value: T) {
        self.0.write(value);
    }
}

impl Call {
    #[cold]
    pub(crate) fn error(self, kind: ErrorKind) -> Error {
        Error::new(kind, self.0)
    }

    #[cold]
    pub(crate) fn null(self, argument: &'static str) -> Error {
        self.error(ErrorKind::NullArgument).with("argument", argument)
    }

    #[cold]
    pub(crate) fn invalid(self, argument: &'static str, value: impl std::fmt::Display, rule: &str) -> Error {
        self.error(ErrorKind::InvalidArgument).with(argument, value).with("rule", rule)
    }

    /// A C string that must be there.
    ///
    /// # Safety
    /// `pointer` is NULL or a NUL-terminated string that nobody changes during the call.
    pub(crate) unsafe fn text<'a>(self, pointer: *const c_char, argument: &'static str) -> Result<&'a str> {
        // SAFETY: the caller's duty, passed on.
        unsafe { self.optional_text(pointer, argument) }?.ok_or_else(|| self.null(argument))
    }

    /// A C string, `None` for NULL.
    ///
    /// # Safety
    /// `pointer` is NULL or a NUL-terminated string that nobody changes during the call.
    pub(crate) unsafe fn optional_text<'a>(
        self,
        pointer: *const c_char,
        argument: &'static str,
    ) -> Result<Option<&'a str>> {
        if pointer.is_null() {
            return Ok(None);
        }
        // SAFETY: not NULL, and the rest is the caller's duty.
        let text = unsafe { CStr::from_ptr(pointer) };
        match text.to_str() {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(self.invalid(argument, text.to_string_lossy(), "it is not UTF-8")),
        }
    }

    /// Bytes; NULL stands for none.
    ///
    /// # Safety
    /// `pointer` is NULL or points to `size` bytes that nobody changes during the call.
    pub(crate) unsafe fn bytes<'a>(
        self,
        pointer: *const c_void,
        size: usize,
        argument: &'static str,
    ) -> Result<&'a [u8]> {
        // SAFETY: the caller's duty, passed on.
        unsafe { self.slice(pointer.cast(), size, argument) }
    }

    /// An array; NULL stands for an empty one.
    ///
    /// # Safety
    /// `pointer` is NULL or points to `count` values that nobody changes during the call.
    pub(crate) unsafe fn slice<'a, T>(
        self,
        pointer: *const T,
        count: usize,
        argument: &'static str,
    ) -> Result<&'a [T]> {
        if count == 0 {
            return Ok(&[]);
        }
        if pointer.is_null() {
            return Err(self.null(argument));
        }
        self.check_span::<T>(pointer, count, argument)?;
        // SAFETY: not NULL, aligned, no larger than any object can be, and the rest is the caller's duty.
        Ok(unsafe { std::slice::from_raw_parts(pointer, count) })
    }

    /// An array to be filled.
    ///
    /// # Safety
    /// `pointer` is NULL or points to room for `count` values that nobody else uses during the call.
    pub(crate) unsafe fn room<'a, T>(
        self,
        pointer: *mut T,
        count: usize,
        argument: &'static str,
    ) -> Result<&'a mut [MaybeUninit<T>]> {
        if pointer.is_null() {
            return Err(self.null(argument));
        }
        self.check_span::<T>(pointer, count, argument)?;
        // SAFETY: not NULL, aligned, no larger than any object can be, and the rest is the caller's duty.
        Ok(unsafe { std::slice::from_raw_parts_mut(pointer.cast(), count) })
    }

    /// Where a result goes. `empty` is written at once, so a failure leaves no garbage there.
    ///
    /// # Safety
    /// `pointer` is NULL or points to room for a `T` that nobody else uses during the call.
    pub(crate) unsafe fn out<'a, T>(
        self,
        pointer: *mut T,
        empty: T,
        argument: &'static str,
    ) -> Result<Out<'a, T>> {
        if pointer.is_null() {
            return Err(self.null(argument));
        }
        self.check_span::<T>(pointer, 1, argument)?;
        // SAFETY: not NULL, aligned, and the rest is the caller's duty.
        let place = unsafe { &mut *pointer.cast::<MaybeUninit<T>>() };
        place.write(empty);
        Ok(Out(place))
    }

    /// As [`Call::out`], and nowhere to write when `pointer` is NULL.
    ///
    /// # Safety
    /// As [`Call::out`].
    pub(crate) unsafe fn optional_out<'a, T>(
        self,
        pointer: *mut T,
        empty: T,
        argument: &'static str,
    ) -> Result<Option<Out<'a, T>>> {
        if pointer.is_null() {
            return Ok(None);
        }
        // SAFETY: the caller's duty, passed on.
        unsafe { self.out(pointer, empty, argument) }.map(Some)
    }

    /// Headers, copied.
    ///
    /// # Safety
    /// `pointer` is NULL or points to `count` headers whose texts are as [`Call::text`] asks.
    pub(crate) unsafe fn headers(
        self,
        pointer: *const flowmesh_header,
        count: usize,
    ) -> Result<Vec<(String, String)>> {
        // SAFETY: the caller's duty, passed on.
        let headers = unsafe { self.slice(pointer, count, "headers") }?;
        let copied = headers.iter().map(|header| {
            // SAFETY: the caller's duty, passed on.
            let pair =
                unsafe { (self.text(header.name, "header.name")?, self.text(header.value, "header.value")?) };
            Ok((pair.0.to_owned(), pair.1.to_owned()))
        });
        copied.collect()
    }

    /// A time to live, a delay: not below zero.
    pub(crate) fn milliseconds(self, value: i64, argument: &'static str) -> Result<Duration> {
        let value = u64::try_from(value).map_err(|_| self.invalid(argument, value, "it is below 0"))?;
        Ok(Duration::from_millis(value))
    }

    fn check_span<T>(self, pointer: *const T, count: usize, argument: &'static str) -> Result<()> {
        if !pointer.is_aligned() {
            return Err(self.invalid(argument, format_args!("{pointer:?}"), "it is not aligned"));
        }
        let bytes = count.checked_mul(size_of::<T>());
        if bytes.is_none_or(|bytes| bytes > isize::MAX as usize) {
            return Err(self.invalid(argument, format_args!("{count} elements"), "no object is that large"));
        }
        Ok(())
    }
}

/// The longest wait: what does not fit the core's clock lasts for ever in all but name.
const WAIT_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A timeout as every waiting function takes it: below 0 for ever, 0 polls.
pub(crate) fn timeout(timeout_ms: i64) -> Option<Duration> {
    u64::try_from(timeout_ms).ok().map(|ms| Duration::from_millis(ms).min(WAIT_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_internal_error_with_its_message() {
        let status = guard("flowmesh_test", |_| panic!("seven {}", 7));
        assert_eq!(status, -ErrorKind::Internal.number());
        assert!(error::recorded_message().contains("seven 7"), "{}", error::recorded_message());
    }

    #[test]
    fn impossible_arrays_are_refused_before_they_are_read() {
        let call = Call("flowmesh_test");
        let byte = 0u8;
        // SAFETY: nothing is read: the size is refused first.
        let error = unsafe { call.bytes((&raw const byte).cast(), usize::MAX, "payload") }.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        // SAFETY: NULL is allowed.
        let error = unsafe { call.bytes(std::ptr::null(), 1, "payload") }.unwrap_err();
        assert_eq!((error.kind(), error.get("argument")), (ErrorKind::NullArgument, Some("payload")));
        // SAFETY: NULL is allowed.
        assert!(unsafe { call.bytes(std::ptr::null(), 0, "payload") }.unwrap().is_empty());
    }

    #[test]
    fn timeouts() {
        assert_eq!(timeout(-1), None);
        assert_eq!(timeout(0), Some(Duration::ZERO));
        assert_eq!(timeout(5), Some(Duration::from_millis(5)));
        assert_eq!(timeout(i64::MAX), Some(WAIT_MAX));
    }
}
