//! What consensus stores: positions, votes, memberships, log entries, snapshots' manifests.
//!
//! They have messages of their own instead of openraft's serde layout, so that a new version of openraft cannot change
//! what is on disk.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use nora_domain::Timestamp;
use nora_proto::raft::v1 as proto;
use openraft::vote::RaftLeaderId;
use openraft::{BasicNode, EntryPayload};
use prost::Message;

use super::DecodeError;
use crate::raft::{Entry, LeaderId, LogId, Membership, Proposal, StoredMembership, Vote};

/// A snapshot: what it covers and the files it consists of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// The last entry whose effect it holds.
    pub last_log_id: Option<LogId>,
    /// The membership as of that entry.
    pub membership: StoredMembership,
    /// Its files, by name.
    pub files: BTreeMap<String, FileSummary>,
}

/// A file of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSummary {
    /// Its size in bytes.
    pub size: u64,
    /// BLAKE3 over its bytes.
    pub hash: [u8; 32],
}

pub(crate) fn log_id_to_proto(log_id: &LogId) -> proto::LogId {
    proto::LogId {
        term: log_id.leader_id.term,
        node: log_id.leader_id.node_id,
        index: log_id.index,
    }
}

pub(crate) fn log_id_from_proto(m: &proto::LogId) -> LogId {
    LogId { leader_id: LeaderId::new(m.term, m.node), index: m.index }
}

/// The bytes of a position.
pub fn encode_log_id(log_id: &LogId) -> Vec<u8> {
    log_id_to_proto(log_id).encode_to_vec()
}

/// The position that these bytes say.
pub fn decode_log_id(bytes: &[u8]) -> Result<LogId, DecodeError> {
    Ok(log_id_from_proto(&proto::LogId::decode(bytes)?))
}

pub(crate) fn vote_to_proto(vote: &Vote) -> proto::Vote {
    proto::Vote {
        term: vote.leader_id.term,
        node: vote.leader_id.node_id,
        committed: vote.committed,
    }
}

pub(crate) fn vote_from_proto(m: &proto::Vote) -> Vote {
    Vote { leader_id: LeaderId::new(m.term, m.node), committed: m.committed }
}

/// The bytes of a vote.
pub fn encode_vote(vote: &Vote) -> Vec<u8> {
    vote_to_proto(vote).encode_to_vec()
}

/// The vote that these bytes say.
pub fn decode_vote(bytes: &[u8]) -> Result<Vote, DecodeError> {
    Ok(vote_from_proto(&proto::Vote::decode(bytes)?))
}

fn membership_to_proto(membership: &Membership) -> proto::Membership {
    proto::Membership {
        configs: membership
            .get_joint_config()
            .iter()
            .map(|voters| proto::Voters { nodes: voters.iter().copied().collect() })
            .collect(),
        members: membership
            .nodes()
            .map(|(node, at)| proto::Member { node: *node, address: at.addr.clone() })
            .collect(),
    }
}

fn membership_from_proto(m: proto::Membership) -> Result<Membership, DecodeError> {
    let configs: Vec<BTreeSet<u64>> =
        m.configs.into_iter().map(|voters| voters.nodes.into_iter().collect()).collect();
    let members: BTreeMap<u64, BasicNode> =
        m.members.into_iter().map(|member| (member.node, BasicNode::new(member.address))).collect();
    if configs.is_empty() && members.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, members).map_err(|_| DecodeError::Membership)
}

fn stored_membership_to_proto(stored: &StoredMembership) -> proto::StoredMembership {
    proto::StoredMembership {
        log_id: stored.log_id().as_ref().map(log_id_to_proto),
        membership: Some(membership_to_proto(stored.membership())),
    }
}

fn stored_membership_from_proto(
    m: proto::StoredMembership,
) -> Result<StoredMembership, DecodeError> {
    let membership = m.membership.ok_or(DecodeError::Unknown("membership"))?;
    Ok(StoredMembership::new(
        m.log_id.as_ref().map(log_id_from_proto),
        membership_from_proto(membership)?,
    ))
}

