//! Workloads: who is meant, which events and refs are believed, and what is left of a rule.

use nora_auth::document::{Oidc, PolicyDocument, Provider, ProviderKind, ProviderRule};
use nora_auth::policy::{Effect, Policy, Refused};
use serde_json::{Value, json};

use crate::support::{claims, compiled, document, github, provider_rule, texts};

fn policy_of(provider: Provider) -> Policy {
    let mut document: PolicyDocument = document(vec![]);
    document.auth.as_mut().unwrap().oidc =
        Oidc { enabled: true, providers: vec![provider], ..Oidc::default() };
    compiled(&document)
}

fn push_rule(claims: &[(&str, &str)]) -> ProviderRule {
    provider_rule(claims, &["push:my-org/*", "pull:*"])
}

/// A push to a protected branch of my-org/app.
fn run(changes: Value) -> serde_json::Map<String, Value> {
    let mut run = claims(json!({
        "repository": "my-org/app", "repository_id": "1001", "repository_owner": "my-org",
        "repository_owner_id": "42", "ref": "refs/heads/main", "ref_protected": "true",
        "event_name": "push", "sub": "repo:my-org/app:ref:refs/heads/main",
    }));
    for (name, value) in claims(changes) {
        match value {
            Value::Null => run.remove(&name),
            value => run.insert(name, value),
        };
    }
    run
}

fn granted(policy: &Policy, claims: &serde_json::Map<String, Value>) -> Vec<String> {
    let name = &policy.document().auth.as_ref().unwrap().oidc.providers[0].name;
    let grant = policy.workload_grant(name, claims);
    assert_eq!(policy.explain_workload(name, claims).allowed, grant.is_ok());
    grant.map(|grant| grant.permissions).unwrap_or_default()
}

#[test]
fn every_claim_of_a_rule_must_match_within_its_segments() {
    let policy =
        policy_of(github(vec![push_rule(&[("repository", "my-org/*"), ("ref", "refs/heads/**")])]));
    let full = ["push:my-org/*", "pull:*"];
    for (changes, expected) in [
        (json!({}), &full[..]),
        (json!({"ref": "refs/heads/feature/x"}), &full),
        (json!({"repository": "my-org-evil/app"}), &[]),
        (json!({"repository": "my-org/app/x"}), &[]),
        (json!({"repository": "evil/my-org/app"}), &[]),
        (json!({"repository": "My-org/app"}), &[]),
        (json!({"repository": "my-org"}), &[]),
        (json!({"repository": "my-org/app\n"}), &[]),
        (json!({"repository": null}), &[]),
        (json!({"repository": ["my-org/app"]}), &[]),
        (json!({"repository": {"x": "my-org/app"}}), &[]),
        (json!({"ref": "refs/tags/v1"}), &[]),
        (json!({"ref": null}), &[]),
    ] {
        assert_eq!(granted(&policy, &run(changes.clone())), expected, "{changes}");
    }
    let grant = policy.workload_grant("github-actions", &run(json!({}))).unwrap();
    assert_eq!(grant.rules, [0]);
    assert_eq!(grant.subject, "my-org/app@refs/heads/main");
}

#[test]
fn rules_that_know_an_owner_by_name_alone_are_named() {
    let by_name = push_rule(&[("repository", "my-org/*"), ("ref", "refs/heads/main")]);
    let pinned = push_rule(&[("repository", "my-org/*"), ("repository_owner_id", "42")]);
    let of_one = push_rule(&[("repository_id", "1001")]);
    let reads = provider_rule(&[("repository", "my-org/*")], &["pull:my-org/*"]);
    let policy = policy_of(github(vec![pinned, by_name.clone(), of_one, reads]));
    let told = policy.owners_by_name();
    assert_eq!(told.len(), 1, "{told:?}");
    let place = "auth.oidc.providers[0].rules[1].match: ";
    assert!(told[0].starts_with(place) && told[0].contains("`repository_owner_id`"), "{told:?}");
    let gitlab = |claims: &[(&str, &str)]| Provider {
        kind: ProviderKind::Gitlab,
        issuer: "https://gitlab.com".into(),
        rules: vec![push_rule(claims)],
        ..github(Vec::new())
    };
    let told = policy_of(gitlab(&[("project_path", "my-org/**")])).owners_by_name();
    assert!(told.len() == 1 && told[0].contains("`namespace_id`"), "{told:?}");
    let pinned = gitlab(&[("project_path", "my-org/**"), ("namespace_id", "7")]);
    assert!(policy_of(pinned).owners_by_name().is_empty());
    // Nobody but the operator gives out names there.
    let own = Provider {
        kind: ProviderKind::Generic,
        issuer: "https://ci.example.com".into(),
        ..github(vec![by_name])
    };
    assert!(policy_of(own).owners_by_name().is_empty());
}

