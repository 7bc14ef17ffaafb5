//! Logging in from CI without a stored secret: the job's ID token is shown once and a token that lives for minutes comes
//! back (RFC 8693).
//!
//! ```no_run
//! # async fn log_in(config: nora_client::ClientConfig) -> Result<(), Box<dyn std::error::Error>> {
//! use nora_client::{Client, ClientConfig, Credentials, workload::GithubActions};
//!
//! let audience = "https://nora.example.com"; // the provider's `audience` in nora.toml
//! let id_token = GithubActions::from_environment()?.id_token(audience).await?;
//! let client = Client::new(config.clone())?;
//! let token = client.exchange(&id_token).await?;
//! let credentials = Credentials::Token(token.access_token.clone());
//! let registry = Client::new(ClientConfig { credentials, ..config })?;
//! registry.ping().await?;
//! client.revoke(&token.access_token).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Guarantees: an ID token goes to the configured server and nowhere else, not even after a redirect; what asks CI for
//! one goes to the address that CI names, over TLS or on this machine.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use reqwest::Url;
use serde::Deserialize;

use crate::client::{Ask, Client, TOKEN_BYTES_MAX, malformed, read};
use crate::config::{Secret, is_loopback};
use crate::error::ClientError;

const EXCHANGE_PATH: &str = "/auth/oidc/token";
const REVOKE_PATH: &str = "/auth/oidc/revoke";

/// Requests to these have a secret in their body.
pub(crate) const SECRET_PATHS: [&str; 2] = [EXCHANGE_PATH, REVOKE_PATH];

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ID_TOKEN_TYPE: &str = "urn:ietf:params:oauth:token-type:id_token";

const TIMEOUT: Duration = Duration::from_secs(30);
const ANSWER_BYTES_MAX: usize = 64 << 10;

const GITHUB_URL: &str = "ACTIONS_ID_TOKEN_REQUEST_URL";
const GITHUB_TOKEN: &str = "ACTIONS_ID_TOKEN_REQUEST_TOKEN";

/// What an ID token was exchanged for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadToken {
    /// The token: a bearer token, or the password beside any user name.
    pub access_token: Secret,
    /// What kind it is, in RFC 8693's words.
    pub issued_token_type: String,
    /// How long it lives.
    pub expires_in: Duration,
    /// What it permits, as `push:my-org/*`.
    pub scope: Vec<String>,
}

/// Why there is no ID token.
#[derive(Debug, thiserror::Error)]
pub enum IdTokenError {
    /// The environment does not have it.
    #[error("the environment has no {0}")]
    Missing(String),
    /// The address to ask cannot be one.
    #[error("{GITHUB_URL} is no https address")]
    Address,
    /// The request token cannot be sent.
    #[error("{GITHUB_TOKEN} has characters that cannot be sent")]
    RequestToken,
    /// No answer came.
    #[error("cannot ask for an ID token")]
    Unreachable(#[source] reqwest::Error),
    /// The answer was no.
    #[error("the request for an ID token was answered with {0}")]
    Refused(http::StatusCode),
    /// The answer holds none.
    #[error("the request for an ID token was answered with something that holds none")]
    Malformed,
}

impl IdTokenError {
    /// What a person can do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Missing(name) if name == GITHUB_URL || name == GITHUB_TOKEN => Some(
                "in GitHub Actions, give the job `permissions: { id-token: write }`; runs for pull requests from forks \
                 get none"
                    .into(),
            ),
            Self::Missing(name) => Some(format!(
                "in GitLab, give the job `id_tokens: {{ {name}: {{ aud: AUDIENCE }} }}`"
            )),
            Self::Unreachable(_) | Self::Refused(_) => {
                Some("is the job still running? Its right to ask ends with it".into())
            }
            _ => None,
        }
    }
}

/// An ID token that CI put into a variable, as GitLab does for `id_tokens`.
pub fn id_token_from_variable(name: &str) -> Result<Secret, IdTokenError> {
    from_variable(name, &|name| std::env::var(name).ok())
}

/// What reads a variable, so that tests need no environment.
type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

