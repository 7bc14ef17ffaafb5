//! The decision: rules by subject, and the order in which they count.
//!
//! Guarantees: only rules that are about the caller are looked at, each subject's as one compiled set, so that the
//! number of rules about others costs nothing; a deny of any of them wins; nothing is allowed that neither a rule nor
//! the shown token's grant allows; a scope takes away and never gives. Must not know: how rules are written.

use std::collections::BTreeMap;

use nora_domain::Format;

use super::Policy;
use super::compile::{Errors, permission_set};
use crate::identity::{Identity, Subject};
use crate::permission::{Action, PermissionSet, Resource};

/// Whom a rule is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Whom {
    /// Everyone, with or without a credential.
    Everyone,
    /// Everyone with a credential.
    Authenticated,
    User(Box<str>),
    Robot(Box<str>),
    Group(Box<str>),
    /// The user, robot or group of that name.
    Named(Box<str>),
    /// Whoever shows that token of that account.
    TokenOf(Box<str>, Box<str>),
    /// A workload that this issuer vouches for.
    Provider(Box<str>),
}

impl Whom {
    /// Whether this is about them. [`Subjects`] answers the same from its maps.
    pub(super) fn is_about(&self, policy: &Policy, who: &Identity) -> bool {
        let account = who.subject.account();
        let grouped = |name: &str| {
            who.groups.iter().any(|group| group == name)
                || policy_groups(policy, who).iter().any(|group| group == name)
        };
        match self {
            Self::Everyone => true,
            Self::Authenticated => who.is_authenticated(),
            Self::User(name) => matches!(&who.subject, Subject::User(own) if own == name),
            Self::Robot(name) => matches!(&who.subject, Subject::Robot(own) if own == name),
            Self::Group(name) => grouped(name),
            Self::Named(name) => account == Some(&**name) || grouped(name),
            Self::TokenOf(owner, name) => {
                account == Some(&**owner) && who.token.as_deref() == Some(&**name)
            }
            Self::Provider(name) => {
                matches!(&who.subject, Subject::Workload { provider, .. } if provider == name)
            }
        }
    }
}

/// What all rules about one subject say together.
#[derive(Debug, Default)]
struct Bundle {
    allow_texts: Vec<String>,
    deny_texts: Vec<String>,
    allow: PermissionSet,
    deny: PermissionSet,
}

type ByName = BTreeMap<Box<str>, Bundle>;

/// All rules, by whom they are about.
#[derive(Debug, Default)]
pub(super) struct Subjects {
    everyone: Bundle,
    authenticated: Bundle,
    users: ByName,
    robots: ByName,
    groups: ByName,
    named: ByName,
    tokens_of: BTreeMap<Box<str>, ByName>,
    providers: ByName,
}

impl Subjects {
    /// Takes a rule in; [`Self::compile`] comes after the last.
    pub(super) fn add(&mut self, whom: &Whom, permissions: &[String], deny: &[String]) {
        let bundle = match whom {
            Whom::Everyone => &mut self.everyone,
            Whom::Authenticated => &mut self.authenticated,
            Whom::User(name) => self.users.entry(name.clone()).or_default(),
            Whom::Robot(name) => self.robots.entry(name.clone()).or_default(),
            Whom::Group(name) => self.groups.entry(name.clone()).or_default(),
            Whom::Named(name) => self.named.entry(name.clone()).or_default(),
            Whom::TokenOf(owner, name) => {
                self.tokens_of.entry(owner.clone()).or_default().entry(name.clone()).or_default()
            }
            Whom::Provider(name) => self.providers.entry(name.clone()).or_default(),
        };
        bundle.allow_texts.extend_from_slice(permissions);
        bundle.deny_texts.extend_from_slice(deny);
    }

    /// Compiles each subject's permissions into one set.
    pub(super) fn compile(&mut self, errors: &mut Errors) {
        let maps = [
            &mut self.users,
            &mut self.robots,
            &mut self.groups,
            &mut self.named,
            &mut self.providers,
        ];
        let named = maps.into_iter().chain(self.tokens_of.values_mut());
        let bundles = [&mut self.everyone, &mut self.authenticated];
        for bundle in bundles.into_iter().chain(named.flat_map(BTreeMap::values_mut)) {
            let allow = std::mem::take(&mut bundle.allow_texts);
            let deny = std::mem::take(&mut bundle.deny_texts);
            bundle.allow = permission_set("auth.rules", &allow, errors);
            bundle.deny = permission_set("auth.rules", &deny, errors);
        }
    }

    /// Calls `each` with every bundle that is about them.
    fn about<'a>(&'a self, policy: &Policy, who: &Identity, mut each: impl FnMut(&'a Bundle)) {
        each(&self.everyone);
        if who.is_authenticated() {
            each(&self.authenticated);
        }
        let own = match &who.subject {
            Subject::User(name) => self.users.get(name),
            Subject::Robot(name) => self.robots.get(name),
            Subject::Workload { provider, .. } => self.providers.get(provider),
            _ => None,
        };
        own.into_iter().for_each(&mut each);
        let account = who.subject.account();
        account.and_then(|name| self.named.get(name)).into_iter().for_each(&mut each);
        for group in who.groups.iter().chain(policy_groups(policy, who)) {
            let group = group.as_str();
            self.groups.get(group).into_iter().for_each(&mut each);
            self.named.get(group).into_iter().for_each(&mut each);
        }
        if let Some(token) = who.token.as_deref() {
            let owned = account.and_then(|name| self.tokens_of.get(name));
            owned.and_then(|tokens| tokens.get(token)).into_iter().for_each(&mut each);
        }
    }
}

/// `[auth.groups]` speaks of accounts, and no user and robot have the same name.
fn policy_groups<'a>(policy: &'a Policy, who: &Identity) -> &'a [String] {
    let groups = who.subject.account().and_then(|name| policy.groups.get(name));
    groups.map_or(&[], Vec::as_slice)
}

pub(super) fn starts(
    policy: &Policy,
    who: &Identity,
    action: Action,
    format: Format,
) -> Vec<String> {
    if who.subject == Subject::Administrator {
        return vec![String::new()];
    }
    let mut starts: Vec<String> =
        who.grant.iter().flat_map(|grant| grant.starts(action, format)).collect();
    policy.subjects.about(policy, who, |bundle| starts.extend(bundle.allow.starts(action, format)));
    starts.sort_unstable();
    // One that begins with another is within that.
    starts.dedup_by(|longer, shorter| longer.starts_with(shorter.as_str()));
    starts
}

pub(super) fn decide(policy: &Policy, who: &Identity, action: Action, what: &Resource<'_>) -> bool {
    if who.scope.as_ref().is_some_and(|scope| !scope.covers(action, what)) {
        return false;
    }
    if who.subject == Subject::Administrator {
        return true;
    }
    let mut allowed = who.grant.as_ref().is_some_and(|grant| grant.covers(action, what));
    let mut denied = false;
    policy.subjects.about(policy, who, |bundle| {
        denied = denied || bundle.deny.denies(action, what);
        allowed = allowed || bundle.allow.covers(action, what);
    });
    allowed && !denied
}
