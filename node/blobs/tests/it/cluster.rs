//! Several stores in one process: real files, real gRPC over the loopback, the real transition in memory.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use nora_app::jobs::{Job, Next};
use nora_app::ports::BoxFuture;
use nora_app::ports::blobs::{BlobCopy, Blobs, Delivery};
use nora_app::ports::changes::{ChangeSource, Changes, Cursor};
use nora_app::ports::clock::Clock;
use nora_app::ports::metadata::{Metadata, MetadataError};
use nora_app::ports::uploads::UploadError;
use nora_app::testkit::{ManualClock, MemoryMetadata, Uploads};
use nora_blobs::{LocalBlobs, Peers, ReplicatedBlobs, ReplicatedBlobsConfig};
use nora_domain::{
    Action, AddHolder, AdmitNode, AuthorityKeys, BlobRecord, ClusterId, Command, CommitBlob,
    CreateJoinToken, Digest, DropHolder, Epoch, Event, FeatureLevel, FoundCluster, Generation,
    Head, Key, NodeId, NodeProfile, NodeRecord, Outcome, Placement, Record, Refusal, Rows,
    SetStanding, SharedSecret, Standing, StartNode, Storage, StorageMode, Terms, Timestamp,
    TokenId, UploadId, placement::Candidate, placement::desired,
};
use nora_trust::Peer;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tonic::transport::{Channel, Endpoint};

use crate::support::{body, config, files_below, open_session, read, repository, sha256};

/// How long anything that must happen may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// The log that all nodes share: what is proposed is applied, and told to every node.
pub(crate) struct Log {
    state: MemoryMetadata,
    listeners: RwLock<Vec<UnboundedSender<Option<Event>>>>,
    scanned: AtomicU64,
    got: AtomicU64,
}

impl Log {
    fn tell(&self, event: &Event) {
        for listener in self.listeners.read().unwrap().iter() {
            // A node that was killed does not listen any more.
            let _ = listener.send(Some(event.clone()));
        }
    }

    /// Rows of scans, and single rows, that were read since this was last asked.
    pub(crate) fn reads(&self) -> (u64, u64) {
        (self.scanned.swap(0, Ordering::SeqCst), self.got.swap(0, Ordering::SeqCst))
    }
}

/// What happens from a node's start on; `None` stands for events that were missed.
struct Feed(tokio::sync::Mutex<UnboundedReceiver<Option<Event>>>);

impl ChangeSource for Feed {
    fn after(&self, cursor: Option<Cursor>) -> BoxFuture<'_, Result<Changes, MetadataError>> {
        Box::pin(async move {
            let next = Cursor(cursor.map_or(0, |cursor| cursor.0) + 1);
            match self.0.lock().await.recv().await {
                Some(Some(event)) => Ok(Changes::Events { events: vec![Arc::new(event)], next }),
                Some(None) => Ok(Changes::Behind { next }),
                None => std::future::pending().await,
            }
        })
    }
}

/// Runs a job for as long as it is polled.
pub(crate) async fn run(job: Arc<dyn Job>) {
    loop {
        let pause = match job.turn().await.map(|turn| turn.next) {
            Ok(Next::AtOnce) => Duration::ZERO,
            Ok(Next::After(pause)) => pause,
            Ok(Next::Scheduled) => job.schedule().every,
            Err(_) => Duration::from_millis(100),
        };
        tokio::select! {
            () = job.woken() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

fn event_of(action: &Action) -> Option<Event> {
    match action {
        Action::CommitBlob(CommitBlob { digest, .. })
        | Action::AddHolder(AddHolder { digest, .. })
        | Action::DropHolder(DropHolder { digest, .. }) => {
            Some(Event::BlobPlaced { digest: *digest })
        }
        Action::StartNode(StartNode { node, .. })
        | Action::SetStanding(SetStanding { node, .. }) => Some(Event::NodeChanged { node: *node }),
        _ => None,
    }
}

impl Metadata for Log {
    fn propose(
        &self,
        command: Command,
    ) -> BoxFuture<'_, Result<Result<Outcome, Refusal>, MetadataError>> {
        Box::pin(async move {
            let event = event_of(&command.action);
            let answer = self.state.propose(command).await;
            if let (Ok(Ok(_)), Some(event)) = (&answer, event) {
                self.tell(&event);
            }
            answer
        })
    }

    fn linearize(&self) -> BoxFuture<'_, Result<(), MetadataError>> {
        self.state.linearize()
    }

    fn head(&self) -> BoxFuture<'_, Result<Head, MetadataError>> {
        self.state.head()
    }

    fn get(&self, key: Key) -> BoxFuture<'_, Result<Option<Record>, MetadataError>> {
        self.got.fetch_add(1, Ordering::SeqCst);
        self.state.get(key)
    }

    fn scan(
        &self,
        rows: Rows,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(Key, Record)>, MetadataError>> {
        Box::pin(async move {
            let rows = self.state.scan(rows, limit).await?;
            self.scanned.fetch_add(rows.len() as u64, Ordering::SeqCst);
            Ok(rows)
        })
    }
}

