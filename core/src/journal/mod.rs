//! An append-only log of frames, split into segments.
#![forbid(unsafe_code)]

mod place;

pub use place::{Lsn, Place};

/// What every frame begins with.
pub const FRAME_HEADER_BYTES: usize = 40;
