//! What use cases ask of the policy: who owns a name, and what whoever acts may do to tags.
//!
//! Whether a request may be made at all was decided before a use case is called. What is asked here is what the log needs
//! to know beside the change: under which policy it was judged, and where making and moving a tag are two things.

use nora_domain::{
    Actor, Deed, Format, Reason, RepositoryKey, RepositoryPath, TagName, TenantName,
};

use super::BoxFuture;
use super::metadata::MetadataError;
use crate::Error;

/// Who owns names, by the policy in force.
pub trait Tenancy: Send + Sync {
    /// The tenant that owns a repository of this name.
    fn owner(&self, format: Format, path: &RepositoryPath) -> TenantName;

    /// Whether the tenant's bytes are limited: then room is set aside before bytes are taken.
    fn has_storage_quota(&self, tenant: &TenantName) -> bool;

    /// Every tenant that may own repositories: those of the policy, and the one that owns the rest.
    fn tenants(&self) -> Vec<TenantName>;
}

/// How a change is judged under the policy in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// The number of that policy, 0 if there is none yet; `None` if whoever acts is not judged.
    pub policy: Option<u64>,
    /// Who owns the repository under that policy; `None` if whoever acts is not judged.
    pub owner: Option<TenantName>,
    /// Of the tags asked about, those that may be made and not moved. Sorted.
    pub create_only: Vec<TagName>,
    /// Of the tags asked about, those that stay as they are once they are there. Sorted.
    pub immutable: Vec<TagName>,
    /// Whether any tag of the repository may be immutable.
    pub has_immutable: bool,
    /// Whether whoever acts may do it at all, under that policy: a request may have waited for longer than a policy lasts.
    pub is_permitted: bool,
}

/// What a change does to a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It takes something from there to elsewhere.
    Pull,
    /// It adds or moves something.
    Push,
    /// It takes something away.
    Delete,
}

/// Who acts.
pub trait Caller: Send + Sync {
    /// What the audit log says of them.
    fn actor(&self) -> Actor;

    /// The name under which what they hold is counted: their subject, or where they are if they showed no login.
    fn counted_as(&self) -> String;

    /// Judges a change of a repository, and of these tags of it, all by one policy.
    fn judge(&self, change: Change, repository: &RepositoryKey, tags: &[TagName]) -> Judgement;

    /// Whether what they showed when the request began would still be believed: an account that was removed, or a token
    /// that was revoked, must not end what it had begun.
    fn still_stands(&self) -> BoxFuture<'_, Result<bool, Error>>;

    /// Notes a refusal that becomes no command.
    fn note_refusal(&self, deed: Deed, why: Reason);

    /// Waits until the newest policy that this node has applied is the one that judges.
    fn refresh(&self) -> BoxFuture<'_, Result<(), MetadataError>>;
}

/// One tenant owns everything, and nothing is limited: a registry without a policy.
#[derive(Clone, Copy, Debug, Default)]
pub struct SingleTenant;

impl Tenancy for SingleTenant {
    fn owner(&self, _format: Format, _path: &RepositoryPath) -> TenantName {
        TenantName::default_tenant()
    }

    fn has_storage_quota(&self, _tenant: &TenantName) -> bool {
        false
    }

    fn tenants(&self) -> Vec<TenantName> {
        vec![TenantName::default_tenant()]
    }
}
