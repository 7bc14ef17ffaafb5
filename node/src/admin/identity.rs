//! `nora.v1.Identity`: accounts and tokens.
//!
//! Guarantees: whoever is no administrator sees and changes only what is their own, and gives no token more than they
//! have; nobody makes a login who shows a token; a secret is in the one answer that makes it, and nowhere else.

use std::sync::Arc;

use nora_app::Registry;
use nora_app::tokens::NewToken;
use nora_auth::credential::{ApiToken, Secret, TokenKind};
use nora_auth::identity::{Identity as Who, Subject, check_name};
use nora_auth::password::check_strength;
use nora_auth::permission::{Action, PermissionSet, Resource};
use nora_auth::policy::{Effect, Explanation};
use nora_domain::{
    About, AccessTokenRecord, AccountName, Deed, Format, OwnerName, Reason, RepositoryPath,
    Timestamp, TokenId, TokenName, Verb,
};
use nora_proto::v1 as proto;
use nora_proto::v1::identity_server::Identity;
use tonic::{Request, Response, Status};

use super::{Admin, caller_of, may_make_logins, not_permitted, page_rows, refused, to_the_end};
use nora_identity::{ADMIN_USER, Caller, ExchangeFailure, Rejected, Unhashed};

const MINUTE_SECS: u64 = 60;
const TOKEN_DEFAULT_SECS: u64 = 90 * 24 * 3_600;
const TOKEN_SECS_MAX: u64 = 3_660 * 24 * 3_600;
/// Permissions that one token is cut down to.
const SCOPE_MAX: usize = 100;
const GROUPS_MAX: usize = 100;
const NO_TOKEN: &str = "there is no such token; it may be revoked already";

pub(super) fn malformed(what: &str, error: impl std::fmt::Display) -> Status {
    Status::invalid_argument(format!("{what}: {error}"))
}

fn account_name(text: &str) -> Result<AccountName, Status> {
    check_name(text).map_err(|error| malformed("name", error))?;
    AccountName::parse(text).map_err(|error| malformed("name", error))
}

/// The name of an account whose password is changed, or that is removed: the administrator's too, whose account is there
/// once they have chosen a password.
fn changed_name(text: &str) -> Result<AccountName, Status> {
    match text {
        ADMIN_USER => AccountName::parse(text).map_err(|error| malformed("name", error)),
        text => account_name(text),
    }
}

fn token_to_proto(id: TokenId, record: AccessTokenRecord) -> proto::Token {
    proto::Token {
        id: format!("{:032x}", id.0),
        name: record.name,
        owner: record.owner,
        scope: record.permissions,
        created_at: record.created_at.0,
        expires_at: record.expires_at.0,
        last_used_at: record.last_used_at.0,
        workload: record.is_workload,
    }
}

/// Who owns tokens that a caller makes for themselves: its account.
pub(super) fn own(caller: &Caller) -> String {
    if caller.is_exempt() && !caller.identity().is_authenticated() {
        return ADMIN_USER.to_owned();
    }
    caller.identity().subject.to_string()
}

/// A subject as the policy knows it.
fn subject(text: &str) -> Result<Subject, Status> {
    let unknown = || {
        Status::invalid_argument(format!(
            "`{text}` is no subject: write user:NAME, robot:NAME, admin or anonymous"
        ))
    };
    match text.split_once(':') {
        None if text == ADMIN_USER => Ok(Subject::Administrator),
        None if text == "anonymous" => Ok(Subject::Anonymous),
        Some(("user", name)) => Ok(Subject::User(name.into())),
        Some(("robot", name)) => Ok(Subject::Robot(name.into())),
        Some(("oidc", rest)) => {
            let (provider, subject) = rest.split_once(':').unwrap_or((rest, ""));
            Ok(Subject::Workload { provider: provider.into(), subject: subject.into() })
        }
        None | Some(_) => Err(unknown()),
    }
}

impl Admin {
    pub(super) fn registry_of(&self, caller: Caller) -> Registry {
        self.api.registry.by(Arc::new(caller))
    }

    /// Whether an account of that name is the caller's own.
    fn is_own(caller: &Caller, account: &str) -> bool {
        caller.is_in_person() && caller.identity().subject.account() == Some(account)
    }

