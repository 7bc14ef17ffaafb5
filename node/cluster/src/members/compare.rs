//! Whether the members' states are the same: the leader compares hashes of them from time to time.
//!
//! A difference means a fault in the program or in a machine, and nothing here mends it: it is logged, counted and shown.
//! The member whose state is wrong can join anew.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use nora_app::ports::metadata::MetadataError;
use nora_domain::NodeId;
use nora_proto::peer::v1 as proto;

use super::{REPORT_TIMEOUT, Roster};
use crate::raft::chain::{Mark, difference};

/// What comparisons found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Differences {
    /// Members whose state differs from this leader's, and the entry after which it does.
    pub members: BTreeMap<NodeId, u64>,
    /// How often a comparison found a difference since the start.
    pub found: u64,
}

impl Roster {
    /// Compares once. Returns how many members differ; nothing is compared where this node does not lead.
    pub(super) async fn compare(&self) -> Result<u64, MetadataError> {
        if !self.leads() {
            self.0.cluster.note_differences(BTreeMap::new());
            return Ok(0);
        }
        let here = self.0.cluster.marks().await?;
        let status = self.status();
        let others = status.voters.into_iter().chain(status.learners);
        let asked = others.filter(|node| *node != status.node).map(async |node| {
            let index = difference(&here, &self.marks_of(node).await?)?;
            tracing::error!(
                member = node.0,
                entry = index,
                "the state of a member is not the state of this leader: let the member join anew"
            );
            Some((node, index))
        });
        let found: BTreeMap<_, _> = join_all(asked).await.into_iter().flatten().collect();
        let differing = found.len() as u64;
        self.0.cluster.note_differences(found);
        Ok(differing)
    }

    /// What a member tells; nothing if it does not answer.
    async fn marks_of(&self, node: NodeId) -> Option<Vec<Mark>> {
        let mut client = self.client(node)?;
        let asked = client.marks(proto::MarksRequest {});
        let answer = tokio::time::timeout(REPORT_TIMEOUT, asked).await.ok()?.ok()?;
        Some(marks_from_proto(answer.into_inner()))
    }
}

pub(super) fn marks_to_proto(marks: &[Mark]) -> proto::MarksResponse {
    let one = |mark: &Mark| proto::Mark { index: mark.index, hash: mark.hash.to_vec().into() };
    proto::MarksResponse { marks: marks.iter().map(one).collect() }
}

/// What cannot be understood is left out, and compared with nothing.
fn marks_from_proto(m: proto::MarksResponse) -> Vec<Mark> {
    let one = |m: proto::Mark| {
        let hash = m.hash.as_ref().try_into().ok()?;
        Some(Mark { index: m.index, hash })
    };
    m.marks.into_iter().filter_map(one).collect()
}
