//! Mounting, confirming and unlinking blobs that are stored already.

use nora_domain::{Digest, Key, MountBlob, PinBlob, Record, Refusal, RepositoryKey, UnlinkBlob};

use crate::{Error, Registry};

impl Registry {
    /// Makes a blob of `from` visible in `to`; false if `from` does not show it or no node serves a copy of it, and then
    /// it has to be pushed. The surface has checked that the caller may read `from`.
    pub async fn mount_blob(
        &self,
        from: RepositoryKey,
        to: RepositoryKey,
        digest: Digest,
    ) -> Result<bool, Error> {
        // A client that could mount a blob without a copy would not push it, and nobody could read it.
        if let Some(Record::Blob(blob)) = self.core.row(Key::Blob(digest)).await?
            && !self.core.has_serving_copy(&blob.placement).await?
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
    pub async fn confirm_blob(
        &self,
        repository: &RepositoryKey,
        digest: Digest,
    ) -> Result<(), Error> {
        let half = self.core.now().plus_millis(self.core.settings().pin_millis / 2);
        match self.core.row(Key::Link(repository.clone(), digest)).await? {
            Some(Record::Link(link)) if link.pinned_until >= half => return Ok(()),
            Some(Record::Link(_)) => {}
            Some(other) => return Err(Error::wrong_record(&other)),
            None => return Err(Error::BlobUnknown(digest)),
        }
        // Another repository's need does not count: that one may go, and this one's push comes later.
        let edges = nora_domain::Rows::Edges { repository: repository.clone(), blob: digest };
        if !self.core.rows(edges, 1).await?.is_empty() {
            return Ok(());
        }
        let pin_millis = self.core.settings().pin_millis;
        self.core.change(PinBlob { repository: repository.clone(), digest, pin_millis }).await
    }

    /// Takes a blob out of a repository. Its bytes stay for the other repositories that show it.
    pub async fn unlink_blob(
        &self,
        repository: RepositoryKey,
        digest: Digest,
    ) -> Result<(), Error> {
        self.core.change(UnlinkBlob { repository, digest }).await?;
        self.core.settle().await;
        Ok(())
    }
}