/// Where nodes are; each node has channels of its own.
#[derive(Default)]
struct Book(Mutex<HashMap<NodeId, SocketAddr>>);

struct Dialler {
    book: Arc<Book>,
    channels: Mutex<HashMap<SocketAddr, Channel>>,
}

impl Peers for Dialler {
    fn channel(&self, node: NodeId) -> Option<Channel> {
        let address = *self.book.0.lock().unwrap().get(&node)?;
        let dial = || {
            let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
            endpoint.connect_timeout(Duration::from_secs(1)).connect_lazy()
        };
        Some(self.channels.lock().unwrap().entry(address).or_insert_with(dial).clone())
    }
}

/// A node: its store, its server and its background work on threads of their own.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) epoch: Epoch,
    pub(crate) blobs: ReplicatedBlobs,
    pub(crate) address: SocketAddr,
    pub(crate) clock: Arc<ManualClock>,
    changes: UnboundedSender<Option<Event>>,
    runtime: Option<Runtime>,
    dir: Arc<tempfile::TempDir>,
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Node {
    /// The node misses events.
    pub(crate) fn missed(&self) {
        self.changes.send(None).unwrap();
    }

    pub(crate) fn uploads(&self) -> Uploads<'_> {
        Uploads::new(self.blobs.sessions(), &self.blobs)
    }

    pub(crate) fn port(&self) -> &dyn Blobs {
        &self.blobs
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn files(&self, folder: &str) -> Vec<String> {
        files_below(&self.path(folder))
    }

    pub(crate) fn file_of(&self, copy: &BlobCopy) -> PathBuf {
        let hex = copy.digest.hex();
        let Generation { epoch, sequence } = copy.generation;
        self.path(&format!("blobs/sha256/{}/{hex}.{}-{sequence}", &hex[..2], epoch.0))
    }

    pub(crate) async fn read(&self, copy: &BlobCopy) -> Vec<u8> {
        let blob = self.port().open(copy.clone()).await.unwrap();
        read(&blob, 0..copy.size, Delivery::Process).await
    }
}

/// A cluster with as many replicas as told.
pub(crate) struct Cluster {
    pub(crate) log: Arc<Log>,
    pub(crate) nodes: Vec<Node>,
    book: Arc<Book>,
    replicas: usize,
    sequence: u64,
}

pub(crate) fn profile(zone: &str) -> NodeProfile {
    NodeProfile {
        feature_max: FeatureLevel::NEWEST,
        zone: zone.to_owned(),
        ..NodeProfile::default()
    }
}

impl Cluster {
    pub(crate) async fn of(nodes: usize, replicas: usize) -> Self {
        let state = MemoryMetadata::default();
        let log = Arc::new(Log {
            state,
            listeners: RwLock::default(),
            scanned: AtomicU64::new(0),
            got: AtomicU64::new(0),
        });
        let mut cluster =
            Self { log, nodes: Vec::new(), book: Arc::default(), replicas, sequence: 0 };
        let authority = AuthorityKeys { certificate: vec![1], key: vec![2] };
        let storage = Storage { mode: StorageMode::Local, replicas: replicas as u32 };
        let found = FoundCluster {
            cluster: ClusterId(7),
            authority,
            secret: SharedSecret([7; 32]),
            storage,
        };
        cluster.must(Action::FoundCluster(found)).await;
        for _ in 0..nodes {
            cluster.add().await;
        }
        cluster
    }

