//! The port `Blobs` over an object store.
//!
//! Blobs are read through a cache on this node's disk. Guarantees: a byte that is handed out was verified against the
//! chunk table, and the table against the metadata's root. Must not know who may read.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{TryStreamExt, stream};
use nora_app::ports::blobs::{BlobCopy, BlobError, Blobs, Delivery, OpenBlob};
use nora_app::ports::{BoxError, BoxFuture, ByteStream};
use nora_domain::{Digest, Generation, UploadId};
use nora_swarm::{CacheStats, CachedBlob, ChunkTable};
use nora_uploads::{chain, name_of};
use tokio::task::spawn_blocking;
use tracing::warn;

use crate::deletions::Reading;
use crate::error::ObjectError;
use crate::source::ObjectSource;
use crate::store::{ObjectBlobs, object_of};

/// Bytes that the chunk tables in memory may have together.
const TABLES_BYTES_MAX: usize = 16 << 20;

/// Copies in doubt that are remembered at once; one that is forgotten is doubted again when it is read next.
const DOUBTED_MAX: usize = 10_000;

/// A copy's chunk table, as it was read.
struct Known {
    table: ChunkTable,
    digest: Digest,
    generation: Generation,
}

/// Chunk tables of the copies that were read last.
#[derive(Default)]
pub(crate) struct Tables(Mutex<Recent>);

#[derive(Default)]
struct Recent {
    by_id: HashMap<UploadId, (Arc<Known>, u64)>,
    /// Copies whose object was not there when it was read.
    doubted: HashSet<UploadId>,
    bytes: usize,
    clock: u64,
}

impl Tables {
    fn with<T>(&self, work: impl FnOnce(&mut Recent) -> T) -> T {
        // Nothing that can panic runs under the lock.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn get(&self, id: UploadId) -> Option<Arc<Known>> {
        self.with(|recent| {
            recent.clock += 1;
            let (known, used_at) = recent.by_id.get_mut(&id)?;
            *used_at = recent.clock;
            Some(Arc::clone(known))
        })
    }

    fn put(&self, id: UploadId, known: &Arc<Known>) {
        self.forget(id);
        self.with(|recent| {
            recent.clock += 1;
            recent.bytes += cost(known);
            recent.by_id.insert(id, (Arc::clone(known), recent.clock));
            while recent.bytes > TABLES_BYTES_MAX {
                let oldest = recent.by_id.iter().min_by_key(|(_, (_, used_at))| *used_at);
                let Some((id, known)) = oldest.map(|(id, (known, _))| (*id, Arc::clone(known)))
                else {
                    return;
                };
                recent.bytes -= cost(&known);
                recent.by_id.remove(&id);
            }
        });
    }

    /// A copy's object was not there: whether the copy can be opened is to be found out anew.
    pub(crate) fn doubt(&self, id: UploadId) {
        self.forget(id);
        self.with(|recent| {
            if recent.doubted.len() >= DOUBTED_MAX {
                recent.doubted.clear();
            }
            recent.doubted.insert(id);
        });
    }

    fn is_doubted(&self, id: UploadId) -> bool {
        self.with(|recent| recent.doubted.contains(&id))
    }

    fn trust(&self, id: UploadId) {
        self.with(|recent| recent.doubted.remove(&id));
    }

    fn forget(&self, id: UploadId) {
        self.with(|recent| {
            if let Some((known, _)) = recent.by_id.remove(&id) {
                recent.bytes -= cost(&known);
            }
        });
    }
}

fn cost(known: &Known) -> usize {
    512 + known.table.hashes().len() * 32
}

