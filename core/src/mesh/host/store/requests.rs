//! Carrying requests out, and doing what they leave to be done.
#![forbid(unsafe_code)]

use super::*;

impl Host {
    /// Carries out what clients asked for in the frames just read.
    pub(in super::super) fn do_asked(&self, asked: &mut Vec<Asked>) -> Result<()> {
        for one in asked.drain(..) {
            match one {
                Asked::Request(session, message) => {
                    let SentRequest { request, durability } = SentRequest::decode(message.payload())?;
                    let until = match message.aux() {
                        FOR_EVER => Moment::NEVER,
                        ms => Moment(os::time::boot_ns()) + Duration::from_millis(ms.into()),
                    };
                    let to = ReplyTo { party: Party::Session(session), call: message.id(), durability };
                    self.request_for(to, request, until);
                }
                Asked::GiveUp(session, call) => self.give_up(session, call),
            }
        }
        Ok(())
    }

    /// Carries out a request whose answer is sent when it is there.
    pub(super) fn request_for(&self, to: ReplyTo, request: QueueRequest<'_>, until: Moment) {
        let Some(opened) = self.store.get() else {
            match request {
                QueueRequest::Declare { name, config } => self.declare_first(to, name.into_owned(), config),
                other => self.reply(&to, without_queues(&other)),
            }
            return;
        };
        match request {
            QueueRequest::Reserve { queue, most, lease } => {
                let options = ReserveOptions { lease };
                let waiter =
                    Waiter { queue, options, most: most as usize, until, who: Who::Call(to.clone()) };
                self.reserve_for(opened, &waiter, &to);
            }
            QueueRequest::Purge { queue, state } => self.add_chore(opened, to, queue, Errand::Purge(state)),
            QueueRequest::RedriveDead { queue, most } => {
                self.add_chore(opened, to, queue, Errand::RedriveDead(most));
            }
            request => match opened.perform(&request, to.session(), self.answer_bytes_max()) {
                Ok(outcome) => {
                    let wanted = to.durability.unwrap_or(durability_of(&request, &outcome));
                    let lsn = opened.to_wait_for(&request, outcome.lsn);
                    let reply = self.follow(opened, outcome);
                    self.finish(opened, to, reply, lsn, wanted);
                }
                Err(error) => self.reply(&to, Err(error)),
            },
        }
    }

    /// The first queue of a directory: files are made, which takes a while, so not on the thread that reads.
    fn declare_first(&self, to: ReplyTo, name: String, config: Box<QueueConfig>) {
        let (host, answer_to) = (self.me.clone(), to.clone());
        let started = os::thread::spawn("flowmesh-open", move || {
            let Some(host) = host.upgrade() else { return };
            match host.open_store() {
                Ok(_) => {
                    let request = QueueRequest::Declare { name: name.into(), config };
                    host.request_for(to, request, Moment::NEVER);
                }
                Err(error) => host.reply(&to, Err(error)),
            }
            host.settle();
        });
        if let Err(error) = started {
            self.reply(&answer_to, Err(error));
        }
    }

    fn reserve_for(&self, opened: &Arc<Opened>, waiter: &Waiter, to: &ReplyTo) {
        let waits = waiter.until > Moment(os::time::boot_ns());
        let id = if waits {
            let mut work = opened.work.lock();
            if let Err(error) = work.check_room(to.session()) {
                drop(work);
                return self.reply(to, Err(error));
            }
            Some(work.add(waiter.clone()))
        } else {
            None
        };
        match opened.reserve(to.session(), waiter, id.map(WaiterId), self.answer_bytes_max()) {
            Ok(outcome) => {
                let lsn = outcome.lsn;
                let jobs = self.follow(opened, outcome);
                if jobs.is_empty() && waits {
                    opened.wake_for_deadline(waiter.until);
                    return;
                }
                if let Some(id) = id {
                    opened.work.lock().remove(id);
                }
                self.give(opened, to.clone(), jobs, lsn);
            }
            Err(error) => {
                if let Some(id) = id {
                    opened.work.lock().remove(id);
                }
                self.reply(to, Err(error));
            }
        }
    }

