//! Issuers of workload identities: which are believed, and whether their rules say who is meant.
//!
//! Guarantees: an issuer is one exact `https` address with one audience and asymmetric algorithms alone; a rule for a
//! CI system that everyone may use names an owner in full, so that nobody gets in by choosing a name that looks like
//! it. An issuer that is known keeps its safe defaults whatever kind the document gives it. Must not know: how a token
//! is verified.

use std::collections::BTreeMap;

use super::claims::{ClaimRule, ProviderRules, ValueMatcher};
use super::compile::{Errors, check_permissions, quoted};
use crate::document::{Oidc, Provider, ProviderKind, ProviderRule};
use crate::permission::{Permission, is_literal};

/// Signature algorithms that a policy may accept: none that a verifier's public key could be used to forge.
const ALGORITHMS: [&str; 9] =
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];

/// Those that are accepted if the policy names none.
const DEFAULT_ALGORITHMS: [&str; 2] = ["RS256", "ES256"];

/// Claims one of which a rule must pin to somebody, for each kind.
const GITHUB_OWNERS: [&str; 4] =
    ["repository", "repository_id", "repository_owner", "repository_owner_id"];
const GITLAB_OWNERS: [&str; 4] = ["project_path", "project_id", "namespace_path", "namespace_id"];

/// Those among them that no later owner of a name can have.
const GITHUB_IDS: [&str; 2] = ["repository_id", "repository_owner_id"];
const GITLAB_IDS: [&str; 2] = ["project_id", "namespace_id"];

/// Issuers with their defaults filled in, and their rules in the same order.
pub(super) fn compile(oidc: &Oidc, errors: &mut Errors) -> (Vec<Provider>, Vec<ProviderRules>) {
    if !(60..=3_600).contains(&oidc.token_seconds) {
        let reason =
            "an exchanged token lives between 60 and 3600 seconds (one minute to one hour)";
        errors.add("auth.oidc.token_seconds", reason);
    }
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    let mut issuers: BTreeMap<&str, usize> = BTreeMap::new();
    let mut providers = Vec::with_capacity(oidc.providers.len());
    let mut all_rules = Vec::with_capacity(oidc.providers.len());
    for (at, provider) in oidc.providers.iter().enumerate() {
        let place = format!("auth.oidc.providers[{at}]");
        errors.name(format!("{place}.name"), "provider", &provider.name);
        if let Some(first) = names.insert(&provider.name, at) {
            let reason = format!("auth.oidc.providers[{first}] has the same name: rename one");
            errors.add(format!("{place}.name"), reason);
        }
        if let Some(first) = issuers.insert(&provider.issuer, at) {
            let reason =
                format!("auth.oidc.providers[{first}] has the same issuer: put all rules into one");
            errors.add(format!("{place}.issuer"), reason);
        }
        if let Err(reason) = check_issuer(&provider.issuer) {
            errors.add(format!("{place}.issuer"), reason);
        }
        check_words(&place, provider, errors);
        let mut effective = provider.clone();
        // Issuers that everyone knows keep their safe defaults, whatever the document says.
        effective.kind = ProviderKind::of_issuer(&provider.issuer).unwrap_or(provider.kind);
        if effective.algorithms.is_empty() {
            effective.algorithms = DEFAULT_ALGORITHMS.map(str::to_owned).to_vec();
        }
        let rules = provider.rules.iter().enumerate();
        let rules = rules
            .map(|(at, rule)| {
                compile_rule(&format!("{place}.rules[{at}]"), effective.kind, rule, errors)
            })
            .collect();
        let required = provider.required_claims.clone();
        all_rules.push(ProviderRules { place, kind: effective.kind, required, rules });
        providers.push(effective);
    }
    (providers, all_rules)
}

fn check_issuer(issuer: &str) -> Result<(), String> {
    let refuse = |why: &str| Err(format!("{} is no issuer: {why}", quoted(issuer)));
    let (scheme, rest) = match issuer.split_once("://") {
        Some((scheme @ ("https" | "http"), rest)) => (scheme, rest),
        _ => return refuse("write its address, beginning with https://"),
    };
    if !rest.chars().all(|c| c.is_ascii_graphic()) || rest.contains(['\\', '"', '<', '>']) {
        return refuse("an address holds no spaces and no such characters");
    }
    if rest.contains(['?', '#']) {
        return refuse("an issuer has neither a query nor a fragment");
    }
    let authority = rest.split('/').next().unwrap_or_default();
    if authority.contains('@') {
        return refuse("an issuer holds no user name");
    }
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split_once(']').map_or("", |(host, _)| host),
        None => authority.split(':').next().unwrap_or_default(),
    };
    if host.is_empty() {
        return refuse("it names no host");
    }
    let own = matches!(host, "127.0.0.1" | "localhost") || authority.starts_with("[::1]");
    if scheme == "http" && !own {
        return refuse("only an issuer on this machine may be reached without TLS: write https://");
    }
    Ok(())
}

