//! Who makes a request, and the one question that is asked of the policy.
//!
//! Guarantees: whatever a request needs is asked here, of [`Caller::may`], whichever way it came in and whatever it showed;
//! nothing else in this program decides about permissions.

use std::net::IpAddr;
use std::sync::Arc;

use nora_app::ports::BoxFuture;
use nora_app::ports::metadata::MetadataError;
use nora_app::ports::policy::{Caller as Judge, Change, Judgement};
use nora_app::repositories::Shown;
use nora_auth::identity::{Identity, Subject};
use nora_auth::permission::{Action, Resource};
use nora_domain::{
    Actor, Deed, Format, Reason, RepositoryKey, RepositoryPath, TagName, TokenId, Verdict,
};

use super::Guard;
use super::policies::InForce;

/// Who was recognised by a credential: what is kept of it between requests.
#[derive(Debug)]
pub struct Known {
    /// Who, and with what.
    pub identity: Identity,
    /// The same without what a session was cut down to: whether asking for another session would help.
    pub uncut: Option<Identity>,
    /// The API token that was shown, or that a session came from.
    pub token: Option<TokenId>,
    /// The refresh token that keeps the session up, if one does.
    pub refresh: Option<TokenId>,
    /// The account's generation, for sessions that are made.
    pub generation: u64,
    /// When it ends, in milliseconds since the Unix epoch.
    pub expires_at: u64,
}

impl Known {
    /// Whoever showed nothing.
    pub fn anonymous() -> Self {
        Self {
            identity: Identity::anonymous(),
            uncut: None,
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

/// Who makes a request.
#[derive(Clone)]
pub struct Caller {
    pub(super) guard: Arc<Guard>,
    pub(super) known: Arc<Known>,
    /// The identity epoch that they were recognised in, or an earlier one.
    pub(super) epoch: u64,
    /// The node is open, or a member has let the request through: everything may be done.
    pub(super) is_open: bool,
    /// On whose behalf a member asks.
    pub(super) behalf: Option<Arc<Actor>>,
    pub(super) address: Option<IpAddr>,
    pub(super) request: Arc<str>,
}

impl std::fmt::Debug for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caller").field("known", &self.known).field("open", &self.is_open).finish()
    }
}

impl Caller {
    fn in_force(&self) -> Arc<InForce> {
        self.guard.policies.in_force()
    }

    /// Whether they are asked for nothing still: a policy that has come meanwhile asks for what they did not show.
    fn is_free(&self) -> bool {
        self.is_open && (self.behalf.is_some() || self.guard.is_open())
    }

    /// Whether they may do that: the one decision point.
    pub fn may(&self, action: Action, what: &Resource<'_>) -> bool {
        let in_force = self.in_force();
        self.is_free() || in_force.decisions.decide(&self.known.identity, action, what)
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
        let mut who = self.known.uncut.iter().chain([&self.known.identity]);
        self.is_free() || who.any(|who| policy.decide(who, Action::Pull, &what))
    }

    /// The repositories of a format that lists show them.
    pub fn listed(&self, format: Format) -> Listed<'_> {
        let in_force = self.in_force();
        let starts = match self.is_free() {
            true => vec![String::new()],
            // What a session was cut down to takes away, and adds no name.
            false => in_force.policy().starts(&self.known.identity, Action::Pull, format),
        };
        Listed { caller: self, format, starts }
    }

    /// Whether they may administer the registry.
    pub fn administers(&self) -> bool {
        self.may(Action::Admin, &Resource::Registry)
    }

    /// Whether they could do that with another session: theirs is cut down to other things.
    pub fn could_with_another_session(&self, action: Action, what: &Resource<'_>) -> bool {
        let uncut = self.known.uncut.as_ref();
        uncut.is_some_and(|who| self.in_force().decisions.decide(who, action, what))
    }

    /// Who they are.
    pub fn identity(&self) -> &Identity {
        &self.known.identity
    }

    /// Whether they showed a password or a certificate: no token, and nothing that is cut down. What a token makes could
    /// outlive it.
    pub fn is_in_person(&self) -> bool {
        let Identity { token, scope, grant, .. } = &self.known.identity;
        token.is_none() && scope.is_none() && grant.is_none()
    }

