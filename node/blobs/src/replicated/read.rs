//! Opening a copy, wherever it is.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use nora_app::ports::blobs::{BlobCopy, BlobError, Blobs, Delivery, OpenBlob};
use nora_app::ports::{BoxError, ByteStream};
use nora_domain::{NodeId, Placement};
use nora_swarm::{CachedBlob, FetchError, SourceError};
use tracing::warn;

use super::Shared;

/// This node's file if there is one, else the copy of a holder.
pub(super) async fn open(
    shared: &Arc<Shared>,
    copy: BlobCopy,
) -> Result<Arc<dyn OpenBlob>, BlobError> {
    let digest = copy.digest;
    let Placement::Nodes(listed) = &copy.placement else {
        let source = "it is in an object store, and this node is set up for local disks".into();
        return Err(BlobError::Io { step: "open", digest, source });
    };
    // A file with the copy's name is the copy, listed or not: names are given last.
    let failure = match Blobs::open(&shared.local, copy.clone()).await {
        Ok(blob) => {
            shared.counters.read_local(1);
            return Ok(Arc::new(Watched { blob, shared: Arc::clone(shared), copy }));
        }
        Err(BlobError::Absent { .. }) => None,
        Err(error) => Some(error),
    };
    if failure.is_some() || listed.contains(&shared.me()) {
        warn!(%digest, ?failure, "this node's copy of a blob is gone or cannot be read");
        shared.suspect(&copy);
    }
    let holders = by_distance(shared, listed).await;
    if holders.is_empty() {
        return Err(failure.unwrap_or(BlobError::Absent { digest }));
    }
    shared.counters.read_peer(1);
    let error = match remote(shared, &copy, &holders).await {
        Ok(blob) => return Ok(blob),
        Err(error) => error,
    };
    // The copies may have moved since the row was read.
    if let Ok(Some(now)) = shared.live(digest).await
        && now.generation == copy.generation
        && now.placement != copy.placement
        && let Placement::Nodes(listed) = &now.placement
    {
        let holders = by_distance(shared, listed).await;
        if let Ok(blob) = remote(shared, &copy, &holders).await {
            return Ok(blob);
        }
    }
    warn!(%error, %digest, "no holder gave a blob");
    if let Some(failure) = failure.filter(|_| !error.may_pass()) {
        return Err(failure);
    }
    if error.sources.iter().all(|(_, error)| *error == SourceError::Absent) {
        return Err(BlobError::Absent { digest });
    }
    Err(BlobError::Unreachable { digest, holders })
}

/// A copy of other nodes, once its first chunk is here.
async fn remote(
    shared: &Arc<Shared>,
    copy: &BlobCopy,
    holders: &[NodeId],
) -> Result<Arc<dyn OpenBlob>, FetchError> {
    let sources = shared.sources(copy, holders);
    let blob = shared.cache.blob(&cached_name(copy), copy.size, copy.chunk_root, sources);
    blob.probe().await?;
    Ok(Arc::new(Remote(blob)))
}

/// A copy's name in the cache.
pub(super) fn cached_name(copy: &BlobCopy) -> String {
    let BlobCopy { digest, generation, .. } = copy;
    let (algorithm, hex) = (digest.algorithm(), digest.hex());
    format!("{algorithm}-{hex}.{}-{}", generation.epoch.0, generation.sequence)
}

/// A blob of other nodes.
struct Remote(Arc<CachedBlob>);

impl OpenBlob for Remote {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read(self: Arc<Self>, range: Range<u64>, _delivery: Delivery) -> ByteStream {
        if range.end > self.0.size() {
            let error = BoxError::from(io::Error::from(io::ErrorKind::UnexpectedEof));
            return Box::pin(stream::iter([Err(error)]));
        }
        Box::pin(Arc::clone(&self.0).read(range).map(|piece| piece.map_err(BoxError::from)))
    }
}

/// The other holders: those in this node's zone first, the rest in an order that spreads the load, and
/// those that failed lately last.
pub(super) async fn by_distance(shared: &Shared, listed: &[NodeId]) -> Vec<NodeId> {
    let me = shared.me();
    let mut holders: Vec<_> = listed.iter().copied().filter(|node| *node != me).collect();
    let turn = shared.turn();
    if !holders.is_empty() {
        let places = holders.len();
        holders.rotate_left(turn % places);
    }
    // Without a view the order is a worse one, that is all.
    if let Ok(view) = shared.views.now().await {
        holders.sort_by_key(|node| (!view.is_live(*node), !view.is_near(*node)));
    }
    shared.grudges.best_first(holders)
}

/// A local blob whose failing reads are told to repair.
struct Watched {
    blob: Arc<dyn OpenBlob>,
    shared: Arc<Shared>,
    copy: BlobCopy,
}

impl OpenBlob for Watched {
    fn size(&self) -> u64 {
        self.blob.size()
    }

    fn read(self: Arc<Self>, range: Range<u64>, delivery: Delivery) -> ByteStream {
        let within = range.end <= self.copy.size;
        let pieces = Arc::clone(&self.blob).read(range, delivery);
        Box::pin(pieces.inspect(move |piece| {
            if let (Err(error), true) = (piece, within) {
                warn!(%error, digest = %self.copy.digest, "a read of this node's copy failed");
                self.shared.suspect(&self.copy);
            }
        }))
    }
}
