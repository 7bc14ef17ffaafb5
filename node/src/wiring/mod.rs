//! The composition root: the only place that names concrete adapters, and the order in which a node comes up and
//! goes down.
//!
//! Up: data folder locked, metadata recovered and this start's epoch taken, blobs opened, the address bound, requests
//! served, orphans of earlier starts swept. Down: not ready any more, no new connections, running transfers finish,
//! metadata flushed.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nora_app::ports::BoxFuture;
use nora_app::ports::blobs::Blobs;
use nora_app::ports::clock::{Clock, Ids};
use nora_app::ports::health::{Health, Probe};
use nora_app::ports::metadata::MetadataError;
use nora_app::{Dependencies, Registry, Settings};
use nora_blobs::{LocalBlobs, LocalBlobsConfig};
use nora_cluster::{Cluster, ClusterConfig, PositionedEvent, StopReason};
use nora_domain::audit::Audit;
use nora_domain::event::Event;
use nora_domain::record::{Key, Record, Timestamp, UploadId};
use tokio::net::TcpListener;
use tokio::sync::{broadcast, watch};
use tracing::{debug, error, info, warn};

use crate::api::{Api, ApiSettings, router};
use crate::config::Config;
use crate::identity::{ADMIN_USER, gate_for};
use crate::metrics::Metrics;
use crate::server::{Certificate, ServerSettings, TlsFiles, serve};

/// How often expired uploads are looked for.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(60);
/// How often certificate files are looked at.
const CERTIFICATE_INTERVAL: Duration = Duration::from_secs(10);

/// Why a node did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The data folder cannot be used.
    #[error("cannot use the data folder {}", .path.display())]
    DataDir {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process uses the data folder.
    #[error(
        "another nora uses the data folder {}; stop it, or give this one a folder of its own with --data-dir",
        .path.display()
    )]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The address cannot be bound.
    #[error("cannot listen on {address}; is something else listening there?")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The administrator's password cannot be made or read.
    #[error("cannot make or read the administrator's password")]
    Admin(#[source] io::Error),
    /// The certificate cannot be used.
    #[error("TLS is not possible")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The metadata cannot be opened.
    #[error("the metadata cannot be opened")]
    Metadata(#[source] nora_cluster::StartError),
    /// The blobs cannot be opened.
    #[error("the blobs cannot be opened")]
    Blobs(#[source] nora_blobs::OpenError),
    /// The metadata cannot be read.
    #[error("the metadata cannot be read")]
    Unreadable(#[source] MetadataError),
    /// The metadata store failed while the node ran.
    #[error("the node stopped itself, so that nothing is acknowledged that is not on disk: {0}")]
    Stopped(StopReason),
}

struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        // A clock before 1970 counts as 1970; the replicated clock never runs backwards anyway.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// Upload ids from the operating system's random numbers, many to a call.
struct RandomIds(std::sync::Mutex<Vec<u128>>);

impl Ids for RandomIds {
    fn upload_id(&self) -> UploadId {
        let mut pool = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if pool.is_empty() {
            let mut bytes = [0u8; 16 * 64];
            // An id that could be guessed would open somebody's upload: without randomness there is no going on.
            #[allow(
                clippy::expect_used,
                reason = "the operating system's random numbers do not run out"
            )]
            getrandom::fill(&mut bytes).expect("the operating system gives random numbers");
            pool.extend(
                bytes
                    .chunks_exact(16)
                    .map(|part| part.iter().fold(0u128, |id, byte| id << 8 | u128::from(*byte))),
            );
        }
        UploadId(pool.pop().unwrap_or_default())
    }
}

struct NodeProbe {
    cluster: Arc<Cluster>,
    data_dir: PathBuf,
    draining: Arc<AtomicBool>,
}

impl Probe for NodeProbe {
    fn health(&self) -> BoxFuture<'_, Health> {
        Box::pin(async {
            let status = self.cluster.status();
            let data_dir = self.data_dir.clone();
            let written = tokio::task::spawn_blocking(move || probe_storage(&data_dir)).await;
            let storage_failure = match written {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(error) => Some(error.to_string()),
            };
            Health {
                has_leader: status.leader.is_some(),
                caught_up: status.ready,
                storage_failure,
                draining: self.draining.load(Ordering::Relaxed),
            }
        })
    }
}

