//! The last error of a thread, and what is known of every code.
//!
//! All of it lies in fixed thread-local arrays, so a pointer to it stays good for the thread's life:
//! `printf("%d %s", flowmesh_call(…), flowmesh_error_message())` is right in whatever order its arguments
//! are evaluated. Nothing in it needs a destructor, so it also works while a thread ends.

use crate::{
    codes::flowmesh_code,
    flowmesh_status,
    guard::{guard, guard_value},
    handle,
};
use flowmesh::{Error, ErrorKind};
use std::{
    cell::{Cell, UnsafeCell},
    ffi::{CStr, CString, c_char},
    fmt::Write,
    ptr,
    sync::atomic::{AtomicPtr, AtomicUsize, Ordering},
};

/// § Errors
///
/// The message of this thread's last error, NUL-terminated UTF-8; empty when there was none.
///
/// It names the call, the reason and the values that matter: `mesh.publish: a size is over its limit
/// (payload_bytes=9, limit=8)`. The address never changes for a thread; the text does, with the next
/// function of this thread that fails. One that succeeds leaves it alone. Longer messages are cut at
/// 1023 bytes.
///
/// Threads: each has its own. Never blocks.
#[unsafe(no_mangle)]
pub extern "C" fn flowmesh_error_message() -> *const c_char {
    LAST.with(|last| last.message.get().cast::<c_char>().cast_const())
}

/// The code of this thread's last error, `FLOWMESH_OK` when there was none.
///
/// For functions that return a value rather than a status: clear it before, look at it after.
#[unsafe(no_mangle)]
pub extern "C" fn flowmesh_error_code() -> flowmesh_status {
    LAST.with(|last| last.code.get())
}

/// One value of this thread's last error by its name, or NULL when it has none of that name.
///
/// Which values an error carries is in its message. Some worth asking for: `retry_after_ms` of
/// `RATE_LIMITED` and `CIRCUIT_OPEN`, `pid` of `ALREADY_OPEN`, `type` and `message` of `HANDLER_FAILED`,
/// `limit` of `TOO_LARGE`, `operation` of all. The text lives as long as the message does.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_error_get(name: *const c_char) -> *const c_char {
    if name.is_null() {
        return std::ptr::null();
    }
    // SAFETY: not NULL, and the manual asks for a NUL-terminated string.
    let name = unsafe { CStr::from_ptr(name) };
    LAST.with(|last| last.find(name.to_bytes()).unwrap_or(std::ptr::null()))
}

/// Forgets this thread's last error.
#[unsafe(no_mangle)]
pub extern "C" fn flowmesh_error_clear() {
    LAST.with(Last::clear);
}

/// What a status means, in a few words. Static text, also for numbers that are no status.
#[unsafe(no_mangle)]
pub extern "C" fn flowmesh_strerror(status: flowmesh_status) -> *const c_char {
    about(status, c"it worked", c"not a status of FlowMesh", |texts| &texts.meaning)
}

/// The name of a status: `"OK"`, `"TIMEOUT"` and so on, as `enum flowmesh_code` spells it. Static text.
#[unsafe(no_mangle)]
pub extern "C" fn flowmesh_status_name(status: flowmesh_status) -> *const c_char {
    about(status, c"OK", c"UNKNOWN", |texts| &texts.code)
}

/// What to do about a status, in one sentence. Static text.
#[unsafe(no_mangle)]
pub extern "C" fn flowmesh_status_advice(status: flowmesh_status) -> *const c_char {
    about(status, c"Nothing to do.", c"Use the library that the header came with.", |texts| &texts.advice)
}

/// 1 when the same call may succeed later without being changed, else 0.
#[unsafe(no_mangle)]
pub extern "C" fn flowmesh_status_is_retryable(status: flowmesh_status) -> i32 {
    i32::from(kind_of(status).is_some_and(ErrorKind::is_retryable))
}

