//! The tables of the policy as `nora.toml` writes them.
//!
//! Guarantees: what is read has the right types and units. Must not know: what a valid permission or subject is, which
//! the compiler of the policy judges.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use toml::de::DeValue;

use crate::collection::{KeyNoun, Keyed, OneOrMany};
use crate::section::section;
use crate::setting::{Context, Kind, Problem, Setting, Size, choice, text};

choice! {
    /// Whose claims a provider's tokens carry.
    IssuerKind {
        /// GitHub Actions.
        Github = "github",
        /// GitLab CI.
        Gitlab = "gitlab",
        /// Any other issuer.
        Generic = "generic",
    }
}

/// The keys of `[auth.groups]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupKey;

impl KeyNoun for GroupKey {
    const NOUN: &'static str = "group";
}

/// The keys of `match` in a provider's rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClaimKey;

impl KeyNoun for ClaimKey {
    const NOUN: &'static str = "claim";
}

/// Where logins are kept. It is a path, and somebody will paste the logins themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LoginFile(pub PathBuf);

impl Setting for LoginFile {
    fn kind() -> Kind {
        Kind::Path
    }

    fn read(value: &DeValue<'_>, context: &Context<'_>) -> Result<Self, Problem> {
        let login = |text: &str| text.contains(['$', '\n']) || text.contains(":{");
        if value.as_str().is_some_and(login) {
            let message = "must name a file of logins, not hold logins itself";
            let help = "put the lines into a file with `htpasswd -B`, and write its name here";
            return Err(Problem::new(message, "not a file's name").help(help));
        }
        PathBuf::read(value, context).map(Self)
    }

    fn shown(&self) -> Value {
        self.0.shown()
    }
}

/// A URL that may have a path, and has no login in it: who may see the policy sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WebUrl(pub String);

impl Setting for WebUrl {
    fn kind() -> Kind {
        Kind::WebUrl
    }