    /// What jobs of one answer may take together.
    fn answer_bytes_max(&self) -> usize {
        self.config.max_message_bytes.saturating_sub(ANSWER_SLACK).max(1)
    }

    /// Sends jobs that were reserved for a call.
    fn give(&self, opened: &Arc<Opened>, to: ReplyTo, jobs: Vec<crate::queue::Job>, lsn: Lsn) {
        let wanted = to.durability.unwrap_or(Durability::Os);
        self.finish(opened, to, QueueReply::Jobs(jobs), lsn, wanted);
    }

    pub(super) fn take_back(&self, opened: &Arc<Opened>, jobs: &[crate::queue::Job]) {
        for job in jobs {
            if let Ok(outcome) = opened.queues.release(times(), job.queue, job.token) {
                self.follow(opened, outcome);
            }
        }
    }

    /// Answers once what was written is as safe as it is to be.
    pub(super) fn finish(
        &self,
        opened: &Arc<Opened>,
        to: ReplyTo,
        reply: QueueReply,
        lsn: Lsn,
        wanted: Durability,
    ) {
        if let Party::Session(session) = &to.party
            && !reply.jobs().is_empty()
            && session.dead.load(Ordering::Acquire)
        {
            return self.take_back(opened, reply.jobs());
        }
        if lsn == Lsn::NONE {
            self.reply(&to, Ok(Answered { reply, reached: None }));
        } else if wanted == Durability::Fsync {
            let mut work = opened.work.lock();
            work.parked.push(Parked { lsn, to, reply });
            let first = work.parked.len() == 1;
            drop(work);
            if first {
                opened.changed.notify_one();
            }
        } else {
            let reached = opened.ledger.sync(lsn, wanted);
            self.reply(&to, reached.map(|reached| Answered { reply, reached: Some(reached) }));
        }
    }

    /// Does what an operation left to be done, and gives its value.
    pub(super) fn follow<T>(&self, opened: &Arc<Opened>, outcome: Outcome<T>) -> T {
        let Outcome { value, due, wakes, asked, events, .. } = outcome;
        let mut wakes = VecDeque::from(wakes);
        opened.due(due);
        self.ask_back(&asked);
        self.tell(&events);
        while let Some(WaiterId(id)) = wakes.pop_front() {
            let Some(waiter) = opened.work.lock().waiters.get(&id).cloned() else { continue };
            let to = match &waiter.who {
                Who::Thread(mailbox) => {
                    mailbox.put(|woken| {
                        *woken = true;
                        true
                    });
                    continue;
                }
                Who::Call(to) => to.clone(),
            };
            let reserved = opened.reserve(to.session(), &waiter, Some(WaiterId(id)), self.answer_bytes_max());
            match reserved {
                Ok(Outcome { value: jobs, lsn, due, wakes: more, asked, events, .. }) => {
                    opened.due(due);
                    self.ask_back(&asked);
                    self.tell(&events);
                    wakes.extend(more);
                    if jobs.is_empty() {
                        continue;
                    }
                    if opened.work.lock().remove(id) {
                        self.give(opened, to, jobs, lsn);
                    } else {
                        self.take_back(opened, &jobs);
                    }
                }
                Err(error) => {
                    if opened.work.lock().remove(id) {
                        self.reply(&to, Err(error));
                    }
                }
            }
        }
        value
    }

    /// Asks workers to give jobs back.
    fn ask_back(&self, asked: &[(QueueId, WorkerId, crate::queue::Token)]) {
        for (_, worker, token) in asked {
            match u32::try_from(worker.0) {
                Ok(0) | Err(_) => self.jobs.cancel(token.nonce),
                Ok(session) => {
                    let mut state = self.state.lock();
                    if let Some(session) = state.sessions.get(&session).cloned() {
                        self.queue(&mut state, &session, &CancelJob { nonce: token.nonce }.encode());
                    }
                }
            }
        }
        if !asked.is_empty() {
            self.settle();
        }
    }

