//! Signing in: the challenge a server answers with, and the header that meets it.
//!
//! Basic is met with the name and password. Bearer is met with a token from the realm the challenge names, but only
//! where that realm is the configured server: a password never follows a pointer to another origin. A token is fetched
//! once for its scope and shown until it ends or is refused.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, header};

use crate::config::{Credentials, Secret};

/// How a server wants to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// With a name and password.
    Basic,
    /// With a token that is to be had elsewhere.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

impl Challenge {
    /// Reads the strongest challenge that the answer's headers hold.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let all: Vec<Self> = headers
            .get_all(header::WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .filter_map(Self::parse)
            .collect();
        all.iter().find(|c| matches!(c, Self::Bearer { .. })).or(all.first()).cloned()
    }

    fn parse(value: &str) -> Option<Self> {
        let (scheme, rest) = value.trim().split_once(' ').unwrap_or((value.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let mut parameters = parameters(rest);
        Some(Self::Bearer {
            realm: parameters.remove("realm")?,
            service: parameters.remove("service"),
            scope: parameters.remove("scope"),
        })
    }
}

/// Reads `name="value", name=value`, where quoted values may hold commas and escapes.
fn parameters(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut rest = text.trim_start_matches([' ', ',']);
    while let Some((name, after)) = rest.split_once('=') {
        let (value, tail) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted),
            None => {
                let end = after.find(',').unwrap_or(after.len());
                (after[..end].trim().to_owned(), &after[end..])
            }
        };
        found.insert(name.trim().to_ascii_lowercase(), value);
        rest = tail.trim_start_matches([' ', ',']);
    }
    found
}

fn unquote(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            c => value.push(c),
        }
    }
    (value, "")
}

/// What a token is for: the realm that gives it, the service, and the scope.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Purpose {
    pub realm: String,
    pub service: Option<String>,
    pub scope: Option<String>,
}

/// A header and how long it may be shown.
#[derive(Clone, Debug)]
struct Kept {
    header: HeaderValue,
    until: Option<Instant>,
}

impl Kept {
    fn at(&self, now: Instant) -> Option<HeaderValue> {
        self.until.is_none_or(|until| now < until).then(|| self.header.clone())
    }
}

/// What a client has learnt about signing in so far.
#[derive(Debug, Default)]
pub(crate) struct Session {
    // Which header met the last challenge, by what the request was about: registries give a token per repository.
    headers: Mutex<BTreeMap<String, Kept>>,
    // Held while a token is fetched, so that requests challenged together make one trip for it.
    tokens: tokio::sync::Mutex<BTreeMap<Purpose, Kept>>,
}

impl Session {
    /// More scopes than this are forgotten, so that a walk over a large catalogue stays small.
    const SCOPES_MAX: usize = 256;

    pub(crate) fn header(&self, topic: &str, now: Instant) -> Option<HeaderValue> {
        let headers = self.headers.lock().unwrap_or_else(PoisonError::into_inner);
        headers.get(topic).and_then(|kept| kept.at(now))
    }

    pub(crate) fn remember(&self, topic: &str, header: HeaderValue, until: Option<Instant>) {
        let mut headers = self.headers.lock().unwrap_or_else(PoisonError::into_inner);
        keep(&mut headers, topic.to_owned(), Kept { header, until });
    }

    /// The header of a token for the purpose: a kept one that is still good and is not the one that was `refused` just
    /// now, or what `fetch` gets. And until when.
    pub(crate) async fn token<E>(
        &self,
        purpose: Purpose,
        refused: Option<&HeaderValue>,
        fetch: impl AsyncFnOnce(&Purpose) -> Result<(HeaderValue, Duration), E>,
    ) -> Result<(HeaderValue, Option<Instant>), E> {
        let mut tokens = self.tokens.lock().await;
        if let Some(kept) = tokens.get(&purpose)
            && let Some(header) = kept.at(Instant::now())
            && Some(&header) != refused
        {
            return Ok((header, kept.until));
        }
        // Counted from before the server made it.
        let asked = Instant::now();
        let (header, lives) = fetch(&purpose).await?;
        let until = asked.checked_add(lives.mul_f64(LIFE_USED));
        keep(&mut tokens, purpose, Kept { header: header.clone(), until });
        Ok((header, until))
    }
}

