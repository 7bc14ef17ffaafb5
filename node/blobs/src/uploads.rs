//! The port `Finish` on this node alone. Must not know how bytes are hashed or laid out.
#![allow(clippy::result_large_err, reason = "the port's error carries two digests and is rare")]

use std::sync::Arc;

use nora_app::ports::BoxFuture;
use nora_app::ports::blobs::BlobCopy;
use nora_app::ports::uploads::{Finish, Sessions, UploadError};
use nora_domain::{Digest, Generation, UploadId};
use nora_uploads::StepError;
use tracing::warn;

use crate::session::{Claim, remove_files};
use crate::store::{Inner, LocalBlobs};
use crate::writer::FinishError;

impl Finish for LocalBlobs {
    fn finish(
        &self,
        id: UploadId,
        digest: Digest,
        generation: Generation,
    ) -> BoxFuture<'_, Result<BlobCopy, UploadError>> {
        Box::pin(async move {
            let mut claim = self.inner.sessions.claim(id)?;
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
}

impl LocalBlobs {
    /// The upload sessions of this node.
    pub fn sessions(&self) -> &(impl Sessions + Clone + 'static) {
        &self.inner.sessions
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
