//! What a tenant uses, as quotas count it.

use nora_domain::TenantName;
use nora_domain::identity::Rate;
use nora_domain::record::{Key, Record, UsageRecord};

use crate::{Error, Registry};

const HOUR_MILLIS: u64 = 3_600_000;

impl Registry {
    /// Every tenant that may own repositories.
    pub fn tenants(&self) -> Vec<TenantName> {
        self.tenancy.tenants()
    }

    /// How many of a tenant's requests of a kind were granted to nodes in the hour that it is now.
    pub async fn granted_this_hour(&self, tenant: TenantName, rate: Rate) -> Result<u64, Error> {
        let budget = self.budget(tenant, rate).await?;
        Ok(if budget.hour == self.now().0 / HOUR_MILLIS { budget.granted } else { 0 })
    }

    /// What the tenant's rows add up to, as of this node's applied state.
    pub async fn usage(&self, tenant: &TenantName) -> Result<UsageRecord, Error> {
        match self.metadata.get(Key::Usage(tenant.clone())).await? {
            None => Ok(UsageRecord::default()),
            Some(Record::Usage(usage)) => Ok(usage),
            Some(other) => Err(Self::wrong_record(&other)),
        }
    }
}
