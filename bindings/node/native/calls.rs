//! What JavaScript can call. `src/native.ts` has the same list with types.
#![forbid(unsafe_code)]

use crate::{
    jobs::Made,
    js::{Answer, Call, Function, TextBuffer},
    options::{Opening, Serving, Subscribing, millis, parse},
    pack, queues,
    state::{Batch, Served, State, Subscribed, await_answer, take_answer},
};
use flowmesh::{
    CallOptions, Error, ErrorKind, HandlerError, Mesh, PendingCall, PublishOptions, Result, Role,
    ServiceInfo, Stats,
};
use serde_json::{Value, json};
use std::time::Duration;

/// Every function by the name JavaScript knows it by.
pub(crate) const ALL: &[(&str, Function)] = &[
    ("start", start),
    ("hold", hold),
    ("kinds", kinds),
    ("ready", ready),
    ("awaitJob", await_job),
    ("takeJob", take_job),
    ("open", open),
    ("connect", connect),
    ("connectTcp", connect_tcp),
    ("info", info),
    ("isClosed", is_closed),
    ("listenTcp", listen_tcp),
    ("services", services),
    ("stats", stats),
    ("closeMesh", close_mesh),
    ("startCloseMesh", start_close_mesh),
    ("publish", publish),
    ("startPublish", start_publish),
    ("startPublishMany", start_publish_many),
    ("subscribe", subscribe),
    ("subscriptionStats", subscription_stats),
    ("closeSubscription", close_subscription),
    ("drain", drain),
    ("startFail", start_fail),
    ("release", release),
    ("serve", serve),
    ("startCloseService", start_close_service),
    ("next", next),
    ("linger", linger),
    ("reply", reply),
    ("startReply", start_reply),
    ("failRequest", fail_request),
    ("watchCancel", watch_cancel),
    ("call", call),
    ("startCall", start_call),
    ("takeCall", take_call),
    ("awaitCall", await_call),
    ("watchCall", watch_call),
    ("cancelCall", cancel_call),
    ("declareQueue", queues::declare_queue),
    ("findQueue", queues::find_queue),
    ("queueNames", queues::queue_names),
    ("forgetQueue", queues::forget_queue),
    ("askQueue", queues::ask_queue),
    ("schedule", queues::schedule),
    ("enqueueJobs", queues::enqueue_jobs),
    ("startEnqueueJobs", queues::start_enqueue_jobs),
    ("reserve", queues::reserve),
    ("checkLease", queues::check_lease),
    ("ackJobs", queues::ack_jobs),
    ("ackAndReserve", queues::ack_and_reserve),
    ("ackAndReserveOne", queues::ack_and_reserve_one),
    ("settle", queues::settle),
    ("extend", queues::extend),
    ("progress", queues::progress),
    ("remaining", queues::remaining),
    ("isCancelled", queues::is_cancelled),
    ("watchJob", queues::watch_job),
    ("forgetJob", queues::forget_job),
    ("takeReply", queues::take_reply),
    ("awaitReply", queues::await_reply),
    ("watchReply", queues::watch_reply),
    ("cancelReply", queues::cancel_reply),
    ("inspect", queues::inspect),
];

// ---------- the environment

fn start(state: &State, call: &Call) -> Result<Answer> {
    state.begin(call.link()?)?;
    Ok(Answer::Nothing)
}

fn hold(state: &State, call: &Call) -> Result<Answer> {
    call.hold(&state.link()?.wake, call.flag(0)?);
    Ok(Answer::Nothing)
}

fn kinds(_: &State, _: &Call) -> Result<Answer> {
    let kinds = ErrorKind::ALL.iter().map(|kind| {
        json!({
            "code": kind.code(), "kind": kind.name(), "number": kind.number(),
            "retryable": kind.is_retryable(), "meaning": kind.meaning(), "advice": kind.advice(),
        })
    });
    Ok(Answer::Text(Value::Array(kinds.collect()).to_string()))
}

