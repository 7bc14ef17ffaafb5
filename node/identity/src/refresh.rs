//! Refresh tokens: what a client keeps after a login with a password, to get sessions without the password.
//!
//! Each has a row in the replicated state: that it was given is one write, that it is used is none. An API token is kept as
//! it is and lives as long as it says, so whoever shows one gets no refresh token.
//!
//! Guarantees: a refresh token and the sessions that were got with it count as long as its row is there, and the login that
//! it came from; whoever shows one may end it. Must not know: what a session opens.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nora_app::Error;
use nora_auth::session::{SessionError, Use};
use nora_domain::{OwnerName, Timestamp, TokenId};

use super::Guard;
use super::caller::Caller;
use super::pace::Pace;
use super::principal::Principal;
use super::recognise::{Rejected, TOKEN, wrong};
use super::sessions::{REFRESH_SECS, no_random};

/// Refresh tokens that a node gives one subject within an hour. A client that gets none keeps the password, so this bounds
/// the writes of somebody who only pulls, and lets nobody push an owner's older ones out within hours.
const REFRESHES_AN_HOUR: u32 = 20;

/// Counts the refresh tokens that each subject is given.
pub(super) fn refreshes() -> Pace {
    Pace::new(REFRESHES_AN_HOUR, Duration::from_secs(3_600))
}

/// A token's id as tokens name it.
pub(super) fn hex(token: TokenId) -> String {
    format!("{:032x}", token.0)
}

/// The token that such an id names.
pub(super) fn token_named(id: &str) -> Option<TokenId> {
    u128::from_str_radix(id, 16).ok().map(TokenId)
}

