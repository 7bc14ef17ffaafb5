//! OCI distribution 1.1 and the Docker registry protocol, under `/v2/`.
//!
//! Repository names hold slashes, so one route takes every path below `/v2/` and [`route`] tells what is asked.

mod blobs;
pub(crate) mod error;
mod lists;
mod manifests;
mod range;
mod route;
mod uploads;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{
    ALLOW, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{HeaderName, Method, StatusCode, Version};
use nora_app::Registry;
use nora_app::ports::Incoming;
use nora_app::ports::blobs::Delivery;
use nora_auth::permission::Action;
use nora_domain::{About, Deed, Rate, Reason, RepositoryKey, UploadId, Verb};
use nora_formats::oci::errors::Code;

use self::error::ApiError;
use self::route::{Target, parse};
use super::access::{Challenge, Denied, permit};
use super::forward::{Forwarded, pass_through};
use super::{Api, ConnectionInfo, RequestId, body};
use nora_identity::{Allowance, Caller};

static API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
/// The query parameter that makes an upload session somebody's own.
const PROOF: &str = "_session";

static CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// A request that was understood: everything a handler needs.
struct Call {
    api: Arc<Api>,
    /// The use cases, in the hands of whoever asks.
    registry: Registry,
    caller: Caller,
    method: Method,
    repository: RepositoryKey,
    query: Vec<(String, String)>,
    headers: http::HeaderMap,
    delivery: Delivery,
    body: Body,
}

impl Call {
    /// The first value of a query parameter.
    fn param(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A header as text; one that is no text counts as absent.
    fn header(&self, name: impl http::header::AsHeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The request's body as a stream. One that announces more than `bytes_max` is refused, before it is sent if the
    /// client waits to be asked for it; one that announces nothing is counted by whoever reads it.
    async fn take_body(&mut self, bytes_max: u64) -> Result<Incoming, nora_app::Error> {
        let announced = self.header(CONTENT_LENGTH).and_then(|text| text.parse::<u64>().ok());
        let waits = self.headers.contains_key(EXPECT);
        let taken = std::mem::take(&mut self.body);
        let idle = self.api.settings.body_idle_timeout;
        let stream = body::incoming(taken, idle, self.api.metrics.clone());
        if announced.is_some_and(|announced| announced > bytes_max) {
            if !waits {
                body::discard(stream).await;
            }
            return Err(nora_app::Error::TooLarge { bytes_max });
        }
        Ok(Incoming { stream, length: announced })
    }

    /// Where a session goes on. Where logins are asked for, it says whose session it is: it opens for nobody else.
    fn session_location(&self, id: UploadId) -> String {
        let mut path = format!("blobs/uploads/{:032x}", id.0);
        // Where another member has let the request through, it has looked at the proof as well.
        let shown = self.param(PROOF).filter(|shown| shown.bytes().all(|b| b.is_ascii_hexdigit()));
        let own = self.api.guard.session_proof(&self.caller, id);
        if let Some(proof) = own.or_else(|| shown.map(str::to_owned)) {
            path.push_str(&format!("?{PROOF}={proof}"));
        }
        self.location(&path)
    }

    /// A path under this repository, as clients are to be told it.
    fn location(&self, rest: &str) -> String {
        self.api.location(&format!("/v2/{}/{rest}", self.repository.path))
    }
}

impl Api {
    fn location(&self, path: &str) -> String {
        match &self.settings.public_url {
            Some(url) => format!("{}{path}", url.trim_end_matches('/')),
            None => path.to_owned(),
        }
    }
}

/// `/v2/`: whether this is a registry, and whether the caller may use it.
pub(super) async fn ping(method: Method) -> Response {
    match method {
        Method::GET | Method::HEAD => with_api_version(
            (StatusCode::OK, [(CONTENT_TYPE, "application/json")], "{}").into_response(),
        ),
        _ => with_api_version(method_not_allowed("GET, HEAD").into_response()),
    }
}

fn with_api_version(mut response: Response) -> Response {
    response.headers_mut().insert(API_VERSION.clone(), HeaderValue::from_static("registry/2.0"));
    response
}

fn method_not_allowed(allowed: &'static str) -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        Code::Unsupported,
        format!("this address takes {allowed}"),
    )
    .with_header(ALLOW, allowed)
}

/// Anything below `/v2/`.
pub(super) async fn dispatch(State(api): State<Arc<Api>>, request: Request) -> Response {
    let id = request.extensions().get::<RequestId>().cloned();
    let head = request.method() == Method::HEAD;
    let answer = handle(api, request).await;
    let mut response = match answer {
        Ok(response) => response,
        Err(error) => match id {
            Some(id) => error.with_request_id(&id).into_response(),
            None => error.into_response(),
        },
    };
    if head {
        // HEAD answers with GET's status and headers, the length among them, and no bytes.
        let (parts, _) = response.into_parts();
        response = Response::from_parts(parts, Body::empty());
    }
    with_api_version(response)
}

/// What a request needs to be allowed to do in its repository.
fn needed(target: &Target, method: &Method) -> Action {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    match target {
        Target::Uploads { .. } | Target::Upload { .. } => Action::Push,
        _ if reads => Action::Pull,
        _ if *method == Method::DELETE => Action::Delete,
        Target::Manifest { .. } => Action::Push,
        // Methods that they do not take; whoever may not even read is told as much.
        Target::Catalog | Target::Blob { .. } | Target::Tags { .. } | Target::Referrers { .. } => {
            Action::Pull
        }
    }
}

/// Whether whoever asks may go on with an upload session: with what it was opened with, or not at all.
fn owns_session(api: &Api, caller: &Caller, id: UploadId, query: &[(String, String)]) -> bool {
    if !api.guard.asks_for_proofs() {
        return true;
    }
    let Some(proof) = api.guard.session_proof(caller, id) else { return true };
    let shown = query.iter().find(|(key, _)| key == PROOF).map(|(_, value)| value.as_bytes());
    shown.is_some_and(|shown| {
        aws_lc_rs::constant_time::verify_slices_are_equal(shown, proof.as_bytes()).is_ok()
    })
}

/// Puts what is left of a limit into the answer, in the words of Docker's registry and of the IETF's draft alike.
fn tell_allowance(response: &mut Response, allowance: Allowance) {
    let Allowance { limit, remaining, reset_secs, .. } = allowance;
    let headers = response.headers_mut();
    let texts = [
        ("ratelimit-limit", format!("{limit};w=3600")),
        ("ratelimit-remaining", format!("{remaining};w=3600")),
        ("ratelimit-reset", reset_secs.to_string()),
    ];
    for (name, text) in texts {
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(name, value);
        }
    }
}

/// A refusal, once what the client sends is out of the way: an answer that is given while it still sends is lost with the
/// connection. Whoever waits to be asked for the body is told at once.
async fn told_after(api: &Api, error: ApiError, request: Request) -> ApiError {
    if !request.headers().contains_key(EXPECT) {
        let idle = api.settings.body_idle_timeout;
        let stream = body::incoming(request.into_body(), idle, api.metrics.clone());
        body::discard(stream).await;
    }
    error
}

fn over_limit(allowance: Allowance, rate: Rate) -> ApiError {
    let Allowance { limit, reset_secs, is_spent, .. } = allowance;
    let seconds = reset_secs.to_string();
    let rate = rate.name();
    let told = match is_spent {
        true => format!(
            "{limit} requests to {rate} an hour are this namespace's limit; it begins anew in {seconds} seconds"
        ),
        false => {
            format!("too many requests to {rate} at once for this namespace; try again in a second")
        }
    };
    ApiError::new(StatusCode::TOO_MANY_REQUESTS, Code::TooManyRequests, told)
        .with_header(RETRY_AFTER, &seconds)
        .with_header(HeaderName::from_static("ratelimit-limit"), &format!("{limit};w=3600"))
        .with_header(HeaderName::from_static("ratelimit-remaining"), "0;w=3600")
        .with_header(HeaderName::from_static("ratelimit-reset"), &seconds)
}

async fn handle(api: Arc<Api>, request: Request) -> Result<Response, ApiError> {
    let target = parse(request.uri().path())?;
    let caller = request.extensions().get::<Caller>().cloned();
    let challenge = request.extensions().get::<Challenge>().cloned();
    // Every request has both: the layer around all routes sees to that.
    let (Some(caller), Some(challenge)) = (caller, challenge) else {
        return Err(ApiError::unavailable("nobody has said who asks"));
    };
    let query: Vec<(String, String)> =
        form_urlencoded::parse(request.uri().query().unwrap_or("").as_bytes())
            .into_owned()
            .collect();
    let is_forwarded = request.extensions().get::<Forwarded>().is_some();
    if is_forwarded && !matches!(target, Target::Upload { .. }) {
        return Err(ApiError::not_found());
    }
    if let Target::Catalog = target {
        return lists::catalog(&api, &caller, &challenge, request.method(), query).await;
    }
    let path = target.repository()?;
    let repository = api.registry.repository(nora_domain::Format::Oci, path);
    let action = needed(&target, request.method());
    match permit(&caller, &challenge, action, &repository, request.method()) {
        Ok(()) => {}
        Err(Denied::Told(error)) => return Err(told_after(&api, error, request).await),
        Err(Denied::Absent) => {
            return match target {
                // Nothing refers to anything in a repository that is not there.
                Target::Referrers { .. } => lists::no_referrers(request.method(), &query),
                _ => Err(nora_app::Error::RepositoryUnknown.into()),
            };
        }
    }
    if let Target::Upload { id, .. } = &target {
        if !is_forwarded && !owns_session(&api, &caller, *id, &query) {
            if !matches!(*request.method(), Method::GET | Method::HEAD) {
                let deed = Deed::new(Verb::BlobPush, About::Repository(repository.clone()));
                caller.note_refusal(deed, Reason::AnothersUpload);
            }
            return Err(nora_app::Error::UploadUnknown(*id).into());
        }
        if let Some(owner) = api.registry.upload_owner(*id)
            && !is_forwarded
        {
            let mut answer = pass_through(api.peers.as_ref(), (owner, *id), request).await?;
            if answer.status() == StatusCode::UNAUTHORIZED {
                // The owner knows only where this node found it.
                let here = challenge.of_push(&repository);
                answer.headers_mut().insert(WWW_AUTHENTICATE, here);
            }
            return Ok(answer);
        }
    }
    let (parts, request_body) = request.into_parts();
    let tls = parts.extensions.get::<ConnectionInfo>().is_none_or(|info| info.tls);
    let http1 = matches!(parts.version, Version::HTTP_10 | Version::HTTP_11);
    // Only a plain HTTP/1 connection hands bytes to the kernel without looking at them.
    let delivery = if http1 && !tls { Delivery::Socket } else { Delivery::Process };
    let call = Call {
        repository,
        registry: api.registry.by(Arc::new(caller.clone())),
        caller,
        api,
        method: parts.method,
        query,
        headers: parts.headers,
        delivery,
        body: request_body,
    };
    match target {
        Target::Catalog => Err(ApiError::not_found()),
        Target::Manifest { reference, .. } => {
            let rate = match call.method {
                Method::GET => Some(Rate::Pull),
                Method::PUT => Some(Rate::Push),
                _ => None,
            };
            let allowed = match rate {
                Some(rate) => call.api.guard.allow(&call.repository, rate).await.map(|a| (rate, a)),
                None => None,
            };
            match allowed {
                None => manifests::handle(call, reference).await,
                Some((rate, Err(allowance))) => {
                    if rate == Rate::Push {
                        let about = About::Repository(call.repository.clone());
                        let deed = Deed::new(Verb::ArtifactPush, about);
                        call.caller.note_refusal(deed, Reason::OverHourlyLimit);
                    }
                    Err(over_limit(allowance, rate))
                }
                Some((_, Ok(allowance))) => {
                    let mut response = manifests::handle(call, reference).await?;
                    tell_allowance(&mut response, allowance);
                    Ok(response)
                }
            }
        }
        Target::Blob { digest, .. } => blobs::handle(call, digest).await,
        Target::Uploads { .. } => uploads::handle_collection(call).await,
        Target::Upload { id, .. } => uploads::handle_session(call, id).await,
        Target::Tags { .. } => lists::tags(call).await,
        Target::Referrers { digest, .. } => lists::referrers(call, digest).await,
    }
}
