//! Who asks, what they may do, and what is remembered of it: the policy and identities of the whole program.
//!
//! A request's credential, however its ecosystem sends it, is recognised by [`Guard::recognise`] and becomes a [`Caller`];
//! whatever the request needs is asked of [`Caller::may`]. On a loopback address and without `[auth]` a node is open:
//! whoever reaches it is on the machine. Everywhere else nothing is allowed that no rule allows.
//!
//! Guarantees: the same credential is judged alike by every format, route and node; what was revoked is believed nowhere
//! once the node has applied it; no secret is kept, logged or shown. Must not know: routes, or how answers are written.

mod admin;
mod caller;
mod callers;
mod issuers;
mod limits;
mod listed;
mod lockout;
mod notes;
mod pace;
mod passwords;
mod policies;
mod principal;
mod recognise;
mod refresh;
mod secrets;
mod sessions;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;
mod turns;
mod unmatched;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use moka::sync::Cache;
use nora_app::Registry;
use nora_app::ports::clock::Clock;
use nora_domain::{Actor, Rate, TenantName, Timestamp, UploadId};
use nora_egress::Egress;
use tracing::warn;

pub use admin::{ADMIN_USER, AdminFile, AdminPasswords, shared_password};
pub use caller::{AlreadyAuthorised, Caller};
pub use issuers::{ExchangeFailure, Exchanged, Issuers};
pub use limits::{Allowance, Limit, Over, Spends, Why};
pub use listed::Listed;
pub use lockout::neighbours;
pub use policies::{InForce, Policies, PolicyFailure, canonical, stranded, tenant_limits};
pub use principal::Principal;
pub use recognise::Rejected;
pub use sessions::{Session, SessionRequest};
pub use unmatched::{end_tokens_of_nobody, unmatched};

use caller::JudgedBy;
use callers::{Callers, Who};
use limits::Limits;
use lockout::Lockout;
use notes::Notes;
use pace::Pace;
use secrets::Secrets;
use sessions::Keys;
use turns::Turns;

/// Credentials that are recognised without looking again.
const CACHED_MAX: u64 = 50_000;

/// How long a password is believed without hashing it again, and other credentials without looking again, unless something
/// changes before: what changes somewhere makes all of them be looked at again, and passwords not hashed again for that.
const CACHED_FOR: Duration = Duration::from_secs(60);

/// Passwords that are hashed at once, at most: each takes 19 MiB and a processor.
const HASHED_AT_ONCE_MAX: usize = 2;

/// Logins that wait for that, of all addresses; more are told to come again.
const LOGINS_WAITING_MAX: usize = 100;

/// Pages of the list of all repositories that a caller gets of a node within a time. They are no tenant's, so no limit of a
/// tenant counts them.
const CATALOGS_MAX: u32 = 600;
const CATALOGS_WITHIN: Duration = Duration::from_secs(60);

/// Whom a credential is of, as of an identity epoch.
#[derive(Clone)]
struct Cached {
    principal: Arc<Principal>,
    epoch: u64,
}

/// Why a new password was not hashed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unhashed {
    /// All places are taken by passwords of others.
    #[error("too many passwords wait to be hashed; try again in a second")]
    Busy,
    /// It cannot be hashed.
    #[error("{0}")]
    Failed(String),
}

/// The clocks that the guard reads. They may be days apart.
pub struct Clocks {
    /// The cluster's, by which what the cluster gives begins and ends.
    pub cluster: Arc<dyn Clock>,
    /// This machine's, by which the world outside tells the time: issuers, receivers of webhooks, clients.
    pub wall: Arc<dyn Clock>,
}

/// What the guard is made of.
pub struct GuardSettings {
    /// Whether only this machine reaches the node.
    pub is_loopback: bool,
    /// Passwords of the administrator that do not come from what the members share, if there are any.
    pub admin: Option<AdminPasswords>,
    /// The file that holds the shared one, if this node has one.
    pub admin_file: Option<AdminFile>,
    /// Failed logins from one address for one name before it has to wait.
    pub login_failures_max: u32,
    /// For how long they count.
    pub login_window: Duration,
    /// What issuers are called with.
    pub egress: Egress,
}

