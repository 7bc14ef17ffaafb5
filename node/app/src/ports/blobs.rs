//! Immutable bytes at rest.

use std::ops::Range;
use std::sync::Arc;

use nora_domain::{Digest, Generation, NodeId, Placement};

use super::{BoxError, BoxFuture, ByteStream};

/// A blob's physical copy: what a finished upload became, and what the metadata knows of a live blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobCopy {
    /// The blob's digest.
    pub digest: Digest,
    /// Which physical copy.
    pub generation: Generation,
    /// Size in bytes.
    pub size: u64,
    /// Root of its chunk table.
    pub chunk_root: [u8; 32],
    /// Where its bytes are durable.
    pub placement: Placement,
}

/// Why a blob could not be had.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// This store has no such copy.
    #[error("no copy of {digest} is stored here")]
    Absent {
        /// The blob.
        digest: Digest,
    },
    /// Nodes hold it, and none of them could be asked: asking again later is right.
    #[error("none of the nodes that hold {digest} can be reached")]
    Unreachable {
        /// The blob.
        digest: Digest,
        /// Who holds it.
        holders: Vec<NodeId>,
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

/// The store of blobs, as this node reaches it: its own disk, other nodes' disks, or a shared object store.
pub trait Blobs: Send + Sync {
    /// Opens a copy, wherever it is.
    fn open(&self, copy: BlobCopy) -> BoxFuture<'_, Result<Arc<dyn OpenBlob>, BlobError>>;

    /// A URL that gives a client the bytes of the copy without passing through this node, if the store has such and is
    /// set up to give them out.
    fn redirect(&self, copy: &BlobCopy) -> BoxFuture<'_, Result<Option<String>, BlobError>>;

    /// Deletes a copy that the log did not take, wherever it was written; it is no error if there is none.
    fn delete(&self, copy: BlobCopy) -> BoxFuture<'_, Result<(), BlobError>>;
}
