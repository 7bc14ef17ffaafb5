//! The types that a key's value can have: how each is read, bounded, shown and described.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use toml::de::DeValue;

use super::section::article;

/// How a type is told to people and to JSON Schema.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    Address,
    Url,
    /// A URL that may have a path.
    WebUrl,
    Path,
    Text,
    Size,
    Duration,
    Count,
    Flag,
    Choice(&'static [&'static str]),
    Secret,
    List(Box<Kind>),
    /// One, or a list of them.
    OneOrMany(Box<Kind>),
    /// A table whose keys are free: what they name, and the values' type.
    Table(&'static str, Box<Kind>),
    Network,
}

/// What a value is read against.
pub(crate) struct Context<'a> {
    /// What relative paths are relative to.
    pub folder: &'a Path,
    /// Smallest and largest value, as they would be written.
    pub bounds: Option<(&'static str, &'static str)>,
}

/// Why a value is not acceptable. The message goes on from the key's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub message: String,
    pub label: &'static str,
    pub help: Option<String>,
    /// The part of the value that is not acceptable, where it is not the whole.
    pub part: Option<Range<usize>>,
    /// What else is wrong with the value: all errors come at once.
    pub more: Vec<Problem>,
}

impl Problem {
    pub(crate) fn new(message: impl Into<String>, label: &'static str) -> Self {
        Self { message: message.into(), label, help: None, part: None, more: Vec::new() }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// A value's type.
pub(crate) trait Setting: Sized {
    /// Describes the type.
    fn kind() -> Kind;
    /// Reads a value.
    fn read(value: &DeValue<'_>, context: &Context<'_>) -> Result<Self, Problem>;
    /// The value as it would be written.
    fn shown(&self) -> Value;
    /// What an optional key is when it is not written.
    fn absent() -> Option<Self> {
        None
    }
    /// What stands in for a required value that cannot be read, so that what is around it can still be checked.
    fn blank() -> Option<Self> {
        None
    }
    /// Checks the bounds, for types that have any.
    fn check_bounds(&self, _context: &Context<'_>) -> Result<(), Problem> {
        Ok(())
    }
}

pub(crate) fn text<'v>(value: &'v DeValue<'_>, what: &str) -> Result<&'v str, Problem> {
    value.as_str().ok_or_else(|| {
        Problem::new(format!("must be {what}, not {}", article(value)), "wrong type")
            .help("write it in quotes")
    })
}

fn within<T: PartialOrd>(
    value: &T,
    context: &Context<'_>,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<(), Problem> {
    let Some((min, max)) = context.bounds else {
        return Ok(());
    };
    let low = parse(min).is_none_or(|min| *value < min);
    let high = parse(max).is_none_or(|max| *value > max);
    if low || high {
        return Err(Problem::new(format!("must be from {min} to {max}"), "out of range"));
    }
    Ok(())
}

/// A number of bytes, written with a unit: `"64MiB"`, `"50GB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub(crate) u64);

const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl Size {
    /// In bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// In bytes, for what is held in memory.
    pub fn bytes_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    fn parse(text: &str) -> Option<Self> {
        let (number, unit) = number_and_unit(text)?;
        let unit = if unit == "KB" { "kB" } else { unit };
        let (_, factor) = SIZE_UNITS.iter().find(|(name, _)| *name == unit)?;
        number.checked_mul(*factor).map(Self)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = SIZE_UNITS.iter().filter(|(_, factor)| self.0.is_multiple_of(*factor));
        match exact.min_by_key(|(_, factor)| self.0 / factor) {
            Some((unit, factor)) if self.0 > 0 => write!(f, "{}{unit}", self.0 / factor),
            _ => write!(f, "{}B", self.0),
        }
    }
}

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    Some((text[..end].parse().ok()?, text[end..].trim_start()))
}

impl Setting for Size {
    fn kind() -> Kind {
        Kind::Size
    }