fn ready(state: &State, _: &Call) -> Result<Answer> {
    Ok(Answer::Number(state.take_ready()? as f64))
}

fn await_job(state: &State, call: &Call) -> Result<Answer> {
    Ok(Answer::Flag(state.jobs()?.wait(call.id(0)?, millis(call.number(1)?))))
}

fn take_job(state: &State, call: &Call) -> Result<Answer> {
    let id = call.id(0)?;
    let made = state.jobs()?.take(id).unwrap_or_else(|| Err(Error::new(ErrorKind::Closed, "node.job")))?;
    Ok(state.settle(id, made)?.map_or(Answer::Nothing, Answer::Text))
}

pub(crate) fn job(state: &State, work: impl FnOnce() -> Result<Made> + Send + 'static) -> Result<Answer> {
    let id = state.new_id();
    state.jobs()?.start(id, work)?;
    Ok(Answer::Number(id as f64))
}

// ---------- meshes

fn open(state: &State, call: &Call) -> Result<Answer> {
    let (dir, builder) = (text(call, 0)?, parse::<Opening>(&text(call, 1)?)?.builder());
    job(state, move || builder.open(dir).map(Made::Mesh))
}

fn connect(state: &State, call: &Call) -> Result<Answer> {
    let (dir, builder) = (text(call, 0)?, parse::<Opening>(&text(call, 1)?)?.builder());
    job(state, move || builder.connect(dir).map(Made::Mesh))
}

fn connect_tcp(state: &State, call: &Call) -> Result<Answer> {
    let (address, secret) = (text(call, 0)?, call.bytes(1)?.to_vec());
    let builder = parse::<Opening>(&text(call, 2)?)?.builder();
    job(state, move || builder.connect_tcp(&address, &secret).map(Made::Mesh))
}

pub(crate) fn mesh(state: &State, call: &Call, operation: &'static str) -> Result<Mesh> {
    state.meshes.with(call.id(0)?, operation, |mesh| Ok(mesh.clone()))
}

fn info(state: &State, call: &Call) -> Result<Answer> {
    let mesh = mesh(state, call, "mesh.info")?;
    let info = json!({
        "role": if matches!(mesh.role(), Role::Host) { "host" } else { "client" },
        "session": mesh.session(),
        "directory": mesh.directory().map(|dir| dir.to_string_lossy().into_owned()),
        "hostPid": mesh.host_pid(),
        "maxMessageBytes": mesh.max_message_bytes(),
    });
    Ok(Answer::Text(info.to_string()))
}

fn is_closed(state: &State, call: &Call) -> Result<Answer> {
    Ok(Answer::Flag(mesh(state, call, "mesh.is_closed").map_or(true, |mesh| mesh.is_closed())))
}

fn listen_tcp(state: &State, call: &Call) -> Result<Answer> {
    let mesh = mesh(state, call, "mesh.listen_tcp")?;
    let (address, secret) = (text(call, 1)?, call.bytes(2)?.to_vec());
    job(state, move || mesh.listen_tcp(&address, &secret).map(|bound| Made::Text(bound.to_string())))
}

fn services(state: &State, call: &Call) -> Result<Answer> {
    let mesh = mesh(state, call, "mesh.services")?;
    job(state, move || Ok(Made::Text(services_json(&mesh.services()?).to_string())))
}

/// Services with each instance's number as text: JavaScript's numbers could not hold it.
fn services_json(services: &[ServiceInfo]) -> Value {
    let mut value = json!(services);
    for (service, found) in services.iter().enumerate() {
        for (index, instance) in found.instances.iter().enumerate() {
            value[service]["instances"][index]["instance"] = instance.instance.to_string().into();
        }
    }
    value
}

fn stats(state: &State, call: &Call) -> Result<Answer> {
    let mesh = mesh(state, call, "mesh.stats")?;
    job(state, move || mesh.stats().map(|stats| Made::Text(stats_json(&stats).to_string())))
}

