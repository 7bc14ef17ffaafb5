//! What tenants may use: bytes and artifacts by quota, requests by the hour.
//!
//! Guarantees: bytes in use and bytes set aside never exceed a quota together, in whichever order pushes on however many
//! nodes arrive, because here they have an order; no hour grants more requests than the limit. A quota that was lowered
//! takes nothing away: it only lets nothing grow.

use std::collections::BTreeMap;

use super::{Decision, Step, Stop, lower, raise};
use crate::command::{Outcome, Quota, Refusal};
use crate::digest::Digest;
use crate::identity::{BudgetRecord, HOUR_MILLIS, Rate, TenantRecord};
use crate::name::{RepositoryKey, TenantName};
use crate::record::{FeatureLevel, Key, Record, UniqueTo, UploadId, UsageRecord};
use crate::store::{Rows, Store};

/// Blobs that one step of [`UniqueTo`] counts.
const COUNTED_BLOBS: usize = 64;
/// Links of one blob that are read at a time.
const LINKS_PAGE: usize = 256;
/// More tenants than there are.
const TENANTS_MAX: usize = 100_000;

impl<S: Store> Step<'_, S> {
    /// Whether unique bytes are counted at all.
    pub(super) fn counts_unique(&self) -> bool {
        self.level() >= FeatureLevel::IDENTITY
    }

    pub(super) fn usage(&self, tenant: &TenantName) -> Result<UsageRecord, S::Error> {
        Ok(read!(self.store, Usage, Key::Usage(tenant.clone())).unwrap_or_default())
    }

    pub(super) fn put_usage(
        &mut self,
        tenant: &TenantName,
        usage: UsageRecord,
    ) -> Result<(), S::Error> {
        let key = Key::Usage(tenant.clone());
        if usage == UsageRecord::default() {
            self.store.delete(&key)
        } else {
            self.store.put(key, Record::Usage(usage))
        }
    }

    /// Unique bytes that a link takes, or gives back: none while another repository of the tenant shows the blob too.
    pub(super) fn unique_bytes_of(
        &self,
        repository: &RepositoryKey,
        digest: Digest,
        size: u64,
    ) -> Result<u64, S::Error> {
        if !self.counts_unique() {
            return Ok(0);
        }
        if !self.cluster.unique_to.covers(digest) {
            return Ok(size);
        }
        let links = Rows::LinksIn { blob: digest, tenant: repository.tenant.clone() };
        let others = self
            .store
            .scan(&links, 2)?
            .into_iter()
            .any(|(key, _)| !matches!(key, Key::Link(_, shown_in) if shown_in == *repository));
        Ok(if others { 0 } else { size })
    }

    /// Refuses what the tenant has no room for. `released` are bytes set aside that the same step gives up.
    pub(super) fn check_room(
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
        let Some(limits) = read!(self.store, Tenant, Key::Tenant(tenant.clone())) else {
            return Ok(());
        };
        let usage = self.usage(tenant)?;
        let refuse = |quota, limit: u64, used: u64, asked: u64| {
            if asked == 0 || used.saturating_add(asked) <= limit {
                return Ok(());
            }
            Err(Stop::Refused(Refusal::QuotaExceeded { quota, limit, used, asked }))
        };
        if let Some(limit) = limits.storage_quota {
            let aside = usage.reserved_bytes.saturating_sub(released);
            refuse(Quota::Storage, limit, usage.unique_bytes.saturating_add(aside), bytes)?;
        }
        match limits.artifact_quota {
            Some(limit) => refuse(Quota::Artifacts, limit, usage.artifacts, artifacts),
            None => Ok(()),
        }
    }

    /// Bytes that are set aside for an upload, if that is the tenant's.
    pub(super) fn set_aside(&self, upload: UploadId, tenant: &TenantName) -> Result<u64, S::Error> {
        let known = read!(self.store, Upload, Key::Upload(upload));
        let known = known.filter(|known| known.repository.tenant == *tenant);
        Ok(known.map_or(0, |known| known.reserved_bytes))
    }

    /// An upload is over: its row goes, and what was set aside for it is free.
    pub(super) fn end_upload(&mut self, upload: UploadId) -> Result<(), S::Error> {
        let key = Key::Upload(upload);
        if let Some(known) = read!(self.store, Upload, key)
            && known.reserved_bytes > 0
        {
            let tenant = known.repository.tenant;
            let mut usage = self.usage(&tenant)?;
            lower(&mut usage.reserved_bytes, known.reserved_bytes);
            self.put_usage(&tenant, usage)?;
        }
        self.store.delete(&key)
    }

    pub(super) fn lease_budget(
        &mut self,
        tenant: &TenantName,
        rate: Rate,
        hour: u64,
        take: u64,
        give_back: u64,
    ) -> Decision<Outcome, S::Error> {
        let limits = read!(self.store, Tenant, Key::Tenant(tenant.clone()));
        let Some(limit) = limits.and_then(|limits: TenantRecord| limits.limit(rate)) else {
            return Err(Stop::Refused(Refusal::NotLimited));
        };
        let key = Key::Budget(tenant.clone(), rate);
        let before = read!(self.store, Budget, key).unwrap_or_default();
        let mut budget = before.clone();
        // The hour is the cluster's: a node's clock that is wrong must not open the next one, or keep the last one open.
        let now = self.now.0 / HOUR_MILLIS;
        if budget.hour != now {
            budget = BudgetRecord { hour: now, granted: 0 };
        }
        if hour == now {
            budget.granted = budget.granted.saturating_sub(give_back);
        }
        let granted = take.min(limit.saturating_sub(budget.granted));
        raise(&mut budget.granted, granted);
        if budget != before {
            self.store.put(key, Record::Budget(budget.clone()))?;
        }
        Ok(Outcome::BudgetLeased { granted, budget })
    }

    /// From now on unique bytes are counted. What is there counts once for each link until [`Self::count_unique`] has come
    /// by.
    pub(super) fn begin_unique(&mut self) -> Result<(), S::Error> {
        for (key, record) in self.store.scan(&Rows::Usages, TENANTS_MAX)? {
            if let Record::Usage(usage) = record {
                let usage = UsageRecord { unique_bytes: usage.bytes, ..usage };
                self.store.put(key, Record::Usage(usage))?;
            }
        }
        if self.store.scan(&Rows::Blobs { after: None }, 1)?.is_empty() {
            self.cluster.unique_to = UniqueTo::Everything;
        }
        Ok(())
    }

    pub(super) fn count_unique(&mut self) -> Decision<Outcome, S::Error> {
        let after = match self.cluster.unique_to {
            UniqueTo::Everything => return Ok(Outcome::UniqueCounted { done: true }),
            UniqueTo::Nothing => None,
            UniqueTo::Blob(last) => Some(last),
        };
        let blobs = self.store.scan(&Rows::Blobs { after }, COUNTED_BLOBS)?;
        let mut twice: BTreeMap<TenantName, u64> = BTreeMap::new();
        for (key, record) in &blobs {
            if let (Key::Blob(digest), Record::Blob(blob)) = (key, record) {
                self.count_twice(*digest, blob.size, &mut twice)?;
            }
        }
        for (tenant, bytes) in twice {
            let mut usage = self.usage(&tenant)?;
            lower(&mut usage.unique_bytes, bytes);
            self.put_usage(&tenant, usage)?;
        }
        let done = blobs.len() < COUNTED_BLOBS;
        self.cluster.unique_to = match blobs.last() {
            Some((Key::Blob(last), _)) if !done => UniqueTo::Blob(*last),
            _ => UniqueTo::Everything,
        };
        Ok(Outcome::UniqueCounted { done })
    }

    /// Adds what was counted for a blob more than once in each tenant.
    fn count_twice(
        &self,
        blob: Digest,
        size: u64,
        twice: &mut BTreeMap<TenantName, u64>,
    ) -> Result<(), S::Error> {
        let mut after: Option<RepositoryKey> = None;
        loop {
            let last = after.clone();
            let page = self.store.scan(&Rows::Links { blob, after: last }, LINKS_PAGE)?;
            let is_last = page.len() < LINKS_PAGE;
            for (key, _) in page {
                let Key::Link(_, repository) = key else { continue };
                // Links of one tenant are neighbours.
                if after.as_ref().is_some_and(|before| before.tenant == repository.tenant) {
                    raise(twice.entry(repository.tenant.clone()).or_default(), size);
                }
                after = Some(repository);
            }
            if is_last {
                return Ok(());
            }
        }
    }
}
