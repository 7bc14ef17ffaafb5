//! Who makes a request: what it shows is read and recognised, and a caller who is not is told why.
//!
//! Must not know: how anything is believed; `nora-identity` does.

use std::net::IpAddr;

use axum::extract::Request;
use http::StatusCode;
use http::header::{AUTHORIZATION, HeaderValue, RETRY_AFTER};
use nora_auth::credential::{Scheme, read_all};
use nora_identity::{Caller, Rejected};

use super::observe::RequestId;
use super::permit::{Challenge, challenged};
use super::proxy::client_address;
use crate::problem::{Kind, Problem};
use crate::{Api, ConnectionInfo};

/// Who makes a request, by whatever it shows. What is read of it is read before anything is waited for: a body cannot be
/// shared.
pub(super) fn recognise(
    api: &Api,
    request: &Request,
    scheme: Scheme,
    address: Option<IpAddr>,
    id: &RequestId,
) -> impl Future<Output = Result<Caller, Rejected>> + Send + use<> {
    let shown = request.headers().get_all(AUTHORIZATION);
    let shown: Vec<_> = shown.iter().map(HeaderValue::as_bytes).collect();
    let credential = read_all(shown, scheme);
    let (guard, id) = (api.guard.clone(), id.0.clone());
    async move { guard.recognise(credential, address, id).await }
}

/// Where a request comes from, if that is known.
pub(super) fn address_of(api: &Api, request: &Request) -> Option<IpAddr> {
    let peer = request.extensions().get::<ConnectionInfo>().map(|info| info.peer.ip());
    peer.map(|peer| client_address(&api.settings.trusted_proxies, peer, request.headers()))
}

/// The answer to a caller who was not recognised.
pub(crate) fn rejection(rejected: Rejected, challenge: &Challenge) -> Problem {
    match rejected {
        Rejected::Wrong(why) => challenged(challenge, None, &why),
        Rejected::TooMany(wait) => {
            let seconds = wait.as_secs().max(1).to_string();
            Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                Kind::TooManyRequests,
                format!("too many logins failed; wait {seconds} seconds, then try again"),
            )
            .with_header(RETRY_AFTER, &seconds)
        }
        Rejected::Failed(error) => error.into(),
    }
}
