//! What is not valid is refused with an error of the right kind that names the value and the limit.

mod support;

use flowmesh::{
    wire::handshake::{self, Refusal, Welcome},
    *,
};
use std::{
    fs::{self, Permissions},
    io::{Read, Write},
    net::TcpListener,
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::Path,
    thread,
    time::Duration,
};
use support::*;

const SOCKET: &str = "flowmesh.sock";

#[test]
fn subjects_and_patterns() {
    over_all(|host, client| {
        let long = "x".repeat(256);
        for mesh in [host, client] {
            for subject in ["", ".", "a.", ".a", "a..b", "a b", "a\n", "a.*", "a.>", "$sys.x", &long] {
                let shown = if subject == long { "x…" } else { &format!("{subject:?}") };
                let values = [("subject", shown), ("rule", "")];
                assert_error(mesh.publish(subject, b""), ErrorKind::InvalidArgument, &values);
                let events = [("a.b", b""), (subject, b"")];
                let values = [values[0], values[1], ("index", "1")];
                let published = mesh.publish_many(&events, &PublishOptions::default());
                assert_error(published, ErrorKind::InvalidArgument, &values);
            }
            for pattern in ["", "a*", "a.>.b", ">.a", "a..b", "a b", &long] {
                let shown = if pattern == long { "x…" } else { &format!("{pattern:?}") };
                let values = [("pattern", shown), ("rule", "")];
                assert_error(mesh.subscribe(pattern), ErrorKind::InvalidArgument, &values);
            }
            assert_error(
                mesh.publish(&long, b""),
                ErrorKind::InvalidArgument,
                &[("bytes", "256"), ("limit_bytes", "255")],
            );
            for name in ["", "a b", "a/b", "ü", "*", &long] {
                let call = mesh.call(name, b"", Duration::from_secs(1));
                assert_error(call, ErrorKind::InvalidArgument, &[("name", ""), ("rule", "")]);
                let served = mesh.service(name, ServeOptions::default());
                assert_error(served, ErrorKind::InvalidArgument, &[("name", ""), ("rule", "")]);
            }
        }
        // The mesh is as good as before.
        let sub = client.subscribe("a.b").unwrap();
        host.publish("a.b", b"1").unwrap();
        assert_eq!(sub.receive(SOON).unwrap().message.payload(), b"1");
        assert_eq!(host.stats().unwrap().bus.published, 1, "what was refused was not sent");
    });
}

#[test]
fn payloads_over_the_limit() {
    over_all_with(
        |builder| builder.max_message_bytes(100_000),
        |host, client| {
            let over = vec![7; 100_001];
            let values = [("payload_bytes", "100001"), ("limit_bytes", "100000")];
            let echo = |request: &Request| Ok(Reply::from(request.payload()));
            let grow = |request: &Request| Ok(Reply::from(vec![0; request.payload().len() + 100_001]));
            let _services = [
                host.serve("echo", ServeOptions::default(), echo).unwrap(),
                host.serve("grow.host", ServeOptions::default(), grow).unwrap(),
                client.serve("grow.client", ServeOptions::default(), grow).unwrap(),
            ];
            for mesh in [host, client] {
                assert_eq!(mesh.max_message_bytes(), 100_000);
                assert_error(mesh.publish("a", &over), ErrorKind::TooLarge, &values);
                let events = [("a", &b""[..]), ("a", &over)];
                let published = mesh.publish_many(&events, &PublishOptions::default());
                assert_error(published, ErrorKind::TooLarge, &[values[0], values[1], ("index", "1")]);
                assert_error(mesh.call("echo", &over, WATCHDOG), ErrorKind::TooLarge, &values);
                // An answer over the limit fails the call with the same error.
                for service in ["grow.host", "grow.client"] {
                    assert_error(mesh.call(service, b"", WATCHDOG), ErrorKind::TooLarge, &values);
                }
                let most = &over[..100_000];
                assert_eq!(mesh.call("echo", most, WATCHDOG).unwrap().payload(), most);
            }
        },
    );
}

