//! 64 B events from the host to 1, 8 or 32 clients.

use std::time::Instant;

use flowmesh::{Mesh, SubscribeOptions, WaitStrategy};

use super::{Host, SUBJECT, whole};
use crate::contender::{Figure, Peer, Result, argument, say, say_ready};
use crate::payload::{FANOUT_EVENTS, check, small, small_from};

pub(crate) fn to_1() -> Result<Figure> {
    round("ours.fanout.1", 1)
}

pub(crate) fn to_8() -> Result<Figure> {
    round("ours.fanout.8", 8)
}

pub(crate) fn to_32() -> Result<Figure> {
    round("ours.fanout.32", 32)
}

fn round(name: &str, subscribers: usize) -> Result<Figure> {
    let host = Host::open(WaitStrategy::default())?;
    let mut peers =
        (0..subscribers).map(|_| Peer::spawn(name, &[host.argument()?])).collect::<Result<Vec<_>>>()?;
    peers.iter_mut().try_for_each(Peer::wait_ready)?;
    let mut send = |count: u64| -> Result<Instant> {
        for seed in 0..count {
            host.mesh.publish(SUBJECT, bytemuck::bytes_of(&small(seed)))?;
        }
        let published = Instant::now();
        peers.iter_mut().try_for_each(|peer| peer.line().map(drop))?;
        Ok(published)
    };
    send(FANOUT_EVENTS / 10)?;
    let start = Instant::now();
    let published = send(FANOUT_EVENTS)?;
    let read = start.elapsed();
    peers.into_iter().try_for_each(Peer::finish)?;
    Ok(Figure::fan_out(FANOUT_EVENTS, published - start, read))
}

pub(crate) fn child(args: &[String]) -> Result<()> {
    let mesh = Mesh::connect(argument::<String>(args, 0)?)?;
    let options = SubscribeOptions { capacity: CAPACITY, ..SubscribeOptions::default() };
    let events = mesh.subscribe_with(SUBJECT, options)?;
    say_ready()?;
    for count in [FANOUT_EVENTS / 10, FANOUT_EVENTS] {
        for seed in 0..count {
            assert_eq!(check(&small_from(whole(&events.receive(None)?))), seed);
        }
        say("received")?;
    }
    Ok(())
}

/// Holds all events, as ZeroMQ's queues do, so none is dropped and publishing waits for nobody.
const CAPACITY: usize = 65_536;
const _: () = assert!(FANOUT_EVENTS < CAPACITY as u64);
