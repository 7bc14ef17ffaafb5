//! Looking at images: what there is, what one is made of, how it came to be.

use futures_util::{StreamExt, stream};
use http::StatusCode;
use nora_domain::Digest;
use serde::Serialize;

use super::VerbError;
use crate::client::Client;
use crate::content::Manifest;
use crate::error::ClientError;
use crate::model::{Descriptor, HistoryEntry, ImageConfig, ManifestBody};
use crate::reference::{Reference, Target};

const REQUESTS_AT_ONCE: usize = 8;
const CONFIG_BYTES_MAX: usize = 16 << 20;

/// A tag and what it names; a repository without tags has one row without one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ImageRow {
    /// The repository.
    pub repository: String,
    /// The tag.
    pub tag: Option<String>,
    /// The manifest's digest.
    pub digest: Option<String>,
    /// The manifest's media type.
    pub media_type: Option<String>,
    /// `image`, `index`, or the artifact's own type.
    pub kind: Option<String>,
    /// Bytes of the manifest, its config and its layers; unknown for an index.
    pub size: Option<u64>,
    /// What an index has images for.
    pub platforms: Vec<String>,
}

/// A part of a listing that could not be had; the rest goes on.
#[derive(Debug)]
pub struct Failure {
    /// What could not be read.
    pub what: String,
    /// Why.
    pub error: ClientError,
}

/// Lists every tag of one repository, or of all. Content that vanishes while the listing runs is not a failure.
pub async fn list(
    client: &Client,
    repository: Option<&str>,
    mut sink: impl FnMut(Result<ImageRow, Failure>),
) -> Result<(), VerbError> {
    if let Some(repository) = repository {
        return match list_repository(client, repository, &mut sink).await {
            Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => {
                Err(VerbError::NotFound { reference: repository.to_owned() })
            }
            result => Ok(result?),
        };
    }
    let mut catalog = client.catalog();
    while let Some(page) = catalog.next_page().await? {
        for repository in page {
            match list_repository(client, &repository, &mut sink).await {
                Ok(()) => {}
                Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => {}
                Err(error) => sink(Err(Failure { what: repository, error })),
            }
        }
    }
    Ok(())
}

async fn list_repository(
    client: &Client,
    repository: &str,
    sink: &mut impl FnMut(Result<ImageRow, Failure>),
) -> Result<(), ClientError> {
    let mut tags = client.tags(repository);
    let mut any = false;
    while let Some(page) = tags.next_page().await? {
        any |= !page.is_empty();
        let mut rows = stream::iter(page)
            .map(|tag| async move {
                let manifest = client.manifest(repository, &Target::Tag(tag.clone())).await;
                (tag, manifest)
            })
            .buffered(REQUESTS_AT_ONCE);
        while let Some((tag, manifest)) = rows.next().await {
            match manifest {
                Ok(manifest) => sink(Ok(row(repository, tag, &manifest))),
                Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => {}
                Err(error) => sink(Err(Failure { what: format!("{repository}:{tag}"), error })),
            }
        }
    }
    if !any {
        sink(Ok(ImageRow {
            repository: repository.to_owned(),
            tag: None,
            digest: None,
            media_type: None,
            kind: None,
            size: None,
            platforms: Vec::new(),
        }));
    }
    Ok(())
}

fn row(repository: &str, tag: String, manifest: &Manifest) -> ImageRow {
    let index = is_index(manifest);
    ImageRow {
        repository: repository.to_owned(),
        tag: Some(tag),
        digest: Some(manifest.digest.to_string()),
        media_type: Some(manifest.media_type.clone()),
        kind: Some(kind(manifest)),
        size: (!index).then(|| size(manifest)),
        platforms: platforms(&manifest.body),
    }
}

fn is_index(manifest: &Manifest) -> bool {
    matches!(
        manifest.media_type.as_str(),
        "application/vnd.oci.image.index.v1+json"
            | "application/vnd.docker.distribution.manifest.list.v2+json"
    )
}

fn is_image_config(descriptor: &Descriptor) -> bool {
    matches!(
        descriptor.media_type.as_str(),
        "application/vnd.oci.image.config.v1+json"
            | "application/vnd.docker.container.image.v1+json"
    )
}

/// One word where there is one: the artifact's type, `index`, `image`, else the config's media type.
fn kind(manifest: &Manifest) -> String {
    let body = &manifest.body;
    match (&body.artifact_type, &body.config) {
        (Some(artifact_type), _) if !artifact_type.is_empty() => artifact_type.clone(),
        _ if is_index(manifest) => "index".into(),
        (_, Some(config)) if is_image_config(config) => "image".into(),
        (_, Some(config)) => config.media_type.clone(),
        (_, None) => manifest.media_type.clone(),
    }
}

fn size(manifest: &Manifest) -> u64 {
    let parts = manifest.body.config.iter().chain(&manifest.body.layers);
    parts.fold(manifest.bytes.len() as u64, |sum, part| sum.saturating_add(part.size))
}

fn platforms(body: &ManifestBody) -> Vec<String> {
    let named = body.manifests.iter().filter_map(|descriptor| descriptor.platform.as_ref());
    named.filter(|platform| platform.is_known()).map(ToString::to_string).collect()
}

