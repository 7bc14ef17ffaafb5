//! Workload identity: an issuer's token for a short one of ours.
//!
//! Guarantees: keys come from the issuer that the policy names and from nowhere else; an issuer is asked by one request at
//! a time and at most once in [`COOLDOWN`], however many unknown keys are named; an answer that is no key set leaves the
//! keys that are known, and a key that is known waits for nobody; a token is exchanged once in the whole cluster, in the
//! same step in which ours is made, and gives what the policy gives that is in force when it is used.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::StreamExt;
use nora_app::ports::clock::Clock;
use nora_app::tokens::NewToken;
use nora_auth::credential::{ApiToken, TokenKind};
use nora_auth::document::Provider;
use nora_auth::identity::{Identity, Subject};
use nora_auth::permission::{Action, PermissionSet, Resource};
use nora_auth::policy::{Explanation, Policy, Refused};
use nora_auth::workload::{
    Algorithm, DiscoveryDocument, Expect, KeySet, Unverified, Verified, WorkloadError, peek, verify,
};
use nora_domain::{AccessTokenRecord, Timestamp, TokenId};
use nora_egress::Egress;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::{info, warn};

use super::Guard;
use super::caller::Caller;
use super::pace::Pace;

/// How long an issuer is not asked again, whatever it answered.
const COOLDOWN: Duration = Duration::from_secs(30);

/// The same of one whose keys are not known at all: nobody can log in meanwhile.
const COOLDOWN_WITHOUT_KEYS: Duration = Duration::from_secs(3);

/// How long keys are used before they are asked for again.
const KEYS_FRESH: Duration = Duration::from_secs(3_600);

/// How long keys are used of an issuer that does not answer any more: one that it has withdrawn must not last for ever.
const KEYS_KEPT: Duration = Duration::from_secs(24 * 3_600);

/// Exchanges of one subject in a minute on this node: more than the largest matrix of jobs, and few enough that a job
/// that runs wild does not fill the log.
const EXCHANGES_A_MINUTE: u32 = 600;

const MINUTE: Duration = Duration::from_secs(60);

/// How often a token is judged anew because the policy changed in between.
const JUDGED_MAX: usize = 4;

/// How long an issuer may take for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The most bytes of an answer.
const ANSWER_BYTES_MAX: usize = 512 << 10;

/// Why a token was not exchanged.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeFailure {
    /// It is not believed.
    #[error(transparent)]
    Token(#[from] WorkloadError),
    /// No issuer of that name is in the policy.
    #[error("the token's issuer is not one that this registry trusts")]
    IssuerUnknown,
    /// The issuer could not be asked for its keys.
    #[error("the issuer's keys could not be fetched: {why}")]
    IssuerSilent {
        /// What went wrong.
        why: String,
        /// When it will be asked again.
        wait: Duration,
    },
    /// Its subject exchanges more than jobs need.
    #[error("this workload has exchanged too many tokens; wait {} seconds, then try again", .0.as_secs().max(1))]
    TooMany(Duration),
    /// It is believed, and gives nothing.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It was exchanged before, or the metadata failed.
    #[error(transparent)]
    Registry(#[from] nora_app::Error),
}

/// A token of ours.
pub struct Exchanged {
    /// A secret.
    pub token: String,
    /// How long it lasts.
    pub expires_in_secs: u64,
    /// What it permits.
    pub permissions: Vec<String>,
}

/// What is known of one issuer's keys.
#[derive(Default)]
struct Known {
    /// The keys, and since when.
    keys: ArcSwapOption<(KeySet, Instant)>,
    asking: Mutex<Asking>,
}

/// Held by whoever asks an issuer.
#[derive(Default)]
struct Asking {
    again_at: Option<Instant>,
    failure: Option<String>,
}

impl Asking {
    /// How long the issuer is not asked again.
    fn rests_for(&self) -> Duration {
        self.again_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()))
    }
}

/// The issuers' keys.
pub struct Issuers {
    egress: Egress,
    /// This machine's clock, as issuers go by clocks of their own.
    wall: Arc<dyn Clock>,
    /// Exchanges of each subject.
    exchanges: Pace,
    known: std::sync::Mutex<HashMap<String, Arc<Known>>>,
}

impl Issuers {
    pub(super) fn new(wall: Arc<dyn Clock>, egress: Egress) -> Arc<Self> {
        let exchanges = Pace::new(EXCHANGES_A_MINUTE, MINUTE);
        Arc::new(Self { egress, wall, exchanges, known: std::sync::Mutex::default() })
    }

