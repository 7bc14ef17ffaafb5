//! Why a node cannot start, and why its part in the cluster ends.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use nora_app::ports::BoxError;
use nora_app::ports::metadata::MetadataError;
use nora_domain::{ClusterId, NodeId};
use openraft::error::Fatal;

use crate::raft::TypeConfig;
use crate::rocks::state::ReadError;

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The stores could not be opened: another process has them, or they are damaged.
    #[error("cannot open the metadata in {}", data_dir.display())]
    Open {
        /// Where they are.
        data_dir: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Consensus did not come up.
    #[error("cannot {step}")]
    Consensus {
        /// What was being done.
        step: &'static str,
        /// Why it failed.
        source: BoxError,
    },
    /// Nobody leads, or whoever does cannot be reached.
    #[error(
        "no leader took this node's start within {within:?}: start the other voters, and see that nodes reach each \
         other at their cluster addresses"
    )]
    NoLeader {
        /// How long it was tried.
        within: Duration,
        /// What came of it.
        source: MetadataError,
    },
    /// The node was removed from the cluster.
    #[error(
        "node {} was removed from the cluster: let it join anew, with an empty data folder", .node.0
    )]
    Removed {
        /// Which.
        node: NodeId,
    },
    /// The cluster has another name than this node's identity says.
    #[error("the metadata are of cluster {found:?}, this node's identity is of {expected:?}")]
    ForeignCluster {
        /// What the identity says.
        expected: ClusterId,
        /// What the metadata say.
        found: Option<ClusterId>,
    },
    /// The cluster refused it.
    #[error("the start of this node was answered with {answer}")]
    Answer {
        /// What the state machine answered.
        answer: String,
    },
}

/// Why a node's part in the cluster ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StopReason {
    /// It was shut down.
    #[error("the node was shut down")]
    Shutdown,
    /// A store failed; what is on disk is left as it is, and a restart recovers from it.
    #[error("the metadata store failed: {0}")]
    Failed(String),
}

pub(crate) fn consensus<E: Into<BoxError>>(step: &'static str) -> impl FnOnce(E) -> StartError {
    move |error| StartError::Consensus { step, source: error.into() }
}

pub(crate) fn stop_reason(fatal: &Fatal<TypeConfig>) -> StopReason {
    match fatal {
        Fatal::Stopped => StopReason::Shutdown,
        Fatal::StorageError(error) => StopReason::Failed(error.to_string()),
        Fatal::Panicked => StopReason::Failed("consensus panicked".to_owned()),
    }
}

pub(crate) fn store_error<E: Into<BoxError>>(source: E) -> MetadataError {
    MetadataError::Store(source.into())
}

pub(crate) fn read_error(error: ReadError) -> MetadataError {
    MetadataError::Store(Box::new(error))
}
