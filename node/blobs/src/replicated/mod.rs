//! Blobs on the disks of several nodes: the ports `Finish` and `Blobs` over this node's files and those
//! of its peers.
//!
//! Guarantees: a finished upload is durable on a majority of the nodes that should have it before
//! anybody is told; a read finds the bytes as long as one holder is reached; what this node deletes is
//! never what the log names. Which nodes hold a copy is a fact in the log, and this crate only proposes
//! changes to it. Must not know consensus, nor how nodes trust each other.
#![allow(clippy::result_large_err, reason = "the port's error carries two digests and is rare")]

mod read;
mod send;
mod view;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nora_app::jobs::Job;
use nora_app::ports::BoxFuture;
use nora_app::ports::blobs::{BlobCopy, BlobError, Blobs, OpenBlob};
use nora_app::ports::changes::ChangeSource;
use nora_app::ports::clock::Clock;
use nora_app::ports::members::NodeReport;
use nora_app::ports::metadata::{Metadata, MetadataError, ask};
use nora_app::ports::uploads::{Finish, Sessions, UploadError};
use nora_domain::{
    Ask, BlobRecord, Digest, Generation, Key, NodeId, Placement, Record, Refusal, Rows, Timestamp,
    UploadId,
};
use nora_swarm::{Cache, Fetcher, Limits, Pool, Source};
use tokio::sync::Semaphore;

pub(crate) use view::{View, Views};

use crate::counters::{BlobCounts, Counters};
use crate::exchange::{Exchange, Grudges, Peer, PeerError, PeerSource, Peers};
use crate::repair::{self, Compare, Repair, Wakes};
use crate::scrub::{self, ScrubError, ScrubReport, Scrubber};
use crate::store::{LocalBlobs, OpenError};

/// Copies that this node sends out at once.
const SENDS_MAX: usize = 64;
/// What repair may hold in memory: 16 MiB.
const REPAIR_LIMITS: Limits = Limits { chunks_max: 16, window: 4 };
/// Rows of blobs read at once.
pub(crate) const PAGE_ROWS: usize = 500;

/// How blobs are spread.
#[derive(Clone, Debug)]
pub struct ReplicatedBlobsConfig {
    /// How many nodes keep a copy of each blob; all of them while there are fewer.
    pub replicas: usize,
    /// Bytes a second that this node may fetch to restore or move copies; `None` for as many as it can.
    pub repair_rate: Option<u64>,
    /// Disk space for what was fetched from other nodes and may be wanted again.
    pub cache_bytes_max: u64,
    /// How long the file of a copy that was given up stays, for readers who still know it.
    pub linger: Duration,
    /// In how much time every copy is read again, and every blob and file compared once.
    pub scrub_interval: Duration,
}

/// Blobs on the disks of several nodes.
#[derive(Clone)]
pub struct ReplicatedBlobs {
    shared: Arc<Shared>,
    repair: Arc<Repair>,
}

/// What the parts of the store share.
pub(crate) struct Shared {
    pub(crate) local: LocalBlobs,
    pub(crate) metadata: Arc<dyn Metadata>,
    pub(crate) peers: Arc<dyn Peers>,
    pub(crate) views: Views,
    pub(crate) counters: Counters,
    pub(crate) config: ReplicatedBlobsConfig,
    pub(crate) wakes: Wakes,
    clock: Arc<dyn Clock>,
    sends: Arc<Semaphore>,
    grudges: Arc<Grudges>,
    turns: AtomicUsize,
    /// What clients read from other nodes goes through here.
    cache: Cache,
    reads: Arc<Pool>,
    /// What repair fetches does not take room from clients.
    repairs: Arc<Pool>,
}