#[test]
fn headers_over_the_limits() {
    over_all(|host, client| {
        let echo = |request: &Request| Ok(Reply::from(request.payload()));
        let _echo = host.serve("echo", ServeOptions::default(), echo).unwrap();
        let many: Vec<_> = (0..65).map(|i| (format!("h{i}"), String::new())).collect();
        let large = vec![("name".to_owned(), "x".repeat(16_384))];
        let nameless = vec![(String::new(), "x".to_owned())];
        for mesh in [host, client] {
            for (headers, kind, values) in [
                (&many, ErrorKind::TooLarge, &[("headers", "64"), ("limit", "64")][..]),
                (&large, ErrorKind::TooLarge, &[("header_bytes", "16392"), ("limit_bytes", "16384")]),
                (&nameless, ErrorKind::InvalidArgument, &[("header", "an empty name")]),
            ] {
                let options = PublishOptions { headers: headers.clone(), ..PublishOptions::default() };
                assert_error(mesh.publish_with("a", b"", &options), kind, values);
                assert_error(mesh.publish_many(&[("a", b"")], &options), kind, values);
                let options = CallOptions { headers: headers.clone(), ..CallOptions::default() };
                assert_error(mesh.call_with("echo", b"", &options, &mut Wait::forever()), kind, values);
                let reply = headers.clone();
                let service = mesh
                    .serve("headed", ServeOptions::default(), move |_: &Request| {
                        Ok(Reply { payload: Vec::new(), headers: reply.clone() })
                    })
                    .unwrap();
                for caller in [host, client] {
                    assert_error(caller.call("headed", b"", WATCHDOG), kind, values);
                }
                service.close();
            }
        }
    });
}

#[test]
fn options_out_of_range() {
    over_all(|host, client| {
        for mesh in [host, client] {
            let refused = |result: Result<()>, values: &[(&str, &str)]| {
                assert_error(result, ErrorKind::InvalidArgument, values);
            };
            let publish = |options: PublishOptions| mesh.publish_with("a", b"", &options).map(drop);
            let ages = Some(Duration::from_secs(60 * 86_400));
            refused(
                publish(PublishOptions { priority: 10, ..PublishOptions::default() }),
                &[("priority", "10"), ("limit", "9")],
            );
            refused(
                publish(PublishOptions { ttl: ages, ..PublishOptions::default() }),
                &[("ttl", "5184000000 ms"), ("limit_ms", "4294967295")],
            );
            refused(
                publish(PublishOptions { delay: ages, ..PublishOptions::default() }),
                &[("delay", "5184000000 ms"), ("limit_ms", "4294967295")],
            );
            let subscribe = |options: SubscribeOptions| mesh.subscribe_with("a", options).map(drop);
            refused(
                subscribe(SubscribeOptions { capacity: 0, ..SubscribeOptions::default() }),
                &[("capacity", "0"), ("limit", "1 to 1048576")],
            );
            let retry = Some(Retry { max_attempts: 1001, ..Retry::default() });
            refused(
                subscribe(SubscribeOptions { retry, ..SubscribeOptions::default() }),
                &[("retry.max_attempts", "1001"), ("limit", "1 to 1000")],
            );
            let serve = |options: ServeOptions| mesh.service("a", options).map(drop);
            refused(
                serve(ServeOptions { concurrency: 0, ..ServeOptions::default() }),
                &[("concurrency", "0"), ("limit", "1 to 65536")],
            );
            let call = mesh.call("a", b"", Duration::from_secs(60 * 86_400)).map(drop);
            refused(call, &[("timeout", "5184000000 ms"), ("limit_ms", "4294967295")]);
        }
    });
    let dir = Dir::new();
    for (builder, values) in [
        (Mesh::builder().max_message_bytes(1), [("max_message_bytes", "1"), ("minimum", "1024")]),
        (Mesh::builder().ring_bytes(1), [("ring_bytes", "1"), ("minimum", "65536")]),
        (Mesh::builder().ring_bytes(100_000), [("ring_bytes", "100000"), ("rule", "a power of two")]),
        (Mesh::builder().ring_bytes(128 << 20), [("ring_bytes", "134217728"), ("limit", "67108864")]),
        (Mesh::builder().max_sessions(0), [("max_sessions", "0"), ("minimum", "1")]),
        (Mesh::builder().name(&"n".repeat(256)), [("name_bytes", "256"), ("limit_bytes", "255")]),
    ] {
        assert_error(builder.open(&dir), ErrorKind::InvalidArgument, &values);
    }
}

