//! Patterns for names: `frontend/*`, `npm:@acme/*`, `maven:com.acme`.
//!
//! Guarantees: `*` never crosses a segment; a pattern that ends in the segment `*` covers everything below what is
//! before it at any depth, and nothing beside that (`my-org/*` is not `my-org-evil/x`, and not `my-org`). Most patterns
//! are a name or a prefix, and those are compared as text; globset compiles the rest. Must not know: actions, subjects.
//!
//! Maven names are `group:artifact`. `.` and `:` separate segments there, but an artifact's name stays one segment that
//! no group can be mistaken for: `com.acme.app` covers `com.acme.app:lib`, never `com.acme:app` or `com.acme:app.lib`.

use std::borrow::Cow;
use std::fmt;

use globset::{Glob, GlobBuilder};
use nora_domain::Format;

use super::{PermissionError, nearest};

/// Every format, in the order in which messages list them.
pub const FORMATS: [Format; 5] =
    [Format::Oci, Format::Npm, Format::Pypi, Format::Maven, Format::Cargo];

/// The format of that name.
pub fn format_named(name: &str) -> Option<Format> {
    FORMATS.into_iter().find(|format| format.name() == name)
}

/// Which names of which format: the part of a permission behind the action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// The format, or all of them.
    format: Option<Format>,
    /// As it was written, without the format.
    glob: Box<str>,
    form: Form,
}

/// How a pattern is compared, in the segments of [`segments`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Every name.
    Everything,
    /// This name.
    Exact(Box<str>),
    /// Whatever is below this name, at any depth.
    Below(Box<str>),
    /// What this matches.
    Glob(Box<Glob>),
}

impl Pattern {
    /// The most bytes of a pattern: what a name may have.
    pub const BYTES_MAX: usize = 255;

    /// Reads `[format:]glob`.
    pub fn parse(text: &str) -> Result<Self, PermissionError> {
        if text == "*" {
            return Ok(Self { format: None, glob: text.into(), form: Form::Everything });
        }
        let (format, glob) = match text.split_once(':') {
            None => (Format::Oci, text),
            Some((name, glob)) => match format_named(name) {
                Some(format) => (format, glob),
                None => return Err(unknown_format(name)),
            },
        };
        check(format, glob)?;
        let form = form(format, glob)?;
        Ok(Self { format: Some(format), glob: glob.into(), form })
    }

    /// Its format; none is all of them.
    pub fn format(&self) -> Option<Format> {
        self.format
    }

    /// Whether it is the bare `*`: everything of every format.
    pub fn is_everything(&self) -> bool {
        self.format.is_none()
    }

    pub(crate) fn form(&self) -> &Form {
        &self.form
    }

    /// What every name begins with that it covers, of this format; `None` if it covers no such name. It may be empty.
    pub(crate) fn start(&self, format: Format) -> Option<String> {
        if self.format.is_some_and(|own| own != format) {
            return None;
        }
        Some(match &self.form {
            // Maven's segments are written otherwise in patterns than in names.
            _ if format == Format::Maven => String::new(),
            Form::Everything => String::new(),
            Form::Exact(name) => name.to_string(),
            Form::Below(prefix) => format!("{prefix}/"),
            Form::Glob(_) => {
                let special = |c| matches!(c, '*' | '?' | '[' | ']' | '{' | '}' | '\\');
                self.glob.split(special).next().unwrap_or_default().to_owned()
            }
        })
    }

    /// Whether it covers that name. A glob is compiled for the one answer: sets are for whoever asks often.
    pub fn covers(&self, format: Format, path: &str) -> bool {
        if self.format.is_some_and(|own| own != format) {
            return false;
        }
        let path = segments(format, path);
        match &self.form {
            Form::Everything => true,
            Form::Exact(name) => **name == *path,
            Form::Below(prefix) => {
                path.strip_prefix(&**prefix).is_some_and(|rest| rest.starts_with('/'))
            }
            Form::Glob(glob) => glob.compile_matcher().is_match(&*path),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.format {
            // A glob without a format is OCI's; only everything of OCI must be told from everything there is.
            Some(format) if format != Format::Oci || &*self.glob == "*" => {
                write!(f, "{format}:{}", self.glob)
            }
            _ => f.write_str(&self.glob),
        }
    }
}

/// A name with `/` between what inheritance counts as its segments.
pub(crate) fn segments(format: Format, path: &str) -> Cow<'_, str> {
    match (format, path.split_once(':')) {
        (Format::Maven, Some((group, artifact))) => {
            Cow::Owned(format!("{}/:{artifact}", group.replace('.', "/")))
        }
        (Format::Maven, None) => Cow::Owned(path.replace('.', "/")),
        _ => Cow::Borrowed(path),
    }
}

