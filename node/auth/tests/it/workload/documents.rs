//! Issuers' documents: which keys are taken, and where they may be fetched from.

use nora_auth::workload::{DiscoveryDocument, KEYS_MAX, KeySet};
use proptest::prelude::{any, proptest};
use serde_json::{Value, json};

use super::issuer::{KEYS, b64, ec_jwk, ed_jwk, jwks, rsa_jwk};

fn parsed(keys: Value) -> Result<(usize, usize), &'static str> {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes())
        .map(|set| (set.usable(), set.skipped()))
        .map_err(|error| error.code())
}

fn with(mut jwk: Value, name: &str, value: Value) -> Value {
    jwk[name] = value;
    jwk
}

/// A key that looks as an RSA key of so many bits.
fn rsa_of(bits: usize, e: &[u8]) -> Value {
    let mut n = vec![0xff; bits / 8];
    n[0] = 0x80;
    json!({"kty": "RSA", "kid": "k", "n": b64(n), "e": b64(e)})
}

#[test]
fn keys_for_other_purposes_and_weak_keys_are_passed_over() {
    let set = KeySet::parse(jwks().to_string().as_bytes()).unwrap();
    assert_eq!((set.usable(), set.skipped()), (5, 2));
    assert!(set.names("rsa") && !set.names("enc") && !set.names("oct"));

    let good = rsa_jwk("good", &KEYS.rsa);
    let p256 = ec_jwk("e", "P-256", &KEYS.p256);
    let unusable = [
        ("RSA of 1024 bits", rsa_of(1024, &[1, 0, 1])),
        ("RSA of 2040 bits", rsa_of(2040, &[1, 0, 1])),
        ("RSA of 16384 bits", rsa_of(16_384, &[1, 0, 1])),
        ("RSA with exponent 1", rsa_of(2048, &[1])),
        ("RSA with exponent 1 behind zeros", rsa_of(2048, &[0, 0, 1])),
        ("RSA with an even exponent", rsa_of(2048, &[2])),
        ("RSA with an exponent of zero", rsa_of(2048, &[0])),
        ("RSA without a modulus", json!({"kty": "RSA", "n": "", "e": "AQAB"})),
        ("RSA padded", with(good.clone(), "e", json!("AQAB="))),
        ("for encryption", with(good.clone(), "use", json!("enc"))),
        ("use is a number", with(good.clone(), "use", json!(1))),
        ("for signing alone", with(good.clone(), "key_ops", json!(["sign"]))),
        ("with its private half", with(good.clone(), "d", json!("AAAA"))),
        ("kid is a number", with(good.clone(), "kid", json!(1))),
        ("kid is empty", with(good.clone(), "kid", json!(""))),
        ("alg is symmetric", with(good.clone(), "alg", json!("HS256"))),
        ("alg is for another kind", with(good.clone(), "alg", json!("ES256"))),
        ("alg of encryption", with(good.clone(), "alg", json!("RSA-OAEP"))),
        ("another kind", with(good.clone(), "kty", json!("EC"))),
        ("a kind in other letters", with(good.clone(), "kty", json!("rsa"))),
        ("another curve", with(p256.clone(), "crv", json!("P-384"))),
        ("a curve nobody needs", with(p256.clone(), "crv", json!("secp256k1"))),
        ("a point off the curve", with(p256.clone(), "x", json!(b64([1; 32])))),
        (
            "the point zero",
            with(with(p256.clone(), "x", json!(b64([0; 32]))), "y", json!(b64([0; 32]))),
        ),
        ("X25519", with(ed_jwk("x"), "crv", json!("X25519"))),
        ("a short Ed25519", with(ed_jwk("x"), "x", json!(b64([1; 31])))),
        ("shared", json!({"kty": "oct", "k": "AAAA"})),
        ("no object", json!("key")),
    ];
    for (name, key) in unusable {
        assert_eq!(parsed(json!([key])), Err("key-set-empty"), "{name}");
        assert_eq!(parsed(json!([key, good])), Ok((1, 1)), "{name}");
    }
    assert_eq!(parsed(json!([p256, ed_jwk("x"), good])), Ok((3, 0)));
    let verify = with(good, "key_ops", json!(["verify"]));
    assert_eq!(parsed(json!([verify])), Ok((1, 0)));
    // Issuers that write a zero byte before the modulus, as ASN.1 does.
    let n: Vec<u8> = [vec![0], vec![0x80], vec![0xff; 255]].concat();
    assert_eq!(parsed(json!([{"kty": "RSA", "n": b64(n), "e": "AQAB"}])), Ok((1, 0)));
}

