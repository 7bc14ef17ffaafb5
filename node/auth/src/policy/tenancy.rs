//! Who owns which names.
//!
//! Guarantees: a name has one owner, the tenant with the most specific namespace that holds it, or the default tenant;
//! a namespace belongs to one tenant. A namespace is a prefix and no glob, so that owners can be found without trying
//! all of them and two of them never overlap half. Must not know: what tenants may do.

use std::collections::BTreeMap;

use nora_domain::{Format, TenantName};

use super::compile::{Errors, quoted};
use crate::document::Tenant;
use crate::permission::{FORMATS, Pattern, format_named, is_literal, nearest, segments};

/// All namespaces and their owners.
#[derive(Debug)]
pub(super) struct Namespaces {
    /// The tenants, in the policy's order.
    owners: Vec<TenantName>,
    /// Who owns what nobody claims.
    nobody: TenantName,
    formats: BTreeMap<Format, Claims>,
}

/// The namespaces of one format: what is claimed to its owner.
#[derive(Debug, Default)]
struct Claims {
    /// In the form of [`segments`]: names, each with everything below it.
    names: BTreeMap<Box<str>, Claim>,
    /// Beginnings of names where names have no segments: `acme-` of `acme-*`.
    prefixes: BTreeMap<Box<str>, usize>,
}

#[derive(Debug)]
struct Claim {
    tenant: usize,
    /// Whether the name itself is claimed too, as with `frontend`; not with `frontend/*`.
    itself: bool,
}

/// What a namespace says.
enum Namespace {
    Name { name: String, itself: bool },
    Prefix(String),
}

impl Namespaces {
    pub(super) fn compile(tenants: &[Tenant], errors: &mut Errors) -> Self {
        let nobody = TenantName::default_tenant();
        let mut all = Self { owners: Vec::new(), nobody, formats: BTreeMap::new() };
        let mut names: BTreeMap<&str, usize> = BTreeMap::new();
        for (at, tenant) in tenants.iter().enumerate() {
            let place = format!("tenants[{at}]");
            match TenantName::parse(&tenant.name) {
                Ok(name) => all.owners.push(name),
                Err(error) => {
                    errors
                        .add(format!("{place}.name"), format!("{}: {error}", quoted(&tenant.name)));
                    all.owners.push(all.nobody.clone());
                }
            }
            if tenant.name == all.nobody.as_str() {
                let reason = "`default` owns whatever nobody claims: choose another name";
                errors.add(format!("{place}.name"), reason);
            }
            if let Some(first) = names.insert(&tenant.name, at) {
                let reason =
                    format!("tenants[{first}] has the same name: rename one, or merge them");
                errors.add(format!("{place}.name"), reason);
            }
            check_limits(&place, tenant, errors);
            for (format, list) in &tenant.namespaces {
                let place = format!("{place}.namespaces.{}", format.escape_debug());
                let Some(format) = format_named(format) else {
                    let formats = FORMATS.map(Format::name);
                    let nearest = nearest(format, &formats).unwrap_or("oci");
                    let reason = format!("unknown format: did you mean `{nearest}`?");
                    errors.add(place, reason);
                    continue;
                };
                for (position, text) in list.iter().enumerate() {
                    if let Err(reason) = all.claim(at, format, text) {
                        errors.add(format!("{place}[{position}]"), reason);
                    }
                }
            }
        }
        all
    }

    /// The owner of a name.
    pub(super) fn owner(&self, format: Format, path: &str) -> &TenantName {
        let owner = self.formats.get(&format).and_then(|claims| claims.owner(format, path));
        owner.and_then(|at| self.owners.get(at)).unwrap_or(&self.nobody)
    }

    fn claim(&mut self, tenant: usize, format: Format, text: &str) -> Result<(), String> {
        let namespace = parse(format, text)?;
        let claims = self.formats.entry(format).or_default();
        let earlier = match namespace {
            Namespace::Prefix(prefix) => claims.prefixes.insert(prefix.into(), tenant),
            Namespace::Name { name, itself } => {
                let earlier = claims.names.get_mut(name.as_str());
                match earlier {
                    Some(claim) => {
                        claim.itself |= itself;
                        Some(claim.tenant)
                    }
                    None => {
                        claims.names.insert(name.into(), Claim { tenant, itself });
                        None
                    }
                }
            }
        };
        match earlier {
            Some(other) if other != tenant => Err(format!(
                "tenants[{other}] claims {} too: a namespace has one owner",
                quoted(text)
            )),
            _ => Ok(()),
        }
    }
}

impl Claims {
    fn owner(&self, format: Format, path: &str) -> Option<usize> {
        let path = segments(format, path);
        if let Some(claim) = self.names.get(&*path)
            && claim.itself
        {
            return Some(claim.tenant);
        }
        for (end, _) in path.rmatch_indices('/') {
            if let Some(claim) = self.names.get(&path[..end]) {
                return Some(claim.tenant);
            }
        }
        if self.prefixes.is_empty() {
            return None;
        }
        let ends = path.char_indices().map(|(at, c)| at + c.len_utf8()).rev();
        ends.into_iter().find_map(|end| self.prefixes.get(&path[..end]).copied())
    }
}

/// Reads a namespace: `frontend/*` is what is below, `frontend` that and the name itself; of Python and Rust packages
/// `acme-*` is every name that begins so.
fn parse(format: Format, text: &str) -> Result<Namespace, String> {
    let refuse = |why: &str| Err(format!("{} is no namespace: {why}", quoted(text)));
    if text == "*" || text == "**" {
        return refuse("nobody can own everything; what no tenant claims is the default tenant's");
    }
    // The same rules as for permissions, so that a namespace which could hold nothing is refused alike.
    if let Err(error) = Pattern::parse(&format!("{format}:{text}")) {
        return refuse(&error.to_string());
    }
    let flat = matches!(format, Format::Pypi | Format::Cargo);
    if flat && text.contains('/') {
        return refuse("names of this format have no `/`: write `acme-*` or a whole name");
    }
    if flat && let Some(prefix) = text.strip_suffix('*') {
        return if is_literal(prefix) {
            Ok(Namespace::Prefix(prefix.to_owned()))
        } else {
            refuse("only its end may be `*`")
        };
    }
    let below = match format {
        Format::Maven => text.strip_suffix(".*"),
        _ => text.strip_suffix("/*"),
    };
    let name = below.unwrap_or(text);
    if !is_literal(name) {
        return refuse(
            "a namespace is a prefix: write it as `frontend/*`, `@frontend/*`, `com.acme.frontend` or a whole name",
        );
    }
    // A scope is no package, and a group no artifact: for these, what is below is all there is.
    Ok(Namespace::Name { name: segments(format, name).into_owned(), itself: below.is_none() })
}

fn check_limits(place: &str, tenant: &Tenant, errors: &mut Errors) {
    let limits = [
        ("storage_quota", tenant.storage_quota),
        ("artifact_quota", tenant.artifact_quota),
        ("rate_limit.push", tenant.rate_limit.push),
        ("rate_limit.pull", tenant.rate_limit.pull),
        ("rate_limit.anonymous_pull", tenant.rate_limit.anonymous_pull),
        ("rate_limit.pull_per_caller", tenant.rate_limit.pull_per_caller),
    ];
    for (key, limit) in limits {
        if limit == Some(0) {
            let reason = "0 would refuse everything: give a number, or remove it for no limit";
            errors.add(format!("{place}.{key}"), reason);
        }
    }
}
