//! Moving a tag without pushing anything.

use nora_domain::{Digest, Key, Record, Reference, RepositoryKey, SetTag, TagName, Target};

use crate::{Error, Registry};

/// How often a tag is resolved anew because its artifact went in between.
const RESOLVED_MAX: usize = 16;

impl Registry {
    /// Lets a tag name what a reference of the same repository names now; returns that artifact.
    pub async fn set_tag(
        &self,
        repository: RepositoryKey,
        tag: TagName,
        to: Reference,
    ) -> Result<Digest, Error> {
        let named = match to {
            Reference::Digest(digest) => {
                self.core
                    .change(SetTag { repository, tag, target: Target::Artifact(digest) })
                    .await?;
                return Ok(digest);
            }
            Reference::Tag(named) => named,
        };
        for _ in 0..RESOLVED_MAX {
            self.core.catch_up().await?;
            let row = self.core.row(Key::Tag(repository.clone(), named.clone())).await?;
            let digest = match row {
                Some(Record::Tag(record)) => record.target.artifact(),
                Some(other) => return Err(Error::wrong_record(&other)),
                None => None,
            };
            let Some(digest) = digest else { return Err(Error::TagUnknown(named)) };
            let target = Target::Artifact(digest);
            let command = SetTag { repository: repository.clone(), tag: tag.clone(), target };
            match self.core.change(command).await {
                Ok(()) => return Ok(digest),
                // The artifact was deleted in between: the tag names another by now, or nothing.
                Err(Error::ArtifactUnknown(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let what = "the tag kept moving while the request ran";
        Err(Error::Unavailable { what, source: None })
    }
}
