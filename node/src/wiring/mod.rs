//! The composition root: the only place that names concrete adapters, and the order in which a node comes up and
//! goes down.
//!
//! Up: data folder locked, both addresses bound, identity loaded, made or asked for; stores opened; both doors served, with
//! nothing to say yet to clients; the cluster entered, which gives this start its epoch; then requests are served, and
//! what goes on beside them begins. Down: not ready any more, no new connections, running transfers finish, another node
//! leads, metadata flushed, and only then the door for other members closes.

mod adapters;
mod audit_sink;
mod changes;
mod error;
mod identity;
mod jobs;
mod offline;
mod peers;
mod policy;
mod recover;
mod settings;
mod storage;
mod upkeep;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use nora_app::jobs::Jobs;
use nora_app::ports::clock::Clock;
use nora_app::{Dependencies, Registry};
use nora_cluster::{Cluster, JournalSegments, MutualTls, Roster, StartError, check_format};
use nora_domain::{AuthorityRecord, ClusterRecord, Epoch, Key, Record, StorageMode};
use nora_egress::Egress;
use nora_trust::Identity;
use tokio::net::TcpListener;
use tokio::sync::{RwLock, watch};
use tokio::task::JoinHandle;
use tracing::{debug, error, info, warn};

pub use adapters::keep_files_private;
pub use error::ServeError;
pub use offline::{Checked, check};
pub use recover::{Recovered, Recovery};

use crate::admin::{self, Admin};
use crate::descriptors::Shares;
use crate::jobs::Driver;
use crate::server::{Certificate, Door, Surface, serve, tls_config};
use adapters::{ClusterTime, NodeProbe, RandomIds, SystemClock, lock_data_dir};
use jobs::{ByConsensus, Parts};
use nora_cli::JoinArgs;
use nora_config::{Config, Loaded, as_toml};
use nora_http::downloads::Downloads;
use nora_http::metrics::Metrics;
use nora_http::{
    Api, LISTS_BYTES_MAX, body, forwarded_router, manifest_budget, router, waiting_router,
};
use nora_identity::{
    ADMIN_USER, AdminFile, AdminPasswords, Clocks, Guard, GuardSettings, Policies, shared_password,
};

use peers::{
    OverChannels, OwnReport, for_members, introduce, merged, not_for_removed, review, with_address,
};
use settings::{
    api_settings, cluster_config, load_certificate, members_config, peer_server_settings, profile,
    server_settings, settings,
};
use storage::Storage;

/// How long a call to another place may take, if the caller sets no other time.
const EGRESS_TIMEOUT: Duration = Duration::from_secs(10);

/// How long what waits to be written down may take when the node stops.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// The file with the administrator's password, and whether this start made it.
type Announced = (PathBuf, bool);

/// A door that is served until it is told to stop.
struct Open {
    surface: Surface,
    stop: watch::Sender<bool>,
    served: JoinHandle<usize>,
}

impl Open {
    fn new(door: Door, settings: crate::server::ServerSettings, metrics: &Arc<Metrics>) -> Self {
        let (stop, stopping) = watch::channel(false);
        let surface = door.surface.clone();
        let served = tokio::spawn(serve(door, settings, metrics.clone(), stopping));
        Self { surface, stop, served }
    }

