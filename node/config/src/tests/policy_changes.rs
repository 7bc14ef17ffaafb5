//! What a policy says that another does not.

use nora_auth::document::{Auth, Rule};

use proptest::prelude::prop_assert_eq;

use super::policy::{any_document, example, texts};
use super::*;

/// The example, changed.
fn changed(change: impl Fn(&mut PolicyDocument)) -> PolicyDocument {
    let mut document = example();
    change(&mut document);
    document
}

fn auth(document: &mut PolicyDocument) -> &mut Auth {
    document.auth.as_mut().unwrap()
}

/// A named change and the lines that tell it.
type Case = (fn(&mut PolicyDocument), &'static [&'static str]);

const CASES: &[Case] = &[
    (|_| (), &[]),
    (|d| auth(d).rules.reverse(), &[]),
    (|d| auth(d).anonymous.clear(), &["- auth.anonymous: pull:public/*"]),
    (
        |d| auth(d).rules[0].permissions[0] = "push:prod/*".into(),
        &[
            "- auth.rules[0].permissions: push:frontend/*",
            "+ auth.rules[0].permissions: push:prod/*",
        ],
    ),
    (
        |d| auth(d).rules[1].permissions = texts(&["push:prod/*"]),
        &["+ auth.rules[1].permissions: push:prod/*"],
    ),
    (
        |d| {
            let deny = texts(&["push:*"]);
            let rule = Rule { subject: "robot:ci".into(), permissions: Vec::new(), deny };
            auth(d).rules.insert(0, rule);
        },
        &["+ auth.rules[0].subject: robot:ci", "+ auth.rules[0].deny: push:*"],
    ),
    (
        |d| drop(auth(d).rules.remove(1)),
        &["- auth.rules[1].subject: user:bob", "- auth.rules[1].deny: delete:*"],
    ),
    (
        |d| auth(d).groups.entry("team-frontend".into()).or_default().push("carol".into()),
        &["+ auth.groups.team-frontend: carol"],
    ),
    (
        |d| drop(auth(d).htpasswd.insert("carol".into(), "$2y$05$x".into())),
        &["+ auth.htpasswd: carol"],
    ),
    (
        |d| drop(auth(d).htpasswd.insert("alice".into(), "$2y$05$x".into())),
        &["~ auth.htpasswd: alice has another password"],
    ),
    (|d| auth(d).htpasswd.clear(), &["- auth.htpasswd: alice"]),
    (|d| auth(d).oidc.enabled = false, &["- auth.oidc.enabled: true"]),
    (
        |d| auth(d).oidc.token_seconds = 600,
        &["- auth.oidc.token_lifetime: 15m", "+ auth.oidc.token_lifetime: 10m"],
    ),
    (
        |d| auth(d).oidc.providers[0].algorithms = texts(&["RS256"]),
        &["- auth.oidc.providers.github-actions.algorithms: ES256"],
    ),
    (
        |d| auth(d).oidc.providers[0].rules[0].pull_requests = true,
        &["+ auth.oidc.providers.github-actions.rules[0].pull_requests: true"],
    ),
    (|d| d.tenants[0].storage_quota = None, &["- tenants.team-frontend.storage_quota: 50GB"]),
    (
        |d| d.tenants[0].rate_limit.push = Some(5),
        &[
            "- tenants.team-frontend.rate_limit.push: 100",
            "+ tenants.team-frontend.rate_limit.push: 5",
        ],
    ),
    (
        |d| d.tenants[0].namespaces.entry("oci".into()).or_default().push("web/*".into()),
        &["+ tenants.team-frontend.namespaces.oci: web/*"],
    ),
    (|d| d.immutable[0].tags.clear(), &["- policy.immutable[0].tags: v*"]),
    (|d| d.audit.retention_seconds = 3600, &["- audit.retention: 2w", "+ audit.retention: 1h"]),
];

#[test]
fn each_change_is_told_by_its_lines_alone() {
    for (change, lines) in CASES {
        assert_eq!(policy_changes(&example(), &changed(change)), *lines);
    }
}

#[test]
fn taking_logins_away_altogether_is_told() {
    let none = changed(|document| document.auth = Some(Auth::default()));
    let open = changed(|document| document.auth = None);
    assert_eq!(policy_changes(&none, &open), ["- auth: asks for logins"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..Default::default() })]

    /// A policy is the same as itself however its lists are ordered, and another is told in both directions.
    #[test]
    fn different_policies_have_differences(
        (old, new) in (any_document(), any_document()),
    ) {
        let mut turned = old.clone();
        turned.immutable.reverse();
        turned.auth.iter_mut().for_each(|auth| auth.rules.reverse());
        prop_assert_eq!(policy_changes(&old, &turned), Vec::<String>::new());
        let (there, back) = (policy_changes(&old, &new), policy_changes(&new, &old));
        let count = |lines: &[String], sign| lines.iter().filter(|l| l.starts_with(sign)).count();
        prop_assert_eq!(count(&there, '+'), count(&back, '-'));
        prop_assert_eq!(count(&there, '-'), count(&back, '+'));
        let retention = |document: &PolicyDocument| document.audit.retention_seconds;
        prop_assert!(retention(&old) == retention(&new) || there.len() >= 2, "{:?}", there);
    }
}
