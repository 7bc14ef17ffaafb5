//! Manifests: read, store, delete.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, LOCATION,
};
use http::{HeaderName, Method, StatusCode};
use nora_app::artifacts::ArtifactBody;
use nora_app::artifacts::PutArtifact;
use nora_domain::{Algorithm, Digest, Reference, TagName};
use nora_formats::oci::annotations;
use nora_formats::oci::manifest::{self, Manifest, ManifestError};
use nora_formats::oci::name::parse_tag;

use super::blobs::{etag, header, none_match};
use super::route::bad_reference;
use super::{CONTENT_DIGEST, method_not_allowed};
use crate::body;
use crate::body::Unread;
use crate::problem::{Kind, Problem};
use crate::surface::Call;
use crate::to_the_end;

static OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
static OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");

/// Manifests up to this size are hashed and parsed where the request runs: it takes less than a millisecond.
const JUDGED_INLINE_BYTES_MAX: usize = 128 << 10;
/// Tags that one request may set.
const TAGS_MAX: usize = 50;

pub(super) async fn handle(call: Call, reference: Reference) -> Result<Response, Problem> {
    match call.method {
        Method::GET | Method::HEAD => get(call, reference).await,
        Method::PUT => put(call, reference).await,
        Method::DELETE => delete(call, reference).await,
        _ => Err(method_not_allowed("GET, HEAD, PUT, DELETE")),
    }
}

/// Serves a manifest exactly as it was pushed. What the client accepts is not weighed: a registry that converts
/// manifests changes their digests.
async fn get(call: Call, reference: Reference) -> Result<Response, Problem> {
    let artifact = call.registry.artifacts().get(&call.repository, &reference).await?;
    let etag = etag(&artifact.digest);
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    // A digest names the same bytes for ever; what a tag names has to be asked again.
    headers.insert(
        CACHE_CONTROL,
        match reference {
            Reference::Digest(_) => {
                HeaderValue::from_static("private, max-age=31536000, immutable")
            }
            Reference::Tag(_) => HeaderValue::from_static("no-cache"),
        },
    );
    // The tag is the digest in quotes: one formatting serves both headers.
    headers.insert(CONTENT_DIGEST.clone(), header(&etag[1..etag.len() - 1])?);
    headers.insert(ETAG, header(&etag)?);
    if none_match(call.header(IF_NONE_MATCH), &etag) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, header(artifact.media_type.as_str())?);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(artifact.size));
    *response.body_mut() = match artifact.body {
        ArtifactBody::Bytes(bytes) => Body::from(bytes),
        ArtifactBody::Blob(blob) => body::sized(
            blob.read(0..artifact.size, call.delivery),
            artifact.size,
            call.api.metrics.clone(),
            call.place_to_download()?,
        ),
    };
    Ok(response)
}

/// A manifest's digest and what it says; it must have the digest that its reference names, if it names one.
fn judged(
    bytes: &[u8],
    algorithm: Algorithm,
    reference: &Reference,
    content_type: Option<&str>,
) -> Result<(Digest, Manifest), Problem> {
    let digest = nora_digest::digest(algorithm, bytes);
    if let Reference::Digest(expected) = reference
        && *expected != digest
    {
        let expected = *expected;
        return Err(nora_app::Error::DigestMismatch { expected, computed: digest }.into());
    }
    let manifest = manifest::parse(bytes, content_type).map_err(|error| refused(&error))?;
    Ok((digest, manifest))
}

/// The same, off the async threads for a large manifest.
async fn judge(
    bytes: &Bytes,
    algorithm: Algorithm,
    reference: Reference,
    content_type: Option<&str>,
) -> Result<(Digest, Manifest), Problem> {
    if bytes.len() <= JUDGED_INLINE_BYTES_MAX {
        return judged(bytes, algorithm, &reference, content_type);
    }
    let (bytes, content_type) = (bytes.clone(), content_type.map(str::to_owned));
    let work = move || judged(&bytes, algorithm, &reference, content_type.as_deref());
    nora_compute::run(work).await.unwrap_or_else(|_| {
        let told = "reading the manifest was interrupted";
        Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, Kind::Unknown, told))
    })
}

