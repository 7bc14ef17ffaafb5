//! The policy's tables: what is read from them, and what is written of it again.

use std::collections::BTreeMap;

use nora_auth::document::{
    Audit, Auth, Immutable, Oidc, Provider, ProviderKind, ProviderRule, RateLimit, Rule, Tenant,
};
use proptest::prelude::{Strategy, any, prop_assert_eq};

use super::*;

/// The hash that must be nowhere but in the document.
pub(super) const CANARY: &str = "$2y$05$c4Nary7c4Nary7c4Nary7eK0S7bXbm2mJr0zJzq9m0Nf1yG0aQ0Yu";

/// The policy of the design.
pub(super) const EXAMPLE: &str = r#"
[auth]
anonymous = ["pull:public/*"]
htpasswd = "users.htpasswd"

[auth.groups]
team-frontend = ["alice", "bob"]

[[auth.rules]]
subject = "team-frontend"
permissions = ["push:frontend/*", "pull:*"]

[[auth.rules]]
subject = "user:bob"
deny = ["delete:*"]

[auth.oidc]
enabled = true
[[auth.oidc.providers]]
name = "github-actions"
issuer = "https://token.actions.githubusercontent.com"
audience = "https://nora.example.com"
[[auth.oidc.providers.rules]]
match = { repository = "my-org/*", ref = ["refs/heads/main", "refs/tags/*"] }
permissions = ["push:my-org/*", "pull:*"]

[[tenants]]
name = "team-frontend"
namespaces = { oci = ["frontend/*"], npm = ["@frontend/*"], maven = ["com.acme.frontend"] }
storage_quota = "50GB"
artifact_quota = 1000
rate_limit = { push = 100, pull = 1000, anonymous_pull = 10, pull_per_caller = 20 }

[[policy.immutable]]
match = "prod/*"
tags = ["v*"]

[audit]
retention = "2w"
webhook = "https://audit.example.com/nora"
"#;

/// A folder with the example and its logins.
pub(super) fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("users.htpasswd"), format!("alice:{CANARY}\n")).unwrap();
    folder
}

pub(super) fn load_text(folder: &Path, text: &str) -> Result<Loaded, ConfigErrors> {
    parse(text, Some(&folder.join("nora.toml")), &Overrides::default())
}

pub(super) fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

pub(super) fn example() -> PolicyDocument {
    let list = |key: &str, values: &[&str]| (key.to_owned(), texts(values));
    PolicyDocument {
        auth: Some(Auth {
            anonymous: texts(&["pull:public/*"]),
            htpasswd: BTreeMap::from([("alice".to_owned(), CANARY.to_owned())]),
            groups: BTreeMap::from([list("team-frontend", &["alice", "bob"])]),
            rules: vec![
                Rule {
                    subject: "team-frontend".into(),
                    permissions: texts(&["push:frontend/*", "pull:*"]),
                    deny: Vec::new(),
                },
                Rule {
                    subject: "user:bob".into(),
                    permissions: Vec::new(),
                    deny: texts(&["delete:*"]),
                },
            ],
            oidc: Oidc {
                enabled: true,
                token_seconds: 900,
                providers: vec![Provider {
                    name: "github-actions".into(),
                    issuer: "https://token.actions.githubusercontent.com".into(),
                    audience: "https://nora.example.com".into(),
                    kind: ProviderKind::Github,
                    algorithms: texts(&["RS256", "ES256"]),
                    required_claims: Vec::new(),
                    rules: vec![ProviderRule {
                        claims: BTreeMap::from([
                            list("repository", &["my-org/*"]),
                            list("ref", &["refs/heads/main", "refs/tags/*"]),
                        ]),
                        permissions: texts(&["push:my-org/*", "pull:*"]),
                        pull_requests: false,
                        unprotected_refs: false,
                    }],
                }],
            },
        }),
        tenants: vec![Tenant {
            name: "team-frontend".into(),
            namespaces: BTreeMap::from([
                list("oci", &["frontend/*"]),
                list("npm", &["@frontend/*"]),
                list("maven", &["com.acme.frontend"]),
            ]),
            storage_quota: Some(50_000_000_000),
            artifact_quota: Some(1000),
            rate_limit: RateLimit {
                push: Some(100),
                pull: Some(1000),
                anonymous_pull: Some(10),
                pull_per_caller: Some(20),
            },
        }],
        immutable: vec![Immutable { repositories: "prod/*".into(), tags: texts(&["v*"]) }],
        audit: Audit {
            retention_seconds: 14 * 24 * 3600,
            webhook: Some("https://audit.example.com/nora".into()),
        },
    }
}

/// A document without what is not written.
fn without_logins(document: &PolicyDocument) -> PolicyDocument {
    let mut document = document.clone();
    if let Some(auth) = &mut document.auth {
        auth.htpasswd.clear();
    }
    document
}

