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
    /// How many more nodes it admits.
    pub uses_left: u32,
    /// When it was made.
    pub created_at: Timestamp,
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
    /// How many nodes it admits.
    pub uses: u32,
}

/// Let a token admit no more nodes. Those that it has admitted stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevokeJoinToken {
    /// Its public part.
    pub token: TokenId,
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
