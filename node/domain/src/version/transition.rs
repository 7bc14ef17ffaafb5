//! Publishing, yanking and deleting versions.
//!
//! Guarantees: of two publishers that expect a version to be absent exactly one finds it so; a file's bytes never change
//! under its name; a version's files are visible blobs that it keeps alive; a tombstone's name is never given again.

use super::{
    DeleteFile, DeleteVersion, Expected, Facts, FileRecord, NewFile, PutVersion, SetVersionState,
    VersionDeleted, VersionRecord, VersionState, VersionStored,
};
use crate::blob::Holder;
use crate::command::Refusal;
use crate::journal::Event;
use crate::names::{FileName, RepositoryKey, VersionName};
use crate::state::{Key, Record, Rows, Store};
use crate::tag::{Item, Target};
use crate::transition::{Decision, Step, refuse};

impl<S: Store> Step<'_, S> {
    pub(crate) fn version(
        &self,
        repository: &RepositoryKey,
        version: &VersionName,
    ) -> Result<Option<VersionRecord>, S::Error> {
        Ok(read!(self.store, Version, Key::Version(repository.clone(), version.clone())))
    }

    /// A version that is there and no tombstone.
    pub(crate) fn present_version(
        &self,
        repository: &RepositoryKey,
        version: &VersionName,
    ) -> Decision<VersionRecord, S::Error> {
        match self.version(repository, version)? {
            Some(record) if record.state != VersionState::Tombstone => Ok(record),
            _ => refuse(Refusal::VersionUnknown(version.clone())),
        }
    }

    pub(crate) fn file(
        &self,
        repository: &RepositoryKey,
        version: &VersionName,
        file: &FileName,
    ) -> Result<Option<FileRecord>, S::Error> {
        let key = Key::File(repository.clone(), version.clone(), file.clone());
        Ok(read!(self.store, File, key))
    }

    pub(crate) fn put_version(
        &mut self,
        command: &PutVersion,
    ) -> Decision<VersionStored, S::Error> {
        let PutVersion { repository, version, expected, facts, files, tags } = command;
        let known = self.version(repository, version)?;
        match (&known, expected) {
            (Some(known), _) if known.state == VersionState::Tombstone => {
                return refuse(Refusal::VersionGone(version.clone()));
            }
            (Some(_), Expected::Absent) => return refuse(Refusal::VersionExists(version.clone())),
            (known, Expected::Revision(revision))
                if known.as_ref().is_none_or(|known| known.revision != *revision) =>
            {
                return refuse(Refusal::VersionChanged(version.clone()));
            }
            _ => {}
        }
        let new_files = self.new_files(repository, version, files)?;
        let before = known.as_ref().map_or(0, |known| known.files);
        let count = before.saturating_add(u32::try_from(new_files.len()).unwrap_or(u32::MAX));
        if count > VersionRecord::FILES_MAX {
            return refuse(Refusal::FilesTooMany(VersionRecord::FILES_MAX));
        }
        if let Some(Facts::Blob(digest)) = facts {
            self.visible_blob(repository, *digest)?;
        }
        let created = known.is_none();
        let old_inline = known.as_ref().map_or(0, |known| known.facts.inline_bytes());
        let new_inline = facts.as_ref().map_or(old_inline, Facts::inline_bytes);
        let growth = new_inline.saturating_sub(old_inline);
        self.check_quota(&repository.tenant, growth, u64::from(created), 0)?;
        let target = Target::Version(version.clone());
        for tag in tags {
            self.check_move(repository, tag, &target)?;
        }

        let mut ledger = self.ledger(repository)?;
        let mut record = known.unwrap_or_else(|| VersionRecord {
            published_at: self.now,
            ..VersionRecord::default()
        });
        let has_new_facts = facts.as_ref().is_some_and(|facts| *facts != record.facts);
        let is_changed = created || has_new_facts || !new_files.is_empty();
        if is_changed {
            if created {
                ledger.add_version();
            }
            ledger.remove_inline(old_inline);
            ledger.add_inline(new_inline);
            if let Some(facts) = facts {
                self.replace_facts(repository, version, &record.facts, facts)?;
                record.facts = facts.clone();
            }
            for file in new_files {
                self.insert_file(repository, version, file)?;
                ledger.note(Event::FilePublished {
                    repository: repository.clone(),
                    version: version.clone(),
                    file: file.name.clone(),
                    digest: file.digest,
                    size: file.size,
                });
            }
            record.files = count;
            record.revision = self.position;
            ledger.note(Event::VersionPublished {
                repository: repository.clone(),
                version: version.clone(),
                created,
            });
            let key = Key::Version(repository.clone(), version.clone());
            self.store.put(key, Record::Version(record.clone()))?;
        }
        for tag in tags {
            self.put_tag(&mut ledger, tag, &target)?;
        }
        self.settle(ledger)?;
        Ok(VersionStored { created, revision: record.revision })
    }

    /// Those of the files that are not there yet. Each one's blob must be visible and have the size that is said; a file
    /// that is there under its name must be the same.
    fn new_files<'f>(
        &self,
        repository: &RepositoryKey,
        version: &VersionName,
        files: &'f [NewFile],
    ) -> Decision<Vec<&'f NewFile>, S::Error> {
        let mut new: Vec<&NewFile> = Vec::new();
        for file in files {
            let twice = new.iter().find(|other| other.name == file.name);
            let known = match twice {
                Some(other) => Some(other.digest),
                None => self.file(repository, version, &file.name)?.map(|known| known.digest),
            };
            match known {
                Some(known) if known == file.digest => continue,
                Some(_) => return refuse(Refusal::FileExists(file.name.clone())),
                None => {}
            }
            let blob = self.visible_blob(repository, file.digest)?;
            if blob.size != file.size {
                let (digest, live) = (file.digest, blob.size);
                return refuse(Refusal::SizeConflict { digest, live });
            }
            new.push(file);
        }
        Ok(new)
    }

    fn insert_file(
        &mut self,
        repository: &RepositoryKey,
        version: &VersionName,
        file: &NewFile,
    ) -> Result<(), S::Error> {
        let holder = Holder::File(version.clone(), file.name.clone());
        self.add_reference(repository, file.digest, holder)?;
        let record = FileRecord {
            digest: file.digest,
            size: file.size,
            hashes: file.hashes.clone(),
            uploaded_at: self.now,
        };
        let key = Key::File(repository.clone(), version.clone(), file.name.clone());
        self.store.put(key, Record::File(record))
    }

    fn replace_facts(
        &mut self,
        repository: &RepositoryKey,
        version: &VersionName,
        old: &Facts,
        new: &Facts,
    ) -> Result<(), S::Error> {
        if old == new {
            return Ok(());
        }
        if let Facts::Blob(digest) = new {
            self.add_reference(repository, *digest, Holder::Version(version.clone()))?;
        }
        if let Facts::Blob(digest) = old {
            self.drop_reference(repository, *digest, Holder::Version(version.clone()))?;
        }
        Ok(())
    }

    pub(crate) fn set_version_state(
        &mut self,
        command: &SetVersionState,
    ) -> Decision<(), S::Error> {
        let SetVersionState { repository, version, state } = command;
        let mut record = self.present_version(repository, version)?;
        if *state == VersionState::Tombstone {
            return refuse(Refusal::VersionGone(version.clone()));
        }
        if record.state == *state {
            return Ok(());
        }
        let mut ledger = self.ledger(repository)?;
        record.state = state.clone();
        record.revision = self.position;
        let key = Key::Version(repository.clone(), version.clone());
        self.store.put(key, Record::Version(record))?;
        ledger.note(Event::VersionStateChanged {
            repository: repository.clone(),
            version: version.clone(),
        });
        self.settle(ledger)?;
        Ok(())
    }

    pub(crate) fn delete_version(
        &mut self,
        command: &DeleteVersion,
    ) -> Decision<VersionDeleted, S::Error> {
        let DeleteVersion { repository, version, tombstone } = command;
        let record = self.present_version(repository, version)?;
        let mut ledger = self.ledger(repository)?;
        let target = Target::Version(version.clone());
        let (_, more) = self.remove_tags_of(&mut ledger, &target, DeleteVersion::TAGS_MAX)?;
        if more {
            self.settle(ledger)?;
            return Ok(VersionDeleted { more });
        }
        let rows =
            Rows::Files { repository: repository.clone(), version: version.clone(), after: None };
        for (key, row) in self.store.scan(&rows, VersionRecord::FILES_MAX as usize)? {
            if let (Key::File(_, _, file), Record::File(row)) = (key, row) {
                self.remove_file(repository, version, &file, &row)?;
            }
        }
        if let Facts::Blob(digest) = &record.facts {
            self.drop_reference(repository, *digest, Holder::Version(version.clone()))?;
        }
        ledger.remove_inline(record.facts.inline_bytes());
        self.forget_pull(repository, &Item::Version(version.clone()))?;
        let key = Key::Version(repository.clone(), version.clone());
        if *tombstone {
            let gone = VersionRecord {
                state: VersionState::Tombstone,
                facts: Facts::default(),
                files: 0,
                published_at: record.published_at,
                revision: self.position,
            };
            self.store.put(key, Record::Version(gone))?;
        } else {
            self.store.delete(&key)?;
            ledger.remove_version();
        }
        ledger.note(Event::VersionDeleted {
            repository: repository.clone(),
            version: version.clone(),
        });
        self.settle(ledger)?;
        Ok(VersionDeleted { more: false })
    }

    pub(crate) fn delete_file(&mut self, command: &DeleteFile) -> Decision<(), S::Error> {
        let DeleteFile { repository, version, file } = command;
        let mut record = self.present_version(repository, version)?;
        let Some(row) = self.file(repository, version, file)? else {
            return refuse(Refusal::FileUnknown(file.clone()));
        };
        let mut ledger = self.ledger(repository)?;
        self.remove_file(repository, version, file, &row)?;
        record.files = record.files.saturating_sub(1);
        record.revision = self.position;
        let key = Key::Version(repository.clone(), version.clone());
        self.store.put(key, Record::Version(record))?;
        ledger.note(Event::FileDeleted {
            repository: repository.clone(),
            version: version.clone(),
            file: file.clone(),
        });
        self.settle(ledger)?;
        Ok(())
    }

    fn remove_file(
        &mut self,
        repository: &RepositoryKey,
        version: &VersionName,
        file: &FileName,
        row: &FileRecord,
    ) -> Result<(), S::Error> {
        let holder = Holder::File(version.clone(), file.clone());
        self.drop_reference(repository, row.digest, holder)?;
        self.forget_pull(repository, &Item::File(version.clone(), file.clone()))?;
        self.store.delete(&Key::File(repository.clone(), version.clone(), file.clone()))
    }
}
