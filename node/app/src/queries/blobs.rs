//! Reading blobs: visible only through a link of the repository asked for.

use std::sync::Arc;

use nora_domain::record::{Generation, Key, Record};
use nora_domain::store::Rows;
use nora_domain::{Digest, RepositoryKey};

use crate::ports::blobs::{BlobCopy, OpenBlob};
use crate::{BlobStat, Error, Registry};

/// Repositories that a mount without a source looks at.
const SOURCES_MAX: usize = 100;

impl Registry {
    /// What is known of a blob, if the repository shows it.
    pub async fn stat_blob(
        &self,
        repository: &RepositoryKey,
        digest: Digest,
    ) -> Result<BlobStat, Error> {
        let BlobCopy { size, generation, .. } = self.live_copy(repository, digest).await?;
        Ok(BlobStat { digest, size, generation })
    }

    /// The copy to read of a blob that the repository shows.
    async fn live_copy(
        &self,
        repository: &RepositoryKey,
        digest: Digest,
    ) -> Result<BlobCopy, Error> {
        match self.get_immutable(Key::Link(digest, repository.clone())).await? {
            Some(Record::Link(_)) => {}
            Some(other) => return Err(Self::wrong_record(&other)),
            None => return Err(self.absent(repository, Error::BlobUnknown(digest)).await),
        }
        match self.metadata.get(Key::Blob(digest)).await? {
            Some(Record::Blob(blob)) => Ok(BlobCopy {
                digest,
                generation: blob.generation,
                size: blob.size,
                chunk_root: blob.chunk_root,
                placement: blob.placement,
            }),
            Some(other) => Err(Self::wrong_record(&other)),
            // The link may have gone between the two reads; were it a lasting state, the state's audit would tell.
            None => Err(Error::BlobUnknown(digest)),
        }
    }

    /// Opens a blob that the repository shows.
    pub async fn open_blob(
        &self,
        repository: &RepositoryKey,
        digest: Digest,
    ) -> Result<Arc<dyn OpenBlob>, Error> {
        let copy = self.live_copy(repository, digest).await?;
        Ok(self.blobs.open(copy).await?)
    }

    /// A URL from which whoever asked gets the blob's bytes directly, if the store gives such out.
    pub async fn blob_redirect(
        &self,
        repository: &RepositoryKey,
        digest: Digest,
    ) -> Result<Option<String>, Error> {
        let copy = self.live_copy(repository, digest).await?;
        Ok(self.blobs.redirect(&copy).await?)
    }

    /// A repository that shows a blob and that the caller may read, other than `except`: where a mount that names no
    /// source can take it from. It gives a caller nothing that it could not pull already. Looks at a bounded number of
    /// repositories; whoever is not served by those uploads.
    pub async fn find_blob(
        &self,
        digest: Digest,
        except: &RepositoryKey,
        may_read: impl Fn(&RepositoryKey) -> bool,
    ) -> Result<Option<RepositoryKey>, Error> {
        self.metadata.linearize().await?;
        let rows = Rows::Links { blob: digest, after: None };
        let rows = self.metadata.scan(rows, SOURCES_MAX).await?;
        Ok(rows.into_iter().find_map(|(key, _)| match key {
            Key::Link(_, repository) if repository != *except && may_read(&repository) => {
                Some(repository)
            }
            _ => None,
        }))
    }

    /// Whether the metadata calls this physical copy the live one: what a start asks of every copy it finds.
    pub async fn is_live_copy(
        &self,
        digest: Digest,
        generation: Generation,
    ) -> Result<bool, Error> {
        match self.metadata.get(Key::Blob(digest)).await? {
            Some(Record::Blob(blob)) => Ok(blob.generation == generation),
            Some(other) => Err(Self::wrong_record(&other)),
            None => Ok(false),
        }
    }
}
