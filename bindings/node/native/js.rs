//! Node-API behind safe types: the one file here with `unsafe` in it.
//!
//! A function that JavaScript calls is a plain `fn(&State, &Call) -> Result<Answer>`; [`enter`] is the one
//! entry point that turns arguments, answers, errors and panics from one world into the other. Slices
//! that a [`Call`] lends point into JavaScript's memory: they end with the borrow of the call, and no
//! JavaScript runs while a function of ours runs.
#![allow(unsafe_code)]

use crate::{
    pack::{self, Extra},
    state::State,
};
use flowmesh::{Error, ErrorKind, Message, Result};
use napi_sys as sys;
use std::{
    cell::RefCell,
    ffi::{CString, c_char, c_void},
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr, slice,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// What JavaScript can call.
pub(crate) type Function = fn(&State, &Call) -> Result<Answer>;

/// What a function gives back to JavaScript.
pub(crate) enum Answer {
    Nothing,
    Flag(bool),
    Number(f64),
    /// A 64-bit number, as a `bigint`.
    Big(u64),
    Text(String),
    /// A new buffer with the record of one message.
    Record(Message, Extra),
    /// A new buffer with these bytes.
    Bytes(Vec<u8>),
}

/// One environment's addon: freed with its environment.
struct Module {
    state: State,
    functions: Vec<Entry>,
}

struct Entry {
    module: *const Module,
    run: Function,
}

/// Called by Node once for each environment that loads the addon.
///
/// # Safety
/// `env` and `exports` are those that Node passes.
#[unsafe(no_mangle)]
unsafe extern "C" fn napi_register_module_v1(
    env: sys::napi_env,
    exports: sys::napi_value,
) -> sys::napi_value {
    let module = Box::into_raw(Box::new(Module { state: State::default(), functions: Vec::new() }));
    // SAFETY: `module` is live and not shared yet. Its vector is not changed after this, so the pointers
    // to its entries stay good until `free_module`, the last thing that happens to the environment.
    unsafe {
        (*module).functions = crate::calls::ALL.iter().map(|(_, run)| Entry { module, run: *run }).collect();
        for ((name, _), entry) in crate::calls::ALL.iter().zip(&(*module).functions) {
            let mut function = ptr::null_mut();
            let data = ptr::from_ref(entry).cast_mut().cast();
            let text = name.as_ptr().cast::<c_char>();
            sys::napi_create_function(env, text, name.len() as isize, Some(enter), data, &raw mut function);
            let name = CString::new(*name).unwrap_or_default();
            sys::napi_set_named_property(env, exports, name.as_ptr(), function);
        }
        sys::napi_set_instance_data(env, module.cast(), Some(free_module), ptr::null_mut());
    }
    exports
}

/// The Node-API version that the addon needs.
#[unsafe(no_mangle)]
extern "C" fn node_api_module_get_api_version_v1() -> i32 {
    9
}

unsafe extern "C" fn free_module(_env: sys::napi_env, data: *mut c_void, _hint: *mut c_void) {
    // SAFETY: `data` is the box of `napi_register_module_v1`, and no function of it can be called any more.
    drop(unsafe { Box::from_raw(data.cast::<Module>()) });
}

/// Runs before the environment's functions, references and wake function go.
unsafe extern "C" fn teardown(data: *mut c_void) {
    // SAFETY: the hook was added with a module that lives until `free_module`, which comes later.
    let module = unsafe { &*data.cast::<Module>() };
    // A panic must not leave a C function; what it left open is closed when the process ends.
    let _ = catch_unwind(AssertUnwindSafe(|| module.state.close()));
}

unsafe extern "C" fn enter(env: sys::napi_env, info: sys::napi_callback_info) -> sys::napi_value {
    let mut arguments = [ptr::null_mut(); ARGUMENTS_MAX];
    let mut count = ARGUMENTS_MAX;
    let mut data = ptr::null_mut();
    // SAFETY: Node passes a valid pair; the array has room for `count` values; missing ones become
    // `undefined`. `data` is an `Entry` of this environment's module, which outlives the call.
    let entry = unsafe {
        let this = ptr::null_mut();
        sys::napi_get_cb_info(env, info, &raw mut count, arguments.as_mut_ptr(), this, &raw mut data);
        &*data.cast::<Entry>()
    };
    // SAFETY: as above; only shared references to the module exist after registration.
    let module = unsafe { &*entry.module };
    let call = Call { env, arguments, module };
    let result = catch_unwind(AssertUnwindSafe(|| (entry.run)(&module.state, &call)));
    let result = result.unwrap_or_else(|panic| Err(panicked(&*panic)));
    match result {
        Ok(answer) => call.give(answer),
        Err(error) => call.throw(&error),
    }
}

/// The error that a panic becomes.
pub(crate) fn panicked(panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    Error::new(ErrorKind::Internal, "node.native").with("panic", text)
}

/// The arguments of one call from JavaScript.
pub(crate) struct Call<'a> {
    env: sys::napi_env,
    arguments: [sys::napi_value; ARGUMENTS_MAX],
    module: &'a Module,
}

