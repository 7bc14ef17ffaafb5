//! An object as a source of chunks.
//!
//! Guarantees: an error tells whether asking again may help. Must not know who verifies and keeps what it gives.

use std::ops::Range;
use std::sync::Arc;

use futures_util::stream;
use nora_domain::UploadId;
use nora_swarm::{BoxFuture, ChunkTable, Source, SourceError, SourceStream};

use crate::bucket::Bucket;
use crate::error::{ObjectError, chain};

/// The object of a session.
pub(crate) struct ObjectSource {
    bucket: Arc<Bucket>,
    key: String,
    table: ChunkTable,
}

impl ObjectSource {
    pub(crate) fn new(bucket: &Arc<Bucket>, id: UploadId, table: ChunkTable) -> Self {
        Self { bucket: Arc::clone(bucket), key: bucket.key(id), table }
    }
}

impl Source for ObjectSource {
    fn label(&self) -> String {
        format!("the object {}", self.key)
    }

    fn table(&self) -> BoxFuture<'_, Result<ChunkTable, SourceError>> {
        Box::pin(async { Ok(self.table.clone()) })
    }

    fn read(&self, range: Range<u64>) -> BoxFuture<'_, Result<SourceStream, SourceError>> {
        Box::pin(async move {
            match self.bucket.get_range("read", &self.key, range).await {
                Ok(bytes) => Ok(Box::pin(stream::iter([Ok(bytes)])) as SourceStream),
                Err(ObjectError::Absent { .. }) => Err(SourceError::Absent),
                Err(ObjectError::Damaged { .. }) => Err(SourceError::Corrupt),
                Err(error) => Err(SourceError::Unavailable(chain(&error))),
            }
        })
    }
}
