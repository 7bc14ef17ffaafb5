//! `[cluster]`: this node's part in the replicated state.

use std::net::SocketAddr;
use std::time::Duration;

use super::section::section;
use super::setting::Size;

section! {
    /// This node's part in the replicated state. A single node is a cluster of one.
    Cluster in "cluster" {
        /// Where other nodes will reach this one. A cluster of one has nobody to hear from, so nothing listens there yet.
        listen: SocketAddr = "\"127.0.0.1:4001\"";
        /// Bytes of proposals waiting at once; more are told to come again later.
        proposal_bytes_max: Size = "\"8MiB\"", "1MiB" ..= "1GiB";
        /// How long a change may take to be acknowledged before the client is told that its outcome is unknown.
        proposal_timeout: Duration = "\"10s\"", "100ms" ..= "10m";
        /// Log entries after which a snapshot is taken and the log before it is dropped.
        snapshot_entries: usize = "50000", "100" ..= "100000000";
        /// Log entries kept behind a snapshot, for nodes that lag a little.
        keep_entries: usize = "5000", "0" ..= "100000000";
    }
}
