//! The HTTP surface: who may ask, what is asked, and how the answer is written down.
//!
//! A request passes, from outside in: a request id and the access log, metrics, identity, then the route's handler,
//! which parses with `nora-formats`, calls a use case of `nora-app` and renders its answer.
//!
//! Guarantees: a route without a decision about who may call it does not exist (everything but `/health`, `/ready` and
//! `/metrics` on an open node passes the gate); every error body names what happened and carries the request id.
//!
//! Must not know: which adapters stand behind the ports (`nora-cluster`, `nora-blobs`).

pub mod body;
pub mod forward;
mod middleware;
pub mod oci;
mod ops;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{any, get};
use axum::{Extension, response::IntoResponse};
use nora_app::Registry;
use nora_app::ports::health::Probe;

use crate::config::Network;
use crate::identity::Gate;
use crate::metrics::Metrics;

use forward::{Forward, Forwarded};
pub use middleware::{ConnectionInfo, RequestId};

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
}

/// What handlers share.
pub struct Api {
    /// The use cases.
    pub registry: Registry,
    /// How the node is.
    pub probe: Arc<dyn Probe>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Who may ask.
    pub gate: Gate,
    /// The other nodes' surfaces.
    pub peers: Arc<dyn Forward>,
    /// What is kept to.
    pub settings: ApiSettings,
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

/// What a node answers that has not entered its cluster yet: it is alive, and everything else comes later.
pub fn waiting_router() -> Router {
    Router::new().route("/health", get(ops::health)).fallback(async || {
        oci::error::ApiError::from(nora_app::Error::Unavailable {
            what: "this node has not entered its cluster yet",
            source: None,
        })
        .into_response()
    })
}

/// The whole HTTP surface.
pub fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/v2", any(oci::ping))
        .route("/v2/", any(oci::ping))
        .route("/v2/{*path}", any(oci::dispatch))
        .route("/health", get(ops::health))
        .route("/ready", get(ops::ready))
        .route("/metrics", get(ops::metrics))
        .fallback(ops::not_found)
        .layer(from_fn_with_state(api.clone(), middleware::observe))
        .with_state(api)
}
