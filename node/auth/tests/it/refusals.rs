//! Policies that are refused: each with its place, and all errors at once.

use std::collections::BTreeMap;

use nora_auth::document::{
    Auth, Immutable, PolicyDocument, Provider, ProviderKind, ProviderRule, RateLimit, Tenant,
};
use nora_auth::policy::{Policy, PolicyError};

use crate::support::{document, github, immutable, provider_rule, rule, tenant, texts};

fn errors(document: &PolicyDocument) -> Vec<PolicyError> {
    Policy::compile(document).err().unwrap_or_default()
}

/// The change makes one error, there and with that reason, of a document that was fine.
#[track_caller]
fn check(place: &str, reason: &str, change: impl FnOnce(&mut PolicyDocument)) {
    let mut document = document(vec![rule("user:alice", &["pull:*"], &[])]);
    assert_eq!(errors(&document), []);
    change(&mut document);
    let errors = errors(&document);
    assert_eq!(errors.len(), 1, "{place}: {errors:?}");
    assert_eq!(errors[0].place, place, "{errors:?}");
    assert!(errors[0].reason.contains(reason), "{place}: {}", errors[0].reason);
}

fn auth(document: &mut PolicyDocument) -> &mut Auth {
    document.auth.as_mut().unwrap()
}

#[test]
fn rules() {
    for (subject, reason) in [
        ("usr:alice", "no kind of subject"),
        ("oidc:nobody", "no provider is called"),
        ("user:", "empty"),
        ("", "empty"),
        ("user:a b", "ASCII letters"),
        ("user:a:b", "ASCII letters"),
        ("user:admin", "reserved"),
        ("robot:Anonymous", "reserved"),
        ("admin", "may do everything already"),
        ("token:a/b/c", "ASCII letters"),
        ("token:deploy", "does not say whose"),
    ] {
        check("auth.rules[1].subject", reason, |document| {
            auth(document).rules.push(rule(subject, &["pull:a"], &[]));
        });
    }
    let long = "x".repeat(65);
    check("auth.rules[1].subject", "longer than 64", |document| {
        auth(document).rules.push(rule(&long, &["pull:a"], &[]));
    });
    check("auth.rules[1]", "says nothing", |document| {
        auth(document).rules.push(rule("bob", &[], &[]));
    });
    check("auth.rules[1]", "allows and denies `pull,push:a`", |document| {
        auth(document).rules.push(rule("bob", &["push,pull:a"], &["pull,push:oci:a"]));
    });
    check("auth.rules[1].permissions[1]", "did you mean `push`", |document| {
        auth(document).rules.push(rule("bob", &["pull:a", "psh:a"], &[]));
    });
    check("auth.rules[1].deny[0]", "names no repositories", |document| {
        auth(document).rules.push(rule("bob", &["pull:a"], &["push"]));
    });
    check("auth.anonymous[0]", "lower case", |document| {
        auth(document).anonymous = texts(&["pull:Public/*"]);
    });
}

#[test]
fn accounts() {
    let hash = "$2y$05$abcdefghijklmnopqrstuvabcdefghijklmnopqrstuvwxyzabcde";
    for (user, hash, reason) in [
        ("alice", "$apr1$secret-canary", "not bcrypt"),
        ("alice", "{SHA}secret-canary", "not bcrypt"),
        ("alice", "$2y$05$short-secret-canary", "not bcrypt"),
        ("admin", hash, "reserved"),
        ("a:b", hash, "ASCII letters"),
    ] {
        let place = format!("auth.htpasswd.{user}");
        check(&place, reason, |document| {
            auth(document).htpasswd.insert(user.to_owned(), hash.to_owned());
            let shown = format!("{:?}", errors(document));
            assert!(!shown.contains("secret-canary"), "a hash is quoted: {shown}");
        });
    }
    check("auth.groups.authenticated", "reserved", |document| {
        auth(document).groups.insert("authenticated".to_owned(), vec![]);
    });
    check("auth.groups.devs[2]", "no name for a user", |document| {
        auth(document).groups.get_mut("devs").unwrap().push("a/b".to_owned());
    });
}

