//! Copies between private memory and memory that another process may write at the same time.
//!
//! A plain copy would be a data race, which the compiler may assume away. Here every byte is moved as by a
//! relaxed atomic access: on x86-64 by moves in inline assembly, which the compiler cannot look into (any
//! alignment, 16 bytes a move up to 1 KiB, `rep movsb` above, which is the fastest there); elsewhere by
//! relaxed atomic words. A racing writer can tear the bytes, never anything else.

/// Copies `len` bytes from `from` to `to`, either of which may be shared.
///
/// # Safety
/// `from` is valid for reads and `to` for writes of `len` bytes, both mapped as long as this runs; they do
/// not overlap. At most one of them is shared with another process.
#[inline]
pub(super) unsafe fn copy(to: *mut u8, from: *const u8, len: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: the caller's promise is this function's.
    unsafe {
        x86_64::copy(to, from, len);
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    // SAFETY: the caller's promise is this function's.
    unsafe {
        portable::copy(to, from, len);
    }
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod x86_64 {
    use std::arch::asm;

    /// Up to here vector moves beat the start-up cost of `rep movsb`.
    const VECTOR_BYTES_MAX: usize = 1024;

    #[inline]
    pub(super) unsafe fn copy(to: *mut u8, from: *const u8, len: usize) {
        // SAFETY: every access lies in the first or the last bytes of the two ranges of `len` bytes,
        // which the caller promised. Two moves may overlap each other and then write the same bytes,
        // unless a peer changes them in between, when either is as good. Assembly without `nomem` is
        // taken to access any memory, so it stays on its side of the fences around it.
        unsafe {
            if len > VECTOR_BYTES_MAX {
                asm!(
                    "rep movsb",
                    inout("rcx") len => _, inout("rdi") to => _, inout("rsi") from => _,
                    options(nostack, preserves_flags)
                );
            } else if len >= 16 {
                vectors(to, from, len);
            } else if len >= 8 {
                asm!(
                    "mov {a}, [{from}]", "mov {b}, [{from} + {len} - 8]",
                    "mov [{to}], {a}", "mov [{to} + {len} - 8], {b}",
                    a = out(reg) _, b = out(reg) _, from = in(reg) from, to = in(reg) to, len = in(reg) len,
                    options(nostack, preserves_flags)
                );
            } else if len >= 4 {
                asm!(
                    "mov {a:e}, [{from}]", "mov {b:e}, [{from} + {len} - 4]",
                    "mov [{to}], {a:e}", "mov [{to} + {len} - 4], {b:e}",
                    a = out(reg) _, b = out(reg) _, from = in(reg) from, to = in(reg) to, len = in(reg) len,
                    options(nostack, preserves_flags)
                );
            } else {
                for index in 0..len {
                    asm!(
                        "mov {a}, [{from}]", "mov [{to}], {a}",
                        a = out(reg_byte) _, from = in(reg) from.add(index), to = in(reg) to.add(index),
                        options(nostack, preserves_flags)
                    );
                }
            }
        }
    }

    /// Copies 16 bytes or more: whole vectors, then the last 16 bytes once more.
    #[inline]
    unsafe fn vectors(to: *mut u8, from: *const u8, len: usize) {
        // SAFETY: `len >= 16`; the loop stays below `len - 16` and the last move ends at `len`.
        unsafe {
            asm!(
                "xor {at:e}, {at:e}",
                "2:",
                "cmp {at}, {last}",
                "jae 3f",
                "movups {vector}, [{from} + {at}]",
                "movups [{to} + {at}], {vector}",
                "add {at}, 16",
                "jmp 2b",
                "3:",
                "movups {vector}, [{from} + {last}]",
                "movups [{to} + {last}], {vector}",
                at = out(reg) _, last = in(reg) len - 16, vector = out(xmm_reg) _,
                from = in(reg) from, to = in(reg) to,
                options(nostack)
            );
        }
    }
}

#[cfg_attr(all(target_arch = "x86_64", not(miri)), allow(dead_code, reason = "tested everywhere"))]
mod portable {
    use crate::sync::Ordering;
    use std::sync::atomic::{AtomicU8, AtomicUsize};

    const WORD: usize = size_of::<usize>();

    #[inline]
    pub(super) unsafe fn copy(to: *mut u8, from: *const u8, len: usize) {
        let mut at = 0;
        // Both sides can be word-aligned at once only if they are equally far from it.
        if (to.addr() ^ from.addr()).is_multiple_of(WORD) {
            let head = to.align_offset(WORD).min(len);
            while at < head {
                // SAFETY: `at < len`.
                unsafe { copy_byte(to.add(at), from.add(at)) };
                at += 1;
            }
            while at + WORD <= len {
                // SAFETY: `at + WORD <= len` and both are aligned here.
                let (to, from) = unsafe { (to.add(at).cast::<usize>(), from.add(at).cast::<usize>()) };
                // SAFETY: valid as above. Only loads go through the second reference.
                let (to, from) =
                    unsafe { (AtomicUsize::from_ptr(to), AtomicUsize::from_ptr(from.cast_mut())) };
                to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
                at += WORD;
            }
        }
        while at < len {
            // SAFETY: `at < len`.
            unsafe { copy_byte(to.add(at), from.add(at)) };
            at += 1;
        }
    }

    #[inline]
    unsafe fn copy_byte(to: *mut u8, from: *const u8) {
        // SAFETY: the caller has checked both. Only loads go through the second reference.
        let (to, from) = unsafe { (AtomicU8::from_ptr(to), AtomicU8::from_ptr(from.cast_mut())) };
        to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    fn check(copy: unsafe fn(*mut u8, *const u8, usize)) {
        let source: Vec<u8> =
            (0..6000_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let lengths = (0..300).chain([511, 512, 513, 1023, 1024, 1025, 1040, 2047, 4096, 5000]);
        for len in lengths {
            for from in [0, 1, 3, 4, 7, 8, 12, 15] {
                for to in [16, 17, 20, 23, 24, 28, 31] {
                    let mut target = vec![0xEE; to + len + 40];
                    // SAFETY: both ranges lie in their vectors.
                    unsafe { copy(target.as_mut_ptr().add(to), source.as_ptr().add(from), len) };
                    assert_eq!(
                        target[to..to + len],
                        source[from..from + len],
                        "len {len} from {from} to {to}"
                    );
                    let outside = target[..to].iter().chain(&target[to + len..]);
                    assert!(outside.copied().all(|byte| byte == 0xEE), "len {len} from {from} to {to}");
                }
            }
        }
    }

    #[test]
    fn copies_exactly_what_was_asked_at_every_alignment() {
        check(super::copy);
        check(super::portable::copy);
    }
}
