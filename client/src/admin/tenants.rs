//! Tenants: what they use, and how much they may.

use nora_proto::v1 as proto;
use nora_proto::v1::tenants_client::TenantsClient;
use serde::Serialize;

use super::{AdminClient, AdminError, unless_zero};

/// A tenant with its limits and its use. Sizes in bytes; no limit is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TenantUsage {
    /// Its name.
    pub name: String,
    /// What it owns, as `oci:frontend/*`.
    pub namespaces: Vec<String>,
    /// Its blobs, each counted once, and its artifacts' own bytes. This is what the quota limits.
    pub unique_bytes: u64,
    /// Set aside for uploads that run; counts against the quota too.
    pub reserved_bytes: u64,
    /// The sum over its repositories, shared blobs counted in each.
    pub bytes: u64,
    /// Its artifacts.
    pub artifacts: u64,
    /// Its tags.
    pub tags: u64,
    /// Unique bytes that it may have.
    pub storage_quota: Option<u64>,
    /// Artifacts that it may have.
    pub artifact_quota: Option<u64>,
    /// Pushes that it may make in an hour.
    pub push_limit: Option<u64>,
    /// Pulls that it may make in an hour.
    pub pull_limit: Option<u64>,
    /// Pushes that nodes were granted in this hour; none where they are not limited, and so not counted.
    pub pushes: Option<u64>,
    /// The same of pulls.
    pub pulls: Option<u64>,
    /// Pulls, among these, that callers without a login may make in an hour.
    pub anonymous_pull_limit: Option<u64>,
    /// Those that nodes were granted in this hour.
    pub anonymous_pulls: Option<u64>,
}

impl From<proto::Tenant> for TenantUsage {
    fn from(tenant: proto::Tenant) -> Self {
        Self {
            name: tenant.name,
            namespaces: tenant.namespaces,
            unique_bytes: tenant.unique_bytes,
            reserved_bytes: tenant.reserved_bytes,
            bytes: tenant.bytes,
            artifacts: tenant.artifacts,
            tags: tenant.tags,
            storage_quota: unless_zero(tenant.storage_quota),
            artifact_quota: unless_zero(tenant.artifact_quota),
            push_limit: unless_zero(tenant.push_limit),
            pull_limit: unless_zero(tenant.pull_limit),
            pushes: tenant.pushes,
            pulls: tenant.pulls,
            anonymous_pull_limit: unless_zero(tenant.anonymous_pull_limit),
            anonymous_pulls: tenant.anonymous_pulls,
        }
    }
}

impl AdminClient {
    /// The tenants that the caller administers, or one of them.
    pub async fn tenants(&self, name: Option<&str>) -> Result<Vec<TenantUsage>, AdminError> {
        let request = proto::ListTenantsRequest { name: name.unwrap_or_default().to_owned() };
        let listed = self.call(request, async |channel, request| {
            TenantsClient::new(channel).list_tenants(request).await
        });
        Ok(listed.await?.tenants.into_iter().map(TenantUsage::from).collect())
    }
}
