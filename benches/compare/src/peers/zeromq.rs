//! ZeroMQ over ipc: PUSH/PULL of 64 B one way, and PUB/SUB to many.

use std::time::Instant;

use crate::contender::{Figure, Peer, Result, argument, say, say_ready};
use crate::payload::{FANOUT_EVENTS, RATE_MESSAGES, SMALL_WORDS, check, fill, small_from};

pub(crate) fn rate() -> Result<Figure> {
    let context = zmq::Context::new();
    let socket = context.socket(zmq::PUSH)?;
    socket.set_sndhwm(HIGH_WATER_MARK)?;
    let address = unique_address();
    socket.bind(&address)?;
    let mut peer = Peer::spawn("zeromq", &[address])?;
    peer.wait_ready()?;
    let mut send = |count: u64| -> Result<()> {
        for seed in 0..count {
            socket.send(message(seed), 0)?;
        }
        peer.line().map(drop)
    };
    send(RATE_MESSAGES / 10)?;
    let start = Instant::now();
    send(RATE_MESSAGES)?;
    let elapsed = start.elapsed();
    peer.finish()?;
    Ok(Figure::rate(RATE_MESSAGES, elapsed))
}

pub(crate) fn rate_child(args: &[String]) -> Result<()> {
    let context = zmq::Context::new();
    let socket = context.socket(zmq::PULL)?;
    socket.set_rcvhwm(HIGH_WATER_MARK)?;
    socket.connect(&argument::<String>(args, 0)?)?;
    say_ready()?;
    for count in [RATE_MESSAGES / 10, RATE_MESSAGES] {
        receive(&socket, count)?;
        say("received")?;
    }
    Ok(())
}

pub(crate) fn fanout_1() -> Result<Figure> {
    fanout("zeromq.fanout.1", 1)
}

pub(crate) fn fanout_8() -> Result<Figure> {
    fanout("zeromq.fanout.8", 8)
}

pub(crate) fn fanout_32() -> Result<Figure> {
    fanout("zeromq.fanout.32", 32)
}

/// Its queues hold all events, so none is dropped and publishing waits for nobody.
fn fanout(name: &str, subscribers: usize) -> Result<Figure> {
    let context = zmq::Context::new();
    let socket = context.socket(zmq::XPUB)?;
    socket.set_sndhwm(HIGH_WATER_MARK)?;
    socket.set_xpub_verbose(true)?;
    let address = unique_address();
    socket.bind(&address)?;
    let mut peers = (0..subscribers)
        .map(|_| Peer::spawn(name, std::slice::from_ref(&address)))
        .collect::<Result<Vec<_>>>()?;
    // One subscription arrives per subscriber, and only then does it get what is sent.
    for _ in 0..subscribers {
        socket.recv_bytes(0)?;
    }
    let mut send = |count: u64| -> Result<Instant> {
        for seed in 0..count {
            socket.send(message(seed), 0)?;
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

pub(crate) fn fanout_child(args: &[String]) -> Result<()> {
    let context = zmq::Context::new();
    let socket = context.socket(zmq::SUB)?;
    socket.set_rcvhwm(HIGH_WATER_MARK)?;
    socket.set_subscribe(b"")?;
    socket.connect(&argument::<String>(args, 0)?)?;
    for count in [FANOUT_EVENTS / 10, FANOUT_EVENTS] {
        receive(&socket, count)?;
        say("received")?;
    }
    Ok(())
}

fn message(seed: u64) -> zmq::Message {
    let mut words = [0; SMALL_WORDS];
    fill(&mut words, seed);
    let mut message = zmq::Message::with_size(size_of_val(&words));
    message.copy_from_slice(bytemuck::bytes_of(&words));
    message
}

fn receive(socket: &zmq::Socket, count: u64) -> Result<()> {
    let mut message = zmq::Message::new();
    for seed in 0..count {
        socket.recv(&mut message, 0)?;
        assert_eq!(check(&small_from(&message)), seed);
    }
    Ok(())
}

/// In the abstract namespace, so nothing stays behind.
fn unique_address() -> String {
    format!("ipc://@flowmesh-compare-{}", std::process::id())
}

/// Deep enough that neither side waits for the other often; the default of 1,000 is slower.
const HIGH_WATER_MARK: i32 = 100_000;
const _: () = assert!(FANOUT_EVENTS < HIGH_WATER_MARK as u64);
