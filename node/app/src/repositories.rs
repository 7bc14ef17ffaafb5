//! Lists of repositories.
//!
//! Guarantee: what a page costs does not grow with the repositories that its caller may not see, where a list's
//! [`Shown`] can skip them.

use std::collections::BTreeSet;

use nora_domain::{Format, Key, Record, RepositoryPath, Rows, TenantName};

use crate::core::Core;
use crate::{Error, Page};

/// Rows read at once where a filter may skip most of them.
const FILTER_PAGE_ROWS: usize = 500;

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

/// The repositories.
#[derive(Clone, Copy)]
pub struct Repositories<'a> {
    core: &'a Core,
}

impl<'a> Repositories<'a> {
    pub(crate) fn new(core: &'a Core) -> Self {
        Self { core }
    }

    /// A format's repositories that hold artifacts and that the caller may see, after `after`, whoever owns them.
    pub async fn list(
        self,
        format: Format,
        after: Option<RepositoryPath>,
        limit: usize,
        shown: &impl Shown,
    ) -> Result<Page<RepositoryPath>, Error> {
        self.core.catch_up().await?;
        // The first so many of all tenants are among the first so many of each.
        let mut found = BTreeSet::new();
        for tenant in self.core.tenancy().tenants() {
            for path in self.shown_of(&tenant, format, after.clone(), limit + 1, shown).await? {
                found.insert(path);
                if found.len() > limit + 1 {
                    found.pop_last();
                }
            }
        }
        Ok(Page::cut(found.into_iter().collect(), limit))
    }

    /// A tenant's repositories of a format after `after`, and whether each holds artifacts or nothing but blobs.
    pub async fn of(
        self,
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
    async fn shown_of(
        self,
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
}
