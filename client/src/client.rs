//! One HTTP conversation with one server: signing in, waiting when told to, reading bounded answers.
//!
//! A request that was answered with 429 or 503 is sent again after the time the server names, or after a doubling
//! pause, a bounded number of times. Every request made here may be repeated without harm. A connection that is
//! refused is not retried: the person waiting is told at once.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use reqwest::{Response, Url};
use serde::Deserialize;

use crate::auth::{self, Challenge, Purpose, Session};
use crate::config::{Address, ClientConfig, Credentials, Secret};
use crate::error::{ClientError, parse_body};
use crate::workload::SECRET_PATHS;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const PAUSE_FIRST: Duration = Duration::from_millis(200);
/// A server that asks for a longer pause gets none: its answer is shown instead.
const PAUSE_MAX: Duration = Duration::from_secs(30);
const ERROR_BYTES_MAX: usize = 64 << 10;
pub(crate) const TOKEN_BYTES_MAX: usize = 1 << 20;
const REDIRECTS_MAX: usize = 5;

/// A connection to a server; clones share it.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    http: reqwest::Client,
    config: ClientConfig,
    session: Session,
}

/// A request, so that it can be sent more than once.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// What a token for this request is about.
    pub topic: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Whether it is sent without a login whatever the server says.
    pub anonymous: bool,
}

impl Ask {
    pub(crate) fn new(method: Method, topic: &str, path: String) -> Self {
        let topic = format!("{method} {topic}");
        let (headers, body) = (HeaderMap::new(), Bytes::new());
        Self { method, path, topic, headers, body, anonymous: false }
    }

    /// How error messages call it.
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// What a token endpoint answers. Docker's name for the token and OAuth's may both be there.
#[derive(Deserialize)]
struct TokenBody {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// How long a token lives whose answer does not say so, by the specification.
const TOKEN_LIVES: Duration = Duration::from_secs(60);

impl Client {
    /// Makes a client; nothing is sent yet.
    pub fn new(config: ClientConfig) -> Result<Self, ClientError> {
        let set_up = |source| ClientError::SetUp { source };
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("nora/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .redirect(redirects());
        if config.address.is_loopback() {
            builder = builder.no_proxy();
        }
        if let Some(path) = &config.ca_file {
            let pem = std::fs::read(path).map_err(|e| set_up(Box::new(e)))?;
            let certificates =
                reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| set_up(Box::new(e)))?;
            builder = builder.tls_certs_merge(certificates);
        }
        let http = builder.build().map_err(|e| set_up(Box::new(e)))?;
        Ok(Self { inner: Arc::new(Inner { http, config, session: Session::default() }) })
    }

    /// The server this client speaks to.
    pub fn address(&self) -> &Address {
        &self.inner.config.address
    }

    /// Sends a request until it has an answer that is neither a challenge nor a request to wait.
    pub(crate) async fn send(&self, ask: &Ask) -> Result<Response, ClientError> {
        let mut challenged = false;
        let mut met = None;
        let mut attempt = 1;
        loop {
            // What was just fetched is shown at once, however short its life.
            let shown = met.take().or_else(|| self.authorization(ask));
            let response = self.send_once(ask, shown.as_ref()).await?;
            let status = response.status();
            if status == StatusCode::UNAUTHORIZED && !challenged {
                challenged = true;
                met = self.meet_challenge(ask, response.headers(), shown.as_ref()).await?;
                if met.is_some() {
                    continue;
                }
            }
            let waits =
                matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
            if waits && attempt < self.inner.config.attempts_max {
                let pause = pause(attempt, response.headers().get(header::RETRY_AFTER));
                if pause <= PAUSE_MAX {
                    tokio::time::sleep(pause).await;
                    attempt += 1;
                    continue;
                }
            }
            return Ok(response);
        }
    }

    /// Sends a request and turns every answer but a success into an error.
    pub(crate) async fn send_ok(&self, ask: &Ask) -> Result<Response, ClientError> {
        let response = self.send(ask).await?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(refusal(ask, response).await)
        }
    }

    /// What is shown with a request: what met the last challenge, or a token.
    fn authorization(&self, ask: &Ask) -> Option<HeaderValue> {
        if ask.anonymous {
            return None;
        }
        let remembered = self.inner.session.header(&ask.topic, Instant::now());
        remembered.or_else(|| match &self.inner.config.credentials {
            Credentials::Token(token) => auth::bearer(token),
            _ => None,
        })
    }

