//! OCI's grammars for repository names, tags and references. Stricter than the domain's shared rules: what passes here
//! holds no `..`, no upper case, no empty part.

use nora_domain::{Digest, DigestError, Reference, RepositoryPath, TagName};

/// Why a text is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Not a repository name.
    #[error(
        "a repository name is made of parts like [a-z0-9]+((.|_|__|-+)[a-z0-9]+)* joined by '/', 255 bytes at most"
    )]
    Repository,
    /// Not a tag.
    #[error("a tag has 1 to 128 of [A-Za-z0-9_.-] and does not start with '.' or '-'")]
    Tag,
    /// Not a digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

/// Reads a repository name.
pub fn parse_repository(text: &str) -> Result<RepositoryPath, ReferenceError> {
    if !text.split('/').all(is_name_part) {
        return Err(ReferenceError::Repository);
    }
    RepositoryPath::parse(text).map_err(|_| ReferenceError::Repository)
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_name_part(part: &str) -> bool {
    let bytes = part.as_bytes();
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    if !alphanumeric(first) || !alphanumeric(last) {
        return false;
    }
    part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).all(|separator| {
        matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
    })
}

/// Reads a tag.
pub fn parse_tag(text: &str) -> Result<TagName, ReferenceError> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let ok = text.bytes().enumerate().all(|(i, b)| word(b) || (i > 0 && (b == b'.' || b == b'-')));
    if !ok {
        return Err(ReferenceError::Tag);
    }
    TagName::parse(text).map_err(|_| ReferenceError::Tag)
}

/// Reads a tag or a digest: only a digest holds a colon.
pub fn parse_reference(text: &str) -> Result<Reference, ReferenceError> {
    if text.contains(':') {
        Ok(Reference::Digest(Digest::parse(text)?))
    } else {
        Ok(Reference::Tag(parse_tag(text)?))
    }
}

/// The tag under which clients kept referrers before there was an API: `sha256-<hex>`, cut to a tag's length.
pub fn fallback_tag(subject: &Digest) -> Option<TagName> {
    let mut text = format!("{}-{}", subject.algorithm(), subject.hex());
    text.truncate(TagName::BYTES_MAX);
    TagName::parse(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_grammar() {
        for good in
            ["a", "library/nginx", "a.b", "a_b", "a__b", "a---b", "0/1/2", "my-org/app.web_1"]
        {
            assert!(parse_repository(good).is_ok(), "{good}");
        }
        for bad in [
            "", "/", "a/", "/a", "a//b", "A", "a/B", ".a", "a.", "-a", "a-", "a..b", "a___b",
            "a._b", "..", "a/../b", "a b", "a\0", "ä", "a:b", "a@b", "a%2fb",
        ] {
            assert_eq!(parse_repository(bad), Err(ReferenceError::Repository), "{bad}");
        }
        assert!(parse_repository(&"a".repeat(255)).is_ok());
        assert!(parse_repository(&"a".repeat(256)).is_err());
    }

    #[test]
    fn tag_grammar() {
        for good in ["latest", "V1.0", "_x", "1", "a.b-c_d", &"x".repeat(128)] {
            assert!(parse_tag(good).is_ok(), "{good}");
        }
        for bad in ["", ".a", "-a", "a/b", "a:b", "a b", "ä", "a\n", &"x".repeat(129)] {
            assert_eq!(parse_tag(bad), Err(ReferenceError::Tag), "{bad}");
        }
    }

    #[test]
    fn a_colon_makes_a_digest() {
        assert!(matches!(parse_reference("v1"), Ok(Reference::Tag(_))));
        let digest = format!("sha256:{}", "0".repeat(64));
        assert!(matches!(parse_reference(&digest), Ok(Reference::Digest(_))));
        assert!(matches!(parse_reference("sha256:zz"), Err(ReferenceError::Digest(_))));
    }

    #[test]
    fn fallback_tags_fit() {
        let digest = Digest::sha256([0xab; 32]);
        assert_eq!(fallback_tag(&digest).unwrap().as_str(), format!("sha256-{}", "ab".repeat(32)));
        assert_eq!(fallback_tag(&Digest::sha512([1; 64])).unwrap().as_str().len(), 128);
    }
}
