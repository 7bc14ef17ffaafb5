//! A workload's token: read without belief, then verified.
//!
//! Guarantees: nothing that [`peek`] returns was believed, it only says whose keys to fetch; [`verify`] looks at every
//! type itself, so that a claim of another type than it must have is refused and never passed over. Must not know: which
//! tokens were used before ([`Verified::jti_hash`] is what to remember, until [`Verified::remember_until`]).

use aws_lc_rs::digest::{Context, SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::{
    Algorithm, KeySet, LEEWAY_SECS, LIFETIME_SECS_MAX, TOKEN_BYTES_MAX, WorkloadError, json,
};

/// Header fields that bring or link a key, or change how the token is to be read.
const HEADER_REFUSED: [&str; 8] = ["jwk", "jku", "x5u", "x5c", "crit", "b64", "zip", "enc"];
const KID_BYTES_MAX: usize = 256;
/// The end of the year 9999: a time beyond is a mistake.
const TIME_MAX: u64 = 253_402_300_799;

/// What a token says of itself, before anything of it is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unverified {
    /// Its `iss`: whose keys to look for.
    pub issuer: String,
    /// Its `kid`, if it names a key.
    pub kid: Option<String>,
    /// Its `alg`; never a symmetric one.
    pub alg: Algorithm,
}

/// What a token must be.
#[derive(Clone, Copy, Debug)]
pub struct Expect<'a> {
    /// The issuer, byte for byte.
    pub issuer: &'a str,
    /// The audience, byte for byte.
    pub audience: &'a str,
    /// The algorithms that are accepted of this issuer.
    pub algorithms: &'a [Algorithm],
    /// Claims that must be there besides the standard ones.
    pub required_claims: &'a [String],
    /// The time, in seconds since 1970.
    pub now_secs: u64,
}

/// A token that is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// All its claims. Those that are not standard ones have whatever type the issuer gave them.
    pub claims: Map<String, Value>,
    /// What tells this token from every other: whoever sees it a second time refuses it.
    pub jti_hash: [u8; 32],
    /// Its `exp`, in seconds since 1970.
    pub expires_at: u64,
}

impl Verified {
    /// The second until which the token might be shown again and believed: [`Self::jti_hash`] is kept until then.
    pub const fn remember_until(&self) -> u64 {
        self.expires_at.saturating_add(LEEWAY_SECS)
    }
}

/// A token taken apart. Nothing of it is believed.
struct Parts<'a> {
    signed: &'a str,
    signature: &'a str,
    kid: Option<String>,
    alg: Algorithm,
    claims: Map<String, Value>,
}

/// What a token says of itself, to find its issuer by.
pub fn peek(token: &str) -> Result<Unverified, WorkloadError> {
    let parts = split(token)?;
    let issuer = text(&parts.claims, "iss")?.to_owned();
    Ok(Unverified { issuer, kid: parts.kid, alg: parts.alg })
}

/// Believes a token, or says why not.
pub fn verify(token: &str, keys: &KeySet, expect: &Expect<'_>) -> Result<Verified, WorkloadError> {
    let parts = split(token)?;
    if !expect.algorithms.contains(&parts.alg) {
        return Err(WorkloadError::AlgorithmNotAllowed(parts.alg));
    }
    let key = keys.select(parts.kid.as_deref(), parts.alg)?;
    let valid = jsonwebtoken::crypto::verify(
        parts.signature,
        parts.signed.as_bytes(),
        key,
        parts.alg.library(),
    );
    if !valid.unwrap_or(false) {
        return Err(WorkloadError::Signature);
    }
    let expires_at = check_claims(&parts.claims, expect)?;
    let jti_hash = identity(&parts, expect.issuer)?;
    Ok(Verified { claims: parts.claims, jti_hash, expires_at })
}

fn split(token: &str) -> Result<Parts<'_>, WorkloadError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(WorkloadError::TooLong);
    }
    let mut parts = token.split('.');
    let (Some(header), Some(claims), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(WorkloadError::Parts);
    };
    if header.is_empty() || claims.is_empty() || signature.is_empty() {
        return Err(WorkloadError::Parts);
    }
    let header = json::object(&decode(header, "header")?, "header")?;
    let (kid, alg) = check_header(&header)?;
    let claims = json::object(&decode(claims, "claims")?, "claims")?;
    decode(signature, "signature")?;
    let (signed, signature) = token.rsplit_once('.').ok_or(WorkloadError::Parts)?;
    Ok(Parts { signed, signature, kid, alg, claims })
}

/// Without padding and without stray bits: one token has one spelling.
fn decode(part: &str, what: &'static str) -> Result<Vec<u8>, WorkloadError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| WorkloadError::Base64(what))
}

