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
use http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderValue};
use http::{HeaderName, Method, StatusCode, Version};
use nora_app::ports::ByteStream;
use nora_app::ports::blobs::Delivery;
use nora_domain::RepositoryKey;
use nora_formats::oci::errors::Code;

use self::error::ApiError;
use self::route::{Target, parse};
use super::forward::{Forwarded, pass_through};
use super::{Api, ConnectionInfo, RequestId, body};

static API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
static CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// A request that was understood: everything a handler needs.
struct Call {
    api: Arc<Api>,
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
    async fn take_body(&mut self, bytes_max: u64) -> Result<ByteStream, nora_app::Error> {
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
        Ok(stream)
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

async fn handle(api: Arc<Api>, request: Request) -> Result<Response, ApiError> {
    let target = parse(request.uri().path())?;
    if let Target::Upload { id, .. } = &target
        && let Some(owner) = api.registry.upload_owner(*id)
        && request.extensions().get::<Forwarded>().is_none()
    {
        return pass_through(api.peers.as_ref(), owner, request).await;
    }
    let (parts, request_body) = request.into_parts();
    let query =
        form_urlencoded::parse(parts.uri.query().unwrap_or("").as_bytes()).into_owned().collect();
    let tls = parts.extensions.get::<ConnectionInfo>().is_none_or(|info| info.tls);
    let http1 = matches!(parts.version, Version::HTTP_10 | Version::HTTP_11);
    // Only a plain HTTP/1 connection hands bytes to the kernel without looking at them.
    let delivery = if http1 && !tls { Delivery::Socket } else { Delivery::Process };
    if let Target::Catalog = target {
        return lists::catalog(&api, &parts.method, query).await;
    }
    let path = target.repository()?;
    let call = Call {
        repository: api.registry.repository(nora_domain::Format::Oci, path),
        api,
        method: parts.method,
        query,
        headers: parts.headers,
        delivery,
        body: request_body,
    };
    match target {
        Target::Catalog => Err(ApiError::not_found()),
        Target::Manifest { reference, .. } => manifests::handle(call, reference).await,
        Target::Blob { digest, .. } => blobs::handle(call, digest).await,
        Target::Uploads { .. } => uploads::handle_collection(call).await,
        Target::Upload { id, .. } => uploads::handle_session(call, id).await,
        Target::Tags { .. } => lists::tags(call).await,
        Target::Referrers { digest, .. } => lists::referrers(call, digest).await,
    }
}
