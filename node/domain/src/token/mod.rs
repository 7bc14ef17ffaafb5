//! Access tokens, and the issuers' tokens that some of them were exchanged for.

mod transition;

use crate::ids::TokenId;
use crate::names::{AccountName, OwnerName, TokenName};
use crate::time::Timestamp;

/// A token: its secret part is known by its hash alone.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessTokenRecord {
    /// Whether an issuer's token was exchanged for it: its permissions are all it has. Otherwise they cut down what its
    /// owner may do, unless there are none.
    pub is_workload: bool,
    /// Whose it is, as `user:alice`.
    pub owner: String,
    /// What people call it.
    pub name: String,
    /// SHA-256 of its secret part.
    pub secret_hash: [u8; 32],
    /// Permissions, in the policy's words.
    pub permissions: Vec<String>,
    /// What the issuer said that rules may look at, as JSON; empty unless it is a workload's. What the rules give to it counts
    /// anew each time.
    pub claims: Vec<u8>,
    /// When it was made.
    pub created_at: Timestamp,
    /// From then on it opens nothing.
    pub expires_at: Timestamp,
    /// When it was last seen used, within a minute or so.
    pub last_used_at: Timestamp,
}

impl std::fmt::Debug for AccessTokenRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessTokenRecord")
            .field("is_workload", &self.is_workload)
            .field("owner", &self.owner)
            .field("name", &self.name)
            .field("permissions", &self.permissions)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// An issuer's token that was exchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssertionRecord {
    /// From then on the issuer's own expiry refuses it.
    pub expires_at: Timestamp,
}

/// Make a token. Its times are counted from the cluster's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateAccessToken {
    /// Its public part.
    pub token: TokenId,
    /// Its owner and its name, if it is to be found by them; then they are unique.
    pub found_by: Option<(OwnerName, TokenName)>,
    /// The account that owns it, if the cluster keeps that: refused if the account is gone, so that a new account reusing
    /// the name cannot inherit the old one's tokens.
    pub account: Option<AccountName>,
    /// What is known of it. Its life is the time between its two dates.
    pub record: AccessTokenRecord,
    /// An issuer's token that it is exchanged for, by a hash of its name, and when that expires: refused if it was
    /// exchanged before.
    pub assertion: Option<([u8; 32], Timestamp)>,
}

/// End a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevokeAccessToken {
    /// Its public part.
    pub token: TokenId,
}

/// Tokens were seen used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TouchAccessTokens {
    /// Which, and when last.
    pub uses: Vec<(TokenId, Timestamp)>,
}
