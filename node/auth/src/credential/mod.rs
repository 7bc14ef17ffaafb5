//! What a request shows of itself: the `Authorization` header of every ecosystem, read into one [`Credential`].
//!
//! Guarantees: whichever way a client has of sending a token, the token ends as the same [`Credential::Bearer`], so that
//! what it may do cannot depend on the format; a header that is not wholly understood is [`Credential::Malformed`] and
//! never nobody's, so that a broken login is told from none; a [`Secret`] does not show itself in logs. Must not know:
//! which tokens and users there are, and what they may do.

mod token;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

pub use token::{ApiToken, TokenKind};

/// The longest `Authorization` header that is read.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;

/// The longest user name that is read; no account has a longer one.
const USER_BYTES_MAX: usize = 256;

/// Padding is neither asked for nor refused: `_auth` in a `.npmrc` is often written without it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A text that is nobody else's business. It shows itself in no log: whoever needs it calls [`Secret::expose`].
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Secret {
    /// Takes the same time wherever two texts of one length differ.
    fn eq(&self, other: &Self) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(self.0.as_bytes(), other.0.as_bytes())
            .is_ok()
    }
}

impl Eq for Secret {}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl std::fmt::Display for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

/// What a request shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// Nothing: it is `anonymous`.
    None,
    /// A name and a password.
    Basic {
        /// The name, as it was sent.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A token of any kind. Where it came from does not matter any more.
    Bearer(Secret),
    /// A header that cannot be read, and why. The request is refused: it meant to be somebody.
    Malformed(&'static str),
}

/// How an ecosystem's clients send what they have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `Basic` and nothing else.
    Basic,
    /// `Bearer` and nothing else.
    Bearer,
    /// `docker`, `podman`, `crane`, `oras`: Basic, with a token as the password of any user, or Bearer.
    Docker,
    /// `npm`, `pnpm`, `yarn`: Bearer, or Basic with the older `_auth`.
    Npm,
    /// `cargo`: the token is the whole header, without a word before it.
    Cargo,
    /// `twine`, `pip`, `uv`: Basic, a token as the password of `__token__`.
    Pypi,
    /// `mvn`, `gradle`: Basic, with a token as the password of any user.
    Maven,
}

impl Scheme {
    /// Every scheme.
    pub const ALL: [Self; 7] =
        [Self::Basic, Self::Bearer, Self::Docker, Self::Npm, Self::Cargo, Self::Pypi, Self::Maven];

    /// Whether whoever gives that name says that the password is a token.
    fn means_token(self, user: &str) -> bool {
        match self {
            // `docker login` keeps an identity token under the first name; Azure's clients send the second.
            Self::Docker => matches!(user, "<token>" | "00000000-0000-0000-0000-000000000000"),
            Self::Pypi => user == "__token__",
            Self::Basic | Self::Bearer | Self::Npm | Self::Cargo | Self::Maven => false,
        }
    }
}

impl Credential {
    /// What a form brings that has a user name and a password: a token of this registry among them is one.
    pub fn of_login(user: String, password: Secret) -> Self {
        if is_token(password.expose()) {
            return Self::Bearer(password);
        }
        if user.is_empty() || user.len() > USER_BYTES_MAX {
            return Self::Malformed("the user name is empty or longer than 256 bytes");
        }
        Self::Basic { user, password }
    }
}

/// Reads all `Authorization` headers of a request. Two are refused: which of them counts would depend on who reads, and
/// something in front of this server may have read the other one.
pub fn read_all<'a>(headers: impl IntoIterator<Item = &'a [u8]>, scheme: Scheme) -> Credential {
    let mut headers = headers.into_iter();
    match (headers.next(), headers.next()) {
        (first, None) => read(first, scheme),
        (_, Some(_)) => Credential::Malformed("there are several Authorization headers: send one"),
    }
}

/// Reads one `Authorization` header.
pub fn read(authorization: Option<&[u8]>, scheme: Scheme) -> Credential {
    authorization.map_or(Credential::None, |header| {
        read_header(header, scheme).unwrap_or_else(Credential::Malformed)
    })
}

fn read_header(header: &[u8], scheme: Scheme) -> Result<Credential, &'static str> {
    if header.len() > HEADER_BYTES_MAX {
        return Err("the Authorization header is longer than 16 KiB");
    }
    let text = std::str::from_utf8(header).unwrap_or("\u{0}");
    if !text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
        return Err("the Authorization header has bytes that are not printable ASCII");
    }
    let text = text.trim_matches(' ');
    if text.is_empty() {
        return Err("the Authorization header is empty: leave it out, or send a credential");
    }
    let (word, rest) = match text.split_once(' ') {
        Some((word, rest)) => (word, rest.trim_start_matches(' ')),
        None if scheme == Scheme::Cargo => return token68(text),
        None => (text, ""),
    };
    if word.eq_ignore_ascii_case("basic") && scheme != Scheme::Bearer {
        return basic(rest, scheme);
    }
    if word.eq_ignore_ascii_case("bearer") && scheme != Scheme::Basic {
        return token68(rest);
    }
    Err(match scheme {
        Scheme::Basic => "the Authorization header is not 'Basic' and base64 of user:password",
        Scheme::Bearer => "the Authorization header is not 'Bearer' and a token",
        Scheme::Cargo => "the Authorization header is not a token",
        Scheme::Docker | Scheme::Npm | Scheme::Pypi | Scheme::Maven => {
            "the Authorization header is neither 'Basic' nor 'Bearer'"
        }
    })
}

/// A token, in the letters that RFC 6750 gives one. A comma or a blank would be a second credential in one header.
fn token68(text: &str) -> Result<Credential, &'static str> {
    let body = text.trim_end_matches('=');
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    if body.is_empty() || !body.bytes().all(valid) {
        return Err(
            "the token in the Authorization header is empty or has characters no token has",
        );
    }
    Ok(Credential::Bearer(Secret::new(text)))
}

fn basic(encoded: &str, scheme: Scheme) -> Result<Credential, &'static str> {
    let bytes = BASE64
        .decode(encoded)
        .map_err(|_| "what follows 'Basic' in the Authorization header is not base64")?;
    let text = String::from_utf8(bytes).map_err(|_| "the user or password is not UTF-8")?;
    let (user, password) =
        text.split_once(':').ok_or("there is no colon between user and password")?;
    if text.chars().any(char::is_control) {
        return Err("the user or password has control characters");
    }
    if user.len() > USER_BYTES_MAX {
        return Err("the user name is longer than 256 bytes");
    }
    if scheme.means_token(user) {
        return token68(password)
            .map_err(|_| "the password is empty or has characters no token has");
    }
    if is_token(password) {
        return Ok(Credential::Bearer(Secret::new(password)));
    }
    if user.is_empty() {
        return Err("the user name is empty");
    }
    Ok(Credential::Basic { user: user.to_owned(), password: Secret::new(password) })
}

/// Whether it is a token of this registry rather than a password. A token that was damaged is a password, and a wrong
/// one; an account's own password may begin like a token.
fn is_token(password: &str) -> bool {
    ApiToken::parse(password).is_some() || crate::session::is_shaped_as_token(password)
}
