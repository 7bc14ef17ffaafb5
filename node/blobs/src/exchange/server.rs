//! The service: this node's files for other nodes.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use nora_app::ports::BoxError;
use nora_app::ports::blobs::{BlobCopy, BlobError, Blobs, Delivery};
use nora_domain::{Key, Record, Standing};
use nora_proto::exchange::v1::exchange_server::ExchangeServer;
use nora_proto::exchange::v1::store_request::Part;
use nora_proto::exchange::v1::{
    DeleteRequest, DeleteResponse, ReadRequest, ReadResponse, StoreRequest, StoreResponse,
    TableRequest, TableResponse, exchange_server,
};
use nora_trust::Peer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, warn};

use super::{MESSAGE_BYTES_MAX, TABLE_BYTES_MAX, wire};
use crate::incoming::{self, Incoming, IncomingError};
use crate::inventory::FileState;
use crate::replicated::Shared;
use nora_swarm::ChunkTable;

/// Copies that may be sent out at once.
const READS_MAX: usize = 128;
/// Copies that may come in at once.
const STORES_MAX: usize = 128;
/// How long a request waits for its turn before it is told that this node is busy.
const TURN_WAIT: Duration = Duration::from_secs(2);
/// Bytes of a copy on their way in that are handed to the disk at once.
const BATCH_BYTES: usize = 1 << 20;
/// How long the next bytes of a copy may take.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// The service.
pub(crate) struct Exchange {
    shared: Arc<Shared>,
    reads: Arc<Semaphore>,
    stores: Arc<Semaphore>,
}

impl Exchange {
    pub(crate) fn router(shared: Arc<Shared>) -> axum::Router {
        let service = Self {
            shared,
            reads: Arc::new(Semaphore::new(READS_MAX)),
            stores: Arc::new(Semaphore::new(STORES_MAX)),
        };
        let server = ExchangeServer::new(service).max_decoding_message_size(TABLE_BYTES_MAX);
        tonic::service::Routes::new(server).into_axum_router()
    }

    /// Lets members through and nobody else; one that was removed still has its certificate.
    async fn check<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let node = match request.extensions().get() {
            Some(Peer::Member { node }) => *node,
            Some(Peer::Admin) => {
                return Err(Status::permission_denied("only members exchange blobs"));
            }
            Some(Peer::Anonymous) | None => {
                return Err(Status::unauthenticated("a member's certificate is needed"));
            }
        };
        let view = self.shared.views.now().await;
        match view.map(|view| view.standing(node)) {
            Ok(Some(Standing::Removed)) => {
                Err(Status::permission_denied("this node was removed from the cluster"))
            }
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(Status::unavailable("this node is not known here yet")),
            Err(error) => Err(failed("learn who is a member", &error.into())),
        }
    }

    async fn table_of(&self, copy: BlobCopy) -> Result<ChunkTable, Status> {
        let inner = Arc::clone(&self.shared.local.inner);
        let read = spawn_blocking({
            let copy = copy.clone();
            move || inner.table_of(&copy)
        });
        match read.await {
            Ok(Ok(Some(table))) => Ok(table),
            Ok(Ok(None)) => {
                self.shared.suspect(&copy);
                Err(Status::data_loss("this node's copy is damaged"))
            }
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(Status::not_found("this node has no such copy"))
            }
            Ok(Err(error)) => {
                self.shared.suspect(&copy);
                Err(failed("read a chunk table", &error.into()))
            }
            Err(panicked) => Err(failed("read a chunk table", &panicked.into())),
        }
    }

    async fn take(
        &self,
        copy: BlobCopy,
        table: ChunkTable,
        parts: Streaming<StoreRequest>,
    ) -> Result<(), Status> {
        let inner = Arc::clone(&self.shared.local.inner);
        let created = spawn_blocking({
            let copy = copy.clone();
            move || match inner.state_of(&copy) {
                Ok(FileState::Whole) => incoming::sync_name(&inner, &copy).map(|()| None),
                _ => Incoming::create(&inner, copy, Some(table)).map(Some),
            }
        });
        let mut parts = Parts { parts, ended: false };
        // A copy that is there whole needs no second one.
        let Some(mut incoming) = joined(created.await)? else { return Ok(()) };
        loop {
            let batch = parts.next_batch().await?;
            if batch.is_empty() {
                break;
            }
            let written = spawn_blocking(move || incoming.write(&batch).map(|()| incoming));
            incoming = joined(written.await)?;
        }
        joined(spawn_blocking(move || incoming.finish()).await)?;
        self.shared.counters.received(copy.size);
        debug!(digest = %copy.digest, size = copy.size, "copy stored for another node");
        Ok(())
    }
}

/// A body on its way in.
struct Parts {
    parts: Streaming<StoreRequest>,
    ended: bool,
}

impl Parts {
    async fn next(&mut self) -> Result<Option<Part>, Status> {
        let message = tokio::time::timeout(SILENCE_MAX, self.parts.message()).await;
        let message = message.map_err(|_| Status::deadline_exceeded("the copy broke off"))??;
        match message {
            None => Ok(None),
            Some(StoreRequest { part: Some(part) }) => Ok(Some(part)),
            Some(_) => Err(Status::invalid_argument("a part says nothing")),
        }
    }

