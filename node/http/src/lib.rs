//! The HTTP surface: who may ask, what is asked, and how the answer is written down.
//!
//! A request passes, from outside in: a request id and the access log, metrics, identity, then the route's handler,
//! which parses with `nora-formats`, calls a use case of `nora-app` and renders its answer.
//!
//! Guarantees: a route without a decision about who may call it does not exist: the router is made from [`ROUTES`], which
//! says for each what it takes; every error body names what happened and carries the request id.
//!
//! Must not know: which adapters stand behind the ports (`nora-cluster`, `nora-blobs`).

mod access;
mod auth;
pub mod body;
pub mod forward;
pub mod metrics;
mod middleware;
pub mod oci;
mod openapi;
mod ops;
mod origin;
mod proxy;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::middleware::{from_fn, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, get, post};
use axum::{Extension, Router};
use nora_app::Registry;
use nora_app::ports::health::Probe;
use tokio::sync::{RwLock, watch};
use tokio::time::timeout;
use tower::ServiceExt;

use metrics::Metrics;
use nora_config::Network;
use nora_identity::Guard;

use forward::{Forward, Forwarded};
pub use middleware::{ConnectionInfo, RequestId, make_inert, new_id as new_request_id};

/// What the surface keeps to.
#[derive(Clone, Debug)]
pub struct ApiSettings {
    /// Prefix of `Location` and `Link` headers; without it they are relative.
    pub public_url: Option<String>,
    /// A blob's bytes.
    pub upload_bytes_max: u64,
    /// A manifest's bytes.
    pub manifest_bytes_max: usize,
    /// Rows of one page of a list.
    pub page_size_max: usize,
    /// The longest silence inside a request body.
    pub body_idle_timeout: Duration,
    /// Proxies whose word about the client's address is taken.
    pub trusted_proxies: Vec<Network>,
    /// SHA-256 of the policy in this node's own file, if that has one.
    pub policy_file: Option<[u8; 32]>,
}

/// What handlers share.
pub struct Api {
    /// The use cases.
    pub registry: Registry,
    /// How the node is.
    pub probe: Arc<dyn Probe>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Who asks, and what they may do.
    pub guard: Arc<Guard>,
    /// The other nodes' surfaces.
    pub peers: Arc<dyn Forward>,
    /// Held for reading by each request that another node passes on. Whoever stops the node takes it for writing: then
    /// none runs, and none begins.
    pub forwarded: Arc<RwLock<()>>,
    /// Memory for bodies that are read whole.
    pub bodies: body::Budget,
    /// Memory for lists whose rows carry what clients pushed.
    pub lists: body::Budget,
    /// Memory for large manifests that are parsed for such lists.
    pub parsing: body::Budget,
    /// What is kept to.
    pub settings: ApiSettings,
}

/// What lists, and large manifests that are parsed for them, may take together, in bytes each.
pub const LISTS_BYTES_MAX: usize = 48 << 20;

/// What manifests on their way in may take together, in bytes: many of the usual size, and a few of the largest.
pub fn manifest_budget(manifest_bytes_max: usize) -> body::Budget {
    body::Budget::of((32 << 20).max(4 * manifest_bytes_max))
}

/// Runs a use case to its end even if its client hangs up: a change that was begun is neither left half done nor
/// repeated by a client that never heard of it.
async fn to_the_end<T: Send + 'static>(
    case: impl Future<Output = Result<T, nora_app::Error>> + Send + 'static,
) -> Result<Result<T, nora_app::Error>, nora_app::Error> {
    tokio::spawn(case).await.map_err(|error| nora_app::Error::Internal {
        what: "a request's task failed",
        source: Some(Box::new(error)),
    })
}

/// What other members may send here: requests that their own gates have let through. Whoever mounts it makes sure that
/// nobody else reaches it.
pub fn forwarded_router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/v2/{*path}", any(oci::dispatch))
        .layer(Extension(Forwarded))
        .layer(from_fn_with_state(api.clone(), middleware::observe_forwarded))
        .with_state(api)
}

/// How long a request may wait for the node to enter its cluster.
const ENTRY_WAIT: Duration = Duration::from_secs(10);

