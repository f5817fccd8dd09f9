//! The host's table of services, their instances and the calls under way.
//!
//! A call goes to the instance with the fewest calls that has room; when none has, it waits in the
//! service's one queue, so as long as a call waits no instance has room. A call whose caller was answered
//! (its deadline passed, it was cancelled) or is gone keeps its place at the instance until the instance
//! answers or is gone: a handler that never returns keeps its own place busy and no other.
#![forbid(unsafe_code)]

use super::{
    CallerKey, Effect, InstanceKey, InstanceWho, RateLimit, ServeOptions,
    calls::{Assignment, Call, Calls, State},
    limit::TokenBucket,
    millis_up,
    slab::Slab,
};
use crate::{
    clock::Moment,
    error::{Error, ErrorKind, Result},
    name::Name,
    stats::{Histogram, InstanceInfo, ServiceInfo, ServiceStats},
    wire::Message,
};
use hashbrown::{HashMap, hash_map::Entry};
use std::{collections::VecDeque, time::Duration};

/// What one session may take up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RpcLimits {
    /// Calls one session may have under way. Default: 65,536.
    pub calls_per_owner: usize,
    /// Instances one session may have, those that still finish calls included. Default: 1024.
    pub instances_per_owner: usize,
}

impl Default for RpcLimits {
    fn default() -> Self {
        Self { calls_per_owner: 65_536, instances_per_owner: 1024 }
    }
}

/// What is counted apart from any service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RpcCounters {
    /// Calls to a name nobody serves.
    pub no_service: u64,
    /// Calls refused because their session had too many under way.
    pub over_limit: u64,
    /// Answers to calls their caller no longer waited for.
    pub late_answers: u64,
    /// Answers to calls that were over, never existed or belong to another session's instance.
    pub foreign_answers: u64,
}

/// The host's table of services, instances and calls.
#[derive(Debug, Default)]
pub struct Rpc {
    limits: RpcLimits,
    calls: Calls,
    services: Slab<Service>,
    names: HashMap<Box<str>, u32>,
    /// The service called last: most calls go to the one before them.
    last_service: u32,
    instances: Slab<Instance>,
    owners: HashMap<u32, Owner>,
    /// Counts instances, so that the one that joined last is known.
    joined: u64,
    counters: RpcCounters,
}

#[derive(Debug)]
struct Service {
    name: Name,
    /// Instances that take calls.
    seats: Vec<Seat>,
    /// Instances in all, those that only finish their calls included.
    instance_count: usize,
    /// Numbers of waiting calls, among them some that wait no more: `waiting_count` do.
    waiting: VecDeque<u64>,
    waiting_count: usize,
    queue_max: u64,
    rate: Option<RateLimit>,
    bucket: Option<TokenBucket>,
    /// Counts choices: the instance chosen longest ago wins a tie.
    turn: u64,
    idle_since: Moment,
    stats: ServiceStats,
}

/// What choosing an instance reads, close together.
#[derive(Debug)]
struct Seat {
    outstanding: u32,
    concurrency: u32,
    chosen_at: u64,
    instance: u32,
}

#[derive(Debug)]
struct Instance {
    key: InstanceKey,
    service: u32,
    /// Where it sits at its service; `None` when it takes no more calls.
    seat: Option<u32>,
    /// Numbers of the calls it is at, abandoned ones included.
    assigned: Vec<u64>,
    joined: u64,
    options: ServeOptions,
    who: InstanceWho,
    latency: Histogram,
}

/// One session, as caller and as server. Kept until it is gone: a call must not cost an allocation.
#[derive(Debug, Default)]
struct Owner {
    /// Its calls that have no answer yet.
    calls: HashMap<u64, u64>,
    /// By its own number; those that were unserved and finish their calls are in `leaving`.
    instances: HashMap<u32, u32>,
    leaving: Vec<u32>,
}

/// Services without instances whose counts are kept.
const IDLE_SERVICES_MAX: usize = 1024;
/// How far a caller's view of its deadline may be ahead of the host's: rounding to milliseconds, and scheduling.
const DEADLINE_SLACK: Duration = Duration::from_millis(5);