#[test]
fn the_example_is_read_as_the_document_that_it_means() {
    let folder = folder();
    let loaded = load_text(folder.path(), EXAMPLE).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(loaded.config.policy, example());
    let source = |key: &str| {
        let entry = loaded.effective.iter().find(|entry| entry.key == key);
        entry.map(|entry| (toml_value(&entry.value), entry.source.clone(), entry.note.clone()))
    };
    let subject = ("\"user:bob\"".to_owned(), Source::Line(14), None);
    assert_eq!(source("auth.rules[1].subject"), Some(subject));
    let quota = ("\"50GB\"".to_owned(), Source::Line(30), None);
    assert_eq!(source("tenants[0].storage_quota"), Some(quota));
    let lifetime = ("\"15m\"".to_owned(), Source::Default, None);
    assert_eq!(source("auth.oidc.token_lifetime"), Some(lifetime));
    let note = source("auth.htpasswd").and_then(|(_, _, note)| note);
    assert_eq!(note.as_deref(), Some("1 user"));
}

#[test]
fn lists_and_tables_may_be_written_in_line() {
    let text = r#"
        tenants = [{ name = "a", namespaces = { oci = ["a/*"] } }, { name = "b" }]
        auth = { groups = { devs = ["carol"] }, rules = [{ subject = "devs", permissions = ["pull:*"] }] }
        audit.retention = "1d"
    "#;
    let policy = config(text).policy;
    let auth = policy.auth.unwrap();
    assert_eq!(auth.groups["devs"], ["carol"]);
    assert_eq!(auth.rules[0].subject, "devs");
    assert_eq!(policy.tenants.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(policy.audit.retention_seconds, 24 * 3600);
}

#[test]
fn a_table_without_keys_is_still_a_table() {
    assert!(config("").policy.auth.is_none());
    // Whoever writes [auth] asks for logins, whatever is in it.
    assert_eq!(config("[auth]\n").policy.auth, Some(Auth::default()));
}

#[test]
fn known_issuers_are_recognised_unless_the_file_says_otherwise() {
    let kind = |issuer: &str, written: &str| {
        let claim = if issuer.contains("gitlab") { "project_path" } else { "repository" };
        let text = format!(
            "[auth.oidc]\n[[auth.oidc.providers]]\nname = \"ci\"\nissuer = \"{issuer}\"\n\
             audience = \"nora\"\n{written}\n[[auth.oidc.providers.rules]]\n\
             match = {{ {claim} = \"my-org/app\" }}\npermissions = [\"pull:*\"]\n"
        );
        config(&text).policy.auth.unwrap().oidc.providers[0].kind
    };
    let github = "https://token.actions.githubusercontent.com";
    assert_eq!(kind(github, ""), ProviderKind::Github);
    assert_eq!(kind("https://gitlab.com", ""), ProviderKind::Gitlab);
    assert_eq!(kind("https://gitlab.example.com", ""), ProviderKind::Generic);
    assert_eq!(kind("https://gitlab.example.com", "kind = \"gitlab\""), ProviderKind::Gitlab);
    assert_eq!(
        kind("https://ghe.example.com/_services/token", "kind = \"github\""),
        ProviderKind::Github
    );
    assert_eq!(kind(github, "kind = \"generic\""), ProviderKind::Generic);
    // Enterprises have issuers of their own below GitHub's; otherwise an issuer is known to the letter.
    assert_eq!(kind(&format!("{github}/acme"), ""), ProviderKind::Github);
    assert_eq!(kind(&format!("{github}.example.com"), ""), ProviderKind::Generic);
}

#[test]
fn what_is_written_of_a_policy_is_read_as_the_same() {
    for document in [PolicyDocument::default(), example()] {
        let text = policy_toml(&document);
        assert_eq!(config(&text).policy, without_logins(&document), "{text}");
    }
    let empty = PolicyDocument { auth: Some(Auth::default()), ..PolicyDocument::default() };
    assert_eq!(config(&policy_toml(&empty)).policy, empty);
}

#[test]
fn what_show_prints_of_a_policy_is_read_as_the_same() {
    let folder = folder();
    let first = load_text(folder.path(), EXAMPLE).unwrap();
    let shown = as_toml(&first.effective, Some("nora.toml"));
    let second = load_text(folder.path(), &shown).unwrap_or_else(|e| panic!("{e}\n{shown}"));
    assert_eq!(second.config.policy, first.config.policy, "{shown}");
    assert!(shown.contains("users.htpasswd\" # nora.toml:4 (1 user)"), "{shown}");
    let value = as_value(&first.effective, None);
    assert_eq!(value["auth"]["rules"][1]["subject"]["value"], "user:bob");
    assert_eq!(value["auth"]["rules"][1]["subject"]["source"], "line 14");
    assert_eq!(value["auth"]["htpasswd"]["note"], "1 user");
}

#[test]
fn a_login_s_hash_is_shown_nowhere() {
    let folder = folder();
    let loaded = load_text(folder.path(), EXAMPLE).unwrap();
    let document = &loaded.config.policy;
    assert_eq!(document.auth.as_ref().unwrap().htpasswd["alice"], CANARY, "the test is blind");
    let mut other = document.clone();
    other.auth.as_mut().unwrap().htpasswd.insert("alice".into(), CANARY.replace("$05$", "$06$"));
    let shown = [
        as_toml(&loaded.effective, None),
        as_value(&loaded.effective, None).to_string(),
        format!("{:?}", loaded.effective),
        format!("{loaded:?} {loaded:#?}"),
        format!("{:?}", loaded.config),
        policy_toml(document),
        policy_changes(&PolicyDocument::default(), document).join("\n"),
        policy_changes(document, &other).join("\n"),
    ];
    for shown in shown {
        assert!(!shown.contains("c4Nary7"), "{shown}");
        assert!(!shown.contains("$2y$"), "{shown}");
    }
}

#[test]
fn limits_of_logins_and_the_audit_s_file_are_of_the_node() {
    let config = config(
        "[limits]\nlogin_failures_max = 3\nlogin_window = \"1m\"\n[log]\naudit_file = \"audit.jsonl\"\n",
    );
    assert_eq!(config.limits.login_failures_max, 3);
    assert_eq!(config.limits.login_window, Duration::from_secs(60));
    assert_eq!(config.log.audit_file.unwrap(), Path::new("/etc/nora/audit.jsonl"));
    assert_eq!(super::config("").limits.login_failures_max, 10);
    assert!(messages("[limits]\nlogin_failures_max = 0\n")[0].contains("must be from 1 to 1000"));
}

/// Texts of every kind, with what TOML has to quote.
fn text() -> impl Strategy<Value = String> {
    "[a-z]{1,8}|[a-z\"\\\\ .#=\\[\\]\\n\u{7f}ä☃]{1,8}"
}

fn list() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(text(), 0..3)
}

