//! [`LocalBlobs`]: opening the data folder, and the port `Blobs`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use nora_app::ports::blobs::{BlobCopy, BlobError, Blobs, OpenBlob};
use nora_app::ports::{BoxError, BoxFuture};
use nora_domain::NodeId;
use nora_uploads::{Limits, OpenSessions};
use tokio::task::spawn_blocking;

use crate::layout::{BlobFileName, Layout};
use crate::read::{self, Readers, StoredFile, StoredSmall};
use crate::session;

/// Where the store is and what it may hold.
#[derive(Clone, Debug)]
pub struct LocalBlobsConfig {
    /// This node: who holds what is stored here.
    pub node: NodeId,
    /// The folder that holds `blobs` and `uploads`; made if it is missing.
    pub data_dir: PathBuf,
    /// The most bytes an upload may have.
    pub upload_bytes_max: u64,
    /// The most upload sessions that may be open.
    pub sessions_max: usize,
}

/// Why the store cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} in {}", data_dir.display())]
pub struct OpenError {
    step: &'static str,
    data_dir: PathBuf,
    source: io::Error,
}

impl OpenError {
    pub(crate) fn new(step: &'static str, data_dir: PathBuf, source: io::Error) -> Self {
        Self { step, data_dir, source }
    }
}

/// Blobs and upload sessions in a folder of this node.
#[derive(Clone)]
pub struct LocalBlobs {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) node: NodeId,
    pub(crate) layout: Layout,
    pub(crate) sessions: OpenSessions<Layout>,
    readers: Arc<Readers>,
}

impl LocalBlobs {
    /// Opens the store and takes up the upload sessions that an earlier run left. Blocks.
    pub fn open(config: LocalBlobsConfig) -> Result<Self, OpenError> {
        let LocalBlobsConfig { node, data_dir, upload_bytes_max, sessions_max } = config;
        let failed = |step| {
            let data_dir = data_dir.clone();
            move |source| OpenError { step, data_dir, source }
        };
        let layout = Layout::create(&data_dir).map_err(failed("make the folders"))?;
        let found = session::load(&layout).map_err(failed("take up the upload sessions"))?;
        let limits = Limits { bytes_max: upload_bytes_max, sessions_max };
        let inner = Inner {
            node,
            sessions: OpenSessions::new(layout.clone(), limits, found),
            layout,
            readers: Arc::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// All streams out of this store, for their share of memory.
    pub(crate) fn readers(&self) -> Arc<Readers> {
        Arc::clone(&self.inner.readers)
    }
}

impl Blobs for LocalBlobs {
    fn open(&self, copy: BlobCopy) -> BoxFuture<'_, Result<Arc<dyn OpenBlob>, BlobError>> {
        let BlobCopy { digest, generation, size, .. } = copy;
        let path = self.inner.layout.blob(&digest, generation);
        let readers = Arc::clone(&self.inner.readers);
        Box::pin(async move {
            let opened = spawn_blocking(move || open(&path, size, readers)).await;
            match opened.unwrap_or_else(|panicked| Err(io::Error::other(panicked))) {
                Ok(blob) => Ok(blob),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    Err(BlobError::Absent { digest })
                }
                Err(error) => Err(BlobError::Io { step: "open", digest, source: error.into() }),
            }
        })
    }

    fn redirect(&self, _copy: &BlobCopy) -> BoxFuture<'_, Result<Option<String>, BlobError>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    fn delete(&self, copy: BlobCopy) -> BoxFuture<'_, Result<(), BlobError>> {
        let BlobCopy { digest, generation, .. } = copy;
        let (inner, name) = (Arc::clone(&self.inner), BlobFileName { digest, generation });
        Box::pin(async move {
            let deleted = spawn_blocking(move || inner.remove_copy(&name));
            deleted
                .await
                .map_err(BoxError::from)
                .and_then(|result| result.map_err(BoxError::from))
                .map_err(|source| BlobError::Io { step: "delete", digest, source })
        })
    }
}

fn open(path: &Path, size: u64, readers: Arc<Readers>) -> io::Result<Arc<dyn OpenBlob>> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    if len != size {
        let message = format!("the file has {len} bytes, the blob has {size}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    match usize::try_from(size) {
        // Read at once: a second trip to a blocking thread would cost more than the bytes.
        Ok(len) if len <= read::SMALL_BYTES_MAX => {
            let mut bytes = vec![0; len];
            file.read_exact_at(&mut bytes, 0)?;
            Ok(Arc::new(StoredSmall::new(Bytes::from(bytes))))
        }
        _ => Ok(Arc::new(StoredFile::new(file, size, readers))),
    }
}

/// Removes a file; none there is as good.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// For tests: a store without blobs, and the folder that holds it.
#[cfg(test)]
pub(crate) fn empty() -> (tempfile::TempDir, Arc<Inner>) {
    let dir = tempfile::tempdir().unwrap();
    let config = LocalBlobsConfig {
        node: NodeId(1),
        data_dir: dir.path().to_owned(),
        upload_bytes_max: 1,
        sessions_max: 1,
    };
    let inner = LocalBlobs::open(config).unwrap().inner;
    (dir, inner)
}
