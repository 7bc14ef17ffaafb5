//! Putting a policy into force.
//!
//! Guarantee: every policy has a number of its own, and its limits take the place of all earlier ones.

use super::{PolicyRecord, SetPolicy};
use crate::command::Refusal;
use crate::state::{Key, Record, Rows, Store};
use crate::transition::{Decision, Step, raise, refuse};

/// More tenants than there are.
const TENANTS_MAX: usize = 100_000;

impl<S: Store> Step<'_, S> {
    pub(crate) fn set_policy(&mut self, command: &SetPolicy) -> Decision<u64, S::Error> {
        let SetPolicy { expected, document, hash, tenants } = command;
        let epoch = self.cluster.policy_epoch;
        if expected.is_some_and(|expected| expected != epoch) {
            return refuse(Refusal::PolicyChanged { epoch });
        }
        raise(&mut self.cluster.policy_epoch, 1);
        let epoch = self.cluster.policy_epoch;
        let record = PolicyRecord {
            epoch,
            document: document.clone(),
            hash: *hash,
            applied_at: self.now,
            applied_by: self.terms.by.as_ref().map(|actor| actor.subject.clone()),
        };
        self.store.put(Key::Policy, Record::Policy(record))?;
        for (key, _) in self.store.scan(&Rows::Tenants { after: None }, TENANTS_MAX)? {
            let Key::Tenant(tenant) = &key else { continue };
            self.store.delete(&Key::Limits(tenant.clone()))?;
            if self.store.get(&Key::Usage(tenant.clone()))?.is_none() {
                self.store.delete(&key)?;
            }
        }
        for (tenant, limits) in tenants {
            self.store.put(Key::Limits(tenant.clone()), Record::Limits(limits.clone()))?;
            self.store.put(Key::Tenant(tenant.clone()), Record::Tenant)?;
        }
        self.identity_changed();
        Ok(epoch)
    }
}
