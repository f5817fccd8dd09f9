//! Serving.

use crate::{
    callback::{Context, failure, flowmesh_drop},
    error, flowmesh_bytes, flowmesh_header, flowmesh_status, flowmesh_text,
    guard::{Call, guard, guard_number, guard_value},
    handle::{Live, take_back},
    mesh::{MeshHandle, flowmesh_mesh},
    message::{MessageHandle, flowmesh_message},
    options::flowmesh_serve_options,
    wait::Interrupt,
};
use flowmesh::lock::Mutex;
use flowmesh::{ErrorKind, HandlerError, Message, Reply, Request, Result, Service};
use std::{
    ffi::{CString, c_char, c_void},
    mem, ptr,
    sync::OnceLock,
};

/// This process as an instance of a service.
pub struct flowmesh_service {
    _opaque: (),
}

/// A call that an instance is to answer.
pub struct flowmesh_request {
    _opaque: (),
}

/// Answers one request, which is lent until it returns: with `flowmesh_request_reply` and `FLOWMESH_OK`, or with a
/// failure: most easily `return flowmesh_handler_error(...)`. `FLOWMESH_OK` without a reply is an empty reply.
pub type flowmesh_request_handler =
    Option<unsafe extern "C" fn(context: *mut c_void, request: *mut flowmesh_request) -> flowmesh_status>;

pub(crate) struct ServiceHandle {
    service: Service,
    interrupt: Interrupt,
    name: CString,
}

pub(crate) struct RequestHandle {
    /// A share of its own, so that what was lent stays when the request was answered.
    message: Message,
    /// The handle of `message`, once somebody asked for it; 0 when there was no room for one.
    message_handle: OnceLock<usize>,
    state: Mutex<State>,
}

/// Who answers a request.
enum State {
    /// Whoever has the handle.
    Owned(Request),
    /// The handler that is running: its answer goes out when it returns.
    Lent { request: *const Request, answer: Option<std::result::Result<Reply, HandlerError>> },
    /// Nobody any more.
    Answered,
}

// SAFETY: the pointer of `Lent` is used under the lock alone, and `Loan` takes it away before what it points to
// ends; `Request` itself is `Send` and `Sync`.
unsafe impl Send for State {}

/// § Serving, with a handler
///
/// Serves `name` and has `handler` called for each call, in `concurrency` threads of the library, so in several at
/// once when that is more than 1. `options`, `context` and `drop` may be NULL.
///
/// The service in `*out` is the caller's to free, which ends serving; freeing it inside the handler is allowed.
/// `drop(context)` is called exactly once, also when this function fails.
///
/// Threads: any. Blocks until the host has answered.
///
/// # Errors
/// `INVALID_ARGUMENT`: the name (letters, digits, `_`, `-` and dots), or an option. `CLOSED`. `DISCONNECTED`.
/// `FORKED`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_serve(
    mesh: *mut flowmesh_mesh,
    name: *const c_char,
    options: *const flowmesh_serve_options,
    handler: flowmesh_request_handler,
    context: *mut c_void,
    drop: flowmesh_drop,
    out: *mut *mut flowmesh_service,
) -> flowmesh_status {
    let context = Context::new(context, drop);
    guard("flowmesh_serve", move |call| {
        // SAFETY: the arguments are as the manual asks.
        let out = unsafe { call.out(out, ptr::null_mut(), "out") }?;
        let mesh = call.live::<MeshHandle>(mesh)?;
        // SAFETY: the arguments are as the manual asks.
        let (name, options) = unsafe { (call.text(name, "name")?, call.options(options)?.read(call)?) };
        let handler = handler.ok_or_else(|| call.null("handler"))?;
        let serve = move |request: &Request| -> std::result::Result<Reply, HandlerError> {
            let loan = Loan::new(call, request)?;
            // SAFETY: the manual asks for a function that takes this context and a request.
            let status = unsafe { handler(context.pointer(), loan.handle) };
            match (status, loan.end()) {
                (0, answer) => answer.unwrap_or_else(|| Ok(Reply::from(Vec::new()))),
                (_, Some(Err(failure))) => Err(failure),
                (status, _) => Err(failure(status)),
            }
        };
        let service = mesh.mesh.serve(name, options, serve)?;
        out.set(call.give(ServiceHandle::new(service, &mesh))?);
        Ok(())
    })
}

/// § Serving, by asking for the next call
///
/// Serves `name`; calls wait until `flowmesh_service_next` takes them. No thread of the library calls back. `options`
/// may be NULL. The service in `*out` is the caller's to free.
///
/// Threads: any. Blocks until the host has answered.
///
/// # Errors
/// As `flowmesh_serve`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_service_open(
    mesh: *mut flowmesh_mesh,
    name: *const c_char,
    options: *const flowmesh_serve_options,
    out: *mut *mut flowmesh_service,
) -> flowmesh_status {
    guard("flowmesh_service_open", |call| {
        // SAFETY: the arguments are as the manual asks.
        let out = unsafe { call.out(out, ptr::null_mut(), "out") }?;
        let mesh = call.live::<MeshHandle>(mesh)?;
        // SAFETY: the arguments are as the manual asks.
        let (name, options) = unsafe { (call.text(name, "name")?, call.options(options)?.read(call)?) };
        let service = mesh.mesh.service(name, options)?;
        out.set(call.give(ServiceHandle::new(service, &mesh))?);
        Ok(())
    })
}

