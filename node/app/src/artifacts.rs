//! Artifacts: stored, deleted, read by tag or by digest, and listed by what they speak about.
//!
//! Guarantees: an artifact is stored, with its tags, in one step of the log. A read changes nothing; a pull is noted in
//! memory, and [written down](Artifacts::write_pulls) later.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use nora_domain as domain;
use nora_domain::{
    ArtifactDeleted, ArtifactRecord, ArtifactStored, Body, DeleteArtifact, Digest, Key, MediaType,
    NotePulls, Record, Reference, RepositoryKey, Rows, TagName, UnlinkBlob,
};
use tracing::warn;

use crate::blobs::LinkedBlobs;
use crate::core::{Core, record};
use crate::ports::blobs::{Delivery, OpenBlob};
use crate::tags::Tags;
use crate::uploads::UploadSessions;
use crate::{Error, Page, Settings};

/// How often a tag is resolved anew because its artifact went in between.
const RESOLVED_MAX: usize = 16;

/// Notes of pulls that one command carries.
const PULLS_NOTED_MAX: usize = 500;

/// Rows read at once where a filter may skip most of them.
const FILTER_PAGE_ROWS: usize = 500;

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
    /// What a list of referrers shows of its annotations, as its format writes them. Kept if its bytes become a blob, so
    /// that no list reads it; dropped if they take more than a record holds.
    pub annotations: Bytes,
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

/// An artifact that was found.
pub struct Artifact {
    /// Its digest.
    pub digest: Digest,
    /// The media type it was pushed with.
    pub media_type: MediaType,
    /// Its size in bytes.
    pub size: u64,
    /// The artifact it speaks about.
    pub subject: Option<Digest>,
    /// Blobs that must live as long as it does, in order.
    pub blobs: Vec<Digest>,
    /// Artifacts of the same repository that it lists, in order.
    pub children: Vec<Digest>,
    /// Its exact bytes.
    pub body: ArtifactBody,
}

/// An artifact's bytes.
pub enum ArtifactBody {
    /// In memory.
    Bytes(Bytes),
    /// In a blob.
    Blob(Arc<dyn OpenBlob>),
}

/// An artifact as a list shows it: what its record alone says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The media type it was pushed with.
    pub media_type: MediaType,
    /// Its size in bytes.
    pub size: u64,
    /// The artifact it speaks about.
    pub subject: Option<Digest>,
    /// Where its annotations are found.
    pub annotations: Annotations,
}

/// Where a list finds an artifact's annotations; never in a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Annotations {
    /// Among the artifact's own bytes, at most [`Body::INLINE_BYTES_MAX`] of them.
    Within(Bytes),
    /// Here, as its format wrote them when it was pushed; empty if there are none to show.
    Kept(Bytes),
}

/// An artifact that speaks about another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referrer {
    /// The artifact.
    pub digest: Digest,
    /// Its artifact type.
    pub artifact_type: Option<MediaType>,
}

/// The artifacts.
#[derive(Clone, Copy)]
pub struct Artifacts<'a> {
    core: &'a Core,
}

/// Changes.
impl<'a> Artifacts<'a> {
    pub(crate) fn new(core: &'a Core) -> Self {
        Self { core }
    }

