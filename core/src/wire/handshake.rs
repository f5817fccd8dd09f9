//! The first bytes on a socket: who is there, and which version both can speak.
//!
//!   client  `FLOWMESH` u32 length  Hello map
//!   host    `FLOWMESH` u32 length  Welcome map or Refusal map; shared memory: the descriptors come with it
//!   client  `FLOWMESH` u32 length  Attached map   (shared memory: it has mapped its region)
//!   host    `FLOWMESH` u32 length  Ready map      (its region is sealed; frames may flow)
//!
//! Maps are MessagePack with named fields: fields added later are ignored by older builds.
#![forbid(unsafe_code)]

use super::{WIRE_MAX, WIRE_MIN, protocol};
use crate::error::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;

/// The bytes every handshake message begins with.
pub const MAGIC: &[u8; 8] = b"FLOWMESH";
/// What stands before the map.
pub const PREFIX_BYTES: usize = 12;
/// The longest map.
pub const MAP_BYTES_MAX: usize = 16 * 1024;

/// What the client says first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Oldest wire version it speaks.
    pub wire_min: u32,
    /// Newest wire version it speaks.
    pub wire_max: u32,
    /// The name it wants to be shown by.
    #[serde(default)]
    pub name: String,
    /// Its FlowMesh version.
    #[serde(default)]
    pub version: String,
    /// `rust`, `c`, `python` or `node`.
    #[serde(default)]
    pub language: String,
    /// Its process.
    #[serde(default)]
    pub pid: u32,
    /// Whether frames shall go through shared memory.
    #[serde(default)]
    pub shared_memory: bool,
    /// What it can do beyond the base of its version.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// TCP: a random challenge to the host.
    #[serde(default)]
    pub challenge: Vec<u8>,
}

/// What the host answers when it takes the client in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The version both will speak.
    pub wire: u32,
    /// This session's number, unique while the host lives.
    pub session: u32,
    /// The host's FlowMesh version.
    #[serde(default)]
    pub version: String,
    /// The host's language.
    #[serde(default)]
    pub language: String,
    /// The host's process.
    #[serde(default)]
    pub pid: u32,
    /// Bytes of each ring; 0 without shared memory.
    #[serde(default)]
    pub ring_bytes: u32,
    /// The generation both regions carry.
    #[serde(default)]
    pub generation: u64,
    /// The largest message the host takes.
    pub max_message_bytes: u32,
    /// What the host can do beyond the base of its version.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// TCP: a random challenge to the client.
    #[serde(default)]
    pub challenge: Vec<u8>,
    /// TCP: the answer to the client's challenge.
    #[serde(default)]
    pub proof: Vec<u8>,
}

/// What the client answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// TCP: the answer to the host's challenge.
    #[serde(default)]
    pub proof: Vec<u8>,
}

/// The host's last word: frames may flow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {}

/// An error before the session stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The kind's number.
    pub refused: i32,
    /// The error's named values.
    #[serde(default)]
    pub context: BTreeMap<String, String>,
}

impl Refusal {
    /// The refusal that tells of `error`.
    pub fn of(error: &Error) -> Self {
        Self {
            refused: error.kind().number(),
            context: error.context().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        }
    }

    /// The error it tells of.
    pub fn to_error(&self) -> Error {
        let mut error = Error::new(ErrorKind::from_number(self.refused), "session.connect");
        for (name, value) in &self.context {
            error = error.with(name.clone(), value);
        }
        error
    }
}

/// The highest version both ranges hold.
///
/// # Errors
/// [`ErrorKind::VersionMismatch`], naming both ranges.
pub fn agree(client_min: u32, client_max: u32) -> Result<u32> {
    let best = client_max.min(WIRE_MAX);
    if client_min > client_max || best < client_min.max(WIRE_MIN) {
        return Err(Error::new(ErrorKind::VersionMismatch, "session.handshake")
            .with("client_wire", format!("{client_min}..={client_max}"))
            .with("host_wire", format!("{WIRE_MIN}..={WIRE_MAX}")));
    }
    Ok(best)
}

