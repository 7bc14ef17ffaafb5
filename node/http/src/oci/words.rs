//! Problems in the words of the distribution specification: its codes and its document.
//!
//! NORA's own addresses (`/api`, `/auth`, what operators ask) speak so as well, as `docs/reference` promises.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use nora_formats::oci::errors::{Code, render};
use serde_json::Value;

use crate::problem::{Kind, Parts, Problem};

impl From<Kind> for Code {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::BlobUnknown => Self::BlobUnknown,
            Kind::UploadInvalid => Self::BlobUploadInvalid,
            Kind::UploadUnknown => Self::BlobUploadUnknown,
            Kind::DigestInvalid => Self::DigestInvalid,
            Kind::ReferenceMissing => Self::ManifestBlobUnknown,
            Kind::DocumentInvalid => Self::ManifestInvalid,
            Kind::ArtifactUnknown => Self::ManifestUnknown,
            Kind::NameInvalid => Self::NameInvalid,
            Kind::RepositoryUnknown => Self::NameUnknown,
            Kind::SizeInvalid => Self::SizeInvalid,
            Kind::LoginNeeded => Self::Unauthorized,
            Kind::Denied => Self::Denied,
            Kind::Unsupported => Self::Unsupported,
            Kind::TooManyRequests => Self::TooManyRequests,
            Kind::TagInvalid => Self::TagInvalid,
            Kind::PageInvalid => Self::PaginationNumberInvalid,
            Kind::Unavailable => Self::Unavailable,
            Kind::Unknown => Self::Unknown,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Parts { status, kind, message, detail, headers } = self.into_parts();
        let body = render(kind.into(), &message, &Value::Object(detail));
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}
