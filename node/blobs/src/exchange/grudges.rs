//! Nodes that failed lately: for a while they are asked after all others, so that a node which is gone or
//! hangs costs its timeout once and not with every request.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nora_domain::NodeId;

/// How long a failure is remembered.
const GRUDGE: Duration = Duration::from_secs(10);

/// Who failed, and when.
#[derive(Default)]
pub(crate) struct Grudges(Mutex<HashMap<NodeId, Instant>>);

impl Grudges {
    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Instant>> {
        // Every use is one call that leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node failed.
    pub(crate) fn hold(&self, node: NodeId) {
        self.lock().insert(node, Instant::now());
    }

    /// Puts nodes that failed lately behind the others, and keeps the order otherwise.
    pub(crate) fn best_first(&self, mut nodes: Vec<NodeId>) -> Vec<NodeId> {
        let mut held = self.lock();
        held.retain(|_, since| since.elapsed() < GRUDGE);
        nodes.sort_by_key(|node| held.contains_key(node));
        nodes
    }
}
