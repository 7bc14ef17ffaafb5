//! Errors in a configuration file, told as a compiler tells them: all at once, with file, line, column, the line
//! itself, a mark under the place, and what to do.

use std::fmt;
use std::ops::Range;

/// Longer lines are shown in part.
const SHOWN_CHARS_MAX: usize = 120;
const CONTEXT_CHARS: usize = 40;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    message: String,
    place: Option<(Range<usize>, &'static str)>,
    help: Option<String>,
}

impl Diagnostic {
    /// Something wrong that lies in no place of the file.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), place: None, help: None }
    }

    /// Something wrong at those bytes of the file, with a word to put under them.
    pub(crate) fn at(message: impl Into<String>, span: Range<usize>, label: &'static str) -> Self {
        Self { message: message.into(), place: Some((span, label)), help: None }
    }

    pub(crate) fn help(self, help: impl Into<String>) -> Self {
        self.maybe_help(Some(help.into()))
    }

    pub(crate) fn maybe_help(mut self, help: Option<String>) -> Self {
        self.help = help;
        self
    }

    pub(crate) fn start(&self) -> Option<usize> {
        self.place.as_ref().map(|(span, _)| span.start)
    }

    /// What is wrong, in a sentence without its place.
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// Everything wrong with a configuration, and the file it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    file: String,
    text: String,
    list: Vec<Diagnostic>,
}

impl ConfigErrors {
    pub(crate) fn new(file: String, text: String, mut list: Vec<Diagnostic>) -> Self {
        list.sort_by_key(Diagnostic::start);
        list.dedup();
        Self { file, text, list }
    }

    /// Each error, in the file's order.
    pub fn list(&self) -> &[Diagnostic] {
        &self.list
    }

    fn show(&self, diagnostic: &Diagnostic, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", diagnostic.message)?;
        let mut gutter = 1;
        if let Some((span, label)) = &diagnostic.place {
            let place = Place::find(&self.text, span);
            gutter = place.line.to_string().len();
            let (line, column) = (place.line, place.column);
            writeln!(f, "{:gutter$}--> {}:{line}:{column}", "", printable(&self.file))?;
            writeln!(f, "{:gutter$} |", "")?;
            writeln!(f, "{line} | {}", place.shown)?;
            let marks = "^".repeat(place.marked);
            writeln!(f, "{:gutter$} | {:indent$}{marks} {label}", "", "", indent = place.indent)?;
        }
        if let Some(help) = &diagnostic.help {
            writeln!(f, "{:gutter$} = help: {help}", "")?;
        }
        Ok(())
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in &self.list {
            self.show(diagnostic, f)?;
            writeln!(f)?;
        }
        match self.list.len() {
            1 => write!(f, "1 error in {}", printable(&self.file)),
            n => write!(f, "{n} errors in {}", printable(&self.file)),
        }
    }
}

impl std::error::Error for ConfigErrors {}

/// Where a span lies, and its first line as it is shown.
struct Place {
    line: usize,
    column: usize,
    shown: String,
    indent: usize,
    marked: usize,
}

impl Place {
    fn find(text: &str, span: &Range<usize>) -> Self {
        let start = floor(text, span.start);
        let end = floor(text, span.end).max(start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let line = text[..start].matches('\n').count() + 1;
        let before = text[line_start..start].chars().count();
        let inside = text[start..end.min(line_end)].chars().count();
        let content = concealed(text[line_start..line_end].trim_end_matches('\r'));

        let skipped = if content.chars().count() > SHOWN_CHARS_MAX {
            before.saturating_sub(CONTEXT_CHARS)
        } else {
            0
        };
        let (lead, lead_width) = if skipped > 0 { ("…", 1) } else { ("", 0) };
        let window = content.chars().skip(skipped).take(SHOWN_CHARS_MAX);
        let shown: String = window.map(|c| if c.is_control() { ' ' } else { c }).collect();
        let room = SHOWN_CHARS_MAX.saturating_sub(before - skipped).max(1);
        Self {
            line,
            column: before + 1,
            shown: format!("{lead}{shown}").trim_end().to_owned(),
            indent: lead_width + before - skipped,
            marked: inside.clamp(1, room),
        }
    }
}

/// What a key's name ends in whose value is a secret, and what a value begins with that is one.
const SECRET_KEYS: [&str; 8] =
    ["password", "passwd", "secret", "token", "secret_key", "access_key", "api_key", "private_key"];
const SECRET_VALUES: [&str; 10] = [
    "$2a$",
    "$2b$",
    "$2y$",
    "$apr1$",
    "$argon2",
    "$5$",
    "$6$",
    "nora_pat_",
    "nora_wl_",
    "nora_st_",
];

/// A line with secrets starred out, each character by one: an error is read in logs and tickets as well, and a secret
/// that was written where none belongs is the error more often than not.
pub(crate) fn concealed(line: &str) -> String {
    let mut hidden: Vec<Range<usize>> = Vec::new();
    for (at, _) in line.match_indices('=') {
        let quotes = ['"', '\'', ' ', '\t'];
        let key = line[..at].trim_end_matches(quotes).to_ascii_lowercase();
        let value = line[at + 1..].trim_start();
        let named =
            ["{file", "{env"].iter().any(|kept| value.replace([' ', '\t'], "").starts_with(kept));
        // An htpasswd key names a file.
        let secret =
            SECRET_KEYS.iter().any(|name| key.ends_with(name)) && !key.ends_with("htpasswd");
        if secret && !named {
            hidden.push(line.len() - value.len()..line.len());
        }
    }
    for start in SECRET_VALUES.iter().flat_map(|value| line.match_indices(value)) {
        let end = line[start.0..]
            .find(['"', '\'', '`', ' ', ','])
            .map_or(line.len(), |end| start.0 + end);
        hidden.push(start.0..end);
    }
    // The user and password of a URL.
    for (at, scheme) in line.match_indices("://") {
        let start = at + scheme.len();
        let end = line[start..].find(['/', '"', '\'', '`']).map_or(line.len(), |end| start + end);
        if let Some(users) = line[start..end].rfind('@') {
            hidden.push(start..start + users);
        }
    }
    let star = |(at, c)| if hidden.iter().any(|range| range.contains(&at)) { '*' } else { c };
    line.char_indices().map(star).collect()
}

/// The character boundary at or before a byte.
fn floor(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// A text of the file without anything that could act on a terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The name that a mistyped one probably means, if one is near enough.
pub(crate) fn nearest<'n>(name: &str, names: &[&'n str]) -> Option<&'n str> {
    // A third of the letters may be wrong, one always.
    let distance_max = (name.chars().count() / 3).max(1);
    let distances = names.iter().map(|known| (strsim::damerau_levenshtein(name, known), *known));
    let prefixed = names.iter().find(|known| name.len() > 3 && known.starts_with(name)).copied();
    let near = distances.filter(|(distance, _)| *distance <= distance_max).min();
    near.map(|(_, known)| known).or(prefixed)
}
