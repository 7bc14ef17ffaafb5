//! One description of a table of `nora.toml`, from which everything else follows.
//!
//! [`section!`] takes a struct with a default and bounds beside each key, and yields the typed struct, the reader with
//! its errors, the JSON Schema, `config show` and the reference page: a key cannot be in one and missing in another.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, nearest};
use super::setting::{Context, Kind, Problem, Setting};

/// What a key is when nobody writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// It has this value, in TOML.
    Default(&'static str),
    /// It is absent, and that means something.
    Optional,
    /// It must be written.
    Required,
}

/// A key's description.
#[derive(Clone, Debug)]
pub(crate) struct KeySpec {
    pub name: &'static str,
    pub about: &'static str,
    pub presence: Presence,
    pub kind: Kind,
    /// Smallest and largest value, as they would be written.
    pub bounds: Option<(&'static str, &'static str)>,
}

/// A table's description.
#[derive(Clone, Debug)]
pub(crate) struct SectionSpec {
    /// Its path, as `server.tls`.
    pub path: &'static str,
    pub about: &'static str,
    pub keys: Vec<KeySpec>,
    pub tables: Vec<SectionSpec>,
}

/// A table of `nora.toml`.
pub(crate) trait Section: Sized {
    /// Describes it.
    fn spec() -> SectionSpec;
    /// Reads it; `None` if the document has an error in it, which the reader then holds.
    fn read(reader: &mut Reader<'_>) -> Option<Self>;
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody wrote it.
    Default,
    /// A line of the configuration file.
    Line(usize),
    /// A flag of the command line.
    Flag(&'static str),
}

/// A value in effect.
#[derive(Clone, Debug, PartialEq)]
pub struct Effective {
    /// Its key, as `server.listen`.
    pub key: String,
    /// The value as it would be written; `null` where there is none.
    pub value: Value,
    /// Where it comes from.
    pub source: Source,
}

/// Values that the command line puts over the file's, by key: the flag and its text.
pub(crate) type Overlay = BTreeMap<&'static str, (&'static str, String)>;

/// A document while it is read: what was found wrong, and what is in effect.
pub(crate) struct Document<'a> {
    pub text: &'a str,
    /// The folder that relative paths in the file are relative to.
    pub folder: PathBuf,
    pub overlay: &'a Overlay,
    pub diagnostics: Vec<Diagnostic>,
    pub effective: Vec<Effective>,
}

impl Document<'_> {
    fn line(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().iter().take(offset);
        before.filter(|byte| **byte == b'\n').count() + 1
    }
}

/// Reads one table of a document.
pub(crate) struct Reader<'a> {
    spec: SectionSpec,
    table: Option<&'a DeTable<'a>>,
    // Where errors about the table as a whole point.
    span: Option<std::ops::Range<usize>>,
    document: &'a mut Document<'a>,
}

impl<'a> Reader<'a> {
    /// Reads the table of that description out of its parent's value; a table that is not written has all defaults.
    pub(crate) fn section<S: Section>(
        document: &mut Document<'a>,
        value: Option<&'a Spanned<DeValue<'a>>>,
    ) -> Option<S> {
        let spec = S::spec();
        let table = match value.map(|value| (value, value.get_ref())) {
            None => None,
            Some((_, DeValue::Table(table))) => Some(table),
            Some((value, other)) => {
                let message = format!("`{}` must be a table, not {}", spec.path, article(other));
                let help = format!("write [{}] on a line of its own, then its keys", spec.path);
                document.diagnostics.push(
                    Diagnostic::at(message, value.span()).label("not a table").help(help),
                );
                return None;
            }
        };
        let span = value.map(Spanned::span);
        let mut reader = Reader { spec, table, span, document: reborrow(document) };
        let section = S::read(&mut reader);
        reader.report_unknown();
        section
    }
}

/// A value's type with its article, for messages.
pub(crate) fn article(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
