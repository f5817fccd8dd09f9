//! Services: where calls arrive.
#![forbid(unsafe_code)]

use super::{
    backend::{Answer, Backend},
    engine::Engine,
    options::HandlerError,
    wait::{Mailbox, ReadySet, Wait},
};
use crate::sync::lock::Mutex;
use crate::{
    clock::Moment,
    error::{Error, ErrorKind, Result},
    name::Name,
    rpc::ServeOptions,
    sync::{AtomicBool, Ordering},
    wire::{Draft, Message},
};
use std::{collections::VecDeque, os::fd::RawFd, sync::Arc, time::Duration};

/// The requests that wait for one instance in this process.
#[derive(Debug)]
pub(super) struct ServiceInbox {
    pub(super) id: u32,
    pub(super) name: Name,
    pub(super) mailbox: Mailbox<VecDeque<Arrived>>,
    /// More than this many never wait here: a host keeps the others.
    pub(super) concurrency: usize,
    pub(super) over: AtomicBool,
}

/// A request as it arrived.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) call: u64,
    pub(super) message: Message,
    pub(super) deadline: Moment,
    pub(super) cancelled: Arc<CancelFlag>,
}

/// Tells a handler that nobody waits for its result any more.
#[derive(Debug, Default)]
pub(super) struct CancelFlag {
    cancelled: AtomicBool,
    watch: Mutex<Option<(ReadySet, u64)>>,
}

impl CancelFlag {
    pub(super) fn cancel(&self) {
        if !self.cancelled.swap(true, Ordering::AcqRel)
            && let Some((set, token)) = self.watch.lock().take()
        {
            set.push(token);
        }
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Queues `token` in `set` when it is cancelled.
    pub(super) fn watch(&self, set: &ReadySet, token: u64) {
        let mut watch = self.watch.lock();
        if self.is_cancelled() {
            drop(watch);
            set.push(token);
        } else {
            *watch = Some((set.clone(), token));
        }
    }
}

impl ServiceInbox {
    pub(super) fn new(engine: &Arc<Engine>, id: u32, name: &Name, options: &ServeOptions) -> Arc<Self> {
        Arc::new(Self {
            id,
            name: name.clone(),
            mailbox: Mailbox::new(engine, VecDeque::new()),
            concurrency: options.concurrency as usize,
            over: AtomicBool::new(false),
        })
    }
}

/// An instance of a service. Dropping it ends the serving; calls it has taken can still be answered.
///
/// Any number of threads may take from one instance; each call goes to one of them. The host gives it at
/// most `concurrency` calls at once.
#[derive(Clone)]
pub struct Service(Arc<Owned>);

struct Owned {
    inbox: Arc<ServiceInbox>,
    backend: Arc<dyn Backend>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("name", &self.0.inbox.name).finish_non_exhaustive()
    }
}

impl Service {
    pub(super) fn new(backend: Arc<dyn Backend>, inbox: Arc<ServiceInbox>) -> Self {
        Self(Arc::new(Owned { inbox, backend }))
    }

    /// The service's name.
    pub fn name(&self) -> &str {
        self.0.inbox.name.as_str()
    }

    /// Waits for the next call.
    ///
    /// # Errors
    /// [`Timeout`](ErrorKind::Timeout), [`Closed`](ErrorKind::Closed), [`Disconnected`](ErrorKind::Disconnected),
    /// [`Interrupted`](ErrorKind::Interrupted), [`Forked`](ErrorKind::Forked).
    pub fn next(&self, wait: &mut Wait<'_>) -> Result<Request> {
        let arrived = self.0.inbox.mailbox.wait("service.next", wait, VecDeque::pop_front)?;
        Ok(self.request(arrived))
    }

    /// The next call, if one waits.
    ///
    /// # Errors
    /// Those of [`next`](Self::next) but for the timeout.
    pub fn try_next(&self) -> Result<Option<Request>> {
        self.0.backend.engine().origin.check("service.next")?;
        let arrived = self.0.inbox.mailbox.take(VecDeque::pop_front).transpose()?;
        Ok(arrived.map(|arrived| self.request(arrived)))
    }

    fn request(&self, arrived: Arrived) -> Request {
        Request {
            arrived,
            name: self.0.inbox.name.clone(),
            backend: Arc::clone(&self.0.backend),
            answered: false,
        }
    }

    /// For a handler's thread: does not keep the service open.
    pub(super) fn feed(&self) -> Feed {
        Feed { inbox: Arc::clone(&self.0.inbox), backend: Arc::clone(&self.0.backend) }
    }

    /// A descriptor that is readable while a call waits or the service is over. Poll it; never read, write
    /// or close it.
    ///
    /// # Errors
    /// [`ResourceExhausted`](ErrorKind::ResourceExhausted) when the descriptor table is full.
    pub fn fd(&self) -> Result<RawFd> {
        self.0.backend.engine().origin.check("service.fd")?;
        self.0.inbox.mailbox.fd(|calls| !calls.is_empty())
    }

