//! Several nodes in this process, over real connections on the loopback.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nora_app::ports::BoxError;
use nora_app::ports::metadata::Metadata;
use nora_cluster::{Cluster, ClusterConfig, Transport, endpoint};
use nora_domain::{
    Action, AdmitNode, AuthorityKeys, ClusterId, Command, CreateJoinToken, FeatureLevel, NodeId,
    NodeProfile, Outcome, Terms, Timestamp, TokenId,
};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tonic::transport::Channel;

/// Connections without certificates: every caller is the member that its request says it is.
struct Plain {
    node: NodeId,
}

/// A loopback address below those that Linux gives to outgoing connections: one of them could take the address of a node
/// that restarts.
fn some_address() -> SocketAddr {
    let random = RandomState::new().build_hasher().finish();
    ([127, 0, 0, 1], 20_000 + (random % 12_000) as u16).into()
}

const CALLER: &str = "nora-test-caller";

impl Transport for Plain {
    fn channel(&self, _node: NodeId, address: &str) -> Result<Channel, BoxError> {
        let me = format!("{CALLER}-{}", self.node.0);
        Ok(endpoint(address)?.user_agent(me)?.connect_lazy())
    }

    fn caller(&self, extensions: &http::Extensions) -> Option<NodeId> {
        extensions.get::<NodeId>().copied()
    }

    fn renew(&self) {}

    fn has_older(&self) -> bool {
        false
    }
}

/// Tells the caller by what it says, as a server with certificates does by what they prove.
async fn tell_caller(
    mut request: axum::extract::Request,
    next: axum::middleware::Next,
) -> axum::response::Response {
    let agent = request.headers().get("user-agent").and_then(|agent| agent.to_str().ok());
    let caller = agent.and_then(|agent| {
        let (_, rest) = agent.split_once("nora-test-caller-")?;
        rest.split(' ').next()?.parse::<u64>().ok()
    });
    if let Some(caller) = caller {
        request.extensions_mut().insert(NodeId(caller));
    }
    next.run(request).await
}

/// Lets a snapshot come in slowly, and no further once the gate lets no more of it in, as when a cable is cut: until the
/// gate is shut. Connections also break by themselves on a busy machine, so what is sent anew is treated alike.
async fn slow_snapshot(
    axum::extract::State(gate): axum::extract::State<Arc<Gate>>,
    request: axum::extract::Request,
    next: axum::middleware::Next,
) -> axum::response::Response {
    use futures_util::{StreamExt, stream};
    let install = request.uri().path().ends_with("/InstallSnapshot");
    if !gate.is_slow || !install || *gate.released.borrow() {
        return next.run(request).await;
    }
    let request = request.map(|body| {
        let held = gate.clone();
        let some = body
            .into_data_stream()
            .then(async |data| {
                tokio::time::sleep(Duration::from_millis(100)).await;
                data
            })
            .take_while(move |_| std::future::ready(!held.no_more.load(Ordering::SeqCst)));
        let mut released = gate.released.subscribe();
        let broken = stream::once(async move {
            let _ = released.wait_for(|released| *released).await;
            Err(axum::Error::new(std::io::Error::other("the connection broke")))
        });
        axum::body::Body::from_stream(some.chain(broken))
    });
    next.run(request).await
}

/// A running node, with a runtime of its own, so that it can be killed as a process can.
pub struct Running {
    pub cluster: Arc<Cluster>,
    runtime: Option<Runtime>,
    gate: Arc<Gate>,
}

/// Where connections to a node pass; shut, it cuts them and lets none in.
#[derive(Default)]
pub struct Gate {
    shut: AtomicBool,
    silent: AtomicBool,
    no_more: AtomicBool,
    released: tokio::sync::watch::Sender<bool>,
    connections: Mutex<Vec<tokio::task::AbortHandle>>,
    /// Whether snapshots come in slowly, until the gate was shut.
    is_slow: bool,
}

impl Gate {
    /// Cuts connections; later ones are taken and never answered, as by a machine that hangs.
    pub fn silence(&self) {
        self.silent.store(true, Ordering::SeqCst);
        for connection in self.connections.lock().unwrap().drain(..) {
            connection.abort();
        }
    }

    /// Nothing of another snapshot comes in from now on.
    pub fn let_no_more(&self) {
        self.no_more.store(true, Ordering::SeqCst);
    }

