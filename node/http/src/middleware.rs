//! What every request passes: a request id, recognising who asks, metrics and the access log.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{
    AUTHORIZATION, CONTENT_SECURITY_POLICY, HeaderValue, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, StatusCode};
use nora_auth::credential::{Scheme, read_all};
use nora_formats::oci::errors::Code;
use tracing::{debug, info, warn};

use super::access::{Challenge, challenged};
use super::forward::CALLER;
use super::oci::error::ApiError;
use super::proxy::client_address;
use super::{Api, origin};
use crate::metrics::Route;
use nora_identity::{Caller, Rejected};

static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What the server knows of the connection that a request came on.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionInfo {
    /// The other end.
    pub peer: SocketAddr,
    /// Whether this process encrypts what it sends.
    pub tls: bool,
}

/// The request's name in logs, errors and the `x-request-id` header.
#[derive(Clone, Debug)]
pub struct RequestId(pub Arc<str>);

impl RequestId {
    /// The client's id if it sent a sane one, else a new one.
    fn of(request: &Request) -> Self {
        let sent = request.headers().get(&X_REQUEST_ID).and_then(|value| value.to_str().ok());
        let sane = |id: &&str| {
            (1..=64).contains(&id.len())
                && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        match sent.filter(sane) {
            Some(id) => Self(id.into()),
            None => Self(new_id().into()),
        }
    }
}

/// 64 random bits in hexadecimal: unique enough to find a request in a log.
pub fn new_id() -> String {
    use std::cell::Cell;
    use std::hash::{BuildHasher, RandomState};
    thread_local! {
        // Seeded once a thread by the operating system; an id is no secret, so counting on from there is enough.
        static NEXT: Cell<u64> = Cell::new(RandomState::new().hash_one(0u8));
    }
    let id = NEXT.with(|next| {
        let id = next.get();
        next.set(
            id.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407),
        );
        id
    });
    format!("{id:016x}")
}

/// Recognises who asks, runs the request's handler, and tells metrics and the log how it went.
pub(super) async fn observe(
    State(api): State<Arc<Api>>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let id = RequestId::of(&request);
    let route = Route::of(request.method(), request.uri().path());
    let line = RequestLine::of(&api, &request);
    request.extensions_mut().insert(id.clone());
    // Only members say on whose behalf they ask, and they come in by another door.
    request.headers_mut().remove(&CALLER);

    let challenge = Challenge::of(&api, &request);
    let address = address_of(&api, &request);
    let mut response = match kept_from_pages(&api, &request, route) {
        Err(refused) => refused.with_request_id(&id).into_response(),
        Ok(()) => match recognise(&api, &request, route, address, &id).await {
            Ok(caller) => {
                request.extensions_mut().insert(challenge);
                request.extensions_mut().insert(caller);
                next.run(request).await
            }
            Err(rejected) => rejection(rejected, &challenge).with_request_id(&id).into_response(),
        },
    };
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        response.headers_mut().insert(X_REQUEST_ID.clone(), value);
    }
    make_inert(response.headers_mut());
    let elapsed = started.elapsed();
    api.metrics.request(route, response.status(), elapsed);
    line.log(&id, response.status(), elapsed);
    response
}

/// Refuses what a web page may have sent, if nobody is asked for a login. A probe of the node's health changes nothing and
/// learns nothing.
fn kept_from_pages(api: &Api, request: &Request, route: Route) -> Result<(), ApiError> {
    match route {
        Route::Health => Ok(()),
        _ if api.guard.is_open() => origin::check(&api.settings, request),
        _ => Ok(()),
    }
}

/// Keeps a browser from running what somebody pushed: it takes an answer for nothing but what its Content-Type says, and
/// lets it neither run scripts nor load or frame anything.
pub fn make_inert(headers: &mut HeaderMap) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    const POLICY: &str = "default-src 'none'; frame-ancestors 'none'; sandbox";
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
}

/// Who makes a request, by whatever it shows. What is read of it is read before anything is waited for: a body cannot be
/// shared.
fn recognise(
    api: &Api,
    request: &Request,
    route: Route,
    address: Option<IpAddr>,
    id: &RequestId,
) -> impl Future<Output = Result<Caller, Rejected>> + Send + use<> {
    // Load balancers and orchestrators have no credentials.
    let shown: Vec<_> = match route {
        Route::Health => Vec::new(),
        _ => request.headers().get_all(AUTHORIZATION).iter().map(HeaderValue::as_bytes).collect(),
    };
    let credential = read_all(shown, Scheme::Docker);
    let (guard, id) = (api.guard.clone(), id.0.clone());
    async move { guard.recognise(credential, address, id).await }
}

