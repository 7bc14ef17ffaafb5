//! A registry over the ports in memory, and words to speak with it.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use nora_app::artifacts::PutArtifact;
use nora_app::ports::BoxFuture;
use nora_app::ports::metadata::{Metadata, MetadataError};
use nora_app::ports::policy::{Caller, Change, Judgement, SingleTenant, Tenancy};
use nora_app::testkit::{
    CountingIds, Counts, Hashes, ManualClock, MemoryBlobs, MemoryMetadata, MemorySegments,
    admit_node, body, create_join_token, found_cluster, start_node,
};
use nora_app::{BlobStat, Dependencies, Error, Registry, Settings};
use nora_domain::{
    Action, Actor, Algorithm, Command, Deed, Digest, Epoch, Format, Head, Key, MediaType, NodeId,
    Outcome, Reason, Record, Refusal, RepositoryKey, RepositoryPath, Rows, Subject, TagName,
    TenantName, Terms, Timestamp,
};

/// When tests begin.
pub(crate) const NOW: Timestamp = Timestamp(1_700_000_000_000);

/// The node under test.
pub(crate) const NODE: NodeId = NodeId(1);

/// Enough to tell bytes apart; nobody attacks a test.
pub(crate) const HASHES: Hashes = Hashes { digest: digest_of, chunk_root };

fn spread(bytes: &[u8], out: &mut [u8]) {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    for part in out.chunks_mut(8) {
        hash = (hash ^ hash >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        part.copy_from_slice(&hash.to_be_bytes());
    }
}

fn digest_of(bytes: &[u8], algorithm: Algorithm) -> Digest {
    let mut value = vec![0; algorithm.len_bytes()];
    spread(bytes, &mut value);
    Digest::from_parts(algorithm, &value).unwrap()
}

fn chunk_root(bytes: &[u8]) -> [u8; 32] {
    let mut root = [0; 32];
    spread(bytes, &mut root);
    root.reverse();
    root
}

pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    HASHES.sha256(bytes)
}

pub(crate) fn tag(name: &str) -> TagName {
    TagName::parse(name).unwrap()
}

pub(crate) fn media_type(name: &str) -> MediaType {
    MediaType::parse(name).unwrap()
}

pub(crate) fn settings() -> Settings {
    Settings {
        artifact_bytes_max: 4 << 20,
        references_max: 100,
        pin_millis: 60_000,
        upload_expiry_millis: 10_000,
    }
}

/// A registry and what it stands on.
pub(crate) struct World {
    pub(crate) registry: Registry,
    pub(crate) metadata: Arc<MemoryMetadata>,
    pub(crate) blobs: Arc<MemoryBlobs>,
    pub(crate) clock: Arc<ManualClock>,
    segments: Arc<MemorySegments>,
    ids: Arc<CountingIds>,
    tenancy: Arc<dyn Tenancy>,
    epoch: Epoch,
}

/// One tenant owns everything, and its bytes are limited.
pub(crate) struct LimitedTenant;

impl Tenancy for LimitedTenant {
    fn owner(&self, _: Format, _: &RepositoryPath) -> TenantName {
        TenantName::default_tenant()
    }

    fn has_storage_quota(&self, _: &TenantName) -> bool {
        true
    }

    fn tenants(&self) -> Vec<TenantName> {
        vec![TenantName::default_tenant()]
    }
}

pub(crate) fn world() -> World {
    world_of(Arc::new(SingleTenant))
}

