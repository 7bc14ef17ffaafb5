//! The port `Uploads`: takes bodies in, a batch at a time, and hands the batches to blocking
//! threads.
//!
//! Guarantees: while one batch is hashed and written the next one is read, but not a third; what
//! all requests together read ahead is bounded. A request that is dropped leaves the session as a
//! request that ended: what it had read is written, and the session is free again. Must not know
//! how bytes are hashed or laid out.
#![allow(clippy::result_large_err, reason = "the port's error carries two digests and is rare")]

use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use nora_app::ports::blobs::BlobCopy;
use nora_app::ports::uploads::{UploadError, UploadState, Uploads};
use nora_app::ports::{BoxError, BoxFuture, ByteStream};
use nora_domain::{Algorithm, Digest, Generation, RepositoryKey, Timestamp, UploadId};
use nora_uploads::{Purpose, StepError, Writer as _, step};
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, spawn_blocking};
use tracing::warn;

use crate::session::{create_files, remove_files};
use crate::store::{Inner, LocalBlobs};
use crate::writer::{FinishError, Writer};

/// A batch goes to the disk when it has so many bytes, or so many frames.
const BATCH_BYTES: usize = 256 << 10;
const BATCH_FRAMES_MAX: usize = 256;

/// The right to write to a session.
pub(crate) type Claim = nora_uploads::Claim<Writer>;

impl Uploads for LocalBlobs {
    fn open(
        &self,
        id: UploadId,
        repository: RepositoryKey,
        algorithm: Algorithm,
        now: Timestamp,
    ) -> BoxFuture<'_, Result<UploadState, UploadError>> {
        let purpose = Purpose { repository, algorithm, opened_at: now };
        Box::pin(self.blocking("open an upload session", move |inner| {
            let Inner { layout, sessions, .. } = inner;
            let writer = Writer::new(layout.upload(id), purpose.algorithm, 0);
            let mut claim = sessions.open(id, purpose, writer)?;
            match create_files(layout, id, claim.purpose()) {
                Ok(()) => Ok(claim.state()),
                Err(error) => {
                    sessions.forget(&mut claim);
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
            let claim = self.claim(id)?;
            claim.starts_at(start)?;
            let end = claim.offset();
            let intake = Intake {
                inner: Arc::clone(&self.inner),
                writer: Place::Here(claim),
                batch: Batch::default(),
                end,
            };
            intake.run(body).await
        })
    }

    fn finish(
        &self,
        id: UploadId,
        digest: Digest,
        generation: Generation,
    ) -> BoxFuture<'_, Result<BlobCopy, UploadError>> {
        Box::pin(async move {
            let mut claim = self.claim(id)?;
            self.blocking("finish an upload", move |inner| {
                match claim.finish(&inner.layout, digest, generation, inner.node) {
                    Ok(copy) => {
                        inner.end(&mut claim);
                        Ok(copy)
                    }
                    Err(error) => Err(inner.not_finished(&mut claim, digest, error)),
                }
            })
            .await
        })
    }

    fn cancel(&self, id: UploadId) -> BoxFuture<'_, Result<(), UploadError>> {
        Box::pin(async move {
            let mut claim = self.claim(id)?;
            self.blocking("cancel an upload", move |inner| inner.remove(&mut claim)).await
        })
    }

    fn list(&self) -> Vec<UploadState> {
        self.inner.sessions.list()
    }

    fn is_written(&self, id: UploadId) -> bool {
        self.inner.sessions.is_written(id)
    }

    fn expire(&self, before: Timestamp) -> BoxFuture<'_, Result<Vec<UploadId>, UploadError>> {
        Box::pin(self.blocking("expire uploads", move |inner| {
            let mut expired = Vec::new();
            for id in inner.sessions.idle_since(before) {
                if let Some(mut claim) = inner.sessions.claim_idle(id, before) {
                    inner.remove(&mut claim)?;
                    expired.push(id);
                }
            }
            Ok(expired)
        }))
    }
}

impl LocalBlobs {
    /// Makes the caller the session's one writer.
    pub(crate) fn claim(&self, id: UploadId) -> Result<Claim, UploadError> {
        self.inner.sessions.claim(id)
    }

    /// Runs work on a blocking thread. It runs to its end even if nobody waits for it any more.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        step: &'static str,
        work: impl FnOnce(&Inner) -> Result<T, UploadError> + Send + 'static,
    ) -> Result<T, UploadError> {
        let inner = Arc::clone(&self.inner);
        nora_uploads::blocking(step, move || work(&inner)).await
    }
}

impl Inner {
    /// Ends a session and removes its files.
    fn remove(&self, claim: &mut Claim) -> Result<(), UploadError> {
        self.sessions.forget(claim);
        Ok(remove_files(&self.layout, claim.id()).map_err(step("remove an upload"))?)
    }

    /// Ends a session that has nothing left to lose: should its files resist, the next start
    /// removes them.
    pub(crate) fn end(&self, claim: &mut Claim) {
        self.sessions.forget(claim);
        if let Err(error) = remove_files(&self.layout, claim.id()) {
            warn!(%error, "cannot remove the files of an ended upload session");
        }
    }