    pub(crate) async fn must(&self, action: Action) -> Outcome {
        let command = Command { at: Timestamp(1000), origin: None, terms: Terms::NONE, action };
        self.log.propose(command).await.unwrap().unwrap()
    }

    /// Lets a node in, starts it, and tells its number.
    pub(crate) async fn add(&mut self) -> NodeId {
        let id = if self.nodes.is_empty() { NodeId(1) } else { self.admit().await };
        let dir = Arc::new(tempfile::tempdir().unwrap());
        self.start(id, dir).await;
        id
    }

    async fn admit(&self) -> NodeId {
        let (token, secret_hash) = (TokenId(1), [9; 32]);
        let create = CreateJoinToken { token, secret_hash, lives_millis: u64::MAX, uses: 1_000 };
        self.must(Action::CreateJoinToken(create)).await;
        let key_hash = [self.nodes.len() as u8; 32];
        let profile = profile("");
        match self
            .must(Action::AdmitNode(AdmitNode { token, secret_hash, key_hash, profile }))
            .await
        {
            Outcome::AdmitNode(node) => node,
            other => panic!("{other:?}"),
        }
    }

    async fn start(&mut self, id: NodeId, dir: Arc<tempfile::TempDir>) {
        let start =
            Action::StartNode(StartNode { node: id, start: 0, replaces: 0, profile: profile("") });
        let Outcome::StartNode(epoch) = self.must(start).await else { panic!("no epoch") };
        let local =
            LocalBlobs::open(nora_blobs::LocalBlobsConfig { node: id, ..config(dir.path()) });
        let clock = Arc::new(ManualClock::at(Timestamp(1000)));
        let dialler = Dialler { book: Arc::clone(&self.book), channels: Mutex::default() };
        let blobs = ReplicatedBlobs::open(
            local.unwrap(),
            Arc::clone(&self.log) as Arc<dyn Metadata>,
            Arc::new(dialler),
            Arc::clone(&clock) as Arc<dyn Clock>,
            ReplicatedBlobsConfig {
                replicas: self.replicas,
                repair_rate: None,
                cache_bytes_max: 64 << 20,
                linger: Duration::ZERO,
                scrub_interval: Duration::from_secs(30 * 86_400),
            },
        )
        .unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let router = blobs.exchange().layer(axum::Extension(Peer::Member { node: NodeId(1) }));
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, router).await
        });
        let (changes, feed) = unbounded_channel();
        changes.send(None).unwrap();
        self.log.listeners.write().unwrap().push(changes.clone());
        let background = blobs.clone();
        let feed = Arc::new(Feed(tokio::sync::Mutex::new(feed)));
        runtime.spawn(async move { background.run(feed).await });
        for job in blobs.jobs() {
            runtime.spawn(run(job));
        }
        self.book.0.lock().unwrap().insert(id, address);
        let runtime = Some(runtime);
        self.nodes.retain(|node| node.id != id);
        self.nodes.push(Node { id, epoch, blobs, address, clock, changes, runtime, dir });
        self.nodes.sort_by_key(|node| node.id);
    }

    pub(crate) fn node(&self, id: u64) -> &Node {
        self.nodes.iter().find(|node| node.id == NodeId(id)).unwrap()
    }

    /// The node's connections break, and nobody answers there any more.
    pub(crate) fn kill(&mut self, id: u64) {
        let node = self.nodes.iter_mut().find(|node| node.id == NodeId(id)).unwrap();
        node.runtime.take().unwrap().shutdown_background();
    }

    /// Whatever is sent to the node from now on arrives at somebody who never answers.
    pub(crate) fn silence(&self, id: u64) -> std::net::TcpListener {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        self.book.0.lock().unwrap().insert(NodeId(id), silent.local_addr().unwrap());
        silent
    }

    pub(crate) async fn restart(&mut self, id: u64) {
        let dir = Arc::clone(&self.node(id).dir);
        if self.node(id).runtime.is_some() {
            self.kill(id);
        }
        self.start(NodeId(id), dir).await;
    }

    pub(crate) async fn stand(&self, id: u64, standing: Standing) {
        self.must(Action::SetStanding(SetStanding { node: NodeId(id), standing })).await;
    }

    /// Uploads bytes to a node, without telling the log.
    pub(crate) async fn upload(
        &mut self,
        id: u64,
        bytes: &[u8],
    ) -> (UploadId, Result<BlobCopy, UploadError>) {
        self.sequence += 1;
        let node = self.node(id);
        let upload = open_session(node.uploads(), u128::from(self.sequence)).await;
        node.uploads().append(upload, Some(0), body(bytes, 100_000)).await.unwrap();
        (upload, self.finish(id, upload, bytes).await)
    }

    pub(crate) async fn finish(
        &self,
        id: u64,
        upload: UploadId,
        bytes: &[u8],
    ) -> Result<BlobCopy, UploadError> {
        let node = self.node(id);
        let generation = Generation { epoch: node.epoch, sequence: self.sequence };
        node.uploads().finish(upload, sha256(bytes), generation).await
    }

    pub(crate) async fn commit(&self, id: u64, upload: UploadId, copy: &BlobCopy) {
        let commit = Action::CommitBlob(CommitBlob {
            repository: repository("a/b"),
            digest: copy.digest,
            size: copy.size,
            generation: copy.generation,
            node: NodeId(id),
            chunk_root: copy.chunk_root,
            upload,
            pin_millis: u64::MAX,
            placement: copy.placement.clone(),
        });
        self.must(commit).await;
    }

    /// Pushes bytes through a node.
    pub(crate) async fn push(&mut self, id: u64, bytes: &[u8]) -> BlobCopy {
        let (upload, copy) = self.upload(id, bytes).await;
        let copy = copy.unwrap();
        self.commit(id, upload, &copy).await;
        copy
    }

    pub(crate) fn row(&self, digest: Digest) -> BlobRecord {
        match self.log.state.row(&Key::Blob(digest)) {
            Some(Record::Blob(blob)) => blob,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn holders(&self, digest: Digest) -> Vec<u64> {
        match self.row(digest).placement {
            Placement::Nodes(holders) => holders.into_iter().map(|node| node.0).collect(),
            other @ Placement::Object(_) => panic!("{other:?}"),
        }
    }

    /// Who should hold a blob as things are.
    pub(crate) async fn desired(&self, digest: Digest) -> Vec<u64> {
        let rows = self.log.scan(Rows::Nodes, 100).await.unwrap();
        let candidates: Vec<_> = rows
            .into_iter()
            .filter_map(|(key, record)| match (key, record) {
                (
                    Key::Node(node),
                    Record::Node(NodeRecord { standing: Standing::Active, profile, .. }),
                ) => Some(Candidate { node, zone: profile.zone, weight: profile.weight }),
                _ => None,
            })
            .collect();
        let mut nodes: Vec<_> =
            desired(&digest, &candidates, self.replicas).iter().map(|node| node.0).collect();
        nodes.sort_unstable();
        nodes
    }

    /// Waits until the log and the disks have each of these blobs exactly where it should be.
    pub(crate) async fn settled(&self, copies: &[BlobCopy]) {
        let started = Instant::now();
        loop {
            let mut wrong = Vec::new();
            for copy in copies {
                let (digest, desired) = (copy.digest, self.desired(copy.digest).await);
                let running = self.nodes.iter().filter(|node| node.runtime.is_some());
                let files: Vec<_> = running
                    .filter(|node| node.file_of(copy).exists())
                    .map(|node| node.id.0)
                    .collect();
                let holders = self.holders(digest);
                if holders != desired || files != desired {
                    wrong.push((digest, desired, holders, files));
                }
            }
            if wrong.is_empty() {
                break;
            }
            assert!(started.elapsed() < PATIENCE, "desired, holders, files: {wrong:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let findings = self.log.state.audit();
        assert!(findings.is_empty(), "{findings:?}");
    }
}

/// Waits until it is so.
pub(crate) async fn eventually(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !so().await {
        assert!(started.elapsed() < PATIENCE, "not so in {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
