//! Stores in folders of their own, and digests for tests.

use std::path::Path;

use nora_app::ports::blobs::BlobCopy;
use nora_app::ports::blobs::Blobs;
use nora_app::testkit::{Hashes, Uploads};
use nora_blobs::{LocalBlobs, LocalBlobsConfig};
use nora_domain::{Algorithm, Digest, NodeId};

pub(crate) use nora_app::testkit::{
    MIB, body, bytes, generation, open_session, purpose, read, repository,
};

/// What the store must compute, computed by other code.
pub(crate) const HASHES: Hashes = Hashes { digest: digest_of, chunk_root };

/// A store in a folder that goes with it.
pub(crate) struct Store {
    pub(crate) blobs: LocalBlobs,
    pub(crate) dir: tempfile::TempDir,
}

pub(crate) fn config(dir: &Path) -> LocalBlobsConfig {
    LocalBlobsConfig {
        node: NodeId(1),
        data_dir: dir.to_owned(),
        upload_bytes_max: 64 << 20,
        sessions_max: 8,
    }
}

pub(crate) fn store() -> Store {
    let dir = tempfile::tempdir().unwrap();
    Store { blobs: LocalBlobs::open(config(dir.path())).unwrap(), dir }
}

pub(crate) fn uploads(blobs: &LocalBlobs) -> Uploads<'_> {
    Uploads::new(blobs.sessions(), blobs)
}

impl Store {
    /// The store as the next start of the server finds it.
    pub(crate) fn restart(self) -> Self {
        let Self { blobs, dir } = self;
        drop(blobs);
        Self { blobs: LocalBlobs::open(config(dir.path())).unwrap(), dir }
    }

    pub(crate) fn uploads(&self) -> Uploads<'_> {
        uploads(&self.blobs)
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

pub(crate) fn files_below(dir: &Path) -> Vec<String> {
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

pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    nora_digest::digest(Algorithm::Sha256, bytes)
}

pub(crate) fn sha512(bytes: &[u8]) -> Digest {
    nora_digest::digest(Algorithm::Sha512, bytes)
}

/// The chunk root by its definition.
pub(crate) fn chunk_root(bytes: &[u8]) -> [u8; 32] {
    let hashes: Vec<u8> = bytes.chunks(MIB).flat_map(|c| *blake3::hash(c).as_bytes()).collect();
    *blake3::hash(&hashes).as_bytes()
}

fn digest_of(bytes: &[u8], algorithm: Algorithm) -> Digest {
    match algorithm {
        Algorithm::Sha256 => sha256(bytes),
        Algorithm::Sha512 => sha512(bytes),
    }
}

/// Pushes bytes through a session as `digest/generation`.
pub(crate) async fn push(uploads: Uploads<'_>, bytes: &[u8], sequence: u64) -> BlobCopy {
    nora_app::testkit::push(uploads, HASHES, bytes, sequence).await
}