    /// Stores an artifact and moves tags to it, in one step of the log; true if it was not there before.
    ///
    /// Whether everything it references is there is decided where racing pushes and deletes have an order: in the
    /// transition. What is read here before only sorts references into the lists that the transition checks.
    pub async fn put(self, put: PutArtifact) -> Result<bool, Error> {
        let PutArtifact { repository, digest, media_type, bytes, subject, artifact_type, .. } = put;
        let (mut blobs, mut children, mut tags) = (put.blobs, put.children, put.tags);
        let &Settings { artifact_bytes_max, references_max, .. } = self.core.settings();
        if bytes.len() > artifact_bytes_max {
            return Err(Error::TooLarge { bytes_max: artifact_bytes_max as u64 });
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
        if references > references_max {
            return Err(Error::TooManyReferences { references_max });
        }
        let is_listed = is_large && subject.is_some();
        let annotations = match put.annotations {
            kept if is_listed && kept.len() <= Body::INLINE_BYTES_MAX => kept,
            _ => Bytes::new(),
        };
        let size = bytes.len() as u64;
        let mut own_link_is_new = false;
        let body = if is_large {
            own_link_is_new = !self.core.has_row(Key::Link(repository.clone(), digest)).await?;
            UploadSessions::new(self.core).store_bytes(&repository, digest, bytes).await?;
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
            annotations,
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
    async fn drop_own_link(self, repository: RepositoryKey, digest: Digest) {
        // The caller that pushed need not have the right to delete.
        match self.core.by_itself().propose(UnlinkBlob { repository, digest }).await {
            Ok(_) => {}
            Err(error) => warn!(%digest, %error, "a refused artifact's bytes stay linked"),
        }
    }

    /// Removes an artifact and every tag that names it; returns those tags.
    pub async fn delete(
        self,
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

    /// Writes down what was pulled since the last call; what cannot be written is forgotten, which makes nothing wrong but
    /// the age of some pulls.
    pub async fn write_pulls(self) -> Result<usize, Error> {
        let pulls = self.core.pulls().take();
        let count = pulls.len();
        for some in pulls.chunks(PULLS_NOTED_MAX) {
            self.core.by_itself().change(NotePulls { pulls: some.to_vec() }).await?;
        }
        Ok(count)
    }
}

/// Reads.
impl Artifacts<'_> {
    /// The artifact that a reference names now.
    pub async fn get(
        self,
        repository: &RepositoryKey,
        reference: &Reference,
    ) -> Result<Artifact, Error> {
        match reference {
            Reference::Digest(digest) => {
                let key = Key::Artifact(repository.clone(), *digest);
                if let Some(record) = record!(Artifact, self.core.immutable_row(key).await?) {
                    self.core.pulls().artifact(repository, *digest);
                    if let Some(found) = self.with_body(repository, *digest, record).await? {
                        return Ok(found);
                    }
                }
                Err(self.core.absent(repository, Error::ArtifactUnknown(*digest)).await)
            }
            Reference::Tag(tag) => self.get_tagged(repository, tag).await,
        }
    }

    /// The artifact that a tag names. Tag, artifact and body are reads of different moments: an artifact, or a body, that
    /// is gone at the later read was deleted in between, and the tag names another artifact by then, or nothing.
    async fn get_tagged(
        self,
        repository: &RepositoryKey,
        tag: &TagName,
    ) -> Result<Artifact, Error> {
        for _ in 0..RESOLVED_MAX {
            let digest = Tags::new(self.core).resolve(repository, tag).await?;
            let row = self.core.row(Key::Artifact(repository.clone(), digest)).await?;
            if let Some(record) = record!(Artifact, row)
                && let Some(found) = self.with_body(repository, digest, record).await?
            {
                self.core.pulls().artifact(repository, digest);
                self.core.pulls().tag(repository, tag);
                return Ok(found);
            }
        }
        let what = "the tag kept moving while the request ran";
        Err(Error::Unavailable { what, source: None })
    }

    /// Artifacts of the repository that name `subject`, after `after`, of one type if that is asked for. An unknown
    /// repository has none.
    pub async fn referrers(
        self,
        repository: &RepositoryKey,
        subject: Digest,
        artifact_type: Option<&MediaType>,
        after: Option<Digest>,
        limit: usize,
    ) -> Result<Page<Referrer>, Error> {
        self.core.catch_up().await?;
        let mut after = after;
        let mut found = Vec::new();
        while found.len() <= limit {
            let wanted = match artifact_type {
                None => limit + 1 - found.len(),
                Some(_) => FILTER_PAGE_ROWS,
            };
            let rows =
                Rows::Referrers { repository: repository.clone(), subject, after: after.take() };
            let rows = self.core.rows(rows, wanted).await?;
            let exhausted = rows.len() < wanted;
            for (key, record) in rows {
                if let (Key::Referrer(_, _, digest), Record::Referrer(row)) = (key, record) {
                    after = Some(digest);
                    if artifact_type.is_none() || row.artifact_type.as_ref() == artifact_type {
                        found.push(Referrer { digest, artifact_type: row.artifact_type });
                    }
                }
            }
            if exhausted {
                break;
            }
        }
        Ok(Page::cut(found, limit))
    }

    /// An artifact that a list named, which is no pull of it; `None` if it was deleted since. Reads no blob.
    pub async fn listed(
        self,
        repository: &RepositoryKey,
        digest: Digest,
    ) -> Result<Option<Listed>, Error> {
        let row = self.core.row(Key::Artifact(repository.clone(), digest)).await?;
        Ok(record!(Artifact, row).map(|record| {
            let ArtifactRecord { media_type, size, subject, body, annotations, .. } = record;
            let annotations = match body {
                Body::Inline(bytes) => Annotations::Within(bytes),
                Body::Blob => Annotations::Kept(annotations),
            };
            Listed { media_type, size, subject, annotations }
        }))
    }

    /// An artifact with its body; `None` if it was deleted since its record was read, and its body with it.
    async fn with_body(
        self,
        repository: &RepositoryKey,
        digest: Digest,
        record: ArtifactRecord,
    ) -> Result<Option<Artifact>, Error> {
        let ArtifactRecord { media_type, size, subject, blobs, children, .. } = record;
        let body = match record.body {
            Body::Inline(bytes) => ArtifactBody::Bytes(bytes),
            Body::Blob => match LinkedBlobs::new(self.core).open(repository, digest).await {
                Ok(open) => ArtifactBody::Blob(open),
                Err(Error::BlobUnknown(_) | Error::RepositoryUnknown) => return Ok(None),
                Err(error) => return Err(error),
            },
        };
        Ok(Some(Artifact { digest, media_type, size, subject, blobs, children, body }))
    }
}

impl Artifact {
    /// Its bytes in memory; artifacts are bounded by configuration, so this is too.
    pub async fn bytes(&self) -> Result<Bytes, Error> {
        match &self.body {
            ArtifactBody::Bytes(bytes) => Ok(bytes.clone()),
            ArtifactBody::Blob(blob) => {
                let stream = blob.clone().read(0..blob.size(), Delivery::Process);
                let capacity = usize::try_from(self.size).unwrap_or(0);
                let all = stream
                    .try_fold(BytesMut::with_capacity(capacity), async |mut all, part| {
                        all.extend_from_slice(&part);
                        Ok(all)
                    })
                    .await
                    .map_err(|source| Error::Internal {
                        what: "an artifact's body could not be read",
                        source: Some(source),
                    })?;
                Ok(all.freeze())
            }
        }
    }
}
