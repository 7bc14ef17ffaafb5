//! The journal: everything that happened, in the order of the log, chained by hash.
//!
//! One [`Entry`] stands for one command that changed something, or that was refused to a caller who asked for it. It says
//! when, on whose behalf, with what result, and which [`Event`]s it caused. Entries hold codes: words are made when an
//! entry is read, so that a release with other words computes the same rows. The newest part of the journal is rows of the
//! state; older parts are sealed into segments, which are ordinary blobs of [`system_repository`].

mod actor;
mod chain;
mod event;
mod reason;
mod transition;
mod verb;

pub use actor::{Actor, Subject};
pub use event::Event;
pub use reason::{Reason, Verdict};
pub use verb::{About, Deed, Verb};

use crate::digest::Digest;
use crate::names::{ConsumerName, Format, RepositoryKey, RepositoryPath, TenantName};
use crate::time::Timestamp;

/// Where the journal begins and ends; it changes with every entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalHead {
    /// Number of the first entry that is a row of the state; entries count from 1.
    pub first: u64,
    /// Number of the next entry.
    pub next: u64,
    /// The chain's value before the first entry that is a row.
    pub anchor: [u8; 32],
    /// The chain's value after the last entry.
    pub head: [u8; 32],
    /// About how many bytes the rows take: [`Entry::weight`] summed.
    pub bytes: u64,
}

impl Default for JournalHead {
    fn default() -> Self {
        Self { first: 1, next: 1, anchor: [0; 32], head: [0; 32], bytes: 0 }
    }
}

/// Something that happened. Its number is its row's key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Log position of the command.
    pub position: u64,
    /// The cluster's time.
    pub at: Timestamp,
    /// Who asked for it; `None` is the cluster itself.
    pub by: Option<Actor>,
    /// What was asked for; `None` if the cluster itself did what no caller asks for.
    pub deed: Option<Deed>,
    /// What came of it.
    pub verdict: Verdict,
    /// How many times, for refusals that were counted together.
    pub count: u32,
    /// What changed; empty if it was refused.
    pub events: Vec<Event>,
    /// The chain's value after this entry.
    pub chain: [u8; 32],
}

/// A sealed part of the journal; its key is the number of its first entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentRecord {
    /// Number of its last entry.
    pub last: u64,
    /// The chain's value before its first entry.
    pub anchor: [u8; 32],
    /// The chain's value after its last entry.
    pub head: [u8; 32],
    /// The time of its last entry.
    pub last_at: Timestamp,
    /// The blob that holds it.
    pub digest: Digest,
    /// That blob's size in bytes.
    pub size: u64,
}

/// How far a consumer has read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CursorRecord {
    /// Number of the last entry that it has dealt with.
    pub number: u64,
    /// When it said so.
    pub noted_at: Timestamp,
}

/// A refusal that never became a command, because the policy or a limit was in its way on the node that was asked; or a
/// change that is made of several commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusalNote {
    /// Who asked.
    pub actor: Actor,
    /// For what.
    pub deed: Deed,
    /// What came of it.
    pub verdict: Verdict,
    /// How many times.
    pub count: u32,
}

/// Note refusals that never became commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteRefusals {
    /// What was refused.
    pub refusals: Vec<RefusalNote>,
}

/// A consumer has dealt with every entry up to this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdvanceCursor {
    /// The consumer.
    pub consumer: ConsumerName,
    /// The entry's number. An earlier one than is known changes nothing.
    pub number: u64,
}

/// A consumer is gone for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoveCursor {
    /// The consumer.
    pub consumer: ConsumerName,
}

/// The oldest entries are in a blob of [`system_repository`]: their rows leave the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealJournal {
    /// Number of the first entry in the blob: refused if the rows begin elsewhere.
    pub first: u64,
    /// Number of the last one; at most [`SealJournal::ENTRIES_MAX`] entries.
    pub last: u64,
    /// The blob.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

impl SealJournal {
    /// Entries that one segment holds: what bounds the work of the command.
    pub const ENTRIES_MAX: u64 = 2_048;
}

/// Forget sealed entries from before a time, a few segments a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropSegments {
    /// Segments whose last entry is older than this, counted back from the cluster's clock, go.
    pub older_than_millis: u64,
}

/// What a step of forgetting did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentsDropped {
    /// How many segments went.
    pub dropped: u32,
    /// Whether there may be more.
    pub more: bool,
}

/// The repository of the cluster's own blobs, as sealed parts of the journal. No name that a client can write is in it.
pub fn system_repository() -> RepositoryKey {
    RepositoryKey {
        tenant: TenantName::system(),
        format: Format::Oci,
        path: RepositoryPath::parse("journal").unwrap_or_else(|_| RepositoryPath::lowest()),
    }
}
