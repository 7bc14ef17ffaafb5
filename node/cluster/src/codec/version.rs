//! Versions' and files' records and commands.
//!
//! Facts that are in the record are copied as artifacts' bodies are: not on the way in, once on the way out.

use nora_domain::{
    DeleteFile, DeleteVersion, Expected, Facts, FileRecord, HashKind, NewFile, PutVersion,
    SetVersionState, VersionRecord, VersionState,
};
use nora_proto::command::v1::expected;
use nora_proto::record::v1::facts::Place;
use nora_proto::record::v1::version_state::State;
use nora_proto::{command::v1 as command, record::v1 as record};

use super::{Codec, DecodeError};

codes!(HashKind => record::HashKind { Md5, Sha1, Sha256, Sha512, Blake2b256 });
fields!(VersionRecord => record::Version { files, published_at, revision }
    required { state, facts });
fields!(FileRecord => record::File { size, hashes, uploaded_at } required { digest });

fields!(NewFile => command::NewFile { name, size, hashes } required { digest });
fields!(PutVersion => command::PutVersion { version, facts, files, tags }
    required { repository, expected });
fields!(SetVersionState => command::SetVersionState { version } required { repository, state });
fields!(DeleteVersion => command::DeleteVersion { version, tombstone } required { repository });
fields!(DeleteFile => command::DeleteFile { version, file } required { repository });

impl Codec for Facts {
    type Message = record::Facts;

    fn to_proto(&self) -> record::Facts {
        let place = match self {
            Self::Inline(bytes) => Place::Inline(bytes.clone()),
            Self::Blob(digest) => Place::Blob(digest.to_proto()),
        };
        record::Facts { place: Some(place) }
    }

    fn from_proto(message: record::Facts) -> Result<Self, DecodeError> {
        Ok(match message.place.ok_or(DecodeError::Unknown("Facts.place"))? {
            Place::Inline(bytes) => Self::Inline(bytes),
            Place::Blob(digest) => Self::Blob(Codec::from_proto(digest)?),
        })
    }
}

impl Codec for VersionState {
    type Message = record::VersionState;

    fn to_proto(&self) -> record::VersionState {
        let state = match self {
            Self::Live => State::Live(()),
            Self::Yanked(reason) => State::Yanked(record::Yanked { reason: reason.to_proto() }),
            Self::Deprecated(text) => State::Deprecated(text.to_proto()),
            Self::Tombstone => State::Tombstone(()),
        };
        record::VersionState { state: Some(state) }
    }

    fn from_proto(message: record::VersionState) -> Result<Self, DecodeError> {
        Ok(match message.state.ok_or(DecodeError::Unknown("VersionState.state"))? {
            State::Live(()) => Self::Live,
            State::Yanked(yanked) => Self::Yanked(Codec::from_proto(yanked.reason)?),
            State::Deprecated(text) => Self::Deprecated(text.into()),
            State::Tombstone(()) => Self::Tombstone,
        })
    }
}

impl Codec for Expected {
    type Message = command::Expected;

    fn to_proto(&self) -> command::Expected {
        let expected = match self {
            Self::Absent => expected::Expected::Absent(()),
            Self::Revision(revision) => expected::Expected::Revision(*revision),
            Self::Any => expected::Expected::Any(()),
        };
        command::Expected { expected: Some(expected) }
    }

    fn from_proto(message: command::Expected) -> Result<Self, DecodeError> {
        Ok(match message.expected.ok_or(DecodeError::Unknown("Expected.expected"))? {
            expected::Expected::Absent(()) => Self::Absent,
            expected::Expected::Revision(revision) => Self::Revision(revision),
            expected::Expected::Any(()) => Self::Any,
        })
    }
}

/// The domain does not promise the value's length, so none is refused here: a replica must read what the log holds.
impl Codec for (HashKind, Vec<u8>) {
    type Message = record::FileHash;

    fn to_proto(&self) -> record::FileHash {
        record::FileHash { kind: self.0.to_proto(), value: self.1.clone() }
    }

    fn from_proto(message: record::FileHash) -> Result<Self, DecodeError> {
        Ok((Codec::from_proto(message.kind)?, message.value))
    }
}
