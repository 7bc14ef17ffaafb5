//! How an artifact is asked for: by a name that may move, or by what it is.

use std::fmt;

use crate::digest::Digest;
use crate::names::TagName;

/// A tag or a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// By a name that may move.
    Tag(TagName),
    /// By what it is.
    Digest(Digest),
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}
