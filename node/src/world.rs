//! For tests only: the whole HTTP and gRPC surface over the ports in memory, with a policy written as in `nora.toml`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use base64::Engine;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, StatusCode};
use nora_app::ports::BoxFuture;
use nora_app::ports::clock::{Clock, Ids};
use nora_app::ports::health::{Health, Probe};
use nora_app::testkit::{
    Hashes, ManualClock, MemoryBlobs, MemoryMetadata, found_cluster, start_node,
};
use nora_app::{Dependencies, Registry, Settings};
use nora_auth::credential::{ApiToken, TokenKind};
use nora_auth::document::PolicyDocument;
use nora_domain::{
    AccessTokenRecord, AccountName, Algorithm, Command, Digest, Epoch, NodeId, OwnerName, Terms,
    Timestamp, TokenId, TokenName, UploadId,
};
use tower::ServiceExt;

use crate::api::forward::{Forward, ForwardError};
use crate::api::{
    Api, ApiSettings, ConnectionInfo, LISTS_BYTES_MAX, body, manifest_budget, router,
};
use crate::config::{Network, Overrides, parse};
use crate::identity::{AdminPasswords, Guard, GuardSettings, Policies, canonical, tenant_limits};

pub const NODE: NodeId = NodeId(1);
pub const NOW: Timestamp = Timestamp(1_700_000_000_000);
pub const ADMIN_PASSWORD: &str = "correct horse battery staple";
pub const PASSWORD: &str = "a password of some length";

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

fn digest_of(bytes: &[u8], algorithm: Algorithm) -> Digest {
    crate::hash::digest(algorithm, bytes)
}

/// Upload sessions of this node, one after the other.
struct OwnIds(AtomicU64);

impl Ids for OwnIds {
    fn upload_id(&self) -> UploadId {
        UploadId::made_by(NODE, self.0.fetch_add(1, Ordering::Relaxed).into())
    }
}

