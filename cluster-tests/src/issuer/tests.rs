//! The issuer is believed by a library that knows nothing of it, and does wrong exactly what it is told to.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::{Map, Value, json};

use super::{DISCOVERY_PATH, Fault, Issuer, KEYS_PATH, claims};
use crate::http::{Answer, Connection};

fn issuer() -> Issuer {
    Issuer::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap()
}

fn get(issuer: &Issuer, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut connection =
        Connection::open_within(issuer.address(), Duration::from_secs(20)).unwrap();
    connection.exchange("GET", path, headers, &[]).unwrap()
}

fn post(issuer: &Issuer, path: &str, body: &str) -> u16 {
    let mut connection = Connection::open(issuer.address()).unwrap();
    connection.exchange("POST", path, &[], &[body.as_bytes()]).unwrap().head.status
}

fn text(answer: &Answer) -> &str {
    std::str::from_utf8(&answer.body).unwrap()
}

fn parsed(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

fn no_claims() -> Map<String, Value> {
    Map::new()
}

/// The claims of a token, if the published key that its header names verifies it.
fn verified(issuer: &Issuer, token: &str) -> Option<Value> {
    let keys: JwkSet = serde_json::from_slice(&get(issuer, KEYS_PATH, &[]).body).ok()?;
    let header = decode_header(token).unwrap();
    let key = DecodingKey::from_jwk(keys.find(&header.kid?)?).unwrap();
    let mut rules = Validation::new(header.alg);
    rules.set_audience(&["nora"]);
    rules.set_issuer(&[issuer.url()]);
    decode::<Value>(token, &key, &rules).ok().map(|token| token.claims)
}

#[test]
fn every_algorithm_signs_what_the_published_key_verifies() {
    let issuer = issuer();
    for algorithm in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "EdDSA"] {
        let token = issuer.mint_with(algorithm, &no_claims(), &Map::new()).unwrap();
        let expected: Algorithm = algorithm.parse().unwrap();
        assert_eq!(decode_header(&token).unwrap().alg, expected);
        let claims = verified(&issuer, &token).unwrap_or_else(|| panic!("{algorithm} is refused"));
        assert_eq!(claims["sub"], "tester");
        // The last byte but one: the last digit may hold unused bits.
        let at = token.len() - 3;
        let other = if &token[at..=at] == "A" { "B" } else { "A" };
        let forged = format!("{}{other}{}", &token[..at], &token[at + 1..]);
        assert!(verified(&issuer, &forged).is_none(), "{algorithm} verifies anything");
    }
}

#[test]
fn claims_and_headers_are_added_replaced_and_left_out() {
    let issuer = issuer();
    let claims = claims::object(json!({ "sub": "other", "nbf": null, "extra": [1] }));
    let header =
        claims::object(json!({ "kid": null, "jku": "http://evil.example", "alg": "RS512" }));
    let token = issuer.mint_with("ES256", &claims, &header).unwrap();
    let parts: Vec<Value> = token.split('.').take(2).map(part).collect();
    assert_eq!(parts[0]["alg"], "RS512");
    assert_eq!(parts[0]["jku"], "http://evil.example");
    assert_eq!(parts[0].get("kid"), None);
    assert_eq!(parts[1]["sub"], "other");
    assert_eq!(parts[1]["extra"], json!([1]));
    assert_eq!(parts[1].get("nbf"), None);
    assert_eq!(parts[1]["exp"].as_u64().unwrap() - parts[1]["iat"].as_u64().unwrap(), 300);
    let twice: Vec<Value> = (0..2).map(|_| jti(&issuer)).collect();
    assert_ne!(twice[0], twice[1], "a jti is used once");
    let unsigned = issuer.mint_with("none", &no_claims(), &Map::new()).unwrap();
    assert!(unsigned.ends_with('.'), "{unsigned}");
    assert!(issuer.mint_with("RS1", &no_claims(), &Map::new()).is_err());
}

