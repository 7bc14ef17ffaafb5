//! A tenant's limits of requests by the hour: spending them, and telling what is left.
//!
//! What is left is told in the words of Docker's registry and of the IETF's draft alike.

use axum::response::Response;
use http::header::{HeaderValue, RETRY_AFTER};
use http::{HeaderName, StatusCode};
use nora_domain::{About, Deed, Rate, Reason, RepositoryKey, Verb};
use nora_identity::{Allowance, Caller};

use crate::Api;
use crate::problem::{Kind, Problem};

static LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
static REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
static RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// Counts a request against its tenant's limit: what is left of it, or `None` if there is no limit.
pub(super) async fn spend(
    api: &Api,
    caller: &Caller,
    repository: &RepositoryKey,
    rate: Rate,
) -> Result<Option<Allowance>, Problem> {
    match api.guard.allow(repository, rate).await {
        None => Ok(None),
        Some(Ok(allowance)) => Ok(Some(allowance)),
        Some(Err(allowance)) => {
            if rate == Rate::Push {
                let deed = Deed::new(Verb::ArtifactPush, About::Repository(repository.clone()));
                caller.note_refusal(deed, Reason::OverHourlyLimit);
            }
            Err(over_limit(allowance, rate))
        }
    }
}

/// Puts what is left of a limit into the answer.
pub(super) fn tell(response: &mut Response, allowance: Allowance) {
    let Allowance { limit, remaining, reset_secs, .. } = allowance;
    let headers = response.headers_mut();
    let texts = [
        (&LIMIT, format!("{limit};w=3600")),
        (&REMAINING, format!("{remaining};w=3600")),
        (&RESET, reset_secs.to_string()),
    ];
    for (name, text) in texts {
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(name, value);
        }
    }
}

fn over_limit(allowance: Allowance, rate: Rate) -> Problem {
    let Allowance { limit, reset_secs, is_spent, .. } = allowance;
    let seconds = reset_secs.to_string();
    let rate = rate.name();
    let told = match is_spent {
        true => format!(
            "{limit} requests to {rate} an hour are this namespace's limit; it begins anew in {seconds} seconds"
        ),
        false => {
            format!("too many requests to {rate} at once for this namespace; try again in a second")
        }
    };
    Problem::new(StatusCode::TOO_MANY_REQUESTS, Kind::TooManyRequests, told)
        .with_header(RETRY_AFTER, &seconds)
        .with_header(LIMIT.clone(), &format!("{limit};w=3600"))
        .with_header(REMAINING.clone(), "0;w=3600")
        .with_header(RESET.clone(), &seconds)
}
