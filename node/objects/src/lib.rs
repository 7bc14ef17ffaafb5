//! Blobs in a shared S3 object store.
//!
//! Every node reads and writes the same bucket. A blob's key is made from the number of the upload session that stored
//! it, which is never used twice: nothing is ever overwritten, copied or renamed, and a request whose outcome is unknown
//! can simply be sent again.
//!
//! Guarantees: a finished upload had its digest verified and is in the bucket with its chunk table; bytes that are read
//! were verified against that table. Memory a session takes does not grow with its size. Must not know which nodes
//! there are, and when a blob may be deleted.
#![allow(clippy::result_large_err, reason = "the port's error carries two digests and is rare")]

mod blobs;
mod bucket;
mod check;
mod config;
mod deletions;
mod error;
mod finish;
mod journal;
mod session;
mod source;
mod store;
mod sweep;
mod uploads;
mod writer;

pub use config::ObjectBlobsConfig;
pub use error::ObjectError;
pub use store::ObjectBlobs;
pub use sweep::Abandoned;