    async fn send_once(
        &self,
        ask: &Ask,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, ClientError> {
        let config = &self.inner.config;
        let url = config.address.join(&ask.path).ok_or_else(|| malformed(ask, "path"))?;
        let mut request = self.inner.http.request(ask.method.clone(), url);
        request = request.headers(ask.headers.clone());
        if let Some(value) = authorization {
            request = request.header(header::AUTHORIZATION, value.clone());
        }
        if !ask.body.is_empty() || ask.method == Method::POST {
            request = request.body(ask.body.clone());
        }
        request.send().await.map_err(|source| ClientError::Unreachable {
            address: config.address.to_string(),
            source,
        })
    }

    /// Finds the header that meets a challenge; none if these credentials cannot.
    async fn meet_challenge(
        &self,
        ask: &Ask,
        headers: &HeaderMap,
        refused: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>, ClientError> {
        if ask.anonymous {
            return Ok(None);
        }
        let credentials = &self.inner.config.credentials;
        let session = &self.inner.session;
        let met = match (Challenge::of(headers), credentials) {
            // It was sent already, and was not good enough.
            (_, Credentials::Token(_)) | (None, _) => None,
            (Some(Challenge::Basic), credentials) => {
                auth::direct(credentials).map(|header| (header, None))
            }
            (Some(Challenge::Bearer { realm, service, scope }), credentials) => {
                let purpose = Purpose { realm, service, scope };
                let fetch = async |purpose: &Purpose| self.fetch_token(purpose, credentials).await;
                Some(session.token(purpose, refused, fetch).await?)
            }
        };
        let Some((header, until)) = met else { return Ok(None) };
        session.remember(&ask.topic, header.clone(), until);
        Ok(Some(header))
    }

    /// A token of the realm, as the header that shows it, and how long it lives.
    async fn fetch_token(
        &self,
        purpose: &Purpose,
        credentials: &Credentials,
    ) -> Result<(HeaderValue, Duration), ClientError> {
        let Purpose { realm, service, scope } = purpose;
        let address = &self.inner.config.address;
        let foreign =
            || ClientError::ForeignOrigin { url: realm.clone(), address: address.to_string() };
        let mut url = Url::parse(realm).map_err(|_| foreign())?;
        if !address.is_origin_of(&url) {
            return Err(foreign());
        }
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = service {
                query.append_pair("service", service);
            }
            for scope in scope.iter().flat_map(|scopes| scopes.split(' ')) {
                query.append_pair("scope", scope);
            }
        }
        let ask = Ask::new(Method::GET, "token", path_and_query(&url));
        let mut request = self.inner.http.get(url);
        if let Some(value) = auth::direct(credentials) {
            request = request.header(header::AUTHORIZATION, value);
        }
        let response = request
            .send()
            .await
            .map_err(|source| ClientError::Unreachable { address: address.to_string(), source })?;
        if !response.status().is_success() {
            return Err(refusal(&ask, response).await);
        }
        let body = read(&ask, response, TOKEN_BYTES_MAX).await?;
        let body: TokenBody =
            serde_json::from_slice(&body).map_err(|_| malformed(&ask, "token"))?;
        let token = body.token.or(body.access_token).filter(|token| !token.is_empty());
        let header = token.and_then(|token| auth::bearer(&Secret::new(token)));
        let header = header.ok_or_else(|| malformed(&ask, "token"))?;
        Ok((header, body.expires_in.map_or(TOKEN_LIVES, Duration::from_secs)))
    }
}

/// Redirects are followed a few times, as to a bucket that holds a blob; the HTTP client leaves the header with the
/// credentials behind at another origin. A request that has a secret in its body is not sent anywhere else at all.
fn redirects() -> reqwest::redirect::Policy {
    reqwest::redirect::Policy::custom(|attempt| {
        let first = attempt.previous().first().map(Url::path);
        if first.is_some_and(|path| SECRET_PATHS.contains(&path)) {
            attempt.stop()
        } else if attempt.previous().len() > REDIRECTS_MAX {
            attempt.error("too many redirects")
        } else {
            attempt.follow()
        }
    })
}

/// The path and query of a URL.
pub(crate) fn path_and_query(url: &Url) -> String {
    match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    }
}

pub(crate) fn malformed(ask: &Ask, expected: &'static str) -> ClientError {
    ClientError::Malformed { request: ask.name(), expected, source: None }
}

/// Reads a refusal's body and makes an error of it.
pub(crate) async fn refusal(ask: &Ask, response: Response) -> ClientError {
    let status = response.status();
    // A body that cannot be read takes nothing from what the status says.
    let body = read(ask, response, ERROR_BYTES_MAX).await.unwrap_or_default();
    ClientError::Refused { request: ask.name(), status, errors: parse_body(&body) }
}

/// Reads a body of at most so many bytes.
pub(crate) async fn read(
    ask: &Ask,
    mut response: Response,
    bytes_max: usize,
) -> Result<Bytes, ClientError> {
    let mut body = BytesMut::new();
    loop {
        let chunk = response
            .chunk()
            .await
            .map_err(|source| ClientError::BrokenOff { request: ask.name(), source })?;
        match chunk {
            None => return Ok(body.freeze()),
            Some(chunk) if body.len() + chunk.len() > bytes_max => {
                return Err(ClientError::TooLarge { request: ask.name(), bytes_max });
            }
            Some(chunk) => body.extend_from_slice(&chunk),
        }
    }
}

/// How long to wait before the next attempt: what the server asks for, else a doubling time with jitter, so that
/// clients which were turned away together do not come back together.
fn pause(attempt: u32, retry_after: Option<&HeaderValue>) -> Duration {
    let asked = retry_after.and_then(|value| value.to_str().ok()?.trim().parse().ok());
    if let Some(seconds) = asked {
        return Duration::from_secs(seconds);
    }
    let full = (PAUSE_FIRST * 2_u32.saturating_pow(attempt - 1)).min(PAUSE_MAX);
    let random = std::hash::RandomState::new().build_hasher().finish() % 1000;
    full / 2 + full.mul_f64(random as f64 / 2000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_obey() {
        for attempt in 1..6 {
            let full = PAUSE_FIRST * 2_u32.pow(attempt - 1);
            let pause = pause(attempt, None);
            assert!(pause >= full / 2 && pause <= full, "{attempt}: {pause:?}");
        }
        let value = HeaderValue::from_static("7");
        assert_eq!(pause(1, Some(&value)), Duration::from_secs(7));
    }
}
