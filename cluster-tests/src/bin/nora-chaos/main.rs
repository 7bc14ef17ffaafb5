//! `make chaos`: a real cluster under faults for as long as is asked for; the exit code tells whether anything was violated.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;
use nora_cluster_tests::chaos::{Fault, Plan, run};
use nora_cluster_tests::cluster::enter_namespace;
use nora_cluster_tests::folder::{fresh, require_room};

/// What clients push between one fault and the next, with all copies.
const FAULT_BYTES: u64 = 25 << 20;

/// A cluster of real processes under faults.
#[derive(Debug, Parser)]
struct Args {
    /// The program under test.
    #[arg(long, env = "NORA_BIN")]
    nora: PathBuf,
    /// How many faults.
    #[arg(long, default_value_t = 200)]
    faults: usize,
    /// No fault begins after so many minutes.
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// From which all choices are made; another one each time without it.
    #[arg(long)]
    seed: Option<u64>,
    /// How many nodes.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// How many clients.
    #[arg(long, default_value_t = 4)]
    clients: usize,
    /// Only these kinds of fault.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Fault>,
    /// Keeps blobs in S3: the program versitygw.
    #[arg(long)]
    s3: Option<PathBuf>,
    /// Where to write the report.
    #[arg(long)]
    report: Option<PathBuf>,
    /// Where nodes keep their data, which stays if anything was violated.
    #[arg(long)]
    work: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match chaos(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A folder that was asked for. Nodes that found the data of an earlier run there would go on with it.
fn empty(work: &Path) -> Result<PathBuf, Box<dyn std::error::Error>> {
    std::fs::create_dir_all(work)?;
    match std::fs::read_dir(work)?.next() {
        None => Ok(work.to_owned()),
        Some(_) => {
            Err(format!("{} is not empty: give --work another folder", work.display()).into())
        }
    }
}

fn chaos(args: &Args) -> Result<bool, Box<dyn std::error::Error>> {
    let partitions = enter_namespace("NORA_CHAOS_NAMESPACE")?;
    if !partitions {
        eprintln!(
            "packets cannot be dropped here (that takes root, iptables and a network namespace): no partitions in this run"
        );
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seed = args.seed.unwrap_or(now.as_millis() as u64);
    eprintln!("seed {seed}");
    let work = match &args.work {
        Some(work) => empty(work)?,
        // What a run left that found something is there until the next one with its seed.
        None => fresh(&std::env::temp_dir(), &format!("nora-chaos-{seed}"))?,
    };
    // Nodes run under users of their own and must be able to come by.
    std::fs::set_permissions(&work, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    require_room(&work, args.faults as u64 * FAULT_BYTES + (2 << 30), "fewer --faults")?;
    let plan = Plan {
        program: args.nora.canonicalize()?,
        work: work.canonicalize()?,
        seed,
        faults: args.faults,
        limit: Duration::from_secs(60 * args.minutes),
        nodes: args.nodes,
        clients: args.clients,
        partitions,
        s3: args.s3.clone(),
        only: args.only.clone(),
    };
    let report = run(&plan)?;
    let text = report.markdown();
    std::io::stdout().write_all(text.as_bytes())?;
    if let Some(path) = &args.report {
        std::fs::write(path, &text)?;
    }
    let sound = report.violations.is_empty();
    if sound && args.work.is_none() {
        std::fs::remove_dir_all(&work)?;
    }
    Ok(sound)
}
