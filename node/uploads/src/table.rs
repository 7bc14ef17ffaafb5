//! The sessions that are open on this node.
//!
//! Guarantees: an id names one session; no more are open than may be, and a caller has no more than its share unless the
//! registry found it more.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nora_app::ports::uploads::{Admission, Purpose, UploadError, UploadState, check_place};
use nora_domain::{Timestamp, UploadId};

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
    open: Mutex<Open<W>>,
}

struct Open<W> {
    by_id: HashMap<UploadId, Arc<Session<W>>>,
    /// How many each caller has.
    by_opener: HashMap<String, usize>,
}

impl<W: Writer> Open<W> {
    fn count(&self, opener: Option<&str>) -> usize {
        opener.and_then(|opener| self.by_opener.get(opener)).copied().unwrap_or(0)
    }

    fn insert(&mut self, session: Arc<Session<W>>) {
        if let Some(opener) = session.opener() {
            *self.by_opener.entry(opener.to_owned()).or_default() += 1;
        }
        self.by_id.insert(session.id(), session);
    }

    fn remove(&mut self, id: UploadId) {
        let Some(session) = self.by_id.remove(&id) else { return };
        let Some(opener) = session.opener() else { return };
        if let Some(count) = self.by_opener.get_mut(opener) {
            *count -= 1;
            if *count == 0 {
                self.by_opener.remove(opener);
            }
        }
    }
}

impl<W: Writer> Table<W> {
    /// The sessions that were found. Of others, at most so many are opened that there are `sessions_max`.
    pub(crate) fn new(sessions_max: usize, found: impl IntoIterator<Item = Found<W>>) -> Self {
        let mut open = Open { by_id: HashMap::new(), by_opener: HashMap::new() };
        for Found { id, purpose, written_at, writer } in found {
            open.insert(Arc::new(Session::new(id, purpose, written_at, writer)));
        }
        Self { sessions_max, open: Mutex::new(open) }
    }

    fn lock(&self) -> MutexGuard<'_, Open<W>> {
        // Nothing that can panic leaves the counts and the sessions apart.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a session, claimed: nobody else can write to it before the caller has made its files.
    pub(crate) fn open(
        &self,
        id: UploadId,
        purpose: Purpose,
        admission: Admission,
        writer: W,
    ) -> Result<Claim<W>, UploadError> {
        let opened_at = purpose.opened_at;
        let session = Arc::new(Session::new(id, purpose, opened_at, writer));
        let claim = Arc::clone(&session).claim()?;
        let mut open = self.lock();
        let own = match admission {
            Admission::ByShare => open.count(session.opener()),
            Admission::AnyPlace => 0,
        };
        check_place(open.by_id.len(), own, self.sessions_max)?;
        if open.by_id.contains_key(&id) {
            let source = io::Error::from(io::ErrorKind::AlreadyExists).into();
            return Err(UploadError::Io { step: "open an upload session", source });
        }
        open.insert(session);
        Ok(claim)
    }

    fn get(&self, id: UploadId) -> Result<Arc<Session<W>>, UploadError> {
        self.lock().by_id.get(&id).cloned().ok_or(UploadError::Unknown)
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
        self.lock().by_id.contains_key(&id)
    }

    /// Whether somebody has claimed the session.
    pub(crate) fn is_written(&self, id: UploadId) -> bool {
        self.get(id).is_ok_and(|session| session.is_written())
    }

    /// All sessions.
    pub(crate) fn list(&self) -> Vec<UploadState> {
        let sessions: Vec<_> = self.lock().by_id.values().cloned().collect();
        sessions.iter().map(|session| session.state()).collect()
    }

    /// The sessions that nobody has written to since `before`.
    pub(crate) fn idle_since(&self, before: Timestamp) -> Vec<UploadId> {
        let open = self.lock();
        let idle = open.by_id.values().filter(|session| session.written_at() < before);
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
        self.lock().remove(claim.id());
    }
}
