//! What a session is for, and how a storage writes it down beside the session's bytes.
//!
//! Guarantees: what was written is read back as it was, or not at all.

use nora_domain::{Algorithm, Format, RepositoryKey, RepositoryPath, TenantName, Timestamp};
use serde::{Deserialize, Serialize};

/// What a session is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purpose {
    /// Where its blob will be linked.
    pub repository: RepositoryKey,
    /// What its bytes are hashed with while they come in.
    pub algorithm: Algorithm,
    /// When it was opened.
    pub opened_at: Timestamp,
}

/// The stored form. A storage flattens it into a document of its own, which has a version.
#[derive(Debug, Serialize, Deserialize)]
pub struct PurposeV1 {
    tenant: String,
    format: String,
    path: String,
    algorithm: String,
    opened_at: u64,
}

impl Purpose {
    /// Its stored form.
    pub fn stored(&self) -> PurposeV1 {
        PurposeV1 {
            tenant: self.repository.tenant.as_str().to_owned(),
            format: self.repository.format.name().to_owned(),
            path: self.repository.path.as_str().to_owned(),
            algorithm: self.algorithm.name().to_owned(),
            opened_at: self.opened_at.0,
        }
    }
}

impl PurposeV1 {
    /// What was stored; `None` if this program did not write it.
    pub fn parse(&self) -> Option<Purpose> {
        Some(Purpose {
            repository: RepositoryKey {
                tenant: TenantName::parse(&self.tenant).ok()?,
                format: Format::from_name(&self.format)?,
                path: RepositoryPath::parse(&self.path).ok()?,
            },
            algorithm: Algorithm::from_name(&self.algorithm)?,
            opened_at: Timestamp(self.opened_at),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORED: &str = concat!(
        r#"{"tenant":"default","format":"oci","path":"a/b","algorithm":"sha512","#,
        r#""opened_at":77}"#
    );

    fn parse(text: &str) -> Option<Purpose> {
        serde_json::from_str::<PurposeV1>(text).unwrap().parse()
    }

    #[test]
    fn the_stored_form_is_fixed() {
        let purpose = Purpose {
            repository: RepositoryKey {
                tenant: TenantName::default_tenant(),
                format: Format::Oci,
                path: RepositoryPath::parse("a/b").unwrap(),
            },
            algorithm: Algorithm::Sha512,
            opened_at: Timestamp(77),
        };
        assert_eq!(serde_json::to_string(&purpose.stored()).unwrap(), STORED);
        assert_eq!(parse(STORED), Some(purpose));
    }

    #[test]
    fn a_word_that_means_nothing_makes_the_whole_mean_nothing() {
        for (word, other) in [("default", ""), ("oci", "ico"), ("a/b", ""), ("sha512", "md5")] {
            assert_eq!(parse(&STORED.replace(word, other)), None, "{other}");
        }
    }
}
