//! What a policy says that another does not, in lines for a person who is about to apply it.
//!
//! Guarantees: there are no lines exactly if both say the same; the order of rules, tenants and providers says nothing.
//! A login's hash is never shown. Must not know: which change is a dangerous one.

use std::collections::BTreeMap;

use nora_auth::document::PolicyDocument;
use serde_json::Value;

use super::write::entries;
use crate::diagnostic::printable;
use crate::show::toml_value;

/// Something in a list that has no name: a rule.
#[derive(Clone, Debug)]
struct Item {
    at: usize,
    lines: Vec<Line>,
}

/// A key and one of its values.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    key: String,
    value: String,
}

impl Item {
    /// What it is about. A rule about the same is the same rule, changed.
    fn about(&self) -> Vec<&Line> {
        let about = |line: &&Line| line.key == "subject" || line.key.starts_with("match");
        self.lines.iter().filter(about).collect()
    }
}

/// A document, cut into lines.
#[derive(Default)]
struct Lines {
    single: Vec<Line>,
    lists: BTreeMap<String, Vec<Item>>,
}

impl Lines {
    fn of(document: &PolicyDocument) -> Self {
        let mut lines = Self::default();
        if let Some(auth) = &document.auth {
            lines.single.push(Line { key: "auth".into(), value: "asks for logins".into() });
            let user = |user: &String| Line { key: "auth.htpasswd".into(), value: user.clone() };
            lines.single.extend(auth.htpasswd.keys().map(user));
        }
        for (key, value) in entries(document) {
            let key = named(document, &key);
            match key.rsplit_once("].").map(|(item, key)| (item.rsplit_once('['), key)) {
                Some((Some((list, at)), key)) => {
                    let at = at.parse().unwrap_or(usize::MAX);
                    let items = lines.lists.entry(list.to_owned()).or_default();
                    if items.last().is_none_or(|item| item.at != at) {
                        items.push(Item { at, lines: Vec::new() });
                    }
                    if let Some(item) = items.last_mut() {
                        flatten(key, &value, &mut item.lines);
                    }
                }
                _ => flatten(&key, &value, &mut lines.single),
            }
        }
        lines
    }
}

/// A path in which tenants and providers have their names instead of their positions.
fn named(document: &PolicyDocument, key: &str) -> String {
    let rename = |list: &str, name: &dyn Fn(usize) -> Option<String>| {
        let (at, rest) = key.strip_prefix(list)?.strip_prefix('[')?.split_once(']')?;
        Some(format!("{list}.{}{rest}", name(at.parse().ok()?)?))
    };
    let tenant = |at: usize| Some(document.tenants.get(at)?.name.clone());
    let provider = |at: usize| Some(document.auth.as_ref()?.oidc.providers.get(at)?.name.clone());
    rename("tenants", &tenant)
        .or_else(|| rename("auth.oidc.providers", &provider))
        .unwrap_or_else(|| key.to_owned())
}

fn flatten(key: &str, value: &Value, lines: &mut Vec<Line>) {
    match value {
        // Neither says anything that its absence does not.
        Value::Null | Value::Bool(false) => {}
        Value::Array(items) => items.iter().for_each(|item| flatten(key, item, lines)),
        Value::Object(table) => {
            for (name, value) in table {
                flatten(&format!("{key}.{name}"), value, lines);
            }
        }
        Value::String(text) => lines.push(Line { key: key.to_owned(), value: text.clone() }),
        other => lines.push(Line { key: key.to_owned(), value: toml_value(other) }),
    }
}

/// What `left` has more of than `right`.
fn without<'l>(left: &'l [Line], right: &[Line]) -> Vec<&'l Line> {
    let mut right: Vec<&Line> = right.iter().collect();
    let missing = |line: &&Line| match right.iter().position(|other| other == line) {
        Some(at) => {
            right.swap_remove(at);
            false
        }
        None => true,
    };
    left.iter().filter(missing).collect()
}

fn told(sign: char, place: &str, line: &Line) -> String {
    printable(&format!("{sign} {place}{}: {}", line.key, line.value))
}

/// Takes the first item that is wanted.
fn take<'i>(items: &mut Vec<&'i Item>, wanted: impl Fn(&Item) -> bool) -> Option<&'i Item> {
    let at = items.iter().position(|item| wanted(item))?;
    Some(items.remove(at))
}

/// Compares two lists. What is in both goes first, then what is about the same is told as a change.
fn compare(list: &str, old: &[Item], new: &[Item], changes: &mut Vec<String>) {
    let mut new: Vec<&Item> = new.iter().collect();
    let same = |old: &Item, item: &Item| {
        without(&old.lines, &item.lines).is_empty() && without(&item.lines, &old.lines).is_empty()
    };
    let old: Vec<&Item> =
        old.iter().filter(|old| take(&mut new, |item| same(old, item)).is_none()).collect();
    let place = |item: &Item| format!("{list}[{}].", item.at);
    for old in old {
        let other = take(&mut new, |item| item.about() == old.about());
        let kept = other.map_or(&[][..], |other| &other.lines);
        changes.extend(without(&old.lines, kept).iter().map(|line| told('-', &place(old), line)));
        if let Some(other) = other {
            let added = without(&other.lines, &old.lines);
            changes.extend(added.iter().map(|line| told('+', &place(other), line)));
        }
    }
    for item in new {
        changes.extend(item.lines.iter().map(|line| told('+', &place(item), line)));
    }
}

/// The lines that `new` has and `old` has not, after a `+`, and the other way round, after a `-`.
pub fn policy_changes(old: &PolicyDocument, new: &PolicyDocument) -> Vec<String> {
    let (before, after) = (Lines::of(old), Lines::of(new));
    let mut changes = Vec::new();
    let gone = without(&before.single, &after.single);
    changes.extend(gone.into_iter().map(|line| told('-', "", line)));
    let added = without(&after.single, &before.single);
    changes.extend(added.into_iter().map(|line| told('+', "", line)));
    changes.extend(changed_passwords(old, new));
    let mut lists: Vec<&String> = before.lists.keys().chain(after.lists.keys()).collect();
    lists.sort_unstable();
    lists.dedup();
    for list in lists {
        let items = |lines: &'_ Lines| lines.lists.get(list).cloned().unwrap_or_default();
        compare(list, &items(&before), &items(&after), &mut changes);
    }
    changes
}

fn changed_passwords(old: &PolicyDocument, new: &PolicyDocument) -> Vec<String> {
    let (Some(old), Some(new)) = (&old.auth, &new.auth) else {
        return Vec::new();
    };
    let changed = |(user, hash): &(&String, &String)| {
        old.htpasswd.get(*user).is_some_and(|before| before != *hash)
    };
    let line = |(user, _)| printable(&format!("~ auth.htpasswd: {user} has another password"));
    new.htpasswd.iter().filter(changed).map(line).collect()
}
