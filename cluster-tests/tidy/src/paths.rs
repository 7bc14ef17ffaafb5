//! Paths that code names: `use` trees expanded, `self` and `super` resolved against the file's module.
//!
//! Modules written in line are taken for the file's own: a `super` in one of them resolves a step too high. Such
//! modules hold tests, and a path that leaves them by `super` twice would be odd there.

use crate::tokens::Token;

/// A path as the code names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPath {
    /// Its names; the first is `crate` if it is one of this crate's, `*` ends a glob import.
    pub names: Vec<String>,
    /// The line of its last name, from 1.
    pub line: usize,
    /// Whether only tests compile it.
    pub in_test: bool,
    /// Whether a `use` brings it in.
    pub imported: bool,
}

impl NamedPath {
    /// Whether it starts with `prefix` (`std::fs`), or holds the single name after a leading `::`.
    pub fn matches(&self, prefix: &str) -> bool {
        if let Some(name) = prefix.strip_prefix("::") {
            return self.names.iter().any(|n| n == name);
        }
        let wanted: Vec<&str> = prefix.split("::").collect();
        self.names.len() >= wanted.len()
            && self.names.iter().zip(&wanted).all(|(name, wanted)| name == wanted)
    }
}

/// Every path in a file; `file` is its path from the workspace's root.
pub fn paths(file: &str, tokens: &[Token]) -> Vec<NamedPath> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at].text == "use" {
            at = use_tree(tokens, at + 1, &[], &mut found);
        } else if tokens[at].is_name() {
            at = plain_path(tokens, at, &mut found);
        } else {
            at += 1;
        }
    }
    let module = module_of(file);
    for path in &mut found {
        resolve(&mut path.names, &module);
    }
    found
}

/// The module that a file is: `crate` and the folders below `src/`.
fn module_of(file: &str) -> Vec<String> {
    let inner = match file.rsplit_once("/src/") {
        Some((_, inner)) => inner,
        None => file.strip_prefix("src/").unwrap_or(file),
    };
    let mut module = vec!["crate".to_owned()];
    let parts = inner.trim_end_matches(".rs").split('/');
    module.extend(parts.filter(|p| !["mod", "lib", "main"].contains(p)).map(str::to_owned));
    module
}

fn resolve(names: &mut Vec<String>, module: &[String]) {
    let front = names.iter().take_while(|n| ["self", "super"].contains(&n.as_str())).count();
    if front == 0 || names.len() == front {
        return; // not relative, or the value `self`
    }
    let up = names[..front].iter().filter(|n| *n == "super").count();
    let keep = module.len().saturating_sub(up).max(1);
    names.splice(..front, module[..keep].iter().cloned());
}

fn plain_path(tokens: &[Token], from: usize, found: &mut Vec<NamedPath>) -> usize {
    let mut names = vec![tokens[from].text.clone()];
    let mut last = from;
    while last + 2 < tokens.len() && tokens[last + 1].text == "::" && tokens[last + 2].is_name() {
        last += 2;
        names.push(tokens[last].text.clone());
    }
    found.push(named(names, &tokens[last], false));
    last + 1
}

/// Reads one branch of a `use` tree behind `prefix`; returns the index behind it.
fn use_tree(tokens: &[Token], from: usize, prefix: &[String], found: &mut Vec<NamedPath>) -> usize {
    let mut names = prefix.to_vec();
    let mut at = from;
    while at < tokens.len() {
        let token = &tokens[at];
        match token.text.as_str() {
            "::" => at += 1,
            "{" => return use_group(tokens, at + 1, &names, found),
            "as" => at += 2,
            "*" => {
                names.push("*".to_owned());
                at += 1;
            }
            _ if token.is_name() => {
                names.push(token.text.clone());
                at += 1;
            }
            _ => break,
        }
    }
    if names.len() > prefix.len() {
        found.push(named(names, &tokens[at.saturating_sub(1)], true));
    }
    at
}

fn use_group(
    tokens: &[Token],
    from: usize,
    prefix: &[String],
    found: &mut Vec<NamedPath>,
) -> usize {
    let mut at = from;
    while at < tokens.len() {
        match tokens[at].text.as_str() {
            "}" => return at + 1,
            "," => at += 1,
            _ => {
                let next = use_tree(tokens, at, prefix, found);
                at = next.max(at + 1);
            }
        }
    }
    at
}

fn named(names: Vec<String>, last: &Token, imported: bool) -> NamedPath {
    NamedPath { names, line: last.line, in_test: last.in_test, imported }
}
