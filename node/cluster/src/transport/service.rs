//! What this node does for other members.
//!
//! Guarantee: whoever is not a member is refused before anything is read of what it sends.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt, future};
use nora_domain::NodeId;
use nora_proto::peer::v1 as proto;
use nora_proto::peer::v1::clocks_server::{Clocks, ClocksServer};
use nora_proto::peer::v1::leader_server::{Leader, LeaderServer};
use nora_proto::peer::v1::raft_server::{Raft, RaftServer};
use openraft::error::{Fatal, RaftError};
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderError,
    TransferLeaderRequest, VoteRequest,
};
use tonic::{Request, Response, Status, Streaming};

use super::{Incoming, MESSAGE_BYTES_MAX, Peers};
use crate::clock::ClusterClock;
use crate::codec::DecodeError;
use crate::codec::raft::{
    entry_from_proto, log_id_from_proto, log_id_to_proto, manifest_from_proto, vote_from_proto,
    vote_to_proto,
};
use crate::consensus::Consensus;
use crate::leader::{Desk, Submitted};
use crate::raft::TypeConfig;

/// The services, and what they work on.
#[derive(Clone)]
pub struct Services {
    /// Consensus.
    pub raft: Consensus,
    /// Who calls.
    pub peers: Arc<Peers>,
    /// What this node does while it leads.
    pub desk: Arc<Desk>,
    /// Snapshots that come in.
    pub incoming: Arc<Incoming>,
    /// The cluster's clock.
    pub(crate) clock: Arc<ClusterClock>,
}

