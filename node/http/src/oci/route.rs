//! What a path below `/v2` asks for. Paths are read from the right, since repository names hold slashes and may hold
//! words like `blobs`.

use http::{Method, StatusCode};
use nora_auth::permission::Action;
use nora_domain::{Digest, Reference, RepositoryPath, UploadId};
use nora_formats::oci::name::{ReferenceError, parse_reference, parse_repository};
use nora_identity::Spends;

use crate::problem::{Kind, Problem};
use crate::surface::About;

/// What is asked for below `/v2`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Whether this is a registry: `/v2/`.
    Ping,
    /// `_catalog`
    Catalog,
    /// Something of this repository.
    In(RepositoryPath, Target),
}

/// What is asked for of a repository.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// `<name>/manifests/<reference>`
    Manifest(Reference),
    /// `<name>/blobs/<digest>`
    Blob(Digest),
    /// `<name>/blobs/uploads/`
    Uploads,
    /// `<name>/blobs/uploads/<id>`
    Upload(UploadId),
    /// `<name>/tags/list`
    Tags,
    /// `<name>/referrers/<digest>`
    Referrers(Digest),
}

impl Target {
    /// What the pipeline has to know of a request for this.
    pub(super) fn about(self, path: RepositoryPath, method: &Method) -> About<Self> {
        let session = match &self {
            Self::Upload(id) => Some(*id),
            _ => None,
        };
        let spends = match (&self, method) {
            (Self::Manifest(_), &Method::GET) => Spends::Pull,
            (Self::Manifest(_), &Method::PUT) => Spends::Push,
            // Sessions have limits of their own.
            (Self::Uploads | Self::Upload(_), _) => Spends::Nothing,
            (_, &Method::GET | &Method::HEAD) => Spends::Read,
            _ => Spends::Nothing,
        };
        About { path, action: self.needs(method), spends, session, what: self }
    }

    /// What a request needs to be allowed to do in its repository.
    fn needs(&self, method: &Method) -> Action {
        let reads = matches!(*method, Method::GET | Method::HEAD);
        match self {
            Self::Uploads | Self::Upload(_) => Action::Push,
            _ if reads => Action::Pull,
            _ if *method == Method::DELETE => Action::Delete,
            Self::Manifest(_) => Action::Push,
            // Methods that they do not take; a caller who may not even read is told as much.
            Self::Blob(_) | Self::Tags | Self::Referrers(_) => Action::Pull,
        }
    }
}

fn not_found() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        Kind::Unsupported,
        "no such address in the registry API; see the OCI distribution specification",
    )
}

/// The error of a malformed name, tag or digest.
pub(super) fn bad_reference(error: &ReferenceError, text: &str) -> Problem {
    let (code, field) = match error {
        ReferenceError::Repository => (Kind::NameInvalid, "name"),
        ReferenceError::Tag => (Kind::TagInvalid, "tag"),
        ReferenceError::Digest(_) => (Kind::DigestInvalid, "digest"),
    };
    // A client's nonsense is echoed in part only.
    let shown: String = text.chars().take(300).collect();
    Problem::new(StatusCode::BAD_REQUEST, code, error.to_string()).with_detail(field, shown)
}

fn digest(text: &str) -> Result<Digest, Problem> {
    Digest::parse(text).map_err(|error| bad_reference(&ReferenceError::Digest(error), text))
}

/// Session ids are 32 lower-case hexadecimal digits; anything else names no session.
fn upload_id(text: &str) -> Result<UploadId, Problem> {
    let plain =
        text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    match u128::from_str_radix(text, 16) {
        Ok(id) if plain => Ok(UploadId(id)),
        _ => Err(Problem::new(
            StatusCode::NOT_FOUND,
            Kind::UploadUnknown,
            "no such upload session; start a new one with POST",
        )),
    }
}

