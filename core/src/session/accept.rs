//! The host's side of the handshake: a state machine that never waits.
#![forbid(unsafe_code)]

use super::{
    Socket, SocketReceiver, SocketSender, Transport,
    secret::{self, Prover},
    shm_link::{Bell, ShmReceiver, ShmSender},
};
use crate::{
    clock::Moment,
    error::{Error, ErrorKind, Result},
    os::{self, eventfd::EventFd, fork::GuardedFd, pidfd::Cred},
    shm::{
        AttentionPage, Consumer, Producer, ReaderMap, RegionFd, RegionParams, WaitingWord, WriterMap, seal,
    },
    wire::{
        WIRE_MAX,
        handshake::{self, Attached, Hello, Ready, Refusal, Welcome},
    },
};
use std::{
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

/// How long a client may take for its handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);

/// What every handshake of one host shares.
#[derive(Debug)]
pub struct HandshakeConfig {
    /// The host's language.
    pub language: &'static str,
    /// Bytes of each ring.
    pub ring_bytes: usize,
    /// The largest message.
    pub max_message_bytes: usize,
    /// Where clients see whether the host sleeps.
    pub attention: Arc<AttentionPage>,
}

/// A connection whose handshake is under way.
#[derive(Debug)]
pub struct PendingSession {
    socket: Socket,
    secret: Option<Arc<[u8]>>,
    input: Vec<u8>,
    stage: Stage,
    /// When it is given up.
    pub deadline: Moment,
}

#[derive(Debug)]
enum Stage {
    Hello,
    Attached { hello: Hello, session: u32, challenge: Vec<u8>, shm: Option<Box<Regions>> },
    Over,
}

#[derive(Debug)]
struct Regions {
    params: RegionParams,
    own: Arc<WriterMap>,
    client: RegionFd,
    poller: Arc<EventFd>,
    leader: Arc<EventFd>,
}

/// A session that stands.
#[derive(Debug)]
pub struct Accepted {
    /// Its number.
    pub session: u32,
    /// What the client said of itself.
    pub hello: Hello,
    /// The control socket; without shared memory the frames' socket.
    pub socket: Socket,
    /// The client's process, for a local client.
    pub pidfd: Option<GuardedFd>,
    /// Who the kernel says the client is.
    pub cred: Option<Cred>,
    /// Eventfds by which the client wakes the host's poller and its leader.
    pub bells: Option<(Arc<EventFd>, Arc<EventFd>)>,
    /// The frames.
    pub transport: Transport,
}

impl Accepted {
    /// Tells the client that frames may flow: once the host knows the session.
    ///
    /// # Errors
    /// [`ErrorKind::Disconnected`]: the client is gone.
    pub fn announce(socket: &Socket) -> Result<()> {
        os::socket::send_some(socket.as_fd(), &handshake::encode(&Ready {})).map(drop)
    }
}

/// How far a handshake got.
#[derive(Debug)]
pub enum Step {
    /// More bytes must come.
    Wait,
    /// The session stands.
    Done(Box<Accepted>),
    /// It was refused; the client has been told as far as possible.
    Failed(Error),
}

impl PendingSession {
    /// A connection that was just accepted. With a `secret` it is a TCP connection that must prove it.
    pub fn new(socket: OwnedFd, secret: Option<Arc<[u8]>>, now: Moment) -> Self {
        Self {
            socket: Arc::new(os::fork::guard(socket)),
            secret,
            input: Vec::new(),
            stage: Stage::Hello,
            deadline: now + HANDSHAKE_TIME,
        }
    }

    /// The socket, for the poller.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Reads what came and answers it. `session` gives a number to a client that is taken in.
    pub fn advance(&mut self, config: &HandshakeConfig, session: &mut dyn FnMut() -> Result<u32>) -> Step {
        match self.try_advance(config, session) {
            Ok(Some(accepted)) => Step::Done(Box::new(accepted)),
            Ok(None) => Step::Wait,
            Err(error) => {
                self.stage = Stage::Over;
                self.refuse(&error);
                Step::Failed(error)
            }
        }
    }

    /// Tells the client why it is not taken in, as far as the socket takes it at once.
    pub fn refuse(&self, error: &Error) {
        let _ = os::socket::send_some(self.socket.as_fd(), &handshake::encode(&Refusal::of(error)));
    }

    fn try_advance(
        &mut self,
        config: &HandshakeConfig,
        session: &mut dyn FnMut() -> Result<u32>,
    ) -> Result<Option<Accepted>> {
        loop {
            if let Some(length) = handshake::message_bytes(&self.input)? {
                let message: Vec<u8> = self.input.drain(..length).collect();
                if let Some(accepted) = self.message(&message, config, session)? {
                    return Ok(Some(accepted));
                }
                continue;
            }
            let mut bytes = [0; 1024];
            match os::socket::recv_nowait(self.socket.as_fd(), &mut bytes)? {
                None => return Ok(None),
                Some(0) => return Err(Error::new(ErrorKind::Disconnected, "session.handshake")),
                Some(count) => self.input.extend_from_slice(&bytes[..count]),
            }
        }
    }

    fn message(
        &mut self,
        message: &[u8],
        config: &HandshakeConfig,
        session: &mut dyn FnMut() -> Result<u32>,
    ) -> Result<Option<Accepted>> {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Hello => {
                let hello: Hello = handshake::decode(message)?;
                let wire = handshake::agree(hello.wire_min, hello.wire_max)?;
                let session = session()?;
                self.welcome(hello, wire, session, config)?;
                Ok(None)
            }
            Stage::Attached { hello, session, challenge, shm } => {
                let attached: Attached = handshake::decode(message)?;
                if let Some(secret) = &self.secret {
                    secret::verify(secret, Prover::Client, &hello.challenge, &challenge, &attached.proof)?;
                }
                self.ready(hello, session, shm).map(Some)
            }
            Stage::Over => {
                Err(Error::new(ErrorKind::Protocol, "session.handshake").with("violation", "a third message"))
            }
        }
    }

    fn welcome(&mut self, hello: Hello, wire: u32, session: u32, config: &HandshakeConfig) -> Result<()> {
        let mut welcome = Welcome {
            wire: wire.min(WIRE_MAX),
            session,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            language: config.language.to_owned(),
            pid: std::process::id(),
            max_message_bytes: config.max_message_bytes as u32,
            ..Welcome::default()
        };
        if let Some(secret) = &self.secret {
            welcome.challenge = secret::challenge()?;
            welcome.proof = secret::prove(secret, Prover::Host, &hello.challenge, &welcome.challenge);
        }
        let challenge = welcome.challenge.clone();
        if !hello.shared_memory || self.secret.is_some() {
            self.send(&handshake::encode(&welcome), &[])?;
            self.stage = Stage::Attached { hello, session, challenge, shm: None };
            return Ok(());
        }
        let generation = u64::from(session) << 32 | u64::from(std::process::id());
        let host = RegionFd::create("flowmesh-host", generation, config.ring_bytes, 0)?;
        let client = RegionFd::create("flowmesh-client", generation, config.ring_bytes, 0)?;
        let params = host.params();
        let own = WriterMap::map(host.fd(), &params)?;
        seal(host.fd())?;
        let (poller, leader) = (EventFd::new()?, EventFd::new()?);
        welcome.ring_bytes = config.ring_bytes as u32;
        welcome.generation = generation;
        let fds = [host.fd(), client.fd(), config.attention.fd(), poller.as_fd(), leader.as_fd()];
        self.send(&handshake::encode(&welcome), &fds)?;
        let regions = Regions { params, own, client, poller: Arc::new(poller), leader: Arc::new(leader) };
        self.stage = Stage::Attached { hello, session, challenge, shm: Some(Box::new(regions)) };
        Ok(())
    }

    fn ready(&mut self, hello: Hello, session: u32, shm: Option<Box<Regions>>) -> Result<Accepted> {
        let local = self.secret.is_none();
        let cred = if local { Some(os::pidfd::peer_cred(self.socket.as_fd())?) } else { None };
        let pidfd =
            if local { Some(os::fork::guard(os::pidfd::of_socket_peer(self.socket.as_fd())?)) } else { None };
        let (transport, bells) = if let Some(regions) = shm {
            let Regions { params, own, client, poller, leader } = *regions;
            // The client has mapped its region for writing; from now on nobody can do so again.
            seal(client.fd())?;
            let peer = ReaderMap::map(client.fd(), &params)?;
            let bell = Bell::ToClient(Arc::clone(&self.socket));
            let producer =
                Producer::attach(Arc::clone(&own), Arc::clone(&peer), WaitingWord::Region(Arc::clone(&peer)));
            let consumer = Consumer::attach(own, peer);
            let transport = Transport {
                name: "shm",
                sender: Box::new(ShmSender::new(producer, bell.clone())),
                receiver: Box::new(ShmReceiver::new(consumer, bell)),
            };
            (transport, Some((poller, leader)))
        } else {
            let transport = Transport {
                name: if local { "unix" } else { "tcp" },
                sender: Box::new(SocketSender::new(Arc::clone(&self.socket))),
                receiver: Box::new(SocketReceiver::new(
                    Arc::clone(&self.socket),
                    std::mem::take(&mut self.input),
                )),
            };
            (transport, None)
        };
        Ok(Accepted { session, hello, socket: Arc::clone(&self.socket), pidfd, cred, bells, transport })
    }

    fn send(&self, bytes: &[u8], fds: &[std::os::fd::BorrowedFd<'_>]) -> Result<()> {
        let sent = if fds.is_empty() {
            os::socket::send_some(self.socket.as_fd(), bytes)?.unwrap_or(0)
        } else {
            os::socket::send_with_fds(self.socket.as_fd(), bytes, fds)?
        };
        if sent < bytes.len() {
            // A fresh socket has room for kilobytes; one that has not is not read.
            return Err(Error::new(ErrorKind::Full, "session.handshake")
                .with("bytes", bytes.len())
                .with("sent", sent));
        }
        Ok(())
    }
}
