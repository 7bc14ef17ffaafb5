//! openraft as NORA runs it, and changes of who takes part.
//!
//! Must not know: why the membership changes; whoever asks does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nora_app::ports::metadata::MetadataError;
use nora_domain::NodeId;
use openraft::async_runtime::WatchReceiver;
use openraft::error::{ClientWriteError, RaftError};
use openraft::{BasicNode, ChangeMembers, Raft, SnapshotPolicy};

use crate::config::ClusterConfig;
use crate::error::{StartError, consensus, store_error};
use crate::raft::TypeConfig;
use crate::raft::state_machine::StateMachine;

/// Consensus, shared by all that ask it.
pub type Consensus = Raft<TypeConfig, StateMachine>;

/// Range tombstones slow reads down; one for so many entries does not.
const PURGE_ENTRIES_MIN: u64 = 1024;

/// How long a leader that steps down on purpose waits for another to lead.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) fn raft_config(
    config: &ClusterConfig,
) -> Result<openraft::Config, openraft::ConfigError> {
    openraft::Config {
        cluster_name: "nora".to_owned(),
        // A follower stands for election when it has heard nothing for `election_timeout_max` and then for a time between
        // both: after a leader's death, writes go on within 1.2 to 1.6 s, and a pause of half a second harms nobody.
        heartbeat_interval: 150,
        election_timeout_min: 400,
        election_timeout_max: 800,
        enable_pre_vote: Some(true),
        // The state is written without a sync, so a leader that restarts may be behind what it acknowledged: it is
        // elected anew, and applies everything, before it leads again.
        enable_leader_restore: Some(false),
        // A transfer that takes longer goes on where it was: the leader keeps the snapshot.
        install_snapshot_timeout: 3_600_000,
        // The log reader ends a batch at a mebibyte.
        max_payload_entries: 4096,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_entries),
        max_in_snapshot_log_to_keep: config.keep_entries,
        purge_batch_size: PURGE_ENTRIES_MIN,
        api_channel_size: Some(1024),
        ..openraft::Config::default()
    }
    .validate()
}

/// Begins a cluster in which `node` is the only voter, unless there is one.
pub(crate) async fn begin(raft: &Consensus, node: NodeId, address: &str) -> Result<(), StartError> {
    let initialized =
        raft.is_initialized().await.map_err(consensus("see whether there is a cluster"))?;
    if !initialized {
        let members = BTreeMap::from([(node.0, BasicNode::new(address))]);
        raft.initialize(members).await.map_err(consensus("begin a cluster"))?;
    }
    Ok(())
}

/// Makes the only voter lead at once: nobody else could, so there is nobody to wait for.
pub(crate) async fn elect_if_alone(raft: &Consensus, node: NodeId) -> Result<(), StartError> {
    let (alone, leads) = raft
        .with_raft_state(move |state| {
            let voters = state.membership_state.effective().voter_ids();
            (voters.eq([node.0]), state.server_state.is_leader())
        })
        .await
        .map_err(consensus("read the membership"))?;
    if alone && !leads {
        raft.trigger().elect(false).await.map_err(consensus("elect the only voter"))?;
    }
    Ok(())
}

/// Where the membership says that a node listens.
pub(crate) fn address(raft: &Consensus, node: NodeId) -> Option<String> {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let address = metrics.membership_config.membership().get_node(&node.0)?.addr.clone();
    Some(address).filter(|address| !address.is_empty())
}

/// Changes of who takes part; only the leader can make them. Each returns once the change is committed, and can be
/// repeated.
#[derive(Clone)]
pub struct Membership {
    raft: Consensus,
}

impl Membership {
    pub fn new(raft: Consensus) -> Self {
        Self { raft }
    }

    /// Sends the log to a node from now on.
    pub async fn add_learner(&self, node: NodeId, address: &str) -> Result<(), MetadataError> {
        let added = self.raft.add_learner(node.0, BasicNode::new(address), false).await;
        added.map(drop).map_err(change_error)
    }

    /// Makes a learner a voter.
    pub async fn promote(&self, node: NodeId) -> Result<(), MetadataError> {
        self.change(ChangeMembers::AddVoterIds([node.0].into()), true).await
    }

    /// Makes a voter a learner.
    pub async fn demote(&self, node: NodeId) -> Result<(), MetadataError> {
        self.change(ChangeMembers::RemoveVoters([node.0].into()), true).await
    }

    /// Finishes a change of the voters that was cut off half-way: from then on the new voters decide alone.
    pub async fn finish_change(&self) -> Result<(), MetadataError> {
        self.change(ChangeMembers::AddVoterIds(BTreeSet::new()), true).await
    }

    /// Sends the log to a learner no longer.
    pub async fn remove_learner(&self, node: NodeId) -> Result<(), MetadataError> {
        self.change(ChangeMembers::RemoveNodes([node.0].into()), true).await
    }

    async fn change(
        &self,
        change: ChangeMembers<u64, BasicNode>,
        retain: bool,
    ) -> Result<(), MetadataError> {
        self.raft.change_membership(change, retain).await.map(drop).map_err(change_error)
    }

    /// Lets another voter lead: the one named, or the one that has come furthest. Gives who leads then.
    pub async fn transfer_leader(&self, to: Option<NodeId>) -> Result<NodeId, MetadataError> {
        let id = *self.raft.node_id();
        let best = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            if metrics.current_leader != Some(id) {
                return Err(MetadataError::NoLeader);
            }
            let matched = |voter: &u64| *metrics.replication.as_ref()?.get(voter)?;
            let voters = metrics.membership_config.membership().voter_ids();
            let others = voters.filter(|voter| *voter != id);
            others.filter(|voter| to.is_none_or(|to| to.0 == *voter)).max_by_key(matched)
        };
        let best = best.ok_or(MetadataError::NoLeader)?;
        self.raft.trigger().transfer_leader(best).await.map_err(store_error)?;
        let led = self
            .raft
            .wait(Some(TRANSFER_TIMEOUT))
            .metrics(
                |metrics| metrics.current_leader.is_some_and(|leader| leader != id),
                "another node leads",
            )
            .await
            .map_err(|_| MetadataError::NoLeader)?;
        led.current_leader.map(NodeId).ok_or(MetadataError::NoLeader)
    }
}

fn change_error(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> MetadataError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => MetadataError::NoLeader,
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) | RaftError::Fatal(_) => {
            MetadataError::OutcomeUnknown
        }
        RaftError::APIError(error) => store_error(error),
    }
}
