//! Multipart uploads that nobody will complete: their node is gone, or forgot them in a crash. S3 keeps (and bills)
//! their parts until somebody aborts them.
//!
//! Guarantees: never touches a session of this node, nor an object. Must not know which other nodes' sessions live: the
//! caller asks the metadata.

use nora_domain::{Timestamp, UploadId};

use crate::error::ObjectError;
use crate::store::ObjectBlobs;

/// A multipart upload that this node does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abandoned {
    /// The session it was begun for.
    pub id: UploadId,
    multipart: String,
}

impl ObjectBlobs {
    /// Multipart uploads that were begun before a time and are not of a session of this node. The caller must keep
    /// those whose session some other node still has. MinIO names none here: it lists only those of one key, and drops
    /// all by itself after a day.
    ///
    /// # Errors
    /// If the bucket cannot be listed.
    pub async fn abandoned(&self, before: Timestamp) -> Result<Vec<Abandoned>, ObjectError> {
        let inner = &self.inner;
        let before_seconds = i64::try_from(before.0 / 1000).unwrap_or(i64::MAX);
        let unfinished = inner.bucket.unfinished(None).await?;
        let abandoned = unfinished
            .into_iter()
            .filter(|(id, _, begun)| *begun < before_seconds && !inner.sessions.contains(*id))
            .map(|(id, multipart, _)| Abandoned { id, multipart });
        Ok(abandoned.collect())
    }

    /// Drops the parts of a session that is known to be over, such as one of a node that left. Does nothing to a session
    /// of this node.
    ///
    /// # Errors
    /// If the object store does not do it; it is no error if there is nothing to drop.
    pub async fn abort_session(&self, id: UploadId) -> Result<(), ObjectError> {
        let inner = &self.inner;
        if inner.sessions.contains(id) {
            return Ok(());
        }
        for (id, multipart, _) in inner.bucket.unfinished(Some(id)).await? {
            inner.bucket.abort(&inner.bucket.key(id), &multipart).await?;
        }
        Ok(())
    }

    /// Drops the parts of an abandoned multipart upload.
    ///
    /// # Errors
    /// If the object store does not do it; it is no error if the upload is gone.
    pub async fn abort(&self, abandoned: &Abandoned) -> Result<(), ObjectError> {
        let key = self.inner.bucket.key(abandoned.id);
        self.inner.bucket.abort(&key, &abandoned.multipart).await
    }
}
