//! Manifests: what a registry must understand of a document that it otherwise keeps byte for byte.
//!
//! Guarantees: the media type of the body and the one it was sent with agree (CVE-2021-41190), a document that could
//! be read as an index and as an image is refused, and every reference is a digest that NORA can verify.
//!
//! Must not know: whether what is referenced exists.

use std::collections::BTreeMap;

use nora_domain::{Digest, MediaType};
use serde::Deserialize;

use super::annotations::Annotations;

/// OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI artifact manifest, which was specified for a while before 1.1.
pub const OCI_ARTIFACT: &str = "application/vnd.oci.artifact.manifest.v1+json";
/// Docker image manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

const DOCKER_SCHEMA1: [&str; 2] = [
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];

/// Layers that a registry need not hold, because their licence forbids to distribute them.
const NON_DISTRIBUTABLE: [&str; 5] = [
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
];

/// Why a document is no manifest that can be stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON, or not of the shape.
    #[error("the manifest cannot be read: {0}")]
    Malformed(String),
    /// Neither the request nor the document says what it is.
    #[error(
        "the request has no usable Content-Type and the manifest no mediaType; send one of them"
    )]
    NoMediaType,
    /// The request and the document disagree.
    #[error("the manifest's mediaType is {body}, but it was sent as {sent}; send both alike")]
    MediaTypeMismatch {
        /// What the Content-Type said.
        sent: String,
        /// What the document says.
        body: String,
    },
    /// A type that a browser might show as a page. The registry serves manifests with the type that they came with.
    #[error("a manifest's media type begins with application/, and {0:?} does not")]
    NoApplication(String),
    /// Docker schema 1.
    #[error(
        "Docker schema 1 manifests are not supported; push with a client of this decade, which sends schema 2 or OCI"
    )]
    Schema1,
    /// The document could be read as two kinds of manifest.
    #[error("the manifest has both {0} and {1}, which no kind of manifest has")]
    Ambiguous(&'static str, &'static str),
    /// What its media type calls for is not there.
    #[error("a manifest of type {media_type} must have {field}")]
    MissingField {
        /// Its media type.
        media_type: String,
        /// What is missing.
        field: &'static str,
    },
    /// A descriptor's digest is none.
    #[error("{place} has a bad digest {digest:?}: {reason}")]
    BadDigest {
        /// Where, as `layers[2]`.
        place: String,
        /// The text.
        digest: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// What a registry knows of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Its media type.
    pub media_type: MediaType,
    /// What it speaks about.
    pub subject: Option<Digest>,
    /// Its artifact type: as it says, or its config's media type.
    pub artifact_type: Option<MediaType>,
    /// Its annotations; none if they take more than [`ANNOTATIONS_BYTES_MAX`](super::annotations::ANNOTATIONS_BYTES_MAX).
    pub annotations: BTreeMap<String, String>,
    /// Blobs that must be there.
    pub blobs: Vec<Digest>,
    /// Blobs that need not be there.
    pub optional_blobs: Vec<Digest>,
    /// Manifests that it lists.
    pub children: Vec<Digest>,
    /// What an index lists under a media type that no manifest has: manifests or blobs, as build caches do.
    pub either: Vec<Digest>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: Option<i64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    blobs: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    annotations: Option<Annotations>,
    #[serde(rename = "fsLayers")]
    fs_layers: Option<serde::de::IgnoredAny>,
}

/// A reference to bytes, as manifests write it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    #[allow(
        dead_code,
        reason = "parsed so that a descriptor without a size, or with a negative one, is refused"
    )]
    size: u64,
    #[serde(default)]
    urls: Option<Vec<String>>,
}

impl Descriptor {
    fn digest(&self, place: impl FnOnce() -> String) -> Result<Digest, ManifestError> {
        Digest::parse(&self.digest).map_err(|error| ManifestError::BadDigest {
            place: place(),
            digest: self.digest.clone(),
            reason: error.to_string(),
        })
    }

    fn need_not_be_stored(&self) -> bool {
        NON_DISTRIBUTABLE.contains(&self.media_type.as_str())
            || self.urls.as_ref().is_some_and(|urls| !urls.is_empty())
    }
}

/// Whether a media type names a manifest of any kind NORA knows.
pub fn is_manifest_type(media_type: &str) -> bool {
    [OCI_MANIFEST, OCI_INDEX, OCI_ARTIFACT, DOCKER_MANIFEST, DOCKER_LIST].contains(&media_type)
}

