//! Calling services.

use crate::{
    flowmesh_status,
    guard::{guard, guard_number},
    mesh::{MeshHandle, flowmesh_mesh},
    message::{MessageHandle, flowmesh_message},
    options::flowmesh_call_options,
    wait::Interrupt,
};
use flowmesh::PendingCall;
use std::{
    ffi::{c_char, c_void},
    ptr,
};

/// A call that was started and is waiting for its answer.
pub struct flowmesh_pending {
    _opaque: (),
}

pub(crate) struct PendingHandle {
    pending: PendingCall,
    interrupt: Interrupt,
}

/// § Calling services
///
/// Calls a service and waits for the answer. `payload` is copied. `options` may be NULL; its `timeout_ms` is the
/// call's deadline. The answer in `*reply` is the caller's to free; on failure it is NULL.
///
/// When several instances serve the name, one that has the fewest calls is chosen.
///
/// Threads: any. Blocks until the answer, at most until the deadline.
///
/// # Errors
/// `NO_SERVICE`: nobody serves the name. `TIMEOUT`: no answer in time; the handler sees that the call is
/// cancelled. `HANDLER_FAILED`: the values `type` and `message` say how. `PEER_GONE`: the instance's process ended
/// before it answered. `RATE_LIMITED`, `CIRCUIT_OPEN`: see the value `retry_after_ms`. `FULL`: too many calls wait.
/// `INTERRUPTED`: a signal came (see `on_signal`), and the call was cancelled. `TOO_LARGE`, `INVALID_ARGUMENT`,
/// `CLOSED`, `DISCONNECTED`, `FORKED`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_call(
    mesh: *mut flowmesh_mesh,
    service: *const c_char,
    payload: *const c_void,
    payload_bytes: usize,
    options: *const flowmesh_call_options,
    reply: *mut *mut flowmesh_message,
) -> flowmesh_status {
    guard("flowmesh_call", |call| {
        // SAFETY: the arguments are as the manual asks.
        let (out, service, payload, options) = unsafe {
            (
                call.out(reply, ptr::null_mut(), "reply")?,
                call.text(service, "service")?,
                call.bytes(payload, payload_bytes, "payload")?,
                call.options(options)?.read(call)?,
            )
        };
        let mesh = call.live::<MeshHandle>(mesh)?;
        let answer =
            mesh.interrupt.waiting(-1, |wait| mesh.mesh.call_with(service, payload, &options, wait))?;
        out.set(call.give(MessageHandle::plain(answer))?);
        Ok(())
    })
}

/// Starts a call and returns at once. The pending call in `*out` is the caller's to free, which cancels it when it
/// has no answer yet.
///
/// Threads: any. Blocks only while there is no room for the request.
///
/// # Errors
/// `INVALID_ARGUMENT`, `TOO_LARGE`, `CLOSED`, `DISCONNECTED`, `FORKED`; the other failures of `flowmesh_call` come
/// with the answer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_call_start(
    mesh: *mut flowmesh_mesh,
    service: *const c_char,
    payload: *const c_void,
    payload_bytes: usize,
    options: *const flowmesh_call_options,
    out: *mut *mut flowmesh_pending,
) -> flowmesh_status {
    guard("flowmesh_call_start", |call| {
        // SAFETY: the arguments are as the manual asks.
        let (out, service, payload, options) = unsafe {
            (
                call.out(out, ptr::null_mut(), "out")?,
                call.text(service, "service")?,
                call.bytes(payload, payload_bytes, "payload")?,
                call.options(options)?.read(call)?,
            )
        };
        let mesh = call.live::<MeshHandle>(mesh)?;
        let pending = mesh.mesh.start_call(service, payload, &options)?;
        out.set(call.give(PendingHandle { pending, interrupt: mesh.interrupt })?);
        Ok(())
    })
}

/// Waits for the answer, at most `timeout_ms`: below 0 for ever, which the call's own deadline ends. An answer is
/// given out once, and is the caller's to free; afterwards comes `CLOSED`.
///
/// Threads: any.
///
/// # Errors
/// Those of `flowmesh_call`. `TIMEOUT` is also returned when `timeout_ms` passed before the deadline: the call goes
/// on then. `CANCELLED`: somebody cancelled it. `INTERRUPTED`: a signal came; the call goes on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_pending_wait(
    pending: *mut flowmesh_pending,
    timeout_ms: i64,
    reply: *mut *mut flowmesh_message,
) -> flowmesh_status {
    guard("flowmesh_pending_wait", |call| {
        // SAFETY: the arguments are as the manual asks.
        let out = unsafe { call.out(reply, ptr::null_mut(), "reply") }?;
        let handle = call.live::<PendingHandle>(pending)?;
        let answer = handle.interrupt.waiting(timeout_ms, |wait| handle.pending.wait(wait))?;
        out.set(call.give(MessageHandle::plain(answer))?);
        Ok(())
    })
}

/// Takes the answer if it is there. `*done` becomes 1 when the call has ended, well or not, and 0 while it goes
/// on; `*reply` is NULL unless it ended well.
///
/// Threads: any. Does not block.
///
/// # Errors
/// The call's failure, as `flowmesh_call` names them, with `*done` 1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_pending_try(
    pending: *mut flowmesh_pending,
    done: *mut i32,
    reply: *mut *mut flowmesh_message,
) -> flowmesh_status {
    guard("flowmesh_pending_try", |call| {
        // SAFETY: the arguments are as the manual asks.
        let (done, out) = unsafe { (call.out(done, 0, "done")?, call.out(reply, ptr::null_mut(), "reply")?) };
        let handle = call.live::<PendingHandle>(pending)?;
        if let Some(ended) = handle.pending.try_take() {
            done.set(1);
            out.set(call.give(MessageHandle::plain(ended?))?);
        }
        Ok(())
    })
}

/// Cancels the call: its handler is told, and whoever waits for the answer gets `CANCELLED`. Does nothing when the
/// call has ended.
///
/// Threads: any. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_pending_cancel(pending: *mut flowmesh_pending) -> flowmesh_status {
    guard("flowmesh_pending_cancel", |call| {
        call.live::<PendingHandle>(pending)?.pending.cancel();
        Ok(())
    })
}

/// A descriptor that is readable once the call has ended, or a negative status. For `poll` and its like: do not
/// read, write or close it. It lives until the pending call is freed.
///
/// Threads: any. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_pending_fd(pending: *const flowmesh_pending) -> i32 {
    guard_number("flowmesh_pending_fd", |call| call.live::<PendingHandle>(pending)?.pending.fd())
}

/// Frees it, cancelling the call when it has not ended. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_pending_free(pending: *mut flowmesh_pending) -> flowmesh_status {
    guard("flowmesh_pending_free", |call| {
        call.free::<PendingHandle>(pending, |handle| handle.pending.cancel())
    })
}
