//! The user, robot, workload or administrator that a credential belongs to, as the accounts, tokens and policy on this node say
//! now.
//!
//! Guarantee: an API token or a session counts as long as what it rests on is there: the row of the token or of the refresh
//! token, and its owner.

use nora_auth::credential::{ApiToken, Secret, TokenKind};
use nora_auth::identity::{Identity, Subject};
use nora_auth::permission::PermissionSet;
use nora_auth::session::{self, Use};
use nora_domain::{AccessTokenRecord, AccountName, AccountRecord, TokenId};

use super::Guard;
use super::admin::ADMIN_USER;
use super::recognise::{Rejected, TOKEN, wrong};
use super::refresh::token_named;

/// Whom a credential belongs to: what is kept of it between requests.
#[derive(Debug)]
pub struct Principal {
    /// Who, and with what.
    pub identity: Identity,
    /// Of a session: the identity without the session's scope. It tells whether asking for another session would help.
    pub unscoped: Option<Identity>,
    /// The API token that was shown, or that a session came from.
    pub token: Option<TokenId>,
    /// The refresh token that keeps the session up, if one does.
    pub refresh: Option<TokenId>,
    /// The account's generation, for sessions that are made.
    pub generation: u64,
    /// When the credential ends, in milliseconds since the Unix epoch.
    pub expires_at: u64,
}

impl Principal {
    /// A caller who showed nothing.
    pub fn anonymous() -> Self {
        Self {
            identity: Identity::anonymous(),
            unscoped: None,
            token: None,
            refresh: None,
            generation: 0,
            expires_at: u64::MAX,
        }
    }

    /// The administrator, by a password of that generation.
    pub fn administrator(generation: u64) -> Self {
        let identity = Identity::of(Subject::Administrator);
        Self { identity, generation, ..Self::anonymous() }
    }
}

/// An account or a line of the htpasswd file.
pub(super) struct Owner {
    pub(super) subject: Subject,
    pub(super) groups: Vec<String>,
    /// Sessions carry it: a new password makes a new generation, and ends the sessions of the one before.
    pub(super) generation: u64,
    pub(super) password_hash: String,
}

impl From<Owner> for Principal {
    fn from(Owner { subject, groups, generation, .. }: Owner) -> Self {
        let identity = Identity { groups, ..Identity::of(subject) };
        Self { identity, generation, ..Self::anonymous() }
    }
}

/// The generation of a login whose account the cluster does not keep: a number that every other password hash changes.
pub(super) fn generation_of(hash: &str) -> u64 {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, hash.as_bytes());
    digest.as_ref().iter().take(8).fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// Logins.
impl Guard {
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

    /// The administrator's own password, once they have chosen one: an account's, under the reserved name.
    pub(super) async fn administrators_account(
        &self,
    ) -> Result<Option<AccountRecord>, nora_app::Error> {
        match AccountName::parse(ADMIN_USER) {
            Ok(name) => self.registry.accounts().get(name).await,
            Err(_) => Ok(None),
        }
    }

    /// The login of a subject, if it still is of that generation.
    async fn login_of(&self, subject: &str, generation: u64) -> Result<Principal, Rejected> {
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
                if is_current { Ok(Principal::administrator(generation)) } else { wrong(TOKEN) }
            }
            "anonymous" => Ok(Principal::anonymous()),
            subject => match self.owner_named(subject).await? {
                Some(owner) if owner.generation == generation => Ok(owner.into()),
                _ => wrong(TOKEN),
            },
        }
    }

    /// The owner that a subject names, `user:<name>` or `robot:<name>`.
    async fn owner_named(&self, subject: &str) -> Result<Option<Owner>, nora_app::Error> {
        let name = subject.split_once(':').map_or("", |(_, name)| name);
        let owner = self.owner(name).await?;
        Ok(owner.filter(|owner| owner.subject.to_string() == subject))
    }
}

/// API tokens.
impl Guard {
    /// Whom an API token belongs to.
    pub async fn principal_of_token(&self, token: &Secret) -> Result<Principal, Rejected> {
        match ApiToken::parse(token.expose()) {
            Some(token) => self.by_api_token(&token).await,
            None => wrong(TOKEN),
        }
    }

    pub(super) async fn by_api_token(&self, shown: &ApiToken) -> Result<Principal, Rejected> {
        let id = TokenId(shown.id);
        let record = self.registry.tokens().get(id).await?;
        match record.filter(|record| shown.verify(&record.secret_hash)) {
            Some(record) if record.is_workload == (shown.kind == TokenKind::Workload) => {
                self.holder_now(id, record).await
            }
            _ => wrong(TOKEN),
        }
    }

    /// The holder of a token that has not expired.
    async fn holder_now(
        &self,
        id: TokenId,
        record: AccessTokenRecord,
    ) -> Result<Principal, Rejected> {
        if record.expires_at <= self.clock.now() {
            return wrong(TOKEN);
        }
        self.holder_at_any_time(id, record).await
    }