/// What was exchanged is judged again by the rules that are there by then.
#[test]
fn a_grant_is_decided_again_by_the_claims_that_decided_it() {
    let owners = push_rule(&[("repository_owner_id", "42")]);
    let before = policy_of(github(vec![owners.clone()]));
    let mut claims = run(json!({"jti": "1", "actor": "somebody", "environment": "production"}));
    claims.insert("iss".into(), json!("https://token.actions.githubusercontent.com"));
    let grant = before.workload_grant("github-actions", &claims).unwrap();
    assert!(!grant.claims.contains_key("jti") && !grant.claims.contains_key("actor"));
    let kept = serde_json::to_vec(&grant.claims).unwrap();
    let again = |provider: Provider| {
        let grant = policy_of(provider).workload_grant_again("github-actions", &kept);
        grant.map(|grant| grant.permissions).unwrap_or_default()
    };
    let both = ["push:my-org/*", "pull:*"];
    assert_eq!(again(github(vec![owners.clone()])), both);
    // More, less, another or none.
    let wider = provider_rule(&[("repository", "my-org/*")], &["delete:my-org/*"]);
    assert_eq!(
        again(github(vec![owners.clone(), wider])),
        [&both[..], &["delete:my-org/*"]].concat()
    );
    let narrower = provider_rule(&[("repository_owner_id", "42")], &["pull:my-org/app"]);
    assert_eq!(again(github(vec![narrower])), ["pull:my-org/app"]);
    let nothing: [&str; 0] = [];
    assert_eq!(again(github(vec![push_rule(&[("repository_owner_id", "43")])])), nothing);
    assert_eq!(again(github(vec![])), nothing);
    // What a rule asks for only since is not known of it.
    let stricter = push_rule(&[("repository_owner_id", "42"), ("environment", "production")]);
    assert_eq!(again(github(vec![stricter])), nothing);
    // The safe defaults count again, too.
    let branch = run(json!({"ref_protected": "false", "iss": claims["iss"]}));
    let lifted = ProviderRule { unprotected_refs: true, ..owners.clone() };
    let lifted = policy_of(github(vec![lifted])).workload_grant("github-actions", &branch).unwrap();
    let kept_of_branch = serde_json::to_vec(&lifted.claims).unwrap();
    let now = before.workload_grant_again("github-actions", &kept_of_branch).unwrap();
    assert_eq!((lifted.permissions, now.permissions), (texts(&both), texts(&["pull:*"])));
    // The name is another issuer's, or the issuer has another name.
    let moved = Provider { issuer: "https://evil.example".into(), ..github(vec![owners.clone()]) };
    assert_eq!(again(moved), nothing);
    let renamed = Provider { name: "ci".into(), ..github(vec![owners]) };
    assert_eq!(again(renamed), nothing);
    for damaged in [&b""[..], b"{", b"[]", b"{}"] {
        assert!(before.workload_grant_again("github-actions", damaged).is_err());
    }
}

/// An owner that was deleted and registered again by somebody else has another id; a name that only looks like the
/// owner's, or a `sub` that reads like it, is somebody else's.
#[test]
fn recycled_owners_and_squatted_names_get_nothing() {
    let pinned = push_rule(&[("repository", "my-org/*"), ("repository_owner_id", "42")]);
    let policy = policy_of(github(vec![pinned]));
    for (changes, allowed) in [
        (json!({}), true),
        (json!({"repository_owner_id": 42}), true),
        (json!({"repository_owner_id": "43"}), false),
        (json!({"repository_owner_id": "420"}), false),
        (json!({"repository_owner_id": 42.5}), false),
        (json!({"repository_owner_id": null}), false),
        (
            json!({"repository": "my-org-app/x", "sub": "repo:my-org/app:ref:refs/heads/main"}),
            false,
        ),
        (json!({"repository": "my-org-/app"}), false),
        (json!({"repository": "-my-org/app"}), false),
    ] {
        assert_eq!(!granted(&policy, &run(changes.clone())).is_empty(), allowed, "{changes}");
    }
}

