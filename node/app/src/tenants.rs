//! Tenants: what each uses, as quotas count it, and what it may use.

use nora_domain::{
    BudgetLeased, BudgetRecord, HOUR_MILLIS, Key, LeaseBudget, LimitsRecord, Rate, Refusal,
    TenantName, UsageRecord,
};

use crate::Error;
use crate::core::{Core, record};

/// What a tenant uses and may use.
#[derive(Clone, Debug)]
pub struct TenantUsage {
    /// Its name.
    pub name: TenantName,
    /// What is stored.
    pub used: UsageRecord,
    /// What it may use.
    pub limits: LimitsRecord,
    /// Pushes that nodes were granted in this hour; `None` if they are not limited, and so not counted.
    pub pushes: Option<u64>,
    /// The same of pulls.
    pub pulls: Option<u64>,
    /// The same of pulls by callers without a login.
    pub anonymous_pulls: Option<u64>,
}

/// The tenants.
#[derive(Clone, Copy)]
pub struct Tenants<'a> {
    core: &'a Core,
}

impl<'a> Tenants<'a> {
    pub(crate) fn new(core: &'a Core) -> Self {
        Self { core }
    }

    /// Every tenant that may own repositories.
    pub fn list(self) -> Vec<TenantName> {
        self.core.tenancy().tenants()
    }

    /// What the policy lets a tenant use.
    pub async fn limits(self, tenant: TenantName) -> Result<LimitsRecord, Error> {
        Ok(record!(Limits, self.core.row(Key::Limits(tenant)).await?).unwrap_or_default())
    }

    /// What the tenant's rows add up to, as of this node's applied state.
    pub async fn usage(self, tenant: &TenantName) -> Result<UsageRecord, Error> {
        Ok(record!(Usage, self.core.row(Key::Usage(tenant.clone())).await?).unwrap_or_default())
    }

    /// What a tenant uses and may use, as of this node's applied state.
    pub async fn overview(self, tenant: TenantName) -> Result<TenantUsage, Error> {
        let used = self.usage(&tenant).await?;
        let limits = self.limits(tenant.clone()).await?;
        // What has no limit is not counted.
        let mut granted = [None; 3];
        for (granted, rate) in granted.iter_mut().zip(Rate::ALL) {
            if limits.limit(rate).is_some() {
                *granted = Some(self.granted_this_hour(tenant.clone(), rate).await?);
            }
        }
        let [pushes, pulls, anonymous_pulls] = granted;
        Ok(TenantUsage { name: tenant, used, limits, pushes, pulls, anonymous_pulls })
    }

    /// How many of a tenant's requests of a kind were granted to nodes in the hour that it is now.
    async fn granted_this_hour(self, tenant: TenantName, rate: Rate) -> Result<u64, Error> {
        let row = self.core.row(Key::Budget(tenant, rate)).await?;
        let budget = record!(Budget, row).unwrap_or_default();
        Ok(if budget.hour == self.core.now().0 / HOUR_MILLIS { budget.granted } else { 0 })
    }

    /// Asks for some of a tenant's requests in an hour, and gives back what was not used of it; `None` if they are not
    /// limited.
    pub async fn lease_budget(
        self,
        tenant: TenantName,
        rate: Rate,
        hour: u64,
        take: u64,
        give_back: u64,
    ) -> Result<Option<(u64, BudgetRecord)>, Error> {
        match self.core.propose(LeaseBudget { tenant, rate, hour, take, give_back }).await? {
            Ok(BudgetLeased { granted, budget }) => Ok(Some((granted, budget))),
            Err(Refusal::NotLimited) => Ok(None),
            Err(refusal) => Err(refusal.into()),
        }
    }
}