fn from_variable(name: &str, lookup: Lookup<'_>) -> Result<Secret, IdTokenError> {
    let text = lookup(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    text.map(Secret::new).ok_or_else(|| IdTokenError::Missing(name.to_owned()))
}

/// Where a job of GitHub Actions gets ID tokens.
#[derive(Clone, Debug)]
pub struct GithubActions {
    url: Url,
    request_token: HeaderValue,
}

impl GithubActions {
    /// What GitHub's runner puts into the environment of jobs that may have ID tokens.
    pub fn from_environment() -> Result<Self, IdTokenError> {
        Self::from_lookup(&|name| std::env::var(name).ok())
    }

    /// The same two values, wherever they come from.
    pub fn new(request_url: &str, request_token: &Secret) -> Result<Self, IdTokenError> {
        let url = Url::parse(request_url).map_err(|_| IdTokenError::Address)?;
        if url.scheme() != "https" && !(url.scheme() == "http" && is_loopback(&url)) {
            return Err(IdTokenError::Address);
        }
        let text = format!("Bearer {}", request_token.expose());
        let mut request_token =
            HeaderValue::from_str(&text).map_err(|_| IdTokenError::RequestToken)?;
        request_token.set_sensitive(true);
        Ok(Self { url, request_token })
    }

    fn from_lookup(lookup: Lookup<'_>) -> Result<Self, IdTokenError> {
        let url = from_variable(GITHUB_URL, lookup)?;
        Self::new(url.expose(), &from_variable(GITHUB_TOKEN, lookup)?)
    }

    /// A fresh ID token that is made out to the audience. Each is exchanged once.
    pub async fn id_token(&self, audience: &str) -> Result<Secret, IdTokenError> {
        #[derive(Deserialize)]
        struct Answer {
            value: String,
        }
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("nora/", env!("CARGO_PKG_VERSION")))
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none());
        if is_loopback(&self.url) {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(IdTokenError::Unreachable)?;
        let mut url = self.url.clone();
        url.query_pairs_mut().append_pair("audience", audience);
        let request = http
            .get(url)
            .header(header::AUTHORIZATION, self.request_token.clone())
            .header(header::ACCEPT, "application/json");
        // The address has an id of the job in it, and errors are printed.
        let unreachable = |error: reqwest::Error| IdTokenError::Unreachable(error.without_url());
        let mut response = request.send().await.map_err(unreachable)?;
        if !response.status().is_success() {
            return Err(IdTokenError::Refused(response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(IdTokenError::Malformed);
            }
            body.extend_from_slice(&chunk);
        }
        match serde_json::from_slice(&body) {
            Ok(Answer { value }) if !value.is_empty() => Ok(Secret::new(value)),
            _ => Err(IdTokenError::Malformed),
        }
    }
}

#[derive(Deserialize)]
struct Exchanged {
    access_token: String,
    #[serde(default)]
    issued_token_type: String,
    token_type: String,
    expires_in: u64,
    #[serde(default)]
    scope: String,
}

impl Client {
    /// Exchanges an issuer's ID token for one of the server's, with what the rules that match its claims give. The
    /// client's own credentials are not shown.
    pub async fn exchange(&self, id_token: &Secret) -> Result<WorkloadToken, ClientError> {
        let form = [
            ("grant_type", GRANT_TYPE),
            ("subject_token", id_token.expose()),
            ("subject_token_type", ID_TOKEN_TYPE),
        ];
        let ask = form_ask(EXCHANGE_PATH, &form);
        let response = match self.send_ok(&ask).await {
            Err(ClientError::Refused { status, errors, .. }) => {
                return Err(ClientError::NotExchanged { status, errors });
            }
            answered => answered?,
        };
        let body = read(&ask, response, TOKEN_BYTES_MAX).await?;
        // A parser's words may have the body's in them, which is a secret.
        let body: Exchanged =
            serde_json::from_slice(&body).map_err(|_| malformed(&ask, "token"))?;
        if body.access_token.is_empty() || !body.token_type.eq_ignore_ascii_case("bearer") {
            return Err(malformed(&ask, "bearer token"));
        }
        Ok(WorkloadToken {
            access_token: Secret::new(body.access_token),
            issued_token_type: body.issued_token_type,
            expires_in: Duration::from_secs(body.expires_in),
            scope: body.scope.split_whitespace().map(str::to_owned).collect(),
        })
    }

    /// Ends an exchanged token before its time. One that is over already, or never was, is no error.
    pub async fn revoke(&self, token: &Secret) -> Result<(), ClientError> {
        let ask = form_ask(REVOKE_PATH, &[("token", token.expose())]);
        self.send_ok(&ask).await.map(drop)
    }
}

fn form_ask(path: &str, form: &[(&str, &str)]) -> Ask {
    let mut ask = Ask::new(Method::POST, "", path.to_owned());
    ask.anonymous = true;
    let content = HeaderValue::from_static("application/x-www-form-urlencoded");
    ask.headers = HeaderMap::from_iter([(header::CONTENT_TYPE, content)]);
    ask.body = Bytes::from(form_body(form));
    ask
}

/// The body of a form. The URL type writes queries in just that way.
fn form_body(form: &[(&str, &str)]) -> String {
    let written = Url::parse_with_params("http://form.invalid/", form);
    written.ok().and_then(|url| url.query().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_escaped() {
        let body = form_body(&[("grant_type", GRANT_TYPE), ("subject_token", "a+b/c=&d e")]);
        assert_eq!(
            body,
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange\
             &subject_token=a%2Bb%2Fc%3D%26d+e"
        );
    }

    #[test]
    fn what_the_environment_lacks_is_named_with_what_to_do() {
        let error = GithubActions::from_lookup(&|_| None).unwrap_err();
        assert_eq!(error.to_string(), "the environment has no ACTIONS_ID_TOKEN_REQUEST_URL");
        assert!(error.hint().unwrap().contains("id-token: write"));
        let error = from_variable("NORA_ID_TOKEN", &|_| Some(" \n".into())).unwrap_err();
        assert!(error.hint().unwrap().contains("id_tokens: { NORA_ID_TOKEN:"), "{error:?}");
        let token = from_variable("NORA_ID_TOKEN", &|_| Some("a.b.c\n".into())).unwrap();
        assert_eq!(token.expose(), "a.b.c");
        for wrong in ["http://example.com/", "file:///etc/passwd", "not an address"] {
            let made = GithubActions::new(wrong, &Secret::new("t"));
            assert!(matches!(made, Err(IdTokenError::Address)), "{wrong}");
        }
        let made = GithubActions::new("https://example.com/", &Secret::new("hunter2")).unwrap();
        assert!(!format!("{made:?}").contains("hunter2"));
        let made = GithubActions::new("https://example.com/", &Secret::new("a\nb"));
        assert!(matches!(made, Err(IdTokenError::RequestToken)));
    }
}
