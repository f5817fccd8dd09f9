//! The C ABI of FlowMesh: what `include/flowmesh.h` declares.
//!
//! Every exported function has the same shape: `guard` catches a panic and turns an error into a status,
//! `Call` turns pointers into values or names the argument that is wrong, one Rust function is called,
//! its result goes out through a pointer. C never holds the address of anything but borrowed bytes:
//! handles are looked up in a [`registry`].
//!
//! The doc comments of public items are the C manual: `tests/header.rs` writes the header from them, in the
//! order of the modules below. They speak to a reader of C, and a line `§ Title` opens a chapter. The duties of
//! a caller are in the manual's preface once (`cbindgen.toml`) rather than under each function.
#![allow(non_camel_case_types, clippy::missing_safety_doc)]

pub mod codes;

pub mod error;
pub mod version;

pub mod mesh;
pub mod publish;

pub mod callback;
pub mod message;
pub mod subscription;

pub mod rpc;
pub mod service;

pub mod queue;

pub mod inspect;

pub mod stats;

pub mod options;

mod guard;
mod handle;
mod registry;
mod text;
mod wait;

use std::ffi::{c_char, c_void};

/// `FLOWMESH_OK` (0) or one of `enum flowmesh_code`, all of them negative.
///
/// An integer of fixed width, so that a code which a newer library adds is still a valid value.
pub type flowmesh_status = i32;

/// Bytes lent by the library: they stay as they are until the handle they came from is freed.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct flowmesh_bytes {
    /// Where they begin; NULL when `size` is 0.
    pub data: *const c_void,
    /// How many there are.
    pub size: usize,
}

/// Text lent by the library until the handle it came from is freed.
///
/// UTF-8 with a NUL behind it, so `data` is a C string. `size` does not count that NUL; it says more than
/// `strlen` only for text that contains a NUL itself.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct flowmesh_text {
    /// Where it begins; NULL when there is no such text, which is not the same as an empty one.
    pub data: *const c_char,
    /// Its bytes.
    pub size: usize,
}

/// A header: a name and a value beside the payload.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct flowmesh_header {
    /// Its name: not empty. Names are compared exactly; FlowMesh's own are in lower case.
    pub name: *const c_char,
    /// Its value.
    pub value: *const c_char,
}

impl flowmesh_bytes {
    pub(crate) const NONE: Self = Self { data: std::ptr::null(), size: 0 };

    pub(crate) fn of(bytes: &[u8]) -> Self {
        if bytes.is_empty() {
            return Self::NONE;
        }
        Self { data: bytes.as_ptr().cast(), size: bytes.len() }
    }
}

impl flowmesh_text {
    pub(crate) const NONE: Self = Self { data: std::ptr::null(), size: 0 };
}

#[cfg(test)]
mod tests {
    use crate::codes::flowmesh_code;
    use flowmesh::ErrorKind;

    #[test]
    fn the_codes_are_the_core_s_kinds() {
        let source = include_str!("codes.rs");
        assert_eq!(source.matches("FLOWMESH_ERR_").count(), ErrorKind::ALL.len());
        for kind in ErrorKind::ALL {
            let line = format!("    FLOWMESH_ERR_{} = -{},\n", kind.code(), kind.number());
            assert!(source.contains(&line), "run tools/generate: {line}");
            assert!(source.contains(kind.advice()), "run tools/generate: {kind:?}");
        }
        assert_eq!(flowmesh_code::FLOWMESH_ERR_BAD_HANDLE as i32, -ErrorKind::BadHandle.number());
    }
}
