//! Events: who gets them, and what waits for whom.
//!
//! [`Bus`] is the host's table of subscriptions, [`Inbox`] what waits for one of them, [`Delayed`] what is
//! to be published later. All of it is plain state: it starts no thread, takes no lock and asks no clock,
//! and knows nothing of sessions beyond their numbers. `mesh` holds it and does what it decides.
#![forbid(unsafe_code)]

mod delayed;
mod hash;
mod inbox;
mod options;
mod route;
pub mod trie;

pub use delayed::{BYTES_MAX_DEFAULT, COUNT_MAX_DEFAULT, Delayed};
pub use inbox::{Delivery, Failed, Inbox, InboxStats, Pushed};
pub use options::{ATTEMPTS_MAX, Backoff, CAPACITY_DEFAULT, CAPACITY_MAX, OnSlow, Retry, SubscribeOptions};

use crate::{
    error::{Error, ErrorKind, Result},
    name::{Name, Pattern},
};
use route::{Route, Routes};
use std::{
    cmp::Reverse,
    collections::{HashMap, VecDeque},
};
use trie::Trie;

/// A subscription as its owner names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriptionKey {
    /// The session; 0 is the host itself.
    pub owner: u32,
    /// The owner's number for it.
    pub id: u32,
}

/// A subscription's place in the host's tables: small numbers, so that a `Vec` can be indexed by it.
///
/// A place is used again once its subscription has ended, the one that was free longest first; drop what
/// is kept under a slot when [`Bus::unsubscribe`] or [`Bus::owner_gone`] hands it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

impl Slot {
    /// As an index.
    #[inline]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One subscription.
#[derive(Debug)]
pub struct Subscription {
    /// Whose it is.
    pub key: SubscriptionKey,
    /// What it asks for.
    pub pattern: Pattern,
    /// How.
    pub options: SubscribeOptions,
}

/// The host's table of subscriptions.
#[derive(Debug)]
pub struct Bus {
    subscriptions_per_owner_max: usize,
    trie: Trie<Slot>,
    slots: Vec<Option<Subscription>>,
    free: VecDeque<Slot>,
    owners: HashMap<u32, HashMap<u32, Slot>>,
    groups: HashMap<Name, Group>,
    /// By slot: what routing reads of everyone, apart from the rest to lie close together.
    ranks: Vec<Rank>,
    /// By slot: what it reads of members of groups.
    seats: Vec<Seat>,
    /// Goes up with every change of the table; a cached route of another version counts for nothing.
    version: u64,
    routes: Routes,
    /// Counts choices among group members: the member chosen longest ago wins a tie.
    turn: u64,
    chosen: Vec<Slot>,
}

#[derive(Debug)]
struct Group {
    number: u64,
    members: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seat {
    group: Option<u64>,
    depth: u64,
    full: bool,
    chosen_at: u64,
}

/// Served first: higher priority, then the older subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    priority: Reverse<i32>,
    /// No two are equal, so what follows orders nothing.
    number: u64,
    in_group: bool,
}

const _: () = assert!(size_of::<Rank>() == 16);

/// Subscriptions one session may hold, unless the host says otherwise.
pub const SUBSCRIPTIONS_PER_OWNER_DEFAULT: usize = 65_536;

impl Default for Bus {
    fn default() -> Self {
        Self::new(SUBSCRIPTIONS_PER_OWNER_DEFAULT)
    }
}

impl Bus {
    /// An empty table in which each owner may hold this many subscriptions.
    pub fn new(subscriptions_per_owner_max: usize) -> Self {
        Self {
            subscriptions_per_owner_max,
            trie: Trie::new(),
            slots: Vec::new(),
            free: VecDeque::new(),
            owners: HashMap::new(),
            groups: HashMap::new(),
            ranks: Vec::new(),
            seats: Vec::new(),
            version: 1,
            routes: Routes::default(),
            turn: 0,
            chosen: Vec::new(),
        }
    }

