//! Storing and deleting artifacts and tags.

use bytes::Bytes;
use nora_domain::command::{Action, Outcome, Refusal};
use nora_domain::record::{Body, Key};
use nora_domain::{Digest, MediaType, RepositoryKey, TagName};

use crate::{Error, Registry};

/// An artifact to be stored, parsed by its format.
#[derive(Clone, Debug)]
pub struct PutArtifact {
    /// Where.
    pub repository: RepositoryKey,
    /// The digest of `bytes`, computed by whoever parsed them.
    pub digest: Digest,
    /// Its media type, as sent.
    pub media_type: MediaType,
    /// Its exact bytes.
    pub bytes: Bytes,
    /// The artifact it speaks about.
    pub subject: Option<Digest>,
    /// What kind of thing it is.
    pub artifact_type: Option<MediaType>,
    /// Blobs it needs, in any order.
    pub blobs: Vec<Digest>,
    /// Artifacts it lists, in any order.
    pub children: Vec<Digest>,
    /// Blobs it names but that need not be there (non-distributable layers); those that are there are kept.
    pub optional_blobs: Vec<Digest>,
    /// What it names without saying whether that is an artifact or a blob (a build cache's index of layers).
    pub either: Vec<Digest>,
    /// Tags that shall name it.
    pub tags: Vec<TagName>,
}

impl Registry {
    /// Stores an artifact and moves tags to it, in one step of the log; true if it was not there before.
    ///
    /// Whether everything it references is there is decided where racing pushes and deletes have an order: in the
    /// transition. What is read here before only sorts references into the lists that the transition checks.
    pub async fn put_artifact(&self, put: PutArtifact) -> Result<bool, Error> {
        let PutArtifact { repository, digest, media_type, bytes, subject, artifact_type, .. } = put;
        let (mut blobs, mut children, mut tags) = (put.blobs, put.children, put.tags);
        if bytes.len() > self.settings.artifact_bytes_max {
            return Err(Error::TooLarge { bytes_max: self.settings.artifact_bytes_max as u64 });
        }
        for digest in put.either {
            match self.metadata.get(Key::Artifact(repository.clone(), digest)).await? {
                Some(_) => children.push(digest),
                None => blobs.push(digest),
            }
        }
        for digest in put.optional_blobs {
            if self.metadata.get(Key::Link(digest, repository.clone())).await?.is_some() {
                blobs.push(digest);
            }
        }
        let references = blobs.len() + children.len();
        if references > self.settings.references_max {
            return Err(Error::TooManyReferences { references_max: self.settings.references_max });
        }
        let size = bytes.len() as u64;
        let body = if bytes.len() <= Body::INLINE_BYTES_MAX {
            Body::Inline(bytes.into())
        } else {
            self.store_bytes(&repository, digest, bytes).await?;
            blobs.push(digest);
            Body::Blob
        };
        for list in [&mut blobs, &mut children] {
            list.sort_unstable();
            list.dedup();
        }
        tags.sort_unstable();
        tags.dedup();
        let action = Action::PutArtifact {
            repository,
            digest,
            media_type,
            size,
            body,
            subject,
            artifact_type,
            blobs,
            children,
            tags,
        };
        match self.propose(action).await? {
            Ok(Outcome::ArtifactStored { created }) => Ok(created),
            Err(Refusal::ReferencesMissing { blobs, children }) => {
                Err(Error::ReferencesMissing { blobs, children })
            }
            other => Err(Error::impossible(other)),
        }
    }

    /// Removes an artifact and every tag that names it; returns those tags.
    pub async fn delete_artifact(
        &self,
        repository: RepositoryKey,
        digest: Digest,
    ) -> Result<Vec<TagName>, Error> {
        match self.propose(Action::DeleteArtifact { repository, digest }).await? {
            Ok(Outcome::ArtifactDeleted { tags }) => Ok(tags),
            Err(Refusal::ArtifactUnknown(digest)) => Err(Error::ArtifactUnknown(digest)),
            other => Err(Error::impossible(other)),
        }
    }

    /// Removes a tag; the artifact it named stays. Returns that artifact.
    pub async fn delete_tag(
        &self,
        repository: RepositoryKey,
        tag: TagName,
    ) -> Result<Digest, Error> {
        match self.propose(Action::DeleteTag { repository, tag }).await? {
            Ok(Outcome::TagDeleted { digest }) => Ok(digest),
            Err(Refusal::TagUnknown(tag)) => Err(Error::TagUnknown(tag)),
            other => Err(Error::impossible(other)),
        }
    }
}
