//! The end of an upload in steps, for a blob that other nodes must have too before it is one.
//!
//! Guarantees: until [`Finishing::keep`] the session can be taken up again, even if the node is short
//! of peers or the client goes away in between; only a disk that fails to sync ends it. Must not know
//! other nodes.
#![allow(clippy::result_large_err, reason = "the port's error carries two digests and is rare")]

use std::sync::Arc;

use nora_app::ports::uploads::UploadError;
use nora_domain::{Digest, Generation, UploadId};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tracing::warn;

use crate::session::Claim;
use crate::store::{Inner, LocalBlobs};
use crate::writer::Verified;

/// A session whose bytes are verified.
pub(crate) struct Finishing {
    inner: Arc<Inner>,
    // None once it is known what becomes of the session.
    claim: Option<Claim>,
    verified: Arc<Verified>,
    durable: bool,
}

impl LocalBlobs {
    /// Compares a session's bytes with the digest that its client told.
    pub(crate) async fn verify(
        &self,
        id: UploadId,
        digest: Digest,
        generation: Generation,
    ) -> Result<Finishing, UploadError> {
        let mut claim = self.inner.sessions.claim(id)?;
        let inner = Arc::clone(&self.inner);
        self.blocking("verify an upload", move |_| {
            match claim.verify(digest, generation, inner.node) {
                Ok(verified) => {
                    let (claim, verified) = (Some(claim), Arc::new(verified));
                    Ok(Finishing { inner, claim, verified, durable: false })
                }
                Err(error) => Err(inner.not_finished(&mut claim, digest, error)),
            }
        })
        .await
    }
}

impl Finishing {
    /// What the session's bytes are.
    pub(crate) fn verified(&self) -> Arc<Verified> {
        Arc::clone(&self.verified)
    }

    /// Makes the bytes durable under their final name.
    pub(crate) async fn persist(mut self) -> Result<Self, UploadError> {
        let persisted = spawn_blocking(move || {
            let Some(claim) = &mut self.claim else { return Err(UploadError::Unknown) };
            match claim.persist(&self.inner.layout, &self.verified) {
                Ok(()) => {
                    self.durable = true;
                    Ok(self)
                }
                // What is left of the session is not durable: dropping this lets it rest.
                Err(error) => {
                    let digest = self.verified.copy.digest;
                    Err(self.inner.not_finished(claim, digest, error))
                }
            }
        });
        persisted.await.unwrap_or_else(|panicked| {
            Err(UploadError::Io { step: "finish an upload", source: panicked.into() })
        })
    }

    /// Ends the session: its bytes are a blob.
    pub(crate) async fn keep(mut self) {
        if let Some(mut claim) = self.claim.take() {
            let inner = Arc::clone(&self.inner);
            // Should the thread be lost, the next start removes the session's files.
            let _ = spawn_blocking(move || inner.end(&mut claim)).await;
        }
    }
}

impl Drop for Finishing {
    fn drop(&mut self) {
        let Some(mut claim) = self.claim.take() else { return };
        let (inner, verified) = (Arc::clone(&self.inner), Arc::clone(&self.verified));
        let durable = self.durable;
        let mut take_back = move || {
            if !durable {
                claim.rest();
            } else if let Err(error) = claim.take_back(&inner.layout, &verified.copy) {
                warn!(%error, "cannot take up an upload again; its client must start anew");
                inner.end(&mut claim);
            }
        };
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(take_back)),
            Err(_) => take_back(),
        }
    }
}
