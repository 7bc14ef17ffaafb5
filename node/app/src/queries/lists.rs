//! Lists: repositories, referrers. Each is a page read from one moment of the state, in byte order.

use std::collections::BTreeSet;

use nora_domain::{
    ArtifactRecord, Digest, Format, Key, MediaType, Record, RepositoryKey, RepositoryPath, Rows,
    TenantName,
};

use super::Artifact;
use crate::{Error, Registry};

/// Rows read at once where a filter may skip most of them.
const FILTER_PAGE_ROWS: usize = 500;

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// In order.
    pub items: Vec<T>,
    /// Whether the list goes on after the last item.
    pub more: bool,
}

/// An artifact that speaks about another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referrer {
    /// The artifact.
    pub digest: Digest,
    /// Its artifact type.
    pub artifact_type: Option<MediaType>,
}

/// Which repositories a list shows.
pub trait Shown: Send + Sync {
    /// Whether it shows this one.
    fn shows(&self, path: &RepositoryPath) -> bool;

    /// Where to go on looking after `after`, which may be further; `None` if nothing comes that is shown. So the cost of a
    /// page does not grow with what its caller may not see.
    fn go_on(&self, after: Option<RepositoryPath>) -> Option<Option<RepositoryPath>> {
        Some(after)
    }
}

impl<F: Fn(&RepositoryPath) -> bool + Send + Sync> Shown for F {
    fn shows(&self, path: &RepositoryPath) -> bool {
        self(path)
    }
}

impl<T> Page<T> {
    /// A page of at most `limit` out of what was read with one row more.
    pub(crate) fn cut(mut items: Vec<T>, limit: usize) -> Self {
        let more = items.len() > limit;
        items.truncate(limit);
        Self { items, more }
    }
}

impl Registry {
    /// A format's repositories that hold artifacts and that the caller may see, after `after`, whoever owns them.
    pub async fn repositories(
        &self,
        format: Format,
        after: Option<RepositoryPath>,
        limit: usize,
        shown: &impl Shown,
    ) -> Result<Page<RepositoryPath>, Error> {
        self.core.catch_up().await?;
        // The first so many of all tenants are among the first so many of each.
        let mut found = BTreeSet::new();
        for tenant in self.core.tenancy().tenants() {
            for path in
                self.repositories_of(&tenant, format, after.clone(), limit + 1, shown).await?
            {
                found.insert(path);
                if found.len() > limit + 1 {
                    found.pop_last();
                }
            }
        }
        Ok(Page::cut(found.into_iter().collect(), limit))
    }

    /// A tenant's repositories of a format after `after`, and whether each holds artifacts or nothing but blobs.
    pub async fn holdings(
        &self,
        tenant: TenantName,
        format: Format,
        after: Option<RepositoryPath>,
        limit: usize,
    ) -> Result<Page<(RepositoryPath, bool)>, Error> {
        let rows = Rows::Repositories { tenant, format, after };
        let rows = self.core.rows(rows, limit + 1).await?;
        let paths = rows.into_iter().filter_map(|row| match row {
            (Key::Repository(key), Record::Repository(record)) => {
                Some((key.path, record.artifacts > 0))
            }
            _ => None,
        });
        Ok(Page::cut(paths.collect(), limit))
    }

    /// Up to `limit` of one tenant's.
    async fn repositories_of(
        &self,
        tenant: &TenantName,
        format: Format,
        mut after: Option<RepositoryPath>,
        limit: usize,
        shown: &impl Shown,
    ) -> Result<Vec<RepositoryPath>, Error> {
        let mut found = Vec::new();
        // Those that hold only blobs yet, or that the caller may not see, are skipped: one scan may not fill a page, and
        // what a page costs must not grow with each of them.
        let mut wanted = limit;
        while found.len() < limit {
            let Some(from) = shown.go_on(after.take()) else { break };
            let rows = Rows::Repositories { tenant: tenant.clone(), format, after: from };
            let rows = self.core.rows(rows, wanted).await?;
            let exhausted = rows.len() < wanted;
            for (key, record) in rows {
                let (Key::Repository(key), Record::Repository(record)) = (key, record) else {
                    continue;
                };
                after = Some(key.path.clone());
                if record.artifacts > 0 && found.len() < limit && shown.shows(&key.path) {
                    found.push(key.path);
                }
            }
            if exhausted {
                break;
            }
            wanted = FILTER_PAGE_ROWS;
        }
        Ok(found)
    }

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
