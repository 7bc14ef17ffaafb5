//! Whose word about the client is taken: nobody's but a trusted proxy's, and of that only what it has seen itself.

use nora_domain::{Entry, Verb};
use std::collections::BTreeSet;
use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{HOST, WWW_AUTHENTICATE};
use tower::ServiceExt;

use crate::testkit::{ADMIN_PASSWORD, World, surface};
use crate::{ConnectionInfo, router};
use nora_config::{Overrides, parse};

/// Failed logins after which an address has to wait, in any [`World`].
const FAILURES_MAX: usize = 5;

/// The other ends of connections: a proxy, and somebody who comes without one.
const PROXY: &str = "10.0.0.1";
const DIRECT: &str = "192.0.2.9";

/// Somebody behind the proxy.
const CLIENT: &str = "203.0.113.7";

/// A node that speaks plain HTTP.
struct Node {
    world: World,
    router: Router,
}

impl Node {
    /// One that takes the word of proxies in these networks.
    async fn trusting(networks: &[&str]) -> Self {
        let world = World::with("[auth]\n").await;
        let text = format!("[server]\ntrusted_proxies = {networks:?}\n");
        let config = parse(&text, None, &Overrides::default()).unwrap().config;
        let trusted = config.server.trusted_proxies;
        let router = router(&surface(world.registry.clone(), world.guard.clone(), trusted));
        Self { world, router }
    }

    async fn ask(&self, peer: &str, headers: &[(&str, &str)]) -> Response {
        let mut request = Request::builder().uri("/v2/").header(HOST, "nora.example");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Body::empty()).unwrap();
        let peer = SocketAddr::new(peer.parse().unwrap(), 40_000);
        request.extensions_mut().insert(ConnectionInfo { peer, tls: false });
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// The status of a login; each of `forwarded` is an `X-Forwarded-For` of its own.
    async fn login(&self, peer: &str, forwarded: &[&str], password: &str) -> u16 {
        let login = format!("Basic {}", STANDARD.encode(format!("admin:{password}")));
        let mut headers = vec![("authorization", login.as_str())];
        headers.extend(forwarded.iter().map(|value| ("x-forwarded-for", *value)));
        self.ask(peer, &headers).await.status().as_u16()
    }

    /// Whether a login has to wait, whatever it shows. A guess tells: one that has not to wait is wrong, and counts.
    async fn waits(&self, peer: &str, forwarded: &[&str]) -> bool {
        match self.login(peer, forwarded, "a guess").await {
            401 => false,
            429 => true,
            status => panic!("a guess is answered with {status}"),
        }
    }

    /// The addresses that the audit log has of logins that were refused.
    async fn noted(&self) -> BTreeSet<String> {
        self.world.guard.flush().await;
        let entries = self.world.registry.journal().entries(0, 1_000).await.unwrap().items;
        let is_login =
            |entry: &Entry| entry.deed.as_ref().is_some_and(|deed| deed.verb == Verb::Login);
        let logins = entries.into_iter().filter(|(_, entry)| is_login(entry));
        logins.filter_map(|(_, entry)| Some(entry.by?.address)).collect()
    }

    /// Where a client is sent for a session whose request came with this `X-Forwarded-Proto`.
    async fn challenge(&self, peer: &str, proto: Option<&str>) -> String {
        let headers: Vec<_> = proto.map(|proto| ("x-forwarded-proto", proto)).into_iter().collect();
        self.challenge_to(peer, &headers).await
    }

    /// Where a client is sent for a session whose request came with these headers.
    async fn challenge_to(&self, peer: &str, headers: &[(&str, &str)]) -> String {
        let refused = self.ask(peer, headers).await;
        assert_eq!(refused.status(), 401);
        refused.headers()[WWW_AUTHENTICATE].to_str().unwrap().to_owned()
    }
}

fn realm(scheme: &str) -> String {
    format!("Bearer realm=\"{scheme}://nora.example/v2/token\",service=\"nora\"")
}

fn set<const N: usize>(addresses: [&str; N]) -> BTreeSet<String> {
    addresses.map(str::to_owned).into()
}

#[tokio::test]
async fn without_trusted_proxies_the_connection_alone_counts() {
    let node = Node::trusting(&[]).await;
    for guess in 0..FAILURES_MAX {
        let invented = format!("203.0.113.{guess}");
        assert!(!node.waits(DIRECT, &[&invented]).await, "guess {guess}");
    }
    assert!(node.waits(DIRECT, &[]).await);
    // Whoever has to wait does so by any name, and whomever it named has not to.
    assert_eq!(node.login(DIRECT, &["203.0.113.99"], ADMIN_PASSWORD).await, 429);
    assert!(!node.waits("203.0.113.0", &[]).await);
    assert_eq!(node.login("203.0.113.1", &[DIRECT], ADMIN_PASSWORD).await, 200);
    assert_eq!(node.noted().await, set([DIRECT, "203.0.113.0"]));
    for proto in [None, Some("http"), Some("https")] {
        assert_eq!(node.challenge(DIRECT, proto).await, realm("http"), "{proto:?}");
    }
}

