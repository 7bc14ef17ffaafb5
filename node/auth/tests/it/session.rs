//! Session tokens: ours are believed for their time and use, nobody else's ever; scopes are read as clients write them.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nora_auth::session::{
    CLOCK_SKEW_SECS, Claims, SCOPE_BYTES_MAX, SCOPES_MAX, SessionError, SigningKey,
    TOKEN_BYTES_MAX, Use, parse_scope, sign, verify,
};
use proptest::prelude::{any, prop, prop_assert, proptest};
use serde_json::{Value, json};

const NOW: u64 = 1_800_000_000;

fn key(id: u64, byte: u8) -> SigningKey {
    SigningKey { id, secret: [byte; 32], not_after: NOW + 100_000 }
}

fn claims(use_: Use) -> Claims {
    Claims {
        sub: "user:alice".into(),
        cred: Some("00ff".into()),
        refresh: Some("0c".into()),
        generation: 7,
        scopes: vec!["pull:oci:my-org/app".into(), "push:oci:my-org/app".into()],
        aud: "nora".into(),
        iat: NOW - 5,
        exp: NOW + 300,
        use_,
    }
}

fn check(token: &str) -> Result<Claims, SessionError> {
    verify(&[key(1, 1), key(2, 2)], token, NOW, Use::Access)
}

/// A token of any header and claims, signed with key 2.
fn forged(header: &Value, claims: &Value) -> String {
    forged_text(&header.to_string(), &claims.to_string(), &[2; 32])
}

fn forged_text(header: &str, claims: &str, secret: &[u8]) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes());
    format!("nora_st_{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
}

fn good_header() -> Value {
    json!({"typ": "JWT", "alg": "HS256", "kid": "0000000000000002"})
}

fn good_claims() -> Value {
    serde_json::to_value(claims(Use::Access)).unwrap()
}

fn with(mut object: Value, name: &str, value: Value) -> Value {
    object[name] = value;
    object
}

fn without(mut object: Value, name: &str) -> Value {
    object.as_object_mut().unwrap().remove(name);
    object
}

#[test]
fn a_token_comes_back_whichever_key_signed_it() {
    for id in [1, 2] {
        let token = sign(&key(id, id as u8), &claims(Use::Access)).unwrap();
        assert!(token.starts_with("nora_st_ey"), "{token}");
        assert_eq!(check(&token).unwrap(), claims(Use::Access));
    }
    let mut anonymous = claims(Use::Access);
    (anonymous.cred, anonymous.refresh, anonymous.scopes) = (None, None, Vec::new());
    assert_eq!(check(&sign(&key(1, 1), &anonymous).unwrap()).unwrap(), anonymous);
    // What is forged below differs from this one, which is good, in one thing each.
    assert_eq!(check(&forged(&good_header(), &good_claims())).unwrap(), claims(Use::Access));
}

#[test]
fn access_and_refresh_tokens_never_pass_for_one_another() {
    let keys = [key(1, 1)];
    for (is, wanted) in [(Use::Access, Use::Refresh), (Use::Refresh, Use::Access)] {
        let token = sign(&keys[0], &claims(is)).unwrap();
        assert!(verify(&keys, &token, NOW, is).is_ok());
        assert_eq!(verify(&keys, &token, NOW, wanted), Err(SessionError::Use));
    }
}

#[test]
fn a_token_ends_with_its_time_and_with_its_key() {
    let token = sign(&key(1, 1), &claims(Use::Access)).unwrap();
    let at = |keys: &[SigningKey], now| {
        verify(keys, &token, now, Use::Access).map_or_else(|e| e.code(), |_| "believed")
    };
    let keys = [key(1, 1)];
    assert_eq!(at(&keys, NOW - 5 - CLOCK_SKEW_SECS - 1), "future");
    assert_eq!(at(&keys, NOW - 5 - CLOCK_SKEW_SECS), "believed");
    assert_eq!(at(&keys, NOW + 299), "believed");
    assert_eq!(at(&keys, NOW + 300), "expired");
    let mut ended = key(1, 1);
    ended.not_after = NOW;
    assert_eq!(at(&[ended.clone()], NOW - 1), "believed");
    assert_eq!(at(&[ended], NOW), "key");
    assert_eq!(at(&[], NOW), "key");
    assert_eq!(at(&[key(2, 1)], NOW), "key");
    assert_eq!(at(&[key(1, 2)], NOW), "signature");
}

