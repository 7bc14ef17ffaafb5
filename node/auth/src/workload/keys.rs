//! An issuer's keys, from its JWKS document.
//!
//! Guarantees: a set holds at least one key; every key in it is public, is for signatures, and is of a kind and size that
//! is still safe. A key of another kind is passed over, because issuers publish keys for others, too; it still counts
//! when a token names none. Must not know: where the document came from, or how old it is.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519};
use aws_lc_rs::signature::{UnparsedPublicKey, VerificationAlgorithm};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde_json::{Map, Value};

use super::{Algorithm, WorkloadError, json};

/// The most keys that one issuer may have.
pub const KEYS_MAX: usize = 200;
/// The largest document that is read.
const DOCUMENT_BYTES_MAX: usize = 1024 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Rsa,
    P256,
    P384,
    Ed25519,
}

impl Kind {
    const fn fits(self, algorithm: Algorithm) -> bool {
        match algorithm {
            Algorithm::Rs256
            | Algorithm::Rs384
            | Algorithm::Rs512
            | Algorithm::Ps256
            | Algorithm::Ps384
            | Algorithm::Ps512 => matches!(self, Self::Rsa),
            Algorithm::Es256 => matches!(self, Self::P256),
            Algorithm::Es384 => matches!(self, Self::P384),
            Algorithm::EdDsa => matches!(self, Self::Ed25519),
        }
    }
}

#[derive(Clone, Debug)]
struct Key {
    name: Option<String>,
    algorithm: Option<Algorithm>,
    kind: Kind,
    public: DecodingKey,
}

impl Key {
    fn fits(&self, algorithm: Algorithm) -> bool {
        self.kind.fits(algorithm) && self.algorithm.is_none_or(|own| own == algorithm)
    }
}

/// The keys of an issuer.
#[derive(Clone, Debug)]
pub struct KeySet {
    keys: Vec<Key>,
    /// How many keys the document had, usable or not.
    published: usize,
}

impl KeySet {
    /// Reads a JWKS document.
    pub fn parse(document: &[u8]) -> Result<Self, WorkloadError> {
        if document.len() > DOCUMENT_BYTES_MAX {
            return Err(WorkloadError::KeySetTooLarge("over 1 MiB"));
        }
        let document = json::object(document, "key set")?;
        let Some(Value::Array(published)) = document.get("keys") else {
            return Err(WorkloadError::KeySetMalformed);
        };
        if published.len() > KEYS_MAX {
            return Err(WorkloadError::KeySetTooLarge("over 200 keys"));
        }
        let keys: Vec<_> = published.iter().filter_map(|key| usable(key.as_object()?)).collect();
        if keys.is_empty() {
            return Err(WorkloadError::KeySetEmpty);
        }
        Ok(Self { keys, published: published.len() })
    }

    /// How many keys can be used.
    pub fn usable(&self) -> usize {
        self.keys.len()
    }

    /// How many keys of the document were passed over.
    pub fn skipped(&self) -> usize {
        self.published.saturating_sub(self.keys.len())
    }

    /// Whether a key has that name. Where none has, a newer document may.
    pub fn names(&self, kid: &str) -> bool {
        self.keys.iter().any(|key| key.name.as_deref() == Some(kid))
    }

    /// The key that a token names, if it is for that algorithm.
    pub(super) fn select(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<&DecodingKey, WorkloadError> {
        if kid.is_none() && self.published > 1 {
            return Err(WorkloadError::KidMissing);
        }
        let mut named =
            self.keys.iter().filter(|key| kid.is_none() || key.name.as_deref() == kid).peekable();
        if named.peek().is_none() {
            return Err(WorkloadError::KidUnknown);
        }
        named
            .find(|key| key.fits(algorithm))
            .map(|key| &key.public)
            .ok_or(WorkloadError::KeyAlgorithm(algorithm))
    }
}

/// A key that may be used, or none: one for encryption, one that shows its private half, one of another kind.
fn usable(jwk: &Map<String, Value>) -> Option<Key> {
    let text = |field: &str| jwk.get(field).map(|value| value.as_str().unwrap_or_default());
    if text("use").is_some_and(|purpose| purpose != "sig") || jwk.contains_key("d") {
        return None;
    }
    if let Some(operations) = jwk.get("key_ops") {
        operations.as_array()?.iter().find(|operation| operation.as_str() == Some("verify"))?;
    }
    let name = match jwk.get("kid") {
        Some(name) => Some(name.as_str().filter(|name| !name.is_empty())?.to_owned()),
        None => None,
    };
    let algorithm = match text("alg") {
        Some(algorithm) => Some(Algorithm::parse(algorithm)?),
        None => None,
    };
    let (kind, public) = match (text("kty")?, text("crv")) {
        ("RSA", _) => (Kind::Rsa, rsa(jwk)?),
        ("EC", Some("P-256")) => (Kind::P256, ec(jwk, 32, &ECDSA_P256_SHA256_FIXED)?),
        ("EC", Some("P-384")) => (Kind::P384, ec(jwk, 48, &ECDSA_P384_SHA384_FIXED)?),
        ("OKP", Some("Ed25519")) => (Kind::Ed25519, ed25519(jwk)?),
        _ => return None,
    };
    // A key that says it is for an algorithm that it cannot do is not what it says.
    algorithm.is_none_or(|own| kind.fits(own)).then_some(Key { name, algorithm, kind, public })
}

fn bytes(jwk: &Map<String, Value>, field: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(jwk.get(field)?.as_str()?).ok()
}

fn rsa(jwk: &Map<String, Value>) -> Option<DecodingKey> {
    let (n, e) = (bytes(jwk, "n")?, bytes(jwk, "e")?);
    let (n, e) = (without_zeros(&n), without_zeros(&e));
    let bits = n.len() * 8 - n.first()?.leading_zeros() as usize;
    let odd = n.last()? & e.last()? & 1 == 1;
    // With exponent 1 every text would be its own signature.
    let exponent = e.len() <= 4 && e != [1];
    ((2048..=8192).contains(&bits) && odd && exponent)
        .then(|| DecodingKey::from_rsa_raw_components(n, e))
}

/// Some issuers write numbers with a zero byte before them, as ASN.1 does.
fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

fn ec(
    jwk: &Map<String, Value>,
    size: usize,
    curve: &'static dyn VerificationAlgorithm,
) -> Option<DecodingKey> {
    let (x, y) = (bytes(jwk, "x")?, bytes(jwk, "y")?);
    if x.len() != size || y.len() != size {
        return None;
    }
    let point = [&[4], x.as_slice(), y.as_slice()].concat();
    // Parsing finds out whether the point is on the curve.
    UnparsedPublicKey::new(curve, &point).parse().ok()?;
    Some(DecodingKey::from_ec_der(&point))
}

fn ed25519(jwk: &Map<String, Value>) -> Option<DecodingKey> {
    let x = bytes(jwk, "x").filter(|x| x.len() == 32)?;
    UnparsedPublicKey::new(&ED25519, &x).parse().ok()?;
    Some(DecodingKey::from_ed_der(&x))
}
