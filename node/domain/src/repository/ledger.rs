//! A repository's counters, its tenant's usage and its events while one command changes it.
//!
//! Guarantees: the repository's row exists exactly while it holds anything, its revision is the position of the last
//! command that changed it, and its creation is reported before, its removal after everything else.

use super::RepositoryRecord;
use crate::journal::Event;
use crate::names::RepositoryKey;
use crate::state::{Key, Record, Store};
use crate::tenant::UsageRecord;
use crate::transition::{Step, lower, raise};

/// What one command changes in one repository, until [`Step::settle`] writes it back.
pub(crate) struct Ledger<'k> {
    pub(crate) repository: &'k RepositoryKey,
    record: RepositoryRecord,
    usage: UsageRecord,
    is_new: bool,
    events: Vec<Event>,
}

impl Ledger<'_> {
    /// `unique` are those of the bytes that no other link of the tenant counts.
    pub(crate) fn add_link(&mut self, bytes: u64, unique: u64, event: Event) {
        raise(&mut self.usage.unique_bytes, unique);
        raise(&mut self.record.links, 1);
        raise(&mut self.usage.links, 1);
        raise(&mut self.usage.bytes, bytes);
        self.events.push(event);
    }

    pub(crate) fn remove_link(&mut self, bytes: u64, unique: u64, event: Event) {
        lower(&mut self.usage.unique_bytes, unique);
        lower(&mut self.record.links, 1);
        lower(&mut self.usage.links, 1);
        lower(&mut self.usage.bytes, bytes);
        self.events.push(event);
    }

    /// `bytes` are those that the artifact's row holds itself; a body that is a blob is counted by its link.
    pub(crate) fn add_artifact(&mut self, bytes: u64, event: Event) {
        self.add_inline(bytes);
        raise(&mut self.record.artifacts, 1);
        raise(&mut self.usage.artifacts, 1);
        self.events.push(event);
    }

    pub(crate) fn remove_artifact(&mut self, bytes: u64, event: Event) {
        self.remove_inline(bytes);
        lower(&mut self.record.artifacts, 1);
        lower(&mut self.usage.artifacts, 1);
        self.events.push(event);
    }

    pub(crate) fn add_version(&mut self) {
        raise(&mut self.record.versions, 1);
        raise(&mut self.usage.versions, 1);
    }

    pub(crate) fn remove_version(&mut self) {
        lower(&mut self.record.versions, 1);
        lower(&mut self.usage.versions, 1);
    }

    /// Bytes that rows hold themselves, as a manifest's or a version's facts.
    pub(crate) fn add_inline(&mut self, bytes: u64) {
        raise(&mut self.usage.unique_bytes, bytes);
        raise(&mut self.usage.bytes, bytes);
    }

    pub(crate) fn remove_inline(&mut self, bytes: u64) {
        lower(&mut self.usage.unique_bytes, bytes);
        lower(&mut self.usage.bytes, bytes);
    }

    pub(crate) fn add_tag(&mut self, event: Event) {
        raise(&mut self.record.tags, 1);
        raise(&mut self.usage.tags, 1);
        self.events.push(event);
    }

    pub(crate) fn remove_tag(&mut self, event: Event) {
        lower(&mut self.record.tags, 1);
        lower(&mut self.usage.tags, 1);
        self.events.push(event);
    }

    /// Something changed that is not counted: a tag that names something else, a version's state.
    pub(crate) fn note(&mut self, event: Event) {
        self.events.push(event);
    }
}

impl<S: Store> Step<'_, S> {
    /// Starts changing a repository.
    pub(crate) fn ledger<'k>(&self, repository: &'k RepositoryKey) -> Result<Ledger<'k>, S::Error> {
        let record = read!(self.store, Repository, Key::Repository(repository.clone()));
        Ok(Ledger {
            repository,
            is_new: record.is_none(),
            record: record.unwrap_or_else(|| RepositoryRecord {
                created_at: self.now,
                ..RepositoryRecord::default()
            }),
            usage: self.usage(&repository.tenant)?,
            events: Vec::new(),
        })
    }

    /// Ends changing a repository. Every change has an event, so with no event there is nothing to write.
    pub(crate) fn settle(&mut self, ledger: Ledger<'_>) -> Result<(), S::Error> {
        let Ledger { repository, mut record, usage, is_new, events } = ledger;
        if events.is_empty() {
            return Ok(());
        }
        if is_new {
            self.happened(Event::RepositoryCreated { repository: repository.clone() });
        }
        self.events.extend(events);

        let key = Key::Repository(repository.clone());
        if record.is_empty() {
            self.store.delete(&key)?;
            self.happened(Event::RepositoryRemoved { repository: repository.clone() });
        } else {
            record.revision = self.position;
            self.store.put(key, Record::Repository(record))?;
        }
        self.put_usage(&repository.tenant, usage)
    }
}
