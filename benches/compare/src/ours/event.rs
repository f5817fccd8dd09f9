//! An event from the host to a client that sleeps until it comes. The event carries the time it was sent.

use flowmesh::{Mesh, WaitStrategy};

use super::{Host, SUBJECT, subscribe, whole};
use crate::contender::{Figure, Peer, Result, argument, say, say_ready};
use crate::payload::{PACED_EVENTS, check, pace_events, small, small_from, time_events};
use crate::pin::{self, Side};

pub(crate) fn round() -> Result<Figure> {
    let host = Host::open(WaitStrategy::Block)?;
    let mut peer = Peer::spawn("ours.event", &[host.argument()?])?;
    peer.wait_ready()?;
    pin::caller(Side::Parent);
    pace_events(PACED_EVENTS, |now| {
        host.mesh.publish(SUBJECT, bytemuck::bytes_of(&small(now)))?;
        Ok(())
    })?;
    let figure = peer.line()?.parse()?;
    peer.finish()?;
    Ok(figure)
}

pub(crate) fn child(args: &[String]) -> Result<()> {
    let mesh = Mesh::builder().wait_strategy(WaitStrategy::Block).connect(argument::<String>(args, 0)?)?;
    let events = subscribe(&mesh, CAPACITY)?;
    say_ready()?;
    pin::caller(Side::Child);
    let samples = time_events(PACED_EVENTS, || Ok(check(&small_from(whole(&events.receive(None)?)))))?;
    say(Figure::latency(samples))
}

/// Far more than a subscriber can fall behind.
const CAPACITY: usize = 1_024;