#[test]
fn directories_that_cannot_be_connected_to() {
    let dir = Dir::new();
    let missing = dir.path().join("missing");
    let shown = missing.display().to_string();
    assert_error(
        Mesh::connect(&missing),
        ErrorKind::NotFound,
        &[("directory", &shown), ("reason", "no such directory")],
    );
    let shown = dir.path().display().to_string();
    let reason = ("reason", "no host has this directory open");
    assert_error(Mesh::connect(&dir), ErrorKind::NotFound, &[("directory", &shown), reason]);
    // A host that is gone leaves its socket behind.
    drop(UnixListener::bind(dir.path().join(SOCKET)).unwrap());
    assert_error(Mesh::connect(&dir), ErrorKind::NotFound, &[("directory", &shown), reason]);
    // A file that is no socket, a directory that is a file.
    fs::remove_file(dir.path().join(SOCKET)).unwrap();
    fs::write(dir.path().join(SOCKET), "text").unwrap();
    assert_error(Mesh::connect(&dir), ErrorKind::NotFound, &[("directory", &shown), reason]);
    assert!(Mesh::connect(dir.path().join(SOCKET)).is_err());
    assert!(Mesh::open(dir.path().join(SOCKET)).is_err());
}

#[test]
fn a_directory_that_is_open_already() {
    let dir = Dir::new();
    let host = Mesh::open(&dir).unwrap();
    let shown = dir.path().display().to_string();
    let pid = std::process::id().to_string();
    assert_error(Mesh::open(&dir), ErrorKind::AlreadyOpen, &[("directory", &shown), ("pid", &pid)]);
    Process::run("opens_an_open_directory", &[&shown, &pid]);
    host.close();
    Mesh::open(&dir).unwrap();
}

