//! What can be wrong with an issuer, as a test names it in Rust or in JSON.

use std::time::Duration;

use serde::Deserialize;

/// What is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// Every answer comes so much later.
    Slow(Duration),
    /// Connections are refused.
    Down,
    /// Every answer is 503.
    Unavailable,
    /// Every answer is 429 with `Retry-After` in seconds.
    TooMany(u64),
    /// The discovery document names another issuer.
    LiesAboutIssuer(String),
    /// The discovery document and the keys name algorithms that nobody should accept.
    LiesAboutAlgorithms,
    /// The discovery document says that the keys are elsewhere.
    KeysElsewhere(String),
    /// The key set is empty.
    EmptyKeys,
    /// The key set is followed by filling keys, up to this length.
    HugeKeys(usize),
    /// Every answer is a redirect to this address.
    Redirect(String),
    /// Answers say that they are web pages.
    WrongContentType,
    /// Answers are web pages.
    NotJson,
    /// Answers break off in the middle.
    CutShort,
}

/// The body of `POST /fault`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    fault: String,
    /// For `slow`; for `down`, after which it is up again.
    milliseconds: Option<u64>,
    /// For `too-many`.
    retry_after: Option<u64>,
    /// For `lies-about-issuer`, `keys-elsewhere` and `redirect`.
    url: Option<String>,
    /// For `huge-keys`.
    bytes: Option<usize>,
    /// How many requests it strikes; all if it is missing.
    pub(super) times: Option<u32>,
}

impl Asked {
    /// How long `down` lasts: who is down cannot be told to come up.
    pub(super) fn lasts(&self) -> Duration {
        Duration::from_millis(self.milliseconds.unwrap_or(1_000))
    }

    pub(super) fn parse(&self) -> Result<Fault, String> {
        let url = || self.url.clone().ok_or_else(|| format!("{} needs \"url\"", self.fault));
        Ok(match self.fault.as_str() {
            "none" => Fault::None,
            "slow" => Fault::Slow(self.lasts()),
            "down" => Fault::Down,
            "unavailable" => Fault::Unavailable,
            "too-many" => Fault::TooMany(self.retry_after.unwrap_or(1)),
            "lies-about-issuer" => Fault::LiesAboutIssuer(url()?),
            "lies-about-algorithms" => Fault::LiesAboutAlgorithms,
            "keys-elsewhere" => Fault::KeysElsewhere(url()?),
            "empty-keys" => Fault::EmptyKeys,
            "huge-keys" => Fault::HugeKeys(self.bytes.unwrap_or(64 << 20)),
            "redirect" => Fault::Redirect(url()?),
            "wrong-content-type" => Fault::WrongContentType,
            "not-json" => Fault::NotJson,
            "cut-short" => Fault::CutShort,
            other => return Err(format!("there is no fault {other:?}")),
        })
    }
}
