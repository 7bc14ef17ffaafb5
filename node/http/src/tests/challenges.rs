//! Where clients are sent to log in.

use axum::body::Body;
use http::header::{CACHE_CONTROL, HOST, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Request};
use tower::ServiceExt;

use crate::router;
use crate::testkit::World;

/// The headers of the refusal of a request that came with this host.
async fn refused(world: &World, host: &[u8]) -> HeaderMap {
    let host = HeaderValue::from_bytes(host).unwrap();
    let request = Request::builder().uri("/v2/").header(HOST, host).body(Body::empty()).unwrap();
    let response = router(&world.api).oneshot(request).await.unwrap();
    assert_eq!(response.status(), 401);
    response.headers().clone()
}

#[tokio::test]
async fn what_is_no_sane_host_is_not_repeated() {
    let world = World::with("[auth]\n").await;
    let challenge = async |host: &[u8]| {
        let headers = refused(&world, host).await;
        assert_eq!(headers[CACHE_CONTROL], "no-store", "a cache would tell it to others");
        headers[WWW_AUTHENTICATE].to_str().unwrap().to_owned()
    };
    for host in ["nora.example", "nora.example:5000", "192.0.2.1:80", "[2001:db8::1]:5000", "a_b"] {
        let expected = format!("Bearer realm=\"http://{host}/v2/token\",service=\"nora\"");
        assert_eq!(challenge(host.as_bytes()).await, expected);
    }
    // Clients then send name and password to where they are.
    let long = "a".repeat(300);
    for host in [
        "",
        ":80",
        "-",
        "..",
        "evil.example/x",
        "evil.example?x",
        "evil.example#x",
        "evil.example\\x",
        "user@evil.example",
        "nora.example@evil.example",
        "evil.example\",scope=\"x",
        "evil.example,other.example",
        "evil.example other.example",
        "evil.example;x",
        "evil.example:80x",
        "evil.example:99999",
        "evil.example:",
        "%65vil.example",
        &long,
    ] {
        let told = challenge(host.as_bytes()).await;
        assert_eq!(told, "Basic realm=\"nora\", charset=\"UTF-8\"", "{host}");
    }
    assert!(challenge(b"ev\xefl.example").await.starts_with("Basic "));
}