    /// Believes a token of that issuer, or not.
    pub async fn verify(
        self: &Arc<Self>,
        provider: &Provider,
        token: &str,
        unverified: &Unverified,
    ) -> Result<Verified, ExchangeFailure> {
        let keys = self.keys(&provider.issuer, unverified.kid.as_deref()).await?;
        let algorithms: Vec<_> =
            provider.algorithms.iter().filter_map(|name| Algorithm::parse(name)).collect();
        let expect = Expect {
            issuer: &provider.issuer,
            audience: &provider.audience,
            algorithms: &algorithms,
            required_claims: &provider.required_claims,
            now_secs: self.wall.now().0 / 1_000,
        };
        Ok(verify(token, &keys.0, &expect)?)
    }

    /// The issuer's keys. Whoever names a key that is not among them may mean a new one: then the issuer is asked again,
    /// unless it was asked a moment ago.
    async fn keys(
        self: &Arc<Self>,
        issuer: &str,
        kid: Option<&str>,
    ) -> Result<Arc<(KeySet, Instant)>, ExchangeFailure> {
        let slot = {
            let mut known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            known.entry(issuer.to_owned()).or_default().clone()
        };
        let is_kept = |keys: &Arc<(KeySet, Instant)>| keys.1.elapsed() < KEYS_KEPT;
        let suits = |keys: &Arc<(KeySet, Instant)>| {
            is_kept(keys) && kid.is_none_or(|kid| keys.0.names(kid))
        };
        // Whoever names a key that is known waits for nobody.
        if let Some(keys) = slot.keys.load_full().filter(suits) {
            if keys.1.elapsed() >= KEYS_FRESH {
                let (this, issuer) = (self.clone(), issuer.to_owned());
                tokio::spawn(async move {
                    if let Ok(mut asking) = slot.asking.try_lock() {
                        this.ask(&issuer, &slot, &mut asking).await;
                    }
                });
            }
            return Ok(keys);
        }
        // Whoever waits here finds what the one before has fetched.
        let mut asking = slot.asking.lock().await;
        if !slot.keys.load_full().as_ref().is_some_and(suits) {
            self.ask(issuer, &slot, &mut asking).await;
        }
        slot.keys.load_full().filter(is_kept).ok_or_else(|| {
            let why = asking.failure.clone().unwrap_or_else(|| "no answer".into());
            ExchangeFailure::IssuerSilent { why, wait: asking.rests_for() }
        })
    }

    /// Asks an issuer for its keys, unless that was done a moment ago.
    async fn ask(&self, issuer: &str, slot: &Known, asking: &mut Asking) {
        if !asking.rests_for().is_zero() {
            return;
        }
        let fetched = self.fetch(issuer).await;
        let is_known = slot.keys.load().as_ref().is_some_and(|keys| keys.1.elapsed() < KEYS_KEPT);
        let rest = if fetched.is_ok() || is_known { COOLDOWN } else { COOLDOWN_WITHOUT_KEYS };
        asking.again_at = Some(Instant::now() + rest);
        match fetched {
            Ok(keys) => {
                slot.keys.store(Some(Arc::new((keys, Instant::now()))));
                asking.failure = None;
            }
            Err(error) => {
                warn!(issuer, %error, "an issuer's keys could not be fetched; those known stay for a day");
                asking.failure = Some(error);
            }
        }
    }

    async fn fetch(&self, issuer: &str) -> Result<KeySet, String> {
        let address = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let document = self.get(&address).await?;
        let discovered =
            DiscoveryDocument::parse(&document, issuer).map_err(|error| error.to_string())?;
        let keys = self.get(&discovered.jwks_uri).await?;
        let keys = KeySet::parse(&keys).map_err(|error| error.to_string())?;
        info!(issuer, keys = keys.usable(), "fetched an issuer's keys");
        Ok(keys)
    }

    async fn get(&self, url: &str) -> Result<Vec<u8>, String> {
        let request = self.egress.get(url).map_err(|refused| refused.to_string())?;
        let response = request.timeout(ANSWER_TIMEOUT).send().await.map_err(|error| {
            // The last cause says more than "error sending request".
            let mut cause: &dyn std::error::Error = &error;
            while let Some(deeper) = cause.source() {
                cause = deeper;
            }
            format!("{url} does not answer: {cause}")
        })?;
        if response.status() != http::StatusCode::OK {
            return Err(format!("{url} answered {}", response.status()));
        }
        let mut body = Vec::new();
        let mut stream = response.bytes_stream();
        while let Some(part) = stream.next().await {
            let part = part.map_err(|error| format!("{url} broke off: {error}"))?;
            if body.len() + part.len() > ANSWER_BYTES_MAX {
                return Err(format!("{url} answers with more than {ANSWER_BYTES_MAX} bytes"));
            }
            body.extend_from_slice(&part);
        }
        Ok(body)
    }
}

