//! Redis as a durable queue: `appendfsync always`, 50 clients that each push a job, take it over into the list of
//! what is worked on, and remove it there. Redis groups what it flushes by the turn of its event loop.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::contender::{Figure, Result, die_with_parent, directory, is_quick};
use crate::payload::{check_bytes, fill};

pub(crate) fn always() -> Result<Figure> {
    let server = Server::start()?;
    let mut clients =
        (0..CLIENTS).map(|number| Client::connect(server.port, number)).collect::<Result<Vec<_>>>()?;
    let mut waits: Vec<_> = clients
        .iter()
        .map(|client| libc::pollfd { fd: client.stream.as_raw_fd(), events: libc::POLLIN, revents: 0 })
        .collect();
    for client in &mut clients {
        client.ask()?;
    }
    let count = if is_quick() { 5_000 } else { 40_000 };
    let (mut cycles, mut begun) = (0, Instant::now());
    while cycles < count + WARM_UP {
        // SAFETY: the pointer and count are those of a live slice.
        if unsafe { libc::poll(waits.as_mut_ptr(), waits.len() as libc::nfds_t, 10_000) } <= 0 {
            return Err("no answer from Redis".into());
        }
        for (client, wait) in clients.iter_mut().zip(&waits) {
            if wait.revents != 0 && client.advance()? {
                cycles += 1;
                if cycles == WARM_UP {
                    begun = Instant::now();
                }
            }
        }
    }
    Ok(Figure::rate(count, begun.elapsed()))
}

/// One connection, which has one command under way at a time.
struct Client {
    stream: TcpStream,
    seed: u64,
    step: Step,
    job: Vec<u8>,
    answer: Vec<u8>,
}

#[derive(Clone, Copy)]
enum Step {
    Push,
    Take,
    Remove,
}

impl Client {
    fn connect(port: u16, number: u64) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, seed: number << 32, step: Step::Push, job: Vec::new(), answer: Vec::new() })
    }

    fn ask(&mut self) -> Result<()> {
        let mut words = [0_u64; 16];
        fill(&mut words, self.seed);
        let command = match self.step {
            Step::Push => command(&[b"LPUSH", b"jobs", bytemuck::bytes_of(&words)]),
            Step::Take => command(&[b"RPOPLPUSH", b"jobs", b"working"]),
            Step::Remove => command(&[b"LREM", b"working", b"1", &self.job]),
        };
        // A few hundred bytes into the empty buffer of a socket.
        Ok(self.stream.write_all(&command)?)
    }

    /// Reads what is there; asks the next when the answer is whole. Whether that ended a cycle.
    fn advance(&mut self) -> Result<bool> {
        let mut bytes = [0; 512];
        match self.stream.read(&mut bytes) {
            Ok(0) => return Err("Redis hung up".into()),
            Ok(read) => self.answer.extend_from_slice(&bytes[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        let whole = match self.step {
            Step::Take => self.answer.len() == TAKEN.len() + JOB_BYTES + 2,
            Step::Push | Step::Remove => self.answer.ends_with(b"\r\n"),
        };
        if !whole {
            return Ok(false);
        }
        let answer = std::mem::take(&mut self.answer);
        let ended = match self.step {
            Step::Push => {
                expect(answer.starts_with(b":"), &answer)?;
                self.step = Step::Take;
                false
            }
            Step::Take => {
                expect(answer.starts_with(TAKEN), &answer)?;
                self.job = answer[TAKEN.len()..][..JOB_BYTES].to_vec();
                check_bytes(&self.job);
                self.step = Step::Remove;
                false
            }
            Step::Remove => {
                expect(answer == b":1\r\n", &answer)?;
                self.step = Step::Push;
                self.seed += 1;
                true
            }
        };
        self.ask()?;
        Ok(ended)
    }
}

fn expect(holds: bool, answer: &[u8]) -> Result<()> {
    if holds { Ok(()) } else { Err(format!("Redis said {:?}", String::from_utf8_lossy(answer)).into()) }
}

fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// A server of this round alone, in its directory.
struct Server {
    process: Child,
    port: u16,
}

impl Server {
    fn start() -> Result<Self> {
        // Free a moment ago; should somebody else take it, the round fails and says so.
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let mut server = Command::new("redis-server");
        server.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
        server.arg("--port").arg(port.to_string()).arg("--dir").arg(directory()?).stdout(Stdio::null());
        die_with_parent(&mut server);
        let process = server.spawn().map_err(|error| format!("redis-server: {error}"))?;
        let server = Self { process, port };
        let patience = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if Instant::now() > patience {
                return Err("redis-server does not listen".into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const CLIENTS: u64 = 50;
const WARM_UP: u64 = 2_000;
const JOB_BYTES: usize = 128;
/// How the answer with a job begins.
const TAKEN: &[u8] = b"$128\r\n";