    /// Adds a subscription.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidArgument`]: see [`SubscribeOptions::validate`].
    /// - [`ErrorKind::AlreadyExists`]: the owner has one of this number.
    /// - [`ErrorKind::ResourceExhausted`]: the owner has as many as it may have.
    pub fn subscribe(
        &mut self,
        key: SubscriptionKey,
        pattern: &Pattern,
        options: &SubscribeOptions,
    ) -> Result<Slot> {
        options.validate()?;
        let held = self.owners.get(&key.owner);
        if held.is_some_and(|held| held.contains_key(&key.id)) {
            return Err(Error::new(ErrorKind::AlreadyExists, "mesh.subscribe").with("subscription", key.id));
        }
        let count = held.map_or(0, HashMap::len);
        if count >= self.subscriptions_per_owner_max {
            return Err(Error::new(ErrorKind::ResourceExhausted, "mesh.subscribe")
                .with("subscriptions", count)
                .with("limit", self.subscriptions_per_owner_max));
        }
        let slot = self.free.pop_front().unwrap_or_else(|| {
            self.slots.push(None);
            self.ranks.push(Rank::default());
            self.seats.push(Seat::default());
            Slot(
                u32::try_from(self.slots.len() - 1).expect("four billion subscriptions do not fit in memory"),
            )
        });
        self.version += 1;
        let group = options.group.as_ref().map(|name| {
            // The version is new with each subscription, so it serves as a number too.
            let group = self.groups.entry(name.clone()).or_insert(Group { number: self.version, members: 0 });
            group.members += 1;
            group.number
        });
        self.ranks[slot.index()] =
            Rank { priority: Reverse(options.priority), number: self.version, in_group: group.is_some() };
        self.seats[slot.index()] = Seat { group, ..Seat::default() };
        self.owners.entry(key.owner).or_default().insert(key.id, slot);
        self.trie.insert(pattern, slot);
        self.slots[slot.index()] =
            Some(Subscription { key, pattern: pattern.clone(), options: options.clone() });
        Ok(slot)
    }

    /// Ends a subscription; `None` when there is none of this key.
    pub fn unsubscribe(&mut self, key: SubscriptionKey) -> Option<Slot> {
        let held = self.owners.get_mut(&key.owner)?;
        let slot = held.remove(&key.id)?;
        if held.is_empty() {
            self.owners.remove(&key.owner);
        }
        self.vacate(slot);
        Some(slot)
    }

    /// Ends all subscriptions of an owner, by its numbers.
    pub fn owner_gone(&mut self, owner: u32) -> Vec<(SubscriptionKey, Slot)> {
        let held = self.owners.remove(&owner).unwrap_or_default();
        let mut gone: Vec<_> =
            held.into_iter().map(|(id, slot)| (SubscriptionKey { owner, id }, slot)).collect();
        gone.sort_unstable();
        for (_, slot) in &gone {
            self.vacate(*slot);
        }
        gone
    }

    fn vacate(&mut self, slot: Slot) {
        let gone = self.slots[slot.index()].take().expect("owners and slots change together");
        self.trie.remove(&gone.pattern, slot);
        if let Some(name) = &gone.options.group
            && let Some(group) = self.groups.get_mut(name)
        {
            group.members -= 1;
            if group.members == 0 {
                self.groups.remove(name);
            }
        }
        self.free.push_back(slot);
        self.version += 1;
    }

