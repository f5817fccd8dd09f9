//! A queue: everything that programs do with jobs.

use crate::{
    args::{Text, Whole, not_picklable, seconds, timeout, type_error, type_name},
    errors::{Failure, Result, invalid},
    jobs::{self, Job, NewJob, Receipt},
    mesh::Mesh,
    payload::{Encoded, Payload},
    pending::Pending,
    python,
    queue_options::{self, durability, job_id, schedule_dict, shown},
    stats,
    wait::waiting,
};
use flowmesh::{
    Durability, Error, ErrorKind,
    queue::{
        Answered, Cancelled, Cursor, EnqueueOptions, JobState, NewJobRequest, QueueConfig, QueueReply,
        QueueRequest,
    },
};
use pyo3::{
    prelude::*,
    types::{PyBool, PyBytes, PyDict, PyInt, PyList, PyString},
};
use std::sync::Arc;

/// A queue of jobs, in the host and in clients. `Mesh.declare_queue` and `Mesh.queue` give it.
///
/// What changes something returns once the change is as safe as the queue is set up to, or as `durable` says.
#[pyclass(frozen, module = "flowmesh")]
pub(crate) struct Queue {
    inner: flowmesh::Queue,
    /// Keeps the mesh open for as long as somebody has the queue.
    mesh: Py<Mesh>,
    /// What `durable` said.
    durability: Option<Durability>,
    /// Gives `Pending` answers, for an event loop.
    later: bool,
}

impl Queue {
    pub(crate) fn find(mesh: &Bound<'_, Mesh>, name: &str, request: QueueRequest<'_>) -> Result<Self> {
        let core = mesh.get().inner();
        match waiting(mesh.py(), None, |wait| core.request_queues(request, wait))?.reply {
            QueueReply::Queue { id, .. } => {
                let (inner, mesh) = (core.queue_with(id, name), mesh.clone().unbind());
                Ok(Self { inner, mesh, durability: None, later: false })
            }
            _ => Err(unexpected("mesh.queue")),
        }
    }

    fn at(&self, py: Python<'_>, durability: Durability) -> Self {
        Self {
            inner: self.inner.durable(durability),
            mesh: self.mesh.clone_ref(py),
            durability: Some(durability),
            later: self.later,
        }
    }

    pub(crate) fn durability(&self) -> Option<Durability> {
        self.durability
    }

    pub(crate) fn inner(&self) -> &flowmesh::Queue {
        &self.inner
    }

    pub(crate) fn is_later(&self) -> bool {
        self.later
    }

    /// Whether its requests are carried out in this process.
    pub(crate) fn is_host(&self) -> bool {
        self.mesh.get().inner().session() == 0
    }

