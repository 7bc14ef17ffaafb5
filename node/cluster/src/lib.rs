//! NORA's replicated metadata: openraft over RocksDB, behind the port `nora_app::ports::metadata`.
//!
//! Guarantees: a proposal that was answered is on the disks of a quorum, took effect once, and is applied on this node;
//! the state is what `nora_domain::transition` makes of the log, on every node alike; memory does not grow with what is
//! stored. A single node is a cluster of one and runs the same code.
//!
//! Must not know: HTTP, formats, blobs' bytes. No type of openraft or RocksDB leaves this crate.

mod clock;
mod config;
mod error;
mod leader;
mod members;
mod node;
mod proposals;
mod segments;
mod status;
mod survivor;
mod transport;

#[cfg(not(feature = "internals"))]
mod codec;
#[cfg(not(feature = "internals"))]
mod consensus;
#[cfg(not(feature = "internals"))]
mod linearize;
#[cfg(not(feature = "internals"))]
mod raft;
#[cfg(not(feature = "internals"))]
mod rocks;

// This crate's own tests look into these; nobody else may.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod codec;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod consensus;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod linearize;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod raft;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod rocks;

pub use clock::{ClockStatus, WallClock};
pub use config::ClusterConfig;
pub use error::{StartError, StopReason};
pub use members::{JoinError, MembersConfig, Roster, join};
pub use node::Cluster;
pub use raft::state_machine::PositionedEvent;
pub use rocks::format::check as check_format;
pub use segments::JournalSegments;
pub use status::{ClusterStatus, Replication, StoreUsage};
pub use survivor::{Found, Survivor};
pub use transport::{Alone, MutualTls, Transport, endpoint};