/// Recognises callers, and keeps what decisions rest on up to date.
pub struct Guard {
    registry: Registry,
    /// The cluster's clock.
    clock: Arc<dyn Clock>,
    /// This machine's clock.
    wall: Arc<dyn Clock>,
    policies: Arc<Policies>,
    is_loopback: bool,
    admin: Option<AdminPasswords>,
    admin_file: Option<Arc<AdminFile>>,
    secrets: Secrets,
    /// By a hash of what was shown, under a key that only this process has.
    cached: Cache<[u8; 32], Cached>,
    fingerprint_key: aws_lc_rs::hmac::Key,
    /// The identity epoch that policy and signing keys are of, 0 before the first.
    epoch: AtomicU64,
    reloading: tokio::sync::Mutex<()>,
    /// Whether the policy in force could not be brought here.
    unusable: AtomicBool,
    /// Who hashes a password, and who waits for it.
    turns: Arc<Turns>,
    lockout: Lockout,
    keys: Keys,
    notes: Notes,
    /// Refresh tokens that each subject is given.
    refreshes: Pace,
    limits: Arc<Limits>,
    callers: Callers,
    /// Lists of all repositories that each caller asks for.
    catalogs: Pace,
    issuers: Arc<Issuers>,
}

impl Guard {
    /// A guard over the registry's accounts, tokens and policy.
    pub fn new(
        registry: Registry,
        Clocks { cluster: clock, wall }: Clocks,
        policies: Arc<Policies>,
        settings: GuardSettings,
    ) -> Result<Arc<Self>, std::io::Error> {
        let GuardSettings {
            is_loopback,
            admin,
            admin_file,
            login_failures_max,
            login_window,
            egress,
        } = settings;
        let (mut secret, mut unshared) = ([0; 32], [0; 32]);
        for random in [&mut secret, &mut unshared] {
            getrandom::fill(random).map_err(|error| std::io::Error::other(error.to_string()))?;
        }
        Ok(Arc::new(Self {
            limits: Limits::new(registry.clone(), clock.clone()),
            callers: Callers::new(),
            catalogs: Pace::new(CATALOGS_MAX, CATALOGS_WITHIN),
            issuers: Issuers::new(wall.clone(), egress),
            registry,
            clock,
            wall,
            policies,
            is_loopback,
            admin,
            admin_file: admin_file.map(Arc::new),
            secrets: Secrets::unknown(unshared),
            cached: Cache::builder().max_capacity(CACHED_MAX).time_to_live(CACHED_FOR).build(),
            fingerprint_key: aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &secret),
            epoch: AtomicU64::new(0),
            reloading: tokio::sync::Mutex::default(),
            unusable: AtomicBool::new(false),
            turns: Turns::new(hashed_at_once(), LOGINS_WAITING_MAX),
            lockout: Lockout::new(login_failures_max, login_window),
            keys: Keys::default(),
            notes: Notes::default(),
            refreshes: refresh::refreshes(),
        }))
    }

    /// The policies.
    pub fn policies(&self) -> &Arc<Policies> {
        &self.policies
    }

    /// Issuers of workload tokens.
    pub fn issuers(&self) -> &Arc<Issuers> {
        &self.issuers
    }

    /// Whether anyone who reaches this node may do everything.
    pub fn is_open(&self) -> bool {
        self.is_loopback && !self.policies.in_force().policy().has_auth()
    }

    /// A caller who is in the cluster's own hands: its administrator by certificate.
    pub fn administrator(self: &Arc<Self>, address: Option<IpAddr>, request: Arc<str>) -> Caller {
        let (guard, principal) = (self.clone(), Arc::new(Principal::administrator(0)));
        // Nobody but the cluster's authority ends a certificate.
        let epoch = u64::MAX;
        Caller { guard, principal, epoch, judged_by: JudgedBy::Policy, address, request }
    }

    /// A caller whom another member has recognised and let through.
    pub fn on_behalf_of(self: &Arc<Self>, actor: Actor, request: Arc<str>) -> Caller {
        let (guard, principal) = (self.clone(), Arc::new(Principal::anonymous()));
        let judged_by = JudgedBy::Member(Arc::new(actor));
        Caller { guard, principal, epoch: u64::MAX, judged_by, address: None, request }
    }

    /// What makes an upload session the caller's own: nobody else's word for it has this. `None` on an open node.
    /// See [`Self::asks_for_proofs`].
    pub fn session_proof(&self, caller: &Caller, upload: UploadId) -> Option<String> {
        if caller.is_exempt() {
            return None;
        }
        let subject = caller.identity().subject.to_string();
        Some(self.secrets.prove(&[&upload.0.to_be_bytes(), subject.as_bytes()]))
    }

    /// Whether `shown` makes an upload session the caller's own; always so on an open node.
    pub fn is_session_proof(&self, caller: &Caller, upload: UploadId, shown: &str) -> bool {
        let subject = caller.identity().subject.to_string();
        caller.is_exempt()
            || self.secrets.is_proof(shown, &[&upload.0.to_be_bytes(), subject.as_bytes()])
    }

    /// The key by which a webhook's receiver tells that requests come from this cluster; `None` while the cluster has no
    /// secret.
    pub async fn webhook_key(&self) -> Result<Option<String>, PolicyFailure> {
        self.load_secrets().await?;
        Ok(self.secrets.webhook_key())
    }

    /// Brings what the members share to what this node has applied: nobody may have asked this node for anything yet. A policy
    /// that cannot be used is another matter.
    async fn load_secrets(&self) -> Result<(), PolicyFailure> {
        match self.reload().await {
            Err(error) if !self.secrets.is_loaded() => Err(error),
            _ => Ok(()),
        }
    }

    /// The signatures of a webhook's request, in the form of Standard Webhooks; `None` while the cluster has no secret.
    pub async fn sign_webhook(
        &self,
        id: &str,
        at_secs: u64,
        body: &[u8],
    ) -> Result<Option<String>, PolicyFailure> {
        self.load_secrets().await?;
        Ok(self.secrets.sign_webhook(id, at_secs, body))
    }

    /// Whether a session opens only with what [`Self::session_proof`] gave. Until an upgrade is finished, nodes that give
    /// none may have opened it.
    pub fn asks_for_proofs(&self) -> bool {
        self.makes_sessions()
    }

    /// The cluster's time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The time that this node tells the world outside.
    pub fn wall_now(&self) -> Timestamp {
        self.wall.now()
    }

    /// Counts a request against the limits of the tenant whose repository it is about: what is left of them, or `None` if
    /// there are none. A caller without a login spends what all such callers share, and then what the tenant has.
    pub async fn spend(
        &self,
        caller: &Caller,
        tenant: &TenantName,
        spends: Spends,
    ) -> Result<Option<Allowance>, Over> {
        let in_force = self.policies.in_force();
        let Some(limits) = in_force.limits(tenant) else { return Ok(None) };
        let (rates, is_pull): (&[Rate], bool) = match (spends, caller.is_anonymous()) {
            (Spends::Nothing, _) => return Ok(None),
            (Spends::Push, _) => (&[Rate::Push], false),
            (Spends::Pull, true) => (&[Rate::AnonymousPull, Rate::Pull], true),
            (Spends::Pull, false) => (&[Rate::Pull], true),
            (Spends::Read, _) => (&[], false),
        };
        let mut left: Option<Allowance> = None;
        if spends != Spends::Push {
            left =
                self.callers.take(tenant, Who::asks(caller), limits, is_pull, self.clock.now())?;
        }
        for rate in rates {
            let Some(limit) = limits.limit(*rate) else { continue };
            let of_tenant = match self.limits.take(tenant, *rate, limit).await {
                Ok(allowance) => allowance,
                Err(over) => {
                    if is_pull {
                        self.callers.give_back(
                            tenant,
                            Who::asks(caller),
                            is_pull,
                            self.clock.now(),
                        );
                    }
                    return Err(over);
                }
            };
            left = left.into_iter().chain([of_tenant]).min_by_key(|allowance| allowance.remaining);
        }
        Ok(left)
    }

    /// Counts a page of the list of all repositories; `Err` says how long the caller has to wait.
    pub fn spend_catalog(&self, caller: &Caller) -> Result<(), Duration> {
        if caller.is_exempt() {
            return Ok(());
        }
        self.catalogs.take(&Who::asks(caller).to_string())
    }

    /// Brings policy, signing keys and recognised credentials to what this node has applied. Cheap if nothing changed.
    /// Whoever comes while another brings them waits for that; what could not be brought is tried again by the next.
    pub async fn reload(&self) -> Result<(), PolicyFailure> {
        let _one = self.reloading.lock().await;
        let now = self.registry.access().counters().await?.identity_epoch;
        if self.epoch.load(Ordering::Acquire) != now || !self.secrets.is_loaded() {
            self.reload_secrets().await?;
            // In this order: what is recognised under the new number is so by the new policy.
            self.keys.reload(&self.registry).await?;
            let policy = self.policies.reload(&self.registry).await;
            self.epoch.store(now, Ordering::Release);
            self.unusable.store(policy.is_err(), Ordering::Release);
            return policy.map(drop);
        }
        // What is revoked is revoked, whatever becomes of the policy; that is tried again.
        if self.unusable.load(Ordering::Acquire) {
            self.policies.reload(&self.registry).await?;
            self.unusable.store(false, Ordering::Release);
        }
        Ok(())
    }

    /// Brings what the members share, and this node's file with the administrator's password.
    async fn reload_secrets(&self) -> Result<(), nora_app::Error> {
        let password = self.secrets.reload(&self.registry).await?;
        let (Some(password), Some(file)) = (password, self.admin_file.clone()) else {
            return Ok(());
        };
        let written = tokio::task::spawn_blocking(move || file.follow(&password)).await;
        match written.map_err(std::io::Error::other).flatten() {
            Ok(()) => {}
            Err(error) => warn!(%error, "the administrator's new password was not written down"),
        }
        Ok(())
    }

    /// A hash of what was shown, by which it is recognised again; nothing that could be shown is kept.
    fn fingerprint(&self, parts: &[&str]) -> [u8; 32] {
        let mut context = aws_lc_rs::hmac::Context::with_key(&self.fingerprint_key);
        for part in parts {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part.as_bytes());
        }
        let mut value = [0; 32];
        value.copy_from_slice(context.sign().as_ref());
        value
    }

    /// Adds a signing key if there is none, or if the newest has signed for long enough.
    pub async fn make_keys(&self) -> Result<(), nora_app::Error> {
        self.keys.rotate(&self.registry, self.clock.now()).await
    }

    /// Writes refusals into the audit log. Returns how many entries that took.
    pub async fn write_refusals(&self) -> Result<u64, nora_app::Error> {
        self.notes.write_refusals(&self.registry).await
    }

    /// Writes down when tokens were last used. Returns how many tokens that were.
    pub async fn write_uses(&self) -> Result<u64, nora_app::Error> {
        self.notes.write_uses(&self.registry).await
    }

    /// Gives back shares of tenants' requests that this node did not use. Returns how many.
    pub async fn give_back_shares(&self) -> Result<u64, nora_app::Error> {
        self.limits.give_back().await
    }

    /// Writes down what waits to be, before the node stops.
    pub async fn flush(&self) {
        for written in
            [self.notes.write_all_refusals(&self.registry).await, self.write_uses().await]
        {
            if let Err(error) = written {
                warn!(%error, "the last refusals or uses of tokens were not written down");
            }
        }
    }
}

/// How many passwords are hashed at once here: half of the processors stay free of it, if there are several.
fn hashed_at_once() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (processors / 2).clamp(1, HASHED_AT_ONCE_MAX)
}