    /// Publishes what happened.
    fn tell(&self, events: &[QueueEvent]) {
        if events.is_empty() {
            return;
        }
        let content_type = [("content-type", "application/json")];
        let headers = Draft::encode_headers(content_type, "queue.event").unwrap_or_default();
        let mut state = self.state.lock();
        for event in events {
            let (subject, at) = (event.subject(), self.engine.clock.wall());
            // Nothing in it needs escaping: an id is hexadecimal.
            let payload = format!(
                r#"{{"job":"{}","attempt":{},"at":{}}}"#,
                event.event.job,
                event.event.attempt,
                at.0 / 1_000_000
            );
            let mut draft =
                Draft { headers: &headers, ..Draft::new(Kind::Event, 0, &subject, payload.as_bytes()) };
            self.stamp(&mut draft);
            // Nobody publishes it again: who is too slow for it has lost it, and is told of the gap.
            state.patience_over = true;
            let _ = self.accept_event(&mut state, draft.to_message(), 0);
            state.patience_over = false;
        }
        drop(state);
        self.settle();
    }

    /// Answers a call.
    pub(super) fn reply(&self, to: &ReplyTo, answered: Result<Answered>) {
        self.prepare_reply(to, answered);
        self.settle();
    }

    /// Answers a call once the host settles: of several answers the first does not wake who gets the others, too.
    pub(super) fn prepare_reply(&self, to: &ReplyTo, answered: Result<Answered>) {
        let mut jobs = None;
        let answered = answered.and_then(|answered| {
            let inside = !answered.reply.jobs().is_empty();
            let payload = answered.encode();
            if inside {
                jobs = Some(answered.reply);
            }
            crate::mesh::check_payload(&payload, self.config.max_message_bytes, "queue.answer")?;
            let aux = if inside { JOBS_INSIDE } else { 0 };
            let mut draft = Draft { aux, ..Draft::new(Kind::Response, to.call, "", &payload) };
            draft.timestamp = Timestamp(os::time::coarse_wall_ns());
            Ok(draft.to_message())
        });
        let failed = answered.is_err();
        let given = match &to.party {
            Party::Here(mailbox) => complete(mailbox, answered),
            Party::Session(session) => {
                let mut state = self.state.lock();
                match answered {
                    Ok(message) => {
                        let header = message.forward_header(Kind::Response, to.call, message.aux(), 0);
                        self.queue_message(&mut state, session, &header, &[], &message);
                    }
                    Err(error) => self.queue(&mut state, session, &failure(to.call, &error)),
                }
                drop(state);
                true
            }
        };
        if let (Some(reply), Some(opened), true) = (jobs, self.store.get(), failed || !given) {
            self.take_back(opened, reply.jobs());
        }
    }

    fn add_chore(&self, opened: &Arc<Opened>, to: ReplyTo, queue: QueueId, what: Errand) {
        opened.work.lock().chores.push_back(Chore { to, queue, what, done: 0, lsn: Lsn::NONE });
        opened.changed.notify_one();
    }

    /// A caller no longer waits for jobs.
    pub(in super::super) fn give_up(&self, session: u32, call: u64) {
        let Some(opened) = self.store.get() else { return };
        let mut work = opened.work.lock();
        let Some(&id) = work.by_call.get(&(session, call)) else { return };
        let queue = work.waiters.get(&id).map(|waiter| waiter.queue);
        work.remove(id);
        drop(work);
        if let Some(queue) = queue {
            self.leave(opened, queue, id);
        }
    }

    pub(super) fn leave(&self, opened: &Arc<Opened>, queue: QueueId, id: u64) {
        if let Ok(outcome) = opened.queues.leave(times(), queue, WaiterId(id)) {
            self.follow(opened, outcome);
        }
    }

