//! One description of a table of `nora.toml`, from which everything else follows.
//!
//! [`section!`] takes a struct with a default and bounds beside each key, and yields the typed struct, the reader with
//! its errors, the JSON Schema, `config show` and the reference page: a key cannot be in one and missing in another.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, nearest, printable};
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
    fn read(reader: &mut Reader<'_, '_, '_>) -> Option<Self>;
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
    pub(crate) fn report(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    fn line(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().iter().take(offset);
        before.filter(|byte| **byte == b'\n').count() + 1
    }
}

/// Reads one table of a document.
pub(crate) struct Reader<'r, 'a, 'd> {
    spec: SectionSpec,
    table: Option<&'r DeTable<'a>>,
    // Where a missing key is reported.
    span: Range<usize>,
    document: &'r mut Document<'d>,
}

/// Reads the table that `S` describes; a table that is not written has all defaults.
pub(crate) fn read_section<'a, S: Section>(
    document: &mut Document<'_>,
    value: Option<&Spanned<DeValue<'a>>>,
) -> Option<S> {
    let spec = S::spec();
    let table = match value.map(|value| (value, value.get_ref())) {
        None => None,
        Some((_, DeValue::Table(table))) => Some(table),
        Some((value, other)) => {
            let message = format!("`{}` must be a table, not {}", spec.path, article(other));
            let help = format!("write [{}] on a line of its own, then its keys", spec.path);
            document.report(Diagnostic::at(message, value.span(), "not a table").help(help));
            return None;
        }
    };
    let span = value.map_or(0..0, Spanned::span);
    let mut reader = Reader { spec, table, span, document };
    let section = S::read(&mut reader);
    reader.report_unknown();
    section
}

impl Reader<'_, '_, '_> {
    /// Reads a key, or takes its default.
    pub(crate) fn key<T: Setting>(&mut self, name: &'static str) -> Option<T> {
        let spec = self.spec.keys.iter().find(|key| key.name == name)?.clone();
        let path = dotted(self.spec.path, name);
        if let Some((flag, text)) = self.document.overlay.get(path.as_str()) {
            let (value, source) = (DeValue::String(text.as_str().into()), Source::Flag(flag));
            return self.accept(&spec, path, &value, source, None);
        }
        if let Some(value) = self.table.and_then(|table| table.get(name)) {
            let source = Source::Line(self.document.line(value.span().start));
            return self.accept(&spec, path, value.get_ref(), source, Some(value.span()));
        }
        match spec.presence {
            Presence::Default(text) => match DeValue::parse(text) {
                Ok(value) => self.accept(&spec, path, value.get_ref(), Source::Default, None),
                // Unreachable: a test reads every default.
                Err(error) => {
                    self.document.report(Diagnostic::new(format!("{path}: {error}")));
                    None
                }
            },
            Presence::Optional => {
                let value = Value::Null;
                self.document.effective.push(Effective {
                    key: path,
                    value,
                    source: Source::Default,
                });
                T::absent()
            }
            Presence::Required => {
                let message = format!("{} has no key `{name}`", bracketed(self.spec.path));
                let diagnostic = Diagnostic::at(message, self.span.clone(), "needs it");
                self.document.report(diagnostic.help(format!("`{name}`: {}", spec.summary())));
                None
            }
        }
    }

    /// Reads a table within this one; `Some(None)` if it is not written.
    pub(crate) fn nested<S: Section>(&mut self, name: &'static str) -> Option<Option<S>> {
        match self.table.and_then(|table| table.get(name)) {
            None => Some(None),
            Some(value) => read_section(self.document, Some(value)).map(Some),
        }
    }

    fn accept<T: Setting>(
        &mut self,
        spec: &KeySpec,
        path: String,
        value: &DeValue<'_>,
        source: Source,
        span: Option<Range<usize>>,
    ) -> Option<T> {
        // Only what the file says is relative to the file.
        let folder = if span.is_some() { self.document.folder.as_path() } else { Path::new("") };
        let context = Context { folder, bounds: spec.bounds };
        let read = T::read(value, &context).and_then(|setting| {
            setting.check_bounds(&context)?;
            Ok(setting)
        });
        match read {
            Ok(setting) => {
                let value = setting.shown();
                self.document.effective.push(Effective { key: path, value, source });
                Some(setting)
            }
            Err(Problem { message, label, help, part }) => {
                let diagnostic = match (span, source) {
                    (Some(span), _) => {
                        Diagnostic::at(format!("`{path}` {message}"), part.unwrap_or(span), label)
                    }
                    (None, Source::Flag(flag)) => Diagnostic::new(format!("{flag} {message}")),
                    (None, _) => Diagnostic::new(format!("the default of `{path}` {message}")),
                };
                self.document.report(diagnostic.maybe_help(help));
                None
            }
        }
    }

    fn report_unknown(&mut self) {
        for (key, _) in self.table.into_iter().flatten() {
            let name = key.get_ref().as_ref();
            let known = |spec: &&KeySpec| spec.name == name;
            let table = |spec: &&SectionSpec| spec.path.rsplit('.').next() == Some(name);
            if self.spec.keys.iter().find(known).is_none()
                && self.spec.tables.iter().find(table).is_none()
            {
                let diagnostic = unknown_key(&self.spec, name, key.span());
                self.document.report(diagnostic);
            }
        }
    }
}