/// Text that was read from JavaScript; most fits without an allocation.
pub(crate) struct TextBuffer {
    short: [u8; SHORT_TEXT_BYTES],
    long: Vec<u8>,
}

impl Default for TextBuffer {
    fn default() -> Self {
        Self { short: [0; SHORT_TEXT_BYTES], long: Vec::new() }
    }
}

impl Call<'_> {
    /// A number.
    pub(crate) fn number(&self, index: usize) -> Result<f64> {
        let mut value = 0.0;
        // SAFETY: the value belongs to this call; the result is a local.
        check(unsafe { sys::napi_get_value_double(self.env, self.arguments[index], &raw mut value) }, index)?;
        Ok(value)
    }

    /// A whole number that names one of our objects.
    pub(crate) fn id(&self, index: usize) -> Result<u64> {
        Ok(self.number(index)? as u64)
    }

    /// `true` or `false`.
    pub(crate) fn flag(&self, index: usize) -> Result<bool> {
        let mut value = false;
        // SAFETY: as in `number`.
        check(unsafe { sys::napi_get_value_bool(self.env, self.arguments[index], &raw mut value) }, index)?;
        Ok(value)
    }

    /// Whether the argument was left out.
    pub(crate) fn is_missing(&self, index: usize) -> bool {
        self.type_of(self.arguments[index]) == sys::ValueType::napi_undefined
    }

    fn type_of(&self, value: sys::napi_value) -> sys::napi_valuetype {
        let mut kind = sys::ValueType::napi_undefined;
        // SAFETY: the value belongs to this call; the result is a local.
        unsafe { sys::napi_typeof(self.env, value, &raw mut kind) };
        kind
    }

    /// Text, read into `buffer`.
    pub(crate) fn text<'b>(&self, index: usize, buffer: &'b mut TextBuffer) -> Result<&'b str> {
        std::str::from_utf8(self.utf8(self.arguments[index], index, buffer)?)
            .map_err(|_| wrong(index, "not UTF-8"))
    }

    fn utf8<'b>(&self, value: sys::napi_value, index: usize, buffer: &'b mut TextBuffer) -> Result<&'b [u8]> {
        let mut read = 0;
        let room = SHORT_TEXT_BYTES;
        let short = buffer.short.as_mut_ptr().cast::<c_char>();
        // SAFETY: `short` has `room` bytes; Node writes at most that many, the closing zero included.
        let status = unsafe { sys::napi_get_value_string_utf8(self.env, value, short, room, &raw mut read) };
        check(status, index)?;
        // A character has at most four bytes: with so much room left, nothing was cut off.
        if read + 5 <= room {
            return Ok(&buffer.short[..read]);
        }
        // SAFETY: without a buffer Node only tells the length.
        let length = unsafe {
            sys::napi_get_value_string_utf8(self.env, value, ptr::null_mut(), 0, &raw mut read);
            read + 1
        };
        buffer.long.clear();
        buffer.long.resize(length, 0);
        let long = buffer.long.as_mut_ptr().cast::<c_char>();
        // SAFETY: `long` has `length` bytes.
        let status = unsafe { sys::napi_get_value_string_utf8(self.env, value, long, length, &raw mut read) };
        check(status, index)?;
        Ok(&buffer.long[..read])
    }

    /// The bytes of a `Uint8Array`.
    pub(crate) fn bytes(&self, index: usize) -> Result<&[u8]> {
        let (pointer, length) = self.memory(index)?;
        // SAFETY: Node vouches for the range, and it stays while the argument does: as long as the call.
        Ok(if length == 0 { &[] } else { unsafe { slice::from_raw_parts(pointer, length) } })
    }

    fn memory(&self, index: usize) -> Result<(*mut u8, usize)> {
        let (mut pointer, mut length) = (ptr::null_mut(), 0);
        let value = self.arguments[index];
        // SAFETY: the value belongs to this call; the results are locals.
        let status = unsafe { sys::napi_get_buffer_info(self.env, value, &raw mut pointer, &raw mut length) };
        check(status, index)?;
        // The pointer of an empty or detached array may be null.
        Ok((pointer.cast(), if pointer.is_null() { 0 } else { length }))
    }

    /// A payload: the bytes of a `Uint8Array`, or text as UTF-8.
    pub(crate) fn payload<'b>(&'b self, index: usize, buffer: &'b mut TextBuffer) -> Result<&'b [u8]> {
        match self.type_of(self.arguments[index]) {
            sys::ValueType::napi_string => self.utf8(self.arguments[index], index, buffer),
            _ => self.bytes(index),
        }
    }

    /// Pairs from a flat array of strings; none when the argument was left out.
    pub(crate) fn pairs(&self, index: usize) -> Result<Vec<(String, String)>> {
        if self.is_missing(index) {
            return Ok(Vec::new());
        }
        let mut count = 0;
        // SAFETY: the value belongs to this call; the result is a local.
        check(unsafe { sys::napi_get_array_length(self.env, self.arguments[index], &raw mut count) }, index)?;
        let mut buffer = TextBuffer::default();
        let mut item = |at| {
            let mut value = ptr::null_mut();
            // SAFETY: as above.
            let status =
                unsafe { sys::napi_get_element(self.env, self.arguments[index], at, &raw mut value) };
            check(status, index)?;
            let text = std::str::from_utf8(self.utf8(value, index, &mut buffer)?);
            text.map(str::to_owned).map_err(|_| wrong(index, "not UTF-8"))
        };
        (0..count / 2).map(|pair| Ok((item(pair * 2)?, item(pair * 2 + 1)?))).collect()
    }

    /// Ties this environment to its TypeScript layer: argument 0 is called when something is ready, argument
    /// 1 makes an error object, argument 2 is the memory through which batches travel.
    pub(crate) fn link(&self) -> Result<Link> {
        let (pointer, length) = self.memory(2)?;
        let wake = self.wake(0)?;
        let teardown_data = ptr::from_ref(self.module).cast_mut().cast();
        // SAFETY: the module outlives the hook. It is added after the wake function was made, so it runs
        // before Node closes that one.
        check(unsafe { sys::napi_add_env_cleanup_hook(self.env, Some(teardown), teardown_data) }, 0)?;
        let make_error = self.keep(1)?;
        self.keep(2)?;
        Ok(Link { make_error, scratch: RefCell::new(Scratch { pointer, length }), wake, thread: PhantomData })
    }

    /// Keeps a value from being collected as long as the environment lives.
    fn keep(&self, index: usize) -> Result<sys::napi_ref> {
        let mut reference = ptr::null_mut();
        // SAFETY: the value belongs to this call; the result is a local.
        let status =
            unsafe { sys::napi_create_reference(self.env, self.arguments[index], 1, &raw mut reference) };
        check(status, index)?;
        Ok(reference)
    }

    fn wake(&self, index: usize) -> Result<Wake> {
        let bell = Arc::new(Bell { handle: Mutex::new(None), rung: AtomicBool::new(false) });
        let context = Arc::into_raw(Arc::clone(&bell)).cast_mut().cast();
        let mut name = ptr::null_mut();
        let mut handle = ptr::null_mut();
        // SAFETY: the function belongs to this call. `context` is a share of `bell` that `free_bell` gives
        // back. Unreferenced, the handle does not keep the process alive.
        unsafe {
            let text = "flowmesh".as_ptr().cast::<c_char>();
            check(sys::napi_create_string_utf8(self.env, text, 8, &raw mut name), index)?;
            let status = sys::napi_create_threadsafe_function(
                self.env,
                self.arguments[index],
                ptr::null_mut(),
                name,
                0,
                1,
                context,
                Some(free_bell),
                context,
                Some(on_wake),
                &raw mut handle,
            );
            check(status, index)?;
            check(sys::napi_unref_threadsafe_function(self.env, handle), index)?;
        }
        *bell.handle() = Some(Handle(handle));
        Ok(Wake(bell))
    }

    /// Lets the wake function keep the process alive, or not.
    pub(crate) fn hold(&self, wake: &Wake, held: bool) {
        if let Some(handle) = &*wake.0.handle() {
            // SAFETY: the handle is open while it is in `wake`, and this is its environment's thread.
            unsafe {
                if held {
                    sys::napi_ref_threadsafe_function(self.env, handle.0);
                } else {
                    sys::napi_unref_threadsafe_function(self.env, handle.0);
                }
            }
        }
    }

    fn give(&self, answer: Answer) -> sys::napi_value {
        let mut value = ptr::null_mut();
        // SAFETY: the result is a local; when Node refuses it stays null, which JavaScript sees as
        // `undefined`. A new buffer is `bytes` long, and nobody else knows it yet.
        unsafe {
            match answer {
                Answer::Nothing => 0,
                Answer::Flag(flag) => sys::napi_get_boolean(self.env, flag, &raw mut value),
                Answer::Number(number) => sys::napi_create_double(self.env, number, &raw mut value),
                Answer::Big(number) => sys::napi_create_bigint_uint64(self.env, number, &raw mut value),
                Answer::Text(text) => self.string(&text, &mut value),
                Answer::Bytes(bytes) => {
                    let (from, length) = (bytes.as_ptr().cast(), bytes.len());
                    sys::napi_create_buffer_copy(self.env, length, from, ptr::null_mut(), &raw mut value)
                }
                Answer::Record(message, extra) => {
                    let bytes = pack::record_bytes(&message, extra);
                    let mut pointer = ptr::null_mut();
                    let status = sys::napi_create_buffer(self.env, bytes, &raw mut pointer, &raw mut value);
                    if status == sys::Status::napi_ok && !pointer.is_null() {
                        let out = slice::from_raw_parts_mut(pointer.cast::<u8>(), bytes);
                        out.fill(0);
                        pack::write(&message, extra, out);
                    }
                    status
                }
            }
        };
        value
    }

    fn string(&self, text: &str, value: &mut sys::napi_value) -> sys::napi_status {
        // SAFETY: `text` is valid for its length; the result is a local.
        unsafe { sys::napi_create_string_utf8(self.env, text.as_ptr().cast(), text.len() as isize, value) }
    }

    /// Throws the error object that the TypeScript layer makes of `error`.
    fn throw(&self, error: &Error) -> sys::napi_value {
        let mut texts = vec![error.kind().code().to_owned(), error.operation().to_owned(), error.to_string()];
        for (name, value) in error.context() {
            texts.extend([name.to_owned(), value.to_owned()]);
        }
        let mut arguments = vec![ptr::null_mut(); texts.len()];
        for (text, argument) in texts.iter().zip(&mut arguments) {
            self.string(text, argument);
        }
        // SAFETY: the reference lives as long as its environment, the arguments as long as this call. When
        // the environment is going away Node refuses, and nobody is left to see an error.
        unsafe {
            let (mut make, mut receiver, mut made) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
            match self.module.state.link() {
                Ok(link) => {
                    sys::napi_get_reference_value(self.env, link.make_error, &raw mut make);
                    sys::napi_get_undefined(self.env, &raw mut receiver);
                    let count = arguments.len();
                    let status = sys::napi_call_function(
                        self.env,
                        receiver,
                        make,
                        count,
                        arguments.as_ptr(),
                        &raw mut made,
                    );
                    if status == sys::Status::napi_ok {
                        sys::napi_throw(self.env, made);
                    }
                }
                Err(_) => {
                    sys::napi_create_error(self.env, arguments[0], arguments[2], &raw mut made);
                    sys::napi_throw(self.env, made);
                }
            }
        }
        ptr::null_mut()
    }
}

