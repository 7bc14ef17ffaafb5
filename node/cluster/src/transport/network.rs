//! Consensus' calls to another node.
//!
//! Guarantees: entries travel in one ordered stream, sent without waiting for answers; an answer that does not come
//! ends the stream, and so does a connection that is lost. A node that cannot be reached is told from a call that
//! failed: the first is tried again after a pause, the second at once.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use nora_domain::NodeId;
use nora_proto::peer::v1 as proto;
use nora_proto::peer::v1::raft_client::RaftClient;
use openraft::base::{BoxFuture, BoxStream};
use openraft::error::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError,
    StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{BasicNode, OptionalSend, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use tonic::Status;
use tonic::transport::Channel;

use super::{Lane, MESSAGE_BYTES_MAX, Peers, snapshots};
use crate::codec::raft::{
    entry_to_proto, log_id_from_proto, log_id_to_proto, vote_from_proto, vote_to_proto,
};
use crate::raft::catch_up::CatchUp;
use crate::raft::snapshot::SnapshotHandle;
use crate::raft::{Snapshot, TypeConfig, Vote};

/// How long entries that were sent may stay unanswered. A dead connection is noticed sooner; this is for a node whose
/// disk hangs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

type RpcError = RPCError<TypeConfig>;

/// Makes [`Peer`]s.
#[derive(Clone)]
pub struct Network {
    node: NodeId,
    peers: Arc<Peers>,
    catch_up: Arc<CatchUp>,
}

impl Network {
    /// The network as `node` sees it.
    pub fn new(node: NodeId, peers: Arc<Peers>, catch_up: Arc<CatchUp>) -> Self {
        Self { node, peers, catch_up }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Peer {
        Peer {
            node: self.node,
            target: NodeId(target),
            address: node.addr.clone(),
            peers: self.peers.clone(),
            catch_up: self.catch_up.clone(),
        }
    }
}

/// Another node.
pub struct Peer {
    node: NodeId,
    target: NodeId,
    /// Where the membership says that it listens.
    address: String,
    peers: Arc<Peers>,
    catch_up: Arc<CatchUp>,
}

impl Peer {
    fn client(&self, lane: Lane) -> Result<RaftClient<Channel>, Unreachable<TypeConfig>> {
        let known = || Some(self.address.clone()).filter(|address| !address.is_empty());
        let channel = self.peers.channel(self.target, lane, known).ok_or_else(|| {
            Unreachable::from_string(format!("node {} has no address", self.target.0))
        })?;
        Ok(RaftClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX))
    }

    fn timeout(&self, action: RPCTypes, timeout: Duration) -> Timeout<TypeConfig> {
        Timeout { action, id: self.node.0, target: self.target.0, timeout }
    }

    async fn ask_for_vote(
        &self,
        rpc: VoteRequest<TypeConfig>,
        pre_vote: bool,
        option: &RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let mut client = self.client(Lane::Control)?;
        let asked = client.vote(proto::VoteRequest {
            vote: Some(vote_to_proto(&rpc.vote)),
            last_log_id: rpc.last_log_id.as_ref().map(log_id_to_proto),
            pre_vote,
            leader_transfer: rpc.leadership_transfer,
        });
        let answer = self.within(RPCTypes::Vote, option.soft_ttl(), asked).await?;
        let vote = answer.vote.as_ref().ok_or_else(|| malformed("a vote"))?;
        let last_log_id = answer.last_log_id.as_ref().map(log_id_from_proto);
        Ok(VoteResponse::new(vote_from_proto(vote), last_log_id, answer.granted))
    }

    async fn within<T>(
        &self,
        action: RPCTypes,
        timeout: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, RpcError> {
        match tokio::time::timeout(timeout, call).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(failed(&status)),
            Err(_) => Err(self.timeout(action, timeout).into()),
        }
    }

    async fn open_stream<S>(
        &self,
        input: S,
        option: &RPCOption,
    ) -> Result<BoxStream<'static, Result<StreamAppendResult<TypeConfig>, RpcError>>, RpcError>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let mut renewals = self.peers.renewals();
        // Ended by this end, the stream is answered to its last entry. The next one goes over a connection of the
        // certificates of now.
        let renewed = async move {
            let _ = renewals.changed().await;
        };
        let mut client = self.client(Lane::Control)?;
        let sent = Arc::new(AtomicU64::new(0));
        let requests = input.take_until(renewed).map({
            let sent = sent.clone();
            move |request| {
                sent.fetch_add(1, Ordering::Relaxed);
                append_to_proto(&request)
            }
        });
        // The connection itself is given longer than a heartbeat may take; openraft ends those by itself.
        let timeout = option.hard_ttl().max(Duration::from_secs(1));
        let answers =
            self.within(RPCTypes::AppendEntries, timeout, client.append(requests)).await?;
        let stalled = self.timeout(RPCTypes::AppendEntries, ANSWER_TIMEOUT);
        let state = Some((answers, sent, 0_u64, stalled));
        Ok(Box::pin(stream::unfold(state, |state| async {
            let (mut answers, sent, mut answered, stalled) = state?;
            loop {
                match tokio::time::timeout(ANSWER_TIMEOUT, answers.message()).await {
                    Ok(Ok(Some(answer))) => {
                        answered += 1;
                        let result = append_from_proto(answer);
                        let rest = matches!(result, Ok(Ok(_)))
                            .then_some((answers, sent, answered, stalled));
                        return Some((result, rest));
                    }
                    Ok(Ok(None)) => return None,
                    Ok(Err(status)) => return Some((Err(failed(&status)), None)),
                    Err(_) if sent.load(Ordering::Relaxed) > answered => {
                        return Some((Err(stalled.into()), None));
                    }
                    Err(_) => {}
                }
            }
        })))
    }
}

