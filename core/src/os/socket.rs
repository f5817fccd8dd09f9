//! Unix stream sockets: listening in a directory of any path length, passing descriptors, never waiting unasked.
//!
//! A descriptor that was sent is either in the caller's hands or closed, whatever went wrong.

use super::{check, check_fd, errno, last_error, timespec};
use crate::error::{Error, ErrorKind, Result};
use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

/// Listens at `file` in `directory`, for this user only. A socket that is left there is replaced, so the
/// caller holds the directory's lock.
///
/// # Errors
/// - [`ErrorKind::NotFound`], [`ErrorKind::PermissionDenied`]: the directory cannot be used.
/// - [`ErrorKind::AlreadyExists`]: something that is no socket has the name.
pub fn listen_unix(directory: &Path, file: &str) -> Result<UnixListener> {
    const OPERATION: &str = "os.socket.listen";
    let described = |error: Error| error.with("directory", directory.display()).with("file", file);
    let address = Address::in_directory(directory, file).map_err(described)?;
    let path = directory.join(file);
    if std::fs::symlink_metadata(&path).is_ok_and(|found| found.file_type().is_socket()) {
        std::fs::remove_file(&path).map_err(|error| described(Error::from_io(OPERATION, error)))?;
    }
    let socket = stream_socket()?;
    let listen = || {
        // Before it has a name: the file is made with the mode of the socket, so it is never open to others.
        // SAFETY: plain calls on a descriptor we own; the address is valid for its length.
        unsafe {
            check(OPERATION, libc::fchmod(socket.as_raw_fd(), 0o600))?;
            if libc::bind(socket.as_raw_fd(), address.pointer(), address.len) == -1 {
                return Err(match errno() {
                    libc::EADDRINUSE => Error::new(ErrorKind::AlreadyExists, OPERATION),
                    _ => last_error(OPERATION),
                });
            }
            check(OPERATION, libc::listen(socket.as_raw_fd(), BACKLOG))
        }
    };
    listen().map_err(described)?;
    Ok(UnixListener::from(socket))
}

/// Connects to `file` in `directory`. Waits up to `timeout` for room in the listener's queue.
///
/// # Errors
/// - [`ErrorKind::NotFound`]: nobody listens there, whether a socket is left or not.
/// - [`ErrorKind::Timeout`]: the listener has accepted nobody for so long.
/// - [`ErrorKind::Interrupted`]: a signal came. Call again.
pub fn connect_unix(directory: &Path, file: &str, timeout: Option<Duration>) -> Result<UnixStream> {
    const OPERATION: &str = "os.socket.connect";
    let described = |error: Error| error.with("directory", directory.display()).with("file", file);
    let address = Address::in_directory(directory, file).map_err(described)?;
    let stream = UnixStream::from(stream_socket()?);
    // A zero limit would mean none.
    let limit = timeout.map(|timeout| timeout.max(Duration::from_millis(1)));
    stream.set_write_timeout(limit).map_err(|error| Error::from_io(OPERATION, error))?;
    // SAFETY: the address is valid for its length.
    if unsafe { libc::connect(stream.as_raw_fd(), address.pointer(), address.len) } == -1 {
        return Err(described(match errno() {
            libc::ECONNREFUSED | libc::ENOTSOCK => Error::new(ErrorKind::NotFound, OPERATION),
            libc::EAGAIN => Error::new(ErrorKind::Timeout, OPERATION),
            _ => last_error(OPERATION),
        }));
    }
    stream.set_write_timeout(None).map_err(|error| Error::from_io(OPERATION, error))?;
    Ok(stream)
}

/// Two connected stream sockets, blocking.
///
/// # Errors
/// - [`ErrorKind::ResourceExhausted`]: the descriptor table is full.
pub fn socketpair() -> Result<(UnixStream, UnixStream)> {
    UnixStream::pair().map_err(|error| Error::from_io("os.socket.pair", error))
}

