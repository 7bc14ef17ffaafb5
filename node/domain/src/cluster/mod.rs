//! The cluster as a whole: its name, what its members understand, and how it stores blobs.

mod transition;

pub(crate) use transition::FOUNDER;

use crate::authority::{AuthorityKeys, SharedSecret};
use crate::ids::{ClusterId, Epoch, NodeId};

/// What commands and records a cluster may use: it rises only when every member understands the next level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeatureLevel(pub u32);

impl FeatureLevel {
    /// Everything that 0.3.0 knows: the level that clusters begin with.
    pub const FIRST: Self = Self(1);
    /// The highest that this program understands.
    pub const NEWEST: Self = Self::FIRST;
}

/// Where the blobs of a cluster are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StorageMode {
    /// On the disks of its nodes.
    #[default]
    Local,
    /// In one bucket that all nodes share.
    Object,
}

/// How the cluster keeps blobs. It is the cluster's and not a node's: two nodes that disagree would lose blobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Where blobs are.
    pub mode: StorageMode,
    /// On how many nodes' disks each blob is kept; without meaning in [`StorageMode::Object`].
    pub replicas: u32,
}

/// Cluster-wide counters and settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterRecord {
    /// The newest epoch handed out.
    pub epoch: Epoch,
    /// The cluster's name; `None` until it is founded.
    pub cluster: Option<ClusterId>,
    /// The highest node number handed out; the founder's is 1. None is ever handed out again.
    pub last_node: NodeId,
    /// How many nodes are active.
    pub active_nodes: u32,
    /// What commands may be used.
    pub feature_level: FeatureLevel,
    /// How blobs are kept; `None` until the cluster is founded.
    pub storage: Option<Storage>,
    /// Counts the policies that were in force; 0 is none yet.
    pub policy_epoch: u64,
    /// Counts changes of policy, accounts, tokens and signing keys: what caches of them are keyed by.
    pub identity_epoch: u64,
}

/// A cluster begins: give it its name and its certificate authority. Refused if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundCluster {
    /// Its name.
    pub cluster: ClusterId,
    /// Its authority.
    pub authority: AuthorityKeys,
    /// What its members share.
    pub secret: SharedSecret,
    /// How it keeps blobs.
    pub storage: Storage,
}

/// Allow what every member understands by now. Never goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RaiseFeatureLevel {
    /// The level.
    pub level: FeatureLevel,
}

/// Change how many copies the cluster keeps of each blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetReplicas {
    /// Copies, at least 1.
    pub replicas: u32,
}