/// Event, ref and rule: what a run gets of `push:my-org/*` and `pull:*`.
#[test]
fn events_and_refs_on_github() {
    let trusted = ["push", "schedule", "workflow_dispatch", "release", "repository_dispatch"];
    let untrusted = [
        "pull_request",
        "pull_request_target",
        "pull_request_review",
        "pull_request_review_comment",
        "issue_comment",
        "issues",
        "workflow_run",
        "merge_group",
        "fork",
        "an_event_of_tomorrow",
    ];
    let events = trusted.iter().map(|e| (json!(e), true));
    let events = events.chain(untrusted.iter().map(|e| (json!(e), false)));
    for (event, event_ok) in events.chain([(Value::Null, false), (json!(["push"]), false)]) {
        for (protected, ref_ok) in [
            (json!("true"), true),
            (json!(true), true),
            (json!("false"), false),
            (json!(false), false),
            (json!("TRUE"), false),
            (Value::Null, false),
        ] {
            for (pull_requests, unprotected_refs) in
                [(false, false), (true, false), (false, true), (true, true)]
            {
                let mut rule = push_rule(&[("repository", "my-org/*")]);
                rule.pull_requests = pull_requests;
                rule.unprotected_refs = unprotected_refs;
                let policy = policy_of(github(vec![rule]));
                let run = run(json!({"event_name": event, "ref_protected": protected}));
                let full = (event_ok || pull_requests) && (ref_ok || unprotected_refs);
                let expected: &[&str] =
                    if full { &["push:my-org/*", "pull:*"] } else { &["pull:*"] };
                let case = format!("{event} {protected} {pull_requests} {unprotected_refs}");
                assert_eq!(granted(&policy, &run), expected, "{case}");
            }
        }
    }
}

/// Whoever can push a branch can name an environment, so it counts only if the rule names it.
#[test]
fn an_environment_stands_for_a_protected_ref_if_the_rule_names_it() {
    let unprotected = json!({"ref_protected": "false", "environment": "production"});
    let any = policy_of(github(vec![push_rule(&[("repository", "my-org/*")])]));
    assert_eq!(granted(&any, &run(unprotected.clone())), ["pull:*"]);
    let named = push_rule(&[("repository", "my-org/*"), ("environment", "production")]);
    let named = policy_of(github(vec![named]));
    assert_eq!(granted(&named, &run(unprotected.clone())), ["push:my-org/*", "pull:*"]);
    // A wildcard would match one that is made for the purpose.
    let wild = push_rule(&[("repository", "my-org/*"), ("environment", "prod*")]);
    let wild = policy_of(github(vec![wild]));
    assert_eq!(granted(&wild, &run(unprotected.clone())), ["pull:*"]);
    let other = json!({"ref_protected": "false", "environment": "mine"});
    assert!(granted(&named, &run(other)).is_empty());
    let pull_request = json!({"environment": "production", "event_name": "pull_request"});
    assert_eq!(granted(&named, &run(pull_request)), ["pull:*"]);
}

#[test]
fn sources_and_refs_on_gitlab() {
    for (source, protected, environment, expected) in [
        ("push", "true", None, true),
        ("push", "false", None, false),
        ("web", "true", None, true),
        ("schedule", "true", None, true),
        ("merge_request_event", "true", None, false),
        ("external_pull_request_event", "true", None, false),
        ("parent_pipeline", "true", None, true),
        ("parent_pipeline", "false", None, false),
        ("of_tomorrow", "true", None, false),
        ("push", "false", Some("true"), true),
        ("push", "false", Some("false"), false),
        ("merge_request_event", "false", Some("true"), false),
    ] {
        let mut gitlab = github(vec![push_rule(&[("project_path", "my-org/**")])]);
        gitlab.issuer = "https://gitlab.example.com".to_owned();
        gitlab.kind = ProviderKind::Gitlab;
        let policy = policy_of(gitlab);
        let mut run = claims(json!({
            "project_path": "my-org/team/app", "ref": "main", "ref_protected": protected,
            "pipeline_source": source,
        }));
        if let Some(environment) = environment {
            run.insert("environment".into(), json!("production"));
            run.insert("environment_protected".into(), json!(environment));
        }
        let wanted: &[&str] = if expected { &["push:my-org/*", "pull:*"] } else { &["pull:*"] };
        assert_eq!(granted(&policy, &run), wanted, "{source} {protected} {environment:?}");
        let grant = policy.workload_grant("github-actions", &run).unwrap();
        assert_eq!(grant.subject, "my-org/team/app@main");
    }
}

