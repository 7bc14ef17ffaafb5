//! What a path below `/v2/` asks for. Paths are read from the right, since repository names hold slashes and may hold
//! words like `blobs`.

use http::StatusCode;
use nora_domain::{Digest, Reference, RepositoryPath, UploadId};
use nora_formats::oci::errors::Code;
use nora_formats::oci::name::{ReferenceError, parse_reference, parse_repository};

use super::error::ApiError;

/// What is asked for. Names are still as they came; [`Target::repository`] judges them.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// `_catalog`
    Catalog,
    /// `<name>/manifests/<reference>`
    Manifest { name: String, reference: Reference },
    /// `<name>/blobs/<digest>`
    Blob { name: String, digest: Digest },
    /// `<name>/blobs/uploads/`
    Uploads { name: String },
    /// `<name>/blobs/uploads/<id>`
    Upload { name: String, id: UploadId },
    /// `<name>/tags/list`
    Tags { name: String },
    /// `<name>/referrers/<digest>`
    Referrers { name: String, digest: Digest },
}

impl Target {
    /// The repository that is meant.
    pub(super) fn repository(&self) -> Result<RepositoryPath, ApiError> {
        let name = match self {
            Self::Catalog => return Err(ApiError::not_found()),
            Self::Manifest { name, .. }
            | Self::Blob { name, .. }
            | Self::Uploads { name }
            | Self::Upload { name, .. }
            | Self::Tags { name }
            | Self::Referrers { name, .. } => name,
        };
        parse_repository(name).map_err(|error| bad_reference(&error, name))
    }
}

/// The error of a malformed name, tag or digest.
pub(super) fn bad_reference(error: &ReferenceError, text: &str) -> ApiError {
    let (code, field) = match error {
        ReferenceError::Repository => (Code::NameInvalid, "name"),
        ReferenceError::Tag => (Code::TagInvalid, "tag"),
        ReferenceError::Digest(_) => (Code::DigestInvalid, "digest"),
    };
    // A client's nonsense is echoed in part only.
    let shown: String = text.chars().take(300).collect();
    ApiError::new(StatusCode::BAD_REQUEST, code, error.to_string()).with_detail(field, shown)
}

fn digest(text: &str) -> Result<Digest, ApiError> {
    Digest::parse(text).map_err(|error| bad_reference(&ReferenceError::Digest(error), text))
}

/// Session ids are 32 lower-case hexadecimal digits; anything else names no session.
fn upload_id(text: &str) -> Result<UploadId, ApiError> {
    let plain =
        text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    match u128::from_str_radix(text, 16) {
        Ok(id) if plain => Ok(UploadId(id)),
        _ => Err(ApiError::new(
            StatusCode::NOT_FOUND,
            Code::BlobUploadUnknown,
            "no such upload session; start a new one with POST",
        )),
    }
}

/// Reads a request's path.
pub(super) fn parse(path: &str) -> Result<Target, ApiError> {
    let rest = path.strip_prefix("/v2/").ok_or_else(ApiError::not_found)?;
    let decoded;
    let rest = if rest.contains('%') {
        decoded = percent_encoding::percent_decode_str(rest)
            .decode_utf8()
            .map_err(|_| bad_reference(&ReferenceError::Repository, rest))?;
        decoded.as_ref()
    } else {
        rest
    };
    if rest == "_catalog" {
        return Ok(Target::Catalog);
    }
    let (before, last) = rest.rsplit_once('/').ok_or_else(ApiError::not_found)?;
    let (name, kind) = before.rsplit_once('/').unwrap_or(("", before));
    if kind == "uploads"
        && let Some(name) = name.strip_suffix("/blobs")
    {
        let name = name.to_owned();
        return match last {
            "" => Ok(Target::Uploads { name }),
            id => Ok(Target::Upload { name, id: upload_id(id)? }),
        };
    }
    let owned = || name.to_owned();
    match (kind, last) {
        ("blobs", "uploads") => Ok(Target::Uploads { name: owned() }),
        ("tags", "list") => Ok(Target::Tags { name: owned() }),
        ("manifests", reference) => Ok(Target::Manifest {
            reference: parse_reference(reference)
                .map_err(|error| bad_reference(&error, reference))?,
            name: owned(),
        }),
        ("blobs", text) => Ok(Target::Blob { digest: digest(text)?, name: owned() }),
        ("referrers", text) => Ok(Target::Referrers { digest: digest(text)?, name: owned() }),
        _ => Err(ApiError::not_found()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name_of(path: &str) -> String {
        match parse(path).unwrap() {
            Target::Catalog => "-".to_owned(),
            target => target.repository().unwrap().to_string(),
        }
    }

    #[test]
    fn paths_are_told_apart() {
        let digest = format!("sha256:{}", "0".repeat(64));
        assert_eq!(parse("/v2/_catalog").unwrap(), Target::Catalog);
        assert_eq!(name_of("/v2/a/b/c/manifests/latest"), "a/b/c");
        assert_eq!(name_of(&format!("/v2/blobs/uploads/blobs/{digest}")), "blobs/uploads");
        assert_eq!(name_of("/v2/a/blobs/uploads/"), "a");
        assert_eq!(name_of("/v2/a/blobs/uploads"), "a");
        assert_eq!(name_of("/v2/manifests/tags/list"), "manifests");
        let escaped = format!("/v2/a/blobs/sha256%3A{}", "0".repeat(64));
        assert!(matches!(parse(&escaped).unwrap(), Target::Blob { .. }));
        let id = "0123456789abcdef0123456789abcdef";
        let upload = parse(&format!("/v2/a/blobs/uploads/{id}")).unwrap();
        assert_eq!(
            upload,
            Target::Upload { name: "a".into(), id: UploadId(0x0123456789abcdef0123456789abcdef) }
        );
    }

    #[test]
    fn nonsense_is_refused_with_the_right_code() {
        let check = |path: &str, status: u16, code: Code| {
            let error = match parse(path) {
                Ok(target) => target.repository().unwrap_err(),
                Err(error) => error,
            };
            assert_eq!((error.status().as_u16(), error.code()), (status, code), "{path}");
        };
        check("/v2/A/manifests/v1", 400, Code::NameInvalid);
        check("/v2/a/../b/manifests/v1", 400, Code::NameInvalid);
        check("/v2/a%2f..%2f..%2fb/manifests/v1", 400, Code::NameInvalid);
        check("/v2//manifests/v1", 400, Code::NameInvalid);
        check("/v2/%ff/manifests/v1", 400, Code::NameInvalid);
        check("/v2/a/manifests/.v1", 400, Code::TagInvalid);
        check("/v2/a/manifests/sha256:bad", 400, Code::DigestInvalid);
        check("/v2/a/blobs/sha256:bad", 400, Code::DigestInvalid);
        check("/v2/a/blobs/uploads/..", 404, Code::BlobUploadUnknown);
        check("/v2/a/blobs/uploads/+123456789abcdef0123456789abcdef", 404, Code::BlobUploadUnknown);
        check("/v2/a/else/x", 404, Code::Unsupported);
        check("/v2/x", 404, Code::Unsupported);
    }

    proptest! {
        #[test]
        fn no_path_panics(path in "/v2/[ -~]{0,200}") {
            if let Ok(target) = parse(&path) {
                let _ = target.repository();
            }
        }
    }
}