    /// A client's process has ended: nothing waits for it, and what it worked on is another's.
    pub(in super::super) fn session_gone(&self, session: u32) {
        let Some(opened) = self.store.get() else { return };
        let mut gone = Vec::new();
        {
            let mut work = opened.work.lock();
            for (id, waiter) in &work.waiters {
                if matches!(&waiter.who, Who::Call(to) if to.session() == session) {
                    gone.push((*id, waiter.queue));
                }
            }
            for (id, _) in &gone {
                work.remove(*id);
            }
        }
        for (id, queue) in gone {
            self.leave(opened, queue, id);
        }
        if let Ok(outcome) = opened.queues.worker_gone(times(), WorkerId(session.into())) {
            self.follow(opened, outcome);
        }
    }

    /// Whether anybody listens to what happens in queues has changed.
    pub(in super::super) fn watch_queues(&self, watched: bool) {
        if let Some(opened) = self.store.get() {
            opened.queues.watch(watched);
        }
    }

    /// A request of this process, on the thread that makes it.
    pub(in super::super) fn request_here(
        &self,
        request: QueueRequest<'_>,
        durability: Option<Durability>,
        wait: &mut Wait<'_>,
    ) -> Result<Answered> {
        self.engine.check_open("queue.request")?;
        let opened = match (self.store.get(), &request) {
            (Some(opened), _) => opened,
            (None, QueueRequest::Declare { name, config }) => {
                Name::parse(name)?;
                config.validate()?;
                self.open_store()?
            }
            (None, other) => return without_queues(other),
        };
        let (reply, lsn, wanted) = match request {
            QueueRequest::Reserve { queue, most, lease } => {
                let options = ReserveOptions { lease };
                let (jobs, lsn) = self.reserve_here(opened, queue, options, most as usize, wait)?;
                (QueueReply::Jobs(jobs), lsn, durability.unwrap_or(Durability::Os))
            }
            QueueRequest::Purge { queue, state } => {
                self.errand_here(opened, queue, Errand::Purge(state), durability)?
            }
            QueueRequest::RedriveDead { queue, most } => {
                self.errand_here(opened, queue, Errand::RedriveDead(most), durability)?
            }
            request => {
                let outcome = opened.perform(&request, 0, usize::MAX)?;
                let wanted = durability.unwrap_or(durability_of(&request, &outcome));
                let lsn = opened.to_wait_for(&request, outcome.lsn);
                (self.follow(opened, outcome), lsn, wanted)
            }
        };
        let reached = if lsn == Lsn::NONE { None } else { Some(opened.ledger.sync(lsn, wanted)?) };
        Ok(Answered { reply, reached })
    }

    fn errand_here(
        &self,
        opened: &Arc<Opened>,
        queue: QueueId,
        what: Errand,
        durability: Option<Durability>,
    ) -> Result<(QueueReply, Lsn, Durability)> {
        let (mut done, mut lsn) = (0, Lsn::NONE);
        loop {
            let outcome = opened.slice(queue, what, done)?;
            let wanted = durability.unwrap_or(outcome.durability);
            lsn = lsn.max(outcome.lsn);
            let count = self.follow(opened, outcome);
            done += count;
            if count == 0 {
                return Ok((QueueReply::Count(done), lsn, wanted));
            }
        }
    }