    pub fn shut(&self, shut: bool) {
        self.shut.store(shut, Ordering::SeqCst);
        if shut {
            self.released.send_replace(true);
            for connection in self.connections.lock().unwrap().drain(..) {
                connection.abort();
            }
        }
    }
}

/// Nodes and where they keep their data.
pub struct Trio {
    pub directory: TempDir,
    configure: Box<dyn Fn(&mut ClusterConfig) + Send + Sync>,
    /// Whether snapshots come slowly to a node that is opened, until its gate was shut.
    pub snapshots_are_slow: bool,
    addresses: BTreeMap<u64, SocketAddr>,
    nodes: BTreeMap<u64, Running>,
}

pub const NAME: ClusterId = ClusterId(0xabcd);

pub fn authority() -> AuthorityKeys {
    AuthorityKeys { certificate: vec![1], key: vec![2] }
}

/// Waits until something is so.
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "never came: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Trio {
    /// The founder alone.
    pub fn found(configure: impl Fn(&mut ClusterConfig) + Send + Sync + 'static) -> Self {
        let mut trio = Self {
            directory: TempDir::new().unwrap(),
            configure: Box::new(configure),
            snapshots_are_slow: false,
            addresses: BTreeMap::new(),
            nodes: BTreeMap::new(),
        };
        trio.start(1);
        trio
    }

    /// A founder and two more voters.
    pub fn three(configure: impl Fn(&mut ClusterConfig) + Send + Sync + 'static) -> Self {
        let mut trio = Self::found(configure);
        for node in 2..=3 {
            trio.join(node);
        }
        trio
    }

    /// Admits a node, starts it, and makes it a voter.
    pub fn join(&mut self, node: u64) {
        self.admit(node);
        let leader = self.leader();
        self.open(node);
        let address = self.addresses[&node].to_string();
        self.block(leader, async move |cluster| {
            cluster.members().add_learner(NodeId(node), &address).await.unwrap();
        });
        self.enter(node);
        self.block(leader, async move |cluster| {
            cluster.members().promote(NodeId(node)).await.unwrap();
        });
    }

    pub fn admit(&self, node: u64) {
        let actions = [
            Action::CreateJoinToken(CreateJoinToken {
                token: TokenId(1),
                secret_hash: [1; 32],
                lives_millis: 1 << 50,
                uses: u32::MAX,
            }),
            Action::AdmitNode(AdmitNode {
                token: TokenId(1),
                secret_hash: [1; 32],
                key_hash: [node as u8; 32],
                profile: NodeProfile {
                    feature_max: FeatureLevel::NEWEST,
                    ..NodeProfile::default()
                },
            }),
        ];
        self.block(self.leader(), async move |cluster| {
            for action in actions {
                let command =
                    Command { at: Timestamp(0), origin: None, terms: Terms::NONE, action };
                let answer = cluster.propose(command).await.unwrap().unwrap();
                if let Outcome::AdmitNode(number) = answer {
                    assert_eq!(number, NodeId(node));
                }
            }
        });
    }

    /// Starts a node that was in the cluster before, or founds it.
    pub fn start(&mut self, node: u64) {
        self.open(node);
        if node == 1 {
            self.block(1, async |cluster| cluster.found(NAME, authority()).await.unwrap());
        }
        self.enter(node);
    }

    pub fn enter(&self, node: u64) {
        self.block(node, async |cluster| {
            cluster.enter().await.unwrap();
        });
    }

    /// Opens a node's stores and serves its services.
    pub fn open(&mut self, node: u64) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let before = self.addresses.get(&node).copied();
        let listener = runtime.block_on(async {
            loop {
                // After a kill the address may be taken for a moment longer.
                match TcpListener::bind(before.unwrap_or_else(some_address)).await {
                    Ok(listener) => return listener,
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        });
        let address = listener.local_addr().unwrap();
        self.addresses.insert(node, address);
        let mut config = ClusterConfig::new(self.directory.path().join(format!("node-{node}")));
        config.node = NodeId(node);
        config.address = address.to_string();
        (self.configure)(&mut config);
        let transport = Arc::new(Plain { node: NodeId(node) });
        let cluster = until("the stores of a killed node are free", || {
            runtime.block_on(Cluster::open(config.clone(), transport.clone())).ok()
        });
        let gate = Arc::new(Gate { is_slow: self.snapshots_are_slow, ..Gate::default() });
        let app = cluster
            .services()
            .layer(axum::middleware::from_fn(tell_caller))
            .layer(axum::middleware::from_fn_with_state(gate.clone(), slow_snapshot));
        runtime.spawn(serve(listener, app, gate.clone()));
        let running = Running { cluster: Arc::new(cluster), runtime: Some(runtime), gate };
        self.nodes.insert(node, running);
    }

    /// Ends a node as a crash does.
    pub fn kill(&mut self, node: u64) {
        let Running { cluster, runtime, .. } = self.nodes.remove(&node).unwrap();
        runtime.unwrap().shutdown_timeout(Duration::from_secs(5));
        drop(cluster);
    }

    /// Ends a node in order.
    pub fn stop(&mut self, node: u64) {
        self.block(node, async |cluster| cluster.shutdown().await.unwrap());
        self.kill(node);
    }

    pub fn gate(&self, node: u64) -> &Gate {
        &self.nodes[&node].gate
    }

    /// A connection of one node to another, as `from` makes them.
    pub fn channel(&self, from: u64, to: u64) -> Channel {
        let _guard = self.nodes[&from].runtime.as_ref().unwrap().enter();
        let address = self.addresses[&to].to_string();
        Plain { node: NodeId(from) }.channel(NodeId(to), &address).unwrap()
    }

    pub fn address(&self, node: u64) -> String {
        self.addresses[&node].to_string()
    }

    pub fn node(&self, node: u64) -> Arc<Cluster> {
        self.nodes[&node].cluster.clone()
    }

    pub fn running(&self) -> Vec<u64> {
        self.nodes.keys().copied().collect()
    }

    /// Runs something on a node's own threads.
    pub fn spawn<T: Send + 'static>(
        &self,
        node: u64,
        work: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.nodes[&node].runtime.as_ref().unwrap().spawn(work)
    }

    pub fn block<T>(&self, node: u64, work: impl AsyncFnOnce(&Cluster) -> T) -> T {
        let running = &self.nodes[&node];
        running.runtime.as_ref().unwrap().block_on(work(&running.cluster))
    }

    /// Who leads, as a majority of the running nodes sees it.
    pub fn leader(&self) -> u64 {
        until("a leader", || {
            let mut votes = BTreeMap::<u64, usize>::new();
            for running in self.nodes.values() {
                if let Some(leader) = running.cluster.status().leader {
                    *votes.entry(leader.0).or_default() += 1;
                }
            }
            let (leader, count) = votes.into_iter().max_by_key(|(_, count)| *count)?;
            let led = self.nodes.get(&leader)?.cluster.status();
            (count * 2 > self.nodes.len() && led.leader == Some(NodeId(leader))).then_some(leader)
        })
    }

    pub fn follower(&self) -> u64 {
        let leader = self.leader();
        self.running().into_iter().find(|node| *node != leader).unwrap()
    }
}

