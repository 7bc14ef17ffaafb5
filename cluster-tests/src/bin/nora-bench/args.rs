//! The command line of the benchmark.

use std::path::PathBuf;

use clap::Parser;
use nora_cluster_tests::output::Output;

/// Measures NORA beside other registries and nginx: one run, interleaved rounds, medians and
/// ratios.
///
/// Exits with 0 unless an exchange went wrong (a refused request, wrong bytes, a server that died):
/// how fast anything was never fails the run.
#[derive(Debug, Clone, Parser)]
#[command(name = "nora-bench")]
pub struct Args {
    /// What to measure, in this order within a round. One that is not installed is named and left
    /// out.
    #[arg(long, value_delimiter = ',', default_value = "distribution,zot,zot-sync,nginx,nora")]
    pub targets: Vec<String>,

    /// Parts to run.
    #[arg(long, value_delimiter = ',', default_value = "start,blobs,reads,images,catalogue")]
    pub parts: Vec<Part>,

    /// How many interleaved rounds; a figure is the median over rounds and repeats.
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,

    /// Size of a large blob.
    #[arg(long, default_value_t = 256)]
    pub blob_mib: usize,

    /// How many clients push and pull large blobs at once.
    #[arg(long, value_delimiter = ',', default_value = "1,8,64")]
    pub blob_clients: Vec<usize>,

    /// How many clients push small images at once.
    #[arg(long, value_delimiter = ',', default_value = "1,8,32")]
    pub image_clients: Vec<usize>,

    /// How long small images are pushed, for each number of clients.
    #[arg(long, default_value_t = 3)]
    pub image_seconds: u64,

    /// Connections that read manifests and blob heads at once.
    #[arg(long, default_value_t = 32)]
    pub connections: usize,

    /// How long they read.
    #[arg(long, default_value_t = 5)]
    pub read_seconds: u64,

    /// Manifests in the store whose start and memory are measured.
    #[arg(long, default_value_t = 100_000)]
    pub manifests: u64,

    /// Manifests that are pushed and deleted again, one after another.
    #[arg(long, default_value_t = 1_000_000)]
    pub churned: u64,

    /// Targets that are filled with that many manifests.
    #[arg(long, value_delimiter = ',', default_value = "nora")]
    pub manifest_targets: Vec<String>,

    /// Filling a store ends after this time, and the report says how many manifests there are then.
    #[arg(long, default_value_t = 900)]
    pub fill_seconds: u64,

    /// Keeps filled stores in this folder, and uses what an earlier run left there.
    #[arg(long)]
    pub keep_store: Option<PathBuf>,

    /// Scratch folder; stores lie on its disk.
    #[arg(long, default_value = "nora-bench-work")]
    pub work_dir: PathBuf,

    /// Where peers' programs are looked up before PATH.
    #[arg(long)]
    pub bin_dir: Option<PathBuf>,

    /// The program `nora`.
    #[arg(long, env = "NORA_BIN")]
    pub nora: Option<PathBuf>,

    /// An earlier build of `nora`, for the target `nora-before`: rounds of both alternate.
    #[arg(long, env = "NORA_BEFORE")]
    pub before: Option<PathBuf>,

    /// The program zot; without it `zot-minimal` or `zot` is looked up.
    #[arg(long, env = "ZOT_BIN")]
    pub zot: Option<PathBuf>,

    /// How long a server is left alone before its idle memory is read.
    #[arg(long, default_value_t = 3)]
    pub idle_seconds: u64,

    /// How long to wait, and where the report goes.
    #[command(flatten)]
    pub output: Output,
}

/// A part of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Start to ready and idle memory with an empty store.
    Start,
    /// Large blobs, pushed and pulled.
    Blobs,
    /// Manifest GET by tag and blob HEAD.
    Reads,
    /// Small images, pushed.
    Images,
    /// Start and memory with many manifests.
    Catalogue,
    /// What stays of manifests that were deleted again, of NORA alone; only where it is asked for.
    Churn,
}

impl Args {
    /// Whether `part` was asked for.
    pub fn has(&self, part: Part) -> bool {
        self.parts.contains(&part)
    }

    /// How often a phase with this many clients is repeated in a round: often where it is short.
    pub fn repeats(clients: usize) -> usize {
        match clients {
            0..=1 => 3,
            2..=8 => 2,
            _ => 1,
        }
    }
}
