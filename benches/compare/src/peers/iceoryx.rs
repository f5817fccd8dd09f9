//! iceoryx2: request-response busy-waiting, as in its own benchmark, and event + publish-subscribe blocking.

use iceoryx2::prelude::*;

use crate::contender::{Figure, Peer, Result, argument, say, say_ready};
use crate::payload::{
    PACED_EVENTS, SPINNING_CALLS, STOP, Small, check, pace_events, small, time_each, time_events,
};
use crate::pin::{self, Side};

/// A request and its response, each 64 B; both sides look again and again without pausing.
pub(crate) fn rpc() -> Result<Figure> {
    let (node, name) = (node()?, unique_name());
    let service =
        node.service_builder(&name.as_str().try_into()?).request_response::<Small, Small>().create()?;
    let client = service.client_builder().create()?;
    let mut peer = Peer::spawn("iceoryx2.rpc", &[name])?;
    peer.wait_ready()?;
    pin::caller(Side::Parent);
    let call = |seed: u64| -> Result<u64> {
        let pending = client.loan_uninit()?.write_payload(small(seed)).send()?;
        loop {
            if let Some(response) = pending.receive()? {
                return Ok(check(&*response));
            }
        }
    };
    let samples = time_each(SPINNING_CALLS, |seed| {
        assert_eq!(call(seed)?, seed + 1);
        Ok(())
    })?;
    call(STOP)?;
    peer.finish()?;
    Ok(Figure::latency(samples))
}

pub(crate) fn rpc_child(args: &[String]) -> Result<()> {
    let (node, name) = (node()?, argument::<String>(args, 0)?);
    let service =
        node.service_builder(&name.as_str().try_into()?).request_response::<Small, Small>().open()?;
    let server = service.server_builder().create()?;
    say_ready()?;
    pin::caller(Side::Child);
    loop {
        if let Some(request) = server.receive()? {
            let seed = check(&*request);
            request.loan_uninit()?.write_payload(small(seed + 1)).send()?;
            if seed == STOP {
                // The response belongs to this process; it stays until the parent has read it.
                std::io::read_to_string(std::io::stdin())?;
                return Ok(());
            }
        }
    }
}

/// The shape of its own benchmark: a request one way, then a request of another service back; no responses.
pub(crate) fn requests() -> Result<Figure> {
    let (node, name) = (node()?, unique_name());
    let there =
        node.service_builder(&name.as_str().try_into()?).request_response::<Small, Small>().create()?;
    let back_name = format!("{name}/back");
    let back =
        node.service_builder(&back_name.as_str().try_into()?).request_response::<Small, Small>().create()?;
    let client = there.client_builder().create()?;
    let server = back.server_builder().create()?;
    let mut peer = Peer::spawn("iceoryx2.requests", &[name])?;
    peer.wait_ready()?;
    pin::caller(Side::Parent);
    let call = |seed: u64| -> Result<u64> {
        client.loan_uninit()?.write_payload(small(seed)).send()?;
        loop {
            if let Some(request) = server.receive()? {
                return Ok(check(&*request));
            }
        }
    };
    let samples = time_each(SPINNING_CALLS, |seed| {
        assert_eq!(call(seed)?, seed + 1);
        Ok(())
    })?;
    call(STOP)?;
    peer.finish()?;
    Ok(Figure::latency(samples))
}

pub(crate) fn requests_child(args: &[String]) -> Result<()> {
    let (node, name) = (node()?, argument::<String>(args, 0)?);
    let there = node.service_builder(&name.as_str().try_into()?).request_response::<Small, Small>().open()?;
    let back_name = format!("{name}/back");
    let back =
        node.service_builder(&back_name.as_str().try_into()?).request_response::<Small, Small>().open()?;
    let server = there.server_builder().create()?;
    let client = back.client_builder().create()?;
    say_ready()?;
    pin::caller(Side::Child);
    loop {
        if let Some(request) = server.receive()? {
            let seed = check(&*request);
            drop(request);
            client.loan_uninit()?.write_payload(small(seed + 1)).send()?;
            if seed == STOP {
                std::io::read_to_string(std::io::stdin())?;
                return Ok(());
            }
        }
    }
}

/// A sample, then a notification; the subscriber sleeps in its listener and then takes the sample.
pub(crate) fn event() -> Result<Figure> {
    let (node, name) = (node()?, unique_name());
    let samples = node
        .service_builder(&name.as_str().try_into()?)
        .publish_subscribe::<Small>()
        .subscriber_max_buffer_size(BUFFERED_SAMPLES)
        .create()?;
    let events = node.service_builder(&name.as_str().try_into()?).event().create()?;
    let publisher = samples.publisher_builder().create()?;
    let notifier = events.notifier_builder().create()?;
    let mut peer = Peer::spawn("iceoryx2.event", &[name])?;
    peer.wait_ready()?;
    pin::caller(Side::Parent);
    pace_events(PACED_EVENTS, |now| {
        publisher.loan_uninit()?.write_payload(small(now)).send()?;
        notifier.notify()?;
        Ok(())
    })?;
    let figure = peer.line()?.parse()?;
    peer.finish()?;
    Ok(figure)
}

pub(crate) fn event_child(args: &[String]) -> Result<()> {
    let (node, name) = (node()?, argument::<String>(args, 0)?);
    let samples = node.service_builder(&name.as_str().try_into()?).publish_subscribe::<Small>().open()?;
    let events = node.service_builder(&name.as_str().try_into()?).event().open()?;
    let subscriber = samples.subscriber_builder().create()?;
    let listener = events.listener_builder().create()?;
    say_ready()?;
    pin::caller(Side::Child);
    let receive = || -> Result<u64> {
        loop {
            if let Some(sample) = subscriber.receive()? {
                return Ok(check(&*sample));
            }
            listener.blocking_wait(|_| {})?;
        }
    };
    let samples = time_events(PACED_EVENTS, receive)?;
    say(Figure::latency(samples))
}

fn node() -> Result<Node<ipc::Service>> {
    set_log_level(LogLevel::Error);
    Ok(NodeBuilder::new().create()?)
}

/// A name that no other round uses.
fn unique_name() -> String {
    format!("flowmesh-compare/{}", std::process::id())
}

/// Far more than a subscriber can fall behind; beyond it samples would be overwritten.
const BUFFERED_SAMPLES: usize = 1_024;