pub(crate) fn world_of(tenancy: Arc<dyn Tenancy>) -> World {
    let clock = Arc::new(ManualClock::at(NOW));
    let metadata = Arc::new(MemoryMetadata::default());
    let blobs = Arc::new(MemoryBlobs::new(HASHES, clock.clone()));
    let propose = |action| {
        metadata.propose_elsewhere(&Command { at: NOW, origin: None, terms: Terms::NONE, action })
    };
    let started = propose(start_node(NODE));
    let Ok(Outcome::StartNode(epoch)) = started else { panic!("{started:?}") };
    for action in [found_cluster(), create_join_token()] {
        propose(action).unwrap();
    }
    let segments = Arc::new(MemorySegments::new(HASHES));
    let ids = Arc::new(CountingIds::default());
    let dependencies = Dependencies {
        metadata: metadata.clone(),
        blobs: blobs.clone(),
        uploads: blobs.clone(),
        finish: blobs.clone(),
        clock: clock.clone(),
        wall: clock.clone(),
        ids: ids.clone(),
        tenancy: tenancy.clone(),
        segments: segments.clone(),
        node: NODE,
        epoch,
        settings: settings(),
    };
    let registry = Registry::new(dependencies);
    World { registry, metadata, blobs, clock, segments, ids, tenancy, epoch }
}

impl World {
    /// What the registry stands on, for another one that differs in some of it.
    pub(crate) fn dependencies(&self) -> Dependencies {
        Dependencies {
            metadata: self.metadata.clone(),
            blobs: self.blobs.clone(),
            uploads: self.blobs.clone(),
            finish: self.blobs.clone(),
            clock: self.clock.clone(),
            wall: self.clock.clone(),
            ids: self.ids.clone(),
            tenancy: self.tenancy.clone(),
            segments: self.segments.clone(),
            node: NODE,
            epoch: self.epoch,
            settings: settings(),
        }
    }

    /// The metadata; `meddle` may do something right before each call.
    pub(crate) fn meddler(
        &self,
        meddle: impl FnMut(&Call) -> Option<BoxFuture<'static, ()>> + Send + 'static,
    ) -> Arc<dyn Metadata> {
        let meddle = Mutex::new(Some(Box::new(meddle) as Meddle));
        Arc::new(Meddler { metadata: self.metadata.clone(), meddle })
    }

    /// Another registry of this node, over such metadata.
    pub(crate) fn meddled(
        &self,
        meddle: impl FnMut(&Call) -> Option<BoxFuture<'static, ()>> + Send + 'static,
    ) -> Registry {
        Registry::new(Dependencies { metadata: self.meddler(meddle), ..self.dependencies() })
    }

