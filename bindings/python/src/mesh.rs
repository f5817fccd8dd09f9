//! The mesh: opening, publishing, calling.

use crate::{
    args::{self, Text, Whole, not_picklable, seconds, type_error, type_name},
    call::PendingCall,
    errors::{Result, invalid},
    message::Message,
    options::Breaker,
    payload::{Encoded, Payload},
    python,
    queue::{self, Queue},
    queue_options, stats,
    wait::waiting,
};
use flowmesh::{
    CallOptions, MeshBuilder, PublishOptions, Role, ServeOptions, SubscribeOptions, WaitStrategy,
    queue::{QueueConfig, QueueReply, QueueRequest},
};
use pyo3::{
    exceptions::PyTypeError,
    prelude::*,
    types::{PyBool, PyBytes, PyDict, PyList, PyString},
};
use std::path::PathBuf;

/// This process's end of a mesh. `flowmesh.open` and `flowmesh.connect` make it.
#[pyclass(frozen, subclass, module = "flowmesh._native")]
pub(crate) struct Mesh {
    inner: flowmesh::Mesh,
}

#[pymethods]
impl Mesh {
    /// `how` is open, connect or connect_tcp, `target` the directory or the address.
    #[new]
    #[pyo3(signature = (how, target, secret=None, **options))]
    fn new(
        py: Python<'_>,
        how: Text<'_>,
        target: &Bound<'_, PyAny>,
        secret: Option<&Bound<'_, PyAny>>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> Result<Self> {
        let mut builder = flowmesh::Mesh::builder().language("python");
        for (name, value) in options.into_iter().flatten() {
            if !value.is_none() {
                builder = set(builder, name.extract()?, &value)?;
            }
        }
        let inner = match how.0 {
            "open" => {
                let directory: PathBuf = target.extract()?;
                py.detach(|| builder.open(directory))
            }
            "connect" => {
                let directory: PathBuf = target.extract()?;
                py.detach(|| builder.connect(directory))
            }
            "connect_tcp" => {
                let Text(address) = target.extract()?;
                let secret = args::secret(secret.ok_or_else(|| type_error("connect_tcp needs a secret"))?)?;
                py.detach(|| builder.connect_tcp(address, &secret))
            }
            other => return Err(invalid("mesh", "how", other, "open, connect or connect_tcp")),
        }?;
        Ok(Self { inner })
    }

