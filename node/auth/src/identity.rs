//! Who asks: a subject, its groups, and what the credential that was shown is cut down to.
//!
//! Guarantees: names that the policy and accounts use are parsed here and nowhere else, so that no account can have a
//! name with a meaning of its own (`admin`, `anonymous`, `authenticated`) or one that reads as another kind of subject
//! (no name holds `:`). Must not know: how somebody has shown who it is, or what it may do.

pub use nora_domain::Subject;

use crate::permission::PermissionSet;

/// The administrator's user name.
pub const ADMIN_USER: &str = "admin";

/// Names that are no account's.
pub const RESERVED: [&str; 3] = [ADMIN_USER, "anonymous", "authenticated"];

/// The most bytes of a name.
pub const NAME_BYTES_MAX: usize = 64;

/// Why a text is no name for a user, robot, group, token or issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameRefused {
    /// It is empty.
    #[error("the name is empty")]
    Empty,
    /// It is too long.
    #[error("the name is longer than 64 bytes")]
    TooLong,
    /// It holds something that names do not.
    #[error("a name holds only ASCII letters, digits and `.`, `_`, `-`, `@`, `+`")]
    Character,
    /// It means something already.
    #[error("`admin`, `anonymous` and `authenticated` are reserved: choose another name")]
    Reserved,
}

/// Whether a user, robot, group, token or issuer may have that name.
pub fn check_name(text: &str) -> Result<(), NameRefused> {
    if text.is_empty() {
        return Err(NameRefused::Empty);
    }
    if text.len() > NAME_BYTES_MAX {
        return Err(NameRefused::TooLong);
    }
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-@+".contains(&byte)) {
        return Err(NameRefused::Character);
    }
    if RESERVED.iter().any(|reserved| text.eq_ignore_ascii_case(reserved)) {
        return Err(NameRefused::Reserved);
    }
    Ok(())
}

/// Who asks, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Who.
    pub subject: Subject,
    /// Groups that its account is in. Those of `[auth.groups]` need not be here: the policy adds its own each time it
    /// decides, so that leaving a group counts at once.
    pub groups: Vec<String>,
    /// The API token's name, if one was shown.
    pub token: Option<String>,
    /// What the shown token is cut down to. It never widens.
    pub scope: Option<PermissionSet>,
    /// What an exchanged workload token gives of itself.
    pub grant: Option<PermissionSet>,
}

impl Identity {
    /// Somebody with nothing but being who it is.
    pub fn of(subject: Subject) -> Self {
        Self { subject, groups: Vec::new(), token: None, scope: None, grant: None }
    }

    /// Whoever showed no credential.
    pub fn anonymous() -> Self {
        Self::of(Subject::Anonymous)
    }

    /// Whether it showed a credential.
    pub fn is_authenticated(&self) -> bool {
        !self.subject.is_nobody()
    }
}
