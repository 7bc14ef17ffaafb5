//! From verified claims to permissions: which rules a workload matches, and the safe defaults.
//!
//! Guarantees: a rule matches only if every claim it names is there as a text, boolean or integer and matches one of
//! its globs whole, where `*` stays within a segment; arrays, objects, fractions and values with control characters
//! match nothing. A run that others than the owners may have started gets only `pull`, unless the rule says otherwise,
//! and so does a run for a ref that is not protected. Must not know: signatures, issuers' keys, time.
//!
//! Events are judged by a list of those that only somebody with write access starts, so that an event that is invented
//! tomorrow is not trusted: on GitHub, `workflow_run` and `issue_comment` are not in it, because a pull request from a
//! fork or a stranger's comment starts them. A GitLab child pipeline may belong to a merge request, and counts as one
//! unless its ref is protected.
//!
//! Anyone who can push a branch can name an environment in a workflow, and GitHub makes it on the spot, without
//! protection. So an environment stands in for a protected ref only if the rule itself names it, without a wildcard, or
//! the issuer says that it is protected.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use globset::{GlobSet, GlobSetBuilder};
use serde_json::{Map, Value};

use super::compile::quoted;
use super::explain::{Effect, Explanation, Step};
use crate::document::ProviderKind;
use crate::permission::{Action, Permission, compile, is_literal};

/// GitHub events that need write access to the repository.
const GITHUB_TRUSTED: [&str; 10] = [
    "push",
    "schedule",
    "workflow_dispatch",
    "repository_dispatch",
    "release",
    "create",
    "delete",
    "deployment",
    "deployment_status",
    "registry_package",
];

/// GitLab pipeline sources that need the rights of a developer.
const GITLAB_TRUSTED: [&str; 8] =
    ["push", "web", "webide", "schedule", "api", "trigger", "pipeline", "chat"];

/// Claims that count whatever rules there are: who it is, and what the safe defaults look at.
const ALWAYS_COUNT: [&str; 9] = [
    "iss",
    "sub",
    "repository",
    "project_path",
    "ref",
    "event_name",
    "pipeline_source",
    "ref_protected",
    "environment_protected",
];

/// The most bytes of a subject as it is shown and logged.
const SUBJECT_BYTES_MAX: usize = 128;

/// The most bytes of a glob for a claim.
const GLOB_BYTES_MAX: usize = 512;

/// What a workload gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Canonical texts, each once: of all matching rules together.
    pub permissions: Vec<String>,
    /// The positions of the rules that gave something.
    pub rules: Vec<usize>,
    /// Who it is, for the audit and for logs: printable and short. Never decide by it.
    pub subject: String,
    /// Those of the claims that decided it, or that the safe defaults look at: enough to decide it again.
    pub claims: Map<String, Value>,
}

/// Why a workload gets nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Tokens are not exchanged.
    #[error("workload identity is off: set auth.oidc.enabled = true to exchange tokens")]
    Disabled,
    /// The policy has no such issuer.
    #[error("the policy has no such provider: add it to auth.oidc.providers")]
    UnknownProvider,
    /// A claim is missing that the provider's tokens must have.
    #[error("the token has no claim `{claim}`, which the provider requires")]
    ClaimMissing {
        /// Its name.
        claim: String,
    },
    /// No rule matches.
    #[error(
        "no rule of the provider matches the token's claims: `nora auth explain` shows which claim each rule missed"
    )]
    NoRule,
    /// Rules match, but leave nothing.
    #[error(
        "rules match, but a run for a pull request or an unprotected ref gets only `pull`, and they give none: \
         run it for a protected ref, or set pull_requests or unprotected_refs in the rule"
    )]
    OnlyPull,
}

/// An issuer's rules, compiled.
#[derive(Debug)]
pub(super) struct ProviderRules {
    pub(super) place: String,
    pub(super) kind: ProviderKind,
    pub(super) required: Vec<String>,
    pub(super) rules: Vec<ClaimRule>,
}

/// One rule, compiled.
#[derive(Debug)]
pub(super) struct ClaimRule {
    pub(super) place: String,
    pub(super) claims: Vec<(String, ValueMatcher)>,
    pub(super) permissions: Vec<Permission>,
    pub(super) pull_requests: bool,
    pub(super) unprotected_refs: bool,
}

/// Values that a claim may have.
#[derive(Debug)]
pub(super) struct ValueMatcher {
    texts: Vec<String>,
    literals: BTreeSet<String>,
    globs: GlobSet,
}