fn refused(error: &ManifestError) -> Problem {
    let code = match error {
        ManifestError::BadDigest { .. } => Kind::DigestInvalid,
        _ => Kind::DocumentInvalid,
    };
    Problem::new(StatusCode::BAD_REQUEST, code, error.to_string())
}

/// The tags that a push moves: the one in its path, and those in its query.
fn wanted_tags(call: &Call, reference: &Reference) -> Result<Vec<TagName>, Problem> {
    let mut tags = Vec::new();
    if let Reference::Tag(tag) = reference {
        tags.push(tag.clone());
    }
    for (key, value) in &call.query {
        if key == "tag" {
            tags.push(parse_tag(value).map_err(|error| bad_reference(&error, value))?);
        }
    }
    if tags.len() > TAGS_MAX {
        return Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            Kind::TagInvalid,
            format!("one request sets {TAGS_MAX} tags at most"),
        ));
    }
    Ok(tags)
}

async fn put(mut call: Call, reference: Reference) -> Result<Response, Problem> {
    let tags = wanted_tags(&call, &reference)?;
    let bytes_max = call.api.settings.manifest_bytes_max;
    let stream = call.take_body(bytes_max as u64).await?;
    let whole = body::read_whole(stream.stream, bytes_max, &call.api.bodies).await;
    let whole = whole.map_err(|unread| match unread {
        Unread::Broken(source) => nora_app::Error::BodyBroken(source),
        Unread::TooLong => nora_app::Error::TooLarge { bytes_max: bytes_max as u64 },
        Unread::Busy => nora_app::Error::Unavailable {
            what: "too many large manifests are being pushed at once; try again in a moment",
            source: None,
        },
    })?;
    let bytes = whole.bytes.clone();
    let algorithm = match (&reference, call.param("digest-algorithm")) {
        (Reference::Digest(digest), _) => digest.algorithm(),
        (Reference::Tag(_), Some("sha512")) => Algorithm::Sha512,
        (Reference::Tag(_), _) => Algorithm::Sha256,
    };
    let content_type = call.header(CONTENT_TYPE);
    let (digest, manifest) = judge(&bytes, algorithm, reference, content_type).await?;
    let subject = manifest.subject;
    let location = call.location(&format!("manifests/{digest}"));
    let put = into_artifact(&call, digest, bytes, manifest, tags.clone());
    let registry = call.registry.clone();
    to_the_end(async move {
        let _counted = whole;
        registry.artifacts().put(put).await
    })
    .await??;

    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::CREATED;
    let headers = response.headers_mut();
    headers.insert(LOCATION, header(&location)?);
    headers.insert(CONTENT_DIGEST.clone(), header(&digest.to_string())?);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
    if let Some(subject) = subject {
        headers.insert(OCI_SUBJECT.clone(), header(&subject.to_string())?);
    }
    for tag in &tags {
        headers.append(OCI_TAG.clone(), header(tag.as_str())?);
    }
    Ok(response)
}

fn into_artifact(
    call: &Call,
    digest: Digest,
    bytes: Bytes,
    manifest: Manifest,
    tags: Vec<TagName>,
) -> PutArtifact {
    // Only what speaks about another artifact stands in a list.
    let annotations = match manifest.subject {
        Some(_) => annotations::keep(&manifest.annotations),
        None => Vec::new(),
    };
    PutArtifact {
        repository: call.repository.clone(),
        digest,
        media_type: manifest.media_type,
        bytes,
        subject: manifest.subject,
        artifact_type: manifest.artifact_type,
        annotations: annotations.into(),
        blobs: manifest.blobs,
        children: manifest.children,
        optional_blobs: manifest.optional_blobs,
        either: manifest.either,
        tags,
    }
}

/// Deletes a tag, or a manifest with every tag that names it.
async fn delete(call: Call, reference: Reference) -> Result<Response, Problem> {
    let (registry, repository) = (call.registry, call.repository);
    to_the_end(async move {
        match reference {
            Reference::Tag(tag) => registry.tags().delete(repository, tag).await.map(drop),
            Reference::Digest(digest) => {
                registry.artifacts().delete(repository, digest).await.map(drop)
            }
        }
    })
    .await??;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::ACCEPTED;
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(0));
    Ok(response)
}
