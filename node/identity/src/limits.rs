//! Requests by the hour: a tenant's limit across the cluster, spent from budgets that nodes lease.
//!
//! A node asks the log for a share of what is left of the hour before it needs it, so that requests are counted here and
//! wait for nobody. Shares are small beside the limit and shrink with what is left; a burst on a node that was idle asks
//! for as many as wait. Guarantees: while the log answers, all nodes together let no more through in an hour than the
//! limit, because the log grants no more; an idle node gives back what it does not use. While the log does not answer, a
//! node lets requests through at the limit's own pace and no faster, as far as it knows the hour to have some left. The next
//! share pays for what it let through so. A cluster that cannot answer is no reason to refuse everything.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nora_app::Registry;
use nora_app::ports::clock::Clock;
use nora_domain::{HOUR_MILLIS, Rate, TenantName, Timestamp};
use tokio::sync::Notify;
use tracing::debug;

/// A share is this part of the limit at most.
const SHARE_OF_LIMIT: u64 = 50;

/// A share is this part of what is left at most.
const SHARE_OF_REST: u64 = 8;

/// How long a request waits for a share where none was there in time: a burst on a node that was idle.
const SHARE_WAIT: Duration = Duration::from_secs(1);

/// A share that nothing was taken from for so long is given back.
const IDLE_MILLIS: u64 = 20_000;

/// How long requests need no share after one did not come, within the limit's pace.
const EXCUSED_MILLIS: u64 = 2_000;

/// What a client is told of its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Requests an hour.
    pub limit: u64,
    /// How many are left, as far as this node knows.
    pub remaining: u64,
    /// Seconds until the next hour begins; of a refusal, until it is worth asking again.
    pub reset_secs: u64,
}

impl Allowance {
    /// What is left for the rest of the hour.
    pub(super) fn until_next_hour(limit: u64, remaining: u64, now: Timestamp) -> Self {
        let reset_secs = (HOUR_MILLIS - now.0 % HOUR_MILLIS).div_ceil(1_000);
        Self { limit, remaining, reset_secs }
    }
}

/// What a request spends of the hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spends {
    /// Nothing.
    Nothing,
    /// An artifact or a version is pushed.
    Push,
    /// An artifact or a file is pulled.
    Pull,
    /// Something else is read.
    Read,
}

/// A limit by the hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Of a tenant, across the cluster.
    Tenant(Rate),
    /// Pulls of one caller, on each node.
    CallerPull,
    /// Whatever one caller reads, on each node.
    CallerRead,
}

/// Why a request is over a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The hour's budget is spent.
    Spent,
    /// Too many ask at once.
    Burst,
    /// The log does not answer, and this node has let through what the hour's pace allows.
    Unanswered,
}

/// A request that is over a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over {
    /// Which limit.
    pub of: Limit,
    /// Why.
    pub why: Why,
    /// What the client is told of it.
    pub allowance: Allowance,
}

/// A node's share of one budget.
#[derive(Default)]
struct Share {
    hour: u64,
    /// Requests that this node may let through.
    left: u64,
    /// Requests that this node has let through in the hour.
    let_through: u64,
    /// Those of them that there was no share for, and that no later share has paid for.
    owed: u64,
    /// What all nodes together were granted, as of the last answer.
    granted: u64,
    /// Whether the hour's budget is spent.
    is_spent: bool,
    is_asking: bool,
    /// How many requests wait for a share.
    waiting: u64,
    /// How often the log has answered.
    answers: u64,
    /// Until then requests need no share, within the pace: the log does not answer.
    excused_until: u64,
    used_at: u64,
    came: Arc<Notify>,
}

/// The shares of this node.
pub struct Limits {
    registry: Registry,
    clock: Arc<dyn Clock>,
    shares: Mutex<BTreeMap<(TenantName, Rate), Share>>,
}

enum Step {
    Taken(Allowance),
    Refused(Over),
    /// For a share, which the log was asked for after so many answers.
    Wait(Arc<Notify>, u64),
}

/// A request that waits for a share.
struct Waiting<'a> {
    limits: &'a Limits,
    of: (TenantName, Rate),
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(share) = self.limits.locked().get_mut(&self.of) {
            share.waiting = share.waiting.saturating_sub(1);
        }
    }
}

/// How many requests a node lets through without the log: as many as the hour so far has brought at the limit's pace, and
/// one share at least.
fn paced(limit: u64, now: u64) -> u64 {
    let so_far = u128::from(limit) * u128::from(now % HOUR_MILLIS) / u128::from(HOUR_MILLIS);
    u64::try_from(so_far).unwrap_or(limit).max(limit / SHARE_OF_LIMIT).max(1)
}

