//! 1 MiB events from the host to one client, lossless.

use std::time::Instant;

use flowmesh::{Mesh, WaitStrategy};

use super::{Host, SUBJECT, subscribe, whole};
use crate::contender::{Figure, Peer, Result, argument, say, say_ready};
use crate::payload::{LARGE_BYTES, LARGE_MESSAGES, check_bytes, fill};

pub(crate) fn round() -> Result<Figure> {
    let host = Host::open(WaitStrategy::default())?;
    let mut peer = Peer::spawn("ours.bulk", &[host.argument()?])?;
    peer.wait_ready()?;
    let mut message = vec![0_u64; LARGE_BYTES / 8];
    let mut send = |count: u64| -> Result<()> {
        for seed in 0..count {
            fill(&mut message, seed);
            host.mesh.publish(SUBJECT, bytemuck::cast_slice(&message))?;
        }
        peer.line().map(drop)
    };
    send(LARGE_MESSAGES / 10)?;
    let start = Instant::now();
    send(LARGE_MESSAGES)?;
    let elapsed = start.elapsed();
    peer.finish()?;
    Ok(Figure::rate(LARGE_MESSAGES * LARGE_BYTES as u64, elapsed))
}

pub(crate) fn child(args: &[String]) -> Result<()> {
    let mesh = Mesh::connect(argument::<String>(args, 0)?)?;
    let events = subscribe(&mesh, CAPACITY)?;
    say_ready()?;
    for count in [LARGE_MESSAGES / 10, LARGE_MESSAGES] {
        for seed in 0..count {
            let delivery = events.receive(None)?;
            assert_eq!(whole(&delivery).len(), LARGE_BYTES);
            assert_eq!(check_bytes(whole(&delivery)), seed);
        }
        say("received")?;
    }
    Ok(())
}

/// Messages under way; as many as fit a socket buffer of 4 MiB.
const CAPACITY: usize = 4;
