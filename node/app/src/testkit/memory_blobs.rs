//! Uploads and blobs in memory. Knows no limits: those belong to the adapters that have a disk to fill.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use nora_domain::{Digest, Generation, NodeId, Placement, Timestamp, UploadId};

use super::Hashes;
use crate::ports::blobs::{BlobCopy, BlobError, Blobs, Delivery, OpenBlob};
use crate::ports::clock::Clock;
use crate::ports::uploads::{
    Admission, Finish, Purpose, Sessions, UploadError, UploadState, check_place,
};
use crate::ports::{BoxFuture, ByteStream};

/// Bytes per piece of a read: small, so that readers meet more than one.
const PIECE_BYTES: usize = 64 << 10;

/// Uploads and blobs in memory.
pub struct MemoryBlobs {
    hashes: Hashes,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sessions: BTreeMap<UploadId, Session>,
    copies: BTreeMap<(Digest, Generation), Bytes>,
    deletes: Vec<(Digest, Generation)>,
    lacks_nodes: bool,
    sessions_max: Option<usize>,
}

struct Session {
    purpose: Purpose,
    written_at: Timestamp,
    bytes: Vec<u8>,
    busy: bool,
}

impl Session {
    fn state(&self, id: UploadId) -> UploadState {
        UploadState {
            id,
            repository: self.purpose.repository.clone(),
            opener: self.purpose.opener.clone(),
            offset: self.bytes.len() as u64,
            opened_at: self.purpose.opened_at,
            written_at: self.written_at,
        }
    }
}

impl State {
    /// A session that nobody writes to.
    fn idle(&mut self, id: UploadId) -> Result<&mut Session, UploadError> {
        match self.sessions.get_mut(&id) {
            None => Err(UploadError::Unknown),
            Some(session) if session.busy => Err(UploadError::Busy),
            Some(session) => Ok(session),
        }
    }
}

impl MemoryBlobs {
    /// Lets so many sessions be open.
    pub fn limit_sessions(&self, sessions_max: usize) {
        self.lock().sessions_max = Some(sessions_max);
    }

    /// A store with nothing in it; sessions age by `clock`.
    pub fn new(hashes: Hashes, clock: Arc<dyn Clock>) -> Self {
        Self { hashes, clock, state: Mutex::default() }
    }

    /// Every copy that is stored, in order.
    pub fn copies(&self) -> Vec<(Digest, Generation)> {
        self.lock().copies.keys().copied().collect()
    }

    /// Every deletion asked for, as they came.
    pub fn deletes(&self) -> Vec<(Digest, Generation)> {
        self.lock().deletes.clone()
    }

    /// Every session that is open, in order.
    pub fn sessions(&self) -> Vec<UploadId> {
        self.lock().sessions.keys().copied().collect()
    }

    /// The next session that is ended finds too few nodes to store copies on.
    pub fn lack_nodes_next(&self) {
        self.lock().lacks_nodes = true;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    async fn take_body(
        &self,
        id: UploadId,
        start: Option<u64>,
        mut body: ByteStream,
    ) -> Result<UploadState, UploadError> {
        {
            let mut state = self.lock();
            let session = state.idle(id)?;
            let offset = session.bytes.len() as u64;
            if let Some(start) = start.filter(|start| *start != offset) {
                return Err(UploadError::WrongOffset { offset, start });
            }
            session.busy = true;
        }
        let writing = Writing { store: self, id };
        while let Some(frame) = body.next().await {
            let frame = frame.map_err(UploadError::BodyBroken)?;
            writing.with_session(|session| session.bytes.extend_from_slice(&frame));
        }
        Ok(writing.with_session(|session| session.state(id)))
    }

    fn end(
        &self,
        id: UploadId,
        digest: Digest,
        generation: Generation,
    ) -> Result<BlobCopy, UploadError> {
        let mut state = self.lock();
        state.idle(id)?;
        if std::mem::take(&mut state.lacks_nodes) {
            return Err(UploadError::TooFewCopies { stored: 1, needed: 2 });
        }
        let bytes = state.sessions.remove(&id).unwrap().bytes;
        let computed = (self.hashes.digest)(&bytes, digest.algorithm());
        if computed != digest {
            return Err(UploadError::DigestMismatch { expected: digest, computed });
        }
        let size = bytes.len() as u64;
        let chunk_root = (self.hashes.chunk_root)(&bytes);
        let before = state.copies.insert((digest, generation), bytes.into());
        assert!(before.is_none(), "{digest}/{generation:?} was written twice");
        let placement = Placement::Nodes(vec![NodeId(1)]);
        Ok(BlobCopy { digest, generation, size, chunk_root, placement })
    }
}

/// A request that writes to a session: frees it however the request ends.
struct Writing<'a> {
    store: &'a MemoryBlobs,
    id: UploadId,
}

