//! `[cluster]`: this node's part in the cluster.

use std::net::SocketAddr;
use std::time::Duration;

use super::section::section;
use super::setting::Size;

section! {
    /// This node's part in the cluster. A single node is a cluster of one.
    Cluster in "cluster" {
        /// Where to listen for other nodes and for administration: gRPC over TLS with certificates of the cluster's own.
        listen: SocketAddr = "\"127.0.0.1:4001\"";
        /// Where other nodes reach this one, as `host:port`, if it is not where it listens.
        advertise: Option<String> = none;
        /// The failure zone that this node is in. Copies of a blob go to different zones if they can.
        zone: String = "\"\"";
        /// This node's share of the blobs, relative to others' weights.
        weight: usize = "100", "1" ..= "1000000";
        /// How many nodes keep a copy of each blob; all of them while there are fewer. A push is acknowledged once a majority of these copies is on disk. It counts when a cluster is founded; later, `nora cluster replicas` changes it.
        replicas: usize = "3", "1" ..= "15";
        /// How long a node may be silent until the copies it held are made anew on others.
        away_after: Duration = "\"10m\"", "1s" ..= "52w";
        /// How long a node may be silent until it is removed for good, if the others are enough without it. Without it, nodes are removed by hand alone.
        remove_after: Option<Duration> = none;
        /// By how much a node's wall clock may be off before the node says so and lets another one lead.
        clock_skew_max: Duration = "\"5s\"", "100ms" ..= "1h";
        /// How far the wall clock of a single node may set the cluster's clock forward when the node starts. Raise it after a longer stop.
        clock_step_max: Duration = "\"31d\"", "1m" ..= "520w";
        /// Bytes a second that this node may fetch to restore or move copies. Without it, as fast as it can.
        repair_rate: Option<Size> = none;
        /// In how much time every copy on this node is read again and compared with its hashes, and every blob and file compared with the log.
        scrub_interval: Duration = "\"30d\"", "1m" ..= "520w";
        /// Bytes of proposals waiting at once; more are told to come again later.
        proposal_bytes_max: Size = "\"8MiB\"", "1MiB" ..= "1GiB";
        /// How long a change may take to be acknowledged before the client is told that its outcome is unknown.
        proposal_timeout: Duration = "\"10s\"", "100ms" ..= "10m";
        /// Log entries after which a snapshot is taken and the log before it is dropped.
        snapshot_entries: usize = "100000", "100" ..= "100000000";
        /// Log entries kept behind a snapshot, for nodes that lag a little.
        keep_entries: usize = "5000", "0" ..= "100000000";
        /// Bytes that the log may take while a node catches up by a snapshot. A larger log is cut, and that node needs another snapshot.
        log_bytes_max: Size = "\"4GiB\"", "1MiB" ..= "16TiB";
    }
}
