//! Names: tenants, formats, repositories, tags, versions, files, media types, accounts.
//!
//! The rules here are what every ecosystem shares and what the rest of the program leans on: a name is bounded, is
//! printable, and holds no control character (stored keys end names with a zero byte). Grammars that belong to one
//! ecosystem, as OCI's for repository names, live in `nora-formats`, which is where requests are parsed.

use std::fmt;
use std::sync::Arc;

/// Why a text is no such name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameError {
    /// What the text should have been, as "repository path".
    pub what: &'static str,
    /// The rule it breaks.
    pub rule: &'static str,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a valid {}: {}", self.what, self.rule)
    }
}

impl std::error::Error for NameError {}

fn check(text: &str, what: &'static str, max_bytes: usize) -> Result<(), NameError> {
    let rule = if text.is_empty() {
        "it is empty"
    } else if text.len() > max_bytes {
        "it is too long"
    } else if text.chars().any(char::is_control) {
        "it holds a control character"
    } else {
        return Ok(());
    };
    Err(NameError { what, rule })
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $max:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            /// The most bytes such a name has.
            pub const BYTES_MAX: usize = $max;

            /// Accepts a text that keeps the rules which every ecosystem shares.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                check(text, $what, $max)?;
                Ok(Self(text.into()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name!(
    /// Who owns repositories; at most 63 bytes.
    TenantName, "tenant name", 63
);
name!(
    /// A repository's name within its format, as `library/nginx`; at most 255 bytes.
    RepositoryPath, "repository path", 255
);
name!(
    /// A mutable name for an artifact, as `latest`; at most 128 bytes.
    TagName, "tag name", 128
);
name!(
    /// A version of a package, as `1.2.3`, or one build of a SNAPSHOT; at most 255 bytes.
    VersionName, "version", 255
);
name!(
    /// A file of a version, as `left-pad-1.3.0.tgz`; at most 255 bytes.
    FileName, "file name", 255
);
name!(
    /// Who reads the journal and remembers how far, as `audit-webhook`; at most 64 bytes.
    ConsumerName, "journal consumer", 64
);
name!(
    /// A media type as the client wrote it; at most 255 bytes.
    MediaType, "media type", 255
);

name!(
    /// A user's or a robot's name; at most 64 bytes.
    AccountName, "account name", 64
);
name!(
    /// Who owns a token, as `user:alice`; at most 160 bytes.
    OwnerName, "token owner", 160
);
name!(
    /// What people call a token, unique among its owner's; at most 64 bytes.
    TokenName, "token name", 64
);

/// Gives names a value that sorts before each valid one. It is no valid name itself, and only starts a range.
macro_rules! lowest {
    ($($type:ident),*) => {
        $(impl $type {
            pub(crate) fn lowest() -> Self {
                Self("".into())
            }
        })*
    };
}

lowest!(
    TenantName,
    RepositoryPath,
    TagName,
    VersionName,
    FileName,
    AccountName,
    OwnerName,
    TokenName,
    ConsumerName
);

impl TenantName {
    /// The tenant that owns all names that no other tenant claims.
    pub fn default_tenant() -> Self {
        Self("default".into())
    }

    /// The tenant that owns what the cluster stores for itself, as sealed parts of the journal. No policy can name it:
    /// a declared tenant begins with a letter or a digit.
    pub fn system() -> Self {
        Self("_system".into())
    }
}

/// The ecosystem that a repository speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// OCI and Docker images and artifacts.
    Oci,
    /// npm packages.
    Npm,
    /// Python packages.
    Pypi,
    /// Maven artifacts.
    Maven,
    /// Rust crates.
    Cargo,
}

impl Format {
    /// Every format, in the order in which stored keys sort. This is the one list of formats.
    pub const ALL: [Self; 5] = [Self::Oci, Self::Npm, Self::Pypi, Self::Maven, Self::Cargo];

    /// The format of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// The name used in configuration, permissions and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Oci => "oci",
            Self::Npm => "npm",
            Self::Pypi => "pypi",
            Self::Maven => "maven",
            Self::Cargo => "cargo",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A repository's identity: every stored key about it carries all three parts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepositoryKey {
    /// The owner.
    pub tenant: TenantName,
    /// The ecosystem.
    pub format: Format,
    /// The name within the ecosystem.
    pub path: RepositoryPath,
}

impl fmt::Display for RepositoryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.format, self.path)
    }
}

impl fmt::Debug for RepositoryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.tenant, self.format, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_rules_hold() {
        assert!(TagName::parse("v1.0").is_ok());
        assert_eq!(TagName::parse("").unwrap_err().rule, "it is empty");
        assert_eq!(TagName::parse(&"x".repeat(129)).unwrap_err().rule, "it is too long");
        assert_eq!(TagName::parse("a\0b").unwrap_err().rule, "it holds a control character");
        assert_eq!(
            TagName::parse("a\nb").unwrap_err().to_string(),
            "not a valid tag name: it holds a control character"
        );
    }
}
