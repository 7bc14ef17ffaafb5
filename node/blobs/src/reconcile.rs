//! Removing copies that earlier starts wrote and the log does not name.
//!
//! Guarantees: a file goes only if its epoch is over, so that nobody can still be about to name it, and
//! the metadata was asked about it after that was known and said no. Any error stops the sweep.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use nora_app::ports::BoxError;
use nora_domain::{Algorithm, Digest, Epoch, Generation};
use tracing::{info, warn};

use crate::layout::BlobFileName;
use crate::store::{Inner, LocalBlobs};

/// What [`LocalBlobs::reconcile`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Copies of earlier epochs that the metadata names.
    pub live: u64,
    /// Copies that were removed.
    pub removed: u64,
}

/// Why [`LocalBlobs::reconcile`] stopped.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// A folder could not be listed or a file not removed.
    #[error("cannot sweep {}", path.display())]
    Sweep {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The metadata did not say whether a copy is live.
    #[error("cannot learn whether {digest} is live")]
    Ask {
        /// The blob.
        digest: Digest,
        /// Why.
        source: BoxError,
    },
}

impl LocalBlobs {
    /// Removes copies whose epoch `is_over` and that are not `live`. Blocks; uploads and reads may go
    /// on. An epoch is over once no node runs under it any more, and the metadata must know everything
    /// that was acknowledged under it.
    pub fn reconcile(
        &self,
        is_over: impl Fn(Epoch) -> bool,
        live: impl Fn(&Digest, Generation) -> Result<bool, BoxError>,
    ) -> Result<Reconciled, ReconcileError> {
        let mut result = Reconciled::default();
        for shard in self.inner.shards().map_err(ReconcileError::from)? {
            for name in shard.copies().map_err(ReconcileError::from)? {
                let BlobFileName { digest, generation } = name;
                if !is_over(generation.epoch) {
                    continue;
                }
                let is_live = live(&digest, generation)
                    .map_err(|source| ReconcileError::Ask { digest, source })?;
                if is_live {
                    result.live += 1;
                    continue;
                }
                info!(%digest, epoch = generation.epoch.0, "removing a blob that nothing names");
                self.inner.remove_copy(&name).map_err(|source| {
                    let path = self.inner.layout.blob(&digest, generation);
                    ReconcileError::Sweep { path, source }
                })?;
                result.removed += 1;
            }
        }
        Ok(result)
    }
}

/// A folder that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot list {}", path.display())]
pub(crate) struct ListError {
    path: PathBuf,
    source: io::Error,
}

impl From<ListError> for ReconcileError {
    fn from(ListError { path, source }: ListError) -> Self {
        Self::Sweep { path, source }
    }
}

impl From<ListError> for io::Error {
    fn from(error: ListError) -> Self {
        Self::new(error.source.kind(), error)
    }
}

/// A folder of copies.
#[derive(Clone, Debug)]
pub(crate) struct Shard {
    pub(crate) algorithm: Algorithm,
    pub(crate) path: PathBuf,
}

impl Shard {
    /// The copies in the folder, in order; a chunk table stands for its copy, so that one left alone
    /// is found too.
    pub(crate) fn copies(&self) -> Result<BTreeSet<BlobFileName>, ListError> {
        let mut found = BTreeSet::new();
        for path in list(self.path.clone())? {
            let name = path.file_name().and_then(|name| name.to_str());
            match name.and_then(|name| BlobFileName::parse(self.algorithm, name)) {
                Some(name) => {
                    found.insert(name);
                }
                None => warn!(path = %path.display(), "leaving a file that is no blob"),
            }
        }
        Ok(found)
    }
}

impl Inner {
    /// The copies in one folder, in order; none if it is not there.
    pub(crate) fn copies_in(
        &self,
        algorithm: Algorithm,
        shard: u8,
    ) -> io::Result<BTreeSet<BlobFileName>> {
        let path = self.layout.algorithm_dir(algorithm).join(format!("{shard:02x}"));
        Ok(Shard { algorithm, path }.copies()?)
    }

    /// Every folder of copies, in order.
    pub(crate) fn shards(&self) -> Result<Vec<Shard>, ListError> {
        let mut shards = Vec::new();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let paths = list(self.layout.algorithm_dir(algorithm))?;
            shards.extend(paths.into_iter().map(|path| Shard { algorithm, path }));
        }
        Ok(shards)
    }
}

fn list(dir: PathBuf) -> Result<Vec<PathBuf>, ListError> {
    let listed = std::fs::read_dir(&dir)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect());
    let mut paths: Vec<PathBuf> = match listed {
        Ok(paths) => paths,
        // The folder of an algorithm that nobody used yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(ListError { path: dir, source }),
    };
    paths.sort();
    Ok(paths)
}
