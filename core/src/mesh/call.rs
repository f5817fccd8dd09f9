//! Calls under way.
#![forbid(unsafe_code)]

use super::{
    backend::Backend,
    wait::{Mailbox, ReadySet, Wait},
};
use crate::sync::lock::Mutex;
use crate::{
    error::{Error, ErrorKind, Result},
    rpc::Breaker,
    sync::{AtomicBool, Ordering},
    wire::Message,
};
use std::{os::fd::RawFd, sync::Arc};

/// Where a call's result will lie.
#[derive(Debug, Default)]
pub(super) enum CallState {
    #[default]
    Waiting,
    Done(Result<Message>),
    Taken,
}

impl CallState {
    pub(super) fn take(&mut self) -> Option<Result<Message>> {
        match self {
            Self::Waiting => None,
            Self::Done(_) => match std::mem::replace(self, Self::Taken) {
                Self::Done(result) => Some(result),
                _ => None,
            },
            Self::Taken => {
                Some(Err(Error::new(ErrorKind::Closed, "call.wait").with("reason", "the result was taken")))
            }
        }
    }
}

/// Gives a call its result, unless it has one; whether it took it.
pub(super) fn complete(mailbox: &Mailbox<CallState>, result: Result<Message>) -> bool {
    let mut waits = false;
    mailbox.put(|state| {
        waits = matches!(state, CallState::Waiting);
        if waits {
            *state = CallState::Done(result);
        }
        waits
    });
    waits
}

/// A call whose result has not been taken yet. Dropping it cancels the call.
pub struct PendingCall {
    pub(super) call: u64,
    pub(super) mailbox: Arc<Mailbox<CallState>>,
    pub(super) backend: Arc<dyn Backend>,
    pub(super) breaker: Option<Arc<Mutex<Breaker>>>,
    pub(super) flags: CallFlags,
}

/// How far a pending call got, as its handle knows.
#[derive(Debug, Default)]
pub(super) struct CallFlags {
    /// The result was taken.
    done: AtomicBool,
    /// The breaker was told.
    observed: AtomicBool,
}

impl std::fmt::Debug for PendingCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PendingCall").field("call", &self.call).finish_non_exhaustive()
    }
}

impl PendingCall {
    /// Waits for the result. It can be taken once.
    ///
    /// # Errors
    /// The call's own error; [`Timeout`](ErrorKind::Timeout) or [`Interrupted`](ErrorKind::Interrupted) when
    /// this wait ended before the call did, which can then be waited for again.
    pub fn wait(&self, wait: &mut Wait<'_>) -> Result<Message> {
        let result = self.mailbox.wait("call.wait", wait, CallState::take)?;
        self.finish(&result);
        result
    }

    /// The result, if it is there.
    pub fn try_take(&self) -> Option<Result<Message>> {
        if let Err(forked) = self.backend.engine().origin.check("call.try_take") {
            return Some(Err(forked));
        }
        let result = match self.mailbox.take(CallState::take)? {
            Ok(result) => result,
            Err(error) => Err(error),
        };
        self.finish(&result);
        Some(result)
    }

    fn finish(&self, result: &Result<Message>) {
        // Relaxed: a flag of this handle alone.
        self.flags.done.store(true, Ordering::Relaxed);
        self.observe(result);
    }

    /// Tells the breaker how the call ended, once.
    pub(super) fn observe(&self, result: &Result<Message>) {
        // Relaxed: a flag of this handle alone.
        if !self.flags.observed.swap(true, Ordering::Relaxed)
            && let Some(breaker) = &self.breaker
        {
            breaker.lock().observe(result, self.backend.engine().coarse_now());
        }
    }

    /// Gives the call up: its result becomes [`Cancelled`](ErrorKind::Cancelled), and its handler is told.
    pub fn cancel(&self) {
        if self.backend.engine().origin.is_here() {
            self.backend.cancel_call(self.call);
        }
    }

    /// A descriptor that is readable when the result is there. Poll it; never read, write or close it.
    ///
    /// # Errors
    /// [`ResourceExhausted`](ErrorKind::ResourceExhausted) when the descriptor table is full.
    pub fn fd(&self) -> Result<RawFd> {
        self.backend.engine().origin.check("call.fd")?;
        self.mailbox.fd(|state| matches!(state, CallState::Done(_)))
    }

    /// Queues `token` in `set` when the result is there.
    pub fn watch(&self, set: &ReadySet, token: u64) {
        self.mailbox.watch(set, token, |state| matches!(state, CallState::Done(_)));
    }

    /// Ends [`watch`](Self::watch).
    pub fn unwatch(&self) {
        self.mailbox.unwatch();
    }
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        // Relaxed: a flag of this handle alone.
        if !self.flags.done.load(Ordering::Relaxed) && self.backend.engine().origin.is_here() {
            self.backend.cancel_call(self.call);
            self.observe(&Err(Error::new(ErrorKind::Cancelled, "mesh.call")));
        }
    }
}
