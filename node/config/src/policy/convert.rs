//! From the tables of the file to the document that is replicated, and back.
//!
//! Guarantees: a document that is written as tables and read again is the same, but for the logins: those are read from
//! their own file, and are never written. Must not know: whether the document makes sense.

use std::collections::BTreeMap;
use std::time::Duration;

use nora_auth::document::{
    Audit, Auth, Immutable, Oidc, PolicyDocument, Provider, ProviderKind, ProviderRule, RateLimit,
    Rule, Tenant,
};

use super::tables::{
    AuditTable, AuthTable, ImmutableTable, IssuerKind, NamespacesTable, OidcTable, PolicyTable,
    ProviderRuleTable, ProviderTable, RateLimitTable, RuleTable, TenantTable, WebUrl,
};
use crate::collection::{Keyed, OneOrMany};
use crate::setting::Size;

/// The tables of a file that are policy.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tables {
    pub auth: Option<AuthTable>,
    pub tenants: Vec<TenantTable>,
    pub policy: PolicyTable,
    pub audit: AuditTable,
}

impl Tables {
    /// The document, with the logins that the file of logins has.
    pub(super) fn document(self, logins: BTreeMap<String, String>) -> PolicyDocument {
        PolicyDocument {
            auth: self.auth.map(|table| auth(table, logins)),
            tenants: self.tenants.into_iter().map(tenant).collect(),
            immutable: self.policy.immutable.into_iter().map(immutable).collect(),
            audit: Audit {
                retention_seconds: self.audit.retention.as_secs(),
                webhook: self.audit.webhook.map(|url| url.0),
            },
        }
    }

    /// The tables that say what the document says; logins are left out.
    pub(super) fn of(document: &PolicyDocument) -> Self {
        let immutable = document.immutable.iter().map(immutable_table).collect();
        Self {
            auth: document.auth.as_ref().map(auth_table),
            tenants: document.tenants.iter().map(tenant_table).collect(),
            policy: PolicyTable { immutable },
            audit: AuditTable {
                retention: Duration::from_secs(document.audit.retention_seconds),
                webhook: document.audit.webhook.clone().map(WebUrl),
            },
        }
    }
}

fn auth(table: AuthTable, logins: BTreeMap<String, String>) -> Auth {
    let oidc = table.oidc.map_or_else(Oidc::default, |oidc| Oidc {
        enabled: oidc.enabled,
        token_seconds: oidc.token_lifetime.as_secs(),
        providers: oidc.providers.into_iter().map(provider).collect(),
    });
    let rule = |rule: RuleTable| Rule {
        subject: rule.subject,
        permissions: rule.permissions,
        deny: rule.deny,
    };
    Auth {
        anonymous: table.anonymous,
        htpasswd: logins,
        groups: table.groups.0,
        rules: table.rules.into_iter().map(rule).collect(),
        oidc,
    }
}

fn auth_table(auth: &Auth) -> AuthTable {
    let rule = |rule: &Rule| RuleTable {
        subject: rule.subject.clone(),
        permissions: rule.permissions.clone(),
        deny: rule.deny.clone(),
    };
    let oidc = (auth.oidc != Oidc::default()).then(|| OidcTable {
        enabled: auth.oidc.enabled,
        token_lifetime: Duration::from_secs(auth.oidc.token_seconds),
        providers: auth.oidc.providers.iter().map(provider_table).collect(),
    });
    AuthTable {
        anonymous: auth.anonymous.clone(),
        htpasswd: None,
        groups: Keyed::new(auth.groups.clone()),
        oidc,
        rules: auth.rules.iter().map(rule).collect(),
    }
}

