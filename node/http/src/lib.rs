//! The HTTP surface: who may ask, what is asked, and how the answer is written down.
//!
//! Every request passes the [`pipeline`]: it gets an id, its caller is recognised, the gate and the limits decide. Then its
//! address answers: a page of NORA's own, of [`PAGES`], or the [`surface`] of a format, of [`SURFACES`], which parses with
//! `nora-formats`, calls a use case of `nora-app` and renders its answer.
//!
//! Guarantees: a route without a decision about who may call it does not exist: the router is made from the two tables;
//! every error body names what happened and carries the request id.
//!
//! Must not know: which adapters stand behind the ports (`nora-cluster`, `nora-blobs`).

pub mod body;
pub mod downloads;
mod login;
pub mod metrics;
mod oci;
mod openapi;
mod ops;
mod pipeline;
mod problem;
mod surface;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, get, post};
use nora_app::Registry;
use nora_app::ports::BoxFuture;
use nora_app::ports::health::Probe;
use nora_config::Network;
use nora_identity::Guard;
use tokio::sync::{RwLock, watch};
use tokio::time::timeout;
use tower::ServiceExt;

use metrics::{Metrics, Route};
use surface::{Login, Mounted};

pub use pipeline::forward::{Forward, ForwardError};
pub use pipeline::{RequestId, make_inert, new_id as new_request_id};
pub use surface::Address;

/// What the server knows of the connection that a request came on.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionInfo {
    /// The other end.
    pub peer: SocketAddr,
    /// Whether this process encrypts what it sends.
    pub tls: bool,
}

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
    /// How fast a request's body must come.
    pub body_pace: body::Pace,
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
    /// Held for reading by each request that another node passes on. A node that stops takes it for writing: then
    /// none runs, and none begins.
    pub forwarded: Arc<RwLock<()>>,
    /// Memory for bodies that are read whole.
    pub bodies: body::Budget,
    /// Memory for lists whose rows carry what clients pushed.
    pub lists: body::Budget,
    /// Memory for large manifests that are parsed for such lists.
    pub parsing: body::Budget,
    /// Places for downloads, each of which holds a file open.
    pub downloads: downloads::Downloads,
    /// What is kept to.
    pub settings: ApiSettings,
}

impl Api {
    /// An address of this registry as clients are to be told it: with `server.public_url` if that is set, else relative.
    fn location(&self, path: &str) -> String {
        match &self.settings.public_url {
            Some(url) => format!("{}{path}", url.trim_end_matches('/')),
            None => path.to_owned(),
        }
    }
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

/// Every format's surface. To add a format is to add a line here.
const SURFACES: &[Mounted] = &[Mounted::of::<oci::Oci>()];

/// What other members may send here: requests that their own gates have let through. The caller mounts it where only
/// members reach it.
pub fn forwarded_router(api: &Arc<Api>) -> Router {
    forwarded_router_of(SURFACES, api)
}

fn forwarded_router_of(surfaces: &[Mounted], api: &Arc<Api>) -> Router {
    mounted(surfaces, api, |surface| surface.serve_forwarded)
}

/// Answers a request under a surface's address.
type Serve = fn(Arc<Api>, Request) -> BoxFuture<'static, Response>;

/// A router of the formats' addresses.
fn mounted(surfaces: &[Mounted], api: &Arc<Api>, serve: fn(&Mounted) -> Serve) -> Router {
    surfaces.iter().fold(Router::new(), |router, surface| {
        let serve = serve(surface);
        surface.patterns.iter().fold(router, |router, pattern| {
            let api = api.clone();
            router.route(pattern, any(move |request: Request| serve(api.clone(), request)))
        })
    })
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
    problem::Problem::unavailable("this node has not entered its cluster yet").into_response()
}

/// What a page takes before its handler runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing, and nobody is recognised: load balancers and orchestrators have no credentials.
    Probe,
    /// Nothing: it tells nothing that is anybody's.
    Public,
    /// A credential that is recognised, or a node that is open.
    Recognised,
    /// The administration of the registry.
    Administrator,
    /// Whatever is shown is what the page is about; the handler judges it.
    Credential,
}

/// A page of NORA's own: where, what it takes, and who answers.
struct Page {
    path: &'static str,
    access: Access,
    login: Login,
    route: Route,
    handler: fn() -> MethodRouter<Arc<Api>>,
}

impl Page {
    const fn new(
        path: &'static str,
        access: Access,
        route: &'static str,
        handler: fn() -> MethodRouter<Arc<Api>>,
    ) -> Self {
        Self { path, access, login: Login::Basic, route: Route::own(route), handler }
    }

    /// A page whose clients log in by Docker's token flow.
    const fn of_sessions(self) -> Self {
        Self { login: Login::Sessions, ..self }
    }
}

/// Every page there is.
const PAGES: &[Page] = &[
    Page::new("/v2/token", Access::Credential, "Identity", || {
        get(login::session).post(login::session_by_form)
    })
    .of_sessions(),
    Page::new("/auth/oidc/token", Access::Credential, "Identity", || post(login::exchange)),
    Page::new("/auth/oidc/revoke", Access::Credential, "Identity", || post(login::revoke)),
    Page::new("/api/v1/whoami", Access::Recognised, "Identity", || get(login::whoami)),
    Page::new("/api/v1/usage", Access::Administrator, "Identity", || get(login::usage)),
    Page::new("/api/openapi.json", Access::Public, "Other", || get(openapi::document)),
    Page::new("/health", Access::Probe, "Health", || get(ops::health)),
    Page::new("/ready", Access::Probe, "Health", || get(ops::ready)),
    Page::new("/metrics", Access::Administrator, "Metrics", || get(ops::metrics)),
];

/// Any other path.
static NO_PAGE: Page = Page::new("", Access::Public, "Other", || any(ops::not_found));

/// Every kind of request, as it is counted.
pub fn routes() -> Vec<Route> {
    let pages = PAGES.iter().map(|page| page.route);
    let addresses = SURFACES.iter().flat_map(|surface| {
        let format = surface.format.name();
        surface.addresses.iter().map(move |address| Route { format, name: address.route })
    });
    pages.chain(addresses).collect()
}

/// The whole HTTP surface.
pub fn router(api: &Arc<Api>) -> Router {
    router_of(SURFACES, api)
}

fn router_of(surfaces: &[Mounted], api: &Arc<Api>) -> Router {
    let handler = |page: &'static Page| {
        let passed = from_fn_with_state((api.clone(), page), pipeline::serve_page);
        (page.handler)().layer::<_, Infallible>(passed)
    };
    PAGES
        .iter()
        .fold(Router::new(), |router, page| router.route(page.path, handler(page)))
        .fallback_service(handler(&NO_PAGE).with_state(api.clone()))
        .with_state(api.clone())
        .merge(mounted(surfaces, api, |surface| surface.serve))
}
