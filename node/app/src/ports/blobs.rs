//! Immutable bytes at rest.

use std::ops::Range;
use std::sync::Arc;

use nora_domain::Digest;
use nora_domain::record::Generation;

use super::{BoxError, BoxFuture, ByteStream};

/// Why a blob could not be had.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// This store has no such copy.
    #[error("no copy of {digest} is stored here")]
    Absent {
        /// The blob.
        digest: Digest,
    },
    /// The store failed.
    #[error("cannot {step} {digest}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// The blob.
        digest: Digest,
        /// Why it failed.
        source: BoxError,
    },
}

/// Who touches the bytes of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Only the kernel, which writes them to a plain socket: they may be slices of a mapped file.
    Socket,
    /// This process (TLS, HTTP/2, hashing): they must be in memory of its own.
    Process,
}

/// A blob that was opened: reads go on even if the blob is deleted meanwhile.
pub trait OpenBlob: Send + Sync {
    /// Size in bytes.
    fn size(&self) -> u64;

    /// Streams a range; the caller keeps it within the size. A range that cannot be read whole ends in an error.
    fn read(self: Arc<Self>, range: Range<u64>, delivery: Delivery) -> ByteStream;
}

/// The store of blobs on this node.
pub trait Blobs: Send + Sync {
    /// Opens the copy `digest/generation`, whose size the metadata knows.
    fn open(
        &self,
        digest: Digest,
        generation: Generation,
        size: u64,
    ) -> BoxFuture<'_, Result<Arc<dyn OpenBlob>, BlobError>>;

    /// Deletes the copy `digest/generation`; it is no error if there is none.
    fn delete(
        &self,
        digest: Digest,
        generation: Generation,
    ) -> BoxFuture<'_, Result<(), BlobError>>;
}
