//! For tests only: the ports in memory, and the contract suites that every adapter of a port runs.
//!
//! Guarantee: each fake here passes the suite of its port, so a use case that is tested over fakes meets what it will
//! meet over files and the log. Must not know any adapter, nor how a hash is computed: tests bring [`Hashes`].
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "only tests call this, and a test that cannot go on has failed"
)]

mod blobs_contract;
mod material;
mod memory_blobs;
mod memory_metadata;
mod memory_segments;
mod metadata_contract;
mod uploads;
mod uploads_contract;

pub use blobs_contract::blobs_contract;
pub use material::{
    MIB, admit_node, body, bytes, create_join_token, found_cluster, generation, open_session,
    purpose, push, read, repository, start_node,
};
pub use memory_blobs::MemoryBlobs;
pub use memory_metadata::{Counts, Failure, MemoryMetadata};
pub use memory_segments::MemorySegments;
pub use metadata_contract::metadata_contract;
pub use uploads::Uploads;
pub use uploads_contract::uploads_contract;

use std::sync::atomic::{AtomicU64, Ordering};

use nora_domain::{Algorithm, Digest, Timestamp, UploadId};

use crate::ports::clock::{Clock, Ids};

/// How a test computes what the ports speak of.
#[derive(Clone, Copy, Debug)]
pub struct Hashes {
    /// The digest of bytes. Where only fakes see it, any function will do that tells different bytes apart.
    pub digest: fn(&[u8], Algorithm) -> Digest,
    /// The root of their chunk table.
    pub chunk_root: fn(&[u8]) -> [u8; 32],
}

impl Hashes {
    /// The SHA-256 digest.
    pub fn sha256(&self, bytes: &[u8]) -> Digest {
        (self.digest)(bytes, Algorithm::Sha256)
    }

    /// The SHA-512 digest.
    pub fn sha512(&self, bytes: &[u8]) -> Digest {
        (self.digest)(bytes, Algorithm::Sha512)
    }
}

/// A clock that stands until it is moved.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// A clock that stands at `now`.
    pub fn at(now: Timestamp) -> Self {
        Self(AtomicU64::new(now.0))
    }

    /// Moves it forward.
    pub fn advance(&self, millis: u64) {
        self.0.fetch_add(millis, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}

/// Names that count from 1: each is new, and a test can tell them.
#[derive(Debug, Default)]
pub struct CountingIds(AtomicU64);

impl Ids for CountingIds {
    fn upload_id(&self) -> UploadId {
        UploadId(u128::from(self.0.fetch_add(1, Ordering::Relaxed)) + 1)
    }
}
