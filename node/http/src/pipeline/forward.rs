//! Requests of an upload session that came to another node than the one that holds its bytes.
//!
//! Behind a load balancer each request of an upload may reach another node. The session's name tells who owns it, so
//! the request passes through to the owner as it is, its body streaming, and so does the answer. If the owner cannot be
//! reached, the answer is 503 with `Retry-After`: clients then begin the blob anew, on a node that is there. If the owner is
//! no member any more, the session is gone, and the answer is 404. If the client broke its own body off, it is 400.
//!
//! Must not know: how the owner is reached. Whoever forwards has let the request through, and passes on what it shows, so
//! that the owner judges it by itself, for as long as it runs; the owner takes forwarded requests from members alone.

use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::{
    AUTHORIZATION, CONNECTION, EXPECT, HOST, HeaderName, RETRY_AFTER, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use nora_app::ports::{BoxError, BoxFuture};
use nora_domain::{Actor, NodeId, Subject, UploadId};
use nora_identity::Caller;

use super::observe::RequestId;
use crate::body;
use crate::problem::{Kind, Problem};

/// Why another node gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// It never was a member of the cluster, or was removed: it will never answer.
    #[error("it is no member of the cluster")]
    NoMember,
    /// It could not be reached, or broke off before it answered.
    #[error("{0}")]
    Unreachable(#[source] BoxError),
}

/// Sends a request to another node's HTTP surface.
pub trait Forward: Send + Sync {
    /// The answer of `node`.
    fn forward(
        &self,
        node: NodeId,
        request: Request,
    ) -> BoxFuture<'_, Result<Response, ForwardError>>;
}

/// Between members: on whose behalf a request is made, as three percent-encoded texts and whether the node that was asked
/// asks nobody for anything. From anyone else it is dropped.
pub(super) static CALLER: HeaderName = HeaderName::from_static("x-nora-caller");

/// The word for a caller who needs no login where they are.
const OPEN: &str = "open";
const JUDGED: &str = "judged";

fn caller_header(actor: &Actor, is_exempt: bool) -> Option<HeaderValue> {
    let encode = |text: &str| {
        percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
    };
    let Actor { subject, token, address, request } = actor;
    let word = if is_exempt { OPEN } else { JUDGED };
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

/// Headers that speak of one connection, not of the request.
const HOP_BY_HOP: [HeaderName; 7] =
    [CONNECTION, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

fn without_hop_by_hop(headers: &mut HeaderMap) {
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    headers.remove("keep-alive");
}

/// Passes a request through to the node that owns the session `upload`.
pub(super) async fn pass_through(
    peers: &dyn Forward,
    (owner, upload): (NodeId, UploadId),
    (caller, id): (&Caller, &RequestId),
    mut request: Request,
) -> Result<Response, Problem> {
    without_hop_by_hop(request.headers_mut());
    if caller.is_exempt() {
        // What nobody asked for is nobody's business.
        request.headers_mut().remove(AUTHORIZATION);
    }
    if let Some(caller) = caller_header(&caller.actor(), caller.is_exempt()) {
        request.headers_mut().insert(CALLER.clone(), caller);
    }
    if let Ok(value) = id.0.parse() {
        request.headers_mut().insert("x-request-id", value);
    }
    let mut broken = None;
    let request = request.map(|body| {
        let (body, is_broken) = body::watched(body);
        broken = Some(is_broken);
        body
    });
    match peers.forward(owner, request).await {
        Ok(mut response) => {
            without_hop_by_hop(response.headers_mut());
            Ok(response.map(Body::new))
        }
        // The owner was there. The body that came to this node ended in an error, and with it the request to the owner.
        Err(_) if broken.is_some_and(|broken| broken.load(Ordering::Relaxed)) => {
            Err(nora_app::Error::BodyBroken("the client broke it off".into()).into())
        }
        Err(ForwardError::NoMember) => Err(nora_app::Error::UploadUnknown(upload).into()),
        Err(error) => {
            tracing::warn!(owner = owner.0, %error, "an upload's owner could not be reached");
            Err(Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                Kind::Unavailable,
                "the node that holds this upload's bytes cannot be reached; start the upload anew, \
                 or try again once it is back",
            )
            .with_header(RETRY_AFTER, "1"))
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use bytes::Bytes;
    use futures_util::{StreamExt, stream};
    use nora_identity::testkit::MemoryNode;

    use super::*;

    /// A node that answers nothing, once it has read what comes.
    struct Silent(fn() -> ForwardError);

    impl Forward for Silent {
        fn forward(
            &self,
            _: NodeId,
            request: Request,
        ) -> BoxFuture<'_, Result<Response, ForwardError>> {
            Box::pin(async move {
                let mut body = request.into_body().into_data_stream();
                while let Some(Ok(_)) = body.next().await {}
                Err((self.0)())
            })
        }
    }

    async fn passed(owner: Silent, body: Body) -> Response {
        let request = Request::builder().method("PATCH").body(body).unwrap();
        let node = MemoryNode::without_policy(true).await;
        let id = RequestId("7".into());
        let caller = node.guard.on_behalf_of(Actor::default(), id.0.clone());
        let owned = (NodeId(2), UploadId(7));
        let passed = pass_through(&owner, owned, (&caller, &id), request).await;
        passed.unwrap_or_else(IntoResponse::into_response)
    }

    #[tokio::test]
    async fn the_status_says_who_is_at_fault() {
        let unreachable = || ForwardError::Unreachable("connection refused".into());
        let away = passed(Silent(unreachable), Body::from("bytes")).await;
        assert_eq!(away.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(away.headers().contains_key(RETRY_AFTER));

        let gone = passed(Silent(|| ForwardError::NoMember), Body::from("bytes")).await;
        assert_eq!(gone.status(), StatusCode::NOT_FOUND);

        // What hyper gives for a chunk whose size is no number.
        let parts = [Ok(Bytes::from("bytes")), Err(std::io::Error::other("invalid chunk size"))];
        let broken = passed(Silent(unreachable), Body::from_stream(stream::iter(parts))).await;
        assert_eq!(broken.status(), StatusCode::BAD_REQUEST);
    }
}
