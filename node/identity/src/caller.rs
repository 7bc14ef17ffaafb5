//! Who makes a request, and the one question that is asked of the policy.
//!
//! Guarantees: whatever a request needs is asked here, of [`Caller::may`], whichever way it came in and whatever it showed;
//! nothing else in this program decides about permissions.

use std::net::IpAddr;
use std::sync::Arc;

use nora_app::ports::BoxFuture;
use nora_app::ports::metadata::MetadataError;
use nora_app::ports::policy::{self, Change, Judgement};
use nora_auth::identity::{Identity, Subject};
use nora_auth::permission::{Action, Resource};
use nora_domain::{Actor, Deed, Format, Reason, RepositoryKey, RepositoryPath, TagName, Verdict};

use super::Guard;
use super::callers::Who;
use super::listed::Listed;
use super::policies::InForce;
use super::principal::Principal;

/// By what it is decided what a caller may do.
#[derive(Clone, Debug)]
pub(super) enum JudgedBy {
    /// The policy in force.
    Policy,
    /// Nothing, as long as the node is open: it asks nobody to log in.
    OpenNode,
    /// Another member, which recognised this actor and let the request through.
    Member(Arc<Actor>),
}

/// Who makes a request.
#[derive(Clone)]
pub struct Caller {
    pub(super) guard: Arc<Guard>,
    pub(super) principal: Arc<Principal>,
    /// The identity epoch that they were recognised in, or an earlier one.
    pub(super) epoch: u64,
    pub(super) judged_by: JudgedBy,
    pub(super) address: Option<IpAddr>,
    pub(super) request: Arc<str>,
}

impl std::fmt::Debug for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut told = f.debug_struct("Caller");
        told.field("principal", &self.principal).field("judged_by", &self.judged_by).finish()
    }
}

impl Caller {
    fn in_force(&self) -> Arc<InForce> {
        self.guard.policies.in_force()
    }

    /// Whether the caller is still exempt from the policy. An open node may have got one since the request began, and that
    /// policy asks for what the caller did not show.
    fn is_still_exempt(&self) -> bool {
        match self.judged_by {
            JudgedBy::Policy => false,
            JudgedBy::OpenNode => self.guard.is_open(),
            JudgedBy::Member(_) => true,
        }
    }

    /// Whether they may do that: the one decision point.
    pub fn may(&self, action: Action, what: &Resource<'_>) -> bool {
        let in_force = self.in_force();
        self.is_still_exempt() || in_force.decisions.decide(&self.principal.identity, action, what)
    }

    /// Whether they may do that to a repository.
    pub fn may_in(&self, action: Action, repository: &RepositoryKey) -> bool {
        let (format, path) = (repository.format, repository.path.as_str());
        self.may(action, &Resource::Repository { format, path })
    }

    /// Whether lists show them a repository: what they may pull. A session is cut down to what its client asked for, which
    /// for lists are no names; what its holder may do counts.
    pub fn lists(&self, format: Format, path: &RepositoryPath) -> bool {
        let what = Resource::Repository { format, path: path.as_str() };
        // Not by way of the cache: a list asks about every repository there is, once.
        let in_force = self.in_force();
        let policy = in_force.policy();
        let mut who = self.principal.unscoped.iter().chain([&self.principal.identity]);
        self.is_still_exempt() || who.any(|who| policy.decide(who, Action::Pull, &what))
    }

    /// The repositories of a format that lists show them.
    pub fn listed(&self, format: Format) -> Listed<'_> {
        let in_force = self.in_force();
        let starts = match self.is_still_exempt() {
            true => vec![String::new()],
            // What a session was cut down to takes away, and adds no name.
            false => in_force.policy().starts(&self.principal.identity, Action::Pull, format),
        };
        Listed { caller: self, format, starts }
    }

    /// Whether they may administer the registry.
    pub fn administers(&self) -> bool {
        self.may(Action::Admin, &Resource::Registry)
    }

    /// Whether they could do that with another session: theirs is cut down to other things.
    pub fn could_with_another_session(&self, action: Action, what: &Resource<'_>) -> bool {
        let unscoped = self.principal.unscoped.as_ref();
        unscoped.is_some_and(|who| self.in_force().decisions.decide(who, action, what))
    }

    /// Who they are.
    pub fn identity(&self) -> &Identity {
        &self.principal.identity
    }

    /// Whether they showed a password or a certificate: no token, and nothing that is cut down. What a token makes could
    /// outlive it.
    pub fn is_in_person(&self) -> bool {
        let Identity { token, scope, grant, .. } = &self.principal.identity;
        token.is_none() && scope.is_none() && grant.is_none()
    }

    /// Whom the credential belongs to.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Whether they showed nothing, where something would tell more.
    pub fn is_anonymous(&self) -> bool {
        !self.is_exempt() && !self.principal.identity.is_authenticated()
    }

    /// Where they are, if it is known.
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// Whether this node asked nothing of them: it was open when the request began, or another member has judged it.
    pub fn is_exempt(&self) -> bool {
        !matches!(self.judged_by, JudgedBy::Policy)
    }

    /// The caller as the journal names it.
    pub fn actor(&self) -> Actor {
        if let JudgedBy::Member(actor) = &self.judged_by {
            return actor.as_ref().clone();
        }
        let identity = &self.principal.identity;
        let address = self.address.map(|address| address.to_string()).unwrap_or_default();
        Actor {
            subject: match self.is_exempt() && !identity.is_authenticated() {
                true => Subject::Anyone,
                false => identity.subject.clone(),
            },
            token: identity.token.as_deref().map(Into::into),
            address,
            request: self.request.to_string(),
        }
    }

    /// Notes what came of a change that is no command of its own.
    pub fn note(&self, deed: Deed, verdict: Verdict) {
        self.guard.notes.noted(self.actor(), deed, verdict);
    }

    /// Notes that the caller was refused a change.
    pub fn note_refusal(&self, deed: Deed, why: Reason) {
        self.guard.notes.refused(self.actor(), deed, why);
    }
}

