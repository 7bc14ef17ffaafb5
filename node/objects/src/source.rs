//! An object as a source of chunks.
//!
//! Guarantees: an error tells whether asking again may help; an object that is gone is looked for when it is opened next. Must not know who verifies and keeps what it gives.

use std::ops::Range;
use std::sync::Arc;

use futures_util::stream;
use nora_domain::UploadId;
use nora_swarm::{BoxFuture, ChunkTable, Source, SourceError, SourceStream};
use nora_uploads::chain;

use crate::error::ObjectError;
use crate::store::Inner;

/// The object of a session.
pub(crate) struct ObjectSource {
    store: Arc<Inner>,
    id: UploadId,
    key: String,
    table: ChunkTable,
}

impl ObjectSource {
    pub(crate) fn new(store: &Arc<Inner>, id: UploadId, table: ChunkTable) -> Self {
        Self { store: Arc::clone(store), id, key: store.bucket.key(id), table }
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
            match self.store.bucket.get_range("read", &self.key, range).await {
                Ok(bytes) => Ok(Box::pin(stream::iter([Ok(bytes)])) as SourceStream),
                Err(ObjectError::Absent { .. }) => {
                    self.store.tables.doubt(self.id);
                    Err(SourceError::Absent)
                }
                Err(ObjectError::Damaged { .. }) => Err(SourceError::Corrupt),
                Err(error) => Err(SourceError::Unavailable(chain(&error))),
            }
        })
    }
}
