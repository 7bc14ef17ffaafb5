//! Reading artifacts, by tag or by digest.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use nora_domain::record::{ArtifactRecord, Body, Key, Record};
use nora_domain::{Digest, MediaType, Reference, RepositoryKey, TagName};

use crate::ports::blobs::{Delivery, OpenBlob};
use crate::{Error, Registry};

/// An artifact that was found.
pub struct Artifact {
    /// Its digest.
    pub digest: Digest,
    /// The media type it was pushed with.
    pub media_type: MediaType,
    /// Its size in bytes.
    pub size: u64,
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
        let (digest, found) = match reference {
            Reference::Digest(digest) => {
                (*digest, self.get_immutable(Key::Artifact(repository.clone(), *digest)).await?)
            }
            Reference::Tag(tag) => {
                let digest = self.resolve(repository, tag).await?;
                (digest, self.metadata.get(Key::Artifact(repository.clone(), digest)).await?)
            }
        };
        match found {
            Some(Record::Artifact(record)) => self.with_body(repository, digest, record).await,
            Some(other) => Err(Self::wrong_record(&other)),
            None => Err(self.absent(repository, Error::ArtifactUnknown(digest)).await),
        }
    }

    /// The digest that a tag names: every move acknowledged before the call is seen.
    pub async fn resolve(
        &self,
        repository: &RepositoryKey,
        tag: &TagName,
    ) -> Result<Digest, Error> {
        self.metadata.linearize().await?;
        match self.metadata.get(Key::Tag(repository.clone(), tag.clone())).await? {
            Some(Record::Tag(record)) => Ok(record.digest),
            Some(other) => Err(Self::wrong_record(&other)),
            None => Err(self.absent(repository, Error::TagUnknown(tag.clone())).await),
        }
    }

    pub(super) async fn with_body(
        &self,
        repository: &RepositoryKey,
        digest: Digest,
        record: ArtifactRecord,
    ) -> Result<Artifact, Error> {
        let ArtifactRecord { media_type, size, blobs, children, .. } = record;
        let body = match record.body {
            Body::Inline(bytes) => ArtifactBody::Bytes(Bytes::from(bytes)),
            Body::Blob => ArtifactBody::Blob(self.open_blob(repository, digest).await?),
        };
        Ok(Artifact { digest, media_type, size, blobs, children, body })
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
