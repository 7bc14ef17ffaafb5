//! Nodes in this process that know each other by their certificates, as they do in earnest.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper_util::rt::{TokioExecutor, TokioIo};
use nora_app::jobs::{Job, Next};
use nora_app::ports::BoxFuture;
use nora_app::ports::members::{Member, Members, NodeReport, Reporter};
use nora_cluster::{Cluster, ClusterConfig, JoinError, MembersConfig, MutualTls, Roster, join};
use nora_domain::{Actor, ClusterId, FeatureLevel, NodeId, NodeProfile};
use nora_trust::Identity;
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tonic::transport::Channel;
use tower::ServiceExt;

pub const CLUSTER: ClusterId = ClusterId(0xc1);

struct Telling(NodeId);

impl Reporter for Telling {
    fn report(&self) -> BoxFuture<'_, NodeReport> {
        let report = NodeReport { blobs_held: self.0.0 * 100, ..NodeReport::default() };
        Box::pin(std::future::ready(report))
    }
}

/// A node with its cluster port.
pub struct Node {
    pub cluster: Arc<Cluster>,
    pub roster: Roster,
    pub identity: Arc<Identity>,
    pub address: SocketAddr,
    pub dir: TempDir,
    upkeep: Option<JoinSet<()>>,
    server: JoinSet<()>,
}

/// Runs jobs until what is returned is dropped.
fn run(jobs: Vec<Arc<dyn Job>>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for job in jobs {
        tasks.spawn(async move {
            loop {
                let pause = match job.turn().await.map(|turn| turn.next) {
                    Ok(Next::AtOnce) => Duration::ZERO,
                    Ok(Next::After(pause)) => pause,
                    Ok(Next::Scheduled) => job.schedule().every,
                    Err(_) => job.schedule().every.min(Duration::from_millis(100)),
                };
                tokio::time::sleep(pause).await;
            }
        });
    }
    tasks
}

async fn serve(listener: TcpListener, identity: Arc<Identity>, router: axum::Router) {
    let mut connections = JoinSet::new();
    loop {
        let (plain, _) = listener.accept().await.unwrap();
        let (identity, router) = (identity.clone(), router.clone());
        connections.spawn(async move {
            let acceptor = TlsAcceptor::from(identity.server_config());
            let Ok(stream) = acceptor.accept(plain).await else { return };
            let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let Ok(peer) = identity.peer_of(shown) else { return };
            let service = hyper::service::service_fn(
                move |mut request: hyper::Request<hyper::body::Incoming>| {
                    request.extensions_mut().insert(peer);
                    let router = router.clone();
                    async move {
                        let answer = router.oneshot(request.map(axum::body::Body::new)).await;
                        Ok::<_, Infallible>(answer.unwrap())
                    }
                },
            );
            let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

pub fn profile(address: SocketAddr) -> NodeProfile {
    NodeProfile {
        cluster_address: address.to_string(),
        weight: 1,
        version: "1.2.3".to_owned(),
        feature_max: FeatureLevel::NEWEST,
        ..NodeProfile::default()
    }
}

pub fn quick() -> MembersConfig {
    MembersConfig { look_interval: Duration::from_millis(50), ..MembersConfig::default() }
}

impl Node {
    async fn open(
        dir: TempDir,
        listener: TcpListener,
        identity: Identity,
        members: MembersConfig,
    ) -> Self {
        let identity = Arc::new(identity);
        let address = listener.local_addr().unwrap();
        let config = ClusterConfig {
            node: identity.node(),
            profile: profile(address),
            address: address.to_string(),
            start_timeout: Duration::from_secs(20),
            ..ClusterConfig::new(dir.path().join("metadata"))
        };
        identity.bind(&config.data_dir).unwrap();
        let transport = Arc::new(MutualTls::new(identity.clone()));
        let cluster = Arc::new(Cluster::open(config, transport).await.unwrap());
        let reporter = Arc::new(Telling(identity.node()));
        let roster = Roster::new(cluster.clone(), identity.clone(), reporter, members);
        let router = cluster.services().merge(roster.services());
        let mut server = JoinSet::new();
        server.spawn(serve(listener, identity.clone(), router));
        let upkeep = Some(run(roster.jobs()));
        Self { cluster, roster, identity, address, dir, upkeep, server }
    }

    /// The first node.
    pub async fn found(members: MembersConfig) -> Self {
        let dir = TempDir::new().unwrap();
        let identity = Identity::found(dir.path(), CLUSTER).unwrap();
        let authority = identity.founding_authority().unwrap().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let node = Self::open(dir, listener, identity, members).await;
        node.cluster.found(CLUSTER, authority).await.unwrap();
        node.cluster.enter().await.unwrap();
        node.identity.authority_committed().unwrap();
        node
    }

    /// A node that joins by way of this one, and has entered.
    pub async fn admit(&self, members: MembersConfig) -> Self {
        let token = self.roster.create_join_token(Actor::default(), 60_000, 1).await.unwrap();
        let dir = TempDir::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let identity = self.join(&token, profile(address), dir.path()).await.unwrap();
        let node = Self::open(dir, listener, identity, members).await;
        node.cluster.enter().await.unwrap();
        node
    }

    /// Asks this node to let another one in.
    pub async fn join(
        &self,
        token: &str,
        profile: NodeProfile,
        dir: &Path,
    ) -> Result<Identity, JoinError> {
        join(&self.address.to_string(), token, profile, dir, Duration::from_secs(10)).await
    }

    /// This node is gone, as if its machine were switched off.
    pub async fn switch_off(&mut self) {
        self.server.abort_all();
        self.upkeep = None;
        while self.server.join_next().await.is_some() {}
    }

    /// Nobody reaches this node, but it runs on.
    pub async fn cut(&mut self) {
        self.server.abort_all();
        while self.server.join_next().await.is_some() {}
    }

    /// It is reached again, where it was.
    pub async fn mend(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        let router = self.cluster.services().merge(self.roster.services());
        self.server.spawn(serve(listener, self.identity.clone(), router));
    }

    /// Starts a node anew that was switched off and shut down.
    pub async fn reopen(self, members: MembersConfig) -> Self {
        self.reopen_after(members, |_| {}).await
    }

    /// The same, after something happened to its folder.
    pub async fn reopen_after(self, members: MembersConfig, before: impl FnOnce(&Path)) -> Self {
        let Self { cluster, roster, identity, address, dir, .. } = self;
        drop((cluster, roster, identity));
        before(dir.path());
        let identity = Identity::load(dir.path()).unwrap().unwrap();
        let listener = TcpListener::bind(address).await.unwrap();
        Self::open(dir, listener, identity, members).await
    }

    pub async fn member(&self, node: u64) -> Option<Member> {
        let view = self.roster.view().await.unwrap();
        view.members.into_iter().find(|member| member.node == NodeId(node))
    }

    /// A connection to this node with other certificates than a member's.
    pub async fn dial(&self, config: rustls::ClientConfig, name: &str) -> Option<Channel> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let plain = TcpStream::connect(self.address).await.unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, plain).await.ok()?;
        let mut stream = Some(TokioIo::new(stream));
        let connector = tower::service_fn(move |_: http::Uri| {
            let stream = stream.take();
            async move { stream.ok_or_else(|| std::io::Error::other("one connection only")) }
        });
        let endpoint = nora_cluster::endpoint("test.nora.internal").unwrap();
        endpoint.connect_with_connector(connector).await.ok()
    }
}

/// Waits for a condition, which comes or the test fails.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