    async fn close(self) {
        let _ = self.stop.send(true);
        if let Err(error) = self.served.await {
            error!(%error, "a server's task failed");
        }
    }
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServeError> {
    let listener =
        TcpListener::bind(address).await.map_err(|source| ServeError::Bind { address, source })?;
    let bound = listener.local_addr().unwrap_or(address);
    Ok((listener, bound))
}

/// Runs a node until `stop` completes, then lets what runs finish.
pub async fn run(
    loaded: Loaded,
    wish: JoinArgs,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let shown = as_toml(&loaded.effective, None);
    let config = loaded.config;
    let data_dir = config.storage.data_dir.clone();
    let drain = config.limits.drain_timeout;
    let forwarded = Arc::new(RwLock::new(()));
    // Before anything is touched: data of an earlier release stays as it is.
    check_format(&data_dir.join("metadata"))
        .map_err(|source| ServeError::DataDir { path: data_dir.clone(), source })?;
    let _lock = lock_data_dir(&data_dir)?;
    let certificate = load_certificate(&config)?;
    let (http, http_address) = bind(config.server.listen).await?;
    let (peer, peer_address) = bind(config.cluster.listen).await?;
    let profile = profile(&config, http_address, peer_address, certificate.is_some());
    let metadata_dir = data_dir.join("metadata");
    let identity = identity::establish(&data_dir, &metadata_dir, &wish, &profile).await?;
    let identity = Arc::new(identity);

    let transport = Arc::new(MutualTls::new(identity.clone()));
    let cluster = Cluster::open(cluster_config(&config, identity.node(), profile), transport)
        .await
        .map_err(ServeError::Metadata)?;
    let cluster = Arc::new(cluster);
    let wall: Arc<dyn Clock> = Arc::new(SystemClock);
    let storage = Storage::open(&config, &cluster, &wall).await?;
    let report = OwnReport::new(data_dir.clone());
    report.tell_storage(storage.clone());
    let roster =
        Roster::new(cluster.clone(), identity.clone(), report.clone(), members_config(&config));

    let allowed = Shares::now().connections;
    if config.limits.connections_max > allowed {
        warn!(
            configured = config.limits.connections_max,
            allowed,
            "fewer connections than limits.connections_max are taken: the system lets this process open too few files; raise \
             its limit (ulimit -n, LimitNOFILE), or lower limits.connections_max"
        );
    }
    let metrics = Arc::new(Metrics::new(nora_http::routes()));
    let joins = with_address(roster.services());
    let inner = cluster.members_only(merged([cluster.services(), storage.exchange()]));
    let between_members = merged([inner, joins]);
    let peer_door = Open::new(
        Door {
            listener: peer,
            surface: Arc::new(ArcSwap::from_pointee(between_members.clone())),
            tls: Some(identity.server_config()),
            introduce: Some(introduce(identity.clone())),
            review: Some(review(identity.clone(), &cluster)),
        },
        peer_server_settings(&config),
        &metrics,
    );
    let tls = match certificate.clone() {
        Some(certificate) => Some(Arc::new(
            tls_config(certificate).map_err(|error| ServeError::Tls(Box::new(error)))?,
        )),
        None => None,
    };
    let entered = watch::Sender::new(None);
    let http_door = Open::new(
        Door {
            listener: http,
            surface: Arc::new(ArcSwap::from_pointee(waiting_router(entered.subscribe()))),
            tls,
            introduce: None,
            review: None,
        },
        server_settings(&config),
        &metrics,
    );
    info!(node = identity.node().0, "cluster port on https://{peer_address}");
    leave_address(&data_dir, peer_address);

    let mut stop = Box::pin(stop);
    let mut membership = Driver::new(wall.clone(), Arc::new(ByConsensus(cluster.clone())));
    roster.jobs().into_iter().for_each(|job| membership.add(job));
    let epoch = tokio::select! {
        epoch = enter(&cluster, &identity) => Some(epoch),
        () = roster.removed() => Some(Err(ServeError::Removed(identity.node()))),
        () = &mut stop => None,
    };
    let outcome = match epoch {
        // Requests that waited are told so.
        None => {
            drop(entered);
            Ok(())
        }
        Some(Err(error)) => {
            drop(entered);
            Err(error)
        }
        Some(Ok(epoch)) => {
            let node = Node {
                config,
                shown,
                certificate,
                identity,
                cluster: cluster.clone(),
                wall,
                storage,
                report,
                roster,
                metrics,
                between_members,
                forwarded: forwarded.clone(),
                driver: membership.another(),
            };
            let surfaces = Surfaces { http: &http_door.surface, peer: &peer_door.surface, entered };
            node.serve(epoch, http_address, surfaces, stop).await
        }
    };
    info!("stopping: running transfers may finish");
    http_door.close().await;
    // Uploads that others pass through to this node may finish too; later ones are turned away with the connection.
    let quiet = tokio::time::timeout(drain, forwarded.write_owned()).await;
    if quiet.is_err() {
        warn!("cut off: requests that other nodes passed on still run");
    }
    membership.stop().await;
    if let Err(error) = cluster.shutdown().await {
        // What was acknowledged is in the log on disk; the next start replays it.
        warn!(%error, "the metadata was not closed in order");
    }
    peer_door.close().await;
    if outcome.is_ok() {
        info!("stopped");
    }
    outcome
}

/// Founds the cluster if this node is to, and enters it: waits for as long as it takes for a majority to be there.
async fn enter(cluster: &Cluster, identity: &Identity) -> Result<Epoch, ServeError> {
    if let Some(authority) = identity.founding_authority().map_err(ServeError::Identity)? {
        cluster.found(identity.cluster(), authority).await.map_err(ServeError::Metadata)?;
    }
    loop {
        match cluster.enter().await {
            Ok(epoch) => {
                identity.authority_committed().map_err(ServeError::Identity)?;
                return Ok(epoch);
            }
            Err(StartError::NoLeader { within, source }) => {
                warn!(?within, %source, "still waiting for a majority of the cluster's voters");
            }
            Err(StartError::Removed { node }) => return Err(ServeError::Removed(node)),
            Err(error) => return Err(ServeError::Metadata(error)),
        }
    }
}

/// Leaves the address of the cluster port in the data folder, for the command line. Without it, the address has to be
/// said.
fn leave_address(data_dir: &Path, mut address: SocketAddr) {
    if address.ip().is_unspecified() {
        // This machine reaches itself.
        let loopback: std::net::IpAddr = match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        };
        address.set_ip(loopback);
    }
    let path = data_dir.join("cluster-address");
    if let Err(error) = std::fs::write(&path, format!("{address}\n")) {
        warn!(path = %path.display(), %error, "the command line will need --cluster-addr");
    }
}

