//! Where files are: the only module that makes or reads file names.
//!
//! Guarantees: a name is made of digits that this program wrote (hexadecimal digests, numbers,
//! session ids), so nothing a client says becomes part of a path.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nora_domain::{Algorithm, Digest, Epoch, Generation, UploadId};
use nora_uploads::{id_of, name_of};

use crate::census::Census;

const CHUNKS_SUFFIX: &str = ".chunks";
const SIDECAR_SUFFIX: &str = ".json";

/// The folders and files below the data folder.
#[derive(Clone)]
pub(crate) struct Layout {
    blobs: PathBuf,
    uploads: PathBuf,
    incoming: PathBuf,
    quarantine: PathBuf,
    cache: PathBuf,
    scrub: PathBuf,
    compare: PathBuf,
    changes: PathBuf,
    census: Arc<Census>,
}

/// What a file in a blob folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BlobFileName {
    pub(crate) digest: Digest,
    pub(crate) generation: Generation,
}

/// What a file in the folder of sessions is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UploadFileName {
    Bytes(UploadId),
    Sidecar(UploadId),
}

impl Layout {
    /// Makes the top folders, durably, and empties that of copies on their way in: whoever sent them
    /// has no answer and sends them again.
    pub(crate) fn create(data_dir: &Path) -> io::Result<Self> {
        let layout = Self {
            blobs: data_dir.join("blobs"),
            uploads: data_dir.join("uploads"),
            incoming: data_dir.join("incoming"),
            quarantine: data_dir.join("quarantine"),
            cache: data_dir.join("cache"),
            scrub: data_dir.join("scrub.json"),
            compare: data_dir.join("compare.json"),
            changes: data_dir.join("changes.json"),
            census: Arc::default(),
        };
        for dir in [&layout.blobs, &layout.uploads, &layout.incoming, &layout.quarantine] {
            std::fs::create_dir_all(dir)?;
        }
        for entry in std::fs::read_dir(&layout.incoming)? {
            std::fs::remove_file(entry?.path())?;
        }
        sync_dir(data_dir)?;
        Ok(layout)
    }

    /// A file for a copy on its way in; `number` tells it from others of this process.
    pub(crate) fn incoming(&self, number: u64) -> PathBuf {
        self.incoming.join(number.to_string())
    }

    /// Where a damaged copy is set aside.
    pub(crate) fn quarantined(&self, digest: &Digest, generation: Generation) -> PathBuf {
        let algorithm = digest.algorithm();
        self.quarantine.join(format!("{algorithm}.{}", blob_file_name(digest, generation)))
    }

    /// The folder for parts of other nodes' copies.
    pub(crate) fn cache(&self) -> &Path {
        &self.cache
    }

    /// Where the scrubber notes how far it is.
    pub(crate) fn scrub_position(&self) -> &Path {
        &self.scrub
    }

    /// Where the comparison of all blobs notes how far it is.
    pub(crate) fn compare_position(&self) -> &Path {
        &self.compare
    }

    /// Where it is noted up to where changes of the state were followed.
    pub(crate) fn changes_cursor(&self) -> &Path {
        &self.changes
    }

    /// How many copies there are.
    pub(crate) fn census(&self) -> &Census {
        &self.census
    }

