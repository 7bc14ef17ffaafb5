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
    let mut root = Value::Object(Map::new());
    for entry in effective {
        let mut leaf = json!({ "value": entry.value, "source": source(&entry.source, file) });
        if let (Value::Object(leaf), Some(note)) = (&mut leaf, &entry.note) {
            leaf.insert("note".into(), json!(note));
        }
        insert(&mut root, &entry.key, leaf);
    }
    root
}

/// Puts a leaf where a key as `auth.rules[2].subject` says.
fn insert(within: &mut Value, key: &str, leaf: Value) {
    let (step, rest) = match key.split_once('.') {
        Some((step, rest)) => (step, Some(rest)),
        None => (key, None),
    };
    let (name, position) = match step.trim_end_matches(']').split_once('[') {
        Some((name, position)) => (name, position.parse::<usize>().ok()),
        None => (step, None),
    };
    if !within.is_object() {
        *within = Value::Object(Map::new());
    }
    let mut inner = &mut within[name];
    if let Some(position) = position {
        if !inner.is_array() {
            *inner = Value::Array(Vec::new());
        }
        if let Value::Array(items) = inner
            && items.len() <= position
        {
            items.resize(position + 1, Value::Null);
        }
        inner = &mut inner[position];
    }
    match rest {
        None => *inner = leaf,
        Some(rest) => insert(inner, rest, leaf),
    }
}

/// A source as a person looks for it: `nora.toml:12`.
pub fn source(source: &Source, file: Option<&str>) -> String {
    match (source, file) {
        (Source::Line(line), Some(file)) => format!("{file}:{line}"),
        (source, _) => source.to_string(),
    }
}

/// A value as TOML writes it.
pub fn toml_value(value: &Value) -> String {
    match value {
        Value::Null => "(none)".into(),
        Value::Object(table) => {
            let pair =
                |(key, value): (&String, _)| format!("{} = {}", toml_key(key), toml_value(value));
            let pairs = table.iter().map(pair);
            format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
        }
        Value::Array(items) => {
            format!("[{}]", items.iter().map(toml_value).collect::<Vec<_>>().join(", "))
        }
        Value::String(text) => toml::Value::String(text.clone()).to_string(),
        other => other.to_string(),
    }
}

/// A key as TOML writes it.
fn toml_key(key: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if !key.is_empty() && key.bytes().all(bare) {
        return key.to_owned();
    }
    // JSON's escapes are TOML's, but for the one control character that JSON lets stand.
    json!(key).to_string().replace('\u{7f}', "\\u007f")
}

/// The values as a file that would give them, with sources as comments.
pub fn as_toml(effective: &[Effective], file: Option<&str>) -> String {
    tables(effective.iter().map(|entry| {
        let name = entry.key.rsplit('.').next().unwrap_or_default();
        let note = entry.note.as_ref().map_or_else(String::new, |note| format!(" ({note})"));
        let line = match &entry.value {
            Value::Null => format!("# {name} is not set"),
            value => {
                format!("{name} = {} # {}{note}", toml_value(value), source(&entry.source, file))
            }
        };
        (entry.key.as_str(), Some(line))
    }))
}

/// Lines under their tables' headers; the tables come in the order of their first lines. A key without a line only
/// says that its table is there.
pub(crate) fn tables<'k>(lines: impl Iterator<Item = (&'k str, Option<String>)>) -> String {
    let mut out = String::new();
    let mut table = "";
    for (key, line) in lines {
        let path = key.rsplit_once('.').map_or("", |(path, _)| path);
        if path != table {
            let gap = if out.is_empty() { "" } else { "\n" };
            out += &format!("{gap}{}\n", header(path));
            table = path;
        }
        if let Some(line) = line {
            out += &line;
            out.push('\n');
        }
    }
    out
}

/// The header of `auth.rules[2]`, which is `[[auth.rules]]`; a table within an item, as `tenants[0].rate_limit`, is of
/// the last item before it.
fn header(path: &str) -> String {
    let steps = path.split('.').map(|step| step.split('[').next().unwrap_or(step));
    let name = steps.collect::<Vec<_>>().join(".");
    if path.ends_with(']') { format!("[[{name}]]") } else { format!("[{name}]") }
}
