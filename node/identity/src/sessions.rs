//! Sessions: tokens that the cluster signs itself, so that a pull costs no write and any node believes them.
//!
//! Guarantees: a session holds no more than was asked for and no more than its holder may do; it ends with the token, the
//! password or the refresh token that it came from; keys are replicated, used for a week, and believed until everything
//! they signed is over.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use nora_app::{Error, Registry};
use nora_auth::permission::{Action, Resource};
use nora_auth::session::{
    Claims, Scope, ScopeAction, ScopeKind, SessionError, SigningKey, Use, sign, verify,
};
use nora_domain::{Format, SigningKeyRecord, Timestamp};
use nora_formats::oci::name::parse_repository;

use super::Guard;
use super::caller::Caller;
use super::recognise::Rejected;
use super::refresh::hex;

/// How long a session opens what it is for, in seconds. Clients ask for another when it is over.
pub(super) const ACCESS_SECS: u64 = 300;

/// How long a refresh token gets sessions, in seconds.
pub(super) const REFRESH_SECS: u64 = 30 * 24 * 3_600;

/// How long a key signs.
const KEY_SIGNS_MILLIS: u64 = 7 * 24 * 3_600 * 1_000;

/// How long a key is believed: as long as it signs and what it signed lasts, and a day for clocks.
const KEY_LIVES_MILLIS: u64 = KEY_SIGNS_MILLIS + REFRESH_SECS * 1_000 + 24 * 3_600 * 1_000;

pub(super) fn no_random(what: &str, error: &getrandom::Error) -> Error {
    let what = format!("no random numbers for {what}: {error}");
    Error::Internal { what: "the system has no random numbers", source: Some(what.into()) }
}

/// The signing keys that this node knows.
#[derive(Default)]
pub(super) struct Keys {
    keys: ArcSwap<Vec<SigningKey>>,
    /// When the newest was made, and its number.
    newest: Mutex<Option<(u64, Timestamp)>>,
}

impl Keys {
    pub(super) fn all(&self) -> Arc<Vec<SigningKey>> {
        self.keys.load_full()
    }

    /// Reads the keys that this node has applied.
    pub(super) async fn reload(&self, registry: &Registry) -> Result<(), Error> {
        let rows = registry.access().signing_keys().await?;
        let newest = rows.last().map(|(number, key)| (*number, key.created_at));
        let keys = rows.into_iter().map(|(id, key)| SigningKey {
            id,
            secret: key.secret,
            not_after: key.expires_at.0 / 1_000,
        });
        self.keys.store(Arc::new(keys.collect()));
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = newest;
        Ok(())
    }

    /// Adds a key if there is none, or if the newest has signed for long enough. Whichever node comes first does it.
    pub(super) async fn rotate(&self, registry: &Registry, now: Timestamp) -> Result<(), Error> {
        let newest = *self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if newest.is_some_and(|(_, made)| made.plus_millis(KEY_SIGNS_MILLIS) > now) {
            return Ok(());
        }
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| no_random("another signing key", &error))?;
        let expires_at = now.plus_millis(KEY_LIVES_MILLIS);
        let key = SigningKeyRecord { secret, created_at: now, expires_at };
        match registry.access().add_signing_key(newest.map(|(number, _)| number), key).await {
            // Another node may have added one first.
            Ok(()) | Err(Error::Conflict { .. }) => self.reload(registry).await,
            Err(error) => Err(error),
        }
    }
}

/// What a client asks a session for.
#[derive(Clone, Debug, Default)]
pub struct SessionRequest {
    /// What it wants to do.
    pub scopes: Vec<Scope>,
    /// Whether it wants a token to get other sessions with.
    pub wants_refresh: bool,
}

/// A session.
pub struct Session {
    /// Opens what it is for.
    pub access: String,
    /// Gets other sessions, if that was wanted.
    pub refresh: Option<String>,
    /// How long it lasts.
    pub expires_in_secs: u64,
    /// When it was made, in seconds since the Unix epoch.
    pub issued_at_secs: u64,
    /// What it is for, in the client's words.
    pub granted: Vec<String>,
}

impl Guard {
    /// Whether sessions can be made: there is a key to sign them with.
    pub fn makes_sessions(&self) -> bool {
        !self.keys.all().is_empty()
    }

