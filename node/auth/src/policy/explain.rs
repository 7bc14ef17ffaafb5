//! The decision in words, for `nora auth explain`.
//!
//! Guarantees: the answer is the decision point's own; the steps name every rule, whether it is about the caller, and
//! what it does. Slow on purpose: it reads the document rule by rule, so that a reader can check the compiled policy
//! against it. Must not know: who may read an explanation (it shows other subjects' rules; only administrators should).

use serde::Serialize;

use super::Policy;
use super::compile::whom;
use crate::document::Rule;
use crate::identity::{Identity, Subject};
use crate::permission::{Action, Permission, Resource};

/// What a step does to the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It allows.
    Allows,
    /// It denies, whatever allows.
    Denies,
    /// It says nothing about this.
    DoesNotMatch,
    /// It takes away from what others allow.
    CutsDown,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Where it is written, as `auth.rules[2].permissions[0]`.
    pub place: String,
    /// What is written there.
    pub text: String,
    /// What it does.
    pub effect: Effect,
    /// Why.
    pub why: String,
}

/// A decision and how it came about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The decision.
    pub allowed: bool,
    /// What was looked at, in order.
    pub steps: Vec<Step>,
    /// The answer in one sentence.
    pub summary: String,
}

impl Explanation {
    /// No, before anything was looked at.
    pub(super) fn refusal(summary: String) -> Self {
        Self { allowed: false, steps: Vec::new(), summary }
    }
}

pub(super) fn explain(
    policy: &Policy,
    who: &Identity,
    action: Action,
    what: &Resource<'_>,
) -> Explanation {
    let mut steps = Vec::new();
    let mut step = |place: String, text: &str, effect, why: &str| {
        steps.push(Step { place, text: text.to_owned(), effect, why: why.to_owned() });
    };
    if let Some(scope) = &who.scope {
        match scope.which(action, what) {
            Some(text) => step(
                "the token's scope".to_owned(),
                text,
                Effect::DoesNotMatch,
                "the token is cut down to this, which takes nothing away here",
            ),
            None => step(
                "the token's scope".to_owned(),
                &scope.texts().join(" "),
                Effect::CutsDown,
                "the token that was shown is cut down to this, which does not cover it",
            ),
        }
    }
    if who.subject == Subject::Administrator {
        let why = "the administrator may do everything";
        step("the account".to_owned(), "admin", Effect::Allows, why);
    } else {
        if let Some(text) = who.grant.as_ref().and_then(|grant| grant.which(action, what)) {
            let why = "the exchanged token was granted this";
            step("the token's grant".to_owned(), text, Effect::Allows, why);
        }
        for written in written_rules(policy, who, action, what) {
            steps.push(written);
        }
    }
    let allowed = policy.decide(who, action, what);
    let summary = summary(&steps, allowed, who, action, what);
    Explanation { allowed, steps, summary }
}

fn written_rules(
    policy: &Policy,
    who: &Identity,
    action: Action,
    what: &Resource<'_>,
) -> Vec<Step> {
    let Some(auth) = &policy.document.auth else { return Vec::new() };
    let mut steps = Vec::new();
    permissions(&mut steps, "auth.anonymous", &auth.anonymous, action, what);
    for (at, rule) in auth.rules.iter().enumerate() {
        let place = format!("auth.rules[{at}]");
        if !whom(auth, &rule.subject).is_ok_and(|whom| whom.is_about(policy, who)) {
            let why = format!("it is about {}, which {} is not", rule.subject, who.subject);
            let (text, effect) = (rule.subject.clone(), Effect::DoesNotMatch);
            steps.push(Step { place: format!("{place}.subject"), text, effect, why });
            continue;
        }
        permissions(&mut steps, &format!("{place}.permissions"), &rule.permissions, action, what);
        denies(&mut steps, &place, rule, action, what);
    }
    steps
}

fn permissions(
    steps: &mut Vec<Step>,
    place: &str,
    texts: &[String],
    action: Action,
    what: &Resource<'_>,
) {
    for (at, text) in texts.iter().enumerate() {
        let covers = Permission::parse(text).is_ok_and(|one| one.covers(action, what));
        let (effect, why) = if covers {
            (Effect::Allows, format!("it covers {action} on {what}"))
        } else {
            (Effect::DoesNotMatch, format!("it does not cover {action} on {what}"))
        };
        steps.push(Step { place: format!("{place}[{at}]"), text: text.clone(), effect, why });
    }
}

fn denies(steps: &mut Vec<Step>, place: &str, rule: &Rule, action: Action, what: &Resource<'_>) {
    for (at, text) in rule.deny.iter().enumerate() {
        let denies = Permission::parse(text).is_ok_and(|one| one.denies(action, what));
        let (effect, why) = if denies {
            (Effect::Denies, format!("it denies {action} on {what}, and a deny wins"))
        } else {
            (Effect::DoesNotMatch, format!("it does not deny {action} on {what}"))
        };
        steps.push(Step { place: format!("{place}.deny[{at}]"), text: text.clone(), effect, why });
    }
}

fn summary(
    steps: &[Step],
    allowed: bool,
    who: &Identity,
    action: Action,
    what: &Resource<'_>,
) -> String {
    let first = |effect| steps.iter().find(|step| step.effect == effect);
    let asked =
        format!("{} {} {action} {what}", who.subject, if allowed { "may" } else { "may not" });
    let decisive = if allowed {
        first(Effect::Allows)
    } else {
        first(Effect::CutsDown).or(first(Effect::Denies))
    };
    match decisive {
        Some(step) => format!("{asked}, because of {} (`{}`)", step.place, step.text),
        None => format!("{asked}: no rule allows it"),
    }
}
