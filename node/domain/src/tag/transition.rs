//! Tags that are made, move and go.
//!
//! Guarantees: every tag names something that is there, and is found from that; what is gone was never pulled.

use super::{DeleteTag, Item, NotePulls, PulledRecord, SetTag, TagRecord, Target};
use crate::command::Refusal;
use crate::journal::Event;
use crate::names::{RepositoryKey, TagName};
use crate::repository::Ledger;
use crate::state::{Key, Record, Rows, Store};
use crate::transition::{Decision, Step, refuse};
use crate::version::VersionState;

impl<S: Store> Step<'_, S> {
    fn tag(
        &self,
        repository: &RepositoryKey,
        tag: &TagName,
    ) -> Result<Option<TagRecord>, S::Error> {
        Ok(read!(self.store, Tag, Key::Tag(repository.clone(), tag.clone())))
    }

    pub(crate) fn set_tag(&mut self, command: &SetTag) -> Decision<(), S::Error> {
        let SetTag { repository, tag, target } = command;
        match target {
            Target::Artifact(digest) => {
                if self.artifact(repository, *digest)?.is_none() {
                    return refuse(Refusal::ArtifactUnknown(*digest));
                }
            }
            Target::Version(version) => {
                self.present_version(repository, version)?;
            }
        }
        self.check_move(repository, tag, target)?;
        let mut ledger = self.ledger(repository)?;
        self.put_tag(&mut ledger, tag, target)?;
        self.settle(ledger)?;
        Ok(())
    }

    pub(crate) fn delete_tag(&mut self, command: &DeleteTag) -> Decision<Target, S::Error> {
        let DeleteTag { repository, tag } = command;
        let Some(TagRecord { target, .. }) = self.tag(repository, tag)? else {
            return refuse(Refusal::TagUnknown(tag.clone()));
        };
        let mut ledger = self.ledger(repository)?;
        self.remove_tag(&mut ledger, tag, &target)?;
        self.settle(ledger)?;
        Ok(target)
    }

    /// Whether the caller may let a tag name something. Making a tag and moving it are told apart here: the proposer
    /// could not know which of two racing pushes comes first.
    pub(crate) fn check_move(
        &self,
        repository: &RepositoryKey,
        tag: &TagName,
        to: &Target,
    ) -> Decision<(), S::Error> {
        let is_immutable = self.terms.immutable.binary_search(tag).is_ok();
        if !is_immutable && self.terms.create_only.binary_search(tag).is_err() {
            return Ok(());
        }
        match self.tag(repository, tag)? {
            Some(known) if known.target != *to => refuse(if is_immutable {
                Refusal::TagImmutable(tag.clone())
            } else {
                Refusal::TagExists(tag.clone())
            }),
            _ => Ok(()),
        }
    }

    /// Lets a tag name something that is there.
    pub(crate) fn put_tag(
        &mut self,
        ledger: &mut Ledger<'_>,
        tag: &TagName,
        to: &Target,
    ) -> Result<(), S::Error> {
        let repository = ledger.repository;
        let from = self.tag(repository, tag)?.map(|known| known.target);
        if from.as_ref() == Some(to) {
            return Ok(());
        }
        let event = Event::TagMoved {
            repository: repository.clone(),
            tag: tag.clone(),
            from: from.clone(),
            to: to.clone(),
        };
        match from {
            Some(from) => {
                self.store.delete(&Key::TagOf(repository.clone(), from, tag.clone()))?;
                ledger.note(event);
            }
            None => ledger.add_tag(event),
        }
        let record = TagRecord { target: to.clone(), moved_at: self.now };
        self.store.put(Key::Tag(repository.clone(), tag.clone()), Record::Tag(record))?;
        self.store.put(Key::TagOf(repository.clone(), to.clone(), tag.clone()), Record::TagOf)
    }

    /// Removes up to `limit` tags that name something; returns which, sorted, and whether there are more.
    pub(crate) fn remove_tags_of(
        &mut self,
        ledger: &mut Ledger<'_>,
        target: &Target,
        limit: usize,
    ) -> Result<(Vec<TagName>, bool), S::Error> {
        let repository = ledger.repository;
        let rows =
            Rows::TagsOf { repository: repository.clone(), target: target.clone(), after: None };
        let named = self.store.scan(&rows, limit + 1)?;
        let more = named.len() > limit;
        let mut removed = Vec::with_capacity(named.len().min(limit));
        for (key, _) in named.into_iter().take(limit) {
            if let Key::TagOf(_, _, tag) = key {
                self.remove_tag(ledger, &tag, target)?;
                removed.push(tag);
            }
        }
        Ok((removed, more))
    }

    fn remove_tag(
        &mut self,
        ledger: &mut Ledger<'_>,
        tag: &TagName,
        target: &Target,
    ) -> Result<(), S::Error> {
        let repository = ledger.repository;
        self.store.delete(&Key::Tag(repository.clone(), tag.clone()))?;
        self.store.delete(&Key::TagOf(repository.clone(), target.clone(), tag.clone()))?;
        self.forget_pull(repository, &Item::Tag(tag.clone()))?;
        ledger.remove_tag(Event::TagDeleted {
            repository: repository.clone(),
            tag: tag.clone(),
            target: target.clone(),
        });
        Ok(())
    }

    pub(crate) fn note_pulls(&mut self, command: &NotePulls) -> Decision<(), S::Error> {
        for (repository, item) in &command.pulls {
            let at = repository.clone();
            let is_there = match item.clone() {
                Item::Artifact(digest) => self.artifact(&at, digest)?.is_some(),
                Item::Tag(tag) => self.tag(&at, &tag)?.is_some(),
                Item::Version(version) => self
                    .version(&at, &version)?
                    .is_some_and(|version| version.state != VersionState::Tombstone),
                Item::File(version, file) => self.file(&at, &version, &file)?.is_some(),
            };
            if is_there {
                let record = PulledRecord { at: self.now };
                self.store.put(Key::Pulled(at, item.clone()), Record::Pulled(record))?;
            }
        }
        Ok(())
    }

    /// Something goes: so does the note of when it was last pulled.
    pub(crate) fn forget_pull(
        &mut self,
        repository: &RepositoryKey,
        item: &Item,
    ) -> Result<(), S::Error> {
        self.store.delete(&Key::Pulled(repository.clone(), item.clone()))
    }
}