/// Reads a manifest sent with `content_type` (parameters are ignored).
pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Manifest, ManifestError> {
    let sent = content_type
        .map(|value| value.split(';').next().unwrap_or(value).trim())
        .filter(|value| !value.is_empty());
    let document: Document = serde_json::from_slice(bytes)
        .map_err(|error| ManifestError::Malformed(error.to_string()))?;
    let media_type = media_type(&document, sent)?;
    check_shape(&document, media_type.as_str())?;

    let mut manifest = Manifest {
        subject: match &document.subject {
            Some(subject) => Some(subject.digest(|| "subject".to_owned())?),
            None => None,
        },
        artifact_type: artifact_type(&document),
        media_type,
        annotations: document.annotations.unwrap_or_default().0,
        blobs: Vec::new(),
        optional_blobs: Vec::new(),
        children: Vec::new(),
        either: Vec::new(),
    };
    if let Some(config) = &document.config {
        manifest.blobs.push(config.digest(|| "config".to_owned())?);
    }
    for (field, list) in [("layers", &document.layers), ("blobs", &document.blobs)] {
        for (i, descriptor) in list.iter().flatten().enumerate() {
            let digest = descriptor.digest(|| format!("{field}[{i}]"))?;
            if descriptor.need_not_be_stored() {
                manifest.optional_blobs.push(digest);
            } else {
                manifest.blobs.push(digest);
            }
        }
    }
    for (i, descriptor) in document.manifests.iter().flatten().enumerate() {
        let digest = descriptor.digest(|| format!("manifests[{i}]"))?;
        if is_manifest_type(&descriptor.media_type) {
            manifest.children.push(digest);
        } else {
            manifest.either.push(digest);
        }
    }
    Ok(manifest)
}

fn media_type(document: &Document, sent: Option<&str>) -> Result<MediaType, ManifestError> {
    let body = document.media_type.as_deref().filter(|value| !value.is_empty());
    if let (Some(sent), Some(body)) = (sent, body)
        && sent != body
    {
        return Err(ManifestError::MediaTypeMismatch { sent: sent.into(), body: body.into() });
    }
    let text = sent.or(body).ok_or(ManifestError::NoMediaType)?;
    let is_application =
        text.split_once('/').is_some_and(|(kind, _)| kind.eq_ignore_ascii_case("application"));
    if !is_application {
        return Err(ManifestError::NoApplication(text.into()));
    }
    MediaType::parse(text).map_err(|_| ManifestError::NoMediaType)
}

/// Holds the document against its media type, and against being two things at once.
fn check_shape(document: &Document, media_type: &str) -> Result<(), ManifestError> {
    if DOCKER_SCHEMA1.contains(&media_type)
        || document.fs_layers.is_some()
        || document.schema_version == Some(1)
    {
        return Err(ManifestError::Schema1);
    }
    for (field, here) in [
        ("layers", document.layers.is_some()),
        ("config", document.config.is_some()),
        ("blobs", document.blobs.is_some()),
    ] {
        if here && document.manifests.is_some() {
            return Err(ManifestError::Ambiguous(field, "manifests"));
        }
    }
    let needs = |here: bool, field: &'static str| {
        if here {
            Ok(())
        } else {
            Err(ManifestError::MissingField { media_type: media_type.to_owned(), field })
        }
    };
    match media_type {
        OCI_MANIFEST | DOCKER_MANIFEST => {
            needs(document.schema_version == Some(2), "\"schemaVersion\": 2")?;
            needs(document.config.is_some(), "a config")?;
            needs(document.layers.is_some(), "layers")
        }
        OCI_INDEX | DOCKER_LIST => {
            needs(document.schema_version == Some(2), "\"schemaVersion\": 2")?;
            needs(document.manifests.is_some(), "manifests")
        }
        _ => Ok(()),
    }
}

