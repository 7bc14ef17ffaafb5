//! Tenants: what each uses, what it may use, and how many requests it was granted this hour.

mod transition;

use crate::names::TenantName;

/// What a tenant uses; always equal to a recount of its rows. A tenant that uses nothing has no such row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageRecord {
    /// Sum over the tenant's links of their blobs' sizes, and over its artifacts and versions of what their rows hold.
    pub bytes: u64,
    /// Artifacts.
    pub artifacts: u64,
    /// Versions, tombstones too.
    pub versions: u64,
    /// Tags.
    pub tags: u64,
    /// Links.
    pub links: u64,
    /// What quotas count: each of the tenant's blobs once, however many of its repositories show it, and what the rows of
    /// artifacts and versions hold.
    pub unique_bytes: u64,
    /// Reserved for uploads that run.
    pub reserved_bytes: u64,
    /// Upload sessions. Upkeep finds expired ones by the tenants that use anything.
    pub uploads: u64,
}

/// What a tenant may use; absent is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitsRecord {
    /// Unique bytes.
    pub storage_quota: Option<u64>,
    /// Artifacts and versions.
    pub artifact_quota: Option<u64>,
    /// Artifacts and versions pushed in an hour.
    pub push_limit: Option<u64>,
    /// Artifacts and files pulled in an hour.
    pub pull_limit: Option<u64>,
}

impl LimitsRecord {
    /// Requests of a kind that the tenant may make in an hour.
    pub fn limit(&self, rate: Rate) -> Option<u64> {
        match rate {
            Rate::Push => self.push_limit,
            Rate::Pull => self.pull_limit,
        }
    }
}

/// What a tenant has a limited amount of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quota {
    /// Unique bytes.
    Storage,
    /// Artifacts and versions.
    Artifacts,
}

impl Quota {
    /// What it counts.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Storage => "bytes",
            Self::Artifacts => "artifacts",
        }
    }
}

/// What is limited by the hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rate {
    /// Artifacts and versions pushed.
    Push,
    /// Artifacts and files pulled.
    Pull,
}

impl Rate {
    /// Both kinds.
    pub const ALL: [Self; 2] = [Self::Push, Self::Pull];

    /// The name used in configuration and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Pull => "pull",
        }
    }
}

/// Requests granted in one hour.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BudgetRecord {
    /// Which hour: hours since the Unix epoch.
    pub hour: u64,
    /// Requests granted to nodes in it, less what they gave back.
    pub granted: u64,
}

/// Grant a node some of a tenant's requests in an hour, or take back what it did not use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseBudget {
    /// The tenant.
    pub tenant: TenantName,
    /// Of which kind.
    pub rate: Rate,
    /// What hour the node takes it to be: hours since the Unix epoch. What is granted is of the cluster's hour; only
    /// what was granted in that one is taken back.
    pub hour: u64,
    /// How many more it would like.
    pub take: u64,
    /// How many it gives back of what it was granted in that hour.
    pub give_back: u64,
}

/// What was granted of a tenant's requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetLeased {
    /// How many more the node may let through.
    pub granted: u64,
    /// What all nodes together were granted in the hour.
    pub budget: BudgetRecord,
}
