//! Scopes: what a client of Docker's token flow asks for, as `repository:name:pull,push`.
//!
//! Guarantees: what is asked is bounded, and what is not understood is asked for nothing, never for more. As other
//! registries do, an odd scope is passed over rather than refused: a client that asks for an action nobody knows still
//! gets a token for the others. Must not know: what may be granted, or which names are valid.

use std::collections::{BTreeMap, BTreeSet};

/// Scopes that one request may ask for.
pub const SCOPES_MAX: usize = 100;
/// The longest text of scopes that is read.
pub const SCOPE_BYTES_MAX: usize = 16 * 1024;
/// The longest name in a scope; no repository has a longer one.
const NAME_BYTES_MAX: usize = 512;

/// What kind of thing a scope names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ScopeKind {
    /// A repository.
    Repository,
    /// The registry itself; `catalog` is its one known name.
    Registry,
}

/// What a scope asks to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ScopeAction {
    /// `pull`.
    Pull,
    /// `push`.
    Push,
    /// `delete`.
    Delete,
    /// `*`: whatever there is.
    All,
}

impl ScopeAction {
    const fn word(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
            Self::All => "*",
        }
    }
}

/// What a client asks to do with one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// What kind of thing.
    pub kind: ScopeKind,
    /// Its name; not checked.
    pub name: String,
    /// What to do with it; empty if nothing was understood.
    pub actions: BTreeSet<ScopeAction>,
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            ScopeKind::Repository => "repository",
            ScopeKind::Registry => "registry",
        };
        let actions: Vec<_> = self.actions.iter().map(|action| action.word()).collect();
        write!(f, "{kind}:{}:{}", self.name, actions.join(","))
    }
}

/// Why scopes are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// The text is too long.
    #[error("the scope is longer than {SCOPE_BYTES_MAX} bytes: ask for less at once")]
    TooLong,
    /// There are too many.
    #[error("there are more than {SCOPES_MAX} scopes: ask for less at once")]
    TooMany,
}

/// Reads a `scope` parameter: scopes with blanks between them. Those of one thing become one, in the order in which
/// things were first named. Several parameters are read as one text with blanks between them.
pub fn parse_scope(text: &str) -> Result<Vec<Scope>, ScopeError> {
    if text.len() > SCOPE_BYTES_MAX {
        return Err(ScopeError::TooLong);
    }
    let mut scopes: Vec<Scope> = Vec::new();
    let mut places: BTreeMap<(ScopeKind, String), usize> = BTreeMap::new();
    let words = text.split([' ', '\t', '\r', '\n']).filter(|word| !word.is_empty());
    for (count, word) in words.enumerate() {
        if count == SCOPES_MAX {
            return Err(ScopeError::TooMany);
        }
        let Some(scope) = one(word) else { continue };
        let place = *places.entry((scope.kind, scope.name.clone())).or_insert(scopes.len());
        match scopes.get_mut(place) {
            Some(known) => known.actions.extend(scope.actions),
            None => scopes.push(scope),
        }
    }
    Ok(scopes)
}

/// The kind ends at the first colon and the actions begin after the last: a name may hold a host and its port.
fn one(word: &str) -> Option<Scope> {
    let (kind, rest) = word.split_once(':')?;
    let (name, actions) = rest.rsplit_once(':')?;
    let kind = match kind.split_once('(').map_or(kind, |(kind, _class)| kind) {
        "repository" => ScopeKind::Repository,
        "registry" => ScopeKind::Registry,
        _ => return None,
    };
    let named = (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.contains(char::is_control);
    let actions = actions.split(',').filter_map(|action| match action {
        "pull" => Some(ScopeAction::Pull),
        "push" => Some(ScopeAction::Push),
        "delete" => Some(ScopeAction::Delete),
        "*" => Some(ScopeAction::All),
        _ => None,
    });
    named.then(|| Scope { kind, name: name.to_owned(), actions: actions.collect() })
}
