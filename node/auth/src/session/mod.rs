//! Session tokens: what the cluster signs itself for Docker's token flow, and believes without a look-up.
//!
//! `nora_st_` and a JWT, HS256 with a key that every node has. Guarantees: only HS256 with a key of ours that has not run
//! out is believed; an access token is never a refresh token, nor the other way round; every claim has its one type, and
//! unknown claims are refused, because nobody else signs these. Must not know: whether the account still exists and has
//! that generation, or the API token or the refresh token behind it is revoked — the caller looks at
//! [`Claims::generation`], [`Claims::cred`] and [`Claims::refresh`] — and the clock.

mod scope;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

pub use scope::{
    SCOPE_BYTES_MAX, SCOPES_MAX, Scope, ScopeAction, ScopeError, ScopeKind, parse_scope,
};

/// How session tokens begin: what a scanner of leaked secrets looks for. Clients of the token flow take any text.
pub const PREFIX: &str = "nora_st_";

/// The longest token that is signed or read: with `Bearer ` before it, it must fit the header that is read.
pub const TOKEN_BYTES_MAX: usize = 15 * 1024;

/// The one audience.
pub const AUDIENCE: &str = "nora";

/// How far another node's clock may be ahead of ours.
pub const CLOCK_SKEW_SECS: u64 = 30;

/// A key of the cluster's, from the replicated metadata.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey {
    /// Its number; the tokens name it.
    pub id: u64,
    /// The key itself.
    pub secret: [u8; 32],
    /// From this second on it is neither signed with nor believed.
    pub not_after: u64,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey")
            .field("id", &self.id)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Use {
    /// To be shown with requests; lives for minutes.
    Access,
    /// To get access tokens with; lives for days, and opens nothing by itself.
    Refresh,
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// Whose it is, in the words of subjects.
    pub sub: String,
    /// The id of the API token it was got with, in hexadecimal: revoking that one ends this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cred: Option<String>,
    /// The id of the refresh token that it belongs to, or that it is, in hexadecimal: ending that one ends this one.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub refresh: Option<String>,
    /// The account's generation: a new password makes a new generation and ends this token.
    #[serde(rename = "gen")]
    pub generation: u64,
    /// The permissions that were granted, as `action:format:path`.
    pub scopes: Vec<String>,
    /// [`AUDIENCE`].
    pub aud: String,
    /// When it was signed, in seconds since 1970.
    pub iat: u64,
    /// The second from which it is not believed any more.
    pub exp: u64,
    /// What it is for.
    #[serde(rename = "use")]
    pub use_: Use,
}

/// Why a token was not signed, or is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// It is no session token.
    #[error("this is no session token: it does not begin with '{PREFIX}'. Log in again")]
    Prefix,
    /// It is longer than a request's header may be.
    #[error("the session token is longer than {TOKEN_BYTES_MAX} bytes: ask for fewer scopes")]
    TooLong,
    /// It is no JWT of ours.
    #[error("the session token is incomplete or was changed. Log in again")]
    Malformed,
    /// Another algorithm than ours.
    #[error("the session token is not signed with HS256. Log in again")]
    Algorithm,
    /// No key of that number.
    #[error("the key of the session token is unknown or has run out. Log in again")]
    Key,
    /// The signature is another's.
    #[error("the signature of the session token is wrong. Log in again")]
    Signature,
    /// It is for somebody else.
    #[error("the session token is for another audience. Log in again")]
    Audience,
    /// An access token where a refresh token belongs, or the other way round.
    #[error(
        "this is not the kind of session token that belongs here: access and refresh tokens differ"
    )]
    Use,
    /// It is over.
    #[error("the session token has expired. Log in again")]
    Expired,
    /// It was signed in the future.
    #[error(
        "the session token is from the future: the clocks of the cluster's nodes differ by more than {CLOCK_SKEW_SECS} s"
    )]
    Future,
    /// It would outlive its key, or never live.
    #[error("the session token would end before it begins, or after its signing key does")]
    Lifetime,
    /// It could not be signed.
    #[error("cannot sign the session token")]
    Sign,
}

impl SessionError {
    /// One word, for logs and metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Prefix => "prefix",
            Self::TooLong => "too-long",
            Self::Malformed => "malformed",
            Self::Algorithm => "algorithm",
            Self::Key => "key",
            Self::Signature => "signature",
            Self::Audience => "audience",
            Self::Use => "use",
            Self::Expired => "expired",
            Self::Future => "future",
            Self::Lifetime => "lifetime",
            Self::Sign => "sign",
        }
    }
}

/// Whether a text says of itself that it is a session token.
pub fn is_shaped_as_token(text: &str) -> bool {
    text.starts_with(PREFIX)
}

/// Signs a token.
pub fn sign(key: &SigningKey, claims: &Claims) -> Result<String, SessionError> {
    if claims.aud != AUDIENCE {
        return Err(SessionError::Audience);
    }
    if claims.exp <= claims.iat || claims.exp > key.not_after {
        return Err(SessionError::Lifetime);
    }
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some(key_name(key.id));
    let jwt = jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(&key.secret))
        .map_err(|_| SessionError::Sign)?;
    let token = format!("{PREFIX}{jwt}");
    if token.len() > TOKEN_BYTES_MAX { Err(SessionError::TooLong) } else { Ok(token) }
}

/// Reads a token, and believes it if one of the keys signed it for that use and it is not over.
pub fn verify(
    keys: &[SigningKey],
    token: &str,
    now_secs: u64,
    wanted: Use,
) -> Result<Claims, SessionError> {
    let jwt = token.strip_prefix(PREFIX).ok_or(SessionError::Prefix)?;
    if token.len() > TOKEN_BYTES_MAX {
        return Err(SessionError::TooLong);
    }
    let header = jsonwebtoken::decode_header(jwt).map_err(|_| SessionError::Malformed)?;
    if header.alg != Algorithm::HS256 {
        return Err(SessionError::Algorithm);
    }
    let named = header.kid.as_deref().ok_or(SessionError::Key)?;
    let key = keys
        .iter()
        .find(|key| key_name(key.id) == named && now_secs < key.not_after)
        .ok_or(SessionError::Key)?;
    // `sign` writes no other header: what else there is (a key of the sender's, say) is nothing of ours.
    let mut ours = Header::new(Algorithm::HS256);
    ours.kid = header.kid.clone();
    if header != ours {
        return Err(SessionError::Malformed);
    }

    // The library checks the signature. The claims are checked below: their types are ours, and the time is an argument.
    let mut signature_alone = Validation::new(Algorithm::HS256);
    signature_alone.required_spec_claims.clear();
    signature_alone.validate_exp = false;
    signature_alone.validate_aud = false;
    let decoding = DecodingKey::from_secret(&key.secret);
    let claims = jsonwebtoken::decode::<Claims>(jwt, &decoding, &signature_alone)
        .map_err(|error| match error.kind() {
            jsonwebtoken::errors::ErrorKind::InvalidSignature => SessionError::Signature,
            _ => SessionError::Malformed,
        })?
        .claims;

    if claims.aud != AUDIENCE {
        return Err(SessionError::Audience);
    }
    if claims.use_ != wanted {
        return Err(SessionError::Use);
    }
    if claims.iat > now_secs.saturating_add(CLOCK_SKEW_SECS) {
        return Err(SessionError::Future);
    }
    // The key's own end was looked at above. It may have moved since the token was signed, so `exp` is not held against it.
    if claims.exp <= now_secs {
        return Err(SessionError::Expired);
    }
    Ok(claims)
}

fn key_name(id: u64) -> String {
    format!("{id:016x}")
}
