//! Computing content digests. Must not know where bytes come from.

use aws_lc_rs::digest::{Context, SHA256, SHA512};
use nora_domain::{Algorithm, Digest};

/// Computes a [`Digest`] from bytes as they come.
#[derive(Clone)]
pub(crate) struct ContentHasher {
    algorithm: Algorithm,
    context: Context,
}

impl ContentHasher {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        let context = Context::new(match algorithm {
            Algorithm::Sha256 => &SHA256,
            Algorithm::Sha512 => &SHA512,
        });
        Self { algorithm, context }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    /// The digest of the bytes so far; more may follow.
    pub(crate) fn digest(&self) -> Digest {
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
        let digest_of_abc = |algorithm| {
            let mut hasher = ContentHasher::new(algorithm);
            hasher.update(b"a");
            hasher.update(b"bc");
            hasher.digest().to_string()
        };
        assert_eq!(
            digest_of_abc(Algorithm::Sha256),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(
            digest_of_abc(Algorithm::Sha512),
            "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
             2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
        );
    }
}
