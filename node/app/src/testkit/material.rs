//! Bytes, bodies and names that suites and tests are made of.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use nora_domain::{
    Action, AdmitNode, Algorithm, AuthorityKeys, ClusterId, CreateJoinToken, Epoch, FeatureLevel,
    Format, FoundCluster, Generation, NodeId, NodeProfile, RepositoryKey, RepositoryPath,
    SharedSecret, StartNode, Storage, StorageMode, TenantName, Timestamp, TokenId, UploadId,
};

use super::{Hashes, Uploads};
use crate::ports::ByteStream;
use crate::ports::blobs::{BlobCopy, Delivery, OpenBlob};
use crate::ports::uploads::{Admission, Purpose};

/// A mebibyte.
pub const MIB: usize = 1 << 20;

/// Bytes that differ from place to place, the same for the same seed.
pub fn bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        out.extend_from_slice(&x.to_le_bytes());
    }
    out.truncate(len);
    out
}

/// A body that comes in frames of that size.
pub fn body(bytes: &[u8], frame_bytes: usize) -> ByteStream {
    let frames: Vec<_> =
        bytes.chunks(frame_bytes).map(|frame| Ok(Bytes::copy_from_slice(frame))).collect();
    Box::pin(stream::iter(frames))
}

/// An OCI repository of the default tenant.
pub fn repository(path: &str) -> RepositoryKey {
    RepositoryKey {
        tenant: TenantName::default_tenant(),
        format: Format::Oci,
        path: RepositoryPath::parse(path).unwrap(),
    }
}

/// What a node says when it starts, without a name for the start: each one is another.
pub fn start_node(node: NodeId) -> Action {
    let profile = NodeProfile { feature_max: FeatureLevel::NEWEST, ..NodeProfile::default() };
    Action::StartNode(StartNode { node, start: 0, replaces: 0, profile })
}

/// A cluster begins.
pub fn found_cluster() -> Action {
    let authority = AuthorityKeys { certificate: vec![1], key: vec![2] };
    let storage = Storage { mode: StorageMode::Local, replicas: 1 };
    Action::FoundCluster(FoundCluster {
        cluster: ClusterId(0xc1),
        authority,
        secret: SharedSecret([3; 32]),
        storage,
    })
}

/// Lets [`admit_node`] in, whenever.
pub fn create_join_token() -> Action {
    Action::CreateJoinToken(CreateJoinToken {
        token: TokenId(0x70),
        secret_hash: [7; 32],
        lives_millis: u64::MAX,
        uses: u32::MAX,
    })
}

/// A node asks for its number; the same `key` gives the same one until it has started.
pub fn admit_node(key: u8) -> Action {
    let profile = NodeProfile { feature_max: FeatureLevel::NEWEST, ..NodeProfile::default() };
    Action::AdmitNode(AdmitNode {
        token: TokenId(0x70),
        secret_hash: [7; 32],
        key_hash: [key; 32],
        profile,
    })
}

/// A generation of the first epoch.
pub fn generation(sequence: u64) -> Generation {
    Generation { epoch: Epoch(1), sequence }
}

/// A session that the cluster itself opens for a repository.
pub fn purpose(path: &str, algorithm: Algorithm, opened_at: Timestamp) -> Purpose {
    Purpose { repository: repository(path), algorithm, opener: None, opened_at }
}

/// Opens a session for `a/b` at time 1000.
pub async fn open_session(uploads: Uploads<'_>, id: u128) -> UploadId {
    let id = UploadId(id);
    let purpose = purpose("a/b", Algorithm::Sha256, Timestamp(1000));
    uploads.open(id, purpose, Admission::ByShare).await.unwrap();
    id
}

/// Pushes bytes through a session as `digest/generation`.
pub async fn push(uploads: Uploads<'_>, hashes: Hashes, bytes: &[u8], sequence: u64) -> BlobCopy {
    let id = open_session(uploads, 0xb10b_0000 + u128::from(sequence)).await;
    uploads.append(id, Some(0), body(bytes, 100_000)).await.unwrap();
    uploads.finish(id, hashes.sha256(bytes), generation(sequence)).await.unwrap()
}

/// Everything a range reads.
pub async fn read(blob: &Arc<dyn OpenBlob>, range: Range<u64>, delivery: Delivery) -> Vec<u8> {
    let mut stream = Arc::clone(blob).read(range, delivery);
    let mut out = Vec::new();
    while let Some(piece) = stream.next().await {
        out.extend_from_slice(&piece.unwrap());
    }
    out
}