/// Statistics with each histogram as its count, mean, maximum and quantiles.
fn stats_json(stats: &Stats) -> Value {
    let mut value = json!(stats);
    for (index, service) in stats.services.iter().enumerate() {
        let latency = &service.latency;
        let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        value["services"][index]["latency"] = json!({
            "count": latency.count(), "mean_ns": ns(latency.mean()), "max_ns": ns(latency.max()),
            "p50_ns": ns(latency.quantile(0.5)), "p90_ns": ns(latency.quantile(0.9)),
            "p99_ns": ns(latency.quantile(0.99)), "p999_ns": ns(latency.quantile(0.999)),
        });
    }
    value
}

fn close_mesh(state: &State, call: &Call) -> Result<Answer> {
    if let Some(mesh) = state.meshes.take(call.id(0)?) {
        mesh.close();
    }
    Ok(Answer::Nothing)
}

fn start_close_mesh(state: &State, call: &Call) -> Result<Answer> {
    let mesh = state.meshes.take(call.id(0)?);
    job(state, move || {
        if let Some(mesh) = mesh {
            mesh.close();
        }
        Ok(Made::Nothing)
    })
}

// ---------- events

/// Arguments 3 to 7: headers, priority, ttl, delay, timeout. All may be left out; a ttl or delay of 0 stands
/// for none.
fn publish_options(call: &Call) -> Result<PublishOptions> {
    let mut options = PublishOptions::default();
    if call.is_missing(4) {
        return Ok(options);
    }
    options.headers = call.pairs(3)?;
    options.priority = call.number(4)? as u8;
    let time = |ms: f64| (ms > 0.0).then(|| millis(ms));
    options.ttl = time(call.number(5)?);
    options.delay = time(call.number(6)?);
    if !call.is_missing(7) {
        options.timeout = millis(call.number(7)?);
    }
    Ok(options)
}

fn publish(state: &State, call: &Call) -> Result<Answer> {
    let (mut subject, mut payload) = (TextBuffer::default(), TextBuffer::default());
    let subject = call.text(1, &mut subject)?;
    let payload = call.payload(2, &mut payload)?;
    let mut options = publish_options(call)?;
    options.timeout = SYNC_WAIT + Duration::from_micros(payload.len() as u64 / SYNC_BYTES_PER_US);
    let publish = |mesh: &mut Mesh| mesh.publish_with(subject, payload, &options);
    state.meshes.with(call.id(0)?, "mesh.publish", publish).map(Answer::Big)
}

/// The same, waiting for room on a thread.
fn start_publish(state: &State, call: &Call) -> Result<Answer> {
    let mesh = mesh(state, call, "mesh.publish")?;
    let subject = text(call, 1)?;
    let payload = call.payload(2, &mut TextBuffer::default())?.to_vec();
    let options = publish_options(call)?;
    job(state, move || mesh.publish_with(&subject, &payload, &options).map(|id| Made::Text(id.to_string())))
}

/// Arguments 1 and 2: the memory with the packed events, and how many bytes they take.
fn start_publish_many(state: &State, call: &Call) -> Result<Answer> {
    let mesh = mesh(state, call, "mesh.publish_many")?;
    let packed = call.bytes(1)?.get(..call.id(2)? as usize).unwrap_or_default().to_vec();
    let options = publish_options(call)?;
    job(state, move || mesh.publish_many(&pack::read_events(&packed)?, &options).map(|()| Made::Nothing))
}

fn subscribe(state: &State, call: &Call) -> Result<Answer> {
    let mesh = mesh(state, call, "mesh.subscribe")?;
    let (pattern, options) = (text(call, 1)?, parse::<Subscribing>(&text(call, 2)?)?.options()?);
    job(state, move || mesh.subscribe_with(&pattern, options).map(Made::Subscription))
}

fn subscription_stats(state: &State, call: &Call) -> Result<Answer> {
    let stats =
        state.subscriptions.with(call.id(0)?, "subscription.stats", |it| Ok(it.subscription.stats()))?;
    Ok(Answer::Text(json!(stats).to_string()))
}