#[test]
fn directories_of_another_user() {
    let dir = Dir::new();
    fs::set_permissions(&dir, Permissions::from_mode(0o711)).unwrap();
    for name in ["locked", "readable"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    let _hosts =
        [Mesh::open(dir.path().join("locked")).unwrap(), Mesh::open(dir.path().join("readable")).unwrap()];
    fs::create_dir(dir.path().join("locked/inner")).unwrap();
    fs::set_permissions(dir.path().join("locked"), Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(dir.path().join("readable"), Permissions::from_mode(0o755)).unwrap();
    Process::run("is_another_user", &[&dir.path().display().to_string()]);
    fs::set_permissions(dir.path().join("locked"), Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn programs() {
    support::programs(&[
        ("subscribes_and_serves", |arguments| {
            let mesh = Mesh::connect(arguments[0]).unwrap();
            let events = mesh.subscribe("flood").unwrap();
            let options = ServeOptions { queue: 10, ..ServeOptions::default() };
            let _service = mesh
                .serve("answers", options, |request: &Request| Ok(Reply::from(request.payload())))
                .unwrap();
            while events.receive(None).is_ok() {}
        }),
        ("serves", |arguments| {
            let host = Mesh::open(arguments[0]).unwrap();
            let echo = |request: &Request| Ok(Reply::from(request.payload()));
            let _echo = host.serve("echo", ServeOptions::default(), echo).unwrap();
            loop {
                thread::sleep(WATCHDOG);
            }
        }),
        ("opens_an_open_directory", |arguments| {
            let values = [("directory", arguments[0]), ("pid", arguments[1])];
            assert_error(Mesh::open(arguments[0]), ErrorKind::AlreadyOpen, &values);
        }),
        ("is_another_user", |arguments| {
            // SAFETY: plain calls; this process has no other thread that relies on its user.
            unsafe {
                if libc::geteuid() == 0 {
                    let dropped =
                        [libc::setgroups(0, std::ptr::null()), libc::setgid(65_534), libc::setuid(65_534)];
                    assert_eq!(dropped, [0; 3]);
                }
            }
            let dir = Path::new(arguments[0]);
            for name in ["locked", "locked/inner"] {
                let path = dir.join(name);
                let shown = path.display().to_string();
                let values = [("directory", shown.as_str())];
                assert_error(Mesh::connect(&path), ErrorKind::PermissionDenied, &values);
                assert_error(Mesh::open(&path), ErrorKind::PermissionDenied, &values);
            }
            // Not even when the directory can be read: the socket is its user's alone.
            if std::env::var("USER").is_ok_and(|user| user != "root") {
                return;
            }
            let connected = Mesh::connect(dir.join("readable"));
            assert_error(connected, ErrorKind::PermissionDenied, &[("directory", "readable")]);
        }),
    ]);
}

/// Who listens on `dir`'s socket and answers whoever connects with `answer`.
fn impostor(dir: &Dir, answer: impl Fn(UnixStream) + Send + 'static) -> thread::JoinHandle<()> {
    let listener = UnixListener::bind(dir.path().join(SOCKET)).unwrap();
    thread::spawn(move || answer(listener.accept().unwrap().0))
}

fn hear(mut stream: &UnixStream) {
    let mut bytes = [0; 4096];
    stream.set_read_timeout(SOON).unwrap();
    assert!(stream.read(&mut bytes).unwrap() > 12);
}

#[test]
fn a_socket_that_is_not_flowmesh() {
    for answer in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"\0\0\0\0\0\0\0\0", b"FLOWMESH\xff\xff\xff\xff"]
    {
        let dir = Dir::new();
        let listens = impostor(&dir, move |mut stream| {
            hear(&stream);
            stream.write_all(answer).unwrap();
        });
        let shown = dir.path().display().to_string();
        let values = [("directory", shown.as_str()), ("violation", "handshake")];
        assert_error(Mesh::connect(&dir), ErrorKind::Protocol, &values);
        listens.join().unwrap();
    }
    // One that hangs up, and one that never answers.
    let dir = Dir::new();
    let listens = impostor(&dir, |stream| hear(&stream));
    assert_error(Mesh::connect(&dir), ErrorKind::Disconnected, &[("directory", "")]);
    listens.join().unwrap();
    let dir = Dir::new();
    let _listener = UnixListener::bind(dir.path().join(SOCKET)).unwrap();
    let connected = Mesh::builder().connect_timeout(Duration::from_millis(50)).connect(&dir);
    assert_error(connected, ErrorKind::Timeout, &[("timeout_ms", "50"), ("directory", "")]);
    // TCP.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let listens = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").unwrap();
        let _ = stream.read(&mut [0; 4096]);
    });
    let connected = Mesh::builder().connect_tcp(&address, SECRET);
    assert_error(connected, ErrorKind::Protocol, &[("address", &address), ("violation", "not FlowMesh")]);
    listens.join().unwrap();
    assert!(Mesh::builder().connect_tcp(&address, SECRET).is_err(), "nobody listens any more");
    let connected = Mesh::builder().connect_tcp("no port", SECRET);
    assert_error(connected, ErrorKind::InvalidArgument, &[("address", "no port")]);
}

#[test]
fn a_client_that_is_not_flowmesh_is_refused_and_counted() {
    let dir = Dir::new();
    let host = Mesh::open(&dir).unwrap();
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"FLOWMESH\xff\xff\xff\xff", b"FLOWMESH\x01\0\0\0\xc1"] {
        let mut stream = UnixStream::connect(dir.path().join(SOCKET)).unwrap();
        stream.set_read_timeout(SOON).unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let refusal = handshake::decode::<Welcome>(&answer);
        assert_error(refusal, ErrorKind::Protocol, &[("violation", "handshake")]);
    }
    // One that hangs up is no client either.
    drop(UnixStream::connect(dir.path().join(SOCKET)).unwrap());
    until("all are counted", || host.stats().unwrap().handshakes_refused == 4);
    Mesh::connect(&dir).unwrap();
}

