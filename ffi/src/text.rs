//! Texts with a NUL behind each, lent to C: in the core they lie without.

use crate::{flowmesh_text, guard::Call};
use flowmesh::{ErrorKind, Result};
use std::ffi::{CStr, c_char};

/// Some texts that every value of a type has, then names and values of headers. Made when the first is asked for.
pub(crate) struct Texts {
    bytes: Box<[u8]>,
    /// Where each text ends, before its NUL.
    ends: Box<[u32]>,
    /// How many come before the headers.
    fixed: usize,
}

impl Texts {
    pub(crate) fn of<'a, const N: usize>(
        fixed: [&'a str; N],
        headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        let headers = headers.into_iter().flat_map(|(name, value)| [name, value]);
        for text in fixed.into_iter().chain(headers) {
            bytes.extend_from_slice(text.as_bytes());
            ends.push(u32::try_from(bytes.len()).expect("the core keeps all texts of a value below 128 KiB"));
            bytes.push(0);
        }
        Self { bytes: bytes.into(), ends: ends.into(), fixed: N }
    }

    /// Fixed text number `index`.
    pub(crate) fn fixed(&self, index: usize) -> flowmesh_text {
        let from = index.checked_sub(1).map_or(0, |before| self.ends[before] as usize + 1);
        let text = &self.bytes[from..self.ends[index] as usize];
        flowmesh_text { data: text.as_ptr().cast(), size: text.len() }
    }

    /// Fixed text number `index`, none when it is empty.
    pub(crate) fn optional(&self, index: usize) -> flowmesh_text {
        Some(self.fixed(index)).filter(|text| text.size > 0).unwrap_or(flowmesh_text::NONE)
    }

    pub(crate) fn header_count(&self) -> usize {
        (self.ends.len() - self.fixed) / 2
    }

    /// The value of the first header of that name.
    pub(crate) fn named(&self, name: &[u8]) -> flowmesh_text {
        let names = (0..self.header_count()).map(|index| self.fixed + 2 * index);
        let found = names.into_iter().find(|at| {
            let from = at.checked_sub(1).map_or(0, |before| self.ends[before] as usize + 1);
            &self.bytes[from..self.ends[*at] as usize] == name
        });
        found.map_or(flowmesh_text::NONE, |at| self.fixed(at + 1))
    }

    /// # Safety
    /// `name` is NULL or a C string.
    pub(crate) unsafe fn header(&self, call: Call, name: *const c_char) -> Result<flowmesh_text> {
        if name.is_null() {
            return Err(call.null("name"));
        }
        // SAFETY: not NULL, and the rest is the caller's duty.
        Ok(self.named(unsafe { CStr::from_ptr(name) }.to_bytes()))
    }

    /// # Safety
    /// `name` and `value` are NULL or room for a text each.
    pub(crate) unsafe fn header_at(
        &self,
        call: Call,
        index: usize,
        name: *mut flowmesh_text,
        value: *mut flowmesh_text,
    ) -> Result<()> {
        let count = self.header_count();
        if index >= count {
            return Err(call.error(ErrorKind::NotFound).with("index", index).with("header_count", count));
        }
        for (out, part) in [(name, 0), (value, 1)] {
            if !out.is_null() {
                // SAFETY: not NULL, and the rest is the caller's duty.
                unsafe { call.out(out, flowmesh_text::NONE, "out") }?
                    .set(self.fixed(self.fixed + 2 * index + part));
            }
        }
        Ok(())
    }
}
