//! Calls under way, their numbers and their deadlines.
//!
//! A number is generation and place, so one that was used before finds nothing. Deadlines lie in a heap
//! from which settled calls are not taken out one by one: they go when they come to its top, and all at
//! once when they outnumber the others. So it stays small however many calls with long deadlines come
//! and go.
#![forbid(unsafe_code)]

use super::CallerKey;
use crate::{clock::Moment, wire::Message};
use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

/// All calls the host knows.
#[derive(Debug, Default)]
pub(super) struct Calls {
    places: Vec<Call>,
    free: Vec<u32>,
    deadlines: BinaryHeap<Reverse<(Moment, u64)>>,
    /// Calls whose deadline still matters.
    timed: usize,
}

/// One call.
#[derive(Debug)]
pub(super) struct Call {
    generation: u32,
    pub(super) state: State,
    pub(super) caller: CallerKey,
    pub(super) service: u32,
    pub(super) started: Moment,
    pub(super) deadline: Moment,
}

#[derive(Debug)]
pub(super) enum State {
    /// The place is free.
    Free,
    /// For an instance with room.
    Waiting(Message),
    /// For the answer of an instance.
    Assigned(Assignment),
    /// The caller was answered or is gone, the instance is still at it.
    Abandoned(Assignment),
}

/// Where a call lies at its instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Assignment {
    pub(super) instance: u32,
    /// In the instance's list of calls.
    pub(super) position: u32,
}

impl Calls {
    /// Takes a call in and gives it a number.
    pub(super) fn insert(
        &mut self,
        caller: CallerKey,
        service: u32,
        started: Moment,
        deadline: Moment,
        message: Message,
    ) -> u64 {
        let state = State::Waiting(message);
        let place = self.free.pop().unwrap_or_else(|| {
            u32::try_from(self.places.len()).expect("four billion calls do not fit in memory")
        });
        let mut call = Call { generation: 1, state, caller, service, started, deadline };
        match self.places.get_mut(place as usize) {
            Some(old) => {
                call.generation = old.generation;
                *old = call;
            }
            None => self.places.push(call),
        }
        let number = u64::from(self.places[place as usize].generation) << 32 | u64::from(place);
        if deadline != Moment::NEVER {
            self.timed += 1;
            self.deadlines.push(Reverse((deadline, number)));
        }
        number
    }

    /// The call of this number, unless it is over.
    #[inline]
    pub(super) fn get(&self, number: u64) -> Option<&Call> {
        self.places.get(place_of(number)).filter(|call| call.is(number))
    }

    /// The call of this number, unless it is over.
    #[inline]
    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Call> {
        self.places.get_mut(place_of(number)).filter(|call| call.is(number))
    }

    /// The deadline of this call matters no more: it leaves the states in which somebody waits for it.
    pub(super) fn settle(&mut self, number: u64, then: State) {
        let Some(call) = self.get_mut(number) else { return };
        let timed = call.deadline != Moment::NEVER && call.is_open();
        call.state = then;
        if let State::Free = call.state {
            self.free(number);
        }
        if timed {
            self.timed -= 1;
            self.trim();
        }
    }

    /// Frees the place of a call.
    fn free(&mut self, number: u64) {
        let call = &mut self.places[place_of(number)];
        call.generation = call.generation.checked_add(1).unwrap_or(1);
        self.free.push(number as u32);
    }

    /// The first call whose deadline has passed.
    pub(super) fn overdue(&self, now: Moment) -> Option<u64> {
        self.deadlines.peek().filter(|Reverse((due, _))| *due <= now).map(|Reverse((_, number))| *number)
    }

    /// The first deadline.
    pub(super) fn next_due(&self) -> Option<Moment> {
        self.deadlines.peek().map(|Reverse((due, _))| *due)
    }

    /// Forgets deadlines of settled calls: those on top, so that the top is one that matters, and all when
    /// they are the most.
    fn trim(&mut self) {
        let places = &self.places;
        let matters =
            |number: u64| places.get(place_of(number)).is_some_and(|call| call.is(number) && call.is_open());
        if self.deadlines.len() > 2 * self.timed + SLACK {
            self.deadlines.retain(|Reverse((_, number))| matters(*number));
        }
        while let Some(Reverse((_, number))) = self.deadlines.peek()
            && !matters(*number)
        {
            self.deadlines.pop();
        }
    }

    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.places.len() - self.free.len(), self.deadlines.len())
    }
}

impl Call {
    #[inline]
    fn is(&self, number: u64) -> bool {
        u64::from(self.generation) == number >> 32 && !matches!(self.state, State::Free)
    }

    /// Whether its caller waits for an answer.
    #[inline]
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Waiting(_) | State::Assigned(_))
    }

    /// How long its caller would wait.
    pub(super) fn timeout(&self) -> Duration {
        self.deadline.since(self.started)
    }
}

#[inline]
fn place_of(number: u64) -> usize {
    number as u32 as usize
}

/// Settled deadlines that may lie about before anything is done.
const SLACK: usize = 64;