impl Blobs for ObjectBlobs {
    fn open(&self, copy: BlobCopy) -> BoxFuture<'_, Result<Arc<dyn OpenBlob>, BlobError>> {
        Box::pin(async move {
            let digest = copy.digest;
            let id = object_of(&copy).ok_or(BlobError::Absent { digest })?;
            let reading = self.inner.deletions.reading(id).ok_or(BlobError::Absent { digest })?;
            let known = self.known(&copy, id).await?;
            if known.table.size() != copy.size || known.table.root() != copy.chunk_root {
                let source = "its chunk table is not the one that the metadata names".into();
                return Err(BlobError::Io { step: "open", digest, source });
            }
            let source = Arc::new(ObjectSource::new(&self.inner, id, known.table.clone()));
            let cached =
                self.inner.cache.blob(&name_of(id), copy.size, copy.chunk_root, vec![source]);
            let blob = ObjectBlob { size: copy.size, cached, _reading: reading };
            Ok(Arc::new(blob) as Arc<dyn OpenBlob>)
        })
    }

    fn redirect(&self, copy: &BlobCopy) -> BoxFuture<'_, Result<Option<String>, BlobError>> {
        let (digest, id) = (copy.digest, object_of(copy));
        Box::pin(async move {
            let (Some(good), Some(id)) = (self.inner.redirect, id) else {
                return Ok(None);
            };
            let bucket = &self.inner.bucket;
            match bucket.presign(&bucket.key(id), good).await {
                Ok(url) => Ok(Some(url)),
                Err(error) => Err(told(error, "presign a URL of", digest)),
            }
        })
    }

    fn delete(&self, copy: BlobCopy) -> BoxFuture<'_, Result<(), BlobError>> {
        Box::pin(async move {
            let digest = copy.digest;
            let Some(id) = object_of(&copy) else {
                let source = "its bytes are on nodes' disks, not in the object store".into();
                return Err(BlobError::Io { step: "delete", digest, source });
            };
            self.inner.tables.forget(id);
            self.inner.tables.trust(id);
            let deleted = self.inner.deletions.delete(id, copy.generation).await;
            deleted.map_err(|error| told(error, "delete", digest))?;
            let inner = Arc::clone(&self.inner);
            let uncached = spawn_blocking(move || inner.cache.remove(&name_of(id))).await;
            uncached.map_err(|error| BlobError::Io { step: "delete", digest, source: error.into() })
        })
    }
}

impl ObjectBlobs {
    /// What the cache of read blobs holds and did.
    pub fn cache_stats(&self) -> CacheStats {
        self.inner.cache.stats()
    }

    /// The chunk table of a copy, from memory or the object store.
    async fn known(&self, copy: &BlobCopy, id: UploadId) -> Result<Arc<Known>, BlobError> {
        let (bucket, digest, generation) = (&self.inner.bucket, copy.digest, copy.generation);
        let is_it = |known: &Arc<Known>| (known.digest, known.generation) == (digest, generation);
        if let Some(known) = self.inner.tables.get(id).filter(is_it) {
            return Ok(known);
        }
        let bytes_max = 1024 + usize::try_from(copy.size / 1024).unwrap_or(usize::MAX / 2);
        let got =
            bucket.get("read a chunk table", &bucket.table_key(id, generation), bytes_max).await;
        let (bytes, named) = got.map_err(|error| told(error, "open", digest))?;
        let table = ChunkTable::decode(&bytes).ok_or_else(|| BlobError::Io {
            step: "open",
            digest,
            source: "its chunk table is damaged".into(),
        })?;
        match named {
            Some(named) if named == digest.to_string() => {}
            Some(_) => return Err(BlobError::Absent { digest }),
            // A proxy that drops headers: the blob may be there all the same.
            None => {
                let source = "its chunk table came without the header that names the blob".into();
                return Err(BlobError::Io { step: "open", digest, source });
            }
        }
        // The table may have outlived the bytes. To look for these costs a request, so it is done where they were missed.
        if self.inner.tables.is_doubted(id) {
            if copy.size > 0 {
                let first = bucket.get_range("look for a blob", &bucket.key(id), 0..1).await;
                first.map_err(|error| told(error, "open", digest))?;
            }
            self.inner.tables.trust(id);
        }
        let known = Arc::new(Known { table, digest, generation });
        self.inner.tables.put(id, &known);
        Ok(known)
    }
}

/// The port's word for a failed request.
fn told(error: ObjectError, step: &'static str, digest: Digest) -> BlobError {
    match error {
        ObjectError::Absent { .. } => BlobError::Absent { digest },
        error if error.is_transient() => {
            warn!(%digest, error = %chain(&error), "the object store does not answer");
            BlobError::Unreachable { digest, holders: Vec::new() }
        }
        error => BlobError::Io { step, digest, source: error.into() },
    }
}

/// A copy that was opened.
struct ObjectBlob {
    size: u64,
    cached: Arc<CachedBlob>,
    // Holds off its deletion.
    _reading: Reading,
}

impl OpenBlob for ObjectBlob {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(self: Arc<Self>, range: Range<u64>, _delivery: Delivery) -> ByteStream {
        if range.end > self.size || range.start > range.end {
            let error = format!("{range:?} is not within the blob's {} bytes", self.size);
            return Box::pin(stream::iter([Err(BoxError::from(error))]));
        }
        let pieces = Arc::clone(&self.cached).read(range);
        // The stream keeps the blob open as long as it is read.
        Box::pin(pieces.map_err(move |error| {
            let _open = &self;
            BoxError::from(error)
        }))
    }
}