    /// Queues `token` in `set` each time calls begin to wait. After a token, take until nothing is left.
    pub fn watch(&self, set: &ReadySet, token: u64) {
        self.0.inbox.mailbox.watch(set, token, |calls| !calls.is_empty());
    }

    /// Ends [`watch`](Self::watch).
    pub fn unwatch(&self) {
        self.0.inbox.mailbox.unwatch();
    }

    /// Ends the serving. Calls that wait here can still be taken; the host sends no more.
    pub fn close(&self) {
        self.0.close();
    }

    /// Whether it is over.
    pub fn is_closed(&self) -> bool {
        self.0.inbox.mailbox.is_closed()
    }
}

/// The calls of a service, for the thread of its handler.
pub(super) struct Feed {
    inbox: Arc<ServiceInbox>,
    backend: Arc<dyn Backend>,
}

impl Feed {
    /// Waits for the next call; `None` when the service is over.
    pub(super) fn next(&self) -> Option<Request> {
        let mut wait = Wait::forever();
        let arrived = self.inbox.mailbox.wait("service.next", &mut wait, VecDeque::pop_front).ok()?;
        let (name, backend) = (self.inbox.name.clone(), Arc::clone(&self.backend));
        Some(Request { arrived, name, backend, answered: false })
    }
}

impl Owned {
    fn close(&self) {
        // Relaxed: a flag that only keeps the second closer from asking again.
        if !self.inbox.over.swap(true, Ordering::Relaxed) {
            if self.backend.engine().check_open("service.close").is_ok() {
                self.backend.unserve(&self.inbox);
            }
            self.inbox.mailbox.close(&Error::new(ErrorKind::Closed, "service.next"));
        }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        if !self.backend.engine().origin.is_here() {
            return;
        }
        self.close();
        // Nobody will take these: their callers must not wait for it.
        let left = std::mem::take(&mut self.inbox.mailbox.lock().queue);
        for arrived in left {
            let error = Error::new(ErrorKind::PeerGone, "mesh.call").with("service", &self.inbox.name);
            let _ = self.backend.answer(arrived.call, Answer::Failure(error));
        }
    }
}

/// A call to be answered. Dropping it unanswered fails the call with `type` `Dropped`.
pub struct Request {
    arrived: Arrived,
    name: Name,
    backend: Arc<dyn Backend>,
    answered: bool,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("service", &self.name)
            .field("call", &self.arrived.call)
            .finish_non_exhaustive()
    }
}

impl Request {
    /// The service that was called.
    pub fn service(&self) -> &str {
        self.name.as_str()
    }

    /// The request: payload, headers, timestamp.
    pub fn message(&self) -> &Message {
        &self.arrived.message
    }

    /// The request's payload.
    pub fn payload(&self) -> &[u8] {
        self.arrived.message.payload()
    }

    /// Time left until the caller's deadline.
    pub fn remaining(&self) -> Duration {
        self.arrived.deadline.since(self.backend.engine().now())
    }

    /// Whether nobody waits for the result any more: the caller cancelled, died, or its deadline passed.
    pub fn is_cancelled(&self) -> bool {
        self.arrived.cancelled.is_cancelled() || self.remaining().is_zero()
    }

    /// Queues `token` in `set` when the caller gives up.
    pub fn watch_cancel(&self, set: &ReadySet, token: u64) {
        self.arrived.cancelled.watch(set, token);
    }

    /// Answers the call.
    ///
    /// # Errors
    /// - [`TooLarge`](ErrorKind::TooLarge): the payload or the headers are over their limit; the call fails
    ///   with this error.
    /// - [`Disconnected`](ErrorKind::Disconnected), [`Closed`](ErrorKind::Closed).
    pub fn reply(mut self, payload: &[u8], headers: &[(String, String)]) -> Result<()> {
        self.answered = true;
        let checked = super::check_payload(payload, self.backend.max_message_bytes(), "request.reply")
            .and_then(|()| {
                Draft::encode_headers(headers.iter().map(|(name, value)| (name, value)), "request.reply")
            });
        match checked {
            Ok(headers) => {
                self.backend.answer(self.arrived.call, Answer::Reply { payload, headers: &headers })
            }
            Err(error) => {
                self.backend.answer(self.arrived.call, Answer::Failure(error.duplicate()))?;
                Err(error)
            }
        }
    }

    /// Fails the call: its caller gets [`HandlerFailed`](ErrorKind::HandlerFailed) with this type and message.
    ///
    /// # Errors
    /// [`Disconnected`](ErrorKind::Disconnected), [`Closed`](ErrorKind::Closed).
    pub fn fail(mut self, error: &HandlerError) -> Result<()> {
        self.answered = true;
        let error = error.to_error().with("service", &self.name);
        self.backend.answer(self.arrived.call, Answer::Failure(error))
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if !self.answered && self.backend.engine().origin.is_here() {
            let error = HandlerError::new("Dropped", "the handler dropped the request without an answer");
            let error = error.to_error().with("service", &self.name);
            let _ = self.backend.answer(self.arrived.call, Answer::Failure(error));
        }
    }
}
