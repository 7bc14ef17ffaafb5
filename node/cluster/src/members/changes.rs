//! Changes that the leader makes because somebody asked for them, and the way to the leader.

use std::time::Duration;

use nora_app::ports::members::MembersError;
use nora_app::ports::metadata::{Metadata, MetadataError};
use nora_domain::{Key, NodeId, Placement, Record, Rows, Standing};
use tokio::time::Instant;

use super::Roster;
use super::plan::{Part, SILENT, Seen, VOTERS_MAX, quorum_without};
use super::wire::{Change, Changed, change_to_proto, changed_from_proto};
use crate::rocks::locked;

/// How long a change may take on the leader until whoever asks is told to look and ask again.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait for a leader.
const LEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the leader waits for a node to come as far as a change needs it.
const READY_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a change of the membership may take to commit before it is left to the next look.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);
/// Blobs looked at between two breaths.
const BLOBS_PAGE: usize = 1000;

impl Roster {
    /// Has the leader make a change, whoever that is.
    pub(super) async fn change(&self, change: Change) -> Result<NodeId, MembersError> {
        let deadline = Instant::now() + LEADER_TIMEOUT;
        let mut asked_before = false;
        loop {
            let changed = match self.status().leader {
                Some(leader) if leader == self.node() => self.change_here(change).await,
                Some(leader) => match self.ask(leader, change).await {
                    Some(changed) => changed,
                    // Every change can be asked for twice.
                    None => {
                        asked_before = true;
                        Changed::NotLeader
                    }
                },
                None => Changed::NotLeader,
            };
            match changed {
                Changed::Done(node) => return Ok(node),
                // It is gone because this was asked for.
                Changed::Refused(MembersError::Removed(node))
                    if asked_before && matches!(change, Change::Remove { .. }) =>
                {
                    return Ok(node);
                }
                Changed::Refused(error) => return Err(error),
                Changed::NotLeader if Instant::now() >= deadline => {
                    let unknown = MetadataError::OutcomeUnknown;
                    return Err(if asked_before { unknown } else { MetadataError::NoLeader }.into());
                }
                Changed::NotLeader => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Asks another node to make a change; `None` if there is no telling what came of it.
    async fn ask(&self, leader: NodeId, change: Change) -> Option<Changed> {
        let mut client = self.client(leader)?;
        let asked = client.change(change_to_proto(change));
        match tokio::time::timeout(CHANGE_TIMEOUT, asked).await.ok()? {
            Ok(answer) => Some(changed_from_proto(answer.into_inner())),
            Err(status) => {
                tracing::debug!(leader = leader.0, %status, "the leader did not make a change");
                None
            }
        }
    }

    /// Makes a change, if this node leads.
    pub(super) async fn change_here(&self, change: Change) -> Changed {
        let _one = self.0.changing.lock().await;
        if !self.leads() {
            return Changed::NotLeader;
        }
        let changed = match change {
            Change::Promote(node) => self.promote_here(node).await,
            Change::Remove { node, force } => match self.remove_here(node, force).await {
                Ok(Some(node)) => Ok(node),
                Ok(None) => return Changed::NotLeader,
                Err(error) => Err(error),
            },
            Change::Transfer(to) => self.transfer_here(to).await,
        };
        match changed {
            Ok(node) => Changed::Done(node),
            Err(MembersError::Metadata(MetadataError::NoLeader)) => Changed::NotLeader,
            Err(error) => Changed::Refused(error),
        }
    }

    /// Every node, as this leader sees it. The state must be current.
    pub(super) async fn seen(&self) -> Result<Vec<Seen>, MetadataError> {
        let (records, status) = (self.records().await?, self.status());
        let now = self.0.cluster.now();
        let mut waiting_since = locked(&self.0.waiting_since);
        let seen = records.into_iter().map(|(node, record)| {
            let part = if status.voters.contains(&node) {
                Part::Voter
            } else if status.learners.contains(&node) {
                Part::Learner
            } else {
                Part::Outside
            };
            let replication = status.replication.get(&node).copied().unwrap_or_default();
            let itself = node == status.node;
            let waited = waiting_since.entry(node).or_insert_with(Instant::now).elapsed();
            let silent = replication.heard.map_or(waited, |heard| heard.min(waited));
            Seen {
                node,
                standing: record.standing,
                part,
                address: record.profile.cluster_address,
                live: itself || replication.heard.is_some_and(|heard| heard < SILENT),
                silent: if itself { Duration::ZERO } else { silent },
                lag_entries: if itself { 0 } else { replication.lag_entries },
                stood: Duration::from_millis(now.0.saturating_sub(record.changed_at.0)),
            }
        });
        Ok(seen.collect())
    }

    /// Waits a little for `ready` to hold of what this leader sees, and gives that, or what it saw last.
    async fn seen_when(&self, ready: impl Fn(&[Seen]) -> bool) -> Result<Vec<Seen>, MetadataError> {
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            self.0.cluster.linearize().await?;
            let seen = self.seen().await?;
            if ready(&seen) || Instant::now() >= deadline {
                return Ok(seen);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn promote_here(&self, node: NodeId) -> Result<NodeId, MembersError> {
        let ready = |seen: &[Seen]| {
            find(seen, node).is_none_or(|of| {
                of.part == Part::Voter
                    || of.standing == Standing::Removed
                    || (of.part == Part::Learner && of.has_caught_up())
            })
        };
        let seen = self.seen_when(ready).await?;
        let of = find(&seen, node).ok_or(MembersError::Unknown(node))?;
        let why = match (of.standing, of.part) {
            (Standing::Removed, _) => return Err(MembersError::Removed(node)),
            (_, Part::Voter) => return Ok(node),
            (Standing::Joining, _) => "it has not started yet".to_owned(),
            (_, Part::Outside) => "it does not get the log yet: ask again in a moment".to_owned(),
            _ if seen.iter().filter(|of| of.part == Part::Voter).count() >= VOTERS_MAX => {
                format!("there are {VOTERS_MAX} voters already; more make writes slower")
            }
            _ if !of.live => "it does not answer: start it, or look at the network".to_owned(),
            _ if !of.has_caught_up() => {
                format!("it lacks {} entries: ask again when it has caught up", of.lag_entries)
            }
            _ => {
                self.commit(self.0.cluster.membership().promote(node)).await?;
                return Ok(node);
            }
        };
        Err(MembersError::Impossible(format!("node {} cannot vote: {why}", node.0)))
    }

    /// Takes a node out; `None` if another node leads now and has to do it.
    async fn remove_here(&self, node: NodeId, force: bool) -> Result<Option<NodeId>, MembersError> {
        let ready = |seen: &[Seen]| {
            find(seen, node).is_none_or(|of| of.part != Part::Voter) || quorum_without(seen, node)
        };
        let seen = self.seen_when(ready).await?;
        let of = find(&seen, node).ok_or(MembersError::Unknown(node))?;
        if of.standing == Standing::Removed && of.part == Part::Outside {
            return Err(MembersError::Removed(node));
        }
        if of.standing == Standing::Active && !force {
            return Err(MembersError::Impossible(format!(
                "node {} is active: drain it first, and remove it once others have what it holds, or use force",
                node.0
            )));
        }
        if of.part == Part::Voter && !quorum_without(&seen, node) {
            return Err(MembersError::Impossible(format!(
                "without node {} the voters that answer would be no majority: start the others or let new nodes join \
                 first",
                node.0
            )));
        }
        if !force {
            self.refuse_loss(node).await?;
        }
        if node == self.node() {
            self.transfer_here(None).await?;
            return Ok(None);
        }
        // This is what counts: from here on the node is refused, and whoever leads takes it out of consensus.
        self.set_standing(node, Standing::Removed).await.or_else(|error| match error {
            MembersError::Removed(_) => Ok(()),
            error => Err(error),
        })?;
        tracing::info!(node = node.0, force, "node removed");
        if let Err(error) = self.expel(node, of.part).await {
            tracing::warn!(node = node.0, %error, "a removed node is still part of consensus; trying again");
        }
        Ok(Some(node))
    }

    /// Takes a removed node out of consensus.
    pub(super) async fn expel(&self, node: NodeId, part: Part) -> Result<(), MetadataError> {
        let membership = self.0.cluster.membership();
        if part == Part::Voter {
            self.commit(membership.demote(node)).await?;
        }
        if part != Part::Outside {
            self.commit(membership.remove_learner(node)).await?;
        }
        Ok(())
    }

    /// Refuses if a blob has its last copy on a node. Copies on nodes that are away do not count: they may never come
    /// back. Whatever cannot be read refuses, too.
    pub(super) async fn refuse_loss(&self, node: NodeId) -> Result<(), MembersError> {
        let counted: Vec<NodeId> = self
            .records()
            .await?
            .into_iter()
            .filter(|(other, record)| {
                *other != node && matches!(record.standing, Standing::Active | Standing::Draining)
            })
            .map(|(other, _)| other)
            .collect();
        let (mut after, mut lost) = (None, 0u64);
        loop {
            let page = self.0.cluster.scan(Rows::Blobs { after }, BLOBS_PAGE).await?;
            let whole = page.len() == BLOBS_PAGE;
            after = None;
            for (key, record) in page {
                let (Key::Blob(digest), Record::Blob(blob)) = (key, record) else { continue };
                after = Some(digest);
                if let Placement::Nodes(holders) = &blob.placement
                    && holders.contains(&node)
                    && !holders.iter().any(|holder| counted.contains(holder))
                {
                    lost += 1;
                }
            }
            if !whole || after.is_none() {
                break;
            }
        }
        if lost == 0 {
            return Ok(());
        }
        Err(MembersError::Impossible(format!(
            "{lost} blobs have their last copy on node {}: drain it and wait until others have them, or use force and \
             lose them",
            node.0
        )))
    }

    pub(super) async fn transfer_here(&self, to: Option<NodeId>) -> Result<NodeId, MembersError> {
        let me = self.node();
        if to == Some(me) {
            return Ok(me);
        }
        let fits = |of: &Seen| of.part == Part::Voter && of.node != me && of.live;
        let ready = |seen: &[Seen]| match to {
            Some(to) => find(seen, to).is_none_or(fits),
            None => seen.iter().any(fits),
        };
        let seen = self.seen_when(ready).await?;
        if let Some(to) = to {
            let of = find(&seen, to).ok_or(MembersError::Unknown(to))?;
            if of.standing == Standing::Removed {
                return Err(MembersError::Removed(to));
            }
            if of.part != Part::Voter {
                return Err(MembersError::Impossible(format!(
                    "node {} does not vote, so it cannot lead: promote it first",
                    to.0
                )));
            }
        }
        if !ready(&seen) {
            return Err(MembersError::Impossible(
                "no other voter answers that could lead: start one, or look at the network".into(),
            ));
        }
        match self.0.cluster.membership().transfer_leader(to).await {
            Ok(leader) => Ok(leader),
            Err(MetadataError::NoLeader) if self.leads() => Err(MembersError::Impossible(
                "the other node did not take the lead in time: ask again in a moment".into(),
            )),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for a change of the membership, but not for ever: one that finds no quorum waits for one.
    pub(super) async fn commit(
        &self,
        change: impl Future<Output = Result<(), MetadataError>>,
    ) -> Result<(), MetadataError> {
        let changed = tokio::time::timeout(COMMIT_TIMEOUT, change).await;
        changed.unwrap_or(Err(MetadataError::OutcomeUnknown))
    }
}

fn find(seen: &[Seen], node: NodeId) -> Option<&Seen> {
    seen.iter().find(|of| of.node == node)
}
