//! Every key of the policy flips a decision: what is parsed and not enforced would fail here.

use nora_auth::document::{
    Auth, PolicyDocument, Provider, ProviderKind, ProviderRule, RateLimit, Tenant,
};
use nora_auth::permission::format_named;
use nora_auth::policy::Policy;
use serde_json::{Value, json};

use crate::support::{
    claims, compiled, document, github, immutable, may, provider_rule, rule, tenant, texts, who,
};

const HASH: &str = "$2y$05$abcdefghijklmnopqrstuvabcdefghijklmnopqrstuvwxyzabcde";

/// The change of one key turns the answer, and nothing else was changed.
#[track_caller]
fn flips<T: PartialEq + std::fmt::Debug>(
    key: &str,
    base: &PolicyDocument,
    change: impl FnOnce(&mut PolicyDocument),
    answer: impl Fn(&Policy) -> T,
    (before, after): (T, T),
) {
    assert_eq!(answer(&compiled(base)), before, "{key}, before");
    let mut changed = base.clone();
    change(&mut changed);
    assert_eq!(answer(&compiled(&changed)), after, "{key}, after");
    FLIPPED.with_borrow_mut(|keys| keys.push(key.to_owned()));
}

thread_local! {
    static FLIPPED: std::cell::RefCell<Vec<String>> = const { std::cell::RefCell::new(Vec::new()) };
}

fn auth(document: &mut PolicyDocument) -> &mut Auth {
    document.auth.as_mut().unwrap()
}

fn workload(changes: Value) -> impl Fn(&Policy) -> Vec<String> {
    let mut run = claims(json!({
        "repository": "my-org/app", "ref": "refs/heads/main", "ref_protected": "true",
        "event_name": "push",
    }));
    run.extend(claims(changes));
    move |policy| {
        let grant = policy.workload_grant("github-actions", &run);
        grant.map(|grant| grant.permissions).unwrap_or_default()
    }
}

/// A document in which every field is set, to list the keys there are.
fn full() -> PolicyDocument {
    let mut full = document(vec![rule("user:alice", &["push:a"], &["push:b"])]);
    full.tenants = vec![Tenant {
        storage_quota: Some(1),
        artifact_quota: Some(1),
        rate_limit: RateLimit {
            push: Some(1),
            pull: Some(1),
            anonymous_pull: Some(1),
            pull_per_caller: Some(1),
        },
        ..tenant("t", "oci", &["t/*"])
    }];
    full.immutable = vec![immutable("prod/*", &["v*"])];
    full.audit.webhook = Some("https://example.com".to_owned());
    let rules = vec![provider_rule(&[("repository", "my-org/*")], &["push:my-org/*", "pull:*"])];
    auth(&mut full).oidc.providers = vec![github(rules)];
    full
}

fn keys_of(value: &Value, path: &str, keys: &mut Vec<String>) {
    // What a user names is not a key of ours.
    let named =
        ["auth.htpasswd", "auth.groups", "tenants.namespaces", "auth.oidc.providers.rules.match"];
    match value {
        Value::Object(fields) if !named.contains(&path) => {
            for (name, value) in fields {
                let dot = if path.is_empty() { "" } else { "." };
                keys_of(value, &format!("{path}{dot}{name}"), keys);
            }
        }
        Value::Array(list) if list.first().is_some_and(Value::is_object) => {
            keys_of(&list[0], path, keys);
        }
        _ => keys.push(path.to_owned()),
    }
}

fn rules_flip() {
    let alice = who("user:alice");
    let base = document(vec![rule("user:bob", &["pull:a"], &[])]);
    let no_yes = (false, true);
    let anonymous = |policy: &Policy| may(policy, &who("anonymous"), "pull a");
    flips("auth.anonymous", &base, |d| auth(d).anonymous = texts(&["pull:a"]), anonymous, no_yes);
    let password = |policy: &Policy| policy.htpasswd("alice").is_some();
    let user = |d: &mut PolicyDocument| {
        auth(d).htpasswd.insert("alice".to_owned(), HASH.to_owned());
    };
    flips("auth.htpasswd", &base, user, password, no_yes);
    let reader = |policy: &Policy| may(policy, &alice, "pull a");
    let subject = |d: &mut PolicyDocument| auth(d).rules[0].subject = "user:alice".to_owned();
    flips("auth.rules.subject", &base, subject, reader, no_yes);
    let mut own = base.clone();
    subject(&mut own);
    let more = |d: &mut PolicyDocument| auth(d).rules[0].permissions = texts(&["push:a"]);
    flips("auth.rules.permissions", &own, more, reader, (true, false));
    let deny = |d: &mut PolicyDocument| auth(d).rules[0].deny = texts(&["pull:**"]);
    flips("auth.rules.deny", &own, deny, reader, (true, false));
    let group = document(vec![rule("group:devs", &["pull:a"], &[])]);
    let leave = |d: &mut PolicyDocument| auth(d).groups.clear();
    flips("auth.groups", &group, leave, reader, (true, false));
}