/// Of an issuer that nobody knows nothing is expected, but what it says is heard.
#[test]
fn generic_issuers() {
    let rule = push_rule(&[("sub", "service-a")]);
    let generic = Provider {
        issuer: "https://id.example.com".to_owned(),
        kind: ProviderKind::Generic,
        ..github(vec![rule])
    };
    let policy = policy_of(generic);
    for (more, full) in [
        (json!({}), true),
        (json!({"ref_protected": "true"}), true),
        (json!({"ref_protected": "false"}), false),
        (json!({"event_name": "push"}), true),
        (json!({"event_name": "pull_request"}), false),
        (json!({"pipeline_source": "merge_request_event"}), false),
    ] {
        let mut run = claims(more.clone());
        run.insert("sub".into(), json!("service-a"));
        let wanted: &[&str] = if full { &["push:my-org/*", "pull:*"] } else { &["pull:*"] };
        assert_eq!(granted(&policy, &run), wanted, "{more}");
    }
    let long = format!("service-a\u{1b}[31m{}", "x".repeat(500));
    assert!(granted(&policy, &claims(json!({ "sub": long }))).is_empty());
}

/// The document may call GitHub's issuer generic; its runs are judged as GitHub's nevertheless.
#[test]
fn known_issuers_keep_their_defaults() {
    let generic = Provider {
        kind: ProviderKind::Generic,
        ..github(vec![push_rule(&[("repository", "my-org/*")])])
    };
    let policy = policy_of(generic);
    assert_eq!(granted(&policy, &run(json!({"event_name": null}))), ["pull:*"]);
    let provider =
        policy.provider_by_issuer("https://token.actions.githubusercontent.com").unwrap();
    assert_eq!(provider.kind, ProviderKind::Github);
    assert_eq!(provider.algorithms, ["RS256", "ES256"]);
    for other in [
        "https://token.actions.githubusercontent.com/",
        "https://TOKEN.actions.githubusercontent.com",
        "",
    ] {
        assert!(policy.provider_by_issuer(other).is_none(), "{other}");
    }
}

#[test]
fn subjects_are_short_and_printable() {
    let policy = policy_of(github(vec![push_rule(&[("repository_owner", "my-org")])]));
    let dirty = format!("my-org/\u{1b}[31mapp\u{202e}{}", "x".repeat(500));
    let grant =
        policy.workload_grant("github-actions", &run(json!({ "repository": dirty }))).unwrap();
    assert_eq!(grant.subject.len(), 128);
    assert!(grant.subject.starts_with("my-org/_[31mapp_xxx"), "{}", grant.subject);
}

#[test]
fn a_grant_is_the_union_and_a_refusal_says_why() {
    let mut provider = github(vec![
        push_rule(&[("repository", "my-org/*")]),
        provider_rule(&[("repository", "my-org/app")], &["admin:my-org/app", "pull:*"]),
        provider_rule(&[("repository", "other/*")], &["push:other/*"]),
        provider_rule(&[("repository", "writer/*")], &["push:writer/*"]),
    ]);
    provider.required_claims = texts(&["repository_id"]);
    let policy = policy_of(provider);
    let name = "github-actions";
    let grant = policy.workload_grant(name, &run(json!({}))).unwrap();
    assert_eq!(grant.permissions, ["push:my-org/*", "pull:*", "admin:my-org/app"]);
    assert_eq!(grant.rules, [0, 1]);
    let pull_request = run(json!({"event_name": "pull_request"}));
    let grant = policy.workload_grant(name, &pull_request).unwrap();
    assert_eq!(grant.permissions, ["pull:*", "pull:my-org/app"]);

    let refused = |changes| policy.workload_grant(name, &run(changes)).unwrap_err();
    assert_eq!(refused(json!({"repository": "x/y"})), Refused::NoRule);
    let writer = json!({"repository": "writer/x", "event_name": "pull_request"});
    assert_eq!(refused(writer), Refused::OnlyPull);
    let missing = Refused::ClaimMissing { claim: "repository_id".to_owned() };
    assert_eq!(refused(json!({"repository_id": null})), missing);
    assert_eq!(policy.workload_grant("nobody", &run(json!({}))), Err(Refused::UnknownProvider));

    let explained = policy.explain_workload(name, &pull_request);
    let step = |place: &str, effect| {
        explained.steps.iter().any(|step| step.place.ends_with(place) && step.effect == effect)
    };
    assert!(step("providers[0].rules[0].permissions[0]", Effect::CutsDown), "{explained:?}");
    assert!(step("providers[0].rules[0].permissions[1]", Effect::Allows));
    assert!(step("providers[0].rules[2].match", Effect::DoesNotMatch));
    let why = "claim `repository` is `my-org/app`, and the rule wants `other/*`";
    assert!(explained.steps.iter().any(|step| step.why == why), "{explained:?}");
}
