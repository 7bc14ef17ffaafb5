//! How a node stands, for people and gauges.

use std::collections::BTreeMap;
use std::time::Duration;

use nora_domain::NodeId;
use openraft::{Instant, RaftMetrics};

use crate::clock::ClockStatus;
use crate::members::Differences;
use crate::raft::TypeConfig;

/// How a node stands in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterStatus {
    /// This node.
    pub node: NodeId,
    /// The leader, if there is one.
    pub leader: Option<NodeId>,
    /// The Raft term.
    pub term: u64,
    /// Voters, in order.
    pub voters: Vec<NodeId>,
    /// Whether a change of the voters has begun and is not finished. Then majorities of the old and of the new voters must
    /// agree.
    pub is_joint: bool,
    /// Members that get the log and do not vote, in order.
    pub learners: Vec<NodeId>,
    /// How far other members have come; only the leader knows, elsewhere it is empty.
    pub replication: BTreeMap<NodeId, Replication>,
    /// Position of the last entry in the log.
    pub log_index: Option<u64>,
    /// Position of the last entry applied.
    pub applied_index: Option<u64>,
    /// Position up to which the current snapshot goes.
    pub snapshot_index: Option<u64>,
    /// Position up to which the log was cut.
    pub purged_index: Option<u64>,
    /// Members whose state is not the leader's, and the entry after which it differs; only the leader knows.
    pub diverged: BTreeMap<NodeId, u64>,
    /// How often this node, leading, found such a member since it started.
    pub differences: u64,
    /// Whether proposals and linearizable reads can be answered.
    pub ready: bool,
    /// How the clocks stand.
    pub clock: ClockStatus,
}

/// How far a member has come, as its leader sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replication {
    /// Position of the last entry that it is known to have.
    pub matched_index: Option<u64>,
    /// Entries of the leader's log that it is not known to have.
    pub lag_entries: u64,
    /// How long ago it last answered the leader; none if it never did.
    pub heard: Option<Duration>,
}

/// What the stores use, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreUsage {
    /// Block cache.
    pub cache_bytes: u64,
    /// Write buffers.
    pub write_buffer_bytes: u64,
    /// Open tables, outside the cache.
    pub table_reader_bytes: u64,
    /// The log's tables on disk.
    pub log_disk_bytes: u64,
    /// The state's tables on disk.
    pub state_disk_bytes: u64,
}

impl ClusterStatus {
    pub(crate) fn of(
        node: NodeId,
        metrics: &RaftMetrics<TypeConfig>,
        differences: Differences,
        closed: bool,
        clock: ClockStatus,
    ) -> Self {
        let membership = metrics.membership_config.membership();
        Self {
            node,
            leader: metrics.current_leader.map(NodeId),
            term: metrics.current_term,
            voters: membership.voter_ids().map(NodeId).collect(),
            is_joint: membership.get_joint_config().len() > 1,
            learners: membership.learner_ids().map(NodeId).collect(),
            replication: replication(node, metrics),
            log_index: metrics.last_log_index,
            applied_index: metrics.last_applied.as_ref().map(|log_id| log_id.index),
            snapshot_index: metrics.snapshot.as_ref().map(|log_id| log_id.index),
            purged_index: metrics.purged.as_ref().map(|log_id| log_id.index),
            diverged: differences.members,
            differences: differences.found,
            ready: metrics.running_state.is_ok() && !closed && metrics.current_leader.is_some(),
            clock,
        }
    }
}

fn replication(node: NodeId, metrics: &RaftMetrics<TypeConfig>) -> BTreeMap<NodeId, Replication> {
    let heard = |member: u64| {
        let times = metrics.heartbeat.as_ref()?;
        Some((*times.get(&member)?)?.into_inner().elapsed())
    };
    let others = metrics.replication.iter().flatten().filter(|(member, _)| **member != node.0);
    let one = |(member, matched): (&u64, &Option<crate::raft::LogId>)| {
        let next = |index: Option<u64>| index.map_or(0, |index| index + 1);
        let matched_index = matched.as_ref().map(|log_id| log_id.index);
        let lag_entries = next(metrics.last_log_index).saturating_sub(next(matched_index));
        (NodeId(*member), Replication { matched_index, lag_entries, heard: heard(*member) })
    };
    others.map(one).collect()
}
