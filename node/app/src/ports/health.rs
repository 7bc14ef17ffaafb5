//! How the node is: what operators and load balancers ask.

use super::BoxFuture;

/// The state of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Whether a leader is known.
    pub has_leader: bool,
    /// Whether everything committed when the node started is applied.
    pub caught_up: bool,
    /// Why the blob storage cannot be written to, if it cannot.
    pub storage_failure: Option<String>,
    /// Whether the node is on its way out and finishes what runs.
    pub draining: bool,
}

impl Health {
    /// Whether requests may be sent to this node.
    pub fn is_ready(&self) -> bool {
        self.has_leader && self.caught_up && self.storage_failure.is_none() && !self.draining
    }
}

/// Tells how the node is.
pub trait Probe: Send + Sync {
    /// The state now.
    fn health(&self) -> BoxFuture<'_, Health>;
}
