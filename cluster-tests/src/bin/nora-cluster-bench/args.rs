//! The command line of the cluster's benchmark.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use nora_cluster_tests::output::Output;

/// Measures a cluster of three NORA nodes, beside three members of etcd where both can do the same.
///
/// Exits with 0 unless an exchange went wrong (a refused request, wrong bytes, a server that died):
/// how fast anything was never fails the run.
#[derive(Debug, Clone, Parser)]
#[command(name = "nora-cluster-bench", args_override_self = true)]
pub struct Args {
    /// Parts to run, in this order.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "writes,reads,blobs,failover,relay,repair,catchup"
    )]
    pub parts: Vec<Part>,

    /// How many interleaved rounds of writes, reads and blobs; a figure is the median.
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,

    /// How long each phase of writes and reads takes.
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,

    /// How many clients write at once.
    #[arg(long, value_delimiter = ',', default_value = "1,32,256")]
    pub write_clients: Vec<usize>,

    /// The size of a value that etcd is given; NORA's record of a tag is no larger.
    #[arg(long, default_value_t = 256)]
    pub value_bytes: usize,

    /// How many clients of etcd share a connection: one each, as those of NORA have. In etcd's own
    /// benchmark ten share one.
    #[arg(long, default_value_t = 1)]
    pub etcd_sharing: usize,

    /// Also runs `etcdctl check perf`, for a minute, and quotes it.
    #[arg(long)]
    pub check_perf: bool,

    /// Connections that read manifests at once.
    #[arg(long, default_value_t = 32)]
    pub connections: usize,

    /// Size of a large blob.
    #[arg(long, default_value_t = 256)]
    pub blob_mib: usize,

    /// How many clients push and pull large blobs at once.
    #[arg(long, value_delimiter = ',', default_value = "1,8")]
    pub blob_clients: Vec<usize>,

    /// How often the leader is killed.
    #[arg(long, default_value_t = 10)]
    pub failovers: usize,

    /// How many images go through one node after another.
    #[arg(long, default_value_t = 10_000)]
    pub relays: usize,

    /// How many clients relay at once.
    #[arg(long, default_value_t = 8)]
    pub relay_clients: usize,

    /// MiB of blobs in the cluster that loses a node.
    #[arg(long, default_value_t = 10 << 10)]
    pub repair_mib: usize,

    /// The size of each of them.
    #[arg(long, default_value_t = 64)]
    pub repair_blob_mib: usize,

    /// Manifests in the cluster that a fresh node joins.
    #[arg(long, default_value_t = 1_000_000)]
    pub manifests: usize,

    /// Connections that push them.
    #[arg(long, default_value_t = 256)]
    pub fill_connections: usize,

    /// Manifests a second that are pushed while the fresh node joins; 0 for none.
    #[arg(long, default_value_t = 1_000)]
    pub join_writes: u32,

    /// What the nodes log. At `info`, their default, they log each request; etcd is run at `warn` and never does.
    #[arg(long, default_value = "warn")]
    pub log_level: String,

    /// The program `nora`.
    #[arg(long, env = "NORA_BIN")]
    pub nora: PathBuf,

    /// The program `etcd`.
    #[arg(long, default_value = "etcd")]
    pub etcd: PathBuf,

    /// The program `etcdctl`.
    #[arg(long, default_value = "etcdctl")]
    pub etcdctl: PathBuf,

    /// Scratch folder; all stores lie on its disk.
    #[arg(long, default_value = "nora-cluster-bench-work")]
    pub work_dir: PathBuf,

    /// How long to wait, and where the report goes.
    #[command(flatten)]
    pub output: Output,
}

/// A part of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Acknowledged writes of tags, beside etcd.
    Writes,
    /// Manifest GET on a follower and on the leader.
    Reads,
    /// Large blobs, beside one node.
    Blobs,
    /// How soon writes are acknowledged after the leader's death.
    Failover,
    /// Images of which each request goes to another node.
    Relay,
    /// How soon all copies are there again after a node's loss.
    Repair,
    /// How soon a fresh node votes.
    Catchup,
}

impl Args {
    /// How long a phase takes.
    pub fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// Bytes of disk that the largest part needs, with room to spare.
    pub fn bytes_needed(&self) -> u64 {
        let clients: usize = self.blob_clients.iter().sum();
        let of = |part: &Part| match part {
            Part::Blobs => 3 * clients * (self.blob_mib << 20),
            // Three copies; the fourth takes the place of the one that is lost.
            Part::Repair => 3 * (self.repair_mib << 20),
            // Logs, states and snapshots of four nodes.
            Part::Catchup => self.manifests * (8 << 10),
            Part::Relay => self.relays * (64 << 10),
            _ => 0,
        };
        let most = self.parts.iter().map(of).max().unwrap_or(0) as u64;
        most * 5 / 4 + (2 << 30)
    }
}
