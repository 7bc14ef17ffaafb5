//! The leader compares the members' wall clocks once a second, and lets another node lead if its own is wrong.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use nora_domain::{NodeId, Timestamp};
use nora_proto::peer::v1 as proto;
use nora_proto::peer::v1::clocks_client::ClocksClient;
use openraft::async_runtime::WatchReceiver;
use tokio::time::Instant;

use super::{ClusterClock, Told};
use crate::consensus::{Consensus, Membership};
use crate::rocks::locked;
use crate::transport::{Lane, Peers};

/// How often a leader asks.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long a member may take to answer. The answer's error is half of this at most.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// How often a leader whose clock is wrong tries to let another node lead.
const TRANSFER_PAUSE: Duration = Duration::from_secs(10);

/// Compares clocks for as long as consensus runs.
pub(crate) async fn keep_comparing(clock: Arc<ClusterClock>, raft: Consensus, peers: Arc<Peers>) {
    let mut server = raft.server_metrics();
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut transferred: Option<Instant> = None;
    loop {
        // An election must not wait for the next tick: until the first comparison, the clock cannot be corrected.
        tokio::select! {
            _ = ticks.tick() => {}
            changed = server.changed() => if changed.is_err() {
                return;
            },
        }
        if raft.metrics().borrow_watched().running_state.is_err() {
            return;
        }
        let Some(members) = clock.note_leading(&raft) else { continue };
        ask_all(&clock, &raft, &peers, &members).await;
        let is_due = transferred.is_none_or(|at| at.elapsed() >= TRANSFER_PAUSE);
        if is_due && let Some(to) = clock.better_leader() {
            transferred = Some(Instant::now());
            yield_to(&raft, to).await;
        }
    }
}

async fn yield_to(raft: &Consensus, to: NodeId) {
    tracing::warn!(to = to.0, "this leader's wall clock is wrong: another node is to lead");
    if let Err(error) = Membership::new(raft.clone()).transfer_leader(Some(to)).await {
        tracing::warn!(to = to.0, %error, "the other node did not take the lead; trying again");
    }
}

async fn ask_all(
    clock: &Arc<ClusterClock>,
    raft: &Consensus,
    peers: &Arc<Peers>,
    members: &[NodeId],
) {
    join_all(members.iter().map(|member| ask(clock, raft, peers, *member))).await;
}

async fn ask(clock: &ClusterClock, raft: &Consensus, peers: &Peers, member: NodeId) {
    let known = || crate::consensus::address(raft, member);
    let Some(channel) = peers.channel(member, Lane::Control, known) else { return };
    let Some(told) = clock.tell(member) else { return };
    let term = told.term;
    let (asked, mut client) = (Instant::now(), ClocksClient::new(channel));
    let answer = client.compare(told_to_proto(told));
    if let Ok(Ok(answer)) = tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
        let wall = Timestamp(answer.into_inner().wall_millis);
        clock.answered(term, member, asked, wall);
    }
}

fn told_to_proto(told: Told) -> proto::CompareRequest {
    proto::CompareRequest {
        term: told.term,
        clock_millis: told.clock.0,
        offset_millis: told.offset_millis,
        reachable: told.reachable.iter().map(|node| node.0).collect(),
    }
}

impl ClusterClock {
    /// What the leader told this node; gives this node's wall clock.
    pub(crate) fn compare(&self, m: proto::CompareRequest) -> proto::CompareResponse {
        let wall = self.hear(Told {
            term: m.term,
            clock: Timestamp(m.clock_millis),
            offset_millis: m.offset_millis,
            reachable: m.reachable.into_iter().map(NodeId).collect(),
        });
        proto::CompareResponse { wall_millis: wall.0 }
    }

    /// Notes whether this node leads. Gives the other members if it does.
    fn note_leading(&self, raft: &Consensus) -> Option<Vec<NodeId>> {
        let server = raft.server_metrics();
        let server = server.borrow_watched();
        if server.current_leader != Some(self.node.0) {
            self.follow();
            return None;
        }
        let membership = server.membership_config.membership();
        let mut inner = locked(&self.inner);
        let term = server.vote.leader_id.term;
        self.lead(&mut inner, term, membership.voter_ids().map(NodeId), Instant::now());
        inner.voters = membership.voter_ids().map(NodeId).collect();
        let others = membership.nodes().map(|(node, _)| NodeId(*node));
        let others: Vec<_> = others.filter(|node| *node != self.node).collect();
        inner.reports.retain(|node, _| others.contains(node));
        Some(others)
    }

    /// The voter that should lead instead of this one: none if this leader's clock is right, or nobody's is better.
    fn better_leader(&self) -> Option<NodeId> {
        let own = self.compare_own()?;
        if !self.is_over(own) {
            return None;
        }
        let status = self.status();
        let inner = locked(&self.inner);
        let right = |(node, offset): &(&NodeId, &i64)| {
            // Half of the limit, so that the leadership does not go back and forth.
            **node != self.node
                && inner.voters.contains(node)
                && !self.is_over(offset.saturating_mul(2))
        };
        let best = status.members.iter().filter(right);
        best.min_by_key(|(_, offset)| offset.unsigned_abs()).map(|(node, _)| *node)
    }
}