/// What the node's doors lead to.
struct Surfaces<'a> {
    http: &'a Surface,
    peer: &'a Surface,
    /// For requests that came before the node had entered its cluster.
    entered: watch::Sender<Option<Router>>,
}

/// A node that has entered its cluster.
struct Node {
    config: Config,
    shown: String,
    certificate: Option<Arc<Certificate>>,
    identity: Arc<Identity>,
    cluster: Arc<Cluster>,
    /// This machine's clock.
    wall: Arc<dyn Clock>,
    storage: Storage,
    report: Arc<OwnReport>,
    roster: Roster,
    metrics: Arc<Metrics>,
    between_members: Router,
    forwarded: Arc<RwLock<()>>,
    /// Runs this node's jobs while it serves.
    driver: Driver,
}

impl Node {
    /// Serves until it is told to stop, or has to.
    async fn serve(
        mut self,
        epoch: Epoch,
        address: SocketAddr,
        surfaces: Surfaces<'_>,
        stop: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        self.storage.check().await?;
        self.agree_on_storage().await?;
        let data_dir = &self.config.storage.data_dir;
        let authority = self.authority().await?;
        let policies = Policies::none().map_err(|error| ServeError::Policy(Box::new(error)))?;
        let policies = Arc::new(policies);
        let draining = Arc::new(AtomicBool::new(false));
        let node = self.cluster.node_id();
        let registry = Registry::new(Dependencies {
            metadata: self.cluster.clone(),
            blobs: self.storage.blobs(),
            uploads: self.storage.uploads(),
            finish: self.storage.finish(),
            clock: Arc::new(ClusterTime(self.cluster.clone())),
            wall: self.wall.clone(),
            ids: Arc::new(RandomIds::new(node)),
            tenancy: policies.clone(),
            segments: Arc::new(JournalSegments),
            node,
            epoch,
            settings: settings(&self.config),
        });
        let own = &self.config.policy;
        policy::bring(own, &registry, &policies, &self.roster).await?;
        let egress = self.egress()?;
        let (guard, admin) =
            self.guard(address, authority.as_ref(), &registry, &policies, egress.clone())?;
        guard.reload().await.map_err(|error| ServeError::Policy(Box::new(error)))?;
        if let Err(error) = guard.make_keys().await {
            debug!(%error, "no other signing key yet");
        }
        let overview: Arc<dyn Jobs> = Arc::new(self.driver.overview());
        let api = Arc::new(Api {
            registry: registry.clone(),
            probe: Arc::new(NodeProbe {
                cluster: self.cluster.clone(),
                data_dir: data_dir.clone(),
                draining: draining.clone(),
            }),
            metrics: self.metrics.clone(),
            guard: guard.clone(),
            peers: Arc::new(OverChannels(self.cluster.clone())),
            forwarded: self.forwarded.clone(),
            bodies: manifest_budget(self.config.limits.manifest_bytes_max.bytes_usize()),
            lists: body::Budget::of(LISTS_BYTES_MAX),
            parsing: body::Budget::of(LISTS_BYTES_MAX),
            downloads: Downloads::of(Shares::now().downloads),
            settings: api_settings(&self.config),
        });
        let (cluster, storage) = (self.cluster.clone(), self.storage.clone());
        upkeep::fill_gauges(&self.metrics, cluster, storage, overview.clone());
        let admin_api = admin::router(Arc::new(Admin {
            api: api.clone(),
            members: Arc::new(self.roster.clone()),
            reporter: self.report.clone(),
            upkeep: Arc::new(self.storage.clone()),
            jobs: overview,
            config: self.shown.clone(),
            policy: self.config.policy.clone(),
        }));
        let forwarded = for_members(self.cluster.clone(), forwarded_router(&api));
        let admin_api = not_for_removed(self.cluster.clone(), admin_api);
        let members = self.between_members.clone();
        surfaces.peer.store(Arc::new(merged([members, admin_api, forwarded])));
        let surface = router(&api);
        surfaces.http.store(Arc::new(surface.clone()));
        surfaces.entered.send_replace(Some(surface));
        announce(&self.config, address, &guard, admin.as_ref(), self.certificate.is_some());

        let mut tasks = tokio::task::JoinSet::new();
        upkeep::start(&mut tasks, &self.storage, &self.cluster, &registry, &self.metrics);
        let parts = Parts {
            config: &self.config,
            wall: &self.wall,
            cluster: &self.cluster,
            registry: &registry,
            guard: &guard,
            policies: &policies,
            egress: &egress,
            storage: &self.storage,
            certificate: self.certificate.as_ref(),
        };
        parts.jobs().into_iter().for_each(|job| self.driver.add(job));
        let outcome = tokio::select! {
            () = stop => Ok(()),
            reason = self.cluster.stopped() => Err(ServeError::Stopped(reason)),
            () = self.roster.removed() => Err(ServeError::Removed(self.identity.node())),
        };
        draining.store(true, Ordering::Relaxed);
        tasks.shutdown().await;
        self.driver.stop().await;
        if outcome.is_ok() {
            // What is not written within a moment is not worth waiting for: the node may have lost its majority.
            let flush = async {
                guard.flush().await;
                if let Err(error) = registry.artifacts().write_pulls().await {
                    warn!(%error, "the last pulls were not written down");
                }
            };
            let _ = tokio::time::timeout(FLUSH_TIMEOUT, flush).await;
        }
        outcome
    }

