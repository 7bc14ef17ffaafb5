//! Workload tokens: good ones of every algorithm are believed, and each of many wrong ones is refused for its own reason.

mod documents;
mod issuer;

use std::collections::BTreeSet;

use nora_auth::workload::{
    Algorithm, Expect, KeySet, LEEWAY_SECS, Verified, WorkloadError, peek, verify,
};
use proptest::prelude::{Strategy, any, prop, prop_assert, proptest};
use serde_json::{Value, json};

use issuer::{
    AUDIENCE, By, ISSUER, KEYS, NOW, b64, claiming, claims, claims_with, ec_jwk, headed, header,
    header_with, jwks, raw, rsa_jwk, rsa_public_der_and_pem, signature,
};

const ALGORITHMS: [Algorithm; 5] =
    [Algorithm::Rs256, Algorithm::Rs512, Algorithm::Ps256, Algorithm::Es256, Algorithm::EdDsa];

fn keys() -> KeySet {
    KeySet::parse(jwks().to_string().as_bytes()).unwrap()
}

fn verify_at(token: &str, now_secs: u64) -> Result<Verified, WorkloadError> {
    let required = ["repository".to_owned()];
    let expect = Expect {
        issuer: ISSUER,
        audience: AUDIENCE,
        algorithms: &ALGORITHMS,
        required_claims: &required,
        now_secs,
    };
    verify(token, &keys(), &expect)
}

fn code(token: &str) -> &'static str {
    verify_at(token, NOW).map_or_else(|error| error.code(), |_| "believed")
}

#[test]
fn good_tokens_of_every_algorithm_are_believed() {
    let cases = [
        ("RS256", "rsa", By::Rs256),
        ("RS512", "rsa-512", By::Rs512),
        ("PS256", "rsa", By::Ps256),
        ("ES256", "p256", By::Es256),
        ("EdDSA", "ed", By::EdDsa),
    ];
    for (alg, kid, by) in cases {
        let token = headed(&json!({"alg": alg, "kid": kid}), &by);
        let verified = verify_at(&token, NOW).unwrap_or_else(|error| panic!("{alg}: {error}"));
        assert_eq!(verified.claims["repository"], "my-org/app");
        assert_eq!(verified.expires_at, NOW + 300);
        let seen = peek(&token).unwrap();
        assert_eq!((seen.issuer.as_str(), seen.kid.as_deref()), (ISSUER, Some(kid)));
        assert_eq!(seen.alg.name(), alg);
    }
    // ES384 is good as well where it is configured.
    let token = headed(&json!({"alg": "ES384", "kid": "p384", "typ": "at+JWT"}), &By::Es384);
    let expect = Expect {
        issuer: ISSUER,
        audience: AUDIENCE,
        algorithms: &[Algorithm::Es384],
        required_claims: &[],
        now_secs: NOW,
    };
    assert!(verify(&token, &keys(), &expect).is_ok());
}

