//! A place in memory that fails when it is told to.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use nora_app::ports::BoxFuture;
use nora_app::ports::blobs::BlobCopy;
use nora_app::ports::uploads::{Admission, Finish, Purpose, Sessions, UploadError};
use nora_app::testkit::{self, MIB, ManualClock, MemoryBlobs, Uploads, body};
use nora_domain::{Algorithm, Digest, Generation, Timestamp, UploadId};
use nora_uploads::{Claim, Found, Hashes, Limits, OpenSessions, Place, Writer, Writing};
use tokio::sync::Semaphore;

/// What sessions must compute, computed by other code.
pub(crate) const HASHES: testkit::Hashes = testkit::Hashes {
    digest: |bytes, algorithm| nora_digest::digest(algorithm, bytes),
    chunk_root: |bytes| {
        let hashes: Vec<u8> =
            bytes.chunks(MIB).flat_map(|chunk| *blake3::hash(chunk).as_bytes()).collect();
        *blake3::hash(&hashes).as_bytes()
    },
};

/// A session's bytes.
pub(crate) struct Held {
    bytes: Vec<u8>,
    hashes: Hashes,
    pub(crate) sealed: bool,
}

impl Held {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        Self { bytes: Vec::new(), hashes: Hashes::new(algorithm), sealed: false }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.hashes.update(bytes);
    }
}

impl Writer for Held {
    fn offset(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn takes_more(&self) -> Result<(), UploadError> {
        if self.sealed { Err(UploadError::DiskFull) } else { Ok(()) }
    }
}

/// What goes wrong.
pub(crate) struct Faults {
    pub(crate) create: AtomicBool,
    pub(crate) write: AtomicBool,
    /// Removing the session of this number.
    pub(crate) remove: AtomicBool,
    /// A batch is written for each permit.
    pub(crate) gate: Semaphore,
}

struct Memory(Arc<Faults>);

/// The session that cannot be removed while [`Faults::remove`] is set.
pub(crate) const STUCK: UploadId = UploadId(0x57);

fn fails(fault: &AtomicBool) -> io::Result<()> {
    if fault.load(Ordering::Relaxed) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
}

impl Place for Memory {
    type Writer = Held;

    fn writer(&self, _: UploadId, purpose: &Purpose) -> Held {
        Held::new(purpose.algorithm)
    }

    fn create(&self, _: &Claim<Held>) -> io::Result<()> {
        fails(&self.0.create)
    }

    fn write(&self, mut claim: Claim<Held>, batch: Vec<Bytes>, _: bool) -> Writing<Held> {
        let faults = Arc::clone(&self.0);
        tokio::spawn(async move {
            faults.gate.acquire().await.unwrap().forget();
            fails(&faults.write).map_err(|_| UploadError::DiskFull)?;
            batch.iter().for_each(|frame| claim.push(frame));
            claim.record_progress();
            Ok(claim)
        })
    }

    async fn remove(&self, claim: &mut Claim<Held>) -> Result<(), UploadError> {
        if claim.id() == STUCK {
            fails(&self.0.remove).map_err(|_| UploadError::DiskFull)?;
        }
        Ok(())
    }
}

/// Sessions in memory, and blobs beside them.
pub(crate) struct Store {
    sessions: OpenSessions<Memory>,
    pub(crate) blobs: MemoryBlobs,
    pub(crate) faults: Arc<Faults>,
}

impl Store {
    pub(crate) fn new(limits: Limits, found: Vec<Found<Held>>) -> Self {
        let faults = Arc::new(Faults {
            create: AtomicBool::new(false),
            write: AtomicBool::new(false),
            remove: AtomicBool::new(false),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
        });
        let clock = Arc::new(ManualClock::at(Timestamp(1)));
        Self {
            sessions: OpenSessions::new(Memory(Arc::clone(&faults)), limits, found),
            blobs: MemoryBlobs::new(HASHES, clock),
            faults,
        }
    }

    pub(crate) fn uploads(&self) -> Uploads<'_> {
        Uploads::new(&self.sessions, self)
    }

    pub(crate) fn claim(&self, id: UploadId) -> Claim<Held> {
        self.sessions.claim(id).unwrap()
    }

    async fn end(
        &self,
        claim: &Claim<Held>,
        digest: Digest,
        generation: Generation,
    ) -> Result<BlobCopy, UploadError> {
        let purpose = claim.purpose().clone();
        let (computed, table) = if digest.algorithm() == purpose.algorithm {
            claim.hashes.result()
        } else {
            let mut hashes = Hashes::new(digest.algorithm());
            hashes.update(&claim.bytes);
            hashes.result()
        };
        if computed != digest {
            return Err(UploadError::DigestMismatch { expected: digest, computed });
        }
        self.blobs.open(claim.id(), purpose, Admission::ByShare).await?;
        self.blobs.append(claim.id(), None, body(&claim.bytes, MIB)).await?;
        let copy = self.blobs.finish(claim.id(), digest, generation).await?;
        Ok(BlobCopy { chunk_root: table.root(), ..copy })
    }
}

impl Finish for Store {
    fn finish(
        &self,
        id: UploadId,
        digest: Digest,
        generation: Generation,
    ) -> BoxFuture<'_, Result<BlobCopy, UploadError>> {
        Box::pin(async move {
            let mut claim = self.sessions.claim(id)?;
            let ended = self.end(&claim, digest, generation).await;
            self.sessions.forget(&mut claim);
            ended
        })
    }
}
