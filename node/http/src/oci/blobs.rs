//! Blobs: read, in whole or in part, and delete.

use axum::body::Body;
use axum::response::Response;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderValue,
    IF_NONE_MATCH, IF_RANGE, LOCATION, RANGE,
};
use http::{Method, StatusCode};
use nora_domain::Digest;

use super::range::{Asked, parse_range};
use super::{CONTENT_DIGEST, method_not_allowed};
use crate::body;
use crate::problem::{Kind, Problem};
use crate::surface::Call;

/// A blob never changes under its name; whether a caller may read it does, so only the caller's own cache keeps it.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("private, max-age=31536000, immutable");

pub(super) async fn handle(call: Call, digest: Digest) -> Result<Response, Problem> {
    match call.method {
        Method::HEAD => head(call, digest).await,
        Method::GET => get(call, digest).await,
        Method::DELETE => delete(call, digest).await,
        _ => Err(method_not_allowed("GET, HEAD, DELETE")),
    }
}

/// The strong entity tag of a digest.
pub(super) fn etag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

/// Whether `If-None-Match` names this entity tag.
pub(super) fn none_match(header: Option<&str>, etag: &str) -> bool {
    header.is_some_and(|header| {
        header
            .split(',')
            .map(|tag| tag.trim().trim_start_matches("W/"))
            .any(|tag| tag == "*" || tag == etag)
    })
}

fn response(status: StatusCode, digest: &Digest, etag: &str) -> Result<Response, Problem> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_DIGEST.clone(), header(&digest.to_string())?);
    headers.insert(ETAG, header(etag)?);
    headers.insert(CACHE_CONTROL, IMMUTABLE);
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    Ok(response)
}

/// A header value out of text that is known to be printable.
pub(super) fn header(text: &str) -> Result<HeaderValue, Problem> {
    HeaderValue::from_str(text).map_err(|_| {
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            Kind::Unknown,
            "a stored name cannot be written into a header",
        )
    })
}

async fn head(call: Call, digest: Digest) -> Result<Response, Problem> {
    let stat = call.registry.blobs().stat(&call.repository, digest).await?;
    // A pusher that hears "it is there" will not send it: keep it for the manifest that comes next.
    call.registry.blobs().confirm(&call.repository, digest).await?;
    let etag = etag(&digest);
    if none_match(call.header(IF_NONE_MATCH), &etag) {
        return response(StatusCode::NOT_MODIFIED, &digest, &etag);
    }
    let mut response = response(StatusCode::OK, &digest, &etag)?;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(stat.size));
    Ok(response)
}

async fn get(call: Call, digest: Digest) -> Result<Response, Problem> {
    let etag = etag(&digest);
    let stat = call.registry.blobs().stat(&call.repository, digest).await?;
    if none_match(call.header(IF_NONE_MATCH), &etag) {
        return response(StatusCode::NOT_MODIFIED, &digest, &etag);
    }
    // A range of another version than the client has would be of no use to it.
    let same = call.header(IF_RANGE).is_none_or(|known| known.trim() == etag);
    let asked = parse_range(call.header(RANGE).filter(|_| same), stat.size);
    let (status, range) = match asked {
        Asked::All => (StatusCode::OK, 0..stat.size),
        Asked::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Asked::Unsatisfiable => {
            return Err(Problem::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                Kind::SizeInvalid,
                format!("ask for one range within the blob's {} bytes", stat.size),
            )
            .with_header(CONTENT_RANGE, &format!("bytes */{}", stat.size)));
        }
    };
    if let Some(url) = call.registry.blobs().redirect(&call.repository, digest).await? {
        let mut response = response(StatusCode::TEMPORARY_REDIRECT, &digest, &etag)?;
        response.headers_mut().insert(LOCATION, header(&url)?);
        // The URL is good for a while only.
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        return Ok(response);
    }
    let place = call.place_to_download()?;
    let blob = call.registry.blobs().open(&call.repository, digest).await?;
    let mut response = response(status, &digest, &etag)?;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    let length = range.end - range.start;
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    if status == StatusCode::PARTIAL_CONTENT {
        let value = format!("bytes {}-{}/{}", range.start, range.end - 1, stat.size);
        headers.insert(CONTENT_RANGE, header(&value)?);
    }
    if length > 0 {
        let stream = blob.read(range, call.delivery);
        *response.body_mut() = body::sized(stream, length, call.api.metrics.clone(), place);
    }
    Ok(response)
}

async fn delete(call: Call, digest: Digest) -> Result<Response, Problem> {
    call.registry.blobs().unlink(call.repository, digest).await?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::ACCEPTED;
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(0));
    Ok(response)
}
