//! A Unix stream socket, blocking: a ping-pong of 64 B, and 1 MiB messages one way.

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use crate::contender::{Figure, Peer, Result, argument, say_ready};
use crate::payload::{
    BLOCKING_CALLS, LARGE_BYTES, LARGE_MESSAGES, SMALL_WORDS, STOP, check, fill, small, time_each,
};
use crate::pin::{self, Side};

pub(crate) fn round_trip() -> Result<Figure> {
    let (mut socket, peer) = connected("uds")?;
    pin::caller(Side::Parent);
    let mut call = |seed: u64| -> Result<u64> {
        socket.write_all(bytemuck::bytes_of(&small(seed)))?;
        let mut response = [0_u64; SMALL_WORDS];
        socket.read_exact(bytemuck::bytes_of_mut(&mut response))?;
        Ok(check(&response))
    };
    let samples = time_each(BLOCKING_CALLS, |seed| {
        assert_eq!(call(seed)?, seed + 1);
        Ok(())
    })?;
    call(STOP)?;
    peer.finish()?;
    Ok(Figure::latency(samples))
}

pub(crate) fn round_trip_child(args: &[String]) -> Result<()> {
    let mut socket = inherited(args)?;
    say_ready()?;
    pin::caller(Side::Child);
    loop {
        let mut request = [0_u64; SMALL_WORDS];
        socket.read_exact(bytemuck::bytes_of_mut(&mut request))?;
        let seed = check(&request);
        socket.write_all(bytemuck::bytes_of(&small(seed + 1)))?;
        if seed == STOP {
            return Ok(());
        }
    }
}

pub(crate) fn bulk() -> Result<Figure> {
    let (mut socket, peer) = connected("uds.bulk")?;
    let mut message = vec![0_u64; LARGE_BYTES / 8];
    let mut send = |count: u64| -> Result<()> {
        for seed in 0..count {
            fill(&mut message, seed);
            socket.write_all(bytemuck::cast_slice(&message))?;
        }
        // The receiver answers with one byte when it has read that many.
        Ok(socket.read_exact(&mut [0])?)
    };
    send(LARGE_MESSAGES / 10)?;
    let start = Instant::now();
    send(LARGE_MESSAGES)?;
    let elapsed = start.elapsed();
    peer.finish()?;
    Ok(Figure::rate(LARGE_MESSAGES * LARGE_BYTES as u64, elapsed))
}

pub(crate) fn bulk_child(args: &[String]) -> Result<()> {
    let mut socket = inherited(args)?;
    say_ready()?;
    let mut message = vec![0_u64; LARGE_BYTES / 8];
    for count in [LARGE_MESSAGES / 10, LARGE_MESSAGES] {
        for seed in 0..count {
            socket.read_exact(bytemuck::cast_slice_mut(&mut message))?;
            assert_eq!(check(&message), seed);
        }
        socket.write_all(&[0])?;
    }
    Ok(())
}

fn connected(contender: &str) -> Result<(UnixStream, Peer)> {
    let (ours, theirs) = UnixStream::pair()?;
    for socket in [&ours, &theirs] {
        enlarge_buffer(socket);
    }
    // SAFETY: plain system call; unlike the original, the copy is inherited by the child.
    let inherited = unsafe { libc::dup(theirs.as_raw_fd()) };
    let mut peer = Peer::spawn(contender, &[inherited.to_string()])?;
    // SAFETY: the copy made above, closed once, so that the socket ends with the child.
    unsafe { libc::close(inherited) };
    peer.wait_ready()?;
    Ok((ours, peer))
}

fn inherited(args: &[String]) -> Result<UnixStream> {
    // SAFETY: the parent left this descriptor open for us and nothing else here uses it.
    Ok(unsafe { UnixStream::from_raw_fd(argument(args, 0)?) })
}

/// Asks for a send buffer of 4 MiB; beyond the system's limit only with the privilege to force it.
fn enlarge_buffer(socket: &UnixStream) {
    let bytes: libc::c_int = 4 << 20;
    let set = |option| {
        let length = size_of_val(&bytes) as u32;
        // SAFETY: the value is a live int of the length given.
        unsafe {
            libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, (&raw const bytes).cast(), length)
        }
    };
    if set(libc::SO_SNDBUFFORCE) != 0 {
        set(libc::SO_SNDBUF);
    }
}