/// Sends `bytes`, which is not empty, with `fds` attached to the first of them. Returns how many bytes
/// went; the descriptors went if this is not an error. Blocks or not as the socket does.
///
/// # Errors
/// - [`ErrorKind::Disconnected`]: the other side is gone.
/// - [`ErrorKind::Full`]: a non-blocking socket has no room. Nothing was sent.
/// - [`ErrorKind::TooLarge`]: over 253 descriptors.
pub fn send_with_fds(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<usize> {
    const OPERATION: &str = "os.socket.send_with_fds";
    if fds.len() > FDS_MAX {
        return Err(Error::new(ErrorKind::TooLarge, OPERATION).with("fds", fds.len()).with("limit", FDS_MAX));
    }
    let mut control = ControlBuffer::new();
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: an all-zero `msghdr` is a valid empty one.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if !fds.is_empty() {
        let fds_bytes = size_of_val(fds);
        message.msg_control = control.0.as_mut_ptr().cast();
        // SAFETY: `control` is aligned for `cmsghdr` and has room for `FDS_MAX` descriptors, so the
        // header and the `fds_bytes` after it lie inside. `BorrowedFd` is a transparent `RawFd`.
        unsafe {
            message.msg_controllen = libc::CMSG_SPACE(fds_bytes as u32) as usize;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(fds_bytes as u32) as usize;
            std::ptr::copy_nonoverlapping(fds.as_ptr().cast::<u8>(), libc::CMSG_DATA(header), fds_bytes);
        }
    }
    loop {
        // SAFETY: every pointer in `message` is valid and outlives the call.
        let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
        return match sent {
            -1 if errno() == libc::EINTR => continue,
            -1 if errno() == libc::EAGAIN => Err(Error::new(ErrorKind::Full, OPERATION)),
            -1 => Err(last_error(OPERATION)),
            sent => Ok(sent as usize),
        };
    }
}

/// Receives up to `bytes.len()` bytes and the descriptors attached to them, close-on-exec. 0 bytes mean
/// that the other side has ended. Blocks or not as the socket does.
///
/// # Errors
/// - [`ErrorKind::ResourceExhausted`]: the descriptor table is full. What came is closed and lost.
/// - [`ErrorKind::Protocol`]: more than `fds_max` came. They are closed.
/// - [`ErrorKind::Timeout`]: a non-blocking socket, or one with a read timeout, has nothing.
/// - [`ErrorKind::Interrupted`]: a signal came. Call again.
/// - [`ErrorKind::Disconnected`]: the other side is gone.
pub fn recv_with_fds(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
    fds_max: usize,
) -> Result<(usize, Vec<OwnedFd>)> {
    const OPERATION: &str = "os.socket.recv_with_fds";
    // Always room for all a peer can send, so a cut-off list means that our table is full.
    let mut control = ControlBuffer::new();
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: an all-zero `msghdr` is a valid empty one.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = size_of::<ControlBuffer>();
    // SAFETY: every pointer in `message` is valid and outlives the call.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
    if received == -1 {
        return Err(match errno() {
            libc::EAGAIN => Error::new(ErrorKind::Timeout, OPERATION),
            _ => last_error(OPERATION),
        });
    }
    let fds = take_fds(&message);
    if message.msg_flags & libc::MSG_CTRUNC != 0 {
        let error = Error::new(ErrorKind::ResourceExhausted, OPERATION).with("fds", fds.len());
        return Err(error.with("limit", "RLIMIT_NOFILE"));
    }
    if fds.len() > fds_max {
        return Err(Error::new(ErrorKind::Protocol, OPERATION).with("fds", fds.len()).with("limit", fds_max));
    }
    Ok((received as usize, fds))
}

/// Sends all of `bytes`, a few of them, or nothing: false means that there is no room now. Never waits,
/// whatever the peer does.
///
/// # Errors
/// - [`ErrorKind::Disconnected`]: the other side is gone.
/// - [`ErrorKind::TooLarge`]: only a part of `bytes` went. Use [`send_some`] for more than a kilobyte.
pub fn send_nowait(socket: BorrowedFd<'_>, bytes: &[u8]) -> Result<bool> {
    match send_some(socket, bytes)? {
        Some(sent) if sent < bytes.len() => {
            let error = Error::new(ErrorKind::TooLarge, "os.socket.send_nowait");
            Err(error.with("bytes", bytes.len()).with("sent", sent))
        }
        sent => Ok(sent.is_some()),
    }
}

/// Sends what there is room for and returns how much, or `None` if there is no room. Never waits.
///
/// # Errors
/// - [`ErrorKind::Disconnected`]: the other side is gone.
pub fn send_some(socket: BorrowedFd<'_>, bytes: &[u8]) -> Result<Option<usize>> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    without_waiting("os.socket.send", || {
        // SAFETY: reads the length of `bytes`.
        unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) }
    })
}

