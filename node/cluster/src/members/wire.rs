//! The membership's part of nora.peer.v1, to and fro.

use nora_app::ports::members::{MembersError, NodeReport};
use nora_app::ports::metadata::MetadataError;
use nora_domain::NodeId;
use nora_proto::peer::v1 as proto;

/// A change that only the leader can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// A learner shall vote.
    Promote(NodeId),
    /// A node shall be gone.
    Remove { node: NodeId, force: bool },
    /// Another voter shall lead.
    Transfer(Option<NodeId>),
}

/// What became of a change on the node that was asked.
#[derive(Debug)]
pub(super) enum Changed {
    /// Done: the node that it is about, or the one that leads now.
    Done(NodeId),
    /// Not: this node does not lead.
    NotLeader,
    /// Not.
    Refused(MembersError),
}

pub(super) fn change_to_proto(change: Change) -> proto::ChangeRequest {
    use proto::change_request::Change as To;
    let change = match change {
        Change::Promote(node) => To::Promote(node.0),
        Change::Remove { node, force } => To::Remove(proto::RemoveNode { node: node.0, force }),
        Change::Transfer(to) => {
            To::Transfer(proto::TransferTo { node: to.map_or(0, |node| node.0) })
        }
    };
    proto::ChangeRequest { change: Some(change) }
}

pub(super) fn change_from_proto(m: &proto::ChangeRequest) -> Option<Change> {
    use proto::change_request::Change as From;
    Some(match m.change.as_ref()? {
        From::Promote(node) => Change::Promote(NodeId(*node)),
        From::Remove(m) => Change::Remove { node: NodeId(m.node), force: m.force },
        From::Transfer(m) => Change::Transfer((m.node != 0).then_some(NodeId(m.node))),
    })
}

pub(super) fn changed_to_proto(changed: Changed) -> proto::ChangeResponse {
    use proto::change_response::Result as To;
    let result = match changed {
        Changed::Done(node) => To::Done(node.0),
        Changed::NotLeader => To::NotLeader(proto::NotLeader { leader: 0 }),
        Changed::Refused(MembersError::Unknown(node)) => To::UnknownNode(node.0),
        Changed::Refused(MembersError::Removed(node)) => To::RemovedNode(node.0),
        Changed::Refused(MembersError::Impossible(why)) => To::Impossible(why),
        Changed::Refused(MembersError::Metadata(MetadataError::NoLeader | MetadataError::Busy)) => {
            To::NotLeader(proto::NotLeader { leader: 0 })
        }
        Changed::Refused(MembersError::Metadata(error)) => {
            tracing::warn!(%error, "a change of the membership may or may not be done");
            To::Unknown(proto::Unknown {})
        }
    };
    proto::ChangeResponse { result: Some(result) }
}

pub(super) fn changed_from_proto(m: proto::ChangeResponse) -> Changed {
    use proto::change_response::Result as From;
    match m.result {
        Some(From::Done(node)) => Changed::Done(NodeId(node)),
        Some(From::NotLeader(_)) => Changed::NotLeader,
        Some(From::UnknownNode(node)) => Changed::Refused(MembersError::Unknown(NodeId(node))),
        Some(From::RemovedNode(node)) => Changed::Refused(MembersError::Removed(NodeId(node))),
        Some(From::Impossible(why)) => Changed::Refused(MembersError::Impossible(why)),
        Some(From::Unknown(_)) | None => Changed::Refused(MetadataError::OutcomeUnknown.into()),
    }
}

pub(super) fn report_to_proto(report: NodeReport) -> proto::ReportResponse {
    proto::ReportResponse {
        applied_index: report.applied_index,
        version: report.version,
        disk_total: report.disk_total,
        disk_free: report.disk_free,
        blobs_held: report.blobs_held,
        blobs_missing: report.blobs_missing,
        blobs_excess: report.blobs_excess,
        blobs_quarantined: report.blobs_quarantined,
        scrubbed_bytes: report.scrubbed_bytes,
        clock_offset_millis: report.clock_offset_millis,
    }
}

pub(super) fn report_from_proto(m: proto::ReportResponse) -> NodeReport {
    NodeReport {
        applied_index: m.applied_index,
        version: m.version,
        disk_total: m.disk_total,
        disk_free: m.disk_free,
        blobs_held: m.blobs_held,
        blobs_missing: m.blobs_missing,
        blobs_excess: m.blobs_excess,
        blobs_quarantined: m.blobs_quarantined,
        scrubbed_bytes: m.scrubbed_bytes,
        clock_offset_millis: m.clock_offset_millis,
    }
}
