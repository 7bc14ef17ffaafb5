//! NORA's replicated metadata: openraft over RocksDB, behind the port `nora_app::ports::metadata`.
//!
//! Guarantees: a proposal that was answered is on the disks of a quorum and applied on this node; the state is what
//! `nora_domain::transition` makes of the log, on every node alike; memory does not grow with what is stored. A single
//! node is a cluster of one and runs the same code.
//!
//! Must not know: HTTP, formats, blobs' bytes. No type of openraft or RocksDB leaves this crate.

mod codec;
mod config;
mod linearize;
mod node;
mod raft;
mod rocks;

pub use config::ClusterConfig;
pub use node::{Cluster, ClusterStatus, StartError, StopReason, StoreUsage};
pub use raft::state_machine::PositionedEvent;

/// What this crate's own tests look into; no part of what others may use.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::{codec, linearize, raft, rocks};
}
