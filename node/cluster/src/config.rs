//! What can be set about the replicated metadata.

use std::path::PathBuf;
use std::time::Duration;

use nora_domain::{FeatureLevel, NodeId, NodeProfile, Storage, StorageMode};

use crate::clock::WallClock;

/// How a node takes part in the cluster. Sizes are in bytes.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// This node's number.
    pub node: NodeId,
    /// What it tells of itself whenever it starts. An empty cluster address stands for `address`.
    pub profile: NodeProfile,
    /// How the cluster keeps blobs, if this node founds it.
    pub storage: Storage,
    /// Where the log, the state and the snapshots are kept.
    pub data_dir: PathBuf,
    /// Where other nodes reach this one; kept in the membership.
    pub address: String,
    /// Block cache of both stores.
    pub cache_bytes: usize,
    /// Write buffers of both stores.
    pub write_buffer_bytes: usize,
    /// Entries after which a new snapshot is made.
    pub snapshot_entries: u64,
    /// Entries that stay in the log behind a snapshot, for nodes that were away for a moment.
    pub keep_entries: u64,
    /// Bytes that the log may take while a member catches up by a snapshot; a larger log is cut all the same.
    pub log_bytes_max: u64,
    /// The largest command, encoded.
    pub command_bytes_max: usize,
    /// Commands that may be on their way at once, all together.
    pub proposals_bytes_max: usize,
    /// How long a proposal or a read index may take.
    pub answer_timeout: Duration,
    /// How long a start may take until the cluster has taken it in.
    pub start_timeout: Duration,
    /// Reads that may wait for the disk at once.
    pub disk_reads_max: usize,
    /// Events kept for a listener that is behind.
    pub events_max: usize,
    /// By how much a wall clock may be off before its node says so, and lets another node lead.
    pub clock_skew_max: Duration,
    /// How far the wall clock of the only voter may set the cluster's clock forward when the node starts.
    pub clock_step_max: Duration,
    /// Where this node reads the time of day.
    pub wall: WallClock,
}

impl ClusterConfig {
    /// The defaults for the first node of a cluster, in `data_dir`.
    pub fn new(data_dir: PathBuf) -> Self {
        Self {
            node: NodeId(1),
            profile: NodeProfile {
                weight: 1,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                feature_max: FeatureLevel::NEWEST,
                ..NodeProfile::default()
            },
            storage: Storage { mode: StorageMode::Local, replicas: 3 },
            data_dir,
            address: "127.0.0.1:7700".to_owned(),
            cache_bytes: 16 << 20,
            write_buffer_bytes: 8 << 20,
            snapshot_entries: 20_000,
            keep_entries: 2_000,
            log_bytes_max: 4 << 30,
            command_bytes_max: 256 << 10,
            proposals_bytes_max: 16 << 20,
            answer_timeout: Duration::from_secs(10),
            start_timeout: Duration::from_secs(60),
            disk_reads_max: 16,
            events_max: 1024,
            clock_skew_max: Duration::from_secs(5),
            clock_step_max: Duration::from_secs(31 * 86_400),
            wall: WallClock::default(),
        }
    }
}