fn check_header(header: &Map<String, Value>) -> Result<(Option<String>, Algorithm), WorkloadError> {
    if let Some(field) = HEADER_REFUSED.into_iter().find(|field| header.contains_key(*field)) {
        return Err(WorkloadError::HeaderField(field));
    }
    if let Some(kind) = header.get("typ") {
        let kind = kind.as_str().ok_or(WorkloadError::Type)?.to_ascii_lowercase();
        let kind = kind.strip_prefix("application/").unwrap_or(&kind);
        if !matches!(kind, "jwt" | "at+jwt") {
            return Err(WorkloadError::Type);
        }
    }
    let alg = header
        .get("alg")
        .and_then(Value::as_str)
        .and_then(Algorithm::parse)
        .ok_or(WorkloadError::Algorithm)?;
    let kid = match header.get("kid") {
        None => None,
        Some(Value::String(kid))
            if (1..=KID_BYTES_MAX).contains(&kid.len()) && !kid.contains(char::is_control) =>
        {
            Some(kid.clone())
        }
        Some(_) => return Err(WorkloadError::KidMalformed),
    };
    Ok((kid, alg))
}

/// Checks the claims that every token has; returns `exp`.
fn check_claims(claims: &Map<String, Value>, expect: &Expect<'_>) -> Result<u64, WorkloadError> {
    if text(claims, "iss")? != expect.issuer {
        return Err(WorkloadError::Issuer { expected: expect.issuer.to_owned() });
    }
    // A list is refused even with one element: a token that is for several may have been got, and kept, by another of them.
    if claims.get("aud").and_then(Value::as_str) != Some(expect.audience) {
        return Err(WorkloadError::Audience { expected: expect.audience.to_owned() });
    }
    text(claims, "sub")?;
    let expires_at = time(claims, "exp")?.ok_or_else(|| missing("exp"))?;
    let issued_at = time(claims, "iat")?.ok_or_else(|| missing("iat"))?;
    let not_before = time(claims, "nbf")?.unwrap_or(issued_at);
    let latest = expect.now_secs.saturating_add(LEEWAY_SECS);
    if issued_at > latest {
        return Err(WorkloadError::Future("iat"));
    }
    if not_before > latest {
        return Err(WorkloadError::Future("nbf"));
    }
    if expires_at <= issued_at || expires_at - issued_at > LIFETIME_SECS_MAX {
        return Err(WorkloadError::Lifetime);
    }
    if expires_at.saturating_add(LEEWAY_SECS) <= expect.now_secs {
        return Err(WorkloadError::Expired);
    }
    for name in expect.required_claims {
        let empty = claims.get(name).is_none_or(|v| v.is_null() || v.as_str() == Some(""));
        if empty {
            return Err(missing(name));
        }
    }
    Ok(expires_at)
}

fn missing(name: &str) -> WorkloadError {
    WorkloadError::ClaimMissing(name.to_owned())
}

fn text<'a>(claims: &'a Map<String, Value>, name: &'static str) -> Result<&'a str, WorkloadError> {
    match claims.get(name) {
        None => Err(missing(name)),
        Some(Value::String(text)) if !text.is_empty() => Ok(text),
        Some(_) => Err(WorkloadError::ClaimType(name, "a text that is not empty")),
    }
}

/// A time. RFC 7519 allows fractions, and some issuers send them; they are cut off.
fn time(claims: &Map<String, Value>, name: &'static str) -> Result<Option<u64>, WorkloadError> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let whole = value.as_u64().filter(|seconds| *seconds <= TIME_MAX);
    let cut = || {
        let seconds = value.as_f64().filter(|seconds| value.is_f64() && *seconds >= 0.0)?;
        (seconds <= TIME_MAX as f64).then_some(seconds as u64)
    };
    match whole.or_else(cut) {
        Some(seconds) => Ok(Some(seconds)),
        None => Err(WorkloadError::ClaimType(name, "a number of seconds since 1970")),
    }
}

/// What tells a token from every other of its issuer: `jti`, or else the part that is signed.
///
/// Not the whole token: whoever has one ECDSA signature can make a second valid one of it, and would have a second token.
fn identity(parts: &Parts<'_>, issuer: &str) -> Result<[u8; 32], WorkloadError> {
    let mut context = Context::new(&SHA256);
    context.update(issuer.as_bytes());
    if parts.claims.contains_key("jti") {
        context.update(&[0]);
        context.update(text(&parts.claims, "jti")?.as_bytes());
    } else {
        context.update(&[1]);
        context.update(digest(&SHA256, parts.signed.as_bytes()).as_ref());
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    Ok(hash)
}
