//! What can be asked of the replicated state, and how it answers.
//!
//! Commands are imperatives and carry everything a decision needs; [`Command::at`] is the proposer's clock. A
//! [`Refusal`] is an ordinary answer that every replica computes alike: nothing was changed.

use crate::digest::Digest;
use crate::name::{MediaType, RepositoryKey, TagName};
use crate::record::{Body, Epoch, Generation, NodeId, Timestamp, UploadId};

/// A change asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The proposer's time.
    pub at: Timestamp,
    /// What to do.
    pub action: Action,
}

/// What a command does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A node has started: give it an epoch and retire its earlier ones.
    StartNode {
        /// Who.
        node: NodeId,
    },
    /// An upload session outlives its first request, or goes on: keep it known until `expires_at`.
    OpenUpload {
        /// The session.
        upload: UploadId,
        /// Where its blob will be linked.
        repository: RepositoryKey,
        /// The node that holds its bytes.
        node: NodeId,
        /// When it may be dropped.
        expires_at: Timestamp,
    },
    /// An upload session ends without a blob.
    CloseUpload {
        /// The session.
        upload: UploadId,
    },
    /// A blob's bytes are durable under `digest/generation`: make them the live copy if there is none, and make the
    /// blob visible in a repository.
    CommitBlob {
        /// Where it becomes visible.
        repository: RepositoryKey,
        /// Its name.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// The copy that was written.
        generation: Generation,
        /// The node that wrote it: refused if its epoch is not the generation's.
        node: NodeId,
        /// Root of its chunk table.
        chunk_root: [u8; 32],
        /// The session that it ends; also names the pin.
        upload: UploadId,
        /// How long it is kept with no artifact referencing it.
        pinned_until: Timestamp,
    },
    /// Make a blob that is visible in one repository visible in another.
    MountBlob {
        /// Where it is visible. The proposer has checked that the caller may read it there.
        from: RepositoryKey,
        /// Where it becomes visible.
        to: RepositoryKey,
        /// The blob.
        digest: Digest,
        /// Names the pin.
        pin: UploadId,
        /// How long it is kept with no artifact referencing it.
        pinned_until: Timestamp,
    },
    /// A client was told that a blob is there and will rely on it.
    PinBlob {
        /// Where the client saw it.
        repository: RepositoryKey,
        /// The blob.
        digest: Digest,
        /// Names the pin.
        pin: UploadId,
        /// How long it is kept with no artifact referencing it.
        pinned_until: Timestamp,
    },
    /// Take a blob out of a repository; refused while an artifact there references it.
    UnlinkBlob {
        /// The repository.
        repository: RepositoryKey,
        /// The blob.
        digest: Digest,
    },
    /// Store an artifact and move tags to it, in one step.
    PutArtifact {
        /// The repository.
        repository: RepositoryKey,
        /// The digest of its bytes, computed by the proposer.
        digest: Digest,
        /// Its media type, as sent.
        media_type: MediaType,
        /// Its size in bytes.
        size: u64,
        /// Its bytes.
        body: Body,
        /// The artifact it speaks about.
        subject: Option<Digest>,
        /// What kind of thing it is.
        artifact_type: Option<MediaType>,
        /// Blobs it needs; sorted, each once. Every one must be live and linked, or the command is refused.
        blobs: Vec<Digest>,
        /// Artifacts it lists; sorted, each once. Every one must be there, or the command is refused.
        children: Vec<Digest>,
        /// Tags that shall name it.
        tags: Vec<TagName>,
    },
    /// Remove an artifact and every tag that names it.
    DeleteArtifact {
        /// The repository.
        repository: RepositoryKey,
        /// The artifact.
        digest: Digest,
    },
    /// Remove a tag; the artifact stays.
    DeleteTag {
        /// The repository.
        repository: RepositoryKey,
        /// The tag.
        tag: TagName,
    },
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The node runs under this epoch.
    NodeStarted(Epoch),
    /// The session is known, or known for longer.
    UploadOpened,
    /// The session is gone, or was not known.
    UploadClosed,
    /// The blob is visible; `live` is the copy to read. If it is not the one just written, the writer deletes its own.
    BlobCommitted {
        /// The copy to read.
        live: Generation,
    },
    /// The blob is visible in the target.
    BlobMounted,
    /// The blob stays until the pin expires.
    BlobPinned,
    /// The blob is no longer visible there.
    BlobUnlinked,
    /// The artifact is stored and its tags name it.
    ArtifactStored {
        /// False if it was there before.
        created: bool,
    },
    /// The artifact is gone, and so are these tags.
    ArtifactDeleted {
        /// Tags that named it; sorted.
        tags: Vec<TagName>,
    },
    /// The tag is gone; it named this artifact.
    TagDeleted {
        /// What it named.
        digest: Digest,
    },
}

/// Why nothing was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The node that asks has been started anew since: what it wrote belongs to a retired epoch.
    RetiredEpoch,
    /// An upload session of that name is known already, for another repository or on another node.
    UploadConflict,
    /// The blob is not visible in the repository asked about.
    BlobUnknown(Digest),
    /// The artifact is not in the repository.
    ArtifactUnknown(Digest),
    /// The tag is not in the repository.
    TagUnknown(TagName),
    /// What an artifact needs is not there: blobs not live or not linked, and children not present. Each sorted.
    ReferencesMissing {
        /// Blobs.
        blobs: Vec<Digest>,
        /// Artifacts.
        children: Vec<Digest>,
    },
    /// The blob is referenced by this artifact of the same repository.
    BlobReferenced {
        /// The blob.
        digest: Digest,
        /// One of the artifacts that need it.
        by: Digest,
    },
    /// What is stored under the digest has another size than the command says: one of the two is corrupt.
    SizeConflict {
        /// The blob, or the artifact.
        digest: Digest,
        /// Size of what is stored, in bytes.
        live: u64,
    },
}