/// What kind of artifact it is: its own word, or its config's media type.
fn artifact_type(document: &Document) -> Option<MediaType> {
    let own = document.artifact_type.as_deref().filter(|value| !value.is_empty());
    let config = || document.config.as_ref().map(|config| config.media_type.as_str());
    own.or_else(config).and_then(|text| MediaType::parse(text).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hex(fill: &str) -> String {
        format!("sha256:{}", fill.repeat(64))
    }

    fn image(extra: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,{extra}"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":2}},
            "layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{}","size":3}}]}}"#,
            hex("a"),
            hex("b")
        )
    }

    #[test]
    fn an_image_names_its_config_and_layers() {
        let manifest = parse(
            image("").as_bytes(),
            Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8"),
        );
        let manifest = manifest.unwrap();
        assert_eq!(manifest.media_type.as_str(), OCI_MANIFEST);
        assert_eq!(manifest.blobs.len(), 2);
        assert_eq!(
            manifest.artifact_type.unwrap().as_str(),
            "application/vnd.oci.image.config.v1+json"
        );
    }

    #[test]
    fn an_index_sorts_manifests_from_what_may_be_blobs() {
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","artifactType":"application/x","manifests":[
            {{"mediaType":"{OCI_MANIFEST}","digest":"{}","size":2}},
            {{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"{}","size":2}}]}}"#,
            hex("a"),
            hex("b")
        );
        let manifest = parse(text.as_bytes(), None).unwrap();
        assert_eq!(manifest.children, [Digest::parse(&hex("a")).unwrap()]);
        assert_eq!(manifest.either, [Digest::parse(&hex("b")).unwrap()]);
        assert_eq!(manifest.artifact_type.unwrap().as_str(), "application/x");
    }

    #[test]
    fn non_distributable_layers_are_optional() {
        let text = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"c","digest":"{}","size":2}},"layers":[
            {{"mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar","digest":"{}","size":3}},
            {{"mediaType":"x","digest":"{}","size":3,"urls":["https://example.com/l"]}}]}}"#,
            hex("a"),
            hex("b"),
            hex("c")
        );
        let manifest = parse(text.as_bytes(), Some(OCI_MANIFEST)).unwrap();
        assert_eq!((manifest.blobs.len(), manifest.optional_blobs.len()), (1, 2));
    }

    #[test]
    fn what_is_refused() {
        let check = |text: &str, sent: Option<&str>, want: fn(&ManifestError) -> bool| {
            let error = parse(text.as_bytes(), sent).unwrap_err();
            assert!(want(&error), "{text}: {error:?}");
        };
        check("{", Some(OCI_MANIFEST), |e| matches!(e, ManifestError::Malformed(_)));
        check("[]", Some(OCI_MANIFEST), |e| matches!(e, ManifestError::Malformed(_)));
        check(&image(""), None, |e| matches!(e, ManifestError::NoMediaType));
        check(&image(&format!(r#""mediaType":"{OCI_INDEX}","#)), Some(OCI_MANIFEST), |e| {
            matches!(e, ManifestError::MediaTypeMismatch { .. })
        });
        check(&image(r#""manifests":[],"#), Some(OCI_MANIFEST), |e| {
            matches!(e, ManifestError::Ambiguous(..))
        });
        check(r#"{"schemaVersion":1,"fsLayers":[]}"#, Some(DOCKER_MANIFEST), |e| {
            matches!(e, ManifestError::Schema1)
        });
        check(&image(""), Some(DOCKER_SCHEMA1[1]), |e| matches!(e, ManifestError::Schema1));
        check(r#"{"schemaVersion":2}"#, Some(OCI_INDEX), |e| {
            matches!(e, ManifestError::MissingField { .. })
        });
        check(
            &image("").replace(&hex("b"), "sha256:xyz"),
            Some(OCI_MANIFEST),
            |e| matches!(e, ManifestError::BadDigest { place, .. } if place == "layers[0]"),
        );
        check(&image("").replace("\"size\":3", "\"size\":-3"), Some(OCI_MANIFEST), |e| {
            matches!(e, ManifestError::Malformed(_))
        });
        check(&image(r#""config":null,"#), Some(OCI_MANIFEST), |e| {
            matches!(e, ManifestError::Malformed(_))
        });
    }

    #[test]
    fn a_type_that_a_browser_shows_is_refused() {
        for sent in ["text/html", "image/svg+xml", "TEXT/HTML", "application", "html"] {
            let refused = parse(b"{}", Some(sent));
            let error = ManifestError::NoApplication(sent.into());
            assert_eq!(refused.unwrap_err(), error, "{sent}");
            let body = format!(r#"{{"mediaType":"{sent}"}}"#);
            assert_eq!(parse(body.as_bytes(), None).unwrap_err(), error, "{sent}");
        }
        assert!(parse(b"{}", Some("Application/vnd.example+json")).is_ok());
    }

    #[test]
    fn other_media_types_are_taken_as_they_are() {
        let manifest =
            parse(br#"{"anything":true}"#, Some("application/vnd.example+json")).unwrap();
        assert_eq!(manifest.media_type.as_str(), "application/vnd.example+json");
        assert!(manifest.blobs.is_empty());
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400), sent in ".{0,40}") {
            let _ = parse(&bytes, Some(&sent));
        }

        #[test]
        fn no_nesting_panics(depth in 0usize..5000) {
            let text = format!("{}{}", r#"{"config":"#.repeat(depth), "}".repeat(depth));
            let _ = parse(text.as_bytes(), Some(OCI_MANIFEST));
        }
    }
}
