//! What one environment has open, by number.
#![forbid(unsafe_code)]

use crate::{
    jobs::{Jobs, Made},
    js::{Link, Scratch},
    pack::{self, Extra},
    queues::Pending,
};
use flowmesh::{
    Delivery, Error, ErrorKind, Job, Mesh, Message, PendingCall, Queue, ReadySet, Request, Result, Service,
    Subscription, Wait,
};
use std::{
    cell::{Cell, OnceCell, RefCell, RefMut},
    collections::{HashMap, VecDeque},
    time::Duration,
};

/// One environment's objects. Lives and is used on that environment's thread.
#[derive(Default)]
pub(crate) struct State {
    running: OnceCell<Running>,
    last_id: Cell<u64>,
    pub(crate) meshes: Table<Mesh>,
    pub(crate) subscriptions: Table<Subscribed>,
    pub(crate) services: Table<Served>,
    pub(crate) requests: Table<Request>,
    pub(crate) calls: Table<PendingCall>,
    pub(crate) queues: Table<Queue>,
    /// Jobs that this environment has.
    pub(crate) leases: Table<Job>,
    /// Answers of queues that are not there yet.
    pub(crate) replies: Table<Pending>,
    tokens: RefCell<Vec<u64>>,
}

struct Running {
    link: Link,
    ready: ReadySet,
    jobs: Jobs,
}

impl State {
    /// Begins to work with the TypeScript layer that `link` leads to.
    pub(crate) fn begin(&self, link: Link) -> Result<()> {
        let wake = link.wake.clone();
        let ready = ReadySet::with_wake(move || wake.ring());
        let jobs = Jobs::new(link.wake.clone());
        let running = Running { link, ready, jobs };
        self.running.set(running).map_err(|_| Error::new(ErrorKind::AlreadyExists, "node.start"))
    }

    fn running(&self) -> Result<&Running> {
        self.running.get().ok_or_else(|| Error::new(ErrorKind::Closed, "node.start"))
    }

    /// The way back to the TypeScript layer.
    pub(crate) fn link(&self) -> Result<&Link> {
        Ok(&self.running()?.link)
    }

    /// The memory through which batches travel.
    pub(crate) fn scratch(&self) -> Result<RefMut<'_, Scratch>> {
        Ok(self.link()?.scratch.borrow_mut())
    }

    pub(crate) fn jobs(&self) -> Result<&Jobs> {
        Ok(&self.running()?.jobs)
    }

    pub(crate) fn ready(&self) -> Result<&ReadySet> {
        Ok(&self.running()?.ready)
    }

    /// A number no object had before.
    pub(crate) fn new_id(&self) -> u64 {
        self.last_id.set(self.last_id.get() + 1);
        self.last_id.get()
    }

    /// Writes the numbers of what became ready, as doubles, and returns how many. What does not fit comes
    /// the next time.
    pub(crate) fn take_ready(&self) -> Result<usize> {
        let running = self.running()?;
        let mut tokens = self.tokens.borrow_mut();
        running.jobs.take_ended(&mut tokens);
        running.ready.drain(&mut tokens);
        let mut scratch = running.link.scratch.borrow_mut();
        let room = scratch.bytes().chunks_exact_mut(8);
        let count = tokens.len().min(room.len());
        for (token, place) in tokens.drain(..count).zip(room) {
            place.copy_from_slice(&(token as f64).to_le_bytes());
        }
        Ok(count)
    }

    /// Puts what job `id` made where its number is looked up.
    pub(crate) fn settle(&self, id: u64, made: Made) -> Result<Option<String>> {
        let ready = self.ready()?;
        match made {
            Made::Mesh(mesh) => self.meshes.insert(id, mesh),
            Made::Subscription(subscription) => {
                subscription.watch(ready, id);
                self.subscriptions.insert(id, Subscribed::new(subscription));
            }
            Made::Service(service) => {
                service.watch(ready, id);
                self.services.insert(id, Served { service, held: None });
            }
            Made::Call(call) => self.calls.insert(id, call),
            Made::Reply(reply) => self.replies.insert(id, Pending::told(reply)),
            Made::Text(text) => return Ok(Some(text)),
            Made::Nothing => {}
        }
        Ok(None)
    }

    /// Closes everything: the environment is going away.
    pub(crate) fn close(&self) {
        if let Some(running) = self.running.get() {
            running.link.wake.close();
            running.jobs.close();
        }
        self.calls.take_all();
        self.replies.take_all();
        self.leases.take_all();
        self.queues.take_all();
        self.requests.take_all();
        self.subscriptions.take_all();
        self.services.take_all();
        for mesh in self.meshes.take_all() {
            mesh.close();
        }
    }
}

