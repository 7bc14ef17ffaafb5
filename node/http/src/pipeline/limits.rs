//! A tenant's limits of requests by the hour: spending them, and telling what is left.
//!
//! What is left is told in the words of Docker's registry and of the IETF's draft alike.

use axum::response::Response;
use http::header::{HeaderValue, RETRY_AFTER};
use http::{HeaderName, StatusCode};
use nora_domain::{About, Deed, Rate, Reason, RepositoryKey, Verb};
use nora_identity::{Allowance, Caller, Limit, Over, Spends, Why};

use crate::Api;
use crate::problem::{Kind, Problem};

static LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
static REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
static RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// Counts a request against the limits of its repository's tenant: what is left, or `None` if there is no limit.
pub(super) async fn spend(
    api: &Api,
    caller: &Caller,
    repository: &RepositoryKey,
    spends: Spends,
) -> Result<Option<Allowance>, Problem> {
    let spent = api.guard.spend(caller, &repository.tenant, spends).await;
    spent.map_err(|over| {
        if spends == Spends::Push {
            let deed = Deed::new(Verb::ArtifactPush, About::Repository(repository.clone()));
            caller.note_refusal(deed, Reason::OverHourlyLimit);
        }
        over_limit(over)
    })
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

fn over_limit(over: Over) -> Problem {
    let Over { of, why, allowance: Allowance { limit, reset_secs, .. } } = over;
    let seconds = reset_secs.to_string();
    let requests = match of {
        Limit::Tenant(Rate::Push) => "pushes to this namespace",
        Limit::Tenant(Rate::Pull) => "pulls from this namespace",
        Limit::Tenant(Rate::AnonymousPull) => {
            "pulls from this namespace by all clients without a login"
        }
        Limit::CallerPull => "pulls from this namespace by one client",
        Limit::CallerRead => "requests to read from this namespace by one client",
    };
    let mut told = match why {
        Why::Spent => {
            format!("the limit is {limit} {requests} an hour; it begins anew in {seconds} seconds")
        }
        Why::Burst => format!("too many {requests} at once; try again in a second"),
        Why::Unanswered => format!(
            "the cluster cannot count {requests} now, so this node lets few through; try again in {seconds} seconds"
        ),
    };
    if of == Limit::Tenant(Rate::AnonymousPull) && why == Why::Spent {
        told.push_str(", or log in");
    }
    Problem::new(StatusCode::TOO_MANY_REQUESTS, Kind::TooManyRequests, told)
        .with_header(RETRY_AFTER, &seconds)
        .with_header(LIMIT.clone(), &format!("{limit};w=3600"))
        .with_header(REMAINING.clone(), "0;w=3600")
        .with_header(RESET.clone(), &seconds)
}
