//! What a tenant uses, as quotas count it.

use nora_domain::{HOUR_MILLIS, Key, LimitsRecord, Rate, Record, TenantName, UsageRecord};

use crate::{Error, Registry};

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
}

impl Registry {
    /// Every tenant that may own repositories.
    pub fn tenants(&self) -> Vec<TenantName> {
        self.core.tenancy().tenants()
    }

    /// How many of a tenant's requests of a kind were granted to nodes in the hour that it is now.
    async fn granted_this_hour(&self, tenant: TenantName, rate: Rate) -> Result<u64, Error> {
        let budget = self.budget(tenant, rate).await?;
        Ok(if budget.hour == self.core.now().0 / HOUR_MILLIS { budget.granted } else { 0 })
    }

    /// What a tenant uses and may use, as of this node's applied state.
    pub async fn tenant_usage(&self, tenant: TenantName) -> Result<TenantUsage, Error> {
        let used = self.usage(&tenant).await?;
        let limits = self.tenant_limits(tenant.clone()).await?;
        // What has no limit is not counted.
        let mut granted = [None; 2];
        for (granted, rate) in granted.iter_mut().zip([Rate::Push, Rate::Pull]) {
            if limits.limit(rate).is_some() {
                *granted = Some(self.granted_this_hour(tenant.clone(), rate).await?);
            }
        }
        let [pushes, pulls] = granted;
        Ok(TenantUsage { name: tenant, used, limits, pushes, pulls })
    }

    /// What the tenant's rows add up to, as of this node's applied state.
    pub async fn usage(&self, tenant: &TenantName) -> Result<UsageRecord, Error> {
        match self.core.row(Key::Usage(tenant.clone())).await? {
            None => Ok(UsageRecord::default()),
            Some(Record::Usage(usage)) => Ok(usage),
            Some(other) => Err(Error::wrong_record(&other)),
        }
    }
}