/// Receives what has come into `bytes`: `None` if nothing has, 0 if the other side has ended. Never
/// waits. Descriptors that were attached are closed by the kernel.
///
/// # Errors
/// - [`ErrorKind::Disconnected`]: the other side is gone.
pub fn recv_nowait(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> Result<Option<usize>> {
    without_waiting("os.socket.recv", || {
        // SAFETY: writes at most the length of `bytes`.
        unsafe { libc::recv(socket.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT) }
    })
}

/// Waits up to `timeout` until `fd` can be read, is hung up or has failed. False means that the time was up.
///
/// # Errors
/// - [`ErrorKind::Interrupted`]: a signal came. Call again.
pub fn wait_readable(fd: BorrowedFd<'_>, timeout: Option<Duration>) -> Result<bool> {
    wait_for(fd, libc::POLLIN, timeout)
}

/// Waits up to `timeout` until `fd` takes bytes, is hung up or has failed. False means that the time was up.
///
/// # Errors
/// - [`ErrorKind::Interrupted`]: a signal came. Call again.
pub fn wait_writable(fd: BorrowedFd<'_>, timeout: Option<Duration>) -> Result<bool> {
    wait_for(fd, libc::POLLOUT, timeout)
}

fn wait_for(fd: BorrowedFd<'_>, events: i16, timeout: Option<Duration>) -> Result<bool> {
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    let limit = timeout.map(timespec);
    let limit_pointer = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: one entry and a limit, which outlive the call; no signal mask.
    let ready = unsafe { libc::ppoll(&raw mut entry, 1, limit_pointer, std::ptr::null()) };
    check("os.socket.wait", ready).map(|ready| ready > 0)
}

/// Takes a connection from a listening socket, close-on-exec and non-blocking; `None` when none waits.
///
/// # Errors
/// - [`ErrorKind::ResourceExhausted`]: the descriptor table is full. The connection still waits.
pub fn accept(listener: BorrowedFd<'_>) -> Result<Option<OwnedFd>> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no address is asked for.
    let fd =
        unsafe { libc::accept4(listener.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), flags) };
    if fd >= 0 {
        // SAFETY: the kernel made this descriptor for us just now.
        return Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }));
    }
    match errno() {
        libc::EAGAIN | libc::ECONNABORTED | libc::EINTR => Ok(None),
        _ => Err(last_error("os.socket.accept")),
    }
}

/// How long a TCP peer may be silent before it is probed, how far the probes are apart, and how many it may leave
/// unanswered: one that vanished without a word is known to be gone after 30 s.
const KEEPALIVE_IDLE_S: libc::c_int = 15;
const KEEPALIVE_INTERVAL_S: libc::c_int = 5;
const KEEPALIVE_PROBES: libc::c_int = 3;
const VANISHED_MS: libc::c_int = (KEEPALIVE_IDLE_S + KEEPALIVE_PROBES * KEEPALIVE_INTERVAL_S) * 1000;