fn jti(issuer: &Issuer) -> Value {
    part(issuer.mint(&no_claims()).unwrap().split('.').nth(1).unwrap())["jti"].clone()
}

fn part(encoded: &str) -> Value {
    use base64::Engine;
    let bytes = base64::prelude::BASE64_URL_SAFE_NO_PAD.decode(encoded).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[test]
fn a_job_gets_its_token_for_its_request_token_alone() {
    let issuer = issuer();
    let path = issuer.request_url().split_off(issuer.url().len()) + "&audience=nora";
    assert_eq!(get(&issuer, &path, &[]).head.status, 401);
    assert_eq!(get(&issuer, &path, &[("Authorization", "bearer wrong")]).head.status, 401);
    let shown = format!("bearer {}", issuer.request_token());
    let answer = get(&issuer, &path, &[("Authorization", &shown)]);
    let claims = verified(&issuer, parsed(&answer)["value"].as_str().unwrap()).unwrap();
    assert_eq!(claims["sub"], "repo:my-org/app:ref:refs/heads/main");
    assert_eq!(claims["ref_protected"], "true");

    let changed = r#"{"repository":"my-org/lib","environment":"prod","ref":"refs/tags/v1"}"#;
    assert_eq!(post(&issuer, "/claims", changed), 204);
    let answer = get(&issuer, &path, &[("Authorization", &shown)]);
    let claims = verified(&issuer, parsed(&answer)["value"].as_str().unwrap()).unwrap();
    assert_eq!(claims["sub"], "repo:my-org/lib:environment:prod");
    assert_eq!(claims["job_workflow_ref"], "my-org/lib/.github/workflows/release.yml@refs/tags/v1");
}

#[test]
fn requests_are_counted_by_path() {
    let issuer = issuer();
    assert_eq!(issuer.fetches().keys(), 0);
    get(&issuer, DISCOVERY_PATH, &[]);
    get(&issuer, KEYS_PATH, &[]);
    get(&issuer, &format!("{KEYS_PATH}?again"), &[]);
    get(&issuer, "/token", &[]);
    let counts = issuer.fetches();
    assert_eq!((counts.discovery(), counts.keys(), counts.of("/token")), (1, 2, 0));
    assert_eq!(parsed(&get(&issuer, "/counts", &[]))[KEYS_PATH], 2);
}

#[test]
fn rotated_keys_have_new_ids_and_replaced_ones_the_same() {
    let issuer = issuer();
    let old = issuer.mint(&no_claims()).unwrap();
    assert!(verified(&issuer, &old).is_some());
    issuer.replace_keys().unwrap();
    assert!(verified(&issuer, &old).is_none());
    assert_eq!(issuer.key_set()["keys"][0]["kid"], "rsa-1");
    assert_eq!(post(&issuer, "/rotate", ""), 204);
    assert_eq!(issuer.key_set()["keys"][0]["kid"], "rsa-2");
    assert!(verified(&issuer, &issuer.mint(&no_claims()).unwrap()).is_some());
}

#[test]
fn each_fault_does_what_it_says_and_ends() {
    let issuer = issuer();
    let discovery = |issuer: &Issuer| get(issuer, DISCOVERY_PATH, &[]);
    let keys = |issuer: &Issuer| get(issuer, KEYS_PATH, &[]);
    let set = |fault| issuer.set_fault(fault).unwrap();

    set(Fault::Unavailable);
    assert_eq!(keys(&issuer).head.status, 503);
    set(Fault::TooMany(3));
    assert_eq!(keys(&issuer).head.status, 429);
    set(Fault::Redirect("http://127.0.0.1:1/".into()));
    assert_eq!(keys(&issuer).head.status, 302);
    assert_eq!(keys(&issuer).head.location.as_deref(), Some("http://127.0.0.1:1/"));
    set(Fault::LiesAboutIssuer("https://other.example".into()));
    assert_eq!(parsed(&discovery(&issuer))["issuer"], "https://other.example");
    set(Fault::KeysElsewhere("http://127.0.0.1:1/k".into()));
    assert_eq!(parsed(&discovery(&issuer))["jwks_uri"], "http://127.0.0.1:1/k");
    set(Fault::LiesAboutAlgorithms);
    assert_eq!(parsed(&keys(&issuer))["keys"][0]["alg"], "HS256");
    set(Fault::EmptyKeys);
    assert_eq!(parsed(&keys(&issuer)), json!({ "keys": [] }));
    set(Fault::HugeKeys(3 << 20));
    let huge = keys(&issuer);
    assert!(huge.body.len() >= 3 << 20, "{} bytes", huge.body.len());
    assert_eq!(parsed(&huge)["keys"][0]["kid"], "rsa-1");
    set(Fault::NotJson);
    assert!(text(&keys(&issuer)).starts_with("<html>"));
    set(Fault::CutShort);
    assert!(serde_json::from_slice::<Value>(&keys(&issuer).body).is_err());
    set(Fault::WrongContentType);
    assert_eq!(parsed(&keys(&issuer)), issuer.key_set());
    set(Fault::Slow(Duration::from_millis(300)));
    let begun = Instant::now();
    keys(&issuer);
    assert!(begun.elapsed() >= Duration::from_millis(300));

    issuer.set_fault_for(Fault::Unavailable, 2).unwrap();
    let statuses: Vec<u16> = (0..3).map(|_| keys(&issuer).head.status).collect();
    assert_eq!(statuses, [503, 503, 200], "a fault strikes as often as it is told to");
    assert_eq!(parsed(&discovery(&issuer))["issuer"], issuer.url());
}

#[test]
fn who_is_down_refuses_connections_and_comes_back_at_the_same_address() {
    let issuer = issuer();
    // One that exists already ends as well.
    let mut kept = Connection::open(issuer.address()).unwrap();
    kept.exchange("GET", KEYS_PATH, &[], &[]).unwrap();
    for _ in 0..3 {
        issuer.set_fault(Fault::Down).unwrap();
        let refused = TcpStream::connect(issuer.address()).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        issuer.set_fault(Fault::None).unwrap();
        assert_eq!(get(&issuer, KEYS_PATH, &[]).head.status, 200);
    }
    assert!(kept.exchange("GET", KEYS_PATH, &[], &[]).is_err());
    assert!(issuer.set_fault_for(Fault::Down, 1).is_err());
}

#[test]
fn another_process_sets_faults_by_name() {
    let issuer = issuer();
    assert_eq!(post(&issuer, "/fault", r#"{"fault":"unavailable","times":1}"#), 204);
    assert_eq!(get(&issuer, KEYS_PATH, &[]).head.status, 503);
    assert_eq!(get(&issuer, KEYS_PATH, &[]).head.status, 200);
    for wrong in
        [r#"{"fault":"tired"}"#, r#"{"fault":"redirect"}"#, r#"{"fault":"none","x":1}"#, "x"]
    {
        assert_eq!(post(&issuer, "/fault", wrong), 400, "{wrong}");
    }
    // It cannot be told to come up, so it does by itself.
    assert_eq!(post(&issuer, "/fault", r#"{"fault":"down","milliseconds":400}"#), 204);
    assert!(TcpStream::connect(issuer.address()).is_err());
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(issuer.address()).is_err() {
        assert!(Instant::now() < deadline, "still down");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(get(&issuer, KEYS_PATH, &[]).head.status, 200);
}

#[test]
fn it_listens_on_loopback_only_and_ends_with_its_owner() {
    assert!(Issuer::start("0.0.0.0:0".parse().unwrap()).is_err());
    let issuer = issuer();
    let address = issuer.address();
    drop(issuer);
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(address).is_ok() {
        assert!(Instant::now() < deadline, "it outlives its owner");
        std::thread::sleep(Duration::from_millis(10));
    }
}