    fn read(value: &DeValue<'_>, _: &Context<'_>) -> Result<Self, Problem> {
        let help = "write a whole number and a unit of B, kB, MB, GB, TB, KiB, MiB, GiB, TiB, as \"64MiB\"";
        if let DeValue::Integer(_) = value {
            return Err(Problem::new("is a size without a unit", "no unit").help(help));
        }
        let text = text(value, "a size with a unit")?;
        Self::parse(text).ok_or_else(|| Problem::new("is not a size", "not a size").help(help))
    }

    fn shown(&self) -> Value {
        json!(self.to_string())
    }

    fn check_bounds(&self, context: &Context<'_>) -> Result<(), Problem> {
        within(self, context, Self::parse)
    }
}

const DURATION_UNITS: [(&str, u64); 6] = [
    ("w", 7 * 24 * 3_600_000),
    ("d", 24 * 3_600_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Reads a duration as the configuration writes it, for the command line.
pub fn duration_of(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .ok_or_else(|| "write a number and a unit, as 30s, 15m, 12h or 7d".to_owned())
}

fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text)?;
    let (_, factor) = DURATION_UNITS.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*factor).map(Duration::from_millis)
}

/// A duration as it would be written.
pub(crate) fn show_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let exact = DURATION_UNITS.iter().find(|(_, factor)| millis.is_multiple_of(*factor));
    match exact {
        Some((unit, factor)) if millis > 0 => format!("{}{unit}", millis / factor),
        _ => format!("{millis}ms"),
    }
}

impl Setting for Duration {
    fn kind() -> Kind {
        Kind::Duration
    }

    fn read(value: &DeValue<'_>, _: &Context<'_>) -> Result<Self, Problem> {
        let help = "write a whole number and a unit of ms, s, m, h, d, w, as \"30s\"";
        if let DeValue::Integer(_) = value {
            return Err(Problem::new("is a duration without a unit", "no unit").help(help));
        }
        let text = text(value, "a duration with a unit")?;
        parse_duration(text)
            .ok_or_else(|| Problem::new("is not a duration", "not a duration").help(help))
    }

    fn shown(&self) -> Value {
        json!(show_duration(*self))
    }

    fn check_bounds(&self, context: &Context<'_>) -> Result<(), Problem> {
        within(self, context, parse_duration)
    }
}

impl Setting for usize {
    fn kind() -> Kind {
        Kind::Count
    }

    fn read(value: &DeValue<'_>, _: &Context<'_>) -> Result<Self, Problem> {
        let DeValue::Integer(integer) = value else {
            let message = format!("must be a whole number, not {}", article(value));
            return Err(Problem::new(message, "wrong type"));
        };
        Self::from_str_radix(integer.as_str(), integer.radix())
            .map_err(|_| Problem::new("must be a number from 0", "out of range"))
    }

    fn shown(&self) -> Value {
        json!(self)
    }

    fn check_bounds(&self, context: &Context<'_>) -> Result<(), Problem> {
        within(self, context, |text| text.parse().ok())
    }
}

impl Setting for SocketAddr {
    fn kind() -> Kind {
        Kind::Address
    }

    fn read(value: &DeValue<'_>, _: &Context<'_>) -> Result<Self, Problem> {
        let text = text(value, "an address")?;
        text.parse().map_err(|_| {
            let help = match text.strip_prefix(':').or(text.strip_prefix("localhost:")) {
                Some(port) if text.starts_with(':') => {
                    format!("for every address of this machine write \"0.0.0.0:{port}\"")
                }
                Some(port) => format!("write \"127.0.0.1:{port}\""),
                None => {
                    "write an IP address and a port, as \"127.0.0.1:4000\" or \"[::]:4000\"".into()
                }
            };
            Problem::new("is not an address to listen on", "not an address").help(help)
        })
    }

    fn shown(&self) -> Value {
        json!(self.to_string())
    }
}

