//! How many files and sockets this process may have open, and who gets how many.
//!
//! Guarantee: clients can take so many that the metadata store and the log still open theirs. Must not know: what is opened.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// More than any node needs.
const DESCRIPTORS_MAX: u64 = 1 << 20;

/// Raises what this process may open to what its administrator allows it at most. What cannot be raised stays.
pub fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.unwrap_or(DESCRIPTORS_MAX).min(DESCRIPTORS_MAX);
    if current.is_some_and(|current| current < wanted) {
        let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
        if let Err(error) = raised {
            tracing::warn!(%error, "the limit of open files was not raised");
        }
    }
}

/// Who gets how many descriptors. What is left, an eighth, is the node's own: its stores, its log, its uploads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// Clients' connections.
    pub connections: usize,
    /// Connections on the cluster port.
    pub peers: usize,
    /// Downloads, each of which holds a file open.
    pub downloads: usize,
}

impl Shares {
    /// The shares of what this process may open now.
    pub fn now() -> Self {
        Self::of(getrlimit(Resource::Nofile).current.unwrap_or(DESCRIPTORS_MAX))
    }

    fn of(limit: u64) -> Self {
        let limit = usize::try_from(limit.min(DESCRIPTORS_MAX)).unwrap_or(usize::MAX);
        Self { connections: limit / 2, peers: limit / 8, downloads: limit / 4 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn something_is_left_for_the_node_itself() {
        for limit in [256, 1_024, 1 << 20, u64::MAX] {
            let Shares { connections, peers, downloads } = Shares::of(limit);
            let left = limit.min(DESCRIPTORS_MAX) - (connections + peers + downloads) as u64;
            assert!(left >= limit.min(DESCRIPTORS_MAX) / 8, "{limit}: {left}");
            assert!(peers >= 32 && downloads >= 64, "{limit}");
        }
    }
}