/// Writes a few bytes where blobs go: a full or read-only disk shows here before a push meets it. The file stays and
/// is written over, so that probes that run at once do not remove it from under each other.
fn probe_storage(data_dir: &Path) -> io::Result<()> {
    std::fs::write(data_dir.join("probe"), b"nora")
}

/// Makes the data folder and keeps a lock in it for as long as the file is open.
fn lock_data_dir(path: &Path) -> Result<File, ServeError> {
    let failed = |source| ServeError::DataDir { path: path.to_owned(), source };
    std::fs::create_dir_all(path).map_err(failed)?;
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path.join("lock"))
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(ServeError::InUse { path: path.to_owned() }),
        Err(std::fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}

fn cluster_config(config: &Config) -> ClusterConfig {
    let mut cluster = ClusterConfig::new(config.storage.data_dir.join("metadata"));
    cluster.address = config.cluster.listen.to_string();
    cluster.cache_bytes = config.storage.metadata_cache_bytes_max.bytes_usize();
    cluster.write_buffer_bytes = config.storage.metadata_write_bytes_max.bytes_usize();
    cluster.snapshot_entries = config.cluster.snapshot_entries as u64;
    cluster.keep_entries = config.cluster.keep_entries as u64;
    cluster.proposals_bytes_max = config.cluster.proposal_bytes_max.bytes_usize();
    cluster.answer_timeout = config.cluster.proposal_timeout;
    cluster
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn settings(config: &Config) -> Settings {
    Settings {
        artifact_bytes_max: config.limits.manifest_bytes_max.bytes_usize(),
        references_max: config.limits.references_max,
        pin_millis: millis(config.limits.pin_expiry),
        upload_expiry_millis: millis(config.limits.upload_expiry),
    }
}

fn api_settings(config: &Config) -> ApiSettings {
    ApiSettings {
        public_url: config.server.public_url.as_ref().map(|url| url.as_str().to_owned()),
        upload_bytes_max: config.limits.upload_bytes_max.bytes(),
        manifest_bytes_max: config.limits.manifest_bytes_max.bytes_usize(),
        page_size_max: config.limits.page_size_max,
        body_idle_timeout: config.limits.body_idle_timeout,
        trusted_proxies: config.server.trusted_proxies.clone(),
    }
}

/// Runs a node until `stop` completes, then lets what runs finish.
pub async fn run(
    config: Config,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let data_dir = config.storage.data_dir.clone();
    let _lock = lock_data_dir(&data_dir)?;
    let certificate = load_certificate(&config)?;
    let listen = config.server.listen;
    let (gate, admin) = gate_for(listen.ip(), &data_dir).map_err(ServeError::Admin)?;

    let blobs_config = blobs_config(&config);
    let opening = tokio::task::spawn_blocking(move || LocalBlobs::open(blobs_config));
    let cluster = Cluster::start(cluster_config(&config)).await.map_err(ServeError::Metadata)?;
    let cluster = Arc::new(cluster);
    let blobs = match opening.await {
        Ok(opened) => Arc::new(opened.map_err(ServeError::Blobs)?),
        Err(error) => {
            return Err(ServeError::DataDir { path: data_dir, source: io::Error::other(error) });
        }
    };
    let metrics = Arc::new(Metrics::new());
    let draining = Arc::new(AtomicBool::new(false));
    let api = Arc::new(Api {
        registry: Registry::new(Dependencies {
            metadata: cluster.clone(),
            blobs: blobs.clone(),
            uploads: blobs.clone(),
            clock: Arc::new(SystemClock),
            ids: Arc::new(RandomIds(std::sync::Mutex::default())),
            node: cluster.node_id(),
            epoch: cluster.epoch(),
            settings: settings(&config),
        }),
        probe: Arc::new(NodeProbe {
            cluster: cluster.clone(),
            data_dir: data_dir.clone(),
            draining: draining.clone(),
        }),
        metrics: metrics.clone(),
        gate,
        settings: api_settings(&config),
    });
    fill_gauges(&metrics, cluster.clone());

    let listener = TcpListener::bind(listen)
        .await
        .map_err(|source| ServeError::Bind { address: listen, source })?;
    let address = listener.local_addr().unwrap_or(listen);
    announce(&config, address, admin.as_ref(), certificate.is_some());

    let mut upkeep = tokio::task::JoinSet::new();
    upkeep.spawn(count_events(cluster.subscribe(), metrics.clone()));
    upkeep.spawn(expire_uploads(api.clone()));
    upkeep.spawn(sweep_orphans(api.clone(), blobs, cluster.clone()));
    if let Some(certificate) = certificate.clone() {
        upkeep.spawn(certificate.watch(CERTIFICATE_INTERVAL));
    }

    let (stop_sender, stop_receiver) = watch::channel(false);
    let server = tokio::spawn(serve(
        listener,
        router(api),
        certificate,
        server_settings(&config),
        metrics,
        stop_receiver,
    ));
    let failure = tokio::select! {
        () = stop => None,
        reason = cluster.stopped() => Some(reason),
    };
    draining.store(true, Ordering::Relaxed);
    info!("stopping: running transfers may finish");
    let _ = stop_sender.send(true);
    match server.await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => return Err(ServeError::Tls(Box::new(error))),
        Err(error) => error!(%error, "the server's task failed"),
    }
    upkeep.shutdown().await;
    if let Some(reason) = failure {
        return Err(ServeError::Stopped(reason));
    }
    if let Err(error) = cluster.shutdown().await {
        // What was acknowledged is in the log on disk; the next start replays it.
        warn!(%error, "the metadata was not closed in order");
    }
    info!("stopped");
    Ok(())
}

