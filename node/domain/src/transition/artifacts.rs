//! Artifacts, the tags that name them, and what they keep alive.
//!
//! Guarantees: an artifact is stored only with all it needs in place; its record never changes afterwards; every blob it
//! needs has an edge to it and counts it; every tag names an artifact that is there.

use super::ledger::Ledger;
use super::{Decision, Step, Stop, lower, raise};
use crate::command::{Outcome, Refusal};
use crate::digest::Digest;
use crate::event::Event;
use crate::name::{MediaType, RepositoryKey, TagName};
use crate::record::{ArtifactRecord, BlobRecord, Body, Key, Record, ReferrerRecord, TagRecord};
use crate::store::{Rows, Store};

/// How many tags are read at a time when an artifact's tags are removed.
const TAGS_PAGE: usize = 256;

/// The parts of [`crate::command::Action::PutArtifact`].
pub(super) struct Put<'a> {
    pub(super) repository: &'a RepositoryKey,
    pub(super) digest: Digest,
    pub(super) media_type: &'a MediaType,
    pub(super) size: u64,
    pub(super) body: &'a Body,
    pub(super) subject: Option<Digest>,
    pub(super) artifact_type: Option<&'a MediaType>,
    pub(super) blobs: &'a [Digest],
    pub(super) children: &'a [Digest],
    pub(super) tags: &'a [TagName],
}

/// A blob that an artifact needs and that is there.
type Needed = (Digest, BlobRecord);

