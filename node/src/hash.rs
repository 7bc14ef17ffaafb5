//! Digests of bytes that are in memory.

use aws_lc_rs::digest::{SHA256, SHA512, digest as hash};
use nora_domain::{Algorithm, Digest};

/// The digest of these bytes.
pub fn digest(algorithm: Algorithm, bytes: &[u8]) -> Digest {
    match algorithm {
        Algorithm::Sha256 => {
            let mut value = [0; 32];
            value.copy_from_slice(hash(&SHA256, bytes).as_ref());
            Digest::sha256(value)
        }
        Algorithm::Sha512 => {
            let mut value = [0; 64];
            value.copy_from_slice(hash(&SHA512, bytes).as_ref());
            Digest::sha512(value)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        assert_eq!(
            digest(Algorithm::Sha256, b"abc").hex(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert!(
            digest(Algorithm::Sha512, b"abc").hex().starts_with("ddaf35a193617abacc417349ae204131")
        );
    }
}