/// What a handler returns when it could not do its work: records `type` and `message` for the caller and
/// returns `FLOWMESH_ERR_HANDLER_FAILED`.
///
///     return flowmesh_handler_error("ParseError", "line 3: no number");
///
/// `type` is a short name that callers compare, in other languages the class of the exception.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_handler_error(
    r#type: *const c_char,
    message: *const c_char,
) -> flowmesh_status {
    guard("flowmesh_handler_error", |call| {
        // SAFETY: the manual asks for NULL or C strings.
        let (kind, message) = unsafe { (call.text(r#type, "type")?, call.text(message, "message")?) };
        Err(call.error(ErrorKind::HandlerFailed).with("type", kind).with("message", message))
    })
}

/// Frees a text that a function gave as `char *`. NULL is fine.
///
/// # Errors
/// `BAD_HANDLE`: the library did not give this text, or it was freed before. Nothing is freed then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_string_free(text: *mut c_char) -> flowmesh_status {
    guard("flowmesh_string_free", |call| {
        if text.is_null() {
            return Ok(());
        }
        if !TEXTS.take(text as usize) {
            return Err(call
                .error(ErrorKind::BadHandle)
                .with("expected", "text")
                .with("found", "no live text"));
        }
        // SAFETY: it was in the list, so `give_string` made it with `into_raw` and nobody has freed it.
        drop(unsafe { CString::from_raw(text) });
        Ok(())
    })
}

/// How many handles and texts were given out and not freed yet: 0 when a program has tidied up.
///
/// For tests and for hunting leaks; handles that are lent to a running handler count.
#[unsafe(no_mangle)]
pub extern "C" fn flowmesh_handle_count() -> usize {
    guard_value("flowmesh_handle_count", 0, |_| Ok(handle::count() + TEXTS.count()))
}

/// The addresses of the texts given out. They are few, and live for a moment.
///
/// A list of chunks that only grows, without a lock: a forked child may free what it inherited, whatever other
/// threads of its parent were doing.
struct GivenTexts {
    slots: [AtomicUsize; TEXT_SLOTS],
    next: AtomicPtr<GivenTexts>,
}

static TEXTS: GivenTexts = GivenTexts::new();

const TEXT_SLOTS: usize = 62;

impl GivenTexts {
    const fn new() -> Self {
        Self { slots: [const { AtomicUsize::new(0) }; TEXT_SLOTS], next: AtomicPtr::new(ptr::null_mut()) }
    }

    fn chunks(&'static self) -> impl Iterator<Item = &'static Self> {
        std::iter::successors(Some(self), |chunk| {
            // Acquire: pairs with the Release that showed the chunk.
            // SAFETY: null, or a chunk that was whole when it was shown and is never freed.
            unsafe { chunk.next.load(Ordering::Acquire).as_ref() }
        })
    }

    fn give(&'static self, address: usize) {
        let claim = |slot: &AtomicUsize| {
            slot.compare_exchange(0, address, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        loop {
            let mut last = self;
            for chunk in self.chunks() {
                if chunk.slots.iter().any(claim) {
                    return;
                }
                last = chunk;
            }
            let fresh = Box::into_raw(Box::new(Self::new()));
            // Release: whoever finds the chunk sees its empty slots.
            if last
                .next
                .compare_exchange(ptr::null_mut(), fresh, Ordering::Release, Ordering::Relaxed)
                .is_err()
            {
                // SAFETY: nobody has seen this box.
                drop(unsafe { Box::from_raw(fresh) });
            }
        }
    }

    /// Whether `address` was there; then it is no longer.
    fn take(&'static self, address: usize) -> bool {
        self.chunks()
            .flat_map(|chunk| &chunk.slots)
            .any(|slot| slot.compare_exchange(address, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok())
    }

    fn count(&'static self) -> usize {
        self.chunks().flat_map(|chunk| &chunk.slots).filter(|slot| slot.load(Ordering::Relaxed) != 0).count()
    }
}

/// A C string; a NUL inside cannot be said in C and becomes a space.
pub(crate) fn c_string(text: &str) -> CString {
    let bytes: Vec<u8> = text.bytes().map(|byte| if byte == 0 { b' ' } else { byte }).collect();
    CString::new(bytes).expect("no NUL is left")
}

/// A text for C to free with `flowmesh_string_free`.
pub(crate) fn give_string(text: &str) -> *mut c_char {
    let given = c_string(text).into_raw();
    TEXTS.give(given as usize);
    given
}

const MESSAGE_BYTES: usize = 1024;
const VALUES_BYTES: usize = 2048;

/// A thread's last error.
struct Last {
    code: Cell<flowmesh_status>,
    message: UnsafeCell<[u8; MESSAGE_BYTES]>,
    /// Name, NUL, value, NUL, and so on; as many as fit.
    values: UnsafeCell<[u8; VALUES_BYTES]>,
    values_bytes: Cell<usize>,
}

thread_local! {
    static LAST: Last = const {
        Last {
            code: Cell::new(0),
            message: UnsafeCell::new([0; MESSAGE_BYTES]),
            values: UnsafeCell::new([0; VALUES_BYTES]),
            values_bytes: Cell::new(0),
        }
    };
}

/// Remembers `error` as this thread's last and returns its status.
#[cold]
pub(crate) fn record(error: &Error) -> flowmesh_status {
    let code = -error.kind().number();
    LAST.with(|last| last.set(code, error));
    code
}

/// The `type` and `message` that this thread's last error has for a caller, when it has the code `status`.
pub(crate) fn recorded_failure(status: flowmesh_status) -> Option<(String, String)> {
    let known = kind_of(status)?;
    if flowmesh_error_code() != status {
        return Some((known.name().into(), known.meaning().into()));
    }
    let value = |name: &[u8]| {
        let found = LAST.with(|last| last.find(name))?;
        // SAFETY: a NUL-terminated value of this thread, read before anything changes it.
        Some(unsafe { CStr::from_ptr(found) }.to_string_lossy().into_owned())
    };
    let kind = value(b"type").unwrap_or_else(|| known.name().into());
    Some((kind, value(b"message").unwrap_or_else(recorded_message)))
}

/// This thread's last message.
pub(crate) fn recorded_message() -> String {
    // SAFETY: a NUL-terminated array of this thread, which nothing writes meanwhile.
    unsafe { CStr::from_ptr(flowmesh_error_message()) }.to_string_lossy().into_owned()
}

impl Last {
    fn clear(&self) {
        self.code.set(0);
        self.values_bytes.set(0);
        // SAFETY: the array is this thread's own, and no reference to it is kept anywhere.
        unsafe { (*self.message.get())[0] = 0 };
    }

    fn set(&self, code: flowmesh_status, error: &Error) {
        self.code.set(code);
        // SAFETY: the arrays are this thread's own, and no reference to them outlives this function: writing
        // an error calls `Display` of plain values, which cannot come back here.
        let (message, values) = unsafe { (&mut *self.message.get(), &mut *self.values.get()) };
        let mut writer = Fixed { bytes: message, used: 0 };
        // It fails when the message is longer than the array: what fits stays.
        let _ = write!(writer, "{error}");
        writer.terminate();

        let mut used = 0;
        for (name, value) in [("operation", error.operation())].into_iter().chain(error.context()) {
            let Some(room) = values.get_mut(used..).filter(|room| name.len() + 2 < room.len()) else { break };
            let mut writer = Fixed { bytes: &mut room[..], used: 0 };
            // The name fits; a value that does not is cut.
            let _ = writer.write_str(name).and_then(|()| writer.write_char('\0'));
            let _ = writer.write_str(value);
            used += writer.terminate();
        }
        self.values_bytes.set(used);
    }

    fn find(&self, name: &[u8]) -> Option<*const c_char> {
        // SAFETY: the array is this thread's own and nothing writes it during this function.
        let values = unsafe { &*self.values.get() };
        let mut rest = &values[..self.values_bytes.get()];
        while !rest.is_empty() {
            let name_end = rest.iter().position(|byte| *byte == 0)?;
            let value = &rest[name_end + 1..];
            if &rest[..name_end] == name {
                return Some(value.as_ptr().cast());
            }
            rest = &value[value.iter().position(|byte| *byte == 0)? + 1..];
        }
        None
    }
}

/// Text in an array that does not grow, with room kept for a NUL.
struct Fixed<'a> {
    bytes: &'a mut [u8],
    used: usize,
}

impl Fixed<'_> {
    /// Ends the text and returns its bytes, the NUL included.
    fn terminate(self) -> usize {
        self.bytes[self.used] = 0;
        self.used + 1
    }
}

impl Write for Fixed<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let room = self.bytes.len() - 1 - self.used;
        let fits = text.floor_char_boundary(room);
        self.bytes[self.used..self.used + fits].copy_from_slice(&text.as_bytes()[..fits]);
        self.used += fits;
        if fits < text.len() { Err(std::fmt::Error) } else { Ok(()) }
    }
}

struct Texts {
    code: CString,
    meaning: CString,
    advice: CString,
}

fn about(
    status: flowmesh_status,
    fine: &'static CStr,
    unknown: &'static CStr,
    pick: fn(&'static Texts) -> &'static CString,
) -> *const c_char {
    let found = match kind_of(status) {
        _ if status == flowmesh_code::FLOWMESH_OK as flowmesh_status => fine,
        Some(kind) => {
            ErrorKind::ALL.iter().position(|found| *found == kind).map_or(unknown, |at| pick(&texts()[at]))
        }
        None => unknown,
    };
    found.as_ptr()
}

/// The texts of every kind. Whoever needs them first makes them; two at once both do and one is kept, so that a fork
/// catches nobody half-way.
fn texts() -> &'static [Texts] {
    static MADE: AtomicPtr<Vec<Texts>> = AtomicPtr::new(ptr::null_mut());
    // Acquire: pairs with the Release that kept them.
    // SAFETY: null, or texts that were whole when they were kept and are never freed.
    if let Some(made) = unsafe { MADE.load(Ordering::Acquire).as_ref() } {
        return made;
    }
    let text = |text: &str| CString::new(text).expect("the list of kinds has no NUL");
    let texts = |kind: &ErrorKind| Texts {
        code: text(kind.code()),
        meaning: text(kind.meaning()),
        advice: text(kind.advice()),
    };
    let fresh = Box::into_raw(Box::new(ErrorKind::ALL.iter().map(texts).collect::<Vec<_>>()));
    match MADE.compare_exchange(ptr::null_mut(), fresh, Ordering::AcqRel, Ordering::Acquire) {
        // SAFETY: kept for ever.
        Ok(_) => unsafe { &*fresh },
        Err(kept) => {
            // SAFETY: nobody has seen this box.
            drop(unsafe { Box::from_raw(fresh) });
            // SAFETY: not null, since the exchange failed, and kept for ever.
            unsafe { &*kept }
        }
    }
}

fn kind_of(status: flowmesh_status) -> Option<ErrorKind> {
    ErrorKind::ALL.iter().copied().find(|kind| kind.number() == status.wrapping_neg())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(name: &CStr) -> Option<String> {
        // SAFETY: a C string in, NULL or a C string of this thread out.
        unsafe {
            let found = flowmesh_error_get(name.as_ptr());
            (!found.is_null()).then(|| CStr::from_ptr(found).to_str().unwrap().to_owned())
        }
    }

    #[test]
    fn values_are_found_by_name() {
        let error = Error::new(ErrorKind::RateLimited, "mesh.call")
            .with("service", "a.b")
            .with("retry_after_ms", 250);
        assert_eq!(record(&error), -18);
        assert_eq!(get(c"retry_after_ms").as_deref(), Some("250"));
        assert_eq!(get(c"service").as_deref(), Some("a.b"));
        assert_eq!(get(c"operation").as_deref(), Some("mesh.call"));
        assert_eq!(get(c"serv"), None);
        assert_eq!(recorded_message(), error.to_string());
        flowmesh_error_clear();
        assert_eq!((flowmesh_error_code(), recorded_message().as_str(), get(c"service")), (0, "", None));
    }

    #[test]
    fn long_messages_and_values_are_cut_between_characters() {
        let long = "ü".repeat(3000);
        let address = flowmesh_error_message();
        record(&Error::new(ErrorKind::Io, "x").with("first", &long).with("second", "lost"));
        let message = recorded_message();
        assert!((1022..=1023).contains(&message.len()) && message.ends_with('ü'), "{}", message.len());
        assert!(get(c"first").unwrap().chars().all(|c| c == 'ü'));
        assert_eq!(get(c"second"), None);
        assert_eq!(address, flowmesh_error_message());
    }

    #[test]
    fn strings_are_freed_once() {
        let text = give_string("a\0b");
        // SAFETY: texts of this library, or refused.
        unsafe {
            assert_eq!(CStr::from_ptr(text), c"a b");
            assert_eq!(flowmesh_string_free(text), 0);
            assert_eq!(flowmesh_string_free(text), -ErrorKind::BadHandle.number());
            assert_eq!(flowmesh_string_free(std::ptr::null_mut()), 0);
        }
    }
}
