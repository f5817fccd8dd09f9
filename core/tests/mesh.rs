//! What a user can do with one host and its clients, over every transport.

use flowmesh::*;
use std::{
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("flowmesh-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const SOON: Option<Duration> = Some(Duration::from_secs(10));
const SECRET: &[u8] = b"a shared secret of some length";

/// A host and a client over each transport.
fn over_all(test: impl Fn(&Mesh, &Mesh)) {
    for transport in ["shm", "unix", "tcp"] {
        let dir = Dir::new();
        let host = Mesh::open(&dir.0).unwrap();
        let client = match transport {
            "shm" => Mesh::connect(&dir.0).unwrap(),
            "unix" => Mesh::builder().shared_memory(false).connect(&dir.0).unwrap(),
            _ => {
                let address = host.listen_tcp("127.0.0.1:0", SECRET).unwrap();
                Mesh::builder().connect_tcp(&address.to_string(), SECRET).unwrap()
            }
        };
        assert_eq!(host.stats().unwrap().sessions[0].transport, transport);
        test(&host, &client);
    }
}

#[test]
fn events_both_ways() {
    over_all(|host, client| {
        let at_client = client.subscribe("a.*").unwrap();
        let at_host = host.subscribe("b.>").unwrap();
        host.publish("a.x", b"1").unwrap();
        client.publish("b.y.z", b"2").unwrap();
        let got = at_client.receive(SOON).unwrap();
        assert_eq!((got.message.subject(), got.message.payload()), ("a.x", &b"1"[..]));
        let got = at_host.receive(SOON).unwrap();
        assert_eq!((got.message.subject(), got.message.payload()), ("b.y.z", &b"2"[..]));
    });
}

#[test]
fn calls_both_ways() {
    over_all(|host, client| {
        let upper = |request: &Request| Ok(Reply::from(request.payload().to_ascii_uppercase()));
        let _a = host.serve("at.host", ServeOptions::default(), upper).unwrap();
        let _b = client.serve("at.client", ServeOptions::default(), upper).unwrap();
        for _ in 0..100 {
            for (mesh, service) in
                [(client, "at.host"), (host, "at.client"), (client, "at.client"), (host, "at.host")]
            {
                let answer = mesh.call(service, b"abc", Duration::from_secs(10)).unwrap();
                assert_eq!(answer.payload(), b"ABC", "{service}");
            }
        }
        let stats = client.stats().unwrap();
        assert_eq!(stats.services.iter().map(|service| service.calls).sum::<u64>(), 400);
    });
}

#[test]
fn large_messages_arrive_whole() {
    over_all(|host, client| {
        let at_client = client.subscribe("big").unwrap();
        let at_host = host.subscribe("big").unwrap();
        for size in [65_000, 65_536, 70_000, 1 << 20, 5_000_001] {
            let payload: Vec<u8> = (0..size).map(|i| (i * 7) as u8).collect();
            for mesh in [host, client] {
                mesh.publish("big", &payload).unwrap();
                assert!(at_client.receive(SOON).unwrap().message.payload() == payload, "{size}");
                assert!(at_host.receive(SOON).unwrap().message.payload() == payload, "{size}");
            }
        }
    });
}

#[test]
fn a_burst_larger_than_the_ring_is_lossless_for_a_subscriber_that_blocks() {
    over_all(|host, client| {
        let options = SubscribeOptions {
            on_slow: OnSlow::Block { timeout: Duration::from_secs(20) },
            capacity: 100,
            ..SubscribeOptions::default()
        };
        let sub = client.subscribe_with("n", options.clone()).unwrap();
        let local = host.subscribe_with("n", options).unwrap();
        for publisher in [host, client] {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    for i in 0..5_000u32 {
                        publisher.publish("n", &i.to_le_bytes()).unwrap();
                    }
                });
                for sub in [&sub, &local] {
                    scope.spawn(move || {
                        for i in 0..5_000u32 {
                            let got = sub.receive(SOON).unwrap_or_else(|error| {
                                panic!("event {i} of {:?}: {error}; {:#?}", publisher.role(), host.stats())
                            });
                            assert_eq!((got.message.payload(), got.gap), (&i.to_le_bytes()[..], 0));
                        }
                    });
                }
            });
        }
    });
}

#[test]
fn gaps_are_exact_when_the_oldest_are_dropped() {
    over_all(|host, client| {
        for publisher in [host, client] {
            let options = SubscribeOptions { capacity: 10, ..SubscribeOptions::default() };
            let sub = client.subscribe_with("n", options).unwrap();
            let total = 50_000u64;
            let event = vec![7u8; 100];
            for _ in 0..total {
                publisher.publish("n", &event).unwrap();
            }
            publisher.publish("n", b"end").unwrap();
            let (mut delivered, mut gaps) = (0, 0);
            loop {
                let got = sub.receive(SOON).unwrap();
                gaps += got.gap;
                if got.message.payload() == b"end" {
                    break;
                }
                delivered += 1;
            }
            assert_eq!(delivered + gaps, total);
        }
    });
}

#[test]
fn a_dead_host_disconnects_and_everything_waiting_ends() {
    over_all(|host, client| {
        let sub = client.subscribe("x").unwrap();
        let service = client.service("s", ServeOptions::default()).unwrap();
        let _unanswered = client.service("unanswered", ServeOptions::default()).unwrap();
        std::thread::scope(|scope| {
            let waits = [
                scope.spawn(|| sub.receive(None).map(drop)),
                scope.spawn(|| service.next(&mut Wait::forever()).map(drop)),
                scope.spawn(|| client.call("unanswered", b"", Duration::from_secs(60)).map(drop)),
            ];
            std::thread::sleep(Duration::from_millis(50));
            host.close();
            for wait in waits {
                let error = wait.join().unwrap();
                if let Err(error) = error {
                    assert_eq!(error.kind(), ErrorKind::Disconnected, "{error}");
                }
            }
        });
        assert_eq!(client.publish("x", b"").unwrap_err().kind(), ErrorKind::Disconnected);
        assert_eq!(host.publish("x", b"").unwrap_err().kind(), ErrorKind::Closed);
    });
}

#[test]
fn many_threads_call_at_once() {
    over_all(|host, client| {
        let options = ServeOptions { concurrency: 4, ..ServeOptions::default() };
        let _service = host.serve("echo", options, |request| Ok(Reply::from(request.payload()))).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..8u32 {
                scope.spawn(move || {
                    for i in 0..500u32 {
                        let payload = (thread << 16 | i).to_le_bytes();
                        let answer = client.call("echo", &payload, Duration::from_secs(20)).unwrap();
                        assert_eq!(answer.payload(), payload);
                    }
                });
            }
        });
    });
}

#[test]
fn a_timeout_longer_than_clocks_count_is_for_ever() {
    let dir = Dir::new();
    let _host = Mesh::open(&dir.0).unwrap();
    let client = Mesh::builder().connect_timeout(Duration::MAX).connect(&dir.0).unwrap();
    let events = client.subscribe("a").unwrap();
    client.publish("a", b"1").unwrap();
    assert_eq!(events.receive(Some(Duration::MAX)).unwrap().message.payload(), b"1");
}
