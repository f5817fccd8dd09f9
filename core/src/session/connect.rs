//! The client's side of the handshake.
#![forbid(unsafe_code)]

use super::{
    SOCKET_FILE, Socket, SocketReceiver, SocketSender, Transport,
    secret::{self, Prover},
    shm_link::{Bell, ShmReceiver, ShmSender},
};
use crate::{
    error::{Error, ErrorKind, Result},
    os::{self, eventfd::EventFd, fork::GuardedFd},
    shm::{AttentionMap, Consumer, Producer, ReaderMap, RegionParams, WaitingWord, WaitingWriter, WriterMap},
    wire::{
        WIRE_MAX, WIRE_MIN,
        handshake::{self, Attached, Hello, PREFIX_BYTES, Ready, Welcome},
    },
};
use serde::de::DeserializeOwned;
use std::{
    net::{TcpStream, ToSocketAddrs},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

/// What a client says of itself, and how long it waits.
#[derive(Clone, Debug)]
pub struct ConnectConfig {
    /// The name it is shown by.
    pub name: String,
    /// Its language.
    pub language: &'static str,
    /// Frames through shared memory.
    pub shared_memory: bool,
    /// How long connecting may take.
    pub timeout: Duration,
}

/// A session that stands.
pub struct Connected {
    /// What the host said of itself.
    pub welcome: Welcome,
    /// The control socket; without shared memory the frames' socket.
    pub socket: Socket,
    /// The host's process, when it is local.
    pub pidfd: Option<GuardedFd>,
    /// Where this client says that it sleeps, with shared memory.
    pub waiting: Option<WaitingWriter>,
    /// The frames.
    pub transport: Transport,
}

impl std::fmt::Debug for Connected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connected").field("welcome", &self.welcome).finish_non_exhaustive()
    }
}

/// Connects to the host of `directory`.
///
/// # Errors
/// - [`ErrorKind::NotFound`]: no such directory, or no host has it open.
/// - [`ErrorKind::PermissionDenied`]: this user may not.
/// - [`ErrorKind::Protocol`]: whoever listens there is not FlowMesh.
/// - [`ErrorKind::VersionMismatch`], [`ErrorKind::Timeout`], [`ErrorKind::ResourceExhausted`].
pub fn connect_unix(directory: &Path, config: &ConnectConfig) -> Result<Connected> {
    let described = |error: Error| error.with("directory", directory.display());
    // Not `exists`: a directory that this user may not look into is not a missing one.
    std::fs::metadata(directory).map_err(|error| {
        let error = Error::from_io("mesh.connect", error);
        described(if error.kind() == ErrorKind::NotFound {
            error.with("reason", "no such directory")
        } else {
            error
        })
    })?;
    let stream = os::socket::connect_unix(directory, SOCKET_FILE, Some(config.timeout.min(TIMEOUT_MAX)))
        .map_err(|error| {
            described(match error.kind() {
                // The socket file of a host that is gone stays behind and refuses.
                ErrorKind::NotFound | ErrorKind::Disconnected => {
                    Error::new(ErrorKind::NotFound, "mesh.connect")
                        .with("reason", "no host has this directory open")
                }
                _ => error,
            })
        })?;
    Dialogue::new(stream.into(), config.timeout).meet(config, None).map_err(described)
}

/// Connects to a host that listens on TCP.
///
/// # Errors
/// Those of [`connect_unix`], and [`ErrorKind::Unauthenticated`] without the right secret.
pub fn connect_tcp(address: &str, secret: &[u8], config: &ConnectConfig) -> Result<Connected> {
    const OPERATION: &str = "mesh.connect_tcp";
    secret::check_secret(secret, OPERATION)?;
    let described = |error: Error| error.with("address", address);
    let resolved = address
        .to_socket_addrs()
        .map_err(|error| described(Error::new(ErrorKind::InvalidArgument, OPERATION).because(error)))?
        .next()
        .ok_or_else(|| described(Error::new(ErrorKind::NotFound, OPERATION)))?;
    let stream = TcpStream::connect_timeout(&resolved, config.timeout.min(TIMEOUT_MAX))
        .map_err(|error| described(Error::from_io(OPERATION, error)))?;
    os::socket::tune_tcp(stream.as_fd())?;
    Dialogue::new(stream.into(), config.timeout).meet(config, Some(secret)).map_err(described)
}

struct Dialogue {
    socket: Socket,
    input: Vec<u8>,
    fds: Vec<OwnedFd>,
    timeout: Duration,
    deadline: Instant,
}

/// A hundred years, which stand for any longer time: clocks cannot count all that a [`Duration`] can say.
const TIMEOUT_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Descriptors that come with a welcome: host region, client region, attention page, two bells.
const FDS: usize = 5;

impl Dialogue {
    fn new(socket: OwnedFd, timeout: Duration) -> Self {
        let socket = Arc::new(os::fork::guard(socket));
        let timeout = timeout.min(TIMEOUT_MAX);
        Self { socket, input: Vec::new(), fds: Vec::new(), timeout, deadline: Instant::now() + timeout }
    }

