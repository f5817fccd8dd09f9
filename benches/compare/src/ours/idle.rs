//! What a host with 50 clients costs while nobody does anything.

use std::time::Duration;

use flowmesh::{Mesh, WaitStrategy};

use super::Host;
use crate::contender::{Figure, Peer, Result, argument, say_ready};
use crate::usage::{cpu_ms, private_rss_bytes, voluntary_switches};

/// Of the host and all clients, and an error when any of them woke up time and again.
pub(crate) fn cpu() -> Result<Figure> {
    let idle = Idle::new("ours.idle.cpu")?;
    let before = idle.usage()?;
    std::thread::sleep(WATCHED);
    let after = idle.usage()?;
    let woke = after.switches - before.switches;
    if woke > SWITCHES_MAX {
        return Err(format!("threads woke {woke} times in {} s", WATCHED.as_secs()).into());
    }
    idle.end()?;
    Ok(Figure::plain((after.cpu_ms - before.cpu_ms) as f64 * 100.0 / WATCHED.as_millis() as f64))
}

pub(crate) fn rss() -> Result<Figure> {
    let idle = Idle::new("ours.idle.rss")?;
    let bytes = private_rss_bytes(std::process::id())?;
    idle.end()?;
    Ok(Figure::plain(bytes as f64))
}

pub(crate) fn child(args: &[String]) -> Result<()> {
    let mesh = Mesh::connect(argument::<String>(args, 0)?)?;
    let events = mesh.subscribe("compare.>")?;
    say_ready()?;
    std::io::read_to_string(std::io::stdin())?;
    drop(events);
    mesh.close();
    Ok(())
}

struct Idle {
    host: Host,
    peers: Vec<Peer>,
}

struct Usage {
    cpu_ms: u64,
    switches: u64,
}

impl Idle {
    fn new(name: &str) -> Result<Self> {
        let host = Host::open(WaitStrategy::default())?;
        let mut peers =
            (0..SESSIONS).map(|_| Peer::spawn(name, &[host.argument()?])).collect::<Result<Vec<_>>>()?;
        peers.iter_mut().try_for_each(Peer::wait_ready)?;
        std::thread::sleep(SETTLE);
        Ok(Self { host, peers })
    }

    fn usage(&self) -> Result<Usage> {
        let mut usage = Usage { cpu_ms: 0, switches: 0 };
        for pid in self.peers.iter().map(Peer::pid).chain([std::process::id()]) {
            usage.cpu_ms += cpu_ms(pid)?;
            usage.switches += voluntary_switches(pid)?;
        }
        Ok(usage)
    }

    fn end(self) -> Result<()> {
        self.peers.into_iter().try_for_each(Peer::finish)?;
        drop(self.host);
        Ok(())
    }
}

const SESSIONS: usize = 50;
const SETTLE: Duration = Duration::from_millis(500);
const WATCHED: Duration = Duration::from_secs(5);
/// The measuring thread's own sleep is one.
const SWITCHES_MAX: u64 = 10;
