//! The state machine of the simulation: the real transition, and the bugs that concern it.

use nora_domain::{
    Action, AdmitNode, Applied, ClusterRecord, Command, CommitBlob, FeatureLevel, Key, MemoryStore,
    NodeId, NodeRecord, Outcome, Record, Standing, StartNode, Store, Timestamp, TokenId, apply,
};

use super::bug::Bug;

/// Applies a command as the cluster does, with a bug or without.
pub fn step(
    state: &mut MemoryStore,
    position: u64,
    command: &Command,
    bug: Option<Bug>,
) -> Applied {
    let mut command = command.clone();
    let mut restored = None;
    match (bug, &mut command.action) {
        (Some(Bug::DedupeOff), _) => command.origin = None,
        (Some(Bug::EpochFenceOff), Action::CommitBlob(CommitBlob { generation, node, .. })) => {
            if let Some(record) = node_record(state, *node)
                && generation.epoch != record.epoch
            {
                generation.epoch = record.epoch;
                command.origin = None;
            }
        }
        (Some(Bug::ReusedNodeId), Action::AdmitNode(AdmitNode { .. })) => {
            let before = cluster_record(state);
            let last = node_record(state, before.last_node);
            if last.is_some_and(|last| last.standing == Standing::Removed) {
                let mut cluster = before.clone();
                cluster.last_node.0 -= 1;
                put(state, Key::Cluster, Record::Cluster(cluster));
                let applied = run(state, position, &command);
                if applied.answer.is_err() {
                    put(state, Key::Cluster, Record::Cluster(before));
                }
                return applied;
            }
        }
        (Some(Bug::RemovedComesBack), Action::StartNode(StartNode { node, .. })) => {
            if let Some(mut record) = node_record(state, *node)
                && record.standing == Standing::Removed
            {
                record.standing = Standing::Away;
                put(state, Key::Node(*node), Record::Node(record));
            }
        }
        (Some(Bug::TokenAfterExpiry), Action::AdmitNode(AdmitNode { token, .. })) => {
            if let Some(Record::JoinToken(mut record)) = get(state, &Key::JoinToken(*token)) {
                restored = Some((*token, record.expires_at));
                record.expires_at = Timestamp(u64::MAX);
                put(state, Key::JoinToken(*token), Record::JoinToken(record));
            }
        }
        (Some(Bug::FeatureLevelIgnored), Action::AdmitNode(AdmitNode { profile, .. })) => {
            // What it understands is overlooked, not changed: it is set back below.
            let understood = profile.feature_max;
            profile.feature_max = FeatureLevel::NEWEST;
            let applied = run(state, position, &command);
            if let Ok(Outcome::AdmitNode(node)) = &applied.answer
                && let Some(mut record) = node_record(state, *node)
            {
                record.profile.feature_max = understood;
                put(state, Key::Node(*node), Record::Node(record));
            }
            return applied;
        }
        _ => {}
    }
    let applied = run(state, position, &command);
    if let Some((token, expires_at)) = restored {
        restore(state, token, expires_at);
    }
    applied
}

fn restore(state: &mut MemoryStore, token: TokenId, expires_at: Timestamp) {
    if let Some(Record::JoinToken(mut record)) = get(state, &Key::JoinToken(token)) {
        record.expires_at = expires_at;
        put(state, Key::JoinToken(token), Record::JoinToken(record));
    }
}

fn run(state: &mut MemoryStore, position: u64, command: &Command) -> Applied {
    match apply(state, position, command) {
        Ok(applied) => applied,
        Err(never) => match never {},
    }
}

/// A row of the state.
pub fn get(state: &MemoryStore, key: &Key) -> Option<Record> {
    match state.get(key) {
        Ok(record) => record,
        Err(never) => match never {},
    }
}

fn put(state: &mut MemoryStore, key: Key, record: Record) {
    match state.put(key, record) {
        Ok(()) => {}
        Err(never) => match never {},
    }
}

/// A node's row.
pub fn node_record(state: &MemoryStore, node: NodeId) -> Option<NodeRecord> {
    match get(state, &Key::Node(node)) {
        Some(Record::Node(record)) => Some(record),
        _ => None,
    }
}

/// The cluster's row.
pub fn cluster_record(state: &MemoryStore) -> ClusterRecord {
    match get(state, &Key::Cluster) {
        Some(Record::Cluster(record)) => record,
        _ => ClusterRecord::default(),
    }
}

/// The state without the sessions, as a snapshot that forgets them has it.
pub fn without_sessions(state: &MemoryStore) -> MemoryStore {
    let mut rest = state.clone();
    rest.head_mut().sessions.clear();
    rest
}
