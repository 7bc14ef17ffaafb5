//! Whoever leads: this node or another, asked the same way.
//!
//! Guarantees: what is said not to be done is not done; what may or may not be done is said to be unknown. Must not
//! know: what commands mean.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use nora_domain::NodeId;
use nora_proto::peer::v1 as proto;
use nora_proto::peer::v1::leader_client::LeaderClient;
use openraft::ReadPolicy;
use openraft::async_runtime::WatchReceiver;
use openraft::error::{ClientWriteError, LinearizableReadError, RaftError};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::clock::ClusterClock;
use crate::consensus::Consensus;
use crate::raft::Proposal;
use crate::transport::{Lane, Peers};

/// How long the leader may take to apply a batch before it is sent again.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long the leader may take to say how far it has committed.
const READ_INDEX_TIMEOUT: Duration = Duration::from_secs(2);

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// The leader has applied it, as the entry at this index.
    Applied(u64),
    /// Whoever was asked does not lead. Nothing was done.
    NotLeader(Option<NodeId>),
    /// Too much is waiting. Nothing was done.
    Busy,
    /// It may or may not be applied.
    Unknown,
}

/// The way to whoever leads.
pub struct Leader {
    raft: Consensus,
    node: NodeId,
    peers: Arc<Peers>,
    desk: Arc<Desk>,
}

impl Leader {
    /// The way from `node`, whose own side of it is `desk`.
    pub fn new(raft: Consensus, node: NodeId, peers: Arc<Peers>, desk: Arc<Desk>) -> Self {
        Self { raft, node, peers, desk }
    }

    /// Who leads, as far as this node knows.
    pub fn node(&self) -> Option<NodeId> {
        self.raft.metrics().borrow_watched().current_leader.map(NodeId)
    }

    /// Proposes commands to whoever leads; one result for each, in order.
    pub async fn propose(&self, commands: Vec<Bytes>) -> Vec<Submitted> {
        let count = commands.len();
        match self.node() {
            None => vec![Submitted::NotLeader(None); count],
            Some(leader) if leader == self.node => self.desk.submit(commands).await,
            Some(leader) => match self.channel(leader) {
                None => vec![Submitted::NotLeader(None); count],
                Some(channel) => tokio::select! {
                    submitted = propose_remotely(LeaderClient::new(channel), commands) => submitted,
                    // A leader that was cut off answers nobody; whoever follows it must not be waited for as long.
                    () = self.another_than(Some(leader)) => vec![Submitted::Unknown; count],
                },
            },
        }
    }

    /// The position up to which a read that starts now must see the state; none if nobody could tell.
    pub async fn read_index(&self) -> Option<u64> {
        match self.node()? {
            leader if leader == self.node => self.desk.read_index().await.ok(),
            leader => {
                let mut client = LeaderClient::new(self.channel(leader)?);
                let asked = client.read_index(proto::ReadIndexRequest {});
                let asked = tokio::time::timeout(READ_INDEX_TIMEOUT, asked);
                let answer = tokio::select! {
                    answer = asked => answer.ok()?.ok()?,
                    () = self.another_than(Some(leader)) => return None,
                };
                match answer.into_inner().result? {
                    proto::read_index_response::Result::Read(read) => Some(read.index),
                    proto::read_index_response::Result::NotLeader(_) => None,
                }
            }
        }
    }

    /// Waits for `pause` from `begun` on, or until somebody else leads.
    pub async fn pause(&self, begun: Instant, pause: Duration) {
        let pause = (begun + pause).max(Instant::now() + pause / 4);
        let _ = tokio::time::timeout_at(pause, self.another_than(self.node())).await;
    }

    /// Waits until this node knows that another one than `leader` leads.
    async fn another_than(&self, leader: Option<NodeId>) {
        // Not all metrics: those change with every entry, and each change would wake every proposal under way.
        let mut metrics = self.raft.server_metrics();
        loop {
            let now = metrics.borrow_watched().current_leader.map(NodeId);
            if now.is_some() && now != leader {
                return;
            }
            if metrics.changed().await.is_err() {
                // Consensus has ended: nobody will.
                return std::future::pending().await;
            }
        }
    }