/// Takes the next call, waiting at most `timeout_ms`: below 0 for ever, 0 only looks. The request in `*out` is the
/// caller's to answer and to free. Of a service with a handler the calls are the handler's to take.
///
/// Threads: any; several may take calls of one service.
///
/// # Errors
/// `TIMEOUT`: none came. `INTERRUPTED`: a signal came (see `on_signal`). `CLOSED`: the service or the mesh was
/// closed or freed, also while this waited. `DISCONNECTED`. `FORKED`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_service_next(
    service: *mut flowmesh_service,
    timeout_ms: i64,
    out: *mut *mut flowmesh_request,
) -> flowmesh_status {
    guard("flowmesh_service_next", |call| {
        // SAFETY: the arguments are as the manual asks.
        let out = unsafe { call.out(out, ptr::null_mut(), "out") }?;
        let handle = call.live::<ServiceHandle>(service)?;
        let request = handle.interrupt.waiting(timeout_ms, |wait| handle.service.next(wait))?;
        let message = request.message().clone();
        out.set(call.give(RequestHandle::new(message, State::Owned(request)))?);
        Ok(())
    })
}

/// Its name, lent until it is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_service_name(service: *const flowmesh_service) -> flowmesh_text {
    guard_value("flowmesh_service_name", flowmesh_text::NONE, |call| {
        let handle = call.live::<ServiceHandle>(service)?;
        Ok(flowmesh_text { data: handle.name.as_ptr(), size: handle.name.count_bytes() })
    })
}

/// A descriptor that is readable while a call waits or the service is closed, or a negative status. For `poll` and
/// its like: do not read, write or close it. It lives until the service is freed.
///
/// When it is readable, take calls with timeout 0 until `TIMEOUT`.
///
/// Threads: any. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_service_fd(service: *const flowmesh_service) -> i32 {
    guard_number("flowmesh_service_fd", |call| call.live::<ServiceHandle>(service)?.service.fd())
}

/// Stops serving: the host sends no more calls; what already waits can still be taken, then comes `CLOSED`. Closing
/// again does nothing.
///
/// Threads: any, also inside its own handler; whoever waits in it is woken.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_service_close(service: *mut flowmesh_service) -> flowmesh_status {
    guard("flowmesh_service_close", |call| {
        call.live::<ServiceHandle>(service)?.service.close();
        Ok(())
    })
}

/// 1 when it was closed, 0 when not, or a negative status.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_service_is_closed(service: *const flowmesh_service) -> i32 {
    guard_number("flowmesh_service_is_closed", |call| {
        Ok(i32::from(call.live::<ServiceHandle>(service)?.service.is_closed()))
    })
}

/// Closes and frees it. Requests taken from it can still be answered. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_service_free(service: *mut flowmesh_service) -> flowmesh_status {
    guard("flowmesh_service_free", |call| {
        call.free::<ServiceHandle>(service, |handle| handle.service.close())
    })
}

/// § Requests
///
/// Its payload, lent until the request is freed.
///
/// Threads: any, as for all functions of a request.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_request_payload(request: *const flowmesh_request) -> flowmesh_bytes {
    guard_value("flowmesh_request_payload", flowmesh_bytes::NONE, |call| {
        Ok(flowmesh_bytes::of(call.live::<RequestHandle>(request)?.message.payload()))
    })
}

/// The whole request as a message, for its headers, id and time; its subject is the service's name. It is lent
/// until the request is freed: do not free it. NULL, with an error, for a bad handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_request_message(
    request: *const flowmesh_request,
) -> *const flowmesh_message {
    guard_value("flowmesh_request_message", ptr::null(), |call| {
        let handle = call.live::<RequestHandle>(request)?;
        let given = handle.message_handle.get_or_init(|| {
            call.give(MessageHandle::plain(handle.message.clone())).map_or(0, |given| given as usize)
        });
        if *given == 0 {
            return Err(call.error(ErrorKind::ResourceExhausted).with("handles", "all in use"));
        }
        Ok(*given as *const flowmesh_message)
    })
}

/// Answers the request. `payload` and `headers` (`header_count` of them; NULL for none) are copied. A request is
/// answered once; it is still to be freed, unless a handler was lent it. A handler's answer goes out when the
/// handler returns `FLOWMESH_OK`.
///
/// Does not block for long: only while there is no room for the answer.
///
/// # Errors
/// `CLOSED`: it was answered before, or the mesh was closed. `TOO_LARGE`: the caller gets that error as its
/// answer. `DISCONNECTED`. `FORKED`. An answer that nobody waits for any more goes nowhere, which is no error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_request_reply(
    request: *mut flowmesh_request,
    payload: *const c_void,
    payload_bytes: usize,
    headers: *const flowmesh_header,
    header_count: usize,
) -> flowmesh_status {
    guard("flowmesh_request_reply", |call| {
        let handle = call.live::<RequestHandle>(request)?;
        // SAFETY: the arguments are as the manual asks.
        let (payload, headers) =
            unsafe { (call.bytes(payload, payload_bytes, "payload")?, call.headers(headers, header_count)?) };
        match handle.answer(call, || Ok(Reply { payload: payload.to_vec(), headers: headers.clone() }))? {
            Some(request) => request.reply(payload, &headers),
            None => Ok(()),
        }
    })
}

