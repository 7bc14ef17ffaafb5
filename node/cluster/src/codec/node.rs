//! Nodes' records and commands.

use nora_domain::{
    Epoch, FeatureLevel, NodeId, NodeProfile, NodeRecord, SessionRecord, SetStanding, Standing,
    StartNode,
};
use nora_proto::{command::v1 as command, record::v1 as record};

use super::{Codec, DecodeError};

codes!(Standing => record::Standing { Joining, Active, Away, Draining, Removed });
fields!(NodeRecord => record::Node { epoch, start, standing, key_hash, changed_at }
    required { profile });

fields!(StartNode => command::StartNode { node, start, replaces } required { profile });
fields!(SetStanding => command::SetStanding { node, standing });

impl Codec for NodeProfile {
    type Message = record::NodeProfile;

    fn to_proto(&self) -> record::NodeProfile {
        record::NodeProfile {
            cluster_address: self.cluster_address.clone(),
            http_address: self.http_address.clone(),
            zone: self.zone.clone(),
            weight: self.weight,
            version: self.version.clone(),
            feature_max: self.feature_max.0,
        }
    }

    fn from_proto(message: record::NodeProfile) -> Result<Self, DecodeError> {
        Ok(profile_from_proto(Some(message)))
    }
}

/// A profile, as nodes send it when they join.
pub(crate) fn profile_to_proto(profile: &NodeProfile) -> Option<record::NodeProfile> {
    Some(profile.to_proto())
}

/// The profile that a joining node sent; one that says nothing if it sent none.
pub(crate) fn profile_from_proto(profile: Option<record::NodeProfile>) -> NodeProfile {
    let profile = profile.unwrap_or_default();
    NodeProfile {
        cluster_address: profile.cluster_address,
        http_address: profile.http_address,
        zone: profile.zone,
        weight: profile.weight,
        version: profile.version,
        feature_max: FeatureLevel(profile.feature_max),
    }
}

/// A session with its epoch. Applied serials are stored as distances from `applied_below`, which is small for each.
impl Codec for (Epoch, SessionRecord) {
    type Message = record::Session;

    fn to_proto(&self) -> record::Session {
        let (epoch, SessionRecord { node, applied_below, applied }) = self;
        record::Session {
            epoch: epoch.0,
            node: node.0,
            applied_below: *applied_below,
            // Wrapping gives back every serial, even one that a fault put below the others.
            applied: applied.iter().map(|serial| serial.wrapping_sub(*applied_below)).collect(),
        }
    }

    fn from_proto(message: record::Session) -> Result<Self, DecodeError> {
        let record::Session { epoch, node, applied_below, applied } = message;
        let applied = applied.into_iter().map(|away| applied_below.wrapping_add(away)).collect();
        Ok((Epoch(epoch), SessionRecord { node: NodeId(node), applied_below, applied }))
    }
}
