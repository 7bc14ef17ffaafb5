//! Blobs: the one live copy of each, the tenants that hold it, and the repositories that show it.
//!
//! Three rows speak of a blob. Below the tenants, [`BlobRecord`] says which physical copy is live and where it is. In each
//! tenant's own range, [`TenantBlobRecord`] counts what the tenant does with it, and a [`LinkRecord`] makes it visible in
//! one repository.

pub mod placement;

mod holders;
mod transition;

use crate::digest::Digest;
use crate::ids::{Generation, NodeId, UploadId};
use crate::names::{FileName, RepositoryKey, VersionName};
use crate::time::Timestamp;

/// Where a blob's live copy is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// On the disks of these nodes; sorted, each once. Empty once every copy was lost.
    Nodes(Vec<NodeId>),
    /// In the shared object store, under a key made from this name.
    Object(UploadId),
}

impl Placement {
    /// Whether no copy is left: the blob can be had again only by pushing it again.
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Nodes(holders) if holders.is_empty())
    }
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
    /// Tenants that hold it.
    pub tenants: u64,
    /// When the last tenant gave it up, or when it was stored, if no tenant has since.
    pub unheld_at: Timestamp,
    /// Where its bytes are.
    pub placement: Placement,
}

/// What a tenant does with a blob. The row goes when no repository of the tenant shows the blob any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantBlobRecord {
    /// The blob's size in bytes: what quotas count once for each tenant.
    pub size: u64,
    /// Repositories of the tenant that show it.
    pub links: u64,
    /// Artifacts, versions and files of the tenant that need it.
    pub references: u64,
    /// When the last reference went, or when the blob came to the tenant, if none came yet.
    pub unreferenced_at: Timestamp,
    /// When a push, a mount or a confirmed question last relied on it.
    pub relied_on_at: Timestamp,
}

/// Membership of a blob in a repository: what makes it visible there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkRecord {
    /// The blob's size in bytes.
    pub size: u64,
    /// When it was pushed or mounted there first.
    pub linked_at: Timestamp,
    /// Until then the link stays, whether or not anything in the repository needs the blob.
    pub pinned_until: Timestamp,
    /// When the last reference of the repository went, or when the link came.
    pub unreferenced_at: Timestamp,
}

/// What needs a blob within a repository.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Holder {
    /// An artifact that references it.
    Artifact(Digest),
    /// A version whose facts are in it.
    Version(VersionName),
    /// A file of a version, whose bytes it is.
    File(VersionName, FileName),
    /// A sealed part of the journal, by the number of its first entry.
    Segment(u64),
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Artifact(digest) => digest.fmt(f),
            Self::Version(version) => write!(f, "version {version}"),
            Self::File(version, file) => write!(f, "{file} of version {version}"),
            Self::Segment(first) => write!(f, "the journal from entry {first} on"),
        }
    }
}

/// A blob's bytes are durable under `digest/generation`: make them the live copy, unless there is one that is as good,
/// and make the blob visible in a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitBlob {
    /// Where it becomes visible.
    pub repository: RepositoryKey,
    /// Its name.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// The copy that was written.
    pub generation: Generation,
    /// The node that wrote it: refused if its epoch is not the generation's.
    pub node: NodeId,
    /// Root of its chunk table.
    pub chunk_root: [u8; 32],
    /// The upload session that it ends.
    pub upload: UploadId,
    /// How long it is kept with nothing that needs it.
    pub pin_millis: u64,
    /// Where its bytes are durable. Too few nodes are refused.
    pub placement: Placement,
}

/// What became of a pushed blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobCommitted {
    /// The copy to read. If it is not the one just written, the writer deletes its own.
    pub live: Generation,
}

/// Make a blob that is visible in one repository visible in another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountBlob {
    /// Where it is visible. The proposer has checked that the caller may read it there.
    pub from: RepositoryKey,
    /// Where it becomes visible.
    pub to: RepositoryKey,
    /// The blob.
    pub digest: Digest,
    /// How long it is kept with nothing that needs it.
    pub pin_millis: u64,
}

/// A client was told that a blob is there and will rely on it: keep it for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinBlob {
    /// Where the client saw it.
    pub repository: RepositoryKey,
    /// The blob.
    pub digest: Digest,
    /// How long it is kept with nothing that needs it.
    pub pin_millis: u64,
}

/// Take a blob out of a repository; refused while anything there needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnlinkBlob {
    /// The repository.
    pub repository: RepositoryKey,
    /// The blob.
    pub digest: Digest,
}

/// Another node has a whole, durable copy of a blob's live generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddHolder {
    /// The blob.
    pub digest: Digest,
    /// The copy.
    pub generation: Generation,
    /// The node.
    pub node: NodeId,
}

/// A node gives up its copy of a blob's live generation, or has found it gone or damaged; or the node was removed, and
/// another one says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropHolder {
    /// The blob.
    pub digest: Digest,
    /// The copy.
    pub generation: Generation,
    /// The node.
    pub node: NodeId,
    /// How many active holders must be left for it to be accepted; 0 if the copy is lost anyway.
    pub keep: u32,
}

/// The object store has answered that a blob's object is not there: the blob counts as lost, and the next push of it
/// brings a new copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoseObject {
    /// The blob.
    pub digest: Digest,
    /// The copy that was asked for.
    pub generation: Generation,
}
