//! A small issuer with real keys. It builds tokens by hand, so that it can build wrong ones.

use std::sync::LazyLock;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING,
    ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
    RSA_PKCS1_SHA512, RSA_PSS_SHA256, RsaPublicKeyComponents,
};
use aws_lc_rs::{hmac, signature::RsaEncoding};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

pub const ISSUER: &str = "https://ci.example.com";
pub const AUDIENCE: &str = "nora.example.com";
pub const NOW: u64 = 1_800_000_000;

/// The issuer's keys, made once; `stranger` is nobody's.
pub struct Issuer {
    pub rsa: RsaKeyPair,
    pub stranger: RsaKeyPair,
    pub p256: EcdsaKeyPair,
    pub p256_der: EcdsaKeyPair,
    pub p384: EcdsaKeyPair,
    pub ed25519: Ed25519KeyPair,
}

pub static KEYS: LazyLock<Issuer> = LazyLock::new(|| {
    let p256 = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let pkcs8 = p256.to_pkcs8v1().unwrap();
    Issuer {
        rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
        stranger: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
        p256_der: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref())
            .unwrap(),
        p256,
        p384: EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap(),
        ed25519: Ed25519KeyPair::generate().unwrap(),
    }
});

/// What signs a token, whatever its header says.
pub enum By<'a> {
    Rs256,
    Rs512,
    Ps256,
    Stranger,
    Es256,
    Es256Der,
    Es384,
    EdDsa,
    Hmac(&'a [u8]),
    Bytes(&'a [u8]),
}

pub fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn rsa(key: &RsaKeyPair, encoding: &'static dyn RsaEncoding, message: &[u8]) -> Vec<u8> {
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(encoding, &SystemRandom::new(), message, &mut signature).unwrap();
    signature
}

pub fn signature(message: &str, by: &By<'_>) -> Vec<u8> {
    let message = message.as_bytes();
    let ec =
        |key: &EcdsaKeyPair| key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec();
    match by {
        By::Rs256 => rsa(&KEYS.rsa, &RSA_PKCS1_SHA256, message),
        By::Rs512 => rsa(&KEYS.rsa, &RSA_PKCS1_SHA512, message),
        By::Ps256 => rsa(&KEYS.rsa, &RSA_PSS_SHA256, message),
        By::Stranger => rsa(&KEYS.stranger, &RSA_PKCS1_SHA256, message),
        By::Es256 => ec(&KEYS.p256),
        By::Es256Der => ec(&KEYS.p256_der),
        By::Es384 => ec(&KEYS.p384),
        By::EdDsa => KEYS.ed25519.sign(message).as_ref().to_vec(),
        By::Hmac(key) => {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref().to_vec()
        }
        By::Bytes(bytes) => bytes.to_vec(),
    }
}

/// A token of any two texts.
pub fn raw(header: &str, claims: &str, by: &By<'_>) -> String {
    let signed = format!("{}.{}", b64(header), b64(claims));
    format!("{signed}.{}", b64(signature(&signed, by)))
}

/// The claims of a good token.
pub fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "repo:my-org/app:ref:refs/heads/main",
        "iat": NOW - 10, "nbf": NOW - 10, "exp": NOW + 300, "jti": "one-of-a-kind",
        "repository": "my-org/app", "run_number": 7,
    })
}

/// Good claims with a change; `null` takes one away.
pub fn claims_with(name: &str, value: Value) -> Value {
    changed(claims(), name, value)
}

/// The header of a good token.
pub fn header() -> Value {
    json!({"alg": "RS256", "typ": "JWT", "kid": "rsa"})
}

/// A good header with a change; `null` takes one away.
pub fn header_with(name: &str, value: Value) -> Value {
    changed(header(), name, value)
}

fn changed(mut object: Value, name: &str, value: Value) -> Value {
    let map = object.as_object_mut().unwrap();
    if value.is_null() {
        map.remove(name)
    } else {
        map.insert(name.to_owned(), value)
    };
    object
}

/// A token with that header, and good claims.
pub fn headed(header: &Value, by: &By<'_>) -> String {
    raw(&header.to_string(), &claims().to_string(), by)
}

/// A token with those claims, and a good header and signature.
pub fn claiming(claims: &Value) -> String {
    raw(&header().to_string(), &claims.to_string(), &By::Rs256)
}

pub fn rsa_jwk(kid: &str, key: &RsaKeyPair) -> Value {
    let public = RsaPublicKeyComponents::<Vec<u8>>::from(key.public_key());
    json!({"kty": "RSA", "use": "sig", "kid": kid, "n": b64(public.n), "e": b64(public.e)})
}

pub fn ec_jwk(kid: &str, crv: &str, key: &EcdsaKeyPair) -> Value {
    let point = &key.public_key().as_ref()[1..];
    let (x, y) = point.split_at(point.len() / 2);
    json!({"kty": "EC", "crv": crv, "kid": kid, "x": b64(x), "y": b64(y)})
}

pub fn ed_jwk(kid: &str) -> Value {
    json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": b64(KEYS.ed25519.public_key())})
}

/// The issuer's document: a key of each kind, one bound to an algorithm, and some for other purposes.
pub fn jwks() -> Value {
    let mut bound = rsa_jwk("rsa-512", &KEYS.rsa);
    bound["alg"] = json!("RS512");
    let mut encryption = rsa_jwk("enc", &KEYS.rsa);
    encryption["use"] = json!("enc");
    json!({"keys": [
        rsa_jwk("rsa", &KEYS.rsa),
        bound,
        ec_jwk("p256", "P-256", &KEYS.p256),
        ec_jwk("p384", "P-384", &KEYS.p384),
        ed_jwk("ed"),
        encryption,
        {"kty": "oct", "kid": "oct", "k": b64(b"a shared secret")},
    ]})
}

/// The RSA key as SubjectPublicKeyInfo, and as the PEM that people have in files.
pub fn rsa_public_der_and_pem() -> (Vec<u8>, String) {
    let der = AsDer::<PublicKeyX509Der<'_>>::as_der(KEYS.rsa.public_key()).unwrap();
    let der = der.as_ref().to_vec();
    let text = STANDARD.encode(&der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|l| str::from_utf8(l).unwrap()).collect();
    let pem =
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"));
    (der, pem)
}
