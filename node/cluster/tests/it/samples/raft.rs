//! Values of what consensus stores.

use std::collections::{BTreeMap, BTreeSet};

use nora_cluster::codec::raft::{FileSummary, Manifest};
use nora_cluster::raft::{Entry, LeaderId, LogId, Membership, Proposal, StoredMembership, Vote};
use nora_domain::Timestamp;
use openraft::vote::RaftLeaderId;
use openraft::{BasicNode, EntryPayload};

fn log_id(term: u64, node: u64, index: u64) -> LogId {
    LogId { leader_id: LeaderId::new(term, node), index }
}

pub fn log_ids() -> Vec<(String, LogId)> {
    vec![("first".to_owned(), log_id(0, 0, 0)), ("later".to_owned(), log_id(7, 3, u64::MAX))]
}

pub fn votes() -> Vec<(String, Vote)> {
    vec![
        ("asked".to_owned(), Vote { leader_id: LeaderId::new(1, 2), committed: false }),
        ("granted".to_owned(), Vote { leader_id: LeaderId::new(300, 2), committed: true }),
    ]
}

fn joint() -> Membership {
    let configs = vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([2, 3, 4])];
    let members: BTreeMap<u64, BasicNode> =
        (1..=5).map(|node| (node, BasicNode::new(format!("10.0.0.{node}:7700")))).collect();
    Membership::new(configs, members).unwrap()
}

fn one() -> Membership {
    let members = BTreeMap::from([(1, BasicNode::new("127.0.0.1:7700"))]);
    Membership::new(vec![BTreeSet::from([1])], members).unwrap()
}

pub fn memberships() -> Vec<(String, StoredMembership)> {
    vec![
        ("none".to_owned(), StoredMembership::default()),
        ("one".to_owned(), StoredMembership::new(Some(log_id(0, 0, 0)), one())),
        ("joint-with-learner".to_owned(), StoredMembership::new(Some(log_id(4, 1, 9)), joint())),
    ]
}

pub fn entries() -> Vec<(String, Entry)> {
    let command = vec![18, 2, 8, 1];
    vec![
        ("blank".to_owned(), Entry { log_id: log_id(1, 1, 1), payload: EntryPayload::Blank }),
        (
            "command".to_owned(),
            Entry {
                log_id: log_id(1, 1, 2),
                payload: EntryPayload::Normal(Proposal {
                    at: Timestamp(1_700_000_000_000),
                    command: command.into(),
                }),
            },
        ),
        (
            "membership".to_owned(),
            Entry { log_id: log_id(2, 1, 3), payload: EntryPayload::Membership(joint()) },
        ),
    ]
}

pub fn manifests() -> Vec<(String, Manifest)> {
    let file = FileSummary { size: 4096, hash: [0xee; 32] };
    vec![(
        "snapshot".to_owned(),
        Manifest {
            last_log_id: Some(log_id(2, 1, 100)),
            membership: StoredMembership::new(Some(log_id(0, 0, 0)), one()),
            files: BTreeMap::from([("000012.sst".to_owned(), file), ("CURRENT".to_owned(), file)]),
        },
    )]
}