    /// Removes a copy's file; true if there was one.
    pub(crate) fn remove_blob(&self, digest: &Digest, generation: Generation) -> io::Result<bool> {
        let mut change = self.census.change(digest);
        match std::fs::remove_file(self.blob(digest, generation)) {
            Ok(()) => {
                change.removed();
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn uploads(&self) -> &Path {
        &self.uploads
    }

    pub(crate) fn upload(&self, id: UploadId) -> PathBuf {
        self.uploads.join(name_of(id))
    }

    pub(crate) fn sidecar(&self, id: UploadId) -> PathBuf {
        self.uploads.join(name_of(id) + SIDECAR_SUFFIX)
    }

    pub(crate) fn algorithm_dir(&self, algorithm: Algorithm) -> PathBuf {
        self.blobs.join(algorithm.name())
    }

    /// The folder of a blob: a 256th of its algorithm's.
    pub(crate) fn blob_dir(&self, digest: &Digest) -> PathBuf {
        let shard = digest.value().first().copied().unwrap_or_default();
        self.algorithm_dir(digest.algorithm()).join(format!("{shard:02x}"))
    }

    pub(crate) fn blob(&self, digest: &Digest, generation: Generation) -> PathBuf {
        self.blob_dir(digest).join(blob_file_name(digest, generation))
    }

    pub(crate) fn chunks(&self, digest: &Digest, generation: Generation) -> PathBuf {
        self.blob_dir(digest).join(blob_file_name(digest, generation) + CHUNKS_SUFFIX)
    }

    /// Makes the folder of a blob and everything above it, durably. Needed once for each of 256
    /// folders.
    pub(crate) fn create_blob_dir(&self, digest: &Digest) -> io::Result<()> {
        std::fs::create_dir_all(self.blob_dir(digest))?;
        sync_dir(&self.algorithm_dir(digest.algorithm()))?;
        sync_dir(&self.blobs)
    }
}

/// Makes the names in a folder durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn blob_file_name(digest: &Digest, generation: Generation) -> String {
    format!("{}.{}-{}", digest.hex(), generation.epoch.0, generation.sequence)
}

impl BlobFileName {
    /// Reads the name of a blob's bytes or of its chunk table; `None` for a name this program does
    /// not write.
    pub(crate) fn parse(algorithm: Algorithm, name: &str) -> Option<Self> {
        let stem = name.strip_suffix(CHUNKS_SUFFIX).unwrap_or(name);
        let (hex, generation) = stem.split_once('.')?;
        let digest = Digest::parse(&format!("{algorithm}:{hex}")).ok()?;
        let (epoch, sequence) = generation.split_once('-')?;
        let generation =
            Generation { epoch: Epoch(epoch.parse().ok()?), sequence: sequence.parse().ok()? };
        (blob_file_name(&digest, generation) == stem).then_some(Self { digest, generation })
    }
}

impl UploadFileName {
    /// Reads a name in the folder of sessions; `None` for a name this program does not write.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name.strip_suffix(SIDECAR_SUFFIX) {
            Some(name) => id_of(name).map(Self::Sidecar),
            None => id_of(name).map(Self::Bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blob_names_round_trip_and_are_strict() {
        let digest = Digest::sha256([0xab; 32]);
        let generation = Generation { epoch: Epoch(3), sequence: 41 };
        let name = blob_file_name(&digest, generation);
        assert_eq!(name, format!("{}.3-41", "ab".repeat(32)));
        let parsed = Some(BlobFileName { digest, generation });
        assert_eq!(BlobFileName::parse(Algorithm::Sha256, &name), parsed);
        assert_eq!(BlobFileName::parse(Algorithm::Sha256, &format!("{name}.chunks")), parsed);
        for bad in
            ["", "x", "README", &name[1..], &name.replace("3-41", "03-41"), &name.to_uppercase()]
        {
            assert_eq!(BlobFileName::parse(Algorithm::Sha256, bad), None, "{bad}");
        }
        assert_eq!(BlobFileName::parse(Algorithm::Sha512, &name), None);
    }

    #[test]
    fn session_names_round_trip_and_are_strict() {
        let id = UploadId(0xfe);
        let hex = format!("{:032x}", id.0);
        assert_eq!(UploadFileName::parse(&hex), Some(UploadFileName::Bytes(id)));
        assert_eq!(
            UploadFileName::parse(&format!("{hex}.json")),
            Some(UploadFileName::Sidecar(id))
        );
        for bad in ["", "..", &hex[1..], &hex.to_uppercase(), &format!("+{}", &hex[1..])] {
            assert_eq!(UploadFileName::parse(bad), None, "{bad}");
        }
    }
}