    /// The holder of a token, also of one that has expired.
    async fn holder_at_any_time(
        &self,
        id: TokenId,
        record: AccessTokenRecord,
    ) -> Result<Principal, Rejected> {
        let (identity, generation) = match record.is_workload {
            true => (self.workload(&record)?, 0),
            false => self.token_owner(&record).await?,
        };
        let expires_at = record.expires_at.0;
        let token = Some(id);
        Ok(Principal { identity, token, generation, expires_at, ..Principal::anonymous() })
    }

    /// The workload that exchanged an issuer's token for this one.
    fn workload(&self, record: &AccessTokenRecord) -> Result<Identity, Rejected> {
        let (provider, subject) = split_workload(&record.owner);
        // What the rules give that are in force now: those that gave it may have gone.
        let in_force = self.policies.in_force();
        let grant = in_force.policy().workload_grant_again(&provider, &record.claims);
        let Ok(grant) = grant else { return wrong(TOKEN) };
        let Ok(grant) = PermissionSet::parse(&grant.permissions) else { return wrong(TOKEN) };
        let subject = Subject::Workload { provider, subject };
        Ok(Identity { grant: Some(grant), ..Identity::of(subject) })
    }

    /// The user, robot or administrator who made a token for themselves, and the generation of their login.
    async fn token_owner(&self, record: &AccessTokenRecord) -> Result<(Identity, u64), Rejected> {
        // Made by a version that knew more; nothing is safer than less.
        let Ok(permissions) = PermissionSet::parse(&record.permissions) else {
            return wrong(TOKEN);
        };
        let scope = Some(permissions).filter(|permissions| !permissions.is_empty());
        let token = Some(record.name.clone());
        if record.owner == ADMIN_USER {
            return Ok((Identity { token, scope, ..Identity::of(Subject::Administrator) }, 0));
        }
        match self.owner_named(&record.owner).await? {
            Some(Owner { subject, groups, generation, .. }) => {
                Ok((Identity { subject, groups, token, scope, grant: None }, generation))
            }
            // Its owner is gone.
            None => wrong(TOKEN),
        }
    }
}

/// The provider and the subject of a workload token's owner, `oidc:<provider>:<subject>`.
fn split_workload(owner: &str) -> (Box<str>, Box<str>) {
    let rest = owner.strip_prefix("oidc:").unwrap_or(owner);
    let (provider, subject) = rest.split_once(':').unwrap_or((rest, ""));
    (provider.into(), subject.into())
}

/// Sessions.
impl Guard {
    /// Whom a token belongs to that the cluster signed itself.
    pub(super) async fn by_session(&self, text: &str) -> Result<Principal, Rejected> {
        let claims = self.verified_session(text, Use::Access).await?;
        let base = self.session_base(&claims).await?;
        let Ok(scope) = PermissionSet::parse(&claims.scopes) else { return wrong(TOKEN) };
        let identity = Identity { scope: Some(scope), ..base.identity.clone() };
        let expires_at = base.expires_at.min(claims.exp.saturating_mul(1_000));
        Ok(Principal { identity, unscoped: Some(base.identity), expires_at, ..base })
    }

    /// Who a session was made for, without its scope, if what it rests on is still there.
    pub(super) async fn session_base(
        &self,
        claims: &session::Claims,
    ) -> Result<Principal, Rejected> {
        if let Some(id) = &claims.cred {
            let Some(id) = token_named(id) else { return wrong(TOKEN) };
            return match self.registry.tokens().get(id).await? {
                Some(record) => self.holder_now(id, record).await,
                None => wrong(TOKEN),
            };
        }
        let login = self.login_of(&claims.sub, claims.generation).await?;
        match claims.refresh.as_deref().map(token_named) {
            Some(Some(token)) => self.kept_up_by(login, token).await,
            Some(None) => wrong(TOKEN),
            None => Ok(login),
        }
    }
}

/// Checks a recognised principal again.
impl Guard {
    /// A principal as they are now, without a session's scope, and whether or not what they showed has expired. `None` if the
    /// credential would not be believed any more.
    pub(super) async fn as_of_now(
        &self,
        earlier: &Principal,
    ) -> Result<Option<Principal>, nora_app::Error> {
        let now = match earlier.token {
            Some(id) => match self.registry.tokens().get(id).await? {
                Some(record) => self.holder_at_any_time(id, record).await,
                None => return Ok(None),
            },
            None => self.login_of(&earlier.identity.subject.to_string(), earlier.generation).await,
        };
        if let Some(token) = earlier.refresh
            && self.refresh_token_of(earlier, token).await?.is_none()
        {
            return Ok(None);
        }
        match now {
            Ok(principal) => Ok(Some(principal)),
            Err(Rejected::Failed(error)) => Err(error),
            Err(Rejected::Wrong(_) | Rejected::TooMany(_)) => Ok(None),
        }
    }

    /// Whether a principal who was recognised in that identity epoch still would be. What has expired since does not count:
    /// a transfer may take longer than the credential that began it lasts.
    pub(super) async fn still_stands(
        &self,
        earlier: &Principal,
        epoch: u64,
    ) -> Result<bool, nora_app::Error> {
        if epoch >= self.registry.access().counters().await?.identity_epoch {
            return Ok(true);
        }
        Ok(self.as_of_now(earlier).await?.is_some())
    }
}
