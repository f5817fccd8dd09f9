//! Requests between a client and its host that are not worth a fixed layout: MessagePack maps.
//!
//! Tolerant of fields added later; an operation that is not known is answered with `Unsupported`.
#![forbid(unsafe_code)]

use super::{Kind, handshake::Refusal, protocol};
use crate::{
    error::{Error, ErrorKind, Result},
    stats::{ServiceInfo, Stats},
};
use serde::{Deserialize, Serialize};

/// The longest control map a host takes.
pub const CONTROL_BYTES_MAX: usize = 16 * 1024;

/// What a client asks of its host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// Send events that match.
    Subscribe {
        /// The client's number for it.
        subscription: u32,
        /// The pattern.
        pattern: String,
        /// Its queue group; empty for none.
        #[serde(default)]
        group: String,
        /// Higher is served first.
        #[serde(default)]
        priority: i32,
        /// 0 drop oldest, 1 block, 2 disconnect.
        #[serde(default)]
        policy: u8,
        /// Events that may wait.
        capacity: u32,
        /// How long a publisher waits for it, with policy 1.
        #[serde(default)]
        block_ms: u32,
    },
    /// Send them no more.
    Unsubscribe {
        /// The client's number for it.
        subscription: u32,
    },
    /// Send calls of this service.
    Serve {
        /// The client's number for it.
        instance: u32,
        /// The service's name.
        name: String,
        /// The service's version, free text.
        #[serde(default)]
        version: String,
        /// Calls it takes at once; more wait at the host.
        concurrency: u32,
        /// Calls that may wait for it.
        #[serde(default)]
        queue: u32,
        /// Calls a second, 0 for no limit.
        #[serde(default)]
        rate: f64,
        /// Calls at once above the rate.
        #[serde(default)]
        burst: u32,
    },
    /// Send them no more.
    Unserve {
        /// The client's number for it.
        instance: u32,
    },
    /// List the services.
    Services,
    /// Count everything.
    Stats,
    /// Answer, so that the round trip is known to work.
    Ping,
}

/// A request with the number its answer will carry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Control {
    /// Chosen by the client.
    pub seq: u64,
    /// What it asks.
    pub request: Request,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ControlReply {
    /// The request's number.
    pub seq: u64,
    /// The error, when it failed.
    #[serde(default)]
    pub error: Option<Refusal>,
    /// Answer to `Services`.
    #[serde(default)]
    pub services: Vec<ServiceInfo>,
    /// Answer to `Stats`.
    #[serde(default)]
    pub stats: Option<Stats>,
}

impl Control {
    /// The frame's body.
    pub fn encode(&self) -> Vec<u8> {
        frame(Kind::Control, self)
    }

    /// Reads a body. An operation that is not known is an error of kind `Unsupported` that carries `seq`.
    pub fn decode(body: &[u8]) -> Result<Self> {
        let map = body.get(1..).ok_or_else(|| protocol("control: empty"))?;
        if map.len() > CONTROL_BYTES_MAX {
            return Err(protocol("control: over the limit"));
        }
        rmp_serde::from_slice(map).map_err(|error| {
            #[derive(Deserialize)]
            struct Seq {
                seq: u64,
            }
            match rmp_serde::from_slice::<Seq>(map) {
                Ok(Seq { seq }) => {
                    Error::new(ErrorKind::Unsupported, "session.control").with("seq", seq).because(error)
                }
                Err(_) => protocol("control: malformed map").because(error),
            }
        })
    }
}

impl ControlReply {
    /// The frame's body.
    pub fn encode(&self) -> Vec<u8> {
        frame(Kind::ControlReply, self)
    }

    /// Reads a body.
    pub fn decode(body: &[u8]) -> Result<Self> {
        let map = body.get(1..).ok_or_else(|| protocol("control reply: empty"))?;
        rmp_serde::from_slice(map).map_err(|error| protocol("control reply: malformed map").because(error))
    }
}

fn frame<T: Serialize>(kind: Kind, value: &T) -> Vec<u8> {
    let mut out = vec![kind as u8];
    rmp_serde::encode::write_named(&mut out, value).expect(
        "control messages hold only numbers, text, lists and maps, and a Vec takes any number of bytes",
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn requests_survive_a_round_trip() {
        for request in [
            Request::Subscribe {
                subscription: 1,
                pattern: "a.>".into(),
                group: "g".into(),
                priority: -3,
                policy: 1,
                capacity: 10,
                block_ms: 100,
            },
            Request::Serve {
                instance: 2,
                name: "x".into(),
                version: "1".into(),
                concurrency: 4,
                queue: 100,
                rate: 2.5,
                burst: 3,
            },
            Request::Services,
            Request::Ping,
        ] {
            let control = Control { seq: 9, request };
            assert_eq!(Control::decode(&control.encode()).unwrap(), control);
        }
        let reply = ControlReply { seq: 3, ..Default::default() };
        assert_eq!(ControlReply::decode(&reply.encode()).unwrap(), reply);
    }

    #[test]
    fn an_unknown_operation_is_unsupported_not_a_violation() {
        #[derive(Serialize)]
        struct Newer {
            seq: u64,
            request: Op,
        }
        #[derive(Serialize)]
        struct Op {
            op: &'static str,
        }
        let error = Control::decode(&frame(Kind::Control, &Newer { seq: 4, request: Op { op: "teleport" } }))
            .unwrap_err();
        assert_eq!((error.kind(), error.get("seq")), (ErrorKind::Unsupported, Some("4")));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_are_refused(body in proptest::collection::vec(any::<u8>(), 0..128)) {
            let _ = (Control::decode(&body), ControlReply::decode(&body));
        }
    }
}
