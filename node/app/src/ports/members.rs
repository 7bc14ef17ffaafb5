//! Who takes part in the cluster, and the ways to change that.

use nora_domain::{
    Actor, ClusterId, Epoch, FeatureLevel, NodeId, NodeProfile, RotationStage, Standing, Timestamp,
    TokenId,
};

use super::BoxFuture;
use super::metadata::MetadataError;

/// What part a node has in consensus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It leads.
    Leader,
    /// It votes.
    Voter,
    /// It gets the log and does not vote.
    Learner,
    /// It is known and takes no part: not yet, or not any more.
    Outside,
}

/// What a node tells of itself when it is asked. Sizes in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeReport {
    /// Position of the last entry it applied.
    pub applied_index: u64,
    /// Its program's version.
    pub version: String,
    /// Size of the file system that holds its data.
    pub disk_total: u64,
    /// Of that, free for NORA.
    pub disk_free: u64,
    /// Blobs that it holds a durable copy of.
    pub blobs_held: u64,
    /// Blobs that it should hold and does not yet.
    pub blobs_missing: u64,
    /// Blobs that it holds and should give up.
    pub blobs_excess: u64,
    /// Damaged copies set aside since its start.
    pub blobs_quarantined: u64,
    /// Bytes that scrubbing has re-read since its start.
    pub scrubbed_bytes: u64,
    /// By how many milliseconds its wall clock is ahead of most voters' clocks; none if that is unknown. Filled in by the
    /// cluster.
    pub clock_offset_millis: Option<i64>,
}

/// A node, as the cluster knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its number.
    pub node: NodeId,
    /// Its part in consensus.
    pub role: Role,
    /// How it stands.
    pub standing: Standing,
    /// Its last start.
    pub epoch: Epoch,
    /// What it told of itself at its last start.
    pub profile: NodeProfile,
    /// What it tells now; `None` if it does not answer.
    pub report: Option<NodeReport>,
}

/// A join token, without its secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinTokenView {
    /// Its public part: the audit log names it.
    pub id: TokenId,
    /// When it was made.
    pub created_at: Timestamp,
    /// From then on it admits no node.
    pub expires_at: Timestamp,
    /// How many more nodes it admits.
    pub uses_left: u32,
}

/// A rotation of the cluster's authority that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationView {
    /// How far it is.
    pub stage: RotationStage,
    /// When it began.
    pub begun_at: Timestamp,
    /// The members that have not done what the stage asks of them.
    pub waits_for: Vec<NodeId>,
}

/// The cluster as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterView {
    /// Its name, once it is founded.
    pub cluster: Option<ClusterId>,
    /// The node that was asked.
    pub node: NodeId,
    /// Who leads, if known.
    pub leader: Option<NodeId>,
    /// The Raft term.
    pub term: u64,
    /// Position of the last entry in this node's log.
    pub log_index: u64,
    /// Position of the last entry that this node applied.
    pub applied_index: u64,
    /// Position up to which this node's snapshot goes.
    pub snapshot_index: Option<u64>,
    /// What commands may be used.
    pub feature_level: FeatureLevel,
    /// The cluster's clock.
    pub clock: Timestamp,
    /// A change of the voters has begun and is not finished: majorities of the old and of the new voters must agree.
    pub is_joint: bool,
    /// The rotation of the authority that is under way.
    pub rotation: Option<RotationView>,
    /// Every node that was not removed, in order.
    pub members: Vec<Member>,
}

/// Why a change of the membership was not made.
#[derive(Debug, thiserror::Error)]
pub enum MembersError {
    /// The metadata gave no answer.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// No such node.
    #[error("there is no node {}", .0.0)]
    Unknown(NodeId),
    /// It was removed; it must join anew.
    #[error("node {} was removed", .0.0)]
    Removed(NodeId),
    /// It is not possible as things are; the sentence says why and what to do.
    #[error("{0}")]
    Impossible(String),
}

/// The membership. Every call may be made on any node.
pub trait Members: Send + Sync {
    /// The cluster as it is.
    fn view(&self) -> BoxFuture<'_, Result<ClusterView, MembersError>>;

    /// A token that lets `uses` nodes join for so many milliseconds; `by` has it made.
    fn create_join_token(
        &self,
        by: Actor,
        valid_millis: u64,
        uses: u32,
    ) -> BoxFuture<'_, Result<String, MembersError>>;

    /// Every join token that has not expired.
    fn join_tokens(&self) -> BoxFuture<'_, Result<Vec<JoinTokenView>, MembersError>>;

    /// Lets a token admit no more nodes. Those that it has admitted stay.
    fn revoke_join_token(&self, by: Actor, id: TokenId) -> BoxFuture<'_, Result<(), MembersError>>;

    /// Begins to replace the cluster's authority and the secrets that go with it; `by` has it done. Returns at once; the
    /// view tells when it is over.
    fn rotate_authority(&self, by: Actor) -> BoxFuture<'_, Result<(), MembersError>>;

    /// Makes a learner a voter once it has caught up.
    fn promote(&self, node: NodeId) -> BoxFuture<'_, Result<(), MembersError>>;

    /// Lets other nodes take over what a node holds. Returns at once; the view tells when it is done.
    fn drain(&self, node: NodeId) -> BoxFuture<'_, Result<(), MembersError>>;

    /// Takes a node out for good: its number is never used again. Without `force` only a drained or away one, and never
    /// if the rest would have no quorum or a blob would lose its last copy.
    fn remove(&self, node: NodeId, force: bool) -> BoxFuture<'_, Result<(), MembersError>>;

    /// Lets another voter lead: the one named, or the best one.
    fn transfer_leader(&self, to: Option<NodeId>) -> BoxFuture<'_, Result<NodeId, MembersError>>;

    /// Makes a snapshot on this node and returns its position.
    fn snapshot(&self) -> BoxFuture<'_, Result<u64, MembersError>>;

    /// Changes how many copies the cluster keeps of each blob; impossible where blobs are in a bucket.
    fn set_replicas(&self, replicas: u32) -> BoxFuture<'_, Result<(), MembersError>>;

    /// Raises the feature level to the highest that every member understands, and returns it.
    fn finalize_upgrade(&self) -> BoxFuture<'_, Result<FeatureLevel, MembersError>>;
}

/// Tells of this node, for others' questions.
pub trait Reporter: Send + Sync {
    /// Its report now; `applied_index` is filled in by whoever asks consensus.
    fn report(&self) -> BoxFuture<'_, NodeReport>;
}