    fn reserve_here(
        &self,
        opened: &Arc<Opened>,
        queue: QueueId,
        options: ReserveOptions,
        most: usize,
        wait: &mut Wait<'_>,
    ) -> Result<(Vec<crate::queue::Job>, Lsn)> {
        const OPERATION: &str = "queue.reserve";
        let outcome = opened.queues.reserve(times(), queue, HERE, options, most, usize::MAX, None)?;
        let lsn = outcome.lsn;
        let jobs = self.follow(opened, outcome);
        if !jobs.is_empty() || wait.timeout == Some(Duration::ZERO) {
            return Ok((jobs, lsn));
        }
        let mailbox = Arc::new(Mailbox::new(&self.engine, false));
        let who = Who::Thread(Arc::clone(&mailbox));
        let waiter = Waiter { queue, options, most, until: Moment::NEVER, who };
        let ends = wait.timeout.and_then(|timeout| std::time::Instant::now().checked_add(timeout));
        let id = opened.work.lock().add(waiter.clone());
        let waited = loop {
            let outcome = match opened.reserve(0, &waiter, Some(WaiterId(id)), usize::MAX) {
                Ok(outcome) => outcome,
                Err(error) => break Err(error),
            };
            let lsn = outcome.lsn;
            let jobs = self.follow(opened, outcome);
            if !jobs.is_empty() {
                break Ok((jobs, lsn));
            }
            let left = ends.map(|ends| ends.saturating_duration_since(std::time::Instant::now()));
            if left == Some(Duration::ZERO) {
                break Ok((Vec::new(), Lsn::NONE));
            }
            let mut slice =
                Wait { timeout: left, interrupt: wait.interrupt.as_deref_mut().map(|hook| hook as _) };
            match mailbox.wait(OPERATION, &mut slice, |woken| std::mem::take(woken).then_some(())) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Timeout => break Ok((Vec::new(), Lsn::NONE)),
                Err(error) => break Err(error),
            }
        };
        opened.work.lock().remove(id);
        self.leave(opened, queue, id);
        waited
    }

    /// A request of this process whose answer is taken later.
    pub(in super::super) fn start_here(
        &self,
        request: QueueRequest<'_>,
        durability: Option<Durability>,
        timeout: Option<Duration>,
    ) -> Result<Started> {
        self.engine.check_open("queue.request")?;
        // Relaxed: only uniqueness matters.
        let call = self.next_message.fetch_add(1, Ordering::Relaxed);
        let mailbox = Arc::new(Mailbox::new(&self.engine, CallState::Waiting));
        let to = ReplyTo { party: Party::Here(Arc::clone(&mailbox)), call, durability };
        let until = timeout.map_or(Moment::NEVER, |timeout| Moment(os::time::boot_ns()) + timeout);
        self.request_for(to, request, until);
        Ok((call, mailbox))
    }
}

impl Opened {
    fn reserve(
        &self,
        session: u32,
        waiter: &Waiter,
        id: Option<WaiterId>,
        bytes_max: usize,
    ) -> Result<Outcome<Vec<crate::queue::Job>>> {
        let Waiter { queue, options, most, .. } = waiter;
        self.queues.reserve(times(), *queue, WorkerId(session.into()), *options, *most, bytes_max, id)
    }

