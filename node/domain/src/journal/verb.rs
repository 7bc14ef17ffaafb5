//! What callers ask for, as codes, and what it is about.

use std::fmt;

use crate::digest::Digest;
use crate::ids::{NodeId, TokenId};
use crate::names::{AccountName, FileName, RepositoryKey, TagName, VersionName};

/// Makes the one list of verbs: a variant, its code in stored rows, and its name for people.
macro_rules! verbs {
    ($($(#[$doc:meta])* $variant:ident = $code:literal $name:literal,)*) => {
        /// What a caller asked for. Codes are stored and never used again for another verb; names are for people.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Verb {
            $($(#[$doc])* $variant,)*
        }

        impl Verb {
            /// Every verb.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its code in stored rows.
            pub const fn code(self) -> u32 {
                match self { $(Self::$variant => $code,)* }
            }

            /// Its name, as `artifact.push`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

verbs! {
    /// Many verbs, counted together.
    #[default]
    Several = 1 "several",
    /// Push a blob.
    BlobPush = 2 "blob.push",
    /// Mount a blob from another repository.
    BlobMount = 3 "blob.mount",
    /// Take a blob out of a repository.
    BlobDelete = 4 "blob.delete",
    /// Push an artifact.
    ArtifactPush = 5 "artifact.push",
    /// Delete an artifact.
    ArtifactDelete = 6 "artifact.delete",
    /// Let a tag name something else.
    TagSet = 7 "tag.set",
    /// Delete a tag.
    TagDelete = 8 "tag.delete",
    /// Publish a version.
    VersionPublish = 9 "version.publish",
    /// Yank or deprecate a version, or take that back.
    VersionState = 10 "version.state",
    /// Delete a version.
    VersionDelete = 11 "version.delete",
    /// Delete a file of a version.
    FileDelete = 12 "file.delete",
    /// Put a policy into force.
    PolicySet = 13 "policy.set",
    /// Make an account.
    AccountCreate = 14 "account.create",
    /// Change a password.
    AccountPassword = 15 "account.password",
    /// Remove an account.
    AccountRemove = 16 "account.remove",
    /// Make an access token.
    TokenCreate = 17 "token.create",
    /// Exchange an issuer's token.
    TokenExchange = 18 "token.exchange",
    /// Revoke an access token.
    TokenRevoke = 19 "token.revoke",
    /// Make a join token.
    NodeToken = 20 "node.token",
    /// Make a node a voter.
    NodePromote = 21 "node.promote",
    /// Drain a node.
    NodeDrain = 22 "node.drain",
    /// Remove a node.
    NodeRemove = 23 "node.remove",
    /// Let another node lead.
    ClusterTransferLeader = 24 "cluster.transfer-leader",
    /// Make a snapshot.
    ClusterSnapshot = 25 "cluster.snapshot",
    /// Finish an upgrade.
    ClusterUpgrade = 26 "cluster.upgrade",
    /// Keep another number of copies.
    ClusterReplicas = 27 "cluster.replicas",
    /// Re-read all blobs.
    BlobsScrub = 28 "blobs.scrub",
    /// Log in.
    Login = 29 "login",
    /// Join the cluster with a join token.
    NodeJoin = 31 "node.join",
    /// Revoke a join token.
    NodeTokenRevoke = 32 "node.token-revoke",
    /// Replace the cluster's authority and secrets.
    ClusterRotate = 33 "cluster.rotate-authority",
    /// Keep a session up with a refresh token.
    SessionCreate = 40 "session.create",
    /// End sessions that refresh tokens keep up.
    SessionRevoke = 41 "session.revoke",
    /// Let one node go on without a lost majority.
    ClusterRecover = 30 "cluster.recover",
}

impl Verb {
    /// The verb with this code.
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|verb| verb.code() == code)
    }

    /// The verb of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|verb| verb.name() == name)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a deed is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    /// The registry as a whole.
    #[default]
    Registry,
    /// A repository.
    Repository(RepositoryKey),
    /// A blob or an artifact of a repository.
    Content(RepositoryKey, Digest),
    /// An artifact that was pushed under tags; the first few of these.
    Tagged(RepositoryKey, Digest, Vec<TagName>),
    /// A tag.
    Tag(RepositoryKey, TagName),
    /// A version.
    Version(RepositoryKey, VersionName),
    /// A file of a version.
    File(RepositoryKey, VersionName, FileName),
    /// The policy.
    Policy,
    /// An account.
    Account(AccountName),
    /// An access token, by its owner and its name.
    NamedToken(Box<str>, Box<str>),
    /// An access token, by its public part.
    Token(TokenId),
    /// A session that a refresh token keeps up, by its owner and the token's name; all of the owner's if none is named.
    Session(Box<str>, Option<TokenId>),
    /// Join tokens.
    JoinToken,
    /// A node.
    Node(NodeId),
    /// The cluster.
    Cluster,
    /// A client's own words, where they name nothing that there is.
    Words(Box<str>),
}

impl About {
    /// Tags that are named at most.
    pub const TAGS_MAX: usize = 8;
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry => f.write_str("registry"),
            Self::Repository(repository) => write!(f, "{repository}"),
            Self::Content(repository, digest) => write!(f, "{repository}@{digest}"),
            Self::Tagged(repository, digest, tags) => {
                write!(f, "{repository}")?;
                for (place, tag) in tags.iter().enumerate() {
                    write!(f, "{}{tag}", if place == 0 { ":" } else { "," })?;
                }
                write!(f, "@{digest}")
            }
            Self::Tag(repository, tag) => write!(f, "{repository}:{tag}"),
            Self::Version(repository, version) => write!(f, "{repository}@{version}"),
            Self::File(repository, version, file) => write!(f, "{repository}@{version}/{file}"),
            Self::Policy => f.write_str("policy"),
            Self::Account(account) => write!(f, "{account}"),
            Self::NamedToken(owner, name) => write!(f, "{owner}/{name}"),
            Self::Token(token) => write!(f, "{:032x}", token.0),
            Self::Session(owner, None) => f.write_str(owner),
            Self::Session(owner, Some(token)) => write!(f, "{owner}/{:032x}", token.0),
            Self::JoinToken => f.write_str("join token"),
            Self::Node(node) => write!(f, "node {}", node.0),
            Self::Cluster => f.write_str("cluster"),
            Self::Words(words) => f.write_str(words),
        }
    }
}

/// Something that a caller asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deed {
    /// What.
    pub verb: Verb,
    /// About what.
    pub about: About,
}

impl Deed {
    /// A verb and what it is about.
    pub const fn new(verb: Verb, about: About) -> Self {
        Self { verb, about }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_verb_has_a_code_and_a_name_of_its_own() {
        let codes: BTreeSet<_> = Verb::ALL.iter().map(|verb| verb.code()).collect();
        let names: BTreeSet<_> = Verb::ALL.iter().map(|verb| verb.name()).collect();
        assert_eq!((codes.len(), names.len()), (Verb::ALL.len(), Verb::ALL.len()));
        for verb in Verb::ALL {
            assert_eq!(Verb::from_code(verb.code()), Some(*verb));
            assert_eq!(Verb::from_name(verb.name()), Some(*verb));
        }
        assert_eq!(Verb::from_code(0), None);
    }
}
