//! Encodings: domain words to stored bytes and back.
//!
//! Guarantees: every value decodes to what was encoded; keys' bytes order as the keys do; what this version does not
//! know is a [`DecodeError`], never a panic and never skipped. Golden files in `tests/golden` hold every encoding to
//! what earlier releases wrote. Must not know: where bytes are stored.

pub mod command;
mod identity;
pub mod key;
pub(crate) mod members;
pub mod raft;
pub mod record;

use nora_domain::name::NameError;
use nora_domain::record::{Body, Epoch, Generation, UploadId};
use nora_domain::{
    Algorithm, Digest, Format, MediaType, RepositoryKey, RepositoryPath, TenantName,
};
use nora_proto::name::v1 as proto;

pub(crate) use self::members::{profile_from_proto, profile_to_proto};

/// Why stored or sent bytes could not be understood.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are no message of the expected kind.
    #[error("the message is malformed")]
    Message(#[from] prost::DecodeError),
    /// A field that must be there is not, or holds what this version does not know.
    #[error("the field {0} is absent or of a kind that this version does not know")]
    Unknown(&'static str),
    /// A field has the wrong number of bytes.
    #[error("the field {0} has the wrong length")]
    Length(&'static str),
    /// A name breaks the rules for names.
    #[error("{0}")]
    Name(NameError),
    /// A key is cut short or goes on after its end.
    #[error("the key is malformed")]
    Key,
    /// A membership contradicts itself.
    #[error("the membership is malformed")]
    Membership,
}

impl From<NameError> for DecodeError {
    fn from(error: NameError) -> Self {
        Self::Name(error)
    }
}

fn algorithm_to_proto(algorithm: Algorithm) -> proto::Algorithm {
    match algorithm {
        Algorithm::Sha256 => proto::Algorithm::Sha256,
        Algorithm::Sha512 => proto::Algorithm::Sha512,
    }
}

fn digest_to_proto(digest: &Digest) -> proto::Digest {
    proto::Digest {
        algorithm: algorithm_to_proto(digest.algorithm()).into(),
        value: digest.value().to_vec(),
    }
}

fn digest_from_proto(digest: &proto::Digest) -> Result<Digest, DecodeError> {
    let algorithm = match digest.algorithm() {
        proto::Algorithm::Sha256 => Algorithm::Sha256,
        proto::Algorithm::Sha512 => Algorithm::Sha512,
        proto::Algorithm::Unspecified => return Err(DecodeError::Unknown("digest.algorithm")),
    };
    Digest::from_parts(algorithm, &digest.value).ok_or(DecodeError::Length("digest.value"))
}

fn digest_required(digest: Option<&proto::Digest>) -> Result<Digest, DecodeError> {
    digest_from_proto(digest.ok_or(DecodeError::Unknown("digest"))?)
}

fn digest_optional(digest: Option<&proto::Digest>) -> Result<Option<Digest>, DecodeError> {
    digest.map(digest_from_proto).transpose()
}

fn digests_to_proto(digests: &[Digest]) -> Vec<proto::Digest> {
    digests.iter().map(digest_to_proto).collect()
}

fn digests_from_proto(digests: &[proto::Digest]) -> Result<Vec<Digest>, DecodeError> {
    digests.iter().map(digest_from_proto).collect()
}

fn format_to_proto(format: Format) -> proto::Format {
    match format {
        Format::Oci => proto::Format::Oci,
        Format::Npm => proto::Format::Npm,
        Format::Pypi => proto::Format::Pypi,
        Format::Maven => proto::Format::Maven,
        Format::Cargo => proto::Format::Cargo,
    }
}

fn format_from_proto(format: proto::Format) -> Result<Format, DecodeError> {
    match format {
        proto::Format::Oci => Ok(Format::Oci),
        proto::Format::Npm => Ok(Format::Npm),
        proto::Format::Pypi => Ok(Format::Pypi),
        proto::Format::Maven => Ok(Format::Maven),
        proto::Format::Cargo => Ok(Format::Cargo),
        proto::Format::Unspecified => Err(DecodeError::Unknown("repository.format")),
    }
}

fn repository_to_proto(repository: &RepositoryKey) -> proto::Repository {
    proto::Repository {
        tenant: repository.tenant.as_str().to_owned(),
        format: format_to_proto(repository.format).into(),
        path: repository.path.as_str().to_owned(),
    }
}

fn repository_required(
    repository: Option<&proto::Repository>,
) -> Result<RepositoryKey, DecodeError> {
    let repository = repository.ok_or(DecodeError::Unknown("repository"))?;
    Ok(RepositoryKey {
        tenant: TenantName::parse(&repository.tenant)?,
        format: format_from_proto(repository.format())?,
        path: RepositoryPath::parse(&repository.path)?,
    })
}

fn generation_to_proto(generation: &Generation) -> proto::Generation {
    proto::Generation { epoch: generation.epoch.0, sequence: generation.sequence }
}

fn generation_required(generation: Option<&proto::Generation>) -> Result<Generation, DecodeError> {
    let generation = generation.ok_or(DecodeError::Unknown("generation"))?;
    Ok(Generation { epoch: Epoch(generation.epoch), sequence: generation.sequence })
}

fn body_to_proto(body: &Body) -> proto::Body {
    let place = match body {
        Body::Inline(bytes) => proto::body::Place::Inline(bytes.clone()),
        Body::Blob => proto::body::Place::Blob(proto::BodyBlob {}),
    };
    proto::Body { place: Some(place) }
}

fn body_required(body: Option<proto::Body>) -> Result<Body, DecodeError> {
    match body.and_then(|body| body.place) {
        Some(proto::body::Place::Inline(bytes)) => Ok(Body::Inline(bytes)),
        Some(proto::body::Place::Blob(proto::BodyBlob {})) => Ok(Body::Blob),
        None => Err(DecodeError::Unknown("body.place")),
    }
}

fn upload_to_proto(upload: UploadId) -> Vec<u8> {
    name_to_proto(upload.0)
}

fn upload_from_proto(bytes: &[u8]) -> Result<UploadId, DecodeError> {
    Ok(UploadId(name_from_proto(bytes, "upload")?))
}

fn hash_from_proto(bytes: &[u8], field: &'static str) -> Result<[u8; 32], DecodeError> {
    bytes.try_into().map_err(|_| DecodeError::Length(field))
}

/// A random name: 16 bytes, most significant first.
fn name_to_proto(name: u128) -> Vec<u8> {
    name.to_be_bytes().to_vec()
}

fn name_from_proto(bytes: &[u8], field: &'static str) -> Result<u128, DecodeError> {
    let bytes = bytes.try_into().map_err(|_| DecodeError::Length(field))?;
    Ok(u128::from_be_bytes(bytes))
}

/// A 128-bit name that may be absent: no bytes are 0.
fn name_or_zero_from_proto(bytes: &[u8], field: &'static str) -> Result<u128, DecodeError> {
    if bytes.is_empty() { Ok(0) } else { name_from_proto(bytes, field) }
}

fn name_or_zero_to_proto(name: u128) -> Vec<u8> {
    if name == 0 { Vec::new() } else { name.to_be_bytes().to_vec() }
}

fn media_type_to_proto(media_type: Option<&MediaType>) -> Option<String> {
    media_type.map(|media_type| media_type.as_str().to_owned())
}

fn media_type_optional(media_type: Option<&String>) -> Result<Option<MediaType>, DecodeError> {
    Ok(media_type.map(|text| MediaType::parse(text)).transpose()?)
}
