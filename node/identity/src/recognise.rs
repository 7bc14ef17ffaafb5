//! From what a request shows to who makes it.
//!
//! Guarantees: a credential that is wrong is refused, and never taken for none; passwords are compared off the async
//! threads, a few at a time, in the same time whether or not the user exists, and each failure counts whether or not its
//! client waits for it; an API token or a session counts as long as what it rests on is there: the row of the token or
//! of the refresh token, and its owner.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nora_auth::credential::{ApiToken, Credential, Secret, TokenKind};
use nora_auth::identity::{Identity, Subject, check_name};
use nora_auth::permission::PermissionSet;
use nora_auth::session::{self, Use};
use nora_domain::{
    About, AccessTokenRecord, AccountName, AccountRecord, Actor, Deed, Reason, TokenId, Verb,
};

use super::admin::ADMIN_USER;
use super::caller::{Caller, Known};
use super::lockout::neighbours;
use super::refresh::token_named;
use super::{Guard, Remembered};

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

/// The name under which failures count of whoever showed something that is no token of any kind.
const NO_TOKEN: &str = "(no token)";

/// What is told of any login that fails: not which part of it was wrong.
const LOGIN: &str = "the user name or the password is wrong";
pub(super) const TOKEN: &str = "the token is not valid, was revoked, or has expired; log in again";

/// An account or a line of the htpasswd file.
pub(super) struct Owner {
    pub(super) subject: Subject,
    pub(super) groups: Vec<String>,
    /// What sessions of it are of: a new password makes a new one.
    pub(super) generation: u64,
    pub(super) password_hash: String,
}

/// A number that is another one for every other hash: the generation of a login whose account the cluster does not keep.
pub(super) fn generation_of(hash: &str) -> u64 {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, hash.as_bytes());
    digest.as_ref().iter().take(8).fold(0, |value, byte| value << 8 | u64::from(*byte))
}