fn workloads_flip() {
    let full = full();
    fn provider(d: &mut PolicyDocument) -> &mut Provider {
        &mut auth(d).oidc.providers[0]
    }
    fn rule_of(d: &mut PolicyDocument) -> &mut ProviderRule {
        &mut provider(d).rules[0]
    }
    let (all, pull, none) = (texts(&["push:my-org/*", "pull:*"]), texts(&["pull:*"]), texts(&[]));
    let key = |name: &str| format!("auth.oidc.{name}");
    let plain = || workload(json!({}));
    let off = |d: &mut PolicyDocument| auth(d).oidc.enabled = false;
    flips(&key("enabled"), &full, off, plain(), (all.clone(), none.clone()));
    let believed = |issuer: &'static str| move |p: &Policy| p.provider_by_issuer(issuer).is_some();
    let ours = believed("https://token.actions.githubusercontent.com");
    flips(&key("enabled"), &full, off, ours, (true, false));
    let rename = |d: &mut PolicyDocument| provider(d).name = "other".to_owned();
    flips(&key("providers.name"), &full, rename, plain(), (all.clone(), none.clone()));
    let move_to = |d: &mut PolicyDocument| provider(d).issuer = "https://id.example.com".to_owned();
    flips(
        &key("providers.issuer"),
        &full,
        move_to,
        believed("https://id.example.com"),
        (false, true),
    );
    let mut elsewhere = full.clone();
    move_to(&mut elsewhere);
    let generic = |d: &mut PolicyDocument| provider(d).kind = ProviderKind::Generic;
    let unprotected = || workload(json!({"event_name": "push", "ref_protected": null}));
    // Without a kind nothing says what a missing event means, so a run without one is not cut down.
    let silent = |policy: &Policy| {
        let run = claims(json!({"repository": "my-org/app"}));
        policy.workload_grant("github-actions", &run).map(|g| g.permissions).unwrap_or_default()
    };
    flips(&key("providers.kind"), &elsewhere, generic, silent, (pull.clone(), all.clone()));
    let require = |d: &mut PolicyDocument| provider(d).required_claims = texts(&["jti"]);
    flips(&key("providers.required_claims"), &full, require, plain(), (all.clone(), none.clone()));
    let other = |d: &mut PolicyDocument| {
        rule_of(d).claims.insert("ref".to_owned(), texts(&["refs/heads/other"]));
    };
    flips(&key("providers.rules.match"), &full, other, plain(), (all.clone(), none));
    let less = |d: &mut PolicyDocument| rule_of(d).permissions = texts(&["pull:*"]);
    flips(&key("providers.rules.permissions"), &full, less, plain(), (all.clone(), pull.clone()));
    let pull_request = workload(json!({"event_name": "pull_request"}));
    let trust = |d: &mut PolicyDocument| rule_of(d).pull_requests = true;
    flips(
        &key("providers.rules.pull_requests"),
        &full,
        trust,
        pull_request,
        (pull.clone(), all.clone()),
    );
    let trust = |d: &mut PolicyDocument| rule_of(d).unprotected_refs = true;
    flips(&key("providers.rules.unprotected_refs"), &full, trust, unprotected(), (pull, all));
    // These are decided where tokens are verified and made; what reaches there is what the document says.
    let served =
        |p: &Policy| p.provider_by_issuer("https://token.actions.githubusercontent.com").cloned();
    let algorithms = |p: &Policy| served(p).unwrap().algorithms;
    let stricter = |d: &mut PolicyDocument| provider(d).algorithms = texts(&["ES384"]);
    let expected = (texts(&["RS256", "ES256"]), texts(&["ES384"]));
    flips(&key("providers.algorithms"), &full, stricter, algorithms, expected);
    let audience = |p: &Policy| served(p).unwrap().audience;
    let renamed = |d: &mut PolicyDocument| provider(d).audience = "other".to_owned();
    let expected = ("https://nora.example.com".to_owned(), "other".to_owned());
    flips(&key("providers.audience"), &full, renamed, audience, expected);
    let seconds = |p: &Policy| p.document().auth.as_ref().map(|auth| auth.oidc.token_seconds);
    let shorter = |d: &mut PolicyDocument| auth(d).oidc.token_seconds = 60;
    flips(&key("token_seconds"), &full, shorter, seconds, (Some(900), Some(60)));
}

