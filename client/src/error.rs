//! What can go wrong between a client and a server, told so that a person knows what to do next.

use std::fmt;

use nora_domain::Digest;
use serde::Deserialize;

/// One entry of a registry's error body.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct OciError {
    /// One of the specification's codes, as `MANIFEST_UNKNOWN`.
    #[serde(default)]
    pub code: String,
    /// The server's sentence.
    #[serde(default)]
    pub message: String,
    /// Whatever else the server says.
    #[serde(default)]
    pub detail: serde_json::Value,
}

impl fmt::Display for OciError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code.as_str(), self.message.as_str()) {
            ("", message) => f.write_str(message)?,
            (code, "") => f.write_str(code)?,
            (code, message) => write!(f, "{message} ({code})")?,
        }
        match &self.detail {
            serde_json::Value::Null => Ok(()),
            serde_json::Value::String(text) if text.is_empty() => Ok(()),
            serde_json::Value::Object(map) if map.is_empty() => Ok(()),
            serde_json::Value::Array(list) if list.is_empty() => Ok(()),
            detail => write!(f, ": {detail}"),
        }
    }
}

#[derive(Default, Deserialize)]
struct ErrorBody {
    #[serde(default)]
    errors: Vec<OciError>,
}

/// What token endpoints say in place of it (RFC 6749, 5.2).
#[derive(Deserialize)]
struct OauthBody {
    error: String,
    #[serde(default)]
    error_description: String,
}

/// Reads a registry's or a token endpoint's error body; a body of another shape gives an empty list.
pub(crate) fn parse_body(bytes: &[u8]) -> Vec<OciError> {
    let errors = serde_json::from_slice::<ErrorBody>(bytes).unwrap_or_default().errors;
    match serde_json::from_slice::<OauthBody>(bytes) {
        Ok(OauthBody { error: code, error_description: message }) if errors.is_empty() => {
            vec![OciError { code, message, detail: serde_json::Value::Null }]
        }
        _ => errors,
    }
}

/// Why a request gave no answer to use.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The HTTP client could not be made.
    #[error("cannot set up the HTTP client")]
    SetUp {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No answer came.
    #[error("cannot reach {address}")]
    Unreachable {
        /// The server.
        address: String,
        /// Why.
        source: reqwest::Error,
    },
    /// The answer broke off.
    #[error("the answer to {request} broke off")]
    BrokenOff {
        /// What was asked.
        request: String,
        /// Why.
        source: reqwest::Error,
    },
    /// The server said no.
    #[error("{request} was answered with {status}{}", list(.errors))]
    Refused {
        /// What was asked.
        request: String,
        /// The HTTP status.
        status: http::StatusCode,
        /// The body's entries.
        errors: Vec<OciError>,
    },
    /// The server gave no token for an issuer's ID token.
    #[error("the server exchanged no token: it answered {status}{}", list(.errors))]
    NotExchanged {
        /// The HTTP status.
        status: http::StatusCode,
        /// What it said.
        errors: Vec<OciError>,
    },
    /// The answer is not what the specification promises.
    #[error("{request} was answered with something that is no {expected}")]
    Malformed {
        /// What was asked.
        request: String,
        /// What should have come.
        expected: &'static str,
        /// Why it is none, where a parser says.
        source: Option<serde_json::Error>,
    },
    /// The answer is larger than such an answer may be.
    #[error("the answer to {request} has more than {bytes_max} bytes")]
    TooLarge {
        /// What was asked.
        request: String,
        /// What is allowed.
        bytes_max: usize,
    },
    /// The bytes are not those that the digest names.
    #[error("the bytes sent for {expected} have digest {computed}")]
    DigestMismatch {
        /// What was asked for.
        expected: Box<Digest>,
        /// What came.
        computed: Box<Digest>,
    },
    /// The server sends the client elsewhere with its credentials.
    #[error("the server asks for a login at {url}, which is not {address}")]
    ForeignOrigin {
        /// Where it points.
        url: String,
        /// The configured server.
        address: String,
    },
}

fn list(errors: &[OciError]) -> String {
    errors.iter().map(|error| format!("; {error}")).collect()
}

impl ClientError {
    /// The HTTP status, where the server answered with an error.
    pub fn status(&self) -> Option<http::StatusCode> {
        match self {
            Self::Refused { status, .. } | Self::NotExchanged { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// What a person can do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unreachable { source, .. } if source.is_timeout() => {
                Some("the server did not answer in time; is it overloaded?".into())
            }
            Self::Unreachable { address, .. } => {
                Some(format!("is the server running, and is {address} its address? See --addr"))
            }
            Self::Refused { status, .. } => match status.as_u16() {
                401 => Some(
                    "log in with --username and --password-file, or set NORA_TOKEN; \
                     check them if you did"
                        .into(),
                ),
                403 => {
                    Some("these credentials may not do that; ask whoever runs the server".into())
                }
                404 => Some("`nora images ls` shows what there is".into()),
                429 => Some("the server limits requests; try again later".into()),
                503 => Some("the server is not ready; `nora health` says more".into()),
                _ => None,
            },
            Self::NotExchanged { status, .. } => match status.as_u16() {
                404 => Some("is that address a NORA server's, and is [auth.oidc] enabled there?".into()),
                429 | 503 => Some("try again later, with a fresh ID token".into()),
                _ => Some(
                    "`nora auth explain --token-file FILE push REPOSITORY` tells which rule and claim of the ID \
                     token decide; each ID token is taken once"
                        .into(),
                ),
            },
            Self::ForeignOrigin { .. } => {
                Some("use the server's public address with --addr".into())
            }
            Self::Malformed { .. } => Some("is that address a registry's?".into()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_bodies_are_read_and_others_are_not() {
        let body = br#"{"errors":[{"code":"NAME_UNKNOWN","message":"no such repository","detail":{"name":"a"}}]}"#;
        let errors = parse_body(body);
        assert_eq!(errors[0].to_string(), r#"no such repository (NAME_UNKNOWN): {"name":"a"}"#);
        assert_eq!(parse_body(b"<html>"), []);
        assert_eq!(parse_body(br#"{"errors":[{"code":"DENIED"}]}"#)[0].to_string(), "DENIED");
        let body = br#"{"error":"invalid_grant","error_description":"no rule matches"}"#;
        assert_eq!(parse_body(body)[0].to_string(), "no rule matches (invalid_grant)");
    }
}