    /// Calls other places, where this node's configuration lets it.
    fn egress(&self) -> Result<Egress, ServeError> {
        let networks = self.config.server.egress_networks.clone();
        let is_allowed = move |address| networks.iter().any(|network| network.contains(address));
        Egress::new(is_allowed, EGRESS_TIMEOUT).map_err(|error| ServeError::Egress(Box::new(error)))
    }

    /// Recognises callers: with an administrator's password wherever not everybody may do everything.
    fn guard(
        &self,
        address: SocketAddr,
        authority: Option<&AuthorityRecord>,
        registry: &Registry,
        policies: &Arc<Policies>,
        egress: Egress,
    ) -> Result<(Arc<Guard>, Option<Announced>), ServeError> {
        let is_loopback = address.ip().is_loopback();
        let has_auth = policies.in_force().policy().has_auth() || self.config.policy.auth.is_some();
        // A cluster that gets logins later has an administrator already: the password that all nodes know.
        let file = match authority {
            Some(authority) if !is_loopback || has_auth => {
                let shared = shared_password(&authority.secret);
                let data_dir = &self.config.storage.data_dir;
                Some(AdminFile::open(data_dir, &shared).map_err(ServeError::Admin)?)
            }
            _ => None,
        };
        let chosen = file.as_ref().and_then(AdminFile::chosen);
        let announced = file.as_ref().map(|file| (file.path().to_owned(), file.is_new()));
        let settings = GuardSettings {
            is_loopback,
            admin: chosen.map(|chosen| AdminPasswords::new([chosen])),
            admin_file: file,
            login_failures_max: u32::try_from(self.config.limits.login_failures_max)
                .unwrap_or(u32::MAX),
            login_window: self.config.limits.login_window,
            egress,
        };
        let cluster = Arc::new(ClusterTime(self.cluster.clone()));
        let clocks = Clocks { cluster, wall: self.wall.clone() };
        let guard = Guard::new(registry.clone(), clocks, policies.clone(), settings)
            .map_err(ServeError::Admin)?;
        Ok((guard, announced))
    }

