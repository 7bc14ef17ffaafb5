//! Tags of repositories.

use nora_domain::{
    DeleteTag, Digest, Key, Reference, RepositoryKey, Rows, SetTag, TagName, Target,
};

use crate::core::{Core, record};
use crate::{Error, Page};

/// How often a tag is resolved anew because its artifact went in between.
const RESOLVED_MAX: usize = 16;

/// The tags.
#[derive(Clone, Copy)]
pub struct Tags<'a> {
    core: &'a Core,
}

impl<'a> Tags<'a> {
    pub(crate) fn new(core: &'a Core) -> Self {
        Self { core }
    }

    /// Lets a tag name what a reference of the same repository names now; returns that artifact.
    pub async fn set(
        self,
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
            let digest = self.artifact_of(&repository, &named).await?;
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

    /// Removes a tag; what it named stays. Returns that.
    pub async fn delete(self, repository: RepositoryKey, tag: TagName) -> Result<Target, Error> {
        self.core.change(DeleteTag { repository, tag }).await
    }

    /// The digest that a tag names: every move acknowledged before the call is seen.
    pub async fn resolve(self, repository: &RepositoryKey, tag: &TagName) -> Result<Digest, Error> {
        match self.artifact_of(repository, tag).await? {
            Some(digest) => Ok(digest),
            None => Err(self.core.absent(repository, Error::TagUnknown(tag.clone())).await),
        }
    }

    /// The artifact that a tag names, once this node has caught up; `None` if it names none.
    async fn artifact_of(
        self,
        repository: &RepositoryKey,
        tag: &TagName,
    ) -> Result<Option<Digest>, Error> {
        self.core.catch_up().await?;
        let row = self.core.row(Key::Tag(repository.clone(), tag.clone())).await?;
        Ok(record!(Tag, row).and_then(|tag| tag.target.artifact()))
    }

    /// A repository's tags after `after`.
    pub async fn list(
        self,
        repository: &RepositoryKey,
        after: Option<TagName>,
        limit: usize,
    ) -> Result<Page<TagName>, Error> {
        self.core.catch_up().await?;
        if !self.core.has_row(Key::Repository(repository.clone())).await? {
            return Err(Error::RepositoryUnknown);
        }
        let rows = Rows::Tags { repository: repository.clone(), after };
        let tags = self.core.rows(rows, limit + 1).await?;
        let tags = tags.into_iter().filter_map(|(key, _)| match key {
            Key::Tag(_, tag) => Some(tag),
            _ => None,
        });
        Ok(Page::cut(tags.collect(), limit))
    }
}
