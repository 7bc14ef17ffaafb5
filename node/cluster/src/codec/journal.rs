//! The journal's records and commands, and the form of its sealed parts.
//!
//! A sealed part is a header and one LZ4 block. The header has the mark `NORJ`, one byte for the version of the form,
//! and the block's unpacked length, as four bytes with the most significant first. Unpacked, the block is
//! `NumberedEntry` messages, each with its length before it.
//!
//! Guarantee: unpacking takes at most [`SEGMENT_BYTES_MAX`] bytes, whatever the header claims.

use nora_domain::{
    About, Actor, AdvanceCursor, CursorRecord, Deed, DropSegments, Entry, Event, JournalHead,
    NoteRefusals, Reason, RefusalNote, RemoveCursor, SealJournal, SegmentRecord, Subject, Verb,
    Verdict,
};
use nora_proto::record::v1::{about, event, reason, subject, verdict};
use nora_proto::{command::v1 as command, record::v1 as record};
use prost::Message;

use super::{Codec, DecodeError, required};

/// What every sealed part begins with.
const MARK: [u8; 4] = *b"NORJ";
/// The version of the form that this program writes.
const VERSION: u8 = 1;
const HEADER_BYTES: usize = MARK.len() + 1 + 4;
/// One byte of an LZ4 block unpacks to at most this many.
const RATIO_MAX: usize = 255;
/// The most bytes that a sealed part has when it is unpacked. The decoder refuses larger parts, so the sealer must end
/// a part before that.
pub const SEGMENT_BYTES_MAX: usize = 256 << 20;

