//! Upload sessions: open, append, ask, finish, cancel; and mounting, which is an upload that needs no bytes.

use axum::body::{Body, HttpBody};
use axum::response::Response;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderValue, LOCATION, RANGE};
use http::{HeaderName, Method, StatusCode};
use nora_app::Error;
use nora_app::ports::uploads::UploadState;
use nora_auth::permission::Action;
use nora_domain::{Algorithm, Digest, Format, RepositoryKey, UploadId};
use nora_formats::oci::name::{ReferenceError, parse_repository};

use super::blobs::header;
use super::range::parse_content_range;
use super::route::bad_reference;
use super::{CONTENT_DIGEST, method_not_allowed};
use crate::problem::{Kind, Problem};
use crate::surface::Call;
use crate::to_the_end;

static UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// `POST blobs/uploads/`
pub(super) async fn handle_collection(call: Call) -> Result<Response, Problem> {
    if call.method != Method::POST {
        return Err(method_not_allowed("POST"));
    }
    if let Some(digest) = call.param("mount").map(parse_digest).transpose()? {
        return mount(call, digest).await;
    }
    if let Some(digest) = call.param("digest").map(parse_digest).transpose()? {
        return push_at_once(call, digest).await;
    }
    open(call).await
}

/// `PATCH`, `PUT`, `GET`, `DELETE` of `blobs/uploads/<id>`
pub(super) async fn handle_session(call: Call, id: UploadId) -> Result<Response, Problem> {
    let location = call.session_location(id);
    let answer = match call.method {
        Method::PATCH => append(call, id).await,
        Method::PUT => finish(call, id).await,
        Method::GET | Method::HEAD => status(call, id).await,
        Method::DELETE => cancel(call, id).await,
        _ => Err(method_not_allowed("GET, HEAD, PATCH, PUT, DELETE").into()),
    };
    answer.map_err(|failure| match failure {
        // Whoever lost count is told where the session is.
        Failure::Case(Error::UploadOffset { offset, start }) => {
            Problem::from(Error::UploadOffset { offset, start })
                .with_header(LOCATION, &location)
                .with_header(RANGE, &received(offset))
        }
        Failure::Case(error) => error.into(),
        Failure::Request(error) => error,
    })
}

/// What a session's request can end in: a use case's error, or one of the request itself.
enum Failure {
    Case(Error),
    Request(Problem),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Case(error)
    }
}

impl From<Problem> for Failure {
    fn from(error: Problem) -> Self {
        Self::Request(error)
    }
}

fn parse_digest(text: &str) -> Result<Digest, Problem> {
    Digest::parse(text).map_err(|error| bad_reference(&ReferenceError::Digest(error), text))
}

/// The inclusive range of bytes received. A session with none says `0-0`, as Docker's registry always did: the
/// notation has no empty range.
fn received(offset: u64) -> String {
    format!("0-{}", offset.saturating_sub(1))
}

fn session_response(
    call_location: &str,
    status: StatusCode,
    state: &UploadState,
) -> Result<Response, Problem> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(LOCATION, header(call_location)?);
    headers.insert(RANGE, header(&received(state.offset))?);
    headers.insert(UPLOAD_UUID.clone(), header(&format!("{:032x}", state.id.0))?);
    if status != StatusCode::NO_CONTENT {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
    }
    Ok(response)
}

fn created(location: &str, digest: &Digest) -> Result<Response, Problem> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::CREATED;
    let headers = response.headers_mut();
    headers.insert(LOCATION, header(location)?);
    headers.insert(CONTENT_DIGEST.clone(), header(&digest.to_string())?);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
    Ok(response)
}

/// The algorithm to hash with while bytes come in: what the client announces, else what all clients use.
fn announced_algorithm(call: &Call) -> Result<Algorithm, Problem> {
    match call.param("digest-algorithm") {
        None => Ok(Algorithm::Sha256),
        Some(name) => Algorithm::from_name(name).ok_or_else(|| {
            Problem::new(
                StatusCode::BAD_REQUEST,
                Kind::DigestInvalid,
                "this digest algorithm is not supported; use sha256 or sha512",
            )
            .with_detail("digest-algorithm", name.chars().take(40).collect::<String>())
        }),
    }
}

async fn open(call: Call) -> Result<Response, Problem> {
    let algorithm = announced_algorithm(&call)?;
    let state = call.registry.uploads().start(call.repository.clone(), algorithm).await?;
    let location = call.session_location(state.id);
    session_response(&location, StatusCode::ACCEPTED, &state)
}

