//! The sessions that are open on this node.
//!
//! Guarantees: an id names one session; no more are open than may be.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nora_app::ports::uploads::{UploadError, UploadState};
use nora_domain::{Timestamp, UploadId};

use crate::purpose::Purpose;
use crate::session::{Claim, Session, Writer};

/// A session that an earlier run of the server left.
pub struct Found<W> {
    /// Its name.
    pub id: UploadId,
    /// What it is for.
    pub purpose: Purpose,
    /// When something was last written to it.
    pub written_at: Timestamp,
    /// Its bytes.
    pub writer: W,
}

/// The sessions that are open.
pub(crate) struct Table<W> {
    sessions_max: usize,
    by_id: Mutex<HashMap<UploadId, Arc<Session<W>>>>,
}

impl<W: Writer> Table<W> {
    /// The sessions that were found. Of others, at most so many are opened that there are `sessions_max`.
    pub(crate) fn new(sessions_max: usize, found: impl IntoIterator<Item = Found<W>>) -> Self {
        let sessions = found.into_iter().map(|Found { id, purpose, written_at, writer }| {
            (id, Arc::new(Session::new(id, purpose, written_at, writer)))
        });
        Self { sessions_max, by_id: Mutex::new(sessions.collect()) }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UploadId, Arc<Session<W>>>> {
        // Nothing that can panic leaves the map half changed: every use is one call.
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a session, claimed: nobody else can write to it before the caller has made its files.
    pub(crate) fn open(
        &self,
        id: UploadId,
        purpose: Purpose,
        writer: W,
    ) -> Result<Claim<W>, UploadError> {
        let opened_at = purpose.opened_at;
        let session = Arc::new(Session::new(id, purpose, opened_at, writer));
        let claim = Arc::clone(&session).claim()?;
        let mut by_id = self.lock();
        if by_id.len() >= self.sessions_max {
            return Err(UploadError::TooMany { sessions_max: self.sessions_max });
        }
        match by_id.entry(id) {
            Entry::Vacant(place) => {
                place.insert(session);
                Ok(claim)
            }
            Entry::Occupied(_) => {
                let source = io::Error::from(io::ErrorKind::AlreadyExists).into();
                Err(UploadError::Io { step: "open an upload session", source })
            }
        }
    }

    fn get(&self, id: UploadId) -> Result<Arc<Session<W>>, UploadError> {
        self.lock().get(&id).cloned().ok_or(UploadError::Unknown)
    }

    /// Makes the caller the session's one writer.
    pub(crate) fn claim(&self, id: UploadId) -> Result<Claim<W>, UploadError> {
        self.get(id)?.claim()
    }

    /// The session as it is.
    pub(crate) fn state(&self, id: UploadId) -> Result<UploadState, UploadError> {
        Ok(self.get(id)?.state())
    }

    /// Whether there is such a session.
    pub(crate) fn contains(&self, id: UploadId) -> bool {
        self.lock().contains_key(&id)
    }

    /// Whether somebody has claimed the session.
    pub(crate) fn is_written(&self, id: UploadId) -> bool {
        self.get(id).is_ok_and(|session| session.is_written())
    }

    /// All sessions.
    pub(crate) fn list(&self) -> Vec<UploadState> {
        let sessions: Vec<_> = self.lock().values().cloned().collect();
        sessions.iter().map(|session| session.state()).collect()
    }

    /// The sessions that nobody has written to since `before`.
    pub(crate) fn idle_since(&self, before: Timestamp) -> Vec<UploadId> {
        let by_id = self.lock();
        let idle = by_id.values().filter(|session| session.written_at() < before);
        idle.map(|session| session.id()).collect()
    }

    /// Claims a session, if nobody has written to it since `before` and nobody does now.
    pub(crate) fn claim_idle(&self, id: UploadId, before: Timestamp) -> Option<Claim<W>> {
        let claim = self.claim(id).ok()?;
        (claim.state().written_at < before).then_some(claim)
    }

    /// Ends a session: nobody finds or claims it any more.
    pub(crate) fn forget(&self, claim: &mut Claim<W>) {
        claim.end();
        self.lock().remove(&claim.id());
    }
}