/// Where a request comes from, if that is known.
fn address_of(api: &Api, request: &Request) -> Option<IpAddr> {
    let peer = request.extensions().get::<ConnectionInfo>().map(|info| info.peer.ip());
    peer.map(|peer| client_address(&api.settings.trusted_proxies, peer, request.headers()))
}

/// The answer to whoever was not recognised.
pub(super) fn rejection(rejected: Rejected, challenge: &Challenge) -> ApiError {
    match rejected {
        Rejected::Wrong(why) => challenged(Some(challenge), None, &why),
        Rejected::TooMany(wait) => {
            let seconds = wait.as_secs().max(1).to_string();
            ApiError::new(
                StatusCode::TOO_MANY_REQUESTS,
                Code::TooManyRequests,
                format!("too many logins failed; wait {seconds} seconds, then try again"),
            )
            .with_header(RETRY_AFTER, &seconds)
        }
        Rejected::Failed(error) => error.into(),
    }
}

/// Like [`observe`], for requests that another member passes on. Unless that member asks nobody for anything, they are
/// judged here as well: what changes while one runs counts on the node that writes.
pub(super) async fn observe_forwarded(
    State(api): State<Arc<Api>>,
    mut request: Request,
    next: Next,
) -> Response {
    let _runs = api.forwarded.read().await;
    let started = Instant::now();
    let id = RequestId::of(&request);
    let route = Route::of(request.method(), request.uri().path());
    request.extensions_mut().insert(id.clone());
    let (actor, is_judged) = super::forward::actor_of(request.headers());
    let challenge = Challenge::of(&api, &request);
    let caller = if is_judged {
        Ok(api.guard.on_behalf_of(actor, id.0.clone()))
    } else {
        recognise(&api, &request, route, actor.address.parse().ok(), &id).await
    };
    let response = match caller {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            request.extensions_mut().insert(challenge);
            next.run(request).await
        }
        Err(rejected) => rejection(rejected, &challenge).with_request_id(&id).into_response(),
    };
    let elapsed = started.elapsed();
    api.metrics.request(route, response.status(), elapsed);
    debug!(request_id = %id.0, status = response.status().as_u16(), "forwarded request");
    response
}

/// What the access log says of a request; nothing is kept if nobody listens.
struct RequestLine(Option<(http::Method, String, Option<IpAddr>)>);

impl RequestLine {
    fn of(api: &Api, request: &Request) -> Self {
        if !tracing::enabled!(tracing::Level::WARN) {
            return Self(None);
        }
        // Successful requests are logged at debug level; only then is the line worth a copy of the path up front.
        let wanted = tracing::enabled!(tracing::Level::DEBUG)
            || !matches!(*request.method(), http::Method::GET | http::Method::HEAD);
        if !wanted {
            return Self(None);
        }
        let peer = request.extensions().get::<ConnectionInfo>().map(|info| info.peer.ip());
        let peer =
            peer.map(|peer| client_address(&api.settings.trusted_proxies, peer, request.headers()));
        Self(Some((request.method().clone(), request.uri().path().to_owned(), peer)))
    }

    fn log(self, id: &RequestId, status: StatusCode, elapsed: std::time::Duration) {
        let elapsed_ms = elapsed.as_secs_f64() * 1e3;
        let Some((method, path, peer)) = self.0 else {
            if status.is_server_error() {
                warn!(request_id = %id.0, status = status.as_u16(), elapsed_ms, "request failed");
            }
            return;
        };
        let peer = peer.map(tracing::field::display);
        let status = status.as_u16();
        if status >= 500 {
            warn!(request_id = %id.0, %method, path, status, elapsed_ms, peer, "request failed");
        } else if matches!(method, http::Method::GET | http::Method::HEAD) {
            debug!(request_id = %id.0, %method, path, status, elapsed_ms, peer, "request");
        } else {
            info!(request_id = %id.0, %method, path, status, elapsed_ms, peer, "request");
        }
    }
}
