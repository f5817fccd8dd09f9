//! Rings of frames over memory shared with a process that is not trusted.
//!
//! Knows frames as runs of bytes and nothing of what they say; never blocks but where a name says so.
//! Each process writes one region of its own, which its peer maps read-only:
//!
//!   host's region    ring host → client · what the host has consumed · host's words
//!   client's region  ring client → host · what the client has consumed · client's words
//!
//! `region` draws the bytes, makes and maps them. `ring` moves frames and rings doorbells, over atomics
//! from `sync` so that loom runs the very same code. `spin` decides how long to look before sleeping. Every word read from a peer is loaded once into a local, checked, then used.

#![cfg_attr(loom, allow(dead_code, unreachable_pub, reason = "only the ring is modelled"))]

#[cfg(not(loom))]
mod copy;
#[cfg(not(loom))]
mod endpoint;
#[cfg(not(loom))]
mod region;
mod ring;
#[cfg(not(loom))]
mod spin;
#[cfg(not(loom))]
mod waiting;

#[cfg(all(test, loom))]
mod loom_model;
#[cfg(all(test, not(loom)))]
mod tests;

pub use ring::{Drained, Frames, Mode, Push, Ring, frames};

#[cfg(not(loom))]
pub use endpoint::{Consumer, Producer, SleeperWaker, WaitingWriter};
#[cfg(not(loom))]
pub use region::{RING_BYTES_MAX, RING_BYTES_MIN, ReaderMap, RegionFd, RegionParams, WriterMap, seal};
#[cfg(not(loom))]
pub use spin::{Spin, WaitStrategy, spin_until};
#[cfg(not(loom))]
pub use waiting::{AttentionMap, AttentionPage, OwnWaiting, WaitingWord};
