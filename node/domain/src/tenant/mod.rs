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
    /// Of these, how many callers without a login pull together. Absent is half of `pull_limit`.
    pub anonymous_pull_limit: Option<u64>,
    /// Of these, how many one caller pulls from one node. Absent is no limit for a login, and half of what callers without
    /// a login may pull for an address.
    pub caller_pull_limit: Option<u64>,
}

/// Requests of any kind that read, for each pull that a caller may make. An image of twenty layers takes about fifty
/// requests of a client that asks for each part before it fetches it.
const READS_PER_PULL: u64 = 50;

impl LimitsRecord {
    /// Requests of a kind that the tenant's clients may make in an hour.
    pub fn limit(&self, rate: Rate) -> Option<u64> {
        match rate {
            Rate::Push => self.push_limit,
            Rate::Pull => self.pull_limit,
            Rate::AnonymousPull => self.anonymous_pull_limit.or(self.pull_limit.map(half)),
        }
    }

    /// Pulls that one caller may make of one node in an hour.
    pub fn pulls_of_caller(&self, is_anonymous: bool) -> Option<u64> {
        let derived = match is_anonymous {
            true => self.limit(Rate::AnonymousPull).map(half),
            false => None,
        };
        self.caller_pull_limit.or(derived)
    }

    /// Requests of any kind that read, blobs and lists among them, that one caller may make of one node in an hour.
    pub fn reads_of_caller(&self, is_anonymous: bool) -> Option<u64> {
        let pulls = self.pulls_of_caller(is_anonymous).or(self.pull_limit)?;
        Some(pulls.saturating_mul(READS_PER_PULL))
    }
}

/// Half of a limit, and one at least.
fn half(limit: u64) -> u64 {
    limit.div_ceil(2)
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
    /// Those of them that callers without a login pulled.
    AnonymousPull,
}

impl Rate {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Push, Self::Pull, Self::AnonymousPull];

    /// The name used in configuration and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Pull => "pull",
            Self::AnonymousPull => "anonymous_pull",
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
