//! The port `Uploads` over an object store. Must not know how bytes are laid out or sent.

use std::sync::Arc;

use nora_app::ports::blobs::BlobCopy;
use nora_app::ports::uploads::{UploadError, UploadState, Uploads};
use nora_app::ports::{BoxFuture, ByteStream};
use nora_domain::{Algorithm, Digest, Generation, RepositoryKey, Timestamp, UploadId};
use nora_uploads::{Purpose, name_of, on_disk, step};
use tracing::warn;

use crate::error::chain;
use crate::intake::take_in;
use crate::journal::Header;
use crate::session::Claim;
use crate::store::ObjectBlobs;
use crate::writer::Writer;

impl Uploads for ObjectBlobs {
    fn open(
        &self,
        id: UploadId,
        repository: RepositoryKey,
        algorithm: Algorithm,
        now: Timestamp,
    ) -> BoxFuture<'_, Result<UploadState, UploadError>> {
        let purpose = Purpose { repository, algorithm, opened_at: now };
        Box::pin(self.blocking("open an upload session", move |inner| {
            let header = Header { purpose: purpose.clone(), part_bytes: inner.part_bytes };
            let writer = Writer::new(inner.uploads.join(name_of(id)), id, header);
            let mut claim = inner.sessions.open(id, purpose, writer)?;
            match claim.create() {
                Ok(()) => Ok(claim.state()),
                Err(error) => {
                    inner.sessions.forget(&mut claim);
                    Err(step("open an upload session")(error).into())
                }
            }
        }))
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
        Box::pin(async move {
            let inner = &self.inner;
            let claim = inner.sessions.claim(id)?;
            claim.starts_at(start)?;
            if claim.is_sealed() {
                let source = "its end was begun; end it again, or start anew".into();
                return Err(UploadError::Io { step: "append to the upload", source });
            }
            take_in(Arc::clone(&inner.bucket), claim, body, inner.upload_bytes_max).await
        })
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
                    if let Err(error) = self.end(&mut claim).await {
                        warn!(error = %chain(&error), "cannot clear away an upload with a wrong digest");
                    }
                    return Err(error);
                }
                Err(error) => return Err(error),
            };
            // The session must be gone for good before the blob is anybody's: a session that came back after a crash
            // would be cancelled some day.
            self.remove(&mut claim).await?;
            Ok(copy)
        })
    }

    fn cancel(&self, id: UploadId) -> BoxFuture<'_, Result<(), UploadError>> {
        Box::pin(async move {
            let mut claim = self.inner.sessions.claim(id)?;
            self.end(&mut claim).await
        })
    }

    fn list(&self) -> Vec<UploadState> {
        self.inner.sessions.list()
    }

    fn is_written(&self, id: UploadId) -> bool {
        self.inner.sessions.is_written(id)
    }

    fn expire(&self, before: Timestamp) -> BoxFuture<'_, Result<Vec<UploadId>, UploadError>> {
        Box::pin(async move {
            let mut expired = Vec::new();
            for id in self.inner.sessions.idle_since(before) {
                let Some(mut claim) = self.inner.sessions.claim_idle(id, before) else {
                    continue;
                };
                match self.end(&mut claim).await {
                    Ok(()) => expired.push(id),
                    // The next round tries again; the others need not wait for it.
                    Err(error) => {
                        warn!(error = %chain(&error), "cannot clear away an upload that expired");
                    }
                }
            }
            Ok(expired)
        })
    }
}

impl ObjectBlobs {
    /// Ends a session and drops what it put into the object store. After an error it is still there.
    async fn end(&self, claim: &mut Claim) -> Result<(), UploadError> {
        let bucket = &self.inner.bucket;
        claim.stop().await;
        if let Some((multipart, _)) = claim.multipart() {
            bucket.abort(&bucket.key(claim.id()), multipart).await?;
        }
        if !claim.attempts().is_empty() {
            // Nobody was told that there is such a blob. What an earlier process may have stored is left where it is:
            // this one cannot know who was told.
            bucket.delete(&bucket.key(claim.id())).await?;
        }
        for generation in claim.attempts() {
            bucket.delete(&bucket.table_key(claim.id(), *generation)).await?;
        }
        self.remove(claim).await
    }

    /// Removes a session and its files.
    async fn remove(&self, claim: &mut Claim) -> Result<(), UploadError> {
        let folder = claim.folder().to_owned();
        on_disk("remove an upload", move || Writer::remove(&folder)).await?;
        self.inner.sessions.forget(claim);
        Ok(())
    }
}
