//! Starting nodes, and how they stand.
//!
//! Guarantees: a removed node never comes back; at most one epoch of a node runs, and each running epoch has the session
//! that its proposals are deduplicated by; the count of active nodes is exact.

use super::{NodeRecord, SessionRecord, SetStanding, Standing, StartNode};
use crate::cluster::FOUNDER;
use crate::command::Refusal;
use crate::ids::{Epoch, NodeId};
use crate::journal::Event;
use crate::state::{Key, Record, Rows, Store};
use crate::transition::{Decision, Step, lower, raise, refuse};

/// More nodes than a cluster ever had; the bound of a scan over all of them.
const NODES_MAX: usize = 100_000;

/// Whether a node's record says that this start of it runs.
pub(crate) fn runs(record: &NodeRecord, epoch: Epoch) -> bool {
    // A node that is joining has no start yet, and the epoch 0.
    record.epoch == epoch && !matches!(record.standing, Standing::Joining | Standing::Removed)
}

impl<S: Store> Step<'_, S> {
    pub(crate) fn node(&self, node: NodeId) -> Result<Option<NodeRecord>, S::Error> {
        Ok(read!(self.store, Node, Key::Node(node)))
    }

    /// A node that takes part; removed ones and strangers are refused.
    pub(crate) fn member(&self, node: NodeId) -> Decision<NodeRecord, S::Error> {
        match self.node(node)? {
            None => refuse(Refusal::NodeUnknown(node)),
            Some(record) if record.standing == Standing::Removed => {
                refuse(Refusal::NodeRemoved(node))
            }
            Some(record) => Ok(record),
        }
    }

    /// Every node there ever was.
    pub(crate) fn nodes(&self) -> Result<Vec<(NodeId, NodeRecord)>, S::Error> {
        let rows = self.store.scan(&Rows::Nodes, NODES_MAX)?;
        let nodes = rows.into_iter().filter_map(|row| match row {
            (Key::Node(node), Record::Node(record)) => Some((node, record)),
            _ => None,
        });
        Ok(nodes.collect())
    }

    pub(crate) fn start_node(&mut self, command: &StartNode) -> Decision<Epoch, S::Error> {
        let StartNode { node, start, replaces, profile } = command;
        let node = *node;
        let record = match self.node(node)? {
            Some(record) if record.standing == Standing::Removed => {
                return refuse(Refusal::NodeRemoved(node));
            }
            // Proposed again, because its proposer never heard the answer, or because it was taken for lost meanwhile.
            Some(record) if *start != 0 && record.start == *start => {
                return self.start_again(node, record);
            }
            Some(record) if record.start != *replaces => return refuse(Refusal::StartReplaced),
            Some(record) => record,
            // Rows of nodes are never deleted: this is its first start.
            None if node == FOUNDER => NodeRecord::default(),
            None => return refuse(Refusal::NodeUnknown(node)),
        };
        let level = self.cluster.feature_level;
        if profile.feature_max < level {
            let understood = profile.feature_max;
            return refuse(Refusal::FeatureTooOld { level, understood });
        }
        raise(&mut self.cluster.epoch.0, 1);
        self.cluster.last_node = self.cluster.last_node.max(node);
        let epoch = self.cluster.epoch;
        self.sessions.ended.push(record.epoch);
        self.sessions.begun = Some((epoch, SessionRecord { node, ..SessionRecord::default() }));
        let standing = match record.standing {
            Standing::Draining => Standing::Draining,
            _ => Standing::Active,
        };
        let started = NodeRecord { epoch, start: *start, profile: profile.clone(), ..record };
        self.stand(node, started, standing)?;
        Ok(epoch)
    }

    /// A start that is known already keeps its epoch. A node that was away all the while is active again.
    fn start_again(&mut self, node: NodeId, record: NodeRecord) -> Decision<Epoch, S::Error> {
        let epoch = record.epoch;
        if record.standing == Standing::Away {
            self.stand(node, record, Standing::Active)?;
        }
        Ok(epoch)
    }

    pub(crate) fn set_standing(&mut self, command: &SetStanding) -> Decision<(), S::Error> {
        let SetStanding { node, standing: to } = *command;
        let Some(record) = self.node(node)? else {
            return refuse(Refusal::NodeUnknown(node));
        };
        let from = record.standing;
        if from == to {
            return Ok(());
        }
        let leads = match (from, to) {
            (Standing::Removed, _) => return refuse(Refusal::NodeRemoved(node)),
            (_, Standing::Removed)
            | (Standing::Active, Standing::Draining | Standing::Away)
            | (Standing::Draining, Standing::Active)
            | (Standing::Away, Standing::Draining) => true,
            _ => false,
        };
        if !leads {
            return refuse(Refusal::StandingImpossible { from, to });
        }
        if to == Standing::Removed {
            // What the node proposed and is still on its way takes no effect any more.
            self.sessions.ended.push(record.epoch);
        }
        self.stand(node, record, to)?;
        if to == Standing::Removed {
            // The rotation of the authority may have waited for it alone.
            self.go_on_rotating()?;
        }
        Ok(())
    }

    /// Writes a node's row with its new standing.
    fn stand(&mut self, node: NodeId, record: NodeRecord, to: Standing) -> Result<(), S::Error> {
        let from = record.standing;
        let mut active = u64::from(self.cluster.active_nodes);
        match (from == Standing::Active, to == Standing::Active) {
            (false, true) => raise(&mut active, 1),
            (true, false) => lower(&mut active, 1),
            _ => {}
        }
        self.cluster.active_nodes = u32::try_from(active).unwrap_or(u32::MAX);
        let changed_at = if from == to { record.changed_at } else { self.now };
        let record = NodeRecord { standing: to, changed_at, ..record };
        self.store.put(Key::Node(node), Record::Node(record))?;
        self.happened(Event::NodeChanged { node });
        Ok(())
    }
}

impl SessionRecord {
    /// Whether a proposal was decided, or given up.
    pub fn has(&self, serial: u64) -> bool {
        serial < self.applied_below || self.applied.binary_search(&serial).is_ok()
    }

    /// Notes a proposal as decided, and everything below `settled_below` as settled: its proposer has no open question
    /// about those any more. What is listed was decided above the oldest open question, and proposers stay within
    /// [`SessionRecord::SERIALS_OPEN_MAX`] of that.
    pub(crate) fn note(&mut self, serial: u64, settled_below: u64) {
        debug_assert!(
            serial.saturating_sub(self.applied_below.max(settled_below)) < Self::SERIALS_OPEN_MAX,
            "too far from the oldest open question: {serial}"
        );
        if let Err(place) = self.applied.binary_search(&serial) {
            self.applied.insert(place, serial);
        }
        self.applied_below = self.applied_below.max(settled_below);
        let settled = self.applied.partition_point(|serial| *serial < self.applied_below);
        let run = (self.applied_below..)
            .zip(&self.applied[settled..])
            .take_while(|(next, serial)| next == *serial)
            .count();
        self.applied_below += run as u64;
        self.applied.drain(..settled + run);
    }
}