    fn meet(mut self, config: &ConnectConfig, secret: Option<&[u8]>) -> Result<Connected> {
        let hello = Hello {
            wire_min: WIRE_MIN,
            wire_max: WIRE_MAX,
            name: config.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            language: config.language.to_owned(),
            pid: std::process::id(),
            shared_memory: config.shared_memory && secret.is_none(),
            capabilities: Vec::new(),
            challenge: if secret.is_some() { secret::challenge()? } else { Vec::new() },
        };
        self.say(&handshake::encode(&hello))?;
        let welcome: Welcome = self.receive()?;
        handshake::agree(welcome.wire, welcome.wire)?;
        let mut attached = Attached::default();
        if let Some(secret) = secret {
            secret::verify(secret, Prover::Host, &hello.challenge, &welcome.challenge, &welcome.proof)?;
            attached.proof = secret::prove(secret, Prover::Client, &hello.challenge, &welcome.challenge);
        }
        let shm = if hello.shared_memory { Some(self.attach(&welcome)?) } else { None };
        self.say(&handshake::encode(&attached))?;
        let Ready {} = self.receive()?;
        let pidfd = match secret {
            None => Some(os::fork::guard(os::pidfd::of_socket_peer(self.socket.as_fd())?)),
            Some(_) => None,
        };
        let (transport, waiting) = match shm {
            Some((transport, waiting)) => (transport, Some(waiting)),
            None => {
                let transport = Transport {
                    name: if secret.is_some() { "tcp" } else { "unix" },
                    sender: Box::new(SocketSender::new(Arc::clone(&self.socket))),
                    receiver: Box::new(SocketReceiver::new(Arc::clone(&self.socket), self.input)),
                };
                (transport, None)
            }
        };
        Ok(Connected { welcome, socket: self.socket, pidfd, waiting, transport })
    }

    fn attach(&mut self, welcome: &Welcome) -> Result<(Transport, WaitingWriter)> {
        let violation =
            |what: &'static str| Error::new(ErrorKind::Protocol, "session.handshake").with("violation", what);
        let fds: [OwnedFd; FDS] = std::mem::take(&mut self.fds)
            .try_into()
            .map_err(|_| violation("the welcome does not carry the descriptors of shared memory"))?;
        let [host, client, attention, poller, leader] = fds;
        let params = RegionParams { ring_bytes: welcome.ring_bytes as usize, generation: welcome.generation };
        let own = WriterMap::map(client.as_fd(), &params)?;
        let peer = ReaderMap::map(host.as_fd(), &params)?;
        let attention = AttentionMap::map(attention.as_fd())?;
        let bell =
            Bell::ToHost { poller: Arc::new(EventFd::from(poller)), leader: Arc::new(EventFd::from(leader)) };
        let waiting = own.waiting_writer();
        let producer =
            Producer::attach(Arc::clone(&own), Arc::clone(&peer), WaitingWord::Attention(attention));
        let consumer = Consumer::attach(own, peer);
        let transport = Transport {
            name: "shm",
            sender: Box::new(ShmSender::new(producer, bell.clone())),
            receiver: Box::new(ShmReceiver::new(consumer, bell)),
        };
        Ok((transport, waiting))
    }

    /// Sends a message. A host that hung up before it took it may have said why: then that is the error.
    fn say(&mut self, bytes: &[u8]) -> Result<()> {
        self.send(bytes).map_err(|error| match self.receive::<Ready>() {
            Err(told) if error.kind() == ErrorKind::Disconnected => told,
            _ => error,
        })
    }

    fn send(&self, bytes: &[u8]) -> Result<()> {
        let mut sent = 0;
        while sent < bytes.len() {
            match os::socket::send_some(self.socket.as_fd(), &bytes[sent..])? {
                Some(count) => sent += count,
                None => {
                    let left = self.left()?;
                    os::socket::wait_writable(self.socket.as_fd(), Some(left))?;
                }
            }
        }
        Ok(())
    }

    fn receive<T: DeserializeOwned>(&mut self) -> Result<T> {
        loop {
            if let Some(length) = handshake::message_bytes(&self.input)? {
                let message: Vec<u8> = self.input.drain(..length).collect();
                return handshake::decode(&message);
            }
            let left = self.left()?;
            if !os::socket::wait_readable(self.socket.as_fd(), Some(left))? {
                continue;
            }
            // One message at a time: descriptors come with the first byte of theirs.
            let wanted = match self.input.get(8..PREFIX_BYTES) {
                Some(length) => {
                    PREFIX_BYTES + u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize
                }
                None => PREFIX_BYTES,
            };
            let mut bytes = vec![0; wanted - self.input.len()];
            match os::socket::recv_with_fds(self.socket.as_fd(), &mut bytes, FDS) {
                Ok((0, _)) => {
                    return Err(Error::new(ErrorKind::Disconnected, "session.handshake"));
                }
                Ok((count, fds)) => {
                    self.input.extend_from_slice(&bytes[..count]);
                    self.fds.extend(fds);
                    if self.fds.len() > FDS {
                        return Err(
                            Error::new(ErrorKind::Protocol, "session.handshake").with("fds", self.fds.len())
                        );
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn left(&self) -> Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(
                Error::new(ErrorKind::Timeout, "mesh.connect").with("timeout_ms", self.timeout.as_millis())
            );
        }
        Ok(left)
    }
}
