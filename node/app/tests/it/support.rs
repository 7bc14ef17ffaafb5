//! A registry over the ports in memory, and words to speak with it.

use std::sync::Arc;

use bytes::Bytes;
use nora_app::commands::PutArtifact;
use nora_app::ports::policy::SingleTenant;
use nora_app::testkit::{
    CountingIds, Counts, Hashes, ManualClock, MemoryBlobs, MemoryMetadata, admit_node, body,
    create_join_token, found_cluster, start_node,
};
use nora_app::{BlobStat, Dependencies, Error, Registry, Settings};
use nora_domain::command::{Action, Command, Outcome, Terms};
use nora_domain::record::{Epoch, NodeId, Timestamp};
use nora_domain::{Algorithm, Digest, MediaType, RepositoryKey, TagName};

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
}

pub(crate) fn world() -> World {
    let clock = Arc::new(ManualClock::at(NOW));
    let metadata = Arc::new(MemoryMetadata::default());
    let blobs = Arc::new(MemoryBlobs::new(HASHES, clock.clone()));
    let propose = |action| {
        metadata.propose_elsewhere(&Command { at: NOW, origin: None, terms: Terms::NONE, action })
    };
    let started = propose(start_node(NODE));
    let Ok(Outcome::NodeStarted(epoch)) = started else { panic!("{started:?}") };
    for action in [found_cluster(), create_join_token()] {
        propose(action).unwrap();
    }
    let registry = Registry::new(Dependencies {
        metadata: metadata.clone(),
        blobs: blobs.clone(),
        uploads: blobs.clone(),
        clock: clock.clone(),
        ids: Arc::new(CountingIds::default()),
        tenancy: Arc::new(SingleTenant),
        node: NODE,
        epoch,
        settings: settings(),
    });
    World { registry, metadata, blobs, clock }
}

impl World {
    /// Pushes a blob in one request after the session's start.
    pub(crate) async fn push(&self, to: &RepositoryKey, bytes: &[u8]) -> Result<BlobStat, Error> {
        let digest = sha256(bytes);
        let id = self.registry.start_upload(to.clone(), Algorithm::Sha256).await?.id;
        let rest = Some(body(bytes, 1000));
        self.registry.finish_upload(to.clone(), id, None, rest, digest).await
    }

    /// The whole of a blob, as a repository shows it.
    pub(crate) async fn pull(&self, from: &RepositoryKey, digest: Digest) -> Vec<u8> {
        let blob = self.registry.open_blob(from, digest).await.unwrap();
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
        assert_eq!(self.elsewhere(admit_node(2)), Outcome::NodeAdmitted(node));
        assert_eq!(self.elsewhere(start_node(node)), Outcome::NodeStarted(Epoch(2)));
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
        blobs: vec![],
        children: vec![],
        optional_blobs: vec![],
        either: vec![],
        tags: vec![],
    }
}
