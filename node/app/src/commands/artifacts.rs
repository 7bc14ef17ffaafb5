//! Storing and deleting artifacts.

use bytes::Bytes;
use nora_domain as domain;
use nora_domain::{
    ArtifactDeleted, ArtifactStored, Body, DeleteArtifact, Digest, Key, MediaType, RepositoryKey,
    TagName, UnlinkBlob,
};
use tracing::warn;

use crate::uploads::UploadSessions;
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
        if bytes.len() > self.core.settings().artifact_bytes_max {
            return Err(Error::TooLarge {
                bytes_max: self.core.settings().artifact_bytes_max as u64,
            });
        }
        let is_large = bytes.len() > Body::INLINE_BYTES_MAX;
        if is_large || !put.either.is_empty() || !put.optional_blobs.is_empty() {
            // What another node was told is stored must not be taken for absent below.
            self.core.catch_up().await?;
        }
        for digest in put.either {
            let key = Key::Artifact(repository.clone(), digest);
            let list = if self.core.has_row(key).await? { &mut children } else { &mut blobs };
            list.push(digest);
        }
        for digest in put.optional_blobs {
            if self.core.has_row(Key::Link(repository.clone(), digest)).await? {
                blobs.push(digest);
            }
        }
        for list in [&mut blobs, &mut children] {
            list.sort_unstable();
            list.dedup();
        }
        let references = blobs.len() + children.len();
        if references > self.core.settings().references_max {
            return Err(Error::TooManyReferences {
                references_max: self.core.settings().references_max,
            });
        }
        let size = bytes.len() as u64;
        let mut own_link_is_new = false;
        let body = if is_large {
            own_link_is_new = !self.core.has_row(Key::Link(repository.clone(), digest)).await?;
            UploadSessions::new(&self.core).store_bytes(&repository, digest, bytes).await?;
            if let Err(at) = blobs.binary_search(&digest) {
                blobs.insert(at, digest);
            }
            Body::Blob
        } else {
            Body::Inline(bytes)
        };
        tags.sort_unstable();
        tags.dedup();
        let command = domain::PutArtifact {
            repository: repository.clone(),
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
        let refused = match self.core.propose(command).await {
            Ok(Ok(ArtifactStored { created })) => return Ok(created),
            Ok(Err(refusal)) => Error::from(refusal),
            Err(refused @ (Error::TagImmutable(_) | Error::NotPermitted)) => refused,
            // The artifact may be there after all.
            Err(error) => return Err(error),
        };
        if own_link_is_new {
            self.drop_own_link(repository, digest).await;
        }
        Err(refused)
    }

    /// Takes the blob of a refused artifact's bytes out of the repository again: no client will. Refused if another push
    /// has stored the artifact meanwhile, which is right.
    async fn drop_own_link(&self, repository: RepositoryKey, digest: Digest) {
        // The caller that pushed need not have the right to delete.
        match self.core.by_itself().propose(UnlinkBlob { repository, digest }).await {
            Ok(_) => {}
            Err(error) => warn!(%digest, %error, "a refused artifact's bytes stay linked"),
        }
    }

    /// Removes an artifact and every tag that names it; returns those tags.
    pub async fn delete_artifact(
        &self,
        repository: RepositoryKey,
        digest: Digest,
    ) -> Result<Vec<TagName>, Error> {
        let mut removed = Vec::new();
        loop {
            let command = DeleteArtifact { repository: repository.clone(), digest };
            let ArtifactDeleted { tags, more } = self.core.change(command).await?;
            removed.extend(tags);
            if !more {
                self.core.settle().await;
                return Ok(removed);
            }
        }
    }
}
