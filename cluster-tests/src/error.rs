//! What can go wrong while a test or a benchmark drives a server.
//!
//! Every variant names the step that failed, so that a report of many servers says where each one
//! stopped.

use std::io;

/// A failed step, with its cause where there is one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("cannot {step}: {source}")]
    Io {
        /// What was tried, as in "cannot …".
        step: String,
        /// What the system said.
        source: io::Error,
    },
    /// The server answered with another status than the exchange needs.
    #[error("{step}: status {status}: {body}")]
    Status {
        /// The exchange, as in "PUT /v2/a/manifests/b".
        step: String,
        /// The status that came.
        status: u16,
        /// The beginning of the body.
        body: String,
    },
    /// The server's answer is not what was asked for, or not HTTP.
    #[error("{0}")]
    Wrong(String),
}

/// The result of a step.
pub type Result<T> = std::result::Result<T, Error>;

/// Names the step that an I/O error belongs to.
pub trait During<T> {
    /// Turns the error into [`Error::Io`], with the step as `cannot {step}`.
    fn during(self, step: impl FnOnce() -> String) -> Result<T>;
}

impl<T> During<T> for io::Result<T> {
    fn during(self, step: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io { step: step(), source })
    }
}
