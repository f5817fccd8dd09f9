//! Random steps against the same thing in plain lists.
//!
//! The lists are moved along by what goes in and by the effects that come out; every effect is checked to
//! be one that the lists allow, and between any two steps the counts must agree.
#![forbid(unsafe_code)]

use super::{
    super::{CallerKey, Effect, InstanceKey},
    DEADLINE_SLACK, Rpc, RpcLimits,
    tests::{FAR, caller, error, instance, message, name, options, who},
};
use crate::{
    clock::Moment,
    error::{Error, ErrorKind},
    wire::{Draft, Kind},
};
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

#[derive(Clone, Debug)]
enum Step {
    Serve { owner: u32, service: usize, concurrency: u32, queue: u32 },
    Unserve(usize),
    Request { owner: u32, service: usize, timeout_ms: u64 },
    Duplicate(usize),
    Respond { nth: usize, fails: bool },
    Foreign { nth: usize, owner: u32 },
    Stale(usize),
    Cancel(usize),
    OwnerGone(u32),
    Advance { ms: u64, tick: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let nth = 0usize..1000;
    prop_oneof![
        3 => (1u32..5, 0usize..2, 1u32..4, 0u32..4)
            .prop_map(|(owner, service, concurrency, queue)| Step::Serve { owner, service, concurrency, queue }),
        1 => nth.clone().prop_map(Step::Unserve),
        12 => (1u32..7, 0usize..2, 0u64..60)
            .prop_map(|(owner, service, timeout_ms)| Step::Request { owner, service, timeout_ms }),
        1 => nth.clone().prop_map(Step::Duplicate),
        8 => (nth.clone(), any::<bool>()).prop_map(|(nth, fails)| Step::Respond { nth, fails }),
        1 => (nth.clone(), 1u32..7).prop_map(|(nth, owner)| Step::Foreign { nth, owner }),
        1 => nth.clone().prop_map(Step::Stale),
        2 => nth.prop_map(Step::Cancel),
        1 => (1u32..7).prop_map(Step::OwnerGone),
        3 => (0u64..30, any::<bool>()).prop_map(|(ms, tick)| Step::Advance { ms, tick }),
    ]
}

const SERVICES: [&str; 2] = ["a", "b.c"];
const CALLS_MAX: usize = 12;

#[derive(Default)]
struct Model {
    now: Moment,
    instances: BTreeMap<InstanceKey, ModelInstance>,
    /// Calls whose caller waits.
    open: BTreeMap<CallerKey, ModelCall>,
    /// Calls instances are at whose caller does not wait.
    abandoned: BTreeMap<u64, InstanceKey>,
    numbers: BTreeSet<u64>,
    answers: BTreeMap<CallerKey, u32>,
    order: u64,
}

struct ModelInstance {
    service: usize,
    concurrency: usize,
    queue: usize,
    serving: bool,
}

struct ModelCall {
    service: usize,
    order: u64,
    deadline: Moment,
    at: Option<(InstanceKey, u64)>,
}

impl Model {
    fn outstanding(&self, key: InstanceKey) -> usize {
        self.open.values().filter(|call| call.at.is_some_and(|at| at.0 == key)).count()
            + self.abandoned.values().filter(|at| **at == key).count()
    }

    fn waiting(&self, service: usize) -> impl Iterator<Item = (&CallerKey, &ModelCall)> {
        self.open.iter().filter(move |(_, call)| call.service == service && call.at.is_none())
    }

    fn serving(&self, service: usize) -> impl Iterator<Item = (InstanceKey, &ModelInstance)> {
        let all = self.instances.iter().map(|(key, instance)| (*key, instance));
        all.filter(move |(_, instance)| instance.serving && instance.service == service)
    }

    fn with_room(&self, service: usize) -> impl Iterator<Item = usize> {
        self.serving(service)
            .map(|(key, instance)| (self.outstanding(key), instance.concurrency))
            .filter(|(outstanding, concurrency)| outstanding < concurrency)
            .map(|(outstanding, _)| outstanding)
    }

