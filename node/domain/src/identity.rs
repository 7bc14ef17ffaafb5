//! Who acts, what the policy says, and what is remembered of what was done: the records behind logins.
//!
//! The policy itself is opaque here: globs and claims are judged by whoever proposes a command, under a policy whose
//! number the command carries; the transition refuses a command that was judged under another one. What must have an
//! order among racing commands (quotas, budgets, single use of an issuer's token, the audit log) is decided here.

use sha2::{Digest as _, Sha256};

use crate::record::Timestamp;

/// Who asked for a change, and from where: what the audit log tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actor {
    /// As `user:alice`, `admin`, `anonymous`.
    pub subject: String,
    /// The client's address.
    pub address: String,
    /// The request's id.
    pub request: String,
}

impl Actor {
    /// Longer texts are cut by whoever proposes: the log must stay small.
    pub const TEXT_BYTES_MAX: usize = 256;
}

/// The policy in force.
#[derive(Clone, PartialEq, Eq)]
pub struct PolicyRecord {
    /// Its number.
    pub epoch: u64,
    /// The document, as every node compiles it.
    pub document: Vec<u8>,
    /// SHA-256 of the document.
    pub hash: [u8; 32],
    /// Since when it is in force.
    pub applied_at: Timestamp,
    /// Who put it there.
    pub applied_by: String,
}

impl std::fmt::Debug for PolicyRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The document holds hashes of passwords.
        f.debug_struct("PolicyRecord")
            .field("epoch", &self.epoch)
            .field("applied_at", &self.applied_at)
            .field("applied_by", &self.applied_by)
            .finish_non_exhaustive()
    }
}

/// What a tenant may use; absent is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantRecord {
    /// Unique bytes.
    pub storage_quota: Option<u64>,
    /// Artifacts.
    pub artifact_quota: Option<u64>,
    /// Artifacts pushed in an hour.
    pub push_limit: Option<u64>,
    /// Artifacts pulled in an hour.
    pub pull_limit: Option<u64>,
}

impl TenantRecord {
    /// Requests of a kind that it may make in an hour.
    pub fn limit(&self, rate: Rate) -> Option<u64> {
        match rate {
            Rate::Push => self.push_limit,
            Rate::Pull => self.pull_limit,
        }
    }
}

/// Milliseconds of an hour; hours count from the Unix epoch.
pub const HOUR_MILLIS: u64 = 3_600_000;

/// What is limited by the hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rate {
    /// Artifacts pushed.
    Push,
    /// Artifacts pulled.
    Pull,
}

impl Rate {
    /// The name used in configuration and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Pull => "pull",
        }
    }
}

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

/// An issuer's token that was exchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssertionRecord {
    /// From then on the issuer's own expiry refuses it.
    pub expires_at: Timestamp,
}

/// Requests granted in one hour.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BudgetRecord {
    /// Which hour: hours since the Unix epoch.
    pub hour: u64,
    /// Requests granted to nodes in it, less what they gave back.
    pub granted: u64,
}

/// Where the audit log begins and ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditHeadRecord {
    /// Number of the first entry that is kept; entries count from 1.
    pub first: u64,
    /// Number of the next entry.
    pub next: u64,
    /// The chain's value before the first entry that is kept.
    pub anchor: [u8; 32],
    /// The chain's value after the last entry.
    pub head: [u8; 32],
    /// Number of the last entry that the webhook took; 0 if none.
    pub sent: u64,
}

/// An entry of the audit log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditRecord {
    /// The cluster's time.
    pub at: Timestamp,
    /// Who.
    pub actor: Actor,
    /// What, as `artifact.push`.
    pub action: String,
    /// About what, as `oci:frontend/app:v1`.
    pub resource: String,
    /// `done`, or why it was refused.
    pub result: String,
    /// How many times, for refusals that were counted together.
    pub count: u32,
    /// The chain's value after this entry.
    pub chain: [u8; 32],
}

impl AuditRecord {
    /// The chain's value after this entry, given the one before it: SHA-256 over that value, the entry's number, and each
    /// field with its length before it, so that no two entries read alike.
    pub fn chained(&self, before: &[u8; 32], number: u64) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(before);
        hash.update(number.to_be_bytes());
        hash.update(self.at.0.to_be_bytes());
        hash.update(self.count.to_be_bytes());
        let actor = [&self.actor.subject, &self.actor.address, &self.actor.request];
        for text in actor.into_iter().chain([&self.action, &self.resource, &self.result]) {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text.as_bytes());
        }
        hash.finalize().into()
    }
}

/// A refusal that never became a command: the policy or a limit was in its way on the node that was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusalNote {
    /// Who.
    pub actor: Actor,
    /// What, as `artifact.push`.
    pub action: String,
    /// About what.
    pub resource: String,
    /// Why.
    pub result: String,
    /// How many times.
    pub count: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_tells_every_field_and_place() {
        let entry = AuditRecord {
            at: Timestamp(7),
            actor: Actor { subject: "a".into(), address: "b".into(), request: "c".into() },
            action: "d".into(),
            resource: "e".into(),
            result: "f".into(),
            count: 1,
            chain: [0; 32],
        };
        let value = entry.chained(&[0; 32], 1);
        assert_eq!(value, entry.chained(&[0; 32], 1));
        assert_ne!(value, entry.chained(&[1; 32], 1));
        assert_ne!(value, entry.chained(&[0; 32], 2));
        let moved = AuditRecord { action: "de".into(), resource: String::new(), ..entry.clone() };
        assert_ne!(value, moved.chained(&[0; 32], 1));
        let recount = AuditRecord { count: 2, ..entry };
        assert_ne!(value, recount.chained(&[0; 32], 1));
    }
}