/// A document of any shape that a file can have; it need not make sense.
pub(super) fn any_document() -> impl Strategy<Value = PolicyDocument> {
    let rule = (text(), list(), list()).prop_map(|(subject, permissions, deny)| Rule {
        subject,
        permissions,
        deny,
    });
    let claims = prop::collection::btree_map(text(), prop::collection::vec(text(), 0..3), 0..3);
    let claim_rule = (claims, list(), any::<bool>(), any::<bool>()).prop_map(
        |(claims, permissions, pull_requests, unprotected_refs)| ProviderRule {
            claims,
            permissions,
            pull_requests,
            unprotected_refs,
        },
    );
    let kind = prop::sample::select(vec![
        ProviderKind::Github,
        ProviderKind::Gitlab,
        ProviderKind::Generic,
    ]);
    let provider = (text(), text(), kind, list(), prop::collection::vec(claim_rule, 0..3))
        .prop_map(|(name, issuer, kind, algorithms, rules)| Provider {
            audience: name.clone(),
            required_claims: algorithms.clone(),
            name,
            issuer,
            kind,
            algorithms,
            rules,
        });
    let oidc = (any::<bool>(), 60_u64..3600, prop::collection::vec(provider, 0..3))
        .prop_map(|(enabled, token_seconds, providers)| Oidc { enabled, token_seconds, providers });
    let groups = prop::collection::btree_map(text(), list(), 0..3);
    let auth = (list(), groups, prop::collection::vec(rule, 0..3), oidc).prop_map(
        |(anonymous, groups, rules, oidc)| Auth {
            anonymous,
            htpasswd: BTreeMap::new(),
            groups,
            rules,
            oidc,
        },
    );
    let names = prop::collection::btree_map(
        prop::sample::select(vec!["oci", "npm", "pypi", "maven", "cargo"]).prop_map(str::to_owned),
        prop::collection::vec(text(), 1..3),
        0..3,
    );
    let number = || prop::option::of(1_u64..1_000_000_000_000);
    let rates = (number(), number(), number(), number()).prop_map(
        |(push, pull, anonymous_pull, pull_per_caller)| RateLimit {
            push,
            pull,
            anonymous_pull,
            pull_per_caller,
        },
    );
    let tenant = (text(), names, number(), number(), rates).prop_map(
        |(name, namespaces, storage_quota, artifact_quota, rate_limit)| Tenant {
            name,
            namespaces,
            storage_quota,
            artifact_quota,
            rate_limit,
        },
    );
    let immutable =
        (text(), list()).prop_map(|(repositories, tags)| Immutable { repositories, tags });
    let webhook = prop::option::of("https://[a-z]{1,8}\\.example/[a-z]{0,8}");
    let audit = (1_u64..100_000_000, webhook)
        .prop_map(|(retention_seconds, webhook)| Audit { retention_seconds, webhook });
    let tenants = prop::collection::vec(tenant, 0..3);
    let immutables = prop::collection::vec(immutable, 0..3);
    (prop::option::of(auth), tenants, immutables, audit).prop_map(
        |(auth, tenants, immutable, audit)| PolicyDocument { auth, tenants, immutable, audit },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..Default::default() })]

    /// Writing and reading is the identity, whatever the texts are: nothing breaks out of its quotes.
    #[test]
    fn any_document_survives_being_written(document in any_document()) {
        let text = policy_toml(&document);
        let read = crate::policy::read_unjudged(&text);
        prop_assert_eq!(read, Ok(document), "{}", text);
    }
}