fn tenants_flip() {
    let full = full();
    let oci = format_named("oci").unwrap();
    let owner = |p: &Policy| p.tenant_of(oci, "t/app").to_string();
    let name = |d: &mut PolicyDocument| d.tenants[0].name = "u".to_owned();
    flips("tenants.name", &full, name, owner, ("t".to_owned(), "u".to_owned()));
    let names = |d: &mut PolicyDocument| {
        d.tenants[0].namespaces.insert("oci".to_owned(), texts(&["u/*"]));
    };
    flips("tenants.namespaces", &full, names, owner, ("t".to_owned(), "default".to_owned()));
    let limits = |p: &Policy| {
        let tenant = p.tenant("t").unwrap();
        (
            tenant.storage_quota,
            tenant.artifact_quota,
            tenant.rate_limit.push,
            tenant.rate_limit.pull,
        )
    };
    let one = Some(1);
    let before = (one, one, one, one);
    let storage = |d: &mut PolicyDocument| d.tenants[0].storage_quota = Some(2);
    flips("tenants.storage_quota", &full, storage, limits, (before, (Some(2), one, one, one)));
    let artifacts = |d: &mut PolicyDocument| d.tenants[0].artifact_quota = None;
    flips("tenants.artifact_quota", &full, artifacts, limits, (before, (one, None, one, one)));
    let push = |d: &mut PolicyDocument| d.tenants[0].rate_limit.push = Some(2);
    flips("tenants.rate_limit.push", &full, push, limits, (before, (one, one, Some(2), one)));
    let pull = |d: &mut PolicyDocument| d.tenants[0].rate_limit.pull = None;
    flips("tenants.rate_limit.pull", &full, pull, limits, (before, (one, one, one, None)));
    let shares = |p: &Policy| {
        let RateLimit { anonymous_pull, pull_per_caller, .. } = p.tenant("t").unwrap().rate_limit;
        (anonymous_pull, pull_per_caller)
    };
    let anonymous = |d: &mut PolicyDocument| d.tenants[0].rate_limit.anonymous_pull = Some(2);
    let flipped = ((one, one), (Some(2), one));
    flips("tenants.rate_limit.anonymous_pull", &full, anonymous, shares, flipped);
    let caller = |d: &mut PolicyDocument| d.tenants[0].rate_limit.pull_per_caller = None;
    flips("tenants.rate_limit.pull_per_caller", &full, caller, shares, ((one, one), (one, None)));
    let stays = |p: &Policy| p.is_immutable(oci, "prod/app", "v1");
    let elsewhere = |d: &mut PolicyDocument| d.immutable[0].repositories = "test/*".to_owned();
    flips("immutable.match", &full, elsewhere, stays, (true, false));
    let others = |d: &mut PolicyDocument| d.immutable[0].tags = texts(&["w*"]);
    flips("immutable.tags", &full, others, stays, (true, false));
    let kept = |p: &Policy| p.document().audit.retention_seconds;
    let shorter = |d: &mut PolicyDocument| d.audit.retention_seconds = 60;
    flips("audit.retention_seconds", &full, shorter, kept, (7_776_000, 60));
    let sink = |p: &Policy| p.document().audit.webhook.is_some();
    flips("audit.webhook", &full, |d| d.audit.webhook = None, sink, (true, false));
}

/// A key that is added to the document and to none of the functions above fails here by name.
#[test]
fn every_key_of_the_document_flips_an_answer() {
    rules_flip();
    workloads_flip();
    tenants_flip();
    let mut keys = Vec::new();
    keys_of(&serde_json::to_value(full()).unwrap(), "", &mut keys);
    let flipped = FLIPPED.with_borrow(Clone::clone);
    let missing: Vec<&String> = keys.iter().filter(|key| !flipped.contains(key)).collect();
    assert!(missing.is_empty(), "no test flips {missing:?}");
    assert!(keys.len() >= 27, "the walk over the document found only {keys:?}");
    let unknown: Vec<&String> = flipped.iter().filter(|key| !keys.contains(key)).collect();
    assert!(unknown.is_empty(), "flipped, but not in the document: {unknown:?}");
}

#[test]
fn without_auth_there_is_no_auth() {
    assert!(compiled(&document(vec![])).has_auth());
    assert!(!compiled(&PolicyDocument::default()).has_auth());
}
