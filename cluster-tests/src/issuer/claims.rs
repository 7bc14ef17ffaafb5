//! What tokens say: the standard claims, and those of a job on GitHub.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};

/// GitHub's own tokens live five minutes.
const LIFETIME_SECONDS: u64 = 300;

/// `given` with every standard claim that it lacks; claims that are null are left out.
pub(super) fn complete(issuer: &str, given: &Map<String, Value>) -> Result<Map<String, Value>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut claims = object(json!({
        "iss": issuer,
        "aud": "nora",
        "sub": "tester",
        "iat": now,
        "nbf": now,
        "exp": now + LIFETIME_SECONDS,
        "jti": random_word()?,
    }));
    override_with(&mut claims, given);
    Ok(claims)
}

/// What a job of a workflow on GitHub is told by default, with what `given` says instead.
///
/// `sub` and the job's workflow follow from the other claims unless `given` names them, as on GitHub.
pub(super) fn github(audience: &str, given: &Map<String, Value>) -> Map<String, Value> {
    let mut claims = object(json!({
        "aud": audience,
        "repository": "my-org/app",
        "repository_id": "1001",
        "repository_owner": "my-org",
        "repository_owner_id": "2002",
        "repository_visibility": "private",
        "ref": "refs/heads/main",
        "ref_type": "branch",
        "ref_protected": "true",
        "sha": "5a0f2e1c9d3b4a6f8e7d6c5b4a39281706f5e4d3",
        "event_name": "push",
        "head_ref": "",
        "base_ref": "",
        "actor": "octocat",
        "actor_id": "583231",
        "workflow": "release",
        "run_id": "7000000001",
        "run_number": "42",
        "run_attempt": "1",
        "runner_environment": "github-hosted",
    }));
    override_with(&mut claims, given);
    let said = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (repository, reference) = (said("repository"), said("ref"));
    let context = match (said("environment"), said("event_name")) {
        (environment, _) if !environment.is_empty() => format!("environment:{environment}"),
        (_, event) if event == "pull_request" => event,
        _ => format!("ref:{reference}"),
    };
    let workflow = format!("{repository}/.github/workflows/release.yml@{reference}");
    for (name, value) in [
        ("sub", format!("repo:{repository}:{context}")),
        ("workflow_ref", workflow.clone()),
        ("job_workflow_ref", workflow),
    ] {
        if !given.contains_key(name) {
            claims.insert(name.into(), value.into());
        }
    }
    claims
}

/// Puts what `given` says in place of what is there; null takes it away.
pub(super) fn override_with(fields: &mut Map<String, Value>, given: &Map<String, Value>) {
    for (name, value) in given {
        if value.is_null() {
            fields.remove(name);
        } else {
            fields.insert(name.clone(), value.clone());
        }
    }
}

pub(super) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// 128 random bits in hexadecimal digits.
pub(super) fn random_word() -> Result<String> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| Error::Wrong("the system gives no random bytes".into()))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
