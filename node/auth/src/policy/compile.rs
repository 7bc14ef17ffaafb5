//! From a document to a policy: everything is checked, and every error is kept with its place.
//!
//! Guarantees: a policy exists only of a document without an error. What could never have an effect is an error too: a
//! rule that nobody can match is a rule that somebody believes in. Must not know: where the document was written.

use std::collections::{BTreeMap, BTreeSet};

use super::decide::{Subjects, Whom};
use super::immutable::ImmutableTags;
use super::tenancy::Namespaces;
use super::{Policy, PolicyError, providers};
use crate::document::{Auth, DOCUMENT_BYTES_MAX, PolicyDocument, Rule};
use crate::identity::check_name;
use crate::permission::{Permission, PermissionError, PermissionSet};

/// Where errors are gathered.
#[derive(Debug, Default)]
pub(super) struct Errors {
    list: Vec<PolicyError>,
}

impl Errors {
    /// Keeps one.
    pub(super) fn add(&mut self, place: impl Into<String>, reason: impl Into<String>) {
        self.list.push(PolicyError { place: place.into(), reason: reason.into() });
    }

    /// Checks a name; `what` says whose.
    pub(super) fn name(&mut self, place: impl Into<String>, what: &str, name: &str) {
        if let Err(refused) = check_name(name) {
            self.add(place, format!("{} is no name for a {what}: {refused}", quoted(name)));
        }
    }
}

/// Text of the document as messages show it: escaped, and cut if it is long.
pub(super) fn quoted(text: &str) -> String {
    let shown: String = text.escape_debug().take(80).collect();
    format!("`{shown}`")
}

pub(super) fn compile(document: &PolicyDocument) -> Result<Policy, Vec<PolicyError>> {
    let mut errors = Errors::default();
    let nothing = Auth::default();
    let auth = document.auth.as_ref().unwrap_or(&nothing);
    check_htpasswd(auth, &mut errors);
    let groups = groups(auth, &mut errors);
    let (providers, provider_rules) = providers::compile(&auth.oidc, &mut errors);
    let subjects = subjects(auth, &mut errors);
    let namespaces = Namespaces::compile(&document.tenants, &mut errors);
    let immutable = ImmutableTags::compile(&document.immutable, &mut errors);
    check_audit(document, &mut errors);
    check_size(document, &mut errors);
    if !errors.list.is_empty() {
        return Err(errors.list);
    }
    let document = document.clone();
    Ok(Policy { document, subjects, groups, namespaces, immutable, providers, provider_rules })
}

/// Hashes are never quoted: they are secrets.
fn check_htpasswd(auth: &Auth, errors: &mut Errors) {
    for (user, hash) in &auth.htpasswd {
        let place = format!("auth.htpasswd.{}", user.escape_debug().take(80).collect::<String>());
        errors.name(&place, "user", user);
        let bcrypt = ["$2a$", "$2b$", "$2y$"].iter().any(|prefix| hash.starts_with(prefix));
        if !bcrypt || hash.len() != 60 {
            errors.add(place, "the hash is not bcrypt: make the line with `htpasswd -B`");
        }
    }
}

fn groups(auth: &Auth, errors: &mut Errors) -> BTreeMap<Box<str>, Vec<String>> {
    let mut of: BTreeMap<Box<str>, Vec<String>> = BTreeMap::new();
    for (group, members) in &auth.groups {
        let place = format!("auth.groups.{}", group.escape_debug().take(80).collect::<String>());
        errors.name(&place, "group", group);
        for (at, member) in members.iter().enumerate() {
            errors.name(format!("{place}[{at}]"), "user", member);
            let groups = of.entry(member.as_str().into()).or_default();
            if !groups.contains(group) {
                groups.push(group.clone());
            }
        }
    }
    of
}

fn subjects(auth: &Auth, errors: &mut Errors) -> Subjects {
    let mut subjects = Subjects::default();
    let anonymous = check_permissions("auth.anonymous", &auth.anonymous, errors);
    subjects.add(&Whom::Everyone, &anonymous, &[]);
    for (at, rule) in auth.rules.iter().enumerate() {
        let place = format!("auth.rules[{at}]");
        let whom = match whom(auth, &rule.subject) {
            Ok(whom) => Some(whom),
            Err(reason) => {
                errors.add(format!("{place}.subject"), reason);
                None
            }
        };
        let (permissions, deny) = check_rule(&place, rule, errors);
        if let Some(whom) = whom {
            subjects.add(&whom, &permissions, &deny);
        }
    }
    subjects.compile(errors);
    subjects
}