    /// Leaves a session that did not become a blob as the error says: to go on, or over.
    pub(crate) fn not_finished(
        &self,
        claim: &mut Claim,
        expected: Digest,
        error: FinishError,
    ) -> UploadError {
        let error = match error {
            FinishError::Step(error) => {
                claim.rest();
                return error.into();
            }
            FinishError::Mismatch { computed } => {
                UploadError::DigestMismatch { expected, computed }
            }
            FinishError::Sync(source) => StepError { step: "sync the upload", source }.into(),
        };
        self.end(claim);
        error
    }
}

/// Frames on their way to the disk.
#[derive(Default)]
struct Batch {
    frames: Vec<Bytes>,
    bytes: usize,
}

impl Batch {
    fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.frames.push(frame);
    }

    fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES || self.frames.len() >= BATCH_FRAMES_MAX
    }
}

/// Where the session's writer is.
enum Place {
    Here(Claim),
    /// On a blocking thread, writing a batch.
    Away(JoinHandle<Written>),
    /// Given back: the request is over.
    GivenBack,
}

type Written = (Claim, Result<(), StepError>);

/// Why no more frames come.
type End = Result<(), UploadError>;

/// One request's body on its way in.
struct Intake {
    inner: Arc<Inner>,
    writer: Place,
    batch: Batch,
    // Where the session would end if all that was read were written.
    end: u64,
}

impl Intake {
    async fn run(mut self, mut body: ByteStream) -> Result<UploadState, UploadError> {
        let inner = Arc::clone(&self.inner);
        loop {
            // Reading on while a batch is written costs memory, so not every request may at once.
            let read_ahead = inner.read_ahead.try_acquire();
            if read_ahead.is_err() {
                self.writer_back().await?;
            }
            let end = self.fill(&mut body).await;
            self.writer_back().await?;
            drop(read_ahead);
            self.send_off(end.is_some());
            if let Some(end) = end {
                self.writer_back().await?;
                let written = mem::replace(&mut self.writer, Place::GivenBack);
                end?;
                return match written {
                    Place::Here(claim) => Ok(claim.state()),
                    Place::Away(_) | Place::GivenBack => Err(UploadError::Unknown),
                };
            }
        }
    }

    /// Reads frames until the batch is full (`None`) or the body ends.
    async fn fill(&mut self, body: &mut ByteStream) -> Option<End> {
        let bytes_max = self.inner.upload_bytes_max;
        while !self.batch.is_full() {
            match body.next().await {
                None => return Some(Ok(())),
                Some(Err(source)) => return Some(Err(UploadError::BodyBroken(source))),
                Some(Ok(frame)) if frame.is_empty() => {}
                Some(Ok(frame)) => {
                    let end = self.end.saturating_add(frame.len() as u64);
                    if end > bytes_max {
                        return Some(Err(UploadError::TooLarge { bytes_max }));
                    }
                    self.end = end;
                    self.batch.push(frame);
                }
            }
        }
        None
    }

    /// Waits for the batch that is being written, if one is.
    async fn writer_back(&mut self) -> Result<(), UploadError> {
        let Place::Away(writing) = &mut self.writer else {
            return Ok(());
        };
        let written = writing.await;
        self.writer = Place::GivenBack;
        match written {
            Ok((writer, Ok(()))) => {
                self.writer = Place::Here(writer);
                Ok(())
            }
            Ok((_, Err(error))) => Err(error.into()),
            Err(panicked) => {
                let source: BoxError = panicked.into();
                Err(UploadError::Io { step: "write the upload", source })
            }
        }
    }

    fn send_off(&mut self, last: bool) {
        if let Place::Here(writer) = mem::replace(&mut self.writer, Place::GivenBack) {
            let batch = mem::take(&mut self.batch);
            self.writer = Place::Away(spawn_blocking(move || write(writer, &batch, last)));
        }
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        let writer = mem::replace(&mut self.writer, Place::GivenBack);
        // Only a future that was dropped before its end still has the writer. Outside a runtime
        // nothing can be written any more, and dropping the writer frees the session.
        let (Place::Here(_) | Place::Away(_), Ok(runtime)) = (&writer, Handle::try_current())
        else {
            return;
        };
        let batch = mem::take(&mut self.batch);
        runtime.spawn(async move {
            let writer = match writer {
                Place::Here(writer) => writer,
                Place::Away(writing) => match writing.await {
                    Ok((writer, Ok(()))) => writer,
                    _ => return,
                },
                Place::GivenBack => return,
            };
            spawn_blocking(move || write(writer, &batch, true));
        });
    }
}

/// Writes a batch on this thread. The `last` one of a request, or one that failed, leaves the file
/// at rest.
fn write(mut writer: Claim, batch: &Batch, last: bool) -> Written {
    let result = if batch.frames.is_empty() { Ok(()) } else { writer.append(&batch.frames) };
    if last || result.is_err() {
        writer.rest();
    }
    writer.record_progress();
    (writer, result)
}