#[test]
fn no_token_is_signed_that_would_not_be_believed() {
    let refused = |change: fn(&mut Claims)| {
        let mut claims = claims(Use::Access);
        change(&mut claims);
        sign(&key(1, 1), &claims).map_or_else(|e| e.code(), |_| "signed")
    };
    assert_eq!(refused(|_| ()), "signed");
    assert_eq!(refused(|claims| claims.aud = "other".into()), "audience");
    assert_eq!(refused(|claims| claims.exp = claims.iat), "lifetime");
    assert_eq!(refused(|claims| claims.exp = NOW + 100_001), "lifetime");
    assert_eq!(refused(|claims| claims.sub = "x".repeat(TOKEN_BYTES_MAX)), "too-long");
}

#[test]
fn forged_and_malformed_tokens_are_refused_for_their_own_reason() {
    let good = forged(&good_header(), &good_claims());
    let jwt = &good["nora_st_".len()..];
    let parts: Vec<&str> = jwt.split('.').collect();
    let head = |name: &str, value: Value| forged(&with(good_header(), name, value), &good_claims());
    let claim =
        |name: &str, value: Value| forged(&good_header(), &with(good_claims(), name, value));
    let no = |name: &str| forged(&good_header(), &without(good_claims(), name));
    let text = good_claims().to_string();
    let twice = text.replacen('{', r#"{"sub":"user:root","#, 1);
    let header = good_header().to_string();
    let table = [
        ("empty", String::new(), "prefix"),
        ("without the prefix", jwt.to_owned(), "prefix"),
        ("the prefix alone", "nora_st_".into(), "malformed"),
        ("the prefix twice", format!("nora_st_{good}"), "malformed"),
        ("no JWT", "nora_st_hello".into(), "malformed"),
        ("two parts", format!("nora_st_{}.{}", parts[0], parts[1]), "malformed"),
        ("four parts", format!("{good}.{}", parts[2]), "malformed"),
        ("signature stripped", format!("nora_st_{}.{}.", parts[0], parts[1]), "signature"),
        ("padded", format!("{good}="), "malformed"),
        ("huge", format!("{good}{}", "A".repeat(TOKEN_BYTES_MAX)), "too-long"),
        ("none", head("alg", json!("none")), "malformed"),
        ("HS512", head("alg", json!("HS512")), "algorithm"),
        ("RS256", head("alg", json!("RS256")), "algorithm"),
        ("no kid", forged(&without(good_header(), "kid"), &good_claims()), "key"),
        ("unknown kid", head("kid", json!("0000000000000009")), "key"),
        ("kid spelt otherwise", head("kid", json!("2")), "key"),
        ("kid is a number", head("kid", json!(2)), "malformed"),
        ("kid of the other key", head("kid", json!("0000000000000001")), "signature"),
        ("a key in the header", head("jwk", json!({"kty": "oct", "k": "AAAA"})), "malformed"),
        ("a link to keys", head("jku", json!("https://evil.example")), "malformed"),
        ("crit", head("crit", json!(["exp"])), "malformed"),
        ("another header", head("extra", json!(1)), "malformed"),
        ("another secret", forged_text(&header, &text, &[9; 32]), "signature"),
        ("an empty secret", forged_text(&header, &text, b""), "signature"),
        ("claims are no JSON", forged_text(&header, "{", &[2; 32]), "malformed"),
        ("a claim twice", forged_text(&header, &twice, &[2; 32]), "malformed"),
        ("a claim nobody knows", claim("admin", json!(true)), "malformed"),
        ("another audience", claim("aud", json!("Nora")), "audience"),
        ("audience in a list", claim("aud", json!(["nora"])), "malformed"),
        ("no audience", no("aud"), "malformed"),
        ("no exp", no("exp"), "malformed"),
        ("exp is a text", claim("exp", json!("1800000300")), "malformed"),
        ("exp is a float", claim("exp", json!(1.8e9)), "malformed"),
        ("exp is negative", claim("exp", json!(-1)), "malformed"),
        ("exp is past", claim("exp", json!(NOW)), "expired"),
        ("no iat", no("iat"), "malformed"),
        ("iat in the future", claim("iat", json!(NOW + 31)), "future"),
        ("no use", no("use"), "malformed"),
        ("an unknown use", claim("use", json!("admin")), "malformed"),
        ("a refresh token", claim("use", json!("refresh")), "use"),
        ("no subject", no("sub"), "malformed"),
        ("no generation", no("gen"), "malformed"),
        ("generation is a text", claim("gen", json!("7")), "malformed"),
        ("the refresh token is a number", claim("ref", json!(12)), "malformed"),
        ("no scopes", no("scopes"), "malformed"),
    ];
    let wrong: Vec<_> = table
        .iter()
        .map(|(name, token, expected)| {
            (name, check(token).map_or_else(|e| e.code(), |_| "believed"), *expected)
        })
        .filter(|(_, found, expected)| found != expected)
        .collect();
    assert!(wrong.is_empty(), "case, found, expected: {wrong:#?}");
}

#[test]
fn a_key_does_not_show_itself() {
    let key = SigningKey { id: 1, secret: *b"canary-canary-canary-canary-0123", not_after: NOW };
    let told = format!("{key:?} {key:#?}");
    assert!(
        !told.contains("canary") && !told.contains("secret") && !told.contains("99, 97"),
        "{told}"
    );
}

#[test]
fn scopes_are_read_as_clients_write_them() {
    let read = |text: &str| -> Vec<String> {
        parse_scope(text).unwrap().iter().map(ToString::to_string).collect()
    };
    for (text, expected) in [
        ("", vec![]),
        ("repository:library/alpine:pull", vec!["repository:library/alpine:pull"]),
        ("repository:a:push,pull", vec!["repository:a:pull,push"]),
        ("repository:a:*", vec!["repository:a:*"]),
        ("repository:a:pull,push,delete", vec!["repository:a:pull,push,delete"]),
        ("repository:localhost:5000/a/b:pull", vec!["repository:localhost:5000/a/b:pull"]),
        ("repository(plugin):a/b:pull", vec!["repository:a/b:pull"]),
        ("registry:catalog:*", vec!["registry:catalog:*"]),
        // Two for one name become one; two names stay two, in their order.
        (
            "repository:b:pull repository:a:pull  repository:b:push",
            vec!["repository:b:pull,push", "repository:a:pull"],
        ),
        // What nobody knows is asked for nothing.
        ("repository:a:pull,fly", vec!["repository:a:pull"]),
        ("repository:a:PULL", vec!["repository:a:"]),
        ("repository:a:", vec!["repository:a:"]),
        ("repository:a", vec![]),
        ("repository::pull", vec![]),
        ("repository", vec![]),
        (":::", vec![]),
        ("artifact:a:pull repository:a:pull", vec!["repository:a:pull"]),
        ("Repository:a:pull", vec![]),
        ("repository:a\u{0}b:pull", vec![]),
    ] {
        assert_eq!(read(text), expected, "{text}");
    }
    let long = format!("repository:{}:pull", "n".repeat(513));
    assert!(read(&long).is_empty());
}

#[test]
fn scopes_are_bounded() {
    let many =
        |count: usize| -> String { (0..count).map(|i| format!("repository:r{i}:pull ")).collect() };
    assert_eq!(parse_scope(&many(SCOPES_MAX)).unwrap().len(), SCOPES_MAX);
    assert!(parse_scope(&many(SCOPES_MAX + 1)).unwrap_err().to_string().contains("100 scopes"));
    let long = " ".repeat(SCOPE_BYTES_MAX + 1);
    assert!(parse_scope(&long).unwrap_err().to_string().contains("longer"));
}

proptest! {
    #[test]
    fn no_token_and_no_scope_makes_it_panic(text in any::<String>(), bytes in any::<Vec<u8>>()) {
        prop_assert!(check(&text).is_err());
        let part = URL_SAFE_NO_PAD.encode(&bytes);
        for token in [format!("nora_st_{text}"), format!("nora_st_{part}.{part}.{part}")] {
            prop_assert!(check(&token).is_err());
        }
        let _ = parse_scope(&text);
        let _ = parse_scope(&format!("repository:{text}:pull,{text}"));
    }

    #[test]
    fn scopes_come_back(names in prop::collection::vec("[a-z0-9/:.-]{1,40}", 0..20)) {
        let text: Vec<_> = names.iter().map(|name| format!("repository:{name}:pull,push")).collect();
        let scopes = parse_scope(&text.join(" ")).unwrap();
        let written: Vec<_> = scopes.iter().map(ToString::to_string).collect();
        prop_assert!(parse_scope(&written.join(" ")).unwrap() == scopes);
        prop_assert!(names.iter().all(|name| scopes.iter().any(|scope| scope.name == *name)));
    }

    #[test]
    fn a_changed_token_is_refused(place in any::<prop::sample::Index>(), bit in 0_u8..7) {
        let mut bytes = sign(&key(2, 2), &claims(Use::Access)).unwrap().into_bytes();
        let place = place.index(bytes.len());
        bytes[place] ^= 1 << bit;
        prop_assert!(check(&String::from_utf8(bytes).unwrap()).is_err());
    }
}
