//! Upload sessions: bytes on their way to becoming a blob, kept on the node that took them and across its restarts.
//!
//! Two ports: [`Sessions`] is all that happens on this node alone, [`Finish`] is how a session's bytes become a blob, which
//! may take other nodes.

use nora_domain::{Algorithm, Digest, Generation, RepositoryKey, Timestamp, UploadId};

use super::blobs::BlobCopy;
use super::{BoxError, BoxFuture, ByteStream};

/// Why an upload did not go on.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// There is no such session here (any more).
    #[error("no such upload session")]
    Unknown,
    /// Another request is writing to the session.
    #[error("another request is writing to this upload session")]
    Busy,
    /// The request's bytes do not start where the session ends.
    #[error("the session is at byte {offset}, the request starts at {start}")]
    WrongOffset {
        /// Where the session ends.
        offset: u64,
        /// Where the request wanted to write.
        start: u64,
    },
    /// The session would grow over the limit.
    #[error("an upload may have {bytes_max} bytes")]
    TooLarge {
        /// What is allowed.
        bytes_max: u64,
    },
    /// Too many sessions are open.
    #[error("{sessions_max} upload sessions are open already")]
    TooMany {
        /// What is allowed.
        sessions_max: usize,
    },
    /// One caller has as many sessions open as could still be opened.
    #[error("one caller has {open} upload sessions open already")]
    TooManyOfOne {
        /// How many the caller has.
        open: usize,
        /// How many may be open on this node.
        sessions_max: usize,
    },
    /// The bytes have another digest than the client said.
    #[error("the bytes have digest {computed}, not {expected}")]
    DigestMismatch {
        /// What the client said.
        expected: Digest,
        /// What the bytes have.
        computed: Digest,
    },
    /// The client's body broke off; what came before is kept and the session can go on.
    #[error("the request body broke off")]
    BodyBroken(#[source] BoxError),
    /// The disk is full; the session can go on once there is room.
    #[error("the disk is full")]
    DiskFull,
    /// Too few nodes could take a copy: nothing is acknowledged, and the session can be ended again later.
    #[error("{stored} of the {needed} nodes needed have stored the blob")]
    TooFewCopies {
        /// Nodes that have it.
        stored: usize,
        /// Nodes that must have it.
        needed: usize,
    },
    /// The store of blobs does not answer: nothing is acknowledged, and the request can be repeated later.
    #[error("the store of blobs does not answer")]
    Unavailable(#[source] BoxError),
    /// The store failed.
    #[error("cannot {step}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// Why it failed.
        source: BoxError,
    },
}

/// What a session is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purpose {
    /// Where its blob will be linked; a request for another repository must not see the session.
    pub repository: RepositoryKey,
    /// What its bytes are hashed with while they come in. A session that ends with a digest of another algorithm is hashed
    /// again.
    pub algorithm: Algorithm,
    /// The caller who opened it, by the name under which sessions are counted; `None` for the cluster itself.
    pub opener: Option<String>,
    /// When it was opened.
    pub opened_at: Timestamp,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadState {
    /// Its name.
    pub id: UploadId,
    /// Where its blob will be linked.
    pub repository: RepositoryKey,
    /// Who opened it, as [`Purpose::opener`] says.
    pub opener: Option<String>,
    /// Bytes it holds.
    pub offset: u64,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// When something was last written to it.
    pub written_at: Timestamp,
}

/// How a place is found for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// By the caller's share: [`check_place`].
    ByShare,
    /// Any place will do: sessions that may be ended were found to leave the caller a share.
    AnyPlace,
}

/// Whether a caller who has `own` of the `open` sessions may open one more, by its share.
///
/// A caller may have as many sessions as could still be opened. So the first caller gets half of the places, rounded up, and
/// each further one half of what is left: eleven callers can take 1,024 places.
///
/// # Errors
/// [`UploadError::TooMany`] and [`UploadError::TooManyOfOne`].
pub fn check_place(open: usize, own: usize, sessions_max: usize) -> Result<(), UploadError> {
    match sessions_max.saturating_sub(open) {
        0 => Err(UploadError::TooMany { sessions_max }),
        left if own >= left => Err(UploadError::TooManyOfOne { open: own, sessions_max }),
        _ => Ok(()),
    }
}

/// The upload sessions on this node.
pub trait Sessions: Send + Sync {
    /// Opens a session, if there is a place for it. What the cluster itself opens takes any place.
    fn open(
        &self,
        id: UploadId,
        purpose: Purpose,
        admission: Admission,
    ) -> BoxFuture<'_, Result<UploadState, UploadError>>;

    /// The session as it is.
    fn state(&self, id: UploadId) -> BoxFuture<'_, Result<UploadState, UploadError>>;

    /// Appends a body as it comes in, hashing on the way. `start` is where the client believes the session ends.
    /// Dropping the future keeps what was written.
    fn append(
        &self,
        id: UploadId,
        start: Option<u64>,
        body: ByteStream,
    ) -> BoxFuture<'_, Result<UploadState, UploadError>>;

    /// Drops the session and its bytes.
    fn cancel(&self, id: UploadId) -> BoxFuture<'_, Result<(), UploadError>>;

    /// All sessions that are open here.
    fn list(&self) -> Vec<UploadState>;

    /// Whether a request writes to a session now, however slowly.
    fn is_written(&self, id: UploadId) -> bool;

    /// Drops sessions that nobody wrote to since `before`, and tells which.
    fn expire(&self, before: Timestamp) -> BoxFuture<'_, Result<Vec<UploadId>, UploadError>>;
}

/// What makes blobs of sessions.
pub trait Finish: Send + Sync {
    /// Ends the session: verifies the digest and makes the bytes durable as `digest/generation`. A mismatch ends the
    /// session too; any other error leaves it as it was.
    fn finish(
        &self,
        id: UploadId,
        digest: Digest,
        generation: Generation,
    ) -> BoxFuture<'_, Result<BlobCopy, UploadError>>;
}