    /// The token that a text names: its id, or its owner and its name.
    async fn token_named(&self, text: &str) -> Result<(TokenId, AccessTokenRecord), Status> {
        let registry = &self.api.registry;
        let unknown = || Status::not_found(NO_TOKEN);
        let id = match text.split_once('/') {
            Some((owner, name)) => {
                let owner = OwnerName::parse(owner).map_err(|error| malformed("owner", error))?;
                let name = TokenName::parse(name).map_err(|error| malformed("name", error))?;
                registry.tokens().named(owner, name).await.map_err(refused)?.ok_or_else(unknown)?
            }
            None => match u128::from_str_radix(text, 16) {
                Ok(id) => TokenId(id),
                Err(_) => {
                    return Err(Status::invalid_argument(
                        "name the token by its id, 32 hexadecimal digits, or as OWNER/NAME, as user:alice/laptop",
                    ));
                }
            },
        };
        let record = registry.tokens().get(id).await.map_err(refused)?.ok_or_else(unknown)?;
        Ok((id, record))
    }

    /// Checks that a token's owner is there: an account that the cluster keeps, a line of the htpasswd file, or the
    /// administrator.
    async fn owner_of(&self, owner: &str) -> Result<Option<AccountName>, Status> {
        if owner == ADMIN_USER {
            return Ok(None);
        }
        let subject = subject(owner)?;
        let Some(name) = subject.account() else {
            return Err(Status::invalid_argument(format!("{owner} cannot have tokens of its own")));
        };
        let name = account_name(name)?;
        let registry = &self.api.registry;
        registry.catch_up().await.map_err(refused)?;
        if let Some(account) = registry.accounts().get(name.clone()).await.map_err(refused)? {
            if account.is_robot != matches!(subject, Subject::Robot(_)) {
                let kind = if account.is_robot { "robot" } else { "user" };
                return Err(Status::not_found(format!("{name} is a {kind}: write {kind}:{name}")));
            }
            return Ok(Some(name));
        }
        let in_force = self.api.guard.policies().in_force();
        let is_listed = in_force.policy().htpasswd(name.as_str()).is_some();
        match subject {
            Subject::User(_) if is_listed => Ok(None),
            _ => Err(Status::not_found(format!(
                "there is no account {owner}; make it with 'nora user add'"
            ))),
        }
    }
}

fn explained(explanation: Explanation) -> proto::ExplainResponse {
    let steps = explanation.steps.into_iter().map(|step| proto::ExplainStep {
        place: step.place,
        text: step.text,
        effect: match step.effect {
            Effect::Allows => "allows",
            Effect::Denies => "denies",
            Effect::DoesNotMatch => "does not match",
            Effect::CutsDown => "cuts down",
        }
        .to_owned(),
        why: step.why,
    });
    proto::ExplainResponse {
        allowed: explanation.allowed,
        summary: explanation.summary,
        steps: steps.collect(),
    }
}

/// A repository as people write it: `frontend/app`, or `npm:@acme/lib`.
fn resource_of(text: &str) -> Result<Option<(Format, RepositoryPath)>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let named = text
        .split_once(':')
        .and_then(|(format, path)| Some((nora_auth::permission::format_named(format)?, path)));
    let (format, path) = named.unwrap_or((Format::Oci, text));
    let path = RepositoryPath::parse(path).map_err(|error| malformed("resource", error))?;
    Ok(Some((format, path)))
}

#[tonic::async_trait]
impl Identity for Admin {
    async fn who_am_i(
        &self,
        request: Request<proto::WhoAmIRequest>,
    ) -> Result<Response<proto::WhoAmIResponse>, Status> {
        let caller = caller_of(&request)?;
        let identity = caller.identity();
        let scope = identity.scope.as_ref().or(identity.grant.as_ref());
        Ok(Response::new(proto::WhoAmIResponse {
            subject: match caller.is_exempt() {
                true => "anyone: this node asks nobody to log in".to_owned(),
                false => identity.subject.to_string(),
            },
            groups: identity.groups.clone(),
            token: identity.token.clone().unwrap_or_default(),
            scope: scope.map(|scope| scope.texts().to_vec()).unwrap_or_default(),
        }))
    }

