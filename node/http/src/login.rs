//! Logging in: sessions for Docker's token flow, workload tokens for an issuer's, and who one is.
//!
//! Must not know: how anything is believed or signed; `nora_identity` does.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Extension, RawQuery, Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use nora_app::tenants::TenantUsage;
use nora_auth::credential::{Credential, Secret};
use nora_auth::session::parse_scope;
use nora_domain::{About, Deed, Rate, Reason, TenantName, Verb};
use serde_json::{Map, Value, json};

use crate::pipeline::{Challenge, rejection};
use crate::problem::{Kind, Problem};
use crate::{Api, RequestId};
use nora_identity::{Caller, ExchangeFailure, Session, SessionRequest};

/// The most bytes of a form or a document: a token has 16 KiB at most.
const BODY_BYTES_MAX: usize = 64 << 10;

/// How long a form may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// What a client sends, whichever way: names and values, of which some may come several times.
type Fields = Vec<(String, String)>;

fn parse_form(bytes: &[u8]) -> Fields {
    form_urlencoded::parse(bytes).into_owned().collect()
}

fn field<'f>(fields: &'f Fields, name: &str) -> Option<&'f str> {
    fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

fn json_response(status: StatusCode, value: &Value) -> Response {
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
    (status, headers, value.to_string()).into_response()
}

fn session_response(session: &Session) -> Response {
    let issued_at = time_text(session.issued_at_secs);
    let mut document = json!({
        "token": session.access,
        "access_token": session.access,
        "expires_in": session.expires_in_secs,
        "issued_at": issued_at,
    });
    if let Some(refresh) = &session.refresh {
        document["refresh_token"] = Value::from(refresh.as_str());
    }
    if !session.granted.is_empty() {
        document["scope"] = Value::from(session.granted.join(" "));
    }
    json_response(StatusCode::OK, &document)
}

/// A time as RFC 3339 writes it.
fn time_text(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    let time = time::OffsetDateTime::from_unix_timestamp(seconds).ok();
    let text =
        time.and_then(|time| time.format(&time::format_description::well_known::Rfc3339).ok());
    text.unwrap_or_default()
}

fn request_of(fields: &Fields, wants_refresh: bool) -> Result<SessionRequest, Problem> {
    let scopes: Vec<_> =
        fields.iter().filter(|(key, _)| key == "scope").map(|(_, value)| value.as_str()).collect();
    let scopes = parse_scope(&scopes.join(" ")).map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, Kind::Unsupported, error.to_string())
    })?;
    Ok(SessionRequest { scopes, wants_refresh })
}

/// `GET /v2/token`: a session for whoever the header says.
pub(super) async fn session(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Extension(challenge): Extension<Challenge>,
    Extension(id): Extension<RequestId>,
    RawQuery(query): RawQuery,
) -> Response {
    let fields = parse_form(query.unwrap_or_default().as_bytes());
    let wants_refresh = field(&fields, "offline_token") == Some("true");
    let made = async {
        let request = request_of(&fields, wants_refresh)?;
        let made = api.guard.session_for(&caller, &request).await;
        made.map_err(|rejected| rejection(rejected, &challenge))
    };
    match made.await {
        Ok(session) => session_response(&session),
        Err(error) => error.with_request_id(&id).into_response(),
    }
}

/// `POST /v2/token`: the same with a form, as OAuth 2 clients send it.
pub(super) async fn session_by_form(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Extension(challenge): Extension<Challenge>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Response {
    let fields = match body_of(request).await {
        Ok((_, bytes)) => parse_form(&bytes),
        Err(error) => return error.with_request_id(&id).into_response(),
    };
    let made = async {
        let wants_refresh = field(&fields, "access_type") == Some("offline");
        let mut request = request_of(&fields, wants_refresh)?;
        let told = |rejected| rejection(rejected, &challenge);
        let caller = match field(&fields, "grant_type") {
            Some("refresh_token") => {
                let token = field(&fields, "refresh_token").unwrap_or_default();
                // Whoever has one keeps it, and with it the time when a person must log in again.
                request.wants_refresh = false;
                api.guard.refreshed(token, &caller).await.map_err(told)?
            }
            Some("password") => {
                let user = field(&fields, "username").unwrap_or_default().to_owned();
                let password = Secret::new(field(&fields, "password").unwrap_or_default());
                let credential = Credential::of_login(user, password);
                let address = caller.address();
                api.guard.recognise(credential, address, id.0.clone()).await.map_err(told)?
            }
            _ => {
                return Err(Problem::new(
                    StatusCode::BAD_REQUEST,
                    Kind::Unsupported,
                    "grant_type is password or refresh_token",
                ));
            }
        };
        let mut session = api.guard.session_for(&caller, &request).await.map_err(told)?;
        if let Some(refresh) = field(&fields, "refresh_token") {
            session.refresh.get_or_insert_with(|| refresh.to_owned());
        }
        Ok(session)
    };
    match made.await {
        Ok(session) => session_response(&session),
        Err(error) => error.with_request_id(&id).into_response(),
    }
}

async fn body_of(request: Request) -> Result<(HeaderMap, Bytes), Problem> {
    let (parts, body) = request.into_parts();
    let whole = axum::body::to_bytes(body, BODY_BYTES_MAX);
    match tokio::time::timeout(BODY_TIMEOUT, whole).await {
        Ok(Ok(bytes)) => Ok((parts.headers, bytes)),
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            Kind::SizeInvalid,
            format!("the body did not come within {} seconds", BODY_TIMEOUT.as_secs()),
        )),
        Ok(Err(_)) => Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            Kind::SizeInvalid,
            format!("the body has more than {BODY_BYTES_MAX} bytes, or broke off"),
        )),
    }
}

