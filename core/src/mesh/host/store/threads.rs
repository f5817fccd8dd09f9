//! The two threads: one answers, one tends the files.
#![forbid(unsafe_code)]

use super::*;

/// `flowmesh-queue`: flushes for all who wait, gives up for those who waited long enough, ticks.
pub(super) fn run_queues(host: &Weak<Host>, opened: &Arc<Opened>) {
    loop {
        let (parked, overdue, chore, ticks, closing) = {
            let mut work = opened.work.lock();
            loop {
                let now = Moment(os::time::boot_ns());
                let mut overdue = Vec::new();
                while let Some(&(until, id)) = work.deadlines.first()
                    && until <= now
                {
                    if let Some(waiter) = work.waiters.get(&id).cloned() {
                        work.remove(id);
                        overdue.push((id, waiter));
                    } else {
                        work.deadlines.remove(&(until, id));
                    }
                }
                let (parked, chore) = (std::mem::take(&mut work.parked), work.chores.pop_front());
                let closing = work.closing;
                let ticks = work.due <= now;
                if ticks {
                    work.due = Moment::NEVER;
                }
                if !parked.is_empty() || !overdue.is_empty() || chore.is_some() || ticks {
                    break (parked, overdue, chore, ticks, closing);
                }
                if work.closing {
                    return;
                }
                let first = work.deadlines.first().map_or(Moment::NEVER, |(until, _)| *until);
                let next = work.due.min(first);
                if next == Moment::NEVER {
                    opened.changed.wait(&mut work);
                } else {
                    opened.changed.wait_for(&mut work, next.since(now).min(TICK_SLICE));
                }
            }
        };
        // Not by way of the host, which does not have it before its threads run: what is due then would be forgotten.
        let Some(host) = host.upgrade() else { return };
        host.flush_parked(opened, parked);
        for (id, waiter) in overdue {
            host.leave(opened, waiter.queue, id);
            if let Who::Call(to) = waiter.who {
                host.reply(&to, Ok(Answered { reply: QueueReply::Jobs(Vec::new()), reached: None }));
            }
        }
        match chore {
            Some(chore) if closing => host.reply(&chore.to, Err(host.engine.closed_error("queue.request"))),
            Some(chore) => host.do_chore(opened, chore),
            None => {}
        }
        if ticks && !closing {
            host.tick_queues(opened);
        }
    }
}

impl Host {
    fn flush_parked(&self, opened: &Arc<Opened>, parked: Vec<Parked>) {
        let Some(last) = parked.iter().map(|one| one.lsn).max() else { return };
        let reached = opened.ledger.sync(last, Durability::Fsync);
        for Parked { to, reply, .. } in parked {
            let answered = match &reached {
                Ok(reached) => Ok(Answered { reply, reached: Some(*reached) }),
                Err(error) => Err(error.duplicate()),
            };
            self.prepare_reply(&to, answered);
        }
        self.settle();
    }

    fn do_chore(&self, opened: &Arc<Opened>, mut chore: Chore) {
        match opened.slice(chore.queue, chore.what, chore.done) {
            Ok(outcome) => {
                let wanted = chore.to.durability.unwrap_or(outcome.durability);
                chore.lsn = chore.lsn.max(outcome.lsn);
                let count = self.follow(opened, outcome);
                chore.done += count;
                if count == 0 {
                    self.finish(opened, chore.to, QueueReply::Count(chore.done), chore.lsn, wanted);
                } else {
                    opened.work.lock().chores.push_back(chore);
                }
            }
            Err(error) => self.reply(&chore.to, Err(error)),
        }
    }

    fn tick_queues(&self, opened: &Arc<Opened>) {
        match opened.queues.tick(times()) {
            Ok(outcome) => {
                let next = self.follow(opened, outcome);
                opened.due(next);
            }
            // A full or failing disk: nothing is lost by being late.
            Err(_) => opened.due(Some(Moment(os::time::boot_ns()) + STORE_REST)),
        }
    }

    /// One part of a checkpoint after the other, while others go on.
    pub(super) fn checkpoint(&self, opened: &Arc<Opened>) -> Result<()> {
        let mut checkpoint = opened.ledger.checkpoint()?;
        let mut imaging = Imaging::default();
        while !opened.queues.image(times(), &mut imaging, &mut checkpoint)? {
            self.engine.check_open("ledger.checkpoint")?;
        }
        checkpoint.finish()
    }

    /// Writes again what is still needed of a segment that hardly is. Whether there was one.
    fn clean(&self, opened: &Arc<Opened>) -> Result<bool> {
        let Some(cleanable) = opened.ledger.cleanable() else { return Ok(false) };
        cleanable.entries(|place, entry| {
            self.engine.check_open("ledger.clean")?;
            let outcome = opened.queues.rewrite(times(), place, entry)?;
            self.follow(opened, outcome);
            Ok(())
        })?;
        Ok(true)
    }
}

/// `flowmesh-store`: the next segment, flushes by interval, checkpoints, cleaning.
pub(super) fn run_store(host: &Weak<Host>, opened: &Arc<Opened>) {
    let mut rests = false;
    loop {
        let Some(here) = host.upgrade() else { return };
        let mut next = opened.ledger.tend(opened.clock.now());
        if !rests && opened.ledger.frozen().is_none() {
            let checkpointed = opened.ledger.status().checkpoint_due.then(|| here.checkpoint(opened));
            let cleaned = here.clean(opened);
            rests = matches!(checkpointed, Some(Err(_))) || cleaned.is_err();
            if matches!(cleaned, Ok(true)) || matches!(checkpointed, Some(Ok(()))) {
                next = Some(Moment(0));
            }
        } else {
            rests = false;
        }
        drop(here);
        let mut tend = opened.tend.lock();
        if tend.closing {
            return;
        }
        if !tend.wanted && next != Some(Moment(0)) {
            let limit = if rests { Some(STORE_REST) } else { None };
            let pause = next.map(|next| next.since(opened.clock.now()));
            match [limit, pause].into_iter().flatten().min() {
                Some(pause) => {
                    opened.tend_changed.wait_for(&mut tend, pause);
                }
                None => opened.tend_changed.wait(&mut tend),
            }
        }
        tend.wanted = false;
    }
}

/// The thread that ticks looks at the clock at least so often while something is due: a machine that slept is late.
const TICK_SLICE: Duration = Duration::from_secs(10);
/// How long the store thread rests after a full or failing disk.
const STORE_REST: Duration = Duration::from_secs(1);
