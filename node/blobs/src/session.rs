//! Upload sessions: what each is for, who writes to it, and how it outlives the process.
//!
//! Guarantees: a session has one writer at a time; its sidecar file exists from its opening until
//! its end, and a data file without a sidecar (or the other way round) is no session and is removed
//! at start.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use nora_app::ports::uploads::UploadState;
use nora_domain::{Timestamp, UploadId};
use nora_uploads::{Purpose, PurposeV1, name_of, timestamp_of};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::layout::{Layout, UploadFileName};
use crate::writer::Writer;

/// The sidecar's stored form.
#[derive(Serialize, Deserialize)]
struct SidecarV1 {
    version: u32,
    #[serde(flatten)]
    purpose: PurposeV1,
}

/// An upload session.
pub(crate) struct Session {
    id: UploadId,
    purpose: Purpose,
    // Copies of what the writer knows, for those who may not wait for it.
    offset: AtomicU64,
    written_at: AtomicU64,
    pub(crate) writer: Arc<tokio::sync::Mutex<Writer>>,
}

impl Session {
    /// A session that holds nothing yet and has no files.
    pub(crate) fn new(layout: &Layout, id: UploadId, purpose: Purpose) -> Self {
        let writer = Writer::new(layout.upload(id), purpose.algorithm, 0);
        let opened_at = purpose.opened_at;
        Self::with(id, purpose, opened_at, writer)
    }

    /// Makes the session's two files.
    fn create_files(&self, layout: &Layout) -> io::Result<()> {
        let sidecar = SidecarV1 { version: 1, purpose: self.purpose.stored() };
        File::create_new(layout.upload(self.id))?;
        std::fs::write(layout.sidecar(self.id), serde_json::to_vec(&sidecar)?)
    }

    fn with(id: UploadId, purpose: Purpose, written_at: Timestamp, writer: Writer) -> Self {
        Self {
            id,
            purpose,
            offset: AtomicU64::new(writer.offset()),
            written_at: AtomicU64::new(written_at.0),
            writer: Arc::new(tokio::sync::Mutex::new(writer)),
        }
    }

    /// Reads a session back from its files; `None` if they are not a session's.
    fn load(layout: &Layout, id: UploadId) -> io::Result<Option<Self>> {
        let path = layout.upload(id);
        let sidecar: SidecarV1 = match serde_json::from_slice(&std::fs::read(layout.sidecar(id))?) {
            Ok(sidecar) => sidecar,
            Err(_) => return Ok(None),
        };
        let (Some(purpose), 1) = (sidecar.purpose.parse(), sidecar.version) else {
            return Ok(None);
        };
        let metadata = std::fs::metadata(&path)?;
        let written_at = match metadata.len() {
            0 => purpose.opened_at,
            _ => metadata.modified().map_or(purpose.opened_at, timestamp_of),
        };
        let writer = Writer::new(path, purpose.algorithm, metadata.len());
        Ok(Some(Self::with(id, purpose, written_at, writer)))
    }

    pub(crate) fn id(&self) -> UploadId {
        self.id
    }

    pub(crate) fn offset(&self) -> u64 {
        self.offset.load(Ordering::Acquire)
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
            offset: self.offset(),
            opened_at: self.purpose.opened_at,
            written_at: self.written_at(),
        }
    }
}

/// The sessions of this node.
pub(crate) struct Sessions {
    open: Mutex<HashMap<UploadId, Arc<Session>>>,
}

impl Sessions {
    /// Reads the sessions that an earlier run of the server left, and removes leftovers that are
    /// none.
    pub(crate) fn load(layout: &Layout) -> io::Result<Self> {
        let (mut bytes, mut sidecars) = (BTreeSet::new(), BTreeSet::new());
        for entry in std::fs::read_dir(layout.uploads())? {
            match entry?.file_name().to_str().and_then(UploadFileName::parse) {
                Some(UploadFileName::Bytes(id)) => bytes.insert(id),
                Some(UploadFileName::Sidecar(id)) => sidecars.insert(id),
                None => continue,
            };
        }
        let mut open = HashMap::new();
        for id in bytes.union(&sidecars).copied() {
            let whole = bytes.contains(&id) && sidecars.contains(&id);
            match if whole { Session::load(layout, id)? } else { None } {
                Some(session) => {
                    open.insert(id, Arc::new(session));
                }
                None => {
                    warn!(id = name_of(id), "removing the rest of an upload session");
                    remove_files(layout, id)?;
                }
            }
        }
        Ok(Self { open: Mutex::new(open) })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UploadId, Arc<Session>>> {
        // A panic elsewhere cannot leave the map half changed: every use is one call.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, id: UploadId) -> Option<Arc<Session>> {
        self.lock().get(&id).cloned()
    }

    /// Adds a session and makes its files; `None` if `sessions_max` are open already.
    pub(crate) fn open(
        &self,
        layout: &Layout,
        session: Arc<Session>,
        sessions_max: usize,
    ) -> io::Result<Option<UploadState>> {
        let id = session.id();
        {
            let mut open = self.lock();
            if open.len() >= sessions_max {
                return Ok(None);
            }
            match open.entry(id) {
                Entry::Occupied(_) => return Err(io::ErrorKind::AlreadyExists.into()),
                Entry::Vacant(place) => place.insert(Arc::clone(&session)),
            };
        }
        if let Err(error) = session.create_files(layout) {
            self.lock().remove(&id);
            remove_files(layout, id)?;
            return Err(error);
        }
        Ok(Some(session.state()))
    }

    pub(crate) fn all(&self) -> Vec<Arc<Session>> {
        self.lock().values().cloned().collect()
    }

    pub(crate) fn last_written_before(&self, before: Timestamp) -> Vec<Arc<Session>> {
        self.lock().values().filter(|session| session.written_at() < before).cloned().collect()
    }

    /// Ends a session whose writer the caller holds: it is gone for everybody, and so are its
    /// files.
    pub(crate) fn end(&self, layout: &Layout, id: UploadId, writer: &mut Writer) -> io::Result<()> {
        writer.end();
        self.lock().remove(&id);
        remove_files(layout, id)
    }
}

fn remove_files(layout: &Layout, id: UploadId) -> io::Result<()> {
    for path in [layout.upload(id), layout.sidecar(id)] {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use nora_domain::{Algorithm, Format, RepositoryKey, RepositoryPath, TenantName};

    use super::*;

    #[test]
    fn the_sidecars_stored_form_is_fixed() {
        let purpose = Purpose {
            repository: RepositoryKey {
                tenant: TenantName::default_tenant(),
                format: Format::Oci,
                path: RepositoryPath::parse("a/b").unwrap(),
            },
            algorithm: Algorithm::Sha512,
            opened_at: Timestamp(77),
        };
        let stored = concat!(
            r#"{"version":1,"tenant":"default","format":"oci","path":"a/b","#,
            r#""algorithm":"sha512","opened_at":77}"#
        );
        let sidecar = SidecarV1 { version: 1, purpose: purpose.stored() };
        assert_eq!(serde_json::to_string(&sidecar).unwrap(), stored);
        let back: SidecarV1 = serde_json::from_str(stored).unwrap();
        assert_eq!((back.version, back.purpose.parse()), (1, Some(purpose)));
    }
}
