//! Artifacts: immutable bytes that reference blobs and other artifacts, as OCI manifests and indexes.

mod transition;

use bytes::Bytes;

use crate::digest::Digest;
use crate::names::{MediaType, RepositoryKey, TagName};
use crate::time::Timestamp;

/// Where an artifact's exact bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// In the record itself: at most [`Body::INLINE_BYTES_MAX`]. Copies of the record share them with what they came in.
    Inline(Bytes),
    /// A blob of the artifact's own digest, linked in the same repository and referenced by the artifact.
    Blob,
}

impl Body {
    /// Larger bodies are stored as blobs, so that log entries stay small.
    pub const INLINE_BYTES_MAX: usize = 64 << 10;
}

/// An artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactRecord {
    /// The media type it was pushed with, byte for byte.
    pub media_type: MediaType,
    /// Size of its bytes.
    pub size: u64,
    /// Its bytes, exactly as they were pushed.
    pub body: Body,
    /// The artifact it speaks about, present or not.
    pub subject: Option<Digest>,
    /// What kind of thing it is, if it says so: OCI's artifactType, or its config's media type.
    pub artifact_type: Option<MediaType>,
    /// What a list of referrers shows of its annotations: canonical bytes, opaque here. Kept only if its body is a blob, so
    /// that a list reads no blob; empty otherwise. At most [`Body::INLINE_BYTES_MAX`].
    pub annotations: Bytes,
    /// Blobs that must live as long as it does; sorted, each once. Holds its own digest if its body is a blob.
    pub blobs: Vec<Digest>,
    /// Artifacts of the same repository that it lists; sorted, each once.
    pub children: Vec<Digest>,
    /// When it was pushed first.
    pub pushed_at: Timestamp,
}

impl ArtifactRecord {
    /// Bytes of the artifact that the record holds itself. Its annotations are a part of a body that is counted as a blob.
    pub fn inline_bytes(&self) -> u64 {
        match self.body {
            Body::Inline(_) => self.size,
            Body::Blob => 0,
        }
    }
}

/// A row of the referrers list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferrerRecord {
    /// The referring artifact's own artifact type, repeated here so that filtering needs no second read.
    pub artifact_type: Option<MediaType>,
}

/// Store an artifact and move tags to it, in one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutArtifact {
    /// The repository.
    pub repository: RepositoryKey,
    /// The digest of its bytes, computed by the proposer.
    pub digest: Digest,
    /// Its media type, as sent.
    pub media_type: MediaType,
    /// Its size in bytes.
    pub size: u64,
    /// Its bytes.
    pub body: Body,
    /// The artifact it speaks about.
    pub subject: Option<Digest>,
    /// What kind of thing it is.
    pub artifact_type: Option<MediaType>,
    /// What a list of referrers shows of its annotations, if its body is a blob; empty otherwise.
    pub annotations: Bytes,
    /// Blobs it needs; sorted, each once. Every one must be live, not lost, and linked, or the command is refused.
    pub blobs: Vec<Digest>,
    /// Artifacts it lists; sorted, each once. Every one must be there, or the command is refused.
    pub children: Vec<Digest>,
    /// Tags that shall name it.
    pub tags: Vec<TagName>,
}

/// What became of a pushed artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArtifactStored {
    /// False if it was there before.
    pub created: bool,
}

/// Remove an artifact and every tag that names it. With very many tags, a step removes the first
/// [`DeleteArtifact::TAGS_MAX`] and the artifact stays until a later step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteArtifact {
    /// The repository.
    pub repository: RepositoryKey,
    /// The artifact.
    pub digest: Digest,
}

impl DeleteArtifact {
    /// Tags that one step removes: what bounds the work of a command.
    pub const TAGS_MAX: usize = 500;
}

/// What a deletion removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactDeleted {
    /// Tags that are gone; sorted.
    pub tags: Vec<TagName>,
    /// Whether tags are left, and the artifact with them: propose the deletion again.
    pub more: bool,
}