    /// Carries out everything that neither waits nor takes long.
    fn perform(
        &self,
        request: &QueueRequest<'_>,
        session: u32,
        bytes_max: usize,
    ) -> Result<Outcome<QueueReply>> {
        let (queues, now) = (&self.queues, times());
        let done = |outcome: Result<Outcome<()>>| Ok(outcome?.map(|()| QueueReply::Done));
        let plain = |reply| Ok(Outcome::of(reply));
        match *request {
            QueueRequest::Declare { ref name, ref config } => {
                let outcome = queues.declare(now, &Name::parse(name)?, config)?;
                Ok(outcome.map(|(id, created)| QueueReply::Queue { id, created }))
            }
            QueueRequest::Find { ref name } => {
                plain(QueueReply::Queue { id: queues.find(name)?, created: false })
            }
            QueueRequest::Names => {
                plain(QueueReply::Names(queues.names().keys().map(|name| (**name).to_owned()).collect()))
            }
            QueueRequest::Config { queue } => plain(QueueReply::Config(Box::new(queues.config(queue)?))),
            QueueRequest::Configure { queue, ref config } => done(queues.configure(now, queue, config)),
            QueueRequest::Enqueue { queue, ref jobs } => {
                if let [job] = &jobs[..] {
                    let outcome = queues.enqueue(now, queue, job.payload, &job.options())?;
                    return Ok(outcome.map(|enqueued| QueueReply::Enqueued(vec![enqueued])));
                }
                let parts = jobs.iter().filter(|job| job.whole_options().is_none());
                let made: Vec<_> = parts.map(|job| job.options().into_owned()).collect();
                let mut made = made.iter();
                let mut made = || made.next().expect("what is not whole was made so");
                let all: Vec<_> = jobs
                    .iter()
                    .map(|job| (job.payload, job.whole_options().unwrap_or_else(&mut made)))
                    .collect();
                Ok(queues.enqueue_many(now, queue, &all)?.map(QueueReply::Enqueued))
            }
            QueueRequest::Extend { queue, token, lease } => {
                let outcome = queues.extend(now, queue, token, lease)?;
                Ok(outcome.map(|(left, cancelling)| QueueReply::Lease { left, cancelling }))
            }
            QueueRequest::Ack { queue, token, result } => done(queues.ack(now, queue, token, result)),
            QueueRequest::AckMany { queue, ref tokens } => {
                Ok(queues.ack_many(now, queue, tokens)?.map(|each| QueueReply::Each(refused(each))))
            }
            QueueRequest::AckAndReserve { queue, ref acks, most, lease } => {
                let acks = acks.iter().map(|ack| (ack.token, ack.result));
                let (worker, options) = (WorkerId(session.into()), ReserveOptions { lease });
                let most = most as usize;
                let outcome = queues.ack_and_reserve(now, queue, acks, worker, options, most, bytes_max)?;
                Ok(outcome.map(|(each, jobs)| QueueReply::Next { each: refused(each), jobs }))
            }
            QueueRequest::Nack { queue, token, ref message, ref detail, delay } => {
                done(queues.nack(now, queue, token, crate::queue::Nack { message, detail, delay }))
            }
            QueueRequest::Reject { queue, token, ref message, ref detail } => {
                done(queues.reject(now, queue, token, crate::queue::Nack { message, detail, delay: None }))
            }
            QueueRequest::Release { queue, ref tokens } => {
                let mut all = Outcome::of(());
                let each = tokens
                    .iter()
                    .map(|token| queues.release(now, queue, *token).map(|outcome| all.absorb(outcome)))
                    .collect();
                Ok(all.map(|()| QueueReply::Each(refused(each))))
            }
            QueueRequest::Snooze { queue, token, delay } => done(queues.snooze(now, queue, token, delay)),
            QueueRequest::Progress { queue, token, progress } => {
                let outcome = queues.progress(now, queue, token, progress)?;
                Ok(outcome.map(|cancelling| QueueReply::Lease { left: Duration::ZERO, cancelling }))
            }
            QueueRequest::Cancel { queue, job, ref why } => {
                Ok(queues.cancel(now, queue, job, why)?.map(QueueReply::Cancelled))
            }
            QueueRequest::Redrive { queue, ref jobs } => done(queues.redrive(now, queue, jobs)),
            QueueRequest::RedriveAt { queue, count, rate } => {
                done(queues.redrive_at(now, queue, count, rate))
            }
            QueueRequest::Remove { queue, job } => done(queues.remove(now, queue, job)),
            QueueRequest::Pause { queue } => done(queues.pause(now, queue)),
            QueueRequest::Resume { queue } => done(queues.resume(now, queue)),
            QueueRequest::Drain { queue } => Ok(queues.drain(now, queue)?.map(QueueReply::Drained)),
            QueueRequest::Schedule { queue, ref schedule } => done(queues.schedule(now, queue, schedule)),
            QueueRequest::Unschedule { queue, ref name } => done(queues.unschedule(now, queue, name)),
            QueueRequest::Schedules { queue } => plain(QueueReply::Schedules(queues.schedules(queue)?)),
            QueueRequest::List { queue, state, cursor, most } => {
                plain(QueueReply::Listed(queues.list(now, queue, state, cursor, most as usize)?))
            }
            QueueRequest::Info { queue, job } => {
                plain(QueueReply::Info(Box::new(queues.info(now, queue, job)?)))
            }
            QueueRequest::Content { queue, job } => {
                plain(QueueReply::Content(Some(queues.content(queue, job)?)))
            }
            QueueRequest::Outcome { queue, job } => plain(QueueReply::Content(queues.result(queue, job)?)),
            QueueRequest::Stats { queue } => plain(QueueReply::Stats(Box::new(queues.stats(now, queue)?))),
            QueueRequest::Reserve { .. } | QueueRequest::Purge { .. } | QueueRequest::RedriveDead { .. } => {
                Err(unexpected("queue.request"))
            }
        }
    }

