//! Whether the object store can be worked with: asked at the start, so that a mistake in the configuration is told then
//! and not at the first push, and again for readiness.

use bytes::Bytes;
use nora_uploads::name_of;

use crate::bucket::Body;
use crate::error::ObjectError;
use crate::store::ObjectBlobs;

impl ObjectBlobs {
    /// Does once what the work needs: lists, puts, reads and deletes under the prefix, and lists unfinished uploads.
    /// `name` makes the object's name and must be new.
    ///
    /// # Errors
    /// The first step that does not work, with what to change.
    pub async fn check(&self, name: u128) -> Result<(), ObjectError> {
        let bucket = &self.inner.bucket;
        bucket.list_one().await?;
        let key = bucket.key_of(&format!("checks/{}", name_of(nora_domain::UploadId(name))));
        let written = Bytes::from_static(b"NORA writes, reads and deletes this when it starts.\n");
        bucket.put("write an object", &key, Body::Bytes(written.clone()), None).await?;
        let (read, _) = bucket.get("read an object", &key, 2 * written.len()).await?;
        bucket.delete(&key).await?;
        if read != written {
            return Err(ObjectError::Damaged {
                step: "read an object",
                problem: "it is not what was written a moment before".to_owned(),
            });
        }
        bucket.unfinished(None).await?;
        Ok(())
    }

    /// Whether the bucket answers. One request.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn probe(&self) -> Result<(), ObjectError> {
        self.inner.bucket.list_one().await
    }
}
