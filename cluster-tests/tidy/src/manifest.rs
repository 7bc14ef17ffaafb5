//! Manifests: a reader for the part of TOML that dependency tables use, and the comparison with the edge table.
//!
//! Reads section headers, `key = value` with values that may span lines while brackets are open, and comments. It
//! need not read all of TOML: a manifest that Cargo accepts but this reader misunderstands has a dependency table in
//! a form that nobody writes.

use std::collections::BTreeSet;
use std::path::Path;

use crate::Finding;
use crate::rules::{CRATES, CrateRule, External};

/// One `key = value` of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands, from 1.
    pub line: usize,
    /// The section, as in `dependencies` or `target.'cfg(unix)'.dependencies`.
    pub section: String,
    /// The key; a dotted key is kept whole.
    pub key: String,
    /// The value's text, lines joined.
    pub value: String,
}

/// A dependency that a manifest names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// Where it stands, from 1.
    pub line: usize,
    /// The crate's real name, whatever it is called in the code.
    pub name: String,
    /// Whether it is for tests only.
    pub dev: bool,
    /// Whether a feature has to switch it on.
    pub optional: bool,
}

/// Reads a manifest's entries.
pub fn entries(text: &str) -> Vec<Entry> {
    let mut found: Vec<Entry> = Vec::new();
    let mut section = String::new();
    let mut open = 0_i64;
    for (index, raw) in text.lines().enumerate() {
        let line = without_comment(raw).trim();
        if open > 0 {
            open += depth(line);
            if let Some(last) = found.last_mut() {
                last.value.push(' ');
                last.value.push_str(line);
            }
        } else if line.starts_with('[') {
            section = line.trim_matches(|c| c == '[' || c == ']').trim().to_owned();
        } else if let Some((key, value)) = line.split_once('=') {
            open = depth(value);
            found.push(Entry {
                line: index + 1,
                section: section.clone(),
                key: key.trim().trim_matches('"').to_owned(),
                value: value.trim().to_owned(),
            });
        }
    }
    found
}

fn without_comment(line: &str) -> &str {
    let mut quote = None;
    for (at, c) in line.char_indices() {
        match quote {
            None if c == '#' => return &line[..at],
            None if c == '"' || c == '\'' => quote = Some(c),
            Some(open) if open == c => quote = None,
            _ => {}
        }
    }
    line
}

fn depth(text: &str) -> i64 {
    let mut quoted = false;
    let mut depth = 0;
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            '[' | '{' if !quoted => depth += 1,
            ']' | '}' if !quoted => depth -= 1,
            _ => {}
        }
    }
    depth
}

/// The dependencies among a manifest's entries.
pub fn dependencies(entries: &[Entry]) -> Vec<Dependency> {
    let mut found: Vec<Dependency> = Vec::new();
    for entry in entries {
        let Some((dev, in_table)) = dependency_section(&entry.section) else {
            continue;
        };
        // `[dependencies.x]` names the crate in the header, `x.workspace = true` in the key's first part.
        let (name, field) = match in_table {
            Some(name) => (name, Some(entry.key.as_str())),
            None => match entry.key.split_once('.') {
                Some((name, field)) => (name.to_owned(), Some(field)),
                None => (entry.key.clone(), None),
            },
        };
        let at = match found.iter().position(|d| d.name == name && d.dev == dev) {
            Some(at) => at,
            None => {
                found.push(Dependency { line: entry.line, name, dev, optional: false });
                found.len() - 1
            }
        };
        let text = match field {
            Some(field) => format!("{field} = {}", entry.value),
            None => entry.value.clone(),
        };
        found[at].optional |= field_of(&text, "optional").is_some_and(|v| v == "true");
        if let Some(real) = field_of(&text, "package") {
            found[at].name = real;
        }
    }
    found
}

/// Whether a section lists dependencies: (for tests only, the crate it is about if the header names one).
fn dependency_section(section: &str) -> Option<(bool, Option<String>)> {
    // `target.'cfg(…)'.dependencies`: the condition may hold dots, so look from behind it.
    let tail = match section.strip_prefix("target.") {
        Some(rest) => match rest.rfind(['\'', '"']) {
            Some(end) => rest[end + 1..].trim_start_matches('.'),
            None => rest.split_once('.').map_or("", |(_, tail)| tail),
        },
        None => section,
    };
    let (kind, name) = match tail.split_once('.') {
        Some((kind, name)) => (kind, Some(name.trim_matches('"').to_owned())),
        None => (tail, None),
    };
    match kind {
        "dependencies" | "build-dependencies" => Some((false, name)),
        "dev-dependencies" => Some((true, name)),
        _ => None,
    }
}