impl Limits {
    /// No shares yet.
    pub fn new(registry: Registry, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { registry, clock, shares: Mutex::default() })
    }

    /// Counts a request; `Err` if it is over the limit.
    pub async fn take(
        self: &Arc<Self>,
        tenant: &TenantName,
        rate: Rate,
        limit: u64,
    ) -> Result<Allowance, Over> {
        let until = tokio::time::Instant::now() + SHARE_WAIT;
        let mut waiting = None;
        let mut begun = None;
        loop {
            // Listening begins before looking, so that a share that comes in between is not missed.
            let came = match self.step(tenant, rate, limit) {
                Step::Taken(allowance) => return Ok(allowance),
                Step::Refused(over) => return Err(over),
                Step::Wait(came, answers) => {
                    begun.get_or_insert(answers);
                    came
                }
            };
            let notified = came.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            waiting.get_or_insert_with(|| self.wait(tenant, rate));
            let answers = match self.step(tenant, rate, limit) {
                Step::Taken(allowance) => return Ok(allowance),
                Step::Refused(over) => return Err(over),
                Step::Wait(_, answers) => answers,
            };
            if tokio::time::timeout_at(until, notified).await.is_err() {
                if begun.is_some_and(|begun| answers > begun) {
                    // The log answers, and more wait than it could serve.
                    return Err(self.over(rate, limit, Why::Burst));
                }
                self.excuse(tenant, rate);
                return match self.step(tenant, rate, limit) {
                    Step::Taken(allowance) => Ok(allowance),
                    Step::Refused(over) => Err(over),
                    Step::Wait(..) => Err(self.over(rate, limit, Why::Burst)),
                };
            }
        }
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<(TenantName, Rate), Share>> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, tenant: &TenantName, rate: Rate) -> Waiting<'_> {
        let of = (tenant.clone(), rate);
        self.locked().entry(of.clone()).or_default().waiting += 1;
        Waiting { limits: self, of }
    }

    /// No share came in time: for a while requests need none, so that not each of them waits.
    fn excuse(&self, tenant: &TenantName, rate: Rate) {
        if let Some(share) = self.locked().get_mut(&(tenant.clone(), rate)) {
            share.excused_until = self.clock.now().0.saturating_add(EXCUSED_MILLIS);
        }
    }

    fn over(&self, rate: Rate, limit: u64, why: Why) -> Over {
        let mut allowance = Allowance::until_next_hour(limit, 0, self.clock.now());
        if why == Why::Burst {
            allowance.reset_secs = 1;
        }
        Over { of: Limit::Tenant(rate), why, allowance }
    }

    /// The log does not answer, and this node has let so many through: the next one may go when the pace has reached it.
    fn unanswered(&self, rate: Rate, limit: u64, let_through: u64) -> Over {
        let mut over = self.over(rate, limit, Why::Unanswered);
        let next_at =
            u128::from(let_through + 1) * u128::from(HOUR_MILLIS) / u128::from(limit.max(1));
        let into_hour = u128::from(self.clock.now().0 % HOUR_MILLIS);
        let wait_secs = next_at.saturating_sub(into_hour).div_ceil(1_000);
        let wait_secs = u64::try_from(wait_secs).unwrap_or(u64::MAX).max(1);
        over.allowance.reset_secs = over.allowance.reset_secs.min(wait_secs);
        over
    }

    fn step(self: &Arc<Self>, tenant: &TenantName, rate: Rate, limit: u64) -> Step {
        let now = self.clock.now().0;
        let hour = now / HOUR_MILLIS;
        let mut shares = self.locked();
        let share = shares.entry((tenant.clone(), rate)).or_default();
        if share.hour != hour {
            let (came, waiting) = (share.came.clone(), share.waiting);
            *share = Share { hour, came, waiting, ..Share::default() };
        }
        share.used_at = now;
        let rest = limit.saturating_sub(share.granted);
        let wanted = (limit / SHARE_OF_LIMIT).min(rest / SHARE_OF_REST).max(1).max(share.waiting);
        let wanted = wanted.saturating_add(share.owed);
        let is_unanswered = share.left == 0 && !share.is_spent && now < share.excused_until;
        // As far as this node knows, the hour has some left.
        let has_rest = share.granted.saturating_add(share.owed) < limit;
        let is_excused = is_unanswered && has_rest && share.let_through < paced(limit, now);
        let taken = share.left > 0 || is_excused;
        share.let_through += u64::from(taken);
        share.owed += u64::from(is_excused);
        share.left = share.left.saturating_sub(1);
        if share.left < wanted.div_ceil(2) && !share.is_spent && !share.is_asking {
            share.is_asking = true;
            let (this, tenant) = (self.clone(), tenant.clone());
            tokio::spawn(async move { this.ask(tenant, rate, hour, wanted).await });
        }
        let remaining = share.left.saturating_add(rest);
        if taken {
            return Step::Taken(Allowance::until_next_hour(limit, remaining, Timestamp(now)));
        }
        if share.is_spent {
            return Step::Refused(self.over(rate, limit, Why::Spent));
        }
        if is_unanswered {
            return Step::Refused(self.unanswered(rate, limit, share.let_through));
        }
        Step::Wait(share.came.clone(), share.answers)
    }

    /// Asks the log for a share.
    async fn ask(&self, tenant: TenantName, rate: Rate, hour: u64, wanted: u64) {
        let answer =
            self.registry.tenants().lease_budget(tenant.clone(), rate, hour, wanted, 0).await;
        let mut shares = self.locked();
        let share = shares.entry((tenant, rate)).or_default();
        if share.hour == hour {
            share.is_asking = false;
            match answer {
                Ok(Some((granted, budget))) => {
                    share.answers += 1;
                    share.excused_until = 0;
                    let paid = share.owed.min(granted);
                    share.owed -= paid;
                    share.left = share.left.saturating_add(granted - paid);
                    // By the cluster's clock this hour may not have begun, and the one before may be spent.
                    if budget.hour == hour {
                        share.granted = budget.granted;
                        share.is_spent = granted == 0;
                    }
                }
                // Not limited any more, by a policy that this node has not compiled yet.
                Ok(None) => {
                    share.answers += 1;
                    share.left = share.left.saturating_add(wanted);
                }
                Err(error) => {
                    debug!(%error, "no share of a tenant's requests");
                    share.excused_until = self.clock.now().0.saturating_add(EXCUSED_MILLIS);
                }
            }
        }
        share.came.notify_waiters();
    }

    /// Gives back what nobody used for a while, and looks again where the budget was spent: others may have given back.
    /// Returns how many shares went back. A share whose return failed ends with its hour.
    pub async fn give_back(&self) -> Result<u64, nora_app::Error> {
        let now = self.clock.now().0;
        let hour = now / HOUR_MILLIS;
        let mut idle = Vec::new();
        {
            let mut shares = self.locked();
            shares.retain(|_, share| share.hour == hour || share.waiting > 0);
            for ((tenant, rate), share) in shares.iter_mut() {
                share.is_spent = false;
                if share.left > 0 && now.saturating_sub(share.used_at) >= IDLE_MILLIS {
                    idle.push((tenant.clone(), *rate, std::mem::take(&mut share.left)));
                }
            }
        }
        let mut given_back = Ok(0);
        for (tenant, rate, unused) in idle {
            let answer = self.registry.tenants().lease_budget(tenant, rate, hour, 0, unused).await;
            given_back = match (given_back, answer) {
                (Ok(count), Ok(_)) => Ok(count + 1),
                (Ok(_), Err(error)) | (Err(error), _) => Err(error),
            };
        }
        given_back
    }
}

