//! Stores in folders of their own, bodies and digests for tests.

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use nora_app::ports::ByteStream;
use nora_app::ports::blobs::{Blobs, Delivery, OpenBlob};
use nora_app::ports::uploads::{StoredBlob, Uploads};
use nora_blobs::{LocalBlobs, LocalBlobsConfig};
use nora_domain::record::{Epoch, Generation, Timestamp, UploadId};
use nora_domain::{Algorithm, Digest, Format, RepositoryKey, RepositoryPath, TenantName};

pub(crate) const MIB: usize = 1 << 20;

/// A store in a folder that goes with it.
pub(crate) struct Store {
    pub(crate) blobs: LocalBlobs,
    pub(crate) dir: tempfile::TempDir,
}

pub(crate) fn config(dir: &Path) -> LocalBlobsConfig {
    LocalBlobsConfig { data_dir: dir.to_owned(), upload_bytes_max: 64 << 20, sessions_max: 8 }
}

pub(crate) fn store() -> Store {
    let dir = tempfile::tempdir().unwrap();
    Store { blobs: LocalBlobs::open(config(dir.path())).unwrap(), dir }
}

impl Store {
    /// The store as the next start of the server finds it.
    pub(crate) fn restart(self) -> Self {
        let Self { blobs, dir } = self;
        drop(blobs);
        Self { blobs: LocalBlobs::open(config(dir.path())).unwrap(), dir }
    }

    pub(crate) fn uploads(&self) -> &dyn Uploads {
        &self.blobs
    }

    pub(crate) fn port(&self) -> &dyn Blobs {
        &self.blobs
    }

    /// Names of the files in the folder of sessions.
    pub(crate) fn upload_files(&self) -> Vec<String> {
        files_below(&self.dir.path().join("uploads"))
    }

    /// Names of all files below the folder of blobs.
    pub(crate) fn blob_files(&self) -> Vec<String> {
        files_below(&self.dir.path().join("blobs"))
    }
}

fn files_below(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files_below(&entry.path()));
        } else {
            found.push(entry.file_name().into_string().unwrap());
        }
    }
    found.sort();
    found
}

/// Bytes that differ from place to place, the same for the same seed.
pub(crate) fn bytes(len: usize, seed: u64) -> Vec<u8> {
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

pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    Digest::from_parts(Algorithm::Sha256, digest::digest(&digest::SHA256, bytes).as_ref()).unwrap()
}

pub(crate) fn sha512(bytes: &[u8]) -> Digest {
    Digest::from_parts(Algorithm::Sha512, digest::digest(&digest::SHA512, bytes).as_ref()).unwrap()
}

/// The chunk root by its definition.
pub(crate) fn chunk_root(bytes: &[u8]) -> [u8; 32] {
    let hashes: Vec<u8> = bytes.chunks(MIB).flat_map(|c| *blake3::hash(c).as_bytes()).collect();
    *blake3::hash(&hashes).as_bytes()
}

pub(crate) fn body(bytes: &[u8], frame_bytes: usize) -> ByteStream {
    let frames: Vec<_> =
        bytes.chunks(frame_bytes).map(|frame| Ok(Bytes::copy_from_slice(frame))).collect();
    Box::pin(stream::iter(frames))
}

pub(crate) fn repository(path: &str) -> RepositoryKey {
    RepositoryKey {
        tenant: TenantName::default_tenant(),
        format: Format::Oci,
        path: RepositoryPath::parse(path).unwrap(),
    }
}

pub(crate) fn generation(sequence: u64) -> Generation {
    Generation { epoch: Epoch(1), sequence }
}

pub(crate) async fn open_session(uploads: &dyn Uploads, id: u128) -> UploadId {
    let id = UploadId(id);
    uploads.open(id, repository("a/b"), Algorithm::Sha256, Timestamp(1000)).await.unwrap();
    id
}

/// Pushes bytes through a session as `digest/generation`.
pub(crate) async fn push(uploads: &dyn Uploads, bytes: &[u8], sequence: u64) -> StoredBlob {
    let id = open_session(uploads, 0xb10b_0000 + u128::from(sequence)).await;
    uploads.append(id, Some(0), body(bytes, 100_000)).await.unwrap();
    uploads.finish(id, sha256(bytes), generation(sequence)).await.unwrap()
}

/// Everything a range reads.
pub(crate) async fn read(
    blob: &Arc<dyn OpenBlob>,
    range: std::ops::Range<u64>,
    delivery: Delivery,
) -> Vec<u8> {
    let mut stream = Arc::clone(blob).read(range, delivery);
    let mut out = Vec::new();
    while let Some(piece) = stream.next().await {
        out.extend_from_slice(&piece.unwrap());
    }
    out
}
