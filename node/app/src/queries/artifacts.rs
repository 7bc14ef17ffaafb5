//! Reading artifacts, by tag or by digest.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use nora_domain::{
    ArtifactRecord, Body, Digest, Key, MediaType, Record, Reference, RepositoryKey, TagName,
};

use crate::blobs::LinkedBlobs;
use crate::ports::blobs::{Delivery, OpenBlob};
use crate::tags::Tags;
use crate::{Error, Registry};

/// How often a tag is resolved anew because its artifact went in between.
const RESOLVED_MAX: usize = 16;

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

impl Registry {
    /// The artifact that a reference names now.
    pub async fn artifact(
        &self,
        repository: &RepositoryKey,
        reference: &Reference,
    ) -> Result<Artifact, Error> {
        match reference {
            Reference::Digest(digest) => {
                let key = Key::Artifact(repository.clone(), *digest);
                match self.core.immutable_row(key).await? {
                    Some(Record::Artifact(record)) => {
                        self.core.pulls().artifact(repository, *digest);
                        if let Some(found) = self.with_body(repository, *digest, record).await? {
                            return Ok(found);
                        }
                    }
                    Some(other) => return Err(Error::wrong_record(&other)),
                    None => {}
                }
                Err(self.core.absent(repository, Error::ArtifactUnknown(*digest)).await)
            }
            Reference::Tag(tag) => self.tagged_artifact(repository, tag).await,
        }
    }

    /// The artifact that a tag names. Tag, artifact and body are reads of different moments: an artifact, or a body, that
    /// is gone at the later read was deleted in between, and the tag names another artifact by then, or nothing.
    async fn tagged_artifact(
        &self,
        repository: &RepositoryKey,
        tag: &TagName,
    ) -> Result<Artifact, Error> {
        for _ in 0..RESOLVED_MAX {
            let digest = Tags::new(&self.core).resolve(repository, tag).await?;
            match self.core.row(Key::Artifact(repository.clone(), digest)).await? {
                Some(Record::Artifact(record)) => {
                    if let Some(found) = self.with_body(repository, digest, record).await? {
                        self.core.pulls().artifact(repository, digest);
                        self.core.pulls().tag(repository, tag);
                        return Ok(found);
                    }
                }
                Some(other) => return Err(Error::wrong_record(&other)),
                None => {}
            }
        }
        let what = "the tag kept moving while the request ran";
        Err(Error::Unavailable { what, source: None })
    }

    /// An artifact with its body; `None` if it was deleted since its record was read, and its body with it.
    pub(super) async fn with_body(
        &self,
        repository: &RepositoryKey,
        digest: Digest,
        record: ArtifactRecord,
    ) -> Result<Option<Artifact>, Error> {
        let ArtifactRecord { media_type, size, subject, blobs, children, .. } = record;
        let body = match record.body {
            Body::Inline(bytes) => ArtifactBody::Bytes(bytes),
            Body::Blob => match LinkedBlobs::new(&self.core).open(repository, digest).await {
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