impl Guard {
    async fn believed(
        &self,
        policy: &Policy,
        token: &str,
    ) -> Result<(Provider, Verified), ExchangeFailure> {
        if !policy.exchanges() {
            return Err(Refused::Disabled.into());
        }
        let unverified = peek(token)?;
        let provider = policy.provider_by_issuer(&unverified.issuer);
        let provider = provider.cloned().ok_or(ExchangeFailure::IssuerUnknown)?;
        let verified = self.issuers().verify(&provider, token, &unverified).await?;
        Ok((provider, verified))
    }

    /// Gives a short token of ours for an issuer's, with just what the matching rules permit.
    pub async fn exchange(
        &self,
        caller: &Caller,
        token: &str,
    ) -> Result<Exchanged, ExchangeFailure> {
        for _ in 0..JUDGED_MAX {
            match self.exchange_once(caller, token).await {
                // Judged under a policy that is not the one in force: nothing of it holds.
                Err(ExchangeFailure::Registry(nora_app::Error::PolicyChanged)) => {
                    if let Err(error) = self.reload().await {
                        warn!(%error, "the policy in force could not be read again");
                    }
                }
                done => return done,
            }
        }
        let what = "the policy kept changing while a token was exchanged";
        Err(nora_app::Error::Unavailable { what, source: None }.into())
    }

    async fn exchange_once(
        &self,
        caller: &Caller,
        token: &str,
    ) -> Result<Exchanged, ExchangeFailure> {
        let in_force = self.policies().in_force();
        let policy = in_force.policy();
        let (provider, verified) = self.believed(policy, token).await?;
        let grant = policy.workload_grant(&provider.name, &verified.claims)?;
        let owner = format!("oidc:{}:{}", provider.name, grant.subject);
        self.issuers().exchanges.take(&owner).map_err(ExchangeFailure::TooMany)?;
        let oidc = policy.document().auth.as_ref().map(|auth| auth.oidc.token_seconds);
        let lives_secs = oidc.unwrap_or(900);
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|error| nora_app::Error::Internal {
            what: "no random numbers for a token",
            source: Some(error.to_string().into()),
        })?;
        let secret = ApiToken::generate(TokenKind::Workload, random);
        let now = self.clock.now();
        let record = AccessTokenRecord {
            is_workload: true,
            owner,
            name: secret.id_hex(),
            secret_hash: secret.secret_hash(),
            permissions: grant.permissions.clone(),
            claims: serde_json::to_vec(&grant.claims).unwrap_or_default(),
            created_at: now,
            expires_at: now.plus_millis(lives_secs * 1_000),
            last_used_at: Timestamp(0),
        };
        let remembered = Timestamp(verified.remember_until().saturating_mul(1_000));
        let registry = self.registry.by(Arc::new(caller.clone()));
        let id = TokenId(secret.id);
        let created = registry
            .tokens()
            .create(NewToken {
                id,
                found_by: None,
                account: None,
                record,
                assertion: Some((verified.jti_hash, remembered)),
                policy: Some(in_force.epoch),
            })
            .await;
        if let Err(nora_app::Error::OutcomeUnknown) = created {
            // If it was applied the issuer's token is used up, and its job can get no other.
            self.registry.catch_up().await?;
            if self.registry.tokens().get(id).await?.is_none() {
                return Err(nora_app::Error::OutcomeUnknown.into());
            }
        } else {
            created?;
        }
        Ok(Exchanged {
            token: secret.reveal(),
            expires_in_secs: lives_secs,
            permissions: grant.permissions,
        })
    }

    /// Why an issuer's token would be exchanged for what it would be, and whether whoever has what it would be exchanged
    /// for may do something. Nothing is exchanged.
    pub async fn explain_exchange(
        &self,
        token: &str,
        action: Action,
        what: &Resource<'_>,
    ) -> Result<Explanation, ExchangeFailure> {
        let in_force = self.policies().in_force();
        let policy = in_force.policy();
        let (provider, verified) = self.believed(policy, token).await?;
        let exchanged = policy.explain_workload(&provider.name, &verified.claims);
        let Ok(grant) = policy.workload_grant(&provider.name, &verified.claims) else {
            return Ok(exchanged);
        };
        let subject =
            Subject::Workload { provider: provider.name.into(), subject: grant.subject.into() };
        let permissions = PermissionSet::parse(&grant.permissions).unwrap_or_default();
        let who = Identity { grant: Some(permissions), ..Identity::of(subject) };
        let asked = policy.explain(&who, action, what);
        Ok(Explanation {
            allowed: asked.allowed,
            // What decides comes first.
            steps: asked.steps.into_iter().chain(exchanged.steps).collect(),
            summary: format!("{}. Exchanged, {}", asked.summary, exchanged.summary),
        })
    }
}
