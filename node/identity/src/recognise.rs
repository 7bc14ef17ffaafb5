//! From what a request shows to the caller who makes it.
//!
//! Guarantees: a credential that is wrong is refused, and never taken for none, unless the node is open; what another node
//! acknowledged a moment ago is believed here at once; each credential that is refused for what it is, is noted.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nora_auth::credential::{ApiToken, Credential, Secret};
use nora_auth::identity::{Subject, check_name};
use nora_auth::session::{self, Use};
use nora_domain::{About, AccountName, Actor, Deed, Reason, TokenId, Verb};

use super::admin::ADMIN_USER;
use super::caller::{Caller, JudgedBy};
use super::principal::Principal;
use super::{Cached, Guard};

/// Why nobody was recognised.
#[derive(Debug)]
pub enum Rejected {
    /// The credential is wrong, or is none any more; the words say no more than the client may know.
    Wrong(String),
    /// Logins from there have to wait.
    TooMany(Duration),
    /// The metadata cannot be read.
    Failed(nora_app::Error),
}

impl From<nora_app::Error> for Rejected {
    fn from(error: nora_app::Error) -> Self {
        Self::Failed(error)
    }
}

pub(super) fn wrong<T>(why: &str) -> Result<T, Rejected> {
    Err(Rejected::Wrong(why.to_owned()))
}

/// The name under which failures count of a caller who showed something that is no token of any kind.
const NO_TOKEN: &str = "(no token)";

/// What is told of any login that fails: not which part of it was wrong.
pub(super) const LOGIN: &str = "the user name or the password is wrong";
pub(super) const TOKEN: &str = "the token is not valid, was revoked, or has expired; log in again";

impl Guard {
    /// The caller who makes a request that shows this.
    pub async fn recognise(
        self: &Arc<Self>,
        credential: Credential,
        address: Option<IpAddr>,
        request: Arc<str>,
    ) -> Result<Caller, Rejected> {
        let judged_by = if self.is_open() { JudgedBy::OpenNode } else { JudgedBy::Policy };
        let user = match &credential {
            Credential::Basic { user, .. } => Some(user.clone()),
            _ => None,
        };
        // Read before anything is looked up: what changes meanwhile is looked at again.
        let epoch = self.epoch.load(Ordering::Acquire);
        let found = match judged_by {
            JudgedBy::OpenNode => self.principal_if_known(credential, address).await,
            _ => self.principal_now(credential, address, epoch).await,
        };
        let principal = match found {
            Ok(principal) => principal,
            Err(rejected) => {
                self.note_rejection(&rejected, user.as_deref(), address, &request).await;
                return Err(rejected);
            }
        };
        if let Some(token) = principal.token {
            self.notes.used(token, self.clock.now());
        }
        Ok(Caller { guard: self.clone(), principal, epoch, judged_by, address, request })
    }

    /// Whom a credential belongs to, on an open node: what is wrong there counts as nothing, because nobody is asked for anything.
    async fn principal_if_known(
        self: &Arc<Self>,
        credential: Credential,
        address: Option<IpAddr>,
    ) -> Result<Arc<Principal>, Rejected> {
        match self.principal_as_applied(credential, address).await {
            Err(Rejected::Wrong(_) | Rejected::TooMany(_)) => Ok(Arc::new(Principal::anonymous())),
            found => found,
        }
    }

    /// Whom a credential belongs to. One that is wrong by what this node has applied is judged again if accounts, tokens or the
    /// policy changed meanwhile: what another node acknowledged a moment ago is believed here at once.
    async fn principal_now(
        self: &Arc<Self>,
        credential: Credential,
        address: Option<IpAddr>,
        epoch: u64,
    ) -> Result<Arc<Principal>, Rejected> {
        let first = self.principal_as_applied(credential.clone(), address).await;
        let is_wrong = matches!(first, Err(Rejected::Wrong(_)));
        if is_wrong && self.may_be_new(&credential).await && self.has_caught_up(epoch).await? {
            return self.principal_as_applied(credential, address).await;
        }
        first
    }

    /// Whether a credential that is wrong here may have been made on another node a moment ago.
    async fn may_be_new(&self, credential: &Credential) -> bool {
        match credential {
            Credential::None | Credential::Malformed(_) => false,
            // A session that has expired, or is signed by nobody here, stays so. Its client must hear that from a node without
            // a majority too.
            Credential::Bearer(text) if session::is_shaped_as_token(text.expose()) => {
                self.verified_session(text.expose(), Use::Access).await.is_ok()
            }
            Credential::Basic { .. } | Credential::Bearer(_) => true,
        }
    }

    /// Brings this node up to date. Whether that changed something about identities since `epoch`, so that what was refused
    /// has to be judged again.
    pub(super) async fn has_caught_up(&self, epoch: u64) -> Result<bool, nora_app::Error> {
        self.registry.catch_up().await?;
        if self.registry.access().counters().await?.identity_epoch == epoch {
            return Ok(false);
        }
        // If the new policy cannot be read now, the one before it counts on; the job that follows changes says so.
        drop(self.reload().await);
        Ok(true)
    }

