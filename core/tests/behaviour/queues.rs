//! The steps about queues: their fields are read one by one, and a field that is left over is a failure.
#![forbid(unsafe_code)]

use super::{Bytes, Done, Headers, PAUSE, Trouble, WATCHDOG, mismatch, until};
use flowmesh::{
    Durability, ErrorKind, Job, JobError, Mesh, Name, PendingReply, Queue, Settle, Timestamp, Wait, Worker,
    WorkerOptions,
    queue::{
        Backoff, Cancelled, Cursor, EnqueueOptions, Enqueued, JobId, JobInfo, JobState, Keep, Misfire,
        NewJobRequest, OnConflict, Overlap, QueueConfig, Rate, Schedule, Scope, Unique,
    },
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::{
    collections::{HashMap, HashSet},
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

/// Everything about queues that a scenario has named so far.
#[derive(Default)]
pub(super) struct Queues {
    queues: HashMap<String, Queue>,
    ids: HashMap<String, JobId>,
    jobs: HashMap<String, Job>,
    reservations: HashMap<String, (Queue, PendingReply)>,
    cursors: HashMap<String, Option<Cursor>>,
    workers: HashMap<String, (Worker, Arc<Seen>)>,
}

/// What the handler of a worker has met.
#[derive(Default)]
struct Seen {
    started: AtomicU64,
    cancelled: AtomicU64,
    go: AtomicBool,
    snoozed: Mutex<HashSet<JobId>>,
}

impl Drop for Queues {
    fn drop(&mut self) {
        for (_, seen) in self.workers.values() {
            seen.go.store(true, SeqCst);
        }
    }
}

impl Queues {
    /// Does a step, if it is one about queues.
    pub(super) fn step(
        &mut self,
        name: &str,
        fields: &Headers,
        mesh: Result<&Mesh, Trouble>,
        directory: &Path,
        mark: Instant,
    ) -> Option<Done> {
        let mut fields = fields.clone();
        fields.remove("do");
        let step = Step { fields: Fields(fields), mark };
        Some(match name {
            "declare_queue" => self.declare(step, mesh),
            "queue" => self.find(step, mesh),
            "queues" => names(step, mesh),
            "configure" => self.configure(step),
            "config" => self.config(step),
            "enqueue" => self.enqueue(step),
            "enqueue_many" => self.enqueue_many(step),
            "reserve" => self.reserve(step),
            "start_reserve" => self.start_reserve(step),
            "finish_reserve" => self.finish_reserve(step),
            "expect_no_job" => self.expect_no_job(step),
            "take" => self.take(step),
            "ack" | "nack" | "reject" | "release" | "snooze" => self.settle(name, step),
            "ack_many" => self.ack_many(step),
            "ack_and_reserve" => self.ack_and_reserve(step),
            "extend" => self.extend(step),
            "progress" => self.progress(step),
            "job" => self.look(step),
            "cancel_job" => self.cancel(step),
            "redrive" => self.redrive(step),
            "redrive_dead" | "redrive_at" => self.redrive_dead(name, step),
            "purge" => self.purge(step),
            "remove" => self.remove(step),
            "pause" | "resume" | "drain" => self.mode(name, step),
            "schedule" => self.schedule(step),
            "unschedule" => self.unschedule(step),
            "schedules" => self.schedules(step),
            "list" => self.list(step),
            "peek" => self.peek(step),
            "gone" => self.gone(step),
            "content" => self.content(step),
            "result" => self.result(step),
            "queue_stats" => self.stats(step),
            "work" => self.work(step),
            "worked" => self.worked(step),
            "let_go" => self.let_go(step),
            "stop_work" => self.stop_work(step),
            "inspect" => inspect(step, directory),
            "damage" => damage(step, directory),
            _ => return None,
        })
    }

    /// Closes the worker of this name, if there is one.
    pub(super) fn close(&mut self, name: &str) -> bool {
        match self.workers.remove(name) {
            Some((worker, seen)) => {
                seen.go.store(true, SeqCst);
                drop(worker);
                true
            }
            None => false,
        }
    }

    /// The job that an event is about.
    pub(super) fn id(&self, name: &str) -> Result<JobId, Trouble> {
        if name.len() == 36 {
            return Ok(JobId::parse(name)?);
        }
        self.ids.get(name).copied().ok_or_else(|| Trouble::Mismatch(format!("no job is named {name}")))
    }

    // ---- queues

    fn declare(&mut self, mut step: Step, mesh: Result<&Mesh, Trouble>) -> Done {
        let name: String = step.need("name")?;
        let r#as = step.get("as")?.unwrap_or_else(|| name.clone());
        let config = step.get("config")?.unwrap_or_default();
        step.end()?;
        let queue = mesh?.declare_queue(&name, &config_of(config)?)?;
        self.queues.insert(r#as, queue);
        Ok(())
    }

    fn find(&mut self, mut step: Step, mesh: Result<&Mesh, Trouble>) -> Done {
        let name: String = step.need("name")?;
        let r#as = step.get("as")?.unwrap_or_else(|| name.clone());
        step.end()?;
        self.queues.insert(r#as, mesh?.queue(&name)?);
        Ok(())
    }

    fn configure(&mut self, mut step: Step) -> Done {
        let (queue, config) = (self.queue(&mut step)?, step.need("config")?);
        step.end()?;
        Ok(queue.configure(&config_of(config)?)?)
    }

    fn config(&mut self, mut step: Step) -> Done {
        let (queue, expect): (_, Headers) = (self.queue(&mut step)?, step.need("expect")?);
        step.end()?;
        compare_fields(&expect, &config_fields(&queue.config()?))
    }

    fn queue(&self, step: &mut Step) -> Result<Queue, Trouble> {
        let name: String = step.need("queue")?;
        let Some(queue) = self.queues.get(&name) else {
            return mismatch(format!("no queue is named {name}"));
        };
        let durability: Option<Value> = step.get("durability")?;
        Ok(match durability {
            None => queue.clone(),
            Some(value) => queue.durable(durability_of(&value)?),
        })
    }

    fn mode(&mut self, name: &str, mut step: Step) -> Done {
        let (queue, expect): (_, Option<bool>) = (self.queue(&mut step)?, step.get("expect")?);
        step.end()?;
        match name {
            "pause" => queue.pause()?,
            "resume" => queue.resume()?,
            _ => {
                let idle = queue.drain()?;
                if expect.is_some_and(|expect| expect != idle) {
                    return mismatch(format!("whether it is idle: {idle}"));
                }
            }
        }
        Ok(())
    }

    fn stats(&mut self, mut step: Step) -> Done {
        let (queue, expect): (_, Headers) = (self.queue(&mut step)?, step.need("expect")?);
        step.end()?;
        let expect = expect.into_iter().collect();
        until(|| {
            let stats = queue.stats()?;
            let jobs: Headers = JobState::ALL
                .iter()
                .map(|state| (state.name().to_owned(), stats.count(*state).into()))
                .collect();
            let totals = serde_json::to_value(&stats.totals).expect("counters are numbers");
            let found = json!({"jobs": jobs, "payload_bytes": stats.payload_bytes, "paused": stats.paused,
                "draining": stats.draining, "groups": stats.groups, "redriving": stats.redriving, "totals": totals});
            super::compare(&expect, &found)
        })
    }

    // ---- jobs

    fn enqueue(&mut self, mut step: Step) -> Done {
        let queue = self.queue(&mut step)?;
        let payload = step.get::<Bytes>("payload")?.unwrap_or_default().get();
        let (r#as, same_as): (Option<String>, Option<String>) = (step.get("as")?, step.get("same_as")?);
        let outcome: Option<String> = step.get("outcome")?;
        let (reached, options) = (step.reached()?, step.options()?);
        step.end()?;
        let receipt = queue.enqueue(&payload, &options)?;
        check_reached(reached, receipt.durability)?;
        check_outcome(outcome.as_deref().unwrap_or("new"), receipt.enqueued)?;
        if let Some(same_as) = same_as {
            let found = match receipt.enqueued {
                Enqueued::Replaced { replaced, .. } => replaced,
                other => other.id(),
            };
            if found != self.id(&same_as)? {
                return mismatch(format!("it is about {found}, not {same_as}"));
            }
        }
        self.ids.extend(r#as.map(|name| (name, receipt.id())));
        Ok(())
    }

    fn enqueue_many(&mut self, mut step: Step) -> Done {
        let queue = self.queue(&mut step)?;
        let (jobs, repeat): (Vec<Headers>, _) = (step.need("jobs")?, step.get("repeat")?.unwrap_or(1));
        let (reached, outcomes): (_, Option<Vec<String>>) = (step.reached()?, step.get("outcomes")?);
        step.end()?;
        let mut all = Vec::new();
        for fields in jobs {
            let mut fields = Step { fields: Fields(fields), mark: step.mark };
            let payload = fields.get::<Bytes>("payload")?.unwrap_or_default().get();
            let r#as: Option<String> = fields.get("as")?;
            all.push((payload, fields.options()?, r#as));
            fields.end()?;
        }
        let count = all.len() * repeat;
        let requests: Vec<_> = all
            .iter()
            .cycle()
            .take(count)
            .map(|(payload, options, _)| NewJobRequest::new(payload, options))
            .collect();
        let receipts = queue.enqueue_many(&requests, &mut Wait::timeout(WATCHDOG))?;
        if receipts.len() != count {
            return mismatch(format!("{} answers to {count} jobs", receipts.len()));
        }
        for (index, (receipt, (_, _, r#as))) in receipts.iter().zip(all.iter().cycle()).enumerate() {
            check_reached(reached, receipt.durability)?;
            let wanted = outcomes.as_ref().map_or(Some("new"), |all| all.get(index).map(String::as_str));
            let Some(wanted) = wanted else { return mismatch("`outcomes` is too short") };
            check_outcome(wanted, receipt.enqueued)?;
            self.ids.extend(r#as.clone().map(|name| (name, receipt.id())));
        }
        Ok(())
    }

    fn reserve(&mut self, mut step: Step) -> Done {
        let queue = self.queue(&mut step)?;
        let asked = step.asked()?;
        let wanted = step.wanted(asked.count)?;
        step.end()?;
        let jobs = queue.reserve(wanted.count, asked.lease, &mut Wait::timeout(asked.timeout))?;
        self.check_jobs(jobs, wanted, step.mark)
    }

    fn start_reserve(&mut self, mut step: Step) -> Done {
        let (queue, r#as) = (self.queue(&mut step)?, step.need("as")?);
        let asked = step.asked()?;
        step.end()?;
        let pending = queue.start_reserve(asked.count.unwrap_or(1), asked.lease, Some(asked.timeout))?;
        self.reservations.insert(r#as, (queue, pending));
        Ok(())
    }

    fn finish_reserve(&mut self, mut step: Step) -> Done {
        let name: String = step.need("reserve")?;
        let none = step.get("none")?.unwrap_or(false);
        let wanted = step.wanted(None)?;
        step.end()?;
        let Some((queue, pending)) = self.reservations.remove(&name) else {
            return mismatch(format!("no reservation is named {name}"));
        };
        let jobs = queue.jobs(pending.wait(&mut Wait::timeout(WATCHDOG))?)?;
        if none {
            return if jobs.is_empty() { Ok(()) } else { mismatch(format!("there came {jobs:?}")) };
        }
        self.check_jobs(jobs, wanted, step.mark)
    }

    fn check_jobs(&mut self, jobs: Vec<Job>, wanted: Wanted, mark: Instant) -> Done {
        let Some(first) = jobs.first() else { return mismatch("no job came in time") };
        let payloads: Vec<_> = jobs.iter().map(|job| text(job.payload())).collect();
        let names = wanted.names.as_ref();
        if wanted.payloads.as_ref().is_some_and(|wanted| *wanted != payloads)
            || names.is_some_and(|names| names.len() != jobs.len())
        {
            return mismatch(format!("there came {payloads:?}"));
        }
        if wanted.after.is_some_and(|after| mark.elapsed() < after) {
            return mismatch(format!("it came after {:?}", mark.elapsed()));
        }
        let mut expect = wanted.expect;
        let id = expect.remove("id").map(|id| self.id(id.as_str().unwrap_or("?"))).transpose()?;
        if id.is_some_and(|id| id != first.id()) {
            return mismatch(format!("it is {}, with payload {}", first.id(), payloads[0]));
        }
        compare_fields(&expect, &job_fields(first))?;
        self.jobs.extend(wanted.names.into_iter().flatten().zip(jobs));
        Ok(())
    }

    fn expect_no_job(&mut self, mut step: Step) -> Done {
        let (queue, ms) = (self.queue(&mut step)?, step.ms("for_ms")?.unwrap_or(Duration::from_millis(50)));
        step.end()?;
        let jobs = queue.reserve(1, None, &mut Wait::timeout(ms))?;
        match jobs.first() {
            Some(job) => mismatch(format!("there came {}", text(job.payload()))),
            None => Ok(()),
        }
    }

    fn take(&mut self, mut step: Step) -> Done {
        let queue = self.queue(&mut step)?;
        let mut wanted = step.payloads()?.unwrap_or_default();
        let (any_order, after) = (step.get("any_order")?.unwrap_or(false), step.ms("after_ms")?);
        step.end()?;
        let mut found = Vec::new();
        while found.len() < wanted.len() {
            let Some(job) = queue.reserve_one(&mut Wait::timeout(WATCHDOG))? else {
                return mismatch(format!("there came only {found:?}"));
            };
            found.push(text(job.payload()));
            job.ack(None)?;
            if !any_order && found[..] != wanted[..found.len()] {
                return mismatch(format!("there came {found:?}"));
            }
        }
        if after.is_some_and(|after| step.mark.elapsed() < after) {
            return mismatch(format!("they came after {:?}", step.mark.elapsed()));
        }
        found.sort();
        wanted.sort();
        if found == wanted { Ok(()) } else { mismatch(format!("there came {found:?}")) }
    }

    fn settle(&mut self, how: &str, mut step: Step) -> Done {
        let name: String = step.need("job")?;
        let (result, reached) = (step.get::<Bytes>("result")?.map(|bytes| bytes.get()), step.reached()?);
        let message: String = step.get("message")?.unwrap_or_default();
        let detail: String = step.get("detail")?.unwrap_or_default();
        let delay = step.ms("delay_ms")?;
        step.end()?;
        let settle = match how {
            "ack" => Settle::Ack(result.as_deref()),
            "nack" => Settle::Nack { message: &message, detail: &detail, delay },
            "reject" => Settle::Reject { message: &message, detail: &detail },
            "release" => Settle::Release,
            _ => Settle::Snooze(delay.unwrap_or_default()),
        };
        check_reached(reached, self.job(&name)?.settle(settle, &mut Wait::timeout(WATCHDOG))?)
    }

    fn ack_many(&mut self, mut step: Step) -> Done {
        let (queue, names): (_, Vec<String>) = (self.queue(&mut step)?, step.need("jobs")?);
        let errors: Option<Vec<Option<String>>> = step.get("errors")?;
        step.end()?;
        let jobs = names.iter().map(|name| self.job(name)).collect::<Result<Vec<_>, _>>()?;
        let found = queue.ack_many(jobs)?;
        let found: Vec<_> =
            found.into_iter().map(|one| one.err().map(|error| error.kind().code().to_owned())).collect();
        if found != errors.unwrap_or_else(|| vec![None; names.len()]) {
            return mismatch(format!("they gave {found:?}"));
        }
        Ok(())
    }

    fn ack_and_reserve(&mut self, mut step: Step) -> Done {
        let name: String = step.need("job")?;
        let result = step.get::<Bytes>("result")?.map(|bytes| bytes.get());
        let (lease, none) = (step.ms("lease_ms")?, step.get("none")?.unwrap_or(false));
        let wanted = step.wanted(None)?;
        step.end()?;
        let job = self.job(&name)?;
        let (_, next) = job.ack_and_reserve(result.as_deref(), lease, &mut Wait::timeout(WATCHDOG))?;
        match next {
            Some(next) if none => mismatch(format!("there came {}", text(next.payload()))),
            None if none => Ok(()),
            next => self.check_jobs(next.into_iter().collect(), wanted, step.mark),
        }
    }

    fn extend(&mut self, mut step: Step) -> Done {
        let name: String = step.need("job")?;
        let (lease, least, most) = (step.ms("lease_ms")?, step.ms("at_least_ms")?, step.ms("at_most_ms")?);
        step.end()?;
        let left = self.job(&name)?.extend(lease)?;
        between(left, least, most)
    }

    fn progress(&mut self, mut step: Step) -> Done {
        let (name, payload): (String, Bytes) = (step.need("job")?, step.need("payload")?);
        step.end()?;
        Ok(self.job(&name)?.progress(&payload.get())?)
    }

    fn look(&mut self, mut step: Step) -> Done {
        let (name, expect): (String, Headers) = (step.need("job")?, step.need("expect")?);
        step.end()?;
        let mut expect = Step { fields: Fields(expect), mark: step.mark };
        let (cancelled, settled) = (expect.get("cancelled")?, expect.get("settled")?);
        let (least, most) = (expect.ms("remaining_at_least_ms")?, expect.ms("remaining_at_most_ms")?);
        expect.end()?;
        let job = self.job(&name)?;
        until(|| {
            super::same("cancelled", cancelled, job.is_cancelled())?;
            super::same("settled", settled, job.is_settled())?;
            between(job.remaining(), least, most)
        })
    }

    fn job(&self, name: &str) -> Result<&Job, Trouble> {
        self.jobs.get(name).ok_or_else(|| Trouble::Mismatch(format!("no reserved job is named {name}")))
    }

    fn cancel(&mut self, mut step: Step) -> Done {
        let (queue, id) = (self.queue(&mut step)?, self.id(&step.need::<String>("id")?)?);
        let (why, expect): (Option<String>, Option<String>) = (step.get("why")?, step.get("expect")?);
        step.end()?;
        let found = match queue.cancel(id, &why.unwrap_or_default())? {
            Cancelled::Now => "now",
            Cancelled::Asked => "asked",
            Cancelled::Finished(_) => "finished",
        };
        super::same("what became of it", expect.as_deref(), found)
    }

    fn redrive(&mut self, mut step: Step) -> Done {
        let (queue, names): (_, Vec<String>) = (self.queue(&mut step)?, step.need("ids")?);
        step.end()?;
        let ids = names.iter().map(|name| self.id(name)).collect::<Result<Vec<_>, _>>()?;
        Ok(queue.redrive(&ids)?)
    }

    fn redrive_dead(&mut self, name: &str, mut step: Step) -> Done {
        let queue = self.queue(&mut step)?;
        if name == "redrive_at" {
            let (count, rate) = (step.need("count")?, step.need("rate")?);
            step.end()?;
            return Ok(queue.redrive_at(count, rate_of(rate)?)?);
        }
        let (most, expect) = (step.get("most")?.unwrap_or(u64::MAX), step.get("expect")?);
        step.end()?;
        super::same("how many", expect, queue.redrive_dead(most)?)
    }

    fn purge(&mut self, mut step: Step) -> Done {
        let (queue, state): (_, String) = (self.queue(&mut step)?, step.need("state")?);
        let expect = step.get("expect")?;
        step.end()?;
        super::same("how many", expect, queue.purge(JobState::parse(&state)?)?)
    }

    fn remove(&mut self, mut step: Step) -> Done {
        let (queue, id) = (self.queue(&mut step)?, self.id(&step.need::<String>("id")?)?);
        step.end()?;
        Ok(queue.remove(id)?)
    }

    // ---- looking

    fn list(&mut self, mut step: Step) -> Done {
        let (queue, state): (_, String) = (self.queue(&mut step)?, step.need("state")?);
        let limit = step.get("limit")?.unwrap_or(100);
        let (cursor, r#as): (Option<String>, Option<String>) = (step.get("cursor")?, step.get("as")?);
        let (ids, count, more): (Option<Vec<String>>, _, _) =
            (step.get("ids")?, step.get("count")?, step.get("more")?);
        step.end()?;
        let cursor = match cursor {
            None => None,
            Some(name) => match self.cursors.get(&name) {
                Some(Some(cursor)) => Some(*cursor),
                _ => return mismatch(format!("no listing stopped at {name}")),
            },
        };
        let listed = queue.list(JobState::parse(&state)?, cursor, limit)?;
        let found: Vec<JobId> = listed.jobs.iter().map(|info| info.id).collect();
        if let Some(info) = listed.jobs.iter().find(|info| info.state.name() != state) {
            return mismatch(format!("there is {info:?}"));
        }
        if let Some(ids) = ids {
            let wanted = ids.iter().map(|name| self.id(name)).collect::<Result<Vec<_>, _>>()?;
            if wanted != found {
                let names: Vec<_> =
                    found.iter().map(|id| self.ids.iter().find(|(_, known)| *known == id)).collect();
                return mismatch(format!("there are {names:?}"));
            }
        }
        super::same("count", count, found.len())?;
        super::same("more", more, listed.next.is_some())?;
        self.cursors.extend(r#as.map(|name| (name, listed.next)));
        Ok(())
    }

    fn peek(&mut self, mut step: Step) -> Done {
        let (queue, id) = (self.queue(&mut step)?, self.id(&step.need::<String>("id")?)?);
        let expect: Headers = step.get("expect")?.unwrap_or_default();
        step.end()?;
        until(|| {
            let info = queue.peek(id)?;
            let mut expect = expect.clone();
            let failures = expect.remove("failures");
            if let Some(within) = expect.remove("due_within_ms") {
                let most = wall() + within.as_u64().unwrap_or(0);
                if info.due.is_none_or(|due| due.0 / 1_000_000 > most) {
                    return mismatch(format!("it is due at {:?}", info.due));
                }
            }
            compare_fields(&expect, &info_fields(&info))?;
            let Some(failures) = failures else { return Ok(()) };
            let failures = failures.as_array().cloned().unwrap_or_default();
            if failures.len() != info.failures.len() {
                return mismatch(format!("it failed so: {:?}", info.failures));
            }
            for (wanted, found) in failures.iter().zip(&info.failures) {
                let wanted = wanted.as_object().cloned().unwrap_or_default();
                let found =
                    json!({"attempt": found.attempt, "message": found.message, "detail": found.detail});
                compare_fields(&wanted, found.as_object().expect("an object"))?;
            }
            Ok(())
        })
    }

    fn gone(&mut self, mut step: Step) -> Done {
        let (queue, id) = (self.queue(&mut step)?, self.id(&step.need::<String>("id")?)?);
        step.end()?;
        until(|| match queue.peek(id) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error.into()),
            Ok(info) => mismatch(format!("it is {}", info.state.name())),
        })
    }

    fn content(&mut self, mut step: Step) -> Done {
        let (queue, id) = (self.queue(&mut step)?, self.id(&step.need::<String>("id")?)?);
        let expect: Headers = step.need("expect")?;
        step.end()?;
        let content = queue.content(id)?;
        let found = content_fields(content.payload(), content.content_type(), &content.headers());
        compare_fields(&expect, &found)
    }

    fn result(&mut self, mut step: Step) -> Done {
        let (queue, id) = (self.queue(&mut step)?, self.id(&step.need::<String>("id")?)?);
        let expect: Value = step.need("expect")?;
        step.end()?;
        let found = queue.result(id)?;
        let expect = json!({"payload": expect});
        let found = json!({"payload": found.as_deref().map(text)});
        compare_fields(expect.as_object().expect("an object"), found.as_object().expect("an object"))
    }

    // ---- schedules

    fn schedule(&mut self, mut step: Step) -> Done {
        let queue = self.queue(&mut step)?;
        let mut schedule = Schedule::new(step.need::<String>("name")?);
        schedule.cron = step.get("cron")?.unwrap_or(schedule.cron);
        schedule.zone = step.get("zone")?.unwrap_or(schedule.zone);
        schedule.misfire = match step.get::<String>("misfire")?.as_deref() {
            Some("skip") => Misfire::Skip,
            None | Some("run_once") => Misfire::RunOnce,
            Some("run_all") => Misfire::RunAll,
            Some(other) => return mismatch(format!("misfire cannot be {other}")),
        };
        schedule.overlap = match step.get::<String>("overlap")?.as_deref() {
            None | Some("allow") => Overlap::Allow,
            Some("skip") => Overlap::Skip,
            Some("replace") => Overlap::Replace,
            Some(other) => return mismatch(format!("overlap cannot be {other}")),
        };
        schedule.jitter = step.ms("jitter_ms")?.unwrap_or_default();
        schedule.payload = step.get::<Bytes>("payload")?.unwrap_or_default().get();
        schedule.options = step.options()?;
        step.end()?;
        Ok(queue.schedule(&schedule)?)
    }

    fn unschedule(&mut self, mut step: Step) -> Done {
        let (queue, name): (_, String) = (self.queue(&mut step)?, step.need("name")?);
        step.end()?;
        Ok(queue.unschedule(&name)?)
    }

    fn schedules(&mut self, mut step: Step) -> Done {
        let (queue, expect): (_, Vec<Headers>) = (self.queue(&mut step)?, step.need("expect")?);
        step.end()?;
        let found = queue.schedules()?;
        if found.len() != expect.len() {
            return mismatch(format!("there are {found:?}"));
        }
        for (mut wanted, (schedule, next)) in expect.into_iter().zip(found) {
            if let Some(within) = wanted.remove("next_within_ms") {
                let ms = next.0 / 1_000_000;
                if !(wall() <= ms + 1000 && ms <= wall() + within.as_u64().unwrap_or(0)) {
                    return mismatch(format!("it fires at {ms}, and it is {}", wall()));
                }
            }
            let misfire = ["skip", "run_once", "run_all"][schedule.misfire as usize];
            let overlap = ["allow", "skip", "replace"][schedule.overlap as usize];
            let found = json!({"name": schedule.name, "cron": schedule.cron, "zone": schedule.zone,
                "misfire": misfire, "overlap": overlap, "jitter_ms": schedule.jitter.as_millis() as u64,
                "payload": text(&schedule.payload)});
            compare_fields(&wanted, found.as_object().expect("an object"))?;
        }
        Ok(())
    }

    // ---- workers

    fn work(&mut self, mut step: Step) -> Done {
        let (queue, r#as) = (self.queue(&mut step)?, step.need::<String>("as")?);
        let handler: Handler = step.need("handler")?;
        let concurrency = step.get("concurrency")?.unwrap_or(1);
        let lease = step.ms("lease_ms")?;
        step.end()?;
        let seen = Arc::new(Seen::default());
        let watched = Arc::clone(&seen);
        let worker =
            queue.process(WorkerOptions { concurrency, lease }, move |job| handler.handle(job, &watched))?;
        self.workers.insert(r#as, (worker, seen));
        Ok(())
    }

    fn worked(&mut self, mut step: Step) -> Done {
        let name: String = step.need("of")?;
        let mut expect = HashMap::new();
        for field in ["started", "cancelled", "done", "failed", "rejected", "released", "lost"] {
            expect.extend(step.get::<u64>(field)?.map(|count| (field, count)));
        }
        step.end()?;
        let (worker, seen) = self.worker(&name)?;
        until(|| {
            let stats = worker.stats();
            for (field, wanted) in &expect {
                let found = match *field {
                    "started" => seen.started.load(SeqCst),
                    "cancelled" => seen.cancelled.load(SeqCst),
                    "done" => stats.done,
                    "failed" => stats.failed,
                    "rejected" => stats.rejected,
                    "released" => stats.released,
                    _ => stats.lost,
                };
                super::same(field, Some(*wanted), found)?;
            }
            Ok(())
        })
    }

    fn let_go(&mut self, mut step: Step) -> Done {
        let name: String = step.need("of")?;
        step.end()?;
        self.worker(&name)?.1.go.store(true, SeqCst);
        Ok(())
    }

    fn stop_work(&mut self, mut step: Step) -> Done {
        let name: String = step.need("of")?;
        let (timeout, expect) = (step.ms("timeout_ms")?.unwrap_or(WATCHDOG), step.get("expect")?);
        step.end()?;
        super::same("whether all ended in time", expect, self.worker(&name)?.0.stop(timeout))
    }

    fn worker(&self, name: &str) -> Result<&(Worker, Arc<Seen>), Trouble> {
        self.workers.get(name).ok_or_else(|| Trouble::Mismatch(format!("no worker is named {name}")))
    }
}

fn names(mut step: Step, mesh: Result<&Mesh, Trouble>) -> Done {
    let expect: Vec<String> = step.need("expect")?;
    step.end()?;
    let found = mesh?.queues()?;
    if found == expect { Ok(()) } else { mismatch(format!("there are {found:?}")) }
}

fn inspect(mut step: Step, directory: &Path) -> Done {
    let (dir, expect): (Option<String>, Headers) = (step.get("dir")?, step.need("expect")?);
    step.end()?;
    let found = flowmesh::inspect(directory.join(dir.unwrap_or_default()))?;
    let found = json!({"segments": found.segments.len(), "checkpoints": found.checkpoints.len(),
        "entries": found.entries, "damages": found.damages.len()});
    compare_fields(&expect, found.as_object().expect("an object"))
}

fn damage(mut step: Step, directory: &Path) -> Done {
    let (dir, file): (Option<String>, String) = (step.get("dir")?, step.need("file")?);
    let offset: usize = step.need("offset")?;
    step.end()?;
    let path = directory.join(dir.unwrap_or_default()).join(file);
    let turned = fs::read(&path).and_then(|mut bytes| {
        bytes[offset] = !bytes[offset];
        fs::write(&path, bytes)
    });
    turned.or_else(|error| mismatch(format!("{}: {error}", path.display())))
}

#[derive(Clone, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Handler {
    Echo,
    Quiet,
    Hold,
    Settle,
    Fail(Failing),
    Reject(String),
    SnoozeMs(u64),
    Progress(Bytes),
}

#[derive(Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Failing {
    r#type: String,
    message: String,
    times: Option<u16>,
}

impl Handler {
    fn handle(&self, job: &Job, seen: &Seen) -> Result<Option<Vec<u8>>, JobError> {
        seen.started.fetch_add(1, SeqCst);
        match self {
            Self::Quiet => return Ok(None),
            Self::Fail(Failing { r#type: kind, message, times })
                if times.is_none_or(|times| job.attempt() <= times) =>
            {
                let message = format!("{kind}: {message}");
                return Err(JobError::Failed { message, detail: String::new() });
            }
            Self::Reject(message) => return Err(JobError::Reject(message.clone())),
            Self::SnoozeMs(ms) if seen.snoozed.lock().expect("nobody panics with it").insert(job.id()) => {
                return Err(JobError::Snooze(Duration::from_millis(*ms)));
            }
            Self::Settle => {
                job.ack(Some(b"own"))?;
                return Ok(Some(b"ignored".to_vec()));
            }
            Self::Echo | Self::Fail(_) | Self::SnoozeMs(_) => {}
            Self::Hold | Self::Progress(_) => {
                if let Self::Progress(progress) = self {
                    job.progress(&progress.get())?;
                }
                while !seen.go.load(SeqCst) {
                    if job.is_cancelled() {
                        seen.cancelled.fetch_add(1, SeqCst);
                        return Ok(None);
                    }
                    thread::sleep(PAUSE);
                }
            }
        }
        Ok(Some(job.payload().to_vec()))
    }
}

// ---- fields

struct Fields(Headers);

struct Step {
    fields: Fields,
    mark: Instant,
}

/// What a reservation asks for.
struct Asked {
    count: Option<usize>,
    lease: Option<Duration>,
    timeout: Duration,
}

/// What is to come of it.
struct Wanted {
    count: usize,
    names: Option<Vec<String>>,
    payloads: Option<Vec<String>>,
    expect: Headers,
    after: Option<Duration>,
}

impl Step {
    fn get<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, Trouble> {
        let Some(value) = self.fields.0.remove(name) else { return Ok(None) };
        match serde_json::from_value(value) {
            Ok(value) => Ok(Some(value)),
            Err(error) => mismatch(format!("{name}: {error}")),
        }
    }

    fn need<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, Trouble> {
        self.get(name)?.map_or_else(|| mismatch(format!("{name} is missing")), Ok)
    }

    fn ms(&mut self, name: &str) -> Result<Option<Duration>, Trouble> {
        Ok(self.get(name)?.map(Duration::from_millis))
    }

    /// All fields must have been asked for by now.
    fn end(&self) -> Done {
        match self.fields.0.keys().next() {
            Some(name) => mismatch(format!("unknown field {name}")),
            None => Ok(()),
        }
    }

    fn reached(&mut self) -> Result<Option<Durability>, Trouble> {
        self.get::<Value>("reached")?.map(|value| durability_of(&value)).transpose()
    }

    fn payloads(&mut self) -> Result<Option<Vec<String>>, Trouble> {
        let payloads: Option<Vec<Bytes>> = self.get("payloads")?;
        Ok(payloads.map(|all| all.iter().map(|bytes| text(&bytes.get())).collect()))
    }

    fn asked(&mut self) -> Result<Asked, Trouble> {
        let timeout = self.ms("timeout_ms")?.unwrap_or(WATCHDOG);
        Ok(Asked { count: self.get("count")?, lease: self.ms("lease_ms")?, timeout })
    }

    fn wanted(&mut self, count: Option<usize>) -> Result<Wanted, Trouble> {
        let names = match self.get::<Value>("as")? {
            Some(Value::String(name)) => Some(vec![name]),
            Some(list) => Some(serde_json::from_value(list).or_else(|error| mismatch(error.to_string()))?),
            None => None,
        };
        let payloads = self.payloads()?;
        let listed = names.as_ref().map(Vec::len);
        Ok(Wanted {
            count: count.or(listed).unwrap_or(1),
            names,
            payloads,
            expect: self.get("expect")?.unwrap_or_default(),
            after: self.ms("after_ms")?,
        })
    }

    fn options(&mut self) -> Result<EnqueueOptions, Trouble> {
        let id: Option<String> = self.get("id")?;
        let headers: Headers = self.get("headers")?.unwrap_or_default();
        let (scope, window): (Option<String>, _) = (self.get("unique_scope")?, self.ms("unique_window_ms")?);
        let scope = match scope.as_deref() {
            Some("waiting") => Scope::Waiting,
            None | Some("active") => Scope::Active,
            Some("window") => Scope::Window(window.unwrap_or_default()),
            Some(other) => return mismatch(format!("unique_scope cannot be {other}")),
        };
        let conflict = match self.get::<String>("on_conflict")?.as_deref() {
            None | Some("return_existing") => OnConflict::ReturnExisting,
            Some("replace") => OnConflict::Replace,
            Some("extend") => OnConflict::Extend,
            Some("keep_last") => OnConflict::KeepLast,
            Some(other) => return mismatch(format!("on_conflict cannot be {other}")),
        };
        let run_at: Option<i64> = self.get("run_at_ms")?;
        Ok(EnqueueOptions {
            id: id.map(|id| JobId::parse(&id)).transpose()?,
            priority: self.get("priority")?.unwrap_or(0),
            delay: self.ms("delay_ms")?.unwrap_or_default(),
            run_at: run_at.map(|ms| Timestamp(wall().saturating_add_signed(ms) * 1_000_000)),
            ttl: self.ms("ttl_ms")?,
            unique: self.get("unique")?.map(|key| Unique { key, scope, conflict }),
            group: self.get("group")?,
            headers: super::pairs(&headers),
            content_type: self.get("content_type")?,
            max_attempts: self.get("max_attempts")?,
            backoff: self.get("backoff")?.map(backoff_of).transpose()?,
            lease: self.ms("lease_ms")?,
            deadline: self.ms("deadline_ms")?,
            result_ttl: self.ms("result_ttl_ms")?,
        })
    }
}

fn config_of(fields: Headers) -> Result<QueueConfig, Trouble> {
    let mut step = Step { fields: Fields(fields), mark: Instant::now() };
    let default = QueueConfig::default();
    let mut config = QueueConfig {
        lease: step.ms("lease_ms")?.unwrap_or(default.lease),
        max_attempts: step.get("max_attempts")?.unwrap_or(default.max_attempts),
        backoff: step.get("backoff")?.map_or(Ok(default.backoff), backoff_of)?,
        deadline: step.ms("deadline_ms")?,
        ttl: step.ms("ttl_ms")?,
        max_length: step.get("max_length")?,
        payload_bytes_max: step.get("payload_bytes_max")?.unwrap_or(default.payload_bytes_max),
        concurrency: step.get("concurrency")?,
        rate: step.get("rate")?.map(rate_of).transpose()?,
        aging: step.ms("aging_ms")?,
        cancel_grace: step.ms("cancel_grace_ms")?.unwrap_or(default.cancel_grace),
        uncounted_on_crash: step.get("uncounted_on_crash")?.unwrap_or(default.uncounted_on_crash),
        ..QueueConfig::default()
    };
    config.groups.concurrency = step.get("group_concurrency")?;
    config.groups.rate = step.get("group_rate")?.map(rate_of).transpose()?;
    config.groups.weights = step.get("group_weights")?.unwrap_or_default();
    if let Some(name) = step.get::<String>("dead_letter_to")? {
        config.dead_letter_to = Some(Name::parse(&name)?);
    }
    if let Some(durability) = step.get("durability")? {
        config.durability = durability_of(&durability)?;
    }
    let mut retention = Step { fields: Fields(step.get("retention")?.unwrap_or_default()), mark: step.mark };
    let kept = &mut config.retention;
    for (name, keep) in [
        ("done", &mut kept.done),
        ("dead", &mut kept.dead),
        ("cancelled", &mut kept.cancelled),
        ("expired", &mut kept.expired),
    ] {
        if let Some(fields) = retention.get(name)? {
            let mut fields = Step { fields: Fields(fields), mark: step.mark };
            *keep = Keep {
                age: fields.ms("age_ms")?.unwrap_or(keep.age),
                count: fields.get("count")?.unwrap_or(keep.count),
            };
            fields.end()?;
        }
    }
    retention.end()?;
    step.end()?;
    Ok(config)
}

fn backoff_of(fields: Headers) -> Result<Backoff, Trouble> {
    let mut step = Step { fields: Fields(fields), mark: Instant::now() };
    let (fixed, list): (_, Option<Vec<u64>>) = (step.ms("fixed_ms")?, step.get("list_ms")?);
    let backoff = match (fixed, list) {
        (Some(fixed), None) => Backoff::Fixed(fixed),
        (None, Some(list)) => Backoff::List(list.into_iter().map(Duration::from_millis).collect()),
        _ => Backoff::Exponential {
            initial: Duration::from_millis(step.need("initial_ms")?),
            factor: step.need("factor")?,
            max: Duration::from_millis(step.need("max_ms")?),
            jitter: step.need("jitter")?,
        },
    };
    step.end()?;
    Ok(backoff)
}

fn rate_of(fields: Headers) -> Result<Rate, Trouble> {
    let mut step = Step { fields: Fields(fields), mark: Instant::now() };
    let per = Duration::from_millis(step.need("per_ms")?);
    let rate = Rate { count: step.need("count")?, per, burst: step.need("burst")? };
    step.end()?;
    Ok(rate)
}

fn durability_of(value: &Value) -> Result<Durability, Trouble> {
    match (value.as_str(), value.as_u64()) {
        (Some("os"), _) => Ok(Durability::Os),
        (Some("fsync"), _) => Ok(Durability::Fsync),
        (None, Some(ms)) => Ok(Durability::Interval(Duration::from_millis(ms))),
        _ => mismatch(format!("durability cannot be {value}")),
    }
}

// ---- what is found

type Found = Headers;

fn config_fields(config: &QueueConfig) -> Found {
    let ms = |time: Duration| Value::from(time.as_millis() as u64);
    let optional = |time: Option<Duration>| time.map_or(Value::Null, ms);
    let rate = |rate: Option<Rate>| {
        rate.map_or(
            Value::Null,
            |rate| json!({"count": rate.count, "per_ms": ms(rate.per), "burst": rate.burst}),
        )
    };
    let keep = |keep: Keep| json!({"age_ms": ms(keep.age), "count": keep.count});
    let backoff = match &config.backoff {
        Backoff::Fixed(wait) => json!({"fixed_ms": ms(*wait)}),
        Backoff::List(list) => json!({"list_ms": list.iter().map(|wait| ms(*wait)).collect::<Vec<_>>()}),
        Backoff::Exponential { initial, factor, max, jitter } => {
            json!({"initial_ms": ms(*initial), "factor": factor, "max_ms": ms(*max), "jitter": jitter})
        }
    };
    let durability = match config.durability {
        Durability::Interval(every) => ms(every),
        Durability::Fsync => json!("fsync"),
        _ => json!("os"),
    };
    let kept = &config.retention;
    let found = json!({
        "lease_ms": ms(config.lease), "max_attempts": config.max_attempts, "backoff": backoff,
        "deadline_ms": optional(config.deadline), "ttl_ms": optional(config.ttl), "max_length": config.max_length,
        "payload_bytes_max": config.payload_bytes_max, "concurrency": config.concurrency, "rate": rate(config.rate),
        "group_concurrency": config.groups.concurrency, "group_rate": rate(config.groups.rate),
        "group_weights": config.groups.weights, "aging_ms": optional(config.aging),
        "retention": {"done": keep(kept.done), "dead": keep(kept.dead), "cancelled": keep(kept.cancelled),
            "expired": keep(kept.expired)},
        "dead_letter_to": config.dead_letter_to.as_ref().map(Name::as_str), "cancel_grace_ms": ms(config.cancel_grace),
        "uncounted_on_crash": config.uncounted_on_crash, "durability": durability,
    });
    found.as_object().expect("an object").clone()
}

fn content_fields(payload: &[u8], content_type: &str, headers: &[(&str, &str)]) -> Found {
    let headers: Headers =
        headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
    let content_type = Some(content_type).filter(|text| !text.is_empty());
    let found = json!({"payload": text(payload), "content_type": content_type, "headers": headers});
    found.as_object().expect("an object").clone()
}

fn job_fields(job: &Job) -> Found {
    let mut found = content_fields(job.payload(), job.content_type(), &job.headers());
    for (name, value) in [
        ("attempt", job.attempt().into()),
        ("max_attempts", job.max_attempts().into()),
        ("priority", job.priority().into()),
        ("redrives", job.redrives().into()),
        ("group", job.group().into()),
        ("lease_ms", (job.lease().as_millis() as u64).into()),
    ] {
        found.insert(name.to_owned(), value);
    }
    found
}

fn info_fields(info: &JobInfo) -> Found {
    let found = json!({"state": info.state.name(), "priority": info.priority, "attempt": info.attempt,
        "max_attempts": info.max_attempts, "group": info.group, "unique_key": info.unique_key,
        "payload_bytes": info.payload_bytes, "redrives": info.redrives, "cancelling": info.cancelling,
        "progress": info.progress.as_deref().map(text), "has_result": info.has_result, "expires": info.expires.is_some()});
    found.as_object().expect("an object").clone()
}

/// Bytes as a text that shows ASCII as it is: a character a byte.
fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

fn compare_fields(wanted: &Headers, found: &Found) -> Done {
    for (name, wanted) in wanted {
        let Some(value) = found.get(name) else { return mismatch(format!("unknown field {name}")) };
        let mut wanted = wanted.clone();
        if matches!(name.as_str(), "payload" | "progress") && !wanted.is_null() {
            let bytes: Bytes = serde_json::from_value(wanted).or_else(|error| mismatch(error.to_string()))?;
            wanted = text(&bytes.get()).into();
        }
        let right = match (name.as_str(), &wanted) {
            ("headers" | "retention", Value::Object(wanted)) => {
                wanted.iter().all(|(name, wanted)| value.get(name).unwrap_or(&Value::Null) == wanted)
            }
            (_, Value::Object(wanted)) if wanted.contains_key("at_least") => {
                value.as_u64() >= wanted["at_least"].as_u64()
            }
            ("backoff", wanted) => same_numbers(wanted, value),
            _ => wanted == *value,
        };
        if !right {
            let shown = |value: &Value| value.to_string().chars().take(200).collect::<String>();
            return mismatch(format!("{name} should be {} and is {}", shown(&wanted), shown(value)));
        }
    }
    Ok(())
}

/// 2 and 2.0 are one number.
fn same_numbers(wanted: &Value, found: &Value) -> bool {
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(found)) => wanted
            .iter()
            .all(|(name, wanted)| found.get(name).is_some_and(|found| same_numbers(wanted, found))),
        (Value::Number(wanted), Value::Number(found)) => wanted.as_f64() == found.as_f64(),
        _ => wanted == found,
    }
}

fn between(found: Duration, least: Option<Duration>, most: Option<Duration>) -> Done {
    if least.is_some_and(|least| found < least) || most.is_some_and(|most| found > most) {
        return mismatch(format!("it is {found:?}"));
    }
    Ok(())
}

fn check_reached(wanted: Option<Durability>, found: Durability) -> Done {
    match wanted {
        Some(wanted) if found < wanted => mismatch(format!("only {found:?} was reached")),
        _ => Ok(()),
    }
}

fn check_outcome(wanted: &str, found: Enqueued) -> Done {
    let found = match found {
        Enqueued::New(_) => "new",
        Enqueued::Existing(_) => "existing",
        Enqueued::Extended(_) => "extended",
        Enqueued::Replaced { .. } => "replaced",
    };
    super::same("outcome", Some(wanted), found)
}

/// Milliseconds since 1970.
fn wall() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_millis() as u64
}
