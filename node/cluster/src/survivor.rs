//! The way back from a lost majority: one member goes on without the others.
//!
//! Without a majority a cluster can neither write nor change its members. What is left of it is what one member has. Only an
//! operator can know that the others never come back, so this is done on a stopped node, and never by itself.
//!
//! Guarantees: looking changes nothing that the next start would not change too. Every entry of the survivor's log takes
//! effect, also one that it never saw committed: that entry may have been acknowledged. The survivor votes in a new term,
//! so no leader of before is listened to. All of that is one write, so a crash leaves either cluster. Must not know: what
//! becomes of the other members' rows and blobs.

use std::collections::BTreeMap;
use std::io;

use nora_domain::{Key, NodeId, NodeProfile, Record, Standing};
use openraft::entry::RaftEntry;
use openraft::vote::RaftLeaderId;
use openraft::{BasicNode, EntryPayload};

use crate::config::ClusterConfig;
use crate::error::StartError;
use crate::node::{Stores, open_stores};
use crate::raft::log_store::{LogStore, blocking};
use crate::raft::{Entry, LeaderId, LogId, Membership, Vote};
use crate::rocks::state::Tier;

/// A member of a cluster that lost its majority, stopped and looked at.
pub struct Survivor {
    log: LogStore,
    config: ClusterConfig,
    membership: Membership,
    vote: Option<Vote>,
    last: LogId,
    found: Found,
}

/// What a stopped member has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Term of its last log entry. Of two members, the one with the higher term has more of what was acknowledged.
    pub term: u64,
    /// Position of its last log entry. Of two members with the same term, the one with the higher position has more.
    pub last_index: u64,
    /// Position of the last entry that it applied; 0 if it applied none.
    pub applied_index: u64,
    /// Voters, as its log says.
    pub voters: Vec<NodeId>,
    /// Members that do not vote.
    pub learners: Vec<NodeId>,
    /// How it stands, as far as it applied its log.
    pub standing: Standing,
    /// What it told of itself at its last start, as far as it applied its log.
    pub profile: NodeProfile,
}

impl Found {
    /// Whether this node is the only voter: then no majority is lost.
    pub fn is_alone(&self, node: NodeId) -> bool {
        self.voters == [node] && self.learners.is_empty()
    }
}

impl Survivor {
    /// Looks at a node that does not run. Nobody else may have its metadata open.
    pub async fn look(config: ClusterConfig) -> Result<Self, StartError> {
        let data_dir = config.data_dir.clone();
        let open = |source| StartError::Open { data_dir, source };
        let stores = match open_stores(config.clone()).await {
            Ok(stores) => stores,
            Err(source) => return Err(open(source)),
        };
        blocking(move || Self::of(stores, config)).await.map_err(open)
    }

    fn of(stores: Stores, config: ClusterConfig) -> io::Result<Self> {
        let Stores { log, state_machine, .. } = stores;
        let shared = state_machine.shared();
        let state = shared.state.load();
        let membership = match log.last_membership()? {
            Some(membership) => membership,
            None => state.membership().map_err(io::Error::other)?.membership().clone(),
        };
        let nothing = || io::Error::new(io::ErrorKind::NotFound, "no cluster was ever here");
        let last = log.last()?.ok_or_else(nothing)?;
        if membership.voter_ids().next().is_none() {
            return Err(nothing());
        }
        let row = state.get(&Key::Node(config.node), Tier::Disk).map_err(io::Error::other)?;
        let record = match row {
            Some(Record::Node(record)) => record,
            _ => Default::default(),
        };
        let found = Found {
            term: last.leader_id.term,
            last_index: last.index,
            applied_index: state_machine.applied().map_or(0, |applied| applied.index),
            voters: membership.voter_ids().map(NodeId).collect(),
            learners: membership.learner_ids().map(NodeId).collect(),
            standing: record.standing,
            profile: record.profile,
        };
        Ok(Self { vote: log.vote()?, log, config, membership, last, found })
    }

    /// What it has.
    pub const fn found(&self) -> &Found {
        &self.found
    }

    /// Makes this member the cluster's only one. The next start elects it, applies its whole log and goes on from there.
    /// Done twice, it changes nothing more.
    pub async fn go_on_alone(self) -> Result<(), StartError> {
        let node = self.config.node;
        if self.found.is_alone(node) {
            return Ok(());
        }
        let address = match self.membership.get_node(&node.0) {
            Some(known) => known.addr.clone(),
            None => self.found.profile.cluster_address.clone(),
        };
        let members = BTreeMap::from([(node.0, BasicNode::new(address))]);
        let alone = Membership::new(vec![[node.0].into()], members)
            .map_err(crate::error::consensus("make this node the only member"))?;
        let voted = self.vote.as_ref().map_or(0, |vote| vote.leader_id.term);
        let leader = LeaderId::new(voted.max(self.last.leader_id.term) + 1, node.0);
        let at = LogId { leader_id: leader, index: self.last.index + 1 };
        let entry = Entry::new(at, EntryPayload::Membership(alone));
        let vote = Vote { leader_id: leader, committed: false };
        let data_dir = self.config.data_dir.clone();
        blocking(move || self.log.go_on_with(&entry, &vote))
            .await
            .map_err(|source| StartError::Open { data_dir, source })
    }
}