/// What [`check`] found.
pub struct Checked {
    /// Rows of metadata.
    pub rows: u64,
    /// Live blobs.
    pub blobs: u64,
    /// What is wrong, a sentence each.
    pub findings: Vec<String>,
}

/// Checks the data of a node that does not run: the metadata against itself, and that every live blob is there with
/// its size. Contents are not read again. Memory grows with the number of rows.
pub async fn check(config: &Config) -> Result<Checked, ServeError> {
    let data_dir = &config.storage.data_dir;
    if !data_dir.is_dir() {
        let source = io::Error::from(io::ErrorKind::NotFound);
        return Err(ServeError::DataDir { path: data_dir.clone(), source });
    }
    let _lock = lock_data_dir(data_dir)?;
    let cluster = Cluster::start(cluster_config(config)).await.map_err(ServeError::Metadata)?;
    let read = cluster.inspect(|rows| {
        let (mut audit, mut live, mut count) = (Audit::default(), Vec::new(), 0);
        for row in rows {
            let (key, record) = row?;
            audit.add(&key, &record);
            count += 1;
            if let (Key::Blob(digest), Record::Blob(blob)) = (key, record) {
                live.push((digest, blob.generation, blob.size));
            }
        }
        Ok((audit.finish(), live, count))
    });
    let (found, live, rows) = read.await.flatten().map_err(ServeError::Unreadable)?;
    let mut findings: Vec<String> = found.iter().map(ToString::to_string).collect();
    let blobs = LocalBlobs::open(blobs_config(config)).map_err(ServeError::Blobs)?;
    let blobs: &dyn Blobs = &blobs;
    for (digest, generation, size) in &live {
        if let Err(error) = blobs.open(*digest, *generation, *size).await {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            findings.push(format!("blob {digest}: {error}{}", cause.unwrap_or_default()));
        }
    }
    if let Err(error) = cluster.shutdown().await {
        warn!(%error, "the metadata was not closed in order");
    }
    Ok(Checked { rows, blobs: live.len() as u64, findings })
}

fn blobs_config(config: &Config) -> LocalBlobsConfig {
    LocalBlobsConfig {
        data_dir: config.storage.data_dir.clone(),
        upload_bytes_max: config.limits.upload_bytes_max.bytes(),
        sessions_max: config.limits.upload_sessions_max,
    }
}

fn server_settings(config: &Config) -> ServerSettings {
    ServerSettings {
        connections_max: config.limits.connections_max,
        head_timeout: config.limits.request_header_timeout,
        write_timeout: config.limits.body_idle_timeout,
        drain_timeout: config.limits.drain_timeout,
        read_buffer_bytes_max: config.limits.request_header_bytes_max.bytes_usize(),
    }
}

fn load_certificate(config: &Config) -> Result<Option<Arc<Certificate>>, ServeError> {
    let Some(tls) = &config.server.tls else { return Ok(None) };
    let files = TlsFiles { cert: tls.cert.clone(), key: tls.key.clone() };
    Certificate::load(files).map(Some).map_err(|error| ServeError::Tls(Box::new(error)))
}

