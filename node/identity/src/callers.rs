//! As whom a caller is counted; and what one caller takes of a tenant's hour on this node, so that no caller takes it all.
//!
//! A caller is a user, a CI job's subject, or an address without a login. Pulls count, and so does whatever else is read:
//! blobs, lists, and questions whether something is there. Guarantee: memory is bounded. To keep it so, callers may be
//! forgotten, and begin anew. Must not know: what is read.

use std::net::IpAddr;

use moka::sync::Cache;
use nora_domain::{HOUR_MILLIS, LimitsRecord, TenantName, Timestamp};

use super::caller::Caller;
use super::limits::{Allowance, Limit, Over, Why};
use super::lockout::neighbours;

/// Callers that are counted.
const CALLERS_MAX: u64 = 20_000;

/// A caller, as what it takes and holds is counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Who {
    /// By the subject's name.
    Subject(String),
    /// A caller without a login, by address; `None` if the address is not known.
    Address(Option<IpAddr>),
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Subject(subject) => f.write_str(subject),
            Self::Address(Some(address)) => write!(f, "{address}"),
            Self::Address(None) => f.write_str("unknown address"),
        }
    }
}

impl Who {
    /// As whom a caller's requests are counted. On an open node, callers without a login are counted as one.
    pub(super) fn asks(caller: &Caller) -> Self {
        match caller.is_anonymous() {
            true => Self::Address(caller.address().map(neighbours)),
            false => Self::Subject(caller.identity().subject.to_string()),
        }
    }

    /// As whom the places that a caller holds are counted. On an open node each address has its own.
    pub(super) fn holds(caller: &Caller) -> Self {
        match caller.identity().is_authenticated() {
            true => Self::Subject(caller.identity().subject.to_string()),
            false => Self::Address(caller.address().map(neighbours)),
        }
    }
}

#[derive(Clone, Copy, Default)]
struct Counts {
    hour: u64,
    pulls: u64,
    reads: u64,
}

/// What callers have read of tenants in an hour.
pub(super) struct Callers {
    counts: Cache<(TenantName, Who), Counts>,
}

impl Callers {
    pub(super) fn new() -> Self {
        Self { counts: Cache::new(CALLERS_MAX) }
    }

    /// Counts a request that reads, and says what is left; `None` if nothing limits the caller.
    pub(super) fn take(
        &self,
        tenant: &TenantName,
        who: Who,
        limits: &LimitsRecord,
        is_pull: bool,
        now: Timestamp,
    ) -> Result<Option<Allowance>, Over> {
        let is_anonymous = matches!(who, Who::Address(_));
        let pulls_max = limits.pulls_of_caller(is_anonymous);
        let reads_max = limits.reads_of_caller(is_anonymous);
        if pulls_max.is_none() && reads_max.is_none() {
            return Ok(None);
        }
        let hour = now.0 / HOUR_MILLIS;
        let counted = self.counts.entry((tenant.clone(), who)).and_upsert_with(|known| {
            let known = known.map(moka::Entry::into_value).filter(|counts| counts.hour == hour);
            let Counts { pulls, reads, .. } = known.unwrap_or_default();
            let pulls = pulls.saturating_add(u64::from(is_pull));
            Counts { hour, pulls, reads: reads.saturating_add(1) }
        });
        let counts = counted.into_value();
        let pulls = (Limit::CallerPull, pulls_max.filter(|_| is_pull), counts.pulls);
        let reads = (Limit::CallerRead, reads_max, counts.reads);
        let mut told = None;
        for (of, max, count) in [reads, pulls] {
            let Some(max) = max else { continue };
            let allowance = Allowance::until_next_hour(max, max.saturating_sub(count), now);
            if count > max {
                return Err(Over { of, why: Why::Spent, allowance });
            }
            // Clients are told of pulls; what else they read is limited far beyond what a pull takes.
            told = Some(allowance).filter(|_| of == Limit::CallerPull);
        }
        Ok(told)
    }

    /// Takes back that a request was counted: another limit has refused it.
    pub(super) fn give_back(&self, tenant: &TenantName, who: Who, is_pull: bool, now: Timestamp) {
        let hour = now.0 / HOUR_MILLIS;
        self.counts.entry((tenant.clone(), who)).and_compute_with(|known| {
            match known.map(moka::Entry::into_value).filter(|counts| counts.hour == hour) {
                Some(Counts { pulls, reads, .. }) => moka::ops::compute::Op::Put(Counts {
                    hour,
                    pulls: pulls.saturating_sub(u64::from(is_pull)),
                    reads: reads.saturating_sub(1),
                }),
                None => moka::ops::compute::Op::Nop,
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(HOUR_MILLIS);

    fn tenant() -> TenantName {
        TenantName::parse("red").unwrap()
    }

    fn user(name: &str) -> Who {
        Who::Subject(name.to_owned())
    }

    #[test]
    fn each_caller_has_a_part_of_the_hour() {
        let callers = Callers::new();
        let limits = LimitsRecord {
            pull_limit: Some(100),
            caller_pull_limit: Some(2),
            ..LimitsRecord::default()
        };
        let pull = |who, now| callers.take(&tenant(), who, &limits, true, now);
        assert_eq!(pull(user("a"), NOW).unwrap().unwrap().remaining, 1);
        assert_eq!(pull(user("a"), NOW).unwrap().unwrap().remaining, 0);
        let over = pull(user("a"), NOW).unwrap_err();
        assert_eq!((over.of, over.allowance.reset_secs), (Limit::CallerPull, 3_600));
        pull(user("b"), NOW).unwrap();
        pull(Who::Address(None), NOW).unwrap();
        pull(user("a"), Timestamp(2 * HOUR_MILLIS)).unwrap();
        // What another limit refused is no part of the hour.
        pull(user("c"), NOW).unwrap();
        pull(user("c"), NOW).unwrap();
        callers.give_back(&tenant(), user("c"), true, NOW);
        callers.give_back(&tenant(), user("c"), true, Timestamp(2 * HOUR_MILLIS));
        assert_eq!(pull(user("c"), NOW).unwrap().unwrap().remaining, 0);
        pull(user("c"), NOW).unwrap_err();
    }

    #[test]
    fn whatever_is_read_counts() {
        let callers = Callers::new();
        let limits = LimitsRecord { pull_limit: Some(4), ..LimitsRecord::default() };
        let read = |who| callers.take(&tenant(), who, &limits, false, NOW);
        // Half of four may be pulled without a login, half of that by an address, and fifty requests go with each.
        let address = || Who::Address(Some([192, 0, 2, 1].into()));
        assert_eq!((0..60).filter(|_| read(address()).is_ok()).count(), 50);
        assert_eq!(read(address()).unwrap_err().of, Limit::CallerRead);
        assert_eq!((0..300).filter(|_| read(user("a")).is_ok()).count(), 200);
        let free = LimitsRecord::default();
        assert_eq!(callers.take(&tenant(), user("a"), &free, false, NOW), Ok(None));
    }
}
