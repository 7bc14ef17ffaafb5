//! The port `Finish` over an object store. Must not know how bytes are laid out or sent.

use nora_app::ports::BoxFuture;
use nora_app::ports::blobs::BlobCopy;
use nora_app::ports::uploads::{Finish, Sessions, UploadError};
use nora_domain::{Digest, Generation, UploadId};
use nora_uploads::chain;
use tracing::warn;

use crate::session::remove_folder;
use crate::store::ObjectBlobs;

impl ObjectBlobs {
    /// The upload sessions of this node.
    pub fn sessions(&self) -> &(impl Sessions + Clone + 'static) {
        &self.inner.sessions
    }
}

impl Finish for ObjectBlobs {
    fn finish(
        &self,
        id: UploadId,
        digest: Digest,
        generation: Generation,
    ) -> BoxFuture<'_, Result<BlobCopy, UploadError>> {
        Box::pin(async move {
            let mut claim = self.inner.sessions.claim(id)?;
            let copy = match self.inner.store(&mut claim, digest, generation).await {
                Ok(copy) => copy,
                Err(error @ UploadError::DigestMismatch { .. }) => {
                    // The bytes are good for nothing, so nothing is lost if this does not go all the way.
                    if let Err(error) = self.inner.sessions.remove(claim).await {
                        warn!(error = %chain(&error), "cannot clear away an upload with a wrong digest");
                    }
                    return Err(error);
                }
                Err(error) => return Err(error),
            };
            // The session must be gone for good before the blob is anybody's: a session that came back after a crash
            // would be cancelled some day.
            remove_folder(&claim).await?;
            self.inner.sessions.forget(&mut claim);
            Ok(copy)
        })
    }
}
