//! What went wrong, in no format's words: a status that makes any client do the right thing, a kind, a sentence that says
//! what to do next, and to what it happened. The one place where use cases' errors meet statuses.
//!
//! Must not know: how a format's clients want to read it. A surface renders it for them.

use http::header::{CONNECTION, HeaderName, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use nora_app::Error;
use serde_json::{Map, Value};
use tracing::{error, warn};

use crate::RequestId;

/// What a problem is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The blob is not in the repository.
    BlobUnknown,
    /// The upload cannot go on.
    UploadInvalid,
    /// There is no such upload session.
    UploadUnknown,
    /// A digest is malformed, or the bytes have another.
    DigestInvalid,
    /// A document references something that is not there.
    ReferenceMissing,
    /// The document is none of its kind.
    DocumentInvalid,
    /// The artifact, or the tag, is not in the repository.
    ArtifactUnknown,
    /// A repository's name is malformed.
    NameInvalid,
    /// The repository is not known to the caller.
    RepositoryUnknown,
    /// A length is wrong or too large.
    SizeInvalid,
    /// The caller has to log in.
    LoginNeeded,
    /// The caller may not do that, or it cannot be done to this.
    Denied,
    /// There is no such address or method.
    Unsupported,
    /// The caller has to wait.
    TooManyRequests,
    /// A tag is malformed.
    TagInvalid,
    /// A page was asked for that cannot be.
    PageInvalid,
    /// It cannot be done now.
    Unavailable,
    /// The registry's own failure.
    Unknown,
}

/// A problem on its way to a client.
#[derive(Debug)]
pub(crate) struct Problem(Box<Parts>);

/// What a problem is made of, for those who render it.
#[derive(Debug)]
pub(crate) struct Parts {
    /// The answer's status.
    pub(crate) status: StatusCode,
    /// What it is about.
    pub(crate) kind: Kind,
    /// What happened, and what to do next.
    pub(crate) message: String,
    /// To what it happened, and in which request.
    pub(crate) detail: Map<String, Value>,
    /// Headers of the answer.
    pub(crate) headers: HeaderMap,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, kind: Kind, message: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            status,
            kind,
            message: message.into(),
            detail: Map::new(),
            headers: HeaderMap::new(),
        }))
    }

    pub(crate) fn into_parts(self) -> Parts {
        *self.0
    }

    pub(crate) fn with_detail(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.detail.insert(key.to_owned(), value.into());
        self
    }

    pub(crate) fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.0.headers.insert(name, value);
        }
        self
    }

    /// Something is not there for a moment, and nothing was done.
    pub(crate) fn unavailable(what: &str) -> Self {
        let message = format!("{what}; nothing was changed, try again");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, Kind::Unavailable, message)
            .with_header(RETRY_AFTER, "1")
    }

    pub(crate) fn with_request_id(self, id: &RequestId) -> Self {
        self.with_detail("request_id", &*id.0)
    }

    #[cfg(test)]
    pub(crate) fn status(&self) -> StatusCode {
        self.0.status
    }

    #[cfg(test)]
    pub(crate) fn kind(&self) -> Kind {
        self.0.kind
    }
}