fn check_rule(place: &str, rule: &Rule, errors: &mut Errors) -> (Vec<String>, Vec<String>) {
    if rule.permissions.is_empty() && rule.deny.is_empty() {
        errors.add(place, "the rule says nothing: give it `permissions` or `deny`, or remove it");
    }
    let permissions = check_permissions(&format!("{place}.permissions"), &rule.permissions, errors);
    let deny = check_permissions(&format!("{place}.deny"), &rule.deny, errors);
    let allowed: BTreeSet<&String> = permissions.iter().collect();
    for text in deny.iter().filter(|text| allowed.contains(text)) {
        errors.add(
            place,
            format!("the rule allows and denies {}: remove one of the two", quoted(text)),
        );
    }
    (permissions, deny)
}

/// The canonical texts of those that parse; the others are errors at `place[position]`.
pub(super) fn check_permissions(place: &str, texts: &[String], errors: &mut Errors) -> Vec<String> {
    let mut canonical = Vec::with_capacity(texts.len());
    for (at, text) in texts.iter().enumerate() {
        match Permission::parse(text) {
            Ok(permission) => canonical.push(permission.to_string()),
            Err(error) => errors.add(format!("{place}[{at}]"), refusal(text, &error)),
        }
    }
    canonical
}

/// Compiles texts that were checked one by one: only a set that is too large can fail.
pub(super) fn permission_set(place: &str, texts: &[String], errors: &mut Errors) -> PermissionSet {
    PermissionSet::parse(texts).unwrap_or_else(|refused| {
        for (at, error) in refused {
            let text = texts.get(at).map_or("", String::as_str);
            errors.add(place, refusal(text, &error));
        }
        PermissionSet::default()
    })
}

fn refusal(text: &str, error: &PermissionError) -> String {
    format!("{} is no permission: {error}", quoted(text))
}

/// Reads a rule's subject.
pub(super) fn whom(auth: &Auth, subject: &str) -> Result<Whom, String> {
    let named = |what: &str, name: &str| match check_name(name) {
        Ok(()) => Ok(name.into()),
        Err(refused) => Err(format!("{} names no {what}: {refused}", quoted(subject))),
    };
    let Some((kind, name)) = subject.split_once(':') else {
        return match subject {
            "anonymous" => Ok(Whom::Everyone),
            "authenticated" => Ok(Whom::Authenticated),
            "admin" => Err("`admin` may do everything already: remove the rule".to_owned()),
            name => Ok(Whom::Named(named("user, robot or group", name)?)),
        };
    };
    match kind {
        "user" => Ok(Whom::User(named("user", name)?)),
        "robot" => Ok(Whom::Robot(named("robot", name)?)),
        "group" => Ok(Whom::Group(named("group", name)?)),
        "token" => match name.split_once('/') {
            // Anyone may call a token of their own what they like.
            None => Err(format!(
                "{} does not say whose token it is: write token:<owner>/<name>, as token:ci/deploy",
                quoted(subject)
            )),
            Some((owner, token)) => {
                Ok(Whom::TokenOf(named("user or robot", owner)?, named("token", token)?))
            }
        },
        "oidc" if auth.oidc.providers.iter().any(|provider| provider.name == name) => {
            Ok(Whom::Provider(named("provider", name)?))
        }
        "oidc" => Err(format!(
            "no provider is called {}: add it to auth.oidc.providers, or correct the name",
            quoted(name)
        )),
        _ => Err(format!(
            "{} is no kind of subject: write user:, robot:, group:, token: or oidc: before the name, or nothing",
            quoted(kind)
        )),
    }
}

/// What cannot be written has no size; it cannot be replicated either.
fn json_bytes(value: &impl serde::Serialize) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX, |bytes| bytes.len())
}

/// The place is the part of it that takes most.
fn check_size(document: &PolicyDocument, errors: &mut Errors) {
    let all = json_bytes(document);
    if all <= DOCUMENT_BYTES_MAX {
        return;
    }
    let logins = document.auth.as_ref().map_or(0, |auth| json_bytes(&auth.htpasswd));
    let (place, hint) = match logins > all / 2 {
        true => ("auth.htpasswd", ": keep users with `nora user add` rather than in a file"),
        false => ("auth", ": say the same with fewer rules"),
    };
    errors.add(
        place,
        format!("the policy has {all} bytes, and {DOCUMENT_BYTES_MAX} are the most that is replicated{hint}"),
    );
}

fn check_audit(document: &PolicyDocument, errors: &mut Errors) {
    if document.audit.retention_seconds == 0 {
        errors.add(
            "audit.retention_seconds",
            "entries would be gone at once: give a time, as 90 days",
        );
    }
    if let Some(url) = &document.audit.webhook
        && !["https://", "http://"].iter().any(|scheme| url.starts_with(scheme))
    {
        errors.add("audit.webhook", "not a URL: write it with https:// or http://");
    }
}
