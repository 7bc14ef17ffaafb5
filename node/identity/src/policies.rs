//! The policy in force on this node: compiled from what the cluster replicates, swapped whole.
//!
//! Guarantees: a document that cannot be compiled never comes into force, and the one before stays; whoever judged by a
//! policy can tell its number; decisions are cached with the policy that made them, and go with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use nora_app::Registry;
use nora_app::ports::policy::Tenancy;
use nora_auth::document::PolicyDocument;
use nora_auth::password::Passwords;
use nora_auth::policy::{Decisions, Policy, PolicyError};
use nora_domain::{Format, LimitsRecord, RepositoryPath, TenantName};

/// Decisions that are kept.
const DECISIONS_MAX: u64 = 100_000;

/// A policy that judges.
pub struct InForce {
    /// Its number; 0 is none.
    pub epoch: u64,
    /// Its decisions, and itself.
    pub decisions: Decisions,
    /// Compares passwords in the same time, whoever they belong to.
    pub passwords: Passwords,
    tenants: Vec<TenantName>,
    limits: BTreeMap<TenantName, LimitsRecord>,
}

/// Why a policy cannot come into force.
#[derive(Debug, thiserror::Error)]
pub enum PolicyFailure {
    /// The document is not one that this version reads.
    #[error("the policy is not a document that this version reads: {0}")]
    Document(#[from] serde_json::Error),
    /// It contradicts itself, or means nothing.
    #[error("{}", told(.0))]
    Refused(Vec<PolicyError>),
    /// It could not be read from the metadata.
    #[error(transparent)]
    Metadata(#[from] nora_app::Error),
}

/// Everything that is wrong with a policy, a line each.
fn told(errors: &[PolicyError]) -> String {
    let lines = errors.iter().map(|error| format!("{}: {}", error.place, error.reason));
    lines.collect::<Vec<_>>().join("\n")
}

/// What the log needs to know of a policy's tenants.
pub fn tenant_limits(document: &PolicyDocument) -> Vec<(TenantName, LimitsRecord)> {
    let limited = document.tenants.iter().filter_map(|tenant| {
        let limits = LimitsRecord {
            storage_quota: tenant.storage_quota,
            artifact_quota: tenant.artifact_quota,
            push_limit: tenant.rate_limit.push,
            pull_limit: tenant.rate_limit.pull,
            anonymous_pull_limit: tenant.rate_limit.anonymous_pull,
            caller_pull_limit: tenant.rate_limit.pull_per_caller,
        };
        // A name that is none was refused when the policy was compiled.
        Some((TenantName::parse(&tenant.name).ok()?, limits))
    });
    let mut limited: Vec<_> = limited.collect();
    limited.sort_by(|(one, _), (other, _)| one.cmp(other));
    limited
}

/// What a node replicates of a document, and its SHA-256.
pub fn canonical(document: &PolicyDocument) -> Result<(Vec<u8>, [u8; 32]), serde_json::Error> {
    let bytes = serde_json::to_vec(document)?;
    let mut hash = [0; 32];
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
    hash.copy_from_slice(digest.as_ref());
    Ok((bytes, hash))
}

/// Repositories that are looked at in one step.
const STRANDED_PAGE: usize = 1_000;

/// A repository that holds artifacts and would belong to another tenant under another policy: it would be out of sight,
/// since what is stored stays with the tenant it was pushed to.
pub async fn stranded(
    registry: &Registry,
    policy: &Policy,
) -> Result<Option<String>, nora_app::Error> {
    registry.catch_up().await?;
    for tenant in registry.tenants().list() {
        for format in [Format::Oci, Format::Npm, Format::Pypi, Format::Maven, Format::Cargo] {
            let mut after: Option<RepositoryPath> = None;
            loop {
                let page = registry
                    .repositories()
                    .of(tenant.clone(), format, after.take(), STRANDED_PAGE)
                    .await?;
                // Links of blobs that no artifact needs are nothing that anybody sees.
                for (path, _) in page.items.iter().filter(|(_, holds_artifacts)| *holds_artifacts) {
                    let then = policy.tenant_of(format, path.as_str());
                    if tenant != *then {
                        let told = format!(
                            "{format}:{path} belongs to {tenant} and would belong to {then}"
                        );
                        return Ok(Some(told));
                    }
                }
                if !page.more {
                    break;
                }
                after = page.items.last().map(|(path, _)| path.clone());
            }
        }
    }
    Ok(None)
}

impl InForce {
    fn new(epoch: u64, policy: Policy) -> Self {
        let document = policy.document();
        let htpasswd = document.auth.iter().flat_map(|auth| auth.htpasswd.values());
        let passwords = Passwords::new(htpasswd.map(String::as_str));
        let limits: BTreeMap<_, _> = tenant_limits(document).into_iter().collect();
        let mut tenants = vec![TenantName::default_tenant()];
        tenants.extend(limits.keys().cloned());
        let decisions = Decisions::new(Arc::new(policy), DECISIONS_MAX);
        Self { epoch, decisions, passwords, tenants, limits }
    }

    /// The policy itself.
    pub fn policy(&self) -> &Arc<Policy> {
        self.decisions.policy()
    }

    /// What a tenant may use.
    pub fn limits(&self, tenant: &TenantName) -> Option<&LimitsRecord> {
        self.limits.get(tenant)
    }
}

/// The policy in force, for whoever asks.
pub struct Policies(ArcSwap<InForce>);

impl Policies {
    /// Without any policy.
    pub fn none() -> Result<Self, PolicyFailure> {
        let policy = Policy::compile(&PolicyDocument::default()).map_err(PolicyFailure::Refused)?;
        Ok(Self(ArcSwap::from_pointee(InForce::new(0, policy))))
    }

    /// The one that judges now.
    pub fn in_force(&self) -> Arc<InForce> {
        self.0.load_full()
    }

    /// Compiles a document as a node would that it came to.
    pub fn compiled(document: &[u8]) -> Result<Policy, PolicyFailure> {
        let document: PolicyDocument = serde_json::from_slice(document)?;
        Policy::compile(&document).map_err(PolicyFailure::Refused)
    }

    /// Reads the policy that this node has applied, if it is another than the one in force. One that cannot be compiled
    /// leaves the one before in force: changes are then refused, since they are judged under a number that is not the
    /// cluster's.
    pub async fn reload(&self, registry: &Registry) -> Result<bool, PolicyFailure> {
        let Some(record) = registry.access().policy().await? else { return Ok(false) };
        if record.epoch == self.0.load().epoch {
            return Ok(false);
        }
        let policy = Self::compiled(&record.document)?;
        self.0.store(Arc::new(InForce::new(record.epoch, policy)));
        Ok(true)
    }
}

impl Tenancy for Policies {
    fn owner(&self, format: Format, path: &RepositoryPath) -> TenantName {
        self.0.load().policy().tenant_of(format, path.as_str()).clone()
    }

    fn has_storage_quota(&self, tenant: &TenantName) -> bool {
        self.0.load().limits(tenant).is_some_and(|limits| limits.storage_quota.is_some())
    }

    fn tenants(&self) -> Vec<TenantName> {
        self.0.load().tenants.clone()
    }
}
