//! Calls to other places over HTTP: to issuers of identity tokens, and to webhooks.
//!
//! Addresses of such places come from the policy, and names in them from somebody else's DNS. Guarantees: a call goes to a
//! public address, or to one that the operator allowed; a name that resolves to any other address is not called at all; what
//! is dialled is what was checked, because the connection is made to the addresses of that one answer; no redirect is
//! followed. Where the environment names a proxy, the proxy decides about the addresses behind it.
//!
//! Must not know: what is called, or why.

mod addresses;
mod names;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, Url};

pub use addresses::{is_metadata, is_public};

use names::Names;

/// Which addresses may be called beside public ones.
pub(crate) type Allowed = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// Why a call was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// What was to be called is no URL.
    #[error("what is to be called is no URL; look at the policy's issuers and webhook")]
    NoUrl,
    /// The address is neither public nor allowed.
    #[error(
        "{host} is at {address}, which is neither a public address nor in one of `server.egress_networks`, or belongs to a cloud, so it is not called"
    )]
    Address {
        /// What was to be called.
        host: String,
        /// Where it is.
        address: IpAddr,
    },
}

/// A client for calls to other places.
#[derive(Clone)]
pub struct Egress {
    client: Client,
    allowed: Allowed,
}

impl Egress {
    /// A client that calls public addresses and those that are allowed, and gives up after a time.
    pub fn new(
        allowed: impl Fn(IpAddr) -> bool + Send + Sync + 'static,
        timeout: Duration,
    ) -> Result<Self, reqwest::Error> {
        let allowed: Allowed = Arc::new(allowed);
        let names = Names::of_the_system(allowed.clone());
        Self::resolving(names, allowed, timeout)
    }

    fn resolving(
        names: Names,
        allowed: Allowed,
        timeout: Duration,
    ) -> Result<Self, reqwest::Error> {
        let client = Client::builder()
            .dns_resolver(names)
            .redirect(reqwest::redirect::Policy::none())
            .timeout(timeout)
            .user_agent(concat!("nora/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { client, allowed })
    }

    /// A `GET` of a URL.
    pub fn get(&self, url: &str) -> Result<RequestBuilder, Refused> {
        self.request(Method::GET, url)
    }

    /// A `POST` to a URL.
    pub fn post(&self, url: &str) -> Result<RequestBuilder, Refused> {
        self.request(Method::POST, url)
    }

    fn request(&self, method: Method, url: &str) -> Result<RequestBuilder, Refused> {
        let url = Url::parse(url).map_err(|_| Refused::NoUrl)?;
        // Addresses are not resolved, so the resolver never sees them.
        let host = url.host_str().unwrap_or_default();
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = literal.parse::<IpAddr>() {
            check(&self.allowed, host, address)?;
        }
        Ok(self.client.request(method, url))
    }
}

/// Refuses an address that may not be called: one that is neither public nor allowed, and clouds' metadata in any case.
fn check(allowed: &Allowed, host: &str, address: IpAddr) -> Result<(), Refused> {
    if !is_metadata(address) && (is_public(address) || allowed(address.to_canonical())) {
        return Ok(());
    }
    Err(Refused::Address { host: host.to_owned(), address })
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use axum::http::StatusCode;
    use axum::http::header::LOCATION;
    use tokio::net::TcpListener;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(5);

    /// A server that counts its requests and sends all of them elsewhere.
    async fn server(elsewhere: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let router = Router::new().fallback(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            async move { (StatusCode::FOUND, [(LOCATION, elsewhere)]) }
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        (address, count)
    }

    fn all_causes(error: reqwest::Error) -> String {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }

    #[tokio::test]
    async fn an_address_that_is_not_allowed_is_not_called() {
        let (address, count) = server("/").await;
        let port = address.port();
        let strict = Egress::new(|_| false, TIMEOUT).unwrap();
        for host in ["127.0.0.1", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "[::1]"] {
            let url = format!("http://{host}:{port}/");
            let refused = strict.get(&url).err();
            assert!(matches!(refused, Some(Refused::Address { .. })), "{url}: {refused:?}");
        }
        let named = strict.get(&format!("http://localhost:{port}/")).unwrap();
        let error = all_causes(named.send().await.unwrap_err());
        assert!(error.contains("localhost is at") && error.contains("egress_networks"), "{error}");
        assert_eq!(count.load(Ordering::Relaxed), 0);
        let lax = Egress::new(|_| true, TIMEOUT).unwrap();
        for host in ["169.254.169.254", "168.63.129.16", "[fd00:ec2::254]"] {
            let refused = lax.get(&format!("http://{host}/")).err();
            assert!(matches!(refused, Some(Refused::Address { .. })), "{host}: {refused:?}");
        }
        assert_eq!(strict.get("no url").err(), Some(Refused::NoUrl));
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed() {
        let (target, reached) = server("/").await;
        let elsewhere: &'static str = Box::leak(format!("http://{target}/").into_boxed_str());
        let (address, count) = server(elsewhere).await;
        let egress = Egress::new(|address| address.is_loopback(), TIMEOUT).unwrap();
        let answer = egress.get(&format!("http://{address}/")).unwrap().send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 302);
        assert_eq!((count.load(Ordering::Relaxed), reached.load(Ordering::Relaxed)), (1, 0));
    }

    /// DNS that answers with these addresses, one list after the other.
    fn answering(answers: &'static [&'static [&'static str]], allowed: Allowed) -> Names {
        let asked = Arc::new(AtomicUsize::new(0));
        Names::of(allowed, move |_| {
            let answer = answers[asked.fetch_add(1, Ordering::Relaxed).min(answers.len() - 1)];
            let addresses = answer.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 0));
            let addresses: Vec<_> = addresses.collect();
            Box::pin(async move { Ok(addresses) })
        })
    }

    #[tokio::test]
    async fn every_address_of_a_name_is_looked_at() {
        let (address, count) = server("/").await;
        let answers: [&'static [&'static [&'static str]]; 6] = [
            &[&["169.254.169.254"]],
            &[&["127.0.0.1", "10.0.0.1"]],
            &[&["127.0.0.1", "::ffff:100.64.0.1"]],
            &[&["fe80::1"]],
            &[&["127.0.0.1", "64:ff9b::a00:1"]],
            &[&[]],
        ];
        for answer in answers {
            let allowed: Allowed = Arc::new(|address: IpAddr| address.is_loopback());
            let names = answering(answer, allowed.clone());
            let egress = Egress::resolving(names, allowed, TIMEOUT).unwrap();
            let url = format!("http://issuer.example:{}/", address.port());
            let error = all_causes(egress.get(&url).unwrap().send().await.unwrap_err());
            assert!(error.contains("issuer.example"), "{answer:?}: {error}");
        }
        assert_eq!(count.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_name_that_moves_is_looked_at_again() {
        let (address, count) = server("/").await;
        let allowed: Allowed = Arc::new(|address: IpAddr| address.is_loopback());
        let names = answering(&[&["127.0.0.1"], &["192.168.0.1"]], allowed.clone());
        let egress = Egress::resolving(names, allowed, TIMEOUT).unwrap();
        let ask = async |port: u16| {
            egress.get(&format!("http://issuer.example:{port}/")).unwrap().send().await
        };
        assert_eq!(ask(address.port()).await.unwrap().status().as_u16(), 302);
        // Another port makes another connection, and so another question.
        let (other, other_count) = server("/").await;
        assert!(all_causes(ask(other.port()).await.unwrap_err()).contains("192.168.0.1"));
        assert_eq!((count.load(Ordering::Relaxed), other_count.load(Ordering::Relaxed)), (1, 0));
    }
}
