//! How a storage writes down what a session is for, beside the session's bytes.
//!
//! Guarantees: what was written is read back as it was, or not at all.

use nora_app::ports::uploads::Purpose;
use nora_domain::{Algorithm, Format, RepositoryKey, RepositoryPath, TenantName, Timestamp};
use serde::{Deserialize, Serialize};

/// The stored form. A storage flattens it into a document of its own, which has a version.
#[derive(Debug, Serialize, Deserialize)]
pub struct PurposeV1 {
    tenant: String,
    format: String,
    path: String,
    algorithm: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    opener: Option<String>,
    opened_at: u64,
}

impl PurposeV1 {
    /// The stored form of a purpose.
    pub fn of(purpose: &Purpose) -> Self {
        let Purpose { repository, algorithm, opener, opened_at } = purpose;
        Self {
            tenant: repository.tenant.as_str().to_owned(),
            format: repository.format.name().to_owned(),
            path: repository.path.as_str().to_owned(),
            algorithm: algorithm.name().to_owned(),
            opener: opener.clone(),
            opened_at: opened_at.0,
        }
    }

    /// What was stored; `None` if this program did not write it.
    pub fn parse(&self) -> Option<Purpose> {
        Some(Purpose {
            repository: RepositoryKey {
                tenant: TenantName::parse(&self.tenant).ok()?,
                format: Format::from_name(&self.format)?,
                path: RepositoryPath::parse(&self.path).ok()?,
            },
            algorithm: Algorithm::from_name(&self.algorithm)?,
            opener: self.opener.clone(),
            opened_at: Timestamp(self.opened_at),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORED: &str = concat!(
        r#"{"tenant":"default","format":"oci","path":"a/b","algorithm":"sha512","#,
        r#""opener":"alice","opened_at":77}"#
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
            opener: Some("alice".to_owned()),
            opened_at: Timestamp(77),
        };
        assert_eq!(serde_json::to_string(&PurposeV1::of(&purpose)).unwrap(), STORED);
        let by_the_cluster = Purpose { opener: None, ..purpose.clone() };
        assert_eq!(parse(&STORED.replace(r#""opener":"alice","#, "")), Some(by_the_cluster));
        assert_eq!(parse(STORED), Some(purpose));
    }

    #[test]
    fn a_word_that_means_nothing_makes_the_whole_mean_nothing() {
        for (word, other) in [("default", ""), ("oci", "ico"), ("a/b", ""), ("sha512", "md5")] {
            assert_eq!(parse(&STORED.replace(word, other)), None, "{other}");
        }
    }
}
