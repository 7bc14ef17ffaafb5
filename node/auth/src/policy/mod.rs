//! The compiled policy: the one place that decides who may do what.
//!
//! Guarantees: a document is compiled whole, or refused with every error and its place; what nothing allows is denied;
//! a deny wins over every allow; a token's scope only narrows. Answers are pure functions of the document and the
//! question: they are the same on every node, for every format and every kind of credential. Must not know: HTTP,
//! credentials, the replicated state, a clock.

mod cache;
mod claims;
mod compile;
mod decide;
mod explain;
mod immutable;
mod providers;
mod tenancy;

use std::collections::BTreeMap;

use nora_domain::{Format, TenantName};
use serde_json::{Map, Value};

pub use self::cache::Decisions;
pub use self::claims::{Grant, Refused};
pub use self::explain::{Effect, Explanation, Step};

use self::claims::ProviderRules;
use self::decide::Subjects;
use self::immutable::ImmutableTags;
use self::tenancy::Namespaces;
use crate::document::{PolicyDocument, Provider, Tenant};
use crate::identity::Identity;
use crate::permission::{Action, Resource};

/// What is wrong with a policy, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct PolicyError {
    /// Where in the document, as `auth.rules[2].permissions[0]`.
    pub place: String,
    /// What is wrong and what to write instead. It quotes no secret.
    pub reason: String,
}

/// A policy that was compiled, ready to be asked from every request.
#[derive(Debug)]
pub struct Policy {
    document: PolicyDocument,
    subjects: Subjects,
    groups: BTreeMap<Box<str>, Vec<String>>,
    namespaces: Namespaces,
    immutable: ImmutableTags,
    /// The issuers as they are used: defaults filled in, known issuers recognised.
    providers: Vec<Provider>,
    provider_rules: Vec<ProviderRules>,
}

impl Policy {
    /// Compiles a document; all its errors come at once.
    pub fn compile(document: &PolicyDocument) -> Result<Self, Vec<PolicyError>> {
        compile::compile(document)
    }

    /// What it was compiled from.
    pub fn document(&self) -> &PolicyDocument {
        &self.document
    }

    /// Whether it has an `[auth]` section.
    pub fn has_auth(&self) -> bool {
        self.document.auth.is_some()
    }

    /// The bcrypt hash of a user of the htpasswd file.
    pub fn htpasswd(&self, user: &str) -> Option<&str> {
        self.document.auth.as_ref()?.htpasswd.get(user).map(String::as_str)
    }

    /// Whether somebody may do that. This is the decision point.
    pub fn decide(&self, who: &Identity, action: Action, what: &Resource<'_>) -> bool {
        decide::decide(self, who, action, what)
    }

    /// What the names begin with to which somebody may do that, of a format, in order. A name that begins otherwise is
    /// refused by [`Self::decide`]; one that begins so may be.
    pub fn starts(&self, who: &Identity, action: Action, format: Format) -> Vec<String> {
        decide::starts(self, who, action, format)
    }

    /// The same decision, with every rule that was looked at and why it counted or did not.
    pub fn explain(&self, who: &Identity, action: Action, what: &Resource<'_>) -> Explanation {
        explain::explain(self, who, action, what)
    }

    /// Who owns a name: the tenant with the most specific namespace, or the default tenant.
    pub fn tenant_of(&self, format: Format, path: &str) -> &TenantName {
        self.namespaces.owner(format, path)
    }

    /// All tenants that the policy names, in its order.
    pub fn tenants(&self) -> impl Iterator<Item = &Tenant> {
        self.document.tenants.iter()
    }

    /// The tenant of that name.
    pub fn tenant(&self, name: &str) -> Option<&Tenant> {
        self.document.tenants.iter().find(|tenant| tenant.name == name)
    }

    /// Whether a tag may neither move nor go.
    pub fn is_immutable(&self, format: Format, path: &str, tag: &str) -> bool {
        self.immutable.covers(format, path, tag)
    }

    /// Whether any tag of a repository could be immutable.
    pub fn has_immutable(&self, format: Format, path: &str) -> bool {
        self.immutable.covers_some(format, path)
    }

    /// Rules for CI systems that know an owner by name alone, a line each. They are no errors: an operator may have reasons.
    pub fn owners_by_name(&self) -> Vec<String> {
        providers::owners_by_name(&self.providers)
    }

    /// Whether tokens are exchanged at all.
    pub fn exchanges(&self) -> bool {
        self.exchanging().is_some()
    }

    /// The issuer whose tokens say they are by `issuer`, byte for byte, if tokens are exchanged at all.
    pub fn provider_by_issuer(&self, issuer: &str) -> Option<&Provider> {
        self.exchanging()?.iter().find(|provider| provider.issuer == issuer)
    }

    /// What a workload with verified claims gets; `Err` says why it gets nothing.
    pub fn workload_grant(
        &self,
        provider: &str,
        claims: &Map<String, Value>,
    ) -> Result<Grant, Refused> {
        self.workload_rules(provider)?.grant(claims)
    }

    /// What a workload gets that was exchanged before, by the claims that decided then. A claim that a rule names only since
    /// is missing among them, and such a rule does not match.
    pub fn workload_grant_again(&self, provider: &str, claims: &[u8]) -> Result<Grant, Refused> {
        let claims: Map<String, Value> =
            serde_json::from_slice(claims).map_err(|_| Refused::NoRule)?;
        let issuer = claims.get("iss").and_then(Value::as_str).unwrap_or_default();
        // The provider's name may be another issuer's by now.
        match self.provider_by_issuer(issuer) {
            Some(known) if known.name == provider => self.workload_grant(provider, &claims),
            _ => Err(Refused::UnknownProvider),
        }
    }

    /// The same, rule by rule and claim by claim.
    pub fn explain_workload(&self, provider: &str, claims: &Map<String, Value>) -> Explanation {
        match self.workload_rules(provider) {
            Ok(rules) => rules.explain(claims),
            Err(refused) => Explanation::refusal(refused.to_string()),
        }
    }

    fn workload_rules(&self, provider: &str) -> Result<&ProviderRules, Refused> {
        let enabled = self.exchanging().ok_or(Refused::Disabled)?;
        let at = enabled.iter().position(|known| known.name == provider);
        at.and_then(|at| self.provider_rules.get(at)).ok_or(Refused::UnknownProvider)
    }

    fn exchanging(&self) -> Option<&[Provider]> {
        let auth = self.document.auth.as_ref()?;
        auth.oidc.enabled.then_some(&self.providers[..])
    }
}
