//! Storing and deleting artifacts.
//!
//! Guarantees: an artifact is stored only with all it needs in place; its record never changes afterwards; every blob it
//! needs has an edge to it and counts it; every artifact it lists is found from that one.

use super::{
    ArtifactDeleted, ArtifactRecord, ArtifactStored, Body, DeleteArtifact, PutArtifact,
    ReferrerRecord,
};
use crate::blob::Holder;
use crate::command::Refusal;
use crate::digest::Digest;
use crate::journal::Event;
use crate::names::RepositoryKey;
use crate::repository::Ledger;
use crate::state::{Key, Record, Store};
use crate::tag::Target;
use crate::transition::{Decision, Step, Stop, refuse};

impl<S: Store> Step<'_, S> {
    pub(crate) fn artifact(
        &self,
        repository: &RepositoryKey,
        digest: Digest,
    ) -> Result<Option<ArtifactRecord>, S::Error> {
        Ok(read!(self.store, Artifact, Key::Artifact(repository.clone(), digest)))
    }

    pub(crate) fn put_artifact(
        &mut self,
        command: &PutArtifact,
    ) -> Decision<ArtifactStored, S::Error> {
        let PutArtifact { repository, digest, .. } = command;
        let children = sorted_once(command.children.clone());
        let (blobs, own_size) = self.references(command, &children)?;
        let size = match &command.body {
            Body::Inline(bytes) => bytes.len() as u64,
            Body::Blob => own_size.unwrap_or(command.size),
        };
        if size != command.size {
            return refuse(Refusal::SizeConflict { digest: *digest, live: size });
        }

        let created = self.artifact(repository, *digest)?.is_none();
        if created {
            let inline = if command.body == Body::Blob { 0 } else { command.size };
            self.check_quota(&repository.tenant, inline, 1, 0)?;
        }
        let target = Target::Artifact(*digest);
        for tag in &command.tags {
            self.check_move(repository, tag, &target)?;
        }
        let mut ledger = self.ledger(repository)?;
        if created {
            self.insert_artifact(&mut ledger, command, blobs, children)?;
        }
        for tag in &command.tags {
            self.put_tag(&mut ledger, tag, &target)?;
        }
        self.settle(ledger)?;
        Ok(ArtifactStored { created })
    }

    /// Every blob that the artifact needs, sorted and each once, and the size of its own if its body is one; refused if
    /// one of them or of the children is missing.
    fn references(
        &self,
        command: &PutArtifact,
        children: &[Digest],
    ) -> Decision<(Vec<Digest>, Option<u64>), S::Error> {
        let mut wanted = command.blobs.clone();
        if command.body == Body::Blob {
            wanted.push(command.digest);
        }
        let wanted = sorted_once(wanted);
        let mut own_size = None;
        let mut missing_blobs = Vec::new();
        for digest in &wanted {
            match self.visible_blob(&command.repository, *digest) {
                Ok(blob) if *digest == command.digest => own_size = Some(blob.size),
                Ok(_) => {}
                Err(Stop::Refused(_)) => missing_blobs.push(*digest),
                Err(failed) => return Err(failed),
            }
        }
        let mut missing_children = Vec::new();
        for child in children {
            if self.artifact(&command.repository, *child)?.is_none() {
                missing_children.push(*child);
            }
        }
        if missing_blobs.is_empty() && missing_children.is_empty() {
            return Ok((wanted, own_size));
        }
        refuse(Refusal::ReferencesMissing { blobs: missing_blobs, children: missing_children })
    }

    fn insert_artifact(
        &mut self,
        ledger: &mut Ledger<'_>,
        command: &PutArtifact,
        blobs: Vec<Digest>,
        children: Vec<Digest>,
    ) -> Result<(), S::Error> {
        let PutArtifact { repository, digest, media_type, size, body, subject, .. } = command;
        let digest = *digest;
        for blob in &blobs {
            self.add_reference(repository, *blob, Holder::Artifact(digest))?;
        }
        for child in &children {
            self.store.put(Key::ParentOf(repository.clone(), *child, digest), Record::ParentOf)?;
        }
        let record = ArtifactRecord {
            media_type: media_type.clone(),
            size: *size,
            body: body.clone(),
            subject: *subject,
            artifact_type: command.artifact_type.clone(),
            annotations: command.annotations.clone(),
            blobs,
            children,
            pushed_at: self.now,
        };
        if let Some(subject) = subject {
            let row = ReferrerRecord { artifact_type: record.artifact_type.clone() };
            let key = Key::Referrer(repository.clone(), *subject, digest);
            self.store.put(key, Record::Referrer(row))?;
        }
        ledger.add_artifact(
            record.inline_bytes(),
            Event::ArtifactPushed {
                repository: repository.clone(),
                digest,
                media_type: media_type.clone(),
                size: *size,
            },
        );
        let key = Key::Artifact(repository.clone(), digest);
        self.store.put(key, Record::Artifact(record))
    }

    pub(crate) fn delete_artifact(
        &mut self,
        command: &DeleteArtifact,
    ) -> Decision<ArtifactDeleted, S::Error> {
        let DeleteArtifact { repository, digest } = command;
        let digest = *digest;
        let Some(record) = self.artifact(repository, digest)? else {
            return refuse(Refusal::ArtifactUnknown(digest));
        };
        // The proposer finds out whether an immutable tag needs the artifact: a tag that names it, or an index that a tag
        // names and that lists it. Whatever came to the repository since may be such a tag.
        if let Some(judged) = self.terms.revision {
            let known = read!(self.store, Repository, Key::Repository(repository.clone()));
            if known.is_none_or(|known| known.revision != judged) {
                return refuse(Refusal::RepositoryChanged);
            }
        }
        let mut ledger = self.ledger(repository)?;
        let target = Target::Artifact(digest);
        let (tags, more) = self.remove_tags_of(&mut ledger, &target, DeleteArtifact::TAGS_MAX)?;
        if more {
            self.settle(ledger)?;
            return Ok(ArtifactDeleted { tags, more });
        }
        for blob in &record.blobs {
            self.drop_reference(repository, *blob, Holder::Artifact(digest))?;
        }
        for child in &record.children {
            self.store.delete(&Key::ParentOf(repository.clone(), *child, digest))?;
        }
        if let Some(subject) = record.subject {
            self.store.delete(&Key::Referrer(repository.clone(), subject, digest))?;
        }
        self.store.delete(&Key::Artifact(repository.clone(), digest))?;
        self.forget_pull(repository, &crate::tag::Item::Artifact(digest))?;
        ledger.remove_artifact(
            record.inline_bytes(),
            Event::ArtifactDeleted { repository: repository.clone(), digest },
        );
        // The blob that held only the artifact's own bytes goes too: no client pushed it, so none would unlink it.
        if record.body == Body::Blob
            && self.needed_by(repository, digest)?.is_none()
            && let Some(link) = self.link(repository, digest)?
        {
            self.hide(&mut ledger, digest, link.size)?;
        }
        self.settle(ledger)?;
        Ok(ArtifactDeleted { tags, more: false })
    }
}

/// Records promise sorted lists without repeats; the proposer promises them too, but no row may hang on that.
fn sorted_once(mut digests: Vec<Digest>) -> Vec<Digest> {
    digests.sort_unstable();
    digests.dedup();
    digests
}
