//! One description of a table of `nora.toml`, from which everything else follows.
//!
//! [`section!`] takes a struct with a default and bounds beside each key, and yields the typed struct, the reader with
//! its errors, the JSON Schema, `config show` and the reference page: a key cannot be in one and missing in another.

use std::collections::BTreeMap;
use std::iter;
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
    /// Whether there is a list of such tables: `[[auth.rules]]`.
    pub repeated: bool,
}

impl SectionSpec {
    /// It, as an item of a list.
    pub(crate) fn repeated(self) -> Self {
        Self { repeated: true, ..self }
    }

    /// Its name within the table around it.
    pub(crate) fn name(&self) -> &'static str {
        self.path.rsplit('.').next().unwrap_or(self.path)
    }

    /// Its path as a file writes it: `[server.tls]`, `[[auth.rules]]`.
    pub(crate) fn header(&self) -> String {
        match (self.path, self.repeated) {
            ("", _) => "this file".to_owned(),
            (path, false) => format!("[{path}]"),
            (path, true) => format!("[[{path}]]"),
        }
    }
}

/// A table of `nora.toml`.
pub(crate) trait Section: Sized {
    /// Describes it.
    fn spec() -> SectionSpec;
    /// Reads it; `None` if the document has an error in it, which the reader then holds.
    fn read(reader: &mut Reader<'_, '_, '_>) -> Option<Self>;
    /// Every value in it, by its path below `place`, in the order of a file.
    fn entries(&self, place: &str, entries: &mut Vec<(String, Value)>);
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
    /// What is to be known besides.
    pub note: Option<String>,
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
    /// Whether the text is not TOML, so that what could be parsed of it is not all that was meant.
    pub torn: bool,
    /// Keys and tables that could not be read, as `auth.rules[2].deny`.
    pub broken: Vec<String>,
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

/// What becomes of a table that has an error in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnError {
    /// It is not read: what depends on it is not judged.
    GiveUp,
    /// Its other keys are kept, so that they can still be judged. The document is refused all the same.
    Salvage,
}

/// Reads one table of a document.
pub(crate) struct Reader<'r, 'a, 'd> {
    spec: SectionSpec,
    // Its path with the positions in lists: `auth.rules[2]`.
    place: String,
    on_error: OnError,
    table: Option<&'r DeTable<'a>>,
    // Where a missing key is reported.
    span: Range<usize>,
    document: &'r mut Document<'d>,
}

/// Reads the table that `S` describes; a table that is not written has all defaults.
pub(crate) fn read_section<'a, S: Section>(
    document: &mut Document<'_>,
    value: Option<&Spanned<DeValue<'a>>>,
    on_error: OnError,
) -> Option<S> {
    let spec = S::spec();
    let place = spec.path.to_owned();
    read_table(document, value, spec, place, on_error)
}

/// Reads the list of tables at the top of a document that `S` describes.
pub(crate) fn read_sections<S: Section>(
    document: &mut Document<'_>,
    value: Option<&Spanned<DeValue<'_>>>,
    on_error: OnError,
) -> Option<Vec<S>> {
    let place = S::spec().path.to_owned();
    read_list(document, value, place, on_error)
}

fn read_table<'a, S: Section>(
    document: &mut Document<'_>,
    value: Option<&Spanned<DeValue<'a>>>,
    spec: SectionSpec,
    place: String,
    on_error: OnError,
) -> Option<S> {
    let table = match value.map(|value| (value, value.get_ref())) {
        None => None,
        Some((_, DeValue::Table(table))) => Some(table),
        Some((value, other)) => {
            let message = format!("`{place}` must be a table, not {}", article(other));
            let help = format!("write {} on a line of its own, then its keys", spec.header());
            document.report(Diagnostic::at(message, value.span(), "not a table").help(help));
            document.broken.push(place);
            return None;
        }
    };
    let span = value.map_or(0..0, Spanned::span);
    let mut reader = Reader { spec, place, on_error, table, span, document };
    let section = S::read(&mut reader);
    reader.report_unknown();
    section
}