#[test]
fn documents_that_are_no_key_sets_are_refused_whole() {
    let code = |text: &str| KeySet::parse(text.as_bytes()).map_or_else(|e| e.code(), |_| "taken");
    assert_eq!(code(""), "json");
    assert_eq!(code("<html>"), "json");
    assert_eq!(code("[]"), "json");
    assert_eq!(code("{}"), "key-set-malformed");
    assert_eq!(code(r#"{"keys":{}}"#), "key-set-malformed");
    assert_eq!(code(r#"{"keys":[]}"#), "key-set-empty");
    assert_eq!(code(r#"{"keys":[],"keys":[]}"#), "duplicate-key");
    assert_eq!(code(&" ".repeat(1024 * 1024 + 1)), "key-set-too-large");
    let key = rsa_jwk("k", &KEYS.rsa);
    assert_eq!(parsed(json!(vec![key.clone(); KEYS_MAX])), Ok((KEYS_MAX, 0)));
    assert_eq!(parsed(json!(vec![key; KEYS_MAX + 1])), Err("key-set-too-large"));
}

#[test]
fn a_discovery_document_is_of_its_issuer_and_leads_to_a_protected_address() {
    let check = |issuer: &str, said: &str, address: &str| {
        let document = json!({"issuer": said, "jwks_uri": address}).to_string();
        DiscoveryDocument::parse(document.as_bytes(), issuer).map_or_else(
            |error| error.code(),
            |found| {
                assert_eq!(found.jwks_uri, address);
                "taken"
            },
        )
    };
    let (real, local) = ("https://ci.example", "http://127.0.0.1:8080");
    let away = "discovery-keys-address";
    for (issuer, said, address, expected) in [
        (real, real, "https://ci.example/keys", "taken"),
        (real, real, "https://keys.example:8443/keys?v=1", "taken"),
        (real, real, "https://[2001:db8::1]/keys", "taken"),
        (real, "https://ci.example/", "https://ci.example/keys", "discovery-issuer"),
        (real, "https://CI.example", "https://ci.example/keys", "discovery-issuer"),
        (real, real, "http://ci.example/keys", away),
        (real, real, "http://127.0.0.1/keys", away),
        (real, real, "file:///etc/passwd", away),
        (real, real, "HTTPS://ci.example/keys", away),
        (real, real, "https://", away),
        (real, real, "https:///keys", away),
        (real, real, "https://ci.example@evil.example/keys", away),
        (real, real, "https://ci.example\\@evil.example/keys", away),
        (real, real, "https://ci.example/keys#x", away),
        (real, real, "https://ci.example:99999/keys", away),
        (real, real, "https://ci.example/a b", away),
        (real, real, "https://ci.example/\r\nHost: x", away),
        (local, local, "http://127.0.0.1:9090/keys", "taken"),
        (local, local, "http://localhost/keys", "taken"),
        (local, local, "http://[::1]:80/keys", "taken"),
        (local, local, "https://ci.example/keys", "taken"),
        (local, local, "http://127.0.0.1.evil.example/keys", away),
        (local, local, "http://localhost.evil.example/keys", away),
        (local, local, "http://10.0.0.1/keys", away),
    ] {
        assert_eq!(check(issuer, said, address), expected, "{issuer} {said} {address}");
    }
    let code = |text: &str| {
        DiscoveryDocument::parse(text.as_bytes(), real).map_or_else(|e| e.code(), |_| "taken")
    };
    assert_eq!(code("<html>"), "json");
    assert_eq!(code("{}"), "discovery-issuer");
    assert_eq!(code(r#"{"issuer":"https://ci.example"}"#), away);
    let twice =
        r#"{"issuer":"https://ci.example","jwks_uri":"https://a/","jwks_uri":"https://b/"}"#;
    assert_eq!(code(twice), "duplicate-key");
    assert_eq!(code(&" ".repeat(256 * 1024 + 1)), "discovery-too-large");
}

proptest! {
    #[test]
    fn no_document_makes_it_panic(text in any::<String>(), n in any::<Vec<u8>>(), e in any::<Vec<u8>>()) {
        let _ = KeySet::parse(text.as_bytes());
        let _ = DiscoveryDocument::parse(text.as_bytes(), "https://ci.example");
        let document = json!({"issuer": "i", "jwks_uri": text}).to_string();
        let _ = DiscoveryDocument::parse(document.as_bytes(), "i");
        for (kty, crv) in [("RSA", ""), ("EC", "P-256"), ("EC", "P-384"), ("OKP", "Ed25519")] {
            let _ = parsed(json!([{"kty": kty, "crv": crv, "n": b64(&n), "e": b64(&e), "x": b64(&n), "y": b64(&e)}]));
        }
    }
}
