//! Bytes of copies between nodes, over gRPC: the service over this node's files, and its client.
//!
//! Guarantees: only members are served; a copy is stored whole and verified or not at all. Must not
//! know the log, nor which node should hold what.
#![allow(clippy::result_large_err, reason = "tonic's status is what its traits return")]

mod client;
mod grudges;
mod server;
mod source;
mod wire;

pub use client::Peers;
pub(crate) use client::{Peer, PeerError};
pub(crate) use grudges::Grudges;
pub(crate) use server::Exchange;
pub(crate) use source::PeerSource;

/// Bytes in one message of a body.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// The largest message that is no body: the table of a blob of 512 GiB.
const TABLE_BYTES_MAX: usize = 17 << 20;