/// What requests are served with, where proxies from these networks are believed.
pub fn surface(registry: Registry, guard: Arc<Guard>, trusted_proxies: Vec<Network>) -> Arc<Api> {
    Arc::new(Api {
        registry,
        probe: Arc::new(Still),
        metrics: Arc::new(crate::metrics::Metrics::new()),
        guard,
        peers: Arc::new(Still),
        forwarded: Arc::default(),
        bodies: manifest_budget(1 << 20),
        lists: body::Budget::of(LISTS_BYTES_MAX),
        parsing: body::Budget::of(LISTS_BYTES_MAX),
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
        body_idle_timeout: Duration::from_secs(1),
        trusted_proxies,
        policy_file: None,
    }
}

/// A node over memory.
pub struct World {
    pub guard: Arc<Guard>,
    pub registry: Registry,
    pub clock: Arc<ManualClock>,
    router: Router,
}

/// What a request shows.
#[derive(Clone, Debug)]
pub enum Shown {
    Nothing,
    Basic(String, String),
    Bearer(String),
}

impl Shown {
    pub fn login(user: &str) -> Self {
        Self::Basic(user.to_owned(), PASSWORD.to_owned())
    }

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
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{:?}", self.body))
    }

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

impl World {
    /// With this policy, on an address that is not this machine's alone.
    pub async fn with(policy: &str) -> Self {
        let world = Self::without_policy(false).await;
        world.apply(policy).await;
        world
    }

    /// With no policy.
    pub async fn without_policy(is_loopback: bool) -> Self {
        let clock = Arc::new(ManualClock::at(NOW));
        let policies = Arc::new(Policies::none().unwrap());
        let metadata = Arc::new(MemoryMetadata::default());
        for action in [start_node(NODE), found_cluster()] {
            let command = Command { at: NOW, origin: None, terms: Terms::NONE, action };
            metadata.propose_elsewhere(&command).unwrap();
        }
        let hashes = Hashes { digest: digest_of, chunk_root: |_| [0; 32] };
        let blobs = Arc::new(MemoryBlobs::new(hashes, clock.clone()));
        let registry = Registry::new(Dependencies {
            metadata,
            blobs: blobs.clone(),
            uploads: blobs,
            clock: clock.clone(),
            ids: Arc::new(OwnIds(AtomicU64::new(1))),
            tenancy: policies.clone(),
            segments: Arc::new(crate::wiring::JournalSegments),
            node: NODE,
            epoch: Epoch(1),
            settings: Settings {
                artifact_bytes_max: 1 << 20,
                references_max: 10,
                pin_millis: 60_000,
                upload_expiry_millis: 86_400_000,
            },
        });
        let settings = GuardSettings {
            is_loopback,
            admin: (!is_loopback).then(|| AdminPasswords::new([ADMIN_PASSWORD])),
            login_failures_max: 5,
            login_window: Duration::from_secs(300),
            shared_secret: Some(vec![7; 32]),
        };
        let ticking: Arc<dyn Clock> = clock.clone();
        let guard = Guard::new(registry.clone(), ticking, policies, settings).unwrap();
        guard.make_keys().await.unwrap();
        let api = surface(registry.clone(), guard.clone(), Vec::new());
        let router = router(api);
        Self { guard, registry, clock, router }
    }

    /// Puts a policy into force.
    pub async fn apply(&self, policy: &str) {
        let loaded = parse(policy, None, &Overrides::default());
        let document = loaded.unwrap_or_else(|error| panic!("{error}")).config.policy;
        self.apply_document(&document).await;
    }

    pub async fn apply_document(&self, document: &PolicyDocument) {
        let (bytes, hash) = canonical(document).unwrap();
        self.registry.set_policy(None, bytes, hash, tenant_limits(document)).await.unwrap();
        self.guard.reload().await.unwrap();
    }

    /// Makes users who log in with [`PASSWORD`]; all have the same hash, for hashing takes long.
    pub async fn users(&self, names: &[&str]) {
        let hash = nora_auth::password::hash(PASSWORD).unwrap();
        for name in names {
            let name = AccountName::parse(name).unwrap();
            self.registry.create_account(name, false, hash.clone(), Vec::new()).await.unwrap();
        }
        self.guard.reload().await.unwrap();
    }

    /// Makes a token of a user's, cut down to these permissions.
    pub async fn token(&self, user: &str, name: &str, scope: &[&str]) -> String {
        let (secret, token) = Self::new_token(user, name, scope);
        self.registry.create_token(token).await.unwrap();
        secret
    }

    /// Such a token, and what it is made with.
    pub fn new_token(
        user: &str,
        name: &str,
        scope: &[&str],
    ) -> (String, nora_app::commands::NewToken) {
        let mut random = [0; 32];
        getrandom::fill(&mut random).unwrap();
        let secret = ApiToken::generate(TokenKind::Personal, random);
        let owner = format!("user:{user}");
        let token = nora_app::commands::NewToken {
            id: TokenId(secret.id),
            found_by: Some((OwnerName::parse(&owner).unwrap(), TokenName::parse(name).unwrap())),
            account: Some(AccountName::parse(user).unwrap()),
            record: AccessTokenRecord {
                is_workload: false,
                owner,
                name: name.to_owned(),
                secret_hash: secret.secret_hash(),
                permissions: scope.iter().map(ToString::to_string).collect(),
                created_at: NOW,
                expires_at: NOW.plus_millis(3_600_000),
                last_used_at: Timestamp(0),
            },
            assertion: None,
            policy: None,
        };
        (secret.reveal(), token)
    }

    pub async fn ask(&self, method: Method, path: &str, shown: &Shown) -> Answer {
        self.send(method, path, shown, &[], Bytes::new()).await
    }

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
        self.send_as_it_is(method, path, shown, &headers, body).await
    }

    /// A request without a body, which does not say so.
    pub async fn send_unannounced(&self, method: Method, path: &str, shown: &Shown) -> Answer {
        self.send_as_it_is(method, path, shown, &[], Bytes::new()).await
    }

    async fn send_as_it_is(
        &self,
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
        let peer = SocketAddr::new(IpAddr::from([192, 0, 2, 9]), 40_000);
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
            let digest = digest_of(bytes, Algorithm::Sha256).to_string();
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
