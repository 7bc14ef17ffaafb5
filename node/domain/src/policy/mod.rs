//! The policy in force.
//!
//! The document is opaque here: globs and claims are judged by the proposer of a command, under a policy whose number the
//! command carries; the transition refuses a command that was judged under another one.

mod transition;

use crate::journal::Subject;
use crate::names::TenantName;
use crate::tenant::LimitsRecord;
use crate::time::Timestamp;

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
    /// Who applied it; `None` is the cluster itself.
    pub applied_by: Option<Subject>,
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

/// Put a policy into force; answers with its number. Its limits for tenants stand beside the document, which is opaque
/// here.
#[derive(Clone, PartialEq, Eq)]
pub struct SetPolicy {
    /// Refused if another policy than this one is in force; `None` takes whatever is.
    pub expected: Option<u64>,
    /// The document.
    pub document: Vec<u8>,
    /// SHA-256 of it.
    pub hash: [u8; 32],
    /// What tenants may use; sorted by name, each once.
    pub tenants: Vec<(TenantName, LimitsRecord)>,
}

impl std::fmt::Debug for SetPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SetPolicy")
            .field("expected", &self.expected)
            .field("tenants", &self.tenants)
            .finish_non_exhaustive()
    }
}
