//! Nodes: how each stands with the others, and which of its proposals were applied.

mod transition;

pub(crate) use transition::runs;

use crate::cluster::FeatureLevel;
use crate::ids::{Epoch, NodeId};
use crate::time::Timestamp;

/// How a node stands with the others. Only an active node gets new blobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// Admitted, but never started with its certificate yet.
    #[default]
    Joining,
    /// A member that takes its share.
    Active,
    /// Silent for so long that its share is made anew elsewhere; comes back by starting.
    Away,
    /// On its way out: it serves what it has until others have it.
    Draining,
    /// Gone for good.
    Removed,
}

impl Standing {
    /// Whether a copy on such a node can be counted on: it serves now, or after no more than a restart.
    pub const fn serves(self) -> bool {
        matches!(self, Self::Active | Self::Draining)
    }
}

/// What a node tells of itself when it joins and whenever it starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeProfile {
    /// Where other nodes reach it, as `host:port`.
    pub cluster_address: String,
    /// Where clients reach it, as a URL; empty if unknown.
    pub http_address: String,
    /// Its failure zone: copies of a blob go to different ones if they can.
    pub zone: String,
    /// Its share of the blobs relative to others'; 0 counts as 1.
    pub weight: u32,
    /// Its program's version, for people.
    pub version: String,
    /// The highest feature level that it understands.
    pub feature_max: FeatureLevel,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeRecord {
    /// Its running (or last) start; earlier epochs of this node are retired. 0 before its first start.
    pub epoch: Epoch,
    /// The random name of that start, by which a repeated proposal of it is known.
    pub start: u128,
    /// How it stands.
    pub standing: Standing,
    /// What it told of itself last.
    pub profile: NodeProfile,
    /// SHA-256 of the public key that it joined with: a repeated admission gives the same node.
    pub key_hash: [u8; 32],
    /// When its standing last changed.
    pub changed_at: Timestamp,
}

/// Which proposals of one start of a node were applied: all below `applied_below`, and those listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionRecord {
    /// The node.
    pub node: NodeId,
    /// Every serial below counts as applied: it was, or its proposer has given it up.
    pub applied_below: u64,
    /// Applied serials from there on; sorted, each once. None is [`SessionRecord::SERIALS_OPEN_MAX`] or further from
    /// `applied_below`.
    pub applied: Vec<u64>,
}

impl SessionRecord {
    /// A proposer has its oldest open question settled before it makes a proposal this many serials later: what bounds
    /// the list, which is written with each batch of commands.
    pub const SERIALS_OPEN_MAX: u64 = 4096;
}

/// A node has started: give it an epoch and retire its earlier ones. It is active from then on, unless it is draining.
/// Refused for a node that was removed, for one that does not understand the feature level, for one that was never
/// admitted, other than node 1, which founds the cluster, and if another start of the node came in between. Answers with the
/// epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartNode {
    /// Which node.
    pub node: NodeId,
    /// Names this start: proposed twice, it gives the same epoch; a running node that was away comes back so.
    pub start: u128,
    /// The start that the node's row showed before: a late copy of an earlier start must not retire the one that runs.
    pub replaces: u128,
    /// What it tells of itself.
    pub profile: NodeProfile,
}

/// A node's standing changes. No node comes back from [`Standing::Removed`], and none goes to [`Standing::Joining`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetStanding {
    /// Which node.
    pub node: NodeId,
    /// How it stands from now on.
    pub standing: Standing,
}