    /// Asks, and gives what `read` makes of the answer; an event loop's handle gives something to wait for.
    pub(crate) fn ask<'py>(
        &self,
        py: Python<'py>,
        request: QueueRequest<'_>,
        read: impl for<'p> FnOnce(Python<'p>, flowmesh::Result<Answered>) -> Result<Bound<'p, PyAny>>
        + Send
        + 'static,
    ) -> Result<Bound<'py, PyAny>> {
        if self.later {
            let pending = py.detach(|| self.inner.start(request, None))?;
            return Pending::of(py, pending, read);
        }
        // Errors of the core are read too: a handle of a job learns from them.
        let answered = waiting(py, None, |wait| Ok(self.inner.request(request, wait)))?;
        read(py, answered)
    }

    /// What is only to be done.
    fn done<'py>(&self, py: Python<'py>, request: QueueRequest<'_>) -> Result<Bound<'py, PyAny>> {
        self.ask(py, request, |py, answered| match answered?.reply {
            QueueReply::Done => Ok(py.None().into_bound(py)),
            _ => Err(unexpected("queue.request")),
        })
    }

    fn count<'py>(&self, py: Python<'py>, request: QueueRequest<'_>) -> Result<Bound<'py, PyAny>> {
        self.ask(py, request, |py, answered| match answered?.reply {
            QueueReply::Count(count) => Ok(PyInt::new(py, count).into_any()),
            _ => Err(unexpected("queue.request")),
        })
    }

    fn enqueue_all<'py>(
        &self,
        py: Python<'py>,
        jobs: Vec<NewJobRequest<'_>>,
        durability: Option<Durability>,
        read: impl for<'p> FnOnce(Python<'p>, Vec<Receipt>) -> Result<Bound<'p, PyAny>> + Send + 'static,
    ) -> Result<Bound<'py, PyAny>> {
        let request = QueueRequest::Enqueue { queue: self.inner.id(), jobs };
        let read = reading(|py, answered| {
            let Answered { reply, reached } = answered?;
            let QueueReply::Enqueued(all) = reply else { return Err(unexpected("queue.enqueue")) };
            let durability = reached.unwrap_or(Durability::Os);
            let all =
                all.into_iter().map(|enqueued| Receipt::new(flowmesh::Receipt { enqueued, durability }));
            read(py, all.collect())
        });
        match durability {
            None => self.ask(py, request, read),
            Some(durability) => self.at(py, durability).ask(py, request, read),
        }
    }

    fn take<'py>(
        slf: &Bound<'py, Self>,
        count: usize,
        lease: Option<f64>,
        limit: Option<f64>,
        read: impl for<'p> FnOnce(Python<'p>, Vec<Bound<'p, Job>>) -> Result<Bound<'p, PyAny>> + Send + 'static,
    ) -> Result<Bound<'py, PyAny>> {
        let (py, queue) = (slf.py(), slf.get());
        let lease = lease.map(|lease| seconds("queue.reserve", "lease", lease)).transpose()?;
        let limit = timeout("queue.reserve", limit)?;
        if queue.later {
            let pending = py.detach(|| queue.inner.start_reserve(count, lease, limit))?;
            let handle = slf.clone().unbind();
            return Pending::of(py, pending, move |py, answered| {
                let handle = handle.bind(py);
                let all = handle.get().inner.jobs(answered?)?;
                read(py, wrapped(handle, all)?)
            });
        }
        let all = waiting(py, limit, |wait| queue.inner.reserve(count, lease, wait))?;
        read(py, wrapped(slf, all)?)
    }
}

fn wrapped<'py>(queue: &Bound<'py, Queue>, all: Vec<flowmesh::Job>) -> Result<Vec<Bound<'py, Job>>> {
    let wrapped = all.into_iter().map(|job| Bound::new(queue.py(), Job::new(queue, Arc::new(job))));
    Ok(wrapped.collect::<PyResult<_>>()?)
}

/// Says that a closure reads an answer for whoever has the GIL.
fn reading<F>(read: F) -> F
where
    F: for<'p> FnOnce(Python<'p>, flowmesh::Result<Answered>) -> Result<Bound<'p, PyAny>> + Send + 'static,
{
    read
}

/// An answer that does not belong to what was asked: the host breaks the rules.
pub(crate) fn unexpected(operation: &'static str) -> Failure {
    let error = Error::new(ErrorKind::Protocol, operation);
    error.with("violation", "another answer than was asked for").into()
}

#[pymethods]
impl Queue {
    /// What it is called.
    #[getter]
    fn name(&self) -> &str {
        self.inner.name()
    }

    /// The same queue; what is done through this handle, and to jobs reserved through it, gets as far as `durability`
    /// before it returns: "os", "fsync", or within so many seconds.
    #[pyo3(name = "durable")]
    fn durable_to(&self, py: Python<'_>, durability: &Bound<'_, PyAny>) -> Result<Self> {
        let durability = queue_options::durability("queue.durable", durability)?;
        Ok(self.at(py, durability))
    }

