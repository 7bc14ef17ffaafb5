//! Bugs that can be put into the simulated cluster, to prove that its invariants catch them.

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A leader takes for committed what only it has.
    CommitWithoutQuorum,
    /// A node wins an election although its voters know more than it does.
    OutdatedLeader,
    /// A follower says that entries are durable that are not.
    LostFsync,
    /// A client is answered when its command was appended, before it was applied.
    AckBeforeApply,
    /// A node reads its own state without asking for the read index.
    StaleFollowerRead,
    /// A leader gives its commit index for a read without asking whether it still leads.
    DeposedLeaderRead,
    /// After installing a snapshot a node applies the last entry that it holds once more.
    DoubleApplyAfterSnapshot,
    /// A snapshot lacks the sessions that proposals are deduplicated by.
    SessionsLostInSnapshot,
    /// A command takes effect wherever it stands in the log.
    DedupeOff,
    /// A start that was replaced may still commit blobs, as if the new one had written them.
    EpochFenceOff,
    /// The number of a removed node is given to the next one.
    ReusedNodeId,
    /// A removed node that starts again is a member again.
    RemovedComesBack,
    /// A join token works after it has expired.
    TokenAfterExpiry,
    /// A node joins that does not understand the feature level.
    FeatureLevelIgnored,
    /// A leader stamps commands with its own wall clock.
    ClockFollowsWall,
    /// A blob is committed before its copies are durable.
    PrematureBlobAck,
    /// A node is logged as a holder before its copy is durable.
    HolderBeforeDurable,
    /// A holder is dropped however few are left.
    DropBelowKeep,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::CommitWithoutQuorum,
        Self::OutdatedLeader,
        Self::LostFsync,
        Self::AckBeforeApply,
        Self::StaleFollowerRead,
        Self::DeposedLeaderRead,
        Self::DoubleApplyAfterSnapshot,
        Self::SessionsLostInSnapshot,
        Self::DedupeOff,
        Self::EpochFenceOff,
        Self::ReusedNodeId,
        Self::RemovedComesBack,
        Self::TokenAfterExpiry,
        Self::FeatureLevelIgnored,
        Self::ClockFollowsWall,
        Self::PrematureBlobAck,
        Self::HolderBeforeDurable,
        Self::DropBelowKeep,
    ];
}
