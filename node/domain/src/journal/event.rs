//! What changed: the one stream that metrics, caches, repair, webhooks and replication read.

use crate::cluster::FeatureLevel;
use crate::digest::Digest;
use crate::ids::NodeId;
use crate::names::{FileName, MediaType, RepositoryKey, TagName, VersionName};
use crate::tag::Target;

/// Something that an applied command changed. Its place is the number of its journal entry and its place in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A repository holds its first thing.
    RepositoryCreated {
        /// Which.
        repository: RepositoryKey,
    },
    /// A repository holds nothing any more.
    RepositoryRemoved {
        /// Which.
        repository: RepositoryKey,
    },
    /// A blob became visible in a repository.
    BlobLinked {
        /// Where.
        repository: RepositoryKey,
        /// The blob.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
    },
    /// A blob is no longer visible in a repository.
    BlobUnlinked {
        /// Where.
        repository: RepositoryKey,
        /// The blob.
        digest: Digest,
    },
    /// An artifact is there that was not before.
    ArtifactPushed {
        /// Where.
        repository: RepositoryKey,
        /// The artifact.
        digest: Digest,
        /// Its media type.
        media_type: MediaType,
        /// Its size in bytes.
        size: u64,
    },
    /// An artifact is gone.
    ArtifactDeleted {
        /// Where.
        repository: RepositoryKey,
        /// The artifact.
        digest: Digest,
    },
    /// A tag names something else, or is new.
    TagMoved {
        /// Where.
        repository: RepositoryKey,
        /// The tag.
        tag: TagName,
        /// What it named before.
        from: Option<Target>,
        /// What it names now.
        to: Target,
    },
    /// A tag is gone.
    TagDeleted {
        /// Where.
        repository: RepositoryKey,
        /// The tag.
        tag: TagName,
        /// What it named.
        target: Target,
    },
    /// A version is there, or has other facts or more files.
    VersionPublished {
        /// Where.
        repository: RepositoryKey,
        /// The version.
        version: VersionName,
        /// Whether it was not there before.
        created: bool,
    },
    /// A version was yanked or deprecated, or that was taken back.
    VersionStateChanged {
        /// Where.
        repository: RepositoryKey,
        /// The version.
        version: VersionName,
    },
    /// A version is gone.
    VersionDeleted {
        /// Where.
        repository: RepositoryKey,
        /// The version.
        version: VersionName,
    },
    /// A file of a version is there.
    FilePublished {
        /// Where.
        repository: RepositoryKey,
        /// The version.
        version: VersionName,
        /// The file.
        file: FileName,
        /// Its bytes.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
    },
    /// A file of a version is gone.
    FileDeleted {
        /// Where.
        repository: RepositoryKey,
        /// The version.
        version: VersionName,
        /// The file.
        file: FileName,
    },
    /// A blob has a live copy that it did not have, or another set of holders.
    BlobPlaced {
        /// The blob.
        digest: Digest,
    },
    /// A node started, joined, or stands otherwise.
    NodeChanged {
        /// The node.
        node: NodeId,
    },
    /// The policy, an account, a token, a refresh token or a signing key has changed.
    IdentityChanged,
    /// More commands may be used.
    FeatureLevelRaised {
        /// The level now.
        level: FeatureLevel,
    },
    /// The cluster keeps another number of copies.
    ReplicasChanged {
        /// Copies.
        replicas: u32,
    },
    /// Entries of the journal left the state for a blob.
    JournalSealed {
        /// Number of the first.
        first: u64,
        /// Number of the last.
        last: u64,
    },
    /// Sealed entries of the journal were forgotten.
    JournalDropped {
        /// Number of the first that is still kept.
        first: u64,
    },
}

impl Event {
    /// The event's name, as metrics and webhooks use it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::RepositoryCreated { .. } => "repository_created",
            Self::RepositoryRemoved { .. } => "repository_removed",
            Self::BlobLinked { .. } => "blob_linked",
            Self::BlobUnlinked { .. } => "blob_unlinked",
            Self::ArtifactPushed { .. } => "artifact_pushed",
            Self::ArtifactDeleted { .. } => "artifact_deleted",
            Self::TagMoved { .. } => "tag_moved",
            Self::TagDeleted { .. } => "tag_deleted",
            Self::VersionPublished { .. } => "version_published",
            Self::VersionStateChanged { .. } => "version_state_changed",
            Self::VersionDeleted { .. } => "version_deleted",
            Self::FilePublished { .. } => "file_published",
            Self::FileDeleted { .. } => "file_deleted",
            Self::BlobPlaced { .. } => "blob_placed",
            Self::NodeChanged { .. } => "node_changed",
            Self::IdentityChanged => "identity_changed",
            Self::FeatureLevelRaised { .. } => "feature_level_raised",
            Self::ReplicasChanged { .. } => "replicas_changed",
            Self::JournalSealed { .. } => "journal_sealed",
            Self::JournalDropped { .. } => "journal_dropped",
        }
    }
}