#[cfg(test)]
mod tests {
    use nora_app::testkit::Failure;

    use super::*;
    use crate::testkit::MemoryNode;

    const LIMIT: u64 = 100;

    /// How many of so many requests to pull are let through.
    async fn let_through(node: &MemoryNode, requests: u64) -> u64 {
        let tenant = TenantName::parse("red").unwrap();
        let mut count = 0;
        for _ in 0..requests {
            let taken = node.guard.limits.take(&tenant, Rate::Pull, LIMIT).await;
            count += u64::from(taken.is_ok());
            // The log is asked by tasks of their own.
            tokio::task::yield_now().await;
        }
        count
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_that_does_not_answer_is_no_way_around_a_limit() {
        let node = MemoryNode::without_policy(false).await;
        node.apply(&format!(
            "[auth]\n[[tenants]]\nname = \"red\"\nrate_limit = {{ pull = {LIMIT} }}\n"
        ))
        .await;
        let into_hour = node.clock.now().0 % HOUR_MILLIS;
        let pace = LIMIT * into_hour / HOUR_MILLIS;
        assert!((10..50).contains(&pace), "{pace}");
        node.metadata.fail(Some(Failure::NoLeader));
        let without_log = let_through(&node, 2 * LIMIT).await;
        assert_eq!(without_log, pace, "the hour's pace, and not one more");
        let tenant = TenantName::parse("red").unwrap();
        let over = node.guard.limits.take(&tenant, Rate::Pull, LIMIT).await.unwrap_err();
        assert_eq!((over.why, over.allowance.reset_secs), (Why::Unanswered, 28));
        node.clock.advance(HOUR_MILLIS / LIMIT);
        assert_eq!(let_through(&node, LIMIT).await, 1, "as time goes on");

        assert_eq!(let_through(&node, 1).await, 0);
        node.metadata.fail(None);
        let with_log = let_through(&node, 2 * LIMIT).await;
        assert_eq!(
            without_log + 1 + with_log,
            LIMIT,
            "the log's shares pay for what was let through"
        );

        // The hour is spent, and the log falls silent again: an hour that is over its middle lets nothing more through.
        node.clock.advance(HOUR_MILLIS / 2);
        node.guard.limits.give_back().await.unwrap();
        node.metadata.fail(Some(Failure::NoLeader));
        assert_eq!(let_through(&node, LIMIT).await, 0, "what other nodes were granted counts");
    }
}