    /// Enqueues a job.
    #[pyo3(
        signature = (payload=Payload::NONE, *, durability=None, **options),
        text_signature = "($self, payload=b'', *, durability=None, **options)"
    )]
    fn enqueue<'py>(
        &self,
        py: Python<'py>,
        payload: Payload<'py>,
        durability: Option<&Bound<'_, PyAny>>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> Result<Bound<'py, PyAny>> {
        let payload = Encoded::given(payload)?;
        let options = queue_options::enqueue(options, payload.content_type())?;
        let durability = given_durability("queue.enqueue", durability)?;
        let job = NewJobRequest::new(payload.as_bytes(), &options);
        self.enqueue_all(py, vec![job], durability, |py, receipts| match receipts.into_iter().next() {
            Some(receipt) => Ok(Bound::new(py, receipt)?.into_any()),
            None => Err(unexpected("queue.enqueue")),
        })
    }

    /// Enqueues jobs in one write, all or none: payloads, which all get `options`, and `NewJob`s, which have their own.
    #[pyo3(
        signature = (jobs, *, durability=None, **options),
        text_signature = "($self, jobs, *, durability=None, **options)"
    )]
    fn enqueue_many<'py>(
        &self,
        py: Python<'py>,
        jobs: &Bound<'py, PyAny>,
        durability: Option<&Bound<'_, PyAny>>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> Result<Bound<'py, PyAny>> {
        let durability = given_durability("queue.enqueue", durability)?;
        if jobs.is_instance_of::<PyString>()
            || jobs.is_instance_of::<PyBytes>()
            || jobs.is_instance_of::<PyDict>()
        {
            return Err(
                type_error(format!("jobs must be an iterable of them, not {}", type_name(jobs))).into()
            );
        }
        let mut plain = SharedOptions::new(options)?;
        let mut all = Vec::new();
        for job in python::items(jobs)? {
            match job.cast_into::<NewJob>() {
                Ok(new) => all.push(Enqueuing { payload: new.get().bytes(py), options: Own::New(new) }),
                Err(other) => {
                    let payload = Encoded::new(&other.into_inner())?;
                    let options = Own::Shared(plain.of(payload.content_type())?);
                    let payload = payload.into_bytes().expect("a payload that was given has bytes");
                    all.push(Enqueuing { payload, options });
                }
            }
        }
        let requests = all.iter().map(|job| {
            let options = match &job.options {
                Own::New(new) => &new.get().options,
                Own::Shared(index) => &plain.all[*index].1,
            };
            NewJobRequest::new(job.payload.as_bytes(), options)
        });
        self.enqueue_all(py, requests.collect(), durability, |py, receipts| {
            Ok(PyList::new(
                py,
                receipts.into_iter().map(|one| Bound::new(py, one)).collect::<PyResult<Vec<_>>>()?,
            )?
            .into_any())
        })
    }

    /// Takes up to `count` jobs and waits for the first at most `timeout` seconds (None: for ever); none if there was
    /// none in time. Each is ours for `lease` seconds, or as it or the queue says.
    #[pyo3(
        signature = (count=Whole(1), *, lease=None, timeout=None),
        text_signature = "($self, count=1, *, lease=None, timeout=None)"
    )]
    fn reserve<'py>(
        slf: &Bound<'py, Self>,
        count: Whole,
        lease: Option<f64>,
        timeout: Option<f64>,
    ) -> Result<Bound<'py, PyAny>> {
        let count = count.fitting("queue.reserve", "count")?;
        Self::take(slf, count, lease, timeout, |py, jobs| Ok(PyList::new(py, jobs)?.into_any()))
    }

    /// Takes one job, waiting for it at most `timeout` seconds (None: for ever); None if there was none in time.
    #[pyo3(signature = (timeout=None, *, lease=None))]
    fn next<'py>(
        slf: &Bound<'py, Self>,
        timeout: Option<f64>,
        lease: Option<f64>,
    ) -> Result<Bound<'py, PyAny>> {
        Self::take(slf, 1, lease, timeout, |py, jobs| {
            Ok(jobs.into_iter().next().map_or_else(|| py.None().into_bound(py), Bound::into_any))
        })
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(slf: &Bound<'py, Self>) -> Result<Option<Bound<'py, PyAny>>> {
        match Self::next(slf, None, None) {
            Ok(job) => Ok(Some(job)),
            Err(failure) if failure.is_closed() => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Acks jobs of this queue in one write. Returns None for each, or the error that it got.
    fn ack_many<'py>(&self, py: Python<'py>, jobs: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>> {
        let mut all = Vec::new();
        for job in python::items(jobs)? {
            let Ok(job) = job.cast::<Job>() else {
                return Err(
                    type_error(format!("jobs must be of flowmesh.Job, not {}", type_name(&job))).into()
                );
            };
            let job = Arc::clone(job.get().inner());
            if job.queue().id() != self.inner.id() {
                let (found, limit) = (job.queue().name(), format_args!("jobs of {:?}", self.inner.name()));
                return Err(invalid("queue.ack", "queue", found, limit));
            }
            all.push(job);
        }
        let handles = |all: &[Arc<flowmesh::Job>]| all.to_vec();
        let kept = handles(&all);
        let queue = self.inner.clone();
        let read = reading(move |py, answered| {
            let each = queue.acked(kept.iter().map(|job| &**job), answered)?;
            let each = each.into_iter().map(|one| match one {
                Ok(()) => py.None(),
                Err(error) => crate::errors::exception(py, &error).into_value(py).into_any(),
            });
            Ok(PyList::new(py, each.collect::<Vec<_>>())?.into_any())
        });
        let pending = py.detach(|| self.inner.start_ack_many(all.iter().map(|job| &**job)))?;
        if self.later {
            return Pending::of(py, pending, read);
        }
        let answered = waiting(py, None, |wait| Ok(pending.wait(wait)));
        match answered {
            Ok(answered) => read(py, answered),
            Err(raised) => {
                // What was said may have come through; who asks again hears of it.
                let interrupted = Err(Error::new(ErrorKind::Interrupted, "queue.ack"));
                let _ = read(py, interrupted);
                Err(raised)
            }
        }
    }

    /// Numbers of the queue; taking them costs the same however long it is.
    fn stats<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyAny>> {
        self.ask(py, QueueRequest::Stats { queue: self.inner.id() }, |py, answered| match answered?.reply {
            QueueReply::Stats(stats) => Ok(stats::queue(py, &stats)?.into_any()),
            _ => Err(unexpected("queue.stats")),
        })
    }

    /// Jobs in `state`, at most `limit`, from `cursor` on: waiting ones in the order in which they will be handed out,
    /// finished ones as they were finished.
    #[pyo3(
        signature = (state, *, cursor=None, limit=Whole(100)),
        text_signature = "($self, state, *, cursor=None, limit=100)"
    )]
    fn list<'py>(
        &self,
        py: Python<'py>,
        state: Text<'_>,
        cursor: Option<Text<'_>>,
        limit: Whole,
    ) -> Result<Bound<'py, PyAny>> {
        let request = QueueRequest::List {
            queue: self.inner.id(),
            state: JobState::parse(state.0)?,
            cursor: cursor.map(|Text(cursor)| read_cursor(cursor)).transpose()?,
            most: limit.fitting("queue.list", "limit")?,
        };
        self.ask(py, request, |py, answered| match answered?.reply {
            QueueReply::Listed(listed) => {
                let dict = PyDict::new(py);
                dict.set_item("jobs", stats::list(py, &listed.jobs, stats::job)?)?;
                dict.set_item("cursor", listed.next.map(show_cursor))?;
                Ok(dict.into_any())
            }
            _ => Err(unexpected("queue.list")),
        })
    }

    /// A job, without taking it.
    fn peek<'py>(&self, py: Python<'py>, id: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>> {
        let request = QueueRequest::Info { queue: self.inner.id(), job: job_id(id)? };
        self.ask(py, request, |py, answered| match answered?.reply {
            QueueReply::Info(info) => Ok(stats::job(py, &info)?.into_any()),
            _ => Err(unexpected("queue.peek")),
        })
    }

    /// What a job carries.
    fn content<'py>(&self, py: Python<'py>, id: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>> {
        let request = QueueRequest::Content { queue: self.inner.id(), job: job_id(id)? };
        self.ask(py, request, |py, answered| match answered?.reply {
            QueueReply::Content(Some(content)) => Ok(jobs::content(py, &content)?.into_any()),
            _ => Err(unexpected("queue.content")),
        })
    }

    /// The bytes that a job was acked with; None if with nothing, or if they are not kept any more.
    fn result<'py>(&self, py: Python<'py>, id: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>> {
        let request = QueueRequest::Outcome { queue: self.inner.id(), job: job_id(id)? };
        self.ask(py, request, |py, answered| match answered?.reply {
            QueueReply::Content(Some(content)) => Ok(PyBytes::new(py, content.payload()).into_any()),
            QueueReply::Content(None) => Ok(py.None().into_bound(py)),
            _ => Err(unexpected("queue.result")),
        })
    }

    /// Cancels a job: "now" if it waited, "asked" if a worker has it and is to give it back, "finished" if it was that
    /// before. `why` is kept with it.
    #[pyo3(signature = (id, why=Text("")), text_signature = "($self, id, why='')")]
    fn cancel<'py>(
        &self,
        py: Python<'py>,
        id: &Bound<'py, PyAny>,
        why: Text<'_>,
    ) -> Result<Bound<'py, PyAny>> {
        let request = QueueRequest::Cancel { queue: self.inner.id(), job: job_id(id)?, why: why.0.into() };
        self.ask(py, request, |py, answered| match answered?.reply {
            QueueReply::Cancelled(cancelled) => {
                let name = match cancelled {
                    Cancelled::Now => "now",
                    Cancelled::Asked => "asked",
                    Cancelled::Finished(_) => "finished",
                };
                Ok(PyString::new(py, name).into_any())
            }
            _ => Err(unexpected("queue.cancel")),
        })
    }

    /// Makes these finished jobs ready again, as if they were new; all or none.
    fn redrive<'py>(&self, py: Python<'py>, ids: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>> {
        if ids.is_instance_of::<PyString>() {
            return Err(type_error("ids must be an iterable of them, not str").into());
        }
        let jobs = python::items(ids)?.iter().map(job_id).collect::<Result<Vec<_>>>()?;
        self.done(py, QueueRequest::Redrive { queue: self.inner.id(), jobs })
    }

    /// Makes up to `most` dead jobs (None: all) ready again, those that have been dead longest first; returns how many.
    #[pyo3(signature = (most=None))]
    fn redrive_dead<'py>(&self, py: Python<'py>, most: Option<Whole>) -> Result<Bound<'py, PyAny>> {
        let most = most.map_or(Ok(u64::MAX), |most| most.fitting("queue.redrive_dead", "most"))?;
        self.count(py, QueueRequest::RedriveDead { queue: self.inner.id(), most })
    }

    /// Makes `count` dead jobs ready again at `rate`, from now on; 0 ends it.
    fn redrive_at<'py>(
        &self,
        py: Python<'py>,
        count: Whole,
        rate: &Bound<'py, PyAny>,
    ) -> Result<Bound<'py, PyAny>> {
        let request = QueueRequest::RedriveAt {
            queue: self.inner.id(),
            count: count.fitting("queue.redrive_at", "count")?,
            rate: queue_options::rate("queue.redrive_at", "rate", rate)?,
        };
        self.done(py, request)
    }

    /// Removes all jobs in `state`; returns how many. Leased jobs are cancelled, not purged.
    fn purge<'py>(&self, py: Python<'py>, state: Text<'_>) -> Result<Bound<'py, PyAny>> {
        self.count(py, QueueRequest::Purge { queue: self.inner.id(), state: JobState::parse(state.0)? })
    }

    /// Removes one job that no worker has.
    fn remove<'py>(&self, py: Python<'py>, id: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>> {
        self.done(py, QueueRequest::Remove { queue: self.inner.id(), job: job_id(id)? })
    }

    /// Hands out nothing until `resume`; what workers have they keep.
    fn pause<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyAny>> {
        self.done(py, QueueRequest::Pause { queue: self.inner.id() })
    }

    /// Ends pausing and draining.
    fn resume<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyAny>> {
        self.done(py, QueueRequest::Resume { queue: self.inner.id() })
    }

    /// Takes nothing new until `resume`; returns whether all that was there is finished.
    fn drain<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyAny>> {
        self.ask(py, QueueRequest::Drain { queue: self.inner.id() }, |py, answered| match answered?.reply {
            QueueReply::Drained(idle) => Ok(PyBool::new(py, idle).to_owned().into_any()),
            _ => Err(unexpected("queue.drain")),
        })
    }

    /// Enqueues a job again and again, as `cron` says in the time zone `zone`. Takes the place of the schedule of its
    /// name, if there is one.
    #[pyo3(
        signature = (
            name, cron, payload=Payload::NONE, *, zone=Text("UTC"), misfire=Text("run_once"), overlap=Text("allow"),
            jitter=0.0, options=None
        ),
        text_signature = "($self, name, cron, payload=b'', *, zone='UTC', misfire='run_once', overlap='allow', jitter=0.0, options=None)"
    )]
    #[expect(clippy::too_many_arguments, reason = "they are Python's keyword arguments")]
    fn schedule<'py>(
        &self,
        py: Python<'py>,
        name: Text<'_>,
        cron: Text<'_>,
        payload: Payload<'py>,
        zone: Text<'_>,
        misfire: Text<'_>,
        overlap: Text<'_>,
        jitter: f64,
        options: Option<&Bound<'py, PyAny>>,
    ) -> Result<Bound<'py, PyAny>> {
        let payload = Encoded::given(payload)?;
        let schedule =
            queue_options::schedule(name.0, cron.0, &payload, zone.0, misfire.0, overlap.0, jitter, options)?;
        self.done(py, QueueRequest::Schedule { queue: self.inner.id(), schedule: Box::new(schedule) })
    }

    /// Removes a schedule; jobs that it enqueued stay.
    fn unschedule<'py>(&self, py: Python<'py>, name: Text<'_>) -> Result<Bound<'py, PyAny>> {
        self.done(py, QueueRequest::Unschedule { queue: self.inner.id(), name: name.0.into() })
    }

    /// All schedules, and when each fires next.
    fn schedules<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyAny>> {
        self.ask(py, QueueRequest::Schedules { queue: self.inner.id() }, |py, answered| {
            match answered?.reply {
                QueueReply::Schedules(all) => {
                    let all = all.iter().map(|(schedule, next)| schedule_dict(py, schedule, *next));
                    Ok(PyList::new(py, all.collect::<Result<Vec<_>>>()?)?.into_any())
                }
                _ => Err(unexpected("queue.schedules")),
            }
        })
    }

    /// How it is set up.
    fn config<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyAny>> {
        self.ask(py, QueueRequest::Config { queue: self.inner.id() }, |py, answered| match answered?.reply {
            QueueReply::Config(config) => Ok(queue_options::config_dict(py, &config)?.into_any()),
            _ => Err(unexpected("queue.config")),
        })
    }

    /// Sets it up anew, for jobs that are there too, from now on: what is not given is the default.
    #[pyo3(signature = (**config))]
    fn configure<'py>(
        &self,
        py: Python<'py>,
        config: Option<&Bound<'py, PyDict>>,
    ) -> Result<Bound<'py, PyAny>> {
        let mut settings = QueueConfig::default();
        queue_options::configure(&mut settings, config)?;
        self.done(py, QueueRequest::Configure { queue: self.inner.id(), config: Box::new(settings) })
    }

    fn __repr__(&self) -> String {
        format!("<Queue {:?}>", self.inner.name())
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(not_picklable("Queue", "connect in the other process"))
    }

    /// The same queue, whose operations give `Pending` answers.
    fn _later(&self, py: Python<'_>) -> Self {
        Self {
            inner: self.inner.clone(),
            mesh: self.mesh.clone_ref(py),
            durability: self.durability,
            later: true,
        }
    }
}

