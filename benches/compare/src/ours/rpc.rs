//! A call from the client to a service in the host, 64 B each way.

use std::io::BufRead;
use std::time::Duration;

use flowmesh::{Mesh, Reply, ServeOptions, WaitStrategy};

use super::Host;
use crate::contender::{Figure, Peer, Result, argument, say, say_ready};
use crate::payload::{BLOCKING_CALLS, SPINNING_CALLS, check, small, small_from, time_each};
use crate::pin::{self, Side};

pub(crate) fn blocking() -> Result<Figure> {
    round("ours.rpc.block", WaitStrategy::Block)
}

pub(crate) fn spinning() -> Result<Figure> {
    round("ours.rpc", WaitStrategy::default())
}

pub(crate) fn blocking_child(args: &[String]) -> Result<()> {
    child(args, WaitStrategy::Block, BLOCKING_CALLS)
}

pub(crate) fn spinning_child(args: &[String]) -> Result<()> {
    child(args, WaitStrategy::default(), SPINNING_CALLS)
}

fn round(name: &str, strategy: WaitStrategy) -> Result<Figure> {
    let host = Host::open(strategy)?;
    let mut peer = Peer::spawn(name, &[host.argument()?])?;
    peer.wait_ready()?;
    // The thread that serves inherits the pin.
    pin::caller(Side::Parent);
    let service = host.mesh.serve(SERVICE, ServeOptions::default(), |request| {
        let seed = check(&small_from(request.payload()));
        Ok(Reply::from(bytemuck::bytes_of(&small(seed + 1))))
    })?;
    peer.tell("serving")?;
    let figure = peer.line()?.parse()?;
    peer.finish()?;
    drop(service);
    Ok(figure)
}

fn child(args: &[String], strategy: WaitStrategy, calls: u64) -> Result<()> {
    let mesh = Mesh::builder().wait_strategy(strategy).connect(argument::<String>(args, 0)?)?;
    say_ready()?;
    std::io::stdin().lock().read_line(&mut String::new())?;
    pin::caller(Side::Child);
    let samples = time_each(calls, |seed| {
        let answer = mesh.call(SERVICE, bytemuck::bytes_of(&small(seed)), PATIENCE)?;
        assert_eq!(check(&small_from(answer.payload())), seed + 1);
        Ok(())
    })?;
    say(Figure::latency(samples))
}

const SERVICE: &str = "compare.echo";
const PATIENCE: Duration = Duration::from_secs(20);
