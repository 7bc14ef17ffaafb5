//! What a client must be told: where the server is and who is asking.

use std::fmt;
use std::path::PathBuf;

use reqwest::Url;

/// A value that must not appear in logs: its `Debug` form hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The secret itself, for the one place that sends or prints it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Who is asking.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Credentials {
    /// Nobody in particular.
    #[default]
    Anonymous,
    /// A name and password: sent as they are where the server asks for Basic, traded for a token where it asks for
    /// Bearer.
    Password {
        /// The name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// A token, sent with every request.
    Token(Secret),
}

/// Why a text is no server address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressError {
    text: String,
    rule: &'static str,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a server address: {}", self.text, self.rule)
    }
}

impl std::error::Error for AddressError {}

/// The origin of a server: scheme, host and port, nothing after them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(Url);

impl Address {
    /// Where a node listens when nothing is configured.
    pub const DEFAULT: &'static str = "http://127.0.0.1:4000";

    /// Reads `http://host[:port]` or `https://host[:port]`; a text without a scheme means `https`, or `http` where
    /// the host is this machine.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let error = |rule| AddressError { text: text.to_owned(), rule };
        let full = if text.contains("://") {
            text.to_owned()
        } else {
            let guess = Url::parse(&format!("http://{text}"))
                .map_err(|_| error("write it as https://registry.example.com"))?;
            let scheme = if is_loopback(&guess) { "http" } else { "https" };
            format!("{scheme}://{text}")
        };
        let url =
            Url::parse(&full).map_err(|_| error("write it as https://registry.example.com"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(error("the scheme must be http or https"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(error("credentials do not belong in an address; see --username"));
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(error("nothing may follow the host and port"));
        }
        Ok(Self(url))
    }

    /// `host` or `host:port`, as written before a repository's name.
    pub fn authority(&self) -> String {
        let host = self.0.host_str().unwrap_or_default();
        match self.0.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }

    /// Whether it is this machine, which no proxy stands before.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.0)
    }

    /// Whether the URL has this origin.
    pub(crate) fn is_origin_of(&self, url: &Url) -> bool {
        self.0.origin() == url.origin()
    }

    /// The URL of a path and query on this server.
    pub(crate) fn join(&self, path: &str) -> Option<Url> {
        self.0.join(path).ok().filter(|url| self.is_origin_of(url))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

pub(crate) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

/// All a [`Client`](crate::Client) must be told.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The server.
    pub address: Address,
    /// Who is asking.
    pub credentials: Credentials,
    /// A PEM file of certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// How often a request is sent at most when the server is busy or unreachable.
    pub attempts_max: u32,
}

impl ClientConfig {
    /// The usual settings for a server.
    pub fn new(address: Address) -> Self {
        Self { address, credentials: Credentials::Anonymous, ca_file: None, attempts_max: 5 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_origins() {
        let shown = |text: &str| Address::parse(text).map(|a| a.to_string());
        assert_eq!(shown("http://127.0.0.1:4000/").unwrap(), "http://127.0.0.1:4000");
        assert_eq!(shown("registry.example.com").unwrap(), "https://registry.example.com");
        assert_eq!(shown("localhost:4000").unwrap(), "http://localhost:4000");
        assert_eq!(shown("[::1]:4000").unwrap(), "http://[::1]:4000");
        for bad in ["", "ftp://x", "http://x/v2/", "http://me:pw@x", "http://x?y", "http:// x"] {
            assert!(shown(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn secrets_hide_from_debug() {
        let credentials =
            Credentials::Password { username: "me".into(), password: Secret::new("hunter2") };
        assert!(!format!("{credentials:?}").contains("hunter2"));
    }
}
