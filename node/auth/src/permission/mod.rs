//! Permissions: an action, a format and a glob in one text, as `push:frontend/*` or `delete:npm:@acme/*`.
//!
//! Guarantees: a text that can match nothing is refused, with the reason; what is accepted has one canonical text,
//! which parses to the same answers. `push` creates and never overwrites. Must not know: who has which permission.

mod pattern;
mod set;

use std::fmt;

use nora_domain::Format;

pub use self::pattern::{FORMATS, Pattern, format_named};
pub(crate) use self::pattern::{compile, is_literal, segments};
pub use self::set::PermissionSet;

/// What somebody does to a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Reads.
    Pull,
    /// Creates what is not there: artifacts, and tags with new names.
    Push,
    /// Moves a tag, or replaces what has a name. Includes push.
    Overwrite,
    /// Removes tags and artifacts.
    Delete,
    /// Everything, and settings.
    Admin,
}

impl Action {
    /// All of them, in order.
    pub const ALL: [Self; 5] = [Self::Pull, Self::Push, Self::Overwrite, Self::Delete, Self::Admin];

    /// The word for it in permissions.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Overwrite => "overwrite",
            Self::Delete => "delete",
            Self::Admin => "admin",
        }
    }

    /// Reads the word.
    pub fn parse(word: &str) -> Result<Self, PermissionError> {
        Self::ALL.into_iter().find(|action| action.name() == word).ok_or_else(|| {
            PermissionError::UnknownAction {
                found: word.escape_default().take(40).collect(),
                nearest: nearest(word, &Self::ALL.map(Self::name)).unwrap_or("pull"),
            }
        })
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }

    /// What a permission for this allows.
    const fn allows(self) -> u8 {
        match self {
            Self::Overwrite => Self::Push.bit() | Self::Overwrite.bit(),
            Self::Admin => ALL_BITS,
            _ => self.bit(),
        }
    }

    /// What a deny of this takes away: the action itself, and with creating also replacing. A deny of `overwrite`
    /// leaves `push`, and one of `admin` leaves the rest, because that is what somebody who writes it means.
    const fn takes_away(self) -> u8 {
        match self {
            Self::Push => Self::Push.bit() | Self::Overwrite.bit(),
            _ => self.bit(),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Action {
    type Err = PermissionError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Self::parse(word)
    }
}

const ALL_BITS: u8 = 0b1_1111;

/// What an action is done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource<'a> {
    /// A repository.
    Repository {
        /// Its format.
        format: Format,
        /// Its name within the format.
        path: &'a str,
    },
    /// The registry itself: its users, tokens, policy, nodes.
    Registry,
}

impl fmt::Display for Resource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repository { format, path } => write!(f, "{format}:{path}"),
            Self::Registry => f.write_str("the registry"),
        }
    }
}

/// Why a text is no permission.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PermissionError {
    /// The word before the first `:` is no action.
    #[error(
        "unknown action `{found}`: did you mean `{nearest}`? Actions are pull, push, overwrite, delete, admin and *"
    )]
    UnknownAction {
        /// What was written.
        found: String,
        /// The action most like it.
        nearest: &'static str,
    },
    /// The word before the glob is no format.
    #[error(
        "unknown format `{found}`: did you mean `{nearest}`? Formats are oci, npm, pypi, maven and cargo"
    )]
    UnknownFormat {
        /// What was written.
        found: String,
        /// The format most like it.
        nearest: &'static str,
    },
    /// Nothing says which repositories.
    #[error(
        "it names no repositories: add a glob, as in `push:frontend/*`, or `*` for all of them"
    )]
    NoGlob,
    /// It is too long.
    #[error("it is longer than 255 bytes, which no name is: shorten it")]
    TooLong,
    /// No name is like that.
    #[error("it can match nothing: {reason}")]
    NeverMatches {
        /// Why.
        reason: &'static str,
    },
    /// The glob is malformed.
    #[error("its glob is malformed: {reason}")]
    Glob {
        /// What is wrong with it.
        reason: String,
    },
}

/// One permission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    /// The actions as they were written, as bits.
    actions: u8,
    pattern: Pattern,
}

impl Permission {
    /// Reads `action[,action]:[format:]glob`; `*` stands for all actions, and as the glob for everything of every
    /// format.
    pub fn parse(text: &str) -> Result<Self, PermissionError> {
        // Actions are five short words; what is longer than this is long because of its glob.
        if text.len() > Pattern::BYTES_MAX + 64 {
            return Err(PermissionError::TooLong);
        }
        let (words, glob) = match text.split_once(':') {
            Some((words, glob)) => (words, Some(glob)),
            None => (text, None),
        };
        let mut actions = 0;
        for word in words.split(',') {
            actions |= if word == "*" { ALL_BITS } else { Action::parse(word)?.bit() };
        }
        let pattern = Pattern::parse(glob.ok_or(PermissionError::NoGlob)?)?;
        Ok(Self { actions, pattern })
    }

    /// Whether it allows that.
    pub fn covers(&self, action: Action, resource: &Resource<'_>) -> bool {
        self.allows() & action.bit() != 0
            && self.reaches(resource)
            && (*resource != Resource::Registry || self.is_registry_admin())
    }

    /// Whether that is denied where this is written as a deny.
    pub fn denies(&self, action: Action, resource: &Resource<'_>) -> bool {
        let bits = match resource {
            // Whatever is done to the registry is administration.
            Resource::Registry => action.bit() | Action::Admin.bit(),
            Resource::Repository { .. } => action.bit(),
        };
        self.takes_away() & bits != 0 && self.reaches(resource)
    }

    /// Whether it makes its holder an administrator of the registry itself.
    pub fn is_registry_admin(&self) -> bool {
        self.actions & Action::Admin.bit() != 0 && self.pattern.is_everything()
    }

    /// The same for one action alone, if it allows that action.
    pub fn narrowed_to(&self, action: Action) -> Option<Self> {
        (self.allows() & action.bit() != 0)
            .then(|| Self { actions: action.bit(), pattern: self.pattern.clone() })
    }

    /// Which repositories.
    pub fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    fn reaches(&self, resource: &Resource<'_>) -> bool {
        match resource {
            Resource::Registry => self.pattern.is_everything(),
            Resource::Repository { format, path } => self.pattern.covers(*format, path),
        }
    }

    fn allows(&self) -> u8 {
        self.closure(Action::allows)
    }

    fn takes_away(&self) -> u8 {
        self.closure(Action::takes_away)
    }

    fn closure(&self, of: impl Fn(Action) -> u8) -> u8 {
        let written = Action::ALL.into_iter().filter(|action| self.actions & action.bit() != 0);
        written.fold(0, |bits, action| bits | of(action))
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.actions == ALL_BITS {
            f.write_str("*")?;
        } else {
            let mut comma = "";
            for action in Action::ALL.into_iter().filter(|action| self.actions & action.bit() != 0)
            {
                write!(f, "{comma}{action}")?;
                comma = ",";
            }
        }
        write!(f, ":{}", self.pattern)
    }
}

/// The word that is most like `found`: what the writer probably meant.
pub(crate) fn nearest(found: &str, words: &[&'static str]) -> Option<&'static str> {
    words.iter().copied().min_by_key(|word| distance(found, word))
}

/// How many letters must be put in, taken out or changed; of long texts only the beginning counts.
fn distance(found: &str, word: &str) -> usize {
    let word: Vec<char> = word.chars().collect();
    let mut row: Vec<usize> = (0..=word.len()).collect();
    for (i, c) in found.chars().take(32).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in word.iter().enumerate() {
            let change = diagonal + usize::from(c != *other);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[word.len()]
}
