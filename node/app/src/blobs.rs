//! Blobs as repositories show them: found, read, mounted, kept and unlinked. Pushing one is in [`crate::uploads`].
//!
//! Guarantees: a blob is visible only through a link of the repository asked for. A read changes nothing, with one
//! exception: one that finds a blob's object gone marks the blob as lost.

use std::sync::Arc;

use nora_domain::{
    BlobRecord, Digest, Format, Generation, Key, LoseObject, MountBlob, PinBlob, Placement, Record,
    Refusal, RepositoryKey, Rows, UnlinkBlob,
};
use tracing::warn;

use crate::Error;
use crate::core::{Core, record};
use crate::ports::blobs::{BlobCopy, BlobError, OpenBlob};

/// Repositories that a mount without a source looks at.
const SOURCES_MAX: usize = 100;

/// A blob that a repository shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobStat {
    /// Its name.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// The copy to read.
    pub generation: Generation,
}

/// The blobs that repositories show.
#[derive(Clone, Copy)]
pub struct LinkedBlobs<'a> {
    core: &'a Core,
}

/// Changes.
impl<'a> LinkedBlobs<'a> {
    pub(crate) fn new(core: &'a Core) -> Self {
        Self { core }
    }

    /// Makes a blob of `from` visible in `to`; false if `from` does not show it or no node serves a copy of it, and then
    /// it has to be pushed. The surface has checked that the caller may read `from`.
    pub async fn mount(
        self,
        from: RepositoryKey,
        to: RepositoryKey,
        digest: Digest,
    ) -> Result<bool, Error> {
        // A client that could mount a blob without a copy would not push it, and nobody could read it.
        if let Some(Record::Blob(blob)) = self.core.row(Key::Blob(digest)).await?
            && !self.has_serving_copy(&blob.placement).await?
        {
            return Ok(false);
        }
        let pin_millis = self.core.settings().pin_millis;
        match self.core.propose(MountBlob { from, to, digest, pin_millis }).await {
            Ok(Ok(())) => Ok(true),
            Ok(Err(Refusal::BlobUnknown(_))) => Ok(false),
            Ok(Err(refusal)) => Err(refusal.into()),
            // If the caller may not push either, the upload that comes instead says so.
            Err(Error::NotPermitted) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Keeps a blob that a client was told of and that nothing in its repository needs yet, so that the artifact it pushes
    /// next finds it. Costs a write only when the blob is kept for less than half of that time any more.
    pub async fn confirm(self, repository: &RepositoryKey, digest: Digest) -> Result<(), Error> {
        let half = self.core.now().plus_millis(self.core.settings().pin_millis / 2);
        match self.core.row(Key::Link(repository.clone(), digest)).await? {
            Some(Record::Link(link)) if link.pinned_until >= half => return Ok(()),
            Some(Record::Link(_)) => {}
            Some(other) => return Err(Error::wrong_record(&other)),
            None => return Err(Error::BlobUnknown(digest)),
        }
        // Another repository's need does not count: that one may go, and this one's push comes later.
        let edges = Rows::Edges { repository: repository.clone(), blob: digest };
        if !self.core.rows(edges, 1).await?.is_empty() {
            return Ok(());
        }
        let pin_millis = self.core.settings().pin_millis;
        self.core.change(PinBlob { repository: repository.clone(), digest, pin_millis }).await
    }

    /// Takes a blob out of a repository. Its bytes stay for the other repositories that show it.
    pub async fn unlink(self, repository: RepositoryKey, digest: Digest) -> Result<(), Error> {
        self.core.change(UnlinkBlob { repository, digest }).await?;
        self.core.settle().await;
        Ok(())
    }
}

/// Reads.
impl LinkedBlobs<'_> {
    /// What is known of a blob, if the repository shows it. A blob without a copy on a node that serves is unknown, so that
    /// clients push it again: the push brings a new copy.
    pub async fn stat(self, repository: &RepositoryKey, digest: Digest) -> Result<BlobStat, Error> {
        let mut copy = self.live_copy(repository, digest).await?;
        if !self.has_serving_copy(&copy.placement).await? {
            self.core.catch_up().await?;
            copy = self.live_copy(repository, digest).await?;
            if !self.has_serving_copy(&copy.placement).await? {
                return Err(Error::BlobUnknown(digest));
            }
        }
        Ok(BlobStat { digest, size: copy.size, generation: copy.generation })
    }

    /// The copy to read of a blob that the repository shows.
    async fn live_copy(
        self,
        repository: &RepositoryKey,
        digest: Digest,
    ) -> Result<BlobCopy, Error> {
        match self.core.immutable_row(Key::Link(repository.clone(), digest)).await? {
            Some(Record::Link(_)) => {}
            Some(other) => return Err(Error::wrong_record(&other)),
            None => return Err(self.core.absent(repository, Error::BlobUnknown(digest)).await),
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

    async fn blob_record(self, digest: Digest) -> Result<Option<BlobRecord>, Error> {
        Ok(record!(Blob, self.core.row(Key::Blob(digest)).await?))
    }

    /// Opens a blob that the repository shows.
    pub async fn open(
        self,
        repository: &RepositoryKey,
        digest: Digest,
    ) -> Result<Arc<dyn OpenBlob>, Error> {
        let copy = self.live_copy(repository, digest).await?;
        let error = match self.core.blobs().open(copy.clone()).await {
            Ok(open) => return Ok(open),
            Err(error @ (BlobError::Absent { .. } | BlobError::Unreachable { .. })) => error,
            Err(error) => return Err(error.into()),
        };
        // A digest's bytes never change, but where they are does, and this node may not know that yet.
        self.core.catch_up().await?;
        let now = self.live_copy(repository, digest).await?;
        if now.placement.is_lost() {
            return Err(lost(error));
        }
        if now != copy {
            return Ok(self.core.blobs().open(now).await?);
        }
        match (&now.placement, error) {
            (Placement::Object(_), BlobError::Absent { .. }) => self.open_object_again(now).await,
            (_, error) => Err(error.into()),
        }
    }

    /// Asks the object store a second time for an object that it did not have. If the object is still not there, the blob
    /// counts as lost from then on, so that the next push of it brings a new copy.
    ///
    /// That is safe: the object store has answered twice that exactly this key is not there, and this node has caught up
    /// with the log in between, so the key is that of the live copy. A live copy's object was durable before the log took
    /// it, and a key is never used again: what is not there now will never come. If another copy has become live
    /// meanwhile, the command names an old generation and is refused. A store that gives no answer, or any other one, is
    /// never taken for an absent object.
    async fn open_object_again(self, copy: BlobCopy) -> Result<Arc<dyn OpenBlob>, Error> {
        let (digest, generation) = (copy.digest, copy.generation);
        let error = match self.core.blobs().open(copy).await {
            Ok(open) => return Ok(open),
            Err(error @ BlobError::Absent { .. }) => error,
            Err(error) => return Err(error.into()),
        };
        // The caller that reads need not have the right to change anything.
        match self.core.by_itself().propose(LoseObject { digest, generation }).await {
            Ok(Ok(())) => {
                warn!(%digest, "the object store has lost a blob; it must be pushed again");
                Err(lost(error))
            }
            // Another copy is live by now.
            Ok(Err(_)) => {
                let what = "a blob's copy was replaced while it was opened";
                Err(Error::Unavailable { what, source: Some(Box::new(error)) })
            }
            Err(unproposed) => {
                warn!(%digest, error = %unproposed, "a lost blob could not be marked as lost");
                Err(error.into())
            }
        }
    }

    /// A URL from which whoever asked gets the blob's bytes directly, if the store gives such out.
    pub async fn redirect(
        self,
        repository: &RepositoryKey,
        digest: Digest,
    ) -> Result<Option<String>, Error> {
        let copy = self.live_copy(repository, digest).await?;
        Ok(self.core.blobs().redirect(&copy).await?)
    }

    /// A repository of the same tenant that shows a blob and that the caller may read: where a mount that names no source
    /// can take it from. It gives a caller nothing that it could not pull already. Looks at a bounded number of artifacts'
    /// repositories; a caller that is not served by those uploads.
    pub async fn find_source(
        self,
        digest: Digest,
        except: &RepositoryKey,
        may_read: impl Fn(&RepositoryKey) -> bool,
    ) -> Result<Option<RepositoryKey>, Error> {
        self.core.catch_up().await?;
        // Most blobs are no other repository's: one row says so.
        let held = Key::TenantBlob(except.tenant.clone(), digest);
        if !self.core.has_row(held).await? {
            return Ok(None);
        }
        for format in Format::ALL {
            let tenant = except.tenant.clone();
            let rows = Rows::Repositories { tenant, format, after: None };
            for (key, _) in self.core.rows(rows, SOURCES_MAX).await? {
                let Key::Repository(repository) = key else { continue };
                if repository == *except || !may_read(&repository) {
                    continue;
                }
                let link = Key::Link(repository.clone(), digest);
                if self.core.has_row(link).await? {
                    return Ok(Some(repository));
                }
            }
        }
        Ok(None)
    }

    /// Whether a physical copy is the live one, or may become it because the start that wrote it still runs: what is
    /// asked of a copy that was found before it is deleted. No copy is given up before this node has caught up.
    pub async fn is_live_copy(self, digest: Digest, generation: Generation) -> Result<bool, Error> {
        if self.shows_live_copy(digest, generation).await? {
            return Ok(true);
        }
        self.core.catch_up().await?;
        self.shows_live_copy(digest, generation).await
    }

    async fn shows_live_copy(self, digest: Digest, generation: Generation) -> Result<bool, Error> {
        // In this order: once its session is gone, no command of that start can make the copy live.
        if self.core.head().await?.sessions.contains_key(&generation.epoch) {
            return Ok(true);
        }
        let blob = self.blob_record(digest).await?;
        Ok(blob.is_some_and(|blob| blob.generation == generation))
    }

    /// Whether a copy is on a node that takes part, or in the object store.
    async fn has_serving_copy(self, placement: &Placement) -> Result<bool, Error> {
        let Placement::Nodes(holders) = placement else { return Ok(true) };
        for holder in holders {
            match self.core.row(Key::Node(*holder)).await? {
                Some(Record::Node(node)) if node.standing.serves() => return Ok(true),
                _ => {}
            }
        }
        Ok(false)
    }
}

/// The answer to a read of a blob that has no copy any more.
fn lost(error: BlobError) -> Error {
    let what = "every copy of a blob was lost; it can be read once it was pushed again";
    Error::Internal { what, source: Some(Box::new(error)) }
}
