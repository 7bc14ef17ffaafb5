//! Blobs on the node's own disk: streaming uploads, chunk tables, mapped reads.
//!
//! [`LocalBlobs`] implements the ports `Blobs` and `Uploads` over one folder:
//!
//! ```text
//! blobs/sha256/ab/<hex>.<epoch>-<sequence>          a blob's bytes, immutable, as they came
//! blobs/sha256/ab/<hex>.<epoch>-<sequence>.chunks   its chunk table, if it has more than one chunk
//! uploads/<id>, uploads/<id>.json                   an upload session's bytes and what it is for
//! ```
//!
//! Guarantees: bytes have their final name only once they are verified and on the disk, so a crash
//! at any point leaves a session, a whole blob, or a whole blob that the metadata does not name,
//! which [`LocalBlobs::reconcile`] removes. Hashing and file access happen on blocking threads,
//! each byte is hashed once on its way in, and what is buffered is bounded for all transfers
//! together.
//!
//! Must not know: the metadata, the log, other nodes, or any protocol.

mod chunks;
mod hash;
mod layout;
mod map;
mod read;
mod reconcile;
mod session;
mod store;
mod uploads;
mod writer;

pub use chunks::{CHUNK_BYTES, ChunkTable};
pub use reconcile::{ReconcileError, Reconciled};
pub use store::{LocalBlobs, LocalBlobsConfig, OpenError};
