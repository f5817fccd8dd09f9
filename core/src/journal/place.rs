//! Where something lies in the journal, in eight bytes.

use std::fmt;

/// The place of a batch in the order of all: the first is 1, each next one more. 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Before the first.
    pub const NONE: Self = Self(0);

    /// The one after it.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where an entry lies: its segment, its offset there, and about how long it is, so that one read gets it.
///
/// Ordered as written. From the top: 27 bits segment number, 29 bits offset in units of 8 bytes, 8 bits size class.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(u64);

impl Place {
    /// The place of `bytes` bytes at `offset` (a multiple of 8) of `segment`.
    pub(crate) fn new(segment: u32, offset: u32, bytes: u32) -> Self {
        debug_assert!(segment <= SEGMENT_MAX && offset.is_multiple_of(8));
        Self(u64::from(segment) << 37 | u64::from(offset / 8) << 8 | u64::from(class_of(bytes)))
    }

    /// What [`Place::bytes_max`] says of so many bytes, wherever they lie.
    pub(crate) fn rounded(bytes: u32) -> u32 {
        bytes_of(class_of(bytes))
    }

    /// A place as a plain number, to be stored.
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The place that a number stands for. Any number is a place; nothing need lie there.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The number of the segment.
    pub const fn segment(self) -> u32 {
        (self.0 >> 37) as u32
    }

    /// The offset in the segment's file.
    pub const fn offset(self) -> u32 {
        ((self.0 >> 8) as u32 & (u32::MAX >> 3)) << 3
    }

    /// What it takes at most, in bytes: up to an eighth more than it does, and the same at every call.
    pub const fn bytes_max(self) -> u32 {
        bytes_of(self.0 as u8)
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Place({}:{:#x}, <= {} B)", self.segment(), self.offset(), self.bytes_max())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:#x}", self.segment(), self.offset())
    }
}

/// The highest number of a segment.
pub(crate) const SEGMENT_MAX: u32 = (1 << 27) - 1;

/// Sizes as a tiny floating-point number, rounded up: eight steps between powers of two.
fn class_of(bytes: u32) -> u8 {
    if bytes < 16 {
        return bytes as u8;
    }
    let shift = bytes.ilog2() - 3;
    let mantissa = bytes.div_ceil(1 << shift); // 8 to 16
    let class = (shift + 1) * 8 + (mantissa - 8);
    class.min(u32::from(u8::MAX)) as u8
}

const fn bytes_of(class: u8) -> u32 {
    if class < 16 {
        return class as u32;
    }
    let (exponent, mantissa) = (class as u32 / 8 - 1, class as u64 % 8 + 8);
    let bytes = mantissa << exponent;
    if bytes > u32::MAX as u64 { u32::MAX } else { bytes as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_class_is_never_too_small_and_at_most_an_eighth_too_large() {
        let around = (0..32).flat_map(|power| {
            let power = 1_u32 << power;
            (0..40).flat_map(move |by| {
                [power.saturating_add(by), power.saturating_sub(by), power / 8 * (by % 8 + 8)]
            })
        });
        for bytes in (0..100_000).chain(around).chain([u32::MAX, u32::MAX - 1]) {
            let most = bytes_of(class_of(bytes));
            assert!(most >= bytes && u64::from(most - bytes) * 8 <= u64::from(bytes), "{bytes}: {most}");
        }
    }

    #[test]
    fn a_place_keeps_its_parts_and_sorts_as_written() {
        let mut before = Place::new(0, 0, 0);
        for (segment, offset, bytes) in
            [(1, 512, 1), (1, 520, 100), (2, 0, 99), (SEGMENT_MAX, u32::MAX - 7, 1 << 30)]
        {
            let place = Place::new(segment, offset, bytes);
            assert_eq!((place.segment(), place.offset()), (segment, offset));
            assert!(place.bytes_max() >= bytes && place > before, "{place:?}");
            assert_eq!(Place::from_bits(place.to_bits()), place);
            before = place;
        }
    }
}
