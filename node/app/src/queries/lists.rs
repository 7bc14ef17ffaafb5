//! Lists of referrers. Each is a page read from one moment of the state, in byte order.

use nora_domain::{ArtifactRecord, Digest, Key, MediaType, Record, RepositoryKey, Rows};

use super::Artifact;
use crate::{Error, Page, Registry};

/// Rows read at once where a filter may skip most of them.
const FILTER_PAGE_ROWS: usize = 500;

/// An artifact that speaks about another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referrer {
    /// The artifact.
    pub digest: Digest,
    /// Its artifact type.
    pub artifact_type: Option<MediaType>,
}

impl Registry {
    /// Artifacts of the repository that name `subject`, after `after`, of one type if that is asked for. An unknown
    /// repository has none.
    pub async fn referrers(
        &self,
        repository: &RepositoryKey,
        subject: Digest,
        artifact_type: Option<&MediaType>,
        after: Option<Digest>,
        limit: usize,
    ) -> Result<Page<Referrer>, Error> {
        self.core.catch_up().await?;
        let mut after = after;
        let mut found = Vec::new();
        while found.len() <= limit {
            let wanted = match artifact_type {
                None => limit + 1 - found.len(),
                Some(_) => FILTER_PAGE_ROWS,
            };
            let rows =
                Rows::Referrers { repository: repository.clone(), subject, after: after.take() };
            let rows = self.core.rows(rows, wanted).await?;
            let exhausted = rows.len() < wanted;
            for (key, record) in rows {
                if let (Key::Referrer(_, _, digest), Record::Referrer(row)) = (key, record) {
                    after = Some(digest);
                    if artifact_type.is_none() || row.artifact_type.as_ref() == artifact_type {
                        found.push(Referrer { digest, artifact_type: row.artifact_type });
                    }
                }
            }
            if exhausted {
                break;
            }
        }
        Ok(Page::cut(found, limit))
    }

    /// An artifact that a list named, which is no pull of it; `None` if it was deleted since.
    pub async fn listed_artifact(
        &self,
        repository: &RepositoryKey,
        digest: Digest,
    ) -> Result<Option<Artifact>, Error> {
        match self.artifact_record(repository, digest).await? {
            Some(record) => self.with_body(repository, digest, record).await,
            None => Ok(None),
        }
    }

    async fn artifact_record(
        &self,
        repository: &RepositoryKey,
        digest: Digest,
    ) -> Result<Option<ArtifactRecord>, Error> {
        match self.core.row(Key::Artifact(repository.clone(), digest)).await? {
            Some(Record::Artifact(record)) => Ok(Some(record)),
            Some(other) => Err(Error::wrong_record(&other)),
            None => Ok(None),
        }
    }
}