fn close_subscription(state: &State, call: &Call) -> Result<Answer> {
    drop(state.subscriptions.take(call.id(0)?));
    Ok(Answer::Nothing)
}

/// Arguments: the subscription, the most events, whether all may be reported as failed later, or the last only.
fn drain(state: &State, call: &Call) -> Result<Answer> {
    let (max, keep) = (call.number(1)? as usize, call.flag(2)?);
    let mut scratch = state.scratch()?;
    let drain = |it: &mut Subscribed| it.drain(max, keep, scratch.bytes(), || state.new_id());
    state.subscriptions.with(call.id(0)?, "subscription.receive", drain).map(batch)
}

/// A number of bytes in the scratch memory (a multiple of 8) plus 1 when more may wait, or a buffer with one
/// large record.
fn batch(batch: Batch) -> Answer {
    match batch {
        Batch::Packed { used, more } => Answer::Number((used + usize::from(more)) as f64),
        Batch::Large(message, extra) => Answer::Record(message, extra),
    }
}

/// Arguments: the subscription, the event's key, the failure's type and message. A job: a dead letter may have
/// to wait for room.
fn start_fail(state: &State, call: &Call) -> Result<Answer> {
    let (key, error) = (call.id(1)?, handler_error(call, 2)?);
    let kept = state.subscriptions.with(call.id(0)?, "subscription.fail", |it| Ok(it.take_kept(key)))?;
    let Some((subscription, delivery)) = kept else {
        return Err(Error::new(ErrorKind::InvalidArgument, "subscription.fail")
            .with("message", "an event of another subscription, or one that is settled already"));
    };
    job(state, move || subscription.fail(delivery, &error).map(|()| Made::Nothing))
}

fn release(state: &State, call: &Call) -> Result<Answer> {
    let key = call.id(1)?;
    // A subscription that was closed meanwhile has forgotten it already.
    let _ = state.subscriptions.with(call.id(0)?, "subscription.release", |it| {
        it.take_kept(key);
        Ok(())
    });
    Ok(Answer::Nothing)
}

// ---------- rpc

fn serve(state: &State, call: &Call) -> Result<Answer> {
    let mesh = mesh(state, call, "mesh.serve")?;
    let (name, options) = (text(call, 1)?, parse::<Serving>(&text(call, 2)?)?.options());
    job(state, move || mesh.service(&name, options).map(Made::Service))
}

/// A job: the host is told, and has to answer.
fn start_close_service(state: &State, call: &Call) -> Result<Answer> {
    let service = state.services.take(call.id(0)?);
    job(state, move || {
        drop(service);
        Ok(Made::Nothing)
    })
}

/// Arguments: the service, the most microseconds to wait for a request.
fn linger(state: &State, call: &Call) -> Result<Answer> {
    let (id, moment) = (call.id(0)?, millis(call.number(1)? / 1000.0));
    let ready = state.ready()?;
    state.services.with(id, "service.next", |it| Ok(Answer::Flag(it.linger(moment, ready, id))))
}

/// Arguments: the service, the most requests.
fn next(state: &State, call: &Call) -> Result<Answer> {
    let max = call.number(1)? as usize;
    let mut scratch = state.scratch()?;
    let next = |it: &mut Served| it.next(max, scratch.bytes(), &state.requests, || state.new_id());
    state.services.with(call.id(0)?, "service.next", next).map(batch)
}

/// A request that is gone was answered by its end: its caller knows.
fn reply(state: &State, call: &Call) -> Result<Answer> {
    let mut buffer = TextBuffer::default();
    let (payload, headers) = (call.payload(1, &mut buffer)?, call.pairs(2)?);
    if let Some(request) = state.requests.take(call.id(0)?) {
        request.reply(payload, &headers)?;
    }
    Ok(Answer::Nothing)
}

