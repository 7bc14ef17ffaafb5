//! The store as a whole.

use std::sync::Arc;
use std::time::Duration;

use nora_app::ports::blobs::BlobCopy;
use nora_domain::{Placement, UploadId};
use nora_swarm::{Cache, Pool};
use nora_uploads::{Limits, OpenSessions};

use crate::blobs::Tables;
use crate::bucket::Bucket;
use crate::config::ObjectBlobsConfig;
use crate::deletions::Deletions;
use crate::error::ObjectError;
use crate::session::{self, Spool};

/// Blobs in a shared object store, as this node reaches it. Cheap to clone.
#[derive(Clone)]
pub struct ObjectBlobs {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) bucket: Arc<Bucket>,
    pub(crate) sessions: OpenSessions<Spool>,
    pub(crate) tables: Tables,
    pub(crate) cache: Cache,
    pub(crate) deletions: Arc<Deletions>,
    pub(crate) redirect: Option<Duration>,
}

impl ObjectBlobs {
    /// Reads back this node's upload sessions and opens its cache. Asks nothing of the object store:
    /// [`check`](Self::check) does. `pool` bounds what all reads hold in memory. Blocks; runs inside a Tokio runtime.
    ///
    /// # Errors
    /// If the configuration cannot work, or the data folder cannot be read or written.
    pub fn open(config: &ObjectBlobsConfig, pool: Arc<Pool>) -> Result<Self, ObjectError> {
        let folder = config.data_dir.join("uploads");
        let bucket = Arc::new(Bucket::new(config)?);
        let found = session::load(&folder).map_err(|error| unusable(&folder, &error))?;
        let part_bytes = config.part_bytes();
        let spool = Spool { folder, bucket: Arc::clone(&bucket), part_bytes };
        let limits =
            Limits { bytes_max: config.upload_bytes_max, sessions_max: config.sessions_max };
        let folder = config.data_dir.join("object-deletions");
        let deletions = Deletions::load(folder.clone(), Arc::clone(&bucket))
            .map_err(|error| unusable(&folder, &error))?;
        let folder = config.data_dir.join("object-cache");
        let cache = Cache::open(folder.clone(), config.cache_bytes_max, pool)
            .map_err(|error| unusable(&folder, &error))?;
        let inner = Inner {
            tables: Tables::default(),
            cache,
            bucket,
            sessions: OpenSessions::new(spool, limits, found),
            deletions: Arc::new(deletions),
            redirect: config.redirect.then(|| Duration::from_secs(config.presign_seconds)),
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}

pub(crate) fn unusable(folder: &std::path::Path, error: &std::io::Error) -> ObjectError {
    ObjectError::Setup {
        problem: format!("the folder {} cannot be used: {error}", folder.display()),
    }
}

/// The session whose key holds a copy; `None` if it is not in an object store.
pub(crate) fn object_of(copy: &BlobCopy) -> Option<UploadId> {
    match &copy.placement {
        Placement::Object(id) => Some(*id),
        Placement::Nodes(_) => None,
    }
}