/// What something is made of.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inspection {
    /// The name it was asked by.
    pub reference: String,
    /// Its digest.
    pub digest: String,
    /// Its media type.
    pub media_type: String,
    /// `image`, `index`, or the artifact's own type.
    pub kind: String,
    /// Bytes of the manifest, its config and its layers; for an index, of the index alone.
    pub size: u64,
    /// How it runs, if it is a container image.
    pub config: Option<ImageConfig>,
    /// Its config's descriptor.
    pub config_descriptor: Option<Descriptor>,
    /// Its layers.
    pub layers: Vec<Descriptor>,
    /// The manifests an index lists.
    pub manifests: Vec<Descriptor>,
    /// What it speaks about.
    pub subject: Option<Descriptor>,
    /// What speaks about it: signatures, attestations and the like.
    pub referrers: Vec<Descriptor>,
    /// Annotations.
    pub annotations: std::collections::BTreeMap<String, String>,
}

/// Reads what a reference names, or its image for a platform.
pub async fn inspect(
    client: &Client,
    reference: &Reference,
    platform: Option<&str>,
) -> Result<Inspection, VerbError> {
    let mut manifest = fetch(client, reference).await?;
    if let Some(platform) = platform
        && is_index(&manifest)
    {
        manifest = image_of(client, reference, manifest, Some(platform)).await?;
    }
    let config = match &manifest.body.config {
        Some(descriptor) if is_image_config(descriptor) => {
            Some(image_config(client, reference, &manifest).await?)
        }
        _ => None,
    };
    let referrers = match client.referrers(&reference.repository, &manifest.digest).await {
        Ok(referrers) => referrers,
        // A registry of before OCI 1.1 has no such list.
        Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    Ok(Inspection {
        reference: reference.to_string(),
        digest: manifest.digest.to_string(),
        kind: kind(&manifest),
        size: size(&manifest),
        config,
        referrers,
        media_type: manifest.media_type,
        config_descriptor: manifest.body.config,
        layers: manifest.body.layers,
        manifests: manifest.body.manifests,
        subject: manifest.body.subject,
        annotations: manifest.body.annotations,
    })
}

/// A step of an image's making, with the layer it made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HistoryRow {
    /// The step.
    #[serde(flatten)]
    pub step: HistoryEntry,
    /// The layer it made, if it made one.
    pub layer: Option<String>,
    /// The layer's size as stored.
    pub size: Option<u64>,
}

/// Reads how an image came to be, oldest step first.
pub async fn history(
    client: &Client,
    reference: &Reference,
    platform: Option<&str>,
) -> Result<Vec<HistoryRow>, VerbError> {
    let mut manifest = fetch(client, reference).await?;
    if is_index(&manifest) {
        manifest = image_of(client, reference, manifest, platform).await?;
    }
    let config = image_config(client, reference, &manifest).await?;
    let mut layers = manifest.body.layers.into_iter();
    let steps = config.history.into_iter().map(|step| {
        let layer = if step.empty_layer { None } else { layers.next() };
        HistoryRow {
            step,
            size: layer.as_ref().map(|layer| layer.size),
            layer: layer.map(|layer| layer.digest),
        }
    });
    Ok(steps.collect())
}

pub(super) async fn fetch(client: &Client, reference: &Reference) -> Result<Manifest, VerbError> {
    match client.manifest(&reference.repository, &reference.target()).await {
        Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => {
            Err(VerbError::NotFound { reference: reference.to_string() })
        }
        result => Ok(result?),
    }
}

/// The index's image for a platform; without one, its only image.
async fn image_of(
    client: &Client,
    reference: &Reference,
    index: Manifest,
    platform: Option<&str>,
) -> Result<Manifest, VerbError> {
    let fits = |descriptor: &&Descriptor| match (platform, &descriptor.platform) {
        (None, _) => true,
        (Some(wanted), Some(has)) => {
            wanted == has.to_string() || wanted == format!("{}/{}", has.os, has.architecture)
        }
        (Some(_), None) => false,
    };
    let mut fitting = index.body.manifests.iter().filter(fits);
    let (Some(first), None) = (fitting.next(), fitting.next()) else {
        return Err(VerbError::ChoosePlatform {
            reference: reference.to_string(),
            platforms: platforms(&index.body),
        });
    };
    let digest = Digest::parse(&first.digest).map_err(|_| VerbError::BadManifest {
        digest: index.digest,
        problem: "references something by a bad digest",
    })?;
    fetch(client, &reference.at(&Target::Digest(digest))).await
}

async fn image_config(
    client: &Client,
    reference: &Reference,
    manifest: &Manifest,
) -> Result<ImageConfig, VerbError> {
    let bad = |problem| VerbError::BadManifest { digest: manifest.digest, problem };
    let Some(descriptor) = manifest.body.config.as_ref().filter(|d| is_image_config(d)) else {
        return Err(VerbError::NotAnImage {
            reference: reference.to_string(),
            media_type: kind(manifest),
        });
    };
    let digest =
        Digest::parse(&descriptor.digest).map_err(|_| bad("names its config by a bad digest"))?;
    let bytes = client.blob(&reference.repository, &digest, CONFIG_BYTES_MAX).await?;
    serde_json::from_slice(&bytes).map_err(|_| bad("has a config that cannot be read"))
}