/// Sends small TCP segments at once, and notices a peer whose machine or network is gone: `SO_KEEPALIVE` while
/// nothing is sent, `TCP_USER_TIMEOUT` while something is (tcp(7)).
///
/// # Errors
/// [`ErrorKind::Io`] for a socket that is not TCP.
pub fn tune_tcp(socket: BorrowedFd<'_>) -> Result<()> {
    for (level, option, value) in [
        (libc::IPPROTO_TCP, libc::TCP_NODELAY, 1),
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, KEEPALIVE_IDLE_S),
        (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S),
        (libc::IPPROTO_TCP, libc::TCP_KEEPCNT, KEEPALIVE_PROBES),
        (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, VANISHED_MS),
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1),
    ] {
        // SAFETY: passes the address and size of one int.
        let done = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                level,
                option,
                (&raw const value).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        check("os.socket.tune_tcp", done)?;
    }
    Ok(())
}

/// Ends a connection in both directions; the peer sees the end even while descriptors of it are open.
pub fn shut_down(socket: BorrowedFd<'_>) {
    // SAFETY: a plain system call; one that is not connected any more is fine.
    unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RDWR) };
}

/// The most descriptors that Linux passes in one message (`SCM_MAX_FD`).
pub const FDS_MAX: usize = 253;

const BACKLOG: libc::c_int = 128;

/// Control data of one message with `FDS_MAX` descriptors: a header, the numbers, padding.
#[repr(C, align(8))]
struct ControlBuffer([u8; size_of::<libc::cmsghdr>() + (FDS_MAX * size_of::<RawFd>()).next_multiple_of(8)]);

impl ControlBuffer {
    fn new() -> Self {
        Self([0; _])
    }
}

/// A socket address, and the directory it is relative to while it is in use.
struct Address {
    raw: libc::sockaddr_un,
    len: libc::socklen_t,
    _directory: Option<File>,
}

impl Address {
    /// `directory/file` itself if it fits, or else by way of an open directory in `/proc/self/fd`.
    fn in_directory(directory: &Path, file: &str) -> Result<Self> {
        const OPERATION: &str = "os.socket.address";
        let direct = directory.join(file);
        // SAFETY: an all-zero `sockaddr_un` is a valid empty one.
        let mut raw: libc::sockaddr_un = unsafe { std::mem::zeroed() };
        let fits = |path: &Path| path.as_os_str().len() < raw.sun_path.len();
        let (path, opened) = if fits(&direct) {
            (direct, None)
        } else {
            let opened = OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC)
                .open(directory)
                .map_err(|error| Error::from_io(OPERATION, error))?;
            (Path::new("/proc/self/fd").join(opened.as_raw_fd().to_string()).join(file), Some(opened))
        };
        if !fits(&path) || path.as_os_str().as_bytes().contains(&0) {
            return Err(Error::new(ErrorKind::InvalidArgument, OPERATION));
        }
        raw.sun_family = libc::AF_UNIX as libc::sa_family_t;
        let bytes = path.as_os_str().as_bytes();
        for (to, from) in raw.sun_path.iter_mut().zip(bytes) {
            *to = *from as libc::c_char;
        }
        let len = std::mem::offset_of!(libc::sockaddr_un, sun_path) + bytes.len() + 1;
        Ok(Self { raw, len: len as libc::socklen_t, _directory: opened })
    }

    fn pointer(&self) -> *const libc::sockaddr {
        (&raw const self.raw).cast()
    }
}

fn stream_socket() -> Result<OwnedFd> {
    // SAFETY: plain call.
    check_fd("os.socket.new", unsafe {
        libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0)
    })
}

