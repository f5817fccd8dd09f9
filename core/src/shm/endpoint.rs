//! The ring's two ends over real regions: which region is whose, and sleeping.

use super::region::{ReaderMap, WriterMap};
use super::ring::{self, Region};
use super::waiting::{OwnWaiting, WaitingWord};
use crate::os::futex::{self, Wait};
use std::sync::Arc;
use std::time::Duration;

/// The writing end of this process's ring. Take one per session.
pub type Producer = ring::Producer<WriterMap, ReaderMap, WaitingWord>;

/// The reading end of the peer's ring. Take one per session.
pub type Consumer = ring::Consumer<WriterMap, ReaderMap>;

/// Says whether this process sleeps.
pub type WaitingWriter = ring::WaitingWriter<OwnWaiting>;

impl Producer {
    /// The producer of a fresh session: nothing has been published yet.
    pub fn attach(own: Arc<WriterMap>, peer: Arc<ReaderMap>, waiting: WaitingWord) -> Self {
        let start = own.start_cursor();
        Self::new(own, peer, waiting, start)
    }

    /// Wakes the peer's thread that sleeps on this ring, for [`super::Ring::Leader`].
    pub fn wake_leader(&mut self) {
        if futex::wake(&self.own.words().produced.event, 1, false) == 0 {
            self.rang_in_vain();
        }
    }

    /// Sleeps until the peer frees space, at most `timeout`. After [`Producer::want_space`] said no.
    ///
    /// `Changed`, without a sleep, if the peer has freed space since. One thread at a time: the peer wakes one.
    pub fn wait_space(&self, timeout: Option<Duration>) -> Wait {
        match self.event_to_sleep_on() {
            Some(event) => futex::wait(&self.peer.words().consumed.event, event, timeout, false),
            None => Wait::Changed,
        }
    }
}

impl Consumer {
    /// The consumer of a fresh session: nothing has been consumed yet.
    pub fn attach(own: Arc<WriterMap>, peer: Arc<ReaderMap>) -> Self {
        // Both regions of a session begin at the same cursor; ours is the one the host vouches for.
        let start = own.start_cursor();
        Self::new(own, peer, start)
    }

    /// Sleeps until the peer publishes, at most `timeout`. After `WaitingWriter::arm` with `Mode::Leader`.
    ///
    /// `Changed`, without a sleep, if there is something to drain: this is the last look that the protocol
    /// asks for. A peer can end the sleep whenever it likes, so look again after it.
    pub fn sleep(&self, timeout: Option<Duration>) -> Wait {
        match self.event_to_sleep_on() {
            Some(event) => futex::wait(&self.peer.words().produced.event, event, timeout, false),
            None => Wait::Changed,
        }
    }

    /// Wakes this process's own thread in [`Consumer::sleep`], if it sleeps already. The word does not
    /// change, so a thread that is about to sleep is missed: kick again, or let the sleep have a limit.
    pub fn wake_sleeper(&self) -> bool {
        futex::wake(&self.peer.words().produced.event, 1, false) > 0
    }

    /// Wakes the peer's thread that sleeps for space on this ring, after [`ring::Consumer::space_ring`].
    /// False if none slept: the peer may wait in another way, so ring its poller.
    pub fn wake_space(&mut self) -> bool {
        let woke = futex::wake(&self.own.words().consumed.event, 1, false) > 0;
        if !woke {
            self.answered_in_vain();
        }
        woke
    }

    /// A handle that wakes the sleeper from another thread, without the consumer.
    pub fn waker(&self) -> SleeperWaker {
        SleeperWaker(Arc::clone(&self.peer))
    }
}

/// Wakes a thread of this process that sleeps in `Consumer::sleep`.
#[derive(Clone, Debug)]
pub struct SleeperWaker(Arc<ReaderMap>);

impl SleeperWaker {
    /// As [`Consumer::wake_sleeper`].
    pub fn wake(&self) -> bool {
        futex::wake(&self.0.words().produced.event, 1, false) > 0
    }
}

const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<Producer>();
    is_send::<Consumer>();
    is_send::<WaitingWriter>();
};
