//! Short ways to write documents, identities and questions.

use nora_auth::document::{
    Auth, Immutable, Oidc, PolicyDocument, Provider, ProviderKind, ProviderRule, Rule, Tenant,
};
use nora_auth::identity::{Identity, Subject};
use nora_auth::permission::{Action, PermissionSet, Resource, format_named};
use nora_auth::policy::Policy;
use serde_json::{Map, Value};

pub fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

pub fn set(permissions: &[&str]) -> PermissionSet {
    PermissionSet::parse(permissions).unwrap()
}

pub fn rule(subject: &str, permissions: &[&str], deny: &[&str]) -> Rule {
    Rule { subject: subject.to_owned(), permissions: texts(permissions), deny: texts(deny) }
}

/// A document with these rules, the group `devs` of alice and carol, and the provider `github-actions`.
pub fn document(rules: Vec<Rule>) -> PolicyDocument {
    let groups = [("devs".to_owned(), texts(&["alice", "carol"]))].into();
    let oidc = Oidc { enabled: true, providers: vec![github(vec![])], ..Oidc::default() };
    PolicyDocument {
        auth: Some(Auth { rules, groups, oidc, ..Auth::default() }),
        ..PolicyDocument::default()
    }
}

pub fn compiled(document: &PolicyDocument) -> Policy {
    Policy::compile(document).unwrap_or_else(|errors| panic!("{errors:?}"))
}

pub fn github(rules: Vec<ProviderRule>) -> Provider {
    Provider {
        name: "github-actions".to_owned(),
        issuer: "https://token.actions.githubusercontent.com".to_owned(),
        audience: "https://nora.example.com".to_owned(),
        kind: ProviderKind::Github,
        rules,
        ..Provider::default()
    }
}

/// A rule as the guide shows it: claims with one glob each.
pub fn provider_rule(claims: &[(&str, &str)], permissions: &[&str]) -> ProviderRule {
    ProviderRule {
        claims: claims.iter().map(|(name, glob)| ((*name).to_owned(), texts(&[glob]))).collect(),
        permissions: texts(permissions),
        ..ProviderRule::default()
    }
}

pub fn tenant(name: &str, format: &str, namespaces: &[&str]) -> Tenant {
    Tenant {
        name: name.to_owned(),
        namespaces: [(format.to_owned(), texts(namespaces))].into(),
        ..Tenant::default()
    }
}

pub fn immutable(repositories: &str, tags: &[&str]) -> Immutable {
    Immutable { repositories: repositories.to_owned(), tags: texts(tags) }
}

/// `anonymous`, `admin`, `user:alice`, `robot:ci`, `oidc:github-actions`; then perhaps ` token=…`, ` group=…`.
pub fn who(text: &str) -> Identity {
    let mut words = text.split(' ');
    let subject = match words.next().unwrap().split_once(':') {
        None if text.starts_with("admin") => Subject::Administrator,
        None => Subject::Anonymous,
        Some(("user", name)) => Subject::User(name.into()),
        Some(("robot", name)) => Subject::Robot(name.into()),
        Some((_, name)) => Subject::Workload { provider: name.into(), subject: "a/b@c".into() },
    };
    let mut identity = Identity::of(subject);
    for word in words {
        match word.split_once('=').unwrap() {
            ("token", name) => identity.token = Some(name.to_owned()),
            ("group", name) => identity.groups.push(name.to_owned()),
            other => panic!("{other:?}"),
        }
    }
    identity
}

/// `push frontend/app`, `delete npm:@acme/ui`, `admin registry!`.
pub fn question(text: &str) -> (Action, Resource<'_>) {
    let (action, name) = text.split_once(' ').unwrap();
    let action = Action::parse(action).unwrap();
    if name == "registry!" {
        return (action, Resource::Registry);
    }
    let (format, path) = match name.split_once(':') {
        Some((format, path)) => (format, path),
        None => ("oci", name),
    };
    (action, Resource::Repository { format: format_named(format).unwrap(), path })
}

pub fn may(policy: &Policy, who: &Identity, asked: &str) -> bool {
    let (action, what) = question(asked);
    policy.decide(who, action, &what)
}

pub fn claims(json: Value) -> Map<String, Value> {
    json.as_object().unwrap().clone()
}
