//! What goes on for as long as a node runs: the leader looks after the membership, and every node after itself.

use std::sync::Arc;
use std::time::Duration;

use nora_app::jobs::{Job, Schedule, Turn, job};
use nora_app::ports::members::MembersError;
use nora_app::ports::metadata::Metadata;
use nora_domain::{Epoch, NodeId, NodeRecord, Standing, StartNode};
use nora_proto::peer::v1 as proto;

use super::plan::{Part, Patience, Step, plan};
use super::{REPORT_TIMEOUT, Roster};
use crate::error::store_error;
use crate::raft::log_store::blocking;
use crate::rocks::locked;
use crate::transport::REMOVED_KEY;

/// How soon to look for an authority again that the state does not show yet.
const AUTHORITY_PAUSE: Duration = Duration::from_millis(250);
/// How often to look whether this node was removed.
const REMOVED_PAUSE: Duration = Duration::from_secs(2);

/// The longest pause of the membership's upkeep after failures: a new leader has little time to lose.
const RETRY_MAX: Duration = Duration::from_secs(5);

impl Roster {
    pub(super) fn upkeep(&self) -> Vec<Arc<dyn Job>> {
        let members = Schedule::every("members", self.0.config.look_interval).retry_max(RETRY_MAX);
        let certificates = Schedule::every("node-certificates", self.0.config.renew_interval);
        let authority =
            Schedule::every("authority", self.0.config.look_interval).retry_max(RETRY_MAX);
        let states = Schedule::every("compare-states", self.0.config.compare_interval);
        let (looking, renewing, comparing) = (self.clone(), self.clone(), self.clone());
        let following = self.clone();
        vec![
            // A node that starts in the middle of a rotation follows it before it enters: others may trust it no sooner.
            job(authority, move || {
                let roster = following.clone();
                async move { Ok(Turn::done().count("confirmed", roster.follow_authority().await?)) }
            }),
            job(members, move || {
                let roster = looking.clone();
                async move {
                    if roster.0.cluster.epoch() == Epoch(0) {
                        return Ok(Turn::done());
                    }
                    Ok(Turn::done().count("changes", roster.look().await?))
                }
            }),
            job(states, move || {
                let roster = comparing.clone();
                async move {
                    if roster.0.cluster.epoch() == Epoch(0) {
                        return Ok(Turn::done());
                    }
                    Ok(Turn::done().count("differing", roster.compare().await?))
                }
            }),
            job(certificates, move || {
                let roster = renewing.clone();
                async move {
                    let interval = roster.0.config.renew_interval;
                    Ok(match roster.renew().await? {
                        Some(renewed) => Turn::done().count("renewed", renewed),
                        None => Turn::after(AUTHORITY_PAUSE.min(interval)),
                    })
                }
            }),
        ]
    }

    /// Looks after the membership once. Returns how many changes it made.
    async fn look(&self) -> Result<u64, MembersError> {
        self.come_back().await?;
        if !self.leads() {
            locked(&self.0.waiting_since).clear();
            return Ok(0);
        }
        let patience = Patience {
            away_after: self.0.config.away_after,
            remove_after: self.0.config.remove_after,
        };
        if self.planned(patience).await?.is_empty() {
            return Ok(0);
        }
        let _one = self.0.changing.lock().await;
        // A leader that is new may have more to apply; and what it saw may be done by now.
        self.0.cluster.linearize().await?;
        let mut changes = 0;
        for step in self.planned(patience).await? {
            if !self.leads() {
                break;
            }
            // One that cannot be done now must not hold up the others; the next look finds it again.
            match self.take(&step).await {
                Ok(()) => changes += 1,
                Err(error) => {
                    tracing::warn!(?step, %error, "a change of the membership failed; trying again");
                }
            }
        }
        Ok(changes)
    }

    async fn planned(&self, patience: Patience) -> Result<Vec<Step>, MembersError> {
        let is_joint = self.status().is_joint;
        Ok(plan(&self.seen().await?, self.node(), is_joint, patience))
    }

    async fn take(&self, step: &Step) -> Result<(), MembersError> {
        tracing::info!(?step, "changing the membership");
        let membership = self.0.cluster.membership();
        match *step {
            Step::Finish => self.commit(membership.finish_change()).await?,
            Step::AddLearner(node, ref address) => {
                self.commit(membership.add_learner(node, address)).await?;
            }
            Step::Promote(node) => self.commit(membership.promote(node)).await?,
            Step::Demote(node) => self.expel(node, Part::Voter).await?,
            Step::Drop(node) => self.expel(node, Part::Learner).await?,
            Step::Yield => {
                self.transfer_here(None).await?;
            }
            Step::SetAway(node) => self.set_standing(node, Standing::Away).await?,
            Step::Remove(node) => self.remove_lost(node).await?,
        }
        Ok(())
    }

    async fn remove_lost(&self, node: NodeId) -> Result<(), MembersError> {
        match self.refuse_loss(node).await {
            Ok(()) => self.set_standing(node, Standing::Removed).await,
            Err(MembersError::Impossible(why)) => {
                tracing::warn!(node = node.0, why, "a node that is away for good is not removed");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// A node that was taken for lost while it ran says that it is there.
    async fn come_back(&self) -> Result<(), MembersError> {
        let node = self.node();
        match self.record(node).await? {
            Some(record)
                if record.standing == Standing::Away
                    && record.epoch == self.0.cluster.epoch()
                    && self.status().leader.is_some() =>
            {
                let NodeRecord { start, profile, .. } = record;
                let command = StartNode { node, start, replaces: start, profile };
                self.propose(command).await?.map(drop).map_err(|refusal| {
                    MembersError::Impossible(format!("this node cannot come back: {refusal:?}"))
                })
            }
            _ => Ok(()),
        }
    }

    /// Replaces certificates that are due and returns how many were; `None` if the state does not show the authority yet.
    async fn renew(&self) -> Result<Option<u64>, MembersError> {
        let Some(authority) = self.authority().await? else { return Ok(None) };
        let identity = Arc::clone(&self.0.identity);
        let renewed = blocking(move || Ok(identity.renew(&authority)))
            .await
            .map_err(store_error)?
            .map_err(store_error)?;
        if renewed.node || renewed.admin {
            tracing::info!(node = renewed.node, admin = renewed.admin, "certificates renewed");
        }
        Ok(Some(u64::from(renewed.node) + u64::from(renewed.admin)))
    }

    pub(super) async fn wait_removed(&self) {
        loop {
            let known = self.record(self.node()).await;
            if matches!(known, Ok(Some(record)) if record.standing == Standing::Removed) {
                return;
            }
            // A node that is not sent the log any more cannot know; others tell it when it asks.
            if self.was_told_removed().await {
                return;
            }
            tokio::time::sleep(REMOVED_PAUSE).await;
        }
    }

    async fn was_told_removed(&self) -> bool {
        let status = self.status();
        let asked = match status.leader {
            Some(leader) => vec![leader],
            None => status.voters,
        };
        let others = asked.into_iter().filter(|node| *node != status.node);
        let asked = others.map(|node| self.tells_removed(node));
        futures_util::future::join_all(asked).await.contains(&true)
    }

    async fn tells_removed(&self, node: NodeId) -> bool {
        let Some(mut client) = self.client(node) else { return false };
        let asked = client.report(proto::ReportRequest {});
        match tokio::time::timeout(REPORT_TIMEOUT, asked).await {
            Ok(Err(status)) => status.metadata().contains_key(REMOVED_KEY),
            Ok(Ok(_)) | Err(_) => false,
        }
    }
}
