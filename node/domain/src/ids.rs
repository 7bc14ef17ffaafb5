//! Numbers and random names that the cluster hands out.

/// A node's number: given once by the cluster, never used again after a node is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

/// A start of a node. Each start of any node gets a new number from the log, so nobody takes bytes that an earlier start
/// wrote for those of the running one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// One physical copy's name beside its digest. `digest/generation` is never used twice, so deleting it can be repeated
/// or delayed without ever touching bytes that came back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation {
    /// The start of the node that wrote the bytes.
    pub epoch: Epoch,
    /// Counts within the epoch.
    pub sequence: u64,
}

/// The name of an upload session: the node that opened it in the upper 32 bits, random below. 96 random bits are as
/// good as unguessable, and a node that gets a request for a session knows its owner without asking another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UploadId(pub u128);

impl UploadId {
    /// Bits that tell the owner.
    const NODE_BITS: u32 = 32;

    /// A name made by `node`; of `random` the lower 96 bits count.
    pub const fn made_by(node: NodeId, random: u128) -> Self {
        let random = random & (u128::MAX >> Self::NODE_BITS);
        Self((node.0 as u128) << (u128::BITS - Self::NODE_BITS) | random)
    }

    /// The node that made it. Node numbers count joins, so 32 bits hold them.
    pub const fn owner(self) -> NodeId {
        NodeId((self.0 >> (u128::BITS - Self::NODE_BITS)) as u64)
    }
}

/// A cluster's random name: certificates carry it, so that nodes of two clusters never take each other for members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u128);

/// The public part of a join token or of an access token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub u128);