fn provider(table: ProviderTable) -> Provider {
    let kind = match table.kind {
        Some(IssuerKind::Github) => ProviderKind::Github,
        Some(IssuerKind::Gitlab) => ProviderKind::Gitlab,
        Some(IssuerKind::Generic) => ProviderKind::Generic,
        None => ProviderKind::of_issuer(&table.issuer).unwrap_or_default(),
    };
    let rule = |rule: ProviderRuleTable| ProviderRule {
        claims: rule.matching.0.into_iter().map(|(claim, globs)| (claim, globs.0)).collect(),
        permissions: rule.permissions,
        pull_requests: rule.pull_requests,
        unprotected_refs: rule.unprotected_refs,
    };
    Provider {
        name: table.name,
        issuer: table.issuer,
        audience: table.audience,
        kind,
        algorithms: table.algorithms,
        required_claims: table.required_claims,
        rules: table.rules.into_iter().map(rule).collect(),
    }
}

fn provider_table(provider: &Provider) -> ProviderTable {
    let kind = match provider.kind {
        ProviderKind::Github => IssuerKind::Github,
        ProviderKind::Gitlab => IssuerKind::Gitlab,
        ProviderKind::Generic => IssuerKind::Generic,
    };
    let claim = |(claim, globs): (&String, &Vec<String>)| (claim.clone(), OneOrMany(globs.clone()));
    let rule = |rule: &ProviderRule| ProviderRuleTable {
        matching: Keyed::new(rule.claims.iter().map(claim).collect()),
        permissions: rule.permissions.clone(),
        pull_requests: rule.pull_requests,
        unprotected_refs: rule.unprotected_refs,
    };
    ProviderTable {
        name: provider.name.clone(),
        issuer: provider.issuer.clone(),
        audience: provider.audience.clone(),
        kind: Some(kind),
        algorithms: provider.algorithms.clone(),
        required_claims: provider.required_claims.clone(),
        rules: provider.rules.iter().map(rule).collect(),
    }
}

fn tenant(table: TenantTable) -> Tenant {
    let namespaces = table.namespaces.map_or_else(Vec::new, |names| {
        vec![
            ("oci", names.oci),
            ("npm", names.npm),
            ("pypi", names.pypi),
            ("maven", names.maven),
            ("cargo", names.cargo),
        ]
    });
    let owned = namespaces.into_iter().filter(|(_, names)| !names.is_empty());
    let number = |number: Option<usize>| number.map(|number| number as u64);
    let rate_limit = table.rate_limit.map_or_else(RateLimit::default, |limit| RateLimit {
        push: number(limit.push),
        pull: number(limit.pull),
        anonymous_pull: number(limit.anonymous_pull),
        pull_per_caller: number(limit.pull_per_caller),
    });
    Tenant {
        name: table.name,
        namespaces: owned.map(|(format, names)| (format.to_owned(), names)).collect(),
        storage_quota: table.storage_quota.map(Size::bytes),
        artifact_quota: number(table.artifact_quota),
        rate_limit,
    }
}

fn tenant_table(tenant: &Tenant) -> TenantTable {
    let names = |format: &str| tenant.namespaces.get(format).cloned().unwrap_or_default();
    let namespaces = (!tenant.namespaces.is_empty()).then(|| NamespacesTable {
        oci: names("oci"),
        npm: names("npm"),
        pypi: names("pypi"),
        maven: names("maven"),
        cargo: names("cargo"),
    });
    let number =
        |number: Option<u64>| number.map(|number| usize::try_from(number).unwrap_or(usize::MAX));
    let limit = tenant.rate_limit;
    let rate_limit = (limit != RateLimit::default()).then(|| RateLimitTable {
        push: number(limit.push),
        pull: number(limit.pull),
        anonymous_pull: number(limit.anonymous_pull),
        pull_per_caller: number(limit.pull_per_caller),
    });
    TenantTable {
        name: tenant.name.clone(),
        storage_quota: tenant.storage_quota.map(Size),
        artifact_quota: number(tenant.artifact_quota),
        namespaces,
        rate_limit,
    }
}

fn immutable(table: ImmutableTable) -> Immutable {
    Immutable { repositories: table.matching, tags: table.tags }
}

fn immutable_table(immutable: &Immutable) -> ImmutableTable {
    ImmutableTable { matching: immutable.repositories.clone(), tags: immutable.tags.clone() }
}
