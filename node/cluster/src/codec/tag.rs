//! Tags' records and commands.

use nora_domain::{
    DeleteTag, Item, NotePulls, PulledRecord, RepositoryKey, SetTag, TagRecord, Target,
};
use nora_proto::record::v1::{item, target};
use nora_proto::{command::v1 as command, record::v1 as record};

use super::{Codec, DecodeError, required};

fields!(TagRecord => record::Tag { moved_at } required { target });
fields!(PulledRecord => record::Pulled { at });

fields!(SetTag => command::SetTag { tag } required { repository, target });
fields!(DeleteTag => command::DeleteTag { tag } required { repository });
fields!(NotePulls => command::NotePulls { pulls });

impl Codec for Target {
    type Message = record::Target;

    fn to_proto(&self) -> record::Target {
        let kind = match self {
            Self::Artifact(digest) => target::Kind::Artifact(digest.to_proto()),
            Self::Version(version) => target::Kind::Version(version.to_proto()),
        };
        record::Target { kind: Some(kind) }
    }

    fn from_proto(message: record::Target) -> Result<Self, DecodeError> {
        Ok(match message.kind.ok_or(DecodeError::Unknown("Target.kind"))? {
            target::Kind::Artifact(digest) => Self::Artifact(Codec::from_proto(digest)?),
            target::Kind::Version(version) => Self::Version(Codec::from_proto(version)?),
        })
    }
}

impl Codec for Item {
    type Message = record::Item;

    fn to_proto(&self) -> record::Item {
        let kind = match self {
            Self::Artifact(digest) => item::Kind::Artifact(digest.to_proto()),
            Self::Tag(tag) => item::Kind::Tag(tag.to_proto()),
            Self::Version(version) => item::Kind::Version(version.to_proto()),
            Self::File(version, file) => item::Kind::File(record::FileName {
                version: version.to_proto(),
                file: file.to_proto(),
            }),
        };
        record::Item { kind: Some(kind) }
    }

    fn from_proto(message: record::Item) -> Result<Self, DecodeError> {
        Ok(match message.kind.ok_or(DecodeError::Unknown("Item.kind"))? {
            item::Kind::Artifact(digest) => Self::Artifact(Codec::from_proto(digest)?),
            item::Kind::Tag(tag) => Self::Tag(Codec::from_proto(tag)?),
            item::Kind::Version(version) => Self::Version(Codec::from_proto(version)?),
            item::Kind::File(record::FileName { version, file }) => {
                Self::File(Codec::from_proto(version)?, Codec::from_proto(file)?)
            }
        })
    }
}

impl Codec for (RepositoryKey, Item) {
    type Message = command::Pull;

    fn to_proto(&self) -> command::Pull {
        let (repository, item) = self;
        command::Pull { repository: Some(repository.to_proto()), item: Some(item.to_proto()) }
    }

    fn from_proto(message: command::Pull) -> Result<Self, DecodeError> {
        let repository = required(message.repository, "Pull.repository")?;
        Ok((repository, required(message.item, "Pull.item")?))
    }
}
