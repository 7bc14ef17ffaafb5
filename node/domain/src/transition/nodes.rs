//! Nodes: founding, joining, starting, standing, and what all of them understand.
//!
//! Guarantees: a node number is handed out once; a removed node never comes back; at most one epoch of a node runs, and
//! each running epoch has the session that its proposals are deduplicated by; the feature level never exceeds what a
//! member understands, and never goes down.

use super::{Decision, Step, Stop, raise};
use crate::command::{Outcome, Refusal};
use crate::event::Event;
use crate::record::{
    AuthorityRecord, ClusterId, FeatureLevel, JoinTokenRecord, Key, NodeId, NodeProfile,
    NodeRecord, Record, SessionRecord, Standing, Timestamp, TokenId,
};
use crate::store::{Rows, Store};

/// The node that a cluster begins with: the only one that no other node admits.
const FOUNDER: NodeId = NodeId(1);
/// How many expired tokens each new one removes at most.
const TOKENS_SWEPT_MAX: usize = 64;
/// More nodes than a cluster ever had; the bound of a scan over all of them.
const NODES_MAX: usize = 100_000;

impl NodeProfile {
    /// What the node understands; one from before there were levels understands the first.
    fn understands(&self) -> FeatureLevel {
        self.feature_max.max(FeatureLevel::SINGLE)
    }
}

