//! Whether a deletion would take what an immutable tag needs.
//!
//! A tag needs the artifact that it names, and through an index every artifact that the index lists, at any depth. Finding
//! that out takes reads of several moments, so the log is told the revision of the repository at which it was found out.
//!
//! Guarantee: the cost grows with the indexes above an artifact and with their tags, not with the repository.

use std::collections::BTreeSet;

use nora_domain::{
    Action, DeleteArtifact, DeleteTag, Digest, Key, Record, RepositoryKey, Rows, TagName, Target,
};

use crate::Error;
use crate::core::Core;
use crate::ports::policy::{Caller, Change, Judgement};

/// Rows that are read at a time.
const PAGE_ROWS: usize = 512;

/// Whether an immutable tag needs what a change would take away.
pub(crate) enum Needed {
    /// This tag does.
    By(TagName),
    /// None does. The answer holds for that revision of the repository, or for every one if there is none.
    ByNone { revision: Option<u64> },
}

impl Core {
    /// Whether an immutable tag speaks against an action, as the policy has judged it.
    pub(crate) async fn immutable_tag_against(
        &self,
        caller: &dyn Caller,
        action: &Action,
        judgement: &Judgement,
    ) -> Result<Needed, Error> {
        match action {
            Action::DeleteTag(DeleteTag { tag, .. }) if judgement.immutable.contains(tag) => {
                Ok(Needed::By(tag.clone()))
            }
            Action::DeleteArtifact(DeleteArtifact { repository, digest })
                if judgement.has_immutable =>
            {
                self.immutable_tag_above(caller, repository, *digest).await
            }
            _ => Ok(Needed::ByNone { revision: None }),
        }
    }

    /// An immutable tag that names an artifact, or names an index above it. Walks up from the artifact to the indexes that
    /// list it.
    async fn immutable_tag_above(
        &self,
        caller: &dyn Caller,
        repository: &RepositoryKey,
        digest: Digest,
    ) -> Result<Needed, Error> {
        self.catch_up().await?;
        // Read first: whatever comes while the rest is read makes another revision.
        let revision = match self.row(Key::Repository(repository.clone())).await? {
            Some(Record::Repository(record)) => record.revision,
            _ => 0,
        };
        let mut seen = BTreeSet::from([digest]);
        let mut open = vec![digest];
        while let Some(artifact) = open.pop() {
            if let Some(tag) = self.immutable_tag_of(caller, repository, artifact).await? {
                return Ok(Needed::By(tag));
            }
            let mut after = None;
            loop {
                let rows = Rows::Parents {
                    repository: repository.clone(),
                    child: artifact,
                    after: after.take(),
                };
                let page = self.rows(rows, PAGE_ROWS).await?;
                let is_last = page.len() < PAGE_ROWS;
                for (key, _) in page {
                    if let Key::ParentOf(_, _, index) = key {
                        after = Some(index);
                        if seen.insert(index) {
                            open.push(index);
                        }
                    }
                }
                if is_last {
                    break;
                }
            }
        }
        Ok(Needed::ByNone { revision: Some(revision) })
    }

    /// An immutable tag that names an artifact.
    async fn immutable_tag_of(
        &self,
        caller: &dyn Caller,
        repository: &RepositoryKey,
        artifact: Digest,
    ) -> Result<Option<TagName>, Error> {
        let mut after = None;
        loop {
            let rows = Rows::TagsOf {
                repository: repository.clone(),
                target: Target::Artifact(artifact),
                after: after.take(),
            };
            let page = self.rows(rows, PAGE_ROWS).await?;
            let is_last = page.len() < PAGE_ROWS;
            let tags: Vec<TagName> = page
                .into_iter()
                .filter_map(|(key, _)| match key {
                    Key::TagOf(_, _, tag) => Some(tag),
                    _ => None,
                })
                .collect();
            let immutable = caller.judge(Change::Delete, repository, &tags).immutable;
            if let Some(tag) = immutable.into_iter().next() {
                return Ok(Some(tag));
            }
            if is_last {
                return Ok(None);
            }
            after = tags.last().cloned();
        }
    }
}
