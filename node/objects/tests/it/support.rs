//! Stores in folders of their own, and digests for tests.

use std::path::Path;

use aws_lc_rs::digest;
use nora_app::testkit::{Hashes, Uploads};
use nora_domain::{Algorithm, Digest};
use nora_objects::{ObjectBlobs, ObjectBlobsConfig, ObjectError};
use nora_swarm::{Limits, Pool};

pub(crate) use nora_app::testkit::{
    MIB, body, bytes, generation, open_session, purpose, read, repository,
};

use crate::servers::{ACCESS_KEY, BUCKET, REGION, SECRET_KEY};

/// What the store must compute, computed by other code.
pub(crate) const HASHES: Hashes = Hashes { digest: digest_of, chunk_root };

pub(crate) fn config(endpoint: &str, dir: &Path) -> ObjectBlobsConfig {
    ObjectBlobsConfig {
        bucket: BUCKET.to_owned(),
        endpoint: Some(endpoint.to_owned()),
        region: REGION.to_owned(),
        access_key: Some(ACCESS_KEY.to_owned()),
        secret_key: Some(SECRET_KEY.to_owned()),
        prefix: "some/prefix".to_owned(),
        redirect: true,
        presign_seconds: 900,
        data_dir: dir.to_owned(),
        cache_bytes_max: 64 << 20,
        upload_bytes_max: 512 << 20,
        sessions_max: 8,
    }
}

/// A node's store. The same folder is the same node.
pub(crate) fn store(endpoint: &str, dir: &Path) -> ObjectBlobs {
    opened(&config(endpoint, dir)).unwrap()
}

/// The store that a configuration describes.
pub(crate) fn opened(config: &ObjectBlobsConfig) -> Result<ObjectBlobs, ObjectError> {
    ObjectBlobs::open(config, Pool::new(Limits::default()))
}

pub(crate) fn uploads(store: &ObjectBlobs) -> Uploads<'_> {
    Uploads::new(store.sessions(), store)
}

fn digest_of(bytes: &[u8], algorithm: Algorithm) -> Digest {
    match algorithm {
        Algorithm::Sha256 => {
            Digest::sha256(digest::digest(&digest::SHA256, bytes).as_ref().try_into().unwrap())
        }
        Algorithm::Sha512 => {
            Digest::sha512(digest::digest(&digest::SHA512, bytes).as_ref().try_into().unwrap())
        }
    }
}

fn chunk_root(bytes: &[u8]) -> [u8; 32] {
    let mut hashes = Vec::new();
    for chunk in bytes.chunks(MIB) {
        hashes.extend_from_slice(blake3::hash(chunk).as_bytes());
    }
    *blake3::hash(&hashes).as_bytes()
}

/// Names of the files under a folder.
pub(crate) fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path.file_name().unwrap().to_string_lossy().into_owned()),
        }
    }
    found.sort();
    found
}
