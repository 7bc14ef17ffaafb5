//! The port `Uploads` over an object store. Must not know how bytes are laid out or sent.

use nora_app::ports::blobs::BlobCopy;
use nora_app::ports::uploads::{UploadError, UploadState, Uploads};
use nora_app::ports::{BoxFuture, ByteStream};
use nora_domain::{Algorithm, Digest, Generation, RepositoryKey, Timestamp, UploadId};
use nora_uploads::{Purpose, chain};
use tracing::warn;

use crate::session::remove_folder;
use crate::store::ObjectBlobs;

impl Uploads for ObjectBlobs {
    fn open(
        &self,
        id: UploadId,
        repository: RepositoryKey,
        algorithm: Algorithm,
        now: Timestamp,
    ) -> BoxFuture<'_, Result<UploadState, UploadError>> {
        let purpose = Purpose { repository, algorithm, opened_at: now };
        Box::pin(self.inner.sessions.open(id, purpose))
    }

    fn state(&self, id: UploadId) -> BoxFuture<'_, Result<UploadState, UploadError>> {
        Box::pin(std::future::ready(self.inner.sessions.state(id)))
    }

    fn append(
        &self,
        id: UploadId,
        start: Option<u64>,
        body: ByteStream,
    ) -> BoxFuture<'_, Result<UploadState, UploadError>> {
        Box::pin(self.inner.sessions.append(id, start, body))
    }

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

    fn cancel(&self, id: UploadId) -> BoxFuture<'_, Result<(), UploadError>> {
        Box::pin(self.inner.sessions.cancel(id))
    }

    fn list(&self) -> Vec<UploadState> {
        self.inner.sessions.list()
    }

    fn is_written(&self, id: UploadId) -> bool {
        self.inner.sessions.is_written(id)
    }

    fn expire(&self, before: Timestamp) -> BoxFuture<'_, Result<Vec<UploadId>, UploadError>> {
        Box::pin(async move { Ok(self.inner.sessions.expire(before).await) })
    }
}
