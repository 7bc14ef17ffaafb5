//! Removing blobs that earlier runs of the server wrote and the metadata does not name.
//!
//! Guarantees: a file goes only if its epoch is over, so that nobody can still be about to name it,
//! and the metadata was asked about it and said no. Any error stops the sweep.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use nora_app::ports::BoxError;
use nora_domain::record::{Epoch, Generation};
use nora_domain::{Algorithm, Digest};
use tracing::{info, warn};

use crate::layout::BlobFileName;
use crate::store::{LocalBlobs, remove};

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
    /// Removes copies that were written before epoch `running` and are not `live`. Blocks; uploads
    /// and reads may go on. The metadata must know everything that was acknowledged before
    /// `running` began.
    pub fn reconcile(
        &self,
        running: Epoch,
        live: impl Fn(&Digest, Generation) -> Result<bool, BoxError>,
    ) -> Result<Reconciled, ReconcileError> {
        let mut result = Reconciled::default();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            for shard in list(&self.inner.layout.algorithm_dir(algorithm))? {
                for BlobFileName { digest, generation } in copies(algorithm, &shard)? {
                    if generation.epoch >= running {
                        continue;
                    }
                    let is_live = live(&digest, generation)
                        .map_err(|source| ReconcileError::Ask { digest, source })?;
                    if is_live {
                        result.live += 1;
                        continue;
                    }
                    let epoch = generation.epoch.0;
                    info!(%digest, epoch, "removing a blob that nothing names");
                    for path in [
                        self.inner.layout.chunks(&digest, generation),
                        self.inner.layout.blob(&digest, generation),
                    ] {
                        remove(&path).map_err(|source| ReconcileError::Sweep { path, source })?;
                    }
                    result.removed += 1;
                }
            }
        }
        Ok(result)
    }
}

/// The copies in a folder; a chunk table stands for its copy, so that one left alone is found too.
fn copies(algorithm: Algorithm, shard: &Path) -> Result<BTreeSet<BlobFileName>, ReconcileError> {
    let mut found = BTreeSet::new();
    for path in list(shard)? {
        let name = path.file_name().and_then(|name| name.to_str());
        match name.and_then(|name| BlobFileName::parse(algorithm, name)) {
            Some(name) => {
                found.insert(name);
            }
            None => warn!(path = %path.display(), "leaving a file that is no blob"),
        }
    }
    Ok(found)
}

fn list(dir: &Path) -> Result<Vec<PathBuf>, ReconcileError> {
    let failed = |source| ReconcileError::Sweep { path: dir.to_owned(), source };
    match std::fs::read_dir(dir) {
        Ok(entries) => entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()
            .map_err(failed),
        // The folder of an algorithm that nobody used yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(error)),
    }
}
