//! What a node asks another for.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt};
use nora_app::ports::BoxFuture;
use nora_app::ports::blobs::BlobCopy;
use nora_domain::NodeId;
use nora_proto::exchange::v1::exchange_client::ExchangeClient;
use nora_proto::exchange::v1::store_request::Part;
use nora_proto::exchange::v1::{
    DeleteRequest, ReadRequest, StoreHeader, StoreRequest, TableRequest,
};
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::{MESSAGE_BYTES_MAX, TABLE_BYTES_MAX, wire};
use nora_swarm::ChunkTable;

/// How long an answer may take to begin.
const ANSWER_WAIT: Duration = Duration::from_secs(3);
/// How long the next bytes of a body may take.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Connections to other nodes.
pub trait Peers: Send + Sync {
    /// A connection to a node, made when it is first used; `None` if it is not known where that is.
    fn channel(&self, node: NodeId) -> Option<Channel>;
}

/// Why a node did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    /// It cannot be reached, is busy, or broke off.
    #[error("node {} does not answer: {reason}", node.0)]
    Unreachable {
        /// Which.
        node: NodeId,
        /// What was seen.
        reason: String,
    },
    /// It has no such copy.
    #[error("node {} has no such copy", .0.0)]
    Absent(NodeId),
    /// What it has, or what it was sent, is not the copy.
    #[error("the copy on node {} is damaged: {reason}", node.0)]
    Damaged {
        /// Which.
        node: NodeId,
        /// What was seen.
        reason: String,
    },
    /// It could not do it.
    #[error("node {} failed: {reason}", node.0)]
    Failed {
        /// Which.
        node: NodeId,
        /// What it said.
        reason: String,
    },
}

/// Another node.
#[derive(Clone)]
pub(crate) struct Peer {
    node: NodeId,
    client: ExchangeClient<Channel>,
}

impl Peer {
    pub(crate) fn new(node: NodeId, peers: &dyn Peers) -> Result<Self, PeerError> {
        let channel = peers.channel(node).ok_or_else(|| PeerError::Unreachable {
            node,
            reason: "its address is not known".to_owned(),
        })?;
        let client = ExchangeClient::new(channel).max_decoding_message_size(TABLE_BYTES_MAX);
        Ok(Self { node, client })
    }

    /// The chunk table of a copy, checked against its root.
    pub(crate) async fn table(&self, copy: &BlobCopy) -> Result<ChunkTable, PeerError> {
        let request = TableRequest { copy: Some(wire::copy_to(copy)) };
        let mut client = self.client.clone();
        let answer = self.within(ANSWER_WAIT, client.table(request)).await?.into_inner();
        wire::table_from(copy, &answer.hashes).ok_or_else(|| PeerError::Damaged {
            node: self.node,
            reason: "its chunk table is not that of the copy".to_owned(),
        })
    }

    /// The bytes of a range, as they come; not verified.
    pub(crate) async fn read(
        &self,
        copy: &BlobCopy,
        range: Range<u64>,
    ) -> Result<impl Stream<Item = Result<Bytes, PeerError>> + Send + use<>, PeerError> {
        let length = range.end.saturating_sub(range.start);
        let request = ReadRequest { copy: Some(wire::copy_to(copy)), offset: range.start, length };
        let mut client = self.client.clone();
        let body = self.within(ANSWER_WAIT, client.read(request)).await?.into_inner();
        let peer = self.clone();
        Ok(stream::try_unfold((body, peer, length), |(mut body, peer, left)| async move {
            let Some(message) = peer.within(SILENCE_MAX, body.message()).await? else {
                return if left == 0 { Ok(None) } else { Err(peer.broke_off()) };
            };
            let left = left.checked_sub(message.data.len() as u64);
            let left = left.ok_or_else(|| peer.broke_off())?;
            Ok(Some((message.data, (body, peer, left))))
        }))
    }

    /// Sends a copy and waits until it is durable there. `progress` counts the bytes that went out.
    pub(crate) fn store(
        &self,
        copy: &BlobCopy,
        table: &ChunkTable,
        body: BoxStream<'static, Bytes>,
        progress: Arc<AtomicU64>,
    ) -> BoxFuture<'static, Result<(), PeerError>> {
        let header = StoreHeader { copy: Some(wire::copy_to(copy)), hashes: wire::table_to(table) };
        let parts = parts(header, body, progress);
        let mut peer = self.clone();
        Box::pin(async move {
            let stored = peer.client.store(parts).await;
            stored.map(drop).map_err(|status| peer.error(&status))
        })
    }

    /// Deletes a copy that the log did not take.
    pub(crate) async fn delete(&self, copy: &BlobCopy) -> Result<(), PeerError> {
        let request = DeleteRequest { copy: Some(wire::copy_to(copy)) };
        let mut client = self.client.clone();
        self.within(ANSWER_WAIT, client.delete(request)).await.map(drop)
    }

    async fn within<T>(
        &self,
        wait: Duration,
        answer: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, PeerError> {
        match tokio::time::timeout(wait, answer).await {
            Ok(answer) => answer.map_err(|status| self.error(&status)),
            Err(_) => Err(PeerError::Unreachable {
                node: self.node,
                reason: format!("no answer in {} s", wait.as_secs()),
            }),
        }
    }

    fn broke_off(&self) -> PeerError {
        let reason = "it sent another number of bytes than it was asked for".to_owned();
        PeerError::Damaged { node: self.node, reason }
    }

    fn error(&self, status: &Status) -> PeerError {
        let (node, reason) = (self.node, status.message().to_owned());
        match status.code() {
            Code::NotFound => PeerError::Absent(node),
            Code::DataLoss => PeerError::Damaged { node, reason },
            Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Unknown
            | Code::Aborted => PeerError::Unreachable { node, reason },
            _ => PeerError::Failed { node, reason },
        }
    }
}

/// A copy's messages. A type of its own, because the compiler loses the lifetime of a boxed stream inside
/// tonic's futures.
struct Parts(BoxStream<'static, StoreRequest>);

impl Stream for Parts {
    type Item = StoreRequest;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<StoreRequest>> {
        self.0.poll_next_unpin(cx)
    }
}

fn parts(header: StoreHeader, body: BoxStream<'static, Bytes>, progress: Arc<AtomicU64>) -> Parts {
    let header = StoreRequest { part: Some(Part::Header(header)) };
    let body = body.flat_map(split).map(move |data| {
        progress.fetch_add(data.len() as u64, Ordering::Relaxed);
        StoreRequest { part: Some(Part::Data(data)) }
    });
    Parts(stream::once(std::future::ready(header)).chain(body).boxed())
}

/// Cuts a piece into messages.
fn split(mut piece: Bytes) -> impl Stream<Item = Bytes> {
    stream::iter(std::iter::from_fn(move || {
        let message = piece.split_to(piece.len().min(MESSAGE_BYTES_MAX));
        (!message.is_empty()).then_some(message)
    }))
}