fn unknown_key(section: &SectionSpec, name: &str, span: Range<usize>) -> Diagnostic {
    let path = section.path;
    if let Some(later) = super::later(&dotted(path, name)) {
        return later.diagnostic(span);
    }
    let tables = section.tables.iter().filter_map(|table| table.path.rsplit('.').next());
    let names: Vec<&str> = section.keys.iter().map(|key| key.name).chain(tables).collect();
    let message = format!("unknown key `{}` in {}", printable(name), bracketed(path));
    let diagnostic = Diagnostic::at(message, span, "unknown key");
    if let Some(near) = nearest(name, &names) {
        return diagnostic.help(format!("did you mean `{near}`?"));
    }
    match super::section_with_key(name) {
        Some(other) if !path.is_empty() => {
            diagnostic.help(format!("`{name}` is a key of [{other}]"))
        }
        _ => diagnostic.help(format!("{} has {}", bracketed(path), join(&names))),
    }
}

/// A key's full name; the top of a file has no name.
fn dotted(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn bracketed(path: &str) -> String {
    if path.is_empty() { "this file".to_owned() } else { format!("[{path}]") }
}

/// The names as a sentence lists them.
pub(crate) fn join(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.as_slice() {
        [] => "no keys".into(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

impl KeySpec {
    /// The first sentence of what it is about.
    pub(crate) fn summary(&self) -> &str {
        let about = self.about.trim();
        about.split_once(". ").map_or(about, |(first, _)| first).trim_end_matches('.')
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

/// Describes a table: see the module's words.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $name:ident in $path:literal {
            $(
                $(#[doc = $key_about:literal])+
                $key:ident : $type:ty = $presence:tt $(, $min:literal ..= $max:literal)?;
            )*
        }
        $(
            tables {
                $( $(#[doc = $table_about:literal])+ $table:ident : $table_type:ty; )+
            }
        )?
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $( $(#[doc = $key_about])+ pub $key: $type, )*
            $( $( $(#[doc = $table_about])+ pub $table: Option<$table_type>, )+ )?
        }

        impl $crate::config::section::Section for $name {
            fn spec() -> $crate::config::section::SectionSpec {
                $crate::config::section::SectionSpec {
                    path: $path,
                    about: concat!($($about),+),
                    keys: vec![$(
                        $crate::config::section::KeySpec {
                            name: stringify!($key),
                            about: concat!($($key_about),+),
                            presence: $crate::config::section::section!(@presence $presence),
                            kind: <$type as $crate::config::setting::Setting>::kind(),
                            bounds: $crate::config::section::section!(@bounds $($min, $max)?),
                        }
                    ),*],
                    tables: vec![$( $(
                        <$table_type as $crate::config::section::Section>::spec()
                    ),+ )?],
                }
            }

            fn read(reader: &mut $crate::config::section::Reader<'_, '_, '_>) -> Option<Self> {
                // Every key is read before any is asked for: all errors come at once.
                $( let $key = reader.key::<$type>(stringify!($key)); )*
                $( $( let $table = reader.nested::<$table_type>(stringify!($table)); )+ )?
                Some(Self { $( $key: $key?, )* $( $( $table: $table?, )+ )? })
            }
        }
    };
    (@presence none) => { $crate::config::section::Presence::Optional };
    (@presence required) => { $crate::config::section::Presence::Required };
    (@presence $default:literal) => { $crate::config::section::Presence::Default($default) };
    (@bounds) => { None };
    (@bounds $min:literal, $max:literal) => { Some(($min, $max)) };
}
pub(crate) use section;
