//! A small OpenID issuer for tests: real keys, real signatures, GitHub's way of handing out tokens, and faults on demand.
//!
//! Guarantees: what it publishes and signs is what a real issuer would publish and sign, unless a test asked for
//! something else; it counts what it is asked for; a fault begins when [`Issuer::set_fault`] returns and ends when another
//! is set; it ends with its owner. It is no issuer for anything but tests: it mints whatever it is asked for, so it
//! listens on loopback only. Must not know: who believes its tokens, or what for.

mod claims;
mod fault;
mod keys;
mod serve;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::mpsc::UnboundedSender;

use crate::error::{During, Error, Result};

pub use fault::Fault;

/// How long going up or down may take.
const TURN_LIMIT: Duration = Duration::from_secs(10);

/// Where the issuer's metadata is.
pub const DISCOVERY_PATH: &str = "/.well-known/openid-configuration";
/// Where its keys are.
pub const KEYS_PATH: &str = "/jwks";
/// Where it hands out ID tokens as GitHub does.
pub const GITHUB_PATH: &str = "/actions/idtoken";

/// A running issuer.
pub struct Issuer {
    shared: Arc<Shared>,
    turns: UnboundedSender<serve::Turn>,
}

/// How often each path was asked for. What a test asks of the issuer itself (`/fault`, `/counts`, …) is not counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<String, u64>);

impl Counts {
    /// Requests for the discovery document.
    pub fn discovery(&self) -> u64 {
        self.of(DISCOVERY_PATH)
    }

    /// Requests for the key set.
    pub fn keys(&self) -> u64 {
        self.of(KEYS_PATH)
    }

    /// Requests for `path`, without its query.
    pub fn of(&self, path: &str) -> u64 {
        self.0.get(path).copied().unwrap_or_default()
    }
}

/// What the handle and the server both see.
pub(crate) struct Shared {
    address: SocketAddr,
    url: String,
    request_token: String,
    state: Mutex<State>,
}

struct State {
    keys: keys::Keys,
    fault: Fault,
    /// How many more requests the fault strikes; all if `None`.
    strikes: Option<u32>,
    counts: Counts,
    /// What GitHub's tokens say beyond, or instead of, what they say by default.
    github_claims: Map<String, Value>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mint(
        &self,
        algorithm: &str,
        claims: &Map<String, Value>,
        header: &Map<String, Value>,
    ) -> Result<String> {
        let claims = claims::complete(&self.url, claims)?;
        self.state().keys.sign(algorithm, &claims, header)
    }
}

impl Issuer {
    /// Makes keys and listens on `address`, a loopback address; with port 0 on a free one.
    pub fn start(address: SocketAddr) -> Result<Self> {
        if !address.ip().is_loopback() {
            return Err(Error::Wrong(format!(
                "a test issuer signs whatever it is asked to: it listens on loopback, not on {address}"
            )));
        }
        let step = || format!("listen as an issuer on {address}");
        let listener = TcpListener::bind(address).during(step)?;
        listener.set_nonblocking(true).during(step)?;
        let address = listener.local_addr().during(step)?;
        let shared = Arc::new(Shared {
            address,
            url: format!("http://{address}"),
            request_token: format!("test-request-{}", claims::random_word()?),
            state: Mutex::new(State {
                keys: keys::Keys::make(1)?,
                fault: Fault::None,
                strikes: None,
                counts: Counts::default(),
                github_claims: Map::new(),
            }),
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .during(|| "start the issuer's runtime".into())?;
        let (turns, asked) = tokio::sync::mpsc::unbounded_channel();
        // The server's own handle is weak: it ends when the last owner is gone.
        let serving = serve::Server::new(shared.clone(), turns.downgrade());
        thread::spawn(move || runtime.block_on(serving.run(listener, asked)));
        Ok(Self { shared, turns })
    }

    /// Its URL, which is its `iss` claim too.
    pub fn url(&self) -> &str {
        &self.shared.url
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// What GitHub gives a job as `ACTIONS_ID_TOKEN_REQUEST_URL`.
    pub fn request_url(&self) -> String {
        format!("{}{GITHUB_PATH}?api-version=2.0", self.shared.url)
    }

    /// What GitHub gives a job as `ACTIONS_ID_TOKEN_REQUEST_TOKEN`.
    pub fn request_token(&self) -> &str {
        &self.shared.request_token
    }

    /// An ID token with these claims, signed with RS256. Standard claims that are missing are added; one that is null
    /// is left out.
    pub fn mint(&self, claims: &Map<String, Value>) -> Result<String> {
        self.mint_with("RS256", claims, &Map::new())
    }

    /// As [`Self::mint`], with another algorithm, and with header fields that are added, replaced, or (null) left out.
    ///
    /// Algorithms: RS256, RS384, RS512, PS256, PS384, PS512, ES256, EdDSA; and, for forgeries, `none` (no signature) and
    /// `HS256` (its key is the public RSA key).
    pub fn mint_with(
        &self,
        algorithm: &str,
        claims: &Map<String, Value>,
        header: &Map<String, Value>,
    ) -> Result<String> {
        self.shared.mint(algorithm, claims, header)
    }

    /// The token that a job with these claims would get from GitHub.
    pub fn mint_github(&self, audience: &str, claims: &Map<String, Value>) -> Result<String> {
        self.shared.mint("RS256", &claims::github(audience, claims), &Map::new())
    }

    /// What tokens of [`GITHUB_PATH`] say from now on beyond, or instead of, what they say by default.
    pub fn set_github_claims(&self, claims: Map<String, Value>) {
        self.shared.state().github_claims = claims;
    }

    /// What is wrong from now on.
    pub fn set_fault(&self, fault: Fault) -> Result<()> {
        self.fault_for(fault, None)
    }

    /// What is wrong with the next `requests` requests; then nothing is.
    pub fn set_fault_for(&self, fault: Fault, requests: u32) -> Result<()> {
        self.fault_for(fault, Some(requests))
    }

    fn fault_for(&self, fault: Fault, strikes: Option<u32>) -> Result<()> {
        if fault == Fault::Down && strikes.is_some() {
            return Err(Error::Wrong("who is down counts no requests: set Down, then None".into()));
        }
        let up = fault != Fault::Down;
        {
            let mut state = self.shared.state();
            state.fault = fault;
            state.strikes = strikes;
        }
        let (done, turned) = mpsc::channel();
        let turn = serve::Turn::new(up, move || {
            let _ = done.send(());
        });
        self.turns.send(turn).map_err(|_| Error::Wrong("the issuer has ended".into()))?;
        turned
            .recv_timeout(TURN_LIMIT)
            .map_err(|_| Error::Wrong(format!("{} went neither up nor down", self.shared.url)))
    }

    /// How often each path was asked for since the start.
    pub fn fetches(&self) -> Counts {
        self.shared.state().counts.clone()
    }

    /// New keys under new ids; the former are published no more.
    pub fn rotate(&self) -> Result<()> {
        self.shared.rotate()
    }

    /// Other keys under the same ids: whoever holds the former must find every signature wrong.
    pub fn replace_keys(&self) -> Result<()> {
        let mut state = self.shared.state();
        state.keys = keys::Keys::make(state.keys.generation())?;
        Ok(())
    }

    /// The key set that it publishes when nothing is wrong.
    pub fn key_set(&self) -> Value {
        self.shared.state().keys.published(false)
    }
}

impl Shared {
    fn rotate(&self) -> Result<()> {
        let mut state = self.state();
        state.keys = keys::Keys::make(state.keys.generation() + 1)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