    pub(super) fn slice(&self, queue: QueueId, what: Errand, done: u64) -> Result<Outcome<u64>> {
        let outcome = match what {
            Errand::Purge(state) => self.queues.purge(times(), queue, state)?,
            Errand::RedriveDead(most) => {
                let left = usize::try_from(most.saturating_sub(done)).unwrap_or(usize::MAX);
                self.queues.redrive_dead(times(), queue, left)?
            }
        };
        Ok(outcome.map(|count| count as u64))
    }

    /// What must be safe before the answer. A change that was found to be made already may be on its way to the disk.
    fn to_wait_for(&self, request: &QueueRequest<'_>, lsn: Lsn) -> Lsn {
        if lsn == Lsn::NONE && is_change(request) { self.ledger.last() } else { lsn }
    }

    /// The queues are to be ticked at `due`.
    pub(super) fn due(&self, due: Option<Moment>) {
        if let Some(due) = due {
            let mut work = self.work.lock();
            if due < work.due {
                work.due = due;
                drop(work);
                self.changed.notify_one();
            }
        }
    }

    fn wake_for_deadline(&self, until: Moment) {
        if until != Moment::NEVER {
            self.changed.notify_one();
        }
    }
}

/// Whether a request changes something that is to be as durable as the queue is.
fn is_change(request: &QueueRequest<'_>) -> bool {
    matches!(
        request,
        QueueRequest::Declare { .. }
            | QueueRequest::Configure { .. }
            | QueueRequest::Enqueue { .. }
            | QueueRequest::Ack { .. }
            | QueueRequest::AckMany { .. }
            | QueueRequest::AckAndReserve { .. }
            | QueueRequest::Cancel { .. }
            | QueueRequest::Pause { .. }
            | QueueRequest::Resume { .. }
            | QueueRequest::Drain { .. }
    )
}

/// Who reserves or extends loses nothing in a power cut: leases end with the host anyway.
fn durability_of(request: &QueueRequest<'_>, outcome: &Outcome<QueueReply>) -> Durability {
    match request {
        QueueRequest::Extend { .. } | QueueRequest::Progress { .. } => Durability::Os,
        // Its queue may not be there when its outcome is made; it is as safe as what will lie in it.
        QueueRequest::Declare { config, .. } => config.durability,
        _ => outcome.durability,
    }
}

fn refused(each: Vec<Result<()>>) -> Vec<std::result::Result<(), Refused>> {
    each.into_iter().map(|one| one.map_err(|error| Refused::of(&error))).collect()
}

/// What a host without queues answers.
fn without_queues(request: &QueueRequest<'_>) -> Result<Answered> {
    let missing = |value: &dyn std::fmt::Display| {
        Err(Error::new(ErrorKind::NotFound, "mesh.queue").with("queue", value))
    };
    match request {
        QueueRequest::Names => Ok(Answered { reply: QueueReply::Names(Vec::new()), reached: None }),
        QueueRequest::Find { name } => {
            let shown: String = name.chars().take(64).collect();
            missing(&format_args!("{shown:?}"))
        }
        _ => missing(&"none was declared"),
    }
}

/// The worker that the host's own process is.
const HERE: WorkerId = WorkerId(0);
/// For ever, as a request's timeout.
const FOR_EVER: u32 = u32::MAX;
/// Jobs of one call take at most so much more than their payloads.
const ANSWER_SLACK: usize = 64 * 1024;
