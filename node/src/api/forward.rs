//! Requests of an upload session that came to another node than the one that holds its bytes.
//!
//! Behind a load balancer each request of an upload may reach another node. The session's name tells who owns it, so
//! the request passes through to the owner as it is, its body streaming, and so does the answer. An owner that cannot
//! be reached is told as 503 with `Retry-After`: clients then begin the blob anew, on a node that is there.
//!
//! Must not know: how the owner is reached. Whoever forwards has let the request through, and passes on what it shows, so
//! that the owner judges it by itself, for as long as it runs; the owner takes forwarded requests from members alone.

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::{
    AUTHORIZATION, CONNECTION, EXPECT, HOST, HeaderName, RETRY_AFTER, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use nora_app::ports::{BoxError, BoxFuture};
use nora_domain::{Actor, NodeId, Subject};
use nora_formats::oci::errors::Code;

use super::RequestId;
use super::oci::error::ApiError;
use crate::identity::Caller;

/// Sends a request to another node's HTTP surface.
pub trait Forward: Send + Sync {
    /// The answer of `node`; an error if it could not be reached or broke off before it answered.
    fn forward(&self, node: NodeId, request: Request) -> BoxFuture<'_, Result<Response, BoxError>>;
}

/// Between members: on whose behalf a request is made, as three percent-encoded texts and whether the node that was asked
/// asks nobody for anything. From anyone else it is dropped.
pub(super) static CALLER: HeaderName = HeaderName::from_static("x-nora-caller");

/// The word for a caller who needs no login where they are.
const OPEN: &str = "open";
const JUDGED: &str = "judged";

fn caller_header(actor: &Actor, is_open: bool) -> Option<HeaderValue> {
    let encode = |text: &str| {
        percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
    };
    let Actor { subject, token, address, request } = actor;
    let word = if is_open { OPEN } else { JUDGED };
    let (subject, token) = (subject.to_string(), token.as_deref().unwrap_or_default());
    let parts = [subject.as_str(), token, address.as_str(), request.as_str()].map(encode);
    let text = [&parts.join(" "), word].join(" ");
    HeaderValue::from_str(&text).ok()
}

/// On whose behalf a member asks, and whether it has judged for both nodes. A member of an older version says nothing, and
/// has.
pub(super) fn actor_of(headers: &HeaderMap) -> (Actor, bool) {
    let text = headers.get(&CALLER).and_then(|value| value.to_str().ok()).unwrap_or("");
    let mut parts = text
        .split(' ')
        .map(|part| percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned());
    let mut next = || parts.next().unwrap_or_default();
    let subject = Subject::parse(&next()).unwrap_or_default();
    let token = Some(next()).filter(|token| !token.is_empty()).map(Into::into);
    let actor = Actor { subject, token, address: next(), request: next() };
    (actor, next() != JUDGED)
}

/// Marks a request that a member has passed on: it is not passed on again.
#[derive(Clone, Copy, Debug)]
pub struct Forwarded;

/// Headers that speak of one connection, not of the request.
const HOP_BY_HOP: [HeaderName; 7] =
    [CONNECTION, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

fn without_hop_by_hop(headers: &mut HeaderMap) {
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    headers.remove("keep-alive");
}

/// Passes a request through to the node that owns its session.
pub(super) async fn pass_through(
    peers: &dyn Forward,
    owner: NodeId,
    mut request: Request,
) -> Result<Response, ApiError> {
    without_hop_by_hop(request.headers_mut());
    if let Some(caller) = request.extensions().get::<Caller>().cloned() {
        if caller.is_open() {
            // What nobody asked for is nobody's business.
            request.headers_mut().remove(AUTHORIZATION);
        }
        if let Some(caller) = caller_header(&caller.actor(), caller.is_open()) {
            request.headers_mut().insert(CALLER.clone(), caller);
        }
    }
    if let Some(id) = request.extensions().get::<RequestId>().map(|id| id.0.clone())
        && let Ok(value) = id.parse()
    {
        request.headers_mut().insert("x-request-id", value);
    }
    match peers.forward(owner, request).await {
        Ok(mut response) => {
            without_hop_by_hop(response.headers_mut());
            Ok(response.map(Body::new))
        }
        Err(error) => {
            tracing::warn!(owner = owner.0, %error, "an upload's owner could not be reached");
            Err(ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                Code::Unavailable,
                "the node that holds this upload's bytes cannot be reached; start the upload anew, \
                 or try again once it is back",
            )
            .with_header(RETRY_AFTER, "1"))
        }
    }
}