#[test]
fn tenants() {
    for (format, text, reason) in [
        ("oci", "*", "nobody can own everything"),
        ("oci", "front*/x", "a prefix"),
        ("oci", "frontend/*/x", "a prefix"),
        ("oci", "frontend-*", "a prefix"),
        ("oci", "frontend/**", "a prefix"),
        ("oci", "Frontend/*", "lower case"),
        ("oci", "", "names no repositories"),
        ("npm", "@acme/u*", "a prefix"),
        ("pypi", "acme-*-x", "a prefix"),
        ("pypi", "a?me-*", "only its end"),
        ("pypi", "acme/*", "no `/`"),
        ("maven", "com.*.acme", "a prefix"),
    ] {
        let place = format!("tenants[0].namespaces.{format}[0]");
        check(&place, reason, |document| document.tenants = vec![tenant("a", format, &[text])]);
    }
    check("tenants[0].namespaces.npmm", "did you mean `npm`", |document| {
        document.tenants = vec![tenant("a", "npmm", &["x"])];
    });
    for (mine, theirs) in [("x/*", "x/*"), ("x", "x/*"), ("x/y", "x/y")] {
        check("tenants[1].namespaces.oci[0]", "tenants[0] claims", |document| {
            document.tenants = vec![tenant("a", "oci", &[mine]), tenant("b", "oci", &[theirs])];
        });
    }
    check("tenants[1].name", "tenants[0] has the same name", |document| {
        document.tenants = vec![tenant("a", "oci", &["x"]), tenant("a", "oci", &["y"])];
    });
    for (name, reason) in [("", "empty"), ("default", "choose another"), ("a\nb", "control")] {
        check("tenants[0].name", reason, |document| {
            document.tenants = vec![tenant(name, "oci", &["x"])];
        });
    }
    let of = |change: fn(&mut Tenant)| {
        move |document: &mut PolicyDocument| {
            let mut tenant = tenant("a", "oci", &["x"]);
            change(&mut tenant);
            document.tenants = vec![tenant];
        }
    };
    let zero = "0 would refuse everything";
    check("tenants[0].storage_quota", zero, of(|tenant| tenant.storage_quota = Some(0)));
    check("tenants[0].artifact_quota", zero, of(|tenant| tenant.artifact_quota = Some(0)));
    check("tenants[0].rate_limit.push", zero, of(|tenant| tenant.rate_limit.push = Some(0)));
    let pull = RateLimit { pull: Some(0), ..RateLimit::default() };
    check("tenants[0].rate_limit.pull", zero, |document| {
        document.tenants = vec![Tenant { rate_limit: pull, ..tenant("a", "oci", &["x"]) }];
    });
}

#[test]
fn immutable_and_audit() {
    let with =
        |rule: Immutable| move |document: &mut PolicyDocument| document.immutable = vec![rule];
    check("policy.immutable[0].match", "unknown format", with(immutable("nmp:x", &[])));
    check("policy.immutable[0].match", "names no repositories", with(immutable("", &[])));
    check(
        "policy.immutable[0].tags[1]",
        "no tag is like that",
        with(immutable("a", &["v*", "a/b"])),
    );
    check("policy.immutable[0].tags[0]", "malformed", with(immutable("a", &["[v"])));
    check("audit.retention_seconds", "gone at once", |document| {
        document.audit.retention_seconds = 0;
    });
    check("audit.webhook", "not a URL", |document| {
        document.audit.webhook = Some("example.com".to_owned());
    });
}

#[track_caller]
fn provider(place: &str, reason: &str, change: impl FnOnce(&mut Provider)) {
    let place = format!("auth.oidc.providers[0].{place}");
    check(&place, reason, |document| change(&mut auth(document).oidc.providers[0]));
}

#[test]
fn providers() {
    for (issuer, reason) in [
        ("", "beginning with https://"),
        ("id.example.com", "beginning with https://"),
        ("ftp://id.example.com", "beginning with https://"),
        ("http://id.example.com", "without TLS"),
        ("http://localhost.example.com", "without TLS"),
        ("http://127.0.0.1.example.com", "without TLS"),
        ("http://[::2]:80", "without TLS"),
        ("http://localhost@example.com", "no user name"),
        ("https://id.example.com?x=1", "neither a query nor a fragment"),
        ("https://id.example.com#x", "neither a query nor a fragment"),
        ("https:///x", "names no host"),
        ("https://id example.com", "no spaces"),
    ] {
        provider("issuer", reason, |provider| {
            provider.issuer = issuer.to_owned();
        });
    }
    for issuer in ["http://127.0.0.1:5556/dex", "http://localhost", "http://[::1]:80/x"] {
        let mut fine = document(vec![]);
        auth(&mut fine).oidc.providers[0].issuer = issuer.to_owned();
        assert_eq!(errors(&fine), [], "{issuer}");
    }
    provider("name", "ASCII letters", |provider| provider.name = "a:b".to_owned());
    provider("audience", "no audience", |provider| provider.audience = " ".to_owned());
    for algorithm in ["none", "HS256", "HS512", "rs256", "ES256K", ""] {
        provider("algorithms[1]", "choose among", |provider| {
            provider.algorithms = texts(&["RS256", algorithm]);
        });
    }
    provider("required_claims[0]", "no name", |provider| {
        provider.required_claims = texts(&[""]);
    });
    check("auth.oidc.providers[1].name", "the same name", |document| {
        let other = Provider { issuer: "https://id.example.com".to_owned(), ..github(vec![]) };
        auth(document).oidc.providers.push(other);
    });
    check("auth.oidc.providers[1].issuer", "the same issuer", |document| {
        let other = Provider { name: "other".to_owned(), ..github(vec![]) };
        auth(document).oidc.providers.push(other);
    });
    for seconds in [0, 59, 3_601, u64::MAX] {
        check("auth.oidc.token_seconds", "between 60 and 3600", |document| {
            auth(document).oidc.token_seconds = seconds;
        });
    }
}