#[test]
fn versions_that_do_not_meet() {
    // An old host and a new client: the host refuses and names both ranges.
    let dir = Dir::new();
    let _host = Mesh::open(&dir).unwrap();
    let mut stream = UnixStream::connect(dir.path().join(SOCKET)).unwrap();
    let hello = handshake::Hello {
        wire_min: 7,
        wire_max: 9,
        name: "new".into(),
        version: "9.0.0".into(),
        language: "rust".into(),
        pid: std::process::id(),
        shared_memory: true,
        capabilities: Vec::new(),
        challenge: Vec::new(),
    };
    stream.write_all(&handshake::encode(&hello)).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let ranges = [("client_wire", "7..=9"), ("host_wire", "1..=1")];
    assert_error(handshake::decode::<Welcome>(&answer), ErrorKind::VersionMismatch, &ranges);
    // A new host and this client.
    let dir = Dir::new();
    let listens = impostor(&dir, |mut stream| {
        hear(&stream);
        let error = Error::new(ErrorKind::VersionMismatch, "session.handshake")
            .with("client_wire", "1..=1")
            .with("host_wire", "7..=9");
        stream.write_all(&handshake::encode(&Refusal::of(&error))).unwrap();
    });
    let ranges = [("client_wire", "1..=1"), ("host_wire", "7..=9"), ("directory", "")];
    assert_error(Mesh::connect(&dir), ErrorKind::VersionMismatch, &ranges);
    listens.join().unwrap();
    // One that takes any client in, with a version of its own.
    let dir = Dir::new();
    let listens = impostor(&dir, |mut stream| {
        hear(&stream);
        stream.write_all(&handshake::encode(&Welcome { wire: 9, ..Welcome::default() })).unwrap();
    });
    assert_error(Mesh::connect(&dir), ErrorKind::VersionMismatch, &[("directory", "")]);
    listens.join().unwrap();
}

#[test]
fn secrets_that_are_missing_short_or_wrong() {
    let dir = Dir::new();
    let host = Mesh::open(&dir).unwrap();
    let address = host.listen_tcp("127.0.0.1:0", SECRET).unwrap().to_string();
    let connect = |secret: &[u8]| Mesh::builder().connect_tcp(&address, secret).map(drop);
    assert_error(connect(b""), ErrorKind::Unauthenticated, &[("secret", "")]);
    assert_error(connect(b"short"), ErrorKind::InvalidArgument, &[("secret_bytes", "5"), ("minimum", "16")]);
    let wrong = connect(b"another secret of some length");
    assert_error(wrong, ErrorKind::Unauthenticated, &[("address", &address)]);
    connect(SECRET).unwrap();
    assert_error(host.listen_tcp("127.0.0.1:0", b""), ErrorKind::Unauthenticated, &[("secret", "")]);
    assert_error(host.listen_tcp("nowhere", SECRET), ErrorKind::InvalidArgument, &[("address", "nowhere")]);
    let client = Mesh::connect(&dir).unwrap();
    assert_error(client.listen_tcp("127.0.0.1:0", SECRET), ErrorKind::Unsupported, &[("reason", "host")]);
}

#[test]
fn sessions_over_the_limit() {
    let dir = Dir::new();
    let host = Mesh::builder().max_sessions(2).open(&dir).unwrap();
    let clients = [Mesh::connect(&dir).unwrap(), Mesh::connect(&dir).unwrap()];
    let error = assert_error(
        Mesh::connect(&dir),
        ErrorKind::ResourceExhausted,
        &[("sessions", "2"), ("limit", "2"), ("directory", "")],
    );
    assert!(error.is_retryable());
    drop(clients);
    until("there is room", || host.stats().unwrap().sessions.is_empty());
    Mesh::connect(&dir).unwrap();
}

#[test]
fn a_handler_that_throws_fails_its_call_with_type_and_message() {
    over_all(|host, client| {
        for (server, caller) in [(host, client), (client, host), (client, client), (host, host)] {
            let service = server
                .serve("bad", ServeOptions::default(), |request: &Request| match request.payload() {
                    b"panic" => panic!("out of cheese"),
                    b"error" => Err(HandlerError::new("CheeseError", "none left")),
                    b"io" => Err(std::io::Error::other("no milk").into()),
                    _ => Ok(Reply::from("fine")),
                })
                .unwrap();
            for (payload, kind, message) in [
                ("panic", "panic", "out of cheese"),
                ("error", "CheeseError", "none left"),
                ("io", "std::io::error::Error", "no milk"),
            ] {
                let values = [("type", kind), ("message", message), ("service", "bad")];
                let call = caller.call("bad", payload.as_bytes(), WATCHDOG);
                assert_error(call, ErrorKind::HandlerFailed, &values);
            }
            assert_eq!(caller.call("bad", b"", WATCHDOG).unwrap().payload(), b"fine");
            // Its text is cut where it would not fit a frame's headers.
            service.close();
            let long = server
                .serve("long", ServeOptions::default(), |_: &Request| {
                    Err(HandlerError::new("T".repeat(100_000), "ä".repeat(100_000)))
                })
                .unwrap();
            let error = caller.call("long", b"", WATCHDOG).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::HandlerFailed);
            assert!(error.get("message").unwrap().starts_with("ää"), "{error}");
            long.close();
        }
    });
}

