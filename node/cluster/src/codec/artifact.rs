//! Artifacts' records and commands.
//!
//! A body that is in the record is not copied on its way in: it is a part of the received bytes. It is copied once on its
//! way out.

use nora_domain::{ArtifactRecord, Body, DeleteArtifact, PutArtifact, ReferrerRecord};
use nora_proto::record::v1::body::Place;
use nora_proto::{command::v1 as command, record::v1 as record};

use super::{Codec, DecodeError};

fields!(ArtifactRecord => record::Artifact {
    media_type,
    size,
    subject,
    artifact_type,
    annotations,
    blobs,
    children,
    pushed_at,
} required { body });
fields!(ReferrerRecord => record::Referrer { artifact_type });

fields!(PutArtifact => command::PutArtifact {
    media_type,
    size,
    subject,
    artifact_type,
    annotations,
    blobs,
    children,
    tags,
} required { repository, digest, body });
fields!(DeleteArtifact => command::DeleteArtifact {} required { repository, digest });

impl Codec for Body {
    type Message = record::Body;

    fn to_proto(&self) -> record::Body {
        let place = match self {
            Self::Inline(bytes) => Place::Inline(bytes.clone()),
            Self::Blob => Place::Blob(()),
        };
        record::Body { place: Some(place) }
    }

    fn from_proto(message: record::Body) -> Result<Self, DecodeError> {
        Ok(match message.place.ok_or(DecodeError::Unknown("Body.place"))? {
            Place::Inline(bytes) => Self::Inline(bytes),
            Place::Blob(()) => Self::Blob,
        })
    }
}
