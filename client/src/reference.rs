//! How people name content: `[host/]repository[:tag][@digest]`.
//!
//! A host is recognised by being the configured server's, or by a port, which no repository name can have; everything
//! else is part of the repository's name, so `my.org/app` is a repository and never a surprise.

use std::fmt;

use nora_domain::{Digest, DigestError};

/// What a reference names within its repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A tag.
    Tag(String),
    /// A manifest.
    Digest(Digest),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

/// A parsed reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The repository.
    pub repository: String,
    /// The tag, if one is written.
    pub tag: Option<String>,
    /// The digest, if one is written.
    pub digest: Option<Digest>,
}

/// Why a text is no reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReferenceError {
    /// The repository's name breaks the grammar.
    Repository(String),
    /// The tag breaks the grammar.
    Tag(String),
    /// What follows `@` is no digest.
    Digest(DigestError),
    /// It is a digest alone, as commands print it: which repository's content it is, must be said.
    NoRepository(Digest),
    /// It names another server than the configured one.
    OtherServer {
        /// The server it names.
        host: String,
        /// The configured one.
        configured: String,
    },
}

impl fmt::Display for ReferenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repository(text) => write!(
                f,
                "{text:?} is not a repository name: use lower-case letters, digits, `.`, `_`, `-` and `/`, \
                 at most 255 characters"
            ),
            Self::Tag(text) => write!(
                f,
                "{text:?} is not a tag: use letters, digits, `.`, `_` and `-`, at most 128 characters"
            ),
            Self::Digest(error) => error.fmt(f),
            Self::NoRepository(digest) => {
                write!(f, "{digest} does not say in which repository: write repository@{digest}")
            }
            Self::OtherServer { host, configured } => write!(
                f,
                "the reference names the server {host}, but the configured one is {configured}; see --addr"
            ),
        }
    }
}

impl std::error::Error for ReferenceError {}

impl Reference {
    /// Reads a reference; `authority` is the configured server's `host[:port]`.
    pub fn parse(text: &str, authority: &str) -> Result<Self, ReferenceError> {
        if let Ok(digest) = Digest::parse(text) {
            return Err(ReferenceError::NoRepository(digest));
        }
        let rest = strip_host(text, authority)?;
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => {
                (rest, Some(Digest::parse(digest).map_err(ReferenceError::Digest)?))
            }
            None => (rest, None),
        };
        let (repository, tag) = match rest.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (rest, None),
        };
        if !is_repository(repository) {
            return Err(ReferenceError::Repository(repository.to_owned()));
        }
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(ReferenceError::Tag(tag.to_owned()));
        }
        Ok(Self { repository: repository.to_owned(), tag: tag.map(str::to_owned), digest })
    }

    /// What to ask for: the digest where there is one, else the tag, else `latest`.
    pub fn target(&self) -> Target {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => Target::Digest(*digest),
            (None, Some(tag)) => Target::Tag(tag.clone()),
            (None, None) => Target::Tag("latest".into()),
        }
    }

    /// The same repository at another target.
    pub fn at(&self, target: &Target) -> Self {
        let repository = self.repository.clone();
        match target {
            Target::Tag(tag) => Self { repository, tag: Some(tag.clone()), digest: None },
            Target::Digest(digest) => Self { repository, tag: None, digest: Some(*digest) },
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

fn strip_host<'a>(text: &'a str, authority: &str) -> Result<&'a str, ReferenceError> {
    let Some((first, rest)) = text.split_once('/') else {
        return Ok(text);
    };
    if first == authority {
        return Ok(rest);
    }
    if first.contains(':') {
        return Err(ReferenceError::OtherServer {
            host: first.to_owned(),
            configured: authority.to_owned(),
        });
    }
    Ok(text)
}

fn is_repository(text: &str) -> bool {
    text.len() <= 255 && text.split('/').all(is_component)
}

/// A component is runs of letters and digits, joined by one `.`, one or two `_`, or any number of `-`.
fn is_component(text: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(alphanumeric)
        && text.ends_with(alphanumeric)
        && text.split(alphanumeric).all(|separator| {
            matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
        })
}

fn is_tag(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() <= 128
        && text.starts_with(word)
        && text.chars().all(|c| word(c) || c == '.' || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn references_are_read_and_written_back() {
        let server = "127.0.0.1:4000";
        for (text, written, target) in [
            ("app", "app", "latest"),
            ("library/nginx:1.27", "library/nginx:1.27", "1.27"),
            ("127.0.0.1:4000/a/b:c", "a/b:c", "c"),
            ("my.org/app", "my.org/app", "latest"),
            ("a__b/c--d.e:V_1", "a__b/c--d.e:V_1", "V_1"),
            (&format!("app@{DIGEST}"), &format!("app@{DIGEST}"), DIGEST),
            (&format!("app:v1@{DIGEST}"), &format!("app:v1@{DIGEST}"), DIGEST),
        ] {
            let reference = Reference::parse(text, server).unwrap();
            assert_eq!(reference.to_string(), written);
            assert_eq!(reference.target().to_string(), target);
        }
    }

    #[test]
    fn bad_references_say_which_part_is_bad() {
        let error = |text: &str| Reference::parse(text, "127.0.0.1:4000").unwrap_err();
        for text in ["", "App", "a//b", "a/", "/a", "a..b", "a___b", "../a", "a b", "-a"] {
            assert!(matches!(error(text), ReferenceError::Repository(_)), "{text}");
        }
        assert_eq!(error("a:"), ReferenceError::Tag(String::new()));
        assert_eq!(error("a:-x"), ReferenceError::Tag("-x".into()));
        assert_eq!(error("a@sha256"), ReferenceError::Digest(DigestError::Malformed));
        assert!(matches!(error("other:5000/a"), ReferenceError::OtherServer { .. }));
    }
}
