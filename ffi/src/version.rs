//! Which library this is.

use crate::{flowmesh_status, guard::guard};
use flowmesh::ErrorKind;
use std::ffi::c_char;

/// § Version
///
/// The library's version, as `"0.1.0"`. Static text.
#[unsafe(no_mangle)]
pub extern "C" fn flowmesh_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// The library's version as a number: major * 1000000 + minor * 1000 + patch.
#[unsafe(no_mangle)]
pub extern "C" fn flowmesh_version_number() -> u32 {
    VERSION_NUMBER
}

/// Whether this library serves programs that were compiled with a header of that version.
///
///     if (flowmesh_check_abi(FLOWMESH_VERSION_NUMBER) != FLOWMESH_OK) return 1;
///
/// # Errors
/// `VERSION_MISMATCH`: another major version, or a header newer than the library.
#[unsafe(no_mangle)]
pub extern "C" fn flowmesh_check_abi(header_version: u32) -> flowmesh_status {
    guard("flowmesh_check_abi", |call| {
        let same_major = header_version / 1_000_000 == VERSION_NUMBER / 1_000_000;
        if same_major && header_version / 1000 <= VERSION_NUMBER / 1000 {
            return Ok(());
        }
        let (header, library) = (header_version, VERSION_NUMBER);
        Err(call.error(ErrorKind::VersionMismatch).with("header", header).with("library", library))
    })
}

const VERSION_NUMBER: u32 = part(env!("CARGO_PKG_VERSION_MAJOR")) * 1_000_000
    + part(env!("CARGO_PKG_VERSION_MINOR")) * 1000
    + part(env!("CARGO_PKG_VERSION_PATCH"));

const fn part(text: &str) -> u32 {
    match u32::from_str_radix(text, 10) {
        Ok(number) => number,
        Err(_) => panic!("cargo gives numbers"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_serves_when_it_is_not_newer() {
        assert_eq!(flowmesh_check_abi(VERSION_NUMBER), 0);
        assert_eq!(flowmesh_check_abi(VERSION_NUMBER + 1), 0, "a patch changes no interface");
        for other in [VERSION_NUMBER + 1000, VERSION_NUMBER + 1_000_000] {
            assert_eq!(flowmesh_check_abi(other), -ErrorKind::VersionMismatch.number());
        }
    }
}
