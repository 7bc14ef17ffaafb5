//! Who may do what: subjects, denies, scopes, grants, and the words that explain it.

use nora_auth::permission::{Action, Resource};
use nora_auth::policy::Effect;
use nora_domain::Format;

use crate::support::{compiled, document, may, question, rule, set, who};

const PEOPLE: [&str; 10] = [
    "anonymous",
    "user:alice",
    "user:bob",
    "robot:ci",
    "robot:alice",
    "user:bob group=ops",
    "user:bob token=deploy",
    "user:alice token=deploy",
    "oidc:github-actions",
    "oidc:other",
];

/// Which of the people a rule with that subject is about.
#[test]
fn subjects() {
    for (subject, about) in [
        ("anonymous", &PEOPLE[..]),
        ("authenticated", &PEOPLE[1..]),
        ("user:alice", &["user:alice", "user:alice token=deploy"]),
        ("robot:ci", &["robot:ci"]),
        ("robot:alice", &["robot:alice"]),
        ("alice", &["user:alice", "robot:alice", "user:alice token=deploy"]),
        // alice is in devs by [auth.groups], whatever kind of account has that name: there is one at a time.
        ("group:devs", &["user:alice", "robot:alice", "user:alice token=deploy"]),
        ("devs", &["user:alice", "robot:alice", "user:alice token=deploy"]),
        ("group:ops", &["user:bob group=ops"]),
        ("ops", &["user:bob group=ops"]),
        ("token:bob/deploy", &["user:bob token=deploy"]),
        ("oidc:github-actions", &["oidc:github-actions"]),
        ("nobody-at-all", &[]),
    ] {
        let policy = compiled(&document(vec![rule(subject, &["push:a/*"], &[])]));
        for person in PEOPLE {
            let expected = about.contains(&person);
            assert_eq!(may(&policy, &who(person), "push a/x"), expected, "{subject}: {person}");
            assert!(!may(&policy, &who(person), "pull a/x"), "{subject}: {person}");
            assert!(!may(&policy, &who(person), "push b/x"), "{subject}: {person}");
        }
    }
}

#[test]
fn without_rules_only_the_administrator_may() {
    let empty = compiled(&nora_auth::document::PolicyDocument::default());
    assert!(!empty.has_auth());
    for asked in ["pull a", "push a", "admin registry!"] {
        for person in PEOPLE {
            assert!(!may(&empty, &who(person), asked), "{person}: {asked}");
        }
        assert!(may(&empty, &who("admin"), asked));
    }
}

#[test]
fn a_deny_wins_wherever_it_stands() {
    for rules in [
        vec![rule("user:alice", &["*:*"], &["push:prod/*"])],
        vec![rule("group:devs", &[], &["push:prod/*"]), rule("user:alice", &["*:*"], &[])],
        vec![rule("user:alice", &["*:*"], &[]), rule("anonymous", &[], &["push:prod/*"])],
        vec![rule("alice", &["*:*"], &[]), rule("authenticated", &[], &["push:prod/*"])],
    ] {
        let policy = compiled(&document(rules));
        let alice = who("user:alice");
        assert!(!may(&policy, &alice, "push prod/app"));
        assert!(!may(&policy, &alice, "overwrite prod/team/app"));
        assert!(may(&policy, &alice, "pull prod/app"));
        assert!(may(&policy, &alice, "push product/app"));
        // A deny takes from what a token was granted, too.
        let mut granted = alice.clone();
        granted.grant = Some(set(&["push:prod/*"]));
        assert!(!may(&policy, &granted, "push prod/app"));
        assert!(may(&policy, &who("admin"), "push prod/app"), "rules are not about admin");
    }
}

#[test]
fn a_scope_only_narrows() {
    let policy = compiled(&document(vec![rule("user:alice", &["pull:*", "push:a/*"], &[])]));
    let mut alice = who("user:alice");
    alice.scope = Some(set(&["pull:a/*", "delete:*", "push:b/*"]));
    assert!(may(&policy, &alice, "pull a/x"));
    for asked in ["pull b/x", "push a/x", "delete a/x", "push b/x", "admin registry!"] {
        assert!(!may(&policy, &alice, asked), "{asked}");
    }
    let mut admin = who("admin");
    admin.scope = Some(set(&["pull:a/*"]));
    assert!(may(&policy, &admin, "pull a/x"));
    assert!(!may(&policy, &admin, "push a/x"));
    assert!(!may(&policy, &admin, "admin registry!"));
    admin.scope = Some(set(&[]));
    assert!(!may(&policy, &admin, "pull a/x"), "an empty scope leaves nothing");
}

