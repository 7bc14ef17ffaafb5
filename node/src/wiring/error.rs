//! Why a node did not start, or stopped by itself.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use nora_app::ports::metadata::MetadataError;
use nora_cluster::StopReason;

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
    /// The metadata store failed while the node ran.
    #[error("the node stopped itself, so that nothing is acknowledged that is not on disk: {0}")]
    Stopped(StopReason),
}