impl ReplicatedBlobs {
    /// A store over this node's files. Blocks. Nothing runs in the background before [`Self::run`] does.
    pub fn open(
        local: LocalBlobs,
        metadata: Arc<dyn Metadata>,
        peers: Arc<dyn Peers>,
        clock: Arc<dyn Clock>,
        config: ReplicatedBlobsConfig,
    ) -> Result<Self, OpenError> {
        let reads = Pool::new(Limits::default());
        let dir = local.inner.layout.cache().to_owned();
        let cache = Cache::open(dir.clone(), config.cache_bytes_max, Arc::clone(&reads))
            .map_err(|source| OpenError::new("open the cache", dir, source))?;
        let views = Views::new(local.inner.node, config.replicas, Arc::clone(&metadata));
        let shared = Shared {
            local,
            metadata,
            peers,
            views,
            counters: Counters::default(),
            config,
            wakes: Wakes::default(),
            clock,
            sends: Arc::new(Semaphore::new(SENDS_MAX)),
            grudges: Arc::default(),
            turns: AtomicUsize::new(0),
            cache,
            reads,
            repairs: Pool::new(REPAIR_LIMITS),
        };
        let shared = Arc::new(shared);
        Ok(Self { repair: Arc::new(Repair::new(Arc::clone(&shared))), shared })
    }

    /// The upload sessions of this node.
    pub fn sessions(&self) -> &(impl Sessions + Clone + 'static) {
        self.shared.local.sessions()
    }

    /// The service that other nodes ask. Whoever serves it puts a `nora_trust::Peer` into each request.
    pub fn exchange(&self) -> axum::Router {
        Exchange::router(Arc::clone(&self.shared))
    }

    /// Follows changes of the state and repairs what they tell of, for as long as it is polled. Dropping it is how it
    /// ends: what is under way is taken up at the next start.
    pub async fn run(&self, changes: Arc<dyn ChangeSource>) {
        let follow = repair::follow(&self.shared, changes.as_ref());
        tokio::join!(repair::count_copies(&self.shared), self.repair.run(), follow);
    }

    /// The jobs of this node's copies: comparing them with what the log says, and reading them again.
    pub fn jobs(&self) -> Vec<Arc<dyn Job>> {
        vec![
            Arc::new(Compare::new(Arc::clone(&self.repair))),
            Arc::new(Scrubber::new(Arc::clone(&self.shared))),
        ]
    }

    /// Re-reads every copy on this node now, as fast as the disk allows.
    pub async fn scrub_now(&self) -> Result<ScrubReport, ScrubError> {
        scrub::read_all(&self.shared).await
    }

    /// Blobs that a node holds and that fewer other nodes have than should: while a node drains, what
    /// is left to do.
    pub async fn short_without(&self, node: NodeId) -> Result<u64, MetadataError> {
        let view = self.shared.views.now().await?;
        let mut short = 0;
        let mut after = None;
        loop {
            let rows = self.shared.metadata.scan(Rows::Blobs { after }, PAGE_ROWS).await?;
            for (key, record) in &rows {
                let (Key::Blob(digest), Record::Blob(blob)) = (key, record) else { continue };
                after = Some(*digest);
                let Placement::Nodes(holders) = &blob.placement else { continue };
                let desired = view.desired(digest);
                let others = desired.iter().filter(|n| **n != node && holders.contains(n)).count();
                let wanted = desired.iter().filter(|n| **n != node).count().max(1);
                short += u64::from(holders.contains(&node) && others < wanted);
            }
            if rows.len() < PAGE_ROWS {
                return Ok(short);
            }
        }
    }

    /// What the store has done since its start.
    pub fn counts(&self) -> BlobCounts {
        let (reads, cache) = (self.shared.reads.stats(), self.shared.cache.stats());
        BlobCounts {
            fetched_bytes: reads.fetched_bytes,
            hedges: reads.hedges,
            bans: reads.bans + self.shared.repairs.stats().bans,
            cache_used_bytes: cache.used_bytes,
            cache_hit_bytes: cache.hit_bytes,
            cache_evictions: cache.evictions,
            held: self.shared.held(),
            ..self.shared.counters.read()
        }
    }

    /// Fills in what a report says of blobs.
    pub fn report(&self, report: &mut NodeReport) {
        let counts = self.counts();
        report.blobs_held = counts.held;
        report.blobs_missing = counts.missing;
        report.blobs_excess = counts.excess;
        report.blobs_quarantined = counts.quarantined;
        report.scrubbed_bytes = counts.scrubbed_bytes;
    }
}

