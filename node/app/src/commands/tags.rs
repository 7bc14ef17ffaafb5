//! Moving a tag without pushing anything.

use nora_domain::command::{Action, Outcome, Refusal};
use nora_domain::record::{ArtifactRecord, Key, Record};
use nora_domain::{Digest, Reference, RepositoryKey, TagName};

use crate::{Error, Registry};

impl Registry {
    /// Lets a tag name what a reference of the same repository names now; returns that artifact.
    ///
    /// It is the push of an artifact that is there: whoever deletes it in between has it back, as with any push.
    pub async fn set_tag(
        &self,
        repository: RepositoryKey,
        tag: TagName,
        to: Reference,
    ) -> Result<Digest, Error> {
        self.metadata.linearize().await?;
        let digest = match to {
            Reference::Digest(digest) => digest,
            Reference::Tag(named) => {
                match self.metadata.get(Key::Tag(repository.clone(), named.clone())).await? {
                    Some(Record::Tag(record)) => record.digest,
                    Some(other) => return Err(Self::wrong_record(&other)),
                    None => return Err(Error::TagUnknown(named)),
                }
            }
        };
        let record = match self.metadata.get(Key::Artifact(repository.clone(), digest)).await? {
            Some(Record::Artifact(record)) => record,
            Some(other) => return Err(Self::wrong_record(&other)),
            None => return Err(Error::ArtifactUnknown(digest)),
        };
        let ArtifactRecord { media_type, size, body, subject, artifact_type, .. } = record;
        let action = Action::PutArtifact {
            repository,
            digest,
            media_type,
            size,
            body,
            subject,
            artifact_type,
            blobs: record.blobs,
            children: record.children,
            tags: vec![tag],
        };
        match self.propose(action).await? {
            Ok(Outcome::ArtifactStored { .. }) => Ok(digest),
            Err(Refusal::ReferencesMissing { blobs, children }) => {
                Err(Error::ReferencesMissing { blobs, children })
            }
            other => Err(Error::impossible(other)),
        }
    }
}
