//! Values that hold other values: lists, one-or-many, and tables whose keys are free.
//!
//! Guarantees: everything wrong inside is told, each part at its own place. Must not know: what the parts mean.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::{Value, json};
use toml::Spanned;
use toml::de::DeValue;

use super::diagnostic::printable;
use super::section::article;
use super::setting::{Context, Kind, Problem, Setting};

/// Reads each part; either all of them are right, or all that is wrong comes as one problem.
fn all<T, P>(
    parts: impl Iterator<Item = P>,
    read: impl Fn(P) -> Result<T, Problem>,
) -> Result<Vec<T>, Problem> {
    let (mut values, mut problems) = (Vec::new(), Vec::new());
    for part in parts {
        match read(part) {
            Ok(value) => values.push(value),
            Err(problem) => problems.push(problem),
        }
    }
    let mut problems = problems.into_iter();
    match problems.next() {
        None => Ok(values),
        Some(mut first) => {
            first.more.extend(problems);
            Err(first)
        }
    }
}

/// A problem of a part, told of the whole: `what` names the part, as `an item 2`.
fn within(problem: Problem, what: &str, span: &Range<usize>) -> Problem {
    let told = |problem: Problem| Problem {
        message: format!("has {what} that {}", problem.message),
        part: problem.part.or_else(|| Some(span.clone())),
        ..problem
    };
    let mut problem = problem;
    let more = std::mem::take(&mut problem.more);
    Problem { more: more.into_iter().map(told).collect(), ..told(problem) }
}

fn read_items<T: Setting>(
    items: &[Spanned<DeValue<'_>>],
    context: &Context<'_>,
) -> Result<Vec<T>, Problem> {
    all(items.iter().enumerate(), |(at, item)| {
        T::read(item.get_ref(), context)
            .map_err(|problem| within(problem, &format!("an item {}", at + 1), &item.span()))
    })
}

impl<T: Setting> Setting for Vec<T> {
    fn kind() -> Kind {
        Kind::List(Box::new(T::kind()))
    }

    fn read(value: &DeValue<'_>, context: &Context<'_>) -> Result<Self, Problem> {
        let Some(array) = value.as_array() else {
            let message = format!("must be a list, not {}", article(value));
            return Err(Problem::new(message, "wrong type").help("write it as [\"…\", \"…\"]"));
        };
        read_items(array, context)
    }

    fn shown(&self) -> Value {
        self.iter().map(T::shown).collect()
    }

    fn blank() -> Option<Self> {
        Some(Self::new())
    }
}

/// One value, or a list of them: `"main"` and `["main"]` are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<T: Setting> Setting for OneOrMany<T> {
    fn kind() -> Kind {
        Kind::OneOrMany(Box::new(T::kind()))
    }

    fn read(value: &DeValue<'_>, context: &Context<'_>) -> Result<Self, Problem> {
        match value.as_array() {
            Some(items) => read_items(items, context).map(Self),
            None => T::read(value, context).map(|one| Self(vec![one])),
        }
    }

    fn shown(&self) -> Value {
        match self.0.as_slice() {
            [one] => one.shown(),
            many => many.iter().map(T::shown).collect(),
        }
    }
}

/// What the keys of a free-keyed table name.
pub(crate) trait KeyNoun {
    /// The noun, as `group`.
    const NOUN: &'static str;
}

/// A table whose keys are not fixed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyed<N, T>(pub BTreeMap<String, T>, std::marker::PhantomData<N>);

impl<N, T> Keyed<N, T> {
    /// The table with those entries.
    pub fn new(entries: BTreeMap<String, T>) -> Self {
        Self(entries, std::marker::PhantomData)
    }
}

impl<N: KeyNoun, T: Setting> Setting for Keyed<N, T> {
    fn kind() -> Kind {
        Kind::Table(N::NOUN, Box::new(T::kind()))
    }

    fn read(value: &DeValue<'_>, context: &Context<'_>) -> Result<Self, Problem> {
        let Some(table) = value.as_table() else {
            let message = format!("must be a table, not {}", article(value));
            let help = format!("write a {} before each value, as {{ name = … }}", N::NOUN);
            return Err(Problem::new(message, "not a table").help(help));
        };
        let entries = all(table.iter(), |(key, value)| {
            let name = key.get_ref().as_ref();
            match T::read(value.get_ref(), context) {
                Ok(value) => Ok((name.to_owned(), value)),
                Err(problem) => {
                    let what = format!("a {} `{}`", N::NOUN, printable(name));
                    Err(within(problem, &what, &value.span()))
                }
            }
        })?;
        Ok(Self::new(entries.into_iter().collect()))
    }

    fn shown(&self) -> Value {
        json!(self.0.iter().map(|(key, value)| (key, value.shown())).collect::<BTreeMap<_, _>>())
    }

    fn blank() -> Option<Self> {
        Some(Self::new(BTreeMap::new()))
    }
}
