//! Users, robots, tokens and sessions, and why something is allowed or refused.

use std::fmt;
use std::time::Duration;

use nora_proto::v1 as proto;
use nora_proto::v1::identity_client::IdentityClient;
use serde::Serialize;

use super::{AdminClient, AdminError, Page, all_pages, unless_zero};
use crate::config::Secret;

/// Who the caller is to the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Caller {
    /// As `user:alice`, `robot:ci`, `admin`, `anonymous`.
    pub subject: String,
    /// Its groups.
    pub groups: Vec<String>,
    /// The name of the token that was shown, if one was.
    pub token: Option<String>,
    /// What that token is cut down to; empty if to nothing.
    pub scope: Vec<String>,
}

/// An account: a user or a robot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// It is a program's: it has tokens and no password.
    pub robot: bool,
    /// Its groups.
    pub groups: Vec<String>,
    /// When it was made, in milliseconds of Unix time; none if nobody knows.
    pub created_at: Option<u64>,
    /// It is a line of the htpasswd file, and changed there.
    pub from_htpasswd: bool,
}

/// An account to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewAccount {
    /// Its name.
    pub name: String,
    /// The groups it shall be in.
    pub groups: Vec<String>,
    /// Its password; without one it is a robot's, which logs in with tokens alone.
    pub password: Option<Secret>,
}

/// A token to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewToken {
    /// Whose, as `user:alice`; without it, the caller's own.
    pub owner: Option<String>,
    /// What people call it: unique among its owner's.
    pub name: String,
    /// What it is cut down to, as `pull:frontend/*`; empty for everything that its owner may do.
    pub scope: Vec<String>,
    /// How long it is good for; without it, as long as the server gives by itself. Whole seconds count.
    pub valid: Option<Duration>,
}

/// A token, without its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TokenInfo {
    /// 32 hexadecimal digits.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Whose it is.
    pub owner: String,
    /// What it is cut down to; empty if to nothing.
    pub scope: Vec<String>,
    /// When it was made, in milliseconds of Unix time.
    pub created_at: u64,
    /// When it ends.
    pub expires_at: u64,
    /// When it was last shown, to within a minute or so; none if never.
    pub last_used_at: Option<u64>,
    /// It was exchanged for an issuer's ID token.
    pub workload: bool,
}

/// A token that was just made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedToken {
    /// Its text, which the server does not keep: whoever loses it makes another one.
    pub secret: Secret,
    /// The rest.
    pub token: TokenInfo,
}

/// A login with a password whose client keeps a refresh token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SessionInfo {
    /// Its owner and 32 hexadecimal digits, as `user:alice/0f…`.
    pub id: String,
    /// Whose it is.
    pub owner: String,
    /// When it was made, in milliseconds of Unix time.
    pub created_at: u64,
    /// When it ends.
    pub expires_at: u64,
    /// Where it was made from; none if nobody knows.
    pub address: Option<String>,
}

/// Whom a question is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// Whoever asks.
    Caller,
    /// A subject, as `user:alice`.
    Subject(String),
    /// Whoever shows this: an API token, or an issuer's ID token, whose claims are then explained.
    Credential(Secret),
}

/// Why something is allowed or refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Whether it is allowed.
    pub allowed: bool,
    /// The answer in a sentence.
    pub summary: String,
    /// Everything that was looked at.
    pub steps: Vec<ExplanationStep>,
}

/// Something of the policy that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExplanationStep {
    /// Where it stands, as `auth.rules[2].permissions[0]`.
    pub place: String,
    /// What stands there.
    pub text: String,
    /// `allows`, `denies`, `cuts down` or `does not match`.
    pub effect: String,
    /// Why.
    pub why: String,
}

impl Explanation {
    /// The step that decided: what denied it before what cut it down, or what allowed it. None if nothing spoke of it,
    /// which is a refusal too.
    pub fn deciding(&self) -> Option<&ExplanationStep> {
        let first = |effect: &str| self.steps.iter().find(|step| step.effect == effect);
        if self.allowed { first("allows") } else { first("denies").or_else(|| first("cuts down")) }
    }
}

impl fmt::Display for ExplanationStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {:?} {}", self.place, self.text, self.effect)?;
        if self.why.is_empty() { Ok(()) } else { write!(f, ": {}", self.why) }
    }
}

impl From<proto::User> for Account {
    fn from(user: proto::User) -> Self {
        Self {
            name: user.name,
            robot: user.robot,
            groups: user.groups,
            created_at: unless_zero(user.created_at),
            from_htpasswd: user.from_htpasswd,
        }
    }
}