/// Reads a request's path: what its requests are counted as, and what it asks for.
pub(super) fn parse(path: &str) -> (&'static str, Result<Place, Problem>) {
    let rest = path.strip_prefix("/v2").unwrap_or(path);
    let rest = rest.strip_prefix('/').unwrap_or(rest);
    let decoded;
    let rest = if rest.contains('%') {
        match percent_encoding::percent_decode_str(rest).decode_utf8() {
            Ok(text) => decoded = text,
            Err(_) => return ("Other", Err(bad_reference(&ReferenceError::Repository, rest))),
        }
        decoded.as_ref()
    } else {
        rest
    };
    match rest {
        "" => return ("Ping", Ok(Place::Ping)),
        "_catalog" => return ("Catalog", Ok(Place::Catalog)),
        _ => {}
    }
    let Some((before, last)) = rest.rsplit_once('/') else { return ("Other", Err(not_found())) };
    let (name, kind) = before.rsplit_once('/').unwrap_or(("", before));
    let of_uploads = if kind == "uploads" { name.strip_suffix("/blobs") } else { None };
    let bad = |text| move |error| bad_reference(&error, text);
    let (route, name, target) = match (kind, last, of_uploads) {
        (_, "", Some(name)) => ("Upload", name, Ok(Target::Uploads)),
        (_, id, Some(name)) => ("Upload", name, upload_id(id).map(Target::Upload)),
        ("blobs", "uploads", _) => ("Upload", name, Ok(Target::Uploads)),
        ("tags", "list", _) => ("Tags", name, Ok(Target::Tags)),
        ("manifests", reference, _) => {
            let reference = parse_reference(reference).map_err(bad(reference));
            ("Manifest", name, reference.map(Target::Manifest))
        }
        ("blobs", text, _) => ("Blob", name, digest(text).map(Target::Blob)),
        ("referrers", text, _) => ("Referrers", name, digest(text).map(Target::Referrers)),
        _ => return ("Other", Err(not_found())),
    };
    let place = target.and_then(|target| {
        let path = parse_repository(name).map_err(bad(name))?;
        Ok(Place::In(path, target))
    });
    (route, place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn target_of(path: &str) -> (&'static str, String, Target) {
        match parse(path) {
            (route, Ok(Place::In(name, target))) => (route, name.to_string(), target),
            other => panic!("{path}: {other:?}"),
        }
    }

    fn name_of(path: &str) -> String {
        target_of(path).1
    }

    #[test]
    fn paths_are_told_apart() {
        let digest = format!("sha256:{}", "0".repeat(64));
        assert!(matches!(parse("/v2/_catalog"), ("Catalog", Ok(Place::Catalog))));
        for ping in ["/v2", "/v2/"] {
            assert!(matches!(parse(ping), ("Ping", Ok(Place::Ping))), "{ping}");
        }
        assert_eq!(name_of("/v2/a/b/c/manifests/latest"), "a/b/c");
        assert_eq!(name_of(&format!("/v2/blobs/uploads/blobs/{digest}")), "blobs/uploads");
        assert_eq!(name_of("/v2/a/blobs/uploads/"), "a");
        assert_eq!(name_of("/v2/a/blobs/uploads"), "a");
        assert_eq!(name_of("/v2/manifests/tags/list"), "manifests");
        let escaped = format!("/v2/a/blobs/sha256%3A{}", "0".repeat(64));
        assert!(matches!(target_of(&escaped), ("Blob", _, Target::Blob(_))));
        let id = "0123456789abcdef0123456789abcdef";
        let upload = target_of(&format!("/v2/a/blobs/uploads/{id}"));
        let id = UploadId(0x0123456789abcdef0123456789abcdef);
        assert_eq!(upload, ("Upload", "a".to_owned(), Target::Upload(id)));
    }

    #[test]
    fn nonsense_is_refused_with_the_right_code() {
        let check = |path: &str, status: u16, kind: Kind| {
            let problem = parse(path).1.unwrap_err();
            assert_eq!((problem.status().as_u16(), problem.kind()), (status, kind), "{path}");
        };
        check("/v2/A/manifests/v1", 400, Kind::NameInvalid);
        check("/v2/a/../b/manifests/v1", 400, Kind::NameInvalid);
        check("/v2/a%2f..%2f..%2fb/manifests/v1", 400, Kind::NameInvalid);
        check("/v2//manifests/v1", 400, Kind::NameInvalid);
        check("/v2/%ff/manifests/v1", 400, Kind::NameInvalid);
        check("/v2/a/manifests/.v1", 400, Kind::TagInvalid);
        check("/v2/a/manifests/sha256:bad", 400, Kind::DigestInvalid);
        check("/v2/a/blobs/sha256:bad", 400, Kind::DigestInvalid);
        check("/v2/a/blobs/uploads/..", 404, Kind::UploadUnknown);
        check("/v2/a/blobs/uploads/+123456789abcdef0123456789abcdef", 404, Kind::UploadUnknown);
        check("/v2/a/else/x", 404, Kind::Unsupported);
        check("/v2/x", 404, Kind::Unsupported);
    }

    proptest! {
        #[test]
        fn no_path_panics(path in "/v2/[ -~]{0,200}") {
            let _ = parse(&path);
        }
    }
}