fn append_to_proto(request: &AppendEntriesRequest<TypeConfig>) -> proto::AppendRequest {
    proto::AppendRequest {
        vote: Some(vote_to_proto(&request.vote)),
        previous: request.prev_log_id.as_ref().map(log_id_to_proto),
        entries: request.entries.iter().map(entry_to_proto).collect(),
        committed: request.leader_commit.as_ref().map(log_id_to_proto),
    }
}

fn append_from_proto(
    answer: proto::AppendResponse,
) -> Result<StreamAppendResult<TypeConfig>, RpcError> {
    use proto::append_response::Result as From;
    Ok(match answer.result.ok_or_else(|| malformed("an answer to entries"))? {
        From::Matched(matched) => Ok(matched.up_to.as_ref().map(log_id_from_proto)),
        From::Conflict(at) => Err(StreamAppendError::Conflict(log_id_from_proto(&at))),
        From::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote_from_proto(&vote))),
    })
}

/// A status that says the node is not there is told from one that says the call failed.
pub(super) fn failed(status: &Status) -> RpcError {
    match status.code() {
        tonic::Code::Unavailable => Unreachable::from_string(status).into(),
        _ => NetworkError::from_string(status).into(),
    }
}

pub(super) fn malformed(what: &str) -> RpcError {
    NetworkError::from_string(format!("{what} cannot be understood")).into()
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = SnapshotHandle;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RpcError> {
        let mut answers = self.open_stream(stream::iter([rpc]), &option).await?;
        let answer = answers.next().await.ok_or_else(|| malformed("no answer to entries"))?;
        Ok(answer?.into())
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RpcError>>, RpcError>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            let mut input = input;
            // The pause that openraft makes after failures is in the stream of requests. So the first one is taken before
            // the connection is asked for: one that is refused at once would otherwise be asked for without end.
            let Some(first) = input.next().await else {
                let none: BoxStream<'s, _> = Box::pin(stream::empty());
                return Ok(none);
            };
            let requests = stream::iter([first]).chain(input);
            let answers: BoxStream<'s, _> = self.open_stream(requests, &option).await?;
            Ok(answers)
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.ask_for_vote(rpc, false, &option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.ask_for_vote(rpc, true, &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let _transfer = self.catch_up.begin(self.target);
        let client = self.client(Lane::Bulk)?;
        let sent = snapshots::send(client, &vote, &snapshot.snapshot);
        tokio::select! {
            closed = cancel => Err(closed.into()),
            sent = tokio::time::timeout(option.hard_ttl(), sent) => match sent {
                Ok(Ok(vote)) => Ok(SnapshotResponse::new(vote)),
                Ok(Err(error)) => Err(error.into()),
                Err(_) => {
                    Err(self.timeout(RPCTypes::InstallSnapshot, option.hard_ttl()).into())
                }
            },
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        let mut client = self.client(Lane::Control)?;
        let asked = client.transfer_leader(proto::TransferLeaderRequest {
            from: Some(vote_to_proto(request.from_leader())),
            to: *request.to_node_id(),
            last_log_id: request.last_log_id().map(log_id_to_proto),
        });
        self.within(RPCTypes::TransferLeader, option.soft_ttl(), asked).await?;
        Ok(Ok(()))
    }

    fn backoff(&self) -> Option<Backoff> {
        let pauses = [50, 100, 200].into_iter().chain(std::iter::repeat(200));
        Some(Backoff::new(pauses.map(Duration::from_millis)))
    }
}
