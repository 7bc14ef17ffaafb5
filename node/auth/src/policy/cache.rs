//! Decisions that were made, kept for the next request.
//!
//! Guarantees: an answer is the decision point's, for exactly this identity, action and resource: keys are compared
//! whole, never by a hash that another question could share (of a token's scope and grant the key holds a SHA-256,
//! which nobody can make collide). A cache belongs to one compiled policy; with a new policy comes a new, empty cache,
//! so no answer outlives the rules it came from. What it holds is bounded. Must not know: who revoked what; an
//! identity that must not be believed any more does not come here at all.

use std::sync::Arc;

use moka::sync::Cache;

use super::Policy;
use crate::identity::{Identity, Subject};
use crate::permission::{Action, PermissionSet, Resource};

/// A bounded cache of decisions of one policy.
#[derive(Debug)]
pub struct Decisions {
    policy: Arc<Policy>,
    kept: Cache<Box<[u8]>, bool>,
}

impl Decisions {
    /// An empty cache for that policy, of at most `capacity` answers.
    pub fn new(policy: Arc<Policy>, capacity: u64) -> Self {
        Self { policy, kept: Cache::new(capacity) }
    }

    /// The policy whose decisions these are.
    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// What [`Policy::decide`] says, perhaps remembered.
    pub fn decide(&self, who: &Identity, action: Action, what: &Resource<'_>) -> bool {
        let key = key(who, action, what);
        if let Some(known) = self.kept.get(key.as_slice()) {
            return known;
        }
        let decision = self.policy.decide(who, action, what);
        self.kept.insert(key.into_boxed_slice(), decision);
        decision
    }
}

/// Everything that a decision depends on besides the policy. Each part has its length before it, so that no two
/// questions read alike.
fn key(who: &Identity, action: Action, what: &Resource<'_>) -> Vec<u8> {
    let mut key = Vec::with_capacity(256);
    match &who.subject {
        Subject::Anonymous => key.push(0),
        Subject::Administrator => key.push(1),
        Subject::User(name) => {
            key.push(2);
            part(&mut key, name);
        }
        Subject::Robot(name) => {
            key.push(3);
            part(&mut key, name);
        }
        Subject::Workload { provider, .. } => {
            // The rest of the subject decides nothing: what it gives is in the grant.
            key.push(4);
            part(&mut key, provider);
        }
        // These are no callers; each decides by its name alone.
        other => {
            key.push(5);
            part(&mut key, &other.to_string());
        }
    }
    key.extend_from_slice(&(who.groups.len() as u64).to_le_bytes());
    for group in &who.groups {
        part(&mut key, group);
    }
    key.push(u8::from(who.token.is_some()));
    if let Some(token) = &who.token {
        part(&mut key, token);
    }
    for set in [&who.scope, &who.grant] {
        key.push(u8::from(set.is_some()));
        if let Some(set) = set.as_ref().map(PermissionSet::fingerprint) {
            key.extend_from_slice(set);
        }
    }
    key.push(action as u8);
    match what {
        Resource::Registry => key.push(0),
        Resource::Repository { format, path } => {
            key.push(1);
            part(&mut key, format.name());
            part(&mut key, path);
        }
    }
    key
}

fn part(key: &mut Vec<u8>, text: &str) {
    key.extend_from_slice(&(text.len() as u64).to_le_bytes());
    key.extend_from_slice(text.as_bytes());
}