    async fn list_users(
        &self,
        request: Request<proto::ListUsersRequest>,
    ) -> Result<Response<proto::ListUsersResponse>, Status> {
        let request = request.into_inner();
        let after = match request.after.as_str() {
            "" => None,
            name => Some(changed_name(name)?),
        };
        let rows = page_rows(request.page_size);
        let page = self.api.registry.accounts().list(after.clone(), rows).await.map_err(refused)?;
        let mut users: Vec<_> = page
            .items
            .into_iter()
            .map(|(name, account)| proto::User {
                name: name.to_string(),
                robot: account.is_robot,
                groups: account.groups,
                created_at: account.created_at.0,
                from_htpasswd: false,
            })
            .collect();
        // Those of the htpasswd file come in between, as far as this page goes.
        let until = page.more.then(|| users.last().map(|user| user.name.clone())).flatten();
        let in_force = self.api.guard.policies().in_force();
        let listed = in_force.policy().document().auth.iter().flat_map(|auth| auth.htpasswd.keys());
        for name in listed {
            let begins = after.as_ref().is_none_or(|after| name.as_str() > after.as_str());
            let ends = until.as_ref().is_none_or(|until| name <= until);
            if begins && ends && !users.iter().any(|user| user.name == *name) {
                let user =
                    proto::User { name: name.clone(), from_htpasswd: true, ..Default::default() };
                users.push(user);
            }
        }
        users.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(Response::new(proto::ListUsersResponse { users, more: page.more }))
    }

    async fn add_user(
        &self,
        request: Request<proto::AddUserRequest>,
    ) -> Result<Response<proto::AddUserResponse>, Status> {
        let caller = caller_of(&request)?;
        let request = request.into_inner();
        let name = account_name(&request.name)?;
        if request.groups.len() > GROUPS_MAX {
            return Err(Status::invalid_argument(format!(
                "an account is in {GROUPS_MAX} groups at most"
            )));
        }
        for group in &request.groups {
            check_name(group).map_err(|error| malformed("group", error))?;
        }
        let in_force = self.api.guard.policies().in_force();
        if in_force.policy().htpasswd(name.as_str()).is_some() {
            return Err(Status::already_exists(format!(
                "{name} is a line of the htpasswd file; change it there, or choose another name"
            )));
        }
        if !request.robot {
            let about = About::Account(name.clone());
            may_make_logins(&caller, Deed::new(Verb::AccountCreate, about))?;
        }
        let password_hash = match (request.robot, request.password.is_empty()) {
            (true, true) => String::new(),
            (true, false) => {
                return Err(Status::invalid_argument("a robot has no password: give it tokens"));
            }
            (false, _) => self.hashed(Secret::new(request.password)).await?,
        };
        let registry = self.registry_of(caller);
        let groups = request.groups;
        to_the_end(async move {
            registry.accounts().create(name, request.robot, password_hash, groups).await
        })
        .await?
        .map_err(refused)?;
        Ok(Response::new(proto::AddUserResponse {}))
    }

    async fn set_password(
        &self,
        request: Request<proto::SetPasswordRequest>,
    ) -> Result<Response<proto::SetPasswordResponse>, Status> {
        let caller = caller_of(&request)?;
        let request = request.into_inner();
        if !caller.administers() && !Self::is_own(&caller, &request.name) {
            let about = About::Words(request.name.as_str().into());
            caller.note_refusal(Deed::new(Verb::AccountPassword, about), Reason::NotPermitted);
            return Err(not_permitted(&caller, "admin:*"));
        }
        let name = changed_name(&request.name)?;
        may_make_logins(&caller, Deed::new(Verb::AccountPassword, About::Account(name.clone())))?;
        let in_force = self.api.guard.policies().in_force();
        let account = self.api.registry.accounts().get(name.clone()).await.map_err(refused)?;
        let account_is_missing = account.is_none();
        match account {
            None if in_force.policy().htpasswd(name.as_str()).is_some() => {
                return Err(Status::failed_precondition(format!(
                    "{name} is a line of the htpasswd file; change it there, then 'nora policy apply'"
                )));
            }
            Some(account) if account.is_robot => {
                return Err(Status::failed_precondition("a robot has no password: give it tokens"));
            }
            None | Some(_) => {}
        }
        let is_first = account_is_missing && name.as_str() == ADMIN_USER;
        let hash = self.hashed(Secret::new(request.password)).await?;
        let registry = self.registry_of(caller);
        to_the_end(async move {
            match is_first {
                // From now on the password in the nodes' files opens nothing.
                true => registry.accounts().create(name, false, hash, Vec::new()).await,
                false => registry.accounts().set_password(name, hash).await,
            }
        })
        .await?
        .map_err(refused)?;
        Ok(Response::new(proto::SetPasswordResponse {}))
    }

    async fn remove_user(
        &self,
        request: Request<proto::RemoveUserRequest>,
    ) -> Result<Response<proto::RemoveUserResponse>, Status> {
        let caller = caller_of(&request)?;
        let name = changed_name(&request.into_inner().name)?;
        let registry = self.registry_of(caller);
        let tokens = to_the_end(async move { registry.accounts().remove(name).await })
            .await?
            .map_err(refused)?;
        Ok(Response::new(proto::RemoveUserResponse { tokens }))
    }

