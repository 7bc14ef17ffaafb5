//! The JSON Schema of `nora.toml`, for editors and for checks before a roll-out.

use serde_json::{Map, Value, json};

use super::section::{KeySpec, Presence, SectionSpec};
use super::sections;
use super::setting::Kind;

/// The schema, made of the tables' descriptions.
pub fn json_schema() -> Value {
    let tables: Map<String, Value> =
        sections().iter().map(|section| (section.path.to_owned(), tables(section))).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "nora.toml",
        "description": "The configuration of a NORA node.",
        "type": "object",
        "additionalProperties": false,
        "properties": tables,
    })
}

/// A table, or a list of them.
fn tables(section: &SectionSpec) -> Value {
    match section.repeated {
        false => table(section),
        true => json!({ "type": "array", "items": table(section) }),
    }
}

fn table(section: &SectionSpec) -> Value {
    let mut properties: Map<String, Value> =
        section.keys.iter().map(|spec| (spec.name.to_owned(), key(spec))).collect();
    for inner in &section.tables {
        properties.insert(inner.name().to_owned(), tables(inner));
    }
    let required: Vec<&str> = section
        .keys
        .iter()
        .filter(|key| key.presence == Presence::Required)
        .map(|key| key.name)
        .collect();
    json!({
        "type": "object",
        "description": section.about.trim(),
        "additionalProperties": false,
        "properties": properties,
        "required": required,
    })
}

fn key(spec: &KeySpec) -> Value {
    let mut schema = kind(&spec.kind);
    if let Value::Object(object) = &mut schema {
        let mut description = spec.about.trim().to_owned();
        if let Some((min, max)) = spec.bounds {
            if spec.kind == Kind::Count {
                object.insert("minimum".into(), json!(min.parse::<u64>().ok()));
                object.insert("maximum".into(), json!(max.parse::<u64>().ok()));
            } else {
                description += &format!(" From {min} to {max}.");
            }
        }
        object.insert("description".into(), json!(description));
        if let Presence::Default(text) = spec.presence
            && let Some(value) = default_value(text)
        {
            object.insert("default".into(), value);
        }
    }
    schema
}

fn default_value(text: &str) -> Option<Value> {
    let table: toml::Table = format!("value = {text}").parse().ok()?;
    serde_json::to_value(table.get("value")?).ok()
}

fn kind(kind: &Kind) -> Value {
    match kind {
        Kind::Address | Kind::Path | Kind::Text | Kind::Network => json!({ "type": "string" }),
        Kind::WebUrl => json!({ "type": "string", "pattern": "^https?://[^/@]+(/.*)?$" }),
        Kind::Url => json!({ "type": "string", "pattern": "^https?://[^/@]+/?$" }),
        Kind::Size => {
            json!({ "type": "string", "pattern": "^[0-9]+ *(B|[kK]B|[MGT]B|[KMGT]iB)$" })
        }
        Kind::Duration => json!({ "type": "string", "pattern": "^[0-9]+ *(ms|s|m|h|d|w)$" }),
        Kind::Count => json!({ "type": "integer" }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Choice(words) => json!({ "type": "string", "enum": words }),
        Kind::List(item) => json!({ "type": "array", "items": self::kind(item) }),
        Kind::OneOrMany(item) => {
            let item = self::kind(item);
            json!({ "anyOf": [item, { "type": "array", "items": item }] })
        }
        Kind::Table(_, value) => {
            json!({ "type": "object", "additionalProperties": self::kind(value) })
        }
        Kind::Secret => json!({
            "type": "object",
            "properties": { "file": { "type": "string" }, "env": { "type": "string" } },
            "additionalProperties": false,
            "minProperties": 1,
            "maxProperties": 1,
        }),
    }
}
