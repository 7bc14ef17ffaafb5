//! The error codes of the distribution specification and the document that carries them.

use serde::Serialize;
use serde_json::Value;

/// A code that clients know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The blob is not known to the repository.
    BlobUnknown,
    /// The upload cannot go on.
    BlobUploadInvalid,
    /// The upload session is not known.
    BlobUploadUnknown,
    /// The digest is malformed, or the bytes have another.
    DigestInvalid,
    /// A manifest references something that is not there.
    ManifestBlobUnknown,
    /// The manifest is no manifest.
    ManifestInvalid,
    /// The manifest is not known to the repository.
    ManifestUnknown,
    /// The repository name is malformed.
    NameInvalid,
    /// The repository is not known.
    NameUnknown,
    /// The length is wrong or too large.
    SizeInvalid,
    /// Login is needed.
    Unauthorized,
    /// The caller may not do that.
    Denied,
    /// The operation is not supported.
    Unsupported,
    /// Too many requests.
    TooManyRequests,
    /// A tag is malformed: Docker's addition.
    TagInvalid,
    /// A page was asked for that cannot be: Docker's addition.
    PaginationNumberInvalid,
    /// The server cannot do it now: Docker's addition.
    Unavailable,
    /// Anything else: Docker's addition.
    Unknown,
}

impl Code {
    /// The code as clients read it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Denied => "DENIED",
            Self::Unsupported => "UNSUPPORTED",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::TagInvalid => "TAG_INVALID",
            Self::PaginationNumberInvalid => "PAGINATION_NUMBER_INVALID",
            Self::Unavailable => "UNAVAILABLE",
            Self::Unknown => "UNKNOWN",
        }
    }
}

#[derive(Serialize)]
struct Document<'a> {
    errors: [Entry<'a>; 1],
}

#[derive(Serialize)]
struct Entry<'a> {
    code: &'static str,
    message: &'a str,
    detail: &'a Value,
}

/// Renders the document for one error: what happened and what to do next in `message`, to what in `detail`.
pub fn render(code: Code, message: &str, detail: &Value) -> Vec<u8> {
    let document = Document { errors: [Entry { code: code.as_str(), message, detail }] };
    // Strings and values always serialise; an empty document would only lose the text.
    serde_json::to_vec(&document).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn document_has_the_specified_shape() {
        let body = render(Code::BlobUnknown, "gone", &serde_json::json!({"digest": "sha256:00"}));
        assert_eq!(
            String::from_utf8(body).unwrap(),
            r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"gone","detail":{"digest":"sha256:00"}}]}"#
        );
    }
}