#[test]
fn a_handler_that_never_returns_keeps_only_its_own_place() {
    over_all(|host, client| {
        for (server, caller) in [(host, client), (client, host)] {
            let (release, held) = std::sync::mpsc::channel::<()>();
            let held = std::sync::Mutex::new(held);
            let options = ServeOptions { concurrency: 2, ..ServeOptions::default() };
            let service = server
                .serve("sleepy", options, move |request: &Request| {
                    if request.payload() == b"sleep" {
                        let _ = held.lock().unwrap().recv();
                    }
                    Ok(Reply::from("awake"))
                })
                .unwrap();
            let call = caller.call("sleepy", b"sleep", Duration::from_millis(30));
            assert_error(call, ErrorKind::Timeout, &[("timeout_ms", "30"), ("service", "sleepy")]);
            for _ in 0..10 {
                assert_eq!(caller.call("sleepy", b"", WATCHDOG).unwrap().payload(), b"awake");
            }
            // Events and other services go on.
            let sub = caller.subscribe("x").unwrap();
            server.publish("x", b"").unwrap();
            sub.receive(SOON).unwrap();
            drop(release);
            service.close();
        }
    });
}

#[test]
fn a_handler_that_blocks_on_its_own_mesh_is_answered_or_times_out() {
    over_all(|host, client| {
        for (server, caller) in [(host, client), (client, host)] {
            let mesh = server.clone();
            let service = server
                .serve("selfish", ServeOptions::default(), move |_: &Request| {
                    // Its one place is taken by the call it is in.
                    let inner = mesh.call("selfish", b"", Duration::from_millis(30));
                    Ok(Reply::from(inner.unwrap_err().kind().name()))
                })
                .unwrap();
            assert_eq!(caller.call("selfish", b"", WATCHDOG).unwrap().payload(), b"Timeout");
            service.close();
        }
    });
}

#[test]
fn a_client_that_never_reads_costs_the_others_nothing() {
    over_all_with(
        |builder| builder.max_message_bytes(1 << 20).ring_bytes(64 << 10),
        |host, client| {
            // Nothing is ever taken from these.
            let lossy = client.subscribe("flood").unwrap();
            let options = SubscribeOptions { on_slow: OnSlow::Disconnect, ..SubscribeOptions::default() };
            let strict = client.subscribe_with("flood", options).unwrap();
            let timeout = Duration::from_millis(20);
            let on_slow = OnSlow::Block { timeout };
            let options = SubscribeOptions { on_slow, capacity: 10, ..SubscribeOptions::default() };
            let patient = client.subscribe_with("slow", options).unwrap();
            let other = host.subscribe("flood").unwrap();
            let event = vec![1; 10_000];
            for _ in 0..3000 {
                host.publish("flood", &event).unwrap();
                other.receive(SOON).unwrap();
            }
            // A subscriber that blocks makes its publisher wait, only so long, and its losses are told.
            for _ in 0..15 {
                host.publish("slow", b"").unwrap();
            }
            assert_error(
                strict.receive(SOON).and_then(|_| drain(&strict)),
                ErrorKind::SlowConsumer,
                &[("capacity", "1024")],
            );
            assert_eq!(drain_all(&lossy, 3000), 3000);
            for _ in 0..5 {
                patient.receive(SOON).unwrap();
            }
            host.publish("slow", b"").unwrap();
            assert_eq!(drain_all(&patient, 11), 11);
            let stats = host.stats().unwrap();
            assert_eq!((stats.sessions.len(), stats.protocol_violations), (1, 0));
        },
    );
}

