//! Sources: headers, length, names, imports and the walls between modules.

use crate::Finding;
use crate::paths::{NamedPath, paths};
use crate::rules::{FILE_LINES_MAX, LAYERS, LayerRule, NAMELESS, UNSAFE_ALLOWED};
use crate::tokens::{Token, tokens};

/// Checks one file; `file` is its path from the workspace's root.
pub fn check_file(file: &str, text: &str, members: &[String], findings: &mut Vec<Finding>) {
    let tokens = tokens(text);
    let paths = paths(file, &tokens);
    let for_tests = is_for_tests(file, members);
    let mut found = |line: usize, rule: &'static str, message: String| {
        findings.push(Finding { file: file.to_owned(), line, rule, message });
    };
    if !text.trim_start().starts_with("//!") {
        let why = "opens without `//!`: say what the module is for, what it guarantees, what it must \
                   not know";
        found(1, "header", why.to_owned());
    }
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        let why = format!("has {lines} lines, over {FILE_LINES_MAX}: split it by what it does");
        found(FILE_LINES_MAX + 1, "length", why);
    }
    for (line, name) in nameless(file, &tokens) {
        let why = format!(
            "`{name}` says nothing about what is inside: name the module after what it does"
        );
        found(line, "names", why);
    }
    for path in globs(&paths, for_tests) {
        let why = "glob import: list what is used, so that a reader sees where names come from";
        found(path.line, "globs", why.to_owned());
    }
    for line in attribute(&tokens, "ignore", "ignore") {
        let why = "#[ignore] hides a test from everybody: let it run, or delete it";
        found(line, "ignored-test", why.to_owned());
    }
    if !UNSAFE_ALLOWED.contains(&file) {
        for line in attribute(&tokens, "allow", "unsafe_code") {
            let why = format!("unsafe code has its places: {}", UNSAFE_ALLOWED.join(", "));
            found(line, "unsafe", why);
        }
    }
    for layer in LAYERS.iter().filter(|layer| applies(layer, file)) {
        for path in paths.iter().filter(|p| !(layer.tests_may && p.in_test)) {
            if let Some(name) = layer.never.iter().find(|prefix| path.matches(prefix)) {
                let why = format!("names {}: {}", name.trim_start_matches("::"), layer.why);
                found(path.line, layer.rule, why);
            }
        }
    }
}

/// Whether Cargo compiles the file for tests, examples or benchmarks only.
fn is_for_tests(file: &str, members: &[String]) -> bool {
    let longest =
        members.iter().filter(|m| file.starts_with(&format!("{m}/"))).max_by_key(|m| m.len());
    let inner = longest.map_or(file, |member| &file[member.len() + 1..]);
    ["tests/", "benches/", "examples/"].iter().any(|folder| inner.starts_with(folder))
        || inner.ends_with("/tests.rs")
        || inner.contains("/tests/")
}

fn applies(layer: &LayerRule, file: &str) -> bool {
    layer.within.iter().any(|prefix| file.starts_with(prefix))
        && !layer.except.iter().any(|prefix| file.starts_with(prefix))
}

/// Modules with a name that says nothing: declared in line, or by the file's own name.
fn nameless(file: &str, tokens: &[Token]) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = tokens
        .windows(2)
        .filter(|pair| pair[0].text == "mod" && NAMELESS.contains(&pair[1].text.as_str()))
        .map(|pair| (pair[1].line, pair[1].text.clone()))
        .collect();
    let parts = file.trim_end_matches(".rs").split('/');
    found.extend(parts.filter(|part| NAMELESS.contains(part)).map(|part| (1, part.to_owned())));
    found
}

fn globs(paths: &[NamedPath], for_tests: bool) -> impl Iterator<Item = &NamedPath> {
    paths.iter().filter(move |path| {
        path.imported
            && path.names.last().is_some_and(|name| name == "*")
            && !(for_tests || path.in_test)
    })
}

/// Lines of attributes `#[outer(… inner …)]`, or `#[outer]` where both are the same name.
fn attribute(tokens: &[Token], outer: &str, inner: &str) -> Vec<usize> {
    let mut lines = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let opens = token.text == "["
            && at > 0
            && matches!(tokens[at - 1].text.as_str(), "#" | "!")
            && tokens.get(at + 1).is_some_and(|t| t.text == outer);
        if !opens {
            continue;
        }
        let body = tokens[at + 1..].iter().take_while(|t| t.text != "]");
        if body.into_iter().any(|t| t.text == inner) {
            lines.push(token.line);
        }
    }
    lines
}