    /// The same; `work` is done once, right before the call of this number.
    pub(crate) fn meddled_at(
        &self,
        number: usize,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> Registry {
        let (mut calls, mut work) = (0, Some(work));
        self.meddled(move |_| {
            calls += 1;
            if calls <= number {
                return None;
            }
            work.take().map(|work| Box::pin(work) as BoxFuture<'static, ()>)
        })
    }

    /// Pushes a blob in one request after the session's start.
    pub(crate) async fn push(&self, to: &RepositoryKey, bytes: &[u8]) -> Result<BlobStat, Error> {
        let digest = sha256(bytes);
        let id = self.registry.uploads().start(to.clone(), Algorithm::Sha256).await?.id;
        let rest = Some(body(bytes, 1000));
        self.registry.uploads().finish(to.clone(), id, None, rest, digest).await
    }

    /// The whole of a blob, as a repository shows it.
    pub(crate) async fn pull(&self, from: &RepositoryKey, digest: Digest) -> Vec<u8> {
        let blob = self.registry.blobs().open(from, digest).await.unwrap();
        let size = blob.size();
        nora_app::testkit::read(&blob, 0..size, nora_app::ports::blobs::Delivery::Socket).await
    }

    /// An action of another node, which this one does not show yet.
    pub(crate) fn elsewhere(&self, action: Action) -> Outcome {
        self.metadata
            .propose_elsewhere(&Command { at: NOW, origin: None, terms: Terms::NONE, action })
            .unwrap()
    }

    /// Node 2 joins and starts, under epoch 2.
    pub(crate) fn second_node(&self) -> NodeId {
        let node = NodeId(2);
        assert_eq!(self.elsewhere(admit_node(2)), Outcome::AdmitNode(node));
        assert_eq!(self.elsewhere(start_node(node)), Outcome::StartNode(Epoch(2)));
        node
    }

    pub(crate) fn counts(&self) -> Counts {
        self.metadata.counts()
    }

    pub(crate) fn assert_sound(&self) {
        assert_eq!(self.metadata.audit(), vec![]);
    }
}

/// An artifact that needs nothing.
pub(crate) fn artifact(repository: &RepositoryKey, bytes: impl Into<Bytes>) -> PutArtifact {
    let bytes = bytes.into();
    PutArtifact {
        repository: repository.clone(),
        digest: sha256(&bytes),
        media_type: media_type("application/test"),
        bytes,
        subject: None,
        artifact_type: None,
        annotations: Default::default(),
        blobs: vec![],
        children: vec![],
        optional_blobs: vec![],
        either: vec![],
        tags: vec![],
    }
}

/// A call to the metadata.
pub(crate) enum Call {
    Propose(Action),
    Head,
    Get(Key),
    Scan,
}

type Meddle = Box<dyn FnMut(&Call) -> Option<BoxFuture<'static, ()>> + Send>;

/// The metadata, with something that happens right before some of its calls. What happens then meets none itself.
struct Meddler {
    metadata: Arc<MemoryMetadata>,
    meddle: Mutex<Option<Meddle>>,
}

impl Meddler {
    async fn before(&self, call: Call) {
        let Some(mut meddle) = self.meddle.lock().unwrap().take() else { return };
        if let Some(done) = meddle(&call) {
            done.await;
        }
        *self.meddle.lock().unwrap() = Some(meddle);
    }
}

impl Metadata for Meddler {
    fn propose(
        &self,
        command: Command,
    ) -> BoxFuture<'_, Result<Result<Outcome, Refusal>, MetadataError>> {
        Box::pin(async move {
            self.before(Call::Propose(command.action.clone())).await;
            self.metadata.propose(command).await
        })
    }

    fn linearize(&self) -> BoxFuture<'_, Result<(), MetadataError>> {
        self.metadata.linearize()
    }

    fn head(&self) -> BoxFuture<'_, Result<Head, MetadataError>> {
        Box::pin(async move {
            self.before(Call::Head).await;
            self.metadata.head().await
        })
    }

    fn get(&self, key: Key) -> BoxFuture<'_, Result<Option<Record>, MetadataError>> {
        Box::pin(async move {
            self.before(Call::Get(key.clone())).await;
            self.metadata.get(key).await
        })
    }

    fn scan(
        &self,
        rows: Rows,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(Key, Record)>, MetadataError>> {
        Box::pin(async move {
            self.before(Call::Scan).await;
            self.metadata.scan(rows, limit).await
        })
    }
}

/// A caller under a policy that keeps tags that begin with `v` as they are.
pub(crate) struct Somebody {
    pub(crate) name: &'static str,
    /// Whether what they showed is still believed.
    pub(crate) stands: bool,
}

impl Caller for Somebody {
    fn actor(&self) -> Actor {
        Actor::named(Subject::User(self.name.into()))
    }

    fn counted_as(&self) -> String {
        self.name.to_owned()
    }

    fn judge(&self, _: Change, _: &RepositoryKey, tags: &[TagName]) -> Judgement {
        let mut immutable: Vec<_> =
            tags.iter().filter(|tag| tag.as_str().starts_with('v')).cloned().collect();
        immutable.sort();
        Judgement {
            policy: Some(0),
            immutable,
            has_immutable: true,
            is_permitted: true,
            ..Judgement::default()
        }
    }

    fn still_stands(&self) -> BoxFuture<'_, Result<bool, Error>> {
        Box::pin(async { Ok(self.stands) })
    }

    fn note_refusal(&self, _: Deed, _: Reason) {}

    fn refresh(&self) -> BoxFuture<'_, Result<(), MetadataError>> {
        Box::pin(async { Ok(()) })
    }
}
