//! What commands and records say of nodes and of where blobs are.
//!
//! Guarantee: what states from before there were several nodes leave out decodes to what was so then: the node is
//! active, and node 1 holds the blob.

use nora_domain::record::{
    AuthorityRecord, FeatureLevel, NodeId, NodeProfile, Placement, Standing,
};
use nora_proto::record::v1 as proto;

use super::{DecodeError, upload_from_proto, upload_to_proto};

pub(crate) fn profile_to_proto(profile: &NodeProfile) -> proto::NodeProfile {
    proto::NodeProfile {
        cluster_address: profile.cluster_address.clone(),
        http_address: profile.http_address.clone(),
        zone: profile.zone.clone(),
        weight: profile.weight,
        version: profile.version.clone(),
        feature_max: profile.feature_max.0,
    }
}

/// None was told by programs from before there were profiles.
pub(crate) fn profile_from_proto(profile: Option<proto::NodeProfile>) -> NodeProfile {
    profile.map_or_else(NodeProfile::default, |m| NodeProfile {
        cluster_address: m.cluster_address,
        http_address: m.http_address,
        zone: m.zone,
        weight: m.weight,
        version: m.version,
        feature_max: FeatureLevel(m.feature_max),
    })
}

pub(super) fn standing_to_proto(standing: Standing) -> proto::Standing {
    match standing {
        Standing::Joining => proto::Standing::Joining,
        Standing::Active => proto::Standing::Active,
        Standing::Away => proto::Standing::Away,
        Standing::Draining => proto::Standing::Draining,
        Standing::Removed => proto::Standing::Removed,
    }
}

pub(super) fn standing_from_proto(standing: i32) -> Result<Standing, DecodeError> {
    let standing = proto::Standing::try_from(standing);
    Ok(match standing.map_err(|_| DecodeError::Unknown("standing"))? {
        proto::Standing::Unspecified | proto::Standing::Active => Standing::Active,
        proto::Standing::Joining => Standing::Joining,
        proto::Standing::Away => Standing::Away,
        proto::Standing::Draining => Standing::Draining,
        proto::Standing::Removed => Standing::Removed,
    })
}

pub(super) fn authority_to_proto(authority: &AuthorityRecord) -> proto::Authority {
    proto::Authority {
        certificate: authority.certificate.clone(),
        key: authority.key.clone(),
    }
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

pub(super) fn placement_from_proto(
    placement: Option<proto::Placement>,
) -> Result<Placement, DecodeError> {
    let Some(placement) = placement else {
        return Ok(Placement::Nodes(vec![NodeId(1)]));
    };
    Ok(match placement.place.ok_or(DecodeError::Unknown("placement.place"))? {
        proto::placement::Place::Nodes(m) => {
            Placement::Nodes(m.nodes.into_iter().map(NodeId).collect())
        }
        proto::placement::Place::Object(name) => Placement::Object(upload_from_proto(&name)?),
    })
}
