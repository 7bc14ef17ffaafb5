//! For tests only: the whole HTTP surface over the ports in memory, with a policy written as in `nora.toml`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "only tests call this, and a test that cannot go on has failed"
)]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use base64::Engine;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, StatusCode};
use nora_app::Registry;
use nora_app::ports::BoxFuture;
use nora_app::ports::health::{Health, Probe};
use nora_app::testkit::ManualClock;
use nora_auth::document::PolicyDocument;
use nora_config::Network;
use nora_digest::digest;
use nora_domain::{Algorithm, NodeId};
use nora_identity::Guard;
use nora_identity::testkit::MemoryNode;
pub use nora_identity::testkit::{ADMIN_PASSWORD, NODE, NOW, PASSWORD};
use tower::ServiceExt;

use crate::{
    Api, ApiSettings, ConnectionInfo, Forward, ForwardError, LISTS_BYTES_MAX, body,
    manifest_budget, router,
};

/// Nobody else, and nothing that fails.
pub struct Still;

impl Probe for Still {
    fn health(&self) -> BoxFuture<'_, Health> {
        Box::pin(async {
            Health { has_leader: true, caught_up: true, storage_failure: None, draining: false }
        })
    }
}

impl Forward for Still {
    fn forward(&self, _: NodeId, _: Request) -> BoxFuture<'_, Result<Response, ForwardError>> {
        Box::pin(async { Err(ForwardError::NoMember) })
    }
}

/// What requests are served with, where proxies from these networks are believed.
pub fn surface(registry: Registry, guard: Arc<Guard>, trusted_proxies: Vec<Network>) -> Arc<Api> {
    Arc::new(Api {
        registry,
        probe: Arc::new(Still),
        metrics: Arc::new(crate::metrics::Metrics::new(crate::routes())),
        guard,
        peers: Arc::new(Still),
        forwarded: Arc::default(),
        bodies: manifest_budget(1 << 20),
        lists: body::Budget::of(LISTS_BYTES_MAX),
        parsing: body::Budget::of(LISTS_BYTES_MAX),
        downloads: crate::downloads::Downloads::of(1_000),
        settings: settings(trusted_proxies),
    })
}

/// What the surface keeps to.
pub fn settings(trusted_proxies: Vec<Network>) -> ApiSettings {
    ApiSettings {
        public_url: None,
        upload_bytes_max: 1 << 20,
        manifest_bytes_max: 1 << 20,
        page_size_max: 10,
        body_pace: body::Pace { idle: Duration::from_secs(1), bytes_per_second_min: 256 },
        trusted_proxies,
        policy_file: None,
    }
}

/// A node over memory, with its surface.
pub struct World {
    /// Who asks, and what they may do.
    pub guard: Arc<Guard>,
    /// The use cases.
    pub registry: Registry,
    /// Stands still until it is moved.
    pub clock: Arc<ManualClock>,
    /// What requests are served with.
    pub api: Arc<Api>,
    node: MemoryNode,
    router: Router,
}

/// What a request shows.
#[derive(Clone, Debug)]
pub enum Shown {
    /// No credential.
    Nothing,
    /// A user's name and password.
    Basic(String, String),
    /// A token or a session.
    Bearer(String),
}

impl Shown {
    /// A user who has [`PASSWORD`].
    pub fn login(user: &str) -> Self {
        Self::Basic(user.to_owned(), PASSWORD.to_owned())
    }

    /// The administrator.
    pub fn admin() -> Self {
        Self::Basic("admin".to_owned(), ADMIN_PASSWORD.to_owned())
    }

    fn header(&self) -> Option<String> {
        match self {
            Self::Nothing => None,
            Self::Bearer(token) => Some(format!("Bearer {token}")),
            Self::Basic(user, password) => {
                let text = format!("{user}:{password}");
                let encoded = base64::engine::general_purpose::STANDARD.encode(text);
                Some(format!("Basic {encoded}"))
            }
        }
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its whole body.
    pub body: Bytes,
}

impl Answer {
    /// The body, which is JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{:?}", self.body))
    }

    /// A header's text; empty if it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The answer without what differs from request to request.
    pub fn timeless(mut self) -> Self {
        self.headers.remove("x-request-id");
        if let Ok(mut document) = serde_json::from_slice::<serde_json::Value>(&self.body) {
            if let Some(errors) = document["errors"].as_array_mut() {
                errors.iter_mut().for_each(|error| error["detail"] = serde_json::Value::Null);
                self.headers.remove("content-length");
            }
            self.body = document.to_string().into();
        }
        self
    }
}

/// Where requests come from, if nothing else is said.
const HERE: [u8; 4] = [192, 0, 2, 9];

impl World {
    /// With this policy, on an address that is not this machine's alone.
    pub async fn with(policy: &str) -> Self {
        let world = Self::without_policy(false).await;
        world.apply(policy).await;
        world
    }

