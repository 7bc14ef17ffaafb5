//! Blobs on the nodes' own disks: streaming uploads, chunk tables, mapped reads, copies on several nodes.
//!
//! [`LocalBlobs`] implements the ports `Blobs` and `Finish` over one folder, and keeps the sessions of `nora-uploads` there:
//!
//! ```text
//! blobs/sha256/ab/<hex>.<epoch>-<sequence>          a blob's bytes, immutable, as they came
//! blobs/sha256/ab/<hex>.<epoch>-<sequence>.chunks   its chunk table, if it has more than one chunk
//! uploads/<id>, uploads/<id>.json                   an upload session's bytes and what it is for
//! cache/                                            parts of copies of other nodes, bounded
//! incoming/<number>                                 a copy on its way in from another node
//! quarantine/<algorithm>.<name>                     a copy that was found damaged
//! scrub.json                                        how far scrubbing is
//! compare.json, changes.json                        how far the comparison of all blobs is, and how far changes were followed
//! ```
//!
//! [`ReplicatedBlobs`] implements them over several nodes' folders: a push is acknowledged once a
//! majority of those who should have the blob do, a read finds it wherever it is, and [`repair`] and
//! [`scrub`] keep copies where they should be and what they should be.
//!
//! Guarantees: bytes have their final name only once they are verified and on the disk, so a crash
//! at any point leaves a session, a whole blob, or a whole blob that the metadata does not name,
//! which [`LocalBlobs::reconcile`] removes. Hashing and file access happen on blocking threads,
//! each byte is hashed once on its way in, and what is buffered is bounded for all transfers
//! together.
//!
//! Must not know: consensus, how nodes trust each other, or any protocol of clients.

mod census;
mod counters;
mod exchange;
mod finishing;
mod incoming;
mod inventory;
mod layout;
mod map;
mod rate;
mod read;
mod reconcile;
mod repair;
mod replicated;
mod scrub;
mod session;
mod store;
mod uploads;
mod writer;

pub use counters::BlobCounts;
pub use exchange::Peers;
pub use reconcile::{ReconcileError, Reconciled};
pub use replicated::{ReplicatedBlobs, ReplicatedBlobsConfig};
pub use scrub::{ScrubError, ScrubReport};
pub use store::{LocalBlobs, LocalBlobsConfig, OpenError};