/// The value of `field` in `{ a = 1, field = "x" }` or `field = "x"`, without quotes.
fn field_of(text: &str, field: &str) -> Option<String> {
    let inner = text.trim().trim_start_matches('{').trim_end_matches('}');
    inner.split(',').find_map(|part| {
        let (key, value) = part.split_once('=')?;
        (key.trim() == field).then(|| value.trim().trim_matches('"').to_owned())
    })
}

/// Compares every member's manifest with the table; returns the members' folders.
pub fn check_workspace(root: &Path, findings: &mut Vec<Finding>) -> Vec<String> {
    let Some(workspace) = read(root, "Cargo.toml", findings) else {
        return Vec::new();
    };
    let members: Vec<String> = workspace
        .iter()
        .find(|e| e.section == "workspace" && e.key == "members")
        .map(|e| e.value.split('"').skip(1).step_by(2).map(str::to_owned).collect())
        .unwrap_or_default();
    let mut manifests = Vec::new();
    for member in &members {
        let file = format!("{member}/Cargo.toml");
        let Some(entries) = read(root, &file, findings) else {
            continue;
        };
        match entries.iter().find(|e| e.section == "package" && e.key == "name") {
            Some(name) => {
                manifests.push((file, name.line, name.value.trim_matches('"').to_owned(), entries));
            }
            None => findings.push(Finding {
                file,
                line: 1,
                rule: "edges",
                message: "has no package name".to_owned(),
            }),
        }
    }
    let names: BTreeSet<String> = manifests.iter().map(|m| m.2.clone()).collect();
    for (file, line, name, entries) in &manifests {
        match CRATES.iter().find(|rule| rule.name == name) {
            Some(rule) => check_edges(file, rule, &names, &dependencies(entries), findings),
            None => findings.push(Finding {
                file: file.clone(),
                line: *line,
                rule: "edges",
                message: format!(
                    "{name} is not in the table of crates: add it to cluster-tests/tidy/src/rules.rs \
                     with the edges it needs, and an ADR"
                ),
            }),
        }
    }
    members
}

fn read(root: &Path, file: &str, findings: &mut Vec<Finding>) -> Option<Vec<Entry>> {
    match std::fs::read_to_string(root.join(file)) {
        Ok(text) => Some(entries(&text)),
        Err(error) => {
            findings.push(Finding {
                file: file.to_owned(),
                line: 1,
                rule: "readable",
                message: format!("cannot be read: {error}"),
            });
            None
        }
    }
}

fn check_edges(
    file: &str,
    rule: &CrateRule,
    workspace: &BTreeSet<String>,
    dependencies: &[Dependency],
    findings: &mut Vec<Finding>,
) {
    for dependency in dependencies {
        if dependency.name == rule.name {
            continue; // a crate's own testkit, switched on for its tests
        }
        let message = if workspace.contains(&dependency.name) {
            internal_fault(rule, dependency)
        } else {
            external_fault(rule, dependency)
        };
        if let Some(message) = message {
            findings.push(Finding {
                file: file.to_owned(),
                line: dependency.line,
                rule: "edges",
                message,
            });
        }
    }
}

fn internal_fault(rule: &CrateRule, dependency: &Dependency) -> Option<String> {
    let name = dependency.name.as_str();
    if rule.internal.contains(&"*") || rule.internal.contains(&name) {
        return None;
    }
    let allowed = match rule.internal {
        [] => "no crate of this workspace".to_owned(),
        some => some.join(", "),
    };
    Some(format!(
        "{} may depend on {allowed}; move what needs {name} to where it is known",
        rule.name
    ))
}

fn external_fault(rule: &CrateRule, dependency: &Dependency) -> Option<String> {
    let External::Only(allowed) = rule.external else {
        return None;
    };
    let name = dependency.name.as_str();
    if dependency.dev || allowed.contains(&name) {
        return None;
    }
    if allowed.iter().any(|a| a.strip_suffix('?') == Some(name)) {
        return (!dependency.optional).then(|| {
            format!("{name} must be optional in {}: only its testkit uses it", rule.name)
        });
    }
    let list = if allowed.is_empty() { "std alone".to_owned() } else { allowed.join(", ") };
    Some(format!("{} may use {list}; {name} belongs into an adapter", rule.name))
}