    /// Bytes for the disk; none at the end.
    async fn next_batch(&mut self) -> Result<Vec<Bytes>, Status> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while !self.ended && bytes < BATCH_BYTES {
            match self.next().await? {
                None => self.ended = true,
                Some(Part::Data(data)) if data.len() > MESSAGE_BYTES_MAX => {
                    return Err(Status::invalid_argument("a part has over 1 MiB"));
                }
                Some(Part::Data(data)) if data.is_empty() => {}
                Some(Part::Data(data)) => {
                    bytes += data.len();
                    batch.push(data);
                }
                Some(Part::Header(_)) => {
                    return Err(Status::invalid_argument("a copy has one header"));
                }
            }
        }
        Ok(batch)
    }
}

fn joined<T>(
    result: Result<Result<T, IncomingError>, tokio::task::JoinError>,
) -> Result<T, Status> {
    match result {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(
            error @ (IncomingError::Corrupt { .. }
            | IncomingError::Digest { .. }
            | IncomingError::Length { .. }),
        )) => {
            warn!(%error, "a copy from another node was refused");
            Err(Status::data_loss(error.to_string()))
        }
        Ok(Err(IncomingError::Io { step, source })) => {
            use std::io::ErrorKind::{QuotaExceeded, StorageFull};
            match source.kind() {
                StorageFull | QuotaExceeded => Err(Status::resource_exhausted("the disk is full")),
                _ => Err(failed(step, &source.into())),
            }
        }
        Err(panicked) => Err(failed("store a copy", &panicked.into())),
    }
}

fn failed(step: &'static str, error: &BoxError) -> Status {
    warn!(%error, step, "another node's request failed");
    Status::internal(format!("cannot {step}: {error}"))
}

/// A place among those who are served at once.
async fn turn(turns: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Status> {
    match tokio::time::timeout(TURN_WAIT, Arc::clone(turns).acquire_owned()).await {
        Ok(Ok(turn)) => Ok(turn),
        Ok(Err(_)) | Err(_) => Err(Status::unavailable("this node is busy: ask again later")),
    }
}

#[tonic::async_trait]
impl exchange_server::Exchange for Exchange {
    async fn table(
        &self,
        request: Request<TableRequest>,
    ) -> Result<Response<TableResponse>, Status> {
        self.check(&request).await?;
        let _turn = turn(&self.reads).await?;
        let copy = wire::copy_from(request.into_inner().copy)?;
        let table = self.table_of(copy).await?;
        Ok(Response::new(TableResponse { hashes: wire::table_to(&table) }))
    }

    type ReadStream = Pin<Box<dyn Stream<Item = Result<ReadResponse, Status>> + Send>>;

    async fn read(
        &self,
        request: Request<ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        self.check(&request).await?;
        let turn = turn(&self.reads).await?;
        let ReadRequest { copy, offset, length } = request.into_inner();
        let copy = wire::copy_from(copy)?;
        let end = offset.checked_add(length).filter(|end| *end <= copy.size);
        let end = end.ok_or_else(|| Status::out_of_range("the range ends after the copy"))?;
        let blob = match Blobs::open(&self.shared.local, copy.clone()).await {
            Ok(blob) => blob,
            Err(BlobError::Absent { .. }) => {
                return Err(Status::not_found("this node has no such copy"));
            }
            Err(error) => {
                warn!(%error, digest = %copy.digest, "a copy cannot be opened for another node");
                self.shared.suspect(&copy);
                return Err(Status::data_loss("this node's copy is damaged"));
            }
        };
        let shared = Arc::clone(&self.shared);
        let pieces = blob.read(offset..end, Delivery::Process);
        // The turn ends with the stream.
        let pieces = stream::unfold((pieces, turn), move |(mut pieces, turn)| {
            let (shared, copy) = (Arc::clone(&shared), copy.clone());
            async move {
                let piece = pieces.next().await?;
                let message = match piece {
                    Ok(data) => {
                        shared.counters.served(data.len() as u64);
                        Ok(ReadResponse { data })
                    }
                    Err(error) => {
                        shared.suspect(&copy);
                        Err(failed("read a copy", &error))
                    }
                };
                Some((message, (pieces, turn)))
            }
        });
        Ok(Response::new(Box::pin(pieces)))
    }

    async fn store(
        &self,
        request: Request<Streaming<StoreRequest>>,
    ) -> Result<Response<StoreResponse>, Status> {
        self.check(&request).await?;
        let _turn = turn(&self.stores).await?;
        let mut parts = Parts { parts: request.into_inner(), ended: false };
        let Some(Part::Header(header)) = parts.next().await? else {
            return Err(Status::invalid_argument("a copy begins with its header"));
        };
        let copy = wire::copy_from(header.copy)?;
        let table = wire::table_from(&copy, &header.hashes)
            .ok_or_else(|| Status::data_loss("the hashes are not those of the copy"))?;
        self.take(copy, table, parts.parts).await?;
        Ok(Response::new(StoreResponse {}))
    }

    async fn delete(
        &self,
        request: Request<DeleteRequest>,
    ) -> Result<Response<DeleteResponse>, Status> {
        self.check(&request).await?;
        let copy = wire::copy_from(request.into_inner().copy)?;
        let row = self.shared.metadata.get(Key::Blob(copy.digest)).await;
        match row {
            Ok(Some(Record::Blob(blob))) if blob.generation == copy.generation => {
                return Err(Status::failed_precondition("the copy is the blob's live one"));
            }
            Ok(_) => {}
            Err(error) => return Err(failed("learn whether a copy is live", &error.into())),
        }
        Blobs::delete(&self.shared.local, copy)
            .await
            .map_err(|error| failed("delete a copy", &error.into()))?;
        Ok(Response::new(DeleteResponse {}))
    }
}
