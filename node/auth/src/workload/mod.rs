//! Workload identity: whether a token that some issuer signed for a CI job is what it says.
//!
//! Guarantees: a token is believed only if a key of its issuer's own set signed it with an algorithm that was configured
//! for that issuer and that fits the key, and if each claim that is looked at has the type and value it must have. Keys,
//! links to keys and certificates in a token are never looked at. A document in which a key occurs twice is refused: two
//! readers could see two documents. Must not know: the network (documents are handed in), the clock, or what a workload
//! may do once it is believed.

mod discovery;
mod error;
mod json;
mod keys;
mod token;

pub use discovery::DiscoveryDocument;
pub use error::WorkloadError;
pub use keys::{KEYS_MAX, KeySet};
pub use token::{Expect, Unverified, Verified, peek, verify};

/// The longest token that is read.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// How far the issuer's clock and ours may be apart.
pub const LEEWAY_SECS: u64 = 30;
/// The longest time a token may say it lives: CI jobs' tokens live minutes, so a longer one was made for another purpose.
pub const LIFETIME_SECS_MAX: u64 = 24 * 3_600;

/// Algorithms that can be configured for an issuer. None has a key that is known to more than the issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ECDSA on P-256.
    Es256,
    /// ECDSA on P-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 9] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::EdDsa,
    ];

    /// The algorithm of that name, as in `alg`; letters' case counts.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// Its name, as in `alg`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }

    const fn library(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::Rs256 => jsonwebtoken::Algorithm::RS256,
            Self::Rs384 => jsonwebtoken::Algorithm::RS384,
            Self::Rs512 => jsonwebtoken::Algorithm::RS512,
            Self::Ps256 => jsonwebtoken::Algorithm::PS256,
            Self::Ps384 => jsonwebtoken::Algorithm::PS384,
            Self::Ps512 => jsonwebtoken::Algorithm::PS512,
            Self::Es256 => jsonwebtoken::Algorithm::ES256,
            Self::Es384 => jsonwebtoken::Algorithm::ES384,
            Self::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        }
    }
}

impl std::fmt::Display for Algorithm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
