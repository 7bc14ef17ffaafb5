//! The port `Sessions`: all that a request may do with a session but end it as a blob.
//!
//! Guarantees: what was begun here is done to its end, even if the request is dropped. A session that cannot be removed
//! stays, and can be removed later. Must not know how a session becomes a blob.

use std::future::ready;
use std::sync::Arc;

use nora_app::ports::uploads::{Admission, Purpose, Sessions, UploadError, UploadState};
use nora_app::ports::{BoxFuture, ByteStream};
use nora_domain::{Timestamp, UploadId};
use tokio::sync::Semaphore;
use tracing::warn;

use crate::intake::Intake;
use crate::place::Place;
use crate::session::{Claim, Writer};
use crate::step::{blocking, chain, step};
use crate::table::{Found, Table};

/// So many requests may read a batch ahead while another is being written.
const READ_AHEAD_REQUESTS_MAX: usize = 16;

/// What sessions may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most bytes that a session may hold.
    pub bytes_max: u64,
    /// The most sessions that may be open.
    pub sessions_max: usize,
}

/// The upload sessions of this node, whose bytes go to `P`. Cheap to clone.
pub struct OpenSessions<P: Place> {
    shared: Arc<Shared<P>>,
}

impl<P: Place> Clone for OpenSessions<P> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

pub(crate) struct Shared<P: Place> {
    pub(crate) place: P,
    pub(crate) bytes_max: u64,
    pub(crate) read_ahead: Semaphore,
    table: Table<P::Writer>,
}

impl<P: Place> Shared<P> {
    /// Opens a session and makes its files. Blocks.
    fn open(
        &self,
        id: UploadId,
        purpose: Purpose,
        admission: Admission,
    ) -> Result<UploadState, UploadError> {
        let writer = self.place.writer(id, &purpose);
        let mut claim = self.table.open(id, purpose, admission, writer)?;
        match self.place.create(&claim) {
            Ok(()) => Ok(claim.state()),
            Err(error) => {
                self.table.forget(&mut claim);
                Err(step("open an upload session")(error).into())
            }
        }
    }
}

impl<P: Place> OpenSessions<P> {
    /// The sessions that an earlier run left there, and those to come.
    pub fn new(
        place: P,
        limits: Limits,
        found: impl IntoIterator<Item = Found<P::Writer>>,
    ) -> Self {
        let shared = Shared {
            place,
            bytes_max: limits.bytes_max,
            read_ahead: Semaphore::new(READ_AHEAD_REQUESTS_MAX),
            table: Table::new(limits.sessions_max, found),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Whether there is such a session.
    pub fn contains(&self, id: UploadId) -> bool {
        self.shared.table.contains(id)
    }

    /// Makes the caller the session's one writer.
    ///
    /// # Errors
    /// If there is no such session, or somebody writes to it.
    pub fn claim(&self, id: UploadId) -> Result<Claim<P::Writer>, UploadError> {
        self.shared.table.claim(id)
    }

    /// Removes a session's bytes and ends it. After an error it is as it was.
    ///
    /// # Errors
    /// If its bytes cannot be removed.
    pub async fn remove(&self, mut claim: Claim<P::Writer>) -> Result<(), UploadError> {
        let shared = Arc::clone(&self.shared);
        let removing = tokio::spawn(async move {
            shared.place.remove(&mut claim).await?;
            shared.table.forget(&mut claim);
            Ok(())
        });
        removing.await.unwrap_or_else(|lost| {
            Err(UploadError::Io { step: "remove an upload", source: lost.into() })
        })
    }

    /// Ends a session whose bytes are gone, or are a blob's.
    pub fn forget(&self, claim: &mut Claim<P::Writer>) {
        self.shared.table.forget(claim);
    }
}

impl<P: Place> Sessions for OpenSessions<P> {
    fn open(
        &self,
        id: UploadId,
        purpose: Purpose,
        admission: Admission,
    ) -> BoxFuture<'_, Result<UploadState, UploadError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(blocking("open an upload session", move || shared.open(id, purpose, admission)))
    }

    fn state(&self, id: UploadId) -> BoxFuture<'_, Result<UploadState, UploadError>> {
        Box::pin(ready(self.shared.table.state(id)))
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
            claim.takes_more()?;
            Intake::new(Arc::clone(&self.shared), claim).run(body).await
        })
    }

    fn cancel(&self, id: UploadId) -> BoxFuture<'_, Result<(), UploadError>> {
        Box::pin(async move { self.remove(self.claim(id)?).await })
    }

    fn list(&self) -> Vec<UploadState> {
        self.shared.table.list()
    }

    fn is_written(&self, id: UploadId) -> bool {
        self.shared.table.is_written(id)
    }

    fn expire(&self, before: Timestamp) -> BoxFuture<'_, Result<Vec<UploadId>, UploadError>> {
        Box::pin(async move {
            let mut expired = Vec::new();
            for id in self.shared.table.idle_since(before) {
                let Some(claim) = self.shared.table.claim_idle(id, before) else { continue };
                match self.remove(claim).await {
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
