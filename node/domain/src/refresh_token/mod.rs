//! Refresh tokens: what a client keeps after a login with a password, to get sessions without the password.
//!
//! The cluster signs refresh tokens and keeps no secret of them. A token counts as long as its row is there.

mod transition;

use crate::ids::TokenId;
use crate::names::OwnerName;
use crate::time::Timestamp;

/// Refresh tokens that one owner may have. One more takes the place of the oldest.
pub const REFRESH_TOKENS_MAX: usize = 1_000;

/// A refresh token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefreshTokenRecord {
    /// The generation of the login that it came from. A new password makes another one.
    pub generation: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// From then on it opens nothing.
    pub expires_at: Timestamp,
    /// The address that it was made for; empty if that is not known.
    pub address: String,
}

/// Make a refresh token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateRefreshToken {
    /// Its name: random, and never used again.
    pub token: TokenId,
    /// Whose it is, as `user:alice`.
    pub owner: OwnerName,
    /// The generation of the login that it comes from. If the cluster keeps the owner's account, the command is refused
    /// once the account has another generation.
    pub generation: u64,
    /// How long it lives.
    pub lives_millis: u64,
    /// The address that it is made for.
    pub address: String,
}

/// End refresh tokens; answers with how many those were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevokeRefreshTokens {
    /// Whose they are.
    pub owner: OwnerName,
    /// Which one; all of the owner's if that is not said.
    pub token: Option<TokenId>,
}