/// The bytes of a sealed part of the journal: entries with their numbers.
pub fn encode_segment(entries: &[(u64, Entry)]) -> Vec<u8> {
    let mut unpacked = Vec::new();
    for (number, entry) in entries {
        let message = record::NumberedEntry { number: *number, entry: Some(entry.to_proto()) };
        unpacked.reserve(message.encoded_len() + 10);
        // Writing to a vector cannot run out of room.
        let _ = message.encode_length_delimited(&mut unpacked);
    }
    let block = lz4_flex::block::compress(&unpacked);
    let length = u32::try_from(unpacked.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(HEADER_BYTES + block.len());
    bytes.extend(MARK);
    bytes.push(VERSION);
    bytes.extend(length.to_be_bytes());
    bytes.extend(block);
    bytes
}

/// The entries of a sealed part of the journal.
pub fn decode_segment(bytes: &[u8]) -> Result<Vec<(u64, Entry)>, DecodeError> {
    let rest = bytes.strip_prefix(&MARK).ok_or(DecodeError::Segment("its mark is missing"))?;
    let (version, rest) = rest.split_first().ok_or(DecodeError::Segment("it is cut short"))?;
    if *version != VERSION {
        return Err(DecodeError::Segment("it is of a version that this program does not know"));
    }
    let (length, block) =
        rest.split_first_chunk::<4>().ok_or(DecodeError::Segment("it is cut short"))?;
    let length = u32::from_be_bytes(*length) as usize;
    if length > SEGMENT_BYTES_MAX || length > block.len().saturating_mul(RATIO_MAX) {
        return Err(DecodeError::Segment("it claims to be larger than it can be"));
    }
    let unpacked = lz4_flex::block::decompress(block, length)
        .map_err(|_| DecodeError::Segment("it does not unpack"))?;
    if unpacked.len() != length {
        return Err(DecodeError::Segment("its length is not the one that it claims"));
    }
    let mut rest = unpacked.as_slice();
    let mut entries = Vec::new();
    while !rest.is_empty() {
        if entries.len() as u64 == SealJournal::ENTRIES_MAX {
            return Err(DecodeError::Segment("it has too many entries"));
        }
        let message = record::NumberedEntry::decode_length_delimited(&mut rest)?;
        entries.push((message.number, required(message.entry, "NumberedEntry.entry")?));
    }
    Ok(entries)
}

fields!(JournalHead => record::JournalHead { first, next, anchor, head, bytes });
fields!(Entry => record::Entry { position, at, by, deed, count, events, chain }
    required { verdict });
fields!(SegmentRecord => record::Segment { last, anchor, head, last_at, size }
    required { digest });
fields!(CursorRecord => record::Cursor { number, noted_at });
fields!(Actor => record::Actor { token, address, request } required { subject });
fields!(Deed => record::Deed { verb } required { about });

fields!(NoteRefusals => command::NoteRefusals { refusals });
fields!(RefusalNote => command::RefusalNote { count } required { actor, deed, verdict });
fields!(AdvanceCursor => command::AdvanceCursor { consumer, number });
fields!(RemoveCursor => command::RemoveCursor { consumer });
fields!(SealJournal => command::SealJournal { first, last, size } required { digest });
fields!(DropSegments => command::DropSegments { older_than_millis });

impl Codec for Subject {
    type Message = record::Subject;

    fn to_proto(&self) -> record::Subject {
        use subject::Who;
        let who = match self {
            Self::Anonymous => Who::Anonymous(()),
            Self::Unknown => Who::Unknown(()),
            Self::Administrator => Who::Administrator(()),
            Self::User(name) => Who::User(name.to_proto()),
            Self::Robot(name) => Who::Robot(name.to_proto()),
            Self::Workload { provider, subject } => Who::Workload(subject::Workload {
                provider: provider.to_proto(),
                subject: subject.to_proto(),
            }),
            Self::Configuration => Who::Configuration(()),
            Self::Node(node) => Who::Node(node.0),
            Self::Several => Who::Several(()),
            Self::Anyone => Who::Anyone(()),
        };
        record::Subject { who: Some(who) }
    }

    fn from_proto(message: record::Subject) -> Result<Self, DecodeError> {
        use subject::Who;
        Ok(match message.who.ok_or(DecodeError::Unknown("Subject.who"))? {
            Who::Anonymous(()) => Self::Anonymous,
            Who::Unknown(()) => Self::Unknown,
            Who::Administrator(()) => Self::Administrator,
            Who::User(name) => Self::User(name.into()),
            Who::Robot(name) => Self::Robot(name.into()),
            Who::Workload(subject::Workload { provider, subject }) => {
                Self::Workload { provider: provider.into(), subject: subject.into() }
            }
            Who::Configuration(()) => Self::Configuration,
            Who::Node(node) => Self::Node(Codec::from_proto(node)?),
            Who::Several(()) => Self::Several,
            Who::Anyone(()) => Self::Anyone,
        })
    }
}

impl Codec for Verb {
    type Message = u32;

    fn to_proto(&self) -> u32 {
        self.code()
    }

    fn from_proto(code: u32) -> Result<Self, DecodeError> {
        Self::from_code(code).ok_or(DecodeError::Unknown("Deed.verb"))
    }
}

impl Codec for Reason {
    type Message = record::Reason;

    fn to_proto(&self) -> record::Reason {
        let reason = match self {
            Self::Words(words) => reason::Reason::Words(words.to_proto()),
            other => reason::Reason::Code(other.code()),
        };
        record::Reason { reason: Some(reason) }
    }

    fn from_proto(message: record::Reason) -> Result<Self, DecodeError> {
        match message.reason.ok_or(DecodeError::Unknown("Reason.reason"))? {
            reason::Reason::Words(words) => Ok(Self::Words(words.into())),
            reason::Reason::Code(code) => {
                Self::from_code(code).ok_or(DecodeError::Unknown("Reason.code"))
            }
        }
    }
}

impl Codec for Verdict {
    type Message = record::Verdict;

    fn to_proto(&self) -> record::Verdict {
        use verdict::Verdict as To;
        let verdict = match self {
            Self::Done => To::Done(()),
            Self::Asked => To::Asked(()),
            Self::Refused(reason) => To::Refused(reason.to_proto()),
            Self::Failed(reason) => To::Failed(reason.to_proto()),
        };
        record::Verdict { verdict: Some(verdict) }
    }

    fn from_proto(message: record::Verdict) -> Result<Self, DecodeError> {
        use verdict::Verdict as From;
        Ok(match message.verdict.ok_or(DecodeError::Unknown("Verdict.verdict"))? {
            From::Done(()) => Self::Done,
            From::Asked(()) => Self::Asked,
            From::Refused(reason) => Self::Refused(Codec::from_proto(reason)?),
            From::Failed(reason) => Self::Failed(Codec::from_proto(reason)?),
        })
    }
}

impl Codec for About {
    type Message = record::About;

    fn to_proto(&self) -> record::About {
        use about::What;
        let what = match self {
            Self::Registry => What::Registry(()),
            Self::Repository(repository) => What::Repository(repository.to_proto()),
            Self::Content(repository, digest) => What::Content(about::Content {
                repository: Some(repository.to_proto()),
                digest: Some(digest.to_proto()),
            }),
            Self::Tagged(repository, digest, tags) => What::Tagged(about::Tagged {
                repository: Some(repository.to_proto()),
                digest: Some(digest.to_proto()),
                tags: tags.to_proto(),
            }),
            Self::Tag(repository, tag) => What::Tag(about::Tag {
                repository: Some(repository.to_proto()),
                tag: tag.to_proto(),
            }),
            Self::Version(repository, version) => What::Version(about::Version {
                repository: Some(repository.to_proto()),
                version: version.to_proto(),
            }),
            Self::File(repository, version, file) => What::File(about::File {
                repository: Some(repository.to_proto()),
                version: version.to_proto(),
                file: file.to_proto(),
            }),
            Self::Policy => What::Policy(()),
            Self::Account(account) => What::Account(account.to_proto()),
            Self::NamedToken(owner, name) => What::NamedToken(about::NamedToken {
                owner: owner.to_proto(),
                name: name.to_proto(),
            }),
            Self::Token(token) => What::Token(token.to_proto()),
            Self::JoinToken => What::JoinToken(()),
            Self::Node(node) => What::Node(node.0),
            Self::Cluster => What::Cluster(()),
            Self::Words(words) => What::Words(words.to_proto()),
            Self::Session(owner, token) => {
                What::Session(about::Session { owner: owner.to_proto(), token: token.to_proto() })
            }
        };
        record::About { what: Some(what) }
    }

    fn from_proto(message: record::About) -> Result<Self, DecodeError> {
        use about::What;
        const REPOSITORY: &str = "About.repository";
        const DIGEST: &str = "About.digest";
        Ok(match message.what.ok_or(DecodeError::Unknown("About.what"))? {
            What::Registry(()) => Self::Registry,
            What::Repository(repository) => Self::Repository(Codec::from_proto(repository)?),
            What::Content(m) => {
                Self::Content(required(m.repository, REPOSITORY)?, required(m.digest, DIGEST)?)
            }
            What::Tagged(m) => Self::Tagged(
                required(m.repository, REPOSITORY)?,
                required(m.digest, DIGEST)?,
                Codec::from_proto(m.tags)?,
            ),
            What::Tag(m) => {
                Self::Tag(required(m.repository, REPOSITORY)?, Codec::from_proto(m.tag)?)
            }
            What::Version(m) => {
                Self::Version(required(m.repository, REPOSITORY)?, Codec::from_proto(m.version)?)
            }
            What::File(m) => Self::File(
                required(m.repository, REPOSITORY)?,
                Codec::from_proto(m.version)?,
                Codec::from_proto(m.file)?,
            ),
            What::Policy(()) => Self::Policy,
            What::Account(account) => Self::Account(Codec::from_proto(account)?),
            What::NamedToken(m) => Self::NamedToken(m.owner.into(), m.name.into()),
            What::Token(token) => Self::Token(Codec::from_proto(token)?),
            What::JoinToken(()) => Self::JoinToken,
            What::Node(node) => Self::Node(Codec::from_proto(node)?),
            What::Cluster(()) => Self::Cluster,
            What::Words(words) => Self::Words(words.into()),
            What::Session(m) => Self::Session(m.owner.into(), Codec::from_proto(m.token)?),
        })
    }
}

/// Every event is a variant of the message's `kind`, of the same name, and its fields have the same names there.
macro_rules! events {
    ($($name:ident { $($field:ident),* } { $($part:ident),* },)*) => {
        impl Codec for Event {
            type Message = record::Event;

            fn to_proto(&self) -> record::Event {
                let kind = match self {
                    $(Self::$name { $($field,)* $($part,)* } => event::Kind::$name(event::$name {
                        $($field: Codec::to_proto($field),)*
                        $($part: Some(Codec::to_proto($part)),)*
                    }),)*
                    Self::IdentityChanged => event::Kind::IdentityChanged(()),
                };
                record::Event { kind: Some(kind) }
            }

            fn from_proto(message: record::Event) -> Result<Self, DecodeError> {
                Ok(match message.kind.ok_or(DecodeError::Unknown("Event.kind"))? {
                    $(event::Kind::$name(message) => Self::$name {
                        $($field: Codec::from_proto(message.$field)?,)*
                        $($part: required(
                            message.$part,
                            concat!(stringify!($name), ".", stringify!($part)),
                        )?,)*
                    },)*
                    event::Kind::IdentityChanged(()) => Self::IdentityChanged,
                })
            }
        }
    };
}

// First the fields, then those that are messages of their own and must be there.
events! {
    RepositoryCreated {} { repository },
    RepositoryRemoved {} { repository },
    BlobLinked { size } { repository, digest },
    BlobUnlinked {} { repository, digest },
    ArtifactPushed { media_type, size } { repository, digest },
    ArtifactDeleted {} { repository, digest },
    TagMoved { tag, from } { repository, to },
    TagDeleted { tag } { repository, target },
    VersionPublished { version, created } { repository },
    VersionStateChanged { version } { repository },
    VersionDeleted { version } { repository },
    FilePublished { version, file, size } { repository, digest },
    FileDeleted { version, file } { repository },
    BlobPlaced {} { digest },
    NodeChanged { node } {},
    FeatureLevelRaised { level } {},
    ReplicasChanged { replicas } {},
    JournalSealed { first, last } {},
    JournalDropped { first } {},
}