fn check(status: sys::napi_status, index: usize) -> Result<()> {
    if status == sys::Status::napi_ok { Ok(()) } else { Err(wrong(index, status)) }
}

/// The TypeScript layer passed what it never passes.
fn wrong(index: usize, what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Internal, "node.native").with("argument", index).with("status", what)
}

/// What an environment's TypeScript layer handed over when it started.
pub(crate) struct Link {
    make_error: sys::napi_ref,
    /// Batches travel through here.
    pub(crate) scratch: RefCell<Scratch>,
    pub(crate) wake: Wake,
    /// References belong to their environment's thread.
    thread: PhantomData<*const ()>,
}

/// Memory of the TypeScript layer that is written here and read there, in turns.
pub(crate) struct Scratch {
    pointer: *mut u8,
    length: usize,
}

impl Scratch {
    /// All of it.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        if self.length == 0 {
            return &mut [];
        }
        // SAFETY: the array is kept for as long as the environment lives and is never handed to a user, so
        // its memory stays and does not move. JavaScript does not run while this is borrowed.
        unsafe { slice::from_raw_parts_mut(self.pointer, self.length) }
    }
}

/// Makes the TypeScript layer look for what is ready. Any thread may ring it.
#[derive(Clone)]
pub(crate) struct Wake(Arc<Bell>);