/// What a node answers that has not entered its cluster yet: it is alive, and not ready. Other requests wait for the whole
/// surface, `entered`: load balancers notice a restart late or not at all, and clients shall not either.
pub fn waiting_router(entered: watch::Receiver<Option<Router>>) -> Router {
    Router::new()
        .route("/health", get(ops::health))
        .route("/ready", get(async || not_entered()))
        .route("/metrics", get(async || not_entered()))
        .fallback(async move |request: Request| {
            let mut entered = entered.clone();
            let waited = timeout(ENTRY_WAIT, entered.wait_for(Option::is_some)).await;
            let surface = waited.ok().and_then(Result::ok).and_then(|surface| surface.clone());
            match surface {
                Some(surface) => surface.oneshot(request).await.into_response(),
                None => not_entered(),
            }
        })
        .layer(map_response(async |mut answer: Response| {
            make_inert(answer.headers_mut());
            answer
        }))
}

fn not_entered() -> Response {
    // Who starts a node asks it again and again: that is nothing to warn of.
    oci::error::ApiError::unavailable("this node has not entered its cluster yet").into_response()
}

/// What a route takes before its handler runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing: it tells nothing that is anybody's.
    Public,
    /// A credential that is recognised, or a node that is open.
    Recognised,
    /// The administration of the registry.
    Administrator,
    /// What [`access`] says of the repository and the method; the handler asks.
    Repository,
    /// Whatever is shown is what the route is about; the handler judges it.
    Credential,
}

/// A route: where, what it takes, and who answers.
struct RouteSpec {
    path: &'static str,
    access: Access,
    handler: fn() -> MethodRouter<Arc<Api>>,
}

const fn route(
    path: &'static str,
    access: Access,
    handler: fn() -> MethodRouter<Arc<Api>>,
) -> RouteSpec {
    RouteSpec { path, access, handler }
}

/// Every route there is.
const ROUTES: &[RouteSpec] = &[
    route("/v2", Access::Recognised, || any(oci::ping)),
    route("/v2/", Access::Recognised, || any(oci::ping)),
    route("/v2/token", Access::Credential, || get(auth::session).post(auth::session_by_form)),
    route("/v2/{*path}", Access::Repository, || any(oci::dispatch)),
    route("/auth/oidc/token", Access::Credential, || post(auth::exchange)),
    route("/auth/oidc/revoke", Access::Credential, || post(auth::revoke)),
    route("/api/v1/whoami", Access::Recognised, || get(auth::whoami)),
    route("/api/v1/usage", Access::Administrator, || get(auth::usage)),
    route("/api/openapi.json", Access::Public, || get(openapi::document)),
    route("/health", Access::Public, || get(ops::health)),
    route("/ready", Access::Public, || get(ops::ready)),
    route("/metrics", Access::Administrator, || get(ops::metrics)),
];

/// Every route's path and what it takes, for the test that asks each of them.
pub fn routes() -> impl Iterator<Item = (&'static str, Access)> {
    ROUTES.iter().map(|route| (route.path, route.access))
}

/// The whole HTTP surface.
pub fn router(api: Arc<Api>) -> Router {
    let routed = ROUTES.iter().fold(Router::new(), |router, spec| {
        // The layer that is added last runs first: what the route takes is known before it is asked.
        let handler = (spec.handler)()
            .layer::<_, Infallible>(from_fn(access::admit))
            .layer(Extension(spec.access));
        router.route(spec.path, handler)
    });
    routed
        .fallback(ops::not_found)
        .layer(from_fn_with_state(api.clone(), middleware::observe))
        .with_state(api)
}

#[cfg(test)]
mod tests {
    mod audit;
    mod isolation;
    mod openapi;
    mod permissions;
    mod proxies;
    mod quotas;
    mod sessions;

    use axum::body::Body;
    use http::StatusCode;

    use super::*;

    async fn ask(router: Router, path: &str) -> StatusCode {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let answer = router.oneshot(request).await.unwrap();
        assert!(answer.headers().contains_key("content-security-policy"), "{path}");
        answer.status()
    }

    #[tokio::test]
    async fn requests_wait_for_the_node_to_enter_its_cluster() {
        let entered = watch::Sender::new(None);
        let waiting = waiting_router(entered.subscribe());
        assert_eq!(ask(waiting.clone(), "/ready").await, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(ask(waiting.clone(), "/health").await, StatusCode::OK);
        let asked = tokio::spawn(ask(waiting.clone(), "/v2/"));
        while entered.receiver_count() < 3 {
            tokio::task::yield_now().await;
        }
        entered.send_replace(Some(Router::new().route("/v2/", get(async || "whole"))));
        assert_eq!(asked.await.unwrap(), StatusCode::OK);

        // Its stop comes first.
        let entered = watch::Sender::new(None);
        let asked = tokio::spawn(ask(waiting_router(entered.subscribe()), "/v2/"));
        while entered.receiver_count() < 2 {
            tokio::task::yield_now().await;
        }
        drop(entered);
        assert_eq!(asked.await.unwrap(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