    /// Makes a session for a caller: of what was asked for, what they may do. Less than was asked for is no error, and
    /// neither is that no refresh token could be given.
    pub async fn session_for(
        &self,
        caller: &Caller,
        request: &SessionRequest,
    ) -> Result<Session, Rejected> {
        let mut scopes = Vec::new();
        let mut granted = Vec::new();
        for scope in &request.scopes {
            let words = self.granted(caller, scope, &mut scopes);
            if !words.is_empty() {
                granted.push(format!("repository:{}:{}", scope.name, words.join(",")));
            }
        }
        let now = self.clock.now().0 / 1_000;
        let principal = caller.principal();
        let made = match request.wants_refresh {
            true => self.refresh_token_for(caller).await?,
            false => None,
        };
        let claims = Claims {
            sub: principal.identity.subject.to_string(),
            refresh: made.or(principal.refresh).map(hex),
            cred: principal.token.map(|token| format!("{:032x}", token.0)),
            generation: principal.generation,
            scopes,
            aud: nora_auth::session::AUDIENCE.to_owned(),
            iat: now,
            exp: (now + ACCESS_SECS).min(principal.expires_at / 1_000),
            use_: Use::Access,
        };
        let expires_in_secs = claims.exp.saturating_sub(now);
        let keys = self.keys.all();
        let Some(key) = keys.last() else {
            return Err(Rejected::Failed(Error::Unavailable {
                what: "this cluster has no key to sign sessions with yet",
                source: None,
            }));
        };
        let failed = |error: SessionError| Rejected::Wrong(error.to_string());
        let access = sign(key, &claims).map_err(failed)?;
        let refresh = made.map(|_| {
            let claims = Claims {
                scopes: Vec::new(),
                exp: now + REFRESH_SECS,
                use_: Use::Refresh,
                ..claims
            };
            sign(key, &claims)
        });
        Ok(Session {
            access,
            refresh: refresh.transpose().map_err(failed)?,
            expires_in_secs,
            // Clients count from there by their own clocks.
            issued_at_secs: self.wall.now().0 / 1_000,
            granted,
        })
    }

    /// Adds what of a scope is granted, and tells it in the client's words.
    fn granted(&self, caller: &Caller, scope: &Scope, into: &mut Vec<String>) -> Vec<&'static str> {
        let mut words = Vec::new();
        // What lists show is filtered by what else the session may read.
        let ScopeKind::Repository = scope.kind else { return words };
        let Ok(path) = parse_repository(&scope.name) else { return words };
        let what = Resource::Repository { format: Format::Oci, path: path.as_str() };
        let wants =
            |action| scope.actions.contains(&action) || scope.actions.contains(&ScopeAction::All);
        let mut grant = |action: Action| {
            let may = caller.may(action, &what);
            if may {
                into.push(format!("{}:oci:{path}", action.name()));
            }
            may
        };
        if wants(ScopeAction::Pull) && grant(Action::Pull) {
            words.push("pull");
        }
        if wants(ScopeAction::Push) {
            let creates = grant(Action::Push);
            // Whoever overwrites pushes as well.
            if grant(Action::Overwrite) || creates {
                words.push("push");
            }
        }
        if wants(ScopeAction::Delete) && grant(Action::Delete) {
            words.push("delete");
        }
        words
    }

    /// What a session or a refresh token says, if one of the keys that this node knows signed it; a key that it does not
    /// know may be new.
    pub(super) async fn claims_of(
        &self,
        text: &str,
        wanted: Use,
    ) -> Result<Result<Claims, SessionError>, Error> {
        let now = self.clock.now().0 / 1_000;
        let first = verify(&self.keys.all(), text, now, wanted);
        if first != Err(SessionError::Key) {
            return Ok(first);
        }
        self.keys.reload(&self.registry).await?;
        Ok(verify(&self.keys.all(), text, now, wanted))
    }

    /// Believes a session or a refresh token, by its signature and its time alone.
    pub(super) async fn verified_session(
        &self,
        text: &str,
        wanted: Use,
    ) -> Result<Claims, Rejected> {
        let claims = self.claims_of(text, wanted).await?;
        claims.map_err(|error| Rejected::Wrong(error.to_string()))
    }
}