impl ValueMatcher {
    /// Compiles globs; of an error it says the position and the reason.
    pub(super) fn compile(texts: &[String]) -> Result<Self, (usize, String)> {
        let mut literals = BTreeSet::new();
        let mut builder = GlobSetBuilder::new();
        for (at, text) in texts.iter().enumerate() {
            if text.is_empty() {
                return Err((at, "an empty value matches nothing: remove it".to_owned()));
            }
            if text.len() > GLOB_BYTES_MAX {
                return Err((at, format!("it is longer than {GLOB_BYTES_MAX} bytes: shorten it")));
            }
            if text.chars().any(char::is_control) {
                return Err((at, "it holds a control character, which no claim may".to_owned()));
            }
            if text.contains("***") {
                return Err((at, "`***` is no wildcard: write `*` or `**`".to_owned()));
            }
            if is_literal(text) {
                literals.insert(text.clone());
            } else {
                builder.add(compile(text).map_err(|error| (at, error.to_string()))?);
            }
        }
        let globs = builder.build().map_err(|error| (0, error.kind().to_string()))?;
        Ok(Self { texts: texts.to_vec(), literals, globs })
    }

    fn matches(&self, value: &str) -> bool {
        !value.chars().any(char::is_control)
            && (self.literals.contains(value) || self.globs.is_match(value))
    }
}

/// Why a run gets only `pull` of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CutDown {
    PullRequest,
    UnprotectedRef,
}

impl CutDown {
    fn why(self) -> &'static str {
        match self {
            Self::PullRequest => {
                "the run is for a pull or merge request, or for an event that others may cause, so only pull is \
                 given; the rule could say pull_requests = true"
            }
            Self::UnprotectedRef => {
                "the run's ref is not protected and it is in no environment that the rule matches, so only pull is \
                 given; the rule could say unprotected_refs = true"
            }
        }
    }
}

impl ClaimRule {
    /// The first claim that is not as the rule wants it.
    fn mismatch(&self, claims: &Map<String, Value>) -> Option<String> {
        self.claims.iter().find_map(|(name, wanted)| {
            let found = match claims.get(name) {
                None => return Some(format!("the token has no claim {}", quoted(name))),
                Some(value) => text_of(value),
            };
            let name = quoted(name);
            match found {
                None => Some(format!("claim {name} is neither a text, a boolean nor an integer")),
                Some(found) if wanted.matches(&found) => None,
                Some(found) => {
                    let wanted: Vec<String> =
                        wanted.texts.iter().map(|text| quoted(text)).collect();
                    let (found, wanted) = (quoted(&found), wanted.join(" or "));
                    Some(format!("claim {name} is {found}, and the rule wants {wanted}"))
                }
            }
        })
    }

    fn cut_down(&self, kind: ProviderKind, claims: &Map<String, Value>) -> Option<CutDown> {
        if !self.pull_requests && !event_is_trusted(kind, claims) {
            return Some(CutDown::PullRequest);
        }
        if !self.unprotected_refs && !self.is_protected(kind, claims) {
            return Some(CutDown::UnprotectedRef);
        }
        None
    }

    fn is_protected(&self, kind: ProviderKind, claims: &Map<String, Value>) -> bool {
        if kind == ProviderKind::Generic && !claims.contains_key("ref_protected") {
            return true;
        }
        // The rule has matched, so a claim that it names is there. A glob would match an environment that anyone may make.
        let named = self.claims.iter().any(|(name, values)| {
            name == "environment" && values.texts.iter().all(|text| is_literal(text))
        });
        is_true(claims, "ref_protected") || named || is_true(claims, "environment_protected")
    }

    /// What it gives to such a run.
    fn given(&self, cut_down: Option<CutDown>) -> Vec<Permission> {
        let given = self.permissions.iter().filter_map(|permission| match cut_down {
            None => Some(permission.clone()),
            Some(_) => permission.narrowed_to(Action::Pull),
        });
        given.collect()
    }
}

impl ProviderRules {
    pub(super) fn grant(&self, claims: &Map<String, Value>) -> Result<Grant, Refused> {
        self.check_required(claims)?;
        let mut permissions = BTreeMap::new();
        let mut rules = Vec::new();
        let mut matched = false;
        for (at, rule) in self.rules.iter().enumerate() {
            if rule.mismatch(claims).is_some() {
                continue;
            }
            matched = true;
            let given = rule.given(rule.cut_down(self.kind, claims));
            if !given.is_empty() {
                rules.push(at);
            }
            for permission in given {
                let order = permissions.len();
                permissions.entry(permission.to_string()).or_insert(order);
            }
        }
        if rules.is_empty() {
            return Err(if matched { Refused::OnlyPull } else { Refused::NoRule });
        }
        let mut permissions: Vec<(String, usize)> = permissions.into_iter().collect();
        permissions.sort_by_key(|(_, order)| *order);
        let permissions = permissions.into_iter().map(|(text, _)| text).collect();
        let claims_that_count = claims.iter().filter(|(name, _)| self.counts(name));
        let claims_that_count =
            claims_that_count.map(|(name, value)| (name.clone(), value.clone())).collect();
        let subject = subject(self.kind, claims);
        Ok(Grant { permissions, rules, subject, claims: claims_that_count })
    }

