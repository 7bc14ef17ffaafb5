//! Use cases that read. None calls a command, and none changes what callers see, with one exception: a read that finds a
//! blob's object gone marks the blob as lost.
//!
//! A tag is read after the metadata is known to be up to date. What a digest names cannot change, so a row found by
//! digest is served as it is; only a miss is asked again after catching up, so that a client reads its own writes
//! whichever node it asks.

mod artifacts;
mod blobs;
mod identity;
mod journal;
mod lists;
mod usage;

pub use artifacts::{Artifact, ArtifactBody};
pub use journal::JournalCheck;
pub(crate) use journal::ReadSegment;
pub use lists::{Page, Referrer, Shown};
pub use usage::TenantUsage;

use nora_domain::{Key, Record, RepositoryKey};

use crate::{Error, Registry};

impl Registry {
    /// A row whose content its key fixes: a miss is asked again once this node has caught up.
    async fn get_immutable(&self, key: Key) -> Result<Option<Record>, Error> {
        if let Some(record) = self.metadata.get(key.clone()).await? {
            return Ok(Some(record));
        }
        self.metadata.linearize().await?;
        Ok(self.metadata.get(key).await?)
    }

    /// `absent`, or that the repository itself is not known.
    async fn absent(&self, repository: &RepositoryKey, absent: Error) -> Error {
        match self.metadata.get(Key::Repository(repository.clone())).await {
            Ok(Some(_)) => absent,
            Ok(None) => Error::RepositoryUnknown,
            Err(error) => error.into(),
        }
    }
}
