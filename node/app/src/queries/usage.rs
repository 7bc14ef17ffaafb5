//! What a tenant uses, as quotas count it.

use nora_domain::TenantName;
use nora_domain::record::{Key, Record, UsageRecord};

use crate::{Error, Registry};

impl Registry {
    /// What the tenant's rows add up to, as of this node's applied state.
    pub async fn usage(&self, tenant: &TenantName) -> Result<UsageRecord, Error> {
        match self.metadata.get(Key::Usage(tenant.clone())).await? {
            None => Ok(UsageRecord::default()),
            Some(Record::Usage(usage)) => Ok(usage),
            Some(other) => Err(Self::wrong_record(&other)),
        }
    }
}