    pub(super) fn explain(&self, claims: &Map<String, Value>) -> Explanation {
        if let Err(refused) = self.check_required(claims) {
            return Explanation::refusal(refused.to_string());
        }
        let mut steps = Vec::new();
        for rule in &self.rules {
            if let Some(why) = rule.mismatch(claims) {
                let place = format!("{}.match", rule.place);
                let text = rule.claims.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>();
                let (text, effect) = (text.join(" "), Effect::DoesNotMatch);
                steps.push(Step { place, text, effect, why });
                continue;
            }
            let cut_down = rule.cut_down(self.kind, claims);
            for (at, permission) in rule.permissions.iter().enumerate() {
                let place = format!("{}.permissions[{at}]", rule.place);
                let given = match cut_down {
                    None => Some(permission.clone()),
                    Some(_) => permission.narrowed_to(Action::Pull),
                };
                if let Some(cut) = cut_down.filter(|_| given.as_ref() != Some(permission)) {
                    let (place, text) = (place.clone(), permission.to_string());
                    let why = cut.why().to_owned();
                    steps.push(Step { place, text, effect: Effect::CutsDown, why });
                }
                if let Some(given) = given {
                    let why = "every claim that the rule names matches".to_owned();
                    let (text, effect) = (given.to_string(), Effect::Allows);
                    steps.push(Step { place, text, effect, why });
                }
            }
        }
        let (allowed, summary) = match self.grant(claims) {
            Ok(grant) => {
                let rules: Vec<String> =
                    grant.rules.iter().map(|at| format!("{}.rules[{at}]", self.place)).collect();
                let (who, what) = (&grant.subject, grant.permissions.join(" "));
                (true, format!("{who} gets {what}, because of {}", rules.join(", ")))
            }
            Err(refused) => (false, refused.to_string()),
        };
        Explanation { allowed, steps, summary }
    }

    /// Whether a claim may decide anything.
    fn counts(&self, name: &str) -> bool {
        ALWAYS_COUNT.contains(&name)
            || self.required.iter().any(|required| required == name)
            || self.rules.iter().any(|rule| rule.claims.iter().any(|(named, _)| named == name))
    }

    fn check_required(&self, claims: &Map<String, Value>) -> Result<(), Refused> {
        let missing = |claim: &&String| claims.get(*claim).is_none_or(Value::is_null);
        match self.required.iter().find(missing) {
            Some(claim) => Err(Refused::ClaimMissing { claim: claim.clone() }),
            None => Ok(()),
        }
    }
}

/// A value as rules compare it.
fn text_of(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Bool(value) => Some(Cow::Borrowed(if *value { "true" } else { "false" })),
        Value::Number(number) if number.is_i64() || number.is_u64() => {
            Some(Cow::Owned(number.to_string()))
        }
        _ => None,
    }
}

fn is_true(claims: &Map<String, Value>, name: &str) -> bool {
    claims.get(name).and_then(text_of).is_some_and(|text| text == "true")
}

fn event_is_trusted(kind: ProviderKind, claims: &Map<String, Value>) -> bool {
    let github = || {
        let event = claims.get("event_name").and_then(text_of);
        event.is_some_and(|event| GITHUB_TRUSTED.contains(&&*event))
    };
    let gitlab = || {
        let source = claims.get("pipeline_source").and_then(text_of);
        source.is_some_and(|source| {
            GITLAB_TRUSTED.contains(&&*source)
                || (source == "parent_pipeline" && is_true(claims, "ref_protected"))
        })
    };
    match kind {
        ProviderKind::Github => github(),
        ProviderKind::Gitlab => gitlab(),
        // An issuer of another kind may still send these claims, as self-hosted forges do.
        ProviderKind::Generic => {
            (!claims.contains_key("event_name") || github())
                && (!claims.contains_key("pipeline_source") || gitlab())
        }
    }
}

/// Who it is in a line of a log: of structured claims if there are any, because the form of `sub` is the issuer's.
fn subject(kind: ProviderKind, claims: &Map<String, Value>) -> String {
    let text = |name: &str| claims.get(name).and_then(text_of);
    let owner = match kind {
        ProviderKind::Github => text("repository"),
        ProviderKind::Gitlab => text("project_path"),
        ProviderKind::Generic => None,
    };
    let whole = match (owner, text("ref")) {
        (Some(owner), Some(reference)) => format!("{owner}@{reference}"),
        (Some(owner), None) => owner.into_owned(),
        (None, _) => text("sub").map_or_else(|| "unnamed".to_owned(), Cow::into_owned),
    };
    let printable = |c: char| if c.is_ascii_graphic() { c } else { '_' };
    whole.chars().map(printable).take(SUBJECT_BYTES_MAX).collect()
}