    /// Numbers with the instance that may answer each.
    fn at_work(&self) -> Vec<(u64, InstanceKey)> {
        let open = self.open.values().filter_map(|call| call.at.map(|(key, number)| (number, key)));
        open.chain(self.abandoned.iter().map(|(number, key)| (*number, *key))).collect()
    }

    /// The caller waits no more; the instance, if it has the call, keeps it.
    fn abandon(&mut self, caller: CallerKey) -> Option<(InstanceKey, u64)> {
        let at = self.open.remove(&caller).expect("it is open").at;
        if let Some((key, number)) = at {
            self.abandoned.insert(number, key);
        }
        at
    }

    fn forget_done(&mut self) {
        let busy: BTreeSet<InstanceKey> = self.at_work().into_iter().map(|(_, key)| key).collect();
        self.instances.retain(|key, instance| instance.serving || busy.contains(key));
    }

    /// A delivery must go to the instance with the fewest calls, and be the call that waited longest.
    fn deliver(&mut self, key: InstanceKey, number: u64, caller: CallerKey, remaining: Duration) {
        assert!(self.numbers.insert(number), "a number is used once");
        let call = &self.open[&caller];
        let oldest = self.waiting(call.service).map(|(_, call)| call.order).min();
        assert_eq!(oldest, Some(call.order), "first come, first served");
        assert!(!remaining.is_zero(), "its deadline has not passed");
        assert_eq!(remaining, call.deadline.since(self.now));
        assert!(self.serving(call.service).any(|(serving, _)| serving == key));
        assert_eq!(self.with_room(call.service).min(), Some(self.outstanding(key)), "the least outstanding");
        self.open.get_mut(&caller).unwrap().at = Some((key, number));
    }

    /// Follows what came out of a step that changed nothing yet but what `Step` says by itself.
    fn follow(&mut self, out: Vec<Effect>, mut answered: Option<CallerKey>) {
        let mut cancels = BTreeSet::new();
        for effect in out {
            match effect {
                Effect::Deliver { instance, call, message, remaining } => {
                    let owner = message.header().aux;
                    self.deliver(instance, call, caller(owner, message.id()), remaining);
                }
                Effect::Cancel { instance, call } => {
                    cancels.insert((instance, call));
                }
                Effect::Answer { caller, result } => {
                    *self.answers.entry(caller).or_default() += 1;
                    if answered.take_if(|answered| *answered == caller).is_some() {
                        continue;
                    }
                    let call = &self.open[&caller];
                    match result.expect_err("only the instance brings a result").kind() {
                        ErrorKind::Timeout => {
                            assert!(call.deadline <= self.now);
                            if let Some(at) = self.abandon(caller) {
                                assert!(cancels.remove(&at), "the instance was told");
                            }
                        }
                        ErrorKind::NoService => {
                            assert!(call.at.is_none() && self.serving(call.service).next().is_none());
                            self.open.remove(&caller);
                        }
                        ErrorKind::PeerGone => {
                            let (key, _) = call.at.expect("its instance is gone");
                            assert!(!self.instances.contains_key(&key));
                            self.open.remove(&caller);
                        }
                        other => panic!("{other:?}"),
                    }
                }
            }
        }
        for (key, number) in cancels {
            assert_eq!(self.abandoned.get(&number), Some(&key), "only who has the call is told");
        }
    }

