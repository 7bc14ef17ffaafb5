//! The policy as it is written and replicated: plain data, before anything of it is compiled.
//!
//! `nora.toml` is read into a [`PolicyDocument`]; its canonical JSON is what the cluster replicates, so that every node
//! compiles the same text. Must not know: what a valid glob or subject is ([`crate::policy::Policy::compile`] judges
//! that, and names the place in the document).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The most bytes of a document's JSON: the cluster replicates it as one entry of its log, and that is bounded.
pub const DOCUMENT_BYTES_MAX: usize = 200 << 10;

/// Everything of `nora.toml` that is the same on every node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyDocument {
    /// `[auth]`; without it nobody has a login but the administrator.
    pub auth: Option<Auth>,
    /// `[[tenants]]`.
    pub tenants: Vec<Tenant>,
    /// `[[policy.immutable]]`.
    pub immutable: Vec<Immutable>,
    /// `[audit]`.
    pub audit: Audit,
}

/// `[auth]`: logins and permissions.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// What whoever shows no credential may do, as `pull:public/*`.
    pub anonymous: Vec<String>,
    /// The logins of the htpasswd file: user name to bcrypt hash. Users made by `nora user add` are not here.
    pub htpasswd: BTreeMap<String, String>,
    /// Groups and who is in them, users and robots: `[auth.groups]`.
    pub groups: BTreeMap<String, Vec<String>>,
    /// `[[auth.rules]]`.
    pub rules: Vec<Rule>,
    /// `[auth.oidc]`.
    pub oidc: Oidc,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { anonymous, htpasswd, groups, rules, oidc } = self;
        f.debug_struct("Auth")
            .field("anonymous", anonymous)
            // Who has a login, and no hash of it.
            .field("htpasswd", &htpasswd.keys())
            .field("groups", groups)
            .field("rules", rules)
            .field("oidc", oidc)
            .finish()
    }
}

/// A rule: what a subject may do, and what it may not whatever else says so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    /// Whom it is about, as `team-frontend`, `user:alice`, `group:devs`, `robot:ci`, `token:ci/deploy`,
    /// `oidc:github-actions`, `authenticated` or `anonymous`.
    pub subject: String,
    /// What it allows, as `push:frontend/*`.
    pub permissions: Vec<String>,
    /// What it denies, in the same words. A deny wins over every permission.
    pub deny: Vec<String>,
}

/// `[auth.oidc]`: workload identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Oidc {
    /// Whether tokens are exchanged at all.
    pub enabled: bool,
    /// How long an exchanged token lives, in seconds.
    pub token_seconds: u64,
    /// Issuers that are believed.
    pub providers: Vec<Provider>,
}

impl Default for Oidc {
    fn default() -> Self {
        Self { enabled: false, token_seconds: 900, providers: Vec::new() }
    }
}

/// Whose claims a provider's tokens carry: what makes the safe defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProviderKind {
    /// GitHub Actions.
    Github,
    /// GitLab CI.
    Gitlab,
    /// Any other OpenID Connect issuer.
    #[default]
    Generic,
}

impl ProviderKind {
    /// The kind of an issuer that everyone knows.
    pub fn of_issuer(issuer: &str) -> Option<Self> {
        const GITHUB: &str = "https://token.actions.githubusercontent.com";
        const GITLAB: &str = "https://gitlab.com";
        // Enterprises have issuers of their own below GitHub's.
        let below = issuer.strip_prefix(GITHUB);
        if below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
            Some(Self::Github)
        } else if issuer == GITLAB {
            Some(Self::Gitlab)
        } else {
            None
        }
    }
}

/// `[[auth.oidc.providers]]`: an issuer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Provider {
    /// Its name here: subjects are `oidc:<name>`.
    pub name: String,
    /// The `iss` claim, byte for byte; its discovery document is found below it.
    pub issuer: String,
    /// The one `aud` claim that is accepted.
    pub audience: String,
    /// Whose claims it sends; known issuers are recognised when the file is read.
    pub kind: ProviderKind,
    /// Signature algorithms that are accepted, as `RS256`.
    pub algorithms: Vec<String>,
    /// Claims that a token must have besides the standard ones.
    pub required_claims: Vec<String>,
    /// What its tokens are exchanged for.
    pub rules: Vec<ProviderRule>,
}

/// `[[auth.oidc.providers.rules]]`: what a workload with such claims gets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProviderRule {
    /// Claim to the globs one of which it must match. Every claim named must match.
    #[serde(rename = "match")]
    pub claims: BTreeMap<String, Vec<String>>,
    /// What it gives, as `push:my-org/*`.
    pub permissions: Vec<String>,
    /// Whether runs for pull and merge requests get more than `pull`.
    pub pull_requests: bool,
    /// Whether runs for refs that are not protected, outside the environments that the rule names, get more than `pull`.
    pub unprotected_refs: bool,
}

/// `[[tenants]]`: who owns which names, and how much it may use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tenant {
    /// Its name.
    pub name: String,
    /// Names that it owns, by format: `oci`, `npm`, `pypi`, `maven`, `cargo`.
    pub namespaces: BTreeMap<String, Vec<String>>,
    /// Unique bytes that it may store.
    pub storage_quota: Option<u64>,
    /// Artifacts that it may have.
    pub artifact_quota: Option<u64>,
    /// Requests an hour, across the cluster.
    pub rate_limit: RateLimit,
}

/// Requests an hour; absent is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimit {
    /// Artifacts pushed.
    pub push: Option<u64>,
    /// Artifacts pulled.
    pub pull: Option<u64>,
    /// Of these, by callers without a login; half of `pull` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anonymous_pull: Option<u64>,
    /// Of these, by one caller from one node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_per_caller: Option<u64>,
}

/// `[[policy.immutable]]`: tags that never move and never go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Immutable {
    /// Repositories, in the words of permissions: `prod/*`, `npm:@acme/*`.
    #[serde(rename = "match")]
    pub repositories: String,
    /// Tags among them, as `v*`; all if empty.
    pub tags: Vec<String>,
}

/// `[audit]`: what is kept of what was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Audit {
    /// How long entries are kept, in seconds.
    pub retention_seconds: u64,
    /// A URL that each entry is sent to as a line of JSON.
    pub webhook: Option<String>,
}

impl Default for Audit {
    fn default() -> Self {
        Self { retention_seconds: 90 * 24 * 3_600, webhook: None }
    }
}
