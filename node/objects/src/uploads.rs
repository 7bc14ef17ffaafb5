//! The port `Uploads` over an object store. Must not know how bytes are laid out or sent.

use std::sync::Arc;

use nora_app::ports::blobs::BlobCopy;
use nora_app::ports::uploads::{UploadError, UploadState, Uploads};
use nora_app::ports::{BoxFuture, ByteStream};
use nora_domain::{Algorithm, Digest, Generation, RepositoryKey, Timestamp, UploadId};
use nora_uploads::{Purpose, on_disk};
use tracing::warn;

use crate::error::chain;
use crate::intake::take_in;
use crate::journal::Header;
use crate::session::WriterGuard;
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
        let part_bytes = self.inner.part_bytes;
        let purpose = Purpose { repository, algorithm, opened_at: now };
        let header = Header { purpose, part_bytes };
        Box::pin(
            self.blocking("open an upload session", move |inner| inner.sessions.open(id, header)),
        )
    }

    fn state(&self, id: UploadId) -> BoxFuture<'_, Result<UploadState, UploadError>> {
        Box::pin(async move { Ok(self.inner.sessions.get(id)?.state()) })
    }

    fn append(
        &self,
        id: UploadId,
        start: Option<u64>,
        body: ByteStream,
    ) -> BoxFuture<'_, Result<UploadState, UploadError>> {
        Box::pin(async move {
            let inner = &self.inner;
            let session = inner.sessions.get(id)?;
            let writer = session.claim()?;
            let offset = writer.offset();
            if let Some(start) = start.filter(|start| *start != offset) {
                return Err(UploadError::WrongOffset { offset, start });
            }
            if writer.is_sealed() {
                let source = "its end was begun; end it again, or start anew".into();
                return Err(UploadError::Io { step: "append to the upload", source });
            }
            take_in(Arc::clone(&inner.bucket), session, writer, body, inner.upload_bytes_max).await
        })
    }

    fn finish(
        &self,
        id: UploadId,
        digest: Digest,
        generation: Generation,
    ) -> BoxFuture<'_, Result<BlobCopy, UploadError>> {
        Box::pin(async move {
            let mut writer = self.inner.sessions.get(id)?.claim()?;
            let copy = match self.inner.store(&mut writer, digest, generation).await {
                Ok(copy) => copy,
                Err(error @ UploadError::DigestMismatch { .. }) => {
                    // The bytes are good for nothing, so nothing is lost if this does not go all the way.
                    if let Err(error) = self.end(&mut writer).await {
                        warn!(error = %chain(&error), "cannot clear away an upload with a wrong digest");
                    }
                    return Err(error);
                }
                Err(error) => return Err(error),
            };
            // The session must be gone for good before the blob is anybody's: a session that came back after a crash
            // would be cancelled some day.
            self.remove(&mut writer).await?;
            Ok(copy)
        })
    }

    fn cancel(&self, id: UploadId) -> BoxFuture<'_, Result<(), UploadError>> {
        Box::pin(async move {
            let mut writer = self.inner.sessions.get(id)?.claim()?;
            self.end(&mut writer).await
        })
    }

    fn list(&self) -> Vec<UploadState> {
        self.inner.sessions.all().iter().map(|session| session.state()).collect()
    }

    fn is_written(&self, id: UploadId) -> bool {
        self.inner.sessions.get(id).is_ok_and(|session| session.is_written())
    }

    fn expire(&self, before: Timestamp) -> BoxFuture<'_, Result<Vec<UploadId>, UploadError>> {
        Box::pin(async move {
            let mut expired = Vec::new();
            for session in self.inner.sessions.last_written_before(before) {
                // A session that is being written to is not forgotten.
                let Ok(mut writer) = session.claim() else {
                    continue;
                };
                if session.written_at() >= before {
                    continue;
                }
                match self.end(&mut writer).await {
                    Ok(()) => expired.push(session.id()),
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
    async fn end(&self, writer: &mut WriterGuard) -> Result<(), UploadError> {
        let bucket = &self.inner.bucket;
        writer.stop().await;
        if let Some((multipart, _)) = writer.multipart() {
            bucket.abort(&bucket.key(writer.id()), multipart).await?;
        }
        if !writer.attempts().is_empty() {
            // Nobody was told that there is such a blob. What an earlier process may have stored is left where it is:
            // this one cannot know who was told.
            bucket.delete(&bucket.key(writer.id())).await?;
        }
        for generation in writer.attempts() {
            bucket.delete(&bucket.table_key(writer.id(), *generation)).await?;
        }
        self.remove(writer).await
    }

    /// Removes a session and its files.
    async fn remove(&self, writer: &mut WriterGuard) -> Result<(), UploadError> {
        let folder = writer.folder().to_owned();
        on_disk("remove an upload", move || Writer::remove(&folder)).await?;
        self.inner.sessions.forget(writer);
        Ok(())
    }
}
