//! The bytes that are pushed: large blobs, small layers, configurations and manifests, each with a
//! digest of its own.
//!
//! All large blobs share one random buffer and differ in their last bytes, so that the buffer is
//! hashed once, outside of whatever is timed. Random bytes do not compress, and whole-blob
//! deduplication finds nothing.

use std::fs::File;
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{During, Result};
use aws_lc_rs::digest::{Context, SHA256, digest};

/// The media type of the manifests.
pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const TAIL_BYTES: usize = 32;
const LAYER_BYTES: usize = 4 << 10;

/// Makes content that was never made before, in this run or another.
pub struct Source {
    bulk: Vec<u8>,
    hashed: Context,
    run: [u8; 16],
    made: AtomicU64,
}

/// The end of a large blob; its beginning is the source's buffer.
pub struct LargeBlob {
    /// `sha256:…`
    pub digest: String,
    tail: [u8; TAIL_BYTES],
}

/// A small image: everything that is pushed for it.
pub struct Image {
    /// The configuration and its digest.
    pub config: (Vec<u8>, String),
    /// The layer and its digest.
    pub layer: (Vec<u8>, String),
    /// The manifest that names both.
    pub manifest: Vec<u8>,
    /// A tag that no other image of this run has.
    pub tag: String,
}

impl Source {
    /// A source of large blobs of this many bytes.
    pub fn new(blob_bytes: usize) -> Result<Self> {
        let bytes = blob_bytes.saturating_sub(TAIL_BYTES).max(LAYER_BYTES);
        let mut bulk = vec![0; bytes];
        let mut run = [0; 16];
        let step = || "read /dev/urandom".to_owned();
        let mut random = File::open("/dev/urandom").during(step)?;
        random.read_exact(&mut bulk).during(step)?;
        random.read_exact(&mut run).during(step)?;
        let mut hashed = Context::new(&SHA256);
        hashed.update(&bulk);
        Ok(Self { bulk, hashed, run, made: AtomicU64::new(0) })
    }

    /// A new large blob.
    pub fn large_blob(&self) -> LargeBlob {
        let mut tail = [0; TAIL_BYTES];
        tail[..16].copy_from_slice(&self.run);
        tail[16..24].copy_from_slice(&self.number().to_be_bytes());
        let mut hashed = self.hashed.clone();
        hashed.update(&tail);
        LargeBlob { digest: named(hashed.finish().as_ref()), tail }
    }

    /// The bytes of a large blob, in two parts.
    pub fn parts<'a>(&'a self, blob: &'a LargeBlob) -> [&'a [u8]; 2] {
        [&self.bulk, &blob.tail]
    }

    /// A new small image.
    pub fn image(&self) -> Image {
        let number = self.number();
        let mut layer = self.bulk[..LAYER_BYTES].to_vec();
        layer[..16].copy_from_slice(&self.run);
        layer[16..24].copy_from_slice(&number.to_be_bytes());
        let layer_digest = sha256(&layer);
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{"Cmd":["/bin/true"]}},"rootfs":{{"type":"layers","diff_ids":["{layer_digest}"]}}}}"#
        )
        .into_bytes();
        let config_digest = sha256(&config);
        let manifest = manifest(&config_digest, config.len(), &layer_digest, layer.len(), number);
        let config = (config, config_digest);
        Image { config, layer: (layer, layer_digest), manifest, tag: format!("t{number}") }
    }

    /// A new small image over the configuration of another: its layer alone has to be pushed.
    pub fn image_over(&self, other: &Image) -> Image {
        let fresh = self.image();
        let (config, layer) = (other.config.clone(), fresh.layer);
        let manifest = manifest(&config.1, config.0.len(), &layer.1, layer.0.len(), 0);
        Image { config, layer, manifest, tag: fresh.tag }
    }

    fn number(&self) -> u64 {
        self.made.fetch_add(1, Ordering::Relaxed)
    }
}

impl Image {
    /// Another manifest over the same configuration and layer.
    pub fn variant(&self, number: u64) -> Vec<u8> {
        let (config, layer) = (&self.config, &self.layer);
        manifest(&config.1, config.0.len(), &layer.1, layer.0.len(), number)
    }
}

/// The digest of `bytes`, as `sha256:…`.
pub fn sha256(bytes: &[u8]) -> String {
    named(digest(&SHA256, bytes).as_ref())
}

fn named(hash: &[u8]) -> String {
    let mut name = "sha256:".to_owned();
    name.extend(hash.iter().map(|byte| format!("{byte:02x}")));
    name
}

fn manifest(
    config: &str,
    config_bytes: usize,
    layer: &str,
    layer_bytes: usize,
    number: u64,
) -> Vec<u8> {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_TYPE}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":{config_bytes}}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{layer}","size":{layer_bytes}}}],"annotations":{{"bench.number":"{number}"}}}}"#
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_of_the_bytes_that_are_sent() {
        let source = Source::new(100_000).unwrap();
        let (one, other) = (source.large_blob(), source.large_blob());
        assert_ne!(one.digest, other.digest);
        assert_eq!(source.parts(&one).concat().len(), 100_000);
        assert_eq!(one.digest, sha256(&source.parts(&one).concat()));
        assert_eq!(
            sha256(b"abc"),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn a_manifest_names_its_image_and_differs_from_all_others() {
        let source = Source::new(1 << 20).unwrap();
        let (one, other) = (source.image(), source.image());
        assert_ne!(one.layer.1, other.layer.1);
        assert_ne!(one.config.1, other.config.1);
        assert_ne!(one.tag, other.tag);
        assert_ne!(one.variant(7), one.variant(8));
        let read: serde_json::Value = serde_json::from_slice(&one.manifest).unwrap();
        assert_eq!(read["layers"][0]["digest"], sha256(&one.layer.0));
        assert_eq!(read["layers"][0]["size"], one.layer.0.len());
        assert_eq!(read["config"]["digest"], sha256(&one.config.0));
        assert_eq!(read["config"]["size"], one.config.0.len());
        let over = source.image_over(&one);
        assert_eq!(over.config, one.config);
        assert_ne!(over.layer.1, one.layer.1);
        let read: serde_json::Value = serde_json::from_slice(&over.manifest).unwrap();
        assert_eq!(read["layers"][0]["digest"], over.layer.1);
    }
}