    /// Makes sure that this node keeps blobs where the cluster does: elsewhere, no other node would find them.
    async fn agree_on_storage(&self) -> Result<(), ServeError> {
        use nora_app::ports::metadata::Metadata;
        let cluster = self.cluster.get(Key::Cluster).await.map_err(ServeError::Unreadable)?;
        let Some(Record::Cluster(ClusterRecord { storage: Some(cluster), .. })) = cluster else {
            return Ok(());
        };
        let own = settings::storage(&self.config);
        if own.mode != cluster.mode {
            return Err(ServeError::OtherStorage { own: own.mode, cluster: cluster.mode });
        }
        if cluster.mode == StorageMode::Local && own.replicas != cluster.replicas {
            warn!(
                configured = own.replicas,
                cluster = cluster.replicas,
                "cluster.replicas says something else than the cluster, which keeps its number of copies: 'nora cluster replicas' changes it"
            );
        }
        Ok(())
    }

    async fn authority(&self) -> Result<Option<AuthorityRecord>, ServeError> {
        use nora_app::ports::metadata::Metadata;
        match self.cluster.get(Key::Authority).await.map_err(ServeError::Unreadable)? {
            Some(Record::Authority(authority)) => Ok(Some(authority)),
            _ => Ok(None),
        }
    }
}

/// The start-up lines: where, with what, and who may come in.
fn announce(
    config: &Config,
    address: SocketAddr,
    guard: &Guard,
    admin: Option<&Announced>,
    tls: bool,
) {
    let scheme = if tls { "https" } else { "http" };
    info!(
        version = env!("CARGO_PKG_VERSION"),
        data_dir = %config.storage.data_dir.display(),
        "listening on {scheme}://{address}"
    );
    match admin {
        None if !guard.is_open() => info!("login needed: as [auth] says"),
        None => info!(
            "open to everyone on this machine: anyone who reaches {address} may push and pull"
        ),
        Some((path, is_new)) => {
            let made = if *is_new { "made on this start" } else { "made earlier" };
            info!("login needed: user {ADMIN_USER}, password in {} ({made})", path.display());
            if !tls && !address.ip().to_canonical().is_loopback() {
                warn!(
                    "{address} is not this machine alone and speaks plain HTTP: set [server.tls], or end TLS before it"
                );
            }
        }
    }
}