/// An error in OAuth 2's words.
fn oauth_error(status: StatusCode, error: &str, description: &str, id: &RequestId) -> Response {
    let document = json!({"error": error, "error_description": description, "request_id": &*id.0});
    json_response(status, &document)
}

/// The fields of a form or of a JSON object.
fn fields_of(headers: &HeaderMap, bytes: &[u8]) -> Option<Fields> {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    if !kind.trim_start().to_ascii_lowercase().starts_with("application/json") {
        return Some(parse_form(bytes));
    }
    let document: Map<String, Value> = serde_json::from_slice(bytes).ok()?;
    let texts = document.into_iter().filter_map(|(key, value)| match value {
        Value::String(text) => Some((key, text)),
        _ => None,
    });
    Some(texts.collect())
}

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const ID_TOKENS: [&str; 2] =
    ["urn:ietf:params:oauth:token-type:id_token", "urn:ietf:params:oauth:token-type:jwt"];

/// `POST /auth/oidc/token`: an issuer's token for a short one of ours, as RFC 8693 has it.
pub(super) async fn exchange(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Response {
    let invalid = |why: &str| oauth_error(StatusCode::BAD_REQUEST, "invalid_request", why, &id);
    let (headers, bytes) = match body_of(request).await {
        Ok(whole) => whole,
        Err(error) => return error.with_request_id(&id).into_response(),
    };
    let Some(fields) = fields_of(&headers, &bytes) else {
        return invalid("the body is neither a form nor a JSON object");
    };
    if field(&fields, "grant_type").is_some_and(|grant| grant != EXCHANGE) {
        return invalid(&format!("grant_type is {EXCHANGE}"));
    }
    if field(&fields, "subject_token_type").is_some_and(|kind| !ID_TOKENS.contains(&kind)) {
        return invalid(&format!("subject_token_type is {}", ID_TOKENS[0]));
    }
    let Some(token) = field(&fields, "subject_token").or_else(|| field(&fields, "token")) else {
        return invalid("subject_token is missing: send the ID token of your CI job");
    };
    let guard = api.guard.clone();
    // A file that the token was kept in may have ended in a new line.
    let (by, token) = (caller.clone(), token.trim().to_owned());
    // A token that is made and told nobody is as good as lost, and the issuer's is used up.
    let exchanged = tokio::spawn(async move { guard.exchange(&by, &token).await });
    let failure = match exchanged.await {
        Ok(Ok(exchanged)) => {
            let document = json!({
                "access_token": exchanged.token,
                "issued_token_type": ACCESS_TOKEN,
                "token_type": "Bearer",
                "expires_in": exchanged.expires_in_secs,
                "scope": exchanged.permissions.join(" "),
            });
            return json_response(StatusCode::OK, &document);
        }
        Ok(Err(failure)) => failure,
        Err(_) => return Problem::unavailable("the exchange broke off").into_response(),
    };
    exchange_failed(&failure, &caller, &id)
}

fn exchange_failed(failure: &ExchangeFailure, caller: &Caller, id: &RequestId) -> Response {
    let told = failure.to_string();
    let (status, error) = match failure {
        ExchangeFailure::Token(_)
        | ExchangeFailure::IssuerUnknown
        | ExchangeFailure::Registry(nora_app::Error::AssertionOver) => {
            (StatusCode::UNAUTHORIZED, "invalid_token")
        }
        ExchangeFailure::TooMany(wait) => {
            let mut response = oauth_error(StatusCode::TOO_MANY_REQUESTS, "slow_down", &told, id);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
            return response;
        }
        ExchangeFailure::Registry(nora_app::Error::AssertionUsed) => {
            (StatusCode::UNAUTHORIZED, "invalid_grant")
        }
        ExchangeFailure::Refused(_) => (StatusCode::FORBIDDEN, "access_denied"),
        ExchangeFailure::IssuerSilent { .. } | ExchangeFailure::Registry(_) => {
            let wait = match failure {
                ExchangeFailure::IssuerSilent { wait, .. } => wait.as_secs().max(1),
                _ => 5,
            };
            tracing::warn!(error = told, request_id = %id.0, "a workload token was not exchanged");
            let told =
                "the issuer's keys, or the registry's metadata, cannot be read now; try again";
            let mut response =
                oauth_error(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", told, id);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait));
            return response;
        }
    };
    // One that was used before is noted where that was found out: in the log.
    if status != StatusCode::UNAUTHORIZED || error != "invalid_grant" {
        let about = About::Words("workload token".into());
        let why = Reason::Words(told.as_str().into());
        caller.note_refusal(Deed::new(Verb::TokenExchange, about), why);
    }
    oauth_error(status, error, &told, id)
}

/// `POST /auth/oidc/revoke`: ends a token of ours, as RFC 7009 has it: an API token, a workload token or a refresh token.
/// Whoever shows it may end it; one that is none is no error, but a session, which is not ended alone, is.
pub(super) async fn revoke(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Response {
    let (headers, bytes) = match body_of(request).await {
        Ok(whole) => whole,
        Err(error) => return error.with_request_id(&id).into_response(),
    };
    let fields = fields_of(&headers, &bytes).unwrap_or_default();
    let Some(token) = field(&fields, "token") else {
        let told = "token is missing: send the token that is to end";
        return oauth_error(StatusCode::BAD_REQUEST, "invalid_request", told, &id);
    };
    match api.guard.revoke_shown(&caller, token.trim()).await {
        Ok(true) => json_response(StatusCode::OK, &json!({})),
        Ok(false) => {
            let told = "a session ends by itself within minutes, and at once with the refresh token, the token or the \
                        password that it came from: send its refresh token instead";
            oauth_error(StatusCode::BAD_REQUEST, "unsupported_token_type", told, &id)
        }
        Err(error) => Problem::from(error).with_request_id(&id).into_response(),
    }
}

/// `GET /api/v1/whoami`: who one is here.
pub(super) async fn whoami(Extension(caller): Extension<Caller>) -> Response {
    let identity = caller.identity();
    let scope = identity.scope.as_ref().or(identity.grant.as_ref());
    let document = json!({
        "subject": caller.actor().name(),
        "groups": identity.groups,
        "token": identity.token,
        "scope": scope.map(|scope| scope.texts().to_vec()),
        "administrator": caller.administers(),
    });
    json_response(StatusCode::OK, &document)
}

/// `GET /api/v1/usage`: what tenants use.
pub(super) async fn usage(
    State(api): State<Arc<Api>>,
    Extension(id): Extension<RequestId>,
) -> Response {
    match usage_document(&api).await {
        Ok(document) => json_response(StatusCode::OK, &document),
        Err(error) => Problem::from(error).with_request_id(&id).into_response(),
    }
}

async fn usage_document(api: &Api) -> Result<Value, nora_app::Error> {
    let mut tenants = Vec::new();
    for name in api.registry.tenants().list() {
        tenants.push(tenant_document(api, name).await?);
    }
    Ok(json!({ "tenants": tenants }))
}

async fn tenant_document(api: &Api, name: TenantName) -> Result<Value, nora_app::Error> {
    let TenantUsage { name, used: usage, limits, pushes, pulls, anonymous_pulls } =
        api.registry.tenants().overview(name).await?;
    Ok(json!({
        "name": name.as_str(),
        "unique_bytes": usage.unique_bytes,
        "reserved_bytes": usage.reserved_bytes,
        "bytes": usage.bytes,
        "artifacts": usage.artifacts,
        "tags": usage.tags,
        "storage_quota": limits.storage_quota,
        "artifact_quota": limits.artifact_quota,
        "push_limit": limits.push_limit,
        "pull_limit": limits.pull_limit,
        "pushes": pushes,
        "pulls": pulls,
        "anonymous_pull_limit": limits.limit(Rate::AnonymousPull),
        "anonymous_pulls": anonymous_pulls,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_and_documents_read_alike() {
        let mut json = HeaderMap::new();
        json.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        let fields = fields_of(&json, br#"{"subject_token": "a b", "n": 1}"#).unwrap();
        assert_eq!(field(&fields, "subject_token"), Some("a b"));
        assert_eq!(field(&fields, "n"), None);
        assert!(fields_of(&json, b"[]").is_none() && fields_of(&json, b"{").is_none());
        let fields = fields_of(&HeaderMap::new(), b"subject_token=a+b&x").unwrap();
        assert_eq!(field(&fields, "subject_token"), Some("a b"));
    }
}