impl<S: Store> Step<'_, S> {
    pub(super) fn put_artifact(&mut self, put: &Put<'_>) -> Decision<Outcome, S::Error> {
        let children = sorted_once(put.children.to_vec());
        let needed = self.references(put, &children)?;
        let size = match put.body {
            Body::Inline(bytes) => bytes.len() as u64,
            Body::Blob => needed
                .iter()
                .find(|(digest, _)| *digest == put.digest)
                .map_or(put.size, |(_, blob)| blob.size),
        };
        if size != put.size {
            return Err(Stop::Refused(Refusal::SizeConflict { digest: put.digest, live: size }));
        }

        let known = self.artifact(put.repository, put.digest)?;
        if known.is_none() {
            let inline = if *put.body == Body::Blob { 0 } else { put.size };
            let unique = if self.counts_unique() { inline } else { 0 };
            self.check_room(&put.repository.tenant, unique, 1, 0)?;
        }
        for tag in put.tags {
            self.check_move(put.repository, tag, put.digest)?;
        }
        let mut ledger = self.ledger(put.repository)?;
        if known.is_none() {
            self.insert_artifact(&mut ledger, put, needed, children)?;
        }
        for tag in put.tags {
            self.put_tag(&mut ledger, tag, put.digest)?;
        }
        self.settle(ledger)?;
        Ok(Outcome::ArtifactStored { created: known.is_none() })
    }

    /// Every blob that the artifact needs, sorted and each once; refused if one of them or of the children is missing.
    fn references(&self, put: &Put<'_>, children: &[Digest]) -> Decision<Vec<Needed>, S::Error> {
        let mut wanted = put.blobs.to_vec();
        if *put.body == Body::Blob {
            wanted.push(put.digest);
        }
        let mut needed = Vec::new();
        let mut missing_blobs = Vec::new();
        for digest in sorted_once(wanted) {
            match self.visible_blob(put.repository, digest) {
                Ok(blob) => needed.push((digest, blob)),
                Err(Stop::Refused(_)) => missing_blobs.push(digest),
                Err(failed) => return Err(failed),
            }
        }
        let mut missing_children = Vec::new();
        for child in children {
            if self.artifact(put.repository, *child)?.is_none() {
                missing_children.push(*child);
            }
        }
        if missing_blobs.is_empty() && missing_children.is_empty() {
            return Ok(needed);
        }
        Err(Stop::Refused(Refusal::ReferencesMissing {
            blobs: missing_blobs,
            children: missing_children,
        }))
    }

    fn insert_artifact(
        &mut self,
        ledger: &mut Ledger<'_>,
        put: &Put<'_>,
        needed: Vec<Needed>,
        children: Vec<Digest>,
    ) -> Result<(), S::Error> {
        let record = ArtifactRecord {
            media_type: put.media_type.clone(),
            size: put.size,
            body: put.body.clone(),
            subject: put.subject,
            artifact_type: put.artifact_type.cloned(),
            blobs: needed.iter().map(|(digest, _)| *digest).collect(),
            children,
            pushed_at: self.now,
        };
        for (blob, mut live) in needed {
            raise(&mut live.references, 1);
            self.store.put(Key::Blob(blob), Record::Blob(live))?;
            self.store.put(Key::Edge(blob, put.repository.clone(), put.digest), Record::Edge)?;
        }
        if let Some(subject) = put.subject {
            let row = ReferrerRecord { artifact_type: record.artifact_type.clone() };
            let key = Key::Referrer(put.repository.clone(), subject, put.digest);
            self.store.put(key, Record::Referrer(row))?;
        }
        ledger.add_artifact(
            inline_bytes(&record),
            Event::ArtifactPushed {
                repository: put.repository.clone(),
                digest: put.digest,
                media_type: record.media_type.clone(),
                size: record.size,
            },
        );
        let key = Key::Artifact(put.repository.clone(), put.digest);
        self.store.put(key, Record::Artifact(record))
    }

    /// Whether who asks may let a tag name an artifact. This is where making a tag and moving it are told apart: whoever
    /// proposed could not know which of two racing pushes comes first.
    fn check_move(
        &self,
        repository: &RepositoryKey,
        tag: &TagName,
        to: Digest,
    ) -> Decision<(), S::Error> {
        let is_immutable = self.terms.immutable.binary_search(tag).is_ok();
        if !is_immutable && self.terms.create_only.binary_search(tag).is_err() {
            return Ok(());
        }
        match read!(self.store, Tag, Key::Tag(repository.clone(), tag.clone())) {
            Some(known) if known.digest != to => Err(Stop::Refused(if is_immutable {
                Refusal::TagImmutable(tag.clone())
            } else {
                Refusal::TagExists(tag.clone())
            })),
            _ => Ok(()),
        }
    }

    /// Lets a tag name an artifact that is there.
    fn put_tag(
        &mut self,
        ledger: &mut Ledger<'_>,
        tag: &TagName,
        to: Digest,
    ) -> Result<(), S::Error> {
        let repository = ledger.repository;
        let key = Key::Tag(repository.clone(), tag.clone());
        let from = read!(self.store, Tag, key).map(|known| known.digest);
        if from == Some(to) {
            return Ok(());
        }
        let event = Event::TagMoved { repository: repository.clone(), tag: tag.clone(), from, to };
        match from {
            Some(from) => {
                self.store.delete(&Key::TagOf(repository.clone(), from, tag.clone()))?;
                ledger.move_tag(event);
            }
            None => ledger.add_tag(event),
        }
        self.store.put(key, Record::Tag(TagRecord { digest: to, moved_at: self.now }))?;
        self.store.put(Key::TagOf(repository.clone(), to, tag.clone()), Record::TagOf)
    }

    pub(super) fn delete_artifact(
        &mut self,
        repository: &RepositoryKey,
        digest: Digest,
    ) -> Decision<Outcome, S::Error> {
        let Some(record) = self.artifact(repository, digest)? else {
            return Err(Stop::Refused(Refusal::ArtifactUnknown(digest)));
        };
        // Whether an immutable tag needs the artifact is found out by whoever proposes: a tag that names it, or an index
        // that a tag names and that lists it. Whatever came to the repository since may be such a one.
        if let Some(judged) = self.terms.revision {
            let known = read!(self.store, Repository, Key::Repository(repository.clone()));
            if known.is_none_or(|known| known.revision != judged) {
                return Err(Stop::Refused(Refusal::RepositoryChanged));
            }
        }
        let mut ledger = self.ledger(repository)?;
        let tags = self.remove_tags_of(&mut ledger, digest)?;
        for blob in &record.blobs {
            self.store.delete(&Key::Edge(*blob, repository.clone(), digest))?;
            self.drop_reference(*blob)?;
        }
        if let Some(subject) = record.subject {
            self.store.delete(&Key::Referrer(repository.clone(), subject, digest))?;
        }
        self.store.delete(&Key::Artifact(repository.clone(), digest))?;
        ledger.remove_artifact(
            inline_bytes(&record),
            Event::ArtifactDeleted { repository: repository.clone(), digest },
        );
        // Nobody pushed the blob that held only the artifact's own bytes, so nobody would take it out again.
        if record.body == Body::Blob
            && self.needed_by(repository, digest)?.is_none()
            && let Some(link) = self.link(repository, digest)?
        {
            self.remove_link(&mut ledger, digest, link.size)?;
        }
        self.settle(ledger)?;
        Ok(Outcome::ArtifactDeleted { tags })
    }

    pub(super) fn delete_tag(
        &mut self,
        repository: &RepositoryKey,
        tag: &TagName,
    ) -> Decision<Outcome, S::Error> {
        let known = read!(self.store, Tag, Key::Tag(repository.clone(), tag.clone()));
        let Some(TagRecord { digest, .. }) = known else {
            return Err(Stop::Refused(Refusal::TagUnknown(tag.clone())));
        };
        let mut ledger = self.ledger(repository)?;
        self.remove_tag(&mut ledger, tag, digest)?;
        self.settle(ledger)?;
        Ok(Outcome::TagDeleted { digest })
    }

    /// Removes every tag that names an artifact, and tells which; sorted.
    fn remove_tags_of(
        &mut self,
        ledger: &mut Ledger<'_>,
        digest: Digest,
    ) -> Result<Vec<TagName>, S::Error> {
        let repository = ledger.repository;
        let mut removed: Vec<TagName> = Vec::new();
        loop {
            // Starting after the last one spares the store from reading again what was just deleted.
            let after = removed.last().cloned();
            let rows = Rows::TagsOf { repository: repository.clone(), digest, after };
            let page = self.store.scan(&rows, TAGS_PAGE)?;
            let is_last = page.len() < TAGS_PAGE;
            for (key, _) in page {
                if let Key::TagOf(_, _, tag) = key {
                    self.remove_tag(ledger, &tag, digest)?;
                    removed.push(tag);
                }
            }
            if is_last {
                return Ok(removed);
            }
        }
    }

    fn remove_tag(
        &mut self,
        ledger: &mut Ledger<'_>,
        tag: &TagName,
        digest: Digest,
    ) -> Result<(), S::Error> {
        let repository = ledger.repository;
        self.store.delete(&Key::Tag(repository.clone(), tag.clone()))?;
        self.store.delete(&Key::TagOf(repository.clone(), digest, tag.clone()))?;
        ledger.remove_tag(Event::TagDeleted {
            repository: repository.clone(),
            tag: tag.clone(),
            digest,
        });
        Ok(())
    }

    fn drop_reference(&mut self, digest: Digest) -> Result<(), S::Error> {
        let blob = self.blob(digest)?;
        debug_assert!(blob.is_some(), "an artifact referenced {digest}, which is not live");
        let Some(mut blob) = blob else { return Ok(()) };
        lower(&mut blob.references, 1);
        if blob.references == 0 {
            blob.unreferenced_at = self.now;
        }
        self.store.put(Key::Blob(digest), Record::Blob(blob))
    }
}

/// Bytes that an artifact's record holds itself.
fn inline_bytes(record: &ArtifactRecord) -> u64 {
    match record.body {
        Body::Inline(_) => record.size,
        Body::Blob => 0,
    }
}

/// Records promise sorted lists without repeats; the proposer promises them too, but no row may hang on that.
fn sorted_once(mut digests: Vec<Digest>) -> Vec<Digest> {
    digests.sort_unstable();
    digests.dedup();
    digests
}
