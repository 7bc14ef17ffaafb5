//! Who acts: the one form in which the program names a caller.

use std::fmt;

use crate::ids::NodeId;

/// Who somebody is. Parsed once, where a credential is recognised, and rendered by its `Display` alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A caller without credentials.
    #[default]
    Anonymous,
    /// A caller of a node that asks for no credentials.
    Anyone,
    /// A caller whose credentials were wrong.
    Unknown,
    /// The administrator that the first start made.
    Administrator,
    /// A person.
    User(Box<str>),
    /// A program with an account of its own.
    Robot(Box<str>),
    /// A program that another issuer vouches for, as a CI job.
    Workload {
        /// The issuer's name in the policy.
        provider: Box<str>,
        /// The job's name there; for reading, never for deciding.
        subject: Box<str>,
    },
    /// A node's own configuration file.
    Configuration,
    /// A node.
    Node(NodeId),
    /// Several callers, too many to be written one by one.
    Several,
}

impl Subject {
    /// The name of its account, if it has one.
    pub fn account(&self) -> Option<&str> {
        match self {
            Self::User(name) | Self::Robot(name) => Some(name),
            _ => None,
        }
    }

    /// Whether there is a name behind it that a policy can speak of.
    pub const fn is_nobody(&self) -> bool {
        matches!(self, Self::Anonymous | Self::Unknown)
    }

    /// The subject that a text names; `None` if it names none.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "anonymous" => Self::Anonymous,
            "anyone" => Self::Anyone,
            "unknown" => Self::Unknown,
            "admin" => Self::Administrator,
            "nora.toml" => Self::Configuration,
            "several" => Self::Several,
            _ => match text.split_once(':')? {
                (_, "") => return None,
                ("user", name) => Self::User(name.into()),
                ("robot", name) => Self::Robot(name.into()),
                ("node", number) => Self::Node(NodeId(number.parse().ok()?)),
                ("oidc", rest) => {
                    let (provider, subject) = rest.split_once(':')?;
                    Self::Workload { provider: provider.into(), subject: subject.into() }
                }
                _ => return None,
            },
        })
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::Anyone => f.write_str("anyone"),
            Self::Unknown => f.write_str("unknown"),
            Self::Administrator => f.write_str("admin"),
            Self::User(name) => write!(f, "user:{name}"),
            Self::Robot(name) => write!(f, "robot:{name}"),
            Self::Workload { provider, subject } => write!(f, "oidc:{provider}:{subject}"),
            Self::Configuration => f.write_str("nora.toml"),
            Self::Node(node) => write!(f, "node:{}", node.0),
            Self::Several => f.write_str("several"),
        }
    }
}

/// Who asked for a change, and from where.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Actor {
    /// Who.
    pub subject: Subject,
    /// The name of the access token that they showed, if they showed one.
    pub token: Option<Box<str>>,
    /// The client's address.
    pub address: String,
    /// The request's id.
    pub request: String,
}

impl Actor {
    /// The proposer cuts longer texts: the log must stay small.
    pub const TEXT_BYTES_MAX: usize = 256;

    /// An actor known by name alone.
    pub fn named(subject: Subject) -> Self {
        Self { subject, ..Self::default() }
    }

    /// The subject and the token, as people read them.
    pub fn name(&self) -> String {
        match &self.token {
            Some(token) => format!("{} (token {token})", self.subject),
            None => self.subject.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_parsed_as_they_are_rendered() {
        for text in [
            "anonymous",
            "anyone",
            "unknown",
            "admin",
            "user:alice",
            "robot:ci",
            "oidc:github:repo:my-org/app",
            "nora.toml",
            "node:3",
            "several",
        ] {
            assert_eq!(
                Subject::parse(text).map(|subject| subject.to_string()).as_deref(),
                Some(text)
            );
        }
        for text in ["", "alice", "user:", "oidc:github", "node:x", "group:admins"] {
            assert_eq!(Subject::parse(text), None, "{text}");
        }
    }
}