#[tokio::test]
async fn a_trusted_proxy_tells_whom_it_speaks_for() {
    let node = Node::trusting(&["10.0.0.0/8"]).await;
    for guess in 0..FAILURES_MAX {
        assert!(!node.waits(PROXY, &[CLIENT]).await, "guess {guess}");
    }
    assert_eq!(node.login(PROXY, &[CLIENT], ADMIN_PASSWORD).await, 429);
    // Neither others behind the proxy have to wait, nor the proxy itself.
    assert!(!node.waits(PROXY, &["203.0.113.8"]).await);
    assert!(!node.waits(PROXY, &[]).await);
    // Whoever else names the client is not taken for it.
    assert!(!node.waits(DIRECT, &[CLIENT]).await);
    assert_eq!(node.noted().await, set([CLIENT, "203.0.113.8", PROXY, DIRECT]));
    assert_eq!(node.login(PROXY, &["203.0.113.8"], ADMIN_PASSWORD).await, 200);

    assert_eq!(node.challenge(PROXY, Some("https")).await, realm("https"));
    assert_eq!(node.challenge(PROXY, Some("http")).await, realm("http"));
    assert_eq!(node.challenge(PROXY, None).await, realm("http"));
    assert_eq!(node.challenge(DIRECT, Some("https")).await, realm("http"));
}

#[tokio::test]
async fn a_trusted_proxy_says_https_in_any_spelling() {
    let node = Node::trusting(&["10.0.0.0/8"]).await;
    let (proto, forwarded) = ("x-forwarded-proto", "forwarded");
    let https = [
        &[(proto, "HTTPS")][..],
        &[(proto, " https ")],
        &[(proto, "https, http")],
        &[(proto, "https"), (proto, "http")],
        &[(forwarded, "proto=https")],
        &[(forwarded, "for=203.0.113.7;Proto=\"HTTPS\";by=10.0.0.1, for=10.0.0.2;proto=http")],
        &[(proto, "https"), (forwarded, "proto=http")],
    ];
    let http = [
        &[][..],
        &[(proto, "http, https")],
        &[(proto, "httpsx")],
        &[(proto, "http"), (forwarded, "proto=https")],
        &[(forwarded, "for=203.0.113.7, proto=https")],
        &[(forwarded, "host=https")],
    ];
    for headers in https {
        assert_eq!(node.challenge_to(PROXY, headers).await, realm("https"), "{headers:?}");
        assert_eq!(node.challenge_to(DIRECT, headers).await, realm("http"), "{headers:?}");
    }
    for headers in http {
        assert_eq!(node.challenge_to(PROXY, headers).await, realm("http"), "{headers:?}");
    }
}

#[tokio::test]
async fn what_stands_before_the_last_untrusted_address_may_be_made_up() {
    let node = Node::trusting(&["10.0.0.0/8"]).await;
    for guess in 0..FAILURES_MAX {
        let chain = format!("1.2.3.{guess}, {CLIENT}");
        assert!(!node.waits(PROXY, &[&chain]).await, "guess {guess}");
    }
    let through_two = format!("{CLIENT}, 10.0.0.2");
    let forged = [
        &[CLIENT][..],
        &["1.2.3.99, 203.0.113.7"],
        // In a header of its own, and through another proxy as well.
        &["1.2.3.99", CLIENT],
        &["1.2.3.99, 1.2.3.98", &through_two],
        &["no address, 203.0.113.7"],
    ];
    for forwarded in forged {
        assert!(node.waits(PROXY, forwarded).await, "{forwarded:?}");
    }
    assert_eq!(node.noted().await, set([CLIENT]));
    // Who was named falsely has not to wait, and naming another is no way to be him.
    assert!(!node.waits(PROXY, &["1.2.3.0"]).await);
    assert!(!node.waits(PROXY, &["203.0.113.7, 203.0.113.8"]).await);
    // Where the last one is no address, the proxy itself counts.
    assert!(!node.waits(PROXY, &["203.0.113.7, no address"]).await);
    assert_eq!(node.noted().await, set([CLIENT, "1.2.3.0", "203.0.113.8", PROXY]));
}