impl Drop for Trio {
    fn drop(&mut self) {
        for running in self.nodes.values_mut() {
            if let Some(runtime) = running.runtime.take() {
                runtime.shutdown_background();
            }
        }
    }
}

/// Serves HTTP/2 to whoever connects, through the gate.
async fn serve(listener: TcpListener, app: axum::Router, gate: Arc<Gate>) {
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use hyper_util::service::TowerToHyperService;
    while let Ok((connection, _)) = listener.accept().await {
        if gate.shut.load(Ordering::SeqCst) {
            continue;
        }
        if gate.silent.load(Ordering::SeqCst) {
            let hangs = tokio::spawn(async move {
                let _connection = connection;
                std::future::pending::<()>().await;
            });
            gate.connections.lock().unwrap().push(hangs.abort_handle());
            continue;
        }
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let service = TowerToHyperService::new(app.clone());
        let task = tokio::spawn(async move {
            let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(theirs), service);
            tokio::select! {
                _ = served => {}
                () = pass(connection, ours) => {}
            }
        });
        gate.connections.lock().unwrap().push(task.abort_handle());
    }
}

/// Passes bytes both ways until the connection ends.
async fn pass(mut connection: tokio::net::TcpStream, mut ours: tokio::io::DuplexStream) {
    let _ = connection.set_nodelay(true);
    let _ = tokio::io::copy_bidirectional(&mut connection, &mut ours).await;
}
