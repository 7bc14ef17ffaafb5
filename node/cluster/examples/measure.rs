//! Measures a node of its own: `cargo run --release -p nora-cluster --example measure [DIRECTORY]`.
//!
//! Prints start-to-ready time, resident memory, proposals a second by proposers, and linearizable reads a second.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nora_app::ports::metadata::Metadata;
use nora_cluster::{Cluster, ClusterConfig};
use nora_domain::{
    Action, Command, Format, Key, NodeId, OpenUpload, RepositoryKey, RepositoryPath, TenantName,
    Terms, Timestamp, UploadId,
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const SPAN: Duration = Duration::from_secs(3);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let directory = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = directory.join(format!("nora-measure-{}", std::process::id()));
    let measured = measure(&directory).await;
    std::fs::remove_dir_all(&directory)?;
    measured
}

async fn measure(directory: &std::path::Path) -> Result<(), Failure> {
    let config = ClusterConfig::new(directory.to_owned());
    let begun = Instant::now();
    let cluster = Arc::new(Cluster::start(config.clone()).await?);
    report("start to ready, empty", format_args!("{:?}", begun.elapsed()));
    report("resident after start", format_args!("{} KiB", resident_kib()?));
    for proposers in [1, 8, 64] {
        let rate = propose(&cluster, proposers).await?;
        report("proposals a second", format_args!("{rate:.0} with {proposers} proposers"));
    }
    report(
        "linearize a second, only voter",
        format_args!("{:.0}", reads(&cluster, Read::Linearize).await?),
    );
    report("linearize and get a second", format_args!("{:.0}", reads(&cluster, Read::Get).await?));
    report("resident at the end", format_args!("{} KiB", resident_kib()?));
    report("status", format_args!("{:?}", cluster.status()));
    report("stores", format_args!("{:?}", cluster.usage()));
    let begun = Instant::now();
    cluster.shutdown().await?;
    report("shutdown", format_args!("{:?}", begun.elapsed()));
    let mut cluster = cluster;
    while Arc::get_mut(&mut cluster).is_none() {
        tokio::task::yield_now().await;
    }
    drop(cluster);
    // Consensus lets go of the stores a moment after it has stopped.
    let begun = Instant::now();
    loop {
        let attempt = Instant::now();
        match Cluster::start(config.clone()).await {
            Ok(_) => {
                report("start to ready, with data", format_args!("{:?}", attempt.elapsed()));
                return Ok(());
            }
            Err(_) if begun.elapsed() < Duration::from_secs(5) => tokio::task::yield_now().await,
            Err(error) => return Err(error.into()),
        }
    }
}

async fn propose(cluster: &Arc<Cluster>, proposers: u64) -> Result<f64, Failure> {
    let next = Arc::new(AtomicU64::new(proposers << 32));
    let stop = Arc::new(AtomicBool::new(false));
    let first = next.load(Ordering::Relaxed);
    let tasks: Vec<_> = (0..proposers)
        .map(|_| {
            let (cluster, next, stop) = (cluster.clone(), next.clone(), stop.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    cluster
                        .propose(open_upload(number)?)
                        .await?
                        .map_err(|refusal| format!("{refusal:?}"))?;
                }
                Ok::<_, Failure>(())
            })
        })
        .collect();
    tokio::time::sleep(SPAN).await;
    let done = next.load(Ordering::Relaxed) - first;
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await??;
    }
    Ok(done as f64 / SPAN.as_secs_f64())
}

#[derive(Clone, Copy)]
enum Read {
    Linearize,
    Get,
}

async fn reads(cluster: &Arc<Cluster>, read: Read) -> Result<f64, Failure> {
    let done = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..32_u64)
        .map(|reader| {
            let (cluster, done, stop) = (cluster.clone(), done.clone(), stop.clone());
            tokio::spawn(async move {
                let mut number = reader;
                while !stop.load(Ordering::Relaxed) {
                    cluster.linearize().await?;
                    if matches!(read, Read::Get) {
                        number = (number + 1) % 10_000;
                        let upload = UploadId(u128::from((64 << 32) + number));
                        let tenant = TenantName::default_tenant();
                        cluster.get(Key::Upload(tenant, upload)).await?;
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                    tokio::task::consume_budget().await;
                }
                Ok::<_, Failure>(())
            })
        })
        .collect();
    tokio::time::sleep(SPAN).await;
    let count = done.load(Ordering::Relaxed);
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await??;
    }
    Ok(count as f64 / SPAN.as_secs_f64())
}

fn open_upload(number: u64) -> Result<Command, Failure> {
    let repository = RepositoryKey {
        tenant: TenantName::default_tenant(),
        format: Format::Oci,
        path: RepositoryPath::parse("library/nginx").map_err(|error| error.to_string())?,
    };
    let action = Action::OpenUpload(OpenUpload {
        upload: UploadId(u128::from(number)),
        repository,
        node: NodeId(1),
        lives_millis: u64::MAX,
        reserve: 0,
    });
    Ok(Command { at: Timestamp(1), origin: None, terms: Terms::NONE, action })
}

fn resident_kib() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()).ok_or("no VmRSS")?;
    Ok(number.parse()?)
}

#[allow(clippy::print_stdout)]
fn report(what: &str, value: std::fmt::Arguments<'_>) {
    println!("{what:32} {value}");
}