    /// Whom a credential belongs to, by what this node has applied. The answer is kept, and is given again until something changes.
    async fn principal_as_applied(
        self: &Arc<Self>,
        credential: Credential,
        address: Option<IpAddr>,
    ) -> Result<Arc<Principal>, Rejected> {
        let fingerprint = match &credential {
            Credential::None => return Ok(Arc::new(Principal::anonymous())),
            Credential::Malformed(why) => return wrong(why),
            Credential::Basic { user, password } => {
                self.fingerprint(&["basic", user, password.expose()])
            }
            Credential::Bearer(token) => self.fingerprint(&["bearer", token.expose()]),
        };
        // What changes while this is looked up makes it old before it is kept.
        let epoch = self.epoch.load(Ordering::Acquire);
        let cached = self.cached.get(&fingerprint);
        let cached = cached.filter(|cached| cached.principal.expires_at > self.clock.now().0);
        let principal = match (cached, credential) {
            (Some(cached), _) if cached.epoch == epoch => return Ok(cached.principal),
            // Something changed somewhere, and most likely not this login: then the password need not be hashed again.
            (Some(cached), Credential::Basic { user, password }) => {
                match self.as_of_now(&cached.principal).await? {
                    Some(principal) => principal,
                    None => self.by_password(&user, &user, password, address).await?,
                }
            }
            (None, Credential::Basic { user, password }) => {
                self.by_password(&user, &user, password, address).await?
            }
            (_, Credential::Bearer(token)) => self.by_token(&token, address).await?,
            (_, Credential::None | Credential::Malformed(_)) => return wrong(LOGIN),
        };
        let principal = Arc::new(principal);
        self.cached.insert(fingerprint, Cached { principal: principal.clone(), epoch });
        Ok(principal)
    }

    /// Whom a token of any kind belongs to.
    async fn by_token(
        self: &Arc<Self>,
        token: &Secret,
        address: Option<IpAddr>,
    ) -> Result<Principal, Rejected> {
        let text = token.expose();
        if session::is_shaped_as_token(text) {
            return self.by_session(text).await;
        }
        if let Some(token) = ApiToken::parse(text) {
            return self.by_api_token(&token).await;
        }
        // The administrator's password is a token as well: its holder needs no name.
        self.by_password(ADMIN_USER, NO_TOKEN, token.clone(), address).await
    }

    /// Notes that a credential was refused.
    async fn note_rejection(
        &self,
        rejected: &Rejected,
        user: Option<&str>,
        address: Option<IpAddr>,
        request: &str,
    ) {
        let why = match rejected {
            Rejected::Wrong(_) => Reason::WrongCredential,
            Rejected::TooMany(_) => Reason::TooManyFailedLogins,
            Rejected::Failed(_) => return,
        };
        let address = address.map(|address| address.to_string()).unwrap_or_default();
        let request = request.to_owned();
        let actor = Actor { address, request, ..Actor::named(Subject::Unknown) };
        let about = self.account_tried(user).await;
        self.notes.refused(actor, Deed::new(Verb::Login, about), why);
    }

    /// What a login that failed is about: the account that it was tried for. Any other name is written down nowhere, for it may
    /// be a password that somebody typed in the wrong place.
    async fn account_tried(&self, user: Option<&str>) -> About {
        let Some(user) = user else { return About::Registry };
        let is_valid = user == ADMIN_USER || check_name(user).is_ok();
        let Some(name) = AccountName::parse(user).ok().filter(|_| is_valid) else {
            return About::Words("no valid account name".into());
        };
        if user == ADMIN_USER {
            return About::Account(name);
        }
        match self.owner(user).await {
            Ok(Some(_)) => About::Account(name),
            Ok(None) => About::Words("no such account".into()),
            // The refusal is worth an entry, whatever of it can be told.
            Err(_) => About::Registry,
        }
    }

    /// Ends a token of ours that is shown. False for a session, which is not ended alone; true for what is no token, or
    /// none any more: it has ended already.
    pub async fn revoke_shown(&self, caller: &Caller, text: &str) -> Result<bool, nora_app::Error> {
        if session::is_shaped_as_token(text) {
            return self.revoke_refresh_token(caller, text).await;
        }
        let Some(shown) = ApiToken::parse(text) else { return Ok(true) };
        let id = TokenId(shown.id);
        let record = self.registry.tokens().get(id).await?;
        if !record.is_some_and(|record| shown.verify(&record.secret_hash)) {
            return Ok(true);
        }
        match self.registry.by(Arc::new(caller.clone())).tokens().revoke(id).await {
            Ok(()) | Err(nora_app::Error::NotFound { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