    /// With no policy.
    pub async fn without_policy(is_loopback: bool) -> Self {
        let node = MemoryNode::without_policy(is_loopback).await;
        let (guard, registry) = (node.guard.clone(), node.registry.clone());
        let api = surface(registry.clone(), guard.clone(), Vec::new());
        let router = router(&api);
        Self { guard, registry, clock: node.clock.clone(), api, node, router }
    }

    /// With these formats instead of NORA's own.
    #[cfg(test)]
    pub(crate) fn mounting(self, surfaces: &[crate::surface::Mounted]) -> Self {
        Self { router: crate::router_of(surfaces, &self.api), ..self }
    }

    /// Puts a policy into force.
    pub async fn apply(&self, policy: &str) {
        self.node.apply(policy).await;
    }

    /// Puts a policy into force that no file can say.
    pub async fn apply_document(&self, document: &PolicyDocument) {
        self.node.apply_document(document).await;
    }

    /// Makes users who log in with [`PASSWORD`].
    pub async fn users(&self, names: &[&str]) {
        self.node.users(names).await;
    }

    /// Makes a token of a user's, cut down to these permissions.
    pub async fn token(&self, user: &str, name: &str, scope: &[&str]) -> String {
        self.node.token(user, name, scope).await
    }

    /// A request without a body.
    pub async fn ask(&self, method: Method, path: &str, shown: &Shown) -> Answer {
        self.send(method, path, shown, &[], Bytes::new()).await
    }

    /// A request with a body and its length.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        shown: &Shown,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let body = body.into();
        let length = body.len().to_string();
        let headers = [headers, &[("content-length", length.as_str())]].concat();
        self.send_as_it_is(HERE, method, path, shown, &headers, body).await
    }

    /// A request without a body, from that address.
    pub async fn ask_from(
        &self,
        from: [u8; 4],
        method: Method,
        path: &str,
        shown: &Shown,
    ) -> Answer {
        self.send_as_it_is(from, method, path, shown, &[], Bytes::new()).await
    }

    /// A request without a body, which does not say so.
    pub async fn send_unannounced(&self, method: Method, path: &str, shown: &Shown) -> Answer {
        self.send_as_it_is(HERE, method, path, shown, &[], Bytes::new()).await
    }

    async fn send_as_it_is(
        &self,
        from: [u8; 4],
        method: Method,
        path: &str,
        shown: &Shown,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Answer {
        let mut request =
            Request::builder().method(method).uri(path).header("host", "nora.internal");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(header) = shown.header() {
            request = request.header(AUTHORIZATION, header);
        }
        let mut request = request.body(Body::from(body)).unwrap();
        let peer = SocketAddr::new(IpAddr::from(from), 40_000);
        request.extensions_mut().insert(ConnectionInfo { peer, tls: true });
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 1 << 22).await.unwrap();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    /// Pushes an image of one layer and returns the digests of its manifest and its layer; the first answer that is no
    /// success ends it.
    pub async fn push(
        &self,
        shown: &Shown,
        repository: &str,
        tag: &str,
        layer: &[u8],
    ) -> Result<(String, String), Answer> {
        let mut digests = Vec::new();
        for bytes in [b"{}".as_slice(), layer] {
            let digest = digest(Algorithm::Sha256, bytes).to_string();
            let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
            let pushed = self.send(Method::POST, &path, shown, &[], bytes.to_vec()).await;
            if pushed.status != StatusCode::CREATED {
                return Err(pushed);
            }
            digests.push((digest, bytes.len()));
        }
        let manifest = manifest(&digests[0], &digests[1]);
        let path = format!("/v2/{repository}/manifests/{tag}");
        let kind = [("content-type", "application/vnd.oci.image.manifest.v1+json")];
        let put = self.send(Method::PUT, &path, shown, &kind, manifest).await;
        if put.status != StatusCode::CREATED {
            return Err(put);
        }
        Ok((put.header("docker-content-digest").to_owned(), digests[1].0.clone()))
    }

    /// A session, as Docker's clients get it.
    pub async fn session(&self, shown: &Shown, scopes: &[&str]) -> Answer {
        let scopes: String =
            scopes.iter().map(|scope| format!("&scope={}", scope.replace(':', "%3A"))).collect();
        self.ask(Method::GET, &format!("/v2/token?service=nora{scopes}"), shown).await
    }

    /// Such a session, to show.
    pub async fn session_token(&self, shown: &Shown, scopes: &[&str]) -> Shown {
        let answer = self.session(shown, scopes).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        Shown::Bearer(answer.json()["token"].as_str().unwrap().to_owned())
    }
}

fn manifest(config: &(String, usize), layer: &(String, usize)) -> String {
    serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config.0,
            "size": config.1,
        },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": layer.0,
            "size": layer.1,
        }],
    })
    .to_string()
}