impl<S: Store> Step<'_, S> {
    /// What commands may be used.
    pub(super) fn level(&self) -> FeatureLevel {
        self.cluster.feature_level.max(FeatureLevel::SINGLE)
    }

    pub(super) fn node(&self, node: NodeId) -> Result<Option<NodeRecord>, S::Error> {
        Ok(read!(self.store, Node, Key::Node(node)))
    }

    /// A node that takes part; removed ones and strangers are refused.
    pub(super) fn member(&self, node: NodeId) -> Decision<NodeRecord, S::Error> {
        match self.node(node)? {
            None => Err(Stop::Refused(Refusal::NodeUnknown(node))),
            Some(record) if record.standing == Standing::Removed => {
                Err(Stop::Refused(Refusal::NodeRemoved(node)))
            }
            Some(record) => Ok(record),
        }
    }

    pub(super) fn found_cluster(
        &mut self,
        cluster: ClusterId,
        authority: &AuthorityRecord,
    ) -> Decision<Outcome, S::Error> {
        if self.cluster.cluster.is_some() {
            return Err(Stop::Refused(Refusal::ClusterFounded));
        }
        self.refuse_if_misunderstood(FeatureLevel::CLUSTER)?;
        self.cluster.cluster = Some(cluster);
        self.cluster.last_node = self.cluster.last_node.max(FOUNDER);
        self.cluster.feature_level = self.level().max(FeatureLevel::CLUSTER);
        self.store.put(Key::Authority, Record::Authority(authority.clone()))?;
        self.events.push(Event::FeatureLevelRaised { level: self.cluster.feature_level });
        Ok(Outcome::ClusterFounded)
    }

    pub(super) fn start_node(
        &mut self,
        node: NodeId,
        start: u128,
        profile: &NodeProfile,
    ) -> Decision<Outcome, S::Error> {
        let known = self.node(node)?;
        let record = match known {
            Some(record) if record.standing == Standing::Removed => {
                return Err(Stop::Refused(Refusal::NodeRemoved(node)));
            }
            // Said again, because its proposer never heard the answer, or because it was taken for lost meanwhile.
            Some(record) if start != 0 && record.start == start => {
                return self.start_again(node, record);
            }
            Some(record) => record,
            // Rows of nodes are never deleted: this is its first start.
            None if node == FOUNDER => NodeRecord::default(),
            None => return Err(Stop::Refused(Refusal::NodeUnknown(node))),
        };
        if profile.understands() < self.level() {
            return Err(Stop::Refused(Refusal::FeatureTooOld {
                level: self.level(),
                understood: profile.understands(),
            }));
        }
        raise(&mut self.cluster.epoch.0, 1);
        self.cluster.last_node = self.cluster.last_node.max(node);
        let epoch = self.cluster.epoch;
        self.store.delete(&Key::Session(record.epoch))?;
        let session = SessionRecord { node, ..SessionRecord::default() };
        self.store.put(Key::Session(epoch), Record::Session(session))?;
        let standing = match record.standing {
            Standing::Draining => Standing::Draining,
            _ => Standing::Active,
        };
        let changed_at = if standing == record.standing { record.changed_at } else { self.now };
        let record =
            NodeRecord { epoch, start, standing, profile: profile.clone(), changed_at, ..record };
        self.store.put(Key::Node(node), Record::Node(record))?;
        self.events.push(Event::NodeChanged { node });
        Ok(Outcome::NodeStarted(epoch))
    }

    /// A start that is known already keeps its epoch. A node that was away all the while is active again.
    fn start_again(&mut self, node: NodeId, record: NodeRecord) -> Decision<Outcome, S::Error> {
        let epoch = record.epoch;
        if record.standing == Standing::Away {
            let record = NodeRecord { standing: Standing::Active, changed_at: self.now, ..record };
            self.store.put(Key::Node(node), Record::Node(record))?;
            self.events.push(Event::NodeChanged { node });
        }
        Ok(Outcome::NodeStarted(epoch))
    }

    pub(super) fn create_join_token(
        &mut self,
        token: TokenId,
        secret_hash: [u8; 32],
        expires_at: Timestamp,
    ) -> Decision<Outcome, S::Error> {
        for (key, record) in self.store.scan(&Rows::JoinTokens, TOKENS_SWEPT_MAX)? {
            if matches!(record, Record::JoinToken(token) if token.expires_at <= self.now) {
                self.store.delete(&key)?;
            }
        }
        let record = JoinTokenRecord { secret_hash, expires_at };
        self.store.put(Key::JoinToken(token), Record::JoinToken(record))?;
        Ok(Outcome::JoinTokenCreated)
    }

    pub(super) fn admit_node(
        &mut self,
        token: TokenId,
        secret_hash: [u8; 32],
        key_hash: [u8; 32],
        profile: &NodeProfile,
    ) -> Decision<Outcome, S::Error> {
        let known = read!(self.store, JoinToken, Key::JoinToken(token));
        match known {
            Some(known) if known.secret_hash != secret_hash => {
                return Err(Stop::Refused(Refusal::TokenUnknown));
            }
            Some(known) if known.expires_at <= self.now => {
                return Err(Stop::Refused(Refusal::TokenExpired));
            }
            Some(_) => {}
            None => return Err(Stop::Refused(Refusal::TokenUnknown)),
        }
        if profile.understands() < self.level() {
            return Err(Stop::Refused(Refusal::FeatureTooOld {
                level: self.level(),
                understood: profile.understands(),
            }));
        }
        // A join that broke off and is tried again, with the same key, goes on where it was.
        let joining = self.nodes()?.into_iter().find(|(_, record)| {
            record.standing == Standing::Joining && record.key_hash == key_hash
        });
        let (node, known) = match joining {
            Some((node, record)) => (node, Some(record)),
            None => {
                raise(&mut self.cluster.last_node.0, 1);
                (self.cluster.last_node, None)
            }
        };
        let record = NodeRecord {
            standing: Standing::Joining,
            profile: profile.clone(),
            key_hash,
            changed_at: self.now,
            ..NodeRecord::default()
        };
        if known.as_ref() != Some(&record) {
            self.store.put(Key::Node(node), Record::Node(record))?;
            self.events.push(Event::NodeChanged { node });
        }
        Ok(Outcome::NodeAdmitted(node))
    }

    pub(super) fn set_standing(
        &mut self,
        node: NodeId,
        to: Standing,
    ) -> Decision<Outcome, S::Error> {
        let Some(record) = self.node(node)? else {
            return Err(Stop::Refused(Refusal::NodeUnknown(node)));
        };
        let from = record.standing;
        if from == to {
            return Ok(Outcome::StandingSet);
        }
        let leads = match (from, to) {
            (Standing::Removed, _) => return Err(Stop::Refused(Refusal::NodeRemoved(node))),
            (_, Standing::Removed)
            | (Standing::Active, Standing::Draining | Standing::Away)
            | (Standing::Draining, Standing::Active)
            | (Standing::Away, Standing::Draining) => true,
            _ => false,
        };
        if !leads {
            return Err(Stop::Refused(Refusal::StandingImpossible { from, to }));
        }
        if to == Standing::Removed {
            // What it proposed and is still on its way takes no effect any more.
            self.store.delete(&Key::Session(record.epoch))?;
        }
        let record = NodeRecord { standing: to, changed_at: self.now, ..record };
        self.store.put(Key::Node(node), Record::Node(record))?;
        self.events.push(Event::NodeChanged { node });
        Ok(Outcome::StandingSet)
    }

    pub(super) fn raise_feature_level(
        &mut self,
        level: FeatureLevel,
    ) -> Decision<Outcome, S::Error> {
        if level > self.level() {
            self.refuse_if_misunderstood(level)?;
            let counted = self.counts_unique();
            self.cluster.feature_level = level;
            if self.counts_unique() && !counted {
                self.begin_unique()?;
            }
            self.events.push(Event::FeatureLevelRaised { level });
        }
        Ok(Outcome::FeatureLevelRaised)
    }

    /// Every node there ever was.
    fn nodes(&self) -> Result<Vec<(NodeId, NodeRecord)>, S::Error> {
        let rows = self.store.scan(&Rows::Nodes, NODES_MAX)?;
        let nodes = rows.into_iter().filter_map(|row| match row {
            (Key::Node(node), Record::Node(record)) => Some((node, record)),
            _ => None,
        });
        Ok(nodes.collect())
    }

    fn refuse_if_misunderstood(&self, level: FeatureLevel) -> Decision<(), S::Error> {
        let too_old = self.nodes()?.into_iter().find(|(_, record)| {
            record.standing != Standing::Removed && record.profile.understands() < level
        });
        match too_old {
            Some((node, record)) => {
                let understood = record.profile.understands();
                Err(Stop::Refused(Refusal::MemberTooOld { node, understood }))
            }
            None => Ok(()),
        }
    }
}