impl Setting for PathBuf {
    fn kind() -> Kind {
        Kind::Path
    }

    fn read(value: &DeValue<'_>, context: &Context<'_>) -> Result<Self, Problem> {
        let text = text(value, "a path")?;
        if text.is_empty() || text.contains('\0') {
            return Err(Problem::new("is not a path", "not a path"));
        }
        Ok(context.folder.join(text))
    }

    fn shown(&self) -> Value {
        json!(self.to_string_lossy())
    }
}

impl<T: Setting> Setting for Option<T> {
    fn kind() -> Kind {
        T::kind()
    }

    fn read(value: &DeValue<'_>, context: &Context<'_>) -> Result<Self, Problem> {
        T::read(value, context).map(Some)
    }

    fn shown(&self) -> Value {
        self.as_ref().map_or(Value::Null, T::shown)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn check_bounds(&self, context: &Context<'_>) -> Result<(), Problem> {
        self.as_ref().map_or(Ok(()), |value| value.check_bounds(context))
    }
}

impl Setting for bool {
    fn kind() -> Kind {
        Kind::Flag
    }

    fn read(value: &DeValue<'_>, _: &Context<'_>) -> Result<Self, Problem> {
        value.as_bool().ok_or_else(|| {
            Problem::new(format!("must be true or false, not {}", article(value)), "not a boolean")
        })
    }

    fn shown(&self) -> Value {
        json!(self)
    }
}

impl Setting for String {
    fn kind() -> Kind {
        Kind::Text
    }

    fn read(value: &DeValue<'_>, _: &Context<'_>) -> Result<Self, Problem> {
        Ok(text(value, "a text")?.to_owned())
    }

    fn shown(&self) -> Value {
        json!(self)
    }

    fn blank() -> Option<Self> {
        Some(Self::new())
    }
}

/// The address that clients use, as `https://nora.example.com`: no path, no slash at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl(String);

impl PublicUrl {
    /// The URL's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Setting for PublicUrl {
    fn kind() -> Kind {
        Kind::Url
    }

    fn read(value: &DeValue<'_>, _: &Context<'_>) -> Result<Self, Problem> {
        let text = text(value, "a URL")?;
        let bad = |message: &str| {
            Problem::new(message, "not such a URL")
                .help("write scheme, host and port alone, as \"https://nora.example.com\"")
        };
        let trimmed = text.strip_suffix('/').unwrap_or(text);
        let uri: http::Uri = trimmed.parse().map_err(|_| bad("is not a URL"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(bad("must begin with http:// or https://"));
        }
        let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        if authority.is_empty() || authority.contains('@') {
            return Err(bad("must name a host, and no user"));
        }
        if !matches!(uri.path_and_query().map(|p| p.as_str()), None | Some("/")) {
            return Err(bad("must have nothing after host and port"));
        }
        Ok(Self(trimmed.to_owned()))
    }

    fn shown(&self) -> Value {
        json!(self.0)
    }
}

/// A range of IP addresses, as `10.0.0.0/8`; a single address is a range of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix_bits: u8,
}

impl Network {
    /// Whether the address lies in the range. An IPv4 address within IPv6 counts as the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                differing.leading_zeros() >= u32::from(self.prefix_bits)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                differing.leading_zeros() >= u32::from(self.prefix_bits)
            }
            _ => false,
        }
    }
}

impl Setting for Network {
    fn kind() -> Kind {
        Kind::Network
    }

    fn read(value: &DeValue<'_>, _: &Context<'_>) -> Result<Self, Problem> {
        let text = text(value, "an address range")?;
        let bad = || {
            Problem::new("is not an address range", "not an address range")
                .help("write it as \"10.0.0.0/8\" or \"2001:db8::1\"")
        };
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match prefix {
            Some(prefix) => prefix.parse().ok().filter(|bits| *bits <= bits_max).ok_or_else(bad)?,
            None => bits_max,
        };
        Ok(Self { address, prefix_bits })
    }