fn given_durability(operation: &'static str, given: Option<&Bound<'_, PyAny>>) -> Result<Option<Durability>> {
    given.map(|value| durability(operation, value)).transpose()
}

/// One of the jobs of `enqueue_many`.
struct Enqueuing<'py> {
    payload: Bound<'py, PyBytes>,
    options: Own<'py>,
}

enum Own<'py> {
    New(Bound<'py, NewJob>),
    /// Which of the `SharedOptions`.
    Shared(usize),
}

/// The options that payloads have in common, once for each content type.
struct SharedOptions<'a, 'py> {
    given: Option<&'a Bound<'py, PyDict>>,
    all: Vec<(Option<&'static str>, EnqueueOptions)>,
}

impl<'a, 'py> SharedOptions<'a, 'py> {
    fn new(given: Option<&'a Bound<'py, PyDict>>) -> Result<Self> {
        // Refused even if there is no job.
        queue_options::enqueue(given, None)?;
        Ok(Self { given, all: Vec::new() })
    }

    fn of(&mut self, content_type: Option<&'static str>) -> Result<usize> {
        if let Some(index) = self.all.iter().position(|(found, _)| *found == content_type) {
            return Ok(index);
        }
        self.all.push((content_type, queue_options::enqueue(self.given, content_type)?));
        Ok(self.all.len() - 1)
    }
}

/// A cursor as text: opaque to who holds it.
fn show_cursor(cursor: Cursor) -> String {
    cursor.to_words().map(|word| format!("{word:x}")).join("-")
}

fn read_cursor(text: &str) -> Result<Cursor> {
    let words: Option<Vec<u64>> = text.split('-').map(|word| u64::from_str_radix(word, 16).ok()).collect();
    match words.and_then(|words| <[u64; 4]>::try_from(words).ok()) {
        Some(words) => Ok(Cursor::from_words(words)),
        None => Err(invalid("queue.list", "cursor", shown(text), "as the last listing gave it")),
    }
}
