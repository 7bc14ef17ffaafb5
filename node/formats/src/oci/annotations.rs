//! The annotations of a manifest, as far as lists show them.
//!
//! Guarantees: each annotation is looked at, and one that is no text is refused; what is kept is bounded, whatever a document
//! of megabytes holds.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

/// The most bytes of keys and values that are kept of a manifest. A manifest with more is listed without annotations; it has
/// them itself.
pub const ANNOTATIONS_BYTES_MAX: usize = 64 << 10;

/// Annotations as bytes that a registry may keep beside a large manifest; empty if there are none.
pub fn keep(annotations: &BTreeMap<String, String>) -> Vec<u8> {
    if annotations.is_empty() {
        return Vec::new();
    }
    // A map of texts always serialises.
    serde_json::to_vec(annotations).unwrap_or_default()
}

/// What [`keep`] wrote; none where nothing was kept.
pub fn kept(bytes: &[u8]) -> BTreeMap<String, String> {
    serde_json::from_slice(bytes).unwrap_or_default()
}

/// Annotations by their keys; none if they take more than [`ANNOTATIONS_BYTES_MAX`].
#[derive(Debug, Default)]
pub(super) struct Annotations(pub(super) BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(OfMap)
    }
}

struct OfMap;

impl<'de> Visitor<'de> for OfMap {
    type Value = Annotations;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of texts")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Annotations, M::Error> {
        let (mut kept, mut bytes) = (BTreeMap::new(), 0);
        while let Some((key, value)) = map.next_entry::<String, String>()? {
            bytes += key.len() + value.len();
            if bytes > ANNOTATIONS_BYTES_MAX {
                while map.next_entry::<Text, Text>()?.is_some() {}
                return Ok(Annotations::default());
            }
            kept.insert(key, value);
        }
        Ok(Annotations(kept))
    }
}

/// A text that is looked at and not kept.
struct Text;

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(OfText)
    }
}

struct OfText;

impl Visitor<'_> for OfText {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Text, E> {
        Ok(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<BTreeMap<String, String>, serde_json::Error> {
        serde_json::from_str::<Annotations>(text).map(|annotations| annotations.0)
    }

    #[test]
    fn few_are_kept_and_many_are_not() {
        let few = parse(r#"{"a": "1", "b\n": "ü\""}"#).unwrap();
        let expected = [("a", "1"), ("b\n", "ü\"")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(few, BTreeMap::from(expected));
        let of = |count: usize| {
            let all: BTreeMap<_, _> =
                (0..count).map(|at| (format!("{at:07}"), "nine text")).collect();
            serde_json::to_string(&all).unwrap()
        };
        let most = ANNOTATIONS_BYTES_MAX / 16;
        assert_eq!(parse(&of(most)).unwrap().len(), most);
        assert_eq!(parse(&of(most + 1)).unwrap().len(), 0);
    }

    #[test]
    fn what_is_kept_is_read_again() {
        let some = parse(r#"{"a": "1", "b\n": "\u00fc\""}"#).unwrap();
        assert_eq!(kept(&keep(&some)), some);
        assert!(keep(&BTreeMap::new()).is_empty());
        assert!(kept(b"").is_empty());
    }

    #[test]
    fn one_that_is_no_text_is_refused_wherever_it_stands() {
        let padding = "x".repeat(ANNOTATIONS_BYTES_MAX);
        for padding in ["", &padding] {
            for wrong in ["1", "null", "[]", "{}", "true", r#""\ud800""#] {
                let text = format!(r#"{{"padding": "{padding}", "wrong": {wrong}}}"#);
                assert!(parse(&text).is_err(), "{wrong} behind {} bytes", padding.len());
            }
            assert!(parse(&format!(r#"{{"padding": "{padding}", "right": "\u00fc\n"}}"#)).is_ok());
        }
        assert!(parse("[]").is_err());
    }
}