fn unknown_format(name: &str) -> PermissionError {
    let names = FORMATS.map(Format::name);
    PermissionError::UnknownFormat {
        found: name.escape_default().take(40).collect(),
        nearest: nearest(name, &names).unwrap_or(names[0]),
    }
}

fn check(format: Format, glob: &str) -> Result<(), PermissionError> {
    let refuse = |reason| Err(PermissionError::NeverMatches { reason });
    if glob.is_empty() {
        return Err(PermissionError::NoGlob);
    }
    if glob.len() > Pattern::BYTES_MAX {
        return Err(PermissionError::TooLong);
    }
    if glob.chars().any(char::is_control) {
        return refuse("it holds a control character");
    }
    if !glob.chars().all(|c| c.is_ascii_graphic()) || glob.contains('\\') {
        return refuse("names hold neither spaces, backslashes nor letters outside ASCII");
    }
    if glob.contains("..") {
        return refuse("no name holds `..`");
    }
    if glob.contains("***") {
        return refuse("`***` is no wildcard: `*` is within a segment, `**` crosses segments");
    }
    if glob.starts_with('/') || glob.ends_with('/') || glob.contains("//") {
        return refuse("a segment is empty: write it without the extra `/`");
    }
    match format {
        Format::Oci if glob.contains(|c: char| c.is_ascii_uppercase()) => {
            refuse("OCI names are lower case: write it in lower case")
        }
        Format::Oci if glob.contains(':') => {
            refuse("OCI repository names hold no `:`, and tags are not part of a permission")
        }
        Format::Maven if glob.contains('/') => {
            refuse("Maven names are written `group:artifact`, as com.acme.app:lib")
        }
        Format::Maven => maven_shape(glob),
        _ => Ok(()),
    }
}

/// Groups and artifacts are told apart by the one `:`; it must not stand where a glob has alternatives.
fn maven_shape(glob: &str) -> Result<(), PermissionError> {
    let refuse = |reason| Err(PermissionError::NeverMatches { reason });
    let mut depth = 0usize;
    let mut colons = 0;
    for c in glob.chars() {
        match c {
            '{' | '[' => depth += 1,
            '}' | ']' => depth = depth.saturating_sub(1),
            ':' if depth > 0 => {
                return refuse("a `:` is inside brackets: write one permission for each group");
            }
            ':' => colons += 1,
            _ => {}
        }
    }
    if colons > 1 {
        return refuse("Maven names have one `:`, as com.acme.app:lib");
    }
    if glob.starts_with(['.', ':']) || glob.ends_with(['.', ':']) || glob.contains(".:") {
        return refuse("a segment is empty: write it without the extra `.` or `:`");
    }
    Ok(())
}

fn form(format: Format, glob: &str) -> Result<Form, PermissionError> {
    let mut text = segments(format, glob).into_owned();
    if format == Format::Maven && !glob.contains(':') && !text.ends_with("/*") && text != "*" {
        // A group is not a name by itself: it stands for what is in it and below it.
        if text != "**" && !text.ends_with("/**") {
            text.push_str("/**");
        }
    }
    if text == "*" || text == "**" {
        return Ok(Form::Everything);
    }
    if text.ends_with("/*") {
        text.push('*');
    }
    if is_literal(&text) {
        return Ok(Form::Exact(text.into()));
    }
    if let Some(prefix) = text.strip_suffix("/**")
        && is_literal(prefix)
    {
        return Ok(Form::Below(prefix.into()));
    }
    compile(&text).map(|glob| Form::Glob(Box::new(glob)))
}

pub(crate) fn is_literal(text: &str) -> bool {
    !text.contains(['*', '?', '[', ']', '{', '}'])
}

/// A glob in which nothing but `**` crosses a `/`.
pub(crate) fn compile(text: &str) -> Result<Glob, PermissionError> {
    GlobBuilder::new(text)
        .literal_separator(true)
        .backslash_escape(false)
        .build()
        .map_err(|error| PermissionError::Glob { reason: error.kind().to_string() })
}
