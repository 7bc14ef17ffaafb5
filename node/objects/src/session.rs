//! Upload sessions: what each is for, who writes to it, and how it outlives the process.
//!
//! Guarantees: a session has one writer at a time; its folder exists from its opening until its end. Must not know S3.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use nora_app::ports::uploads::{UploadError, UploadState};
use nora_domain::{Timestamp, UploadId};
use nora_uploads::{Purpose, id_of, name_of, timestamp_of};
use tokio::sync::OwnedMutexGuard;
use tracing::warn;

use crate::journal::Header;
use crate::writer::Writer;

pub(crate) type WriterGuard = OwnedMutexGuard<Writer>;

/// An upload session.
pub(crate) struct Session {
    id: UploadId,
    purpose: Purpose,
    // Copies of what the writer knows, for those who may not wait for it.
    offset: AtomicU64,
    written_at: AtomicU64,
    writer: Arc<tokio::sync::Mutex<Writer>>,
}

impl Session {
    fn new(writer: Writer, written_at: Timestamp) -> Self {
        Self {
            id: writer.id(),
            purpose: writer.header().purpose.clone(),
            offset: AtomicU64::new(writer.offset()),
            written_at: AtomicU64::new(written_at.0),
            writer: Arc::new(tokio::sync::Mutex::new(writer)),
        }
    }

    pub(crate) fn id(&self) -> UploadId {
        self.id
    }

    pub(crate) fn written_at(&self) -> Timestamp {
        Timestamp(self.written_at.load(Ordering::Acquire))
    }

    /// Tells those who look from outside how far the writer is.
    pub(crate) fn record_progress(&self, writer: &Writer) {
        self.offset.store(writer.offset(), Ordering::Release);
        self.written_at.store(timestamp_of(SystemTime::now()).0, Ordering::Release);
    }

    /// Whether somebody has claimed it. Does not claim it itself, which another's claim would find.
    pub(crate) fn is_written(&self) -> bool {
        Arc::strong_count(&self.writer) > 1
    }

    pub(crate) fn state(&self) -> UploadState {
        UploadState {
            id: self.id,
            repository: self.purpose.repository.clone(),
            offset: self.offset.load(Ordering::Acquire),
            opened_at: self.purpose.opened_at,
            written_at: self.written_at(),
        }
    }

    /// Makes the caller the session's one writer.
    pub(crate) fn claim(&self) -> Result<WriterGuard, UploadError> {
        let writer = Arc::clone(&self.writer).try_lock_owned().map_err(|_| UploadError::Busy)?;
        if writer.ended { Err(UploadError::Unknown) } else { Ok(writer) }
    }
}

/// The sessions of this node.
pub(crate) struct Sessions {
    folder: PathBuf,
    sessions_max: usize,
    by_id: Mutex<HashMap<UploadId, Arc<Session>>>,
}

impl Sessions {
    /// Reads back the sessions that a folder holds, and removes what is left of those that are not whole. Blocks.
    pub(crate) fn load(folder: PathBuf, sessions_max: usize) -> io::Result<Self> {
        std::fs::create_dir_all(&folder)?;
        let mut by_id = HashMap::new();
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(id) = name.to_str().and_then(id_of) else {
                continue;
            };
            let path = entry.path();
            let written_at = written_at(&path)?;
            match Writer::load(path.clone(), id) {
                Ok(Some(writer)) => {
                    by_id.insert(id, Arc::new(Session::new(writer, written_at)));
                }
                Ok(None) => Writer::remove(&path)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => Writer::remove(&path)?,
                Err(error) => return Err(error),
            }
        }
        Ok(Self { folder, sessions_max, by_id: Mutex::new(by_id) })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UploadId, Arc<Session>>> {
        // Nothing that can panic runs under the lock.
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a session. Blocks.
    pub(crate) fn open(&self, id: UploadId, header: Header) -> Result<UploadState, UploadError> {
        let mut sessions = self.lock();
        if sessions.len() >= self.sessions_max {
            return Err(UploadError::TooMany { sessions_max: self.sessions_max });
        }
        let Entry::Vacant(place) = sessions.entry(id) else {
            let source = io::Error::from(io::ErrorKind::AlreadyExists).into();
            return Err(UploadError::Io { step: "open an upload session", source });
        };
        let opened_at = header.purpose.opened_at;
        let writer =
            Writer::create(self.folder.join(name_of(id)), id, header).map_err(|error| {
                UploadError::Io { step: "open an upload session", source: error.into() }
            })?;
        Ok(place.insert(Arc::new(Session::new(writer, opened_at))).state())
    }

    pub(crate) fn get(&self, id: UploadId) -> Result<Arc<Session>, UploadError> {
        self.lock().get(&id).cloned().ok_or(UploadError::Unknown)
    }

    pub(crate) fn contains(&self, id: UploadId) -> bool {
        self.lock().contains_key(&id)
    }

    /// Forgets a session whose files are gone.
    pub(crate) fn forget(&self, writer: &mut Writer) {
        writer.ended = true;
        self.lock().remove(&writer.id());
    }

    pub(crate) fn all(&self) -> Vec<Arc<Session>> {
        self.lock().values().cloned().collect()
    }

    pub(crate) fn last_written_before(&self, before: Timestamp) -> Vec<Arc<Session>> {
        self.lock().values().filter(|session| session.written_at() < before).cloned().collect()
    }
}

/// When the newest file of a session was written to.
fn written_at(folder: &Path) -> io::Result<Timestamp> {
    let mut newest = Timestamp(0);
    for entry in std::fs::read_dir(folder)? {
        match entry?.metadata().and_then(|metadata| metadata.modified()) {
            Ok(modified) => newest = newest.max(timestamp_of(modified)),
            Err(error) => warn!(%error, "cannot tell when an upload session was written to"),
        }
    }
    Ok(newest)
}