    fn channel(&self, leader: NodeId) -> Option<tonic::transport::Channel> {
        self.peers.channel(leader, Lane::Control, || crate::consensus::address(&self.raft, leader))
    }
}

async fn propose_remotely(
    mut client: LeaderClient<tonic::transport::Channel>,
    commands: Vec<Bytes>,
) -> Vec<Submitted> {
    let count = commands.len();
    let asked = client.propose(proto::ProposeRequest { commands });
    let mut submitted = match tokio::time::timeout(PROPOSE_TIMEOUT, asked).await {
        Ok(Ok(answer)) => {
            answer.into_inner().results.iter().map(submitted_from_proto).collect::<Vec<_>>()
        }
        Ok(Err(status)) => {
            tracing::debug!(%status, "the leader did not take proposals");
            Vec::new()
        }
        Err(_) => Vec::new(),
    };
    submitted.resize(count, Submitted::Unknown);
    submitted
}

fn submitted_from_proto(m: &proto::Proposed) -> Submitted {
    use proto::proposed::Result as From;
    match &m.result {
        Some(From::Index(index)) => Submitted::Applied(*index),
        Some(From::NotLeader(m)) => {
            Submitted::NotLeader(Some(NodeId(m.leader)).filter(|leader| leader.0 != 0))
        }
        Some(From::Busy(_)) => Submitted::Busy,
        Some(From::Unknown(_)) | None => Submitted::Unknown,
    }
}

/// This node as a leader: what it does for itself and for others, while it leads.
pub struct Desk {
    raft: Consensus,
    clock: Arc<ClusterClock>,
    bytes_max: usize,
    bytes: Semaphore,
}

impl Desk {
    /// A desk that holds commands of so many bytes together.
    pub(crate) fn new(raft: Consensus, clock: Arc<ClusterClock>, bytes_max: usize) -> Self {
        Self { raft, clock, bytes_max, bytes: Semaphore::new(bytes_max) }
    }

    /// Writes commands into the log, stamped with the cluster's time, and waits until they are applied here. One result
    /// for each, in order.
    pub async fn submit(&self, commands: Vec<Bytes>) -> Vec<Submitted> {
        let count = commands.len();
        let bytes = commands.iter().map(Bytes::len).sum::<usize>().min(self.bytes_max);
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let Ok(_permit) = self.bytes.try_acquire_many(permits) else {
            return vec![Submitted::Busy; count];
        };
        let at = {
            let server = self.raft.server_metrics();
            let server = server.borrow_watched();
            // A node that does not lead has no clock to stamp with.
            if server.current_leader != Some(server.id) {
                return vec![Submitted::NotLeader(server.current_leader.map(NodeId)); count];
            }
            let voters = server.membership_config.membership().voter_ids();
            self.clock.stamp(server.vote.leader_id.term, voters.map(NodeId))
        };
        let proposals = commands.into_iter().map(|command| Proposal { at, command });
        let mut submitted = Vec::with_capacity(count);
        if let Ok(mut results) = self.raft.client_write_many(proposals).await {
            while let Some(Ok(result)) = results.next().await {
                submitted.push(match result {
                    Ok(written) => Submitted::Applied(written.log_id.index),
                    Err(ClientWriteError::ForwardToLeader(to)) => {
                        Submitted::NotLeader(to.leader_id.map(NodeId))
                    }
                    Err(_) => Submitted::Unknown,
                });
            }
        }
        // Consensus ended with these in its queue: nobody can tell how far they came.
        submitted.resize(count, Submitted::Unknown);
        submitted
    }

    /// The position up to which a read that starts now must see the state; an error says who may lead instead.
    pub async fn read_index(&self) -> Result<u64, Option<NodeId>> {
        match self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => Ok(linearizer.read_log_id().index()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to))) => {
                Err(to.leader_id.map(NodeId))
            }
            Err(error) => {
                tracing::debug!(%error, "the leader cannot reach a quorum");
                Err(None)
            }
        }
    }
}