    /// "host" or "client".
    #[getter]
    fn role(&self) -> &'static str {
        match self.inner.role() {
            Role::Host => "host",
            Role::Client => "client",
        }
    }

    /// The session's number; 0 for the host.
    #[getter]
    fn session(&self) -> u32 {
        self.inner.session()
    }

    /// The directory it was opened on, or None when connected over TCP.
    #[getter]
    fn directory(&self) -> Option<PathBuf> {
        self.inner.directory()
    }

    /// The process id of the host.
    #[getter]
    fn host_pid(&self) -> u32 {
        self.inner.host_pid()
    }

    /// The largest payload.
    #[getter]
    fn max_message_bytes(&self) -> usize {
        self.inner.max_message_bytes()
    }

    /// Whether it was closed, or cut off from its host.
    #[getter]
    fn closed(&self) -> bool {
        self.inner.is_closed()
    }

    /// Lets clients connect over TCP; returns the address it listens on. Host only.
    fn listen_tcp(&self, py: Python<'_>, address: Text<'_>, secret: &Bound<'_, PyAny>) -> Result<String> {
        let secret = args::secret(secret)?;
        Ok(py.detach(|| self.inner.listen_tcp(address.0, &secret))?.to_string())
    }

    /// Publishes one event; returns its id.
    #[pyo3(
        signature = (subject, payload=Payload::NONE, *, headers=None, priority=Whole(4), ttl=None, delay=None, timeout=Some(30.0)),
        text_signature = "($self, subject, payload=b'', *, headers=None, priority=4, ttl=None, delay=None, timeout=30.0)"
    )]
    #[expect(clippy::too_many_arguments, reason = "they are Python's keyword arguments")]
    fn publish(
        &self,
        py: Python<'_>,
        subject: Text<'_>,
        payload: Payload<'_>,
        headers: Option<&Bound<'_, PyAny>>,
        priority: Whole,
        ttl: Option<f64>,
        delay: Option<f64>,
        timeout: Option<f64>,
    ) -> Result<u64> {
        let payload = Encoded::given(payload)?;
        let mut options = publish_options("mesh.publish", headers, priority, ttl, delay, timeout)?;
        payload.describe(&mut options.headers);
        let (subject, payload) = (subject.0, payload.as_bytes());
        waiting(py, None, |wait| self.inner.publish_wait(subject, payload, &options, wait))
    }

    /// Publishes many events in one go, all checked before the first is sent: pairs of subject and payload,
    /// or a subject and a list of payloads.
    #[pyo3(
        signature = (events, payloads=None, *, headers=None, priority=Whole(4), ttl=None, delay=None, timeout=Some(30.0)),
        text_signature = "($self, events, payloads=None, *, headers=None, priority=4, ttl=None, delay=None, timeout=30.0)"
    )]
    #[expect(clippy::too_many_arguments, reason = "they are Python's keyword arguments")]
    fn publish_many(
        &self,
        py: Python<'_>,
        events: &Bound<'_, PyAny>,
        payloads: Option<&Bound<'_, PyAny>>,
        headers: Option<&Bound<'_, PyAny>>,
        priority: Whole,
        ttl: Option<f64>,
        delay: Option<f64>,
        timeout: Option<f64>,
    ) -> Result<()> {
        let options = publish_options("mesh.publish_many", headers, priority, ttl, delay, timeout)?;
        if let Some(payloads) = payloads {
            let Text(subject) = events.extract()?;
            let payloads = python::items(payloads)?.iter().map(Encoded::new).collect::<Result<Vec<_>>>()?;
            let bytes = payloads.iter().map(Encoded::as_bytes).collect::<Vec<_>>();
            return self.send(py, bytes.iter().map(|bytes| (subject, *bytes)), options, &payloads);
        }
        let pairs = python::items(events)?.iter().map(pair).collect::<Result<Vec<_>>>()?;
        let subjects = pairs
            .iter()
            .map(|(subject, _)| Ok(subject.extract::<Text<'_>>()?.0))
            .collect::<Result<Vec<_>>>()?;
        let payloads = pairs.iter().map(|(_, payload)| Encoded::new(payload)).collect::<Result<Vec<_>>>()?;
        let events = subjects.into_iter().zip(payloads.iter().map(Encoded::as_bytes)).collect::<Vec<_>>();
        self.send(py, events.iter().copied(), options, &payloads)
    }

    /// Calls a service and waits for its answer.
    #[pyo3(
        signature = (service, payload=Payload::NONE, *, timeout=Some(30.0), headers=None),
        text_signature = "($self, service, payload=b'', *, timeout=30.0, headers=None)"
    )]
    fn call(
        &self,
        py: Python<'_>,
        service: Text<'_>,
        payload: Payload<'_>,
        timeout: Option<f64>,
        headers: Option<&Bound<'_, PyAny>>,
    ) -> Result<Message> {
        let payload = Encoded::given(payload)?;
        let options = call_options(&payload, timeout, headers)?;
        let (service, payload) = (service.0, payload.as_bytes());
        let reply = waiting(py, None, |wait| self.inner.call_with(service, payload, &options, wait))?;
        Ok(Message::once(reply))
    }

    /// Starts a call and goes on; the answer is taken from what is returned.
    #[pyo3(
        signature = (service, payload=Payload::NONE, *, timeout=Some(30.0), headers=None),
        text_signature = "($self, service, payload=b'', *, timeout=30.0, headers=None)"
    )]
    fn start_call(
        &self,
        py: Python<'_>,
        service: Text<'_>,
        payload: Payload<'_>,
        timeout: Option<f64>,
        headers: Option<&Bound<'_, PyAny>>,
    ) -> Result<PendingCall> {
        let payload = Encoded::given(payload)?;
        let options = call_options(&payload, timeout, headers)?;
        let (service, payload) = (service.0, payload.as_bytes());
        Ok(PendingCall::new(py.detach(|| self.inner.start_call(service, payload, &options))?))
    }

    /// Makes sure that there is a queue of this name, and gives it.
    #[pyo3(signature = (name, **config))]
    fn declare_queue(
        slf: &Bound<'_, Self>,
        name: Text<'_>,
        config: Option<&Bound<'_, PyDict>>,
    ) -> Result<Queue> {
        let mut settings = QueueConfig::default();
        queue_options::configure(&mut settings, config)?;
        let request = QueueRequest::Declare { name: name.0.into(), config: Box::new(settings) };
        Queue::find(slf, name.0, request)
    }

    /// The queue of this name.
    fn queue(slf: &Bound<'_, Self>, name: Text<'_>) -> Result<Queue> {
        Queue::find(slf, name.0, QueueRequest::Find { name: name.0.into() })
    }

    /// The names of all queues.
    fn queues(&self, py: Python<'_>) -> Result<Vec<String>> {
        let answered = waiting(py, None, |wait| self.inner.request_queues(QueueRequest::Names, wait))?;
        match answered.reply {
            QueueReply::Names(names) => Ok(names),
            _ => Err(queue::unexpected("mesh.queues")),
        }
    }

    /// The services there are, with their instances.
    fn services<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyList>> {
        let services = py.detach(|| self.inner.services())?;
        Ok(stats::services(py, &services)?)
    }

    /// What the host has counted, at one moment.
    fn stats<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyDict>> {
        let stats = py.detach(|| self.inner.stats())?;
        Ok(stats::mesh(py, &stats)?)
    }

    /// Leaves the mesh. Who waits gets ClosedError; clients of a host see DisconnectedError. Closing twice is fine.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.inner.close());
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(not_picklable("Mesh", "connect in the other process"))
    }
}

impl Mesh {
    pub(crate) fn subscribe(
        &self,
        py: Python<'_>,
        pattern: &str,
        options: SubscribeOptions,
    ) -> Result<flowmesh::Subscription> {
        Ok(py.detach(|| self.inner.subscribe_with(pattern, options))?)
    }

