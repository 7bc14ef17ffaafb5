//! Mounting, confirming and unlinking blobs that are stored already.

use nora_domain::command::{Action, Outcome, Refusal};
use nora_domain::record::{Key, Record};
use nora_domain::{Digest, RepositoryKey};

use crate::{Error, Registry};

impl Registry {
    /// Makes a blob of `from` visible in `to`; false if `from` does not show it, and then it has to be pushed. The
    /// caller has checked that whoever asks may read `from`.
    pub async fn mount_blob(
        &self,
        from: RepositoryKey,
        to: RepositoryKey,
        digest: Digest,
    ) -> Result<bool, Error> {
        let action = Action::MountBlob {
            from,
            to,
            digest,
            pin: self.ids.upload_id(),
            pinned_until: self.now().plus_millis(self.settings.pin_millis),
        };
        match self.propose(action).await {
            Ok(Ok(Outcome::BlobMounted)) => Ok(true),
            Ok(Err(Refusal::BlobUnknown(_))) => Ok(false),
            // If they may not push either, the upload that comes instead says so.
            Err(Error::NotPermitted) => Ok(false),
            Ok(other) => Err(Error::impossible(other)),
            Err(error) => Err(error),
        }
    }

    /// Keeps a blob that a client was told of and that nothing references yet, so that the artifact it pushes next
    /// finds it. Costs a write only when the blob was not relied on for half of the time it is kept.
    pub async fn confirm_blob(
        &self,
        repository: &RepositoryKey,
        digest: Digest,
    ) -> Result<(), Error> {
        let now = self.now();
        match self.metadata.get(Key::Blob(digest)).await? {
            Some(Record::Blob(blob))
                if blob.references > 0
                    || blob.touched_at.plus_millis(self.settings.pin_millis / 2) > now =>
            {
                return Ok(());
            }
            Some(Record::Blob(_)) => {}
            Some(other) => return Err(Self::wrong_record(&other)),
            None => return Err(Error::BlobUnknown(digest)),
        }
        let action = Action::PinBlob {
            repository: repository.clone(),
            digest,
            pin: self.ids.upload_id(),
            pinned_until: now.plus_millis(self.settings.pin_millis),
        };
        match self.propose(action).await? {
            Ok(Outcome::BlobPinned) => Ok(()),
            Err(Refusal::BlobUnknown(digest)) => Err(Error::BlobUnknown(digest)),
            other => Err(Error::impossible(other)),
        }
    }

    /// Takes a blob out of a repository. Its bytes stay for the other repositories that show it.
    pub async fn unlink_blob(
        &self,
        repository: RepositoryKey,
        digest: Digest,
    ) -> Result<(), Error> {
        match self.propose(Action::UnlinkBlob { repository, digest }).await? {
            Ok(Outcome::BlobUnlinked) => {
                self.metadata.settle().await;
                Ok(())
            }
            Err(Refusal::BlobUnknown(digest)) => Err(Error::BlobUnknown(digest)),
            Err(Refusal::BlobReferenced { digest, by }) => {
                Err(Error::BlobReferenced { digest, by })
            }
            other => Err(Error::impossible(other)),
        }
    }
}