    /// What is known of them.
    pub fn known(&self) -> &Known {
        &self.known
    }

    /// Whether they showed nothing, where something would tell more.
    pub fn is_anonymous(&self) -> bool {
        !self.is_open && !self.known.identity.is_authenticated()
    }

    /// Where they are, if it is known.
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// Whether the node asks nobody for anything.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// The caller as the journal names it.
    pub fn actor(&self) -> Actor {
        if let Some(actor) = &self.behalf {
            return actor.as_ref().clone();
        }
        let identity = &self.known.identity;
        let address = self.address.map(|address| address.to_string()).unwrap_or_default();
        Actor {
            subject: match self.is_open && !identity.is_authenticated() {
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
pub struct OnceBegun {
    /// Who that is.
    pub actor: Actor,
}

impl Judge for OnceBegun {
    fn actor(&self) -> Actor {
        self.actor.clone()
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

impl Judge for Caller {
    fn actor(&self) -> Actor {
        Self::actor(self)
    }

    fn judge(&self, change: Change, repository: &RepositoryKey, tags: &[TagName]) -> Judgement {
        let in_force = self.in_force();
        let (format, path) = (repository.format, repository.path.as_str());
        // All of it by one policy, whose number the command then carries. It is read first: should another come now, that
        // one is what the command fails by.
        let is_free = self.is_free();
        let may = |action| {
            let what = Resource::Repository { format, path };
            is_free || in_force.decisions.decide(&self.known.identity, action, &what)
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
            if self.is_free() || self.behalf.is_some() {
                return Ok(true);
            }
            self.guard.still_stands(&self.known, self.epoch).await
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

/// The repositories of a format that lists show a caller.
pub struct Listed<'a> {
    caller: &'a Caller,
    format: Format,
    /// What their names begin with, in order; none begins with another.
    starts: Vec<String>,
}

impl Shown for Listed<'_> {
    fn shows(&self, path: &RepositoryPath) -> bool {
        self.caller.lists(self.format, path)
    }

    fn go_on(&self, after: Option<RepositoryPath>) -> Option<Option<RepositoryPath>> {
        go_on(&self.starts, after)
    }
}

/// Where names with one of these starts go on after `after`.
fn go_on(starts: &[String], after: Option<RepositoryPath>) -> Option<Option<RepositoryPath>> {
    let text = after.as_ref().map_or("", |after| after.as_str());
    let next =
        starts.iter().find(|start| start.as_str() > text || text.starts_with(start.as_str()))?;
    if text.starts_with(next.as_str()) {
        return Some(after);
    }
    // A list begins behind a name: behind the longest one before the start, unless the list is further already. The name
    // itself must not be left out where it is what the start says.
    let before = next.char_indices().rev().map(|(at, _)| &next[..at]);
    let before = before.filter_map(|text| RepositoryPath::parse(text).ok()).next();
    Some(before.max(after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(starts: &[&str], text: &str) -> Option<Option<String>> {
        let starts: Vec<_> = starts.iter().map(ToString::to_string).collect();
        let from = RepositoryPath::parse(text).ok();
        go_on(&starts, from).map(|path| path.map(|path| path.to_string()))
    }

    #[test]
    fn a_list_skips_what_its_caller_may_not_see() {
        let some = |text: &str| Some(Some(text.to_owned()));
        assert_eq!(after(&[], ""), None, "nothing is shown");
        assert_eq!(after(&[""], ""), Some(None), "everything is");
        assert_eq!(after(&[""], "z"), some("z"));
        let starts = ["a/b", "team/", "z/"];
        assert_eq!(after(&starts, ""), some("a/"));
        assert_eq!(after(&starts, "a/a"), some("a/a"), "it goes on, and never back");
        assert_eq!(after(&starts, "a/b"), some("a/b"));
        assert_eq!(after(&starts, "a/c"), some("team"));
        assert_eq!(after(&starts, "team-x"), some("team-x"));
        assert_eq!(after(&starts, "team/x/y"), some("team/x/y"));
        assert_eq!(after(&starts, "teams/x"), some("z"));
        assert_eq!(after(&starts, "zz"), None);
    }
}