impl Guard {
    /// Makes a refresh token for a caller who logged in with a password. None for anybody else, and none if it cannot be
    /// written now: the session is as good without it.
    pub(super) async fn refresh_token_for(
        &self,
        caller: &Caller,
    ) -> Result<Option<TokenId>, Rejected> {
        let principal = caller.principal();
        // A session makes no more of itself than it is: its scope would be forgotten.
        let is_login =
            caller.is_in_person() && principal.unscoped.is_none() && principal.refresh.is_none();
        let subject = principal.identity.subject.to_string();
        let Ok(owner) = OwnerName::parse(&subject) else { return Ok(None) };
        if !is_login
            || !principal.identity.is_authenticated()
            || self.refreshes.take(&subject).is_err()
        {
            return Ok(None);
        }
        let address = caller.address().map(|address| address.to_string()).unwrap_or_default();
        let registry = self.registry.by(Arc::new(caller.clone()));
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| no_random("a refresh token", &error))?;
        let token = TokenId(u128::from_be_bytes(random));
        let (generation, lives) = (principal.generation, REFRESH_SECS * 1_000);
        match registry.refresh_tokens().create(token, owner, generation, lives, address).await {
            Ok(()) => Ok(Some(token)),
            Err(Error::NotPermitted) => wrong(TOKEN),
            Err(error @ (Error::Unavailable { .. } | Error::OutcomeUnknown)) => {
                tracing::warn!(%error, subject, "a session was given without a refresh token");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The caller that a refresh token was given to, if what it came from is still good.
    pub async fn refreshed(
        self: &Arc<Self>,
        refresh: &str,
        like: &Caller,
    ) -> Result<Caller, Rejected> {
        let claims = self.verified_session(refresh, Use::Refresh).await?;
        if claims.refresh.is_none() {
            return wrong(TOKEN);
        }
        let epoch = self.epoch.load(Ordering::Acquire);
        let base = match self.session_base(&claims).await {
            // The account or the token may have been made on another node a moment ago.
            Err(Rejected::Wrong(_)) if self.has_caught_up(epoch).await? => {
                self.session_base(&claims).await?
            }
            base => base?,
        };
        Ok(Caller { principal: Arc::new(base), ..like.clone() })
    }

    /// Ends a refresh token that is shown, whoever shows it. False for a session, which ends by itself or with what it came
    /// from; true for what has ended already, or was never ours.
    pub(super) async fn revoke_refresh_token(
        &self,
        caller: &Caller,
        text: &str,
    ) -> Result<bool, Error> {
        let claims = match self.claims_of(text, Use::Refresh).await? {
            Ok(claims) => claims,
            Err(SessionError::Use) => return Ok(false),
            Err(_) => return Ok(true),
        };
        let named = claims.refresh.as_deref().and_then(token_named);
        let (Ok(owner), Some(token)) = (OwnerName::parse(&claims.sub), named) else {
            return Ok(true);
        };
        if self.registry.refresh_tokens().get(owner.clone(), token).await?.is_none() {
            return Ok(true);
        }
        let registry = self.registry.by(Arc::new(caller.clone()));
        match registry.refresh_tokens().revoke(owner, Some(token)).await {
            Ok(_) | Err(Error::NotFound { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// A login whose session a refresh token keeps up, if the token is there and has not expired.
    pub(super) async fn kept_up_by(
        &self,
        login: Principal,
        token: TokenId,
    ) -> Result<Principal, Rejected> {
        let Some(expires_at) = self.refresh_token_of(&login, token).await? else {
            return wrong(TOKEN);
        };
        if expires_at <= self.clock.now() {
            return wrong(TOKEN);
        }
        let expires_at = login.expires_at.min(expires_at.0);
        Ok(Principal { refresh: Some(token), expires_at, ..login })
    }

    /// When somebody's refresh token ends; none if there is no such one.
    pub(super) async fn refresh_token_of(
        &self,
        principal: &Principal,
        token: TokenId,
    ) -> Result<Option<Timestamp>, Error> {
        let Ok(owner) = OwnerName::parse(&principal.identity.subject.to_string()) else {
            return Ok(None);
        };
        let record = self.registry.refresh_tokens().get(owner, token).await?;
        let record = record.filter(|record| record.generation == principal.generation);
        Ok(record.map(|record| record.expires_at))
    }
}

#[cfg(test)]
mod tests {
    use nora_app::testkit::Failure;
    use nora_auth::credential::{Credential, Secret};
    use nora_auth::session::parse_scope;
    use nora_domain::{Action, Command, Event, Key, RevokeRefreshTokens, Terms};

    use super::*;
    use crate::sessions::{Session, SessionRequest};
    use crate::testkit::{MemoryNode, NOW, PASSWORD};

    const POLICY: &str = r#"
[auth]
[[auth.rules]]
subject = "alice"
permissions = ["pull:team/*"]
"#;

    async fn node() -> MemoryNode {
        let node = MemoryNode::without_policy(false).await;
        node.apply(POLICY).await;
        node.users(&["alice"]).await;
        node
    }

    async fn recognised(node: &MemoryNode, shown: Credential) -> Result<Caller, Rejected> {
        node.guard.recognise(shown, None, "request".into()).await
    }

    async fn alice(node: &MemoryNode) -> Caller {
        let shown = Credential::of_login("alice".to_owned(), Secret::new(PASSWORD));
        recognised(node, shown).await.unwrap()
    }

    async fn session(node: &MemoryNode, caller: &Caller, wants_refresh: bool) -> Session {
        let scopes = parse_scope("repository:team/app:pull").unwrap();
        let request = SessionRequest { scopes, wants_refresh };
        node.guard.session_for(caller, &request).await.unwrap()
    }

    /// Whether a session opens anything.
    async fn opens(node: &MemoryNode, session: &Session) -> bool {
        let shown = Credential::Bearer(Secret::new(&session.access));
        recognised(node, shown).await.is_ok()
    }

    fn rows(node: &MemoryNode) -> usize {
        let keys = node.metadata.keys();
        keys.iter().filter(|key| matches!(key, Key::RefreshToken(..))).count()
    }

    fn owner() -> OwnerName {
        OwnerName::parse("user:alice").unwrap()
    }

    #[tokio::test]
    async fn to_use_a_refresh_token_costs_no_write() {
        let node = node().await;
        let caller = alice(&node).await;
        let before = node.metadata.counts().proposals;
        let first = session(&node, &caller, true).await;
        assert_eq!(node.metadata.counts().proposals, before + 1);
        let refresh = first.refresh.unwrap();
        for _ in 0..5 {
            let again = node.guard.refreshed(&refresh, &caller).await.unwrap();
            let next = session(&node, &again, false).await;
            assert!(next.refresh.is_none() && opens(&node, &next).await);
            // It keeps up no other than itself.
            assert!(session(&node, &again, true).await.refresh.is_none());
        }
        session(&node, &caller, false).await;
        assert_eq!((node.metadata.counts().proposals, rows(&node)), (before + 1, 1));
    }

    #[tokio::test]
    async fn what_another_node_ended_is_refused_once_this_one_knows() {
        let node = node().await;
        let caller = alice(&node).await;
        let (gone, kept) =
            (session(&node, &caller, true).await, session(&node, &caller, true).await);
        let (refresh, others) = (gone.refresh.clone().unwrap(), kept.refresh.clone().unwrap());
        let renewed = node.guard.refreshed(&refresh, &caller).await.unwrap();
        let renewed = session(&node, &renewed, false).await;
        // It is known who these are of, and need not be looked up.
        assert!(opens(&node, &gone).await && opens(&node, &renewed).await);
        let begun = recognised(&node, Credential::Bearer(Secret::new(&gone.access))).await.unwrap();
        let named = node.guard.claims_of(&refresh, Use::Refresh).await.unwrap().unwrap().refresh;
        let token = named.as_deref().and_then(token_named);
        let revoke = RevokeRefreshTokens { owner: owner(), token };
        let action = Action::RevokeRefreshTokens(revoke);
        let command = Command { at: NOW, origin: None, terms: Terms::NONE, action };
        node.metadata.propose_elsewhere(&command).unwrap();
        node.registry.catch_up().await.unwrap();
        node.guard.reload().await.unwrap();
        assert!(!opens(&node, &gone).await && !opens(&node, &renewed).await);
        let refused = node.guard.refreshed(&refresh, &caller).await;
        assert!(matches!(refused, Err(Rejected::Wrong(_))), "{refused:?}");
        let stands = nora_app::ports::policy::Caller::still_stands(&begun).await.unwrap();
        assert!(!stands, "what it began is not finished");
        assert!(
            opens(&node, &kept).await && opens(&node, &session(&node, &caller, false).await).await
        );
        assert!(node.guard.refreshed(&others, &caller).await.is_ok());
    }

    #[tokio::test]
    async fn a_refresh_token_ends_with_its_time() {
        let node = node().await;
        let caller = alice(&node).await;
        let refresh = session(&node, &caller, true).await.refresh.unwrap();
        node.clock.advance(REFRESH_SECS * 1_000 - 60_000);
        node.guard.make_keys().await.unwrap();
        let last = node.guard.refreshed(&refresh, &caller).await.unwrap();
        let last = session(&node, &last, false).await;
        assert_eq!(last.expires_in_secs, 60, "no session outlives it");
        node.clock.advance(60_000);
        assert!(node.guard.refreshed(&refresh, &caller).await.is_err());
    }

    #[tokio::test]
    async fn only_a_password_gets_a_refresh_token() {
        let node = node().await;
        let token = node.token("alice", "laptop", &[]).await;
        let by_token = recognised(&node, Credential::Bearer(Secret::new(&token))).await.unwrap();
        assert!(session(&node, &by_token, true).await.refresh.is_none());
        let of_password = session(&node, &alice(&node).await, false).await;
        let shown = Credential::Bearer(Secret::new(&of_password.access));
        let by_session = recognised(&node, shown).await.unwrap();
        assert!(session(&node, &by_session, true).await.refresh.is_none());
        let nobody = recognised(&node, Credential::None).await.unwrap();
        assert!(session(&node, &nobody, true).await.refresh.is_none());
        assert_eq!(rows(&node), 0);
    }

    #[tokio::test]
    async fn a_session_comes_without_a_refresh_token_where_none_can_be_written() {
        let node = node().await;
        let caller = alice(&node).await;
        for failure in [Failure::NoLeader, Failure::Busy, Failure::Lost] {
            node.metadata.fail_next(failure);
            let made = session(&node, &caller, true).await;
            assert!(made.refresh.is_none() && opens(&node, &made).await, "{failure:?}");
        }
        // Who asks for ever more gets some an hour.
        let mut given = 0;
        for _ in 0..2 * REFRESHES_AN_HOUR {
            given += u32::from(session(&node, &caller, true).await.refresh.is_some());
        }
        assert_eq!(given, REFRESHES_AN_HOUR - 3);
    }

    #[tokio::test]
    async fn who_lost_the_password_gets_no_refresh_token() {
        let node = node().await;
        let caller = alice(&node).await;
        let name = nora_domain::AccountName::parse("alice").unwrap();
        node.registry.accounts().set_password(name, "another".to_owned()).await.unwrap();
        let request = SessionRequest { scopes: Vec::new(), wants_refresh: true };
        let refused = node.guard.session_for(&caller, &request).await;
        assert!(matches!(refused, Err(Rejected::Wrong(_))));
        assert_eq!(rows(&node), 0);
    }

    #[tokio::test]
    async fn whoever_shows_one_ends_it_and_that_is_noted() {
        let node = node().await;
        let caller = alice(&node).await;
        let made = session(&node, &caller, true).await;
        let refresh = made.refresh.clone().unwrap();
        let nobody = recognised(&node, Credential::None).await.unwrap();
        let shows = async |text: &str| node.guard.revoke_shown(&nobody, text).await.unwrap();
        assert!(!shows(&made.access).await, "a session is not ended alone");
        assert!(shows("nora_st_nothing").await && shows(&refresh[..refresh.len() - 4]).await);
        assert_eq!(rows(&node), 1);
        assert!(shows(&refresh).await);
        assert_eq!(rows(&node), 0);
        let entries = node.metadata.counts().proposals;
        assert!(shows(&refresh).await, "what has ended has ended");
        assert_eq!(node.metadata.counts().proposals, entries, "and costs no write");
        let entries = node.registry.journal().entries(0, 1_000).await.unwrap().items;
        let told = entries.iter().filter_map(|(_, entry)| {
            let (deed, who) = (entry.deed.as_ref()?, entry.by.as_ref()?.name());
            Some((format!("{who} {} {}", deed.verb, deed.about), &entry.events))
        });
        let sessions: Vec<_> = told.filter(|(told, _)| told.contains("session.")).collect();
        let one = sessions[0].0.strip_prefix("user:alice session.create user:alice/").unwrap();
        let ended = format!("anonymous session.revoke user:alice/{one}");
        assert_eq!(sessions[1].0, ended);
        assert_eq!(sessions[1].1, &[Event::IdentityChanged]);
        assert_eq!(sessions.len(), 2);
    }
}
