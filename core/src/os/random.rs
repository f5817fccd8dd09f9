//! Random bytes from the kernel.

use super::{errno, last_error};
use crate::error::Result;

/// Fills `bytes` with random bytes good enough for keys.
///
/// # Errors
/// - `Io`: the kernel has none to give, which Linux does not do.
pub fn random(bytes: &mut [u8]) -> Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        // SAFETY: writes at most the length of `rest`.
        let got = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(got) {
            Ok(got) => rest = &mut rest[got..],
            Err(_) if errno() == libc::EINTR => {}
            Err(_) => return Err(last_error("os.random")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn fills_everything() {
        let (mut one, mut two) = ([0_u8; 64], [0_u8; 64]);
        super::random(&mut one).unwrap();
        super::random(&mut two).unwrap();
        assert!(one != two && one[32..] != [0; 32]);
        super::random(&mut []).unwrap();
    }
}