    fn shown(&self) -> Value {
        json!(format!("{}/{}", self.address, self.prefix_bits))
    }
}

/// A secret that a file or an environment variable holds; it is read when it is needed, never shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// The file's first line.
    File(PathBuf),
    /// The variable's value.
    Env(String),
}

/// Why a secret could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("cannot read the secret file {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The variable is not set.
    #[error("the environment variable {name} is not set")]
    Env {
        /// The variable.
        name: String,
    },
}

impl SecretSource {
    /// Reads the secret; a line end after it is not part of it.
    pub fn read(&self) -> Result<String, SecretError> {
        match self {
            Self::File(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|source| SecretError::File { path: path.clone(), source })?;
                Ok(text.trim_end_matches(['\r', '\n']).to_owned())
            }
            Self::Env(name) => {
                std::env::var(name).map_err(|_| SecretError::Env { name: name.clone() })
            }
        }
    }
}

impl Setting for SecretSource {
    fn kind() -> Kind {
        Kind::Secret
    }

    fn read(value: &DeValue<'_>, context: &Context<'_>) -> Result<Self, Problem> {
        let help = "write { file = \"…\" } or { env = \"…\" }";
        let bad = |message: &str| Problem::new(message, "not such a table").help(help);
        let table = value.as_table().ok_or_else(|| bad("must name where the secret is kept"))?;
        let mut entries = table.iter();
        let (Some((key, value)), None) = (entries.next(), entries.next()) else {
            return Err(bad("must have one of `file` and `env`"));
        };
        match key.get_ref().as_ref() {
            "file" => PathBuf::read(value.get_ref(), context).map(Self::File),
            "env" => Ok(Self::Env(text(value.get_ref(), "a variable's name")?.to_owned())),
            _ => Err(bad("must have one of `file` and `env`")),
        }
    }

    fn shown(&self) -> Value {
        // Where a secret is kept is no secret.
        match self {
            Self::File(path) => json!({ "file": path.to_string_lossy() }),
            Self::Env(name) => json!({ "env": name }),
        }
    }
}

/// An enum whose values are written as words.
macro_rules! choice {
    ($(#[$about:meta])* $name:ident { $( $(#[$value_about:meta])* $variant:ident = $word:literal ),+ $(,)? }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $( $(#[$value_about])* $variant, )+ }

        impl $crate::setting::Setting for $name {
            fn kind() -> $crate::setting::Kind {
                $crate::setting::Kind::Choice(&[$($word),+])
            }

            fn read(
                value: &toml::de::DeValue<'_>,
                _: &$crate::setting::Context<'_>,
            ) -> Result<Self, $crate::setting::Problem> {
                let words = &[$($word),+];
                match $crate::setting::choose(value, words)? {
                    $( $word => Ok(Self::$variant), )+
                    _ => Err($crate::setting::no_choice(words)),
                }
            }

            fn shown(&self) -> serde_json::Value {
                match self { $( Self::$variant => serde_json::json!($word), )+ }
            }
        }
    };
}
pub(crate) use choice;

/// The word, if it is one of those.
pub(crate) fn choose<'v>(value: &'v DeValue<'_>, words: &[&str]) -> Result<&'v str, Problem> {
    let word = text(value, "a word")?;
    if words.contains(&word) {
        return Ok(word);
    }
    match super::diagnostic::nearest(word, words) {
        Some(near) => Err(no_choice(words).help(format!("did you mean \"{near}\"?"))),
        None => Err(no_choice(words)),
    }
}

/// Why a word is not one of those.
pub(crate) fn no_choice(words: &[&str]) -> Problem {
    let listed: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    let message = match listed.as_slice() {
        [only] => format!("must be {only}"),
        [first @ .., last] => format!("must be {} or {last}", first.join(", ")),
        [] => "must not be set".into(),
    };
    Problem::new(message, "not one of them")
}
