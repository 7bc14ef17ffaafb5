//! Who a node is, and who is at the other end of a connection between nodes.
//!
//! A cluster is its own certificate authority. A node's identity is one DNS name in its certificate, made of its number and
//! the cluster's name; common names mean nothing. A node that wants to join trusts an address only through the hash of the
//! authority's certificate, which its token carries.
//!
//! Guarantees: a certificate of another authority or another cluster never passes; certificates and authorities are
//! replaced while the node works; files of an identity are whole or not there, and readable by their owner alone; an identity whose
//! log is gone is told, so that no empty node votes under a number that has voted.
//!
//! Must not know: consensus, gRPC, HTTP, or how a member's number is handed out.

mod authority;
mod files;
mod identity;
mod names;
mod rotation;
mod tls;
mod token;

pub use authority::{Authority, SigningRequest, new_secret, public_key_hash};
pub use identity::{Identity, Joining, Renewed};
pub use names::{Peer, PeerAddress, member_name, peer_of};
pub use rotation::Followed;
pub use tls::{any_member_config, pinned_config};
pub use token::{JoinToken, TokenError};

use std::io;
use std::path::PathBuf;

use nora_domain::NodeId;

/// Why something about identities did not work.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file of the identity cannot be used.
    #[error("cannot {step} {}", .path.display())]
    File {
        /// What was being done.
        step: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A certificate, a key or a signing request cannot be read or made.
    #[error("{what}: {why}")]
    Certificate {
        /// What.
        what: &'static str,
        /// Why.
        why: String,
    },
    /// The certificate is not one of this cluster's.
    #[error("the certificate names {found:?}, which is nobody of this cluster")]
    Stranger {
        /// Its names.
        found: Vec<String>,
    },
    /// The identity is there, and what the node has voted for is gone.
    #[error(
        "this node's log is gone, but its identity (node {}) is there: it may have forgotten what it voted for. \
         Remove node {} from the cluster and join anew with an empty data folder",
        .0.0, .0.0
    )]
    LogGone(NodeId),
    /// The log is there, and the identity it belongs to is gone.
    #[error(
        "{} belongs to a member of a cluster, but its identity is gone: put the folder 'identity' back, or join anew with \
         an empty data folder", .0.display()
    )]
    IdentityGone(PathBuf),
    /// The log belongs to another identity.
    #[error("{} belongs to another identity than the one beside it", .0.display())]
    OtherLog(PathBuf),
}

/// For errors of other crates that say it in words.
fn certificate<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> TrustError {
    move |error| TrustError::Certificate { what, why: error.to_string() }
}
