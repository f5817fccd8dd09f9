//! shmipc (the Rust one): 64 B messages one way over one stream, each flushed, or several to a flush.
//!
//! Set up as its documentation advises for small messages: memfd, protocol 4, wake-ups by eventfd. A writer
//! that outruns the reader exhausts its buffers and falls back to a socket for 30 s, so the reader returns a
//! message per window and the writer keeps a few windows in flight, as an application would.

use std::os::unix::net::SocketAddr;
use std::time::Instant;

use shmipc::Listener;
use shmipc::buffer::BufferReader;
use shmipc::config::{Config, SizePercentPair};
use shmipc::session::{SessionManager, SessionManagerConfig};
use shmipc::stream::Stream;
use shmipc::transport::{DefaultUnixConnect, DefaultUnixListen};

use crate::contender::{Figure, Peer, Result, argument, say_ready};
use crate::payload::{RATE_MESSAGES, check, small, small_from};

pub(crate) fn single() -> Result<Figure> {
    measured("shmipc", 1)
}

pub(crate) fn batched() -> Result<Figure> {
    measured("shmipc.batched", 32)
}

fn measured(name: &str, flush_every: u64) -> Result<Figure> {
    let runtime = runtime()?;
    let figure = runtime.block_on(writer(name, flush_every));
    // Closing a session in order takes its library seconds and is not what is measured.
    runtime.shutdown_background();
    figure
}

async fn writer(name: &str, flush_every: u64) -> Result<Figure> {
    let path = std::env::temp_dir().join(format!("flowmesh-compare-{}.sock", std::process::id()));
    let path_text = path.to_str().ok_or("the temporary directory's name is not UTF-8")?.to_owned();
    let mut peer = Peer::spawn(name, &[path_text, flush_every.to_string()])?;
    peer.wait_ready()?;
    let manager = SessionManager::new(
        SessionManagerConfig::new().with_config(config(flush_every)).with_session_num(1),
        DefaultUnixConnect,
        SocketAddr::from_pathname(&path)?,
    )
    .await?;
    std::fs::remove_file(&path)?;
    let mut stream = manager.get_stream()?;
    send(&mut stream, RATE_MESSAGES / 10, flush_every).await?;
    let start = Instant::now();
    send(&mut stream, RATE_MESSAGES, flush_every).await?;
    let elapsed = start.elapsed();
    if stream.fallback_state() {
        return Err("fell back to its socket, so this was not shared memory".into());
    }
    peer.finish()?;
    Ok(Figure::rate(RATE_MESSAGES, elapsed))
}

/// Sends `count` messages and returns when the reader has confirmed them all.
async fn send(stream: &mut Stream, count: u64, flush_every: u64) -> Result<()> {
    let mut unconfirmed = 0;
    for seed in 0..count {
        stream.write_bytes(bytemuck::bytes_of(&small(seed)))?;
        if (seed + 1) % flush_every == 0 {
            stream.flush(false).await?;
        }
        if (seed + 1) % WINDOW == 0 {
            unconfirmed += 1;
            if unconfirmed == WINDOWS_IN_FLIGHT {
                confirmation(stream).await?;
                unconfirmed -= 1;
            }
        }
    }
    for _ in 0..unconfirmed {
        confirmation(stream).await?;
    }
    Ok(())
}

async fn confirmation(stream: &mut Stream) -> Result<()> {
    stream.read_exact_bytes(1).await?;
    stream.recv_buf().release_previous_read();
    Ok(())
}

pub(crate) fn child(args: &[String]) -> Result<()> {
    let path: String = argument(args, 0)?;
    let flush_every: u64 = argument(args, 1)?;
    runtime()?.block_on(async {
        let address = SocketAddr::from_pathname(path)?;
        let mut listener = Listener::new(DefaultUnixListen, address, config(flush_every)).await?;
        say_ready()?;
        let mut stream = listener.accept().await?;
        for count in [RATE_MESSAGES / 10, RATE_MESSAGES] {
            for seed in 0..count {
                let message = small_from(&stream.read_exact_bytes(size_of_val(&small(0))).await?);
                assert_eq!(check(&message), seed);
                stream.recv_buf().release_previous_read();
                if (seed + 1) % WINDOW == 0 {
                    stream.write_bytes(&[0])?;
                    stream.flush(false).await?;
                }
            }
        }
        // The writer has its last confirmation when it closes our stdin.
        std::io::read_to_string(std::io::stdin())?;
        std::process::exit(0)
    })
}

fn config(flush_every: u64) -> Config {
    let mut config = Config::default().with_v4_eventfd();
    config.queue_cap = 65_536;
    config.share_memory_buffer_cap = 64 << 20;
    // Slices that fit what one flush carries, as its own benchmark does.
    config.buffer_slice_sizes = vec![SizePercentPair { size: 64 * flush_every as u32 + 64, percent: 100 }];
    config
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

/// Divides the number of messages, so that every one is confirmed.
const WINDOW: u64 = 4_000;
const WINDOWS_IN_FLIGHT: u64 = 8;
const _: () = assert!((RATE_MESSAGES / 10).is_multiple_of(WINDOW) && WINDOW.is_multiple_of(32));
