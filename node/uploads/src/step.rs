//! Work on files for a session: on a blocking thread, with the step that failed in the error.
//!
//! Guarantees: work that was begun runs to its end, even if nobody waits for it any more. A full disk is told apart from
//! other failures.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use nora_app::ports::uploads::UploadError;
use nora_domain::Timestamp;
use tokio::task::spawn_blocking;

/// A step that failed, and why.
#[derive(Debug)]
pub struct StepError {
    /// What was being done.
    pub step: &'static str,
    /// Why it failed.
    pub source: io::Error,
}

impl From<StepError> for UploadError {
    fn from(error: StepError) -> Self {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        match error.source.kind() {
            StorageFull | QuotaExceeded => Self::DiskFull,
            _ => Self::Io { step: error.step, source: error.source.into() },
        }
    }
}

/// Says which step an error stopped.
pub fn step(step: &'static str) -> impl FnOnce(io::Error) -> StepError {
    move |source| StepError { step, source }
}

/// Runs work that blocks.
///
/// # Errors
/// What the work returns, or that its thread was lost.
pub async fn blocking<T: Send + 'static>(
    step: &'static str,
    work: impl FnOnce() -> Result<T, UploadError> + Send + 'static,
) -> Result<T, UploadError> {
    match spawn_blocking(work).await {
        Ok(result) => result,
        Err(lost) => Err(UploadError::Io { step, source: lost.into() }),
    }
}

/// Runs work on files, which blocks and is one step.
///
/// # Errors
/// The step, and what the work returns; or that its thread was lost.
pub async fn on_disk<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, UploadError> {
    blocking(name, move || work().map_err(|error| step(name)(error).into())).await
}

/// An error with its causes, in one line.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// A time of the file system's clock.
pub fn timestamp_of(time: SystemTime) -> Timestamp {
    let millis = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    Timestamp(u64::try_from(millis).unwrap_or(u64::MAX))
}
