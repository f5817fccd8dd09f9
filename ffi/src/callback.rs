//! C functions that the library calls: handlers, and what tidies up behind them.

use crate::{error::recorded_failure, flowmesh_status};
use flowmesh::HandlerError;
use std::ffi::c_void;

/// Tidies up a handler's context: called exactly once, whatever happens, after the last call of the handler has
/// returned. That may be in any thread, and after the function that freed the handle has returned.
pub type flowmesh_drop = Option<unsafe extern "C" fn(context: *mut c_void)>;

/// A C handler's context, and the function that tidies it up.
pub(crate) struct Context {
    pointer: *mut c_void,
    drop: flowmesh_drop,
}

// SAFETY: the manual says that a context is used and tidied up in other threads than the one it came from.
unsafe impl Send for Context {}
// SAFETY: the manual says that a service's handler runs in several threads at once.
unsafe impl Sync for Context {}

impl Context {
    pub(crate) fn new(pointer: *mut c_void, drop: flowmesh_drop) -> Self {
        Self { pointer, drop }
    }

    pub(crate) fn pointer(&self) -> *mut c_void {
        self.pointer
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if let Some(drop) = self.drop {
            // SAFETY: the manual asks for a function that may be called with this context, once.
            unsafe { drop(self.pointer) };
        }
    }
}

/// What a handler that returned `status`, not OK, tells whoever waits for it.
pub(crate) fn failure(status: flowmesh_status) -> HandlerError {
    let (kind, message) = recorded_failure(status)
        .unwrap_or_else(|| ("Status".to_owned(), format!("the handler returned {status}")));
    HandlerError { kind, message }
}