    /// Who gets an event with this subject: higher priority first, then in the order of subscribing.
    ///
    /// Of a queue group one member is chosen: one that is not full before one that is, then the one with
    /// fewest events waiting, then the one chosen longest ago. Without groups a subject that was asked for
    /// lately costs one look into a cache, the same subject again one comparison.
    #[inline]
    pub fn route<'a>(&'a mut self, subject: &str) -> &'a [Slot] {
        let route = self.routes.get(subject, self.version, |route| {
            self.trie.matches(subject, &mut route.alone);
            if !self.groups.is_empty() {
                part(route, &self.ranks, &self.seats);
            }
            route.alone.sort_unstable_by_key(|slot| self.ranks[slot.index()]);
        });
        if route.group_ends.is_empty() {
            return &route.alone;
        }
        choose(route, &self.ranks, &mut self.seats, &mut self.turn, &mut self.chosen);
        &self.chosen
    }

    /// Tells how many events wait for a subscription and whether one more would not fit: what the choice
    /// among group members goes by.
    #[inline]
    pub fn set_depth(&mut self, slot: Slot, depth: u64, full: bool) {
        if let Some(seat) = self.seats.get_mut(slot.index()) {
            (seat.depth, seat.full) = (depth, full);
        }
    }

    /// The subscription in this place.
    #[inline]
    pub fn get(&self, slot: Slot) -> Option<&Subscription> {
        self.slots.get(slot.index())?.as_ref()
    }

    /// The place of a subscription.
    pub fn slot(&self, key: SubscriptionKey) -> Option<Slot> {
        self.owners.get(&key.owner)?.get(&key.id).copied()
    }

    /// All subscriptions, by place.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &Subscription)> {
        (0u32..).map(Slot).zip(&self.slots).filter_map(|(slot, held)| Some((slot, held.as_ref()?)))
    }

    /// How many subscriptions there are.
    pub fn len(&self) -> usize {
        self.trie.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.trie.is_empty()
    }
}

/// Puts members of groups apart, in order. Each is there once: it has one pattern.
fn part(route: &mut Route, ranks: &[Rank], seats: &[Seat]) {
    let rank = |slot: &Slot| ranks[slot.index()];
    if route.alone.iter().any(|slot| rank(slot).in_group) {
        let group = |slot: &Slot| seats[slot.index()].group;
        route.members.extend(route.alone.iter().filter(|slot| rank(slot).in_group));
        route.alone.retain(|slot| !rank(slot).in_group);
        route.members.sort_unstable_by_key(|slot| (group(slot), rank(slot)));
        let mut end = 0;
        for members in route.members.chunk_by(|a, b| group(a) == group(b)) {
            end += members.len();
            route.group_ends.push(end);
        }
    }
}