    /// What must hold between any two steps.
    fn check(&mut self, rpc: &Rpc) {
        self.forget_done();
        for (service, service_name) in SERVICES.iter().enumerate() {
            let waiting = self.waiting(service).count();
            assert!(
                waiting == 0 || self.with_room(service).next().is_none(),
                "nobody waits while there is room"
            );
            let in_flight = self
                .instances
                .iter()
                .filter(|(_, instance)| instance.service == service)
                .map(|(key, _)| self.outstanding(*key) as u64)
                .sum::<u64>();
            let stats = rpc.stats().into_iter().find(|stats| stats.name == *service_name).unwrap_or_default();
            assert_eq!((stats.in_flight, stats.depth), (in_flight, waiting as u64));
            assert_eq!(stats.instances as usize, self.serving(service).count());
            for info in rpc.services().iter().filter(|info| info.name == *service_name) {
                for found in &info.instances {
                    let key = instance(found.session, found.instance as u32);
                    assert_eq!(found.outstanding as usize, self.outstanding(key));
                }
            }
        }
        assert_eq!(rpc.calls.sizes().0, self.open.len() + self.abandoned.len());
        assert_eq!(rpc.next_due(), self.open.values().map(|call| call.deadline).min());
        assert_eq!(rpc.instances.iter().count(), self.instances.len());
    }
}

proptest! {
    #[test]
    fn every_request_gets_exactly_one_answer(steps in proptest::collection::vec(step(), 1..200)) {
        let mut rpc = Rpc::new(RpcLimits { calls_per_owner: CALLS_MAX, instances_per_owner: 100 });
        let mut model = Model { now: Moment(1_000), ..Model::default() };
        let (mut next, mut asked, mut orphaned) = (0u32, BTreeSet::new(), BTreeSet::new());
        for step in steps {
            let (mut out, now) = (Vec::new(), model.now);
            let mut answered = None;
            match step {
                Step::Serve { owner, service, concurrency, queue } => {
                    next += 1;
                    let key = instance(owner, next);
                    rpc.serve(key, &name(SERVICES[service]), options(concurrency, queue), who(owner), now, &mut out)
                        .unwrap();
                    let (concurrency, queue) = (concurrency as usize, queue as usize);
                    model.instances.insert(key, ModelInstance { service, concurrency, queue, serving: true });
                }
                Step::Unserve(nth) => {
                    let serving: Vec<InstanceKey> =
                        model.instances.iter().filter(|(_, i)| i.serving).map(|(key, _)| *key).collect();
                    if let Some(key) = serving.get(nth % serving.len().max(1)) {
                        model.instances.get_mut(key).unwrap().serving = false;
                        rpc.unserve(*key, now, &mut out);
                    }
                }
                Step::Request { owner, service, timeout_ms } => {
                    next += 1;
                    let key = caller(owner, u64::from(next));
                    asked.insert(key);
                    let request = Draft { aux: owner, ..Draft::new(Kind::Request, key.call, "s", b"") }.to_message();
                    let timeout = Duration::from_millis(timeout_ms);
                    let room = model.with_room(service).next().is_some();
                    let queue: usize = model.serving(service).map(|(_, instance)| instance.queue).sum();
                    let expected = if model.serving(service).next().is_none() {
                        Some(ErrorKind::NoService)
                    } else if model.open.keys().filter(|open| open.owner == owner).count() >= CALLS_MAX {
                        Some(ErrorKind::Full)
                    } else if timeout_ms == 0 {
                        Some(ErrorKind::Timeout)
                    } else if !room && model.waiting(service).count() >= queue {
                        Some(ErrorKind::Full)
                    } else {
                        None
                    };
                    rpc.request(key, SERVICES[service], request, timeout, now, &mut out);
                    if let Some(kind) = expected {
                        prop_assert_eq!((out.len(), error(&out).kind()), (1, kind));
                        answered = Some(key);
                    } else {
                        prop_assert_eq!(out.len(), usize::from(room));
                        model.order += 1;
                        let (order, deadline) = (model.order, now + timeout);
                        model.open.insert(key, ModelCall { service, order, deadline, at: None });
                    }
                }
                Step::Duplicate(nth) => {
                    if let Some((key, _)) = model.open.iter().nth(nth % model.open.len().max(1))
                        && model.serving(model.open[key].service).next().is_some()
                    {
                        rpc.request(*key, SERVICES[model.open[key].service], message(0), FAR, now, &mut out);
                        prop_assert_eq!((out.len(), error(&out).kind()), (1, ErrorKind::Protocol));
                        out.clear();
                    }
                }
                Step::Respond { nth, fails } => {
                    let at_work = model.at_work();
                    if let Some((number, key)) = at_work.get(nth % at_work.len().max(1)) {
                        let result = if fails { Err(Error::new(ErrorKind::HandlerFailed, "s")) } else { Ok(message(0)) };
                        rpc.respond(key.owner, *number, result, now, &mut out);
                        if model.abandoned.remove(number).is_none() {
                            let found = model.open.iter().find(|(_, call)| call.at == Some((*key, *number)));
                            let caller = *found.unwrap().0;
                            let fails = fails || model.open[&caller].deadline <= now;
                            model.open.remove(&caller);
                            let Some(Effect::Answer { caller: to, result }) = out.first() else { panic!("{out:?}") };
                            prop_assert_eq!((*to, result.is_err()), (caller, fails));
                            answered = Some(caller);
                        }
                    }
                }
                Step::Foreign { nth, owner } => {
                    let at_work = model.at_work();
                    if let Some((number, key)) = at_work.get(nth % at_work.len().max(1)) && key.owner != owner {
                        rpc.respond(owner, *number, Ok(message(0)), now, &mut out);
                        prop_assert!(out.is_empty());
                    }
                }
                Step::Stale(nth) => {
                    let at_work: BTreeSet<u64> = model.at_work().into_iter().map(|(number, _)| number).collect();
                    let stale: Vec<u64> = model.numbers.difference(&at_work).copied().collect();
                    if let Some(number) = stale.get(nth % stale.len().max(1)) {
                        for owner in 1..7 { rpc.respond(owner, *number, Ok(message(0)), now, &mut out); }
                        prop_assert!(out.is_empty());
                    }
                }
                Step::Cancel(nth) => {
                    if let Some((&key, _)) = model.open.iter().nth(nth % model.open.len().max(1)) {
                        rpc.cancel(key, now, &mut out);
                        rpc.cancel(key, now, &mut out);
                        let late = model.open[&key].deadline <= now + DEADLINE_SLACK;
                        let kind = if late { ErrorKind::Timeout } else { ErrorKind::Cancelled };
                        prop_assert_eq!(error(&out).kind(), kind);
                        let told = model.abandon(key).is_some();
                        prop_assert_eq!(out.len(), 1 + usize::from(told));
                        answered = Some(key);
                    }
                }
                Step::OwnerGone(owner) => {
                    let calls: Vec<CallerKey> = model.open.keys().filter(|key| key.owner == owner).copied().collect();
                    for key in calls {
                        model.abandon(key);
                        orphaned.insert(key);
                    }
                    model.instances.retain(|key, _| key.owner != owner);
                    rpc.owner_gone(owner, now, &mut out);
                    // Told of the calls they have, then gone themselves.
                    out.retain(|effect| !matches!(effect, Effect::Cancel { instance, .. } if instance.owner == owner));
                    model.abandoned.retain(|_, key| key.owner != owner);
                }
                Step::Advance { ms, tick } => {
                    model.now = now + Duration::from_millis(ms);
                    if !tick { continue; }
                    rpc.tick(model.now, &mut out);
                }
            }
            model.follow(out, answered);
            model.check(&rpc);
        }
        // Everyone else gets an answer in the end.
        let (mut out, end) = (Vec::new(), model.now + FAR);
        model.now = end;
        rpc.tick(end, &mut out);
        model.follow(out, None);
        model.check(&rpc);
        for key in asked {
            let expected = u32::from(!orphaned.contains(&key));
            prop_assert_eq!(model.answers.get(&key).copied().unwrap_or(0), expected, "{:?}", key);
        }
        for owner in 0..7 { rpc.owner_gone(owner, end, &mut Vec::new()); }
        prop_assert_eq!((rpc.calls.sizes(), rpc.owners.len(), rpc.instances.iter().count()), ((0, 0), 0, 0));
    }
}