#[track_caller]
fn provider_rule_error(kind: ProviderKind, place: &str, reason: &str, rule: ProviderRule) {
    provider(&format!("rules[0].{place}"), reason, |provider| {
        if kind != ProviderKind::Github {
            provider.issuer = "https://id.example.com".to_owned();
        }
        provider.kind = kind;
        provider.rules = vec![rule];
    });
}

#[test]
fn provider_rules() {
    let (hub, lab, any) = (ProviderKind::Github, ProviderKind::Gitlab, ProviderKind::Generic);
    let pinned = ("repository", "my-org/*");
    let pull = &["pull:*"];
    provider_rule_error(hub, "match", "every token", provider_rule(&[], pull));
    for glob in ["*", "*/x", "**", "my-*/x", "{a,b}/x", "[m]y-org/x"] {
        let rule = provider_rule(&[("repository", glob)], pull);
        provider_rule_error(hub, "match", "not whose runs", rule);
        let rule = provider_rule(&[("namespace_path", glob)], pull);
        provider_rule_error(lab, "match", "not whose runs", rule);
    }
    // One glob that pins nobody undoes another that does.
    let mut rule = provider_rule(&[pinned], pull);
    rule.claims.insert("repository".to_owned(), texts(&["my-org/*", "*/x"]));
    provider_rule_error(hub, "match", "not whose runs", rule);
    let rule = provider_rule(&[("ref", "refs/heads/main")], pull);
    provider_rule_error(hub, "match", "not whose runs", rule.clone());
    provider_rule_error(lab, "match", "not whose runs", rule);
    let rule = provider_rule(&[pinned, ("sub", "repo:my-org/*")], pull);
    provider_rule_error(hub, "match.sub[0]", "compared whole", rule);
    let rule = provider_rule(&[("sub", "service-*")], pull);
    provider_rule_error(any, "match.sub[0]", "compared whole", rule);
    let rule = provider_rule(&[pinned, ("ref", "[x")], pull);
    provider_rule_error(hub, "match.ref[0]", "malformed", rule);
    let rule = provider_rule(&[pinned, ("ref", "")], pull);
    provider_rule_error(hub, "match.ref[0]", "matches nothing", rule);
    let mut rule = provider_rule(&[pinned], pull);
    rule.claims.insert("ref".to_owned(), vec![]);
    provider_rule_error(hub, "match.ref", "no value", rule);
    let rule = provider_rule(&[pinned], &["pull:*", "psh:a"]);
    provider_rule_error(hub, "permissions[1]", "did you mean `push`", rule);
    provider_rule_error(hub, "permissions", "gives nothing", provider_rule(&[pinned], &[]));
    for admin in ["admin:*", "*:*", "pull,admin:*"] {
        let rule = provider_rule(&[pinned], &[admin]);
        provider_rule_error(hub, "permissions[0]", "never administrator", rule);
    }
    for (kind, claims, permission) in [
        (hub, ("repository_owner_id", "42"), "admin:my-org/*"),
        (hub, ("repository", "my-org/**"), "pull:*"),
        (lab, ("project_id", "7"), "pull:*"),
        (any, ("team", "a*"), "pull:*"),
        (any, ("sub", "service-a"), "pull:*"),
    ] {
        let mut fine = document(vec![]);
        let provider = &mut auth(&mut fine).oidc.providers[0];
        provider.issuer = "https://id.example.com".to_owned();
        provider.kind = kind;
        provider.rules = vec![provider_rule(&[claims], &[permission])];
        assert_eq!(errors(&fine), [], "{claims:?}");
    }
}

#[test]
fn all_errors_come_at_once() {
    let mut bad = document(vec![rule("x:y", &["nonsense"], &[]), rule("bob", &[], &[])]);
    bad.tenants = vec![tenant("default", "oci", &["*"])];
    bad.immutable = vec![immutable("", &["/"])];
    auth(&mut bad).oidc.token_seconds = 1;
    auth(&mut bad).htpasswd = BTreeMap::from([("bob".to_owned(), "plain".to_owned())]);
    assert_eq!(errors(&bad).len(), 9, "{:#?}", errors(&bad));
}
