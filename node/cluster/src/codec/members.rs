//! What commands and records say of nodes and of where blobs are.
//!
//! Guarantee: what states from before there were several nodes leave out decodes to what was so then: the node is
//! active, and the only node holds the blob.

use nora_domain::record::{
    AuthorityRecord, FeatureLevel, NodeId, NodeProfile, Placement, Standing,
};
use nora_proto::record::v1 as proto;

use super::{DecodeError, upload_from_proto, upload_to_proto};

pub(super) fn standing_to_proto(standing: Standing) -> proto::Standing {
    match standing {
        Standing::Joining => proto::Standing::Joining,
        Standing::Active => proto::Standing::Active,
        Standing::Away => proto::Standing::Away,
        Standing::Draining => proto::Standing::Draining,
        Standing::Removed => proto::Standing::Removed,
    }
}

/// Nodes from before there were standings are active.
pub(super) fn standing_from_proto(standing: i32) -> Result<Standing, DecodeError> {
    match proto::Standing::try_from(standing) {
        Ok(proto::Standing::Unspecified | proto::Standing::Active) => Ok(Standing::Active),
        Ok(proto::Standing::Joining) => Ok(Standing::Joining),
        Ok(proto::Standing::Away) => Ok(Standing::Away),
        Ok(proto::Standing::Draining) => Ok(Standing::Draining),
        Ok(proto::Standing::Removed) => Ok(Standing::Removed),
        Err(_) => Err(DecodeError::Unknown("standing")),
    }
}

/// A profile that says nothing is left out, as programs from before there were profiles did.
pub(crate) fn profile_to_proto(profile: &NodeProfile) -> Option<proto::NodeProfile> {
    (*profile != NodeProfile::default()).then(|| proto::NodeProfile {
        cluster_address: profile.cluster_address.clone(),
        http_address: profile.http_address.clone(),
        zone: profile.zone.clone(),
        weight: profile.weight,
        version: profile.version.clone(),
        feature_max: profile.feature_max.0,
    })
}

pub(crate) fn profile_from_proto(profile: Option<proto::NodeProfile>) -> NodeProfile {
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

pub(super) fn authority_to_proto(authority: &AuthorityRecord) -> proto::Authority {
    proto::Authority { certificate: authority.certificate.clone(), key: authority.key.clone() }
}

pub(super) fn authority_from_proto(authority: proto::Authority) -> AuthorityRecord {
    AuthorityRecord { certificate: authority.certificate, key: authority.key }
}

pub(super) fn placement_to_proto(placement: &Placement) -> proto::Placement {
    let place = match placement {
        Placement::Nodes(nodes) => proto::placement::Place::Nodes(proto::Nodes {
            nodes: nodes.iter().map(|node| node.0).collect(),
        }),
        Placement::Object(name) => proto::placement::Place::Object(upload_to_proto(*name)),
    };
    proto::Placement { place: Some(place) }
}

/// Blobs from before there were several nodes are on the one that there was.
pub(super) fn placement_from_proto(
    placement: Option<proto::Placement>,
    only: NodeId,
) -> Result<Placement, DecodeError> {
    let Some(placement) = placement else { return Ok(Placement::Nodes(vec![only])) };
    match placement.place {
        Some(proto::placement::Place::Nodes(nodes)) => {
            Ok(Placement::Nodes(nodes.nodes.into_iter().map(NodeId).collect()))
        }
        Some(proto::placement::Place::Object(name)) => {
            Ok(Placement::Object(upload_from_proto(&name)?))
        }
        None => Err(DecodeError::Unknown("placement.place")),
    }
}