impl Guard {
    /// Who makes a request that shows this.
    pub async fn recognise(
        self: &Arc<Self>,
        credential: Credential,
        address: Option<IpAddr>,
        request: Arc<str>,
    ) -> Result<Caller, Rejected> {
        let is_open = self.is_open();
        let tried = match &credential {
            Credential::Basic { user, .. } => Some(user.clone()),
            _ => None,
        };
        // Before anything is looked up: what changes meanwhile is looked at again.
        let epoch = self.epoch.load(Ordering::Acquire);
        let known = match self.known_now(credential, address, (epoch, is_open)).await {
            Ok(known) => known,
            // Whoever asks nobody for anything has no use for what it is shown.
            Err(Rejected::Wrong(_) | Rejected::TooMany(_)) if is_open => {
                Arc::new(Known::anonymous())
            }
            Err(rejected) => {
                let why = match &rejected {
                    Rejected::Wrong(_) => Some(Reason::WrongCredential),
                    Rejected::TooMany(_) => Some(Reason::TooManyFailedLogins),
                    Rejected::Failed(_) => None,
                };
                if let Some(why) = why {
                    let address = address.map(|address| address.to_string()).unwrap_or_default();
                    let request = request.to_string();
                    let actor = Actor { address, request, ..Actor::named(Subject::Unknown) };
                    let about = self.account_tried(tried.as_deref()).await;
                    self.notes.refused(actor, Deed::new(Verb::Login, about), why);
                }
                return Err(rejected);
            }
        };
        if let Some(token) = known.token {
            self.notes.used(token, self.clock.now());
        }
        Ok(Caller { guard: self.clone(), known, epoch, is_open, behalf: None, address, request })
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

    /// Whom a credential is of. One that is wrong by what this node has applied is judged again if accounts, tokens or the
    /// policy changed meanwhile: what another node acknowledged a moment ago is believed here at once.
    async fn known_now(
        self: &Arc<Self>,
        credential: Credential,
        address: Option<IpAddr>,
        (epoch, is_open): (u64, bool),
    ) -> Result<Arc<Known>, Rejected> {
        let first = self.known_by(credential.clone(), address).await;
        if is_open || !matches!(first, Err(Rejected::Wrong(_))) {
            return first;
        }
        let may_be_new = match &credential {
            Credential::None | Credential::Malformed(_) => false,
            // A session that has expired, or is signed by nobody here, stays so. Its client must hear that from a node without
            // a majority too.
            Credential::Bearer(text) if session::is_shaped_as_token(text.expose()) => {
                self.verified_session(text.expose(), Use::Access).await.is_ok()
            }
            Credential::Basic { .. } | Credential::Bearer(_) => true,
        };
        if !may_be_new {
            return first;
        }
        match self.has_caught_up(epoch).await? {
            true => self.known_by(credential, address).await,
            false => first,
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

    async fn known_by(
        self: &Arc<Self>,
        credential: Credential,
        address: Option<IpAddr>,
    ) -> Result<Arc<Known>, Rejected> {
        let fingerprint = match &credential {
            Credential::None => return Ok(Arc::new(Known::anonymous())),
            Credential::Malformed(why) => return wrong(why),
            Credential::Basic { user, password } => {
                self.fingerprint(&["basic", user, password.expose()])
            }
            Credential::Bearer(token) => self.fingerprint(&["bearer", token.expose()]),
        };
        // What changes while this is looked up makes it old before it is kept.
        let epoch = self.epoch.load(Ordering::Acquire);
        let kept = self.known.get(&fingerprint);
        let kept = kept.filter(|kept| kept.known.expires_at > self.clock.now().0);
        let known = match (kept, credential) {
            (Some(kept), _) if kept.epoch == epoch => return Ok(kept.known),
            (kept, Credential::Basic { user, password }) => {
                // Something changed somewhere, and most likely not this login.
                let renewed = match &kept {
                    Some(kept) => self.renewed(&kept.known).await?,
                    None => None,
                };
                match renewed {
                    Some(known) => known,
                    None => self.login(&user, &user, password, address).await?,
                }
            }
            (_, Credential::Bearer(token)) => self.bearer(&token, address).await?,
            (_, Credential::None | Credential::Malformed(_)) => return wrong(LOGIN),
        };
        let known = Arc::new(known);
        self.known.insert(fingerprint, Remembered { known: known.clone(), epoch });
        Ok(known)
    }

    /// Somebody who was recognised before, as they are now, without what a session was cut down to and without asking
    /// whether what they showed has expired. `None` if it would not be believed any more.
    async fn renewed(&self, known: &Known) -> Result<Option<Known>, nora_app::Error> {
        let now = match known.token {
            Some(id) => match self.registry.tokens().get(id).await? {
                Some(record) => self.holder_of(id, record).await,
                None => return Ok(None),
            },
            None => self.subject_of(&known.identity.subject.to_string(), known.generation).await,
        };
        if let Some(token) = known.refresh
            && self.refresh_token_of(known, token).await?.is_none()
        {
            return Ok(None);
        }
        match now {
            Ok(known) => Ok(Some(known)),
            Err(Rejected::Failed(error)) => Err(error),
            Err(Rejected::Wrong(_) | Rejected::TooMany(_)) => Ok(None),
        }
    }

    /// Whether somebody who was recognised in that identity epoch still would be. What has expired since does not count:
    /// a transfer may take longer than what began it lasts.
    pub(super) async fn still_stands(
        &self,
        known: &Known,
        epoch: u64,
    ) -> Result<bool, nora_app::Error> {
        if epoch >= self.registry.access().counters().await?.identity_epoch {
            return Ok(true);
        }
        Ok(self.renewed(known).await?.is_some())
    }

    /// A user name and a password; failures count under the name of `counted`.
    async fn login(
        self: &Arc<Self>,
        user: &str,
        counted: &str,
        password: Secret,
        address: Option<IpAddr>,
    ) -> Result<Known, Rejected> {
        if let Some(wait) = address.and_then(|address| self.lockout.wait(address, counted)) {
            return Err(Rejected::TooMany(wait));
        }
        let busy = Err(Rejected::TooMany(Duration::from_secs(1)));
        let Some(place) = self.turns.join(address.map(neighbours)) else { return busy };
        let guard = self.clone();
        let (user, counted) = (user.to_owned(), counted.to_owned());
        // A task of its own: a client that hangs up must neither free its place while the hash is still computed nor have
        // guessed for nothing.
        let attempt = tokio::spawn(async move {
            let Some(_turn) = place.turn().await else { return busy };
            // Others may have guessed while this waited.
            if let Some(wait) = address.and_then(|address| guard.lockout.wait(address, &counted)) {
                return Err(Rejected::TooMany(wait));
            }
            let known = guard.password_login(&user, password).await?;
            if let Some(address) = address {
                match known {
                    Some(_) => guard.lockout.succeeded(address, &counted),
                    None => guard.lockout.failed(address, &counted),
                }
            }
            known.map_or_else(|| wrong(LOGIN), Ok)
        });
        attempt.await.unwrap_or_else(|_| wrong(LOGIN))
    }

    /// The administrator's own password, once they have chosen one: an account's, under the reserved name.
    async fn administrators_account(&self) -> Result<Option<AccountRecord>, nora_app::Error> {
        match AccountName::parse(ADMIN_USER) {
            Ok(name) => self.registry.accounts().get(name).await,
            Err(_) => Ok(None),
        }
    }

    async fn password_login(
        &self,
        user: &str,
        password: Secret,
    ) -> Result<Option<Known>, Rejected> {
        let owner = if user == ADMIN_USER {
            let Some(account) = self.administrators_account().await? else {
                let admin = self.admin.as_ref();
                let own = admin.and_then(|admin| admin.accept(password.expose()));
                let generation = own.or_else(|| self.secrets.accept(password.expose()));
                return Ok(generation.map(Known::administrator));
            };
            let AccountRecord { password_hash, groups, generation, .. } = account;
            Some(Owner { subject: Subject::Administrator, groups, generation, password_hash })
        } else {
            self.owner(user).await?
        };
        let owner = owner.filter(|owner| !owner.password_hash.is_empty());
        let hash = owner.as_ref().map(|owner| owner.password_hash.clone());
        let in_force = self.policies.in_force();
        let checked =
            nora_compute::run(move || in_force.passwords.check(password.expose(), hash.as_deref()));
        let is_right = checked.await.unwrap_or(false);
        Ok(owner.filter(|_| is_right).map(|owner| Known {
            identity: Identity { groups: owner.groups, ..Identity::of(owner.subject) },
            generation: owner.generation,
            ..Known::anonymous()
        }))
    }

    /// The account of that name, or the line of the htpasswd file. An account comes first.
    pub(super) async fn owner(&self, user: &str) -> Result<Option<Owner>, nora_app::Error> {
        let in_force = self.policies.in_force();
        let policy = in_force.policy();
        if let Ok(name) = AccountName::parse(user)
            && let Some(account) = self.registry.accounts().get(name).await?
        {
            let AccountRecord { is_robot, password_hash, groups, generation, .. } = account;
            let subject = if is_robot { Subject::Robot } else { Subject::User };
            let subject = subject(user.into());
            return Ok(Some(Owner { subject, groups, generation, password_hash }));
        }
        Ok(policy.htpasswd(user).map(|hash| Owner {
            subject: Subject::User(user.into()),
            groups: Vec::new(),
            generation: generation_of(hash),
            password_hash: hash.to_owned(),
        }))
    }

    /// A token of any kind.
    async fn bearer(
        self: &Arc<Self>,
        token: &Secret,
        address: Option<IpAddr>,
    ) -> Result<Known, Rejected> {
        let text = token.expose();
        if session::is_shaped_as_token(text) {
            return self.session(text).await;
        }
        if let Some(token) = ApiToken::parse(text) {
            return self.api_token(&token).await;
        }
        // The administrator's password is a token as well: whoever has it needs no name.
        self.login(ADMIN_USER, NO_TOKEN, token.clone(), address).await
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

    /// Who an API token is of.
    pub async fn known_by_token(&self, token: &Secret) -> Result<Known, Rejected> {
        match ApiToken::parse(token.expose()) {
            Some(token) => self.api_token(&token).await,
            None => wrong(TOKEN),
        }
    }

    async fn api_token(&self, shown: &ApiToken) -> Result<Known, Rejected> {
        let id = TokenId(shown.id);
        let record = self.registry.tokens().get(id).await?;
        match record.filter(|record| shown.verify(&record.secret_hash)) {
            Some(record) if record.is_workload == (shown.kind == TokenKind::Workload) => {
                self.of_token(id, record).await
            }
            _ => wrong(TOKEN),
        }
    }

    /// Who a token is of that is there.
    pub(super) async fn of_token(
        &self,
        id: TokenId,
        record: AccessTokenRecord,
    ) -> Result<Known, Rejected> {
        if record.expires_at <= self.clock.now() {
            return wrong(TOKEN);
        }
        self.holder_of(id, record).await
    }

    /// The same, also of one that has expired.
    async fn holder_of(&self, id: TokenId, record: AccessTokenRecord) -> Result<Known, Rejected> {
        let known = |identity, generation| Known {
            identity,
            token: Some(id),
            generation,
            expires_at: record.expires_at.0,
            ..Known::anonymous()
        };
        if record.is_workload {
            let (provider, subject) = split_workload(&record.owner);
            // What the rules give that are in force now: those that gave it may have gone.
            let in_force = self.policies.in_force();
            let grant = in_force.policy().workload_grant_again(&provider, &record.claims);
            let Ok(grant) = grant else { return wrong(TOKEN) };
            let Ok(grant) = PermissionSet::parse(&grant.permissions) else { return wrong(TOKEN) };
            let subject = Subject::Workload { provider, subject };
            let identity = Identity { grant: Some(grant), ..Identity::of(subject) };
            return Ok(known(identity, 0));
        }
        // Made by a version that knew more; nothing is safer than less.
        let Ok(permissions) = PermissionSet::parse(&record.permissions) else {
            return wrong(TOKEN);
        };
        let scope = Some(permissions).filter(|permissions| !permissions.is_empty());
        let token = Some(record.name.clone());
        if record.owner == ADMIN_USER {
            let identity = Identity { token, scope, ..Identity::of(Subject::Administrator) };
            return Ok(known(identity, 0));
        }
        let name = record.owner.split_once(':').map_or("", |(_, name)| name);
        match self.owner(name).await? {
            Some(owner) if owner.subject.to_string() == record.owner => {
                let Owner { subject, groups, generation, .. } = owner;
                let identity = Identity { subject, groups, token, scope, grant: None };
                Ok(known(identity, generation))
            }
            // Its owner is gone.
            _ => wrong(TOKEN),
        }
    }

    /// A token that the cluster signed itself.
    async fn session(&self, text: &str) -> Result<Known, Rejected> {
        let claims = self.verified_session(text, Use::Access).await?;
        let base = self.base_of(&claims).await?;
        let scope = match PermissionSet::parse(&claims.scopes) {
            Ok(scope) => scope,
            Err(_) => return wrong(TOKEN),
        };
        let identity = Identity { scope: Some(scope), ..base.identity.clone() };
        Ok(Known {
            identity,
            uncut: Some(base.identity),
            expires_at: base.expires_at.min(claims.exp.saturating_mul(1_000)),
            token: base.token,
            refresh: base.refresh,
            generation: base.generation,
        })
    }

    /// Who a session was made for, if that is still so.
    pub(super) async fn base_of(&self, claims: &session::Claims) -> Result<Known, Rejected> {
        if let Some(id) = &claims.cred {
            let Some(id) = token_named(id) else { return wrong(TOKEN) };
            return match self.registry.tokens().get(id).await? {
                Some(record) => self.of_token(id, record).await,
                None => wrong(TOKEN),
            };
        }
        let known = self.subject_of(&claims.sub, claims.generation).await?;
        match claims.refresh.as_deref().map(token_named) {
            Some(Some(token)) => self.kept_by(known, token).await,
            Some(None) => wrong(TOKEN),
            None => Ok(known),
        }
    }

    /// Who a subject is whose login is of that generation, if that is still so.
    async fn subject_of(&self, subject: &str, generation: u64) -> Result<Known, Rejected> {
        match subject {
            ADMIN_USER => {
                let is_current = match self.administrators_account().await? {
                    Some(account) => account.generation == generation,
                    None => {
                        let own = self.admin.as_ref();
                        own.is_some_and(|own| own.has_generation(generation))
                            || self.secrets.has_generation(generation)
                    }
                };
                if is_current { Ok(Known::administrator(generation)) } else { wrong(TOKEN) }
            }
            "anonymous" => Ok(Known::anonymous()),
            subject => {
                let name = subject.split_once(':').map_or("", |(_, name)| name);
                match self.owner(name).await? {
                    Some(owner)
                        if owner.subject.to_string() == subject
                            && owner.generation == generation =>
                    {
                        let Owner { subject, groups, generation, .. } = owner;
                        let identity = Identity { groups, ..Identity::of(subject) };
                        Ok(Known { identity, generation, ..Known::anonymous() })
                    }
                    _ => wrong(TOKEN),
                }
            }
        }
    }
}

/// The provider and the subject of a workload token's owner, `oidc:<provider>:<subject>`.
fn split_workload(owner: &str) -> (Box<str>, Box<str>) {
    let rest = owner.strip_prefix("oidc:").unwrap_or(owner);
    let (provider, subject) = rest.split_once(':').unwrap_or((rest, ""));
    (provider.into(), subject.into())
}

#[cfg(test)]
mod tests;
