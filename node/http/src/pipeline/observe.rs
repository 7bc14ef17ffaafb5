//! A request's id, its line in the access log, and its place in the metrics; and the headers that every answer has.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::Request;
use axum::response::Response;
use http::header::{CONTENT_SECURITY_POLICY, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderName, StatusCode};
use tracing::{debug, info, warn};

use super::recognise::address_of;
use crate::Api;
use crate::metrics::Route;

static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

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

/// One request, from its head to its answer's head.
pub(super) struct Observation {
    started: Instant,
    id: RequestId,
    line: RequestLine,
}

impl Observation {
    /// A client's request.
    pub(super) fn begin(api: &Api, request: &Request) -> Self {
        let started = Instant::now();
        Self { started, id: RequestId::of(request), line: RequestLine::of(api, request) }
    }

    /// A request that another member passed on: that member has it in its access log.
    pub(super) fn of_forwarded(request: &Request) -> Self {
        let started = Instant::now();
        Self { started, id: RequestId::of(request), line: RequestLine(None) }
    }

    pub(super) fn id(&self) -> &RequestId {
        &self.id
    }

    /// Counts and logs the answer, and completes its headers.
    pub(super) fn end(self, api: &Api, route: Route, mut response: Response) -> Response {
        if let Ok(value) = HeaderValue::from_str(&self.id.0) {
            response.headers_mut().insert(X_REQUEST_ID.clone(), value);
        }
        make_inert(response.headers_mut());
        let elapsed = self.started.elapsed();
        api.metrics.request(route, response.status(), elapsed);
        self.line.log(&self.id, response.status(), elapsed);
        response
    }

    /// Counts the answer; the member that passed the request on completes it.
    pub(super) fn end_forwarded(self, api: &Api, route: Route, response: Response) -> Response {
        api.metrics.request(route, response.status(), self.started.elapsed());
        debug!(request_id = %self.id.0, status = response.status().as_u16(), "forwarded request");
        response
    }
}

/// Keeps a browser from running what somebody pushed: it takes an answer for nothing but what its Content-Type says, and
/// lets it neither run scripts nor load or frame anything.
pub fn make_inert(headers: &mut HeaderMap) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    const POLICY: &str = "default-src 'none'; frame-ancestors 'none'; sandbox";
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
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
        let peer = address_of(api, request);
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
