//! The shared secret of TCP sessions: both sides prove that they know it, neither sends it.
//!
//! `proof = HMAC-SHA-256(secret, role ‖ client challenge ‖ host challenge)` with fresh 32-byte
//! challenges from both sides (RFC 2104). It proves who is there; it does not encrypt what follows.
#![forbid(unsafe_code)]

use crate::{
    error::{Error, ErrorKind, Result},
    os,
};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The shortest secret.
pub const SECRET_BYTES_MIN: usize = 16;
/// The length of a challenge.
pub(super) const CHALLENGE_BYTES: usize = 32;

/// Who proves it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Prover {
    Host,
    Client,
}

/// Refuses a secret that is too short to be one.
///
/// # Errors
/// [`ErrorKind::Unauthenticated`] without a secret, [`ErrorKind::InvalidArgument`] for a short one.
pub fn check_secret(secret: &[u8], operation: &'static str) -> Result<()> {
    if secret.is_empty() {
        return Err(
            Error::new(ErrorKind::Unauthenticated, operation).with("secret", "TCP needs a shared secret")
        );
    }
    if secret.len() < SECRET_BYTES_MIN {
        return Err(Error::new(ErrorKind::InvalidArgument, operation)
            .with("secret_bytes", secret.len())
            .with("minimum", SECRET_BYTES_MIN));
    }
    Ok(())
}

pub(super) fn challenge() -> Result<Vec<u8>> {
    let mut bytes = vec![0; CHALLENGE_BYTES];
    os::random(&mut bytes)?;
    Ok(bytes)
}

fn mac(secret: &[u8], prover: Prover, client: &[u8], host: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(match prover {
        Prover::Host => b"flowmesh host",
        Prover::Client => b"flowmesh clnt",
    });
    mac.update(client);
    mac.update(host);
    mac
}

pub(super) fn prove(secret: &[u8], prover: Prover, client: &[u8], host: &[u8]) -> Vec<u8> {
    mac(secret, prover, client, host).finalize().into_bytes().to_vec()
}

pub(super) fn verify(secret: &[u8], prover: Prover, client: &[u8], host: &[u8], proof: &[u8]) -> Result<()> {
    let refused =
        |what: &'static str| Error::new(ErrorKind::Unauthenticated, "session.handshake").with("secret", what);
    if client.len() != CHALLENGE_BYTES || host.len() != CHALLENGE_BYTES {
        return Err(refused("the challenge has the wrong length"));
    }
    mac(secret, prover, client, host).verify_slice(proof).map_err(|_| refused("the proof does not fit"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_secret_role_and_challenges_prove() {
        let (client, host) = (challenge().unwrap(), challenge().unwrap());
        let proof = prove(b"0123456789abcdef", Prover::Client, &client, &host);
        verify(b"0123456789abcdef", Prover::Client, &client, &host, &proof).unwrap();
        for (secret, prover, client, host) in [
            (&b"0123456789abcdeX"[..], Prover::Client, &client, &host),
            (b"0123456789abcdef", Prover::Host, &client, &host),
            (b"0123456789abcdef", Prover::Client, &host, &host),
        ] {
            let error = verify(secret, prover, client, host, &proof).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unauthenticated);
        }
        assert_eq!(check_secret(b"", "t").unwrap_err().kind(), ErrorKind::Unauthenticated);
        assert_eq!(check_secret(b"short", "t").unwrap_err().get("minimum"), Some("16"));
    }
}
