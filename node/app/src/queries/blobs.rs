//! Reading blobs: visible only through a link of the repository asked for.

use std::sync::Arc;

use nora_domain::record::{BlobRecord, Generation, Key, Record};
use nora_domain::store::Rows;
use nora_domain::{Digest, RepositoryKey};

use crate::ports::blobs::{BlobCopy, BlobError, OpenBlob};
use crate::{BlobStat, Error, Registry};

/// Repositories that a mount without a source looks at.
const SOURCES_MAX: usize = 100;

impl Registry {
    /// What is known of a blob, if the repository shows it. One that every holder has lost is unknown, so that clients
    /// push it again.
    pub async fn stat_blob(
        &self,
        repository: &RepositoryKey,
        digest: Digest,
    ) -> Result<BlobStat, Error> {
        let mut copy = self.live_copy(repository, digest).await?;
        if copy.placement.is_lost() {
            self.metadata.linearize().await?;
            copy = self.live_copy(repository, digest).await?;
        }
        if copy.placement.is_lost() {
            return Err(Error::BlobUnknown(digest));
        }
        Ok(BlobStat { digest, size: copy.size, generation: copy.generation })
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
        match self.blob_record(digest).await? {
            Some(blob) => Ok(BlobCopy {
                digest,
                generation: blob.generation,
                size: blob.size,
                chunk_root: blob.chunk_root,
                placement: blob.placement,
            }),
            // The link may have gone between the two reads; were it a lasting state, the state's audit would tell.
            None => Err(Error::BlobUnknown(digest)),
        }
    }

    async fn blob_record(&self, digest: Digest) -> Result<Option<BlobRecord>, Error> {
        match self.metadata.get(Key::Blob(digest)).await? {
            Some(Record::Blob(blob)) => Ok(Some(blob)),
            Some(other) => Err(Self::wrong_record(&other)),
            None => Ok(None),
        }
    }

    /// Opens a blob that the repository shows.
    pub async fn open_blob(
        &self,
        repository: &RepositoryKey,
        digest: Digest,
    ) -> Result<Arc<dyn OpenBlob>, Error> {
        let copy = self.live_copy(repository, digest).await?;
        let error = match self.blobs.open(copy.clone()).await {
            Ok(open) => return Ok(open),
            Err(error @ (BlobError::Absent { .. } | BlobError::Unreachable { .. })) => error,
            Err(error) => return Err(error.into()),
        };
        // A digest's bytes never change, but where they are does, and this node may not know that yet.
        self.metadata.linearize().await?;
        let now = self.live_copy(repository, digest).await?;
        if now.placement.is_lost() {
            let what = "every copy of a blob was lost; it can be read once it was pushed again";
            return Err(Error::Internal { what, source: Some(Box::new(error)) });
        }
        if now == copy {
            return Err(error.into());
        }
        Ok(self.blobs.open(now).await?)
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

    /// Whether a physical copy is the live one, or may become it because the start that wrote it still runs: what is
    /// asked of a copy that was found before it is deleted. No copy is given up before this node has caught up.
    pub async fn is_live_copy(
        &self,
        digest: Digest,
        generation: Generation,
    ) -> Result<bool, Error> {
        if self.shows_live_copy(digest, generation).await? {
            return Ok(true);
        }
        self.metadata.linearize().await?;
        self.shows_live_copy(digest, generation).await
    }

    async fn shows_live_copy(&self, digest: Digest, generation: Generation) -> Result<bool, Error> {
        // In this order: once its session is gone, no command of that start can make the copy live.
        if self.metadata.get(Key::Session(generation.epoch)).await?.is_some() {
            return Ok(true);
        }
        let blob = self.blob_record(digest).await?;
        Ok(blob.is_some_and(|blob| blob.generation == generation))
    }
}
