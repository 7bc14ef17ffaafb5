//! A repository's counters, its tenant's usage and its events while one command changes it.
//!
//! Guarantees: the repository's row exists exactly while it holds anything, its revision is the position of the last
//! command that changed it, and its creation is told before, its removal after everything else.

use super::{Step, lower, raise};
use crate::event::Event;
use crate::name::RepositoryKey;
use crate::record::{Key, Record, RepositoryRecord, UsageRecord};
use crate::store::Store;

/// What one command changes in one repository, until [`Step::settle`] writes it back.
pub(super) struct Ledger<'k> {
    pub(super) repository: &'k RepositoryKey,
    record: RepositoryRecord,
    usage: UsageRecord,
    is_new: bool,
    counts_unique: bool,
    events: Vec<Event>,
}

impl Ledger<'_> {
    /// `unique` are those of the bytes that no other link of the tenant counts.
    pub(super) fn add_link(&mut self, bytes: u64, unique: u64, event: Event) {
        raise(&mut self.usage.unique_bytes, unique);
        raise(&mut self.record.links, 1);
        raise(&mut self.usage.links, 1);
        raise(&mut self.usage.bytes, bytes);
        self.events.push(event);
    }

    pub(super) fn remove_link(&mut self, bytes: u64, unique: u64, event: Event) {
        lower(&mut self.usage.unique_bytes, unique);
        lower(&mut self.record.links, 1);
        lower(&mut self.usage.links, 1);
        lower(&mut self.usage.bytes, bytes);
        self.events.push(event);
    }

    /// `bytes` are those the artifact holds itself; a body that is a blob is counted by its link.
    pub(super) fn add_artifact(&mut self, bytes: u64, event: Event) {
        if self.counts_unique {
            raise(&mut self.usage.unique_bytes, bytes);
        }
        raise(&mut self.record.artifacts, 1);
        raise(&mut self.usage.artifacts, 1);
        raise(&mut self.usage.bytes, bytes);
        self.events.push(event);
    }

    pub(super) fn remove_artifact(&mut self, bytes: u64, event: Event) {
        if self.counts_unique {
            lower(&mut self.usage.unique_bytes, bytes);
        }
        lower(&mut self.record.artifacts, 1);
        lower(&mut self.usage.artifacts, 1);
        lower(&mut self.usage.bytes, bytes);
        self.events.push(event);
    }

    pub(super) fn add_tag(&mut self, event: Event) {
        raise(&mut self.record.tags, 1);
        raise(&mut self.usage.tags, 1);
        self.events.push(event);
    }

    /// A tag names another artifact: nothing is counted, but the repository has changed.
    pub(super) fn move_tag(&mut self, event: Event) {
        self.events.push(event);
    }

    pub(super) fn remove_tag(&mut self, event: Event) {
        lower(&mut self.record.tags, 1);
        lower(&mut self.usage.tags, 1);
        self.events.push(event);
    }
}

impl<S: Store> Step<'_, S> {
    /// Starts changing a repository.
    pub(super) fn ledger<'k>(&self, repository: &'k RepositoryKey) -> Result<Ledger<'k>, S::Error> {
        let record = read!(self.store, Repository, Key::Repository(repository.clone()));
        Ok(Ledger {
            repository,
            is_new: record.is_none(),
            counts_unique: self.counts_unique(),
            record: record.unwrap_or_else(|| RepositoryRecord {
                created_at: self.now,
                ..RepositoryRecord::default()
            }),
            usage: self.usage(&repository.tenant)?,
            events: Vec::new(),
        })
    }

    /// Ends changing a repository. Every change has an event, so with no event there is nothing to write.
    pub(super) fn settle(&mut self, ledger: Ledger<'_>) -> Result<(), S::Error> {
        let Ledger { repository, mut record, usage, is_new, events, .. } = ledger;
        if events.is_empty() {
            return Ok(());
        }
        if is_new {
            self.events.push(Event::RepositoryCreated { repository: repository.clone() });
        }
        self.events.extend(events);

        let key = Key::Repository(repository.clone());
        if record.artifacts == 0 && record.tags == 0 && record.links == 0 {
            self.store.delete(&key)?;
            self.events.push(Event::RepositoryRemoved { repository: repository.clone() });
        } else {
            record.revision = self.position;
            self.store.put(key, Record::Repository(record))?;
        }

        self.put_usage(&repository.tenant, usage)
    }
}
