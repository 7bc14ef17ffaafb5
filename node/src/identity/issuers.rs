//! Workload identity: an issuer's token for a short one of ours.
//!
//! Guarantees: keys come from the issuer that the policy names and from nowhere else; an issuer is asked by one request at
//! a time and at most once in [`COOLDOWN`], however many unknown keys are named; an answer that is no key set leaves the
//! keys that are known; a token is exchanged once in the whole cluster, in the same step in which ours is made.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::StreamExt;
use nora_app::commands::NewToken;
use nora_app::ports::clock::Clock;
use nora_auth::credential::{ApiToken, TokenKind};
use nora_auth::document::Provider;
use nora_auth::policy::{Explanation, Refused};
use nora_auth::workload::{
    Algorithm, DiscoveryDocument, Expect, KeySet, Unverified, Verified, WorkloadError, peek, verify,
};
use nora_domain::identity::AccessTokenRecord;
use nora_domain::record::{Timestamp, TokenId};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::{info, warn};

use super::Guard;
use super::caller::Caller;

/// How long an issuer is not asked again, whatever it answered.
const COOLDOWN: Duration = Duration::from_secs(30);

/// How long keys are used before they are asked for again.
const KEYS_FRESH: Duration = Duration::from_secs(3_600);

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
    #[error("the issuer's keys could not be fetched: {0}")]
    IssuerSilent(String),
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
    asked: Option<Instant>,
    failure: Option<String>,
}

/// The issuers' keys.
pub struct Issuers {
    client: reqwest::Client,
    clock: Arc<dyn Clock>,
    known: std::sync::Mutex<HashMap<String, Arc<Known>>>,
}

impl Issuers {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Result<Self, std::io::Error> {
        // An issuer's address is the policy's; where it would send us to is not.
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(ANSWER_TIMEOUT)
            .user_agent(concat!("nora/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(std::io::Error::other)?;
        Ok(Self { client, clock, known: std::sync::Mutex::default() })
    }

    /// Believes a token of that issuer, or not.
    pub async fn verify(
        &self,
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
            now_secs: self.clock.now().0 / 1_000,
        };
        Ok(verify(token, &keys.0, &expect)?)
    }

    /// The issuer's keys. Whoever names a key that is not among them may mean a new one: then the issuer is asked again,
    /// unless it was asked a moment ago.
    async fn keys(
        &self,
        issuer: &str,
        kid: Option<&str>,
    ) -> Result<Arc<(KeySet, Instant)>, ExchangeFailure> {
        let slot = {
            let mut known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            known.entry(issuer.to_owned()).or_default().clone()
        };
        let suits = |keys: &Arc<(KeySet, Instant)>| {
            kid.is_none_or(|kid| keys.0.names(kid)) && keys.1.elapsed() < KEYS_FRESH
        };
        // Whoever names a key that is known waits for nobody.
        if let Some(keys) = slot.keys.load_full().filter(suits) {
            return Ok(keys);
        }
        // Whoever waits here finds what the one before has fetched.
        let mut asking = slot.asking.lock().await;
        let known = slot.keys.load_full();
        let rests = asking.asked.is_some_and(|at| at.elapsed() < COOLDOWN);
        if !known.as_ref().is_some_and(suits) && !rests {
            asking.asked = Some(Instant::now());
            match self.fetch(issuer).await {
                Ok(keys) => {
                    slot.keys.store(Some(Arc::new((keys, Instant::now()))));
                    asking.failure = None;
                }
                Err(error) => {
                    warn!(issuer, %error, "an issuer's keys could not be fetched; those known stay");
                    asking.failure = Some(error);
                }
            }
        }
        slot.keys.load_full().ok_or_else(|| {
            let failure = asking.failure.clone();
            ExchangeFailure::IssuerSilent(failure.unwrap_or_else(|| "no answer".into()))
        })
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
        let response = self.client.get(url).send().await.map_err(|error| {
            // The cause says more than "error sending request".
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            format!("{url} does not answer: {}", cause.unwrap_or_else(|| error.to_string()))
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
    async fn believed(&self, token: &str) -> Result<(Provider, Verified), ExchangeFailure> {
        let unverified = peek(token)?;
        let in_force = self.policies().in_force();
        let provider = in_force.policy().provider_by_issuer(&unverified.issuer);
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
        let (provider, verified) = self.believed(token).await?;
        let in_force = self.policies().in_force();
        let policy = in_force.policy();
        let grant = policy.workload_grant(&provider.name, &verified.claims)?;
        let oidc = policy.document().auth.as_ref().map(|auth| auth.oidc.token_seconds);
        let lives_secs = oidc.unwrap_or(900);
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|error| nora_app::Error::Internal {
            what: "no random numbers for a token",
            source: Some(error.to_string().into()),
        })?;
        let secret = ApiToken::generate(TokenKind::Workload, random);
        let now = self.clock.now();
        let owner = format!("oidc:{}:{}", provider.name, grant.subject);
        let record = AccessTokenRecord {
            is_workload: true,
            owner,
            name: secret.id_hex(),
            secret_hash: secret.secret_hash(),
            permissions: grant.permissions.clone(),
            created_at: now,
            expires_at: now.plus_millis(lives_secs * 1_000),
            last_used_at: Timestamp(0),
        };
        let remembered = Timestamp(verified.remember_until().saturating_mul(1_000));
        let registry = self.registry.by(Arc::new(caller.clone()));
        registry
            .create_token(NewToken {
                id: TokenId(secret.id),
                found_by: None,
                account: None,
                record,
                assertion: Some((verified.jti_hash, remembered)),
            })
            .await?;
        Ok(Exchanged {
            token: secret.reveal(),
            expires_in_secs: lives_secs,
            permissions: grant.permissions,
        })
    }

    /// Why an issuer's token would be exchanged for what it would be. Nothing is exchanged.
    pub async fn explain_exchange(&self, token: &str) -> Result<Explanation, ExchangeFailure> {
        let (provider, verified) = self.believed(token).await?;
        let in_force = self.policies().in_force();
        Ok(in_force.policy().explain_workload(&provider.name, &verified.claims))
    }
}
