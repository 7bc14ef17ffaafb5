//! The values in effect, each with its source, as `nora config show` prints them.

use serde_json::{Map, Value, json};

use super::section::{Effective, Source};

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Line(line) => write!(f, "line {line}"),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// The values as nested tables whose leaves are `{ value, source }`; `file` names the file in sources.
pub fn as_value(effective: &[Effective], file: Option<&str>) -> Value {
    let mut root = Map::new();
    for entry in effective {
        let leaf = json!({ "value": entry.value, "source": source(&entry.source, file) });
        insert(&mut root, &entry.key, leaf);
    }
    Value::Object(root)
}

fn insert(table: &mut Map<String, Value>, key: &str, leaf: Value) {
    match key.split_once('.') {
        None => drop(table.insert(key.to_owned(), leaf)),
        Some((first, rest)) => {
            let inner = table.entry(first).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(inner) = inner {
                insert(inner, rest, leaf);
            }
        }
    }
}

/// A source as a person looks for it: `nora.toml:12`.
pub(crate) fn source(source: &Source, file: Option<&str>) -> String {
    match (source, file) {
        (Source::Line(line), Some(file)) => format!("{file}:{line}"),
        (source, _) => source.to_string(),
    }
}

/// A value as TOML writes it.
pub(crate) fn toml_value(value: &Value) -> String {
    match value {
        Value::Null => "(none)".into(),
        Value::Object(table) => {
            let pairs = table.iter().map(|(key, value)| format!("{key} = {}", toml_value(value)));
            format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
        }
        Value::Array(items) => {
            format!("[{}]", items.iter().map(toml_value).collect::<Vec<_>>().join(", "))
        }
        Value::String(text) => toml::Value::String(text.clone()).to_string(),
        other => other.to_string(),
    }
}

/// The values as a file that would give them, with sources as comments.
pub fn as_toml(effective: &[Effective], file: Option<&str>) -> String {
    let mut out = String::new();
    let mut table = "";
    // A table's own keys stand before the tables within it.
    let mut entries: Vec<&Effective> = effective.iter().collect();
    entries.sort_by_key(|entry| {
        let root = entry.key.split('.').next().unwrap_or_default();
        let order = effective.iter().position(|e| e.key.split('.').next() == Some(root));
        (order, entry.key.matches('.').count())
    });
    for entry in entries {
        let (path, name) = entry.key.rsplit_once('.').unwrap_or(("", &entry.key));
        if path != table {
            let gap = if out.is_empty() { "" } else { "\n" };
            out += &format!("{gap}[{path}]\n");
            table = path;
        }
        let from = source(&entry.source, file);
        out += &match &entry.value {
            Value::Null => format!("# {name} is not set\n"),
            value => format!("{name} = {} # {from}\n", toml_value(value)),
        };
    }
    out
}