impl Services {
    /// Their routes. Requests must carry what the transport tells callers by.
    pub fn router(self) -> axum::Router {
        let raft = RaftServer::new(self.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let clocks = ClocksServer::new(self.clone());
        let leader = LeaderServer::new(self)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        tonic::service::Routes::new(raft).add_service(leader).add_service(clocks).into_axum_router()
    }

    fn member<T>(&self, request: &Request<T>) -> Result<NodeId, Status> {
        self.peers.caller(request.extensions()).ok_or_else(|| {
            Status::permission_denied(
                "only members of the cluster may call this: show a node's certificate",
            )
        })
    }
}

fn understood<T>(message: Result<T, DecodeError>) -> Result<T, Status> {
    message.map_err(|error| Status::invalid_argument(error.to_string()))
}

fn required<T>(field: Option<T>, name: &'static str) -> Result<T, Status> {
    understood(field.ok_or(DecodeError::Unknown(name)))
}

fn fatal(error: &Fatal<TypeConfig>) -> Status {
    Status::unavailable(format!("this node has left consensus: {error}"))
}

fn raft_failed(error: &RaftError<TypeConfig>) -> Status {
    Status::unavailable(format!("this node has left consensus: {error}"))
}

fn append_from_proto(
    m: proto::AppendRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, DecodeError> {
    let vote = m.vote.as_ref().ok_or(DecodeError::Unknown("append.vote"))?;
    Ok(AppendEntriesRequest {
        vote: vote_from_proto(vote),
        prev_log_id: m.previous.as_ref().map(log_id_from_proto),
        entries: m.entries.into_iter().map(entry_from_proto).collect::<Result<_, _>>()?,
        leader_commit: m.committed.as_ref().map(log_id_from_proto),
    })
}

fn append_to_proto(result: StreamAppendResult<TypeConfig>) -> proto::AppendResponse {
    use proto::append_response::Result as To;
    let result = match result {
        Ok(up_to) => To::Matched(proto::Matched { up_to: up_to.as_ref().map(log_id_to_proto) }),
        Err(StreamAppendError::Conflict(at)) => To::Conflict(log_id_to_proto(&at)),
        Err(StreamAppendError::HigherVote(vote)) => To::HigherVote(vote_to_proto(&vote)),
    };
    proto::AppendResponse { result: Some(result) }
}

/// Messages of a stream, up to the first that cannot be read or understood: what follows it is out of order.
fn requests(
    messages: Streaming<proto::AppendRequest>,
) -> impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send {
    messages.scan((), |(), message| {
        let request = match message {
            Ok(message) => append_from_proto(message)
                .inspect_err(|error| tracing::warn!(%error, "entries cannot be understood"))
                .ok(),
            Err(status) => {
                tracing::debug!(%status, "a stream of entries ended");
                None
            }
        };
        future::ready(request)
    })
}

#[tonic::async_trait]
impl Raft for Services {
    type AppendStream =
        Pin<Box<dyn Stream<Item = Result<proto::AppendResponse, Status>> + Send + 'static>>;

    async fn append(
        &self,
        request: Request<Streaming<proto::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        self.member(&request)?;
        let results = self.raft.stream_append(requests(request.into_inner()));
        let answers = results.map(|result| match result {
            Ok(result) => Ok(append_to_proto(result)),
            Err(error) => Err(fatal(&error)),
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn vote(
        &self,
        request: Request<proto::VoteRequest>,
    ) -> Result<Response<proto::VoteResponse>, Status> {
        self.member(&request)?;
        let m = request.into_inner();
        let ask = VoteRequest {
            vote: vote_from_proto(&required(m.vote, "vote.vote")?),
            last_log_id: m.last_log_id.as_ref().map(log_id_from_proto),
            leadership_transfer: m.leader_transfer,
        };
        let answer =
            if m.pre_vote { self.raft.pre_vote(ask).await } else { self.raft.vote(ask).await };
        let answer = answer.map_err(|error| raft_failed(&error))?;
        Ok(Response::new(proto::VoteResponse {
            vote: Some(vote_to_proto(&answer.vote)),
            granted: answer.vote_granted,
            last_log_id: answer.last_log_id.as_ref().map(log_id_to_proto),
        }))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<proto::SnapshotChunk>>,
    ) -> Result<Response<proto::InstallSnapshotResponse>, Status> {
        self.member(&request)?;
        let vote = self.incoming.receive(&self.raft, request.into_inner()).await?;
        Ok(Response::new(proto::InstallSnapshotResponse { vote: Some(vote_to_proto(&vote)) }))
    }

    async fn snapshot_progress(
        &self,
        request: Request<proto::SnapshotProgressRequest>,
    ) -> Result<Response<proto::SnapshotProgressResponse>, Status> {
        self.member(&request)?;
        let m = request.into_inner();
        let manifest = understood(manifest_from_proto(required(m.manifest, "snapshot.manifest")?))?;
        let files = self.incoming.progress(m.snapshot_id, manifest).await?;
        Ok(Response::new(proto::SnapshotProgressResponse { files }))
    }

    async fn transfer_leader(
        &self,
        request: Request<proto::TransferLeaderRequest>,
    ) -> Result<Response<proto::TransferLeaderResponse>, Status> {
        self.member(&request)?;
        let m = request.into_inner();
        let from = vote_from_proto(&required(m.from, "transfer.from")?);
        let last = m.last_log_id.as_ref().map(log_id_from_proto);
        let transfer = TransferLeaderRequest::new(from, m.to, last);
        let answer = self.raft.handle_transfer_leader(transfer).await;
        match answer.map_err(|error| fatal(&error))? {
            Ok(()) => Ok(Response::new(proto::TransferLeaderResponse {})),
            // The leader that asked sees that it was not heeded, and leads on.
            Err(
                error @ (TransferLeaderError::VoteChanged { .. }
                | TransferLeaderError::LogNotFlushed { .. }),
            ) => Err(Status::failed_precondition(error.to_string())),
        }
    }
}

fn submitted_to_proto(submitted: Submitted) -> proto::Proposed {
    use proto::proposed::Result as To;
    let result = match submitted {
        Submitted::Applied(index) => To::Index(index),
        Submitted::NotLeader(leader) => To::NotLeader(not_leader(leader)),
        Submitted::Busy => To::Busy(proto::Busy {}),
        Submitted::Unknown => To::Unknown(proto::Unknown {}),
    };
    proto::Proposed { result: Some(result) }
}

fn not_leader(leader: Option<NodeId>) -> proto::NotLeader {
    proto::NotLeader { leader: leader.map_or(0, |leader| leader.0) }
}

#[tonic::async_trait]
impl Leader for Services {
    async fn propose(
        &self,
        request: Request<proto::ProposeRequest>,
    ) -> Result<Response<proto::ProposeResponse>, Status> {
        self.member(&request)?;
        let submitted = self.desk.submit(request.into_inner().commands).await;
        let results = submitted.into_iter().map(submitted_to_proto).collect();
        Ok(Response::new(proto::ProposeResponse { results }))
    }

    async fn read_index(
        &self,
        request: Request<proto::ReadIndexRequest>,
    ) -> Result<Response<proto::ReadIndexResponse>, Status> {
        use proto::read_index_response::Result as To;
        self.member(&request)?;
        let result = match self.desk.read_index().await {
            Ok(index) => To::Read(proto::ReadIndex { index }),
            Err(leader) => To::NotLeader(not_leader(leader)),
        };
        Ok(Response::new(proto::ReadIndexResponse { result: Some(result) }))
    }
}

#[tonic::async_trait]
impl Clocks for Services {
    async fn compare(
        &self,
        request: Request<proto::CompareRequest>,
    ) -> Result<Response<proto::CompareResponse>, Status> {
        self.member(&request)?;
        Ok(Response::new(self.clock.compare(request.into_inner())))
    }
}