/// The same on a thread, for answers that may have to wait for room.
fn start_reply(state: &State, call: &Call) -> Result<Answer> {
    let (payload, headers) = (call.payload(1, &mut TextBuffer::default())?.to_vec(), call.pairs(2)?);
    let request = state.requests.take(call.id(0)?);
    job(state, move || {
        request.map_or(Ok(()), |request| request.reply(&payload, &headers))?;
        Ok(Made::Nothing)
    })
}

fn fail_request(state: &State, call: &Call) -> Result<Answer> {
    let error = handler_error(call, 1)?;
    if let Some(request) = state.requests.take(call.id(0)?) {
        request.fail(&error)?;
    }
    Ok(Answer::Nothing)
}

fn watch_cancel(state: &State, call: &Call) -> Result<Answer> {
    let id = call.id(0)?;
    let ready = state.ready()?;
    state.requests.with(id, "request.watch_cancel", |request| {
        request.watch_cancel(ready, id);
        Ok(())
    })?;
    Ok(Answer::Nothing)
}

fn call(state: &State, call: &Call) -> Result<Answer> {
    let (mut name, mut payload) = (TextBuffer::default(), TextBuffer::default());
    let name = call.text(1, &mut name)?;
    let payload = call.payload(2, &mut payload)?;
    let options = CallOptions { headers: call.pairs(3)?, timeout: millis(call.number(4)?) };
    let pending =
        state.meshes.with(call.id(0)?, "mesh.call", |mesh| mesh.start_call(name, payload, &options))?;
    let id = state.new_id();
    state.settle(id, Made::Call(pending))?;
    Ok(Answer::Number(id as f64))
}

/// The same on a thread, for requests that may have to wait for room.
fn start_call(state: &State, call: &Call) -> Result<Answer> {
    let mesh = mesh(state, call, "mesh.call")?;
    let (name, payload) = (text(call, 1)?, call.payload(2, &mut TextBuffer::default())?.to_vec());
    let options = CallOptions { headers: call.pairs(3)?, timeout: millis(call.number(4)?) };
    job(state, move || mesh.start_call(&name, &payload, &options).map(Made::Call))
}

/// Nothing while there is no answer.
fn take_call(state: &State, call: &Call) -> Result<Answer> {
    let mut scratch = state.scratch()?;
    answer_of(state, call.id(0)?, |it| take_answer(it, scratch.bytes()))
}

/// The same, waiting at most so many microseconds.
fn await_call(state: &State, call: &Call) -> Result<Answer> {
    let moment = millis(call.number(1)? / 1000.0);
    let mut scratch = state.scratch()?;
    answer_of(state, call.id(0)?, |it| await_answer(it, moment, scratch.bytes()))
}

fn answer_of(
    state: &State,
    id: u64,
    take: impl FnOnce(&mut PendingCall) -> Result<Option<Batch>>,
) -> Result<Answer> {
    let taken = state.calls.with(id, "mesh.call", take);
    if !matches!(taken, Ok(None)) {
        state.calls.take(id);
    }
    Ok(taken?.map_or(Answer::Nothing, batch))
}

/// From now on the answer is announced.
fn watch_call(state: &State, call: &Call) -> Result<Answer> {
    let id = call.id(0)?;
    let ready = state.ready()?;
    state.calls.with(id, "mesh.call", |it| {
        it.watch(ready, id);
        Ok(Answer::Nothing)
    })
}

fn cancel_call(state: &State, call: &Call) -> Result<Answer> {
    // Dropping a call cancels it.
    drop(state.calls.take(call.id(0)?));
    Ok(Answer::Nothing)
}

fn handler_error(call: &Call, at: usize) -> Result<HandlerError> {
    Ok(HandlerError { kind: text(call, at)?, message: text(call, at + 1)? })
}

pub(crate) fn text(call: &Call, index: usize) -> Result<String> {
    call.text(index, &mut TextBuffer::default()).map(str::to_owned)
}

/// The longest that publishing holds up the JavaScript thread: a burst meets room again in far less.
const SYNC_WAIT: Duration = Duration::from_millis(10);
/// What a large payload adds to that: it needs room several times over.
const SYNC_BYTES_PER_US: u64 = 100;