/// The bytes of a membership.
pub fn encode_membership(stored: &StoredMembership) -> Vec<u8> {
    stored_membership_to_proto(stored).encode_to_vec()
}

/// The membership that these bytes say.
pub fn decode_membership(bytes: &[u8]) -> Result<StoredMembership, DecodeError> {
    stored_membership_from_proto(proto::StoredMembership::decode(bytes)?)
}

pub(crate) fn entry_to_proto(entry: &Entry) -> proto::Entry {
    let payload = match &entry.payload {
        EntryPayload::Blank => proto::entry::Payload::Blank(proto::Blank {}),
        EntryPayload::Normal(proposal) => proto::entry::Payload::Command(proposal.command.clone()),
        EntryPayload::Membership(membership) => {
            proto::entry::Payload::Membership(membership_to_proto(membership))
        }
    };
    let at = match &entry.payload {
        EntryPayload::Normal(proposal) => proposal.at.0,
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    };
    proto::Entry { log_id: Some(log_id_to_proto(&entry.log_id)), payload: Some(payload), at }
}

/// The bytes of a log entry.
pub fn encode_entry(entry: &Entry) -> Vec<u8> {
    entry_to_proto(entry).encode_to_vec()
}

/// The log entry that these bytes say.
pub fn decode_entry(bytes: Bytes) -> Result<Entry, DecodeError> {
    entry_from_proto(proto::Entry::decode(bytes)?)
}

pub(crate) fn entry_from_proto(m: proto::Entry) -> Result<Entry, DecodeError> {
    let payload = match m.payload.ok_or(DecodeError::Unknown("entry.payload"))? {
        proto::entry::Payload::Blank(proto::Blank {}) => EntryPayload::Blank,
        proto::entry::Payload::Command(command) => {
            EntryPayload::Normal(Proposal { at: Timestamp(m.at), command })
        }
        proto::entry::Payload::Membership(membership) => {
            EntryPayload::Membership(membership_from_proto(membership)?)
        }
    };
    let log_id = m.log_id.as_ref().ok_or(DecodeError::Unknown("entry.log_id"))?;
    Ok(Entry { log_id: log_id_from_proto(log_id), payload })
}

pub(crate) fn manifest_to_proto(manifest: &Manifest) -> proto::SnapshotManifest {
    proto::SnapshotManifest {
        last_log_id: manifest.last_log_id.as_ref().map(log_id_to_proto),
        membership: Some(stored_membership_to_proto(&manifest.membership)),
        files: manifest
            .files
            .iter()
            .map(|(name, file)| proto::SnapshotFile {
                name: name.clone(),
                size: file.size,
                hash: file.hash.to_vec(),
            })
            .collect(),
    }
}

/// The bytes of a snapshot's manifest.
pub fn encode_manifest(manifest: &Manifest) -> Vec<u8> {
    manifest_to_proto(manifest).encode_to_vec()
}

/// The manifest that these bytes say.
pub fn decode_manifest(bytes: &[u8]) -> Result<Manifest, DecodeError> {
    manifest_from_proto(proto::SnapshotManifest::decode(bytes)?)
}

pub(crate) fn manifest_from_proto(m: proto::SnapshotManifest) -> Result<Manifest, DecodeError> {
    let mut files = BTreeMap::new();
    for file in m.files {
        let hash = file.hash.as_slice().try_into().map_err(|_| DecodeError::Length("file.hash"))?;
        files.insert(file.name, FileSummary { size: file.size, hash });
    }
    Ok(Manifest {
        last_log_id: m.last_log_id.as_ref().map(log_id_from_proto),
        membership: stored_membership_from_proto(
            m.membership.ok_or(DecodeError::Unknown("manifest.membership"))?,
        )?,
        files,
    })
}