/// A handshake message with its prefix.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let map =
        rmp_serde::to_vec_named(value).expect("handshake messages hold only numbers, text, bytes and lists");
    let mut out = Vec::with_capacity(PREFIX_BYTES + map.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&(map.len() as u32).to_le_bytes());
    out.extend_from_slice(&map);
    out
}

/// How many bytes the message at the front of `bytes` takes, once that can be told.
///
/// # Errors
/// [`ErrorKind::Protocol`] as soon as the bytes cannot be a handshake message.
pub fn message_bytes(bytes: &[u8]) -> Result<Option<usize>> {
    let shown = bytes.len().min(MAGIC.len());
    if bytes[..shown] != MAGIC[..shown] {
        return Err(protocol("handshake: the other side is not FlowMesh"));
    }
    let Some(length) = bytes.get(8..PREFIX_BYTES) else { return Ok(None) };
    let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
    if length > MAP_BYTES_MAX {
        return Err(protocol("handshake: message over the limit"));
    }
    Ok((bytes.len() >= PREFIX_BYTES + length).then_some(PREFIX_BYTES + length))
}

/// Reads one whole message.
///
/// # Errors
/// [`ErrorKind::Protocol`] for anything else; the error a [`Refusal`] tells of.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let end = message_bytes(bytes)?.ok_or_else(|| protocol("handshake: message cut short"))?;
    let map = &bytes[PREFIX_BYTES..end];
    if let Ok(refusal) = rmp_serde::from_slice::<Refusal>(map) {
        return Err(refusal.to_error());
    }
    rmp_serde::from_slice(map).map_err(|error| protocol("handshake: malformed map").because(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hello() -> Hello {
        Hello {
            wire_min: 1,
            wire_max: 3,
            name: "t".into(),
            version: "0.1.0".into(),
            language: "rust".into(),
            pid: 1,
            shared_memory: true,
            capabilities: vec!["x".into()],
            challenge: vec![1, 2],
        }
    }

    #[test]
    fn messages_survive_a_round_trip_and_tolerate_new_fields() {
        assert_eq!(decode::<Hello>(&encode(&hello())).unwrap(), hello());
        #[derive(Serialize)]
        struct Newer {
            wire_min: u32,
            wire_max: u32,
            shiny: &'static str,
        }
        let newer = decode::<Hello>(&encode(&Newer { wire_min: 1, wire_max: 9, shiny: "new" })).unwrap();
        assert_eq!((newer.wire_max, newer.name.as_str()), (9, ""));
    }

    #[test]
    fn a_refusal_is_the_error_it_tells_of() {
        let error = agree(7, 9).unwrap_err();
        let told = decode::<Welcome>(&encode(&Refusal::of(&error))).unwrap_err();
        assert_eq!(told.kind(), ErrorKind::VersionMismatch);
        assert_eq!((told.get("client_wire"), told.get("host_wire")), (Some("7..=9"), Some("1..=1")));
        assert_eq!(agree(1, 9).unwrap(), 1);
        assert!(agree(1, 0).is_err());
    }

    #[test]
    fn a_stranger_is_told_from_its_first_bytes() {
        assert_eq!(message_bytes(b"GET / HT").unwrap_err().kind(), ErrorKind::Protocol);
        assert_eq!(message_bytes(b"FLOW").unwrap(), None);
        let mut large = MAGIC.to_vec();
        large.extend_from_slice(&u32::MAX.to_le_bytes());
        assert!(message_bytes(&large).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_are_refused(tail in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut bytes = MAGIC.to_vec();
            bytes.extend_from_slice(&(tail.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&tail);
            let _ = (decode::<Hello>(&bytes), decode::<Welcome>(&bytes));
        }
    }
}