/// Objects of one kind by number.
pub(crate) struct Table<T>(RefCell<HashMap<u64, T>>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<T> Table<T> {
    pub(crate) fn insert(&self, id: u64, object: T) {
        self.0.borrow_mut().insert(id, object);
    }

    /// Does something with object `id`.
    ///
    /// # Errors
    /// - `Closed`: there is none any more.
    pub(crate) fn with<R>(
        &self,
        id: u64,
        operation: &'static str,
        act: impl FnOnce(&mut T) -> Result<R>,
    ) -> Result<R> {
        match self.0.borrow_mut().get_mut(&id) {
            Some(object) => act(object),
            None => Err(Error::new(ErrorKind::Closed, operation)),
        }
    }

    /// Takes object `id` out.
    pub(crate) fn take(&self, id: u64) -> Option<T> {
        self.0.borrow_mut().remove(&id)
    }

    fn take_all(&self) -> Vec<T> {
        self.0.borrow_mut().drain().map(|(_, object)| object).collect()
    }
}

/// Records for JavaScript.
pub(crate) enum Batch {
    /// In the memory given, `used` bytes of them; `more` may wait.
    Packed { used: usize, more: bool },
    /// One that is too large for that memory.
    Large(Message, Extra),
}

/// A subscription and what it gave that JavaScript has not finished with.
pub(crate) struct Subscribed {
    pub(crate) subscription: Subscription,
    /// Taken from the subscription, no room yet in the batch.
    held: VecDeque<Delivery>,
    taken: Vec<Delivery>,
    /// Given out, and may still be reported as failed.
    kept: HashMap<u64, Delivery>,
    /// The last one given out, when the others are not kept.
    last: Option<(u64, Delivery)>,
    /// The subject of the record before.
    subject: String,
}

impl Subscribed {
    fn new(subscription: Subscription) -> Self {
        let (held, taken, kept) = (VecDeque::new(), Vec::new(), HashMap::new());
        Self { subscription, held, taken, kept, last: None, subject: String::new() }
    }

    /// Writes at most `max` waiting events to `out`, each with a key. All are kept under it, or the last.
    ///
    /// # Errors
    /// What the subscription ended with, when no event is left.
    pub(crate) fn drain(
        &mut self,
        max: usize,
        keep: bool,
        out: &mut [u8],
        mut new_key: impl FnMut() -> u64,
    ) -> Result<Batch> {
        let (mut used, mut count) = (0, 0);
        while count < max {
            match self.fill(max - count) {
                Ok(true) => {}
                Ok(false) => return Ok(Batch::Packed { used, more: false }),
                // It comes again when the events before it are taken.
                Err(_) if count > 0 => break,
                Err(error) => return Err(error),
            }
            while let Some(delivery) = self.held.front() {
                let same_subject = delivery.message.subject() == self.subject;
                let mut extra = Extra { same_subject, gap: delivery.gap, count: delivery.attempt, key: 0 };
                let fits = pack::record_bytes(&delivery.message, extra) <= out.len() - used;
                if !fits && count > 0 {
                    return Ok(Batch::Packed { used, more: true });
                }
                extra.key = new_key();
                let message = delivery.message.clone();
                let given = self.held.pop_front().map(|delivery| (extra.key, delivery));
                if keep {
                    self.kept.extend(given);
                } else {
                    self.last = given;
                }
                if !same_subject {
                    message.subject().clone_into(&mut self.subject);
                }
                if !fits {
                    return Ok(Batch::Large(message, extra));
                }
                used += pack::write(&message, extra, &mut out[used..]);
                count += 1;
            }
        }
        Ok(Batch::Packed { used, more: true })
    }

    /// Takes at most `wanted` events from the subscription unless some are held; tells whether any are.
    fn fill(&mut self, wanted: usize) -> Result<bool> {
        if self.held.is_empty() {
            self.held.extend(self.subscription.try_receive()?);
            let more = wanted.min(STEP) - 1;
            if more > 0 && !self.held.is_empty() {
                match self.subscription.receive_many(more, &mut Wait::poll(), &mut self.taken) {
                    Ok(_) => self.held.extend(self.taken.drain(..)),
                    Err(error) if error.kind() == ErrorKind::Timeout => {}
                    // What was taken is given first.
                    Err(_) => {}
                }
            }
        }
        Ok(!self.held.is_empty())
    }

    /// The event kept under `key`, with the subscription to report its failure to.
    pub(crate) fn take_kept(&mut self, key: u64) -> Option<(Subscription, Delivery)> {
        let last = || self.last.take_if(|(last, _)| *last == key).map(|(_, delivery)| delivery);
        Some((self.subscription.clone(), self.kept.remove(&key).or_else(last)?))
    }
}

/// A service of this environment.
pub(crate) struct Served {
    pub(crate) service: Service,
    /// Taken, no room in the batch.
    held: Option<Request>,
}

impl Served {
    /// Waits at most `moment` for a request. Meanwhile nothing is announced to `ready`.
    pub(crate) fn linger(&mut self, moment: Duration, ready: &ReadySet, id: u64) -> bool {
        self.service.unwatch();
        self.held = self.held.take().or_else(|| self.service.next(&mut Wait::timeout(moment)).ok());
        // What comes from here on, and an end that came meanwhile, are announced.
        self.service.watch(ready, id);
        self.held.is_some()
    }

    /// Writes at most `max` waiting requests to `out` and puts each into `requests`.
    pub(crate) fn next(
        &mut self,
        max: usize,
        out: &mut [u8],
        requests: &Table<Request>,
        mut new_key: impl FnMut() -> u64,
    ) -> Result<Batch> {
        let (mut used, mut count) = (0, 0);
        while count < max {
            let request = match self.held.take() {
                Some(request) => request,
                None => match self.service.try_next() {
                    Ok(Some(request)) => request,
                    Ok(None) => return Ok(Batch::Packed { used, more: false }),
                    Err(_) if count > 0 => break,
                    Err(error) => return Err(error),
                },
            };
            let left_ms = u32::try_from(request.remaining().as_millis()).unwrap_or(u32::MAX);
            let extra = Extra { same_subject: false, gap: 0, count: left_ms, key: new_key() };
            let fits = pack::record_bytes(request.message(), extra) <= out.len() - used;
            if !fits && count > 0 {
                self.held = Some(request);
                break;
            }
            let message = request.message().clone();
            requests.insert(extra.key, request);
            if !fits {
                return Ok(Batch::Large(message, extra));
            }
            used += pack::write(&message, extra, &mut out[used..]);
            count += 1;
        }
        Ok(Batch::Packed { used, more: true })
    }
}

/// The answer of a call for JavaScript; `None` when there is none yet.
pub(crate) fn take_answer(call: &PendingCall, out: &mut [u8]) -> Result<Option<Batch>> {
    call.try_take().transpose().map(|answer| answer.map(|message| pack_answer(message, out)))
}

/// The same, when it comes within `moment`.
pub(crate) fn await_answer(call: &PendingCall, moment: Duration, out: &mut [u8]) -> Result<Option<Batch>> {
    match call.wait(&mut Wait::timeout(moment)) {
        Ok(message) => Ok(Some(pack_answer(message, out))),
        // The call's own end at its deadline is told by another operation.
        Err(error) if error.kind() == ErrorKind::Timeout && error.operation() == "call.wait" => Ok(None),
        Err(error) => Err(error),
    }
}

fn pack_answer(message: Message, out: &mut [u8]) -> Batch {
    let extra = Extra::default();
    if pack::record_bytes(&message, extra) > out.len() {
        return Batch::Large(message, extra);
    }
    Batch::Packed { used: pack::write(&message, extra, out), more: false }
}

/// Events taken from a subscription at once: what does not fit the batch waits here, where no time to live
/// and no priority is looked at any more.
const STEP: usize = 64;
