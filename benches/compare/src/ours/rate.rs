//! 64 B events from the host to one client, lossless: published one by one, or many at once.

use std::time::Instant;

use flowmesh::{Mesh, PublishOptions, Wait, WaitStrategy};

use super::{Host, SUBJECT, subscribe, whole};
use crate::contender::{Figure, Peer, Result, argument, say, say_ready};
use crate::payload::{RATE_MESSAGES, Small, check, small, small_from};

pub(crate) fn single() -> Result<Figure> {
    round("ours.rate.single", |mesh, count| {
        for seed in 0..count {
            mesh.publish(SUBJECT, bytemuck::bytes_of(&small(seed)))?;
        }
        Ok(())
    })
}

pub(crate) fn batched() -> Result<Figure> {
    let mut batch: Vec<(&str, [u8; size_of::<Small>()])> = Vec::with_capacity(BATCH as usize);
    round("ours.rate.batched", |mesh, count| {
        for start in (0..count).step_by(BATCH as usize) {
            batch.clear();
            let seeds = start..count.min(start + BATCH);
            batch.extend(seeds.map(|seed| (SUBJECT, bytemuck::cast(small(seed)))));
            mesh.publish_many(&batch, &PublishOptions::default())?;
        }
        Ok(())
    })
}

fn round(name: &str, mut publish: impl FnMut(&Mesh, u64) -> Result<()>) -> Result<Figure> {
    let host = Host::open(WaitStrategy::default())?;
    let mut peer = Peer::spawn(name, &[host.argument()?])?;
    peer.wait_ready()?;
    let mut send = |count: u64| -> Result<()> {
        publish(&host.mesh, count)?;
        peer.line().map(drop)
    };
    send(RATE_MESSAGES / 10)?;
    let start = Instant::now();
    send(RATE_MESSAGES)?;
    let elapsed = start.elapsed();
    peer.finish()?;
    Ok(Figure::rate(RATE_MESSAGES, elapsed))
}

pub(crate) fn single_child(args: &[String]) -> Result<()> {
    let mesh = Mesh::connect(argument::<String>(args, 0)?)?;
    let events = subscribe(&mesh, CAPACITY)?;
    say_ready()?;
    for count in [RATE_MESSAGES / 10, RATE_MESSAGES] {
        for seed in 0..count {
            assert_eq!(check(&small_from(whole(&events.receive(None)?))), seed);
        }
        say("received")?;
    }
    Ok(())
}

pub(crate) fn batched_child(args: &[String]) -> Result<()> {
    let mesh = Mesh::connect(argument::<String>(args, 0)?)?;
    let events = subscribe(&mesh, CAPACITY)?;
    say_ready()?;
    let mut received = Vec::with_capacity(CAPACITY);
    for count in [RATE_MESSAGES / 10, RATE_MESSAGES] {
        let mut expected = 0..count;
        while !expected.is_empty() {
            events.receive_many(BATCH as usize, &mut Wait::forever(), &mut received)?;
            for delivery in received.drain(..) {
                assert_eq!(Some(check(&small_from(whole(&delivery)))), expected.next());
            }
        }
        say("received")?;
    }
    Ok(())
}

const BATCH: u64 = 256;
/// How far the subscriber may fall behind before the publisher waits for it.
const CAPACITY: usize = 65_536;
