//! What tenants may use: bytes and artifacts by quota, requests by the hour.
//!
//! Guarantees: bytes in use and bytes reserved never exceed a quota together, in whichever order pushes on however many
//! nodes arrive, because here they have an order; no hour grants more requests than the limit. A quota that was lowered
//! takes nothing away: it only lets nothing grow. A tenant stands in the directory while it uses anything or is limited.

use super::{BudgetLeased, BudgetRecord, LeaseBudget, LimitsRecord, Quota, UsageRecord};
use crate::command::Refusal;
use crate::names::TenantName;
use crate::state::{Key, Record, Store};
use crate::time::HOUR_MILLIS;
use crate::transition::{Decision, Step, raise, refuse};

impl<S: Store> Step<'_, S> {
    pub(crate) fn usage(&self, tenant: &TenantName) -> Result<UsageRecord, S::Error> {
        Ok(read!(self.store, Usage, Key::Usage(tenant.clone())).unwrap_or_default())
    }

    pub(crate) fn put_usage(
        &mut self,
        tenant: &TenantName,
        usage: UsageRecord,
    ) -> Result<(), S::Error> {
        let key = Key::Usage(tenant.clone());
        let was_there = self.store.get(&key)?.is_some();
        if usage == UsageRecord::default() {
            self.store.delete(&key)?;
            if was_there && self.limits(tenant)?.is_none() {
                self.store.delete(&Key::Tenant(tenant.clone()))?;
            }
            return Ok(());
        }
        if !was_there {
            self.store.put(Key::Tenant(tenant.clone()), Record::Tenant)?;
        }
        self.store.put(key, Record::Usage(usage))
    }

    pub(crate) fn limits(&self, tenant: &TenantName) -> Result<Option<LimitsRecord>, S::Error> {
        Ok(read!(self.store, Limits, Key::Limits(tenant.clone())))
    }

    /// Refuses what the tenant has no room for. `released` are reserved bytes that the same step gives up.
    pub(crate) fn check_quota(
        &self,
        tenant: &TenantName,
        bytes: u64,
        artifacts: u64,
        released: u64,
    ) -> Decision<(), S::Error> {
        // Limits come with policies; without one there is nothing to read.
        if self.cluster.policy_epoch == 0 || (bytes == 0 && artifacts == 0) {
            return Ok(());
        }
        let Some(limits) = self.limits(tenant)? else { return Ok(()) };
        let usage = self.usage(tenant)?;
        let check = |quota, limit: u64, used: u64, asked: u64| {
            if asked == 0 || used.saturating_add(asked) <= limit {
                return Ok(());
            }
            refuse(Refusal::QuotaExceeded { quota, limit, used, asked })
        };
        if let Some(limit) = limits.storage_quota {
            let reserved = usage.reserved_bytes.saturating_sub(released);
            check(Quota::Storage, limit, usage.unique_bytes.saturating_add(reserved), bytes)?;
        }
        let counted = usage.artifacts.saturating_add(usage.versions);
        match limits.artifact_quota {
            Some(limit) => check(Quota::Artifacts, limit, counted, artifacts),
            None => Ok(()),
        }
    }

    pub(crate) fn lease_budget(
        &mut self,
        command: &LeaseBudget,
    ) -> Decision<BudgetLeased, S::Error> {
        let LeaseBudget { tenant, rate, hour, take, give_back } = command;
        let Some(limit) = self.limits(tenant)?.and_then(|limits| limits.limit(*rate)) else {
            return refuse(Refusal::NotLimited);
        };
        let key = Key::Budget(tenant.clone(), *rate);
        let before = read!(self.store, Budget, key).unwrap_or_default();
        let mut budget = before.clone();
        // The hour is the cluster's: a node's clock that is wrong must not open the next one, or keep the last one open.
        let now = self.now.0 / HOUR_MILLIS;
        if budget.hour != now {
            budget = BudgetRecord { hour: now, granted: 0 };
        }
        if *hour == now {
            budget.granted = budget.granted.saturating_sub(*give_back);
        }
        let granted = (*take).min(limit.saturating_sub(budget.granted));
        raise(&mut budget.granted, granted);
        if budget != before {
            self.store.put(key, Record::Budget(budget.clone()))?;
        }
        Ok(BudgetLeased { granted, budget })
    }
}
