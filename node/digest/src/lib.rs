//! Computing content digests, of bytes in memory and of bytes as they come.
//!
//! Must not know: where bytes come from, and on which thread it runs. Hashing takes a core about a millisecond per MiB, so
//! callers keep large inputs off the async threads.

use aws_lc_rs::digest::{Context, SHA256, SHA512};
use nora_domain::{Algorithm, Digest};

/// The digest of bytes that are in memory.
pub fn digest(algorithm: Algorithm, bytes: &[u8]) -> Digest {
    let mut hasher = ContentHasher::new(algorithm);
    hasher.update(bytes);
    hasher.digest()
}

/// Computes a [`Digest`] from bytes as they come.
#[derive(Clone)]
pub struct ContentHasher {
    algorithm: Algorithm,
    context: Context,
}

impl ContentHasher {
    /// No bytes yet.
    pub fn new(algorithm: Algorithm) -> Self {
        let context = Context::new(match algorithm {
            Algorithm::Sha256 => &SHA256,
            Algorithm::Sha512 => &SHA512,
        });
        Self { algorithm, context }
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    /// The digest of the bytes so far; more may follow.
    pub fn digest(&self) -> Digest {
        let value = self.context.clone().finish();
        match self.algorithm {
            Algorithm::Sha256 => {
                let mut bytes = [0; 32];
                bytes.copy_from_slice(value.as_ref());
                Digest::sha256(bytes)
            }
            Algorithm::Sha512 => {
                let mut bytes = [0; 64];
                bytes.copy_from_slice(value.as_ref());
                Digest::sha512(bytes)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        for (algorithm, known) in [
            (
                Algorithm::Sha256,
                "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            ),
            (
                Algorithm::Sha512,
                "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                 2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
            ),
        ] {
            assert_eq!(digest(algorithm, b"abc").to_string(), known);
            let mut hasher = ContentHasher::new(algorithm);
            hasher.update(b"a");
            hasher.update(b"bc");
            assert_eq!(hasher.digest().to_string(), known);
        }
    }
}
