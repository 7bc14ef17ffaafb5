//! Documents that are derived from the metadata when they are asked for: tag lists, the catalog, referrers.

use std::collections::BTreeMap;

use nora_domain::{Digest, MediaType, RepositoryPath, TagName};
use serde::{Deserialize, Serialize};

use super::manifest::OCI_INDEX;

#[derive(Serialize)]
struct TagList<'a> {
    name: &'a str,
    tags: Vec<&'a str>,
}

#[derive(Serialize)]
struct Catalog<'a> {
    repositories: Vec<&'a str>,
}

/// A row of a referrers list. Rows taken from a client's fallback index keep fields that NORA does not know.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReferrerDescriptor {
    /// The artifact's media type.
    pub media_type: String,
    /// Its digest.
    pub digest: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its artifact type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Its annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Anything else that a fallback index said.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

impl ReferrerDescriptor {
    /// The row of an artifact.
    pub fn new(
        digest: &Digest,
        media_type: &MediaType,
        size: u64,
        artifact_type: Option<&MediaType>,
        annotations: BTreeMap<String, String>,
    ) -> Self {
        Self {
            media_type: media_type.to_string(),
            digest: digest.to_string(),
            size,
            artifact_type: artifact_type.map(ToString::to_string),
            annotations,
            other: BTreeMap::new(),
        }
    }

    /// About how many bytes the row takes in a list.
    pub fn weight(&self) -> usize {
        const FIELDS: usize = 128;
        // What a client's index says of a platform, say: a little, and never more than the index's own bytes.
        let other = 64 * self.other.len();
        let annotations = self.annotations.iter().map(|(key, value)| key.len() + value.len() + 6);
        let artifact_type = self.artifact_type.as_ref().map_or(0, String::len);
        let named = self.media_type.len() + self.digest.len() + artifact_type;
        FIELDS + named + other + annotations.sum::<usize>()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReferrersIndex<'a> {
    schema_version: u8,
    media_type: &'static str,
    manifests: &'a [ReferrerDescriptor],
}

#[derive(Deserialize)]
struct FallbackIndex {
    manifests: Vec<ReferrerDescriptor>,
}

fn json(value: &impl Serialize) -> Vec<u8> {
    // Maps with string keys and strings always serialise.
    serde_json::to_vec(value).unwrap_or_default()
}

/// The body of `GET /v2/<name>/tags/list`.
pub fn tag_list(name: &RepositoryPath, tags: &[TagName]) -> Vec<u8> {
    json(&TagList { name: name.as_str(), tags: tags.iter().map(TagName::as_str).collect() })
}

/// The body of `GET /v2/_catalog`.
pub fn catalog(repositories: &[RepositoryPath]) -> Vec<u8> {
    json(&Catalog { repositories: repositories.iter().map(RepositoryPath::as_str).collect() })
}

/// The body of `GET /v2/<name>/referrers/<digest>`.
pub fn referrers(manifests: &[ReferrerDescriptor]) -> Vec<u8> {
    json(&ReferrersIndex { schema_version: 2, media_type: OCI_INDEX, manifests })
}

/// The rows of an index that a client kept under a fallback tag; none if it cannot be read as one.
pub fn fallback_rows(index: &[u8]) -> Vec<ReferrerDescriptor> {
    serde_json::from_slice::<FallbackIndex>(index).map(|index| index.manifests).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_have_the_specified_shape() {
        let name = RepositoryPath::parse("a/b").unwrap();
        let tags = [TagName::parse("v1").unwrap()];
        assert_eq!(tag_list(&name, &tags), br#"{"name":"a/b","tags":["v1"]}"#);
        assert_eq!(catalog(&[name]), br#"{"repositories":["a/b"]}"#);
        assert_eq!(
            referrers(&[]),
            br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#
        );
    }

    #[test]
    fn fallback_rows_keep_what_they_say() {
        let index = br#"{"manifests":[{"mediaType":"m","digest":"d","size":1,"artifactType":"t","platform":{"os":"linux"}}]}"#;
        let rows = fallback_rows(index);
        assert_eq!(rows[0].other["platform"]["os"], "linux");
        assert!(fallback_rows(b"{").is_empty());
    }
}
