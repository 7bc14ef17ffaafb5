//! Remembered decisions are the decision point's, and both are fast enough for every request.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nora_auth::policy::Decisions;

use crate::support::{compiled, document, may, question, rule, set, who};

/// Everything that a decision depends on tells two questions apart.
#[test]
fn what_differs_is_never_answered_alike() {
    let policy = Arc::new(compiled(&document(vec![
        rule("user:alice", &["push:a"], &[]),
        rule("group:ops", &["pull:b"], &[]),
        rule("token:alice/deploy", &["delete:a"], &[]),
    ])));
    let decisions = Decisions::new(policy.clone(), 10_000);
    let mut people = Vec::new();
    for text in [
        "anonymous",
        "admin",
        "user:alice",
        "robot:alice",
        "user:bob group=ops",
        "user:bob token=deploy",
        "user:bob token=ops",
        "oidc:github-actions",
    ] {
        for scope in [None, Some(set(&[])), Some(set(&["pull:*"])), Some(set(&["push:a"]))] {
            for grant in [None, Some(set(&["pull:*"])), Some(set(&["push:a"]))] {
                let mut identity = who(text);
                identity.scope = scope.clone();
                identity.grant = grant;
                people.push(identity);
            }
        }
    }
    let asked = [
        "pull a",
        "push a",
        "delete a",
        "pull b",
        "pull npm:a",
        "admin registry!",
        "pull registry!",
    ];
    for _ in 0..2 {
        for person in &people {
            for asked in asked {
                let (action, what) = question(asked);
                let expected = policy.decide(person, action, &what);
                assert_eq!(decisions.decide(person, action, &what), expected, "{person:?} {asked}");
            }
        }
    }
}

fn thousand_rules() -> nora_auth::policy::Policy {
    let mut rules: Vec<_> = (0..500)
        .map(|i| rule(&format!("user:u{i}"), &[&format!("push:org-{i}/*")], &["delete:*/prod-*"]))
        .collect();
    // And as many about the one who asks, each with a glob that no prefix is: the worst case.
    rules.extend(
        (0..500).map(|i| rule("user:alice", &[&format!("push:org-{i}/*/app-[a-z]*")], &[])),
    );
    compiled(&document(rules))
}

/// The bounds are the requirement's; each is a median, so that a busy machine does not fail it.
#[test]
fn a_thousand_rules_are_decided_in_time() {
    let policy = Arc::new(thousand_rules());
    let alice = who("user:alice");
    assert!(may(&policy, &alice, "push org-499/x/app-b"));
    let median = |mut question_of: Box<dyn FnMut(usize)>| {
        let mut times: Vec<Duration> = (0..201)
            .map(|i| {
                let start = Instant::now();
                question_of(i);
                start.elapsed()
            })
            .collect();
        times.sort();
        times[100]
    };
    let (uncached, asker) = (policy.clone(), alice.clone());
    let uncached = median(Box::new(move |i| {
        let asked = format!("push org-{i}/x/app-b{i}");
        let (action, what) = question(&asked);
        assert!(uncached.decide(&asker, action, &what));
    }));
    let decisions = Decisions::new(policy, 1_000);
    let cached = median(Box::new(move |_| {
        let (action, what) = question("push org-7/x/app-b");
        assert!(decisions.decide(&alice, action, &what));
    }));
    println!("uncached {uncached:?}, cached {cached:?}");
    assert!(uncached < Duration::from_millis(1), "uncached: {uncached:?}");
    assert!(cached < Duration::from_micros(10), "cached: {cached:?}");
}
