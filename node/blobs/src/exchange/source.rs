//! Another node as a source of the chunk exchange.

use std::ops::Range;
use std::sync::Arc;

use futures_util::StreamExt;
use nora_app::ports::blobs::BlobCopy;
use nora_domain::NodeId;
use nora_swarm::{BoxFuture, ChunkTable, Source, SourceError, SourceStream};

use super::{Grudges, Peer, PeerError, Peers};

/// A copy on another node.
pub(crate) struct PeerSource {
    node: NodeId,
    copy: BlobCopy,
    peers: Arc<dyn Peers>,
    grudges: Arc<Grudges>,
}

impl PeerSource {
    pub(crate) fn new(
        node: NodeId,
        copy: BlobCopy,
        peers: Arc<dyn Peers>,
        grudges: Arc<Grudges>,
    ) -> Self {
        Self { node, copy, peers, grudges }
    }

    fn failed(&self, error: PeerError) -> SourceError {
        if matches!(error, PeerError::Unreachable { .. }) {
            self.grudges.hold(self.node);
        }
        error.into()
    }
}

impl From<PeerError> for SourceError {
    fn from(error: PeerError) -> Self {
        match error {
            PeerError::Absent(_) => Self::Absent,
            PeerError::Damaged { .. } => Self::Corrupt,
            PeerError::Unreachable { .. } | PeerError::Failed { .. } => {
                Self::Unavailable(error.to_string())
            }
        }
    }
}

impl Source for PeerSource {
    fn label(&self) -> String {
        format!("node {}", self.node.0)
    }

    fn table(&self) -> BoxFuture<'_, Result<ChunkTable, SourceError>> {
        Box::pin(async move {
            let peer = Peer::new(self.node, &*self.peers)?;
            peer.table(&self.copy).await.map_err(|error| self.failed(error))
        })
    }

    fn read(&self, range: Range<u64>) -> BoxFuture<'_, Result<SourceStream, SourceError>> {
        Box::pin(async move {
            let peer = Peer::new(self.node, &*self.peers)?;
            let body = peer.read(&self.copy, range).await.map_err(|error| self.failed(error))?;
            Ok(body.map(|piece| piece.map_err(SourceError::from)).boxed())
        })
    }
}
