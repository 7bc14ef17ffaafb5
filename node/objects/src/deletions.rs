//! Deleting objects that requests of this node may still be reading.
//!
//! S3 does not keep an object for those who have it open, as a file system does. So a copy that is open here when it is
//! deleted is gone for new readers at once, and its object goes when the last reader closes it. What is owed is noted
//! on the disk before the deletion counts as done, and paid by the next start if this process does not live to do it.
//! Must not know ports.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nora_domain::{Epoch, Generation, UploadId};
use nora_uploads::{chain, id_of, name_of};
use tokio::runtime::Handle;
use tracing::warn;

use crate::bucket::Bucket;
use crate::error::ObjectError;

#[derive(Default)]
struct Readers {
    count: usize,
    doomed: Option<Generation>,
}

/// Who reads what, and what is to be deleted after them.
pub(crate) struct Deletions {
    folder: PathBuf,
    bucket: Arc<Bucket>,
    readers: Mutex<HashMap<UploadId, Readers>>,
}

/// A reader of an object.
pub(crate) struct Reading {
    deletions: Arc<Deletions>,
    id: UploadId,
}

impl Deletions {
    /// Takes up the deletions that an earlier process owed. Blocks; runs inside a Tokio runtime.
    pub(crate) fn load(folder: PathBuf, bucket: Arc<Bucket>) -> io::Result<Self> {
        std::fs::create_dir_all(&folder)?;
        let deletions = Self { folder, bucket, readers: Mutex::default() };
        for entry in std::fs::read_dir(&deletions.folder)? {
            if let Some((id, generation)) = entry?.file_name().to_str().and_then(copy_of) {
                deletions.pay(id, generation);
            }
        }
        Ok(deletions)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UploadId, Readers>> {
        // Nothing that can panic runs under the lock.
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a reader in; `None` if the object is as good as deleted.
    pub(crate) fn reading(self: &Arc<Self>, id: UploadId) -> Option<Reading> {
        let mut readers = self.lock();
        let entry = readers.entry(id).or_default();
        if entry.doomed.is_some() {
            return None;
        }
        entry.count += 1;
        Some(Reading { deletions: Arc::clone(self), id })
    }

    /// Deletes an object and its chunk table, now or after its readers.
    pub(crate) async fn delete(
        self: &Arc<Self>,
        id: UploadId,
        generation: Generation,
    ) -> Result<(), ObjectError> {
        if self.lock().contains_key(&id) {
            let (this, note) = (Arc::clone(self), self.folder.join(note_of(id, generation)));
            let noting = tokio::task::spawn_blocking(move || {
                File::create(note)?;
                File::open(&this.folder)?.sync_all()
            });
            let failed = |problem| ObjectError::Damaged { step: "note a deletion", problem };
            noting
                .await
                .map_err(|error| failed(error.to_string()))?
                .map_err(|error| failed(error.to_string()))?;
            let readers_left = match self.lock().get_mut(&id) {
                Some(readers) => {
                    readers.doomed = Some(generation);
                    true
                }
                None => false,
            };
            if !readers_left {
                self.pay(id, generation);
            }
            return Ok(());
        }
        remove(&self.bucket, id, generation).await
    }

    /// Deletes an object that nobody reads any more, and strikes out the note. Goes on by itself; what fails is left to
    /// the next start.
    fn pay(&self, id: UploadId, generation: Generation) {
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let (bucket, note) = (Arc::clone(&self.bucket), self.folder.join(note_of(id, generation)));
        runtime.spawn(async move {
            if let Err(error) = remove(&bucket, id, generation).await {
                warn!(error = %chain(&error), "cannot delete an object yet; the next start tries again");
                return;
            }
            let removed = tokio::task::spawn_blocking(move || std::fs::remove_file(note)).await;
            if let Ok(Err(error)) = removed {
                warn!(%error, "cannot strike out a deletion that was done");
            }
        });
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut readers = self.deletions.lock();
        let Some(entry) = readers.get_mut(&self.id) else {
            return;
        };
        entry.count -= 1;
        if entry.count > 0 {
            return;
        }
        let doomed = entry.doomed;
        readers.remove(&self.id);
        drop(readers);
        if let Some(generation) = doomed {
            self.deletions.pay(self.id, generation);
        }
    }
}

/// The object first: a table without its object can do no harm, and the other way round neither can be read.
async fn remove(bucket: &Bucket, id: UploadId, generation: Generation) -> Result<(), ObjectError> {
    bucket.delete(&bucket.key(id)).await?;
    bucket.delete(&bucket.table_key(id, generation)).await
}

/// The name of a note.
fn note_of(id: UploadId, generation: Generation) -> String {
    format!("{}-{}-{}", name_of(id), generation.epoch.0, generation.sequence)
}

/// The copy that a note means.
fn copy_of(name: &str) -> Option<(UploadId, Generation)> {
    let mut parts = name.split('-');
    let id = parts.next().and_then(id_of)?;
    let epoch = Epoch(parts.next()?.parse().ok()?);
    let sequence = parts.next()?.parse().ok()?;
    Some((id, Generation { epoch, sequence }))
}
