//! What the replicated state holds: a [`Key`] for every row and a [`Record`] for its value.
//!
//! Keys order as the enum is written, then field by field; stored encodings keep that order byte by byte, so a range of
//! keys is the same range everywhere. Must not know encodings: `nora-cluster` has a versioned one for each.

use crate::digest::Digest;
use crate::name::{MediaType, RepositoryKey, TagName, TenantName};

/// Milliseconds since the Unix epoch, stamped by a proposer; the state never runs backwards on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// This time and so many milliseconds more; saturates.
    pub const fn plus_millis(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }
}

/// A node's number: given once by the cluster, never used again after a node is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

/// A start of a node: each start of any node gets a new one from the log, so bytes written by an earlier start can be
/// told from those of the running one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// One physical copy's name beside its digest. `digest/generation` is never used twice, so deleting it can be repeated
/// or delayed without ever touching bytes that came back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation {
    /// The start of the node that wrote the bytes.
    pub epoch: Epoch,
    /// Counts within the epoch.
    pub sequence: u64,
}

/// A random 128-bit name of an upload session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UploadId(pub u128);

/// Where a row of the replicated state is found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// The one row of cluster-wide counters.
    Cluster,
    /// A node that ever started.
    Node(NodeId),
    /// What a tenant uses.
    Usage(TenantName),
    /// A repository that holds anything at all.
    Repository(RepositoryKey),
    /// An artifact, by its digest.
    Artifact(RepositoryKey, Digest),
    /// A tag.
    Tag(RepositoryKey, TagName),
    /// A tag that names an artifact, found from the artifact: (repository, artifact, tag).
    TagOf(RepositoryKey, Digest, TagName),
    /// Membership of a blob in a repository: what makes it visible there. The blob comes first, so that the
    /// repositories which show it are found from it.
    Link(Digest, RepositoryKey),
    /// An artifact that names `subject` as its subject: (repository, subject, artifact).
    Referrer(RepositoryKey, Digest, Digest),
    /// A blob's live copy.
    Blob(Digest),
    /// An artifact that references a blob, found from the blob: (blob, repository, artifact).
    Edge(Digest, RepositoryKey, Digest),
    /// What keeps an unreferenced blob: (blob, upload or request that pinned it).
    Pin(Digest, UploadId),
    /// An upload session that outlives one request.
    Upload(UploadId),
}

/// The value of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// For [`Key::Cluster`].
    Cluster(ClusterRecord),
    /// For [`Key::Node`].
    Node(NodeRecord),
    /// For [`Key::Usage`].
    Usage(UsageRecord),
    /// For [`Key::Repository`].
    Repository(RepositoryRecord),
    /// For [`Key::Artifact`].
    Artifact(ArtifactRecord),
    /// For [`Key::Tag`].
    Tag(TagRecord),
    /// For [`Key::TagOf`]: the row's being there says all.
    TagOf,
    /// For [`Key::Link`].
    Link(LinkRecord),
    /// For [`Key::Referrer`].
    Referrer(ReferrerRecord),
    /// For [`Key::Blob`].
    Blob(BlobRecord),
    /// For [`Key::Edge`]: the row's being there says all.
    Edge,
    /// For [`Key::Pin`].
    Pin(PinRecord),
    /// For [`Key::Upload`].
    Upload(UploadRecord),
}

/// Cluster-wide counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterRecord {
    /// The latest time any applied command carried; a command stamped earlier counts as of this time.
    pub clock: Timestamp,
    /// The newest epoch handed out.
    pub epoch: Epoch,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeRecord {
    /// Its running (or last) start; earlier epochs of this node are retired.
    pub epoch: Epoch,
}

/// What a tenant uses; always equal to a recount of its rows. A tenant that uses nothing has no such row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageRecord {
    /// Sum over the tenant's links of their blobs' sizes, and over its artifacts with inline bodies of their sizes.
    pub bytes: u64,
    /// Artifacts.
    pub artifacts: u64,
    /// Tags.
    pub tags: u64,
    /// Links.
    pub links: u64,
}

/// A repository; the row goes when the last artifact, tag and link are gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepositoryRecord {
    /// When the first thing was stored in it.
    pub created_at: Timestamp,
    /// Log position of the last change: what caches of derived documents are keyed by.
    pub revision: u64,
    /// Artifacts in it.
    pub artifacts: u64,
    /// Tags in it.
    pub tags: u64,
    /// Links in it.
    pub links: u64,
}

/// Where an artifact's exact bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// In the record itself: at most [`Body::INLINE_BYTES_MAX`].
    Inline(Vec<u8>),
    /// A blob of the artifact's own digest, linked in the same repository and referenced by the artifact.
    Blob,
}

impl Body {
    /// Larger bodies are stored as blobs, so that log entries stay small.
    pub const INLINE_BYTES_MAX: usize = 64 << 10;
}

/// An immutable version.
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
    /// Blobs that must live as long as it does; sorted, each once. Holds its own digest if its body is a blob.
    pub blobs: Vec<Digest>,
    /// Artifacts of the same repository that it lists; sorted, each once.
    pub children: Vec<Digest>,
    /// When it was pushed first.
    pub pushed_at: Timestamp,
}

/// A mutable name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagRecord {
    /// The artifact it names; always one that is there.
    pub digest: Digest,
    /// When it last moved.
    pub moved_at: Timestamp,
}

/// Membership of a blob in a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkRecord {
    /// The blob's size in bytes, counted to the tenant.
    pub size: u64,
    /// When it was pushed or mounted there first.
    pub linked_at: Timestamp,
}

/// A row of the referrers list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferrerRecord {
    /// The referring artifact's own artifact type, repeated here so that filtering needs no second read.
    pub artifact_type: Option<MediaType>,
}

/// A blob's live copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobRecord {
    /// Which physical copy is the one to read.
    pub generation: Generation,
    /// Size in bytes.
    pub size: u64,
    /// Root of the table of chunk hashes (BLAKE3 over the concatenated chunk hashes).
    pub chunk_root: [u8; 32],
    /// Edges that point to it.
    pub references: u64,
    /// When the last edge to it went, or when it was stored, if none came yet.
    pub unreferenced_at: Timestamp,
    /// When a push or mount last relied on it.
    pub touched_at: Timestamp,
}

/// Keeps a blob that nothing references yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinRecord {
    /// From then on it keeps nothing.
    pub expires_at: Timestamp,
}

/// An upload session that outlives one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadRecord {
    /// Where its blob will be linked.
    pub repository: RepositoryKey,
    /// The node that holds its bytes.
    pub node: NodeId,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// From then on the node may drop it.
    pub expires_at: Timestamp,
}