/// A token is not shown in the last part of its life: it must outlive the request's way to the server.
const LIFE_USED: f64 = 0.9;

fn keep<K: Ord>(kept: &mut BTreeMap<K, Kept>, key: K, value: Kept) {
    if kept.len() >= Session::SCOPES_MAX && !kept.contains_key(&key) {
        kept.clear();
    }
    kept.insert(key, value);
}

/// The header for credentials that need no trade, where they can be had as one.
pub(crate) fn direct(credentials: &Credentials) -> Option<HeaderValue> {
    match credentials {
        Credentials::Anonymous => None,
        Credentials::Password { username, password } => {
            let pair = format!("{username}:{}", password.expose());
            sensitive(&format!("Basic {}", STANDARD.encode(pair)))
        }
        Credentials::Token(token) => bearer(token),
    }
}

/// The header that shows a token.
pub(crate) fn bearer(token: &Secret) -> Option<HeaderValue> {
    sensitive(&format!("Bearer {}", token.expose()))
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let bearer = Challenge::parse(
            r#"Bearer realm="http://h/v2/token",service="h",scope="repository:a:pull,push""#,
        );
        assert_eq!(
            bearer,
            Some(Challenge::Bearer {
                realm: "http://h/v2/token".into(),
                service: Some("h".into()),
                scope: Some("repository:a:pull,push".into()),
            })
        );
        assert_eq!(Challenge::parse(r#"basic realm="NORA""#), Some(Challenge::Basic));
        assert_eq!(Challenge::parse("Negotiate"), None);
        assert_eq!(Challenge::parse("Bearer service=x"), None);
    }

    #[tokio::test]
    async fn a_token_is_fetched_once_and_again_when_it_ended_or_was_refused() {
        let session = Session::default();
        let fetched = std::cell::Cell::new(0);
        let purpose = |scope: &str| Purpose {
            realm: "r".into(),
            service: None,
            scope: Some(scope.to_owned()),
        };
        let ask = async |scope: &str, refused: Option<&HeaderValue>, lives| {
            let token = session.token(purpose(scope), refused, async |_| {
                fetched.set(fetched.get() + 1);
                Ok::<_, ()>((HeaderValue::from(fetched.get()), lives))
            });
            token.await.unwrap()
        };
        let hour = Duration::from_secs(3600);
        let (first, until) = ask("a", None, hour).await;
        let left = until.unwrap().duration_since(Instant::now());
        assert!(left < hour && left > hour / 2, "not shown to the last moment: {left:?}");
        assert_eq!(ask("a", None, hour).await.0, first);
        let (other, _) = ask("b", None, hour).await;
        assert_ne!(other, first, "a token of another scope");
        let (second, _) = ask("a", Some(&first), hour).await;
        assert_ne!(second, first, "the server did not take it");
        // One that somebody fetched since is not fetched again for a request that came with the one before.
        assert_eq!(ask("a", Some(&first), hour).await.0, second);
        let (ended, _) = ask("c", None, Duration::ZERO).await;
        assert_ne!(ask("c", None, hour).await.0, ended);
        assert_eq!(fetched.get(), 5);
    }

    #[test]
    fn what_is_remembered_ends_and_stays_small() {
        let session = Session::default();
        let now = Instant::now();
        let value = HeaderValue::from_static("v");
        session.remember("basic", value.clone(), None);
        session.remember("bearer", value.clone(), Some(now + Duration::from_secs(1)));
        assert_eq!(session.header("bearer", now), Some(value.clone()));
        let later = now + Duration::from_secs(2);
        assert_eq!(session.header("bearer", later), None);
        assert_eq!(session.header("basic", later), Some(value.clone()));
        for topic in 0..10 * Session::SCOPES_MAX {
            session.remember(&topic.to_string(), value.clone(), None);
        }
        assert!(session.headers.lock().unwrap().len() <= Session::SCOPES_MAX);
    }
}
