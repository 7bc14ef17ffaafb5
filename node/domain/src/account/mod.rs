//! Accounts: users and robots that the cluster keeps.

mod transition;

use crate::names::AccountName;
use crate::time::Timestamp;

/// A user or a robot.
#[derive(Clone, PartialEq, Eq)]
pub struct AccountRecord {
    /// Whether it is a program: it has tokens and no password.
    pub is_robot: bool,
    /// Its password's hash; empty for a robot.
    pub password_hash: String,
    /// Groups it is in, besides those that the policy puts it into.
    pub groups: Vec<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// The identity epoch of its last new password: sessions from before have ended.
    pub generation: u64,
}

impl std::fmt::Debug for AccountRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccountRecord")
            .field("is_robot", &self.is_robot)
            .field("groups", &self.groups)
            .field("created_at", &self.created_at)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

/// Make an account. Refused if there is one of that name.
#[derive(Clone, PartialEq, Eq)]
pub struct CreateAccount {
    /// Its name.
    pub account: AccountName,
    /// Whether it is a program.
    pub is_robot: bool,
    /// Its password's hash; empty for a robot.
    pub password_hash: String,
    /// Its groups.
    pub groups: Vec<String>,
}

/// Give an account another password: its sessions and refresh tokens end.
#[derive(Clone, PartialEq, Eq)]
pub struct SetPassword {
    /// The account.
    pub account: AccountName,
    /// The new password's hash.
    pub password_hash: String,
}

/// Remove an account and every token of it, refresh tokens included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoveAccount {
    /// The account.
    pub account: AccountName,
}

/// What went with an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountRemoved {
    /// Tokens that it had.
    pub tokens: u32,
}

impl std::fmt::Debug for CreateAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreateAccount")
            .field("account", &self.account)
            .field("is_robot", &self.is_robot)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for SetPassword {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SetPassword").field("account", &self.account).finish_non_exhaustive()
    }
}
