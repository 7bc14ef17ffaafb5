//! Tags: mutable names for artifacts and versions; and when each thing was last pulled.

mod transition;

use crate::digest::Digest;
use crate::names::{FileName, RepositoryKey, TagName, VersionName};
use crate::time::Timestamp;

/// What a tag names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// An artifact, as OCI's tags do.
    Artifact(Digest),
    /// A version, as npm's dist-tags do.
    Version(VersionName),
}

impl Target {
    /// The artifact, if it is one.
    pub const fn artifact(&self) -> Option<Digest> {
        match self {
            Self::Artifact(digest) => Some(*digest),
            Self::Version(_) => None,
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Artifact(digest) => digest.fmt(f),
            Self::Version(version) => version.fmt(f),
        }
    }
}

/// A mutable name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagRecord {
    /// What it names; always something that is there.
    pub target: Target,
    /// When it last moved.
    pub moved_at: Timestamp,
}

/// Something in a repository that is pulled by itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Item {
    /// An artifact.
    Artifact(Digest),
    /// A tag.
    Tag(TagName),
    /// A version.
    Version(VersionName),
    /// A file of a version.
    File(VersionName, FileName),
}

/// When something was last pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PulledRecord {
    /// The cluster's time, within a minute or so.
    pub at: Timestamp,
}

/// Let a tag name something else that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetTag {
    /// The repository.
    pub repository: RepositoryKey,
    /// The tag.
    pub tag: TagName,
    /// What it shall name.
    pub target: Target,
}

/// Remove a tag; what it named stays. Answers with that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteTag {
    /// The repository.
    pub repository: RepositoryKey,
    /// The tag.
    pub tag: TagName,
}

/// These were pulled within the last minute or so. Whatever is gone by now is passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotePulls {
    /// What was pulled from where.
    pub pulls: Vec<(RepositoryKey, Item)>,
}
