//! Repositories: what each holds, counted.

mod ledger;

pub(crate) use ledger::Ledger;

use crate::time::Timestamp;

/// A repository; the row goes when the last artifact, version, tag and link are gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepositoryRecord {
    /// When the first thing was stored in it.
    pub created_at: Timestamp,
    /// Log position of the last change: what caches of derived documents are keyed by.
    pub revision: u64,
    /// Artifacts in it.
    pub artifacts: u64,
    /// Versions in it, tombstones too.
    pub versions: u64,
    /// Tags in it.
    pub tags: u64,
    /// Links in it.
    pub links: u64,
}

impl RepositoryRecord {
    /// Whether it holds nothing.
    pub const fn is_empty(&self) -> bool {
        self.artifacts == 0 && self.versions == 0 && self.tags == 0 && self.links == 0
    }
}