struct Bell {
    handle: Mutex<Option<Handle>>,
    /// Rung, and JavaScript has not come to look yet: ringing again would be wasted.
    rung: AtomicBool,
}

struct Handle(sys::napi_threadsafe_function);

// SAFETY: calling a thread-safe function is what other threads may do with it; `Wake::close` takes it away
// before it becomes invalid.
unsafe impl Send for Handle {}

impl Bell {
    fn handle(&self) -> MutexGuard<'_, Option<Handle>> {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake {
    /// Wakes JavaScript once, however often it is called before JavaScript comes.
    pub(crate) fn ring(&self) {
        if self.0.rung.swap(true, Ordering::SeqCst) {
            return;
        }
        if let Some(handle) = &*self.0.handle() {
            let mode = sys::ThreadsafeFunctionCallMode::nonblocking;
            // SAFETY: the handle is open while it is here, and the lock keeps `close` waiting.
            unsafe { sys::napi_call_threadsafe_function(handle.0, ptr::null_mut(), mode) };
        }
    }

    /// From now on ringing does nothing. Node closes the function itself.
    pub(crate) fn close(&self) {
        self.0.handle().take();
    }
}

unsafe extern "C" fn on_wake(
    env: sys::napi_env,
    function: sys::napi_value,
    context: *mut c_void,
    _data: *mut c_void,
) {
    // SAFETY: `context` is the share of the bell that lives until `free_bell`.
    let bell = unsafe { &*context.cast::<Bell>() };
    // Before looking: what becomes ready from here on rings again.
    bell.rung.store(false, Ordering::SeqCst);
    if env.is_null() || function.is_null() {
        return;
    }
    let mut receiver = ptr::null_mut();
    // SAFETY: Node passes a live environment and our function; it takes no arguments and never throws.
    unsafe {
        sys::napi_get_undefined(env, &raw mut receiver);
        sys::napi_call_function(env, receiver, function, 0, ptr::null(), ptr::null_mut());
    }
}

unsafe extern "C" fn free_bell(_env: sys::napi_env, data: *mut c_void, _hint: *mut c_void) {
    // SAFETY: `data` is the share that `Call::wake` gave away; Node calls this once, at the end.
    drop(unsafe { Arc::from_raw(data.cast::<Bell>()) });
}

const ARGUMENTS_MAX: usize = 8;
const SHORT_TEXT_BYTES: usize = 512;