impl Shared {
    pub(crate) fn me(&self) -> NodeId {
        self.local.inner.node
    }

    /// Copies on this node's disk, without those that it gave up.
    fn held(&self) -> u64 {
        let copies = self.local.inner.layout.census().copies();
        copies.saturating_sub(self.counters.lingering())
    }

    /// A copy on this node looks wrong: it is read again, and set aside if it is.
    pub(crate) fn suspect(&self, copy: &BlobCopy) {
        self.wakes.suspect(copy.digest);
    }

    /// The wall clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Proposes a change of holders.
    pub(crate) async fn propose<A: Ask>(
        &self,
        command: A,
    ) -> Result<Result<A::Done, Refusal>, MetadataError> {
        ask(self.metadata.as_ref(), command).await
    }

    /// The live copy of a blob, as this node's state has it.
    pub(crate) async fn live(&self, digest: Digest) -> Result<Option<BlobRecord>, MetadataError> {
        match self.metadata.get(Key::Blob(digest)).await? {
            Some(Record::Blob(blob)) => Ok(Some(blob)),
            _ => Ok(None),
        }
    }

    fn sources(&self, copy: &BlobCopy, holders: &[NodeId]) -> Vec<Arc<dyn Source>> {
        let source = |node: &NodeId| {
            let (peers, grudges) = (Arc::clone(&self.peers), Arc::clone(&self.grudges));
            let source = PeerSource::new(*node, copy.clone(), peers, grudges);
            Arc::new(source) as Arc<dyn Source>
        };
        holders.iter().map(source).collect()
    }

    /// Reads a copy for repair.
    pub(crate) async fn fetcher(&self, copy: &BlobCopy, listed: &[NodeId]) -> Arc<Fetcher> {
        let sources = self.sources(copy, &read::by_distance(self, listed).await);
        Fetcher::new(copy.size, copy.chunk_root, sources, Arc::clone(&self.repairs))
    }

    /// A number that differs from call to call, to spread load by.
    fn turn(&self) -> usize {
        self.turns.fetch_add(1, Ordering::Relaxed)
    }

    fn peer(&self, node: NodeId) -> Result<Peer, PeerError> {
        Peer::new(node, &*self.peers)
    }
}

/// A blob's live copy, as ports name it.
pub(crate) fn copy_of(digest: Digest, blob: &BlobRecord) -> BlobCopy {
    BlobCopy {
        digest,
        generation: blob.generation,
        size: blob.size,
        chunk_root: blob.chunk_root,
        placement: blob.placement.clone(),
    }
}

impl Finish for ReplicatedBlobs {
    fn finish(
        &self,
        id: UploadId,
        digest: Digest,
        generation: Generation,
    ) -> BoxFuture<'_, Result<BlobCopy, UploadError>> {
        Box::pin(send::finish(&self.shared, id, digest, generation))
    }
}

impl Blobs for ReplicatedBlobs {
    fn open(&self, copy: BlobCopy) -> BoxFuture<'_, Result<Arc<dyn OpenBlob>, BlobError>> {
        Box::pin(read::open(&self.shared, copy))
    }

    fn redirect(&self, _copy: &BlobCopy) -> BoxFuture<'_, Result<Option<String>, BlobError>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    fn delete(&self, copy: BlobCopy) -> BoxFuture<'_, Result<(), BlobError>> {
        Box::pin(async move {
            self.shared.cache.remove(&read::cached_name(&copy));
            let local = Blobs::delete(&self.shared.local, copy.clone());
            let me = self.shared.me();
            let others = match &copy.placement {
                Placement::Nodes(holders) => holders.iter().copied().filter(|n| *n != me).collect(),
                Placement::Object(_) => Vec::new(),
            };
            let withdrawn = send::withdraw(Arc::clone(&self.shared), copy.clone(), others);
            tokio::join!(local, withdrawn).0
        })
    }
}