/// Those without a group and one member of each group, in the order they are served.
fn choose(route: &Route, ranks: &[Rank], seats: &mut [Seat], turn: &mut u64, chosen: &mut Vec<Slot>) {
    chosen.clear();
    chosen.extend_from_slice(&route.alone);
    let mut start = 0;
    for &end in &route.group_ends {
        let best = route.members[start..end].iter().min_by_key(|slot| {
            let seat = &seats[slot.index()];
            (seat.full, seat.depth, seat.chosen_at)
        });
        start = end;
        let Some(&best) = best else { continue };
        *turn += 1;
        seats[best.index()].chosen_at = *turn;
        let at = chosen.partition_point(|slot| ranks[slot.index()] < ranks[best.index()]);
        chosen.insert(at, best);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(owner: u32, id: u32) -> SubscriptionKey {
        SubscriptionKey { owner, id }
    }

    fn subscribe(bus: &mut Bus, key: SubscriptionKey, pattern: &str, priority: i32, group: &str) -> Slot {
        let group = (!group.is_empty()).then(|| Name::parse(group).unwrap());
        let options = SubscribeOptions { group, priority, ..SubscribeOptions::default() };
        bus.subscribe(key, &Pattern::parse(pattern).unwrap(), &options).unwrap()
    }

    #[test]
    fn higher_priority_first_then_the_older() {
        let mut bus = Bus::default();
        let slots: Vec<Slot> = [("a.*", 0), ("a.b", 5), (">", 0), ("x", 9), ("a.>", 5)]
            .iter()
            .zip(0..)
            .map(|(&(pattern, priority), id)| subscribe(&mut bus, key(1, id), pattern, priority, ""))
            .collect();
        let expected = [slots[1], slots[4], slots[0], slots[2]];
        for _ in 0..3 {
            assert_eq!(bus.route("a.b"), expected);
            assert_eq!(bus.route("y"), [slots[2]]);
        }
        assert_eq!(bus.unsubscribe(key(1, 4)), Some(slots[4]));
        assert_eq!(bus.route("a.b"), [slots[1], slots[0], slots[2]]);
        assert_eq!(bus.unsubscribe(key(1, 4)), None);
    }

    #[test]
    fn a_group_takes_turns_by_depth() {
        let mut bus = Bus::default();
        let members: Vec<Slot> =
            (0..3).map(|id| subscribe(&mut bus, key(id, 0), "jobs.>", 0, "workers")).collect();
        let alone = subscribe(&mut bus, key(9, 9), "jobs.*", -1, "");
        let mut counts = HashMap::new();
        for number in 0..300 {
            // Different subjects share one turn.
            let route = bus.route(["jobs.a", "jobs.b"][number / 7 % 2]).to_vec();
            assert_eq!((route.len(), route[1]), (2, alone));
            *counts.entry(route[0]).or_insert(0) += 1;
        }
        assert!(members.iter().all(|member| counts[member] == 100), "{counts:?}");
        bus.set_depth(members[0], 3, false);
        bus.set_depth(members[1], 1, true);
        bus.set_depth(members[2], 2, false);
        assert_eq!(bus.route("jobs.a")[0], members[2], "least depth among those that are not full");
        bus.set_depth(members[0], 9, true);
        bus.set_depth(members[2], 9, true);
        assert_eq!(bus.route("jobs.a")[0], members[1], "all are full");
    }

    #[test]
    fn limits_and_duplicates_are_refused_by_name() {
        let mut bus = Bus::new(2);
        let (pattern, options) = (Pattern::parse("a").unwrap(), SubscribeOptions::default());
        subscribe(&mut bus, key(1, 1), "a", 0, "");
        assert_eq!(
            bus.subscribe(key(1, 1), &pattern, &options).unwrap_err().kind(),
            ErrorKind::AlreadyExists
        );
        subscribe(&mut bus, key(1, 2), "a", 0, "");
        let error = bus.subscribe(key(1, 3), &pattern, &options).unwrap_err();
        assert_eq!((error.kind(), error.get("limit")), (ErrorKind::ResourceExhausted, Some("2")));
        subscribe(&mut bus, key(2, 1), "a", 0, "");
        let gone = bus.owner_gone(1);
        assert_eq!(gone.iter().map(|(key, _)| key.id).collect::<Vec<_>>(), [1, 2]);
        assert_eq!((bus.len(), bus.route("a").len(), bus.owner_gone(1).len()), (1, 1, 0));
        let slots: Vec<Slot> = (5..7).map(|id| subscribe(&mut bus, key(1, id), "a", 0, "")).collect();
        assert_eq!(
            slots,
            gone.iter().map(|(_, slot)| *slot).collect::<Vec<_>>(),
            "the first freed is used first"
        );
        assert_eq!(bus.get(slots[0]).unwrap().key, key(1, 5));
        assert_eq!(bus.slot(key(1, 6)), Some(slots[1]));
    }

    #[test]
    fn more_subjects_than_the_cache_holds_are_routed_right() {
        let mut bus = Bus::default();
        for id in 0..200 {
            subscribe(&mut bus, key(1, id), &format!("s.{id}.*"), 0, "");
        }
        for round in 0..3 {
            for number in 0..20_000 {
                let route = bus.route(&format!("s.{}.{number}", number % 400));
                assert_eq!(route.len(), usize::from(number % 400 < 200), "round {round}");
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Subscribe { owner: u32, id: u32, pattern: usize, priority: i32, group: usize },
        Unsubscribe { owner: u32, id: u32 },
        OwnerGone(u32),
        SetDepth { nth: usize, depth: u64, full: bool },
        Route(usize),
    }

    const PATTERNS: [&str; 8] = ["a", "a.b", "a.*", "*.b", "a.>", ">", "*", "c.b.>"];
    const SUBJECTS: [&str; 6] = ["a", "a.b", "a.c", "c.b", "c.b.a", "d"];
    const GROUPS: [&str; 4] = ["", "", "g", "h"];

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u32..3, 0u32..6, 0usize..8, -1i32..2, 0usize..4).prop_map(|(owner, id, pattern, priority, group)|
                Step::Subscribe { owner, id, pattern, priority, group }),
            2 => (0u32..3, 0u32..6).prop_map(|(owner, id)| Step::Unsubscribe { owner, id }),
            1 => (0u32..3).prop_map(Step::OwnerGone),
            2 => (0usize..8, 0u64..3, any::<bool>()).prop_map(|(nth, depth, full)| Step::SetDepth { nth, depth, full }),
            8 => (0usize..6).prop_map(Step::Route),
        ]
    }

    struct Model {
        key: SubscriptionKey,
        slot: Slot,
        pattern: &'static str,
        priority: i32,
        group: &'static str,
        load: (bool, u64),
        chosen_at: usize,
    }

    proptest! {
        #[test]
        fn routes_match_a_plain_list(steps in proptest::collection::vec(step(), 1..150)) {
            let mut bus = Bus::default();
            let mut model: Vec<Model> = Vec::new();
            for (turn, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Subscribe { owner, id, pattern, priority, group } => {
                        let (key, pattern, group) = (key(owner, id), PATTERNS[pattern], GROUPS[group]);
                        if model.iter().any(|held| held.key == key) { continue; }
                        let slot = subscribe(&mut bus, key, pattern, priority, group);
                        prop_assert!(model.iter().all(|held| held.slot != slot));
                        model.push(Model { key, slot, pattern, priority, group, load: (false, 0), chosen_at: 0 });
                    }
                    Step::Unsubscribe { owner, id } => {
                        let at = model.iter().position(|held| held.key == key(owner, id));
                        prop_assert_eq!(bus.unsubscribe(key(owner, id)), at.map(|at| model.remove(at).slot));
                    }
                    Step::OwnerGone(owner) => {
                        let mut gone: Vec<_> =
                            model.extract_if(.., |held| held.key.owner == owner).map(|held| (held.key, held.slot)).collect();
                        gone.sort_unstable();
                        prop_assert_eq!(bus.owner_gone(owner), gone);
                    }
                    Step::SetDepth { nth, depth, full } => {
                        if let Some(held) = model.get_mut(nth) {
                            held.load = (full, depth);
                            bus.set_depth(held.slot, depth, full);
                        }
                    }
                    Step::Route(subject) => {
                        let subject = SUBJECTS[subject];
                        let fits = |held: &Model| trie::tests::naive_match(held.pattern, subject);
                        let mut winners: Vec<usize> = (0..model.len()).filter(|&at| {
                            let held = &model[at];
                            fits(held) && (held.group.is_empty() || model.iter().all(|other| {
                                other.group != held.group || !fits(other) || other.key == held.key
                                    // Equal only where neither was ever chosen: either may go first.
                                    || (held.load, held.chosen_at) <= (other.load, other.chosen_at)
                            }))
                        }).collect();
                        let route = bus.route(subject).to_vec();
                        // Where either may go first, the bus decides.
                        winners.retain(|&at| model[at].group.is_empty() || route.contains(&model[at].slot));
                        winners.sort_by_key(|&at| Reverse(model[at].priority));
                        let expected: Vec<Slot> = winners.iter().map(|&at| model[at].slot).collect();
                        prop_assert_eq!(&route, &expected);
                        for group in ["g", "h"] {
                            let asked = model.iter().any(|held| held.group == group && fits(held));
                            let chosen = winners.iter().filter(|&&at| model[at].group == group).count();
                            prop_assert_eq!(chosen, usize::from(asked));
                        }
                        for at in winners { model[at].chosen_at = turn + 1; }
                    }
                }
                prop_assert_eq!((bus.len(), bus.iter().count()), (model.len(), model.len()));
            }
            prop_assert_eq!(bus.groups.len(), ["g", "h"].iter().filter(|g| model.iter().any(|m| m.group == **g)).count());
        }
    }
}
