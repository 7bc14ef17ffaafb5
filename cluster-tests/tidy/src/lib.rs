//! The architecture test: compares manifests and sources with the tables in [`rules`].
//!
//! What crates may depend on is a wall, because Cargo builds nothing else; a manifest that widens it is caught here.
//! What modules may name, how files begin and how long they get is read from the text, token by token: comments and
//! strings do not count, `use` trees are expanded. A macro can dodge such a scan; a crate's wall cannot be dodged.
//!
//! Must not depend on anything but std, so that it builds in seconds and runs first.

pub mod manifest;
pub mod methods;
pub mod paths;
pub mod rules;
pub mod sources;
pub mod tokens;
mod tree;

use std::fmt;
use std::path::Path;

/// A place that breaks a rule, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The file, relative to the workspace.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The rule's name; a fixture tree `bad-<rule>…` shows each.
    pub rule: &'static str,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {} [{}]", self.file, self.line, self.message, self.rule)
    }
}

/// Checks the workspace at `root`. Findings are sorted; none means that the tree keeps to its architecture.
pub fn check(root: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    let members = manifest::check_workspace(root, &mut findings);
    let mut counted = methods::Counted::default();
    for file in tree::rust_files(root, &mut findings) {
        match std::fs::read_to_string(root.join(&file)) {
            Ok(text) => {
                sources::check_file(&file, &text, &members, &mut findings);
                counted.count(&file, &text, &mut findings);
            }
            Err(error) => findings.push(Finding {
                file,
                line: 1,
                rule: "readable",
                message: format!("cannot be read: {error}"),
            }),
        }
    }
    findings.sort();
    findings
}