impl Rpc {
    /// An empty table.
    pub fn new(limits: RpcLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Adds an instance of a service; waiting calls go to it at once.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidArgument`]: see [`ServeOptions::validate`].
    /// - [`ErrorKind::AlreadyExists`]: the owner has an instance of this number.
    /// - [`ErrorKind::ResourceExhausted`]: the owner has as many as it may have.
    pub fn serve(
        &mut self,
        key: InstanceKey,
        name: &Name,
        options: ServeOptions,
        who: InstanceWho,
        now: Moment,
        out: &mut Vec<Effect>,
    ) -> Result<()> {
        options.validate()?;
        if let Some(owner) = self.owners.get(&key.owner) {
            let count = owner.instances.len() + owner.leaving.len();
            if owner.instances.contains_key(&key.id) {
                return Err(Error::new(ErrorKind::AlreadyExists, "mesh.serve").with("instance", key.id));
            }
            if count >= self.limits.instances_per_owner {
                return Err(Error::new(ErrorKind::ResourceExhausted, "mesh.serve")
                    .with("instances", count)
                    .with("limit", self.limits.instances_per_owner));
            }
        }
        let index = self.names.get(name.as_str()).copied().unwrap_or_else(|| self.add_service(name));
        self.joined += 1;
        let service = self.services.get_mut(index).expect("names hold only services that exist");
        let seat = Some(service.seats.len() as u32);
        let concurrency = options.concurrency;
        let instance = self.instances.insert(Instance {
            key,
            service: index,
            seat,
            assigned: Vec::new(),
            joined: self.joined,
            options,
            who,
            latency: Histogram::default(),
        });
        service.seats.push(Seat { outstanding: 0, concurrency, chosen_at: 0, instance });
        service.instance_count += 1;
        self.owners.entry(key.owner).or_default().instances.insert(key.id, instance);
        self.reckon(index);
        self.dispatch(index, now, out);
        Ok(())
    }

    /// Takes an instance out of its service. What it was given it may still finish; what waits goes to the
    /// other instances, or is answered with [`ErrorKind::NoService`] when there are none. Does nothing when
    /// there is no such instance.
    pub fn unserve(&mut self, key: InstanceKey, now: Moment, out: &mut Vec<Effect>) {
        let Some(owner) = self.owners.get_mut(&key.owner) else { return };
        let Some(index) = owner.instances.remove(&key.id) else { return };
        owner.leaving.push(index);
        let service = self.unseat(index);
        self.drop_if_done(index, now);
        self.turn_away(service, out);
    }

    /// Takes a call in: gives it to an instance, lets it wait, or answers it with the reason why not:
    /// - [`ErrorKind::NoService`]: nobody serves this name.
    /// - [`ErrorKind::Full`]: as many wait as the instances' `queue` allows, or the owner has as many under
    ///   way as it may have.
    /// - [`ErrorKind::RateLimited`]: with `retry_after_ms`.
    /// - [`ErrorKind::Timeout`]: `timeout` is zero.
    /// - [`ErrorKind::Protocol`]: the caller has a call of this number under way.
    pub fn request(
        &mut self,
        caller: CallerKey,
        service: &str,
        message: Message,
        timeout: Duration,
        now: Moment,
        out: &mut Vec<Effect>,
    ) {
        if let Err(error) = self.accept(caller, service, message, timeout, now, out) {
            out.push(Effect::Answer { caller, result: Err(error) });
        }
    }

    fn accept(
        &mut self,
        caller: CallerKey,
        name: &str,
        message: Message,
        timeout: Duration,
        now: Moment,
        out: &mut Vec<Effect>,
    ) -> Result<()> {
        let refuse = |kind| Error::new(kind, "mesh.call").with("service", name);
        let Some(index) = self.find(name) else {
            self.counters.no_service += 1;
            return Err(refuse(ErrorKind::NoService));
        };
        let service = self.services.get_mut(index).expect("it was found just now");
        let owner = self.owners.entry(caller.owner).or_default();
        let under_way = owner.calls.len();
        let Entry::Vacant(place) = owner.calls.entry(caller.call) else {
            return Err(refuse(ErrorKind::Protocol)
                .with("violation", "call number in use")
                .with("call", caller.call));
        };
        if under_way >= self.limits.calls_per_owner {
            self.counters.over_limit += 1;
            return Err(refuse(ErrorKind::Full)
                .with("calls", under_way)
                .with("limit", self.limits.calls_per_owner));
        }
        if timeout.is_zero() {
            service.stats.timed_out += 1;
            return Err(refuse(ErrorKind::Timeout).with("timeout_ms", 0));
        }
        let seat = service.choose();
        if seat.is_none() && service.waiting_count as u64 >= service.queue_max {
            service.stats.refused += 1;
            return Err(refuse(ErrorKind::Full)
                .with("waiting", service.waiting_count)
                .with("queue_limit", service.queue_max));
        }
        if let Some(Err(wait)) = service.bucket.as_mut().map(|bucket| bucket.take(now)) {
            service.stats.rate_limited += 1;
            return Err(refuse(ErrorKind::RateLimited).with("retry_after_ms", millis_up(wait)));
        }
        service.stats.calls += 1;
        service.stats.request_bytes += message.payload().len() as u64;
        let number = self.calls.insert(caller, index, now, now + timeout, message);
        place.insert(number);
        match seat {
            Some(seat) => self.assign(number, index, seat, now, out),
            None => {
                service.waiting.push_back(number);
                service.waiting_count += 1;
            }
        }
        Ok(())
    }

    /// Takes an answer from an instance's session. One to a call that is over, or that was given to another
    /// session, is counted and changes nothing. One after the deadline comes too late, even if nobody has
    /// noticed the deadline yet: a handler that stops because time is up does not race with it.
    pub fn respond(
        &mut self,
        instance_owner: u32,
        call: u64,
        result: Result<Message>,
        now: Moment,
        out: &mut Vec<Effect>,
    ) {
        let Some((assignment, open)) = self.assignment(call, instance_owner) else {
            self.counters.foreign_answers += 1;
            return;
        };
        let service = self.leave_instance(assignment);
        if open {
            let overdue = self.calls.get(call).filter(|held| held.deadline <= now).map(Call::timeout);
            let (caller, started) = self.close(call);
            let service = self.services.get_mut(service).expect("an instance's service exists");
            let took = now.since(started);
            let result = overdue.map_or(result, |timeout| Err(timed_out(&service.name, timeout)));
            match &result {
                _ if overdue.is_some() => service.stats.timed_out += 1,
                Ok(message) => service.stats.response_bytes += message.payload().len() as u64,
                Err(_) => service.stats.failed += 1,
            }
            service.stats.latency.record(took);
            if let Some(instance) = self.instances.get_mut(assignment.instance) {
                instance.latency.record(took);
            }
            out.push(Effect::Answer { caller, result });
        } else {
            self.counters.late_answers += 1;
            self.calls.settle(call, State::Free);
        }
        self.drop_if_done(assignment.instance, now);
        self.dispatch(service, now, out);
    }

    /// The caller no longer wants the result: answers it with [`ErrorKind::Cancelled`] and tells the
    /// instance. Does nothing when the call is over.
    ///
    /// A caller that gives up as the deadline passes saw it pass a moment before the host: that is a timeout.
    pub fn cancel(&mut self, caller: CallerKey, now: Moment, out: &mut Vec<Effect>) {
        let number = self.owners.get(&caller.owner).and_then(|owner| owner.calls.get(&caller.call));
        let Some(&number) = number else { return };
        if self.calls.get(number).is_some_and(|call| call.deadline <= now + DEADLINE_SLACK) {
            return self.time_out(number, out);
        }
        let name = self.abandon(number, |stats| stats.cancelled += 1, out);
        let error = Error::new(ErrorKind::Cancelled, "mesh.call").with("service", name);
        out.push(Effect::Answer { caller, result: Err(error) });
    }

    /// A session has ended: its calls are cancelled without an answer, its instances leave, and whoever
    /// waits for one of them is answered with [`ErrorKind::PeerGone`].
    ///
    /// To be told once for every session, since a session is remembered until then.
    pub fn owner_gone(&mut self, owner: u32, now: Moment, out: &mut Vec<Effect>) {
        let Some(gone) = self.owners.get(&owner) else { return };
        let mut calls: Vec<(u64, u64)> = gone.calls.iter().map(|(&call, &number)| (call, number)).collect();
        calls.sort_unstable();
        for (_, number) in calls {
            self.abandon(number, |stats| stats.cancelled += 1, out);
        }
        let gone = self.owners.remove(&owner).unwrap_or_default();
        let mut instances: Vec<u32> = gone.instances.into_values().chain(gone.leaving).collect();
        instances.sort_unstable();
        for &index in &instances {
            self.unseat(index);
        }
        for index in instances {
            let Some(instance) = self.instances.remove(index) else { continue };
            for &number in &instance.assigned {
                self.peer_gone(number, &instance, out);
            }
            self.left(instance.service, now);
            self.turn_away(instance.service, out);
        }
    }

    /// Answers the calls whose deadline has passed with [`ErrorKind::Timeout`] and tells their instances.
    pub fn tick(&mut self, now: Moment, out: &mut Vec<Effect>) {
        while let Some(number) = self.calls.overdue(now) {
            self.time_out(number, out);
        }
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn next_due(&self) -> Option<Moment> {
        self.calls.next_due()
    }

    /// The services with instances, by name.
    pub fn services(&self) -> Vec<ServiceInfo> {
        let served = self.services.iter().filter(|(_, service)| !service.seats.is_empty());
        let mut all: Vec<ServiceInfo> = served
            .map(|(_, service)| ServiceInfo {
                name: service.name.to_string(),
                instances: service.seats.iter().filter_map(|seat| self.instance_info(seat)).collect(),
            })
            .collect();
        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        for service in &mut all {
            service.instances.sort_unstable_by_key(|instance| instance.instance);
        }
        all
    }

    fn instance_info(&self, seat: &Seat) -> Option<InstanceInfo> {
        let instance = self.instances.get(seat.instance)?;
        let nanos = |q| u64::try_from(instance.latency.quantile(q).as_nanos()).unwrap_or(u64::MAX);
        Some(InstanceInfo {
            instance: u64::from(instance.key.owner) << 32 | u64::from(instance.key.id),
            version: instance.options.version.clone(),
            session: instance.key.owner,
            pid: instance.who.pid,
            client: instance.who.client.clone(),
            outstanding: seat.outstanding,
            concurrency: seat.concurrency,
            latency_p50_ns: nanos(0.5),
            latency_p99_ns: nanos(0.99),
        })
    }

    /// The counts of all services, by name; those without instances are kept for a while.
    pub fn stats(&self) -> Vec<ServiceStats> {
        let mut in_flight: HashMap<u32, u64> = HashMap::new();
        for (_, instance) in self.instances.iter() {
            *in_flight.entry(instance.service).or_default() += instance.assigned.len() as u64;
        }
        let mut all: Vec<ServiceStats> = self
            .services
            .iter()
            .map(|(index, service)| ServiceStats {
                name: service.name.to_string(),
                instances: service.seats.len() as u32,
                in_flight: in_flight.get(&index).copied().unwrap_or(0),
                depth: service.waiting_count as u64,
                ..service.stats.clone()
            })
            .collect();
        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// What is counted apart from any service.
    pub fn counters(&self) -> &RpcCounters {
        &self.counters
    }

    /// A service that takes calls.
    #[inline]
    fn find(&mut self, name: &str) -> Option<u32> {
        let is_it = |service: &Service| service.name.as_str() == name;
        if !self.services.get(self.last_service).is_some_and(is_it) {
            self.last_service = *self.names.get(name)?;
        }
        let service = self.services.get(self.last_service)?;
        (!service.seats.is_empty()).then_some(self.last_service)
    }

    fn add_service(&mut self, name: &Name) -> u32 {
        let idle = || self.services.iter().filter(|(_, service)| service.instance_count == 0);
        if idle().count() >= IDLE_SERVICES_MAX
            && let Some((oldest, _)) = idle().min_by_key(|(_, service)| service.idle_since)
            && let Some(service) = self.services.remove(oldest)
        {
            self.names.remove(service.name.as_str());
        }
        let index = self.services.insert(Service {
            name: name.clone(),
            seats: Vec::new(),
            instance_count: 0,
            waiting: VecDeque::new(),
            waiting_count: 0,
            queue_max: 0,
            rate: None,
            bucket: None,
            turn: 0,
            idle_since: Moment(0),
            stats: ServiceStats::default(),
        });
        self.names.insert(name.as_str().into(), index);
        index
    }

    /// Works out a service's queue and rate after its instances have changed.
    fn reckon(&mut self, index: u32) {
        let Some(service) = self.services.get_mut(index) else { return };
        let instances = || service.seats.iter().filter_map(|seat| self.instances.get(seat.instance));
        service.queue_max = instances().map(|instance| u64::from(instance.options.queue)).sum();
        let newest = instances()
            .filter(|instance| instance.options.rate.is_some())
            .max_by_key(|instance| instance.joined);
        let rate = newest.and_then(|instance| instance.options.rate);
        // The same rate again keeps its bucket: coming and going must not fill it.
        if rate != service.rate {
            service.rate = rate;
            service.bucket = rate.map(TokenBucket::new);
        }
    }

    /// Gives waiting calls to instances with room, first come first served.
    #[inline]
    fn dispatch(&mut self, index: u32, now: Moment, out: &mut Vec<Effect>) {
        while let Some(service) = self.services.get_mut(index)
            && service.waiting_count > 0
            && let Some(seat) = service.choose()
            && let Some(number) = service.waiting.pop_front()
        {
            match self.calls.get(number) {
                None => {}
                Some(call) if call.deadline <= now => self.time_out(number, out),
                Some(_) => {
                    service.waiting_count -= 1;
                    self.assign(number, index, seat, now, out);
                }
            }
        }
    }

    /// Gives a waiting call to the instance in this seat.
    #[inline]
    fn assign(&mut self, number: u64, service: u32, seat: usize, now: Moment, out: &mut Vec<Effect>) {
        let Some(service) = self.services.get_mut(service) else { return };
        let seat = &mut service.seats[seat];
        let Some(instance) = self.instances.get_mut(seat.instance) else { return };
        let Some(call) = self.calls.get_mut(number) else { return };
        let assignment = Assignment { instance: seat.instance, position: instance.assigned.len() as u32 };
        let State::Waiting(message) = std::mem::replace(&mut call.state, State::Assigned(assignment)) else {
            return;
        };
        service.turn += 1;
        seat.chosen_at = service.turn;
        seat.outstanding += 1;
        instance.assigned.push(number);
        let remaining = call.deadline.since(now);
        out.push(Effect::Deliver { instance: instance.key, call: number, message, remaining });
    }

    /// Where a call of this session's instances lies, and whether its caller still waits.
    #[inline]
    fn assignment(&self, number: u64, instance_owner: u32) -> Option<(Assignment, bool)> {
        let (assignment, open) = match self.calls.get(number)?.state {
            State::Assigned(assignment) => (assignment, true),
            State::Abandoned(assignment) => (assignment, false),
            State::Free | State::Waiting(_) => return None,
        };
        (self.instances.get(assignment.instance)?.key.owner == instance_owner).then_some((assignment, open))
    }

    /// Takes a call off its instance's list; returns the service.
    #[inline]
    fn leave_instance(&mut self, from: Assignment) -> u32 {
        let instance =
            self.instances.get_mut(from.instance).expect("an instance outlives the calls given to it");
        instance.assigned.swap_remove(from.position as usize);
        if let Some(&moved) = instance.assigned.get(from.position as usize)
            && let Some(call) = self.calls.get_mut(moved)
            && let State::Assigned(at) | State::Abandoned(at) = &mut call.state
        {
            at.position = from.position;
        }
        if let Some(seat) = instance.seat
            && let Some(service) = self.services.get_mut(instance.service)
        {
            service.seats[seat as usize].outstanding -= 1;
        }
        instance.service
    }

    /// Forgets a call whose caller gets its answer now.
    #[inline]
    fn close(&mut self, number: u64) -> (CallerKey, Moment) {
        let call = self.calls.get(number).expect("the call was found just now");
        let (caller, started) = (call.caller, call.started);
        if let Some(owner) = self.owners.get_mut(&caller.owner) {
            owner.calls.remove(&caller.call);
        }
        self.calls.settle(number, State::Free);
        (caller, started)
    }

    /// Forgets the caller of a call that has no answer: it waits no more, or its instance is told and keeps
    /// it until it answers. Returns the service's name.
    fn abandon(&mut self, number: u64, count: impl FnOnce(&mut ServiceStats), out: &mut Vec<Effect>) -> Name {
        let call = self.calls.get(number).expect("callers hold only calls under way");
        let (caller, index) = (call.caller, call.service);
        if let Some(owner) = self.owners.get_mut(&caller.owner) {
            owner.calls.remove(&caller.call);
        }
        let service = self.services.get_mut(index).expect("a call's service exists");
        count(&mut service.stats);
        let name = service.name.clone();
        if let State::Assigned(assignment) = call.state {
            self.calls.settle(number, State::Abandoned(assignment));
            if let Some(instance) = self.instances.get(assignment.instance) {
                out.push(Effect::Cancel { instance: instance.key, call: number });
            }
        } else {
            self.calls.settle(number, State::Free);
            service.waiting_count -= 1;
            if service.waiting.len() > 2 * service.waiting_count + 64 {
                let calls = &self.calls;
                service.waiting.retain(|number| calls.get(*number).is_some());
            }
        }
        name
    }

    fn time_out(&mut self, number: u64, out: &mut Vec<Effect>) {
        let Some(call) = self.calls.get(number) else { return };
        let (caller, timeout) = (call.caller, call.timeout());
        let name = self.abandon(number, |stats| stats.timed_out += 1, out);
        out.push(Effect::Answer { caller, result: Err(timed_out(&name, timeout)) });
    }

    /// Ends a call whose instance is gone.
    fn peer_gone(&mut self, number: u64, instance: &Instance, out: &mut Vec<Effect>) {
        if !self.calls.get(number).is_some_and(Call::is_open) {
            self.calls.settle(number, State::Free);
            return;
        }
        let (caller, _) = self.close(number);
        let mut error = Error::new(ErrorKind::PeerGone, "mesh.call");
        if let Some(service) = self.services.get_mut(instance.service) {
            service.stats.peer_gone += 1;
            error = error.with("service", &service.name);
        }
        let result = Err(error.with("pid", instance.who.pid).with("client", &instance.who.client));
        out.push(Effect::Answer { caller, result });
    }

    /// Takes an instance's seat away; returns its service.
    fn unseat(&mut self, index: u32) -> u32 {
        let instance = self.instances.get_mut(index).expect("owners hold only instances that exist");
        let service_index = instance.service;
        if let Some(seat) = instance.seat.take()
            && let Some(service) = self.services.get_mut(service_index)
        {
            service.seats.swap_remove(seat as usize);
            if let Some(moved) = service.seats.get(seat as usize)
                && let Some(moved) = self.instances.get_mut(moved.instance)
            {
                moved.seat = Some(seat);
            }
            self.reckon(service_index);
        }
        service_index
    }

    /// Forgets an instance that was unserved and has finished its calls.
    fn drop_if_done(&mut self, index: u32, now: Moment) {
        let Some(instance) = self.instances.get(index) else { return };
        if instance.seat.is_some() || !instance.assigned.is_empty() {
            return;
        }
        let (owner, service) = (instance.key.owner, instance.service);
        if let Some(owner) = self.owners.get_mut(&owner) {
            owner.leaving.retain(|leaving| *leaving != index);
        }
        self.instances.remove(index);
        self.left(service, now);
    }

    fn left(&mut self, service: u32, now: Moment) {
        if let Some(service) = self.services.get_mut(service) {
            service.instance_count -= 1;
            service.idle_since = now;
        }
    }

    /// Answers what waits for a service that has no instances any more.
    fn turn_away(&mut self, index: u32, out: &mut Vec<Effect>) {
        let Some(service) = self.services.get_mut(index).filter(|service| service.seats.is_empty()) else {
            return;
        };
        service.waiting_count = 0;
        for number in std::mem::take(&mut service.waiting) {
            if self.calls.get(number).is_none() {
                continue;
            }
            self.counters.no_service += 1;
            let (caller, _) = self.close(number);
            let name = self.services.get(index).map(|service| service.name.to_string()).unwrap_or_default();
            let error = Error::new(ErrorKind::NoService, "mesh.call").with("service", name);
            out.push(Effect::Answer { caller, result: Err(error) });
        }
    }
}

impl Service {
    /// The seat with the fewest calls among those with room.
    #[inline]
    fn choose(&self) -> Option<usize> {
        let with_room = self.seats.iter().enumerate().filter(|(_, seat)| seat.outstanding < seat.concurrency);
        with_room.min_by_key(|(_, seat)| (seat.outstanding, seat.chosen_at)).map(|(index, _)| index)
    }
}

fn timed_out(service: &Name, timeout: Duration) -> Error {
    Error::new(ErrorKind::Timeout, "mesh.call")
        .with("service", service)
        .with("timeout_ms", timeout.as_millis())
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Draft, Kind};
    use std::collections::BTreeSet;

    pub(super) const FAR: Duration = Duration::from_secs(30);

    pub(super) fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    pub(super) fn message(id: u64) -> Message {
        Draft::new(Kind::Request, id, "s", b"payload").to_message()
    }

    pub(super) fn caller(owner: u32, call: u64) -> CallerKey {
        CallerKey { owner, call }
    }

    pub(super) fn instance(owner: u32, id: u32) -> InstanceKey {
        InstanceKey { owner, id }
    }

    pub(super) fn who(pid: u32) -> InstanceWho {
        InstanceWho { pid, client: format!("client-{pid}") }
    }

    pub(super) fn options(concurrency: u32, queue: u32) -> ServeOptions {
        ServeOptions { concurrency, queue, ..ServeOptions::default() }
    }

    fn serve(rpc: &mut Rpc, key: InstanceKey, options: ServeOptions) -> Vec<Effect> {
        let mut out = Vec::new();
        rpc.serve(key, &name("s"), options, who(key.owner), Moment(0), &mut out).unwrap();
        out
    }

    fn request(rpc: &mut Rpc, caller: CallerKey, now: Moment) -> Vec<Effect> {
        let mut out = Vec::new();
        rpc.request(caller, "s", message(caller.call), FAR, now, &mut out);
        out
    }

    fn respond(rpc: &mut Rpc, owner: u32, call: u64) -> Vec<Effect> {
        let mut out = Vec::new();
        rpc.respond(owner, call, Ok(message(call)), Moment(0), &mut out);
        out
    }

    fn delivered(effects: &[Effect]) -> (InstanceKey, u64) {
        match effects {
            [Effect::Deliver { instance, call, .. }] => (*instance, *call),
            other => panic!("one delivery, not {other:?}"),
        }
    }

    pub(super) fn error(effects: &[Effect]) -> &Error {
        match effects.last() {
            Some(Effect::Answer { result: Err(error), .. }) => error,
            other => panic!("an error, not {other:?}"),
        }
    }

    #[test]
    fn calls_spread_over_instances_and_wait_when_none_has_room() {
        let mut rpc = Rpc::default();
        for owner in 1..=3 {
            serve(&mut rpc, instance(owner, 0), options(2, 1));
        }
        let first: Vec<u32> =
            (0..6).map(|call| delivered(&request(&mut rpc, caller(9, call), Moment(0))).0.owner).collect();
        assert_eq!(first, [1, 2, 3, 1, 2, 3]);
        for call in 6..9 {
            assert!(request(&mut rpc, caller(9, call), Moment(0)).is_empty(), "it waits");
        }
        let full = request(&mut rpc, caller(9, 9), Moment(0));
        assert_eq!((error(&full).kind(), error(&full).get("queue_limit")), (ErrorKind::Full, Some("3")));
        let stats = rpc.stats();
        assert_eq!((stats[0].in_flight, stats[0].depth, stats[0].refused), (6, 3, 1));
    }

    #[test]
    fn idle_instances_take_turns() {
        let mut rpc = Rpc::default();
        for owner in 1..=3 {
            serve(&mut rpc, instance(owner, 0), options(2, 1));
        }
        for call in 0..30 {
            let (key, number) = delivered(&request(&mut rpc, caller(9, call), Moment(0)));
            assert_eq!(u64::from(key.owner), call % 3 + 1);
            respond(&mut rpc, key.owner, number);
        }
    }

    #[test]
    fn the_next_free_instance_takes_the_call_that_waited_longest() {
        let mut rpc = Rpc::default();
        serve(&mut rpc, instance(1, 0), options(1, 8));
        let (_, number) = delivered(&request(&mut rpc, caller(9, 0), Moment(0)));
        request(&mut rpc, caller(9, 1), Moment(0));
        request(&mut rpc, caller(9, 2), Moment(0));
        let out = serve(&mut rpc, instance(2, 0), options(1, 8));
        assert!(matches!(&out[..], [Effect::Deliver { message, .. }] if message.id() == 1), "{out:?}");
        let out = respond(&mut rpc, 1, number);
        assert!(
            matches!(&out[..], [Effect::Answer { caller: to, result: Ok(_) }, Effect::Deliver { message, .. }]
                if *to == caller(9, 0) && message.id() == 2),
            "{out:?}"
        );
    }

    #[test]
    fn only_the_session_that_has_the_call_answers_it_and_only_once() {
        let mut rpc = Rpc::default();
        serve(&mut rpc, instance(1, 0), options(1, 8));
        let (_, number) = delivered(&request(&mut rpc, caller(9, 0), Moment(0)));
        for (owner, call) in [(2, number), (1, number + 1), (1, number ^ 1 << 32), (1, 0), (1, u64::MAX)] {
            assert!(respond(&mut rpc, owner, call).is_empty());
        }
        assert_eq!(respond(&mut rpc, 1, number).len(), 1);
        assert!(respond(&mut rpc, 1, number).is_empty());
        let (_, next) = delivered(&request(&mut rpc, caller(9, 1), Moment(0)));
        assert_eq!(next as u32, number as u32, "the place is used again");
        assert!(respond(&mut rpc, 1, number).is_empty(), "under its old number nothing is found");
        assert_eq!(rpc.counters().foreign_answers, 7);
    }

    #[test]
    fn a_deadline_answers_the_caller_and_keeps_only_that_place_busy() {
        let mut rpc = Rpc::default();
        serve(&mut rpc, instance(1, 0), options(2, 8));
        let (_, hung) = delivered(&request(&mut rpc, caller(9, 0), Moment(1)));
        assert_eq!(rpc.next_due(), Some(Moment(1) + FAR));
        let mut out = Vec::new();
        rpc.tick(Moment(0) + FAR, &mut out);
        assert!(out.is_empty());
        rpc.tick(Moment(1) + FAR, &mut out);
        assert!(matches!(out[0], Effect::Cancel { call, .. } if call == hung));
        assert_eq!((error(&out).kind(), error(&out).get("timeout_ms")), (ErrorKind::Timeout, Some("30000")));
        assert_eq!(error(&out).get("service"), Some("s"));
        assert_eq!(rpc.next_due(), None);
        for call in 1..20 {
            let (_, number) = delivered(&request(&mut rpc, caller(9, call), Moment(2) + FAR));
            assert!(request(&mut rpc, caller(8, call), Moment(2) + FAR).is_empty(), "one place is left");
            respond(&mut rpc, 1, number);
            rpc.cancel(caller(8, call), Moment(0), &mut Vec::new());
            let late = rpc.calls.sizes().0;
            assert_eq!(late, 2, "the hung call and the one just cancelled");
            let cancelled = rpc.instances.get(0).unwrap().assigned[1];
            respond(&mut rpc, 1, cancelled);
        }
        assert!(respond(&mut rpc, 1, hung).is_empty());
        assert_eq!((rpc.counters().late_answers, rpc.stats()[0].in_flight), (20, 0));
    }

    #[test]
    fn a_dead_instance_is_named_to_its_callers() {
        let mut rpc = Rpc::default();
        serve(&mut rpc, instance(7, 0), options(1, 8));
        request(&mut rpc, caller(9, 0), Moment(0));
        request(&mut rpc, caller(9, 1), Moment(0));
        let mut out = Vec::new();
        rpc.owner_gone(7, Moment(0), &mut out);
        let kinds: Vec<ErrorKind> = out.chunks(1).map(|effect| error(effect).kind()).collect();
        assert_eq!(kinds, [ErrorKind::PeerGone, ErrorKind::NoService]);
        let gone = error(&out[..1]);
        assert_eq!(
            (gone.get("pid"), gone.get("client"), gone.get("service")),
            (Some("7"), Some("client-7"), Some("s"))
        );
        assert_eq!(error(&request(&mut rpc, caller(9, 2), Moment(0))).kind(), ErrorKind::NoService);
        assert_eq!((rpc.stats()[0].peer_gone, rpc.stats()[0].instances, rpc.services().len()), (1, 0, 0));
        assert_eq!((rpc.calls.sizes(), rpc.counters().no_service), ((0, 0), 2));
    }

    #[test]
    fn an_unserved_instance_finishes_what_it_has() {
        let mut rpc = Rpc::default();
        serve(&mut rpc, instance(1, 0), options(1, 8));
        let (_, number) = delivered(&request(&mut rpc, caller(9, 0), Moment(0)));
        request(&mut rpc, caller(9, 1), Moment(0));
        let mut out = Vec::new();
        rpc.unserve(instance(1, 0), Moment(0), &mut out);
        assert_eq!((out.len(), error(&out).kind()), (1, ErrorKind::NoService), "what waited");
        // Its number may be used for another instance at once.
        serve(&mut rpc, instance(1, 0), options(1, 8));
        let (_, other) = delivered(&request(&mut rpc, caller(9, 2), Moment(0)));
        assert!(matches!(&respond(&mut rpc, 1, number)[..], [Effect::Answer { result: Ok(_), .. }]));
        assert!(matches!(&respond(&mut rpc, 1, other)[..], [Effect::Answer { result: Ok(_), .. }]));
        assert_eq!(rpc.instances.iter().count(), 1);
        rpc.unserve(instance(1, 0), Moment(0), &mut out);
        rpc.unserve(instance(1, 0), Moment(0), &mut out);
        assert_eq!((rpc.instances.iter().count(), out.len()), (0, 1));
    }

    #[test]
    fn refusals_name_their_reason() {
        let mut rpc = Rpc::new(RpcLimits { calls_per_owner: 2, instances_per_owner: 1 });
        let rate = Some(RateLimit { per_second: 2.0, burst: 2 });
        serve(&mut rpc, instance(1, 0), ServeOptions { rate, ..options(9, 9) });
        let mut out = Vec::new();
        let mut add = |id, options| {
            rpc.serve(instance(1, id), &name("s"), options, who(1), Moment(0), &mut out).unwrap_err()
        };
        assert_eq!(add(0, options(1, 1)).kind(), ErrorKind::AlreadyExists);
        assert_eq!(add(1, options(0, 1)).kind(), ErrorKind::InvalidArgument);
        let error_found = add(1, options(1, 1));
        assert_eq!((error_found.kind(), error_found.get("limit")), (ErrorKind::ResourceExhausted, Some("1")));

        rpc.request(caller(9, 1), "s", message(1), Duration::ZERO, Moment(0), &mut out);
        assert_eq!(error(&out).kind(), ErrorKind::Timeout);
        delivered(&request(&mut rpc, caller(9, 1), Moment(0)));
        assert_eq!(error(&request(&mut rpc, caller(9, 1), Moment(0))).kind(), ErrorKind::Protocol);
        delivered(&request(&mut rpc, caller(9, 2), Moment(0)));
        let full = request(&mut rpc, caller(9, 3), Moment(0));
        assert_eq!((error(&full).kind(), error(&full).get("limit")), (ErrorKind::Full, Some("2")));
        let limited = request(&mut rpc, caller(8, 1), Moment(1));
        assert_eq!(
            (error(&limited).kind(), error(&limited).get("retry_after_ms")),
            (ErrorKind::RateLimited, Some("500"))
        );
        delivered(&request(&mut rpc, caller(8, 1), Moment(500_000_001)));
        let stats = &rpc.stats()[0];
        assert_eq!((stats.calls, stats.rate_limited, stats.request_bytes), (3, 1, 21));
        assert_eq!(rpc.counters().over_limit, 1);
    }

    #[test]
    fn an_instance_that_comes_back_does_not_fill_the_bucket() {
        let mut rpc = Rpc::default();
        let rate = Some(RateLimit { per_second: 1.0, burst: 1 });
        serve(&mut rpc, instance(1, 0), ServeOptions { rate, ..options(9, 9) });
        delivered(&request(&mut rpc, caller(9, 1), Moment(5)));
        serve(&mut rpc, instance(2, 0), ServeOptions { rate, ..options(9, 9) });
        rpc.owner_gone(1, Moment(6), &mut Vec::new());
        assert_eq!(error(&request(&mut rpc, caller(9, 2), Moment(7))).kind(), ErrorKind::RateLimited);
        serve(&mut rpc, instance(3, 0), options(9, 9));
        assert_eq!(error(&request(&mut rpc, caller(9, 2), Moment(7))).kind(), ErrorKind::RateLimited);
        rpc.owner_gone(2, Moment(6), &mut Vec::new());
        delivered(&request(&mut rpc, caller(9, 2), Moment(7)));
    }

    #[test]
    fn an_answer_or_a_cancellation_at_the_deadline_is_a_timeout_whoever_notices_first() {
        let mut rpc = Rpc::default();
        serve(&mut rpc, instance(1, 0), options(2, 8));
        let (_, late) = delivered(&request(&mut rpc, caller(9, 0), Moment(1)));
        let mut out = Vec::new();
        rpc.respond(1, late, Ok(message(0)), Moment(1) + FAR, &mut out);
        assert_eq!((out.len(), error(&out).kind()), (1, ErrorKind::Timeout));
        delivered(&request(&mut rpc, caller(9, 1), Moment(1)));
        out.clear();
        rpc.cancel(caller(9, 1), Moment(0) + FAR, &mut out);
        assert_eq!(error(&out).kind(), ErrorKind::Timeout);
        assert_eq!((rpc.stats()[0].timed_out, rpc.stats()[0].cancelled), (2, 0));
    }

    #[test]
    fn long_deadlines_of_finished_calls_are_forgotten() {
        let mut rpc = Rpc::default();
        serve(&mut rpc, instance(1, 0), options(4, 8));
        // One call stays on top of the heap all the time.
        let mut out = Vec::new();
        rpc.request(caller(8, 0), "s", message(0), Duration::from_secs(1), Moment(0), &mut out);
        for call in 0..100_000 {
            let (_, number) = delivered(&request(&mut rpc, caller(9, call), Moment(call)));
            assert_eq!(respond(&mut rpc, 1, number).len(), 1);
        }
        let (calls, deadlines) = rpc.calls.sizes();
        assert!(calls == 1 && deadlines < 100, "{calls} {deadlines}");
    }

    #[test]
    fn cancelled_waiting_calls_are_forgotten() {
        let mut rpc = Rpc::default();
        serve(&mut rpc, instance(1, 0), options(1, 8));
        request(&mut rpc, caller(9, 0), Moment(0));
        for call in 1..10_000 {
            assert!(request(&mut rpc, caller(9, call), Moment(0)).is_empty());
            let mut out = Vec::new();
            rpc.cancel(caller(9, call), Moment(0), &mut out);
            assert_eq!((out.len(), error(&out).kind()), (1, ErrorKind::Cancelled));
        }
        assert!(rpc.services.get(0).unwrap().waiting.len() < 100);
        assert_eq!(rpc.stats()[0].cancelled, 9_999);
    }

    #[test]
    fn counts_of_services_nobody_serves_are_kept_for_a_while() {
        let mut rpc = Rpc::default();
        let mut out = Vec::new();
        for number in 0..2 * IDLE_SERVICES_MAX as u64 {
            let service = name(&format!("s{number}"));
            rpc.serve(instance(1, 0), &service, options(1, 1), who(1), Moment(number), &mut out).unwrap();
            rpc.unserve(instance(1, 0), Moment(number), &mut out);
        }
        let kept: BTreeSet<String> = rpc.stats().into_iter().map(|stats| stats.name).collect();
        assert_eq!((kept.len(), rpc.names.len()), (IDLE_SERVICES_MAX, IDLE_SERVICES_MAX));
        assert!(kept.contains("s2047") && !kept.contains("s1000"));
    }

    #[test]
    fn discovery_lists_instances() {
        let mut rpc = Rpc::default();
        serve(&mut rpc, instance(2, 5), ServeOptions { version: "2.0".into(), ..options(3, 8) });
        serve(&mut rpc, instance(1, 5), options(1, 8));
        let (_, number) = delivered(&request(&mut rpc, caller(9, 0), Moment(0)));
        let mut out = Vec::new();
        rpc.respond(2, number, Ok(message(0)), Moment(5000), &mut out);
        let services = rpc.services();
        let found: Vec<_> =
            services[0].instances.iter().map(|i| (i.instance, i.version.as_str(), i.pid)).collect();
        assert_eq!(found, [(1 << 32 | 5, "", 1), (2 << 32 | 5, "2.0", 2)]);
        assert_eq!(services[0].instances[1].latency_p50_ns, 5000);
        assert_eq!(rpc.stats()[0].latency.count(), 1);
    }
}