#[test]
fn a_grant_gives_and_is_cut_down_like_a_rule() {
    let policy = compiled(&document(vec![]));
    let mut job = who("oidc:github-actions");
    job.grant = Some(set(&["push:my-org/*"]));
    assert!(may(&policy, &job, "push my-org/app"));
    assert!(!may(&policy, &job, "push my-org-evil/app"));
    job.scope = Some(set(&["push:my-org/app"]));
    assert!(may(&policy, &job, "push my-org/app"));
    assert!(!may(&policy, &job, "push my-org/other"));
}

/// Leaving a group of the policy counts at once, although the identity was made before.
#[test]
fn groups_of_the_policy_are_looked_up_each_time() {
    let mut with = document(vec![rule("group:devs", &["push:*"], &[])]);
    let alice = who("user:alice");
    assert!(may(&compiled(&with), &alice, "push a"));
    with.auth.as_mut().unwrap().groups.get_mut("devs").unwrap().retain(|user| user != "alice");
    assert!(!may(&compiled(&with), &alice, "push a"));
}

#[test]
fn explanations_name_the_rule_that_decided() {
    let rules = vec![
        rule("robot:ci", &["push:*"], &[]),
        rule("user:alice", &["pull:*", "push:prod/*"], &[]),
        rule("group:devs", &[], &["push:prod/db"]),
    ];
    let policy = compiled(&document(rules));
    let explain = |who: &nora_auth::identity::Identity, asked| {
        let (action, what) = question(asked);
        policy.explain(who, action, &what)
    };
    let alice = who("user:alice");
    let yes = explain(&alice, "push prod/app");
    assert!(yes.allowed);
    let summary =
        "user:alice may push oci:prod/app, because of auth.rules[1].permissions[1] (`push:prod/*`)";
    assert_eq!(yes.summary, summary);
    assert_eq!(yes.steps[0].place, "auth.rules[0].subject");
    assert_eq!(yes.steps[0].effect, Effect::DoesNotMatch);

    let no = explain(&alice, "push prod/db");
    assert!(!no.allowed);
    assert!(no.summary.contains("because of auth.rules[2].deny[0]"), "{}", no.summary);

    let nothing = explain(&who("user:bob"), "pull a");
    assert_eq!(nothing.summary, "user:bob may not pull oci:a: no rule allows it");

    let mut scoped = alice.clone();
    scoped.scope = Some(set(&["pull:a"]));
    let cut = explain(&scoped, "push prod/app");
    assert_eq!(cut.steps[0].effect, Effect::CutsDown);
    assert!(cut.summary.contains("because of the token's scope"), "{}", cut.summary);
    assert!(explain(&who("admin"), "admin registry!").allowed);
    let json = serde_json::to_value(&cut).unwrap();
    assert_eq!(json["steps"][0]["effect"], "cuts_down");
}

/// Lists look only at names that begin so. They must not leave out a name that the caller may pull.
#[test]
fn a_name_that_begins_otherwise_is_refused() {
    let permissions = [
        "pull:team/*",
        "push,pull:team/app",
        "pull,overwrite:a/b",
        "pull:one/*/x-[0-9]*",
        "pull:two/{a,b}/c*",
        "pull:maven:com.acme",
        "pull:npm:@acme/*",
        "delete:gone/*",
    ];
    let rules = vec![
        rule("user:alice", &permissions, &["pull:team/secret/*"]),
        rule("group:devs", &["admin:dev/*"], &[]),
        rule("user:bob", &["pull:*"], &[]),
    ];
    let policy = compiled(&document(rules));
    let segments =
        ["team", "team-x", "teams", "a", "b", "one", "two", "app", "x-1", "dev", "@acme"];
    let mut names: Vec<String> = segments.iter().map(ToString::to_string).collect();
    for depth in 0..2 {
        let longer = names.iter().filter(|name| name.matches('/').count() == depth);
        let longer: Vec<_> = longer
            .flat_map(|name| segments.iter().map(move |last| format!("{name}/{last}")))
            .collect();
        names.extend(longer);
    }
    names.extend(["com.acme:lib", "com.acme.x:lib", "org.other:lib"].map(ToOwned::to_owned));
    for person in ["anonymous", "user:alice", "user:bob", "admin"].map(who) {
        for format in Format::ALL {
            let starts = policy.starts(&person, Action::Pull, format);
            assert!(
                starts.is_sorted() && starts.windows(2).all(|two| !two[1].starts_with(&two[0]))
            );
            for name in &names {
                let what = Resource::Repository { format, path: name };
                let may = policy.decide(&person, Action::Pull, &what);
                let begins = starts.iter().any(|start| name.starts_with(start.as_str()));
                assert!(!may || begins, "{person:?} may pull {format}:{name}, and lists skip it");
            }
        }
    }
    let of_alice = policy.starts(&who("user:alice"), Action::Pull, Format::Oci);
    assert_eq!(of_alice, ["a/b", "dev/", "one/", "team/", "two/"]);
    assert!(policy.starts(&who("anonymous"), Action::Pull, Format::Oci).is_empty());
}