    pub(crate) fn inner(&self) -> &flowmesh::Mesh {
        &self.inner
    }

    pub(crate) fn serve(
        &self,
        py: Python<'_>,
        name: &str,
        options: ServeOptions,
    ) -> Result<flowmesh::Service> {
        Ok(py.detach(|| self.inner.service(name, options))?)
    }

    fn send<'a>(
        &self,
        py: Python<'_>,
        events: impl Iterator<Item = (&'a str, &'a [u8])> + Clone + Send,
        mut options: PublishOptions,
        payloads: &[Encoded<'_>],
    ) -> Result<()> {
        let Some(first) = payloads.first() else { return Ok(()) };
        if let Some(other) = payloads.iter().find(|payload| payload.content_type() != first.content_type()) {
            let [found, wanted] = [other, first].map(|payload| payload.content_type().unwrap_or("bytes"));
            return Err(invalid(
                "mesh.publish_many",
                "content_type",
                found,
                format_args!("{wanted}, as the first event has"),
            ));
        }
        first.describe(&mut options.headers);
        waiting(py, None, |wait| self.inner.publish_many_wait(events, &options, wait))
    }
}

type Pair<'py> = (Bound<'py, PyAny>, Bound<'py, PyAny>);

/// A subject and a payload, as a tuple or list of two.
fn pair<'py>(event: &Bound<'py, PyAny>) -> Result<Pair<'py>> {
    let refused = || type_error(format!("an event must be (subject, payload), not {}", type_name(event)));
    if event.is_instance_of::<PyString>() || event.is_instance_of::<PyBytes>() {
        return Err(refused().into());
    }
    let items = python::items(event)
        .map_err(|error| if error.is_instance_of::<PyTypeError>(event.py()) { refused() } else { error })?;
    match <[Bound<'_, PyAny>; 2]>::try_from(items) {
        Ok([subject, payload]) => Ok((subject, payload)),
        Err(_) => Err(refused().into()),
    }
}

fn publish_options(
    operation: &'static str,
    headers: Option<&Bound<'_, PyAny>>,
    priority: Whole,
    ttl: Option<f64>,
    delay: Option<f64>,
    timeout: Option<f64>,
) -> Result<PublishOptions> {
    Ok(PublishOptions {
        headers: args::headers(headers)?,
        priority: priority.within(operation, "priority", 0..=9)?,
        ttl: ttl.map(|ttl| seconds(operation, "ttl", ttl)).transpose()?,
        delay: delay.map(|delay| seconds(operation, "delay", delay)).transpose()?,
        timeout: args::deadline(operation, timeout)?,
    })
}

fn call_options(
    payload: &Encoded<'_>,
    timeout: Option<f64>,
    headers: Option<&Bound<'_, PyAny>>,
) -> Result<CallOptions> {
    let mut headers = args::headers(headers)?;
    payload.describe(&mut headers);
    Ok(CallOptions { timeout: args::deadline("mesh.call", timeout)?, headers })
}

/// Applies one of the options of `open` and `connect`.
fn set(builder: MeshBuilder, name: &str, value: &Bound<'_, PyAny>) -> Result<MeshBuilder> {
    let operation = "mesh.open";
    let count = |argument| value.extract::<Whole>()?.fitting::<usize>(operation, argument);
    Ok(match name {
        "name" => builder.name(value.extract::<Text<'_>>()?.0),
        "max_message_bytes" => builder.max_message_bytes(count("max_message_bytes")?),
        "ring_bytes" => builder.ring_bytes(count("ring_bytes")?),
        "max_sessions" => builder.max_sessions(count("max_sessions")?),
        "wait" => builder.wait_strategy(wait_strategy(value)?),
        "connect_timeout" => {
            builder.connect_timeout(seconds(operation, "connect_timeout", value.extract()?)?)
        }
        "shared_memory" => builder.shared_memory(value.extract()?),
        "repair" => builder.repair(value.extract()?),
        "breaker" => match value.cast::<PyBool>() {
            Ok(on) if on.is_true() => builder,
            Ok(_) => builder.breaker(None),
            Err(_) => builder.breaker(Some(value.extract::<Breaker>().map_err(PyErr::from)?.inner)),
        },
        other => return Err(type_error(format!("unexpected option {other:?}")).into()),
    })
}

/// `"adaptive"`, `"block"`, `"spin"`, or the seconds between two looks.
fn wait_strategy(value: &Bound<'_, PyAny>) -> Result<WaitStrategy> {
    if let Ok(interval) = value.extract::<f64>() {
        return Ok(WaitStrategy::Timed { interval: seconds("mesh.open", "wait", interval)? });
    }
    match value.extract::<Text<'_>>()?.0 {
        "adaptive" => Ok(WaitStrategy::default()),
        "block" => Ok(WaitStrategy::Block),
        "spin" => Ok(WaitStrategy::Spin),
        other => Err(invalid("mesh.open", "wait", other, "adaptive, block, spin, or seconds")),
    }
}
