//! Replacing the cluster's authority and the secrets that go with it, while the cluster works.
//!
//! The state says how far a rotation is (see `nora_domain`'s authority); every member follows it on its own disk and
//! confirms. No leader has to drive it: the last confirmation of a stage ends the stage, in apply.
//!
//! Guarantees: a member confirms what is on its disk already; before it confirms that it shows its new certificate, the
//! connections that it made under the old one have ended, or had [`MembersConfig::rotation_patience`] to end.

use std::sync::Arc;

use nora_app::ports::members::{MembersError, RotationView};
use nora_domain::{
    Actor, AuthorityRecord, BeginRotation, ConfirmRotation, Epoch, NodeId, NodeRecord, Refusal,
    RotationStage, SharedSecret, Standing,
};
use nora_trust::{Authority, Followed, new_secret};
use tokio::time::Instant;

use super::Roster;
use crate::error::store_error;
use crate::raft::log_store::blocking;
use crate::rocks::locked;

impl Roster {
    /// Begins to replace the authority. Returns once that is durable; the members do the rest by themselves.
    pub(super) async fn begin_rotation(&self, by: Actor) -> Result<(), MembersError> {
        let authority = Authority::new(self.0.identity.cluster())
            .map_err(|error| store_error(error.to_string()))?;
        let secret =
            || new_secret().map(SharedSecret).map_err(|error| store_error(error.to_string()));
        let command =
            BeginRotation { keys: authority.to_keys(), secret: secret()?, session_key: secret()? };
        match self.propose_by(by, command).await? {
            Ok(()) => {
                tracing::warn!("the cluster's authority is being replaced");
                Ok(())
            }
            Err(Refusal::RotationUnderWay) => Err(MembersError::Impossible(
                "the cluster's authority is being replaced already: 'nora cluster status' shows how far that is".into(),
            )),
            Err(refusal) => Err(MembersError::Impossible(format!(
                "the cluster's authority was not replaced: {refusal:?}"
            ))),
        }
    }

    /// How far a rotation is, and which members it waits for; `None` if there is none.
    pub(super) fn rotation_view(
        &self,
        authority: Option<AuthorityRecord>,
        members: &[(NodeId, NodeRecord)],
    ) -> Option<RotationView> {
        let authority = authority?;
        // Over is over here only once this node trusts the old authority no more.
        let is_behind = !self.0.identity.trusts_as(&authority);
        let Some(rotation) = authority.rotation else {
            let (stage, begun_at) = (RotationStage::Show, self.status().clock.now);
            let waits_for = vec![self.node()];
            return is_behind.then_some(RotationView { stage, begun_at, waits_for });
        };
        let waits_for = members
            .iter()
            .filter(|(_, record)| record.standing != Standing::Removed)
            .map(|(node, _)| *node)
            .filter(|node| !rotation.confirmed.contains(node))
            .collect();
        Some(RotationView { stage: rotation.stage, begun_at: rotation.begun_at, waits_for })
    }

    /// Does what the authority's row asks of this node, and confirms it. Returns how many confirmations that took.
    pub(super) async fn follow_authority(&self) -> Result<u64, MembersError> {
        let Some(record) = self.authority().await? else { return Ok(0) };
        let (identity, following) = (Arc::clone(&self.0.identity), record.clone());
        let Followed { has_changed, confirms } = blocking(move || Ok(identity.follow(&following)))
            .await
            .map_err(store_error)?
            .map_err(store_error)?;
        let peers = self.0.cluster.peers();
        if has_changed {
            // Calls from now on go over connections that show, and are shown, the certificates of now.
            peers.renew();
            *locked(&self.0.renewed_at) = Some(Instant::now());
        }
        let (Some(stage), Some(rotation)) = (confirms, &record.rotation) else {
            return Ok(0);
        };
        let node = self.node();
        if rotation.confirmed.contains(&node) || self.0.cluster.epoch() == Epoch(0) {
            return Ok(0);
        }
        if stage == RotationStage::Show && peers.has_older() && self.is_patient() {
            return Ok(0);
        }
        let certificate = rotation.keys.certificate.clone();
        match self.propose(ConfirmRotation { stage, certificate, node }).await? {
            Ok(()) => {
                tracing::info!(?stage, "this node has done its part of the authority's rotation");
                Ok(1)
            }
            // This node is behind, and finds out what is asked of it now as it catches up.
            Err(Refusal::RotationMoved) => Ok(0),
            Err(refusal) => Err(MembersError::Impossible(format!(
                "the rotation of the authority was not confirmed: {refusal:?}"
            ))),
        }
    }

    /// Whether connections of before may still come to their own end.
    fn is_patient(&self) -> bool {
        let renewed_at = *locked(&self.0.renewed_at);
        renewed_at.is_some_and(|at| at.elapsed() < self.0.config.rotation_patience)
    }
}
