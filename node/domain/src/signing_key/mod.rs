//! Keys that session tokens are signed with.

mod transition;

use crate::time::Timestamp;

/// A key that session tokens are signed with.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKeyRecord {
    /// The key.
    pub secret: [u8; 32],
    /// When it was made.
    pub created_at: Timestamp,
    /// From then on nothing that it signed is valid.
    pub expires_at: Timestamp,
}

impl std::fmt::Debug for SigningKeyRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKeyRecord")
            .field("created_at", &self.created_at)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// Sign with another key from now on; answers with its number. Keys whose time is over go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddSigningKey {
    /// The newest key that the proposer knows of; refused if there is a newer one already.
    pub after: Option<u64>,
    /// The key.
    pub key: SigningKeyRecord,
}