impl From<proto::Token> for TokenInfo {
    fn from(token: proto::Token) -> Self {
        Self {
            id: token.id,
            name: token.name,
            owner: token.owner,
            scope: token.scope,
            created_at: token.created_at,
            expires_at: token.expires_at,
            last_used_at: unless_zero(token.last_used_at),
            workload: token.workload,
        }
    }
}

impl From<proto::Session> for SessionInfo {
    fn from(session: proto::Session) -> Self {
        Self {
            id: session.id,
            owner: session.owner,
            created_at: session.created_at,
            expires_at: session.expires_at,
            address: Some(session.address).filter(|address| !address.is_empty()),
        }
    }
}

impl From<proto::ExplainStep> for ExplanationStep {
    fn from(step: proto::ExplainStep) -> Self {
        Self { place: step.place, text: step.text, effect: step.effect, why: step.why }
    }
}

impl AdminClient {
    /// Who the caller is to the server.
    pub async fn who_am_i(&self) -> Result<Caller, AdminError> {
        let told = self.call(proto::WhoAmIRequest {}, async |channel, request| {
            IdentityClient::new(channel).who_am_i(request).await
        });
        let proto::WhoAmIResponse { subject, groups, token, scope } = told.await?;
        Ok(Caller { subject, groups, token: Some(token).filter(|name| !name.is_empty()), scope })
    }

    /// A page of the accounts after a name, in order of names; `page_size` 0 is as many as the server gives at once.
    pub async fn users_page(
        &self,
        after: &str,
        page_size: u32,
    ) -> Result<Page<Account>, AdminError> {
        let request = proto::ListUsersRequest { after: after.to_owned(), page_size };
        let listed = self.call(request, async |channel, request| {
            IdentityClient::new(channel).list_users(request).await
        });
        let proto::ListUsersResponse { users, more } = listed.await?;
        Ok(Page { items: users.into_iter().map(Account::from).collect(), more })
    }

    /// All accounts.
    pub async fn users(&self) -> Result<Vec<Account>, AdminError> {
        let place = |account: &Account| account.name.clone();
        all_pages(place, async |after| self.users_page(after, 0).await).await
    }

    /// Makes an account.
    pub async fn add_user(&self, account: &NewAccount) -> Result<(), AdminError> {
        let request = proto::AddUserRequest {
            name: account.name.clone(),
            robot: account.password.is_none(),
            groups: account.groups.clone(),
            password: exposed(account.password.as_ref()),
        };
        let added = self.call(request, async |channel, request| {
            IdentityClient::new(channel).add_user(request).await
        });
        added.await.map(drop)
    }

    /// Gives an account another password; every session of the old one ends.
    pub async fn set_password(&self, name: &str, password: &Secret) -> Result<(), AdminError> {
        let request = proto::SetPasswordRequest {
            name: name.to_owned(),
            password: password.expose().to_owned(),
        };
        let set = self.call(request, async |channel, request| {
            IdentityClient::new(channel).set_password(request).await
        });
        set.await.map(drop)
    }

    /// Removes an account, and tells how many tokens ended with it.
    pub async fn remove_user(&self, name: &str) -> Result<u32, AdminError> {
        let request = proto::RemoveUserRequest { name: name.to_owned() };
        let removed = self.call(request, async |channel, request| {
            IdentityClient::new(channel).remove_user(request).await
        });
        Ok(removed.await?.tokens)
    }

    /// Makes a token. If the answer is lost and the call repeated, the second one is refused because of the first one's
    /// token, whose text nobody knows: revoke it and ask again.
    pub async fn create_token(&self, token: &NewToken) -> Result<CreatedToken, AdminError> {
        // Less than a second is no wish for the server's own choice, which 0 would be.
        let seconds = |valid: Duration| valid.as_secs().max(1);
        let request = proto::CreateTokenRequest {
            owner: token.owner.clone().unwrap_or_default(),
            name: token.name.clone(),
            scope: token.scope.clone(),
            valid_seconds: token.valid.map_or(0, seconds),
        };
        let made = self.call(request, async |channel, request| {
            IdentityClient::new(channel).create_token(request).await
        });
        match made.await? {
            proto::CreateTokenResponse { secret, token: Some(token) } if !secret.is_empty() => {
                Ok(CreatedToken { secret: Secret::new(secret), token: token.into() })
            }
            _ => Err(AdminError::Malformed { expected: "token" }),
        }
    }

