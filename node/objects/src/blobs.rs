//! The port `Blobs` over an object store.
//!
//! Guarantees: a byte that is handed out was verified against the chunk table, and the table against the metadata's
//! root; a stream holds a few MiB, whatever the blob's size. Must not know who may read.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use nora_app::ports::blobs::{BlobCopy, BlobError, Blobs, Delivery, OpenBlob};
use nora_app::ports::{BoxError, BoxFuture, ByteStream};
use nora_domain::record::UploadId;
use tracing::warn;

use crate::bucket::Bucket;
use crate::chunks::{CHUNK_BYTES, ChunkTable};
use crate::deletions::Reading;
use crate::error::{ObjectError, chain};
use crate::store::{ObjectBlobs, object_of};

/// Bytes that one request brings, and requests that one stream has under way.
const RUN_BYTES: u64 = 2 * CHUNK_BYTES as u64;
const RUNS_AHEAD_MAX: usize = 3;

/// Bytes that the chunk tables in memory may have together.
const TABLES_BYTES_MAX: usize = 16 << 20;

/// Names of the properties of a chunk table's object: which copy it is of.
const DIGEST: &str = "nora-digest";
const GENERATION: &str = "nora-generation";

/// What tells a copy's chunk table from another's.
pub(crate) fn properties(copy: &BlobCopy) -> [(&'static str, String); 2] {
    let generation = format!("{}-{}", copy.generation.epoch.0, copy.generation.sequence);
    [(DIGEST, copy.digest.to_string()), (GENERATION, generation)]
}

/// A copy's chunk table, as it was read.
struct Known {
    table: ChunkTable,
    properties: [(&'static str, String); 2],
}

/// Chunk tables of the copies that were read last.
#[derive(Default)]
pub(crate) struct Tables(Mutex<Recent>);

#[derive(Default)]
struct Recent {
    by_id: HashMap<UploadId, (Arc<Known>, u64)>,
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
            if known.properties != properties(&copy) {
                return Err(BlobError::Absent { digest });
            }
            if known.table.size() != copy.size || known.table.root() != copy.chunk_root {
                let source = "its chunk table is not the one that the metadata names".into();
                return Err(BlobError::Io { step: "open", digest, source });
            }
            let bucket = Arc::clone(&self.inner.bucket);
            let key = bucket.key(id);
            let blob = ObjectBlob { copy, key, known, bucket, _reading: reading };
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
            let deleted = self.inner.deletions.delete(id).await;
            deleted.map_err(|error| told(error, "delete", digest))
        })
    }
}

impl ObjectBlobs {
    /// The chunk table of a copy, from memory or the object store.
    async fn known(&self, copy: &BlobCopy, id: UploadId) -> Result<Arc<Known>, BlobError> {
        if let Some(known) = self.inner.tables.get(id) {
            return Ok(known);
        }
        let (bucket, digest) = (&self.inner.bucket, copy.digest);
        let bytes_max = 1024 + usize::try_from(copy.size / 1024).unwrap_or(usize::MAX / 2);
        let got = bucket.get("read a chunk table", &bucket.table_key(id), bytes_max).await;
        let (bytes, object) = got.map_err(|error| told(error, "open", digest))?;
        let table = ChunkTable::decode(&bytes).ok_or_else(|| BlobError::Io {
            step: "open",
            digest,
            source: "its chunk table is damaged".into(),
        })?;
        let property = |name: &'static str| {
            let value = object.metadata().and_then(|properties| properties.get(name));
            (name, value.cloned().unwrap_or_default())
        };
        let known = Arc::new(Known { table, properties: [property(DIGEST), property(GENERATION)] });
        self.inner.tables.put(id, &known);
        Ok(known)
    }
}

/// The port's word for a failed request.
fn told(error: ObjectError, step: &'static str, digest: nora_domain::Digest) -> BlobError {
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
    copy: BlobCopy,
    key: String,
    known: Arc<Known>,
    bucket: Arc<Bucket>,
    // Holds off its deletion.
    _reading: Reading,
}

impl OpenBlob for ObjectBlob {
    fn size(&self) -> u64 {
        self.copy.size
    }

    fn read(self: Arc<Self>, range: Range<u64>, _delivery: Delivery) -> ByteStream {
        if range.end > self.copy.size || range.start > range.end {
            let error = format!("{range:?} is not within the blob's {} bytes", self.copy.size);
            return Box::pin(stream::iter([Err(BoxError::from(error))]));
        }
        let pieces = stream::iter(runs(range, self.copy.size))
            .map(move |run| {
                let blob = Arc::clone(&self);
                async move { blob.fetch(run).await }
            })
            .buffered(RUNS_AHEAD_MAX)
            .map_ok(|pieces| stream::iter(pieces.into_iter().map(Ok)))
            .try_flatten();
        Box::pin(pieces)
    }
}

/// Whole chunks that one request brings, and what of them is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    chunks: Range<u64>,
    wanted: Range<u64>,
}

/// The runs that cover a range of a blob of that size, in order.
fn runs(range: Range<u64>, size: u64) -> impl Iterator<Item = Run> {
    let first = range.start / CHUNK_BYTES as u64 * CHUNK_BYTES as u64;
    let end = if range.is_empty() { first } else { range.end };
    (first..end).step_by(RUN_BYTES as usize).map(move |start| {
        let wanted = start.max(range.start)..(start + RUN_BYTES).min(range.end);
        let end = wanted.end.next_multiple_of(CHUNK_BYTES as u64).min(size);
        Run { chunks: start..end, wanted }
    })
}

impl ObjectBlob {
    async fn fetch(self: Arc<Self>, run: Run) -> Result<Vec<Bytes>, BoxError> {
        let bytes = self.bucket.get_range("read", &self.key, run.chunks.clone()).await?;
        tokio::task::spawn_blocking(move || {
            let first = (run.chunks.start / CHUNK_BYTES as u64) as usize;
            for (index, chunk) in bytes.chunks(CHUNK_BYTES).enumerate() {
                if !self.known.table.verify(first + index, chunk) {
                    return Err(BoxError::from(ObjectError::Damaged {
                        step: "read",
                        problem: format!("chunk {} of {} is damaged", first + index, self.key),
                    }));
                }
            }
            let start = (run.wanted.start - run.chunks.start) as usize;
            let wanted = bytes.slice(start..start + (run.wanted.end - run.wanted.start) as usize);
            Ok(vec![wanted])
        })
        .await?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn check(range: Range<u64>, expected: &[(Range<u64>, Range<u64>)]) {
        let found: Vec<_> = runs(range, 5 * MIB + 10).map(|run| (run.chunks, run.wanted)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn runs_cover_a_range_with_whole_chunks() {
        check(0..0, &[]);
        check(7..7, &[]);
        check(3..4, &[(0..MIB, 3..4)]);
        check(MIB - 1..MIB + 1, &[(0..2 * MIB, MIB - 1..MIB + 1)]);
        check(
            MIB + 5..5 * MIB + 10,
            &[
                (MIB..3 * MIB, MIB + 5..3 * MIB),
                (3 * MIB..5 * MIB, 3 * MIB..5 * MIB),
                (5 * MIB..5 * MIB + 10, 5 * MIB..5 * MIB + 10),
            ],
        );
    }
}
