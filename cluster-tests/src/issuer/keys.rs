//! The issuer's keys: RSA, P-256 and Ed25519, made at start, published as a JWK set, and what they sign.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
    RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512,
    RsaEncoding, RsaKeyPair,
};
use aws_lc_rs::{error::Unspecified, hmac};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::claims;
use crate::error::{Error, Result};

/// The keys of one generation.
pub(super) struct Keys {
    generation: u64,
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

impl Keys {
    /// New keys; their ids end in the number of the generation.
    pub(super) fn make(generation: u64) -> Result<Self> {
        let failed = |_| Error::Wrong("no keys could be made for the issuer".into());
        Ok(Self {
            generation,
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).map_err(failed)?,
            ec: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(failed)?,
            ed: Ed25519KeyPair::generate().map_err(failed)?,
        })
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// The JWK set. If it `lies`, every key claims to be for an algorithm with a shared secret.
    pub(super) fn published(&self, lies: bool) -> Value {
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let rsa = self.rsa.public_key();
        // 0x04, then both coordinates.
        let (x, y) = self.ec.public_key().as_ref()[1..].split_at(32);
        let algorithm = |honest: &'static str| if lies { "HS256" } else { honest };
        json!({ "keys": [
            {
                "kty": "RSA", "use": "sig", "alg": algorithm("RS256"), "kid": self.id("rsa"),
                "n": encode(rsa.modulus().big_endian_without_leading_zero()),
                "e": encode(rsa.exponent().big_endian_without_leading_zero()),
            },
            {
                "kty": "EC", "use": "sig", "alg": algorithm("ES256"), "kid": self.id("ec"),
                "crv": "P-256", "x": encode(x), "y": encode(y),
            },
            {
                "kty": "OKP", "use": "sig", "alg": algorithm("EdDSA"), "kid": self.id("ed"),
                "crv": "Ed25519", "x": encode(self.ed.public_key().as_ref()),
            },
        ] })
    }

    fn id(&self, kind: &str) -> String {
        format!("{kind}-{}", self.generation)
    }

    /// A token in compact form. `header` adds, replaces or (null) takes away header fields; the signature is always
    /// `algorithm`'s, so that a header can say what is not true.
    pub(super) fn sign(
        &self,
        algorithm: &str,
        claims: &Map<String, Value>,
        header: &Map<String, Value>,
    ) -> Result<String> {
        let kind = match algorithm {
            "ES256" => "ec",
            "EdDSA" => "ed",
            _ => "rsa",
        };
        let mut fields =
            claims::object(json!({ "alg": algorithm, "typ": "JWT", "kid": self.id(kind) }));
        claims::override_with(&mut fields, header);
        let part = |fields: &Map<String, Value>| {
            BASE64_URL_SAFE_NO_PAD.encode(Value::Object(fields.clone()).to_string())
        };
        let signed = format!("{}.{}", part(&fields), part(claims));
        let signature = self.signature(algorithm, signed.as_bytes())?;
        Ok(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
    }

    fn signature(&self, algorithm: &str, message: &[u8]) -> Result<Vec<u8>> {
        let signature = match algorithm {
            "RS256" => self.rsa_signature(&RSA_PKCS1_SHA256, message),
            "RS384" => self.rsa_signature(&RSA_PKCS1_SHA384, message),
            "RS512" => self.rsa_signature(&RSA_PKCS1_SHA512, message),
            "PS256" => self.rsa_signature(&RSA_PSS_SHA256, message),
            "PS384" => self.rsa_signature(&RSA_PSS_SHA384, message),
            "PS512" => self.rsa_signature(&RSA_PSS_SHA512, message),
            "ES256" => {
                let signature = self.ec.sign(&SystemRandom::new(), message);
                signature.map(|signature| signature.as_ref().to_vec())
            }
            "EdDSA" => Ok(self.ed.sign(message).as_ref().to_vec()),
            "none" => Ok(Vec::new()),
            "HS256" => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, self.rsa.public_key().as_ref());
                Ok(hmac::sign(&key, message).as_ref().to_vec())
            }
            other => return Err(Error::Wrong(format!("the issuer cannot sign with {other:?}"))),
        };
        signature.map_err(|_| Error::Wrong(format!("signing with {algorithm} failed")))
    }

    fn rsa_signature(
        &self,
        encoding: &'static dyn RsaEncoding,
        message: &[u8],
    ) -> std::result::Result<Vec<u8>, Unspecified> {
        let mut signature = vec![0; self.rsa.public_modulus_len()];
        self.rsa.sign(encoding, &SystemRandom::new(), message, &mut signature)?;
        Ok(signature)
    }
}