    /// A page of tokens after an id: the caller's own, or everybody's for an administrator; `owner` leaves only
    /// that one's.
    pub async fn tokens_page(
        &self,
        after: &str,
        page_size: u32,
        owner: Option<&str>,
    ) -> Result<Page<TokenInfo>, AdminError> {
        let owner = owner.unwrap_or_default().to_owned();
        let request = proto::ListTokensRequest { after: after.to_owned(), page_size, owner };
        let listed = self.call(request, async |channel, request| {
            IdentityClient::new(channel).list_tokens(request).await
        });
        let proto::ListTokensResponse { tokens, more } = listed.await?;
        Ok(Page { items: tokens.into_iter().map(TokenInfo::from).collect(), more })
    }

    /// All tokens that the caller may see, or those of one owner among them.
    pub async fn tokens(&self, owner: Option<&str>) -> Result<Vec<TokenInfo>, AdminError> {
        let place = |token: &TokenInfo| token.id.clone();
        all_pages(place, async |after| self.tokens_page(after, 0, owner).await).await
    }

    /// Ends a token on every node: its id, or owner and name as `user:alice/laptop`.
    pub async fn revoke_token(&self, token: &str) -> Result<(), AdminError> {
        let request = proto::RevokeTokenRequest { token: token.to_owned() };
        let revoked = self.call(request, async |channel, request| {
            IdentityClient::new(channel).revoke_token(request).await
        });
        revoked.await.map(drop)
    }

    /// A page of sessions after an id: the caller's own, or everybody's for an administrator; `owner` leaves only that
    /// one's.
    pub async fn sessions_page(
        &self,
        after: &str,
        page_size: u32,
        owner: Option<&str>,
    ) -> Result<Page<SessionInfo>, AdminError> {
        let owner = owner.unwrap_or_default().to_owned();
        let request = proto::ListSessionsRequest { after: after.to_owned(), page_size, owner };
        let listed = self.call(request, async |channel, request| {
            IdentityClient::new(channel).list_sessions(request).await
        });
        let proto::ListSessionsResponse { sessions, more } = listed.await?;
        Ok(Page { items: sessions.into_iter().map(SessionInfo::from).collect(), more })
    }

    /// All sessions that the caller may see, or those of one owner among them.
    pub async fn sessions(&self, owner: Option<&str>) -> Result<Vec<SessionInfo>, AdminError> {
        let place = |session: &SessionInfo| session.id.clone();
        all_pages(place, async |after| self.sessions_page(after, 0, owner).await).await
    }

    /// Ends a session on every node: its id, or an owner as `user:alice` for all of its. Tells how many have ended.
    pub async fn revoke_sessions(&self, session: &str) -> Result<u32, AdminError> {
        let request = proto::RevokeSessionsRequest { session: session.to_owned() };
        let revoked = self.call(request, async |channel, request| {
            IdentityClient::new(channel).revoke_sessions(request).await
        });
        Ok(revoked.await?.sessions)
    }

    /// Why an action is allowed or refused; an empty resource is the registry itself.
    pub async fn explain(
        &self,
        about: &About,
        action: &str,
        resource: &str,
    ) -> Result<Explanation, AdminError> {
        let (subject, credential) = match about {
            About::Caller => (String::new(), String::new()),
            About::Subject(subject) => (subject.clone(), String::new()),
            About::Credential(credential) => (String::new(), credential.expose().to_owned()),
        };
        let (action, resource) = (action.to_owned(), resource.to_owned());
        let request = proto::ExplainRequest { subject, credential, action, resource };
        let explained = self.call(request, async |channel, request| {
            IdentityClient::new(channel).explain(request).await
        });
        let proto::ExplainResponse { allowed, summary, steps } = explained.await?;
        let steps = steps.into_iter().map(ExplanationStep::from).collect();
        Ok(Explanation { allowed, summary, steps })
    }
}

fn exposed(secret: Option<&Secret>) -> String {
    secret.map(|secret| secret.expose().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_decides_is_a_denial_before_a_cut_and_an_allowance_only_if_allowed() {
        let step = |effect: &str| ExplanationStep {
            place: effect.into(),
            text: "push:a/*".into(),
            effect: effect.into(),
            why: String::new(),
        };
        let all = ["does not match", "allows", "cuts down", "denies"];
        for (allowed, effects, decides) in [
            (true, &all[..2], Some("allows")),
            (false, &all[..], Some("denies")),
            (false, &all[..3], Some("cuts down")),
            (false, &all[..1], None),
            (false, &[][..], None),
        ] {
            let steps = effects.iter().map(|effect| step(effect)).collect();
            let explanation = Explanation { allowed, summary: String::new(), steps };
            let place = explanation.deciding().map(|step| step.place.as_str());
            assert_eq!(place, decides, "{allowed} {effects:?}");
        }
        assert_eq!(step("allows").to_string(), "allows = \"push:a/*\" allows");
    }
}
