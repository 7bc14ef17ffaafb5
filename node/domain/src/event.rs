//! What has happened, told in the past tense: the one stream that metrics, audit, webhooks and replication read.

use crate::digest::Digest;
use crate::name::{MediaType, RepositoryKey, TagName};
use crate::record::{FeatureLevel, NodeId};

/// Something that an applied command changed. Its number is the command's log position and its place in the list.
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
    /// A tag names another artifact, or is new.
    TagMoved {
        /// Where.
        repository: RepositoryKey,
        /// The tag.
        tag: TagName,
        /// What it named before.
        from: Option<Digest>,
        /// What it names now.
        to: Digest,
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
    /// The policy, an account, a token or a signing key is another now.
    IdentityChanged,
    /// More commands may be used.
    FeatureLevelRaised {
        /// The level now.
        level: FeatureLevel,
    },
    /// A tag is gone.
    TagDeleted {
        /// Where.
        repository: RepositoryKey,
        /// The tag.
        tag: TagName,
        /// What it named.
        digest: Digest,
    },
}