/// Everything that is wrong before a key is looked for.
fn malformed() -> Vec<(&'static str, String, &'static str)> {
    let good = claiming(&claims());
    let parts: Vec<&str> = good.split('.').collect();
    let text = claims().to_string();
    let twice = text.replacen('{', r#"{"sub":"admin","#, 1);
    let deep = text.replacen('{', r#"{"deep":{"a":[{"b":1,"b":2}]},"#, 1);
    let head = header().to_string();
    let head_twice = head.replacen('{', r#"{"alg":"none","#, 1);
    vec![
        ("empty", String::new(), "parts"),
        ("one part", parts[0].into(), "parts"),
        ("two parts", format!("{}.{}", parts[0], parts[1]), "parts"),
        ("signature stripped", format!("{}.{}.", parts[0], parts[1]), "parts"),
        ("four parts", format!("{good}.{}", parts[2]), "parts"),
        ("five parts, as encrypted tokens", format!("{good}.{}.{}", parts[1], parts[2]), "parts"),
        ("a line's end after it", format!("{good}\n"), "base64"),
        ("a blank before it", format!(" {good}"), "base64"),
        ("bad base64 in the header", format!("!{}.{}.{}", parts[0], parts[1], parts[2]), "base64"),
        ("bad base64 in the claims", format!("{}.%%.{}", parts[0], parts[2]), "base64"),
        ("bad base64 in the signature", format!("{}.{}.+/+/", parts[0], parts[1]), "base64"),
        ("padding", format!("{good}=="), "base64"),
        ("cut short", good[..good.len() - 1].into(), "base64"),
        ("huge", format!("{good}{}", "A".repeat(17_000)), "too-long"),
        (
            "huge header",
            headed(&header_with("x", json!("x".repeat(17_000))), &By::Rs256),
            "too-long",
        ),
        ("header is no JSON", raw("hello", &text, &By::Rs256), "json"),
        ("header is a list", raw("[]", &text, &By::Rs256), "json"),
        ("header is null", raw("null", &text, &By::Rs256), "json"),
        ("claims are no JSON", raw(&head, "{\"iss\":", &By::Rs256), "json"),
        ("claims are a text", raw(&head, "\"x\"", &By::Rs256), "json"),
        ("claims and more", raw(&head, &format!("{text}{{}}"), &By::Rs256), "json"),
        ("claims nested without end", raw(&head, &"[".repeat(5_000), &By::Rs256), "json"),
        (
            "claims are not UTF-8",
            {
                let signed = format!("{}.{}", b64(&head), b64(b"{\"iss\":\"\xff\"}"));
                format!("{signed}.{}", b64(signature(&signed, &By::Rs256)))
            },
            "json",
        ),
        (
            "exp beyond any float",
            raw(&head, &text.replace("1800000300", "1e400"), &By::Rs256),
            "json",
        ),
        ("a claim twice", raw(&head, &twice, &By::Rs256), "duplicate-key"),
        ("a key twice, deep inside", raw(&head, &deep, &By::Rs256), "duplicate-key"),
        ("alg twice", raw(&head_twice, &text, &By::Rs256), "duplicate-key"),
        ("typ is no text", headed(&header_with("typ", json!(1)), &By::Rs256), "type"),
        (
            "typ of a logout token",
            headed(&header_with("typ", json!("logout+jwt")), &By::Rs256),
            "type",
        ),
    ]
}

/// Headers that would have the verifier take another key or algorithm.
fn headers() -> Vec<(&'static str, String, &'static str)> {
    let (der, pem) = rsa_public_der_and_pem();
    let with = |name: &str, value: Value, by: By<'_>| headed(&header_with(name, value), &by);
    let alg = |value: Value, by: By<'_>| with("alg", value, by);
    let as_key = |alg: &str, kid: &str, by: By<'_>| headed(&json!({"alg": alg, "kid": kid}), &by);
    let x5c = json!(["MIIB"]);
    let stranger = rsa_jwk("rsa", &KEYS.stranger);
    vec![
        ("none", alg(json!("none"), By::Bytes(b"x")), "algorithm"),
        ("None", alg(json!("None"), By::Bytes(b"x")), "algorithm"),
        ("NONE and a good signature", alg(json!("NONE"), By::Rs256), "algorithm"),
        ("alg is empty", alg(json!(""), By::Rs256), "algorithm"),
        ("no alg", alg(Value::Null, By::Rs256), "algorithm"),
        ("alg is a number", alg(json!(256), By::Rs256), "algorithm"),
        ("alg is a list", alg(json!(["RS256"]), By::Rs256), "algorithm"),
        ("rs256", alg(json!("rs256"), By::Rs256), "algorithm"),
        (
            "HS256 with the public key as PEM",
            alg(json!("HS256"), By::Hmac(pem.as_bytes())),
            "algorithm",
        ),
        ("HS256 with the public key as DER", alg(json!("HS256"), By::Hmac(&der)), "algorithm"),
        (
            "HS256 with the shared key of the set",
            as_key("HS256", "oct", By::Hmac(b"a shared secret")),
            "algorithm",
        ),
        (
            "RS256 said, HMAC with the public key",
            with("kid", json!("rsa"), By::Hmac(pem.as_bytes())),
            "signature",
        ),
        ("a key in the header", with("jwk", stranger, By::Stranger), "header-field"),
        (
            "a link to keys",
            with("jku", json!("https://evil.example/keys"), By::Stranger),
            "header-field",
        ),
        (
            "a link to a certificate",
            with("x5u", json!("https://evil.example/c"), By::Stranger),
            "header-field",
        ),
        ("a certificate", with("x5c", x5c, By::Stranger), "header-field"),
        (
            "a null certificate",
            raw(r#"{"alg":"RS256","kid":"rsa","x5c":null}"#, &claims().to_string(), &By::Rs256),
            "header-field",
        ),
        ("crit", with("crit", json!(["exp"]), By::Rs256), "header-field"),
        ("b64 false", with("b64", json!(false), By::Rs256), "header-field"),
        ("zip", with("zip", json!("DEF"), By::Rs256), "header-field"),
        ("no kid", with("kid", Value::Null, By::Rs256), "kid-missing"),
        ("kid is a number", with("kid", json!(1), By::Rs256), "kid-malformed"),
        ("kid is a list", with("kid", json!(["rsa"]), By::Rs256), "kid-malformed"),
        ("kid is empty", with("kid", json!(""), By::Rs256), "kid-malformed"),
        ("kid is huge", with("kid", json!("k".repeat(5_000)), By::Rs256), "kid-malformed"),
        ("kid with a line's end", with("kid", json!("rsa\nrsa"), By::Rs256), "kid-malformed"),
        ("kid is a path", with("kid", json!("../../../dev/null"), By::Hmac(b"")), "kid-unknown"),
        ("kid is SQL", with("kid", json!("x' UNION SELECT 'k"), By::Rs256), "kid-unknown"),
        ("kid in other letters", with("kid", json!("RSA"), By::Rs256), "kid-unknown"),
        ("kid of a key for encryption", with("kid", json!("enc"), By::Rs256), "kid-unknown"),
        (
            "kid of a shared key",
            with("kid", json!("oct"), By::Hmac(b"a shared secret")),
            "kid-unknown",
        ),
        (
            "an algorithm that is not in the list",
            as_key("ES384", "p384", By::Es384),
            "algorithm-not-allowed",
        ),
        ("ES256 with an RSA key", as_key("ES256", "rsa", By::Es256), "key-algorithm"),
        ("RS256 with an EC key", as_key("RS256", "p256", By::Rs256), "key-algorithm"),
        ("ES256 with a P-384 key", as_key("ES256", "p384", By::Es256), "key-algorithm"),
        ("EdDSA with an EC key", as_key("EdDSA", "p256", By::EdDsa), "key-algorithm"),
        (
            "RS256 with a key that is for RS512",
            as_key("RS256", "rsa-512", By::Rs256),
            "key-algorithm",
        ),
        (
            "PS256 with a key that is for RS512",
            as_key("PS256", "rsa-512", By::Ps256),
            "key-algorithm",
        ),
    ]
}

/// Signatures that are not this token's by this key.
fn signatures() -> Vec<(&'static str, String, &'static str)> {
    let good = claiming(&claims());
    let other = claiming(&claims_with("repository", json!("evil/app")));
    let signed = |token: &str| token.rsplit_once('.').map(|(signed, _)| signed.to_owned()).unwrap();
    let tail = |token: &str| token.rsplit_once('.').map(|(_, tail)| tail.to_owned()).unwrap();
    let es = json!({"alg": "ES256", "kid": "p256"});
    let ed = json!({"alg": "EdDSA", "kid": "ed"});
    let mut flipped = signature(&signed(&good), &By::Rs256);
    flipped[100] ^= 1;
    vec![
        ("by a stranger", headed(&header(), &By::Stranger), "signature"),
        ("of another token", format!("{}.{}", signed(&other), tail(&good)), "signature"),
        ("one bit flipped", format!("{}.{}", signed(&good), b64(flipped)), "signature"),
        (
            "PSS said, PKCS1 made",
            headed(&json!({"alg": "PS256", "kid": "rsa"}), &By::Rs256),
            "signature",
        ),
        ("PKCS1 said, PSS made", headed(&header(), &By::Ps256), "signature"),
        ("RSA of zeros", headed(&header(), &By::Bytes(&[0; 256])), "signature"),
        ("RSA, one byte", headed(&header(), &By::Bytes(&[1])), "signature"),
        ("EC in DER form", headed(&es, &By::Es256Der), "signature"),
        ("EC with r and s zero", headed(&es, &By::Bytes(&[0; 64])), "signature"),
        ("EC with r and s of ones", headed(&es, &By::Bytes(&[0xff; 64])), "signature"),
        ("EC, too short", headed(&es, &By::Bytes(&[1; 63])), "signature"),
        ("EC of another curve", headed(&es, &By::Es384), "signature"),
        ("Ed25519 of zeros", headed(&ed, &By::Bytes(&[0; 64])), "signature"),
        ("Ed25519, empty hash", headed(&ed, &By::Bytes(&[1; 32])), "signature"),
    ]
}

/// Claims that are signed well, and wrong.
fn wrong_claims() -> Vec<(&'static str, String, &'static str)> {
    let with = |name: &str, value: Value| claiming(&claims_with(name, value));
    let negative =
        raw(&header().to_string(), &claims().to_string().replace("1800000300", "-1"), &By::Rs256);
    vec![
        ("no issuer", with("iss", Value::Null), "claim-missing"),
        ("issuer with a slash behind", with("iss", json!(format!("{ISSUER}/"))), "issuer"),
        ("issuer in other letters", with("iss", json!("https://CI.example.com")), "issuer"),
        ("issuer is a list", with("iss", json!([ISSUER])), "claim-type"),
        ("issuer is longer", with("iss", json!(format!("{ISSUER}.evil.example"))), "issuer"),
        ("issuer with a NUL", with("iss", json!(format!("{ISSUER}\0"))), "issuer"),
        ("no audience", with("aud", Value::Null), "audience"),
        ("wrong audience", with("aud", json!("https://github.com/my-org")), "audience"),
        ("audience that begins as ours", with("aud", json!("nora.example.com.evil")), "audience"),
        ("audience that ours begins as", with("aud", json!("nora.example")), "audience"),
        ("audience in a list", with("aud", json!([AUDIENCE])), "audience"),
        ("two audiences", with("aud", json!([AUDIENCE, "other"])), "audience"),
        ("audience is empty", with("aud", json!("")), "audience"),
        ("audience is a number", with("aud", json!(1)), "audience"),
        ("no exp", with("exp", Value::Null), "claim-missing"),
        ("exp is a text", with("exp", json!("1800000300")), "claim-type"),
        (
            "exp is null",
            raw(
                &header().to_string(),
                &claims().to_string().replace("1800000300", "null"),
                &By::Rs256,
            ),
            "claim-type",
        ),
        ("exp is negative", negative, "claim-type"),
        ("exp is huge", with("exp", json!(u64::MAX)), "claim-type"),
        ("exp is a huge float", with("exp", json!(1e300)), "claim-type"),
        ("exp is a negative float", with("exp", json!(-1.5)), "claim-type"),
        ("exp is a list", with("exp", json!([NOW + 300])), "claim-type"),
        ("ended before it was issued", with("exp", json!(NOW - LEEWAY_SECS)), "lifetime"),
        (
            "expired long ago",
            claiming(
                &json!({"iss": ISSUER, "aud": AUDIENCE, "sub": "s", "iat": NOW - 500, "exp": NOW - 200}),
            ),
            "expired",
        ),
        ("lives for too long", with("exp", json!(NOW - 10 + 24 * 3_600 + 1)), "lifetime"),
        ("ends before it begins", with("exp", json!(NOW - 11)), "lifetime"),
        ("no iat", with("iat", Value::Null), "claim-missing"),
        ("iat is a text", with("iat", json!("1799999990")), "claim-type"),
        ("iat in the future", with("iat", json!(NOW + LEEWAY_SECS + 1)), "future"),
        ("nbf in the future", with("nbf", json!(NOW + LEEWAY_SECS + 1)), "future"),
        ("nbf is a text", with("nbf", json!("0")), "claim-type"),
        ("nbf is true", with("nbf", json!(true)), "claim-type"),
        ("no subject", with("sub", Value::Null), "claim-missing"),
        ("subject is a number", with("sub", json!(7)), "claim-type"),
        ("subject is empty", with("sub", json!("")), "claim-type"),
        ("a required claim is missing", with("repository", Value::Null), "claim-missing"),
        ("a required claim is empty", with("repository", json!("")), "claim-missing"),
        ("jti is a number", with("jti", json!(1)), "claim-type"),
        ("jti is empty", with("jti", json!("")), "claim-type"),
    ]
}

#[test]
fn every_forged_or_malformed_token_is_refused_for_its_own_reason() {
    // The tokens that all others are changes of are good: what is refused below is refused for the change.
    assert_eq!(code(&claiming(&claims())), "believed");
    let table = [malformed(), headers(), signatures(), wrong_claims()].concat();
    assert!(table.len() >= 45, "{} cases", table.len());
    let names: BTreeSet<_> = table.iter().map(|(name, ..)| name).collect();
    assert_eq!(names.len(), table.len(), "two cases have one name");
    let wrong: Vec<_> = table
        .iter()
        .map(|(name, token, expected)| (name, code(token), *expected))
        .filter(|(_, found, expected)| found != expected)
        .collect();
    assert!(wrong.is_empty(), "case, found, expected: {wrong:#?}");
}

#[test]
fn what_is_told_to_clients_repeats_nothing_that_was_sent() {
    let canary = "canary-5f2c";
    for name in ["iss", "aud", "sub", "exp", "iat", "nbf", "jti", "repository"] {
        let token = claiming(&claims_with(name, json!({ canary: canary })));
        if let Err(error) = verify_at(&token, NOW) {
            let told = format!("{error} {error:?}");
            assert!(!told.contains(canary), "{name}: {told}");
        }
    }
    for name in ["alg", "kid", "typ", "crit", "jku"] {
        let error = verify_at(&headed(&header_with(name, json!(canary)), &By::Rs256), NOW);
        let told = format!("{error:?} {}", error.as_ref().unwrap_err());
        assert!(!told.contains(canary), "{name}: {told}");
    }
}

#[test]
fn times_may_differ_by_the_leeway_and_no_more() {
    let token = claiming(&claims());
    let (issued, expires) = (NOW - 10, NOW + 300);
    for (now, expected) in [
        (issued - LEEWAY_SECS - 1, "future"),
        (issued - LEEWAY_SECS, "believed"),
        (expires + LEEWAY_SECS - 1, "believed"),
        (expires + LEEWAY_SECS, "expired"),
    ] {
        let found = verify_at(&token, now).map_or_else(|error| error.code(), |_| "believed");
        assert_eq!(found, expected, "at {now}");
    }
    // It is remembered for exactly as long as it is believed.
    assert_eq!(verify_at(&token, NOW).unwrap().remember_until(), expires + LEEWAY_SECS);
    // A day is the longest life, and fractions of seconds are numbers, too.
    assert_eq!(code(&claiming(&claims_with("exp", json!(NOW - 10 + 24 * 3_600)))), "believed");
    assert_eq!(code(&claiming(&claims_with("exp", json!(NOW as f64 + 300.5)))), "believed");
}

#[test]
fn without_a_kid_the_one_key_counts_and_only_if_it_is_the_one_key() {
    let token = headed(&header_with("kid", Value::Null), &By::Rs256);
    let check = |keys: Value| {
        let keys = KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap();
        let expect = Expect {
            issuer: ISSUER,
            audience: AUDIENCE,
            algorithms: &ALGORITHMS,
            required_claims: &[],
            now_secs: NOW,
        };
        verify(&token, &keys, &expect).map_or_else(|error| error.code(), |_| "believed")
    };
    let rsa = rsa_jwk("rsa", &KEYS.rsa);
    assert_eq!(check(json!([rsa])), "believed");
    assert_eq!(check(json!([rsa_jwk("rsa", &KEYS.stranger)])), "signature");
    assert_eq!(check(json!([ec_jwk("p256", "P-256", &KEYS.p256)])), "key-algorithm");
    // A key that cannot be used is a key, too: the issuer has several.
    assert_eq!(check(json!([rsa, {"kty": "oct", "k": "AAAA"}])), "kid-missing");
}

#[test]
fn a_token_without_jti_is_the_same_token_under_its_second_signature() {
    // ECDSA: (r, n-s) is as valid as (r, s), and whoever has one can compute the other.
    const ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let claims = claims_with("jti", Value::Null);
    let header = json!({"alg": "ES256", "kid": "p256"});
    let signed = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
    let first = signature(&signed, &By::Es256);
    let mut second = first.clone();
    let mut borrow = 0;
    for i in (0..32).rev() {
        let n = i32::from_str_radix(&ORDER[2 * i..2 * i + 2], 16).unwrap();
        let digit = n - i32::from(first[32 + i]) - borrow;
        borrow = i32::from(digit < 0);
        second[32 + i] = digit.rem_euclid(256) as u8;
    }
    assert_ne!(first, second);
    let hash = |signature: &[u8]| {
        verify_at(&format!("{signed}.{}", b64(signature)), NOW).unwrap().jti_hash
    };
    assert_eq!(hash(&first), hash(&second));

    // With jti it is the jti that counts, whatever else differs.
    let with = |jti: &str, run: u64| {
        let mut claims = claims_with("jti", json!(jti));
        claims["run_number"] = json!(run);
        verify_at(&claiming(&claims), NOW).unwrap().jti_hash
    };
    assert_eq!(with("a", 1), with("a", 2));
    assert_ne!(with("a", 1), with("b", 1));
}

proptest! {
    #[test]
    fn no_token_makes_it_panic(token in any::<String>(), header in any::<Vec<u8>>(), claims in any::<Vec<u8>>()) {
        prop_assert!(verify_at(&token, NOW).is_err());
        let token = format!("{}.{}.AAAA", b64(header), b64(claims));
        prop_assert!(peek(&token).is_err() && verify_at(&token, NOW).is_err());
    }

    #[test]
    fn no_time_makes_it_panic(exp in number(), iat in number(), nbf in number(), now in any::<u64>()) {
        let mut claims = claims_with("exp", exp);
        claims["iat"] = iat;
        claims["nbf"] = nbf;
        let _ = verify_at(&claiming(&claims), now);
    }

    #[test]
    fn a_changed_token_is_refused(place in any::<prop::sample::Index>(), bit in 0_u8..7) {
        let good = claiming(&claims());
        let mut bytes = good.clone().into_bytes();
        let place = place.index(bytes.len());
        bytes[place] ^= 1 << bit;
        let changed = String::from_utf8(bytes).unwrap();
        prop_assert!(verify_at(&changed, NOW).is_err(), "{changed}");
    }
}

fn number() -> impl Strategy<Value = Value> {
    (any::<u8>(), any::<i64>(), any::<f64>()).prop_map(|(kind, whole, float)| match kind % 4 {
        0 => json!(whole),
        1 => json!(float),
        2 => json!(NOW as i64 + whole % 1_000),
        _ => json!(whole.unsigned_abs()),
    })
}
