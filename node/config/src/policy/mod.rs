//! The policy: the tables of `nora.toml` that are the same on every node, read into the document that is replicated.
//!
//! Guarantees: a policy that is accepted here compiles; whatever the compiler has against it is told like every other
//! error of the file, at its place. Nothing here shows a login's hash. Must not know: what permissions mean.

mod changes;
mod convert;
mod place;
mod tables;
mod write;

use std::collections::BTreeMap;
use std::path::Path;

use nora_auth::document::PolicyDocument;
use nora_auth::password::parse_htpasswd;
use nora_auth::policy::Policy;
use toml::de::DeTable;

pub use changes::policy_changes;
pub use write::policy_toml;

use super::diagnostic::{Diagnostic, concealed, printable};
use super::section::{Document, OnError, Section, SectionSpec, read_section, read_sections};
use convert::Tables;
use tables::{AuditTable, AuthTable, PolicyTable, TenantTable};

/// The tables of the policy, in the order in which they are told.
pub(super) fn sections() -> Vec<SectionSpec> {
    vec![AuthTable::spec(), TenantTable::spec().repeated(), PolicyTable::spec(), AuditTable::spec()]
}

/// Reads and judges the policy. Its errors are the document's; what is returned then is good for nothing.
pub(super) fn read_policy(
    root: &DeTable<'_>,
    document: &mut Document<'_>,
) -> Option<PolicyDocument> {
    let tables = read_tables(root, document)?;
    let logins = match tables.auth.as_ref().and_then(|auth| auth.htpasswd.as_ref()) {
        Some(file) => read_logins(root, document, &file.0),
        None => BTreeMap::new(),
    };
    let policy = tables.document(logins);
    judge(root, document, &policy);
    Some(policy)
}

fn read_tables(root: &DeTable<'_>, document: &mut Document<'_>) -> Option<Tables> {
    // Whether there is an [auth] matters, whatever is in it.
    let auth = root.get("auth");
    let auth = auth.and_then(|value| read_section(document, Some(value), OnError::Salvage));
    let tenants = read_sections::<TenantTable>(document, root.get("tenants"), OnError::Salvage);
    let policy = read_section::<PolicyTable>(document, root.get("policy"), OnError::Salvage);
    let audit = read_section::<AuditTable>(document, root.get("audit"), OnError::Salvage);
    Some(Tables {
        auth,
        tenants: tenants?,
        policy: policy.unwrap_or(PolicyTable { immutable: Vec::new() }),
        // Its reader has reported why it is not one.
        audit: audit.or_else(|| read_section(document, None, OnError::Salvage))?,
    })
}

/// Reads a policy's tables without asking whether they make sense.
#[cfg(test)]
pub(super) fn read_unjudged(text: &str) -> Result<PolicyDocument, Vec<Diagnostic>> {
    let overlay = super::Overlay::new();
    let (tables, _, errors) =
        super::parse_document(text, std::path::PathBuf::new(), &overlay, read_tables);
    match tables {
        Some(tables) if errors.is_empty() => Ok(tables.document(BTreeMap::new())),
        _ => Err(errors),
    }
}

/// Reads the file of logins that the policy names.
fn read_logins(
    root: &DeTable<'_>,
    document: &mut Document<'_>,
    path: &Path,
) -> BTreeMap<String, String> {
    const KEY: &str = "auth.htpasswd";
    let span = place::span_of(root, KEY).unwrap_or(0..0);
    let name = printable(&path.display().to_string());
    let logins = super::read_file(path).map_err(|message| {
        let help = "make it with `htpasswd -B -c FILE USER`, or remove the key";
        vec![Diagnostic::at(message, span.clone(), "this file").help(help)]
    });
    let logins = logins.and_then(|text| {
        parse_htpasswd(&text).map_err(|errors| {
            let told = |(line, reason): (usize, String)| {
                let message = format!("{name}, line {line}: {}", printable(&reason));
                Diagnostic::at(message, span.clone(), "in this file")
            };
            errors.into_iter().map(told).collect()
        })
    });
    match logins {
        Ok(logins) => {
            let users = logins.len();
            let note = if users == 1 { "1 user".to_owned() } else { format!("{users} users") };
            for entry in document.effective.iter_mut().filter(|entry| entry.key == KEY) {
                entry.note = Some(note.clone());
            }
            logins
        }
        Err(diagnostics) => {
            document.broken.push(KEY.to_owned());
            diagnostics.into_iter().for_each(|diagnostic| document.report(diagnostic));
            BTreeMap::new()
        }
    }
}

/// Reports what the compiler has against a policy.
fn judge(root: &DeTable<'_>, document: &mut Document<'_>, policy: &PolicyDocument) {
    // What is left of a torn file is not what anybody meant.
    if document.torn {
        return;
    }
    for error in Policy::compile(policy).err().into_iter().flatten() {
        let place = place::written(&error.place);
        // A rule whose permissions cannot be read is not also one without permissions.
        let follows =
            |broken: &String| place::contains(broken, &place) || place::contains(&place, broken);
        if document.broken.iter().any(follows) {
            continue;
        }
        // A reason quotes what it is about, and that may be a secret that was written in a wrong place.
        let message = printable(&format!("{place}: {}", concealed(&error.reason)));
        let span = place::span_of(root, &place);
        document.report(match span {
            Some(span) => Diagnostic::at(message, span, "here"),
            None => Diagnostic::new(message),
        });
    }
}
