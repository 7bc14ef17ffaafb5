//! Naming content: `tag SRC DST` stores the same manifest bytes under another tag.
//!
//! Into another repository, everything the manifest needs goes first: blobs are mounted, listed manifests are stored,
//! and the manifest comes last, so that what is visible is always whole. Nothing is downloaded but manifests.

use std::collections::BTreeSet;

use futures_util::{StreamExt, TryStreamExt, stream};
use nora_domain::Digest;
use serde::Serialize;

use super::VerbError;
use super::images::fetch;
use crate::client::Client;
use crate::content::Manifest;
use crate::model::Descriptor;
use crate::reference::{Reference, Target};

const MOUNTS_AT_ONCE: usize = 8;
/// An index may list indexes; a deeper nest than this is a mistake or an attack.
const DEPTH_MAX: usize = 8;

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tagged {
    /// The new name.
    pub reference: String,
    /// What it names.
    pub digest: String,
    /// Blobs made visible in the repository for it.
    pub blobs_mounted: usize,
    /// Manifests stored in the repository for it, itself included.
    pub manifests_stored: usize,
}

struct Copy<'a> {
    client: &'a Client,
    from: &'a str,
    to: &'a str,
    blobs: BTreeSet<Digest>,
    manifests: BTreeSet<Digest>,
}

/// Gives what `source` names the name `destination`.
pub async fn run(
    client: &Client,
    source: &Reference,
    destination: &Reference,
) -> Result<Tagged, VerbError> {
    if destination.digest.is_some() {
        let reference = destination.to_string();
        return Err(VerbError::BadTarget { reference, rule: "the new name must be a tag" });
    }
    let manifest = fetch(client, source).await?;
    let mut copy = Copy {
        client,
        from: &source.repository,
        to: &destination.repository,
        blobs: BTreeSet::new(),
        manifests: BTreeSet::new(),
    };
    if copy.from != copy.to {
        copy.bring_needs(&manifest, 0).await?;
    }
    let target = destination.target();
    client.put_manifest(&destination.repository, &target, &manifest).await?;
    copy.manifests.insert(manifest.digest);
    Ok(Tagged {
        reference: destination.at(&target).to_string(),
        digest: manifest.digest.to_string(),
        blobs_mounted: copy.blobs.len(),
        manifests_stored: copy.manifests.len(),
    })
}

impl Copy<'_> {
    /// Makes everything that the manifest references present in the destination.
    async fn bring_needs(&mut self, manifest: &Manifest, depth: usize) -> Result<(), VerbError> {
        let bad = |problem| VerbError::BadManifest { digest: manifest.digest, problem };
        if depth >= DEPTH_MAX {
            return Err(bad("lies too deep in indexes of indexes"));
        }
        let digest_of = |descriptor: &Descriptor| {
            Digest::parse(&descriptor.digest)
                .map_err(|_| bad("references something by a bad digest"))
        };
        let body = &manifest.body;
        let mut blobs = Vec::new();
        for descriptor in body.config.iter().chain(&body.layers) {
            let digest = digest_of(descriptor)?;
            if self.blobs.insert(digest) {
                blobs.push((digest, !descriptor.urls.is_empty()));
            }
        }
        let skipped: Vec<Digest> = stream::iter(blobs)
            .map(|(digest, elsewhere)| self.mount(digest, elsewhere))
            .buffer_unordered(MOUNTS_AT_ONCE)
            .try_filter_map(async |skipped| Ok(skipped))
            .try_collect()
            .await?;
        for digest in skipped {
            self.blobs.remove(&digest);
        }
        for descriptor in &body.manifests {
            let digest = digest_of(descriptor)?;
            if !self.manifests.insert(digest) {
                continue;
            }
            let target = Target::Digest(digest);
            let child = self.client.manifest(self.from, &target).await?;
            Box::pin(self.bring_needs(&child, depth + 1)).await?;
            self.client.put_manifest(self.to, &target, &child).await?;
        }
        Ok(())
    }

    /// Mounts a blob. One that may be had elsewhere need not be in the registry: if it is not, its digest comes back.
    async fn mount(&self, digest: Digest, elsewhere: bool) -> Result<Option<Digest>, VerbError> {
        if elsewhere && !self.client.blob_exists(self.from, &digest).await? {
            return Ok(Some(digest));
        }
        if self.client.mount_blob(self.to, self.from, &digest).await? {
            return Ok(None);
        }
        Err(VerbError::NotMounted { digest, from: self.from.to_owned() })
    }
}