    fn read(value: &DeValue<'_>, _: &Context<'_>) -> Result<Self, Problem> {
        let text = text(value, "a URL")?;
        let bad = |message: &str| {
            Problem::new(message, "not such a URL")
                .help("write it as \"https://audit.example.com/nora\"")
        };
        let uri: http::Uri = text.parse().map_err(|_| bad("is not a URL"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(bad("must begin with http:// or https://"));
        }
        let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        if authority.is_empty() || authority.contains('@') {
            return Err(bad("must name a host, and no user"));
        }
        Ok(Self(text.to_owned()))
    }

    fn shown(&self) -> Value {
        json!(self.0)
    }
}

section! {
    /// Logins and permissions. Without this table, a node that listens on a loopback address alone is open to whoever can reach it; any other makes an administrator on its first start and asks for logins.
    AuthTable in "auth" {
        /// Permissions of whoever shows no login.
        anonymous: Vec<String> = "[]";
        /// A file of logins as `htpasswd -B` writes it. It is read together with this file and is part of the policy, which has 200 KiB at most: about 2,000 users. `nora user add` makes further ones that are not in it.
        htpasswd: Option<LoginFile> = none;
        /// Groups, and the users and robots in them.
        groups: Keyed<GroupKey, Vec<String>> = "{}";
    }
    tables {
        /// Workload identity: tokens of CI runs are exchanged for tokens of NORA.
        oidc: OidcTable;
    }
    lists {
        /// What each subject may do.
        rules: RuleTable;
    }
}

section! {
    /// What a subject may do, and what it may not, whatever other rules say. All rules about a subject count together.
    RuleTable in "auth.rules" {
        /// Whom it is about: `user:alice`, `group:devs`, `robot:ci`, `token:ci/deploy`, `oidc:github-actions`, `authenticated`, `anonymous`, or a bare name of a user, robot or group. `authenticated` is whoever logged in, workloads of every provider included.
        subject: String = required;
        /// What it allows.
        permissions: Vec<String> = "[]";
        /// What it denies, in the same words.
        deny: Vec<String> = "[]";
    }
}

section! {
    /// Workload identity: a CI run shows the token that its platform gave it, and gets one of NORA for what a rule gives to runs with such claims.
    OidcTable in "auth.oidc" {
        /// Whether tokens are exchanged.
        enabled: bool = "false";
        /// How long an exchanged token is good for.
        token_lifetime: Duration = "\"15m\"", "1m" ..= "1h";
    }
    lists {
        /// Issuers that are believed.
        providers: ProviderTable;
    }
}

section! {
    /// An issuer that is believed.
    ProviderTable in "auth.oidc.providers" {
        /// Its name here: a rule for its runs has `oidc:` and this name as its subject.
        name: String = required;
        /// Its tokens' `iss` claim, to the letter. Its keys are found through the discovery document below it.
        issuer: String = required;
        /// The one `aud` claim that is accepted: the address of this registry is a good one.
        audience: String = required;
        /// Whose claims its tokens carry, `"github"`, `"gitlab"` or `"generic"`; without it, this is told from the issuer.
        kind: Option<IssuerKind> = none;
        /// Signature algorithms that are accepted.
        algorithms: Vec<String> = "[\"RS256\", \"ES256\"]";
        /// Claims that a token must have besides the standard ones.
        required_claims: Vec<String> = "[]";
    }
    lists {
        /// What its tokens are exchanged for.
        rules: ProviderRuleTable;
    }
}

section! {
    /// What runs get whose token has such claims. All rules that match count together.
    ProviderRuleTable in "auth.oidc.providers.rules" {
        /// Each claim, and the pattern or patterns one of which it must fit. All claims that are named must fit. `*` stays within one segment, even at the end; `**` crosses segments: `my-group/**` is what GitLab subgroups need.
        matching as "match": Keyed<ClaimKey, OneOrMany<String>> = required;
        /// What they get.
        permissions: Vec<String> = required;
        /// Whether runs for pull requests and merge requests get more than `pull`. Anybody may be able to start one.
        pull_requests: bool = "false";
        /// Whether runs for branches and tags that are not protected get more than `pull`. An environment counts as protection only if `match` names it literally, as `production` and without a wildcard, or if the issuer sends `environment_protected`.
        unprotected_refs: bool = "false";
    }
}

section! {
    /// Who owns which names, and how much it may use. Names that no tenant owns are of the tenant `default`.
    TenantTable in "tenants" {
        /// Its name.
        name: String = required;
        /// Unique bytes that it may store. Without it, as many as there is room for.
        storage_quota: Option<Size> = none, "1B" ..= "1000000TB";
        /// Artifacts that it may have. Without it, any number.
        artifact_quota: Option<usize> = none, "1" ..= "1000000000000";
    }
    tables {
        /// The names that it owns.
        namespaces: NamespacesTable;
        /// Requests an hour.
        rate_limit: RateLimitTable;
    }
}

section! {
    /// The names that a tenant owns, by format.
    NamespacesTable in "tenants.namespaces" {
        /// Repositories of images and other OCI artifacts, as `frontend/*`.
        oci: Vec<String> = "[]";
        /// npm packages, as `@frontend/*`.
        npm: Vec<String> = "[]";
        /// Python packages, as `acme-frontend-*`.
        pypi: Vec<String> = "[]";
        /// Maven groups, each with those below it, as `com.acme.frontend`.
        maven: Vec<String> = "[]";
        /// Rust crates, as `acme-frontend-*`.
        cargo: Vec<String> = "[]";
    }
}

section! {
    /// Requests an hour that a tenant may make, on all nodes together. Without a number, any.
    RateLimitTable in "tenants.rate_limit" {
        /// Artifacts pushed.
        push: Option<usize> = none, "1" ..= "1000000000000";
        /// Artifacts pulled. An image for several platforms counts twice: its index, and the platform's manifest.
        pull: Option<usize> = none, "1" ..= "1000000000000";
        /// Of these, pulled by callers without a login, all together. Without a number, half of `pull`.
        anonymous_pull: Option<usize> = none, "1" ..= "1000000000000";
        /// Of these, pulled by one caller from one node: by a user, a CI job's subject, or an address without a login.
        /// Without a number, an address without a login may use half of what all of them may, and a user may use all.
        pull_per_caller: Option<usize> = none, "1" ..= "1000000000000";
    }
}

section! {
    /// What holds whoever asks.
    PolicyTable in "policy" {
    }
    lists {
        /// Tags that never move.
        immutable: ImmutableTable;
    }
}

section! {
    /// Tags that never move and never go, once they are there.
    ImmutableTable in "policy.immutable" {
        /// The repositories, in the words of permissions without an action: `prod/*`, `npm:@acme/*`.
        matching as "match": String = required;
        /// Which of their tags, as `v*`. Without it, all.
        tags: Vec<String> = "[]";
    }
}

section! {
    /// What is kept of what was done.
    AuditTable in "audit" {
        /// How long entries are kept. They go in parts, so some stay up to twice as long.
        retention: Duration = "\"90d\"", "1s" ..= "1040w";
        /// A URL that each entry is sent to, as a line of JSON. Whoever may see the policy sees it: put no secret into it.
        webhook: Option<WebUrl> = none;
    }
}