fn check_words(place: &str, provider: &Provider, errors: &mut Errors) {
    if provider.audience.trim().is_empty() {
        let reason =
            "no audience: give the one that tokens for this registry carry, as its public URL";
        errors.add(format!("{place}.audience"), reason);
    }
    for (at, algorithm) in provider.algorithms.iter().enumerate() {
        if !ALGORITHMS.contains(&algorithm.as_str()) {
            let list = ALGORITHMS.join(", ");
            let reason = format!("{} is not accepted: choose among {list}", quoted(algorithm));
            errors.add(format!("{place}.algorithms[{at}]"), reason);
        }
    }
    for (at, claim) in provider.required_claims.iter().enumerate() {
        if claim.trim().is_empty() {
            errors.add(format!("{place}.required_claims[{at}]"), "the claim has no name");
        }
    }
}

fn compile_rule(
    place: &str,
    kind: ProviderKind,
    rule: &ProviderRule,
    errors: &mut Errors,
) -> ClaimRule {
    let mut claims = Vec::with_capacity(rule.claims.len());
    if rule.claims.is_empty() {
        errors.add(
            format!("{place}.match"),
            "it would match every token of the issuer: name claims, as repository = \"my-org/*\"",
        );
    }
    for (claim, globs) in &rule.claims {
        let place = format!("{place}.match.{}", claim.escape_debug().take(80).collect::<String>());
        if globs.is_empty() {
            errors.add(&place, "no value could match: give at least one");
        }
        for (at, glob) in globs.iter().enumerate() {
            if claim == "sub" && !is_literal(glob) {
                let reason = "`sub` is compared whole, because its parts cannot be told apart: \
                              match the claims it is made of, as repository and ref";
                errors.add(format!("{place}[{at}]"), reason);
            }
        }
        match ValueMatcher::compile(globs) {
            Ok(values) => claims.push((claim.clone(), values)),
            Err((at, reason)) => {
                let glob = globs.get(at).map_or("", String::as_str);
                errors.add(format!("{place}[{at}]"), format!("{}: {reason}", quoted(glob)));
            }
        }
    }
    check_pinned(place, kind, rule, errors);
    let texts = check_permissions(&format!("{place}.permissions"), &rule.permissions, errors);
    if rule.permissions.is_empty() {
        errors.add(format!("{place}.permissions"), "the rule gives nothing: add what it gives");
    }
    let mut permissions = Vec::with_capacity(texts.len());
    for (at, text) in rule.permissions.iter().enumerate() {
        let Ok(permission) = Permission::parse(text) else { continue };
        if permission.is_registry_admin() {
            let reason =
                "a workload is never administrator of the whole registry: name repositories";
            errors.add(format!("{place}.permissions[{at}]"), reason);
        }
        permissions.push(permission);
    }
    ClaimRule {
        place: place.to_owned(),
        claims,
        permissions,
        pull_requests: rule.pull_requests,
        unprotected_refs: rule.unprotected_refs,
    }
}

/// Everyone has repositories on a public CI system: a rule that names no owner there gives to everyone.
fn check_pinned(place: &str, kind: ProviderKind, rule: &ProviderRule, errors: &mut Errors) {
    let owners: &[&str] = match kind {
        ProviderKind::Github => &GITHUB_OWNERS,
        ProviderKind::Gitlab => &GITLAB_OWNERS,
        ProviderKind::Generic => return,
    };
    let pins = |globs: &Vec<String>| {
        let first =
            |glob: &String| glob.split('/').next().is_some_and(|s| !s.is_empty() && is_literal(s));
        !globs.is_empty() && globs.iter().all(first)
    };
    let pinned = owners.iter().any(|claim| rule.claims.get(*claim).is_some_and(pins));
    if !pinned && !rule.claims.is_empty() {
        let list = owners.join(", ");
        let reason = format!(
            "it says not whose runs are meant: match one of {list}, with the owner written out, as `my-org/*`"
        );
        errors.add(format!("{place}.match"), reason);
    }
}

/// Rules that give more than `pull` to an owner whom they know by name alone, a line each: names can be given up, and taken
/// by somebody else.
pub(super) fn owners_by_name(providers: &[Provider]) -> Vec<String> {
    let mut told = Vec::new();
    for (at, provider) in providers.iter().enumerate() {
        let (ids, id) = match provider.kind {
            ProviderKind::Github => (GITHUB_IDS, "repository_owner_id"),
            ProviderKind::Gitlab => (GITLAB_IDS, "namespace_id"),
            ProviderKind::Generic => continue,
        };
        for (number, rule) in provider.rules.iter().enumerate() {
            let only_pulls = rule.permissions.iter().all(|text| text.starts_with("pull:"));
            if only_pulls || ids.iter().any(|id| rule.claims.contains_key(*id)) {
                continue;
            }
            told.push(format!(
                "auth.oidc.providers[{at}].rules[{number}].match: the rule knows the owner by name alone, so another owner who takes that name later gets the same: match `{id}` too"
            ));
        }
    }
    told
}