fn digests(list: &[nora_domain::Digest]) -> Value {
    // A client mends the first few and asks again; a thousand would help nobody.
    list.iter().take(20).map(ToString::to_string).collect()
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::RepositoryUnknown => Self::new(
                StatusCode::NOT_FOUND,
                Kind::RepositoryUnknown,
                "the repository is not known: nothing was pushed to it, or you may not see it",
            ),
            Error::BlobUnknown(digest) => {
                Self::new(StatusCode::NOT_FOUND, Kind::BlobUnknown, "the blob is not in the repository; push or mount it")
                    .with_detail("digest", digest.to_string())
            }
            Error::ArtifactUnknown(digest) => {
                Self::new(StatusCode::NOT_FOUND, Kind::ArtifactUnknown, "the manifest is not in the repository")
                    .with_detail("digest", digest.to_string())
            }
            Error::TagUnknown(tag) => {
                Self::new(StatusCode::NOT_FOUND, Kind::ArtifactUnknown, "the tag is not in the repository")
                    .with_detail("tag", tag.to_string())
            }
            Error::UploadUnknown(_) => Self::new(
                StatusCode::NOT_FOUND,
                Kind::UploadUnknown,
                "no such upload session: it ended, expired or was never opened; start a new one with POST",
            ),
            Error::UploadBusy => Self::new(
                StatusCode::CONFLICT,
                Kind::UploadInvalid,
                "another request is writing to this upload session; ask for its status, then go on from there",
            ),
            Error::UploadOffset { offset, start } => Self::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                Kind::UploadInvalid,
                format!("the session holds {offset} bytes and the request starts at {start}; go on from byte {offset}"),
            )
            .with_detail("offset", offset),
            Error::DigestMismatch { expected, computed } => Self::new(
                StatusCode::BAD_REQUEST,
                Kind::DigestInvalid,
                "the bytes do not have the digest that was said; nothing was stored, push them again",
            )
            .with_detail("expected", expected.to_string())
            .with_detail("computed", computed.to_string()),
            Error::TooLarge { bytes_max } => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                Kind::SizeInvalid,
                format!("more than {bytes_max} bytes, which is the limit set for this registry"),
            )
            .with_detail("bytes_max", bytes_max)
            // What the client still sends is not read to its end, so the connection is of no more use.
            .with_header(CONNECTION, "close"),
            Error::TooManyReferences { references_max } => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                Kind::DocumentInvalid,
                format!("a manifest may reference {references_max} blobs and manifests"),
            ),
            Error::TooManyUploads { sessions_max } => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                Kind::TooManyRequests,
                format!("{sessions_max} uploads are open, which is the limit set for this node; try again soon"),
            )
            .with_header(RETRY_AFTER, "5"),
            Error::TooManyUploadsOfCaller { open } => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                Kind::TooManyRequests,
                format!(
                    "you have {open} uploads open on this node, and it keeps the other places for others; finish or cancel \
                     some of them, or try again soon"
                ),
            )
            .with_header(RETRY_AFTER, "5"),
            Error::ReferencesMissing { blobs, children } => Self::new(
                StatusCode::BAD_REQUEST,
                Kind::ReferenceMissing,
                "the manifest references what is not in the repository; push or mount that first",
            )
            .with_detail("blobs", digests(&blobs))
            .with_detail("manifests", digests(&children)),
            Error::BlobReferenced { digest, by } => Self::new(
                StatusCode::CONFLICT,
                Kind::Denied,
                "a manifest of the repository needs this blob; delete that manifest first",
            )
            .with_detail("digest", digest.to_string())
            .with_detail("referenced_by", by.to_string()),
            Error::PolicyChanged => Self::unavailable(&message),
            Error::NotPermitted => Self::new(StatusCode::FORBIDDEN, Kind::Denied, message),
            Error::TagExists(tag) => Self::new(
                StatusCode::FORBIDDEN,
                Kind::Denied,
                "the tag exists, and you may make tags here and not move them; push another tag, or ask for the permission \
                 `overwrite`",
            )
            .with_detail("tag", tag.to_string()),
            Error::TagImmutable(tag) => Self::new(
                StatusCode::FORBIDDEN,
                Kind::Denied,
                "the policy keeps this tag as it is: it cannot be moved or deleted; push another tag",
            )
            .with_detail("tag", tag.to_string()),
            Error::QuotaExceeded { quota, limit, used, asked } => {
                let unit = quota.unit();
                Self::new(
                    StatusCode::FORBIDDEN,
                    Kind::Denied,
                    format!(
                        "over the quota: {asked} {unit} more than the {} of {limit} that are left; ask for a larger \
                         quota, or delete what is not needed (layers are freed by garbage collection)",
                        limit.saturating_sub(used)
                    ),
                )
                .with_detail("quota", unit)
                .with_detail("limit", limit)
                .with_detail("used", used)
                .with_detail("asked", asked)
            }
            Error::Conflict { what } => Self::new(StatusCode::CONFLICT, Kind::Denied, what),
            Error::NotFound { what } => Self::new(StatusCode::NOT_FOUND, Kind::Denied, what),
            Error::AssertionUsed | Error::AssertionOver => Self::new(StatusCode::FORBIDDEN, Kind::Denied, message),
            Error::BodyBroken(_) => Self::new(
                StatusCode::BAD_REQUEST,
                Kind::UploadInvalid,
                "the request body broke off; what arrived is kept: ask for the session's status and go on from there",
            ),
            Error::DiskFull => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                Kind::Unavailable,
                "the registry's disk is full; free space, then try again",
            )
            .with_header(RETRY_AFTER, "60"),
            Error::Unavailable { what, source } => {
                warn!(what, cause = source.as_ref().map(tracing::field::display), "unavailable");
                Self::unavailable(what)
            }
            Error::OutcomeUnknown => Self::new(
                StatusCode::GATEWAY_TIMEOUT,
                Kind::Unknown,
                "no answer in time: the change may or may not have been made; trying again is safe",
            )
            .with_header(RETRY_AFTER, "2"),
            Error::Internal { source, .. } => {
                error!(error = %message, cause = source.as_ref().map(tracing::field::display), "request failed");
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    Kind::Unknown,
                    "the registry failed; its log has the cause under this request id",
                )
            }
        }
    }
}
