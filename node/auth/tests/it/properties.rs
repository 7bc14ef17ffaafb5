//! What holds for any policy and any question.

use nora_auth::identity::{Identity, Subject};
use nora_auth::permission::{Action, Permission, PermissionSet, Resource, format_named};
use nora_auth::policy::{Effect, Policy};
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use proptest::{collection, option, prop_assert, prop_assert_eq, sample};

use crate::support::{document, rule};

const FORMATS: [&str; 5] = ["oci", "npm", "pypi", "maven", "cargo"];

fn action() -> impl Strategy<Value = Action> {
    sample::select(Action::ALL.to_vec())
}

fn path() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => collection::vec(sample::select(vec!["a", "b", "ab", "@a", "a-b"]), 1..4)
            .prop_map(|segments| segments.join("/")),
        2 => collection::vec(sample::select(vec!["a", "b", "com"]), 1..4)
            .prop_map(|segments| format!("{}:b", segments.join("."))),
        1 => any::<String>(),
    ]
}

/// Texts of which most are permissions.
fn permission() -> impl Strategy<Value = String> {
    let actions = collection::vec(
        sample::select(vec!["pull", "push", "overwrite", "delete", "admin", "*"]),
        1..4,
    );
    let format = sample::select(vec!["", "", "oci:", "npm:", "pypi:", "maven:", "cargo:"]);
    let segment = sample::select(vec!["a", "b", "ab", "*", "**", "a*", "?", "[ab]", "{a,b}", "@a"]);
    let separator = sample::select(vec!["/", "/", "/", ".", ":"]);
    (actions, format, collection::vec((segment, separator), 1..4)).prop_map(
        |(actions, format, segments)| {
            let mut text = format!("{}:{format}", actions.join(","));
            for (at, (segment, separator)) in segments.iter().enumerate() {
                text.push_str(if at == 0 { "" } else { separator });
                text.push_str(segment);
            }
            text
        },
    )
}

fn valid(texts: Vec<String>) -> Vec<String> {
    texts.into_iter().filter(|text| Permission::parse(text).is_ok()).collect()
}

fn permissions() -> impl Strategy<Value = Vec<String>> {
    collection::vec(permission(), 0..6).prop_map(valid)
}

fn identity() -> impl Strategy<Value = Identity> {
    let subject = prop_oneof![
        Just(Subject::Anonymous),
        Just(Subject::Administrator),
        sample::select(vec!["alice", "bob"]).prop_map(|name| Subject::User(name.into())),
        Just(Subject::Robot("ci".into())),
        Just(Subject::Workload { provider: "github-actions".into(), subject: "x".into() }),
    ];
    let groups = collection::vec(sample::select(vec!["devs".to_owned(), "ops".to_owned()]), 0..3);
    let sets = (option::of(permissions()), option::of(permissions()));
    (subject, groups, option::of(Just("deploy".to_owned())), sets).prop_map(
        |(subject, groups, token, (scope, grant))| {
            let set = |texts: Vec<String>| PermissionSet::parse(texts).unwrap();
            Identity { subject, groups, token, scope: scope.map(set), grant: grant.map(set) }
        },
    )
}

fn policy() -> impl Strategy<Value = Policy> {
    let subjects = vec![
        "anonymous",
        "authenticated",
        "user:alice",
        "alice",
        "robot:ci",
        "ci",
        "group:devs",
        "ops",
        "token:alice/deploy",
        "token:bob/deploy",
        "oidc:github-actions",
    ];
    collection::vec((sample::select(subjects), permissions(), permissions()), 0..8).prop_map(
        |rules| {
            let mut all = Vec::new();
            for (subject, permissions, deny) in rules {
                let permissions: Vec<&str> = permissions.iter().map(String::as_str).collect();
                let deny: Vec<&str> = deny.iter().map(String::as_str).collect();
                // Two rules instead of one, so that none contradicts itself.
                if !permissions.is_empty() {
                    all.push(rule(subject, &permissions, &[]));
                }
                if !deny.is_empty() {
                    all.push(rule(subject, &[], &deny));
                }
            }
            Policy::compile(&document(all)).unwrap()
        },
    )
}

proptest! {
    /// The compiled decision is the one that the rules give when they are read one by one, and a narrower scope never
    /// allows more.
    #[test]
    fn decisions_are_explained_and_scopes_narrow(
        policy in policy(), who in identity(), action in action(), format in sample::select(FORMATS.to_vec()),
        path in path(), registry in any::<bool>(), narrower in permissions(),
    ) {
        let repository = Resource::Repository { format: format_named(format).unwrap(), path: &path };
        let what = if registry { Resource::Registry } else { repository };
        let explained = policy.explain(&who, action, &what);
        let has = |effect| explained.steps.iter().any(|step| step.effect == effect);
        let by_hand = has(Effect::Allows) && !has(Effect::Denies) && !has(Effect::CutsDown);
        prop_assert_eq!(policy.decide(&who, action, &what), by_hand, "{:?}", explained);

        let mut unscoped = who.clone();
        unscoped.scope = None;
        let mut scoped = who.clone();
        let scope = PermissionSet::parse(&narrower).unwrap();
        scoped.scope = Some(scope.clone());
        let whole = policy.decide(&unscoped, action, &what);
        let narrowed = policy.decide(&scoped, action, &what);
        prop_assert_eq!(narrowed, whole && scope.covers(action, &what));
    }

    /// The canonical text of a permission means what the permission means, and is its own canonical text.
    #[test]
    fn canonical_texts_mean_the_same(
        text in permission(), action in action(), format in sample::select(FORMATS.to_vec()), path in path(),
    ) {
        if let Ok(permission) = Permission::parse(&text) {
            let canonical = permission.to_string();
            let again = Permission::parse(&canonical).unwrap();
            prop_assert_eq!(again.to_string(), canonical);
            let repository = Resource::Repository { format: format_named(format).unwrap(), path: &path };
            for what in [repository, Resource::Registry] {
                prop_assert_eq!(permission.covers(action, &what), again.covers(action, &what));
                prop_assert_eq!(permission.denies(action, &what), again.denies(action, &what));
                let set = PermissionSet::parse([&text]).unwrap();
                prop_assert_eq!(set.covers(action, &what), again.covers(action, &what));
                prop_assert_eq!(set.denies(action, &what), again.denies(action, &what));
            }
        }
    }

    /// No text makes the parser fall.
    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        if let Ok(permission) = Permission::parse(&text) {
            prop_assert!(Permission::parse(&permission.to_string()).is_ok());
        }
        let _ = Permission::parse(&format!("pull:{text}"));
        let _ = Permission::parse(&format!("pull:maven:{text}"));
    }
}
