//! Why a node did not start, or stopped by itself.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use nora_app::ports::metadata::MetadataError;
use nora_cluster::StopReason;
use nora_domain::{NodeId, StorageMode};

/// Why a node did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The data folder cannot be used.
    #[error("cannot use the data folder {}", .path.display())]
    DataDir {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process uses the data folder.
    #[error(
        "another nora uses the data folder {}; stop it, or give this one a folder of its own with --data-dir",
        .path.display()
    )]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The address cannot be bound.
    #[error("cannot listen on {address}; is something else listening there?")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The administrator's password cannot be made or read.
    #[error("cannot make or read the administrator's password")]
    Admin(#[source] io::Error),
    /// No client for calls to other places can be made.
    #[error("issuers and webhooks cannot be called from here")]
    Egress(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The policy cannot be used.
    #[error("the policy cannot be used here")]
    Policy(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The policy of the file would put what is stored out of sight.
    #[error(
        "nora.toml gives a repository to another tenant: {stranded}; delete it first, or leave the namespace as it is"
    )]
    Stranded {
        /// Which, and between whom.
        stranded: String,
    },
    /// The certificate cannot be used.
    #[error("TLS is not possible")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The metadata cannot be opened.
    #[error("the metadata cannot be opened")]
    Metadata(#[source] nora_cluster::StartError),
    /// The blobs cannot be opened.
    #[error("the blobs cannot be opened")]
    Blobs(#[source] nora_blobs::OpenError),
    /// The metadata cannot be read.
    #[error("the metadata cannot be read")]
    Unreadable(#[source] MetadataError),
    /// The metadata cannot be changed.
    #[error("the metadata cannot be changed")]
    Unwritable(#[source] MetadataError),
    /// This node's identity cannot be used or made.
    #[error(transparent)]
    Identity(#[from] nora_trust::TrustError),
    /// The cluster does not let this node in.
    #[error("this node cannot join")]
    Join(#[source] nora_cluster::JoinError),
    /// It wants to join and shows nothing.
    #[error(
        "to join, a token is needed: 'nora cluster join-token' on a member makes one; give it with --join-token-file or NORA_JOIN_TOKEN"
    )]
    NoToken,
    /// A folder that holds something else cannot become a new member's.
    #[error("the data folder {} holds the data of a node that never joined: a new member begins with an empty one", .path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// This node was taken out of the cluster.
    #[error("node {} was removed from its cluster for good; to take part again, join anew with an empty data folder", .0.0)]
    Removed(NodeId),
    /// The bucket cannot be used.
    #[error("blobs cannot be kept in the bucket")]
    Objects(#[source] nora_objects::ObjectError),
    /// This node and its cluster keep blobs in different places.
    #[error(
        "the cluster keeps blobs {}, and this node is configured to keep them {}: a node that keeps them elsewhere would lose them. Set storage.mode to what the other nodes have",
        place(.cluster), place(.own)
    )]
    OtherStorage {
        /// Where this node would keep them.
        own: StorageMode,
        /// Where the cluster does.
        cluster: StorageMode,
    },
    /// The bucket is not configured.
    #[error("storage.mode is \"s3\" and there is no [storage.s3] that names the bucket")]
    NoBucket,
    /// A secret of the configuration cannot be read.
    #[error(transparent)]
    Secret(#[from] nora_config::SecretError),
    /// The operating system gives no random numbers.
    #[error("there are no random numbers")]
    Random(#[source] io::Error),
    /// A part of the start failed in a way that it should not.
    #[error("the start broke off: {0}")]
    Task(String),
    /// The metadata store failed while the node ran.
    #[error("the node stopped itself, so that nothing is acknowledged that is not on disk: {0}")]
    Stopped(StopReason),
}

fn place(mode: &StorageMode) -> &'static str {
    match mode {
        StorageMode::Local => "on its nodes' disks (\"local\")",
        StorageMode::Object => "in a bucket (\"s3\")",
    }
}