impl Writing<'_> {
    fn with_session<T>(&self, work: impl FnOnce(&mut Session) -> T) -> T {
        let mut state = self.store.lock();
        let session = state.sessions.get_mut(&self.id).expect("a busy session cannot go");
        session.written_at = self.store.clock.now();
        work(session)
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.with_session(|session| session.busy = false);
    }
}

impl Sessions for MemoryBlobs {
    fn open(
        &self,
        id: UploadId,
        purpose: Purpose,
        admission: Admission,
    ) -> BoxFuture<'_, Result<UploadState, UploadError>> {
        Box::pin(async move {
            let mut state = self.lock();
            if state.sessions.contains_key(&id) {
                return Err(UploadError::Io { step: "open", source: "it is there".into() });
            }
            if let Some(sessions_max) = state.sessions_max {
                let is_own = |session: &&Session| {
                    let by_share = admission == Admission::ByShare && purpose.opener.is_some();
                    by_share && session.purpose.opener == purpose.opener
                };
                let own = state.sessions.values().filter(is_own).count();
                check_place(state.sessions.len(), own, sessions_max)?;
            }
            let written_at = purpose.opened_at;
            let session = Session { purpose, written_at, bytes: Vec::new(), busy: false };
            let opened = session.state(id);
            state.sessions.insert(id, session);
            Ok(opened)
        })
    }

    fn state(&self, id: UploadId) -> BoxFuture<'_, Result<UploadState, UploadError>> {
        Box::pin(async move {
            let state = self.lock();
            state.sessions.get(&id).map(|session| session.state(id)).ok_or(UploadError::Unknown)
        })
    }

    fn append(
        &self,
        id: UploadId,
        start: Option<u64>,
        body: ByteStream,
    ) -> BoxFuture<'_, Result<UploadState, UploadError>> {
        Box::pin(self.take_body(id, start, body))
    }

    fn cancel(&self, id: UploadId) -> BoxFuture<'_, Result<(), UploadError>> {
        Box::pin(async move {
            let mut state = self.lock();
            state.idle(id)?;
            state.sessions.remove(&id);
            Ok(())
        })
    }

    fn is_written(&self, id: UploadId) -> bool {
        self.lock().sessions.get(&id).is_some_and(|session| session.busy)
    }

    fn list(&self) -> Vec<UploadState> {
        self.lock().sessions.iter().map(|(id, session)| session.state(*id)).collect()
    }

    fn expire(&self, before: Timestamp) -> BoxFuture<'_, Result<Vec<UploadId>, UploadError>> {
        Box::pin(async move {
            let mut state = self.lock();
            let is_over = |session: &Session| !session.busy && session.written_at < before;
            let over = state.sessions.iter().filter(|(_, session)| is_over(session));
            let over: Vec<_> = over.map(|(id, _)| *id).collect();
            state.sessions.retain(|id, _| !over.contains(id));
            Ok(over)
        })
    }
}

impl Finish for MemoryBlobs {
    fn finish(
        &self,
        id: UploadId,
        digest: Digest,
        generation: Generation,
    ) -> BoxFuture<'_, Result<BlobCopy, UploadError>> {
        Box::pin(async move { self.end(id, digest, generation) })
    }
}

impl Blobs for MemoryBlobs {
    fn open(&self, copy: BlobCopy) -> BoxFuture<'_, Result<Arc<dyn OpenBlob>, BlobError>> {
        Box::pin(async move {
            let BlobCopy { digest, generation, size, .. } = copy;
            let bytes = self.lock().copies.get(&(digest, generation)).cloned();
            let bytes = bytes.ok_or(BlobError::Absent { digest })?;
            if bytes.len() as u64 != size {
                let source = format!("it has {} bytes, not {size}", bytes.len()).into();
                return Err(BlobError::Io { step: "open", digest, source });
            }
            Ok(Arc::new(MemoryBlob(bytes)) as Arc<dyn OpenBlob>)
        })
    }

    fn redirect(&self, _copy: &BlobCopy) -> BoxFuture<'_, Result<Option<String>, BlobError>> {
        Box::pin(async { Ok(None) })
    }

    fn delete(&self, copy: BlobCopy) -> BoxFuture<'_, Result<(), BlobError>> {
        Box::pin(async move {
            let BlobCopy { digest, generation, .. } = copy;
            let mut state = self.lock();
            state.deletes.push((digest, generation));
            state.copies.remove(&(digest, generation));
            Ok(())
        })
    }
}

struct MemoryBlob(Bytes);

impl OpenBlob for MemoryBlob {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(self: Arc<Self>, range: Range<u64>, _delivery: Delivery) -> ByteStream {
        let (start, end) = (range.start as usize, range.end as usize);
        if end > self.0.len() {
            return Box::pin(stream::iter([Err("the range ends after the blob".into())]));
        }
        let part = self.0.slice(start..end);
        let pieces = (0..part.len()).step_by(PIECE_BYTES);
        let pieces: Vec<_> =
            pieces.map(|from| Ok(part.slice(from..part.len().min(from + PIECE_BYTES)))).collect();
        Box::pin(stream::iter(pieces))
    }
}
