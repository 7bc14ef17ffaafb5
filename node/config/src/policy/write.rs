//! A policy's document as a person reads it: the tables of `nora.toml` again.
//!
//! Guarantees: what is written says the same when it is read. A login's hash is never written. Must not know: the file
//! that the document once came from.

use nora_auth::document::PolicyDocument;
use serde_json::Value;

use super::convert::Tables;
use crate::section::Section;
use crate::show::{tables, toml_value};

/// Keys that are not empty if they are not written.
const FILLED: [&str; 3] = ["algorithms", "match", "permissions"];

/// Every value of a document by its path in a file, in the order of a file.
pub(super) fn entries(document: &PolicyDocument) -> Vec<(String, Value)> {
    let written = Tables::of(document);
    let mut entries = Vec::new();
    if let Some(auth) = &written.auth {
        auth.entries("auth", &mut entries);
    }
    for (at, tenant) in written.tenants.iter().enumerate() {
        tenant.entries(&format!("tenants[{at}]"), &mut entries);
    }
    written.policy.entries("policy", &mut entries);
    written.audit.entries("audit", &mut entries);
    entries
}

/// A policy as the tables of `nora.toml`. Of the logins there is only their number, as a comment.
pub fn policy_toml(document: &PolicyDocument) -> String {
    let users = document.auth.as_ref().map_or(0, |auth| auth.htpasswd.len());
    let entries = entries(document);
    tables(entries.iter().map(|(key, value)| {
        let name = key.rsplit('.').next().unwrap_or(key);
        let line = match value {
            Value::Null if key == "auth.htpasswd" && users > 0 => {
                Some(format!("# htpasswd: {users} {}", if users == 1 { "user" } else { "users" }))
            }
            Value::Null => None,
            // Without a line, these would be missing or have their defaults; other keys are empty without one.
            Value::Array(items) if items.is_empty() && !FILLED.contains(&name) => None,
            Value::Object(items) if items.is_empty() && !FILLED.contains(&name) => None,
            value => Some(format!("{name} = {}", toml_value(value))),
        };
        (key.as_str(), line)
    }))
}