/// Owns every descriptor that came with `message`.
fn take_fds(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    // SAFETY: the kernel wrote `message` and its control data: the headers chain inside it, and after a
    // SCM_RIGHTS header lie whole descriptors that it made for us alone. They may be unaligned.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while let Some(found) = header.as_ref() {
            if found.cmsg_level == libc::SOL_SOCKET && found.cmsg_type == libc::SCM_RIGHTS {
                let data = libc::CMSG_DATA(found).cast::<RawFd>();
                let count = (found.cmsg_len - libc::CMSG_LEN(0) as usize) / size_of::<RawFd>();
                fds.extend((0..count).map(|index| OwnedFd::from_raw_fd(data.add(index).read_unaligned())));
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    fds
}

fn without_waiting(operation: &'static str, mut call: impl FnMut() -> isize) -> Result<Option<usize>> {
    loop {
        let done = call();
        return match done {
            -1 if errno() == libc::EINTR => continue,
            -1 if errno() == libc::EAGAIN => Ok(None),
            -1 => Err(last_error(operation)),
            done => Ok(Some(done as usize)),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_child::{TempDir, alone, exit_code_of_fork, is_open};
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::fs::PermissionsExt;

    fn some_fds(count: usize) -> Vec<OwnedFd> {
        (0..count).map(|_| File::open("/dev/null").unwrap().into()).collect()
    }

    fn open_count() -> usize {
        (0..1024).filter(|fd| is_open(*fd)).count()
    }

    #[test]
    fn a_tcp_peer_that_vanished_is_noticed() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        tune_tcp(stream.as_fd()).unwrap();
        let option = |level, name| {
            let (mut value, mut size) = (0 as libc::c_int, size_of::<libc::c_int>() as libc::socklen_t);
            // SAFETY: both outlive the call.
            let done = unsafe {
                libc::getsockopt(stream.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut size)
            };
            assert_eq!(done, 0);
            value
        };
        assert!(stream.nodelay().unwrap());
        assert_eq!(option(libc::SOL_SOCKET, libc::SO_KEEPALIVE), 1);
        assert_eq!(option(libc::IPPROTO_TCP, libc::TCP_KEEPIDLE), KEEPALIVE_IDLE_S);
        assert_eq!(option(libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT), 30_000);
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        tune_tcp(one.as_fd()).expect_err("no TCP");
    }

    #[test]
    fn descriptors_arrive_with_their_bytes_and_close_on_exec() {
        let (mine, theirs) = socketpair().unwrap();
        let fds = some_fds(FDS_MAX);
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        assert_eq!(send_with_fds(mine.as_fd(), b"hello", &borrowed).unwrap(), 5);
        let mut bytes = [0; 16];
        let (len, came) = recv_with_fds(theirs.as_fd(), &mut bytes, FDS_MAX).unwrap();
        assert_eq!((&bytes[..len], came.len()), (&b"hello"[..], FDS_MAX));
        // SAFETY: plain call on a descriptor we own.
        assert_eq!(unsafe { libc::fcntl(came[0].as_raw_fd(), libc::F_GETFD) }, libc::FD_CLOEXEC);
        let too_many = vec![fds[0].as_fd(); FDS_MAX + 1];
        assert_eq!(send_with_fds(mine.as_fd(), b"x", &too_many).unwrap_err().kind(), ErrorKind::TooLarge);
    }

    #[test]
    fn too_many_descriptors_are_closed_and_refused() {
        let _alone = alone();
        let code = exit_code_of_fork(|| {
            let (mine, theirs) = socketpair().unwrap();
            let fds = some_fds(5);
            let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            send_with_fds(mine.as_fd(), b"x", &borrowed).unwrap();
            let before = open_count();
            let refused = recv_with_fds(theirs.as_fd(), &mut [0; 16], 4).unwrap_err();
            i32::from(!(refused.kind() == ErrorKind::Protocol && open_count() == before))
        });
        assert_eq!(code, 0);
    }

    #[test]
    fn a_full_descriptor_table_is_an_error_and_leaks_nothing() {
        let _alone = alone();
        let code = exit_code_of_fork(|| {
            let (mine, theirs) = socketpair().unwrap();
            let fds = some_fds(8);
            let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            send_with_fds(mine.as_fd(), b"x", &borrowed).unwrap();
            let highest = fds.iter().map(AsRawFd::as_raw_fd).max().unwrap();
            // Room for three of the eight.
            let limit = libc::rlimit { rlim_cur: highest as u64 + 4, rlim_max: highest as u64 + 4 };
            // SAFETY: `limit` outlives the call; this is a child process of its own.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
            let filler: Vec<_> = (0..).map_while(|_| File::open("/dev/null").ok()).collect();
            drop(filler);
            let before = open_count();
            let refused = recv_with_fds(theirs.as_fd(), &mut [0; 16], 8).unwrap_err();
            let freed = open_count() == before;
            // The session is still usable once there is room.
            send_with_fds(mine.as_fd(), b"y", &borrowed[..1]).unwrap();
            let (len, came) = recv_with_fds(theirs.as_fd(), &mut [0; 16], 8).unwrap();
            let works = (len, came.len()) == (1, 1);
            i32::from(!(refused.kind() == ErrorKind::ResourceExhausted && freed && works))
        });
        assert_eq!(code, 0);
    }

    #[test]
    fn a_directory_longer_than_a_socket_path_can_be_listened_in() {
        let _alone = alone();
        let directory = TempDir::new("socket");
        let long = directory.path().join("d".repeat(100)).join("e".repeat(100));
        std::fs::create_dir_all(&long).unwrap();
        for path in [directory.path(), &long] {
            assert_eq!(connect_unix(path, "s.sock", None).unwrap_err().kind(), ErrorKind::NotFound);
            drop(listen_unix(path, "s.sock").unwrap());
            let stale = connect_unix(path, "s.sock", None).unwrap_err();
            assert_eq!(stale.kind(), ErrorKind::NotFound, "a socket nobody listens at");
            let listener = listen_unix(path, "s.sock").unwrap();
            let mode = std::fs::metadata(path.join("s.sock")).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0);
            let mut client = connect_unix(path, "s.sock", Some(Duration::from_secs(5))).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            client.write_all(b"hi").unwrap();
            let mut bytes = [0; 2];
            server.read_exact(&mut bytes).unwrap();
            assert_eq!(&bytes, b"hi");
        }
        std::fs::write(directory.path().join("file"), "").unwrap();
        assert_eq!(listen_unix(directory.path(), "file").unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(listen_unix(&long, &"f".repeat(200)).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }

    #[test]
    fn a_listener_that_accepts_nobody_times_out() {
        let directory = TempDir::new("backlog");
        let _listener = listen_unix(directory.path(), "s.sock").unwrap();
        let mut held = Vec::new();
        let error = loop {
            match connect_unix(directory.path(), "s.sock", Some(Duration::from_millis(20))) {
                Ok(stream) => held.push(stream),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::Timeout);
    }

    #[test]
    fn nowait_never_waits_and_reports_the_end() {
        let _alone = alone();
        let (mine, theirs) = socketpair().unwrap();
        let mut bytes = [0; 8];
        assert_eq!(recv_nowait(theirs.as_fd(), &mut bytes).unwrap(), None);
        assert!(!wait_readable(theirs.as_fd(), Some(Duration::from_millis(1))).unwrap());
        assert!(send_nowait(mine.as_fd(), &[7]).unwrap());
        assert!(wait_readable(theirs.as_fd(), None).unwrap());
        assert_eq!(recv_nowait(theirs.as_fd(), &mut bytes).unwrap(), Some(1));
        while send_nowait(mine.as_fd(), &[7]).unwrap() {}
        drop(theirs);
        assert_eq!(send_nowait(mine.as_fd(), &[7]).unwrap_err().kind(), ErrorKind::Disconnected);
        let (mine, theirs) = socketpair().unwrap();
        drop(theirs);
        assert_eq!(recv_nowait(mine.as_fd(), &mut bytes).unwrap(), Some(0));
    }
}
