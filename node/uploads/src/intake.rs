//! One request's body on its way into a session, a batch at a time.
//!
//! Guarantees: while one batch is written the next one is read, but not a third; what all requests together read ahead
//! is bounded. A request that is dropped leaves the session as a request that ended: what it had read is written, and
//! the session is free again. Must not know how bytes are hashed or laid out.

use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use nora_app::ports::ByteStream;
use nora_app::ports::uploads::{UploadError, UploadState};
use tokio::runtime::Handle;

use crate::place::{Place, Writing};
use crate::session::{Claim, Writer};
use crate::sessions::Shared;

/// A batch is written when it has so many bytes, or so many frames.
const BATCH_BYTES: usize = 256 << 10;
const BATCH_FRAMES_MAX: usize = 256;

/// Frames on their way to the disk.
#[derive(Default)]
struct Batch {
    frames: Vec<Bytes>,
    bytes: usize,
}

impl Batch {
    fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.frames.push(frame);
    }

    fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES || self.frames.len() >= BATCH_FRAMES_MAX
    }
}

/// Where the claim is.
enum Held<W> {
    Here(Claim<W>),
    /// With a batch that is being written.
    Away(Writing<W>),
    /// Given back: the request is over.
    GivenBack,
}

impl<W> Held<W> {
    fn take(&mut self) -> Self {
        mem::replace(self, Self::GivenBack)
    }
}

/// Why no more frames come.
type End = Result<(), UploadError>;

/// A body on its way in.
pub(crate) struct Intake<P: Place> {
    shared: Arc<Shared<P>>,
    claim: Held<P::Writer>,
    batch: Batch,
    // Where the session would end if all that was read were written.
    end: u64,
}

impl<P: Place> Intake<P> {
    pub(crate) fn new(shared: Arc<Shared<P>>, claim: Claim<P::Writer>) -> Self {
        let end = claim.offset();
        Self { shared, claim: Held::Here(claim), batch: Batch::default(), end }
    }

    pub(crate) async fn run(mut self, mut body: ByteStream) -> Result<UploadState, UploadError> {
        let shared = Arc::clone(&self.shared);
        loop {
            // Reading on while a batch is written costs memory, so not every request may at once.
            let read_ahead = shared.read_ahead.try_acquire();
            if read_ahead.is_err() {
                self.claim_back().await?;
            }
            let end = self.fill(&mut body).await;
            self.claim_back().await?;
            drop(read_ahead);
            self.send_off(end.is_some());
            if let Some(end) = end {
                self.claim_back().await?;
                let claim = self.claim.take();
                end?;
                return match claim {
                    Held::Here(claim) => Ok(claim.state()),
                    Held::Away(_) | Held::GivenBack => Err(UploadError::Unknown),
                };
            }
        }
    }

    /// Reads frames until the batch is full (`None`) or the body ends.
    async fn fill(&mut self, body: &mut ByteStream) -> Option<End> {
        let bytes_max = self.shared.bytes_max;
        while !self.batch.is_full() {
            match body.next().await {
                None => return Some(Ok(())),
                Some(Err(source)) => return Some(Err(UploadError::BodyBroken(source))),
                Some(Ok(frame)) if frame.is_empty() => {}
                Some(Ok(frame)) => {
                    let end = self.end.saturating_add(frame.len() as u64);
                    if end > bytes_max {
                        return Some(Err(UploadError::TooLarge { bytes_max }));
                    }
                    self.end = end;
                    self.batch.push(frame);
                }
            }
        }
        None
    }

    /// Waits for the batch that is being written, if one is.
    async fn claim_back(&mut self) -> Result<(), UploadError> {
        let Held::Away(writing) = &mut self.claim else {
            return Ok(());
        };
        let written = writing.await;
        self.claim = Held::GivenBack;
        match written {
            Ok(written) => {
                self.claim = Held::Here(written?);
                Ok(())
            }
            Err(lost) => Err(UploadError::Io { step: "write the upload", source: lost.into() }),
        }
    }

    fn send_off(&mut self, last: bool) {
        if let Held::Here(claim) = self.claim.take() {
            let batch = mem::take(&mut self.batch);
            self.claim = Held::Away(self.shared.place.write(claim, batch.frames, last));
        }
    }
}

impl<P: Place> Drop for Intake<P> {
    fn drop(&mut self) {
        let claim = self.claim.take();
        // Only a future that was dropped before its end still has the claim. Outside a runtime nothing can be written
        // any more, and dropping the claim frees the session.
        let (Held::Here(_) | Held::Away(_), Ok(runtime)) = (&claim, Handle::try_current()) else {
            return;
        };
        let (shared, batch) = (Arc::clone(&self.shared), mem::take(&mut self.batch));
        runtime.spawn(async move {
            let claim = match claim {
                Held::Here(claim) => claim,
                Held::Away(writing) => match writing.await {
                    Ok(Ok(claim)) => claim,
                    _ => return,
                },
                Held::GivenBack => return,
            };
            // It is written to its end without anybody who waits.
            drop(shared.place.write(claim, batch.frames, true));
        });
    }
}