fn read_list<S: Section>(
    document: &mut Document<'_>,
    value: Option<&Spanned<DeValue<'_>>>,
    place: String,
    on_error: OnError,
) -> Option<Vec<S>> {
    let Some(value) = value else {
        return Some(Vec::new());
    };
    let spec = S::spec().repeated();
    let Some(items) = value.get_ref().as_array() else {
        let other = article(value.get_ref());
        let message = format!("`{place}` must be a list of tables, not {other}");
        let help = format!("write {} before the keys of each", spec.header());
        document.report(Diagnostic::at(message, value.span(), "not a list").help(help));
        document.broken.push(place);
        return (on_error == OnError::Salvage).then(Vec::new);
    };
    let mut read = Vec::new();
    for (at, item) in items.iter().enumerate() {
        let place = format!("{place}[{at}]");
        read.push(read_table(document, Some(item), spec.clone(), place, on_error));
    }
    match on_error {
        OnError::GiveUp => read.into_iter().collect(),
        // Positions name items, so nothing may move up: what follows an item that is no table is left out.
        OnError::Salvage => Some(read.into_iter().map_while(|item| item).collect()),
    }
}

impl Reader<'_, '_, '_> {
    /// Reads a key, or takes its default.
    pub(crate) fn key<T: Setting>(&mut self, name: &'static str) -> Option<T> {
        let spec = self.spec.keys.iter().find(|key| key.name == name)?.clone();
        let path = dotted(&self.place, name);
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
                    note: None,
                });
                T::absent()
            }
            Presence::Required => {
                let message = format!("{} has no key `{name}`", self.spec.header());
                let diagnostic = Diagnostic::at(message, self.span.clone(), "needs it");
                self.document.report(diagnostic.help(format!("`{name}`: {}", spec.summary())));
                self.instead(&spec, path)
            }
        }
    }

    /// Reads a table within this one; `Some(None)` if it is not written.
    pub(crate) fn nested<S: Section>(&mut self, name: &'static str) -> Option<Option<S>> {
        let Some(value) = self.table.and_then(|table| table.get(name)) else {
            return Some(None);
        };
        let place = dotted(&self.place, name);
        match read_table(self.document, Some(value), S::spec(), place, self.on_error) {
            None if self.on_error == OnError::Salvage => Some(None),
            read => read.map(Some),
        }
    }

    /// Reads a list of tables within this one.
    pub(crate) fn list<S: Section>(&mut self, name: &'static str) -> Option<Vec<S>> {
        let value = self.table.and_then(|table| table.get(name));
        read_list(self.document, value, dotted(&self.place, name), self.on_error)
    }

    /// What stands for a value that cannot be read.
    fn instead<T: Setting>(&mut self, spec: &KeySpec, path: String) -> Option<T> {
        self.document.broken.push(path);
        if self.on_error == OnError::GiveUp {
            return None;
        }
        match spec.presence {
            Presence::Default(text) => {
                let context = Context { folder: Path::new(""), bounds: None };
                T::read(DeValue::parse(text).ok()?.get_ref(), &context).ok()
            }
            Presence::Optional => T::absent(),
            Presence::Required => T::blank(),
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
                self.document.effective.push(Effective { key: path, value, source, note: None });
                Some(setting)
            }
            Err(mut problem) => {
                let more = std::mem::take(&mut problem.more);
                for Problem { message, label, help, part, .. } in iter::once(problem).chain(more) {
                    let diagnostic = match (&span, &source) {
                        (Some(span), _) => {
                            let part = part.unwrap_or_else(|| span.clone());
                            Diagnostic::at(format!("`{path}` {message}"), part, label)
                        }
                        (None, Source::Flag(flag)) => Diagnostic::new(format!("{flag} {message}")),
                        (None, _) => Diagnostic::new(format!("the default of `{path}` {message}")),
                    };
                    self.document.report(diagnostic.maybe_help(help));
                }
                self.instead(spec, path)
            }
        }
    }

    fn report_unknown(&mut self) {
        for (key, _) in self.table.into_iter().flatten() {
            let name = key.get_ref().as_ref();
            let known = |spec: &&KeySpec| spec.name == name;
            let table = |spec: &&SectionSpec| spec.name() == name;
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
    let tables = section.tables.iter().map(SectionSpec::name);
    let names: Vec<&str> = section.keys.iter().map(|key| key.name).chain(tables).collect();
    let header = section.header();
    let message = format!("unknown key `{}` in {header}", printable(name));
    let diagnostic = Diagnostic::at(message, span, "unknown key");
    if let Some(near) = nearest(name, &names) {
        return diagnostic.help(format!("did you mean `{near}`?"));
    }
    match super::section_with_key(name) {
        Some(other) if !path.is_empty() => {
            diagnostic.help(format!("`{}` is a key of {other}", printable(name)))
        }
        _ => diagnostic.help(format!("{header} has {}", join(&names))),
    }
}

/// A key's full name; the top of a file has no name.
pub(crate) fn dotted(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
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
                $key:ident $(as $written:literal)? : $type:ty = $presence:tt $(, $min:literal ..= $max:literal)?;
            )*
        }
        $(
            tables {
                $( $(#[doc = $table_about:literal])+ $table:ident : $table_type:ty; )+
            }
        )?
        $(
            lists {
                $( $(#[doc = $list_about:literal])+ $list:ident : $item_type:ty; )+
            }
        )?
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $( $(#[doc = $key_about])+ pub $key: $type, )*
            $( $( $(#[doc = $table_about])+ pub $table: Option<$table_type>, )+ )?
            $( $( $(#[doc = $list_about])+ pub $list: Vec<$item_type>, )+ )?
        }

        impl $crate::section::Section for $name {
            fn spec() -> $crate::section::SectionSpec {
                $crate::section::SectionSpec {
                    path: $path,
                    about: concat!($($about),+),
                    keys: vec![$(
                        $crate::section::KeySpec {
                            name: $crate::section::section!(@name $key $($written)?),
                            about: concat!($($key_about),+),
                            presence: $crate::section::section!(@presence $presence),
                            kind: <$type as $crate::setting::Setting>::kind(),
                            bounds: $crate::section::section!(@bounds $($min, $max)?),
                        }
                    ),*],
                    tables: vec![
                        $( $( <$table_type as $crate::section::Section>::spec(), )+ )?
                        $( $(
                            <$item_type as $crate::section::Section>::spec().repeated(),
                        )+ )?
                    ],
                    repeated: false,
                }
            }

            fn read(reader: &mut $crate::section::Reader<'_, '_, '_>) -> Option<Self> {
                // Every key is read before any is asked for: all errors come at once.
                $(
                    let $key = reader
                        .key::<$type>($crate::section::section!(@name $key $($written)?));
                )*
                $( $( let $table = reader.nested::<$table_type>(stringify!($table)); )+ )?
                $( $( let $list = reader.list::<$item_type>(stringify!($list)); )+ )?
                Some(Self {
                    $( $key: $key?, )*
                    $( $( $table: $table?, )+ )?
                    $( $( $list: $list?, )+ )?
                })
            }

            fn entries(&self, place: &str, entries: &mut Vec<(String, serde_json::Value)>) {
                $(
                    let name = $crate::section::section!(@name $key $($written)?);
                    let shown = <$type as $crate::setting::Setting>::shown(&self.$key);
                    entries.push(($crate::section::dotted(place, name), shown));
                )*
                $( $(
                    if let Some(table) = &self.$table {
                        let place = $crate::section::dotted(place, stringify!($table));
                        $crate::section::Section::entries(table, &place, entries);
                    }
                )+ )?
                $( $(
                    for (at, item) in self.$list.iter().enumerate() {
                        let name = format!("{}[{at}]", stringify!($list));
                        let place = $crate::section::dotted(place, &name);
                        $crate::section::Section::entries(item, &place, entries);
                    }
                )+ )?
            }
        }
    };
    (@name $key:ident) => { stringify!($key) };
    (@name $key:ident $written:literal) => { $written };
    (@presence none) => { $crate::section::Presence::Optional };
    (@presence required) => { $crate::section::Presence::Required };
    (@presence $default:literal) => { $crate::section::Presence::Default($default) };
    (@bounds) => { None };
    (@bounds $min:literal, $max:literal) => { Some(($min, $max)) };
}
pub(crate) use section;