/// Mounts from the repository the client names, or from any that it may read if it names none. If that is not possible for whatever reason, the client uploads, and
/// learns nothing about the other repository.
async fn mount(call: Call, digest: Digest) -> Result<Response, Problem> {
    let registry = &call.registry;
    let to = call.repository.clone();
    let from = match call.param("from") {
        Some(from) => {
            let from = parse_repository(from).map_err(|error| bad_reference(&error, from))?;
            let from = registry.repository(Format::Oci, from);
            // Whoever may not read there is told nothing of it, and uploads.
            Some(from).filter(|from| call.caller.may_in(Action::Pull, from))
        }
        None => {
            // A link that stayed with another tenant, when its repository's name went over, is nobody's to read.
            let may_read = |key: &RepositoryKey| {
                key.format == Format::Oci
                    && registry.repository(key.format, key.path.clone()) == *key
                    && call.caller.may_in(Action::Pull, key)
            };
            registry.blobs().find_source(digest, &to, may_read).await?
        }
    };
    let Some(from) = from else { return open(call).await };
    if call.registry.blobs().mount(from, to, digest).await? {
        return created(&call.location(&format!("blobs/{digest}")), &digest);
    }
    open(call).await
}

/// `POST ?digest=` with the whole blob as its body.
async fn push_at_once(mut call: Call, digest: Digest) -> Result<Response, Problem> {
    let body = call.take_body(call.api.settings.upload_bytes_max).await?;
    let location = call.location(&format!("blobs/{digest}"));
    let (registry, repository) = (call.registry.clone(), call.repository.clone());
    to_the_end(async move { registry.uploads().push(repository, digest, body).await }).await??;
    created(&location, &digest)
}

/// Where a request's bytes are to go, as its `Content-Range` says.
fn start_of(call: &Call) -> Result<Option<u64>, Problem> {
    let Some(text) = call.header(CONTENT_RANGE) else { return Ok(None) };
    let (start, length) = parse_content_range(text).ok_or_else(|| {
        Problem::new(
            StatusCode::BAD_REQUEST,
            Kind::UploadInvalid,
            "Content-Range must be <first byte>-<last byte>",
        )
    })?;
    let sent = call.header(CONTENT_LENGTH).and_then(|text| text.parse::<u64>().ok());
    if sent.is_some_and(|sent| sent != length) {
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            Kind::SizeInvalid,
            "Content-Range and Content-Length disagree about how many bytes there are",
        ));
    }
    Ok(Some(start))
}

async fn append(mut call: Call, id: UploadId) -> Result<Response, Failure> {
    let start = start_of(&call)?;
    let body = call.take_body(call.api.settings.upload_bytes_max).await?;
    let (registry, repository) = (call.registry.clone(), call.repository.clone());
    // To the end: what was set aside for bytes that do not come is given back there.
    let state =
        to_the_end(async move { registry.uploads().append(&repository, id, start, body).await })
            .await??;
    let location = call.session_location(id);
    Ok(session_response(&location, StatusCode::ACCEPTED, &state)?)
}

async fn finish(mut call: Call, id: UploadId) -> Result<Response, Failure> {
    let Some(text) = call.param("digest") else {
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            Kind::DigestInvalid,
            "finish an upload with ?digest=<digest of the whole blob>",
        )
        .into());
    };
    let digest = parse_digest(text)?;
    let start = start_of(&call)?;
    // Not every client that sends nothing says so with a header.
    let empty = call.body.is_end_stream();
    let rest =
        if empty { None } else { Some(call.take_body(call.api.settings.upload_bytes_max).await?) };
    let location = call.location(&format!("blobs/{digest}"));
    let (registry, repository) = (call.registry.clone(), call.repository.clone());
    to_the_end(async move { registry.uploads().finish(repository, id, start, rest, digest).await })
        .await??;
    Ok(created(&location, &digest)?)
}

async fn status(call: Call, id: UploadId) -> Result<Response, Failure> {
    let state = call.registry.uploads().state(&call.repository, id).await?;
    let location = call.session_location(id);
    Ok(session_response(&location, StatusCode::NO_CONTENT, &state)?)
}

async fn cancel(call: Call, id: UploadId) -> Result<Response, Failure> {
    call.registry.uploads().cancel(&call.repository, id).await?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::received;

    #[test]
    fn received_bytes_are_told_inclusively() {
        assert_eq!(received(0), "0-0");
        assert_eq!(received(1), "0-0");
        assert_eq!(received(1024), "0-1023");
    }
}
