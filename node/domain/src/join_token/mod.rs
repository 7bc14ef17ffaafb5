//! Join tokens, and the nodes that they admit.

mod transition;

use crate::ids::TokenId;
use crate::node::NodeProfile;
use crate::time::Timestamp;

/// A token that lets nodes join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinTokenRecord {
    /// SHA-256 of its secret part.
    pub secret_hash: [u8; 32],
    /// From then on it opens nothing.
    pub expires_at: Timestamp,
}

/// Let nodes join that know a secret. Tokens that have expired go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateJoinToken {
    /// The public part.
    pub token: TokenId,
    /// SHA-256 of the secret part.
    pub secret_hash: [u8; 32],
    /// How long it lives.
    pub lives_millis: u64,
}

/// A node wants to join: give it a number that no node ever had. Answers with the number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmitNode {
    /// The token it showed.
    pub token: TokenId,
    /// SHA-256 of the secret it showed.
    pub secret_hash: [u8; 32],
    /// SHA-256 of its public key.
    pub key_hash: [u8; 32],
    /// What it tells of itself.
    pub profile: NodeProfile,
}
