//! openraft's storage, as NORA has it.
//!
//! Must not know: use cases, HTTP, blobs. openraft's types stay inside this crate.

pub mod catch_up;
pub mod chain;
pub mod covered;
pub mod flusher;
pub mod log_store;
pub mod overlay;
pub mod recovery;
pub mod snapshot;
pub mod state_machine;
pub mod synced;
pub mod tail;

use std::fmt;

use bytes::Bytes;
use nora_domain::{Outcome, Refusal, Timestamp};
use openraft::{BasicNode, EntryPayload};

openraft::declare_raft_types!(
    /// The types that openraft is used with.
    pub TypeConfig:
        D = Proposal,
        R = Reply,
        NodeId = u64,
        Node = BasicNode,
);

/// A leader: a term and a node.
pub type LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, u64>;
/// A position in the log.
pub type LogId = openraft::LogId<LeaderId>;
/// A vote.
pub type Vote = openraft::Vote<LeaderId>;
/// A log entry.
pub type Entry = openraft::Entry<LeaderId, EntryPayload<Proposal, u64, BasicNode>>;
/// Who takes part.
pub type Membership = openraft::Membership<u64, BasicNode>;
/// A membership and the entry that made it so.
pub type StoredMembership = openraft::StoredMembership<LeaderId, u64, BasicNode>;
/// What a snapshot covers.
pub type SnapshotMeta = openraft::SnapshotMeta<LeaderId, u64, BasicNode>;
/// A snapshot that can be read.
pub type Snapshot = openraft::Snapshot<LeaderId, u64, BasicNode, snapshot::SnapshotHandle>;

/// A command on its way through the log: encoded once, by whoever proposes it.
#[derive(Clone, PartialEq, Eq)]
pub struct Proposal {
    /// The leader's time when it wrote the command into the log. A proposer gives none: one whose clock is wrong must not
    /// move the cluster's clock, by which pins and tokens expire.
    pub at: Timestamp,
    /// The command, encoded.
    pub command: Bytes,
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command of {} bytes", self.command.len())
    }
}

/// What an applied entry answers: nothing, unless it was a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply(pub Option<Result<Outcome, Refusal>>);
