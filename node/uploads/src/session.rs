//! A session, and the one request that may write to it.
//!
//! Guarantees: a session has one writer at a time, and none once it has ended. Whoever looks from outside waits for no
//! writer.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use nora_app::ports::uploads::{Purpose, UploadError, UploadState};
use nora_domain::{Timestamp, UploadId};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::step::timestamp_of;

/// The bytes of one session, as a storage keeps them.
pub trait Writer: Send + 'static {
    /// Bytes that it holds.
    fn offset(&self) -> u64;

    /// Whether bytes may follow.
    ///
    /// # Errors
    /// Why they may not.
    fn takes_more(&self) -> Result<(), UploadError> {
        Ok(())
    }
}

struct Slot<W> {
    writer: W,
    ended: bool,
}

/// An upload session.
pub(crate) struct Session<W> {
    id: UploadId,
    purpose: Purpose,
    // Copies of what the writer knows, for those who may not wait for it.
    offset: AtomicU64,
    written_at: AtomicU64,
    slot: Arc<Mutex<Slot<W>>>,
}

impl<W: Writer> Session<W> {
    pub(crate) fn new(id: UploadId, purpose: Purpose, written_at: Timestamp, writer: W) -> Self {
        Self {
            id,
            purpose,
            offset: AtomicU64::new(writer.offset()),
            written_at: AtomicU64::new(written_at.0),
            slot: Arc::new(Mutex::new(Slot { writer, ended: false })),
        }
    }

    pub(crate) fn id(&self) -> UploadId {
        self.id
    }

    /// Who opened it.
    pub(crate) fn opener(&self) -> Option<&str> {
        self.purpose.opener.as_deref()
    }

    pub(crate) fn written_at(&self) -> Timestamp {
        Timestamp(self.written_at.load(Ordering::Acquire))
    }

    pub(crate) fn state(&self) -> UploadState {
        UploadState {
            id: self.id,
            repository: self.purpose.repository.clone(),
            opener: self.purpose.opener.clone(),
            offset: self.offset.load(Ordering::Acquire),
            opened_at: self.purpose.opened_at,
            written_at: self.written_at(),
        }
    }

    /// Whether somebody has claimed it. Does not claim it itself, which another's claim would find.
    pub(crate) fn is_written(&self) -> bool {
        Arc::strong_count(&self.slot) > 1
    }

    /// Makes the caller the session's one writer.
    pub(crate) fn claim(self: Arc<Self>) -> Result<Claim<W>, UploadError> {
        let slot = Arc::clone(&self.slot).try_lock_owned().map_err(|_| UploadError::Busy)?;
        if slot.ended { Err(UploadError::Unknown) } else { Ok(Claim { session: self, slot }) }
    }
}

/// The right to write to a session: its writer, until this is dropped.
pub struct Claim<W> {
    session: Arc<Session<W>>,
    slot: OwnedMutexGuard<Slot<W>>,
}

impl<W: Writer> Claim<W> {
    /// The session's name.
    pub fn id(&self) -> UploadId {
        self.session.id
    }

    /// What the session is for.
    pub fn purpose(&self) -> &Purpose {
        &self.session.purpose
    }

    /// The session as it is.
    pub fn state(&self) -> UploadState {
        self.session.state()
    }

    /// Tells those who look from outside how far the writer is.
    pub fn record_progress(&self) {
        self.session.offset.store(self.slot.writer.offset(), Ordering::Release);
        self.session.written_at.store(timestamp_of(SystemTime::now()).0, Ordering::Release);
    }

    /// Refuses bytes that do not start where the session ends.
    ///
    /// # Errors
    /// [`UploadError::WrongOffset`].
    pub fn starts_at(&self, start: Option<u64>) -> Result<(), UploadError> {
        let offset = self.slot.writer.offset();
        match start.filter(|start| *start != offset) {
            Some(start) => Err(UploadError::WrongOffset { offset, start }),
            None => Ok(()),
        }
    }

    /// Lets nobody claim the session again.
    pub(crate) fn end(&mut self) {
        self.slot.ended = true;
    }
}

impl<W> Deref for Claim<W> {
    type Target = W;

    fn deref(&self) -> &W {
        &self.slot.writer
    }
}

impl<W> DerefMut for Claim<W> {
    fn deref_mut(&mut self) -> &mut W {
        &mut self.slot.writer
    }
}
