//! The workspace keeps to its rules, and each rule is shown to fail on a tree made to break it.
//!
//! A fixture tree `fixtures/bad-<rule>` is a small workspace that breaks that rule alone; `fixtures/good` holds
//! what the rules must let through.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use nora_tidy::check;
use nora_tidy::rules::LAYERS;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

fn shown(root: &Path) -> Vec<String> {
    check(root).iter().map(ToString::to_string).collect()
}

#[test]
fn the_workspace_keeps_to_its_architecture() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let findings = shown(&root);
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

#[test]
fn what_is_allowed_is_not_found() {
    assert_eq!(shown(&fixtures().join("good")), Vec::<String>::new());
}

/// `expected` names file and line of each finding, in order.
fn check_bad(tree: &str, rule: &str, expected: &[&str]) {
    let findings = check(&fixtures().join(tree));
    let places: Vec<String> = findings.iter().map(|f| format!("{}:{}", f.file, f.line)).collect();
    assert_eq!(places, expected, "{tree}: {findings:#?}");
    assert!(findings.iter().all(|f| f.rule == rule), "{tree}: {findings:#?}");
}

#[test]
fn each_rule_finds_its_fixture() {
    check_bad(
        "bad-edges",
        "edges",
        &[
            "node/app/Cargo.toml:6",
            "node/app/Cargo.toml:7",
            "node/app/Cargo.toml:11",
            "node/app/Cargo.toml:14",
            "node/domain/Cargo.toml:5",
            "stranger/Cargo.toml:2",
        ],
    );
    check_bad("bad-header", "header", &["node/formats/src/lib.rs:1"]);
    check_bad(
        "bad-names",
        "names",
        &["node/formats/src/helpers.rs:1", "node/formats/src/lib.rs:2"],
    );
    check_bad("bad-globs", "globs", &["node/formats/src/lib.rs:2"]);
    check_bad("bad-ignored-test", "ignored-test", &["node/formats/src/lib.rs:7"]);
    check_bad("bad-unsafe", "unsafe", &["node/formats/src/lib.rs:2"]);
    check_bad(
        "bad-domain-pure",
        "domain-pure",
        &[
            "node/domain/src/lib.rs:3",
            "node/domain/src/lib.rs:3",
            "node/domain/src/lib.rs:4",
            "node/domain/src/lib.rs:7",
            "node/domain/src/lib.rs:8",
        ],
    );
    check_bad("bad-adapters-in-wiring", "adapters-in-wiring", &["node/src/api/mod.rs:2"]);
    check_bad(
        "bad-core-below-handles",
        "core-below-handles",
        &[
            "node/app/src/proposing.rs:2",
            "node/app/src/proposing.rs:3",
            "node/app/src/proposing.rs:6",
        ],
    );
    check_bad("bad-small-handles", "small-handles", &["node/app/src/things.rs:22"]);
    check_bad("bad-ports-below", "ports-below", &["node/app/src/ports/blobs.rs:2"]);
    check_bad("bad-app-without-runtime", "app-without-runtime", &["node/app/src/registry.rs:5"]);
}

#[test]
fn every_rule_of_the_tables_has_a_fixture() {
    let trees: BTreeSet<String> = std::fs::read_dir(fixtures())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for layer in LAYERS {
        assert!(trees.contains(&format!("bad-{}", layer.rule)), "no fixture for {}", layer.rule);
    }
    for rule in ["edges", "header", "names", "globs", "ignored-test", "small-handles", "unsafe"] {
        assert!(trees.contains(&format!("bad-{rule}")), "no fixture for {rule}");
    }
}

/// Trees too dull to keep: a file that is too long, a folder that is no workspace.
#[test]
fn long_files_and_missing_manifests_are_found() {
    let root = std::env::temp_dir().join(format!("nora-tidy-{}", std::process::id()));
    std::fs::create_dir_all(root.join("src")).unwrap();
    let lines = |count: usize| format!("//! Long.\n{}", "\n".repeat(count - 1));
    std::fs::write(root.join("src/lib.rs"), lines(901)).unwrap();
    let findings = shown(&root);
    std::fs::write(root.join("src/lib.rs"), lines(900)).unwrap();
    let shorter = shown(&root);
    std::fs::remove_dir_all(&root).unwrap();
    assert_eq!(findings.len(), 2, "{findings:?}");
    assert!(findings[0].starts_with("Cargo.toml:1: cannot be read"), "{findings:?}");
    assert!(findings[1].starts_with("src/lib.rs:901: has 901 lines"), "{findings:?}");
    assert_eq!(shorter.len(), 1, "{shorter:?}");
}