/// Answers that the request failed: the caller gets `HANDLER_FAILED` with `type`, a short name of the failure, and
/// `why`, a sentence.
///
/// # Errors
/// As `flowmesh_request_reply`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_request_fail(
    request: *mut flowmesh_request,
    r#type: *const c_char,
    why: *const c_char,
) -> flowmesh_status {
    guard("flowmesh_request_fail", |call| {
        let handle = call.live::<RequestHandle>(request)?;
        // SAFETY: the arguments are as the manual asks.
        let (kind, why) = unsafe { (call.text(r#type, "type")?, call.text(why, "why")?) };
        let failure = HandlerError { kind: kind.to_owned(), message: why.to_owned() };
        match handle.answer(call, || Err(failure.clone()))? {
            Some(request) => request.fail(&failure),
            None => Ok(()),
        }
    })
}

/// 1 when nobody waits for the answer any more: the caller gave up or went away, or the deadline passed. 0 when
/// somebody does, and after it was answered; or a negative status.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_request_is_cancelled(request: *const flowmesh_request) -> i32 {
    guard_number("flowmesh_request_is_cancelled", |call| {
        let handle = call.live::<RequestHandle>(request)?;
        Ok(i32::from(handle.ask(Request::is_cancelled).unwrap_or(false)))
    })
}

/// The time left until the caller's deadline, 0 when it has passed or the request was answered, or a negative
/// status.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_request_remaining_ms(request: *const flowmesh_request) -> i64 {
    guard_number("flowmesh_request_remaining_ms", |call| {
        let remaining = call.live::<RequestHandle>(request)?.ask(Request::remaining).unwrap_or_default();
        Ok(i64::try_from(remaining.as_millis()).unwrap_or(i64::MAX))
    })
}

/// Frees it. A request that was not answered fails at its caller as `HANDLER_FAILED` of type `Dropped`. NULL is
/// fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_request_free(request: *mut flowmesh_request) -> flowmesh_status {
    guard("flowmesh_request_free", |call| call.free::<RequestHandle>(request, |_| ()))
}

impl ServiceHandle {
    fn new(service: Service, mesh: &MeshHandle) -> Self {
        let name = error::c_string(service.name());
        Self { service, interrupt: mesh.interrupt, name }
    }
}

impl RequestHandle {
    fn new(message: Message, state: State) -> Self {
        Self { message, message_handle: OnceLock::new(), state: Mutex::new(state) }
    }

    /// Asks the request something, while it is there to be asked.
    fn ask<R>(&self, question: impl FnOnce(&Request) -> R) -> Option<R> {
        match &*self.state.lock() {
            State::Owned(request) => Some(question(request)),
            // SAFETY: `Loan` ends this state, under the lock, before the request ends.
            State::Lent { request, .. } => Some(question(unsafe { &**request })),
            State::Answered => None,
        }
    }

    /// Takes the right to answer: an owned request comes out, a lent one keeps `answer` for when its handler
    /// returns.
    fn answer(
        &self,
        call: Call,
        answer: impl FnOnce() -> std::result::Result<Reply, HandlerError>,
    ) -> Result<Option<Request>> {
        let mut state = self.state.lock();
        match mem::replace(&mut *state, State::Answered) {
            State::Owned(request) => Ok(Some(request)),
            State::Lent { request, answer: None } => {
                *state = State::Lent { request, answer: Some(answer()) };
                Ok(None)
            }
            answered => {
                *state = answered;
                Err(call.error(ErrorKind::Closed).with("request", "it was answered before"))
            }
        }
    }
}

impl Drop for RequestHandle {
    fn drop(&mut self) {
        if let Some(handle) = self.message_handle.get() {
            take_back(*handle as *mut flowmesh_message);
        }
    }
}

/// A request lent to a C handler by a handle that ends with the handler.
struct Loan {
    handle: *mut flowmesh_request,
    /// Keeps the handle's value when the handler frees the handle.
    live: Live<RequestHandle>,
}

impl Loan {
    fn new(call: Call, request: &Request) -> Result<Self> {
        let state = State::Lent { request: ptr::from_ref(request), answer: None };
        let handle = call.give(RequestHandle::new(request.message().clone(), state))?;
        Ok(Self { handle, live: call.live(handle)? })
    }

    /// Ends it; what the handler answered comes out.
    fn end(self) -> Option<std::result::Result<Reply, HandlerError>> {
        self.take()
    }

    fn take(&self) -> Option<std::result::Result<Reply, HandlerError>> {
        match mem::replace(&mut *self.live.state.lock(), State::Answered) {
            State::Lent { answer, .. } => answer,
            State::Owned(_) | State::Answered => None,
        }
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.take();
        take_back(self.handle);
    }
}
