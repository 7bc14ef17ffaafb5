//! What storages do differently: where the bytes of a session go.

use std::io;

use bytes::Bytes;
use nora_app::ports::uploads::{Purpose, UploadError};
use nora_domain::UploadId;
use tokio::task::JoinHandle;

use crate::session::{Claim, Writer};

/// A batch on its way into a session. It gives the claim back, unless it failed.
pub type Writing<W> = JoinHandle<Result<Claim<W>, UploadError>>;

/// Where the bytes of sessions go.
pub trait Place: Send + Sync + 'static {
    /// The bytes of one session.
    type Writer: Writer;

    /// The writer of a session that holds nothing yet and has no files.
    fn writer(&self, id: UploadId, purpose: &Purpose) -> Self::Writer;

    /// Makes the files of a new session. Blocks.
    ///
    /// # Errors
    /// If they cannot be made. What is left of them is no session.
    fn create(&self, claim: &Claim<Self::Writer>) -> io::Result<()>;

    /// Starts to append a batch, and records the progress. The batch is written even if nobody waits for it. The `last`
    /// batch of a request, or one that fails, leaves the session with nothing open.
    fn write(
        &self,
        claim: Claim<Self::Writer>,
        batch: Vec<Bytes>,
        last: bool,
    ) -> Writing<Self::Writer>;

    /// Removes a session's bytes, wherever they are. After an error it can be asked again.
    fn remove(
        &self,
        claim: &mut Claim<Self::Writer>,
    ) -> impl Future<Output = Result<(), UploadError>> + Send;
}
