//! What can be wrong with a workload's token, or with its issuer's documents.
//!
//! Guarantees: a message names what was expected, which is configuration, and never what was sent, which may be a secret
//! or made to look like another line of a log. Must not know: how it is told to clients.

use super::{Algorithm, LEEWAY_SECS, LIFETIME_SECS_MAX, TOKEN_BYTES_MAX};

/// Why a token is not believed, or an issuer's document not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkloadError {
    /// The token is too long.
    #[error("the token is longer than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    /// It has not three parts.
    #[error("the token is not header.claims.signature: copy it whole")]
    Parts,
    /// A part is not base64url.
    #[error("the token's {0} is not base64url without padding")]
    Base64(&'static str),
    /// A part is not JSON, or no object.
    #[error("the {0} is not a JSON object")]
    Json(&'static str),
    /// A part says something twice.
    #[error("the {0} has a key twice")]
    DuplicateKey(&'static str),
    /// The header brings or links a key, or asks for what nobody here understands.
    #[error(
        "the token's header has '{0}', which is never accepted: keys come from the issuer's key set alone"
    )]
    HeaderField(&'static str),
    /// It is another kind of token.
    #[error("the token's type is neither JWT nor at+jwt")]
    Type,
    /// `alg` is missing, no text, `none`, symmetric or unknown.
    #[error("the token's algorithm is none that an issuer may use: RS, PS, ES or EdDSA")]
    Algorithm,
    /// `alg` is not in the issuer's list.
    #[error(
        "the token is signed with {0}, which is not in the algorithms configured for its issuer"
    )]
    AlgorithmNotAllowed(Algorithm),
    /// `kid` is missing, and there are several keys.
    #[error("the token names no key ('kid'), and its issuer has several")]
    KidMissing,
    /// `kid` is no text, or none that names a key.
    #[error("the token's 'kid' is not a text of 1 to 256 printable characters")]
    KidMalformed,
    /// No key of that name.
    #[error("the token's 'kid' names no key of its issuer")]
    KidUnknown,
    /// The key is for something else.
    #[error("the key that the token names is not one for {0}")]
    KeyAlgorithm(Algorithm),
    /// The signature is wrong.
    #[error("the token's signature is wrong")]
    Signature,
    /// Another issuer.
    #[error("the token's issuer is not exactly '{expected}'")]
    Issuer {
        /// The configured one.
        expected: String,
    },
    /// Another audience, or several.
    #[error(
        "the token's audience is not exactly the one text '{expected}': ask the issuer for that one"
    )]
    Audience {
        /// The configured one.
        expected: String,
    },
    /// A claim is missing.
    #[error("the token has no claim '{0}'")]
    ClaimMissing(String),
    /// A claim has another type or form than it must have.
    #[error("the token's claim '{0}' is not {1}")]
    ClaimType(&'static str, &'static str),
    /// `exp` is past.
    #[error("the token has expired: get a new one just before it is used")]
    Expired,
    /// `nbf` or `iat` is to come.
    #[error("the token's '{0}' is more than {LEEWAY_SECS} s in the future: compare the clocks")]
    Future(&'static str),
    /// It lives too long, or ends before it begins.
    #[error("the token does not live for 1 s to {} h", LIFETIME_SECS_MAX / 3_600)]
    Lifetime,
    /// A key set is too large.
    #[error("the issuer's key set is larger than is read: {0}")]
    KeySetTooLarge(&'static str),
    /// A key set has not the form of one.
    #[error("the issuer's key set has no list 'keys'")]
    KeySetMalformed,
    /// A key set has no key that can be used.
    #[error(
        "the issuer's key set has no signing key of a usable kind: RSA of 2048 to 8192 bits, P-256, P-384, Ed25519"
    )]
    KeySetEmpty,
    /// A discovery document is too large.
    #[error("the issuer's discovery document is larger than is read")]
    DiscoveryTooLarge,
    /// A discovery document is another issuer's.
    #[error("the discovery document is not of issuer '{expected}': 'issuer' in it differs")]
    DiscoveryIssuer {
        /// The configured one.
        expected: String,
    },
    /// A discovery document names no usable place of keys.
    #[error(
        "the discovery document's 'jwks_uri' is not an https address (http only between loopback addresses)"
    )]
    DiscoveryKeysAddress,
}

impl WorkloadError {
    /// One word, for logs and metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLong => "too-long",
            Self::Parts => "parts",
            Self::Base64(_) => "base64",
            Self::Json(_) => "json",
            Self::DuplicateKey(_) => "duplicate-key",
            Self::HeaderField(_) => "header-field",
            Self::Type => "type",
            Self::Algorithm => "algorithm",
            Self::AlgorithmNotAllowed(_) => "algorithm-not-allowed",
            Self::KidMissing => "kid-missing",
            Self::KidMalformed => "kid-malformed",
            Self::KidUnknown => "kid-unknown",
            Self::KeyAlgorithm(_) => "key-algorithm",
            Self::Signature => "signature",
            Self::Issuer { .. } => "issuer",
            Self::Audience { .. } => "audience",
            Self::ClaimMissing(_) => "claim-missing",
            Self::ClaimType(..) => "claim-type",
            Self::Expired => "expired",
            Self::Future(_) => "future",
            Self::Lifetime => "lifetime",
            Self::KeySetTooLarge(_) => "key-set-too-large",
            Self::KeySetMalformed => "key-set-malformed",
            Self::KeySetEmpty => "key-set-empty",
            Self::DiscoveryTooLarge => "discovery-too-large",
            Self::DiscoveryIssuer { .. } => "discovery-issuer",
            Self::DiscoveryKeysAddress => "discovery-keys-address",
        }
    }
}