/// The start-up lines: where, with what, and who may come in.
fn announce(
    config: &Config,
    address: SocketAddr,
    admin: Option<&crate::identity::AdminFile>,
    tls: bool,
) {
    let scheme = if tls { "https" } else { "http" };
    info!(
        version = env!("CARGO_PKG_VERSION"),
        data_dir = %config.storage.data_dir.display(),
        "listening on {scheme}://{address}"
    );
    match admin {
        None => info!(
            "open to everyone on this machine: anyone who reaches {address} may push and pull"
        ),
        Some(file) => {
            let made = if file.created { "made on this start" } else { "made earlier" };
            info!("login needed: user {ADMIN_USER}, password in {} ({made})", file.path.display());
            if !tls {
                warn!(
                    "{address} is not this machine alone and speaks plain HTTP: set [server.tls], or end TLS before it"
                );
            }
        }
    }
}

fn fill_gauges(metrics: &Metrics, cluster: Arc<Cluster>) {
    let index = |index: Option<u64>| i64::try_from(index.unwrap_or(0)).unwrap_or(i64::MAX);
    metrics.on_read(move |gauges| {
        let status = cluster.status();
        gauges.raft_applied_index.set(index(status.applied_index));
        gauges.raft_log_index.set(index(status.log_index));
        gauges.raft_snapshot_index.set(index(status.snapshot_index));
        gauges.raft_term.set(index(Some(status.term)));
        gauges.raft_is_leader.set(i64::from(status.leader == Some(status.node)));
        let usage = cluster.usage();
        let memory = usage.cache_bytes + usage.write_buffer_bytes + usage.table_reader_bytes;
        gauges.metadata_memory_bytes.set(index(Some(memory)));
        gauges.metadata_disk_bytes.set(index(Some(usage.log_disk_bytes + usage.state_disk_bytes)));
        if let Some(bytes) = resident_bytes() {
            gauges.resident_memory_bytes.set(index(Some(bytes)));
        }
    });
}

/// Resident memory of this process, as the kernel tells it.
fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * page_bytes())
}

fn page_bytes() -> u64 {
    // Linux on every machine NORA is built for; other page sizes would only scale one gauge.
    4096
}

fn kind(event: &Event) -> &'static str {
    match event {
        Event::RepositoryCreated { .. } => "repository_created",
        Event::RepositoryRemoved { .. } => "repository_removed",
        Event::BlobLinked { .. } => "blob_linked",
        Event::BlobUnlinked { .. } => "blob_unlinked",
        Event::ArtifactPushed { .. } => "artifact_pushed",
        Event::ArtifactDeleted { .. } => "artifact_deleted",
        Event::TagMoved { .. } => "tag_moved",
        Event::TagDeleted { .. } => "tag_deleted",
    }
}

async fn count_events(mut events: broadcast::Receiver<PositionedEvent>, metrics: Arc<Metrics>) {
    loop {
        match events.recv().await {
            Ok(PositionedEvent { position, index, event }) => {
                metrics.event(kind(&event));
                debug!(position, index, ?event, "event");
            }
            Err(broadcast::error::RecvError::Lagged(missed)) => metrics.events_missed(missed),
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

async fn expire_uploads(api: Arc<Api>) {
    let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        ticks.tick().await;
        match api.registry.expire_uploads().await {
            Ok(0) => {}
            Ok(sessions) => info!(sessions, "expired uploads dropped"),
            Err(error) => warn!(%error, "expired uploads were not dropped; trying again later"),
        }
    }
}

/// Removes copies that earlier starts wrote and the log never took.
async fn sweep_orphans(api: Arc<Api>, blobs: Arc<LocalBlobs>, cluster: Arc<Cluster>) {
    let runtime = tokio::runtime::Handle::current();
    let swept = tokio::task::spawn_blocking(move || {
        blobs.reconcile(cluster.epoch(), |digest, generation| {
            runtime
                .block_on(api.registry.is_live_copy(*digest, generation))
                .map_err(|error| Box::new(error) as _)
        })
    });
    match swept.await {
        Ok(Ok(swept)) if swept.removed > 0 => {
            info!(removed = swept.removed, live = swept.live, "orphaned blobs removed");
        }
        Ok(Ok(_)) => {}
        Ok(Err(error)) => {
            warn!(%error, "the sweep of orphaned blobs stopped; the next start tries again")
        }
        Err(error) => debug!(%error, "the sweep of orphaned blobs was cut short"),
    }
}