    async fn create_token(
        &self,
        request: Request<proto::CreateTokenRequest>,
    ) -> Result<Response<proto::CreateTokenResponse>, Status> {
        let caller = caller_of(&request)?;
        let request = request.into_inner();
        let mine = own(&caller);
        let owner = if request.owner.is_empty() { mine.clone() } else { request.owner };
        let deed = || Deed::new(Verb::TokenCreate, About::Words(owner.as_str().into()));
        if !caller.administers() && owner != mine {
            caller.note_refusal(deed(), Reason::NotPermitted);
            return Err(not_permitted(&caller, "admin:*"));
        }
        may_make_logins(&caller, deed())?;
        check_name(&request.name).map_err(|error| malformed("name", error))?;
        let name = TokenName::parse(&request.name).map_err(|error| malformed("name", error))?;
        if request.scope.len() > SCOPE_MAX {
            return Err(Status::invalid_argument(format!(
                "a scope has {SCOPE_MAX} permissions at most"
            )));
        }
        let scope = PermissionSet::parse(&request.scope).map_err(|errors| {
            let told = errors.iter().map(|(place, error)| format!("scope {}: {error}", place + 1));
            Status::invalid_argument(told.collect::<Vec<_>>().join("; "))
        })?;
        let seconds =
            if request.valid_seconds == 0 { TOKEN_DEFAULT_SECS } else { request.valid_seconds };
        if !(MINUTE_SECS..=TOKEN_SECS_MAX).contains(&seconds) {
            return Err(Status::invalid_argument("a token lives from one minute to ten years"));
        }
        let account = self.owner_of(&owner).await?;
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|error| Status::internal(error.to_string()))?;
        let secret = ApiToken::generate(TokenKind::Personal, random);
        let now = self.api.guard.now();
        let record = AccessTokenRecord {
            is_workload: false,
            owner: owner.clone(),
            name: request.name,
            secret_hash: secret.secret_hash(),
            permissions: scope.texts().to_vec(),
            claims: Vec::new(),
            created_at: now,
            expires_at: now.plus_millis(seconds.saturating_mul(1_000)),
            last_used_at: Timestamp(0),
        };
        let owner = OwnerName::parse(&owner).map_err(|error| malformed("owner", error))?;
        let id = TokenId(secret.id);
        let token = NewToken {
            id,
            found_by: Some((owner, name)),
            account,
            record: record.clone(),
            assertion: None,
            policy: None,
        };
        let registry = self.registry_of(caller);
        to_the_end(async move { registry.tokens().create(token).await }).await?.map_err(refused)?;
        let token = Some(token_to_proto(id, record));
        Ok(Response::new(proto::CreateTokenResponse { secret: secret.reveal(), token }))
    }

    async fn list_tokens(
        &self,
        request: Request<proto::ListTokensRequest>,
    ) -> Result<Response<proto::ListTokensResponse>, Status> {
        let caller = caller_of(&request)?;
        let request = request.into_inner();
        let registry = &self.api.registry;
        let owner = match request.owner.as_str() {
            "" if caller.administers() => None,
            "" => Some(own(&caller)),
            owner => Some(owner.to_owned()),
        };
        if let Some(owner) = owner {
            let is_own = owner == own(&caller) && caller.is_in_person();
            if !is_own && !caller.administers() {
                return Err(not_permitted(&caller, "admin:*"));
            }
            let owner = OwnerName::parse(&owner).map_err(|error| malformed("owner", error))?;
            let tokens = registry.tokens().of(owner).await.map_err(refused)?;
            let tokens = tokens.into_iter().map(|(id, record)| token_to_proto(id, record));
            let tokens = tokens.collect();
            return Ok(Response::new(proto::ListTokensResponse { tokens, more: false }));
        }
        let after = match request.after.as_str() {
            "" => None,
            id => Some(TokenId(
                u128::from_str_radix(id, 16).map_err(|error| malformed("after", error))?,
            )),
        };
        let page =
            registry.tokens().list(after, page_rows(request.page_size)).await.map_err(refused)?;
        let tokens = page.items.into_iter().map(|(id, record)| token_to_proto(id, record));
        Ok(Response::new(proto::ListTokensResponse { tokens: tokens.collect(), more: page.more }))
    }

    async fn revoke_token(
        &self,
        request: Request<proto::RevokeTokenRequest>,
    ) -> Result<Response<proto::RevokeTokenResponse>, Status> {
        let caller = caller_of(&request)?;
        let named = self.token_named(&request.into_inner().token).await;
        let shown = caller.principal().token;
        let named = match named {
            // Others' tokens are as good as absent. A token may end itself.
            Ok((id, record))
                if !caller.administers()
                    && shown != Some(id)
                    && (record.owner != own(&caller) || !caller.is_in_person()) =>
            {
                let deed = Deed::new(Verb::TokenRevoke, About::Token(id));
                caller.note_refusal(deed, Reason::NotPermitted);
                Err(Status::not_found(NO_TOKEN))
            }
            named => named,
        };
        let (id, _) = named?;
        let registry = self.registry_of(caller);
        to_the_end(async move { registry.tokens().revoke(id).await }).await?.map_err(refused)?;
        Ok(Response::new(proto::RevokeTokenResponse {}))
    }

    async fn list_sessions(
        &self,
        request: Request<proto::ListSessionsRequest>,
    ) -> Result<Response<proto::ListSessionsResponse>, Status> {
        self.sessions(request).await.map(Response::new)
    }

    async fn revoke_sessions(
        &self,
        request: Request<proto::RevokeSessionsRequest>,
    ) -> Result<Response<proto::RevokeSessionsResponse>, Status> {
        self.end_sessions(request).await.map(Response::new)
    }

    async fn explain(
        &self,
        request: Request<proto::ExplainRequest>,
    ) -> Result<Response<proto::ExplainResponse>, Status> {
        let caller = caller_of(&request)?;
        let request = request.into_inner();
        let guard = &self.api.guard;
        let in_force = guard.policies().in_force();
        // Anyone may ask about themselves; an explanation of somebody else tells what the policy says of them.
        let is_about_caller = request.credential.is_empty() && request.subject.is_empty();
        if !is_about_caller && !caller.administers() {
            return Err(not_permitted(&caller, "admin:*"));
        }
        let credential = request.credential.trim();
        let is_ours = ApiToken::parse(credential).is_some();
        let action = Action::parse(&request.action).map_err(|error| malformed("action", error))?;
        let resource = resource_of(&request.resource)?;
        let what = match &resource {
            Some((format, path)) => Resource::Repository { format: *format, path: path.as_str() },
            None => Resource::Registry,
        };
        if !credential.is_empty() && !is_ours {
            let explanation = guard.explain_exchange(credential, action, &what).await;
            let explanation = explanation.map_err(|failure| match failure {
                ExchangeFailure::Registry(error) => refused(error),
                failure => Status::invalid_argument(failure.to_string()),
            })?;
            return Ok(Response::new(explained(explanation)));
        }
        let who = if is_ours {
            let secret = Secret::new(credential);
            let known = guard.principal_of_token(&secret).await.map_err(|why| match why {
                Rejected::Failed(error) => refused(error),
                Rejected::Wrong(why) => Status::not_found(why),
                Rejected::TooMany(_) => Status::resource_exhausted("too many failed logins"),
            })?;
            known.identity
        } else if request.subject.is_empty() {
            caller.identity().clone()
        } else {
            self.identity_of(&request.subject).await?
        };
        let mut answer = explained(in_force.policy().explain(&who, action, &what));
        if !caller.administers() {
            // Rules about others are others' business.
            answer.steps.retain(|step| !step.place.ends_with(".subject"));
        }
        if guard.is_open() {
            answer.allowed = true;
            answer.summary = format!(
                "allowed: this node asks nobody to log in (no [auth], and a loopback address); with [auth] it would be: {}",
                answer.summary
            );
        }
        Ok(Response::new(answer))
    }
}

impl Admin {
    async fn hashed(&self, password: Secret) -> Result<String, Status> {
        check_strength(password.expose()).map_err(|error| malformed("password", error))?;
        self.api.guard.hash_password(password).await.map_err(|why| match why {
            Unhashed::Busy => Status::resource_exhausted(why.to_string()),
            Unhashed::Failed(why) => Status::internal(why),
        })
    }

    /// Somebody as they would be if they logged in.
    async fn identity_of(&self, text: &str) -> Result<Who, Status> {
        let subject = subject(text)?;
        let mut who = Who::of(subject.clone());
        if let Some(name) = subject.account() {
            let name = account_name(name)?;
            let account = self.api.registry.accounts().get(name).await.map_err(refused)?;
            who.groups = account.map(|account| account.groups).unwrap_or_default();
        }
        Ok(who)
    }
}
