//! How long a call waits, and what ends it early.

use crate::{
    guard::{Call, timeout},
    options::flowmesh_open_options,
};
use flowmesh::{Result, Wait};
use std::ffi::c_void;

/// What may end the waits of a mesh and of all that was made from it.
#[derive(Clone, Copy)]
pub(crate) enum Interrupt {
    /// Nothing.
    Never,
    /// A signal, once its handler ran.
    Signal,
    /// The program, which is asked.
    Ask { ask: unsafe extern "C" fn(*mut c_void) -> i32, context: *mut c_void },
}

// SAFETY: the manual says that the program is asked in whatever thread waits.
unsafe impl Send for Interrupt {}
// SAFETY: the manual says that the program is asked by several threads at once.
unsafe impl Sync for Interrupt {}

impl Interrupt {
    pub(crate) fn of(call: Call, options: &flowmesh_open_options) -> Result<Self> {
        match (options.interrupt, options.on_signal) {
            (None, 0) => Ok(Self::Signal),
            (None, 1) => Ok(Self::Never),
            (Some(ask), 0 | 1) => Ok(Self::Ask { ask, context: options.interrupt_context }),
            (_, other) => Err(call.invalid("on_signal", other, "it is not of enum flowmesh_on_signal")),
        }
    }

    /// Runs `wait` with a timeout as C gives it: below 0 for ever, 0 polls.
    pub(crate) fn waiting<R>(self, timeout_ms: i64, wait: impl FnOnce(&mut Wait<'_>) -> R) -> R {
        let mut interrupt = || match self {
            Self::Never => false,
            Self::Signal => Wait::is_signalled(),
            // SAFETY: the manual asks for a function that may be called with this context while the mesh lives.
            Self::Ask { ask, context } => unsafe { ask(context) != 0 },
        };
        wait(&mut Wait { timeout: timeout(timeout_ms), interrupt: Some(&mut interrupt) })
    }
}
