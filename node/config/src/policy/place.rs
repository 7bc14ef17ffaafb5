//! Where in the file a place of the policy's document is: `auth.rules[2].permissions[0]` has a line and a column.
//!
//! Guarantees: the innermost part of the place that the file has. Must not know: what stands there.

use std::borrow::Cow;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Where the file writes something otherwise than the document.
const WRITTEN: [(&str, &str); 3] = [
    ("immutable", "policy.immutable"),
    ("auth.oidc.token_seconds", "auth.oidc.token_lifetime"),
    ("audit.retention_seconds", "audit.retention"),
];

/// A place of the document in the words of the file.
pub(super) fn written(place: &str) -> Cow<'_, str> {
    let found = WRITTEN.iter().find(|(document, _)| contains(document, place));
    match found {
        Some((document, file)) => format!("{file}{}", &place[document.len()..]).into(),
        None => place.into(),
    }
}

/// Whether a place is another one, or within it.
pub(super) fn contains(outer: &str, place: &str) -> bool {
    let rest = place.strip_prefix(outer);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// The bytes of the innermost value that a place leads to.
pub(super) fn span_of(root: &DeTable<'_>, place: &str) -> Option<Range<usize>> {
    let (value, rest) = entry(root, place)?;
    Some(within(value, rest))
}

fn within(value: &Spanned<DeValue<'_>>, place: &str) -> Range<usize> {
    let inner = match value.get_ref() {
        DeValue::Table(table) => place.strip_prefix('.').and_then(|place| entry(table, place)),
        DeValue::Array(items) => place.strip_prefix('[').and_then(|place| {
            let (position, rest) = place.split_once(']')?;
            Some((items.get(position.parse::<usize>().ok()?)?, rest))
        }),
        _ => None,
    };
    inner.map_or_else(|| value.span(), |(value, rest)| within(value, rest))
}

/// The entry that a place begins with, and what of the place is left. A claim's name may have dots: the longest wins.
fn entry<'t, 'v, 'p>(
    table: &'t DeTable<'v>,
    place: &'p str,
) -> Option<(&'t Spanned<DeValue<'v>>, &'p str)> {
    let candidates = table.iter().filter(|(key, _)| contains(key.get_ref(), place));
    let (key, value) = candidates.max_by_key(|(key, _)| key.get_ref().len())?;
    Some((value, &place[key.get_ref().len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_however_deep_the_file_goes() {
        let text = "[[policy.immutable]]\nmatch = \"a\"\n[auth.oidc]\ntoken_lifetime = \"2m\"\n\
                    [audit]\nretention = \"1d\"\n[x]\na = { \"b.c\" = [7, 8], b = 9 }\n";
        let (root, _) = DeTable::parse_recoverable(text);
        let found = |place: &str| span_of(root.get_ref(), &written(place)).map(|span| &text[span]);
        assert_eq!(found("immutable[0].match"), Some("\"a\""));
        assert_eq!(found("policy.immutable[0].match"), Some("\"a\""));
        assert_eq!(found("auth.oidc.token_seconds"), Some("\"2m\""));
        assert_eq!(found("audit.retention_seconds"), Some("\"1d\""));
        assert_eq!(found("x.a.b.c[1]"), Some("8"));
        assert_eq!(found("x.a.b"), Some("9"));
        // What the file does not have is where it would be.
        assert_eq!(found("x.a.b.c[2].d"), Some("[7, 8]"));
        assert_eq!(found("audit.retention[0]"), Some("\"1d\""));
        assert_eq!(found("nothing"), None);
    }
}