fn drain(sub: &Subscription) -> Result<Delivery> {
    loop {
        sub.receive(SOON)?;
    }
}

/// Takes events until these and the gaps they told are as many as were published.
fn drain_all(sub: &Subscription, published: u64) -> u64 {
    let mut seen = 0;
    while seen < published {
        let got = sub.receive(SOON).unwrap_or_else(|error| panic!("{seen} of {published}: {error}"));
        seen += 1 + got.gap;
    }
    seen
}

#[test]
fn a_stopped_process_fills_its_own_ring_and_no_more() {
    let dir = Dir::new();
    let host = Mesh::builder().max_message_bytes(1 << 20).ring_bytes(64 << 10).open(&dir).unwrap();
    let other = Mesh::connect(&dir).unwrap();
    let events = other.subscribe("flood").unwrap();
    let stopped = Process::start("subscribes_and_serves", &[&dir.path().display().to_string()]);
    until("it serves", || host.services().unwrap().len() == 1);
    let signal = |signal| {
        // SAFETY: our own child, not yet waited for.
        assert_eq!(unsafe { libc::kill(stopped.pid() as i32, signal) }, 0);
    };
    signal(libc::SIGSTOP);
    let event = vec![1; 10_000];
    for _ in 0..2000 {
        host.publish("flood", &event).unwrap();
        events.receive(SOON).unwrap();
    }
    let call = other.call("answers", &event, Duration::from_millis(50));
    assert_error(call, ErrorKind::Timeout, &[("service", "answers"), ("timeout_ms", "50")]);
    // Calls nobody takes are refused once its queue is full.
    let options = CallOptions { timeout: WATCHDOG, ..CallOptions::default() };
    let pending: Vec<_> = (0..100).map(|_| host.start_call("answers", &event, &options).unwrap()).collect();
    until("a call is refused", || {
        pending.iter().filter_map(PendingCall::try_take).any(|result| {
            assert_error(result, ErrorKind::Full, &[("service", "answers"), ("queue_limit", "10")]);
            true
        })
    });
    drop(pending);
    signal(libc::SIGCONT);
    until("it answers again", || other.call("answers", b"", WATCHDOG).is_ok());
    assert_eq!(host.stats().unwrap().protocol_violations, 0);
}

#[test]
fn a_stopped_host_is_waited_for_no_longer_than_asked() {
    let dir = Dir::new();
    let host = Process::start("serves", &[&dir.path().display().to_string()]);
    let mut client = None;
    until("the host is there", || {
        client = Mesh::connect(&dir).ok();
        client.is_some()
    });
    let client = client.unwrap();
    until("it serves", || client.call("echo", b"", WATCHDOG).is_ok());
    // SAFETY: our own child, not yet waited for.
    assert_eq!(unsafe { libc::kill(host.pid() as i32, libc::SIGSTOP) }, 0);
    let status = format!("/proc/{}/status", host.pid());
    until("it stops", || fs::read_to_string(&status).unwrap().contains("State:\tT"));
    let short = Duration::from_millis(50);
    assert_error(client.call("echo", b"", short), ErrorKind::Timeout, &[("timeout_ms", "50")]);
    let options = PublishOptions { timeout: short, ..PublishOptions::default() };
    let error = loop {
        if let Err(error) = client.publish_with("a", &[0; 100_000], &options) {
            break error;
        }
    };
    assert_eq!((error.kind(), error.get("timeout_ms")), (ErrorKind::Timeout, Some("50")), "{error}");
    assert_error(client.call("echo", &[0; 100_000], short), ErrorKind::Timeout, &[]);
    let connected = Mesh::builder().connect_timeout(short).connect(&dir);
    assert_error(connected, ErrorKind::Timeout, &[("timeout_ms", "50")]);
    // Not even by a thread that closes while another waits for room, for much longer.
    thread::scope(|scope| {
        let publishes = scope.spawn(|| {
            let options = PublishOptions { timeout: Duration::from_secs(3600), ..options };
            client.publish_with("a", &[0; 100_000], &options).unwrap_err()
        });
        thread::sleep(short);
        within(WATCHDOG, "closing beside a host that is stopped", || {
            client.close();
            let error = publishes.join().unwrap();
            assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
        });
    });
}
