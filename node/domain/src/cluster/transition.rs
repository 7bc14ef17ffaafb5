//! Founding, feature levels, copies.
//!
//! Guarantees: a cluster is founded once; the feature level never exceeds what a member understands, and never goes down.

use super::{FoundCluster, RaiseFeatureLevel, SetReplicas};
use crate::authority::AuthorityRecord;
use crate::cluster::{FeatureLevel, StorageMode};
use crate::command::Refusal;
use crate::ids::NodeId;
use crate::journal::Event;
use crate::node::Standing;
use crate::state::{Key, Record, Store};
use crate::transition::{Decision, Step, refuse};

/// The node that a cluster begins with: the only one that no other node admits.
pub(crate) const FOUNDER: NodeId = NodeId(1);

impl<S: Store> Step<'_, S> {
    pub(crate) fn found_cluster(&mut self, command: &FoundCluster) -> Decision<(), S::Error> {
        let FoundCluster { cluster, authority, secret, storage } = command;
        if self.cluster.cluster.is_some() {
            return refuse(Refusal::ClusterFounded);
        }
        self.refuse_if_misunderstood(FeatureLevel::FIRST)?;
        self.cluster.cluster = Some(*cluster);
        self.cluster.last_node = self.cluster.last_node.max(FOUNDER);
        self.cluster.storage = Some(*storage);
        self.cluster.feature_level = self.cluster.feature_level.max(FeatureLevel::FIRST);
        let authority =
            AuthorityRecord { keys: authority.clone(), secret: secret.clone(), rotation: None };
        self.store.put(Key::Authority, Record::Authority(authority))?;
        self.happened(Event::FeatureLevelRaised { level: self.cluster.feature_level });
        Ok(())
    }

    pub(crate) fn raise_feature_level(
        &mut self,
        command: &RaiseFeatureLevel,
    ) -> Decision<(), S::Error> {
        let RaiseFeatureLevel { level } = *command;
        if level > self.cluster.feature_level {
            self.refuse_if_misunderstood(level)?;
            self.cluster.feature_level = level;
            self.happened(Event::FeatureLevelRaised { level });
        }
        Ok(())
    }

    pub(crate) fn set_replicas(&mut self, command: &SetReplicas) -> Decision<(), S::Error> {
        let Some(storage) = self.cluster.storage.as_mut() else {
            return refuse(Refusal::NotFounded);
        };
        if storage.mode == StorageMode::Local && storage.replicas != command.replicas.max(1) {
            storage.replicas = command.replicas.max(1);
            // Every node looks at where its blobs belong again.
            self.happened(Event::ReplicasChanged { replicas: command.replicas.max(1) });
        }
        Ok(())
    }

    fn refuse_if_misunderstood(&self, level: FeatureLevel) -> Decision<(), S::Error> {
        for (node, record) in self.nodes()? {
            let understood = record.profile.feature_max;
            if record.standing != Standing::Removed && understood < level {
                return refuse(Refusal::MemberTooOld { node, understood });
            }
        }
        Ok(())
    }
}