/// A caller whose operation was already authorised: it is finished even if their rights change meanwhile.
pub struct AlreadyAuthorised {
    /// Who that is.
    pub actor: Actor,
}

impl policy::Caller for AlreadyAuthorised {
    fn actor(&self) -> Actor {
        self.actor.clone()
    }

    fn counted_as(&self) -> String {
        self.actor.subject.to_string()
    }

    fn judge(&self, _: Change, _: &RepositoryKey, _: &[TagName]) -> Judgement {
        Judgement { is_permitted: true, ..Judgement::default() }
    }

    fn still_stands(&self) -> BoxFuture<'_, Result<bool, nora_app::Error>> {
        Box::pin(std::future::ready(Ok(true)))
    }

    fn note_refusal(&self, _: Deed, _: Reason) {}

    fn refresh(&self) -> BoxFuture<'_, Result<(), MetadataError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

impl policy::Caller for Caller {
    fn actor(&self) -> Actor {
        Self::actor(self)
    }

    fn counted_as(&self) -> String {
        Who::holds(self).to_string()
    }

    fn judge(&self, change: Change, repository: &RepositoryKey, tags: &[TagName]) -> Judgement {
        let in_force = self.in_force();
        let (format, path) = (repository.format, repository.path.as_str());
        // All of it by one policy, whose number the command then carries. It is read first: should another come now, that
        // one is what the command fails by.
        let is_exempt = self.is_still_exempt();
        let may = |action| {
            let what = Resource::Repository { format, path };
            is_exempt || in_force.decisions.decide(&self.principal.identity, action, &what)
        };
        let is_permitted = match change {
            Change::Pull => may(Action::Pull),
            Change::Push => may(Action::Push),
            Change::Delete => may(Action::Delete),
        };
        let policy = in_force.policy();
        let mut create_only = Vec::new();
        if !tags.is_empty() && !may(Action::Overwrite) {
            create_only.extend_from_slice(tags);
            create_only.sort_unstable();
        }
        let has_immutable = policy.has_immutable(format, path);
        let mut immutable = Vec::new();
        if has_immutable {
            let kept = tags.iter().filter(|tag| policy.is_immutable(format, path, tag.as_str()));
            immutable.extend(kept.cloned());
            immutable.sort_unstable();
        }
        let owner = Some(policy.tenant_of(format, path).clone());
        let policy = Some(in_force.epoch);
        Judgement { policy, owner, create_only, immutable, has_immutable, is_permitted }
    }

    fn note_refusal(&self, deed: Deed, why: Reason) {
        Self::note_refusal(self, deed, why);
    }

    fn still_stands(&self) -> BoxFuture<'_, Result<bool, nora_app::Error>> {
        Box::pin(async {
            if self.is_still_exempt() {
                return Ok(true);
            }
            self.guard.still_stands(&self.principal, self.epoch).await
        })
    }

    fn refresh(&self) -> BoxFuture<'_, Result<(), MetadataError>> {
        Box::pin(async {
            if let Err(error) = self.guard.reload().await {
                tracing::warn!(%error, "the policy in force could not be read again");
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use nora_auth::credential::{Credential, Secret};

    use super::*;
    use crate::testkit::{MemoryNode, PASSWORD};

    async fn counted(node: &MemoryNode, shown: Credential, address: &str) -> String {
        let address = Some(address.parse().unwrap());
        let caller = node.guard.recognise(shown, address, "request".into()).await.unwrap();
        policy::Caller::counted_as(&caller)
    }

    #[tokio::test]
    async fn places_are_counted_by_login_or_else_by_address() {
        let open = MemoryNode::without_policy(true).await;
        let closed = MemoryNode::without_policy(false).await;
        closed.apply("[auth]\nanonymous = [\"push:public/*\"]\n").await;
        closed.users(&["alice", "bob"]).await;
        let login = |name: &str| Credential::of_login(name.to_owned(), Secret::new(PASSWORD));
        assert_eq!(counted(&closed, login("alice"), "192.0.2.1").await, "user:alice");
        assert_eq!(counted(&closed, login("alice"), "192.0.2.2").await, "user:alice");
        assert_eq!(counted(&closed, login("bob"), "192.0.2.1").await, "user:bob");
        for node in [&open, &closed] {
            let by_address = async |address| counted(node, Credential::None, address).await;
            let first = by_address("192.0.2.1").await;
            assert_ne!(first, by_address("192.0.2.2").await);
            let network = by_address("2001:db8::1").await;
            assert_eq!(network, by_address("2001:db8::2").await, "a customer has a whole network");
            assert_ne!(network, by_address("2001:db8:0:1::1").await);
        }
    }
}
